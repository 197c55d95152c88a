/*
 * verdict.c - what replacing one definition by another means, aspect by aspect.
 *
 * Pure: compares two analysed definitions, so that neither names nor layout of
 * the texts matter, and says for each aspect whether it is identical, can be
 * had from the old state (reuse), needs the source (backfill) or cannot be.
 * Where it would need the source, a migration takes the source's place
 * (convert): that it gives the right values is its author's word.
 * Runs in sessions, for weir.check_upgrade, which shows the aspects, and for
 * weir.start_upgrade, which acts on the same ones. The rules are one table;
 * none stops at the first thing that differs. Nothing is read but definitions
 * and catalog caches and nothing is written.
 *
 * Where two definitions are not seen to be equal although they are (a filter
 * in another order) the verdict is dearer than needed, never wrong.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "operator/fingerprint.h"
#include "operator/objection.h"
#include "upgrade/migration.h"
#include "upgrade/reuse.h"
#include "upgrade/verdict.h"

typedef struct Judgement
{
	const WeirVerdictInput *input;
	const WeirDefinition *next;
	const WeirDefinition *previous;
	WeirVerdict *verdict;
	const char *elsewhere;		/* why no output can mean the same: "over other rows"..., or NULL */
	List	   *changed_functions;	/* with a body other than the old state was computed with */
} Judgement;

/* A migration gives what the source would have been read for. */
static WeirVerdictKind
with_migration(const Judgement *judgement, WeirVerdictKind kind)
{
	return kind == WEIR_VERDICT_BACKFILL && judgement->input->migration != NULL ? WEIR_VERDICT_CONVERT : kind;
}

/* One that counts for the whole; the first that needs the source is what a refused reuse names. */
static void
decide(Judgement *judgement, const char *name, WeirVerdictKind kind, char *reason, char *detail)
{
	WeirVerdict *verdict = judgement->verdict;

	kind = with_migration(judgement, kind);
	weir_verdict_add(verdict, pstrdup(name), kind, reason, detail);
	verdict->kind = Max(verdict->kind, kind);
	if (kind == WEIR_VERDICT_BACKFILL && verdict->obstacle == NULL)
		verdict->obstacle = reason;
}

static void
decide_objection(Judgement *judgement, const char *name, const WeirObjection *objection)
{
	decide(judgement, name, WEIR_VERDICT_REFUSE, pstrdup(objection->message),
		   weir_verdict_json("sqlstate", unpack_sql_state(objection->sqlstate),
							 "detail", objection->detail, "hint", objection->hint, NULL));
}

/* ------------------------------------------------------------ rows and groups */

static char *
table_name(Oid table)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table));
}

static void
judge_inputs(Judgement *judgement, const char *aspect)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;
	char	   *detail = weir_verdict_json("from", table_name(previous->source), "to", table_name(next->source),
										   "=append_only", next->append_only ? "true" : "false", NULL);

	if (next->source != previous->source)
		decide(judgement, aspect, WEIR_VERDICT_BACKFILL, pstrdup("it reads another table"), detail);
	else if (next->append_only != previous->append_only)
		decide(judgement, aspect, WEIR_VERDICT_BACKFILL, pstrdup("append_only differs"), detail);
	else
		decide(judgement, aspect, WEIR_VERDICT_IDENTICAL, pstrdup("both read the same table"), detail);
}

static char *
expression_for_people(const WeirDefinition *definition, Node *expression)
{
	return expression ? weir_deparse_for_people(definition->source, expression) : NULL;
}

static void
judge_filter(Judgement *judgement, const char *aspect)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;
	bool		same = equal(next->where, previous->where);

	decide(judgement, aspect, same ? WEIR_VERDICT_IDENTICAL : WEIR_VERDICT_BACKFILL,
		   pstrdup(same ? "both take the same rows" : "its filter differs"),
		   weir_verdict_json("from", expression_for_people(previous, previous->where),
							 "to", expression_for_people(next, next->where), NULL));
}

static bool
same_groups(const WeirDefinition *next, const WeirDefinition *previous)
{
	if (next->nkeys != previous->nkeys)
		return false;
	for (int i = 0; i < next->nkeys; i++)
		if (weir_reuse_find_key(previous, &next->keys[i]) < 0)
			return false;
	return true;
}

