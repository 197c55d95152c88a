/*
 * api_options.h - reading a call's jsonb options: known keys only.
 */
#ifndef WEIR_API_OPTIONS_H
#define WEIR_API_OPTIONS_H

#include "weir.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* What an option's value must be. */
typedef enum WeirOptionType
{
	WEIR_OPTION_BOOLEAN,
	WEIR_OPTION_STRING,
	WEIR_OPTION_STRINGS			/* array of strings */
} WeirOptionType;

typedef struct WeirOptionSpec
{
	const char *name;
	WeirOptionType type;
	const char *values;			/* STRING: allowed ones, comma separated; NULL: any */
} WeirOptionSpec;

/* 22023 for an unknown key or a value of the wrong kind; the hint lists what is known. */
extern void weir_options_check(Jsonb *options, const char *argument, const WeirOptionSpec *specs, int nspecs);
extern bool weir_options_bool(Jsonb *options, const char *name, bool default_value);
extern List *weir_options_strings(Jsonb *options, const char *name);	/* NIL when absent */
extern char *weir_options_string(Jsonb *options, const char *name);	/* NULL when absent */
extern bool weir_options_has(Jsonb *options, const char *name);
extern char *weir_options_text(Jsonb *options);	/* the whole as text */

#endif							/* WEIR_API_OPTIONS_H */
