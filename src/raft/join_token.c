/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a join token: PREFIX, then base64url of the encoded message (link.proto) followed by the first four bytes
 * of its SHA-256. The checksum is there for the operator: a token that lost its end in a terminal is told apart from
 * one that somebody made up. */
#include "raft/join_token.h"

#include "base/rand.h"
#include "link.pb-c.h"
#include "store/codec.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PREFIX "join1."
#define REMEDY "copy it whole, or make another one with 'cluster token'"

enum { CHECK_LEN = 4, CLUSTER_ID_LEN = 36, TRUST_DOMAIN_MAX = 255, ADDRESS_MAX = 255 };

void join_token_secret(struct join_token *token)
{
	rand_bytes(token->secret, sizeof token->secret);
}

void join_token_hash(const uint8_t secret[JOIN_SECRET_LEN], uint8_t out[32])
{
	static const char label[] = "join secret 1";
	uint8_t words[sizeof label + JOIN_SECRET_LEN];

	memcpy(words, label, sizeof label);
	memcpy(words + sizeof label, secret, JOIN_SECRET_LEN);
	SHA256(words, sizeof words, out);
	OPENSSL_cleanse(words, sizeof words);
}

bool join_hash_equal(const uint8_t a[32], const uint8_t b[32])
{
	return CRYPTO_memcmp(a, b, 32) == 0;
}

/* --- writing --- */

void join_token_encode(const struct join_token *token, struct buf *out)
{
	ProtobufCBinaryData pins[JOIN_PINS_MAX];
	const char *addresses[JOIN_ADDRESSES_MAX];
	Pb__ClusterToken message = PB__CLUSTER_TOKEN__INIT;
	OWN_BUF bytes = { 0 };
	uint8_t digest[32];

	assert(token->n_addresses >= 1 && token->n_addresses <= JOIN_ADDRESSES_MAX);
	assert(token->n_pins >= 1 && token->n_pins <= JOIN_PINS_MAX);
	for (size_t i = 0; i < token->n_addresses; i++)
		addresses[i] = token->addresses[i];
	for (size_t i = 0; i < token->n_pins; i++)
		pins[i] = (ProtobufCBinaryData){ PIN_LEN, (uint8_t *)token->pins[i].bytes };
	message.n_addresses = token->n_addresses;
	message.addresses = addresses;
	message.n_pins = token->n_pins;
	message.pins = pins;
	message.cluster_id = token->cluster_id;
	message.trust_domain = token->trust_domain;
	message.expires_at = token->expires_at;
	message.secret = (ProtobufCBinaryData){ JOIN_SECRET_LEN, (uint8_t *)token->secret };
	message_pack(&message, &bytes);
	SHA256(bytes.data, bytes.len, digest);
	buf_append(&bytes, digest, CHECK_LEN);
	buf_puts(out, PREFIX);
	buf_base64(out, bytes.data, bytes.len, 1);
	OPENSSL_cleanse(bytes.data, bytes.len);
}

/* --- reading --- */

static enum code malformed(const char *what, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "the join token %s: " REMEDY, what);
}

/* The token without what stands around it, its prefix checked. */
static enum code strip(const char *text, struct span *out, struct err *err)
{
	size_t len;

	while (isspace((unsigned char)*text))
		text++;
	len = strnlen(text, JOIN_TOKEN_TEXT_MAX + 1);
	if (len == 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "the join token is empty: make one with 'cluster token' on any member");
	if (len > JOIN_TOKEN_TEXT_MAX)
		return malformed("is too long", err);
	while (len > 0 && isspace((unsigned char)text[len - 1]))
		len--;
	for (size_t i = 0; i < len; i++)
		if (isspace((unsigned char)text[i]))
			return malformed("has a blank or a line break in it", err);
	if (len < strlen(PREFIX) || strncmp(text, PREFIX, strlen(PREFIX)) != 0) {
		size_t digits = len > 4 && strncmp(text, "join", 4) == 0 ? strspn(text + 4, "0123456789") : 0;

		if (digits > 0 && 4 + digits < len && text[4 + digits] == '.')
			return err_set(err, CODE_UNIMPLEMENTED,
				       "the join token was made by a newer version: run that version on this node too");
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "this is no join token (one begins with \"" PREFIX
			       "\"): make one with 'cluster token' on any "
			       "member");
	}
	*out = (struct span){ (const uint8_t *)text + strlen(PREFIX), len - strlen(PREFIX) };
	return CODE_OK;
}

