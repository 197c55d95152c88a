/*
 * serving_catalog.c - rows of weir_internal.serving.
 */
#include "postgres.h"

#include "catalog/catalog_query.h"
#include "catalog/serving_catalog.h"

void
weir_serving_insert(int64 operator_id, int version)
{
	weir_query(NULL, "INSERT INTO weir_internal.serving (operator_id, version, view_versions) "
			   "VALUES ($1, $2, ARRAY[0, $2])", "li", operator_id, version);
}

void
weir_serving_show(int64 operator_id, int version)
{
	weir_query(NULL, "UPDATE weir_internal.serving SET shown_version = version "
			   "WHERE operator_id = $1 AND version = $2 AND shown_version = 0", "li", operator_id, version);
}

void
weir_serving_offer(int64 operator_id, int candidate)
{
	weir_query(NULL, "UPDATE weir_internal.serving SET candidate = $2, split = 0 WHERE operator_id = $1",
			   "li", operator_id, candidate);
}

/* As it was when the operator was read. */
#define UNCHANGED " WHERE operator_id = $1 AND version = $2 AND candidate = $3 AND split = $4"

bool
weir_serving_split(const WeirOperator *operator, int candidate, int split)
{
	return weir_query(NULL, "UPDATE weir_internal.serving SET candidate = $5, split = $6" UNCHANGED,
					  "liiiii", operator->operator_id, operator->serving_version, operator->candidate,
					  operator->split, candidate, split) > 0;
}

bool
weir_serving_shift(const WeirOperator *operator, int version)
{
	return weir_query(NULL,
					  "UPDATE weir_internal.serving SET version = $5, shown_version = $5, candidate = 0, split = 0" UNCHANGED,
					  "liiii", operator->operator_id, operator->serving_version, operator->candidate,
					  operator->split, version) > 0;
}

void
weir_serving_give_all(int64 operator_id, int version)
{
	weir_query(NULL,
			   "UPDATE weir_internal.serving SET version = $2, shown_version = $2, candidate = 0, split = 0 "
			   "WHERE operator_id = $1", "li", operator_id, version);
}

bool
weir_serving_try_give_all(int64 operator_id, int leaving, int version, int *split)
{
	/* Not in one statement: an UPDATE waits for a row that somebody has locked since it was found. */
	if (weir_query(NULL,
				   "SELECT split FROM weir_internal.serving WHERE operator_id = $1 "
				   "AND (candidate = $2 OR version = $2 AND split > 0) FOR UPDATE SKIP LOCKED",
				   "li", operator_id, leaving) == 0)
		return false;
	*split = weir_result_int(0, 1);
	weir_serving_give_all(operator_id, version);
	return true;
}

void
weir_serving_set_view_versions(int64 operator_id, int first, int second)
{
	weir_query(NULL,
			   "UPDATE weir_internal.serving SET view_versions = CASE WHEN $3 = 0 THEN ARRAY[$2] ELSE ARRAY[$2, $3] END "
			   "WHERE operator_id = $1", "lii", operator_id, first, second);
}

bool
weir_serving_view_has(int64 operator_id, int version)
{
	return weir_query(NULL, "SELECT 1 FROM weir_internal.serving WHERE operator_id = $1 AND $2 = ANY (view_versions)",
					  "li", operator_id, version) > 0;
}

int
weir_serving_view_needs(int64 operator_id, int first, int second)
{
	/*
	 * A transaction that began after second's upgrade was started has no older
	 * snapshot, even if its xmin is: one that waits for the upgrade, for
	 * instance. (Unless the upgrade was started where the other one was ended.)
	 */
	if (weir_query(NULL,
				   "SELECT v.version FROM weir_internal.serving s JOIN weir_internal.version v USING (operator_id) "
				   "JOIN weir_internal.version n ON n.operator_id = s.operator_id AND n.version = $3 "
				   "JOIN weir_internal.upgrade u ON u.operator_id = s.operator_id AND u.to_version = $3 "
				   "WHERE s.operator_id = $1 AND v.version = ANY (s.view_versions) AND v.version NOT IN ($2, $3) "
				   "AND NOT (v.retired AND " WEIR_NO_SNAPSHOT_BEFORE("v.retired_xid::xid",
																	  "AND (a.xact_start <= u.started_at OR n.xmin = v.retired_xid::xid)") ") LIMIT 1",
				   "lii", operator_id, first, second) == 0)
		return 0;
	return weir_result_int(0, 1);
}
