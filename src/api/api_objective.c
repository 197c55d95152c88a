/*
 * api_objective.c - weir.set_objective, and what a missed objective refuses.
 *
 * Runs in the caller's backend and transaction, under the operator's row lock;
 * the coordinator measures and alerts (worker/alerts.c).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api_operator.h"
#include "api/api_options.h"
#include "api/api_result.h"
#include "catalog/alert_catalog.h"
#include "catalog/ledger_catalog.h"

PG_FUNCTION_INFO_V1(weir_set_objective);

static const WeirOptionSpec known_objectives[] = {
	{"max_lag", WEIR_OPTION_STRING, NULL},
	{"max_lag_bytes", WEIR_OPTION_STRING, NULL},
	{"max_retained_wal", WEIR_OPTION_STRING, NULL},
};

static void
name_objective(void *name)
{
	errcontext("objective \"%s\"", (char *) name);
}

static void
refuse_unless_positive(bool is_positive, const char *example)
{
	if (!is_positive)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an objective must be more than nothing"),
				 errhint("Leave the key out to have none, or give a value such as \"%s\".", example)));
}

/* Of no length when it is not there. */
static Interval *
take_interval(const char *text)
{
	Interval   *none = palloc0(sizeof(Interval));
	Datum		given;

	if (text == NULL)
		return none;
	given = DirectFunctionCall3(interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	refuse_unless_positive(DatumGetBool(DirectFunctionCall2(interval_gt, given, IntervalPGetDatum(none))), "10 s");
	return DatumGetIntervalP(given);
}

static int64
take_size(const char *text)
{
	int64		given;

	if (text == NULL)
		return 0;
	given = DatumGetInt64(DirectFunctionCall1(pg_size_bytes, CStringGetTextDatum(text)));
	refuse_unless_positive(given > 0, "5 GB");
	return given;
}

static WeirObjective
take_objective(Jsonb *objectives)
{
	WeirObjective objective = {.objectives = weir_options_text(objectives)};
	ErrorContextCallback context = {.previous = error_context_stack, .callback = name_objective};

	weir_options_check(objectives, "objectives", known_objectives, lengthof(known_objectives));
	error_context_stack = &context;
	context.arg = "max_lag";
	objective.max_lag = take_interval(weir_options_string(objectives, context.arg));
	context.arg = "max_lag_bytes";
	objective.max_lag_bytes = take_size(weir_options_string(objectives, context.arg));
	context.arg = "max_retained_wal";
	objective.max_retained_wal = take_size(weir_options_string(objectives, context.arg));
	error_context_stack = context.previous;
	return objective;
}

Datum
weir_set_objective(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	WeirObjective objective;
	WeirOperator *operator;
	WeirLedgerEntry entry = {.event = "objective"};

	weir_refuse_nulls(fcinfo, 0);
	objective = take_objective(PG_GETARG_JSONB_P(1));
	operator = weir_operator_begin_control(&scope, fcinfo, 0);
	if (JB_ROOT_COUNT(PG_GETARG_JSONB_P(1)) == 0)
		weir_objective_remove(operator->operator_id);
	else
		weir_objective_set(operator->operator_id, &objective, scope.caller);
	entry.operator_id = operator->operator_id;
	entry.operator_name = operator->view_name;
	entry.actor = scope.caller;
	entry.detail = objective.objectives;
	weir_ledger_append(&entry);
	weir_operator_end_control(&scope);
	PG_RETURN_VOID();
}

WeirObjection *
weir_operator_objective_objection(const WeirOperator *operator)
{
	List	   *missed;
	WeirObjection *objection;
	ListCell   *lc;

	/* On a standby nothing is applied, which says nothing about the primary. */
	if (RecoveryInProgress())
		return NULL;
	missed = weir_objective_missed(operator->operator_id);
	if (missed == NIL)
		return NULL;
	objection = palloc0(sizeof(WeirObjection));
	objection->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	objection->message = psprintf("operator \"%s\" misses its objective", operator->view_name);
	objection->detail = pstrdup("An upgrade would need more of what is short.");
	foreach(lc, missed)
		objection->detail = psprintf("%s Measured: %s.", objection->detail, (char *) lfirst(lc));
	objection->hint = psprintf("SELECT * FROM weir.alerts WHERE cleared_at IS NULL; or, to have no objective, SELECT weir.set_objective(%s, '{}');",
							   operator->reference);
	return objection;
}
