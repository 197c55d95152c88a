/*
 * weir_slot.c - replication slots: create, copy, drop, look at.
 *
 * Runs in workers, none of which holds another slot or has an XID when it
 * calls.  Slots are not transactional: what these functions did stays done
 * when the caller's transaction rolls back, so callers commit their intent
 * first and can repeat each call.
 *
 * On disk: a slot being created is ephemeral and goes with the process;
 * persisted or copied it stays until dropped, holding WAL and catalog rows.
 * After an error in here the process either ends, which lets go of a slot it
 * has, or calls weir_slot_release after it has aborted its transaction.
 *
 * Does not know which reader a slot belongs to.
 */
#include "weir.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/snapbuild.h"
#include "source/source_internal.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "weir_compat.h"
#include "weir_errors.h"

/*
 * A decoding context created outside of a transaction declares that this
 * process only decodes: GetSnapshotData and ComputeXidHorizons then overlook
 * its XID and xmin until the slot is released.  Of a process that also
 * writes, other sessions would take the running XID for an aborted one and
 * hint its rows as dead, for ever, even after it has committed.  Decoding
 * does not need the flag: the slot protects what it reads.
 */
void
weir_slot_clear_decoding_flag(void)
{
	LWLockAcquire(ProcArrayLock, LW_EXCLUSIVE);
	MyProc->statusFlags &= ~PROC_IN_LOGICAL_DECODING;
	ProcGlobal->statusFlags[MyProc->pgxactoff] = MyProc->statusFlags;
	LWLockRelease(ProcArrayLock);
}

bool
weir_slot_read(const char *slot_name, WeirSlotState *state)
{
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (!slot->in_use || strcmp(NameStr(slot->data.name), slot_name) != 0)
			continue;
		SpinLockAcquire(&slot->mutex);
		state->data = slot->data;
		state->active_pid = slot->active_pid;
		SpinLockRelease(&slot->mutex);
		found = true;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/* Like weir_slot_read; raises WE005 when the slot is not there or its WAL is gone. */
void
weir_slot_require(const char *slot_name, WeirSlotState *state)
{
	const char *reason;

	if (!weir_slot_read(slot_name, state))
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_SLOT_LOST),
				 errmsg("replication slot \"%s\" does not exist", slot_name),
				 errhint(WEIR_SLOT_LOST_HINT)));
	reason = weir_compat_slot_invalidation(&state->data);
	if (reason != NULL)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_SLOT_LOST),
				 errmsg("replication slot \"%s\" was invalidated", slot_name),
				 errdetail("The reason is %s.", reason),
				 errhint(WEIR_SLOT_LOST_HINT)));
	if (XLogRecPtrIsInvalid(state->data.restart_lsn) || XLogRecPtrIsInvalid(state->data.confirmed_flush))
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_SLOT_LOST),
				 errmsg("replication slot \"%s\" holds no WAL", slot_name),
				 errhint(WEIR_SLOT_LOST_HINT)));
}

/* Facts about a slot; any of the pointers may be NULL.  False when there is no such slot. */
bool
weir_slot_exists(const char *slot_name, XLogRecPtr *confirmed_flush, XLogRecPtr *restart_lsn,
				 bool *invalidated, int *active_pid)
{
	WeirSlotState state;

	/* A cloned database's rows name the slots of its original: not ours to look at, or to drop. */
	if (!weir_slot_read(slot_name, &state) || state.data.database != MyDatabaseId)
		return false;
	if (confirmed_flush != NULL)
		*confirmed_flush = state.data.confirmed_flush;
	if (restart_lsn != NULL)
		*restart_lsn = state.data.restart_lsn;
	if (invalidated != NULL)
		*invalidated = weir_compat_slot_invalidation(&state.data) != NULL;
	if (active_pid != NULL)
		*active_pid = state.active_pid;
	return true;
}

