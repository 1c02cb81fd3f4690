/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that do what no library would, against a whole server on its UNIX socket. */
#include "base/limits.h"
#include "base/rand.h"
#include "entry.pb-c.h"
#include "lib/api_server.h"
#include "lib/rawh2.h"
#include "lib/test.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define ENTRY "/spire.api.server.entry.v1.Entry/"
#define ATTEST "/spire.api.server.agent.v1.Agent/AttestAgent"

enum { PROTOCOL_ERROR = 1, ENHANCE_YOUR_CALM = 11 };

static struct api_server *server;
static struct rawh2_frame frame;

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
	struct rawh2 *wire = rawh2_dial(server->socket);

	rawh2_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	rawh2_message(wire, 1, END_STREAM, "\x0a\x01x", 3);
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\ngrpc-message: entry not found\n");
	rawh2_close(wire);
}

TEST(a_call)
{
	struct rawh2 *wire;

	server = api_server_open();
	wire = rawh2_dial(server->socket);
	rawh2_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	rawh2_message(wire, 1, END_STREAM, "\x0a\x01x", 3);
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_STR(frame.headers,
		  ":status: 200\ncontent-type: application/grpc\ngrpc-status: 5\ngrpc-message: entry not found\n");
	rawh2_request(wire, 3, 0, ENTRY "CountEntries", NULL);
	rawh2_message(wire, 3, 0, "", 0);
	rawh2_frame(wire, DATA, END_STREAM, 3, NULL, 0); /* the end on its own */
	CHECK(rawh2_await(wire, HEADERS, &frame));
	CHECK_STR(frame.headers, ":status: 200\ncontent-type: application/grpc\n");
	CHECK(rawh2_await(wire, DATA, &frame));
	CHECK_NUM(frame.len, 5);
	CHECK(rawh2_await(wire, HEADERS, &frame));
	CHECK_STR(frame.headers, "grpc-status: 0\n");
	CHECK_NUM(frame.flags & END_STREAM, END_STREAM);
	rawh2_close(wire);
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
	struct rawh2 *wire = rawh2_dial(server->socket);

	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		int32_t stream = (int32_t)(2 * i + 1);
		char want[256];

		rawh2_request(wire, stream, 0, calls[i].path, calls[i].more);
		rawh2_frame(wire, DATA, END_STREAM, stream, calls[i].body, calls[i].len);
		CHECK(rawh2_finish(wire, stream, &frame, NULL));
		snprintf(want, sizeof want, "grpc-status: %s\ngrpc-message: %s\n", calls[i].status, calls[i].message);
		CHECK_SAYS(want);
	}
	rawh2_close(wire);
}

TEST(no_grpc)
{
	struct rawh2 *wire = rawh2_dial(server->socket);

	rawh2_request(wire, 1, END_STREAM, NULL,
		      (const char *[]){ ":method", "GET", ":scheme", "http", ":authority", "localhost", ":path", "/a/b",
					"content-type", "application/grpc", NULL });
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS(":status: 405\n");
	rawh2_request(wire, 3, END_STREAM, NULL,
		      (const char *[]){ ":method", "POST", ":scheme", "http", ":authority", "localhost", ":path",
					"/a/b", NULL });
	CHECK(rawh2_finish(wire, 3, &frame, NULL));
	CHECK_SAYS(":status: 415\n");
	rawh2_request(wire, 5, END_STREAM, ENTRY "GetEntry", (const char *[]){ "connection", "close", NULL });
	CHECK(!rawh2_finish(wire, 5, &frame, NULL)); /* RST_STREAM: HTTP/2 has no such header */
	CHECK_NUM(word(frame.payload), 1);
	rawh2_close(wire);
}

/* A client that is answered before it has ended learns that nobody listens. */
TEST(an_early_answer)
{
	struct rawh2 *wire = rawh2_dial(server->socket);

	rawh2_request(wire, 1, 0, "/no/Thing", NULL);
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK(rawh2_await(wire, RST_STREAM, &frame));
	CHECK_NUM(word(frame.payload), 0); /* NO_ERROR */
	rawh2_close(wire);
}

TEST(trailers_of_a_request_mean_nothing)
{
	struct rawh2 *wire = rawh2_dial(server->socket);

	rawh2_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	rawh2_message(wire, 1, 0, "\x0a\x01x", 3);
	rawh2_request(wire, 1, END_STREAM, NULL, (const char *[]){ "x", "y", NULL });
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\n");
	rawh2_close(wire);
}

