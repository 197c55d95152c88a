/*
 * definition.h - an operator's SELECT taken apart into what the fold needs.
 *
 * Pure: from an analysed Query to a WeirDefinition, or to a list of all
 * objections at once.  No catalog of pg_weir is read, nothing is written.
 */
#ifndef WEIR_DEFINITION_H
#define WEIR_DEFINITION_H

#include "weir.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "source/batch.h"
#include "weir_compat.h"

typedef struct WeirColumn
{
	char	   *name;
	Oid			type;			/* never a domain: its base type */
	int32		typmod;
	Oid			collation;
} WeirColumn;

/* A GROUP BY expression. Its column in the state table is an output column when it is selected plainly. */
typedef struct WeirKey
{
	WeirColumn	column;			/* name: the output's, or _weir_k<i> when not selected */
	char	   *expr_sql;		/* over the source aliased "t", deparsed fully qualified */
	Node	   *expr;			/* Vars: varno 1 = source */
	int			output;			/* index into outputs, -1 hidden */
} WeirKey;

/* What is kept per key and folded. Atom 0 is always count(*) without filter: the group's rows. */
typedef enum WeirAtomKind
{
	WEIR_ATOM_COUNT,			/* 1 column int8 */
	WEIR_ATOM_SUM,				/* 1 column, or those of WEIR_SUM_SPECIALS, or WEIR_SUM_SCALES too */
	WEIR_ATOM_MIN,				/* 1 column of the argument's type */
	WEIR_ATOM_MAX
} WeirAtomKind;

/* Columns behind that of a sum, if the type has them: number of NaN, +Inf, -Inf (NULL when 0). */
#define WEIR_SUM_SPECIALS 3
/* The one behind those, of numeric of any scale: values by decimal places, see numeric_scale.c (NULL with the sum). */
#define WEIR_SUM_SCALES 4
#define WEIR_ATOM_MAX_COLUMNS 5

typedef struct WeirAtom
{
	WeirAtomKind kind;
	Node	   *arg;			/* NULL: count(*) */
	Node	   *filter;			/* NULL: none */
	char	   *arg_sql;
	char	   *filter_sql;
	Oid			arg_type;
	Oid			arg_collation;
	int			ncolumns;
	int			first_column;	/* index into hidden[] of the definition */
	int			extreme;		/* MIN/MAX of an operator that retracts: index into extremes, else -1 */
} WeirAtom;

typedef enum WeirAggregateKind
{
	WEIR_AGG_COUNT,				/* atom */
	WEIR_AGG_SUM,				/* atom = sum, count_atom: NULL when 0 */
	WEIR_AGG_AVG,				/* atom = sum, count_atom */
	WEIR_AGG_MIN,				/* atom */
	WEIR_AGG_MAX,
	WEIR_AGG_BOOL_AND,			/* atom = count of true, count_atom = count of false */
	WEIR_AGG_BOOL_OR
} WeirAggregateKind;

/* One distinct aggregate call of the definition. */
typedef struct WeirAggregate
{
	WeirAggregateKind kind;
	Oid			type;			/* result type, typmod -1 */
	Oid			collation;
	Oid			arg_type;
	int			atom;
	int			count_atom;		/* -1: not used */
} WeirAggregate;

typedef enum WeirOutputKind
{
	WEIR_OUTPUT_KEY,			/* index into keys; a key selected a second time is an expression */
	WEIR_OUTPUT_AGGREGATE,		/* index into aggregates */
	WEIR_OUTPUT_EXPRESSION		/* expr over a row of (keys..., aggregates...): Vars varno 1, varattno from 1 */
} WeirOutputKind;

typedef struct WeirOutput
{
	WeirColumn	column;
	WeirOutputKind kind;
	int			index;
	Expr	   *expr;
	char	   *sql;			/* as written in the definition, for people */
} WeirOutput;

/*
 * State table columns, in this order: outputs; hidden keys (those with output
 * -1, in key order); hidden[] (the atoms' columns); _weir_shard int4.
 * Unique index on the key columns in key order, NULLS NOT DISTINCT (none when
 * there are no keys: always exactly one row).
 *
 * A delta row (result of delta and build queries): key values in key order,
 * hidden[] values in order, then int4 sign (+1 rows came, -1 rows went).
 * In delta rows a SUM's value is NULL when no row contributed.
 *
 * An extreme's side table is a definition of its own: keys = these keys plus
 * the value (last key), one atom (its row count), no outputs, no extremes.
 */
