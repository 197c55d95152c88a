/*
 * gates.c - the conditions between the steps of an upgrade: limits as given by
 * the user, and the meaning of measured values.
 *
 * The first half runs in control calls, the second in the coordinator; neither
 * reads a catalog, so that a reading follows from its values alone. Measuring
 * and recording is gate_judge.c.
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "upgrade/gate_query.h"
#include "upgrade/gates.h"
#include "upgrade/verdict.h"

typedef enum GateKind
{
	GATE_DURATION,
	GATE_COUNT,
	GATE_RATIO,
	GATE_QUERIES
} GateKind;

static const struct
{
	const char *name;
	GateKind	kind;
	const char *preset;			/* as jsonb */
	size_t		offset;
}			keys[] = {
	{"max_errors", GATE_COUNT, "0", offsetof(WeirGates, max_errors)},
	{"max_drift_rows", GATE_COUNT, "0", offsetof(WeirGates, max_drift_rows)},
	{"observe", GATE_DURATION, "\"5 s\"", offsetof(WeirGates, observe)},
	{"min_rows", GATE_COUNT, "0", offsetof(WeirGates, min_rows)},
	{"max_lag", GATE_DURATION, "\"30 s\"", offsetof(WeirGates, max_lag)},
	{"max_slowdown", GATE_RATIO, "3.0", offsetof(WeirGates, max_slowdown)},
	{"sql", GATE_QUERIES, "[]", offsetof(WeirGates, sql)},
	{"deadline", GATE_DURATION, "\"1 h\"", offsetof(WeirGates, deadline)},
};

static const char *const wanted_value[] = {
	[GATE_DURATION] = "an interval from 0 on, as a string: \"10 s\"",
	[GATE_COUNT] = "a whole number from 0 on",
	[GATE_RATIO] = "a number above 0",
	[GATE_QUERIES] = "an array of at most 10 queries, as strings",
};

static char *
known_gates(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(keys); i++)
		appendStringInfo(&names, "%s\"%s\"", i == 0 ? "" : ", ", keys[i].name);
	return names.data;
}

/* As interval_in, but for what is no interval: false then, or when it is negative or endless. */
static bool
read_duration(const char *text, int64 *us)
{
	struct pg_itm_in itm = {0};
	char		buffer[256];
	char	   *field[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	int			fields;
	int			kind;
	double		days;
	double		total;

	if (ParseDateTime(text, buffer, sizeof(buffer), field, types, MAXDATEFIELDS, &fields) != 0 ||
		DecodeInterval(field, types, fields, INTERVAL_FULL_RANGE, &kind, &itm) != 0 || kind != DTK_DELTA)
		return false;
	days = itm.tm_mday + 30.0 * (itm.tm_mon + 12.0 * itm.tm_year);
	total = itm.tm_usec + days * (double) USECS_PER_DAY;
	if (total < 0 || total > (double) INT64CONST(1000) * 366 * USECS_PER_DAY)
		return false;
	*us = itm.tm_usec + (int64) days * USECS_PER_DAY;
	return true;
}

static bool
read_queries(const JsonbValue *value, List **queries)
{
	JsonbContainer *array = value->val.binary.data;

	*queries = NIL;
	if (value->type != jbvBinary || !JsonContainerIsArray(array) || JsonContainerSize(array) > WEIR_GATE_QUERIES)
		return false;
	for (uint32 i = 0; i < JsonContainerSize(array); i++)
	{
		JsonbValue *query = getIthJsonbValueFromContainer(array, i);

		if (query->type != jbvString)
			return false;
		*queries = lappend(*queries, pnstrdup(query->val.string.val, query->val.string.len));
	}
	return true;
}

static bool
read_value(GateKind kind, const JsonbValue *value, void *target)
{
	double		number;

	if (kind == GATE_QUERIES)
		return read_queries(value, target);

	if (kind == GATE_DURATION)
		return value->type == jbvString &&
			read_duration(pnstrdup(value->val.string.val, value->val.string.len), target);
	if (value->type != jbvNumeric)
		return false;
	number = strtod(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric))), NULL);
	if (kind == GATE_RATIO)
	{
		*(double *) target = number;
		return number > 0 && !isinf(number);
	}
	/* Beyond 2^53 a float no longer tells whole numbers apart; nobody counts so far. */
	*(int64 *) target = (int64) Min(Max(number, -1.0), 9007199254740992.0);
	return number >= 0 && number <= 9007199254740992.0 && number == floor(number);
}

static char *
value_text(const JsonbValue *value)
{
	StringInfoData text;

	initStringInfo(&text);
	if (value->type == jbvString)
		escape_json(&text, pnstrdup(value->val.string.val, value->val.string.len));
	else if (value->type == jbvBinary)
		return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	else
		appendStringInfoString(&text, DatumGetCString(DirectFunctionCall1(numeric_out,
																		  NumericGetDatum(value->val.numeric))));
	return text.data;
}

