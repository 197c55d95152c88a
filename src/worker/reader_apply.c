/*
 * reader_apply.c - one batch in one transaction: fence, set, versions, position.
 *
 * Runs in readers. Order within the transaction: the reader's own row (epoch
 * and position compared and set, I2 and I3), then the committed set, then each
 * version's state. Killed anywhere before the commit record: nothing happened,
 * the slot repeats. Killed after it: the position says so and the repeat is
 * skipped. The commit is asynchronous; the slot is told only what is flushed
 * (I4), by weir_reader_confirm.
 *
 * The first try has no subtransactions; after an error the same batch is
 * applied again with one per version, so that only the culprit stops.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "operator/owner_scope.h"
#include "weir_compat.h"
#include "weir_errors.h"
#include "worker/apply_budget.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

/* Statistics of versions are written at most this often. */
#define STATS_INTERVAL_MS 1000
/* Functions that were replaced are looked for this often while nothing comes. */
#define FUNCTIONS_INTERVAL_MS 1000
/* The position moves over WAL without commits this often, and only for this much WAL. */
#define IDLE_ADVANCE_MS 5000
#define IDLE_ADVANCE_BYTES (64 * 1024)
/* How often a batch is tried again in this process, and what one more try adds to the pause before it. */
#define MAX_PASSING_ERRORS 8
#define PAUSE_MS 250

typedef enum ApplyOutcome
{
	APPLIED,
	SET_CHANGED					/* a version joined: the batch lacks its columns */
} ApplyOutcome;

/* Where a user's functions run: an error that comes from there says what they like. */
static volatile bool is_within_version = false;

static void
fence(WeirReader *reader, XLogRecPtr to, TimestampTz commit_time, int64 transactions, int64 rows)
{
	if (!weir_reader_advance(reader->reader_id, reader->epoch, reader->processed_lsn, to,
							 commit_time, transactions, rows))
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_FENCED),
				 errmsg("reader " INT64_FORMAT " lost its epoch " INT64_FORMAT, reader->reader_id,
						reader->epoch),
				 errhint("Nothing to do: another process applies this stream now.")));
}

static void
apply_version(WeirReader *reader, const WeirSetMember *member, WeirLoadedVersion *version)
{
	WeirApplyCounts counts = {0};
	bool		has_budget = !member->is_serving && reader->kind == WEIR_READER_MAIN;
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	if (has_budget)
		weir_apply_budget_begin();
	is_within_version = true;
	weir_version_check_rights(version);
	weir_state_apply(version->state, reader->batch, &counts);
	if (counts.rows > 0)
		weir_version_check_functions(version);
	is_within_version = false;
	if (has_budget)
		weir_apply_budget_end();
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	version->current = (WeirVersionStat)
	{
		.rows = counts.rows,
		.folds = counts.folds,
		.inserted = counts.inserted,
		.updated = counts.updated,
		.deleted = counts.deleted,
		.batches = 1,
		.apply_us = INSTR_TIME_GET_MICROSEC(end)
	};
	if (member->is_serving)
		weir_apply_budget_note_serving(version->current.apply_us);
}

/* By RAISE, which can give an error any SQLSTATE; other languages that everybody may use cannot choose one. */
static bool
is_raised_by_function(const ErrorData *error)
{
	return error->funcname != NULL && strcmp(error->funcname, "exec_stmt_raise") == 0;
}

/*
 * Errors that may pass (locks, shortages) are tried again, but not for ever at
 * the others' cost: any function can raise any of them. A version that does
 * not serve has one more try in the main reader. Shortages of the server are
 * nobody's own, except that whoever does not serve gives way first.
 */
static bool
is_its_own_error(const WeirReader *reader, const WeirSetMember *member, const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
	bool		is_shortage = category == ERRCODE_INSUFFICIENT_RESOURCES || category == ERRCODE_SYSTEM_ERROR;

	/* Within a version nothing fences, so a function says so. */
	if (weir_error_is_permanent(error->sqlerrcode) || error->sqlerrcode == WEIR_ERRCODE_FENCED)
		return true;
	if (!member->is_serving && reader->kind == WEIR_READER_MAIN)
		return true;
	return reader->passing_errors >= MAX_PASSING_ERRORS && (!is_shortage || is_raised_by_function(error));
}

