/*
 * numeric_scale.h - the decimal places that a kept numeric sum must have.
 */
#ifndef WEIR_NUMERIC_SCALE_H
#define WEIR_NUMERIC_SCALE_H

#include "weir.h"

/* The aggregate over an argument's SQL text that counts finite values by their decimal places; without FILTER. */
extern char *weir_numeric_scale_sql(const char *argument);

/*
 * The sum with the decimal places of the values counted, when it has at least
 * those: itself, or a value in CurrentMemoryContext.
 */
extern Datum weir_numeric_scale_settle(Datum sum, Datum counts);

/* How many values are counted in it; -1: it is no such count. */
extern int64 weir_numeric_scale_total(Datum counts);

#endif							/* WEIR_NUMERIC_SCALE_H */
