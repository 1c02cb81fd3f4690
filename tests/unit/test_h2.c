/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that do what no library would, against a whole server on its UNIX socket. */
#include "base/limits.h"
#include "entry.pb-c.h"
#include "lib/api_server.h"
#include "lib/test.h"
#include "lib/wire.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define ENTRY "/spire.api.server.entry.v1.Entry/"
#define ATTEST "/spire.api.server.agent.v1.Agent/AttestAgent"

enum { PROTOCOL_ERROR = 1, ENHANCE_YOUR_CALM = 11 };

static struct api_server *server;
static struct wire_frame frame;

static uint32_t word(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool says(const char *line)
{
	return strstr(frame.headers, line) != NULL;
}

#define CHECK_SAYS(line)                                                                                               \
	do {                                                                                                           \
		if (!says(line))                                                                                       \
			print_error("%s\n", frame.headers);                                                            \
		assert_true(says(line));                                                                               \
	} while (0)

/* The server answers others as if nothing had happened. */
static void check_alive(void)
{
	struct wire *wire = wire_dial(server->socket);

	wire_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	wire_message(wire, 1, END_STREAM, "\x0a\x01x", 3);
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\ngrpc-message: entry not found\n");
	wire_close(wire);
}

TEST(a_call)
{
	struct wire *wire;

	server = api_server_open();
	wire = wire_dial(server->socket);
	wire_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	wire_message(wire, 1, END_STREAM, "\x0a\x01x", 3);
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_STR(frame.headers,
		  ":status: 200\ncontent-type: application/grpc\ngrpc-status: 5\ngrpc-message: entry not found\n");
	wire_request(wire, 3, 0, ENTRY "CountEntries", NULL);
	wire_message(wire, 3, 0, "", 0);
	wire_frame(wire, DATA, END_STREAM, 3, NULL, 0); /* the end on its own */
	CHECK(wire_await(wire, HEADERS, &frame));
	CHECK_STR(frame.headers, ":status: 200\ncontent-type: application/grpc\n");
	CHECK(wire_await(wire, DATA, &frame));
	CHECK_NUM(frame.len, 5);
	CHECK(wire_await(wire, HEADERS, &frame));
	CHECK_STR(frame.headers, "grpc-status: 0\n");
	CHECK_NUM(frame.flags & END_STREAM, END_STREAM);
	wire_close(wire);
}

/* What stock SPIRE answers to the same. */
TEST(calls_that_are_none)
{
	const struct {
		const char *path;
		const char *more[5];
		const char *body;
		size_t len;
		const char *status, *message;
	} calls[] = {
		{ "/none", { 0 }, "", 0, "12", "malformed method name: \"/none\"" },
		{ "/a/b/c", { 0 }, "", 0, "12", "unknown service a/b" },
		{ ENTRY "No", { 0 }, "", 0, "12", "unknown method No for service spire.api.server.entry.v1.Entry" },
		{ "/grpc.health.v1.Health/Watch", { 0 }, "\0\0\0\0\0", 5, "12", "method Watch not implemented" },
		{ ENTRY "GetEntry", { 0 }, "", 0, "2", "EOF" },
		{ ENTRY "GetEntry", { 0 }, "\0\0\0", 3, "2", "EOF" },
		{ ENTRY "GetEntry", { 0 }, "\0\0\0\0\3\x0a\1", 7, "2", "unexpected EOF" },
		{ ENTRY "GetEntry",
		  { 0 },
		  "\1\0\0\0\3\x0a\1x",
		  8,
		  "13",
		  "grpc: compressed flag set with identity or empty encoding" },
		{ ENTRY "GetEntry", { 0 }, "\2\0\0\0\3\x0a\1x", 8, "13", "grpc: received unexpected payload format 2" },
		{ ENTRY "GetEntry",
		  { 0 },
		  "\0\0\0\0\3\x0a\5x",
		  8,
		  "13",
		  "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data" },
		{ ENTRY "GetEntry",
		  { 0 },
		  "\0\0\x40\0\1",
		  5,
		  "8",
		  "grpc: received message larger than max (4194305 vs. 4194304)" },
		{ ENTRY "GetEntry",
		  { "grpc-encoding", "foo" },
		  "\0\0\0\0\3\x0a\1x",
		  8,
		  "12",
		  "grpc: Decompressor is not installed for grpc-encoding \"foo\"" },
		{ ENTRY "GetEntry",
		  { "grpc-timeout", "0n" },
		  "\0\0\0\0\3\x0a\1x",
		  8,
		  "4",
		  "context deadline exceeded" },
		{ ENTRY "GetEntry",
		  { "grpc-timeout", "1x" },
		  "",
		  0,
		  "13",
		  "malformed grpc-timeout: transport: timeout unit is not recognized: \"1x\"" },
		{ ENTRY "GetEntry",
		  { 0 },
		  "\0\0\0\0\3\x0a\1x\0\0\0\0\3\x0a\1y",
		  16,
		  "5",
		  "entry not found" }, /* one too many */
		{ ATTEST, { 0 }, "", 0, "3", "failed to receive request from stream: EOF" },
		{ ATTEST, { 0 }, "\0\0\0\0\3\x0a\1", 7, "13", "unexpected EOF" },
		{ ATTEST,
		  { 0 },
		  "\0\0\0\0\1\xff",
		  6,
		  "13",
		  "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data" },
	};
	struct wire *wire = wire_dial(server->socket);

	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		int32_t stream = (int32_t)(2 * i + 1);
		char want[256];

		wire_request(wire, stream, 0, calls[i].path, calls[i].more);
		wire_frame(wire, DATA, END_STREAM, stream, calls[i].body, calls[i].len);
		CHECK(wire_finish(wire, stream, &frame, NULL));
		snprintf(want, sizeof want, "grpc-status: %s\ngrpc-message: %s\n", calls[i].status, calls[i].message);
		CHECK_SAYS(want);
	}
	wire_close(wire);
}

