/*
 * alerts.c - what needs a person is told, once for each change.
 *
 * Runs in the coordinator, as the last step of its turn, in a transaction of
 * its own that takes no lock which a reader waits for. A stop or a control call
 * wakes the coordinator; and an idle one looks at everything every two seconds
 * anyway, so that lag, which grows without anybody committing, is noticed
 * without a clock of its own. Nothing is written while nothing changes.
 *
 * The rows of weir_internal.alert say what was told. Killed before the commit:
 * nothing was, neither row nor notification; after it: both were.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "catalog/alert_catalog.h"
#include "weir_shmem.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

static void
log_changes(List *changes)
{
	ListCell   *lc;

	foreach(lc, changes)
	{
		const WeirAlertChange *change = lfirst(lc);

		ereport(LOG,
				(errmsg("alert %s of %s is %s", change->condition, change->subject,
						change->is_raised ? "raised" : "cleared"),
				 change->is_raised ? errhint("SELECT * FROM weir.alerts WHERE cleared_at IS NULL;") : 0));
	}
}

bool
weir_alerts_evaluate(void)
{
	weir_worker_begin();
	log_changes(weir_alert_update());
	weir_builds_give_way(weir_objective_needs_room());
	weir_worker_commit();
	return false;
}
