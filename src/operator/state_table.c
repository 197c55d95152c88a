/*
 * state_table.c - one version's state: opening it, folding a batch into it.
 *
 * Owns WeirState, which lives across a reader's transactions and holds, between
 * them, no lock and no relation, only saved plans and guesses where rows are.
 *
 * A batch is applied in this order, all in the caller's transaction: side
 * tables of the extremes, then the state table, so that an extreme that went
 * finds its successor in a side table that already holds the batch.  Every
 * query and every write of it is done with the owner's rights.
 *
 * Killed here: nothing is on disk but row versions of an unfinished
 * transaction.  After an error the caller ends the (sub)transaction and calls
 * weir_state_aborted; nothing else is needed before the next try.
 *
 * It does not decide what a batch is, starts and ends no transaction, and
 * knows no catalog of pg_weir.
 */
#include "postgres.h"

#include "access/xact.h"
#include "operator/delta_run.h"
#include "operator/owner_scope.h"
#include "operator/state_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "weir_errors.h"

/*
 * What the planner is told of a batch's size. A fixed number, because the plan
 * is saved: the first batch must not shape it for all later ones.
 */
#define EXPECTED_BATCH_ROWS 10000

static WeirState *
open_one(const WeirDefinition *def, Oid relid, Oid owner, int cache_sharers)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "weir state",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller_context = MemoryContextSwitchTo(context);
	WeirState  *state = palloc0(sizeof(WeirState));

	state->context = context;
	state->work_context = AllocSetContextCreate(context, "weir state work", ALLOCSET_DEFAULT_SIZES);
	state->def = def;
	state->relid = relid;
	state->owner = owner;
	state->layout = weir_state_layout_create(def);
	state->delta_desc = weir_state_delta_desc(def);
	state->cache = weir_key_cache_create(cache_sharers);
	MemoryContextSwitchTo(caller_context);
	return state;
}

WeirState *
weir_state_open(const WeirDefinition *def, Oid state_relid, const Oid *extreme_relids, Oid owner)
{
	int			cache_sharers = 1 + def->nextremes;
	WeirState  *state = open_one(def, state_relid, owner, cache_sharers);
	MemoryContext caller_context = MemoryContextSwitchTo(state->context);

	state->extremes = palloc0(sizeof(WeirState *) * Max(def->nextremes, 1));
	for (; state->nextremes < def->nextremes; state->nextremes++)
		state->extremes[state->nextremes] = open_one(def->extremes[state->nextremes],
													 extreme_relids[state->nextremes], owner,
													 cache_sharers);
	MemoryContextSwitchTo(caller_context);
	return state;
}

static void
free_plan(WeirDeltaPlan *plan)
{
	if (plan->plan)
		SPI_freeplan(plan->plan);
	plan->plan = NULL;
	if (plan->desc)
		FreeTupleDesc(plan->desc);
	plan->desc = NULL;
}

void
weir_state_close(WeirState *state)
{
	weir_state_build_end(state->build);
	for (int i = 0; i < state->nextremes; i++)
		weir_state_close(state->extremes[i]);
	for (int i = 0; i < lengthof(state->plans); i++)
		free_plan(&state->plans[i]);
	MemoryContextDelete(state->context);
}

void
weir_state_prepare(WeirState *state)
{
	MemoryContext caller_context;

	if (state->is_prepared)
		return;
	caller_context = MemoryContextSwitchTo(state->context);
	state->key = weir_state_key_create(state->def);
	state->fold = weir_fold_create(state->def);
	state->result = weir_result_create(state->def);
	for (int i = 0; i < state->nextremes; i++)
		weir_state_prepare(state->extremes[i]);
	state->is_prepared = true;
	MemoryContextSwitchTo(caller_context);
}

void
weir_state_connect_spi(void)
{
	int			code = SPI_connect();

	if (code != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(code));
}

/* ---- one table ---- */

