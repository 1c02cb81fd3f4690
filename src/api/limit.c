/* SPDX-License-Identifier: Apache-2.0 */
/* Token buckets. Whoever finds too few tokens queues up: it is told when its turn should come, in order of arrival, and tries again
 * then. Tokens are taken only by who gets them, so callers that leave while they wait cost the others nothing. */
#include "api/limit.h"

#include "api/route.h"
#include "api/server.h"
#include "base/clock.h"
#include "base/metric.h"
#include "base/task.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHELVES = 1024, IDLE_MS = 60 * 1000 };

static const double ROUNDING = 1e-6; /* of a token: what sums of parts may be off by */

static const unsigned per_second[LIMITER_COUNT] = {
	[LIMITER_ATTEST] = 1, [LIMITER_CSR] = 500, [LIMITER_JSR] = 500, [LIMITER_PUSH_KEY] = 500, [LIMITER_POST_STATUS] = 10,
};

struct bucket {
	struct bucket *next;
	enum limiter limiter;
	double tokens;
	double queued; /* tokens that callers wait for */
	int64_t at_ms; /* up to when it has been filled */
	char ip[];
};

struct limiters {
	pthread_mutex_t lock;
	bool on[LIMITER_COUNT];
	struct bucket *shelves[SHELVES];
	int64_t swept_ms;
};

struct limiters *limiters_new(bool attestation, bool signing)
{
	struct limiters *limiters = xcalloc(1, sizeof *limiters);

	pthread_mutex_init(&limiters->lock, NULL);
	limiters->on[LIMITER_ATTEST] = attestation;
	limiters->on[LIMITER_CSR] = limiters->on[LIMITER_JSR] = signing;
	limiters->on[LIMITER_PUSH_KEY] = limiters->on[LIMITER_POST_STATUS] = true;
	return limiters;
}

/* Drops what nobody has used for a while; everything with `everything`. */
static void sweep(struct limiters *limiters, int64_t now_ms, bool everything)
{
	for (size_t i = 0; i < SHELVES; i++)
		for (struct bucket **at = &limiters->shelves[i]; *at != NULL;) {
			struct bucket *bucket = *at;

			if (everything || (now_ms - bucket->at_ms > IDLE_MS && bucket->queued == 0)) {
				*at = bucket->next;
				free(bucket);
			} else {
				at = &bucket->next;
			}
		}
	limiters->swept_ms = now_ms;
}

void limiters_free(struct limiters *limiters)
{
	if (limiters == NULL)
		return;
	sweep(limiters, 0, true);
	pthread_mutex_destroy(&limiters->lock);
	free(limiters);
}

static struct bucket *find(struct limiters *limiters, enum limiter limiter, const char *ip, int64_t now_ms)
{
	uint64_t hash = 1469598103934665603u + limiter;
	struct bucket **shelf, *bucket;

	for (const char *c = ip; *c != '\0'; c++)
		hash = (hash ^ (uint8_t)*c) * 1099511628211u;
	shelf = &limiters->shelves[hash % SHELVES];
	for (bucket = *shelf; bucket != NULL; bucket = bucket->next)
		if (bucket->limiter == limiter && strcmp(bucket->ip, ip) == 0)
			return bucket;
	bucket = xcalloc(1, sizeof *bucket + strlen(ip) + 1);
	bucket->limiter = limiter;
	bucket->tokens = per_second[limiter];
	bucket->at_ms = now_ms;
	strcpy(bucket->ip, ip);
	bucket->next = *shelf;
	*shelf = bucket;
	return bucket;
}

static void fill(struct bucket *bucket, int64_t now_ms)
{
	unsigned rate = per_second[bucket->limiter];

	if (now_ms > bucket->at_ms)
		bucket->tokens = fmin(rate, bucket->tokens + (double)(now_ms - bucket->at_ms) * rate / 1000);
	bucket->at_ms = now_ms;
}

enum code limiters_take(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n, int64_t now_ms,
			int64_t deadline_ms, bool *queued, int64_t *wait_ms, struct err *err)
{
	struct bucket *bucket;
	enum code rc = CODE_OK;
	double missing;

	*wait_ms = 0;
	if (!limiters->on[limiter])
		return CODE_OK;
	if (n > per_second[limiter])
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "rate (%u) exceeds burst size (%u)", n, per_second[limiter]);
	pthread_mutex_lock(&limiters->lock);
	if (now_ms - limiters->swept_ms > IDLE_MS)
		sweep(limiters, now_ms, false);
	bucket = find(limiters, limiter, ip, now_ms);
	fill(bucket, now_ms);
	if (*queued)
		bucket->queued -= n;
	missing = n - bucket->tokens + (*queued ? 0 : bucket->queued); /* whoever has waited already goes first */
	*queued = missing > ROUNDING;
	if (*queued)
		*wait_ms = (int64_t)ceil((missing - ROUNDING) * 1000 / per_second[limiter]);
	if (deadline_ms != INT64_MAX && now_ms + *wait_ms > deadline_ms) {
		*queued = false;
		rc = err_set(err, CODE_RESOURCE_EXHAUSTED, "rate: Wait(n=%u) would exceed context deadline", n);
	} else if (*queued) {
		bucket->queued += n;
	} else {
		bucket->tokens -= n;
	}
	pthread_mutex_unlock(&limiters->lock);
	return rc;
}

void limiters_leave(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n)
{
	pthread_mutex_lock(&limiters->lock);
	find(limiters, limiter, ip, clock_mono_ms())->queued -= n;
	pthread_mutex_unlock(&limiters->lock);
}

static enum code wait_for_turn(struct call *call, enum limiter limiter, unsigned n, const char *what)
{
	struct limiters *limiters = call->server->limiters;
	const char *ip = call->caller->ip;
	bool queued = false;

	for (;;) {
		int64_t wait_ms;
		enum code rc;

		if (limiters_take(limiters, limiter, ip, n, clock_mono_ms(), call->deadline_ms, &queued, &wait_ms,
				  call->err) != CODE_OK)
			return err_wrap(call->err, CODE_RESOURCE_EXHAUSTED, "%s", what);
		if (!queued)
			return CODE_OK;
		rc = task_sleep(wait_ms);
		if (rc != CODE_OK) {
			limiters_leave(limiters, limiter, ip, n);
			return err_set(call->err, rc, "%s: the call ended while it waited", what);
		}
	}
}

enum code call_limit(struct call *call, enum limiter limiter, unsigned n, const char *what)
{
	static struct metric_site sites[256]; /* by the row of the route */
	size_t row = (size_t)(call->route - routes);
	int64_t begin_ms = clock_mono_ms();
	char name[128];
	enum code rc;

	if (call->caller->local || !call->server->limiters->on[limiter])
		return CODE_OK;
	assert(n_routes <= sizeof sites / sizeof sites[0]);
	rc = wait_for_turn(call, limiter, n, what);
	snprintf(name, sizeof name, "rateLimit_%s", route_metric(call->route) + strlen("rpc_"));
	metric_call_at(&sites[row], name, rc, (double)(clock_mono_ms() - begin_ms));
	return rc;
}
