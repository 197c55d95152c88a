/*
 * drift_catalog.h - rows of weir_internal.drift: samples of rows in which the
 * versions of an upgrade differed.
 *
 * Written by gatekeepers under the operator's row lock. SPI connected;
 * transactions belong to the caller.
 */
#ifndef WEIR_DRIFT_CATALOG_H
#define WEIR_DRIFT_CATALOG_H

#include "weir.h"

/* Rows as jsonb text; NULL: that version has none. */
extern void weir_drift_sample_insert(int64 upgrade_id, int number, const char *old_row, const char *new_row,
									 XLogRecPtr lsn);
extern void weir_drift_samples_clear(int64 upgrade_id);

#endif							/* WEIR_DRIFT_CATALOG_H */