static void
wait_for_mark(TransactionId xid, Snapshot snapshot)
{
	static uint32 wait_event = 0;

	while (!XidInMVCCSnapshot(xid, snapshot) && !TransactionIdDidCommit(xid) && TransactionIdIsInProgress(xid))
	{
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1,
						 weir_compat_wait_event("WeirCommitMark", &wait_event));
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * A slot's snapshot knows from the WAL who has committed, and the WAL knows it
 * first: a commit record can be flushed, by anybody, well before the process
 * that wrote it has marked its transaction as committed.  Whoever looked at a
 * row of it under this snapshot in between would find a transaction that is
 * neither running nor committed, take it for aborted and say so in the row's
 * hint bits: the row would be gone for everybody, for ever.  So this waits
 * until every transaction that the snapshot sees is marked.  (Not until it has
 * ended: that may take as long as a synchronous standby likes.)  Some minor
 * releases of the server, like 15.20, wait by themselves; most do not.
 */
static void
wait_for_marked_commits(Snapshot snapshot)
{
	Snapshot	present = GetLatestSnapshot();
	TransactionId xid = present->xmax;

	/* Who has been marked is not running any more. The present snapshot lists who runs below its xmax only. */
	for (uint32 i = 0; i < present->xcnt; i++)
		wait_for_mark(present->xip[i], snapshot);
	while (TransactionIdPrecedes(xid, snapshot->xmax))
	{
		wait_for_mark(xid, snapshot);
		TransactionIdAdvance(xid);
	}
}

/*
 * Creates an ephemeral slot and leaves it acquired; returns the LSN that the
 * changes start after.  Waits for every transaction of the cluster that has
 * written by then to end, however long that takes: callers say so somewhere
 * before, and may be cancelled while it does.
 *
 * need_snapshot: the caller has just started a REPEATABLE READ transaction
 * (no snapshot yet, no XID), whose snapshot becomes the one that sees exactly
 * the commits before the returned LSN.  The slot holds back the removal of
 * data rows until weir_slot_persist_and_release, the transaction from then on.
 */
XLogRecPtr
weir_slot_create(const char *slot_name, bool need_snapshot)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_weir slot creation",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller_context = MemoryContextSwitchTo(context);
	ResourceOwner caller_owner = CurrentResourceOwner;
	LogicalDecodingContext *decoding;
	XLogRecPtr	start_lsn;

	if (need_snapshot && (!IsTransactionState() || XactIsoLevel != XACT_REPEATABLE_READ || FirstSnapshotSet))
		elog(ERROR, "a slot's snapshot needs a fresh REPEATABLE READ transaction");

	CheckLogicalDecodingRequirements();
	weir_compat_slot_create(slot_name);

	/* Waiting for transactions takes locks, which need an owner outside of a transaction too. */
	if (CurrentResourceOwner == NULL)
		CurrentResourceOwner = ResourceOwnerCreate(NULL, "pg_weir slot creation");
	decoding = CreateInitDecodingContext(WEIR_SLOT_PLUGIN, NIL, need_snapshot, InvalidXLogRecPtr,
										 XL_ROUTINE(.page_read = read_local_xlog_page,
													.segment_open = wal_segment_open,
													.segment_close = wal_segment_close),
										 NULL, NULL, NULL);
	weir_slot_clear_decoding_flag();
	DecodingContextFindStartpoint(decoding);
	start_lsn = MyReplicationSlot->data.confirmed_flush;
	if (need_snapshot)
	{
		Snapshot	snapshot = SnapBuildInitialSnapshot(decoding->snapshot_builder);

		RestoreTransactionSnapshot(snapshot, MyProc);
		wait_for_marked_commits(snapshot);
	}
	FreeDecodingContext(decoding);

	if (CurrentResourceOwner != caller_owner)
	{
		ResourceOwner own = CurrentResourceOwner;

		CurrentResourceOwner = caller_owner;
		ResourceOwnerDelete(own);
	}
	MemoryContextSwitchTo(caller_context);
	MemoryContextDelete(context);
	return start_lsn;
}

/* The slot that weir_slot_create made survives from here on, and nobody has it. */
void
weir_slot_persist_and_release(void)
{
	ReplicationSlotPersist();
	ReplicationSlotRelease();
}

/* Lets go of the slot this process has, if any; an ephemeral one is dropped with that. */
void
weir_slot_release(void)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/*
 * Copies a slot, which may be in use, and returns the copy's confirmed_flush:
 * every commit after it can be read from the copy.  State that is to go on
 * from the copy must be read after this returns, or its position may be
 * before it.  In a transaction of the caller's, or else in one of its own.
 */
XLogRecPtr
weir_slot_copy(const char *from, const char *to)
{
	bool		own_transaction = !IsTransactionState();
	WeirSlotState state;
	NameData	from_name,
				to_name,
				plugin;

	weir_slot_require(from, &state);
	namestrcpy(&from_name, from);
	namestrcpy(&to_name, to);
	namestrcpy(&plugin, WEIR_SLOT_PLUGIN);

	/* The server copies slots in an SQL function only; its result type is looked up in the catalog. */
	if (own_transaction)
		StartTransactionCommand();
	(void) OidFunctionCall4(F_PG_COPY_LOGICAL_REPLICATION_SLOT_NAME_NAME_BOOL_NAME,
							NameGetDatum(&from_name), NameGetDatum(&to_name),
							BoolGetDatum(false), NameGetDatum(&plugin));
	if (own_transaction)
		CommitTransactionCommand();

	if (!weir_slot_read(to, &state))
		elog(ERROR, "slot \"%s\" is gone right after it was copied from \"%s\"", to, from);
	return state.data.confirmed_flush;
}

/* Nothing happens when there is no such slot; 55006 when another process has it. */
void
weir_slot_drop(const char *slot_name)
{
	WeirSlotState state;

	if (weir_slot_read(slot_name, &state) && state.data.database == MyDatabaseId)
		ReplicationSlotDrop(slot_name, true);
}

/* Names of the database's slots that pg_weir made, in CurrentMemoryContext. */
List *
weir_slot_list(Oid database)
{
	char	   *prefix = psprintf("weir_%u_", database);
	NameData   *names = palloc(max_replication_slots * sizeof(NameData));
	int			nnames = 0;
	List	   *result = NIL;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use && slot->data.database == database &&
			strncmp(NameStr(slot->data.name), prefix, strlen(prefix)) == 0)
			names[nnames++] = slot->data.name;
	}
	LWLockRelease(ReplicationSlotControlLock);

	for (int i = 0; i < nnames; i++)
		result = lappend(result, pstrdup(NameStr(names[i])));
	pfree(names);
	pfree(prefix);
	return result;
}
