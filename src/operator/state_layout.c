/*
 * state_layout.c - where a version's state table keeps what, and its DDL.
 *
 * Pure but for looking up names of types and collations in core's catalogs;
 * runs in backends (creating an operator) and in workers.  It executes
 * nothing and holds nothing.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "operator/state_layout.h"
#include "operator/state_table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "weir_errors.h"

/*
 * State rows are updated over and over, never appended for long: with room for
 * a second version of each row, a batch that touches all of them stays HOT.
 * With less the table grows to that size all the same, by way of updates that
 * write to the index, and beyond.  Vacuum comes early because the tables are small and
 * hot; it never truncates, because that takes an ACCESS EXCLUSIVE lock that
 * the reader and everybody's queries would queue behind.
 */
#define STATE_TABLE_OPTIONS \
	"fillfactor = 45, vacuum_truncate = false, " \
	"autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05, " \
	"autovacuum_analyze_threshold = 500, autovacuum_analyze_scale_factor = 0.1, " \
	"autovacuum_vacuum_cost_delay = 0"

static const WeirColumn shard_column = {"_weir_shard", INT4OID, -1, InvalidOid};

WeirStateLayout *
weir_state_layout_create(const WeirDefinition *def)
{
	WeirStateLayout *layout = palloc0(sizeof(WeirStateLayout));
	int			natts = 0;

	layout->def = def;
	layout->columns = palloc(sizeof(WeirColumn *) *
							 (def->noutputs + def->nkeys + def->nhidden + 1));
	layout->key_attnums = palloc(sizeof(AttrNumber) * Max(def->nkeys, 1));

	for (int i = 0; i < def->noutputs; i++)
		layout->columns[natts++] = &def->outputs[i].column;
	for (int i = 0; i < def->nkeys; i++)
	{
		if (def->keys[i].output >= 0)
			layout->key_attnums[i] = def->keys[i].output + 1;
		else
		{
			layout->columns[natts++] = &def->keys[i].column;
			layout->key_attnums[i] = natts;
		}
	}
	layout->first_hidden = natts + 1;
	for (int i = 0; i < def->nhidden; i++)
		layout->columns[natts++] = &def->hidden[i];
	layout->columns[natts++] = &shard_column;
	layout->shard = natts;
	layout->natts = natts;
	return layout;
}

void
weir_state_layout_check(const WeirStateLayout *layout, Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);

	/* Rows are pruned and measured as heap tuples. */
	if (relation->rd_rel->relam != HEAP_TABLE_AM_OID)
		elog(ERROR, "state table %u has access method %u", RelationGetRelid(relation),
			 relation->rd_rel->relam);
	for (int i = 0; i < Max(layout->natts, desc->natts); i++)
	{
		Form_pg_attribute att = i < desc->natts ? TupleDescAttr(desc, i) : NULL;
		Oid			expected = i < layout->natts ? layout->columns[i]->type : InvalidOid;

		if (att && !att->attisdropped && att->atttypid == expected)
			continue;
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STATE_CORRUPT),
				 errmsg("state table \"%s\" does not have the columns of its version",
						RelationGetRelationName(relation)),
				 errdetail("Column %d is %s, not %s.", i + 1,
						   att && !att->attisdropped ? format_type_be(att->atttypid) : "missing",
						   OidIsValid(expected) ? format_type_be(expected) : "expected"),
				 errhint(WEIR_REBUILD_HINT)));
	}
}

TupleDesc
weir_state_delta_desc(const WeirDefinition *def)
{
	TupleDesc	desc = CreateTemplateTupleDesc(def->nkeys + def->nhidden + 1);
	AttrNumber	attnum = 1;

	for (int i = 0; i < def->nkeys; i++, attnum++)
	{
		TupleDescInitEntry(desc, attnum, def->keys[i].column.name, def->keys[i].column.type, -1, 0);
		TupleDescInitEntryCollation(desc, attnum, def->keys[i].column.collation);
	}
	for (int i = 0; i < def->nhidden; i++, attnum++)
	{
		TupleDescInitEntry(desc, attnum, def->hidden[i].name, def->hidden[i].type, -1, 0);
		TupleDescInitEntryCollation(desc, attnum, def->hidden[i].collation);
	}
	TupleDescInitEntry(desc, attnum, "sign", INT4OID, -1, 0);
	return desc;
}

