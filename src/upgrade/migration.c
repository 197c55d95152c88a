/*
 * migration.c - a user's SELECT over "old" that gives a new version's first state.
 *
 * Owns what "old" is and which columns a migration has to give. "old" is the
 * state table of the version that is replaced, without its shard: the output
 * columns under their names, and what is kept beside them (_weir_n, ...). A
 * migration gives the keys of the new version and each value that it keeps,
 * by the name of the output column that shows that value as it is, otherwise
 * by the name of the hidden column. So nothing has to be guessed: what the
 * build writes is what a fold could have left there, and later changes are
 * folded into it exactly. Whether its numbers are right only its author knows.
 *
 * Runs in sessions (parse, check) and in the reader that builds (queries). A
 * migration is kept as a view in weir_state, by OIDs: what its names meant for
 * its author is what runs. A view reads tables with the rights of its owner,
 * the extension's, so that no other table may be in it; functions run with the
 * rights of the operator's owner, whatever they are. Nothing is written here.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "operator/loaded_version.h"
#include "operator/objection.h"
#include "operator/state_layout.h"
#include "upgrade/migration.h"
#include "upgrade/reuse.h"
#include "weir_errors.h"

#define OLD "old"

static const WeirSelectTexts migration_texts = {
	.what = "migration",
	.example = "SELECT k, sum(n)::bigint AS n FROM old GROUP BY k",
	.not_select = "Write what the new groups are, as in: SELECT k, sum(n)::bigint AS n FROM old GROUP BY k",
	.has_into = "Leave INTO out: its rows become the new version's state.",
};

/* ------------------------------------------------------------------ parse */

static char *
state_table_name(Oid state_table)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(state_table)),
									  get_rel_name(state_table));
}

/* old AS (SELECT all but the shard FROM the state table) */
static CommonTableExpr *
old_expression(const WeirDefinition *previous, Oid state_table)
{
	WeirStateLayout *layout = weir_state_layout_create(previous);
	CommonTableExpr *expression = makeNode(CommonTableExpr);
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < layout->natts; i++)
	{
		if (i + 1 == layout->shard)
			continue;
		appendStringInfo(&sql, "%s%s", i == 0 ? "SELECT " : ", ", quote_identifier(layout->columns[i]->name));
	}
	appendStringInfo(&sql, " FROM ONLY %s", state_table_name(state_table));
	expression->ctename = pstrdup(OLD);
	expression->ctequery = linitial_node(RawStmt, raw_parser(sql.data, RAW_PARSE_DEFAULT))->stmt;
	expression->location = -1;
	return expression;
}

Query *
weir_migration_parse(const char *text, const WeirDefinition *previous, Oid state_table)
{
	return weir_select_parse(&migration_texts, text, old_expression(previous, state_table));
}

/* ------------------------------------------------------ what it has to give */

typedef struct WantedColumn
{
	const char *name;
	Oid			type;
	int32		typmod;
	bool		is_optional;	/* a count of values that are not finite: none */
	char	   *meaning;		/* for people */
	char	   *example;		/* how it may be had from "old", or NULL */
} WantedColumn;

typedef struct Wanted
{
	int			count;
	WantedColumn *columns;		/* keys, then hidden columns */
} Wanted;

static const WeirAtom *
atom_of(const WeirDefinition *definition, int hidden)
{
	for (int i = 0; i < definition->natoms; i++)
		if (hidden >= definition->atoms[i].first_column &&
			hidden < definition->atoms[i].first_column + definition->atoms[i].ncolumns)
			return &definition->atoms[i];
	elog(ERROR, "state column %d belongs to no aggregate", hidden);
	return NULL;
}

/* Whether the aggregate's result is what is kept in the atom's first column, bit by bit. */
static bool
shows(const WeirDefinition *definition, const WeirAggregate *aggregate, const WeirAtom *atom)
{
	return &definition->atoms[aggregate->atom] == atom &&
		aggregate->type == definition->hidden[atom->first_column].type &&
		(aggregate->kind == WEIR_AGG_COUNT || aggregate->kind == WEIR_AGG_SUM ||
		 aggregate->kind == WEIR_AGG_MIN || aggregate->kind == WEIR_AGG_MAX);
}

/* The output column that shows a hidden one, or else the hidden one's own name. */
static const char *
name_of_hidden(const WeirDefinition *definition, int hidden)
{
	const WeirAtom *atom = atom_of(definition, hidden);

	for (int i = 0; i < definition->noutputs && hidden == atom->first_column; i++)
	{
		const WeirOutput *output = &definition->outputs[i];

		if (output->kind == WEIR_OUTPUT_AGGREGATE && shows(definition, &definition->aggregates[output->index], atom))
			return output->column.name;
	}
	return definition->hidden[hidden].name;
}

