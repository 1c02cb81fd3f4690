/* SPDX-License-Identifier: Apache-2.0 */
/* The first words on a connection: who is there, of which cluster, since when. Each side judges the other's by the same
 * rules before anything else is said, and says why if it will not go on: the text names both, so that it reads right in
 * either log. The start counter comes last: it is noted only of a peer that is right in all else (V19). */
#include "raft/link_inside.h"

#include "base/arena.h"
#include "base/clock.h"
#include "link.pb-c.h"
#include "store/codec.h"

#include <stdio.h>
#include <string.h>

void shake_own(struct own *own, const struct link_self *self)
{
#define COPY_TEXT(field) snprintf(own->field, sizeof own->field, "%s", self->field != NULL ? self->field : "")
	COPY_TEXT(cluster_id);
	COPY_TEXT(trust_domain);
	COPY_TEXT(node_id);
	COPY_TEXT(name);
	COPY_TEXT(address);
	COPY_TEXT(api_address);
	COPY_TEXT(software);
#undef COPY_TEXT
	own->epoch = self->epoch;
	own->starts = self->starts;
	own->features = self->features;
	memcpy(own->boot, self->boot, LINK_BOOT_LEN);
	own->set = true;
}

const char *link_refusal_name(enum link_refusal reason)
{
	static const char *const names[] = {
		[LINK_REFUSED_OTHER] = "other",
		[LINK_REFUSED_VERSION] = "version",
		[LINK_REFUSED_TRUST_DOMAIN] = "trust-domain",
		[LINK_REFUSED_CLUSTER] = "cluster",
		[LINK_REFUSED_EPOCH] = "epoch",
		[LINK_REFUSED_UNKNOWN_KEY] = "unknown-key",
		[LINK_REFUSED_REMOVED] = "removed",
		[LINK_REFUSED_ROLLED_BACK] = "rolled-back",
		[LINK_REFUSED_NAME] = "name",
		[LINK_REFUSED_NODE_ID] = "node-id",
		[LINK_REFUSED_SELF] = "self",
		[LINK_REFUSED_PROTOCOL] = "protocol",
		[LINK_REFUSED_NOT_A_MEMBER] = "not-a-member",
	};

	return (size_t)reason < sizeof names / sizeof names[0] ? names[reason] : "other";
}

/* --- saying --- */

static void put_words(struct buf *out, enum link_frame_type type, const struct own *own, enum link_kind kind)
{
	Pb__NodeHello hello = PB__NODE_HELLO__INIT;
	OWN_BUF bytes = { 0 };

	hello.version_min = hello.version_max = LINK_VERSION;
	hello.kind = kind;
	hello.cluster_id = own->cluster_id;
	hello.epoch = own->epoch;
	hello.trust_domain = own->trust_domain;
	hello.node_id = own->node_id;
	hello.name = own->name;
	hello.starts = own->starts;
	hello.boot = (ProtobufCBinaryData){ LINK_BOOT_LEN, (uint8_t *)own->boot };
	hello.address = own->address;
	hello.api_address = own->api_address;
	hello.software = own->software;
	hello.features = own->features;
	message_pack(&hello, &bytes);
	link_frame_put(out, type, bytes.data, bytes.len);
}

void shake_put_refusal(struct buf *out, enum link_refusal reason, const char *text)
{
	Pb__NodeRefusal refusal = PB__NODE_REFUSAL__INIT;
	OWN_BUF bytes = { 0 };

	refusal.reason = reason;
	refusal.text = text;
	message_pack(&refusal, &bytes);
	link_frame_put(out, LINK_FRAME_REFUSE, bytes.data, bytes.len);
}

static const struct own *own_of(const struct wire *wire)
{
	return wire->joining != NULL ? joining_self(wire) : &wire->links->self;
}

static void say(struct wire *wire, enum link_frame_type type)
{
	OWN_BUF out = { 0 };

	put_words(&out, type, own_of(wire), wire->kind);
	stream_write(wire->stream, out.data, out.len);
	stream_flush(wire->stream);
}

void shake_hello(struct wire *wire)
{
	say(wire, LINK_FRAME_HELLO);
}

/* --- judging --- */

