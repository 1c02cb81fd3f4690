/* SPDX-License-Identifier: Apache-2.0 */
/* Chains are searched depth first, from the leaf up: whose subject is the issuer that I name, and whose key made my
 * signature? Each complete one is then handed to OpenSSL alone, with its anchor as the only trusted certificate, for
 * everything else (validity, basic constraints, key usage, path lengths, name constraints, critical extensions).
 * OpenSSL by itself would stop at the first chain; SPIRE makes selectors of all. */

#include "ca/chain.h"

#include "base/gotext.h"
#include "base/gotime.h"
#include "ca/signer.h"

#include <openssl/objects.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	DEPTH_MAX = 16,
	SIGNATURES_MAX = 100,
};

OWNABLE(X509, X509_free)
OWNABLE(X509_STORE_CTX, X509_STORE_CTX_free)
OWNABLE(BIO, BIO_free)

/* ---- sets of certificates ---- */

void certs_done(struct certs *certs)
{
	for (size_t i = 0; i < certs->n; i++)
		X509_free(certs->list[i]);
	free(certs->list);
	*certs = (struct certs){ 0 };
}

void certs_add(struct certs *certs, X509 *cert)
{
	certs->list = xrealloc(certs->list, (certs->n + 1) * sizeof(X509 *));
	certs->list[certs->n++] = cert;
}

static bool certs_have(const struct certs *certs, const X509 *cert)
{
	for (size_t i = 0; i < certs->n; i++)
		if (X509_cmp(certs->list[i], cert) == 0)
			return true;
	return false;
}

enum code cert_parse(struct span der, X509 **out, struct err *err)
{
	const uint8_t *at = der.data;
	OWN(X509) cert = der.len == 0 ? NULL : d2i_X509(NULL, &at, (long)der.len);

	if (cert == NULL)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "x509: malformed certificate");
	if (at != der.data + der.len)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: trailing data");
	if (ASN1_STRING_type(X509_get0_serialNumber(cert)) == V_ASN1_NEG_INTEGER)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: negative serial number");
	/* Reads the extensions into the certificate now, while nobody else has it. */
	if (X509_check_purpose(cert, -1, 0) != 1 || (X509_get_extension_flags(cert) & EXFLAG_INVALID))
		return err_crypto(err, CODE_INVALID_ARGUMENT, "x509: malformed extension");
	*out = TAKE(cert);
	return CODE_OK;
}

static enum code load_blocks(BIO *file, struct certs *out, struct err *err)
{
	for (int block = 0;; block++) {
		char *name = NULL, *header = NULL;
		unsigned char *data = NULL;
		long len = 0;
		X509 *cert = NULL;
		enum code rc = CODE_OK;

		if (PEM_read_bio(file, &name, &header, &data, &len) != 1) {
			err_crypto(NULL, CODE_INVALID_ARGUMENT, "no more blocks");
			return CODE_OK;
		}
		if (strcmp(name, PEM_STRING_X509) == 0)
			rc = cert_parse((struct span){ data, (size_t)len }, &cert, err);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_free(data);
		if (rc != CODE_OK)
			return err_wrap(err, rc, "unable to parse certificate in block %d", block);
		if (cert != NULL)
			certs_add(out, cert);
	}
}

enum code certs_load(const char *path, struct certs *out, struct err *err)
{
	OWN(BIO) file = NULL;
	size_t before = out->n;

	errno = 0;
	file = BIO_new_file(path, "r");
	if (file == NULL) {
		int number = errno;

		err_crypto(NULL, CODE_INVALID_ARGUMENT, "drain");
		return err_errno(err, CODE_INVALID_ARGUMENT, number, "open", path);
	}
	TRY(load_blocks(file, out, err));
	return out->n > before ? CODE_OK : err_set(err, CODE_INVALID_ARGUMENT, "no certificates found in file");
}

/* ---- the search ---- */

struct search {
	const struct certs *intermediates, *roots;
	int64_t now_s;
	struct certs *issuers;
	int signatures;
	bool found;
	struct err *err; /* why the last complete chain did not hold */
	bool told;
	const char *hint; /* why the first candidate with the right name was none; with the candidate */
	X509 *hinted;
	X509 *path[DEPTH_MAX];  /* the leaf and those above it */
	size_t next[DEPTH_MAX]; /* which candidate to try as its issuer: roots first, then intermediates */
};

