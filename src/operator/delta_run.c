/*
 * delta_run.c - from the rows of a delta query to writes in a state table.
 *
 * Runs in readers, in their apply transaction and the owner's scope. Rows are
 * folded while the executor produces them, one key at a time, so memory does
 * not depend on the number of keys in a batch.  They come ordered by key, a
 * key's old and new rows next to each other: both are folded together, so a
 * key is written at most once per batch, and in key order, the order in which
 * every reader locks rows.
 *
 * Killed here: nothing is on disk but row versions of an unfinished
 * transaction.  It runs no query itself and never sees the batch.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "operator/delta_run.h"
#include "operator/state_internal.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "weir_errors.h"

struct WeirDeltaRun
{
	DestReceiver receiver;		/* first: core hands it back as this type */
	WeirState  *state;
	WeirKeyedTable *table;
	WeirKeyedTable **extremes;	/* side tables to look extremes up in */
	EState	   *estate;
	WeirApplyCounts *counts;
	MemoryContext key_context;	/* of one key */
	bool		may_retract;	/* a key's old and new rows come as two delta rows */
	bool		has_plus;
	bool		has_minus;
	WeirRow		plus;			/* the key under way: copies in key_context */
	WeirRow		minus;
	WeirRow		stored_key;
	WeirRow		hidden;
};

static void
make_row(WeirRow *row, int ncolumns)
{
	row->values = palloc(sizeof(Datum) * Max(ncolumns, 1));
	row->isnull = palloc(sizeof(bool) * Max(ncolumns, 1));
}

static WeirRow
part_of(const WeirRow *row, int first)
{
	WeirRow		part = {row->values + first, row->isnull + first};

	return part;
}

/* ---- one key ---- */

void
weir_state_compose(WeirState *state, const WeirRow *key, const WeirRow *hidden,
				   uint64 hash, WeirRow *row)
{
	const WeirStateLayout *layout = state->layout;

	weir_result_fill(state->result, key, hidden, row);
	for (int i = 0; i < state->def->nkeys; i++)
	{
		row->values[layout->key_attnums[i] - 1] = key->values[i];
		row->isnull[layout->key_attnums[i] - 1] = key->isnull[i];
	}
	memcpy(row->values + layout->first_hidden - 1, hidden->values,
		   sizeof(Datum) * state->def->nhidden);
	memcpy(row->isnull + layout->first_hidden - 1, hidden->isnull,
		   sizeof(bool) * state->def->nhidden);
	row->values[layout->shard - 1] = Int32GetDatum(weir_state_key_shard(state->key, hash));
	row->isnull[layout->shard - 1] = false;
}

static int64
count_in(const WeirRow *hidden, int column)
{
	return hidden && !hidden->isnull[column] ? DatumGetInt64(hidden->values[column]) : 0;
}

/* The key's values go to the log only: not everybody who sees the error may see the rows. */
static void
raise_negative_count(WeirDeltaRun *run, const WeirRow *key, const WeirRow *old, const WeirRow *plus,
					 const WeirRow *minus)
{
	WeirState  *state = run->state;
	int			column = state->fold->negative;
	char	   *detail = psprintf("Column \"%s\" is " INT64_FORMAT ", " INT64_FORMAT
								  " are added and " INT64_FORMAT " removed.",
								  state->def->hidden[column].name, count_in(old, column),
								  count_in(plus, column), count_in(minus, column));

	ereport(ERROR,
			(errcode(WEIR_ERRCODE_STATE_CORRUPT),
			 errmsg("state table \"%s\" contradicts the changes",
					RelationGetRelationName(weir_keyed_table_relation(run->table))),
			 errdetail_internal("%s", detail),
			 errdetail_log("%s Key %s.", detail, weir_state_key_text(state->key, key)),
			 errhint(WEIR_REBUILD_HINT)));
}

