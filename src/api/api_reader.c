/*
 * api_reader.c - what readers publish in shared memory, for the views:
 * weir_internal.reader_activity and weir_internal.stream_lag.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "api/api_result.h"
#include "weir_shmem.h"

PG_FUNCTION_INFO_V1(weir_reader_activity);
PG_FUNCTION_INFO_V1(weir_stream_lag);

Datum
weir_reader_activity(PG_FUNCTION_ARGS)
{
	WeirReaderShmem *reader = weir_shmem_available() ?
		weir_reader_find(MyDatabaseId, PG_GETARG_INT64(0)) : NULL;
	Datum		values[6] = {0};
	bool		nulls[6] = {true, true, true, true, true, true};

	if (reader != NULL)
	{
		XLogRecPtr	processed = pg_atomic_read_u64(&reader->processed_lsn);
		XLogRecPtr	scanned = pg_atomic_read_u64(&reader->scanned_lsn);
		TimestampTz waiting = (TimestampTz) pg_atomic_read_u64(&reader->waiting_since);

		values[0] = Int32GetDatum(reader->pid);
		nulls[0] = false;
		values[1] = LSNGetDatum(processed);
		nulls[1] = XLogRecPtrIsInvalid(processed);
		values[2] = LSNGetDatum(scanned);
		nulls[2] = XLogRecPtrIsInvalid(scanned);
		values[3] = Float8GetDatum(pg_atomic_read_u64(&reader->longest_hold_us) / 1000.0);
		nulls[3] = false;
		values[4] = TimestampTzGetDatum(waiting);
		nulls[4] = waiting == 0;
		values[5] = BoolGetDatum(pg_atomic_read_u32(&reader->gives_way) != 0);
		nulls[5] = false;
	}
	return weir_result_row(fcinfo, values, nulls);
}

Datum
weir_stream_lag(PG_FUNCTION_ARGS)
{
	TimestampTz fresh_at = weir_shmem_available() ? weir_fresh_at(MyDatabaseId) : 0;

	if (fresh_at == 0)
		PG_RETURN_NULL();
	return DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(Max(GetCurrentTimestamp(), fresh_at)),
							   TimestampTzGetDatum(fresh_at));
}
