/*
 * comparison.c - comparing the versions of an upgrade, with evidence.
 *
 * Runs in a gatekeeper. Making and recording are transactions apart, because
 * the one may take long and the other needs the operator's row lock. Both
 * versions in lockstep are at one position in every snapshot (I5), so that any
 * snapshot will do.
 */
#include "postgres.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "catalog/drift_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/version_catalog.h"
#include "operator/loaded_version.h"
#include "upgrade/comparison.h"

/* Compared columns by which a row of one version is told to be that of the other. */
static List *
key_columns(const WeirVersion *version, List *compared)
{
	WeirDefinition *definition = weir_version_definition(version);
	List	   *keys = NIL;
	ListCell   *lc;

	foreach(lc, compared)
		for (int i = 0; i < definition->noutputs; i++)
			if (definition->outputs[i].kind == WEIR_OUTPUT_KEY &&
				strcmp(definition->outputs[i].column.name, lfirst(lc)) == 0)
				keys = lappend(keys, lfirst(lc));
	return keys;
}

static XLogRecPtr
position_of(int64 reader_id)
{
	if (weir_query_at_snapshot("SELECT processed_lsn FROM weir_internal.reader WHERE reader_id = $1", "l", reader_id) == 0)
		return InvalidXLogRecPtr;
	return weir_result_lsn(0, 1);
}

bool
weir_comparison_make(const WeirUpgrade *upgrade, WeirComparison *comparison)
{
	WeirOperator *operator = weir_operator_by_id(upgrade->operator_id);
	WeirVersion *old = weir_version_get(upgrade->operator_id, upgrade->from_version);
	WeirVersion *new = weir_version_get(upgrade->operator_id, upgrade->to_version);
	int64		old_reader;
	int64		new_reader;
	Oid			owner = weir_relation_owner(operator->view);
	MemoryContext context;

	/* Lockstep and rows are judged in one snapshot, taken here. */
	comparison->at = GetCurrentTimestamp();
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!OidIsValid(owner) ||
		!weir_version_is_live_at_snapshot(upgrade->operator_id, upgrade->from_version, &old_reader) ||
		!weir_version_is_live_at_snapshot(upgrade->operator_id, upgrade->to_version, &new_reader))
		return false;
	comparison->upgrade_id = upgrade->upgrade_id;
	comparison->lsn = position_of(new_reader);
	comparison->drift = weir_drift_compare(old->state_table, new->state_table, upgrade->compare_columns, owner, true);
	if (comparison->drift.missing == 0 && comparison->drift.extra == 0)
		return true;
	context = MemoryContextSwitchTo(comparison->context);
	comparison->samples = weir_drift_sample(old->state_table, new->state_table, upgrade->compare_columns,
											key_columns(new, upgrade->compare_columns), owner, WEIR_DRIFT_SAMPLES);
	MemoryContextSwitchTo(context);
	return true;
}

void
weir_comparison_record(const WeirComparison *comparison)
{
	ListCell   *lc;
	int			number = 0;

	weir_upgrade_set_drift(comparison->upgrade_id, comparison->drift.missing, comparison->drift.extra,
						   comparison->lsn, comparison->at);
	if (comparison->samples == NIL)
		return;
	weir_drift_samples_clear(comparison->upgrade_id);
	foreach(lc, comparison->samples)
	{
		const WeirDriftSample *sample = lfirst(lc);

		weir_drift_sample_insert(comparison->upgrade_id, ++number, sample->old_row, sample->new_row, comparison->lsn);
	}
}
