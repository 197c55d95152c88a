/*
 * alert_catalog.h - rows of weir_internal.objective and .alert.
 *
 * objective is written by control calls under the operator's row lock, alert
 * by the coordinator alone; readers lock neither. SPI connected; transactions
 * belong to the caller.
 */
#ifndef WEIR_ALERT_CATALOG_H
#define WEIR_ALERT_CATALOG_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef struct WeirObjective
{
	const char *objectives;		/* jsonb text, as given */
	Interval   *max_lag;		/* of no length: none, as below */
	int64		max_lag_bytes;
	int64		max_retained_wal;
} WeirObjective;

/* In place of what there was. */
extern void weir_objective_remove(int64 operator_id);
extern void weir_objective_set(int64 operator_id, const WeirObjective *objective, Oid set_by);

/* Texts of what the operator misses now, as of this snapshot: List of char *. */
extern List *weir_objective_missed(int64 operator_id);

/* True when an operator that runs misses an objective of lag: work that can wait should. */
extern bool weir_objective_needs_room(void);

typedef struct WeirAlertChange
{
	char	   *condition;
	char	   *subject;		/* the operator, or the reader */
	bool		is_raised;		/* else cleared */
} WeirAlertChange;

/*
 * Raises and clears alerts so that they are what needs a person now, and
 * notifies of each change when this transaction commits. Writes nothing when
 * nothing changes. List of WeirAlertChange.
 */
extern List *weir_alert_update(void);

#endif							/* WEIR_ALERT_CATALOG_H */
