/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing the bundle document. Public keys go through OpenSSL in both directions, so a point that is not on
 * its curve gets nowhere. */
#include "api/jwks.h"

#include "api/pem.h"
#include "base/gotext.h"
#include "base/own.h"

#include <inttypes.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <string.h>

#define JOSE "go-jose/go-jose: "

OWNABLE(X509, X509_free)
OWNABLE(EVP_PKEY, EVP_PKEY_free)
OWNABLE(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
OWNABLE(OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
OWNABLE(OSSL_PARAM, OSSL_PARAM_free)
OWNABLE(BIGNUM, BN_free)

struct curve {
	const char *jose, *openssl;
	size_t width; /* bytes of a coordinate */
};

static const struct curve curves[] = {
	{ "P-256", "prime256v1", 32 },
	{ "P-384", "secp384r1", 48 },
	{ "P-521", "secp521r1", 66 },
};

/* ---- reading ---- */

/* One entry of `keys`, as far as a bundle needs it. */
struct jwk {
	const char *use, *kid;
	EVP_PKEY *key; /* NULL: oct */
	size_t n_certs;
	struct span cert; /* DER, the first of x5c */
};

static void jwk_done(struct jwk *jwk)
{
	EVP_PKEY_free(jwk->key);
}

#define OWN_JWK __attribute__((cleanup(jwk_done))) struct jwk

static enum code bad(struct err *err, const char *text)
{
	ERR_clear_error();
	return err_set(err, CODE_INVALID_ARGUMENT, "unable to parse JWKS: %s", text);
}

static enum code not_of_type(const struct json *value, const char *type, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT,
		       "unable to parse JWKS: json: cannot unmarshal %s into Go value of type %s",
		       json_kind_name(value), type);
}

/* A member that is a string, "" if it is absent or null. */
static enum code get_string(const struct json *entry, const char *name, const char **out, struct err *err)
{
	const struct json *value = json_get(entry, name);

	*out = "";
	if (value == NULL || value->kind == JSON_NULL)
		return CODE_OK;
	if (value->kind != JSON_STRING)
		return not_of_type(value, "string", err);
	if (strlen(value->text) != value->len)
		return bad(err, "a string holds a NUL");
	*out = value->text;
	return CODE_OK;
}

static size_t first_illegal(const char *text, bool url)
{
	static const char both[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	size_t at = 0;

	while (text[at] != '\0' && (strchr(both, text[at]) != NULL || strchr(url ? "-_" : "+/", text[at]) != NULL))
		at++;
	return at;
}

/* A member in base64url. `*there` tells an empty value from none. */
static enum code get_bytes(const struct json *entry, const char *name, struct buf *out, bool *there, struct err *err)
{
	const char *text;

	TRY(get_string(entry, name, &text, err));
	*there = text[0] != '\0';
	if (*there && !buf_unbase64(out, text, strlen(text), 1))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to parse JWKS: illegal base64 data at input byte %zu",
			       first_illegal(text, true));
	return CODE_OK;
}

/* x5c: every certificate is parsed, the first is kept. */
static enum code read_x5c(const struct json *entry, struct arena *arena, struct jwk *jwk, struct err *err)
{
	static const char failed[] = "unable to parse JWKS: " JOSE "failed to unmarshal x5c field";
	const struct json *list = json_get(entry, "x5c");

	if (list == NULL || list->kind == JSON_NULL)
		return CODE_OK;
	if (list->kind != JSON_ARRAY)
		return not_of_type(list, "[]string", err);
	for (const struct json *item = list->first; item != NULL; item = item->next) {
		OWN_BUF der = { 0 };

		if (item->kind != JSON_STRING)
			return not_of_type(item, "string", err);
		if (!buf_unbase64(&der, item->text, item->len, 0))
			return err_set(err, CODE_INVALID_ARGUMENT, "%s: illegal base64 data at input byte %zu", failed,
				       first_illegal(item->text, false));
		if (pem_check_cert((struct span){ der.data, der.len }, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, failed);
		if (jwk->n_certs++ == 0)
			jwk->cert = (struct span){ arena_memdup(arena, der.data, der.len), der.len };
	}
	return CODE_OK;
}

/* A public key of numbers. NULL: they make none. */
static EVP_PKEY *key_of(const char *type, OSSL_PARAM *params)
{
	OWN(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	if (ctx == NULL || params == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
		return NULL;
	return key;
}

static enum code read_ec(const struct json *entry, struct jwk *jwk, struct err *err)
{
	const struct curve *curve = NULL;
	OWN(OSSL_PARAM_BLD) build = OSSL_PARAM_BLD_new();
	OWN(OSSL_PARAM) params = NULL;
	OWN_BUF x = { 0 };
	OWN_BUF y = { 0 };
	OWN_BUF point = { 0 };
	bool has_x, has_y;
	const char *crv;

	TRY(get_string(entry, "crv", &crv, err));
	TRY(get_bytes(entry, "x", &x, &has_x, err));
	TRY(get_bytes(entry, "y", &y, &has_y, err));
	for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
		if (strcmp(crv, curves[i].jose) == 0)
			curve = &curves[i];
	if (curve == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to parse JWKS: " JOSE "unsupported elliptic curve '%s'", crv);
	if (!has_x || !has_y)
		return bad(err, JOSE "invalid EC key, missing x/y values");
	if (x.len != curve->width)
		return bad(err, JOSE "invalid EC public key, wrong length for x");
	if (y.len != curve->width)
		return bad(err, JOSE "invalid EC public key, wrong length for y");
	buf_put(&point, 4); /* uncompressed */
	buf_append(&point, x.data, x.len);
	buf_append(&point, y.data, y.len);
	OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curve->openssl, 0);
	OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point.data, point.len);
	params = OSSL_PARAM_BLD_to_param(build);
	jwk->key = key_of("EC", params);
	if (jwk->key == NULL)
		return bad(err, JOSE "invalid EC key, X/Y are not on declared curve");
	return CODE_OK;
}

static enum code read_rsa(const struct json *entry, struct jwk *jwk, struct err *err)
{
	OWN(OSSL_PARAM_BLD) build = OSSL_PARAM_BLD_new();
	OWN(OSSL_PARAM) params = NULL;
	OWN(BIGNUM) modulus = NULL;
	OWN(BIGNUM) exponent = NULL;
	OWN_BUF n = { 0 };
	OWN_BUF e = { 0 };
	bool has_n, has_e;

	TRY(get_bytes(entry, "n", &n, &has_n, err));
	TRY(get_bytes(entry, "e", &e, &has_e, err));
	if (!has_n || !has_e)
		return bad(err, JOSE "invalid RSA key, missing n/e values");
	if (n.len > 2048 || e.len > 8) /* 16384 bits, what OpenSSL verifies at most */
		return bad(err, "RSA key is too large");
	modulus = BN_bin2bn(n.data, (int)n.len, NULL);
	exponent = BN_bin2bn(e.data, (int)e.len, NULL);
	OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus);
	OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent);
	params = OSSL_PARAM_BLD_to_param(build);
	jwk->key = key_of("RSA", params);
	if (jwk->key == NULL)
		return bad(err, "invalid RSA key");
	return CODE_OK;
}

static enum code read_okp(const struct json *entry, struct jwk *jwk, struct err *err)
{
	OWN_BUF x = { 0 };
	const char *crv;
	bool has_x;

	TRY(get_string(entry, "crv", &crv, err));
	TRY(get_bytes(entry, "x", &x, &has_x, err));
	if (strcmp(crv, "Ed25519") != 0)
		return bad(err, JOSE "unsupported key type/format");
	if (!has_x)
		return bad(err, JOSE "invalid Ed key, missing x value");
	jwk->key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x.data, x.len);
	if (jwk->key == NULL)
		return bad(err, JOSE "invalid Ed key");
	return CODE_OK;
}

