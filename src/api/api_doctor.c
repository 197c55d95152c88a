/*
 * api_doctor.c - weir.doctor(): what keeps pg_weir from working on this server
 * or will, and the command that mends each of it.
 *
 * Runs in the calling session, reads settings, shared memory and the catalogs,
 * changes nothing.  Works without shared_preload_libraries too, because then it
 * is needed most.  Operators and their lag are not its business but that of
 * the views; a stream on which nothing can go on is.
 */
#include "weir.h"
#include "api/api_doctor.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_publication.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "catalog/catalog_query.h"
#include "source/source_local.h"
#include "weir_compat.h"
#include "weir_preload.h"
#include "weir_session.h"
#include "weir_shmem.h"

/* Coordinator, main reader, one catch-up reader; more only save waiting. */
#define WORKERS_NEEDED			3
/* After CREATE EXTENSION or a restart the coordinator needs a moment to start, and so does a reader. */
#define WORKER_STARTS_MS	2000
#define WORKER_POLL_MS		20

typedef struct Finding
{
	const char *severity;		/* error: does not work; warning: will fail some day */
	char	   *fact;			/* lower case, no full stop */
	char	   *detail;			/* sentences, or NULL */
	char	   *fix;			/* NULL only for "ok" */
	bool		needs_restart;
} Finding;

typedef struct Findings
{
	List	   *list;			/* of Finding */
} Findings;

static void
add(Findings *findings, const char *severity, bool needs_restart,
	char *fact, char *detail, char *fix)
{
	Finding    *finding = palloc(sizeof(Finding));

	finding->severity = severity;
	finding->fact = fact;
	finding->detail = detail;
	finding->fix = fix;
	finding->needs_restart = needs_restart;
	findings->list = lappend(findings->list, finding);
}

static void
check_preload(Findings *findings)
{
	if (!weir_shmem_available())
		add(findings, "error", true,
			pstrdup("pg_weir is not loaded via shared_preload_libraries"),
			weir_preload_detail(),
			weir_preload_command());
}

static void
check_wal_level(Findings *findings)
{
	if (wal_level < WAL_LEVEL_LOGICAL)
		add(findings, "error", true,
			psprintf("wal_level is %s", GetConfigOption("wal_level", false, false)),
			pstrdup("Changes can only be decoded from WAL that is written with logical."),
			pstrdup("ALTER SYSTEM SET wal_level = 'logical';"));
}

static int
count_free_slots(void)
{
	int			nfree = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		if (!ReplicationSlotCtl->replication_slots[i].in_use)
			nfree++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return nfree;
}

static void
check_slots(Findings *findings)
{
	int			nfree = count_free_slots();

	if (nfree > 1)
		return;
	add(findings, nfree == 0 ? "error" : "warning", true,
		psprintf("%d of %d replication slots are free", nfree, max_replication_slots),
		pstrdup("Each stream needs one, and each operator that is created or upgraded one more for a while."),
		psprintf("ALTER SYSTEM SET max_replication_slots = %d;", max_replication_slots + 10));
}

/*
 * How many workers this database could have: all but those that others hold
 * for long.  Parallel workers come and go; this database's own take turns.
 */
static int
count_workers_left(void)
{
	int			nleft = max_worker_processes;
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= nbackends; i++)
	{
		LocalPgBackendStatus *local = weir_compat_backend_status(i);
		PgBackendStatus *backend;
		const char *type;

		if (local == NULL)
			continue;
		backend = &local->backendStatus;
		if (backend->st_procpid == 0 || backend->st_backendType != B_BG_WORKER)
			continue;
		type = GetBackgroundWorkerTypeByPid(backend->st_procpid);
		if (type == NULL || strcmp(type, "parallel worker") == 0 ||
			(backend->st_databaseid == MyDatabaseId && strncmp(type, "pg_weir ", 8) == 0))
			continue;
		nleft--;
	}
	return Max(nleft, 0);
}

static void
check_workers(Findings *findings)
{
	int			nleft = count_workers_left();

	if (nleft >= WORKERS_NEEDED)
		return;
	add(findings, "error", true,
		psprintf("%d of %d background workers are left for this database",
				 nleft, max_worker_processes),
		pstrdup("It needs a coordinator, a reader of the stream, and one for an operator that is created or upgraded."),
		psprintf("ALTER SYSTEM SET max_worker_processes = %d;", max_worker_processes + 8));
}

/* pg_weir decodes with slots of the plugin pgoutput; an administrator may have forbidden it. */
static void
check_plugin(Findings *findings)
{
	const char *setting = GetConfigOption("output_plugin_libraries", true, false);
	List	   *libraries = NIL;
	ListCell   *lc;

	if (setting == NULL)
		return;					/* this minor release allows all */
	(void) SplitDirectoriesString(pstrdup(setting), ',', &libraries);
	foreach(lc, libraries)
	{
		if (strcmp(lfirst(lc), "pgoutput") == 0)
			return;
	}
	add(findings, "error", false,
		psprintf("output_plugin_libraries is \"%s\"", setting),
		pstrdup("pg_weir decodes with slots of the plugin pgoutput, which this does not allow."),
		pstrdup("ALTER SYSTEM RESET output_plugin_libraries; SELECT pg_reload_conf();"));
}

