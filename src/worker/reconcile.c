/*
 * reconcile.c - bringing rows and relations in line with what is asked for.
 *
 * Runs in the coordinator, a few short transactions per turn. Everything is
 * derived from the catalogs each time, so killed anywhere the next turn does
 * what is left. Operators' rows are locked with SKIP LOCKED: a user's open
 * control call delays its own operator's next edge and nothing else.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/reader_catalog.h"
#include "catalog/serving_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "catalog/version_catalog.h"
#include "operator/operator_remove.h"
#include "operator/serving_view.h"
#include "operator/version_create.h"
#include "upgrade/gate_judge.h"
#include "upgrade/upgrade_steps.h"
#include "weir_errors.h"
#include "weir_shmem.h"
#include "worker/attempt.h"
#include "worker/gatekeeper.h"
#include "worker/reader_pool.h"
#include "worker/reconcile.h"
#include "worker/worker_loop.h"

typedef struct VersionKey
{
	int64		operator_id;
	int			version;
	int64		other;			/* reader or stream, as the query says */
} VersionKey;

/* First three columns (bigint, int, bigint) of the result, allocated in context. */
static List *
keys_from_result(uint64 count, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *keys = NIL;

	for (uint64 row = 0; row < count; row++)
	{
		VersionKey *key = palloc(sizeof(VersionKey));

		key->operator_id = weir_result_int64(row, 1);
		key->version = weir_result_int(row, 2);
		key->other = weir_result_int64(row, 3);
		keys = lappend(keys, key);
	}
	MemoryContextSwitchTo(old);
	return keys;
}

/* One piece for each key; an error in one leaves the others alone. True when something changed. */
static bool
attempt_each(List *keys, WeirAttempt piece)
{
	ListCell   *lc;
	bool		changed = false;

	foreach(lc, keys)
	{
		VersionKey *key = lfirst(lc);

		changed |= weir_attempt(piece, key, key->operator_id, key->version);
	}
	return changed;
}

static bool
remove_operator(void *argument)
{
	VersionKey *key = argument;
	bool		removed = false;

	weir_worker_begin();
	if (weir_operator_try_lock(key->operator_id))
	{
		weir_operator_remove(weir_operator_by_id(key->operator_id), GetUserId(), "its view was dropped");
		removed = true;
	}
	weir_worker_commit();
	return removed;
}

bool
weir_reconcile_operators(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *gone;

	weir_worker_begin();
	gone = keys_from_result(weir_query(NULL,
									   "SELECT operator_id, 0, 0::bigint FROM weir_internal.operator o WHERE NOT dropped "
									   "AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.view_oid)", ""),
							context);
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	return attempt_each(gone, remove_operator);
}

static void
ensure_main_reader(int stream_id)
{
	if (weir_reader_get_main(stream_id) != NULL)
		return;
	(void) weir_reader_insert(stream_id, WEIR_READER_MAIN, WEIR_READER_NEW, InvalidXLogRecPtr, false);
	/* There is nothing before it that it would have to apply. */
	weir_fresh_publish(GetCurrentTimestamp());
}

/* Versions that have no reader yet get a catch-up reader of their own. */
static bool
give_readers(void)
{
	List	   *new_versions = keys_from_result(weir_query(NULL,
														   "SELECT v.operator_id, v.version, o.stream_id::bigint FROM weir_internal.version v "
														   "JOIN weir_internal.operator o USING (operator_id) "
														   "WHERE NOT v.retired AND NOT o.dropped AND NOT EXISTS (SELECT FROM weir_internal.version_run r "
														   "WHERE r.operator_id = v.operator_id AND r.version = v.version) "
														   "ORDER BY v.operator_id, v.version", ""),
												CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, new_versions)
	{
		VersionKey *key = lfirst(lc);
		int64		reader_id;

		ensure_main_reader((int) key->other);
		reader_id = weir_reader_insert((int) key->other, WEIR_READER_CATCH_UP, WEIR_READER_NEW,
									   InvalidXLogRecPtr, false);
		weir_version_run_insert(key->operator_id, key->version, reader_id);
	}
	return new_versions != NIL;
}

/*
 * Versions that are built, resumed or compared have nothing to catch up with
 * when the main reader was given up meanwhile. A new one starts at the present
 * end of the WAL; up to there they read it from their own slots.
 */
