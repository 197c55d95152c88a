/*
 * ledger_catalog.c - appending to weir_internal.ledger, and checking it.
 *
 * Runs in control calls, in the coordinator and in readers, in the transaction
 * that does what the entry records. The head of an operator's chain is in its
 * row of weir_internal.operator, so that a tail that was cut off is missed;
 * whoever moves the head holds that row's lock, and operators never wait for
 * one another.
 *
 * A reader must not wait for a user's open transaction, which may have that
 * lock; nor must the coordinator while it deals with several operators at
 * once. They note: the entry is there at once, without a place in the chain.
 * Whoever next has the lock gives it one before its own entry, at the latest
 * the coordinator's next turn that finds the row free. That is the only change
 * that a row of the ledger ever sees, and the trigger on it allows no other.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "catalog/catalog_query.h"
#include "catalog/ledger_catalog.h"

/*
 * Every column of entry l, given its place in the chain. JSON tells NULL from
 * text and one column from the next; instants and positions are taken as
 * numbers, whose text depends on no setting and no release of the server, and
 * text as the bytes that the database stores.
 */
#define ENTRY_HASH(sequence, previous_hash) \
	"sha256(convert_to(jsonb_build_array(l.ledger_id, l.operator_id, " sequence ", encode(" previous_hash ", 'hex'), " \
	"extract(epoch FROM l.recorded_at), l.operator, l.upgrade_id, l.event, l.from_phase, l.to_phase, " \
	"l.from_version, l.to_version, l.lsn - '0/0'::pg_lsn, l.actor::text, l.reason, l.detail)::text, " \
	"getdatabaseencoding()))"

void
weir_ledger_note(const WeirLedgerEntry *entry)
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

/* Behind the present head, which moves on to it. */
static void
chain_entry(int64 ledger_id)
{
	if (weir_query(NULL,
				   "WITH chained AS (UPDATE weir_internal.ledger l SET sequence = o.ledger_length + 1, "
				   "previous_hash = o.ledger_hash, hash = " ENTRY_HASH("o.ledger_length + 1", "o.ledger_hash")
				   " FROM weir_internal.operator o WHERE o.operator_id = l.operator_id AND l.ledger_id = $1 "
				   "RETURNING l.operator_id, l.ledger_id, l.sequence, l.hash) "
				   "UPDATE weir_internal.operator o SET ledger_length = c.sequence, ledger_last = c.ledger_id, "
				   "ledger_hash = c.hash FROM chained c WHERE o.operator_id = c.operator_id",
				   "l", ledger_id) != 1)
		elog(ERROR, "entry " INT64_FORMAT " of the ledger cannot be chained", ledger_id);
}

void
weir_ledger_chain(int64 operator_id)
{
	uint64		count = weir_query(NULL,
								   "SELECT ledger_id FROM weir_internal.ledger WHERE operator_id = $1 AND hash IS NULL "
								   "ORDER BY ledger_id", "l", operator_id);
	int64	   *noted = palloc(sizeof(int64) * (count + 1));

	for (uint64 i = 0; i < count; i++)
		noted[i] = weir_result_int64(i, 1);
	for (uint64 i = 0; i < count; i++)
		chain_entry(noted[i]);
	pfree(noted);
}

void
weir_ledger_append(const WeirLedgerEntry *entry)
{
	weir_ledger_note(entry);
	weir_ledger_chain(entry->operator_id);
}

/*
 * Each entry follows on from the one before it, is what its hash says, and is
 * not beyond the head; the head's own entry is there. Of each chain the first
 * place counts at which that is not so.
 */
bool
weir_ledger_verify(int64 *broken_at)
{
	weir_query(NULL,
			   "SELECT count(*), min(ledger_id) FROM (SELECT DISTINCT ON (operator_id) ledger_id FROM ("
			   "SELECT l.operator_id, l.sequence, l.ledger_id, "
			   "l.sequence = coalesce(lag(l.sequence) OVER chain, 0) + 1 "
			   "AND l.previous_hash IS NOT DISTINCT FROM lag(l.hash) OVER chain "
			   "AND l.hash = " ENTRY_HASH("l.sequence", "l.previous_hash")
			   " AND (l.sequence < o.ledger_length OR l.sequence = o.ledger_length "
			   "AND l.ledger_id = o.ledger_last AND l.hash = o.ledger_hash) AS holds "
			   "FROM weir_internal.ledger l LEFT JOIN weir_internal.operator o USING (operator_id) "
			   "WHERE l.hash IS NOT NULL WINDOW chain AS (PARTITION BY l.operator_id ORDER BY l.sequence, l.ledger_id) "
			   "UNION ALL SELECT o.operator_id, o.ledger_length, o.ledger_last, false FROM weir_internal.operator o "
			   "WHERE o.ledger_length > 0 AND NOT EXISTS (SELECT FROM weir_internal.ledger l "
			   "WHERE l.operator_id = o.operator_id AND l.sequence = o.ledger_length AND l.hash IS NOT NULL)"
			   ") AS entries WHERE holds IS NOT TRUE ORDER BY operator_id, sequence, ledger_id) AS breaks", "");
	*broken_at = weir_result_int64(0, 2);
	return weir_result_int64(0, 1) == 0;
}
