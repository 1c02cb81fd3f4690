/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates: the slow reference encoder, through OpenSSL's own objects, must give the same bytes as the writer in
 * src/ca. */
#include "base/arena.h"
#include "ca/csr.h"
#include "ca/x509.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include <stdlib.h>

static const int64_t now_s = 1800000000; /* 2027-01-15T08:00:00Z */

/* ---- the reference encoder ---- */

struct reference {
	const char *subject[16]; /* "C=US", ... each an RDN of its own; "2.5.4.45=.." too */
	X509 *issuer;            /* NULL: self-signed */
	bool ca;
	EVP_PKEY *key;
	const char *const *dns_names;
	size_t n_dns_names;
	const char *uri;
};

static int type_of(const char *text)
{
	for (const char *c = text; *c != '\0'; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
		      strchr(" '()+,-./:=?", *c)))
			return V_ASN1_UTF8STRING;
	return V_ASN1_PRINTABLESTRING;
}

static void set_name(X509_NAME *name, const char *const *parts)
{
	for (; *parts != NULL; parts++) {
		const char *value = strchr(*parts, '=') + 1;
		char *type = strndup(*parts, (size_t)(value - 1 - *parts));
		ASN1_OBJECT *object = OBJ_txt2obj(type, 0);

		assert_int_equal(X509_NAME_add_entry_by_OBJ(name, object, type_of(value), (const unsigned char *)value,
							    -1, -1, 0),
				 1);
		ASN1_OBJECT_free(object);
		free(type);
	}
}

static void add(X509 *cert, int nid, int critical, void *value)
{
	assert_int_equal(X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_APPEND), 1);
}

static void add_text(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static void add_key_ids(X509 *cert, const struct reference *wanted)
{
	unsigned char digest[SHA_DIGEST_LENGTH];
	unsigned int len;
	ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();

	X509_pubkey_digest(cert, EVP_sha1(), digest, &len);
	ASN1_OCTET_STRING_set(id, digest, (int)len);
	add(cert, NID_subject_key_identifier, 0, id);
	ASN1_OCTET_STRING_free(id);
	if (wanted->issuer != NULL) {
		AUTHORITY_KEYID *authority = AUTHORITY_KEYID_new();

		authority->keyid = ASN1_OCTET_STRING_dup(X509_get0_subject_key_id(wanted->issuer));
		add(cert, NID_authority_key_identifier, 0, authority);
		AUTHORITY_KEYID_free(authority);
	}
}

static void add_names(X509 *cert, const struct reference *wanted)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();

	for (size_t i = 0; i <= wanted->n_dns_names; i++) {
		GENERAL_NAME *name = GENERAL_NAME_new();
		ASN1_IA5STRING *text = ASN1_IA5STRING_new();

		ASN1_STRING_set(text, i < wanted->n_dns_names ? wanted->dns_names[i] : wanted->uri, -1);
		GENERAL_NAME_set0_value(name, i < wanted->n_dns_names ? GEN_DNS : GEN_URI, text);
		sk_GENERAL_NAME_push(names, name);
	}
	add(cert, NID_subject_alt_name, X509_NAME_entry_count(X509_get_subject_name(cert)) == 0, names);
	GENERAL_NAMES_free(names);
}

