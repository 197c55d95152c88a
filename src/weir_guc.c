/*
 * weir_guc.c - defines the settings weir.*; weir_guc.h says what they mean.
 *
 * All but weir.read_version are PGC_SIGHUP: they belong to the workers, which
 * serve every user.
 */
#include "weir.h"
#include "weir_guc.h"

#include <limits.h>

#include "utils/guc.h"

int			weir_guc_max_batch_rows = 1000000;
int			weir_guc_batch_memory_kb = 64 * 1024;
int			weir_guc_max_batch_ms = 2000;
int			weir_guc_key_cache_kb = 64 * 1024;
int			weir_guc_max_retained_wal_mb = 10 * 1024;
int			weir_guc_poll_interval_ms = 200;
int			weir_guc_max_hold_ms = 200;
int			weir_guc_restart_delay_ms = 1000;
int			weir_guc_build_chunk_rows = 20000;
int			weir_guc_read_version = WEIR_READ_SERVING;
#ifdef WEIR_TEST
char	   *weir_guc_crash_point = NULL;
#endif

/* The variable's initial value above is its default. */
typedef struct IntegerSetting
{
	const char *name;
	int		   *variable;
	int			min;
	int			max;
	int			unit;
	const char *short_description;
	const char *long_description;
} IntegerSetting;

static const IntegerSetting integer_settings[] = {
	{"weir.max_batch_rows", &weir_guc_max_batch_rows, 1, INT_MAX / 2, 0,
		"Changes after which a reader closes a batch at the next commit.",
	"Under a backlog a reader goes up to this as far as weir.max_batch_time allows. A transaction is never split, so a batch may be larger."},
	{"weir.batch_memory", &weir_guc_batch_memory_kb, 64, MAX_KILOBYTES, GUC_UNIT_KB,
		"Memory for one table's changes in a batch; more goes to temporary files.",
	NULL},
	{"weir.max_batch_time", &weir_guc_max_batch_ms, 1, 60000, GUC_UNIT_MS,
		"Time after which a reader closes a batch at the next commit.",
	"It also chooses the size of batches so that reading and applying one takes this long."},
	{"weir.key_cache", &weir_guc_key_cache_kb, 0, MAX_KILOBYTES, GUC_UNIT_KB,
		"Memory of one version for the keys it has used lately.",
	NULL},
	{"weir.max_retained_wal", &weir_guc_max_retained_wal_mb, -1, MAX_KILOBYTES, GUC_UNIT_MB,
		"WAL that may be kept for an operator that does not run.",
	"Beyond it the operator's slot is dropped and the operator must be rebuilt. -1 means no limit."},
	{"weir.poll_interval", &weir_guc_poll_interval_ms, 10, 60000, GUC_UNIT_MS,
		"Longest sleep of a reader to which no commit was reported.",
	NULL},
	{"weir.max_hold", &weir_guc_max_hold_ms, 1, 10000, GUC_UNIT_MS,
		"Longest time the main reader stands still for a handover.",
	"A handover that takes longer is released and tried again."},
	{"weir.restart_delay", &weir_guc_restart_delay_ms, 10, 60000, GUC_UNIT_MS,
		"Time before a worker that failed is started again.",
	"It doubles with each failure, up to one minute."},
	{"weir.build_chunk_rows", &weir_guc_build_chunk_rows, 1, INT_MAX / 2, 0,
		"State rows that are written in one transaction while a version is built.",
	NULL},
};

static const struct config_enum_entry read_versions[] = {
	{"serving", WEIR_READ_SERVING, false},
	{"candidate", WEIR_READ_CANDIDATE, false},
	{NULL, 0, false}
};

void
weir_guc_define(void)
{
	for (int i = 0; i < lengthof(integer_settings); i++)
	{
		const IntegerSetting *setting = &integer_settings[i];

		DefineCustomIntVariable(setting->name, setting->short_description,
								setting->long_description, setting->variable,
								*setting->variable, setting->min, setting->max,
								PGC_SIGHUP, setting->unit, NULL, NULL, NULL);
	}
	/* Views ask for it by name (serving_view.c). */
	DefineCustomEnumVariable("weir.read_version",
							 "Version of operators that this session reads.",
							 "With candidate, operators that are being upgraded show the new version as soon as it was compared.",
							 &weir_guc_read_version, weir_guc_read_version, read_versions,
							 PGC_USERSET, 0, NULL, NULL, NULL);
#ifdef WEIR_TEST
	DefineCustomStringVariable("weir.crash_point",
							   "Crash point at which a process kills itself: name[:hit][#tag].",
							   "Each text fires once in the life of a data directory; the tag makes it another text.",
							   &weir_guc_crash_point, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
#endif
	MarkGUCPrefixReserved("weir");
}
