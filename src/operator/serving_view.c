/*
 * serving_view.c - the operator's view over its versions' state tables.
 *
 * Created in the creator's session and owned by it; replaced by the
 * coordinator. While an upgrade shifts, is about to or has, the view has two
 * branches. Each reads the shards that weir_internal.serving gives to its
 * version in the reader's own snapshot, so a reader of an older snapshot still
 * sees what served in it (I1). The bounds are sub-selects that run once: one
 * that leaves nothing to a branch is a one-time filter, and the branch is not
 * scanned. A filter like that stands in a new operator's view, too, whose rows
 * come in several transactions and must appear at once.
 *
 * Nobody can write through the view, not even a superuser: what is in a state
 * table is the reader's alone.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_rewrite.h"
#include "catalog/namespace.h"
#include "commands/comment.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#include "catalog/catalog_query.h"
#include "catalog/serving_catalog.h"
#include "operator/serving_view.h"

/* Attempts to find the relation unlocked, one millisecond apart. */
#define LOCK_ATTEMPTS 50

/*
 * Beside the only table of a view: core lets a view be written to when it reads
 * one relation and nothing else. The planner removes it, so it costs a reader
 * nothing, unlike OFFSET 0, which would keep conditions from the index. (A
 * UNION ALL cannot be written to anyway.)
 */
#define READ_ONLY ", (SELECT) AS read_only"

static char *
qualified_name(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
									  get_rel_name(relation));
}

static void
append_pointer(StringInfo sql, int64 operator_id, int version)
{
	appendStringInfo(sql,
					 " WHERE (SELECT s.shown_version FROM weir_internal.serving s WHERE s.operator_id = "
					 INT64_FORMAT ") = %d", operator_id, version);
}

/* The session reads the candidate, if there is one; evaluated in the reader's session, for each statement. */
#define CANDIDATE_IS_ASKED_FOR "pg_catalog.current_setting('weir.read_version', true) = 'candidate'"

/*
 * Of two versions the old one serves from a shard on, the new one below a
 * shard. Which of the two is the candidate changes at the last step, with the
 * same row. A version that the row does not name serves nothing.
 */
static void
append_share(StringInfo sql, int64 operator_id, int version, bool is_new)
{
	char	   *bound = is_new ?
		psprintf("(SELECT CASE WHEN s.shown_version = %d THEN %d WHEN s.candidate <> %d THEN 0 "
				 "WHEN " CANDIDATE_IS_ASKED_FOR " THEN %d ELSE s.split END",
				 version, WEIR_SHARDS, version, WEIR_SHARDS) :
		psprintf("(SELECT CASE WHEN s.shown_version <> %d THEN %d WHEN s.candidate = 0 THEN 0 "
				 "WHEN " CANDIDATE_IS_ASKED_FOR " THEN %d ELSE s.split END",
				 version, WEIR_SHARDS, WEIR_SHARDS);

	bound = psprintf("%s FROM weir_internal.serving s WHERE s.operator_id = " INT64_FORMAT ")", bound, operator_id);
	if (is_new)
		appendStringInfo(sql, " WHERE %s > 0 AND _weir_shard < %s", bound, bound);
	else
		appendStringInfo(sql, " WHERE %s < %d AND _weir_shard >= %s", bound, WEIR_SHARDS, bound);
}

Oid
weir_serving_view_create(RangeVar *name, const WeirDefinition *definition, const WeirVersion *version)
{
	StringInfoData sql;
	Oid			namespace = RangeVarGetCreationNamespace(name);
	Oid			view;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE VIEW %s AS SELECT ",
					 quote_qualified_identifier(get_namespace_name(namespace), name->relname));
	for (int i = 0; i < definition->noutputs; i++)
		appendStringInfo(&sql, "%s%s", i == 0 ? "" : ", ",
						 quote_identifier(definition->outputs[i].column.name));
	appendStringInfo(&sql, " FROM %s" READ_ONLY, qualified_name(version->state_table));
	append_pointer(&sql, version->operator_id, version->version);
	weir_run_utility(sql.data);
	view = get_relname_relid(name->relname, namespace);
	weir_serving_view_comment(view, definition, NULL);
	return view;
}

/* As in a CREATE TABLE. */
static char *
type_and_collation(Oid type, int32 typmod, Oid collation)
{
	char	   *name = format_type_with_typemod(type, typmod);

	return collation == get_typcollation(type) ? name :
		psprintf("%s COLLATE %s", name, generate_collation_name(collation));
}

static const WeirOutput *
find_output(const WeirDefinition *definition, const char *name)
{
	for (int i = 0; i < definition->noutputs; i++)
		if (strcmp(definition->outputs[i].column.name, name) == 0)
			return &definition->outputs[i];
	return NULL;
}

