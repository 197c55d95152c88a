/*
 * weir_request.c - calls that wait for the coordinator (weir.verify): posted
 * in shared memory, because there is nothing to roll back and the coordinator
 * must see them before the caller commits.
 *
 * The caller posts, waits and releases; the coordinator takes, finishes or
 * fails.  An entry is freed by whoever is the last to need it: the waiter of a
 * finished request, the coordinator of a cancelled one.  When the caller's
 * transaction or process ends, its requests are released for it; when the
 * coordinator ends, what it had taken fails.
 */
#include "weir.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "weir_compat.h"

/* Requests that this backend has posted and not released. */
static int	nposted = 0;

/* The lock must be held. */
static WeirRequest *
find_request(uint64 request_id)
{
	for (int i = 0; i < WEIR_MAX_REQUESTS; i++)
	{
		WeirRequest *request = &weir_shared->requests[i];

		if (request->state != WEIR_REQUEST_FREE && request->request_id == request_id)
			return request;
	}
	return NULL;
}

/* The lock must be held. The waiter leaves. */
static void
leave_request(WeirRequest *request)
{
	if (request->state == WEIR_REQUEST_TAKEN)
		request->state = WEIR_REQUEST_CANCELLED;
	else if (request->state != WEIR_REQUEST_CANCELLED)
		request->state = WEIR_REQUEST_FREE;
	request->waiter_pid = 0;
	request->waiter = NULL;
}

void
weir_request_release_all(void)
{
	Oid			database = MyDatabaseId;

	if (nposted == 0)
		return;
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_REQUESTS; i++)
	{
		if (weir_shared->requests[i].state != WEIR_REQUEST_FREE &&
			weir_shared->requests[i].waiter_pid == MyProcPid)
			leave_request(&weir_shared->requests[i]);
	}
	LWLockRelease(weir_shared->lock);
	nposted = 0;
	weir_wake_coordinator(database);
}

static void
release_at_exit(int code, Datum arg)
{
	weir_request_release_all();
}

static WeirRequest *
fill_free_request(int64 operator_id)
{
	for (int i = 0; i < WEIR_MAX_REQUESTS; i++)
	{
		WeirRequest *request = &weir_shared->requests[i];

		if (request->state != WEIR_REQUEST_FREE)
			continue;
		memset(request, 0, sizeof(WeirRequest));
		request->request_id = ++weir_shared->last_request_id;
		request->database = MyDatabaseId;
		request->operator_id = operator_id;
		request->user_id = GetUserId();
		request->waiter = &MyProc->procLatch;
		request->waiter_pid = MyProcPid;
		request->state = WEIR_REQUEST_POSTED;
		return request;
	}
	return NULL;
}

WeirRequest *
weir_request_post(int64 operator_id)
{
	static bool exit_registered = false;
	WeirRequest *request;

	/* A FATAL error ends the process without ending its PG_TRY blocks. */
	if (!exit_registered)
	{
		before_shmem_exit(release_at_exit, (Datum) 0);
		exit_registered = true;
	}

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	request = fill_free_request(operator_id);
	LWLockRelease(weir_shared->lock);

	if (request == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many calls wait for a coordinator"),
				 errdetail("At most %d calls can wait at once.", WEIR_MAX_REQUESTS),
				 errhint("Call again when one of them has ended.")));
	nposted++;
	weir_wake_coordinator(MyDatabaseId);
	return request;
}

bool
weir_request_take(Oid database, WeirRequest *copy)
{
	WeirRequest *oldest = NULL;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WEIR_MAX_REQUESTS; i++)
	{
		WeirRequest *request = &weir_shared->requests[i];

		if (request->state == WEIR_REQUEST_POSTED && request->database == database &&
			(oldest == NULL || request->request_id < oldest->request_id))
			oldest = request;
	}
	if (oldest != NULL)
	{
		oldest->state = WEIR_REQUEST_TAKEN;
		*copy = *oldest;
	}
	LWLockRelease(weir_shared->lock);
	return oldest != NULL;
}

