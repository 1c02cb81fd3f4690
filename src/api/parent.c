/* SPDX-License-Identifier: Apache-2.0 */
/* The server above ours. The lock guards what the two threads, the askers and the watching loop share; it is never held
 * while anything blocks.
 *
 *   workload thread: stream FetchX509SVID --(each answer)--> `fresh`
 *   caller thread:   letters and polls, one after the other, over one connection, which is made anew when an SVID is
 * fresh or a call has failed
 */
#include "api/parent.h"

#include "api/client.h"
#include "api/letter.h"
#include "api/pb.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/list.h"
#include "base/log.h"
#include "ca/key.h"
#include "ca/signer.h"
#include "ca/x509.h"
#include "workload.pb-c.h"

#include <openssl/crypto.h>
#include <openssl/x509.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
	POLL_MS = 5 * 1000,
	POLL_CALL_MS = 20 * 1000,
	MINT_CALL_MS = 30 * 1000,
	PUBLISH_CALL_MS = 5 * 1000,
	CONNECT_MS = 10 * 1000,
	RETRY_MS = 1000,
	RETRY_MOST = 30, /* times that */
	SLACK_MS = 250,  /* the thread says why before the asker gives up */
};

/* Who we are for the parent. */
struct own_svid {
	struct arena *arena;
	EVP_PKEY *key;
	struct span *chain, *roots;
	size_t n_chain, n_roots;
};

static void own_svid_free(struct own_svid *svid)
{
	if (svid == NULL)
		return;
	EVP_PKEY_free(svid->key);
	arena_free(svid->arena);
	free(svid);
}

OWNABLE_STRUCT(own_svid, own_svid_free)
OWNABLE(X509, X509_free)

struct job {
	struct letter letter;
	struct link link;
	struct arena *arena;
	Pb__NewDownstreamX509CARequest *mint; /* one of the two */
	Pb__PublishJWTAuthorityRequest *publish;
	int64_t deadline_ms;
	void *reply; /* in the arena */
	Pb__Bundle *bundle;
	enum code code;
	struct err err;
};

struct parent {
	struct arena *kept; /* of these: */
	const char *td, *server_id, *address, *socket;
	int stop_fd; /* readable: everything ends */
	int64_t poll_ms, retry_ms;
	pthread_t workload, caller;
	bool running;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;
	struct own_svid *fresh; /* not taken up yet */
	struct err no_svid;     /* why there has been none */
	struct link jobs;
	struct message news; /* posted while `news_posted` */
	bool news_posted;
	struct buf bundle; /* what the next delivery brings */
	struct loop *loop; /* who watches; NULL: nobody */
	void (*tell)(void *ctx, struct span bundle);
	void *ctx;

	/* the caller thread's alone */
	struct own_svid *svid;
	struct client *client;
	bool poll_failed; /* said so */
};

/* --- waiting --- */

/* With the lock held: until something has changed or the time has come. */
static void wait_changed(struct parent *p, int64_t until_ms)
{
	struct timespec until = { until_ms / 1000, until_ms % 1000 * 1000000 };

	if (until_ms == INT64_MAX)
		pthread_cond_wait(&p->changed, &p->lock);
	else
		pthread_cond_timedwait(&p->changed, &p->lock, &until);
}

static bool is_stopping(struct parent *p)
{
	bool stopping;

	pthread_mutex_lock(&p->lock);
	stopping = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return stopping;
}

/* --- the Workload API --- */

static enum code parse_key(ProtobufCBinaryData der, EVP_PKEY **out, struct err *err)
{
	const uint8_t *at = der.data;

	*out = d2i_AutoPrivateKey(NULL, &at, (long)der.len);
	if (*out == NULL)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "the private key is malformed");
	return CODE_OK;
}

static enum code check_pair(const struct own_svid *svid, struct err *err)
{
	const uint8_t *at = svid->chain[0].data;
	OWN(X509) leaf = d2i_X509(NULL, &at, (long)svid->chain[0].len);

	if (leaf == NULL || X509_check_private_key(leaf, svid->key) != 1)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "certificate and private key do not match");
	return CODE_OK;
}

static enum code read_svid(struct parent *p, const Pb__WorkloadX509SVID *from, struct own_svid **out, struct err *err)
{
	OWN_STRUCT(own_svid) svid = xcalloc(1, sizeof *svid);
	struct spiffe_id id;