static bool plain(const char *text, size_t min, size_t max)
{
	size_t len = strlen(text);

	if (len < min || len > max)
		return false;
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
			return false;
	return true;
}

static bool is_name(const char *text)
{
	return plain(text, 1, LINK_NAME_MAX) && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

static bool is_id(const char *text)
{
	return strlen(text) == LINK_ID_LEN && strspn(text, "0123456789abcdef-") == LINK_ID_LEN;
}

static bool well_formed(const struct wire *wire, const Pb__NodeHello *words)
{
	bool stranger = wire->kind == LINK_KIND_JOIN || wire->kind == LINK_KIND_ASK;

	return is_name(words->name) && is_id(words->node_id) && plain(words->trust_domain, 1, 255) &&
	       (is_id(words->cluster_id) || (stranger && words->cluster_id[0] == '\0')) &&
	       plain(words->address, 0, LINK_ADDRESS_MAX) && plain(words->api_address, 0, LINK_ADDRESS_MAX) &&
	       plain(words->software, 0, 63) && words->boot.len == LINK_BOOT_LEN;
}

struct verdict {
	bool refused;
	enum link_refusal reason;
	struct err why;
};

#define REFUSE(verdict, number, ...)                                                                                   \
	((verdict)->refused = true, (verdict)->reason = (number),                                                      \
	 err_set_text(&(verdict)->why, CODE_PERMISSION_DENIED, __VA_ARGS__))

/* Of the same cluster? */
static void judge_cluster(const struct own *own, const Pb__NodeHello *words, bool stranger, struct verdict *v)
{
	bool know_both = own->cluster_id[0] != '\0' && words->cluster_id[0] != '\0';
	const char *old = words->epoch < own->epoch ? words->name : own->name;

	if (strcmp(words->trust_domain, own->trust_domain) != 0)
		REFUSE(v, LINK_REFUSED_TRUST_DOMAIN, "'%s' is configured for trust domain \"%s\", '%s' for \"%s\"",
		       words->name, words->trust_domain, own->name, own->trust_domain);
	else if (know_both && strcmp(words->cluster_id, own->cluster_id) != 0)
		REFUSE(v, LINK_REFUSED_CLUSTER,
		       "'%s' belongs to cluster %s, '%s' to %s: one of them has the data directory or the addresses of "
		       "another "
		       "cluster",
		       words->name, words->cluster_id, own->name, own->cluster_id);
	else if (!stranger && words->epoch != own->epoch)
		REFUSE(v, LINK_REFUSED_EPOCH,
		       "'%s' is of epoch %llu, '%s' of epoch %llu: the cluster was restored or recovered without '%s'; "
		       "empty its "
		       "data directory and let it join again",
		       words->name, (unsigned long long)words->epoch, own->name, (unsigned long long)own->epoch, old);
}

/* The member that its key says, and no other? */
static void judge_member(struct wire *wire, const struct own *own, const Pb__NodeHello *words, struct verdict *v)
{
	struct links *links = wire->links;
	struct peer *peer = wire->peer;
	char hex[PIN_HEX];

	if (strcmp(words->node_id, own->node_id) == 0) {
		REFUSE(v, LINK_REFUSED_SELF,
		       "'%s' has dialled itself: it advertises the address of another member, or its data directory "
		       "was copied",
		       own->name);
		return;
	}
	if (peer == NULL) {
		REFUSE(v, LINK_REFUSED_UNKNOWN_KEY,
		       "'%s' shows a key (sha256 %.16s...) that is none of a member's as '%s' knows them: it never "
		       "joined, or it "
		       "was removed; let it join with a token and an empty data directory",
		       words->name, pin_hex(&wire->pins[0], hex), own->name);
		return;
	}
	if (peer->removed) {
		REFUSE(v, LINK_REFUSED_REMOVED,
		       "'%s' was removed from the cluster: to come back it must join again with an empty data "
		       "directory",
		       peer->name);
		return;
	}
	if (peer->node_id[0] != '\0' && strcmp(words->node_id, peer->node_id) != 0) {
		REFUSE(v, LINK_REFUSED_NODE_ID,
		       "'%s' has the key of member '%s', but is node %s and not %s: a peer key was copied to another "
		       "node",
		       words->name, peer->name, words->node_id, peer->node_id);
		return;
	}
	LIST_FOR (item, &links->peers) {
		const struct peer *other = LIST_ITEM(item, struct peer, link);

		if (other != peer && !other->removed && strcmp(other->name, words->name) == 0)
			REFUSE(v, LINK_REFUSED_NAME,
			       "two nodes are named '%s' (node %s and node %s): give one of them another name in "
			       "cluster { name }",
			       words->name, words->node_id, other->node_id);
	}
	if (!v->refused && strcmp(words->name, own->name) == 0)
		REFUSE(v, LINK_REFUSED_NAME,
		       "two nodes are named '%s' (node %s and node %s): give one of them another name in cluster { "
		       "name }",
		       words->name, words->node_id, own->node_id);
}

static void judge_start(struct peer *peer, const Pb__NodeHello *words, struct verdict *v)
{
	struct links *links = peer->links;
	bool same_start = memcmp(words->boot.data, peer->boot, LINK_BOOT_LEN) == 0;

	if (words->starts > peer->starts) {
		peer->starts = words->starts;
		memcpy(peer->boot, words->boot.data, LINK_BOOT_LEN);
		links->events->started(links->ctx, peer->id, peer->starts, peer->boot);
	} else if (words->starts < peer->starts || !same_start) {
		REFUSE(v, LINK_REFUSED_ROLLED_BACK,
		       "'%s' comes with start number %llu, and number %llu has been seen: its data directory was "
		       "rolled back to "
		       "an older copy, or runs twice; remove it from the cluster and let it join again with an empty "
		       "data "
		       "directory",
		       peer->name, (unsigned long long)words->starts, (unsigned long long)peer->starts);
	}
}

static void judge(struct wire *wire, const Pb__NodeHello *words, struct verdict *v)
{
	bool stranger = wire->kind == LINK_KIND_JOIN || wire->kind == LINK_KIND_ASK;
	const struct own *own = own_of(wire);

	if (words->version_min > LINK_VERSION || words->version_max < LINK_VERSION) {
		REFUSE(v, LINK_REFUSED_VERSION,
		       "'%.63s' speaks versions %u to %u of the peer protocol, '%s' version %d: run the same release "
		       "on both",
		       plain(words->name, 1, LINK_NAME_MAX) ? words->name : "?", words->version_min, words->version_max,
		       own->name, LINK_VERSION);
		return;
	}
	if (!well_formed(wire, words)) {
		REFUSE(v, LINK_REFUSED_PROTOCOL, "the first words of the other node make no sense");
		return;
	}
	if (!own->set) {
		REFUSE(v, LINK_REFUSED_NOT_A_MEMBER, "this node is in no cluster yet: ask another member");
		return;
	}
	judge_cluster(own, words, stranger, v);
	if (!v->refused && !stranger)
		judge_member(wire, own, words, v);
	if (!v->refused && !stranger)
		judge_start(wire->peer, words, v);
}

/* --- taking --- */

static struct link_peer peer_words(const struct wire *wire, const Pb__NodeHello *words)
{
	bool stranger = wire->kind == LINK_KIND_JOIN || wire->kind == LINK_KIND_ASK;

	return (struct link_peer){
		.member = stranger || wire->peer == NULL ? 0 : wire->peer->id,
		.pin = wire->pins[0],
		.rotated = wire->rotated,
		.epoch = words->epoch,
		.features = words->features,
		.cluster_id = words->cluster_id,
		.trust_domain = words->trust_domain,
		.node_id = words->node_id,
		.name = words->name,
		.address = words->address,
		.api_address = words->api_address,
		.software = words->software,
	};
}

static void tell_rotated(struct wire *wire)
{
	struct links *links = wire->links;
	struct peer *peer = wire->peer;

	if (!wire->rotated || links->events->rotated == NULL || pin_equal(&peer->told_pin, &wire->pins[0]))
		return;
	peer->told_pin = wire->pins[0];
	for (size_t i = 1; i < wire->n_pins; i++)
		for (size_t k = 0; k < peer->n_pins; k++)
			if (pin_equal(&wire->pins[i], &peer->pins[k])) {
				links->events->rotated(links->ctx, peer->id, &wire->pins[i], &wire->pins[0]);
				return;
			}
}

static void take_hello(struct wire *wire, const Pb__NodeHello *words)
{
	struct verdict v = { 0 };
	struct link_peer peer;

	if (words->kind < LINK_KIND_MEMBER || words->kind > LINK_KIND_COPY) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "an unknown kind of connection is asked for");
		return;
	}
	wire->kind = (enum link_kind)words->kind;
	if (wire->kind == LINK_KIND_MEMBER || wire->kind == LINK_KIND_COPY)
		wire->peer = links_peer_by_pins(wire->links, wire->pins, wire->n_pins, &wire->rotated);
	judge(wire, words, &v);
	if (v.refused)
		wire_refuse(wire, v.reason, v.why.text);
	if (wire->state == WIRE_DEAD)
		return;
	say(wire, LINK_FRAME_WELCOME);
	peer = peer_words(wire, words);
	shake_ready(wire, &peer);
}

