/* SPDX-License-Identifier: Apache-2.0 */
/* The blocking client against servers that do what they should not. Each test's server is a script on a thread. */
#include "api/client.h"
#include "base/clock.h"
#include "entry.pb-c.h"
#include "lib/rawh2.h"
#include "lib/test.h"
#include "types.pb-c.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char path[128];
static int listening = -1;
static pthread_t thread;
static struct rawh2_frame frame; /* the script's */

static void *run_script(void *script)
{
	((void (*)(void))script)();
	return NULL;
}

static void serve_with(void (*script)(void))
{
	static unsigned n;
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(path, sizeof path, "%s/fake-%u.sock", test_dir(), n++);
	snprintf(at.sun_path, sizeof at.sun_path, "%.100s", path);
	listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listening, (struct sockaddr *)&at, sizeof at) != 0 || listen(listening, 10) != 0)
		abort();
	pthread_create(&thread, NULL, run_script, (void *)script);
}

static void served(void)
{
	pthread_join(thread, NULL);
	close(listening);
}

static struct client *dial(void)
{
	struct client_options options = { .unix_path = path };
	struct client *client = NULL;
	struct err err;

	CHECK_CODE(client_open(&options, &client, &err), CODE_OK);
	return client;
}

static struct err err;

static enum code call(struct client *client)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;
	void *out;

	memset(&err, 0, sizeof err);
	request.id = "e";
	return client_call(client, "/a.B/C", &request, &pb__entry__descriptor, arena, &out, &err);
}

/* --- the scripts' words --- */

static void take_request(struct rawh2 *wire)
{
	while (rawh2_read(wire, &frame) && !(frame.type == DATA && (frame.flags & END_STREAM)))
		;
}

static void respond(struct rawh2 *wire, uint8_t flags, const char *const *pairs)
{
	rawh2_request(wire, frame.stream, flags, NULL, pairs);
}
#define RESPOND(wire, flags, ...) respond((wire), (flags), (const char *const[]){ __VA_ARGS__, NULL })

static void answer_ok(struct rawh2 *wire)
{
	RESPOND(wire, 0, ":status", "200", "content-type", "application/grpc");
	rawh2_message(wire, frame.stream, 0, "\x0a\x01i", 3);
	RESPOND(wire, END_STREAM, "grpc-status", "0", "x-more", "told");
}

static void goaway(struct rawh2 *wire, uint8_t last)
{
	const uint8_t payload[8] = { 0, 0, 0, last };

	rawh2_frame(wire, GOAWAY, 0, 0, payload, sizeof payload);
}

/* --- the cases --- */

static void one_answer(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	answer_ok(wire);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
}

TEST(an_answer_with_trailers)
{
	OWN_STRUCT(client) client = NULL;

	serve_with(one_answer);
	client = dial();
	CHECK_CODE(call(client), CODE_OK);
	CHECK_STR(client_trailer(client, "x-more"), "told");
	CHECK_STR(client_trailer(client, "content-type"), "application/grpc");
	CHECK(client_trailer(client, "nothing") == NULL);
	client_close(client);
	client = NULL;
	served();
}

/* A server that says goodbye between two calls: the second goes over another connection. */
static void goodbye_between(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	answer_ok(wire);
	goaway(wire, 1);
	rawh2_close(wire);
	one_answer();
}

TEST(another_connection_for_the_next_call)
{
	struct client *client;

	serve_with(goodbye_between);
	client = dial();
	CHECK_CODE(call(client), CODE_OK);
	CHECK_CODE(call(client), CODE_OK);
	client_close(client);
	served();
}

/* The call crosses with a GOAWAY that does not count it: sent again, over another connection. */
static void goodbye_to_a_call(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	goaway(wire, 0);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
	one_answer();
}

TEST(a_call_that_was_not_begun_is_made_again)
{
	struct client *client;

	serve_with(goodbye_to_a_call);
	client = dial();
	CHECK_CODE(call(client), CODE_OK);
	client_close(client);
	served();
}

static void hang_up(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	rawh2_close(wire);
}

TEST(a_connection_that_breaks)
{
	struct client *client;

	serve_with(hang_up);
	client = dial();
	CHECK_CODE(call(client), CODE_UNAVAILABLE); /* it may have been done: not made again */
	CHECK_STR(err.text, "error reading from server: EOF");
	client_close(client);
	served();
}

