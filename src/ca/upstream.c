/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream authorities. "disk" keeps what it read last as one set that is swapped whole: a reload that fails half way
 * leaves the former one as it was. */

#include "ca/upstream.h"

#include "base/gotime.h"
#include "ca/chain.h"
#include "ca/csr.h"
#include "ca/signer.h"
#include "ca/x509.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TTL_S = 3600 };

OWNABLE(X509, X509_free)
OWNABLE(BIO, BIO_free)
OWNABLE_STRUCT(x509_authority, x509_authority_free)

/* ---- the check ---- */

static enum code check_ca(struct span cert, const char *trust_domain, struct arena *arena, struct x509_facts *facts,
			  struct err *err)
{
	const char *wanted = arena_printf(arena, "spiffe://%s", trust_domain);
	OWN(X509) parsed = NULL;
	uint32_t usage;

	TRY(cert_parse(cert, &parsed, err));
	TRY(x509_read(cert, arena, facts, err));
	if (!(X509_get_extension_flags(parsed) & EXFLAG_BCONS))
		return err_set(err, CODE_INTERNAL, "basic constraints are not valid");
	if (!facts->is_ca)
		return err_set(err, CODE_INTERNAL, "cA constraint is not set");
	if (!facts->key_cert_sign)
		return err_set(err, CODE_INTERNAL, "keyCertSign key usage must be set");
	usage = X509_get_key_usage(parsed);
	if (usage & ~(uint32_t)(KU_KEY_CERT_SIGN | KU_CRL_SIGN | KU_DIGITAL_SIGNATURE))
		return err_set(err, CODE_INTERNAL,
			       "only keyCertSign, cRLSign, or digitalSignature key usage can be set");
	if (facts->n_uris > 1 || (facts->n_uris == 1 && strcmp(facts->uri, wanted) != 0))
		return err_set(err, CODE_INTERNAL, "expected URI SAN \"%s\" but got \"%s\"%s", wanted, facts->uri,
			       facts->n_uris > 1 ? " and others" : "");
	return CODE_OK;
}

static enum code check_now(const struct x509_facts *facts, int64_t now_s, struct err *err)
{
	char text[GO_TIME_MAX];

	if (now_s < facts->not_before_s)
		return err_set(err, CODE_INTERNAL, "not yet valid until %s",
			       go_time_rfc3339(facts->not_before_s, text));
	if (now_s > facts->not_after_s)
		return err_set(err, CODE_INTERNAL, "already expired as of %s",
			       go_time_rfc3339(facts->not_after_s, text));
	return CODE_OK;
}

static enum code parse_all(const struct span *ders, size_t n, struct certs *out, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		X509 *cert;

		TRY(cert_parse(ders[i], &cert, err));
		certs_add(out, cert);
	}
	return CODE_OK;
}

/* An SVID as it would be: signed with the new key, for nobody, verified as a peer would do it. */
static enum code try_svid(EVP_PKEY *key, const struct span *chain, size_t n_chain, const struct span *roots,
			  size_t n_roots, const char *trust_domain, int64_t now_s, struct arena *arena, struct err *err)
{
	OWN_STRUCT(x509_authority) authority = NULL;
	OWN_CERTS intermediates = { 0 };
	OWN_CERTS anchors = { 0 };
	OWN_CERTS issuers = { 0 };
	OWN(X509) leaf = NULL;
	OWN_BUF spki = { 0 };
	struct x509_request request = { .ttl_s = 3600, .now_s = now_s };
	struct x509_svid svid;

	EVP_PKEY_up_ref(key);
	if (x509_authority_new(key, chain[0], NULL, 0, &authority, err) != CODE_OK) {
		EVP_PKEY_free(key);
		return CODE_INTERNAL;
	}
	TRY(key_public_der(key, &spki, err));
	request.spiffe_id = arena_printf(arena, "spiffe://%s/spire/throwaway", trust_domain);
	request.spki = (struct span){ spki.data, spki.len };
	TRY(x509_issue(authority, &request, arena, &svid, err));
	TRY(cert_parse(svid.cert, &leaf, err));
	TRY(parse_all(chain, n_chain, &intermediates, err));
	TRY(parse_all(roots, n_roots, &anchors, err));
	return chain_verify(leaf, &intermediates, &anchors, now_s, &issuers, err);
}

