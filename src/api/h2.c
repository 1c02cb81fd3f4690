/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 over a connection, by nghttp2. It alone (and client.c) sees that library.
 *
 *   conn: data --> nghttp2 --> on_begin_headers, on_header, on_frame (begin, end), on_data, on_stream_close (gone)
 *   h2_respond, h2_send, h2_finish --> nghttp2's queues, the stream's chunks --> conn: writable --> send, send_data -->
 * conn_write
 *
 * DATA goes from a stream's chunks to the connection without a copy in nghttp2. Windows are opened by hand: the
 * connection's at once, a stream's when its receiver has done with the bytes, so that one slow stream does not stop the
 * others. What costs us something and the client nothing (resets, SETTINGS, pings...) is paid from a bucket; a client
 * that empties it gets ENHANCE_YOUR_CALM. nghttp2 itself limits unsent acknowledgements, CONTINUATION frames and sizes.
 */
#include "api/h2.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/rand.h"

#include <nghttp2/nghttp2.h>

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	CONNECTION_WINDOW = 1 << 20,
	STREAM_WINDOW_MAX = 1 << 20,    /* for a message that is known to be large; 64 KiB otherwise */
	HEADERS_MAX = 16,               /* of an answer */
	DEFLATE_TABLE = 512,            /* we index three headers */
	KEEPALIVE_MS = 2 * 3600 * 1000, /* grpc-go's defaults */
	KEEPALIVE_WAIT_MS = 20 * 1000,
	DRAIN_PING_MS = 60 * 1000, /* a client that does not answer the PING */
};
enum { BUCKET = 1000, BUCKET_PER_S = 33 }; /* as nghttp2's later versions do for resets */
enum { COST_RESET = 1, COST_EMPTY_DATA = 1, COST_SETTINGS = 10, COST_PING = 30 };

static const uint8_t drain_ping[8] = "draining", alive_ping[8] = "alive???";

struct chunk {
	struct chunk *next;
	uint8_t head[5];
	size_t at; /* in head and body together */
	struct buf body;
};

struct h2_stream {
	struct link link;
	struct h2 *h2;
	int32_t id;
	void *user;          /* NULL before `begin` */
	struct arena *arena; /* before `begin` */
	struct header *headers, **headers_end;
	size_t headers_size;
	struct chunk *first, **last;
	size_t queued;
	struct header *trailers; /* one block */
	bool client_ended, responded, finished, deferred;
};

struct h2 {
	struct conn *conn;
	nghttp2_session *session;
	const struct h2_events *events;
	void *ctx;
	struct link streams;
	size_t backlog;
	double tokens;
	int64_t tokens_ms;
	int64_t settings_by_ms, age_ms, heard_ms, ping_ms, drain_ms; /* clock_mono_ms; INT64_MAX: does not apply */
	bool sent_since_ping, drains, dead;
};

/* --- time --- */

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void set_timer(struct h2 *h2)
{
	int64_t at = min64(min64(h2->settings_by_ms, h2->age_ms), h2->drain_ms);
	int64_t now = clock_mono_ms();

	at = min64(at, h2->ping_ms != INT64_MAX ? h2->ping_ms + KEEPALIVE_WAIT_MS : h2->heard_ms + KEEPALIVE_MS);
	conn_timer(h2->conn, at > now ? at - now : 0);
}

