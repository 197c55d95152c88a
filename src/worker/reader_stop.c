/*
 * reader_stop.c - taking a version out of its reader.
 *
 * Runs in readers, inside the transaction that would have applied the batch.
 * What is on disk afterwards: a version that must keep its place (serving, or
 * perhaps wanted again, as the old one of an upgrade is until that has ended)
 * belongs to a reader row of kind "stopped" with the position before the
 * batch; a candidate that others stand in for and a throwaway keep nothing. The stopped row's slot is copied by the coordinator; until then the
 * main reader confirms nothing past that position (I4), in memory here and in
 * the catalog (slot_pending) after a restart.
 *
 * If it shared the shards with the other version of its upgrade, one of the two
 * serves all of them from this transaction on (upgrade/split.h): the view must
 * not show shards as of different positions.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "upgrade/split.h"
#include "weir_session.h"
#include "worker/reader.h"

static bool
keeps_its_place(const WeirReader *reader, const WeirSetMember *member, const WeirStop *stop)
{
	/* Never built: there is no place to keep. */
	if (XLogRecPtrIsInvalid(reader->processed_lsn))
		return false;
	if (member->is_verification)
		return false;
	/* No failure of the version: it comes back, and into lockstep. */
	if (strcmp(stop->cause, "lock") == 0)
		return true;
	/*
	 * The old version of an upgrade that has shifted, too: a rollback that has
	 * not committed cannot be seen here, and nobody waits for its transaction.
	 *
	 * A candidate keeps its place only if nobody else can serve: asked now,
	 * because both may fail in one batch, the old version first.
	 */
	if (member->is_candidate)
		return weir_version_run_get(member->operator_id, member->partner).status != WEIR_RUN_LIVE;
	return true;
}

static void
record_stop(WeirReader *reader, const WeirSetMember *member, WeirRunStatus status, const WeirStop *stop)
{
	WeirOperator *operator = weir_operator_by_id(member->operator_id);
	WeirLedgerEntry entry = {
		.operator_id = member->operator_id,
		.operator_name = operator ? operator->view_name : "",
		.event = strcmp(stop->cause, "pause") == 0 ? "pause" : "stop",
		.from_version = member->version,
		.lsn = reader->processed_lsn,
		.actor = GetUserId(),
		.reason = stop->message,
	};

	weir_ledger_note(&entry);
	ereport(LOG,
			(errmsg("operator \"%s\" version %d is %s at %X/%X: %s", entry.operator_name,
					member->version, weir_run_status_name(status),
					LSN_FORMAT_ARGS(reader->processed_lsn), stop->message ? stop->message : stop->cause),
			 stop->detail ? errdetail_internal("%s", stop->detail) : 0));
}

void
weir_reader_stop_version(WeirReader *reader, const WeirSetMember *member, const WeirStop *stop)
{
	WeirRunStatus status = keeps_its_place(reader, member, stop) ? WEIR_RUN_STOPPED : WEIR_RUN_FAILED;
	int64		new_reader = 0;

	if (status == WEIR_RUN_STOPPED)
	{
		if (reader->kind == WEIR_READER_MAIN)
		{
			new_reader = weir_reader_insert(reader->stream_id, WEIR_READER_STOPPED,
											WEIR_READER_RUNNING, reader->processed_lsn, true);
			if (XLogRecPtrIsInvalid(reader->pending_floor) ||
				reader->processed_lsn < reader->pending_floor)
				reader->pending_floor = reader->processed_lsn;
		}
		else
		{
			/*
			 * A catch-up reader has the slot that is needed: it stops with its
			 * version, at the position before the batch, which the batch
			 * transaction has moved already.
			 */
			new_reader = reader->reader_id;
			weir_reader_stop_at(reader->reader_id, reader->processed_lsn);
			reader->has_stopped = true;
		}
	}
	weir_version_run_stop(member->operator_id, member->version, status, new_reader, stop);
	record_stop(reader, member, status, stop);
	if (member->upgrade_id != 0)
		(void) weir_split_end(&(WeirSplitEnd)
							  {
								  .operator_id = member->operator_id,
								  .upgrade_id = member->upgrade_id,
								  .leaving = member->version,
								  .partner = member->partner,
								  .is_candidate = member->is_candidate,
								  .comes_back = strcmp(stop->cause, "lock") == 0 || strcmp(stop->cause, "pause") == 0,
							  });
	weir_wake_coordinator_at_commit();
}
