/* SPDX-License-Identifier: Apache-2.0 */
/* Slots and journal. The journal is kept as the message that goes into the state: what it points at is malloc'ed, entry by entry. */
#include "api/slots.h"

#include "base/arena.h"
#include "base/log.h"
#include "base/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOURNAL_MAX = 10 };

#define DAY_S (24 * 3600)

void slots_init(struct slots *slots, enum authority_kind kind)
{
	*slots = (struct slots){ .kind = kind };
	for (int i = 0; i < 2; i++) {
		struct slot *slot = &slots->slots[i];

		snprintf(slot->name, sizeof slot->name, "%c", 'A' + i);
		snprintf(slot->key_id, sizeof slot->key_id, "%s-%c", kind == AUTHORITY_X509 ? "x509-CA" : "JWT-Signer",
			 'A' + i);
	}
}

void slot_drop_key(struct slot *slot)
{
	x509_authority_free(TAKE(slot->x509));
	jwt_authority_free(TAKE(slot->jwt));
}

void slots_done(struct slots *slots)
{
	slot_drop_key(&slots->slots[0]);
	slot_drop_key(&slots->slots[1]);
}

struct slot *slots_current(struct slots *slots)
{
	return &slots->slots[slots->current];
}

struct slot *slots_next(struct slots *slots)
{
	return &slots->slots[1 - slots->current];
}

bool slot_is_empty(const struct slot *slot)
{
	return slot->status == SLOT_OLD || (slot->x509 == NULL && slot->jwt == NULL);
}

const char *slot_status_name(enum slot_status status)
{
	switch (status) {
	case SLOT_PREPARED:
		return "PREPARED";
	case SLOT_ACTIVE:
		return "ACTIVE";
	case SLOT_OLD:
		return "OLD";
	default:
		return "UNKNOWN";
	}
}

static int64_t threshold(const struct slot *slot, int64_t part, int64_t cap_s)
{
	int64_t left = (slot->not_after_s - slot->issued_at_s) / part;

	return slot->not_after_s - (left < cap_s ? left : cap_s);
}

int64_t slot_prepare_after_s(const struct slot *slot)
{
	return threshold(slot, 2, 30 * DAY_S);
}

int64_t slot_activate_after_s(const struct slot *slot)
{
	return threshold(slot, 6, 7 * DAY_S);
}

/* --- the journal --- */

struct journal {
	Pb__Journal message;
	Pb__Journal__X509Authority *x509[JOURNAL_MAX];
	Pb__Journal__JWTAuthority *jwt[JOURNAL_MAX];
};

struct journal *journal_new(void)
{
	struct journal *journal = xcalloc(1, sizeof *journal);

	pb__journal__init(&journal->message);
	journal->message.x509 = journal->x509;
	journal->message.jwt = journal->jwt;
	return journal;
}

static void x509_entry_free(Pb__Journal__X509Authority *entry)
{
	free((void *)entry->slot);
	free((void *)entry->authority_id);
	free((void *)entry->upstream_authority_id);
	free(entry->certificate.data);
	for (size_t i = 0; i < entry->n_upstream_chain; i++)
		free(entry->upstream_chain[i].data);
	free(entry->upstream_chain);
	free(entry);
}

static void jwt_entry_free(Pb__Journal__JWTAuthority *entry)
{
	free((void *)entry->slot);
	free((void *)entry->authority_id);
	free(entry->public_key.data);
	free(entry);
}

void journal_free(struct journal *journal)
{
	if (journal == NULL)
		return;
	for (size_t i = 0; i < journal->message.n_x509; i++)
		x509_entry_free(journal->x509[i]);
	for (size_t i = 0; i < journal->message.n_jwt; i++)
		jwt_entry_free(journal->jwt[i]);
	free(journal);
}

static ProtobufCBinaryData copy_bytes(const void *data, size_t len)
{
	return (ProtobufCBinaryData){ .len = len, .data = xmemdup(data, len) };
}

