/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_WIRE_H
#define TESTS_LIB_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* HTTP/2 by hand, for clients that do what no library would: frames are written as they are told and read one by one.
 */
struct wire;

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

struct wire *wire_dial(const char *unix_path);      /* preface and empty SETTINGS are sent */
struct wire *wire_dial_bare(const char *unix_path); /* nothing is */
void wire_close(struct wire *wire);
int wire_fd(struct wire *wire);

void wire_send(struct wire *wire, const void *data, size_t len); /* ignores a peer that is gone */
void wire_frame(struct wire *wire, uint8_t type, uint8_t flags, int32_t stream, const void *payload, size_t len);
/* Headers of a gRPC request; `more` is name, value, ..., NULL. `path` NULL: none of ours, only `more`. */
void wire_request(struct wire *wire, int32_t stream, uint8_t flags, const char *path, const char *const *more);
void wire_message(struct wire *wire, int32_t stream, uint8_t flags, const void *message,
		  size_t len); /* with its prefix, in DATA */

struct wire_frame {
	uint8_t type, flags;
	int32_t stream;
	uint8_t *payload;
	size_t len;
	char headers[4096]; /* of HEADERS: "name: value\n" each */
};
/* The next frame; answers SETTINGS, and PING unless told not to. False: the peer has closed, or nothing came for 10 s.
 */
bool wire_read(struct wire *wire, struct wire_frame *out);
void wire_answer_pings(struct wire *wire, bool answer);
bool wire_await(struct wire *wire, uint8_t type, struct wire_frame *out); /* skips others; false: closed */
/* Reads until the stream ends; the trailers' headers are in `out`, DATA of it is counted. False: closed or reset. */
bool wire_finish(struct wire *wire, int32_t stream, struct wire_frame *out, size_t *data);
bool wire_closed(struct wire *wire); /* reads on until the peer closes; false: it does not within 10 s */

#endif
