/*
 * weir_shmem_layout.h - what lies in pg_weir's shared memory, for the files
 * that implement weir_shmem.h and for the start of workers; nobody else
 * includes it.
 *
 * One LWLock protects everything that is not atomic.  The atomics are what
 * every committing backend reads, so that a commit takes no lock.  Latches
 * are those of PGPROC entries: a stale pointer wakes the wrong process once,
 * and never points at freed memory.
 */
#ifndef WEIR_SHMEM_LAYOUT_H
#define WEIR_SHMEM_LAYOUT_H

#include "weir_shmem.h"
#include "storage/lwlock.h"

/* Coordinators and readers that run or are about to connect. */
#define WEIR_MAX_WORKERS	(WEIR_MAX_READERS + WEIR_MAX_DATABASES)
/* Statements on databases (DROP, RENAME...) at one moment. */
#define WEIR_MAX_BLOCKS		64
/* Databases that the launcher has not looked at yet; more: it looks at all. */
#define WEIR_MAX_CHANGES	64
#define WEIR_MAX_ABSENT		64

/* A database with a coordinator or readers; its OID is in database_oids. */
typedef struct WeirDatabaseShmem
{
	int			coordinator_pid;	/* 0: none */
	Latch	   *coordinator_latch;
	int			nreaders;
	pg_atomic_uint64 last_commit_lsn;
	pg_atomic_uint64 fresh_at;	/* TimestampTz: the main reader had applied every commit before it; 0 not known */
	pg_atomic_uint32 builds_give_way;	/* 1: an operator misses its objective */
	pg_atomic_uint64 watched_since; /* TimestampTz: this entry is in use */
} WeirDatabaseShmem;

/* Pairs of a process and a database: workers, blocks. pid 0: free entry. */
typedef struct WeirProcessShmem
{
	int			pid;
	Oid			database;
} WeirProcessShmem;

typedef struct WeirShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch;
	int			launcher_pid;

	/* Used entries are below the limits, which only grow. */
	pg_atomic_uint32 reader_count;
	pg_atomic_uint32 reader_limit;
	pg_atomic_uint32 database_limit;
	pg_atomic_uint32 database_oids[WEIR_MAX_DATABASES];
	pg_atomic_uint32 reader_databases[WEIR_MAX_READERS];
	WeirDatabaseShmem databases[WEIR_MAX_DATABASES];
	WeirReaderShmem readers[WEIR_MAX_READERS];

	WeirProcessShmem workers[WEIR_MAX_WORKERS];
	WeirProcessShmem blocks[WEIR_MAX_BLOCKS];

	/* For the launcher: databases to look at, and those found without the extension. */
	int			nchanges;
	bool		changes_overflowed;
	Oid			changes[WEIR_MAX_CHANGES];
	Oid			absent[WEIR_MAX_ABSENT];	/* InvalidOid: free entry */
	/* CREATE or DROP EXTENSION is in some prepared transaction. */
	bool		extension_change_prepared;

	uint64		last_request_id;
	WeirRequest requests[WEIR_MAX_REQUESTS];

#ifdef WEIR_TEST
	char		crash_setting[128];
	int			crash_hits;
#endif
} WeirShared;

/* NULL when the library is not in shared_preload_libraries. */
extern WeirShared *weir_shared;

/* weir_shmem.c. The lock must be held; index into databases, -1 when not there. */
extern int	weir_shmem_find_database(Oid database);
extern int	weir_shmem_claim_database(Oid database);	/* finds or takes a free entry; -1 when full */
extern void weir_shmem_drop_database_if_unused(int index);

/* worker_loop.c, before connecting: false when the database is blocked or the table is full. */
extern bool weir_worker_attach(Oid database);
/* SIGTERM to all workers of the database; true when there was one. */
extern bool weir_signal_database_workers(Oid database);

/* weir_request.c: a coordinator ends; what it had taken fails. */
extern void weir_request_fail_taken(Oid database);
/* weir_request.c: lets go of what this backend posted, as at the end of its transaction. */
extern void weir_request_release_all(void);

#endif							/* WEIR_SHMEM_LAYOUT_H */