/* As apply_version, in a subtransaction; a failure stops the version at the position before this batch. */
static void
apply_version_isolated(WeirReader *reader, const WeirSetMember *member, WeirLoadedVersion *version)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old);
	/* Restored here: the other versions of the batch, which must not suffer (I11). */
	PG_TRY();
	{
		apply_version(reader, member, version);
		weir_owner_scope_drop_locks();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;
		WeirStop	stop = {"error"};
		bool		is_locked;

		MemoryContextSwitchTo(old);
		is_within_version = false;
		weir_apply_budget_end();
		error = CopyErrorData();
		weir_owner_scope_blame(error);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
		/* The others of the main reader do not wait for it: it comes back in a reader of its own. */
		is_locked = reader->kind == WEIR_READER_MAIN && weir_definition_source_was_locked(error);
		if (!is_locked && !is_its_own_error(reader, member, error))
			ReThrowError(error);
		weir_state_aborted(version->state);
		stop.cause = is_locked ? "lock" : error->sqlerrcode == WEIR_ERRCODE_STALE ? "stale" : "error";
		stop.sqlerrcode = error->sqlerrcode;
		stop.message = error->message;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !member->is_serving && weir_apply_budget_message() != NULL)
			stop.message = weir_apply_budget_message();
		stop.detail = error->detail;
		stop.hint = error->hint;
		stop.lsn = reader->batch->last_commit_end;
		weir_reader_stop_version(reader, member, &stop);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
}

static void
write_statistics(WeirReader *reader)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (!TimestampDifferenceExceeds(reader->stats_written, now, STATS_INTERVAL_MS))
		return;
	reader->stats_written = now;
	foreach(lc, reader->versions)
	{
		WeirLoadedVersion *version = lfirst(lc);

		if (version->pending.batches == 0)
			continue;
		weir_version_stat_add(version->operator_id, version->version, &version->pending);
		version->stat_written = true;
	}
}

/* A paused version leaves at the position before this batch, like a failing one. */
static void
pause_version(WeirReader *reader, const WeirSetMember *member)
{
	WeirStop	stop = {
		.cause = "pause",
		.message = "paused by weir.pause_operator",
		.lsn = reader->processed_lsn
	};

	weir_reader_stop_version(reader, member, &stop);
}

/* Versions elsewhere are paused once they are in the main reader; a verification ends by itself. */
static bool
is_to_be_paused(const WeirReader *reader, const WeirSetMember *member)
{
	return member->pause_wanted && reader->kind == WEIR_READER_MAIN && !member->is_verification;
}

/* DROP ... CASCADE of a table, function or type took the definition view along; no row event ever tells. */
static void
stop_without_definition(WeirReader *reader, const WeirSetMember *member, const WeirLoadedVersion *version)
{
	WeirStop	stop = {
		.cause = "stale",
		.sqlerrcode = WEIR_ERRCODE_STALE,
		.message = "something that the definition uses was dropped",
		.detail = "The operator shows the rows as they were folded last.",
		.hint = psprintf("SELECT * FROM weir.start_upgrade(%s, $$SELECT ...$$, options => '{\"repair\": true}');",
						 version->operator_reference),
		.lsn = reader->processed_lsn
	};

	weir_reader_stop_version(reader, member, &stop);
}

/* The others' budget depends on what those that serve took. */
static List *
serving_first(List *members)
{
	List	   *serving = NIL;
	List	   *others = NIL;
	ListCell   *lc;

	foreach(lc, members)
	{
		WeirSetMember *member = lfirst(lc);

		if (member->is_serving)
			serving = lappend(serving, member);
		else
			others = lappend(others, member);
	}
	return list_concat(serving, others);
}

