/*
 * source_local.h - in-process logical decoding of the local WAL.
 *
 * One long-lived decoding context per process, outside transactions.  The
 * slot's plugin is pgoutput; its callbacks are replaced in process, so changes
 * arrive as tuples.  This module never looks at pg_weir's catalogs.
 */
#ifndef WEIR_SOURCE_LOCAL_H
#define WEIR_SOURCE_LOCAL_H

#include "weir.h"
#include "source/batch.h"
#include "utils/snapshot.h"

typedef struct WeirSource WeirSource;

typedef enum WeirReadOutcome
{
	WEIR_READ_END_OF_WAL,		/* read all flushed WAL */
	WEIR_READ_BATCH_FULL,		/* a limit was reached at a commit boundary */
	WEIR_READ_STOP_LSN			/* the next record would start at or after stop_lsn */
} WeirReadOutcome;

typedef struct WeirReadLimits
{
	int64		max_rows;
	int			max_ms;
	XLogRecPtr	stop_lsn;		/* Invalid: none. Checked before each record: EndRecPtr >= stop_lsn */
} WeirReadLimits;

/*
 * Acquires the slot and creates the context.  Commits that end at or before
 * start_lsn are skipped.  Errors: 55000 + WEIR_ERRCODE_SLOT_LOST when the slot
 * is gone or invalidated or confirmed past start_lsn (never forwards silently).
 */
extern WeirSource *weir_source_open(const char *slot_name, XLogRecPtr start_lsn);
extern void weir_source_close(WeirSource *source);	/* frees context, releases slot */

/* Reads whole transactions into batch until a limit or the end of flushed WAL. */
extern WeirReadOutcome weir_source_read(WeirSource *source, WeirBatch *batch, const WeirReadLimits *limits);

/* Everything before this LSN has been read (record boundary); commits in it are in batches already returned. */
extern XLogRecPtr weir_source_scanned_lsn(WeirSource *source);

/* True when confirming up to lsn would let the server drop a segment of WAL or more. */
extern bool weir_source_would_release(WeirSource *source, XLogRecPtr lsn);

/* Tells the slot that lsn is durable here; never backwards, cheap when nothing moves. */
extern void weir_source_confirm(WeirSource *source, XLogRecPtr lsn);

/*
 * Refuses (XX000) to let a process write whose XID others would overlook; call
 * before each apply transaction.  Stale cache entries that decoding left are
 * gone already when weir_source_read returns.
 */
extern void weir_source_before_apply(WeirSource *source, WeirBatch *batch);

/* Slots; all to be called without an XID and without holding another slot. */
/* Creates slot with its exported snapshot; must be called inside a fresh REPEATABLE READ transaction
 * that this function turns to that snapshot (RestoreTransactionSnapshot). Leaves the slot acquired and
 * ephemeral; weir_slot_persist makes it survive, weir_slot_release lets go of it.  need_snapshot false:
 * only a start position (may be called outside of a transaction's snapshot use). */
extern XLogRecPtr weir_slot_create(const char *slot_name, bool need_snapshot);
extern void weir_slot_persist_and_release(void);
/* After an error, once the transaction is aborted: lets go of the slot this process has, if any. */
extern void weir_slot_release(void);
/* Copies an existing slot (may be active elsewhere). Returns the copy's confirmed_flush. */
extern XLogRecPtr weir_slot_copy(const char *from, const char *to);
extern void weir_slot_drop(const char *slot_name);	/* missing: no error; active elsewhere: 55006 */
extern bool weir_slot_exists(const char *slot_name, XLogRecPtr *confirmed_flush, XLogRecPtr *restart_lsn,
							 bool *invalidated, int *active_pid);
/* Names of this database's slots that pg_weir made (prefix weir_<dboid>_). List of char * */
extern List *weir_slot_list(Oid database);

/* For benchmarks: decodes a slot's backlog up to stop_lsn (Invalid: all) and drops every change. Confirms nothing. */
typedef struct WeirDrainCounts
{
	int64		records;
	int64		transactions;
	int64		changes;
	XLogRecPtr	scanned_lsn;
} WeirDrainCounts;

extern void weir_source_drain_raw(const char *slot_name, XLogRecPtr stop_lsn, WeirDrainCounts *counts);

#endif							/* WEIR_SOURCE_LOCAL_H */
