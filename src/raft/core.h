/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_CORE_H
#define RAFT_CORE_H

#include "base/err.h"
#include "base/list.h"
#include "raft/codec.h"
#include "raft/conf.h"
#include "raft/entry.h"
#include "raft/mirror.h"

/* Consensus behind one interface: the library's core, the rules R1 to R22 of libraft-core.md without which it is
 * unsafe, the mirror of the log, membership, confirmed reads. One thread (R22), no file, no socket, no clock: it is
 * driven by calls and answers through the callbacks of `struct core_io`, which the replica and the simulator
 * (tests/sim) implement.
 *
 * Time is the caller's (milliseconds that never go back): core_tick first of all at every turn of his loop, before any
 * message of that turn is handed in (R21); at the latest at core_deadline.
 *
 * Callbacks run inside a core_ call. They may call the functions that only look (core_status, core_term_of, ...), no
 * others. What they are lent they may keep only by taking references. */
struct core;

/* What became of a submission. Told once, unless it is withdrawn or the core is freed first. */
enum core_fate {
	CORE_COMMITTED, /* at its index and term; core_io.apply hands it on right after */
	CORE_LOST,      /* for sure: another entry is committed at its index */
	CORE_UNKNOWN,   /* a copy of the state has jumped over its index: ask the state by request id */
};

struct core_submission {
	struct link link;
	struct entry *entry; /* in: a command with one reference, index and term free; the core's from core_submit on */
	uint64_t index, term; /* out */
};

struct core_role {
	enum { CORE_FOLLOWER = 1, CORE_CANDIDATE = 2, CORE_LEADER = 3 } role;
	uint64_t term;
	uint64_t leader; /* 0: none known */
	bool ready;      /* leader: an entry of this term is committed; reads and changes of members may go */
};

struct core_io {
	/* Both values in one synced record, durable on return. */
	void (*vote)(void *ctx, uint64_t term, uint64_t voted_for);
	/* Drops the log from `first` on, then appends: asynchronous, in order; core_stored for each. A truncation must
	 * be durable before what replaces it. */
	void (*write)(void *ctx, uint64_t first, struct entry *const *entries, size_t n);
	/* The log is dropped whole; the next write begins at `next`. In order with the writes, without core_stored. */
	void (*log_reset)(void *ctx, uint64_t next);
	/* False: no connection, or the message could not be queued whole; nothing of it may be sent then. Messages of
	 * one connection arrive in order or the connection ends (R16). */
	bool (*send)(void *ctx, uint64_t to, const struct peer_message *message);
	size_t (*queued)(void *ctx, uint64_t to); /* bytes that wait on the connection to that peer */
	/* Entries from the log on disk for a peer that lags behind memory; core_read_log brings them. */
	void (*read_log)(void *ctx, uint64_t peer, uint64_t first, size_t max_bytes);
	/* Committed here and durable here, in order, without a hole: commands, barriers and changes. */
	void (*apply)(void *ctx, struct entry *const *entries, size_t n);
	/* `submission` is the caller's again. */
	void (*fate)(void *ctx, struct core_submission *submission, enum core_fate fate);
	/* Role, term, leader or readiness changed. When leadership is lost, open submissions are in doubt: another
	 * leader may still commit them. Nobody may be told "failed". */
	void (*role)(void *ctx, const struct core_role *role);
	/* A change of members is in the log (committed = false: in force, but it may go away again) or committed. */
	void (*conf)(void *ctx, uint64_t index, const struct conf *conf, bool committed);
	/* Leader: this peer needs entries that are gone; send it a copy of the state beside the core, `at_least` this
	 * index, then core_copy_sent. Asked again and again: to be ignored while a copy is under way. */
	void (*copy_wanted)(void *ctx, uint64_t peer, uint64_t at_least);
	/* Follower: is a copy that says this of itself here, whole and synced, under a temporary name? (R15)
	 * It may turn out not to be needed: then install does not follow. */
	bool (*copy_ready)(void *ctx, const struct core_triple *state);
	/* Take it over: rename, then drop the log (log_reset is not called for it), then core_installed. Asynchronous;
	 * a failure ends the process. Nothing is applied until then (R14). */
	void (*install)(void *ctx, const struct core_triple *state);
	/* A broken invariant: says why and does not return. */
	void (*fatal)(void *ctx, const char *why) __attribute__((noreturn));
};

