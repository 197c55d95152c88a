/*
 * drift.h - comparing two versions' rows exactly, as multisets.
 */
#ifndef WEIR_DRIFT_H
#define WEIR_DRIFT_H

#include "weir.h"
#include "nodes/pg_list.h"

typedef struct WeirDrift
{
	int64		missing;		/* rows of expected that actual lacks */
	int64		extra;			/* rows of actual that expected lacks */
} WeirDrift;

/*
 * Both tables under the active snapshot, as owner, on the named columns, by
 * the types' own equality (types without one by their text). SPI connected.
 * Exact whenever both are at one LSN in that snapshot.
 */
extern WeirDrift weir_drift_compare(Oid expected, Oid actual, List *columns, Oid owner);

#endif							/* WEIR_DRIFT_H */