/* Takes from the bucket; an empty one ends the connection. */
static void charge(struct h2 *h2, int cost)
{
	int64_t now = clock_mono_ms();

	h2->tokens += (double)(now - h2->tokens_ms) * BUCKET_PER_S / 1000;
	if (h2->tokens > BUCKET)
		h2->tokens = BUCKET;
	h2->tokens_ms = now;
	h2->tokens -= cost;
	if (h2->tokens < 0)
		nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* --- the end --- */

static void free_chunks(struct h2_stream *stream)
{
	while (stream->first != NULL) {
		struct chunk *chunk = stream->first;

		stream->first = chunk->next;
		buf_done(&chunk->body);
		free(chunk);
	}
	stream->last = &stream->first;
	stream->h2->backlog -= stream->queued;
	stream->queued = 0;
}

static void drop_stream(struct h2_stream *stream)
{
	struct h2 *h2 = stream->h2;

	list_remove(&stream->link);
	free_chunks(stream);
	if (stream->user != NULL)
		h2->events->gone(stream->user);
	else
		arena_free(stream->arena);
	free(stream->trailers);
	free(stream);
}

/* Everything but the connection, which has gone or been given up. */
static void finish(struct h2 *h2, const struct err *why)
{
	h2->dead = true;
	while (!list_empty(&h2->streams))
		drop_stream(LIST_ITEM(h2->streams.next, struct h2_stream, link));
	nghttp2_session_del(h2->session);
	h2->events->closed(h2->ctx, why);
	free(h2);
}

static void give_up(struct h2 *h2, bool flush, const struct err *why)
{
	if (h2->dead)
		return;
	h2->dead = true;
	conn_close(h2->conn, flush);
	finish(h2, why);
}

static bool is_over(const struct h2 *h2)
{
	return !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
}

/* --- nghttp2's callbacks: in --- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h2 = arg;
	struct h2_stream *stream;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	stream = xcalloc(1, sizeof *stream);
	stream->h2 = h2;
	stream->id = frame->hd.stream_id;
	stream->arena = arena_new();
	stream->headers_end = &stream->headers;
	stream->last = &stream->first;
	list_push(&h2->streams, &stream->link);
	nghttp2_session_set_stream_user_data(session, stream->id, stream);
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	struct header *header;

	(void)arg, (void)flags;
	if (stream == NULL || stream->user != NULL) /* trailers of a request mean nothing in gRPC */
		return 0;
	stream->headers_size += name_len + value_len + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
	if (stream->headers_size > LIMIT_HEADERS)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* RST_STREAM */
	header = arena_alloc(stream->arena, sizeof *header);
	header->name = arena_strndup(stream->arena, (const char *)name, name_len);
	header->value = arena_strndup(stream->arena, (const char *)value, value_len);
	header->next = NULL;
	*stream->headers_end = header;
	stream->headers_end = &header->next;
	return 0;
}

static void stream_frame(struct h2 *h2, const nghttp2_frame *frame, struct h2_stream *stream)
{
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		struct arena *arena = stream->arena;

		stream->arena = NULL;
		stream->user = h2->events->begin(h2->ctx, stream, arena, stream->headers);
	}
	if (frame->hd.type == NGHTTP2_DATA && frame->hd.length == 0 && !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		charge(h2, COST_EMPTY_DATA);
	if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && !stream->client_ended) {
		stream->client_ended = true;
		h2->events->end(stream->user);
	}
}

static void ping(struct h2 *h2, const nghttp2_ping *frame)
{
	if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) { /* nghttp2 answers it */
		if (!h2->sent_since_ping)
			charge(h2, COST_PING);
		h2->sent_since_ping = false;
		return;
	}
	h2->ping_ms = INT64_MAX;
	if (memcmp(frame->opaque_data, drain_ping, sizeof drain_ping) == 0 && h2->drain_ms != INT64_MAX) {
		h2->drain_ms = INT64_MAX;
		nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
				      nghttp2_session_get_last_proc_stream_id(h2->session), NGHTTP2_NO_ERROR, NULL, 0);
	}
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h2 = arg;
	struct h2_stream *stream;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
	case NGHTTP2_DATA:
		stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
		if (stream != NULL)
			stream_frame(h2, frame, stream);
		break;
	case NGHTTP2_RST_STREAM:
		charge(h2, COST_RESET);
		break;
	case NGHTTP2_SETTINGS:
		h2->settings_by_ms = INT64_MAX;
		if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
			charge(h2, COST_SETTINGS);
		break;
	case NGHTTP2_PING:
		ping(h2, &frame->ping);
		break;
	default:
		break;
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);
	struct h2 *h2 = arg;

	(void)flags;
	nghttp2_session_consume_connection(session, len);
	if (stream != NULL && stream->user != NULL && !stream->finished)
		h2->events->data(stream->user, data, len);
	else if (stream != NULL)
		nghttp2_session_consume_stream(session, id, len); /* nobody listens */
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);

	(void)code, (void)arg;
	if (stream != NULL)
		drop_stream(stream);
	return 0;
}

/* --- nghttp2's callbacks: out --- */

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags, void *arg)
{
	struct h2 *h2 = arg;

	(void)session, (void)flags;
	if (!conn_room(h2->conn))
		return NGHTTP2_ERR_WOULDBLOCK;
	conn_write(h2->conn, data, len);
	return (ssize_t)len;
}

static size_t index_it(const char *name)
{
	return strcmp(name, ":status") == 0 || strcmp(name, "content-type") == 0 || strcmp(name, "grpc-status") == 0;
}

