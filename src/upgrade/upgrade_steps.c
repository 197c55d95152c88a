/*
 * upgrade_steps.c - the edges of an upgrade.
 *
 * Runs in the coordinator (walk, validate) and in control calls (roll_back,
 * finalize, pause). Each edge changes the phase and appends its ledger row in one
 * transaction (I10); killed between two edges, the phase in the catalog says
 * what to do next. Nothing here touches slots or processes: those follow from
 * the catalogs in the coordinator's next turn.
 *
 * A step gives the new version a larger share of the shards (split.c), the
 * last one all of them. It is an update of the serving row: in lockstep both
 * versions are at one LSN in every snapshot, so nobody waits. A reader may have
 * changed that row since it was read here, because a version left lockstep;
 * then the step is not taken.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "catalog/catalog_query.h"
#include "catalog/gate_catalog.h"
#include "catalog/ledger_catalog.h"
#include "catalog/serving_catalog.h"
#include "catalog/version_catalog.h"
#include "operator/loaded_version.h"
#include "operator/serving_view.h"
#include "upgrade/gate_judge.h"
#include "upgrade/serving_guard.h"
#include "upgrade/split.h"
#include "upgrade/upgrade_steps.h"
#include "upgrade/verdict.h"

/* What the versions were found to differ in last, at the end of a phase that compares them. */
static char *
drift_detail(const WeirUpgrade *upgrade)
{
	if (!upgrade->drift_known || (upgrade->phase != WEIR_PHASE_VALIDATING && upgrade->phase != WEIR_PHASE_SHIFTING))
		return NULL;
	return weir_verdict_json("=drift_missing", psprintf(INT64_FORMAT, upgrade->drift_missing),
							 "=drift_extra", psprintf(INT64_FORMAT, upgrade->drift_extra),
							 "drift_lsn", psprintf("%X/%X", LSN_FORMAT_ARGS(upgrade->drift_lsn)), NULL);
}

static void
enter_phase(const WeirOperator *operator, WeirUpgrade *upgrade, WeirPhase phase, Oid actor,
			const char *reason, const char *detail)
{
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = upgrade->upgrade_id,
		.event = "phase",
		.from_phase = weir_phase_name(upgrade->phase),
		.to_phase = weir_phase_name(phase),
		.from_version = upgrade->from_version,
		.to_version = upgrade->to_version,
		.actor = actor,
		.reason = reason,
		.detail = detail != NULL ? detail : drift_detail(upgrade),
	};

	if (!weir_phase_edge_is_legal(upgrade->phase, phase))
		elog(ERROR, "upgrade " INT64_FORMAT " cannot go from phase %s to %s", upgrade->upgrade_id,
			 entry.from_phase, entry.to_phase);
	weir_upgrade_set_phase(upgrade->upgrade_id, phase, reason);
	weir_ledger_append(&entry);
	upgrade->phase = phase;
}

static const char *const waits_for_old_version =
"waits: the serving version is not live (weir.resume_operator, or weir.rollback_upgrade and weir.rebuild_operator)";

static const char *const waits_for_view_readers =
"waits: the view is in use all the time, and once it has to be locked (SELECT pid, mode FROM pg_locks WHERE relation = %u)";

static const char *const waits_for_snapshots =
"waits: transactions that began before the last upgrade ended may still read version %d (SELECT pid, xact_start FROM pg_stat_activity ORDER BY xact_start)";

static const char *const waits_for_advance = "waits for weir.advance_upgrade";

static bool
is_live(const WeirUpgrade *upgrade, int version)
{
	return weir_version_run_get(upgrade->operator_id, version).status == WEIR_RUN_LIVE;
}

/* Not live only until a catch-up reader has brought it back: its source was locked, or it was resumed. */
static bool
comes_back(const WeirVersionRun *run)
{
	return run->status == WEIR_RUN_CATCHING_UP || run->is_resuming;
}

static char *
why_not_live(int version, const WeirVersionRun *run)
{
	if (comes_back(run))
		return psprintf("version %d is catching up", version);
	return psprintf("version %d is %s since %X/%X: %s", version, weir_run_status_name(run->status),
					LSN_FORMAT_ARGS(run->error_lsn), run->message ? run->message : "");
}