static void encode_reference(const struct reference *wanted, const struct x509_svid *svid, struct buf *tbs)
{
	OWN(X509) cert = X509_new();
	BIGNUM *serial = NULL;
	unsigned char *der = NULL;
	int len;

	X509_set_version(cert, 2);
	BN_dec2bn(&serial, svid->serial);
	BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert));
	BN_free(serial);
	ASN1_TIME_set(X509_getm_notBefore(cert), svid->not_before_s);
	ASN1_TIME_set(X509_getm_notAfter(cert), svid->not_after_s);
	set_name(X509_get_subject_name(cert), wanted->subject);
	X509_set_issuer_name(cert, X509_get_subject_name(wanted->issuer == NULL ? cert : wanted->issuer));
	X509_set_pubkey(cert, wanted->key);
	add_text(cert, NID_key_usage,
		 wanted->ca ? "critical,keyCertSign,cRLSign"
			    : "critical,digitalSignature,keyEncipherment,keyAgreement");
	if (!wanted->ca)
		add_text(cert, NID_ext_key_usage, "serverAuth,clientAuth");
	add_text(cert, NID_basic_constraints, wanted->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	add_key_ids(cert, wanted);
	add_names(cert, wanted);
	/* The algorithm inside the part that is signed is set by signing. */
	{
		const unsigned char *at = svid->cert.data;
		OWN(X509) made = d2i_X509(NULL, &at, (long)svid->cert.len);
		int nid = X509_get_signature_nid(made);
		EVP_PKEY *key = pki_key(nid == NID_ecdsa_with_SHA256   ? "P-256"
					: nid == NID_ecdsa_with_SHA384 ? "P-384"
								       : "RSA-2048");

		assert_true(X509_sign(cert, key, nid == NID_ecdsa_with_SHA384 ? EVP_sha384() : EVP_sha256()) > 0);
		EVP_PKEY_free(key);
	}
	len = i2d_re_X509_tbs(cert, &der);
	assert_true(len > 0);
	buf_append(tbs, der, (size_t)len);
	OPENSSL_free(der);
}

/* The TBS of what we made is the reference's, and the signature is the issuer's. */
static void check_same(const struct reference *wanted, const struct x509_svid *svid, EVP_PKEY *issuer_key)
{
	OWN_BUF reference = { 0 }, hex = { 0 }, wanted_hex = { 0 };
	const unsigned char *at = svid->cert.data;
	OWN(X509) made = d2i_X509(NULL, &at, (long)svid->cert.len);
	unsigned char *tbs = NULL;
	int len;

	assert_non_null(made);
	assert_true(at == svid->cert.data + svid->cert.len);
	len = i2d_re_X509_tbs(made, &tbs);
	encode_reference(wanted, svid, &reference);
	buf_hex(&hex, tbs, (size_t)len);
	buf_hex(&wanted_hex, reference.data, reference.len);
	OPENSSL_free(tbs);
	CHECK_STR(buf_text(&hex), buf_text(&wanted_hex));
	/* And not merely after OpenSSL encoded it again: */
	assert_non_null(memmem(svid->cert.data, svid->cert.len, reference.data, reference.len));
	assert_int_equal(X509_verify(made, issuer_key), 1);
}

/* ---- a CA ---- */

struct authority {
	struct arena *arena;
	struct x509_authority *x509;
	struct x509_svid svid;
	EVP_PKEY *key;
	X509 *cert;
};

static const struct x509_ca_subject standard_subject = {
	.country = (const char *const[]){ "US" },
	.n_country = 1,
	.organization = (const char *const[]){ "SPIFFE" },
	.n_organization = 1,
};

static struct authority authority_new(enum key_type type)
{
	struct authority a = { .arena = arena_new() };
	struct err err = { 0 };
	const unsigned char *at;

	CHECK_CODE(key_generate(type, &a.key, &err), CODE_OK);
	CHECK_CODE(x509_self_sign(a.key, &standard_subject, "example.org", 86400, now_s, a.arena, &a.svid, &err),
		   CODE_OK);
	EVP_PKEY_up_ref(a.key);
	CHECK_CODE(x509_authority_new(a.key, a.svid.cert, NULL, 0, &a.x509, &err), CODE_OK);
	at = a.svid.cert.data;
	a.cert = d2i_X509(NULL, &at, (long)a.svid.cert.len);
	return a;
}

static void authority_done(struct authority *a)
{
	X509_free(a->cert);
	EVP_PKEY_free(a->key);
	x509_authority_free(a->x509);
	arena_free(a->arena);
}

