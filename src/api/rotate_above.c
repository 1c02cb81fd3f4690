/* SPDX-License-Identifier: Apache-2.0 */
/* Authorities above ours (server-operation.md 3.8). Our bundle follows their roots: what is new there is added before
 * anything that hangs on it is used; what is tainted here and gone there goes. Our own certificate is not in the
 * bundle. */
#include "api/rotate_inside.h"

#include "api/bundle_conv.h"
#include "api/parent.h"
#include "api/pb.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ca/upstream.h"
#include "ca/x509.h"

#include <string.h>

enum { MINT_MS = 60 * 1000, PUBLISH_MS = 10 * 1000 };

bool rotate_is_below(const struct rotation *r)
{
	return r->server->upstream_disk != NULL || r->server->parent != NULL;
}

/* --- minting --- */

static enum code mint_disk(struct rotation *r, struct span csr, struct arena *arena, struct rotate_minted *out,
			   struct err *err)
{
	struct upstream_minted minted;

	TRY(upstream_disk_mint(r->server->upstream_disk, csr, r->server->td, r->server->config->ca_ttl_s,
			       clock_wall_s(), arena, &minted, err));
	out->chain = minted.chain;
	out->n_chain = minted.n_chain;
	out->roots = arena_alloc(arena, minted.n_roots * sizeof *out->roots);
	for (out->n_roots = 0; out->n_roots < minted.n_roots; out->n_roots++) {
		struct span der = minted.roots[out->n_roots];

		out->roots[out->n_roots] = pb_new(&pb__x509_certificate__descriptor, arena);
		out->roots[out->n_roots]->asn1 = (ProtobufCBinaryData){ der.len, (uint8_t *)der.data };
	}
	return CODE_OK;
}

/* The start waits for as long as it takes: there is nothing to serve before. */
static int64_t deadline_ms(const struct rotation *r, int64_t ms)
{
	return r->running ? clock_mono_ms() + ms : INT64_MAX;
}

static enum code mint_parent(struct rotation *r, struct span csr, struct arena *arena, struct rotate_minted *out,
			     struct err *err)
{
	Pb__NewDownstreamX509CAResponse *reply;
	Pb__Bundle *bundle;

	TRY(parent_mint(r->server->parent, csr, r->server->config->ca_ttl_s, deadline_ms(r, MINT_MS), arena, &reply,
			&bundle, err));
	out->chain = arena_alloc(arena, reply->n_ca_cert_chain * sizeof *out->chain);
	for (out->n_chain = 0; out->n_chain < reply->n_ca_cert_chain; out->n_chain++)
		out->chain[out->n_chain] = (struct span){ reply->ca_cert_chain[out->n_chain].data,
							  reply->ca_cert_chain[out->n_chain].len };
	out->roots = bundle->x509_authorities;
	out->n_roots = bundle->n_x509_authorities;
	return CODE_OK;
}

static enum code check(struct rotation *r, EVP_PKEY *key, const struct rotate_minted *minted, struct arena *arena,
		       struct err *err)
{
	struct span *roots = arena_alloc(arena, minted->n_roots * sizeof *roots);

	for (size_t i = 0; i < minted->n_roots; i++)
		roots[i] = (struct span){ minted->roots[i]->asn1.data, minted->roots[i]->asn1.len };
	if (upstream_check(key, minted->chain, minted->n_chain, roots, minted->n_roots, r->server->td, clock_wall_s(),
			   err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "X509 CA minted by upstream authority is invalid");
	return CODE_OK;
}

enum code rotate_mint(struct rotation *r, EVP_PKEY *key, struct arena *arena, struct rotate_minted *out,
		      struct err *err)
{
	const struct config_ca_subject *names = &r->server->config->ca_subject;
	const struct x509_ca_subject subject = {
		names->country.items,  names->country.n,   names->organization.items,
		names->organization.n, names->common_name,
	};
	bool disk = r->server->upstream_disk != NULL;
	struct span csr;
	enum code rc;