static enum code read_oct(const struct json *entry, struct jwk *jwk __attribute__((unused)), struct err *err)
{
	OWN_BUF k = { 0 };
	bool has_k;

	TRY(get_bytes(entry, "k", &k, &has_k, err));
	if (!has_k)
		return bad(err, JOSE "invalid OCT (symmetric) key, missing k value");
	return CODE_OK;
}

static const struct {
	const char *kty;
	enum code (*read)(const struct json *entry, struct jwk *jwk, struct err *err);
} key_types[] = {
	{ "EC", read_ec },
	{ "RSA", read_rsa },
	{ "OKP", read_okp },
	{ "oct", read_oct },
};

static enum code read_key(const struct json *entry, struct jwk *jwk, struct err *err)
{
	const char *kty;

	TRY(get_string(entry, "kty", &kty, err));
	if (kty[0] == '\0')
		return bad(err, JOSE "missing json web key type");
	if (json_get(entry, "d") != NULL)
		return bad(err, "a key of the bundle is a private key");
	for (size_t i = 0; i < sizeof key_types / sizeof key_types[0]; i++)
		if (strcmp(kty, key_types[i].kty) == 0)
			return key_types[i].read(entry, jwk, err);
	return bad(err, JOSE "unsupported key type/format");
}

/* Members of one key must differ, as its names count byte for byte there. Few members: each is looked up. */
static enum code check_names(const struct json *entry, struct err *err)
{
	if (entry->n > 64)
		return bad(err, "a key has too many members");
	for (const struct json *member = entry->first; member != NULL; member = member->next)
		if (strlen(member->name) == member->name_len && json_get(entry, member->name) != member)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "unable to parse JWKS: json: duplicate key '%s' in object", member->name);
	return CODE_OK;
}

