/*
 * keyed_table.c - a state table, open within one transaction: rows by key.
 *
 * Runs in readers, in their apply transaction, as the operator's owner under
 * restricted operation; state tables have one writer, so rows are not locked
 * before they are changed and a concurrent change is an error that makes the
 * caller repeat the batch.
 *
 * A row is found by the key cache's tuple id, whose key is compared, or by the
 * unique index; without keys by the table's first row.  Rows are written
 * through the table access method and ExecInsertIndexTuples.  The executor's
 * own ModifyTable and ExecSimpleRelation functions are not used because they
 * refuse to update tables without replica identity that some FOR ALL TABLES
 * publication covers.  There are no triggers, constraints or generated columns
 * to care for.
 *
 * Killed here: nothing is on disk but row versions of an unfinished transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "operator/keyed_table.h"
#include "storage/bufmgr.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "weir_compat.h"
#include "weir_errors.h"

/* Free space of a page at which pruning it pays; more for long rows. */
#define PRUNE_BELOW_BYTES	(BLCKSZ / 32)

struct WeirKeyedTable
{
	MemoryContext context;		/* lives as long as the table is open */
	const WeirStateLayout *layout;
	WeirStateKey *key;
	WeirKeyCache *cache;
	Relation	relation;
	BlockNumber nblocks;		/* known to exist */
	BlockNumber pruned;			/* the last one; see should_prune */
	uint32		row_bytes;		/* length of the row last found */
	Snapshot	snapshot;
	EState	   *estate;
	ResultRelInfo *result_rel;	/* its indexes are open */
	int			key_index;		/* which of them is the key's; -1 without keys */
	IndexScanDesc scan;			/* on that index */
	ScanKey		scan_keys;
	uint64		hash;			/* of the key last looked for */
	WeirRow		found_key;		/* work space */
	TupleTableSlot *current;
	TupleTableSlot *new_row;
};

/* Valid, unique, NULLs equal, exactly the key columns in order, no expression or predicate. */
static bool
is_key_index(const WeirStateLayout *layout, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indnullsnotdistinct || !form->indisvalid ||
		!form->indimmediate || form->indnkeyatts != layout->def->nkeys ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < layout->def->nkeys; i++)
	{
		if (form->indkey.values[i] != layout->key_attnums[i])
			return false;
	}
	return true;
}

Oid
weir_keyed_table_find_index(const WeirStateLayout *layout, Relation relation)
{
	List	   *indexes = RelationGetIndexList(relation);
	Oid			result = InvalidOid;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (layout->def->nkeys > 0 && is_key_index(layout, index))
			result = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	return result;
}

/* Equality of each key column as the index knows it. */
static void
init_scan_keys(WeirKeyedTable *table, Relation index)
{
	int			nkeys = table->layout->def->nkeys;

	table->scan_keys = palloc0(sizeof(ScanKeyData) * nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		Oid			operator = get_opfamily_member(index->rd_opfamily[i],
												   index->rd_opcintype[i],
												   index->rd_opcintype[i],
												   BTEqualStrategyNumber);

		if (!OidIsValid(operator))
			elog(ERROR, "no equality in operator family %u for type %u",
				 index->rd_opfamily[i], index->rd_opcintype[i]);
		/* Once, with all look-ups; each search then changes flags and argument only. */
		ScanKeyEntryInitialize(&table->scan_keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i], get_opcode(operator), (Datum) 0);
	}
}

static void
open_key_index(WeirKeyedTable *table)
{
	ResultRelInfo *rel = table->result_rel;
	int			nkeys = table->layout->def->nkeys;

	table->key_index = -1;
	for (int i = 0; i < rel->ri_NumIndices && nkeys > 0; i++)
	{
		if (is_key_index(table->layout, rel->ri_IndexRelationDescs[i]))
			table->key_index = i;
	}
	if (table->key_index >= 0)
	{
		Relation	index = rel->ri_IndexRelationDescs[table->key_index];

		init_scan_keys(table, index);
		table->scan = weir_compat_index_beginscan(table->relation, index, table->snapshot, nkeys);
	}
	else if (nkeys > 0)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STATE_CORRUPT),
				 errmsg("state table \"%s\" has no unique index on its key",
						RelationGetRelationName(table->relation)),
				 errhint(WEIR_REBUILD_HINT)));
}

