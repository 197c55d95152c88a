/*
 * weir_launcher.h - the one static worker, which starts the coordinators.
 */
#ifndef WEIR_LAUNCHER_H
#define WEIR_LAUNCHER_H

/* From _PG_init, in the postmaster. */
extern void weir_launcher_register(void);

#endif							/* WEIR_LAUNCHER_H */
