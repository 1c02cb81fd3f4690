/* SPDX-License-Identifier: Apache-2.0 */
/* JWT-SVIDs: the claims are written as SPIRE's encoder writes them, keys sorted and HTML-safe, then signed once. */

#include "ca/jwt.h"

#include "base/buf.h"
#include "base/gotime.h"
#include "base/metric.h"
#include "base/rand.h"
#include "base/utf8.h"
#include "ca/signer.h"

#include <string.h>

static bool is_plain(unsigned char c)
{
	return c >= ' ' && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
}

static void put_escaped(struct buf *out, uint32_t point)
{
	switch (point) {
	case '"':
	case '\\':
		buf_put(out, '\\');
		buf_put(out, (uint8_t)point);
		break;
	case '\b':
		buf_puts(out, "\\b");
		break;
	case '\f':
		buf_puts(out, "\\f");
		break;
	case '\n':
		buf_puts(out, "\\n");
		break;
	case '\r':
		buf_puts(out, "\\r");
		break;
	case '\t':
		buf_puts(out, "\\t");
		break;
	default:
		buf_printf(out, "\\u%04x", point);
	}
}

static void put_json_string(struct buf *out, const char *text)
{
	const char *at = text, *end = text + strlen(text);

	buf_put(out, '"');
	while (at < end) {
		const char *plain = at;
		uint32_t point;
		size_t n;

		while (is_plain((unsigned char)*at))
			at++;
		buf_append(out, plain, (size_t)(at - plain));
		if (at == end)
			break;
		n = utf8_next(at, (size_t)(end - at), &point);
		if (n == 0) /* not UTF-8: U+FFFD in its place */
			buf_puts(out, "\\ufffd");
		else if (n == 1 || point == 0x2028 || point == 0x2029)
			put_escaped(out, point);
		else
			buf_append(out, at, n);
		at += n == 0 ? 1 : n;
	}
	buf_put(out, '"');
}

/* 22 characters: 16 octets of a random UUID (version 4) in base64url. */
static void put_jti(struct buf *out)
{
	uint8_t uuid[16];

	rand_bytes(uuid, sizeof uuid);
	uuid[6] = (uint8_t)(0x40 | (uuid[6] & 0x0f));
	uuid[8] = (uint8_t)(0x80 | (uuid[8] & 0x3f));
	buf_base64(out, uuid, sizeof uuid, 1);
}

/* Answers how many audiences there are. */
static size_t put_claims(struct buf *out, const struct jwt_request *request, int64_t expires_s)
{
	size_t n = 0;

	buf_puts(out, "{\"aud\":[");
	for (size_t i = 0; i < request->n_audience; i++) {
		if (request->audience[i][0] == '\0')
			continue;
		if (n++ > 0)
			buf_put(out, ',');
		put_json_string(out, request->audience[i]);
	}
	buf_printf(out, "],\"exp\":%lld,\"iat\":%lld", (long long)expires_s, (long long)request->now_s);
	if (request->issuer != NULL && request->issuer[0] != '\0') {
		buf_puts(out, ",\"iss\":");
		put_json_string(out, request->issuer);
	}
	if (request->jti) {
		buf_puts(out, ",\"jti\":\"");
		put_jti(out);
		buf_put(out, '"');
	}
	buf_puts(out, ",\"sub\":");
	put_json_string(out, request->spiffe_id);
	buf_put(out, '}');
	return n;
}

static enum code check_expiry(int64_t expires_s, int64_t now_s, struct err *err)
{
	char text[GO_TIME_MAX];

	if (expires_s > now_s)
		return CODE_OK;
	return err_set(err, CODE_INTERNAL, "invalid JWT-SVID \"exp\" claim: already expired as of %s",
		       go_time_rfc3339(expires_s, text));
}

static struct metric_counter signed_svids;

enum code jwt_issue(const struct jwt_authority *authority, const struct jwt_request *request, struct arena *arena,
		    struct jwt_svid *out, struct err *err)
{
	OWN_BUF claims = { 0 }, token = { 0 };
	uint8_t signature[SIGNATURE_MAX];
	size_t signature_len;
	int64_t expires_s;

	if (authority == NULL)
		return err_set(err, CODE_INTERNAL, "JWT key is not available for signing");
	expires_s = request->now_s + request->ttl_s;
	if (expires_s > authority->not_after_s)
		expires_s = authority->not_after_s;
	buf_reserve(&claims, 512);
	if (put_claims(&claims, request, expires_s) == 0)
		return err_set(err, CODE_INTERNAL, "invalid JWT-SVID audience: cannot be empty");
	TRY(check_expiry(expires_s, request->now_s, err));

	buf_reserve(&token, 1024);
	buf_puts(&token, authority->header);
	buf_put(&token, '.');
	buf_base64(&token, claims.data, claims.len, 1);
	TRY(signer_sign_jws(authority->signer, (struct span){ token.data, token.len }, signature, &signature_len, err));
	buf_put(&token, '.');
	buf_base64(&token, signature, signature_len, 1);

	out->token = arena_strndup(arena, (const char *)token.data, token.len);
	out->issued_at_s = request->now_s;
	out->expires_at_s = expires_s;
	metric_count(&signed_svids, "server_ca_sign_jwt_svid");
	return CODE_OK;
}

void jwt_new_kid(char out[33])
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	uint8_t random[32];

	rand_bytes(random, sizeof random);
	for (size_t i = 0; i < sizeof random; i++)
		out[i] = alphabet[random[i] % 62];
	out[32] = '\0';
}
