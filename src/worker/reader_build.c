/*
 * reader_build.c - a new version's first state, at a known LSN.
 *
 * Runs in a catch-up reader before its first turn. Whatever the strategy:
 * 1. the slot's name is recorded, then the slot made (intent first: a crash
 *    leaves a slot that the row names, and the next start drops it);
 * 2. one snapshot whose relation to the WAL is known gives the rows, kept
 *    outside of transactions: no transaction id is held while reading;
 * 3. the rows are written in short transactions;
 * 4. counts and checksums compared, indexes, and the row says "running" at that LSN.
 * Killed anywhere before 4 commits: everything starts over, from a new slot
 * and an emptied table; nothing half-done is kept and nobody saw it.
 *
 * Snapshots: backfill uses the one that creating the slot exports; reuse and
 * convert copy the main reader's slot first and then read the old version's
 * state and its position in one snapshot, so the copy can never start too late.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/serving_catalog.h"
#include "operator/owner_scope.h"
#include "upgrade/migration.h"
#include "upgrade/reuse.h"
#include "weir_errors.h"
#include "weir_guc.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

/* Between two chunks, and how often it looks whether it may go on. */
#define LONGEST_GIVE_WAY_MS 10000
#define GIVE_WAY_LOOK_MS 200

typedef struct BuildPlan
{
	WeirLoadedVersion *loaded;
	WeirVersion *version;
	WeirSetMember member;
	char		main_slot[NAMEDATALEN]; /* reuse, convert: what to copy */
	int64		main_reader_id;
	const char **queries;
	List	   *functions;		/* convert: that the query may call */
} BuildPlan;

static bool
converts(const BuildPlan *plan)
{
	return strcmp(plan->version->strategy, "convert") == 0;
}

static bool
takes_old_state(const BuildPlan *plan)
{
	return converts(plan) || strcmp(plan->version->strategy, "reuse") == 0;
}

/* Rows computed from the source itself; "fresh" asks for the same rows, but none of them. */
static const char **
source_queries(const WeirDefinition *definition, bool fresh)
{
	const char **queries = palloc(sizeof(char *) * (1 + definition->nextremes));

	for (int i = 0; i <= definition->nextremes; i++)
	{
		char	   *sql = weir_definition_build_sql(i == 0 ? definition : definition->extremes[i - 1]);

		queries[i] = fresh ? psprintf("SELECT * FROM (%s) AS nothing LIMIT 0", sql) : sql;
	}
	return queries;
}

/* Texts that derive the rows from the old version's state, and whom to follow from there on. */
static void
plan_from_old_state(WeirReader *reader, BuildPlan *plan)
{
	WeirReaderRow *main_row;

	weir_worker_begin();
	MemoryContextSwitchTo(plan->loaded->context);
	if (converts(plan))
	{
		plan->queries = weir_migration_queries(plan->loaded->definition, plan->version);
		plan->functions = weir_migration_functions(plan->version);
	}
	else
	{
		WeirVersion *previous = weir_version_get(plan->member.operator_id, plan->version->build_from);
		WeirDefinition *definition;

		MemoryContextSwitchTo(plan->loaded->context);
		definition = weir_version_definition(previous);
		plan->queries = weir_reuse_queries(plan->loaded->definition, definition, previous);
	}
	main_row = weir_reader_get_main(reader->stream_id);
	if (main_row == NULL || main_row->slot_name == NULL || main_row->status != WEIR_READER_RUNNING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream has no running main reader to copy from"),
				 errhint("SELECT * FROM weir.readers;")));
	strlcpy(plan->main_slot, main_row->slot_name, NAMEDATALEN);
	plan->main_reader_id = main_row->reader_id;
	weir_worker_commit();
}

/* The version to build, loaded. False: it is not wanted any more. */
static bool
plan_build(WeirReader *reader, BuildPlan *plan)
{
	MemoryContext old = CurrentMemoryContext;
	WeirSetMember *member;
	List	   *members;

	weir_worker_begin();
	members = weir_reader_set_read(reader);
	if (members == NIL)
	{
		weir_worker_commit();
		return false;
	}
	weir_reader_set_load(reader);
	member = linitial(members);
	plan->member = *member;
	plan->loaded = weir_reader_set_find(reader, member);
	if (plan->loaded == NULL)
	{
		weir_worker_commit();
		return false;			/* its definition could not be loaded: stopped with the reason */
	}
	MemoryContextSwitchTo(plan->loaded->context);
	plan->version = weir_version_get(member->operator_id, member->version);
	MemoryContextSwitchTo(old);
	weir_worker_commit();
	return true;
}

