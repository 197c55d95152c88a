/*
 * apply_budget.c - how long a version that does not serve may take over a batch.
 *
 * Runs in main readers. Versions of one stream are applied one after another
 * in one transaction, so a slow candidate would hold up everybody who is
 * served (I11). It may take BUDGET_FACTOR times as long as the slowest serving
 * version took over the same batch, and always weir.max_batch_time; then its
 * statement is cancelled, and like any error that stops it and nobody else.
 * The batch is applied again for that, version by version: what others can
 * lose is twice the budget, once.
 *
 * A function can catch a cancel, so it is repeated until the version has given
 * up. Nothing is on disk.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"

#include "weir_compat.h"
#include "weir_guc.h"
#include "worker/apply_budget.h"

#define BUDGET_FACTOR 10
#define REPEAT_MS 100

static int64 slowest_serving_us = 0;	/* 0: unknown */
static int64 budget_ms = 0;
static TimeoutId budget_timeout = MAX_TIMEOUTS;	/* none yet */
static volatile sig_atomic_t is_used_up = false;

/* As the server's own statement timeout does it, by way of a cancel. */
static void
cancel_version(void)
{
	is_used_up = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

void
weir_apply_budget_reset(void)
{
	slowest_serving_us = 0;
}

void
weir_apply_budget_note_serving(int64 apply_us)
{
	slowest_serving_us = Max(slowest_serving_us, Max(apply_us, 1));
}

void
weir_apply_budget_begin(void)
{
	TimestampTz fin;

	is_used_up = false;
	if (slowest_serving_us == 0)
		return;					/* nobody is served, or the batch failed before that was known */
	if (budget_timeout == MAX_TIMEOUTS)
		budget_timeout = RegisterTimeout(USER_TIMEOUT, cancel_version);
	budget_ms = Max(weir_guc_max_batch_ms, BUDGET_FACTOR * slowest_serving_us / 1000);
	fin = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), budget_ms);
	enable_timeout_every(budget_timeout, fin, REPEAT_MS);
}

void
weir_apply_budget_end(void)
{
	if (budget_timeout == MAX_TIMEOUTS)
		return;
	disable_timeout(budget_timeout, false);
	/* Not for whatever comes next. */
	if (is_used_up)
		QueryCancelPending = false;
}

char *
weir_apply_budget_message(void)
{
	if (!is_used_up)
		return NULL;
	return psprintf("it took longer than its budget of " INT64_FORMAT " ms over one batch", budget_ms);
}
