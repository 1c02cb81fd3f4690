/* SPDX-License-Identifier: Apache-2.0 */
/* The peer key. The file is PEM: the private key first (PKCS #8), then the statements "old signs new", newest first, so
 * that a rotation replaces key and statements in one rename. The certificate is no more than the envelope in which TLS
 * carries a key; the statements travel in it as an extension, so that whoever checks the key has them at hand before a
 * byte of ours is said.
 *
 * A statement: version (1), length of the old public key (2), the old public key (DER), the new pin, the signature
 * (ECDSA with SHA-256, DER) of LABEL, the old pin, the new pin. */
#include "raft/peer_key.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/rand.h"
#include "ca/key.h"
#include "net/tls.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LABEL "peer key statement 1"
#define STATEMENT_PEM "PEER KEY STATEMENT"
/* Of the extension: below the arc that X.667 gives to whoever draws a UUID. */
#define STATEMENTS_OID "2.25.203744096128815930117472619503648217733"

enum { FILE_MAX = 64 << 10, SPKI_MAX = 256, STATEMENT_MAX = 512, STATEMENT_VERSION = 1 };

struct peer_key {
	atomic_uint refs;
	EVP_PKEY *key;
	struct pin pin;
	struct identity *identity;
	struct buf statements[PEER_KEY_STATEMENTS]; /* the newest first */
	size_t n_statements;
};

OWNABLE(X509, X509_free)
OWNABLE(BIO, BIO_free)
OWNABLE(ASN1_OBJECT, ASN1_OBJECT_free)
OWNABLE(ASN1_OCTET_STRING, ASN1_OCTET_STRING_free)
OWNABLE(X509_EXTENSION, X509_EXTENSION_free)
OWNABLE(EVP_MD_CTX, EVP_MD_CTX_free)

const char *pin_hex(const struct pin *pin, char out[PIN_HEX])
{
	for (int i = 0; i < PIN_LEN; i++)
		snprintf(out + 2 * i, 3, "%02x", pin->bytes[i]);
	return out;
}

bool pin_parse(const char *hex, struct pin *out)
{
	static const char digits[] = "0123456789abcdef";
	struct pin pin;

	if (strlen(hex) != 2 * PIN_LEN || strspn(hex, digits) != 2 * PIN_LEN)
		return false;
	for (int i = 0; i < PIN_LEN; i++)
		pin.bytes[i] = (uint8_t)((strchr(digits, hex[2 * i]) - digits) << 4 |
					 (strchr(digits, hex[2 * i + 1]) - digits));
	*out = pin;
	return true;
}

static void pin_of(const uint8_t *spki, size_t len, struct pin *out)
{
	SHA256(spki, len, out->bytes);
}

static bool is_p256(EVP_PKEY *key)
{
	char group[32] = "";
	size_t len;

	return key != NULL && EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
	       EVP_PKEY_get_group_name(key, group, sizeof group, &len) == 1 && strcmp(group, SN_X9_62_prime256v1) == 0;
}

/* --- statements --- */

static void signed_words(const struct pin *old, const struct pin *now, struct buf *out)
{
	buf_append(out, LABEL, sizeof LABEL); /* its NUL too: no label is the beginning of another */
	buf_append(out, old->bytes, PIN_LEN);
	buf_append(out, now->bytes, PIN_LEN);
}

static enum code make_statement(const struct peer_key *old, const struct pin *now, struct buf *out, struct err *err)
{
	OWN(EVP_MD_CTX) context = EVP_MD_CTX_new();
	OWN_BUF words = { 0 }, spki = { 0 };
	uint8_t signature[STATEMENT_MAX];
	size_t len = sizeof signature;

	TRY(key_public_der(old->key, &spki, err));
	signed_words(&old->pin, now, &words);
	if (context == NULL || EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, old->key) != 1 ||
	    EVP_DigestSign(context, signature, &len, words.data, words.len) != 1)
		return tls_err(err, CODE_INTERNAL, "cannot sign the new peer key with the old one");
	buf_put(out, STATEMENT_VERSION);
	buf_put(out, (uint8_t)(spki.len >> 8));
	buf_put(out, (uint8_t)spki.len);
	buf_append(out, spki.data, spki.len);
	buf_append(out, now->bytes, PIN_LEN);
	buf_append(out, signature, len);
	return CODE_OK;
}

