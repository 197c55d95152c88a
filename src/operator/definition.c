/*
 * definition.c - an operator's SELECT, from text to a WeirDefinition.
 *
 * Pure: reads core's catalogs, writes nothing, keeps nothing.  Runs in the
 * session that creates or explains a definition, and in readers that load a
 * version (as the bootstrap user, which is why nothing here asks for rights).
 * Locks: AccessShareLock on the source, kept to the end of the transaction.
 * First everything is checked, then, if nothing speaks against it, built; so
 * the building half may rely on what the objection_*.c files refuse.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "rewrite/rewriteManip.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "operator/objection.h"

/* ------------------------------------------------------------------ parse */

/* Positions that the parser reports are in the definition, not in the statement that carries it. */
static void
parse_error_callback(void *text)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(text);
	}
}

static const WeirSelectTexts definition_texts = {
	.what = "definition",
	.example = "SELECT k, count(*) FROM s.t GROUP BY k",
	.not_select = "Write what the operator computes, as in: SELECT k, sum(v) FROM s.t GROUP BY k",
	.has_into = "Leave INTO out: the operator has a table of its own.",
};

static RawStmt *
parse_select(const WeirSelectTexts *texts, const char *text)
{
	List	   *statements = raw_parser(text, RAW_PARSE_DEFAULT);
	RawStmt    *statement;
	SelectStmt *leftmost;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a %s is one statement, not %d", texts->what, list_length(statements)),
				 errhint("Write one SELECT, as in: %s", texts->example)));
	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a %s is a SELECT, not %s", texts->what, CreateCommandName(statement->stmt)),
				 errhint("%s", texts->not_select)));
	leftmost = castNode(SelectStmt, statement->stmt);
	while (leftmost->larg != NULL)
		leftmost = leftmost->larg;
	if (leftmost->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a %s has no INTO", texts->what),
				 errhint("%s", texts->has_into)));
	return statement;
}

static void
put_in_front(SelectStmt *select, CommonTableExpr *first)
{
	if (select->withClause == NULL)
	{
		select->withClause = makeNode(WithClause);
		select->withClause->location = -1;
	}
	select->withClause->ctes = lcons(first, select->withClause->ctes);
}

/* Needs an active snapshot. */
Query *
weir_select_parse(const WeirSelectTexts *texts, const char *text, CommonTableExpr *first)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = parse_error_callback,
		.arg = unconstify(char *, text),
	};
	RawStmt    *statement;
	Query	   *query;

	error_context_stack = &callback;
	statement = parse_select(texts, text);
	if (first != NULL)
		put_in_front(castNode(SelectStmt, statement->stmt), first);
	query = parse_analyze_fixedparams(statement, text, NULL, 0, NULL);
	error_context_stack = callback.previous;
	return query;
}

Query *
weir_definition_parse(const char *text)
{
	return weir_select_parse(&definition_texts, text, NULL);
}

/* ------------------------------------------------------------------ build */

static bool
count_aggregates_walker(Node *node, void *count)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
		++*(int *) count;
	return expression_tree_walker(node, count_aggregates_walker, count);
}

/*
 * State columns are of base types: a constraint that is added to a domain
 * later must not stop rows which the source has accepted.
 */
static void
describe_column(WeirColumn *column, char *name, Node *expr)
{
	column->name = name;
	column->typmod = exprTypmod(expr);
	column->type = getBaseTypeAndTypmod(exprType(expr), &column->typmod);
	column->collation = exprCollation(expr);
}

static void
build_keys(WeirDefinition *def, Query *query)
{
	ListCell   *lc;

	def->nkeys = 0;
	def->keys = palloc0(sizeof(WeirKey) * Max(list_length(query->groupClause), 1));
	foreach(lc, query->groupClause)
	{
		WeirKey    *key = &def->keys[def->nkeys++];

		key->expr = get_sortgroupclause_expr(lfirst(lc), query->targetList);
		key->expr_sql = weir_deparse(def->source, key->expr);
		key->output = -1;
		describe_column(&key->column, psprintf("_weir_k%d", def->nkeys), key->expr);
	}
}