typedef struct WeirDefinition
{
	Oid			source;			/* table (root, if partitioned) */
	bool		append_only;
	Bitmapset  *source_attnums;	/* attnums used (no offset, only > 0) */
	Node	   *where;			/* implicit AND expression or NULL; varno 1 */
	char	   *where_sql;
	int			nkeys;
	WeirKey    *keys;
	int			natoms;
	WeirAtom   *atoms;
	int			naggregates;
	WeirAggregate *aggregates;
	int			noutputs;
	WeirOutput *outputs;
	int			nhidden;
	WeirColumn *hidden;			/* _weir_n, _weir_s1, ... */
	int			nextremes;
	struct WeirDefinition **extremes;
	List	   *functions;		/* OIDs of all functions called, for the fingerprint */
	uint64		names_seen;		/* name changes that the texts above know of */
} WeirDefinition;

typedef struct WeirObjection
{
	int			sqlstate;
	char	   *message;		/* one lower-case fact */
	char	   *detail;			/* or NULL */
	char	   *hint;			/* or NULL */
	const char *column;			/* output column that it is about, or NULL */
} WeirObjection;

/*
 * Parses and analyses text as the current user with the current search_path.
 * Exactly one SELECT; else 42601 / 42P17 error.  The caller stores the Query
 * in a definition view.
 */
extern Query *weir_definition_parse(const char *text);

/* A text that must be one SELECT: what it is called, and hints for when it is not. */
typedef struct WeirSelectTexts
{
	const char *what;
	const char *example;
	const char *not_select;
	const char *has_into;
} WeirSelectTexts;

/* The same for such a text; first: NULL, or WITH begins with it. */
extern Query *weir_select_parse(const WeirSelectTexts *texts, const char *text, CommonTableExpr *first);

/*
 * Takes an analysed Query apart (fresh from the parser, or get_view_query() of
 * a definition view: extra OLD/NEW range table entries are skipped). Returns
 * NULL when there are objections. Result in CurrentMemoryContext; the Query is
 * not modified and may be freed afterwards.
 */
extern WeirDefinition *weir_definition_analyze(Query *query, bool append_only, List **objections);

/*
 * For creation only, as the current user: rights on columns and functions, row
 * security, replica identity.  Adds to the list.
 */
extern void weir_definition_check_source(const WeirDefinition *def, List **objections);
/* Of these the rights and row security, which may change later. */
extern void weir_definition_check_rights(const WeirDefinition *def, List **objections);
/* Of these the one that is no matter of who asks; for a rebuild, too. */
extern void weir_definition_check_replica_identity(const WeirDefinition *def, List **objections);

/* ereport(ERROR): first objection as the error, the others as detail lines. */
pg_noreturn extern void weir_definition_raise(List *objections);

/* Query texts; names of the two ephemeral relations below. with_minus false: the batch only has new rows. */
#define WEIR_ENR_PLUS	"_weir_plus"
#define WEIR_ENR_MINUS	"_weir_minus"
/* For a batch of this table; ordered by the keys, then sign. */
extern char *weir_definition_delta_sql(const WeirDefinition *def, const WeirFollowedTable *table, bool with_minus);
extern char *weir_definition_build_sql(const WeirDefinition *def);	/* from the table itself */

/*
 * Raises WE004 when an analysed text calls a user's function that neither the
 * definition does nor is among others (OIDs): before it is planned, because
 * planning may already call it.
 */
extern void weir_definition_check_calls(const WeirDefinition *def, List *others, List *queries);

/* Names in the database that have changed so far; texts older than that may not mean what they did. */
extern uint64 weir_definition_name_changes(void);
/* Makes the texts anew if need be; 55P03 when that would have to wait for a lock (definition_names.c). */
extern void weir_definition_refresh_names(WeirDefinition *def);
/* Was it that which raised the error, because the source is locked? */
extern bool weir_definition_source_was_locked(const ErrorData *error);

/* The projection this definition needs, with names as in the catalog now. */
extern WeirFollowedTable *weir_definition_followed_table(const WeirDefinition *def);
/* Union of several definitions' needs on the same tables: List of WeirFollowedTable. */
extern List *weir_definitions_followed_tables(List *definitions);

#endif							/* WEIR_DEFINITION_H */
