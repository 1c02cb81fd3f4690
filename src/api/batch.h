/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_BATCH_H
#define API_BATCH_H

#include "api/call.h"
#include "command.pb-c.h"

/* Batch RPCs (contract server-api.md 4.0): each item is checked, the commands of those that passed are carried out
 * together, each on its own, and every item gets its status. */
struct batch_item {
	enum code code;                /* of its Status so far */
	const char *text;              /* "OK", or as the client sees it */
	const struct log_pair *fields; /* of its lines in the log */
	Pb__Command *command;          /* NULL: it failed before */
	Pb__Outcome *outcome;          /* of the command */
};

/* All "OK", without a command. NULL for none. */
struct batch_item *batch_new(struct call *call, size_t n);

/* The item has failed: "msg" or "msg: inner" (NOT_FOUND: "msg"), with its line in the log. `inner` may be NULL. */
void batch_fail(struct call *call, struct batch_item *item, enum code code, const char *msg, const char *inner);

/* The same for an error that is a status of its own in SPIRE (of its datastore): the log shows it as grpc-go prints
 * one. */
void batch_fail_status(struct call *call, struct batch_item *item, enum code code, const char *msg,
		       enum code inner_code, const char *inner);

/* Carries out what has a command. Not OK is the whole call's failure: nothing is known of the items. */
enum code batch_run(struct call *call, struct batch_item *items, size_t n);

/* If the state refused the item: as a failure with `msg`, `not_found` instead of it for NOT_FOUND. */
void batch_refused(struct call *call, struct batch_item *item, const char *msg, const char *not_found);

/* A single command that did not come through, its text in call->err: with `msg` before it. INTERNAL, as SPIRE's
 * handlers say, but what says that trying again helps stays what it is (UNAVAILABLE and its like). */
enum code call_failed(struct call *call, enum code rc, const char *msg);

/* A page token that is none: INTERNAL "msg: could not parse token 'x'", with its line in the log. */
enum code call_bad_token(struct call *call, const char *msg, const char *token);

Pb__Status *batch_status(struct call *call, const struct batch_item *item);
void batch_audit(struct call *call, const struct batch_item *item, const struct log_pair *pairs);

/* Pairs that grow, in the arena; always ended. */
struct pairs {
	struct log_pair *items;
	size_t n;
};
struct pairs pairs_new(struct call *call, size_t max);
void pairs_add(struct pairs *pairs, struct log_pair pair);
#define PAIR(pairs, ...) pairs_add((pairs), (struct log_pair)__VA_ARGS__)

/* Pairs that live as long as the call: for call->fields, batch_item.fields. */
#define CALL_PAIRS(call, ...)                                                                                          \
	((const struct log_pair *)arena_memdup((call)->arena, (const struct log_pair[]){ __VA_ARGS__, { 0 } },         \
					       sizeof((const struct log_pair[]){ __VA_ARGS__, { 0 } })))

/* One text of many, "," between. */
const char *join_texts(struct arena *arena, const char *const *items, size_t n);

#endif