/*
 * The old version gave up its place after the shift: the upgrade goes on,
 * rollback does not. One that has merely stopped can come back into lockstep;
 * weir.upgrades says so as long as it lasts.
 */
static bool
note_lost_partner(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	WeirVersionRun old = weir_version_run_get(upgrade->operator_id, upgrade->from_version);
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = upgrade->upgrade_id,
		.event = "rollback_impossible",
		.from_version = upgrade->from_version,
		.to_version = upgrade->to_version,
		.actor = GetUserId(),
		.lsn = old.error_lsn,
	};

	if ((old.status != WEIR_RUN_FAILED && old.status != WEIR_RUN_LOST) || !upgrade->rollback_possible)
		return false;
	entry.reason = why_not_live(upgrade->from_version, &old);
	weir_upgrade_set_obstacle(upgrade->upgrade_id, entry.reason);
	weir_ledger_append(&entry);
	upgrade->rollback_possible = false;
	return true;
}

static void
refuse_rollback(const WeirOperator *operator, const WeirUpgrade *upgrade, const WeirVersionRun *old)
{
	if (comes_back(old) || old->status == WEIR_RUN_STOPPED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" cannot be rolled back at this moment",
						upgrade->upgrade_id, operator->view_name),
				 errdetail("Not in lockstep: %s.", why_not_live(upgrade->from_version, old)),
				 comes_back(old) ?
				 errhint("SELECT rollback_possible FROM weir.upgrades WHERE upgrade_id = " INT64_FORMAT "; and, when it is true, SELECT * FROM weir.rollback_upgrade(%s);",
						 upgrade->upgrade_id, operator->reference) :
				 errhint("When the cause is gone: SELECT weir.resume_operator(%s); or, to keep the new version, SELECT weir.finalize_upgrade(%s);",
						 operator->reference, operator->reference)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" can no longer be rolled back",
					upgrade->upgrade_id, operator->view_name),
			 errdetail("There is no way back: %s.", why_not_live(upgrade->from_version, old)),
			 errhint("SELECT * FROM weir.start_upgrade(%s, (SELECT query FROM weir.versions WHERE version = %d AND operator = %s::regclass));",
					 operator->reference, upgrade->from_version, operator->reference)));
}

static void
roll_back(const WeirOperator *operator, WeirUpgrade *upgrade, Oid actor, const char *reason, const char *detail)
{
	if (weir_operator_serves(operator, upgrade->to_version))
	{
		WeirVersionRun old = weir_version_run_get(upgrade->operator_id, upgrade->from_version);

		if (old.status != WEIR_RUN_LIVE)
			refuse_rollback(operator, upgrade, &old);
		weir_serving_guard(upgrade->upgrade_id, upgrade->from_version);
	}
	if (operator->serving_version == upgrade->to_version || operator->candidate == upgrade->to_version)
		weir_serving_give_all(operator->operator_id, upgrade->from_version);
	weir_version_retire(operator->operator_id, upgrade->to_version);
	enter_phase(operator, upgrade, WEIR_PHASE_ROLLED_BACK, actor, reason, detail);
}

void
weir_upgrade_roll_back(const WeirOperator *operator, WeirUpgrade *upgrade, Oid actor, const char *reason)
{
	roll_back(operator, upgrade, actor, reason, NULL);
}

void
weir_upgrade_finalize(const WeirOperator *operator, WeirUpgrade *upgrade, Oid actor, const char *reason)
{
	if (upgrade->phase != WEIR_PHASE_OBSERVING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("upgrade " INT64_FORMAT " of operator \"%s\" cannot be finalized in phase %s",
						upgrade->upgrade_id, operator->view_name, weir_phase_name(upgrade->phase)),
				 errdetail("An upgrade is finalized while observing."),
				 errhint("SELECT weir.wait_for_upgrade(%s, 'observing');", operator->reference)));
	weir_version_retire(operator->operator_id, upgrade->from_version);
	enter_phase(operator, upgrade, WEIR_PHASE_FINALIZED, actor, reason, NULL);
}

