/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: a list of series, sorted when a page is written. Quantiles come from two windows of logarithmic buckets, four to
 * the octave (an error below 19 %), of which one is filled while the other still counts. */
#include "base/metric.h"

#include "base/arena.h"
#include "base/clock.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUANTILE_BUCKETS = 100, QUANTILE_LOWEST = -40, WINDOW_MS = 10 * 1000, FILLERS_MAX = 16 };

static const double edges[] = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 };
enum { EDGES = sizeof edges / sizeof edges[0] };

struct window {
	_Atomic int64_t number; /* of the 10 s it belongs to */
	_Atomic uint32_t buckets[QUANTILE_BUCKETS];
};

struct metric {
	struct metric *next;
	enum metric_kind kind;
	char *name;
	struct metric_label labels[METRIC_LABELS_MAX]; /* sorted by name, values clean */
	size_t n_labels;
	_Atomic uint64_t count;
	_Atomic uint64_t sum_millionths;
	_Atomic double gauge;
	struct window *windows;          /* 2, of a summary */
	_Atomic uint64_t *below_or_equal; /* EDGES, of a histogram, not cumulated */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *all;
static size_t n_all;
static struct {
	void (*fill)(void *ctx);
	void *ctx;
} fillers[FILLERS_MAX];
static size_t n_fillers;

/* Runs of what is no word character, with an underscore that follows them, become one underscore. */
static void put_clean(struct buf *out, const char *value)
{
	for (const char *c = value; *c != '\0'; c++) {
		if (isalnum((unsigned char)*c) || *c == '_') {
			buf_put(out, (uint8_t)*c);
			continue;
		}
		while (c[1] != '\0' && !isalnum((unsigned char)c[1]) && c[1] != '_')
			c++;
		if (c[1] == '_')
			c++;
		buf_put(out, '_');
	}
}

/* The labels as they are kept: cleaned, in the order of their names. Texts are the caller's to free. */
static size_t take_labels(const struct metric_label *from, struct metric_label out[METRIC_LABELS_MAX])
{
	size_t n = 0;

	for (; from != NULL && from->name != NULL && n < METRIC_LABELS_MAX; from++, n++) {
		OWN_BUF clean = { 0 };
		size_t at = n;

		put_clean(&clean, from->value);
		for (; at > 0 && strcmp(out[at - 1].name, from->name) > 0; at--)
			out[at] = out[at - 1];
		out[at] = (struct metric_label){ xstrdup(from->name), xstrdup(buf_text(&clean)) };
	}
	return n;
}

static void free_labels(struct metric_label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)(uintptr_t)labels[i].name);
		free((void *)(uintptr_t)labels[i].value);
	}
}

static int compare(const struct metric *m, const char *name, const struct metric_label *labels, size_t n)
{
	int order = strcmp(m->name, name);

	for (size_t i = 0; order == 0 && i < m->n_labels && i < n; i++) {
		order = strcmp(m->labels[i].name, labels[i].name);
		if (order == 0)
			order = strcmp(m->labels[i].value, labels[i].value);
	}
	return order != 0 ? order : (m->n_labels > n) - (m->n_labels < n);
}

static struct metric *find(enum metric_kind kind, const char *name, const struct metric_label *labels, size_t n)
{
	for (struct metric *m = all; m != NULL; m = m->next)
		if (m->kind == kind && compare(m, name, labels, n) == 0)
			return m;
	return NULL;
}

static struct metric *make(enum metric_kind kind, const char *name, const struct metric_label *labels, size_t n)
{
	struct metric *m = xcalloc(1, sizeof *m);

	m->kind = kind;
	m->name = xstrdup(name);
	memcpy(m->labels, labels, n * sizeof *labels);
	m->n_labels = n;
	if (kind == METRIC_SUMMARY)
		m->windows = xcalloc(2, sizeof *m->windows);
	if (kind == METRIC_HISTOGRAM)
		m->below_or_equal = xcalloc(EDGES, sizeof *m->below_or_equal);
	m->next = all;
	all = m;
	n_all++;
	return m;
}

struct metric *metric_get(enum metric_kind kind, const char *name, const struct metric_label *labels)
{
	struct metric_label taken[METRIC_LABELS_MAX];
	size_t n = take_labels(labels, taken);
	struct metric *m;

	pthread_mutex_lock(&lock);
	m = find(kind, name, taken, n);
	if (m != NULL)
		free_labels(taken, n);
	else
		m = make(kind, name, taken, n);
	pthread_mutex_unlock(&lock);
	return m;
}

void metric_add(struct metric *m, uint64_t n)
{
	atomic_fetch_add_explicit(&m->count, n, memory_order_relaxed);
}

void metric_set(struct metric *m, double value)
{
	atomic_store_explicit(&m->gauge, value, memory_order_relaxed);
	atomic_store_explicit(&m->count, 1, memory_order_relaxed);
}

