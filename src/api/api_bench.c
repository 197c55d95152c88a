/*
 * api_bench.c - weir_internal.drain_raw: what decoding alone costs.
 *
 * Runs in a superuser's session, for bench/ only.  A procedure, because it
 * leaves its transaction: in one, each replayed transaction would become a
 * subtransaction and readers would look better than they are.  It confirms
 * nothing, so the slot yields the same backlog again; after an error the
 * session still has its source open and the next call says so.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/portal.h"

#include "api/api_result.h"
#include "source/source_local.h"

PG_FUNCTION_INFO_V1(weir_drain_raw);

static void
refuse_unless_allowed(FunctionCallInfo fcinfo)
{
	CallContext *call = (CallContext *) fcinfo->context;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only superusers may drain a slot")));
	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("weir_internal.drain_raw cannot run inside a transaction block")));
}

Datum
weir_drain_raw(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	char	   *slot_name;
	XLogRecPtr	stop_lsn;
	WeirDrainCounts counts;
	instr_time	start;
	instr_time	end;
	Datum		values[4];
	bool		nulls[4] = {0};

	refuse_unless_allowed(fcinfo);
	weir_refuse_nulls(fcinfo, 0x3c);
	context = AllocSetContextCreate(PortalContext, "weir drain", ALLOCSET_SMALL_SIZES);
	slot_name = MemoryContextStrdup(context, NameStr(*PG_GETARG_NAME(0)));
	stop_lsn = PG_GETARG_LSN(1);

	/* As VACUUM does; what the call's arguments need was copied. */
	ForgetPortalSnapshots();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	INSTR_TIME_SET_CURRENT(start);
	weir_source_drain_raw(slot_name, stop_lsn, &counts);
	INSTR_TIME_SET_CURRENT(end);
	StartTransactionCommand();
	MemoryContextSwitchTo(context);

	INSTR_TIME_SUBTRACT(end, start);
	values[0] = Int64GetDatum(counts.records);
	values[1] = Int64GetDatum(counts.transactions);
	values[2] = Int64GetDatum(counts.changes);
	values[3] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(end));
	return weir_result_row(fcinfo, values, nulls);
}