enum code upstream_check(EVP_PKEY *key, const struct span *chain, size_t n_chain, const struct span *roots,
			 size_t n_roots, const char *trust_domain, int64_t now_s, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct x509_facts facts;

	if (n_chain == 0)
		return err_set(err, CODE_INTERNAL, "the upstream authority answered no certificate");
	if (check_ca(chain[0], trust_domain, arena, &facts, err) != CODE_OK ||
	    check_now(&facts, now_s, err) != CODE_OK) {
		err_wrap(err, CODE_INTERNAL, "invalid X509 CA");
		return err_wrap(err, CODE_INTERNAL, "invalid upstream-signed X509 CA");
	}
	if (try_svid(key, chain, n_chain, roots, n_roots, trust_domain, now_s, arena, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "X509 CA produced an invalid X509-SVID chain");
	return CODE_OK;
}

/* ---- "disk" ---- */

struct loaded {
	struct signer *signer;
	struct buf cert; /* the CA's own, DER */
	struct certs chain, roots;
};

struct upstream_disk {
	char *cert_path, *key_path, *bundle_path;
	struct loaded loaded;
};

static void loaded_done(struct loaded *loaded)
{
	signer_free(loaded->signer);
	buf_done(&loaded->cert);
	certs_done(&loaded->chain);
	certs_done(&loaded->roots);
	*loaded = (struct loaded){ 0 };
}

static int no_passphrase(char *out, int size, int writing, void *held)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)held;
	return -1;
}

static enum code load_key(const char *path, EVP_PKEY **out, struct err *err)
{
	OWN(BIO) file = NULL;

	errno = 0;
	file = BIO_new_file(path, "r");
	if (file == NULL) {
		int number = errno;

		err_crypto(NULL, CODE_INVALID_ARGUMENT, "drain");
		return err_errno(err, CODE_INVALID_ARGUMENT, number, "open", path);
	}
	*out = PEM_read_bio_PrivateKey(file, NULL, no_passphrase, NULL);
	if (*out == NULL)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "no private key in PEM in \"%s\"", path);
	return CODE_OK;
}

static void add_ref(struct certs *certs, X509 *cert)
{
	X509_up_ref(cert);
	certs_add(certs, cert);
}

static enum code load_certs(const struct upstream_disk *disk, struct loaded *out, struct err *err)
{
	OWN_CERTS certs = { 0 };
	uint8_t *der = NULL;
	int len;

