/*
 * weir_shmem_reader.c - the entries of running readers, and waking them when
 * somebody commits.
 *
 * A commit must cost nothing where no reader runs and little where one does:
 * it looks at one atomic, then at the dense arrays of OIDs, and sets a latch
 * only of a reader that says it sleeps.
 *
 * The other half of the wake-up protocol is the reader's: it sets "sleeping",
 * executes a full barrier, looks at weir_last_commit_lsn once more, and only
 * then waits.  The committing backend stores the LSN, executes a full barrier
 * and looks at "sleeping": one of the two sees the other.
 */
#include "weir.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

/* The lock must be held. Index of the database's reader with that id, -1 if none. */
static int
find_reader(Oid database, int64 reader_id)
{
	uint32		limit = pg_atomic_read_u32(&weir_shared->reader_limit);

	for (uint32 i = 0; i < limit; i++)
	{
		WeirReaderShmem *reader = &weir_shared->readers[i];

		if (reader->database == database && reader->reader_id == reader_id)
			return (int) i;
	}
	return -1;
}

/* The lock must be held. */
static int
find_free_reader(void)
{
	for (int i = 0; i < WEIR_MAX_READERS; i++)
	{
		if (!OidIsValid(weir_shared->readers[i].database))
			return i;
	}
	return -1;
}

static void
detach_reader(int code, Datum arg)
{
	int			index = DatumGetInt32(arg);
	WeirReaderShmem *reader = &weir_shared->readers[index];
	Oid			database = reader->database;
	int			database_index;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&weir_shared->reader_databases[index], InvalidOid);
	reader->database = InvalidOid;
	reader->pid = 0;
	pg_atomic_write_u32(&reader->sleeping, 0);
	pg_atomic_write_u64(&reader->held_at, 0);
	pg_atomic_fetch_sub_u32(&weir_shared->reader_count, 1);
	database_index = weir_shmem_find_database(database);
	if (database_index >= 0)
	{
		weir_shared->databases[database_index].nreaders--;
		weir_shmem_drop_database_if_unused(database_index);
	}
	LWLockRelease(weir_shared->lock);

	/* It decides whether the reader is to be started again. */
	weir_wake_coordinator(database);
}

/* The lock must be held. */
static void
fill_reader(int index, int database_index, int64 reader_id, bool is_main)
{
	WeirReaderShmem *reader = &weir_shared->readers[index];

	reader->database = MyDatabaseId;
	reader->reader_id = reader_id;
	reader->pid = MyProcPid;
	reader->latch = &MyProc->procLatch;
	reader->is_main = is_main;
	pg_atomic_write_u32(&reader->sleeping, 0);
	pg_atomic_write_u64(&reader->processed_lsn, 0);
	pg_atomic_write_u64(&reader->scanned_lsn, 0);
	pg_atomic_write_u64(&reader->hold_requested_by, 0);
	pg_atomic_write_u64(&reader->held_at, 0);
	pg_atomic_write_u32(&reader->pause_asked, 0);
	pg_atomic_write_u64(&reader->longest_hold_us, 0);
	pg_atomic_write_u64(&reader->waiting_since, 0);
	pg_atomic_write_u32(&reader->gives_way, 0);
	weir_shared->databases[database_index].nreaders++;
	if (pg_atomic_read_u32(&weir_shared->reader_limit) < index + 1)
		pg_atomic_write_u32(&weir_shared->reader_limit, index + 1);
	/* The latch must be seen by whoever finds the entry by its database. */
	pg_write_barrier();
	pg_atomic_write_u32(&weir_shared->reader_databases[index], MyDatabaseId);
	pg_atomic_fetch_add_u32(&weir_shared->reader_count, 1);
}

/*
 * Enters this process as a reader of its database until it exits.  55006 when
 * a process of the same reader still runs, 53400 when the table is full.
 */
WeirReaderShmem *
weir_reader_attach(int64 reader_id, bool is_main)
{
	int			index;
	int			database_index = -1;
	int			other_pid = 0;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	index = find_reader(MyDatabaseId, reader_id);
	if (index >= 0)
		other_pid = weir_shared->readers[index].pid;
	else
	{
		index = find_free_reader();
		if (index >= 0)
			database_index = weir_shmem_claim_database(MyDatabaseId);
		if (database_index >= 0)
			fill_reader(index, database_index, reader_id, is_main);
	}
	LWLockRelease(weir_shared->lock);

	if (other_pid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("reader " INT64_FORMAT " already runs with PID %d", reader_id, other_pid)));
	if (database_index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many readers on this server"),
				 errdetail("At most %d readers in %d databases can run.",
						   WEIR_MAX_READERS, WEIR_MAX_DATABASES)));

	/* After the slot is released, so that a successor finds it free. */
	on_shmem_exit(detach_reader, Int32GetDatum(index));
	return &weir_shared->readers[index];
}

