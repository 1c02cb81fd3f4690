/* SPDX-License-Identifier: Apache-2.0 */
/* Fetch, judge, store. Nothing is kept from one look to the next but the state. */
#include "api/poll.h"

#include "api/auth.h"
#include "api/jwks.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "ca/chain.h"
#include "raft/replica.h"

#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>

enum {
	DOCUMENT_MAX = 1 << 20,
	SHOWN_MAX = 1024, /* of an answer that is no bundle */
	FETCH_MS = 30 * 1000,
	PROPOSE_MS = 30 * 1000,
	HINT_LEAST_S = 60,
	LOOKS_A_HINT = 4,
	LIFE_PART = 10,
	UNKNOWN_S = 60, /* nothing is known of that trust domain */
	LOOK_LEAST_MS = HINT_LEAST_S * 1000 / LOOKS_A_HINT,
};

OWNABLE(X509, X509_free)

/* --- the endpoint's certificate (https_spiffe) --- */

struct expected {
	struct certs roots; /* of the trust domain of: */
	const char *id;
};

static void add_roots(struct certs *roots, const Pb__Bundle *bundle)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const uint8_t *at = bundle->x509_authorities[i]->asn1.data;
		const uint8_t *end = at + bundle->x509_authorities[i]->asn1.len;

		while (at < end) { /* what people put there may be several, or none */
			X509 *cert = d2i_X509(NULL, &at, end - at);

			if (cert == NULL)
				break;
			certs_add(roots, cert);
		}
	}
	ERR_clear_error();
}

static enum code verify_endpoint(void *ctx, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	const struct expected *expected = ctx;
	OWN_STRUCT(arena) arena = arena_new();
	OWN_CERTS between = { 0 };
	OWN_CERTS ignored = { 0 };
	struct spiffe_id id;

	TRY(auth_leaf_id(leaf, arena, &id, err));
	TRY(auth_check_leaf(leaf, err));
	if (strcmp(id.text, expected->id) != 0)
		return err_set(err, CODE_PERMISSION_DENIED, "unexpected ID \"%s\"", id.text);
	for (int i = 0; i < sk_X509_num(chain); i++) {
		X509 *cert = sk_X509_value(chain, i);

		if (cert == leaf)
			continue;
		X509_up_ref(cert);
		certs_add(&between, cert);
	}
	if (chain_verify(leaf, &between, &expected->roots, clock_wall_s(), &ignored, err) != CODE_OK)
		return err_wrap(err, CODE_PERMISSION_DENIED, "x509svid: could not verify leaf certificate");
	return CODE_OK;
}

/* --- fetching --- */

/* The stored bundles of the trust domain and of the endpoint's. NULL: none. */
static enum code read_stored(const struct poll *poll, const char *endpoint_td, Pb__Bundle **own, Pb__Bundle **endpoint,
			     struct err *err)
{
	OWN_STRUCT(view) view = NULL;
	enum code rc;

	TRY(view_open(poll->reader, &view, err));
	rc = view_bundle(view, poll->td, poll->arena, own, err);
	if (rc == CODE_NOT_FOUND)
		*own = NULL;
	else if (rc != CODE_OK)
		return err_wrap(err, rc, "failed to fetch local copy of bundle");
	if (endpoint_td == NULL)
		return CODE_OK;
	rc = view_bundle(view, endpoint_td, poll->arena, endpoint, err);
	if (rc == CODE_NOT_FOUND)
		return err_set(err, rc, "can't perform SPIFFE Authentication: local copy of bundle not found");
	return rc;
}

static enum code judge_failure(const struct poll *poll, const struct fetch_answer *answer, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	enum code rc = err->code;
	struct err ignored = { 0 };
	struct spiffe_id id;

	err_wrap(err, rc, "Get \"%s\"", poll->url);
	if (poll->endpoint_id == NULL && answer->unauthentic && answer->leaf_uri != NULL &&
	    id_parse(answer->leaf_uri, arena, &id, &ignored) == CODE_OK)
		return err_wrap(
			err, rc,
			"failed to authenticate bundle endpoint using web authentication but the server certificate "
			"contains SPIFFE ID \"%s\": maybe use https_spiffe instead of https_web",
			id.text);
	return err_wrap(err, rc, "failed to fetch bundle");
}

