/*
 * upgrade_catalog.c - rows of weir_internal.upgrade.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/upgrade_catalog.h"

#define UPGRADE_COLUMNS \
	"upgrade_id, operator_id, from_version, to_version, strategy, phase, auto_advance, " \
	"advance_requested, coalesce(observing_until <= clock_timestamp(), false), compare_columns, " \
	"rollback_possible, rollback_obstacle, reason, drift_lsn IS NOT NULL, drift_missing, drift_extra, " \
	"options OPERATOR(pg_catalog.?) 'repair', paused, drift_lsn, gates, gate_queries, step, cardinality(steps), " \
	"coalesce(steps[step], 0), coalesce(steps[step + 1], 100)"
#define NOT_ENDED "phase NOT IN ('finalized', 'rolled_back')"

int64
weir_upgrade_insert(const WeirUpgradeRequest *request)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.upgrade (operator_id, from_version, to_version, strategy, phase, "
			   "steps, gates, auto_advance, safe_window, options, compare_columns, started_by, gate_queries) "
			   "VALUES ($1, $2, $3, $4, 'preparing', $5, $6, $7, $8, $9, $10, $11, $12) RETURNING upgrade_id",
			   "liitDjbDjDnD", request->operator_id, request->from_version, request->to_version,
			   request->strategy, request->steps, INT4ARRAYOID, request->gates,
			   (int) request->auto_advance, request->safe_window, INTERVALOID, request->options,
			   weir_text_array(request->compare_columns), TEXTARRAYOID,
			   GetUserNameFromId(request->started_by, false),
			   weir_text_array(request->gate_queries), TEXTARRAYOID);
	return weir_result_int64(0, 1);
}

static WeirUpgrade *
upgrade_from_result(uint64 row)
{
	WeirUpgrade *upgrade = palloc(sizeof(WeirUpgrade));

	upgrade->upgrade_id = weir_result_int64(row, 1);
	upgrade->operator_id = weir_result_int64(row, 2);
	upgrade->from_version = weir_result_int(row, 3);
	upgrade->to_version = weir_result_int(row, 4);
	upgrade->strategy = weir_result_text(row, 5);
	upgrade->phase = weir_phase_from_name(weir_result_text(row, 6));
	upgrade->auto_advance = weir_result_bool(row, 7);
	upgrade->advance_requested = weir_result_bool(row, 8);
	upgrade->window_over = weir_result_bool(row, 9);
	upgrade->compare_columns = weir_result_texts(row, 10);
	upgrade->rollback_possible = weir_result_bool(row, 11);
	upgrade->rollback_obstacle = weir_result_text(row, 12);
	upgrade->reason = weir_result_text(row, 13);
	upgrade->drift_known = weir_result_bool(row, 14);
	upgrade->drift_missing = weir_result_int64(row, 15);
	upgrade->drift_extra = weir_result_int64(row, 16);
	upgrade->is_repair = weir_result_bool(row, 17);
	upgrade->paused = weir_result_bool(row, 18);
	upgrade->drift_lsn = weir_result_lsn(row, 19);
	upgrade->gates = weir_result_text(row, 20);
	upgrade->gate_queries = weir_result_texts(row, 21);
	upgrade->step = weir_result_int(row, 22);
	upgrade->nsteps = weir_result_int(row, 23);
	upgrade->percent = weir_result_int(row, 24);
	upgrade->next_percent = weir_result_int(row, 25);
	return upgrade;
}

WeirUpgrade *
weir_upgrade_live(int64 operator_id)
{
	if (weir_query(NULL, "SELECT " UPGRADE_COLUMNS " FROM weir_internal.upgrade "
				   "WHERE operator_id = $1 AND " NOT_ENDED, "l", operator_id) == 0)
		return NULL;
	return upgrade_from_result(0);
}

WeirUpgrade *
weir_upgrade_latest(int64 operator_id)
{
	if (weir_query(NULL, "SELECT " UPGRADE_COLUMNS " FROM weir_internal.upgrade "
				   "WHERE operator_id = $1 ORDER BY upgrade_id DESC LIMIT 1", "l", operator_id) == 0)
		return NULL;
	return upgrade_from_result(0);
}

void
weir_upgrade_set_phase(int64 upgrade_id, WeirPhase phase, const char *reason)
{
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET phase = $2, phase_since = clock_timestamp(), "
			   "reason = $3, ended_at = CASE WHEN $4 THEN clock_timestamp() END, "
			   "paused = paused AND NOT $4, "
			   "rollback_possible = rollback_possible AND NOT $4 WHERE upgrade_id = $1",
			   "lttb", upgrade_id, weir_phase_name(phase), reason, (int) weir_phase_is_end(phase));
}

void
weir_upgrade_set_shift(int64 upgrade_id, XLogRecPtr lsn)
{
	/* 'infinity' cannot be an interval before version 17; a thousand years is as good. */
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET shift_lsn = $2, observing_until = "
			   "CASE WHEN safe_window >= interval '1000 years' THEN timestamptz 'infinity' "
			   "ELSE clock_timestamp() + safe_window END WHERE upgrade_id = $1",
			   "lp", upgrade_id, lsn);
}

void
weir_upgrade_set_drift(int64 upgrade_id, int64 missing, int64 extra, XLogRecPtr lsn, TimestampTz at)
{
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET drift_missing = $2, drift_extra = $3, drift_lsn = $4, "
			   "drift_at = $5 "
			   "WHERE upgrade_id = $1", "lllpz", upgrade_id, missing, extra, lsn, at);
}

void
weir_upgrade_set_advance(int64 upgrade_id, bool requested)
{
	weir_query(NULL, "UPDATE weir_internal.upgrade SET advance_requested = $2 WHERE upgrade_id = $1",
			   "lb", upgrade_id, (int) requested);
}

void
weir_upgrade_set_step(int64 upgrade_id, int step)
{
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET step = $2, step_since = clock_timestamp(), "
			   "advance_requested = advance_requested AND step = $2, reason = NULL WHERE upgrade_id = $1", "li", upgrade_id, step);
}

void
weir_upgrade_set_paused(int64 upgrade_id, bool paused, const char *reason)
{
	weir_query(NULL, "UPDATE weir_internal.upgrade SET paused = $2, reason = $3 WHERE upgrade_id = $1",
			   "lbt", upgrade_id, (int) paused, reason);
}

void
weir_upgrade_set_obstacle(int64 upgrade_id, const char *obstacle)
{
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET rollback_possible = false, rollback_obstacle = $2 "
			   "WHERE upgrade_id = $1", "lt", upgrade_id, obstacle);
}

void
weir_upgrade_set_reason(int64 upgrade_id, const char *reason)
{
	weir_query(NULL,
			   "UPDATE weir_internal.upgrade SET reason = $2 "
			   "WHERE upgrade_id = $1 AND reason IS DISTINCT FROM $2", "lt", upgrade_id, reason);
}
