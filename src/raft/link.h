/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_LINK_H
#define RAFT_LINK_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/loop.h"
#include "raft/peer_key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The links between the nodes of a cluster. Each node dials each other one: one ordered connection a peer and
 * direction, mutual TLS 1.3. What a node sends goes on the connection that it has dialled; what it receives comes on
 * those that it has accepted, answers to its requests on its own. A peer is the member whose pin its key has, nobody
 * else (V19).
 *
 * A connection that ends takes with it all that waited in it (R16): a new one starts empty, with a higher epoch. A
 * member that dials again replaces its former connection, of which nothing is delivered any more.
 *
 * Everything on one loop, the raft loop, but for the calls that say otherwise. Callbacks come from that loop, never
 * from within a call of the owner's. Strings given are copied unless it says otherwise. */
struct links;

enum { LINK_VERSION = 1, LINK_BOOT_LEN = 16, LINK_NAME_MAX = 63, LINK_ADDRESS_MAX = 255, LINK_ID_LEN = 36 };

/* What this node says of itself. */
struct link_self {
	const char *cluster_id, *trust_domain, *node_id, *name;
	uint64_t epoch;
	uint64_t starts; /* of vote_open */
	uint8_t boot[LINK_BOOT_LEN];
	const char *address, *api_address, *software;
	uint64_t features;
};

/* A row of the member table. `removed` ones are not dialled; if they come they are told so (R12). This node's own row
 * may be among them; it is known by its node id. */
struct link_member {
	uint64_t id;
	const char *name, *node_id;
	const char *address; /* HOST:PORT to dial */
	struct pin pins[2];  /* two while a key rotates */
	size_t n_pins;
	bool removed;
	uint64_t starts; /* highest that has been seen, with its boot; 0: none yet */
	uint8_t boot[LINK_BOOT_LEN];
};

/* Why a side ends a connection with words. The numbers go on the wire. */
enum link_refusal {
	LINK_REFUSED_OTHER = 0,
	LINK_REFUSED_VERSION = 1,
	LINK_REFUSED_TRUST_DOMAIN = 2,
	LINK_REFUSED_CLUSTER = 3,
	LINK_REFUSED_EPOCH = 4,
	LINK_REFUSED_UNKNOWN_KEY = 5,
	LINK_REFUSED_REMOVED = 6,
	LINK_REFUSED_ROLLED_BACK = 7,  /* a start counter that has been seen: the data directory is an old copy */
	LINK_REFUSED_NAME = 8,         /* two nodes of one name */
	LINK_REFUSED_NODE_ID = 9,      /* one key, two nodes */
	LINK_REFUSED_SELF = 10,        /* it has dialled itself */
	LINK_REFUSED_PROTOCOL = 11,    /* it sent what makes no sense */
	LINK_REFUSED_NOT_A_MEMBER = 12 /* the side that was dialled is not in a cluster (yet) */
};
const char *link_refusal_name(enum link_refusal reason); /* "removed" */

/* What the other side has said of itself and proved; for the duration of the callback. */
struct link_peer {
	uint64_t member; /* 0: a joiner, or one who asks */
	struct pin pin;  /* of the key that it showed */
	bool rotated;    /* the pin is none of the row's; a statement signed with one of those vouches for it (V19) */
	uint64_t epoch, features;
	const char *cluster_id, *trust_domain, *node_id, *name, *address, *api_address, *software;
};

enum link_down {
	LINK_DOWN_ENDED, /* it ended; a redial is under way: `dead` or `up` follows */
	LINK_DOWN_CLOSED /* this side closed it: member removed, address changed, what came made no sense */
};

/* A request that has come from a member (or a joiner). Answered once, from any thread, with link_answer. */
struct link_request {
	uint64_t from;  /* member; 0: a joiner */
	struct pin pin; /* the key that it showed */
	uint8_t method; /* the owner's numbers */
	struct span body;
	int64_t deadline_ms;       /* clock_mono_ms of this node: nobody waits any longer */
	struct link_peer *joining; /* a joiner's words, else NULL */
	struct message message;    /* the owner's while he has the request: to carry it to another loop */
	void *owner;               /* likewise */
};

struct link_copy_in {
	uint64_t from;
	uint64_t length;
	struct span about; /* the sender's words; until copy_end */
	void *owner;       /* the owner's */
};

