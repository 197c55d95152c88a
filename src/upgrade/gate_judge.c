/*
 * gate_judge.c - measuring the gates of an upgrade, and recording the outcome.
 *
 * Runs in the coordinator, before validating ends and before each further
 * step. What is counted since the phase or step began needs the counters of
 * that moment, which are in weir_internal.gate; nothing in memory is needed to
 * go on, but for the lag, which is known again a turn after a restart.
 *
 * A decision (a step taken, an upgrade rolled back) is always in the ledger with
 * its readings. Waiting is recorded when it has lasted and other gates wait
 * than at the last entry: readings that change with every look are not.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "catalog/gate_catalog.h"
#include "catalog/ledger_catalog.h"
#include "upgrade/gate_judge.h"
#include "weir_shmem.h"

/* Waiting that lasts so long is worth an entry in the ledger, and readings are renewed this often. */
#define WAIT_IS_NEWS_MS 1000
#define READINGS_RENEWED_MS 2000
/* The user's queries, while one of them does not pass. */
#define ASKED_AGAIN_MS 2000

/* Marks that nobody has looked at for so long say nothing about the present. */
#define MARK_IS_OLD_MS 60000

/* A place in the WAL, known at a known moment, until the main reader has come to it. */
static struct
{
	XLogRecPtr	lsn;
	TimestampTz since;			/* 0: none */
	TimestampTz looked_at;
	int64		passed_after_us;	/* the one before; -1: none yet */
}			mark = {.passed_after_us = -1};

/*
 * In time, from marks: commits carry the time at which they began to commit,
 * and the last one applied may be long ago because nothing came. Only the
 * first mark is the end of the WAL, for what was committed before the server
 * started; then commits in this database, as their sessions have reported them.
 */
static int64
main_reader_lag_us(void)
{
	WeirReaderShmem *reader = weir_main_reader_find(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(mark.looked_at, now, MARK_IS_OLD_MS))
	{
		mark.since = 0;
		mark.passed_after_us = -1;
	}
	mark.looked_at = now;
	if (mark.since == 0)
	{
		mark.lsn = mark.passed_after_us < 0 ? GetFlushRecPtr(NULL) : weir_last_commit_lsn(MyDatabaseId);
		mark.since = now;
	}
	if (reader != NULL && pg_atomic_read_u64(&reader->scanned_lsn) >= mark.lsn)
	{
		mark.passed_after_us = now - mark.since;
		mark.since = 0;
		return mark.passed_after_us;
	}
	if (reader != NULL)
		weir_wake_reader(reader);	/* idle, it may not have looked at the WAL since */
	return mark.passed_after_us < 0 ? -1 : Max(mark.passed_after_us, now - mark.since);
}

/* Counters that were reset since start from zero. */
static int64
counted(int64 now, int64 base)
{
	return now >= base ? now - base : now;
}

/* The first comparison is made at once, so that what is wrong need not be observed. */
static bool
comparison_is_due(const WeirGateStanding *standing)
{
	return standing->drift_at == 0 || (standing->ready_since != 0 && standing->drift_at < standing->ready_since);
}

static WeirGateValues
measure(const WeirGateStanding *standing)
{
	return (WeirGateValues)
	{
		.observed_us = GetCurrentTimestamp() - standing->since,
		.rows = counted(standing->counters.rows, standing->base.rows),
		.apply_us = counted(standing->counters.apply_us, standing->base.apply_us),
		.old_rows = counted(standing->counters.old_rows, standing->base.old_rows),
		.old_apply_us = counted(standing->counters.old_apply_us, standing->base.old_apply_us),
		.errors = standing->errors,
		.lag_us = main_reader_lag_us(),
		.drift_known = standing->drift_at != 0,
		.drift_missing = standing->drift_missing,
		.drift_extra = standing->drift_extra,
		.drift_lsn = standing->drift_lsn
	};
}

static void
record_in_ledger(const WeirOperator *operator, const WeirUpgrade *upgrade, WeirGateOutcome outcome,
				 const char *reason, const char *readings)
{
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = upgrade->upgrade_id,
		.event = "gate",
		.from_phase = weir_phase_name(upgrade->phase),
		.from_version = upgrade->from_version,
		.to_version = upgrade->to_version,
		.actor = GetUserId(),
		.reason = outcome == WEIR_GATE_WAIT ? reason :
		outcome == WEIR_GATE_PASS ? "all gates pass" : psprintf("gates fail: %s", reason),
		.detail = readings,
	};

	weir_ledger_append(&entry);
}

/* The row of weir_internal.gate, and the ledger's when there is news. */
static void
record(const WeirOperator *operator, const WeirUpgrade *upgrade, WeirGateStanding *standing, List *readings,
	   bool has_changed, bool is_decision, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();
	char	   *signature = weir_gates_signature(readings);
	char	   *json = weir_gates_json(readings);
	bool		is_news = is_decision;

	if (standing->signature == NULL || strcmp(standing->signature, signature) != 0)
	{
		standing->signature = signature;
		standing->signature_since = now;
		has_changed = true;
	}
	else
		is_news |= TimestampDifferenceExceeds(standing->signature_since, now, WAIT_IS_NEWS_MS) &&
			(standing->in_ledger == NULL || strcmp(standing->in_ledger, signature) != 0);
	if (is_news)
	{
		standing->in_ledger = signature;
		record_in_ledger(operator, upgrade, weir_gates_outcome(readings), reason, json);
	}
	if (!is_news && !has_changed && !TimestampDifferenceExceeds(standing->read_at, now, READINGS_RENEWED_MS))
		return;
	standing->read_at = now;
	weir_gate_write(upgrade->upgrade_id, standing, json);
}

