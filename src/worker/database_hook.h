/*
 * database_hook.h - noticing statements that create or drop the extension or
 * need a database without workers; what sessions may ask is in weir_session.h.
 */
#ifndef WEIR_DATABASE_HOOK_H
#define WEIR_DATABASE_HOOK_H

/* From _PG_init, in the postmaster. */
extern void weir_database_hook_install(void);

#endif							/* WEIR_DATABASE_HOOK_H */
