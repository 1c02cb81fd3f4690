/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/drill_load.h"

#include "base/clock.h"
#include "base/config.h"
#include "cmd/csr.h"

#include "entry.pb-c.h"
#include "svid.pb-c.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	CALL_MS = 12 * 1000, /* an attempt: a node waits 10 s for a leader (V7) */
	CONNECT_MS = 1000,
	GIVE_UP_MS = 60 * 1000, /* a write */
	AGAIN_MS = 10,
	DOWN_MS = 500, /* a node that did not take the connection is passed over for so long */
	MINT_MS = 100,
	SVID_TTL_S = 300
};

struct worker {
	struct drill_load *load;
	unsigned number;
	pthread_t thread;
	bool runs;
	struct client *clients[DRILL_TARGETS_MAX];
	int64_t down_until_ms[DRILL_TARGETS_MAX];
	/* under the load's lock */
	int64_t waiting_since_ms; /* 0: no write is under way */
	uint8_t *acknowledged;    /* one for each write begun */
	uint64_t n, cap;
};

struct drill_load {
	struct drill_load_options options;
	struct buf csr;
	struct worker writers[DRILL_TARGETS_MAX], minters[DRILL_TARGETS_MAX];
	pthread_mutex_t lock;
	pthread_cond_t stop_wake;
	bool stop;
	struct drill_load_result result;
	int64_t round_ms, slowest_ms;
	uint64_t round_writes;
};

/* Waits so long, or until the load stops: then false. */
static bool pause_for(struct drill_load *load, int64_t ms)
{
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&load->lock);
	while (!load->stop && pthread_cond_timedwait(&load->stop_wake, &load->lock, &until) == 0)
		;
	stop = load->stop;
	pthread_mutex_unlock(&load->lock);
	return !stop;
}

static void note_failure(struct drill_load *load, enum code code, bool lost)
{
	pthread_mutex_lock(&load->lock);
	if (lost)
		load->result.lost++;
	else if ((unsigned)code < DRILL_CODES)
		load->result.failed[code]++;
	pthread_mutex_unlock(&load->lock);
}

/* The connection to that node, made if need be; NULL: it takes none. */
static struct client *client_to(struct worker *worker, unsigned target)
{
	struct client_options options = worker->load->options.targets[target].options;
	struct err err = { 0 };

	if (worker->clients[target] != NULL)
		return worker->clients[target];
	if (clock_mono_ms() < worker->down_until_ms[target])
		return NULL;
	options.connect_timeout_ms = CONNECT_MS;
	if (client_open(&options, &worker->clients[target], &err) == CODE_OK) {
		client_timeout(worker->clients[target], CALL_MS);
		return worker->clients[target];
	}
	worker->clients[target] = NULL;
	worker->down_until_ms[target] = clock_mono_ms() + DOWN_MS;
	return NULL;
}

/* After a failure: did the node say so, or was the connection lost? It is given up then. */
static bool was_lost(struct worker *worker, unsigned target)
{
	if (client_trailer(worker->clients[target], "grpc-status") != NULL)
		return false;
	client_close(worker->clients[target]);
	worker->clients[target] = NULL;
	return true;
}

/* --- writes --- */

static Pb__SPIFFEID id_of(const struct drill_load *load, char *path)
{
	Pb__SPIFFEID id = PB__SPIFFEID__INIT;

	id.trust_domain = load->options.td;
	id.path = path;
	return id;
}

/* `again`: an earlier try of this write may have been carried out. */
static enum code try_write(struct worker *worker, unsigned target, uint64_t n, bool again)
{
	struct drill_load *load = worker->load;
	OWN_STRUCT(arena) arena = arena_new();
	char path[128], parent[96];
	Pb__SPIFFEID spiffe_id = id_of(load, path), parent_id = id_of(load, parent);
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[1] = { &selector };
	Pb__Entry entry = PB__ENTRY__INIT, *entries[1] = { &entry };
	Pb__BatchCreateEntryRequest request = PB__BATCH_CREATE_ENTRY_REQUEST__INIT;
	void *answer = NULL;
	const Pb__BatchCreateEntryResponse *reply;
	struct err err = { 0 };
	enum code rc;