static char *
keys_json(const WeirDefinition *definition)
{
	List	   *texts = NIL;

	for (int i = 0; i < definition->nkeys; i++)
		texts = lappend(texts, expression_for_people(definition, definition->keys[i].expr));
	return weir_verdict_json_list(texts);
}

static void
judge_key(Judgement *judgement, const char *aspect)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;
	char	   *detail = weir_verdict_json("=from", keys_json(previous), "=to", keys_json(next), NULL);
	bool		same_order = true;

	if (!same_groups(next, previous))
	{
		decide(judgement, aspect, WEIR_VERDICT_BACKFILL, pstrdup("its keys differ"), detail);
		return;
	}
	for (int i = 0; i < next->nkeys; i++)
		same_order &= weir_reuse_find_key(previous, &next->keys[i]) == i;
	decide(judgement, aspect, same_order ? WEIR_VERDICT_IDENTICAL : WEIR_VERDICT_REUSE,
		   pstrdup(same_order ? "both have the same groups" : "the same groups, with the keys in another order"),
		   detail);
}

/* --------------------------------------------------------------- output columns */

static bool
same_aggregate(const WeirDefinition *a, int index_a, const WeirDefinition *b, int index_b)
{
	const WeirAggregate *x = &a->aggregates[index_a];
	const WeirAggregate *y = &b->aggregates[index_b];

	if (x->kind != y->kind || x->type != y->type)
		return false;
	if (weir_reuse_find_atom(b, &a->atoms[x->atom]) != y->atom)
		return false;
	return (x->count_atom < 0) == (y->count_atom < 0) &&
		(x->count_atom < 0 || weir_reuse_find_atom(b, &a->atoms[x->count_atom]) == y->count_atom);
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
			position = weir_reuse_find_key(same->b, &same->a->keys[position]);
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

/* The key that a column shows, also as a key selected a second time (an expression); -1: none. */
static int
shown_key(const WeirDefinition *definition, const WeirOutput *output)
{
	const Expr *expr = output->expr;

	if (output->kind == WEIR_OUTPUT_KEY)
		return output->index;
	if (output->kind == WEIR_OUTPUT_EXPRESSION && IsA(expr, RelabelType) &&
		((const RelabelType *) expr)->relabelformat == COERCE_IMPLICIT_CAST)
		expr = ((const RelabelType *) expr)->arg;
	if (output->kind == WEIR_OUTPUT_EXPRESSION && IsA(expr, Var) &&
		((const Var *) expr)->varattno <= definition->nkeys)
		return ((const Var *) expr)->varattno - 1;
	return -1;
}

static bool
same_output(const WeirDefinition *a, const WeirOutput *x, const WeirDefinition *b, const WeirOutput *y)
{
	SameExpressionContext same = {a, b, false};
	Node	   *translated;

	if (x->column.type != y->column.type || x->column.typmod != y->column.typmod ||
		x->column.collation != y->column.collation)
		return false;
	if (shown_key(a, x) >= 0 && shown_key(b, y) >= 0)
		return weir_reuse_find_key(b, &a->keys[shown_key(a, x)]) == shown_key(b, y);
	if (x->kind != y->kind)
		return false;
	if (x->kind == WEIR_OUTPUT_AGGREGATE)
		return same_aggregate(a, x->index, b, y->index);
	translated = translate_mutator((Node *) x->expr, &same);
	return !same.differs && equal(translated, y->expr);
}

static const WeirOutput *
find_output(const WeirDefinition *definition, const char *name)
{
	for (int i = 0; i < definition->noutputs; i++)
		if (strcmp(definition->outputs[i].column.name, name) == 0)
			return &definition->outputs[i];
	return NULL;
}

/* Of any name. */
static const WeirOutput *
find_meaning(const WeirDefinition *a, const WeirOutput *output, const WeirDefinition *b)
{
	for (int i = 0; i < b->noutputs; i++)
		if (same_output(a, output, b, &b->outputs[i]))
			return &b->outputs[i];
	return NULL;
}

typedef struct MissingContext
{
	const Judgement *judgement;
	const WeirAtom *missing;
} MissingContext;

static void
look_for_atom(MissingContext *context, int atom)
{
	const WeirAtom *wanted = &context->judgement->next->atoms[atom];

	if (context->missing == NULL && weir_reuse_find_atom(context->judgement->previous, wanted) < 0)
		context->missing = wanted;
}

static void
look_for_aggregate(MissingContext *context, int aggregate)
{
	const WeirAggregate *wanted = &context->judgement->next->aggregates[aggregate];

	look_for_atom(context, wanted->atom);
	if (wanted->count_atom >= 0)
		look_for_atom(context, wanted->count_atom);
}

static bool
missing_walker(Node *node, void *arg)
{
	MissingContext *context = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		int			aggregate = ((Var *) node)->varattno - context->judgement->next->nkeys - 1;

		if (aggregate >= 0)
			look_for_aggregate(context, aggregate);
		return false;
	}
	return expression_tree_walker(node, missing_walker, arg);
}

