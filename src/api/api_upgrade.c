/*
 * api_upgrade.c - weir.start_upgrade and rebuild_operator.
 *
 * Runs in the caller's backend and transaction, under the operator's row lock.
 * Both record a verdict and an intent and create the new version's empty
 * relations; the coordinator walks the phases.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "api/api_doctor.h"
#include "api/api_operator.h"
#include "api/api_options.h"
#include "api/api_result.h"
#include "catalog/compatibility_catalog.h"
#include "catalog/ledger_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "operator/fingerprint.h"
#include "operator/loaded_version.h"
#include "operator/serving_view.h"
#include "operator/version_create.h"
#include "upgrade/gate_query.h"
#include "upgrade/gates.h"
#include "upgrade/migration.h"
#include "upgrade/split.h"
#include "upgrade/verdict.h"
#include "weir_compat.h"

PG_FUNCTION_INFO_V1(weir_start_upgrade);
PG_FUNCTION_INFO_V1(weir_rebuild_operator);

static const WeirOptionSpec upgrade_options[] = {
	{"compare", WEIR_OPTION_STRINGS, NULL},
	{"repair", WEIR_OPTION_BOOLEAN, NULL},
	{"standby", WEIR_OPTION_STRING, "hot"},
};

typedef struct UpgradeArguments
{
	const char *text;
	const char *migration;		/* or NULL */
	char	   *strategy;		/* auto, or one that was asked for */
	List	   *steps;			/* of int: percentages */
	WeirGates  *gates;
	List	   *gate_queries;	/* of Query */
	bool		auto_advance;
	Datum		safe_window;
	Jsonb	   *options;
	bool		is_rebuild;		/* nothing is compared: the old rows may be wrong or not follow the stream */
	Query	   *query;
	WeirDefinition *definition;
	Query	   *migration_query;
	MemoryContext context;		/* the call's: the catalog scope's memory ends before the result is made */
	List	   *notes;			/* in context; see add_note */
} UpgradeArguments;

static void
add_note(UpgradeArguments *arguments, const char *note)
{
	MemoryContext old = MemoryContextSwitchTo(arguments->context);

	arguments->notes = lappend(arguments->notes, pstrdup(note));
	MemoryContextSwitchTo(old);
}

/* Nobody to go back to: finalized as soon as it serves. */
static Datum
no_window(void)
{
	return DirectFunctionCall3(interval_in, CStringGetDatum("0"), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static void
refuse_steps(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("steps => '{1, 10, 50, 100}'")));
}

/* List of int percentages. */
static List *
check_steps(Datum steps)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	List	   *result = NIL;

	deconstruct_array(DatumGetArrayTypeP(steps), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i] || DatumGetInt32(elements[i]) < 1 || DatumGetInt32(elements[i]) > 100)
			refuse_steps("steps must be percentages from 1 to 100");
		if (i > 0 && DatumGetInt32(elements[i]) <= llast_int(result))
			refuse_steps("each step must be larger than the one before");
		result = lappend_int(result, DatumGetInt32(elements[i]));
	}
	if (count == 0 || llast_int(result) != 100)
		refuse_steps("the last step must be 100");
	return result;
}

static Datum
steps_array(List *steps)
{
	Datum	   *elements = palloc(sizeof(Datum) * list_length(steps));
	ListCell   *lc;

	foreach(lc, steps)
		elements[foreach_current_index(lc)] = Int32GetDatum(lfirst_int(lc));
	return PointerGetDatum(construct_array(elements, list_length(steps), INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* Shards are of the key, and both versions must be there to share them. */
static void
check_split(UpgradeArguments *arguments, const WeirDefinition *previous)
{
	if (list_length(arguments->steps) == 1)
		return;
	if (arguments->is_rebuild || !weir_split_is_possible(arguments->definition, previous))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 arguments->is_rebuild ? errmsg("a repair cannot shift in several steps") :
				 errmsg("versions with different keys cannot shift in several steps"),
				 arguments->is_rebuild ? 0 :
				 errdetail("A step gives the new version a share of the keys, so both must have the same ones of the same table, in the same order."),
				 errhint("steps => '{100}'")));
	add_note(arguments, weir_split_describe(arguments->steps, arguments->definition));
}

static void
check_migration_argument(const UpgradeArguments *arguments)
{
	bool		converts = strcmp(arguments->strategy, "convert") == 0;

	if (converts && arguments->migration == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("strategy convert needs a migration"),
				 errhint("migration => 'SELECT k, sum(n)::bigint AS n FROM old GROUP BY k'")));
	if (!converts && arguments->migration != NULL && strcmp(arguments->strategy, "auto") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("strategy %s takes no migration", arguments->strategy),
				 errhint("strategy => 'convert', or leave migration NULL.")));
}