	if (fault_at("rotate.mint"))
		return err_set(err, CODE_INTERNAL, "fault rotate.mint");
	TRY(x509_request_ca(key, &subject, r->server->td, arena, &csr, err));
	rc = disk ? mint_disk(r, csr, arena, out, err) : mint_parent(r, csr, arena, out, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "upstreamauthority(%s)", disk ? "disk" : "spire");
	return check(r, key, out, arena, err);
}

/* --- roots --- */

/* What our bundle and the roots above have to do with each other. A root is itself by its bytes; taints go by subject
 * key id. */
struct comparison {
	Pb__Command **commands;
	size_t n;
	const char **revoked; /* subject key ids, for the log */
	size_t n_revoked;
};

static Pb__X509Certificate *find_root(Pb__X509Certificate *const *roots, size_t n, const Pb__X509Certificate *wanted)
{
	for (size_t i = 0; i < n; i++)
		if (roots[i]->asn1.len == wanted->asn1.len &&
		    memcmp(roots[i]->asn1.data, wanted->asn1.data, wanted->asn1.len) == 0)
			return roots[i];
	return NULL;
}

static Pb__Command *add_command(struct comparison *c, Pb__Command__KindCase kind, struct arena *arena)
{
	Pb__Command *command = pb_new(&pb__command__descriptor, arena);

	command->kind_case = kind;
	return c->commands[c->n++] = command;
}

static const char *subject_key_id(const Pb__X509Certificate *root, struct arena *arena)
{
	struct x509_facts facts;

	if (x509_read((struct span){ root->asn1.data, root->asn1.len }, arena, &facts, NULL) != CODE_OK)
		return "";
	return arena_strdup(arena, facts.subject_key_id);
}

static void add_taint(struct rotation *r, struct comparison *c, const char *id, struct arena *arena)
{
	Pb__AuthorityTaint *taint = pb_new(&pb__authority_taint__descriptor, arena);

	taint->trust_domain = r->server->td;
	taint->x509_subject_key_id = id;
	add_command(c, PB__COMMAND__KIND_AUTHORITY_TAINT, arena)->authority_taint = taint;
}

static void add_revoke(struct rotation *r, struct comparison *c, const char *id, struct arena *arena)
{
	Pb__AuthorityRevoke *revoke = pb_new(&pb__authority_revoke__descriptor, arena);

	revoke->trust_domain = r->server->td;
	revoke->x509_subject_key_id = id;
	add_command(c, PB__COMMAND__KIND_AUTHORITY_REVOKE, arena)->authority_revoke = revoke;
	c->revoked[c->n_revoked++] = id;
}

static void compare(struct rotation *r, const Pb__Bundle *ours, Pb__X509Certificate *const *roots, size_t n,
		    struct arena *arena, struct comparison *c)
{
	Pb__BundleAppend *append = pb_new(&pb__bundle_append__descriptor, arena);

	*c = (struct comparison){ 0 };
	c->commands = arena_alloc(arena, (1 + n + ours->n_x509_authorities) * sizeof *c->commands);
	c->revoked = arena_alloc(arena, (ours->n_x509_authorities + 1) * sizeof *c->revoked);
	append->trust_domain = r->server->td;
	append->x509_authorities = arena_alloc(arena, (n + 1) * sizeof *append->x509_authorities);
	for (size_t i = 0; i < n; i++)
		if (find_root(ours->x509_authorities, ours->n_x509_authorities, roots[i]) == NULL &&
		    find_root(append->x509_authorities, append->n_x509_authorities, roots[i]) == NULL)
			append->x509_authorities[append->n_x509_authorities++] = roots[i];
	if (append->n_x509_authorities > 0)
		add_command(c, PB__COMMAND__KIND_BUNDLE_APPEND, arena)->bundle_append = append;
	for (size_t i = 0; i < append->n_x509_authorities; i++)
		if (append->x509_authorities[i]->tainted)
			add_taint(r, c, subject_key_id(append->x509_authorities[i], arena), arena);
	for (size_t i = 0; i < ours->n_x509_authorities; i++)
		if (ours->x509_authorities[i]->tainted && find_root(roots, n, ours->x509_authorities[i]) == NULL)
			add_revoke(r, c, subject_key_id(ours->x509_authorities[i], arena), arena);
}

static enum code own_bundle(struct rotation *r, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	OWN_STRUCT(view) view = NULL;
	enum code rc;

	TRY(view_open(r->reader, &view, err));
	rc = view_bundle(view, r->server->td, arena, out, err);
	if (rc == CODE_NOT_FOUND)
		*out = pb_new(&pb__bundle__descriptor, arena);
	return rc == CODE_NOT_FOUND ? CODE_OK : rc;
}

enum code rotate_take_roots(struct rotation *r, Pb__X509Certificate *const *roots, size_t n, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct comparison c;
	Pb__Bundle *ours;

	TRY(own_bundle(r, arena, &ours, err));
	compare(r, ours, roots, n, arena, &c);
	if (c.n == 0)
		return CODE_OK;
	if (fault_at("rotate.roots"))
		return err_set(err, CODE_INTERNAL, "fault rotate.roots");
	TRY(rotate_carry_out(r, c.commands, c.n, err));
	for (size_t i = 0; i < c.n_revoked; i++)
		log_info("X.509 authority revoked", KV("subsystem_name", "ca_manager"),
			 KV("subject_key_id", c.revoked[i]));
	return CODE_OK;
}

/* --- JWT keys --- */

enum code rotate_publish_above(struct rotation *r, Pb__JWTKey *key, struct arena *arena, Pb__JWTKey ***keys, size_t *n,
			       struct err *err)
{
	Pb__PublishJWTAuthorityResponse *reply;
	Pb__Bundle *ours;
	bool taken = false;

