/*
 * source_change.c - from decoded changes to rows of a batch.
 *
 * Owns the callbacks that stand in for the output plugin's own.  Runs in
 * reader processes, inside the transaction that the reorder buffer opens for
 * each replayed transaction and aborts afterwards; it may look into catalogs
 * (as of the change) and nowhere else, and may not take an XID.  Nothing is
 * on disk but the spill files of tuplestores, which go with the process.
 *
 * Rows are only copied: what is in memory of the change is detoasted into a
 * context that is reset after each change, then the projected columns go to
 * the followed table's tuplestore.  An update is the old row going and the
 * new one coming, unless the projected columns are the same.
 *
 * A change that cannot be represented does not stop the stream: it marks the
 * batch's table as broken, and the versions that follow that table stop.
 */
#include "weir.h"

#include "access/detoast.h"
#include "catalog/pg_class.h"
#include "replication/origin.h"
#include "source/source_internal.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "weir_compat.h"
#include "weir_errors.h"

#define REBUILD_HINT	"Run SELECT weir.rebuild_operator('operator'); for the operators over this table."

/* ---- What stands against a change ---- */

/* The row as it was before is needed and the WAL does not have it. */
static void
break_old_row_missing(WeirSource *source, WeirBatchTable *table, Relation relation, XLogRecPtr lsn,
					  const char *command)
{
	char	   *name = weir_decoded_relation_name(relation);

	weir_batch_break(source->batch, table, lsn, WEIR_ERRCODE_OLD_ROW_MISSING,
					 psprintf("the old row of %s on %s is not in the WAL", command, name),
					 psprintf("The replica identity was %s at %X/%X.",
							  relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL ? "FULL" : "not FULL",
							  LSN_FORMAT_ARGS(lsn)),
					 psprintf("Run ALTER TABLE %s REPLICA IDENTITY FULL; and then, for the operators over it, "
							  "SELECT weir.rebuild_operator('operator');", name));
}

static void
break_stale(WeirSource *source, WeirBatchTable *table, XLogRecPtr lsn, const char *message, const char *detail)
{
	weir_batch_break(source->batch, table, lsn, WEIR_ERRCODE_STALE, message,
					 psprintf("%s The change is at %X/%X.", detail, LSN_FORMAT_ARGS(lsn)),
					 REBUILD_HINT);
}

/* ---- Rows ---- */

/*
 * Makes out-of-line values of a projected row self-contained.  New ones were
 * put together in memory by the reorder buffer; those that an update did not
 * touch are still on disk, perhaps no longer, and are taken from the old row,
 * which has them in full.  False when one cannot be had.
 */
static bool
fetch_toasted(TupleDesc desc, Datum *values, bool *isnull, const Datum *old_values, const bool *old_isnull)
{
	for (int i = 0; i < desc->natts; i++)
	{
		struct varlena *value;

		if (TupleDescAttr(desc, i)->attlen != -1 || isnull[i])
			continue;
		value = (struct varlena *) DatumGetPointer(values[i]);
		if (!VARATT_IS_EXTERNAL(value))
			continue;
		if (!VARATT_IS_EXTERNAL_ONDISK(value))
			values[i] = PointerGetDatum(detoast_external_attr(value));
		else if (old_values != NULL)
		{
			values[i] = old_values[i];
			isnull[i] = old_isnull[i];
		}
		else
			return false;
	}
	return true;
}

/* Takes the projected columns out of a row; they point into it.  old_values: see fetch_toasted. */
static bool
project(WeirRelation *entry, const WeirTarget *target, TupleDesc desc, HeapTuple row,
		Datum *values, bool *isnull, const Datum *old_values, const bool *old_isnull)
{
	TupleTableSlot *slot = entry->slot;

	if (desc->natts == 0)
		return true;
	if (row == NULL)
		return false;

	/* Through a slot: it stops at the last column needed and knows defaults of columns added later. */
	ExecStoreHeapTuple(row, slot, false);
	slot_getsomeattrs(slot, target->last_attnum);
	for (int i = 0; i < desc->natts; i++)
	{
		values[i] = slot->tts_values[target->attnums[i] - 1];
		isnull[i] = slot->tts_isnull[target->attnums[i] - 1];
	}
	return !target->has_varlena || fetch_toasted(desc, values, isnull, old_values, old_isnull);
}

