/*
 * drift_catalog.c - rows of weir_internal.drift.
 */
#include "postgres.h"

#include "catalog/catalog_query.h"
#include "catalog/drift_catalog.h"

void
weir_drift_sample_insert(int64 upgrade_id, int number, const char *old_row, const char *new_row, XLogRecPtr lsn)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.drift (upgrade_id, number, old_row, new_row, lsn) VALUES ($1, $2, $3, $4, $5)",
			   "lijjp", upgrade_id, number, old_row, new_row, lsn);
}

void
weir_drift_samples_clear(int64 upgrade_id)
{
	weir_query(NULL, "DELETE FROM weir_internal.drift WHERE upgrade_id = $1", "l", upgrade_id);
}
