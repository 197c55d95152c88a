/*
 * reuse.h - deriving a new version's state from the old version's.
 */
#ifndef WEIR_REUSE_H
#define WEIR_REUSE_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "operator/definition.h"

/*
 * Why the state of "next" cannot be derived from that of "previous": one
 * lower-case fact, or NULL when it can.
 */
extern const char *weir_reuse_obstacle(const WeirDefinition *next, const WeirDefinition *previous);

/*
 * Query texts for weir_state_build_read: delta rows of "next" from the state
 * tables of "previous". One for the state table, then one per extreme.
 */
extern const char **weir_reuse_queries(const WeirDefinition *next, const WeirDefinition *previous,
									   const WeirVersion *previous_version);

/*
 * Output columns that mean the same in both: same name, same expression over
 * the same rows and keys. List of char *.
 */
extern List *weir_reuse_common_columns(const WeirDefinition *next, const WeirDefinition *previous);

#endif							/* WEIR_REUSE_H */
