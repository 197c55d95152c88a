/*
 * source_local.c - in-process logical decoding of the local WAL.
 *
 * Owns the decoding context of a process: opening a slot at a position,
 * reading whole transactions into batches, confirming what is durable.  Runs
 * in reader processes, outside of transactions; the reorder buffer opens and
 * aborts one of its own for each transaction that it replays.  Takes no lock
 * between calls; the slot stays acquired while the source is open.
 *
 * On disk: the slot's confirmed and restart positions, written when
 * weir_source_confirm lets them move.  Killed anywhere, the slot yields every
 * commit after its confirmed position again, and weir_source_open is told
 * from which on they count.
 *
 * Two things in here keep data from being lost silently.  Creating a decoding
 * context outside of a transaction makes the process invisible to snapshots
 * (see weir_slot_clear_decoding_flag).  And decoding fills the relation and
 * catalog caches with the catalogs' past, which the present must not use, nor
 * the other way round: see switch_caches.
 *
 * Errors while decoding propagate: the process ends and starts again.
 * Nothing in here looks at pg_weir's catalogs.
 */
#include "weir.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "portability/instr_time.h"
#include "replication/decode.h"
#include "source/source_internal.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "weir_compat.h"
#include "weir_errors.h"

/* How long opening waits for a slot that another process is still letting go of. */
#define SLOT_WAIT_MS		10000
#define SLOT_WAIT_STEP_MS	10

/* Records between two looks at the clock. */
#define RECORDS_PER_CLOCK	64

/* The source whose relation map invalidations concern; a process has at most one. */
static WeirSource *open_source = NULL;

/* A relation may have changed since switch_caches last looked. */
static bool catalog_changed = false;

/* Owner of what decoding takes outside of transactions.  Lasts as long as the process. */
static ResourceOwner decoding_owner = NULL;

/* ---- Caches: past and present ---- */

static void
note_catalog_change(Datum arg, Oid relid)
{
	catalog_changed = true;
	if (open_source != NULL)
		weir_relation_map_forget(open_source->relations, relid);
}

void
weir_source_distrust_caches(void)
{
	catalog_changed = true;
}

/* Up to where the decoder must read to have read all that is inserted so far. */
static XLogRecPtr
end_of_inserted_wal(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();

	/* The end of the last record of a page is before the next page's header, not behind it. */
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		lsn -= SizeOfXLogLongPHD;
	else if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		lsn -= SizeOfXLogShortPHD;
	return lsn;
}

/*
 * Called before decoding goes on from a position and after it has come to
 * one.  While that is before the last catalog change this process has heard
 * of, cached entries of the past and of the present may differ: a relation
 * file that is no more, columns that did not exist yet.  Whoever is next must
 * not find the other's entries, and no invalidation will come for them,
 * because it has been consumed already.  Dropping everything costs half a
 * millisecond (plans are made again), but happens only until the decoder has
 * caught up with the change.
 */
static void
switch_caches(WeirSource *source, XLogRecPtr position)
{
	if (catalog_changed)
		source->diverged_until = end_of_inserted_wal();
	if (position < source->diverged_until)
		InvalidateSystemCaches();
	/* That called us back about every relation. */
	catalog_changed = false;
}

/* ---- Reading WAL ---- */

/*
 * Gives the reader as much of a page as is flushed; -1 if that is less than
 * it needs, whereupon XLogReadRecord returns nothing and can be called again.
 * Core's read_local_xlog_page would wait for more; its _no_wait sibling takes
 * the reader's private data for its own, which here is the decoding context.
 */
static int
read_flushed_page(XLogReaderState *reader, XLogRecPtr page, int needed, XLogRecPtr record, char *buffer)
{
	TimeLineID	timeline;
	XLogRecPtr	available = GetFlushRecPtr(&timeline);
	WALReadError error;

	if (page + needed > available)
		return -1;
	XLogReadDetermineTimeline(reader, page, needed, timeline);
	if (reader->currTLI != timeline)
	{
		timeline = reader->currTLI;
		available = reader->currTLIValidUntil;
		if (page + needed > available)
			return -1;
	}
	if (!WALRead(reader, buffer, page, XLOG_BLCKSZ, timeline, &error))
		WALReadRaiseError(&error);
	return (int) Min(available - page, (XLogRecPtr) XLOG_BLCKSZ);
}

/*
 * Reads the next record, in the context and under the owner that decoding
 * needs: replaying a transaction leaves neither as it was.  False at the end
 * of the flushed WAL.
 */
static bool
read_record(WeirSource *source)
{
	char	   *problem = NULL;
	XLogReaderState *reader = source->decoding->reader;

	MemoryContextSwitchTo(source->context);
	CurrentResourceOwner = decoding_owner;
	if (XLogReadRecord(reader, &problem) != NULL)
		return true;
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read WAL at %X/%X", LSN_FORMAT_ARGS(reader->EndRecPtr)),
				 errdetail("The record cannot be read: %s.", problem)));
	return false;
}

/* ---- Opening and closing ---- */

