/*
 * worker_loop.c - what launcher, coordinator and readers have in common:
 * start, signals, pinned settings, transactions, waiting.
 *
 * Signals: SIGTERM ends the process at the next check for interrupts, also
 * while it waits for a lock; SIGINT and SIGUSR1 keep the server's handlers,
 * without which lock_timeout and DROP DATABASE of other databases would hang;
 * SIGHUP reloads the settings between transactions.
 *
 * Nothing here is on disk.  A worker that is killed leaves the server
 * restarting; one that fails exits with 1 and is started again by its parent.
 */
#include "weir.h"
#include "worker/worker_loop.h"

#include <signal.h>

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/origin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "weir_compat.h"
#include "weir_shmem_layout.h"
#include "worker/wakeup.h"

MemoryContext WeirWorkerContext = NULL;

static char worker_activity[NAMEDATALEN];
/* Statistics of the last transactions are held back by the server's rate limit. */
static bool has_unreported_statistics = false;

/* bgw_main_arg holds the database, bgw_extra this. */
typedef struct WorkerExtra
{
	int64		id;
} WorkerExtra;

/*
 * Settings that change what a query returns, how long it may take or what a
 * commit means.  They are pinned above anything that ALTER ROLE or ALTER
 * DATABASE may say, in the spelling that the server shows.
 */
static const struct
{
	const char *name;
	const char *value;
}			pinned_settings[] =
{
	/* what text means and looks like */
	{"search_path", "pg_catalog, pg_temp"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"standard_conforming_strings", "on"},
	{"quote_all_identifiers", "off"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	/* transactions */
	{"synchronous_commit", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	{"row_security", "off"},
	/* time: workers bound their own */
	{"statement_timeout", "0"},
	{"transaction_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	/* plans and places */
	{"jit", "off"},
	{"max_parallel_workers_per_gather", "0"},
	{"max_parallel_maintenance_workers", "0"},
	{"plan_cache_mode", "auto"},
	{"default_table_access_method", "heap"},
	{"default_tablespace", ""},
	{"temp_tablespaces", ""},
};

static const char *lock_timeout = "0";

/* Comparing is much cheaper than setting. */
static void
pin(const char *name, const char *value)
{
	const char *present = GetConfigOption(name, true, false);

	/* NULL: this server has no such setting. */
	if (present != NULL && strcmp(present, value) != 0)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_SESSION);
}

/* Also before each transaction: a function called in an operator may have set one for the session. */
static void
pin_settings(void)
{
	for (int i = 0; i < lengthof(pinned_settings); i++)
		pin(pinned_settings[i].name, pinned_settings[i].value);
	pin("lock_timeout", lock_timeout);
}

void
weir_worker_limit_lock_waits(const char *timeout)
{
	lock_timeout = timeout;
}

static void
set_up_signals(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGUSR1, procsignal_sigusr1_handler);
	BackgroundWorkerUnblockSignals();
}

void
weir_worker_start(Oid database, const char *activity)
{
	set_up_signals();
	if (IsBinaryUpgrade)
		proc_exit(0);

	/* Blocked: a statement needs the database empty; whoever started us tries again. */
	if (OidIsValid(database) && !weir_worker_attach(database))
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	WeirWorkerContext = AllocSetContextCreate(TopMemoryContext, "pg_weir worker",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(WeirWorkerContext);

	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	pin_settings();

	/*
	 * Own writes are no input of any stream.  The id that is never replicated
	 * needs no origin slot and, unlike a real one, can be used by several
	 * processes.
	 */
	replorigin_session_origin = DoNotReplicateId;
	weir_wakeup_ignore_own_commits();

	strlcpy(worker_activity, activity, sizeof(worker_activity));
	pgstat_report_activity(STATE_IDLE, worker_activity);
}

void
weir_worker_check_interrupts(void)
{
	bool		in_transaction = IsTransactionState();

	/*
	 * Between transactions nothing is interrupted, so the end is not an error
	 * worth a FATAL in the log at every shutdown.  Static workers exit with 1,
	 * because 0 would mean: never again.
	 */
	if (ProcDiePending && !in_transaction && InterruptHoldoffCount == 0)
		proc_exit(MyBgworkerEntry->bgw_restart_time == BGW_NEVER_RESTART ? 0 : 1);
	/* A cancel without a statement to cancel would be an error that ends the worker. */
	if (!in_transaction)
		QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();

	if (ConfigReloadPending && !in_transaction)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * Statistics are sent at most once a second, as by sessions.  What the last
 * transactions before a pause left over goes out when the worker is idle, or
 * autovacuum would not learn of the last changes to state tables.
 */
static void
report_statistics(bool is_idle)
{
	has_unreported_statistics = pgstat_report_stat(is_idle) != 0;
}

void
weir_worker_wait(long timeout_ms)
{
	static uint32 wait_event = 0;
	int			events;

	weir_worker_check_interrupts();
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					   weir_compat_wait_event("WeirWorkerWait", &wait_event));
	ResetLatch(MyLatch);
	weir_worker_check_interrupts();
	if ((events & WL_TIMEOUT) && has_unreported_statistics && !IsTransactionState())
		report_statistics(true);
}

void
weir_worker_begin(void)
{
	Assert(!IsTransactionState());
	pin_settings();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, worker_activity);
}

void
weir_worker_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	report_statistics(false);
	pgstat_report_activity(STATE_IDLE, worker_activity);
	MemoryContextSwitchTo(WeirWorkerContext);
}

/* "weir_reader_main" -> "pg_weir reader", as the type shown in pg_stat_activity. */
static void
set_type(BackgroundWorker *worker, const char *function)
{
	char		role[BGW_MAXLEN];
	char	   *suffix;

	strlcpy(role, function + strlen("weir_"), sizeof(role));
	suffix = strstr(role, "_main");
	if (suffix != NULL)
		*suffix = '\0';
	snprintf(worker->bgw_type, BGW_MAXLEN, "pg_weir %s", role);
}

bool
weir_worker_register(const char *name, const char *function, Oid database, int64 id,
					 BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	WorkerExtra extra = {id};

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_weir", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, name, sizeof(worker.bgw_name));
	set_type(&worker, function);
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	StaticAssertStmt(sizeof(extra) <= BGW_EXTRALEN, "arguments of a worker fit");
	memcpy(worker.bgw_extra, &extra, sizeof(extra));
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

void
weir_worker_arguments(Oid *database, int64 *id)
{
	WorkerExtra extra;

	memcpy(&extra, MyBgworkerEntry->bgw_extra, sizeof(extra));
	*database = DatumGetObjectId(MyBgworkerEntry->bgw_main_arg);
	*id = extra.id;
}
