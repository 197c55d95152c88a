/*
 * api_operator.c - weir.create_operator and the calls on an existing operator.
 *
 * Runs in the caller's backend and transaction: checks rights and arguments,
 * writes catalog rows and creates the version's relations; workers act on what
 * is committed. Nothing here waits for a worker or is waited for by one.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "api/api_doctor.h"
#include "api/api_operator.h"
#include "api/api_options.h"
#include "api/api_result.h"
#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"
#include "catalog/operator_catalog.h"
#include "catalog/serving_catalog.h"
#include "catalog/upgrade_catalog.h"
#include "operator/definition.h"
#include "operator/operator_remove.h"
#include "operator/serving_view.h"
#include "operator/version_create.h"
#include "weir_shmem.h"
#include "weir_session.h"

PG_FUNCTION_INFO_V1(weir_create_operator);
PG_FUNCTION_INFO_V1(weir_drop_operator);
PG_FUNCTION_INFO_V1(weir_pause_operator);
PG_FUNCTION_INFO_V1(weir_resume_operator);

static const WeirOptionSpec create_options[] = {
	{"append_only", WEIR_OPTION_BOOLEAN, NULL},
	{"backfill", WEIR_OPTION_BOOLEAN, NULL},
	{"on_error", WEIR_OPTION_STRING, "stop"},
};

/* A possibly schema-qualified, quoted name; longer parts than an identifier may be are refused, not cut. */
static RangeVar *
parse_name(text *name)
{
	List	   *parts = NIL;
	Datum	   *elements;
	int			count;
	ArrayType  *array = DatumGetArrayTypeP(DirectFunctionCall2(parse_ident, PointerGetDatum(name),
															   BoolGetDatum(true)));

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *part = TextDatumGetCString(elements[i]);

		if (strlen(part) >= NAMEDATALEN)
			ereport(ERROR,
					(errcode(ERRCODE_NAME_TOO_LONG),
					 errmsg("identifier \"%s\" is too long", part),
					 errdetail("It has %zu bytes; the most is %d.", strlen(part), NAMEDATALEN - 1),
					 errhint("Choose a shorter name.")));
		parts = lappend(parts, makeString(part));
	}
	return makeRangeVarFromNameList(parts);
}

/* Two creators of one name: the second waits for the first and then gets the usual error. */
static void
lock_name(RangeVar *name, Oid namespace)
{
	LOCKTAG		tag;
	uint32		hash = hash_bytes((const unsigned char *) name->relname, strlen(name->relname));

	/* Advisory classes 1 and 2 are those of pg_advisory_lock: ours meets nobody's. */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, namespace, hash, 4);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
check_name(RangeVar *name)
{
	Oid			namespace;
	char	   *schema;

	namespace = RangeVarGetCreationNamespace(name);
	schema = get_namespace_name(namespace);
	if (isAnyTempNamespace(namespace) || strcmp(schema, WEIR_SCHEMA) == 0 ||
		strcmp(schema, WEIR_INTERNAL_SCHEMA) == 0 || strcmp(schema, WEIR_STATE_SCHEMA) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_SCHEMA_NAME),
				 errmsg("operator cannot be created in schema \"%s\"", schema),
				 errhint("Qualify the name with a schema of your own.")));
	lock_name(name, namespace);
	if (OidIsValid(get_relname_relid(name->relname, namespace)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", name->relname),
				 errhint("Choose another name, or change the operator with weir.start_upgrade.")));
}

int
weir_stream_by_name(const char *name)
{
	if (weir_query(NULL, "SELECT stream_id FROM weir_internal.stream WHERE name = $1", "t", name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" does not exist", name),
				 errhint("SELECT stream FROM weir.streams;")));
	return weir_result_int(0, 1);
}

WeirDefinition *
weir_definition_for_call(const char *text, bool append_only, Query **query)
{
	List	   *objections = NIL;
	WeirDefinition *definition;

	*query = weir_definition_parse(text);
	definition = weir_definition_analyze(*query, append_only, &objections);
	if (definition != NULL)
		weir_definition_check_source(definition, &objections);
	if (objections != NIL)
		weir_definition_raise(objections);
	return definition;
}