static bool plain(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (len == 0 || len > max)
		return false;
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
			return false;
	return true;
}

static bool is_address(const char *text)
{
	const char *colon = strrchr(text, ':');
	char *end;
	long port;

	if (!plain(text, ADDRESS_MAX) || colon == NULL || colon == text || !isdigit((unsigned char)colon[1]))
		return false;
	port = strtol(colon + 1, &end, 10);
	return *end == '\0' && port >= 1 && port <= 65535;
}

static enum code from_message(const Pb__ClusterToken *message, struct join_token *out, struct err *err)
{
	struct join_token token = { .cluster_id = message->cluster_id, .trust_domain = message->trust_domain };

	if (message->n_addresses < 1 || message->n_addresses > JOIN_ADDRESSES_MAX)
		return malformed("does not name between 1 and 9 members", err);
	for (size_t i = 0; i < message->n_addresses; i++) {
		if (!is_address(message->addresses[i]))
			return malformed("names a member by something that is no HOST:PORT", err);
		token.addresses[token.n_addresses++] = message->addresses[i];
	}
	if (message->n_pins < 1 || message->n_pins > JOIN_PINS_MAX)
		return malformed("does not hold the members' keys", err);
	for (size_t i = 0; i < message->n_pins; i++) {
		if (message->pins[i].len != PIN_LEN)
			return malformed("holds a key that is none", err);
		memcpy(token.pins[token.n_pins++].bytes, message->pins[i].data, PIN_LEN);
	}
	if (strlen(token.cluster_id) != CLUSTER_ID_LEN ||
	    strspn(token.cluster_id, "0123456789abcdef-") != CLUSTER_ID_LEN)
		return malformed("does not name a cluster", err);
	if (!plain(token.trust_domain, TRUST_DOMAIN_MAX))
		return malformed("does not name a trust domain", err);
	if (message->expires_at <= 0 || message->expires_at > INT64_C(253402300799))
		return malformed("does not say until when it is good", err);
	if (message->secret.len != JOIN_SECRET_LEN)
		return malformed("holds no secret", err);
	token.expires_at = message->expires_at;
	memcpy(token.secret, message->secret.data, JOIN_SECRET_LEN);
	*out = token;
	return CODE_OK;
}

enum code join_token_decode(const char *text, struct arena *arena, struct join_token *out, struct err *err)
{
	OWN_BUF bytes = { 0 };
	const Pb__ClusterToken *message;
	struct span inner = { 0 };
	uint8_t digest[32];

	TRY(strip(text, &inner, err));
	if (buf_unbase64(&bytes, (const char *)inner.data, inner.len, 1) == 0 || bytes.len <= CHECK_LEN)
		return malformed("is cut short or has a character that does not belong there", err);
	bytes.len -= CHECK_LEN;
	SHA256(bytes.data, bytes.len, digest);
	if (memcmp(digest, bytes.data + bytes.len, CHECK_LEN) != 0)
		return malformed("is not whole: a part is missing or changed", err);
	message = message_unpack(&pb__cluster_token__descriptor, (struct span){ bytes.data, bytes.len }, arena);
	OPENSSL_cleanse(bytes.data, bytes.len);
	if (message == NULL)
		return malformed("holds no token", err);
	return from_message(message, out, err);
}

static const char *when(int64_t unix_s, char out[32])
{
	time_t t = (time_t)unix_s;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return out;
}

enum code join_token_check(const struct join_token *token, const char *trust_domain, int64_t now_s, struct err *err)
{
	char expired[32], now[32];

	if (strcmp(token->trust_domain, trust_domain) != 0)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "the join token is for trust domain \"%s\", this node is configured for \"%s\": set "
			       "trust_domain, or "
			       "make a token on a member of the right cluster",
			       token->trust_domain, trust_domain);
	if (token->expires_at <= now_s)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "the join token expired at %s (this node's clock says %s): make another one with "
			       "'cluster token', "
			       "or set the clock",
			       when(token->expires_at, expired), when(now_s, now));
	return CODE_OK;
}
