/*
 * split.h - two versions that share the shards of an operator.
 */
#ifndef WEIR_SPLIT_H
#define WEIR_SPLIT_H

#include "weir.h"
#include "nodes/pg_list.h"
#include "operator/definition.h"

/* Whole shards that a step's percentage comes to: rounded up. */
extern int	weir_split_shards(int percent);

/* The steps (List of int percentages) as shards, for people. */
extern char *weir_split_describe(List *steps, const WeirDefinition *next);

/* A key is in the same shard in both versions, whichever its values are. */
extern bool weir_split_is_possible(const WeirDefinition *next, const WeirDefinition *previous);

/* A version of an upgrade that is no longer in lockstep with its partner. */
typedef struct WeirSplitEnd
{
	int64		operator_id;
	int64		upgrade_id;
	int			leaving;
	int			partner;
	bool		is_candidate;	/* leaving is the new version */
	bool		comes_back;		/* by itself, when whatever is in its way has gone */
} WeirSplitEnd;

/*
 * In the transaction in which a version leaves lockstep, or after it: one of
 * the two serves all shards, with a row in the ledger. Waits for nobody; false
 * when there was nothing to do, or when a control call that has not ended
 * changes what serves: the coordinator then looks again.
 */
extern bool weir_split_end(const WeirSplitEnd *end);

#endif							/* WEIR_SPLIT_H */
