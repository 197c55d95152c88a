/*
 * wakeup.h - the commit callback; what sessions may ask of it is in
 * weir_session.h.
 */
#ifndef WEIR_WAKEUP_H
#define WEIR_WAKEUP_H

#include "weir_session.h"

/* From _PG_init, in the postmaster. */
extern void weir_wakeup_install(void);

/* This process is a worker: its commits wake no readers. */
extern void weir_wakeup_ignore_own_commits(void);

#endif							/* WEIR_WAKEUP_H */
