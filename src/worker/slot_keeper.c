/*
 * slot_keeper.c - the slots of readers: copied for stopped versions, bounded,
 * dropped when nobody owns them.
 *
 * Runs in the coordinator, which never holds a slot of its own: a process can
 * hold one at a time, and creating or copying one must not happen after a
 * transaction id was assigned. Slots are not transactional, so the row goes
 * first where a slot is made (its name is recorded by the reader), and last
 * where one is dropped. Orphans are recognised by name: weir_<database>_...
 * that no row names.
 *
 * A place may be given up for the WAL it keeps when nobody is at work there:
 * that of a stopped version, and that of a catch-up reader that cannot go on.
 * The positions in the catalog decide, so one that is merely slow is safe.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/reader_catalog.h"
#include "catalog/version_catalog.h"
#include "source/source_local.h"
#include "weir_guc.h"
#include "weir_shmem.h"
#include "worker/attempt.h"
#include "worker/reader_pool.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

/* All reader rows, allocated in the caller's context. */
static List *
list_readers(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *rows;
	List	   *copies = NIL;
	ListCell   *lc;

	weir_worker_begin();
	rows = weir_reader_list();
	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);
		MemoryContext old = MemoryContextSwitchTo(context);
		WeirReaderRow *copy = palloc(sizeof(WeirReaderRow));

		*copy = *row;
		copy->slot_name = row->slot_name ? pstrdup(row->slot_name) : NULL;
		copies = lappend(copies, copy);
		MemoryContextSwitchTo(old);
	}
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	return copies;
}

static WeirReaderRow *
find_main(List *rows, int stream_id)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);

		if (row->kind == WEIR_READER_MAIN && row->stream_id == stream_id)
			return row;
	}
	return NULL;
}

typedef struct SlotCopy
{
	const WeirReaderRow *main_reader;
	const WeirReaderRow *stopped;
} SlotCopy;

/*
 * The copy holds the WAL from the stopped version's position on; only then may
 * the main slot move past it, so the record of it is durable before others see
 * it. Fails while no slot is free: the main slot stays where it is.
 */
static bool
copy_slot(void *argument)
{
	const SlotCopy *copy = argument;
	const WeirReaderRow *stopped = copy->stopped;
	char		name[NAMEDATALEN];
	XLogRecPtr	confirmed;

	snprintf(name, NAMEDATALEN, "weir_%u_" INT64_FORMAT "_stopped", MyDatabaseId, stopped->reader_id);
	weir_slot_drop(name);		/* left by a crash between copying and recording */
	confirmed = weir_slot_copy(copy->main_reader->slot_name, name);
	WEIR_CRASH_POINT("stopped-slot-copied");
	if (confirmed > stopped->processed_lsn)
		elog(ERROR, "copied slot is at %X/%X, past the stopped position %X/%X",
			 LSN_FORMAT_ARGS(confirmed), LSN_FORMAT_ARGS(stopped->processed_lsn));
	weir_worker_begin();
	weir_reader_slot_copied(stopped->reader_id, name);
	ForceSyncCommit();
	weir_worker_commit();
	return true;
}

bool
weir_slots_copy_pending(void)
{
	List	   *rows = list_readers();
	ListCell   *lc;
	bool		changed = false;

	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);
		SlotCopy	copy = {find_main(rows, row->stream_id), row};

		if (!row->slot_pending || row->status == WEIR_READER_ENDED ||
			copy.main_reader == NULL || copy.main_reader->slot_name == NULL)
			continue;
		changed |= weir_attempt(copy_slot, &copy, row->reader_id, 0);
	}
	return changed;
}

static bool
is_named(List *rows, const char *slot_name)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);

		if (row->slot_name != NULL && strcmp(row->slot_name, slot_name) == 0)
			return true;
	}
	return false;
}

/*
 * What says that a slot is nobody's may be a commit that is not on disk yet
 * (synchronous_commit = off); taken back by a crash, its reader would be there
 * again and its slot would not.
 */
