/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates, written as DER in one pass from the end to the start. The to-be-signed part lies in the arena with room
 * before it (the outer header) and behind it (algorithm and signature): it is signed where it lies, nothing is copied.
 */

#include "ca/x509.h"

#include "base/gotime.h"
#include "base/metric.h"
#include "base/rand.h"
#include "ca/der.h"
#include "ca/name.h"
#include "ca/pubkey.h"
#include "ca/signer.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
	BACKDATE_S = 10, /* notBefore lies that much before now */
	SERIAL_LEN = 16,
	FIXED_MAX = 512, /* version, serial, validity, extensions without the SAN's names, headers */
};

/* keyUsage, extKeyUsage and basicConstraints never differ among SVIDs, nor among CAs. */
static const uint8_t leaf_extensions[] = {
	0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x03, 0xa8, /* signs,
													   enciphers,
													   agrees */
	0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x16, 0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
	0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02, /* serverAuth, clientAuth */
	0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00, /* no CA */
};
static const uint8_t ca_extensions[] = {
	0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x01, 0x06, /* keyCertSign,
													   cRLSign */
	0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff, /* CA */
};

/* One certificate about to be written. */
struct draft {
	const struct signer *signer;
	struct span issuer;  /* Name, DER */
	struct span subject; /* Name, DER */
	struct span spki;
	struct span constant_extensions;
	struct span authority_key_id; /* none: left out */
	const char *const *dns_names;
	size_t n_dns_names;
	const char *uri;
	uint8_t serial[SERIAL_LEN];
	int64_t not_before_s, not_after_s;
};

/* Uniform in [1, 2^128 - 1]. */
static void new_serial(uint8_t serial[SERIAL_LEN])
{
	static const uint8_t zero[SERIAL_LEN];

	do {
		rand_bytes(serial, SERIAL_LEN);
	} while (memcmp(serial, zero, SERIAL_LEN) == 0);
}

static void serial_text(const uint8_t serial[SERIAL_LEN], char out[SERIAL_TEXT_MAX])
{
	unsigned __int128 number = 0;
	char digits[40];
	int n = 0;

	for (int i = 0; i < SERIAL_LEN; i++)
		number = number << 8 | serial[i];
	do {
		uint64_t low = (uint64_t)(number %
					  10000000000000000000ULL); /* 19 digits at a time: 128-bit division is slow */

		number /= 10000000000000000000ULL;
		for (int i = 0; i < 19 && (number > 0 || low > 0); i++, low /= 10)
			digits[n++] = (char)('0' + low % 10);
	} while (number > 0);
	for (int i = 0; i < n; i++)
		out[i] = digits[n - 1 - i];
	out[n] = '\0';
}

static void put_key_ids(struct der_out *out, const struct draft *draft)
{
	static const uint8_t oid_subject_key_id[] = { 0x06, 0x03, 0x55, 0x1d, 0x0e };
	static const uint8_t oid_authority_key_id[] = { 0x06, 0x03, 0x55, 0x1d, 0x23 };
	struct span bits = pubkey_bits_of(draft->spki);
	uint8_t subject_key_id[64];
	const uint8_t *end = out->at, *extension_end;
	size_t len;

	if (draft->authority_key_id.len > 0) {
		der_put_tlv(out, DER_CONTEXT, draft->authority_key_id.data, draft->authority_key_id.len);
		der_head(out, DER_SEQUENCE, end);
		der_head(out, DER_OCTET_STRING, end);
		der_put(out, oid_authority_key_id, sizeof oid_authority_key_id);
		der_head(out, DER_SEQUENCE, end);
	}
	extension_end = out->at;
	len = digest_of(DIGEST_SHA1, bits.data, bits.len, subject_key_id);
	der_put_tlv(out, DER_OCTET_STRING, subject_key_id, len);
	der_head(out, DER_OCTET_STRING, extension_end);
	der_put(out, oid_subject_key_id, sizeof oid_subject_key_id);
	der_head(out, DER_SEQUENCE, extension_end);
}

