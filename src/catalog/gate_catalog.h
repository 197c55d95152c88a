/*
 * gate_catalog.h - rows of weir_internal.gate: what the gates of an upgrade
 * were read as last, and the counters from which they are measured.
 *
 * Written by the coordinator, and gatekeepers, under the operator's row lock. SPI
 * connected; transactions belong to the caller.
 */
#ifndef WEIR_GATE_CATALOG_H
#define WEIR_GATE_CATALOG_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* Of both versions, as the readers have recorded them. */
typedef struct WeirGateCounters
{
	int64		rows;
	int64		apply_us;
	int64		old_rows;
	int64		old_apply_us;
} WeirGateCounters;

typedef struct WeirGateStanding
{
	/* what is, now */
	TimestampTz since;			/* the phase or step runs, and the new version in lockstep */
	WeirGateCounters counters;
	int64		errors;
	TimestampTz drift_at;		/* 0: not compared yet */
	int64		drift_missing;
	int64		drift_extra;
	XLogRecPtr	drift_lsn;
	/* what was recorded; of another phase or step when start is not since */
	TimestampTz start;			/* 0: nothing yet */
	TimestampTz waiting_since;	/* from here the deadline counts; 0: from the next look */
	WeirGateCounters base;		/* at the start */
	TimestampTz ready_since;	/* all but the comparison has been there for the step; 0: it is not */
	TimestampTz ask_at;			/* the user's queries are to be asked, since; 0: never yet */
	TimestampTz answered_at;	/* when asking began to which these are the answers */
	List	   *answers;		/* of char *: true, false, null */
	List	   *answer_errors;	/* of char *: SQLSTATE and message, or "" */
	TimestampTz read_at;
	char	   *signature;		/* which ones did not pass, since: */
	TimestampTz signature_since;
	char	   *in_ledger;		/* the signature of the last entry there, or NULL */
} WeirGateStanding;

/* False when the new version is not live. */
extern bool weir_gate_get(int64 upgrade_id, WeirGateStanding *standing);
/* Another phase or step begins to be judged: standing is as get will give it. */
extern void weir_gate_start(int64 upgrade_id, WeirGateStanding *standing);
/* The present reading. */
extern void weir_gate_write(int64 upgrade_id, const WeirGateStanding *standing, const char *readings);
/* From the next look on. */
extern void weir_gate_restart_deadline(int64 upgrade_id);
/* By a gatekeeper. */
extern void weir_gate_set_answers(int64 upgrade_id, List *answers, List *errors, TimestampTz answered_at);

#endif							/* WEIR_GATE_CATALOG_H */
