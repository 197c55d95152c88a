/*
 * api_result.c - the one row that a control call returns.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/catalog_query.h"
#include "funcapi.h"
#include "utils/lsyscache.h"

#include "api/api_result.h"

Datum
weir_result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
weir_notes_array(List *notes)
{
	return weir_text_array(notes);
}

void
weir_refuse_nulls(FunctionCallInfo fcinfo, uint32 optional)
{
	for (int i = 0; i < PG_NARGS(); i++)
		if (PG_ARGISNULL(i) && (optional & (1U << i)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of function %s must not be null", i + 1,
							get_func_name(fcinfo->flinfo->fn_oid)),
					 errhint("\\df weir.%s", get_func_name(fcinfo->flinfo->fn_oid))));
}
