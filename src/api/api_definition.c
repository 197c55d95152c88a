/*
 * api_definition.c - weir.explain_definition.
 *
 * Tells, without creating anything, how each output column would be kept and
 * what speaks against a definition.  Runs in the caller's session with the
 * caller's rights; reads core's catalogs only, so nothing is left behind by
 * an error.  A definition that cannot be parsed raises the parser's error.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "operator/definition.h"

PG_FUNCTION_INFO_V1(weir_explain_definition);

#define EXPLAIN_COLUMNS 5
#define EXACT_ALWAYS "insert, update, delete, truncate"

/* NULL texts become NULLs. */
static void
put_row(ReturnSetInfo *result, const char *const texts[EXPLAIN_COLUMNS])
{
	Datum		values[EXPLAIN_COLUMNS] = {0};
	bool		nulls[EXPLAIN_COLUMNS] = {0};

	for (int i = 0; i < EXPLAIN_COLUMNS; i++)
	{
		nulls[i] = texts[i] == NULL;
		if (texts[i] != NULL)
			values[i] = CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

typedef struct RowColumnsContext
{
	const WeirDefinition *def;
	bool		uses_keys;
	Bitmapset  *atoms;
} RowColumnsContext;

static void
add_aggregate(RowColumnsContext *context, int index)
{
	const WeirAggregate *aggregate = &context->def->aggregates[index];

	context->atoms = bms_add_member(context->atoms, aggregate->atom);
	if (aggregate->count_atom >= 0)
		context->atoms = bms_add_member(context->atoms, aggregate->count_atom);
}

/* Which keys and atoms an output expression is made of. */
static bool
row_columns_walker(Node *node, void *arg)
{
	RowColumnsContext *context = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		int			index = ((Var *) node)->varattno - context->def->nkeys - 1;

		if (index < 0)
			context->uses_keys = true;
		else
			add_aggregate(context, index);
		return false;
	}
	return expression_tree_walker(node, row_columns_walker, context);
}

static const char *
describe_fold(const RowColumnsContext *context)
{
	bool		adds = false;
	bool		has_extreme = false;
	int			atom = -1;

	while ((atom = bms_next_member(context->atoms, atom)) >= 0)
	{
		if (context->def->atoms[atom].kind == WEIR_ATOM_MIN || context->def->atoms[atom].kind == WEIR_ATOM_MAX)
			has_extreme = true;
		else
			adds = true;
	}
	if (adds)
		return has_extreme ? "add, extreme" : "add";
	if (has_extreme)
		return "extreme";
	return context->uses_keys ? "key" : "constant";
}

static const char *
describe_cost(const RowColumnsContext *context)
{
	StringInfoData cost;
	bool		has_extreme = false;
	int			atom = -1;

	if (bms_is_empty(context->atoms))
		return "nothing beside the column";
	initStringInfo(&cost);
	while ((atom = bms_next_member(context->atoms, atom)) >= 0)
	{
		const WeirAtom *kept = &context->def->atoms[atom];

		for (int i = 0; i < kept->ncolumns; i++)
			appendStringInfo(&cost, "%s%s", cost.len == 0 ? "hidden " : ", ",
							 context->def->hidden[kept->first_column + i].name);
		has_extreme = has_extreme || kept->extreme >= 0;
	}
	if (has_extreme)
		appendStringInfoString(&cost, "; side table with a row for each key and value (none if append-only)");
	return cost.data;
}

static void
put_columns(ReturnSetInfo *result, const WeirDefinition *def)
{
	for (int i = 0; i < def->noutputs; i++)
	{
		const WeirOutput *output = &def->outputs[i];
		RowColumnsContext context = {.def = def, .uses_keys = output->kind == WEIR_OUTPUT_KEY};

		if (output->kind == WEIR_OUTPUT_AGGREGATE)
			add_aggregate(&context, output->index);
		else if (output->kind == WEIR_OUTPUT_EXPRESSION)
			row_columns_walker((Node *) output->expr, &context);
		put_row(result, (const char *[]) {
			output->column.name, describe_fold(&context), EXACT_ALWAYS, describe_cost(&context), NULL
		});
	}
	for (int i = 0; i < def->nkeys; i++)
	{
		if (def->keys[i].output < 0)
			put_row(result, (const char *[]) {
				def->keys[i].column.name, "key", EXACT_ALWAYS, "a hidden column: not selected", NULL
			});
	}
}

static void
put_objection(ReturnSetInfo *result, const WeirObjection *objection)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s: %s", unpack_sql_state(objection->sqlstate), objection->message);
	if (objection->detail != NULL)
		appendStringInfo(&text, "\nDETAIL: %s", objection->detail);
	if (objection->hint != NULL)
		appendStringInfo(&text, "\nHINT: %s", objection->hint);
	put_row(result, (const char *[]) {NULL, NULL, NULL, NULL, text.data});
}

/* weir.explain_definition(definition text): a row per column kept, then a row per objection. */
Datum
weir_explain_definition(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *objections = NIL;
	WeirDefinition *def;
	ListCell   *lc;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the definition to explain is NULL"),
				 errhint("SELECT * FROM weir.explain_definition('SELECT k, count(*) FROM s.t GROUP BY k');")));
	InitMaterializedSRF(fcinfo, 0);
	def = weir_definition_analyze(weir_definition_parse(text_to_cstring(PG_GETARG_TEXT_PP(0))),
								  false, &objections);
	if (def != NULL)
	{
		weir_definition_check_source(def, &objections);
		put_columns(result, def);
	}
	foreach(lc, objections)
		put_objection(result, lfirst(lc));
	return (Datum) 0;
}
