/* SPDX-License-Identifier: Apache-2.0 */
/* SVID: signing for workloads, by an agent that may (New...), by an admin (Mint...), for a server below us
 * (contract server-api.md 4.3). Signing happens here, on the api loop: P-256 costs less than handing it over. */
#include "api/batch.h"
#include "api/convert.h"
#include "api/server.h"
#include "api/state.h"
#include "api/svc.h"
#include "base/id.h"
#include "ca/csr.h"
#include "ca/jwt.h"
#include "ca/x509.h"
#include "svid.pb-c.h"

#include <string.h>

static const char *sha256_hex(struct call *call, ProtobufCBinaryData bytes)
{
	return call_audits(call) ? audit_sha256(call->arena, bytes.data, bytes.len) : NULL;
}

/* Nothing is signed past the budget, for local callers neither (availability.md V2). No view is open here. */
static enum code may_sign(struct call *call)
{
	return state_may_say_yes(call->server->state) ? CODE_OK : call_confirm(call, NULL);
}

static bool is_under(const char *path, const char *prefix)
{
	size_t len = strlen(prefix);

	while (len > 0 && prefix[len - 1] == '/')
		len--;
	return strncmp(path, prefix, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* cluster { fail_closed }: what is not to be signed on this node's word alone. */
static enum code check_fail_closed(struct call *call, const char *id, const char *path, struct err *err)
{
	const struct strings *prefixes = &call->server->config->cluster.fail_closed;
	struct replica_view view;

	if (prefixes->n == 0 || state_is_single(call->server->state))
		return CODE_OK;
	replica_view(call->server->replica, &view);
	for (size_t i = 0; !view.hears_leader && i < prefixes->n; i++)
		if (is_under(path, prefixes->items[i]))
			return err_set(err, CODE_UNAVAILABLE,
				       "'%s' is signed only while a leader is heard (fail_closed)", id);
	return CODE_OK;
}

static enum code current_x509(struct call *call, struct keyring **out)
{
	TRY(may_sign(call));
	*out = keyring_current(call->server->keyring);
	if (*out == NULL || (*out)->x509 == NULL)
		return call_cannot_sign(call, "X509 CA is not available for signing");
	return CODE_OK;
}

/* --- BatchNewX509SVID --- */

/* The signing of one item; the texts are those of its Status. */
static enum code sign_entry(struct call *call, const struct keyring *keyring, const Pb__NewX509SVIDParams *params,
			    const Pb__Entry *entry, Pb__X509SVID **out, struct err *err)
{
	struct spiffe_id id;
	struct x509_request request = { .now_s = call_now_s(call) };
	struct x509_svid svid;
	struct csr csr;

	if (csr_parse(params->csr.data, params->csr.len, call->arena, &csr, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "malformed CSR");
	if (csr_verify(&csr, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid CSR signature");
	if (id_from_parts(entry->spiffe_id->trust_domain, entry->spiffe_id->path, call->arena, &id, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "entry has malformed SPIFFE ID");
	TRY(check_fail_closed(call, id.text, id.path, err));
	request.spiffe_id = id.text;
	request.spki = csr.spki;
	request.dns_names = entry->dns_names;
	request.n_dns_names = entry->n_dns_names;
	request.ttl_s = entry->x509_svid_ttl > 0 ? entry->x509_svid_ttl : call->server->config->default_x509_svid_ttl_s;
	if (x509_issue(keyring->x509, &request, call->arena, &svid, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to sign X509-SVID");
	*out = svid_to_proto(call, keyring->x509, &svid, id.td, id.path);
	return CODE_OK;
}

/* An entry of the caller's. That there is none, or that it is not the caller's, is said only once the leader has
 * confirmed it: *view may be another one then. */
static enum code authorized_entry(struct call *call, struct view **view, const char *id, Pb__Entry **out)
{
	bool again = false;
	enum code rc;

	do {
		if (*view == NULL)
			TRY(call_view(call, view));
		rc = view_authorized_entry(*view, call->caller->id, id, call_now_s(call), call->arena, out, call->err);
		if (rc == CODE_NOT_FOUND)
			rc = call_no(call, view, rc, &again);
	} while (again);
	return rc;
}

static enum code new_x509(struct call *call, struct view **view, const struct keyring *keyring,
			  const Pb__NewX509SVIDParams *params, Pb__X509SVID **out, struct err *err)
{
	Pb__Entry *entry;

	if (params->entry_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "missing entry ID");
	if (params->csr.len == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "missing CSR");
	TRY(authorized_entry(call, view, params->entry_id, &entry));
	return sign_entry(call, keyring, params, entry, out, err);
}

static void audit_new_x509(struct call *call, const Pb__NewX509SVIDParams *params, enum code rc,
			   const Pb__X509SVID *svid)
{
	if (!call_audits(call))
		return;
	CALL_AUDIT_ITEM(call, rc, call->err->text, KV("csr", sha256_hex(call, params->csr)),
			KV("entry_id", params->entry_id),
			KV("spiffe_id", svid == NULL ? NULL : audit_id(call->arena, svid->id)),
			KV("expires_at", svid == NULL ? NULL : audit_time(call->arena, svid->expires_at)));
}

/* SPIRE's line of an item: with the entry's id once the parameters are all there. */
static void log_refused(struct call *call, const Pb__NewX509SVIDParams *params)
{
	bool whole = params->entry_id[0] != '\0' && params->csr.len > 0;

	call->fields = CALL_PAIRS(call, KV("entry_id", whole ? params->entry_id : NULL));
	call_log_err(call, call->err);
	call->fields = NULL;
}

enum code svid_new_x509(struct call *call, const void *request, void *reply)
{
	const Pb__BatchNewX509SVIDRequest *req = request;
	Pb__BatchNewX509SVIDResponse *out = reply;
	OWN_STRUCT(keyring) keyring = NULL;
	OWN_STRUCT(view) view = NULL;

	if (req->n_params == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "missing parameters");
	TRY(call_limit(call, LIMITER_CSR, (unsigned)req->n_params,
		       "rejecting request due to certificate signing rate limiting"));
	TRY(current_x509(call, &keyring));
	TRY(call_view(call, &view));
	out->results = arena_alloc(call->arena, req->n_params * sizeof *out->results);
	for (size_t i = 0; i < req->n_params; i++) {
		Pb__BatchNewX509SVIDResponse__Result *result =
			pb_new(&pb__batch_new_x509_svidresponse__result__descriptor, call->arena);
		enum code rc = new_x509(call, &view, keyring, req->params[i], &result->svid, call->err);

		if (rc == CODE_OK)
			call->err->text[0] = '\0';
		else
			log_refused(call, req->params[i]);
		result->status = status_new(call->arena, rc, call->err);
		audit_new_x509(call, req->params[i], rc, result->svid);
		out->results[out->n_results++] = result;
	}
	return CODE_OK;
}

/* --- JWT --- */

static enum code sign_jwt(struct call *call, const struct spiffe_id *id, const char *const *audience, size_t n_audience,
			  int64_t ttl_s, bool jti, Pb__JWTSVID **out)
{
	OWN_STRUCT(keyring) keyring = keyring_current(call->server->keyring);
	const struct jwt_request request = {
		.spiffe_id = id->text,
		.audience = audience,
		.n_audience = n_audience,
		.issuer = call->server->config->jwt_issuer,
		.jti = jti,
		.ttl_s = ttl_s > 0 ? ttl_s : call->server->config->default_jwt_svid_ttl_s,
		.now_s = call_now_s(call),
	};
	struct jwt_svid svid;

	TRY(may_sign(call));
	TRY(check_fail_closed(call, id->text, id->path, call->err));
	if (keyring == NULL || keyring->jwt == NULL)
		return call_cannot_sign(call, "failed to sign JWT-SVID: JWT key is not available for signing");
	if (jwt_issue(keyring == NULL ? NULL : keyring->jwt, &request, call->arena, &svid, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to sign JWT-SVID");
	*out = pb_new(&pb__jwtsvid__descriptor, call->arena);
	(*out)->token = svid.token;
	(*out)->id = pb_new(&pb__spiffeid__descriptor, call->arena);
	(*out)->id->trust_domain = id->td;
	(*out)->id->path = id->path;
	(*out)->expires_at = svid.expires_at_s;
	(*out)->issued_at = svid.issued_at_s;
	return CODE_OK;
}

static enum code workload_id(struct call *call, const Pb__SPIFFEID *from, struct spiffe_id *id)
{
	enum code rc = CODE_INVALID_ARGUMENT;

	if (from == NULL)
		err_set(call->err, rc, "request must specify SPIFFE ID");
	else if (id_from_parts(from->trust_domain, from->path, call->arena, id, call->err) == CODE_OK &&
		 id_check_workload(id, call->server->td, call->err) == CODE_OK)
		return CODE_OK;
	return err_wrap(call->err, rc, "invalid SPIFFE ID");
}

static const char *joined(struct arena *arena, const char *const *items, size_t n)
{
	const char *text = "";

	for (size_t i = 0; i < n; i++)
		text = i == 0 ? items[0] : arena_printf(arena, "%s,%s", text, items[i]);
	return text;
}

enum code svid_mint_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__MintJWTSVIDRequest *req = request;
	Pb__MintJWTSVIDResponse *out = reply;
	struct spiffe_id id;

	CALL_AUDIT_ADD(call, KV("spiffe_id", req->id == NULL ? NULL : audit_id(call->arena, req->id)),
		       KV_NUM("ttl", req->ttl), KV("audience", joined(call->arena, req->audience, req->n_audience)));
	TRY(workload_id(call, req->id, &id));
	if (req->n_audience == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "at least one audience is required");
	return sign_jwt(call, &id, req->audience, req->n_audience, req->ttl, false, &out->svid);
}

enum code svid_new_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__NewJWTSVIDRequest *req = request;
	Pb__NewJWTSVIDResponse *out = reply;
	OWN_STRUCT(view) view = NULL;
	struct spiffe_id id;
	Pb__Entry *entry;

	CALL_AUDIT_ADD(call, KV("entry_id", req->entry_id),
		       KV("audience", joined(call->arena, req->audience, req->n_audience)));
	TRY(call_limit(call, LIMITER_JSR, 1, "rejecting request due to JWT signing request rate limiting"));
	TRY(call_view(call, &view));
	TRY(authorized_entry(call, &view, req->entry_id, &entry));
	view_close(TAKE(view));
	TRY(workload_id(call, entry->spiffe_id, &id));
	if (req->n_audience == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "at least one audience is required");
	TRY(sign_jwt(call, &id, req->audience, req->n_audience, entry->jwt_svid_ttl,
		     entry->additional_attributes != NULL && entry->additional_attributes->jwt_svid_include_jti,
		     &out->svid));
	CALL_AUDIT_ADD(call, KV("spiffe_id", id.text), KV_NUM("ttl", entry->jwt_svid_ttl));
	return CODE_OK;
}

/* --- MintX509SVID --- */

static enum code check_minted(struct call *call, const struct csr *csr, struct spiffe_id *id)
{
	struct err *err = call->err;

	if (csr->n_uris == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "CSR URI SAN is required");
	if (csr->n_uris > 1)
		return err_set(err, CODE_INVALID_ARGUMENT, "only one URI SAN is expected");
	if (id_parse(csr->uris[0], call->arena, id, err) != CODE_OK ||
	    id_check_workload(id, call->server->td, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "CSR URI SAN is invalid");
	for (size_t i = 0; i < csr->n_dns_names; i++)
		if (dns_check(csr->dns_names[i], err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "CSR DNS name is invalid");
	if (dns_check_overlap(csr->dns_names, csr->n_dns_names, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT,
				"CSR DNS name contains a wildcard that covers another non-wildcard name");
	return CODE_OK;
}

enum code svid_mint_x509(struct call *call, const void *request, void *reply)
{
	const Pb__MintX509SVIDRequest *req = request;
	Pb__MintX509SVIDResponse *out = reply;
	OWN_STRUCT(keyring) keyring = NULL;
	struct x509_request to_sign = { .now_s = call_now_s(call) };
	struct x509_svid svid;
	struct spiffe_id id;
	struct csr csr;

	CALL_AUDIT_ADD(call, KV("csr", sha256_hex(call, req->csr)), KV_NUM("ttl", req->ttl));
	if (req->csr.len == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "missing CSR");
	if (csr_parse(req->csr.data, req->csr.len, call->arena, &csr, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "malformed CSR");
	if (csr_verify(&csr, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to verify CSR signature");
	TRY(check_minted(call, &csr, &id));
	TRY(check_fail_closed(call, id.text, id.path, call->err));
	TRY(current_x509(call, &keyring));
	to_sign.spiffe_id = id.text;
	to_sign.spki = csr.spki;
	to_sign.dns_names = csr.dns_names;
	to_sign.n_dns_names = csr.n_dns_names;
	to_sign.ttl_s = req->ttl > 0 ? req->ttl : call->server->config->default_x509_svid_ttl_s;
	if (x509_filter_subject(csr.subject, call->arena, &to_sign.subject, call->err) != CODE_OK ||
	    x509_issue(keyring->x509, &to_sign, call->arena, &svid, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to sign X509-SVID");
	out->svid = svid_to_proto(call, keyring->x509, &svid, id.td, id.path);
	CALL_AUDIT_ADD(call, KV("spiffe_id", id.text),
		       KV("dns_name", joined(call->arena, csr.dns_names, csr.n_dns_names)),
		       KV("expires_at", audit_time(call->arena, svid.not_after_s)));
	return CODE_OK;
}

/* --- NewDownstreamX509CA --- */

static void downstream_chain(struct call *call, const struct x509_authority *signer, const struct x509_svid *ca,
			     Pb__NewDownstreamX509CAResponse *out)
{
	Pb__X509SVID *chain = svid_to_proto(call, signer, ca, "", "");

	out->n_ca_cert_chain = chain->n_cert_chain;
	out->ca_cert_chain = chain->cert_chain;
}

enum code svid_new_downstream_ca(struct call *call, const void *request, void *reply)
{
	const Pb__NewDownstreamX509CARequest *req = request;
	Pb__NewDownstreamX509CAResponse *out = reply;
	OWN_STRUCT(keyring) keyring = NULL;
	OWN_STRUCT(view) view = NULL;
	int64_t ttl_s = req->preferred_ttl > 0 ? req->preferred_ttl : call->server->config->ca_ttl_s;
	struct x509_svid ca;
	struct csr csr;
	Pb__Bundle *bundle;

	CALL_AUDIT_ADD(call, KV("csr", sha256_hex(call, req->csr)),
		       KV("trust_domain_id", audit_td(call->arena, call->server->td)));
	TRY(call_limit(call, LIMITER_CSR, 1, "rejecting request due to downstream CA signing rate limit"));
	if (csr_parse(req->csr.data, req->csr.len, call->arena, &csr, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "malformed CSR");
	if (csr_verify(&csr, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "invalid CSR signature");
	TRY(current_x509(call, &keyring));
	if (x509_issue_downstream(keyring->x509, call->server->td, csr.spki, ttl_s, call_now_s(call), call->arena, &ca,
				  call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to sign downstream X.509 CA");
	TRY(call_view(call, &view));
	TRY(view_bundle(view, call->server->td, call->arena, &bundle, call->err));
	downstream_chain(call, keyring->x509, &ca, out);
	out->x509_authorities =
		arena_alloc(call->arena, (bundle->n_x509_authorities + 1) * sizeof *out->x509_authorities);
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		out->x509_authorities[out->n_x509_authorities++] = bundle->x509_authorities[i]->asn1;
	CALL_AUDIT_ADD(call, KV("expires_at", audit_time(call->arena, ca.not_after_s)));
	return CODE_OK;
}
