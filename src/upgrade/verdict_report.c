/*
 * verdict_report.c - a verdict's rows, and those about the whole: strategy and cost.
 *
 * Runs in sessions. Costs are estimates from the server's statistics of the
 * old state and the source; nothing is planned, for planning may call a user's
 * functions already, and nothing is counted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "catalog/catalog_query.h"
#include "upgrade/verdict.h"

static const char *const verdict_names[] = {
	[WEIR_VERDICT_IDENTICAL] = "identical",
	[WEIR_VERDICT_REUSE] = "reuse",
	[WEIR_VERDICT_CONVERT] = "convert",
	[WEIR_VERDICT_BACKFILL] = "backfill",
	[WEIR_VERDICT_REFUSE] = "refuse",
};

const char *
weir_verdict_name(WeirVerdictKind kind)
{
	return verdict_names[kind];
}

char *
weir_verdict_json(const char *name,...)
{
	StringInfoData json;
	va_list		args;

	initStringInfo(&json);
	va_start(args, name);
	for (; name != NULL; name = va_arg(args, const char *))
	{
		const char *text = va_arg(args, const char *);

		appendStringInfoString(&json, json.len == 0 ? "{" : ", ");
		escape_json(&json, name[0] == '=' ? name + 1 : name);
		appendStringInfoString(&json, ": ");
		if (text == NULL || name[0] == '=')
			appendStringInfoString(&json, text ? text : "null");
		else
			escape_json(&json, text);
	}
	va_end(args);
	appendStringInfoChar(&json, '}');
	return json.data;
}

char *
weir_verdict_json_list(List *texts)
{
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	foreach(lc, texts)
	{
		if (lc != list_head(texts))
			appendStringInfoString(&json, ", ");
		escape_json(&json, lfirst(lc));
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

void
weir_verdict_add(WeirVerdict *verdict, char *name, WeirVerdictKind kind, char *reason, char *detail)
{
	WeirAspect *aspect = palloc(sizeof(WeirAspect));

	aspect->name = name;
	aspect->kind = kind;
	aspect->reason = reason;
	aspect->detail = detail;
	verdict->aspects = lappend(verdict->aspects, aspect);
}

char *
weir_verdict_summary(const WeirVerdict *verdict)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int kind = 0; kind < lengthof(verdict_names); kind++)
	{
		int			count = 0;
		ListCell   *lc;

		foreach(lc, verdict->aspects)
			count += ((WeirAspect *) lfirst(lc))->kind == (WeirVerdictKind) kind;
		if (count > 0)
			appendStringInfo(&json, "%s\"%s\": %d", json.len == 0 ? "{" : ", ", verdict_names[kind], count);
	}
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	return json.data;
}

typedef struct Extent
{
	int64		rows;			/* -1: the server does not know */
	int64		bytes;
} Extent;

/* With the partitions of what is partitioned. */
static Extent
size_of(const Oid *tables, int count)
{
	Extent		size;

	weir_query(NULL,
			   "SELECT CASE WHEN min(x.rows) < 0 THEN -1 ELSE sum(x.rows) END::bigint, sum(x.bytes)::bigint "
			   "FROM pg_catalog.unnest($1) t (relid) "
			   "LEFT JOIN LATERAL pg_catalog.pg_partition_tree(t.relid) p ON p.isleaf CROSS JOIN LATERAL ("
			   "SELECT CASE WHEN pg_catalog.pg_relation_size(c.oid) = 0 THEN 0 "
			   "WHEN pg_catalog.pg_stat_get_live_tuples(c.oid) > 0 THEN pg_catalog.pg_stat_get_live_tuples(c.oid) "
			   "WHEN c.reltuples > 0 THEN c.reltuples ELSE -1 END AS rows, "
			   "pg_catalog.pg_total_relation_size(c.oid) AS bytes "
			   "FROM pg_catalog.pg_class c WHERE c.oid = coalesce(p.relid, t.relid)) x",
			   "D", weir_oid_array(tables, count), OIDARRAYOID);
	size.rows = weir_result_int64(0, 1);
	size.bytes = weir_result_int64(0, 2);
	return size;
}

static char *
number_json(int64 number)
{
	return number < 0 ? NULL : psprintf(INT64_FORMAT, number);
}

static char *
rows_for_people(Extent size)
{
	return size.rows < 0 ? pstrdup("an unknown number of") : psprintf(INT64_FORMAT, size.rows);
}