/* Everything between begin and commit. */
static ApplyOutcome
apply_in_transaction(WeirReader *reader, bool isolated)
{
	WeirBatch  *batch = reader->batch;
	List	   *members;
	ListCell   *lc;

	fence(reader, batch->last_commit_end, batch->last_commit_time, batch->ntransactions, batch->nrows);
	WEIR_CRASH_POINT("batch-fenced");
	members = weir_reader_set_read(reader);
	if (!weir_reader_set_is_loaded(reader, members))
		return SET_CHANGED;
	reader->set_has_shrunk = list_length(members) < list_length(reader->versions);

	/* State is read under a snapshot taken after the row lock. */
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	/* Version by version they go in the order in which their stops are judged, and what was measured holds. */
	if (!isolated)
	{
		weir_apply_budget_reset();
		members = serving_first(members);
	}
	foreach(lc, members)
	{
		WeirSetMember *member = lfirst(lc);
		WeirLoadedVersion *version = weir_reader_set_find(reader, member);

		if (member->definition_dropped)
			stop_without_definition(reader, member, version);
		else if (is_to_be_paused(reader, member))
			pause_version(reader, member);
		else if (isolated)
			apply_version_isolated(reader, member, version);
		else
			apply_version(reader, member, version);
		WEIR_CRASH_POINT("batch-version-applied");
	}
	write_statistics(reader);
	WEIR_CRASH_POINT("batch-before-commit");
	return APPLIED;
}

static void
statistics_ended(WeirLoadedVersion *version, bool committed)
{
	if (committed)
	{
		if (version->stat_written)
			memset(&version->pending, 0, sizeof(version->pending));
		version->pending.rows += version->current.rows;
		version->pending.folds += version->current.folds;
		version->pending.inserted += version->current.inserted;
		version->pending.updated += version->current.updated;
		version->pending.deleted += version->current.deleted;
		version->pending.batches += version->current.batches;
		version->pending.apply_us += version->current.apply_us;
	}
	version->stat_written = false;
	memset(&version->current, 0, sizeof(version->current));
}

/* After the transaction ended: cached tuple ids and counters become valid, or are dropped. */
static void
states_ended(WeirReader *reader, bool committed)
{
	ListCell   *lc;

	foreach(lc, reader->versions)
	{
		WeirLoadedVersion *version = lfirst(lc);

		if (committed)
			weir_state_committed(version->state);
		else
			weir_state_aborted(version->state);
		statistics_ended(version, committed);
	}
}

