/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate requests, walked in place. What SPIRE's parser refuses is refused, with its texts; an element that it
 * lets pass (attributes that it cannot read, elements behind the last expected one) is let pass. */

#include "ca/csr.h"

#include "base/gotext.h"

#include "ca/der.h"
#include "ca/name.h"

#include <string.h>

static const uint8_t oid_extension_request[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e };
static const uint8_t oid_subject_alt_name[] = { 0x55, 0x1d, 0x11 };

enum { SAN_DNS = 2, SAN_EMAIL = 1, SAN_URI = 6, SAN_IP = 7 };

enum {
	EXTENSIONS_MAX = 256, /* the search for duplicates is quadratic */
	NAMES_MAX = 16384,    /* each costs memory many times its own length */
};

static enum code malformed(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", text);
}

static enum code check_ascii(struct span content, const char *what, struct err *err)
{
	for (size_t i = 0; i < content.len; i++)
		if (content.data[i] >= 0x80)
			return err_set(err, CODE_INVALID_ARGUMENT, "x509: SAN %s is malformed", what);
	return CODE_OK;
}

/* NUL is refused: our strings end there, and a name must not be taken for its beginning. */
static enum code san_dns_name(struct span content, struct arena *arena, const char **out, struct err *err)
{
	TRY(check_ascii(content, "dNSName", err));
	if (memchr(content.data, '\0', content.len) != NULL)
		return malformed(err, "x509: SAN dNSName is malformed");
	*out = arena_strndup(arena, (const char *)content.data, content.len);
	return CODE_OK;
}

static enum code san_uri(struct span content, struct arena *arena, const char **out, struct err *err)
{
	TRY(check_ascii(content, "uniformResourceIdentifier", err));
	for (size_t i = 0; i < content.len; i++) {
		OWN_BUF quoted = { 0 };

		if (content.data[i] >= ' ' && content.data[i] != 0x7f)
			continue;
		go_quote_bytes(&quoted, (const char *)content.data, content.len);
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "x509: cannot parse URI %s: parse %s: net/url: invalid control character in URL",
			       buf_text(&quoted), buf_text(&quoted));
	}
	*out = arena_strndup(arena, (const char *)content.data, content.len);
	return CODE_OK;
}

static enum code read_san(struct span value, struct arena *arena, struct csr *out, struct err *err)
{
	struct der_item names, name;
	struct span in;
	size_t n = 0;

	if (der_expect(&value, DER_SEQUENCE, "", &names, err) != CODE_OK)
		return malformed(err, "x509: invalid subject alternative names");
	for (in = names.content; in.len > 0; n++)
		if (der_next(&in, &name, err) != CODE_OK)
			return malformed(err, "x509: invalid subject alternative name");
	if (n > NAMES_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: more than %d subject alternative names", NAMES_MAX);
	out->uris = arena_alloc(arena, n * sizeof *out->uris);
	out->dns_names = arena_alloc(arena, n * sizeof *out->dns_names);
	for (in = names.content; in.len > 0;) {
		TRY(der_next(&in, &name, err));
		switch (name.tag ^ DER_CONTEXT) {
		case SAN_URI:
			TRY(san_uri(name.content, arena, &out->uris[out->n_uris], err));
			out->n_uris++;
			break;
		case SAN_DNS:
			TRY(san_dns_name(name.content, arena, &out->dns_names[out->n_dns_names], err));
			out->n_dns_names++;
			break;
		case SAN_EMAIL:
			TRY(check_ascii(name.content, "rfc822Name", err));
			break;
		case SAN_IP:
			if (name.content.len != 4 && name.content.len != 16)
				return err_set(err, CODE_INVALID_ARGUMENT,
					       "x509: cannot parse IP address of length %zu", name.content.len);
			break;
		}
	}
	return CODE_OK;
}

/* Extension { oid, critical DEFAULT FALSE, value }. */
static enum code read_extension(struct span *in, struct span *oid, struct span *value, struct err *err)
{
	struct der_item extension, item;

	TRY(der_element(in, DER_SEQUENCE, &extension, err));
	TRY(der_expect(&extension.content, DER_OID, "ObjectIdentifier", &item, err));
	TRY(der_check_oid(item.content, err));
	*oid = item.content;
	if (der_peek(&extension.content, DER_BOOLEAN)) {
		TRY(der_next(&extension.content, &item, err));
		if (item.content.len != 1 || (item.content.data[0] != 0 && item.content.data[0] != 0xff))
			return malformed(err, "asn1: syntax error: invalid boolean");
	}
	TRY(der_expect(&extension.content, DER_OCTET_STRING, "", &item, err));
	*value = item.content;
	return CODE_OK;
}

/* True if one of the extensions between `start` and `end` (all of them were read before) has this oid. */
static bool seen_before(struct span before, struct span oid)
{
	struct span other, value;

	while (before.len > 0) {
		if (read_extension(&before, &other, &value, NULL) != CODE_OK)
			return false;
		if (span_is(other, oid.data, oid.len))
			return true;
	}
	return false;
}

/* What all attributes of a request ask for. */
struct extensions {
	struct span san;
	bool has_san;
	int n;
};

static enum code read_extensions(struct span values, struct extensions *found, struct err *err)
{
	struct der_item list;
	struct span in, oid, value;