/* The key of the entry and that of its certificate are the same. */
static enum code check_match(const struct jwk *jwk, struct err *err)
{
	const uint8_t *at = jwk->cert.data;
	OWN(X509) cert = NULL;

	if (jwk->n_certs == 0)
		return CODE_OK;
	cert = d2i_X509(NULL, &at, (long)jwk->cert.len);
	if (cert == NULL || jwk->key == NULL || X509_get0_pubkey(cert) == NULL ||
	    EVP_PKEY_eq(X509_get0_pubkey(cert), jwk->key) != 1)
		return bad(err, JOSE "invalid JWK, public keys in key and x5c fields do not match");
	return CODE_OK;
}

static enum code read_jwk(const struct json *entry, struct arena *arena, struct jwk *jwk, struct err *err)
{
	const char *alg;

	if (entry->kind == JSON_NULL)
		return bad(err, JOSE "missing json web key type");
	if (entry->kind != JSON_OBJECT)
		return not_of_type(entry, "jose.rawJSONWebKey", err);
	TRY(check_names(entry, err));
	TRY(get_string(entry, "use", &jwk->use, err));
	TRY(get_string(entry, "kid", &jwk->kid, err));
	TRY(get_string(entry, "alg", &alg, err)); /* not used, but it has to be one */
	TRY(read_x5c(entry, arena, jwk, err));
	TRY(read_key(entry, jwk, err));
	return check_match(jwk, err);
}

static void add_cert(Pb__Bundle *bundle, struct span der, struct arena *arena)
{
	Pb__X509Certificate *cert;

	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const Pb__X509Certificate *known = bundle->x509_authorities[i];

		if (known->asn1.len == der.len && memcmp(known->asn1.data, der.data, der.len) == 0)
			return;
	}
	cert = arena_alloc(arena, sizeof *cert);
	pb__x509_certificate__init(cert);
	cert->asn1.data = (uint8_t *)der.data;
	cert->asn1.len = der.len;
	bundle->x509_authorities[bundle->n_x509_authorities++] = cert;
}

static enum code add_key(Pb__Bundle *bundle, const struct jwk *jwk, struct arena *arena, struct err *err)
{
	uint8_t *der = NULL;
	int len = jwk->key != NULL ? i2d_PUBKEY(jwk->key, &der) : -1;
	Pb__JWTKey *key = NULL;

	ERR_clear_error();
	if (len <= 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: unsupported public key type: []uint8");
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		if (strcmp(bundle->jwt_authorities[i]->key_id, jwk->kid) == 0)
			key = bundle->jwt_authorities[i];
	if (key == NULL) {
		key = arena_alloc(arena, sizeof *key);
		bundle->jwt_authorities[bundle->n_jwt_authorities++] = key;
	}
	pb__jwtkey__init(key);
	key->key_id = jwk->kid;
	key->public_key.data = arena_memdup(arena, der, (size_t)len);
	key->public_key.len = (size_t)len;
	OPENSSL_free(der);
	return CODE_OK;
}

static enum code no_kid(size_t index, enum jwks_rules rules, struct err *err)
{
	if (rules != JWKS_GO_SPIFFE)
		return err_set(err, CODE_INVALID_ARGUMENT, "missing key ID in jwt-svid entry %zu", index);
	return err_set(err, CODE_INVALID_ARGUMENT, "error adding authority %zu of JWKS: keyID cannot be empty", index);
}

static enum code other_use(const char *use, size_t index, enum jwks_rules rules, struct err *err)
{
	OWN_BUF quoted = { 0 };

