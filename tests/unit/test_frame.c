/* SPDX-License-Identifier: Apache-2.0 */
#include "api/frame.h"
#include "api/pb.h"
#include "base/limits.h"
#include "lib/test.h"
#include "rpcstatus.pb-c.h"
#include "types.pb-c.h"

static struct err err;

/* Name, value, ..., NULL as a list. */
static struct header *headers(struct arena *arena, const char *const *pairs)
{
	struct header *list = NULL, **end = &list;

	for (; *pairs != NULL; pairs += 2, end = &(*end)->next) {
		*end = arena_alloc(arena, sizeof **end);
		**end = (struct header){ NULL, pairs[0], pairs[1] };
	}
	return list;
}
#define HEADERS(...) headers(arena, (const char *const[]){ __VA_ARGS__, NULL })

TEST(a_request)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct frame_request request;
	int status = 0;

	CHECK_CODE(frame_parse_request(HEADERS(":method", "POST", ":path", "/a.b.C/Do", "content-type",
					       "application/grpc", "grpc-timeout", "100m", "grpc-encoding", "identity"),
				       arena, &request, &status, &err),
		   CODE_OK);
	CHECK_NUM(request.service.len, 5);
	CHECK_BYTES(request.service.data, "a.b.C", 5);
	CHECK_BYTES(request.method.data, "Do", 3);
	CHECK(request.timeout_ns == 100000000 && request.encoding == NULL);
	CHECK_STR(request.content_type, "application/grpc");
	CHECK_CODE(frame_parse_request(
			   HEADERS(":method", "POST", ":path", "/a/b/c", "content-type", "application/grpc+proto"),
			   arena, &request, &status, &err),
		   CODE_OK);
	CHECK_BYTES(request.service.data, "a/b", 3);
	CHECK_STR(request.content_type, "application/grpc+proto");
	CHECK(request.timeout_ns == -1);
}

TEST(what_is_no_request)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct frame_request request;
	const struct {
		const char *method, *path, *type;
		int status;
		enum code code;
		const char *text;
	} bad[] = {
		{ "GET", "/a/b", "application/grpc", 405, CODE_INTERNAL,
		  "Received a HEADERS frame with :method \"GET\" which should be POST" },
		{ "POST", "/a/b", "application/json", 415, CODE_INVALID_ARGUMENT,
		  "invalid gRPC request content-type \"application/json\"" },
		{ "POST", "/a/b", "application/grpcx", 415, CODE_INVALID_ARGUMENT,
		  "invalid gRPC request content-type \"application/grpcx\"" },
		{ "POST", "/a/b", "", 415, CODE_INVALID_ARGUMENT, "invalid gRPC request content-type \"\"" },
		{ "POST", "/none", "application/grpc", 200, CODE_UNIMPLEMENTED, "malformed method name: \"/none\"" },
		{ "POST", "", "application/grpc;x", 200, CODE_UNIMPLEMENTED, "malformed method name: \"\"" },
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		int status = 0;

		CHECK_CODE(frame_parse_request(
				   HEADERS(":method", bad[i].method, ":path", bad[i].path, "content-type", bad[i].type),
				   arena, &request, &status, &err),
			   bad[i].code);
		CHECK_STR(err.text, bad[i].text);
		CHECK_NUM(status, bad[i].status);
		CHECK_STR(request.content_type, "application/grpc");
	}
}

TEST(timeouts)
{
	const struct {
		const char *text;
		int64_t ns;
	} fine[] = { { "1n", 1 },
		     { "0n", 0 },
		     { "1u", 1000 },
		     { "2m", 2000000 },
		     { "3S", 3000000000 },
		     { "1M", 60000000000 },
		     { "99999999H", INT64_MAX } };
	const struct {
		const char *text, *why;
	} bad[] = {
		{ "", "malformed grpc-timeout: transport: timeout string is too short: \"\"" },
		{ "S", "malformed grpc-timeout: transport: timeout string is too short: \"S\"" },
		{ "123456789S", "malformed grpc-timeout: transport: timeout string is too long: \"123456789S\"" },
		{ "abc", "malformed grpc-timeout: transport: timeout unit is not recognized: \"abc\"" },
		{ "-1S", "malformed grpc-timeout: strconv.ParseUint: parsing \"-1\": invalid syntax" },
	};
	int64_t ns;

	for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
		CHECK_CODE(frame_parse_timeout(fine[i].text, &ns, &err), CODE_OK);
		CHECK(ns == fine[i].ns);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_CODE(frame_parse_timeout(bad[i].text, &ns, &err), CODE_INTERNAL);
		CHECK_STR(err.text, bad[i].why);
	}
}

