/* SPDX-License-Identifier: Apache-2.0 */
/* JWT-SVIDs: the claims are written as SPIRE's encoder writes them, keys sorted and HTML-safe, then signed once. */

#include "ca/jwt.h"

#include "base/buf.h"
#include "base/rand.h"
#include "ca/signer.h"

#include <string.h>
#include <time.h>

/* The UTF-8 sequence at `text`: its length and code point; 0 if it is none. */
static size_t utf8_at(const unsigned char *text, uint32_t *point)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = text[0] < 0x80             ? 1
		   : (text[0] & 0xe0) == 0xc0 ? 2
		   : (text[0] & 0xf0) == 0xe0 ? 3
		   : (text[0] & 0xf8) == 0xf0 ? 4
					      : 0;

	*point = n == 1 ? text[0] : text[0] & (0x7fU >> n);
	for (size_t i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80) /* the NUL at the end, too */
			return 0;
		*point = *point << 6 | (text[i] & 0x3f);
	}
	return n == 0 || *point < least[n] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff) ? 0 : n;
}

static bool is_plain(unsigned char c)
{
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
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
	const unsigned char *at = (const unsigned char *)text;

	buf_put(out, '"');
	while (*at != '\0') {
		const unsigned char *plain = at;
		uint32_t point;
		size_t n;

		while (is_plain(*at))
			at++;
		buf_append(out, plain, (size_t)(at - plain));
		if (*at == '\0')
			break;
		n = utf8_at(at, &point);
		if (n == 0) {
			buf_puts(out, "\\ufffd");
			at++;
		} else if (n > 1 && point != 0x2028 && point != 0x2029) {
			buf_append(out, at, n);
			at += n;
		} else if (point == 0x7f) {
			buf_put(out, 0x7f);
			at++;
		} else {
			put_escaped(out, point);
			at += n;
		}
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
	time_t at = (time_t)expires_s;
	char text[32];
	struct tm tm;

	if (expires_s > now_s)
		return CODE_OK;
	gmtime_r(&at, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return err_set(err, CODE_INTERNAL, "invalid JWT-SVID \"exp\" claim: already expired as of %s", text);
}

enum code jwt_issue(const struct jwt_authority *authority, const struct jwt_request *request, struct arena *arena,
		    struct jwt_svid *out, struct err *err)
{
	OWN_BUF claims = { 0 }, token = { 0 };
	uint8_t signature[SIGNATURE_MAX];
	size_t signature_len;
	int64_t expires_s;

	if (authority == NULL)
		return err_set(err, CODE_INTERNAL, "JWT key is not available for signing");
	expires_s = request->ttl_s > authority->not_after_s - request->now_s ? authority->not_after_s
									     : request->now_s + request->ttl_s;
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
