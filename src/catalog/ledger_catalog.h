/*
 * ledger_catalog.h - appending to weir_internal.ledger, and checking it.
 *
 * In the same transaction as what it records (I10). The entries of an operator
 * form a chain: numbered without gaps, each with the hash of the one before.
 */
#ifndef WEIR_LEDGER_CATALOG_H
#define WEIR_LEDGER_CATALOG_H

#include "weir.h"

typedef struct WeirLedgerEntry
{
	int64		operator_id;
	const char *operator_name;
	int64		upgrade_id;		/* 0: none */
	const char *event;			/* glossary word: create, drop, upgrade, stop, ... */
	const char *from_phase;		/* or NULL */
	const char *to_phase;
	int			from_version;	/* 0: none */
	int			to_version;
	XLogRecPtr	lsn;			/* Invalid: the WAL insert position now */
	Oid			actor;			/* role that decided */
	const char *reason;			/* or NULL */
	const char *detail;			/* jsonb text or NULL */
} WeirLedgerEntry;

/* Recorded and chained, after what was noted before. For those who have locked the operator's row. */
extern void weir_ledger_append(const WeirLedgerEntry *entry);

/* Recorded, to be chained later: for those who must not wait for the operator's row. */
extern void weir_ledger_note(const WeirLedgerEntry *entry);

/* Chains what was noted, oldest first; the operator's row must be locked. */
extern void weir_ledger_chain(int64 operator_id);

/*
 * Recomputes every chain and compares it with its head, in one snapshot. True
 * when all of them hold; otherwise the lowest ledger_id at which one breaks, 0
 * when the head that is contradicted does not name one.
 */
extern bool weir_ledger_verify(int64 *broken_at);

#endif							/* WEIR_LEDGER_CATALOG_H */