TEST(garbage)
{
	static const char *const bytes[] = { "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
					     "\x16\x03\x01" };
	struct rawh2 *wire;

	for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
		wire = rawh2_dial_bare(server->socket);
		rawh2_send(wire, bytes[i], strlen(bytes[i]));
		CHECK(rawh2_closed(wire));
		rawh2_close(wire);
	}
	wire = rawh2_dial(server->socket);
	rawh2_send(wire, "\xff\xff\xff\0\0\0\0\0\1", 9); /* a frame of 16 MiB */
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
	wire = rawh2_dial(server->socket);
	rawh2_frame(wire, HEADERS, END_HEADERS, 1, "\xff\xff\xff\xff", 4); /* no HPACK */
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
	wire = rawh2_dial(server->socket);
	rawh2_frame(wire, DATA, 0, 1, "x", 1); /* of a stream that was never begun */
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
	check_alive();
}

TEST(clients_that_leave_in_the_middle)
{
	for (int cut = 0; cut < 3; cut++) {
		struct rawh2 *wire = rawh2_dial(server->socket);

		rawh2_request(wire, 1, 0, cut == 2 ? ATTEST : ENTRY "GetEntry", NULL);
		if (cut == 0)
			rawh2_send(wire, "\0\0\x64\0\0\0\0\0\1abc", 12); /* of a frame of 100 bytes */
		if (cut == 1)
			rawh2_frame(wire, DATA, 0, 1, "\0\0\0\0\x64", 5);
		rawh2_close(wire);
	}
	check_alive();
}

TEST(headers_have_a_limit)
{
	struct rawh2 *wire = rawh2_dial(server->socket);
	char *long_value = malloc(LIMIT_HEADERS + 1);

	memset(long_value, 'a', LIMIT_HEADERS);
	long_value[LIMIT_HEADERS - 1000] = '\0';
	rawh2_request(wire, 1, END_STREAM, ENTRY "GetEntry", (const char *[]){ "x", long_value, NULL });
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 2\n"); /* it fits: EOF */
	long_value[LIMIT_HEADERS - 1000] = 'a';
	long_value[LIMIT_HEADERS] = '\0';
	rawh2_request(wire, 3, END_STREAM, ENTRY "GetEntry", (const char *[]){ "x", long_value, NULL });
	CHECK(!rawh2_finish(wire, 3, &frame, NULL)); /* reset, or the connection went */
	rawh2_close(wire);
	free(long_value);
	check_alive();
}

/* What costs us something and the client nothing. */
static void check_flood(void (*once)(struct rawh2 *wire, int i), int times)
{
	struct rawh2 *wire = rawh2_dial(server->socket);
	bool calm = false;

	rawh2_request(wire, 1, 0, ATTEST, NULL); /* a stream that is open */
	for (int i = 0; i < times; i++)
		once(wire, i);
	while (!calm && rawh2_await(wire, GOAWAY, &frame))
		calm = word(frame.payload + 4) == ENHANCE_YOUR_CALM;
	CHECK(calm);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
	check_alive();
}

static void reset_one(struct rawh2 *wire, int i)
{
	rawh2_request(wire, 2 * i + 3, 0, ENTRY "GetEntry", NULL);
	rawh2_frame(wire, RST_STREAM, 0, 2 * i + 3, "\0\0\0\x08", 4);
}

static void settings_one(struct rawh2 *wire, int i)
{
	(void)i;
	rawh2_frame(wire, SETTINGS, 0, 0, "\0\4\0\1\0\0", 6);
}

static void ping_one(struct rawh2 *wire, int i)
{
	(void)i;
	rawh2_frame(wire, PING, 0, 0, "12345678", 8);
}

static void empty_data_one(struct rawh2 *wire, int i)
{
	(void)i;
	rawh2_frame(wire, DATA, 0, 1, NULL, 0);
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
	struct rawh2 *wire = rawh2_dial(server->socket);

	for (int i = 0; i < 50; i++) { /* one a call, as grpc-go's estimate of the line does */
		rawh2_request(wire, 2 * i + 1, 0, ENTRY "GetEntry", NULL);
		rawh2_message(wire, 2 * i + 1, END_STREAM, "\x0a\x01x", 3);
		CHECK(rawh2_finish(wire, 2 * i + 1, &frame, NULL));
		rawh2_frame(wire, PING, 0, 0, "12345678", 8);
		CHECK(rawh2_await(wire, PING, &frame));
		CHECK_NUM(frame.flags & ACK, ACK);
		CHECK_BYTES(frame.payload, "12345678", 8);
	}
	rawh2_close(wire);
}