TEST(no_grpc)
{
	struct wire *wire = wire_dial(server->socket);

	wire_request(wire, 1, END_STREAM, NULL,
		     (const char *[]){ ":method", "GET", ":scheme", "http", ":authority", "localhost", ":path", "/a/b",
				       "content-type", "application/grpc", NULL });
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS(":status: 405\n");
	wire_request(wire, 3, END_STREAM, NULL,
		     (const char *[]){ ":method", "POST", ":scheme", "http", ":authority", "localhost", ":path", "/a/b",
				       NULL });
	CHECK(wire_finish(wire, 3, &frame, NULL));
	CHECK_SAYS(":status: 415\n");
	wire_request(wire, 5, END_STREAM, ENTRY "GetEntry", (const char *[]){ "connection", "close", NULL });
	CHECK(!wire_finish(wire, 5, &frame, NULL)); /* RST_STREAM: HTTP/2 has no such header */
	CHECK_NUM(word(frame.payload), 1);
	wire_close(wire);
}

/* A client that is answered before it has ended learns that nobody listens. */
TEST(an_early_answer)
{
	struct wire *wire = wire_dial(server->socket);

	wire_request(wire, 1, 0, "/no/Thing", NULL);
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK(wire_await(wire, RST_STREAM, &frame));
	CHECK_NUM(word(frame.payload), 0); /* NO_ERROR */
	wire_close(wire);
}

TEST(trailers_of_a_request_mean_nothing)
{
	struct wire *wire = wire_dial(server->socket);

	wire_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	wire_message(wire, 1, 0, "\x0a\x01x", 3);
	wire_request(wire, 1, END_STREAM, NULL, (const char *[]){ "x", "y", NULL });
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\n");
	wire_close(wire);
}