/* Replaces the extremes that the fold could not tell by what the side tables say. */
static void
look_up_extremes(WeirDeltaRun *run, const WeirRow *key)
{
	WeirFold   *fold = run->state->fold;

	for (int i = 0; i < fold->nstale; i++)
	{
		int			column = fold->stale[i];
		bool		greatest;
		int			extreme = weir_fold_extreme(fold, column, &greatest);

		run->hidden.isnull[column] = !weir_keyed_table_edge(run->extremes[extreme], key, greatest,
															&run->hidden.values[column]);
	}
}

/* The key as the table has it: of values that are equal but not the same, the first one stays. */
static void
read_stored_key(WeirDeltaRun *run, const WeirRow *current)
{
	const WeirStateLayout *layout = run->state->layout;

	for (int i = 0; i < run->state->def->nkeys; i++)
	{
		run->stored_key.values[i] = current->values[layout->key_attnums[i] - 1];
		run->stored_key.isnull[i] = current->isnull[layout->key_attnums[i] - 1];
	}
}

static void
write_row(WeirDeltaRun *run, bool found, const WeirRow *key)
{
	WeirRow		row = weir_keyed_table_new_row(run->table);

	weir_state_compose(run->state, key, &run->hidden, weir_keyed_table_hash(run->table), &row);
	if (found)
	{
		weir_keyed_table_update(run->table);
		run->counts->updated++;
	}
	else
	{
		weir_keyed_table_insert(run->table);
		run->counts->inserted++;
	}
}

/* plus and minus are delta rows of one key or NULL; both are NULL only without keys. */
static void
fold_key(WeirDeltaRun *run, const WeirRow *plus, const WeirRow *minus)
{
	WeirState  *state = run->state;
	const WeirDefinition *def = state->def;
	const WeirRow *key = plus ? plus : minus ? minus : &run->stored_key;
	WeirRow		plus_hidden = plus ? part_of(plus, def->nkeys) : run->hidden;
	WeirRow		minus_hidden = minus ? part_of(minus, def->nkeys) : run->hidden;
	WeirRow		old = {0};
	bool		found = weir_keyed_table_find(run->table, key);

	run->counts->folds++;
	if (found)
	{
		WeirRow		current = weir_keyed_table_current(run->table);

		read_stored_key(run, &current);
		old = part_of(&current, state->layout->first_hidden - 1);
	}
	if (!weir_fold_combine(state->fold, found ? &old : NULL, plus ? &plus_hidden : NULL,
						   minus ? &minus_hidden : NULL, &run->hidden))
		raise_negative_count(run, key, found ? &old : NULL, plus ? &plus_hidden : NULL,
							 minus ? &minus_hidden : NULL);

	if (def->nkeys > 0 && count_in(&run->hidden, def->atoms[0].first_column) == 0)
	{
		/* The last row of the key went; or came and went within the batch. */
		if (found)
		{
			weir_keyed_table_delete(run->table);
			run->counts->deleted++;
		}
		return;
	}
	look_up_extremes(run, key);
	if (found && !weir_fold_changed(state->fold, &old, &run->hidden))
		return;
	write_row(run, found, found ? &run->stored_key : key);
}

/* ---- receiving delta rows ---- */

static void
fold_pending(WeirDeltaRun *run)
{
	MemoryContext caller_context = MemoryContextSwitchTo(run->key_context);

	if (run->has_plus || run->has_minus)
		fold_key(run, run->has_plus ? &run->plus : NULL, run->has_minus ? &run->minus : NULL);
	run->has_plus = run->has_minus = false;
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(run->key_context);
}

