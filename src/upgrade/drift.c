/*
 * drift.c - comparing two versions' rows, as multisets.
 *
 * Runs in gatekeepers and in a verification's reader. One
 * aggregation over both tables instead of EXCEPT ALL both ways: each row is
 * read once and the executor spills by itself. Reads only.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "operator/owner_scope.h"
#include "upgrade/drift.h"

static void
append_columns(StringInfo sql, Oid table, List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		const char *name = lfirst(lc);
		AttrNumber	attnum = get_attnum(table, name);
		TypeCacheEntry *type;

		if (attnum == InvalidAttrNumber)
			elog(ERROR, "state table %u has no column \"%s\"", table, name);
		type = lookup_type_cache(get_atttype(table, attnum), TYPECACHE_EQ_OPR);
		/*
		 * By the type's output function: a cast to text may be a function of
		 * whoever owns the type, which nobody asked for.
		 */
		appendStringInfo(sql, OidIsValid(type->eq_opr) ? "%s, " : "pg_catalog.format('%%L', %s), ",
						 quote_identifier(name));
	}
}

static void
append_side(StringInfo sql, Oid table, List *columns, int sign)
{
	appendStringInfoString(sql, "SELECT ");
	append_columns(sql, table, columns);
	appendStringInfo(sql, "%d FROM %s", sign,
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												get_rel_name(table)));
}

/* c1, c2, ...: columns are named by position, so that no name of the user's can clash. */
static char *
column_names(int count)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&names, "%sc%d", i == 1 ? "" : ", ", i);
	return names.data;
}

/* SELECT of the distinct rows that the two do not have equally often; n: how many more the expected one has. */
static void
append_exact_differences(StringInfo sql, Oid expected, Oid actual, List *columns)
{
	char	   *names = column_names(list_length(columns));

	appendStringInfo(sql, "SELECT %s, sum(side) AS n FROM (", names);
	append_side(sql, expected, columns, 1);
	appendStringInfoString(sql, " UNION ALL ");
	append_side(sql, actual, columns, -1);
	appendStringInfo(sql, ") AS rows (%s, side) GROUP BY %s HAVING sum(side) <> 0", names, names);
}

/* Tolerance of a column, relative to the smaller of two values; NULL: none. */
static const char *
tolerance_of(Oid table, const char *column)
{
	switch (get_atttype(table, get_attnum(table, column)))
	{
		case FLOAT8OID:
			return WEIR_DRIFT_TOLERANCE_FLOAT8;
		case FLOAT4OID:
			return WEIR_DRIFT_TOLERANCE_FLOAT4;
		default:
			return NULL;
	}
}

/*
 * The same without rows that differ in floats only, and by no more than their
 * tolerance. Rows equal in all else are sorted by their floats and compared
 * in pairs. As numeric, which knows no overflow.
 */
static void
append_differences(StringInfo sql, Oid expected, Oid actual, List *columns, bool is_tolerant)
{
	StringInfoData others;
	StringInfoData floats;
	StringInfoData close;
	char	   *names = column_names(list_length(columns));
	ListCell   *lc;

	initStringInfo(&others);
	initStringInfo(&floats);
	initStringInfo(&close);
	foreach(lc, columns)
	{
		int			column = foreach_current_index(lc) + 1;
		const char *tolerance = tolerance_of(expected, lfirst(lc));

		if (tolerance == NULL)
		{
			appendStringInfo(&others, "c%d, ", column);
			continue;
		}
		appendStringInfo(&floats, "%sc%d", floats.len ? ", " : "", column);
		appendStringInfo(&close, " AND (num_nulls(%1$s, %2$s) = 2 OR %1$s = %2$s OR "
						 "abs(%1$s::numeric - %2$s::numeric) <= %3$s * least(abs(%1$s::numeric), abs(%2$s::numeric)))",
						 psprintf("(min(c%d) FILTER (WHERE n > 0) OVER w)", column),
						 psprintf("(min(c%d) FILTER (WHERE n < 0) OVER w)", column), tolerance);
	}
	if (!is_tolerant || floats.len == 0)
	{
		append_exact_differences(sql, expected, actual, columns);
		return;
	}
	appendStringInfo(sql, "SELECT %s, sign(n) AS n FROM (SELECT %s, n, count(*) OVER w = 2%s AS is_close FROM ("
					 "SELECT %s, n, row_number() OVER (PARTITION BY %sn > 0 ORDER BY %s) AS place FROM (",
					 names, names, close.data, names, others.data, floats.data);
	append_exact_differences(sql, expected, actual, columns);
	appendStringInfo(sql, ") AS exact, generate_series(1, abs(n))) AS placed WINDOW w AS (PARTITION BY %splace)"
					 ") AS judged WHERE is_close IS NOT TRUE", others.data);
}

