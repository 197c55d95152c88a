/*
 * result_row.c - from a key and its hidden values to the output columns.
 *
 * Runs in readers, in the owner's scope because output expressions are the
 * owner's; computes only, reads and writes no table.  Aggregates' results are
 * what core's aggregates return for the same rows, NULL rules included; float
 * sums are kept exactly and rounded here, so they do not drift as core's do.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "operator/result_row.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/* Which value that no sum can hold a sum has. */
typedef enum Special
{
	SPECIAL_NONE,
	SPECIAL_NAN,
	SPECIAL_PLUS_INFINITY,
	SPECIAL_MINUS_INFINITY
} Special;

struct WeirResultRow
{
	const WeirDefinition *def;
	bool		has_expressions;
	Expr	  **planned;		/* by output; NULL for the others */
	TupleDesc	desc;			/* keys, aggregates: what expressions read */
	Datum		numeric_specials[SPECIAL_MINUS_INFINITY + 1];

	/* Of one transaction. */
	ExprState **states;
	ExprContext *econtext;
	TupleTableSlot *slot;

	/* Work space without expressions: the aggregates' results. */
	WeirRow		aggregates;
};

static TupleDesc
expression_input_desc(const WeirDefinition *def)
{
	TupleDesc	desc = CreateTemplateTupleDesc(def->nkeys + def->naggregates);
	AttrNumber	attnum = 1;

	for (int i = 0; i < def->nkeys; i++, attnum++)
	{
		const WeirColumn *column = &def->keys[i].column;

		TupleDescInitEntry(desc, attnum, NULL, column->type, column->typmod, 0);
		TupleDescInitEntryCollation(desc, attnum, column->collation);
	}
	for (int i = 0; i < def->naggregates; i++, attnum++)
	{
		TupleDescInitEntry(desc, attnum, NULL, def->aggregates[i].type, -1, 0);
		TupleDescInitEntryCollation(desc, attnum, def->aggregates[i].collation);
	}
	return desc;
}

static Datum
numeric_of(const char *text)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

WeirResultRow *
weir_result_create(const WeirDefinition *def)
{
	WeirResultRow *result = palloc0(sizeof(WeirResultRow));

	result->def = def;
	result->desc = expression_input_desc(def);
	result->planned = palloc0(sizeof(Expr *) * Max(def->noutputs, 1));
	result->states = palloc0(sizeof(ExprState *) * Max(def->noutputs, 1));
	for (int i = 0; i < def->noutputs; i++)
	{
		if (def->outputs[i].kind != WEIR_OUTPUT_EXPRESSION)
			continue;
		result->planned[i] = expression_planner(copyObject(def->outputs[i].expr));
		result->has_expressions = true;
	}
	result->numeric_specials[SPECIAL_NAN] = numeric_of("NaN");
	result->numeric_specials[SPECIAL_PLUS_INFINITY] = numeric_of("Infinity");
	result->numeric_specials[SPECIAL_MINUS_INFINITY] = numeric_of("-Infinity");
	result->aggregates.values = palloc(sizeof(Datum) * Max(def->naggregates, 1));
	result->aggregates.isnull = palloc(sizeof(bool) * Max(def->naggregates, 1));
	return result;
}

void
weir_result_begin(WeirResultRow *result, EState *estate)
{
	MemoryContext old_context;

	if (!result->has_expressions)
		return;
	old_context = MemoryContextSwitchTo(estate->es_query_cxt);
	result->econtext = CreateExprContext(estate);
	result->slot = MakeTupleTableSlot(result->desc, &TTSOpsVirtual);
	result->econtext->ecxt_scantuple = result->slot;
	for (int i = 0; i < result->def->noutputs; i++)
	{
		if (result->planned[i])
			result->states[i] = ExecInitExpr(result->planned[i], NULL);
	}
	MemoryContextSwitchTo(old_context);
}

static int64
count_of(const WeirResultRow *result, int atom, const WeirRow *hidden)
{
	return DatumGetInt64(hidden->values[result->def->atoms[atom].first_column]);
}

