/*
 * gates.h - the conditions between the steps of an upgrade: their limits, and
 * what measured values mean. Pure: nothing is read from catalogs here.
 */
#ifndef WEIR_GATES_H
#define WEIR_GATES_H

#include "weir.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* Speeds are compared from so many rows, and so much time of the old version, on. */
#define WEIR_GATE_SLOWDOWN_ROWS 1000
#define WEIR_GATE_SLOWDOWN_US 100000

/* The limits of one upgrade. Durations in microseconds. */
typedef struct WeirGates
{
	int64		max_errors;
	int64		max_drift_rows;
	int64		observe;
	int64		min_rows;
	int64		max_lag;
	double		max_slowdown;
	List	   *sql;			/* the user's own queries, as given */
	int64		deadline;		/* no gate: how long the others may wait */
	char	   *text;			/* jsonb text with every key */
} WeirGates;

typedef enum WeirGateOutcome
{
	WEIR_GATE_PASS,
	WEIR_GATE_WAIT,				/* neither: it is looked at again */
	WEIR_GATE_FAIL
} WeirGateOutcome;

/* Of one of the user's queries. */
typedef struct WeirGateAnswer
{
	const char *answer;			/* "true", "false", "null" */
	const char *error;			/* SQLSTATE and message, or "" */
} WeirGateAnswer;

/* What was measured, since both versions run in lockstep in the present phase or step. */
typedef struct WeirGateValues
{
	int64		observed_us;
	int64		rows;			/* applied by the new version */
	int64		apply_us;
	int64		old_rows;		/* and by the old one */
	int64		old_apply_us;
	int64		errors;			/* of the new version, ever */
	int64		lag_us;			/* of the main reader; -1: not known yet */
	bool		drift_known;
	bool		drift_due;		/* what is known is too old to pass */
	int64		drift_missing;
	int64		drift_extra;
	XLogRecPtr	drift_lsn;
	List	   *answers;		/* WeirGateAnswer, to each query; NIL: not asked yet, or too long ago */
} WeirGateValues;

typedef struct WeirGateReading
{
	const char *gate;
	WeirGateOutcome outcome;
	char	   *detail;			/* jsonb text: limit and measured value */
	char	   *complaint;		/* fail: as a reason */
} WeirGateReading;

/* In CurrentMemoryContext. 22023 for what is unknown or out of range. */
extern WeirGates *weir_gates_parse(Jsonb *gates);
/* As weir_gates_parse, from what it returned as text. */
extern WeirGates *weir_gates_from_text(const char *text);

/* One WeirGateReading for each gate, always in the same order. */
extern List *weir_gates_evaluate(const WeirGates *gates, const WeirGateValues *values);
/* fail when one fails, else wait when one waits, else pass. */
extern WeirGateOutcome weir_gates_outcome(List *readings);
extern const char *weir_gate_outcome_name(WeirGateOutcome outcome);
/* The readings as a jsonb array. */
extern char *weir_gates_json(List *readings);
/* Which gates wait and fail, without values: equal as long as nothing changes. "" when all pass. */
extern char *weir_gates_signature(List *readings);
/* Those that wait by name, or the complaints of those that fail. */
extern char *weir_gates_reason(List *readings);

#endif							/* WEIR_GATES_H */
