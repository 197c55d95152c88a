/*
 * reuse.c - deriving a new version's state from the old version's.
 *
 * Pure, but for names looked up in the catalogs. When it may be done is
 * verdict.c's: both versions fold the same rows into the same groups (keys, in
 * any order), and every value the new one keeps is kept by the old one too.
 * Then no source is read: the new state is a projection of the old.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "operator/objection.h"
#include "upgrade/reuse.h"

int
weir_reuse_find_key(const WeirDefinition *definition, const WeirKey *key)
{
	for (int i = 0; i < definition->nkeys; i++)
		if (equal(definition->keys[i].expr, key->expr))
			return i;
	return -1;
}

int
weir_reuse_find_atom(const WeirDefinition *definition, const WeirAtom *atom)
{
	for (int i = 0; i < definition->natoms; i++)
	{
		const WeirAtom *other = &definition->atoms[i];

		if (other->kind == atom->kind && equal(other->arg, atom->arg) && equal(other->filter, atom->filter))
			return i;
	}
	return -1;
}

char *
weir_reuse_atom_text(const WeirDefinition *definition, const WeirAtom *atom)
{
	static const char *const names[] = {
		[WEIR_ATOM_COUNT] = "count",
		[WEIR_ATOM_SUM] = "sum",
		[WEIR_ATOM_MIN] = "min",
		[WEIR_ATOM_MAX] = "max",
	};
	char	   *arg = atom->arg ? weir_deparse_for_people(definition->source, atom->arg) : "*";
	/* An operator's expression comes in parentheses already. */
	char	   *call = psprintf(atom->arg && IsA(atom->arg, OpExpr) ? "%s%s" : "%s(%s)", names[atom->kind], arg);

	return atom->filter == NULL ? call :
		psprintf("%s FILTER (WHERE %s)", call, weir_deparse_for_people(definition->source, atom->filter));
}

static void
append_from(StringInfo sql, Oid table)
{
	appendStringInfo(sql, "1 AS sign FROM %s",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												get_rel_name(table)));
}

static void
append_keys(StringInfo sql, const WeirDefinition *next, int nkeys, const WeirDefinition *previous)
{
	for (int i = 0; i < nkeys; i++)
		appendStringInfo(sql, "%s, ",
						 quote_identifier(previous->keys[weir_reuse_find_key(previous, &next->keys[i])].column.name));
}

static char *
state_query(const WeirDefinition *next, const WeirDefinition *previous, Oid table)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_keys(&sql, next, next->nkeys, previous);
	for (int i = 0; i < next->natoms; i++)
	{
		const WeirAtom *old = &previous->atoms[weir_reuse_find_atom(previous, &next->atoms[i])];

		Assert(old->ncolumns == next->atoms[i].ncolumns);
		for (int column = 0; column < old->ncolumns; column++)
			appendStringInfo(&sql, "%s, ",
							 quote_identifier(previous->hidden[old->first_column + column].name));
	}
	append_from(&sql, table);
	return sql.data;
}

/* An extreme's side table: the same keys plus the value as last key, and its count. */
static char *
extreme_query(const WeirDefinition *next, int extreme, const WeirDefinition *previous,
			  const WeirVersion *previous_version)
{
	StringInfoData sql;

	for (int i = 0; i < next->natoms; i++)
	{
		const WeirAtom *old;
		const WeirDefinition *side;

		if (next->atoms[i].extreme != extreme)
			continue;
		old = &previous->atoms[weir_reuse_find_atom(previous, &next->atoms[i])];
		side = previous->extremes[old->extreme];
		initStringInfo(&sql);
		appendStringInfoString(&sql, "SELECT ");
		for (int key = 0; key < next->nkeys; key++)
			appendStringInfo(&sql, "%s, ",
							 quote_identifier(side->keys[weir_reuse_find_key(previous, &next->keys[key])].column.name));
		appendStringInfo(&sql, "%s, %s, ",
						 quote_identifier(side->keys[side->nkeys - 1].column.name),
						 quote_identifier(side->hidden[0].name));
		append_from(&sql, previous_version->extreme_tables[old->extreme]);
		return sql.data;
	}
	elog(ERROR, "extreme %d belongs to no aggregate", extreme);
	return NULL;
}

const char **
weir_reuse_queries(const WeirDefinition *next, const WeirDefinition *previous,
				   const WeirVersion *previous_version)
{
	const char **queries = palloc(sizeof(char *) * (1 + next->nextremes));

	queries[0] = state_query(next, previous, previous_version->state_table);
	for (int i = 0; i < next->nextremes; i++)
		queries[1 + i] = extreme_query(next, i, previous, previous_version);
	return queries;
}
