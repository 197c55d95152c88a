/*
 * rollback_guard.c - a rollback is judged again when its transaction commits.
 *
 * Runs in the process that has rolled back, before its commit (or PREPARE). A
 * session may stay in that transaction for long. Readers see nothing of it and
 * wait for nobody, so the old version can leave lockstep meanwhile; committed,
 * the rollback would show older rows than the new version has (I6).
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
#include "upgrade/rollback_guard.h"

/* int64 * in TopTransactionContext; those of subtransactions that were rolled back find nothing. */
static List *guarded = NIL;

static void
check_one(int64 upgrade_id)
{
	/* By the newest snapshot, whatever the transaction's isolation level is. */
	int			rc = SPI_execute_with_args("SELECT u.operator_id, r.version, r.status, r.error_lsn, r.message FROM weir_internal.upgrade u "
										   "JOIN weir_internal.operator o ON o.operator_id = u.operator_id AND NOT o.dropped "
										   "JOIN weir_internal.serving s ON s.operator_id = u.operator_id AND s.version = u.from_version "
										   "JOIN weir_internal.version_run r ON r.operator_id = u.operator_id AND r.version = u.from_version "
										   "WHERE u.upgrade_id = $1 AND u.phase = 'rolled_back' AND r.status <> 'live'",
										   1, (Oid[]) {INT8OID}, (Datum[]) {Int64GetDatum(upgrade_id)}, NULL, true, 0);
	int			version;
	char	   *status;
	char	   *message;
	XLogRecPtr	lsn;
	WeirOperator *operator;

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not look at upgrade " INT64_FORMAT ": %s", upgrade_id, SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return;
	version = weir_result_int(0, 2);
	status = weir_result_text(0, 3);
	lsn = weir_result_lsn(0, 4);
	message = weir_result_text(0, 5);
	operator = weir_operator_by_id(weir_result_int64(0, 1));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rollback of upgrade " INT64_FORMAT " of operator \"%s\" came too late",
					upgrade_id, operator->view_name),
			 errdetail("Since it was called, version %d is %s at %X/%X: %s.", version, status,
					   LSN_FORMAT_ARGS(lsn), message ? message : ""),
			 errhint("SELECT rollback_possible, rollback_obstacle FROM weir.upgrades WHERE upgrade_id = " INT64_FORMAT ";",
					 upgrade_id)));
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
		check_one(*(int64 *) lfirst(lc));
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
weir_rollback_guard(int64 upgrade_id)
{
	static bool registered = false;
	MemoryContext old;
	int64	   *entry;

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
	old = MemoryContextSwitchTo(TopTransactionContext);
	entry = palloc(sizeof(int64));
	*entry = upgrade_id;
	guarded = lappend(guarded, entry);
	MemoryContextSwitchTo(old);
}
