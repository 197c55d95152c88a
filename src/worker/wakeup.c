/*
 * wakeup.c - the commit callback: wakes the readers of the database when
 * something was committed, and its coordinator when a control call was.
 *
 * Runs in every process of the server that ends transactions, after the
 * transaction is visible to others.  It must not fail there and takes no lock
 * unless a control call asked for it.  A wake-up that gets lost with its
 * process costs the time until the slow poll.
 */
#include "weir.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"

#include "worker/wakeup.h"

static XLogRecPtr seen_commit_end = InvalidXLogRecPtr;
static bool wake_coordinator = false;
static bool ignore_own_commits = false;

void
weir_wake_coordinator_at_commit(void)
{
	wake_coordinator = true;
}

/*
 * A reader's commit carries no change that a reader wants; if it woke the
 * others, two readers would keep each other awake by recording their positions.
 */
void
weir_wakeup_ignore_own_commits(void)
{
	ignore_own_commits = true;
}

static void
report_commit(void)
{
	if (XactLastCommitEnd == seen_commit_end || ignore_own_commits)
		return;
	seen_commit_end = XactLastCommitEnd;
	weir_wake_readers_of_database(MyDatabaseId, seen_commit_end);
}

/*
 * A flag set in a subtransaction that was rolled back stays set: the
 * coordinator then looks once and finds nothing to do.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			report_commit();
			if (wake_coordinator && weir_shmem_available())
				weir_wake_coordinator(MyDatabaseId);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	wake_coordinator = false;
	weir_request_release_all();
}

void
weir_wakeup_install(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}
