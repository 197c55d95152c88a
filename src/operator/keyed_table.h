/*
 * keyed_table.h - a state table, open within one transaction: rows by key.
 */
#ifndef WEIR_KEYED_TABLE_H
#define WEIR_KEYED_TABLE_H

#include "weir.h"
#include "operator/key_cache.h"
#include "operator/state_key.h"
#include "operator/state_layout.h"

typedef struct WeirKeyedTable WeirKeyedTable;

/*
 * Takes ROW EXCLUSIVE until the transaction ends. Sees everything committed
 * and the transaction's own writes of commands before this one; a row written
 * after opening is not found again by this open table, so offer each key once.
 * Everything is allocated in CurrentMemoryContext; cache may be NULL.
 */
extern WeirKeyedTable *weir_keyed_table_open(const WeirStateLayout *layout, WeirStateKey *key,
											 WeirKeyCache *cache, Oid relid);
extern void weir_keyed_table_close(WeirKeyedTable *table);
extern Relation weir_keyed_table_relation(WeirKeyedTable *table);

/* The key's row becomes the current row. On false there is none. */
extern bool weir_keyed_table_find(WeirKeyedTable *table, const WeirRow *key);
extern uint64 weir_keyed_table_hash(WeirKeyedTable *table); /* of the key last looked for */

/* The current row's columns, by attnum - 1; valid until the next find. */
extern WeirRow weir_keyed_table_current(WeirKeyedTable *table);

/* Arrays to be filled with a whole row, then inserted or put in the current row's place. */
extern WeirRow weir_keyed_table_new_row(WeirKeyedTable *table);
extern void weir_keyed_table_insert(WeirKeyedTable *table);
extern void weir_keyed_table_update(WeirKeyedTable *table);
extern void weir_keyed_table_delete(WeirKeyedTable *table);

/*
 * Of the rows whose key starts with prefix (all key columns but the last):
 * the last key column's smallest or greatest value, copied to
 * CurrentMemoryContext. False when there is none but NULL.
 */
extern bool weir_keyed_table_edge(WeirKeyedTable *table, const WeirRow *prefix, bool greatest,
								  Datum *value);

/* Deletes all rows one by one: queries with older snapshots still see them. */
extern int64 weir_keyed_table_clear(WeirKeyedTable *table);

/* The unique index on the key, InvalidOid when there is none. */
extern Oid	weir_keyed_table_find_index(const WeirStateLayout *layout, Relation relation);

#endif							/* WEIR_KEYED_TABLE_H */
