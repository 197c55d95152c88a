/*
 * comparison.h - comparing the versions of an upgrade, with samples of what
 * differs as evidence.
 *
 * Gatekeepers only. SPI connected; transactions belong to the caller.
 */
#ifndef WEIR_COMPARISON_H
#define WEIR_COMPARISON_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "catalog/upgrade_catalog.h"
#include "upgrade/drift.h"

/* Differing rows that are kept of an upgrade's last comparison that found any. */
#define WEIR_DRIFT_SAMPLES 20

typedef struct WeirComparison
{
	MemoryContext context;		/* set by the caller: what outlives the transaction is made here */
	int64		upgrade_id;
	WeirDrift	drift;
	List	   *samples;		/* of WeirDriftSample */
	XLogRecPtr	lsn;			/* position of both versions in the snapshot */
	TimestampTz at;				/* not later than the snapshot */
} WeirComparison;

/*
 * In one new snapshot, under no lock of ours. False when the two are not in
 * lockstep in it.
 */
extern bool weir_comparison_make(const WeirUpgrade *upgrade, WeirComparison *comparison);
/* The operator's row locked by the caller. */
extern void weir_comparison_record(const WeirComparison *comparison);

#endif							/* WEIR_COMPARISON_H */