static bool
coordinator_runs(void)
{
	return weir_coordinator_pid(MyDatabaseId) != 0;
}

static bool
main_reader_runs(void)
{
	WeirReaderShmem *reader = weir_main_reader_find(MyDatabaseId);

	return reader != NULL && !XLogRecPtrIsInvalid(pg_atomic_read_u64(&reader->processed_lsn));
}

static bool
wait_for_worker(bool (*runs) (void))
{
	static uint32 wait_event = 0;

	for (int waited = 0; !runs(); waited += WORKER_POLL_MS)
	{
		if (waited >= WORKER_STARTS_MS)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 WORKER_POLL_MS,
						 weir_compat_wait_event("WeirWorkerStart", &wait_event));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* Why the launcher passes this database by; NULL if it does not. Sets the command that changes it. */
static char *
reason_without_coordinator(char **fix)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	const char *name = quote_identifier(get_database_name(MyDatabaseId));
	char	   *reason = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	if (((Form_pg_database) GETSTRUCT(tuple))->datistemplate)
	{
		reason = "No worker runs in a database that is a template.";
		*fix = psprintf("ALTER DATABASE %s IS_TEMPLATE false;", name);
	}
	else if (!((Form_pg_database) GETSTRUCT(tuple))->datallowconn)
	{
		reason = "No worker runs in a database that does not accept connections.";
		*fix = psprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true;", name);
	}
	ReleaseSysCache(tuple);
	return reason;
}

static void
check_processes(Findings *findings)
{
	char	   *reason;
	char	   *fix;

	if (!weir_shmem_available())
		return;
	if (RecoveryInProgress())
	{
		add(findings, "warning", false,
			pstrdup("this server is a standby"),
			pstrdup("The workers start when it is promoted."),
			pstrdup("-- nothing to do on a standby"));
		return;
	}
	if (weir_launcher_pid() == 0)
	{
		add(findings, "error", false,
			pstrdup("the launcher does not run"),
			pstrdup("It is started again by itself within seconds."),
			pstrdup("-- look for \"pg_weir launcher\" in the server log"));
		return;
	}
	reason = reason_without_coordinator(&fix);
	if (reason != NULL)
		add(findings, "error", false,
			pstrdup("the coordinator of this database does not run"), reason, fix);
	else if (!weir_extension_change_pending() && !wait_for_worker(coordinator_runs))
		add(findings, "error", false,
			pstrdup("the coordinator of this database does not run"),
			pstrdup("After a failure it is started again by itself within a minute."),
			pstrdup("-- look for \"pg_weir coordinator\" in the server log"));
}

/*
 * Below these minor releases the server has known races around logical slots
 * (WAL removed too early, positions moved back, commits missed in a first
 * snapshot).
 */
static void
check_minor_release(Findings *findings)
{
	static const int first_good[] = {150019, 160015, 170011, 180005};
	int			running = pg_strtoint32(GetConfigOption("server_version_num", false, false));

	for (int i = 0; i < lengthof(first_good); i++)
	{
		if (running / 10000 == first_good[i] / 10000 && running < first_good[i])
			add(findings, "warning", true,
				psprintf("the server is PostgreSQL %d.%d", running / 10000, running % 10000),
				psprintf("It has errors in logical decoding that are corrected in %d.%d.",
						 first_good[i] / 10000, first_good[i] % 10000),
				psprintf("-- install the newest minor release of PostgreSQL %d", running / 10000));
	}
}

static void
check_limits_on_slots(Findings *findings)
{
	const char *idle_timeout = GetConfigOption("idle_replication_slot_timeout", true, false);

	if (max_slot_wal_keep_size_mb >= 0)
		add(findings, "warning", false,
			psprintf("max_slot_wal_keep_size is %d MB", max_slot_wal_keep_size_mb),
			pstrdup("A stream that lags more loses its slot, and its operators must be rebuilt."),
			pstrdup("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();"));
	if (idle_timeout != NULL && strcmp(idle_timeout, "0") != 0)
		add(findings, "warning", false,
			psprintf("idle_replication_slot_timeout is %s",
					 GetConfigOptionByName("idle_replication_slot_timeout", NULL, false)),
			pstrdup("Operators that are paused or stopped for longer lose their slots and must be rebuilt."),
			pstrdup("ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"));
}

static void
check_publications(Findings *findings)
{
	ListCell   *lc;

	foreach(lc, GetAllTablesPublications())
	{
		const char *name = quote_identifier(get_publication_name(lfirst_oid(lc), false));

		add(findings, "warning", false,
			psprintf("publication %s is FOR ALL TABLES", name),
			pstrdup("Its subscribers are sent pg_weir's own tables, which they do not have, and stop."),
			psprintf("DROP PUBLICATION %s; CREATE PUBLICATION %s FOR TABLES IN SCHEMA public;", name, name));
	}
}

