/*
 * version_catalog.h - rows of weir_internal.version, .version_run, .version_stat.
 *
 * version is written by control calls and never locked by readers; version_run
 * and version_stat belong to the workers. SPI connected; transactions belong
 * to the caller.
 */
#ifndef WEIR_VERSION_CATALOG_H
#define WEIR_VERSION_CATALOG_H

#include "weir.h"
#include "nodes/pg_list.h"

typedef struct WeirVersion
{
	int64		operator_id;
	int			version;
	bool		is_verification;	/* throwaway: purpose 'verification' */
	char	   *definition;
	char	   *query;
	Oid			definition_view;
	Oid			state_table;
	int			nextremes;
	Oid		   *extreme_tables;
	int			state_format;
	bool		append_only;
	char	   *fingerprint;
	char	   *strategy;
	int			build_from;		/* reuse, convert: the version whose state it takes; a throwaway: the one it checks; 0 none */
	char	   *migration;		/* convert: as the user wrote it; else NULL */
	Oid			migration_view; /* the same as analysed; InvalidOid once the state it reads is removed */
	bool		retired;
} WeirVersion;

extern void weir_version_insert(const WeirVersion *version);
extern WeirVersion *weir_version_get(int64 operator_id, int version);	/* NULL: none */
/* False when it, or a version that its state was derived from, started without the rows that were there. */
extern bool weir_version_covers_source(int64 operator_id, int version);
/* It will not be applied any more; its state goes when no older snapshot is left. */
extern void weir_version_retire(int64 operator_id, int version);
/* Before its relations are dropped; false instead of waiting for a control call's open transaction. */
extern bool weir_version_try_lock(int64 operator_id, int version);
/* A version whose migration still reads this one's state, and the view that does; 0: none. */
extern int	weir_version_migrated_from(int64 operator_id, int version, Oid *view);
extern void weir_version_migration_removed(int64 operator_id, int version);
/* Its relations are dropped: the row stays for inspection, but for a throwaway. */
extern void weir_version_removed(int64 operator_id, int version);

typedef enum WeirRunStatus
{
	WEIR_RUN_NONE,				/* no row yet -> BUILDING */
	WEIR_RUN_BUILDING,			/* -> CATCHING_UP, FAILED */
	WEIR_RUN_CATCHING_UP,		/* -> LIVE, STOPPED, FAILED */
	WEIR_RUN_LIVE,				/* in the main reader -> STOPPED, FAILED */
	WEIR_RUN_STOPPED,			/* keeps position and slot -> CATCHING_UP, LOST */
	WEIR_RUN_FAILED,			/* keeps nothing (a candidate, or the old version of an upgrade) */
	WEIR_RUN_LOST				/* its WAL is gone: to be rebuilt */
} WeirRunStatus;

extern const char *weir_run_status_name(WeirRunStatus status);

typedef struct WeirVersionRun
{
	WeirRunStatus status;
	int64		reader_id;
	char	   *sqlstate;		/* of the error that stopped it, or NULL */
	char	   *message;		/* of the error that stopped it, or NULL */
	char	   *hint;
	XLogRecPtr	error_lsn;
	char	   *stop_cause;
	char	   *build;			/* jsonb text: rows and checksum of the first state; NULL before it is built */
	bool		is_resuming;	/* stopped, but asked to go on: the coordinator has not come to it yet */
} WeirVersionRun;

extern WeirVersionRun weir_version_run_get(int64 operator_id, int version);
/* For whoever reads states under the same snapshot. */
extern bool weir_version_is_live_at_snapshot(int64 operator_id, int version, int64 *reader_id);
extern void weir_version_run_insert(int64 operator_id, int version, int64 reader_id);
extern void weir_version_run_set(int64 operator_id, int version, WeirRunStatus status, int64 reader_id);
extern void weir_version_run_built(int64 operator_id, int version, XLogRecPtr lsn, uint64 checksum);
/* -1: not known yet. */
extern void weir_version_run_progress(int64 operator_id, int version, int64 total, int64 written);

/* Why a version stopped; cause is error, pause or stale. */
typedef struct WeirStop
{
	const char *cause;
	int			sqlerrcode;
	const char *message;
	const char *detail;
	const char *hint;
	XLogRecPtr	lsn;
} WeirStop;

extern void weir_version_run_stop(int64 operator_id, int version, WeirRunStatus status,
								  int64 reader_id, const WeirStop *stop);
/* The waiting call that a verification version answers (shared memory id); 0 none. */
extern void weir_version_set_request(int64 operator_id, int version, uint64 request_id);
extern uint64 weir_version_request(int64 operator_id, int version);
extern void weir_version_run_clear_error(int64 operator_id, int version);

typedef struct WeirVersionStat
{
	int64		rows;
	int64		folds;
	int64		inserted;
	int64		updated;
	int64		deleted;
	int64		batches;
	int64		errors;
	int64		apply_us;
} WeirVersionStat;

extern void weir_version_stat_add(int64 operator_id, int version, const WeirVersionStat *stat);

#endif							/* WEIR_VERSION_CATALOG_H */