static void take_welcome(struct wire *wire, const Pb__NodeHello *words)
{
	struct verdict v = { 0 };
	struct link_peer peer;

	judge(wire, words, &v);
	if (v.refused)
		wire_refuse(wire, v.reason, v.why.text);
	if (wire->state == WIRE_DEAD)
		return;
	peer = peer_words(wire, words);
	shake_ready(wire, &peer);
}

static void take_refusal(struct wire *wire, const struct link_frame *frame, struct arena *arena)
{
	const Pb__NodeRefusal *refusal = message_unpack(&pb__node_refusal__descriptor, frame->body, arena);
	const char *text = refusal != NULL && plain(refusal->text, 1, 1024) ? refusal->text : "it does not say why";

	if (wire->joining == NULL)
		links_refused(wire->links, wire->peer, false,
			      refusal != NULL ? (enum link_refusal)refusal->reason : LINK_REFUSED_OTHER, text);
	wire_end(wire, LINK_DOWN_CLOSED, false, text);
}

void shake_take(struct wire *wire, const struct link_frame *frame)
{
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__NodeHello *words;

	if (frame->type == LINK_FRAME_REFUSE) {
		take_refusal(wire, frame, arena);
		return;
	}
	words = message_unpack(&pb__node_hello__descriptor, frame->body, arena);
	if (words == NULL)
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "the first words of the other node cannot be read");
	else if (frame->type == LINK_FRAME_HELLO)
		take_hello(wire, words);
	else
		take_welcome(wire, words);
}