static void
check_arguments(UpgradeArguments *arguments, Datum steps)
{
	static const char *const strategies[] = {"auto", "reuse", "backfill", "fresh", "convert"};
	bool		known = false;

	for (int i = 0; i < lengthof(strategies); i++)
		known |= strcmp(arguments->strategy, strategies[i]) == 0;
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown strategy \"%s\"", arguments->strategy),
				 errhint("Strategies: auto, reuse, convert, backfill, fresh.")));
	check_migration_argument(arguments);
	arguments->steps = check_steps(steps);
	if (DatumGetBool(DirectFunctionCall2(interval_lt, arguments->safe_window,
										 DirectFunctionCall3(interval_in, CStringGetDatum("0"),
															 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("safe_window must not be negative"),
				 errhint("safe_window => '1 day'")));
	weir_options_check(arguments->options, "options", upgrade_options, lengthof(upgrade_options));
}

/* An upgrade has a lockstep partner only when the serving version runs; a rebuild or repair needs none. */
static void
check_serving_is_live(const WeirOperator *operator, const WeirVersionRun *run, UpgradeArguments *arguments)
{
	if (run->status == WEIR_RUN_LIVE && !operator->paused)
		return;
	if (weir_options_bool(arguments->options, "repair", false) &&
		run->status != WEIR_RUN_NONE && run->status != WEIR_RUN_BUILDING && run->status != WEIR_RUN_CATCHING_UP)
	{
		if (strcmp(arguments->strategy, "reuse") == 0 || arguments->migration != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("state of a version that does not run cannot be %s",
							arguments->migration != NULL ? "converted" : "reused"),
					 errhint("strategy => 'backfill', or leave it at its default 'auto'; without a migration.")));
		arguments->is_rebuild = true;
		arguments->safe_window = no_window();
		add_note(arguments, psprintf("a repair: version %d is %s, so nothing is compared and there is no way back",
									 operator->serving_version,
									 operator->paused ? "paused" : weir_run_status_name(run->status)));
		return;
	}
	weir_definition_raise(list_make1(weir_operator_not_live_objection(operator, run)));
}

static List *
choose_compared_columns(UpgradeArguments *arguments, const WeirDefinition *previous, const WeirVerdict *verdict,
						const char *strategy, bool covers_source)
{
	List	   *wanted = weir_options_strings(arguments->options, "compare");
	ListCell   *lc;

	if (arguments->is_rebuild || strcmp(strategy, "fresh") == 0)
		return NIL;
	if (!weir_options_has(arguments->options, "compare"))
		return covers_source || strcmp(strategy, "backfill") != 0 ? verdict->same_columns : NIL;
	foreach(lc, wanted)
	{
		bool		in_next = false;
		bool		in_previous = false;

		for (int i = 0; i < arguments->definition->noutputs; i++)
			in_next |= strcmp(arguments->definition->outputs[i].column.name, lfirst(lc)) == 0;
		for (int i = 0; i < previous->noutputs; i++)
			in_previous |= strcmp(previous->outputs[i].column.name, lfirst(lc)) == 0;
		if (!in_next || !in_previous)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" in \"compare\" is not an output column of both versions",
							(char *) lfirst(lc)),
					 errhint("Name columns that the old and the new definition have.")));
	}
	return wanted;
}

static void
note_columns(UpgradeArguments *arguments, List *compared)
{
	StringInfoData left_out;
	ListCell   *lc;

	initStringInfo(&left_out);
	for (int i = 0; i < arguments->definition->noutputs; i++)
	{
		const char *name = arguments->definition->outputs[i].column.name;
		bool		found = false;

		foreach(lc, compared)
			found |= strcmp(lfirst(lc), name) == 0;
		if (!found)
			appendStringInfo(&left_out, "%s%s", left_out.len ? ", " : "", quote_identifier(name));
	}
	if (left_out.len > 0)
		add_note(arguments, psprintf("not compared with the old version: %s", left_out.data));
}

typedef struct StartedUpgrade
{
	int64		upgrade_id;
	int			from_version;
	int			to_version;
	const char *strategy;
} StartedUpgrade;

static void
record_verdict(const WeirVerdict *verdict, int64 upgrade_id, const char *from_digest, const char *to_digest)
{
	WeirCompatibilityRow row = {
		.upgrade_id = upgrade_id,
		.from_digest = from_digest,
		.to_digest = to_digest,
	};
	ListCell   *lc;

	foreach(lc, verdict->aspects)
	{
		const WeirAspect *aspect = lfirst(lc);

		row.ordinal++;
		row.aspect = aspect->name;
		row.verdict = weir_verdict_name(aspect->kind);
		row.reason = aspect->reason;
		row.detail = aspect->detail;
		weir_compatibility_insert(&row);
	}
}

