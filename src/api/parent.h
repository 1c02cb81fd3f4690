/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PARENT_H
#define API_PARENT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "bundle.pb-c.h"
#include "svid.pb-c.h"

/* UpstreamAuthority "spire": the server above ours (server-operation.md 3.9). An agent of that server tells us who we
 * are (its Workload API, watched for as long as we run); with that X509-SVID we call the server over mutual TLS.
 *
 * Two threads, as both sides block: one watches the Workload API, one calls the server, a call at a time. */
struct parent;

struct parent_options {
	const char *trust_domain;
	const char *server_address, *server_port;
	const char *workload_api_socket; /* a path */
	int64_t poll_ms;                 /* between looks at the bundle; 0: 5 s */
	int64_t retry_ms; /* between attempts at the Workload API, so much more each time, 30 at most; 0: 1 s */
};

/* Starts watching. Copies the options. */
enum code parent_open(const struct parent_options *options, struct parent **out, struct err *err);
/* Ends both threads; what waits ends with CANCELLED. Before the loops of the callers below are freed. */
void parent_stop(struct parent *parent);
void parent_close(struct parent *parent); /* stopped; NULL is fine */

/* A CA certificate for the key of `csr`, and the bundle that the parent has right after. From a task; waits also for
 * our first X509-SVID. Texts begin as SPIRE's: "unable to request a new Downstream X509CA: ", "failed to fetch bundle
 * from upstream server: ".
 */
enum code parent_mint(struct parent *parent, struct span csr, int64_t ttl_s, int64_t deadline_ms, struct arena *arena,
		      Pb__NewDownstreamX509CAResponse **out, Pb__Bundle **bundle, struct err *err);

/* The parent learns of a JWT key of ours or of one below us; *out lists all keys of the trust domain that it knows.
 * From a task. */
enum code parent_publish_jwt(struct parent *parent, const Pb__JWTKey *key, int64_t deadline_ms, struct arena *arena,
			     Pb__PublishJWTAuthorityResponse **out, struct err *err);

/* From now on, every 5 s, on the loop's thread and outside of any task: the parent's bundle as it came
 * (spire.api.types.Bundle). parent_stop ends it; a call may then be under way. */
void parent_watch(struct parent *parent, struct loop *loop, void (*news)(void *ctx, struct span bundle), void *ctx);

#endif
