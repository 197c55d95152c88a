/*
 * api_result.h - the one row that a control call returns.
 */
#ifndef WEIR_API_RESULT_H
#define WEIR_API_RESULT_H

#include "weir.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

/* A composite of the call's declared result type. */
extern Datum weir_result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);
extern Datum weir_notes_array(List *notes);		/* text[] from a List of char * */

/* 22004 for the first NULL among the arguments but those in "optional" (bit per position). */
extern void weir_refuse_nulls(FunctionCallInfo fcinfo, uint32 optional);

#endif							/* WEIR_API_RESULT_H */
