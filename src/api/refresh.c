/* SPDX-License-Identifier: Apache-2.0 */
/* Everything below happens on the refresher's loop but what is said to be thread-safe.
 *
 *   relationships --reconcile--> struct managed, each with a task: poll, answer those who asked, sleep
 *                                  removed: cancelled; the task frees it at its end
 *   refresher_refresh --message--> the managed one's list; its next poll answers. A poll that has begun does not: it
 * may be of what was configured before */
#include "api/refresh.h"

#include "api/poll.h"
#include "base/clock.h"
#include "base/gotime.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/rand.h"
#include "base/task.h"
#include "raft/replica.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SUBSYSTEM KV("subsystem_name", "bundle_client")

enum {
	RECONCILE_MS = 10 * 1000,
	WHO_LEADS_MS = 1000,
	POLLS = 32, /* at a time */
	TURN_MS = 100,
};

struct refresher {
	struct server *server;
	struct loop *loop;
	struct reader *reader;
	struct fetcher *fetcher;
	struct link managed;
	size_t n_polls;
	uint64_t revision; /* of the state at the last look */
	bool looked;
	struct wait wake; /* the supervisor's */
	struct message kick;
	atomic_bool kicked;
	bool leads;
	atomic_bool closing, stopped; /* nobody may ask any more; the loop has ended */
	bool started;
};

/* A trust domain that we federate with. */
struct managed {
	struct link link;
	struct refresher *refresher;
	char *td, *url, *endpoint_id; /* endpoint_id NULL: https_web */
	struct task *task;
	struct wait wake;
	struct link requests;
	unsigned failures;
	bool found; /* at the present look */
};

struct request {
	struct link link;
	struct message there, back;
	struct refresher *refresher;
	struct loop *asker;
	struct wait done;
	atomic_int refs; /* the asker's and the refresher's */
	struct err err;  /* code OK: it was fetched */
	char td[];       /* what is to be polled */
};

/* --- requests --- */

static void request_unref(struct request *request)
{
	if (atomic_fetch_sub(&request->refs, 1) == 1)
		free(request);
}

static void deliver_back(struct message *message)
{
	struct request *request = LIST_ITEM(message, struct request, back);

	wait_done(&request->done);
	request_unref(request);
}

static const struct err given_up = { .code = CODE_UNAVAILABLE,
				     .text = "the relationship is gone, or the server stops" };

static void answer_all(struct link *requests, const struct err *err)
{
	while (!list_empty(requests)) {
		struct request *request = LIST_ITEM(requests->next, struct request, link);

		list_remove(&request->link);
		request->err = *err;
		loop_post(request->asker, &request->back);
	}
}

static void take_all(struct link *from, struct link *to)
{
	while (!list_empty(from)) {
		struct link *first = from->next;

		list_remove(first);
		list_push(to, first);
	}
}

/* --- one trust domain --- */

static void wake_up(struct wait *wait)
{
	if (!wait->done)
		wait_done(wait);
}

static void managed_free(struct managed *m)
{
	free(m->td);
	free(m->url);
	free(m->endpoint_id);
	free(m);
}

static void count_poll(const struct managed *m, enum code rc, int64_t begin_ms, bool changed)
{
	/* SPIRE's errors have no code here */
	const char *status = rc == CODE_OK ? "OK" : "Unknown";
	const struct metric_label *labels = METRIC_LABELS({ "status", status }, { "trust_domain_id", m->td });
	const struct metric_label *td = METRIC_LABELS({ "trust_domain_id", m->td });

	metric_add(metric_get(METRIC_COUNTER, "bundle_manager_fetch_federated_bundle", labels), 1);
	metric_observe(metric_get(METRIC_SUMMARY, "bundle_manager_fetch_federated_bundle_elapsed_time", labels),
		       (double)(clock_mono_ms() - begin_ms));
	if (rc == CODE_OK)
		metric_set(metric_get(METRIC_GAUGE, NAME "_federated_bundle_refreshed_timestamp_seconds", td),
			   (double)clock_wall_s());
	if (changed)
		metric_add(metric_get(METRIC_COUNTER, "bundle_manager_update_federated_bundle", td), 1);
}