static bool
replace_main_readers(void)
{
	List	   *streams = keys_from_result(weir_query(NULL,
													  "SELECT DISTINCT r.stream_id::bigint, 0, 0::bigint FROM weir_internal.reader r "
													  "WHERE r.kind = 'catch_up' AND r.status <> 'ended' AND NOT EXISTS (SELECT FROM weir_internal.reader m "
													  "WHERE m.stream_id = r.stream_id AND m.kind = 'main')", ""),
										   CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, streams)
		ensure_main_reader((int) ((VersionKey *) lfirst(lc))->operator_id);
	return streams != NIL;
}

/* Readers that nobody needs end; their process is told, their slot goes afterwards. */
static bool
end_readers(void)
{
	List	   *idle = keys_from_result(weir_query(NULL,
												   "SELECT reader_id, 0, 0::bigint FROM weir_internal.reader r WHERE status <> 'ended' AND "
												   "CASE WHEN kind = 'main' THEN NOT EXISTS (SELECT FROM weir_internal.operator o "
												   "WHERE o.stream_id = r.stream_id AND NOT o.dropped) "
												   "ELSE NOT EXISTS (SELECT FROM weir_internal.version_run x "
												   "JOIN weir_internal.version v ON v.operator_id = x.operator_id AND v.version = x.version "
												   "JOIN weir_internal.operator o ON o.operator_id = x.operator_id "
												   "WHERE x.reader_id = r.reader_id AND NOT v.retired AND NOT o.dropped "
												   "AND x.status NOT IN ('failed', 'lost')) END ORDER BY reader_id", ""),
										CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, idle)
	{
		int64		reader_id = ((VersionKey *) lfirst(lc))->operator_id;

		weir_reader_pool_terminate(reader_id);
		weir_reader_end(reader_id);
	}
	return idle != NIL;
}

bool
weir_reconcile_versions(void)
{
	bool		changed;

	weir_worker_begin();
	changed = end_readers();
	/* Durable before anybody sees it: the main slot passes an ended place, the ended reader's slot goes. */
	if (changed)
		ForceSyncCommit();
	changed |= give_readers();
	changed |= replace_main_readers();
	weir_worker_commit();
	return changed;
}

bool
weir_reconcile_paused(void)
{
	List	   *readers;
	ListCell   *lc;

	weir_worker_begin();
	readers = keys_from_result(weir_query(NULL,
										  "SELECT DISTINCT x.reader_id, 0, 0::bigint FROM weir_internal.version_run x "
										  "JOIN weir_internal.version v ON v.operator_id = x.operator_id AND v.version = x.version "
										  "JOIN weir_internal.operator o ON o.operator_id = x.operator_id "
										  "WHERE x.status = 'live' AND NOT v.retired AND NOT o.dropped AND o.desired = 'pause'", ""),
							   CurrentMemoryContext);
	foreach(lc, readers)
	{
		WeirReaderShmem *reader = weir_reader_find(MyDatabaseId, ((VersionKey *) lfirst(lc))->operator_id);

		if (reader == NULL)
			continue;			/* asked when it runs again */
		pg_atomic_write_u32(&reader->pause_asked, 1);
		weir_wake_reader(reader);
	}
	weir_worker_commit();
	/* The reader's commit is what changes something, and wakes us. */
	return false;
}

bool
weir_reconcile_resumed(void)
{
	List	   *resumed;
	ListCell   *lc;

	/*
	 * A pause that was withdrawn before the reader acted on it is over too,
	 * whichever came first; after an error only a later call counts. Whoever
	 * was left out because of a lock goes on waiting in a reader of its own.
	 */
	weir_worker_begin();
	resumed = keys_from_result(weir_query(NULL,
										  "SELECT x.operator_id, x.version, x.reader_id FROM weir_internal.version_run x "
										  "JOIN weir_internal.version v ON v.operator_id = x.operator_id AND v.version = x.version "
										  "JOIN weir_internal.operator o ON o.operator_id = x.operator_id "
										  "JOIN weir_internal.reader r ON r.reader_id = x.reader_id "
										  "WHERE x.status = 'stopped' AND NOT v.retired AND NOT o.dropped AND o.desired = 'run' "
										  "AND (x.stop_cause IN ('pause', 'lock') OR o.resumed_at > x.status_since) "
										  "AND NOT r.slot_pending AND r.status = 'running'", ""),
							   CurrentMemoryContext);
	foreach(lc, resumed)
	{
		VersionKey *key = lfirst(lc);

		weir_reader_set_kind(key->other, WEIR_READER_CATCH_UP);
		weir_version_run_set(key->operator_id, key->version, WEIR_RUN_CATCHING_UP, key->other);
		weir_version_run_clear_error(key->operator_id, key->version);
	}
	weir_worker_commit();
	return resumed != NIL;
}