static struct span spki_of(EVP_PKEY *key, struct arena *arena)
{
	OWN_BUF der = { 0 };
	struct err err = { 0 };

	CHECK_CODE(key_public_der(key, &der, &err), CODE_OK);
	return (struct span){ arena_memdup(arena, der.data, der.len), der.len };
}

TEST(self_signed_ca_is_the_reference)
{
	for (enum key_type type = KEY_EC_P256; type <= KEY_RSA_2048; type++) {
		struct authority a = authority_new(type);
		char serial[96];
		struct reference wanted = { .subject = { "C=US", "O=SPIFFE", serial },
					    .ca = true,
					    .key = a.key,
					    .uri = "spiffe://example.org" };

		snprintf(serial, sizeof serial, "serialNumber=%s", a.svid.serial);
		check_same(&wanted, &a.svid, a.key);
		CHECK_NUM(a.svid.not_before_s, now_s - 10);
		CHECK_NUM(a.svid.not_after_s, now_s + 86400);
		CHECK_NUM(strlen(a.x509->id), 40);
		authority_done(&a);
	}
}

TEST(ca_subject_follows_the_configuration)
{
	const struct x509_ca_subject subject = {
		.country = (const char *const[]){ "DE", "AT" },
		.n_country = 2,
		.common_name = "Root*",
	};
	OWN_STRUCT(arena) arena = arena_new();
	EVP_PKEY *key = pki_key("P-256");
	struct x509_svid svid;
	struct err err = { 0 };
	const unsigned char *at;
	char text[256];

	CHECK_CODE(x509_self_sign(key, &subject, "example.org", 3600, now_s, arena, &svid, &err), CODE_OK);
	at = svid.cert.data;
	OWN(X509) cert = d2i_X509(NULL, &at, (long)svid.cert.len);
	X509_NAME_oneline(X509_get_subject_name(cert), text, sizeof text);
	assert_non_null(strstr(text, "/C=AT+C=DE/CN=Root*/serialNumber=")); /* a SET OF: in the order of its octets */
	CHECK_NUM(X509_NAME_entry_count(X509_get_subject_name(cert)), 4);
	CHECK_NUM(X509_NAME_ENTRY_set(X509_NAME_get_entry(X509_get_subject_name(cert), 1)), 0); /* one RDN with both */
	EVP_PKEY_free(key);
}

static struct x509_request request_for(const char *id, EVP_PKEY *key, struct arena *arena)
{
	return (struct x509_request){ .spiffe_id = id, .spki = spki_of(key, arena), .ttl_s = 3600, .now_s = now_s };
}

TEST(svid_is_the_reference)
{
	static const char *const kinds[] = { "P-256", "P-384", "P-521", "P-224", "RSA-2048", "ED25519" };

	for (enum key_type type = KEY_EC_P256; type <= KEY_RSA_2048; type++) {
		struct authority a = authority_new(type);

		for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
			EVP_PKEY *key = pki_key(kinds[i]);
			struct x509_request request = request_for("spiffe://example.org/ns/prod/sa/web", key, a.arena);
			struct reference wanted = {
				.subject = { "C=US", "O=SPIRE" }, .issuer = a.cert, .key = key, .uri = request.spiffe_id
			};
			struct x509_svid svid;
			struct err err = { 0 };

			CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
			check_same(&wanted, &svid, a.key);
			CHECK_NUM(svid.not_before_s, now_s - 10);
			CHECK_NUM(svid.not_after_s, now_s + 3600);
			EVP_PKEY_free(key);
		}
		authority_done(&a);
	}
}

