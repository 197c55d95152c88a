/*
 * operator_remove.c - the end of an operator in the catalogs.
 *
 * Runs in weir.drop_operator, and in the coordinator for a view that was
 * dropped by itself. One transaction, the caller's.
 */
#include "postgres.h"

#include "catalog/alert_catalog.h"
#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "catalog/version_catalog.h"
#include "operator/operator_remove.h"

void
weir_operator_remove(const WeirOperator *operator, Oid actor, const char *reason)
{
	WeirUpgrade *upgrade = weir_upgrade_live(operator->operator_id);
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.event = "drop",
		.from_version = operator->serving_version,
		.actor = actor,
		.reason = reason,
	};

	if (upgrade != NULL)
	{
		entry.upgrade_id = upgrade->upgrade_id;
		entry.from_phase = weir_phase_name(upgrade->phase);
		entry.to_phase = weir_phase_name(WEIR_PHASE_ROLLED_BACK);
		weir_upgrade_set_phase(upgrade->upgrade_id, WEIR_PHASE_ROLLED_BACK, "operator dropped");
	}
	weir_query(NULL,
			   "UPDATE weir_internal.version SET retired = true, retired_xid = pg_current_xact_id() "
			   "WHERE operator_id = $1 AND NOT retired", "l", operator->operator_id);
	weir_operator_set_dropped(operator->operator_id);
	weir_objective_remove(operator->operator_id);
	weir_ledger_append(&entry);
}
