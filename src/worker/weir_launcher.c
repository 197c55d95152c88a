/*
 * weir_launcher.c - the static worker that starts one coordinator in each
 * database that has the extension.
 *
 * Whether a database has the extension can only be seen from inside, so a
 * coordinator is started in every database that accepts connections, a few at
 * a time; one that finds nothing says so and ends, and is not started again
 * before a CREATE EXTENSION commits there.  A coordinator that ends otherwise
 * is started again, later each time.
 *
 * Runs without a database, hence reads only pg_database.  What it knows is in
 * its own memory: a new launcher finds the running coordinators in shared
 * memory and looks at all other databases again.
 *
 * It starts no readers; that is the coordinators' business.
 */
#include "weir.h"
#include "weir_guc.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "worker/weir_launcher.h"
#include "worker/worker_loop.h"

/* pg_database is read at least this often: not every way to change it is noticed. */
#define LIST_INTERVAL_MS		60000
#define MAX_RESTART_DELAY_MS	60000
/* A coordinator that ran this long had not failed at its start. */
#define HEALTHY_MS				60000
/* So many workers at once are in the dark: started and not known to have the extension. */
#define MAX_STARTING			3
/* After this long one that is still in the dark no longer counts. */
#define STARTING_MS				10000
#define LAUNCHER_RESTART_SECONDS 2

typedef enum Condition
{
	IS_DUE = 0,					/* -> IS_RUNNING, at due_at */
	IS_RUNNING,					/* -> IS_DUE, LACKS_EXTENSION */
	LACKS_EXTENSION				/* -> IS_DUE when the database changed */
} Condition;

typedef struct LaunchedDatabase
{
	Oid			oid;			/* hash key */
	Condition	condition;
	bool		is_eligible;	/* in the last list */
	bool		look_again;		/* changed while a coordinator ran */
	BackgroundWorkerHandle *handle; /* NULL: it runs since before this launcher */
	TimestampTz started_at;
	TimestampTz due_at;
	int			delay_ms;		/* of the next restart; 0: none has failed */
} LaunchedDatabase;

static HTAB *databases = NULL;
/* Told in the log already. */
static bool lacks_worker_slot = false;

void
weir_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = LAUNCHER_RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "pg_weir", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "weir_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "pg_weir launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "pg_weir launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static LaunchedDatabase *
find_or_add_database(Oid oid)
{
	bool		found;
	LaunchedDatabase *database = hash_search(databases, &oid, HASH_ENTER, &found);

	if (!found)
		memset((char *) database + sizeof(Oid), 0, sizeof(LaunchedDatabase) - sizeof(Oid));
	return database;
}

static void
look_again_at(LaunchedDatabase *database)
{
	if (database->condition == IS_RUNNING)
		database->look_again = true;
	else
	{
		database->condition = IS_DUE;
		database->due_at = 0;
		database->delay_ms = 0;
	}
}

/* True when something changed since the last call. */
static bool
take_changes(void)
{
	Oid			oid;
	bool		any = false;

	while (weir_database_take_change(&oid))
	{
		HASH_SEQ_STATUS scan;
		LaunchedDatabase *database;

		any = true;
		if (OidIsValid(oid))
		{
			look_again_at(find_or_add_database(oid));
			continue;
		}
		hash_seq_init(&scan, databases);
		while ((database = hash_seq_search(&scan)) != NULL)
			look_again_at(database);
	}
	return any;
}

/* Marks every database of the server in which workers may run. */
static void
mark_eligible(void)
{
	Relation	catalog;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	catalog = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(catalog, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);

		if (row->datallowconn && !row->datistemplate && !database_is_invalid_form(row))
			find_or_add_database(row->oid)->is_eligible = true;
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(WeirWorkerContext);
}

/* Forgets databases that are gone and ends workers where they may run no longer. */
static void
list_databases(void)
{
	HASH_SEQ_STATUS scan;
	LaunchedDatabase *database;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
		database->is_eligible = false;
	mark_eligible();

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (database->is_eligible)
			continue;
		if (database->condition == IS_RUNNING)
			(void) weir_signal_database_workers(database->oid);
		else
			(void) hash_search(databases, &database->oid, HASH_REMOVE, NULL);
	}
}

static bool
is_running(LaunchedDatabase *database)
{
	pid_t		pid;

	if (database->handle == NULL)
		return weir_coordinator_pid(database->oid) != 0;
	return GetBackgroundWorkerPid(database->handle, &pid) != BGWH_STOPPED;
}