const char **
weir_migration_names(const WeirDefinition *next)
{
	const char **names = palloc(sizeof(char *) * next->nhidden);

	for (int i = 0; i < next->nhidden; i++)
		names[i] = name_of_hidden(next, i);
	return names;
}

/* What the old version keeps for the same aggregate, merged. */
static char *
example_from(const WeirDefinition *previous, const WeirAtom *atom, int offset, Oid type)
{
	int			index = weir_reuse_find_atom(previous, atom);
	const char *merge = atom->kind == WEIR_ATOM_MIN ? "min" : atom->kind == WEIR_ATOM_MAX ? "max" : "sum";

	if (index < 0)
		return NULL;
	/* sum(bigint) is numeric. */
	return psprintf("%s(%s)%s", merge,
					quote_identifier(name_of_hidden(previous, previous->atoms[index].first_column + offset)),
					type == INT8OID && merge[0] == 's' ? "::bigint" : "");
}

static void
want_key(WantedColumn *wanted, const WeirDefinition *next, const WeirDefinition *previous, int index)
{
	const WeirKey *key = &next->keys[index];
	int			same = weir_reuse_find_key(previous, key);

	wanted->name = key->column.name;
	wanted->type = key->column.type;
	wanted->typmod = key->column.typmod;
	wanted->meaning = psprintf("the key %s", weir_deparse_for_people(next->source, key->expr));
	if (same >= 0)
		wanted->example = pstrdup(quote_identifier(previous->keys[same].column.name));
}

static void
want_hidden(WantedColumn *wanted, const WeirDefinition *next, const WeirDefinition *previous, int hidden)
{
	static const char *const parts[WEIR_ATOM_MAX_COLUMNS] = {"", "NaN among the values of ", "infinities among the values of ",
	"negative infinities among the values of ", "1e16 to the power of its decimal places, for each value of "};
	const WeirAtom *atom = atom_of(next, hidden);
	int			offset = hidden - atom->first_column;

	wanted->name = name_of_hidden(next, hidden);
	wanted->type = next->hidden[hidden].type;
	wanted->typmod = -1;
	wanted->is_optional = offset > 0 && offset <= WEIR_SUM_SPECIALS;
	wanted->meaning = psprintf("%s%s", parts[offset], weir_reuse_atom_text(next, atom));
	wanted->example = example_from(previous, atom, offset, wanted->type);
}

static Wanted
wanted_columns(const WeirDefinition *next, const WeirDefinition *previous)
{
	Wanted		wanted;

	wanted.count = next->nkeys + next->nhidden;
	wanted.columns = palloc0(sizeof(WantedColumn) * wanted.count);
	for (int i = 0; i < next->nkeys; i++)
		want_key(&wanted.columns[i], next, previous, i);
	for (int i = 0; i < next->nhidden; i++)
		want_hidden(&wanted.columns[next->nkeys + i], next, previous, i);
	/* Columns of another table are not the same for having the same number. */
	for (int i = 0; i < wanted.count && next->source != previous->source; i++)
		wanted.columns[i].example = NULL;
	return wanted;
}

static WantedColumn *
find_wanted(const Wanted *wanted, const char *name)
{
	for (int i = 0; i < wanted->count; i++)
		if (strcmp(wanted->columns[i].name, name) == 0)
			return &wanted->columns[i];
	return NULL;
}

/* ------------------------------------------------------------------ check */

typedef struct ReadCheck
{
	Oid			state_table;
	List	  **objections;
} ReadCheck;

/* A view's tables are read with the rights of its owner: this is what keeps all others out. */
static bool
read_walker(Node *node, void *context)
{
	ReadCheck  *check = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *entry = (RangeTblEntry *) node;

		if (entry->rtekind == RTE_RELATION && entry->relid != check->state_table)
			weir_objection_add(check->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   psprintf("the migration reads %s", state_table_name(entry->relid)),
							   "Only the old version's state is known as of the position from which the new one goes on.",
							   "Read " OLD " only, and write what else is needed as constants.");
		return false;
	}
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType != CMD_SELECT || query->rowMarks != NIL)
			weir_objection_add(check->objections, ERRCODE_FEATURE_NOT_SUPPORTED,
							   "the migration does more than reading",
							   "It has INSERT, UPDATE, DELETE, MERGE or FOR UPDATE in it.",
							   "Write one SELECT that only reads " OLD ".");
		return query_tree_walker(query, read_walker, context, QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, read_walker, context);
}