/* What is configured may change while the poll waits: it goes by a copy. */
static enum code look(struct managed *m, struct arena *arena, int64_t *delay_ms, struct err *err)
{
	struct refresher *r = m->refresher;
	const struct poll poll = {
		.server = r->server,
		.reader = r->reader,
		.fetcher = r->fetcher,
		.arena = arena,
		.td = m->td,
		.url = arena_strdup(arena, m->url),
		.endpoint_id = m->endpoint_id == NULL ? NULL : arena_strdup(arena, m->endpoint_id),
	};
	int64_t begin_ms = clock_mono_ms();
	Pb__Bundle *known = NULL;
	bool changed = false;
	enum code rc;

	log_debug("Polling for bundle update", SUBSYSTEM, KV("trust_domain", m->td));
	rc = poll_bundle(&poll, &changed, &known, err);
	if (rc == CODE_CANCELLED)
		return rc;
	count_poll(m, rc, begin_ms, changed);
	m->failures = rc == CODE_OK ? 0 : m->failures + 1;
	if (rc != CODE_OK)
		log_error("Error updating bundle", SUBSYSTEM, KV("error", err->text), KV("trust_domain", m->td));
	else if (changed)
		log_info("Bundle refreshed", SUBSYSTEM, KV("trust_domain", m->td));
	*delay_ms = poll_delay_ms(known, m->failures);
	return rc;
}

/* One poll, its answers, and when the next one is due (clock_mono_ms). CANCELLED: no more. */
static enum code poll_once(struct managed *m, int64_t *next_ms)
{
	struct refresher *r = m->refresher;
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	struct link asked;
	int64_t delay_ms = 0;
	enum code rc;
	char at[GO_TIME_MAX];

	while (r->n_polls >= POLLS)
		TRY(task_sleep(TURN_MS));
	list_init(&asked);
	take_all(&m->requests, &asked);
	r->n_polls++;
	rc = look(m, arena, &delay_ms, &err);
	r->n_polls--;
	if (rc == CODE_CANCELLED) {
		answer_all(&asked, &given_up);
		return rc;
	}
	/* SPIRE tells no failures apart here, and NOT_FOUND is another answer. A success may have met an error on its
	 * way. */
	err.code = rc == CODE_OK ? CODE_OK : CODE_INTERNAL;
	answer_all(&asked, &err);
	delay_ms += (int64_t)((double)delay_ms * 0.1 * rand_unit()); /* so that many do not come together for ever */
	*next_ms = clock_mono_ms() + delay_ms;
	log_debug("Scheduling next bundle refresh", SUBSYSTEM,
		  KV("at", go_time_rfc3339((clock_wall_ms() + delay_ms) / 1000, at)), KV("trust_domain", m->td));
	return CODE_OK;
}

static void manage(void *arg)
{
	struct managed *m = arg;
	int64_t next_ms = 0;
	enum code rc = CODE_OK;

	while (rc != CODE_CANCELLED) {
		bool due = m->refresher->leads && clock_mono_ms() >= next_ms;

		if (due || !list_empty(&m->requests)) {
			rc = poll_once(m, &next_ms);
			continue;
		}
		rc = task_wait(&m->wake, m->refresher->leads ? next_ms : INT64_MAX);
		if (rc == CODE_OK)
			m->wake = (struct wait){ 0 };
	}
	answer_all(&m->requests, &given_up);
	log_info("No longer polling for updates", SUBSYSTEM, KV("trust_domain", m->td));
	list_remove(&m->link);
	managed_free(m);
}

/* --- which trust domains --- */

static struct managed *find(struct refresher *r, const char *td)
{
	LIST_FOR (item, &r->managed)
		if (strcmp(LIST_ITEM(item, struct managed, link)->td, td) == 0)
			return LIST_ITEM(item, struct managed, link);
	return NULL;
}

static bool same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void put_target(struct managed *m, const char *url, const char *endpoint_id)
{
	free(m->url);
	free(m->endpoint_id);
	m->url = xstrdup(url);
	m->endpoint_id = endpoint_id == NULL ? NULL : xstrdup(endpoint_id);
}

static const char *profile_name(const struct managed *m)
{
	return m->endpoint_id == NULL ? "https_web" : "https_spiffe";
}

