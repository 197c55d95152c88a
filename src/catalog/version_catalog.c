/*
 * version_catalog.c - rows of weir_internal.version, .version_run, .version_stat.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "catalog/catalog_query.h"
#include "catalog/version_catalog.h"

static const char *const run_status_names[] = {
	[WEIR_RUN_NONE] = "new",
	[WEIR_RUN_BUILDING] = "building",
	[WEIR_RUN_CATCHING_UP] = "catching_up",
	[WEIR_RUN_LIVE] = "live",
	[WEIR_RUN_STOPPED] = "stopped",
	[WEIR_RUN_FAILED] = "failed",
	[WEIR_RUN_LOST] = "lost",
};

const char *
weir_run_status_name(WeirRunStatus status)
{
	return run_status_names[status];
}

static WeirRunStatus
run_status_from_name(const char *name)
{
	for (int i = 0; i < lengthof(run_status_names); i++)
		if (strcmp(name, run_status_names[i]) == 0)
			return (WeirRunStatus) i;
	elog(ERROR, "unknown version status \"%s\"", name);
	return WEIR_RUN_NONE;
}

void
weir_version_insert(const WeirVersion *version)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.version (operator_id, version, purpose, definition, query, "
			   "definition_view, state_table, extreme_tables, state_format, append_only, fingerprint, "
			   "strategy, build_from, migration, migration_view) "
			   "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, nullif($13, 0), $14, $15)",
			   "litttooDibttito", version->operator_id, version->version,
			   version->is_verification ? "verification" : "serve",
			   version->definition, version->query, version->definition_view, version->state_table,
			   weir_oid_array(version->extreme_tables, version->nextremes), OIDARRAYOID,
			   version->state_format, (int) version->append_only, version->fingerprint,
			   version->strategy, version->build_from, version->migration, version->migration_view);
}

WeirVersion *
weir_version_get(int64 operator_id, int version)
{
	WeirVersion *result;

	if (weir_query(NULL,
				   "SELECT purpose = 'verification', definition, query, definition_view, state_table, "
				   "extreme_tables, state_format, append_only, fingerprint, strategy, build_from, retired, migration, migration_view "
				   "FROM weir_internal.version WHERE operator_id = $1 AND version = $2",
				   "li", operator_id, version) == 0)
		return NULL;
	result = palloc0(sizeof(WeirVersion));
	result->operator_id = operator_id;
	result->version = version;
	result->is_verification = weir_result_bool(0, 1);
	result->definition = weir_result_text(0, 2);
	result->query = weir_result_text(0, 3);
	result->definition_view = weir_result_oid(0, 4);
	result->state_table = weir_result_oid(0, 5);
	result->extreme_tables = weir_result_oids(0, 6, &result->nextremes);
	result->state_format = weir_result_int(0, 7);
	result->append_only = weir_result_bool(0, 8);
	result->fingerprint = weir_result_text(0, 9);
	result->strategy = weir_result_text(0, 10);
	result->build_from = weir_result_int(0, 11);
	result->retired = weir_result_bool(0, 12);
	result->migration = weir_result_text(0, 13);
	result->migration_view = weir_result_oid(0, 14);
	return result;
}

void
weir_version_retire(int64 operator_id, int version)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version SET retired = true, retired_xid = pg_current_xact_id() "
			   "WHERE operator_id = $1 AND version = $2 AND NOT retired", "li", operator_id, version);
}

bool
weir_version_covers_source(int64 operator_id, int version)
{
	weir_query(NULL,
			   "WITH RECURSIVE line AS (SELECT strategy, build_from FROM weir_internal.version "
			   "WHERE operator_id = $1 AND version = $2 UNION ALL "
			   "SELECT v.strategy, v.build_from FROM line l JOIN weir_internal.version v "
			   "ON v.operator_id = $1 AND v.version = l.build_from WHERE l.strategy IN ('reuse', 'convert')) "
			   "SELECT bool_and(strategy <> 'fresh') FROM line", "li", operator_id, version);
	return weir_result_bool(0, 1);
}

bool
weir_version_try_lock(int64 operator_id, int version)
{
	return weir_query(NULL,
					  "SELECT 1 FROM weir_internal.version WHERE operator_id = $1 AND version = $2 "
					  "FOR UPDATE SKIP LOCKED", "li", operator_id, version) > 0;
}

int
weir_version_migrated_from(int64 operator_id, int version, Oid *view)
{
	if (weir_query(NULL,
				   "SELECT version, migration_view FROM weir_internal.version WHERE operator_id = $1 "
				   "AND build_from = $2 AND migration_view <> 0 LIMIT 1", "li", operator_id, version) == 0)
		return 0;
	*view = weir_result_oid(0, 2);
	return weir_result_int(0, 1);
}

void
weir_version_migration_removed(int64 operator_id, int version)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version SET migration_view = 0 WHERE operator_id = $1 AND version = $2",
			   "li", operator_id, version);
}

void
weir_version_removed(int64 operator_id, int version)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version SET definition_view = 0, migration_view = 0, state_table = 0, extreme_tables = '{}' "
			   "WHERE operator_id = $1 AND version = $2", "li", operator_id, version);
	if (weir_query(NULL,
				   "DELETE FROM weir_internal.version WHERE operator_id = $1 AND version = $2 "
				   "AND purpose = 'verification'", "li", operator_id, version) == 0)
		return;
	weir_query(NULL, "DELETE FROM weir_internal.version_run WHERE operator_id = $1 AND version = $2",
			   "li", operator_id, version);
	weir_query(NULL, "DELETE FROM weir_internal.version_stat WHERE operator_id = $1 AND version = $2",
			   "li", operator_id, version);
}

WeirVersionRun
weir_version_run_get(int64 operator_id, int version)
{
	WeirVersionRun run = {WEIR_RUN_NONE};

	if (weir_query(NULL,
				   "SELECT status, reader_id, message, hint, error_lsn, stop_cause, "
				   "status = 'stopped' AND EXISTS (SELECT FROM weir_internal.operator o "
				   "WHERE o.operator_id = r.operator_id AND o.desired = 'run' "
				   "AND (r.stop_cause IN ('pause', 'lock') OR o.resumed_at > r.status_since)), sqlstate, "
				   "CASE WHEN build_lsn IS NOT NULL THEN jsonb_build_object('rows', rows_written, 'checksum', "
				   "to_hex(build_checksum), 'lsn', build_lsn)::text END "
				   "FROM weir_internal.version_run r WHERE operator_id = $1 AND version = $2",
				   "li", operator_id, version) == 0)
		return run;
	run.status = run_status_from_name(weir_result_text(0, 1));
	run.reader_id = weir_result_int64(0, 2);
	run.message = weir_result_text(0, 3);
	run.hint = weir_result_text(0, 4);
	run.error_lsn = weir_result_lsn(0, 5);
	run.stop_cause = weir_result_text(0, 6);
	run.is_resuming = weir_result_bool(0, 7);
	run.sqlstate = weir_result_text(0, 8);
	run.build = weir_result_text(0, 9);
	return run;
}

bool
weir_version_is_live_at_snapshot(int64 operator_id, int version, int64 *reader_id)
{
	if (weir_query_at_snapshot("SELECT reader_id FROM weir_internal.version_run "
							   "WHERE operator_id = $1 AND version = $2 AND status = 'live'",
							   "li", operator_id, version) == 0)
		return false;
	*reader_id = weir_result_int64(0, 1);
	return true;
}

void
weir_version_run_insert(int64 operator_id, int version, int64 reader_id)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.version_run (operator_id, version, reader_id, status) "
			   "VALUES ($1, $2, $3, 'building')", "lil", operator_id, version, reader_id);
	weir_query(NULL,
			   "INSERT INTO weir_internal.version_stat (operator_id, version) VALUES ($1, $2)",
			   "li", operator_id, version);
}

void
weir_version_run_set(int64 operator_id, int version, WeirRunStatus status, int64 reader_id)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version_run SET status = $3, reader_id = $4, "
			   "status_since = clock_timestamp() WHERE operator_id = $1 AND version = $2",
			   "litl", operator_id, version, weir_run_status_name(status), reader_id);
}

void
weir_version_run_built(int64 operator_id, int version, XLogRecPtr lsn, uint64 checksum)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version_run SET status = 'catching_up', build_lsn = $3, build_checksum = $4, "
			   "status_since = clock_timestamp() WHERE operator_id = $1 AND version = $2",
			   "lipl", operator_id, version, lsn, (int64) checksum);
}

void
weir_version_run_progress(int64 operator_id, int version, int64 total, int64 written)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version_run SET rows_total = nullif($3, -1), rows_written = nullif($4, -1) "
			   "WHERE operator_id = $1 AND version = $2", "lill", operator_id, version, total, written);
}

void
weir_version_run_stop(int64 operator_id, int version, WeirRunStatus status, int64 reader_id,
					  const WeirStop *stop)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version_run SET status = $3, reader_id = $4, stop_cause = $5, "
			   "sqlstate = $6, message = $7, detail = $8, hint = $9, error_lsn = $10, "
			   "status_since = clock_timestamp() WHERE operator_id = $1 AND version = $2",
			   "litltttttp", operator_id, version, weir_run_status_name(status), reader_id,
			   stop->cause, stop->sqlerrcode ? unpack_sql_state(stop->sqlerrcode) : NULL,
			   stop->message, stop->detail, stop->hint, stop->lsn);
	/* A lock in the way is no error of the version. */
	if (stop->sqlerrcode && strcmp(stop->cause, "lock") != 0)
		weir_query(NULL,
				   "UPDATE weir_internal.version_stat SET errors = errors + 1 "
				   "WHERE operator_id = $1 AND version = $2", "li", operator_id, version);
}

