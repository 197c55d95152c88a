/*
 * result_row.h - from a key and its hidden values to the output columns.
 */
#ifndef WEIR_RESULT_ROW_H
#define WEIR_RESULT_ROW_H

#include "weir.h"
#include "nodes/execnodes.h"
#include "operator/definition.h"
#include "operator/state_key.h"

typedef struct WeirResultRow WeirResultRow;

/*
 * Needs a transaction and the owner's scope: planning an expression may run
 * its functions. Result in CurrentMemoryContext, valid across transactions.
 */
extern WeirResultRow *weir_result_create(const WeirDefinition *def);

/* Once per transaction, in the owner's scope; valid as long as estate. */
extern void weir_result_begin(WeirResultRow *result, EState *estate);

/*
 * Fills the first noutputs values of row. By-reference values point into the
 * arguments, into CurrentMemoryContext or live until the next call.
 */
extern void weir_result_fill(WeirResultRow *result, const WeirRow *key, const WeirRow *hidden,
							 WeirRow *row);

#endif							/* WEIR_RESULT_ROW_H */
