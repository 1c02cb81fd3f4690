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

/* Takes `n` tokens and says how long to wait for them (0: now). RESOURCE_EXHAUSTED: n is above the burst, or the wait would outlast
 * `deadline_ms`; nothing is taken then. Thread-safe. `now_ms`: clock_mono_ms. */
enum code limiters_take(struct limiters *limiters, enum limiter limiter, const char *ip, unsigned n, int64_t now_ms,
			int64_t deadline_ms, int64_t *wait_ms, struct err *err);

#endif
