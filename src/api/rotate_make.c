/* SPDX-License-Identifier: Apache-2.0 */
/* How an authority comes to be. Order on every path: make the key, publish it and note it in the journal, only then use
 * it. A crash in between leaves at worst a published authority that nobody signs with; the next start finds the
 * journal's word for which key is whose. */
#include "api/rotate_inside.h"

#include "api/pb.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/metric.h"
#include "ca/jwt.h"
#include "ca/x509.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { PROPOSE_MS = 30 * 1000 };

/* --- commands --- */

enum code rotate_carry_out(struct rotation *r, Pb__Command **commands, size_t n, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Outcome **outs = arena_zalloc(arena, n * sizeof *outs);

	for (size_t i = 0; i < n; i++)
		commands[i]->format = 1;
	TRY(propose_all(r->server->replica, commands, n, clock_mono_ms() + PROPOSE_MS, arena, outs, err));
	for (size_t i = 0; i < n; i++)
		if (outs[i]->code != CODE_OK)
			return err_set(err, (enum code)outs[i]->code, "%s", outs[i]->message);
	return CODE_OK;
}

static void journal_command(struct rotation *r, Pb__Command *command, Pb__JournalSet *set)
{
	pb__journal_set__init(set);
	set->node = r->server->node;
	set->journal = (Pb__Journal *)journal_message(r->journal);
	pb__command__init(command);
	command->kind_case = PB__COMMAND__KIND_JOURNAL_SET;
	command->journal_set = set;
}

/* Publishes what `append` holds, if anything, and notes the slot in the journal, in one trip. */
static enum code publish(struct rotation *r, Pb__BundleAppend *append, struct err *err)
{
	Pb__Command first = PB__COMMAND__INIT, second;
	Pb__JournalSet set;
	Pb__Command *both[] = { &first, &second };

	append->trust_domain = r->server->td;
	first.kind_case = PB__COMMAND__KIND_BUNDLE_APPEND;
	first.bundle_append = append;
	journal_command(r, &second, &set);
	if (fault_at("rotate.publish"))
		return err_set(err, CODE_INTERNAL, "fault rotate.publish");
	if (append->n_x509_authorities == 0 && append->n_jwt_authorities == 0)
		return rotate_carry_out(r, both + 1, 1, err);
	return rotate_carry_out(r, both, 2, err);
}

/* --- preparing --- */

static void log_authority(const char *msg, const struct slots *slots, const struct slot *slot, bool prepared)
{
	struct log_pair pairs[] = {
		KV("subsystem_name", "ca_manager"),
		KV("slot", slot->name),
		KV_TIME("issued_at", slot->issued_at_s),
		KV_TIME("expiration", slot->not_after_s),
		KV("local_authority_id", slot->authority_id),
		KV("upstream_authority_id", slots->kind == AUTHORITY_X509 ? slot->upstream_id : NULL),
		{ 0 },
		{ 0 },
	};

	if (slots->kind == AUTHORITY_X509 && prepared)
		pairs[6] = (struct log_pair)KV_BOOL("self_signed", slot->x509->n_upstream == 0);
	log_write(LOG_INFO, msg, pairs);
}

static enum code self_sign(struct rotation *r, EVP_PKEY *key, struct arena *arena, Pb__X509Certificate **root,
			   struct x509_authority **out, struct err *err)
{
	const struct config *config = r->server->config;
	const struct x509_ca_subject subject = {
		config->ca_subject.country.items,      config->ca_subject.country.n,
		config->ca_subject.organization.items, config->ca_subject.organization.n,
		config->ca_subject.common_name,
	};
	struct x509_svid cert;

	TRY(x509_self_sign(key, &subject, r->server->td, config->ca_ttl_s, clock_wall_s(), arena, &cert, err));
	*root = pb_new(&pb__x509_certificate__descriptor, arena);
	(*root)->asn1 = (ProtobufCBinaryData){ cert.cert.len, (uint8_t *)cert.cert.data };
	return x509_authority_new(key, cert.cert, NULL, 0, out, err);
}