	if (certs_load(disk->cert_path, &certs, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load upstream CA cert");
	if (disk->bundle_path == NULL) {
		if (certs.n != 1)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "with no bundle_file_path configured only self-signed CAs are supported");
		add_ref(&out->roots, certs.list[0]);
	} else {
		if (certs_load(disk->bundle_path, &out->roots, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load upstream CA bundle");
		for (size_t i = 0; i < certs.n; i++)
			add_ref(&out->chain, certs.list[i]);
	}
	len = i2d_X509(certs.list[0], &der);
	buf_append(&out->cert, der, len > 0 ? (size_t)len : 0);
	OPENSSL_free(der);
	return CODE_OK;
}

static enum code load(const struct upstream_disk *disk, int64_t now_s, struct loaded *out, struct err *err)
{
	OWN(EVP_PKEY) key = NULL;
	OWN(X509) cert = NULL;
	OWN_CERTS issuers = { 0 };

	if (load_key(disk->key_path, &key, err) != CODE_OK || signer_new(key, &out->signer, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load upstream CA key");
	TRY(load_certs(disk, out, err));
	TRY(cert_parse((struct span){ out->cert.data, out->cert.len }, &cert, err));
	if (X509_check_private_key(cert, key) != 1) {
		err_crypto(NULL, CODE_INVALID_ARGUMENT, "drain");
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to load upstream CA: certificate and private key do not match");
	}
	if (chain_verify(cert, &out->chain, &out->roots, now_s, &issuers, err) != CODE_OK) {
		err_wrap(err, CODE_INVALID_ARGUMENT,
			 "certificate cannot be validated with the provided bundle or is not self-signed");
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load upstream CA");
	}
	return CODE_OK;
}

static bool given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

enum code upstream_disk_open(const struct upstream_disk_options *options, int64_t now_s, struct upstream_disk **out,
			     struct err *err)
{
	OWN_STRUCT(upstream_disk) disk = xcalloc(1, sizeof *disk);

	if (!given(options->cert_file_path) || !given(options->key_file_path))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "'cert_file_path' and 'key_file_path' must be set and not empty");
	disk->cert_path = xstrdup(options->cert_file_path);
	disk->key_path = xstrdup(options->key_file_path);
	disk->bundle_path = given(options->bundle_file_path) ? xstrdup(options->bundle_file_path) : NULL;
	TRY(load(disk, now_s, &disk->loaded, err));
	*out = TAKE(disk);
	return CODE_OK;
}

void upstream_disk_close(struct upstream_disk *disk)
{
	if (disk == NULL)
		return;
	loaded_done(&disk->loaded);
	free(disk->cert_path);
	free(disk->key_path);
	free(disk->bundle_path);
	free(disk);
}

static void reload(struct upstream_disk *disk, int64_t now_s)
{
	struct loaded fresh = { 0 };

	if (load(disk, now_s, &fresh, NULL) != CODE_OK) {
		loaded_done(&fresh);
		return;
	}
	loaded_done(&disk->loaded);
	disk->loaded = fresh;
}

static struct span der_of(X509 *cert, struct arena *arena)
{
	uint8_t *der = NULL;
	int len = i2d_X509(cert, &der);
	struct span span = { arena_memdup(arena, der, len > 0 ? (size_t)len : 0), len > 0 ? (size_t)len : 0 };

	OPENSSL_free(der);
	return span;
}

static enum code sign(const struct loaded *loaded, struct span csr_der, const char *trust_domain, int64_t ttl_s,
		      int64_t now_s, struct arena *arena, struct span *out, struct err *err)
{
	const char *wanted = arena_printf(arena, "spiffe://%s", trust_domain);
	struct x509_svid made;
	struct csr csr;

	if (csr_parse(csr_der.data, csr_der.len, arena, &csr, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "unable to parse CSR");
	if (csr_verify(&csr, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "CSR signature check failed");
	if (csr.n_uris != 1)
		return err_set(err, CODE_INTERNAL, "CSR must have exactly one URI SAN");
	if (strcmp(csr.uris[0], wanted) != 0)
		return err_set(
			err, CODE_INTERNAL,
			"CSR with SPIFFE ID \"%s\" is invalid: must use the trust domain ID for trust domain \"%s\"",
			csr.uris[0], trust_domain);
	TRY(x509_sign_intermediate(loaded->signer, (struct span){ loaded->cert.data, loaded->cert.len }, csr.subject,
				   csr.spki, wanted, ttl_s > 0 ? ttl_s : DEFAULT_TTL_S, now_s, arena, &made, err));
	*out = made.cert;
	return CODE_OK;
}

enum code upstream_disk_mint(struct upstream_disk *disk, struct span csr, const char *trust_domain, int64_t ttl_s,
			     int64_t now_s, struct arena *arena, struct upstream_minted *out, struct err *err)
{
	const struct loaded *loaded = &disk->loaded;
	struct upstream_minted minted = { 0 };
	struct span cert;

	reload(disk, now_s);
	if (sign(loaded, csr, trust_domain, ttl_s, now_s, arena, &cert, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "unable to sign CSR");
	minted.chain = arena_alloc(arena, (loaded->chain.n + 1) * sizeof *minted.chain);
	minted.roots = arena_alloc(arena, loaded->roots.n * sizeof *minted.roots);
	minted.chain[minted.n_chain++] = cert;
	for (size_t i = 0; i < loaded->chain.n; i++)
		minted.chain[minted.n_chain++] = der_of(loaded->chain.list[i], arena);
	for (size_t i = 0; i < loaded->roots.n; i++)
		minted.roots[minted.n_roots++] = der_of(loaded->roots.list[i], arena);
	*out = minted;
	return CODE_OK;
}
