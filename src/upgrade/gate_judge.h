/*
 * gate_judge.h - measuring the gates of an upgrade, and recording the outcome.
 *
 * Coordinator only. SPI connected, catalog rights, the operator's row locked;
 * the caller's transaction decides.
 */
#ifndef WEIR_GATE_JUDGE_H
#define WEIR_GATE_JUDGE_H

#include "weir.h"
#include "catalog/operator_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "upgrade/gates.h"

/*
 * May the upgrade take its next step? Of PASS and FAIL the readings are in the
 * ledger, so that the caller must act on them; *reason says what fails, or
 * what is waited for. is_wanted: the step would be taken at once, else only
 * looked at. *is_overdue: they have waited for longer than the deadline.
 */
extern WeirGateOutcome weir_gates_judge(const WeirOperator *operator, const WeirUpgrade *upgrade,
										bool is_wanted, const char **reason, bool *is_overdue);

/* True when the user's queries are to be asked. */
extern bool weir_gates_want_answers(const WeirUpgrade *upgrade);

/* True when the versions are to be compared before the gates can pass. */
extern bool weir_gates_want_comparison(const WeirUpgrade *upgrade);

#endif							/* WEIR_GATE_JUDGE_H */