static void put_san(struct der_out *out, const struct draft *draft)
{
	static const uint8_t oid_san[] = { 0x06, 0x03, 0x55, 0x1d, 0x11 };
	static const uint8_t critical[] = { 0x01, 0x01, 0xff };
	const uint8_t *end = out->at;

	der_put_tlv(out, DER_CONTEXT + 6, draft->uri, strlen(draft->uri));
	for (size_t i = draft->n_dns_names; i > 0; i--)
		der_put_tlv(out, DER_CONTEXT + 2, draft->dns_names[i - 1], strlen(draft->dns_names[i - 1]));
	der_head(out, DER_SEQUENCE, end);
	der_head(out, DER_OCTET_STRING, end);
	if (draft->subject.len <= 2) /* RFC 5280 4.2.1.6: it names the subject alone then */
		der_put(out, critical, sizeof critical);
	der_put(out, oid_san, sizeof oid_san);
	der_head(out, DER_SEQUENCE, end);
}

static void put_tbs(struct der_out *out, const struct draft *draft)
{
	static const uint8_t version_3[] = { 0xa0, 0x03, 0x02, 0x01, 0x02 };
	struct span algorithm = signer_algorithm(draft->signer);
	const uint8_t *end = out->at, *validity_end;

	put_san(out, draft);
	put_key_ids(out, draft);
	der_put(out, draft->constant_extensions.data, draft->constant_extensions.len);
	der_head(out, DER_SEQUENCE, end);
	der_head(out, DER_CONTEXT_CONSTRUCTED + 3, end);
	der_put(out, draft->spki.data, draft->spki.len);
	der_put(out, draft->subject.data, draft->subject.len);
	validity_end = out->at;
	der_put_time(out, draft->not_after_s);
	der_put_time(out, draft->not_before_s);
	der_head(out, DER_SEQUENCE, validity_end);
	der_put(out, draft->issuer.data, draft->issuer.len);
	der_put(out, algorithm.data, algorithm.len);
	der_put_unsigned(out, draft->serial, SERIAL_LEN);
	der_put(out, version_3, sizeof version_3);
	der_head(out, DER_SEQUENCE, end);
}

static size_t tbs_bound(const struct draft *draft)
{
	size_t bound = FIXED_MAX + draft->issuer.len + draft->subject.len + draft->spki.len +
		       draft->authority_key_id.len + strlen(draft->uri);

	for (size_t i = 0; i < draft->n_dns_names; i++)
		bound += strlen(draft->dns_names[i]) + DER_HEAD_MAX;
	return bound;
}

/* signatureAlgorithm and signature, behind what they sign. Answers their length. */
static size_t append_signature(uint8_t *at, struct span algorithm, struct span signature)
{
	uint8_t tail[SIGNATURE_MAX + 64], *end = tail + sizeof tail;
	struct der_out out = { tail, end };

	der_put(&out, signature.data, signature.len);
	der_put_byte(&out, 0); /* no unused bits */
	der_head(&out, DER_BIT_STRING, end);
	der_put(&out, algorithm.data, algorithm.len);
	memcpy(at, out.at, (size_t)(end - out.at));
	return (size_t)(end - out.at);
}

/* SEQUENCE { what `put` writes, signatureAlgorithm, signature }: the form of certificates and of requests. */
static enum code write_signed(const struct draft *draft, void (*put)(struct der_out *, const struct draft *),
			      struct arena *arena, struct span *out, struct err *err)
{
	size_t bound = DER_HEAD_MAX + tbs_bound(draft);
	uint8_t *start = arena_alloc(arena, bound + SIGNATURE_MAX + 64), *end = start + bound;
	struct der_out front = { start, end };
	uint8_t signature[SIGNATURE_MAX];
	size_t signature_len;

	put(&front, draft);
	TRY(signer_sign(draft->signer, (struct span){ front.at, (size_t)(end - front.at) }, signature, &signature_len,
			err));
	end += append_signature(end, signer_algorithm(draft->signer), (struct span){ signature, signature_len });
	der_head(&front, DER_SEQUENCE, end);
	*out = (struct span){ front.at, (size_t)(end - front.at) };
	return CODE_OK;
}

