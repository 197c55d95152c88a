/*
 * fold.h - combining delta rows into the hidden values of a key.
 */
#ifndef WEIR_FOLD_H
#define WEIR_FOLD_H

#include "weir.h"
#include "operator/definition.h"
#include "operator/state_key.h"

typedef struct WeirFoldColumn WeirFoldColumn;

typedef struct WeirFold
{
	const WeirDefinition *def;
	WeirFoldColumn *columns;	/* one per hidden column */

	/* What the last weir_fold_combine met. */
	int			negative;		/* column whose count would fall below zero, or -1 */
	int			nstale;
	int		   *stale;			/* columns whose extreme went: the caller looks the new one up */
} WeirFold;

/* Needs a transaction. Result in CurrentMemoryContext, valid across transactions. */
extern WeirFold *weir_fold_create(const WeirDefinition *def);

/*
 * result = old + plus - minus, rows of hidden values; any of the three may be
 * NULL (no row).  By-reference results point into the arguments or into
 * CurrentMemoryContext.  False when a count would fall below zero (see
 * negative; the result is then incomplete).  Raises 22003 on overflow.
 */
extern bool weir_fold_combine(WeirFold *fold, const WeirRow *old, const WeirRow *plus,
							  const WeirRow *minus, WeirRow *result);

/*
 * What speaks against hidden values that no fold has made (said of the column:
 * "is NULL"), or NULL.
 */
extern const char *weir_fold_seed_fault(const WeirFold *fold, const WeirRow *hidden, int *column);

/* For a stale column: index into the definition's extremes, and which end of it. */
extern int	weir_fold_extreme(const WeirFold *fold, int column, bool *greatest);

/* Do two rows of hidden values differ in any bit that is stored? */
extern bool weir_fold_changed(const WeirFold *fold, const WeirRow *a, const WeirRow *b);

#endif							/* WEIR_FOLD_H */
