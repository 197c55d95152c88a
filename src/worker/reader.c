/*
 * reader.c - a reader process: start, turn, end.
 *
 * Runs as a dynamic background worker, one for each reader row of kind main or
 * catch_up. A turn: decode outside any transaction until a commit boundary
 * reaches the batch target, apply the batch in one transaction, confirm what
 * is durable, wait. Nothing in memory is authoritative: killed anywhere, the
 * row says where to go on (a build starts over from a new snapshot).
 *
 * An error ends the process with code 1; the coordinator starts it again,
 * paced. Code 0: the row says that nothing is left to do.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "weir_compat.h"
#include "weir_errors.h"
#include "weir_guc.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

/* Rows of the first full batch, and the least there are under a backlog. */
#define FIRST_BATCH_ROWS 25000
#define LEAST_BATCH_ROWS 1000

static void
check_identity(const WeirReaderRow *row)
{
	if (row->is_ours)
		return;
	ereport(ERROR,
			(errcode(WEIR_ERRCODE_FOREIGN_POSITION),
			 errmsg("position of reader " INT64_FORMAT " belongs to another cluster, timeline or database",
					row->reader_id),
			 errdetail("It was recorded before a clone, restore or promotion; its position %X/%X is not compared with this server's WAL.",
					   LSN_FORMAT_ARGS(row->processed_lsn)),
			 errhint("SELECT weir.rebuild_operator(operator) FROM weir.operators;")));
}

static WeirReader *
start_reader(int64 reader_id)
{
	WeirReader *reader = MemoryContextAllocZero(WeirWorkerContext, sizeof(WeirReader));
	WeirReaderRow *row;

	weir_worker_begin();
	row = weir_extension_installed() ? weir_reader_claim(reader_id) : NULL;
	if (row == NULL)
	{
		weir_worker_commit();
		proc_exit(0);
	}
	check_identity(row);
	reader->reader_id = reader_id;
	reader->kind = row->kind;
	reader->stream_id = row->stream_id;
	reader->batch_rows = FIRST_BATCH_ROWS;
	reader->memory_rows = PG_INT64_MAX / 2;
	reader->epoch = row->epoch;
	reader->processed_lsn = row->status == WEIR_READER_RUNNING ? row->processed_lsn : InvalidXLogRecPtr;
	if (row->slot_name != NULL)
		strlcpy(reader->slot_name, row->slot_name, NAMEDATALEN);
	reader->pending_floor = weir_reader_pending_floor(row->stream_id);
	weir_worker_commit();
	reader->shm = weir_reader_attach(reader_id, reader->kind == WEIR_READER_MAIN);
	return reader;
}

/* The main reader's first start: only a position is needed, no snapshot. */
static void
create_main_slot(WeirReader *reader)
{
	XLogRecPtr	start;

	if (reader->slot_name[0] != '\0')
		weir_slot_drop(reader->slot_name);
	snprintf(reader->slot_name, NAMEDATALEN, "weir_%u_" INT64_FORMAT "_" INT64_FORMAT,
			 MyDatabaseId, reader->reader_id, reader->epoch);
	weir_worker_begin();
	weir_reader_set_slot(reader->reader_id, WEIR_READER_BUILDING, reader->slot_name);
	weir_worker_commit();
	WEIR_CRASH_POINT("slot-intent");

	pg_atomic_write_u64(&reader->shm->waiting_since, GetCurrentTimestamp());
	start = weir_slot_create(reader->slot_name, false);
	weir_slot_persist_and_release();
	pg_atomic_write_u64(&reader->shm->waiting_since, 0);
	WEIR_CRASH_POINT("slot-created");

	weir_worker_begin();
	weir_reader_start_at(reader->reader_id, start);
	weir_worker_commit();
	reader->processed_lsn = start;
	WEIR_CRASH_POINT("slot-recorded");
}

/*
 * How far to read in this turn. A catch-up reader never passes the main
 * reader's committed position, so the two can meet exactly; without a main
 * reader it waits.
 */
static bool
set_limits(WeirReader *reader, WeirReadLimits *limits)
{
	limits->max_rows = Min(weir_guc_max_batch_rows, reader->batch_rows);
	limits->max_ms = weir_guc_max_batch_ms;
	limits->stop_lsn = InvalidXLogRecPtr;
	if (reader->kind == WEIR_READER_CATCH_UP)
	{
		WeirReaderShmem *main_reader = weir_main_reader_find(MyDatabaseId);

		if (main_reader == NULL)
			return false;
		limits->stop_lsn = pg_atomic_read_u64(&main_reader->processed_lsn);
		if (XLogRecPtrIsInvalid(limits->stop_lsn))
			return false;
	}
	return true;
}

/*
 * A large batch writes a key once for all its rows, but whoever waits for the
 * end of a batch (a handover, a pause) waits for all of it.  So batches grow
 * while there is a backlog, as long as reading and applying one stays within
 * weir.max_batch_time and it need not be written to files.  Rows may become
 * smaller again: what fits in memory is tried out now and then.
 *
 * They grow fast: a larger batch takes no longer for a row, so what the last
 * one took is on the safe side.
 */
