/* SPDX-License-Identifier: Apache-2.0 */
/* Keyrings and the slot where the current one hangs. A keyring never changes once it is made; the slot's lock is held
 * for the moment of taking a reference or swapping the pointer. */

#include "ca/keyring.h"

#include "base/arena.h"
#include "ca/signer.h"
#include "ca/x509.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

OWNABLE(X509, X509_free)

/* ---- X.509 ---- */

static struct buf buf_of(struct span span)
{
	struct buf buf = { 0 };

	buf_append(&buf, span.data, span.len);
	return buf;
}

OWNABLE_STRUCT(x509_authority, x509_authority_free)

enum code x509_authority_new(EVP_PKEY *key, struct span cert, const struct span *upstream, size_t n_upstream,
			     struct x509_authority **out, struct err *err)
{
	OWN_STRUCT(x509_authority) authority = xcalloc(1, sizeof *authority);
	OWN_STRUCT(arena) arena = arena_new();
	OWN(X509) parsed = NULL;
	struct x509_facts facts;
	const uint8_t *at;

	TRY(x509_read(cert, arena, &facts, err));
	authority->cert = buf_of(cert);
	at = authority->cert.data;
	parsed = d2i_X509(NULL, &at, (long)cert.len);
	if (parsed == NULL || X509_check_private_key(parsed, key) != 1)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "the CA certificate and the private key do not match");
	TRY(key_type_of(key, &authority->type, err));
	TRY(signer_new(key, &authority->signer, err));
	/* An upstream CA may leave the subject key id out: SVIDs carry no authority key id then. x509_read has checked
	 * the length. */
	authority->subject_key_id_len = facts.key_id.len;
	if (facts.key_id.len > 0)
		memcpy(authority->subject_key_id, facts.key_id.data, facts.key_id.len);
	TRY(x509_find_subject((struct span){ authority->cert.data, authority->cert.len }, &authority->subject, err));
	snprintf(authority->id, sizeof authority->id, "%s", facts.subject_key_id);
	authority->not_before_s = facts.not_before_s;
	authority->not_after_s = facts.not_after_s;
	authority->upstream = xcalloc(n_upstream + 1, sizeof *authority->upstream);
	for (; authority->n_upstream < n_upstream; authority->n_upstream++)
		authority->upstream[authority->n_upstream] = buf_of(upstream[authority->n_upstream]);
	authority->key = key;
	*out = TAKE(authority);
	return CODE_OK;
}

struct x509_authority *x509_authority_copy(const struct x509_authority *authority)
{
	struct x509_authority *copy;

	if (authority == NULL)
		return NULL;
	copy = xmemdup(authority, sizeof *authority);
	EVP_PKEY_up_ref(copy->key);
	copy->cert = buf_of((struct span){ authority->cert.data, authority->cert.len });
	copy->subject.data = copy->cert.data + (authority->subject.data - authority->cert.data);
	copy->upstream = xcalloc(authority->n_upstream + 1, sizeof *copy->upstream);
	for (size_t i = 0; i < authority->n_upstream; i++)
		copy->upstream[i] = buf_of((struct span){ authority->upstream[i].data, authority->upstream[i].len });
	if (signer_new(copy->key, &copy->signer, NULL) != CODE_OK)
		abort(); /* it worked for the original: out of memory */
	return copy;
}

void x509_authority_free(struct x509_authority *authority)
{
	if (authority == NULL)
		return;
	signer_free(authority->signer);
	EVP_PKEY_free(authority->key);
	for (size_t i = 0; i < authority->n_upstream; i++)
		buf_done(&authority->upstream[i]);
	free(authority->upstream);
	buf_done(&authority->cert);
	free(authority);
}

/* ---- JWT ---- */

enum code jwt_authority_new(EVP_PKEY *key, const char *kid, int64_t not_after_s, struct jwt_authority **out,
			    struct err *err)
{
	OWN_STRUCT(signer) signer = NULL;
	OWN_BUF json = { 0 }, header = { 0 };
	struct jwt_authority *authority;
	enum key_type type;

