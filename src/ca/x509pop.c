/* SPDX-License-Identifier: Apache-2.0 */
/* Node attestation by certificate. Begin reads everything that will be needed out of the leaf into the arena, so that
 * an attempt between challenge and response holds no object of OpenSSL's and may simply be forgotten. */

#include "ca/x509pop.h"

#include "base/gotext.h"
#include "base/id.h"
#include "base/rand.h"
#include "ca/chain.h"
#include "ca/name.h"
#include "ca/pubkey.h"
#include "ca/signer.h"
#include "ca/template.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	NONCE_LEN = 32,
	DEFAULT_INTERMEDIATES = 4,
	DEFAULT_RSA_BITS = 8192,
	JSON_DEPTH_MAX = 16,
};

OWNABLE(X509, X509_free)
OWNABLE(BIGNUM, BN_free)
OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)
OWNABLE(json_t, json_decref)

struct x509pop {
	char *trust_domain;
	bool spiffe;  /* mode */
	char *prefix; /* of paths in mode "spiffe", with a slash at the end */
	struct certs roots;
	struct template *path;
	int max_intermediates, max_rsa_key_size;
	bool verify_client_ip;
};

/* ---- what a template may name ---- */

struct pair {
	const char *key, *value;
};

struct texts {
	const char **list;
	size_t n;
};

struct facts { /* of the leaf */
	const char *trust_domain, *fingerprint, *serial_hex, *serial, *svid_path;
	struct name subject, issuer;
	struct texts uris, dns_names, emails, ips;
	struct pair *sans; /* from x509pop:// URIs; of a key that occurs twice the last value */
	size_t n_sans;
};

#define NAME_FIELDS(who)                                                                                               \
	{ who ".Country", true, false }, { who ".Province", true, false }, { who ".Locality", true, false },           \
		{ who ".StreetAddress", true, false }, { who ".PostalCode", true, false },                             \
		{ who ".Organization", true, false }, { who ".OrganizationalUnit", true, false },                      \
		{ who ".CommonName", false, false },                                                                   \
	{                                                                                                              \
		who ".SerialNumber", false, false                                                                      \
	}

enum field {
	FIELD_SUBJECT, /* and on: the parts in the order of enum name_part */
	FIELD_ISSUER = FIELD_SUBJECT + NAME_PARTS,
	FIELD_PLUGIN_NAME = FIELD_ISSUER + NAME_PARTS,
	FIELD_TRUST_DOMAIN,
	FIELD_FINGERPRINT,
	FIELD_SERIAL_HEX,
	FIELD_SERIAL,
	FIELD_SVID_PATH,
	FIELD_DNS_NAMES,
	FIELD_EMAILS,
	FIELD_SANS,
};

static const struct template_field fields[] = {
	NAME_FIELDS("Subject"),
	NAME_FIELDS("Issuer"),
	{ "PluginName", false, false },
	{ "TrustDomain", false, false },
	{ "Fingerprint", false, false },
	{ "SerialNumberHex", false, false },
	{ "SerialNumber", false, false },
	{ "SVIDPathTrimmed", false, false },
	{ "DNSNames", true, false },
	{ "EmailAddresses", true, false },
	{ "URISanSelectors", false, true },
};

static void look_up_name(const struct name *name, enum name_part part, struct arena *arena, struct template_value *out)
{
	const char **list;
	size_t n = 0;

	for (const struct name_value *value = name->first[part]; value != NULL; value = value->next)
		n++;
	list = arena_alloc(arena, n * sizeof *list);
	out->list = list;
	for (const struct name_value *value = name->first[part]; value != NULL; value = value->next)
		list[out->n++] = arena_strndup(arena, (const char *)value->text.data, value->text.len);
	if (n > 0)
		out->text = list[0];
}

