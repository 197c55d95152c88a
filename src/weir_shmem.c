/*
 * weir_shmem.c - pg_weir's piece of shared memory: its life cycle, the
 * launcher, the databases with their coordinators, and the table of workers.
 *
 * Reserved and initialised by the postmaster, used by every process of the
 * server.  Readers are in weir_shmem_reader.c, waiting calls in
 * weir_request.c.
 *
 * Lock order: there is one lock, and nothing is allocated, logged or waited
 * for while it is held.  Entries are given back when their process exits:
 * those of workers after the process has left the ProcArray, because DROP
 * DATABASE counts the processes there and must not go on before.
 *
 * A crash of any process lets the postmaster throw all of this away; the
 * catalogs say everything that matters.
 */
#include "weir.h"
#include "weir_shmem.h"
#include "weir_batch_history.h"
#include "weir_shmem_layout.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "weir_compat.h"

#define TRANCHE_NAME "pg_weir"

WeirShared *weir_shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(WeirShared)));
	RequestAddinShmemSpace(weir_batch_history_size());
	/* The first is that of everything in WeirShared. */
	RequestNamedLWLockTranche(TRANCHE_NAME, 1 + WEIR_BATCH_RINGS);
}

static void
init_atomics(void)
{
	pg_atomic_init_u32(&weir_shared->reader_count, 0);
	pg_atomic_init_u32(&weir_shared->reader_limit, 0);
	pg_atomic_init_u32(&weir_shared->database_limit, 0);

	for (int i = 0; i < WEIR_MAX_DATABASES; i++)
	{
		pg_atomic_init_u32(&weir_shared->database_oids[i], InvalidOid);
		pg_atomic_init_u64(&weir_shared->databases[i].last_commit_lsn, 0);
		pg_atomic_init_u64(&weir_shared->databases[i].fresh_at, 0);
		pg_atomic_init_u64(&weir_shared->databases[i].watched_since, 0);
		pg_atomic_init_u32(&weir_shared->databases[i].builds_give_way, 0);
	}

	for (int i = 0; i < WEIR_MAX_READERS; i++)
	{
		WeirReaderShmem *reader = &weir_shared->readers[i];

		pg_atomic_init_u32(&weir_shared->reader_databases[i], InvalidOid);
		pg_atomic_init_u32(&reader->sleeping, 0);
		pg_atomic_init_u64(&reader->processed_lsn, 0);
		pg_atomic_init_u64(&reader->scanned_lsn, 0);
		pg_atomic_init_u64(&reader->hold_requested_by, 0);
		pg_atomic_init_u64(&reader->held_at, 0);
		pg_atomic_init_u32(&reader->pause_asked, 0);
		pg_atomic_init_u64(&reader->longest_hold_us, 0);
		pg_atomic_init_u64(&reader->waiting_since, 0);
		pg_atomic_init_u32(&reader->gives_way, 0);
	}
}

static void
startup_shmem(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	weir_shared = ShmemInitStruct("pg_weir", sizeof(WeirShared), &found);
	if (!found)
	{
		memset(weir_shared, 0, sizeof(WeirShared));
		init_atomics();
		weir_shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		/* Catalogs keep the ids of waiting calls: none may come again after a restart. */
		weir_shared->last_request_id = (uint64) GetCurrentTimestamp();
	}
	weir_batch_history_startup(GetNamedLWLockTranche(TRANCHE_NAME) + 1);
	LWLockRelease(AddinShmemInitLock);
}

void
weir_shmem_init_hooks(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

bool
weir_shmem_available(void)
{
	return weir_shared != NULL;
}

/* Launcher */

void
weir_shmem_set_launcher(Latch *latch)
{
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	/* On exit: a successor may have taken the place already. */
	if (latch != NULL || weir_shared->launcher_pid == MyProcPid)
	{
		weir_shared->launcher_latch = latch;
		weir_shared->launcher_pid = latch ? MyProcPid : 0;
	}
	LWLockRelease(weir_shared->lock);
}

int
weir_launcher_pid(void)
{
	int			pid;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	pid = weir_shared->launcher_pid;
	LWLockRelease(weir_shared->lock);
	return pid;
}

static void
set_latch_outside_lock(Latch *latch)
{
	if (latch != NULL)
		SetLatch(latch);
}

void
weir_wake_launcher(void)
{
	Latch	   *latch;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	latch = weir_shared->launcher_latch;
	LWLockRelease(weir_shared->lock);
	set_latch_outside_lock(latch);
}

void
weir_database_changed(Oid database)
{
	bool		known = false;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < weir_shared->nchanges; i++)
		known |= weir_shared->changes[i] == database;
	if (!known && weir_shared->nchanges < WEIR_MAX_CHANGES)
		weir_shared->changes[weir_shared->nchanges++] = database;
	else if (!known)
		weir_shared->changes_overflowed = true;
	LWLockRelease(weir_shared->lock);
	weir_wake_launcher();
}

