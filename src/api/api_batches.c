/*
 * api_batches.c - weir_internal.recent_batches: the history of batches in
 * shared memory, as far as the caller may see it.
 *
 * Everybody may call it: so what belongs to others is left out here and not in
 * the view over it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "weir_batch_history.h"

PG_FUNCTION_INFO_V1(weir_recent_batches);

#define RESULT_COLUMNS 13

typedef struct OwnOperators
{
	bool		all;			/* the caller is a monitor */
	int			count;
	int64	   *ids;
} OwnOperators;

/* In the catalog scope; what it returns lives in context. */
static OwnOperators
find_own(Oid caller, MemoryContext context)
{
	OwnOperators own = {0};
	uint64		count = weir_query(NULL,
								   "SELECT o.operator_id, c.relowner FROM weir_internal.operator o "
								   "JOIN pg_catalog.pg_class c ON c.oid = o.view_oid WHERE NOT o.dropped", "");

	own.ids = MemoryContextAlloc(context, sizeof(int64) * (count + 1));
	for (uint64 row = 0; row < count; row++)
		if (has_privs_of_role(caller, weir_result_oid(row, 2)))
			own.ids[own.count++] = weir_result_int64(row, 1);
	return own;
}

static OwnOperators
visible_operators(void)
{
	OwnOperators own = {.all = weir_is_monitor(GetUserId())};
	MemoryContext context = CurrentMemoryContext;
	WeirCatalogScope scope;

	if (own.all)
		return own;
	weir_catalog_enter(&scope);
	own = find_own(scope.caller, context);
	weir_catalog_leave(&scope);
	MemoryContextSwitchTo(context);
	return own;
}

static bool
is_visible(const OwnOperators *own, int64 operator_id)
{
	if (own->all)
		return true;
	for (int i = 0; i < own->count; i++)
		if (own->ids[i] == operator_id)
			return true;
	return false;
}

static void
set_folds(const WeirBatchCopy *batch, const OwnOperators *own, Datum *values, bool *nulls)
{
	int			count = 0;
	Datum	   *columns[3];
	static const Oid types[3] = {INT8OID, INT4OID, INT8OID};

	for (int i = 0; i < lengthof(columns); i++)
	{
		columns[i] = palloc(sizeof(Datum) * Max(batch->record.nfolds, 1));
		nulls[i] = batch->folds == NULL;
	}
	if (batch->folds == NULL)
		return;
	for (int i = 0; i < batch->record.nfolds; i++)
	{
		const WeirBatchFold *fold = &batch->folds[i];

		if (!is_visible(own, fold->operator_id))
			continue;
		columns[0][count] = Int64GetDatum(fold->operator_id);
		columns[1][count] = Int32GetDatum(fold->version);
		columns[2][count++] = Int64GetDatum(fold->rows_changed);
	}
	for (int i = 0; i < lengthof(columns); i++)
		values[i] = types[i] == INT4OID ?
			PointerGetDatum(construct_array(columns[i], count, INT4OID, sizeof(int32), true, TYPALIGN_INT)) :
			PointerGetDatum(construct_array(columns[i], count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Others see the batches in which a version of theirs took part. */
static bool
has_visible_fold(const WeirBatchCopy *batch, const OwnOperators *own)
{
	for (int i = 0; batch->folds != NULL && i < batch->record.nfolds; i++)
		if (is_visible(own, batch->folds[i].operator_id))
			return true;
	return false;
}

Datum
weir_recent_batches(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	OwnOperators own;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	own = visible_operators();
	foreach(lc, weir_batch_history_copy(MyDatabaseId))
	{
		const WeirBatchCopy *batch = lfirst(lc);
		const WeirBatchRecord *record = &batch->record;
		Datum		values[RESULT_COLUMNS];
		bool		nulls[RESULT_COLUMNS] = {0};

		if (!own.all && !has_visible_fold(batch, &own))
			continue;
		values[0] = Int64GetDatum(record->reader_id);
		values[1] = CStringGetTextDatum(record->is_main ? "main" : "catch_up");
		values[2] = LSNGetDatum(record->from_lsn);
		values[3] = LSNGetDatum(record->to_lsn);
		values[4] = Int64GetDatum(record->transactions);
		values[5] = Int64GetDatum(record->rows);
		set_folds(batch, &own, &values[6], &nulls[6]);
		values[9] = Float8GetDatum(record->read_us / 1000.0);
		values[10] = Float8GetDatum(record->apply_us / 1000.0);
		values[11] = Float8GetDatum(record->commit_us / 1000.0);
		values[12] = TimestampTzGetDatum(record->committed_at);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
