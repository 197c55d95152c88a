/*
 * operator_catalog.c - rows of weir_internal.operator.
 *
 * Written by control calls and by the coordinator; readers only read them, so
 * that an open transaction of a user never stops a stream.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "utils/builtins.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "weir_compat.h"

#define OPERATOR_COLUMNS \
	"o.operator_id, o.view_oid, o.view_name, o.stream_id, o.options::text, " \
	"o.desired = 'pause', o.last_version, s.version, s.candidate, s.split"
#define OPERATOR_FROM \
	" FROM weir_internal.operator o LEFT JOIN weir_internal.serving s USING (operator_id) "

/* How long a control call waits for another one's open transaction. */
#define LOCK_WAIT_MS 2000

int64
weir_operator_insert(Oid view, const char *view_name, int stream_id, const char *options, Oid created_by)
{
	weir_query(NULL,
			   "INSERT INTO weir_internal.operator (view_oid, view_name, stream_id, options, created_by) "
			   "VALUES ($1, $2, $3, $4, $5) RETURNING operator_id",
			   "otijn", view, view_name, stream_id, options, GetUserNameFromId(created_by, false));
	return weir_result_int64(0, 1);
}

void
weir_operator_set_view(int64 operator_id, Oid view)
{
	weir_query(NULL, "UPDATE weir_internal.operator SET view_oid = $2 WHERE operator_id = $1",
			   "lo", operator_id, view);
}

/* 'schema.name', each part quoted as it needs; the name as created once the view is gone. */
char *
weir_operator_reference(Oid view, const char *view_name)
{
	char	   *name = get_rel_name(view);

	if (name == NULL)
		return quote_literal_cstr(quote_identifier(view_name));
	return quote_literal_cstr(quote_qualified_identifier(get_namespace_name(get_rel_namespace(view)), name));
}

static WeirOperator *
operator_from_result(void)
{
	WeirOperator *operator = palloc(sizeof(WeirOperator));

	operator->operator_id = weir_result_int64(0, 1);
	operator->view = weir_result_oid(0, 2);
	operator->view_name = weir_result_text(0, 3);
	operator->stream_id = weir_result_int(0, 4);
	operator->options = weir_result_text(0, 5);
	operator->paused = weir_result_bool(0, 6);
	operator->last_version = weir_result_int(0, 7);
	operator->serving_version = weir_result_int(0, 8);
	operator->candidate = weir_result_int(0, 9);
	operator->split = weir_result_int(0, 10);
	operator->reference = weir_operator_reference(operator->view, operator->view_name);
	return operator;
}

WeirOperator *
weir_operator_by_view(Oid view)
{
	if (weir_query(NULL, "SELECT " OPERATOR_COLUMNS OPERATOR_FROM "WHERE o.view_oid = $1 AND NOT o.dropped",
				   "o", view) == 0)
		return NULL;
	return operator_from_result();
}

WeirOperator *
weir_operator_by_id(int64 operator_id)
{
	if (weir_query(NULL, "SELECT " OPERATOR_COLUMNS OPERATOR_FROM "WHERE o.operator_id = $1",
				   "l", operator_id) == 0)
		return NULL;
	return operator_from_result();
}

bool
weir_operator_try_lock(int64 operator_id)
{
	return weir_query(NULL,
					  "SELECT 1 FROM weir_internal.operator WHERE operator_id = $1 FOR UPDATE SKIP LOCKED",
					  "l", operator_id) > 0;
}

void
weir_operator_lock(int64 operator_id, const char *view_name)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCK_WAIT_MS);

	while (!weir_operator_try_lock(operator_id))
	{
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("operator \"%s\" is being changed by another transaction", view_name),
					 errdetail("A control call of another session has not committed or rolled back within %d ms.",
							   LOCK_WAIT_MS),
					 errhint("SELECT pid, state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%';")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

int
weir_operator_next_version(int64 operator_id)
{
	weir_query(NULL,
			   "UPDATE weir_internal.operator SET last_version = last_version + 1 "
			   "WHERE operator_id = $1 RETURNING last_version", "l", operator_id);
	return weir_result_int(0, 1);
}

void
weir_operator_set_paused(int64 operator_id, bool paused)
{
	weir_query(NULL, "UPDATE weir_internal.operator SET desired = $2, "
			   "resumed_at = CASE $2 WHEN 'run' THEN clock_timestamp() ELSE resumed_at END "
			   "WHERE operator_id = $1",
			   "lt", operator_id, paused ? "pause" : "run");
}

void
weir_operator_set_dropped(int64 operator_id)
{
	weir_query(NULL, "UPDATE weir_internal.operator SET dropped = true WHERE operator_id = $1",
			   "l", operator_id);
}

bool
weir_operator_serves(const WeirOperator *operator, int version)
{
	return operator->serving_version == version || (operator->candidate == version && operator->split > 0);
}

WeirOperator *
weir_operator_for_control(Oid view, Oid caller)
{
	WeirOperator *operator = weir_operator_by_view(view);
	Oid			admin;

	if (operator == NULL)
	{
		char	   *name = get_rel_name(view);

		ereport(ERROR,
				(errcode(name ? ERRCODE_WRONG_OBJECT_TYPE : ERRCODE_UNDEFINED_TABLE),
				 name ? errmsg("relation \"%s\" is not an operator", name)
				 : errmsg("relation with OID %u does not exist", view),
				 errhint("SELECT operator FROM weir.operators;")));
	}

	admin = get_role_oid("weir_admin", true);
	if (!weir_compat_relation_is_owned(view, caller) &&
		!(OidIsValid(admin) && has_privs_of_role(caller, admin)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of operator \"%s\"", operator->view_name),
				 errhint("SET ROLE %s;",
						 quote_identifier(GetUserNameFromId(weir_relation_owner(view), false)))));
	return operator;
}

bool
weir_is_monitor(Oid role)
{
	static const char *const monitors[] = {"weir_monitor", "weir_admin"};

	for (int i = 0; i < lengthof(monitors); i++)
	{
		Oid			monitor = get_role_oid(monitors[i], true);

		if (OidIsValid(monitor) && has_privs_of_role(role, monitor))
			return true;
	}
	return false;
}