static void
flush_commits(void)
{
	weir_worker_begin();
	(void) GetCurrentTransactionId();
	ForceSyncCommit();
	weir_worker_commit();
}

/* False: a process still holds it. */
static bool
drop_if_free(const char *slot_name)
{
	int			active_pid = 0;

	if (!weir_slot_exists(slot_name, NULL, NULL, NULL, &active_pid))
		return true;
	if (active_pid != 0)
		return false;
	flush_commits();
	weir_slot_drop(slot_name);
	return true;
}

static bool
remove_ended(void *argument)
{
	const WeirReaderRow *row = argument;

	if (weir_reader_pool_is_running(row->reader_id))
	{
		weir_reader_pool_terminate(row->reader_id);
		return false;
	}
	if (row->slot_name != NULL && !drop_if_free(row->slot_name))
		return false;
	weir_worker_begin();
	weir_reader_delete(row->reader_id);
	weir_worker_commit();
	return true;
}

bool
weir_slots_drop_ended(void)
{
	List	   *slots = weir_slot_list(MyDatabaseId);
	List	   *rows = list_readers();	/* after the slots: a name is recorded before its slot exists */
	ListCell   *lc;
	bool		changed = false;

	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);

		if (row->status == WEIR_READER_ENDED)
			changed |= weir_attempt(remove_ended, row, row->reader_id, 0);
	}
	foreach(lc, slots)
		if (!is_named(rows, lfirst(lc)))
			changed |= drop_if_free(lfirst(lc));
	return changed;
}

static void
record_loss(int64 operator_id, int version, const char *hint, const WeirReaderRow *row, const char *why, int64 retained_mb)
{
	WeirOperator *operator = weir_operator_by_id(operator_id);
	WeirLedgerEntry entry = {
		.operator_id = operator_id,
		.operator_name = operator ? operator->view_name : "",
		.event = "lost",
		.from_version = version,
		.lsn = row->processed_lsn,
		.actor = GetUserId(),
		.reason = why,
	};

	weir_ledger_note(&entry);
	ereport(LOG,
			(errmsg("operator \"%s\" version %d lost its place in the stream: %s",
					entry.operator_name, version, why),
			 retained_mb > 0 ? errdetail("It kept " INT64_FORMAT " MB of WAL.", retained_mb) : 0,
			 errhint("%s", hint)));
}

static void
lose_place(const WeirReaderRow *row, const char *why, int64 retained_mb)
{
	uint64		count;
	int64	   *operators;
	int		   *versions;
	char	  **hints;

	count = weir_query(NULL,
					   "UPDATE weir_internal.version_run SET status = 'lost', status_since = clock_timestamp(), "
					   "message = coalesce(message || '; ', '') || $2, error_lsn = coalesce(error_lsn, $3), "
					   "hint = format(CASE WHEN EXISTS (SELECT FROM weir_internal.upgrade u WHERE u.operator_id = version_run.operator_id "
					   "AND u.from_version = version_run.version AND u.phase = 'observing') "
					   "THEN 'SELECT weir.finalize_upgrade(%L);' ELSE 'SELECT * FROM weir.rebuild_operator(%L);' END, "
					   "(SELECT view_oid::regclass::text FROM weir_internal.operator o WHERE o.operator_id = version_run.operator_id)) "
					   "WHERE reader_id = $1 AND status NOT IN ('failed', 'lost') AND EXISTS (SELECT FROM weir_internal.version v "
					   "WHERE v.operator_id = version_run.operator_id AND v.version = version_run.version AND NOT v.retired) "
					   "RETURNING operator_id, version, hint", "ltp", row->reader_id, why, row->processed_lsn);
	operators = palloc(sizeof(int64) * (count + 1));
	versions = palloc(sizeof(int) * (count + 1));
	hints = palloc(sizeof(char *) * (count + 1));
	for (uint64 i = 0; i < count; i++)
	{
		operators[i] = weir_result_int64(i, 1);
		versions[i] = weir_result_int(i, 2);
		hints[i] = weir_result_text(i, 3);
	}
	for (uint64 i = 0; i < count; i++)
		record_loss(operators[i], versions[i], hints[i], row, why, retained_mb);
	weir_reader_end(row->reader_id);
}

