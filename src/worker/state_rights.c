/*
 * state_rights.c - the view's owner, and nobody else, may read its state.
 *
 * Runs in the coordinator. A view reads with its owner's rights: after ALTER
 * VIEW OWNER or REASSIGN OWNED the new owner needs what the former one had,
 * and the former one must lose it. Derived anew each turn; a user's open
 * transaction on the state table only delays it (the lock is not waited for).
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "catalog/catalog_query.h"
#include "operator/serving_view.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

/* State tables, their side tables and migrations on their way, whose readers are not exactly the view's owner and their own. */
static const char *const wrong_rights =
"SELECT t.oid, c.relowner, g.grantee FROM weir_internal.version v "
"JOIN weir_internal.operator o USING (operator_id) "
"JOIN pg_catalog.pg_class c ON c.oid = o.view_oid "
"JOIN pg_catalog.pg_class t ON t.oid = ANY (v.extreme_tables || v.state_table || v.migration_view) "
"LEFT JOIN LATERAL (SELECT a.grantee FROM pg_catalog.aclexplode(t.relacl) a "
"WHERE a.grantee NOT IN (c.relowner, t.relowner) LIMIT 1) g ON true "
"WHERE NOT o.dropped AND (g.grantee IS NOT NULL OR "
"NOT pg_catalog.has_table_privilege(c.relowner, t.oid, 'SELECT')) LIMIT 1";

static const char *
role_name(Oid role)
{
	return role == InvalidOid ? "PUBLIC" : quote_identifier(GetUserNameFromId(role, false));
}

bool
weir_state_rights_mend(void)
{
	bool		changed = false;

	weir_worker_begin();
	if (weir_query(NULL, wrong_rights, "") > 0)
	{
		Oid			table = weir_result_oid(0, 1);
		Oid			owner = weir_result_oid(0, 2);
		bool		has_stranger = !weir_result_isnull(0, 3);
		Oid			stranger = weir_result_oid(0, 3);

		if (weir_serving_view_try_lock(table))
		{
			const char *name = quote_identifier(get_rel_name(table));

			if (has_stranger)
				weir_run_utility(psprintf("REVOKE ALL ON weir_state.%s FROM %s CASCADE", name,
										  role_name(stranger)));
			weir_run_utility(psprintf("GRANT SELECT ON weir_state.%s TO %s", name, role_name(owner)));
			changed = true;
		}
	}
	weir_worker_commit();
	return changed;
}