TEST(garbage)
{
	static const char *const bytes[] = { "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
					     "\x16\x03\x01" };
	struct wire *wire;

	for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
		wire = wire_dial_bare(server->socket);
		wire_send(wire, bytes[i], strlen(bytes[i]));
		CHECK(wire_closed(wire));
		wire_close(wire);
	}
	wire = wire_dial(server->socket);
	wire_send(wire, "\xff\xff\xff\0\0\0\0\0\1", 9); /* a frame of 16 MiB */
	CHECK(wire_closed(wire));
	wire_close(wire);
	wire = wire_dial(server->socket);
	wire_frame(wire, HEADERS, END_HEADERS, 1, "\xff\xff\xff\xff", 4); /* no HPACK */
	CHECK(wire_closed(wire));
	wire_close(wire);
	wire = wire_dial(server->socket);
	wire_frame(wire, DATA, 0, 1, "x", 1); /* of a stream that was never begun */
	CHECK(wire_closed(wire));
	wire_close(wire);
	check_alive();
}

TEST(clients_that_leave_in_the_middle)
{
	for (int cut = 0; cut < 3; cut++) {
		struct wire *wire = wire_dial(server->socket);

		wire_request(wire, 1, 0, cut == 2 ? ATTEST : ENTRY "GetEntry", NULL);
		if (cut == 0)
			wire_send(wire, "\0\0\x64\0\0\0\0\0\1abc", 12); /* of a frame of 100 bytes */
		if (cut == 1)
			wire_frame(wire, DATA, 0, 1, "\0\0\0\0\x64", 5);
		wire_close(wire);
	}
	check_alive();
}

TEST(headers_have_a_limit)
{
	struct wire *wire = wire_dial(server->socket);
	char *long_value = malloc(LIMIT_HEADERS + 1);

	memset(long_value, 'a', LIMIT_HEADERS);
	long_value[LIMIT_HEADERS - 1000] = '\0';
	wire_request(wire, 1, END_STREAM, ENTRY "GetEntry", (const char *[]){ "x", long_value, NULL });
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 2\n"); /* it fits: EOF */
	long_value[LIMIT_HEADERS - 1000] = 'a';
	long_value[LIMIT_HEADERS] = '\0';
	wire_request(wire, 3, END_STREAM, ENTRY "GetEntry", (const char *[]){ "x", long_value, NULL });
	CHECK(!wire_finish(wire, 3, &frame, NULL)); /* reset, or the connection went */
	wire_close(wire);
	free(long_value);
	check_alive();
}

/* What costs us something and the client nothing. */
static void check_flood(void (*once)(struct wire *wire, int i), int times)
{
	struct wire *wire = wire_dial(server->socket);
	bool calm = false;

	wire_request(wire, 1, 0, ATTEST, NULL); /* a stream that is open */
	for (int i = 0; i < times; i++)
		once(wire, i);
	while (!calm && wire_await(wire, GOAWAY, &frame))
		calm = word(frame.payload + 4) == ENHANCE_YOUR_CALM;
	CHECK(calm);
	CHECK(wire_closed(wire));
	wire_close(wire);
	check_alive();
}

static void reset_one(struct wire *wire, int i)
{
	wire_request(wire, 2 * i + 3, 0, ENTRY "GetEntry", NULL);
	wire_frame(wire, RST_STREAM, 0, 2 * i + 3, "\0\0\0\x08", 4);
}

static void settings_one(struct wire *wire, int i)
{
	(void)i;
	wire_frame(wire, SETTINGS, 0, 0, "\0\4\0\1\0\0", 6);
}

static void ping_one(struct wire *wire, int i)
{
	(void)i;
	wire_frame(wire, PING, 0, 0, "12345678", 8);
}

static void empty_data_one(struct wire *wire, int i)
{
	(void)i;
	wire_frame(wire, DATA, 0, 1, NULL, 0);
}

TEST(floods)
{
	check_flood(reset_one, 1200);
	check_flood(settings_one, 300);
	check_flood(ping_one, 100);
	check_flood(empty_data_one, 1200);
}

TEST(a_client_that_pings_in_measure)
{
	struct wire *wire = wire_dial(server->socket);

	for (int i = 0; i < 50; i++) { /* one a call, as grpc-go's estimate of the line does */
		wire_request(wire, 2 * i + 1, 0, ENTRY "GetEntry", NULL);
		wire_message(wire, 2 * i + 1, END_STREAM, "\x0a\x01x", 3);
		CHECK(wire_finish(wire, 2 * i + 1, &frame, NULL));
		wire_frame(wire, PING, 0, 0, "12345678", 8);
		CHECK(wire_await(wire, PING, &frame));
		CHECK_NUM(frame.flags & ACK, ACK);
		CHECK_BYTES(frame.payload, "12345678", 8);
	}
	wire_close(wire);
}

