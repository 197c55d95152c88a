/*
 * state_table.h - one version's state: its table, its extremes' side tables,
 * their unique key indexes, and folding delta rows into them.
 */
#ifndef WEIR_STATE_TABLE_H
#define WEIR_STATE_TABLE_H

#include "weir.h"
#include "operator/definition.h"
#include "source/batch.h"

/* SQL of state tables; run by the caller as the extension's owner. */
extern char *weir_state_create_sql(const WeirDefinition *def, const char *table_name);	/* CREATE TABLE weir_state.… */
/* State tables' names leave room for it. */
#define WEIR_STATE_INDEX_SUFFIX "_key"
extern char *weir_state_statistics_sql(const WeirDefinition *def, const char *table_name);	/* after it; NULL when there is nothing to say */
extern char *weir_state_index_sql(const WeirDefinition *def, const char *table_name);	/* unique index; NULL without keys */

/* An opened version: plans, key cache. Lives across batches; holds no locks or relations between them. */
typedef struct WeirState WeirState;

typedef struct WeirApplyCounts
{
	int64		rows;			/* source rows offered */
	int64		folds;			/* keys touched */
	int64		inserted;
	int64		updated;
	int64		deleted;
} WeirApplyCounts;

/*
 * def must outlive it. extreme_relids has def->nextremes entries. owner: whose
 * rights the definition's expressions run with (restricted operation).
 * Allocates in a child of CurrentMemoryContext.
 */
extern WeirState *weir_state_open(const WeirDefinition *def, Oid state_relid, const Oid *extreme_relids, Oid owner);
extern void weir_state_close(WeirState *state);

/*
 * Folds the batch's changes of the definition's table. Inside a transaction
 * with an active snapshot and SPI connected; raises WE002/WE003 for changes
 * the version cannot take. After the transaction ended call exactly one of
 * committed / aborted.
 */
extern void weir_state_apply(WeirState *state, WeirBatch *batch, WeirApplyCounts *counts);
extern void weir_state_committed(WeirState *state);
extern void weir_state_aborted(WeirState *state);	/* drops the key cache */

/*
 * First fill. read: in a transaction with the snapshot to build from, runs the
 * query texts (one for the state table, then one per extreme; delta rows with
 * sign +1, at most one row per key) as owner and keeps the results outside of
 * transactions; functions: OIDs of those that the texts may call beside the
 * definition's. check: in the same transaction, for rows that are a user's word:
 * 22023 or 23505 when they cannot be a state; names: what the hidden columns
 * are called there. write: in a transaction of the caller's, up to max_rows rows;
 * true when all is written. finish: in a transaction, compares what is in the
 * tables with what was written (XX001), creates the unique indexes and, without keys, the one row if none came; ANALYZE-like stats are
 * left to autovacuum. A build that is not finished is simply thrown away:
 * weir_state_build_clear empties the tables (TRUNCATE: nobody reads them yet).
 */
typedef struct WeirStateBuild WeirStateBuild;
extern WeirStateBuild *weir_state_build_read(WeirState *state, const char **queries, List *functions);
extern void weir_state_build_check(WeirStateBuild *build, const char *const *names);
extern bool weir_state_build_write(WeirStateBuild *build, int64 max_rows);
extern int64 weir_state_build_rows_written(WeirStateBuild *build);
extern int64 weir_state_build_rows_total(WeirStateBuild *build);
extern uint64 weir_state_build_checksum(WeirStateBuild *build);	/* of the rows written, see state_checksum.h */
extern void weir_state_build_finish(WeirStateBuild *build);
extern void weir_state_build_clear(WeirState *state);

#endif							/* WEIR_STATE_TABLE_H */
