/*
 * upgrade_catalog.h - rows of weir_internal.upgrade.
 *
 * Written by control calls and the coordinator under the operator's row lock;
 * readers only look. SPI connected; transactions belong to the caller.
 */
#ifndef WEIR_UPGRADE_CATALOG_H
#define WEIR_UPGRADE_CATALOG_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "catalog/phases.h"

typedef struct WeirUpgrade
{
	int64		upgrade_id;
	int64		operator_id;
	int			from_version;
	int			to_version;
	char	   *strategy;
	WeirPhase	phase;
	bool		auto_advance;
	bool		advance_requested;
	bool		paused;			/* takes no edge by itself */
	int			step;			/* steps taken */
	int			nsteps;
	int			percent;		/* of the last one taken; 0 before the first */
	int			next_percent;
	bool		is_repair;		/* of an operator that need not be live: nobody to compare with */
	bool		drift_known;	/* the full comparison was done */
	int64		drift_missing;
	int64		drift_extra;
	bool		window_over;	/* observing, and its safe window has ended */
	XLogRecPtr	drift_lsn;
	char	   *gates;			/* jsonb text with every key */
	List	   *gate_queries;	/* of char *, fully qualified */
	List	   *compare_columns;	/* of char * */
	bool		rollback_possible;
	char	   *rollback_obstacle;
	char	   *reason;
} WeirUpgrade;

typedef struct WeirUpgradeRequest
{
	int64		operator_id;
	int			from_version;
	int			to_version;
	const char *strategy;
	Datum		steps;			/* int[] */
	const char *gates;			/* jsonb text */
	List	   *gate_queries;
	bool		auto_advance;
	Datum		safe_window;	/* interval */
	const char *options;		/* jsonb text */
	List	   *compare_columns;
	Oid			started_by;
} WeirUpgradeRequest;

extern int64 weir_upgrade_insert(const WeirUpgradeRequest *request);
/* The one that has not ended; NULL: none. */
extern WeirUpgrade *weir_upgrade_live(int64 operator_id);
extern WeirUpgrade *weir_upgrade_latest(int64 operator_id);
extern void weir_upgrade_set_phase(int64 upgrade_id, WeirPhase phase, const char *reason);
extern void weir_upgrade_set_shift(int64 upgrade_id, XLogRecPtr lsn);	/* also observing_until */
extern void weir_upgrade_set_drift(int64 upgrade_id, int64 missing, int64 extra, XLogRecPtr lsn, TimestampTz at);
extern void weir_upgrade_set_advance(int64 upgrade_id, bool requested);
extern void weir_upgrade_set_step(int64 upgrade_id, int step);	/* taken now; a further step ends the request for it */
extern void weir_upgrade_set_paused(int64 upgrade_id, bool paused, const char *reason);	/* reason: why, or NULL */
extern void weir_upgrade_set_obstacle(int64 upgrade_id, const char *obstacle);
extern void weir_upgrade_set_reason(int64 upgrade_id, const char *reason);

#endif							/* WEIR_UPGRADE_CATALOG_H */
