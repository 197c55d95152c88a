/*
 * reconcile.h - bringing rows, slots and relations in line with what the
 * catalogs ask for. Coordinator only; each function is its own transactions.
 */
#ifndef WEIR_RECONCILE_H
#define WEIR_RECONCILE_H

#include "weir.h"
#include "nodes/pg_list.h"

/* reconcile.c: rows. True when something changed (look again soon). */
extern bool weir_reconcile_operators(void);		/* views that are gone */
extern bool weir_reconcile_versions(void);		/* versions without a reader, readers without a version */
extern bool weir_reconcile_paused(void);		/* live versions that are to stop: tells their readers */
extern bool weir_reconcile_resumed(void);		/* stopped versions that are to go on */
extern bool weir_reconcile_retired(void);		/* views and relations that nobody needs */
extern bool weir_reconcile_upgrades(void);		/* one edge of each upgrade */
/* Rolls it back for an error that another try would repeat; also called by a gatekeeper. */
extern void weir_reconcile_end_failed_upgrade(int64 operator_id, ErrorData *error);
extern bool weir_reconcile_ledger(void);		/* entries without a place in their chain */
/* True while something is under way that needs short turns. */
extern bool weir_reconcile_is_busy(void);

/* slot_keeper.c: slots. */
extern bool weir_slots_copy_pending(void);		/* for versions that stopped */
extern bool weir_slots_drop_ended(void);		/* of readers that ended; orphans */
extern bool weir_slots_fence_foreign(void);		/* rows that came from another cluster, timeline or database */
extern bool weir_slots_bound_retained_wal(void);	/* weir.max_retained_wal */
extern bool weir_slots_drop_all(void);			/* the extension is gone; false: one is in use */

/* state_rights.c: the view's owner may read its state, nobody else. */
extern bool weir_state_rights_mend(void);

/* alerts.c */
extern bool weir_alerts_evaluate(void);			/* conditions that need a person */

/* verify_request.c */
extern bool weir_verifications_start(void);		/* waiting calls */
extern bool weir_verifications_abandon(void);	/* calls that left */

#endif							/* WEIR_RECONCILE_H */