static enum code finish(const struct draft *draft, struct arena *arena, struct x509_svid *out, struct err *err)
{
	TRY(write_signed(draft, put_tbs, arena, &out->cert, err));
	serial_text(draft->serial, out->serial);
	out->not_before_s = draft->not_before_s;
	out->not_after_s = draft->not_after_s;
	return CODE_OK;
}

static void set_lifetime(struct draft *draft, int64_t ttl_s, int64_t now_s, int64_t cap_s)
{
	assert(ttl_s > 0); /* the defaults are the caller's */
	draft->not_before_s = now_s - BACKDATE_S;
	draft->not_after_s = now_s + ttl_s < cap_s ? now_s + ttl_s : cap_s;
}

/* What SPIRE finds when it reads its own product: the signing CA has expired, so the new certificate has. */
static enum code check_lifetime(const struct draft *draft, const char *what, int64_t now_s, struct err *err)
{
	char text[GO_TIME_MAX];

	if (draft->not_after_s >= now_s)
		return CODE_OK;
	return err_set(err, CODE_INTERNAL, "%s: already expired as of %s", what,
		       go_time_rfc3339(draft->not_after_s, text));
}

static enum code check_dns_names(const struct x509_request *request, struct err *err)
{
	for (size_t i = 0; i < request->n_dns_names; i++)
		for (const char *c = request->dns_names[i]; *c != '\0'; c++)
			if ((unsigned char)*c >= 0x80)
				return err_set(
					err, CODE_INTERNAL,
					"failed to sign X509 SVID: x509: \"%s\" cannot be encoded as an IA5String",
					request->dns_names[i]);
	return CODE_OK;
}

/* ---- the subject of an SVID ---- */

/* x500UniqueIdentifier: the first 16 octets of the id's SHA-256, in hex, as an RDN of its own at the end. */
static void put_unique_id(struct der_out *out, const char *spiffe_id)
{
	static const uint8_t oid[] = { 0x55, 0x04, 0x2d };
	uint8_t digest[64];
	char hex[33];
	const uint8_t *end = out->at;

	digest_of(DIGEST_SHA256, spiffe_id, strlen(spiffe_id), digest);
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	der_put_string(out, hex, 32);
	der_put_tlv(out, DER_OID, oid, sizeof oid);
	der_head(out, DER_SEQUENCE, end);
	der_head(out, DER_SET, end);
}

/* A minted SVID's subject, with the first DNS name for its common name. */
static enum code with_common_name(struct span subject, const char *common_name, struct arena *arena, struct span *out,
				  struct err *err)
{
	struct name name;

	TRY(name_parse(subject, arena, &name, err));
	name_set(&name, NAME_COMMON_NAME, common_name, arena);
	*out = name_encode(&name, arena);
	return CODE_OK;
}

static enum code build_subject(const struct x509_request *request, struct arena *arena, struct span *out,
			       struct err *err)
{
	static const uint8_t standard[] = { /* C=US, O=SPIRE */
					    0x30, 0x1d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06,
					    0x13, 0x02, 0x55, 0x53, 0x31, 0x0e, 0x30, 0x0c, 0x06, 0x03, 0x55,
					    0x04, 0x0a, 0x13, 0x05, 0x53, 0x50, 0x49, 0x52, 0x45
	};
	const char *common_name = request->n_dns_names > 0 ? request->dns_names[0] : NULL;
	struct span subject = request->subject.len > 0 ? request->subject : (struct span){ standard, sizeof standard };
	struct der_item rdns;
	struct der_out writer;
	const uint8_t *end;
	size_t bound;

	if (common_name != NULL && request->subject.len > 0) {
		TRY(with_common_name(subject, common_name, arena, &subject, err));
		common_name = NULL;
	}
	if (common_name == NULL && !request->unique_id) {
		*out = subject;
		return CODE_OK;
	}
	TRY(der_expect(&subject, DER_SEQUENCE, "RDNSequence", &rdns, err));
	bound = rdns.whole.len + (common_name == NULL ? 0 : strlen(common_name)) + 128;
	writer.start = arena_alloc(arena, bound);
	writer.at = writer.start + bound;
	end = writer.at;
	if (request->unique_id)
		put_unique_id(&writer, request->spiffe_id);
	if (common_name != NULL)
		name_put_rdn(&writer, NAME_COMMON_NAME, common_name, strlen(common_name));
	der_put(&writer, rdns.content.data, rdns.content.len);
	der_head(&writer, DER_SEQUENCE, end);
	*out = (struct span){ writer.at, (size_t)(end - writer.at) };
	return CODE_OK;
}