/* A column of the row (keys..., aggregates...), typed as what it stands for. */
static Node *
row_column(int attno, Oid stored_type, int32 typmod, Oid collation, Oid type, int32 typmod_wanted)
{
	Node	   *var = (Node *) makeVar(1, attno, stored_type, typmod, collation, 0);

	if (stored_type == type)
		return var;
	return (Node *) makeRelabelType((Expr *) var, type, typmod_wanted, collation, COERCE_IMPLICIT_CAST);
}

/* Rewrites an output expression over the source to one over the row (keys..., aggregates...). */
static Node *
over_row_mutator(Node *node, void *context)
{
	WeirDefinition *def = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
	{
		int			index = weir_aggregate_add(def, (Aggref *) node);
		const WeirAggregate *aggregate = &def->aggregates[index];

		return row_column(def->nkeys + index + 1, aggregate->type, -1, aggregate->collation, aggregate->type, -1);
	}
	/* Top-down: a key may contain what is another key, as in GROUP BY a, a + b. */
	for (int i = 0; i < def->nkeys; i++)
	{
		const WeirKey *key = &def->keys[i];

		if (equal(node, key->expr))
			return row_column(i + 1, key->column.type, key->column.typmod, key->column.collation,
							  exprType(node), exprTypmod(node));
	}
	if (IsA(node, Var))
		elog(ERROR, "column %d of the source is not grouped", ((Var *) node)->varattno);
	return expression_tree_mutator(node, over_row_mutator, context);
}

static void
build_output(WeirDefinition *def, TargetEntry *entry)
{
	WeirOutput *output = &def->outputs[def->noutputs];

	describe_column(&output->column, entry->resname, (Node *) entry->expr);
	output->sql = weir_deparse_for_people(def->source, (Node *) entry->expr);
	if (IsA(entry->expr, Aggref))
	{
		output->kind = WEIR_OUTPUT_AGGREGATE;
		output->index = weir_aggregate_add(def, (Aggref *) entry->expr);
		def->noutputs++;
		return;
	}
	for (int i = 0; i < def->nkeys; i++)
	{
		/* Selected a second time it is an expression, so that a key is stored in one column. */
		if (def->keys[i].output < 0 && equal(entry->expr, def->keys[i].expr))
		{
			output->kind = WEIR_OUTPUT_KEY;
			output->index = i;
			def->keys[i].output = def->noutputs++;
			def->keys[i].column.name = output->column.name;
			return;
		}
	}
	output->kind = WEIR_OUTPUT_EXPRESSION;
	output->index = -1;
	output->expr = (Expr *) over_row_mutator((Node *) entry->expr, def);
	def->noutputs++;
}

static void
build_outputs(WeirDefinition *def, Query *query)
{
	int			ncalls = 0;
	ListCell   *lc;

	count_aggregates_walker((Node *) query->targetList, &ncalls);
	/* At most two atoms for each call, and the group's rows. */
	def->atoms = palloc0(sizeof(WeirAtom) * (2 * ncalls + 1));
	def->aggregates = palloc0(sizeof(WeirAggregate) * (ncalls + 1));
	def->extremes = palloc0(sizeof(WeirDefinition *) * (ncalls + 1));
	def->outputs = palloc0(sizeof(WeirOutput) * list_length(query->targetList));
	weir_atom_add(def, WEIR_ATOM_COUNT, NULL, NULL);
	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst(lc);

		if (!entry->resjunk)
			build_output(def, entry);
	}
	weir_atoms_lay_out(def);
}

static void
add_columns(Bitmapset **columns, Node *expr)
{
	Bitmapset  *members = NULL;
	int			member = -1;

	pull_varattnos(expr, 1, &members);
	while ((member = bms_next_member(members, member)) >= 0)
		*columns = bms_add_member(*columns, member + FirstLowInvalidHeapAttributeNumber);
	bms_free(members);
}