/* Keeps a delta row until the next one shows whether it belongs to the same key. */
static void
keep_row(WeirDeltaRun *run, const WeirRow *row, bool is_plus)
{
	TupleDesc	desc = run->state->delta_desc;
	WeirRow    *kept = is_plus ? &run->plus : &run->minus;
	MemoryContext caller_context;

	if (is_plus ? run->has_plus : run->has_minus)
		elog(ERROR, "delta query returned two rows of one sign for a key of table %u",
			 run->state->relid);
	caller_context = MemoryContextSwitchTo(run->key_context);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		kept->isnull[i] = row->isnull[i];
		kept->values[i] = row->isnull[i] || att->attbyval ? row->values[i] :
			datumCopy(row->values[i], false, att->attlen);
	}
	MemoryContextSwitchTo(caller_context);
	if (is_plus)
		run->has_plus = true;
	else
		run->has_minus = true;
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	WeirDeltaRun   *run = (WeirDeltaRun *) self;
	WeirRow		row;
	bool		same_key = false;

	slot_getallattrs(slot);
	row.values = slot->tts_values;
	row.isnull = slot->tts_isnull;
	if (!run->may_retract)
	{
		/* Each key comes once: nothing to wait for, nothing to copy. */
		MemoryContext caller_context = MemoryContextSwitchTo(run->key_context);

		fold_key(run, &row, NULL);
		MemoryContextSwitchTo(caller_context);
		MemoryContextReset(run->key_context);
		return true;
	}

	if (run->has_plus || run->has_minus)
	{
		MemoryContext caller_context = MemoryContextSwitchTo(run->key_context);

		same_key = weir_state_key_equal(run->state->key, run->has_plus ? &run->plus : &run->minus,
										&row);
		MemoryContextSwitchTo(caller_context);
	}
	if (!same_key)
		fold_pending(run);
	keep_row(run, &row, DatumGetInt32(row.values[slot->tts_tupleDescriptor->natts - 1]) > 0);
	return true;
}

static void
start_receiving(DestReceiver *self, int operation, TupleDesc desc)
{
	weir_state_delta_check(((WeirDeltaRun *) self)->state->delta_desc, desc);
}

static void
end_receiving(DestReceiver *self)
{
}

/* ---- the run ---- */

WeirDeltaRun *
weir_delta_run_begin(WeirState *state, bool may_retract, WeirApplyCounts *counts)
{
	WeirDeltaRun *run = palloc0(sizeof(WeirDeltaRun));

	run->receiver.receiveSlot = receive_row;
	run->receiver.rStartup = start_receiving;
	run->receiver.rShutdown = end_receiving;
	run->receiver.rDestroy = end_receiving;
	/* Of the kinds there are the nearest one; DestNone would count as discarding the rows. */
	run->receiver.mydest = DestTuplestore;
	run->state = state;
	run->counts = counts;
	run->may_retract = may_retract;
	run->key_context = AllocSetContextCreate(CurrentMemoryContext, "weir key", ALLOCSET_DEFAULT_SIZES);
	make_row(&run->plus, state->delta_desc->natts);
	make_row(&run->minus, state->delta_desc->natts);
	make_row(&run->stored_key, state->def->nkeys);
	make_row(&run->hidden, state->def->nhidden);

	run->table = weir_keyed_table_open(state->layout, state->key, state->cache, state->relid);
	run->extremes = palloc(sizeof(WeirKeyedTable *) * Max(state->nextremes, 1));
	for (int i = 0; i < state->nextremes; i++)
	{
		WeirState  *extreme = state->extremes[i];

		run->extremes[i] = weir_keyed_table_open(extreme->layout, extreme->key, extreme->cache,
												 extreme->relid);
	}
	run->estate = CreateExecutorState();
	weir_result_begin(state->result, run->estate);
	return run;
}

DestReceiver *
weir_delta_run_receiver(WeirDeltaRun *run)
{
	return &run->receiver;
}

void
weir_delta_run_fold_nothing(WeirDeltaRun *run)
{
	fold_key(run, NULL, NULL);
}

void
weir_delta_run_end(WeirDeltaRun *run)
{
	fold_pending(run);
	FreeExecutorState(run->estate);
	for (int i = 0; i < run->state->nextremes; i++)
		weir_keyed_table_close(run->extremes[i]);
	weir_keyed_table_close(run->table);
	MemoryContextDelete(run->key_context);
	CommandCounterIncrement();
}