TEST(streams_have_a_limit)
{
	struct rawh2 *wire = rawh2_dial(server->socket);
	int32_t over = 2 * LIMIT_STREAMS + 1;

	while (rawh2_read(wire, &frame) && frame.type != SETTINGS)
		;
	for (int32_t id = 1; id < over; id += 2)
		rawh2_request(wire, id, 0, ENTRY "GetEntry", NULL);
	rawh2_request(wire, over, 0, ENTRY "GetEntry", NULL);
	CHECK(rawh2_await(wire, GOAWAY, &frame)); /* it has agreed to our SETTINGS */
	CHECK_NUM(word(frame.payload + 4), PROTOCOL_ERROR);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
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
	struct rawh2 *wire = rawh2_dial(server->socket);
	size_t got = 0, rest;

	add_entries(40, 10000);
	rawh2_frame(wire, WINDOW_UPDATE, 0, 0, "\0\x40\0\0",
		    4); /* 4 MiB for the connection: the stream's is what is short */
	rawh2_request(wire, 1, 0, ENTRY "ListEntries", NULL);
	rawh2_message(wire, 1, END_STREAM, "", 0);
	while (got < 65535 && rawh2_await(wire, DATA, &frame))
		got += frame.len;
	CHECK_NUM(got, 65535);
	rawh2_request(wire, 3, 0, ENTRY "GetEntry", NULL);
	rawh2_message(wire, 3, END_STREAM, "\x0a\x01x", 3);
	CHECK(rawh2_finish(wire, 3, &frame, NULL));
	CHECK_SAYS("grpc-status: 5\n");
	rawh2_frame(wire, WINDOW_UPDATE, 0, 1, "\0\x40\0\0", 4);
	CHECK(rawh2_finish(wire, 1, &frame, &rest));
	CHECK_SAYS("grpc-status: 0\n");
	CHECK(got + rest > 400000);
	rawh2_close(wire);
}

/* A client that does not read at all: what waits for it here is bounded, and others are served. */
TEST(a_client_that_reads_nothing)
{
	struct rawh2 *wire = rawh2_dial(server->socket);

	rawh2_frame(wire, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6); /* windows without end */
	rawh2_frame(wire, WINDOW_UPDATE, 0, 0, "\x7f\xff\0\0", 4);
	for (int32_t id = 1; id < 200; id += 2) { /* 100 times 400 kB */
		rawh2_request(wire, id, 0, ENTRY "ListEntries", NULL);
		rawh2_message(wire, id, END_STREAM, "", 0);
	}
	check_alive();
	for (int32_t id = 1; id < 200; id += 2) { /* and then it does */
		bool all = false;

		while (!all && rawh2_read(wire, &frame))
			all = frame.type == HEADERS && (frame.flags & END_STREAM);
		CHECK(all);
	}
	rawh2_close(wire);
}

/* A message larger than the first window: the server opens it. */
TEST(a_large_upload)
{
	struct rawh2 *wire = rawh2_dial(server->socket);
	static char message[300005];
	size_t window = 65535, sent = 5;
	const uint8_t head[5] = { 0, 0, 4, 0x93, 0xe0 }; /* 300000 */

	memset(message, 0, sizeof message);
	memcpy(message, "\x0a\xdb\xa7\x12", 4); /* field 1, 299995 bytes... */
	memset(message + 4, 'i', 299995);
	message[299999] = 0;
	memcpy(message + 4 + 299995, "\x18", 1); /* cut short: no message, but that is not what this is about */
	rawh2_request(wire, 1, 0, ENTRY "GetEntry", NULL);
	rawh2_frame(wire, DATA, 0, 1, head, 5);
	window -= 5;
	for (size_t at = 0; at < 300000;) {
		size_t n = 300000 - at < 16000 ? 300000 - at : 16000;

		while (window < n) {
			CHECK(rawh2_await(wire, WINDOW_UPDATE, &frame));
			if (frame.stream == 1)
				window += word(frame.payload);
		}
		rawh2_frame(wire, DATA, at + n == 300000 ? END_STREAM : 0, 1, message + at, n);
		window -= n;
		at += n;
		sent += n;
	}
	CHECK_NUM(sent, 300005);
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-status: 13\n");
	rawh2_close(wire);
}

