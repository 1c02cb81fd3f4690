/* SPDX-License-Identifier: Apache-2.0 */
/* Authorities above ours (server-operation.md 3.8). Our bundle follows their roots: what is new there is added before
 * anything that hangs on it is used; what is tainted here and gone there goes. Our own certificate is not in the
 * bundle. */
#include "api/rotate_inside.h"

#include "api/pb.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ca/upstream.h"
#include "ca/x509.h"

#include <string.h>

bool rotate_is_below(const struct rotation *r)
{
	return r->server->upstream_disk != NULL;
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
	struct span csr;

	if (fault_at("rotate.mint"))
		return err_set(err, CODE_INTERNAL, "fault rotate.mint");
	TRY(x509_request_ca(key, &subject, r->server->td, arena, &csr, err));
	if (mint_disk(r, csr, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "upstreamauthority(disk)");
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

enum code rotate_publish_above(struct rotation *r, Pb__JWTKey *key __attribute__((unused)),
			       struct arena *arena __attribute__((unused)), Pb__JWTKey ***keys __attribute__((unused)),
			       size_t *n __attribute__((unused)), struct err *err)
{
	if (!r->said_no_jwt_above)
		log_warn("UpstreamAuthority plugin does not support JWT-SVIDs. Workloads managed by this server may "
			 "have trouble "
			 "communicating with workloads outside this cluster when using JWT-SVIDs.",
			 KV("subsystem_name", "ca_manager"), KV("plugin_name", "disk"));
	r->said_no_jwt_above = true;
	return err_set(err, CODE_UNIMPLEMENTED, "publishing upstream is unsupported");
}
