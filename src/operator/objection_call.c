/*
 * objection_call.c - what speaks against a definition: the things it calls.
 *
 * Owns the rules about functions (immutable ones only, also those behind
 * operators, casts and domain constraints), column references and aggregates.
 * A row that leaves the source must be computed exactly as when it came, by
 * another process and maybe months later: that is why whatever depends on the
 * time, on settings or on other tables is refused and named.
 * Runs where definitions are analysed; reads core's catalogs, writes nothing.
 * It trusts what functions are declared as; bodies are not looked into.  Nothing
 * of a user's is ever evaluated here, because readers are the bootstrap user.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "operator/objection.h"

typedef struct CallWalk
{
	List	   *functions;
	List	  **objections;
	int			depth;			/* of subqueries: aggregates of a refused subquery do not matter */
	Node	   *node;			/* the call being looked at */
	Oid			domain;			/* whose constraints are being looked at */
	bool		is_mutable;		/* something mutable was named */
	List	   *temporary_types;	/* named already */
	bool		is_migration;	/* computed once, by the executor: only what is mutable speaks against it */
} CallWalk;

static bool call_walker(Node *node, void *context);

static const char *
cast_caller(Node *arg, Oid result)
{
	return psprintf("the cast from %s to %s", format_type_be(exprType(arg)), format_type_be(result));
}

/* Users wrote an operator or a cast, not the function behind it: name both. NULL: the function itself. */
static const char *
describe_caller(const CallWalk *context)
{
	Node	   *node = context->node;

	if (OidIsValid(context->domain))
		return psprintf("a constraint of domain %s", format_type_be(context->domain));
	switch (nodeTag(node))
	{
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			return psprintf("operator %s", format_operator(((OpExpr *) node)->opno));
		case T_ScalarArrayOpExpr:
			return psprintf("operator %s", format_operator(((ScalarArrayOpExpr *) node)->opno));
		case T_RowCompareExpr:
			return "a comparison of rows";
		case T_CoerceViaIO:
			return cast_caller((Node *) ((CoerceViaIO *) node)->arg, ((CoerceViaIO *) node)->resulttype);
		case T_FuncExpr:
			{
				FuncExpr   *call = (FuncExpr *) node;

				if ((call->funcformat == COERCE_EXPLICIT_CAST || call->funcformat == COERCE_IMPLICIT_CAST) &&
					call->args != NIL)
					return cast_caller(linitial(call->args), call->funcresulttype);
				return NULL;
			}
		default:
			return NULL;
	}
}

static bool
takes_timestamptz(Oid function)
{
	Oid		   *types;
	int			ntypes;

	get_func_signature(function, &types, &ntypes);
	for (int i = 0; i < ntypes; i++)
	{
		if (types[i] == TIMESTAMPTZOID || types[i] == TIMETZOID)
			return true;
	}
	return get_func_rettype(function) == TIMESTAMPTZOID && ntypes > 0;
}

static const char *
mutable_hint(const CallWalk *context, Oid function, char volatility)
{
	if (volatility == PROVOLATILE_STABLE && function >= FirstNormalObjectId)
		return psprintf("If its result depends on its arguments only: ALTER FUNCTION %s IMMUTABLE;",
						format_procedure_qualified(function));
	if (volatility == PROVOLATILE_STABLE && takes_timestamptz(function))
		return "Take the session's time zone out of it, as in: column AT TIME ZONE 'UTC'.";
	if (context->is_migration)
		return "Write its value as a constant.";
	return "Store the value in a column of the source when the row is written, and use that column.";
}

/*
 * Whether a call of a stable built-in function becomes immutable when its body
 * is put in its place, as with text || integer.  CREATE INDEX judges likewise.
 *
 * This runs the planner, in a reader as the bootstrap user, and the planner
 * evaluates what is constant.  So nothing of a user's may be in it: built-in
 * functions only, and variables stand in for all arguments (which are judged
 * for themselves).  Nor may their types be a user's: the body of text || any
 * type casts the argument, and a user's cast can be a function.
 */
