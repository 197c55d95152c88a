/*
 * weir_compat.h - what differs between PostgreSQL 15, 16, 17 and 18.
 *
 * The only file that may look at PG_VERSION_NUM: one section per area of the
 * server, each function named weir_compat_* and doing the same on every
 * version.  A section ends where the next one's heading begins; add to it or
 * append one.
 */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "pg_weir needs PostgreSQL 15 or later"
#endif

/* ---- Replication slots ---- */

#include "replication/slot.h"

/* A logical slot, dropped at release unless persisted; no two-phase decoding, not synchronised to standbys. */
static inline void
weir_compat_slot_create(const char *slot_name)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(slot_name, true, RS_EPHEMERAL, false, false, false);
#else
	ReplicationSlotCreate(slot_name, true, RS_EPHEMERAL, false);
#endif
}

/* Fails when the slot is active elsewhere, not when it is invalidated: callers ask for the reason. */
static inline void
weir_compat_slot_acquire(const char *slot_name)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(slot_name, true, false);
#else
	ReplicationSlotAcquire(slot_name, true);
#endif
}

/* Why a slot can no longer be read, in the words of pg_replication_slots; NULL when it can. */
static inline const char *
weir_compat_slot_invalidation(const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 160000
	switch (data->invalidated)
	{
		case RS_INVAL_NONE:
			return NULL;
		case RS_INVAL_WAL_REMOVED:
			return "wal_removed";
		case RS_INVAL_HORIZON:
			return "rows_removed";
		case RS_INVAL_WAL_LEVEL:
			return "wal_level_insufficient";
#if PG_VERSION_NUM >= 180000
		case RS_INVAL_IDLE_TIMEOUT:
			return "idle_timeout";
#endif
	}
	return "unknown";
#else
	return XLogRecPtrIsInvalid(data->invalidated_at) ? NULL : "wal_removed";
#endif
}

/* ---- Decoded changes ---- */

#include "replication/reorderbuffer.h"

/* The rows of a change; NULL when the WAL has none. */
static inline HeapTuple
weir_compat_new_row(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.newtuple;
#else
	return change->data.tp.newtuple != NULL ? &change->data.tp.newtuple->tuple : NULL;
#endif
}

static inline HeapTuple
weir_compat_old_row(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.oldtuple;
#else
	return change->data.tp.oldtuple != NULL ? &change->data.tp.oldtuple->tuple : NULL;
#endif
}

/* ---- Tuple descriptors ---- */

#include "access/tupdesc.h"

/* True for a column that no stored row contains (generated when read). */
static inline bool
weir_compat_column_is_virtual(Form_pg_attribute attribute)
{
#if PG_VERSION_NUM >= 180000
	return attribute->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL;
#else
	return false;
#endif
}

/* ---- Writing rows and reading indexes without the executor ---- */

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"

/* Tells which indexes need entries for the new version: all of them, or only summarizing ones. */
static inline void
weir_compat_table_tuple_update(Relation relation, ItemPointer tid, TupleTableSlot *slot,
							   Snapshot snapshot, bool *all_indexes, bool *summarizing_indexes)
{
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update_indexes;

	simple_table_tuple_update(relation, tid, slot, snapshot, &update_indexes);
	*all_indexes = update_indexes == TU_All;
	*summarizing_indexes = update_indexes == TU_Summarizing;
#else
	simple_table_tuple_update(relation, tid, slot, snapshot, all_indexes);
	*summarizing_indexes = false;
#endif
}

static inline void
weir_compat_insert_index_tuples(ResultRelInfo *result_rel, TupleTableSlot *slot, EState *estate,
								bool update, bool only_summarizing)
{
#if PG_VERSION_NUM >= 160000
	ExecInsertIndexTuples(result_rel, slot, estate, update, false, NULL, NIL, only_summarizing);
#else
	ExecInsertIndexTuples(result_rel, slot, estate, update, false, NULL, NIL);
#endif
}

static inline IndexScanDesc
weir_compat_index_beginscan(Relation table, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(table, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(table, index, snapshot, nkeys, 0);
#endif
}

/* ---- Definitions ---- */

#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_proc.h"
#endif

/* 18 says it before the declaration; pg_attribute_noreturn() is gone there. */
#if PG_VERSION_NUM < 180000 && !defined(pg_noreturn)
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Puts GROUP BY expressions back in place of references to them, where the parser made such. */
static inline Node *
weir_compat_flatten_group_exprs(Query *query, Node *node)
{
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
		return flatten_group_exprs(NULL, query, node);
#endif
	return node;
}

static inline AclResult
weir_compat_function_aclcheck(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE);
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE);
#endif
}

/* SQL/JSON constructors (16) and query functions (17). */
static inline bool
weir_compat_is_json_expr(Node *node)
{
#if PG_VERSION_NUM >= 170000
	return IsA(node, JsonConstructorExpr) || IsA(node, JsonExpr);
#elif PG_VERSION_NUM >= 160000
	return IsA(node, JsonConstructorExpr);
#else
	return false;
#endif
}

/* Whether 'infinity' is a value of type interval. */
#if PG_VERSION_NUM >= 170000
#define WEIR_COMPAT_INTERVAL_INFINITY true
#else
#define WEIR_COMPAT_INTERVAL_INFINITY false
#endif

/* ---- Ownership of relations ---- */

#include "catalog/pg_class.h"
#include "utils/acl.h"

static inline bool
weir_compat_relation_is_owned(Oid relation, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relation, role);
#else
	return pg_class_ownercheck(relation, role);
#endif
}

/* ---- Processes: wait events, statistics, rights on databases ---- */

#include "catalog/pg_database.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/wait_event.h"

/* The wait event's number, looked up once per process; before 17 all are "Extension". */
static inline uint32
weir_compat_wait_event(const char *name, uint32 *cached)
{
#if PG_VERSION_NUM >= 170000
	if (*cached == 0)
		*cached = WaitEventExtensionNew(name);
	return *cached;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* index from 1 to pgstat_fetch_stat_numbackends() */
static inline LocalPgBackendStatus *
weir_compat_backend_status(int index)
{
#if PG_VERSION_NUM >= 160000
	return pgstat_get_local_beentry_by_index(index);
#else
	return pgstat_fetch_stat_local_beentry(index);
#endif
}

static inline bool
weir_compat_is_database_owner(Oid database, Oid user)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, user);
#else
	return pg_database_ownercheck(database, user);
#endif
}

/* ---- Views ---- */

#include "nodes/parsenodes.h"
#include "rewrite/rewriteManip.h"

/*
 * A view's query as the parser made it. Before 16 a view keeps two entries for
 * itself in front of its range table; in the query of another view they would
 * make that one depend on it.
 */
static inline void
weir_compat_strip_view_entries(Query *query)
{
#if PG_VERSION_NUM < 160000
	query->rtable = list_copy_tail(query->rtable, 2);
	OffsetVarNodes((Node *) query, -2, 0);
#endif
}

#endif							/* WEIR_COMPAT_H */