static struct draft draft_under(const struct x509_authority *authority)
{
	return (struct draft){
		.signer = authority->signer,
		.issuer = authority->subject,
		.authority_key_id = { authority->subject_key_id, authority->subject_key_id_len },
	};
}

static struct metric_counter signed_svids, signed_cas;

enum code x509_issue(const struct x509_authority *authority, const struct x509_request *request, struct arena *arena,
		     struct x509_svid *out, struct err *err)
{
	struct draft draft;
	char what[64];

	if (authority == NULL)
		return err_set(err, CODE_INTERNAL, "X509 CA is not available for signing");
	draft = draft_under(authority);
	draft.spki = request->spki;
	draft.constant_extensions = (struct span){ leaf_extensions, sizeof leaf_extensions };
	draft.dns_names = request->dns_names;
	draft.n_dns_names = request->n_dns_names;
	draft.uri = request->spiffe_id;
	set_lifetime(&draft, request->ttl_s, request->now_s, authority->not_after_s);
	snprintf(what, sizeof what, "invalid %s X509-SVID: invalid X509-SVID",
		 request->kind == NULL ? "workload" : request->kind);
	TRY(check_lifetime(&draft, what, request->now_s, err));
	TRY(check_dns_names(request, err));
	TRY(build_subject(request, arena, &draft.subject, err));
	new_serial(draft.serial);
	TRY(finish(&draft, arena, out, err));
	metric_count(&signed_svids, "server_ca_sign_x509_svid");
	return CODE_OK;
}

/* ---- CA certificates ---- */

enum code x509_issue_downstream(const struct x509_authority *authority, const char *trust_domain, struct span spki,
				int64_t ttl_s, int64_t now_s, struct arena *arena, struct x509_svid *out,
				struct err *err)
{
	struct draft draft;
	struct name subject;
	char unit[32];

	if (authority == NULL)
		return err_set(err, CODE_INTERNAL, "X509 CA is not available for signing");
	draft = draft_under(authority);
	draft.spki = spki;
	draft.constant_extensions = (struct span){ ca_extensions, sizeof ca_extensions };
	draft.uri = arena_printf(arena, "spiffe://%s", trust_domain);
	set_lifetime(&draft, ttl_s, now_s, authority->not_after_s);
	TRY(check_lifetime(&draft, "invalid downstream X509 CA: invalid X509 CA", now_s, err));
	TRY(name_parse(authority->subject, arena, &subject, err));
	snprintf(unit, sizeof unit, "DOWNSTREAM-%zu", authority->n_upstream > 0 ? authority->n_upstream : (size_t)1);
	name_set(&subject, NAME_UNIT, unit, arena);
	draft.subject = name_encode(&subject, arena);
	new_serial(draft.serial);
	TRY(finish(&draft, arena, out, err));
	metric_count(&signed_cas, "server_ca_sign_x509_ca_svid");
	return CODE_OK;
}

static struct span ca_subject(const struct x509_ca_subject *subject, const char *serial_number, struct arena *arena)
{
	struct name name = { 0 };

	for (size_t i = 0; i < subject->n_country; i++)
		name_add(&name, NAME_COUNTRY, subject->country[i], arena);
	for (size_t i = 0; i < subject->n_organization; i++)
		name_add(&name, NAME_ORGANIZATION, subject->organization[i], arena);
	if (subject->common_name != NULL)
		name_add(&name, NAME_COMMON_NAME, subject->common_name, arena);
	name_add(&name, NAME_SERIAL_NUMBER, serial_number, arena);
	return name_encode(&name, arena);
}