static bool
has_special(const WeirRow *hidden, int column)
{
	return !hidden->isnull[column] && DatumGetInt64(hidden->values[column]) > 0;
}

static Special
special_of(const WeirAtom *atom, const WeirRow *hidden)
{
	bool		plus_infinity;
	bool		minus_infinity;

	if (atom->ncolumns <= WEIR_SUM_SPECIALS)
		return SPECIAL_NONE;
	plus_infinity = has_special(hidden, atom->first_column + 2);
	minus_infinity = has_special(hidden, atom->first_column + 3);
	if (has_special(hidden, atom->first_column + 1) || (plus_infinity && minus_infinity))
		return SPECIAL_NAN;
	return plus_infinity ? SPECIAL_PLUS_INFINITY :
		minus_infinity ? SPECIAL_MINUS_INFINITY : SPECIAL_NONE;
}

static Datum
special_result(const WeirResultRow *result, Special special, Oid type)
{
	float8		number = special == SPECIAL_NAN ? get_float8_nan() :
		special == SPECIAL_PLUS_INFINITY ? get_float8_infinity() : -get_float8_infinity();

	switch (type)
	{
		case NUMERICOID:
			return result->numeric_specials[special];
		case FLOAT8OID:
			return Float8GetDatum(number);
		case FLOAT4OID:
			return Float4GetDatum((float4) number);
		case INTERVALOID:
			/* As core's sum: there is no NaN, and infinities cannot cancel. */
			if (special == SPECIAL_NAN)
				ereport(ERROR,
						(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
						 errmsg("sum of positive and negative infinite intervals is undefined")));
			return DirectFunctionCall3(interval_in,
									   CStringGetDatum(special == SPECIAL_PLUS_INFINITY ?
													   "infinity" : "-infinity"),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	elog(ERROR, "type %u has no value for NaN and infinity", type);
	return (Datum) 0;
}

/* Core's own error would show all the number's digits. */
static Datum
float_sum(Datum sum)
{
	Datum		number = DirectFunctionCall1(numeric_float8_no_overflow, sum);

	if (isinf(DatumGetFloat8(number)))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sum is out of range for type double precision")));
	return number;
}

static Datum
sum_result(Datum sum, Oid sum_type, Oid type)
{
	if (sum_type == type)
		return sum;
	if (sum_type == INT8OID && type == NUMERICOID)
		return DirectFunctionCall1(int8_numeric, sum);
	if (sum_type == NUMERICOID && type == FLOAT8OID)
		return float_sum(sum);
	if (sum_type == NUMERICOID && type == FLOAT4OID)
		return DirectFunctionCall1(numeric_float4, sum);
	elog(ERROR, "a sum kept as type %u cannot be returned as type %u", sum_type, type);
	return (Datum) 0;
}

/*
 * Dividing as floats is one rounding of exact operands. Only when the sum does
 * not fit a float although the average does is it divided as numeric, whose
 * quotient has fewer digits than a float can show.
 */
static Datum
float_average(Datum sum, int64 count)
{
	float8		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, sum));

	if (!isinf(number))
		return Float8GetDatum(number / (float8) count);
	return float_sum(DirectFunctionCall2(numeric_div, sum,
										 NumericGetDatum(int64_to_numeric(count))));
}

static Datum
average_result(Datum sum, Oid sum_type, int64 count, Oid type)
{
	if (type == INTERVALOID)
		return DirectFunctionCall2(interval_div, sum, Float8GetDatum((float8) count));
	if (sum_type == INT8OID)
		sum = DirectFunctionCall1(int8_numeric, sum);
	if (type == FLOAT8OID)
		return float_average(sum, count);
	if (type == NUMERICOID)
		return DirectFunctionCall2(numeric_div, sum, NumericGetDatum(int64_to_numeric(count)));
	elog(ERROR, "a sum kept as type %u cannot be averaged as type %u", sum_type, type);
	return (Datum) 0;
}