static bool look_up(const void *data, size_t field, const char *key, struct arena *arena, struct template_value *out)
{
	const struct facts *facts = data;

	*out = (struct template_value){ 0 };
	if (field < FIELD_PLUGIN_NAME) {
		look_up_name(field < FIELD_ISSUER ? &facts->subject : &facts->issuer,
			     (enum name_part)(field % NAME_PARTS), arena, out);
		return true;
	}
	switch ((enum field)field) {
	case FIELD_PLUGIN_NAME:
		out->text = "x509pop";
		return true;
	case FIELD_TRUST_DOMAIN:
		out->text = facts->trust_domain;
		return true;
	case FIELD_FINGERPRINT:
		out->text = facts->fingerprint;
		return true;
	case FIELD_SERIAL_HEX:
		out->text = facts->serial_hex;
		return true;
	case FIELD_SERIAL:
		out->text = facts->serial;
		return true;
	case FIELD_SVID_PATH:
		out->text = facts->svid_path;
		return true;
	case FIELD_DNS_NAMES:
		*out = (struct template_value){ .list = facts->dns_names.list, .n = facts->dns_names.n };
		return true;
	case FIELD_EMAILS:
		*out = (struct template_value){ .list = facts->emails.list, .n = facts->emails.n };
		return true;
	default:
		break;
	}
	for (size_t i = 0; i < facts->n_sans; i++) {
		if (strcmp(facts->sans[i].key, key) == 0) {
			out->text = facts->sans[i].value;
			return true;
		}
	}
	return false;
}

/* ---- the configuration ---- */

static bool given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static enum code load_roots(struct x509pop *pop, const struct x509pop_options *options, struct err *err)
{
	const char *const *paths = options->ca_bundle_paths;
	size_t n = options->n_ca_bundle_paths;

	if (given(options->ca_bundle_path) && n > 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "only one of ca_bundle_path or ca_bundle_paths can be configured, not both");
	if (given(options->ca_bundle_path)) {
		paths = &options->ca_bundle_path;
		n = 1;
	}
	if (n == 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "one of ca_bundle_path or ca_bundle_paths must be configured");
	for (size_t i = 0; i < n; i++)
		if (certs_load(paths[i], &pop->roots, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load trust bundle \"%s\"", paths[i]);
	return CODE_OK;
}

static enum code set_template(struct x509pop *pop, const char *text, struct err *err)
{
	OWN_BUF quoted = { 0 };

	if (!given(text))
		text = pop->spiffe ? "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}"
				   : "/{{ .PluginName }}/{{ .Fingerprint }}";
	if (template_new(text, fields, sizeof fields / sizeof *fields, &pop->path, err) == CODE_OK)
		return CODE_OK;
	go_quote(&quoted, text);
	return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse agent svid template: %s", buf_text(&quoted));
}

enum code x509pop_open(const struct x509pop_options *options, struct x509pop **out, struct err *err)
{
	OWN_STRUCT(x509pop) pop = xcalloc(1, sizeof *pop);
	const char *prefix = options->spiffe_prefix == NULL ? "/spire-exchange" : options->spiffe_prefix;
	OWN_BUF whole = { 0 };

	if (given(options->mode) && strcmp(options->mode, "external_pki") != 0 && strcmp(options->mode, "spiffe") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "mode can only be either spiffe or external_pki");
	pop->spiffe = given(options->mode) && strcmp(options->mode, "spiffe") == 0;
	if (pop->spiffe && (given(options->ca_bundle_path) || options->n_ca_bundle_paths > 0))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "you can not use ca_bundle_path or ca_bundle_paths in spiffe mode");
	if (!pop->spiffe)
		TRY(load_roots(pop, options, err));
	if (options->max_intermediates < 0 || options->max_rsa_key_size < 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "max_intermediates and max_rsa_key_size must not be negative");
	TRY(set_template(pop, options->agent_path_template, err));
	buf_puts(&whole, prefix);
	if (prefix[0] == '\0' || prefix[strlen(prefix) - 1] != '/')
		buf_put(&whole, '/');
	pop->prefix = xstrdup(buf_text(&whole));
	pop->trust_domain = xstrdup(options->trust_domain);
	pop->max_intermediates = options->max_intermediates == 0 ? DEFAULT_INTERMEDIATES : options->max_intermediates;
	pop->max_rsa_key_size = options->max_rsa_key_size == 0 ? DEFAULT_RSA_BITS : options->max_rsa_key_size;
	pop->verify_client_ip = options->verify_client_ip;
	*out = TAKE(pop);
	return CODE_OK;
}

void x509pop_close(struct x509pop *pop)
{
	if (pop == NULL)
		return;
	free(pop->trust_domain);
	free(pop->prefix);
	certs_done(&pop->roots);
	template_free(pop->path);
	free(pop);
}

