/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "lib/test.h"
#include "raft/join_token.h"

#include <openssl/sha.h>
#include <stdlib.h>

static struct err err;

#define CLUSTER "7c1f0000-1111-4222-8333-444455556666"

static struct join_token sample(void)
{
	struct join_token token = { .cluster_id = CLUSTER, .trust_domain = "example.org", .expires_at = 1800000000 };

	token.addresses[token.n_addresses++] = "10.0.0.1:8082";
	token.addresses[token.n_addresses++] = "[fd00::2]:8082";
	for (int i = 0; i < 3; i++)
		memset(token.pins[token.n_pins++].bytes, 0xa0 + i, PIN_LEN);
	join_token_secret(&token);
	return token;
}

static enum code decode(const char *text, struct arena *arena, struct join_token *out)
{
	memset(&err, 0, sizeof err);
	return join_token_decode(text, arena, out, &err);
}

TEST(a_token_comes_back_as_it_was)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct join_token token = sample(), got;
	OWN_BUF text = { 0 }, around = { 0 };

	join_token_encode(&token, &text);
	CHECK(strncmp(buf_text(&text), "join1.", 6) == 0);
	CHECK(text.len < 400);
	buf_printf(&around, " \r\n%s\n\n", buf_text(&text));
	CHECK_CODE(decode(buf_text(&around), arena, &got), CODE_OK);
	CHECK_NUM(got.n_addresses, 2);
	CHECK_STR(got.addresses[0], "10.0.0.1:8082");
	CHECK_STR(got.addresses[1], "[fd00::2]:8082");
	CHECK_NUM(got.n_pins, 3);
	for (int i = 0; i < 3; i++)
		CHECK(pin_equal(&got.pins[i], &token.pins[i]));
	CHECK_STR(got.cluster_id, CLUSTER);
	CHECK_STR(got.trust_domain, "example.org");
	CHECK_NUM(got.expires_at, 1800000000);
	CHECK_BYTES(got.secret, token.secret, JOIN_SECRET_LEN);
}

TEST(the_hash_is_that_of_the_secret_alone)
{
	struct join_token a = sample(), b = sample();
	uint8_t hash_a[32], hash_b[32], plain[32];

	join_token_hash(a.secret, hash_a);
	join_token_hash(b.secret, hash_b);
	CHECK(!join_hash_equal(hash_a, hash_b));
	join_token_hash(a.secret, hash_b);
	CHECK(join_hash_equal(hash_a, hash_b));
	SHA256(a.secret, sizeof a.secret, plain);
	CHECK(!join_hash_equal(hash_a, plain));
}

TEST(what_is_no_token_is_told_so)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct join_token got;
	char *long_text = calloc(1, 10001);

	CHECK_CODE(decode("", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "the join token is empty: make one with 'cluster token' on any member");
	CHECK_CODE(decode(" \n", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_CODE(decode("8fd5a9a0-8f0a-4f5c-a44a-3f5fd3c2a5c8", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text,
		  "this is no join token (one begins with \"join1.\"): make one with 'cluster token' on any member");
	CHECK_CODE(decode("join", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_CODE(decode("join1", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_CODE(decode("join1.", arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_CODE(decode("join2.abcdef", arena, &got), CODE_UNIMPLEMENTED);
	CHECK_STR(err.text, "the join token was made by a newer version: run that version on this node too");
	memset(long_text, 'a', 10000);
	CHECK_CODE(decode(long_text, arena, &got), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "is too long") != NULL);
	free(long_text);
}

TEST(every_cut_and_every_changed_letter_is_noticed)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct join_token token = sample(), got;
	OWN_BUF text = { 0 };
	char *copy;

	join_token_encode(&token, &text);
	copy = xstrdup(buf_text(&text));
	for (size_t cut = text.len; cut-- > 0;) {
		copy[cut] = '\0';
		CHECK(decode(copy, arena, &got) != CODE_OK);
		CHECK(err.text[0] != '\0');
	}
	strcpy(copy, buf_text(&text));
	for (size_t i = 0; i < text.len; i++) {
		static const char others[] = "Az09-_.+=/ \n\x01\xff";

		for (const char *c = others; *c != '\0'; c++) {
			if (*c == (char)text.data[i] || (i == text.len - 1 && (*c == ' ' || *c == '\n')))
				continue;
			copy[i] = *c;
			CHECK(decode(copy, arena, &got) != CODE_OK);
		}
		copy[i] = (char)text.data[i];
	}
	copy[20] = '\n';
	CHECK_CODE(decode(copy, arena, &got), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "the join token has a blank or a line break in it: copy it whole, or make another one with "
			    "'cluster token'");
	free(copy);
}

/* Well-formed outside, nonsense inside: somebody made it on purpose. */
TEST(fields_out_of_bounds_are_refused)
{
	OWN_STRUCT(arena) arena = arena_new();
	static const struct {
		const char *address, *cluster, *td;
		int64_t expires;
		const char *want;
	} cases[] = {
		{ "nowhere", CLUSTER, "example.org", 1, "names a member by something that is no HOST:PORT" },
		{ ":80", CLUSTER, "example.org", 1, "no HOST:PORT" },
		{ "a:0", CLUSTER, "example.org", 1, "no HOST:PORT" },
		{ "a:65536", CLUSTER, "example.org", 1, "no HOST:PORT" },
		{ "a:8x", CLUSTER, "example.org", 1, "no HOST:PORT" },
		{ "a b:80", CLUSTER, "example.org", 1, "no HOST:PORT" },
		{ "a:80", "7c1f", "example.org", 1, "does not name a cluster" },
		{ "a:80", CLUSTER, "", 1, "does not name a trust domain" },
		{ "a:80", CLUSTER, "exam\nple", 1, "does not name a trust domain" },
		{ "a:80", CLUSTER, "example.org", 0, "does not say until when" },
		{ "a:80", CLUSTER, "example.org", INT64_MAX, "does not say until when" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct join_token token = sample(), got;
		OWN_BUF text = { 0 };

		token.addresses[1] = cases[i].address;
		token.cluster_id = cases[i].cluster;
		token.trust_domain = cases[i].td;
		token.expires_at = cases[i].expires;
		join_token_encode(&token, &text);
		CHECK_CODE(decode(buf_text(&text), arena, &got), CODE_INVALID_ARGUMENT);
		if (strstr(err.text, cases[i].want) == NULL)
			CHECK_STR(err.text, cases[i].want);
	}
}

TEST(a_token_is_for_one_trust_domain_and_for_a_while)
{
	struct join_token token = sample();

	CHECK_CODE(join_token_check(&token, "example.org", 1799999999, &err), CODE_OK);
	CHECK_CODE(join_token_check(&token, "example.org", 1800000000, &err), CODE_FAILED_PRECONDITION);
	CHECK_STR(err.text,
		  "the join token expired at 2027-01-15T08:00:00Z (this node's clock says 2027-01-15T08:00:00Z): "
		  "make another one with 'cluster token', or set the clock");
	CHECK_CODE(join_token_check(&token, "other.org", 1, &err), CODE_FAILED_PRECONDITION);
	CHECK_STR(err.text,
		  "the join token is for trust domain \"example.org\", this node is configured for \"other.org\": "
		  "set trust_domain, or make a token on a member of the right cluster");
}
