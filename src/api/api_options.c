/*
 * api_options.c - reading a call's jsonb options: known keys only.
 *
 * Runs in the caller's backend, before anything is changed.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "api/api_options.h"

static JsonbValue *
find_value(Jsonb *options, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&options->root, name, strlen(name), value);
}

static char *
known_keys(const WeirOptionSpec *specs, int nspecs)
{
	StringInfoData keys;

	initStringInfo(&keys);
	for (int i = 0; i < nspecs; i++)
		appendStringInfo(&keys, "%s\"%s\"", i == 0 ? "" : ", ", specs[i].name);
	return nspecs == 0 ? "none" : keys.data;
}

static const WeirOptionSpec *
find_spec(const WeirOptionSpec *specs, int nspecs, const char *name)
{
	for (int i = 0; i < nspecs; i++)
		if (strcmp(specs[i].name, name) == 0)
			return &specs[i];
	return NULL;
}

static bool
is_listed(const char *values, const char *value, int length)
{
	const char *start = values;

	while (start != NULL)
	{
		const char *end = strchr(start, ',');
		int			size = end ? end - start : (int) strlen(start);

		if (size == length && strncmp(start, value, size) == 0)
			return true;
		start = end ? end + 1 : NULL;
	}
	return false;
}

static void
check_value(const char *argument, const WeirOptionSpec *spec, JsonbValue *value)
{
	const char *wanted;
	bool		valid;

	switch (spec->type)
	{
		case WEIR_OPTION_BOOLEAN:
			valid = value->type == jbvBool;
			wanted = "true or false";
			break;
		case WEIR_OPTION_STRING:
			valid = value->type == jbvString &&
				(spec->values == NULL || is_listed(spec->values, value->val.string.val, value->val.string.len));
			wanted = spec->values ? psprintf("one of: %s", spec->values) : "a string";
			break;
		default:
			valid = value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
			wanted = "an array of strings";
			break;
	}
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"%s\" in %s", spec->name, argument),
				 errhint("It must be %s.", wanted)));
}

void
weir_options_check(Jsonb *options, const char *argument, const WeirOptionSpec *specs, int nspecs)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", argument),
				 errhint("Known keys: %s.", known_keys(specs, nspecs))));
	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		char	   *name;
		const WeirOptionSpec *spec;
		JsonbValue	value;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(key.val.string.val, key.val.string.len);
		spec = find_spec(specs, nspecs, name);
		if (spec == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown key \"%s\" in %s", name, argument),
					 errhint("Known keys: %s.", known_keys(specs, nspecs))));
		check_value(argument, spec, find_value(options, name, &value));
	}
}

bool
weir_options_has(Jsonb *options, const char *name)
{
	JsonbValue	value;

	return find_value(options, name, &value) != NULL;
}

bool
weir_options_bool(Jsonb *options, const char *name, bool default_value)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(options, name, &buffer);

	return value == NULL ? default_value : value->val.boolean;
}

char *
weir_options_string(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(options, name, &buffer);

	return value == NULL ? NULL : pnstrdup(value->val.string.val, value->val.string.len);
}

List *
weir_options_strings(Jsonb *options, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = find_value(options, name, &buffer);
	List	   *strings = NIL;

	if (value == NULL)
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(value->val.binary.data); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(value->val.binary.data, i);

		if (element->type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("element %u of \"%s\" is not a string", i + 1, name),
					 errhint("It must be an array of strings.")));
		strings = lappend(strings, pnstrdup(element->val.string.val, element->val.string.len));
	}
	return strings;
}

char *
weir_options_text(Jsonb *options)
{
	return JsonbToCString(NULL, &options->root, VARSIZE(options));
}