/* SUM and AVG; false: NULL. */
static bool
fill_from_sum(const WeirResultRow *result, const WeirAggregate *aggregate, const WeirRow *hidden,
			  Datum *value)
{
	const WeirAtom *atom = &result->def->atoms[aggregate->atom];
	Oid			sum_type = result->def->hidden[atom->first_column].type;
	Datum		sum = hidden->values[atom->first_column];
	Special		special = special_of(atom, hidden);
	int64		count = 1;

	if (aggregate->count_atom >= 0)
		count = count_of(result, aggregate->count_atom, hidden);
	if (count == 0)
		return false;
	if (special != SPECIAL_NONE)
		*value = special_result(result, special, aggregate->type);
	else if (hidden->isnull[atom->first_column])
		return false;
	else if (aggregate->kind == WEIR_AGG_SUM)
		*value = sum_result(sum, sum_type, aggregate->type);
	else
		*value = average_result(sum, sum_type, count, aggregate->type);
	return true;
}

/* False: NULL. */
static bool
fill_aggregate(const WeirResultRow *result, const WeirAggregate *aggregate, const WeirRow *hidden,
			   Datum *value)
{
	int			column = result->def->atoms[aggregate->atom].first_column;
	int64		ntrue;
	int64		nfalse;

	switch (aggregate->kind)
	{
		case WEIR_AGG_COUNT:
		case WEIR_AGG_MIN:
		case WEIR_AGG_MAX:
			*value = hidden->values[column];
			return !hidden->isnull[column];
		case WEIR_AGG_SUM:
		case WEIR_AGG_AVG:
			return fill_from_sum(result, aggregate, hidden, value);
		case WEIR_AGG_BOOL_AND:
		case WEIR_AGG_BOOL_OR:
			ntrue = count_of(result, aggregate->atom, hidden);
			nfalse = count_of(result, aggregate->count_atom, hidden);
			*value = BoolGetDatum(aggregate->kind == WEIR_AGG_BOOL_AND ? nfalse == 0 : ntrue > 0);
			return ntrue + nfalse > 0;
	}
	return false;
}

/* Expressions read keys and aggregates from the slot; without any it is not filled. */
static WeirRow
fill_inputs(WeirResultRow *result, const WeirRow *key, const WeirRow *hidden)
{
	const WeirDefinition *def = result->def;
	WeirRow		aggregates = result->aggregates;

	if (result->has_expressions)
	{
		ResetExprContext(result->econtext);
		ExecClearTuple(result->slot);
		for (int i = 0; i < def->nkeys; i++)
		{
			result->slot->tts_values[i] = key->values[i];
			result->slot->tts_isnull[i] = key->isnull[i];
		}
		aggregates.values = result->slot->tts_values + def->nkeys;
		aggregates.isnull = result->slot->tts_isnull + def->nkeys;
	}
	for (int i = 0; i < def->naggregates; i++)
	{
		aggregates.values[i] = (Datum) 0;
		aggregates.isnull[i] = !fill_aggregate(result, &def->aggregates[i], hidden,
											   &aggregates.values[i]);
	}
	if (result->has_expressions)
		ExecStoreVirtualTuple(result->slot);
	return aggregates;
}

void
weir_result_fill(WeirResultRow *result, const WeirRow *key, const WeirRow *hidden, WeirRow *row)
{
	const WeirDefinition *def = result->def;
	WeirRow		aggregates = fill_inputs(result, key, hidden);

	for (int i = 0; i < def->noutputs; i++)
	{
		int			index = def->outputs[i].index;

		switch (def->outputs[i].kind)
		{
			case WEIR_OUTPUT_KEY:
				row->values[i] = key->values[index];
				row->isnull[i] = key->isnull[index];
				break;
			case WEIR_OUTPUT_AGGREGATE:
				row->values[i] = aggregates.values[index];
				row->isnull[i] = aggregates.isnull[index];
				break;
			case WEIR_OUTPUT_EXPRESSION:
				row->values[i] = ExecEvalExpr(result->states[i], result->econtext, &row->isnull[i]);
				break;
		}
	}
}
