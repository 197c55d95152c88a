/*
 * state_internal.h - an opened version, as state_*.c see it.
 */
#ifndef WEIR_STATE_INTERNAL_H
#define WEIR_STATE_INTERNAL_H

#include "weir.h"
#include "executor/spi.h"
#include "operator/fold.h"
#include "operator/key_cache.h"
#include "operator/keyed_table.h"
#include "operator/result_row.h"
#include "operator/state_key.h"
#include "operator/state_layout.h"
#include "operator/state_table.h"

/* A saved delta query, good for a batch's rows of exactly this shape. */
typedef struct WeirDeltaPlan
{
	SPIPlanPtr	plan;			/* NULL: not prepared */
	TupleDesc	desc;
} WeirDeltaPlan;

/* A version, or the side table of one of its extremes: the same thing over another definition. */
struct WeirState
{
	MemoryContext context;		/* this struct and all below */
	MemoryContext work_context; /* of one call; emptied after it, or after the abort */
	const WeirDefinition *def;
	Oid			relid;
	Oid			owner;
	WeirStateLayout *layout;
	TupleDesc	delta_desc;
	WeirKeyCache *cache;
	WeirDeltaPlan plans[2];		/* without and with old rows */
	WeirStateBuild *build;		/* of the first fill, or NULL */

	/* Made at first use, in a transaction and the owner's scope. */
	bool		is_prepared;
	WeirStateKey *key;
	WeirFold   *fold;
	WeirResultRow *result;

	int			nextremes;
	WeirState **extremes;
};

/* Looks up types and plans expressions; in the owner's scope. */
extern void weir_state_prepare(WeirState *state);

/* A nested SPI connection, whose ephemeral relations end with it, even in a failed subtransaction. */
extern void weir_state_connect_spi(void);

/* Fills a whole row of the state table from its key, hidden values and the key's hash. */
extern void weir_state_compose(WeirState *state, const WeirRow *key, const WeirRow *hidden,
							   uint64 hash, WeirRow *row);

/* Without keys there is always one row; writes it with zero counts when it is missing. */
extern void weir_state_ensure_only_row(WeirState *state);

/* Frees what a first fill holds; NULL is fine. */
extern void weir_state_build_end(WeirStateBuild *build);

#endif							/* WEIR_STATE_INTERNAL_H */