/* Makes room at the end of a full list: the oldest goes. */
#define MAKE_ROOM(list, n, free_entry)                                                                                 \
	do {                                                                                                           \
		if ((n) == JOURNAL_MAX) {                                                                              \
			free_entry((list)[0]);                                                                         \
			memmove((list), (list) + 1, (JOURNAL_MAX - 1) * sizeof *(list));                               \
			(n)--;                                                                                         \
		}                                                                                                      \
	} while (0)

static void add_x509(struct journal *journal, const Pb__Journal__X509Authority *from)
{
	Pb__Journal__X509Authority *entry = xmalloc(sizeof *entry);

	*entry = *from;
	entry->base.n_unknown_fields = 0;
	entry->base.unknown_fields = NULL;
	entry->slot = xstrdup(from->slot);
	entry->authority_id = xstrdup(from->authority_id);
	entry->upstream_authority_id = xstrdup(from->upstream_authority_id);
	entry->certificate = copy_bytes(from->certificate.data, from->certificate.len);
	entry->upstream_chain = NULL;
	if (from->n_upstream_chain > 0)
		entry->upstream_chain = xcalloc(from->n_upstream_chain, sizeof *entry->upstream_chain);
	for (size_t i = 0; i < from->n_upstream_chain; i++)
		entry->upstream_chain[i] = copy_bytes(from->upstream_chain[i].data, from->upstream_chain[i].len);
	MAKE_ROOM(journal->x509, journal->message.n_x509, x509_entry_free);
	journal->x509[journal->message.n_x509++] = entry;
}

static void add_jwt(struct journal *journal, const Pb__Journal__JWTAuthority *from)
{
	Pb__Journal__JWTAuthority *entry = xmalloc(sizeof *entry);

	*entry = *from;
	entry->base.n_unknown_fields = 0;
	entry->base.unknown_fields = NULL;
	entry->slot = xstrdup(from->slot);
	entry->authority_id = xstrdup(from->authority_id);
	entry->public_key = copy_bytes(from->public_key.data, from->public_key.len);
	MAKE_ROOM(journal->jwt, journal->message.n_jwt, jwt_entry_free);
	journal->jwt[journal->message.n_jwt++] = entry;
}

void journal_append(struct journal *journal, enum authority_kind kind, const struct slot *slot, struct span public_key)
{
	if (kind == AUTHORITY_X509) {
		Pb__Journal__X509Authority entry = PB__JOURNAL__X509_AUTHORITY__INIT;
		OWN_BUF chain = { 0 };

		entry.slot = slot->name;
		entry.authority_id = slot->authority_id;
		entry.upstream_authority_id = slot->upstream_id;
		entry.certificate = (ProtobufCBinaryData){ slot->x509->cert.len, slot->x509->cert.data };
		buf_reserve(&chain, slot->x509->n_upstream * sizeof(ProtobufCBinaryData));
		for (size_t i = 0; i < slot->x509->n_upstream; i++) {
			ProtobufCBinaryData cert = { slot->x509->upstream[i].len, slot->x509->upstream[i].data };

			buf_append(&chain, &cert, sizeof cert);
		}
		entry.n_upstream_chain = slot->x509->n_upstream;
		entry.upstream_chain = (ProtobufCBinaryData *)(void *)chain.data;
		entry.issued_at = slot->issued_at_s;
		entry.not_after = slot->not_after_s;
		entry.status = (Pb__Journal__Status)slot->status;
		add_x509(journal, &entry);
	} else {
		Pb__Journal__JWTAuthority entry = PB__JOURNAL__JWTAUTHORITY__INIT;

		entry.slot = slot->name;
		entry.authority_id = slot->authority_id;
		entry.public_key = (ProtobufCBinaryData){ public_key.len, (uint8_t *)public_key.data };
		entry.issued_at = slot->issued_at_s;
		entry.not_after = slot->not_after_s;
		entry.status = (Pb__Journal__Status)slot->status;
		add_jwt(journal, &entry);
	}
}

