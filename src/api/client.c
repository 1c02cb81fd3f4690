/* SPDX-License-Identifier: Apache-2.0 */
/* The blocking gRPC client. One thread, one call at a time: a call drives the HTTP/2 session by hand. send_all() moves
 * what nghttp2 has to say to the connection, receive() one read from the connection into nghttp2, and a call alternates
 * between them until its stream has what it waits for.
 *
 *   (no connection) --connect()--> idle --begin()--> a stream runs --(closed, or reset by end())--> idle
 *         ^                          |
 *         +--- dead: EOF, GOAWAY ----+     the next call connects again, before anything of it has been sent
 */
#include "api/client.h"

#include "api/dial.h"
#include "api/header.h"
#include "api/pb.h"
#include "base/clock.h"
#include "base/gotext.h"
#include "base/limits.h"
#include "rpcstatus.pb-c.h"
#include "types.pb-c.h"

#include <nghttp2/nghttp2.h>

#include <assert.h>
#include <ctype.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum {
	CONNECT_MS = 20000,
	WINDOW = 8 << 20,
	METADATA_MAX = 8,
	CHUNK = 32 << 10,
	PREFIX = 5, /* of a message: flag, length */
};

struct client {
	struct client_options options;
	struct arena *kept; /* what options points at */
	struct dial *dial;
	nghttp2_session *session;
	bool dead; /* no further call on this connection */
	bool got_settings;
	struct header metadata[METADATA_MAX];
	int64_t timeout_ms;
	size_t max_message;

	/* the call */
	int32_t stream; /* 0: none was begun */
	bool open;      /* the stream has not been closed */
	bool body_end;  /* no more messages of ours */
	uint32_t reset_code;
	bool was_reset, refused;
	int64_t deadline_ms;
	struct buf body; /* to be sent */
	size_t body_at;
	struct buf in; /* received */
	struct arena *answer;
	struct header *headers; /* of `answer`; the last first */
	struct err lost;        /* why the connection went */
	uint8_t chunk[CHUNK];   /* of a read */
};

/* --- headers --- */

static nghttp2_nv pair(const char *name, const char *value)
{
	return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE };
}

/* --- nghttp2's callbacks --- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct client *client = arg;
	struct header *header;

	(void)session, (void)flags;
	if (frame->hd.stream_id != client->stream)
		return 0;
	if (arena_used(client->answer) > LIMIT_HEADERS + name_len + value_len + 4096)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	header = arena_alloc(client->answer, sizeof *header);
	header->name = arena_strndup(client->answer, (const char *)name, name_len);
	header->value = arena_strndup(client->answer, (const char *)value, value_len);
	header->next = client->headers;
	client->headers = header;
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t len, void *arg)
{
	struct client *client = arg;

	(void)session, (void)flags;
	if (stream == client->stream)
		buf_append(&client->in, data, len);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct client *client = arg;

	(void)session;
	if (frame->hd.type == NGHTTP2_GOAWAY)
		client->dead = true; /* for later calls; this one may still end well */
	if (frame->hd.type == NGHTTP2_SETTINGS)
		client->got_settings = true;
	if (frame->hd.type == NGHTTP2_RST_STREAM && frame->hd.stream_id == client->stream)
		client->was_reset = true;
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *arg)
{
	struct client *client = arg;

	(void)session;
	if (stream == client->stream) {
		client->open = false;
		client->reset_code = code;
	}
	return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t size, uint32_t *flags,
			 nghttp2_data_source *source, void *arg)
{
	struct client *client = arg;
	size_t n = client->body.len - client->body_at;

	(void)session, (void)stream, (void)source;
	if (n > size)
		n = size;
	if (n > 0)
		memcpy(out, client->body.data + client->body_at, n);
	client->body_at += n;
	if (client->body_at == client->body.len) {
		if (client->body_end)
			*flags |= NGHTTP2_DATA_FLAG_EOF;
		else if (n == 0)
			return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static nghttp2_session *new_session(struct client *client)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, LIMIT_HEADERS },
	};
	nghttp2_session_callbacks *callbacks;
	nghttp2_session *session;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		abort(); /* out of memory */
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	if (nghttp2_session_client_new(&session, callbacks, client) != 0)
		abort(); /* out of memory */
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]);
	nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 2 * WINDOW);
	return session;
}

/* --- moving bytes --- */

static enum code lose(struct client *client, struct err *err)
{
	client->dead = true;
	client->lost = *err;
	return err->code;
}

