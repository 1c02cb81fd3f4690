/* SPDX-License-Identifier: Apache-2.0 */
/* One page over net/http.h (HTTP/1.1) or api/h2.h, as the client's ALPN has it. Nothing waits here but the task that
 * looks at the files of https_web; what a request needs of the state is one version number.
 *
 * Limits of HTTP/2: a number of connections, where one more takes the place of the oldest; two minutes for each, then a
 * client has to come again; and few bytes that a client may leave unread. */
#include "api/endpoint.h"

#include "api/h2.h"
#include "api/jwks.h"
#include "api/shown.h"
#include "api/webcert.h"
#include "base/clock.h"
#include "base/gotext.h"
#include "base/log.h"
#include "base/task.h"
#include "net/http.h"
#include "net/listener.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	CONNECTIONS = 1024, /* of each protocol */
	H2_GOAWAY_MS = 60 * 1000,
	H2_AGE_MS = 120 * 1000,
	H2_UNREAD = 64 << 10,
	SWEEP_MS = 10 * 1000,
	H2_CALM = 0xb, /* ENHANCE_YOUR_CALM */
};

struct endpoint {
	struct server *server;
	struct loop *loop;
	struct listener *listener;
	struct reader *reader;
	struct tls_context *tls;
	struct shown shown;      /* https_spiffe */
	struct webcert *webcert; /* https_web */
	struct http_server *http;
	struct link h2; /* struct session, the oldest first */
	size_t n_h2;
	uv_timer_t sweep;
	struct message stop, port;
	atomic_bool want_open, port_posted;
	int number; /* of the port */
	bool started, stopped;
	char address[256];
	uint64_t version; /* of `body`; 0: there is none */
	struct buf body;
};

/* --- the page --- */

struct page {
	int status;
	const char *type;
	struct span body;
};

static struct page plain(int status, const char *text)
{
	return (struct page){ status, "text/plain; charset=utf-8", { (const uint8_t *)text, strlen(text) } };
}

static enum code make_body(struct endpoint *e, struct view *view, uint64_t version, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct buf body = { 0 };
	Pb__Bundle *bundle;
	enum code rc;

	TRY(view_bundle(view, e->server->td, arena, &bundle, err));
	bundle->refresh_hint = e->server->config->bundle_endpoint.refresh_hint_s;
	rc = jwks_write(bundle, JWKS_SPIRE, &body, err);
	if (rc != CODE_OK) {
		buf_done(&body);
		return CODE_DATA_LOSS;
	}
	buf_done(&e->body);
	e->body = body;
	e->version = version;
	return CODE_OK;
}

static enum code refresh_body(struct endpoint *e, struct err *err)
{
	OWN_STRUCT(view) view = NULL;
	uint64_t version;

	TRY(view_open(e->reader, &view, err));
	TRY(view_bundle_version(view, e->server->td, &version, err));
	if (version != 0 && version == e->version)
		return CODE_OK;
	return make_body(e, view, version, err);
}

static struct page serve_page(struct endpoint *e, const char *method, const char *path)
{
	struct err err = { 0 };
	enum code rc;

	if (strcmp(method, "GET") != 0)
		return plain(405, "405 method not allowed\n");
	if (strcmp(path, "/") != 0 && strcmp(path, "/bundle") != 0)
		return plain(404, "404 page not found\n");
	rc = refresh_body(e, &err);
	if (rc == CODE_OK)
		return (struct page){ 200, "application/json", { e->body.data, e->body.len } };
	log_error(rc == CODE_DATA_LOSS ? "Unable to marshal local bundle" : "Unable to retrieve local bundle",
		  KV("error", err.text), KV("subsystem_name", "endpoints"));
	return plain(500, rc == CODE_DATA_LOSS ? "500 unable to marshal local bundle\n"
					       : "500 unable to retrieve local bundle\n");
}

static void serve_http1(void *ctx, const struct http_request *request, struct http_answer *answer)
{
	struct page page = serve_page(ctx, request->method, request->path);

	answer->status = page.status;
	answer->content_type = page.type;
	buf_append(&answer->body, page.body.data, page.body.len);
}

/* --- HTTP/2 --- */

struct session {
	struct link link;
	struct endpoint *endpoint;
	struct h2 *h2;
	int64_t since_ms;
};