	if (r->server->parent == NULL) {
		if (!r->said_no_jwt_above)
			log_warn("UpstreamAuthority plugin does not support JWT-SVIDs. Workloads managed by this "
				 "server may have "
				 "trouble communicating with workloads outside this cluster when using JWT-SVIDs.",
				 KV("subsystem_name", "ca_manager"), KV("plugin_name", "disk"));
		r->said_no_jwt_above = true;
		return err_set(err, CODE_UNIMPLEMENTED, "publishing upstream is unsupported");
	}
	if (fault_at("rotate.publish_above"))
		return err_set(err, CODE_INTERNAL, "fault rotate.publish_above");
	TRY(parent_publish_jwt(r->server->parent, key, clock_mono_ms() + PUBLISH_MS, arena, &reply, err));
	for (size_t i = 0; i < reply->n_jwt_authorities; i++)
		taken = taken || strcmp(reply->jwt_authorities[i]->key_id, key->key_id) == 0;
	if (!taken)
		return err_set(err, CODE_INTERNAL, "the upstream server has not taken our JWT key");
	TRY(own_bundle(r, arena, &ours, err));
	*keys = jwt_keys_missing(ours, reply->jwt_authorities, reply->n_jwt_authorities, arena, n);
	return CODE_OK;
}

/* --- following the parent --- */

/* Authorities of our bundle that have become tainted above, or are gone there. */
struct lost {
	struct span *ders;
	const char **ids;
	size_t n;
};

static bool hangs_on(const struct slot *slot, const struct span *authorities, size_t n, struct arena *arena)
{
	const struct x509_authority *authority = slot->x509;
	struct span *chain;

	if (authority == NULL || authority->n_upstream == 0)
		return false;
	chain = arena_alloc(arena, authority->n_upstream * sizeof *chain); /* begins with its own certificate */
	for (size_t i = 0; i < authority->n_upstream; i++)
		chain[i] = (struct span){ authority->upstream[i].data, authority->upstream[i].len };
	return rotate_leads_to(chain, authority->n_upstream, authorities, n);
}

/* Gone is what the parent had when we looked last, or what we hang on, and it has no more: its operator has tainted and
 * revoked it between two looks. What was never its own is no business of ours. */
static void find_lost(struct rotation *r, const Pb__Bundle *ours, const Pb__Bundle *before, const Pb__Bundle *now,
		      struct arena *arena, struct lost *out)
{
	*out = (struct lost){ .ders = arena_alloc(arena, (ours->n_x509_authorities + 1) * sizeof *out->ders),
			      .ids = arena_alloc(arena, (ours->n_x509_authorities + 1) * sizeof *out->ids) };
	for (size_t i = 0; i < ours->n_x509_authorities; i++) {
		const Pb__X509Certificate *root = ours->x509_authorities[i];
		const Pb__X509Certificate *there = find_root(now->x509_authorities, now->n_x509_authorities, root);
		struct span der = { root->asn1.data, root->asn1.len };
		bool gone = there == NULL &&
			    (find_root(before->x509_authorities, before->n_x509_authorities, root) != NULL ||
			     hangs_on(slots_current(&r->x509), &der, 1, arena));

		if (root->tainted || (!gone && (there == NULL || !there->tainted)))
			continue;
		out->ids[out->n] = subject_key_id(root, arena);
		if (out->ids[out->n][0] != '\0')
			out->ders[out->n++] = der;
	}
}

static void say_tainted(struct rotation *r, const struct lost *lost)
{
	for (size_t i = 0; i < lost->n; i++)
		if (strcmp(r->said_tainted, lost->ids[i]) != 0) {
			log_info("X.509 authority tainted", KV("subsystem_name", "ca_manager"),
				 KV("subject_key_id", lost->ids[i]));
			snprintf(r->said_tainted, sizeof r->said_tainted, "%s", lost->ids[i]);
		}
}

/* We leave it first, and only then say so in our bundle: those below us and our agents follow at once. */
static enum code leave(struct rotation *r, const struct lost *lost, struct arena *arena, struct err *err)
{
	struct comparison taints = { .commands = arena_alloc(arena, lost->n * sizeof *taints.commands) };