static void
check_reads(Query *query, Oid state_table, List **objections)
{
	ReadCheck	check = {state_table, objections};
	ListCell   *lc;

	(void) read_walker((Node *) query, &check);
	foreach(lc, query->cteList)
	{
		CommonTableExpr *expression = lfirst(lc);

		if (strcmp(expression->ctename, OLD) == 0 && expression->cterefcount == 0)
			weir_objection_add(objections, ERRCODE_INVALID_PARAMETER_VALUE,
							   "the migration does not read " OLD, NULL,
							   psprintf("Write it as in: %s", migration_texts.example));
	}
}

/* With whose rights it will run. */
static void
check_calls(Query *query, Oid owner, List **objections)
{
	List	   *functions = NIL;
	ListCell   *lc;

	weir_objection_check_migration_calls(query, &functions, objections);
	foreach(lc, functions)
	{
		const char *role = quote_identifier(GetUserNameFromId(owner, false));

		if (weir_compat_function_aclcheck(lfirst_oid(lc), owner) != ACLCHECK_OK)
			weir_objection_add(objections, ERRCODE_INSUFFICIENT_PRIVILEGE,
							   psprintf("role %s may not execute function %s of the migration", role,
										format_procedure(lfirst_oid(lc))),
							   NULL,
							   psprintf("GRANT EXECUTE ON FUNCTION %s TO %s;",
										format_procedure_qualified(lfirst_oid(lc)), role));
	}
}

static char *
list_names(const Wanted *wanted)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < wanted->count; i++)
		if (!wanted->columns[i].is_optional)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", quote_identifier(wanted->columns[i].name));
	return names.data;
}

/* What a column may be and still be written as it is: of the same type, or a number or text that the server widens by itself. */
static bool
fits(const WantedColumn *wanted, const Expr *expr)
{
	int32		typmod = exprTypmod((Node *) expr);
	Oid			type = getBaseTypeAndTypmod(exprType((Node *) expr), &typmod);

	if (wanted->typmod >= 0 && typmod != wanted->typmod)
		return false;
	if (type == wanted->type)
		return true;
	if (type >= FirstUnpinnedObjectId || wanted->type >= FirstUnpinnedObjectId ||
		TypeCategory(type) != TypeCategory(wanted->type) ||
		(TypeCategory(type) != TYPCATEGORY_NUMERIC && TypeCategory(type) != TYPCATEGORY_STRING))
		return false;
	return can_coerce_type(1, &type, &wanted->type, COERCION_IMPLICIT);
}

static void
check_column(const TargetEntry *entry, const Wanted *wanted, const WeirDefinition *next, List **objections)
{
	const WantedColumn *column = find_wanted(wanted, entry->resname);
	Node	   *expr = (Node *) entry->expr;

	if (column == NULL)
	{
		bool		is_output = false;

		for (int i = 0; i < next->noutputs; i++)
			is_output |= strcmp(next->outputs[i].column.name, entry->resname) == 0;
		weir_objection_add(objections, ERRCODE_UNDEFINED_COLUMN,
						   psprintf("column %s of the migration is not kept by the new version", quote_identifier(entry->resname)),
						   is_output ? "It is computed from what is kept." : NULL,
						   psprintf("Its columns are: %s", list_names(wanted)));
		return;
	}
	if (!fits(column, entry->expr))
		weir_objection_add(objections, ERRCODE_DATATYPE_MISMATCH,
						   psprintf("column %s of the migration is %s, not %s", quote_identifier(column->name),
									format_type_with_typemod(exprType(expr), exprTypmod(expr)),
									format_type_with_typemod(column->type, column->typmod)),
						   psprintf("It is %s.", column->meaning),
						   psprintf("CAST(... AS %s) AS %s", format_type_with_typemod(column->type, column->typmod),
									quote_identifier(column->name)));
	else if (type_is_collatable(exprType(expr)) && !OidIsValid(exprCollation(expr)))
		weir_objection_add(objections, ERRCODE_INDETERMINATE_COLLATION,
						   psprintf("column %s of the migration has no certain collation", quote_identifier(column->name)),
						   NULL, "Choose one: expression COLLATE \"C\".");
}

static int
count_columns(const Query *query, const char *name)
{
	int			count = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		const TargetEntry *entry = lfirst(lc);

		count += !entry->resjunk && strcmp(entry->resname, name) == 0;
	}
	return count;
}

