/* SPDX-License-Identifier: Apache-2.0 */
/* A client's certificate at the handshake (contract server-api.md section 3). The authorities that it must lead to are
 * those of its trust domain's bundle, tainted ones too, parsed once a change: the cache below compares versions at each
 * handshake. It holds the own trust domain and those of `admin_ids`: others are refused before it is asked, so it does
 * not grow. */
#include "api/auth.h"

#include "api/server.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/own.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

OWNABLE(X509, X509_free)
OWNABLE(BIGNUM, BN_free)
OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)

/* --- authorities --- */

struct trust {
	char *td;
	uint64_t version; /* view_bundle_version */
	X509_STORE *roots;
	X509_STORE **each; /* every root alone, for those that cannot be told apart by name */
	size_t n_each;
	struct trust *next;
};

struct trust_cache {
	struct trust *first;
	X509_STORE_CTX *verify; /* used again and again */
};

struct trust_cache *trust_cache_new(void)
{
	struct trust_cache *cache = xcalloc(1, sizeof *cache);

	cache->verify = X509_STORE_CTX_new();
	if (cache->verify == NULL)
		abort();
	return cache;
}

static void drop_roots(struct trust *trust)
{
	X509_STORE_free(trust->roots);
	for (size_t i = 0; i < trust->n_each; i++)
		X509_STORE_free(trust->each[i]);
	free(trust->each);
	trust->roots = NULL;
	trust->each = NULL;
	trust->n_each = 0;
}

void trust_cache_free(struct trust_cache *cache)
{
	if (cache == NULL)
		return;
	while (cache->first != NULL) {
		struct trust *trust = cache->first;

		cache->first = trust->next;
		drop_roots(trust);
		free(trust->td);
		free(trust);
	}
	X509_STORE_CTX_free(cache->verify);
	free(cache);
}

static X509_STORE *new_store(void)
{
	X509_STORE *store = X509_STORE_new();

	if (store == NULL)
		abort();
	return store;
}

static void add_root(struct trust *trust, X509 *cert)
{
	X509_STORE_add_cert(trust->roots, cert);
	trust->each = xrealloc(trust->each, (trust->n_each + 1) * sizeof(X509_STORE *));
	trust->each[trust->n_each] = new_store();
	X509_STORE_add_cert(trust->each[trust->n_each++], cert);
}

/* Every certificate of the bundle that can be read: one element may hold several, or what is none (federated bundles
 * come from people); those are passed over. */
static void parse_roots(struct trust *trust, const Pb__Bundle *bundle)
{
	drop_roots(trust);
	trust->roots = new_store();
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const uint8_t *at = bundle->x509_authorities[i]->asn1.data;
		const uint8_t *end = at + bundle->x509_authorities[i]->asn1.len;

		while (at != end) {
			OWN(X509) cert = d2i_X509(NULL, &at, end - at);

			if (cert == NULL)
				break;
			add_root(trust, cert);
		}
	}
	ERR_clear_error();
}

static struct trust *find_trust(struct trust_cache *cache, const char *td)
{
	struct trust *trust;

	for (trust = cache->first; trust != NULL; trust = trust->next)
		if (strcmp(trust->td, td) == 0)
			return trust;
	trust = xcalloc(1, sizeof *trust);
	trust->td = xstrdup(td);
	trust->next = cache->first;
	cache->first = trust;
	return trust;
}

static enum code current_trust(struct api_loop *api, const char *td, struct arena *arena, struct trust **out,
			       struct err *err)
{
	struct trust *trust = find_trust(api->trust, td);
	OWN_STRUCT(view) view = NULL;
	Pb__Bundle *bundle;
	uint64_t version;

	TRY(view_open(api->reader, &view, err));
	TRY(view_bundle_version(view, td, &version, err));
	if (version == 0)
		return err_set(err, CODE_NOT_FOUND, "no X.509 bundle found for trust domain: \"%s\"", td);
	if (trust->roots == NULL || trust->version != version) {
		TRY(view_bundle(view, td, arena, &bundle, err));
		parse_roots(trust, bundle);
		trust->version = version;
	}
	*out = trust;
	return CODE_OK;
}

/* --- the leaf --- */

enum code auth_leaf_id(X509 *leaf, struct arena *arena, struct spiffe_id *out, struct err *err)
{
	OWN(GENERAL_NAMES) names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	const ASN1_IA5STRING *uri = NULL;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type != GEN_URI)
			continue;
		if (uri != NULL)
			return err_set(err, CODE_UNAUTHENTICATED, "certificate contains more than one URI SAN");
		uri = name->d.uniformResourceIdentifier;
	}
	if (uri == NULL)
		return err_set(err, CODE_UNAUTHENTICATED, "certificate contains no URI SAN");
	if (memchr(ASN1_STRING_get0_data(uri), '\0', (size_t)ASN1_STRING_length(uri)) != NULL)
		return err_set(err, CODE_UNAUTHENTICATED, "certificate has a malformed URI SAN");
	return id_parse(arena_strndup(arena, (const char *)ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri)),
			arena, out, err);
}

enum code auth_check_leaf(X509 *leaf, struct err *err)
{
	uint32_t flags = X509_get_extension_flags(leaf), usage = X509_get_key_usage(leaf);