/* InvalidOid in *database: too many changed to be remembered, look at all. */
bool
weir_database_take_change(Oid *database)
{
	bool		taken = true;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	if (weir_shared->nchanges > 0)
		*database = weir_shared->changes[--weir_shared->nchanges];
	else if (weir_shared->changes_overflowed)
	{
		*database = InvalidOid;
		weir_shared->changes_overflowed = false;
	}
	else
		taken = false;
	LWLockRelease(weir_shared->lock);
	return taken;
}

/*
 * The coordinator found no extension; the launcher asks once it has ended.
 * When the table is full the report is lost: it is then started once more.
 */
void
weir_database_report_absent(Oid database)
{
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_ABSENT; i++)
	{
		if (!OidIsValid(weir_shared->absent[i]) || weir_shared->absent[i] == database)
		{
			weir_shared->absent[i] = database;
			break;
		}
	}
	LWLockRelease(weir_shared->lock);
}

bool
weir_database_take_absent(Oid database)
{
	bool		found = false;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_ABSENT; i++)
	{
		if (weir_shared->absent[i] == database)
		{
			weir_shared->absent[i] = InvalidOid;
			found = true;
		}
	}
	LWLockRelease(weir_shared->lock);
	return found;
}

/* Databases and their coordinators */

int
weir_shmem_find_database(Oid database)
{
	uint32		limit = pg_atomic_read_u32(&weir_shared->database_limit);

	for (uint32 i = 0; i < limit; i++)
	{
		if (pg_atomic_read_u32(&weir_shared->database_oids[i]) == database)
			return (int) i;
	}
	return -1;
}

int
weir_shmem_claim_database(Oid database)
{
	int			index = weir_shmem_find_database(database);

	for (int i = 0; index < 0 && i < WEIR_MAX_DATABASES; i++)
	{
		WeirDatabaseShmem *entry = &weir_shared->databases[i];

		if (pg_atomic_read_u32(&weir_shared->database_oids[i]) != InvalidOid)
			continue;
		entry->coordinator_pid = 0;
		entry->coordinator_latch = NULL;
		entry->nreaders = 0;
		pg_atomic_write_u64(&entry->last_commit_lsn, 0);
		pg_atomic_write_u64(&entry->fresh_at, 0);
		pg_atomic_write_u64(&entry->watched_since, GetCurrentTimestamp());
		pg_atomic_write_u32(&entry->builds_give_way, 0);
		/* Backends find the entry by this OID without the lock. */
		pg_write_barrier();
		pg_atomic_write_u32(&weir_shared->database_oids[i], database);
		if (pg_atomic_read_u32(&weir_shared->database_limit) < i + 1)
			pg_atomic_write_u32(&weir_shared->database_limit, i + 1);
		index = i;
	}
	return index;
}

void
weir_shmem_drop_database_if_unused(int index)
{
	WeirDatabaseShmem *entry = &weir_shared->databases[index];

	if (entry->coordinator_pid == 0 && entry->nreaders == 0)
		pg_atomic_write_u32(&weir_shared->database_oids[index], InvalidOid);
}

static void
detach_coordinator(int code, Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	int			index;

	weir_request_fail_taken(database);
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	index = weir_shmem_find_database(database);
	if (index >= 0 && weir_shared->databases[index].coordinator_pid == MyProcPid)
	{
		weir_shared->databases[index].coordinator_pid = 0;
		weir_shared->databases[index].coordinator_latch = NULL;
		weir_shmem_drop_database_if_unused(index);
	}
	LWLockRelease(weir_shared->lock);
	weir_wake_launcher();
}

/*
 * Makes this process the coordinator of the database until it exits.  55006
 * when there is one already, 53400 when the server has too many.
 */
void
weir_coordinator_attach(Oid database, Latch *latch)
{
	int			index;
	int			other_pid = 0;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	index = weir_shmem_claim_database(database);
	if (index >= 0)
	{
		other_pid = weir_shared->databases[index].coordinator_pid;
		if (other_pid == 0)
		{
			weir_shared->databases[index].coordinator_pid = MyProcPid;
			weir_shared->databases[index].coordinator_latch = latch;
		}
	}
	LWLockRelease(weir_shared->lock);

	if (index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases with pg_weir on this server"),
				 errdetail("At most %d databases can have a running coordinator.",
						   WEIR_MAX_DATABASES)));
	if (other_pid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("database %u already has a coordinator with PID %d",
						database, other_pid)));

	on_shmem_exit(detach_coordinator, ObjectIdGetDatum(database));
	weir_wake_launcher();
}

void
weir_wake_coordinator(Oid database)
{
	Latch	   *latch = NULL;
	int			index;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	index = weir_shmem_find_database(database);
	if (index >= 0)
		latch = weir_shared->databases[index].coordinator_latch;
	LWLockRelease(weir_shared->lock);
	set_latch_outside_lock(latch);
}

int
weir_coordinator_pid(Oid database)
{
	int			pid = 0;
	int			index;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	index = weir_shmem_find_database(database);
	if (index >= 0)
		pid = weir_shared->databases[index].coordinator_pid;
	LWLockRelease(weir_shared->lock);
	return pid;
}