static bool
is_immutable_inlined(Node *node, Oid function)
{
	List	   *args = NIL;
	List	   *stand_ins = NIL;
	ListCell   *lc;

	if (function >= FirstUnpinnedObjectId)
		return false;
	if (IsA(node, FuncExpr))
		args = ((FuncExpr *) node)->args;
	else if (IsA(node, OpExpr))
		args = ((OpExpr *) node)->args;
	foreach(lc, args)
	{
		Node	   *arg = lfirst(lc);

		if (IsA(arg, NamedArgExpr) || getBaseType(exprType(arg)) >= FirstUnpinnedObjectId)
			return false;
		stand_ins = lappend(stand_ins, makeVar(1, list_length(stand_ins) + 1, exprType(arg), exprTypmod(arg),
											   exprCollation(arg), 0));
	}
	if (stand_ins == NIL)
		return false;
	node = copyObject(node);
	if (IsA(node, FuncExpr))
		((FuncExpr *) node)->args = stand_ins;
	else
		((OpExpr *) node)->args = stand_ins;
	return !contain_mutable_functions((Node *) expression_planner((Expr *) node));
}

/* Nodes by which a type comes into an expression. */
static Oid
type_brought_by(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_FieldSelect:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_CoerceToDomain:
			return exprType(node);
		default:
			return InvalidOid;
	}
}

static void
check_type(CallWalk *context, Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		is_temporary;

	if (!HeapTupleIsValid(tuple))
		return;
	is_temporary = isAnyTempNamespace(((Form_pg_type) GETSTRUCT(tuple))->typnamespace);
	ReleaseSysCache(tuple);
	if (!is_temporary || list_member_oid(context->temporary_types, type))
		return;
	context->temporary_types = lappend_oid(context->temporary_types, type);
	weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
					   psprintf("type %s is temporary", format_type_be_qualified(type)),
					   "It ends with this session.",
					   "Create it in a permanent schema.");
}

/* Callback of check_functions_in_node; never stops the walk. */
static bool
check_function(Oid function, void *arg)
{
	CallWalk   *context = arg;
	char		volatility = func_volatile(function);
	const char *caller;

	context->functions = list_append_unique_oid(context->functions, function);
	if (isAnyTempNamespace(get_func_namespace(function)))
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("function %s is temporary", format_procedure_qualified(function)),
						   "Readers are other sessions, where it does not exist.",
						   "Create it in a permanent schema.");
	/* An aggregate that is not immutable is not a supported one, which is said elsewhere. */
	if (volatility == PROVOLATILE_IMMUTABLE || IsA(context->node, Aggref) || IsA(context->node, WindowFunc))
		return false;
	if (volatility == PROVOLATILE_STABLE && is_immutable_inlined(context->node, function))
		return false;
	context->is_mutable = true;
	caller = describe_caller(context);
	weir_objection_add(context->objections, ERRCODE_INVALID_OBJECT_DEFINITION,
					   psprintf("function %s is not immutable", format_procedure(function)),
					   psprintf("It is %s%s%s.", volatility == PROVOLATILE_STABLE ? "stable" : "volatile",
								caller != NULL ? " and called by " : "", caller != NULL ? caller : ""),
					   mutable_hint(context, function, volatility));
	return false;
}

static void
refuse_value_function(CallWalk *context, SQLValueFunctionOp op)
{
	static const char *const names[] = {
		[SVFOP_CURRENT_DATE] = "CURRENT_DATE",
		[SVFOP_CURRENT_TIME] = "CURRENT_TIME",
		[SVFOP_CURRENT_TIME_N] = "CURRENT_TIME",
		[SVFOP_CURRENT_TIMESTAMP] = "CURRENT_TIMESTAMP",
		[SVFOP_CURRENT_TIMESTAMP_N] = "CURRENT_TIMESTAMP",
		[SVFOP_LOCALTIME] = "LOCALTIME",
		[SVFOP_LOCALTIME_N] = "LOCALTIME",
		[SVFOP_LOCALTIMESTAMP] = "LOCALTIMESTAMP",
		[SVFOP_LOCALTIMESTAMP_N] = "LOCALTIMESTAMP",
		[SVFOP_CURRENT_ROLE] = "CURRENT_ROLE",
		[SVFOP_CURRENT_USER] = "CURRENT_USER",
		[SVFOP_USER] = "USER",
		[SVFOP_SESSION_USER] = "SESSION_USER",
		[SVFOP_CURRENT_CATALOG] = "CURRENT_CATALOG",
		[SVFOP_CURRENT_SCHEMA] = "CURRENT_SCHEMA",
	};

	context->is_mutable = true;
	weir_objection_add(context->objections, ERRCODE_INVALID_OBJECT_DEFINITION,
					   psprintf("%s is not immutable", names[op]),
					   "Its value is that of the session and the moment in which a row is applied.",
					   mutable_hint(context, InvalidOid, PROVOLATILE_VOLATILE));
}