static bool
simplify_view(void *argument)
{
	VersionKey *key = argument;
	bool		replaced = false;

	weir_worker_begin();
	if (weir_operator_try_lock(key->operator_id))
	{
		WeirOperator *operator = weir_operator_by_id(key->operator_id);

		if (OidIsValid(weir_relation_owner(operator->view)) && weir_serving_view_try_lock(operator->view))
		{
			weir_serving_view_replace(operator,
									  weir_version_get(key->operator_id, operator->serving_version), NULL);
			replaced = true;
		}
	}
	weir_worker_commit();
	return replaced;
}

/*
 * Views that still have the branch of a version that no snapshot can need, or
 * the filter of one that was not built. (The serving row's last change is not
 * before the one that showed the version.)
 */
static bool
simplify_views(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *candidates;

	weir_worker_begin();
	candidates = keys_from_result(weir_query(NULL,
											 "SELECT s.operator_id, s.version, 0::bigint FROM weir_internal.serving s "
											 "JOIN weir_internal.operator o USING (operator_id) WHERE NOT o.dropped AND cardinality(s.view_versions) > 1 "
											 "AND (EXISTS (SELECT FROM weir_internal.version v WHERE v.operator_id = s.operator_id "
											 "AND v.version = ANY (s.view_versions) AND v.retired AND " WEIR_NO_SNAPSHOT_BEFORE("v.retired_xid::xid", "") ") "
											 "OR 0 = ANY (s.view_versions) AND s.shown_version > 0 AND " WEIR_NO_SNAPSHOT_BEFORE("s.xmin", "") ")", ""),
								  context);
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	return attempt_each(candidates, simplify_view);
}

/* Fails when somebody made a view over one of them. */
static bool
drop_relations_of(void *argument)
{
	VersionKey *key = argument;
	bool		dropped;

	weir_worker_begin();
	dropped = weir_version_try_drop(key->operator_id, key->version);
	weir_worker_commit();
	return dropped;
}

/* Relations of retired versions that no view reads any more. */
static bool
drop_relations(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *candidates;

	weir_worker_begin();
	candidates = keys_from_result(weir_query(NULL,
											 "SELECT v.operator_id, v.version, 0::bigint FROM weir_internal.version v "
											 "JOIN weir_internal.operator o USING (operator_id) "
											 "LEFT JOIN weir_internal.serving s USING (operator_id) "
											 "WHERE v.retired AND v.state_table <> 0 AND "
											 "(NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.view_oid) "
											 "OR NOT v.version = ANY (s.view_versions))", ""),
								  context);
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	return attempt_each(candidates, drop_relations_of);
}

bool
weir_reconcile_retired(void)
{
	bool		changed = simplify_views();

	return drop_relations() || changed;
}

/* One edge of one upgrade, in one transaction under its operator's lock. */
static bool
walk_one(int64 operator_id)
{
	WeirUpgrade *upgrade;
	bool		changed = false;

	weir_worker_begin();
	if (weir_operator_try_lock(operator_id))
	{
		WeirOperator *operator = weir_operator_by_id(operator_id);

		upgrade = weir_upgrade_live(operator_id);
		if (upgrade != NULL && OidIsValid(weir_relation_owner(operator->view)))
		{
			WEIR_CRASH_POINT(psprintf("edge-from-%s", weir_phase_name(upgrade->phase)));
			changed = weir_upgrade_walk(operator, upgrade);
			if (changed)
				WEIR_CRASH_POINT(psprintf("edge-to-%s", weir_phase_name(upgrade->phase)));
		}
	}
	weir_worker_commit();
	return changed;
}

/* Comparing and the user's queries take long: a process of its own does it. A repair has nobody to be compared with. */
static void
compare_one(int64 operator_id)
{
	WeirUpgrade *upgrade;

	weir_worker_begin();
	upgrade = weir_upgrade_live(operator_id);
	if (upgrade != NULL && !upgrade->is_repair &&
		(upgrade->phase == WEIR_PHASE_VALIDATING || (upgrade->phase == WEIR_PHASE_SHIFTING && upgrade->step > 0)) &&
		(weir_gates_want_comparison(upgrade) || weir_gates_want_answers(upgrade)) && !weir_gatekeeper_want(operator_id) &&
		weir_operator_try_lock(operator_id))
		weir_upgrade_set_reason(upgrade->upgrade_id,
								"waits: no background worker is free for its gates (max_worker_processes)");
	weir_worker_commit();
}