TEST(first_dns_name_is_the_common_name)
{
	static const char *const names[] = { "*.example.org", "a-b.example.org", "under_score", "x" };
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *key = pki_key("P-256");

	for (size_t first = 0; first < 4; first++) {
		struct x509_request request = request_for("spiffe://example.org/w", key, a.arena);
		char common_name[64];
		struct reference wanted = { .subject = { "C=US", "O=SPIRE", common_name },
					    .issuer = a.cert,
					    .key = key,
					    .dns_names = names + first,
					    .n_dns_names = 4 - first,
					    .uri = request.spiffe_id };
		struct x509_svid svid;
		struct err err = { 0 };

		snprintf(common_name, sizeof common_name, "CN=%s", names[first]);
		request.dns_names = names + first;
		request.n_dns_names = 4 - first;
		CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
		check_same(&wanted, &svid, a.key);
	}
	EVP_PKEY_free(key);
	authority_done(&a);
}

TEST(long_names_need_long_lengths)
{
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *key = pki_key("P-256");
	struct x509_request request = request_for(NULL, key, a.arena);
	char *id = malloc(70000), *name = malloc(301);
	const char *names[500];
	struct reference wanted = { .subject = { "C=US", "O=SPIRE" }, .issuer = a.cert, .key = key, .uri = id };
	struct x509_svid svid;
	struct err err = { 0 };

	for (size_t len = 30; len < 66000; len = len < 300 ? len + 1 : len * 3) {
		memset(id, 'a', len);
		memcpy(id, "spiffe://example.org/", 21);
		id[len] = '\0';
		request.spiffe_id = id;
		CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
		check_same(&wanted, &svid, a.key);
	}
	memset(name, 'd', 300);
	name[300] = '\0';
	for (size_t i = 0; i < 500; i++)
		names[i] = i == 0 ? "first" : name;
	wanted.subject[2] = "CN=first";
	request.dns_names = wanted.dns_names = names;
	request.n_dns_names = wanted.n_dns_names = 500;
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, a.key);
	free(id);
	free(name);
	EVP_PKEY_free(key);
	authority_done(&a);
}

TEST(unique_id_comes_last)
{
	static const char *const names[] = { "w.example.org" };
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *key = pki_key("P-256");
	struct x509_request request = request_for("spiffe://example.org/w", key, a.arena);
	struct reference wanted = { .subject = { "C=US", "O=SPIRE", "2.5.4.45=00000000000000000000000000000000" },
				    .issuer = a.cert,
				    .key = key,
				    .uri = request.spiffe_id };
	unsigned char digest[SHA256_DIGEST_LENGTH];
	char text[64] = "2.5.4.45=";
	struct x509_svid svid;
	struct err err = { 0 };

	SHA256((const unsigned char *)request.spiffe_id, strlen(request.spiffe_id), digest);
	for (int i = 0; i < 16; i++)
		snprintf(text + 9 + 2 * i, 3, "%02x", digest[i]);
	wanted.subject[2] = text;
	request.unique_id = true;
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, a.key);
	request.dns_names = wanted.dns_names = names;
	request.n_dns_names = wanted.n_dns_names = 1;
	wanted.subject[2] = "CN=w.example.org";
	wanted.subject[3] = text;
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, a.key);
	EVP_PKEY_free(key);
	authority_done(&a);
}

/* The subject of a request as it comes out in the certificate. */
static void check_filtered(const char *given, const char *const *kept, size_t n_dns_names)
{
	static const char *const names[] = { "dns.org" };
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *key = pki_key("P-256");
	struct x509_request request = request_for("spiffe://example.org/w", key, a.arena);
	struct reference wanted = {
		.issuer = a.cert, .key = key, .uri = request.spiffe_id, .dns_names = names, .n_dns_names = n_dns_names
	};
	OWN_BUF der = { 0 };
	struct csr csr;
	struct x509_svid svid;
	struct err err = { 0 };

	for (size_t i = 0; kept[i] != NULL; i++)
		wanted.subject[i] = kept[i];
	request.dns_names = names;
	request.n_dns_names = n_dns_names;
	pki_csr(&der, key, given, NULL, "SHA256");
	CHECK_CODE(csr_parse(der.data, der.len, a.arena, &csr, &err), CODE_OK);
	CHECK_CODE(x509_filter_subject(csr.subject, a.arena, &request.subject, &err), CODE_OK);
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, a.key);
	EVP_PKEY_free(key);
	authority_done(&a);
}