struct link_events {
	/* The connection that this node dialled is ready: link_send works. `epoch` rises with each. */
	void (*up)(void *ctx, uint64_t member, uint64_t epoch, const struct link_peer *peer);
	/* It is gone, and what was queued with it. Requests that were under way have been told. */
	void (*down)(void *ctx, uint64_t member, enum link_down how, const char *why);
	/* The member's streams have ended and its port refuses a redial: its process is dead (libraft-core.md 1.4). */
	void (*dead)(void *ctx, uint64_t member);
	/* One side does not want the other: `by_us`: this node refused it. Told once for the same words on end. REMOVED
	 * or ROLLED_BACK, said by the others: this node must stop. `member` 0: a stranger. */
	void (*refused)(void *ctx, uint64_t member, bool by_us, enum link_refusal reason, const char *text);
	/* Room again after link_send has said no. */
	void (*writable)(void *ctx, uint64_t member);
	/* A message of consensus, in order per connection. Anything but OK ends that connection with the text as its
	 * reason (PERMISSION_DENIED: as REMOVED). */
	enum code (*raft)(void *ctx, uint64_t from, const uint8_t *data, size_t len, struct err *err);
	/* The member's own connection to this node has ended, and there is no other of it. NULL is fine. */
	void (*silent)(void *ctx, uint64_t member);
	/* To be answered with link_answer, now or later. */
	void (*request)(void *ctx, struct link_request *request);
	/* A higher start counter of a member: to be durable on return (seen.h). */
	void (*started)(void *ctx, uint64_t member, uint64_t starts, const uint8_t boot[LINK_BOOT_LEN]);
	/* A member shows a new key that its old one has signed: the owner may propose the new pin. NULL is fine. */
	void (*rotated)(void *ctx, uint64_t member, const struct pin *old, const struct pin *now);
	/* A copy of the state comes: OK and a descriptor open for writing (the link's from then on), or why not. NULL:
	 * copies are refused. */
	enum code (*copy_begin)(void *ctx, struct link_copy_in *copy, int *fd, struct err *err);
	/* OK: whole, its digest right, synced (fdatasync; the name is the owner's to sync). Else what is there is
	 * worthless. The descriptor is closed. After OK the sender hears `accept`'s answer (its err, if it is not OK).
	 */
	enum code (*copy_end)(void *ctx, struct link_copy_in *copy, enum code code, const uint8_t sha256[32],
			      struct err *err);
};

struct link_options {
	struct loop *loop;
	struct peer_key *key; /* a reference is taken */
	const struct link_events *events;
	void *ctx;
	/* 0: the default of each */
	int64_t handshake_ms;  /* 5000: dial, TLS and first words, all of it */
	int64_t redial_max_ms; /* 1000: between two dials of a peer that does not answer */
};

/* On the loop's thread or before it runs; so all that follows, unless it says otherwise. Before link_set_self this node
 * is in no cluster: it refuses all that come, and may only join and ask. */
enum code link_open(const struct link_options *options, struct links **out, struct err *err);
/* Ends everything at once; requests and copies under way are told, from within this call. No event comes any more.
 * Calls of other threads that are under way, or come later while the loop is there, end as not sent. To be called
 * before the loops whose tasks ask are freed, and before the links' own loop is. NULL is fine. */
void link_close(struct links *links);
OWNABLE_STRUCT(links, link_close)

/* The peer listener; the errors are those of listener_tcp. Port 0: any. */
enum code link_listen(struct links *links, const char *address, int port, struct err *err);
int link_port(const struct links *links);
void link_listen_stop(struct links *links); /* no new connections are accepted */

void link_set_self(struct links *links,
		   const struct link_self *self);             /* with another cluster or epoch: all is redialled */
void link_set_key(struct links *links, struct peer_key *key); /* for connections from now on; a reference is taken */
/* The whole table. Who is new is dialled, who is gone or removed is cut off, another address is dialled. */
void link_set_members(struct links *links, const struct link_member *members, size_t n);

/* --- messages of consensus --- */

/* Takes a whole message for the member. False: no connection, or no room: `writable` follows in the latter case, and
 * nothing of it is sent. A message with entries (`bulky`) is refused when it would lie with others in more than
 * LINK_AHEAD bytes; others have some room beyond that, so that a heartbeat or vote waits behind LINK_AHEAD at most (or
 * one message that is larger than that). */