/* The new version's relations and rows, on the grounds of the verdict. */
static StartedUpgrade
insert_upgrade(WeirCatalogScope *scope, const WeirOperator *operator, UpgradeArguments *arguments,
			   const WeirVerdictInput *input, const WeirVerdict *verdict, WeirUpgradeRequest *request)
{
	StartedUpgrade started = {
		.from_version = operator->serving_version,
		.to_version = weir_operator_next_version(operator->operator_id),
		.strategy = request->strategy,
	};
	WeirVersionRequest version = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.version = started.to_version,
		.text = arguments->text,
		.query = arguments->query,
		.definition = arguments->definition,
		.fingerprint = input->fingerprint,
		.strategy = started.strategy,
		.build_from = strcmp(started.strategy, "reuse") == 0 || arguments->migration != NULL ? started.from_version : 0,
		.migration = arguments->migration,
		.migration_query = arguments->migration_query,
		.owner = weir_relation_owner(operator->view),
	};
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.event = "phase",
		.to_phase = weir_phase_name(WEIR_PHASE_PREPARING),
		.from_version = started.from_version,
		.to_version = started.to_version,
		.actor = scope->caller,
	};
	char	   *from_digest = weir_digest(input->serving->query);
	char	   *to_digest = weir_digest(weir_version_create(&version)->query);

	request->to_version = started.to_version;
	started.upgrade_id = entry.upgrade_id = weir_upgrade_insert(request);
	record_verdict(verdict, started.upgrade_id, from_digest, to_digest);
	if (arguments->is_rebuild)
		entry.reason = strcmp(arguments->text, input->serving->definition) == 0 ? "rebuild" : "repair";
	/* A NULL name ends the list: nothing is said of a migration that there is not. */
	entry.detail = weir_verdict_json("strategy", started.strategy, "=verdicts", weir_verdict_summary(verdict),
									 "from_digest", from_digest, "to_digest", to_digest,
									 arguments->migration != NULL ? "migration" : NULL, arguments->migration, NULL);
	weir_ledger_append(&entry);
	return started;
}

/* In the catalog scope, the definition already checked as the caller. */
static StartedUpgrade
record_upgrade(WeirCatalogScope *scope, WeirOperator *operator, UpgradeArguments *arguments)
{
	WeirVersion *serving = weir_version_get(operator->operator_id, operator->serving_version);
	WeirVerdictInput input = {
		.next = arguments->definition,
		.fingerprint = weir_functions_fingerprint(arguments->definition->functions),
		.previous = arguments->is_rebuild ? NULL : weir_version_definition(serving),
		.serving = serving,
		.covers_source = weir_version_covers_source(operator->operator_id, operator->serving_version),
		.migration = arguments->migration,
	};
	WeirVerdict *verdict = weir_verdict_judge(&input);
	WeirUpgradeRequest request = {
		.operator_id = operator->operator_id,
		.from_version = operator->serving_version,
		.strategy = weir_verdict_choose(verdict, arguments->strategy),
		.steps = steps_array(arguments->steps),
		.gates = arguments->gates->text,
		.gate_queries = weir_gate_queries_deparse(arguments->gate_queries),
		.auto_advance = arguments->auto_advance,
		.safe_window = arguments->safe_window,
		.options = weir_options_text(arguments->options),
		.started_by = scope->caller,
	};

	if (!arguments->is_rebuild)
	{
		request.compare_columns = choose_compared_columns(arguments, input.previous, verdict, request.strategy,
														  input.covers_source);
		if (strcmp(arguments->strategy, "auto") == 0 && verdict->obstacle != NULL)
			add_note(arguments, psprintf("state cannot be reused: %s", verdict->obstacle));
		note_columns(arguments, request.compare_columns);
	}
	check_split(arguments, input.previous);
	weir_verdict_add_cost(verdict, &input, arguments->strategy, request.strategy);
	return insert_upgrade(scope, operator, arguments, &input, verdict, &request);
}

static Datum
started_row(FunctionCallInfo fcinfo, const StartedUpgrade *started, List *notes)
{
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = Int64GetDatum(started->upgrade_id);
	values[1] = Int32GetDatum(started->from_version);
	values[2] = Int32GetDatum(started->to_version);
	values[3] = CStringGetTextDatum(started->strategy);
	values[4] = weir_notes_array(notes);
	return weir_result_row(fcinfo, values, nulls);
}

/* migration, the third argument, may be NULL. */
#define OPTIONAL_MIGRATION (1 << 2)