static void respond(struct h2_stream *stream, const struct page *page, bool without_body)
{
	char status[16], length[24], date[64];
	struct header list[4] = { { &list[1], ":status", status },
				  { &list[2], "content-type", page->type },
				  { &list[3], "content-length", length },
				  { NULL, "date", date } };
	struct buf rest = { 0 };
	time_t now = time(NULL);
	struct tm tm;

	snprintf(status, sizeof status, "%d", page->status);
	snprintf(length, sizeof length, "%zu", page->body.len);
	gmtime_r(&now, &tm);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	h2_respond(stream, list, without_body);
	if (without_body)
		return;
	buf_append(&rest, page->body.data + 5, page->body.len - 5); /* no page is shorter than a head */
	h2_send(stream, page->body.data, &rest);
	h2_finish(stream, NULL);
}

static void *h2_begin(void *ctx, struct h2_stream *stream, struct arena *arena, struct header *headers)
{
	struct session *session = ctx;
	const char *method = header_find(headers, ":method"), *path = header_find(headers, ":path");
	OWN_BUF bare = { 0 };
	struct page page;

	if (method == NULL || path == NULL || h2_backlog(session->h2) > H2_UNREAD) {
		h2_reset(stream, H2_CALM);
	} else {
		buf_append(&bare, path, strcspn(path, "?"));
		page = serve_page(session->endpoint, method, buf_text(&bare));
		respond(stream, &page, strcmp(method, "HEAD") == 0);
	}
	arena_free(arena);
	return stream;
}

static void h2_data(void *user, const uint8_t *data __attribute__((unused)), size_t len)
{
	h2_consumed(user, len); /* a body means nothing here */
}

static void h2_nothing(void *ctx __attribute__((unused)))
{
}

static void h2_closed(void *ctx, const struct err *why __attribute__((unused)))
{
	struct session *session = ctx;

	list_remove(&session->link);
	session->endpoint->n_h2--;
	free(session);
}

static void serve_h2(void *ctx, struct conn_pool *pool, struct conn *conn)
{
	static const struct h2_events events = { h2_begin,   h2_data,    h2_nothing, h2_nothing,
						 h2_nothing, h2_nothing, h2_closed };
	struct endpoint *e = ctx;
	struct session *session = xcalloc(1, sizeof *session);
	const struct h2_options options = {
		.conn = conn,
		.tcp = true,
		.max_age_ms = H2_GOAWAY_MS,
		.handshake_ms = 10 * 1000,
		.events = &events,
		.ctx = session,
	};
	struct err err;

	if (e->n_h2 >= CONNECTIONS)
		h2_abort(LIST_ITEM(e->h2.next, struct session, link)->h2);
	session->endpoint = e;
	session->since_ms = clock_mono_ms();
	list_push(&e->h2, &session->link);
	e->n_h2++;
	if (h2_open(pool, &options, &session->h2, &err) != CODE_OK) /* cannot be, with a connection that is open */
		abort();
}

static void settle_port(struct endpoint *e);

static void sweep(uv_timer_t *timer)
{
	struct endpoint *e = timer->data;
	int64_t before_ms = clock_mono_ms() - H2_AGE_MS;

	while (!list_empty(&e->h2) && LIST_ITEM(e->h2.next, struct session, link)->since_ms < before_ms)
		h2_abort(LIST_ITEM(e->h2.next, struct session, link)->h2);
	if (e->server->config->cluster.enabled)
		settle_port(e); /* it may not have been possible before */
}

/* --- life --- */

OWNABLE_STRUCT(endpoint, endpoint_free)

static struct identity *webcert_shown(void *ctx)
{
	return webcert_identity(ctx);
}

static void keep_webcert(void *arg)
{
	struct endpoint *e = arg;

	while (task_sleep(e->server->config->bundle_endpoint.file_sync_interval_s * 1000) == CODE_OK)
		webcert_sync(e->webcert);
}

enum code endpoint_bind(struct server *server, struct endpoint **out, struct err *err)
{
	const struct config_bundle_endpoint *config = &server->config->bundle_endpoint;
	struct tls_options tls = { .alpn = TLS_ALPN_H2, .also_http11 = true };
	OWN_STRUCT(endpoint) e = xcalloc(1, sizeof *e);

