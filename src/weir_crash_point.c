/*
 * weir_crash_point.c - dying on purpose where a test asks for it; empty in
 * builds for users.
 *
 * weir.crash_point is name[:hit][#tag]: at the given hit of the named point
 * (the first by default), counted over all processes since the server
 * started, the process kills itself with SIGKILL, and with it the server
 * restarts.  So that it does not die again for ever, the setting's text is
 * left in a file of the data directory first, and a text found there does not
 * fire; another tag makes it another text.  With stop@ before the name it
 * stops itself with SIGSTOP instead, until the test lets it go on.
 */
#include "weir.h"

#ifdef WEIR_TEST

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "weir_guc.h"
#include "weir_shmem_layout.h"

#define MARKER_FILE "pg_weir.crash_point"

static const char stop_prefix[] = "stop@";

static bool
is_stop(const char *setting)
{
	return strncmp(setting, stop_prefix, strlen(stop_prefix)) == 0;
}

/* True when the setting names this point; then *hit is the one that counts. */
static bool
setting_names(const char *setting, const char *name, int *hit)
{
	size_t		length;

	if (is_stop(setting))
		setting += strlen(stop_prefix);
	length = strcspn(setting, ":#");
	*hit = 1;
	if (strlen(name) != length || strncmp(setting, name, length) != 0)
		return false;
	if (setting[length] == ':')
		*hit = atoi(setting + length + 1);
	return true;
}

static bool
marker_has(const char *setting)
{
	char		text[sizeof(weir_shared->crash_setting)];
	int			fd = BasicOpenFile(MARKER_FILE, O_RDONLY | PG_BINARY);
	ssize_t		length;

	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[Max(length, 0)] = '\0';
	return strcmp(text, setting) == 0;
}

static void
write_marker(const char *setting)
{
	int			fd = BasicOpenFile(MARKER_FILE, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);

	if (fd < 0 || write(fd, setting, strlen(setting)) != strlen(setting))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", MARKER_FILE)));
	close(fd);
}

/* Counts a hit under the present setting; another setting counts from one. */
static int
count_hit(const char *setting)
{
	int			hits;

	LWLockAcquire(weir_shared->lock, LW_EXCLUSIVE);
	if (strcmp(weir_shared->crash_setting, setting) != 0)
	{
		strlcpy(weir_shared->crash_setting, setting, sizeof(weir_shared->crash_setting));
		weir_shared->crash_hits = 0;
	}
	hits = ++weir_shared->crash_hits;
	LWLockRelease(weir_shared->lock);
	return hits;
}

void
weir_crash_point_hit(const char *name)
{
	const char *setting = weir_guc_crash_point;
	int			wanted;

	if (setting == NULL || setting[0] == '\0' || weir_shared == NULL ||
		strlen(setting) >= sizeof(weir_shared->crash_setting) ||
		!setting_names(setting, name, &wanted) || count_hit(setting) != wanted ||
		marker_has(setting))
		return;

	if (is_stop(setting))
	{
		kill(MyProcPid, SIGSTOP);
		return;
	}
	/* Reporting would let in a SIGTERM that is pending. */
	HOLD_INTERRUPTS();
	write_marker(setting);
	ereport(LOG, (errmsg("crash point %s reached", name)));
	fflush(stderr);
	kill(MyProcPid, SIGKILL);
	/* Nothing after the crash point may happen before the signal arrives. */
	for (;;)
		pause();
}

#endif							/* WEIR_TEST */
