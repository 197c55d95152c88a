/*
 * state_build.c - the first fill of a version's state.
 *
 * Runs in readers.  Reading and writing are apart: all queries run in one
 * transaction under the snapshot to build from, their results are kept in
 * tuplestores that outlive transactions (spilling to temporary files), and
 * short transactions then write them, so no long one holds back vacuum or
 * other slots.  Rows go in without indexes and in key order, as later batches
 * will visit them; the unique indexes are made at the end.
 *
 * Killed here: rows of an unfinished build are in the tables, without indexes.
 * Nothing says how far it got, on purpose: the next try starts with
 * weir_state_build_clear and a new snapshot.  Whoever calls must record "built"
 * in the transaction of weir_state_build_finish.  An aborted write or finish
 * spoils the build likewise, because what was taken out of the tuplestores is
 * not put back.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "operator/owner_scope.h"
#include "operator/state_checksum.h"
#include "operator/state_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "weir_guc.h"

/* Rows handed to the table at once: enough to share the work on a page. */
#define ROWS_PER_INSERT 256

/* One table to be filled. */
typedef struct BuildTarget
{
	WeirState  *state;
	Tuplestorestate *rows;		/* delta rows not yet written; NULL when all are */
	WeirStateChecksum written;
} BuildTarget;

struct WeirStateBuild
{
	MemoryContext context;
	int64		nrows;
	int64		nwritten;
	int			ntargets;
	BuildTarget targets[FLEXIBLE_ARRAY_MEMBER];
};

/* One open table while rows are written. */
typedef struct BuildWriter
{
	WeirState  *state;
	Relation	relation;
	EState	   *estate;
	BulkInsertState bulk;
	TupleTableSlot *delta;
	int			nslots;
	TupleTableSlot *slots[ROWS_PER_INSERT];
	MemoryContext row_context;
	WeirRow		hidden;
} BuildWriter;

/* Never released: a build may last for as many transactions as it likes. */
static ResourceOwner build_owner = NULL;

/* ---- reading ---- */

static Tuplestorestate *
begin_rows(MemoryContext context)
{
	MemoryContext caller_context = MemoryContextSwitchTo(context);
	ResourceOwner caller_owner = CurrentResourceOwner;
	Tuplestorestate *rows;

	if (build_owner == NULL)
		build_owner = ResourceOwnerCreate(NULL, "pg_weir state build");
	CurrentResourceOwner = build_owner;
	rows = tuplestore_begin_heap(false, true, weir_guc_batch_memory_kb);
	tuplestore_set_eflags(rows, EXEC_FLAG_REWIND);
	CurrentResourceOwner = caller_owner;
	MemoryContextSwitchTo(caller_context);
	return rows;
}

/* Detoasted, because toasted values may be gone when they are written. */
static void
read_query(WeirStateBuild *build, BuildTarget *target, const char *query, List *functions)
{
	DestReceiver *receiver = CreateDestReceiver(DestTuplestore);
	CachedPlanSource *source;
	SPIExecuteOptions options;
	SPIPlanPtr	plan;
	int			code;

	target->rows = begin_rows(build->context);
	SetTuplestoreDestReceiverParams(receiver, target->rows, build->context, true, NULL, NULL);
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	source = linitial(SPI_plan_get_plan_sources(plan));
	weir_state_delta_check(target->state->delta_desc, source->resultDesc);
	weir_definition_check_calls(target->state->def, functions, source->query_list);
	memset(&options, 0, sizeof(options));
	options.read_only = true;
	options.dest = receiver;
	code = SPI_execute_plan_extended(plan, &options);
	if (code != SPI_OK_SELECT)
		elog(ERROR, "build query of table %u failed: %s", target->state->relid,
			 SPI_result_code_string(code));
	receiver->rDestroy(receiver);
	build->nrows += tuplestore_tuple_count(target->rows);
}

