/*
 * objection.c - what speaks against a definition: clauses, keys, outputs.
 *
 * Owns the list of objections, the clauses of a SELECT that operators do not
 * support yet, and the rules for GROUP BY expressions and output columns.
 * Runs in the session that creates or explains a definition and in readers
 * that load one; reads core's catalogs only and writes nothing, so a crash
 * here leaves nothing behind.  It does not look into function calls
 * (objection_call.c) nor at the source (objection_source.c).
 */
#include "postgres.h"

#include "catalog/heap.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "operator/objection.h"

#define RESERVED_PREFIX "_weir_"

void
weir_objection_add(List **objections, int sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	WeirObjection *objection;
	ListCell   *lc;

	foreach(lc, *objections)
	{
		if (strcmp(((WeirObjection *) lfirst(lc))->message, message) == 0)
			return;
	}
	objection = palloc0(sizeof(WeirObjection));
	objection->sqlstate = sqlstate;
	objection->message = unconstify(char *, message);
	objection->detail = unconstify(char *, detail);
	objection->hint = unconstify(char *, hint);
	*objections = lappend(*objections, objection);
}

void
weir_definition_raise(List *objections)
{
	WeirObjection *first = linitial(objections);
	StringInfoData detail;
	StringInfoData hint;
	ListCell   *lc;

	initStringInfo(&detail);
	initStringInfo(&hint);
	foreach(lc, objections)
	{
		WeirObjection *objection = lfirst(lc);

		if (objection != first)
			appendStringInfo(&detail, "%sAlso (%s): %s.", detail.len > 0 ? "\n" : "",
							 unpack_sql_state(objection->sqlstate), objection->message);
		if (objection->detail != NULL)
			appendStringInfo(&detail, "%s%s", detail.len > 0 ? (objection == first ? "\n" : " ") : "",
							 objection->detail);
		/* Several objections often have the same remedy. */
		if (objection->hint != NULL && (hint.len == 0 || strstr(hint.data, objection->hint) == NULL))
			appendStringInfo(&hint, "%s%s", hint.len > 0 ? "\n" : "", objection->hint);
	}
	ereport(ERROR,
			(errcode(first->sqlstate),
			 errmsg("%s", first->message),
			 detail.len > 0 ? errdetail("%s", detail.data) : 0,
			 hint.len > 0 ? errhint("%s", hint.data) : 0));
}

void
weir_objection_check_clauses(Query *query, List **objections)
{
	const struct
	{
		bool		present;
		const char *clause;
		const char *hint;
	}			clauses[] = {
		{query->setOperations != NULL, "a set operation (UNION, INTERSECT, EXCEPT)",
		"Create one operator for each SELECT and combine their views in a query."},
		{query->cteList != NIL, "WITH",
		"Write the definition as one SELECT over the table itself."},
		{query->hasSubLinks, "a subquery in an expression",
		"Join or filter in a query that reads the operator's view."},
		{query->distinctClause != NIL, query->hasDistinctOn ? "DISTINCT ON" : "DISTINCT",
		"GROUP BY the selected columns instead."},
		{query->groupingSets != NIL, "GROUPING SETS (or ROLLUP, CUBE)",
		"Create one operator for each grouping."},
		{query->havingQual != NULL, "HAVING",
		"Put the condition into WHERE of the queries that read the operator's view."},
		{query->hasWindowFuncs, "a window function",
		"Compute it in a query that reads the operator's view."},
		{query->sortClause != NIL, "ORDER BY",
		"Order the queries that read the operator's view."},
		{query->limitCount != NULL || query->limitOffset != NULL, "LIMIT (or OFFSET, FETCH)",
		"Limit the queries that read the operator's view."},
		{query->rowMarks != NIL, "FOR UPDATE (or FOR SHARE)",
		"Leave it out: the operator locks no row of the source."},
	};

	for (int i = 0; i < lengthof(clauses); i++)
	{
		if (clauses[i].present)
			weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   psprintf("%s is not supported in a definition", clauses[i].clause),
							   NULL, clauses[i].hint);
	}
	if (!query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL &&
		query->setOperations == NULL && query->distinctClause == NIL && query->havingQual == NULL)
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "the definition has neither aggregates nor GROUP BY",
						   "Its rows have no key under which the state could keep them.",
						   "GROUP BY the columns that identify a row.");
}

bool
weir_type_is_ordered(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR | TYPECACHE_CMP_PROC);

	return OidIsValid(entry->eq_opr) && OidIsValid(entry->lt_opr) && OidIsValid(entry->cmp_proc);
}

