/*
 * alert_catalog.c - rows of weir_internal.objective and .alert.
 *
 * What needs a person is said in SQL, by weir_internal.condition_now; here it
 * is compared with what was said before.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "catalog/alert_catalog.h"
#include "catalog/catalog_query.h"

/* Alerts that have ended are kept while they are among this many. */
#define ALERTS_KEPT "1000"

void
weir_objective_remove(int64 operator_id)
{
	weir_query(NULL, "DELETE FROM weir_internal.objective WHERE operator_id = $1", "l", operator_id);
}

void
weir_objective_set(int64 operator_id, const WeirObjective *objective, Oid set_by)
{
	weir_objective_remove(operator_id);
	weir_query(NULL,
			   "INSERT INTO weir_internal.objective (operator_id, objectives, max_lag, max_lag_bytes, "
			   "max_retained_wal, set_by) VALUES ($1, $2, nullif($3, '0'), nullif($4, 0), nullif($5, 0), $6)",
			   "ljDlln", operator_id, objective->objectives, IntervalPGetDatum(objective->max_lag), INTERVALOID,
			   objective->max_lag_bytes, objective->max_retained_wal, GetUserNameFromId(set_by, false));
}

List *
weir_objective_missed(int64 operator_id)
{
	List	   *messages = NIL;
	uint64		count = weir_query(NULL,
								   "SELECT message FROM weir_internal.condition_now WHERE operator_id = $1 "
								   "AND condition LIKE 'max\\_%' ORDER BY condition", "l", operator_id);

	for (uint64 row = 0; row < count; row++)
		messages = lappend(messages, weir_result_text(row, 1));
	return messages;
}

bool
weir_objective_needs_room(void)
{
	static SPIPlanPtr plan = NULL;

	return weir_query(&plan,
					  "SELECT 1 FROM weir_internal.alert a JOIN weir_internal.serving s USING (operator_id) "
					  "JOIN weir_internal.version_run r ON r.operator_id = s.operator_id AND r.version = s.version "
					  "WHERE a.cleared_at IS NULL AND a.condition IN ('max_lag', 'max_lag_bytes') AND r.status = 'live'",
					  "") > 0;
}

/* The payload has no texts that only some may see: everybody can listen. */
#define NOTIFY_CHANGE \
	"pg_notify('weir_alert', jsonb_build_object('alert_id', c.alert_id, 'change', c.change, 'condition', c.condition, " \
	"'operator', o.view_oid::regclass, 'version', c.version, 'reader_id', nullif(c.reader_id, 0))::text)"

#define SAME_SUBJECT "(a.condition, a.operator_id, a.reader_id) = (n.condition, n.operator_id, n.reader_id)"

List *
weir_alert_update(void)
{
	static SPIPlanPtr plan = NULL;
	List	   *changes = NIL;
	uint64		count = weir_query(&plan,
								   "WITH now AS MATERIALIZED (SELECT * FROM weir_internal.condition_now), "
								   "raised AS (INSERT INTO weir_internal.alert AS a (condition, operator_id, reader_id, version, message, hint, detail) "
								   "SELECT n.condition, n.operator_id, n.reader_id, n.version, n.message, n.hint, n.detail FROM now n "
								   "WHERE NOT EXISTS (SELECT FROM weir_internal.alert a WHERE a.cleared_at IS NULL AND " SAME_SUBJECT ") "
								   "RETURNING a.alert_id, a.condition, a.operator_id, a.reader_id, a.version, 'raised' AS change), "
								   "cleared AS (UPDATE weir_internal.alert a SET cleared_at = clock_timestamp() "
								   "WHERE a.cleared_at IS NULL AND NOT EXISTS (SELECT FROM now n WHERE " SAME_SUBJECT ") "
								   "RETURNING a.alert_id, a.condition, a.operator_id, a.reader_id, a.version, 'cleared' AS change) "
								   "SELECT c.condition, coalesce(o.view_oid::regclass::text, 'reader ' || c.reader_id), c.change = 'raised', " NOTIFY_CHANGE " "
								   "FROM (TABLE cleared UNION ALL TABLE raised) c LEFT JOIN weir_internal.operator o USING (operator_id) "
								   "ORDER BY c.alert_id", "");

	for (uint64 row = 0; row < count; row++)
	{
		WeirAlertChange *change = palloc(sizeof(WeirAlertChange));

		change->condition = weir_result_text(row, 1);
		change->subject = weir_result_text(row, 2);
		change->is_raised = weir_result_bool(row, 3);
		changes = lappend(changes, change);
	}
	if (changes != NIL)
		weir_query(NULL,
				   "DELETE FROM weir_internal.alert WHERE cleared_at IS NOT NULL "
				   "AND alert_id <= (SELECT max(alert_id) - " ALERTS_KEPT " FROM weir_internal.alert)", "");
	return changes;
}
