/*
 * serving_guard.c - a version that is to serve is judged again when the
 * transaction that says so commits.
 *
 * Runs in the process that has shifted or rolled back, before its commit (or
 * PREPARE). A session may stay in that transaction for long, and a coordinator
 * may be slow. Readers see nothing of it and wait for nobody, so the version
 * can leave lockstep meanwhile; committed, the view would show older rows than
 * the other version has (I6).
 *
 * Takes no lock: a reader would have to wait for it as long as the commit
 * takes, for a synchronous standby for instance. So a version that stops
 * between this look and the commit, or after PREPARE, does serve; it has kept
 * its place (reader_stop.c) and stands like any serving version that stops.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "upgrade/serving_guard.h"

typedef struct Guarded
{
	int64		upgrade_id;
	int			version;
} Guarded;

/* Guarded * in TopTransactionContext; those of subtransactions that were rolled back find nothing. */
static List *guarded = NIL;

/* The result row of check_one becomes the error. */
static void
refuse(const Guarded *entry)
{
	char	   *status = weir_result_text(0, 2);
	XLogRecPtr	lsn = weir_result_lsn(0, 3);
	char	   *message = weir_result_text(0, 4);
	bool		is_rollback = weir_result_bool(0, 5);
	WeirOperator *operator = weir_operator_by_id(weir_result_int64(0, 1));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 is_rollback ?
			 errmsg("rollback of upgrade " INT64_FORMAT " of operator \"%s\" came too late",
					entry->upgrade_id, operator->view_name) :
			 errmsg("shift of upgrade " INT64_FORMAT " of operator \"%s\" came too late",
					entry->upgrade_id, operator->view_name),
			 errdetail("Since it began, version %d is %s at %X/%X: %s.", entry->version, status,
					   LSN_FORMAT_ARGS(lsn), message ? message : ""),
			 errhint("SELECT phase, reason, rollback_possible, rollback_obstacle FROM weir.upgrades WHERE upgrade_id = " INT64_FORMAT ";",
					 entry->upgrade_id)));
}

static void
check_one(const Guarded *entry)
{
	/* By the newest snapshot, whatever the transaction's isolation level is. */
	int			rc = SPI_execute_with_args("SELECT u.operator_id, r.status, r.error_lsn, r.message, u.phase = 'rolled_back' "
										   "FROM weir_internal.upgrade u "
										   "JOIN weir_internal.operator o ON o.operator_id = u.operator_id AND NOT o.dropped "
										   "JOIN weir_internal.serving s ON s.operator_id = u.operator_id "
										   "AND (s.version = $2 OR s.candidate = $2 AND s.split > 0) "
										   "JOIN weir_internal.version_run r ON r.operator_id = u.operator_id AND r.version = $2 "
										   "WHERE u.upgrade_id = $1 AND r.status <> 'live'",
										   2, (Oid[]) {INT8OID, INT4OID},
										   (Datum[]) {Int64GetDatum(entry->upgrade_id), Int32GetDatum(entry->version)},
										   NULL, true, 0);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not look at upgrade " INT64_FORMAT ": %s", entry->upgrade_id, SPI_result_code_string(rc));
	if (SPI_processed > 0)
		refuse(entry);
}

static void
check_all(void)
{
	WeirCatalogScope scope;
	ListCell   *lc;

	if (!weir_extension_installed())
		return;					/* dropped in this transaction */
	PushActiveSnapshot(GetLatestSnapshot());
	weir_catalog_enter(&scope);
	foreach(lc, guarded)
		check_one(lfirst(lc));
	weir_catalog_leave(&scope);
	PopActiveSnapshot();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (guarded != NIL)
				check_all();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			guarded = NIL;		/* its memory ends with the transaction */
			break;
		default:
			break;
	}
}

void
weir_serving_guard(int64 upgrade_id, int version)
{
	static bool registered = false;
	MemoryContext old;
	Guarded    *entry;

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
	old = MemoryContextSwitchTo(TopTransactionContext);
	entry = palloc(sizeof(Guarded));
	entry->upgrade_id = upgrade_id;
	entry->version = version;
	guarded = lappend(guarded, entry);
	MemoryContextSwitchTo(old);
}
