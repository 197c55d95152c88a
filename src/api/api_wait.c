/*
 * api_wait.c - calls that wait: weir.wait_for, wait_for_upgrade, verify.
 *
 * Runs in the caller's backend. They look at committed catalog rows with a
 * fresh snapshot each time and at positions in shared memory; they take no
 * lock and write nothing, so whoever is waited for never waits for them.
 * (The calling SELECT's own snapshot stays, as with pg_sleep.)
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "api/api_doctor.h"
#include "api/api_operator.h"
#include "api/api_result.h"
#include "catalog/reader_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "catalog/version_catalog.h"
#include "weir_guc.h"
#include "weir_shmem.h"

PG_FUNCTION_INFO_V1(weir_wait_for);
PG_FUNCTION_INFO_V1(weir_wait_for_upgrade);
PG_FUNCTION_INFO_V1(weir_verify);

/* Looks at the catalogs this often while waiting; positions more often. */
#define LOOK_MS 20
#define POSITION_MS 1

static void
refuse_after_writing(const char *function)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot wait in a transaction that has written", function),
				 errdetail("It would wait for its own commit."),
				 errhint("COMMIT; then call it again.")));
}

static TimestampTz
deadline_of(Interval *timeout)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(timeout)));
}

static void
nap(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* A fresh look, whatever the isolation level of the caller. */
static void
begin_look(WeirCatalogScope *scope)
{
	PushActiveSnapshot(GetLatestSnapshot());
	weir_catalog_enter(scope);
}

static void
end_look(WeirCatalogScope *scope)
{
	weir_catalog_leave(scope);
	PopActiveSnapshot();
}

typedef struct OperatorStanding
{
	int64		operator_id;
	char	   *name;
	char	   *reference;
	bool		paused;
	bool		candidate_lags; /* it serves, but is not in lockstep */
	WeirVersionRun run;
} OperatorStanding;

static void
refuse_if_standing_still(const OperatorStanding *standing)
{
	bool		stopped = (standing->run.status == WEIR_RUN_STOPPED && !standing->run.is_resuming) ||
		standing->run.status == WEIR_RUN_LOST || standing->run.status == WEIR_RUN_FAILED;

	if (!stopped && !standing->paused)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("operator \"%s\" is %s and does not move", standing->name,
					standing->paused ? "paused" : weir_run_status_name(standing->run.status)),
			 standing->run.message ? errdetail("It stopped at %X/%X: %s.",
											   LSN_FORMAT_ARGS(standing->run.error_lsn),
											   standing->run.message) : 0,
			 standing->run.hint ? errhint("%s", standing->run.hint) :
			 standing->run.status == WEIR_RUN_STOPPED || standing->paused ?
			 errhint("SELECT weir.resume_operator(%s);", standing->reference) :
			 errhint("SELECT * FROM weir.rebuild_operator(%s);", standing->reference)));
}

/*
 * WAL positions just past a page header mean the page's start: no record ends
 * between the two.
 */
static XLogRecPtr
normalise(XLogRecPtr lsn)
{
	uint64		in_page = lsn % XLOG_BLCKSZ;

	if (in_page == SizeOfXLogShortPHD ||
		(in_page == SizeOfXLogLongPHD && XLogSegmentOffset(lsn, wal_segment_size) == in_page))
		return lsn - in_page;
	return lsn;
}

/* True when the reader has applied and committed everything before lsn. */
static bool
reader_has_reached(int64 reader_id, XLogRecPtr lsn, XLogRecPtr *reached)
{
	WeirReaderShmem *reader = weir_reader_find(MyDatabaseId, reader_id);

	if (reader == NULL)
		return false;
	*reached = Max(pg_atomic_read_u64(&reader->scanned_lsn), pg_atomic_read_u64(&reader->processed_lsn));
	if (*reached >= lsn)
		return true;
	weir_wake_reader(reader);
	return false;
}

