/* SPDX-License-Identifier: Apache-2.0 */
/* Test certificates: every call into OpenSSL must work, so none returns an error. */
#include "lib/pki.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(int worked, const char *what)
{
	if (worked)
		return;
	fprintf(stderr, "pki: %s\n", what);
	ERR_print_errors_fp(stderr);
	abort();
}
#define MUST(call) must((call) > 0, #call)

EVP_PKEY *pki_key(const char *kind)
{
	EVP_PKEY *key;

	if (strncmp(kind, "RSA-", 4) == 0)
		key = EVP_RSA_gen((unsigned)atoi(kind + 4));
	else if (strcmp(kind, "ED25519") == 0)
		key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	else
		key = EVP_EC_gen(kind);
	must(key != NULL, kind);
	return key;
}

static X509_NAME *name_of(const char *text)
{
	X509_NAME *name = X509_NAME_new();
	char *copy = strdup(text), *rest = copy, *part;

	must(name != NULL && copy != NULL, text);
	while ((part = strsep(&rest, "/")) != NULL) {
		char *value = strchr(part, '=');

		if (value == NULL)
			continue;
		*value++ = '\0';
		MUST(X509_NAME_add_entry_by_txt(name, part, V_ASN1_UTF8STRING, (unsigned char *)value, -1, -1, 0));
	}
	free(copy);
	return name;
}

void pki_csr(struct buf *der, EVP_PKEY *key, const char *subject, const char *san, const char *md)
{
	X509_REQ *request = X509_REQ_new();
	X509_NAME *name = name_of(subject);
	unsigned char *out = NULL;
	int len;

	MUST(X509_REQ_set_version(request, 0));
	MUST(X509_REQ_set_subject_name(request, name));
	MUST(X509_REQ_set_pubkey(request, key));
	if (san != NULL) {
		STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();

		sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san));
		MUST(X509_REQ_add_extensions(request, list));
		sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	}
	MUST(X509_REQ_sign(request, key, md == NULL ? NULL : EVP_get_digestbyname(md)));
	len = i2d_X509_REQ(request, &out);
	MUST(len);
	buf_append(der, out, (size_t)len);
	OPENSSL_free(out);
	X509_NAME_free(name);
	X509_REQ_free(request);
}

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension;

	if (value == NULL)
		return;
	extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
	must(extension != NULL, value);
	MUST(X509_add_ext(cert, extension, -1));
	X509_EXTENSION_free(extension);
}

static void set_time(ASN1_TIME *at, const char *text, long offset_s)
{
	if (text == NULL)
		must(X509_gmtime_adj(at, offset_s) != NULL, "time");
	else
		MUST(ASN1_TIME_set_string_X509(at, text));
}

X509 *pki_cert(const struct pki_cert *wanted)
{
	X509 *cert = X509_new();
	X509_NAME *subject = name_of(wanted->subject);
	EVP_PKEY *signer = wanted->issuer_key == NULL ? wanted->key : wanted->issuer_key;
	BIGNUM *serial = NULL;

	MUST(X509_set_version(cert, 2));
	MUST(BN_dec2bn(&serial, wanted->serial == NULL ? "1" : wanted->serial));
	must(BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert)) != NULL, "serial");
	MUST(X509_set_subject_name(cert, subject));
	MUST(X509_set_issuer_name(cert, wanted->issuer == NULL ? subject : X509_get_subject_name(wanted->issuer)));
	set_time(X509_getm_notBefore(cert), wanted->not_before, -3600);
	set_time(X509_getm_notAfter(cert), wanted->not_after, 3600);
	MUST(X509_set_pubkey(cert, wanted->key));
	add_extension(cert, NID_basic_constraints, wanted->constraints);
	add_extension(cert, NID_key_usage, wanted->key_usage);
	add_extension(cert, NID_ext_key_usage, wanted->ext_key_usage);
	add_extension(cert, NID_subject_alt_name, wanted->san);
	MUST(X509_sign(cert, signer, EVP_PKEY_get_base_id(signer) == EVP_PKEY_ED25519 ? NULL : EVP_sha256()));
	BN_free(serial);
	X509_NAME_free(subject);
	return cert;
}

void pki_der(struct buf *out, X509 *cert)
{
	unsigned char *der = NULL;
	int len = i2d_X509(cert, &der);

	MUST(len);
	buf_append(out, der, (size_t)len);
	OPENSSL_free(der);
}

void pki_pem_file(const char *path, X509 *const *certs, size_t n)
{
	FILE *file = fopen(path, "w");

	must(file != NULL, path);
	for (size_t i = 0; i < n; i++)
		MUST(PEM_write_X509(file, certs[i]));
	must(fclose(file) == 0, path);
}
