/*
 * fingerprint.c - telling whether the functions that a definition calls are still the same.
 *
 * Pure, but for the catalog caches. A version keeps one digest for each of the
 * user's functions that its definition calls, so that a message can name the
 * one that changed. What such a function calls in turn is not looked into: the
 * server does not know it either.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "operator/fingerprint.h"

#define DIGEST_LENGTH (PG_SHA256_DIGEST_LENGTH * 2)

char *
weir_digest(const char *text)
{
	bytea	   *digest = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
															 PointerGetDatum(cstring_to_text(text))));
	char	   *hex = palloc(DIGEST_LENGTH + 1);

	hex[hex_encode(VARDATA_ANY(digest), PG_SHA256_DIGEST_LENGTH, hex)] = '\0';
	return hex;
}

/* What a call of the function does, as far as its own row says. */
static char *
function_text(Oid function)
{
	static const struct
	{
		AttrNumber	attribute;
		Oid			output;
	}			parts[] = {
		{Anum_pg_proc_prosrc, F_TEXTOUT},
		{Anum_pg_proc_probin, F_TEXTOUT},
		{Anum_pg_proc_prosqlbody, F_PG_NODE_TREE_OUT},
		{Anum_pg_proc_proconfig, F_ARRAY_OUT},
		{Anum_pg_proc_proargdefaults, F_PG_NODE_TREE_OUT},
	};
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	StringInfoData text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	initStringInfo(&text);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	appendStringInfo(&text, "%u;%c%d%d", form->prolang, form->provolatile, form->proisstrict, form->prosecdef);
	for (int i = 0; i < lengthof(parts); i++)
	{
		bool		isnull;
		Datum		value = SysCacheGetAttr(PROCOID, tuple, parts[i].attribute, &isnull);

		appendStringInfo(&text, ";%d:%s", i, isnull ? "" : OidOutputFunctionCall(parts[i].output, value));
	}
	ReleaseSysCache(tuple);
	return text.data;
}

char *
weir_functions_fingerprint(List *functions)
{
	StringInfoData fingerprint;
	ListCell   *lc;

	initStringInfo(&fingerprint);
	foreach(lc, functions)
	{
		Oid			function = lfirst_oid(lc);

		/* Built-in functions change with the server's major version only. */
		if (function >= FirstNormalObjectId)
			appendStringInfo(&fingerprint, "%s%u:%s", fingerprint.len > 0 ? " " : "", function,
							 weir_digest(function_text(function)));
	}
	return fingerprint.data;
}

/* The entry that begins here, and where the next one does; false at the end. */
static bool
next_entry(const char **position, Oid *function, const char **digest)
{
	char	   *end;

	if (**position == '\0')
		return false;
	*function = (Oid) strtoul(*position, &end, 10);
	*digest = end + 1;
	*position = end + 1 + DIGEST_LENGTH;
	if (**position == ' ')
		(*position)++;
	return true;
}

List *
weir_fingerprint_changed(const char *recorded, const char *now)
{
	List	   *changed = NIL;
	Oid			function;
	const char *digest;

	while (next_entry(&recorded, &function, &digest))
	{
		const char *position = now;
		Oid			other;
		const char *other_digest;

		while (next_entry(&position, &other, &other_digest))
			if (other == function && strncmp(digest, other_digest, DIGEST_LENGTH) != 0)
				changed = lappend(changed, format_procedure_qualified(function));
	}
	return changed;
}