/* Does the owner of an older key say that `now` is his? Then *old is the older key's pin. */
static bool statement_holds(struct span statement, const struct pin *now, struct pin *old)
{
	OWN(EVP_MD_CTX) context = EVP_MD_CTX_new();
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF words = { 0 };
	size_t spki_len = statement.len < 3 ? 0 : (size_t)(statement.data[1] << 8 | statement.data[2]);
	const uint8_t *spki = statement.data + 3, *at = spki, *signature = spki + spki_len + PIN_LEN;
	bool holds;

	if (spki_len == 0 || spki_len > SPKI_MAX || statement.data[0] != STATEMENT_VERSION ||
	    statement.len <= 3 + spki_len + PIN_LEN || memcmp(spki + spki_len, now->bytes, PIN_LEN) != 0)
		return false;
	key = d2i_PUBKEY(NULL, &at, (long)spki_len);
	if (!is_p256(key) || at != spki + spki_len) {
		ERR_clear_error();
		return false;
	}
	pin_of(spki, spki_len, old);
	signed_words(old, now, &words);
	holds = context != NULL && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestVerify(context, signature, statement.len - 3 - spki_len - PIN_LEN, words.data, words.len) ==
			1;
	ERR_clear_error();
	return holds;
}

/* In the extension each statement stands behind its length (2 bytes). */
static bool next_statement(struct span *left, struct span *out)
{
	size_t len = left->len < 2 ? 0 : (size_t)(left->data[0] << 8 | left->data[1]);

	if (len == 0 || len > STATEMENT_MAX || len > left->len - 2)
		return false;
	*out = (struct span){ left->data + 2, len };
	left->data += 2 + len;
	left->len -= 2 + len;
	return true;
}

static struct span statements_in(X509 *cert)
{
	OWN(ASN1_OBJECT) oid = OBJ_txt2obj(STATEMENTS_OID, 1);
	int at = oid != NULL ? X509_get_ext_by_OBJ(cert, oid, -1) : -1;
	const ASN1_OCTET_STRING *value;

	if (at < 0)
		return (struct span){ 0 };
	value = X509_EXTENSION_get_data(X509_get_ext(cert, at));
	return (struct span){ ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value) };
}

enum code peer_pins_of(X509 *shown, struct pin pins[PEER_PINS_MAX], size_t *n, struct err *err)
{
	struct span left = statements_in(shown), statement;
	uint8_t *spki = NULL;
	int len;

	if (!is_p256(X509_get0_pubkey(shown))) {
		ERR_clear_error();
		return err_set(err, CODE_PERMISSION_DENIED, "the peer's key is not an EC P-256 key");
	}
	len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(shown), &spki);
	if (len <= 0)
		return tls_err(err, CODE_PERMISSION_DENIED, "the peer's key cannot be read");
	pin_of(spki, (size_t)len, &pins[0]);
	OPENSSL_free(spki);
	*n = 1;
	while (*n < PEER_PINS_MAX && next_statement(&left, &statement) &&
	       statement_holds(statement, &pins[*n - 1], &pins[*n]))
		++*n;
	return CODE_OK;
}

/* --- the certificate --- */

static bool add_statements(X509 *cert, const struct peer_key *key)
{
	OWN(ASN1_OBJECT) oid = OBJ_txt2obj(STATEMENTS_OID, 1);
	OWN(ASN1_OCTET_STRING) value = ASN1_OCTET_STRING_new();
	OWN(X509_EXTENSION) extension = NULL;
	OWN_BUF all = { 0 };

	if (key->n_statements == 0)
		return true;
	for (size_t i = 0; i < key->n_statements; i++) {
		buf_put(&all, (uint8_t)(key->statements[i].len >> 8));
		buf_put(&all, (uint8_t)key->statements[i].len);
		buf_append(&all, key->statements[i].data, key->statements[i].len);
	}
	if (oid == NULL || value == NULL || ASN1_OCTET_STRING_set(value, all.data, (int)all.len) != 1)
		return false;
	extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
	return extension != NULL && X509_add_ext(cert, extension, -1) == 1;
}

static bool fill_certificate(X509 *cert, const struct peer_key *key)
{
	char name[PIN_HEX];
	X509_NAME *subject = X509_get_subject_name(cert);
	uint64_t serial = rand_u64() >> 1;

	pin_hex(&key->pin, name);
	return X509_set_version(cert, X509_VERSION_3) == 1 &&
	       ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial | 1) == 1 &&
	       ASN1_TIME_set_string(X509_getm_notBefore(cert), "20000101000000Z") == 1 &&
	       ASN1_TIME_set_string(X509_getm_notAfter(cert), "99991231235959Z") == 1 &&
	       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, PIN_HEX - 1, -1, 0) ==
		       1 &&
	       X509_set_issuer_name(cert, subject) == 1 && X509_set_pubkey(cert, key->key) == 1 &&
	       add_statements(cert, key) && X509_sign(cert, key->key, EVP_sha256()) > 0;
}

