/*
 * numeric_scale.c - the decimal places that a kept numeric sum must have.
 *
 * Runs in sessions (texts) and in readers (the rest); computes only.  A sum
 * of numeric has as many decimal places as the one of its values with the
 * most, and a quotient of it gets its own from there: two sums that are equal
 * may have averages that are not.  Adding and subtracting only ever makes the
 * places more, so beside a sum of values of any scale it is counted how many
 * values have how many places.
 *
 * All counts are in one numeric, 16 decimal digits for each number of places:
 * 3 values with 2 places and 5 with none are 3e32 + 5.  That is a sum, so it
 * is added, taken back and copied like any other, and takes some bytes when
 * the values have few places.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "operator/numeric_scale.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#define DIGITS_PER_COUNT	16
/* Division gives no more places than these, whatever its operands have: values with more are counted here. */
#define MOST_PLACES			1000
/* Values with fewer are looked up and not computed, in an array that is a constant of the plan. */
#define PLACES_IN_ARRAY		16

char *
weir_numeric_scale_sql(const char *argument)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "pg_catalog.sum(COALESCE(('[0:%d]={1", PLACES_IN_ARRAY - 1);
	for (int places = 1; places < PLACES_IN_ARRAY; places++)
		appendStringInfo(&sql, ",1e%d", places * DIGITS_PER_COUNT);
	/* NULL, NaN and the infinities have no scale and are not counted: LEAST would not do. */
	appendStringInfo(&sql, "}'::pg_catalog.numeric[])[pg_catalog.scale(%s)], "
					 "('1e' || pg_catalog.int4smaller(pg_catalog.scale(%s), %d) * %d)::pg_catalog.numeric))",
					 argument, argument, MOST_PLACES, DIGITS_PER_COUNT);
	return sql.data;
}

/* The least that counts are when some value has so many places. */
static Datum
least_counts(int places)
{
	static Datum made[MOST_PLACES + 1];
	MemoryContext caller_context;
	char		text[32];

	if (made[places] == (Datum) 0)
	{
		snprintf(text, sizeof(text), "1e%d", places * DIGITS_PER_COUNT);
		caller_context = MemoryContextSwitchTo(TopMemoryContext);
		made[places] = DirectFunctionCall3(numeric_in, CStringGetDatum(text),
										   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		MemoryContextSwitchTo(caller_context);
	}
	return made[places];
}

Datum
weir_numeric_scale_settle(Datum sum, Datum counts)
{
	int			kept = Min(DatumGetInt32(DirectFunctionCall1(numeric_scale, sum)), MOST_PLACES);
	int			present = kept;

	while (present > 0 &&
		   DatumGetInt32(DirectFunctionCall2(numeric_cmp, counts, least_counts(present))) < 0)
		present--;
	/* Takes off zeros only: all that is in the sum has no more places. */
	return present == kept ? sum : DirectFunctionCall2(numeric_round, sum, Int32GetDatum(present));
}

/* All counts are digits to the base 1e16; modulo one less, a number is the sum of its digits. */
int64
weir_numeric_scale_total(Datum counts)
{
	Datum		modulus = NumericGetDatum(int64_to_numeric(INT64CONST(9999999999999999)));
	Datum		total = DirectFunctionCall2(numeric_mod, counts, modulus);
	Datum		whole = DirectFunctionCall2(numeric_trunc, total, Int32GetDatum(0));

	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, total, whole)))
		return -1;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, whole));
}