WeirDrift
weir_drift_compare(Oid expected, Oid actual, List *columns, Oid owner, bool is_tolerant)
{
	WeirDrift	drift = {0, 0};
	WeirOwnerScope scope;
	StringInfoData sql;
	bool		isnull;
	int			rc;

	if (columns == NIL)
		return drift;			/* nothing that both should agree on */

	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT coalesce(sum(n) FILTER (WHERE n > 0), 0)::bigint, "
						   "coalesce(-sum(n) FILTER (WHERE n < 0), 0)::bigint FROM (");
	append_differences(&sql, expected, actual, columns, is_tolerant);
	appendStringInfoString(&sql, ") AS differences");

	weir_owner_scope_enter(&scope, owner);
	rc = SPI_execute(sql.data, true, 0);
	weir_owner_scope_leave(&scope);
	if (rc != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not compare state tables %u and %u: %s", expected, actual,
			 SPI_result_code_string(rc));
	drift.missing = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	drift.extra = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return drift;
}

/* One side of the differences: the row as jsonb, and the keys to find the other side's by. */
static void
append_sample_side(StringInfo sql, List *columns, List *keys, const char *condition)
{
	ListCell   *lc;
	int			column = 0;

	appendStringInfoString(sql, "SELECT jsonb_build_object(");
	foreach(lc, columns)
	{
		column++;
		appendStringInfo(sql, "%s%s, CASE WHEN num_nulls(c%d) = 0 THEN format('%%s', c%d) END", column == 1 ? "" : ", ",
						 quote_literal_cstr(lfirst(lc)), column, column);
	}
	appendStringInfoString(sql, ") AS r, 0 AS k0");
	column = 0;
	foreach(lc, columns)
	{
		ListCell   *key;

		column++;
		foreach(key, keys)
			if (strcmp(lfirst(key), lfirst(lc)) == 0)
				appendStringInfo(sql, ", format('%%L', c%d) AS k%d", column, foreach_current_index(key) + 1);
	}
	appendStringInfo(sql, " FROM differences WHERE n %s", condition);
}

List *
weir_drift_sample(Oid expected, Oid actual, List *columns, List *keys, Oid owner, int limit)
{
	WeirOwnerScope scope;
	StringInfoData sql;
	MemoryContext context = CurrentMemoryContext;
	List	   *samples = NIL;
	int			rc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "WITH differences AS MATERIALIZED (");
	append_differences(&sql, expected, actual, columns, true);
	appendStringInfoString(&sql, ") SELECT o.r::text, a.r::text FROM (");
	append_sample_side(&sql, columns, keys, "> 0");
	appendStringInfoString(&sql, ") AS o FULL JOIN (");
	append_sample_side(&sql, columns, keys, "< 0");
	/* Without a key nothing tells which rows belong together. */
	appendStringInfo(&sql, ") AS a ON o.k0 = a.k0 + %d", keys == NIL ? 1 : 0);
	for (int i = 1; i <= list_length(keys); i++)
		appendStringInfo(&sql, " AND o.k%d = a.k%d", i, i);

	weir_owner_scope_enter(&scope, owner);
	rc = SPI_execute(sql.data, true, limit);
	weir_owner_scope_leave(&scope);
	MemoryContextSwitchTo(context);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not sample state tables %u and %u: %s", expected, actual, SPI_result_code_string(rc));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		WeirDriftSample *sample = palloc(sizeof(WeirDriftSample));

		sample->old_row = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1);
		sample->new_row = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 2);
		samples = lappend(samples, sample);
	}
	return samples;
}
