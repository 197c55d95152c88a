/*
 * weir_batch_history.c - the last batches of each database, in shared memory.
 *
 * Reserved by the postmaster (about 3 MB); written by readers after each
 * commit, copied by sessions that look at weir.batches. A table would cost a
 * row, its WAL and its vacuum for each batch, which is the smallest unit of
 * work there is.
 *
 * A ring is two arrays used round and round: batches, and what their versions
 * did, because a batch may fold one version or a hundred. Both are numbered
 * from 0 for ever, so that a number tells whether its place was used again.
 * Each ring has a lock of its own; nothing is allocated, logged or waited for
 * while it is held. Nothing is initialised but the counters: what lies at or
 * beyond them is never looked at.
 */
#include "weir.h"
#include "weir_batch_history.h"

#include "miscadmin.h"
#include "storage/shmem.h"

#include "weir_shmem_layout.h"

typedef struct Entry
{
	WeirBatchRecord record;
	uint64		first_fold;
} Entry;

typedef struct Ring
{
	uint64		nbatches;		/* ever added */
	uint64		nfolds;
	Entry		batches[WEIR_RING_BATCHES];
	WeirBatchFold folds[WEIR_RING_FOLDS];
} Ring;

typedef struct History
{
	LWLockPadded *locks;
	Ring		rings[WEIR_BATCH_RINGS];
} History;

static History *history = NULL;

Size
weir_batch_history_size(void)
{
	return MAXALIGN(sizeof(History));
}

void
weir_batch_history_startup(LWLockPadded *locks)
{
	bool		found;

	history = ShmemInitStruct("pg_weir batches", sizeof(History), &found);
	if (found)
		return;
	history->locks = locks;
	for (int i = 0; i < WEIR_BATCH_RINGS; i++)
	{
		history->rings[i].nbatches = 0;
		history->rings[i].nfolds = 0;
	}
}

void
weir_batch_history_add(const WeirBatchRecord *record, const WeirBatchFold *folds)
{
	int			number = Max(weir_shmem_find_database(record->database), 0) % WEIR_BATCH_RINGS;
	Ring	   *ring = &history->rings[number];
	Entry	   *entry;

	LWLockAcquire(&history->locks[number].lock, LW_EXCLUSIVE);
	entry = &ring->batches[ring->nbatches++ % WEIR_RING_BATCHES];
	entry->record = *record;
	entry->record.nfolds = Min(record->nfolds, WEIR_RING_FOLDS);
	entry->first_fold = ring->nfolds;
	for (int i = 0; i < entry->record.nfolds; i++)
		ring->folds[ring->nfolds++ % WEIR_RING_FOLDS] = folds[i];
	LWLockRelease(&history->locks[number].lock);
}

static WeirBatchCopy *
make_copy(const Ring *ring, const Entry *entry)
{
	WeirBatchCopy *copy = palloc(sizeof(WeirBatchCopy));

	copy->record = entry->record;
	copy->folds = NULL;
	if (entry->first_fold + WEIR_RING_FOLDS < ring->nfolds)
		return copy;
	copy->folds = palloc(sizeof(WeirBatchFold) * Max(entry->record.nfolds, 1));
	for (int i = 0; i < entry->record.nfolds; i++)
		copy->folds[i] = ring->folds[(entry->first_fold + i) % WEIR_RING_FOLDS];
	return copy;
}

List *
weir_batch_history_copy(Oid database)
{
	List	   *copies = NIL;
	Ring	   *ring;

	if (history == NULL)
		return NIL;
	ring = palloc(sizeof(Ring));
	/* All of them: a database that was without readers for a while may have got another ring. */
	for (int number = 0; number < WEIR_BATCH_RINGS; number++)
	{
		LWLockAcquire(&history->locks[number].lock, LW_SHARED);
		if (history->rings[number].nbatches == 0)
			ring->nbatches = 0;
		else
			memcpy(ring, &history->rings[number], sizeof(Ring));
		LWLockRelease(&history->locks[number].lock);

		for (uint64 i = ring->nbatches - Min(ring->nbatches, WEIR_RING_BATCHES); i < ring->nbatches; i++)
		{
			const Entry *entry = &ring->batches[i % WEIR_RING_BATCHES];

			if (entry->record.database == database)
				copies = lappend(copies, make_copy(ring, entry));
		}
	}
	pfree(ring);
	return copies;
}
