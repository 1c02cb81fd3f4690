/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_LINK_INSIDE_H
#define RAFT_LINK_INSIDE_H

#include "net/listener.h"
#include "net/stream.h"
#include "raft/link.h"
#include "raft/link_frame.h"

#include <stdatomic.h>

/* What the files of the link share. A `wire` is one connection: dialled or accepted. A `peer` is a row of the member
 * table with the wires to and from it.
 *
 * Nothing here calls the owner from within a call of his: what the end of a wire has to tell (requests that got no
 * answer, `down`) is kept and told by the flush at the end of the loop's turn. Wires and peers are freed there too, so
 * that whoever is on the stack may still look at them: a wire that has ended is WIRE_DEAD. */

enum link_kind {
	LINK_KIND_MEMBER = 1, /* messages of consensus and requests */
	LINK_KIND_JOIN = 2,   /* one request of a node that is no member yet */
	LINK_KIND_ASK = 3,    /* who is there? */
	LINK_KIND_COPY = 4,   /* a copy of the state */
};

enum { WIRE_BUCKETS = 32, TICK_MS = 50 };

struct own { /* struct link_self with strings of its own */
	bool set;
	char cluster_id[LINK_ID_LEN + 1], node_id[LINK_ID_LEN + 1], name[LINK_NAME_MAX + 1], trust_domain[256];
	char address[LINK_ADDRESS_MAX + 1], api_address[LINK_ADDRESS_MAX + 1], software[64];
	uint64_t epoch, starts, features;
	uint8_t boot[LINK_BOOT_LEN];
};

struct peer {
	struct link link; /* of links->peers or ->gone */
	struct links *links;
	uint64_t id;
	char name[LINK_NAME_MAX + 1], node_id[LINK_ID_LEN + 1], address[LINK_ADDRESS_MAX + 1];
	struct pin pins[2];
	size_t n_pins;
	bool removed, keep;
	uint64_t starts;
	uint8_t boot[LINK_BOOT_LEN];

	struct wire *out, *in; /* out: also while it is being dialled */
	uint64_t epoch;        /* of the last `up` */
	int64_t next_dial_ms, backoff_ms, last_heard_ms, down_since_ms;
	bool bereft; /* a stream of it has ended since the last `up`, and `dead` has not been told */
	struct pin told_pin;
	uint32_t told; /* refusals since the last `up`, a bit each */
	char why[256];
};

enum wire_state { WIRE_DIALING, WIRE_TLS, WIRE_WORDS, WIRE_UP, WIRE_DEAD };

struct parcel { /* a request or reply on its way out */
	struct link link;
	enum link_frame_type type;
	uint8_t tag; /* method or code */
	uint64_t id;
	int64_t deadline_ms;
	bool begun;
	size_t at;
	struct buf body;
	struct asking *asking; /* NULL: a reply */
};

struct asking {           /* a request that waits for its answer */
	struct link link; /* of a bucket of its wire, or of links->failed */
	uint64_t id;
	int64_t deadline_ms;
	struct link_call *call; /* NULL: nobody waits */
	struct parcel *parcel;  /* NULL: it has left whole */
	enum link_outcome outcome;
	enum code code;
	char why[400];
};

struct incoming { /* a request that has come */
	struct link_request pub;
	struct link link;
	struct message back;
	struct links *links;
	struct wire *wire; /* NULL: it has ended */
	uint64_t id;
	enum code code;
	struct buf body, answer;
	struct link_peer joining; /* its words are in the arena */
	struct arena *arena;
};

struct wire {
	struct link link;     /* of links->wires or ->graves */
	struct link flushing; /* of links->flushing */
	struct links *links;
	enum link_kind kind;
	enum wire_state state;
	bool dialled;
	struct peer *peer;
	struct joining *joining;      /* JOIN and ASK, dialled */
	struct link_copy_out *sender; /* COPY, dialled */
	struct copy_in *receiver;     /* COPY, accepted */
	struct dialing *dialing;
	struct stream *stream;
	int64_t deadline_ms, up_since_ms;
	struct pin pins[PEER_PINS_MAX];
	size_t n_pins;
	bool rotated;
	struct link_frame_reader reader;

	struct buf raft; /* frames, from raft_at on */
	size_t raft_at, raft_left /* of the frame that has been begun */, raft_run;
	bool wants_room;
	struct link parcels;
	size_t parcel_bytes;

