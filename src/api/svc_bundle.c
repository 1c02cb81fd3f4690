/* SPDX-License-Identifier: Apache-2.0 */
/* Bundle: the own trust bundle and those of federated trust domains (contract server-api.md 4.4). */
#include "api/batch.h"
#include "api/bundle_conv.h"
#include "api/convert.h"
#include "api/mask.h"
#include "api/parent.h"
#include "api/pb.h"
#include "api/server.h"
#include "api/svc.h"
#include "base/clock.h"
#include "base/id.h"

#include <string.h>

enum { PUBLISH_MS = 5 * 1000 }; /* upstream */

static Pb__Command *new_command(struct call *call, Pb__Command__KindCase kind)
{
	Pb__Command *command = pb_new(&pb__command__descriptor, call->arena);

	command->kind_case = kind;
	return command;
}

/* --- the own bundle --- */

enum code bundle_count(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	OWN_STRUCT(view) view = NULL;
	uint64_t count;

	TRY(call_view(call, &view));
	if (view_bundle_count(view, &count, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count bundles");
	((Pb__CountBundlesResponse *)reply)->count = (int32_t)count;
	return CODE_OK;
}

/* The row's own bytes, masked, as the answer. */
static enum code reply_bundle(struct call *call, const char *td, const Pb__BundleMask *mask)
{
	bool again = false;
	OWN_STRUCT(view) view = NULL;
	struct span blob;
	enum code rc;

	do {
		if (view == NULL)
			TRY(call_view(call, &view));
		rc = view_bundle_blob(view, td, call->arena, &blob, call->err);
		if (rc == CODE_NOT_FOUND)
			call_no(call, &view, rc, &again);
	} while (again);
	if (rc == CODE_NOT_FOUND) /* also if nobody can confirm it: an agent passes over it, and its sync goes on */
		return err_set(call->err, rc, "bundle not found");
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to fetch bundle");
	if (!mask_copy(call_reply_raw(call), blob, mask_of_bundle(mask)))
		return err_set(call->err, CODE_INTERNAL, "failed to convert bundle: the bundle of '%s' is damaged", td);
	return CODE_OK;
}

enum code bundle_get_own(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__GetBundleRequest *req = request;

	CALL_AUDIT_ADD(call, KV("trust_domain_id", call->server->td));
	return reply_bundle(call, call->server->td, req->output_mask);
}

static enum code append(struct call *call, Pb__BundleAppend *append, Pb__Bundle **out)
{
	Pb__Command *command = new_command(call, PB__COMMAND__KIND_BUNDLE_APPEND);
	Pb__Outcome *outcome;

	append->trust_domain = call->server->td;
	command->bundle_append = append;
	TRY(call_propose(call, command, &outcome));
	*out = outcome->bundle;
	return CODE_OK;
}

enum code bundle_append(struct call *call, const void *request, void *reply)
{
	const Pb__AppendBundleRequest *req = request;
	Pb__BundleAppend *what = pb_new(&pb__bundle_append__descriptor, call->arena);
	struct pairs audit;
	Pb__Bundle *bundle;
	enum code rc;

	if (call_audits(call)) {
		audit = audit_authorities(call, req->x509_authorities, req->n_x509_authorities, req->jwt_authorities,
					  req->n_jwt_authorities, "", 0);
		call_audit_add(call, audit.items);
	}
	if (req->n_x509_authorities == 0 && req->n_jwt_authorities == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "no authorities to append");
	call->fields = CALL_PAIRS(call, KV("trust_domain_id", call->server->td));
	if (jwt_authorities_from_proto(call->arena, req->jwt_authorities, req->n_jwt_authorities,
				       &what->jwt_authorities, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to convert JWT authority");
	what->n_jwt_authorities = req->n_jwt_authorities;
	if (x509_authorities_from_proto(call->arena, req->x509_authorities, req->n_x509_authorities, false,
					&what->x509_authorities, &what->n_x509_authorities, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to convert X.509 authority");
	rc = append(call, what, &bundle);
	if (rc != CODE_OK)
		return call_failed(call, rc, "failed to append bundle");
	mask_bundle(bundle, mask_of_bundle(req->output_mask));
	*(Pb__Bundle *)reply = *bundle;
	return CODE_OK;
}

/* Below another server the key goes up, and what comes back is what we take. */
static enum code publish_above(struct call *call, Pb__BundleAppend *what)
{
	int64_t last_ms = clock_mono_ms() + PUBLISH_MS;
	Pb__PublishJWTAuthorityResponse *above;
	OWN_STRUCT(view) view = NULL;
	Pb__Bundle *ours;

	TRY(parent_publish_jwt(call->server->parent, what->jwt_authorities[0],
			       call->deadline_ms < last_ms ? call->deadline_ms : last_ms, call->arena, &above,
			       call->err));
	TRY(call_view(call, &view));
	TRY(view_bundle(view, call->server->td, call->arena, &ours, call->err));
	what->jwt_authorities = jwt_keys_missing(ours, above->jwt_authorities, above->n_jwt_authorities, call->arena,
						 &what->n_jwt_authorities);
	return CODE_OK;
}

enum code bundle_publish_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__PublishJWTAuthorityRequest *req = request;
	Pb__PublishJWTAuthorityResponse *out = reply;
	Pb__BundleAppend *what = pb_new(&pb__bundle_append__descriptor, call->arena);
	Pb__Bundle *bundle;
	Pb__JWTKey *key;
	enum code rc;

	TRY(call_limit(call, LIMITER_PUSH_KEY, 1, "rejecting request due to key publishing rate limiting"));
	if (req->jwt_authority == NULL)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "missing JWT authority");
	if (call_audits(call))
		CALL_AUDIT_ADD(call, KV_NUM("jwt_authority_expires_at", req->jwt_authority->expires_at),
			       KV("jwt_authority_key_id", req->jwt_authority->key_id),
			       KV("jwt_authority_public_key_sha256",
				  audit_sha256(call->arena, req->jwt_authority->public_key.data,
					       req->jwt_authority->public_key.len)));
	if (jwt_authority_from_proto(call->arena, req->jwt_authority, &key, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "invalid JWT authority");
	what->n_jwt_authorities = 1;
	what->jwt_authorities = arena_memdup(call->arena, &key, sizeof(Pb__JWTKey *));
	rc = call->server->parent == NULL ? CODE_OK : publish_above(call, what);
	if (rc == CODE_OK)
		rc = append(call, what, &bundle);
	if (rc != CODE_OK)
		return call_failed(call, rc, "failed to publish JWT key");
	out->jwt_authorities = bundle->jwt_authorities;
	out->n_jwt_authorities = bundle->n_jwt_authorities;
	return CODE_OK;
}

/* --- federated bundles: reading --- */

enum code bundle_get_federated(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__GetFederatedBundleRequest *req = request;
	const char *td;

	call->fields = CALL_PAIRS(call, KV("trust_domain_id", req->trust_domain));
	CALL_AUDIT_ADD(call, KV("trust_domain_id", req->trust_domain));
	if (id_parse_td(req->trust_domain, call->arena, &td, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "trust domain argument is not valid");
	if (strcmp(td, call->server->td) == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT,
			       "getting a federated bundle for the server's own trust domain is not allowed");
	return reply_bundle(call, td, req->output_mask);
}

struct listing {
	struct buf *out;
	const char *own;
	uint32_t set;
	uint64_t last;
};

/* The own bundle takes part in the cut of pages, but is not shown. */
static enum code list_one(uint64_t seq, const char *td, struct span blob, void *ctx, struct err *err)
{
	struct listing *listing = ctx;

	listing->last = seq;
	if (strcmp(td, listing->own) != 0 && !mask_embed(listing->out, 1, blob, listing->set))
		return err_set(err, CODE_INTERNAL, "the bundle of '%s' is damaged", td);
	return CODE_OK;
}

enum code bundle_list_federated(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__ListFederatedBundlesRequest *req = request;
	struct listing listing = { .own = call->server->td, .set = mask_of_bundle(req->output_mask) };
	size_t limit = req->page_size > 0 ? (size_t)req->page_size : 0;
	OWN_STRUCT(view) view = NULL;
	uint64_t after = 0;

	if (limit > 0 && page_token_parse(req->page_token, &after, call->err) != CODE_OK)
		return call_bad_token(call, "failed to list bundles", req->page_token);
	listing.out = call_reply_raw(call);
	TRY(call_view(call, &view));
	if (view_bundles(view, after, limit, list_one, &listing, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to list bundles");
	if (limit > 0 && listing.last > 0)
		wire_text(listing.out, 2, arena_printf(call->arena, "%llu", (unsigned long long)listing.last));
	return CODE_OK;
}

/* --- federated bundles: create, update, set: they differ in a word, the command and the mask --- */

struct write {
	const char *verb; /* "creating" */
	Pb__Command__KindCase kind;
	const char *failed;   /* "unable to create bundle" */
	Pb__BundleMask *mask; /* of an update */
};

static Pb__Bundle *write_prepare(struct call *call, const struct write *write, const Pb__Bundle *from,
				 struct batch_item *item)
{
	Pb__Bundle *bundle;
	const char *td;
	struct err err = { 0 };

	item->fields = CALL_PAIRS(call, KV("trust_domain_id", from->trust_domain));
	if (id_parse_td(from->trust_domain, call->arena, &td, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "trust domain argument is not valid", err.text);
		return NULL;
	}
	if (strcmp(td, call->server->td) == 0) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT,
			   arena_printf(call->arena,
					"%s a federated bundle for the server's own trust domain is not allowed",
					write->verb),
			   NULL);
		return NULL;
	}
	if (bundle_from_proto(call, from, &bundle, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "failed to convert bundle", err.text);
		return NULL;
	}
	return bundle;
}

static Pb__Command *write_command(struct call *call, const struct write *write, Pb__Bundle *bundle)
{
	Pb__Command *command = new_command(call, write->kind);

	if (write->kind == PB__COMMAND__KIND_BUNDLE_CREATE) {
		command->bundle_create = pb_new(&pb__bundle_create__descriptor, call->arena);
		command->bundle_create->bundle = bundle;
	} else if (write->kind == PB__COMMAND__KIND_BUNDLE_UPDATE) {
		command->bundle_update = pb_new(&pb__bundle_update__descriptor, call->arena);
		command->bundle_update->bundle = bundle;
		command->bundle_update->mask = write->mask;
	} else {
		command->bundle_set = pb_new(&pb__bundle_set__descriptor, call->arena);
		command->bundle_set->bundle = bundle;
	}
	return command;
}

/* The line of a success. */
static void write_log(struct call *call, const struct write *write, const struct batch_item *item)
{
	call->fields = item->fields;
	if (write->kind == PB__COMMAND__KIND_BUNDLE_CREATE)
		CALL_LOG(call, LOG_DEBUG, "Federated bundle created");
	else if (write->kind == PB__COMMAND__KIND_BUNDLE_UPDATE)
		CALL_LOG(call, LOG_DEBUG, "Federated bundle updated");
	else
		CALL_LOG(call, LOG_INFO, "Bundle set successfully");
	call->fields = NULL;
}

static Pb__Bundle *write_finish(struct call *call, const struct write *write, struct batch_item *item, uint32_t set)
{
	Pb__Bundle *bundle;

	if (item->outcome == NULL)
		return NULL;
	if (item->outcome->code == CODE_ALREADY_EXISTS)
		batch_fail(call, item, CODE_ALREADY_EXISTS, "bundle already exists", NULL);
	else
		batch_refused(call, item, write->failed, "bundle not found");
	if (item->code != CODE_OK)
		return NULL;
	write_log(call, write, item);
	bundle = arena_memdup(call->arena, item->outcome->bundle, sizeof *bundle);
	mask_bundle(bundle, set);
	return bundle;
}

static enum code write_all(struct call *call, const struct write *write, Pb__Bundle *const *bundles, size_t n,
			   const Pb__BundleMask *output, struct batch_item **items, Pb__Bundle ***out)
{
	*items = batch_new(call, n);
	*out = arena_zalloc(call->arena, n * sizeof **out);
	for (size_t i = 0; i < n; i++) {
		Pb__Bundle *bundle = write_prepare(call, write, bundles[i], &(*items)[i]);

		if (bundle != NULL)
			(*items)[i].command = write_command(call, write, bundle);
	}
	TRY(batch_run(call, *items, n));
	for (size_t i = 0; i < n; i++) {
		(*out)[i] = write_finish(call, write, &(*items)[i], mask_of_bundle(output));
		if (call_audits(call))
			batch_audit(call, &(*items)[i],
				    audit_bundle(call, bundles[i], mask_of_bundle(write->mask), "", 0).items);
	}
	return CODE_OK;
}

enum code bundle_create_federated(struct call *call, const void *request, void *reply)
{
	static const struct write write = { "creating", PB__COMMAND__KIND_BUNDLE_CREATE, "unable to create bundle",
					    NULL };
	const Pb__BatchCreateFederatedBundleRequest *req = request;
	Pb__BatchCreateFederatedBundleResponse *out = reply;
	struct batch_item *items;
	Pb__Bundle **bundles;

	TRY(write_all(call, &write, req->bundle, req->n_bundle, req->output_mask, &items, &bundles));
	out->results = arena_alloc(call->arena, req->n_bundle * sizeof *out->results);
	for (size_t i = 0; i < req->n_bundle; i++) {
		out->results[i] = pb_new(&pb__batch_create_federated_bundle_response__result__descriptor, call->arena);
		out->results[i]->status = batch_status(call, &items[i]);
		out->results[i]->bundle = bundles[i];
	}
	out->n_results = req->n_bundle;
	return CODE_OK;
}

enum code bundle_update_federated(struct call *call, const void *request, void *reply)
{
	const Pb__BatchUpdateFederatedBundleRequest *req = request;
	const struct write write = { "updating", PB__COMMAND__KIND_BUNDLE_UPDATE, "failed to update bundle",
				     req->input_mask };
	Pb__BatchUpdateFederatedBundleResponse *out = reply;
	struct batch_item *items;
	Pb__Bundle **bundles;

	TRY(write_all(call, &write, req->bundle, req->n_bundle, req->output_mask, &items, &bundles));
	out->results = arena_alloc(call->arena, req->n_bundle * sizeof *out->results);
	for (size_t i = 0; i < req->n_bundle; i++) {
		out->results[i] = pb_new(&pb__batch_update_federated_bundle_response__result__descriptor, call->arena);
		out->results[i]->status = batch_status(call, &items[i]);
		out->results[i]->bundle = bundles[i];
	}
	out->n_results = req->n_bundle;
	return CODE_OK;
}

enum code bundle_set_federated(struct call *call, const void *request, void *reply)
{
	static const struct write write = { "setting", PB__COMMAND__KIND_BUNDLE_SET, "failed to set bundle", NULL };
	const Pb__BatchSetFederatedBundleRequest *req = request;
	Pb__BatchSetFederatedBundleResponse *out = reply;
	struct batch_item *items;
	Pb__Bundle **bundles;

	TRY(write_all(call, &write, req->bundle, req->n_bundle, req->output_mask, &items, &bundles));
	out->results = arena_alloc(call->arena, req->n_bundle * sizeof *out->results);
	for (size_t i = 0; i < req->n_bundle; i++) {
		out->results[i] = pb_new(&pb__batch_set_federated_bundle_response__result__descriptor, call->arena);
		out->results[i]->status = batch_status(call, &items[i]);
		out->results[i]->bundle = bundles[i];
	}
	out->n_results = req->n_bundle;
	return CODE_OK;
}

/* --- federated bundles: delete --- */

static const char *mode_name(int mode)
{
	static const char *const names[] = { "RESTRICT", "DELETE", "DISSOCIATE" };

	return mode >= 0 && mode <= 2 ? names[mode] : NULL;
}

static void delete_prepare(struct call *call, const char *from, int mode, struct batch_item *item)
{
	Pb__BundleDelete *delete = pb_new(&pb__bundle_delete__descriptor, call->arena);
	const char *td;
	struct err err = { 0 };

	item->fields =
		CALL_PAIRS(call, KV("trust_domain_id", from), KV("delete_federated_bundle_mode", mode_name(mode)));
	if (id_parse_td(from, call->arena, &td, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "trust domain argument is not valid", err.text);
		return;
	}
	if (strcmp(td, call->server->td) == 0) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT,
			   "removing the bundle for the server trust domain is not allowed", NULL);
		return;
	}
	delete->trust_domain = td;
	delete->mode = (Pb__BundleDelete__Mode)mode; /* the same numbers */
	item->command = new_command(call, PB__COMMAND__KIND_BUNDLE_DELETE);
	item->command->bundle_delete = delete;
}

enum code bundle_delete_federated(struct call *call, const void *request, void *reply)
{
	const Pb__BatchDeleteFederatedBundleRequest *req = request;
	Pb__BatchDeleteFederatedBundleResponse *out = reply;
	struct batch_item *items = batch_new(call, req->n_trust_domains);
	int mode = (int)req->mode;

	if (mode_name(mode) == NULL) {
		err_set(call->err, CODE_INVALID_ARGUMENT, "unhandled delete mode \"%d\"", mode);
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to parse deletion mode");
	}
	for (size_t i = 0; i < req->n_trust_domains; i++)
		delete_prepare(call, req->trust_domains[i], mode, &items[i]);
	TRY(batch_run(call, items, req->n_trust_domains));
	out->results = arena_alloc(call->arena, req->n_trust_domains * sizeof *out->results);
	for (size_t i = 0; i < req->n_trust_domains; i++) {
		if (items[i].outcome != NULL)
			batch_refused(call, &items[i], "failed to delete federated bundle", "bundle not found");
		out->results[i] = pb_new(&pb__batch_delete_federated_bundle_response__result__descriptor, call->arena);
		out->results[i]->status = batch_status(call, &items[i]);
		out->results[i]->trust_domain = req->trust_domains[i];
		if (call_audits(call))
			batch_audit(call, &items[i],
				    CALL_PAIRS(call, KV("trust_domain_id", req->trust_domains[i]),
					       KV("mode", mode_name(mode))));
	}
	out->n_results = req->n_trust_domains;
	return CODE_OK;
}
