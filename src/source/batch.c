/*
 * batch.c - the changes of whole transactions, per followed table.
 *
 * Owns the tuplestores that the source fills and the delta queries read.
 * Runs in reader processes.  Nothing is durable here: a killed process loses
 * its batch, and its slot, which was not confirmed past it, yields the same
 * changes again.
 *
 * The tuplestores outlive the transactions they are filled and read in: they
 * are begun under a resource owner that belongs to the process, in a context
 * that no transaction resets.  They are ended and begun anew for each batch,
 * because every scan of a tuplestore leaves a read pointer in it that each
 * later write has to visit, and clearing it keeps them.
 *
 * Does not look into rows and does not know what a version is.
 */
#include "weir.h"

#include "source/batch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "weir_guc.h"

/* Never released: it has to last as long as the longest batch, which is any. */
static ResourceOwner batch_owner = NULL;

/* Ends a table's tuplestores; what they held is gone. */
static void
discard_rows(WeirBatchTable *table)
{
	if (table->plus != NULL)
		tuplestore_end(table->plus);
	if (table->minus != NULL)
		tuplestore_end(table->minus);
	table->plus = table->minus = NULL;
	table->nplus = table->nminus = 0;
}

/* The setting limits what a table holds in memory, and a table has two stores. */
static int
store_kb(const WeirFollowedTable *table, bool plus)
{
	int			share = !table->append_only ? weir_guc_batch_memory_kb / 2 :
		plus ? weir_guc_batch_memory_kb : 0;

	return Max(share, 64);
}

static Tuplestorestate *
begin_store(WeirBatch *batch, int max_kb)
{
	MemoryContext caller_context = MemoryContextSwitchTo(batch->context);
	ResourceOwner caller_owner = CurrentResourceOwner;
	Tuplestorestate *store;

	CurrentResourceOwner = batch_owner;
	store = tuplestore_begin_heap(false, true, max_kb);
	CurrentResourceOwner = caller_owner;
	MemoryContextSwitchTo(caller_context);
	return store;
}

/*
 * An empty batch for these WeirFollowedTables, which must outlive it or its
 * next reset.  It lives until the process ends.
 */
WeirBatch *
weir_batch_create(List *followed_tables)
{
	WeirBatch  *batch = MemoryContextAllocZero(TopMemoryContext, sizeof(WeirBatch));

	if (batch_owner == NULL)
		batch_owner = ResourceOwnerCreate(NULL, "pg_weir batches");
	batch->context = AllocSetContextCreate(TopMemoryContext, "pg_weir batch", ALLOCSET_DEFAULT_SIZES);
	weir_batch_reset(batch, followed_tables);
	return batch;
}

/* Empties the batch and makes it one of these tables. */
void
weir_batch_reset(WeirBatch *batch, List *followed_tables)
{
	ListCell   *cell;

	for (int i = 0; i < batch->ntables; i++)
		discard_rows(&batch->tables[i]);
	batch->ntables = 0;
	batch->tables = NULL;
	MemoryContextReset(batch->context);

	batch->tables = MemoryContextAllocZero(batch->context,
										   Max(list_length(followed_tables), 1) * sizeof(WeirBatchTable));
	foreach(cell, followed_tables)
		batch->tables[batch->ntables++].table = lfirst(cell);
	batch->ntransactions = 0;
	batch->nrows = 0;
	batch->last_commit_end = InvalidXLogRecPtr;
	batch->last_commit_time = 0;
}

/* The changes of a followed table; NULL when the batch is not about it. */
WeirBatchTable *
weir_batch_table(WeirBatch *batch, Oid relid)
{
	for (int i = 0; i < batch->ntables; i++)
	{
		if (batch->tables[i].table->relid == relid)
			return &batch->tables[i];
	}
	return NULL;
}

bool
weir_batch_has_spilled(const WeirBatch *batch)
{
	for (int i = 0; i < batch->ntables; i++)
	{
		const WeirBatchTable *table = &batch->tables[i];

		if ((table->plus != NULL && !tuplestore_in_memory(table->plus)) ||
			(table->minus != NULL && !tuplestore_in_memory(table->minus)))
			return true;
	}
	return false;
}

/* Adds a copy of a row, projected as the followed table's desc says. */
void
weir_batch_put(WeirBatch *batch, WeirBatchTable *table, bool plus, Datum *values, bool *isnull)
{
	Tuplestorestate **store = plus ? &table->plus : &table->minus;

	if (*store == NULL)
		*store = begin_store(batch, store_kb(table->table, plus));
	tuplestore_putvalues(*store, table->table->desc, values, isnull);
	if (plus)
		table->nplus++;
	else
		table->nminus++;
	batch->nrows++;
}

/* The table was emptied: whatever was collected of it before no longer counts. */
void
weir_batch_truncate(WeirBatch *batch, WeirBatchTable *table)
{
	batch->nrows -= table->nplus + table->nminus;
	discard_rows(table);
	table->truncated = true;
	table->retracts = true;
}

/*
 * Says that a change of the table cannot be represented.  Only the first one
 * is kept: it names the LSN up to which the table was still understood.
 */
void
weir_batch_break(WeirBatch *batch, WeirBatchTable *table, XLogRecPtr lsn, int sqlstate,
				 const char *message, const char *detail, const char *hint)
{
	if (table->broken_sqlstate != 0)
		return;
	table->broken_sqlstate = sqlstate;
	table->broken_lsn = lsn;
	table->broken_message = MemoryContextStrdup(batch->context, message);
	table->broken_detail = MemoryContextStrdup(batch->context, detail);
	table->broken_hint = MemoryContextStrdup(batch->context, hint);
}