/* A fresh key and certificate in `slot`, not known to anybody yet; and the roots that it needs in the bundle. */
static enum code make_x509(struct rotation *r, struct slot *slot, struct arena *arena, struct rotate_minted *minted,
			   struct err *err)
{
	OWN(EVP_PKEY) key = NULL;
	struct x509_facts facts;
	int64_t now_s = clock_wall_s();

	TRY(key_manager_generate(r->keys, slot->key_id, r->x509_type, &key, err));
	if (rotate_is_below(r)) {
		TRY(rotate_mint(r, key, arena, minted, err));
		TRY(x509_authority_new(key, minted->chain[0], minted->chain, minted->n_chain, &slot->x509, err));
	} else {
		minted->roots = arena_alloc(arena, sizeof *minted->roots);
		TRY(self_sign(r, key, arena, &minted->roots[0], &slot->x509, err));
		minted->n_roots = 1;
	}
	key = NULL; /* the authority's now */
	TRY(x509_read((struct span){ slot->x509->cert.data, slot->x509->cert.len }, arena, &facts, err));
	slot->issued_at_s = now_s;
	slot->not_after_s = slot->x509->not_after_s;
	memcpy(slot->upstream_id, facts.authority_key_id, sizeof slot->upstream_id);
	memcpy(slot->authority_id, slot->x509->id, sizeof slot->authority_id);
	return CODE_OK;
}

/* Below another authority it is that one's roots that are published, before our own certificate is noted. */
static enum code publish_x509(struct rotation *r, struct slot *slot, const struct rotate_minted *minted,
			      struct err *err)
{
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;

	if (rotate_is_below(r)) {
		TRY(rotate_take_roots(r, minted->roots, minted->n_roots, err));
	} else {
		append.n_x509_authorities = minted->n_roots;
		append.x509_authorities = minted->roots;
	}
	journal_append(r->journal, AUTHORITY_X509, slot, (struct span){ 0 });
	return publish(r, &append, err);
}

static enum code make_jwt(struct rotation *r, struct slot *slot, struct err *err)
{
	OWN(EVP_PKEY) key = NULL;
	char kid[33];
	int64_t now_s = clock_wall_s();

	TRY(key_manager_generate(r->keys, slot->key_id, r->jwt_type, &key, err));
	jwt_new_kid(kid);
	TRY(jwt_authority_new(key, kid, now_s + r->server->config->ca_ttl_s, &slot->jwt, err));
	key = NULL;
	slot->issued_at_s = now_s;
	slot->not_after_s = slot->jwt->not_after_s;
	memcpy(slot->authority_id, slot->jwt->kid, sizeof slot->authority_id);
	return CODE_OK;
}

static enum code publish_jwt(struct rotation *r, struct slot *slot, struct arena *arena, struct err *err)
{
	OWN_BUF public_key = { 0 };
	Pb__JWTKey key = PB__JWTKEY__INIT;
	Pb__JWTKey *keys[] = { &key };
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;
	enum code rc;

	TRY(key_public_der(slot->jwt->key, &public_key, err));
	key.public_key = (ProtobufCBinaryData){ public_key.len, public_key.data };
	key.key_id = slot->authority_id;
	key.expires_at = slot->not_after_s;
	append.n_jwt_authorities = 1;
	append.jwt_authorities = keys;
	if (rotate_is_below(r)) {
		rc = rotate_publish_above(r, &key, arena, &append.jwt_authorities, &append.n_jwt_authorities, err);
		if (rc != CODE_OK && rc != CODE_UNIMPLEMENTED)
			return rc;
	}
	journal_append(r->journal, AUTHORITY_JWT, slot, (struct span){ public_key.data, public_key.len });
	return publish(r, &append, err);
}