static enum code send_all(struct client *client, int64_t deadline_ms, struct err *err)
{
	OWN_BUF out = { 0 };

	for (;;) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(client->session, &data);

		if (n < 0) {
			err_set(err, CODE_INTERNAL, "HTTP/2: %s", nghttp2_strerror((int)n));
			return lose(client, err);
		}
		if (n > 0)
			buf_append(&out, data, (size_t)n);
		if (out.len > 0 && (n == 0 || out.len >= CHUNK)) {
			if (dial_send(client->dial, out.data, out.len, deadline_ms, err) != CODE_OK)
				return lose(client, err); /* after a deadline too: half a frame may have gone */
			out.len = 0;
		}
		if (n == 0)
			return CODE_OK;
	}
}

/* One read. DEADLINE_EXCEEDED leaves the connection as it is. */
static enum code receive(struct client *client, int64_t deadline_ms, struct err *err)
{
	size_t n = 0;
	enum code rc = dial_recv(client->dial, client->chunk, sizeof client->chunk, deadline_ms, &n, err);
	ssize_t taken;

	if (rc == CODE_DEADLINE_EXCEEDED)
		return rc;
	if (rc != CODE_OK || n == 0) {
		err_set(err, CODE_UNAVAILABLE, "error reading from server: %s", rc != CODE_OK ? err->text : "EOF");
		return lose(client, err);
	}
	taken = nghttp2_session_mem_recv(client->session, client->chunk, n);
	if (taken < 0) {
		err_set(err, CODE_UNAVAILABLE, "error reading from server: %s", nghttp2_strerror((int)taken));
		return lose(client, err);
	}
	return CODE_OK;
}

/* --- the connection --- */

static void disconnect(struct client *client)
{
	nghttp2_session_del(client->session);
	client->session = NULL;
	dial_close(TAKE(client->dial));
	client->dead = client->got_settings = false;
	client->lost.code = CODE_OK;
}

static enum code no_server(struct client *client, const char *what, const char *why, struct err *err)
{
	OWN_BUF desc = { 0 }, quoted = { 0 };

	client->dead = true;
	buf_printf(&desc, "%s: %s", what, why);
	go_quote(&quoted, buf_text(&desc));
	return err_set(err, CODE_UNAVAILABLE, "connection error: desc = %s", buf_text(&quoted));
}

static enum code connect_now(struct client *client, struct err *err)
{
	static const char reading[] = "error reading from server: ";
	int64_t wait_ms = client->options.connect_timeout_ms > 0 ? client->options.connect_timeout_ms : CONNECT_MS;
	int64_t deadline_ms = clock_mono_ms() + wait_ms;

	disconnect(client);
	TRY(dial_open(&client->options, deadline_ms, &client->dial, err));
	client->session = new_session(client);
	if (send_all(client, deadline_ms, err) != CODE_OK)
		return no_server(client, "transport: failed to write client preface", err->text, err);
	while (!client->got_settings) {
		if (receive(client, deadline_ms, err) != CODE_OK)
			return no_server(client, "error reading server preface",
					 strncmp(err->text, reading, strlen(reading)) == 0 ? err->text + strlen(reading)
											   : err->text,
					 err);
	}
	return send_all(client, deadline_ms, err);
}

/* A connection on which a call may begin. What came while nobody looked (GOAWAY, the end) is seen here. */
static enum code ready(struct client *client, struct err *err)
{
	struct err why;

	while (client->session != NULL && !client->dead && receive(client, 0, &why) == CODE_OK)
		;
	if (client->session != NULL && !client->dead && send_all(client, clock_mono_ms() + CONNECT_MS, &why) != CODE_OK)
		client->dead = true;
	if (client->session == NULL || client->dead)
		return connect_now(client, err);
	return CODE_OK;
}

static void copy_spans(struct arena *arena, const struct span **spans, size_t n)
{
	struct span *copy = arena_alloc(arena, n * sizeof *copy);

	for (size_t i = 0; i < n; i++)
		copy[i] = (struct span){ arena_memdup(arena, (*spans)[i].data, (*spans)[i].len), (*spans)[i].len };
	*spans = copy;
}

enum code client_open(const struct client_options *options, struct client **out, struct err *err)
{
	OWN_STRUCT(client) client = xcalloc(1, sizeof *client);