static void
start_over(WeirReader *reader, BuildPlan *plan)
{
	if (reader->slot_name[0] != '\0')
		weir_slot_drop(reader->slot_name);
	snprintf(reader->slot_name, NAMEDATALEN, "weir_%u_" INT64_FORMAT "_" INT64_FORMAT,
			 MyDatabaseId, reader->reader_id, reader->epoch);
	weir_worker_begin();
	weir_reader_set_slot(reader->reader_id, WEIR_READER_BUILDING, reader->slot_name);
	weir_state_build_clear(plan->loaded->state);
	weir_version_run_progress(plan->member.operator_id, plan->member.version, -1, -1);
	weir_worker_commit();
	WEIR_CRASH_POINT("build-intent");
}

/*
 * TRUNCATE and rewrites by ALTER TABLE are not MVCC-safe: one that was
 * committed after the snapshot and before the table could be locked leaves it
 * nothing to see.  Its file is then not the one that the snapshot's own
 * pg_class names.  Another try has a later snapshot.
 */
static void
check_source_was_whole(BuildPlan *plan)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(plan->loaded->definition->source);

	if (SPI_execute_with_args("SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c "
							  "WHERE c.oid IN (SELECT $1 UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1) t) "
							  "AND c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid)",
							  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not compare files of relation %u", plan->loaded->definition->source);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s was truncated or rewritten before it could be read",
						weir_result_text(0, 1)),
				 errhint("Nothing to do: operator \"%s\" is built from a new snapshot.",
						 plan->loaded->operator_name)));
}

/* Creating the slot may have waited for long, and something may be called otherwise by now. */
static void
refresh_source_queries(BuildPlan *plan)
{
	MemoryContext old = MemoryContextSwitchTo(plan->loaded->context);
	WeirDefinition *definition = plan->loaded->definition;

	weir_definition_refresh_names(definition);
	for (int i = 0; i < definition->nextremes; i++)
		weir_definition_refresh_names(definition->extremes[i]);
	plan->queries = source_queries(definition, strcmp(plan->version->strategy, "fresh") == 0);
	MemoryContextSwitchTo(old);
}

/* Reads the rows under the snapshot that creating the slot exports. */
static WeirStateBuild *
read_at_new_slot(WeirReader *reader, BuildPlan *plan, XLogRecPtr *lsn)
{
	WeirStateBuild *build;

	pg_atomic_write_u64(&reader->shm->waiting_since, GetCurrentTimestamp());
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	*lsn = weir_slot_create(reader->slot_name, true);
	pg_atomic_write_u64(&reader->shm->waiting_since, 0);
	WEIR_CRASH_POINT("build-slot-created");
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	refresh_source_queries(plan);
	build = weir_state_build_read(plan->loaded->state, plan->queries, NIL);
	check_source_was_whole(plan);
	SPI_finish();
	PopActiveSnapshot();
	weir_slot_persist_and_release();
	CommitTransactionCommand();
	return build;
}

/* The old version's state and the position it is at, in one snapshot taken after the slot was copied. */
static WeirStateBuild *
read_old_version(WeirReader *reader, BuildPlan *plan, XLogRecPtr *lsn)
{
	WeirStateBuild *build;
	WeirVersionRun run;
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(plan->main_reader_id);
	XLogRecPtr	copied = weir_slot_copy(plan->main_slot, reader->slot_name);

	WEIR_CRASH_POINT("build-slot-created");
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	XactReadOnly = true;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	run = weir_version_run_get(plan->member.operator_id, plan->version->build_from);
	if (run.status != WEIR_RUN_LIVE || run.reader_id != plan->main_reader_id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("version %d of operator \"%s\", whose state is to be reused, is not running",
						plan->version->build_from, plan->loaded->operator_name),
				 errdetail("Its status is \"%s\".", weir_run_status_name(run.status)),
				 errhint("SELECT * FROM weir.rollback_upgrade(%s);", plan->loaded->operator_reference)));
	if (SPI_execute_with_args("SELECT processed_lsn FROM weir_internal.reader WHERE reader_id = $1",
							  1, &type, &value, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "reader " INT64_FORMAT " is not in the catalog", plan->main_reader_id);
	*lsn = weir_result_lsn(0, 1);
	if (copied > *lsn)
		elog(ERROR, "copied slot is at %X/%X, past the position %X/%X of the state",
			 LSN_FORMAT_ARGS(copied), LSN_FORMAT_ARGS(*lsn));
	build = weir_state_build_read(plan->loaded->state, plan->queries, plan->functions);
	if (converts(plan))
		weir_state_build_check(build, weir_migration_names(plan->loaded->definition));
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return build;
}

