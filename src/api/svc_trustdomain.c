/* SPDX-License-Identifier: Apache-2.0 */
/* TrustDomain: the federation relationships that are kept through the API (contract server-api.md 4.5). Those of the
 * configuration are not among them. */
#include "api/batch.h"
#include "api/bundle_conv.h"
#include "api/convert.h"
#include "api/mask.h"
#include "api/pb.h"
#include "api/refresh.h"
#include "api/server.h"
#include "api/svc.h"
#include "base/id.h"
#include "base/url.h"
#include "trustdomain.pb-c.h"

#include <string.h>

#define PROFILE_UNSET PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE__NOT_SET
#define PROFILE_WEB PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB
#define PROFILE_SPIFFE PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE

enum { F_URL = 2, F_PROFILE = 3, F_BUNDLE = 5 }; /* of a relationship */

/* --- what clients send --- */

static enum code read_url(struct call *call, const char *text, const char **out, struct err *err)
{
	struct url url;

	if (url_parse(text, call->arena, &url, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse bundle endpoint URL");
	if (strcmp(url.scheme, "https") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "bundle endpoint URL must use the https scheme");
	if (url.host[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "bundle endpoint URL must specify the host");
	if (url.has_user)
		return err_set(err, CODE_INVALID_ARGUMENT, "bundle endpoint URL must not contain user info");
	*out = url_text(&url, call->arena);
	return CODE_OK;
}

static enum code read_profile(struct call *call, const Pb__FederationRelationship *from, Pb__FederationRelationship *to,
			      struct err *err)
{
	struct spiffe_id id;

	to->bundle_endpoint_profile_case = from->bundle_endpoint_profile_case;
	switch (from->bundle_endpoint_profile_case) {
	case PROFILE_WEB:
		to->https_web = pb_new(&pb__httpsweb_profile__descriptor, call->arena);
		return CODE_OK;
	case PROFILE_SPIFFE:
		if (id_parse(from->https_spiffe->endpoint_spiffe_id, call->arena, &id, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse endpoint SPIFFE ID");
		to->https_spiffe = pb_new(&pb__httpsspiffeprofile__descriptor, call->arena);
		to->https_spiffe->endpoint_spiffe_id = id.text;
		return CODE_OK;
	default:
		return err_set(err, CODE_INVALID_ARGUMENT, "unsupported bundle endpoint profile type: <nil>");
	}
}

static enum code read_bundle(struct call *call, const Pb__Bundle *from, Pb__FederationRelationship *to, struct err *err)
{
	if (from == NULL)
		return CODE_OK;
	if (bundle_from_proto(call, from, &to->trust_domain_bundle, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse bundle");
	if (strcmp(to->trust_domain_bundle->trust_domain, to->trust_domain) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "trust domain bundle (\"%s\") must match the trust domain of the federation "
			       "relationship (\"%s\")",
			       from->trust_domain, to->trust_domain);
	return CODE_OK;
}

static enum code relationship_from_proto(struct call *call, const Pb__FederationRelationship *from,
					 Pb__FederationRelationship **out, struct err *err)
{
	Pb__FederationRelationship *to = pb_new(&pb__federation_relationship__descriptor, call->arena);

	if (id_parse_td(from->trust_domain, call->arena, &to->trust_domain, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse trust domain");
	TRY(read_url(call, from->bundle_endpoint_url, &to->bundle_endpoint_url, err));
	TRY(read_profile(call, from, to, err));
	TRY(read_bundle(call, from->trust_domain_bundle, to, err));
	*out = to;
	return CODE_OK;
}

static const struct log_pair *audit_relationship(struct call *call, const Pb__FederationRelationship *from,
						 uint32_t set)
{
	struct pairs pairs = from->trust_domain_bundle != NULL && mask_has(set, F_BUNDLE)
				     ? audit_bundle(call, from->trust_domain_bundle, (uint32_t)MASK_ALL, "bundle_", 4)
				     : pairs_new(call, 4);

	if (from->trust_domain[0] != '\0')
		PAIR(&pairs, KV("trust_domain_id", from->trust_domain));
	if (mask_has(set, F_URL))
		PAIR(&pairs, KV("bundle_endpoint_url", from->bundle_endpoint_url));
	if (!mask_has(set, F_PROFILE) || from->bundle_endpoint_profile_case == PROFILE_UNSET)
		return pairs.items;
	PAIR(&pairs, KV("bundle_endpoint_profile",
			from->bundle_endpoint_profile_case == PROFILE_WEB ? "https_web" : "https_spiffe"));
	if (from->bundle_endpoint_profile_case == PROFILE_SPIFFE)
		PAIR(&pairs, KV("endpoint_spiffe_id", from->https_spiffe->endpoint_spiffe_id));
	return pairs.items;
}

/* --- reading --- */

struct listing {
	struct call *call;
	Pb__ListFederationRelationshipsResponse *out;
	uint32_t set;
	uint64_t last;
	size_t cap;
};

static enum code list_one(uint64_t seq, const Pb__FederationRelationship *relationship, void *ctx,
			  struct err *err __attribute__((unused)))
{
	struct listing *listing = ctx;
	struct arena *arena = listing->call->arena;
	Pb__ListFederationRelationshipsResponse *out = listing->out;
	Pb__FederationRelationship *shown = arena_memdup(arena, relationship, sizeof *relationship);

	if (out->n_federation_relationships == listing->cap) {
		Pb__FederationRelationship **old = out->federation_relationships;

		listing->cap = listing->cap == 0 ? 16 : listing->cap * 2;
		out->federation_relationships = arena_alloc(arena, listing->cap * sizeof(Pb__FederationRelationship *));
		if (out->n_federation_relationships > 0)
			memcpy(out->federation_relationships, old,
			       out->n_federation_relationships * sizeof(Pb__FederationRelationship *));
	}
	listing->last = seq;
	mask_relationship(shown, listing->set);
	out->federation_relationships[out->n_federation_relationships++] = shown;
	return CODE_OK;
}

enum code td_list(struct call *call, const void *request, void *reply)
{
	const Pb__ListFederationRelationshipsRequest *req = request;
	struct listing listing = { .call = call, .out = reply, .set = mask_of_relationship(req->output_mask) };
	size_t limit = req->page_size > 0 ? (size_t)req->page_size : 0;
	OWN_STRUCT(view) view = NULL;
	uint64_t after = 0;

	if (limit > 0 && page_token_parse(req->page_token, &after, call->err) != CODE_OK)
		return call_bad_token(call, "failed to list federation relationships", req->page_token);
	TRY(call_view(call, &view));
	if (view_relationships(view, after, limit, call->arena, list_one, &listing, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to list federation relationships");
	if (limit > 0 && listing.last > 0)
		listing.out->next_page_token = arena_printf(call->arena, "%llu", (unsigned long long)listing.last);
	return CODE_OK;
}

enum code td_get(struct call *call, const void *request, void *reply)
{
	const Pb__GetFederationRelationshipRequest *req = request;
	Pb__FederationRelationship *relationship;
	OWN_STRUCT(view) view = NULL;
	const char *td;
	enum code rc;

	CALL_AUDIT_ADD(call, KV("trust_domain_id", req->trust_domain));
	if (id_parse_td(req->trust_domain, call->arena, &td, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to parse trust domain");
	TRY(call_view(call, &view));
	rc = view_relationship(view, td, call->arena, &relationship, call->err);
	if (rc == CODE_NOT_FOUND)
		return err_set(call->err, rc, "federation relationship does not exist");
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to fetch federation relationship");
	mask_relationship(relationship, mask_of_relationship(req->output_mask));
	*(Pb__FederationRelationship *)reply = *relationship;
	return CODE_OK;
}

/* --- writing --- */

static Pb__Command *new_command(struct call *call, Pb__Command__KindCase kind)
{
	Pb__Command *command = pb_new(&pb__command__descriptor, call->arena);

	command->kind_case = kind;
	return command;
}

static Pb__FederationRelationship *prepare(struct call *call, const Pb__FederationRelationship *from,
					   struct batch_item *item)
{
	Pb__FederationRelationship *relationship;
	struct err err = { 0 };

	item->fields = CALL_PAIRS(call, KV("trust_domain_id", from->trust_domain));
	if (relationship_from_proto(call, from, &relationship, &err) == CODE_OK)
		return relationship;
	batch_fail(call, item, CODE_INVALID_ARGUMENT, "failed to convert federation relationship", err.text);
	return NULL;
}

/* SPIRE's handlers answer INTERNAL to whatever the datastore refuses. */
static bool done(struct call *call, struct batch_item *item, const char *failed, const char *success)
{
	const Pb__Outcome *outcome = item->outcome;

	if (outcome == NULL)
		return false;
	if (outcome->code != CODE_OK) {
		batch_fail_status(call, item, CODE_INTERNAL, failed, (enum code)outcome->code, outcome->message);
		return false;
	}
	call->fields = item->fields;
	CALL_LOG(call, LOG_DEBUG, success);
	call->fields = NULL;
	return true;
}

static Pb__FederationRelationship *shown(struct call *call, const Pb__FederationRelationship *relationship,
					 uint32_t set)
{
	Pb__FederationRelationship *out = arena_memdup(call->arena, relationship, sizeof *relationship);

	mask_relationship(out, set);
	return out;
}

static void create_prepare(struct call *call, const Pb__FederationRelationship *from, struct batch_item *item)
{
	Pb__FederationRelationship *relationship = prepare(call, from, item);

	if (relationship == NULL)
		return;
	if (strcmp(relationship->trust_domain, call->server->td) == 0) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT,
			   "unable to create federation relationship for server trust domain", NULL);
		return;
	}
	item->command = new_command(call, PB__COMMAND__KIND_RELATIONSHIP_CREATE);
	item->command->relationship_create = pb_new(&pb__relationship_create__descriptor, call->arena);
	item->command->relationship_create->relationship = relationship;
}

enum code td_create(struct call *call, const void *request, void *reply)
{
	const Pb__BatchCreateFederationRelationshipRequest *req = request;
	Pb__BatchCreateFederationRelationshipResponse *out = reply;
	size_t n = req->n_federation_relationships;
	struct batch_item *items = batch_new(call, n);

	for (size_t i = 0; i < n; i++)
		create_prepare(call, req->federation_relationships[i], &items[i]);
	TRY(batch_run(call, items, n));
	refresher_changed(call->server->refresher);
	out->results = arena_alloc(call->arena, n * sizeof *out->results);
	for (size_t i = 0; i < n; i++) {
		out->results[i] =
			pb_new(&pb__batch_create_federation_relationship_response__result__descriptor, call->arena);
		if (done(call, &items[i], "failed to create federation relationship",
			 "Federation relationship created"))
			/* what was sent, not a bundle that was there before */
			out->results[i]->federation_relationship =
				shown(call, items[i].command->relationship_create->relationship,
				      mask_of_relationship(req->output_mask));
		out->results[i]->status = batch_status(call, &items[i]);
		if (call_audits(call))
			batch_audit(call, &items[i],
				    audit_relationship(call, req->federation_relationships[i], (uint32_t)MASK_ALL));
	}
	out->n_results = n;
	return CODE_OK;
}

static void update_prepare(struct call *call, const Pb__FederationRelationship *from,
			   Pb__FederationRelationshipMask *mask, struct batch_item *item)
{
	Pb__FederationRelationship *relationship = prepare(call, from, item);

	if (relationship == NULL)
		return;
	if (strcmp(relationship->trust_domain, call->server->td) == 0) { /* there cannot be one */
		batch_fail_status(call, item, CODE_INTERNAL, "failed to update federation relationship", CODE_NOT_FOUND,
				  "unable to fetch federation relationship: record not found");
		return;
	}
	item->command = new_command(call, PB__COMMAND__KIND_RELATIONSHIP_UPDATE);
	item->command->relationship_update = pb_new(&pb__relationship_update__descriptor, call->arena);
	item->command->relationship_update->relationship = relationship;
	item->command->relationship_update->mask = mask;
}

enum code td_update(struct call *call, const void *request, void *reply)
{
	const Pb__BatchUpdateFederationRelationshipRequest *req = request;
	Pb__BatchUpdateFederationRelationshipResponse *out = reply;
	size_t n = req->n_federation_relationships;
	struct batch_item *items = batch_new(call, n);

	for (size_t i = 0; i < n; i++)
		update_prepare(call, req->federation_relationships[i], req->input_mask, &items[i]);
	TRY(batch_run(call, items, n));
	refresher_changed(call->server->refresher);
	out->results = arena_alloc(call->arena, n * sizeof *out->results);
	for (size_t i = 0; i < n; i++) {
		out->results[i] =
			pb_new(&pb__batch_update_federation_relationship_response__result__descriptor, call->arena);
		if (done(call, &items[i], "failed to update federation relationship",
			 "Federation relationship updated"))
			out->results[i]->federation_relationship =
				shown(call, items[i].outcome->relationship, mask_of_relationship(req->output_mask));
		out->results[i]->status = batch_status(call, &items[i]);
		if (call_audits(call))
			batch_audit(call, &items[i],
				    audit_relationship(call, req->federation_relationships[i],
						       mask_of_relationship(req->input_mask)));
	}
	out->n_results = n;
	return CODE_OK;
}

/* Answers the name to show. */
static const char *delete_prepare(struct call *call, const char *from, struct batch_item *item)
{
	const char *td;
	struct err err = { 0 };

	if (from[0] == '\0') {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "missing trust domain", NULL);
		return from;
	}
	item->fields = CALL_PAIRS(call, KV("trust_domain_id", from));
	if (id_parse_td(from, call->arena, &td, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "failed to parse trust domain", err.text);
		return from;
	}
	item->command = new_command(call, PB__COMMAND__KIND_RELATIONSHIP_DELETE);
	item->command->relationship_delete = pb_new(&pb__relationship_delete__descriptor, call->arena);
	item->command->relationship_delete->trust_domain = td;
	return td;
}

enum code td_delete(struct call *call, const void *request, void *reply)
{
	const Pb__BatchDeleteFederationRelationshipRequest *req = request;
	Pb__BatchDeleteFederationRelationshipResponse *out = reply;
	size_t n = req->n_trust_domains;
	struct batch_item *items = batch_new(call, n);
	const char **names = arena_alloc(call->arena, n * sizeof *names);

	for (size_t i = 0; i < n; i++)
		names[i] = delete_prepare(call, req->trust_domains[i], &items[i]);
	TRY(batch_run(call, items, n));
	refresher_changed(call->server->refresher);
	out->results = arena_alloc(call->arena, n * sizeof *out->results);
	for (size_t i = 0; i < n; i++) {
		out->results[i] =
			pb_new(&pb__batch_delete_federation_relationship_response__result__descriptor, call->arena);
		if (items[i].outcome != NULL) {
			batch_refused(call, &items[i], "failed to delete federation relationship",
				      "federation relationship not found");
			call->fields = items[i].fields;
			if (items[i].code == CODE_OK)
				CALL_LOG(call, LOG_DEBUG, "Federation relationship deleted");
			call->fields = NULL;
		}
		out->results[i]->status = batch_status(call, &items[i]);
		out->results[i]->trust_domain = names[i];
		if (call_audits(call))
			batch_audit(call, &items[i], CALL_PAIRS(call, KV("trust_domain_id", req->trust_domains[i])));
	}
	out->n_results = n;
	return CODE_OK;
}

/* --- RefreshBundle --- */

enum code td_refresh(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__RefreshBundleRequest *req = request;
	const char *td;
	enum code rc;

	if (id_parse_td(req->trust_domain, call->arena, &td, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to parse trust domain");
	call->fields = CALL_PAIRS(call, KV("trust_domain_id", td));
	CALL_AUDIT_ADD(call, KV("trust_domain_id", td));
	rc = refresher_refresh(call->server->refresher, td, call->deadline_ms, call->err);
	if (rc == CODE_OK) {
		CALL_LOG(call, LOG_DEBUG, "Bundle refreshed");
		return rc;
	}
	return rc == CODE_NOT_FOUND ? rc : err_wrap(call->err, rc, "failed to refresh bundle");
}
