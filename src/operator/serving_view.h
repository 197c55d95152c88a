/*
 * serving_view.h - the operator's view over its versions' state tables.
 */
#ifndef WEIR_SERVING_VIEW_H
#define WEIR_SERVING_VIEW_H

#include "weir.h"
#include "catalog/operator_catalog.h"
#include "catalog/version_catalog.h"
#include "nodes/primnodes.h"
#include "operator/definition.h"

/* As the current user: CREATE VIEW over one version, empty until that is built. Returns its OID. */
extern Oid	weir_serving_view_create(RangeVar *name, const WeirDefinition *definition,
									 const WeirVersion *version);

/*
 * CREATE OR REPLACE VIEW with one branch (second NULL) or two. With two, the
 * serving row decides in the reader's own snapshot which shards each yields, so
 * a step is a row update; first must be the older one. Columns are only ever
 * appended; one that a version does not have is NULL there. The caller has the
 * lock by try_lock.
 */
extern void weir_serving_view_replace(const WeirOperator *operator, const WeirVersion *first,
									  const WeirVersion *second);

/*
 * Comments on the view's columns that say how they are computed. One that a
 * user changed is left alone; previous: the definition whose comments may be
 * replaced, or NULL.
 */
extern void weir_serving_view_comment(Oid view, const WeirDefinition *next,
									  const WeirDefinition *previous);

/*
 * ACCESS EXCLUSIVE on a relation of ours, without ever queueing for it: a
 * waiting exclusive lock would block every new reader behind one old one.
 * Tries for a moment; false: the next turn tries again.
 */
extern bool weir_serving_view_try_lock(Oid relation);

/*
 * Objections to serving this definition through the view: a column that would
 * change its type, or go while other objects use it. List of WeirObjection.
 */
extern List *weir_serving_view_objections(Oid view, const WeirDefinition *next);

#endif							/* WEIR_SERVING_VIEW_H */