TEST(subject_of_a_request_is_kept_in_one_order)
{
	check_filtered("/serialNumber=7/CN=own/OU=U/O=Mine/street=S 1/postalCode=12345/L=X/ST=B/C=DE",
		       (const char *[]){ "C=DE", "ST=B", "L=X", "street=S 1", "postalCode=12345", "O=Mine", "OU=U",
					 "CN=own", "serialNumber=7", NULL },
		       0);
	check_filtered("/CN=first/CN=last", (const char *[]){ "CN=last", NULL }, 0);
	check_filtered("/O=\xc3\xa4/CN=a*b", (const char *[]){ "O=\xc3\xa4", "CN=a*b", NULL }, 0);
	check_filtered("/CN=own/serialNumber=7", (const char *[]){ "CN=dns.org", "serialNumber=7", NULL }, 1);
	check_filtered("/O=x", (const char *[]){ "O=x", "CN=dns.org", NULL }, 1);
	check_filtered("", (const char *[]){ "C=US", "O=SPIRE", NULL }, 0);
	check_filtered("", (const char *[]){ "C=US", "O=SPIRE", "CN=dns.org", NULL }, 1);
	check_filtered("/emailAddress=a@b.c", (const char *[]){ NULL }, 0); /* an empty subject, so a critical SAN */
	check_filtered("/emailAddress=a@b.c", (const char *[]){ "CN=dns.org", NULL }, 1);
	check_filtered("/CN=", (const char *[]){ "C=US", "O=SPIRE", NULL }, 0);
}

TEST(values_of_one_type_share_a_set)
{
	static const uint8_t wanted[] = { 0x30, 0x1c, 0x31, 0x1a, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04,
					  0x0a, 0x13, 0x04, 'M',  'i',  'n',  'e',  0x30, 0x0b, 0x06,
					  0x03, 0x55, 0x04, 0x0a, 0x13, 0x04, 'M',  'o',  's',  't' };
	OWN_STRUCT(arena) arena = arena_new();
	EVP_PKEY *key = pki_key("P-256");
	OWN_BUF der = { 0 };
	struct csr csr;
	struct span subject;
	struct err err = { 0 };

	pki_csr(&der, key, "/O=Most/O=Mine", NULL, "SHA256");
	CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
	CHECK_CODE(x509_filter_subject(csr.subject, arena, &subject, &err), CODE_OK);
	CHECK_NUM(subject.len, sizeof wanted);
	CHECK_BYTES(subject.data, wanted, sizeof wanted);
	EVP_PKEY_free(key);
}

TEST(other_string_types_become_utf8)
{
	static const uint8_t name[] = {
		0x30, 0x37, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x14,
		0x04, 'a',  0xe4, 'b',  0xff, /* T.61 */
		0x31, 0x0f, 0x30, 0x0d, 0x06, 0x03, 0x55, 0x04, 0x0b, 0x1e, 0x06, 0x20,
		0xac, 0x00, 'x',  0,    0,                                        /* BMP */
		0x31, 0x09, 0x30, 0x07, 0x06, 0x03, 0x55, 0x04, 0x07, 0x12, 0x00, /* an empty NumericString */
		0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x08, 0x02, 0x01, 0x05
	}; /* an INTEGER: no text */
	static const uint8_t wanted[] = { 0x30, 0x2b, 0x31, 0x09, 0x30, 0x07, 0x06, 0x03, 0x55, 0x04, 0x07, 0x13,
					  0x00, 0x31, 0x0f, 0x30, 0x0d, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c, 0x06,
					  'a',  0xc3, 0xa4, 'b',  0xc3, 0xbf, 0x31, 0x0d, 0x30, 0x0b, 0x06, 0x03,
					  0x55, 0x04, 0x0b, 0x0c, 0x04, 0xe2, 0x82, 0xac, 'x' };
	OWN_STRUCT(arena) arena = arena_new();
	struct span subject;
	struct err err = { 0 };

	CHECK_CODE(x509_filter_subject((struct span){ name, sizeof name }, arena, &subject, &err), CODE_OK);
	CHECK_NUM(subject.len, sizeof wanted);
	CHECK_BYTES(subject.data, wanted, sizeof wanted);
}