	client->kept = arena_new();
	client->answer = arena_new();
	client->options = *options;
	if (options->unix_path != NULL)
		client->options.unix_path = arena_strdup(client->kept, options->unix_path);
	if (options->tcp != NULL)
		client->options.tcp = arena_strdup(client->kept, options->tcp);
	if (options->server_id != NULL)
		client->options.server_id = arena_strdup(client->kept, options->server_id);
	copy_spans(client->kept, &client->options.roots, options->n_roots);
	copy_spans(client->kept, &client->options.chain, options->n_chain);
	client->max_message = LIMIT_MESSAGE;
	TRY(connect_now(client, err));
	*out = TAKE(client);
	return CODE_OK;
}

void client_close(struct client *client)
{
	if (client == NULL)
		return;
	disconnect(client);
	for (size_t i = 0; i < METADATA_MAX; i++) {
		free((void *)client->metadata[i].name);
		free((void *)client->metadata[i].value);
	}
	buf_done(&client->body);
	buf_done(&client->in);
	arena_free(client->answer);
	arena_free(client->kept);
	free(client);
}

void client_metadata(struct client *client, const char *name, const char *value)
{
	for (size_t i = 0; i < METADATA_MAX; i++) {
		struct header *slot = &client->metadata[i];

		if (slot->name != NULL && strcmp(slot->name, name) != 0)
			continue;
		free((void *)slot->name);
		free((void *)slot->value);
		*slot = (struct header){ 0 };
		if (value != NULL) {
			slot->name = xstrdup(name);
			slot->value = xstrdup(value);
		}
		return;
	}
	assert(!"too many kinds of metadata");
}

void client_timeout(struct client *client, int64_t ms)
{
	client->timeout_ms = ms;
}

void client_max_message(struct client *client, size_t bytes)
{
	client->max_message = bytes;
}

size_t client_server_chain(const struct client *client, const struct span **chain)
{
	*chain = NULL;
	return client->dial != NULL ? dial_server_chain(client->dial, chain) : 0;
}

const char *client_trailer(const struct client *client, const char *name)
{
	return header_find(client->headers, name);
}

/* --- a call --- */

static enum code begin(struct client *client, const char *method, struct err *err)
{
	nghttp2_data_provider provider = { .read_callback = read_body };
	const char *authority = client->options.tcp != NULL ? client->options.tcp : "localhost";
	nghttp2_nv nv[8 + METADATA_MAX];
	char timeout[24];
	size_t n = 0;

	assert(!client->open);
	arena_free(client->answer);
	client->answer = arena_new();
	client->headers = NULL;
	client->in.len = client->body.len = client->body_at = 0;
	client->body_end = client->was_reset = client->refused = false;
	client->stream = 0;
	client->deadline_ms = client->timeout_ms > 0 ? clock_mono_ms() + client->timeout_ms : INT64_MAX;
	TRY(ready(client, err));
	nv[n++] = pair(":method", "POST");
	nv[n++] = pair(":scheme", client->options.unix_path != NULL ? "http" : "https");
	nv[n++] = pair(":path", method);
	nv[n++] = pair(":authority", authority);
	nv[n++] = pair("content-type", "application/grpc");
	nv[n++] = pair("user-agent", NAME "/" VERSION);
	nv[n++] = pair("te", "trailers");
	if (client->timeout_ms > 0) {
		if (client->timeout_ms < 100000000)
			snprintf(timeout, sizeof timeout, "%dm", (int)client->timeout_ms);
		else
			snprintf(timeout, sizeof timeout, "%lldS", (long long)client->timeout_ms / 1000);
		nv[n++] = pair("grpc-timeout", timeout);
	}
	for (size_t i = 0; i < METADATA_MAX; i++)
		if (client->metadata[i].name != NULL)
			nv[n++] = pair(client->metadata[i].name, client->metadata[i].value);
	client->stream = nghttp2_submit_request(client->session, NULL, nv, n, &provider, NULL);
	if (client->stream < 0) {
		client->dead = true; /* stream ids have run out */
		return err_set(err, CODE_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror(client->stream));
	}
	client->open = true;
	return CODE_OK;
}

static void put_message(struct client *client, const void *message)
{
	struct buf *body = &client->body;
	size_t at, size;

	if (client->body_at == body->len)
		client->body_at = body->len = 0;
	at = body->len;
	buf_append(body, "\0\0\0\0", PREFIX);
	pb_encode(message, body);
	size = body->len - at - PREFIX;
	for (int i = 0; i < 4; i++)
		body->data[at + 1 + (size_t)i] = (uint8_t)(size >> (24 - 8 * i));
}

/* The server has not begun with it: its GOAWAY names an earlier stream. */
static bool was_refused(const struct client *client)
{
	return !client->open && client->stream > 0 && client->headers == NULL &&
	       client->reset_code == NGHTTP2_REFUSED_STREAM;
}

