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

#endif							/* WEIR_OWNER_SCOPE_H */
