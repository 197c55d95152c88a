/*
 * reuse.h - deriving a new version's state from the old version's.
 */
#ifndef WEIR_REUSE_H
#define WEIR_REUSE_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "operator/definition.h"

/* Index of what is equal in definition, or -1. */
extern int	weir_reuse_find_key(const WeirDefinition *definition, const WeirKey *key);
extern int	weir_reuse_find_atom(const WeirDefinition *definition, const WeirAtom *atom);

/* For people: sum(t.v) FILTER (WHERE t.w). */
extern char *weir_reuse_atom_text(const WeirDefinition *definition, const WeirAtom *atom);

/*
 * Query texts for weir_state_build_read: delta rows of "next" from the state
 * tables of "previous". One for the state table, then one per extreme.
 */
extern const char **weir_reuse_queries(const WeirDefinition *next, const WeirDefinition *previous,
									   const WeirVersion *previous_version);

#endif							/* WEIR_REUSE_H */