static Oid
type_below(Oid domain)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
	Oid			result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", domain);
	result = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * The CHECK constraints of a domain and of the domains below it.  From the
 * catalog: the type cache would give them planned, that is with constant
 * parts evaluated, and with the rights of whoever loads the definition.
 */
static void
check_domain(CallWalk *context, Oid domain)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	Oid			outer = context->domain;

	for (Oid type = domain; get_typtype(type) == TYPTYPE_DOMAIN; type = type_below(type))
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		context->domain = type;
		ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(type));
		scan = systable_beginscan(constraints, ConstraintTypidIndexId, true, NULL, 1, &key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			bool		isnull;
			Datum		expression = heap_getattr(tuple, Anum_pg_constraint_conbin,
												  RelationGetDescr(constraints), &isnull);

			if (!isnull)
				call_walker(stringToNode(TextDatumGetCString(expression)), context);
		}
		systable_endscan(scan);
	}
	context->domain = outer;
	table_close(constraints, AccessShareLock);
}

static void
check_column_reference(CallWalk *context, Var *var)
{
	if (var->varattno == InvalidAttrNumber)
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "a reference to the whole row is not supported in a definition",
						   "It would change with every column that is added to the source.",
						   "Name the columns, as in count(*) or ROW(t.a, t.b)::some_type.");
	else if (var->varattno < 0)
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("system column \"%s\" is not supported in a definition",
									NameStr(SystemAttributeDefinition(var->varattno)->attname)),
						   "Its value is not part of the row changes.",
						   "Use columns of the table only.");
}

static void
refuse_set(CallWalk *context, Oid function)
{
	weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
					   psprintf("function %s returns a set", format_procedure(function)),
					   NULL,
					   "Call it in a query that reads the operator's view.");
}

/* A text has one operator for the whole row: those of other schemas could not be told apart in it. */
static void
check_row_comparison(CallWalk *context, RowCompareExpr *comparison)
{
	ListCell   *lc;

	foreach(lc, comparison->opnos)
	{
		if (get_func_namespace(get_opcode(lfirst_oid(lc))) != PG_CATALOG_NAMESPACE)
			weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   psprintf("operator %s is not supported in a comparison of rows",
										format_operator(lfirst_oid(lc))),
							   NULL,
							   "Compare the columns one by one, with AND and OR.");
	}
}

static bool
aggregate_takes(WeirAggregateKind kind, Oid type)
{
	switch (kind)
	{
		case WEIR_AGG_MIN:
		case WEIR_AGG_MAX:
			return weir_type_is_ordered(type) && get_typtype(type) != TYPTYPE_PSEUDO;
		case WEIR_AGG_SUM:
			if (type == CASHOID)
				return true;
			/* FALLTHROUGH */
		case WEIR_AGG_AVG:
			return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID ||
				type == FLOAT4OID || type == FLOAT8OID || type == INTERVALOID;
		default:
			return true;
	}
}

static void
check_aggregate(CallWalk *context, Aggref *aggref)
{
	WeirAggregateKind kind;
	char	   *name = format_procedure(aggref->aggfnoid);

	if (aggref->aggdistinct != NIL)
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("DISTINCT in aggregate %s is not supported", name), NULL,
						   "Add the argument to GROUP BY, and aggregate in a query that reads the operator's view.");
	else if (aggref->aggorder != NIL && aggref->aggkind == AGGKIND_NORMAL)
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("ORDER BY in aggregate %s is not supported", name), NULL,
						   "The supported aggregates do not depend on an order: leave it out.");
	if (!weir_aggregate_classify(aggref, &kind))
		weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("aggregate %s is not supported", name),
						   aggref->aggkind != AGGKIND_NORMAL ? "It is an ordered-set aggregate." :
						   aggref->aggfnoid >= FirstNormalObjectId ? "It is not one of PostgreSQL's own." : NULL,
						   "Supported are count, sum, avg, min, max, bool_and, bool_or and every of pg_catalog, "
						   "each with FILTER.");
	else if (aggref->args != NIL)
	{
		Oid			type = exprType((Node *) linitial_node(TargetEntry, aggref->args)->expr);

		if (!aggregate_takes(kind, type))
			weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   psprintf("aggregate %s is not supported for type %s", name, format_type_be(type)),
							   NULL, "Cast the argument to another type.");
		else if ((kind == WEIR_AGG_MIN || kind == WEIR_AGG_MAX) &&
				 type_is_collatable(type) && !OidIsValid(aggref->inputcollid))
			weir_objection_add(context->objections, ERRCODE_INDETERMINATE_COLLATION,
							   psprintf("the argument of aggregate %s has no certain collation", name),
							   "Its order is not determined.",
							   "Choose a collation for the argument: argument COLLATE \"C\".");
	}
}