/* What changes from call to call stays out of the compression's table. */
static size_t to_nv(const struct header *headers, nghttp2_nv nv[HEADERS_MAX])
{
	size_t n = 0;

	for (; headers != NULL && n < HEADERS_MAX; headers = headers->next)
		nv[n++] = (nghttp2_nv){ (uint8_t *)headers->name, (uint8_t *)headers->value, strlen(headers->name),
					strlen(headers->value),
					index_it(headers->name) ? NGHTTP2_NV_FLAG_NONE : NGHTTP2_NV_FLAG_NO_INDEX };
	return n;
}

static ssize_t read_data(nghttp2_session *session, int32_t id, uint8_t *out, size_t size, uint32_t *flags,
			 nghttp2_data_source *source, void *arg)
{
	struct h2_stream *stream = source->ptr;
	size_t n = stream->queued < size ? stream->queued : size;
	nghttp2_nv nv[HEADERS_MAX];

	(void)out, (void)arg;
	if (n == 0 && !stream->finished) {
		stream->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n == stream->queued && stream->finished) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (stream->trailers != NULL) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			nghttp2_submit_trailer(session, id, nv, to_nv(stream->trailers, nv));
		}
	}
	return (ssize_t)n;
}

/* `len` bytes of the chunks' front to the connection. */
static void move(struct h2_stream *stream, size_t len)
{
	struct h2 *h2 = stream->h2;

	stream->queued -= len;
	h2->backlog -= len;
	while (len > 0) {
		struct chunk *chunk = stream->first;
		bool head = chunk->at < sizeof chunk->head;
		const uint8_t *from =
			head ? chunk->head + chunk->at : chunk->body.data + chunk->at - sizeof chunk->head;
		size_t n = (head ? sizeof chunk->head : sizeof chunk->head + chunk->body.len) - chunk->at;

		if (n > len)
			n = len;
		conn_write(h2->conn, from, n);
		len -= n;
		chunk->at += n;
		if (chunk->at < sizeof chunk->head + chunk->body.len)
			continue;
		stream->first = chunk->next;
		if (stream->first == NULL)
			stream->last = &stream->first;
		buf_done(&chunk->body);
		free(chunk);
	}
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t len,
		     nghttp2_data_source *source, void *arg)
{
	struct h2_stream *stream = source->ptr;
	struct h2 *h2 = arg;

	(void)session, (void)frame;
	if (!conn_room(h2->conn))
		return NGHTTP2_ERR_WOULDBLOCK;
	conn_write(h2->conn, head, 9); /* a frame's header; no padding: we ask for none */
	move(stream, len);
	h2->events->sent(stream->user);
	return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h2 = arg;
	struct h2_stream *stream;

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.last_stream_id == INT32_MAX)
		nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE,
				    drain_ping); /* nghttp2 would send it first, if it could */
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	h2->sent_since_ping = true;
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (stream != NULL && !stream->client_ended)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
	return 0;
}

/* --- the connection's events --- */

static void conn_opened(void *ctx)
{
	struct h2 *h2 = ctx;

	h2->events->opened(h2->ctx);
	h2->settings_by_ms += clock_mono_ms();
	set_timer(h2);
	conn_want_write(h2->conn); /* our SETTINGS */
}

static void conn_data(void *ctx, const uint8_t *data, size_t len)
{
	struct h2 *h2 = ctx;
	const struct err fine = { 0 };
	struct err err = { 0 };
	ssize_t taken;

	h2->heard_ms = clock_mono_ms();
	taken = nghttp2_session_mem_recv(h2->session, data, len);
	if (taken < 0) {
		if (taken == NGHTTP2_ERR_FLOODED)
			nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
		err_set(&err, CODE_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror((int)taken));
		give_up(h2, true, &err);
	} else if (is_over(h2)) {
		give_up(h2, true, &fine);
	} else if (nghttp2_session_want_write(h2->session)) {
		conn_want_write(h2->conn);
	}
}

static void conn_writable(void *ctx)
{
	struct h2 *h2 = ctx;
	const struct err fine = { 0 };
	struct err err = { 0 };
	int status = nghttp2_session_send(h2->session);

	if (h2->dead)
		return; /* conn_close asks for the last output */
	if (status != 0) {
		err_set(&err, CODE_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror(status));
		give_up(h2, true, &err);
	} else if (is_over(h2)) {
		give_up(h2, true, &fine);
	} else if (nghttp2_session_want_write(h2->session)) {
		conn_want_write(h2->conn); /* the connection was full */
	}
}