struct core_options {
	uint64_t id;
	unsigned election_ms;  /* the heartbeat is a sixth of it */
	size_t memory;         /* byte budget for recent entries; 0: 64 MiB */
	uint16_t min_capacity; /* reserve units below which a majority makes the leader refuse writes; 0: never */
	int64_t now_ms;
	const struct core_io *io;
	void *ctx;
	uint32_t without; /* tests only: bit n leaves rule Rn out, to show that the checkers bite */
};

/* What was found on disk. A new node that waits to be spoken to: all zero. A founder: term 1 and the one entry of
 * core_founding_entry. */
struct core_recovered {
	uint64_t term, voted_for;     /* the vote record */
	struct core_triple state;     /* of the state file: applied index, its term, the configuration; index 0: none */
	uint64_t first;               /* of the log: index of entries[0]; 0 with an empty log */
	struct entry *const *entries; /* contiguous, terms not falling; references are taken */
	size_t n;
	const uint64_t *removed; /* ids of members that were removed (R12) */
	size_t n_removed;
};

/* DATA_LOSS: log, state and vote do not fit each other (a gap, a log without beginning, a term that went back), by
 * name. Callbacks run (write, apply, role, ...). */
enum code core_start(const struct core_options *options, const struct core_recovered *recovered, struct core **out,
		     struct err *err);
void core_free(struct core *core); /* open submissions and reads are told nothing; NULL is fine */

/* The entry at index 1, term 1 of a founded cluster: to be synced into the log before core_start. */
struct entry *core_founding_entry(const struct conf *conf);

void core_tick(struct core *core, int64_t now_ms);
int64_t core_deadline(const struct core *core); /* when core_tick is due; always later than the last tick */
/* Once at the end of each turn of the loop, before it sleeps: starts the round for reads that came in this turn, and
 * tells the followers what was committed in it. */
void core_flush(struct core *core);

/* A message of a member's connection. Anything but OK: close that connection (PERMISSION_DENIED: the sender was removed
 * and should be told so). The message stays the caller's. */
enum code core_receive(struct core *core, uint64_t from, const struct peer_message *message, struct err *err);
/* The connection to this peer is new or has ended: what was queued is gone. */
void core_link_changed(struct core *core, uint64_t peer);
/* Room again in the queue to this peer. */
void core_writable(struct core *core, uint64_t peer);
/* Entries that read_log asked for, from its `first` on; n = 0: they are gone. References are taken. */
void core_read_log(struct core *core, uint64_t peer, struct entry *const *entries, size_t n);
/* The stream from this peer has ended and the redial was refused, or was taken by a new process of it: the one that
 * spoke is dead. To be called at once, or not at all. If it led, this node campaigns after a short random wait
 * (libraft-core.md 1.4). */
void core_leader_died(struct core *core, uint64_t peer);

/* The oldest write that is under way is durable. */
void core_stored(struct core *core);
void core_installed(struct core *core);
void core_capacity(struct core *core, uint16_t units); /* free reserve of the log's disk */
/* The state file is durable with this triple: the log may be cut so that `trailing` entries below it stay. Answers the
 * lowest index that the log must keep, 0 if the triple was not used (a copy is being installed, or it is old: R13). */
uint64_t core_snapshot(struct core *core, const struct core_triple *state, uint64_t trailing);

/* Leader: the copy of the state with this triple is whole and synced at the peer. */
void core_copy_sent(struct core *core, uint64_t peer, const struct core_triple *state);

