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

/* Throwaways are numbered below zero, so they never meet a version that users see. */
static int
throwaway_number(uint64 request_id)
{
	return -1 - (int) (request_id % 1000000000);
}

static void
create_throwaway(const WeirRequest *request)
{
	WeirOperator *operator = weir_operator_by_id(request->operator_id);
	WeirVersion *serving = weir_version_get(request->operator_id, operator->serving_version);
	WeirVersionRun run = weir_version_run_get(request->operator_id, operator->serving_version);
	WeirVersionRequest throwaway = {
		.operator_id = request->operator_id,
		.operator_name = operator->view_name,
		.version = throwaway_number(request->request_id),
		.is_verification = true,
		.text = serving->definition,
		.strategy = "backfill",
		.owner = weir_relation_owner(operator->view),
	};

	if (run.status != WEIR_RUN_LIVE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("operator \"%s\" is not live", operator->view_name)));
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

bool
weir_verifications_abandon(void)
{
	uint64		count;
	int64	   *operators;
	int		   *versions;
	int			abandoned = 0;

	weir_worker_begin();
	count = weir_query(NULL,
					   "SELECT operator_id, version, request_id FROM weir_internal.version "
					   "WHERE purpose = 'verification' AND NOT retired", "");
	operators = palloc(sizeof(int64) * (count + 1));
	versions = palloc(sizeof(int) * (count + 1));
	for (uint64 row = 0; row < count; row++)
	{
		uint64		request_id = (uint64) weir_result_int64(row, 3);

		if (!weir_request_cancelled(request_id))
			continue;
		weir_request_fail(request_id, ERRCODE_QUERY_CANCELED, "nobody waits for it", "");
		operators[abandoned] = weir_result_int64(row, 1);
		versions[abandoned++] = weir_result_int(row, 2);
	}
	for (int i = 0; i < abandoned; i++)
		weir_version_retire(operators[i], versions[i]);
	weir_worker_commit();
	return abandoned > 0;
}