void
weir_state_ensure_only_row(WeirState *state)
{
	WeirApplyCounts counts = {0};
	WeirDeltaRun *run;

	if (state->def->nkeys > 0)
		return;
	run = weir_delta_run_begin(state, false, &counts);
	weir_delta_run_fold_nothing(run);
	weir_delta_run_end(run);
}

/*
 * Names may change while a text is analysed: the plan is right when the text
 * made afterwards is the one that was analysed.  That nothing was heard of any
 * change shows it, too, but is too much to ask for: what the owner's functions
 * try and take back while constants are read counts as a change each time.
 */
#define PREPARE_ATTEMPTS 8

static SPIPlanPtr
prepare_delta(WeirState *state, const WeirFollowedTable *table, bool with_minus)
{
	char	   *analysed = NULL;
	SPIPlanPtr	plan = NULL;

	for (int attempt = 0; attempt < PREPARE_ATTEMPTS; attempt++)
	{
		char	   *text;

		weir_definition_refresh_names(unconstify(WeirDefinition *, state->def));
		text = weir_definition_delta_sql(state->def, table, with_minus);
		if (analysed != NULL && strcmp(text, analysed) == 0)
			return plan;
		plan = SPI_prepare(text, 0, NULL);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		analysed = text;
		if (state->def->names_seen == weir_definition_name_changes())
			return plan;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("names in the definition keep changing while it is analysed"),
			 errdetail("It was analysed %d times.", PREPARE_ATTEMPTS),
			 errhint("Look for a function that renames what the definition uses.")));
}

/* The delta query for a batch of this shape, prepared at first use. */
static SPIPlanPtr
delta_plan(WeirState *state, const WeirFollowedTable *table, bool with_minus)
{
	TupleDesc	desc = table->desc;
	WeirDeltaPlan *saved = &state->plans[with_minus];
	MemoryContext caller_context;
	SPIPlanPtr	plan;

	/* One that is not valid would be analysed again unseen. */
	if (saved->plan && equalTupleDescs(saved->desc, desc) && SPI_plan_is_valid(saved->plan))
		return saved->plan;
	free_plan(saved);
	plan = prepare_delta(state, table, with_minus);
	weir_definition_check_calls(state->def, NIL,
								linitial_node(CachedPlanSource, SPI_plan_get_plan_sources(plan))->query_list);
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed for the delta query of table %u", state->relid);
	saved->plan = plan;
	caller_context = MemoryContextSwitchTo(state->context);
	saved->desc = CreateTupleDescCopyConstr(desc);
	MemoryContextSwitchTo(caller_context);
	return plan;
}

/* Runs the delta query over the registered changes and folds its rows. */
static void
apply_delta(WeirState *state, const WeirBatchTable *table, WeirApplyCounts *counts)
{
	bool		with_minus = table->nminus > 0;
	WeirDeltaRun *run = weir_delta_run_begin(state, with_minus, counts);
	/* After the tables are open: locking them may be how we learn of changes that make a plan invalid. */
	SPIPlanPtr	plan = delta_plan(state, table->table, with_minus);
	SPIExecuteOptions options;
	int			code;

	memset(&options, 0, sizeof(options));
	/* The query itself only reads, under the caller's snapshot, the same for every version. */
	options.read_only = true;
	options.dest = weir_delta_run_receiver(run);
	code = SPI_execute_plan_extended(plan, &options);
	if (code != SPI_OK_SELECT)
		elog(ERROR, "delta query of table %u failed: %s", state->relid,
			 SPI_result_code_string(code));
	weir_delta_run_end(run);
}

/* ---- one batch ---- */

static char *
table_name(Oid relid)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	if (name == NULL || schema == NULL)
		return psprintf("with OID %u", relid);
	return quote_qualified_identifier(schema, name);
}

