/* SPDX-License-Identifier: Apache-2.0 */
#include "api/limit.h"
#include "lib/test.h"

static struct err err;

static int64_t take(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n, int64_t now_ms)
{
	int64_t wait_ms = -1;
	bool queued = false;

	CHECK_CODE(limiters_take(limiters, limiter, ip, n, now_ms, INT64_MAX, &queued, &wait_ms, &err), CODE_OK);
	CHECK_NUM(queued, wait_ms > 0);
	return wait_ms;
}

/* Its turn has come. */
static int64_t again(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n, int64_t now_ms)
{
	int64_t wait_ms = -1;
	bool queued = true;

	CHECK_CODE(limiters_take(limiters, limiter, ip, n, now_ms, INT64_MAX, &queued, &wait_ms, &err), CODE_OK);
	CHECK_NUM(queued, wait_ms > 0);
	return wait_ms;
}

TEST(callers_wait_for_what_is_missing)
{
	struct limiters *limiters = limiters_new(true, true);

	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1000), 0);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1000), 1000);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1000), 2000);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "b", 1, 1000), 0);   /* each address on its own */
	CHECK_NUM(take(limiters, LIMITER_CSR, "a", 500, 1000), 0);    /* each limiter on its own */
	CHECK_NUM(take(limiters, LIMITER_CSR, "a", 250, 1000), 500);
	CHECK_NUM(again(limiters, LIMITER_ATTEST, "a", 1, 1999), 1);
	CHECK_NUM(again(limiters, LIMITER_ATTEST, "a", 1, 2000), 0);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 2000), 2000); /* nobody overtakes */
	CHECK_NUM(again(limiters, LIMITER_ATTEST, "a", 1, 3000), 0);
	CHECK_NUM(again(limiters, LIMITER_ATTEST, "a", 1, 4000), 0);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 9000), 0);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 9000), 1000); /* the burst is one */
	limiters_free(limiters);
}

TEST(who_leaves_the_queue_costs_the_others_nothing)
{
	struct limiters *limiters = limiters_new(true, true);

	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1000), 0);
	for (int i = 1; i <= 5000; i++)
		CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1000), 1000 * i);
	for (int i = 1; i <= 5000; i++)
		limiters_leave(limiters, LIMITER_ATTEST, "a", 1);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 1500), 500);
	CHECK_NUM(again(limiters, LIMITER_ATTEST, "a", 1, 2000), 0);
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 2000), 1000);
	limiters_free(limiters);
}

TEST(a_wait_beyond_the_deadline_is_refused_and_takes_nothing)
{
	struct limiters *limiters = limiters_new(true, true);
	bool queued = false;
	int64_t wait_ms;

	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 0), 0);
	CHECK_CODE(limiters_take(limiters, LIMITER_ATTEST, "a", 1, 0, 999, &queued, &wait_ms, &err), CODE_RESOURCE_EXHAUSTED);
	CHECK_NUM(queued, false);
	CHECK_STR(err.text, "rate: Wait(n=1) would exceed context deadline");
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 0), 1000);
	CHECK_CODE(limiters_take(limiters, LIMITER_CSR, "a", 501, 0, INT64_MAX, &queued, &wait_ms, &err), CODE_RESOURCE_EXHAUSTED);
	CHECK_STR(err.text, "rate (501) exceeds burst size (500)");
	limiters_free(limiters);
}

TEST(a_limiter_that_is_switched_off_never_waits)
{
	struct limiters *limiters = limiters_new(false, false);

	for (int i = 0; i < 100; i++) {
		CHECK_NUM(take(limiters, LIMITER_ATTEST, "a", 1, 0), 0);
		CHECK_NUM(take(limiters, LIMITER_JSR, "a", 500, 0), 0);
	}
	CHECK_NUM(take(limiters, LIMITER_POST_STATUS, "a", 10, 0), 0);
	CHECK_NUM(take(limiters, LIMITER_POST_STATUS, "a", 10, 0), 1000); /* always on */
	limiters_free(limiters);
}

TEST(idle_buckets_are_dropped_full)
{
	struct limiters *limiters = limiters_new(true, true);

	for (int i = 0; i < 1000; i++) {
		char ip[32];

		snprintf(ip, sizeof ip, "10.0.%d.%d", i / 250, i % 250);
		take(limiters, LIMITER_ATTEST, ip, 1, 0);
	}
	CHECK_NUM(take(limiters, LIMITER_ATTEST, "10.0.0.1", 1, 200000), 0);
	limiters_free(limiters);
}