/* Raises WE005 unless the slot is one of ours and holds every commit after start_lsn. */
static void
read_good_slot(const char *slot_name, XLogRecPtr start_lsn, WeirSlotState *state)
{
	const ReplicationSlotPersistentData *data = &state->data;

	weir_slot_require(slot_name, state);
	if (data->database != MyDatabaseId || strcmp(NameStr(data->plugin), WEIR_SLOT_PLUGIN) != 0)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_SLOT_LOST),
				 errmsg("replication slot \"%s\" is not the one that pg_weir made", slot_name),
				 errdetail("It belongs to database %u and plugin \"%s\".", data->database, NameStr(data->plugin)),
				 errhint(WEIR_SLOT_LOST_HINT)));

	/* CreateDecodingContext would go on from confirmed_flush and only log it. */
	if (!XLogRecPtrIsInvalid(start_lsn) && data->confirmed_flush > start_lsn)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_SLOT_LOST),
				 errmsg("replication slot \"%s\" was confirmed past the position to go on from", slot_name),
				 errdetail("The position is %X/%X, the slot's confirmed_flush_lsn is %X/%X.",
						   LSN_FORMAT_ARGS(start_lsn), LSN_FORMAT_ARGS(data->confirmed_flush)),
				 errhint(WEIR_SLOT_LOST_HINT)));
}

/*
 * Acquires a slot that is good for start_lsn.  A process that ended a moment
 * ago may still have it, which is worth a short wait; for longer than that
 * the caller should fail and say who has it.
 */
static void
acquire_slot(const char *slot_name, XLogRecPtr start_lsn)
{
	static uint32 wait_event = 0;
	WeirSlotState state;

	for (int waited = 0;; waited += SLOT_WAIT_STEP_MS)
	{
		read_good_slot(slot_name, start_lsn, &state);
		if (state.active_pid == 0 || waited >= SLOT_WAIT_MS)
			break;
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, SLOT_WAIT_STEP_MS,
						 weir_compat_wait_event("WeirSlotRelease", &wait_event));
		CHECK_FOR_INTERRUPTS();
	}
	weir_compat_slot_acquire(slot_name);
	/* Others could reach it until now. */
	read_good_slot(slot_name, start_lsn, &state);
}

/* What pgoutput's startup insists on; no publication of that name needs to exist. */
static List *
plugin_options(void)
{
	return list_make2(makeDefElem("proto_version", (Node *) makeString("1"), -1),
					  makeDefElem("publication_names", (Node *) makeString("pg_weir"), -1));
}

WeirSource *
weir_source_open(const char *slot_name, XLogRecPtr start_lsn)
{
	static bool callback_registered = false;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "pg_weir source", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller_context = MemoryContextSwitchTo(context);
	WeirSource *source = palloc0(sizeof(WeirSource));

	if (open_source != NULL)
		elog(ERROR, "this process has a source open already");
	if (decoding_owner == NULL)
		decoding_owner = ResourceOwnerCreate(NULL, "pg_weir source");
	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(note_catalog_change, (Datum) 0);
		callback_registered = true;
	}

	CheckLogicalDecodingRequirements();
	acquire_slot(slot_name, start_lsn);

	source->context = context;
	source->change_context = AllocSetContextCreate(context, "pg_weir change", ALLOCSET_DEFAULT_SIZES);
	source->relations = weir_relation_map_create(context);
	source->start_lsn = XLogRecPtrIsInvalid(start_lsn) ? MyReplicationSlot->data.confirmed_flush : start_lsn;
	source->decoding = CreateDecodingContext(source->start_lsn, plugin_options(), false,
											 XL_ROUTINE(.page_read = read_flushed_page,
														.segment_open = wal_segment_open,
														.segment_close = wal_segment_close),
											 NULL, NULL, NULL);
	weir_slot_clear_decoding_flag();
	weir_change_install(source);
	XLogBeginRead(source->decoding->reader, MyReplicationSlot->data.restart_lsn);

	/* Changes before this moment may be news to the decoder, and never will be to us. */
	open_source = source;
	catalog_changed = true;
	MemoryContextSwitchTo(caller_context);
	return source;
}

void
weir_source_close(WeirSource *source)
{
	FreeDecodingContext(source->decoding);
	ReplicationSlotRelease();
	open_source = NULL;
	InvalidateSystemCaches();
	MemoryContextDelete(source->context);
}

/* ---- Batches ---- */

static bool
time_is_up(const instr_time *start, int max_ms)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *start);
	return INSTR_TIME_GET_MILLISEC(now) >= max_ms;
}

/*
 * Reads until a limit or the end of the flushed WAL.  A transaction is
 * replayed when its commit record is read, so between two records the batch
 * always ends with a commit.  WAL without commits of interest is subject to
 * max_ms too: the batch is then empty although it is "full".
 */
