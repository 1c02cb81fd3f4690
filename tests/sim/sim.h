/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

/* A cluster in one thread under one seed: simulated clock, disks and network around the real core (src/raft). Every
 * fault that the threat model names is drawn from the seed; checkers run after each event. A seed replays exactly. */
#include "base/list.h"
#include "raft/core.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NODES = 12 };

/* -- chance and time
 * ---------------------------------------------------------------------------------------------------- */

uint64_t sim_rand(uint64_t below); /* [0, below) */
bool sim_chance(unsigned per_mille);
int64_t sim_between(int64_t low, int64_t high);
int64_t sim_tailed(int64_t usual, int64_t tail); /* mostly within `usual`, now and then up to `tail` */

struct sim_options {
	uint64_t seed;
	int64_t fault_ms, heal_ms;
	uint32_t without;  /* core_options.without */
	bool unsafe_reads; /* planted: leaders answer reads without a round */
	bool kills;        /* only killed leaders, to measure */
	bool verbose;
	int64_t trace_ms; /* prints each message from here on; 0: none */
};

/* -- nodes
 * ---------------------------------------------------------------------------------------------------------------- */

/* What the state file says: the state machine is a digest of what was applied. */
struct state {
	struct core_triple triple;
	uint64_t digest;
};

struct disk_op {
	struct link link;
	enum { DISK_WRITE, DISK_RESET, DISK_INSTALL } kind;
	uint64_t first;
	size_t n;
	struct entry **entries;
	struct state state;
	int64_t due;
};

struct submission {
	struct core_submission base;
	struct link mine; /* in node->subs */
};

struct read {
	struct core_read base;
	struct link mine;
	struct node *node;
	uint64_t at_least; /* acknowledged before it began */
};

struct node {
	uint64_t id;
	bool exists, up;
	unsigned life; /* of the process: raised at each crash and start */
	int64_t paused_until, last_turn;
	struct core *core;
	struct core_role role;

	/* on disk */
	uint64_t term, voted_for;
	uint64_t log_first;
	struct entry **log;
	size_t log_n, log_cap;
	struct state state;     /* survives the end of the process, not always a power cut */
	uint64_t durable_index; /* of the last checkpoint: a power cut leaves at least this */
	struct state staged;    /* a copy, whole and synced; index 0: none */
	uint64_t max_applied;   /* in any life */

	/* in memory */
	struct link ops; /* disk */
	int64_t disk_free_at;
	struct entry **queue; /* to be applied */
	size_t queue_n, queue_cap;
	bool apply_due, installing;
	int64_t timer_at;
	uint64_t checked_commit;
	struct link subs, reads;
	bool copying[NODES + 1];
	bool changing, transferring, removed_told;
	size_t memory;
};

extern struct node nodes[NODES + 1]; /* by id */
extern int64_t killed_ms;            /* -k: when the leader was killed; 0: a write was committed since */
extern int64_t now;
extern bool calm; /* healed: no long delays any more */
extern struct sim_options options;

void node_boot(struct node *node);
void node_crash(struct node *node, bool power);
void node_stop(struct node *node);
void node_free(struct node *node);
void node_log_cut(struct node *node, uint64_t keep); /* drops what is below */
void node_turn(struct node *node);                   /* what a turn of its loop ends with */
void node_begin_turn(struct node *node);
bool disk_has(const struct node *node, uint64_t index, uint64_t term);

/* -- events
 * ------------------------------------------------------------------------------------------------------------------ */

typedef void event_fn(struct node *node, void *arg, uint64_t number);
/* Runs at `at`, in a turn of the node's loop if that life of it still runs (node NULL: of nobody). */
void sim_at(int64_t at, struct node *node, event_fn *run, void *arg, uint64_t number);
void sim_at_own(int64_t at, struct node *node, event_fn *run, void *arg,
		uint64_t number); /* arg: free(), if it is not run */
void sim_events_free(void);
bool sim_next(int64_t until); /* false: nothing before it */

/* -- network
 * --------------------------------------------------------------------------------------------------------------- */

void net_init(void);
void net_free(void);
bool net_send(struct node *from, uint64_t to, const struct peer_message *message);
size_t net_queued(const struct node *from, uint64_t to);
void net_reset(uint64_t a, uint64_t b); /* the connection ends: what is under way is lost, both sides hear of it */
void net_block(uint64_t from, uint64_t to, bool blocked);
void net_heal(void);
void net_stall(uint64_t from, uint64_t to, int64_t ms);
bool net_blocked(uint64_t from, uint64_t to);

/* -- checkers
 * -------------------------------------------------------------------------------------------------------------- */

void check_init(void);
void check_free(void);
void violation(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void check_leader(uint64_t term, uint64_t id);
void check_entry(const struct entry *entry); /* written anywhere */
void check_applied(const struct entry *entry, uint64_t digest);
void check_lost(uint64_t index, uint64_t term);
void check_commit(struct node *node);
void check_end(void);
uint64_t committed_digest(uint64_t index);
uint64_t committed_term(uint64_t index);
const struct core_triple *committed_triple(uint64_t index); /* the state's triple at that index; static */
uint64_t entry_hash(const struct entry *entry);
uint64_t next_digest(uint64_t digest, const struct entry *entry);
/* The state that a growth begins with has a configuration without an entry. */
void check_grown(uint64_t index, const struct conf *conf);
extern uint64_t removed_at[NODES + 1]; /* index of the committed change that removed the member; 0: none */

extern uint64_t acked;          /* the highest index that was acknowledged */
extern uint64_t committed_last; /* the highest that was applied anywhere */

struct counters {
	uint64_t committed, elections, crashes, partitions, pauses, snapshots, copies, changes, promotions, removals,
		transfers, reads, grown, disk_reads, lost, doubtful, fast, events;
};
extern struct counters counters;

/* -- the course of a run
 * -------------------------------------------------------------------------------------------------- */

void course_begin(void);
void course_heal(void);
void course_check_end(uint64_t committed_before);

#endif
