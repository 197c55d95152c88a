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
 */
static void
give_up(const WeirReaderRow *row, const char *why, int64 retained_mb)
{
	ListCell   *lc;

	weir_worker_begin();
	lose_place(row, why, retained_mb);
	foreach(lc, row->kind == WEIR_READER_MAIN ? weir_reader_list() : NIL)
	{
		WeirReaderRow *other = lfirst(lc);

		if (other->stream_id == row->stream_id && other->slot_pending && other->status != WEIR_READER_ENDED)
			lose_place(other, why, retained_mb);
	}
	weir_worker_commit();
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
		give_up(row, "its position belongs to another cluster, timeline or database", 0);
		changed = true;
	}
	return changed;
}

bool
weir_slots_bound_retained_wal(void)
{
	XLogRecPtr	now = GetXLogWriteRecPtr();
	ListCell   *lc;
	bool		changed = false;

	foreach(lc, list_readers())
	{
		WeirReaderRow *row = lfirst(lc);
		XLogRecPtr	restart_lsn = InvalidXLogRecPtr;
		bool		invalidated = false;
		int64		retained_mb;

		if (row->status != WEIR_READER_RUNNING || row->slot_name == NULL || row->slot_pending)
			continue;
		/* Of whatever kind: a reader that cannot have its slot would only fail at each start. */
		if (!weir_slot_exists(row->slot_name, NULL, &restart_lsn, &invalidated, NULL) || invalidated)
		{
			give_up(row, "its slot was removed or invalidated", 0);
			changed = true;
			continue;
		}
		if (row->kind != WEIR_READER_STOPPED)
			continue;			/* runs, so it lets go of WAL by itself */
		retained_mb = (int64) (now - restart_lsn) / (1024 * 1024);
		if (weir_guc_max_retained_wal_mb >= 0 && retained_mb > weir_guc_max_retained_wal_mb)
		{
			give_up(row, "it kept more WAL than weir.max_retained_wal allows", retained_mb);
			changed = true;
		}
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
