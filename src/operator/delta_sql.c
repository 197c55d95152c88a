/*
 * delta_sql.c - the query texts of a definition.
 *
 * Owns how an atom is written in SQL: what the executor pre-aggregates for a
 * batch (delta) or for the whole table (build).  Both have the same columns,
 * so that the fold knows one kind of row.  Pure: texts only.
 *
 * The texts are for a session with search_path = pg_catalog and
 * extra_float_digits = 1: everything else in them is qualified.  Positions in
 * GROUP BY and ORDER BY instead of expressions keep constants harmless as keys.
 *
 * A text is analysed anew whenever a reader starts, and by then there may be
 * other functions of the same name: weir_definition_check_calls tells.
 *
 * Sums of floats are sums of their exact decimal texts: floats added in
 * another order, or added and taken back, would not give the same again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "operator/numeric_scale.h"
#include "operator/objection.h"
#include "weir_errors.h"

#define SOURCE_ALIAS "t"

/* ---------------------------------------------------------------- deparse */

static void
pin_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* After an error the end of the transaction puts the settings back. */
int
weir_deparse_begin(void)
{
	int			nest_level = NewGUCNestLevel();

	pin_setting("search_path", "pg_catalog");
	pin_setting("extra_float_digits", "1");
	pin_setting("DateStyle", "ISO, YMD");
	pin_setting("IntervalStyle", "postgres");
	return nest_level;
}

void
weir_deparse_end(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}

/* IS DISTINCT FROM, NULLIF, CASE x WHEN: in SQL they have no place for the operator's schema. */
static bool
needs_schema(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	result = ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace != PG_CATALOG_NAMESPACE;
	ReleaseSysCache(tuple);
	return result;
}

static Node *
null_test(Node *arg)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) arg;
	test->nulltesttype = IS_NULL;
	test->location = -1;
	return (Node *) test;
}

static Node *
case_when(Node *condition, Node *result, Node *otherwise)
{
	CaseExpr   *expr = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	when->expr = (Expr *) condition;
	when->result = (Expr *) result;
	when->location = -1;
	expr->casetype = exprType(result);
	expr->casecollid = exprCollation(otherwise);
	expr->args = list_make1(when);
	expr->defresult = (Expr *) otherwise;
	expr->location = -1;
	return (Node *) expr;
}

/* left = right, by an operator that is printed with its schema. */
static Node *
as_operator(const OpExpr *comparison, Node *left, Node *right)
{
	return (Node *) make_opclause(comparison->opno, BOOLOID, false, (Expr *) left, (Expr *) right,
								  InvalidOid, comparison->inputcollid);
}

static Node *
spell_out_distinct(const OpExpr *distinct)
{
	Node	   *left = linitial(distinct->args);
	Node	   *right = lsecond(distinct->args);
	Node	   *both_null = (Node *) make_andclause(list_make2(null_test(left), null_test(right)));
	Node	   *one_null = (Node *) make_orclause(list_make2(null_test(left), null_test(right)));

	return case_when(one_null, (Node *) make_notclause((Expr *) both_null),
					 (Node *) make_notclause((Expr *) as_operator(distinct, left, right)));
}

static Node *
spell_out_nullif(const OpExpr *nullif)
{
	Node	   *left = linitial(nullif->args);

	return case_when(as_operator(nullif, left, lsecond(nullif->args)),
					 (Node *) makeNullConst(exprType(left), exprTypmod(left), exprCollation(left)), left);
}

static Node *
case_test_mutator(Node *node, void *value)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, CaseTestExpr))
		return copyObject((Node *) value);
	return expression_tree_mutator(node, case_test_mutator, value);
}

/* CASE value WHEN x THEN ... becomes CASE WHEN value = x THEN ... */
static void
spell_out_case(CaseExpr *expr)
{
	bool		is_needed = false;
	ListCell   *lc;

	if (expr->arg == NULL)
		return;
	foreach(lc, expr->args)
	{
		Expr	   *condition = lfirst_node(CaseWhen, lc)->expr;

		is_needed = is_needed || (IsA(condition, OpExpr) && needs_schema(((OpExpr *) condition)->opno));
	}
	if (!is_needed)
		return;
	foreach(lc, expr->args)
	{
		OpExpr	   *comparison = castNode(OpExpr, lfirst_node(CaseWhen, lc)->expr);

		/* The operand on the left stands for the value; the right may have a CASE of its own. */
		linitial(comparison->args) = case_test_mutator(linitial(comparison->args), expr->arg);
	}
	expr->arg = NULL;
}

static Node *
spell_out_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, spell_out_mutator, context);
	if (IsA(node, DistinctExpr) && needs_schema(((OpExpr *) node)->opno))
		return spell_out_distinct((OpExpr *) node);
	if (IsA(node, NullIfExpr) && needs_schema(((OpExpr *) node)->opno))
		return spell_out_nullif((OpExpr *) node);
	if (IsA(node, CaseExpr))
		spell_out_case((CaseExpr *) node);
	return node;
}

