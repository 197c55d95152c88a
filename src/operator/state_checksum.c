/*
 * state_checksum.c - whether a state table holds what was written into it.
 *
 * Runs in readers. A sum over all rows, modulo 2^64, of a hash of each row's
 * values: it does not depend on where the rows are nor on how a value is
 * stored (compressed, out of line, with a short header). It finds what got
 * lost, came twice or was changed on the way into the table, not somebody who
 * wants not to be found. Reads only.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "operator/state_checksum.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

uint64
weir_state_row_checksum(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	uint64		hash = 0;

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		uint64		part = slot->tts_isnull[i] ? 0 :
			(uint64) datum_image_hash(slot->tts_values[i], att->attbyval, att->attlen) + 1;

		hash = hash_combine64(hash, part);
	}
	return hash;
}

WeirStateChecksum
weir_state_table_checksum(Relation relation)
{
	WeirStateChecksum result = {0, 0};
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "weir state checksum",
													  ALLOCSET_DEFAULT_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(row_context);

		CHECK_FOR_INTERRUPTS();
		result.rows++;
		result.sum += weir_state_row_checksum(slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(row_context);
	return result;
}