void
weir_serving_view_comment(Oid view, const WeirDefinition *next, const WeirDefinition *previous)
{
	for (int i = 0; i < next->noutputs; i++)
	{
		const char *name = next->outputs[i].column.name;
		const WeirOutput *old = previous ? find_output(previous, name) : NULL;
		AttrNumber	attnum = get_attnum(view, name);
		char	   *comment;

		if (attnum == InvalidAttrNumber)
			continue;
		comment = GetComment(view, RelationRelationId, attnum);
		if (comment == NULL || (old != NULL && strcmp(comment, old->sql) == 0))
			CreateComments(view, RelationRelationId, attnum, next->outputs[i].sql);
	}
	if (GetComment(view, RelationRelationId, 0) == NULL)
		CreateComments(view, RelationRelationId, 0,
					   psprintf("pg_weir operator over %s", qualified_name(next->source)));
}

/* A column of the view, and the column of the state tables that it shows: another one's name once a user has renamed it. */
typedef struct ViewColumn
{
	FormData_pg_attribute attribute;
	const char *source;
} ViewColumn;

/* The state tables' column that the view's column at this position shows; NULL when no branch has it. */
static const char *
shown_column(Query *query, int position)
{
	ListCell   *lc;
	const char *name = NULL;
	Expr	   *expr;

	if (query->setOperations == NULL)
	{
		expr = list_nth_node(TargetEntry, query->targetList, position)->expr;
		if (!IsA(expr, Var))
			return NULL;
		return get_rte_attribute_name(rt_fetch(((Var *) expr)->varno, query->rtable), ((Var *) expr)->varattno);
	}
	foreach(lc, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, lc);

		if (name == NULL && entry->rtekind == RTE_SUBQUERY && entry->subquery != NULL)
			name = shown_column(entry->subquery, position);
	}
	return name;
}

static const char *
source_of_column(Relation view, Form_pg_attribute attribute)
{
	const char *shown = shown_column(get_view_query(view), attribute->attnum - 1);

	return shown != NULL ? shown : NameStr(attribute->attname);
}

/* The column as the view has it, or as the version brings it: an expression of exactly that type. */
static void
append_view_column(StringInfo sql, const ViewColumn *column, Oid state_table)
{
	const FormData_pg_attribute *attribute = &column->attribute;
	const char *name = NameStr(attribute->attname);

	if (get_attnum(state_table, column->source) != InvalidAttrNumber)
		appendStringInfoString(sql, quote_identifier(column->source));
	else
	{
		appendStringInfo(sql, "NULL::%s",
						 format_type_extended(attribute->atttypid, attribute->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(attribute->attcollation))
			appendStringInfo(sql, " COLLATE %s", generate_collation_name(attribute->attcollation));
	}
	appendStringInfo(sql, " AS %s", quote_identifier(name));
}

static bool
is_known(List *columns, const char *source)
{
	ListCell   *lc;

	foreach(lc, columns)
		if (strcmp(((ViewColumn *) lfirst(lc))->source, source) == 0)
			return true;
	return false;
}

/* Columns of the view today, then those that only the version's state table has. */
static List *
view_columns(Oid view, Oid first_table, Oid second_table)
{
	Oid			relations[] = {view, first_table, second_table};
	List	   *columns = NIL;

	for (int i = 0; i < lengthof(relations); i++)
	{
		Relation	rel;

		if (!OidIsValid(relations[i]))
			continue;
		rel = table_open(relations[i], AccessShareLock);
		for (int attribute = 0; attribute < RelationGetDescr(rel)->natts; attribute++)
		{
			Form_pg_attribute form = TupleDescAttr(RelationGetDescr(rel), attribute);
			const char *source = relations[i] == view ? source_of_column(rel, form) : NameStr(form->attname);
			ViewColumn *column;

			if (form->attisdropped || strncmp(NameStr(form->attname), "_weir_", 6) == 0 ||
				(i > 0 && is_known(columns, source)))
				continue;
			column = palloc0(sizeof(ViewColumn));
			memcpy(&column->attribute, form, ATTRIBUTE_FIXED_PART_SIZE);
			column->source = pstrdup(source);
			columns = lappend(columns, column);
		}
		table_close(rel, AccessShareLock);
	}
	return columns;
}

static void
append_branch(StringInfo sql, List *columns, const WeirVersion *version)
{
	ListCell   *lc;

	appendStringInfoString(sql, "SELECT ");
	foreach(lc, columns)
	{
		if (lc != list_head(columns))
			appendStringInfoString(sql, ", ");
		append_view_column(sql, lfirst(lc), version->state_table);
	}
	appendStringInfo(sql, " FROM %s", qualified_name(version->state_table));
}

/* " WITH (...)" as its owner has set them (security_barrier...): replacing a view without them resets them. */
static const char *
view_options(Oid view)
{
	char	   *options;

	weir_query(NULL, "SELECT string_agg(o, ', ') FROM pg_class, unnest(reloptions) AS o WHERE oid = $1", "o", view);
	options = weir_result_text(0, 1);
	return options == NULL ? "" : psprintf(" WITH (%s)", options);
}

void
weir_serving_view_replace(const WeirOperator *operator, const WeirVersion *first,
						  const WeirVersion *second)
{
	StringInfoData sql;
	List	   *columns = view_columns(operator->view, first->state_table,
									   second ? second->state_table : InvalidOid);

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE VIEW %s%s AS ", qualified_name(operator->view),
					 view_options(operator->view));
	append_branch(&sql, columns, first);
	if (second == NULL)
		appendStringInfoString(&sql, READ_ONLY);
	else
	{
		append_share(&sql, operator->operator_id, first->version, false);
		appendStringInfoString(&sql, " UNION ALL ");
		append_branch(&sql, columns, second);
		append_share(&sql, operator->operator_id, second->version, true);
	}
	weir_run_utility(sql.data);
	weir_serving_set_view_versions(operator->operator_id, first->version,
								   second ? second->version : 0);
}