TEST(streams_have_a_limit)
{
	struct wire *wire = wire_dial(server->socket);
	int32_t over = 2 * LIMIT_STREAMS + 1;

	while (wire_read(wire, &frame) && frame.type != SETTINGS)
		;
	for (int32_t id = 1; id < over; id += 2)
		wire_request(wire, id, 0, ENTRY "GetEntry", NULL);
	wire_request(wire, over, 0, ENTRY "GetEntry", NULL);
	CHECK(wire_await(wire, GOAWAY, &frame)); /* it has agreed to our SETTINGS */
	CHECK_NUM(word(frame.payload + 4), PROTOCOL_ERROR);
	CHECK(wire_closed(wire));
	wire_close(wire);
	check_alive();
}

/* --- windows --- */

static void add_entries(size_t n, size_t id_len)
{
	char *id = malloc(id_len + 32);

	memset(id, 'x', id_len);
	for (size_t i = 0; i < n; i++) {
		Pb__Command command = PB__COMMAND__INIT;
		Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
		Pb__Entry entry = PB__ENTRY__INIT;
		Pb__SPIFFEID spiffe_id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
		Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };
		char path[32];

		snprintf(path, sizeof path, "/e%zu", i);
		snprintf(id + id_len, 32, "%zu", i);
		spiffe_id.trust_domain = parent.trust_domain = "example.org";
		spiffe_id.path = path;
		parent.path = "/p";
		selector.type = "a";
		selector.value = id;
		entry.id = path + 1;
		entry.spiffe_id = &spiffe_id;
		entry.parent_id = &parent;
		entry.selectors = selectors;
		entry.n_selectors = 1;
		create.entry = &entry;
		command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
		command.entry_create = &create;
		CHECK_NUM(harness_propose(server->h, &command)->code, CODE_OK);
	}
	free(id);
}