/*
 * The place is given up: users' writes are never endangered for ours. Of a
 * main reader so are those that still were to get a copy of its slot, in one
 * transaction: the slot of the next main reader begins after them. Rows are
 * read anew, because the reader may have added one before it ended.
 *
 * False while its process is in a batch transaction: then it is at work, and
 * waiting for it would hold up everybody else.
 */
static bool
give_up(const WeirReaderRow *row, const char *why, int64 retained_mb)
{
	ListCell   *lc;

	weir_worker_begin();
	if (!weir_reader_try_lock(row->reader_id))
	{
		weir_worker_commit();
		return false;
	}
	lose_place(row, why, retained_mb);
	foreach(lc, row->kind == WEIR_READER_MAIN ? weir_reader_list() : NIL)
	{
		WeirReaderRow *other = lfirst(lc);

		if (other->stream_id == row->stream_id && other->slot_pending && other->status != WEIR_READER_ENDED)
			lose_place(other, why, retained_mb);
	}
	weir_worker_commit();
	return true;
}

/*
 * After a clone, restore or promotion LSNs mean something else and the slots
 * stayed behind: nothing is compared or read, the operators say so.
 */
bool
weir_slots_fence_foreign(void)
{
	ListCell   *lc;
	bool		changed = false;

	foreach(lc, list_readers())
	{
		WeirReaderRow *row = lfirst(lc);

		if (row->is_ours || row->status == WEIR_READER_ENDED)
			continue;
		changed |= give_up(row, "its position belongs to another cluster, timeline or database", 0);
	}
	return changed;
}

/* When a catch-up reader was last seen to get on: known to this coordinator only, a new one begins anew. */
typedef struct Progress
{
	int64		reader_id;
	XLogRecPtr	processed_lsn;
	int			pid;			/* the first process that was seen at this position, 0 none */
	XLogRecPtr	wal_end;		/* of the server, when it was last at work */
} Progress;

static List *progress_list = NIL;

/* Of readers that are gone, and of places where nobody is at work. */
static void
forget_progress(List *rows)
{
	ListCell   *lc;

	foreach(lc, progress_list)
	{
		Progress   *progress = lfirst(lc);
		bool		is_needed = false;
		ListCell   *other;

		foreach(other, rows)
		{
			const WeirReaderRow *row = lfirst(other);

			is_needed = is_needed || (row->reader_id == progress->reader_id && row->kind == WEIR_READER_CATCH_UP);
		}
		if (is_needed)
			continue;
		progress_list = foreach_delete_current(progress_list, lc);
		pfree(progress);
	}
}

static Progress *
find_progress(int64 reader_id)
{
	MemoryContext old;
	Progress   *progress;
	ListCell   *lc;

	foreach(lc, progress_list)
	{
		progress = lfirst(lc);
		if (progress->reader_id == reader_id)
			return progress;
	}
	old = MemoryContextSwitchTo(WeirWorkerContext);
	progress = palloc0(sizeof(Progress));
	progress->reader_id = reader_id;
	progress_list = lappend(progress_list, progress);
	MemoryContextSwitchTo(old);
	return progress;
}

/*
 * WAL that was written since a catch-up reader was last at work. It is at work
 * when its position has moved, and when the first process at that position is
 * still there and has a main reader to catch up with: a large transaction may
 * take it long. Who was started again has yet to get somewhere.
 */
