/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_CORE_INSIDE_H
#define RAFT_CORE_INSIDE_H

/* What the files core*.c, member.c and reads.c share; nobody else includes this: it is the only door to <raft.h>.
 *
 * One call from outside runs one or more steps of the library (core_step) and ends with core_settle, which draws the
 * consequences: a barrier of a new leader, changes that are committed now, entries to apply, reads, member changes. */
#include "base/list.h"
#include "raft/core.h"
#include "raft/member.h"
#include "raft/reads.h"

#include <raft.h>

#if RAFT_VERSION_NUMBER != 2201
#error "the rules that this code keeps are those of libraft 0.22.1: memory ownership changed after it"
#endif

/* A write that is under way. */
struct core_write {
	uint64_t first, last;
	bool stale; /* a copy was installed since: says nothing any more */
};

/* What this node, as the leader, is about to send to a peer: the library says "all from prev on", this cuts it (R17).
 */
struct core_peer {
	uint64_t id;
	int64_t contact_ms; /* -1: never */
	bool streaming, probed, reading;
	uint64_t begin, next, end; /* [begin, next) sent and not acknowledged, [next, end] to be sent */
	int64_t moved_ms;          /* when the stream began or an answer moved it */
	uint64_t told;             /* the commit index that was last sent to it */
};

struct core {
	struct raft raft;
	const struct core_io *io;
	void *ctx;
	uint64_t id;
	uint32_t without;
	int64_t now;
	unsigned election, heartbeat;
	uint16_t capacity;
	bool stepping, started;

	struct mirror *mirror;
	struct core_write *writes; /* a queue: [front, front + n) modulo cap */
	size_t writes_front, n_writes, cap_writes;
	uint64_t durable; /* the highest index that is durable and still current: what the library was told (R1) */
	uint64_t given;   /* changes up to here were given to the library as committed (R13) */
	uint64_t handed;  /* to io->apply */
	bool installing;
	struct core_triple install;

	struct core_role role;
	bool barrier_due; /* R6 */
	bool frozen;
	uint64_t elections;
	struct link submissions; /* of this leadership, by index */
	struct link doubtful;    /* of earlier ones */

	struct core_peer peers[CONF_MAX];
	unsigned n_peers;
	uint64_t *removed;
	size_t n_removed, cap_removed;

	struct {
		uint64_t leader; /* 0: none */
		int64_t at_ms, until_ms;
	} died;

	struct reads reads;
	struct member member;
};

enum {
	CORE_QUEUE_BYTES = 1 << 20, /* R17 */
	CORE_OPEN_ENTRIES = 20000,  /* backpressure */
	CORE_OPEN_BYTES = 64 << 20,
};

static inline bool core_rule(const struct core *core, int rule)
{
	return (core->without >> rule & 1) == 0;
}

/* core.c */
/* Runs one event through the library and carries out what it wants. `pending` are the entries behind event's own, for
 * those that come back to be written. Answers 0 or an error that the client made (NOTLEADER, NOSPACE, CANTCHANGE,
 * BADID, NOTFOUND); all others end in io->fatal. */
int core_step(struct core *core, struct raft_event *event, struct entry *const *pending, unsigned n_pending);
void core_settle(struct core *core);
void core_fatal(struct core *core, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
void core_step_timeout(struct core *core);
int core_submit_entries(struct core *core, struct entry *const *entries, unsigned n);
bool core_is_leader(const struct core *core);
bool core_ready(const struct core *core);
uint64_t core_commit(const struct core *core);
const struct conf *core_newest_conf(const struct core *core);
uint64_t core_match(const struct core *core, uint64_t id);
void core_raft_conf(const struct conf *conf, struct raft_configuration *out);
struct core_peer *core_peer_get(struct core *core, uint64_t id); /* NULL: no other member */
void core_peers_sync(struct core *core);

/* core_update.c */
void core_update(struct core *core, const struct raft_update *update, struct entry *const *pending, unsigned n_pending);
void core_notice_role(struct core *core);

/* core_send.c */
void core_send_message(struct core *core, const struct raft_message *message);
void core_streams_reset(struct core *core);
void core_stream_reset(struct core_peer *peer);
void core_tell_commit(struct core *core);
void core_stream_answer(struct core *core, uint64_t from, uint64_t rejected, uint64_t last_index);

#endif
