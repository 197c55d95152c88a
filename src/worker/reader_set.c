/*
 * reader_set.c - which versions a reader applies, and loading them.
 *
 * Runs in readers, in the reader's transactions. The committed set is read
 * anew in every batch transaction after the reader's row is locked, so a
 * version that was handed over, retired or paused is seen before the batch is
 * applied. Takes no row locks: control calls never stop a reader.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "catalog/catalog_query.h"
#include "catalog/version_catalog.h"
#include "weir_errors.h"
#include "worker/reader.h"
#include "worker/worker_loop.h"

List *
weir_reader_set_read(const WeirReader *reader)
{
	static SPIPlanPtr plan = NULL;
	uint64		count;
	List	   *members = NIL;

	count = weir_query(&plan,
					   "SELECT r.operator_id, r.version, v.purpose = 'verification', "
					   "coalesce(u.to_version = r.version, false), "
					   "CASE r.version WHEN u.to_version THEN u.from_version WHEN u.from_version THEN u.to_version END, "
					   "o.desired = 'pause', c.relowner, "
					   "NOT EXISTS (SELECT FROM pg_catalog.pg_class d WHERE d.oid = v.definition_view), "
					   "coalesce(s.version = r.version, false), u.upgrade_id "
					   "FROM weir_internal.version_run r "
					   "JOIN weir_internal.version v ON v.operator_id = r.operator_id AND v.version = r.version "
					   "JOIN weir_internal.operator o ON o.operator_id = r.operator_id "
					   "LEFT JOIN pg_catalog.pg_class c ON c.oid = o.view_oid "
					   "LEFT JOIN weir_internal.serving s ON s.operator_id = r.operator_id "
					   "LEFT JOIN weir_internal.upgrade u ON u.operator_id = r.operator_id "
					   "AND u.phase NOT IN ('finalized', 'rolled_back') "
					   "WHERE r.reader_id = $1 AND r.status IN ('building', 'catching_up', 'live') "
					   "AND NOT v.retired AND NOT o.dropped ORDER BY r.operator_id, r.version",
					   "l", reader->reader_id);
	for (uint64 row = 0; row < count; row++)
	{
		WeirSetMember *member = palloc(sizeof(WeirSetMember));

		member->operator_id = weir_result_int64(row, 1);
		member->version = weir_result_int(row, 2);
		member->is_verification = weir_result_bool(row, 3);
		member->is_candidate = weir_result_bool(row, 4);
		member->partner = weir_result_int(row, 5);
		member->pause_wanted = weir_result_bool(row, 6);
		member->owner = weir_result_oid(row, 7);
		member->definition_dropped = weir_result_bool(row, 8);
		member->is_serving = weir_result_bool(row, 9);
		member->upgrade_id = weir_result_int64(row, 10);
		members = lappend(members, member);
	}
	return members;
}

/* A new owner counts as another version: it is loaded anew, to run with the new owner's rights. */
static bool
is_of_member(const WeirLoadedVersion *loaded, const WeirSetMember *member)
{
	return loaded->operator_id == member->operator_id && loaded->version == member->version &&
		loaded->owner == member->owner;
}

WeirLoadedVersion *
weir_reader_set_find(const WeirReader *reader, const WeirSetMember *member)
{
	ListCell   *lc;

	foreach(lc, reader->versions)
	{
		WeirLoadedVersion *loaded = lfirst(lc);

		if (is_of_member(loaded, member))
			return loaded;
	}
	return NULL;
}

bool
weir_reader_set_is_loaded(const WeirReader *reader, List *members)
{
	ListCell   *lc;

	foreach(lc, members)
		if (weir_reader_set_find(reader, lfirst(lc)) == NULL)
			return false;
	return true;
}

static void
unload_absent(WeirReader *reader, List *members)
{
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, reader->versions)
	{
		WeirLoadedVersion *loaded = lfirst(lc);
		MemoryContext old;
		ListCell   *member_cell;
		bool		wanted = false;

		foreach(member_cell, members)
		{
			wanted |= is_of_member(loaded, lfirst(member_cell));
		}
		if (!wanted || !weir_version_is_current(loaded))
		{
			weir_version_unload(loaded);
			continue;
		}
		old = MemoryContextSwitchTo(WeirWorkerContext);
		kept = lappend(kept, loaded);
		MemoryContextSwitchTo(old);
	}
	list_free(reader->versions);
	reader->versions = kept;
}

/* How long the main reader waits for a lock on a version's source, at the cost of all versions. */
#define LONGEST_LOCK_WAIT "100ms"

static WeirLoadedVersion *
load_version(const WeirReader *reader, const WeirSetMember *member)
{
	int			nest_level = NewGUCNestLevel();
	WeirLoadedVersion *loaded;

	if (reader->kind == WEIR_READER_MAIN)
		(void) set_config_option("lock_timeout", LONGEST_LOCK_WAIT, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	loaded = weir_version_load(WeirWorkerContext, member->operator_id, member->version);
	AtEOXact_GUC(false, nest_level);
	return loaded;
}

/*
 * Loads one version in a subtransaction, so that one whose definition or
 * functions are gone is stopped by itself and the others go on. So is one
 * whose source somebody has locked; it goes on by itself (weir_reconcile_resumed)
 * in a reader of its own, which can wait for the lock.
 */
static void
load_member(WeirReader *reader, const WeirSetMember *member)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	WeirLoadedVersion *volatile loaded = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old);
	/* The one thing restored: the rest of the set stays loaded after an error. */
	PG_TRY();
	{
		loaded = load_version(reader, member);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;
		WeirStop	stop = {"stale"};
		bool		is_locked;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
		is_locked = reader->kind == WEIR_READER_MAIN && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
		if (!is_locked && !weir_error_is_permanent(error->sqlerrcode))
			ReThrowError(error);
		if (is_locked)
		{
			stop.cause = "lock";
			error->message = "its source is locked";
			error->hint = "It goes on by itself when the lock is released.";
		}
		stop.sqlerrcode = error->sqlerrcode;
		stop.message = error->message;
		stop.detail = error->detail;
		stop.hint = error->hint;
		stop.lsn = reader->processed_lsn;
		weir_reader_stop_version(reader, member, &stop);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;

	if (loaded != NULL)
	{
		old = MemoryContextSwitchTo(WeirWorkerContext);
		reader->versions = lappend(reader->versions, (void *) loaded);
		MemoryContextSwitchTo(old);
	}
}

static void
collect_followed(WeirReader *reader)
{
	MemoryContext context = AllocSetContextCreate(WeirWorkerContext, "weir followed tables",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *definitions = NIL;
	List	   *followed;
	ListCell   *lc;

	foreach(lc, reader->versions)
		definitions = lappend(definitions, ((WeirLoadedVersion *) lfirst(lc))->definition);
	followed = weir_definitions_followed_tables(definitions);
	if (reader->batch == NULL)
		reader->batch = weir_batch_create(followed);
	else
		weir_batch_reset(reader->batch, followed);
	reader->followed = followed;
	if (reader->followed_context != NULL)
		MemoryContextDelete(reader->followed_context);
	reader->followed_context = context;
	MemoryContextSwitchTo(old);
}

void
weir_reader_set_load(WeirReader *reader)
{
	List	   *members = weir_reader_set_read(reader);
	ListCell   *lc;

	Assert(reader->batch == NULL || reader->batch->ntransactions == 0);
	unload_absent(reader, members);
	foreach(lc, members)
		if (weir_reader_set_find(reader, lfirst(lc)) == NULL)
			load_member(reader, lfirst(lc));
	collect_followed(reader);
}
