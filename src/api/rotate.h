/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_ROTATE_H
#define API_ROTATE_H

#include "api/server.h"
#include "api/slots.h"
#include "base/err.h"
#include "base/loop.h"
#include "ca/key.h"

/* The node as its own caller: it prepares its authorities, publishes them in the bundle before they sign anything,
 * activates them when due, renews the server's own SVID and prunes the bundle (server-operation.md section 3;
 * availability.md V8, V9). All of it happens in one task of one loop, so a timer and an operator's request never cross.
 */
struct rotation;

/* `keys` stays the caller's and must outlive it. */
enum code rotation_new(struct server *server, struct loop *loop, struct key_manager *keys, struct rotation **out,
		       struct err *err);
void rotation_free(struct rotation *rotation); /* after its loop has ended */

/* In a task of the loop, before any API opens: takes up what the journal remembers, else makes authorities, and hangs
 * the first keyring into server->keyring. */
enum code rotation_init(struct rotation *rotation, struct err *err);

/* Starts the task with its timers: authorities every 10 s, the server's SVID every 5 s, the bundle every 6 h, journals
 * every 8 h. */
void rotation_run(struct rotation *rotation);

/* Why nothing is signed here yet, with other members around: UNAVAILABLE in `err`. False: there are none. Thread-safe. */
bool rotation_is_waiting(const struct rotation *rotation, struct err *err);

/* Passes since the start that failed: /live and /ready give up after ten (7.3). Thread-safe. */
unsigned rotation_failures(const struct rotation *rotation);

/* What an operator asks for (LocalAuthority), carried out between passes. */
enum authority_op {
	AUTHORITY_STATE,
	AUTHORITY_PREPARE,
	AUTHORITY_ACTIVATE,
	AUTHORITY_TAINT,
	AUTHORITY_REVOKE,
	AUTHORITY_TAINT_ABOVE, /* the id is the subject key id of an authority above ours, lower-case hex */
	AUTHORITY_REVOKE_ABOVE,
};

struct authority_state {
	char authority_id[AUTHORITY_ID_MAX]; /* "": none */
	char upstream_id[AUTHORITY_ID_MAX];
	int64_t expires_at_s;
	enum slot_status status;
};

struct authority_answer {
	struct authority_state current, next; /* AUTHORITY_STATE: both; else `next` is the one that was acted on */
};

/* From a task of any loop; waits at most until `deadline_ms`. Codes and texts are SPIRE's (server-api.md 4.6). */
enum code rotation_ask(struct rotation *rotation, enum authority_kind kind, enum authority_op op,
		       const char *authority_id, int64_t deadline_ms, struct authority_answer *out, struct err *err);

#endif