bool
weir_upgrade_pause(const WeirOperator *operator, WeirUpgrade *upgrade, bool paused, Oid actor,
				   const char *reason)
{
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = upgrade->upgrade_id,
		.event = paused ? "pause_upgrade" : "resume_upgrade",
		.from_version = upgrade->from_version,
		.to_version = upgrade->to_version,
		.actor = actor,
		.reason = reason,
	};

	if (upgrade->paused == paused)
		return false;
	weir_upgrade_set_paused(upgrade->upgrade_id, paused, reason);
	weir_ledger_append(&entry);
	upgrade->paused = paused;
	return true;
}

/* Nobody may be looking: it stays where it is, and an alert is raised, until somebody has. */
static void
pause_overdue(const WeirOperator *operator, WeirUpgrade *upgrade, const char *reason)
{
	(void) weir_upgrade_pause(operator, upgrade, true, GetUserId(), psprintf("%s for longer than the deadline", reason));
	weir_gate_restart_deadline(upgrade->upgrade_id);
}

/* True: no further step now; *changed when that ended the upgrade. */
static bool
is_held_by_gates(const WeirOperator *operator, WeirUpgrade *upgrade, bool *changed)
{
	bool		is_wanted = upgrade->auto_advance || upgrade->advance_requested;
	const char *reason;
	bool		is_overdue;

	/* A repair has no version beside it that could be measured. */
	if (!upgrade->is_repair)
		switch (weir_gates_judge(operator, upgrade, is_wanted, &reason, &is_overdue))
		{
			case WEIR_GATE_PASS:
				break;
			case WEIR_GATE_WAIT:
				weir_upgrade_set_reason(upgrade->upgrade_id, reason);
				if (is_overdue)
					pause_overdue(operator, upgrade, reason);
				return true;
			case WEIR_GATE_FAIL:
				*changed = true;
				weir_upgrade_roll_back(operator, upgrade, GetUserId(), reason);
				return true;
		}
	if (!is_wanted)
		weir_upgrade_set_reason(upgrade->upgrade_id, waits_for_advance);
	return !is_wanted;
}

/*
 * Both branches into the view, for the whole of the shift and for sessions
 * that ask for the candidate. True when that is done; *changed when it was now.
 */
static bool
both_are_in_view(const WeirOperator *operator, WeirUpgrade *upgrade, bool *changed)
{
	WeirVersion *old;
	WeirVersion *new;
	int			other;

	if (weir_serving_view_has(operator->operator_id, upgrade->to_version))
		return true;
	/* A snapshot in which that version served would find nothing in the view. */
	other = weir_serving_view_needs(operator->operator_id, upgrade->from_version, upgrade->to_version);
	if (other != 0)
	{
		weir_upgrade_set_reason(upgrade->upgrade_id, psprintf(waits_for_snapshots, other));
		return false;
	}
	if (!weir_serving_view_try_lock(operator->view))
	{
		weir_upgrade_set_reason(upgrade->upgrade_id, psprintf(waits_for_view_readers, operator->view));
		return false;
	}
	old = weir_version_get(upgrade->operator_id, upgrade->from_version);
	new = weir_version_get(upgrade->operator_id, upgrade->to_version);
	weir_serving_view_replace(operator, old, new);
	CommandCounterIncrement();
	weir_serving_view_comment(operator->view, weir_version_definition(new),
							  SearchSysCacheExists1(RELOID, ObjectIdGetDatum(old->definition_view)) ? weir_version_definition(old) : NULL);
	weir_serving_offer(operator->operator_id, upgrade->to_version);
	WEIR_CRASH_POINT("view-replaced");
	*changed = true;
	return false;
}