enum { CORE_SUBMIT_MAX = PEER_ENTRIES_MAX };
/* One log write and one round of messages for all of them (at most CORE_SUBMIT_MAX), in order. UNAVAILABLE: not the
 * leader, or handing over; RESOURCE_EXHAUSTED: too much under way, or the disks are full. On error all are still the
 * caller's. */
enum code core_submit(struct core *core, struct core_submission *const *submissions, size_t n, struct err *err);
/* No fate is told any more (nobody waits); the entry may still be committed. */
void core_withdraw(struct core *core, struct core_submission *submission);

/* A read that sees all that was acknowledged before it began: done(OK, index) when the leader is confirmed, and the
 * reader then waits until his state holds `index`. Else UNAVAILABLE: try again. done may come within core_flush, never
 * within core_read. */
struct core_read {
	struct link link;
	void (*done)(struct core_read *read, enum code code, uint64_t index);
	uint64_t round, index;
};
enum code core_read(struct core *core, struct core_read *read, struct err *err); /* UNAVAILABLE: not the leader */
void core_read_withdraw(struct core *core, struct core_read *read);

/* Changes of members, one at a time, on the leader. */
enum core_change_kind {
	CORE_ADD,     /* as a standby, which gets the log */
	CORE_PROMOTE, /* standby to voter, once it has caught up */
	CORE_DEMOTE,
	CORE_REMOVE,
};
struct core_change {
	enum core_change_kind kind;
	uint64_t id;
	const char *address; /* ADD; must live until done */
	/* OK: committed. FAILED_PRECONDITION, UNAVAILABLE...: not done, with the reason. UNKNOWN: leadership was lost,
	 * look at the configuration. Not within core_change. */
	void (*done)(struct core_change *change, enum code code, const char *why);
};
/* Refuses what would endanger the cluster, by name and remedy; on CODE_OK `done` follows. */
enum code core_change(struct core *core, struct core_change *change, struct err *err);

/* Hands leadership over: to `id`, 0: to the voter that has most. OK: begun; core_io.role tells the success, `done`
 * both ends. Submissions are refused meanwhile. */
struct core_transfer {
	uint64_t id;
	void (*done)(struct core_transfer *transfer, enum code code, const char *why);
};
enum code core_transfer(struct core *core, struct core_transfer *transfer, struct err *err);

/* One voter to two (R10, V18). All of it while nothing is submitted: core_freeze refuses submissions until core_thaw;
 * core_grow_base answers the triple of the copy (with today's configuration) once everything is applied and durable,
 * else UNAVAILABLE (ask again after the next apply). The replica ships it, then core_grow raises the term in the vote
 * record and answers from what both nodes start: { term, 0, { index, its term, index, {A,B} } }. The replica commits
 * that triple into its state file (this is the switch), frees this core and starts a new one from it. */
void core_freeze(struct core *core);
void core_thaw(struct core *core);
enum code core_grow_base(struct core *core, struct core_triple *out, struct err *err);
enum code core_grow(struct core *core, uint64_t id, const char *address, uint64_t *term, struct core_triple *out,
		    struct err *err);

struct core_peer_status {
	uint64_t id;
	uint8_t role;
	uint64_t match;          /* leader: durable there, as far as it is known */
	int64_t last_contact_ms; /* of the clock of core_tick; -1: never in this run */
};
struct core_status {
	struct core_role now;
	uint64_t last, durable, commit, handed; /* handed: to core_io.apply */
	uint64_t first;                         /* lowest index that the log holds */
	uint64_t snapshot;
	bool installing, frozen, changing, transferring;
	uint64_t elections; /* that this node has begun */
	uint64_t conf_index;
	struct conf conf; /* the newest, committed or not */
	bool conf_committed;
	unsigned n_peers;
	struct core_peer_status peers[CONF_MAX]; /* all members but this one */
};
void core_status(const struct core *core, struct core_status *out);
uint64_t core_term_of(const struct core *core, uint64_t index); /* 0: not known */
bool core_is_removed(const struct core *core, uint64_t id);
void core_set_removed(struct core *core, const uint64_t *ids, size_t n); /* adds: after a copy was installed */

#endif
