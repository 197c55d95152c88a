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
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "common/md5.h"
#include "lib/stringinfo.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
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

char *
weir_functions_fingerprint(List *functions)
{
	StringInfoData bodies;
	ListCell   *lc;

	initStringInfo(&bodies);
	foreach(lc, functions)
	{
		Oid			function = lfirst_oid(lc);
		HeapTuple	tuple;
		Datum		body;
		bool		isnull;

		/* Built-in functions change with the server's major version only. */
		if (function < FirstNormalObjectId)
			continue;
		tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for function %u", function);
		appendStringInfo(&bodies, "%u:", function);
		for (int attribute = 0; attribute < 2; attribute++)
		{
			body = SysCacheGetAttr(PROCOID, tuple,
								   attribute == 0 ? Anum_pg_proc_prosrc : Anum_pg_proc_probin, &isnull);
			if (!isnull)
				appendStringInfoString(&bodies, TextDatumGetCString(body));
		}
		body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
		if (!isnull)
			appendStringInfoString(&bodies, TextDatumGetCString(body));
		appendStringInfoChar(&bodies, ';');
		ReleaseSysCache(tuple);
	}
	return text_to_cstring(DatumGetTextPP(DirectFunctionCall1(md5_text, PointerGetDatum(cstring_to_text(bodies.data)))));
}

Query *
weir_version_query(Oid definition_view)
{
	Relation	rel = try_relation_open(definition_view, AccessShareLock);
	Query	   *query;

	if (rel == NULL)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("definition of the operator version was dropped together with its source"),
				 errdetail("The definition view with OID %u does not exist.", definition_view),
				 errhint("SELECT weir.drop_operator('...'); and create it again over the new source.")));
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

static void
check_functions(const WeirLoadedVersion *version)
{
	if (strcmp(version->fingerprint, weir_functions_fingerprint(version->definition->functions)) == 0)
		return;
	ereport(ERROR,
			(errcode(WEIR_ERRCODE_STALE),
			 errmsg("a function called by operator \"%s\" version %d has a changed body",
					version->operator_name, version->version),
			 errdetail("The state was computed with the function's former body (fingerprint %s).",
					   version->fingerprint),
			 errhint("SELECT * FROM weir.rebuild_operator(%s);", version->operator_reference)));
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

WeirLoadedVersion *
weir_version_load(MemoryContext parent, int64 operator_id, int version)
{
	static bool callback_registered = false;
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
	if (!callback_registered)
		CacheRegisterSyscacheCallback(PROCOID, note_function_change, (Datum) 0);
	callback_registered = true;
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
