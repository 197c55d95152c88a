/*
 * catalog_query.c - SPI for the catalog modules: typed arguments and results.
 *
 * Runs in backends (inside a control call) and in workers. Every statement
 * names its objects fully and runs under search_path = pg_catalog, so that no
 * object of a user can stand in for one of ours. Holds no state of its own.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog/catalog_query.h"

#define MAX_ARGUMENTS 32

bool
weir_extension_installed(void)
{
	return OidIsValid(get_extension_oid("pg_weir", true));
}

Oid
weir_extension_owner(void)
{
	Oid			extension = get_extension_oid("pg_weir", false);
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for extension %u", extension);
	owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

Oid
weir_relation_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static void
switch_to_owner(WeirCatalogScope *scope)
{
	SetUserIdAndSecContext(weir_extension_owner(),
						   scope->security_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* It would be the caller's choice without the caller's rights. */
	(void) set_config_option("default_tablespace", "", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
weir_catalog_enter(WeirCatalogScope *scope)
{
	MemoryContext context = CurrentMemoryContext;

	GetUserIdAndSecContext(&scope->caller, &scope->security_context);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	switch_to_owner(scope);
}

void
weir_catalog_leave(WeirCatalogScope *scope)
{
	weir_catalog_as_caller(scope);
	SPI_finish();
}

void
weir_catalog_as_caller(WeirCatalogScope *scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->caller, scope->security_context);
}

void
weir_catalog_as_owner(WeirCatalogScope *scope)
{
	switch_to_owner(scope);
}

/* One argument of letter kind; reads what it needs from args. */
static void
take_argument(char kind, va_list *args, Oid *type, Datum *value, char *isnull)
{
	const char *string;
	XLogRecPtr	lsn;
	TimestampTz timestamp;

	*isnull = ' ';
	*value = (Datum) 0;
	switch (kind)
	{
		case 'l':
			*type = INT8OID;
			*value = Int64GetDatum(va_arg(*args, int64));
			break;
		case 'i':
			*type = INT4OID;
			*value = Int32GetDatum(va_arg(*args, int));
			break;
		case 'o':
			*type = OIDOID;
			*value = ObjectIdGetDatum(va_arg(*args, Oid));
			break;
		case 'b':
			*type = BOOLOID;
			*value = BoolGetDatum(va_arg(*args, int) != 0);
			break;
		case 't':
		case 'n':
		case 'j':
			string = va_arg(*args, const char *);
			*type = kind == 't' ? TEXTOID : kind == 'n' ? NAMEOID : JSONBOID;
			if (string == NULL)
				*isnull = 'n';
			else if (kind == 't')
				*value = CStringGetTextDatum(string);
			else if (kind == 'n')
				*value = DirectFunctionCall1(namein, CStringGetDatum(string));
			else
				*value = DirectFunctionCall1(jsonb_in, CStringGetDatum(string));
			break;
		case 'p':
			lsn = va_arg(*args, XLogRecPtr);
			*type = PG_LSNOID;
			*value = LSNGetDatum(lsn);
			if (XLogRecPtrIsInvalid(lsn))
				*isnull = 'n';
			break;
		case 'z':
			timestamp = va_arg(*args, TimestampTz);
			*type = TIMESTAMPTZOID;
			*value = TimestampTzGetDatum(timestamp);
			if (timestamp == 0)
				*isnull = 'n';
			break;
		case 'D':
			*value = va_arg(*args, Datum);
			*type = va_arg(*args, Oid);
			break;
		case 'N':
			*type = va_arg(*args, Oid);
			*isnull = 'n';
			break;
		default:
			elog(ERROR, "unknown catalog argument kind \"%c\"", kind);
	}
}

static uint64
run_query(SPIPlanPtr *plan, bool at_snapshot, const char *sql, const char *arguments, va_list *args)
{
	Oid			types[MAX_ARGUMENTS];
	Datum		values[MAX_ARGUMENTS];
	char		nulls[MAX_ARGUMENTS + 1];
	int			nargs = strlen(arguments);
	int			rc;
	MemoryContext context = CurrentMemoryContext;

	if (nargs > MAX_ARGUMENTS)
		elog(ERROR, "too many catalog arguments: %d", nargs);
	for (int i = 0; i < nargs; i++)
		take_argument(arguments[i], args, &types[i], &values[i], &nulls[i]);

	if (plan != NULL)
	{
		if (*plan == NULL)
		{
			*plan = SPI_prepare(sql, nargs, types);
			if (*plan == NULL || SPI_keepplan(*plan) != 0)
				elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
		}
		rc = SPI_execute_plan(*plan, values, nulls, at_snapshot, 0);
	}
	else
		rc = SPI_execute_with_args(sql, nargs, types, values, nulls, at_snapshot, 0);

	MemoryContextSwitchTo(context);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
	return SPI_processed;
}

void
weir_run_utility(const char *sql)
{
	MemoryContext context = CurrentMemoryContext;
	int			rc = SPI_execute(sql, false, 0);

	MemoryContextSwitchTo(context);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
}

uint64
weir_query(SPIPlanPtr *plan, const char *sql, const char *arguments, ...)
{
	va_list		args;
	uint64		result;

	va_start(args, arguments);
	result = run_query(plan, false, sql, arguments, &args);
	va_end(args);
	return result;
}

uint64
weir_query_at_snapshot(const char *sql, const char *arguments, ...)
{
	va_list		args;
	uint64		result;

	va_start(args, arguments);
	result = run_query(NULL, true, sql, arguments, &args);
	va_end(args);
	return result;
}

static Datum
result_datum(uint64 row, int column, bool *isnull)
{
	Assert(SPI_tuptable != NULL && row < SPI_tuptable->numvals);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

bool
weir_result_isnull(uint64 row, int column)
{
	bool		isnull;

	(void) result_datum(row, column, &isnull);
	return isnull;
}

int64
weir_result_int64(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

int
weir_result_int(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

Oid
weir_result_oid(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

bool
weir_result_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

XLogRecPtr
weir_result_lsn(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return isnull ? InvalidXLogRecPtr : DatumGetLSN(value);
}

TimestampTz
weir_result_timestamp(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* The type's text output, in the memory context that was current outside of SPI's own. */
char *
weir_result_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

Oid *
weir_result_oids(uint64 row, int column, int *count)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);
	Datum	   *elements;
	Oid		   *oids;

	*count = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), OIDOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elements, NULL, count);
	oids = palloc(sizeof(Oid) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
		oids[i] = DatumGetObjectId(elements[i]);
	return oids;
}

List *
weir_result_texts(uint64 row, int column)
{
	bool		isnull;
	Datum		value = result_datum(row, column, &isnull);
	Datum	   *elements;
	int			count;
	List	   *result = NIL;

	if (isnull)
		return NIL;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		result = lappend(result, TextDatumGetCString(elements[i]));
	return result;
}

Datum
weir_text_array(List *strings)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(strings), 1));
	int			count = 0;
	ListCell   *lc;

	foreach(lc, strings)
		elements[count++] = CStringGetTextDatum((char *) lfirst(lc));
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
weir_oid_array(const Oid *oids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = ObjectIdGetDatum(oids[i]);
	return PointerGetDatum(construct_array(elements, count, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}
