/*
 * version_create.h - making and removing a version's relations.
 */
#ifndef WEIR_VERSION_CREATE_H
#define WEIR_VERSION_CREATE_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "operator/definition.h"

typedef struct WeirVersionRequest
{
	int64		operator_id;
	const char *operator_name;
	int			version;
	bool		is_verification;
	const char *text;			/* as the user wrote it */
	Query	   *query;
	const WeirDefinition *definition;
	const char *fingerprint;	/* that the strategy was chosen by; NULL: of the functions as they are now */
	const char *strategy;
	int			build_from;
	const char *migration;		/* convert: as the user wrote it, and analysed; else NULL */
	Query	   *migration_query;
	Oid			owner;			/* may read the state, through the view */
} WeirVersionRequest;

/*
 * In the catalog scope (as the extension's owner): definition view, state
 * tables without indexes and empty, grants, catalog row. The caller's
 * transaction decides. Result in CurrentMemoryContext.
 */
extern WeirVersion *weir_version_create(const WeirVersionRequest *request);

/*
 * Drops a retired version's relations; its row stays for inspection (a
 * throwaway's goes too). False: somebody still reads them, try again.
 */
extern bool weir_version_try_drop(int64 operator_id, int version);

#endif							/* WEIR_VERSION_CREATE_H */
