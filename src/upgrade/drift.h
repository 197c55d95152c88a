/*
 * drift.h - comparing two versions' rows, as multisets.
 */
#ifndef WEIR_DRIFT_H
#define WEIR_DRIFT_H

#include "weir.h"
#include "nodes/pg_list.h"

/* Differences of floats that do not count, relative to the smaller one; literals for SQL. */
#define WEIR_DRIFT_TOLERANCE_FLOAT8 "1e-9"
#define WEIR_DRIFT_TOLERANCE_FLOAT4 "1e-5"

typedef struct WeirDrift
{
	int64		missing;		/* rows of expected that actual lacks */
	int64		extra;			/* rows of actual that expected lacks */
} WeirDrift;

/*
 * Both tables under the active snapshot, as owner, on the named columns, by
 * the types' own equality (types without one by their text). SPI connected.
 * Exact whenever both are at one LSN in that snapshot; is_tolerant: rows that
 * differ in floats only, and by no more than their tolerance, do not count.
 */
extern WeirDrift weir_drift_compare(Oid expected, Oid actual, List *columns, Oid owner, bool is_tolerant);

/* A row of each side under the same key, as jsonb text; NULL: it has none, or none is known to belong to the other. */
typedef struct WeirDriftSample
{
	char	   *old_row;
	char	   *new_row;
} WeirDriftSample;

/*
 * Some of the rows that differ, at most limit pairs; values by their types'
 * output functions. keys: those of the columns that tell which rows belong
 * together, or NIL. List of WeirDriftSample in CurrentMemoryContext.
 */
extern List *weir_drift_sample(Oid expected, Oid actual, List *columns, List *keys, Oid owner, int limit);

#endif							/* WEIR_DRIFT_H */