/*
 * Rows whose value is kept: where AND filter AND arg IS NOT NULL.  The planner
 * may evaluate conditions in another order, but arg must not be computed for
 * a row that the others exclude (1 / x WHERE x <> 0): CASE keeps the order.
 */
static Node *
rows_with_value(Node *where, Node *filter, Node *arg)
{
	NullTest   *present = makeNode(NullTest);
	Node	   *condition = make_and_qual(where, filter);
	CaseWhen   *when;
	CaseExpr   *guarded;

	present->arg = (Expr *) arg;
	present->nulltesttype = IS_NOT_NULL;
	present->location = -1;
	if (condition == NULL || IsA(arg, Var))
		return make_and_qual(condition, (Node *) present);
	when = makeNode(CaseWhen);
	when->expr = (Expr *) condition;
	when->result = (Expr *) present;
	when->location = -1;
	guarded = makeNode(CaseExpr);
	guarded->casetype = BOOLOID;
	guarded->args = list_make1(when);
	guarded->defresult = (Expr *) makeBoolConst(false, false);
	guarded->location = -1;
	return (Node *) guarded;
}

WeirDefinition *
weir_extreme_definition(const WeirDefinition *def, Node *arg, Node *filter)
{
	WeirDefinition *extreme = palloc0(sizeof(WeirDefinition));
	WeirKey    *value;

	extreme->names_seen = def->names_seen;
	extreme->source = def->source;
	extreme->append_only = def->append_only;
	extreme->functions = def->functions;
	extreme->where = rows_with_value(def->where, filter, arg);
	extreme->where_sql = weir_deparse(def->source, extreme->where);
	extreme->nkeys = def->nkeys + 1;
	extreme->keys = palloc0(sizeof(WeirKey) * extreme->nkeys);
	for (int i = 0; i < def->nkeys; i++)
	{
		extreme->keys[i] = def->keys[i];
		extreme->keys[i].output = -1;
		extreme->keys[i].column.name = psprintf("_weir_k%d", i + 1);
		add_columns(&extreme->source_attnums, extreme->keys[i].expr);
	}
	value = &extreme->keys[def->nkeys];
	value->expr = arg;
	value->expr_sql = weir_deparse(def->source, arg);
	value->output = -1;
	describe_column(&value->column, psprintf("_weir_k%d", extreme->nkeys), arg);
	/* arg is a part of where. */
	add_columns(&extreme->source_attnums, extreme->where);
	extreme->atoms = palloc0(sizeof(WeirAtom));
	weir_atom_add(extreme, WEIR_ATOM_COUNT, NULL, NULL);
	weir_atoms_lay_out(extreme);
	return extreme;
}

/* Limits that are known only now. */
static void
check_sizes(const WeirDefinition *def, List **objections)
{
	int			ncolumns = def->noutputs + def->nhidden + 1;	/* and _weir_shard */
	int			max_keys = INDEX_MAX_KEYS - (def->nextremes > 0 ? 1 : 0);

	for (int i = 0; i < def->nkeys; i++)
		ncolumns += def->keys[i].output < 0 ? 1 : 0;
	if (ncolumns > MaxHeapAttributeNumber)
		weir_objection_add(objections, ERRCODE_TOO_MANY_COLUMNS,
						   psprintf("the state would have %d columns", ncolumns),
						   psprintf("A table can have %d; %d of them would be output columns.",
									MaxHeapAttributeNumber, def->noutputs),
						   "Distribute the columns over several operators.");
	if (def->nkeys > max_keys)
		weir_objection_add(objections, ERRCODE_TOO_MANY_COLUMNS,
						   psprintf("GROUP BY has %d expressions", def->nkeys),
						   psprintf("An index can have %d columns%s.", INDEX_MAX_KEYS,
									def->nextremes > 0 ? ", one of which is the value of min and max" : ""),
						   "Group by fewer expressions, for instance by ROW(a, b)::some_type.");
}