/* A wrong type would be read as another type's bytes: never trust the query text. */
void
weir_state_delta_check(TupleDesc expected, TupleDesc actual)
{
	if (actual->natts != expected->natts)
		elog(ERROR, "delta rows have %d columns, not %d", actual->natts, expected->natts);
	for (int i = 0; i < expected->natts; i++)
	{
		Oid			type = TupleDescAttr(actual, i)->atttypid;

		if (type != TupleDescAttr(expected, i)->atttypid)
			elog(ERROR, "column %d of delta rows has type %u, not %u",
				 i + 1, type, TupleDescAttr(expected, i)->atttypid);
	}
}

static void
append_collation(StringInfo sql, const WeirColumn *column)
{
	HeapTuple	tuple;
	Form_pg_collation form;

	if (!OidIsValid(column->collation) || column->collation == get_typcollation(column->type))
		return;
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(column->collation));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", column->collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	appendStringInfo(sql, " COLLATE %s",
					 quote_qualified_identifier(get_namespace_name(form->collnamespace),
												NameStr(form->collname)));
	ReleaseSysCache(tuple);
}

/*
 * The access method is named because the apply path prunes heap pages itself,
 * whatever default_table_access_method says.
 */
char *
weir_state_create_sql(const WeirDefinition *def, const char *table_name)
{
	WeirStateLayout *layout = weir_state_layout_create(def);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (",
					 quote_qualified_identifier(WEIR_STATE_SCHEMA, table_name));
	for (int i = 0; i < layout->natts; i++)
	{
		const WeirColumn *column = layout->columns[i];

		appendStringInfo(&sql, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(column->name),
						 format_type_extended(column->type, column->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		append_collation(&sql, column);
	}
	appendStringInfoString(&sql, ") USING heap WITH (" STATE_TABLE_OPTIONS ")");
	return sql.data;
}

/*
 * ANALYZE runs as the table's owner, a superuser, and asks what belongs to a
 * type for its statistics: the subtype_diff of a range is anybody's function.
 * Nothing here is planned by them; so none for types that are not the server's.
 */
char *
weir_state_statistics_sql(const WeirDefinition *def, const char *table_name)
{
	WeirStateLayout *layout = weir_state_layout_create(def);
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < layout->natts; i++)
		if (layout->columns[i]->type >= FirstUnpinnedObjectId)
			appendStringInfo(&sql, "%s ALTER COLUMN %s SET STATISTICS 0", sql.len > 0 ? "," : "",
							 quote_identifier(layout->columns[i]->name));
	if (sql.len == 0)
		return NULL;
	return psprintf("ALTER TABLE %s%s", quote_qualified_identifier(WEIR_STATE_SCHEMA, table_name), sql.data);
}

char *
weir_state_index_sql(const WeirDefinition *def, const char *table_name)
{
	WeirStateLayout *layout = weir_state_layout_create(def);
	StringInfoData sql;

	if (def->nkeys == 0)
		return NULL;

	/* A name of its own: two builds at a time could be given the same one by core. */
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE UNIQUE INDEX %s ON %s (",
					 quote_identifier(psprintf("%s" WEIR_STATE_INDEX_SUFFIX, table_name)),
					 quote_qualified_identifier(WEIR_STATE_SCHEMA, table_name));
	for (int i = 0; i < def->nkeys; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(layout->columns[layout->key_attnums[i] - 1]->name));
	appendStringInfoString(&sql, ") NULLS NOT DISTINCT");
	return sql.data;
}