/* What stands in an upgrade's way will stand there the next time too: it ends with the reason. */
void
weir_reconcile_end_failed_upgrade(int64 operator_id, ErrorData *error)
{
	WeirOperator *operator;
	WeirUpgrade *upgrade;

	weir_worker_begin();
	if (!weir_operator_try_lock(operator_id))
	{
		weir_worker_commit();
		return;
	}
	operator = weir_operator_by_id(operator_id);
	upgrade = weir_upgrade_live(operator_id);
	/* It has shifted: not for us to undo. Nor is what nobody can take back. */
	if (upgrade != NULL && weir_operator_serves(operator, upgrade->to_version) &&
		(operator->serving_version == upgrade->to_version ||
		 weir_version_run_get(operator_id, upgrade->from_version).status != WEIR_RUN_LIVE))
		ReThrowError(error);
	if (upgrade != NULL)
		weir_upgrade_roll_back(operator, upgrade, GetUserId(),
							   psprintf("error in phase %s: %s", weir_phase_name(upgrade->phase), error->message));
	weir_worker_commit();
}

static bool
advance_upgrade(void *argument)
{
	int64		operator_id = ((VersionKey *) argument)->operator_id;
	MemoryContext context = CurrentMemoryContext;
	volatile bool changed = false;
	ErrorData  *volatile error = NULL;

	/* Restored: the reason for the upgrade's end. */
	PG_TRY();
	{
		compare_one(operator_id);
		changed = walk_one(operator_id);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!weir_error_is_permanent(error->sqlerrcode))
			PG_RE_THROW();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (error == NULL)
		return changed;
	weir_reconcile_end_failed_upgrade(operator_id, (ErrorData *) error);
	return true;
}

bool
weir_reconcile_upgrades(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *upgrades;
	bool		changed;

	weir_worker_begin();
	/*
	 * One that merely observes or is paused is left alone: looking at it locks
	 * its operator, hence costs an XID each time.
	 */
	upgrades = keys_from_result(weir_query(NULL,
										   "SELECT operator_id, to_version, 0::bigint FROM weir_internal.upgrade u "
										   "WHERE phase NOT IN ('finalized', 'rolled_back') "
										   "AND NOT ((paused OR phase = 'observing' AND observing_until > clock_timestamp()) "
										   "AND NOT EXISTS (SELECT FROM weir_internal.version_run r WHERE r.operator_id = u.operator_id "
										   "AND (r.version = u.to_version AND r.status IN ('stopped', 'failed', 'lost') "
										   "OR r.version = u.from_version AND r.status IN ('failed', 'lost') AND u.rollback_possible))) ORDER BY upgrade_id", ""),
								context);
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	changed = attempt_each(upgrades, advance_upgrade);
	weir_gatekeepers_end_unwanted();
	return changed;
}

static bool
chain_ledger_of(void *argument)
{
	VersionKey *key = argument;
	bool		locked;

	weir_worker_begin();
	locked = weir_operator_try_lock(key->operator_id);
	if (locked)
		weir_ledger_chain(key->operator_id);
	weir_worker_commit();
	return locked;
}

/* What workers noted without their operators' locks; of dropped operators too. */
bool
weir_reconcile_ledger(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *unchained;

	weir_worker_begin();
	unchained = keys_from_result(weir_query(NULL,
											"SELECT DISTINCT operator_id, 0, 0::bigint FROM weir_internal.ledger "
											"WHERE hash IS NULL", ""),
								 context);
	weir_worker_commit();
	MemoryContextSwitchTo(context);
	return attempt_each(unchained, chain_ledger_of);
}

bool
weir_reconcile_is_busy(void)
{
	bool		busy;

	weir_worker_begin();
	busy = weir_query(NULL,
					  "SELECT 1 FROM weir_internal.reader WHERE kind = 'catch_up' OR status <> 'running' OR slot_pending "
					  "UNION ALL SELECT 1 FROM weir_internal.upgrade WHERE phase NOT IN ('observing', 'finalized', 'rolled_back') "
					  "AND NOT paused AND (auto_advance OR advance_requested OR drift_lsn IS NULL) "
					  "UNION ALL SELECT 1 FROM weir_internal.version WHERE retired AND state_table <> 0 LIMIT 1", "") > 0;
	weir_worker_commit();
	return busy;
}
