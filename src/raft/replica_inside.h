/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_REPLICA_INSIDE_H
#define RAFT_REPLICA_INSIDE_H

/* Inside of the replica: what its files share; for nobody else.
 *
 *   replica.c   the raft loop: the core, its callbacks, start and stop
 *   parcel.c    proposals -> parcels -> the leader's log entries; own and other nodes'
 *   pipeline.c  the apply thread and the checkpoint thread
 *   peers.c     the links: messages of consensus, forwarded parcels, confirmed reads
 *   cluster.c   who is a member: founding, tokens, joining, the reconciler, removal, transfer
 *   status.c    what others may know of the replica; about.c: what members say of themselves
 *   growth.c    one voter to two; copies of the state to members, and from them
 *
 * Three threads: the raft loop owns core, wal handle, parcels' states; the apply thread owns the store; the checkpoint
 * thread its own connection. What they share is under `lock`. */

#include "base/list.h"
#include "base/loop.h"
#include "raft/copy.h"
#include "raft/core.h"
#include "raft/link.h"
#include "raft/pair.h"
#include "raft/proposal.h"
#include "raft/vote.h"
#include "raft/wal.h"
#include "store/store.h"
#include "store/view.h"

#include "peer.pb-c.h"

#include <pthread.h>

/* Commands of one or several proposals on their way. */
struct parcel {
	struct link link; /* in replica->parcels, in order of sequence */
	uint64_t sequence;
	struct buf bytes; /* an encoded Parcel */
	struct parcel_piece {
		struct proposal *owner; /* a reference for each piece */
		struct piece *piece;
	} *pieces;
	size_t n;
	int64_t made_ms;
	bool sent, ever_sent; /* to the leader there was then; the raft loop's */
	int64_t not_before_ms; /* not sent again before */
	unsigned held;         /* under the lock: the raft loop works on it; who lets go of it last frees it */
	bool gone;             /* out of the list, its outcomes told */
};

/* A log entry that the core has been given, until its fate is told. */
struct submission {
	struct core_submission core;
	struct link link; /* in replica->submissions */
};

/* A parcel of another node, until it is in an entry. */
struct foreign {
	struct link link; /* in replica->foreign */
	struct buf bytes;
	struct link_request *request;
};

/* What this node knows of its place in the cluster before it can read it in the state (data_dir/raft/member). */
struct place {
	uint64_t id, epoch;
	char cluster_id[40];
	uint64_t joined; /* 0: a founder or a full member; 1: joined, not started; 2: joined, waits for the growth from one voter */
};

/* Requests over the links. */
enum { METHOD_PARCEL = 1, METHOD_READ, METHOD_JOIN, METHOD_SWITCH, METHOD_REMOVE, METHOD_TRANSFER, METHOD_ABOUT };

/* One voter to two, on the one that grows. */
struct growth {
	bool active, switched;
	uint64_t attempt, target;
	uint64_t term;
	struct core_triple triple;
};

/* Somebody waits for the state to hold an index. */
struct waiter {
	struct link link; /* in replica->waiters */
	struct message message;
	struct wait wait;
	struct loop *home;
	uint64_t index;
	_Atomic int refs;
	enum code code;
};

enum { SUBMISSIONS_OPEN = 2 }; /* more wait until these are durable, and share entries */

struct replica {
	/* set once */
	char *state_path, *trust_domain, *node_id, *raft_dir;
	struct generations *generations; /* NULL: a test's single file */
	const char *join_token;
	bool bootstrap;
	uint64_t boot;
	struct store *store; /* the apply thread's */
	struct checkpointer *checkpointer;
	struct loop *loop;
	pthread_t apply_thread, checkpoint_thread;

	/* the raft loop's */
	uint64_t id;
	struct core *core;
	uint64_t core_number; /* how many there have been in this process */
	struct wal *wal;
	struct vote *vote;
	struct vote_state vote_state;
	struct core_recovered recovered; /* until the core has started */
	struct entry **recovered_entries;
	size_t n_recovered, cap_recovered;
	struct core_role role;
	uint64_t reset_index, reset_term; /* of the last log reset */
	struct link submissions;
	unsigned n_submissions;
	int64_t last_stamp_ms;
	uint64_t next_sequence;
	struct link foreign;
	struct pair *place_file;
	struct place place;
	const struct config_cluster *cluster; /* NULL: alone, no links */
	char *node_dir;
	struct peer_key *key;
	struct links *links;
	uint8_t link_boot[LINK_BOOT_LEN];
	struct reader *reader;
	struct arena *members_arena;
	Pb__Member **members;
	size_t n_members;
	struct growth growth;
	uint64_t copying_to; /* a bit for each member id below 64 that a copy is under way to */
	struct { /* a copy that has come */
		bool coming, here;
		struct core_triple triple;
		uint64_t attempt;
	} copy;
	bool pipeline_runs;
	bool serving; /* others read the state file: it cannot be put in another's place under them */
	bool reconciling;
	struct task *reconciler;
	struct wait reconcile;
	uv_timer_t timer;
	uv_prepare_t before_poll;
	int64_t ticked_ms;

