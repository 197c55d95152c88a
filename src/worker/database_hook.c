/*
 * database_hook.c - what statements of other sessions mean for the workers:
 * CREATE, ALTER and DROP EXTENSION pg_weir, by whatever way (CASCADE, DROP
 * OWNED), and statements for which a database must have no connections.
 *
 * Runs in the sessions that execute those statements.
 *
 * For the second kind, and for dropping the extension, the database's workers
 * are ended before the statement and kept out until the transaction ends, not
 * only until the statement does: until then its locks would let new workers
 * wait, connect to nothing and fail.  (A DROP locks one relation after the
 * other that workers use in another order: it would deadlock with them.)
 * Who is not allowed to execute the statement must not be able to stop workers
 * with it, so rights are checked here first; whoever fails is passed on to the
 * server, which has the right error.
 *
 * Nothing is on disk.  When the session dies in between, its blocks end with
 * it, and the launcher finds the databases by its slow poll.
 */
#include "weir.h"
#include "weir_session.h"
#include "weir_shmem.h"
#include "weir_shmem_layout.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog/catalog_query.h"
#include "weir_compat.h"
#include "worker/database_hook.h"

/* How long a statement waits for the workers; afterwards the server itself waits 5 s and names who is left. */
#define WORKERS_LEAVE_MS 5000

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* What this transaction has done so far; acted on when it commits. */
static bool extension_created = false;
static bool extension_dropped = false;
static bool prepared_committed = false;
/* Databases that were blocked or whose connectability changed: TopMemoryContext. */
static List *touched_databases = NIL;

bool
weir_extension_change_pending(void)
{
	return extension_created || extension_dropped;
}

/*
 * Any extension when it is created or altered: its row is not visible yet, so
 * its name is looked at before the commit.
 */
static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);

	if (class_id != ExtensionRelationId)
		return;
	if (access == OAT_POST_CREATE || access == OAT_POST_ALTER)
		extension_created = true;
	else if (access == OAT_DROP)
	{
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, "pg_weir") == 0)
			extension_dropped = true;
	}
}

/* In a transaction that is about to commit or to be prepared. */
static void
forget_other_extensions(void)
{
	if (extension_created && !OidIsValid(get_extension_oid("pg_weir", true)))
		extension_created = false;
}

static void
note_prepared_extension_change(void)
{
	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	weir_shared->extension_change_prepared = true;
	LWLockRelease(weir_shared->lock);
}

static bool
extension_change_was_prepared(void)
{
	bool		prepared;

	LWLockAcquire(weir_shared->lock, LW_SHARED);
	prepared = weir_shared->extension_change_prepared;
	LWLockRelease(weir_shared->lock);
	return prepared;
}

static void
tell_of_commit(void)
{
	bool		changed = weir_extension_change_pending();

	/* What was prepared, perhaps by another session, has become visible. */
	if (prepared_committed && extension_change_was_prepared())
		changed = true;
	if (changed)
		weir_database_changed(MyDatabaseId);
	if (changed || prepared_committed)
		weir_wake_coordinator(MyDatabaseId);
}

static void
let_workers_back(void)
{
	ListCell   *lc;

	foreach(lc, touched_databases)
	{
		weir_database_unblock(lfirst_oid(lc));
		weir_database_changed(lfirst_oid(lc));
	}
	list_free(touched_databases);
	touched_databases = NIL;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			forget_other_extensions();
			return;
		case XACT_EVENT_COMMIT:
			if (weir_extension_change_pending() || prepared_committed)
				tell_of_commit();
			break;
		case XACT_EVENT_PREPARE:
			if (weir_extension_change_pending())
				note_prepared_extension_change();
			break;
		case XACT_EVENT_ABORT:
			break;
		default:
			return;
	}
	extension_created = extension_dropped = prepared_committed = false;
	if (touched_databases != NIL)
		let_workers_back();
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	if (may)
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		template = false;

	if (HeapTupleIsValid(tuple))
	{
		template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return template;
}

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

static Oid
database_if_owned(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && !weir_compat_is_database_owner(database, GetUserId()))
		return InvalidOid;
	return database;
}