static void end(struct client *client)
{
	struct err ignored;

	client->refused = was_refused(client);
	if (client->open && !client->dead) {
		nghttp2_submit_rst_stream(client->session, NGHTTP2_FLAG_NONE, client->stream, NGHTTP2_CANCEL);
		send_all(client, clock_mono_ms() + 1000, &ignored);
	}
	client->open = false;
	client->stream = 0;
	client->in.len = 0;
}

/* --- how it ended --- */

static const char *percent_decode(struct arena *arena, const char *text)
{
	char *out = arena_strdup(arena, text), *to = out;

	for (; *text != '\0'; text++) {
		unsigned byte;
		char hex[3] = { 0 };

		if (*text == '%' && isxdigit((unsigned char)text[1]) && isxdigit((unsigned char)text[2])) {
			hex[0] = text[1];
			hex[1] = text[2];
			byte = (unsigned)strtoul(hex, NULL, 16);
			*to++ = byte == 0 ? '?' : (char)byte;
			text += 2;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
	return out;
}

static int reason_of(struct client *client)
{
	const char *text = header_find(client->headers, "grpc-status-details-bin");
	void *message = NULL;
	OWN_BUF padded = { 0 }, bytes = { 0 };
	const Pb__RpcStatus *status;

	if (text == NULL)
		return 0;
	buf_puts(&padded, text);
	while (padded.len % 4 != 0)
		buf_put(&padded, '=');
	if (!buf_unbase64(&bytes, (const char *)padded.data, padded.len, 0) ||
	    pb_parse(&pb__rpc_status__descriptor, (struct span){ bytes.data, bytes.len }, client->answer, &message,
		     NULL) != CODE_OK)
		return 0;
	status = message;
	for (size_t i = 0; i < status->n_details; i++) {
		const Pb__Any *any = status->details[i];
		const char *name = strrchr(any->type_url, '/');

		if (name != NULL && strcmp(name + 1, pb__permission_denied_details__descriptor.name) == 0 &&
		    pb_parse(&pb__permission_denied_details__descriptor,
			     (struct span){ any->value.data, any->value.len }, client->answer, &message,
			     NULL) == CODE_OK)
			return (int)((const Pb__PermissionDeniedDetails *)message)->reason;
	}
	return 0;
}

/* The name of an HTTP/2 error code, as RFC 9113 writes it, and the gRPC code that stands for it. */
static enum code reset_status(uint32_t code, struct err *err)
{
	enum code rc = code == NGHTTP2_REFUSED_STREAM        ? CODE_UNAVAILABLE
		       : code == NGHTTP2_CANCEL              ? CODE_CANCELLED
		       : code == NGHTTP2_ENHANCE_YOUR_CALM   ? CODE_RESOURCE_EXHAUSTED
		       : code == NGHTTP2_INADEQUATE_SECURITY ? CODE_PERMISSION_DENIED
							     : CODE_INTERNAL;

	return err_set(err, rc, "stream terminated by RST_STREAM with error code: %s", nghttp2_http2_strerror(code));
}

static enum code http_status(const char *status, struct err *err)
{
	static const struct {
		const char *status;
		enum code code;
	} codes[] = {
		{ "400", CODE_INTERNAL },      { "401", CODE_UNAUTHENTICATED }, { "403", CODE_PERMISSION_DENIED },
		{ "404", CODE_UNIMPLEMENTED }, { "429", CODE_UNAVAILABLE },     { "502", CODE_UNAVAILABLE },
		{ "503", CODE_UNAVAILABLE },   { "504", CODE_UNAVAILABLE },
	};
	enum code rc = CODE_UNKNOWN;

	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(codes[i].status, status) == 0)
			rc = codes[i].code;
	return err_set(err, rc, "unexpected HTTP status code received from server: %s", status);
}

static enum code status(struct client *client, struct err *err)
{
	const char *number = header_find(client->headers, "grpc-status");
	const char *message = header_find(client->headers, "grpc-message");
	const char *http = header_find(client->headers, ":status");
	unsigned long code;
	char *after;

	if (number == NULL) {
		if (was_refused(client))
			return err_set(err, CODE_UNAVAILABLE, "the server takes no more calls on this connection");
		if (client->was_reset)
			return reset_status(client->reset_code, err);
		if (http != NULL && strcmp(http, "200") != 0)
			return http_status(http, err);
		return err_set(err, CODE_INTERNAL, "server closed the stream without sending trailers");
	}
	code = strtoul(number, &after, 10);
	if (after == number || *after != '\0' || code > INT32_MAX)
		return err_set(err, CODE_INTERNAL, "transport: malformed grpc-status: '%s'", number);
	if (code == 0)
		return CODE_OK;
	err_set(err, (enum code)code, "%s", message != NULL ? percent_decode(client->answer, message) : "");
	if (err != NULL)
		err->reason = reason_of(client);
	return (enum code)code;
}

/* Is a whole message there? */
static enum code has_message(struct client *client, size_t *size, bool *has, struct err *err)
{
	const uint8_t *head = client->in.data;

	*has = false;
	if (client->in.len < PREFIX)
		return CODE_OK;
	if (head[0] != 0)
		return err_set(err, CODE_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
	*size = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
	if (*size > client->max_message)
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%zu vs. %zu)",
			       *size, client->max_message);
	*has = client->in.len - PREFIX >= *size;
	return CODE_OK;
}

