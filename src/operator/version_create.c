/*
 * version_create.c - making and removing a version's relations.
 *
 * Creation runs in the control call (or in the coordinator for a throwaway),
 * removal in the coordinator. State tables belong to the extension's owner:
 * nobody else can put triggers, rules or indexes with functions on them. The
 * definition view lets core keep the dependencies, follow renames and refuse
 * drops; nobody selects from it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/prs2lock.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "catalog/catalog_query.h"
#include "operator/fingerprint.h"
#include "operator/serving_view.h"
#include "operator/state_table.h"
#include "operator/version_create.h"
#include "weir_shmem.h"

/*
 * Also when another open transaction is about to take the name: waiting for it,
 * as the unique index on names would, could only end in an error.
 */
static bool
is_taken(const char *name, Oid namespace)
{
	LOCKTAG		tag;

	/* As the lock on an operator's name; no operator can be in this schema. */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, namespace,
						 hash_bytes((const unsigned char *) name, strlen(name)), 4);
	return LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL ||
		OidIsValid(get_relname_relid(name, namespace));
}

/*
 * <operator>_v<n><suffix>, shortened to fit, with room for the index's "_key";
 * with the operator's id when that is taken.
 */
static char *
relation_name(const WeirVersionRequest *request, const char *suffix)
{
	Oid			namespace = get_namespace_oid(WEIR_STATE_SCHEMA, false);
	char	   *tail = psprintf("_v%d%s", request->version, suffix);

	for (;;)
	{
		int			room = NAMEDATALEN - 1 - strlen(tail) - strlen(WEIR_STATE_INDEX_SUFFIX);
		int			length = pg_mbcliplen(request->operator_name, strlen(request->operator_name), room);
		char	   *name = psprintf("%.*s%s", length, request->operator_name, tail);

		if (!is_taken(name, namespace))
			return name;
		if (strstr(tail, "_o") != NULL)
			elog(ERROR, "relation name \"%s\" is taken", name);
		tail = psprintf("_o" INT64_FORMAT "_v%d%s", request->operator_id, request->version, suffix);
	}
}

static Oid
create_view(const WeirVersionRequest *request, Query *analysed, const char *suffix)
{
	CreateStmt *create = makeNode(CreateStmt);
	Query	   *query = copyObject(analysed);
	ObjectAddress address;
	int			unnamed = 0;
	ListCell   *lc;

	create->relation = makeRangeVar(WEIR_STATE_SCHEMA, relation_name(request, suffix), -1);
	create->oncommit = ONCOMMIT_NOOP;
	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst(lc);
		ColumnDef  *column;

		if (entry->resjunk)
			continue;
		if (entry->resname == NULL)
			entry->resname = psprintf("c%d", ++unnamed);
		column = makeColumnDef(entry->resname, exprType((Node *) entry->expr),
							   exprTypmod((Node *) entry->expr), exprCollation((Node *) entry->expr));
		create->tableElts = lappend(create->tableElts, column);
	}
	address = DefineRelation(create, RELKIND_VIEW, GetUserId(), NULL, NULL);
	CommandCounterIncrement();
	StoreViewQuery(address.objectId, query, false);
	CommandCounterIncrement();
	return address.objectId;
}

static void
grant_select(const WeirVersionRequest *request, const char *relation)
{
	weir_run_utility(psprintf("GRANT SELECT ON weir_state.%s TO %s", quote_identifier(relation),
							  quote_identifier(GetUserNameFromId(request->owner, false))));
}

static Oid
create_state_table(const WeirVersionRequest *request, const WeirDefinition *definition,
				   const char *suffix)
{
	char	   *name = relation_name(request, suffix);
	char	   *statistics = weir_state_statistics_sql(definition, name);
	Oid			table;

	weir_run_utility(weir_state_create_sql(definition, name));
	if (statistics != NULL)
		weir_run_utility(statistics);
	table = get_relname_relid(name, get_namespace_oid(WEIR_STATE_SCHEMA, false));
	grant_select(request, name);
	return table;
}