WeirKeyedTable *
weir_keyed_table_open(const WeirStateLayout *layout, WeirStateKey *key, WeirKeyCache *cache, Oid relid)
{
	WeirKeyedTable *table = palloc0(sizeof(WeirKeyedTable));

	table->context = CurrentMemoryContext;
	table->layout = layout;
	table->key = key;
	table->cache = key->hashable ? cache : NULL;
	table->relation = try_table_open(relid, RowExclusiveLock);
	if (table->relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("state table with OID %u does not exist", relid)));
	weir_state_layout_check(layout, table->relation);
	table->nblocks = RelationGetNumberOfBlocks(table->relation);
	table->pruned = InvalidBlockNumber;
	if (table->cache)
		weir_key_cache_attach(table->cache, table->relation->rd_rel->relfilenode);

	/* Not the transaction's: it must see what this transaction's earlier commands wrote. */
	table->snapshot = RegisterSnapshot(GetLatestSnapshot());
	table->estate = CreateExecutorState();
	table->result_rel = makeNode(ResultRelInfo);
	/* Range table index 0: part of no query, so no column permissions are looked up. */
	InitResultRelInfo(table->result_rel, table->relation, 0, NULL, 0);
	ExecOpenIndices(table->result_rel, false);
	open_key_index(table);

	table->found_key.values = palloc(sizeof(Datum) * Max(key->ncolumns, 1));
	table->found_key.isnull = palloc(sizeof(bool) * Max(key->ncolumns, 1));
	table->current = table_slot_create(table->relation, NULL);
	table->new_row = MakeSingleTupleTableSlot(RelationGetDescr(table->relation), &TTSOpsVirtual);
	return table;
}

void
weir_keyed_table_close(WeirKeyedTable *table)
{
	ExecDropSingleTupleTableSlot(table->new_row);
	ExecDropSingleTupleTableSlot(table->current);
	if (table->scan)
		index_endscan(table->scan);
	ExecCloseIndices(table->result_rel);
	FreeExecutorState(table->estate);
	UnregisterSnapshot(table->snapshot);
	table_close(table->relation, NoLock);
	pfree(table);
}

Relation
weir_keyed_table_relation(WeirKeyedTable *table)
{
	return table->relation;
}

uint64
weir_keyed_table_hash(WeirKeyedTable *table)
{
	return table->hash;
}

/*
 * Fetching by tuple id does not prune the page, as an index scan would have
 * done, and without pruning no update stays HOT.  But core prunes as soon as
 * the room left by fillfactor is touched, that is at each visit, for a few dead
 * rows; it costs a look at every row of the page, so here it waits until the
 * page cannot take the next version (or already could not).  Neighbouring keys
 * tend to be on one page: once is enough for them, because what this
 * transaction has replaced meanwhile cannot go before it ends.
 */
static bool
should_prune(WeirKeyedTable *table, BlockNumber block)
{
	/* Pinned by the slot.  Without a lock, as core does: a wrong answer does no harm. */
	Page		page = BufferGetPage(((BufferHeapTupleTableSlot *) table->current)->buffer);

	return block != table->pruned &&
		(PageIsFull(page) ||
		 PageGetHeapFreeSpace(page) < Max(PRUNE_BELOW_BYTES, 2 * table->row_bytes));
}

/* A page that is pinned cannot be pruned: the slot has to be empty. */
static void
prune(WeirKeyedTable *table, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(table->relation, block);

	heap_page_prune_opt(table->relation, buffer);
	ReleaseBuffer(buffer);
	table->pruned = block;
}

