/*
 * objection_source.c - what speaks against a definition: its source.
 *
 * Owns the rules about FROM (exactly one table whose changes are in the WAL)
 * and, for creation only, about rights, row security and replica identity.
 * Runs where definitions are analysed.  Locks: AccessShareLock on what FROM
 * names, to the end of the transaction; leaf partitions are looked at without
 * a lock, because thousands of them may exist and a later change of one is
 * noticed by the reader anyway.  Reads core's catalogs, writes nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "operator/objection.h"
#include "weir_compat.h"

/* Leaf partitions named one by one in a hint; with more, a query that finds them all. */
#define MAX_NAMED_LEAVES 8

char *
weir_deparse_table_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

/* Copy of the pg_class row; false when it has just been dropped. */
static bool
read_class(Oid relid, FormData_pg_class *class)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		return false;
	memcpy(class, GETSTRUCT(tuple), CLASS_TUPLE_SIZE);
	ReleaseSysCache(tuple);
	return true;
}

/* Tables of a partitioned table that hold rows; the table itself if it does. */
static List *
leaf_tables(Oid relid)
{
	List	   *leaves = NIL;
	List	   *all;
	ListCell   *lc;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return list_make1_oid(relid);
	all = find_all_inheritors(relid, NoLock, NULL);
	foreach(lc, all)
	{
		char		relkind = get_rel_relkind(lfirst_oid(lc));

		if (relkind != '\0' && relkind != RELKIND_PARTITIONED_TABLE)
			leaves = lappend_oid(leaves, lfirst_oid(lc));
	}
	list_free(all);
	return leaves;
}

static void
check_kind(Oid relid, char relkind, List **objections)
{
	const struct
	{
		char		relkind;
		const char *what;
		const char *detail;
		const char *hint;
	}			kinds[] = {
		{RELKIND_VIEW, "a view", "A view has no row changes of its own.",
		"Write the definition over the table that the view reads."},
		{RELKIND_MATVIEW, "a materialized view", "REFRESH replaces its rows without row changes.",
		"Write the definition over the tables that it reads."},
		{RELKIND_FOREIGN_TABLE, "a foreign table", "Its rows change elsewhere.",
		"Write the definition in the database where the table is."},
		{RELKIND_SEQUENCE, "a sequence", "Sequences have no row changes.",
		"Write the definition over a table."},
		{RELKIND_TOASTVALUE, "a TOAST table", "Its rows are parts of another table's values.",
		"Write the definition over the table that it belongs to."},
	};

	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (kinds[i].relkind == relkind)
			weir_objection_add(objections, ERRCODE_WRONG_OBJECT_TYPE,
							   psprintf("%s is %s", weir_deparse_table_name(relid), kinds[i].what),
							   kinds[i].detail, kinds[i].hint);
	}
}

static void
check_persistence(Oid relid, char persistence, List **objections)
{
	if (persistence == RELPERSISTENCE_UNLOGGED)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s is an unlogged table", weir_deparse_table_name(relid)),
						   "Its changes are not in the WAL.",
						   psprintf("ALTER TABLE %s SET LOGGED;", weir_deparse_table_name(relid)));
	else if (persistence == RELPERSISTENCE_TEMP)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s is a temporary table", weir_deparse_table_name(relid)),
						   "Its changes are not in the WAL, and it ends with the session.",
						   "Use a permanent table.");
}

/* False: a table of the server's or of ours, of which nothing else needs to be said. */
static bool
check_schema(Oid relid, const FormData_pg_class *class, List **objections)
{
	char	   *schema = get_namespace_name(class->relnamespace);

	if (relid < FirstNormalObjectId || class->relnamespace == PG_TOAST_NAMESPACE)
	{
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s is a system catalog", weir_deparse_table_name(relid)),
						   "Changes of system catalogs are not decoded.",
						   "Use a table of your own.");
		return false;
	}
	if (schema != NULL &&
		(strcmp(schema, WEIR_SCHEMA) == 0 || strcmp(schema, WEIR_INTERNAL_SCHEMA) == 0 ||
		 strcmp(schema, WEIR_STATE_SCHEMA) == 0))
	{
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s belongs to pg_weir", weir_deparse_table_name(relid)),
						   "Writes of pg_weir itself are not decoded.",
						   "Write the definition over the tables that the operator reads.");
		return false;
	}
	return true;
}

static void
check_inheritance(Oid relid, char relkind, bool with_children, List **objections)
{
	char	   *name = weir_deparse_table_name(relid);

	if (relkind == RELKIND_PARTITIONED_TABLE && !with_children)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("ONLY %s has no rows", name),
						   "The rows of a partitioned table are in its partitions.",
						   psprintf("Leave ONLY out: FROM %s", name));
	if (relkind == RELKIND_RELATION && with_children && has_subclass(relid) &&
		find_inheritance_children(relid, NoLock) != NIL)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s has inheritance children", name),
						   "Rows of children change as rows of tables of their own.",
						   psprintf("FROM ONLY %s", name));
}

