/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of the state, each on a connection of its own, so that they hold up nothing. The loop only moves bytes between
 * the socket and memory: what touches the file (read, write, sync) and hashes runs on libuv's threads, one piece at a
 * time; while a piece is there (`busy`) the file and the hash are that thread's.
 *
 *   sender:   dial -> COPY -> { read a piece -> COPY_DATA... } -> COPY_END -> (COPY_DONE) -> done
 *   receiver: COPY -> { COPY_DATA... -> write what has come } -> COPY_END -> sync, compare -> COPY_DONE
 *
 * What a wire's end has to tell is told by the flush (wire_copy_settle): the end may come from within a call of the
 * owner's.
 */
#include "raft/link_inside.h"

#include "base/clock.h"
#include "link.pb-c.h"
#include "store/codec.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CHUNK = 256 << 10, /* of a file at a time */
	DATA = 64 << 10,   /* of a frame */
	AHEAD = 1 << 20,   /* that has come and is not written: no more is read */
	STALL_MS = 30000,  /* without progress it has failed */
	ABOUT_MAX = 60 << 10,
};

struct link_copy_out {
	struct link link; /* of links->copies */
	struct links *links;
	struct wire *wire;
	struct link_copy options;
	struct buf about;
	uv_work_t work;
	bool busy, ended, failed, waits_for_done;
	enum code code;
	char why[320];
	uint8_t *chunk, sha256[32];
	size_t n;
	int error;
	uint64_t read, sent;
	int64_t started_ms, progress_ms;
	EVP_MD_CTX *hash;
};

struct copy_in {
	struct link_copy_in pub;
	struct link link; /* of links->receivers */
	struct links *links;
	struct wire *wire;
	uv_work_t work;
	bool busy, begun, end_seen, syncing, failed;
	enum code code;
	char why[320];
	int fd, error;
	uint64_t got, written;
	struct buf about, pending, writing;
	uint8_t want[32], sha256[32];
	int64_t progress_ms;
	EVP_MD_CTX *hash;
};

static EVP_MD_CTX *hash_new(void)
{
	EVP_MD_CTX *hash = EVP_MD_CTX_new();

	if (hash == NULL || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1)
		abort(); /* out of memory */
	return hash;
}

/* --- sending --- */

static void out_free(struct link_copy_out *copy)
{
	struct links *links = copy->links;

	EVP_MD_CTX_free(copy->hash);
	if (copy->options.fd >= 0)
		close(copy->options.fd);
	buf_done(&copy->about);
	free(copy->chunk);
	free(copy);
	links_unref(links);
}

/* The owner hears of it, once; what a thread still holds is freed when it is done. */
static void out_finish(struct link_copy_out *copy, enum code code, const char *why)
{
	struct wire *wire = copy->wire;
	char text[320];

	assert(!copy->ended);
	snprintf(text, sizeof text, "%.300s", why);
	copy->ended = true;
	list_remove(&copy->link);
	copy->wire = NULL;
	if (wire != NULL) {
		wire->sender = NULL;
		wire_end(wire, LINK_DOWN_CLOSED, true, "the copy has ended");
	}
	copy->options.done(copy->options.ctx, code, text, copy->sha256);
	if (!copy->busy)
		out_free(copy);
}

static void out_fail(struct link_copy_out *copy, enum code code, const char *why)
{
	if (copy->failed)
		return;
	copy->failed = true;
	copy->code = code;
	snprintf(copy->why, sizeof copy->why, "%.300s", why);
	links_want_flush(copy->links);
}

static void read_chunk(uv_work_t *work)
{
	struct link_copy_out *copy = work->data;
	uint64_t left = copy->options.length - copy->read;
	size_t want = left < CHUNK ? (size_t)left : CHUNK;

	copy->n = 0;
	copy->error = 0;
	while (copy->n < want) {
		ssize_t n =
			pread(copy->options.fd, copy->chunk + copy->n, want - copy->n, (off_t)(copy->read + copy->n));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			copy->error = n < 0 ? errno : ENODATA;
			return;
		}
		copy->n += (size_t)n;
	}
	EVP_DigestUpdate(copy->hash, copy->chunk, copy->n);
}

