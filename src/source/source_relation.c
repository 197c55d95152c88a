/*
 * source_relation.c - which relation feeds which followed table, and how.
 *
 * Owns the map from the relation a change names (a table or a leaf partition)
 * to the followed tables it belongs to, with the relation's attribute for
 * each projected column.  Runs in reader processes, inside the transaction
 * that the reorder buffer opens for a replayed transaction, where catalogs
 * are seen as they were when the change was made.  Memory only: rebuilt from
 * those catalogs at any time.
 *
 * A leaf's columns are found by name, since leaves may order them otherwise
 * and carry dropped ones.  The names are the root's own as of the change, so
 * a column that was renamed since is still found.
 *
 * Does not read rows.
 */
#include "weir.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "source/source_internal.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "weir_compat.h"

/*
 * Relations nobody follows are remembered too, so that their changes cost one
 * look-up.  Above this many the map starts afresh: relations may come and go
 * for months.
 */
#define MAX_REMEMBERED_RELATIONS	8192

struct WeirRelationMap
{
	MemoryContext context;		/* the map itself */
	MemoryContext contents;		/* everything in it: reset as a whole */
	HTAB	   *relations;
	uint64		generation;
	WeirRelation *last;			/* most changes concern the relation of the change before */
	/* Own copy: the caller's may be freed and another list put in its place. */
	int			ntables;
	WeirFollowedTable *tables;
};

