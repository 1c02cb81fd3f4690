/* SPDX-License-Identifier: Apache-2.0 */
/* Reading certificates: what others made, so OpenSSL's parser does it. None of it is on the path of signing. */

#include "ca/x509.h"

#include "ca/der.h"
#include "ca/pubkey.h"
#include "ca/signer.h"

#include <openssl/bn.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

OWNABLE(X509, X509_free)
OWNABLE(BIGNUM, BN_free)
OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)

static enum code read_time(const ASN1_TIME *at, int64_t *out, struct err *err)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(at, &tm) != 1)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "malformed validity");
	*out = (int64_t)timegm(&tm);
	return CODE_OK;
}

static enum code read_serial(const X509 *cert, char out[SERIAL_TEXT_MAX], struct err *err)
{
	OWN(BIGNUM) number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	char *text = number == NULL ? NULL : BN_bn2dec(number);
	enum code rc = CODE_OK;

	if (text == NULL)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "malformed serial number");
	if (strlen(text) >= SERIAL_TEXT_MAX)
		rc = err_set(err, CODE_INVALID_ARGUMENT, "serial number is longer than 20 octets");
	else
		memcpy(out, text, strlen(text) + 1);
	OPENSSL_free(text);
	return rc;
}

static enum code read_uris(X509 *cert, struct arena *arena, struct x509_facts *out, struct err *err)
{
	OWN(GENERAL_NAMES) names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *uri = name->d.uniformResourceIdentifier;
		size_t len;

		if (name->type != GEN_URI)
			continue;
		len = (size_t)ASN1_STRING_length(uri);
		if (memchr(ASN1_STRING_get0_data(uri), '\0', len) != NULL)
			return err_set(err, CODE_INVALID_ARGUMENT, "URI SAN has a NUL octet");
		if (out->n_uris++ == 0)
			out->uri = arena_strndup(arena, (const char *)ASN1_STRING_get0_data(uri), len);
	}
	return CODE_OK;
}

static enum code read_key_id(const ASN1_OCTET_STRING *id, char out[AUTHORITY_ID_MAX], struct err *err)
{
	OWN_BUF hex = { 0 };

	out[0] = '\0';
	if (id == NULL)
		return CODE_OK;
	if (ASN1_STRING_length(id) > SUBJECT_KEY_ID_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "key id is longer than %d octets", SUBJECT_KEY_ID_MAX);
	buf_hex(&hex, ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id));
	snprintf(out, AUTHORITY_ID_MAX, "%s", buf_text(&hex));
	return CODE_OK;
}

static enum code parse(struct span der, X509 **out, const uint8_t **end, struct err *err)
{
	*end = der.data;
	*out = der.len > 0 ? d2i_X509(NULL, end, (long)der.len) : NULL;
	if (*out == NULL)
		return der.len == 0 ? err_set(err, CODE_INVALID_ARGUMENT, "malformed certificate: it is empty")
				    : err_crypto(err, CODE_INVALID_ARGUMENT, "malformed certificate");
	if (X509_get_extension_flags(*out) & EXFLAG_INVALID)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "malformed certificate: an extension is malformed");
	return CODE_OK;
}

enum code x509_read(struct span der, struct arena *arena, struct x509_facts *out, struct err *err)
{
	OWN(X509) cert = NULL;
	struct x509_facts facts = { 0 };
	const uint8_t *end;
	uint32_t usage;

	TRY(parse(der, &cert, &end, err));
	if (end != der.data + der.len)
		return err_set(err, CODE_INVALID_ARGUMENT, "malformed certificate: trailing data");
	TRY(read_serial(cert, facts.serial, err));
	TRY(read_time(X509_get0_notBefore(cert), &facts.not_before_s, err));
	TRY(read_time(X509_get0_notAfter(cert), &facts.not_after_s, err));
	TRY(read_uris(cert, arena, &facts, err));
	TRY(read_key_id(X509_get0_subject_key_id(cert), facts.subject_key_id, err));
	TRY(read_key_id(X509_get0_authority_key_id(cert), facts.authority_key_id, err));
	if (X509_get0_subject_key_id(cert) != NULL) {
		const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(cert);

		facts.key_id.len = (size_t)ASN1_STRING_length(id);
		facts.key_id.data = arena_memdup(arena, ASN1_STRING_get0_data(id), facts.key_id.len);
	}
	facts.is_ca = (X509_get_extension_flags(cert) & EXFLAG_CA) != 0;
	usage = X509_get_extension_flags(cert) & EXFLAG_KUSAGE ? X509_get_key_usage(cert) : 0;
	facts.key_cert_sign = (usage & KU_KEY_CERT_SIGN) != 0;
	facts.crl_sign = (usage & KU_CRL_SIGN) != 0;
	*out = facts;
	return CODE_OK;
}

enum code x509_find_subject(struct span cert, struct span *out, struct err *err)
{
	struct der_item certificate, tbs, item;
	struct span in;

	TRY(der_expect(&cert, DER_SEQUENCE, "certificate", &certificate, err));
	TRY(der_expect(&certificate.content, DER_SEQUENCE, "tbsCertificate", &tbs, err));
	in = tbs.content;
	if (der_peek(&in, DER_CONTEXT_CONSTRUCTED))
		TRY(der_next(&in, &item, err));
	TRY(der_expect(&in, DER_INTEGER, "serial", &item, err));
	TRY(der_expect(&in, DER_SEQUENCE, "signature", &item, err));
	TRY(der_expect(&in, DER_SEQUENCE, "issuer", &item, err));
	TRY(der_expect(&in, DER_SEQUENCE, "validity", &item, err));
	TRY(der_expect(&in, DER_SEQUENCE, "subject", &item, err));
	*out = item.whole;
	return CODE_OK;
}

enum code x509_split(struct span certs, struct arena *arena, struct span **out, size_t *n, struct err *err)
{
	struct span rest = certs, *list;
	struct der_item item;
	size_t count = 0;

	if (certs.len == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "malformed certificate: it is empty");
	for (; rest.len > 0; count++)
		if (der_expect(&rest, DER_SEQUENCE, "certificate", &item, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "malformed certificate");
	list = arena_alloc(arena, count * sizeof *list);
	rest = certs;
	for (size_t i = 0; i < count; i++) {
		OWN(X509) cert = NULL;
		const uint8_t *end;

		TRY(der_expect(&rest, DER_SEQUENCE, "certificate", &item, err));
		list[i] = item.whole;
		TRY(parse(item.whole, &cert, &end, err));
	}
	*out = list;
	*n = count;
	return CODE_OK;
}

enum code key_check_pkix(struct span der, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct pubkey key;

	return pubkey_parse(der, arena, &key, err);
}
