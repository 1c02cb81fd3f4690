/* SPDX-License-Identifier: Apache-2.0 */
/* One-call handler harness. The test's thread posts a message to the loop and waits on a condition; the loop spawns a
 * task that authorizes and runs the handler. Streams: the linker sends call_recv and call_send through the __wrap_
 * functions below (Makefile), which answer for a call of the harness from its lists and hand any other call on. */
#include "lib/harness.h"

#include "api/auth.h"
#include "api/limit.h"
#include "api/pb.h"
#include "api/route.h"
#include "base/clock.h"
#include "base/task.h"
#include "ca/jwt.h"
#include "ca/x509.h"
#include "lib/test.h"
#include "raft/replica.h"

#include <pthread.h>
#include <stdlib.h>

struct harness_call {
	struct call call;    /* first: found again from it */
	struct arena *arena; /* the call's; a handler may put another into its place for a while */
	struct caller caller;
	struct message message;
	struct loop *loop;
	const void *request;
	enum code (*run)(struct call *call, void *ctx); /* or, NULL: the route's handler */
	void *ctx;
	struct buf sent, answer;
	void *reply;           /* decoded from `answer` */
	void *const *requests; /* a stream's */
	size_t n_requests, at_request;
	struct harness_replies replies;
	enum code code;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static _Thread_local struct harness_call *streaming; /* of this loop's thread */

/* --- streams --- */

enum code __real_call_recv(struct call *call, const ProtobufCMessageDescriptor *type, void **out);
enum code __real_call_send(struct call *call, const void *message);
enum code __real_call_send_raw(struct call *call, const struct buf *message);
enum code __wrap_call_recv(struct call *call, const ProtobufCMessageDescriptor *type, void **out);
enum code __wrap_call_send(struct call *call, const void *message);
enum code __wrap_call_send_raw(struct call *call, const struct buf *message);

enum code __wrap_call_recv(struct call *call, const ProtobufCMessageDescriptor *type, void **out)
{
	struct harness_call *h = streaming;
	OWN_BUF bytes = { 0 };

	if (h == NULL || call != &h->call)
		return __real_call_recv(call, type, out);
	*out = NULL;
	if (h->at_request == h->n_requests)
		return CODE_OK;
	pb_encode(h->requests[h->at_request++], &bytes);
	return pb_decode(type, (struct span){ bytes.data, bytes.len }, call->arena, out, call->err);
}

static void add_reply(struct harness_call *h, struct span bytes)
{
	struct harness_replies *replies = &h->replies;
	void *message;

	if (pb_decode(h->call.route->reply, bytes, h->arena, &message, h->call.err) != CODE_OK)
		abort();
	replies->items = xrealloc(replies->items, (replies->n + 1) * sizeof *replies->items);
	replies->items[replies->n++] = message;
}

enum code __wrap_call_send(struct call *call, const void *message)
{
	struct harness_call *h = streaming;
	OWN_BUF bytes = { 0 };

	if (h == NULL || call != &h->call)
		return __real_call_send(call, message);
	pb_encode(message, &bytes);
	add_reply(h, (struct span){ bytes.data, bytes.len });
	return CODE_OK;
}

enum code __wrap_call_send_raw(struct call *call, const struct buf *message)
{
	struct harness_call *h = streaming;

	if (h == NULL || call != &h->call)
		return __real_call_send_raw(call, message);
	add_reply(h, (struct span){ message->data, message->len });
	return CODE_OK;
}

/* --- a call --- */

static enum code run_route(struct harness_call *h)
{
	struct call *call = &h->call;
	bool is_stream = call->route->stream != NULL;
	enum code rc;

	if (!is_stream) { /* over the wire's form, as a client's message comes */
		pb_encode(h->request, &h->sent);
		call->request = (struct span){ h->sent.data, h->sent.len };
	}
	streaming = is_stream ? h : NULL;
	rc = call_serve(call);
	streaming = NULL;
	if (rc != CODE_OK || is_stream)
		return rc;
	return pb_decode(call->route->reply, (struct span){ h->answer.data, h->answer.len }, call->arena, &h->reply,
			 call->err);
}

static void task_main(void *arg)
{
	struct harness_call *h = arg;

	h->code = h->run != NULL ? h->run(&h->call, h->ctx) : run_route(h);
	pthread_mutex_lock(&h->lock);
	h->done = true;
	pthread_cond_signal(&h->cond);
	pthread_mutex_unlock(&h->lock);
}

static void deliver(struct message *message)
{
	struct harness_call *h = (struct harness_call *)((char *)message - offsetof(struct harness_call, message));

	if (task_spawn(h->loop, "harness", task_main, h) == NULL)
		abort();
}

static struct harness_call *new_call(struct harness *h, struct caller who)
{
	struct harness_call *made = xcalloc(1, sizeof *made);

