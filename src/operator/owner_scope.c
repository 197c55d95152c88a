/*
 * owner_scope.c - the rights with which a definition's expressions run.
 *
 * The only place that switches rights.  Workers run as the bootstrap user, and
 * every operator, cast and function in a definition is its owner's choice: so
 * they run as the owner under restricted operation, and settings that they
 * change end with the scope.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "operator/owner_scope.h"
#include "utils/float.h"
#include "utils/guc.h"

#define SAFE_SEARCH_PATH	"pg_catalog, pg_temp"

static void
pin(const char *name, const char *value)
{
	set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
weir_owner_scope_enter(WeirOwnerScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_nest_level = NewGUCNestLevel();

	/* Usually right already; setting the path again would throw away core's cache of it. */
	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) != 0)
		pin("search_path", SAFE_SEARCH_PATH);
	/* Sums of floats add the shortest exact texts, which less than 1 would cut. */
	if (extra_float_digits != 1)
		pin("extra_float_digits", "1");
}

void
weir_owner_scope_leave(WeirOwnerScope *scope)
{
	AtEOXact_GUC(false, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
}