static enum code recv_message(struct client *client, const ProtobufCMessageDescriptor *type, struct arena *arena,
			      void **out, struct err *err)
{
	size_t size = 0;
	bool has = false;

	for (;;) {
		TRY(send_all(client, client->deadline_ms, err));
		TRY(has_message(client, &size, &has, err));
		if (has)
			break;
		if (!client->open) {
			if (client->in.len > 0)
				return err_set(err, CODE_INTERNAL, "unexpected EOF");
			TRY(status(client, err));
			*out = NULL;
			return CODE_OK;
		}
		if (client->dead && client->lost.code != CODE_OK) {
			*err = client->lost;
			return err->code;
		}
		TRY(receive(client, client->deadline_ms, err));
	}
	if (pb_parse(type, (struct span){ client->in.data + PREFIX, size }, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "grpc: failed to unmarshal the received message");
	buf_consume(&client->in, PREFIX + size);
	return CODE_OK;
}

enum code client_recv(struct client *client, const ProtobufCMessageDescriptor *type, struct arena *arena, void **out,
		      struct err *err)
{
	struct err own;
	enum code rc = recv_message(client, type, arena, out, err != NULL ? err : &own);

	if (rc != CODE_OK)
		end(client);
	return rc;
}

enum code client_stream(struct client *client, const char *method, struct err *err)
{
	struct err own;

	return begin(client, method, err != NULL ? err : &own);
}

enum code client_send(struct client *client, const void *message, struct err *err)
{
	struct err own;

	if (err == NULL)
		err = &own;
	put_message(client, message);
	if (!client->open)
		return CODE_OK; /* it has ended: client_recv says how */
	nghttp2_session_resume_data(client->session, client->stream);
	TRY(send_all(client, client->deadline_ms, err));
	while (client->open && client->body_at < client->body.len) { /* the server's window is closed */
		TRY(receive(client, client->deadline_ms, err));
		TRY(send_all(client, client->deadline_ms, err));
	}
	return CODE_OK;
}

enum code client_send_end(struct client *client, struct err *err)
{
	struct err own;

	client->body_end = true;
	if (!client->open)
		return CODE_OK;
	nghttp2_session_resume_data(client->session, client->stream);
	return send_all(client, client->deadline_ms, err != NULL ? err : &own);
}

void client_stream_end(struct client *client)
{
	end(client);
}

static enum code call_once(struct client *client, const char *method, const void *request,
			   const ProtobufCMessageDescriptor *reply, struct arena *arena, void **out, struct err *err)
{
	void *answer = NULL, *more = NULL;

	TRY(begin(client, method, err));
	put_message(client, request);
	client->body_end = true;
	TRY(client_recv(client, reply, arena, &answer, err));
	if (answer == NULL)
		return err_set(err, CODE_INTERNAL, "the server answered OK without a message");
	TRY(client_recv(client, reply, arena, &more, err)); /* the trailers */
	if (more != NULL) {
		end(client);
		return err_set(err, CODE_INTERNAL, "the server answered more than one message");
	}
	*out = answer;
	return CODE_OK;
}

enum code client_call(struct client *client, const char *method, const void *request,
		      const ProtobufCMessageDescriptor *reply, struct arena *arena, void **out, struct err *err)
{
	struct err own;
	enum code rc;

	if (err == NULL)
		err = &own;
	rc = call_once(client, method, request, reply, arena, out, err);
	if (rc == CODE_UNAVAILABLE && client->refused) /* on another connection */
		rc = call_once(client, method, request, reply, arena, out, err);
	return rc;
}
