/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_DRILL_LOAD_H
#define CMD_DRILL_LOAD_H

#include "api/client.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The probe load of a drill: for each node a thread that creates entries, and one that has an X509-SVID minted. A write
 * that fails is tried again, at another node, until it is acknowledged: what a client waits is what counts. What was
 * acknowledged is remembered: entry n of writer w is `/drill/<run>/<w>/<n>`, all below `/drill/<run>`. */
enum { DRILL_TARGETS_MAX = 9, DRILL_CODES = 17 };

struct drill_target {
	struct client_options options;
	const char *label;
};

struct drill_load;

struct drill_load_options {
	const struct drill_target *targets; /* all of this outlives the load */
	size_t n;
	const char *td, *run;
	int64_t rate; /* writes a second, of all together */
};
enum code drill_load_start(const struct drill_load_options *options, struct drill_load **out, struct err *err);
void drill_load_stop(struct drill_load *load); /* waits for the writes that are under way; once is enough */
void drill_load_free(struct drill_load *load); /* stops it first; NULL is fine */

/* A round begins: writes that wait now, or begin from now on, count for it. */
void drill_load_round(struct drill_load *load);
/* How long the slowest write of the round has taken, those that still wait included; `acknowledged`: of this round. */
int64_t drill_load_slowest_ms(struct drill_load *load, uint64_t *acknowledged);

struct drill_load_result {
	uint64_t writes;              /* acknowledged */
	uint64_t given_up;            /* never acknowledged within the time of a call */
	uint64_t failed[DRILL_CODES]; /* attempts, by gRPC code */
	uint64_t lost;                /* attempts whose connection ended */
	uint64_t svids, svids_refused;
	char refusal[256]; /* the last one's text */
};
void drill_load_result(struct drill_load *load, struct drill_load_result *out);
bool drill_load_acknowledged(struct drill_load *load, unsigned writer, uint64_t n); /* after the stop */

#endif