static enum code get_document(const struct poll *poll, struct expected *expected, struct fetch_answer *answer,
			      struct err *err)
{
	const struct fetch_request request = {
		.url = poll->url,
		.verify = poll->endpoint_id == NULL ? NULL : verify_endpoint,
		.ctx = expected,
		.max = DOCUMENT_MAX,
		.timeout_ms = FETCH_MS,
	};

	if (fetch(poll->fetcher, &request, answer, err) != CODE_OK)
		return judge_failure(poll, answer, err);
	if (answer->status != 200)
		return err_set(err, CODE_UNAVAILABLE, "unexpected status %d fetching bundle: %.*s", answer->status,
			       answer->body.len > SHOWN_MAX ? SHOWN_MAX : (int)answer->body.len,
			       answer->body.len == 0 ? "" : (const char *)answer->body.data);
	return CODE_OK;
}

/* --- judging --- */

static bool same_bytes(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool same_bundle(const Pb__Bundle *a, const Pb__Bundle *b)
{
	if (a->n_x509_authorities != b->n_x509_authorities || a->n_jwt_authorities != b->n_jwt_authorities ||
	    a->refresh_hint != b->refresh_hint || a->sequence_number != b->sequence_number)
		return false;
	for (size_t i = 0; i < a->n_x509_authorities; i++)
		if (!same_bytes(a->x509_authorities[i]->asn1, b->x509_authorities[i]->asn1))
			return false;
	for (size_t i = 0; i < a->n_jwt_authorities; i++)
		if (!same_bytes(a->jwt_authorities[i]->public_key, b->jwt_authorities[i]->public_key) ||
		    strcmp(a->jwt_authorities[i]->key_id, b->jwt_authorities[i]->key_id) != 0 ||
		    a->jwt_authorities[i]->expires_at != b->jwt_authorities[i]->expires_at)
			return false;
	return true;
}

static enum code read_document(const struct poll *poll, const struct fetch_answer *answer, const Pb__Bundle *stored,
			       Pb__Bundle **out, struct err *err)
{
	const char *text = answer->body.len == 0 ? "" : (const char *)answer->body.data;
	Pb__Bundle *bundle;

	TRY(jwks_read(text, answer->body.len, JWKS_FETCHED, poll->td, poll->arena, &bundle, err));
	if (bundle->n_x509_authorities + bundle->n_jwt_authorities == 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "the bundle holds no authority that is known here; the stored one stays");
	if (stored != NULL && bundle->sequence_number > 0 && bundle->sequence_number < stored->sequence_number)
		return err_set(
			err, CODE_FAILED_PRECONDITION,
			"the sequence number %" PRIu64 " is lower than that of the stored bundle, %" PRIu64
			": an old bundle is not taken. If the other side was set up anew, put its bundle in place with "
			"'bundle set -id %s'",
			bundle->sequence_number, stored->sequence_number, poll->td);
	*out = bundle;
	return CODE_OK;
}

/* Roots may say whose they are; what says otherwise is served on purpose or by mistake. SPIRE takes it, so do we. */
static void warn_of_others(const struct poll *poll, const Pb__Bundle *bundle)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		const uint8_t *at = bundle->x509_authorities[i]->asn1.data;
		OWN(X509) cert = d2i_X509(NULL, &at, (long)bundle->x509_authorities[i]->asn1.len);
		struct err ignored = { 0 };
		struct spiffe_id id;

		if (cert == NULL || auth_leaf_id(cert, arena, &id, &ignored) != CODE_OK || strcmp(id.td, poll->td) == 0)
			continue;
		log_warn("The bundle's X.509 authority names another trust domain", KV("trust_domain", poll->td),
			 KV("authority_trust_domain", id.td), KV("bundle_endpoint_url", poll->url),
			 KV("subsystem_name", "bundle_client"));
		return;
	}
	ERR_clear_error();
}

