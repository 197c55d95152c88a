/*
 * reader.h - the parts of a reader process: turn, batch transaction, handover.
 */
#ifndef WEIR_READER_H
#define WEIR_READER_H

#include "weir.h"
#include "catalog/reader_catalog.h"
#include "lib/ilist.h"
#include "operator/loaded_version.h"
#include "portability/instr_time.h"
#include "source/batch.h"
#include "source/source_local.h"
#include "weir_shmem.h"

/* One version of the set, with what its role decides. */
typedef struct WeirSetMember
{
	int64		operator_id;
	int			version;
	bool		is_verification;
	bool		is_candidate;	/* target of an upgrade that has not ended */
	bool		is_serving;		/* users see its rows, more than a candidate's share of them */
	int64		upgrade_id;		/* that it is a version of; 0 none */
	int			partner;		/* the other version of its upgrade; 0 none */
	bool		pause_wanted;
	Oid			owner;			/* of the view now: its rights apply */
	bool		definition_dropped; /* with something that it uses */
} WeirSetMember;

typedef struct WeirReader
{
	int64		reader_id;
	WeirReaderKind kind;
	int			stream_id;
	int64		epoch;
	XLogRecPtr	processed_lsn;	/* committed in the reader's row */
	int64		batch_rows;		/* rows after which a batch is closed; see adapt_batch */
	int64		memory_rows;	/* about how many rows fit weir.batch_memory */
	char		slot_name[NAMEDATALEN];
	WeirReaderShmem *shm;
	WeirSource *source;
	WeirBatch  *batch;
	List	   *versions;		/* WeirLoadedVersion *, the set the batch was decoded for */
	List	   *followed;		/* WeirFollowedTable * of them */
	bool		set_has_shrunk; /* some of versions are not wanted any more */
	bool		has_stopped;	/* catch-up reader: its row is a stopped version's place now */
	MemoryContext followed_context;
	XLogRecPtr	pending_floor;	/* confirm nothing past it: a stopped version's slot is still to be copied */
	TimestampTz floor_checked;
	TimestampTz stats_written;
	TimestampTz idle_advanced;
	TimestampTz functions_checked;
	int			hold_parts;		/* catch-up reader: pause after a hold in vain, in lengths of that hold */
	TimestampTz next_hold;		/* not to ask the main reader for one before */
	int			passing_errors;	/* of the batch under way, in a row: it is tried again */
	int64		read_us;		/* it took to read what is in the batch */
	instr_time	apply_started;	/* of the batch under way */
	instr_time	commit_started;
	struct
	{
		XLogRecPtr	own_commit;		/* where our commit record ends */
		XLogRecPtr	processed;		/* what it made durable */
	}			unflushed[64];	/* ring of our asynchronous commits */
	int			unflushed_first;
	int			unflushed_count;
} WeirReader;

/* reader_set.c: which versions this reader applies. In a transaction. */
/* Committed set: List of WeirSetMember, ordered; without retired versions and dropped operators. */
extern List *weir_reader_set_read(const WeirReader *reader);
/* True when every member is loaded (extra loaded ones are fine). */
extern bool weir_reader_set_is_loaded(const WeirReader *reader, List *members);
/* Loads what is missing, unloads what is gone; the source must be at a boundary with an empty batch. */
extern void weir_reader_set_load(WeirReader *reader);
extern WeirLoadedVersion *weir_reader_set_find(const WeirReader *reader, const WeirSetMember *member);

/* reader_apply.c: one batch in one transaction. */
extern void weir_reader_apply(WeirReader *reader);
/* Starts decoding again at the committed position, with an empty batch. */
extern void weir_reader_reopen(WeirReader *reader);
/* Remembers the commit just made and confirms to the slot what has become durable. */
extern void weir_reader_remember_commit(WeirReader *reader);
extern void weir_reader_confirm(WeirReader *reader);
/* Moves the position over WAL without commits, now and then. */
extern void weir_reader_idle_advance(WeirReader *reader);
/* The same at once: a catch-up reader may have started past our last commit. */
extern void weir_reader_advance_to_scanned(WeirReader *reader);
/* Main reader, batch empty: takes out the versions of operators that were paused meanwhile. */
extern void weir_reader_pause_if_asked(WeirReader *reader);

/* reader_telemetry.c: what a reader tells of its work. Nothing depends on it. */
/* weir_source_read with its time taken. */
extern WeirReadOutcome weir_reader_read(WeirReader *reader, const WeirReadLimits *limits);
/* The batch that was committed just now, for weir.batches; before the position and the versions' counts are moved on. */
extern void weir_reader_tell_batch(WeirReader *reader);

/* reader_stop.c: taking a version out of the reader, in the batch transaction. */
extern void weir_reader_stop_version(WeirReader *reader, const WeirSetMember *member, const WeirStop *stop);

/* handover.c */
extern void weir_reader_hold_if_asked(WeirReader *reader);	/* main reader, batch empty */
/* Catch-up reader that has read to its target: true when its versions were handed over (or verified) and it is done. */
extern bool weir_reader_hand_over(WeirReader *reader);

/* verification.c */
/* Compares the throwaway version with the serving one in a snapshot that has both at held_at; releases the hold
 * as soon as it has the snapshot. False: the main reader had moved on, try again. */
extern bool weir_verification_run(WeirReader *reader, WeirLoadedVersion *throwaway,
								  WeirReaderShmem *main_reader, XLogRecPtr held_at);
extern void weir_reader_release_hold(WeirReader *reader, WeirReaderShmem *main_reader);

/* reader_build.c: from new or building to running at a known LSN. */
extern void weir_reader_build(WeirReader *reader);

#endif							/* WEIR_READER_H */