static void
refuse_unknown(Jsonb *gates)
{
	JsonbIterator *iterator = JsonbIteratorInit(&gates->root);
	JsonbIteratorToken token;
	JsonbValue	key;

	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		bool		known = token != WJB_KEY;

		for (int i = 0; !known && i < lengthof(keys); i++)
			known = strlen(keys[i].name) == key.val.string.len &&
				strncmp(keys[i].name, key.val.string.val, key.val.string.len) == 0;
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown gate \"%.*s\"", key.val.string.len, key.val.string.val),
					 errhint("Known keys: %s.", known_gates())));
	}
}

static Jsonb *
jsonb_of(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

WeirGates *
weir_gates_parse(Jsonb *gates)
{
	WeirGates  *result = palloc0(sizeof(WeirGates));
	StringInfoData text;

	if (!JB_ROOT_IS_OBJECT(gates))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("gates must be a JSON object"),
				 errhint("Known keys: %s.", known_gates())));
	refuse_unknown(gates);
	initStringInfo(&text);
	for (int i = 0; i < lengthof(keys); i++)
	{
		JsonbValue	buffer;
		JsonbValue *value = getKeyJsonValueFromContainer(&gates->root, keys[i].name, strlen(keys[i].name), &buffer);

		if (value == NULL)
			value = getIthJsonbValueFromContainer(&jsonb_of(psprintf("[%s]", keys[i].preset))->root, 0);
		if (!read_value(keys[i].kind, value, (char *) result + keys[i].offset))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for gate \"%s\"", keys[i].name),
					 errhint("It must be %s.", wanted_value[keys[i].kind])));
		appendStringInfo(&text, "%s\"%s\": %s", i == 0 ? "{" : ", ", keys[i].name, value_text(value));
	}
	appendStringInfoChar(&text, '}');
	result->text = text.data;
	return result;
}

WeirGates *
weir_gates_from_text(const char *text)
{
	return weir_gates_parse(jsonb_of(text));
}

static WeirGateReading *
reading(const char *gate, bool passes, bool fails, char *detail)
{
	WeirGateReading *result = palloc0(sizeof(WeirGateReading));

	result->gate = gate;
	result->outcome = fails ? WEIR_GATE_FAIL : passes ? WEIR_GATE_PASS : WEIR_GATE_WAIT;
	result->detail = detail;
	return result;
}

static char *
int_text(int64 number)
{
	return psprintf(INT64_FORMAT, number);
}

static char *
ms_text(int64 us)
{
	return us < 0 ? NULL : psprintf("%.3f", us / 1000.0);
}

static WeirGateReading *
read_errors(const WeirGates *gates, const WeirGateValues *values)
{
	bool		fails = values->errors > gates->max_errors;
	WeirGateReading *result = reading("max_errors", !fails, fails,
									  weir_verdict_json("=limit", int_text(gates->max_errors),
														"=measured", int_text(values->errors), NULL));

	result->complaint = psprintf("errors: " INT64_FORMAT, values->errors);
	return result;
}

/* A row that has changed counts twice: one of the old version is missing, one of the new is extra. */
static WeirGateReading *
read_drift(const WeirGates *gates, const WeirGateValues *values)
{
	int64		rows = values->drift_missing + values->drift_extra;
	bool		fails = values->drift_known && rows > gates->max_drift_rows;
	bool		passes = values->drift_known && !values->drift_due;
	char	   *detail = weir_verdict_json("=limit", int_text(gates->max_drift_rows),
										   "=measured", values->drift_known ? int_text(rows) : NULL,
										   "=missing", values->drift_known ? int_text(values->drift_missing) : NULL,
										   "=extra", values->drift_known ? int_text(values->drift_extra) : NULL,
										   "lsn", values->drift_known ? psprintf("%X/%X", LSN_FORMAT_ARGS(values->drift_lsn)) : NULL,
										   NULL);
	WeirGateReading *result = reading("max_drift_rows", passes, fails, detail);

	result->complaint = psprintf("drift: " INT64_FORMAT " rows missing, " INT64_FORMAT " rows extra",
								 values->drift_missing, values->drift_extra);
	return result;
}

/*
 * A candidate whose caches are cold is slow at first: judged when it has been
 * observed. Few rows tell nothing, and a quiet table must not stop an upgrade.
 */
