/*
 * definition_names.c - query texts follow what their parts are called.
 *
 * A definition refers to its columns, types, functions and operators by OID or
 * number; the texts made of it name them.  A reader keeps a definition for as
 * long as it runs and prepares a text again whenever its plan became invalid:
 * by then something may be called otherwise, or the old name may belong to
 * something else that fits as well.  So texts are made anew before they are
 * prepared, once any name may have changed.
 *
 * Runs in readers, in a transaction.  Locks: AccessShareLock on the source, to
 * the end of the transaction, never waited for: ruleutils would wait, at the
 * cost of all versions of a stream, for as long as somebody holds the table.
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "operator/definition.h"
#include "operator/objection.h"

static uint64 name_changes = 0;

static void
note_name_change(Datum arg, int cacheid, uint32 hashvalue)
{
	name_changes++;
}

uint64
weir_definition_name_changes(void)
{
	static bool is_registered = false;
	static const int caches[] = {PROCOID, TYPEOID, OPEROID, NAMESPACEOID, COLLOID, ENUMOID, RELOID, ATTNUM};

	if (!is_registered)
	{
		for (int i = 0; i < lengthof(caches); i++)
			CacheRegisterSyscacheCallback(caches[i], note_name_change, (Datum) 0);
		is_registered = true;
	}
	return name_changes;
}

/* Few texts change, so that one that does not costs no memory for as long as the definition lives. */
static void
refresh(char **text, Oid source, Node *expr, MemoryContext context)
{
	char	   *now;

	if (*text == NULL)
		return;
	now = weir_deparse(source, expr);
	if (strcmp(now, *text) != 0)
		*text = MemoryContextStrdup(context, now);
}

static void
lock_source(const WeirDefinition *def)
{
	if (!ConditionalLockRelationOid(def->source, AccessShareLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not look at the columns of table %s", weir_deparse_table_name(def->source)),
				 errdetail("Another transaction has locked it since names in the database have changed."),
				 errhint("Nothing to do: it is tried again.")));
}

/* By where it was raised: any function can raise the SQLSTATE. */
bool
weir_definition_source_was_locked(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE &&
		error->funcname != NULL && strcmp(error->funcname, "lock_source") == 0;
}

void
weir_definition_refresh_names(WeirDefinition *def)
{
	MemoryContext context = GetMemoryChunkContext(def);
	uint64		seen = weir_definition_name_changes();
	int			nest_level;

	if (def->names_seen == seen)
		return;
	lock_source(def);
	nest_level = weir_deparse_begin();
	refresh(&def->where_sql, def->source, def->where, context);
	for (int i = 0; i < def->nkeys; i++)
		refresh(&def->keys[i].expr_sql, def->source, (Node *) def->keys[i].expr, context);
	for (int i = 0; i < def->natoms; i++)
	{
		refresh(&def->atoms[i].arg_sql, def->source, def->atoms[i].arg, context);
		refresh(&def->atoms[i].filter_sql, def->source, def->atoms[i].filter, context);
	}
	weir_deparse_end(nest_level);
	def->names_seen = seen;
}
