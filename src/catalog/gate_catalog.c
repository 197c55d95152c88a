/*
 * gate_catalog.c - rows of weir_internal.gate.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "catalog/gate_catalog.h"

static WeirGateCounters
counters_from_result(int column)
{
	return (WeirGateCounters)
	{
		.rows = weir_result_int64(0, column),
		.apply_us = weir_result_int64(0, column + 1),
		.old_rows = weir_result_int64(0, column + 2),
		.old_apply_us = weir_result_int64(0, column + 3)
	};
}

bool
weir_gate_get(int64 upgrade_id, WeirGateStanding *standing)
{
	if (weir_query(NULL,
				   "SELECT greatest(u.phase_since, u.step_since, r.status_since, q.status_since), n.rows, n.apply_us, o.rows, o.apply_us, n.errors, "
				   "u.drift_at, u.drift_missing, u.drift_extra, u.drift_lsn, g.start, g.waiting_since, "
				   "g.rows, g.apply_us, g.old_rows, g.old_apply_us, g.read_at, g.signature, g.signature_since, g.in_ledger, "
				   "g.ready_since, g.ask_at, g.answered_at, g.answers, g.answer_errors "
				   "FROM weir_internal.upgrade u "
				   "JOIN weir_internal.version_run r ON r.operator_id = u.operator_id AND r.version = u.to_version "
				   "JOIN weir_internal.version_stat n ON n.operator_id = u.operator_id AND n.version = u.to_version "
				   "LEFT JOIN weir_internal.version_run q ON q.operator_id = u.operator_id AND q.version = u.from_version "
				   "LEFT JOIN weir_internal.version_stat o ON o.operator_id = u.operator_id AND o.version = u.from_version "
				   "LEFT JOIN weir_internal.gate g ON g.upgrade_id = u.upgrade_id "
				   "WHERE u.upgrade_id = $1 AND r.status = 'live'", "l", upgrade_id) == 0)
		return false;
	standing->since = weir_result_timestamp(0, 1);
	standing->counters = counters_from_result(2);
	standing->errors = weir_result_int64(0, 6);
	standing->drift_at = weir_result_timestamp(0, 7);
	standing->drift_missing = weir_result_int64(0, 8);
	standing->drift_extra = weir_result_int64(0, 9);
	standing->drift_lsn = weir_result_lsn(0, 10);
	standing->start = weir_result_timestamp(0, 11);
	standing->waiting_since = weir_result_timestamp(0, 12);
	standing->base = counters_from_result(13);
	standing->read_at = weir_result_timestamp(0, 17);
	standing->signature = weir_result_text(0, 18);
	standing->signature_since = weir_result_timestamp(0, 19);
	standing->in_ledger = weir_result_text(0, 20);
	standing->ready_since = weir_result_timestamp(0, 21);
	standing->ask_at = weir_result_timestamp(0, 22);
	standing->answered_at = weir_result_timestamp(0, 23);
	standing->answers = weir_result_texts(0, 24);
	standing->answer_errors = weir_result_texts(0, 25);
	return true;
}

void
weir_gate_start(int64 upgrade_id, WeirGateStanding *standing)
{
	standing->start = standing->since;
	standing->waiting_since = GetCurrentTimestamp();
	standing->base = standing->counters;
	standing->ready_since = 0;
	standing->ask_at = 0;
	standing->answered_at = 0;
	standing->read_at = 0;
	standing->signature = NULL;
	standing->signature_since = 0;
	standing->in_ledger = NULL;
	weir_query(NULL,
			   "INSERT INTO weir_internal.gate (upgrade_id, start, waiting_since, rows, apply_us, old_rows, old_apply_us) "
			   "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (upgrade_id) DO UPDATE SET "
			   "start = excluded.start, waiting_since = excluded.waiting_since, rows = excluded.rows, "
			   "apply_us = excluded.apply_us, old_rows = excluded.old_rows, old_apply_us = excluded.old_apply_us, "
			   "ready_since = NULL, ask_at = NULL, answered_at = NULL, signature = NULL, signature_since = NULL, in_ledger = NULL",
			   "lzzllll", upgrade_id, standing->start, standing->waiting_since, standing->base.rows,
			   standing->base.apply_us, standing->base.old_rows, standing->base.old_apply_us);
}

void
weir_gate_write(int64 upgrade_id, const WeirGateStanding *standing, const char *readings)
{
	weir_query(NULL,
			   "UPDATE weir_internal.gate SET readings = $2, read_at = $3, signature = $4, signature_since = $5, "
			   "in_ledger = $6, ready_since = $7, ask_at = $8, waiting_since = $9 WHERE upgrade_id = $1", "ljztztzzz", upgrade_id, readings,
			   standing->read_at, standing->signature, standing->signature_since, standing->in_ledger,
			   standing->ready_since, standing->ask_at, standing->waiting_since);
}

void
weir_gate_set_answers(int64 upgrade_id, List *answers, List *errors, TimestampTz answered_at)
{
	weir_query(NULL,
			   "UPDATE weir_internal.gate SET answers = $2, answer_errors = $3, answered_at = $4 WHERE upgrade_id = $1",
			   "lDDz", upgrade_id, weir_text_array(answers), TEXTARRAYOID, weir_text_array(errors), TEXTARRAYOID,
			   answered_at);
}

void
weir_gate_restart_deadline(int64 upgrade_id)
{
	weir_query(NULL, "UPDATE weir_internal.gate SET waiting_since = NULL WHERE upgrade_id = $1", "l", upgrade_id);
}
