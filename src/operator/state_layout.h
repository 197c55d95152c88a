/*
 * state_layout.h - where a version's state table keeps what.
 */
#ifndef WEIR_STATE_LAYOUT_H
#define WEIR_STATE_LAYOUT_H

#include "weir.h"
#include "access/attnum.h"
#include "operator/definition.h"
#include "utils/rel.h"

/* For errors of a state table, which does not know its operator's name. */
#define WEIR_REBUILD_HINT "SELECT * FROM weir.rebuild_operator('...'); with the operator of this state table."

typedef struct WeirStateLayout
{
	const WeirDefinition *def;
	int			natts;
	const WeirColumn **columns; /* by attnum - 1 */
	AttrNumber *key_attnums;	/* by key */
	AttrNumber	first_hidden;	/* attnum of the definition's hidden[0] */
	AttrNumber	shard;
} WeirStateLayout;

/* Result in CurrentMemoryContext; def must outlive it. */
extern WeirStateLayout *weir_state_layout_create(const WeirDefinition *def);

/* Raises WE006 unless the table has exactly the layout's column types. */
extern void weir_state_layout_check(const WeirStateLayout *layout, Relation relation);

/* The shape of delta and build rows: keys, hidden, sign. */
extern TupleDesc weir_state_delta_desc(const WeirDefinition *def);
extern void weir_state_delta_check(TupleDesc expected, TupleDesc actual);

#endif							/* WEIR_STATE_LAYOUT_H */