TEST(downstream_ca_is_the_reference)
{
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *key = pki_key("P-384");
	char serial[96];
	struct reference wanted = { .subject = { "C=US", "O=SPIFFE", "OU=DOWNSTREAM-1", serial },
				    .issuer = a.cert,
				    .ca = true,
				    .key = key,
				    .uri = "spiffe://example.org" };
	struct x509_svid svid;
	struct err err = { 0 };

	snprintf(serial, sizeof serial, "serialNumber=%s", a.svid.serial);
	CHECK_CODE(
		x509_issue_downstream(a.x509, "example.org", spki_of(key, a.arena), 600, now_s, a.arena, &svid, &err),
		CODE_OK);
	check_same(&wanted, &svid, a.key);
	CHECK_NUM(svid.not_after_s, now_s + 600);
	EVP_PKEY_free(key);
	authority_done(&a);
}

TEST(intermediate_authority)
{
	struct authority root = authority_new(KEY_RSA_2048);
	EVP_PKEY *key = pki_key("P-256"), *leaf_key = pki_key("P-256");
	struct x509_svid intermediate, svid;
	struct x509_authority *authority;
	struct err err = { 0 };
	char serial[96];
	const unsigned char *at;

	CHECK_CODE(x509_issue_downstream(root.x509, "example.org", spki_of(key, root.arena), 600, now_s, root.arena,
					 &intermediate, &err),
		   CODE_OK);
	at = intermediate.cert.data;
	OWN(X509) cert = d2i_X509(NULL, &at, (long)intermediate.cert.len);
	CHECK_CODE(x509_authority_new(key, intermediate.cert, (struct span[]){ intermediate.cert, root.svid.cert }, 2,
				      &authority, &err),
		   CODE_OK);
	CHECK_NUM(authority->n_upstream, 2);

	struct x509_request request = request_for("spiffe://example.org/w", leaf_key, root.arena);
	struct reference wanted = {
		.subject = { "C=US", "O=SPIRE" }, .issuer = cert, .key = leaf_key, .uri = request.spiffe_id
	};

	CHECK_CODE(x509_issue(authority, &request, root.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, key);
	CHECK_NUM(svid.not_after_s, now_s + 600); /* the authority's end */

	snprintf(serial, sizeof serial, "serialNumber=%s", root.svid.serial);
	struct reference below = { .subject = { "C=US", "O=SPIFFE", "OU=DOWNSTREAM-2", serial },
				   .issuer = cert,
				   .ca = true,
				   .key = leaf_key,
				   .uri = "spiffe://example.org" };

	CHECK_CODE(x509_issue_downstream(authority, "example.org", request.spki, 600, now_s, root.arena, &svid, &err),
		   CODE_OK);
	check_same(&below, &svid, key);
	x509_authority_free(authority);
	EVP_PKEY_free(leaf_key);
	authority_done(&root);
}

TEST(expired_or_missing_authority_does_not_sign)
{
	struct authority a = authority_new(KEY_EC_P256);
	struct x509_request request = request_for("spiffe://example.org/w", a.key, a.arena);
	struct x509_svid svid;
	struct err err = { 0 };

	CHECK_CODE(x509_issue(NULL, &request, a.arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "X509 CA is not available for signing");
	CHECK_CODE(x509_issue_downstream(NULL, "example.org", request.spki, 600, now_s, a.arena, &svid, &err),
		   CODE_INTERNAL);
	CHECK_STR(err.text, "X509 CA is not available for signing");
	request.now_s = now_s + 86400;
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	request.now_s = now_s + 86401;
	request.kind = "agent";
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "invalid agent X509-SVID: invalid X509-SVID: already expired as of 2027-01-16T08:00:00Z");
	CHECK_CODE(x509_issue_downstream(a.x509, "example.org", request.spki, 600, request.now_s, a.arena, &svid, &err),
		   CODE_INTERNAL);
	CHECK_STR(err.text, "invalid downstream X509 CA: invalid X509 CA: already expired as of 2027-01-16T08:00:00Z");
	request.now_s = now_s;
	request.dns_names = (const char *const[]){ "\xc3\xa4.org" };
	request.n_dns_names = 1;
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to sign X509 SVID: x509: \"\xc3\xa4.org\" cannot be encoded as an IA5String");
	authority_done(&a);
}

