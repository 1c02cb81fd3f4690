/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_RAWH2_H
#define TESTS_LIB_RAWH2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* HTTP/2 by hand, for clients that do what no library would: frames are written as they are told and read one by one.
 */
struct rawh2;

enum {
	DATA = 0,
	HEADERS = 1,
	PRIORITY = 2,
	RST_STREAM = 3,
	SETTINGS = 4,
	PING = 6,
	GOAWAY = 7,
	WINDOW_UPDATE = 8,
	CONTINUATION = 9
};
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

struct rawh2 *rawh2_dial(const char *unix_path);      /* preface and empty SETTINGS are sent */
struct rawh2 *rawh2_dial_bare(const char *unix_path); /* nothing is */
struct rawh2 *rawh2_accept(int listen_fd); /* a server's end: takes the client's preface, sends empty SETTINGS */
void rawh2_close(struct rawh2 *wire);
int rawh2_fd(struct rawh2 *wire);

void rawh2_send(struct rawh2 *wire, const void *data, size_t len); /* ignores a peer that is gone */
void rawh2_frame(struct rawh2 *wire, uint8_t type, uint8_t flags, int32_t stream, const void *payload, size_t len);
/* Headers of a gRPC request; `more` is name, value, ..., NULL. `path` NULL: none of ours, only `more`. */
void rawh2_request(struct rawh2 *wire, int32_t stream, uint8_t flags, const char *path, const char *const *more);
void rawh2_message(struct rawh2 *wire, int32_t stream, uint8_t flags, const void *message,
		   size_t len); /* with its prefix, in DATA */

struct rawh2_frame {
	uint8_t type, flags;
	int32_t stream;
	uint8_t *payload;
	size_t len;
	char headers[4096]; /* of HEADERS: "name: value\n" each */
};
/* The next frame; answers SETTINGS, and PING unless told not to. False: the peer has closed, or nothing came for 10 s.
 */
bool rawh2_read(struct rawh2 *wire, struct rawh2_frame *out);
void rawh2_answer_pings(struct rawh2 *wire, bool answer);
bool rawh2_await(struct rawh2 *wire, uint8_t type, struct rawh2_frame *out); /* skips others; false: closed */
/* Reads until the stream ends; the trailers' headers are in `out`, DATA of it is counted. False: closed or reset. */
bool rawh2_finish(struct rawh2 *wire, int32_t stream, struct rawh2_frame *out, size_t *data);
bool rawh2_closed(struct rawh2 *wire); /* reads on until the peer closes; false: it does not within 10 s */

#endif
