/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks. A test's clock, once set, answers for all of them. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

static const struct clock *_Atomic other; /* NULL: the real one */

static int64_t read_ns(clockid_t which)
{
	struct timespec ts;

	clock_gettime(which, &ts); /* these clocks always exist */
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static const struct clock *current(void)
{
	return atomic_load_explicit(&other, memory_order_acquire);
}

int64_t clock_wall_ns(void)
{
	const struct clock *clock = current();

	return clock != NULL ? clock->wall_ms(clock->ctx) * 1000000 : read_ns(CLOCK_REALTIME);
}

int64_t clock_wall_ms(void)
{
	const struct clock *clock = current();

	return clock != NULL ? clock->wall_ms(clock->ctx) : read_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_wall_s(void)
{
	return clock_wall_ms() / 1000;
}

int64_t clock_mono_ms(void)
{
	const struct clock *clock = current();

	return clock != NULL ? clock->mono_ms(clock->ctx) : read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_mono_us(void)
{
	const struct clock *clock = current();

	return clock != NULL ? clock->mono_ms(clock->ctx) * 1000 : read_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_boot_ms(void)
{
	const struct clock *clock = current();

	return clock != NULL ? clock->mono_ms(clock->ctx) : read_ns(CLOCK_BOOTTIME) / 1000000;
}

void clock_use(const struct clock *clock)
{
	atomic_store_explicit(&other, clock, memory_order_release);
}