static void add(struct refresher *r, const char *td, const char *url, const char *endpoint_id)
{
	struct managed *m = xcalloc(1, sizeof *m);

	m->refresher = r;
	m->td = xstrdup(td);
	m->found = true;
	list_init(&m->requests);
	put_target(m, url, endpoint_id);
	m->task = task_spawn(r->loop, "federation", manage, m);
	if (m->task == NULL) {
		log_error("Failed to reload configs", SUBSYSTEM, KV("error", "there are too many tasks"),
			  KV("trust_domain", td));
		managed_free(m);
		return;
	}
	list_push(&r->managed, &m->link);
	log_info("Trust domain is now managed", SUBSYSTEM, KV("bundle_endpoint_profile", profile_name(m)),
		 KV("bundle_endpoint_url", url), KV("trust_domain", td));
}

static void want(struct refresher *r, const char *td, const char *url, const char *endpoint_id)
{
	struct managed *m = find(r, td);

	if (strcmp(td, r->server->td) == 0)
		return; /* refresher_new has said so */
	if (m == NULL) {
		add(r, td, url, endpoint_id);
		return;
	}
	if (m->found)
		return; /* the configuration's wins */
	m->found = true;
	if (strcmp(m->url, url) == 0 && same_text(m->endpoint_id, endpoint_id))
		return;
	put_target(m, url, endpoint_id);
	m->failures = 0;
	wake_up(&m->wake);
	log_info("Updated configuration for managed trust domain", SUBSYSTEM,
		 KV("bundle_endpoint_profile", profile_name(m)), KV("bundle_endpoint_url", url), KV("entry", td));
}

static enum code want_one(uint64_t seq __attribute__((unused)), const Pb__FederationRelationship *relationship,
			  void *ctx, struct err *err __attribute__((unused)))
{
	bool spiffe = relationship->bundle_endpoint_profile_case ==
		      PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;

	want(ctx, relationship->trust_domain, relationship->bundle_endpoint_url,
	     spiffe ? relationship->https_spiffe->endpoint_spiffe_id : NULL);
	return CODE_OK;
}

static void want_configured(struct refresher *r)
{
	const struct config *config = r->server->config;

	for (size_t i = 0; i < config->n_federates_with; i++)
		want(r, config->federates_with[i].trust_domain, config->federates_with[i].bundle_endpoint_url,
		     config->federates_with[i].profile == ENDPOINT_HTTPS_SPIFFE
			     ? config->federates_with[i].endpoint_spiffe_id
			     : NULL);
}

static void drop(struct managed *m)
{
	log_info("Trust domain no longer managed", SUBSYSTEM, KV("entry", m->td));
	list_remove(&m->link);
	task_cancel(m->task);
}

static enum code look_for_changes(struct refresher *r, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(view) view = NULL;
	uint64_t revision;

	TRY(view_open(r->reader, &view, err));
	revision = view_revision(view);
	if (r->looked && revision == r->revision)
		return CODE_OK;
	LIST_FOR (item, &r->managed)
		LIST_ITEM(item, struct managed, link)->found = false;
	want_configured(r);
	TRY(view_relationships(view, 0, 0, arena, want_one, r, err));
	LIST_FOR_SAFE (item, &r->managed)
		if (!LIST_ITEM(item, struct managed, link)->found)
			drop(LIST_ITEM(item, struct managed, link));
	r->revision = revision;
	r->looked = true;
	return CODE_OK;
}

static void reconcile(struct refresher *r)
{
	struct err err = { 0 };

	if (look_for_changes(r, &err) != CODE_OK)
		log_error("Failed to reload configs", SUBSYSTEM, KV("error", err.text));
}

static void look_who_leads(struct refresher *r)
{
	struct replica_view cluster;
	bool leads;

	replica_view(r->server->replica, &cluster);
	leads = cluster.alone || (cluster.is_leader && cluster.ready);
	if (leads == r->leads)
		return;
	r->leads = leads;
	LIST_FOR (item, &r->managed)
		wake_up(&LIST_ITEM(item, struct managed, link)->wake);
}