/* Bytewise: a difference that equality does not see (1.0 and 1.00) is one. */
static bool
rows_identical(const WeirSource *source, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (source->new_isnull[i] != source->old_isnull[i])
			return false;
		if (!source->new_isnull[i] &&
			!datumIsEqual(source->new_values[i], source->old_values[i],
						  attribute->attbyval, attribute->attlen))
			return false;
	}
	return true;
}

/* ---- Changes of one followed table ---- */

static void
collect_insert(WeirSource *source, WeirRelation *entry, const WeirTarget *target, WeirBatchTable *table,
			   Relation relation, ReorderBufferChange *change)
{
	TupleDesc	desc = table->table->desc;

	if (!project(entry, target, desc, weir_compat_new_row(change),
				 source->new_values, source->new_isnull, NULL, NULL))
		break_stale(source, table, change->lsn,
					psprintf("a row inserted into %s is not complete in the WAL", weir_decoded_relation_name(relation)),
					"A value that is stored out of line is missing.");
	else
		weir_batch_put(source->batch, table, true, source->new_values, source->new_isnull);
}

static void
collect_delete(WeirSource *source, WeirRelation *entry, const WeirTarget *target, WeirBatchTable *table,
			   Relation relation, ReorderBufferChange *change)
{
	if (!project(entry, target, table->table->desc, weir_compat_old_row(change),
				 source->old_values, source->old_isnull, NULL, NULL))
		break_old_row_missing(source, table, relation, change->lsn, "DELETE");
	else
		weir_batch_put(source->batch, table, false, source->old_values, source->old_isnull);
}

static void
collect_update(WeirSource *source, WeirRelation *entry, const WeirTarget *target, WeirBatchTable *table,
			   Relation relation, ReorderBufferChange *change)
{
	TupleDesc	desc = table->table->desc;

	if (!project(entry, target, desc, weir_compat_old_row(change),
				 source->old_values, source->old_isnull, NULL, NULL))
	{
		break_old_row_missing(source, table, relation, change->lsn, "UPDATE");
		return;
	}
	if (!project(entry, target, desc, weir_compat_new_row(change),
				 source->new_values, source->new_isnull, source->old_values, source->old_isnull))
	{
		break_stale(source, table, change->lsn,
					psprintf("a row updated in %s is not complete in the WAL", weir_decoded_relation_name(relation)),
					"The new row is missing.");
		return;
	}
	if (rows_identical(source, desc))
		return;
	weir_batch_put(source->batch, table, false, source->old_values, source->old_isnull);
	weir_batch_put(source->batch, table, true, source->new_values, source->new_isnull);
}

static void
collect_for_target(WeirSource *source, WeirRelation *entry, const WeirTarget *target,
				   Relation relation, ReorderBufferChange *change)
{
	WeirBatchTable *table = &source->batch->tables[target->table];
	bool		is_insert = (change->action == REORDER_BUFFER_CHANGE_INSERT);

	source->transaction_collected = true;
	if (!is_insert)
		table->retracts = true;
	/* Whoever follows the table stops before this batch: rows would only cost memory. */
	if (table->broken_sqlstate != 0)
		return;
	if (target->objection != NULL)
	{
		break_stale(source, table, change->lsn, target->objection, target->objection_detail);
		return;
	}

	/*
	 * With another identity an old row holds the key columns only, and NULL
	 * for the rest.  Where no column is needed, no old row is.
	 */
	if (!is_insert && table->table->ncolumns > 0 &&
		relation->rd_rel->relreplident != REPLICA_IDENTITY_FULL)
	{
		break_old_row_missing(source, table, relation, change->lsn,
							  change->action == REORDER_BUFFER_CHANGE_UPDATE ? "UPDATE" : "DELETE");
		return;
	}

	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			collect_insert(source, entry, target, table, relation, change);
			break;
		case REORDER_BUFFER_CHANGE_UPDATE:
			collect_update(source, entry, target, table, relation, change);
			break;
		case REORDER_BUFFER_CHANGE_DELETE:
			collect_delete(source, entry, target, table, relation, change);
			break;
		default:
			elog(ERROR, "unexpected change %d of relation %u", (int) change->action, entry->relid);
	}
}

/* ---- Callbacks ---- */

static void
begin_transaction(LogicalDecodingContext *decoding, ReorderBufferTXN *txn)
{
	WeirSource *source = decoding->output_writer_private;

	source->transaction_collected = false;
}