static void
check_relation(Oid relid, bool with_children, List **objections)
{
	FormData_pg_class class;
	ListCell   *lc;

	/* The parser has locked it, but whoever reads a definition view has not. */
	LockRelationOid(relid, AccessShareLock);
	if (!read_class(relid, &class))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	if (!check_schema(relid, &class, objections))
		return;
	check_kind(relid, class.relkind, objections);
	check_inheritance(relid, class.relkind, with_children, objections);
	if (class.relkind == RELKIND_RELATION || class.relkind == RELKIND_PARTITIONED_TABLE)
	{
		/* Until 17 a partitioned table can be called unlogged, without any effect. */
		if (class.relkind == RELKIND_RELATION || class.relpersistence == RELPERSISTENCE_TEMP)
			check_persistence(relid, class.relpersistence, objections);
	}
	if (class.relkind != RELKIND_PARTITIONED_TABLE || class.relpersistence == RELPERSISTENCE_TEMP)
		return;
	foreach(lc, leaf_tables(relid))
	{
		FormData_pg_class leaf;

		if (!read_class(lfirst_oid(lc), &leaf))
			continue;
		check_kind(lfirst_oid(lc), leaf.relkind, objections);
		if (leaf.relkind == RELKIND_RELATION)
			check_persistence(lfirst_oid(lc), leaf.relpersistence, objections);
	}
}

/* Range table indexes of everything that FROM names, joins taken apart. */
static List *
from_items(Node *node)
{
	List	   *items = NIL;
	ListCell   *lc;

	if (node == NULL)
		return NIL;
	if (IsA(node, RangeTblRef))
		return list_make1_int(((RangeTblRef *) node)->rtindex);
	if (IsA(node, JoinExpr))
		return list_concat(from_items(((JoinExpr *) node)->larg), from_items(((JoinExpr *) node)->rarg));
	foreach(lc, castNode(FromExpr, node)->fromlist)
		items = list_concat(items, from_items(lfirst(lc)));
	return items;
}

static void
check_not_relation(RangeTblEntry *entry, List **objections)
{
	const char *what = NULL;

	switch (entry->rtekind)
	{
		case RTE_SUBQUERY:
			what = "a subquery";
			break;
		case RTE_FUNCTION:
		case RTE_TABLEFUNC:
			what = "the rows of a function";
			break;
		case RTE_VALUES:
			what = "VALUES";
			break;
		case RTE_NAMEDTUPLESTORE:
			what = "a transition table";
			break;
		default:
			/* A CTE: WITH is refused as a clause. */
			return;
	}
	weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
					   psprintf("the definition reads %s in FROM", what),
					   "Only a table has row changes that can be followed.",
					   "Name one table in FROM.");
}

static void
check_generated_columns(Query *query, Index rtindex, Oid relid, List **objections)
{
	Bitmapset  *columns = NULL;
	int			member = -1;

	pull_varattnos((Node *) query->targetList, rtindex, &columns);
	pull_varattnos(query->jointree->quals, rtindex, &columns);
	while ((member = bms_next_member(columns, member)) >= 0)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;
		HeapTuple	tuple;
		Form_pg_attribute attribute;

		if (attnum <= 0)
			continue;
		tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for attribute %d of relation %u", attnum, relid);
		attribute = (Form_pg_attribute) GETSTRUCT(tuple);
		if (weir_compat_column_is_virtual(attribute))
			weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   psprintf("column \"%s\" is a virtual generated column", NameStr(attribute->attname)),
							   "Its values are stored nowhere, so they are not in the row changes.",
							   "Write its expression into the definition, or make the column STORED.");
		ReleaseSysCache(tuple);
	}
}

Oid
weir_objection_check_from(Query *query, Index *rtindex, List **objections)
{
	List	   *items = from_items((Node *) query->jointree);
	StringInfoData names;
	RangeTblEntry *entry = NULL;
	ListCell   *lc;

	*rtindex = 0;
	/* Each branch of a set operation has a FROM of its own. */
	if (query->setOperations != NULL)
		return InvalidOid;
	if (items == NIL)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "the definition reads no table", NULL, "Name one table in FROM.");
	initStringInfo(&names);
	foreach(lc, items)
	{
		entry = rt_fetch(lfirst_int(lc), query->rtable);
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 entry->rtekind == RTE_RELATION ? weir_deparse_table_name(entry->relid) : entry->eref->aliasname);
		if (entry->rtekind == RTE_RELATION)
			check_relation(entry->relid, entry->inh, objections);
		else
			check_not_relation(entry, objections);
		if (entry->tablesample != NULL)
			weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   "TABLESAMPLE is not supported in a definition",
							   "Which rows it takes is not a property of the rows.",
							   "Choose rows by WHERE.");
	}
	if (list_length(items) > 1)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("the definition reads %d tables", list_length(items)),
						   psprintf("FROM names %s.", names.data),
						   "Create an operator over one of them, and join in queries that read its view.");
	if (list_length(items) != 1 || entry->rtekind != RTE_RELATION)
		return InvalidOid;
	*rtindex = linitial_int(items);
	check_generated_columns(query, *rtindex, entry->relid, objections);
	return entry->relid;
}