	for (const char *c = kid; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\' || (unsigned char)*c >= 0x7f)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "JWT key id has a character that is not printable ASCII");
	if (strlen(kid) >= AUTHORITY_ID_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "JWT key id is longer than %d characters",
			       AUTHORITY_ID_MAX - 1);
	TRY(key_type_of(key, &type, err));
	TRY(signer_new(key, &signer, err));
	buf_printf(&json, "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}", signer_jws_algorithm(signer), kid);
	buf_base64(&header, json.data, json.len, 1);
	authority = xcalloc(1, sizeof *authority);
	authority->key = key;
	authority->type = type;
	snprintf(authority->kid, sizeof authority->kid, "%s", kid);
	authority->not_after_s = not_after_s;
	authority->signer = TAKE(signer);
	authority->header = xstrdup(buf_text(&header));
	*out = authority;
	return CODE_OK;
}

struct jwt_authority *jwt_authority_copy(const struct jwt_authority *authority)
{
	struct jwt_authority *copy;

	if (authority == NULL)
		return NULL;
	copy = xmemdup(authority, sizeof *authority);
	EVP_PKEY_up_ref(copy->key);
	copy->header = xstrdup(authority->header);
	if (signer_new(copy->key, &copy->signer, NULL) != CODE_OK)
		abort(); /* it worked for the original: out of memory */
	return copy;
}

void jwt_authority_free(struct jwt_authority *authority)
{
	if (authority == NULL)
		return;
	signer_free(authority->signer);
	EVP_PKEY_free(authority->key);
	free(authority->header);
	free(authority);
}

/* ---- the keyring ---- */

struct keyring_held {
	struct keyring keyring; /* first: what the others see */
	atomic_int references;
	struct arena *arena; /* of the server's chain */
};

struct keyring *keyring_new(struct x509_authority *x509, struct jwt_authority *jwt, EVP_PKEY *server_key,
			    const struct span *server_chain, size_t n_server_chain, int64_t server_not_before_s,
			    int64_t server_not_after_s)
{
	struct keyring_held *held = xcalloc(1, sizeof *held);
	struct span *chain;

	atomic_init(&held->references, 1);
	held->arena = arena_new();
	chain = arena_alloc(held->arena, n_server_chain * sizeof *chain);
	for (size_t i = 0; i < n_server_chain; i++)
		chain[i] = (struct span){ arena_memdup(held->arena, server_chain[i].data, server_chain[i].len),
					  server_chain[i].len };
	held->keyring = (struct keyring){
		.x509 = x509,
		.jwt = jwt,
		.server_cert = n_server_chain > 0 ? chain[0] : (struct span){ 0 },
		.server_chain = chain,
		.n_server_chain = n_server_chain,
		.server_key = server_key,
		.server_not_before_s = server_not_before_s,
		.server_not_after_s = server_not_after_s,
	};
	return &held->keyring;
}

struct keyring *keyring_ref(struct keyring *keyring)
{
	struct keyring_held *held = (struct keyring_held *)keyring;

	atomic_fetch_add_explicit(&held->references, 1, memory_order_relaxed);
	return keyring;
}

void keyring_unref(struct keyring *keyring)
{
	struct keyring_held *held = (struct keyring_held *)keyring;

	if (held == NULL || atomic_fetch_sub_explicit(&held->references, 1, memory_order_acq_rel) != 1)
		return;
	x509_authority_free(keyring->x509);
	jwt_authority_free(keyring->jwt);
	EVP_PKEY_free(keyring->server_key); /* OpenSSL wipes what it frees of a key */
	arena_free(held->arena);
	free(held);
}

struct keyring_slot {
	pthread_mutex_t lock;
	struct keyring *current;
};

struct keyring_slot *keyring_slot_new(void)
{
	struct keyring_slot *slot = xcalloc(1, sizeof *slot);

	pthread_mutex_init(&slot->lock, NULL);
	return slot;
}

void keyring_slot_free(struct keyring_slot *slot)
{
	if (slot == NULL)
		return;
	keyring_unref(slot->current);
	pthread_mutex_destroy(&slot->lock);
	free(slot);
}

struct keyring *keyring_current(struct keyring_slot *slot)
{
	struct keyring *current;

	pthread_mutex_lock(&slot->lock);
	current = slot->current == NULL ? NULL : keyring_ref(slot->current);
	pthread_mutex_unlock(&slot->lock);
	return current;
}

void keyring_swap(struct keyring_slot *slot, struct keyring *keyring)
{
	struct keyring *former;

	pthread_mutex_lock(&slot->lock);
	former = slot->current;
	slot->current = keyring;
	pthread_mutex_unlock(&slot->lock);
	keyring_unref(former);
}
