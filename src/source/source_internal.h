/*
 * source_internal.h - what the files of the local source share.
 *
 * source_local.c reads WAL, source_change.c turns changes into rows of a
 * batch, source_relation.c knows which relation feeds which followed table,
 * weir_slot.c handles slots.  Nobody else includes this.
 */
#ifndef WEIR_SOURCE_INTERNAL_H
#define WEIR_SOURCE_INTERNAL_H

#include "weir.h"

#include "executor/tuptable.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "source/batch.h"
#include "source/source_local.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* ---- source_relation.c ---- */

/* One followed table that the changes of a relation belong to. */
typedef struct WeirTarget
{
	int			table;			/* index into the batch's tables */
	bool		is_partition;	/* the relation is a partition of the table, not the table itself */
	AttrNumber *attnums;		/* of the relation, one per projected column */
	AttrNumber	last_attnum;	/* the highest of them: rows are taken apart no further */
	bool		has_varlena;	/* some projected column may be toasted */
	char	   *objection;		/* NULL: the columns fit; else why rows cannot be represented */
	char	   *objection_detail;
} WeirTarget;

typedef struct WeirRelation
{
	Oid			relid;			/* hash key */
	uint64		generation;		/* valid while equal to the map's */
	MemoryContext context;		/* what follows; NULL while nobody follows the relation */
	int			ntargets;
	WeirTarget *targets;
	TupleTableSlot *slot;		/* has the relation's descriptor as of the decoder's position */
} WeirRelation;

typedef struct WeirRelationMap WeirRelationMap;

extern WeirRelationMap *weir_relation_map_create(MemoryContext parent);
/* From now on the targets are the batch's tables; forgets all relations if those are others than before. */
extern void weir_relation_map_follow(WeirRelationMap *map, WeirBatch *batch);
/* Only in a decoding callback.  The result is good until the next call. */
extern WeirRelation *weir_relation_map_find(WeirRelationMap *map, Relation relation);
/* The relation (InvalidOid: any of them) may have changed.  Callable at any time. */
extern void weir_relation_map_forget(WeirRelationMap *map, Oid relid);
extern int	weir_relation_map_max_columns(WeirRelationMap *map);
/* Schema-qualified and quoted, as of the decoder's position. */
extern char *weir_decoded_relation_name(Relation relation);

/* ---- source_local.c ---- */

struct WeirSource
{
	MemoryContext context;		/* this struct and all below; as long as the source is open */
	MemoryContext change_context;	/* reset after each change */
	LogicalDecodingContext *decoding;
	XLogRecPtr	start_lsn;
	XLogRecPtr	diverged_until; /* before it, catalogs as of the decoder and as of now may differ */
	WeirRelationMap *relations;

	/* Set while weir_source_read runs. */
	WeirBatch  *batch;
	bool		transaction_collected;	/* the transaction being replayed concerns a followed table */
	/* A projected new row and old row; as many elements as the widest followed table. */
	int			row_size;
	Datum	   *new_values;
	bool	   *new_isnull;
	Datum	   *old_values;
	bool	   *old_isnull;
};

/* Catalog entries may have been read as of the decoder's position: drop them before anybody else looks. */
extern void weir_source_distrust_caches(void);

/* ---- source_change.c ---- */

/* Makes the decoding context call us instead of the slot's plugin. */
extern void weir_change_install(WeirSource *source);
/* Points the callbacks at a batch; NULL: no batch. */
extern void weir_change_collect_into(WeirSource *source, WeirBatch *batch);

/* ---- weir_slot.c ---- */

/*
 * The plugin our slots name.  Servers allow only listed plugins, and this one
 * is on every list; what it would do with changes is replaced in process.
 */
#define WEIR_SLOT_PLUGIN	"pgoutput"

#define WEIR_SLOT_LOST_HINT \
	"Run SELECT weir.rebuild_operator('operator'); for the operators that depend on it."

typedef struct WeirSlotState
{
	ReplicationSlotPersistentData data;
	int			active_pid;		/* 0: nobody has it */
} WeirSlotState;

/* False when there is no such slot. */
extern bool weir_slot_read(const char *slot_name, WeirSlotState *state);
/* WE005 unless the slot exists and its WAL does. */
extern void weir_slot_require(const char *slot_name, WeirSlotState *state);
/* Undoes what creating a decoding context outside of a transaction does to this process (see there). */
extern void weir_slot_clear_decoding_flag(void);

#endif							/* WEIR_SOURCE_INTERNAL_H */
