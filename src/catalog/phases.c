/*
 * phases.c - questions about the phase table of phases.h. Pure.
 */
#include "postgres.h"

#include "catalog/phases.h"

#define WEIR_TO(name) (1 << WEIR_PHASE_##name)

static const struct
{
	const char *name;
	int			successors;
}			phases[] = {
#define X(name, text, successors) {text, successors},
	WEIR_PHASES(X)
#undef X
};

const char *
weir_phase_name(WeirPhase phase)
{
	Assert(phase < WEIR_PHASE_COUNT);
	return phases[phase].name;
}

WeirPhase
weir_phase_from_name(const char *name)
{
	for (int i = 0; i < WEIR_PHASE_COUNT; i++)
		if (strcmp(phases[i].name, name) == 0)
			return (WeirPhase) i;
	return WEIR_PHASE_COUNT;
}

bool
weir_phase_edge_is_legal(WeirPhase from, WeirPhase to)
{
	return (phases[from].successors & (1 << to)) != 0;
}

bool
weir_phase_is_end(WeirPhase phase)
{
	return phases[phase].successors == 0;
}

bool
weir_phase_can_reach(WeirPhase from, WeirPhase to)
{
	if (from == to)
		return true;
	/* The graph has no cycle, so this ends. */
	for (int next = 0; next < WEIR_PHASE_COUNT; next++)
		if (weir_phase_edge_is_legal(from, (WeirPhase) next) &&
			weir_phase_can_reach((WeirPhase) next, to))
			return true;
	return false;
}
