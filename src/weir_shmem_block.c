/*
 * weir_shmem_block.c - keeping workers out of a database while a statement
 * needs it empty (DROP DATABASE, RENAME, SET TABLESPACE, TEMPLATE).
 *
 * A worker enters its database in the table of workers before it connects,
 * and looks for a block under the same lock: so either the worker sees the
 * block and leaves, or the blocking statement sees the worker and ends it.
 * There is no moment at which neither sees the other.
 *
 * A block belongs to a backend and ends with it at the latest.
 */
#include "weir.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "weir_compat.h"

/* How often the end of signalled workers is checked, and after how many checks they are signalled again. */
#define TERMINATE_POLL_MS 5
#define TERMINATE_POLLS_PER_SIGNAL 40

/* The lock must be held. */
static bool
is_blocked(Oid database)
{
	for (int i = 0; i < WEIR_MAX_BLOCKS; i++)
	{
		if (weir_shared->blocks[i].pid != 0 && weir_shared->blocks[i].database == database)
			return true;
	}
	return false;
}

/* Frees this process's entries; of all databases when database is InvalidOid. */
static void
forget_own_entries(WeirProcessShmem *entries, int nentries, Oid database)
{
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nentries; i++)
	{
		if (entries[i].pid == MyProcPid &&
			(!OidIsValid(database) || entries[i].database == database))
			entries[i].pid = 0;
	}
	LWLockRelease(weir_shared->lock);
}

/* The lock must be held. Takes a free entry for this process; false when full. */
static bool
claim_entry(WeirProcessShmem *entries, int nentries, Oid database)
{
	for (int i = 0; i < nentries; i++)
	{
		if (entries[i].pid == 0)
		{
			entries[i].pid = MyProcPid;
			entries[i].database = database;
			return true;
		}
	}
	return false;
}

static void
detach_worker(int code, Datum arg)
{
	forget_own_entries(weir_shared->workers, WEIR_MAX_WORKERS, InvalidOid);
}

bool
weir_worker_attach(Oid database)
{
	bool		attached;

	/*
	 * Registered before the connection is made, so called after it is gone:
	 * on_shmem_exit callbacks run in reverse order.
	 */
	on_shmem_exit(detach_worker, (Datum) 0);
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	attached = !is_blocked(database) &&
		claim_entry(weir_shared->workers, WEIR_MAX_WORKERS, database);
	LWLockRelease(weir_shared->lock);
	return attached;
}

bool
weir_database_blocked(Oid database)
{
	bool		blocked;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	blocked = is_blocked(database);
	LWLockRelease(weir_shared->lock);
	return blocked;
}

static void
release_blocks(int code, Datum arg)
{
	forget_own_entries(weir_shared->blocks, WEIR_MAX_BLOCKS, InvalidOid);
}

/* Blocking twice is the same as once. 53400 when too many backends block. */
void
weir_database_block(Oid database)
{
	static bool exit_registered = false;
	bool		blocked = false;

	if (!exit_registered)
	{
		on_shmem_exit(release_blocks, (Datum) 0);
		exit_registered = true;
	}

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_BLOCKS; i++)
		blocked |= weir_shared->blocks[i].pid == MyProcPid &&
			weir_shared->blocks[i].database == database;
	if (!blocked)
		blocked = claim_entry(weir_shared->blocks, WEIR_MAX_BLOCKS, database);
	LWLockRelease(weir_shared->lock);

	if (!blocked)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many statements that create, drop or change databases at once"),
				 errdetail("pg_weir keeps its workers out of at most %d databases.",
						   WEIR_MAX_BLOCKS)));
}

void
weir_database_unblock(Oid database)
{
	forget_own_entries(weir_shared->blocks, WEIR_MAX_BLOCKS, database);
}

/* Sends the signal (0: none) to the database's workers; true when there is one. */
static bool
signal_workers(Oid database, int signal_number)
{
	bool		found = false;

	/* A worker gives its entry back before it exits, so no PID is stale. */
	LWLockAcquire(weir_shared->lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_WORKERS; i++)
	{
		WeirProcessShmem *worker = &weir_shared->workers[i];

		if (worker->pid != 0 && worker->database == database && worker->pid != MyProcPid)
		{
			if (signal_number != 0)
				kill(worker->pid, signal_number);
			found = true;
		}
	}
	LWLockRelease(weir_shared->lock);
	return found;
}

bool
weir_signal_database_workers(Oid database)
{
	return signal_workers(database, SIGTERM);
}

/*
 * Ends the workers of the database and waits until they have left it, at most
 * timeout_ms; the statement that needs the database empty reports who is left.
 * The database should be blocked, or new workers come.
 */
void
weir_terminate_database_workers(Oid database, int timeout_ms)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	int			polls = 0;

	while (signal_workers(database, polls++ % TERMINATE_POLLS_PER_SIGNAL == 0 ? SIGTERM : 0) &&
		   GetCurrentTimestamp() < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TERMINATE_POLL_MS,
						 weir_compat_wait_event("WeirWorkersLeave", &wait_event));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