void
weir_version_run_clear_error(int64 operator_id, int version)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version_run SET stop_cause = NULL, sqlstate = NULL, message = NULL, "
			   "detail = NULL, hint = NULL, error_lsn = NULL WHERE operator_id = $1 AND version = $2",
			   "li", operator_id, version);
}

void
weir_version_stat_add(int64 operator_id, int version, const WeirVersionStat *stat)
{
	static SPIPlanPtr plan = NULL;

	weir_query(&plan,
			   "UPDATE weir_internal.version_stat SET rows = rows + $3, folds = folds + $4, "
			   "rows_inserted = rows_inserted + $5, rows_updated = rows_updated + $6, "
			   "rows_deleted = rows_deleted + $7, batches = batches + $8, errors = errors + $9, "
			   "apply_us = apply_us + $10 WHERE operator_id = $1 AND version = $2",
			   "lillllllll", operator_id, version, stat->rows, stat->folds, stat->inserted,
			   stat->updated, stat->deleted, stat->batches, stat->errors, stat->apply_us);
}

void
weir_version_set_request(int64 operator_id, int version, uint64 request_id)
{
	weir_query(NULL,
			   "UPDATE weir_internal.version SET request_id = $3 WHERE operator_id = $1 AND version = $2",
			   "lil", operator_id, version, (int64) request_id);
}

uint64
weir_version_request(int64 operator_id, int version)
{
	if (weir_query(NULL,
				   "SELECT request_id FROM weir_internal.version WHERE operator_id = $1 AND version = $2",
				   "li", operator_id, version) == 0)
		return 0;
	return (uint64) weir_result_int64(0, 1);
}
