/*
 * key_cache.c - hash of a key -> tuple id of its row, bounded in memory.
 *
 * Owned by one version in one reader, or by one of its side tables.  It saves
 * the descent of the unique index and the walk of a hot row's version chain.
 *
 * It is a guess, never a truth: the caller fetches the tuple under its
 * snapshot and compares the key, and falls back to the index.  So a hash
 * shared by two keys, an aborted transaction or a vacuumed row cost a lookup
 * and nothing else; and neither keys nor values need to be kept, 12 bytes an
 * entry.  Entries change at once, not at commit; after an abort the owner
 * empties the cache because its entries point to versions that never were.
 *
 * Buckets of a few entries, most recently used first: a full bucket loses its
 * last one.  The table doubles while it is more than half full and the limit
 * allows; beyond that, keys seldom met fall out.
 */
#include "postgres.h"

#include "operator/key_cache.h"
#include "utils/memutils.h"
#include "weir_guc.h"

#define BUCKET_ENTRIES	8
#define FIRST_BUCKETS	64

typedef struct CacheEntry
{
	uint32		tag;			/* of the hash; bucket numbers are its low bits */
	ItemPointerData tid;		/* invalid: free entry, and so are those after it */
} CacheEntry;

struct WeirKeyCache
{
	MemoryContext context;
	int			sharers;
	Oid			relfilenode;
	Size		max_bytes;
	uint32		nbuckets;		/* power of 2, or 0 while there are no entries */
	uint64		nentries;
	CacheEntry *entries;
};

WeirKeyCache *
weir_key_cache_create(int sharers)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "weir key cache",
												  ALLOCSET_SMALL_SIZES);
	WeirKeyCache *cache = MemoryContextAllocZero(context, sizeof(WeirKeyCache));

	cache->context = context;
	cache->sharers = sharers;
	return cache;
}

static Size
table_bytes(uint64 nbuckets)
{
	return nbuckets * BUCKET_ENTRIES * sizeof(CacheEntry);
}

static inline uint32
tag_of(uint64 hash)
{
#ifdef WEIR_HASH_CONST
	/* Test build: all keys share one hash, so only the comparison tells them apart. */
	return 0;
#else
	return (uint32) (hash >> 32);
#endif
}

static inline CacheEntry *
bucket_of(WeirKeyCache *cache, uint32 tag)
{
	return cache->entries + (Size) (tag & (cache->nbuckets - 1)) * BUCKET_ENTRIES;
}

/* Index of the tag's entry in its bucket, or of the first free one, or BUCKET_ENTRIES. */
static inline int
search_bucket(const CacheEntry *bucket, uint32 tag, bool *found)
{
	int			i;

	*found = false;
	for (i = 0; i < BUCKET_ENTRIES; i++)
	{
		if (!ItemPointerIsValid(&bucket[i].tid))
			break;
		if (bucket[i].tag == tag)
		{
			*found = true;
			break;
		}
	}
	return i;
}

/* Makes the entry at position i the first one; those before it move by one. */
static inline void
put_first(CacheEntry *bucket, int i, CacheEntry entry)
{
	if (i > 0)
		memmove(bucket + 1, bucket, sizeof(CacheEntry) * i);
	bucket[0] = entry;
}

void
weir_key_cache_clear(WeirKeyCache *cache)
{
	if (cache->entries)
		pfree(cache->entries);
	cache->entries = NULL;
	cache->nbuckets = 0;
	cache->nentries = 0;
}

void
weir_key_cache_attach(WeirKeyCache *cache, Oid relfilenode)
{
	cache->max_bytes = (Size) weir_guc_key_cache_kb * 1024 / cache->sharers;
	if (cache->relfilenode != relfilenode || table_bytes(cache->nbuckets) > cache->max_bytes)
		weir_key_cache_clear(cache);
	cache->relfilenode = relfilenode;
}

bool
weir_key_cache_find(WeirKeyCache *cache, uint64 hash, ItemPointer tid)
{
	CacheEntry *bucket;
	bool		found;
	int			i;

	if (cache->nbuckets == 0)
		return false;
	bucket = bucket_of(cache, tag_of(hash));
	i = search_bucket(bucket, tag_of(hash), &found);
	if (!found)
		return false;
	put_first(bucket, i, bucket[i]);
	*tid = bucket[0].tid;
	return true;
}

/* Doubles the table; each bucket's entries go to two, in their order of use. */
static void
grow(WeirKeyCache *cache)
{
	uint32		old_nbuckets = cache->nbuckets;
	CacheEntry *old = cache->entries;

	cache->nbuckets = Max(old_nbuckets * 2, FIRST_BUCKETS);
	cache->entries = MemoryContextAllocExtended(cache->context, table_bytes(cache->nbuckets),
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 b = 0; b < old_nbuckets; b++)
	{
		int			used[2] = {0, 0};

		for (int i = 0; i < BUCKET_ENTRIES; i++)
		{
			CacheEntry *entry = &old[(Size) b * BUCKET_ENTRIES + i];
			int			upper = (entry->tag & old_nbuckets) != 0;

			if (!ItemPointerIsValid(&entry->tid))
				break;
			bucket_of(cache, entry->tag)[used[upper]++] = *entry;
		}
	}
	if (old)
		pfree(old);
}

void
weir_key_cache_put(WeirKeyCache *cache, uint64 hash, ItemPointer tid)
{
	CacheEntry	entry = {tag_of(hash), *tid};
	CacheEntry *bucket;
	bool		found;
	int			i;

	if (cache->nentries * 2 >= (uint64) cache->nbuckets * BUCKET_ENTRIES &&
		cache->nbuckets < PG_UINT32_MAX / 2 &&
		table_bytes(Max((uint64) cache->nbuckets * 2, FIRST_BUCKETS)) <= cache->max_bytes)
		grow(cache);
	if (cache->nbuckets == 0)
		return;

	bucket = bucket_of(cache, entry.tag);
	i = search_bucket(bucket, entry.tag, &found);
	if (i == BUCKET_ENTRIES)
		i--;					/* the one not used for longest goes */
	else if (!found)
		cache->nentries++;
	put_first(bucket, i, entry);
}

void
weir_key_cache_forget(WeirKeyCache *cache, uint64 hash)
{
	CacheEntry *bucket;
	bool		found;
	int			i;

	if (cache->nbuckets == 0)
		return;
	bucket = bucket_of(cache, tag_of(hash));
	i = search_bucket(bucket, tag_of(hash), &found);
	if (!found)
		return;
	memmove(bucket + i, bucket + i + 1, sizeof(CacheEntry) * (BUCKET_ENTRIES - 1 - i));
	ItemPointerSetInvalid(&bucket[BUCKET_ENTRIES - 1].tid);
	cache->nentries--;
}
