/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_CODEC_H
#define RAFT_CODEC_H

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "raft/conf.h"
#include "raft/entry.h"

/* What the cores of two nodes say to each other, and its bytes. Who sent a message is what the link knows of the
 * connection, no field. Decoding is the gate behind which the consensus library trusts what it reads: every check of
 * libraft-core.md section 3 is here. The fuzz target is peer_decode. */
enum peer_kind {
	PEER_APPEND = 1, /* the library's numbers, up to PEER_TIMEOUT_NOW */
	PEER_APPEND_RESULT = 2,
	PEER_VOTE = 3,
	PEER_VOTE_RESULT = 4,
	PEER_SNAPSHOT = 5, /* a copy has arrived by its own stream, whole and synced: take it over */
	PEER_TIMEOUT_NOW = 6,
	PEER_PROBE = 7, /* a round of confirmation for reads (libraft-core.md section 2) */
	PEER_PROBE_ACK = 8,
};

enum {
	PEER_ENTRIES_MAX = 64,                 /* in one append */
	PEER_PIECE_BYTES = 256 << 10,          /* an append is closed at this size; a larger entry goes alone */
	PEER_ENTRY_MAX = LIMIT_COMMAND + 4096, /* payload of one entry */
	PEER_MESSAGE_MAX = PEER_ENTRY_MAX + PEER_PIECE_BYTES + 4096,
};

struct peer_message {
	enum peer_kind kind;
	uint64_t term;
	union {
		struct {
			uint64_t prev_index, prev_term, commit;
			unsigned n;
			struct entry *entries[PEER_ENTRIES_MAX]; /* references */
		} append;
		struct {
			uint64_t rejected, last_index;
			uint16_t features, capacity;
		} append_result;
		struct {
			uint64_t candidate, last_index, last_term;
			bool disrupt_leader;
		} vote;
		struct {
			bool granted;
			uint16_t features, capacity;
		} vote_result;
		struct {
			uint64_t index, term, conf_index; /* the state's own triple */
			struct conf conf;
		} snapshot;
		struct {
			uint64_t last_index, last_term;
		} timeout_now;
		struct {
			uint64_t round;
		} probe; /* and its answer */
	};
};

/* Appends the message to `out`: at most PEER_MESSAGE_MAX bytes. */
void peer_encode(const struct peer_message *message, struct buf *out);

/* The most that a message of this kind (its first byte) may take; 0 for an unknown kind. For the link: to be asked
 * before memory is given to a frame. */
size_t peer_size_max(uint8_t kind);

/* `from` is the sender as the link knows it, `self` this node. On success the entries of an append are references of
 * the caller: peer_message_done. INVALID_ARGUMENT with the reason: the connection is not to be trusted further. */
enum code peer_decode(const uint8_t *data, size_t len, uint64_t from, uint64_t self, struct peer_message *out,
		      struct err *err);
void peer_message_done(struct peer_message *message);

#endif