	svid->arena = arena_new();
	TRY(id_parse(from->spiffe_id, svid->arena, &id, err));
	if (strcmp(id.td, p->td) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "it is for trust domain '%s', and ours is '%s'", id.td,
			       p->td);
	TRY(x509_split((struct span){ arena_memdup(svid->arena, from->x509_svid.data, from->x509_svid.len),
				      from->x509_svid.len },
		       svid->arena, &svid->chain, &svid->n_chain, err));
	TRY(x509_split(
		(struct span){ arena_memdup(svid->arena, from->bundle.data, from->bundle.len), from->bundle.len },
		svid->arena, &svid->roots, &svid->n_roots, err));
	TRY(parse_key(from->x509_svid_key, &svid->key, err));
	TRY(check_pair(svid, err));
	*out = TAKE(svid);
	return CODE_OK;
}

static enum code take_answer(struct parent *p, const Pb__WorkloadX509SVIDResponse *answer, struct err *err)
{
	struct own_svid *svid, *former;

	if (answer->n_svids == 0)
		return err_set(err, CODE_UNAVAILABLE, "the Workload API has no X509-SVID for us");
	if (read_svid(p, answer->svids[0], &svid, err) != CODE_OK)
		return err_wrap(err, CODE_UNAVAILABLE, "the X509-SVID '%s' of the Workload API cannot be used",
				answer->svids[0]->spiffe_id);
	log_debug("X509-SVID received from the Workload API", KV("subsystem_name", "upstream_authority"),
		  KV("spiffe_id", answer->svids[0]->spiffe_id));
	pthread_mutex_lock(&p->lock);
	former = p->fresh;
	p->fresh = svid;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	own_svid_free(former);
	return CODE_OK;
}

static void wipe_keys(Pb__WorkloadX509SVIDResponse *answer)
{
	for (size_t i = 0; i < answer->n_svids; i++)
		OPENSSL_cleanse(answer->svids[i]->x509_svid_key.data, answer->svids[i]->x509_svid_key.len);
}

/* One stream, until it ends. *got: it has brought something. */
static enum code watch_workload_api(struct parent *p, bool *got, struct err *err)
{
	const struct client_options options = { .unix_path = p->socket,
						.connect_timeout_ms = CONNECT_MS,
						.stop_fd = p->stop_fd };
	const Pb__WorkloadX509SVIDRequest request = PB__WORKLOAD_X509_SVIDREQUEST__INIT;
	OWN_STRUCT(client) client = NULL;
	enum code rc = CODE_OK;

	TRY(client_open(&options, &client, err));
	client_metadata(client, "workload.spiffe.io", "true");
	TRY(client_stream(client, "/SpiffeWorkloadAPI/FetchX509SVID", err));
	rc = client_send(client, &request, err);
	if (rc == CODE_OK)
		rc = client_send_end(client, err);
	while (rc == CODE_OK) {
		OWN_STRUCT(arena) arena = arena_new();
		void *answer = NULL;

		rc = client_recv(client, &pb__workload_x509_svidresponse__descriptor, arena, &answer, err);
		if (rc == CODE_OK && answer == NULL)
			rc = err_set(err, CODE_UNAVAILABLE, "the Workload API has ended the stream");
		if (rc == CODE_OK) {
			rc = take_answer(p, answer, err);
			wipe_keys(answer);
		}
		*got = *got || rc == CODE_OK;
	}
	client_stream_end(client);
	return rc;
}

