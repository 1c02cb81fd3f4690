/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_CLIENT_H
#define API_CLIENT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

/* A gRPC client that blocks: what the commands use to talk to a server, and our side of another node's API port. One
 * connection, one call at a time, one thread at a time. Errors have the codes and texts of grpc-go (`connection error:
 * desc = "transport: Error while dialing: ..."` with UNAVAILABLE); err->reason is filled from PermissionDeniedDetails.
 */
struct client;

struct client_options {
	const char *unix_path;    /* dialled as given; or: */
	const char *tcp;          /* "HOST:PORT", TLS: */
	const char *server_id;    /* the SPIFFE ID that the server's certificate must carry; NULL: any */
	const struct span *roots; /* DER: what its chain must lead to. None: the chain is not checked (bootstrap) */
	size_t n_roots;
	const struct span *chain; /* DER: our own certificate, leaf first; none: no client certificate */
	size_t n_chain;
	struct evp_pkey_st *key;    /* its key (EVP_PKEY), borrowed until client_close */
	int64_t connect_timeout_ms; /* 0: 20 s, as grpc-go */
	int stop_fd; /* > 0: once it is readable, whatever waits ends with UNAVAILABLE. Borrowed until client_close */
};

/* Dials, shakes hands, waits for the server's SETTINGS. Copies what it needs of `options` but the key. */
enum code client_open(const struct client_options *options, struct client **out, struct err *err);
void client_close(struct client *client); /* NULL is fine */
OWNABLE_STRUCT(client, client_close)

/* Metadata that every later call sends (lower-case name). `value` NULL takes it away. Copied. */
void client_metadata(struct client *client, const char *name, const char *value);
/* Every later call ends with DEADLINE_EXCEEDED after so long; sent as grpc-timeout. 0 (the start): none. */
void client_timeout(struct client *client, int64_t ms);

/* One message each way. `request` is a protobuf-c message; *out is of `reply`'s type, in the arena. Not OK is what the
 * server answered, or what became of the connection. `method` is "/package.Service/Method". */
enum code client_call(struct client *client, const char *method, const void *request,
		      const ProtobufCMessageDescriptor *reply, struct arena *arena, void **out, struct err *err);

/* A stream in both directions: one at a time, no client_call meanwhile. After an error, or once client_recv has
 * answered NULL, only client_stream_end may follow. */
enum code client_stream(struct client *client, const char *method, struct err *err);
enum code client_send(struct client *client, const void *message, struct err *err);
enum code client_send_end(struct client *client, struct err *err); /* half-close */
/* The next message; *out == NULL: the stream ended with OK. Not OK: it ended with that status. */
enum code client_recv(struct client *client, const ProtobufCMessageDescriptor *type, struct arena *arena, void **out,
		      struct err *err);
void client_stream_end(struct client *client); /* resets it if it still runs */

/* A header or trailer of the last answer; NULL: none. Valid until the next call. */
const char *client_trailer(const struct client *client, const char *name);

/* Received messages larger than this are refused as grpc-go does. The start is LIMIT_MESSAGE. */
void client_max_message(struct client *client, size_t bytes);

/* The server's certificate chain as DER, leaf first (TCP only; else none). Lives as long as the client. */
size_t client_server_chain(const struct client *client, const struct span **chain);

#endif