/* Messages come whole however the bytes are cut. */
TEST(messages_out_of_a_stream)
{
	static const uint8_t bytes[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\1x";

	for (size_t step = 1; step < sizeof bytes; step++) {
		struct frame_reader reader = { 0 };
		const char *const want[] = { "abc", "", "x" };
		size_t n = 0;

		for (size_t from = 0; from < sizeof bytes - 1; from += step) {
			const uint8_t *at = bytes + from;
			const uint8_t *end = bytes + (from + step < sizeof bytes - 1 ? from + step : sizeof bytes - 1);
			bool whole;

			while (at < end) {
				CHECK_CODE(frame_read(&reader, &at, end, &whole, &err), CODE_OK);
				if (!whole)
					continue;
				CHECK_NUM(reader.message.len, strlen(want[n]));
				CHECK(reader.message.len == 0 ||
				      memcmp(reader.message.data, want[n], reader.message.len) == 0);
				n++;
				frame_next(&reader);
			}
		}
		CHECK_NUM(n, 3);
		frame_done(&reader);
	}
}

TEST(frames_that_are_none)
{
	const struct {
		const char *encoding;
		uint8_t head[FRAME_HEAD];
		enum code code;
		const char *text;
	} bad[] = {
		{ NULL,
		  { 0, 0, 0x40, 0, 1 },
		  CODE_RESOURCE_EXHAUSTED,
		  "grpc: received message larger than max (4194305 vs. 4194304)" },
		{ NULL,
		  { 0, 255, 255, 255, 255 },
		  CODE_RESOURCE_EXHAUSTED,
		  "grpc: received message larger than max (4294967295 vs. 4194304)" },
		{ NULL, { 1, 0, 0, 0, 1 }, CODE_INTERNAL, "grpc: compressed flag set with identity or empty encoding" },
		{ NULL, { 2, 0, 0, 0, 1 }, CODE_INTERNAL, "grpc: received unexpected payload format 2" },
		{ "gzip",
		  { 1, 0, 0, 0, 1 },
		  CODE_UNIMPLEMENTED,
		  "grpc: Decompressor is not installed for grpc-encoding \"gzip\"" },
		{ "foo",
		  { 0, 0, 0, 0, 1 },
		  CODE_UNIMPLEMENTED,
		  "grpc: Decompressor is not installed for grpc-encoding \"foo\"" },
	};
	bool whole;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct frame_reader reader = { .encoding = bad[i].encoding };
		const uint8_t *at = bad[i].head;

		CHECK_CODE(frame_read(&reader, &at, at + FRAME_HEAD, &whole, &err), bad[i].code);
		CHECK_STR(err.text, bad[i].text);
		frame_done(&reader);
	}
}

TEST(the_largest_message_fits)
{
	struct frame_reader reader = { 0 };
	uint8_t head[FRAME_HEAD];
	const uint8_t *at = head;
	bool whole;

	frame_head(head, LIMIT_MESSAGE);
	CHECK_CODE(frame_read(&reader, &at, at + FRAME_HEAD, &whole, &err), CODE_OK);
	CHECK_NUM(reader.size, LIMIT_MESSAGE);
	CHECK(!whole);
	frame_done(&reader);
}

TEST(a_status_in_trailers)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct header more = { NULL, "x", "y" };
	const struct header *list = frame_status(CODE_OK, &err, NULL, arena);
	struct err denied = { .code = CODE_PERMISSION_DENIED, .reason = 4, .text = "a%b \xc3\xa9\n\xff~" };
	OWN_BUF text = { 0 }, bytes = { 0 };

	CHECK_STR(header_find(list, "grpc-status"), "0");
	CHECK(header_find(list, "grpc-message") == NULL && list->next == NULL);
	list = frame_status(CODE_OK, &denied, &more, arena); /* what failed on the way does not matter */
	CHECK_STR(header_find(list, "grpc-status"), "0");
	CHECK_STR(header_find(list, "x"), "y");
	CHECK(header_find(list, "grpc-message") == NULL && header_find(list, "grpc-status-details-bin") == NULL);

	list = frame_status(CODE_PERMISSION_DENIED, &denied, &more, arena);
	CHECK_STR(list->name, "grpc-status");
	CHECK_STR(list->value, "7");
	CHECK_STR(header_find(list, "grpc-message"), "a%25b %C3%A9%0A%EF%BF%BD~");
	buf_puts(&text, header_find(list, "grpc-status-details-bin"));
	CHECK(memchr(text.data, '=', text.len) == NULL); /* without padding */
	while (text.len % 4 != 0)
		buf_put(&text, '=');
	CHECK(buf_unbase64(&bytes, (char *)text.data, text.len, 0));
}

TEST(details_name_the_reason)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err denied = { .code = CODE_PERMISSION_DENIED, .reason = 2, .text = "no" };
	const struct header *list = frame_status(CODE_PERMISSION_DENIED, &denied, NULL, arena);
	OWN_BUF text = { 0 }, bytes = { 0 };
	Pb__RpcStatus *status;
	void *out;

	buf_puts(&text, header_find(list, "grpc-status-details-bin"));
	while (text.len % 4 != 0)
		buf_put(&text, '=');
	CHECK(buf_unbase64(&bytes, (char *)text.data, text.len, 0));
	CHECK_CODE(pb_parse(&pb__rpc_status__descriptor, (struct span){ bytes.data, bytes.len }, arena, &out, &err),
		   CODE_OK);
	status = out;
	CHECK_NUM(status->code, 7);
	CHECK_STR(status->message, "no");
	CHECK_NUM(status->n_details, 1);
	CHECK_STR(status->details[0]->type_url, "type.googleapis.com/spire.api.types.PermissionDeniedDetails");
	CHECK_CODE(pb_parse(&pb__permission_denied_details__descriptor,
			    (struct span){ status->details[0]->value.data, status->details[0]->value.len }, arena, &out,
			    &err),
		   CODE_OK);
	CHECK_NUM(((Pb__PermissionDeniedDetails *)out)->reason,
		  PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED);
}