static void observe_window(struct metric *m, double value)
{
	int64_t number = clock_mono_ms() / WINDOW_MS;
	struct window *window = &m->windows[number & 1];
	int64_t old = atomic_load_explicit(&window->number, memory_order_relaxed);
	int bucket = value > 0 ? (int)ceil(log2(value) * 4) - QUANTILE_LOWEST : 0;

	if (old != number && atomic_compare_exchange_strong(&window->number, &old, number))
		for (int i = 0; i < QUANTILE_BUCKETS; i++)
			atomic_store_explicit(&window->buckets[i], 0, memory_order_relaxed);
	bucket = bucket < 0 ? 0 : bucket >= QUANTILE_BUCKETS ? QUANTILE_BUCKETS - 1 : bucket;
	atomic_fetch_add_explicit(&window->buckets[bucket], 1, memory_order_relaxed);
}

void metric_observe(struct metric *m, double value)
{
	atomic_fetch_add_explicit(&m->count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&m->sum_millionths, value > 0 ? (uint64_t)(value * 1e6) : 0, memory_order_relaxed);
	if (m->kind == METRIC_SUMMARY) {
		observe_window(m, value);
		return;
	}
	for (int i = 0; i < EDGES; i++)
		if (value <= edges[i]) {
			atomic_fetch_add_explicit(&m->below_or_equal[i], 1, memory_order_relaxed);
			return;
		}
}

static void lookup_call(const char *name, enum code code, struct metric **count, struct metric **elapsed)
{
	const struct metric_label *labels = METRIC_LABELS({ "status", code_name(code) });
	OWN_BUF text = { 0 };

	buf_printf(&text, "%s_elapsed_time", name);
	*count = metric_get(METRIC_COUNTER, name, labels);
	*elapsed = metric_get(METRIC_SUMMARY, buf_text(&text), labels);
}

void metric_call(const char *name, enum code code, double elapsed_ms)
{
	struct metric *count, *elapsed;

	lookup_call(name, code, &count, &elapsed);
	metric_add(count, 1);
	metric_observe(elapsed, elapsed_ms);
}

void metric_call_at(struct metric_site *site, const char *name, enum code code, double elapsed_ms)
{
	size_t at = (size_t)code < sizeof site->count / sizeof site->count[0] ? (size_t)code : CODE_UNKNOWN;
	struct metric *count = atomic_load_explicit(&site->count[at], memory_order_acquire);
	struct metric *elapsed = atomic_load_explicit(&site->elapsed[at], memory_order_acquire);

	if (count == NULL || elapsed == NULL) {
		lookup_call(name, (enum code)at, &count, &elapsed);
		atomic_store_explicit(&site->count[at], count, memory_order_release);
		atomic_store_explicit(&site->elapsed[at], elapsed, memory_order_release);
	}
	metric_add(count, 1);
	metric_observe(elapsed, elapsed_ms);
}

void metric_count(struct metric_counter *counter, const char *name)
{
	struct metric *metric = atomic_load_explicit(&counter->metric, memory_order_acquire);

	if (metric == NULL) {
		metric = metric_get(METRIC_COUNTER, name, NULL);
		atomic_store_explicit(&counter->metric, metric, memory_order_release);
	}
	metric_add(metric, 1);
}

void metric_on_page(void (*fill)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&lock);
	if (n_fillers < FILLERS_MAX) {
		fillers[n_fillers].fill = fill;
		fillers[n_fillers].ctx = ctx;
		n_fillers++;
	}
	pthread_mutex_unlock(&lock);
}

/* --- the page --- */

struct page {
	const struct metric_page_options *options;
	const struct metric *metric;
	struct buf *out;
	const char *prefix; /* "spire_server_" or "" */
};

static void put_name(struct page *page, const char *suffix)
{
	buf_printf(page->out, "%s%s%s", page->prefix, page->metric->name, suffix);
}

/* All labels in the order of their names, the quantile last, as Prometheus' own library has them. */
static void put_labels(struct page *page, const char *extra)
{
	const struct metric_page_options *options = page->options;
	const struct metric *m = page->metric;
	const struct metric_label common[] = { { "host", options->host }, { "trust_domain", options->trust_domain } };
	const char *between = "{";
	size_t own = 0;

	for (size_t i = 0; i <= 2; i++) {
		for (; own < m->n_labels && (i == 2 || strcmp(m->labels[own].name, common[i].name) < 0); own++, between = ",")
			buf_printf(page->out, "%s%s=\"%s\"", between, m->labels[own].name, m->labels[own].value);
		if (i < 2 && common[i].value != NULL) {
			buf_printf(page->out, "%s%s=\"", between, common[i].name);
			put_clean(page->out, common[i].value);
			buf_put(page->out, '"');
			between = ",";
		}
	}
	if (extra[0] != '\0')
		buf_printf(page->out, "%s%s}", between, extra);
	else if (between[0] == ',')
		buf_put(page->out, '}');
}