/* Is the tuple id a live row with this key? Then it is the current row. */
static bool
fetch_guess(WeirKeyedTable *table, ItemPointer tid, const WeirRow *key)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);

	if (block >= table->nblocks)
	{
		table->nblocks = RelationGetNumberOfBlocks(table->relation);
		if (block >= table->nblocks)
			return false;
	}

	if (!table_tuple_fetch_row_version(table->relation, tid, table->snapshot, table->current))
		return false;
	table->row_bytes = ((HeapTupleTableSlot *) table->current)->tuple->t_len;
	if (should_prune(table, block))
	{
		ExecClearTuple(table->current);
		prune(table, block);
		if (!table_tuple_fetch_row_version(table->relation, tid, table->snapshot, table->current))
			return false;
	}
	slot_getallattrs(table->current);
	for (int i = 0; i < table->key->ncolumns; i++)
	{
		int			column = table->layout->key_attnums[i] - 1;

		table->found_key.values[i] = table->current->tts_values[column];
		table->found_key.isnull[i] = table->current->tts_isnull[column];
	}
	return weir_state_key_equal(table->key, key, &table->found_key);
}

/* The only row of a table without keys. */
static bool
fetch_only_row(WeirKeyedTable *table)
{
	TableScanDesc scan = table_beginscan(table->relation, table->snapshot, 0, NULL);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, table->current);
	ItemPointerData tid = table->current->tts_tid;

	/* Fetched again, because what a scan puts into a slot ends with the scan. */
	ExecClearTuple(table->current);
	table_endscan(scan);
	return found &&
		table_tuple_fetch_row_version(table->relation, &tid, table->snapshot, table->current);
}

/*
 * nkeys values; with one less than the index has columns, the last must not be
 * NULL.  Callers run in a context that they reset for each key, but index
 * access methods keep what they allocate during a scan.
 */
static bool
fetch_by_index(WeirKeyedTable *table, const WeirRow *key, int nkeys, ScanDirection direction)
{
	MemoryContext caller_context = MemoryContextSwitchTo(table->context);
	int			nscan = table->layout->def->nkeys;
	bool		found;

	for (int i = 0; i < nscan; i++)
	{
		ScanKey		entry = &table->scan_keys[i];
		bool		search_null = i < nkeys && key->isnull[i];

		entry->sk_flags = 0;
		entry->sk_strategy = BTEqualStrategyNumber;
		entry->sk_argument = (Datum) 0;
		if (i >= nkeys || search_null)
		{
			entry->sk_flags = SK_ISNULL | (search_null ? SK_SEARCHNULL : SK_SEARCHNOTNULL);
			entry->sk_strategy = InvalidStrategy;
		}
		else
			entry->sk_argument = key->values[i];
	}
	index_rescan(table->scan, table->scan_keys, nscan, NULL, 0);
	found = index_getnext_slot(table->scan, direction, table->current);
	MemoryContextSwitchTo(caller_context);
	return found;
}

bool
weir_keyed_table_find(WeirKeyedTable *table, const WeirRow *key)
{
	ItemPointerData guess;

	/* Lets go of the buffer: a page that is pinned cannot be pruned. */
	ExecClearTuple(table->current);
	table->hash = weir_state_key_hash(table->key, key);
	if (table->cache && weir_key_cache_find(table->cache, table->hash, &guess))
	{
		if (fetch_guess(table, &guess, key))
			return true;
		ExecClearTuple(table->current);
		weir_key_cache_forget(table->cache, table->hash);
	}

	if (table->layout->def->nkeys == 0 ? !fetch_only_row(table) :
		!fetch_by_index(table, key, table->layout->def->nkeys, ForwardScanDirection))
		return false;
	slot_getallattrs(table->current);
	if (table->cache)
		weir_key_cache_put(table->cache, table->hash, &table->current->tts_tid);
	return true;
}

WeirRow
weir_keyed_table_current(WeirKeyedTable *table)
{
	WeirRow		row = {table->current->tts_values, table->current->tts_isnull};

	return row;
}

WeirRow
weir_keyed_table_new_row(WeirKeyedTable *table)
{
	WeirRow		row = {table->new_row->tts_values, table->new_row->tts_isnull};

	ExecClearTuple(table->new_row);
	return row;
}

