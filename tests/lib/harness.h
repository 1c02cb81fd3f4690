/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_HARNESS_H
#define TESTS_LIB_HARNESS_H

#include "api/call.h"
#include "api/server.h"
#include "base/config.h"
#include "command.pb-c.h"

/* Handlers, one call at a time, as a server runs them but without a socket: a real state and replica under test_dir(),
 * a loop on a thread of its own; authorize() and the handler run there as a task. Trust domain "example.org". What a
 * call answers lives until harness_close. Used from the test's thread alone. */
struct harness {
	struct config config[1]; /* as config_load leaves an empty one, near enough; change it before the calls that
				    read it */
	struct server server[1];
	struct api_loop api[1];
	struct arena *arena; /* the harness' own, for requests */
	struct call **calls; /* made so far, with their arenas */
	size_t n_calls;
	const char *state_path;
};

struct harness *harness_open(void);
void harness_close(struct harness *h);

/* Who calls. `id` NULL: a TCP client without a certificate. The certificate is valid from 10 s ago for an hour. */
struct caller harness_local(void);
struct caller harness_client(const char *id, const char *serial);

/* Calls "Entry.GetEntry" with a request of its type; *reply (may be NULL) is the decoded answer, also if the handler
 * encoded it itself. The code and the text of the client; `err` may be NULL. Ends the test if the method has no such
 * row. */
enum code harness_call(struct harness *h, struct caller who, const char *method, const void *request, void **reply,
		       struct err *err);

/* The same for a stream: sends all `requests`, half-closes, and gathers what comes back. */
struct harness_replies {
	void **items;
	size_t n;
};
enum code harness_stream(struct harness *h, struct caller who, const char *method, void *const *requests, size_t n,
			 struct harness_replies *replies, struct err *err);

/* The call's arena-lived leftovers of the last call: its reason, trailers and so on. */
const struct call *harness_last(const struct harness *h);

/* A command for the state, carried out when it returns. Ends the test if the trip fails; a refusal is an outcome. */
Pb__Outcome *harness_propose(struct harness *h, Pb__Command *command);

/* Runs `run(call, ctx)` as a task with a call of this caller that has no route: for functions below the handlers. */
enum code harness_run(struct harness *h, struct caller who, enum code (*run)(struct call *call, void *ctx), void *ctx,
		      struct err *err);

/* An X.509 authority (P-256) and a JWT authority: in the own bundle, and the server's keyring from now on. Again:
 * further ones. */
void harness_authorities(struct harness *h);

#endif