	/* shared */
	pthread_mutex_t lock;
	pthread_cond_t work; /* to the apply thread: the queue, stopping, an exclusive checkpoint ended */
	pthread_cond_t news; /* to the others: a proposal done, the apply thread idle, a checkpoint due, started */
	struct link proposals; /* struct proposal, waiting to be packed */
	size_t proposals_bytes;
	struct message kick;
	bool kicked;
	struct link parcels; /* struct parcel, until their outcomes are told */
	struct entry **queue; /* to be applied: a ring */
	size_t queue_at, queue_n, queue_cap;
	struct link waiters;
	struct message members_message;
	bool members_posted;
	struct message hand_over_message;
	bool handed_over;
	struct replica_view view;
	int64_t caught_up_ms; /* when it last had applied all that it had heard committed */
	struct core_status published; /* as of the loop's last turn but a few */
	struct { uint64_t id; bool up; int64_t last_heard_ms; char why[64]; } published_links[CONF_MAX];
	int64_t published_ms;
	bool publish_now; /* the raft loop's: somebody leads, or a peer is connected, who did not before */
	bool started, closing /* takes nothing new */, stopping, applying, apply_ended;
	bool checkpoint_due, exclusive_wanted;
	uint32_t checkpointed_at; /* frames of the WAL at the last checkpoint */
	struct replica_status status;
	struct core_triple triple; /* of the state as it is now */
	struct core_triple durable; /* on its way to the core */
	struct message durable_message;
	bool durable_posted;
};

/* about.c: on the raft loop */
void about_answer(struct replica *replica, struct link_request *request);

/* status.c */
void status_publish(struct replica *replica, bool now); /* on the raft loop */

/* replica.c */
void replica_tick(struct replica *replica); /* first of all in every entry point of the loop (R21) */
__attribute__((noreturn)) void replica_fail(const char *msg, const struct err *err);

/* peers.c */
enum code peers_open(struct replica *replica, struct err *err); /* key, links, listener: on the raft loop, before the core */
void peers_close(struct replica *replica);
extern const struct core_io replica_io;
bool peers_forward(struct replica *replica, struct parcel *parcel); /* to the leader; false: not now */
void foreign_answer_all(struct replica *replica, const char *why);  /* not taken: try elsewhere */
void waiters_wake(struct replica *replica);                         /* under the lock */

/* cluster.c: on the raft loop */
void cluster_members_changed(struct replica *replica); /* under the lock, from the apply thread */
void cluster_reload(struct replica *replica);          /* the table, from the state */
void cluster_role_changed(struct replica *replica);
void cluster_start(struct replica *replica); /* once the core runs */
void cluster_hand_over(struct message *message); /* hand_over_message, from replica_stop */
void cluster_answer(struct replica *replica, struct link_request *request); /* JOIN, REMOVE, TRANSFER */
enum code cluster_join(struct replica *replica, const char *token, struct err *err); /* in a task, before the core */
const Pb__Member *cluster_member(const struct replica *replica, uint64_t id);
/* Is this node in `conf` as what it is meant to be: a voter, or a signer's standby? */
bool cluster_settled(const struct replica *replica, const struct conf *conf);

/* growth.c: on the raft loop */
enum code growth_run(struct replica *replica, uint64_t id, struct err *err); /* in a task: A */
void growth_answer(struct replica *replica, struct link_request *request);
/* B: what the founder's answer says, when this node held `asked` as it asked, and holds `now`. */
struct growth_copy {
	bool here;
	uint64_t attempt;
};
enum growth_verdict {
	GROWTH_GO_ON,     /* asking */
	GROWTH_SWITCHED,  /* both stand on the copy that is here */
	GROWTH_ELSEWHERE, /* with another node: this one joins as any later one does */
	GROWTH_DISCARD,   /* nothing comes of the copy */
};
enum growth_verdict growth_judge(struct growth_copy asked, struct growth_copy now, const Pb__SwitchAnswer *answer);
enum code growth_await(struct replica *replica, struct err *err); /* in a task: B, until it has switched; the core runs then */
void copy_send(struct replica *replica, uint64_t peer, uint64_t at_least);
enum code copy_begin(void *ctx, struct link_copy_in *copy, int *fd, struct err *err);
enum code copy_end(void *ctx, struct link_copy_in *copy, enum code code, const uint8_t sha256[32], struct err *err);
bool copy_ready(void *ctx, const struct core_triple *state);
void copy_install(void *ctx, const struct core_triple *state);
void triple_to_proto(const struct core_triple *from, Pb__Triple *out, struct buf *conf);
enum code triple_from_proto(const Pb__Triple *from, struct core_triple *out, struct err *err);

/* replica.c */
enum code replica_start_core(struct replica *replica, struct err *err); /* from replica->recovered and the state */
/* The copy that has come takes the state's place. */
enum code replica_take_copy(struct replica *replica, struct err *err);

/* peers.c */
void replica_log_reset(struct replica *replica, uint64_t index, uint64_t term);
void replica_after_log(struct replica *replica, struct message *message); /* delivered once the resets before are on the disk */

/* parcel.c: on the raft loop */
void parcels_pack(struct replica *replica);     /* takes the proposals that wait */
void parcels_dispatch(struct replica *replica); /* gives what is not sent to the leader, if this node is it */
void parcels_again(struct replica *replica);    /* leadership has changed: all of them are to be sent again */
void parcel_unsend(struct replica *replica, uint64_t sequence, int64_t not_before_ms);
void parcels_expire(struct replica *replica);   /* what no leader was found for, for too long, has failed */
int64_t parcels_deadline(struct replica *replica);
void submission_fate(struct replica *replica, struct core_submission *submission, enum core_fate fate);
/* from the apply thread, under the lock: this parcel of ours has been carried out */
void parcel_done(struct replica *replica, uint64_t sequence, const struct store_parcel *outcomes);
void parcels_fail_all(struct replica *replica, const char *why); /* at the end */

/* pipeline.c */
void pipeline_start(struct replica *replica);
void pipeline_stop(struct replica *replica);
void pipeline_push(struct replica *replica, struct entry *const *entries, size_t n); /* takes references */
void pipeline_note(struct replica *replica); /* under the lock, or before the threads run */
enum code pipeline_triple(struct store *store, struct core_triple *out, struct err *err);

#endif
