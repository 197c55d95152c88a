/*
 * weir_guc.h - the settings weir.*; defined once in weir_guc.c.
 *
 * Workers see a change at the next batch boundary (SIGHUP), sessions at once.
 */
#ifndef WEIR_GUC_H
#define WEIR_GUC_H

typedef enum WeirReadVersion
{
	WEIR_READ_SERVING,
	WEIR_READ_CANDIDATE			/* the new version of an upgrade, once there is one to be read */
} WeirReadVersion;

extern int	weir_guc_max_batch_rows;		/* most rows per batch under backlog (SIGHUP, default 1000000) */
extern int	weir_guc_batch_memory_kb;		/* memory of one table's changes in a batch before it spills (default 64MB) */
extern int	weir_guc_max_batch_ms;			/* time after which a batch is closed, and that its size aims at (default 2000) */
extern int	weir_guc_key_cache_kb;			/* memory per version for cached keys (default 64MB) */
extern int	weir_guc_max_retained_wal_mb;	/* WAL a stopped operator may keep (default 10GB), -1 no limit */
extern int	weir_guc_poll_interval_ms;		/* slow poll beside the commit wake-up (default 200) */
extern int	weir_guc_max_hold_ms;			/* limit of a handover hold (default 200) */
extern int	weir_guc_restart_delay_ms;		/* first delay before a failed worker is started again; doubles to 60 s (default 1000) */
extern int	weir_guc_build_chunk_rows;		/* state rows written per transaction while building (default 20000) */
extern int	weir_guc_read_version;			/* WeirReadVersion: what operators' views show to this session */
#ifdef WEIR_TEST
extern char *weir_guc_crash_point;			/* name of the crash point at which to die; empty: none */
#endif

extern void weir_guc_define(void);

#endif							/* WEIR_GUC_H */
