/*
 * drift.c - comparing two versions' rows exactly, as multisets.
 *
 * Runs in the coordinator (validating) and in a verification's reader. One
 * aggregation over both tables instead of EXCEPT ALL both ways: each row is
 * read once and the executor spills by itself. Reads only.
 */
#include "postgres.h"

#include "access/table.h"
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
		 * whoever owns the type, and the coordinator does not wait for those.
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

WeirDrift
weir_drift_compare(Oid expected, Oid actual, List *columns, Oid owner)
{
	WeirDrift	drift = {0, 0};
	WeirOwnerScope scope;
	StringInfoData sql;
	bool		isnull;
	int			rc;

	if (columns == NIL)
		return drift;			/* nothing that both should agree on */

	/* Columns are named by position, so that no name of the user's can clash. */
	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT coalesce(sum(n) FILTER (WHERE n > 0), 0)::bigint, "
						   "coalesce(-sum(n) FILTER (WHERE n < 0), 0)::bigint FROM (SELECT sum(side) AS n FROM (");
	append_side(&sql, expected, columns, 1);
	appendStringInfoString(&sql, " UNION ALL ");
	append_side(&sql, actual, columns, -1);
	appendStringInfoString(&sql, ") AS rows (");
	for (int i = 1; i <= list_length(columns); i++)
		appendStringInfo(&sql, "c%d, ", i);
	appendStringInfoString(&sql, "side) GROUP BY ");
	for (int i = 1; i <= list_length(columns); i++)
		appendStringInfo(&sql, "%sc%d", i == 1 ? "" : ", ", i);
	appendStringInfoString(&sql, " HAVING sum(side) <> 0) AS differences");

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