static void put_sample(struct page *page, const char *suffix, const char *extra, double value)
{
	put_name(page, suffix);
	put_labels(page, extra);
	if (isnan(value))
		buf_puts(page->out, " NaN\n");
	else
		buf_printf(page->out, " %.15g\n", value);
}

static double quantile(const struct metric *m, double q)
{
	int64_t number = clock_mono_ms() / WINDOW_MS;
	uint64_t counts[QUANTILE_BUCKETS] = { 0 }, total = 0, seen = 0;

	for (int w = 0; w < 2; w++) {
		int64_t of = atomic_load_explicit(&m->windows[w].number, memory_order_relaxed);

		for (int i = 0; i < QUANTILE_BUCKETS && of >= number - 1; i++)
			counts[i] += atomic_load_explicit(&m->windows[w].buckets[i], memory_order_relaxed);
	}
	for (int i = 0; i < QUANTILE_BUCKETS; i++)
		total += counts[i];
	for (int i = 0; i < QUANTILE_BUCKETS && total > 0; i++) {
		seen += counts[i];
		if ((double)seen >= q * (double)total)
			return exp2((i + QUANTILE_LOWEST) / 4.0);
	}
	return NAN;
}

static void put_summary(struct page *page)
{
	const struct metric *m = page->metric;

	put_sample(page, "", "quantile=\"0.5\"", quantile(m, 0.5));
	put_sample(page, "", "quantile=\"0.9\"", quantile(m, 0.9));
	put_sample(page, "", "quantile=\"0.99\"", quantile(m, 0.99));
}

static void put_histogram(struct page *page)
{
	uint64_t total = 0;
	char le[48];

	for (int i = 0; i < EDGES; i++) {
		total += atomic_load_explicit(&page->metric->below_or_equal[i], memory_order_relaxed);
		snprintf(le, sizeof le, "le=\"%g\"", edges[i]);
		put_sample(page, "_bucket", le, (double)total);
	}
	put_sample(page, "_bucket", "le=\"+Inf\"", (double)atomic_load(&page->metric->count));
}

static void put_metric(struct page *page)
{
	const struct metric *m = page->metric;
	double count = (double)atomic_load_explicit(&m->count, memory_order_relaxed);

	switch (m->kind) {
	case METRIC_COUNTER:
		put_sample(page, "", "", count);
		return;
	case METRIC_GAUGE:
		if (count > 0)
			put_sample(page, "", "", atomic_load_explicit(&m->gauge, memory_order_relaxed));
		return;
	case METRIC_SUMMARY:
		put_summary(page);
		break;
	case METRIC_HISTOGRAM:
		put_histogram(page);
		break;
	}
	put_sample(page, "_sum", "", (double)atomic_load_explicit(&m->sum_millionths, memory_order_relaxed) / 1e6);
	put_sample(page, "_count", "", count);
}

static int by_name(const void *a, const void *b)
{
	const struct metric *x = *(struct metric *const *)a, *y = *(struct metric *const *)b;

	return compare(x, y->name, y->labels, y->n_labels);
}

static void put_head(struct page *page)
{
	static const char *const kinds[] = { "counter", "gauge", "summary", "histogram" };

	buf_puts(page->out, "# HELP ");
	put_name(page, " ");
	put_name(page, "\n# TYPE ");
	put_name(page, " ");
	buf_printf(page->out, "%s\n", kinds[page->metric->kind]);
}

void metric_page(const struct metric_page_options *options, struct buf *out)
{
	OWN_STRUCT(arena) arena = arena_new();
	const char *prefix = options->prefix[0] == '\0' ? "" : arena_printf(arena, "%s_", options->prefix);
	struct page page = { .options = options, .out = out };
	struct metric **sorted;
	size_t n = 0;

	for (size_t i = 0; i < n_fillers; i++)
		fillers[i].fill(fillers[i].ctx);
	pthread_mutex_lock(&lock);
	sorted = arena_alloc(arena, n_all * sizeof *sorted);
	for (struct metric *m = all; m != NULL; m = m->next)
		sorted[n++] = m;
	pthread_mutex_unlock(&lock);
	if (n > 0)
		qsort(sorted, n, sizeof *sorted, by_name);
	for (size_t i = 0; i < n; i++) {
		page.metric = sorted[i];
		page.prefix = strncmp(sorted[i]->name, NAME "_", strlen(NAME) + 1) == 0 ? "" : prefix;
		if (i == 0 || strcmp(sorted[i - 1]->name, sorted[i]->name) != 0)
			put_head(&page);
		put_metric(&page);
	}
}

void metric_snake_case(const char *camel, char *out)
{
	for (const char *c = camel; *c != '\0'; c++) {
		if (isupper((unsigned char)*c) && c > camel && (islower((unsigned char)c[-1]) || islower((unsigned char)c[1])))
			*out++ = '_';
		*out++ = (char)tolower((unsigned char)*c);
	}
	*out = '\0';
}