	snprintf(parent, sizeof parent, "/drill/%s", load->options.run);
	snprintf(path, sizeof path, "/drill/%s/%u/%" PRIu64, load->options.run, worker->number, n);
	selector.type = "drill";
	selector.value = "probe";
	entry.spiffe_id = &spiffe_id;
	entry.parent_id = &parent_id;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	request.entries = entries;
	request.n_entries = 1;
	rc = client_call(worker->clients[target], "/spire.api.server.entry.v1.Entry/BatchCreateEntry", &request,
			 &pb__batch_create_entry_response__descriptor, arena, &answer, &err);
	if (rc != CODE_OK) {
		note_failure(load, rc, was_lost(worker, target));
		return rc;
	}
	reply = answer;
	rc = reply->n_results == 1 && reply->results[0]->status != NULL ? (enum code)reply->results[0]->status->code
									: CODE_INTERNAL;
	if (rc == CODE_ALREADY_EXISTS && again)
		rc = CODE_OK;
	if (rc != CODE_OK)
		note_failure(load, rc, false);
	return rc;
}

static bool write_until_acknowledged(struct worker *worker, uint64_t n)
{
	struct drill_load *load = worker->load;
	int64_t end_ms = clock_mono_ms() + GIVE_UP_MS;
	unsigned target = worker->number;
	bool again = false;

	while (clock_mono_ms() < end_ms) {
		if (client_to(worker, target) != NULL) {
			if (try_write(worker, target, n, again) == CODE_OK)
				return true;
			again = true;
		}
		target = (target + 1) % load->options.n;
		if (target == worker->number)
			nanosleep(&(struct timespec){ 0, AGAIN_MS * 1000000 }, NULL);
	}
	return false;
}

static uint64_t begin_write(struct worker *worker)
{
	struct drill_load *load = worker->load;
	uint64_t n;

	pthread_mutex_lock(&load->lock);
	n = worker->n++;
	if (n == worker->cap) {
		worker->cap = 2 * worker->cap + 1024;
		worker->acknowledged = xrealloc(worker->acknowledged, worker->cap);
	}
	worker->acknowledged[n] = 0;
	worker->waiting_since_ms = clock_mono_ms();
	pthread_mutex_unlock(&load->lock);
	return n;
}

static void end_write(struct worker *worker, uint64_t n, bool acknowledged)
{
	struct drill_load *load = worker->load;
	int64_t took_ms;

	pthread_mutex_lock(&load->lock);
	took_ms = clock_mono_ms() - worker->waiting_since_ms;
	worker->waiting_since_ms = 0;
	worker->acknowledged[n] = acknowledged;
	load->result.writes += acknowledged;
	load->result.given_up += !acknowledged;
	load->round_writes += acknowledged;
	if (took_ms > load->slowest_ms)
		load->slowest_ms = took_ms;
	pthread_mutex_unlock(&load->lock);
}

static void *write_all(void *arg)
{
	struct worker *worker = arg;
	struct drill_load *load = worker->load;
	int64_t every_ms = 1000 * (int64_t)load->options.n / load->options.rate;
	int64_t next_ms = clock_mono_ms() + every_ms * worker->number / (int64_t)load->options.n;

	for (;;) {
		int64_t now_ms = clock_mono_ms();
		uint64_t n;

		if (!pause_for(load, next_ms > now_ms ? next_ms - now_ms : 0))
			return NULL;
		now_ms = clock_mono_ms();
		next_ms = next_ms + every_ms > now_ms ? next_ms + every_ms : now_ms;
		n = begin_write(worker);
		end_write(worker, n, write_until_acknowledged(worker, n));
	}
}

/* --- X509-SVIDs --- */

static void mint_once(struct worker *worker)
{
	struct drill_load *load = worker->load;
	OWN_STRUCT(arena) arena = arena_new();
	Pb__MintX509SVIDRequest request = PB__MINT_X509_SVIDREQUEST__INIT;
	struct err err = { 0 };
	void *answer = NULL;
	enum code rc;
	bool lost;

	request.csr = (ProtobufCBinaryData){ load->csr.len, load->csr.data };
	request.ttl = SVID_TTL_S;
	if (client_to(worker, worker->number) == NULL)
		return; /* a node that is down refuses nothing */
	rc = client_call(worker->clients[worker->number], "/spire.api.server.svid.v1.SVID/MintX509SVID", &request,
			 &pb__mint_x509_svidresponse__descriptor, arena, &answer, &err);
	lost = rc != CODE_OK && was_lost(worker, worker->number);
	pthread_mutex_lock(&load->lock);
	load->result.svids += rc == CODE_OK;
	load->result.lost += lost;
	if (rc != CODE_OK && !lost) {
		load->result.svids_refused++;
		snprintf(load->result.refusal, sizeof load->result.refusal, "%s: %.200s",
			 load->options.targets[worker->number].label, err.text);
	}
	pthread_mutex_unlock(&load->lock);
}

