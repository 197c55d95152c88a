/*
 * reader_pool.c - the coordinator's reader processes: start, pace, end.
 *
 * Runs in the coordinator. What should run is in the catalog; what runs is
 * asked of the postmaster. Nothing here survives the coordinator: a new one
 * finds readers of the former by shared memory and leaves them alone.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/reader_catalog.h"
#include "weir_guc.h"
#include "weir_shmem.h"
#include "worker/reader_pool.h"
#include "worker/worker_loop.h"

#define LONGEST_DELAY_MS 60000
/* A process that lived this long was healthy: the next failure counts from one. */
#define HEALTHY_MS 30000

typedef struct PoolEntry
{
	int64		reader_id;
	BackgroundWorkerHandle *handle; /* NULL: not started by this coordinator */
	TimestampTz started_at;
	TimestampTz next_start;
	int			failures;
} PoolEntry;

static List *pool = NIL;
static bool shortage_logged = false;

static PoolEntry *
find_entry(int64 reader_id, bool create)
{
	PoolEntry  *entry;
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, pool)
	{
		entry = lfirst(lc);
		if (entry->reader_id == reader_id)
			return entry;
	}
	if (!create)
		return NULL;
	old = MemoryContextSwitchTo(WeirWorkerContext);
	entry = palloc0(sizeof(PoolEntry));
	entry->reader_id = reader_id;
	pool = lappend(pool, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

static bool
handle_is_alive(PoolEntry *entry)
{
	pid_t		pid;

	if (entry->handle == NULL)
		return false;
	switch (GetBackgroundWorkerPid(entry->handle, &pid))
	{
		case BGWH_STARTED:
		case BGWH_NOT_YET_STARTED:
			return true;
		default:
			return false;
	}
}

bool
weir_reader_pool_is_running(int64 reader_id)
{
	PoolEntry  *entry = find_entry(reader_id, false);

	return weir_reader_find(MyDatabaseId, reader_id) != NULL ||
		(entry != NULL && handle_is_alive(entry));
}

/* Notices that a process ended and when it may come back. */
static void
note_end(PoolEntry *entry)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		delay = weir_guc_restart_delay_ms;

	if (TimestampDifferenceExceeds(entry->started_at, now, HEALTHY_MS))
		entry->failures = 0;
	for (int i = 0; i < entry->failures && delay < LONGEST_DELAY_MS; i++)
		delay *= 2;
	entry->failures++;
	entry->next_start = TimestampTzPlusMilliseconds(now, Min(delay, LONGEST_DELAY_MS));
	pfree(entry->handle);
	entry->handle = NULL;
}

static void
start_one(PoolEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(WeirWorkerContext);

	if (weir_worker_register(psprintf("pg_weir reader " INT64_FORMAT, entry->reader_id),
							 "weir_reader_main", MyDatabaseId, entry->reader_id, &entry->handle))
	{
		entry->started_at = GetCurrentTimestamp();
		shortage_logged = false;
	}
	else
	{
		entry->handle = NULL;
		entry->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000);
		if (!shortage_logged)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("reader " INT64_FORMAT " waits: no background worker is free", entry->reader_id),
					 errhint("ALTER SYSTEM SET max_worker_processes = %d; -- then restart the server",
							 max_worker_processes + 8)));
		shortage_logged = true;
	}
	MemoryContextSwitchTo(old);
}

/* Readers come and go for months. */
static void
forget_deleted(List *rows)
{
	ListCell   *lc;

	foreach(lc, pool)
	{
		PoolEntry  *entry = lfirst(lc);
		ListCell   *row;
		bool		exists = handle_is_alive(entry);

		foreach(row, rows)
			exists = exists || ((WeirReaderRow *) lfirst(row))->reader_id == entry->reader_id;
		if (exists)
			continue;
		if (entry->handle != NULL)
			pfree(entry->handle);
		pool = foreach_delete_current(pool, lc);
		pfree(entry);
	}
}

void
weir_reader_pool_start(List *rows)
{
	ListCell   *lc;

	forget_deleted(rows);
	foreach(lc, rows)
	{
		WeirReaderRow *row = lfirst(lc);
		PoolEntry  *entry;

		if (row->kind == WEIR_READER_STOPPED || row->status == WEIR_READER_ENDED || row->slot_pending)
			continue;
		if (weir_reader_find(MyDatabaseId, row->reader_id) != NULL)
			continue;
		entry = find_entry(row->reader_id, true);
		if (handle_is_alive(entry))
			continue;
		if (entry->handle != NULL)
			note_end(entry);
		if (GetCurrentTimestamp() >= entry->next_start)
			start_one(entry);
	}
}

void
weir_reader_pool_terminate(int64 reader_id)
{
	WeirReaderShmem *reader = weir_reader_find(MyDatabaseId, reader_id);
	PoolEntry  *entry = find_entry(reader_id, false);

	if (entry != NULL && handle_is_alive(entry))
		TerminateBackgroundWorker(entry->handle);
	else if (reader != NULL)
	{
		int			pid = reader->pid;

		/* 0 as soon as it has ended by itself, and that would mean us. */
		if (pid != 0)
			kill(pid, SIGTERM);
	}
}

void
weir_reader_pool_terminate_all(void)
{
	ListCell   *lc;

	foreach(lc, pool)
	{
		PoolEntry  *entry = lfirst(lc);

		if (handle_is_alive(entry))
		{
			TerminateBackgroundWorker(entry->handle);
			(void) WaitForBackgroundWorkerShutdown(entry->handle);
		}
	}
}
