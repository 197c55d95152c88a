/*
 * upgrade_steps.h - the edges of an upgrade: one function, one transaction,
 * one ledger row each.
 *
 * SPI connected, catalog rights, the operator's row locked by the caller; the
 * caller's transaction decides.
 */
#ifndef WEIR_UPGRADE_STEPS_H
#define WEIR_UPGRADE_STEPS_H

#include "weir.h"
#include "catalog/operator_catalog.h"
#include "catalog/upgrade_catalog.h"

/* Walks at most one edge; true when something changed. Coordinator only. */
extern bool weir_upgrade_walk(const WeirOperator *operator, WeirUpgrade *upgrade);

/*
 * Back to the old version, from any phase that has not ended; 55000 when the
 * old version is no longer in lockstep.
 */
extern void weir_upgrade_roll_back(const WeirOperator *operator, WeirUpgrade *upgrade,
								   Oid actor, const char *reason);

/* Ends the safe window: the old version goes. Only while observing. */
extern void weir_upgrade_finalize(const WeirOperator *operator, WeirUpgrade *upgrade, Oid actor,
								  const char *reason);

/*
 * A paused upgrade stays in its phase: no edge but the end that a failing new
 * version brings, or a call asks for. False: it was so already. Its reason
 * becomes the one given, or NULL.
 */
extern bool weir_upgrade_pause(const WeirOperator *operator, WeirUpgrade *upgrade, bool paused,
							   Oid actor, const char *reason);

#endif							/* WEIR_UPGRADE_STEPS_H */
