/*
 * weir_shmem.h - what processes of one server tell each other without disk.
 *
 * Nothing here is authoritative: it is lost at restart and rebuilt from the
 * catalogs.  It wakes processes, publishes positions that are already
 * committed, and carries the requests of calls that wait.
 */
#ifndef WEIR_SHMEM_H
#define WEIR_SHMEM_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"

#define WEIR_MAX_DATABASES	64
#define WEIR_MAX_READERS	256
#define WEIR_MAX_REQUESTS	64

/* One running reader process. Fields without "atomic" are set once at attach. */
typedef struct WeirReaderShmem
{
	Oid			database;		/* InvalidOid: free entry */
	int64		reader_id;
	int			pid;
	Latch	   *latch;
	bool		is_main;
	pg_atomic_uint32 sleeping;	/* 1 while it waits for commits */
	pg_atomic_uint64 processed_lsn; /* committed position */
	pg_atomic_uint64 scanned_lsn;	/* all commits at or before are applied and committed; >= processed_lsn */
	pg_atomic_uint64 hold_requested_by; /* reader_id of a catch-up reader that wants a hold; 0 none */
	pg_atomic_uint64 held_at;	/* position at which this reader holds; 0 not holding */
	pg_atomic_uint32 pause_asked;	/* 1: a version of this main reader is to be paused; it need not wait for a batch */
	pg_atomic_uint64 longest_hold_us;
	pg_atomic_uint64 waiting_since;	/* TimestampTz since when it waits for other transactions to end (slot creation); 0 no */
	pg_atomic_uint32 gives_way;	/* 1: it has stopped building for a moment, for others' objectives */
} WeirReaderShmem;

typedef enum WeirRequestState
{
	WEIR_REQUEST_FREE = 0,
	WEIR_REQUEST_POSTED,		/* -> TAKEN, CANCELLED */
	WEIR_REQUEST_TAKEN,			/* -> DONE, FAILED, CANCELLED */
	WEIR_REQUEST_DONE,
	WEIR_REQUEST_FAILED,
	WEIR_REQUEST_CANCELLED		/* the waiter left: whoever took it cleans up and frees it */
} WeirRequestState;

/* A call that waits (weir.verify): nothing to roll back, visible before commit. */
typedef struct WeirRequest
{
	uint64		request_id;		/* never reused while the server runs */
	WeirRequestState state;
	Oid			database;
	int64		operator_id;
	Oid			user_id;
	Latch	   *waiter;
	int			waiter_pid;
	int64		missing;
	int64		extra;
	XLogRecPtr	checked_lsn;
	int			sqlerrcode;
	char		message[512];
	char		hint[256];
} WeirRequest;

/* weir_shmem.c: life cycle (called from _PG_init) */
extern void weir_shmem_init_hooks(void);
extern bool weir_shmem_available(void);		/* false when not in shared_preload_libraries */
extern void weir_require_preloaded(void);	/* else ereport 55000 with the line to add as hint */

/* Launcher and databases. */
extern void weir_shmem_set_launcher(Latch *latch);				/* NULL on exit */
extern void weir_wake_launcher(void);
extern int	weir_launcher_pid(void);								/* 0: not running */
/* A database has, or may have got or lost, the extension: the launcher looks. */
extern void weir_database_changed(Oid database);
extern bool weir_database_take_change(Oid *database);			/* launcher: next one to look at; InvalidOid: all */
/* A coordinator that finds no extension says so before it exits; it is then not started again. */
extern void weir_database_report_absent(Oid database);
extern bool weir_database_take_absent(Oid database);			/* launcher: did it say so */
extern void weir_coordinator_attach(Oid database, Latch *latch);	/* detaches itself at exit */
extern void weir_wake_coordinator(Oid database);
extern int	weir_coordinator_pid(Oid database);					/* 0: none */
/* While blocked no coordinator or reader of that database may run (DROP DATABASE...). */
extern bool weir_database_blocked(Oid database);
extern void weir_database_block(Oid database);		/* until unblocked or end of this backend */
extern void weir_database_unblock(Oid database);
extern void weir_terminate_database_workers(Oid database, int timeout_ms);

/* Readers. */
extern WeirReaderShmem *weir_reader_attach(int64 reader_id, bool is_main);	/* own process; detaches at exit */
extern WeirReaderShmem *weir_reader_find(Oid database, int64 reader_id);		/* NULL when not running */
extern WeirReaderShmem *weir_main_reader_find(Oid database);
extern void weir_wake_reader(WeirReaderShmem *reader);
/* Called by the commit callback of every backend (wakeup.c). */
extern void weir_wake_readers_of_database(Oid database, XLogRecPtr commit_lsn);
extern XLogRecPtr weir_last_commit_lsn(Oid database);	/* newest commit reported in this database; readers flush up to it */
/* Coordinator, then whoever builds in this database: work that can wait should. */
extern void weir_builds_give_way(bool give_way);
extern bool weir_builds_are_to_give_way(void);
/* The main reader has applied every commit of its database before that moment. Called by it, and for one that is new. */
extern void weir_fresh_publish(TimestampTz at);
/*
 * The moment up to which the database's main reader has applied every commit,
 * also when it has ended: now, when no commit is known that it has not. A
 * reader that has told nothing yet counts from when the database was first
 * looked after. 0: nobody looks after it.
 */
extern TimestampTz weir_fresh_at(Oid database);

/* Requests. */
extern WeirRequest *weir_request_post(int64 operator_id);		/* 53400 when the table is full */
extern bool weir_request_take(Oid database, WeirRequest *copy);	/* coordinator: oldest POSTED one, marks it TAKEN */
extern bool weir_request_cancelled(uint64 request_id);			/* also true when it is gone */
extern void weir_request_finish(uint64 request_id, int64 missing, int64 extra, XLogRecPtr checked_lsn);
extern void weir_request_fail(uint64 request_id, int sqlerrcode, const char *message, const char *hint);
/* Waiter: sleeps on its latch until DONE/FAILED or timeout; false on timeout. Copies the outcome. */
extern bool weir_request_wait(WeirRequest *request, long timeout_ms, WeirRequest *outcome);
extern void weir_request_release(WeirRequest *request);			/* waiter leaves (also on error): frees or cancels */

#endif							/* WEIR_SHMEM_H */