/* Unix time. What OpenSSL let into a certificate it can also convert. */
static int64_t seconds_of(const ASN1_TIME *at)
{
	struct tm tm = { 0 };

	ASN1_TIME_to_tm(at, &tm);
	return (int64_t)timegm(&tm);
}

static enum code check_validity(const X509 *cert, int64_t now_s, struct err *err)
{
	int64_t not_before_s = seconds_of(X509_get0_notBefore(cert)),
		not_after_s = seconds_of(X509_get0_notAfter(cert));
	char now[GO_TIME_MAX], limit[GO_TIME_MAX];

	if (now_s >= not_before_s && now_s <= not_after_s)
		return CODE_OK;
	return err_set(err, CODE_PERMISSION_DENIED,
		       "x509: certificate has expired or is not yet valid: current time %s is %s %s",
		       go_time_rfc3339(now_s, now), now_s < not_before_s ? "before" : "after",
		       go_time_rfc3339(now_s < not_before_s ? not_before_s : not_after_s, limit));
}

static void tell(struct search *search, X509_STORE_CTX *ctx)
{
	int error = X509_STORE_CTX_get_error(ctx);
	X509 *cert = X509_STORE_CTX_get_current_cert(ctx);

	search->told = true;
	if (error == X509_V_ERR_PATH_LENGTH_EXCEEDED)
		err_set(search->err, CODE_PERMISSION_DENIED, "x509: too many intermediates for path length constraint");
	else if (cert == NULL || check_validity(cert, search->now_s, search->err) == CODE_OK)
		err_set(search->err, CODE_PERMISSION_DENIED, "x509: %s", X509_verify_cert_error_string(error));
}

/* path[0 .. depth] and `anchor` (NULL: path[depth] is the anchor itself), by OpenSSL. */
static bool holds(struct search *search, size_t depth, X509 *anchor)
{
	OWN(X509_STORE_CTX) ctx = X509_STORE_CTX_new();
	STACK_OF(X509) *trusted = sk_X509_new_null(), *untrusted = sk_X509_new_null();
	X509_VERIFY_PARAM *param;
	bool good = false;

	for (size_t i = 1; i <= depth; i++)
		sk_X509_push(untrusted, search->path[i]);
	sk_X509_push(trusted, anchor == NULL ? search->path[depth] : anchor);
	if (X509_STORE_CTX_init(ctx, NULL, search->path[0], untrusted) == 1) {
		X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
		param = X509_STORE_CTX_get0_param(ctx);
		X509_VERIFY_PARAM_set_time(param, (time_t)search->now_s);
		X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
		X509_VERIFY_PARAM_set_depth(param, DEPTH_MAX);
		good = X509_verify_cert(ctx) == 1;
		if (!good)
			tell(search, ctx);
	}
	err_crypto(NULL, CODE_PERMISSION_DENIED, "drain");
	sk_X509_free(trusted);
	sk_X509_free(untrusted);
	return good;
}

static void keep(struct search *search, X509 *cert)
{
	if (certs_have(search->issuers, cert))
		return;
	X509_up_ref(cert);
	certs_add(search->issuers, cert);
}

/* The same subject and key are the same issuer: going through it again leads nowhere new. */
static bool in_path(const struct search *search, size_t depth, const X509 *cert)
{
	for (size_t i = 0; i <= depth; i++)
		if (X509_cmp(search->path[i], cert) == 0 ||
		    (X509_NAME_cmp(X509_get_subject_name(search->path[i]), X509_get_subject_name(cert)) == 0 &&
		     EVP_PKEY_eq(X509_get0_pubkey(search->path[i]), X509_get0_pubkey(cert)) == 1))
			return true;
	return false;
}

/* NULL: the digest of its signature is strong enough. */
static const char *weak_signature(const X509 *cert)
{
	int digest = NID_undef, key = NID_undef;

	if (OBJ_find_sigid_algs(X509_get_signature_nid(cert), &digest, &key) != 1)
		return NULL; /* no digest of its own, as Ed25519 */
	if (digest == NID_sha1)
		return key == NID_X9_62_id_ecPublicKey ? "x509: cannot verify signature: insecure algorithm ECDSA-SHA1"
						       : "x509: cannot verify signature: insecure algorithm SHA1-RSA";
	if (digest == NID_md5 || digest == NID_md5_sha1 || digest == NID_md4 || digest == NID_md2)
		return "x509: cannot verify signature: insecure algorithm MD5-RSA";
	return NULL;
}

