/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_COPY_H
#define RAFT_COPY_H

#include "base/arena.h"
#include "base/err.h"
#include "base/own.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

/* Copies of the state, and which of the state files in the data directory counts (availability.md V11). Generation 0
 * is "state.db"; an installed copy is a new generation "state.<number>.db", and a synced pointer, "state.current", says
 * which one it is. Numbers rise: the copy's index, or one more than the present number where that is higher. */

/* --- generations --- */

struct generations;

/* Reads the pointer, or makes it (generation 0) in a directory without any; removes what no longer counts: files of
 * other generations, copies that were not finished. Before the state is opened; the data directory's lock is held.
 * DATA_LOSS, by name: the pointer is damaged or missing, the file it points to is missing. The file of generation 0
 * need not be there yet. */
enum code generations_open(const char *data_dir, const char *owner, struct generations **out, struct err *err);
void generations_close(struct generations *generations); /* NULL is fine */
OWNABLE_STRUCT(generations, generations_close)

const char *generations_path(const struct generations *generations); /* of the state; until the next install */
uint64_t generations_number(const struct generations *generations);
/* Where a copy that is taken here, or arrives, is written: removed at the next start. `what`: a word without '/' */
char *generations_temporary(const struct generations *generations, const char *what, struct arena *arena);

/* The copy at `temporary` (whole, checked, synced) becomes the state: durable when it returns. The file before it stays
 * for those who read it; generations_forget removes it, by its path, once nobody has it open. A disk that fails ends
 * the process. From one thread at a time. */
void generations_install(struct generations *generations, const char *temporary, uint64_t index);
void generations_forget(struct generations *generations, const char *path); /* not the present one */

/* --- taking and checking --- */

enum { COPY_DIGEST = 32 };

/* What a copy says of itself. */
struct copy_info {
	struct store_triple state;
	uint64_t len;                /* of the file */
	uint8_t digest[COPY_DIGEST]; /* SHA-256 of the file */
};

/* store_copy, then the file is synced and its digest counted. Blocks; from a thread of its own. */
enum code copy_take(const char *state_path, const char *to, bool (*go_on)(void *ctx), void *ctx, struct arena *arena,
		    struct copy_info *out, struct err *err);

/* A copy that arrives, piece by piece. */
struct copy_in;
/* `path` is made anew. `info` is what the sender says. */
enum code copy_in_open(const char *path, const struct copy_info *info, struct copy_in **out, struct err *err);
/* More than was announced is INVALID_ARGUMENT; a full disk RESOURCE_EXHAUSTED. */
enum code copy_in_write(struct copy_in *in, const void *data, size_t len, struct err *err);
/* All of it has arrived: length and digest are compared, the file is opened as a state of this trust domain, its rows
 * are counted against the digest in it, and it stands where the sender said. Then it is synced: ready to be installed.
 * DATA_LOSS: it is not what was announced. Blocks. The file is removed on failure, and by copy_in_close before
 * success. */
enum code copy_in_finish(struct copy_in *in, const char *trust_domain, struct err *err);
uint64_t copy_in_received(const struct copy_in *in);
void copy_in_close(struct copy_in *in); /* NULL is fine */
OWNABLE_STRUCT(copy_in, copy_in_close)

#endif