/* The serving version of one operator, or NULL when the operator is gone. */
static OperatorStanding *
look_at_operator(int64 operator_id)
{
	MemoryContext context = CurrentMemoryContext;
	OperatorStanding *standing = NULL;
	WeirCatalogScope scope;
	WeirOperator *operator;

	begin_look(&scope);
	operator = weir_operator_by_id(operator_id);
	if (operator != NULL)
	{
		standing = MemoryContextAlloc(context, sizeof(OperatorStanding));
		standing->operator_id = operator_id;
		standing->name = MemoryContextStrdup(context, operator->view_name);
		standing->reference = MemoryContextStrdup(context, operator->reference);
		standing->paused = operator->paused;
		standing->run = weir_version_run_get(operator_id, operator->serving_version);
		/* In lockstep it is where the other one is; out of it, it gives up its shards in a moment. */
		standing->candidate_lags = (operator->split > 0 || (operator->candidate != 0 && weir_guc_read_version == WEIR_READ_CANDIDATE)) &&
			weir_version_run_get(operator_id, operator->candidate).status != WEIR_RUN_LIVE;
		if (!weir_is_monitor(scope.caller) &&
			!has_privs_of_role(scope.caller, weir_relation_owner(operator->view)))
			standing->run.message = standing->run.hint = NULL;
		if (standing->run.message != NULL)
			standing->run.message = MemoryContextStrdup(context, standing->run.message);
		if (standing->run.hint != NULL)
			standing->run.hint = MemoryContextStrdup(context, standing->run.hint);
	}
	end_look(&scope);
	return standing;
}

/* True when the version's own reader has applied everything before lsn, this version included. */
static bool
has_reached(OperatorStanding **standing, XLogRecPtr lsn, XLogRecPtr *reached)
{
	int64		reader_id = (*standing)->run.reader_id;

	if ((*standing)->run.status != WEIR_RUN_LIVE || (*standing)->candidate_lags || !reader_has_reached(reader_id, lsn, reached))
		return false;
	/* It may have got there by leaving this very version behind, since it was looked at. */
	*standing = look_at_operator((*standing)->operator_id);
	return *standing == NULL ||
		((*standing)->run.status == WEIR_RUN_LIVE && !(*standing)->candidate_lags && (*standing)->run.reader_id == reader_id);
}

static XLogRecPtr
wait_for_operator(int64 operator_id, XLogRecPtr lsn, TimestampTz deadline)
{
	XLogRecPtr	reached = InvalidXLogRecPtr;

	for (;;)
	{
		OperatorStanding *standing = look_at_operator(operator_id);
		TimestampTz look_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS);

		if (standing == NULL)
			return lsn;			/* dropped meanwhile */
		refuse_if_standing_still(standing);
		do
		{
			if (has_reached(&standing, lsn, &reached))
				return reached;
			if (GetCurrentTimestamp() >= deadline)
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("operator \"%s\" did not reach %X/%X in time", standing->name,
								LSN_FORMAT_ARGS(lsn)),
						 errdetail("Its status is \"%s\"; its reader is at %X/%X.",
								   weir_run_status_name(standing->run.status), LSN_FORMAT_ARGS(reached)),
						 errhint("SELECT * FROM weir.versions; SELECT * FROM weir.doctor();")));
			nap(POSITION_MS);
		} while (GetCurrentTimestamp() < look_again);
	}
}

/* Ids of one operator (view given) or of all. */
static List *
operators_to_wait_for(Oid view)
{
	MemoryContext context = CurrentMemoryContext;
	WeirCatalogScope scope;
	List	   *ids = NIL;
	MemoryContext old;
	uint64		count;

	begin_look(&scope);
	count = weir_query(NULL, "SELECT operator_id FROM weir_internal.operator "
					   "WHERE NOT dropped AND ($1 = 0 OR view_oid = $1)", "o", view);
	old = MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < count; row++)
	{
		int64	   *id = palloc(sizeof(int64));

		*id = weir_result_int64(row, 1);
		ids = lappend(ids, id);
	}
	MemoryContextSwitchTo(old);
	if (OidIsValid(view) && count == 0)
		(void) weir_operator_for_control(view, scope.caller);	/* raises what is wrong with it */
	end_look(&scope);
	return ids;
}

