/* SPDX-License-Identifier: Apache-2.0 */
/* A call between the transport and its handler: decode, authorize, run, encode, record. What waits here waits until the
 * call's deadline at most. Order as in SPIRE: a message that is none is refused before anybody asks who sent it. */
#include "api/call.h"

#include "api/auth.h"
#include "api/grpc.h"
#include "api/route.h"
#include "api/server.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/metric.h"
#include "base/task.h"
#include "raft/replica.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_ID_MIN = 16, REQUEST_ID_MAX = 64 };

#define TRAILER_REVISION NAME "-revision"
#define TRAILER_NODE NAME "-node"
#define METADATA_REQUEST_ID NAME "-request-id"
#define METADATA_MIN_REVISION NAME "-min-revision"

/* --- the state --- */

int64_t call_now_s(const struct call *call __attribute__((unused)))
{
	return clock_wall_s();
}

enum code call_view(struct call *call, struct view **out)
{
	return view_open(call->api->reader, out, call->err);
}

/* Who asks for it, by which right, and whether it is the same as an earlier request (availability.md V14). */
static enum code sign_command(struct call *call, Pb__Command *command)
{
	const struct caller *caller = call->caller;
	const char *id = call_metadata(call, METADATA_REQUEST_ID);
	uint8_t *digest;

	command->format = 1;
	command->caller = caller->id != NULL ? caller->id : "";
	command->item = call->items++;
	if (caller->via != NULL && strcmp(caller->via, "entries") == 0)
		command->right = caller->as == WHO_ADMIN ? PB__COMMAND__RIGHT__ADMIN_ENTRY
							 : PB__COMMAND__RIGHT__DOWNSTREAM_ENTRY;
	if (id == NULL || (caller->as & (WHO_ADMIN | WHO_LOCAL)) == 0)
		return CODE_OK;
	if (strlen(id) < REQUEST_ID_MIN || strlen(id) > REQUEST_ID_MAX)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "'" METADATA_REQUEST_ID "' must have %d to %d bytes",
			       REQUEST_ID_MIN, REQUEST_ID_MAX);
	command->request_id = (ProtobufCBinaryData){ strlen(id), (uint8_t *)id };
	digest = arena_alloc(call->arena, SHA256_DIGEST_LENGTH);
	SHA256(call->request.data, call->request.len, digest);
	command->request_digest = (ProtobufCBinaryData){ SHA256_DIGEST_LENGTH, digest };
	return CODE_OK;
}

static void show_revision(struct call *call, uint64_t revision)
{
	const char *shown = header_find(call->trailers, TRAILER_REVISION);

	if (revision > 0 && (shown == NULL || strtoull(shown, NULL, 10) < revision))
		call_trailer(call, TRAILER_REVISION, arena_printf(call->arena, "%" PRIu64, revision));
}

enum code call_propose(struct call *call, Pb__Command *command, Pb__Outcome **out)
{
	TRY(sign_command(call, command));
	TRY(propose(call->server->replica, command, call->deadline_ms, call->arena, out, call->err));
	show_revision(call, (*out)->revision);
	if ((*out)->code != CODE_OK) {
		err_set(call->err, (enum code)(*out)->code, "%s", (*out)->message);
		call->err->reason = (*out)->reason;
	}
	return (enum code)(*out)->code;
}

enum code call_propose_all(struct call *call, Pb__Command **commands, size_t n, Pb__Outcome **outs)
{
	for (size_t i = 0; i < n; i++)
		TRY(sign_command(call, commands[i]));
	TRY(propose_all(call->server->replica, commands, n, call->deadline_ms, call->arena, outs, call->err));
	for (size_t i = 0; i < n; i++)
		show_revision(call, outs[i]->revision);
	return CODE_OK;
}

/* The client wants to read what it has written, maybe on another node: this one waits until it has that. */
static enum code await_revision(struct call *call)
{
	const char *text = call_metadata(call, METADATA_MIN_REVISION);
	int64_t give_up_ms = clock_mono_ms() + LIMIT_WAIT_LEADER_MS;
	unsigned long long want;
	char *after;
	enum code rc;