/* From validating on: the view is made ready, then the gates decide, and the caller's wish to step by hand. */
static bool
walk_validating(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	bool		changed = false;

	if (!upgrade->is_repair && !is_live(upgrade, upgrade->from_version))
	{
		weir_upgrade_set_reason(upgrade->upgrade_id, waits_for_old_version);
		return false;
	}
	/* One that the gates will not let pass is shown to nobody, and brings no column into the view. */
	if (upgrade->is_repair ||
		(upgrade->drift_known &&
		 upgrade->drift_missing + upgrade->drift_extra <= weir_gates_from_text(upgrade->gates)->max_drift_rows))
	{
		if (!both_are_in_view(operator, upgrade, &changed))
			return changed;
		/* It was out of lockstep for a time. */
		if (operator->candidate == 0 && is_live(upgrade, upgrade->to_version))
			weir_serving_offer(operator->operator_id, upgrade->to_version);
	}
	if (is_held_by_gates(operator, upgrade, &changed))
		return changed;
	enter_phase(operator, upgrade, WEIR_PHASE_SHIFTING, GetUserId(), NULL, NULL);
	return true;
}

static void
record_step(const WeirOperator *operator, const WeirUpgrade *upgrade, int step, int percent, const char *reason)
{
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = upgrade->upgrade_id,
		.event = "step",
		.from_version = upgrade->from_version,
		.to_version = upgrade->to_version,
		.actor = GetUserId(),
		.reason = reason,
		.detail = psprintf("{\"step\": %d, \"percent\": %d, \"shards\": %d}", step, percent,
						   weir_split_shards(percent)),
	};

	weir_ledger_append(&entry);
}

/* Gives the new version the share of a step that is not the last one: the next, or again the one that was reached. */
static bool
take_share(const WeirOperator *operator, WeirUpgrade *upgrade, int step, int percent, const char *reason)
{
	if (!weir_serving_split(operator, upgrade->to_version, weir_split_shards(percent)))
		return false;
	/* Each is to serve something, in lockstep with the other. */
	weir_serving_guard(upgrade->upgrade_id, upgrade->from_version);
	weir_serving_guard(upgrade->upgrade_id, upgrade->to_version);
	weir_upgrade_set_step(upgrade->upgrade_id, step);
	record_step(operator, upgrade, step, percent, reason);
	WEIR_CRASH_POINT("step-before-commit");
	return true;
}

/* The new version serves everything: the last step, or what is left when the old version has gone. */
static bool
take_last_step(const WeirOperator *operator, WeirUpgrade *upgrade, const char *reason)
{
	if (operator->serving_version != upgrade->to_version)
	{
		if (!weir_serving_shift(operator, upgrade->to_version))
			return false;
		weir_serving_guard(upgrade->upgrade_id, upgrade->to_version);
	}
	weir_upgrade_set_step(upgrade->upgrade_id, upgrade->nsteps);
	weir_upgrade_set_shift(upgrade->upgrade_id, GetXLogInsertRecPtr());
	WEIR_CRASH_POINT("shift-before-commit");
	enter_phase(operator, upgrade, WEIR_PHASE_OBSERVING, GetUserId(), reason, NULL);
	return true;
}

static bool
take_step(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	if (upgrade->step + 1 >= upgrade->nsteps)
		return take_last_step(operator, upgrade, NULL);
	return take_share(operator, upgrade, upgrade->step + 1, upgrade->next_percent, NULL);
}

/* One step a turn, as long as both are in lockstep; not in it, the new version would show other changes than the old one. */
static bool
walk_shifting(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	bool		changed = false;

	if (operator->serving_version == upgrade->to_version)
		return take_last_step(operator, upgrade, "the old version left lockstep");
	if (!upgrade->is_repair && !is_live(upgrade, upgrade->from_version))
	{
		weir_upgrade_set_reason(upgrade->upgrade_id, waits_for_old_version);
		return false;
	}
	if (!is_live(upgrade, upgrade->to_version))
	{
		weir_upgrade_set_reason(upgrade->upgrade_id, "waits: the new version is catching up");
		return false;
	}
	if (!both_are_in_view(operator, upgrade, &changed))
		return changed;
	if (operator->split != weir_split_shards(upgrade->percent) || (operator->candidate == 0 && !upgrade->is_repair))
		return take_share(operator, upgrade, upgrade->step, upgrade->percent, "both are in lockstep again");
	/* The gates of the first step are those at the end of validating. */
	if (upgrade->step > 0 && is_held_by_gates(operator, upgrade, &changed))
		return changed;
	return take_step(operator, upgrade);
}

