/*
 * weir.c - the module: what happens when the library is loaded.
 *
 * In the postmaster (shared_preload_libraries): settings, shared memory,
 * hooks and the launcher, inherited by every process.  In a session that
 * loads it by itself: settings only, so that calls fail with a hint instead
 * of a missing symbol.  In pg_upgrade: nothing, because no worker may write
 * into the old or the new cluster while it is copied.
 */
#include "weir.h"
#include "weir_guc.h"
#include "weir_shmem.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "worker/database_hook.h"
#include "worker/wakeup.h"
#include "worker/weir_launcher.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (IsBinaryUpgrade)
		return;

	weir_guc_define();
	if (!process_shared_preload_libraries_in_progress)
		return;

	weir_shmem_init_hooks();
	weir_wakeup_install();
	weir_database_hook_install();
	weir_launcher_register();
}