char *
weir_deparse_for_people(Oid source, Node *expr)
{
	return deparse_expression(expr, deparse_context_for(SOURCE_ALIAS, source), false, false);
}

/*
 * Implicit casts are shown: the text then has exactly the types that the
 * analysis has found, whatever functions are overloaded with what.
 */
char *
weir_deparse(Oid source, Node *expr)
{
	return deparse_expression(spell_out_mutator(expr, NULL), deparse_context_for(SOURCE_ALIAS, source), true, true);
}

/* ------------------------------------------------------------------ atoms */

/* FILTER (WHERE filter AND condition), either may be missing. */
static void
append_filter(StringInfo sql, const WeirAtom *atom, const char *condition)
{
	if (atom->filter_sql == NULL && condition == NULL)
		return;
	appendStringInfoString(sql, " FILTER (WHERE ");
	if (atom->filter_sql != NULL)
		appendStringInfo(sql, "(%s)", atom->filter_sql);
	if (atom->filter_sql != NULL && condition != NULL)
		appendStringInfoString(sql, " AND ");
	if (condition != NULL)
		appendStringInfoString(sql, condition);
	appendStringInfoChar(sql, ')');
}

static void
append_count_of_value(StringInfo sql, const WeirAtom *atom, const char *value, const char *type)
{
	char	   *condition = psprintf("(%s) = '%s'::pg_catalog.%s", atom->arg_sql, value, type);

	appendStringInfoString(sql, ", NULLIF(pg_catalog.count(*)");
	append_filter(sql, atom, condition);
	appendStringInfoString(sql, ", 0)");
	pfree(condition);
}

/* The sum of what is finite, then how many are not, by kind; type: as SQL names it. */
static void
append_sum_and_infinities(StringInfo sql, const WeirAtom *atom, const char *type, const char *term)
{
	char	   *finite = psprintf("(%s) > '-Infinity'::pg_catalog.%s AND (%s) < 'Infinity'::pg_catalog.%s",
								  atom->arg_sql, type, atom->arg_sql, type);

	/* NaN is greater than Infinity for every type that has it. */
	appendStringInfo(sql, "pg_catalog.sum(%s)", term);
	append_filter(sql, atom, finite);
	append_count_of_value(sql, atom, "NaN", type);
	append_count_of_value(sql, atom, "Infinity", type);
	append_count_of_value(sql, atom, "-Infinity", type);
	pfree(finite);
}

static void
append_interval_sum(StringInfo sql, const WeirAtom *atom)
{
	char	   *finite = psprintf("pg_catalog.isfinite(%s)", atom->arg_sql);

	appendStringInfo(sql, "pg_catalog.sum(%s)", atom->arg_sql);
	append_filter(sql, atom, finite);
	appendStringInfoString(sql, ", NULL::pg_catalog.int8");
	if (WEIR_COMPAT_INTERVAL_INFINITY)
	{
		append_count_of_value(sql, atom, "infinity", "interval");
		append_count_of_value(sql, atom, "-infinity", "interval");
	}
	else
		appendStringInfoString(sql, ", NULL::pg_catalog.int8, NULL::pg_catalog.int8");
	pfree(finite);
}

static void
append_sum(StringInfo sql, const WeirAtom *atom)
{
	switch (atom->arg_type)
	{
		case NUMERICOID:
			append_sum_and_infinities(sql, atom, "numeric", atom->arg_sql);
			if (atom->ncolumns > WEIR_SUM_SCALES)
			{
				appendStringInfo(sql, ", %s", weir_numeric_scale_sql(atom->arg_sql));
				append_filter(sql, atom, NULL);
			}
			break;
		case FLOAT8OID:
			append_sum_and_infinities(sql, atom, "float8",
									  psprintf("(%s)::pg_catalog.text::pg_catalog.numeric", atom->arg_sql));
			break;
		case FLOAT4OID:
			/* By way of float8, which has the float4's exact value: avg(float4) is a float8. */
			append_sum_and_infinities(sql, atom, "float4",
									  psprintf("(%s)::pg_catalog.float8::pg_catalog.text::pg_catalog.numeric",
											   atom->arg_sql));
			break;
		case INTERVALOID:
			append_interval_sum(sql, atom);
			break;
		default:
			appendStringInfo(sql, "pg_catalog.sum(%s)", atom->arg_sql);
			append_filter(sql, atom, NULL);
			break;
	}
}

