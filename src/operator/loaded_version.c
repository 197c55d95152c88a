/*
 * loaded_version.c - one version as a worker holds it: definition and state.
 *
 * Runs in readers (and, for the definition alone, in control calls). A
 * definition is kept by core in a view of weir_state, which follows renames
 * and blocks drops; here it is taken apart again and compared with what was
 * recorded. Nothing is written.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "operator/fingerprint.h"
#include "operator/loaded_version.h"
#include "operator/owner_scope.h"
#include "weir_compat.h"
#include "weir_errors.h"

/* Counts what the caches heard of changed functions; a change may be of any function. */
static uint64 function_changes = 0;

static void
note_function_change(Datum arg, int cacheid, uint32 hashvalue)
{
	function_changes++;
}

/* As do those that may change what somebody may read, with the names of things. */
static uint64 role_changes = 0;

static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	role_changes++;
}

static void
watch_changes(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterSyscacheCallback(PROCOID, note_function_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, note_role_change, (Datum) 0);
	registered = true;
}

Query *
weir_version_query(Oid definition_view)
{
	Relation	rel = try_relation_open(definition_view, AccessShareLock);
	Query	   *query;

	if (rel == NULL)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("definition of the operator version was dropped with something that it uses"),
				 errdetail("The definition view with OID %u does not exist.", definition_view),
				 errhint("SELECT * FROM weir.start_upgrade('...', $$SELECT ...$$, options => '{\"repair\": true}');")));
	query = copyObject(get_view_query(rel));
	weir_compat_strip_view_entries(query);
	relation_close(rel, AccessShareLock);
	return query;
}

WeirDefinition *
weir_version_definition(const WeirVersion *version)
{
	List	   *objections = NIL;
	Query	   *query = weir_version_query(version->definition_view);
	WeirOperator *operator = weir_operator_by_id(version->operator_id);
	Oid			owner = operator != NULL ? weir_relation_owner(operator->view) : InvalidOid;
	WeirDefinition *definition;
	WeirOwnerScope scope;

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("view of operator " INT64_FORMAT " does not exist", version->operator_id),
				 errhint("It is removed with its state shortly.")));
	/* Nothing of a definition is evaluated here; should core do so, then with its owner's rights. */
	weir_owner_scope_enter(&scope, owner);
	definition = weir_definition_analyze(query, version->append_only, &objections);
	weir_owner_scope_leave(&scope);
	if (definition == NULL)
		weir_definition_raise(objections);
	return definition;
}

static void
check_unchanged(const WeirVersion *row, const WeirDefinition *definition, const WeirOperator *operator)
{
	if (row->state_format != WEIR_STATE_FORMAT)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("state format %d of operator \"%s\" version %d is not known to this pg_weir",
						row->state_format, operator->view_name, row->version),
				 errdetail("pg_weir " WEIR_VERSION " reads state format %d.", WEIR_STATE_FORMAT),
				 errhint("SELECT * FROM weir.rebuild_operator(%s);", operator->reference)));
	if (row->nextremes != definition->nextremes)
		elog(ERROR, "operator " INT64_FORMAT " version %d has %d extreme tables, definition needs %d",
			 row->operator_id, row->version, row->nextremes, definition->nextremes);
}

/* False: none has changed. Otherwise why the version must stop. */
static bool
find_changed_function(const WeirLoadedVersion *version, WeirStop *stop)
{
	List	   *changed = weir_fingerprint_changed(version->fingerprint,
													weir_functions_fingerprint(version->definition->functions));

	if (changed == NIL)
		return false;
	*stop = (WeirStop)
	{
		.cause = "stale",
		.sqlerrcode = WEIR_ERRCODE_STALE,
		.message = psprintf("the body of function %s has changed", (char *) linitial(changed)),
		.detail = psprintf("The state of operator \"%s\" version %d was computed with its former body.",
						   version->operator_name, version->version),
		.hint = psprintf("SELECT * FROM weir.rebuild_operator(%s); or give the function its former body and SELECT weir.resume_operator(%s);",
						 version->operator_reference, version->operator_reference)
	};
	return true;
}

static void
check_functions(const WeirLoadedVersion *version)
{
	WeirStop	stop;

	if (find_changed_function(version, &stop))
		ereport(ERROR,
				(errcode(stop.sqlerrcode),
				 errmsg("%s", stop.message),
				 errdetail("%s", stop.detail),
				 errhint("%s", stop.hint)));
}

void
weir_version_check_functions(WeirLoadedVersion *version)
{
	uint64		seen = function_changes;

	if (version->functions_seen == seen)
		return;
	check_functions(version);
	version->functions_seen = seen;
}

void
weir_version_check_rights(WeirLoadedVersion *version)
{
	uint64		seen = weir_definition_name_changes() + role_changes;
	List	   *objections = NIL;
	WeirOwnerScope scope;

	if (version->rights_known && version->rights_seen == seen)
		return;
	weir_owner_scope_enter(&scope, version->owner);
	weir_definition_check_rights(version->definition, &objections);
	weir_owner_scope_leave(&scope);
	if (objections != NIL)
		weir_definition_raise(objections);
	version->rights_known = true;
	version->rights_seen = seen;
}

bool
weir_version_functions_changed(WeirLoadedVersion *version, WeirStop *stop)
{
	uint64		seen = function_changes;

	if (version->functions_seen == seen || find_changed_function(version, stop))
		return version->functions_seen != seen;
	version->functions_seen = seen;
	return false;
}

WeirLoadedVersion *
weir_version_load(MemoryContext parent, int64 operator_id, int version)
{
	MemoryContext old = CurrentMemoryContext;
	/* The caller's until it is complete, so that it goes with the transaction when it cannot be. */
	MemoryContext context = AllocSetContextCreate(old, "weir version", ALLOCSET_DEFAULT_SIZES);
	WeirLoadedVersion *loaded = MemoryContextAllocZero(context, sizeof(WeirLoadedVersion));
	WeirOperator *operator;
	WeirVersion *row;

	MemoryContextSwitchTo(context);
	operator = weir_operator_by_id(operator_id);
	row = weir_version_get(operator_id, version);
	MemoryContextSwitchTo(context);
	if (operator == NULL || row == NULL)
		elog(ERROR, "operator " INT64_FORMAT " version %d is not in the catalog", operator_id, version);
	loaded->context = context;
	loaded->operator_id = operator_id;
	loaded->version = version;
	loaded->operator_name = operator->view_name;
	loaded->operator_reference = operator->reference;
	loaded->owner = weir_relation_owner(operator->view);
	if (!OidIsValid(loaded->owner))
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("view of operator \"%s\" does not exist", operator->view_name),
				 errhint("It is removed with its state shortly.")));
	loaded->definition = weir_version_definition(row);
	check_unchanged(row, loaded->definition, operator);
	watch_changes();
	loaded->fingerprint = row->fingerprint;
	loaded->functions_seen = function_changes;
	check_functions(loaded);
	loaded->columns = weir_definition_followed_table(loaded->definition)->desc;
	loaded->state = weir_state_open(loaded->definition, row->state_table, row->extreme_tables,
									loaded->owner);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, parent);
	return loaded;
}

bool
weir_version_is_current(const WeirLoadedVersion *version)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(version->definition->source)) &&
		equalTupleDescs(version->columns, weir_definition_followed_table(version->definition)->desc);
}

void
weir_version_unload(WeirLoadedVersion *version)
{
	weir_state_close(version->state);
	MemoryContextDelete(version->context);
}
