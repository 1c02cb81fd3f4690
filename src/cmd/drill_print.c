/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/drill.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

/* The nearest rank. */
static int64_t percentile(const int64_t *sorted, size_t n, unsigned p)
{
	return n == 0 ? 0 : sorted[(n * p + 99) / 100 - 1];
}

void drill_sum_up(struct drill_report *report)
{
	int64_t *stalls = xcalloc(report->n + 1, sizeof *stalls);

	for (size_t i = 0; i < report->n; i++)
		stalls[i] = report->rounds[i].stalled_ms;
	qsort(stalls, report->n, sizeof *stalls, by_size);
	report->p50_ms = percentile(stalls, report->n, 50);
	report->p99_ms = percentile(stalls, report->n, 99);
	report->max_ms = percentile(stalls, report->n, 100);
	free(stalls);
}

bool drill_passed(const struct drill_report *report)
{
	return report->missing == 0 && report->load.svids_refused == 0 && report->unchecked[0] == '\0' &&
	       report->ended[0] == '\0';
}

static void put(json_t *object, const char *key, int64_t value)
{
	json_object_set_new(object, key, json_integer(value));
}

static json_t *failures(const struct drill_report *report)
{
	json_t *object = json_object();

	for (int i = 0; i < DRILL_CODES; i++)
		if (report->load.failed[i] > 0)
			put(object, code_name(i), (int64_t)report->load.failed[i]);
	if (report->load.lost > 0)
		put(object, "ConnectionLost", (int64_t)report->load.lost);
	return object;
}

void drill_print_json(FILE *out, const struct drill_report *report)
{
	json_t *object = json_object(), *rounds = json_array(), *stall = json_object();
	char *text;

	json_object_set_new(object, "kind", json_string(report->kind));
	put(object, "rounds_wanted", report->wanted);
	for (size_t i = 0; i < report->n; i++) {
		json_t *round = json_object();

		json_object_set_new(round, "from", json_string(report->rounds[i].from));
		json_object_set_new(round, "to", json_string(report->rounds[i].to));
		put(round, "term", (int64_t)report->rounds[i].term);
		put(round, "stalled_ms", report->rounds[i].stalled_ms);
		json_array_append_new(rounds, round);
	}
	json_object_set_new(object, "rounds", rounds);
	put(stall, "p50", report->p50_ms);
	put(stall, "p99", report->p99_ms);
	put(stall, "max", report->max_ms);
	json_object_set_new(object, "stalled_ms", stall);
	put(object, "writes", (int64_t)report->load.writes);
	put(object, "given_up", (int64_t)report->load.given_up);
	json_object_set_new(object, "failed_calls", failures(report));
	put(object, "svids", (int64_t)report->load.svids);
	put(object, "svids_refused", (int64_t)report->load.svids_refused);
	put(object, "missing", (int64_t)report->missing);
	json_object_set_new(object, "unchecked", json_string(report->unchecked));
	json_object_set_new(object, "ended", json_string(report->ended));
	json_object_set_new(object, "passed", json_boolean(drill_passed(report)));
	text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
	fprintf(out, "%s\n", text == NULL ? "" : text);
	free(text);
	json_decref(object);
}

static void print_failures(FILE *out, const struct drill_report *report)
{
	const char *before = "";

	for (int i = 0; i < DRILL_CODES; i++) {
		if (report->load.failed[i] == 0)
			continue;
		fprintf(out, "%s%s %" PRIu64, before, code_name(i), report->load.failed[i]);
		before = ", ";
	}
	if (report->load.lost > 0)
		fprintf(out, "%sconnection lost %" PRIu64, before, report->load.lost);
	else if (before[0] == '\0')
		fprintf(out, "none");
}

void drill_print_pretty(FILE *out, const struct drill_report *report)
{
	for (size_t i = 0; i < report->n; i++)
		fprintf(out, "Round %-3zu        : %s -> %s (term %" PRIu64 "), writes stalled %" PRId64 " ms\n", i + 1,
			report->rounds[i].from, report->rounds[i].to, report->rounds[i].term,
			report->rounds[i].stalled_ms);
	fprintf(out, "Rounds           : %zu of %" PRId64 " (%s)\n", report->n, report->wanted, report->kind);
	fprintf(out, "Stall of writes  : p50 %" PRId64 " ms, p99 %" PRId64 " ms, max %" PRId64 " ms\n", report->p50_ms,
		report->p99_ms, report->max_ms);
	fprintf(out, "Writes           : %" PRIu64 " acknowledged, %" PRIu64 " given up\n", report->load.writes,
		report->load.given_up);
	fprintf(out, "X509-SVIDs       : %" PRIu64 " issued, %" PRIu64 " refused\n", report->load.svids,
		report->load.svids_refused);
	if (report->load.svids_refused > 0)
		fprintf(out, "Last refusal     : %s\n", report->load.refusal);
	fprintf(out, "Failed calls     : ");
	print_failures(out, report);
	fprintf(out, "\nMissing          : %" PRIu64 "\n", report->missing);
	if (report->unchecked[0] != '\0')
		fprintf(out, "Not checked      : %s\n", report->unchecked);
	if (report->ended[0] != '\0')
		fprintf(out, "Ended early      : %s\n", report->ended);
}

/* Names of members are made of a-z, 0-9 and '-'; other texts are escaped. */
static void put_escaped(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		const char *entity = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '&' ? "&amp;" : NULL;

		if (entity != NULL)
			fputs(entity, out);
		else
			fputc(*text, out);
	}
}

void drill_print_html(FILE *out, const struct drill_report *report)
{
	fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Failover drill</title>\n"
		     "<style>body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
		     "td,th{border:1px solid #999;padding:.3em .8em;text-align:left}</style></head><body>\n");
	fprintf(out, "<h1>Failover drill: %s</h1>\n<p>%zu of %" PRId64 " rounds by %s.",
		drill_passed(report) ? "passed" : "failed", report->n, report->wanted, report->kind);
	if (report->ended[0] != '\0') {
		fputs(" Ended early: ", out);
		put_escaped(out, report->ended);
	}
	fprintf(out,
		"</p>\n<table><tr><th>Stall of writes</th><td>p50 %" PRId64 " ms, p99 %" PRId64 " ms, max %" PRId64
		" ms</td></tr>\n",
		report->p50_ms, report->p99_ms, report->max_ms);
	fprintf(out, "<tr><th>Writes</th><td>%" PRIu64 " acknowledged, %" PRIu64 " given up</td></tr>\n",
		report->load.writes, report->load.given_up);
	fprintf(out,
		"<tr><th>X509-SVIDs</th><td>%" PRIu64 " issued, %" PRIu64
		" refused</td></tr>\n<tr><th>Failed calls</th><td>",
		report->load.svids, report->load.svids_refused);
	print_failures(out, report);
	fprintf(out,
		"</td></tr>\n<tr><th>Acknowledged writes that are missing</th><td>%" PRIu64
		"</td></tr>\n<tr><th>Nodes not checked</th><td>",
		report->missing);
	put_escaped(out, report->unchecked);
	fputs("</td></tr></table>\n<table><tr><th>Round</th><th>From</th><th>To</th><th>Term</th><th>Stall</th></tr>\n",
	      out);
	for (size_t i = 0; i < report->n; i++)
		fprintf(out, "<tr><td>%zu</td><td>%s</td><td>%s</td><td>%" PRIu64 "</td><td>%" PRId64 " ms</td></tr>\n",
			i + 1, report->rounds[i].from, report->rounds[i].to, report->rounds[i].term,
			report->rounds[i].stalled_ms);
	fputs("</table></body></html>\n", out);
}