enum { LINK_AHEAD = 256 << 10, LINK_QUEUE = LINK_AHEAD + (64 << 10) };
bool link_send(struct links *links, uint64_t member, const void *message, size_t len, bool bulky);
size_t link_queued(const struct links *links, uint64_t member); /* bytes that wait here; 0 without connection (R17) */

/* --- requests --- */

enum { LINK_BODY_MAX = 2 << 20 }; /* of a request or an answer */

enum link_outcome {
	LINK_ANSWERED, /* `code`, `body` (text, if code is not OK) are the peer's */
	LINK_NOT_SENT, /* it did not leave this node whole: nothing has happened there. `text` says why */
	LINK_UNKNOWN   /* the connection or the time ended before the answer: it may have happened or may yet */
};

struct link_answer {
	enum link_outcome outcome;
	enum code code;   /* UNAVAILABLE or DEADLINE_EXCEEDED unless ANSWERED */
	struct span body; /* until done returns, or in the caller's arena */
	const char *text; /* not ANSWERED, or code not OK: why */
};

/* From a task of any loop: waits for the answer until `deadline_ms` (clock_mono_ms). *answer lives in the arena. What
 * it returns is OK when the peer has answered OK, else the code with the text in err: the peer's own, UNAVAILABLE if it
 * was not sent or the outcome is unknown ("outcome unknown: ..."), DEADLINE_EXCEEDED, CANCELLED: answer->outcome tells.
 */
enum code link_ask(struct links *links, uint64_t member, uint8_t method, struct span body, int64_t deadline_ms,
		   struct arena *arena, struct link_answer *answer, struct err *err);

/* The same on the links' loop, without a task: `done` once, never from within (but for link_close). The struct stays
 * until then. */
struct link_call {
	void (*done)(struct link_call *call, const struct link_answer *answer);
	void *inside; /* the link's */
};
void link_call(struct links *links, uint64_t member, uint8_t method, struct span body, int64_t deadline_ms,
	       struct link_call *call);
void link_call_forget(struct link_call *call); /* `done` will not be called; the request may take effect all the same */

/* From any thread. `request` is gone afterwards. OK: `body`; else err's text goes with the code. */
void link_answer(struct link_request *request, enum code code, struct span body, const struct err *err);

/* --- without membership --- */

/* Before a node is a member: dials `addresses` one after the other until one answers that shows one of `pins`, says
 * JOIN, makes one request and hangs up (V17: a join opens nothing else). `peer` tells who answered. n_pins 0: any key,
 * and no request is made: what is asked is who is there (`method` is not used).
 * From a task on the links' loop. The answer as that of link_ask; UNAVAILABLE lists each address with its reason. */
struct link_stranger {
	const char *const *addresses;
	size_t n_addresses;
	const struct pin *pins;
	size_t n_pins;
	const struct link_self *self; /* cluster_id and epoch may be empty: not compared */
	uint8_t method;
	struct span body;
	int64_t deadline_ms;
};
enum code link_join(struct links *links, const struct link_stranger *stranger, struct arena *arena,
		    struct link_peer *peer, struct link_answer *answer, struct err *err);

/* --- copies of the state --- */

struct link_copy_out;
struct link_copy {
	int fd; /* open for reading, from its present beginning on (pread from 0); the link's, closed at the end */
	uint64_t length;
	struct span about;    /* for the receiver's owner; copied; up to 64 KiB */
	uint64_t bytes_per_s; /* 0: no limit */
	/* Once, never from within link_copy_send. OK: the receiver holds it whole and synced, and its owner accepted
	 * it. */
	void (*done)(void *ctx, enum code code, const char *why, const uint8_t sha256[32]);
	void *ctx;
};
/* On a connection of its own. The handle is good until `done`. */
struct link_copy_out *link_copy_send(struct links *links, uint64_t member, const struct link_copy *copy);
void link_copy_cancel(struct link_copy_out *copy);         /* `done` comes with CANCELLED, before this returns */
uint64_t link_copy_sent(const struct link_copy_out *copy); /* bytes so far */

/* --- looking --- */

struct link_status {
	uint64_t member, epoch;
	bool up;               /* the dialled connection */
	bool heard;            /* an accepted one */
	int64_t last_heard_ms; /* clock_mono_ms of the last bytes, 0: never */
	int64_t down_since_ms; /* clock_mono_ms; 0: up */
	size_t queued;
	char why[256]; /* not up: the last reason, "connection refused" */
};
bool link_status(const struct links *links, uint64_t member, struct link_status *out);

#endif
