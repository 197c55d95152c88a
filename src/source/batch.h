/*
 * batch.h - the changes of whole transactions, per followed table.
 *
 * A batch belongs to one reader, is filled by the source outside any
 * transaction of the reader, and is read by the delta queries of every
 * version in the apply transaction; it survives an aborted apply (the
 * tuplestores are interXact and owned by a resource owner of the process).
 */
#ifndef WEIR_BATCH_H
#define WEIR_BATCH_H

#include "weir.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

/* What the versions of a reader want of one table (the root, if partitioned). */
typedef struct WeirFollowedTable
{
	Oid			relid;
	int			ncolumns;		/* may be 0: only the number of rows matters */
	AttrNumber *attnums;		/* ascending, of relid itself */
	TupleDesc	desc;			/* the projected columns, names as in the catalog at load */
	bool		append_only;	/* nobody who follows it takes old rows */
} WeirFollowedTable;

/* Changes of one followed table in a batch. */
typedef struct WeirBatchTable
{
	const WeirFollowedTable *table;
	Tuplestorestate *plus;		/* new rows, NULL while there are none */
	Tuplestorestate *minus;		/* old rows, NULL while there are none */
	int64		nplus;
	int64		nminus;
	bool		truncated;		/* table was emptied before what plus/minus hold */
	bool		retracts;		/* an UPDATE, DELETE or TRUNCATE was met */
	/* Set when a change cannot be represented; versions that follow the table must stop. */
	int			broken_sqlstate;	/* 0: fine */
	char	   *broken_message;		/* one lower-case fact */
	char	   *broken_detail;
	char	   *broken_hint;
	XLogRecPtr	broken_lsn;
} WeirBatchTable;

typedef struct WeirBatch
{
	MemoryContext context;		/* everything below; reset per batch */
	int			ntables;
	WeirBatchTable *tables;
	int64		ntransactions;
	int64		nrows;			/* nplus + nminus of all tables */
	XLogRecPtr	last_commit_end;	/* end LSN of the last collected commit; Invalid if none */
	TimestampTz last_commit_time;
} WeirBatch;

/* Lives until the process ends; the list's WeirFollowedTables must outlive it (or its next reset). */
extern WeirBatch *weir_batch_create(List *followed_tables);
/* Empties for reuse with possibly other tables: ends tuplestores (never tuplestore_clear), resets the context. */
extern void weir_batch_reset(WeirBatch *batch, List *followed_tables);
extern bool weir_batch_has_spilled(const WeirBatch *batch);	/* some of it is in temporary files */
extern WeirBatchTable *weir_batch_table(WeirBatch *batch, Oid relid);	/* NULL: not followed */
/* For the source: */
extern void weir_batch_put(WeirBatch *batch, WeirBatchTable *table, bool plus, Datum *values, bool *isnull);
extern void weir_batch_truncate(WeirBatch *batch, WeirBatchTable *table);	/* discards what was collected of it */
extern void weir_batch_break(WeirBatch *batch, WeirBatchTable *table, XLogRecPtr lsn, int sqlstate,
							 const char *message, const char *detail, const char *hint);	/* first one wins; copies */

#endif							/* WEIR_BATCH_H */