static uint64
wal_without_progress(const WeirReaderRow *row, XLogRecPtr now)
{
	Progress   *progress = find_progress(row->reader_id);
	WeirReaderShmem *reader = weir_reader_find(MyDatabaseId, row->reader_id);
	WeirReaderShmem *main_reader = weir_main_reader_find(MyDatabaseId);
	int			pid = reader != NULL ? reader->pid : 0;
	bool		has_moved = XLogRecPtrIsInvalid(progress->wal_end) || progress->processed_lsn != row->processed_lsn;

	if (has_moved || progress->pid == 0)
		progress->pid = pid;
	progress->processed_lsn = row->processed_lsn;
	if (has_moved ||
		(pid != 0 && pid == progress->pid &&
		 main_reader != NULL && !XLogRecPtrIsInvalid(pg_atomic_read_u64(&main_reader->processed_lsn))))
		progress->wal_end = now;
	return now - progress->wal_end;
}

/* May this reader's place be given up for the WAL that it keeps? */
static bool
keeps_too_much(const WeirReaderRow *row, XLogRecPtr restart_lsn, XLogRecPtr now)
{
	uint64		kept = now - restart_lsn;

	switch (row->kind)
	{
		case WEIR_READER_MAIN:
			return false;		/* all live operators depend on it */
		case WEIR_READER_CATCH_UP:
			kept = Min(kept, wal_without_progress(row, now));
			break;
		case WEIR_READER_STOPPED:
			break;
	}
	return weir_guc_max_retained_wal_mb >= 0 &&
		kept / (1024 * 1024) > (uint64) weir_guc_max_retained_wal_mb;
}

/*
 * A build that was interrupted starts over with another slot: while it waits
 * for that, for a worker or for what failed to be mended, nobody needs this one.
 */
static bool
drop_useless_slot(void *argument)
{
	const WeirReaderRow *row = argument;
	WeirReaderRow *now;
	bool		is_useless;

	if (weir_reader_pool_is_running(row->reader_id))
		return false;
	/* Without a process the row does not change any more. */
	weir_worker_begin();
	now = weir_reader_get(row->reader_id);
	is_useless = now != NULL && now->status == WEIR_READER_BUILDING &&
		now->slot_name != NULL && strcmp(now->slot_name, row->slot_name) == 0;
	weir_worker_commit();
	return is_useless && drop_if_free(row->slot_name);
}

bool
weir_slots_bound_retained_wal(void)
{
	XLogRecPtr	now = GetXLogWriteRecPtr();
	List	   *rows = list_readers();
	ListCell   *lc;
	bool		changed = false;

	forget_progress(rows);
	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);
		XLogRecPtr	restart_lsn = InvalidXLogRecPtr;
		bool		invalidated = false;

		if (row->slot_name == NULL || row->slot_pending)
			continue;
		if (row->status == WEIR_READER_BUILDING)
		{
			if (weir_slot_exists(row->slot_name, NULL, &restart_lsn, NULL, NULL) &&
				keeps_too_much(row, restart_lsn, now))
				changed |= weir_attempt(drop_useless_slot, row, row->reader_id, 0);
			continue;
		}
		if (row->status != WEIR_READER_RUNNING)
			continue;
		/* Of whatever kind: a reader that cannot have its slot would only fail at each start. */
		if (!weir_slot_exists(row->slot_name, NULL, &restart_lsn, &invalidated, NULL) || invalidated)
		{
			changed |= give_up(row, "its slot was removed or invalidated", 0);
			continue;
		}
		if (keeps_too_much(row, restart_lsn, now))
			changed |= give_up(row, "it kept more WAL than weir.max_retained_wal allows",
							   (int64) (now - restart_lsn) / (1024 * 1024));
	}
	return changed;
}

bool
weir_slots_drop_all(void)
{
	ListCell   *lc;
	bool		all_dropped = true;

	foreach(lc, weir_slot_list(MyDatabaseId))
		all_dropped &= drop_if_free(lfirst(lc));
	return all_dropped;
}
