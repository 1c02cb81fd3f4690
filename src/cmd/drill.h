/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_DRILL_H
#define CMD_DRILL_H

#include "cmd/drill_load.h"

#include <stdio.h>

/* What a drill has found: `drill failover` prints it. */
enum { DRILL_ROUNDS_MAX = 1000 };

struct drill_round {
	char from[64], to[64]; /* who led before and after */
	uint64_t term;
	int64_t stalled_ms; /* the slowest write of the round */
};

struct drill_report {
	const char *kind; /* "transfer", "stop", "kill" */
	int64_t wanted;   /* rounds */
	struct drill_round *rounds;
	size_t n;
	int64_t p50_ms, p99_ms, max_ms; /* of the rounds' stalls */
	struct drill_load_result load;
	uint64_t missing;
	const char *unchecked; /* nodes that could not be asked at the end; "" : none */
	const char *ended;     /* why it ended before all rounds were done; "": it did not */
};

void drill_sum_up(struct drill_report *report); /* the percentiles */
bool drill_passed(const struct drill_report *report);
void drill_print_json(FILE *out, const struct drill_report *report);
void drill_print_pretty(FILE *out, const struct drill_report *report);
void drill_print_html(FILE *out, const struct drill_report *report);

#endif
