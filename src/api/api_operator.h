/*
 * api_operator.h - what control calls share: begin, end, and a checked definition.
 */
#ifndef WEIR_API_OPERATOR_H
#define WEIR_API_OPERATOR_H

#include "weir.h"
#include "catalog/catalog_query.h"
#include "catalog/operator_catalog.h"
#include "catalog/version_catalog.h"
#include "fmgr.h"
#include "operator/definition.h"

/*
 * For a call whose first argument is the operator: refuses NULL arguments (but
 * those in "optional", see weir_refuse_nulls), checks the caller's right, locks the operator's row, reads it anew. Leaves the
 * catalog scope entered.
 */
extern WeirOperator *weir_operator_begin_control(WeirCatalogScope *scope, FunctionCallInfo fcinfo,
												 uint32 optional);
/* Leaves the scope; the coordinator looks when the caller commits. */
extern void weir_operator_end_control(WeirCatalogScope *scope);

/* 55006 when an upgrade of it is under way. */
extern void weir_operator_refuse_if_upgrading(const WeirOperator *operator);
/* The same as an answer; NULL: none is. */
extern WeirObjection *weir_operator_upgrading_objection(const WeirOperator *operator);

/*
 * What speaks against an upgrade of the operator, whatever the definition
 * (api_check_upgrade.c). NULL: nothing does.
 */
extern WeirObjection *weir_operator_foreign_objection(const WeirOperator *operator, Oid caller);
extern WeirObjection *weir_operator_not_live_objection(const WeirOperator *operator, const WeirVersionRun *run);

/* The same, of the operator's service-level objectives (api_objective.c). */
extern WeirObjection *weir_operator_objective_objection(const WeirOperator *operator);

/* With the caller's own rights and search_path: parsed, analysed, source checked; all objections raised at once. */
extern WeirDefinition *weir_definition_for_call(const char *text, bool append_only, Query **query);

extern int	weir_stream_by_name(const char *name);	/* 42704 when it does not exist */

#endif							/* WEIR_API_OPERATOR_H */
