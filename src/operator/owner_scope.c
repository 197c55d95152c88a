/*
 * owner_scope.c - the rights with which a definition's expressions run.
 *
 * The only place that switches rights.  Workers run as the bootstrap user, and
 * every operator, cast and function in a definition is its owner's choice: so
 * they run as the owner under restricted operation, and settings that they
 * change end with the scope.
 *
 * Advisory locks that they take in a worker, which serves many owners, end with
 * the transaction: those of the session would stay for as long as it lives. Not
 * with each scope, because letting go looks at every lock of the process. A
 * session's own locks are its own.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "operator/owner_scope.h"
#include "storage/lock.h"
#include "utils/float.h"
#include "utils/guc.h"

#define SAFE_SEARCH_PATH	"pg_catalog, pg_temp"

static void
pin(const char *name, const char *value)
{
	set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
weir_owner_scope_drop_locks(void)
{
	LockReleaseAll(USER_LOCKMETHOD, true);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		weir_owner_scope_drop_locks();
}

static void
watch_transactions(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
}

void
weir_owner_scope_enter(WeirOwnerScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_nest_level = NewGUCNestLevel();
	if (MyBackendType == B_BG_WORKER)
		watch_transactions();

	/* Usually right already; setting the path again would throw away core's cache of it. */
	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) != 0)
		pin("search_path", SAFE_SEARCH_PATH);
	/* Sums of floats add the shortest exact texts, which less than 1 would cut. */
	if (extra_float_digits != 1)
		pin("extra_float_digits", "1");
}

void
weir_owner_scope_leave(WeirOwnerScope *scope)
{
	AtEOXact_GUC(false, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
}

static bool
holds_advisory_locks(void)
{
	LockData   *locks = GetLockStatusData();

	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *lock = &locks->locks[i];

		if (lock->pid == MyProcPid && lock->locktag.locktag_lockmethodid == USER_LOCKMETHOD)
			return true;
	}
	return false;
}

void
weir_owner_scope_blame(ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_OUT_OF_MEMORY && holds_advisory_locks())
	{
		error->sqlerrcode = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		error->hint = "Functions of a definition must not take advisory locks.";
	}
	weir_owner_scope_drop_locks();
}
