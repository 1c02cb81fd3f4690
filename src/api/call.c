/* SPDX-License-Identifier: Apache-2.0 */
/* A call between the transport and its handler: decode, authorize, run, encode, record. What waits here waits until the
 * call's deadline at most. Order as in SPIRE: a message that is none is refused before anybody asks who sent it. */
#include "api/call.h"

#include "api/auth.h"
#include "api/grpc.h"
#include "api/route.h"
#include "api/rotate.h"
#include "api/server.h"
#include "api/state.h"
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
#define TRAILER_STALE NAME "-stale"
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

/* --- the leader --- */

/* V7: at most 10 s, or the deadline less 1 s; of a short deadline at least half. */
static int64_t wait_until_ms(const struct call *call)
{
	int64_t now_ms = clock_mono_ms(), left_ms;

	if (call->deadline_ms == INT64_MAX)
		return now_ms + LIMIT_WAIT_LEADER_MS;
	left_ms = call->deadline_ms - now_ms;
	left_ms = left_ms > 2000 ? left_ms - 1000 : left_ms / 2;
	return now_ms + (left_ms < LIMIT_WAIT_LEADER_MS ? left_ms : LIMIT_WAIT_LEADER_MS);
}

static enum code ask_leader(struct call *call)
{
	struct state *state = call->server->state;
	int64_t boot_ms = clock_boot_ms(), wall_ms = clock_wall_ms();
	struct replica_view view;
	enum code rc;

	if (call->unconfirmed || state_is_leaderless(state))
		return state_no_leader(call->server, call->err);
	rc = replica_barrier(call->server->replica, wait_until_ms(call), call->err);
	if (rc == CODE_CANCELLED)
		return rc;
	replica_view(call->server->replica, &view);
	if (rc != CODE_OK)
		return view.hears_leader ? rc : state_no_leader(call->server, call->err);
	state_fresh(state, boot_ms, wall_ms);
	show_revision(call, view.applied);
	return CODE_OK;
}

enum code call_confirm(struct call *call, bool *newer)
{
	enum code rc;

	if (newer != NULL)
		*newer = false;
	if (call->confirmed || state_is_single(call->server->state))
		return CODE_OK;
	rc = ask_leader(call);
	call->confirmed = rc == CODE_OK;
	call->unconfirmed = !call->confirmed;
	if (newer != NULL)
		*newer = call->confirmed;
	return rc;
}

enum code call_no(struct call *call, struct view **view, enum code rc, bool *again)
{
	struct err no = *call->err;

	if (!call->confirmed && !call->unconfirmed && !state_is_single(call->server->state))
		view_close(TAKE(*view));
	TRY(call_confirm(call, again));
	*call->err = no;
	return rc;
}

enum code call_cannot_sign(struct call *call, const char *text)
{
	if (call->server->rotation != NULL && rotation_is_waiting(call->server->rotation, call->err))
		return CODE_UNAVAILABLE;
	return err_set(call->err, CODE_INTERNAL, "%s", text);
}

/* Commands that no leader takes: the reason, in place of the replica's short word for it. */
static enum code explain(struct call *call, enum code rc)
{
	static const char word[] = "no leader";

	if (rc != CODE_UNAVAILABLE || state_is_single(call->server->state) || strncmp(call->err->text, word, sizeof word - 1) != 0)
		return rc;
	return state_no_leader(call->server, call->err);
}

static enum code may_propose(struct call *call)
{
	return state_is_leaderless(call->server->state) ? state_no_leader(call->server, call->err) : CODE_OK;
}

enum code call_propose(struct call *call, Pb__Command *command, Pb__Outcome **out)
{
	enum code rc;

	TRY(sign_command(call, command));
	TRY(may_propose(call));
	rc = propose(call->server->replica, command, call->deadline_ms, call->arena, out, call->err);
	if (rc != CODE_OK)
		return explain(call, rc);
	show_revision(call, (*out)->revision);
	if ((*out)->code != CODE_OK) {
		err_set(call->err, (enum code)(*out)->code, "%s", (*out)->message);
		call->err->reason = (*out)->reason;
	}
	return (enum code)(*out)->code;
}

enum code call_propose_all(struct call *call, Pb__Command **commands, size_t n, Pb__Outcome **outs)
{
	enum code rc;

	for (size_t i = 0; i < n; i++)
		TRY(sign_command(call, commands[i]));
	TRY(may_propose(call));
	rc = propose_all(call->server->replica, commands, n, call->deadline_ms, call->arena, outs, call->err);
	if (rc != CODE_OK)
		return explain(call, rc);
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

/* What admins read is what the leader has confirmed; without one, what stands here, and its age. */
static enum code prepare_read(struct call *call, bool *stale)
{
	const struct state *state = call->server->state;
	struct replica_view view;

	if (!call->route->read || !(call->caller->as & (WHO_LOCAL | WHO_ADMIN)) || call_confirm(call, NULL) == CODE_OK)
		return CODE_OK;
	replica_view(call->server->replica, &view);
	if (call->err->code == CODE_CANCELLED || (!state_is_leaderless(state) && view.hears_leader))
		return call->err->code;
	*stale = true;
	call_trailer(call, TRAILER_STALE, arena_printf(call->arena, "%" PRId64, state_stale_s(state)));
	return CODE_OK;
}

/* Before anything is looked at. What a node may not answer it refuses; what may not rest on this replica alone is confirmed. */
static enum code may_answer(struct call *call)
{
	const struct state *state = call->server->state;

	if (state_is_single(state))
		return CODE_OK;
	if (!call->caller->local && state_now(state) == STATE_OUT)
		return state_refuse(call->server, call->err);
	if (!call->caller->local && !call->route->read && !state_may_say_yes(state))
		return call_confirm(call, NULL);
	return CODE_OK;
}

static enum code run(struct call *call, const void *request)
{
	const struct route *route = call->route;
	bool stale = false;
	enum code rc;
	void *reply;

	TRY(await_revision(call));
	if (route->stream != NULL)
		return route->stream(call);
	if (route->unary == NULL)
		return err_set(call->err, CODE_UNIMPLEMENTED, "method %s not implemented", route->method);
	TRY(prepare_read(call, &stale));
	reply = pb_new(route->reply, call->arena);
	rc = route->unary(call, request, reply);
	if (rc == CODE_NOT_FOUND && stale)
		return state_no_leader(call->server, call->err); /* here there is none: elsewhere there may be */
	TRY(rc);
	if (call->raw == NULL)
		pb_encode(reply, call->reply);
	return CODE_OK;
}

static enum code authorize_and_run(struct call *call, const void *request)
{
	enum code rc;

	rc = may_answer(call);
	if (rc != CODE_OK)
		return rc;
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
