/*
 * state_checksum.h - whether a state table holds what was written into it.
 */
#ifndef WEIR_STATE_CHECKSUM_H
#define WEIR_STATE_CHECKSUM_H

#include "weir.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

typedef struct WeirStateChecksum
{
	int64		rows;
	uint64		sum;			/* of the rows' checksums */
} WeirStateChecksum;

/* May leave garbage in CurrentMemoryContext. */
extern uint64 weir_state_row_checksum(TupleTableSlot *slot);

/* Under the active snapshot. */
extern WeirStateChecksum weir_state_table_checksum(Relation relation);

#endif							/* WEIR_STATE_CHECKSUM_H */