static void
forget_everything(WeirRelationMap *map)
{
	HASHCTL		control = {0};

	MemoryContextReset(map->contents);
	map->last = NULL;
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(WeirRelation);
	control.hcxt = map->contents;
	map->relations = hash_create("pg_weir relations", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

WeirRelationMap *
weir_relation_map_create(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "pg_weir relation map", ALLOCSET_DEFAULT_SIZES);
	WeirRelationMap *map = MemoryContextAllocZero(context, sizeof(WeirRelationMap));

	map->context = context;
	map->contents = AllocSetContextCreate(context, "pg_weir relations", ALLOCSET_DEFAULT_SIZES);
	map->generation = 1;
	forget_everything(map);
	return map;
}

static bool
same_table(const WeirFollowedTable *a, const WeirFollowedTable *b)
{
	if (a->relid != b->relid || a->ncolumns != b->ncolumns)
		return false;
	for (int i = 0; i < a->ncolumns; i++)
	{
		if (a->attnums[i] != b->attnums[i] ||
			TupleDescAttr(a->desc, i)->atttypid != TupleDescAttr(b->desc, i)->atttypid)
			return false;
	}
	return true;
}

static bool
follows_same_tables(const WeirRelationMap *map, const WeirBatch *batch)
{
	if (map->ntables != batch->ntables)
		return false;
	for (int i = 0; i < map->ntables; i++)
	{
		if (!same_table(&map->tables[i], batch->tables[i].table))
			return false;
	}
	return true;
}

/*
 * Compares contents instead of remembering the list: a new one may well be
 * allocated where the old one was.
 */
void
weir_relation_map_follow(WeirRelationMap *map, WeirBatch *batch)
{
	MemoryContext caller_context;

	if (follows_same_tables(map, batch))
	{
		if (hash_get_num_entries(map->relations) > MAX_REMEMBERED_RELATIONS)
			forget_everything(map);
		return;
	}

	forget_everything(map);
	for (int i = 0; i < map->ntables; i++)
	{
		pfree(map->tables[i].attnums);
		FreeTupleDesc(map->tables[i].desc);
	}
	if (map->tables != NULL)
		pfree(map->tables);
	map->ntables = 0;

	caller_context = MemoryContextSwitchTo(map->context);
	map->tables = palloc0(Max(batch->ntables, 1) * sizeof(WeirFollowedTable));
	for (; map->ntables < batch->ntables; map->ntables++)
	{
		const WeirFollowedTable *from = batch->tables[map->ntables].table;
		WeirFollowedTable *to = &map->tables[map->ntables];

		*to = *from;
		to->attnums = palloc(Max(from->ncolumns, 1) * sizeof(AttrNumber));
		for (int i = 0; i < from->ncolumns; i++)
			to->attnums[i] = from->attnums[i];
		to->desc = CreateTupleDescCopy(from->desc);
	}
	MemoryContextSwitchTo(caller_context);
}

int
weir_relation_map_max_columns(WeirRelationMap *map)
{
	int			columns = 0;

	for (int i = 0; i < map->ntables; i++)
		columns = Max(columns, map->tables[i].ncolumns);
	return columns;
}

/*
 * Called from inside catalog look-ups: frees nothing, the entry is filled
 * again when it is next found.
 */
void
weir_relation_map_forget(WeirRelationMap *map, Oid relid)
{
	WeirRelation *entry;

	if (!OidIsValid(relid))
	{
		map->generation++;
		return;
	}
	entry = hash_search(map->relations, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		entry->generation = 0;
}

char *
weir_decoded_relation_name(Relation relation)
{
	const char *schema = get_namespace_name(RelationGetNamespace(relation));

	/* The name came from catalogs as of the decoder's position. */
	weir_source_distrust_caches();
	return quote_qualified_identifier(schema, RelationGetRelationName(relation));
}

static AttrNumber
attnum_by_name(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->attnum;
	}
	return InvalidAttrNumber;
}

/* The relation's attribute for a column of the root; Invalid if it has none. */
static AttrNumber
attnum_for_column(TupleDesc desc, TupleDesc root_desc, AttrNumber root_attnum)
{
	Form_pg_attribute attribute;

	if (root_attnum > root_desc->natts)
		return InvalidAttrNumber;
	attribute = TupleDescAttr(root_desc, root_attnum - 1);
	if (attribute->attisdropped)
		return InvalidAttrNumber;
	return desc == root_desc ? root_attnum : attnum_by_name(desc, NameStr(attribute->attname));
}

/* Fills the target's attributes, or says which column stands against it. */
static void
map_columns(WeirTarget *target, const WeirFollowedTable *table, Relation relation, Relation root)
{
	TupleDesc	desc = RelationGetDescr(relation);

	target->attnums = palloc(Max(table->ncolumns, 1) * sizeof(AttrNumber));
	for (int i = 0; i < table->ncolumns; i++)
	{
		Form_pg_attribute expected = TupleDescAttr(table->desc, i);
		AttrNumber	attnum = attnum_for_column(desc, RelationGetDescr(root), table->attnums[i]);
		Form_pg_attribute found;

		if (attnum == InvalidAttrNumber)
		{
			target->objection = psprintf("column \"%s\" of %s did not exist when a row was changed",
										 NameStr(expected->attname), weir_decoded_relation_name(relation));
			target->objection_detail = pstrdup("It was added later than the change being read, or has been dropped since.");
			return;
		}
		found = TupleDescAttr(desc, attnum - 1);
		if (found->atttypid != expected->atttypid)
		{
			target->objection = psprintf("column \"%s\" of %s had another type when a row was changed",
										 NameStr(expected->attname), weir_decoded_relation_name(relation));
			target->objection_detail = psprintf("It was %s then, and %s is expected.",
												format_type_be(found->atttypid),
												format_type_be(expected->atttypid));
			return;
		}
		if (weir_compat_column_is_virtual(found))
		{
			target->objection = psprintf("column \"%s\" of %s is not stored",
										 NameStr(expected->attname), weir_decoded_relation_name(relation));
			target->objection_detail = pstrdup("Changes do not contain the values of virtual generated columns.");
			return;
		}
		target->attnums[i] = attnum;
		target->last_attnum = Max(target->last_attnum, attnum);
		if (expected->attlen == -1)
			target->has_varlena = true;
	}
}

/* Fills a target whose relation is a partition of the table, however deep. */
static void
map_partition(WeirTarget *target, const WeirFollowedTable *table, Relation relation)
{
	Relation	root = RelationIdGetRelation(table->relid);

	if (!RelationIsValid(root))
		elog(ERROR, "could not open partitioned table %u of partition %u",
			 table->relid, RelationGetRelid(relation));
	target->is_partition = true;
	map_columns(target, table, relation, root);
	RelationClose(root);
}

/*
 * Resolves a relation.  The catalog look-ups may deliver news of the present;
 * those cannot change what catalogs looked like in the past, so the result is
 * valid although weir_relation_map_forget may have run meanwhile.
 */
static void
fill_entry(WeirRelationMap *map, WeirRelation *entry, Relation relation)
{
	List	   *ancestors = NIL;
	MemoryContext caller_context;
	uint64		generation;

	entry->ntargets = 0;
	entry->slot = NULL;
	if (entry->context != NULL)
		MemoryContextReset(entry->context);

	if (relation->rd_rel->relispartition)
		ancestors = get_partition_ancestors(entry->relid);

	for (int i = 0; i < map->ntables; i++)
	{
		Oid			relid = map->tables[i].relid;
		WeirTarget *target;

		if (relid != entry->relid && !list_member_oid(ancestors, relid))
			continue;
		if (entry->context == NULL)
			entry->context = AllocSetContextCreate(map->contents, "pg_weir relation", ALLOCSET_SMALL_SIZES);
		caller_context = MemoryContextSwitchTo(entry->context);
		if (entry->ntargets == 0)
			entry->targets = palloc0(map->ntables * sizeof(WeirTarget));
		target = &entry->targets[entry->ntargets];
		target->table = i;
		if (relid == entry->relid)
			map_columns(target, &map->tables[i], relation, relation);
		else
			map_partition(target, &map->tables[i], relation);
		entry->ntargets++;
		MemoryContextSwitchTo(caller_context);
	}

	/* Last, because the look-ups above may have rebuilt the relation's descriptor in place. */
	generation = map->generation;
	if (entry->ntargets > 0)
	{
		caller_context = MemoryContextSwitchTo(entry->context);
		entry->slot = MakeSingleTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(relation)),
											   &TTSOpsHeapTuple);
		MemoryContextSwitchTo(caller_context);
	}
	entry->generation = generation;
}

WeirRelation *
weir_relation_map_find(WeirRelationMap *map, Relation relation)
{
	Oid			relid = RelationGetRelid(relation);
	WeirRelation *entry = map->last;
	bool		found;

	if (entry != NULL && entry->relid == relid && entry->generation == map->generation)
		return entry;

	entry = hash_search(map->relations, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->generation = 0;
		entry->context = NULL;
	}
	if (entry->generation != map->generation)
	{
		map->last = NULL;
		fill_entry(map, entry, relation);
	}
	map->last = entry;
	return entry;
}
