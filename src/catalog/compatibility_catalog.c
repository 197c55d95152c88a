/*
 * compatibility_catalog.c - rows of weir_internal.compatibility.
 */
#include "postgres.h"

#include "catalog/catalog_query.h"
#include "catalog/compatibility_catalog.h"

void
weir_compatibility_insert(const WeirCompatibilityRow *row)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.compatibility (upgrade_id, ordinal, aspect, verdict, reason, detail, "
			   "from_digest, to_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
			   "litttjtt", row->upgrade_id, row->ordinal, row->aspect, row->verdict, row->reason,
			   row->detail, row->from_digest, row->to_digest);
}
