/*
 * fold.c - combining delta rows into the hidden values of a key.
 *
 * Runs in readers; computes only, reads and writes no table.  One column of
 * hidden values after the other, each by its own rule, so an atom of several
 * columns needs no code of its own:
 *
 * counts and sums are added and subtracted, exactly, which makes them right
 * under UPDATE and DELETE.  NaN and infinities never get into a sum, because
 * nothing could take them out again: they are counted beside it, and so is how
 * many decimal places the values of a numeric sum have.  A minimum or
 * maximum only gets better by itself; when the value that went is as good as
 * the present one, the column is reported as stale and the caller takes the
 * true extreme from the side table, which holds this batch already.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "operator/fold.h"
#include "operator/numeric_scale.h"
#include "utils/builtins.h"
#include "utils/cash.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

typedef enum FoldRule
{
	FOLD_COUNT,					/* int8, never NULL */
	FOLD_SPECIALS,				/* int8, NULL instead of 0: nearly always so, then it costs one bit */
	FOLD_SUM_INTEGER,			/* int8 or money, checked addition; NULL: nothing contributed */
	FOLD_SUM_FUNCTION,			/* numeric or interval, by the type's own functions */
	FOLD_MIN,
	FOLD_MAX
} FoldRule;

struct WeirFoldColumn
{
	FoldRule	rule;
	int16		length;
	bool		by_value;
	Oid			collation;
	int			extreme;		/* MIN, MAX: index into the definition's extremes, -1 append-only */
	int			count;			/* sums: column of the count of values, -1 unknown */
	int			nspecials;		/* sums: columns after this one that count what is not in it */
	int			scales;			/* sums: column of the values by decimal places, -1 none */
	PGFunction	add;
	PGFunction	subtract;
	Datum		zero;
	FmgrInfo	compare;
};

static void
init_sum(WeirFoldColumn *column, Oid type)
{
	switch (type)
	{
		case INT8OID:
		case CASHOID:
			column->rule = FOLD_SUM_INTEGER;
			break;
		case NUMERICOID:
			column->rule = FOLD_SUM_FUNCTION;
			column->add = numeric_add;
			column->subtract = numeric_sub;
			column->zero = NumericGetDatum(int64_to_numeric(0));
			break;
		case INTERVALOID:
			column->rule = FOLD_SUM_FUNCTION;
			column->add = interval_pl;
			column->subtract = interval_mi;
			column->zero = IntervalPGetDatum(palloc0(sizeof(Interval)));
			break;
		default:
			elog(ERROR, "no rule to add values of type %u", type);
	}
}

static void
init_extreme(WeirFoldColumn *column, const WeirAtom *atom, Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_CMP_PROC_FINFO);

	if (!OidIsValid(entry->cmp_proc_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("type %s has no order", format_type_be(type))));
	fmgr_info_copy(&column->compare, &entry->cmp_proc_finfo, CurrentMemoryContext);
	column->rule = atom->kind == WEIR_ATOM_MIN ? FOLD_MIN : FOLD_MAX;
	column->collation = atom->arg_collation;
	column->extreme = atom->extreme;
}

static void
init_atom(WeirFold *fold, const WeirAtom *atom)
{
	WeirFoldColumn *first = &fold->columns[atom->first_column];

	switch (atom->kind)
	{
		case WEIR_ATOM_COUNT:
			first->rule = FOLD_COUNT;
			break;
		case WEIR_ATOM_SUM:
			init_sum(first, fold->def->hidden[atom->first_column].type);
			first->nspecials = Min(atom->ncolumns - 1, WEIR_SUM_SPECIALS);
			for (int i = 1; i <= first->nspecials; i++)
				first[i].rule = FOLD_SPECIALS;
			if (atom->ncolumns > WEIR_SUM_SCALES)
			{
				first->scales = atom->first_column + WEIR_SUM_SCALES;
				init_sum(&first[WEIR_SUM_SCALES], NUMERICOID);
			}
			break;
		case WEIR_ATOM_MIN:
		case WEIR_ATOM_MAX:
			init_extreme(first, atom, fold->def->hidden[atom->first_column].type);
			break;
	}
}

WeirFold *
weir_fold_create(const WeirDefinition *def)
{
	WeirFold   *fold = palloc0(sizeof(WeirFold));

	fold->def = def;
	fold->columns = palloc0(sizeof(WeirFoldColumn) * def->nhidden);
	fold->stale = palloc(sizeof(int) * def->nhidden);
	for (int i = 0; i < def->nhidden; i++)
	{
		WeirFoldColumn *column = &fold->columns[i];

		get_typlenbyval(def->hidden[i].type, &column->length, &column->by_value);
		column->extreme = -1;
		column->count = -1;
		column->scales = -1;
	}
	for (int i = 0; i < def->natoms; i++)
		init_atom(fold, &def->atoms[i]);
	for (int i = 0; i < def->naggregates; i++)
	{
		const WeirAggregate *aggregate = &def->aggregates[i];

		if ((aggregate->kind == WEIR_AGG_SUM || aggregate->kind == WEIR_AGG_AVG) &&
			aggregate->count_atom >= 0)
			fold->columns[def->atoms[aggregate->atom].first_column].count =
				def->atoms[aggregate->count_atom].first_column;
	}
	return fold;
}

