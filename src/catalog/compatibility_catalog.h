/*
 * compatibility_catalog.h - rows of weir_internal.compatibility: verdicts of upgrades that were started.
 *
 * In the transaction that starts the upgrade; only ever inserted. SPI
 * connected, inside the catalog scope.
 */
#ifndef WEIR_COMPATIBILITY_CATALOG_H
#define WEIR_COMPATIBILITY_CATALOG_H

#include "weir.h"

typedef struct WeirCompatibilityRow
{
	int64		upgrade_id;
	int			ordinal;		/* from 1, in the order of the verdict */
	const char *aspect;
	const char *verdict;
	const char *reason;
	const char *detail;			/* jsonb text */
	const char *from_digest;	/* of the analysed texts */
	const char *to_digest;
} WeirCompatibilityRow;

extern void weir_compatibility_insert(const WeirCompatibilityRow *row);

#endif							/* WEIR_COMPATIBILITY_CATALOG_H */