	struct link calls[WIRE_BUCKETS];
	struct link requests;
	size_t n_requests, request_bytes;
	bool had_request; /* JOIN */
	struct link_peer joiner;
	struct arena *arena; /* of the joiner's words */

	struct { /* a request or reply that comes in parts */
		bool open;
		enum link_frame_type type;
		uint8_t tag;
		uint64_t id;
		uint32_t time_left_ms, len;
		struct buf body;
	} whole;
};

struct notice { /* a `down` or `silent` to be told */
	struct link link;
	uint64_t member;
	bool down;
	enum link_down how;
	char why[256];
};

struct links {
	_Atomic int refs;
	struct loop *loop;
	const struct link_events *events;
	void *ctx;
	int64_t handshake_ms, redial_max_ms;
	bool closed;
	struct peer_key *key;
	struct tls_context *client, *server;
	struct listener *listener;
	uv_timer_t tick;
	struct own self;
	struct link peers, gone, wires, graves, flushing, failed, notices, copies, receivers, streams;
	struct message flush;
	bool posted;
	int passes;
	uint64_t next_id, next_epoch;
	size_t n_strangers; /* accepted wires that are not up */
	struct buf scratch;
	char told_stranger[512];
};

/* link.c */
struct links *links_ref(struct links *links);
void links_unref(struct links *links);
struct peer *links_peer(const struct links *links, uint64_t id);
struct peer *links_peer_by_pins(const struct links *links, const struct pin *pins, size_t n, bool *rotated);
bool links_peer_has_pin(const struct peer *peer, const struct pin *pins, size_t n, bool *rotated);
void links_heard(struct peer *peer);
void links_dial(struct links *links);
void links_refused(struct links *links, struct peer *peer, bool by_us, enum link_refusal reason, const char *text);

/* link_wire.c */
struct wire *wire_new(struct links *links, enum link_kind kind, bool dialled);
void wire_dial(struct wire *wire, const char *address, int64_t timeout_ms);
void wire_accept(struct links *links, int fd);
void wire_end(struct wire *wire, enum link_down how, bool flush, const char *why); /* harmless if it is dead */
void wire_refuse(struct wire *wire, enum link_refusal reason, const char *text);   /* tells the owner too */
void wire_hang_up(struct wire *wire, enum link_refusal reason, const char *text);
void wire_want_flush(struct wire *wire);
void wire_flush(struct wire *wire);
void wire_add(struct wire *wire, struct parcel *parcel);
enum code wire_verify(void *wire, X509 *leaf, STACK_OF(X509) * chain, struct err *err);
void links_want_flush(struct links *links);

/* link_shake.c */
void shake_hello(struct wire *wire);                                /* TLS is done: a dialler's first words */
void shake_take(struct wire *wire, const struct link_frame *frame); /* HELLO, WELCOME, REFUSE */
void shake_ready(struct wire *wire, const struct link_peer *words); /* wire.c: it is up */
void shake_own(struct own *own, const struct link_self *self);
void shake_put_refusal(struct buf *out, enum link_refusal reason, const char *text);

/* link_call.c */
void wire_ask(struct wire *wire, uint8_t method, struct span body, int64_t deadline_ms, struct link_call *call);
void wire_call_fail_all(struct wire *wire, const char *why); /* of a wire that ends: they wait in links->failed */
void wire_call_tell_failed(struct links *links);
void wire_call_expire(struct wire *wire, int64_t now_ms);
void wire_call_take_part(struct wire *wire, const struct link_frame *frame); /* REQUEST, REPLY, PART */
struct link_peer wire_words(const struct link_peer *words, struct arena *arena);
void wire_call_joiner(struct wire *wire, const struct link_peer *words); /* JOIN: who will make the request */
void wire_parcel_free(struct wire *wire, struct parcel *parcel);
void wire_parcel_sent(struct wire *wire, struct parcel *parcel);

/* link_join.c */
void joining_welcome(struct wire *wire, const struct link_peer *words);
void joining_ended(struct wire *wire, const char *why);
bool joining_verify(struct wire *wire, struct err *err); /* is the key one of the token's? */
const struct own *joining_self(const struct wire *wire);

/* link_copy.c */
void wire_copy_up(struct wire *wire);
void wire_copy_take(struct wire *wire, const struct link_frame *frame);
void wire_copy_drained(struct wire *wire);
void wire_copy_ended(struct wire *wire, const char *why);
void wire_copy_settle(struct links *links); /* tells what has failed */
void wire_copy_tick(struct links *links, int64_t now_ms);
void wire_copy_close(struct links *links);

#endif