/* False, with an objection, when a table cannot have a column of the expression's type. */
static bool
check_column_type(Node *expr, const char *what, List **objections)
{
	Oid			type = exprType(expr);

	if (get_typtype(getBaseType(type)) == TYPTYPE_PSEUDO)
	{
		weir_objection_add(objections, ERRCODE_INVALID_TABLE_DEFINITION,
						   psprintf("%s has pseudo-type %s", what, format_type_be(type)),
						   "No table can have a column of that type.",
						   "Cast it to a type of its own, or select its parts as columns.");
		return false;
	}
	if (type_is_collatable(type) && !OidIsValid(exprCollation(expr)))
		weir_objection_add(objections, ERRCODE_INDETERMINATE_COLLATION,
						   psprintf("%s has no certain collation", what),
						   "Its parts have different collations.",
						   "Choose one: expression COLLATE \"C\".");
	return true;
}

static List *
key_expressions(Query *query)
{
	List	   *keys = NIL;
	ListCell   *lc;

	foreach(lc, query->groupClause)
		keys = lappend(keys, get_sortgroupclause_expr(lfirst(lc), query->targetList));
	return keys;
}

static void
check_keys(List *keys, List **objections)
{
	ListCell   *lc;

	foreach(lc, keys)
	{
		Node	   *key = lfirst(lc);
		char	   *what = psprintf("GROUP BY expression %d", foreach_current_index(lc) + 1);

		if (!check_column_type(key, what, objections))
			continue;
		/* Grouping works with a hash alone; the state's unique index does not. */
		if (!weir_type_is_ordered(exprType(key)))
			weir_objection_add(objections, ERRCODE_UNDEFINED_FUNCTION,
							   psprintf("%s has type %s, which has no btree operator class",
										what, format_type_be(exprType(key))),
							   "The state's key is a unique index.",
							   "Cast it to a type that has one, such as text.");
	}
}

/* Reports columns of the source that are neither grouped nor inside an aggregate. */
typedef struct UngroupedContext
{
	List	   *keys;
	const char *column_name;
	List	  **objections;
} UngroupedContext;

static bool
ungrouped_walker(Node *node, void *context)
{
	UngroupedContext *ungrouped = context;
	ListCell   *lc;

	if (node == NULL || IsA(node, Aggref))
		return false;
	foreach(lc, ungrouped->keys)
	{
		if (equal(node, lfirst(lc)))
			return false;
	}
	if (IsA(node, Var))
	{
		if (((Var *) node)->varlevelsup == 0)
			weir_objection_add(ungrouped->objections, ERRCODE_GROUPING_ERROR,
							   psprintf("output column \"%s\" uses a column that is not in GROUP BY",
										ungrouped->column_name),
							   "That it follows from the primary key is true only as long as the constraint exists.",
							   "Add the column to GROUP BY.");
		return false;
	}
	return expression_tree_walker(node, ungrouped_walker, context);
}

/* A name that the state table, or the operator's view, cannot have. */
static void
check_name(const char *name, List *earlier_names, List **objections)
{
	ListCell   *lc;

	if (strncmp(name, RESERVED_PREFIX, strlen(RESERVED_PREFIX)) == 0)
		weir_objection_add(objections, ERRCODE_RESERVED_NAME,
						   psprintf("output column name \"%s\" is reserved", name),
						   "Names that start with \"" RESERVED_PREFIX "\" are those of hidden state columns.",
						   "Give the column another name: expression AS name.");
	else if (SystemAttributeByName(name) != NULL)
		weir_objection_add(objections, ERRCODE_DUPLICATE_COLUMN,
						   psprintf("output column name \"%s\" is that of a system column", name),
						   "Every table has a column of that name.",
						   "Name it otherwise: expression AS name.");
	foreach(lc, earlier_names)
	{
		if (strcmp(name, lfirst(lc)) == 0)
			weir_objection_add(objections, ERRCODE_DUPLICATE_COLUMN,
							   psprintf("output column name \"%s\" is there more than once", name),
							   NULL,
							   "Give each output column a name of its own: expression AS name.");
	}
}

void
weir_objection_check_outputs(Query *query, List **objections)
{
	List	   *keys;
	List	   *names = NIL;
	ListCell   *lc;

	/* The outputs of a set operation are those of its first SELECT, which is refused already. */
	if (query->setOperations != NULL)
		return;
	keys = key_expressions(query);
	check_keys(keys, objections);
	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst(lc);
		UngroupedContext context = {keys, entry->resname, objections};

		if (entry->resjunk)
			continue;
		check_name(entry->resname, names, objections);
		names = lappend(names, entry->resname);
		check_column_type((Node *) entry->expr, psprintf("output column \"%s\"", entry->resname), objections);
		if (query->groupingSets == NIL && (query->hasAggs || query->groupClause != NIL))
			ungrouped_walker((Node *) entry->expr, &context);
	}
	if (names == NIL)
		weir_objection_add(objections, ERRCODE_INVALID_TABLE_DEFINITION,
						   "the definition has no output columns", NULL,
						   "Select at least one GROUP BY expression or aggregate.");
}
