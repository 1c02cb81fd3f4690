/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "command.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* The state machine: an SQLite file (WAL) that is the state and the index. One writer; readers are store/view.h.
 * `apply` is deterministic and total: no clock, chance, socket or configuration in it; the command carries what it
 * needs. A refusal is an outcome. A failed write is not: the caller ends the process (log_fatal), nothing of the batch
 * is acknowledged. */
struct store;

/* Opens `path`, makes it with the schema if there is none. Refused by name: a newer format, a file that is no database
 * of ours, one that belongs to another trust domain ("" = none yet). Leaves nothing behind on failure. */
enum code store_open(const char *path, const char *trust_domain, struct store **out, struct err *err);
void store_close(struct store *store);
void store_remove_files(const char *path); /* the file and what SQLite keeps beside it */

struct store_item {
	const Pb__Command *command;
	Pb__Outcome *outcome; /* set by the apply functions, in the arena */
};

/* Commands of one node that travelled together. The same (boot, sequence) is carried out once (V14): a node that does
 * not know what became of a parcel may send it again. */
struct store_parcel {
	uint64_t boot, sequence; /* boot 0: not remembered */
	struct store_item *items;
	size_t n;
	bool repeated; /* out: it had been carried out before; the outcomes are not set */
};

/* One log entry. */
struct store_step {
	uint64_t index, term;
	int64_t stamp_ms; /* the batch's time */
	struct store_parcel *parcels;
	size_t n_parcels;
	struct span conf; /* of a change of members: the configuration from here on; else empty */
};

/* Carries it out: one transaction, the applied index and its term in it. It is in the file when this returns, and on
 * the disk after the next checkpoint: the log is the durable copy. `index` must be above store_applied(). Anything but
 * OK is fatal. */
enum code store_apply_step(struct store *store, const struct store_step *step, struct arena *arena, struct err *err);

/* The same for commands of nobody: tests and tools. */
enum code store_apply(struct store *store, uint64_t index, int64_t stamp_ms, struct store_item *items, size_t n,
		      struct arena *arena, struct err *err);

/* Where the state stands: applied index, its term, and the configuration as of there (availability.md V11). */
struct store_triple {
	uint64_t index, term, conf_index; /* conf_index 0: none yet */
	struct span conf;
};
enum code store_triple(struct store *store, struct arena *arena, struct store_triple *out, struct err *err);

/* From here on the state stands under another configuration, at the index where it is: the step from one voter to two, which no
 * log entry makes (availability.md V18). On the disk when it returns. */
enum code store_rebase(struct store *store, struct span conf, struct err *err);

/* UNIMPLEMENTED for a command of a format or kind that this version does not know. Such a one in a batch of store_apply
 * is fatal (V12): whoever takes commands in checks them first. */
enum { COMMAND_FORMAT = 1 };
enum code command_check(const Pb__Command *command, struct err *err);

uint64_t store_applied(const struct store *store);
int64_t store_stamp_ms(const struct store *store); /* of the last batch */

/* Sum modulo 2^256 of SHA-256(table, key, row) over all rows, kept by each write (availability.md V15). */
void store_digest(const struct store *store, uint8_t out[32]);
/* The same from the file, row by row: seconds for a million rows. A difference is a fault of ours or of the disk. */
enum code store_recount_digest(struct store *store, uint8_t out[32], struct err *err);
const char *store_trust_domain(const struct store *store); /* "" = none yet */

/* Frames in the WAL after the last batch (4 KiB each): when to checkpoint. */
uint32_t store_wal_frames(const struct store *store);

/* Moves WAL frames into the file, on a connection of its own, from a thread of its own. A disk error is fatal.
 * The WAL starts over only when all of it has been moved at a moment when nobody writes: `exclusive` says that the
 * caller keeps the writer still meanwhile. *left: frames that are still to be moved (also those that a reader holds
 * back). */
struct checkpointer;
enum code checkpointer_open(const char *path, struct checkpointer **out, struct err *err);
enum code checkpointer_run(struct checkpointer *checkpointer, bool exclusive, uint32_t *left, struct err *err);
void checkpointer_close(struct checkpointer *checkpointer);

/* SHA-256 of a join token: what the state keeps of it. */
void store_token_hash(const char *token, uint8_t out[32]);

#endif
