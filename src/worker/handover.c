/*
 * handover.c - moving caught-up versions from their reader to the main reader.
 *
 * Both sides run here, each in its own process. The move is exact because one
 * transaction locks both reader rows in id order, finds both positions equal
 * and then the hold still in force; otherwise nothing happens and it is tried
 * again. The position alone would not do: a main reader whose hold is over
 * reads on without the new version's tables, and its position need not move.
 * The hold lasts at most weir.max_hold, whatever the state's size. However it
 * ended, the main reader, or the process that follows it, waits for its row's
 * lock before it goes on: behind it a move that was in time is visible.
 *
 * Killed before that commit: the versions still belong to the catch-up reader.
 * After it: to the main reader, which discards a batch decoded without them;
 * the catch-up reader's row is "ended" and the coordinator drops its slot.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "weir_guc.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

/* How long a catch-up reader waits for the main reader to acknowledge. */
#define ACKNOWLEDGE_MS 2000
/* Holds in vain take less and less of the main reader's time, in the end one of so many parts. */
#define HOLD_PARTS 10

static void
wake_holder_of(int64 reader_id)
{
	WeirReaderShmem *reader = weir_reader_find(MyDatabaseId, reader_id);

	if (reader != NULL)
		weir_wake_reader(reader);
}

void
weir_reader_hold_if_asked(WeirReader *reader)
{
	WeirReaderShmem *shm = reader->shm;
	int64		asked_by = (int64) pg_atomic_read_u64(&shm->hold_requested_by);
	TimestampTz start;
	TimestampTz deadline;
	uint64		held_us;

	if (asked_by == 0 || reader->batch->ntransactions > 0)
		return;
	start = GetCurrentTimestamp();
	deadline = TimestampTzPlusMilliseconds(start, weir_guc_max_hold_ms);
	weir_reader_advance_to_scanned(reader);
	pg_atomic_write_u64(&shm->held_at, reader->processed_lsn);
	wake_holder_of(asked_by);
	while ((int64) pg_atomic_read_u64(&shm->hold_requested_by) == asked_by &&
		   GetCurrentTimestamp() < deadline)
		weir_worker_wait(Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline), 1));
	pg_atomic_write_u64(&shm->held_at, 0);
	pg_atomic_compare_exchange_u64(&shm->hold_requested_by, (uint64 *) &asked_by, 0);
	held_us = GetCurrentTimestamp() - start;
	if (held_us > pg_atomic_read_u64(&shm->longest_hold_us))
		pg_atomic_write_u64(&shm->longest_hold_us, held_us);

	/* At a boundary with nothing decoded: the cheapest moment to take new versions in. */
	weir_worker_begin();
	weir_reader_lock(reader->reader_id);
	weir_reader_set_load(reader);
	weir_worker_commit();
}

/* Asks and waits for the acknowledgement; Invalid when it did not come. */
static XLogRecPtr
obtain_hold(WeirReader *reader, WeirReaderShmem *main_reader)
{
	uint64		nobody = 0;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ACKNOWLEDGE_MS);
	XLogRecPtr	held_at = InvalidXLogRecPtr;

	if (!pg_atomic_compare_exchange_u64(&main_reader->hold_requested_by, &nobody, reader->reader_id))
		return InvalidXLogRecPtr;	/* another catch-up reader is at it */
	weir_wake_reader(main_reader);
	while (GetCurrentTimestamp() < deadline &&
		   (int64) pg_atomic_read_u64(&main_reader->hold_requested_by) == reader->reader_id)
	{
		held_at = pg_atomic_read_u64(&main_reader->held_at);
		if (!XLogRecPtrIsInvalid(held_at))
			return held_at;
		weir_worker_wait(10);
	}
	return InvalidXLogRecPtr;
}

void
weir_reader_release_hold(WeirReader *reader, WeirReaderShmem *main_reader)
{
	uint64		mine = reader->reader_id;

	if (pg_atomic_compare_exchange_u64(&main_reader->hold_requested_by, &mine, 0))
		weir_wake_reader(main_reader);
}

/* Applies exactly up to the position at which the main reader holds. */
static bool
apply_up_to(WeirReader *reader, XLogRecPtr target)
{
	WeirReadLimits limits = {weir_guc_max_batch_rows, weir_guc_max_batch_ms, target};

	for (;;)
	{
		WeirReadOutcome outcome = weir_reader_read(reader, &limits);

		if (reader->batch->ntransactions > 0)
			weir_reader_apply(reader);
		if (reader->has_stopped)
			return false;
		if (outcome == WEIR_READ_STOP_LSN)
			return reader->versions != NIL;
		if (outcome == WEIR_READ_END_OF_WAL)
			return false;		/* the target is flushed WAL, so this is a decoder of another record boundary */
		weir_worker_check_interrupts();
	}
}

