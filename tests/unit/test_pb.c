/* SPDX-License-Identifier: Apache-2.0 */
#include "agent.pb-c.h"
#include "api/pb.h"
#include "base/limits.h"
#include "base/rand.h"
#include "entry.pb-c.h"
#include "lib/test.h"
#include "types.pb-c.h"

#include <stdbool.h>
#include <stdlib.h>

static struct err err;

#define WIRE(text) ((struct span){ (const uint8_t *)(text), sizeof(text) - 1 })
#define MALFORMED "proto: cannot parse invalid wire-format data"

static enum code parse(struct arena *arena, const ProtobufCMessageDescriptor *type, struct span bytes, void **out)
{
	*out = NULL;
	memset(&err, 0, sizeof err);
	return pb_parse(type, bytes, arena, out, &err);
}

TEST(what_is_encoded_is_decoded)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Entry entry = PB__ENTRY__INIT, *back;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT;
	Pb__Selector one = PB__SELECTOR__INIT, two = PB__SELECTOR__INIT,
		     *selectors[] = { &one, &two, &one, &two, &one };
	const char *names[] = { "a", "b.org" };
	OWN_BUF bytes = { 0 };
	void *out;

	id.trust_domain = "example.org";
	id.path = "/web/\xc3\xa9";
	one.type = "unix";
	one.value = "uid:0";
	two.type = "x";
	entry.id = "e1";
	entry.spiffe_id = &id;
	entry.selectors = selectors;
	entry.n_selectors = 5;
	entry.dns_names = names;
	entry.n_dns_names = 2;
	entry.admin = true;
	entry.x509_svid_ttl = -5;
	entry.expires_at = INT64_MIN;
	entry.revision_number = INT64_MAX;
	buf_puts(&bytes, "kept");
	pb_encode(&entry, &bytes);
	CHECK_BYTES(bytes.data, "kept", 4);
	CHECK_CODE(parse(arena, &pb__entry__descriptor, (struct span){ bytes.data + 4, bytes.len - 4 }, &out), CODE_OK);
	back = out;
	CHECK_STR(back->id, "e1");
	CHECK_STR(back->spiffe_id->path, "/web/\xc3\xa9");
	CHECK(back->parent_id == NULL);
	CHECK_NUM(back->n_selectors, 5);
	CHECK_STR(back->selectors[4]->value, "uid:0");
	CHECK_STR(back->selectors[3]->value, "");
	CHECK_STR(back->dns_names[1], "b.org");
	CHECK(back->admin && !back->downstream);
	CHECK_NUM(back->x509_svid_ttl, -5);
	CHECK(back->expires_at == INT64_MIN && back->revision_number == INT64_MAX);
	CHECK_STR(back->hint, "");
}

TEST(many_items_of_a_list)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF bytes = { 0 };
	Pb__BatchDeleteEntryRequest *request;
	void *out;

	for (int i = 0; i < 1000; i++) {
		char id[16];

		snprintf(id, sizeof id, "%03d", i);
		buf_append(&bytes, "\x0a\x03", 2);
		buf_append(&bytes, id, 3);
	}
	CHECK_CODE(
		parse(arena, &pb__batch_delete_entry_request__descriptor, (struct span){ bytes.data, bytes.len }, &out),
		CODE_OK);
	request = out;
	CHECK_NUM(request->n_ids, 1000);
	for (int i = 0; i < 1000; i++)
		CHECK_NUM(atoi(request->ids[i]), i);
}

TEST(what_go_drops_is_dropped)
{
	OWN_STRUCT(arena) arena = arena_new();
	void *out;
	const struct {
		struct span bytes;
	} fine[] = {
		{ WIRE("") },
		{ WIRE("\x08\x05") },                 /* the id as a number: another wire type is an unknown field */
		{ WIRE("\x0d\1\2\3\4") },             /* ... as 32 bits */
		{ WIRE("\x09\1\2\3\4\5\6\7\x08") },   /* ... as 64 bits */
		{ WIRE("\xf8\xff\xff\xff\x0f\x01") }, /* field 2^29-1 */
		{ WIRE("\x1b\x1c") },                 /* an empty group */
		{ WIRE("\x1b\x08\x01\x23\x12\x01x\x24\x1c") }, /* groups in groups */
	};

	for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
		CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor, fine[i].bytes, &out), CODE_OK);
		CHECK_STR(((Pb__GetEntryRequest *)out)->id, "");
	}
}

TEST(what_is_no_message_is_refused)
{
	OWN_STRUCT(arena) arena = arena_new();
	void *out;
	const struct span bad[] = {
		WIRE("\xff\xff\xff\xff\xff\xff"),                         /* a varint without end */
		WIRE("\x0f"),                                             /* wire type 7 */
		WIRE("\x0e"),                                             /* wire type 6 */
		WIRE("\x0a\x05x"),                                        /* longer than what is there */
		WIRE("\x0a"),                                             /* no length */
		WIRE("\x02\x00"),                                         /* field 0 */
		WIRE("\x80\x80\x80\x80\x10\x00"),                         /* field 2^29 */
		WIRE("\x0c"),                                             /* the end of a group that was not begun */
		WIRE("\x1b"),                                             /* a group without end */
		WIRE("\x1b\x24"),                                         /* the end of another group */
		WIRE("\x09\1\2\3"),                                       /* half of 64 bits */
		WIRE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),     /* 65 bits */
		WIRE("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), /* 11 bytes */
		WIRE("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"),    /* a length of 2^64-1 */
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor, bad[i], &out), CODE_INTERNAL);
		CHECK_STR(err.text, MALFORMED);
		CHECK(out == NULL);
	}
	CHECK_CODE(pb_decode(&pb__get_entry_request__descriptor, bad[0], arena, &out, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "grpc: error unmarshalling request: " MALFORMED);
}