/* False: an error that another try, version by version, may isolate or outlive. */
static bool
try_apply(WeirReader *reader, bool isolated, ApplyOutcome *outcome)
{
	MemoryContext old = CurrentMemoryContext;
	XLogRecPtr	floor = reader->pending_floor;
	volatile bool failed = false;

	/* Restored here: the batch, which outlives the transaction and is applied again. */
	is_within_version = false;
	PG_TRY();
	{
		weir_worker_begin();
		*outcome = apply_in_transaction(reader, isolated);
		if (*outcome == APPLIED)
		{
			INSTR_TIME_SET_CURRENT(reader->commit_started);
			weir_worker_commit();
		}
		else
		{
			SPI_finish();
			AbortCurrentTransaction();
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		weir_apply_budget_end();
		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		if ((error->sqlerrcode == WEIR_ERRCODE_FENCED && !is_within_version) ||
			(isolated && (weir_error_is_permanent(error->sqlerrcode) ||
						  reader->passing_errors++ >= MAX_PASSING_ERRORS)))
			PG_RE_THROW();
		if (isolated)
			EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		failed = true;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (failed || *outcome != APPLIED)
		reader->pending_floor = floor;
	return !failed;
}

/* Commits set the latch. */
static void
rest(long ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	long		left;

	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
		weir_worker_wait(left);
}

static void
load_set(WeirReader *reader)
{
	weir_worker_begin();
	weir_reader_set_load(reader);
	weir_worker_commit();
}

void
weir_reader_apply(WeirReader *reader)
{
	ApplyOutcome outcome = APPLIED;

	INSTR_TIME_SET_CURRENT(reader->apply_started);
	weir_source_before_apply(reader->source, reader->batch);
	WEIR_CRASH_POINT("batch-before-apply");
	if (!try_apply(reader, false, &outcome))
	{
		states_ended(reader, false);
		while (!try_apply(reader, true, &outcome))
		{
			states_ended(reader, false);
			rest(reader->passing_errors * PAUSE_MS);
		}
	}
	reader->passing_errors = 0;
	if (outcome == SET_CHANGED)
	{
		states_ended(reader, false);
		weir_reader_reopen(reader);
		return;
	}
	if (!reader->has_stopped)
		weir_reader_tell_batch(reader);
	states_ended(reader, true);
	WEIR_CRASH_POINT("batch-committed");
	/* Then the row is where it was before the batch, and confirming it would lose the batch. */
	if (reader->has_stopped)
		return;
	reader->processed_lsn = reader->batch->last_commit_end;
	pg_atomic_write_u64(&reader->shm->processed_lsn, reader->processed_lsn);
	weir_reader_remember_commit(reader);
	weir_batch_reset(reader->batch, reader->followed);
	if (reader->set_has_shrunk)
		load_set(reader);
}

void
weir_reader_reopen(WeirReader *reader)
{
	if (reader->source != NULL)
		weir_source_close(reader->source);
	reader->source = NULL;
	if (reader->batch != NULL)
		weir_batch_reset(reader->batch, reader->followed);

	/* A move that found the process before this one holding may not have committed: it has the row locked. */
	weir_worker_begin();
	weir_reader_lock(reader->reader_id);
	weir_reader_set_load(reader);
	weir_worker_commit();
	reader->source = weir_source_open(reader->slot_name, reader->processed_lsn);
}

void
weir_reader_remember_commit(WeirReader *reader)
{
	int			size = lengthof(reader->unflushed);
	int			slot;

	/* Full: the newest entry is widened, which only confirms later, never earlier. */
	if (reader->unflushed_count == size)
		slot = (reader->unflushed_first + size - 1) % size;
	else
		slot = (reader->unflushed_first + reader->unflushed_count++) % size;
	reader->unflushed[slot].own_commit = XactLastCommitEnd;
	reader->unflushed[slot].processed = reader->processed_lsn;
}

/* Lowest position that a stopped version still needs from this reader's slot. */
static XLogRecPtr
pending_floor(WeirReader *reader)
{
	TimestampTz now;

	if (XLogRecPtrIsInvalid(reader->pending_floor))
		return InvalidXLogRecPtr;
	now = GetCurrentTimestamp();
	if (TimestampDifferenceExceeds(reader->floor_checked, now, 200))
	{
		reader->floor_checked = now;
		weir_worker_begin();
		reader->pending_floor = weir_reader_pending_floor(reader->stream_id);
		weir_worker_commit();
	}
	return reader->pending_floor;
}

void
weir_reader_confirm(WeirReader *reader)
{
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	XLogRecPtr	durable = InvalidXLogRecPtr;
	XLogRecPtr	floor;

	while (reader->unflushed_count > 0 &&
		   reader->unflushed[reader->unflushed_first].own_commit <= flushed)
	{
		durable = reader->unflushed[reader->unflushed_first].processed;
		reader->unflushed_first = (reader->unflushed_first + 1) % lengthof(reader->unflushed);
		reader->unflushed_count--;
	}
	if (XLogRecPtrIsInvalid(durable))
		return;
	WEIR_CRASH_POINT("confirm-before");
	floor = pending_floor(reader);
	if (!XLogRecPtrIsInvalid(floor) && floor < durable)
		durable = floor;
	weir_source_confirm(reader->source, durable);
	WEIR_CRASH_POINT("confirm-after");
}

static bool
statistics_are_due(WeirReader *reader, TimestampTz now)
{
	ListCell   *lc;

	if (!TimestampDifferenceExceeds(reader->stats_written, now, STATS_INTERVAL_MS))
		return false;
	foreach(lc, reader->versions)
		if (((WeirLoadedVersion *) lfirst(lc))->pending.batches > 0)
			return true;
	return false;
}

/* A transaction that moves nothing but the position, to scanned. */
static void
advance_position(WeirReader *reader, XLogRecPtr scanned)
{
	ListCell   *lc;

	weir_worker_begin();
	fence(reader, scanned, 0, 0, 0);
	write_statistics(reader);
	weir_worker_commit();
	foreach(lc, reader->versions)
		statistics_ended(lfirst(lc), true);
	reader->processed_lsn = scanned;
	pg_atomic_write_u64(&reader->shm->processed_lsn, scanned);
	weir_reader_remember_commit(reader);
}

void
weir_reader_advance_to_scanned(WeirReader *reader)
{
	XLogRecPtr	scanned = weir_source_scanned_lsn(reader->source);

	Assert(reader->batch->ntransactions == 0);
	if (scanned > reader->processed_lsn)
		advance_position(reader, scanned);
}

/*
 * A function that was replaced while nothing comes: told now, not with the
 * next change. The counter of changes makes this cheap; no transaction id is
 * used unless a version stops.
 */
static void
stop_changed_functions(WeirReader *reader)
{
	List	   *members = NIL;
	ListCell   *lc;
	bool		stopped = false;

	weir_worker_begin();
	foreach(lc, reader->versions)
	{
		WeirStop	stop;
		ListCell   *other;

		if (!weir_version_functions_changed(lfirst(lc), &stop))
			continue;
		if (!stopped)
		{
			fence(reader, reader->processed_lsn, 0, 0, 0);
			members = weir_reader_set_read(reader);
			stopped = true;
		}
		stop.lsn = reader->processed_lsn;
		foreach(other, members)
			if (weir_reader_set_find(reader, lfirst(other)) == lfirst(lc))
				weir_reader_stop_version(reader, lfirst(other), &stop);
	}
	weir_worker_commit();
	if (!stopped)
		return;
	weir_reader_remember_commit(reader);
	load_set(reader);
}

/*
 * Between batches, so that a pause of an idle stream does not wait for the next
 * change: the versions leave at the position that has been read to.
 */
void
weir_reader_pause_if_asked(WeirReader *reader)
{
	ListCell   *lc;

	if (reader->batch->ntransactions > 0 || pg_atomic_exchange_u32(&reader->shm->pause_asked, 0) == 0)
		return;
	weir_reader_advance_to_scanned(reader);
	weir_worker_begin();
	fence(reader, reader->processed_lsn, 0, 0, 0);
	foreach(lc, weir_reader_set_read(reader))
		if (is_to_be_paused(reader, lfirst(lc)))
			pause_version(reader, lfirst(lc));
	WEIR_CRASH_POINT("pause-before-commit");
	weir_worker_commit();
	WEIR_CRASH_POINT("pause-committed");
	weir_reader_remember_commit(reader);
	load_set(reader);
}

void
weir_reader_idle_advance(WeirReader *reader)
{
	XLogRecPtr	scanned = Max(weir_source_scanned_lsn(reader->source), reader->processed_lsn);
	TimestampTz now = GetCurrentTimestamp();
	bool		advance = TimestampDifferenceExceeds(reader->idle_advanced, now, IDLE_ADVANCE_MS) &&
		scanned > reader->processed_lsn &&
		(scanned >= reader->processed_lsn + IDLE_ADVANCE_BYTES ||
		 weir_source_would_release(reader->source, scanned));

	if (reader->kind == WEIR_READER_MAIN &&
		TimestampDifferenceExceeds(reader->functions_checked, now, FUNCTIONS_INTERVAL_MS))
	{
		reader->functions_checked = now;
		stop_changed_functions(reader);
	}
	if (!advance && !statistics_are_due(reader, now))
		return;
	reader->idle_advanced = now;
	advance_position(reader, scanned);
}
