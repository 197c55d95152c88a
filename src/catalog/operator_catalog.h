/*
 * operator_catalog.h - rows of weir_internal.operator, with who serves.
 *
 * SPI connected, inside the catalog scope; transactions belong to the caller.
 */
#ifndef WEIR_OPERATOR_CATALOG_H
#define WEIR_OPERATOR_CATALOG_H

#include "weir.h"
#include "nodes/pg_list.h"

typedef struct WeirOperator
{
	int64		operator_id;
	Oid			view;
	char	   *view_name;		/* for messages */
	char	   *reference;		/* for hints: quoted to be pasted as an argument */
	int			stream_id;
	char	   *options;		/* jsonb as text */
	bool		paused;			/* desired = 'pause' */
	int			last_version;
	int			serving_version;	/* of all shards from split on */
	int			candidate;		/* in the view beside it; 0 none */
	int			split;			/* the shards below it are served by the candidate */
} WeirOperator;

extern int64 weir_operator_insert(Oid view, const char *view_name, int stream_id,
								  const char *options, Oid created_by);
extern void weir_operator_set_view(int64 operator_id, Oid view);
extern char *weir_operator_reference(Oid view, const char *view_name);
/* By the view's OID; NULL when it is not an operator. */
extern WeirOperator *weir_operator_by_view(Oid view);
extern WeirOperator *weir_operator_by_id(int64 operator_id);
/*
 * The row lock of control calls: waits at most two seconds for another control
 * call's transaction, then 55P03 naming the operator. Never taken by readers.
 */
extern void weir_operator_lock(int64 operator_id, const char *view_name);
/* For the coordinator: false instead of waiting. */
extern bool weir_operator_try_lock(int64 operator_id);
extern int	weir_operator_next_version(int64 operator_id);
extern void weir_operator_set_paused(int64 operator_id, bool paused);
extern void weir_operator_set_dropped(int64 operator_id);

/* Users see rows of it: all of them, or some shards. */
extern bool weir_operator_serves(const WeirOperator *operator, int version);

/* Calls the view must belong to; 42501 otherwise. Superusers and weir_admin members pass. */
extern WeirOperator *weir_operator_for_control(Oid view, Oid caller);

/*
 * Member of weir_monitor or weir_admin: sees the error texts, which may hold
 * values of rows, and the numbers of all operators, as an owner sees those of
 * his own. In SQL it is weir_internal.may_see_errors.
 */
extern bool weir_is_monitor(Oid role);

#endif							/* WEIR_OPERATOR_CATALOG_H */
