/*
 * api_check_upgrade.c - weir.check_upgrade.
 *
 * Runs in the caller's session and writes nothing: no lock on the operator, no
 * transaction id, also on a standby and in a read-only transaction. The new
 * definition is read with the caller's rights; what weir.start_upgrade would
 * raise as errors, one after the other, becomes rows here, all at once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "api/api_operator.h"
#include "api/api_result.h"
#include "operator/fingerprint.h"
#include "operator/loaded_version.h"
#include "operator/serving_view.h"
#include "upgrade/migration.h"
#include "upgrade/verdict.h"
#include "weir_compat.h"

PG_FUNCTION_INFO_V1(weir_check_upgrade);

/* migration, the third argument, may be NULL. */
#define OPTIONAL_MIGRATION (1 << 2)

#define RESULT_COLUMNS 4

/*
 * Members of weir_admin may steer every operator, but what a definition calls
 * runs with the rights of the operator's owner: who chooses it could do all
 * that the owner can.
 */
WeirObjection *
weir_operator_foreign_objection(const WeirOperator *operator, Oid caller)
{
	WeirObjection *objection;

	if (weir_compat_relation_is_owned(operator->view, caller))
		return NULL;
	objection = palloc0(sizeof(WeirObjection));
	objection->sqlstate = ERRCODE_INSUFFICIENT_PRIVILEGE;
	objection->message = psprintf("must be owner of operator \"%s\" to give it another definition", operator->view_name);
	objection->detail = pstrdup("The definition would run with its owner's rights.");
	objection->hint = psprintf("Let role %s start the upgrade.",
							   quote_identifier(GetUserNameFromId(weir_relation_owner(operator->view), false)));
	return objection;
}

WeirObjection *
weir_operator_not_live_objection(const WeirOperator *operator, const WeirVersionRun *run)
{
	WeirObjection *objection;

	if (run->status == WEIR_RUN_LIVE && !operator->paused)
		return NULL;
	objection = palloc0(sizeof(WeirObjection));
	objection->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	objection->message = psprintf("operator \"%s\" is %s", operator->view_name,
								  operator->paused ? "paused" : weir_run_status_name(run->status));
	objection->detail = run->message ?
		psprintf("An upgrade runs beside a live version. It stopped with: %s.", run->message) :
		pstrdup("An upgrade runs beside a live version.");
	if (run->status == WEIR_RUN_STOPPED || operator->paused)
		objection->hint = psprintf("SELECT weir.resume_operator(%s); or SELECT * FROM weir.rebuild_operator(%s); or, to replace it by this definition: options => '{\"repair\": true}'",
								   operator->reference, operator->reference);
	else if (run->status == WEIR_RUN_LOST || run->status == WEIR_RUN_FAILED)
		objection->hint = psprintf("SELECT * FROM weir.rebuild_operator(%s); or, to replace it by this definition: options => '{\"repair\": true}'",
								   operator->reference);
	else
		objection->hint = psprintf("SELECT weir.wait_for(%s);", operator->reference);
	return objection;
}

static void
object_to(WeirVerdictInput *input, char *aspect, WeirObjection *objection)
{
	if (objection == NULL)
		return;
	input->objections = lappend(input->objections, objection);
	input->objection_aspects = lappend(input->objection_aspects, aspect);
}

/* Whoever wrote the text can mend it; everything else is an error of the call as well. */
static bool
is_about_the_text(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION || category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_FEATURE_NOT_SUPPORTED || category == ERRCODE_INVALID_SCHEMA_NAME;
}