static void out_pump(struct link_copy_out *copy);

static void send_chunk(struct link_copy_out *copy)
{
	struct buf *out = &copy->links->scratch;

	for (size_t at = 0; at < copy->n; at += DATA) {
		size_t n = copy->n - at < DATA ? copy->n - at : DATA;

		out->len = 0;
		link_frame_put(out, LINK_FRAME_COPY_DATA, copy->chunk + at, n);
		stream_write(copy->wire->stream, out->data, out->len);
	}
	copy->read += copy->n;
	copy->sent += copy->n;
	copy->progress_ms = clock_mono_ms();
	stream_flush(copy->wire->stream);
}

static void chunk_read(uv_work_t *work, int status __attribute__((unused)))
{
	struct link_copy_out *copy = work->data;
	struct err err = { 0 };

	copy->busy = false;
	if (copy->ended) {
		out_free(copy);
	} else if (copy->error != 0) {
		if (copy->error == ENODATA)
			err_set(&err, CODE_INTERNAL, "the file to be copied is shorter than it was said to be");
		else
			err_errno(&err, CODE_INTERNAL, copy->error, "read the file to be copied", NULL);
		out_fail(copy, CODE_INTERNAL, err.text);
	} else if (copy->wire != NULL && !copy->failed) {
		send_chunk(copy);
		out_pump(copy);
	}
}

static void send_end(struct link_copy_out *copy)
{
	OWN_BUF out = { 0 };

	EVP_DigestFinal_ex(copy->hash, copy->sha256, NULL);
	link_frame_put(&out, LINK_FRAME_COPY_END, copy->sha256, sizeof copy->sha256);
	stream_write(copy->wire->stream, out.data, out.len);
	stream_flush(copy->wire->stream);
	copy->waits_for_done = true;
}

/* May another piece go by the rate? */
static bool in_rate(const struct link_copy_out *copy)
{
	double s = (double)(clock_mono_ms() - copy->started_ms) / 1000;

	return copy->options.bytes_per_s == 0 || (double)copy->sent <= s * (double)copy->options.bytes_per_s;
}

static void out_pump(struct link_copy_out *copy)
{
	if (copy->busy || copy->failed || copy->waits_for_done || copy->wire == NULL || copy->wire->state != WIRE_UP ||
	    stream_waiting(copy->wire->stream) > 0)
		return;
	if (copy->read == copy->options.length) {
		send_end(copy);
		return;
	}
	if (!in_rate(copy))
		return; /* the tick comes back */
	copy->busy = true;
	copy->work.data = copy;
	if (uv_queue_work(loop_uv(copy->links->loop), &copy->work, read_chunk, chunk_read) != 0)
		abort(); /* our own mistake */
}

static void take_done(struct wire *wire, const struct link_frame *frame)
{
	struct link_copy_out *copy = wire->sender;
	char text[300];
	enum code code;

	if (frame->body.len < 1 || frame->body.data[0] > CODE_UNAUTHENTICATED ||
	    (frame->body.data[0] == CODE_OK && !copy->waits_for_done)) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "the receiver of a copy says what makes no sense");
		return;
	}
	code = (enum code)frame->body.data[0];
	snprintf(text, sizeof text, "%.*s", (int)(frame->body.len - 1), (const char *)frame->body.data + 1);
	out_finish(copy, code, text);
}

struct link_copy_out *link_copy_send(struct links *links, uint64_t member, const struct link_copy *options)
{
	struct link_copy_out *copy = xcalloc(1, sizeof *copy);
	struct peer *peer = links->closed ? NULL : links_peer(links, member);