bool x509pop_wants_bundle(const struct x509pop *pop)
{
	return pop->spiffe;
}

/* ---- the payload ---- */

/* The JSON reader recurses, and this runs on a task's small stack. Ours nest three deep. */
static bool too_deep(struct span text)
{
	bool quoted = false;
	int depth = 0;

	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];

		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '{' || c == '[') && ++depth > JSON_DEPTH_MAX)
			return true;
		else if (!quoted && (c == '}' || c == ']'))
			depth--;
	}
	return false;
}

static enum code read_json(struct span text, const char *what, json_t **out, struct err *err)
{
	json_error_t problem;
	json_t *root;

	if (too_deep(text))
		return err_set(err, CODE_INVALID_ARGUMENT, "%s: exceeded max depth", what);
	root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &problem);
	if (root == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "%s: %s", what,
			       text.len == 0 ? "unexpected end of JSON input" : problem.text);
	if (!json_is_object(root)) {
		json_decref(root);
		return err_set(err, CODE_INVALID_ARGUMENT, "%s: it is not an object", what);
	}
	*out = root;
	return CODE_OK;
}

/* A member in base64. Absent or null: no bytes. */
static enum code read_bytes(const json_t *value, const char *what, const char *name, struct buf *out, struct err *err)
{
	if (value == NULL || json_is_null(value))
		return CODE_OK;
	if (!json_is_string(value) || !buf_unbase64(out, json_string_value(value), json_string_length(value), 0))
		return err_set(err, CODE_INVALID_ARGUMENT, "%s: \"%s\" is not base64", what, name);
	return CODE_OK;
}

struct payload {
	X509 *leaf;
	struct span leaf_der; /* in the arena */
	struct certs intermediates;
};

static void payload_done(struct payload *payload)
{
	X509_free(payload->leaf);
	certs_done(&payload->intermediates);
}

static enum code check_key_size(const struct x509pop *pop, X509 *cert, size_t index, struct err *err)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);

	if (key == NULL || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_get_bits(key) <= pop->max_rsa_key_size)
		return CODE_OK;
	if (index == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "leaf certificate key size too large");
	return err_set(err, CODE_INVALID_ARGUMENT, "intermediate certificate %zu key size too large", index - 1);
}

static enum code read_cert(const struct x509pop *pop, const json_t *value, size_t index, struct arena *arena,
			   struct payload *out, struct err *err)
{
	OWN_BUF der = { 0 };
	OWN(X509) cert = NULL;

	TRY(read_bytes(value, "failed to unmarshal data", "certificates", &der, err));
	if (cert_parse((struct span){ der.data, der.len }, &cert, err) != CODE_OK)
		return index == 0 ? err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse leaf certificate")
				  : err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse intermediate certificate %zu",
					     index - 1);
	TRY(check_key_size(pop, cert, index, err));
	if (index == 0) {
		out->leaf_der = (struct span){ arena_memdup(arena, der.data, der.len), der.len };
		out->leaf = TAKE(cert);
	} else {
		certs_add(&out->intermediates, TAKE(cert));
	}
	return CODE_OK;
}

static enum code read_payload(const struct x509pop *pop, struct span text, struct arena *arena, struct payload *out,
			      struct err *err)
{
	OWN(json_t) root = NULL;
	const json_t *list;

	TRY(read_json(text, "failed to unmarshal data", &root, err));
	list = json_object_get(root, "certificates");
	if (list != NULL && !json_is_null(list) && !json_is_array(list))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "failed to unmarshal data: \"certificates\" is not an array");
	if (list == NULL || json_array_size(list) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "no certificate to attest");
	if (json_array_size(list) - 1 > (size_t)pop->max_intermediates)
		return err_set(err, CODE_INVALID_ARGUMENT, "too many intermediate certificates");
	for (size_t i = 0; i < json_array_size(list); i++)
		TRY(read_cert(pop, json_array_get(list, i), i, arena, out, err));
	return CODE_OK;
}

/* ---- the leaf ---- */

struct x509pop_attempt {
	const struct x509pop *pop;
	struct arena *arena;
	struct facts facts;
	struct pubkey key;
	uint8_t nonce[NONCE_LEN];
	struct texts issuers; /* SHA-1 fingerprints of the certificates above the leaf */
};