/* As the caller: the new definition, or with is_migration the migration. NULL: it cannot be parsed, and objection says why. */
static Query *
parse(const WeirVerdictInput *input, const char *text, bool is_migration, WeirObjection **objection)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Query	   *volatile query = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	/* The one thing restored: the transaction, so that the error becomes a row among others. */
	PG_TRY();
	{
		query = is_migration ? weir_migration_parse(text, input->previous, input->serving->state_table) :
			weir_definition_parse(text);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!is_about_the_text(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		*objection = palloc0(sizeof(WeirObjection));
		(*objection)->sqlstate = error->sqlerrcode;
		(*objection)->message = error->message;
		(*objection)->detail = error->detail;
		(*objection)->hint = error->hint;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return query;
}

/* As the caller: the definition, or what stands against it. */
static void
take_definition(WeirVerdictInput *input, const char *text, Oid view)
{
	WeirObjection *unparsed = NULL;
	Query	   *query = parse(input, text, false, &unparsed);
	WeirDefinition *definition;
	List	   *objections = NIL;
	ListCell   *lc;

	object_to(input, "definition", unparsed);
	if (query == NULL)
		return;
	definition = weir_definition_analyze(query, input->serving->append_only, &objections);
	if (definition != NULL)
	{
		weir_definition_check_source(definition, &objections);
		objections = list_concat(objections, weir_serving_view_objections(view, definition));
		input->next = definition;
		input->fingerprint = weir_functions_fingerprint(definition->functions);
	}
	foreach(lc, objections)
		object_to(input, "definition", lfirst(lc));
}

/* As the caller: what stands against the migration. */
static void
take_migration(WeirVerdictInput *input, const char *text, Oid owner)
{
	WeirObjection *unparsed = NULL;
	Query	   *query = parse(input, text, true, &unparsed);
	List	   *objections = NIL;
	ListCell   *lc;

	input->migration = text;
	object_to(input, "migration", unparsed);
	if (query == NULL)
		return;
	weir_migration_check(query, input->next, input->previous, input->serving->state_table, owner, &objections);
	foreach(lc, objections)
		object_to(input, "migration", lfirst(lc));
}

static void
put_aspects(ReturnSetInfo *result, const WeirVerdict *verdict)
{
	ListCell   *lc;

	foreach(lc, verdict->aspects)
	{
		const WeirAspect *aspect = lfirst(lc);
		Datum		values[RESULT_COLUMNS];
		bool		nulls[RESULT_COLUMNS] = {0};

		values[0] = CStringGetTextDatum(aspect->name);
		values[1] = CStringGetTextDatum(weir_verdict_name(aspect->kind));
		values[2] = CStringGetTextDatum(aspect->reason);
		values[3] = DirectFunctionCall1(jsonb_in, CStringGetDatum(aspect->detail));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

Datum
weir_check_upgrade(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	WeirVerdictInput input = {0};
	WeirCatalogScope scope;
	WeirOperator *operator;
	WeirVersionRun run;
	WeirVerdict *verdict;
	Oid			view;
	bool		is_refused;

	weir_refuse_nulls(fcinfo, OPTIONAL_MIGRATION);
	view = PG_GETARG_OID(0);
	InitMaterializedSRF(fcinfo, 0);
	weir_catalog_enter(&scope);
	operator = weir_operator_for_control(view, scope.caller);
	run = weir_version_run_get(operator->operator_id, operator->serving_version);
	input.serving = weir_version_get(operator->operator_id, operator->serving_version);
	input.previous = weir_version_definition(input.serving);
	input.covers_source = weir_version_covers_source(operator->operator_id, operator->serving_version);
	object_to(&input, "operator", weir_operator_foreign_objection(operator, scope.caller));
	object_to(&input, "operator", weir_operator_upgrading_objection(operator));
	object_to(&input, "operator", weir_operator_not_live_objection(operator, &run));
	object_to(&input, "operator", weir_operator_objective_objection(operator));

	weir_catalog_as_caller(&scope);
	take_definition(&input, text_to_cstring(PG_GETARG_TEXT_PP(1)), view);
	if (!PG_ARGISNULL(2))
		take_migration(&input, text_to_cstring(PG_GETARG_TEXT_PP(2)), weir_relation_owner(view));
	weir_catalog_as_owner(&scope);

	verdict = weir_verdict_judge(&input);
	is_refused = verdict->kind == WEIR_VERDICT_REFUSE || verdict->retention != NULL;
	weir_verdict_add_cost(verdict, &input, "auto", is_refused ? NULL : weir_verdict_choose(verdict, "auto"));
	put_aspects(result, verdict);
	weir_catalog_leave(&scope);
	return (Datum) 0;
}