/* What the column is made of and the old version does not keep, or NULL. */
static const WeirAtom *
missing_atom(const Judgement *judgement, const WeirOutput *output)
{
	MissingContext context = {judgement, NULL};

	if (output->kind == WEIR_OUTPUT_AGGREGATE)
		look_for_aggregate(&context, output->index);
	else if (output->kind == WEIR_OUTPUT_EXPRESSION)
		missing_walker((Node *) output->expr, &context);
	return context.missing;
}

static const WeirObjection *
find_objection(const Judgement *judgement, const char *column)
{
	ListCell   *lc;

	foreach(lc, judgement->input->objections)
	{
		const WeirObjection *objection = lfirst(lc);

		if (objection->column != NULL && strcmp(objection->column, column) == 0)
			return objection;
	}
	return NULL;
}

static char *
output_aspect(const char *name)
{
	return psprintf("output \"%s\"", name);
}

/* How a column of the new definition comes about that does not mean what the old one of its name does. */
static char *
describe_output(const Judgement *judgement, const WeirOutput *output, const WeirOutput *by_name,
				const WeirAtom *missing)
{
	const WeirOutput *meaning = find_meaning(judgement->next, output, judgement->previous);
	StringInfoData reason;

	initStringInfo(&reason);
	if (by_name != NULL && !same_output(judgement->next, output, judgement->previous, by_name))
		appendStringInfo(&reason, "other expression: %s instead of %s", output->sql, by_name->sql);
	else if (by_name == NULL && meaning != NULL && find_output(judgement->next, meaning->column.name) != NULL)
		appendStringInfo(&reason, "new column, the same as \"%s\"", meaning->column.name);
	else if (by_name == NULL && meaning != NULL)
		appendStringInfo(&reason, "renamed from \"%s\"", meaning->column.name);
	else if (by_name == NULL)
		appendStringInfoString(&reason, "new column");
	if (missing != NULL)
		appendStringInfo(&reason, "%sneeds %s, which is not kept", reason.len > 0 ? ", " : "",
						 weir_reuse_atom_text(judgement->next, missing));
	if (judgement->elsewhere != NULL)
		appendStringInfo(&reason, "%s%s", reason.len > 0 ? ", " : "", judgement->elsewhere);
	return reason.data;
}

static void
judge_output(Judgement *judgement, const WeirOutput *output)
{
	WeirVerdict *verdict = judgement->verdict;
	const char *name = output->column.name;
	const WeirObjection *objection = find_objection(judgement, name);
	const WeirOutput *by_name = find_output(judgement->previous, name);
	const WeirAtom *missing = missing_atom(judgement, output);
	bool		same = by_name != NULL && judgement->elsewhere == NULL &&
		same_output(judgement->next, output, judgement->previous, by_name);
	char	   *detail = weir_verdict_json("from", by_name ? by_name->sql : NULL, "to", output->sql,
										   "=compared", same ? "true" : "false", NULL);

	if (same)
		verdict->same_columns = lappend(verdict->same_columns, pstrdup(name));
	else
		verdict->other_columns = lappend(verdict->other_columns, pstrdup(name));
	if (objection != NULL)
		decide_objection(judgement, output_aspect(name), objection);
	else if (same)
		weir_verdict_add(verdict, output_aspect(name), WEIR_VERDICT_IDENTICAL,
						 pstrdup("the same expression over the same rows"), detail);
	else
		weir_verdict_add(verdict, output_aspect(name),
						 missing != NULL || judgement->elsewhere != NULL ?
						 with_migration(judgement, WEIR_VERDICT_BACKFILL) : WEIR_VERDICT_REUSE,
						 describe_output(judgement, output, by_name, missing), detail);
}