/* ------------------------------------------------------- at creation only */

static void
check_rights(const WeirDefinition *def, List **objections)
{
	Oid			user = GetUserId();
	const char *role = quote_identifier(GetUserNameFromId(user, false));
	char	   *name = weir_deparse_table_name(def->source);
	char	   *hint = psprintf("GRANT SELECT ON TABLE %s TO %s;", name, role);
	int			attnum = -1;
	ListCell   *lc;

	if (pg_class_aclcheck(def->source, user, ACL_SELECT) != ACLCHECK_OK)
	{
		if (bms_is_empty(def->source_attnums) &&
			pg_attribute_aclcheck_all(def->source, user, ACL_SELECT, ACLMASK_ANY) != ACLCHECK_OK)
			weir_objection_add(objections, ERRCODE_INSUFFICIENT_PRIVILEGE,
							   psprintf("role %s may not read table %s", role, name), NULL, hint);
		while ((attnum = bms_next_member(def->source_attnums, attnum)) >= 0)
		{
			if (pg_attribute_aclcheck(def->source, attnum, user, ACL_SELECT) != ACLCHECK_OK)
				weir_objection_add(objections, ERRCODE_INSUFFICIENT_PRIVILEGE,
								   psprintf("role %s may not read column %s of table %s", role,
											quote_identifier(get_attname(def->source, attnum, false)), name),
								   NULL, hint);
		}
	}
	foreach(lc, def->functions)
	{
		if (weir_compat_function_aclcheck(lfirst_oid(lc), user) != ACLCHECK_OK)
			weir_objection_add(objections, ERRCODE_INSUFFICIENT_PRIVILEGE,
							   psprintf("role %s may not execute function %s", role,
										format_procedure(lfirst_oid(lc))),
							   NULL,
							   psprintf("GRANT EXECUTE ON FUNCTION %s TO %s;",
										format_procedure_qualified(lfirst_oid(lc)), role));
	}
}

/* The state holds what all rows add up to; a reader of the view would see hidden rows in it. */
static void
check_row_security(const WeirDefinition *def, List **objections)
{
	FormData_pg_class class;

	if (check_enable_rls(def->source, InvalidOid, true) != RLS_ENABLED ||
		!read_class(def->source, &class))
		return;
	weir_objection_add(objections, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   psprintf("row security of table %s applies to role %s", weir_deparse_table_name(def->source),
								quote_identifier(GetUserNameFromId(GetUserId(), false))),
					   "The state would contain rows that its policies hide.",
					   class.relforcerowsecurity ?
					   "Create the operator as a role with BYPASSRLS." :
					   psprintf("Create the operator as the table's owner, SET ROLE %s; or as a role with BYPASSRLS.",
								quote_identifier(GetUserNameFromId(class.relowner, false))));
}

void
weir_definition_check_replica_identity(const WeirDefinition *def, List **objections)
{
	const char *append_only = "or, if rows are only ever inserted: options => '{\"append_only\": true}'";
	char	   *name = weir_deparse_table_name(def->source);
	int			nmissing = 0;
	StringInfoData hint;
	ListCell   *lc;

	if (def->append_only)
		return;
	initStringInfo(&hint);
	foreach(lc, leaf_tables(def->source))
	{
		FormData_pg_class leaf;

		if (!read_class(lfirst_oid(lc), &leaf) || leaf.relreplident == REPLICA_IDENTITY_FULL)
			continue;
		if (++nmissing <= MAX_NAMED_LEAVES)
			appendStringInfo(&hint, "ALTER TABLE %s REPLICA IDENTITY FULL;\n", weir_deparse_table_name(lfirst_oid(lc)));
	}
	if (nmissing == 0)
		return;
	if (nmissing > MAX_NAMED_LEAVES)
	{
		resetStringInfo(&hint);
		appendStringInfo(&hint,
						 "SELECT format('ALTER TABLE %%s REPLICA IDENTITY FULL', relid) "
						 "FROM pg_partition_tree(%s) WHERE isleaf \\gexec\n",
						 quote_literal_cstr(name));
	}
	appendStringInfoString(&hint, append_only);
	weir_objection_add(objections, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					   psprintf("replica identity of table %s is not FULL", name),
					   get_rel_relkind(def->source) == RELKIND_PARTITIONED_TABLE ?
					   psprintf("It is not FULL on %d of its partitions; "
								"without the old row UPDATE and DELETE cannot be taken out of the state.",
								nmissing) :
					   "Without the old row UPDATE and DELETE cannot be taken out of the state.",
					   hint.data);
}

void
weir_definition_check_rights(const WeirDefinition *def, List **objections)
{
	check_rights(def, objections);
	check_row_security(def, objections);
}

void
weir_definition_check_source(const WeirDefinition *def, List **objections)
{
	weir_definition_check_rights(def, objections);
	weir_definition_check_replica_identity(def, objections);
}
