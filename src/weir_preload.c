/*
 * weir_preload.c - the refusal of everything that needs the workers when the
 * library is not in shared_preload_libraries, and the line that mends it.
 *
 * Runs in sessions that loaded the library by calling one of its functions.
 */
#include "weir.h"
#include "weir_preload.h"
#include "weir_shmem.h"

#include "catalog/pg_authid.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#define LIBRARY "pg_weir"

/* The setting is hidden from users without this role, and error texts must not tell it either. */
static bool
may_read_setting(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS);
}

static const char *
present_setting(void)
{
	return GetConfigOption("shared_preload_libraries", false, false);
}

/*
 * ALTER SYSTEM takes a list as separate literals: one literal with a comma in
 * it would be stored as the name of one library, and the server would not
 * start again.
 */
char *
weir_preload_command(void)
{
	StringInfoData command;
	List	   *libraries = NIL;
	ListCell   *lc;

	if (!may_read_setting())
		return pstrdup("ALTER SYSTEM SET shared_preload_libraries = "
					   "<the libraries it has now>, '" LIBRARY "';");

	initStringInfo(&command);
	appendStringInfoString(&command, "ALTER SYSTEM SET shared_preload_libraries = ");
	(void) SplitDirectoriesString(pstrdup(present_setting()), ',', &libraries);
	foreach(lc, libraries)
	{
		char	   *library = lfirst(lc);

		if (strcmp(library, LIBRARY) != 0)
			appendStringInfo(&command, "%s, ", quote_literal_cstr(library));
	}
	appendStringInfoString(&command, "'" LIBRARY "';");
	return command.data;
}

char *
weir_preload_detail(void)
{
	if (!may_read_setting())
		return pstrdup("The server did not load it when it started.");
	return psprintf("The server was started with shared_preload_libraries = \"%s\".",
					present_setting());
}

void
weir_require_preloaded(void)
{
	if (weir_shmem_available())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(LIBRARY " must be loaded via shared_preload_libraries"),
			 errdetail_internal("%s", weir_preload_detail()),
			 errhint("%s Then restart the server.", weir_preload_command())));
}
