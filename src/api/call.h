/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/header.h"
#include "api/pb.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "store/view.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

/* One RPC, as its handler sees it. The handler runs as a task on an api loop: straight-line code that may wait in call_propose,
 * call_recv, call_send and task_wait. Everything that the request needs comes from the call's arena, dropped at its end. */

enum who { /* caller classes, server-api.md 2.2; a route names a set of them */
	WHO_ANY = 1 << 0,
	WHO_LOCAL = 1 << 1,
	WHO_ADMIN = 1 << 2,
	WHO_DOWNSTREAM = 1 << 3,
	WHO_AGENT = 1 << 4,
	WHO_OPERATOR = 1 << 5, /* cluster { admin_ids }: of the cluster commands alone */
};

struct caller {
	enum who as;           /* the class that let it in; WHO_ANY = "nobody" */
	const char *via;       /* "", "transport", "config", "entries", "datastore" */
	bool local;            /* came over the UNIX socket */
	const char *address;   /* "127.0.0.1:41234", "" for local */
	const char *ip;        /* "127.0.0.1": the key of rate limits */
	const char *id;        /* SPIFFE ID of the client certificate, NULL without one */
	const char *serial;    /* its serial number, decimal */
	int64_t not_before_s, not_after_s;
	int64_t uid, gid;      /* of a local one */
	const char *program;   /* the path of a local one's program, only if the audit log is on and it could be read; else NULL */
};

struct api_loop; /* one of the loops that serve: its reader, its caches */
struct route;
struct server;
struct grpc_stream;

struct call {
	struct server *server;
	struct api_loop *api;
	const struct route *route;
	struct arena *arena;
	struct caller *caller;
	struct err err[1];     /* what the handler sets when it fails */
	const char *request_id; /* UUIDv4 of this call, for the log; "" until the first use */
	uint32_t items;        /* commands proposed so far: the number of the next one (V14) */
	int64_t deadline_ms;   /* clock_mono_ms; INT64_MAX without one */
	struct buf *raw;       /* set by call_reply_raw */
	struct buf *reply;     /* where a unary answer is gathered; NULL: call_reply_raw makes one */
	struct span request;   /* a unary request as it came */
	bool confirmed;        /* what is read from here on is what the leader has confirmed since the call came */
	bool unconfirmed;      /* it was tried in vain: not again */
	struct header *metadata, *trailers; /* of the request; of the answer, the last first */
	const struct log_pair *fields; /* what the lines of this call carry besides (entry_id, ...): a handler's, changed for each item */
	bool logged;           /* the failure in `err` has its line in the log already */
	struct log_pair *audit; /* fields of the call's own record */
	size_t n_audit;
	struct grpc_stream *stream; /* api/grpc.c's */
};

int64_t call_now_s(const struct call *call); /* wall clock */

/* A read snapshot on this loop's connection. Pins the task: close it (or let OWN_STRUCT(view) do so) before anything that waits. */
enum code call_view(struct call *call, struct view **out);

/* Carries out commands through the replica and waits for their outcomes: who calls and the request id are filled in here.
 * The code of a single one is the outcome's (refused = its code and text in call->err, and `out` is set all the same);
 * of several only that of the trip: look at each outcome's code. */
enum code call_propose(struct call *call, Pb__Command *command, Pb__Outcome **out);
enum code call_propose_all(struct call *call, Pb__Command **commands, size_t n, Pb__Outcome **outs);

/* Waits until this replica holds all that was acknowledged anywhere before the call; once a call. UNAVAILABLE: no leader confirms it
 * (availability.md section 2); then it is not tried again. No view may be open. *newer (may be NULL): what was read before may have
 * changed, so look again. A server without other members is its own confirmation. */
enum code call_confirm(struct call *call, bool *newer);

/* After a no for reasons of state (`rc`, its text in call->err) that *view gave. *again: this replica has been confirmed as current
 * since, look again; *view is closed then (as it is before any wait). Else the answer: `rc`, or UNAVAILABLE if nobody can confirm it. */
enum code call_no(struct call *call, struct view **view, enum code rc, bool *again);

/* No authority signs here yet: UNAVAILABLE with the reason, or INTERNAL with this text. */
enum code call_cannot_sign(struct call *call, const char *text);

/* Streams. call_recv: the next message, or *out == NULL at the client's half-close. call_send: waits while the client reads slowly. */
enum code call_recv(struct call *call, const ProtobufCMessageDescriptor *type, void **out);
enum code call_send(struct call *call, const void *message);
enum code call_send_raw(struct call *call, const struct buf *message);

/* A unary handler that has its answer encoded already takes this and appends the message to it; `reply` is then ignored. */
struct buf *call_reply_raw(struct call *call);

/* A line of the log with the fields that SPIRE gives a call's lines: authorized_as, authorized_via, caller_addr, caller_id or
 * caller_uid..., method, request_id, service, subsystem_name=api; `pairs` besides, ended by LOG_KIND_END. */
void call_log(struct call *call, enum log_level level, const char *msg, const struct log_pair *pairs);
#define CALL_LOG(call, level, msg, ...)                                                                                \
	call_log((call), (level), (msg), (const struct log_pair[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } })

/* The line that SPIRE's handlers write of a failed call or item, at ERROR (at DEBUG if the client has left meanwhile): "Invalid argument: msg", else "Msg", with error=inner
 * (NULL: none; never for NOT_FOUND). call_log_err takes the two from what err_wrap put together; call_finish calls it for a call that
 * failed and has not been logged. (api/fail.c) */
void call_log_failure(struct call *call, enum code code, const char *msg, const char *inner);
void call_log_err(struct call *call, const struct err *err);

/* The audit log (server-api.md 4.0 "Audit log"), if it is on. call_audit_add: fields of the call's own record, which is written at
 * its end with its status (on success only if the row says so); may be called several times. call_audit_item: a record of one item
 * of a batch, at once: `code` and `text` as in its Status. Texts are copied. Cheap when the log is off; call_audits tells. */
bool call_audits(const struct call *call);
void call_audit_add(struct call *call, const struct log_pair *pairs);
void call_audit_item(struct call *call, enum code code, const char *text, const struct log_pair *pairs);
#define CALL_AUDIT_ADD(call, ...) call_audit_add((call), (const struct log_pair[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } })
#define CALL_AUDIT_ITEM(call, code, text, ...)                                                                         \
	call_audit_item((call), (code), (text), (const struct log_pair[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } })

/* Metadata of the request by its lower-case name (the first of that name; NULL: none), and trailers of the answer (copied).
 * call_propose sets the trailer of cluster.md section 4 itself. */
const char *call_metadata(struct call *call, const char *name);
void call_trailer(struct call *call, const char *name, const char *value);

/* Rate limits (server-api.md 4.0). Waits for `n` tokens of that limiter for the caller's IP; local callers never wait.
 * RESOURCE_EXHAUSTED with SPIRE's text after "what: ". */
enum limiter { LIMITER_ATTEST, LIMITER_CSR, LIMITER_JSR, LIMITER_PUSH_KEY, LIMITER_POST_STATUS, LIMITER_COUNT };
enum code call_limit(struct call *call, enum limiter limiter, unsigned n, const char *what);

/* --- For the transport (api/grpc.c) and tests. --- */

/* Everything between the request's bytes and the answer's, as a task: decodes, authorizes, runs the handler of call->route, encodes
 * into call->reply, logs, writes the audit record, counts. What it answers is the status of the call; its text is in call->err. */
enum code call_serve(struct call *call);

/* The call's own record of the audit log: at its end, unless it was denied. (api/call_log.c) */
void call_audit(struct call *call, enum code code);

#endif
