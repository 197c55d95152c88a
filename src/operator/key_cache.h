/*
 * key_cache.h - hash of a key -> tuple id of its row, bounded in memory.
 */
#ifndef WEIR_KEY_CACHE_H
#define WEIR_KEY_CACHE_H

#include "weir.h"
#include "storage/itemptr.h"

typedef struct WeirKeyCache WeirKeyCache;

/* Allocates in a child of CurrentMemoryContext. One of so many that share weir.key_cache. */
extern WeirKeyCache *weir_key_cache_create(int sharers);

/* Before use in a transaction: empties it when the table was rewritten since. */
extern void weir_key_cache_attach(WeirKeyCache *cache, Oid relfilenode);

/* What it finds is a guess: the caller fetches the tuple and compares its key. */
extern bool weir_key_cache_find(WeirKeyCache *cache, uint64 hash, ItemPointer tid);
extern void weir_key_cache_put(WeirKeyCache *cache, uint64 hash, ItemPointer tid);
extern void weir_key_cache_forget(WeirKeyCache *cache, uint64 hash);
extern void weir_key_cache_clear(WeirKeyCache *cache);

#endif							/* WEIR_KEY_CACHE_H */