static void
adapt_batch(WeirReader *reader, int64 nrows, bool has_spilled, const instr_time *start)
{
	instr_time	now;
	double		fitting;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *start);
	fitting = nrows * weir_guc_max_batch_ms / Max(INSTR_TIME_GET_MILLISEC(now), 1.0);
	if (has_spilled)
		reader->memory_rows = nrows / 4 * 3;
	else if (nrows >= reader->memory_rows)
		reader->memory_rows += nrows / 16;
	fitting = Min(fitting, reader->memory_rows);
	fitting = Min(fitting, reader->batch_rows * 16.0);
	reader->batch_rows = (int64) Max(fitting, LEAST_BATCH_ROWS);
}

/*
 * Commits of sessions with synchronous_commit = off are decoded only once
 * their WAL is flushed: do it for them instead of waiting for the WAL writer.
 */
static void
flush_for_others(WeirReader *reader)
{
	XLogRecPtr	newest = weir_last_commit_lsn(MyDatabaseId);

	if (newest > GetFlushRecPtr(NULL))
		XLogFlush(newest);
}

/* Sleeps unless something came in between announcing it and looking again. */
static void
wait_for_commits(WeirReader *reader, XLogRecPtr scanned)
{
	pg_atomic_write_u32(&reader->shm->sleeping, 1);
	pg_memory_barrier();
	if (weir_last_commit_lsn(MyDatabaseId) <= scanned ||
		reader->kind == WEIR_READER_CATCH_UP)
		weir_worker_wait(reader->kind == WEIR_READER_CATCH_UP ? 10 : weir_guc_poll_interval_ms);
	pg_atomic_write_u32(&reader->shm->sleeping, 0);
}

static WeirReadOutcome
read_and_apply(WeirReader *reader)
{
	WeirReadLimits limits;
	WeirReadOutcome outcome;
	instr_time	start;
	XLogRecPtr	before = reader->processed_lsn;
	int64		nrows;
	bool		has_spilled;
	bool		was_read;

	INSTR_TIME_SET_CURRENT(start);
	if (!set_limits(reader, &limits))
		return WEIR_READ_END_OF_WAL;
	outcome = weir_reader_read(reader, &limits);
	nrows = reader->batch->nrows;
	has_spilled = weir_batch_has_spilled(reader->batch);
	was_read = reader->batch->ntransactions > 0;
	if (was_read)
		weir_reader_apply(reader);
	if (outcome == WEIR_READ_BATCH_FULL && nrows > 0)
		adapt_batch(reader, nrows, has_spilled, &start);
	/* A batch that was thrown away is there to be read again, wherever the WAL ends. */
	if (was_read && reader->processed_lsn == before)
		return WEIR_READ_BATCH_FULL;
	return outcome;
}

/* One turn; false when the reader has nothing left to do for ever. */
static bool
turn(WeirReader *reader)
{
	WeirReadOutcome outcome;
	XLogRecPtr	scanned;
	TimestampTz started = GetCurrentTimestamp();

	if (reader->kind == WEIR_READER_MAIN)
	{
		weir_reader_hold_if_asked(reader);
		weir_reader_pause_if_asked(reader);
	}
	flush_for_others(reader);
	outcome = read_and_apply(reader);
	if (reader->has_stopped)
		return false;
	scanned = weir_source_scanned_lsn(reader->source);
	pg_atomic_write_u64(&reader->shm->scanned_lsn, Max(scanned, reader->processed_lsn));
	weir_reader_confirm(reader);
	if (reader->kind == WEIR_READER_MAIN && outcome == WEIR_READ_END_OF_WAL)
		weir_fresh_publish(started);
	if (reader->kind == WEIR_READER_CATCH_UP)
	{
		if (reader->versions == NIL)
			return false;		/* stopped or retired meanwhile */
		if (outcome == WEIR_READ_STOP_LSN && (weir_reader_hand_over(reader) || reader->has_stopped))
			return false;
	}
	if (outcome == WEIR_READ_BATCH_FULL)
		return true;
	weir_reader_idle_advance(reader);
	wait_for_commits(reader, scanned);
	return true;
}

static void
run(WeirReader *reader)
{
	if (reader->kind == WEIR_READER_CATCH_UP && XLogRecPtrIsInvalid(reader->processed_lsn))
		weir_reader_build(reader);
	else if (XLogRecPtrIsInvalid(reader->processed_lsn))
		create_main_slot(reader);
	weir_reader_reopen(reader);
	pg_atomic_write_u64(&reader->shm->processed_lsn, reader->processed_lsn);
	while (turn(reader))
		weir_worker_check_interrupts();
	weir_source_close(reader->source);
}

void
weir_reader_main(Datum arg)
{
	Oid			database;
	int64		reader_id;
	volatile bool fenced = false;

	weir_worker_arguments(&database, &reader_id);
	weir_worker_start(database, "pg_weir reader");

	/* A fenced reader is not a failure: another process has taken over. */
	PG_TRY();
	{
		run(start_reader(reader_id));
	}
	PG_CATCH();
	{
		if (geterrcode() != WEIR_ERRCODE_FENCED)
			PG_RE_THROW();
		fenced = true;
	}
	PG_END_TRY();
	if (fenced)
	{
		EmitErrorReport();
		FlushErrorState();
	}
	proc_exit(0);
}