TEST(times_across_the_centuries)
{
	static const int64_t times[] = { 0,          951782399,  951782400,  951868800,           1709164800,
					 1735689599, 2524607999, 2524608000, 4107542399,          4107542400,
					 4102444799, -631152000, -631152001, 253402300799 - 3600, 1800000000 };
	OWN_STRUCT(arena) arena = arena_new();
	EVP_PKEY *key = pki_key("P-256");

	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		struct x509_svid svid;
		struct err err = { 0 };
		char serial[96];
		struct reference wanted = {
			.subject = { "C=US", "O=SPIFFE", serial }, .ca = true, .key = key, .uri = "spiffe://td"
		};

		CHECK_CODE(x509_self_sign(key, &standard_subject, "td", 3600, times[i], arena, &svid, &err), CODE_OK);
		snprintf(serial, sizeof serial, "serialNumber=%s", svid.serial);
		check_same(&wanted, &svid, key);
	}
	EVP_PKEY_free(key);
}

TEST(serials_are_positive_and_differ)
{
	struct authority a = authority_new(KEY_EC_P256);
	struct x509_request request = request_for("spiffe://example.org/w", a.key, a.arena);
	char former[SERIAL_TEXT_MAX] = "";
	int longest = 0;

	for (int i = 0; i < 200; i++) {
		struct x509_svid svid;
		struct x509_facts facts;
		struct err err = { 0 };

		CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
		CHECK_CODE(x509_read(svid.cert, a.arena, &facts, &err), CODE_OK);
		CHECK_STR(facts.serial, svid.serial);
		CHECK(svid.serial[0] >= '1' && svid.serial[0] <= '9');
		CHECK(strcmp(svid.serial, former) != 0);
		strcpy(former, svid.serial);
		if ((int)strlen(svid.serial) > longest)
			longest = (int)strlen(svid.serial);
	}
	CHECK_NUM(longest, 39); /* 128 bits */
	authority_done(&a);
}

/* ---- reading ---- */

TEST(facts_of_a_certificate)
{
	struct authority a = authority_new(KEY_EC_P256);
	struct x509_request request = request_for("spiffe://example.org/w", a.key, a.arena);
	struct x509_svid svid;
	struct x509_facts facts;
	struct err err = { 0 };

	CHECK_CODE(x509_read(a.svid.cert, a.arena, &facts, &err), CODE_OK);
	CHECK(facts.is_ca && facts.key_cert_sign && facts.crl_sign);
	CHECK_STR(facts.uri, "spiffe://example.org");
	CHECK_STR(facts.subject_key_id, a.x509->id);
	CHECK_STR(facts.authority_key_id, "");
	CHECK_CODE(x509_issue(a.x509, &request, a.arena, &svid, &err), CODE_OK);
	CHECK_CODE(x509_read(svid.cert, a.arena, &facts, &err), CODE_OK);
	CHECK(!facts.is_ca && !facts.key_cert_sign && !facts.crl_sign);
	CHECK_NUM(facts.n_uris, 1);
	CHECK_STR(facts.authority_key_id, a.x509->id);
	CHECK_NUM(facts.not_after_s, svid.not_after_s);
	CHECK_NUM(facts.not_before_s, svid.not_before_s);
	authority_done(&a);
}

