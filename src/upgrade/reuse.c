/*
 * reuse.c - deriving a new version's state from the old version's.
 *
 * Pure, but for names looked up in the catalogs. The rules: both versions fold
 * the same rows (source, filter, append_only) into the same groups (keys, in
 * any order), and every value the new one keeps is kept by the old one too.
 * Then no source is read: the new state is a projection of the old.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "operator/objection.h"
#include "upgrade/reuse.h"

/* Index of the equal key in definition, or -1. */
static int
find_key(const WeirDefinition *definition, const WeirKey *key)
{
	for (int i = 0; i < definition->nkeys; i++)
		if (equal(definition->keys[i].expr, key->expr))
			return i;
	return -1;
}

static int
find_atom(const WeirDefinition *definition, const WeirAtom *atom)
{
	for (int i = 0; i < definition->natoms; i++)
	{
		const WeirAtom *other = &definition->atoms[i];

		if (other->kind == atom->kind && equal(other->arg, atom->arg) && equal(other->filter, atom->filter))
			return i;
	}
	return -1;
}

static bool
same_groups(const WeirDefinition *next, const WeirDefinition *previous)
{
	if (next->nkeys != previous->nkeys)
		return false;
	for (int i = 0; i < next->nkeys; i++)
		if (find_key(previous, &next->keys[i]) < 0)
			return false;
	return true;
}

/* What an atom adds up, as its user would write it. */
static char *
atom_for_people(const WeirDefinition *definition, const WeirAtom *atom)
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

const char *
weir_reuse_obstacle(const WeirDefinition *next, const WeirDefinition *previous)
{
	if (next->source != previous->source)
		return "it reads another table";
	if (next->append_only != previous->append_only)
		return "append_only differs";
	if (!equal(next->where, previous->where))
		return "its filter differs";
	if (!same_groups(next, previous))
		return "its keys differ";
	for (int i = 0; i < next->natoms; i++)
	{
		if (find_atom(previous, &next->atoms[i]) < 0)
			return psprintf("the old version keeps nothing for %s", atom_for_people(next, &next->atoms[i]));
	}
	return NULL;
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
						 quote_identifier(previous->keys[find_key(previous, &next->keys[i])].column.name));
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
		const WeirAtom *old = &previous->atoms[find_atom(previous, &next->atoms[i])];

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
		old = &previous->atoms[find_atom(previous, &next->atoms[i])];
		side = previous->extremes[old->extreme];
		initStringInfo(&sql);
		appendStringInfoString(&sql, "SELECT ");
		for (int key = 0; key < next->nkeys; key++)
			appendStringInfo(&sql, "%s, ",
							 quote_identifier(side->keys[find_key(previous, &next->keys[key])].column.name));
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

static bool
same_aggregate(const WeirDefinition *a, int index_a, const WeirDefinition *b, int index_b)
{
	const WeirAggregate *x = &a->aggregates[index_a];
	const WeirAggregate *y = &b->aggregates[index_b];

	if (x->kind != y->kind || x->type != y->type)
		return false;
	if (find_atom(b, &a->atoms[x->atom]) != y->atom)
		return false;
	return (x->count_atom < 0) == (y->count_atom < 0) &&
		(x->count_atom < 0 || find_atom(b, &a->atoms[x->count_atom]) == y->count_atom);
}

typedef struct SameExpressionContext
{
	const WeirDefinition *a;
	const WeirDefinition *b;
	bool		differs;
} SameExpressionContext;

/*
 * Rewrites the Vars of an output expression of a (keys, then aggregates) to
 * the positions that mean the same in b; notes when there is none.
 */
static Node *
translate_mutator(Node *node, void *context)
{
	SameExpressionContext *same = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);
		int			position = var->varattno - 1;

		if (position < same->a->nkeys)
			position = find_key(same->b, &same->a->keys[position]);
		else
		{
			int			found = -1;

			for (int i = 0; i < same->b->naggregates && found < 0; i++)
				if (same_aggregate(same->a, position - same->a->nkeys, same->b, i))
					found = i;
			position = found < 0 ? -1 : same->b->nkeys + found;
		}
		if (position < 0)
			same->differs = true;
		var->varattno = position + 1;
		var->varattnosyn = position + 1;
		return (Node *) var;
	}
	return expression_tree_mutator(node, translate_mutator, context);
}

static bool
same_output(const WeirDefinition *a, const WeirOutput *x, const WeirDefinition *b, const WeirOutput *y)
{
	SameExpressionContext same = {a, b, false};
	Node	   *translated;

	if (x->kind != y->kind || x->column.type != y->column.type)
		return false;
	switch (x->kind)
	{
		case WEIR_OUTPUT_KEY:
			return find_key(b, &a->keys[x->index]) == y->index;
		case WEIR_OUTPUT_AGGREGATE:
			return same_aggregate(a, x->index, b, y->index);
		case WEIR_OUTPUT_EXPRESSION:
			translated = translate_mutator((Node *) x->expr, &same);
			return !same.differs && equal(translated, y->expr);
	}
	return false;
}

List *
weir_reuse_common_columns(const WeirDefinition *next, const WeirDefinition *previous)
{
	List	   *columns = NIL;

	/* Over other rows or other groups no column means the same. */
	if (next->source != previous->source || !equal(next->where, previous->where) ||
		!same_groups(next, previous))
		return NIL;
	for (int i = 0; i < next->noutputs; i++)
		for (int j = 0; j < previous->noutputs; j++)
			if (strcmp(next->outputs[i].column.name, previous->outputs[j].column.name) == 0 &&
				same_output(next, &next->outputs[i], previous, &previous->outputs[j]))
				columns = lappend(columns, pstrdup(next->outputs[i].column.name));
	return columns;
}
