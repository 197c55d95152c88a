/*
 * api_ledger.c - weir.verify_ledger, and the trigger that keeps the ledger
 * append-only.
 *
 * The trigger stops slips, not superusers, who can disable it: what they do
 * then is what weir.verify_ledger finds.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "api/api_result.h"
#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"

PG_FUNCTION_INFO_V1(weir_verify_ledger);
PG_FUNCTION_INFO_V1(weir_refuse_ledger_change);

/* With the rights of the extension's owner: the hashes cover texts that the caller may not see. */
Datum
weir_verify_ledger(PG_FUNCTION_ARGS)
{
	WeirCatalogScope scope;
	int64		broken_at;
	bool		ok;
	Datum		values[2];
	bool		nulls[2] = {false};

	weir_catalog_enter(&scope);
	ok = weir_ledger_verify(&broken_at);
	weir_catalog_leave(&scope);

	values[0] = BoolGetDatum(ok);
	values[1] = Int64GetDatum(broken_at);
	nulls[1] = broken_at == 0;
	return weir_result_row(fcinfo, values, nulls);
}

Datum
weir_refuse_ledger_change(PG_FUNCTION_ARGS)
{
	TriggerEvent event;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "weir_internal.refuse_ledger_change was not called as a trigger");
	event = ((TriggerData *) fcinfo->context)->tg_event;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("entries of the ledger are only ever added"),
			 errdetail("Refused for every role: %s of weir_internal.ledger.",
					   TRIGGER_FIRED_BY_UPDATE(event) ? "UPDATE" :
					   TRIGGER_FIRED_BY_DELETE(event) ? "DELETE" : "TRUNCATE")));
}