TEST(unreadable_certificates_are_errors)
{
	struct authority a = authority_new(KEY_EC_P256);
	OWN_BUF two = { 0 };
	struct x509_facts facts;
	struct span *certs;
	size_t n;
	struct err err = { 0 };

	for (size_t len = 0; len < a.svid.cert.len; len++) {
		struct span cut = { arena_memdup(a.arena, a.svid.cert.data, len), len };

		CHECK_CODE(x509_read(cut, a.arena, &facts, &err), CODE_INVALID_ARGUMENT);
		CHECK_CODE(x509_split(cut, a.arena, &certs, &n, &err), CODE_INVALID_ARGUMENT);
	}
	buf_append(&two, a.svid.cert.data, a.svid.cert.len);
	buf_append(&two, a.svid.cert.data, a.svid.cert.len);
	CHECK_CODE(x509_read((struct span){ two.data, two.len }, a.arena, &facts, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "malformed certificate: trailing data");
	CHECK_CODE(x509_split((struct span){ two.data, two.len }, a.arena, &certs, &n, &err), CODE_OK);
	CHECK_NUM(n, 2);
	CHECK_NUM(certs[1].len, a.svid.cert.len);
	CHECK(certs[1].data == two.data + a.svid.cert.len);
	authority_done(&a);
}

TEST(key_and_certificate_must_belong_together)
{
	struct authority a = authority_new(KEY_EC_P256);
	EVP_PKEY *other = pki_key("P-256");
	struct x509_authority *authority;
	struct err err = { 0 };

	CHECK_CODE(x509_authority_new(other, a.svid.cert, NULL, 0, &authority, &err), CODE_INVALID_ARGUMENT);
	assert_non_null(strstr(err.text, "do not match"));
	EVP_PKEY_free(other); /* not taken */
	authority_done(&a);
}

TEST(copies_sign_too)
{
	struct authority a = authority_new(KEY_EC_P256);
	struct x509_authority *copy = x509_authority_copy(a.x509);
	struct x509_request request;
	struct reference wanted;
	struct x509_svid svid;
	struct err err = { 0 };
	EVP_PKEY *key = pki_key("P-256");

	x509_authority_free(a.x509);
	a.x509 = NULL;
	request = request_for("spiffe://example.org/w", key, a.arena);
	wanted = (struct reference){
		.subject = { "C=US", "O=SPIRE" }, .issuer = a.cert, .key = key, .uri = request.spiffe_id
	};
	CHECK_CODE(x509_issue(copy, &request, a.arena, &svid, &err), CODE_OK);
	check_same(&wanted, &svid, a.key);
	x509_authority_free(copy);
	EVP_PKEY_free(key);
	authority_done(&a);
}

TEST(pkix_keys_are_checked)
{
	OWN_STRUCT(arena) arena = arena_new();
	EVP_PKEY *key = pki_key("P-256");
	struct span der = spki_of(key, arena);
	uint8_t *broken = arena_memdup(arena, der.data, der.len + 0);
	struct err err = { 0 };

	CHECK_CODE(key_check_pkix(der, &err), CODE_OK);
	CHECK_CODE(key_check_pkix((struct span){ NULL, 0 }, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "asn1: syntax error: sequence truncated");
	broken[der.len - 1] ^= 1; /* off the curve */
	CHECK_CODE(key_check_pkix((struct span){ broken, der.len }, &err), CODE_INVALID_ARGUMENT);
	EVP_PKEY_free(key);
}