static const char *hex_text(const void *data, size_t len, struct arena *arena)
{
	OWN_BUF hex = { 0 };

	buf_hex(&hex, data, len);
	return arena_strdup(arena, buf_text(&hex));
}

static const char *fingerprint(struct span der, struct arena *arena)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	return hex_text(digest, digest_of(DIGEST_SHA1, der.data, der.len, digest), arena);
}

static enum code read_serial(const X509 *cert, struct arena *arena, struct facts *out, struct err *err)
{
	OWN(BIGNUM) number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	uint8_t octets[64] = { 0 };
	char *decimal;
	int len;

	if (number == NULL || BN_num_bytes(number) > (int)sizeof octets)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to parse leaf certificate: x509: serial number too long");
	len = BN_num_bytes(number);
	BN_bn2bin(number, octets);
	out->serial_hex = hex_text(octets, len == 0 ? 1 : (size_t)len, arena);
	decimal = BN_bn2dec(number);
	out->serial = arena_strdup(arena, decimal == NULL ? "" : decimal);
	OPENSSL_free(decimal);
	return CODE_OK;
}

static enum code read_name(const X509_NAME *name, struct arena *arena, struct name *out, struct err *err)
{
	const unsigned char *der;
	size_t len;

	if (X509_NAME_get0_der(name, &der, &len) != 1)
		return err_crypto(err, CODE_INVALID_ARGUMENT,
				  "unable to parse leaf certificate: x509: invalid RDNSequence");
	if (name_parse((struct span){ arena_memdup(arena, der, len), len }, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse leaf certificate");
	for (int part = 0; part < NAME_PARTS; part++) /* our strings end at a NUL: no name may pass for its beginning */
		for (const struct name_value *value = out->first[part]; value != NULL; value = value->next)
			if (memchr(value->text.data, '\0', value->text.len) != NULL)
				return err_set(err, CODE_INVALID_ARGUMENT,
					       "unable to parse leaf certificate: x509: name with a NUL");
	return CODE_OK;
}

static void add_text(struct texts *texts, const char *text)
{
	texts->list[texts->n++] = text;
}

static enum code read_sans(X509 *cert, struct arena *arena, struct facts *out, struct err *err)
{
	OWN(GENERAL_NAMES) names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	size_t n = names == NULL ? 0 : (size_t)sk_GENERAL_NAME_num(names);
	struct texts *all[] = { &out->uris, &out->dns_names, &out->emails, &out->ips };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		all[i]->list = arena_alloc(arena, n * sizeof(char *));
	for (size_t i = 0; i < n; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, (int)i);
		int type;
		const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
		const uint8_t *data;
		size_t len;
		char ip[INET6_ADDRSTRLEN];

		if (type != GEN_URI && type != GEN_DNS && type != GEN_EMAIL && type != GEN_IPADD)
			continue;
		data = ASN1_STRING_get0_data(value);
		len = (size_t)ASN1_STRING_length(value);
		if (type == GEN_IPADD) {
			if ((len == 4 || len == 16) &&
			    inet_ntop(len == 4 ? AF_INET : AF_INET6, data, ip, sizeof ip) != NULL)
				add_text(&out->ips, arena_strdup(arena, ip));
			continue;
		}
		if (memchr(data, '\0', len) != NULL)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "unable to parse leaf certificate: x509: SAN is malformed");
		add_text(type == GEN_URI   ? &out->uris
			 : type == GEN_DNS ? &out->dns_names
					   : &out->emails,
			 arena_strndup(arena, (const char *)data, len));
	}
	return CODE_OK;
}

/* ---- URIs ---- */

/* The path of a URI as it stands: behind the authority, up to a query or fragment. */
static const char *uri_path(const char *uri, struct arena *arena)
{
	const char *at = strstr(uri, "://");

	if (at == NULL)
		return "";
	at += 3;
	at += strcspn(at, "/?#");
	return arena_strndup(arena, at, strcspn(at, "?#"));
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdefABCDEF", *hit = c == '\0' ? NULL : strchr(digits, c);

	return hit == NULL ? -1 : hit - digits > 15 ? (int)(hit - digits) - 6 : (int)(hit - digits);
}

