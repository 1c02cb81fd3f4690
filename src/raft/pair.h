/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_PAIR_H
#define RAFT_PAIR_H

#include "base/err.h"
#include "base/own.h"

#include <stdbool.h>
#include <stddef.h>

/* A small record in a file, twice: it is replaced as a whole or not at all, and outlives damage to either copy. */
struct pair;

enum { PAIR_BODY_MAX = 256, PAIR_OWNER_MAX = 40 };

struct pair_kind {
	char magic[8];
	unsigned version; /* of the body */
	size_t body_len;
	const char *what;                     /* "vote record": for errors */
	const char *write_fault, *sync_fault; /* fault points */
};

/* Reads the record into `body`. With `make`, a file that is not there is made with the `body` that is passed. Refused,
 * by name: not there (NOT_FOUND, without `make`), a newer version (UNIMPLEMENTED), another owner's
 * (FAILED_PRECONDITION), both copies damaged or another kind (DATA_LOSS). */
enum code pair_open(const char *path, const struct pair_kind *kind, const char *owner, bool make, void *body,
		    struct pair **out, struct err *err);
void pair_close(struct pair *pair); /* NULL is fine */
OWNABLE_STRUCT(pair, pair_close)

/* Durable when it returns; a disk that fails ends the process. */
void pair_write(struct pair *pair, const void *body);

#endif