Datum
weir_wait_for(PG_FUNCTION_ARGS)
{
	Oid			view = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	XLogRecPtr	lsn;
	XLogRecPtr	reached = InvalidXLogRecPtr;
	TimestampTz deadline;
	ListCell   *lc;

	weir_refuse_nulls(fcinfo, 1 << 0);
	weir_require_preloaded();
	refuse_after_writing("weir.wait_for");
	lsn = normalise(PG_GETARG_LSN(1));
	if (lsn > GetXLogInsertRecPtr())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position %X/%X has not been written yet", LSN_FORMAT_ARGS(lsn)),
				 errdetail("The WAL ends at %X/%X.", LSN_FORMAT_ARGS(GetXLogInsertRecPtr())),
				 errhint("SELECT weir.wait_for(...); without a position waits for everything committed so far.")));
	deadline = deadline_of(PG_GETARG_INTERVAL_P(2));
	XLogFlush(lsn);				/* decoders see flushed WAL only */
	foreach(lc, operators_to_wait_for(view))
	{
		XLogRecPtr	one = wait_for_operator(*(int64 *) lfirst(lc), lsn, deadline);

		if (XLogRecPtrIsInvalid(reached) || one < reached)
			reached = one;
	}
	/* lsn may have been moved back over a page header: nothing lies in between. */
	PG_RETURN_LSN(Max(Max(reached, lsn), PG_GETARG_LSN(1)));
}

static WeirUpgrade *
look_at_upgrade(Oid view, char **name)
{
	MemoryContext context = CurrentMemoryContext;
	WeirCatalogScope scope;
	WeirOperator *operator;
	WeirUpgrade *upgrade = NULL;
	WeirUpgrade *found;

	begin_look(&scope);
	operator = weir_operator_for_control(view, scope.caller);
	found = weir_upgrade_latest(operator->operator_id);
	*name = MemoryContextStrdup(context, operator->view_name);
	if (found != NULL)
	{
		upgrade = MemoryContextAlloc(context, sizeof(WeirUpgrade));
		*upgrade = *found;
		upgrade->reason = found->reason ? MemoryContextStrdup(context, found->reason) : NULL;
	}
	end_look(&scope);
	return upgrade;
}

Datum
weir_wait_for_upgrade(PG_FUNCTION_ARGS)
{
	Oid			view = PG_GETARG_OID(0);
	char	   *wanted_name;
	WeirPhase	wanted;
	TimestampTz deadline;
	char	   *name;

	weir_refuse_nulls(fcinfo, 0);
	weir_require_preloaded();
	wanted_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	wanted = weir_phase_from_name(wanted_name);
	deadline = deadline_of(PG_GETARG_INTERVAL_P(2));
	if (wanted == WEIR_PHASE_COUNT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown phase \"%s\"", wanted_name),
				 errhint("Phases: preparing, building, catching_up, validating, shifting, observing, finalized, rolling_back, rolled_back.")));
	refuse_after_writing("weir.wait_for_upgrade");
	for (;;)
	{
		WeirUpgrade *upgrade = look_at_upgrade(view, &name);

		if (upgrade == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("operator \"%s\" was never upgraded", name),
					 errhint("SELECT * FROM weir.start_upgrade(%s, $$SELECT ...$$);", weir_operator_reference(view, name))));
		/* Reached, or passed: nothing leads back to it any more. */
		if (upgrade->phase == wanted ||
			(upgrade->phase != WEIR_PHASE_ROLLED_BACK && upgrade->phase != WEIR_PHASE_ROLLING_BACK &&
			 weir_phase_can_reach(wanted, upgrade->phase)))
			PG_RETURN_TEXT_P(cstring_to_text(weir_phase_name(upgrade->phase)));
		if (!weir_phase_can_reach(upgrade->phase, wanted))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" is %s and cannot reach phase %s",
							upgrade->upgrade_id, name, weir_phase_name(upgrade->phase), wanted_name),
					 upgrade->reason ? errdetail("Reason: %s.", upgrade->reason) : 0,
					 errhint("SELECT * FROM weir.ledger WHERE upgrade_id = " INT64_FORMAT ";",
							 upgrade->upgrade_id)));
		if (upgrade->paused && wanted != WEIR_PHASE_ROLLED_BACK)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" is paused in phase %s",
							upgrade->upgrade_id, name, weir_phase_name(upgrade->phase)),
					 upgrade->reason ? errdetail("It was paused because: %s.", upgrade->reason) : 0,
					 errhint("SELECT weir.resume_upgrade(%s);", weir_operator_reference(view, name))));
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" did not reach phase %s in time",
							upgrade->upgrade_id, name, wanted_name),
					 upgrade->reason ? errdetail("It is in phase %s. Reason: %s.", weir_phase_name(upgrade->phase), upgrade->reason) :
					 errdetail("It is in phase %s.", weir_phase_name(upgrade->phase)),
					 errhint("SELECT * FROM weir.upgrades WHERE upgrade_id = " INT64_FORMAT ";",
							 upgrade->upgrade_id)));
		nap(LOOK_MS);
	}
}

