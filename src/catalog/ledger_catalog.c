/*
 * ledger_catalog.c - appending to weir_internal.ledger.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"

void
weir_ledger_append(const WeirLedgerEntry *entry)
{
	XLogRecPtr	lsn = XLogRecPtrIsInvalid(entry->lsn) ? GetXLogInsertRecPtr() : entry->lsn;

	weir_query(NULL,
			   "INSERT INTO weir_internal.ledger (operator_id, operator, upgrade_id, event, from_phase, "
			   "to_phase, from_version, to_version, lsn, actor, reason, detail) VALUES ($1, $2, nullif($3, 0), "
			   "$4, $5, $6, nullif($7, 0), nullif($8, 0), $9, $10, $11, coalesce($12, '{}'))",
			   "ltltttiipntj", entry->operator_id, entry->operator_name, entry->upgrade_id,
			   entry->event, entry->from_phase, entry->to_phase, entry->from_version,
			   entry->to_version, lsn, GetUserNameFromId(entry->actor, false), entry->reason,
			   entry->detail);
}