	made->caller = who;
	made->arena = arena_new();
	made->loop = h->api->loop;
	made->message.deliver = deliver;
	made->call = (struct call){
		.server = h->server,
		.api = h->api,
		.arena = made->arena,
		.caller = &made->caller,
		.request_id = "",
		.deadline_ms = clock_mono_ms() + 60000,
		.reply = &made->answer,
	};
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->cond, NULL);
	h->calls = xrealloc(h->calls, (h->n_calls + 1) * sizeof *h->calls);
	h->calls[h->n_calls++] = &made->call;
	return made;
}

static enum code run_call(struct harness *h, struct harness_call *call, struct err *err)
{
	loop_post(h->api->loop, &call->message);
	pthread_mutex_lock(&call->lock);
	while (!call->done)
		pthread_cond_wait(&call->cond, &call->lock);
	pthread_mutex_unlock(&call->lock);
	if (err != NULL)
		*err = *call->call.err;
	return call->code;
}

static const struct route *find_route(const char *method)
{
	for (size_t i = 0; i < n_routes; i++) {
		const char *service = strrchr(routes[i].service, '.') + 1;
		size_t len = strlen(service);

		if (strncmp(method, service, len) == 0 && method[len] == '.' &&
		    strcmp(method + len + 1, routes[i].method) == 0)
			return &routes[i];
	}
	print_error("no route %s\n", method);
	abort();
}

enum code harness_call(struct harness *h, struct caller who, const char *method, const void *request, void **reply,
		       struct err *err)
{
	struct harness_call *call = new_call(h, who);
	enum code rc;

	call->call.route = find_route(method);
	call->request = request;
	rc = run_call(h, call, err);
	if (reply != NULL)
		*reply = rc == CODE_OK ? call->reply : NULL;
	return rc;
}

enum code harness_stream(struct harness *h, struct caller who, const char *method, void *const *requests, size_t n,
			 struct harness_replies *replies, struct err *err)
{
	struct harness_call *call = new_call(h, who);
	enum code rc;

	call->call.route = find_route(method);
	call->requests = requests;
	call->n_requests = n;
	rc = run_call(h, call, err);
	if (replies != NULL)
		*replies = call->replies;
	return rc;
}

enum code harness_run(struct harness *h, struct caller who, enum code (*run)(struct call *call, void *ctx), void *ctx,
		      struct err *err)
{
	struct harness_call *call = new_call(h, who);

	call->run = run;
	call->ctx = ctx;
	return run_call(h, call, err);
}

const struct call *harness_last(const struct harness *h)
{
	return h->n_calls == 0 ? NULL : h->calls[h->n_calls - 1];
}

struct caller harness_local(void)
{
	return (struct caller){ .local = true, .via = "", .address = "", .ip = "" };
}

struct caller harness_client(const char *id, const char *serial)
{
	return (struct caller){
		.via = "",
		.address = "127.0.0.1:40000",
		.ip = "127.0.0.1",
		.id = id,
		.serial = serial,
		.not_before_s = clock_wall_s() - 10,
		.not_after_s = clock_wall_s() + 3600,
	};
}

/* --- the server around it --- */

static void must(enum code rc, const struct err *err)
{
	if (rc == CODE_OK)
		return;
	print_error("harness: %s: %s\n", code_name(rc), err->text);
	abort();
}

static void fill_config(struct harness *h)
{
	*h->config = (struct config){
		.trust_domain = "example.org",
		.ca_ttl_s = 86400,
		.default_x509_svid_ttl_s = 3600,
		.default_jwt_svid_ttl_s = 300,
		.agent_ttl_s = 3600,
		.ca_key_type = "ec-p256",
		.jwt_key_type = "ec-p256",
		.prune_attested_nodes_batch_size = 1000,
		.ratelimit_attestation = true,
		.ratelimit_signing = true,
		.metric_prefix = "spire_server",
	};
}