TEST(strings_are_utf8_without_nul)
{
	OWN_STRUCT(arena) arena = arena_new();
	void *out;
	const struct span bad[] = { WIRE("\x0a\x02\xff\xfe"), WIRE("\x0a\x01\xc3"), WIRE("\x0a\x02\xc0\x80"),
				    WIRE("\x0a\x03\xed\xa0\x80"),
				    WIRE("\x0a\x0a"
					 "abcdefghi\xff") };

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor, bad[i], &out), CODE_INTERNAL);
		CHECK_STR(err.text, "string field contains invalid UTF-8");
	}
	CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor,
			 WIRE("\x0a\x03"
			      "a\0b"),
			 &out),
		   CODE_INTERNAL);
	CHECK_STR(err.text, "string field contains a NUL byte");
	CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor, WIRE("\x0a\x06\xf0\x9f\x98\x80\xc2\xa9"), &out),
		   CODE_OK);
	/* bytes may hold anything */
	CHECK_CODE(parse(arena, &pb__attest_agent_request__descriptor, WIRE("\x12\x02\xff\x00"), &out), CODE_OK);
	CHECK_NUM(((Pb__AttestAgentRequest *)out)->challenge_response.len, 2);
}

TEST(a_message_that_comes_twice_is_merged)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__GetEntryRequest *request;
	void *out;

	/* output_mask { spiffe_id } and then output_mask { parent_id } */
	CHECK_CODE(parse(arena, &pb__get_entry_request__descriptor,
			 WIRE("\x12\x02\x10\x01\x0a\x01x\x12\x02\x18\x01\x0a\x01y"), &out),
		   CODE_OK);
	request = out;
	CHECK(request->output_mask->spiffe_id && request->output_mask->parent_id && !request->output_mask->selectors);
	CHECK_STR(request->id, "y"); /* the last one counts */
}

TEST(of_a_oneof_the_last_counts)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__AttestAgentRequest *request;
	void *out;

	CHECK_CODE(parse(arena, &pb__attest_agent_request__descriptor,
			 WIRE("\x12\x03"
			      "abc\x0a\x00"),
			 &out),
		   CODE_OK);
	request = out;
	CHECK_NUM(request->step_case, PB__ATTEST_AGENT_REQUEST__STEP_PARAMS);
	CHECK(request->params != NULL && request->params->data == NULL);
	CHECK_CODE(parse(arena, &pb__attest_agent_request__descriptor,
			 WIRE("\x0a\x00\x12\x03"
			      "abc"),
			 &out),
		   CODE_OK);
	request = out;
	CHECK_NUM(request->step_case, PB__ATTEST_AGENT_REQUEST__STEP_CHALLENGE_RESPONSE);
	CHECK_BYTES(request->challenge_response.data, "abc", 3);
}

/* Two bytes a piece on the wire, hundreds in memory. */
TEST(memory_has_a_limit)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF bytes = { 0 };
	void *out;

	while (bytes.len < LIMIT_MESSAGE)
		buf_append(&bytes, "\x0a\x00", 2);
	CHECK_CODE(
		parse(arena, &pb__batch_create_entry_request__descriptor, (struct span){ bytes.data, bytes.len }, &out),
		CODE_RESOURCE_EXHAUSTED);
	CHECK(arena_used(arena) < LIMIT_DECODED + (32 << 20));
}

/* What is cut or has a byte changed is refused or read, but nothing else happens (the sanitizers look on). */
TEST(damaged_messages)
{
	OWN_STRUCT(arena) first = arena_new();
	Pb__BatchCreateEntryRequest batch = PB__BATCH_CREATE_ENTRY_REQUEST__INIT;
	Pb__Entry entry = PB__ENTRY__INIT, *entries[] = { &entry, &entry };
	Pb__SPIFFEID id = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };
	OWN_BUF bytes = { 0 };
	void *out;

	id.path = "/a";
	selector.type = "t";
	selector.value = "v";
	entry.spiffe_id = entry.parent_id = &id;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	batch.entries = entries;
	batch.n_entries = 2;
	pb_encode(&batch, &bytes);
	for (size_t len = 0; len < bytes.len; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, bytes.data, len);
		parse(first, batch.base.descriptor, (struct span){ exact, len }, &out);
		free(exact);
	}
	for (int round = 0; round < 20000; round++) {
		OWN_STRUCT(arena) arena = arena_new();
		size_t at = rand_u64() % bytes.len;
		uint8_t before = bytes.data[at];

		bytes.data[at] = (uint8_t)rand_u64();
		parse(arena, batch.base.descriptor, (struct span){ bytes.data, bytes.len }, &out);
		bytes.data[at] = before;
	}
}
