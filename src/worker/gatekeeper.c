/*
 * gatekeeper.c - what gates need that takes long: comparing two versions, and
 * the user's own queries.
 *
 * A dynamic background worker that the coordinator starts when a comparison is
 * due, one for each upgrade, and that ends with it. It compares in one
 * snapshot without any lock of ours, and records the outcome in a transaction
 * of its own under the operator's row lock, for which it does not wait. Killed
 * anywhere before that commit nothing was recorded, so a comparison is still
 * due and the coordinator starts another; two at once, after a restart of the
 * coordinator, do no harm.
 *
 * Types, and so their equality, may be the user's: whatever they do, it is not
 * the coordinator that waits for them. A comparison that nobody wants any more
 * is ended by the coordinator.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/snapmgr.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "catalog/gate_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "upgrade/comparison.h"
#include "upgrade/gate_judge.h"
#include "upgrade/gate_query.h"
#include "weir_errors.h"
#include "weir_guc.h"
#include "weir_shmem.h"
#include "worker/gatekeeper.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

#define LONGEST_DELAY_MS 60000
/* Beyond the limit of a query, for one that does not let itself be cancelled: then the process ends. */
#define GRACE_MS 5000
/* For the operator's lock, which another control call may have. */
#define RECORD_TRIES 100
#define RECORD_WAIT_MS 100

/* ---- the process */

/* In its own transaction; false when there is nothing to record. */
static bool
compare(int64 operator_id, WeirComparison *comparison)
{
	WeirUpgrade *upgrade;
	bool		compared;

	weir_worker_begin();
	upgrade = weir_upgrade_live(operator_id);
	compared = upgrade != NULL && weir_gates_want_comparison(upgrade) && weir_comparison_make(upgrade, comparison);
	weir_worker_commit();
	return compared;
}

/* True when there is nothing left to do. */
static bool
try_record(int64 operator_id, const WeirComparison *comparison)
{
	WeirUpgrade *upgrade;
	bool		locked;

	weir_worker_begin();
	locked = weir_operator_try_lock(operator_id);
	upgrade = locked ? weir_upgrade_live(operator_id) : NULL;
	if (upgrade != NULL && upgrade->upgrade_id == comparison->upgrade_id)
		weir_comparison_record(comparison);
	WEIR_CRASH_POINT("comparison-before-commit");
	weir_worker_commit();
	return locked;
}

static void
compare_and_record(int64 operator_id)
{
	WeirComparison comparison = {.context = CurrentMemoryContext};

	if (!compare(operator_id, &comparison))
		return;
	for (int i = 0; i < RECORD_TRIES && !try_record(operator_id, &comparison); i++)
		weir_worker_wait(RECORD_WAIT_MS);
}

/* Lives in WeirWorkerContext. */
typedef struct Questions
{
	int64		operator_id;
	int64		upgrade_id;
	Oid			owner;
	TimestampTz began_at;
	List	   *queries;
	List	   *answers;
	List	   *errors;
} Questions;

static bool
load_questions(Questions *questions)
{
	WeirUpgrade *upgrade;
	bool		wanted;

	weir_worker_begin();
	upgrade = weir_upgrade_live(questions->operator_id);
	wanted = upgrade != NULL && weir_gates_want_answers(upgrade);
	if (wanted)
	{
		ListCell   *lc;
		MemoryContext old;

		questions->upgrade_id = upgrade->upgrade_id;
		questions->owner = weir_relation_owner(weir_operator_by_id(questions->operator_id)->view);
		questions->began_at = GetCurrentTimestamp();
		old = MemoryContextSwitchTo(WeirWorkerContext);
		foreach(lc, upgrade->gate_queries)
		{
			questions->queries = lappend(questions->queries, pstrdup(lfirst(lc)));
			questions->answers = lappend(questions->answers, "null");
			questions->errors = lappend(questions->errors, "");
		}
		MemoryContextSwitchTo(old);
	}
	weir_worker_commit();
	return wanted && OidIsValid(questions->owner);
}

static bool
try_answer(const Questions *questions)
{
	WeirUpgrade *upgrade;
	bool		locked;

	weir_worker_begin();
	locked = weir_operator_try_lock(questions->operator_id);
	upgrade = locked ? weir_upgrade_live(questions->operator_id) : NULL;
	if (upgrade != NULL && upgrade->upgrade_id == questions->upgrade_id)
		weir_gate_set_answers(questions->upgrade_id, questions->answers, questions->errors, questions->began_at);
	weir_worker_commit();
	return locked;
}

static void
end_process(void)
{
	die(SIGTERM);
}