WeirReaderShmem *
weir_reader_find(Oid database, int64 reader_id)
{
	int			index;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	index = find_reader(database, reader_id);
	LWLockRelease(weir_shared->lock);
	return index < 0 ? NULL : &weir_shared->readers[index];
}

WeirReaderShmem *
weir_main_reader_find(Oid database)
{
	uint32		limit = pg_atomic_read_u32(&weir_shared->reader_limit);
	WeirReaderShmem *found = NULL;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	for (uint32 i = 0; i < limit && found == NULL; i++)
	{
		WeirReaderShmem *reader = &weir_shared->readers[i];

		if (reader->database == database && reader->is_main)
			found = reader;
	}
	LWLockRelease(weir_shared->lock);
	return found;
}

void
weir_wake_reader(WeirReaderShmem *reader)
{
	SetLatch(reader->latch);
}

static void
advance_to(pg_atomic_uint64 *lsn, uint64 target)
{
	uint64		current = pg_atomic_read_u64(lsn);

	while (current < target && !pg_atomic_compare_exchange_u64(lsn, &current, target))
		 /* current was refreshed */ ;
}

void
weir_wake_readers_of_database(Oid database, XLogRecPtr commit_lsn)
{
	uint32		limit;
	int			database_index;

	if (weir_shared == NULL || pg_atomic_read_u32(&weir_shared->reader_count) == 0)
		return;

	/*
	 * Without the lock: the entry may change hands under us, and then another
	 * database is told of a commit that is not its own.  Its reader flushes
	 * WAL that exists and finds nothing in it.
	 */
	database_index = weir_shmem_find_database(database);
	if (database_index < 0)
		return;
	advance_to(&weir_shared->databases[database_index].last_commit_lsn, commit_lsn);
	pg_memory_barrier();

	limit = pg_atomic_read_u32(&weir_shared->reader_limit);
	for (uint32 i = 0; i < limit; i++)
	{
		WeirReaderShmem *reader = &weir_shared->readers[i];

		if (pg_atomic_read_u32(&weir_shared->reader_databases[i]) != database ||
			pg_atomic_read_u32(&reader->sleeping) == 0)
			continue;
		/* Of many that commit at once, one wakes it. */
		if (pg_atomic_exchange_u32(&reader->sleeping, 0) == 1)
			SetLatch(reader->latch);
	}
}

XLogRecPtr
weir_last_commit_lsn(Oid database)
{
	int			index = weir_shmem_find_database(database);

	return index < 0 ? InvalidXLogRecPtr :
		pg_atomic_read_u64(&weir_shared->databases[index].last_commit_lsn);
}

void
weir_fresh_publish(TimestampTz at)
{
	int			index = weir_shmem_find_database(MyDatabaseId);

	/* Never backwards: commits of other sessions are not in the order of their times. */
	if (index >= 0)
		advance_to(&weir_shared->databases[index].fresh_at, at);
}

TimestampTz
weir_fresh_at(Oid database)
{
	int			index = weir_shmem_find_database(database);
	WeirDatabaseShmem *entry;
	WeirReaderShmem *reader;
	XLogRecPtr	newest;
	uint64		fresh_at;

	if (index < 0)
		return 0;
	entry = &weir_shared->databases[index];
	reader = weir_main_reader_find(database);
	newest = pg_atomic_read_u64(&entry->last_commit_lsn);
	if (reader != NULL && !XLogRecPtrIsInvalid(newest) && pg_atomic_read_u64(&reader->scanned_lsn) >= newest)
		return GetCurrentTimestamp();
	fresh_at = pg_atomic_read_u64(&entry->fresh_at);
	return (TimestampTz) (fresh_at != 0 ? fresh_at : pg_atomic_read_u64(&entry->watched_since));
}

void
weir_builds_give_way(bool give_way)
{
	int			index = weir_shmem_find_database(MyDatabaseId);

	if (index >= 0)
		pg_atomic_write_u32(&weir_shared->databases[index].builds_give_way, give_way ? 1 : 0);
}

bool
weir_builds_are_to_give_way(void)
{
	int			index = weir_shmem_find_database(MyDatabaseId);

	return index >= 0 && pg_atomic_read_u32(&weir_shared->databases[index].builds_give_way) != 0;
}
