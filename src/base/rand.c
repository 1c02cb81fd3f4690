/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes: getrandom(2), a thread's pool at a time, since a call for each serial number would cost more than what
 * it gives. Bytes are wiped from the pool as they leave it, and a child of fork(2) begins with an empty pool. */
#include "base/rand.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { POOL = 512, DIRECT = 128 };

static _Thread_local struct {
	uint8_t bytes[POOL];
	size_t left; /* at the end of `bytes` */
	unsigned fork;
} pool;

static _Atomic unsigned forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;

static _Atomic uint64_t seeded_state;
static _Atomic bool seeded;

static void count_fork(void)
{
	atomic_fetch_add(&forks, 1);
}

static void watch_forks(void)
{
	if (pthread_atfork(NULL, NULL, count_fork) != 0)
		abort();
}

static void from_system(void *out, size_t len)
{
	uint8_t *at = out;

	while (len > 0) {
		ssize_t got = getrandom(at, len, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			fprintf(stderr, "getrandom: %s\n", strerror(errno));
			abort();
		}
		at += got;
		len -= (size_t)got;
	}
}

/* SplitMix64: any state is a good one, and the states are a plain count. */
static void from_seed(uint8_t *out, size_t len)
{
	while (len > 0) {
		uint64_t z = atomic_fetch_add(&seeded_state, 0x9e3779b97f4a7c15);
		size_t part = len < sizeof z ? len : sizeof z;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
		z = (z ^ z >> 27) * 0x94d049bb133111eb;
		z ^= z >> 31;
		memcpy(out, &z, part);
		out += part;
		len -= part;
	}
}

void rand_bytes(void *out, size_t len)
{
	if (atomic_load_explicit(&seeded, memory_order_relaxed)) {
		from_seed(out, len);
		return;
	}
	if (len > DIRECT) {
		from_system(out, len);
		return;
	}
	pthread_once(&forks_once, watch_forks);
	if (pool.left < len || pool.fork != atomic_load(&forks)) {
		from_system(pool.bytes, POOL);
		pool.left = POOL;
		pool.fork = atomic_load(&forks);
	}
	pool.left -= len;
	memcpy(out, pool.bytes + pool.left, len);
	explicit_bzero(pool.bytes + pool.left, len);
}

uint64_t rand_u64(void)
{
	uint64_t value;

	rand_bytes(&value, sizeof value);
	return value;
}

double rand_unit(void)
{
	return (double)(rand_u64() >> 11) * 0x1p-53;
}

static void uuid_text(const uint8_t b[16], char out[37])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[b[i] >> 4];
		*out++ = digits[b[i] & 15];
	}
	*out = '\0';
}

void rand_uuid4(char out[37])
{
	uint8_t b[16];

	rand_bytes(b, sizeof b);
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	uuid_text(b, out);
}

static _Atomic uint64_t last_tick;

/* 48 bits of milliseconds and 12 of their fraction (RFC 9562 section 6.2, method 3); never twice the same and never
 * backwards in this process, also when the clock is. */
static uint64_t next_tick(void)
{
	int64_t ns = clock_wall_ns();
	uint64_t now = ns < 0 ? 0 : (uint64_t)(ns / 1000000) << 12 | (uint64_t)(ns % 1000000) * 4096 / 1000000;
	uint64_t before = atomic_load(&last_tick), tick;

	do
		tick = now > before ? now : before + 1;
	while (!atomic_compare_exchange_weak(&last_tick, &before, tick));
	return tick;
}

void rand_uuid7(char out[37])
{
	uint64_t tick = next_tick();
	uint8_t b[16];

	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(tick >> (52 - 8 * i));
	b[6] = (uint8_t)(0x70 | (tick >> 8 & 0x0f));
	b[7] = (uint8_t)tick;
	rand_bytes(b + 8, 8);
	b[8] = (b[8] & 0x3f) | 0x80;
	uuid_text(b, out);
}

void rand_use_seed(uint64_t seed)
{
	atomic_store(&seeded_state, seed);
	atomic_store(&last_tick, 0); /* the simulation's clock begins again too */
	atomic_store(&seeded, true);
}
