/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What the process counts, and the page that Prometheus reads (text format 0.0.4). One registry a process, as with the log: any
 * layer counts where something happens. Thread-safe; counting is an atomic addition. A series lives as long as the process.
 * Names are SPIRE's without its prefix ("server_ca_sign_x509_svid", server-operation.md 7.2), or begin with NAME "_": ours, as they are. */

enum metric_kind {
	METRIC_COUNTER,
	METRIC_GAUGE,
	METRIC_SUMMARY,   /* quantiles 0.5 0.9 0.99 of the last 10 to 20 s, _sum, _count */
	METRIC_HISTOGRAM, /* seconds: buckets from 0.5 ms to 10 s */
};

struct metric; /* one time series */

struct metric_label {
	const char *name, *value;
};
enum { METRIC_LABELS_MAX = 5 };

/* Finds or makes a series. `labels` ends with a NULL name; NULL: none. Values are cleaned as SPIRE does ("example.org" ->
 * "example_org"). Keep the answer where it is used often. */
struct metric *metric_get(enum metric_kind kind, const char *name, const struct metric_label *labels);
#define METRIC_LABELS(...) ((const struct metric_label[]){ __VA_ARGS__, { 0 } })

void metric_add(struct metric *counter, uint64_t n);
void metric_set(struct metric *gauge, double value);
void metric_observe(struct metric *summary_or_histogram, double value);

/* SPIRE's "call": a counter NAME and a summary NAME_elapsed_time (milliseconds), both by status (a gRPC code's name). */
void metric_call(const char *name, enum code code, double elapsed_ms);

/* The same for what happens all the time: the series are looked up once. Zero-initialised, static or in a table of its own. */
struct metric_site {
	_Atomic(struct metric *) count[17], elapsed[17]; /* by code */
};
void metric_call_at(struct metric_site *site, const char *name, enum code code, double elapsed_ms);

struct metric_counter { /* static, zero-initialised */
	_Atomic(struct metric *) metric;
};
void metric_count(struct metric_counter *counter, const char *name); /* + 1; the series is looked up once */

/* Called before each page: sets the gauges that are cheaper to ask for than to keep. Never taken off again. */
void metric_on_page(void (*fill)(void *ctx), void *ctx);

struct metric_page_options {
	const char *prefix;       /* "spire_server" */
	const char *host;         /* value of the label host; NULL: without it */
	const char *trust_domain; /* value of the label trust_domain; NULL: without it */
};
void metric_page(const struct metric_page_options *options, struct buf *out);

/* "BatchNewX509SVID" -> "batch_new_x509svid", as SPIRE makes the names of its RPC metrics. `out` holds 2 * strlen + 1. */
void metric_snake_case(const char *camel, char *out);

#endif