WeirStateBuild *
weir_state_build_read(WeirState *state, const char **queries, List *functions)
{
	MemoryContext caller_context = CurrentMemoryContext;
	MemoryContext context;
	WeirStateBuild *build;
	WeirOwnerScope scope;

	weir_state_build_end(state->build);
	state->build = NULL;
	context = AllocSetContextCreate(state->context, "weir state build", ALLOCSET_DEFAULT_SIZES);
	build = MemoryContextAllocZero(context, offsetof(WeirStateBuild, targets) +
								   sizeof(BuildTarget) * (1 + state->nextremes));
	build->context = context;
	build->ntargets = 1 + state->nextremes;
	build->targets[0].state = state;
	for (int i = 0; i < state->nextremes; i++)
		build->targets[1 + i].state = state->extremes[i];
	/* From here on an error leaves it to the next call, or to weir_state_close. */
	state->build = build;

	weir_state_connect_spi();
	weir_owner_scope_enter(&scope, state->owner);
	for (int i = 0; i < build->ntargets; i++)
		read_query(build, &build->targets[i], queries[i], functions);
	weir_owner_scope_leave(&scope);
	SPI_finish();
	MemoryContextSwitchTo(caller_context);
	return build;
}

/* ---- checking ---- */

/* Key and hidden values of a delta row. */
static void
split_delta(const WeirState *state, TupleTableSlot *slot, WeirRow *key, WeirRow *hidden)
{
	slot_getallattrs(slot);
	key->values = slot->tts_values;
	key->isnull = slot->tts_isnull;
	hidden->values = key->values + state->def->nkeys;
	hidden->isnull = key->isnull + state->def->nkeys;
}

static void
check_delta(WeirState *state, TupleTableSlot *slot, TupleTableSlot *previous, const char *const *names)
{
	WeirRow		key;
	WeirRow		hidden;
	WeirRow		previous_key;
	WeirRow		previous_hidden;
	const char *fault;
	int			column;

	split_delta(state, slot, &key, &hidden);
	fault = weir_fold_seed_fault(state->fold, &hidden, &column);
	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" of the migration %s, for key %s", names[column], fault,
						weir_state_key_text(state->key, &key)),
				 errdetail("A migration gives what the new definition would over the rows counted so far."),
				 errhint("Run it by hand over the old version's state_table in weir.versions: WITH old AS (TABLE ...) SELECT ...")));
	if (TupIsNull(previous))
		return;
	split_delta(state, previous, &previous_key, &previous_hidden);
	if (weir_state_key_equal(state->key, &previous_key, &key))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("the migration gives more than one row for key %s", weir_state_key_text(state->key, &key)),
				 errhint("Merge the old groups in it: GROUP BY the new key, and sum up what is counted.")));
}

/* Equal keys are neighbours. (By an order under which they are not, the unique index finds them.) */
void
weir_state_build_check(WeirStateBuild *build, const char *const *names)
{
	BuildTarget *target = &build->targets[0];
	WeirState  *state = target->state;
	MemoryContext caller_context = MemoryContextSwitchTo(state->work_context);
	TupleTableSlot *slots[2];
	MemoryContext row_context;
	WeirOwnerScope scope;
	int			current = 0;

	weir_owner_scope_enter(&scope, state->owner);
	weir_state_prepare(state);
	for (int i = 0; i < lengthof(slots); i++)
		slots[i] = MakeSingleTupleTableSlot(state->delta_desc, &TTSOpsMinimalTuple);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "weir state build check", ALLOCSET_DEFAULT_SIZES);
	while (tuplestore_gettupleslot(target->rows, true, true, slots[current]))
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(row_context);
		check_delta(state, slots[current], slots[1 - current], names);
		MemoryContextSwitchTo(state->work_context);
		MemoryContextReset(row_context);
		current = 1 - current;
	}
	for (int i = 0; i < lengthof(slots); i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	tuplestore_rescan(target->rows);
	weir_owner_scope_leave(&scope);
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(state->work_context);
}

/* ---- writing ---- */