	if (rules != JWKS_SPIRE)
		return CODE_OK;
	if (use[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "missing use for key entry %zu", index);
	go_quote(&quoted, use);
	return err_set(err, CODE_INVALID_ARGUMENT, "unrecognized use %s for key entry %zu", buf_text(&quoted), index);
}

static enum code add_entry(Pb__Bundle *bundle, const struct jwk *jwk, size_t index, enum jwks_rules rules,
			   struct arena *arena, struct err *err)
{
	if (strcmp(jwk->use, "x509-svid") == 0) {
		if (jwk->n_certs != 1)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "expected a single certificate in x509-svid entry %zu; got %zu", index,
				       jwk->n_certs);
		add_cert(bundle, jwk->cert, arena);
		return CODE_OK;
	}
	if (strcmp(jwk->use, "jwt-svid") == 0)
		return jwk->kid[0] == '\0' ? no_kid(index, rules, err) : add_key(bundle, jwk, arena, err);
	return other_use(jwk->use, index, rules, err);
}

/* What the standard lets a reader pass over: it may be meant for others. */
static bool is_foreign(const struct json *entry)
{
	const char *use, *kty;

	if (entry->kind != JSON_OBJECT || get_string(entry, "use", &use, NULL) != CODE_OK ||
	    get_string(entry, "kty", &kty, NULL) != CODE_OK)
		return false; /* malformed: the reader says so */
	if (strcmp(use, "x509-svid") != 0 && strcmp(use, "jwt-svid") != 0)
		return true;
	for (size_t i = 0; i < sizeof key_types / sizeof key_types[0]; i++)
		if (strcmp(kty, key_types[i].kty) == 0)
			return false;
	return kty[0] != '\0';
}

/* Every key must be readable before the first is judged by its use, as the whole document is parsed first. */
static enum code read_keys(const struct json *keys, enum jwks_rules rules, Pb__Bundle *bundle, struct arena *arena,
			   struct err *err)
{
	struct err first = { 0 };
	size_t index = 0;

	if (keys == NULL || keys->kind == JSON_NULL) {
		if (rules == JWKS_GO_SPIFFE)
			return err_set(err, CODE_INVALID_ARGUMENT, "no authorities found");
		return CODE_OK;
	}
	if (keys->kind != JSON_ARRAY)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to parse JWKS: json: cannot unmarshal %s into Go struct field "
			       "bundleDoc.JSONWebKeySet.keys of type []jose.JSONWebKey",
			       json_kind_name(keys));
	bundle->x509_authorities = arena_alloc(arena, keys->n * sizeof *bundle->x509_authorities);
	bundle->jwt_authorities = arena_alloc(arena, keys->n * sizeof *bundle->jwt_authorities);
	for (const struct json *entry = keys->first; entry != NULL; entry = entry->next, index++) {
		OWN_JWK jwk = { 0 };

		if (rules == JWKS_FETCHED && is_foreign(entry))
			continue;
		TRY(read_jwk(entry, arena, &jwk, err));
		if (first.code == CODE_OK)
			(void)add_entry(bundle, &jwk, index, rules, arena, &first);
	}
	if (first.code != CODE_OK)
		return err_set(err, first.code, "%s", first.text);
	return CODE_OK;
}

static enum code bad_number(const struct json *value, const char *name, const char *type, struct err *err)
{
	return err_set(
		err, CODE_INVALID_ARGUMENT,
		"unable to parse JWKS: json: cannot unmarshal %s%s%s into Go struct field bundleDoc.%s of type %s",
		json_kind_name(value), value->kind == JSON_NUMBER ? " " : "",
		value->kind == JSON_NUMBER ? value->text : "", name, type);
}

static enum code read_numbers(const struct json *doc, enum jwks_rules rules, Pb__Bundle *bundle, struct err *err)
{
	static const char sequence_name[] = "spiffe_sequence", hint_name[] = "spiffe_refresh_hint";
	const struct json *sequence = json_find(doc, sequence_name), *hint = json_find(doc, hint_name);
	uint64_t number = 0;