static Oid
template_of(CreatedbStmt *statement)
{
	DefElem    *option = find_option(statement->options, "template");
	Oid			database;

	if (!may_create_databases())
		return InvalidOid;
	database = get_database_oid(option && option->arg ? defGetString(option) : "template1", true);
	if (OidIsValid(database) && !is_template(database) &&
		!weir_compat_is_database_owner(database, GetUserId()))
		return InvalidOid;
	return database;
}

/* The database that the statement needs empty; InvalidOid if none, or if the user may not execute it. */
static Oid
database_to_empty(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return database_if_owned(((DropdbStmt *) statement)->dbname);
		case T_CreatedbStmt:
			return template_of((CreatedbStmt *) statement);
		case T_AlterDatabaseStmt:
			if (find_option(((AlterDatabaseStmt *) statement)->options, "tablespace") == NULL)
				return InvalidOid;
			return database_if_owned(((AlterDatabaseStmt *) statement)->dbname);
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType != OBJECT_DATABASE ||
				!may_create_databases())
				return InvalidOid;
			return database_if_owned(((RenameStmt *) statement)->subname);
		default:
			return InvalidOid;
	}
}

/* True when the statement drops the extension in this database, and the user may. */
static bool
drops_extension(Node *statement)
{
	Oid			owner;
	ListCell   *lc;

	if (!IsA(statement, DropOwnedStmt) &&
		!(IsA(statement, DropStmt) && ((DropStmt *) statement)->removeType == OBJECT_EXTENSION))
		return false;
	if (!weir_extension_installed())
		return false;
	owner = weir_extension_owner();
	if (!has_privs_of_role(GetUserId(), owner))
		return false;
	if (IsA(statement, DropOwnedStmt))
		return list_member_oid(roleSpecsToIds(((DropOwnedStmt *) statement)->roles), owner);
	foreach(lc, ((DropStmt *) statement)->objects)
		if (strcmp(strVal(lfirst(lc)), "pg_weir") == 0)
			return true;
	return false;
}

static void
touch_database(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	touched_databases = list_append_unique_oid(touched_databases, database);
	MemoryContextSwitchTo(old);
}

static void
empty_database(Oid database)
{
	touch_database(database);
	weir_database_block(database);
	weir_terminate_database_workers(database, WORKERS_LEAVE_MS);
}

/*
 * These cannot run in a transaction block; found out before workers are
 * stopped for nothing.  The server checks again.
 */
static void
refuse_in_transaction_block(Node *statement, bool is_top_level)
{
	if (IsA(statement, DropdbStmt))
		PreventInTransactionBlock(is_top_level, "DROP DATABASE");
	else if (IsA(statement, CreatedbStmt))
		PreventInTransactionBlock(is_top_level, "CREATE DATABASE");
	else if (IsA(statement, AlterDatabaseStmt))
		PreventInTransactionBlock(is_top_level, "ALTER DATABASE SET TABLESPACE");
}

static void
before_statement(Node *statement, ProcessUtilityContext context)
{
	Oid			database;

	/* Returns before any catalog is read: this may be the COMMIT of an aborted transaction. */
	if (IsA(statement, TransactionStmt))
	{
		if (((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
			prepared_committed = true;
		return;
	}

	/* One that may now accept connections, or be no template any more. */
	if (IsA(statement, AlterDatabaseStmt))
	{
		database = database_if_owned(((AlterDatabaseStmt *) statement)->dbname);
		if (OidIsValid(database))
			touch_database(database);
	}

	if (drops_extension(statement))
		empty_database(MyDatabaseId);

	database = database_to_empty(statement);
	/* The server refuses all of these but copying for the session's own database. */
	if (!OidIsValid(database) || (database == MyDatabaseId && !IsA(statement, CreatedbStmt)))
		return;
	refuse_in_transaction_block(statement, context == PROCESS_UTILITY_TOPLEVEL);
	empty_database(database);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc)
{
	before_statement(pstmt->utilityStmt, context);

	if (prev_process_utility)
		prev_process_utility(pstmt, query_string, read_only_tree, context, params,
							 query_env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query_string, read_only_tree, context, params,
								query_env, dest, qc);
}

void
weir_database_hook_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(at_transaction_end, NULL);
}