void
weir_keyed_table_insert(WeirKeyedTable *table)
{
	ExecStoreVirtualTuple(table->new_row);
	simple_table_tuple_insert(table->relation, table->new_row);
	if (table->result_rel->ri_NumIndices > 0)
	{
		weir_compat_insert_index_tuples(table->result_rel, table->new_row, table->estate,
										false, false);
		ResetPerTupleExprContext(table->estate);
	}
	if (table->cache)
		weir_key_cache_put(table->cache, table->hash, &table->new_row->tts_tid);
}

/*
 * An entry for a new version of a row whose key has not changed.  The row is
 * the only one of its key, as it was; checking that again would visit every
 * version of it that some old snapshot still keeps from being removed, more
 * with each update.
 */
static void
insert_key_entry(WeirKeyedTable *table)
{
	MemoryContext caller_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	for (int i = 0; i < table->layout->def->nkeys; i++)
	{
		int			column = table->layout->key_attnums[i] - 1;

		values[i] = table->new_row->tts_values[column];
		isnull[i] = table->new_row->tts_isnull[column];
	}
	index_insert(table->result_rel->ri_IndexRelationDescs[table->key_index], values, isnull,
				 &table->new_row->tts_tid, table->relation, UNIQUE_CHECK_NO, true,
				 table->result_rel->ri_IndexRelationInfo[table->key_index]);
	MemoryContextSwitchTo(caller_context);
}

/* Indexes that somebody added to read the state; the key's one is hidden meanwhile. */
static void
insert_other_entries(WeirKeyedTable *table, bool only_summarizing)
{
	ResultRelInfo *rel = table->result_rel;
	Relation	key_index = NULL;

	if (table->key_index >= 0)
	{
		key_index = rel->ri_IndexRelationDescs[table->key_index];
		rel->ri_IndexRelationDescs[table->key_index] = NULL;
	}
	weir_compat_insert_index_tuples(rel, table->new_row, table->estate, true, only_summarizing);
	if (table->key_index >= 0)
		rel->ri_IndexRelationDescs[table->key_index] = key_index;
}

void
weir_keyed_table_update(WeirKeyedTable *table)
{
	bool		all_indexes;
	bool		summarizing_indexes;
	int			nothers = table->result_rel->ri_NumIndices - (table->key_index >= 0 ? 1 : 0);

	ExecStoreVirtualTuple(table->new_row);
	weir_compat_table_tuple_update(table->relation, &table->current->tts_tid, table->new_row,
								   table->snapshot, &all_indexes, &summarizing_indexes);
	if (all_indexes && table->key_index >= 0)
		insert_key_entry(table);
	if (nothers > 0 && (all_indexes || summarizing_indexes))
		insert_other_entries(table, !all_indexes);
	ResetPerTupleExprContext(table->estate);
	if (table->cache)
		weir_key_cache_put(table->cache, table->hash, &table->new_row->tts_tid);
}

void
weir_keyed_table_delete(WeirKeyedTable *table)
{
	simple_table_tuple_delete(table->relation, &table->current->tts_tid, table->snapshot);
	if (table->cache)
		weir_key_cache_forget(table->cache, table->hash);
}

bool
weir_keyed_table_edge(WeirKeyedTable *table, const WeirRow *prefix, bool greatest, Datum *value)
{
	int			last = table->layout->def->nkeys - 1;
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(table->relation),
										  table->layout->key_attnums[last] - 1);
	bool		isnull;

	ExecClearTuple(table->current);
	if (!fetch_by_index(table, prefix, last,
						greatest ? BackwardScanDirection : ForwardScanDirection))
		return false;
	*value = datumCopy(slot_getattr(table->current, att->attnum, &isnull),
					   att->attbyval, att->attlen);
	ExecClearTuple(table->current);
	return true;
}

int64
weir_keyed_table_clear(WeirKeyedTable *table)
{
	TableScanDesc scan = table_beginscan(table->relation, table->snapshot, 0, NULL);
	int64		ndeleted = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, table->current))
	{
		CHECK_FOR_INTERRUPTS();
		simple_table_tuple_delete(table->relation, &table->current->tts_tid, table->snapshot);
		ndeleted++;
	}
	table_endscan(scan);
	ExecClearTuple(table->current);
	if (table->cache)
		weir_key_cache_clear(table->cache);
	return ndeleted;
}
