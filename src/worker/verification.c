/*
 * verification.c - the last step of weir.verify, in the throwaway's reader.
 *
 * The throwaway version was backfilled and caught up beside the one it checks,
 * which served when the call was made.
 * With the main reader held at one position, one snapshot has both at the same
 * LSN; the hold is released at once and the comparison runs under that
 * snapshot, however long it takes. The outcome goes to the waiting call through
 * shared memory. Nothing of it is authoritative: killed here, the coordinator
 * removes the throwaway and the call is told.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "catalog/catalog_query.h"
#include "catalog/version_catalog.h"
#include "upgrade/drift.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

/* True when the active snapshot has the main reader at held_at. */
static bool
snapshot_is_at(int64 main_reader_id, XLogRecPtr held_at)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(main_reader_id);

	if (SPI_execute_with_args("SELECT processed_lsn FROM weir_internal.reader WHERE reader_id = $1",
							  1, &type, &value, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1)
		return false;
	return weir_result_lsn(0, 1) == held_at;
}

static List *
output_names(const WeirDefinition *definition)
{
	List	   *names = NIL;

	for (int i = 0; i < definition->noutputs; i++)
		names = lappend(names, definition->outputs[i].column.name);
	return names;
}

bool
weir_verification_run(WeirReader *reader, WeirLoadedVersion *throwaway,
					  WeirReaderShmem *main_reader, XLogRecPtr held_at)
{
	WeirVersion *expected;
	WeirVersion *actual;
	int64		reader_id;
	uint64		request_id;
	bool		compared;
	WeirDrift	drift = {0, 0};

	weir_worker_begin();
	if (!snapshot_is_at(main_reader->reader_id, held_at))
	{
		weir_worker_commit();
		return false;
	}
	weir_reader_release_hold(reader, main_reader);

	/* With what served when the call was made: another may serve by now, with other columns. */
	expected = weir_version_get(throwaway->operator_id, throwaway->version);
	actual = weir_version_get(throwaway->operator_id, expected->build_from);
	request_id = weir_version_request(throwaway->operator_id, throwaway->version);
	compared = !actual->retired &&
		weir_version_is_live_at_snapshot(throwaway->operator_id, expected->build_from, &reader_id) &&
		reader_id == main_reader->reader_id;
	if (compared)
		drift = weir_drift_compare(expected->state_table, actual->state_table,
								   output_names(throwaway->definition), throwaway->owner, false);
	weir_version_retire(throwaway->operator_id, throwaway->version);
	weir_reader_end(reader->reader_id);

	/*
	 * Only now: when nobody waits any more the coordinator clears up, and must
	 * find these rows locked. Not after the commit, when it would take the call
	 * for one that was never answered.
	 */
	if (compared)
		weir_request_finish(request_id, drift.missing, drift.extra, held_at);
	else
		weir_request_fail(request_id, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						  psprintf("version %d stopped or was replaced while it was being verified", actual->version),
						  "SELECT * FROM weir.versions;");
	weir_worker_commit();
	return true;
}