	TRY(der_expect(&values, DER_SEQUENCE, "", &list, err));
	for (in = list.content; in.len > 0;) {
		struct span before = { list.content.data, (size_t)(in.data - list.content.data) };

		TRY(read_extension(&in, &oid, &value, err));
		if (++found->n > EXTENSIONS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "x509: certificate request contains more than %d extensions", EXTENSIONS_MAX);
		if (seen_before(before, oid))
			return malformed(err, "x509: certificate request contains duplicate requested extensions");
		if (!span_is(oid, oid_subject_alt_name, sizeof oid_subject_alt_name))
			continue;
		if (found->has_san)
			return malformed(err, "x509: certificate request contains duplicate requested extensions");
		found->san = value;
		found->has_san = true;
	}
	return CODE_OK;
}

/* An attribute that cannot be read is none of ours: SPIRE ignores it, too. */
static bool is_extension_request(struct span attribute, struct span *values)
{
	struct der_item sequence, oid, set, value;
	struct span in;

	if (der_expect(&attribute, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK ||
	    der_expect(&sequence.content, DER_OID, "", &oid, NULL) != CODE_OK ||
	    !span_is(oid.content, oid_extension_request, sizeof oid_extension_request) ||
	    der_expect(&sequence.content, DER_SET, "", &set, NULL) != CODE_OK || set.content.len == 0)
		return false;
	for (in = set.content; in.len > 0;)
		if (der_next(&in, &value, NULL) != CODE_OK)
			return false;
	*values = set.content;
	return true;
}

static enum code read_attributes(struct span in, struct arena *arena, struct csr *out, struct err *err)
{
	struct extensions found = { 0 };
	struct span values, all = in;
	struct der_item attribute;

	while (all.len > 0) /* all well-formed, before any is looked into */
		TRY(der_next(&all, &attribute, err));
	while (in.len > 0) {
		TRY(der_next(&in, &attribute, err));
		if (is_extension_request(attribute.whole, &values))
			TRY(read_extensions(values, &found, err));
	}
	return found.has_san ? read_san(found.san, arena, out, err) : CODE_OK;
}

/* CertificationRequestInfo { version, subject, subjectPKInfo, [0] attributes }. */
static enum code read_info(struct span in, struct csr *out, struct span *attributes, struct err *err)
{
	struct der_item item;

	TRY(der_expect(&in, DER_INTEGER, "int", &item, err));
	TRY(der_check_integer(item.content, err));
	if (item.content.len > 8)
		return malformed(err, "asn1: structure error: integer too large");
	TRY(der_next(&in, &item, err));
	out->subject = item.whole;
	TRY(der_expect(&in, DER_SEQUENCE, "publicKeyInfo", &item, err));
	out->spki = item.whole;
	TRY(der_expect(&in, DER_CONTEXT_CONSTRUCTED, "attributes", &item, err));
	*attributes = item.content;
	return CODE_OK;
}

/* The content of an AlgorithmIdentifier { oid, parameters OPTIONAL }. */
static enum code check_algorithm(struct span in, struct err *err)
{
	struct der_item item;

	TRY(der_expect(&in, DER_OID, "ObjectIdentifier", &item, err));
	TRY(der_check_oid(item.content, err));
	return in.len == 0 ? CODE_OK : der_next(&in, &item, err);
}

enum code csr_parse(const uint8_t *der, size_t len, struct arena *arena, struct csr *out, struct err *err)
{
	struct span in = { der, len }, attributes = { 0 };
	struct der_item request, info, algorithm, signature;
	struct csr csr = { .whole = in };

	TRY(der_expect(&in, DER_SEQUENCE, "certificateRequest", &request, err));
	TRY(der_expect(&request.content, DER_SEQUENCE, "tbsCertificateRequest", &info, err));
	csr.info = info.whole;
	TRY(read_info(info.content, &csr, &attributes, err));
	TRY(der_expect(&request.content, DER_SEQUENCE, "AlgorithmIdentifier", &algorithm, err));
	csr.signature_algorithm = algorithm.whole;
	TRY(check_algorithm(algorithm.content, err));
	TRY(der_expect(&request.content, DER_BIT_STRING, "BitString", &signature, err));
	TRY(der_bits(signature.content, &csr.signature, err));
	if (in.len != 0)
		return malformed(err, "asn1: syntax error: trailing data");
	TRY(pubkey_parse(csr.spki, arena, &csr.key, err));
	csr.spki = csr.key.der;
	TRY(name_check(csr.subject, err));
	TRY(read_attributes(attributes, arena, &csr, err));
	*out = csr;
	return CODE_OK;
}

enum code csr_verify(const struct csr *csr, struct err *err)
{
	return pubkey_verify(&csr->key, csr->signature_algorithm, csr->info, csr->signature, err);
}