/* Pin and identity of a key that has its private key and its statements. */
static enum code complete(struct peer_key *key, struct err *err)
{
	OWN(X509) cert = X509_new();
	OWN_BUF spki = { 0 };
	struct span chain;
	uint8_t *der = NULL;
	enum code rc;
	int len;

	TRY(key_public_der(key->key, &spki, err));
	pin_of(spki.data, spki.len, &key->pin);
	if (cert == NULL || !fill_certificate(cert, key))
		return tls_err(err, CODE_INTERNAL, "cannot make the certificate of the peer key");
	len = i2d_X509(cert, &der);
	if (len <= 0)
		return tls_err(err, CODE_INTERNAL, "cannot make the certificate of the peer key");
	chain = (struct span){ der, (size_t)len };
	rc = identity_new(key->key, &chain, 1, &key->identity, err);
	OPENSSL_free(der);
	return rc;
}

/* --- the file --- */

static void wipe(struct buf *buf)
{
	if (buf->data != NULL)
		OPENSSL_cleanse(buf->data, buf->cap);
	buf_done(buf);
}
#define OWN_SECRET __attribute__((cleanup(wipe))) struct buf

static enum code write_all(int fd, const struct buf *data, const char *path, struct err *err)
{
	for (size_t at = 0; at < data->len;) {
		ssize_t n = write(fd, data->data + at, data->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, CODE_INTERNAL, errno, "write", path);
		at += (size_t)n;
	}
	if (fsync(fd) != 0 || fault_at("peer_key.sync"))
		return err_errno(err, CODE_INTERNAL, errno != 0 ? errno : EIO, "sync", path);
	return CODE_OK;
}

static enum code sync_parent(const char *path, struct err *err)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');
	int fd, why = 0;

	if (slash != NULL)
		*(slash == dir ? slash + 1 : slash) = '\0';
	fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		why = errno;
	if (fd >= 0)
		close(fd);
	free(dir);
	return why == 0 ? CODE_OK : err_errno(err, CODE_INTERNAL, why, "sync the directory of", path);
}

static enum code replace_file(const char *path, const struct buf *data, struct err *err)
{
	OWN_BUF temporary = { 0 };
	const char *name;
	enum code rc;
	int fd;

	buf_printf(&temporary, "%s.tmp", path);
	name = buf_text(&temporary);
	unlink(name); /* of a start that did not get to its end: its mode is not known */
	fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", name);
	errno = 0;
	rc = write_all(fd, data, name, err);
	close(fd);
	if (rc == CODE_OK && (fault_at("peer_key.rename") || rename(name, path) != 0))
		rc = err_errno(err, CODE_INTERNAL, errno != 0 ? errno : EIO, "rename", name);
	if (rc != CODE_OK) {
		unlink(name);
		return rc;
	}
	return sync_parent(path, err);
}

static enum code encode(const struct peer_key *key, struct buf *out, struct err *err)
{
	OWN(BIO) memory = BIO_new(BIO_s_secmem());
	char *text;
	long len;

	if (memory == NULL || PEM_write_bio_PKCS8PrivateKey(memory, key->key, NULL, NULL, 0, NULL, NULL) != 1)
		return tls_err(err, CODE_INTERNAL, "cannot encode the peer key");
	for (size_t i = 0; i < key->n_statements; i++)
		if (PEM_write_bio(memory, STATEMENT_PEM, "", key->statements[i].data, (long)key->statements[i].len) <=
		    0)
			return tls_err(err, CODE_INTERNAL, "cannot encode the peer key");
	len = BIO_get_mem_data(memory, &text);
	buf_reserve(out, (size_t)len);
	buf_append(out, text, (size_t)len);
	OPENSSL_cleanse(text, (size_t)len);
	return CODE_OK;
}

static enum code damaged(const char *path, const char *what, struct err *err)
{
	ERR_clear_error();
	return err_set(
		err, CODE_DATA_LOSS,
		"\"%s\" %s: restore it, or remove this node from the cluster and let it join again with an empty "
		"data directory",
		path, what);
}

static enum code read_file(int fd, const char *path, struct buf *out, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "stat", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, CODE_FAILED_PRECONDITION, "\"%s\" is not a file", path);
	if ((st.st_mode & 077) != 0)
		return err_set(
			err, CODE_FAILED_PRECONDITION,
			"\"%s\" holds this node's private peer key and others may read or write it (mode %04o): chmod "
			"600, and rotate the key if it may have been read",
			path, (unsigned)(st.st_mode & 07777));
	if (st.st_size > FILE_MAX)
		return damaged(path, "is too large for a peer key", err);
	buf_reserve(out, FILE_MAX + 1);
	for (;;) {
		ssize_t n = read(fd, out->data + out->len, FILE_MAX + 1 - out->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, CODE_INTERNAL, errno, "read", path);
		out->len += (size_t)n;
		if (n == 0 || out->len > FILE_MAX)
			return CODE_OK;
	}
}