static void conn_tick(void *ctx)
{
	struct h2 *h2 = ctx;
	int64_t now = clock_mono_ms();
	struct err err = { 0 };

	if (h2->settings_by_ms <= now) {
		err_set(&err, CODE_DEADLINE_EXCEEDED, "the client did not begin to speak HTTP/2");
		give_up(h2, true, &err);
		return;
	}
	if (h2->ping_ms != INT64_MAX && h2->ping_ms + KEEPALIVE_WAIT_MS <= now) {
		err_set(&err, CODE_UNAVAILABLE, "the client does not answer");
		give_up(h2, false, &err);
		return;
	}
	if (h2->age_ms <= now)
		h2_drain(h2, DRAIN_PING_MS);
	if (h2->drain_ms <= now) {
		h2->drain_ms = INT64_MAX;
		nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
				      nghttp2_session_get_last_proc_stream_id(h2->session), NGHTTP2_NO_ERROR, NULL, 0);
	}
	if (h2->ping_ms == INT64_MAX && h2->heard_ms + KEEPALIVE_MS <= now) {
		h2->ping_ms = now;
		nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, alive_ping);
	}
	conn_want_write(h2->conn);
	set_timer(h2);
}

static void conn_closed(void *ctx, const struct err *why)
{
	struct h2 *h2 = ctx;

	if (!h2->dead)
		finish(h2, why);
}

/* --- the interface --- */

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *option;
static pthread_once_t set_up_once = PTHREAD_ONCE_INIT;

static void set_up(void) /* what all sessions share and nothing changes */
{
	if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
		abort(); /* out of memory */
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_max_outbound_ack(option, 100);
	nghttp2_option_set_max_deflate_dynamic_table_size(option, DEFLATE_TABLE);
}

/* --- memory: nghttp2's buffer for a frame comes from the slab --- */

static bool is_large(const struct slab *slab, size_t size)
{
	return size > slab_size(slab) / 2 && size <= slab_size(slab);
}

static void *mem_malloc(size_t size, void *slab)
{
	return is_large(slab, size) ? slab_get(slab) : malloc(size);
}

static void *mem_calloc(size_t n, size_t size, void *slab)
{
	(void)slab;
	return calloc(n, size);
}

static void mem_free(void *held, void *slab)
{
	if (slab_has(slab, held))
		slab_put(slab, held);
	else
		free(held);
}

static void *mem_realloc(void *held, size_t size, void *slab)
{
	void *moved;

	if (held == NULL)
		return mem_malloc(size, slab);
	if (!slab_has(slab, held))
		return realloc(held, size);
	if (size <= slab_size(slab))
		return held;
	moved = malloc(size);
	if (moved == NULL)
		return NULL;
	memcpy(moved, held, slab_size(slab));
	slab_put(slab, held);
	return moved;
}

/* --- the session --- */

static void begin_session(struct h2 *h2, struct slab *slab)
{
	nghttp2_mem mem = { slab, mem_malloc, mem_free, mem_calloc, mem_realloc };

	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, LIMIT_STREAMS },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, LIMIT_HEADERS },
		{ NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
	};

	pthread_once(&set_up_once, set_up);
	if (nghttp2_session_server_new3(&h2->session, callbacks, h2, option, slab != NULL ? &mem : NULL) != 0)
		abort(); /* out of memory */
	nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]);
	nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
}

enum code h2_open(struct conn_pool *pool, const struct h2_options *options, struct h2 **out, struct err *err)
{
	static const struct conn_events events = {
		.opened = conn_opened,
		.data = conn_data,
		.writable = conn_writable,
		.timer = conn_tick,
		.closed = conn_closed,
	};
	struct h2 *h2 = xcalloc(1, sizeof *h2);
	struct conn_options conn = {
		.fd = options->fd,
		.tcp = options->tcp,
		.tls = options->tls,
		.handshake_ms = options->handshake_ms > 0 ? options->handshake_ms : LIMIT_HANDSHAKE_MS,
		.events = &events,
		.ctx = h2,
		.peer = options->ctx,
	};
	bool is_open = options->tls == NULL || options->conn != NULL;
	int64_t now = clock_mono_ms();
	enum code rc = CODE_OK;