	if (sequence != NULL && sequence->kind != JSON_NULL && !json_uint64(sequence, &number))
		return bad_number(sequence, sequence_name, "uint64", err);
	if (rules != JWKS_SPIRE)
		bundle->sequence_number = number;
	if (hint != NULL && hint->kind != JSON_NULL && !json_int64(hint, &bundle->refresh_hint))
		return bad_number(hint, hint_name, "int64", err);
	return CODE_OK;
}

/* The JSON layer's refusals carry "unable to parse JWKS" with both readers; SPIRE's own reader has another prefix
 * there. */
static enum code reworded(enum code rc, enum jwks_rules rules, struct err *err)
{
	static const char before[] = "unable to parse JWKS: ";
	size_t len = sizeof before - 1;

	if (rc != CODE_OK && err != NULL && rules != JWKS_GO_SPIFFE && strncmp(err->text, before, len) == 0)
		return err_set(err, rc, "failed to decode bundle: %s", err->text + len);
	return rc;
}

static enum code read_doc(const struct json *doc, enum jwks_rules rules, const char *trust_domain, struct arena *arena,
			  Pb__Bundle **out, struct err *err)
{
	Pb__Bundle *bundle = arena_alloc(arena, sizeof *bundle);

	pb__bundle__init(bundle);
	bundle->trust_domain = arena_strdup(arena, trust_domain);
	if (doc->kind != JSON_OBJECT && doc->kind != JSON_NULL)
		return not_of_type(doc, rules != JWKS_GO_SPIFFE ? "bundleutil.bundleDoc" : "spiffebundle.bundleDoc",
				   err);
	TRY(read_numbers(doc, rules, bundle, err));
	TRY(read_keys(json_find(doc, "keys"), rules, bundle, arena, err));
	*out = bundle;
	return CODE_OK;
}

enum code jwks_read_json(const struct json *doc, enum jwks_rules rules, const char *trust_domain, struct arena *arena,
			 Pb__Bundle **out, struct err *err)
{
	struct err own = { 0 };

	if (err == NULL)
		err = &own;
	return reworded(read_doc(doc, rules, trust_domain, arena, out, err), rules, err);
}

enum code jwks_read(const char *text, size_t len, enum jwks_rules rules, const char *trust_domain, struct arena *arena,
		    Pb__Bundle **out, struct err *err)
{
	struct err own = { 0 };
	const struct json *doc;

	if (err == NULL)
		err = &own;
	if (json_parse(text, len, arena, &doc, err) != CODE_OK) {
		err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse JWKS");
		return reworded(CODE_INVALID_ARGUMENT, rules, err);
	}
	return jwks_read_json(doc, rules, trust_domain, arena, out, err);
}

/* ---- writing ---- */

static void put_member(struct buf *out, const char *name, bool first)
{
	buf_printf(out, "%s\n            \"%s\": ", first ? "" : ",", name);
}

static enum code put_number(struct buf *out, const char *name, EVP_PKEY *key, const char *param, size_t width,
			    struct err *err)
{
	uint8_t bytes[2048];
	BIGNUM *number = NULL;
	OWN(BIGNUM) held = NULL;
	int len;

	if (EVP_PKEY_get_bn_param(key, param, &number) != 1)
		number = NULL;
	held = number;
	if (width == 0 && number != NULL)
		width = (size_t)BN_num_bytes(number);
	len = number != NULL && width <= sizeof bytes ? BN_bn2binpad(number, bytes, (int)width) : -1;
	if (len < 0) {
		ERR_clear_error();
		return err_set(err, CODE_INTERNAL, "public key has no usable '%s'", name);
	}
	put_member(out, name, false);
	buf_put(out, '"');
	buf_base64(out, bytes, (size_t)len, 1);
	buf_put(out, '"');
	return CODE_OK;
}

static const struct curve *curve_of(EVP_PKEY *key)
{
	char name[64];
	size_t len;

	if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, name, sizeof name, &len) == 1)
		for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
			if (strcmp(name, curves[i].openssl) == 0)
				return &curves[i];
	ERR_clear_error();
	return NULL;
}

static void put_kid(struct buf *out, const char *kid)
{
	if (kid[0] == '\0')
		return;
	put_member(out, "kid", false);
	json_put_string(out, kid);
}

static enum code put_key(struct buf *out, EVP_PKEY *key, const char *kid, struct err *err)
{
	const struct curve *curve = NULL;
	uint8_t raw[32];
	size_t len = sizeof raw;