static WeirReadOutcome
read_records(WeirSource *source, const WeirReadLimits *limits)
{
	LogicalDecodingContext *decoding = source->decoding;
	XLogRecPtr	begin = decoding->reader->EndRecPtr;
	int64		nrecords = 0;
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!XLogRecPtrIsInvalid(limits->stop_lsn) && weir_source_scanned_lsn(source) >= limits->stop_lsn)
			return WEIR_READ_STOP_LSN;
		if (limits->max_rows > 0 && source->batch->nrows >= limits->max_rows)
			return WEIR_READ_BATCH_FULL;
		if (limits->max_ms > 0 && nrecords % RECORDS_PER_CLOCK == RECORDS_PER_CLOCK - 1 &&
			time_is_up(&start, limits->max_ms))
			return WEIR_READ_BATCH_FULL;

		if (!read_record(source))
			return WEIR_READ_END_OF_WAL;
		if (nrecords++ == 0)
			switch_caches(source, begin);
		LogicalDecodingProcessRecord(decoding, decoding->reader);
	}
}

/* Adds to the batch, which may hold transactions already. */
WeirReadOutcome
weir_source_read(WeirSource *source, WeirBatch *batch, const WeirReadLimits *limits)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	XLogReaderState *reader = source->decoding->reader;
	XLogRecPtr	begin = reader->EndRecPtr;
	WeirReadOutcome outcome;

	weir_change_collect_into(source, batch);
	outcome = read_records(source, limits);
	weir_change_collect_into(source, NULL);
	if (reader->EndRecPtr != begin)
		switch_caches(source, reader->EndRecPtr);

	CurrentResourceOwner = caller_owner;
	MemoryContextSwitchTo(caller_context);
	return outcome;
}

/* Reading starts before start_lsn, but commits up to there count as read. */
XLogRecPtr
weir_source_scanned_lsn(WeirSource *source)
{
	return Max(source->decoding->reader->EndRecPtr, source->start_lsn);
}

/*
 * A slot's restart position moves when what was decoded at a later one is
 * confirmed.  After a burst that concerned nobody, that may be all that is
 * missing.
 */
bool
weir_source_would_release(WeirSource *source, XLogRecPtr lsn)
{
	ReplicationSlot *slot = MyReplicationSlot;
	bool		would_release;

	SpinLockAcquire(&slot->mutex);
	would_release = !XLogRecPtrIsInvalid(slot->candidate_restart_valid) &&
		slot->candidate_restart_valid <= lsn &&
		slot->candidate_restart_lsn >= slot->data.restart_lsn + wal_segment_size;
	SpinLockRelease(&slot->mutex);
	return would_release;
}

void
weir_source_confirm(WeirSource *source, XLogRecPtr lsn)
{
	if (lsn > weir_source_scanned_lsn(source))
		elog(ERROR, "cannot confirm %X/%X when WAL was read up to %X/%X only",
			 LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(weir_source_scanned_lsn(source)));
	if (lsn > MyReplicationSlot->data.confirmed_flush)
		LogicalConfirmReceivedLocation(lsn);
}

/*
 * Caches were put right at the end of weir_source_read, for every transaction
 * of the process and not for apply alone.  What is left is to make sure that
 * others see this process's XID as running; writing otherwise loses rows.
 */
void
weir_source_before_apply(WeirSource *source, WeirBatch *batch)
{
	if ((MyProc->statusFlags & PROC_IN_LOGICAL_DECODING) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("a process that decodes is about to write while snapshots overlook it"),
				 errdetail("PROC_IN_LOGICAL_DECODING is set; rows it writes could vanish.")));
}

/* ---- For measurements ---- */

static void
drain_begin(LogicalDecodingContext *decoding, ReorderBufferTXN *txn)
{
}

static void
drain_change(LogicalDecodingContext *decoding, ReorderBufferTXN *txn,
			 Relation relation, ReorderBufferChange *change)
{
	WeirDrainCounts *counts = decoding->output_writer_private;

	counts->changes++;
}

static void
drain_commit(LogicalDecodingContext *decoding, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	WeirDrainCounts *counts = decoding->output_writer_private;

	counts->transactions++;
}

/*
 * What decoding alone costs: reads a slot's backlog with callbacks that drop
 * everything, and confirms nothing, so that it can be done again.  Outside of
 * a transaction, as readers decode; inside one, subtransactions cost extra.
 */
void
weir_source_drain_raw(const char *slot_name, XLogRecPtr stop_lsn, WeirDrainCounts *counts)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	WeirSource *source = weir_source_open(slot_name, InvalidXLogRecPtr);
	LogicalDecodingContext *decoding = source->decoding;

	memset(counts, 0, sizeof(WeirDrainCounts));
	decoding->callbacks.begin_cb = drain_begin;
	decoding->callbacks.change_cb = drain_change;
	decoding->callbacks.truncate_cb = NULL;
	decoding->callbacks.commit_cb = drain_commit;
	decoding->output_writer_private = counts;

	switch_caches(source, decoding->reader->EndRecPtr);
	while (XLogRecPtrIsInvalid(stop_lsn) || decoding->reader->EndRecPtr < stop_lsn)
	{
		CHECK_FOR_INTERRUPTS();
		if (!read_record(source))
			break;
		LogicalDecodingProcessRecord(decoding, decoding->reader);
		counts->records++;
	}
	counts->scanned_lsn = weir_source_scanned_lsn(source);
	CurrentResourceOwner = caller_owner;
	weir_source_close(source);
	MemoryContextSwitchTo(caller_context);
}