void journal_remove(struct journal *journal, enum authority_kind kind, const char *authority_id)
{
	Pb__Journal *m = &journal->message;

	for (size_t i = 0; kind == AUTHORITY_X509 && i < m->n_x509; i++)
		if (strcmp(journal->x509[i]->authority_id, authority_id) == 0) {
			x509_entry_free(journal->x509[i]);
			memmove(&journal->x509[i], &journal->x509[i + 1], (--m->n_x509 - i) * sizeof *journal->x509);
			return;
		}
	for (size_t i = 0; kind == AUTHORITY_JWT && i < m->n_jwt; i++)
		if (strcmp(journal->jwt[i]->authority_id, authority_id) == 0) {
			jwt_entry_free(journal->jwt[i]);
			memmove(&journal->jwt[i], &journal->jwt[i + 1], (--m->n_jwt - i) * sizeof *journal->jwt);
			return;
		}
}

void journal_set_status(struct journal *journal, enum authority_kind kind, const char *authority_id, enum slot_status status)
{
	for (size_t i = 0; kind == AUTHORITY_X509 && i < journal->message.n_x509; i++)
		if (strcmp(journal->x509[i]->authority_id, authority_id) == 0)
			journal->x509[i]->status = (Pb__Journal__Status)status;
	for (size_t i = 0; kind == AUTHORITY_JWT && i < journal->message.n_jwt; i++)
		if (strcmp(journal->jwt[i]->authority_id, authority_id) == 0)
			journal->jwt[i]->status = (Pb__Journal__Status)status;
}

const Pb__Journal *journal_message(struct journal *journal)
{
	return &journal->message;
}

/* --- loading --- */

static struct slot *slot_by_name(struct slots *slots, const char *name)
{
	return strcmp(name, "A") == 0 ? &slots->slots[0] : strcmp(name, "B") == 0 ? &slots->slots[1] : NULL;
}

static bool publishes_cert(const Pb__Bundle *bundle, const ProtobufCBinaryData *cert)
{
	for (size_t i = 0; bundle != NULL && i < bundle->n_x509_authorities; i++) {
		const ProtobufCBinaryData *have = &bundle->x509_authorities[i]->asn1;

		if (have->len == cert->len && memcmp(have->data, cert->data, cert->len) == 0)
			return true;
	}
	return false;
}

static bool publishes_kid(const Pb__Bundle *bundle, const char *kid)
{
	for (size_t i = 0; bundle != NULL && i < bundle->n_jwt_authorities; i++)
		if (strcmp(bundle->jwt_authorities[i]->key_id, kid) == 0)
			return true;
	return false;
}

/* Why an authority of the journal cannot be used, or NULL and its key. */
static const char *usable_key(const struct slot *slot, int64_t not_after_s, int64_t now_s, struct key_manager *keys, EVP_PKEY **key)
{
	if (slot == NULL)
		return "no slot id";
	if (not_after_s <= now_s)
		return "slot expired";
	if (key_manager_get(keys, slot->key_id, key, NULL) != CODE_OK)
		return "no key manager key";
	return NULL;
}

static const char *load_x509(struct slot *slot, const Pb__Journal__X509Authority *entry, int64_t now_s, struct key_manager *keys)
{
	OWN(EVP_PKEY) key = NULL;
	struct span cert = { entry->certificate.data, entry->certificate.len };
	OWN_BUF chain = { 0 };
	const char *why = usable_key(slot, entry->not_after, now_s, keys, &key);

	if (why != NULL)
		return why;
	for (size_t i = 0; i < entry->n_upstream_chain; i++) {
		struct span one = { entry->upstream_chain[i].data, entry->upstream_chain[i].len };

		buf_append(&chain, &one, sizeof one);
	}
	if (x509_authority_new(key, cert, (const struct span *)(const void *)chain.data, entry->n_upstream_chain, &slot->x509,
			       NULL) != CODE_OK)
		return "public key does not match key manager key";
	key = NULL; /* the authority's now */
	return NULL;
}

static const char *load_jwt(struct slot *slot, const Pb__Journal__JWTAuthority *entry, int64_t now_s, struct key_manager *keys)
{
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF public_key = { 0 };
	const char *why = usable_key(slot, entry->not_after, now_s, keys, &key);

	if (why != NULL)
		return why;
	if (key_public_der(key, &public_key, NULL) != CODE_OK || public_key.len != entry->public_key.len ||
	    memcmp(public_key.data, entry->public_key.data, public_key.len) != 0 ||
	    jwt_authority_new(key, entry->authority_id, entry->not_after, &slot->jwt, NULL) != CODE_OK)
		return "public key does not match key manager key";
	key = NULL;
	return NULL;
}

