/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* The one place that reads a clock, so that a simulation can put another in its place. */
int64_t clock_wall_ms(void); /* Unix time, milliseconds */
int64_t clock_wall_ns(void); /* Unix time, nanoseconds: for the log */
int64_t clock_wall_s(void);  /* Unix time, whole seconds, cut */
int64_t clock_mono_ms(void); /* CLOCK_MONOTONIC: for deadlines and waiting */
int64_t clock_mono_us(void); /* the same in microseconds: for how long something took */
int64_t clock_boot_ms(void); /* CLOCK_BOOTTIME: goes on while the machine sleeps */

struct clock {
	int64_t (*wall_ms)(void *ctx);
	int64_t (*mono_ms)(void *ctx);
	void *ctx;
};

/* A test's or the simulator's clock for this process; NULL restores the real one. */
void clock_use(const struct clock *clock);

#endif
