/*
 * objection.h - between the files that take a definition apart.
 *
 * Each weir_objection_check_* looks at one side of an analysed query and adds
 * whatever speaks against it; none stops at the first one and none raises an
 * error for something that the user wrote.
 */
#ifndef WEIR_OBJECTION_H
#define WEIR_OBJECTION_H

#include "weir.h"
#include "operator/definition.h"

/* Adds one, unless the same message is there already. Keeps the strings, does not copy them. */
extern void weir_objection_add(List **objections, int sqlstate, const char *message,
							   const char *detail, const char *hint);

/* Clauses of the SELECT as a whole (objection.c). */
extern void weir_objection_check_clauses(Query *query, List **objections);
/* GROUP BY expressions, output columns and their names (objection.c). */
extern void weir_objection_check_outputs(Query *query, List **objections);
/* Everything that is called, and aggregates; functions: OIDs of all called (objection_call.c). */
extern void weir_objection_check_calls(Query *query, List **functions, List **objections);
/* The same for a migration, against which only speaks what is not immutable. */
extern void weir_objection_check_migration_calls(Query *query, List **functions, List **objections);
/* What FROM names. InvalidOid unless it is one relation; then rtindex is its index (objection_source.c). */
extern Oid	weir_objection_check_from(Query *query, Index *rtindex, List **objections);

/* Whether a value of the type can be part of a unique btree index. */
extern bool weir_type_is_ordered(Oid type);

/* Which of the supported aggregates it is; false: none of them (definition_atom.c). */
extern bool weir_aggregate_classify(const Aggref *aggref, WeirAggregateKind *kind);
/* Index in def->aggregates, which has room; adds it and its atoms when it is new (definition_atom.c). */
extern int	weir_aggregate_add(WeirDefinition *def, const Aggref *aggref);
/* Once all atoms are known: def->hidden (definition_atom.c). */
extern void weir_atoms_lay_out(WeirDefinition *def);
extern WeirAtom *weir_atom_add(WeirDefinition *def, WeirAtomKind kind, Node *arg, Node *filter);
/* An extreme's side table (definition.c). */
extern WeirDefinition *weir_extreme_definition(const WeirDefinition *def, Node *arg, Node *filter);

/* Between begin and end: texts that mean the same in any session (delta_sql.c). */
extern int	weir_deparse_begin(void);
extern void weir_deparse_end(int nest_level);
extern char *weir_deparse_for_people(Oid source, Node *expr);	/* as one would write it; not to be parsed again */
extern char *weir_deparse(Oid source, Node *expr);	/* Vars: varno 1 = source, printed as t.column */

/* Quoted schema-qualified name, for texts and hints (objection_source.c). */
extern char *weir_deparse_table_name(Oid relid);

#endif							/* WEIR_OBJECTION_H */