/* A split that the reader could not end when a version left lockstep, because somebody had the serving row. */
static bool
end_split(const WeirOperator *operator, const WeirUpgrade *upgrade)
{
	WeirSplitEnd end = {
		.operator_id = operator->operator_id,
		.upgrade_id = upgrade->upgrade_id,
	};
	WeirVersionRun run;

	if (operator->candidate != upgrade->to_version || upgrade->is_repair)
		return false;
	end.is_candidate = !is_live(upgrade, upgrade->to_version);
	end.leaving = end.is_candidate ? upgrade->to_version : upgrade->from_version;
	end.partner = end.is_candidate ? upgrade->from_version : upgrade->to_version;
	run = weir_version_run_get(upgrade->operator_id, end.leaving);
	end.comes_back = comes_back(&run);
	return run.status != WEIR_RUN_LIVE && weir_split_end(&end);
}

/* A repair has no old version to go back to: nothing to observe. */
static bool
walk_observing(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	bool		noted = note_lost_partner(operator, upgrade);

	if (upgrade->window_over)
	{
		weir_upgrade_finalize(operator, upgrade, GetUserId(), "safe window over");
		return true;
	}
	return noted;
}

/* A candidate that stopped or failed, while somebody else can serve. */
static bool
roll_back_failed_candidate(const WeirOperator *operator, WeirUpgrade *upgrade, const WeirVersionRun *run)
{
	if (run->status != WEIR_RUN_FAILED && run->status != WEIR_RUN_STOPPED && run->status != WEIR_RUN_LOST)
		return false;
	if (comes_back(run))
		return false;
	if (weir_operator_serves(operator, upgrade->to_version) && !is_live(upgrade, upgrade->from_version))
		return false;
	roll_back(operator, upgrade, GetUserId(),
			  psprintf("version %d failed: %s", upgrade->to_version,
					   run->message ? run->message : weir_run_status_name(run->status)),
			  weir_verdict_json("status", weir_run_status_name(run->status), "sqlstate", run->sqlstate,
								"error_lsn", XLogRecPtrIsInvalid(run->error_lsn) ? NULL :
								psprintf("%X/%X", LSN_FORMAT_ARGS(run->error_lsn)), NULL));
	return true;
}

bool
weir_upgrade_walk(const WeirOperator *operator, WeirUpgrade *upgrade)
{
	WeirVersionRun run = weir_version_run_get(upgrade->operator_id, upgrade->to_version);

	if (roll_back_failed_candidate(operator, upgrade, &run))
		return true;
	if (end_split(operator, upgrade))
		return true;
	if (upgrade->paused)
		return upgrade->phase == WEIR_PHASE_OBSERVING && note_lost_partner(operator, upgrade);
	switch (upgrade->phase)
	{
		case WEIR_PHASE_PREPARING:
			if (run.status == WEIR_RUN_NONE)
				return false;
			enter_phase(operator, upgrade, WEIR_PHASE_BUILDING, GetUserId(), NULL, NULL);
			return true;
		case WEIR_PHASE_BUILDING:
			if (run.status == WEIR_RUN_BUILDING)
				return false;
			enter_phase(operator, upgrade, WEIR_PHASE_CATCHING_UP, GetUserId(), NULL, run.build);
			return true;
		case WEIR_PHASE_CATCHING_UP:
			if (run.status != WEIR_RUN_LIVE)
				return false;
			enter_phase(operator, upgrade, WEIR_PHASE_VALIDATING, GetUserId(), NULL, NULL);
			return true;
		case WEIR_PHASE_VALIDATING:
			return walk_validating(operator, upgrade);
		case WEIR_PHASE_SHIFTING:
			return walk_shifting(operator, upgrade);
		case WEIR_PHASE_OBSERVING:
			return walk_observing(operator, upgrade);
		default:
			return false;
	}
}
