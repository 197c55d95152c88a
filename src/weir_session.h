/*
 * weir_session.h - what a session's transaction has to tell the workers; they
 * learn of it when, and only if, the transaction commits.
 */
#ifndef WEIR_SESSION_H
#define WEIR_SESSION_H

/* The coordinator of this database looks at the catalogs. Every control call ends with it. (wakeup.c) */
extern void weir_wake_coordinator_at_commit(void);

/* This transaction has created, updated or dropped the extension and has not ended yet. (database_hook.c) */
extern bool weir_extension_change_pending(void);

#endif							/* WEIR_SESSION_H */