static WeirGateReading *
read_slowdown(const WeirGates *gates, const WeirGateValues *values)
{
	bool		tells = values->rows >= WEIR_GATE_SLOWDOWN_ROWS && values->old_rows >= WEIR_GATE_SLOWDOWN_ROWS &&
		values->old_apply_us >= WEIR_GATE_SLOWDOWN_US;
	double		slowdown = tells ? ((double) values->apply_us / values->rows) /
		((double) values->old_apply_us / values->old_rows) : 0;
	bool		passes = slowdown <= gates->max_slowdown;
	char	   *detail = weir_verdict_json("=limit", psprintf("%g", gates->max_slowdown),
										   "=measured", tells ? psprintf("%.2f", slowdown) : NULL,
										   "=rows", int_text(values->rows),
										   "=apply_ms", ms_text(values->apply_us),
										   "=old_apply_ms", ms_text(values->old_apply_us), NULL);
	WeirGateReading *result = reading("max_slowdown", passes, !passes && values->observed_us >= gates->observe, detail);

	result->complaint = psprintf("slowdown: %.2f times the old version's time per row, limit %g",
								 slowdown, gates->max_slowdown);
	return result;
}

static WeirGateReading *
read_answer(int number, const char *query, const WeirGateAnswer *answer)
{
	const char *measured = answer == NULL ? "null" : answer->answer;
	WeirGateReading *result = reading(psprintf("sql %d", number), strcmp(measured, "true") == 0,
									  strcmp(measured, "false") == 0,
									  weir_verdict_json("query", query, "=measured", measured,
														"error", answer == NULL ? "no answer yet" :
														answer->error[0] == '\0' ? NULL : answer->error, NULL));

	result->complaint = psprintf("query %d of gate sql is false", number);
	return result;
}

List *
weir_gates_evaluate(const WeirGates *gates, const WeirGateValues *values)
{
	List	   *readings = NIL;
	ListCell   *lc;

	readings = lappend(readings, read_errors(gates, values));
	readings = lappend(readings, read_drift(gates, values));
	readings = lappend(readings, reading("observe", values->observed_us >= gates->observe, false,
										 weir_verdict_json("=limit_ms", ms_text(gates->observe),
														   "=measured_ms", ms_text(values->observed_us), NULL)));
	readings = lappend(readings, reading("min_rows", values->rows >= gates->min_rows, false,
										 weir_verdict_json("=limit", int_text(gates->min_rows),
														   "=measured", int_text(values->rows), NULL)));
	readings = lappend(readings, reading("max_lag", values->lag_us >= 0 && values->lag_us <= gates->max_lag, false,
										 weir_verdict_json("=limit_ms", ms_text(gates->max_lag),
														   "=measured_ms", ms_text(values->lag_us), NULL)));
	readings = lappend(readings, read_slowdown(gates, values));
	foreach(lc, gates->sql)
	{
		int			index = foreach_current_index(lc);

		readings = lappend(readings, read_answer(index + 1, lfirst(lc), index < list_length(values->answers) ?
												 list_nth(values->answers, index) : NULL));
	}
	return readings;
}

WeirGateOutcome
weir_gates_outcome(List *readings)
{
	WeirGateOutcome outcome = WEIR_GATE_PASS;
	ListCell   *lc;

	foreach(lc, readings)
		outcome = Max(outcome, ((WeirGateReading *) lfirst(lc))->outcome);
	return outcome;
}

const char *
weir_gate_outcome_name(WeirGateOutcome outcome)
{
	static const char *const names[] = {
		[WEIR_GATE_PASS] = "pass",
		[WEIR_GATE_WAIT] = "wait",
		[WEIR_GATE_FAIL] = "fail",
	};

	return names[outcome];
}

char *
weir_gates_json(List *readings)
{
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	foreach(lc, readings)
	{
		const WeirGateReading *entry = lfirst(lc);

		/* The detail is an object of its own: its keys go on in this one. */
		appendStringInfo(&json, "%s{\"gate\": \"%s\", \"outcome\": \"%s\", %s", json.len == 0 ? "[" : ", ",
						 entry->gate, weir_gate_outcome_name(entry->outcome), entry->detail + 1);
	}
	appendStringInfoString(&json, json.len == 0 ? "[]" : "]");
	return json.data;
}

char *
weir_gates_signature(List *readings)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, readings)
	{
		const WeirGateReading *entry = lfirst(lc);

		if (entry->outcome != WEIR_GATE_PASS)
			appendStringInfo(&text, "%s%s %s", text.len ? ", " : "", weir_gate_outcome_name(entry->outcome), entry->gate);
	}
	return text.data;
}

char *
weir_gates_reason(List *readings)
{
	WeirGateOutcome outcome = weir_gates_outcome(readings);
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, readings)
	{
		const WeirGateReading *entry = lfirst(lc);

		if (entry->outcome != outcome || outcome == WEIR_GATE_PASS)
			continue;
		if (outcome == WEIR_GATE_FAIL)
			appendStringInfo(&text, "%s%s", text.len ? "; " : "", entry->complaint);
		else
			appendStringInfo(&text, "%s%s", text.len ? ", " : "waits for gates: ", entry->gate);
	}
	return text.data;
}