static void
collect_change(LogicalDecodingContext *decoding, ReorderBufferTXN *txn,
			   Relation relation, ReorderBufferChange *change)
{
	WeirSource *source = decoding->output_writer_private;
	MemoryContext caller_context = MemoryContextSwitchTo(source->change_context);
	WeirRelation *entry = weir_relation_map_find(source->relations, relation);

	for (int i = 0; i < entry->ntargets; i++)
		collect_for_target(source, entry, &entry->targets[i], relation, change);

	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(source->change_context);
}

static bool
names_relation(int nrelations, Relation relations[], Oid relid)
{
	for (int i = 0; i < nrelations; i++)
	{
		if (RelationGetRelid(relations[i]) == relid)
			return true;
	}
	return false;
}

/*
 * TRUNCATE of a followed table names it and all its partitions.  When only
 * partitions are named, rows went of which nobody says which they were.
 */
static void
collect_truncate(LogicalDecodingContext *decoding, ReorderBufferTXN *txn,
				 int nrelations, Relation relations[], ReorderBufferChange *change)
{
	WeirSource *source = decoding->output_writer_private;
	WeirBatch  *batch = source->batch;
	MemoryContext caller_context = MemoryContextSwitchTo(source->change_context);

	for (int i = 0; i < nrelations; i++)
	{
		WeirRelation *entry = weir_relation_map_find(source->relations, relations[i]);

		for (int j = 0; j < entry->ntargets; j++)
		{
			const WeirTarget *target = &entry->targets[j];
			WeirBatchTable *table = &batch->tables[target->table];

			source->transaction_collected = true;
			if (!target->is_partition)
				weir_batch_truncate(batch, table);
			else if (!names_relation(nrelations, relations, table->table->relid))
			{
				table->retracts = true;
				break_stale(source, table, change->lsn,
							psprintf("partition %s was truncated alone", weir_decoded_relation_name(relations[i])),
							"The rows it held are not in the WAL.");
			}
		}
	}
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(source->change_context);
}

static void
end_transaction(LogicalDecodingContext *decoding, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	WeirSource *source = decoding->output_writer_private;
	WeirBatch  *batch = source->batch;

	if (!source->transaction_collected)
		return;
	batch->ntransactions++;
	batch->last_commit_end = txn->end_lsn;
	batch->last_commit_time = txn->xact_time.commit_time;
}

/* pg_weir's processes write with DoNotReplicateId: state must not be decoded again. */
static bool
is_own_write(LogicalDecodingContext *decoding, RepOriginId origin)
{
	return origin == DoNotReplicateId;
}

/*
 * Nothing is streamed, but 18 takes an aborted subtransaction for streamed
 * when it has dropped its changes together with those of a large parent, and
 * calls this when it reads the abort.  None of them has been collected.
 */
static void
ignore_abort(LogicalDecodingContext *decoding, ReorderBufferTXN *txn, XLogRecPtr abort_lsn)
{
}

/*
 * The plugin's shutdown stays: it belongs to what its startup, which has run,
 * has set up.  The rest of it is never called again.
 */
void
weir_change_install(WeirSource *source)
{
	LogicalDecodingContext *decoding = source->decoding;
	OutputPluginCallbacks callbacks = {0};

	callbacks.shutdown_cb = decoding->callbacks.shutdown_cb;
	callbacks.begin_cb = begin_transaction;
	callbacks.change_cb = collect_change;
	callbacks.truncate_cb = collect_truncate;
	callbacks.commit_cb = end_transaction;
	callbacks.stream_abort_cb = ignore_abort;
	callbacks.filter_by_origin_cb = is_own_write;
	decoding->callbacks = callbacks;
	decoding->output_writer_private = source;

	/* Prepared transactions arrive at COMMIT PREPARED, large ones at COMMIT. */
	decoding->twophase = false;
	decoding->streaming = false;
}

void
weir_change_collect_into(WeirSource *source, WeirBatch *batch)
{
	int			columns;
	MemoryContext caller_context;

	source->batch = batch;
	if (batch == NULL)
		return;
	weir_relation_map_follow(source->relations, batch);

	columns = Max(weir_relation_map_max_columns(source->relations), 1);
	if (columns <= source->row_size)
		return;
	caller_context = MemoryContextSwitchTo(source->context);
	source->new_values = palloc(columns * sizeof(Datum));
	source->new_isnull = palloc(columns * sizeof(bool));
	source->old_values = palloc(columns * sizeof(Datum));
	source->old_isnull = palloc(columns * sizeof(bool));
	source->row_size = columns;
	MemoryContextSwitchTo(caller_context);
}
