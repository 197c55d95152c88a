/*
 * gate_query.h - gates that are the user's own queries.
 */
#ifndef WEIR_GATE_QUERY_H
#define WEIR_GATE_QUERY_H

#include "weir.h"
#include "nodes/pg_list.h"

/* Most queries of one upgrade, and how long each may take. */
#define WEIR_GATE_QUERIES 10
#define WEIR_GATE_QUERY_MS 5000

/* Texts as given, analysed as the current user: each one SELECT of one boolean, else 42601, 42P17, 42804... List of Query. */
extern List *weir_gate_queries_analyse(List *texts);
/* The same as texts that mean the same under search_path = pg_catalog, pg_temp, which must be set. */
extern List *weir_gate_queries_deparse(List *queries);

/*
 * "true", "false" or "null", as owner under the active snapshot, read-only.
 * Errors are the query's. SPI connected; the caller limits the time, and ends
 * the transaction.
 */
extern const char *weir_gate_query_run(const char *query, Oid owner);

#endif							/* WEIR_GATE_QUERY_H */
