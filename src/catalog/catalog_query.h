/*
 * catalog_query.h - SPI for the catalog modules: typed arguments, typed results.
 *
 * Argument letters: l int64 (bigint), i int (int4), t const char * (text, NULL
 * is NULL), n const char * (name), o Oid, b int (boolean), p XLogRecPtr
 * (pg_lsn, Invalid is NULL), z TimestampTz (timestamptz, 0 is NULL), j const
 * char * (jsonb text, NULL is NULL), D Datum of the type that follows as an
 * Oid argument (e.g. an array), N NULL of the type that follows as an Oid.
 *
 * SPI must be connected; never starts or ends a transaction.
 */
#ifndef WEIR_CATALOG_QUERY_H
#define WEIR_CATALOG_QUERY_H

#include "weir.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"

/*
 * SPI's own functions leave its procedure context current, which SPI_finish
 * frees; everything declared here gives back the context it was called in, so
 * what a module returns lives as long as its caller's context.
 */

/*
 * A control call's excursion into the catalogs: SPI connected, user switched
 * to the extension's owner (restricted), search_path pinned. Ends by
 * weir_catalog_leave or by the abort of the (sub)transaction.
 */
typedef struct WeirCatalogScope
{
	Oid			caller;			/* GetUserId() outside of the scope */
	int			security_context;
	int			guc_level;
} WeirCatalogScope;

extern void weir_catalog_enter(WeirCatalogScope *scope);
extern void weir_catalog_leave(WeirCatalogScope *scope);
/* Back to the caller's own rights and search_path within the scope, and in again. */
extern void weir_catalog_as_caller(WeirCatalogScope *scope);
extern void weir_catalog_as_owner(WeirCatalogScope *scope);

extern Oid	weir_extension_owner(void);		/* 42704 when the extension is not installed */
extern bool weir_extension_installed(void);
extern Oid	weir_relation_owner(Oid relation);	/* InvalidOid when it does not exist */

/* Number of rows; results in SPI_tuptable. plan: cache for hot statements, or NULL. */
extern uint64 weir_query(SPIPlanPtr *plan, const char *sql, const char *arguments, ...);
/* As the active snapshot has it: it reads only, and not what this transaction has written since. */
extern uint64 weir_query_at_snapshot(const char *sql, const char *arguments, ...);

/* A statement without result. */
extern void weir_run_utility(const char *sql);

/* Column (from 1) of row (from 0) of SPI_tuptable; NULL gives 0 / NULL. Strings are copied to CurrentMemoryContext. */
extern bool weir_result_isnull(uint64 row, int column);
extern int64 weir_result_int64(uint64 row, int column);
extern int	weir_result_int(uint64 row, int column);
extern Oid	weir_result_oid(uint64 row, int column);
extern bool weir_result_bool(uint64 row, int column);
extern XLogRecPtr weir_result_lsn(uint64 row, int column);
extern TimestampTz weir_result_timestamp(uint64 row, int column);
extern char *weir_result_text(uint64 row, int column);
extern Oid *weir_result_oids(uint64 row, int column, int *count);
extern List *weir_result_texts(uint64 row, int column);		/* text[]: List of char * */

/* text[] from a List of char *, for argument letter D with TEXTARRAYOID. */
extern Datum weir_text_array(List *strings);
extern Datum weir_oid_array(const Oid *oids, int count);

#endif							/* WEIR_CATALOG_QUERY_H */