	if (text == NULL)
		return CODE_OK;
	want = strtoull(text, &after, 10);
	if (text[0] < '0' || text[0] > '9' || *after != '\0')
		return err_set(call->err, CODE_INVALID_ARGUMENT, "'" METADATA_MIN_REVISION "' is not a number: '%s'",
			       text);
	if (give_up_ms > call->deadline_ms - 1000)
		give_up_ms = call->deadline_ms - 1000;
	rc = replica_await(call->server->replica, want, give_up_ms, call->err);
	return rc == CODE_CANCELLED ? err_set(call->err, rc, "context canceled") : rc;
}

/* --- messages --- */

enum code call_recv(struct call *call, const ProtobufCMessageDescriptor *type, void **out)
{
	struct span message;
	bool end;
	enum code rc;

	TRY(grpc_recv(call->stream, call->deadline_ms, &message, &end, call->err));
	if (end) {
		*out = NULL;
		return CODE_OK;
	}
	rc = pb_parse(type, message, call->arena, out, call->err);
	if (rc != CODE_OK) {
		err_wrap(call->err, rc, "grpc: failed to unmarshal the received message");
		grpc_fail(call->stream, call->err);
	}
	return rc;
}

enum code call_send(struct call *call, const void *message)
{
	OWN_BUF bytes = { 0 };

	pb_encode(message, &bytes);
	return call_send_raw(call, &bytes);
}

enum code call_send_raw(struct call *call, const struct buf *message)
{
	return grpc_send(call->stream, (struct span){ message->data, message->len }, call->deadline_ms, call->err);
}

struct buf *call_reply_raw(struct call *call)
{
	assert(call->reply != NULL);
	call->raw = call->reply;
	return call->raw;
}

const char *call_metadata(struct call *call, const char *name)
{
	return header_find(call->metadata, name);
}

void call_trailer(struct call *call, const char *name, const char *value)
{
	struct header *trailer;

	for (trailer = call->trailers; trailer != NULL && strcmp(trailer->name, name) != 0; trailer = trailer->next)
		;
	if (trailer == NULL) {
		trailer = arena_alloc(call->arena, sizeof *trailer);
		*trailer = (struct header){ call->trailers, arena_strdup(call->arena, name), NULL };
		call->trailers = trailer;
	}
	trailer->value = arena_strdup(call->arena, value);
}

/* --- the call --- */

static enum code run(struct call *call, const void *request)
{
	const struct route *route = call->route;
	void *reply;

	TRY(await_revision(call));
	if (route->stream != NULL)
		return route->stream(call);
	if (route->unary == NULL)
		return err_set(call->err, CODE_UNIMPLEMENTED, "method %s not implemented", route->method);
	reply = pb_new(route->reply, call->arena);
	TRY(route->unary(call, request, reply));
	if (call->raw == NULL)
		pb_encode(reply, call->reply);
	return CODE_OK;
}

static enum code authorize_and_run(struct call *call, const void *request)
{
	enum code rc;

	TRY(authorize(call));
	rc = run(call, request);
	if (rc != CODE_OK && !call->logged && call->route->stream == NULL && call->route->unary == NULL)
		call->logged = true; /* SPIRE has no line for what it has not built */
	if (rc != CODE_OK && !call->logged)
		call_log_err(call, call->err);
	call_audit(call, rc);
	return rc;
}

/* Whoever balances over several nodes sees which one it was. */
static void show_node(struct call *call)
{
	const struct config *config = call->server->config;
	struct header *trailer;

	if (config == NULL || !config->cluster.enabled)
		return;
	trailer = arena_alloc(call->arena, sizeof *trailer);
	*trailer = (struct header){ call->trailers, TRAILER_NODE, config->cluster.name };
	call->trailers = trailer;
}

enum code call_serve(struct call *call)
{
	static struct metric_site sites[256];
	const struct route *route = call->route;
	size_t row = (size_t)(route - routes);
	int64_t begin_us = clock_mono_us();
	void *request = NULL;
	enum code rc;

	show_node(call);
	assert(n_routes <= sizeof sites / sizeof sites[0]);
	if (route->stream == NULL)
		TRY(pb_decode(route->request, call->request, call->arena, &request, call->err));
	rc = authorize_and_run(call, request);
	metric_call_at(&sites[row], route_metric(route), rc, (double)(clock_mono_us() - begin_us) / 1000);
	return rc;
}
