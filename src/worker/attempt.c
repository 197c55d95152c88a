/*
 * attempt.c - the coordinator's work in pieces, each of which fails alone.
 *
 * Runs in the coordinator, outside of transactions; a piece is its own
 * transactions. What one operator's owner did (a view over a state table that
 * is to be dropped, a lock held for long) or lacks (a free slot) must not keep
 * the coordinator from its work for the others. Which pieces failed is known
 * to this process only: a new one tries all of them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "source/source_local.h"
#include "weir_guc.h"
#include "worker/attempt.h"
#include "worker/worker_loop.h"

#define LONGEST_DELAY_MS 60000
/* A failure that was not repeated for so long after its delay is forgotten: what it was about is gone. */
#define FORGET_MS 600000

typedef struct Failure
{
	WeirAttempt piece;
	int64		id;
	int			number;
	int64		delay_ms;
	TimestampTz next_try;
} Failure;

static List *failures = NIL;

static Failure *
find_failure(WeirAttempt piece, int64 id, int number)
{
	ListCell   *lc;

	foreach(lc, failures)
	{
		Failure    *failure = lfirst(lc);

		if (failure->piece == piece && failure->id == id && failure->number == number)
			return failure;
	}
	return NULL;
}

static void
forget(Failure *failure)
{
	failures = list_delete_ptr(failures, failure);
	pfree(failure);
}

static void
forget_old(TimestampTz now)
{
	ListCell   *lc;

	foreach(lc, failures)
	{
		Failure    *failure = lfirst(lc);

		if (!TimestampDifferenceExceeds(failure->next_try, now, FORGET_MS))
			continue;
		failures = foreach_delete_current(failures, lc);
		pfree(failure);
	}
}

static void
note_failure(WeirAttempt piece, int64 id, int number)
{
	TimestampTz now = GetCurrentTimestamp();
	Failure    *failure = find_failure(piece, id, number);
	MemoryContext old = MemoryContextSwitchTo(WeirWorkerContext);

	if (failure == NULL)
	{
		forget_old(now);
		failure = palloc0(sizeof(Failure));
		failure->piece = piece;
		failure->id = id;
		failure->number = number;
		failure->delay_ms = weir_guc_restart_delay_ms;
		failures = lappend(failures, failure);
	}
	else
		failure->delay_ms = Min(failure->delay_ms * 2, LONGEST_DELAY_MS);
	failure->next_try = TimestampTzPlusMilliseconds(now, failure->delay_ms);
	MemoryContextSwitchTo(old);
}

/* As after an error in a session: no transaction, no lock, no slot. */
static void
clean_up(void)
{
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	weir_slot_release();
}

bool
weir_attempt(WeirAttempt piece, void *argument, int64 id, int number)
{
	MemoryContext context = CurrentMemoryContext;
	Failure    *failure = find_failure(piece, id, number);
	volatile bool failed = false;
	volatile bool changed = false;

	if (failure != NULL && GetCurrentTimestamp() < failure->next_try)
		return false;
	/* Restored: the pieces after this one. */
	PG_TRY();
	{
		changed = piece(argument);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		clean_up();
		failed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (failed)
		note_failure(piece, id, number);
	else
	{
		/* Again: a piece that took long may have failed attempts of its own, which forget old ones. */
		failure = find_failure(piece, id, number);
		if (failure != NULL)
			forget(failure);
	}
	weir_worker_check_interrupts();
	return changed && !failed;
}