static UpgradeArguments
take_arguments(FunctionCallInfo fcinfo)
{
	UpgradeArguments arguments = {0};

	weir_refuse_nulls(fcinfo, OPTIONAL_MIGRATION);
	arguments.context = CurrentMemoryContext;
	arguments.text = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
		arguments.migration = text_to_cstring(PG_GETARG_TEXT_PP(2));
	arguments.strategy = text_to_cstring(PG_GETARG_TEXT_PP(3));
	arguments.gates = weir_gates_parse(PG_GETARG_JSONB_P(5));
	arguments.auto_advance = PG_GETARG_BOOL(6);
	arguments.safe_window = PG_GETARG_DATUM(7);
	arguments.options = PG_GETARG_JSONB_P(8);
	return arguments;
}

/* As the caller: the new definition and the migration; all that speaks against them at once. */
static void
take_texts(UpgradeArguments *arguments, Oid view, const WeirVersion *serving, const WeirDefinition *previous)
{
	List	   *objections;

	arguments->definition = weir_definition_for_call(arguments->text, serving->append_only, &arguments->query);
	objections = weir_serving_view_objections(view, arguments->definition);
	if (arguments->migration != NULL)
	{
		arguments->migration_query = weir_migration_parse(arguments->migration, previous, serving->state_table);
		weir_migration_check(arguments->migration_query, arguments->definition, previous, serving->state_table,
							 weir_relation_owner(view), &objections);
	}
	if (objections != NIL)
		weir_definition_raise(objections);
}

Datum
weir_start_upgrade(PG_FUNCTION_ARGS)
{
	Oid			view = PG_GETARG_OID(0);
	UpgradeArguments arguments = take_arguments(fcinfo);
	WeirCatalogScope scope;
	WeirOperator *operator;
	WeirVersionRun run;
	WeirVersion *serving;
	WeirDefinition *previous = NULL;
	WeirObjection *foreign;
	WeirObjection *missed;
	StartedUpgrade started;

	weir_require_ready();
	check_arguments(&arguments, PG_GETARG_DATUM(4));
	operator = weir_operator_begin_control(&scope, fcinfo, OPTIONAL_MIGRATION);
	foreign = weir_operator_foreign_objection(operator, scope.caller);
	if (foreign != NULL)
		weir_definition_raise(list_make1(foreign));
	weir_operator_refuse_if_upgrading(operator);
	run = weir_version_run_get(operator->operator_id, operator->serving_version);
	check_serving_is_live(operator, &run, &arguments);
	missed = arguments.is_rebuild ? NULL : weir_operator_objective_objection(operator);
	if (missed != NULL)
		weir_definition_raise(list_make1(missed));
	serving = weir_version_get(operator->operator_id, operator->serving_version);
	if (arguments.migration != NULL)
		previous = weir_version_definition(serving);

	weir_catalog_as_caller(&scope);
	take_texts(&arguments, view, serving, previous);
	arguments.gate_queries = weir_gate_queries_analyse(arguments.gates->sql);
	weir_catalog_as_owner(&scope);
	if (arguments.is_rebuild)
		weir_operator_set_paused(operator->operator_id, false);
	started = record_upgrade(&scope, operator, &arguments);
	add_note(&arguments, psprintf("to wait for it: SELECT weir.wait_for_upgrade(%s, '%s');",
								  operator->reference, arguments.is_rebuild ? "finalized" : "observing"));
	weir_operator_end_control(&scope);
	return started_row(fcinfo, &started, arguments.notes);
}

/*
 * The same definition, computed again from its source beside what serves now,
 * then swapped in: for a stale, lost or doubted state. It has no partner to be
 * compared with and no safe window.
 */
Datum
weir_rebuild_operator(PG_FUNCTION_ARGS)
{
	UpgradeArguments arguments = {
		.strategy = "backfill",
		.context = CurrentMemoryContext,
		.steps = list_make1_int(100),
		.auto_advance = true,
		.safe_window = no_window(),
		.is_rebuild = true,
	};
	WeirCatalogScope scope;
	WeirOperator *operator;
	WeirVersion *serving;
	List	   *objections = NIL;
	StartedUpgrade started;

	weir_require_ready();
	arguments.gates = weir_gates_from_text("{}");
	arguments.options = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"repair\": true}")));
	operator = weir_operator_begin_control(&scope, fcinfo, 0);
	weir_operator_refuse_if_upgrading(operator);
	serving = weir_version_get(operator->operator_id, operator->serving_version);
	arguments.text = serving->definition;
	arguments.query = weir_version_query(serving->definition_view);
	arguments.definition = weir_version_definition(serving);
	/* It may have been changed since; rights show when the owner's are used. */
	weir_definition_check_replica_identity(arguments.definition, &objections);
	if (objections != NIL)
		weir_definition_raise(objections);
	weir_operator_set_paused(operator->operator_id, false);
	started = record_upgrade(&scope, operator, &arguments);
	add_note(&arguments, psprintf("to wait for it: SELECT weir.wait_for_upgrade(%s, 'finalized');",
								  operator->reference));
	weir_operator_end_control(&scope);
	return started_row(fcinfo, &started, arguments.notes);
}