bool
weir_request_cancelled(uint64 request_id)
{
	WeirRequest *request;
	bool		cancelled;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	request = find_request(request_id);
	cancelled = request == NULL || request->state == WEIR_REQUEST_CANCELLED;
	LWLockRelease(weir_shared->lock);
	return cancelled;
}

/*
 * Ends a request that the coordinator has taken, with the outcome's fields;
 * frees it when nobody waits any more.
 */
static void
end_request(uint64 request_id, const WeirRequest *outcome)
{
	WeirRequest *request;
	Latch	   *waiter = NULL;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	request = find_request(request_id);
	if (request != NULL && request->state == WEIR_REQUEST_CANCELLED)
		request->state = WEIR_REQUEST_FREE;
	else if (request != NULL && request->state == WEIR_REQUEST_TAKEN)
	{
		request->missing = outcome->missing;
		request->extra = outcome->extra;
		request->checked_lsn = outcome->checked_lsn;
		request->sqlerrcode = outcome->sqlerrcode;
		memcpy(request->message, outcome->message, sizeof(request->message));
		memcpy(request->hint, outcome->hint, sizeof(request->hint));
		request->state = outcome->state;
		waiter = request->waiter;
	}
	LWLockRelease(weir_shared->lock);
	if (waiter != NULL)
		SetLatch(waiter);
}

void
weir_request_finish(uint64 request_id, int64 missing, int64 extra, XLogRecPtr checked_lsn)
{
	WeirRequest outcome;

	memset(&outcome, 0, sizeof(outcome));
	outcome.state = WEIR_REQUEST_DONE;
	outcome.missing = missing;
	outcome.extra = extra;
	outcome.checked_lsn = checked_lsn;
	end_request(request_id, &outcome);
}

void
weir_request_fail(uint64 request_id, int sqlerrcode, const char *message, const char *hint)
{
	WeirRequest outcome;

	memset(&outcome, 0, sizeof(outcome));
	outcome.state = WEIR_REQUEST_FAILED;
	outcome.sqlerrcode = sqlerrcode;
	strlcpy(outcome.message, message, sizeof(outcome.message));
	if (hint != NULL)
		strlcpy(outcome.hint, hint, sizeof(outcome.hint));
	end_request(request_id, &outcome);
}

void
weir_request_fail_taken(Oid database)
{
	uint64		taken[WEIR_MAX_REQUESTS];
	int			ntaken = 0;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	for (int i = 0; i < WEIR_MAX_REQUESTS; i++)
	{
		WeirRequest *request = &weir_shared->requests[i];

		if (request->database == database &&
			(request->state == WEIR_REQUEST_TAKEN || request->state == WEIR_REQUEST_CANCELLED))
			taken[ntaken++] = request->request_id;
	}
	LWLockRelease(weir_shared->lock);

	for (int i = 0; i < ntaken; i++)
		weir_request_fail(taken[i], ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						  "the coordinator of this database ended before the call was served",
						  "Call again; the coordinator starts again by itself.");
}

bool
weir_request_wait(WeirRequest *request, long timeout_ms, WeirRequest *outcome)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	for (;;)
	{
		bool		ended;
		long		left;

		LWLockAcquire(weir_shared->lock, LW_SHARED);
		ended = request->state == WEIR_REQUEST_DONE || request->state == WEIR_REQUEST_FAILED;
		if (ended)
			*outcome = *request;
		LWLockRelease(weir_shared->lock);
		if (ended)
			return true;

		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, weir_compat_wait_event("WeirRequest", &wait_event));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Safe to call after the transaction's end has released the request already. */
void
weir_request_release(WeirRequest *request)
{
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	if (request->state != WEIR_REQUEST_FREE && request->waiter_pid == MyProcPid)
	{
		leave_request(request);
		nposted--;
	}
	LWLockRelease(weir_shared->lock);
	weir_wake_coordinator(MyDatabaseId);
}