static void *mint_all(void *arg)
{
	struct worker *worker = arg;

	while (pause_for(worker->load, MINT_MS))
		mint_once(worker);
	return NULL;
}

/* --- the whole --- */

static enum code start_worker(struct drill_load *load, struct worker *worker, unsigned number, void *(*run)(void *),
			      struct err *err)
{
	int rv;

	worker->load = load;
	worker->number = number;
	rv = pthread_create(&worker->thread, NULL, run, worker);
	if (rv != 0)
		return err_set(err, CODE_INTERNAL, "a thread cannot be started: %s", strerror(rv));
	worker->runs = true;
	return CODE_OK;
}

static enum code start_all(struct drill_load *load, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct strings none = { 0 };
	OWN_BUF key = { 0 };
	enum code rc = csr_make(arena_printf(arena, "spiffe://%s/drill/%s", load->options.td, load->options.run), &none,
				&load->csr, &key, err);

	if (key.len > 0)
		explicit_bzero(key.data, key.len); /* nobody wants it */
	TRY(rc);
	for (unsigned i = 0; i < load->options.n; i++) {
		TRY(start_worker(load, &load->writers[i], i, write_all, err));
		TRY(start_worker(load, &load->minters[i], i, mint_all, err));
	}
	return CODE_OK;
}

enum code drill_load_start(const struct drill_load_options *options, struct drill_load **out, struct err *err)
{
	struct drill_load *load = xcalloc(1, sizeof *load);
	pthread_condattr_t monotonic;
	enum code rc;

	assert(options->n >= 1 && options->n <= DRILL_TARGETS_MAX && options->rate >= 1);
	load->options = *options;
	pthread_mutex_init(&load->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&load->stop_wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	rc = start_all(load, err);
	if (rc != CODE_OK) {
		drill_load_free(load);
		return rc;
	}
	*out = load;
	return CODE_OK;
}

static void stop_worker(struct worker *worker)
{
	if (worker->runs)
		pthread_join(worker->thread, NULL);
	worker->runs = false;
	for (unsigned i = 0; i < DRILL_TARGETS_MAX; i++) {
		client_close(worker->clients[i]);
		worker->clients[i] = NULL;
	}
}

void drill_load_stop(struct drill_load *load)
{
	pthread_mutex_lock(&load->lock);
	load->stop = true;
	pthread_cond_broadcast(&load->stop_wake);
	pthread_mutex_unlock(&load->lock);
	for (unsigned i = 0; i < DRILL_TARGETS_MAX; i++) {
		stop_worker(&load->writers[i]);
		stop_worker(&load->minters[i]);
	}
}

void drill_load_free(struct drill_load *load)
{
	if (load == NULL)
		return;
	drill_load_stop(load);
	for (unsigned i = 0; i < DRILL_TARGETS_MAX; i++)
		free(load->writers[i].acknowledged);
	buf_done(&load->csr);
	pthread_cond_destroy(&load->stop_wake);
	pthread_mutex_destroy(&load->lock);
	free(load);
}

void drill_load_round(struct drill_load *load)
{
	pthread_mutex_lock(&load->lock);
	load->round_ms = clock_mono_ms();
	load->slowest_ms = 0;
	load->round_writes = 0;
	pthread_mutex_unlock(&load->lock);
}

int64_t drill_load_slowest_ms(struct drill_load *load, uint64_t *acknowledged)
{
	int64_t now_ms = clock_mono_ms(), slowest_ms;

	pthread_mutex_lock(&load->lock);
	slowest_ms = load->slowest_ms;
	for (unsigned i = 0; i < load->options.n; i++) {
		int64_t since_ms = load->writers[i].waiting_since_ms;

		if (since_ms != 0 && now_ms - since_ms > slowest_ms)
			slowest_ms = now_ms - since_ms;
	}
	*acknowledged = load->round_writes;
	pthread_mutex_unlock(&load->lock);
	return slowest_ms;
}

void drill_load_result(struct drill_load *load, struct drill_load_result *out)
{
	pthread_mutex_lock(&load->lock);
	*out = load->result;
	pthread_mutex_unlock(&load->lock);
}

bool drill_load_acknowledged(struct drill_load *load, unsigned writer, uint64_t n)
{
	const struct worker *worker = &load->writers[writer];

	return n < worker->n && worker->acknowledged[n] != 0;
}
