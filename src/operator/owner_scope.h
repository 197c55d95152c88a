/*
 * owner_scope.h - the rights with which a definition's expressions run.
 */
#ifndef WEIR_OWNER_SCOPE_H
#define WEIR_OWNER_SCOPE_H

#include "weir.h"

typedef struct WeirOwnerScope
{
	Oid			user;
	int			security_context;
	int			guc_nest_level;
} WeirOwnerScope;

/* In a transaction. An error out of the scope ends it with the (sub)transaction. */
extern void weir_owner_scope_enter(WeirOwnerScope *scope, Oid owner);
extern void weir_owner_scope_leave(WeirOwnerScope *scope);

/* In a worker: advisory locks that functions took, before somebody else's functions run. */
extern void weir_owner_scope_drop_locks(void);

/*
 * In a worker, before the (sub)transaction of an error is rolled back: when the
 * server ran short of locks while functions of the scope held some, it is not a
 * shortage that passes but their fault. Lets go of the locks.
 */
extern void weir_owner_scope_blame(ErrorData *error);

#endif							/* WEIR_OWNER_SCOPE_H */