/* With both rows locked: from then on the main reader cannot end the hold and go on unnoticed. */
static bool
is_still_held(WeirReader *reader, WeirReaderShmem *main_reader, XLogRecPtr held_at)
{
	return pg_atomic_read_u64(&main_reader->held_at) == held_at &&
		(int64) pg_atomic_read_u64(&main_reader->hold_requested_by) == reader->reader_id;
}

/* The one transaction that moves the versions. */
static bool
move_versions(WeirReader *reader, WeirReaderShmem *main_reader, XLogRecPtr held_at)
{
	int64		main_reader_id = main_reader->reader_id;
	XLogRecPtr	mine = InvalidXLogRecPtr;
	XLogRecPtr	main_lsn = InvalidXLogRecPtr;
	bool		moved = false;

	weir_worker_begin();
	if (weir_reader_lock_two(reader->reader_id, main_reader_id, &mine, &main_lsn) &&
		main_lsn == held_at && mine == reader->processed_lsn && mine <= held_at &&
		is_still_held(reader, main_reader, held_at))
	{
		ListCell   *lc;

		WEIR_CRASH_POINT("handover-locked");
		foreach(lc, weir_reader_set_read(reader))
		{
			WeirSetMember *member = lfirst(lc);

			weir_version_run_set(member->operator_id, member->version, WEIR_RUN_LIVE, main_reader_id);
			weir_version_run_clear_error(member->operator_id, member->version);
		}
		weir_reader_end(reader->reader_id);
		/* Durable before anybody sees it: the coordinator drops the slot as soon as it does. */
		ForceSyncCommit();
		moved = true;
	}
	WEIR_CRASH_POINT("handover-before-commit");
	weir_worker_commit();
	WEIR_CRASH_POINT("handover-committed");
	return moved;
}

static WeirSetMember *
verification_member(WeirReader *reader)
{
	ListCell   *lc;
	WeirSetMember *found = NULL;
	MemoryContext old = CurrentMemoryContext;

	weir_worker_begin();
	foreach(lc, weir_reader_set_read(reader))
	{
		WeirSetMember *member = lfirst(lc);

		if (member->is_verification)
		{
			found = MemoryContextAlloc(old, sizeof(WeirSetMember));
			*found = *member;
		}
	}
	weir_worker_commit();
	MemoryContextSwitchTo(old);
	return found;
}

/* A version that is too slow to get there within a hold must not hold the stream again and again. */
static void
pace_holds(WeirReader *reader, TimestampTz held_since)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		held_us = Min(now - held_since, weir_guc_max_hold_ms * (int64) 1000);

	reader->hold_parts = Min(Max(reader->hold_parts, 1) * 2, HOLD_PARTS);
	reader->next_hold = now + held_us * reader->hold_parts;
}

bool
weir_reader_hand_over(WeirReader *reader)
{
	WeirReaderShmem *main_reader = weir_main_reader_find(MyDatabaseId);
	WeirSetMember *verification;
	XLogRecPtr	held_at;
	TimestampTz held_since;
	bool		done = false;

	if (main_reader == NULL || GetCurrentTimestamp() < reader->next_hold)
		return false;
	if (pg_atomic_read_u64(&main_reader->scanned_lsn) < reader->processed_lsn)
	{
		weir_wake_reader(main_reader);	/* idle, it has not looked at the WAL since we started */
		return false;
	}
	/* Our commits are asynchronous; what the move would have to flush is flushed while nobody waits for us. */
	XLogFlush(XactLastCommitEnd);
	held_at = obtain_hold(reader, main_reader);
	if (XLogRecPtrIsInvalid(held_at))
	{
		weir_reader_release_hold(reader, main_reader);
		return false;
	}
	held_since = GetCurrentTimestamp();
	if (apply_up_to(reader, held_at))
	{
		verification = verification_member(reader);
		if (verification == NULL)
			done = move_versions(reader, main_reader, held_at);
		else
		{
			WeirLoadedVersion *throwaway = weir_reader_set_find(reader, verification);

			done = throwaway != NULL &&
				weir_verification_run(reader, throwaway, main_reader, held_at);
		}
	}
	weir_reader_release_hold(reader, main_reader);
	if (done)
		weir_wake_coordinator(MyDatabaseId);
	else
		pace_holds(reader, held_since);
	return done;
}
