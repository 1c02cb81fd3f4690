/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_ROTATE_INSIDE_H
#define API_ROTATE_INSIDE_H

#include "api/rotate.h"
#include "base/list.h"
#include "base/task.h"
#include "command.pb-c.h"

#include <stdatomic.h>

/* What the parts of the rotation share; for rotate*.c alone. Everything runs in the one task of the rotation's loop.
 *
 *   rotate.c        start, timers, passes, the server's own SVID
 *   rotate_make.c   an authority is made, published and noted; it becomes the one that signs
 *   rotate_above.c  authorities above ours: minting, their roots and JWT keys in our bundle, their taints
 *   rotate_ripe.c   when an authority may be used
 *   rotate_ask.c    what operators ask for */
struct rotation {
	struct server *server;
	struct loop *loop;
	struct reader *reader;
	struct key_manager *keys;
	enum key_type x509_type, jwt_type;
	struct slots x509, jwt;
	struct journal *journal;
	EVP_PKEY *server_key;       /* of the present server SVID */
	struct arena *server_arena; /* of its chain */
	struct span *server_chain;  /* leaf, then what its signer shows */
	size_t n_server_chain;
	int64_t server_not_before_s, server_not_after_s;
	atomic_uint failures;
	_Atomic int64_t waiting_since_ms; /* the first authority is published since, and not ripe yet; -1: it is not so */
	struct link requests; /* struct request, in order of arrival */
	struct wait wake;     /* ended by a request, or by news from above */

	bool running;                        /* past the start: what waits has a deadline */
	struct buf news;                     /* the bundle above as it came last; nothing: dealt with */
	struct buf followed;                 /* the one that our bundle has followed last */
	bool said_no_jwt_above;              /* one warning is enough */
	char said_tainted[AUTHORITY_ID_MAX]; /* the root above whose taint was logged last */
};

/* --- rotate_make.c --- */

/* Together, in one trip; the first refusal is an error. */
enum code rotate_carry_out(struct rotation *r, Pb__Command **commands, size_t n, struct err *err);
/* `slot` gets a new key, published and in the journal: PREPARED. Its former key is gone, also on failure. */
enum code rotate_prepare(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err);
/* `slot` becomes the one that signs. */
enum code rotate_activate(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err);

/* --- rotate.c --- */

void rotate_hang_keyring(struct rotation *r);
/* A new server SVID if the present one's chain ends in one of these authorities (DER). */
enum code rotate_leave_tainted(struct rotation *r, const struct span *tainted, size_t n, struct err *err);
/* Does the chain (leaf first) lead to one of these authorities? */
bool rotate_leads_to(const struct span *chain, size_t n_chain, const struct span *authorities, size_t n);

/* --- rotate_ripe.c --- */

bool rotate_is_ripe(struct rotation *r, struct slots *slots, const struct slot *slot);
void rotate_note_loaded(struct slot *slot); /* it was PREPARED before this start */
void rotate_note_waiting(struct rotation *r);

/* --- rotate_above.c --- */

struct rotate_minted {      /* all in the arena */
	struct span *chain; /* our CA certificate, then those above it without the root */
	size_t n_chain;
	Pb__X509Certificate **roots; /* with their taint marks */
	size_t n_roots;
};

bool rotate_is_below(const struct rotation *r); /* is there an UpstreamAuthority? */
/* A certificate for `key` by the authority above, checked. Waits. */
enum code rotate_mint(struct rotation *r, EVP_PKEY *key, struct arena *arena, struct rotate_minted *out,
		      struct err *err);
/* Our bundle gets what these roots have more (marked, if tainted), and loses what is tainted here and no longer above.
 * Roots that are tainted above alone stay as they are: rotate_roots_tainted follows. */
enum code rotate_take_roots(struct rotation *r, Pb__X509Certificate *const *roots, size_t n, struct err *err);
/* Tells the authority above of a JWT key; *keys are those of the trust domain as it knows them. UNIMPLEMENTED: it does
 * not deal in JWT keys (said once). Waits. */
enum code rotate_publish_above(struct rotation *r, Pb__JWTKey *key, struct arena *arena, Pb__JWTKey ***keys, size_t *n,
			       struct err *err);

/* The bundle of the parent has come: kept for the task. On the loop, outside of it. */
void rotate_hear_news(void *rotation, struct span bundle);
/* Our bundle and our own authority follow what has been heard. */
void rotate_follow(struct rotation *r);

/* --- rotate_ask.c --- */

void rotate_answer(struct rotation *r); /* all that waits */
void rotate_refuse(struct rotation *r); /* after the end: lets go of it */

#endif
