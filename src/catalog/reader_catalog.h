/*
 * reader_catalog.h - rows of weir_internal.reader: slot, position, epoch.
 *
 * A row is written by its own reader process, and in short transactions by the
 * coordinator and by a catch-up reader that hands over; never by control calls.
 */
#ifndef WEIR_READER_CATALOG_H
#define WEIR_READER_CATALOG_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef enum WeirReaderKind
{
	WEIR_READER_MAIN,			/* the stream's permanent reader */
	WEIR_READER_CATCH_UP,		/* brings versions up to the main reader, then ends */
	WEIR_READER_STOPPED			/* a row without a process: keeps position and slot */
} WeirReaderKind;

typedef enum WeirReaderStatus
{
	WEIR_READER_NEW,			/* no slot yet -> BUILDING, RUNNING */
	WEIR_READER_BUILDING,		/* slot name recorded; a crash starts the build over -> RUNNING */
	WEIR_READER_RUNNING,
	WEIR_READER_ENDED			/* slot to be dropped, then the row */
} WeirReaderStatus;

typedef struct WeirReaderRow
{
	int64		reader_id;
	int			stream_id;
	WeirReaderKind kind;
	WeirReaderStatus status;
	char	   *slot_name;		/* or NULL */
	bool		slot_pending;
	int64		epoch;
	XLogRecPtr	processed_lsn;
	bool		is_ours;		/* identity matches this cluster, timeline and database */
} WeirReaderRow;

extern int64 weir_reader_insert(int stream_id, WeirReaderKind kind, WeirReaderStatus status,
								XLogRecPtr processed_lsn, bool slot_pending);
extern WeirReaderRow *weir_reader_get(int64 reader_id);			/* NULL: none */
extern WeirReaderRow *weir_reader_get_main(int stream_id);		/* NULL: none */
extern List *weir_reader_list(void);							/* all rows */
/* Takes the row over for this process: epoch + 1. NULL when it is gone or ended. */
extern WeirReaderRow *weir_reader_claim(int64 reader_id);
extern void weir_reader_set_slot(int64 reader_id, WeirReaderStatus status, const char *slot_name);
extern void weir_reader_start_at(int64 reader_id, XLogRecPtr processed_lsn);	/* status running */
extern void weir_reader_set_kind(int64 reader_id, WeirReaderKind kind);
/* Kind stopped, at this position. */
extern void weir_reader_stop_at(int64 reader_id, XLogRecPtr processed_lsn);
extern void weir_reader_slot_copied(int64 reader_id, const char *slot_name);	/* no longer pending */
extern void weir_reader_end(int64 reader_id);
extern void weir_reader_delete(int64 reader_id);
extern void weir_reader_lock(int64 reader_id);
extern bool weir_reader_try_lock(int64 reader_id);	/* false: gone, or its process is in a batch transaction */
/* Locks both rows in id order and returns their positions; false when one is gone or not running. */
extern bool weir_reader_lock_two(int64 first, int64 second, XLogRecPtr *first_lsn, XLogRecPtr *second_lsn);
/* Lowest position whose slot copy is still to be made; Invalid: none. */
extern XLogRecPtr weir_reader_pending_floor(int stream_id);

/*
 * The fence and compare-and-set of every batch transaction (I2, I3): false
 * when epoch or position are no longer ours.
 */
extern bool weir_reader_advance(int64 reader_id, int64 epoch, XLogRecPtr from, XLogRecPtr to,
								TimestampTz commit_time, int64 transactions, int64 rows);

/* The identity that LSNs belong to. */
extern void weir_reader_identity(int64 *system_identifier, int *timeline);

#endif							/* WEIR_READER_CATALOG_H */
