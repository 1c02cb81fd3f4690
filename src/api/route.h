/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_ROUTE_H
#define API_ROUTE_H

#include "api/call.h"

/* The API and its policy on one screen: route.c has a row for each RPC. */

/* `request` is the decoded message (its struct is the row's), `reply` an initialised answer to fill; both in the call's arena. */
typedef enum code unary_handler(struct call *call, const void *request, void *reply);
typedef enum code stream_handler(struct call *call);

struct route {
	const char *service; /* "spire.api.server.entry.v1.Entry" */
	const char *method;  /* "GetEntry" */
	unsigned who;        /* a set of enum who */
	bool tcp;            /* reachable on the TCP listener */
	unary_handler *unary;
	stream_handler *stream; /* both NULL: not built yet: authorize first, then UNIMPLEMENTED with its name */
	const ProtobufCMessageDescriptor *request, *reply;
};

/* NULL: unknown; `service_known` tells which text of grpc-go is due. Hashed or sorted: found in well below a microsecond. */
const struct route *route_find(const char *service, const char *method, bool *service_known);

extern const struct route routes[];
extern const size_t n_routes;

#endif