/* --- up --- */

static void member_up(struct wire *wire, const struct link_peer *words)
{
	struct links *links = wire->links;
	struct peer *peer = wire->peer;

	if (!wire->dialled) {
		struct wire *old = peer->in;

		peer->in = wire; /* the former one is stale: nothing of it is delivered any more, and nothing told */
		if (old != NULL)
			wire_end(old, LINK_DOWN_CLOSED, false, "the other side has dialled again");
		tell_rotated(wire);
		return;
	}
	peer->epoch = ++links->next_epoch;
	peer->backoff_ms = 0;
	peer->bereft = false;
	peer->down_since_ms = 0;
	peer->why[0] = '\0';
	peer->told = 0;
	tell_rotated(wire);
	if (wire->state == WIRE_UP)
		links->events->up(links->ctx, peer->id, peer->epoch, words);
}

void shake_ready(struct wire *wire, const struct link_peer *words)
{
	if (!wire->dialled)
		wire->links->n_strangers--;
	wire->state = WIRE_UP;
	wire->up_since_ms = clock_mono_ms();
	if (wire->peer != NULL)
		links_heard(wire->peer);
	switch (wire->kind) {
	case LINK_KIND_MEMBER:
		member_up(wire, words);
		return;
	case LINK_KIND_COPY:
		wire_copy_up(wire);
		return;
	case LINK_KIND_JOIN:
	case LINK_KIND_ASK:
		if (wire->dialled)
			joining_welcome(wire, words);
		else if (wire->kind == LINK_KIND_ASK)
			wire_end(wire, LINK_DOWN_CLOSED, true, "answered");
		else
			wire_call_joiner(wire, words);
	}
}