static void
raise_not_append_only(const WeirBatch *batch, const WeirBatchTable *table)
{
	XLogRecPtr	lsn = XLogRecPtrIsInvalid(table->broken_lsn) ? batch->last_commit_end : table->broken_lsn;
	char	   *name = table_name(table->table->relid);

	ereport(ERROR,
			(errcode(WEIR_ERRCODE_NOT_APPEND_ONLY),
			 errmsg("append-only operator met an UPDATE, DELETE or TRUNCATE of table %s", name),
			 errdetail("It is in the changes up to %X/%X.", LSN_FORMAT_ARGS(lsn)),
			 errhint("ALTER TABLE %s REPLICA IDENTITY FULL; then create the operator without \"append_only\".",
					 name)));
}

/* Changes that this version cannot take. */
static void
refuse_unfit(const WeirDefinition *def, const WeirBatch *batch, const WeirBatchTable *table)
{
	if (def->append_only && table->retracts)
		raise_not_append_only(batch, table);
	if (table->broken_sqlstate == 0)
		return;
	ereport(ERROR,
			(errcode(table->broken_sqlstate),
			 errmsg_internal("%s", table->broken_message),
			 table->broken_detail ? errdetail_internal("%s", table->broken_detail) : 0,
			 table->broken_hint ? errhint("%s", table->broken_hint) : 0));
}

/* TRUNCATE of the source: row by row, because queries with older snapshots still read. */
static int64
empty_table(WeirState *state)
{
	WeirKeyedTable *table = weir_keyed_table_open(state->layout, state->key, state->cache,
												  state->relid);
	int64		ndeleted = weir_keyed_table_clear(table);

	weir_keyed_table_close(table);
	CommandCounterIncrement();
	return ndeleted;
}

static void
register_changes(const char *name, const WeirBatchTable *table, Tuplestorestate *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	int			code;

	if (rows == NULL)
		rows = tuplestore_begin_heap(false, false, 64);
	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = table->table->desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = EXPECTED_BATCH_ROWS;
	relation->reldata = rows;
	code = SPI_register_relation(relation);
	if (code != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed for \"%s\": %s", name, SPI_result_code_string(code));
}

static void
apply_table(WeirState *state, const WeirBatchTable *table, WeirApplyCounts *counts)
{
	WeirApplyCounts extreme_counts = {0};

	weir_state_prepare(state);
	if (table->truncated)
	{
		for (int i = 0; i < state->nextremes; i++)
			empty_table(state->extremes[i]);
		counts->deleted += empty_table(state);
		weir_state_ensure_only_row(state);
	}
	if (table->nplus + table->nminus == 0)
		return;
	register_changes(WEIR_ENR_PLUS, table, table->plus);
	if (table->nminus > 0)
		register_changes(WEIR_ENR_MINUS, table, table->minus);
	for (int i = 0; i < state->nextremes; i++)
		apply_delta(state->extremes[i], table, &extreme_counts);
	apply_delta(state, table, counts);
}

void
weir_state_apply(WeirState *state, WeirBatch *batch, WeirApplyCounts *counts)
{
	WeirBatchTable *table = weir_batch_table(batch, state->def->source);
	MemoryContext caller_context = CurrentMemoryContext;
	WeirOwnerScope scope;

	memset(counts, 0, sizeof(WeirApplyCounts));
	if (table == NULL)
		return;
	refuse_unfit(state->def, batch, table);
	counts->rows = table->nplus + table->nminus;
	if (counts->rows == 0 && !table->truncated)
		return;

	weir_state_connect_spi();
	MemoryContextSwitchTo(state->work_context);
	weir_owner_scope_enter(&scope, state->owner);
	apply_table(state, table, counts);
	weir_owner_scope_leave(&scope);
	SPI_finish();
	MemoryContextSwitchTo(caller_context);
	MemoryContextReset(state->work_context);
}

void
weir_state_committed(WeirState *state)
{
	/* Cached tuple ids are right already; see key_cache.c for why that is safe before, too. */
	MemoryContextReset(state->work_context);
}

void
weir_state_aborted(WeirState *state)
{
	MemoryContextReset(state->work_context);
	weir_key_cache_clear(state->cache);
	for (int i = 0; i < state->nextremes; i++)
		weir_state_aborted(state->extremes[i]);
}