	assert(options->about.len <= ABOUT_MAX);
	copy->links = links_ref(links);
	copy->options = *options;
	buf_append(&copy->about, options->about.data, options->about.len);
	copy->chunk = xmalloc(CHUNK);
	copy->hash = hash_new();
	copy->progress_ms = clock_mono_ms();
	list_push(&links->copies, &copy->link);
	if (peer == NULL || peer->removed) {
		out_fail(copy, CODE_UNAVAILABLE, links->closed ? "this node stops" : "it is no member");
		return copy;
	}
	copy->wire = wire_new(links, LINK_KIND_COPY, true);
	copy->wire->peer = peer;
	copy->wire->sender = copy;
	wire_dial(copy->wire, peer->address, links->handshake_ms);
	return copy;
}

void link_copy_cancel(struct link_copy_out *copy)
{
	out_finish(copy, CODE_CANCELLED, "cancelled");
}

uint64_t link_copy_sent(const struct link_copy_out *copy)
{
	return copy->sent;
}

static void send_head(struct link_copy_out *copy)
{
	Pb__NodeCopy head = PB__NODE_COPY__INIT;
	OWN_BUF bytes = { 0 }, out = { 0 };

	head.length = copy->options.length;
	head.about = (ProtobufCBinaryData){ copy->about.len, copy->about.data };
	message_pack(&head, &bytes);
	link_frame_put(&out, LINK_FRAME_COPY, bytes.data, bytes.len);
	stream_write(copy->wire->stream, out.data, out.len);
	stream_flush(copy->wire->stream);
	copy->started_ms = copy->progress_ms = clock_mono_ms();
	out_pump(copy);
}

/* --- receiving --- */

static void in_free(struct copy_in *copy)
{
	struct links *links = copy->links;

	if (copy->wire != NULL)
		copy->wire->receiver = NULL;
	list_remove(&copy->link);
	EVP_MD_CTX_free(copy->hash);
	if (copy->fd >= 0)
		close(copy->fd);
	buf_done(&copy->about);
	buf_done(&copy->pending);
	buf_done(&copy->writing);
	free(copy);
	links_unref(links);
}

static void say_done(struct wire *wire, enum code code, const char *text)
{
	OWN_BUF out = { 0 };
	size_t len = strlen(text);

	link_frame_header(&out, LINK_FRAME_COPY_DONE, 1 + len);
	buf_put(&out, (uint8_t)code);
	buf_append(&out, text, len);
	stream_write(wire->stream, out.data, out.len);
}

/* Whole, or not: the owner hears of it, then the sender. No thread holds it. */
static void in_conclude(struct copy_in *copy, enum code code, const char *why)
{
	struct links *links = copy->links;
	struct err err = { 0 };

	assert(!copy->busy);
	if (code != CODE_OK)
		err_set(&err, code, "%s", why);
	if (copy->fd >= 0)
		close(copy->fd);
	copy->fd = -1;
	if (copy->begun && !links->closed) {
		enum code rc = links->events->copy_end(links->ctx, &copy->pub, code, copy->sha256, &err);

		if (code == CODE_OK)
			code = rc;
	}
	if (copy->wire != NULL && copy->wire->state == WIRE_UP) {
		struct wire *wire = copy->wire;

		say_done(wire, code, code == CODE_OK ? "" : err.text);
		wire->receiver = NULL;
		copy->wire = NULL;
		wire_end(wire, LINK_DOWN_CLOSED, true, "the copy has ended");
	}
	in_free(copy);
}

static void in_fail(struct copy_in *copy, enum code code, const char *why)
{
	if (!copy->failed) {
		copy->failed = true;
		copy->code = code;
		snprintf(copy->why, sizeof copy->why, "%.300s", why);
	}
	links_want_flush(copy->links);
}