static void
begin_writer(BuildWriter *writer, WeirState *state)
{
	memset(writer, 0, sizeof(BuildWriter));
	writer->state = state;
	writer->relation = table_open(state->relid, RowExclusiveLock);
	weir_state_layout_check(state->layout, writer->relation);
	/* Rows written past an index would be in the table and never be found. */
	if (RelationGetIndexList(writer->relation) != NIL)
		elog(ERROR, "state table %u has an index before it is built", state->relid);
	writer->estate = CreateExecutorState();
	weir_result_begin(state->result, writer->estate);
	writer->bulk = GetBulkInsertState();
	writer->delta = MakeSingleTupleTableSlot(state->delta_desc, &TTSOpsMinimalTuple);
	for (int i = 0; i < ROWS_PER_INSERT; i++)
		writer->slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(writer->relation), &TTSOpsHeapTuple);
	writer->row_context = AllocSetContextCreate(CurrentMemoryContext, "weir state build row",
												ALLOCSET_DEFAULT_SIZES);
	writer->hidden.values = palloc(sizeof(Datum) * state->def->nhidden);
	writer->hidden.isnull = palloc(sizeof(bool) * state->def->nhidden);
}

static void
flush_slots(BuildWriter *writer)
{
	if (writer->nslots == 0)
		return;
	table_multi_insert(writer->relation, writer->slots, writer->nslots,
					   GetCurrentCommandId(true), 0, writer->bulk);
	for (int i = 0; i < writer->nslots; i++)
		ExecClearTuple(writer->slots[i]);
	writer->nslots = 0;
}

static void
end_writer(BuildWriter *writer)
{
	flush_slots(writer);
	for (int i = 0; i < ROWS_PER_INSERT; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecDropSingleTupleTableSlot(writer->delta);
	FreeBulkInsertState(writer->bulk);
	table_finish_bulk_insert(writer->relation, 0);
	FreeExecutorState(writer->estate);
	table_close(writer->relation, NoLock);
	MemoryContextDelete(writer->row_context);
}

/* From the delta row in the slot to a state row, whose checksum it returns; values it computes live in row_context. */
static uint64
write_delta(BuildWriter *writer)
{
	WeirState  *state = writer->state;
	TupleTableSlot *slot = writer->slots[writer->nslots];
	MemoryContext caller_context = MemoryContextSwitchTo(writer->row_context);
	WeirRow		key;
	WeirRow		delta;
	WeirRow		row;
	uint64		checksum;

	split_delta(state, writer->delta, &key, &delta);
	if (!weir_fold_combine(state->fold, NULL, &delta, NULL, &writer->hidden))
		elog(ERROR, "build query of table %u returned a negative count", state->relid);

	ExecClearTuple(slot);
	row.values = slot->tts_values;
	row.isnull = slot->tts_isnull;
	weir_state_compose(state, &key, &writer->hidden, weir_state_key_hash(state->key, &key), &row);
	ExecStoreVirtualTuple(slot);
	/* A copy of its own: the delta slot and row_context are used for the next row. */
	ExecMaterializeSlot(slot);
	checksum = weir_state_row_checksum(slot);
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(writer->row_context);
	if (++writer->nslots == ROWS_PER_INSERT)
		flush_slots(writer);
	return checksum;
}

/* Up to max_rows rows of one table; true when it has no more. */
static bool
write_target(BuildTarget *target, int64 max_rows, int64 *nwritten)
{
	BuildWriter writer;
	bool		more = true;

	begin_writer(&writer, target->state);
	for (*nwritten = 0; *nwritten < max_rows; (*nwritten)++)
	{
		CHECK_FOR_INTERRUPTS();
		more = tuplestore_gettupleslot(target->rows, true, false, writer.delta);
		if (!more)
			break;
		target->written.sum += write_delta(&writer);
	}
	end_writer(&writer);
	target->written.rows += *nwritten;
	return !more;
}

bool
weir_state_build_write(WeirStateBuild *build, int64 max_rows)
{
	WeirState  *state = build->targets[0].state;
	MemoryContext caller_context = MemoryContextSwitchTo(state->work_context);
	WeirOwnerScope scope;
	bool		all_written = true;

	weir_owner_scope_enter(&scope, state->owner);
	weir_state_prepare(state);
	for (int i = 0; i < build->ntargets; i++)
	{
		BuildTarget *target = &build->targets[i];
		int64		nwritten;

		if (target->rows == NULL)
			continue;
		all_written = false;
		if (max_rows <= 0)
			break;
		if (write_target(target, max_rows, &nwritten))
		{
			tuplestore_end(target->rows);
			target->rows = NULL;
			all_written = true;
		}
		max_rows -= nwritten;
		build->nwritten += nwritten;
	}
	weir_owner_scope_leave(&scope);
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(state->work_context);
	return all_written;
}

int64
weir_state_build_rows_written(WeirStateBuild *build)
{
	return build->nwritten;
}

int64
weir_state_build_rows_total(WeirStateBuild *build)
{
	return build->nrows;
}

/* ---- finishing and clearing ---- */

/* As the worker's own user: state tables and their indexes belong to the extension's owner. */
static void
run_utility(const char *sql)
{
	int			code = SPI_execute(sql, false, 0);

	if (code != SPI_OK_UTILITY)
		elog(ERROR, "\"%s\" failed: %s", sql, SPI_result_code_string(code));
}

static char *
name_of_state_table(WeirState *state)
{
	char	   *name = get_rel_name(state->relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", state->relid);
	return name;
}

uint64
weir_state_build_checksum(WeirStateBuild *build)
{
	uint64		sum = 0;

	for (int i = 0; i < build->ntargets; i++)
		sum += build->targets[i].written.sum;
	return sum;
}

static void
check_written(BuildTarget *target)
{
	Relation	relation = table_open(target->state->relid, AccessShareLock);
	WeirStateChecksum found = weir_state_table_checksum(relation);

	if (found.rows != target->written.rows || found.sum != target->written.sum)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state table \"%s\" does not hold what was written into it", RelationGetRelationName(relation)),
				 errdetail(INT64_FORMAT " rows with checksum " UINT64_FORMAT " were written, " INT64_FORMAT
						   " with " UINT64_FORMAT " are there.",
						   target->written.rows, target->written.sum, found.rows, found.sum),
				 errhint("Look for who else has written to it, and at the server's disks; then start again.")));
	table_close(relation, NoLock);
}