/* Columns never decide about the strategy: what they are made of does. */
static void
judge_outputs(Judgement *judgement, const char *aspect)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;

	for (int i = 0; i < next->noutputs; i++)
		judge_output(judgement, &next->outputs[i]);
	for (int i = 0; i < previous->noutputs; i++)
	{
		const WeirOutput *gone = &previous->outputs[i];
		const WeirOutput *meaning = find_meaning(previous, gone, next);

		if (find_output(next, gone->column.name) != NULL || find_objection(judgement, gone->column.name) != NULL)
			continue;
		decide(judgement, output_aspect(gone->column.name), WEIR_VERDICT_REUSE,
			   meaning ? psprintf("renamed to \"%s\": the view keeps the column, with NULL", meaning->column.name) :
			   pstrdup("gone: the view keeps the column, with NULL"),
			   weir_verdict_json("from", gone->sql, "to", NULL, "=compared", "false", NULL));
	}
}

/* -------------------------------------------------------- state and functions */

static void
judge_hidden_state(Judgement *judgement, const char *aspect)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;
	const char **names = judgement->input->migration != NULL ? weir_migration_names(next) : NULL;

	for (int i = 0; i < next->natoms; i++)
	{
		char	   *call = weir_reuse_atom_text(next, &next->atoms[i]);
		bool		kept = weir_reuse_find_atom(previous, &next->atoms[i]) >= 0;
		const char *column = names != NULL ? names[next->atoms[i].first_column] : NULL;

		if (column != NULL)
			decide(judgement, psprintf("%s %s", aspect, call), WEIR_VERDICT_CONVERT,
				   psprintf("given by column \"%s\" of the migration", column),
				   weir_verdict_json("column", column, NULL));
		else
			decide(judgement, psprintf("%s %s", aspect, call),
				   kept ? WEIR_VERDICT_IDENTICAL : WEIR_VERDICT_BACKFILL,
				   kept ? pstrdup("both keep it") : psprintf("the old version keeps nothing for %s", call), "{}");
	}
	for (int i = 0; i < previous->natoms; i++)
		if (weir_reuse_find_atom(next, &previous->atoms[i]) < 0)
			decide(judgement, psprintf("%s %s", aspect, weir_reuse_atom_text(previous, &previous->atoms[i])),
				   WEIR_VERDICT_REUSE, pstrdup("not kept any more"), "{}");
}

static void
judge_functions(Judgement *judgement, const char *aspect)
{
	const char *recorded = judgement->input->serving->fingerprint;
	bool		same = strcmp(recorded, judgement->input->fingerprint) == 0;
	char	   *detail = weir_verdict_json("=changed", weir_verdict_json_list(judgement->changed_functions),
										   "from", recorded, "to", judgement->input->fingerprint, NULL);

	if (judgement->changed_functions != NIL)
		decide(judgement, aspect, WEIR_VERDICT_BACKFILL,
			   psprintf("function %s has another body than its state was computed with",
						(char *) linitial(judgement->changed_functions)), detail);
	else
		decide(judgement, aspect, same ? WEIR_VERDICT_IDENTICAL : WEIR_VERDICT_REUSE,
			   pstrdup(same ? "the same functions with the same bodies" : "other functions; those in common have the same bodies"),
			   detail);
}