static const char *bad_signature(X509 *issuer)
{
	switch (EVP_PKEY_get_base_id(X509_get0_pubkey(issuer))) {
	case EVP_PKEY_RSA:
		return "crypto/rsa: verification error";
	case EVP_PKEY_ED25519:
		return "x509: Ed25519 verification failure";
	default:
		return "x509: ECDSA verification failure";
	}
}

/* Why `issuer`, whose name is right, did not sign `cert`; NULL: it did. A version 3 issuer has to say that it is a CA:
 * OpenSSL would let some pass that do not. */
static const char *why_not(X509 *cert, X509 *issuer)
{
	uint32_t flags = X509_get_extension_flags(issuer);
	const char *weak = weak_signature(cert);
	bool good;

	if ((X509_get_version(issuer) == X509_VERSION_3 && !(flags & EXFLAG_CA)) ||
	    ((flags & EXFLAG_KUSAGE) && !(X509_get_key_usage(issuer) & KU_KEY_CERT_SIGN)))
		return "x509: invalid signature: parent certificate cannot sign this kind of certificate";
	if (weak != NULL)
		return weak;
	if (X509_get0_pubkey(issuer) == NULL)
		return "x509: cannot verify signature: algorithm unimplemented";
	good = X509_verify(cert, X509_get0_pubkey(issuer)) == 1;
	err_crypto(NULL, CODE_PERMISSION_DENIED, "drain");
	return good ? NULL : bad_signature(issuer);
}

static bool issued(struct search *search, X509 *cert, X509 *issuer)
{
	const char *why;

	if (X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(issuer)) != 0 ||
	    search->signatures++ >= SIGNATURES_MAX)
		return false;
	why = why_not(cert, issuer);
	if (why != NULL && search->hint == NULL) {
		search->hint = why;
		search->hinted = issuer;
	}
	return why == NULL;
}

static void try_root(struct search *search, size_t depth, X509 *root)
{
	if (in_path(search, depth, root) || !issued(search, search->path[depth], root) || !holds(search, depth, root))
		return;
	search->found = true;
	for (size_t i = 1; i <= depth; i++)
		keep(search, search->path[i]);
	keep(search, root);
}

static void search_all(struct search *search)
{
	size_t depth = 0;

	for (;;) {
		size_t candidate = search->next[depth]++;

		if (candidate < search->roots->n) {
			try_root(search, depth, search->roots->list[candidate]);
		} else if (candidate < search->roots->n + search->intermediates->n) {
			X509 *issuer = search->intermediates->list[candidate - search->roots->n];

			if (depth + 1 < DEPTH_MAX && !in_path(search, depth, issuer) &&
			    issued(search, search->path[depth], issuer)) {
				search->path[++depth] = issuer;
				search->next[depth] = 0;
			}
		} else if (depth-- == 0) {
			return;
		}
	}
}

static enum code tell_unknown(struct search *search)
{
	static const char text[] = "x509: certificate signed by unknown authority";
	X509_NAME *subject = search->hinted == NULL ? NULL : X509_get_subject_name(search->hinted);
	OWN_BUF quoted = { 0 };
	char name[256] = "";

	if (search->hinted == NULL)
		return err_set(search->err, CODE_PERMISSION_DENIED, "%s", text);
	if (X509_NAME_get_text_by_NID(subject, NID_commonName, name, sizeof name) <= 0)
		X509_NAME_get_text_by_NID(subject, NID_organizationName, name, sizeof name);
	go_quote(&quoted, name);
	return err_set(search->err, CODE_PERMISSION_DENIED,
		       "%s (possibly because of \"%s\" while trying to verify candidate authority certificate %s)",
		       text, search->hint, buf_text(&quoted));
}

enum code chain_verify(X509 *leaf, const struct certs *intermediates, const struct certs *roots, int64_t now_s,
		       struct certs *issuers, struct err *err)
{
	struct search search = { .intermediates = intermediates,
				 .roots = roots,
				 .now_s = now_s,
				 .issuers = issuers,
				 .err = err,
				 .path = { leaf } };

	TRY(check_validity(leaf, now_s, err));
	if (certs_have(roots, leaf) && holds(&search, 0, NULL))
		return CODE_OK; /* trusted by itself: a chain of one */
	search_all(&search);
	if (search.found)
		return CODE_OK;
	return search.told ? CODE_PERMISSION_DENIED : tell_unknown(&search);
}