static void supervise(void *arg)
{
	struct refresher *r = arg;
	int64_t reconcile_ms = 0;
	enum code rc = CODE_OK;

	do {
		look_who_leads(r);
		if (rc == CODE_OK || clock_mono_ms() >= reconcile_ms) {
			reconcile(r);
			reconcile_ms = clock_mono_ms() + RECONCILE_MS;
		}
		rc = task_wait(&r->wake, clock_mono_ms() + WHO_LEADS_MS);
		if (rc == CODE_OK)
			r->wake = (struct wait){ 0 };
	} while (rc != CODE_CANCELLED);
	log_info("Shutting down", SUBSYSTEM);
}

/* --- from other threads --- */

static void deliver_kick(struct message *message)
{
	struct refresher *r = LIST_ITEM(message, struct refresher, kick);

	atomic_store(&r->kicked, false);
	wake_up(&r->wake);
}

void refresher_changed(struct refresher *r)
{
	if (r != NULL && !atomic_load(&r->closing) && !atomic_exchange(&r->kicked, true))
		loop_post(r->loop, &r->kick);
}

static void deliver_request(struct message *message)
{
	struct request *request = LIST_ITEM(message, struct request, there);
	struct refresher *r = request->refresher;
	struct managed *m;
	struct err unknown;
	struct link one;

	if (atomic_load(&r->stopped)) { /* its loop may be gone: nobody is told */
		request_unref(request);
		return;
	}
	reconcile(r);
	m = find(r, request->td);
	if (m != NULL) {
		list_push(&m->requests, &request->link);
		wake_up(&m->wake);
		return;
	}
	list_init(&one);
	list_push(&one, &request->link);
	err_set(&unknown, CODE_NOT_FOUND, "no relationship with trust domain \"%s\"", request->td);
	answer_all(&one, &unknown);
}

enum code refresher_refresh(struct refresher *r, const char *td, int64_t deadline_ms, struct err *err)
{
	struct request *request;
	enum code rc;

	if (r == NULL || atomic_load(&r->closing))
		return err_set(err, CODE_UNAVAILABLE, "the server is starting or stopping");
	request = xcalloc(1, sizeof *request + strlen(td) + 1);
	strcpy(request->td, td);
	request->there.deliver = deliver_request;
	request->back.deliver = deliver_back;
	request->refresher = r;
	request->asker = loop_self();
	list_init(&request->link);
	atomic_init(&request->refs, 2);
	loop_post(r->loop, &request->there);
	rc = task_wait(&request->done, deadline_ms);
	if (rc != CODE_OK)
		err_set(err, rc, "the bundle was not fetched in time");
	else if (request->err.code != CODE_OK)
		rc = err_set(err, request->err.code, "%s", request->err.text);
	request_unref(request);
	return rc;
}

/* --- life --- */

static void warn_of_own(const struct server *server)
{
	for (size_t i = 0; i < server->config->n_federates_with; i++)
		if (strcmp(server->config->federates_with[i].trust_domain, server->td) == 0)
			log_warn("federates_with names the server's own trust domain: it has no effect",
				 KV("trust_domain", server->td));
}

enum code refresher_new(struct server *server, struct refresher **out, struct err *err)
{
	struct reader *reader;
	struct refresher *r;

	TRY(reader_open(server->state_path, &reader, err));
	r = xcalloc(1, sizeof *r);
	r->server = server;
	r->reader = reader;
	r->loop = loop_new("federation");
	r->fetcher = fetcher_new(r->loop);
	r->kick.deliver = deliver_kick;
	list_init(&r->managed);
	warn_of_own(server);
	*out = r;
	return CODE_OK;
}

void refresher_start(struct refresher *r)
{
	task_spawn(r->loop, "federation supervisor", supervise, r);
	r->started = true;
	loop_start(r->loop);
}

void refresher_stop(struct refresher *r)
{
	if (r == NULL || !r->started)
		return;
	atomic_store(&r->closing, true);
	loop_stop(r->loop);
	loop_join(r->loop);
	atomic_store(&r->stopped, true);
	r->started = false;
}

void refresher_free(struct refresher *r)
{
	if (r == NULL)
		return;
	refresher_stop(r);
	atomic_store(&r->closing, true);
	atomic_store(&r->stopped, true);
	loop_free(r->loop);
	fetcher_free(r->fetcher);
	reader_close(r->reader);
	free(r);
}
