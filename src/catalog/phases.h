/*
 * phases.h - the phases of an upgrade and their legal edges, in one table.
 *
 * Storage: weir_internal.upgrade.phase. Every edge is one function in
 * upgrade_steps.c, one transaction, one ledger row (I10).
 */
#ifndef WEIR_PHASES_H
#define WEIR_PHASES_H

/*
 * X(enumerator, catalog text, bit mask of legal successors). Rolling back a
 * phase is an edge like any other; rolling_back is only entered when the old
 * version has to catch up first.
 */
#define WEIR_PHASES(X) \
	X(PREPARING, "preparing", WEIR_TO(BUILDING) | WEIR_TO(ROLLED_BACK)) \
	X(BUILDING, "building", WEIR_TO(CATCHING_UP) | WEIR_TO(ROLLED_BACK)) \
	X(CATCHING_UP, "catching_up", WEIR_TO(VALIDATING) | WEIR_TO(ROLLED_BACK)) \
	X(VALIDATING, "validating", WEIR_TO(SHIFTING) | WEIR_TO(ROLLED_BACK)) \
	X(SHIFTING, "shifting", WEIR_TO(OBSERVING) | WEIR_TO(ROLLING_BACK) | WEIR_TO(ROLLED_BACK)) \
	X(OBSERVING, "observing", WEIR_TO(FINALIZED) | WEIR_TO(ROLLING_BACK) | WEIR_TO(ROLLED_BACK)) \
	X(ROLLING_BACK, "rolling_back", WEIR_TO(ROLLED_BACK)) \
	X(FINALIZED, "finalized", 0) \
	X(ROLLED_BACK, "rolled_back", 0)

typedef enum WeirPhase
{
#define X(name, text, successors) WEIR_PHASE_##name,
	WEIR_PHASES(X)
#undef X
	WEIR_PHASE_COUNT
} WeirPhase;

extern const char *weir_phase_name(WeirPhase phase);
/* WEIR_PHASE_COUNT when there is no such phase. */
extern WeirPhase weir_phase_from_name(const char *name);
extern bool weir_phase_edge_is_legal(WeirPhase from, WeirPhase to);
/* finalized and rolled_back: nothing follows. */
extern bool weir_phase_is_end(WeirPhase phase);
/* A legal way leads from one to the other, or they are equal. */
extern bool weir_phase_can_reach(WeirPhase from, WeirPhase to);

#endif							/* WEIR_PHASES_H */