static void
append_ledger(const WeirOperator *operator, const char *event, Oid actor, int version, const char *reason)
{
	WeirLedgerEntry entry = {
		.operator_id = operator->operator_id,
		.operator_name = operator->view_name,
		.event = event,
		.to_version = version,
		.actor = actor,
		.reason = reason,
	};

	weir_ledger_append(&entry);
}

typedef struct CreateArguments
{
	RangeVar   *name;
	char	   *text;
	const char *stream;
	Jsonb	   *options;
	Query	   *query;
	WeirDefinition *definition;
} CreateArguments;

/* Catalog rows and relations; the view is made with the caller's own rights. */
static Oid
create_operator(CreateArguments *arguments)
{
	WeirCatalogScope scope;
	WeirVersionRequest request = {
		.operator_name = arguments->name->relname,
		.version = 1,
		.text = arguments->text,
		.query = arguments->query,
		.definition = arguments->definition,
	};
	WeirVersion *version;
	WeirOperator *operator;
	Oid			view;

	weir_catalog_enter(&scope);
	request.owner = scope.caller;
	request.strategy = weir_options_bool(arguments->options, "backfill", true) ? "backfill" : "fresh";
	request.operator_id = weir_operator_insert(InvalidOid, arguments->name->relname,
											   weir_stream_by_name(arguments->stream),
											   weir_options_text(arguments->options), scope.caller);
	(void) weir_operator_next_version(request.operator_id);
	version = weir_version_create(&request);
	weir_serving_insert(request.operator_id, 1);
	weir_catalog_as_caller(&scope);
	view = weir_serving_view_create(arguments->name, arguments->definition, version);
	weir_catalog_as_owner(&scope);
	weir_operator_set_view(request.operator_id, view);
	operator = weir_operator_by_id(request.operator_id);
	append_ledger(operator, "create", scope.caller, 1, NULL);
	weir_catalog_leave(&scope);
	return view;
}

