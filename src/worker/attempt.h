/*
 * attempt.h - the coordinator's work in pieces, each of which fails alone.
 */
#ifndef WEIR_ATTEMPT_H
#define WEIR_ATTEMPT_H

#include "weir.h"

/* True when something changed. */
typedef bool (*WeirAttempt) (void *argument);

/*
 * Runs a piece, outside of a transaction. An error is logged and undone, and
 * the piece with this id and number is left out for a while: longer each time,
 * up to a minute. False then.
 */
extern bool weir_attempt(WeirAttempt piece, void *argument, int64 id, int number);

#endif							/* WEIR_ATTEMPT_H */
