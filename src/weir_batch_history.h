/*
 * weir_batch_history.h - the last batches of each database, in shared memory.
 *
 * For people only: nothing is decided by it. Bounded, and lost at restart.
 */
#ifndef WEIR_BATCH_HISTORY_H
#define WEIR_BATCH_HISTORY_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"

/* One ring for each database in use; beyond that, databases share. */
#define WEIR_BATCH_RINGS	8
/* Batches of a ring, and what versions did in them. */
#define WEIR_RING_BATCHES	2048
#define WEIR_RING_FOLDS		8192

/* What one version did in one batch. */
typedef struct WeirBatchFold
{
	int64		operator_id;
	int64		rows_changed;	/* state rows inserted, updated or deleted */
	int			version;
} WeirBatchFold;

typedef struct WeirBatchRecord
{
	Oid			database;
	bool		is_main;		/* else of a catch-up reader */
	int			nfolds;
	int64		reader_id;
	XLogRecPtr	from_lsn;		/* position before it */
	XLogRecPtr	to_lsn;			/* and after it */
	int64		transactions;
	int64		rows;
	int64		read_us;
	int64		apply_us;
	int64		commit_us;
	TimestampTz committed_at;
} WeirBatchRecord;

/* As it was when copied; folds is NULL when newer batches have taken their place. */
typedef struct WeirBatchCopy
{
	WeirBatchRecord record;
	WeirBatchFold *folds;
} WeirBatchCopy;

/* Postmaster, by weir_shmem.c: the locks are WEIR_BATCH_RINGS of its tranche. */
extern Size weir_batch_history_size(void);
extern void weir_batch_history_startup(LWLockPadded *locks);

/* Readers, after the commit; record->nfolds of folds. Never waits for more than a copy of a ring. */
extern void weir_batch_history_add(const WeirBatchRecord *record, const WeirBatchFold *folds);

/* List of WeirBatchCopy, oldest first. Empty without shared memory. */
extern List *weir_batch_history_copy(Oid database);

#endif							/* WEIR_BATCH_HISTORY_H */