static void
record_progress(BuildPlan *plan, WeirStateBuild *build)
{
	weir_version_run_progress(plan->member.operator_id, plan->member.version,
							  weir_state_build_rows_total(build), weir_state_build_rows_written(build));
}

/*
 * While an operator of the database misses its objective of lag, building
 * leaves the machine to those that run. Not for ever: its slot keeps WAL
 * meanwhile. It holds neither transaction nor snapshot here.
 */
static void
give_way(WeirReader *reader)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LONGEST_GIVE_WAY_MS);
	long		left;

	while (weir_builds_are_to_give_way() &&
		   (left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
	{
		pg_atomic_write_u32(&reader->shm->gives_way, 1);
		weir_worker_wait(Min(left, GIVE_WAY_LOOK_MS));
	}
	pg_atomic_write_u32(&reader->shm->gives_way, 0);
}

/* Short transactions, so that no transaction id is held for long. */
static void
write_rows(WeirReader *reader, BuildPlan *plan, WeirStateBuild *build)
{
	bool		done = false;

	while (!done)
	{
		weir_worker_begin();
		done = weir_state_build_write(build, weir_guc_build_chunk_rows);
		record_progress(plan, build);
		weir_worker_commit();
		WEIR_CRASH_POINT("build-chunk");
		weir_worker_check_interrupts();
		if (!done)
			give_way(reader);
	}
}

/* Half one of the two-phase transfer: complete, counted, and only then announced. */
static void
finish(WeirReader *reader, BuildPlan *plan, WeirStateBuild *build, XLogRecPtr lsn)
{
	weir_worker_begin();
	if (weir_state_build_rows_written(build) != weir_state_build_rows_total(build))
		elog(ERROR, "build wrote " INT64_FORMAT " of " INT64_FORMAT " rows",
			 weir_state_build_rows_written(build), weir_state_build_rows_total(build));
	weir_state_build_finish(build);
	weir_version_run_built(plan->member.operator_id, plan->member.version, lsn, weir_state_build_checksum(build));
	weir_serving_show(plan->member.operator_id, plan->member.version);
	weir_reader_start_at(reader->reader_id, lsn);
	WEIR_CRASH_POINT("build-before-commit");
	weir_worker_commit();
	XLogFlush(XactLastCommitEnd);
	WEIR_CRASH_POINT("build-committed");
	reader->processed_lsn = lsn;
	weir_wake_coordinator(MyDatabaseId);
}

/* The definition's own errors (overflow, division by zero) end the build for good; others are tried again. */
static void
build_or_throw(WeirReader *reader, BuildPlan *plan)
{
	WeirStateBuild *build;
	XLogRecPtr	lsn;

	if (takes_old_state(plan))
		plan_from_old_state(reader, plan);
	start_over(reader, plan);
	if (takes_old_state(plan))
		build = read_old_version(reader, plan, &lsn);
	else
		build = read_at_new_slot(reader, plan, &lsn);
	WEIR_CRASH_POINT("build-read");
	write_rows(reader, plan, build);
	finish(reader, plan, build, lsn);
}

/* Records a failure that another try cannot cure; the reader ends with it. */
static void
record_failure(WeirReader *reader, BuildPlan *plan, ErrorData *error)
{
	WeirStop	stop = {
		.cause = "error",
		.sqlerrcode = error->sqlerrcode,
		.message = error->message,
		.detail = error->detail,
		.hint = error->hint,
	};

	weir_worker_begin();
	weir_version_run_stop(plan->member.operator_id, plan->member.version, WEIR_RUN_FAILED, 0, &stop);
	weir_reader_end(reader->reader_id);
	weir_worker_commit();
	if (plan->member.is_verification)
	{
		weir_worker_begin();
		weir_request_fail(weir_version_request(plan->member.operator_id, plan->member.version),
						  error->sqlerrcode, error->message, error->hint);
		weir_worker_commit();
	}
	weir_wake_coordinator(MyDatabaseId);
}

void
weir_reader_build(WeirReader *reader)
{
	BuildPlan	plan = {0};
	MemoryContext old = CurrentMemoryContext;
	ErrorData  *volatile failure = NULL;

	if (!plan_build(reader, &plan))
		proc_exit(0);

	/* Restored: the catalog's word that the version failed, which must not be lost with the process. */
	PG_TRY();
	{
		build_or_throw(reader, &plan);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		weir_owner_scope_blame(error);
		if (!weir_error_is_permanent(error->sqlerrcode))
			PG_RE_THROW();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		failure = error;
	}
	PG_END_TRY();
	if (failure != NULL)
	{
		record_failure(reader, &plan, (ErrorData *) failure);
		proc_exit(0);
	}
}