static Extent
old_state_size(const WeirVersion *serving)
{
	Extent		state = size_of(&serving->state_table, 1);

	if (serving->nextremes > 0)
		state.bytes += size_of(serving->extreme_tables, serving->nextremes).bytes;
	return state;
}

static void
add_strategy(WeirVerdict *verdict, const WeirVerdictInput *input, WeirVerdictKind kind, const char *asked,
			 const char *chosen)
{
	/* Rows that started from something else cannot agree. */
	bool		compares = chosen != NULL && strcmp(chosen, "fresh") != 0 &&
		(input->covers_source || strcmp(chosen, "backfill") != 0);
	char	   *detail = weir_verdict_json("strategy", chosen, "asked", asked,
										   "=compare", weir_verdict_json_list(compares ? verdict->same_columns : NIL),
										   "=not_compared", weir_verdict_json_list(verdict->other_columns), NULL);
	char	   *reason;
	int			objections = 0;
	ListCell   *lc;

	foreach(lc, verdict->aspects)
		objections += ((WeirAspect *) lfirst(lc))->kind == WEIR_VERDICT_REFUSE;
	if (chosen == NULL)
		reason = psprintf("%d objection%s to be met first", objections, objections == 1 ? " is" : "s are");
	else if (strcmp(asked, "auto") != 0)
		reason = psprintf("%s was asked for", chosen);
	else if (verdict->converts)
		reason = pstrdup("convert: the new state is what the migration makes of the old one, the table is not read");
	else if (verdict->obstacle == NULL)
		reason = pstrdup("reuse: the new state is derived from the old one, the table is not read");
	else
		reason = psprintf("backfill: the new state is computed from the table, because %s", verdict->obstacle);
	weir_verdict_add(verdict, pstrdup("strategy"), kind, reason, detail);
}

static void
add_build(WeirVerdict *verdict, const WeirVerdictInput *input, WeirVerdictKind kind, const char *chosen)
{
	Extent		state = old_state_size(input->serving);
	Extent		source = size_of(&input->next->source, 1);
	bool		reads_source = strcmp(chosen, "backfill") == 0;
	Extent		build = {0, 0};

	/* A migration mostly keeps groups or merges them. */
	if (!reads_source || verdict->same_groups)
		build = state;
	else
	{
		build.rows = source.rows;
		build.bytes = state.rows > 0 && source.rows >= 0 ?
			(int64) ((double) state.bytes / state.rows * source.rows) : source.bytes;
	}
	if (strcmp(chosen, "fresh") == 0)
		build = (Extent) {0, 0};
	weir_verdict_add(verdict, pstrdup("rows and bytes to build"), kind,
					 psprintf("estimate: %s%s rows in " INT64_FORMAT " bytes are written, %s rows in " INT64_FORMAT " bytes are read",
							  verdict->same_groups || (!reads_source && !verdict->converts) ? "" : "at most ", rows_for_people(build), build.bytes,
							  rows_for_people(reads_source ? source : build), reads_source ? source.bytes : build.bytes),
					 weir_verdict_json("=estimate", "true", "=rows", number_json(build.rows), "=bytes", number_json(build.bytes),
									   "=rows_read", number_json(reads_source ? source.rows : build.rows),
									   "=bytes_read", number_json(reads_source ? source.bytes : build.bytes), NULL));
	if (input->previous == NULL)
	{
		weir_verdict_add(verdict, pstrdup("rollback"), kind,
						 pstrdup("none: what it replaces does not follow the stream, so it is finalized as soon as it serves"), "{}");
		return;
	}
	weir_verdict_add(verdict, pstrdup("rollback"), kind,
					 psprintf("one transaction; until it is finalized both versions are applied and the old state keeps " INT64_FORMAT " bytes",
							  state.bytes),
					 weir_verdict_json("standby", "hot", "=transactions", "1", "=versions_applied", "2",
									   "=estimate", "true", "=bytes_kept", number_json(state.bytes), NULL));
}

void
weir_verdict_add_cost(WeirVerdict *verdict, const WeirVerdictInput *input, const char *asked, const char *chosen)
{
	WeirVerdictKind kind = chosen == NULL ? WEIR_VERDICT_REFUSE :
		strcmp(chosen, "reuse") == 0 ? Max(verdict->kind, WEIR_VERDICT_REUSE) :
		strcmp(chosen, "convert") == 0 ? WEIR_VERDICT_CONVERT : WEIR_VERDICT_BACKFILL;

	add_strategy(verdict, input, kind, asked, chosen);
	if (chosen != NULL)
		add_build(verdict, input, kind, chosen);
}