static void settle(struct slot *slot, const char *authority_id, const char *upstream_id, int64_t issued_at_s, int64_t not_after_s,
		   int status)
{
	snprintf(slot->authority_id, sizeof slot->authority_id, "%s", authority_id);
	snprintf(slot->upstream_id, sizeof slot->upstream_id, "%s", upstream_id);
	slot->issued_at_s = issued_at_s;
	slot->not_after_s = not_after_s;
	slot->status = (enum slot_status)status;
}

static void say_unusable(const char *what, const char *authority_id, const char *why)
{
	log_warn(what, KV("subsystem_name", "ca_manager"), KV("local_authority_id", authority_id), KV("reason", why));
}

/* Which slot is current: the newest ACTIVE one; with none, the only one there is. `seen` says which slots have been filled. */
static void choose_current(struct slots *slots, int active)
{
	if (active >= 0)
		slots->current = active;
	else if (slot_is_empty(&slots->slots[0]) && !slot_is_empty(&slots->slots[1]))
		slots->current = 1;
	else
		slots->current = 0;
}

/* Newest first, so that the first entry of a slot is the one that counts. An OLD one is remembered for its id, without its key. */
static void load_kind(struct journal *journal, const Pb__Journal *stored, const Pb__Bundle *bundle, struct key_manager *keys, struct slots *slots,
		      int64_t now_s)
{
	bool x509 = slots->kind == AUTHORITY_X509;
	size_t n = x509 ? stored->n_x509 : stored->n_jwt;
	int active = -1;

	for (size_t i = n; i-- > 0;) {
		const Pb__Journal__X509Authority *cert = x509 ? stored->x509[i] : NULL;
		const Pb__Journal__JWTAuthority *kid = x509 ? NULL : stored->jwt[i];
		const char *id = x509 ? cert->authority_id : kid->authority_id;
		int status = x509 ? (int)cert->status : (int)kid->status;
		struct slot *slot = slot_by_name(slots, x509 ? cert->slot : kid->slot);
		const char *why = NULL;

		if (slot == NULL || slot->authority_id[0] != '\0')
			continue; /* a newer one holds it */
		if (x509 ? cert->n_upstream_chain == 0 && !publishes_cert(bundle, &cert->certificate) : !publishes_kid(bundle, id))
			continue; /* the state knows nothing of it: restored from an older one */
		if (status != SLOT_OLD)
			why = x509 ? load_x509(slot, cert, now_s, keys) : load_jwt(slot, kid, now_s, keys);
		if (why != NULL) {
			journal_set_status(journal, slots->kind, id, SLOT_OLD); /* it signs no more */
			say_unusable(x509 ? "X509CA slot unusable" : "JWT key slot unusable", id, why);
			continue;
		}
		settle(slot, id, x509 ? cert->upstream_authority_id : "", x509 ? cert->issued_at : kid->issued_at,
		       x509 ? cert->not_after : kid->not_after, status);
		if (status == SLOT_ACTIVE && active < 0)
			active = (int)(slot - slots->slots);
	}
	choose_current(slots, active);
}

enum code journal_load(struct journal *journal, const Pb__Journal *stored, const Pb__Bundle *bundle, struct key_manager *keys,
		       struct slots *x509, struct slots *jwt, int64_t now_s, struct err *err)
{
	if (stored->n_x509 > JOURNAL_MAX || stored->n_jwt > JOURNAL_MAX)
		return err_set(err, CODE_DATA_LOSS, "the CA journal has %zu and %zu entries, more than %d", stored->n_x509,
			       stored->n_jwt, JOURNAL_MAX);
	for (size_t i = 0; i < stored->n_x509; i++)
		add_x509(journal, stored->x509[i]);
	for (size_t i = 0; i < stored->n_jwt; i++)
		add_jwt(journal, stored->jwt[i]);
	load_kind(journal, stored, bundle, keys, x509, now_s);
	load_kind(journal, stored, bundle, keys, jwt, now_s);
	return CODE_OK;
}