/* All columns of an atom, separated by commas. */
static void
append_atom(StringInfo sql, const WeirAtom *atom)
{
	switch (atom->kind)
	{
		case WEIR_ATOM_COUNT:
			appendStringInfo(sql, "pg_catalog.count(%s)", atom->arg_sql != NULL ? atom->arg_sql : "*");
			append_filter(sql, atom, NULL);
			break;
		case WEIR_ATOM_SUM:
			append_sum(sql, atom);
			break;
		case WEIR_ATOM_MIN:
		case WEIR_ATOM_MAX:
			appendStringInfo(sql, "pg_catalog.%s(%s)", atom->kind == WEIR_ATOM_MIN ? "min" : "max", atom->arg_sql);
			append_filter(sql, atom, NULL);
			break;
	}
}

/* ---------------------------------------------------------------- queries */

static void
append_key(StringInfo sql, const WeirKey *key)
{
	/* The cast to the base type of a domain; same values. */
	if (exprType(key->expr) != key->column.type)
		appendStringInfo(sql, "(%s)::%s", key->expr_sql,
						 format_type_extended(key->column.type, key->column.typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	else
		appendStringInfoString(sql, key->expr_sql);
}

/* One SELECT, with at most one row per key. */
static void
append_branch(StringInfo sql, const WeirDefinition *def, const char *from, int sign)
{
	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < def->nkeys; i++)
	{
		append_key(sql, &def->keys[i]);
		appendStringInfo(sql, " AS %s, ", quote_identifier(def->keys[i].column.name));
	}
	for (int i = 0; i < def->natoms; i++)
	{
		append_atom(sql, &def->atoms[i]);
		if (def->atoms[i].ncolumns == 1)
			appendStringInfo(sql, " AS %s", def->hidden[def->atoms[i].first_column].name);
		appendStringInfoString(sql, ", ");
	}
	appendStringInfo(sql, "%d AS _weir_sign FROM %s", sign, from);
	if (def->where_sql != NULL)
		appendStringInfo(sql, " WHERE %s", def->where_sql);
	for (int i = 0; i < def->nkeys; i++)
		appendStringInfo(sql, "%s%d", i == 0 ? " GROUP BY " : ", ", i + 1);
}

static void
append_order(StringInfo sql, const WeirDefinition *def)
{
	appendStringInfoString(sql, " ORDER BY ");
	for (int i = 0; i < def->nkeys; i++)
		appendStringInfo(sql, "%d, ", i + 1);
	appendStringInfo(sql, "%d", def->nkeys + def->nhidden + 1);
}

/* A batch's columns are called as they were when it was begun; here as in the expressions, hence as now. */
static char *
batch_from(const char *name, const WeirFollowedTable *table)
{
	StringInfoData from;

	initStringInfo(&from);
	appendStringInfo(&from, "%s AS " SOURCE_ALIAS, name);
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&from, "%s%s", i == 0 ? " (" : ", ",
						 quote_identifier(get_attname(table->relid, table->attnums[i], false)));
	if (table->ncolumns > 0)
		appendStringInfoChar(&from, ')');
	return from.data;
}

char *
weir_definition_delta_sql(const WeirDefinition *def, const WeirFollowedTable *table, bool with_minus)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_branch(&sql, def, batch_from(WEIR_ENR_PLUS, table), 1);
	if (with_minus)
	{
		appendStringInfoString(&sql, " UNION ALL ");
		append_branch(&sql, def, batch_from(WEIR_ENR_MINUS, table), -1);
	}
	append_order(&sql, def);
	return sql.data;
}

char *
weir_definition_build_sql(const WeirDefinition *def)
{
	StringInfoData sql;
	const char *only = get_rel_relkind(def->source) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";

	initStringInfo(&sql);
	append_branch(&sql, def, psprintf("%s%s AS " SOURCE_ALIAS, only, weir_deparse_table_name(def->source)), 1);
	append_order(&sql, def);
	return sql.data;
}

/* ------------------------------------------------------------------ check */

typedef struct CallCheck
{
	List	   *expected;
	List	   *others;			/* expected, too */
	Oid			other;			/* the first function of a user's that is not expected */
} CallCheck;

static bool
check_function(Oid function, void *context)
{
	CallCheck  *check = context;

	if (function < FirstNormalObjectId || list_member_oid(check->expected, function) ||
		list_member_oid(check->others, function))
		return false;
	check->other = function;
	return true;
}

static bool
call_walker(Node *node, void *check)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, call_walker, check, 0);
	return check_functions_in_node(node, check_function, check) ||
		expression_tree_walker(node, call_walker, check);
}

void
weir_definition_check_calls(const WeirDefinition *def, List *others, List *queries)
{
	CallCheck	check = {.expected = def->functions, .others = others};

	if (!call_walker((Node *) queries, &check))
		return;
	ereport(ERROR,
			(errcode(WEIR_ERRCODE_STALE),
			 errmsg("a call in the definition now means function %s", format_procedure_qualified(check.other)),
			 errdetail("It was created later and fits the call better than the function that the definition was created with."),
			 errhint("DROP FUNCTION %s; or give one of the two another name.", format_procedure_qualified(check.other))));
}
