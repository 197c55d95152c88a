/*
 * ledger_catalog.h - appending to weir_internal.ledger.
 *
 * In the same transaction as what it records (I10); only ever inserted.
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

extern void weir_ledger_append(const WeirLedgerEntry *entry);

#endif							/* WEIR_LEDGER_CATALOG_H */
