/*
 * state_key.h - what it means for two keys to be equal; hash and shard.
 */
#ifndef WEIR_STATE_KEY_H
#define WEIR_STATE_KEY_H

#include "weir.h"
#include "fmgr.h"
#include "operator/definition.h"

typedef struct WeirStateKeyColumn
{
	Oid			type;
	Oid			collation;
	bool		by_value;
	bool		has_hash;
	FmgrInfo	equal;
	FmgrInfo	hash;
} WeirStateKeyColumn;

typedef struct WeirStateKey
{
	int			ncolumns;
	bool		hashable;		/* every column's type has a hash function */
	WeirStateKeyColumn columns[FLEXIBLE_ARRAY_MEMBER];
} WeirStateKey;

/* Some values and which of them are NULL. */
typedef struct WeirRow
{
	Datum	   *values;
	bool	   *isnull;
} WeirRow;

/* Needs a transaction. Result in CurrentMemoryContext, valid across transactions. */
extern WeirStateKey *weir_state_key_create(const WeirDefinition *def);

/* NULL equals NULL. May leave garbage in CurrentMemoryContext. */
extern bool weir_state_key_equal(WeirStateKey *key, const WeirRow *a, const WeirRow *b);

/* The same across restarts and for every version with the same key. */
extern uint64 weir_state_key_hash(WeirStateKey *key, const WeirRow *row);
extern int32 weir_state_key_shard(const WeirStateKey *key, uint64 hash);

/* For error messages: (1, abc, null), long values cut. */
extern char *weir_state_key_text(const WeirStateKey *key, const WeirRow *row);

#endif							/* WEIR_STATE_KEY_H */