struct harness *harness_open(void)
{
	static unsigned n;
	struct harness *h = xcalloc(1, sizeof *h);
	struct err err = { 0 };

	h->arena = arena_new();
	h->state_path = arena_printf(h->arena, "%s/state-%u.db", test_dir(), n++);
	fill_config(h);
	must(replica_start(&(struct replica_options){ .state_path = h->state_path, .trust_domain = "example.org" },
			   &h->server->replica, &err),
	     &err);
	h->server->config = h->config;
	h->server->td = "example.org";
	h->server->server_id = "spiffe://example.org/spire/server";
	h->server->node = "node-1";
	h->server->state_path = h->state_path;
	h->server->keyring = keyring_slot_new();
	h->server->limiters = limiters_new(true, true);
	h->server->started_ms = clock_mono_ms();
	h->server->launch_level = LOG_INFO;
	h->api->server = h->server;
	h->api->loop = loop_new("api");
	h->api->trust = trust_cache_new();
	must(reader_open(h->state_path, &h->api->reader, &err), &err);
	loop_start(h->api->loop);
	return h;
}

void harness_close(struct harness *h)
{
	loop_stop(h->api->loop);
	loop_join(h->api->loop);
	loop_free(h->api->loop);
	reader_close(h->api->reader);
	trust_cache_free(h->api->trust);
	replica_stop(h->server->replica);
	keyring_slot_free(h->server->keyring);
	limiters_free(h->server->limiters);
	for (size_t i = 0; i < h->n_calls; i++) {
		struct harness_call *call = (struct harness_call *)h->calls[i];

		arena_free(call->call.arena);
		free(call->replies.items);
		buf_done(&call->sent);
		buf_done(&call->answer);
		pthread_cond_destroy(&call->cond);
		pthread_mutex_destroy(&call->lock);
		free(call);
	}
	free(h->calls);
	arena_free(h->arena);
	free(h);
}

Pb__Outcome *harness_propose(struct harness *h, Pb__Command *command)
{
	struct err err = { 0 };
	Pb__Outcome *out;

	command->format = 1;
	must(propose_blocking(h->server->replica, command, h->arena, &out, &err), &err);
	return out;
}

void harness_authorities(struct harness *h)
{
	OWN(EVP_PKEY) ca_key = NULL;
	OWN(EVP_PKEY) jwt_key = NULL;
	OWN_BUF jwt_public = { 0 };
	Pb__Command command = PB__COMMAND__INIT;
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;
	Pb__X509Certificate cert = PB__X509_CERTIFICATE__INIT, *certs[] = { &cert };
	Pb__JWTKey jwt = PB__JWTKEY__INIT, *jwts[] = { &jwt };
	struct x509_authority *x509;
	struct jwt_authority *signer;
	struct x509_svid svid;
	struct err err = { 0 };
	char kid[33];

	must(key_generate(KEY_EC_P256, &ca_key, &err), &err);
	must(key_generate(KEY_EC_P256, &jwt_key, &err), &err);
	must(key_public_der(jwt_key, &jwt_public, &err), &err);
	must(x509_self_sign(ca_key, &(struct x509_ca_subject){ 0 }, "example.org", 86400, clock_wall_s(), h->arena,
			    &svid, &err),
	     &err);
	jwt_new_kid(kid);
	cert.asn1 = (ProtobufCBinaryData){ .data = (uint8_t *)svid.cert.data, .len = svid.cert.len };
	jwt.public_key = (ProtobufCBinaryData){ .data = jwt_public.data, .len = jwt_public.len };
	jwt.key_id = kid;
	jwt.expires_at = clock_wall_s() + 86400;
	append.trust_domain = "example.org";
	append.x509_authorities = certs;
	append.jwt_authorities = jwts;
	append.n_x509_authorities = append.n_jwt_authorities = 1;
	command.kind_case = PB__COMMAND__KIND_BUNDLE_APPEND;
	command.bundle_append = &append;
	must((enum code)harness_propose(h, &command)->code, &err);
	must(x509_authority_new(ca_key, svid.cert, NULL, 0, &x509, &err), &err);
	ca_key = NULL; /* the authority's now */
	must(jwt_authority_new(jwt_key, kid, jwt.expires_at, &signer, &err), &err);
	jwt_key = NULL;
	keyring_swap(h->server->keyring, keyring_new(x509, signer, NULL, NULL, 0, 0, 0));
}