static void *run_workload(void *arg)
{
	struct parent *p = arg;
	int64_t pause_ms = 0;

	while (!is_stopping(p)) {
		struct err err = { 0 };
		bool got = false;
		int64_t until_ms;

		watch_workload_api(p, &got, &err);
		if (is_stopping(p))
			break;
		pause_ms = got ? p->retry_ms : pause_ms + p->retry_ms;
		if (pause_ms > RETRY_MOST * p->retry_ms)
			pause_ms = RETRY_MOST * p->retry_ms;
		log_warn("Failed to watch the Workload API", KV("subsystem_name", "upstream_authority"),
			 KV("error", err.text), KV("workload_api_socket", p->socket),
			 KV_NUM("retry_after_s", pause_ms / 1000));
		pthread_mutex_lock(&p->lock);
		p->no_svid = err;
		until_ms = clock_mono_ms() + pause_ms;
		while (!p->stopping && clock_mono_ms() < until_ms)
			wait_changed(p, until_ms);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

/* --- calling the parent --- */

static void hang_up(struct parent *p)
{
	client_close(TAKE(p->client));
}

/* We have an SVID: the newest. */
static enum code need_svid(struct parent *p, int64_t deadline_ms, struct err *err)
{
	struct own_svid *fresh;
	enum code rc = CODE_OK;

	pthread_mutex_lock(&p->lock);
	while (p->fresh == NULL && p->svid == NULL && !p->stopping && clock_mono_ms() < deadline_ms)
		wait_changed(p, deadline_ms);
	fresh = TAKE(p->fresh);
	if (p->stopping)
		rc = err_set(err, CODE_CANCELLED, "the server is stopping");
	else if (fresh == NULL && p->svid == NULL)
		rc = err_set(err, CODE_UNAVAILABLE, "no X509-SVID from the Workload API at \"%s\" yet%s%s", p->socket,
			     p->no_svid.text[0] != '\0' ? ": " : "", p->no_svid.text);
	pthread_mutex_unlock(&p->lock);
	if (fresh != NULL) {
		hang_up(p); /* it borrows the key */
		own_svid_free(p->svid);
		p->svid = fresh;
	}
	return rc;
}

static enum code dial(struct parent *p, struct err *err)
{
	const struct own_svid *svid = p->svid;
	const struct client_options options = {
		.tcp = p->address,
		.server_id = p->server_id,
		.roots = svid->roots,
		.n_roots = svid->n_roots,
		.chain = svid->chain,
		.n_chain = svid->n_chain,
		.key = svid->key,
		.connect_timeout_ms = CONNECT_MS,
		.stop_fd = p->stop_fd,
	};

	return client_open(&options, &p->client, err);
}

/* A connection that was kept may have died meanwhile: then once more on a new one. All these calls may be repeated. */
static enum code call(struct parent *p, const char *method, const void *request, const ProtobufCMessageDescriptor *type,
		      int64_t timeout_ms, struct arena *arena, void **out, struct err *err)
{
	bool kept = p->client != NULL;
	enum code rc = kept ? CODE_OK : dial(p, err);

	if (rc != CODE_OK)
		return rc;
	client_timeout(p->client, timeout_ms);
	rc = client_call(p->client, method, request, type, arena, out, err);
	if (rc != CODE_UNAVAILABLE && rc != CODE_DEADLINE_EXCEEDED)
		return rc;
	hang_up(p);
	if (!kept || rc != CODE_UNAVAILABLE || is_stopping(p))
		return rc;
	TRY(dial(p, err));
	client_timeout(p->client, timeout_ms);
	rc = client_call(p->client, method, request, type, arena, out, err);
	if (rc == CODE_UNAVAILABLE || rc == CODE_DEADLINE_EXCEEDED)
		hang_up(p);
	return rc;
}

/* "what: rpc error: ...", with the code that the caller of ours shall see: what is in the way may go away. */
static enum code failed(enum code rc, const char *what, struct err *err)
{
	char text[sizeof err->text];

	snprintf(text, sizeof text, "%s", err->text);
	return err_set(err,
		       rc == CODE_UNAVAILABLE || rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED ? rc
												      : CODE_INTERNAL,
		       "%s: rpc error: code = %s desc = %s", what, code_name(rc), text);
}

static enum code get_bundle(struct parent *p, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	const Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	void *reply;
	enum code rc = call(p, "/spire.api.server.bundle.v1.Bundle/GetBundle", &request, &pb__bundle__descriptor,
			    POLL_CALL_MS, arena, &reply, err);

	if (rc != CODE_OK)
		return failed(rc, "failed to fetch bundle from upstream server", err);
	*out = reply;
	return CODE_OK;
}

static enum code carry_out(struct parent *p, struct job *job)
{
	struct err *err = &job->err;
	enum code rc = need_svid(p, job->deadline_ms, err);

	if (job->publish != NULL) {
		if (rc == CODE_OK)
			rc = call(p, "/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority", job->publish,
				  &pb__publish_jwtauthority_response__descriptor, PUBLISH_CALL_MS, job->arena,
				  &job->reply, err);
		return rc == CODE_OK ? rc : failed(rc, "failed to push JWT authority", err);
	}
	if (rc == CODE_OK)
		rc = call(p, "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA", job->mint,
			  &pb__new_downstream_x509_caresponse__descriptor, MINT_CALL_MS, job->arena, &job->reply, err);
	if (rc != CODE_OK)
		return failed(rc, "unable to request a new Downstream X509CA", err);
	return get_bundle(p, job->arena, &job->bundle, err);
}

static void post_news(struct parent *p, const Pb__Bundle *bundle)
{
	OWN_BUF bytes = { 0 };

	pb_encode(bundle, &bytes);
	pthread_mutex_lock(&p->lock);
	p->bundle.len = 0;
	buf_append(&p->bundle, bytes.data, bytes.len);
	if (p->loop != NULL && !p->news_posted) {
		p->news_posted = true;
		loop_post(p->loop, &p->news);
	}
	pthread_mutex_unlock(&p->lock);
}

/* As long as it fails, the first failure is a warning and the rest are not said. */
static void poll_bundle(struct parent *p)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Bundle *bundle;
	enum code rc = need_svid(p, 0, &err);

	if (rc == CODE_OK)
		rc = get_bundle(p, arena, &bundle, &err);
	if (rc == CODE_OK)
		post_news(p, bundle);
	else if (!p->poll_failed && !is_stopping(p))
		log_warn("Failed to fetch bundle while polling", KV("subsystem_name", "upstream_authority"),
			 KV("error", err.text));
	p->poll_failed = rc != CODE_OK;
}

static struct job *next_job(struct parent *p, int64_t poll_ms)
{
	struct job *job = NULL;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping && list_empty(&p->jobs) && (p->loop == NULL || clock_mono_ms() < poll_ms))
		wait_changed(p, p->loop == NULL ? INT64_MAX : poll_ms);
	if (!list_empty(&p->jobs)) {
		job = LIST_ITEM(p->jobs.next, struct job, link);
		list_remove(&job->link);
	}
	pthread_mutex_unlock(&p->lock);
	return job;
}