/* Answers given for the present step, or NIL. */
static List *
present_answers(const WeirGateStanding *standing)
{
	List	   *answers = NIL;
	ListCell   *answer;
	ListCell   *error;

	if (standing->answered_at < Max(standing->start, standing->ready_since))
		return NIL;
	forboth(answer, standing->answers, error, standing->answer_errors)
	{
		WeirGateAnswer *entry = palloc(sizeof(WeirGateAnswer));

		entry->answer = lfirst(answer);
		entry->error = lfirst(error);
		answers = lappend(answers, entry);
	}
	return answers;
}

static bool
all_are_true(List *answers)
{
	ListCell   *lc;

	foreach(lc, answers)
		if (strcmp(((WeirGateAnswer *) lfirst(lc))->answer, "true") != 0)
			return false;
	return answers != NIL;
}

/* When nothing else is missing, so that a query sees a version that has been observed. */
static void
ask_if_due(const WeirGates *gates, bool others_pass, List *answers, WeirGateStanding *standing)
{
	TimestampTz now = GetCurrentTimestamp();

	if (gates->sql == NIL || !others_pass || standing->ask_at > standing->answered_at || all_are_true(answers))
		return;
	if (answers == NIL || TimestampDifferenceExceeds(standing->answered_at, now, ASKED_AGAIN_MS))
		standing->ask_at = now;
}

/*
 * A comparison counts for a step if it was made when nothing else was missing,
 * else what went wrong while the gates waited would not be found. (One that
 * was made in this phase is not repeated when nothing had to be waited for.)
 */
static bool
look_at_readiness(const WeirGates *gates, WeirGateValues values, WeirGateStanding *standing, bool is_first_look,
				  bool is_wanted)
{
	WeirGates	cheap = *gates;
	bool		others_pass;

	cheap.sql = NIL;
	values.drift_known = true;
	values.drift_missing = values.drift_extra = 0;
	others_pass = weir_gates_outcome(weir_gates_evaluate(&cheap, &values)) == WEIR_GATE_PASS;
	if (!is_wanted || !others_pass)
		standing->ready_since = 0;
	else if (standing->ready_since == 0)
		standing->ready_since = is_first_look ? standing->since : GetCurrentTimestamp();
	return others_pass;
}

WeirGateOutcome
weir_gates_judge(const WeirOperator *operator, const WeirUpgrade *upgrade, bool is_wanted, const char **reason,
				 bool *is_overdue)
{
	WeirGates  *gates = weir_gates_from_text(upgrade->gates);
	WeirGateStanding standing;
	WeirGateValues values;
	WeirGateOutcome outcome;
	List	   *readings;
	bool		is_first_look;
	bool		others_pass;
	WeirGateStanding before;

	*is_overdue = false;
	if (!weir_gate_get(upgrade->upgrade_id, &standing))
	{
		*reason = "waits: the new version is catching up";
		return WEIR_GATE_WAIT;
	}
	is_first_look = standing.start != standing.since;
	if (is_first_look)
		weir_gate_start(upgrade->upgrade_id, &standing);
	values = measure(&standing);
	before = standing;
	if (standing.waiting_since == 0)
		standing.waiting_since = GetCurrentTimestamp();
	others_pass = look_at_readiness(gates, values, &standing, is_first_look, is_wanted);
	values.drift_due = comparison_is_due(&standing);
	values.answers = present_answers(&standing);
	ask_if_due(gates, others_pass, values.answers, &standing);
	readings = weir_gates_evaluate(gates, &values);
	outcome = weir_gates_outcome(readings);
	*reason = weir_gates_reason(readings);
	*is_overdue = outcome == WEIR_GATE_WAIT && GetCurrentTimestamp() - standing.waiting_since > gates->deadline;
	record(operator, upgrade, &standing, readings,
		   standing.ready_since != before.ready_since || standing.ask_at != before.ask_at ||
		   standing.waiting_since != before.waiting_since,
		   outcome == WEIR_GATE_FAIL || (outcome == WEIR_GATE_PASS && is_wanted), *reason);
	return outcome;
}

bool
weir_gates_want_comparison(const WeirUpgrade *upgrade)
{
	WeirGateStanding standing;

	if (!weir_gate_get(upgrade->upgrade_id, &standing))
		return false;
	if (standing.start != standing.since)
		standing.ready_since = 0;	/* of another phase or step */
	return comparison_is_due(&standing);
}

bool
weir_gates_want_answers(const WeirUpgrade *upgrade)
{
	WeirGateStanding standing;

	return weir_gate_get(upgrade->upgrade_id, &standing) && standing.start == standing.since &&
		standing.ask_at > standing.answered_at;
}
