/*
 * loaded_version.h - one version as a worker holds it: definition and state.
 */
#ifndef WEIR_LOADED_VERSION_H
#define WEIR_LOADED_VERSION_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "operator/definition.h"
#include "operator/state_table.h"

/* Everything below lives in context, a child of the one given to load. */
typedef struct WeirLoadedVersion
{
	MemoryContext context;
	int64		operator_id;
	int			version;
	char	   *operator_name;	/* for messages */
	char	   *operator_reference; /* for hints */
	Oid			owner;
	WeirDefinition *definition;
	char	   *fingerprint;	/* of the functions that its state was computed with */
	uint64		functions_seen; /* changes of functions, when they were last found to be those */
	bool		rights_known;	/* that the owner had the rights it needs ... */
	uint64		rights_seen;	/* ... after this many changes of rights */
	TupleDesc	columns;		/* the columns it needs, as they were named at load */
	WeirState  *state;
	WeirVersionStat current;	/* of the transaction under way */
	WeirVersionStat pending;	/* committed, not yet in version_stat */
	bool		stat_written;	/* the transaction under way wrote pending */
} WeirLoadedVersion;

/*
 * Reads the version's definition view, takes its query apart again and opens
 * its state. In a transaction with SPI connected. On failure raises WE004
 * (definition gone, a called function changed, no longer supported).
 */
extern WeirLoadedVersion *weir_version_load(MemoryContext parent, int64 operator_id, int version);
/* False when a column was renamed since: texts and names no longer fit those of a fresh load. */
extern bool weir_version_is_current(const WeirLoadedVersion *version);
/*
 * WE004 when the body of a function has changed since load. Called after the
 * functions: then it is about the bodies that were used.
 */
extern void weir_version_check_functions(WeirLoadedVersion *version);
/* 42501 when the owner may no longer read what the definition reads, all of it, or call what it calls. Cheap while no right changes. */
extern void weir_version_check_rights(WeirLoadedVersion *version);
/* That a body has changed as an answer, for a moment without changes; fills in why the version must stop. */
extern bool weir_version_functions_changed(WeirLoadedVersion *version, WeirStop *stop);
extern void weir_version_unload(WeirLoadedVersion *version);

/* Analysed definition of a version, in CurrentMemoryContext. */
extern WeirDefinition *weir_version_definition(const WeirVersion *version);
/* The Query of a definition view; WE004 when the view is gone. */
extern Query *weir_version_query(Oid definition_view);

#endif							/* WEIR_LOADED_VERSION_H */
