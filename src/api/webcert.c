/* SPDX-License-Identifier: Apache-2.0 */
/* Both files are looked at before they are read, so what changes meanwhile is seen the next time; a pair that is half
 * new does not fit together and is tried again the next time too. */
#include "api/webcert.h"

#include "base/arena.h"
#include "base/log.h"
#include "base/own.h"
#include "ca/chain.h"
#include "ca/key.h"
#include "net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHAIN_MAX = 16 };

OWNABLE(BIO, BIO_free_all)

struct seen { /* of a file */
	struct timespec changed;
	off_t size;
	ino_t inode;
};

struct webcert {
	char *cert_path, *key_path;
	struct seen cert_seen, key_seen;
	struct identity *identity;
};

static enum code look(const char *path, struct seen *out, struct err *err)
{
	struct stat at;

	if (stat(path, &at) != 0)
		return err_errno(err, CODE_INVALID_ARGUMENT, errno, "stat", path);
	memset(out, 0, sizeof *out);
	out->changed = at.st_mtim;
	out->size = at.st_size;
	out->inode = at.st_ino;
	return CODE_OK;
}

static int no_password(char *out __attribute__((unused)), int size __attribute__((unused)),
		       int writing __attribute__((unused)), void *ctx __attribute__((unused)))
{
	return 0;
}

static enum code read_key(const char *path, EVP_PKEY **out, struct err *err)
{
	OWN(BIO) file = BIO_new_file(path, "r");

	if (file == NULL) {
		ERR_clear_error();
		return err_errno(err, CODE_INVALID_ARGUMENT, errno, "open", path);
	}
	*out = PEM_read_bio_PrivateKey(file, NULL, no_password, NULL);
	if (*out == NULL)
		return tls_err(err, CODE_INVALID_ARGUMENT, "%s holds no private key that can be read", path);
	return CODE_OK;
}

static enum code make_identity(const struct webcert *w, struct identity **out, struct err *err)
{
	struct span chain[CHAIN_MAX];
	OWN_CERTS certs = { 0 };
	OWN(EVP_PKEY) key = NULL;
	enum code rc;

	TRY(certs_load(w->cert_path, &certs, err));
	if (certs.n == 0 || certs.n > CHAIN_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "%s holds %zu certificates: it needs the endpoint's and at most %d more", w->cert_path,
			       certs.n, CHAIN_MAX - 1);
	TRY(read_key(w->key_path, &key, err));
	for (size_t i = 0; i < certs.n; i++) {
		uint8_t *der = NULL;
		int len = i2d_X509(certs.list[i], &der);

		if (len <= 0)
			abort(); /* out of memory */
		chain[i] = (struct span){ der, (size_t)len };
	}
	rc = identity_new(key, chain, certs.n, out, err);
	for (size_t i = 0; i < certs.n; i++)
		OPENSSL_free((void *)(uintptr_t)chain[i].data);
	if (rc != CODE_OK)
		return err_set(err, CODE_INVALID_ARGUMENT, "the key in %s does not fit the first certificate in %s",
			       w->key_path, w->cert_path);
	return CODE_OK;
}

static enum code load(struct webcert *w, struct err *err)
{
	struct seen cert, key;
	struct identity *identity;

	TRY(look(w->cert_path, &cert, err));
	TRY(look(w->key_path, &key, err));
	if (w->identity != NULL && memcmp(&cert, &w->cert_seen, sizeof cert) == 0 &&
	    memcmp(&key, &w->key_seen, sizeof key) == 0)
		return CODE_OK;
	TRY(make_identity(w, &identity, err));
	if (w->identity != NULL)
		log_info("Bundle endpoint certificate reloaded", KV("path", w->cert_path),
			 KV("subsystem_name", "endpoints"));
	identity_unref(w->identity);
	w->identity = identity;
	w->cert_seen = cert;
	w->key_seen = key;
	return CODE_OK;
}

enum code webcert_open(const char *cert_path, const char *key_path, struct webcert **out, struct err *err)
{
	struct webcert *w = xcalloc(1, sizeof *w);
	enum code rc;

	w->cert_path = xstrdup(cert_path);
	w->key_path = xstrdup(key_path);
	rc = load(w, err);
	if (rc != CODE_OK) {
		webcert_free(w);
		return err_wrap(err, rc, "failed to load the bundle endpoint's serving certificate");
	}
	*out = w;
	return CODE_OK;
}

void webcert_free(struct webcert *w)
{
	if (w == NULL)
		return;
	identity_unref(w->identity);
	free(w->cert_path);
	free(w->key_path);
	free(w);
}

void webcert_sync(struct webcert *w)
{
	struct err err = { 0 };

	if (load(w, &err) != CODE_OK)
		log_error("Failed to reload the bundle endpoint's serving certificate: the old one stays",
			  KV("error", err.text), KV("subsystem_name", "endpoints"));
}

struct identity *webcert_identity(struct webcert *w)
{
	return identity_ref(w->identity);
}