	if (config->acme)
		return err_set(err, CODE_UNIMPLEMENTED,
			       "server.federation.bundle_endpoint: this version does not get certificates by ACME: use "
			       "profile "
			       "\"https_web\" with serving_cert_file { cert_file_path, key_file_path, "
			       "file_sync_interval }, or "
			       "profile \"https_spiffe\"");
	e->server = server;
	e->shown.slot = server->keyring;
	list_init(&e->h2);
	e->loop = loop_new("bundle endpoint");
	tls.identity = shown_identity;
	tls.ctx = &e->shown;
	if (config->profile == ENDPOINT_HTTPS_WEB) {
		TRY(webcert_open(config->cert_file_path, config->key_file_path, &e->webcert, err));
		tls.identity = webcert_shown;
		tls.ctx = e->webcert;
	}
	TRY(tls_context_new(&tls, &e->tls, err));
	TRY(listener_tcp(e->loop, config->address == NULL ? "" : config->address, config->port, &e->listener, err));
	snprintf(e->address, sizeof e->address, "%s", listener_address(e->listener));
	e->number = listener_port(e->listener);
	if (server->config->cluster.enabled)
		listener_close(TAKE(e->listener));
	*out = TAKE(e);
	return CODE_OK;
}

static void serve_port(struct endpoint *e)
{
	const struct http_options http = {
		.tls = e->tls, .connections = CONNECTIONS, .handler = serve_http1, .ctx = e, .other = serve_h2
	};

	e->http = http_serve(e->loop, TAKE(e->listener), &http);
}

/* On the loop: the port becomes what is wanted. */
static void settle_port(struct endpoint *e)
{
	const struct config_bundle_endpoint *config = &e->server->config->bundle_endpoint;
	bool open = atomic_load(&e->want_open);
	struct err err = { 0 };

	if (open == (e->http != NULL))
		return;
	if (!open)
		http_close(TAKE(e->http));
	else if (listener_tcp(e->loop, config->address == NULL ? "" : config->address, e->number, &e->listener, &err) == CODE_OK)
		serve_port(e);
	else
		log_error("Port cannot be opened, trying again", KV("subsystem_name", "endpoints"), KV("error", err.text));
}

static void deliver_port(struct message *message)
{
	struct endpoint *e = (struct endpoint *)((char *)message - offsetof(struct endpoint, port));

	atomic_store(&e->port_posted, false);
	settle_port(e);
}

void endpoint_set_port(struct endpoint *e, bool open)
{
	e->port.deliver = deliver_port;
	atomic_store(&e->want_open, open);
	if (!atomic_exchange(&e->port_posted, true))
		loop_post(e->loop, &e->port);
}

enum code endpoint_start(struct endpoint *e, struct err *err)
{
	char hint[GO_DURATION_MAX];

	TRY(reader_open(e->server->state_path, &e->reader, err));
	if (e->listener != NULL)
		serve_port(e);
	uv_timer_init(loop_uv(e->loop), &e->sweep);
	e->sweep.data = e;
	uv_timer_start(&e->sweep, sweep, SWEEP_MS, SWEEP_MS);
	if (e->webcert != NULL)
		task_spawn(e->loop, "https_web files", keep_webcert, e);
	e->started = true;
	loop_start(e->loop);
	log_info("Serving bundle endpoint", KV("addr", e->address),
		 KV("refresh_hint",
		    go_format_duration(e->server->config->bundle_endpoint.refresh_hint_s * 1000000000, hint)),
		 KV("subsystem_name", "endpoints"));
	return CODE_OK;
}

static void gone(void *ctx)
{
	loop_stop(((struct endpoint *)ctx)->loop);
}

static void deliver_stop(struct message *message)
{
	struct endpoint *e = (struct endpoint *)((char *)message - offsetof(struct endpoint, stop));

	uv_close((uv_handle_t *)&e->sweep, NULL);
	atomic_store(&e->want_open, false);
	if (e->http == NULL)
		gone(e);
	else
		http_close_then(e->http, gone, e);
}

void endpoint_stop(struct endpoint *e)
{
	if (e == NULL || !e->started || e->stopped)
		return;
	e->stopped = true;
	e->stop.deliver = deliver_stop;
	loop_post(e->loop, &e->stop);
	loop_join(e->loop);
}

void endpoint_free(struct endpoint *e)
{
	if (e == NULL)
		return;
	endpoint_stop(e);
	listener_close(e->listener);
	loop_free(e->loop);
	tls_context_free(e->tls);
	webcert_free(e->webcert);
	shown_done(&e->shown);
	reader_close(e->reader);
	buf_done(&e->body);
	free(e);
}

int endpoint_port(const struct endpoint *e)
{
	return atoi(strrchr(e->address, ':') + 1);
}
