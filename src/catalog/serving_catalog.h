/*
 * serving_catalog.h - rows of weir_internal.serving: which version users see,
 * shard by shard.
 *
 * Shards below "split" are served by "candidate", the others by "version"; in
 * every snapshot it is one row that says so (I1). Written under the lock of
 * the operator's row, and by readers, which never wait for it. SPI connected,
 * inside the catalog scope; transactions belong to the caller.
 */
#ifndef WEIR_SERVING_CATALOG_H
#define WEIR_SERVING_CATALOG_H

#include "weir.h"
#include "catalog/operator_catalog.h"

extern void weir_serving_insert(int64 operator_id, int version);
extern void weir_serving_show(int64 operator_id, int version);	/* it is built: the view shows it from now on, if it serves */

/* The view has a branch for it; sessions that ask for the candidate read it, others when it is given shards. */
extern void weir_serving_offer(int64 operator_id, int candidate);

/*
 * Gives the candidate the shards below split; makes a version the one that
 * serves. False when somebody else has changed the row since "operator" was
 * read: a reader, because one of the two has left lockstep.
 */
extern bool weir_serving_split(const WeirOperator *operator, int candidate, int split);
extern bool weir_serving_shift(const WeirOperator *operator, int version);

/* All shards to that version, and no candidate. */
extern void weir_serving_give_all(int64 operator_id, int version);

/*
 * The same by a reader, in whose transaction "leaving" leaves lockstep, if it
 * is the candidate or shares the shards with it; *split: how many the
 * candidate had. False when there is nothing to change, or when a transaction
 * that has not ended changes the row: nobody waits for that.
 */
extern bool weir_serving_try_give_all(int64 operator_id, int leaving, int version, int *split);

extern void weir_serving_set_view_versions(int64 operator_id, int first, int second);	/* second 0: one branch */
extern bool weir_serving_view_has(int64 operator_id, int version);	/* the view has that branch */
/* The version of another branch of the view than for these two, if snapshots are left that may need it; 0 none. */
extern int	weir_serving_view_needs(int64 operator_id, int first, int second);

/* SQL: no snapshot in this database is older than the transaction. Autovacuum reads no view with its own. and_condition: on the session, a. */
#define WEIR_NO_SNAPSHOT_BEFORE(xid, and_condition) \
	"NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = (SELECT d.oid FROM pg_catalog.pg_database d " \
	"WHERE d.datname = pg_catalog.current_database()) AND a.pid <> pg_catalog.pg_backend_pid() " \
	"AND a.backend_type <> 'autovacuum worker' AND pg_catalog.age(a.backend_xmin) >= pg_catalog.age(" xid ") " and_condition ")"

#endif							/* WEIR_SERVING_CATALOG_H */