/* One block of the file. */
static enum code take_block(struct peer_key *key, const char *name, const uint8_t *data, long len, const char *path,
			    struct err *err)
{
	const uint8_t *at = data;

	if (strcmp(name, STATEMENT_PEM) == 0) {
		if (key->n_statements == PEER_KEY_STATEMENTS || len > STATEMENT_MAX)
			return damaged(path, "holds more statements than a peer key has", err);
		buf_append(&key->statements[key->n_statements++], data, (size_t)len);
		return CODE_OK;
	}
	if (strcmp(name, PEM_STRING_PKCS8) == 0)
		return damaged(path, "holds a key under a password", err);
	if (strcmp(name, PEM_STRING_PKCS8INF) != 0 || key->key != NULL)
		return damaged(path, "does not hold one peer key", err);
	key->key = d2i_AutoPrivateKey(NULL, &at, len);
	if (key->key == NULL)
		return damaged(path, "holds a damaged peer key", err);
	return is_p256(key->key) ? CODE_OK : damaged(path, "holds a key that is not EC P-256", err);
}

static enum code decode(struct peer_key *key, const struct buf *text, const char *path, struct err *err)
{
	OWN(BIO) memory = BIO_new_mem_buf(text->data, (int)text->len);
	char *name, *header;
	uint8_t *data;
	enum code rc = CODE_OK;
	long len;

	if (memory == NULL)
		return tls_err(err, CODE_INTERNAL, "cannot read \"%s\"", path);
	while (rc == CODE_OK && PEM_read_bio(memory, &name, &header, &data, &len) == 1) {
		rc = take_block(key, name, data, len, path, err);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(data, (size_t)len);
	}
	TRY(rc);
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return damaged(path, "is cut short or damaged", err);
	ERR_clear_error();
	return key->key != NULL ? CODE_OK : damaged(path, "does not hold a peer key", err);
}

/* --- the interface --- */

static struct peer_key *key_new(void)
{
	struct peer_key *key = xcalloc(1, sizeof *key);

	key->refs = 1;
	return key;
}

static enum code make(const char *path, struct peer_key **out, struct err *err)
{
	OWN_STRUCT(peer_key) key = key_new();
	OWN_SECRET text = { 0 };

	TRY(key_generate(KEY_EC_P256, &key->key, err));
	TRY(complete(key, err));
	TRY(encode(key, &text, err));
	TRY(replace_file(path, &text, err));
	*out = TAKE(key);
	return CODE_OK;
}

static enum code load(int fd, const char *path, struct peer_key **out, struct err *err)
{
	OWN_STRUCT(peer_key) key = key_new();
	OWN_SECRET text = { 0 };

	TRY(read_file(fd, path, &text, err));
	TRY(decode(key, &text, path, err));
	TRY(complete(key, err));
	*out = TAKE(key);
	return CODE_OK;
}

enum code peer_key_open(const char *path, struct peer_key **out, bool *made, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum code rc;

	if (fd < 0 && errno != ENOENT)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	if (made != NULL)
		*made = fd < 0;
	if (fd < 0)
		return make(path, out, err);
	rc = load(fd, path, out, err);
	close(fd);
	return rc;
}

enum code peer_key_rotate(const struct peer_key *old, const char *path, struct peer_key **out, struct err *err)
{
	OWN_STRUCT(peer_key) key = key_new();
	OWN_SECRET text = { 0 };
	OWN_BUF spki = { 0 };

	TRY(key_generate(KEY_EC_P256, &key->key, err));
	TRY(key_public_der(key->key, &spki, err));
	pin_of(spki.data, spki.len, &key->pin);
	TRY(make_statement(old, &key->pin, &key->statements[key->n_statements++], err));
	for (size_t i = 0; i < old->n_statements && key->n_statements < PEER_KEY_STATEMENTS; i++)
		buf_append(&key->statements[key->n_statements++], old->statements[i].data, old->statements[i].len);
	TRY(complete(key, err));
	TRY(encode(key, &text, err));
	TRY(replace_file(path, &text, err));
	*out = TAKE(key);
	return CODE_OK;
}

struct peer_key *peer_key_ref(struct peer_key *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
	return key;
}

void peer_key_unref(struct peer_key *key)
{
	if (key == NULL || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
		return;
	identity_unref(key->identity);
	EVP_PKEY_free(key->key);
	for (size_t i = 0; i < key->n_statements; i++)
		buf_done(&key->statements[i]);
	free(key);
}

const struct pin *peer_key_pin(const struct peer_key *key)
{
	return &key->pin;
}

struct identity *peer_key_identity(const struct peer_key *key)
{
	return key->identity;
}