static inline bool
get(const WeirRow *row, int column, Datum *value)
{
	if (row == NULL || row->isnull[column])
		return false;
	*value = row->values[column];
	return true;
}

static void
raise_out_of_range(const WeirFold *fold, int column)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("%s out of range", format_type_be(fold->def->hidden[column].type)),
			 errdetail("The sum or count kept in state column \"%s\" does not fit its type.",
					   fold->def->hidden[column].name)));
}

/* old + plus - minus; false when no row has a value. */
static bool
combine_integers(const WeirFold *fold, int column, const WeirRow *old, const WeirRow *plus,
				 const WeirRow *minus, int64 *result)
{
	Datum		value;
	bool		any = false;

	*result = 0;
	if (get(old, column, &value))
	{
		*result = DatumGetInt64(value);
		any = true;
	}
	if (get(plus, column, &value))
	{
		if (pg_add_s64_overflow(*result, DatumGetInt64(value), result))
			raise_out_of_range(fold, column);
		any = true;
	}
	if (get(minus, column, &value))
	{
		if (pg_sub_s64_overflow(*result, DatumGetInt64(value), result))
			raise_out_of_range(fold, column);
		any = true;
	}
	return any;
}

/* The same for types whose addition is a function. */
static bool
combine_by_function(const WeirFoldColumn *rule, int column, const WeirRow *old, const WeirRow *plus,
					const WeirRow *minus, Datum *result)
{
	Datum		value;
	bool		any = get(old, column, result);

	if (get(plus, column, &value))
	{
		*result = any ? DirectFunctionCall2(rule->add, *result, value) : value;
		any = true;
	}
	if (get(minus, column, &value))
	{
		*result = DirectFunctionCall2(rule->subtract, any ? *result : rule->zero, value);
		any = true;
	}
	return any;
}

/* Below 0: a is the better extreme; 0: equally good. */
static inline int
compare_extremes(WeirFoldColumn *rule, Datum a, Datum b)
{
	int			order = DatumGetInt32(FunctionCall2Coll(&rule->compare, rule->collation, a, b));

	return rule->rule == FOLD_MIN ? order : -order;
}

/* False: NULL. Notes the column as stale when the old extreme may have gone. */
static bool
combine_extremes(WeirFold *fold, int column, const WeirRow *old, const WeirRow *plus,
				 const WeirRow *minus, Datum *result)
{
	WeirFoldColumn *rule = &fold->columns[column];
	Datum		value;
	bool		any = get(old, column, result);

	if (get(plus, column, &value) && (!any || compare_extremes(rule, value, *result) < 0))
	{
		*result = value;
		any = true;
	}
	if (get(minus, column, &value) && (!any || compare_extremes(rule, value, *result) <= 0))
		fold->stale[fold->nstale++] = column;
	return any;
}

/*
 * What went leaves no trace: a sum to which nothing contributes any more is
 * NULL again, as if nothing ever had, and others have the decimal places of
 * what they consist of.
 */
static void
settle_sums(WeirFold *fold, WeirRow *result)
{
	for (int i = 0; i < fold->def->nhidden; i++)
	{
		const WeirFoldColumn *column = &fold->columns[i];
		int64		contributing;

		if (column->count < 0 || result->isnull[i])
			continue;
		contributing = DatumGetInt64(result->values[column->count]);
		for (int special = i + 1; special <= i + column->nspecials; special++)
		{
			if (!result->isnull[special])
				contributing -= DatumGetInt64(result->values[special]);
		}
		result->isnull[i] = contributing == 0;
		if (column->scales < 0)
			continue;
		result->isnull[column->scales] |= result->isnull[i];
		if (!result->isnull[column->scales])
			result->values[i] = weir_numeric_scale_settle(result->values[i], result->values[column->scales]);
	}
}

bool
weir_fold_combine(WeirFold *fold, const WeirRow *old, const WeirRow *plus,
				  const WeirRow *minus, WeirRow *result)
{
	fold->negative = -1;
	fold->nstale = 0;
	for (int i = 0; i < fold->def->nhidden; i++)
	{
		WeirFoldColumn *column = &fold->columns[i];
		Datum		value = (Datum) 0;
		int64		number;
		bool		any = false;

		switch (column->rule)
		{
			case FOLD_COUNT:
			case FOLD_SPECIALS:
				combine_integers(fold, i, old, plus, minus, &number);
				if (number < 0)
				{
					fold->negative = i;
					return false;
				}
				any = column->rule == FOLD_COUNT || number != 0;
				value = Int64GetDatum(number);
				break;
			case FOLD_SUM_INTEGER:
				any = combine_integers(fold, i, old, plus, minus, &number);
				value = Int64GetDatum(number);
				break;
			case FOLD_SUM_FUNCTION:
				any = combine_by_function(column, i, old, plus, minus, &value);
				break;
			case FOLD_MIN:
			case FOLD_MAX:
				any = combine_extremes(fold, i, old, plus, minus, &value);
				break;
		}
		result->values[i] = value;
		result->isnull[i] = !any;
	}
	settle_sums(fold, result);
	return true;
}

