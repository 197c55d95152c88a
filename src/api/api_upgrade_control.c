/*
 * api_upgrade_control.c - weir.advance_upgrade, pause_upgrade, resume_upgrade,
 * rollback_upgrade and finalize_upgrade.
 *
 * Runs in the caller's backend and transaction, under the operator's row lock.
 * rollback and finalize are complete when the caller commits: they flip or
 * retire in this transaction and wait for nobody. So is a pause: from the
 * commit on the coordinator takes no edge. advance and resume let it take them.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "api/api_operator.h"
#include "api/api_result.h"
#include "catalog/upgrade_catalog.h"
#include "upgrade/upgrade_steps.h"

PG_FUNCTION_INFO_V1(weir_advance_upgrade);
PG_FUNCTION_INFO_V1(weir_pause_upgrade);
PG_FUNCTION_INFO_V1(weir_resume_upgrade);
PG_FUNCTION_INFO_V1(weir_rollback_upgrade);
PG_FUNCTION_INFO_V1(weir_finalize_upgrade);

static WeirUpgrade *
require_upgrade(const WeirOperator *operator)
{
	WeirUpgrade *upgrade = weir_upgrade_live(operator->operator_id);
	WeirUpgrade *latest;

	if (upgrade != NULL)
		return upgrade;
	latest = weir_upgrade_latest(operator->operator_id);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("operator \"%s\" has no upgrade under way", operator->view_name),
			 latest ? errdetail("The last one, upgrade " INT64_FORMAT " to version %d, is %s.",
								latest->upgrade_id, latest->to_version, weir_phase_name(latest->phase)) :
			 errdetail("It was never upgraded."),
			 errhint("SELECT * FROM weir.upgrades;")));
	return NULL;
}

/* reason, the second argument, may be NULL. */
#define OPTIONAL_REASON (1 << 1)

Datum
weir_rollback_upgrade(PG_FUNCTION_ARGS)
{
	const char *reason = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	WeirCatalogScope scope;
	WeirOperator *operator;
	WeirUpgrade *upgrade;
	Datum		values[3];
	bool		nulls[3] = {false};

	operator = weir_operator_begin_control(&scope, fcinfo, OPTIONAL_REASON);
	upgrade = require_upgrade(operator);
	values[0] = Int64GetDatum(upgrade->upgrade_id);
	values[1] = Int32GetDatum(upgrade->from_version);
	values[2] = LSNGetDatum(GetXLogInsertRecPtr());
	weir_upgrade_roll_back(operator, upgrade, scope.caller, reason);
	weir_operator_end_control(&scope);
	return weir_result_row(fcinfo, values, nulls);
}

Datum
weir_finalize_upgrade(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);

	weir_upgrade_finalize(operator, require_upgrade(operator), scope.caller, "finalize_upgrade");
	weir_operator_end_control(&scope);
	PG_RETURN_VOID();
}

Datum
weir_advance_upgrade(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);
	WeirUpgrade *upgrade = require_upgrade(operator);

	if (upgrade->phase == WEIR_PHASE_OBSERVING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("upgrade " INT64_FORMAT " has no further step", upgrade->upgrade_id),
				 errhint("SELECT weir.finalize_upgrade(%s);", operator->reference)));
	if (upgrade->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the upgrade of operator \"%s\" is paused", operator->view_name),
				 errdetail("Upgrade " INT64_FORMAT " stays in phase %s.", upgrade->upgrade_id, weir_phase_name(upgrade->phase)),
				 errhint("SELECT weir.resume_upgrade(%s);", operator->reference)));
	weir_upgrade_set_advance(upgrade->upgrade_id, true);
	weir_operator_end_control(&scope);
	PG_RETURN_VOID();
}

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);

	(void) weir_upgrade_pause(operator, require_upgrade(operator), paused, scope.caller, NULL);
	weir_operator_end_control(&scope);
}

Datum
weir_pause_upgrade(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
weir_resume_upgrade(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}
