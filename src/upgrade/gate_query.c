/*
 * gate_query.c - gates that are the user's own queries.
 *
 * Analysed in the call that starts the upgrade, as the caller; run by a
 * gatekeeper, as the operator's owner in the restricted scope that definitions
 * run in, in a transaction that is read-only and cannot be made anything else
 * once it has a snapshot. What such a query calls may do as it likes: it has a
 * process of its own, which is ended when it takes too long.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/ruleutils.h"

#include "operator/definition.h"
#include "operator/owner_scope.h"
#include "upgrade/gate_query.h"

static bool
is_one_boolean(const Query *query)
{
	int			columns = 0;
	bool		is_boolean = true;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		const TargetEntry *entry = lfirst(lc);

		if (entry->resjunk)
			continue;
		columns++;
		is_boolean &= exprType((Node *) entry->expr) == BOOLOID;
	}
	return columns == 1 && is_boolean;
}

static void
refuse(int sqlstate, int number, const char *fact)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("query %d in gate \"sql\" %s", number, fact),
			 errhint("It must be one SELECT that only reads and returns one boolean: true to pass, false to fail, NULL to wait.")));
}

List *
weir_gate_queries_analyse(List *texts)
{
	List	   *queries = NIL;
	ListCell   *lc;

	foreach(lc, texts)
	{
		Query	   *query = weir_definition_parse(lfirst(lc));
		int			number = foreach_current_index(lc) + 1;

		if (query->hasModifyingCTE)
			refuse(ERRCODE_INVALID_OBJECT_DEFINITION, number, "changes rows");
		if (query->rowMarks != NIL)
			refuse(ERRCODE_INVALID_OBJECT_DEFINITION, number, "locks rows");
		if (!is_one_boolean(query))
			refuse(ERRCODE_DATATYPE_MISMATCH, number, "does not return one boolean column");
		queries = lappend(queries, query);
	}
	return queries;
}

List *
weir_gate_queries_deparse(List *queries)
{
	List	   *texts = NIL;
	ListCell   *lc;

	foreach(lc, queries)
		texts = lappend(texts, pg_get_querydef(copyObject(lfirst(lc)), false));
	return texts;
}

const char *
weir_gate_query_run(const char *query, Oid owner)
{
	WeirOwnerScope scope;
	bool		isnull = true;
	bool		answer = false;
	int			rc;

	/* With a snapshot taken nobody can take this back. */
	XactReadOnly = true;
	weir_owner_scope_enter(&scope, owner);
	rc = SPI_execute(query, true, 2);
	weir_owner_scope_leave(&scope);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not ask \"%s\": %s", query, SPI_result_code_string(rc));
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("more than one row was returned by a query of gate \"sql\"")));
	if (SPI_processed == 1)
		answer = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return isnull ? "null" : answer ? "true" : "false";
}