bool
weir_serving_view_try_lock(Oid relation)
{
	for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++)
	{
		if (ConditionalLockRelationOid(relation, AccessExclusiveLock))
			return true;
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* A view depends on what it reads by its rule, which nobody made by that name. */
static ObjectAddress
owner_of_rule(ObjectAddress address)
{
	Relation	rewrite;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (address.classId != RewriteRelationId)
		return address;
	rewrite = table_open(RewriteRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_rewrite_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(address.objectId));
	scan = systable_beginscan(rewrite, RewriteOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		ObjectAddressSet(address, RelationRelationId, ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class);
	systable_endscan(scan);
	table_close(rewrite, AccessShareLock);
	return address;
}

/* Descriptions of what uses a column of the view, other than the view itself. */
static char *
column_users(Oid view, AttrNumber attnum)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	StringInfoData users;

	initStringInfo(&users);
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(view));
	ScanKeyInit(&keys[2], Anum_pg_depend_refobjsubid, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(attnum));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 3, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		ObjectAddress address;

		ObjectAddressSet(address, form->classid, form->objid);
		address = owner_of_rule(address);
		if (users.len > 0)
			appendStringInfoString(&users, ", ");
		appendStringInfoString(&users, getObjectDescription(&address, false));
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return users.len > 0 ? users.data : NULL;
}

static WeirObjection *
objection(const char *column, int sqlstate, char *message, char *detail, char *hint)
{
	WeirObjection *result = palloc(sizeof(WeirObjection));

	result->column = pstrdup(column);
	result->sqlstate = sqlstate;
	result->message = message;
	result->detail = detail;
	result->hint = hint;
	return result;
}

List *
weir_serving_view_objections(Oid view, const WeirDefinition *next)
{
	Relation	rel = table_open(view, AccessShareLock);
	List	   *objections = NIL;

	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), i);
		const char *name = NameStr(attribute->attname);
		const char *source = source_of_column(rel, attribute);
		const WeirOutput *output = find_output(next, source);
		char	   *users;

		if (output == NULL)
		{
			users = column_users(view, attribute->attnum);
			if (users != NULL)
				objections = lappend(objections,
									 objection(source, ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
											   psprintf("column \"%s\" would go, but other objects use it", name),
											   psprintf("Used by %s.", users),
											   psprintf("Keep an output column named %s, or drop what uses it.",
														quote_identifier(source))));
		}
		else if (output->column.type != attribute->atttypid ||
				 output->column.typmod != attribute->atttypmod ||
				 output->column.collation != attribute->attcollation)
			objections = lappend(objections,
								 objection(source, ERRCODE_DATATYPE_MISMATCH,
										   psprintf("column \"%s\" would change its type", name),
										   psprintf("It is %s and would be %s.",
													type_and_collation(attribute->atttypid, attribute->atttypmod,
																	   attribute->attcollation),
													type_and_collation(output->column.type, output->column.typmod,
																	   output->column.collation)),
										   psprintf("Cast it to %s, or give it another name.",
													type_and_collation(attribute->atttypid, attribute->atttypmod,
																	   attribute->attcollation))));
	}
	table_close(rel, AccessShareLock);
	return objections;
}
