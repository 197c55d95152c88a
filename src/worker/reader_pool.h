/*
 * reader_pool.h - the coordinator's reader processes: start, pace, end.
 */
#ifndef WEIR_READER_POOL_H
#define WEIR_READER_POOL_H

#include "weir.h"
#include "nodes/pg_list.h"

/*
 * Starts what the rows (List of WeirReaderRow) want and is not running. A
 * process that ended although its row wants it is started again after
 * weir.restart_delay, doubled each time up to a minute.
 */
extern void weir_reader_pool_start(List *rows);
extern bool weir_reader_pool_is_running(int64 reader_id);
extern void weir_reader_pool_terminate(int64 reader_id);
extern void weir_reader_pool_terminate_all(void);	/* and waits for them */

#endif							/* WEIR_READER_POOL_H */