	h2->events = options->events;
	h2->ctx = options->ctx;
	list_init(&h2->streams);
	h2->tokens = BUCKET;
	h2->tokens_ms = h2->heard_ms = now;
	h2->ping_ms = h2->drain_ms = h2->age_ms = INT64_MAX;
	if (options->max_age_ms > 0)
		h2->age_ms = now + (int64_t)((double)options->max_age_ms * (0.9 + 0.2 * rand_unit()));
	h2->conn = options->conn;
	if (h2->conn != NULL)
		conn_hand_over(h2->conn, &events, h2);
	else
		rc = conn_open(pool, &conn, &h2->conn, err);
	if (rc != CODE_OK) {
		free(h2);
		return rc;
	}
	begin_session(h2, options->slab);
	h2->settings_by_ms = conn.handshake_ms; /* from when the connection is open */
	*out = h2;
	if (is_open) {
		h2->settings_by_ms += now;
		set_timer(h2);
		conn_want_write(h2->conn);
	}
	return CODE_OK;
}

void h2_drain(struct h2 *h2, int64_t ping_ms)
{
	h2->age_ms = INT64_MAX;
	if (h2->drains)
		return;
	h2->drains = true;
	h2->drain_ms = clock_mono_ms() + ping_ms;
	nghttp2_submit_shutdown_notice(h2->session); /* the PING follows it: on_frame_sent */
	conn_want_write(h2->conn);
	set_timer(h2);
}

void h2_abort(struct h2 *h2)
{
	const struct err why = { .code = CODE_UNAVAILABLE, .text = "the server stops" };

	give_up(h2, false, &why);
}

void h2_respond(struct h2_stream *stream, const struct header *headers, bool end)
{
	nghttp2_data_provider provider = { .source.ptr = stream, .read_callback = read_data };
	nghttp2_nv nv[HEADERS_MAX];

	assert(!stream->responded);
	stream->responded = true;
	stream->finished = end;
	nghttp2_submit_response(stream->h2->session, stream->id, nv, to_nv(headers, nv), end ? NULL : &provider);
	conn_want_write(stream->h2->conn);
}

static void resume(struct h2_stream *stream)
{
	if (stream->deferred) {
		stream->deferred = false;
		nghttp2_session_resume_data(stream->h2->session, stream->id);
	}
	conn_want_write(stream->h2->conn);
}

void h2_send(struct h2_stream *stream, const uint8_t head[5], struct buf *body)
{
	struct chunk *chunk = xcalloc(1, sizeof *chunk);

	assert(stream->responded && !stream->finished);
	memcpy(chunk->head, head, sizeof chunk->head);
	chunk->body = *body;
	*body = (struct buf){ 0 };
	*stream->last = chunk;
	stream->last = &chunk->next;
	stream->queued += sizeof chunk->head + chunk->body.len;
	stream->h2->backlog += sizeof chunk->head + chunk->body.len;
	resume(stream);
}

/* A list in one block. */
static struct header *copy_headers(const struct header *list)
{
	size_t n = 0, size = 0;
	struct header *copy;
	char *text;

	for (const struct header *header = list; header != NULL; header = header->next, n++)
		size += strlen(header->name) + strlen(header->value) + 2;
	if (n == 0)
		return NULL;
	copy = xmalloc(n * sizeof *copy + size);
	text = (char *)(copy + n);
	for (size_t i = 0; i < n; i++, list = list->next) {
		copy[i].next = i + 1 < n ? &copy[i + 1] : NULL;
		copy[i].name = text;
		text = stpcpy(text, list->name) + 1;
		copy[i].value = text;
		text = stpcpy(text, list->value) + 1;
	}
	return copy;
}

void h2_finish(struct h2_stream *stream, const struct header *trailers)
{
	assert(stream->responded && !stream->finished);
	stream->finished = true;
	stream->trailers = copy_headers(trailers);
	resume(stream);
}

void h2_reset(struct h2_stream *stream, uint32_t code)
{
	stream->finished = true;
	nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, code);
	conn_want_write(stream->h2->conn);
}

size_t h2_queued(const struct h2_stream *stream)
{
	return stream->queued;
}

size_t h2_backlog(const struct h2 *h2)
{
	return h2->backlog;
}

void h2_consumed(struct h2_stream *stream, size_t n)
{
	nghttp2_session_consume_stream(stream->h2->session, stream->id, n);
	conn_want_write(stream->h2->conn);
}

void h2_expect(struct h2_stream *stream, size_t n)
{
	if (n > STREAM_WINDOW_MAX)
		n = STREAM_WINDOW_MAX;
	if ((size_t)nghttp2_session_get_stream_effective_local_window_size(stream->h2->session, stream->id) < n)
		nghttp2_session_set_local_window_size(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, (int32_t)n);
	conn_want_write(stream->h2->conn);
}

const struct conn *h2_conn(const struct h2 *h2)
{
	return h2->conn;
}
