/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_SLOTS_H
#define API_SLOTS_H

#include "base/arena.h"
#include "base/err.h"
#include "ca/key.h"
#include "ca/keyring.h"
#include "command.pb-c.h"

#include <stdbool.h>

/* The two slots of a kind of authority, current and next, and the CA journal that remembers them (server-operation.md 3.1, 3.4).
 *
 *   EMPTY --prepare--> PREPARED --activate--> ACTIVE --the other one is activated--> OLD --prepare--> PREPARED
 *
 * Nothing here talks to the state or the key manager but through what it is given: rotate.c decides, this remembers. */

enum slot_status { SLOT_UNKNOWN = 0, SLOT_PREPARED = 2, SLOT_ACTIVE = 3, SLOT_OLD = 4 }; /* the journal's numbers */

struct slot {
	char name[2];    /* "A" or "B" */
	char key_id[24]; /* of the key manager: "x509-CA-A" */
	enum slot_status status;
	char authority_id[AUTHORITY_ID_MAX]; /* "" : never held one. Stays when the slot gets OLD */
	char upstream_id[AUTHORITY_ID_MAX];
	int64_t issued_at_s, not_after_s;
	int64_t published_ms; /* clock_mono_ms from which on it was in the bundle here, or later; while PREPARED */
	struct x509_authority *x509; /* while PREPARED or ACTIVE; of kind X509 */
	struct jwt_authority *jwt;
};

enum authority_kind { AUTHORITY_X509, AUTHORITY_JWT };

struct slots {
	enum authority_kind kind;
	struct slot slots[2];
	int current; /* index; the other one is next */
};

void slots_init(struct slots *slots, enum authority_kind kind);
void slots_done(struct slots *slots);
struct slot *slots_current(struct slots *slots);
struct slot *slots_next(struct slots *slots);
bool slot_is_empty(const struct slot *slot); /* holds no key that may be used */
void slot_drop_key(struct slot *slot);       /* what it was stays known, what it could sign with goes */
const char *slot_status_name(enum slot_status status); /* "PREPARED" */

/* When its successor is due (3.2). */
int64_t slot_prepare_after_s(const struct slot *slot);
int64_t slot_activate_after_s(const struct slot *slot);

/* The journal in memory: 10 entries a kind, the oldest goes first. */
struct journal;
struct journal *journal_new(void);
void journal_free(struct journal *journal);
void journal_append(struct journal *journal, enum authority_kind kind, const struct slot *slot, struct span public_key);
void journal_remove(struct journal *journal, enum authority_kind kind, const char *authority_id);
void journal_set_status(struct journal *journal, enum authority_kind kind, const char *authority_id, enum slot_status status);
const Pb__Journal *journal_message(struct journal *journal); /* valid until the next change */

/* Fills journal and slots from what the state holds: only authorities whose key the manager has and that `bundle` publishes.
 * What cannot be used is a line of the log with its reason. `bundle` may be NULL. */
enum code journal_load(struct journal *journal, const Pb__Journal *stored, const Pb__Bundle *bundle, struct key_manager *keys,
		       struct slots *x509, struct slots *jwt, int64_t now_s, struct err *err);

#endif