static void write_pending(uv_work_t *work)
{
	struct copy_in *copy = work->data;
	size_t at = 0;

	copy->error = 0;
	while (at < copy->writing.len) {
		ssize_t n =
			pwrite(copy->fd, copy->writing.data + at, copy->writing.len - at, (off_t)(copy->written + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			copy->error = errno;
			return;
		}
		at += (size_t)n;
	}
	EVP_DigestUpdate(copy->hash, copy->writing.data, copy->writing.len);
}

static void sync_all(uv_work_t *work)
{
	struct copy_in *copy = work->data;

	EVP_DigestFinal_ex(copy->hash, copy->sha256, NULL);
	copy->error = fdatasync(copy->fd) == 0 ? 0 : errno;
}

static void in_pump(struct copy_in *copy);

static void after_work(uv_work_t *work, int status __attribute__((unused)))
{
	struct copy_in *copy = work->data;
	struct err err = { 0 };

	copy->busy = false;
	copy->written += copy->writing.len;
	copy->writing.len = 0;
	if (copy->failed) {
		in_conclude(copy, copy->code, copy->why);
		return;
	}
	if (copy->error != 0) {
		err_errno(&err, CODE_INTERNAL, copy->error, "write the copy", NULL);
		in_conclude(copy, CODE_INTERNAL, err.text);
		return;
	}
	if (copy->syncing) {
		bool right = memcmp(copy->want, copy->sha256, sizeof copy->want) == 0;

		in_conclude(copy, right ? CODE_OK : CODE_DATA_LOSS,
			    right ? "" : "the copy arrived with another digest");
		return;
	}
	in_pump(copy);
}

static void in_pump(struct copy_in *copy)
{
	if (copy->wire != NULL && copy->wire->stream != NULL)
		stream_pause(copy->wire->stream, copy->pending.len > AHEAD);
	if (copy->busy || copy->failed)
		return;
	if (copy->pending.len == 0 && !copy->end_seen)
		return;
	copy->busy = true;
	copy->work.data = copy;
	copy->syncing = copy->pending.len == 0;
	if (!copy->syncing) {
		struct buf empty = copy->writing;

		copy->writing = copy->pending;
		copy->pending = empty;
	}
	if (uv_queue_work(loop_uv(copy->links->loop), &copy->work, copy->syncing ? sync_all : write_pending,
			  after_work) != 0)
		abort(); /* our own mistake */
}

static void take_head(struct wire *wire, const struct link_frame *frame)
{
	struct links *links = wire->links;
	struct copy_in *copy = wire->receiver;
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__NodeCopy *head = message_unpack(&pb__node_copy__descriptor, frame->body, arena);
	struct err err = { 0 };
	enum code rc;

	if (head == NULL || copy->begun) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "the announcement of a copy makes no sense");
		return;
	}
	buf_append(&copy->about, head->about.data, head->about.len);
	copy->pub.from = wire->peer->id;
	copy->pub.length = head->length;
	copy->pub.about = (struct span){ copy->about.data, copy->about.len };
	if (links->events->copy_begin == NULL)
		rc = err_set(&err, CODE_UNIMPLEMENTED, "this node takes no copies");
	else
		rc = links->events->copy_begin(links->ctx, &copy->pub, &copy->fd, &err);
	copy->begun = rc == CODE_OK;
	if (rc != CODE_OK && wire->state == WIRE_UP) {
		copy->fd = -1;
		say_done(wire, rc, err.text);
		wire_end(wire, LINK_DOWN_CLOSED, true, "the copy was refused");
	}
}

static void take_data(struct wire *wire, const struct link_frame *frame)
{
	struct copy_in *copy = wire->receiver;

	if (!copy->begun || copy->end_seen || frame->body.len > copy->pub.length - copy->got) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a copy is longer than it was announced");
		return;
	}
	buf_append(&copy->pending, frame->body.data, frame->body.len);
	copy->got += frame->body.len;
	copy->progress_ms = clock_mono_ms();
	in_pump(copy);
}

static void take_end(struct wire *wire, const struct link_frame *frame)
{
	struct copy_in *copy = wire->receiver;

	if (!copy->begun || copy->end_seen || copy->got != copy->pub.length || frame->body.len != sizeof copy->want) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a copy is shorter than it was announced");
		return;
	}
	memcpy(copy->want, frame->body.data, sizeof copy->want);
	copy->end_seen = true;
	in_pump(copy);
}