static void
check_missing(const Query *query, const Wanted *wanted, List **objections)
{
	for (int i = 0; i < wanted->count; i++)
	{
		const WantedColumn *column = &wanted->columns[i];

		if (column->is_optional || count_columns(query, column->name) > 0)
			continue;
		weir_objection_add(objections, ERRCODE_UNDEFINED_COLUMN,
						   psprintf("the migration has no column %s", quote_identifier(column->name)),
						   psprintf("It is %s, of type %s.", column->meaning, format_type_with_typemod(column->type, column->typmod)),
						   psprintf("Add it, as in: %s AS %s", column->example ? column->example : "...", quote_identifier(column->name)));
	}
}

static void
check_columns(const Query *query, const WeirDefinition *next, const WeirDefinition *previous, List **objections)
{
	Wanted		wanted = wanted_columns(next, previous);
	ListCell   *lc;

	check_missing(query, &wanted, objections);
	foreach(lc, query->targetList)
	{
		const TargetEntry *entry = lfirst(lc);

		if (entry->resjunk)
			continue;
		if (count_columns(query, entry->resname) > 1)
			weir_objection_add(objections, ERRCODE_DUPLICATE_COLUMN,
							   psprintf("the migration has column %s more than once", quote_identifier(entry->resname)),
							   NULL, "Give each column a name of its own: expression AS name.");
		else
			check_column(entry, &wanted, next, objections);
	}
}

/* min and max of a source that may be updated: which value comes next when the extreme goes. */
static void
check_extremes(const WeirDefinition *next, List **objections)
{
	for (int i = 0; i < next->natoms; i++)
	{
		if (next->atoms[i].extreme < 0)
			continue;
		weir_objection_add(objections, ERRCODE_FEATURE_NOT_SUPPORTED,
						   psprintf("%s cannot be converted", weir_reuse_atom_text(next, &next->atoms[i])),
						   "Rows of its source may go, so that every value is kept with its number of rows; a migration gives one row for each group.",
						   "Leave migration NULL and say strategy => 'backfill', or leave the column out.");
	}
}

void
weir_migration_check(Query *query, const WeirDefinition *next, const WeirDefinition *previous,
					 Oid state_table, Oid owner, List **objections)
{
	check_reads(query, state_table, objections);
	check_calls(query, owner, objections);
	if (next == NULL)
		return;
	check_extremes(next, objections);
	check_columns(query, next, previous, objections);
}

/* ------------------------------------------------------------------ build */

static void
append_column(StringInfo sql, Oid view, const WeirColumn *column, const char *name)
{
	AttrNumber	attnum = get_attnum(view, name);

	if (attnum == InvalidAttrNumber)
		appendStringInfoString(sql, "NULL");
	else
		appendStringInfo(sql, "m.%s", quote_identifier(name));
	if (attnum == InvalidAttrNumber || get_atttype(view, attnum) != column->type)
		appendStringInfo(sql, "::%s", format_type_extended(column->type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	appendStringInfoString(sql, ", ");
}

const char **
weir_migration_queries(const WeirDefinition *next, const WeirVersion *version)
{
	const char **queries = palloc(sizeof(char *));
	const char **names = weir_migration_names(next);
	char	   *view = get_rel_name(version->migration_view);
	StringInfoData sql;

	if (view == NULL)
		ereport(ERROR,
				(errcode(WEIR_ERRCODE_STALE),
				 errmsg("the migration to version %d was dropped", version->version),
				 errdetail("It was dropped together with something that it uses."),
				 errhint("Start the upgrade again.")));
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < next->nkeys; i++)
		append_column(&sql, version->migration_view, &next->keys[i].column, next->keys[i].column.name);
	for (int i = 0; i < next->nhidden; i++)
		append_column(&sql, version->migration_view, &next->hidden[i], names[i]);
	appendStringInfo(&sql, "1 AS sign FROM %s AS m", state_table_name(version->migration_view));
	for (int i = 0; i < next->nkeys; i++)
		appendStringInfo(&sql, "%s%d", i == 0 ? " ORDER BY " : ", ", i + 1);
	queries[0] = sql.data;
	return queries;
}

static bool
add_function(Oid function, void *context)
{
	List	  **functions = context;

	*functions = list_append_unique_oid(*functions, function);
	return false;
}

static bool
function_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, function_walker, context, 0);
	check_functions_in_node(node, add_function, context);
	return expression_tree_walker(node, function_walker, context);
}

List *
weir_migration_functions(const WeirVersion *version)
{
	List	   *functions = NIL;

	(void) function_walker((Node *) weir_version_query(version->migration_view), &functions);
	return functions;
}
