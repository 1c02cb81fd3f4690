/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_CONF_H
#define RAFT_CONF_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A configuration: who is a member, in which role. A plain value. The encoding is that of the consensus library, since
 * it reads the payload of a change itself; decoding checks what the library does not (it would read beyond the end). */
enum { CONF_MAX = 9, CONF_ADDRESS_MAX = 63 };

enum {
	CONF_STANDBY = 0, /* gets the log, has no vote (a signer, or a joiner on its way) */
	CONF_VOTER = 1,
	CONF_SPARE = 2, /* gets nothing; not used by us, but legal */
};

struct conf_server {
	uint64_t id; /* > 0, below 2^63, never reused */
	uint8_t role;
	char address[CONF_ADDRESS_MAX + 1]; /* an opaque name (V19), never reused */
};

struct conf {
	unsigned n;
	struct conf_server servers[CONF_MAX];
};

const struct conf_server *conf_get(const struct conf *conf, uint64_t id); /* NULL: not a member */
unsigned conf_voters(const struct conf *conf);
bool conf_is_voter(const struct conf *conf, uint64_t id);

/* Each answers INVALID_ARGUMENT, ALREADY_EXISTS, NOT_FOUND or RESOURCE_EXHAUSTED by name and leaves `conf` as it was.
 */
enum code conf_add(struct conf *conf, uint64_t id, const char *address, uint8_t role, struct err *err);
enum code conf_set_role(struct conf *conf, uint64_t id, uint8_t role, struct err *err);
enum code conf_remove(struct conf *conf, uint64_t id, struct err *err); /* keeps the order of the others (R8) */

void conf_encode(const struct conf *conf, struct buf *out); /* appends */
enum code conf_decode(const uint8_t *data, size_t len, struct conf *out, struct err *err);

#endif