/* Percent-decodes in place. An encoded NUL stays as it is. */
static char *decode_path(char *path)
{
	char *to = path;

	for (const char *from = path; *from != '\0'; from++) {
		int high = *from == '%' ? hex_digit(from[1]) : -1, low = high < 0 ? -1 : hex_digit(from[2]);

		if (low >= 0 && high * 16 + low != 0) {
			*to++ = (char)(high * 16 + low);
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	return path;
}

/* x509pop://<td>/<key>/<value>: what lacks a value is passed over. */
static void read_san_selectors(struct facts *facts, struct arena *arena)
{
	const char *prefix = arena_printf(arena, "x509pop://%s/", facts->trust_domain);

	facts->sans = arena_alloc(arena, facts->uris.n * sizeof *facts->sans);
	for (size_t i = 0; i < facts->uris.n; i++) {
		char *path, *value, *end;
		size_t at = 0;

		if (strncmp(facts->uris.list[i], prefix, strlen(prefix)) != 0)
			continue;
		path = decode_path(arena_strdup(arena, uri_path(facts->uris.list[i], arena)));
		path += strspn(path, "/");
		for (end = path + strlen(path); end > path && end[-1] == '/';)
			*--end = '\0';
		value = strchr(path, '/');
		if (value == NULL)
			continue;
		*value++ = '\0';
		while (at < facts->n_sans && strcmp(facts->sans[at].key, path) != 0)
			at++;
		facts->sans[at] = (struct pair){ path, value };
		if (at == facts->n_sans)
			facts->n_sans++;
	}
}

/* Mode "spiffe": the path of the leaf's SPIFFE ID without the prefix. */
static enum code trim_svid_path(const struct x509pop_attempt *attempt, const char **out, struct err *err)
{
	const struct texts *uris = &attempt->facts.uris;
	const char *prefix = attempt->pop->prefix;

	for (size_t i = 0; i < uris->n; i++) {
		const char *path;

		if (strncasecmp(uris->list[i], "spiffe:", 7) != 0)
			continue;
		path = uri_path(uris->list[i], attempt->arena);
		if (strncmp(path, prefix, strlen(prefix)) != 0)
			return err_set(err, CODE_PERMISSION_DENIED, "x509 cert doesnt match SVID prefix");
		*out = path + strlen(prefix);
		return CODE_OK;
	}
	return err_set(err, CODE_PERMISSION_DENIED, "valid SVID x509 cert not found");
}

/* ---- begin ---- */

static enum code check_client_ip(const struct facts *facts, const char *client_ip, struct err *err)
{
	uint8_t wanted[16], have[16];
	int family;

	if (!given(client_ip))
		return err_set(err, CODE_INTERNAL, "client IP not available for verification");
	family = strchr(client_ip, ':') == NULL ? AF_INET : AF_INET6;
	if (inet_pton(family, client_ip, wanted) == 1)
		for (size_t i = 0; i < facts->ips.n; i++)
			if (inet_pton(family, facts->ips.list[i], have) == 1 &&
			    memcmp(wanted, have, family == AF_INET ? 4 : 16) == 0)
				return CODE_OK;
	return err_set(err, CODE_PERMISSION_DENIED, "client IP %s does not match any certificate IP SAN", client_ip);
}

static enum code parse_bundle(const struct x509pop_input *input, struct certs *out, struct err *err)
{
	for (size_t i = 0; i < input->n_bundle; i++) {
		X509 *cert;

		if (cert_parse(input->bundle[i], &cert, err) != CODE_OK)
			return err_wrap(err, CODE_INTERNAL, "failed to get trust bundle");
		certs_add(out, cert);
	}
	return CODE_OK;
}

static enum code verify(const struct x509pop *pop, const struct payload *payload, const struct x509pop_input *input,
			struct x509pop_attempt *attempt, struct err *err)
{
	OWN_CERTS bundle = { 0 };
	OWN_CERTS issuers = { 0 };

	if (pop->spiffe)
		TRY(parse_bundle(input, &bundle, err));
	if (chain_verify(payload->leaf, &payload->intermediates, pop->spiffe ? &bundle : &pop->roots, input->now_s,
			 &issuers, err) != CODE_OK)
		return err_wrap(err, CODE_PERMISSION_DENIED, "certificate verification failed");
	attempt->issuers.list = arena_alloc(attempt->arena, issuers.n * sizeof(char *));
	for (size_t i = 0; i < issuers.n; i++) {
		uint8_t digest[EVP_MAX_MD_SIZE];
		unsigned int len = 0;

		X509_digest(issuers.list[i], digest_md(DIGEST_SHA1), digest, &len);
		add_text(&attempt->issuers, hex_text(digest, len, attempt->arena));
	}
	return CODE_OK;
}

static enum code read_leaf(const struct payload *payload, struct x509pop_attempt *attempt, struct err *err)
{
	struct facts *facts = &attempt->facts;
	uint8_t *spki = NULL;
	int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(payload->leaf), &spki);
	struct span der = { 0 };

	if (len > 0)
		der = (struct span){ arena_memdup(attempt->arena, spki, (size_t)len), (size_t)len };
	OPENSSL_free(spki);
	if (pubkey_parse(der, attempt->arena, &attempt->key, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse leaf certificate");
	facts->trust_domain = attempt->pop->trust_domain;
	facts->fingerprint = fingerprint(payload->leaf_der, attempt->arena);
	TRY(read_serial(payload->leaf, attempt->arena, facts, err));
	TRY(read_name(X509_get_subject_name(payload->leaf), attempt->arena, &facts->subject, err));
	TRY(read_name(X509_get_issuer_name(payload->leaf), attempt->arena, &facts->issuer, err));
	TRY(read_sans(payload->leaf, attempt->arena, facts, err));
	read_san_selectors(facts, attempt->arena);
	return CODE_OK;
}

static enum code make_challenge(X509 *leaf, struct x509pop_attempt *attempt, struct span *out, struct err *err)
{
	OWN_BUF nonce = { 0 };
	const char *text;

	if (!(X509_get_extension_flags(leaf) & EXFLAG_KUSAGE) || !(X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE))
		return err_set(err, CODE_INTERNAL,
			       "unable to generate challenge: certificate not intended for digital signature use");
	if (attempt->key.kind == PUBKEY_ED25519)
		return err_set(err, CODE_INTERNAL,
			       "unable to generate challenge: unsupported public key type ed25519.PublicKey");
	rand_bytes(attempt->nonce, sizeof attempt->nonce);
	buf_base64(&nonce, attempt->nonce, sizeof attempt->nonce, 0);
	text = arena_printf(attempt->arena,
			    attempt->key.kind == PUBKEY_RSA
				    ? "{\"rsa_signature\":{\"nonce\":\"%s\"},\"ecdsa_signature\":null}"
				    : "{\"rsa_signature\":null,\"ecdsa_signature\":{\"nonce\":\"%s\"}}",
			    buf_text(&nonce));
	*out = (struct span){ (const uint8_t *)text, strlen(text) };
	return CODE_OK;
}

enum code x509pop_begin(const struct x509pop *pop, const struct x509pop_input *input, struct arena *arena,
			struct x509pop_attempt **out, struct span *challenge, struct err *err)
{
	__attribute__((cleanup(payload_done))) struct payload payload = { 0 };
	struct x509pop_attempt *attempt = arena_zalloc(arena, sizeof *attempt);

	attempt->pop = pop;
	attempt->arena = arena;
	TRY(read_payload(pop, input->payload, arena, &payload, err));
	TRY(read_leaf(&payload, attempt, err));
	TRY(verify(pop, &payload, input, attempt, err));
	if (pop->verify_client_ip)
		TRY(check_client_ip(&attempt->facts, input->client_ip, err));
	TRY(make_challenge(payload.leaf, attempt, challenge, err));
	*out = attempt;
	return CODE_OK;
}

/* ---- finish ---- */

static enum code refuse(struct err *err, const char *why)
{
	return err_set(err, CODE_PERMISSION_DENIED, "challenge response verification failed: %s", why);
}

static enum code check_signature(const struct x509pop_attempt *attempt, const json_t *answer, struct err *err)
{
	static const char *const what = "unable to unmarshal challenge response";
	OWN_BUF nonce = { 0 }, signature = { 0 }, r = { 0 }, s = { 0 };
	uint8_t both[2 * NONCE_LEN], digest[EVP_MAX_MD_SIZE];
	bool rsa = attempt->key.kind == PUBKEY_RSA;

	TRY(read_bytes(json_object_get(answer, "nonce"), what, "nonce", &nonce, err));
	TRY(read_bytes(json_object_get(answer, "signature"), what, "signature", &signature, err));
	TRY(read_bytes(json_object_get(answer, "r"), what, "r", &r, err));
	TRY(read_bytes(json_object_get(answer, "s"), what, "s", &s, err));
	if (nonce.len != NONCE_LEN)
		return refuse(err, "invalid response nonce");
	memcpy(both, attempt->nonce, NONCE_LEN);
	memcpy(both + NONCE_LEN, nonce.data, NONCE_LEN);
	digest_of(DIGEST_SHA256, both, sizeof both, digest);
	if (rsa && !pubkey_verify_pss(&attempt->key, digest, (struct span){ signature.data, signature.len }))
		return refuse(err, "RSA signature verify failed");
	if (!rsa &&
	    !pubkey_verify_ecdsa(&attempt->key, digest, (struct span){ r.data, r.len }, (struct span){ s.data, s.len }))
		return refuse(err, "ECDSA signature verify failed");
	return CODE_OK;
}

static enum code check_response(const struct x509pop_attempt *attempt, struct span response, struct err *err)
{
	bool rsa = attempt->key.kind == PUBKEY_RSA;
	OWN(json_t) root = NULL;
	const json_t *answer;

	TRY(read_json(response, "unable to unmarshal challenge response", &root, err));
	answer = json_object_get(root, rsa ? "rsa_signature" : "ecdsa_signature");
	if (answer == NULL || json_is_null(answer))
		return refuse(err, rsa ? "expecting RSA response" : "expecting ECDSA response");
	if (!json_is_object(answer))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to unmarshal challenge response: the signature is not an object");
	return check_signature(attempt, answer, err);
}

static enum code make_agent_id(const struct x509pop_attempt *attempt, const struct facts *facts, const char **out,
			       struct err *err)
{
	struct spiffe_id id;
	const char *suffix;
	OWN_BUF quoted = { 0 };

	if (template_run(attempt->pop->path, look_up, facts, attempt->arena, &suffix, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to make spiffe id");
	if (id_from_parts(attempt->pop->trust_domain, suffix, attempt->arena, &id, err) != CODE_OK) {
		go_quote(&quoted, suffix);
		err_wrap(err, CODE_INTERNAL, "invalid agent path suffix %s", buf_text(&quoted));
		return err_wrap(err, CODE_INTERNAL, "failed to make spiffe id");
	}
	*out = arena_printf(attempt->arena, "spiffe://%s/spire/agent%s", attempt->pop->trust_domain, suffix);
	return CODE_OK;
}

static void make_selectors(const struct x509pop_attempt *attempt, struct x509pop_result *out)
{
	const struct facts *facts = &attempt->facts;
	const struct name_value *common_name = facts->subject.first[NAME_COMMON_NAME];
	struct arena *arena = attempt->arena;
	struct texts texts = { arena_alloc(arena, (attempt->issuers.n + facts->n_sans + 2) * sizeof(char *)), 0 };

	if (common_name != NULL && common_name->text.len > 0)
		add_text(&texts, arena_printf(arena, "subject:cn:%.*s", (int)common_name->text.len,
					      (const char *)common_name->text.data));
	for (size_t i = 0; i < attempt->issuers.n; i++)
		add_text(&texts, arena_printf(arena, "ca:fingerprint:%s", attempt->issuers.list[i]));
	add_text(&texts, arena_printf(arena, "serialnumber:%s", facts->serial_hex));
	for (size_t i = 0; i < facts->n_sans; i++)
		add_text(&texts, arena_printf(arena, "san:%s:%s", facts->sans[i].key, facts->sans[i].value));
	out->selectors = texts.list;
	out->n_selectors = texts.n;
}

enum code x509pop_finish(const struct x509pop_attempt *attempt, struct span response, struct x509pop_result *out,
			 struct err *err)
{
	struct x509pop_result result = { .can_reattest = true };
	struct facts facts = attempt->facts;

	TRY(check_response(attempt, response, err));
	if (attempt->pop->spiffe)
		TRY(trim_svid_path(attempt, &facts.svid_path, err));
	TRY(make_agent_id(attempt, &facts, &result.agent_id, err));
	make_selectors(attempt, &result);
	*out = result;
	return CODE_OK;
}