static enum code store_bundle(const struct poll *poll, Pb__Bundle *bundle, struct err *err)
{
	Pb__BundleSet set = PB__BUNDLE_SET__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;

	set.bundle = bundle;
	command.format = 1;
	command.kind_case = PB__COMMAND__KIND_BUNDLE_SET;
	command.bundle_set = &set;
	TRY(propose(poll->server->replica, &command, clock_mono_ms() + PROPOSE_MS, poll->arena, &outcome, err));
	if (outcome->code != CODE_OK)
		return err_set(err, (enum code)outcome->code, "%s", outcome->message);
	return CODE_OK;
}

static enum code fetch_bundle(const struct poll *poll, struct expected *expected, const Pb__Bundle *stored,
			      Pb__Bundle **out, struct err *err)
{
	OWN_FETCH_ANSWER answer = { 0 };

	TRY(get_document(poll, expected, &answer, err));
	return read_document(poll, &answer, stored, out, err);
}

static enum code poll_with(const struct poll *poll, struct expected *expected, bool *changed, Pb__Bundle **known,
			   struct err *err)
{
	Pb__Bundle *bundle, *endpoint = NULL;
	struct spiffe_id id = { 0 };
	enum code rc;

	if (poll->endpoint_id != NULL)
		TRY(id_parse(poll->endpoint_id, poll->arena, &id, err));
	TRY(read_stored(poll, id.td, known, &endpoint, err));
	expected->id = id.text;
	if (endpoint != NULL)
		add_roots(&expected->roots, endpoint);
	rc = fetch_bundle(poll, expected, *known, &bundle, err);
	if (rc != CODE_OK)
		return rc == CODE_CANCELLED ? rc : err_wrap(err, rc, "failed to fetch federated bundle from endpoint");
	if (*known != NULL && same_bundle(*known, bundle))
		return CODE_OK;
	warn_of_others(poll, bundle);
	rc = store_bundle(poll, bundle, err);
	if (rc != CODE_OK)
		return rc == CODE_CANCELLED ? rc : err_wrap(err, rc, "failed to store federated bundle");
	*changed = true;
	*known = bundle;
	return CODE_OK;
}

enum code poll_bundle(const struct poll *poll, bool *changed, Pb__Bundle **known, struct err *err)
{
	struct expected expected = { 0 };
	enum code rc;

	*changed = false;
	*known = NULL;
	rc = poll_with(poll, &expected, changed, known, err);
	certs_done(&expected.roots);
	return rc;
}

/* --- when again --- */

static int64_t shortest_life_s(const Pb__Bundle *bundle)
{
	int64_t shortest = INT64_MAX;

	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const uint8_t *at = bundle->x509_authorities[i]->asn1.data;
		OWN(X509) cert = d2i_X509(NULL, &at, (long)bundle->x509_authorities[i]->asn1.len);
		int days, seconds;
		int64_t life_s;

		if (cert == NULL ||
		    ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert), X509_get0_notAfter(cert)) != 1)
			continue;
		life_s = (int64_t)days * 86400 + seconds;
		if (life_s < shortest)
			shortest = life_s;
	}
	ERR_clear_error();
	return shortest;
}

int64_t poll_delay_ms(const Pb__Bundle *known, unsigned failures)
{
	const int64_t most_s = 30 * 86400;
	int64_t hint_s, regular_ms = UNKNOWN_S * 1000, retry_ms;

	if (known != NULL) {
		hint_s = known->refresh_hint > 0 ? known->refresh_hint : shortest_life_s(known) / LIFE_PART;
		hint_s = hint_s < HINT_LEAST_S ? HINT_LEAST_S : hint_s > most_s ? most_s : hint_s;
		regular_ms = hint_s * 1000 / LOOKS_A_HINT;
	}
	if (failures == 0)
		return regular_ms;
	retry_ms = failures > 20 ? INT64_MAX : (int64_t)LOOK_LEAST_MS << (failures - 1);
	return retry_ms < regular_ms ? retry_ms : regular_ms;
}