/* In a transaction of its own, which an error ends. */
static void
ask_one(Questions *questions, int index)
{
	const char *volatile answer = "null";
	const char *volatile error_text = "";

	enable_timeout_after(STATEMENT_TIMEOUT, WEIR_GATE_QUERY_MS);
	enable_timeout_after(USER_TIMEOUT, WEIR_GATE_QUERY_MS + GRACE_MS);
	/* Restored: the next query, which is to be asked all the same. */
	PG_TRY();
	{
		weir_worker_begin();
		answer = weir_gate_query_run(list_nth(questions->queries, index), questions->owner);
		weir_worker_commit();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(WeirWorkerContext);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		answer = "null";
		error_text = psprintf("%s: %s", unpack_sql_state(error->sqlerrcode), error->message);
	}
	PG_END_TRY();
	disable_all_timeouts(false);
	MemoryContextSwitchTo(WeirWorkerContext);
	list_nth_cell(questions->answers, index)->ptr_value = (void *) answer;
	list_nth_cell(questions->errors, index)->ptr_value = (void *) error_text;
}

static void
ask_and_record(int64 operator_id)
{
	Questions	questions = {.operator_id = operator_id};

	if (!load_questions(&questions))
		return;
	RegisterTimeout(USER_TIMEOUT, end_process);
	for (int i = 0; i < list_length(questions.queries); i++)
		ask_one(&questions, i);
	for (int i = 0; i < RECORD_TRIES && !try_answer(&questions); i++)
		weir_worker_wait(RECORD_WAIT_MS);
}

void
weir_gatekeeper_main(Datum arg)
{
	Oid			database;
	int64		operator_id;
	MemoryContext context;
	ErrorData  *volatile error = NULL;

	weir_worker_arguments(&database, &operator_id);
	weir_worker_start(database, "pg_weir gatekeeper");
	context = CurrentMemoryContext;
	/* Restored: the reason for the upgrade's end, which another comparison would only repeat. */
	PG_TRY();
	{
		compare_and_record(operator_id);
		ask_and_record(operator_id);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!weir_error_is_permanent(error->sqlerrcode))
			PG_RE_THROW();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (error != NULL)
		weir_reconcile_end_failed_upgrade(operator_id, (ErrorData *) error);
	weir_wake_coordinator(MyDatabaseId);
	proc_exit(0);
}

/* ---- the coordinator's side; nothing here survives it */

typedef struct Gatekeeper
{
	int64		operator_id;
	BackgroundWorkerHandle *handle; /* NULL: not started */
	TimestampTz next_start;
	int64		delay_ms;
	bool		is_wanted;		/* in this turn */
	bool		is_done;		/* it was not, at the end of one */
} Gatekeeper;

static List *gatekeepers = NIL;

static Gatekeeper *
find_or_add(int64 operator_id)
{
	MemoryContext old;
	Gatekeeper *keeper;
	ListCell   *lc;

	foreach(lc, gatekeepers)
	{
		keeper = lfirst(lc);
		if (keeper->operator_id == operator_id)
			return keeper;
	}
	old = MemoryContextSwitchTo(WeirWorkerContext);
	keeper = palloc0(sizeof(Gatekeeper));
	keeper->operator_id = operator_id;
	keeper->delay_ms = weir_guc_restart_delay_ms;
	gatekeepers = lappend(gatekeepers, keeper);
	MemoryContextSwitchTo(old);
	return keeper;
}

static bool
is_alive(const Gatekeeper *keeper)
{
	pid_t		pid;
	BgwHandleStatus status;

	if (keeper->handle == NULL)
		return false;
	status = GetBackgroundWorkerPid(keeper->handle, &pid);
	return status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED;
}

bool
weir_gatekeeper_want(int64 operator_id)
{
	Gatekeeper *keeper = find_or_add(operator_id);
	MemoryContext old;
	bool		started;

	keeper->is_wanted = true;
	if (is_alive(keeper))
		return true;
	if (keeper->handle != NULL)
	{
		/* It ended and was wanted all the time: it failed, or found the operator locked. */
		if (!keeper->is_done)
		{
			keeper->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), keeper->delay_ms);
			keeper->delay_ms = Min(keeper->delay_ms * 2, LONGEST_DELAY_MS);
		}
		pfree(keeper->handle);
		keeper->handle = NULL;
	}
	keeper->is_done = false;
	if (GetCurrentTimestamp() < keeper->next_start)
		return true;
	old = MemoryContextSwitchTo(WeirWorkerContext);
	started = weir_worker_register(psprintf("pg_weir gatekeeper " INT64_FORMAT, operator_id),
								   "weir_gatekeeper_main", MyDatabaseId, operator_id, &keeper->handle);
	MemoryContextSwitchTo(old);
	return started;
}

void
weir_gatekeepers_end_unwanted(void)
{
	ListCell   *lc;

	foreach(lc, gatekeepers)
	{
		Gatekeeper *keeper = lfirst(lc);

		if (keeper->is_wanted)
		{
			keeper->is_wanted = false;
			continue;
		}
		keeper->is_done = true;
		if (is_alive(keeper))
		{
			TerminateBackgroundWorker(keeper->handle);
			continue;
		}
		if (keeper->handle != NULL)
			pfree(keeper->handle);
		gatekeepers = foreach_delete_current(gatekeepers, lc);
		pfree(keeper);
	}
}