void wire_copy_take(struct wire *wire, const struct link_frame *frame)
{
	if (wire->dialled && wire->sender != NULL)
		take_done(wire, frame);
	else if (wire->receiver == NULL)
		return; /* it has failed here; the wire is about to end */
	else if (frame->type == LINK_FRAME_COPY)
		take_head(wire, frame);
	else if (frame->type == LINK_FRAME_COPY_DATA)
		take_data(wire, frame);
	else
		take_end(wire, frame);
}

/* --- both --- */

static void receive(struct wire *wire)
{
	struct links *links = wire->links;
	struct copy_in *copy = xcalloc(1, sizeof *copy);

	LIST_FOR_SAFE (item, &links->wires) { /* one at a time of a member: the newest */
		struct wire *other = LIST_ITEM(item, struct wire, link);

		if (other != wire && other->receiver != NULL && other->peer == wire->peer)
			wire_end(other, LINK_DOWN_CLOSED, false, "the sender has begun another copy");
	}
	copy->links = links_ref(links);
	copy->wire = wire;
	copy->fd = -1;
	copy->hash = hash_new();
	copy->progress_ms = clock_mono_ms();
	list_push(&links->receivers, &copy->link);
	wire->receiver = copy;
}

void wire_copy_up(struct wire *wire)
{
	if (wire->dialled)
		send_head(wire->sender);
	else
		receive(wire);
}

void wire_copy_drained(struct wire *wire)
{
	if (wire->dialled && wire->sender != NULL)
		out_pump(wire->sender);
}

void wire_copy_ended(struct wire *wire, const char *why)
{
	struct link_copy_out *sender = wire->sender;
	struct copy_in *receiver = wire->receiver;

	wire->sender = NULL;
	wire->receiver = NULL;
	if (sender != NULL) {
		sender->wire = NULL;
		out_fail(sender, CODE_UNAVAILABLE, why);
	}
	if (receiver != NULL) {
		receiver->wire = NULL;
		in_fail(receiver, CODE_UNAVAILABLE, why);
	}
}

void wire_copy_settle(struct links *links)
{
	for (struct link *item = links->copies.next; item != &links->copies;) {
		struct link_copy_out *copy = LIST_ITEM(item, struct link_copy_out, link);

		item = item->next;
		if (copy->failed) {
			out_finish(copy, copy->code, copy->why);
			item = links->copies.next; /* the owner may have ended others */
		}
	}
	for (struct link *item = links->receivers.next; item != &links->receivers;) {
		struct copy_in *copy = LIST_ITEM(item, struct copy_in, link);

		item = item->next;
		if (copy->failed && !copy->busy) {
			in_conclude(copy, copy->code, copy->why);
			item = links->receivers.next;
		}
	}
}

void wire_copy_tick(struct links *links, int64_t now_ms)
{
	LIST_FOR (item, &links->copies) {
		struct link_copy_out *copy = LIST_ITEM(item, struct link_copy_out, link);

		if (copy->wire != NULL && copy->wire->state == WIRE_UP && now_ms - copy->progress_ms > STALL_MS &&
		    in_rate(copy))
			out_fail(copy, CODE_DEADLINE_EXCEEDED, "the receiver makes no progress");
		else
			out_pump(copy);
	}
	LIST_FOR (item, &links->receivers) {
		struct copy_in *copy = LIST_ITEM(item, struct copy_in, link);

		if (copy->wire != NULL && !copy->busy && now_ms - copy->progress_ms > STALL_MS)
			in_fail(copy, CODE_DEADLINE_EXCEEDED, "the sender makes no progress");
	}
}

void wire_copy_close(struct links *links)
{
	while (!list_empty(&links->copies))
		out_finish(LIST_ITEM(links->copies.next, struct link_copy_out, link), CODE_UNAVAILABLE,
			   "this node stops");
	LIST_FOR (item, &links->receivers)
		in_fail(LIST_ITEM(item, struct copy_in, link), CODE_UNAVAILABLE, "this node stops");
}
