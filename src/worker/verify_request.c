/*
 * verify_request.c - weir.verify, as the coordinator sees it.
 *
 * The waiting call's request comes through shared memory. The coordinator
 * makes a throwaway version of the serving definition, which is then built and
 * caught up like any other and compared by its reader (verification.c). After
 * a restart no call waits any more: leftover throwaways are retired.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "catalog/version_catalog.h"
#include "operator/loaded_version.h"
#include "operator/version_create.h"
#include "weir_shmem.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

/*
 * Throwaways are numbered below zero, so they never meet a version that users
 * see, nor one that a crash has left and nobody has removed yet.
 */
static int
throwaway_number(int64 operator_id)
{
	weir_query(NULL, "SELECT least(min(version), 0) - 1 FROM weir_internal.version WHERE operator_id = $1",
			   "l", operator_id);
	return weir_result_int(0, 1);
}

static void
create_throwaway(const WeirRequest *request)
{
	WeirOperator *operator = weir_operator_by_id(request->operator_id);
	WeirVersion *serving = operator ? weir_version_get(request->operator_id, operator->serving_version) : NULL;
	WeirVersionRequest throwaway = {
		.operator_id = request->operator_id,
		.is_verification = true,
		.strategy = "backfill",
	};

	/* It was when the call looked. */
	if (serving == NULL || serving->retired ||
		weir_version_run_get(request->operator_id, serving->version).status != WEIR_RUN_LIVE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("it is not live any more"),
				 errhint("SELECT * FROM weir.operators;")));
	throwaway.operator_name = operator->view_name;
	throwaway.owner = weir_relation_owner(operator->view);
	throwaway.version = throwaway_number(request->operator_id);
	throwaway.build_from = serving->version;
	throwaway.text = serving->definition;
	throwaway.query = weir_version_query(serving->definition_view);
	throwaway.definition = weir_version_definition(serving);
	(void) weir_version_create(&throwaway);
	weir_version_set_request(request->operator_id, throwaway.version, request->request_id);
}

bool
weir_verifications_start(void)
{
	WeirRequest request;
	MemoryContext context = CurrentMemoryContext;
	volatile bool started = false;

	while (weir_request_take(MyDatabaseId, &request))
	{
		ErrorData  *volatile error = NULL;

		/* Restored: the waiting call, which is told instead of timing out. */
		PG_TRY();
		{
			weir_worker_begin();
			create_throwaway(&request);
			weir_worker_commit();
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
			AbortCurrentTransaction();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		if (error != NULL)
			weir_request_fail(request.request_id, error->sqlerrcode, error->message, error->hint);
		else
			started = true;
	}
	return started;
}

/* What the reader of a throwaway recorded when it could not go on. */
static void
tell_of_failure(uint64 request_id, const char *sqlstate, const char *message, const char *hint)
{
	int			code = sqlstate != NULL && strlen(sqlstate) == 5 ?
		MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]) :
		ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;

	weir_request_fail(request_id, code, message ? message : "its copy stopped", hint);
}

/* False when somebody's open transaction has the row: an operator being dropped takes its throwaways along. */
static bool
retire_if_free(int64 operator_id, int version)
{
	if (weir_query(NULL, "SELECT 1 FROM weir_internal.version WHERE operator_id = $1 AND version = $2 "
				   "FOR UPDATE SKIP LOCKED", "li", operator_id, version) == 0)
		return false;
	weir_version_retire(operator_id, version);
	return true;
}

/* Throwaways that failed, or for which nobody waits any more. */
bool
weir_verifications_abandon(void)
{
	uint64		count;
	int64	   *operators;
	int		   *versions;
	int			nended = 0;
	bool		retired = false;

	weir_worker_begin();
	count = weir_query(NULL,
					   "SELECT v.operator_id, v.version, v.request_id, coalesce(r.status IN ('failed', 'lost'), false), "
					   "r.sqlstate, r.message, r.hint FROM weir_internal.version v "
					   "LEFT JOIN weir_internal.version_run r ON r.operator_id = v.operator_id AND r.version = v.version "
					   "WHERE v.purpose = 'verification' AND NOT v.retired", "");
	operators = palloc(sizeof(int64) * (count + 1));
	versions = palloc(sizeof(int) * (count + 1));
	for (uint64 row = 0; row < count; row++)
	{
		uint64		request_id = (uint64) weir_result_int64(row, 3);

		if (weir_request_cancelled(request_id))
			weir_request_fail(request_id, ERRCODE_QUERY_CANCELED, "nobody waits for it", "");
		else if (weir_result_bool(row, 4))
			tell_of_failure(request_id, weir_result_text(row, 5), weir_result_text(row, 6), weir_result_text(row, 7));
		else
			continue;
		operators[nended] = weir_result_int64(row, 1);
		versions[nended++] = weir_result_int(row, 2);
	}
	for (int i = 0; i < nended; i++)
		retired |= retire_if_free(operators[i], versions[i]);
	weir_worker_commit();
	return retired;
}
