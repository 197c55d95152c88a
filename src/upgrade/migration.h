/*
 * migration.h - a user's SELECT over "old" that gives a new version's first state.
 */
#ifndef WEIR_MIGRATION_H
#define WEIR_MIGRATION_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "operator/definition.h"

/*
 * As the caller, with the caller's search_path: parsed and analysed, "old"
 * standing for the state table of the version that is replaced. Raises what
 * the parser raises.
 */
extern Query *weir_migration_parse(const char *text, const WeirDefinition *previous, Oid state_table);

/*
 * Adds all that speaks against it: what it reads and calls (also as far as
 * owner, who runs it, may not) and, unless next is NULL, its columns.
 */
extern void weir_migration_check(Query *query, const WeirDefinition *next, const WeirDefinition *previous,
								 Oid state_table, Oid owner, List **objections);

/* By hidden column of the definition: what the migration's column is called that gives it. */
extern const char **weir_migration_names(const WeirDefinition *next);

/* For the build, from the view that keeps the migration: its query text, and what that may call. */
extern const char **weir_migration_queries(const WeirDefinition *next, const WeirVersion *version);
extern List *weir_migration_functions(const WeirVersion *version);

#endif							/* WEIR_MIGRATION_H */
