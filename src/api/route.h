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
	bool read;           /* to an admin it answers what the leader has confirmed as current */
	bool audit;          /* a success is a record of the audit log: false for batches, which have one an item (call_audit_item) */
	unary_handler *unary;
	stream_handler *stream; /* both NULL: not built: authorize first, then UNIMPLEMENTED with its name */
	const ProtobufCMessageDescriptor *request, *reply;
	const char *path; /* "/spire.api.server.entry.v1.Entry/GetEntry" */
};

/* NULL: unknown; `service_known` tells which text of grpc-go is due. `tcp`: what that listener does not carry is unknown there.
 * Hashed: well below a microsecond. Thread-safe. */
const struct route *route_find(struct span service, struct span method, bool tcp, bool *service_known);

/* "agent.v1.Agent" as the log has it, and "rpc_agent_v1_agent_attest_agent": its metric. */
const char *route_service(const struct route *route);
const char *route_metric(const struct route *route);

extern const struct route routes[];
extern const size_t n_routes;

#endif