Datum
weir_create_operator(PG_FUNCTION_ARGS)
{
	CreateArguments arguments;
	Datum		values[4];
	bool		nulls[4] = {false};
	List	   *notes = NIL;

	weir_refuse_nulls(fcinfo, 0);
	weir_require_ready();
	arguments.name = parse_name(PG_GETARG_TEXT_PP(0));
	arguments.text = text_to_cstring(PG_GETARG_TEXT_PP(1));
	arguments.stream = text_to_cstring(PG_GETARG_TEXT_PP(2));
	arguments.options = PG_GETARG_JSONB_P(3);
	weir_options_check(arguments.options, "options", create_options, lengthof(create_options));
	arguments.definition = weir_definition_for_call(arguments.text,
													weir_options_bool(arguments.options, "append_only", false),
													&arguments.query);
	check_name(arguments.name);
	values[0] = ObjectIdGetDatum(create_operator(&arguments));
	weir_wake_coordinator_at_commit();

	notes = lappend(notes, "building starts when this transaction commits; rows appear all at once");
	notes = lappend(notes, psprintf("to wait for it: SELECT weir.wait_for(%s);",
									quote_literal_cstr(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	values[1] = Int32GetDatum(1);
	values[2] = CStringGetTextDatum(arguments.stream);
	values[3] = weir_notes_array(notes);
	return weir_result_row(fcinfo, values, nulls);
}

WeirOperator *
weir_operator_begin_control(WeirCatalogScope *scope, FunctionCallInfo fcinfo, uint32 optional)
{
	WeirOperator *operator;
	Oid			view;

	weir_refuse_nulls(fcinfo, optional);
	weir_require_preloaded();
	view = PG_GETARG_OID(0);
	weir_catalog_enter(scope);
	operator = weir_operator_for_control(view, scope->caller);
	weir_operator_lock(operator->operator_id, operator->view_name);
	/* As it is now: whoever had the lock may have changed or dropped it. */
	return weir_operator_for_control(view, scope->caller);
}

void
weir_operator_end_control(WeirCatalogScope *scope)
{
	weir_catalog_leave(scope);
	weir_wake_coordinator_at_commit();
}

WeirObjection *
weir_operator_upgrading_objection(const WeirOperator *operator)
{
	WeirUpgrade *upgrade = weir_upgrade_live(operator->operator_id);
	WeirObjection *objection;

	if (upgrade == NULL)
		return NULL;
	objection = palloc0(sizeof(WeirObjection));
	objection->sqlstate = ERRCODE_OBJECT_IN_USE;
	objection->message = psprintf("operator \"%s\" is being upgraded", operator->view_name);
	objection->detail = psprintf("Upgrade " INT64_FORMAT " from version %d to version %d is in phase %s.",
								 upgrade->upgrade_id, upgrade->from_version, upgrade->to_version,
								 weir_phase_name(upgrade->phase));
	objection->hint = upgrade->phase == WEIR_PHASE_OBSERVING ?
		psprintf("SELECT weir.finalize_upgrade(%s); or SELECT * FROM weir.rollback_upgrade(%s);",
				 operator->reference, operator->reference) :
		psprintf("SELECT * FROM weir.rollback_upgrade(%s); or, to let it go on, SELECT weir.wait_for_upgrade(%s, 'observing');",
				 operator->reference, operator->reference);
	return objection;
}

void
weir_operator_refuse_if_upgrading(const WeirOperator *operator)
{
	WeirObjection *objection = weir_operator_upgrading_objection(operator);

	if (objection != NULL)
		weir_definition_raise(list_make1(objection));
}

/* Core's error names the dependents, but hints at a command that is not ours. */
static void
drop_view(Oid view, bool cascade, const char *reference)
{
	MemoryContext context = CurrentMemoryContext;
	ObjectAddress address;

	ObjectAddressSet(address, RelationRelationId, view);
	/* Nothing is restored: the error goes on, with another hint. */
	PG_TRY();
	{
		performDeletion(&address, cascade ? DROP_CASCADE : DROP_RESTRICT, 0);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		/* Without a list of dependents it is something that cascade would not help against. */
		if (cascade || error->sqlerrcode != ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST || error->detail == NULL)
			PG_RE_THROW();
		FlushErrorState();
		error->hint = psprintf("SELECT weir.drop_operator(%s, cascade => true);", reference);
		ReThrowError(error);
	}
	PG_END_TRY();
}

Datum
weir_drop_operator(PG_FUNCTION_ARGS)
{
	Oid			view = PG_GETARG_OID(0);
	bool		cascade = PG_GETARG_BOOL(1);
	MemoryContext context = CurrentMemoryContext;
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);
	char	   *reference = MemoryContextStrdup(context, operator->reference);

	weir_operator_remove(operator, scope.caller, NULL);
	weir_operator_end_control(&scope);

	/* The view only: what readers write to is dropped later, by the coordinator. */
	drop_view(view, cascade, reference);
	PG_RETURN_VOID();
}

Datum
weir_pause_operator(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);

	weir_operator_refuse_if_upgrading(operator);
	if (!operator->paused)
	{
		weir_operator_set_paused(operator->operator_id, true);
		append_ledger(operator, "pause", scope.caller, operator->serving_version, NULL);
	}
	weir_operator_end_control(&scope);
	PG_RETURN_VOID();
}

Datum
weir_resume_operator(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	WeirOperator *operator = weir_operator_begin_control(&scope, fcinfo, 0);
	WeirVersionRun run = weir_version_run_get(operator->operator_id, operator->serving_version);

	if (run.status == WEIR_RUN_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("operator \"%s\" cannot be resumed: its WAL is gone", operator->view_name),
				 run.message ? errdetail("It stopped with: %s.", run.message) : errdetail("Its slot was given up."),
				 errhint("SELECT * FROM weir.rebuild_operator(%s);", operator->reference)));
	weir_operator_set_paused(operator->operator_id, false);
	append_ledger(operator, "resume", scope.caller, operator->serving_version, NULL);
	weir_operator_end_control(&scope);
	PG_RETURN_VOID();
}