static void
coordinator_ended(LaunchedDatabase *database, TimestampTz now)
{
	bool		is_absent = weir_database_take_absent(database->oid);

	if (database->handle != NULL)
		pfree(database->handle);
	database->handle = NULL;
	database->condition = IS_DUE;
	/* Before the change it may have looked in vain, or been ended on purpose. */
	if (is_absent || database->look_again)
	{
		if (!database->look_again)
			database->condition = LACKS_EXTENSION;
		database->due_at = now;
		database->delay_ms = 0;
	}
	else
	{
		if (TimestampDifferenceExceeds(database->started_at, now, HEALTHY_MS))
			database->delay_ms = 0;
		database->delay_ms = database->delay_ms == 0 ? weir_guc_restart_delay_ms :
			Min(database->delay_ms * 2, MAX_RESTART_DELAY_MS);
		database->due_at = TimestampTzPlusMilliseconds(now, database->delay_ms);
		elog(DEBUG1, "coordinator of database %u ended, starts again in %d ms",
			 database->oid, database->delay_ms);
	}
	database->look_again = false;
}

/* Started, and not known yet to have found the extension. */
static bool
is_starting(LaunchedDatabase *database, TimestampTz now)
{
	return database->condition == IS_RUNNING && database->handle != NULL &&
		!TimestampDifferenceExceeds(database->started_at, now, STARTING_MS) &&
		weir_coordinator_pid(database->oid) == 0;
}

static void
start_coordinator(LaunchedDatabase *database, TimestampTz now)
{
	char		name[BGW_MAXLEN];
	bool		is_registered;

	database->started_at = now;
	if (weir_coordinator_pid(database->oid) != 0)
	{
		database->condition = IS_RUNNING;
		return;
	}

	/* What an earlier one said is about an earlier time. */
	(void) weir_database_take_absent(database->oid);
	snprintf(name, sizeof(name), "pg_weir coordinator of database %u", database->oid);
	is_registered = weir_worker_register(name, "weir_coordinator_main", database->oid, 0,
										 &database->handle);
	if (is_registered)
		database->condition = IS_RUNNING;
	else
	{
		database->handle = NULL;
		database->due_at = TimestampTzPlusMilliseconds(now, weir_guc_restart_delay_ms);
		if (!lacks_worker_slot)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no background worker is free for the coordinator of database %u",
							database->oid),
					 errdetail("max_worker_processes is %d.", max_worker_processes),
					 errhint("ALTER SYSTEM SET max_worker_processes = %d; Then restart the server.",
							 max_worker_processes + 8)));
	}
	lacks_worker_slot = !is_registered;
}

/* Starts what is due, a few at a time; returns when to look again at the latest. */
static TimestampTz
start_due(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	LaunchedDatabase *database;
	int			nstarting = 0;
	TimestampTz next = TimestampTzPlusMilliseconds(now, LIST_INTERVAL_MS);

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (is_starting(database, now))
			nstarting++;
	}

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (database->condition != IS_DUE || !database->is_eligible ||
			weir_database_blocked(database->oid))
			continue;		/* the end of a block is told as a change */
		if (database->due_at <= now && nstarting < MAX_STARTING)
		{
			start_coordinator(database, now);
			nstarting += is_starting(database, now) ? 1 : 0;
		}
		if (database->condition == IS_DUE && database->due_at > now)
			next = Min(next, database->due_at);
	}
	/* Others wait for those: their attaching or ending wakes us, being slow does not. */
	if (nstarting >= MAX_STARTING)
		next = Min(next, TimestampTzPlusMilliseconds(now, STARTING_MS / 10));
	return next;
}

static void
notice_ended(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	LaunchedDatabase *database;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (database->condition == IS_RUNNING && !is_running(database))
			coordinator_ended(database, now);
	}
}

static void
leave(int code, Datum arg)
{
	weir_shmem_set_launcher(NULL);
}

static void
create_database_table(void)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(LaunchedDatabase);
	control.hcxt = WeirWorkerContext;
	databases = hash_create("pg_weir databases", 64, &control,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
weir_launcher_main(Datum arg)
{
	TimestampTz list_due = 0;

	weir_worker_start(InvalidOid, "pg_weir launcher");
	create_database_table();
	on_shmem_exit(leave, (Datum) 0);
	weir_shmem_set_launcher(MyLatch);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next;

		notice_ended(now);
		if (take_changes() || now >= list_due)
		{
			list_databases();
			list_due = TimestampTzPlusMilliseconds(now, LIST_INTERVAL_MS);
		}
		next = Min(start_due(now), list_due);
		weir_worker_wait(Max(TimestampDifferenceMilliseconds(now, next), 1));
	}
}