/* Messages that are begun and not ended have a limit together; the stream that passes it is refused. */
TEST(requests_that_wait_have_a_limit)
{
	struct rawh2 *wire = rawh2_dial(server->socket);
	static char block[16384];

	for (int32_t id = 1; id <= 11; id += 2) { /* 6 times 3.2 MB */
		rawh2_request(wire, id, 0, ENTRY "GetEntry", NULL);
		rawh2_frame(wire, DATA, 0, id, "\0\0\x40\0\0", 5);
		for (int i = 0; i < 200; i++)
			rawh2_frame(wire, DATA, 0, id, block, sizeof block);
	}
	CHECK(rawh2_await(wire, HEADERS, &frame));
	CHECK_NUM(frame.stream, 11);
	CHECK_SAYS("grpc-status: 8\ngrpc-message: too many bytes of requests wait on this connection\n");
	rawh2_close(wire);
	check_alive();
}

/* Frames of a call with bytes changed, cut, or twice there: whatever comes of it, the others are served. */
TEST(damaged_frames)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	static const char frames[] = "\0\0\6\4\0\0\0\0\0\0\4\0\1\0\0"                  /* SETTINGS */
				     "\0\0\x0c\1\4\0\0\0\1\x83\x86\x41\1x\x40\1a\3xyz" /* HEADERS, no request of gRPC */
				     "\0\0\x08\0\0\0\0\0\1\0\0\0\0\3abc"               /* DATA */
				     "\0\0\4\x08\0\0\0\0\0\0\1\0\0"                    /* WINDOW_UPDATE */
				     "\0\0\x08\6\0\0\0\0\0"
				     "12345678"                      /* PING */
				     "\0\0\4\3\0\0\0\0\1\0\0\0\x08"; /* RST_STREAM */

	for (unsigned round = 0; round < 600; round++) {
		struct rawh2 *wire = rawh2_dial_bare(server->socket);
		char bytes[sizeof frames];
		size_t len = sizeof frames - 1;

		memcpy(bytes, frames, sizeof frames);
		for (unsigned n = round % 4; n > 0; n--)
			bytes[rand_u64() % len] = (char)rand_u64();
		if (round % 5 == 0)
			len = rand_u64() % len;
		rawh2_send(wire, preface, 24);
		rawh2_request(wire, 1, 0, round % 2 == 0 ? ATTEST : ENTRY "GetEntry", NULL);
		rawh2_send(wire, bytes, len);
		rawh2_send(wire, bytes, len);
		rawh2_close(wire);
	}
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
	struct rawh2 *wire = rawh2_dial(server->socket), *idle = rawh2_dial(server->socket);
	pthread_t thread;

	rawh2_request(wire, 1, 0, ATTEST, NULL);
	rawh2_request(wire, 3, 0, ENTRY "GetEntry", NULL);
	rawh2_message(wire, 3, END_STREAM, "\x0a\x01x", 3);
	CHECK(rawh2_finish(wire, 3, &frame, NULL));
	rawh2_answer_pings(wire, false);
	pthread_create(&thread, NULL, stop, server);
	CHECK(rawh2_await(wire, GOAWAY, &frame));
	CHECK_NUM(word(frame.payload), 0x7fffffff);
	CHECK_NUM(word(frame.payload + 4), 0);
	CHECK(rawh2_await(wire, PING, &frame));
	rawh2_request(wire, 5, 0, ENTRY "GetEntry", NULL); /* it crossed with the GOAWAY: served */
	rawh2_message(wire, 5, END_STREAM, "\x0a\x01x", 3);
	CHECK(rawh2_finish(wire, 5, &frame, NULL));
	rawh2_frame(wire, PING, ACK, 0, "draining", 8);
	CHECK(rawh2_await(wire, GOAWAY, &frame));
	CHECK_NUM(word(frame.payload), 5);
	rawh2_frame(wire, DATA, END_STREAM, 1, NULL, 0);
	CHECK(rawh2_finish(wire, 1, &frame, NULL));
	CHECK_SAYS("grpc-message: failed to receive request from stream: EOF\n");
	CHECK(rawh2_closed(wire));
	CHECK(rawh2_closed(idle));
	pthread_join(thread, NULL);
	rawh2_close(wire);
	rawh2_close(idle);
	CHECK(access(server->socket, F_OK) != 0);
	api_server_close(server);
}
