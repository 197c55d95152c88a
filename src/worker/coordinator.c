/*
 * coordinator.c - one per database: reconciles what the catalogs say.
 *
 * A dynamic background worker, started by the launcher. Each turn looks at
 * everything anew: operators, versions, readers, upgrades, slots; what it
 * finds to do it does in short transactions. Nothing in memory is needed to go
 * on after a kill. It holds no slot, no snapshot and no lock between turns.
 *
 * Exits with 0 when the extension is not (or no longer) in the database, after
 * removing slots that were left; an error outside of the steps of a turn exits
 * with 1 and the launcher starts a new one, paced.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "catalog/catalog_query.h"
#include "catalog/reader_catalog.h"
#include "weir_shmem.h"
#include "worker/attempt.h"
#include "worker/reader_pool.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

/* Turns while something is under way, and otherwise (control calls wake it at commit). */
#define BUSY_WAIT_MS 200
#define IDLE_WAIT_MS 2000
#define READERS_LEAVE_MS 10000
/* Whoever holds a lock for longer delays what needs it, not everything else. */
#define LONGEST_LOCK_WAIT "2s"

static bool
extension_is_installed(void)
{
	bool		installed;

	weir_worker_begin();
	installed = weir_extension_installed();
	weir_worker_commit();
	return installed;
}

static void
start_readers(MemoryContext context)
{
	List	   *rows;

	weir_worker_begin();
	MemoryContextSwitchTo(context);
	rows = weir_reader_list();
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	weir_reader_pool_start(rows);
}

/* What a turn consists of, in this order; each is its own transactions and tells whether something changed. */
static bool (*const steps[]) (void) =
{
	weir_verifications_start,
	weir_verifications_abandon,
	weir_reconcile_operators,
	weir_reconcile_versions,
	weir_slots_copy_pending,
	weir_reconcile_paused,
	weir_reconcile_resumed,
	weir_reconcile_upgrades,
	weir_reconcile_retired,
	weir_state_rights_mend,
	weir_slots_drop_ended,
	weir_slots_bound_retained_wal,
	weir_reconcile_ledger,
	weir_alerts_evaluate,
};

/* Within most steps each operator's or reader's part is an attempt of its own. */
static bool
take_step(void *argument)
{
	return steps[*(int *) argument] ();
}

/* Everything once; true when it should be looked at again at once. */
static bool
turn(MemoryContext context)
{
	bool		changed;

	/* Not one of the steps: before anything that believes the rows. */
	MemoryContextSwitchTo(context);
	changed = weir_slots_fence_foreign();
	/* Above all, readers are started whatever else is wrong. */
	for (int i = 0; i < lengthof(steps); i++)
	{
		MemoryContextSwitchTo(context);
		changed |= weir_attempt(take_step, &i, i, 0);
	}
	start_readers(context);
	return changed;
}

/* The extension is gone: so are readers, of whichever coordinator, and slots. */
static void
leave(void)
{
	weir_reader_pool_terminate_all();
	weir_terminate_database_workers(MyDatabaseId, READERS_LEAVE_MS);
	if (!weir_slots_drop_all())
		proc_exit(1);			/* somebody has one: the next coordinator tries again */
	weir_database_report_absent(MyDatabaseId);
	proc_exit(0);
}

void
weir_coordinator_main(Datum arg)
{
	Oid			database;
	int64		unused;
	MemoryContext context;

	weir_worker_arguments(&database, &unused);
	weir_worker_start(database, "pg_weir coordinator");
	weir_worker_limit_lock_waits(LONGEST_LOCK_WAIT);
	if (!extension_is_installed())
		leave();
	weir_coordinator_attach(MyDatabaseId, MyLatch);
	context = AllocSetContextCreate(WeirWorkerContext, "weir coordinator turn", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		bool		again;

		weir_worker_check_interrupts();
		if (!extension_is_installed())
			leave();
		MemoryContextReset(context);
		again = turn(context);
		if (!again)
			weir_worker_wait(weir_reconcile_is_busy() ? BUSY_WAIT_MS : IDLE_WAIT_MS);
	}
}
