/*
 * delta_run.h - from the rows of a delta query to writes in a state table.
 */
#ifndef WEIR_DELTA_RUN_H
#define WEIR_DELTA_RUN_H

#include "weir.h"
#include "operator/state_table.h"
#include "tcop/dest.h"

typedef struct WeirDeltaRun WeirDeltaRun;

/*
 * Opens the state table, and the side tables to look extremes up in. In the
 * owner's scope; everything is in CurrentMemoryContext. may_retract: a key may
 * come as two adjacent rows, one per sign.  What is done is added to counts.
 */
extern WeirDeltaRun *weir_delta_run_begin(WeirState *state, bool may_retract, WeirApplyCounts *counts);

/* Give it to the executor that runs the delta query. */
extern DestReceiver *weir_delta_run_receiver(WeirDeltaRun *run);

/* Without keys: makes sure that the one row exists. */
extern void weir_delta_run_fold_nothing(WeirDeltaRun *run);

/* Folds what is pending, closes the tables; later commands of the transaction see the writes. */
extern void weir_delta_run_end(WeirDeltaRun *run);

#endif							/* WEIR_DELTA_RUN_H */