static void *run_caller(void *arg)
{
	struct parent *p = arg;
	int64_t poll_ms = 0;

	for (;;) {
		struct job *job = next_job(p, poll_ms);
		bool stopping = is_stopping(p);

		if (job != NULL) {
			if (stopping || letter_given_up(&job->letter))
				job->code = err_set(&job->err, CODE_CANCELLED, "the server is stopping");
			else
				job->code = carry_out(p, job);
			letter_answer(&job->letter);
			continue;
		}
		if (stopping)
			return NULL;
		poll_bundle(p);
		poll_ms = clock_mono_ms() + p->poll_ms;
	}
}

/* --- what the tasks see --- */

static void deliver_news(struct message *message)
{
	struct parent *p = LIST_ITEM(message, struct parent, news);
	void (*tell)(void *ctx, struct span bundle);
	OWN_BUF bundle = { 0 };
	void *ctx;

	pthread_mutex_lock(&p->lock);
	p->news_posted = false;
	bundle = p->bundle;
	p->bundle = (struct buf){ 0 };
	tell = p->tell;
	ctx = p->ctx;
	pthread_mutex_unlock(&p->lock);
	if (tell != NULL)
		tell(ctx, (struct span){ bundle.data, bundle.len });
}

void parent_watch(struct parent *p, struct loop *loop, void (*news)(void *ctx, struct span bundle), void *ctx)
{
	pthread_mutex_lock(&p->lock);
	p->tell = news;
	p->ctx = ctx;
	p->loop = loop;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void job_free(struct letter *letter)
{
	struct job *job = LIST_ITEM(letter, struct job, letter);

	arena_free(job->arena);
	free(job);
}

static struct job *new_job(int64_t deadline_ms)
{
	struct job *job = xcalloc(1, sizeof *job);

	letter_init(&job->letter, job_free);
	list_init(&job->link);
	job->arena = arena_new();
	job->deadline_ms = deadline_ms;
	return job;
}

static enum code ask(struct parent *p, struct job *job, struct err *err)
{
	enum code rc;
	bool stopping;

	pthread_mutex_lock(&p->lock);
	stopping = p->stopping; /* then the thread may have ended: nobody would answer */
	if (!stopping)
		list_push(&p->jobs, &job->link);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (stopping) {
		letter_unref(&job->letter); /* for who would have answered */
		return err_set(err, CODE_CANCELLED, "the server is stopping");
	}
	rc = letter_wait(&job->letter, job->deadline_ms == INT64_MAX ? INT64_MAX : job->deadline_ms + SLACK_MS);
	if (rc != CODE_OK)
		return err_set(err, rc,
			       rc == CODE_CANCELLED ? "the server is stopping"
						    : "the upstream server has not answered in time");
	if (job->code != CODE_OK && err != NULL)
		*err = job->err;
	return job->code;
}

/* A message of the job's arena in another one. */
static void *copy_message(const void *message, struct arena *arena)
{
	const ProtobufCMessageDescriptor *type = ((const ProtobufCMessage *)message)->descriptor;
	OWN_BUF bytes = { 0 };
	void *copy;

	pb_encode(message, &bytes);
	if (pb_parse(type, (struct span){ bytes.data, bytes.len }, arena, &copy, NULL) != CODE_OK)
		assert(!"what has been decoded once");
	return copy;
}

enum code parent_mint(struct parent *p, struct span csr, int64_t ttl_s, int64_t deadline_ms, struct arena *arena,
		      Pb__NewDownstreamX509CAResponse **out, Pb__Bundle **bundle, struct err *err)
{
	struct job *job = new_job(deadline_ms);
	enum code rc;

	job->mint = pb_new(&pb__new_downstream_x509_carequest__descriptor, job->arena);
	job->mint->csr = (ProtobufCBinaryData){ csr.len, arena_memdup(job->arena, csr.data, csr.len) };
	job->mint->preferred_ttl = ttl_s < INT32_MAX ? (int32_t)ttl_s : INT32_MAX;
	rc = ask(p, job, err);
	if (rc == CODE_OK) {
		*out = copy_message(job->reply, arena);
		*bundle = copy_message(job->bundle, arena);
	}
	letter_unref(&job->letter);
	return rc;
}

enum code parent_publish_jwt(struct parent *p, const Pb__JWTKey *key, int64_t deadline_ms, struct arena *arena,
			     Pb__PublishJWTAuthorityResponse **out, struct err *err)
{
	struct job *job = new_job(deadline_ms);
	enum code rc;

	job->publish = pb_new(&pb__publish_jwtauthority_request__descriptor, job->arena);
	job->publish->jwt_authority = copy_message(key, job->arena);
	rc = ask(p, job, err);
	if (rc == CODE_OK)
		*out = copy_message(job->reply, arena);
	letter_unref(&job->letter);
	return rc;
}

/* --- start and end --- */

static enum code open_stop_fd(int *out, struct err *err)
{
	int first = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	*out = first < 0 ? -1 : fcntl(first, F_DUPFD_CLOEXEC, 3); /* a client takes 0 for none */
	if (*out < 0)
		return err_errno(err, CODE_INTERNAL, errno, "eventfd", NULL);
	close(first);
	return CODE_OK;
}

OWNABLE_STRUCT(parent, parent_close)

enum code parent_open(const struct parent_options *options, struct parent **out, struct err *err)
{
	OWN_STRUCT(parent) p = xcalloc(1, sizeof *p);
	bool bare_ipv6 = strchr(options->server_address, ':') != NULL && options->server_address[0] != '[';
	pthread_condattr_t monotonic;

	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	list_init(&p->jobs);
	p->news.deliver = deliver_news;
	p->kept = arena_new();
	p->td = arena_strdup(p->kept, options->trust_domain);
	p->server_id = arena_printf(p->kept, "spiffe://%s/spire/server", p->td);
	p->address =
		arena_printf(p->kept, bare_ipv6 ? "[%s]:%s" : "%s:%s", options->server_address, options->server_port);
	p->socket = arena_strdup(p->kept, options->workload_api_socket);
	p->poll_ms = options->poll_ms > 0 ? options->poll_ms : POLL_MS;
	p->retry_ms = options->retry_ms > 0 ? options->retry_ms : RETRY_MS;
	TRY(open_stop_fd(&p->stop_fd, err));
	if (pthread_create(&p->workload, NULL, run_workload, p) != 0 ||
	    pthread_create(&p->caller, NULL, run_caller, p) != 0)
		abort(); /* no thread to be had at the start */
	p->running = true;
	*out = TAKE(p);
	return CODE_OK;
}

void parent_stop(struct parent *p)
{
	const uint64_t one = 1;

	if (p == NULL || !p->running)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	p->loop = NULL;
	p->tell = NULL;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	while (write(p->stop_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
	pthread_join(p->workload, NULL);
	pthread_join(p->caller, NULL);
	p->running = false;
}

void parent_close(struct parent *p)
{
	if (p == NULL)
		return;
	parent_stop(p);
	hang_up(p);
	own_svid_free(p->svid);
	own_svid_free(p->fresh);
	if (p->stop_fd > 0)
		close(p->stop_fd);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	buf_done(&p->bundle);
	arena_free(p->kept);
	free(p);
}
