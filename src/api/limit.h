/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_LIMIT_H
#define API_LIMIT_H

#include "api/call.h"

#include <stdbool.h>
#include <stdint.h>

/* Rate limits (contract server-api.md 4.0): token buckets by limiter and client IP, rate = burst = N a second, shared by all loops.
 * Callers are delayed rather than refused. Buckets idle for a minute or two are dropped. */
struct limiters;

struct limiters *limiters_new(bool attestation, bool signing); /* the switches of `ratelimit`: off = that limiter never waits */
void limiters_free(struct limiters *limiters);

/* Takes `n` tokens (*wait_ms = 0), or queues the caller: it tries again after *wait_ms, or leaves. *queued begins as false and is
 * this function's: whether the caller is in the queue. RESOURCE_EXHAUSTED: n is above the burst, or the wait would outlast
 * `deadline_ms`; nothing is taken then, and the caller is in no queue. Thread-safe. `now_ms`: clock_mono_ms. */
enum code limiters_take(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n, int64_t now_ms,
			int64_t deadline_ms, bool *queued, int64_t *wait_ms, struct err *err);

/* A queued caller gives up: nobody else has to wait for its tokens. */
void limiters_leave(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n);

#endif