/* What the source no longer holds, a backfill cannot bring back; what was never counted, it adds. */
static void
judge_retention(Judgement *judgement, const char *aspect)
{
	WeirVerdict *verdict = judgement->verdict;
	char	   *detail = weir_verdict_json("=covers_source", judgement->input->covers_source ? "true" : "false",
										   "=append_only", judgement->previous->append_only ? "true" : "false", NULL);

	if (verdict->obstacle == NULL)
		weir_verdict_add(verdict, pstrdup(aspect), WEIR_VERDICT_IDENTICAL,
						 pstrdup("the old state is taken over with all that it holds"), detail);
	else if (!judgement->input->covers_source)
	{
		WeirObjection *objection = palloc0(sizeof(WeirObjection));

		objection->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		objection->message = pstrdup("strategy must be chosen: the operator started without the rows that were there");
		objection->detail = psprintf("Its state cannot be reused: %s. A backfill would add those rows.", verdict->obstacle);
		objection->hint = pstrdup("strategy => 'backfill' to add them, or strategy => 'fresh' to start from now.");
		verdict->retention = objection;
		weir_verdict_add(verdict, pstrdup(aspect), WEIR_VERDICT_REFUSE, objection->message,
						 weir_verdict_json("sqlstate", unpack_sql_state(objection->sqlstate), "detail", objection->detail,
										   "hint", objection->hint, "=covers_source", "false", NULL));
	}
	else if (judgement->previous->append_only)
		weir_verdict_add(verdict, pstrdup(aspect), WEIR_VERDICT_BACKFILL,
						 pstrdup("append-only: rows that were counted and have left the table since, as with a dropped partition, would not be counted again"),
						 detail);
	else
		weir_verdict_add(verdict, pstrdup(aspect), WEIR_VERDICT_BACKFILL,
						 pstrdup("the table holds all rows that were counted"), detail);
}

/* ---------------------------------------------------------------------- rules */

static const struct
{
	const char *aspect;
	void		(*judge) (Judgement *judgement, const char *aspect);
}			rules[] = {
	{"inputs", judge_inputs},
	{"filter", judge_filter},
	{"key", judge_key},
	{"output", judge_outputs},
	{"hidden state", judge_hidden_state},
	{"functions called", judge_functions},
	{"retention", judge_retention},
};

static void
prepare(Judgement *judgement)
{
	const WeirDefinition *next = judgement->next;
	const WeirDefinition *previous = judgement->previous;
	const char *recorded = judgement->input->serving->fingerprint;

	/* As the new version will record them, and those that only the old one calls, as they are now. */
	judgement->changed_functions =
		list_concat(weir_fingerprint_changed(recorded, judgement->input->fingerprint),
					weir_fingerprint_changed(recorded,
											 weir_functions_fingerprint(list_difference_oid(previous->functions,
																							next->functions))));
	if (next->source != previous->source || next->append_only != previous->append_only ||
		!equal(next->where, previous->where))
		judgement->elsewhere = "over other rows";
	else if (!same_groups(next, previous))
		judgement->elsewhere = "over other groups";
	else if (judgement->changed_functions != NIL)
		judgement->elsewhere = "with a function whose body has changed";
	judgement->verdict->same_groups = same_groups(next, previous) && next->source == previous->source &&
		equal(next->where, previous->where);
}

WeirVerdict *
weir_verdict_judge(const WeirVerdictInput *input)
{
	WeirVerdict *verdict = palloc0(sizeof(WeirVerdict));
	Judgement	judgement = {input, input->next, input->previous, verdict};
	ListCell   *lc;
	ListCell   *name;

	forboth(lc, input->objections, name, input->objection_aspects)
	{
		const WeirObjection *objection = lfirst(lc);

		/* Those about a column of the new definition come with it. */
		if (input->next == NULL || objection->column == NULL ||
			find_output(input->next, objection->column) == NULL)
			decide_objection(&judgement, objection->column ? output_aspect(objection->column) : lfirst(name), objection);
	}
	if (input->next == NULL)
		return verdict;
	verdict->converts = input->migration != NULL;
	if (input->previous == NULL)
	{
		verdict->kind = WEIR_VERDICT_BACKFILL;
		verdict->obstacle = pstrdup("it is a rebuild or repair");
		return verdict;
	}
	prepare(&judgement);
	for (int i = 0; i < lengthof(rules); i++)
		rules[i].judge(&judgement, rules[i].aspect);
	return verdict;
}

const char *
weir_verdict_choose(const WeirVerdict *verdict, const char *asked)
{
	if (verdict->converts)
		return "convert";
	if (strcmp(asked, "backfill") == 0 || strcmp(asked, "fresh") == 0)
		return asked;
	if (verdict->obstacle == NULL)
		return "reuse";
	if (strcmp(asked, "reuse") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state of the old version cannot be reused: %s", verdict->obstacle),
				 errhint("strategy => 'backfill', or leave it at its default 'auto'.")));
	if (verdict->retention != NULL)
		weir_definition_raise(list_make1(verdict->retention));
	return "backfill";
}