/* All counts are of rows of the group, which are counted in the first column. */
static const char *
count_fault(const WeirFold *fold, const WeirRow *hidden, int column)
{
	int64		count = DatumGetInt64(hidden->values[column]);

	if (count < 0)
		return "is less than 0";
	if (column == 0)
		return count == 0 && fold->def->nkeys > 0 ? "is 0, which is no group" : NULL;
	return count > DatumGetInt64(hidden->values[0]) ? "is more than the rows of the group" : NULL;
}

static bool
is_finite_sum(const WeirFoldColumn *rule, Datum sum)
{
	if (rule->rule == FOLD_SUM_INTEGER)
		return true;
	if (rule->add == interval_pl)
		return DatumGetBool(DirectFunctionCall1(interval_finite, sum));
	return !numeric_is_nan(DatumGetNumeric(sum)) && !numeric_is_inf(DatumGetNumeric(sum));
}

static bool
is_zero_sum(const WeirFoldColumn *rule, Datum sum)
{
	if (rule->rule == FOLD_SUM_INTEGER)
		return DatumGetInt64(sum) == 0;
	return DatumGetBool(DirectFunctionCall2(rule->add == interval_pl ? interval_eq : numeric_eq,
											sum, rule->zero));
}

/* Counts of too few places would take digits off the sum. */
static bool
counts_places_of(Datum counts, int64 values, Datum sum)
{
	return weir_numeric_scale_total(counts) == values &&
		DatumGetBool(DirectFunctionCall2(numeric_eq, sum, weir_numeric_scale_settle(sum, counts)));
}

/* A sum and what it says about itself in the counts beside it have to agree. */
static const char *
sum_fault(const WeirFold *fold, const WeirRow *hidden, int *at)
{
	int			column = *at;
	const WeirFoldColumn *rule = &fold->columns[column];
	Datum		sum = hidden->values[column];
	bool		isnull = hidden->isnull[column];
	int64		contributing;

	if (!isnull && !is_finite_sum(rule, sum))
		return "is not finite";
	if (rule->count < 0 || hidden->isnull[rule->count])
		return NULL;
	contributing = DatumGetInt64(hidden->values[rule->count]);
	for (int special = column + 1; special <= column + rule->nspecials; special++)
	{
		if (!hidden->isnull[special])
			contributing -= DatumGetInt64(hidden->values[special]);
	}
	if (contributing < 0)
		return "has more values that are not finite than values";
	if (contributing > 0 && isnull)
		return "is NULL although values were counted";
	if (contributing == 0)
		return isnull || is_zero_sum(rule, sum) ? NULL : "is not 0 although no value was counted";
	if (rule->scales < 0 ||
		(!hidden->isnull[rule->scales] && is_finite_sum(&fold->columns[rule->scales], hidden->values[rule->scales]) &&
		 counts_places_of(hidden->values[rule->scales], contributing, sum)))
		return NULL;
	*at = rule->scales;
	return "does not count the decimal places of the sum's values";
}

const char *
weir_fold_seed_fault(const WeirFold *fold, const WeirRow *hidden, int *column)
{
	for (*column = 0; *column < fold->def->nhidden; (*column)++)
	{
		const char *fault = NULL;

		switch (fold->columns[*column].rule)
		{
			case FOLD_COUNT:
				fault = hidden->isnull[*column] ? "is NULL" : count_fault(fold, hidden, *column);
				break;
			case FOLD_SPECIALS:
				fault = hidden->isnull[*column] ? NULL : count_fault(fold, hidden, *column);
				break;
			case FOLD_SUM_INTEGER:
			case FOLD_SUM_FUNCTION:
				fault = sum_fault(fold, hidden, column);
				break;
			case FOLD_MIN:
			case FOLD_MAX:
				break;
		}
		if (fault != NULL)
			return fault;
	}
	return NULL;
}

int
weir_fold_extreme(const WeirFold *fold, int column, bool *greatest)
{
	const WeirFoldColumn *rule = &fold->columns[column];

	if (rule->extreme < 0)
		elog(ERROR, "state column \"%s\" lost a value but has no side table",
			 fold->def->hidden[column].name);
	*greatest = rule->rule == FOLD_MAX;
	return rule->extreme;
}

bool
weir_fold_changed(const WeirFold *fold, const WeirRow *a, const WeirRow *b)
{
	for (int i = 0; i < fold->def->nhidden; i++)
	{
		const WeirFoldColumn *column = &fold->columns[i];

		if (a->isnull[i] != b->isnull[i])
			return true;
		/* Of the image, not of the datum: a stored value has a shorter header than a fresh one. */
		if (!a->isnull[i] &&
			!datum_image_eq(a->values[i], b->values[i], column->by_value, column->length))
			return true;
	}
	return false;
}
