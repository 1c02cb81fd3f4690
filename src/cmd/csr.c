/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/csr.h"

#include "base/gotext.h"
#include "base/own.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

static void free_extensions(STACK_OF(X509_EXTENSION) * extensions)
{
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
}

typedef STACK_OF(X509_EXTENSION) extensions_t;

OWNABLE(EVP_PKEY, EVP_PKEY_free)
OWNABLE(X509_REQ, X509_REQ_free)
OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)
OWNABLE(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free)
OWNABLE(extensions_t, free_extensions)

static enum code failed(struct err *err)
{
	char text[256];

	ERR_error_string_n(ERR_get_error(), text, sizeof text);
	ERR_clear_error();
	return err_set(err, CODE_INTERNAL, "%s", text);
}

static enum code add_name(GENERAL_NAMES *names, int type, const char *text, struct err *err)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *value = ASN1_IA5STRING_new();

	if (name == NULL || value == NULL || ASN1_STRING_set(value, text, -1) != 1 ||
	    sk_GENERAL_NAME_push(names, name) == 0) {
		GENERAL_NAME_free(name);
		ASN1_IA5STRING_free(value);
		return failed(err);
	}
	GENERAL_NAME_set0_value(name, type, value); /* the list owns name, the name owns value */
	return CODE_OK;
}

static bool is_ascii(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text > 0x7F)
			return false;
	return true;
}

static enum code add_names(X509_REQ *request, const char *uri, const struct strings *dns_names, struct err *err)
{
	OWN(GENERAL_NAMES) names = GENERAL_NAMES_new();
	OWN(extensions_t) extensions = NULL;

	for (size_t i = 0; i < dns_names->n; i++) {
		OWN_BUF quoted = { 0 };

		go_quote(&quoted, dns_names->items[i]);
		if (!is_ascii(dns_names->items[i]))
			return err_set(err, CODE_INVALID_ARGUMENT, "x509: %s cannot be encoded as an IA5String",
				       buf_text(&quoted));
		TRY(add_name(names, GEN_DNS, dns_names->items[i], err));
	}
	TRY(add_name(names, GEN_URI, uri, err));
	if (X509V3_add1_i2d(&extensions, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) != 1 ||
	    X509_REQ_add_extensions(request, extensions) != 1)
		return failed(err);
	return CODE_OK;
}

static enum code take_der(int len, uint8_t *der, struct buf *out, struct err *err)
{
	if (len <= 0)
		return failed(err);
	buf_append(out, der, (size_t)len);
	OPENSSL_clear_free(der, (size_t)len);
	return CODE_OK;
}

enum code csr_make(const char *uri, const struct strings *dns_names, struct buf *csr, struct buf *key, struct err *err)
{
	OWN(EVP_PKEY) pair = EVP_EC_gen("P-256");
	OWN(X509_REQ) request = X509_REQ_new();
	OWN(PKCS8_PRIV_KEY_INFO) info = NULL;
	uint8_t *der = NULL;
	int len;

	if (pair == NULL || request == NULL || X509_REQ_set_version(request, 0) != 1 ||
	    X509_REQ_set_pubkey(request, pair) != 1)
		return failed(err);
	TRY(add_names(request, uri, dns_names, err));
	if (X509_REQ_sign(request, pair, EVP_sha256()) == 0)
		return failed(err);
	info = EVP_PKEY2PKCS8(pair);
	if (info == NULL)
		return failed(err);
	len = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
	TRY(take_der(len, der, key, err));
	der = NULL;
	len = i2d_X509_REQ(request, &der);
	return take_der(len, der, csr, err);
}