	say_tainted(r, lost);
	if (hangs_on(slots_current(&r->x509), lost->ders, lost->n, arena)) {
		struct slot *next = slots_next(&r->x509);

		log_info("Current root CA is signed by a tainted upstream authority, preparing rotation",
			 KV("subsystem_name", "ca_manager"));
		if (slot_is_empty(next) || hangs_on(next, lost->ders, lost->n, arena))
			TRY(rotate_prepare(r, &r->x509, next, err));
		TRY(rotate_activate(r, &r->x509, next, err));
	}
	for (size_t i = 0; i < lost->n; i++)
		add_taint(r, &taints, lost->ids[i], arena);
	TRY(rotate_carry_out(r, taints.commands, taints.n, err));
	return rotate_leave_tainted(r, lost->ders, lost->n, err);
}

static enum code append_keys(struct rotation *r, const Pb__Bundle *ours, const Pb__Bundle *now, struct arena *arena,
			     struct err *err)
{
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	append.trust_domain = r->server->td;
	append.jwt_authorities =
		jwt_keys_missing(ours, now->jwt_authorities, now->n_jwt_authorities, arena, &append.n_jwt_authorities);
	command.kind_case = PB__COMMAND__KIND_BUNDLE_APPEND;
	command.bundle_append = &append;
	return append.n_jwt_authorities == 0 ? CODE_OK : rotate_carry_out(r, (Pb__Command *[]){ &command }, 1, err);
}

static enum code parse(const struct buf *bytes, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	void *parsed;

	TRY(pb_parse(&pb__bundle__descriptor, (struct span){ bytes->data, bytes->len }, arena, &parsed, err));
	*out = parsed;
	return CODE_OK;
}

static bool has_root(const Pb__Bundle *bundle, struct span der)
{
	Pb__X509Certificate root = PB__X509_CERTIFICATE__INIT;

	root.asn1 = (ProtobufCBinaryData){ der.len, (uint8_t *)der.data };
	return find_root(bundle->x509_authorities, bundle->n_x509_authorities, &root) != NULL;
}

/* *again: what is gone above has been tainted here, and goes at the next look. */
static enum code follow(struct rotation *r, const struct buf *news, bool *again, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Bundle *before, *now, *ours;
	struct lost lost;

	TRY(parse(&r->followed, arena, &before, err));
	TRY(parse(news, arena, &now, err));
	if (now->n_x509_authorities == 0)
		return err_set(err, CODE_INTERNAL, "the bundle of the upstream server has no X.509 authority");
	TRY(own_bundle(r, arena, &ours, err));
	find_lost(r, ours, before, now, arena, &lost);
	TRY(rotate_take_roots(r, now->x509_authorities, now->n_x509_authorities, err));
	TRY(append_keys(r, ours, now, arena, err));
	for (size_t i = 0; i < lost.n; i++)
		*again = *again || !has_root(now, lost.ders[i]);
	return lost.n == 0 ? CODE_OK : leave(r, &lost, arena, err);
}

void rotate_hear_news(void *rotation, struct span bundle)
{
	struct rotation *r = rotation;

	if (bundle.len == r->followed.len &&
	    (bundle.len == 0 || memcmp(bundle.data, r->followed.data, bundle.len) == 0))
		return;
	r->news.len = 0;
	buf_append(&r->news, bundle.data, bundle.len);
	wait_done(&r->wake);
}

void rotate_follow(struct rotation *r)
{
	OWN_BUF news = r->news; /* more may come while we wait */
	struct err err = { 0 };
	bool again = false;

	r->news = (struct buf){ 0 };
	if (news.len == 0)
		return;
	if (follow(r, &news, &again, &err) != CODE_OK) {
		log_error("Failed to follow the bundle of the upstream server", KV("subsystem_name", "ca_manager"),
			  KV("error", err.text)); /* it comes again */
	} else if (!again) {
		buf_done(&r->followed);
		r->followed = news;
		news = (struct buf){ 0 };
	}
}
