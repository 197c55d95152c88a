/*
 * apply_budget.h - how long a version that does not serve may take over a batch.
 */
#ifndef WEIR_APPLY_BUDGET_H
#define WEIR_APPLY_BUDGET_H

#include "weir.h"

/* Begins the batch: nobody has served yet. */
extern void weir_apply_budget_reset(void);
/* A serving version took this long over the batch. */
extern void weir_apply_budget_note_serving(int64 apply_us);

/*
 * From here on until weir_apply_budget_end, which is also to be called when an
 * error ends it, the process is interrupted (57014) once the budget is used up.
 */
extern void weir_apply_budget_begin(void);
extern void weir_apply_budget_end(void);

/* Was the last one used up? Then the error's message, in the caller's context; else NULL. */
extern char *weir_apply_budget_message(void);

#endif							/* WEIR_APPLY_BUDGET_H */