WeirVersion *
weir_version_create(const WeirVersionRequest *request)
{
	WeirVersion *version = palloc0(sizeof(WeirVersion));
	const WeirDefinition *definition = request->definition;

	version->operator_id = request->operator_id;
	version->version = request->version;
	version->is_verification = request->is_verification;
	version->definition = pstrdup(request->text);
	version->query = pg_get_querydef(copyObject(request->query), false);
	version->definition_view = create_view(request, request->query, "_definition");
	if (request->migration != NULL)
	{
		version->migration = pstrdup(request->migration);
		version->migration_view = create_view(request, request->migration_query, "_migration");
		/* It runs with the owner's rights. */
		grant_select(request, get_rel_name(version->migration_view));
	}
	version->state_table = create_state_table(request, definition, "");
	version->nextremes = definition->nextremes;
	version->extreme_tables = palloc(sizeof(Oid) * Max(definition->nextremes, 1));
	for (int i = 0; i < definition->nextremes; i++)
		version->extreme_tables[i] = create_state_table(request, definition->extremes[i],
														psprintf("_extreme%d", i + 1));
	version->state_format = WEIR_STATE_FORMAT;
	version->append_only = definition->append_only;
	version->fingerprint = request->fingerprint ? pstrdup(request->fingerprint) :
		weir_functions_fingerprint(definition->functions);
	version->strategy = pstrdup(request->strategy);
	version->build_from = request->build_from;
	weir_version_insert(version);
	return version;
}

/* Everybody can make something that depends on it; nobody may keep it for that. */
static void
drop_relation(Oid relation, const char *kind)
{
	char	   *name = get_rel_name(relation);

	if (name != NULL)
		weir_run_utility(psprintf("DROP %s weir_state.%s CASCADE", kind, quote_identifier(name)));
}

/* Gone already counts as locked. */
static bool
try_lock(Oid relation)
{
	return get_rel_name(relation) == NULL || weir_serving_view_try_lock(relation);
}

/*
 * A view goes with its rule. DROP TABLE ... CASCADE of the source locks the
 * rule first and then the view, so waiting for the one while holding the other
 * would end in a deadlock, and the user's statement might be the victim.
 */
static bool
try_lock_with_rule(Oid view)
{
	Relation	rel;
	bool		locked = true;

	if (!try_lock(view))
		return false;
	rel = try_relation_open(view, NoLock);
	if (rel == NULL)
		return true;
	for (int i = 0; rel->rd_rules != NULL && i < rel->rd_rules->numLocks; i++)
	{
		LOCKTAG		tag;

		SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RewriteRelationId, rel->rd_rules->rules[i]->ruleId, 0);
		locked &= LockAcquire(&tag, AccessExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
	}
	relation_close(rel, NoLock);
	return locked;
}

/* Migrations that read this version's state: no longer needed when it is not. */
static bool
try_drop_migrations_from(int64 operator_id, int version)
{
	Oid			view;
	int			next;

	while ((next = weir_version_migrated_from(operator_id, version, &view)) != 0)
	{
		if (!weir_version_try_lock(operator_id, next) || !try_lock_with_rule(view))
			return false;
		drop_relation(view, "VIEW");
		weir_version_migration_removed(operator_id, next);
	}
	return true;
}

bool
weir_version_try_drop(int64 operator_id, int version)
{
	WeirVersion *row = weir_version_get(operator_id, version);

	/* Nothing below waits: whoever holds one of these may be about to take another. */
	if (!weir_version_try_lock(operator_id, version))
		return false;
	if (!try_lock_with_rule(row->definition_view) || !try_lock(row->state_table))
		return false;
	if (!try_lock_with_rule(row->migration_view) || !try_drop_migrations_from(operator_id, version))
		return false;
	for (int i = 0; i < row->nextremes; i++)
		if (!try_lock(row->extreme_tables[i]))
			return false;
	/* Whoever waits for a throwaway that is removed before it was compared waits in vain. */
	if (row->is_verification)
		weir_request_fail(weir_version_request(operator_id, version),
						  ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "it was dropped meanwhile", "");
	drop_relation(row->definition_view, "VIEW");
	drop_relation(row->migration_view, "VIEW");
	drop_relation(row->state_table, "TABLE");
	for (int i = 0; i < row->nextremes; i++)
		drop_relation(row->extreme_tables[i], "TABLE");
	weir_version_removed(operator_id, version);
	return true;
}
