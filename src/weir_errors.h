/*
 * weir_errors.h - the SQLSTATEs of class WE, pg_weir's own conditions.
 *
 * Letters I-Z in a class are left to implementations by the SQL standard, so
 * callers may match these codes instead of message texts.
 */
#ifndef WEIR_ERRORS_H
#define WEIR_ERRORS_H

#include "postgres.h"

/* A worker lost its epoch to a newer one: exit quietly, write nothing. */
#define WEIR_ERRCODE_FENCED				MAKE_SQLSTATE('W','E','0','0','1')
/* An append-only operator met an UPDATE, DELETE or TRUNCATE. */
#define WEIR_ERRCODE_NOT_APPEND_ONLY	MAKE_SQLSTATE('W','E','0','0','2')
/* A change arrived without the old row that exact folding needs. */
#define WEIR_ERRCODE_OLD_ROW_MISSING	MAKE_SQLSTATE('W','E','0','0','3')
/* The source changed without row events; the state no longer matches it. */
#define WEIR_ERRCODE_STALE				MAKE_SQLSTATE('W','E','0','0','4')
/* The slot that held the WAL is gone: the operator must be rebuilt. */
#define WEIR_ERRCODE_SLOT_LOST			MAKE_SQLSTATE('W','E','0','0','5')
/* The state contradicts the changes (a count below zero): stop, keep evidence. */
#define WEIR_ERRCODE_STATE_CORRUPT		MAKE_SQLSTATE('W','E','0','0','6')
/* LSNs of another cluster, timeline or database: never compared. */
#define WEIR_ERRCODE_FOREIGN_POSITION	MAKE_SQLSTATE('W','E','0','0','7')

/*
 * Data or definition are at fault, so that another try gives the same error;
 * everything else (resources, shutdown, locks, system) is tried again.
 */
static inline bool
weir_error_is_permanent(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return false;
		default:
			return sqlerrcode != WEIR_ERRCODE_FENCED;
	}
}

#endif							/* WEIR_ERRORS_H */