static void
finish_target(WeirState *state)
{
	char	   *sql = weir_state_index_sql(state->def, name_of_state_table(state));

	if (sql)
		run_utility(sql);
}

void
weir_state_build_finish(WeirStateBuild *build)
{
	WeirState  *state = build->targets[0].state;
	MemoryContext caller_context = CurrentMemoryContext;
	WeirOwnerScope scope;

	weir_state_connect_spi();
	for (int i = 0; i < build->ntargets; i++)
	{
		check_written(&build->targets[i]);
		finish_target(build->targets[i].state);
	}
	CommandCounterIncrement();
	MemoryContextSwitchTo(state->work_context);
	weir_owner_scope_enter(&scope, state->owner);
	weir_state_prepare(state);
	weir_state_ensure_only_row(state);
	weir_owner_scope_leave(&scope);
	SPI_finish();
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(state->work_context);
}

/* Without an index again, so that rows can be written past it. */
static void
clear_target(WeirState *state)
{
	Relation	relation = table_open(state->relid, AccessExclusiveLock);
	Oid			index = weir_keyed_table_find_index(state->layout, relation);

	table_close(relation, NoLock);
	if (OidIsValid(index))
		run_utility(psprintf("DROP INDEX %s",
							 quote_qualified_identifier(WEIR_STATE_SCHEMA, get_rel_name(index))));
	run_utility(psprintf("TRUNCATE ONLY %s",
						 quote_qualified_identifier(WEIR_STATE_SCHEMA, name_of_state_table(state))));
	weir_key_cache_clear(state->cache);
}

void
weir_state_build_clear(WeirState *state)
{
	MemoryContext caller_context = CurrentMemoryContext;

	weir_state_build_end(state->build);
	state->build = NULL;
	weir_state_connect_spi();
	clear_target(state);
	for (int i = 0; i < state->nextremes; i++)
		clear_target(state->extremes[i]);
	SPI_finish();
	MemoryContextSwitchTo(caller_context);
}

void
weir_state_build_end(WeirStateBuild *build)
{
	if (build == NULL)
		return;
	for (int i = 0; i < build->ntargets; i++)
	{
		if (build->targets[i].rows)
			tuplestore_end(build->targets[i].rows);
	}
	MemoryContextDelete(build->context);
}
