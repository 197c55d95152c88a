/*
 * operator_remove.h - the end of an operator in the catalogs.
 */
#ifndef WEIR_OPERATOR_REMOVE_H
#define WEIR_OPERATOR_REMOVE_H

#include "weir.h"
#include "catalog/operator_catalog.h"

/*
 * Marks operator and versions as gone and ends its upgrade; the view is the
 * caller's. Relations and slots follow in the coordinator, so nothing is
 * locked that a reader needs. Under the operator's row lock.
 */
extern void weir_operator_remove(const WeirOperator *operator, Oid actor, const char *reason);

#endif							/* WEIR_OPERATOR_REMOVE_H */
