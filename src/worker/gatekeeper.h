/*
 * gatekeeper.h - the coordinator's side of gatekeepers: processes that compare
 * the versions of an upgrade. Coordinator only.
 */
#ifndef WEIR_GATEKEEPER_H
#define WEIR_GATEKEEPER_H

#include "weir.h"

/* One is to run for this operator's upgrade; false while no background worker is free. */
extern bool weir_gatekeeper_want(int64 operator_id);
/* At the end of a turn: those that were not wanted in it are ended. */
extern void weir_gatekeepers_end_unwanted(void);

#endif							/* WEIR_GATEKEEPER_H */