	put_member(out, "kty", false);
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		buf_puts(out, "\"RSA\"");
		put_kid(out, kid);
		TRY(put_number(out, "n", key, OSSL_PKEY_PARAM_RSA_N, 0, err));
		return put_number(out, "e", key, OSSL_PKEY_PARAM_RSA_E, 0, err);
	case EVP_PKEY_EC:
		curve = curve_of(key);
		if (curve == NULL)
			break;
		buf_puts(out, "\"EC\"");
		put_kid(out, kid);
		put_member(out, "crv", false);
		buf_printf(out, "\"%s\"", curve->jose);
		TRY(put_number(out, "x", key, OSSL_PKEY_PARAM_EC_PUB_X, curve->width, err));
		return put_number(out, "y", key, OSSL_PKEY_PARAM_EC_PUB_Y, curve->width, err);
	case EVP_PKEY_ED25519:
		if (EVP_PKEY_get_raw_public_key(key, raw, &len) != 1)
			break;
		buf_puts(out, "\"OKP\"");
		put_kid(out, kid);
		put_member(out, "crv", false);
		buf_puts(out, "\"Ed25519\"");
		put_member(out, "x", false);
		buf_put(out, '"');
		buf_base64(out, raw, len, 1);
		buf_put(out, '"');
		return CODE_OK;
	default:
		break;
	}
	return err_set(err, CODE_INTERNAL, "a public key of this type has no form as JWK");
}

static void open_entry(struct buf *out, bool first, const char *use)
{
	buf_puts(out, first ? "[\n        {" : ",\n        {");
	put_member(out, "use", true);
	buf_printf(out, "\"%s\"", use);
}

/* X509Certificate.asn1 may hold several certificates, each is an entry. */
static enum code put_certs(struct buf *out, const Pb__X509Certificate *certs, size_t *n, struct err *err)
{
	const uint8_t *at = certs->asn1.data, *end = at + certs->asn1.len;

	do {
		const uint8_t *from = at;
		OWN(X509) cert = d2i_X509(NULL, &at, (long)(end - at));

		if (cert == NULL || X509_get0_pubkey(cert) == NULL) {
			ERR_clear_error();
			return err_set(err, CODE_INTERNAL, "unable to parse root CA %zu: x509: malformed certificate",
				       *n);
		}
		open_entry(out, (*n)++ == 0, "x509-svid");
		TRY(put_key(out, X509_get0_pubkey(cert), "", err));
		put_member(out, "x5c", false);
		buf_puts(out, "[\n                \"");
		buf_base64(out, from, (size_t)(at - from), 0);
		buf_puts(out, "\"\n            ]\n        }");
	} while (at < end);
	return CODE_OK;
}

static enum code put_jwt_key(struct buf *out, const Pb__JWTKey *jwt, size_t *n, struct err *err)
{
	const uint8_t *at = jwt->public_key.data;
	OWN(EVP_PKEY) key = d2i_PUBKEY(NULL, &at, (long)jwt->public_key.len);

	if (key == NULL || at != jwt->public_key.data + jwt->public_key.len) {
		ERR_clear_error();
		return err_set(err, CODE_INTERNAL, "unable to parse JWT signing key '%s'", jwt->key_id);
	}
	open_entry(out, (*n)++ == 0, "jwt-svid");
	TRY(put_key(out, key, jwt->key_id, err));
	buf_puts(out, "\n        }");
	return CODE_OK;
}

enum code jwks_write(const Pb__Bundle *bundle, enum jwks_rules rules, struct buf *out, struct err *err)
{
	size_t n = 0;

	buf_puts(out, "{\n    \"keys\": ");
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		TRY(put_certs(out, bundle->x509_authorities[i], &n, err));
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		TRY(put_jwt_key(out, bundle->jwt_authorities[i], &n, err));
	if (n > 0)
		buf_puts(out, "\n    ]");
	else
		buf_puts(out, rules == JWKS_GO_SPIFFE ? "null" : "[]");
	if (bundle->sequence_number > 0)
		buf_printf(out, ",\n    \"spiffe_sequence\": %" PRIu64, bundle->sequence_number);
	if (bundle->refresh_hint > 0)
		buf_printf(out, ",\n    \"spiffe_refresh_hint\": %" PRId64, bundle->refresh_hint);
	buf_puts(out, "\n}");
	return CODE_OK;
}