enum code x509_self_sign(EVP_PKEY *key, const struct x509_ca_subject *subject, const char *trust_domain, int64_t ttl_s,
			 int64_t now_s, struct arena *arena, struct x509_svid *out, struct err *err)
{
	OWN_STRUCT(signer) signer = NULL;
	OWN_BUF spki = { 0 };
	char serial_number[SERIAL_TEXT_MAX];
	struct draft draft = { 0 };

	TRY(signer_new(key, &signer, err));
	TRY(key_public_der(key, &spki, err));
	new_serial(draft.serial);
	serial_text(draft.serial, serial_number);
	draft.signer = signer;
	draft.subject = draft.issuer = ca_subject(subject, serial_number, arena);
	draft.spki = (struct span){ spki.data, spki.len };
	draft.constant_extensions = (struct span){ ca_extensions, sizeof ca_extensions };
	draft.uri = arena_printf(arena, "spiffe://%s", trust_domain);
	set_lifetime(&draft, ttl_s, now_s, INT64_MAX);
	return finish(&draft, arena, out, err);
}

enum code x509_sign_intermediate(const struct signer *signer, struct span issuer, struct span subject, struct span spki,
				 const char *uri, int64_t ttl_s, int64_t now_s, struct arena *arena,
				 struct x509_svid *out, struct err *err)
{
	struct draft draft = { .signer = signer, .subject = subject, .spki = spki, .uri = uri };
	struct x509_facts facts;

	TRY(x509_read(issuer, arena, &facts, err));
	TRY(x509_find_subject(issuer, &draft.issuer, err));
	if (!span_is(draft.issuer, subject.data, subject.len))
		draft.authority_key_id = facts.key_id;
	draft.constant_extensions = (struct span){ ca_extensions, sizeof ca_extensions };
	set_lifetime(&draft, ttl_s, now_s, facts.not_after_s);
	TRY(check_lifetime(&draft, "invalid intermediate X509 CA", now_s, err));
	new_serial(draft.serial);
	return finish(&draft, arena, out, err);
}

/* [0] { extensionRequest { subjectAltName { uri } } } */
static void put_request_attributes(struct der_out *out, const struct draft *draft)
{
	static const uint8_t oid[] = { 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e };
	const uint8_t *end = out->at;

	put_san(out, draft);
	der_head(out, DER_SEQUENCE, end);
	der_head(out, DER_SET, end);
	der_put(out, oid, sizeof oid);
	der_head(out, DER_SEQUENCE, end);
	der_head(out, DER_CONTEXT_CONSTRUCTED, end);
}

static void put_request_info(struct der_out *out, const struct draft *draft)
{
	static const uint8_t version_1[] = { 0x02, 0x01, 0x00 };
	const uint8_t *end = out->at;

	put_request_attributes(out, draft);
	der_put(out, draft->spki.data, draft->spki.len);
	der_put(out, draft->subject.data, draft->subject.len);
	der_put(out, version_1, sizeof version_1);
	der_head(out, DER_SEQUENCE, end);
}

enum code x509_request_ca(EVP_PKEY *key, const struct x509_ca_subject *subject, const char *trust_domain,
			  struct arena *arena, struct span *out, struct err *err)
{
	OWN_STRUCT(signer) signer = NULL;
	OWN_BUF spki = { 0 };
	char serial_number[SERIAL_TEXT_MAX];
	struct draft draft = { 0 };

	TRY(signer_new(key, &signer, err));
	TRY(key_public_der(key, &spki, err));
	new_serial(draft.serial);
	serial_text(draft.serial, serial_number);
	draft.signer = signer;
	draft.subject = ca_subject(subject, serial_number, arena);
	draft.spki = (struct span){ spki.data, spki.len };
	draft.uri = arena_printf(arena, "spiffe://%s", trust_domain);
	return write_signed(&draft, put_request_info, arena, out, err);
}

enum code x509_filter_subject(struct span der, struct arena *arena, struct span *out, struct err *err)
{
	struct name name;

	TRY(name_parse(der, arena, &name, err));
	*out = name_empty(&name) && !name.others ? (struct span){ 0 } : name_encode(&name, arena);
	return CODE_OK;
}