static void answers(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	RESPOND(wire, END_STREAM, ":status", "404", "content-type", "text/html");
	take_request(wire);
	rawh2_frame(wire, RST_STREAM, 0, frame.stream, "\0\0\0\x08", 4);
	take_request(wire);
	RESPOND(wire, 0, ":status", "200", "content-type", "application/grpc");
	rawh2_frame(wire, DATA, END_STREAM, frame.stream, NULL, 0);
	take_request(wire);
	RESPOND(wire, END_STREAM, ":status", "200", "grpc-status", "x");
	take_request(wire);
	RESPOND(wire, END_STREAM, ":status", "200", "grpc-status", "0");
	take_request(wire);
	RESPOND(wire, 0, ":status", "200");
	rawh2_message(wire, frame.stream, 0, "", 0);
	rawh2_message(wire, frame.stream, 0, "", 0);
	RESPOND(wire, END_STREAM, "grpc-status", "0");
	take_request(wire);
	RESPOND(wire, 0, ":status", "200");
	rawh2_frame(wire, DATA, 0, frame.stream, "\1\0\0\0\0", 5);
	take_request(wire);
	RESPOND(wire, 0, ":status", "200");
	rawh2_message(wire, frame.stream, 0, "\xff", 1);
	take_request(wire);
	RESPOND(wire, 0, ":status", "200");
	rawh2_frame(wire, DATA, 0, frame.stream, "\0\0\0\0\5ab", 7);
	RESPOND(wire, END_STREAM, "grpc-status", "0");
	take_request(wire);
	RESPOND(wire, END_STREAM, ":status", "200", "grpc-status", "7", "grpc-message", "a%20b%2",
		"grpc-status-details-bin", "!!");
	take_request(wire);
	RESPOND(wire, END_STREAM, ":status", "200", "grpc-status", "77");
	take_request(wire);
	answer_ok(wire);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
}

TEST(answers_that_are_none)
{
	const struct {
		enum code code;
		const char *text;
	} want[] = {
		{ CODE_UNIMPLEMENTED, "unexpected HTTP status code received from server: 404" },
		{ CODE_CANCELLED, "stream terminated by RST_STREAM with error code: CANCEL" },
		{ CODE_INTERNAL, "server closed the stream without sending trailers" },
		{ CODE_INTERNAL, "transport: malformed grpc-status: 'x'" },
		{ CODE_INTERNAL, "the server answered OK without a message" },
		{ CODE_INTERNAL, "the server answered more than one message" },
		{ CODE_INTERNAL, "grpc: compressed flag set with identity or empty encoding" },
		{ CODE_INTERNAL,
		  "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data" },
		{ CODE_INTERNAL, "unexpected EOF" },
		{ CODE_PERMISSION_DENIED, "a b%2" },
		{ (enum code)77, "" },
		{ CODE_OK, "" },
	};
	struct client *client;

	serve_with(answers);
	client = dial();
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		CHECK_CODE(call(client), want[i].code);
		CHECK_STR(err.text, want[i].text);
		CHECK_NUM(err.reason, 0);
	}
	client_close(client);
	served();
}

static void no_http2(void)
{
	char bytes[64];
	int fd = accept(listening, NULL, NULL);

	CHECK(recv(fd, bytes, sizeof bytes, 0) > 0);
	CHECK(send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL) == 28);
	while (recv(fd, bytes, sizeof bytes, 0) > 0)
		;
	close(fd);
	fd = accept(listening, NULL, NULL); /* and one that hangs up at once */
	close(fd);
}

TEST(servers_that_are_none)
{
	struct client_options options = { .unix_path = path, .connect_timeout_ms = 5000 };
	struct client *client = NULL;

	serve_with(no_http2);
	CHECK_CODE(client_open(&options, &client, &err), CODE_UNAVAILABLE);
	CHECK(strncmp(err.text, "connection error: desc = \"error reading server preface: ", 56) == 0);
	CHECK_CODE(client_open(&options, &client, &err), CODE_UNAVAILABLE);
	CHECK(strncmp(err.text, "connection error: desc = \"", 26) == 0); /* it may be seen at the write */
	served();
}

static void silence(void)
{
	struct rawh2 *wire = rawh2_accept(listening);

	take_request(wire);
	take_request(wire); /* the first was given up */
	answer_ok(wire);
	CHECK(rawh2_closed(wire));
	rawh2_close(wire);
}

TEST(a_deadline_of_the_client)
{
	int64_t begin_ms = clock_mono_ms();
	struct client *client;

	serve_with(silence);
	client = dial();
	client_timeout(client, 30);
	CHECK_CODE(call(client), CODE_DEADLINE_EXCEEDED);
	CHECK_STR(err.text, "context deadline exceeded");
	CHECK(clock_mono_ms() - begin_ms < 5000);
	client_timeout(client, 0);
	CHECK_CODE(call(client), CODE_OK); /* the connection is as good as before */
	client_close(client);
	served();
}

static void accept_and_sleep(void)
{
	int fd = accept(listening, NULL, NULL);
	char byte[256];

	while (recv(fd, byte, sizeof byte, 0) > 0)
		;
	close(fd);
}

TEST(a_server_that_does_not_begin)
{
	struct client_options options = { .unix_path = path, .connect_timeout_ms = 50 };
	struct client *client = NULL;

	serve_with(accept_and_sleep);
	CHECK_CODE(client_open(&options, &client, &err), CODE_UNAVAILABLE);
	CHECK_STR(err.text, "connection error: desc = \"error reading server preface: context deadline exceeded\"");
	served();
}
