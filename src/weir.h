/*
 * weir.h - constants and the crash-point macro shared by every module.
 */
#ifndef WEIR_H
#define WEIR_H

#include "postgres.h"
#include "access/xlogdefs.h"

#define WEIR_VERSION			"0.1.0"

/* Schemas: people, workers, state.  Fixed: the extension is not relocatable. */
#define WEIR_SCHEMA				"weir"
#define WEIR_INTERNAL_SCHEMA	"weir_internal"
#define WEIR_STATE_SCHEMA		"weir_state"

/* Hash buckets of the key: the unit of canary and of parallel work. */
#define WEIR_SHARDS				64

/* Layout of hidden state columns; recorded with each version. */
#define WEIR_STATE_FORMAT		1

/*
 * Crash points: compiled in only for tests (make WEIR_TEST=1).  When the GUC
 * weir.crash_point names the point, the process kills itself the hard way, as
 * a power cut would; what is on disk then must be what the catalogs say.
 */
#ifdef WEIR_TEST
extern void weir_crash_point_hit(const char *name);
#define WEIR_CRASH_POINT(name) weir_crash_point_hit(name)
#else
#define WEIR_CRASH_POINT(name) ((void) 0)
#endif

#endif							/* WEIR_H */