	if (flags & EXFLAG_INVALID)
		return err_set(err, CODE_UNAUTHENTICATED, "leaf certificate has a malformed extension");
	if (flags & EXFLAG_CA)
		return err_set(err, CODE_UNAUTHENTICATED, "leaf certificate with CA flag set to true");
	if ((flags & EXFLAG_KUSAGE) && (usage & KU_KEY_CERT_SIGN))
		return err_set(err, CODE_UNAUTHENTICATED, "leaf certificate with KeyCertSign key usage");
	if ((flags & EXFLAG_KUSAGE) && (usage & KU_CRL_SIGN))
		return err_set(err, CODE_UNAUTHENTICATED, "leaf certificate with KeyCrlSign key usage");
	return CODE_OK;
}

/* --- the chain --- */

/* OpenSSL takes an intermediate without basicConstraints if its key usage says keyCertSign; SPIRE's verifier does not.
 */
static enum code check_intermediates(X509_STORE_CTX *verify, struct err *err)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(verify);

	for (int i = 1; i < sk_X509_num(chain) - 1; i++) {
		uint32_t flags = X509_get_extension_flags(sk_X509_value(chain, i));

		if (!(flags & EXFLAG_BCONS) || !(flags & EXFLAG_CA))
			return err_set(err, CODE_UNAUTHENTICATED, "intermediate certificate is no CA certificate");
	}
	return CODE_OK;
}

/* *same_name: it fails at a signature, so that another root of that name might have made it. */
static enum code check_with(X509_STORE_CTX *verify, X509_STORE *roots, X509 *leaf, STACK_OF(X509) * chain,
			    bool *same_name, struct err *err)
{
	X509_VERIFY_PARAM *param;
	enum code rc;
	int why;

	if (X509_STORE_CTX_init(verify, roots, leaf, chain) != 1)
		return err_set(err, CODE_INTERNAL, "cannot set up the verification of a certificate");
	param = X509_STORE_CTX_get0_param(verify);
	X509_VERIFY_PARAM_set_flags(param,
				    X509_V_FLAG_PARTIAL_CHAIN); /* a root is what the bundle says, self-signed or not */
	X509_VERIFY_PARAM_set_depth(param, LIMIT_CHAIN);
	X509_VERIFY_PARAM_set_time(param, (time_t)clock_wall_s());
	if (X509_verify_cert(verify) == 1) {
		rc = check_intermediates(verify, err);
	} else {
		why = X509_STORE_CTX_get_error(verify);
		*same_name = why == X509_V_ERR_CERT_SIGNATURE_FAILURE;
		rc = err_set(err, CODE_UNAUTHENTICATED, "x509: %s", X509_verify_cert_error_string(why));
	}
	X509_STORE_CTX_cleanup(verify);
	ERR_clear_error();
	return rc;
}

/* OpenSSL takes the first root that the issuer's name (and key id, if the leaf has one) fits; SPIRE's verifier tries
 * all. */
static enum code check_chain(X509_STORE_CTX *verify, const struct trust *trust, X509 *leaf, STACK_OF(X509) * chain,
			     struct err *err)
{
	bool same_name = false, ignored;
	enum code rc = check_with(verify, trust->roots, leaf, chain, &same_name, err);

	if (rc == CODE_OK || !same_name || trust->n_each < 2)
		return rc;
	for (size_t i = 0; i < trust->n_each; i++)
		if (check_with(verify, trust->each[i], leaf, chain, &ignored, NULL) == CODE_OK)
			return CODE_OK;
	return rc;
}

/* --- all together --- */

static int64_t unix_time(const ASN1_TIME *time)
{
	struct tm tm;

	return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static enum code read_leaf(X509 *leaf, struct auth_peer *out, struct err *err)
{
	OWN(BIGNUM) serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), NULL);
	char *text;

	if (serial == NULL || BN_num_bits(serial) > 200) /* RFC 5280: 20 octets; fits into out->serial */
		return err_set(err, CODE_UNAUTHENTICATED, "certificate has an oversized serial number");
	text = BN_bn2dec(serial);
	if (text == NULL)
		abort();
	snprintf(out->serial, sizeof out->serial, "%s", text);
	OPENSSL_free(text);
	out->not_before_s = unix_time(X509_get0_notBefore(leaf));
	out->not_after_s = unix_time(X509_get0_notAfter(leaf));
	return CODE_OK;
}

/* Members of our trust domain, and those whom the configuration names. */
static bool is_welcome(const struct server *server, const struct spiffe_id *id)
{
	const struct strings *ids = &server->config->admin_ids;

	if (strcmp(id->td, server->td) == 0)
		return true;
	for (size_t i = 0; i < ids->n; i++)
		if (strcmp(ids->items[i], id->text) == 0)
			return true;
	return false;
}

enum code auth_verify_client(struct api_loop *api, X509 *leaf, STACK_OF(X509) * chain, struct arena *arena,
			     struct auth_peer *out, struct err *err)
{
	struct auth_peer peer = { 0 };
	struct spiffe_id id;
	struct trust *trust;

	if (sk_X509_num(chain) > LIMIT_CHAIN)
		return err_set(err, CODE_UNAUTHENTICATED, "chain of more than %d certificates", LIMIT_CHAIN);
	TRY(auth_leaf_id(leaf, arena, &id, err));
	TRY(auth_check_leaf(leaf, err));
	if (!is_welcome(api->server, &id))
		return err_set(err, CODE_UNAUTHENTICATED, "unexpected ID \"%s\"", id.text);
	TRY(read_leaf(leaf, &peer, err));
	TRY(current_trust(api, id.td, arena, &trust, err));
	TRY(check_chain(api->trust->verify, trust, leaf, chain, err));
	peer.id = id.text;
	*out = peer;
	return CODE_OK;
}
