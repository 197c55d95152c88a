/*
 * worker_loop.h - what launcher, coordinator and readers have in common:
 * signals, start of the process, pinned settings, transactions, waiting.
 */
#ifndef WEIR_WORKER_LOOP_H
#define WEIR_WORKER_LOOP_H

#include "weir.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

/* Lives as long as the process; weir_worker_start creates it. */
extern MemoryContext WeirWorkerContext;

/*
 * First call of a worker: signals, database connection as bootstrap user
 * (InvalidOid: no database), pinned settings (search_path, jit off,
 * synchronous_commit off, DateStyle..., parallel query off, temp_tablespaces
 * empty), DoNotReplicateId as origin, application name.
 */
extern void weir_worker_start(Oid database, const char *activity);

/* From the next transaction on; in the spelling that the server shows. Without it locks are waited for without limit. */
extern void weir_worker_limit_lock_waits(const char *timeout);

/* Ends the process when asked to; reloads settings after SIGHUP. */
extern void weir_worker_check_interrupts(void);

/* Sleeps on MyLatch at most timeout_ms, resets it, checks interrupts. */
extern void weir_worker_wait(long timeout_ms);

/* StartTransactionCommand + snapshot (+ SPI), and the opposite with pgstat reports. */
extern void weir_worker_begin(void);	/* leaves an active snapshot and SPI connected */
extern void weir_worker_commit(void);	/* SPI_finish, pop, commit, pgstat_report_stat */

/* Registers a dynamic worker of this library; false when no slot is free. */
extern bool weir_worker_register(const char *name, const char *function, Oid database,
								 int64 id, BackgroundWorkerHandle **handle);
/* What weir_worker_register passed; for the worker's main function. */
extern void weir_worker_arguments(Oid *database, int64 *id);

/* Entry points (exported). */
extern PGDLLEXPORT void weir_launcher_main(Datum arg);
extern PGDLLEXPORT void weir_coordinator_main(Datum arg);
extern PGDLLEXPORT void weir_reader_main(Datum arg);
extern PGDLLEXPORT void weir_gatekeeper_main(Datum arg);

#endif							/* WEIR_WORKER_LOOP_H */