/*
 * SQL/JSON becomes mutable by the types that it is given and calls no function
 * by OID, so nothing in it may have a name; core knows the types.
 */
static void
check_json(CallWalk *context, Node *node)
{
	bool		was_mutable = context->is_mutable;

	context->is_mutable = false;
	expression_tree_walker(node, call_walker, context);
	if (!context->is_mutable && contain_mutable_functions(node))
		weir_objection_add(context->objections, ERRCODE_INVALID_OBJECT_DEFINITION,
						   context->is_migration ? "an SQL/JSON expression of the migration is not immutable" :
						   "an SQL/JSON expression of the definition is not immutable",
						   "It converts a value whose text depends on settings.",
						   "Convert the value before: column AT TIME ZONE 'UTC'.");
	context->is_mutable = context->is_mutable || was_mutable;
}

/* What only a definition may not have: it is deparsed, kept and folded. */
static void
check_definition_node(CallWalk *context, Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
			check_column_reference(context, (Var *) node);
			break;
		case T_Aggref:
			if (context->depth == 0)
				check_aggregate(context, (Aggref *) node);
			break;
		case T_GroupingFunc:
			weir_objection_add(context->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   "GROUPING is not supported in a definition", NULL,
							   "Without GROUPING SETS it is always 0: leave it out.");
			break;
		case T_RowCompareExpr:
			check_row_comparison(context, (RowCompareExpr *) node);
			break;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				refuse_set(context, ((FuncExpr *) node)->funcid);
			break;
		case T_OpExpr:
			if (((OpExpr *) node)->opretset)
				refuse_set(context, get_opcode(((OpExpr *) node)->opno));
			break;
		default:
			break;
	}
}

static bool
call_walker(Node *node, void *arg)
{
	CallWalk   *context = arg;

	if (node == NULL)
		return false;
	if (weir_compat_is_json_expr(node))
	{
		check_json(context, node);
		return false;
	}
	check_type(context, type_brought_by(node));
	switch (nodeTag(node))
	{
		case T_Query:
			context->depth++;
			query_tree_walker((Query *) node, call_walker, context, 0);
			context->depth--;
			return false;
		case T_SQLValueFunction:
			refuse_value_function(context, ((SQLValueFunction *) node)->op);
			break;
		case T_CoerceToDomain:
			check_domain(context, ((CoerceToDomain *) node)->resulttype);
			break;
		case T_XmlExpr:
			/* The text of values in elements depends on settings, which core overlooks. */
			if (((XmlExpr *) node)->op == IS_XMLELEMENT || ((XmlExpr *) node)->op == IS_XMLFOREST)
				weir_objection_add(context->objections, ERRCODE_INVALID_OBJECT_DEFINITION,
								   "XMLELEMENT and XMLFOREST are not immutable",
								   "How they print values depends on settings.",
								   "Build the element in a query that reads the operator's view.");
			break;
		default:
			break;
	}
	if (!context->is_migration)
		check_definition_node(context, node);
	context->node = node;
	check_functions_in_node(node, check_function, context);
	return expression_tree_walker(node, call_walker, context);
}

void
weir_objection_check_calls(Query *query, List **functions, List **objections)
{
	CallWalk context = {.objections = objections};

	query_tree_walker(query, call_walker, &context, 0);
	*functions = context.functions;
}

void
weir_objection_check_migration_calls(Query *query, List **functions, List **objections)
{
	CallWalk context = {.objections = objections, .is_migration = true};

	query_tree_walker(query, call_walker, &context, 0);
	*functions = context.functions;
}