/* A client that does not open a stream's window holds that stream, and no other. */
TEST(a_slow_reader_holds_its_own_stream)
{
	struct wire *wire = wire_dial(server->socket);
	size_t got = 0, rest;

	add_entries(40, 10000);
	wire_frame(wire, WINDOW_UPDATE, 0, 0, "\0\x40\0\0",
		   4); /* 4 MiB for the connection: the stream's is what is short */
	wire_request(wire, 1, 0, ENTRY "ListEntries", NULL);
	wire_message(wire, 1, END_STREAM, "", 0);
	while (got < 65535 && wire_await(wire, DATA, &frame))
		got += frame.len;
	CHECK_NUM(got, 65535);
	wire_request(wire, 3, 0, ENTRY "GetEntry", NULL);
	wire_message(wire, 3, END_STREAM, "\x0a\x01x", 3);
	CHECK(wire_finish(wire, 3, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\n");
	wire_frame(wire, WINDOW_UPDATE, 0, 1, "\0\x40\0\0", 4);
	CHECK(wire_finish(wire, 1, &frame, &rest));
	CHECK_SAYS("grpc-status: 0\n");
	CHECK(got + rest > 400000);
	wire_close(wire);
}

/* A client that does not read at all: what waits for it here is bounded, and others are served. */
TEST(a_client_that_reads_nothing)
{
	struct wire *wire = wire_dial(server->socket);

	wire_frame(wire, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6); /* windows without end */
	wire_frame(wire, WINDOW_UPDATE, 0, 0, "\x7f\xff\0\0", 4);
	for (int32_t id = 1; id < 200; id += 2) { /* 100 times 400 kB */
		wire_request(wire, id, 0, ENTRY "ListEntries", NULL);
		wire_message(wire, id, END_STREAM, "", 0);
	}
	check_alive();
	for (int32_t id = 1; id < 200; id += 2) { /* and then it does */
		bool all = false;

		while (!all && wire_read(wire, &frame))
			all = frame.type == HEADERS && (frame.flags & END_STREAM);
		CHECK(all);
	}
	wire_close(wire);
}

/* A message larger than the first window: the server opens it. */
TEST(a_large_upload)
{
	struct wire *wire = wire_dial(server->socket);
	static char message[300005];
	size_t window = 65535, sent = 5;
	const uint8_t head[5] = { 0, 0, 4, 0x93, 0xe0 }; /* 300000 */

	memset(message, 0, sizeof message);
	memcpy(message, "\x0a\xdb\xa7\x12", 4); /* field 1, 299995 bytes... */
	memset(message + 4, 'i', 299995);
	message[299999] = 0;
	memcpy(message + 4 + 299995, "\x18", 1); /* cut short: no message, but that is not what this is about */
	wire_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	wire_frame(wire, DATA, 0, 1, head, 5);
	window -= 5;
	for (size_t at = 0; at < 300000;) {
		size_t n = 300000 - at < 16000 ? 300000 - at : 16000;

		while (window < n) {
			CHECK(wire_await(wire, WINDOW_UPDATE, &frame));
			if (frame.stream == 1)
				window += word(frame.payload);
		}
		wire_frame(wire, DATA, at + n == 300000 ? END_STREAM : 0, 1, message + at, n);
		window -= n;
		at += n;
		sent += n;
	}
	CHECK_NUM(sent, 300005);
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 13\n");
	wire_close(wire);
}

/* Messages that are begun and not ended have a limit together; the stream that passes it is refused. */
TEST(requests_that_wait_have_a_limit)
{
	struct wire *wire = wire_dial(server->socket);
	static char block[16384];

	for (int32_t id = 1; id <= 11; id += 2) { /* 6 times 3.2 MB */
		wire_request(wire, id, 0, ENTRY "GetEntry", NULL);
		wire_frame(wire, DATA, 0, id, "\0\0\x40\0\0", 5);
		for (int i = 0; i < 200; i++)
			wire_frame(wire, DATA, 0, id, block, sizeof block);
	}
	CHECK(wire_await(wire, HEADERS, &frame));
	CHECK_NUM(frame.stream, 11);
	CHECK_SAYS("grpc-status: 8\ngrpc-message: too many bytes of requests wait on this connection\n");
	wire_close(wire);
	check_alive();
}

/* --- the end --- */

static void *stop(void *arg)
{
	api_server_stop(arg);
	return NULL;
}

/* GOAWAY with the last id of all, a PING, GOAWAY with the true one; a stream that runs may finish. */
TEST(a_graceful_stop)
{
	struct wire *wire = wire_dial(server->socket), *idle = wire_dial(server->socket);
	pthread_t thread;

	wire_request(wire, 1, 0, ATTEST, NULL);
	wire_request(wire, 3, 0, ENTRY "GetEntry", NULL);
	wire_message(wire, 3, END_STREAM, "\x0a\x01x", 3);
	CHECK(wire_finish(wire, 3, &frame, NULL));
	wire_answer_pings(wire, false);
	pthread_create(&thread, NULL, stop, server);
	CHECK(wire_await(wire, GOAWAY, &frame));
	CHECK_NUM(word(frame.payload), 0x7fffffff);
	CHECK_NUM(word(frame.payload + 4), 0);
	CHECK(wire_await(wire, PING, &frame));
	wire_request(wire, 5, 0, ENTRY "GetEntry", NULL); /* it crossed with the GOAWAY: served */
	wire_message(wire, 5, END_STREAM, "\x0a\x01x", 3);
	CHECK(wire_finish(wire, 5, &frame, NULL));
	wire_frame(wire, PING, ACK, 0, "draining", 8);
	CHECK(wire_await(wire, GOAWAY, &frame));
	CHECK_NUM(word(frame.payload), 5);
	wire_frame(wire, DATA, END_STREAM, 1, NULL, 0);
	CHECK(wire_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-message: failed to receive request from stream: EOF\n");
	CHECK(wire_closed(wire));
	CHECK(wire_closed(idle));
	pthread_join(thread, NULL);
	wire_close(wire);
	wire_close(idle);
	CHECK(access(server->socket, F_OK) != 0);
	api_server_close(server);
}