enum code rotate_prepare(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct rotate_minted minted = { 0 };
	bool x509 = slots->kind == AUTHORITY_X509;
	int64_t begin_ms = clock_mono_ms();
	enum code rc;

	slot_drop_key(slot);
	slot->status = SLOT_OLD; /* from here on the former key of this slot is gone */
	rc = x509 ? make_x509(r, slot, arena, &minted, err) : make_jwt(r, slot, err);
	if (rc == CODE_OK) {
		slot->status = SLOT_PREPARED;
		rc = x509 ? publish_x509(r, slot, &minted, err) : publish_jwt(r, slot, arena, err);
		if (rc != CODE_OK)
			journal_remove(r->journal, slots->kind, slot->authority_id);
	}
	metric_call(x509 ? "ca_manager_x509_ca_prepare" : "ca_manager_jwt_key_prepare", rc,
		    (double)(clock_mono_ms() - begin_ms));
	if (rc != CODE_OK) {
		slot_drop_key(slot);
		slot->status = SLOT_OLD;
		return rc;
	}
	slot->published_ms = clock_mono_ms();
	log_authority(x509 ? "X509 CA prepared" : "JWT key prepared", slots, slot, true);
	return CODE_OK;
}

/* --- activating --- */

static void count_activation(struct rotation *r, const struct slots *slots, const struct slot *slot)
{
	const struct metric_label *td = METRIC_LABELS({ "trust_domain_id", r->server->td });

	if (slots->kind == AUTHORITY_JWT) {
		metric_add(metric_get(METRIC_COUNTER, "manager_jwt_key_activate", NULL), 1);
		return;
	}
	metric_add(metric_get(METRIC_COUNTER, "ca_manager_x509_ca_activate", NULL), 1);
	metric_set(metric_get(METRIC_GAUGE, "manager_x509_ca_rotate_expiration", td), (double)slot->not_after_s);
	metric_set(metric_get(METRIC_GAUGE, "manager_x509_ca_rotate_ttl", td),
		   (double)(slot->not_after_s - clock_wall_s()));
}

static void log_activation(struct rotation *r, const struct slots *slots, const struct slot *slot)
{
	char td_id[300];

	log_authority(slots->kind == AUTHORITY_X509 ? "X509 CA activated" : "JWT key activated", slots, slot, false);
	if (slots->kind != AUTHORITY_X509)
		return;
	snprintf(td_id, sizeof td_id, "spiffe://%s", r->server->td);
	log_debug("Successfully rotated X.509 CA", KV("subsystem_name", "ca_manager"), KV("trust_domain_id", td_id),
		  KV_NUM("ttl", slot->not_after_s - clock_wall_s()));
}

/* `slot` becomes the one that signs. The journal says so first; what it said before comes back if that fails. */
enum code rotate_activate(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err)
{
	struct slot *former = slots_current(slots) == slot ? NULL : slots_current(slots);
	bool retires = former != NULL && former->status == SLOT_ACTIVE;
	Pb__Command command;
	Pb__JournalSet set;
	enum code rc;

	assert(slot->status == SLOT_PREPARED || slot->status == SLOT_ACTIVE);
	journal_set_status(r->journal, slots->kind, slot->authority_id, SLOT_ACTIVE);
	if (retires)
		journal_set_status(r->journal, slots->kind, former->authority_id, SLOT_OLD);
	journal_command(r, &command, &set);
	rc = fault_at("rotate.activate") ? err_set(err, CODE_INTERNAL, "fault rotate.activate")
					 : rotate_carry_out(r, (Pb__Command *[]){ &command }, 1, err);
	if (rc != CODE_OK) {
		journal_set_status(r->journal, slots->kind, slot->authority_id, slot->status);
		if (retires)
			journal_set_status(r->journal, slots->kind, former->authority_id, SLOT_ACTIVE);
		return rc;
	}
	slot->status = SLOT_ACTIVE;
	if (former != NULL) {
		slot_drop_key(former);
		if (retires)
			former->status = SLOT_OLD;
	}
	slots->current = (int)(slot - slots->slots);
	rotate_hang_keyring(r);
	count_activation(r, slots, slot);
	log_activation(r, slots, slot);
	return CODE_OK;
}
