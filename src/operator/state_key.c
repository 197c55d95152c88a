/*
 * state_key.c - what it means for two keys to be equal; hash and shard.
 *
 * Runs in readers.  The type's own equality (default btree operator class)
 * under the column's collation decides, as it does in GROUP BY and in the
 * unique index: -0.0 and 0.0 are one key, so are 1.0 and 1.00.  Hashes only
 * route: to a shard, or to a cached tuple id that is checked again.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "operator/state_key.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#define KEY_TEXT_MAX_BYTES	64

WeirStateKey *
weir_state_key_create(const WeirDefinition *def)
{
	WeirStateKey *key = palloc0(offsetof(WeirStateKey, columns) +
								sizeof(WeirStateKeyColumn) * def->nkeys);

	key->ncolumns = def->nkeys;
	key->hashable = true;
	for (int i = 0; i < def->nkeys; i++)
	{
		const WeirColumn *source = &def->keys[i].column;
		WeirStateKeyColumn *column = &key->columns[i];
		TypeCacheEntry *type = lookup_type_cache(source->type,
												 TYPECACHE_EQ_OPR_FINFO |
												 TYPECACHE_HASH_EXTENDED_PROC_FINFO);

		if (!OidIsValid(type->eq_opr_finfo.fn_oid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("type %s of key \"%s\" has no equality operator",
							format_type_be(source->type), source->name)));
		column->type = source->type;
		column->collation = source->collation;
		column->by_value = type->typbyval;
		fmgr_info_copy(&column->equal, &type->eq_opr_finfo, CurrentMemoryContext);
		column->has_hash = OidIsValid(type->hash_extended_proc_finfo.fn_oid);
		if (column->has_hash)
			fmgr_info_copy(&column->hash, &type->hash_extended_proc_finfo, CurrentMemoryContext);
		else
			key->hashable = false;
	}
	return key;
}

bool
weir_state_key_equal(WeirStateKey *key, const WeirRow *a, const WeirRow *b)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		WeirStateKeyColumn *column = &key->columns[i];

		if (a->isnull[i] || b->isnull[i])
		{
			if (a->isnull[i] != b->isnull[i])
				return false;
			continue;
		}
		/* Same bits are equal in every type; other bits may be (-0.0 and 0.0). */
		if (column->by_value && a->values[i] == b->values[i])
			continue;
		if (!DatumGetBool(FunctionCall2Coll(&column->equal, column->collation,
											a->values[i], b->values[i])))
			return false;
	}
	return true;
}

/* A type without a hash function, and a NULL, count as 0. */
uint64
weir_state_key_hash(WeirStateKey *key, const WeirRow *row)
{
	uint64		hash = 0;

	for (int i = 0; i < key->ncolumns; i++)
	{
		WeirStateKeyColumn *column = &key->columns[i];
		uint64		part = 0;

		if (column->has_hash && !row->isnull[i])
			part = DatumGetUInt64(FunctionCall2Coll(&column->hash, column->collation,
													row->values[i], Int64GetDatum(0)));
		hash = hash_combine64(hash, part);
	}
	return hash;
}

int32
weir_state_key_shard(const WeirStateKey *key, uint64 hash)
{
	return key->ncolumns == 0 ? 0 : (int32) (hash % WEIR_SHARDS);
}

char *
weir_state_key_text(const WeirStateKey *key, const WeirRow *row)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoChar(&text, '(');
	for (int i = 0; i < key->ncolumns; i++)
	{
		Oid			output;
		bool		is_varlena;
		char	   *value;
		int			length;

		if (i > 0)
			appendStringInfoString(&text, ", ");
		if (row->isnull[i])
		{
			appendStringInfoString(&text, "null");
			continue;
		}
		getTypeOutputInfo(key->columns[i].type, &output, &is_varlena);
		value = OidOutputFunctionCall(output, row->values[i]);
		length = strlen(value);
		if (length <= KEY_TEXT_MAX_BYTES)
			appendStringInfoString(&text, value);
		else
		{
			appendBinaryStringInfo(&text, value, pg_mbcliplen(value, length, KEY_TEXT_MAX_BYTES));
			appendStringInfoString(&text, "...");
		}
	}
	appendStringInfoChar(&text, ')');
	return text.data;
}