static void
check_lost_slots(Findings *findings)
{
	ListCell   *lc;

	foreach(lc, weir_slot_list(MyDatabaseId))
	{
		char	   *slot_name = lfirst(lc);
		XLogRecPtr	confirmed_flush;
		XLogRecPtr	restart_lsn;
		bool		is_invalidated = false;
		int			active_pid;

		if (weir_slot_exists(slot_name, &confirmed_flush, &restart_lsn, &is_invalidated,
							 &active_pid) && is_invalidated)
			add(findings, "error", false,
				psprintf("replication slot \"%s\" is lost", slot_name),
				pstrdup("The WAL that its operators need is gone, and they must be rebuilt."),
				pstrdup("SELECT weir.rebuild_operator(operator) FROM weir.operators WHERE status = 'lost';"));
	}
}

/* Versions that are built or catch up get nowhere without the main reader, to which they are handed over. */
static void
check_streams(Findings *findings)
{
	WeirCatalogScope scope;
	char	   *stream = NULL;
	char	   *waiting = NULL;
	bool		waits_for_others;
	WeirReaderShmem *reader;

	if (!weir_shmem_available() || RecoveryInProgress() || !coordinator_runs() || main_reader_runs())
		return;
	weir_catalog_enter(&scope);
	if (weir_query(NULL,
				   "SELECT s.name, string_agg(format('%s v%s', o.view_name, x.version), ', ' ORDER BY o.view_name, x.version) "
				   "FROM weir_internal.version_run x JOIN weir_internal.version v ON v.operator_id = x.operator_id AND v.version = x.version "
				   "JOIN weir_internal.operator o ON o.operator_id = x.operator_id JOIN weir_internal.stream s USING (stream_id) "
				   "WHERE x.status IN ('building', 'catching_up') AND NOT v.retired AND NOT o.dropped GROUP BY s.name", "") > 0)
	{
		stream = weir_result_text(0, 1);
		waiting = weir_result_text(0, 2);
	}
	weir_catalog_leave(&scope);
	if (stream == NULL || wait_for_worker(main_reader_runs))
		return;
	reader = weir_main_reader_find(MyDatabaseId);
	waits_for_others = reader != NULL && pg_atomic_read_u64(&reader->waiting_since) != 0;
	add(findings, "error", false,
		psprintf("stream \"%s\" has no running main reader", stream),
		psprintf("It is waited for by: %s.%s", waiting,
				 waits_for_others ? " Its slot is made when the transactions that are open have ended." : ""),
		waits_for_others ?
		pstrdup("SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;") :
		pstrdup("-- look for \"pg_weir reader\" in the server log"));
}

/* What create_operator and start_upgrade cannot do without. */
static void
check_requirements(Findings *findings)
{
	check_preload(findings);
	check_wal_level(findings);
	check_slots(findings);
	check_workers(findings);
	check_plugin(findings);
}

void
weir_require_ready(void)
{
	Findings	findings = {NIL};
	Finding    *first = NULL;
	StringInfoData details;
	StringInfoData fixes;
	bool		needs_restart = false;
	ListCell   *lc;

	check_requirements(&findings);
	initStringInfo(&details);
	initStringInfo(&fixes);
	foreach(lc, findings.list)
	{
		Finding    *finding = lfirst(lc);

		if (strcmp(finding->severity, "error") != 0)
			continue;
		if (first == NULL)
			first = finding;
		else
			appendStringInfo(&details, " Also: %s.", finding->fact);
		if (finding->detail != NULL)
			appendStringInfo(&details, " %s", finding->detail);
		appendStringInfo(&fixes, "%s%s", fixes.len > 0 ? " " : "", finding->fix);
		needs_restart |= finding->needs_restart;
	}
	if (first == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_internal("%s", first->fact),
			 details.len > 0 ? errdetail_internal("%s", details.data + 1) : 0,
			 needs_restart ? errhint("%s Then restart the server.", fixes.data) :
			 errhint("%s", fixes.data)));
}

PG_FUNCTION_INFO_V1(weir_doctor);

Datum
weir_doctor(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Findings	findings = {NIL};
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	check_requirements(&findings);
	check_processes(&findings);
	check_minor_release(&findings);
	check_limits_on_slots(&findings);
	check_publications(&findings);
	check_lost_slots(&findings);
	check_streams(&findings);
	if (findings.list == NIL)
		add(&findings, "ok", false, pstrdup("this server is set up for pg_weir"), NULL, NULL);

	foreach(lc, findings.list)
	{
		Finding    *finding = lfirst(lc);
		Datum		values[4] = {0};
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(finding->severity);
		values[1] = CStringGetTextDatum(finding->detail == NULL ? finding->fact :
										psprintf("%s. %s", finding->fact, finding->detail));
		nulls[2] = finding->fix == NULL;
		if (finding->fix != NULL)
			values[2] = CStringGetTextDatum(finding->fix);
		values[3] = BoolGetDatum(finding->needs_restart);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