/* Right, and whether a recomputation can be compared at all. Returns the operator's id. */
static int64
check_verifiable(Oid view)
{
	WeirCatalogScope scope;
	WeirOperator *operator;
	OperatorStanding standing;

	begin_look(&scope);
	operator = weir_operator_for_control(view, scope.caller);
	standing.operator_id = operator->operator_id;
	standing.name = operator->view_name;
	standing.reference = operator->reference;
	standing.paused = operator->paused;
	standing.run = weir_version_run_get(operator->operator_id, operator->serving_version);
	refuse_if_standing_still(&standing);
	if (standing.run.status != WEIR_RUN_LIVE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("operator \"%s\" is still being built", operator->view_name),
				 errdetail("Its status is \"%s\".", weir_run_status_name(standing.run.status)),
				 errhint("SELECT weir.wait_for(%s);", operator->reference)));
	if (!weir_version_covers_source(operator->operator_id, operator->serving_version))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("operator \"%s\" cannot be verified: it started without the rows that were there",
						operator->view_name),
				 errhint("SELECT * FROM weir.rebuild_operator(%s); includes them.", operator->reference)));
	end_look(&scope);
	return standing.operator_id;
}

Datum
weir_verify(PG_FUNCTION_ARGS)
{
	Oid			view = PG_GETARG_OID(0);
	char	   *name;
	TimestampTz deadline;
	WeirRequest *request;
	WeirRequest outcome;
	Datum		values[3];
	bool		nulls[3] = {false};
	volatile bool answered = false;

	weir_refuse_nulls(fcinfo, 0);
	weir_require_preloaded();
	refuse_after_writing("weir.verify");
	deadline = deadline_of(PG_GETARG_INTERVAL_P(1));
	name = get_rel_name(view);	/* which may be gone when there is something to say */
	request = weir_request_post(check_verifiable(view));
	/* Restored: the request's entry, which would otherwise never be free again. */
	PG_TRY();
	{
		weir_wake_coordinator(MyDatabaseId);
		answered = weir_request_wait(request,
									 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline),
									 &outcome);
	}
	PG_FINALLY();
	{
		weir_request_release(request);
		weir_wake_coordinator(MyDatabaseId);
	}
	PG_END_TRY();
	if (!answered)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("operator \"%s\" was not verified in time", name),
				 errdetail("Its throwaway copy is removed."),
				 errhint("SELECT * FROM weir.verify(%s, timeout => '1 hour');",
						 weir_operator_reference(view, "..."))));
	if (outcome.state == WEIR_REQUEST_FAILED)
		ereport(ERROR,
				(errcode(outcome.sqlerrcode),
				 errmsg("operator \"%s\" could not be verified: %s", name, outcome.message),
				 outcome.hint[0] ? errhint("%s", outcome.hint) : 0));
	values[0] = Int64GetDatum(outcome.missing);
	values[1] = Int64GetDatum(outcome.extra);
	values[2] = LSNGetDatum(outcome.checked_lsn);
	return weir_result_row(fcinfo, values, nulls);
}
