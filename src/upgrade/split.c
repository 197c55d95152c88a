/*
 * split.c - two versions that share the shards of an operator.
 *
 * While an upgrade shifts, the new version serves the shards below
 * weir_internal.serving.split and the old one the others. Both are in lockstep,
 * so all shards show one position. When one of the two leaves lockstep, the
 * reader that lets go of it ends the split in the same transaction
 * (weir_split_end), so no snapshot sees shards as of two positions. It locks
 * the serving row only if nobody has it: an open rollback or step of another
 * session must not stop a stream. Then the split stays for as long as that
 * transaction is open, and the coordinator ends it (upgrade_steps.c).
 *
 * A candidate gives its shards back. The old version gives its own away, because
 * the upgrade goes on without it; but if it will be back by itself (its source
 * is locked) it keeps them and takes the candidate's, so that a lock does not
 * end a canary. The steps that were taken are remembered (upgrade.step), and the
 * split is made again once both are in lockstep.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/serving_catalog.h"
#include "catalog/version_catalog.h"
#include "upgrade/split.h"

int
weir_split_shards(int percent)
{
	return (percent * WEIR_SHARDS + 99) / 100;
}

char *
weir_split_describe(List *steps, const WeirDefinition *next)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	appendStringInfo(&text, "shards, of %d, that the new version serves:", WEIR_SHARDS);
	foreach(lc, steps)
		appendStringInfo(&text, "%s %d %% = %d", lc == list_head(steps) ? "" : ",", lfirst_int(lc),
						 weir_split_shards(lfirst_int(lc)));
	if (next->nkeys == 0)
		appendStringInfoString(&text, "; but there is one row only, which is in the first");
	return text.data;
}

bool
weir_split_is_possible(const WeirDefinition *next, const WeirDefinition *previous)
{
	/* Of another table, equal expressions mean something else. */
	if (next->source != previous->source || next->nkeys != previous->nkeys)
		return false;
	for (int i = 0; i < next->nkeys; i++)
		if (!equal(next->keys[i].expr, previous->keys[i].expr))
			return false;
	return true;
}

bool
weir_split_end(const WeirSplitEnd *end)
{
	bool		partner_takes_all = end->is_candidate ||
		(!end->comes_back && weir_version_run_get(end->operator_id, end->partner).status == WEIR_RUN_LIVE);
	int			version = partner_takes_all ? end->partner : end->leaving;
	bool		is_new = partner_takes_all != end->is_candidate;
	int			split;
	WeirOperator *operator;
	WeirLedgerEntry entry;

	if (!weir_serving_try_give_all(end->operator_id, end->leaving, version, &split))
		return false;
	if (split == 0)
		return true;			/* it was only offered */
	operator = weir_operator_by_id(end->operator_id);
	entry = (WeirLedgerEntry)
	{
		.operator_id = end->operator_id,
		.operator_name = operator->view_name,
		.upgrade_id = end->upgrade_id,
		.event = "step",
		.from_version = end->is_candidate ? end->partner : end->leaving,
		.to_version = end->is_candidate ? end->leaving : end->partner,
		.actor = GetUserId(),
		.reason = psprintf("version %d left lockstep", end->leaving),
		.detail = psprintf("{\"shards\": %d}", is_new ? WEIR_SHARDS : 0),
	};
	weir_ledger_note(&entry);
	return true;
}
