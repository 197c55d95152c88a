/*
 * reader_telemetry.c - what a reader tells of its work: times and counts of
 * each batch, for weir.batches.
 *
 * Runs in readers, outside of transactions, in shared memory only: it is lost
 * with the server, and nothing depends on it. A batch costs a few readings of
 * the clock and one copy under a lock that is held for no longer than another
 * such copy, or that of a ring (weir_batch_history.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "weir_batch_history.h"
#include "worker/reader.h"

WeirReadOutcome
weir_reader_read(WeirReader *reader, const WeirReadLimits *limits)
{
	WeirReadOutcome outcome;
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	outcome = weir_source_read(reader->source, reader->batch, limits);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	reader->read_us += INSTR_TIME_GET_MICROSEC(end);
	/* What was read in vain is no part of a later batch; a large transaction may take several calls. */
	if (reader->batch->ntransactions == 0 && outcome != WEIR_READ_BATCH_FULL)
		reader->read_us = 0;
	return outcome;
}

static int64
microseconds_between(instr_time start, instr_time end)
{
	INSTR_TIME_SUBTRACT(end, start);
	return INSTR_TIME_GET_MICROSEC(end);
}

/* Only of versions to which it brought rows. */
static WeirBatchFold *
collect_folds(const WeirReader *reader, int *nfolds)
{
	WeirBatchFold *folds = palloc(sizeof(WeirBatchFold) * Max(list_length(reader->versions), 1));
	ListCell   *lc;

	*nfolds = 0;
	foreach(lc, reader->versions)
	{
		const WeirLoadedVersion *version = lfirst(lc);
		const WeirVersionStat *stat = &version->current;

		if (stat->rows == 0)
			continue;
		folds[(*nfolds)++] = (WeirBatchFold)
		{
			.operator_id = version->operator_id,
			.version = version->version,
			.rows_changed = stat->inserted + stat->updated + stat->deleted
		};
	}
	return folds;
}

void
weir_reader_tell_batch(WeirReader *reader)
{
	WeirBatchFold *folds;
	instr_time	end;
	WeirBatchRecord record = {
		.database = MyDatabaseId,
		.is_main = reader->kind == WEIR_READER_MAIN,
		.reader_id = reader->reader_id,
		.from_lsn = reader->processed_lsn,
		.to_lsn = reader->batch->last_commit_end,
		.transactions = reader->batch->ntransactions,
		.rows = reader->batch->nrows,
		.read_us = reader->read_us,
		.committed_at = GetCurrentTimestamp()
	};

	INSTR_TIME_SET_CURRENT(end);
	record.apply_us = microseconds_between(reader->apply_started, reader->commit_started);
	record.commit_us = microseconds_between(reader->commit_started, end);
	folds = collect_folds(reader, &record.nfolds);
	weir_batch_history_add(&record, folds);
	pfree(folds);
	reader->read_us = 0;
	if (record.is_main)
		weir_fresh_publish(reader->batch->last_commit_time);
}