/* query: our own copy, Vars of the source with varno 1. */
static WeirDefinition *
build_definition(Query *query, Oid source, bool append_only, List *functions)
{
	WeirDefinition *def = palloc0(sizeof(WeirDefinition));
	int			nest_level = weir_deparse_begin();

	def->names_seen = weir_definition_name_changes();
	def->source = source;
	def->append_only = append_only;
	def->functions = functions;
	def->where = query->jointree->quals;
	if (def->where != NULL)
		def->where_sql = weir_deparse(source, def->where);
	add_columns(&def->source_attnums, def->where);
	add_columns(&def->source_attnums, (Node *) query->targetList);
	build_keys(def, query);
	build_outputs(def, query);
	weir_deparse_end(nest_level);
	return def;
}

WeirDefinition *
weir_definition_analyze(Query *query, bool append_only, List **objections)
{
	List	   *functions = NIL;
	Index		rtindex;
	Oid			source;
	WeirDefinition *def;

	*objections = NIL;
	query = copyObject(query);
	query->targetList = (List *) weir_compat_flatten_group_exprs(query, (Node *) query->targetList);

	source = weir_objection_check_from(query, &rtindex, objections);
	weir_objection_check_clauses(query, objections);
	weir_objection_check_calls(query, &functions, objections);
	weir_objection_check_outputs(query, objections);
	if (*objections != NIL)
		return NULL;

	if (rtindex != 1)
	{
		ChangeVarNodes((Node *) query->targetList, rtindex, 1, 0);
		ChangeVarNodes(query->jointree->quals, rtindex, 1, 0);
	}
	def = build_definition(query, source, append_only, functions);
	check_sizes(def, objections);
	return *objections == NIL ? def : NULL;
}

/* --------------------------------------------------------- followed tables */

/*
 * By way of the catalog caches, without a lock on the table: readers come here
 * for all their tables whenever their set changes, and a lock that somebody
 * holds on one (VACUUM FULL, an open ALTER TABLE) would stop the whole stream.
 */
static WeirFollowedTable *
follow(Oid source, const Bitmapset *attnums, bool append_only)
{
	WeirFollowedTable *table = palloc0(sizeof(WeirFollowedTable));
	int			attnum = -1;

	table->relid = source;
	table->append_only = append_only;
	table->attnums = palloc(sizeof(AttrNumber) * Max(bms_num_members(attnums), 1));
	table->desc = CreateTemplateTupleDesc(bms_num_members(attnums));
	while ((attnum = bms_next_member(attnums, attnum)) >= 0)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(source), Int16GetDatum(attnum));
		Form_pg_attribute form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for attribute %d of relation %u", attnum, source);
		form = (Form_pg_attribute) GETSTRUCT(tuple);
		table->attnums[table->ncolumns++] = attnum;
		TupleDescInitEntry(table->desc, table->ncolumns, NameStr(form->attname), form->atttypid,
						   form->atttypmod, form->attndims);
		TupleDescInitEntryCollation(table->desc, table->ncolumns, form->attcollation);
		ReleaseSysCache(tuple);
	}
	return table;
}

WeirFollowedTable *
weir_definition_followed_table(const WeirDefinition *def)
{
	return follow(def->source, def->source_attnums, def->append_only);
}

List *
weir_definitions_followed_tables(List *definitions)
{
	List	   *sources = NIL;
	List	   *tables = NIL;
	ListCell   *source;
	ListCell   *lc;

	foreach(lc, definitions)
		sources = list_append_unique_oid(sources, ((WeirDefinition *) lfirst(lc))->source);
	foreach(source, sources)
	{
		Bitmapset  *attnums = NULL;
		bool		append_only = true;

		foreach(lc, definitions)
		{
			const WeirDefinition *def = lfirst(lc);

			if (def->source != lfirst_oid(source))
				continue;
			attnums = bms_add_members(attnums, def->source_attnums);
			append_only = append_only && def->append_only;
		}
		tables = lappend(tables, follow(lfirst_oid(source), attnums, append_only));
		bms_free(attnums);
	}
	list_free(sources);
	return tables;
}
