/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/link_nodes.h"

#include "raft/codec.h"
#include "raft/link_frame.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct err err;

struct node nodes[NODES + 1];

/* --- the owner's side --- */

static void on_up(void *ctx, uint64_t member, uint64_t epoch, const struct link_peer *peer)
{
	struct node *n = ctx;

	CHECK_NUM(peer->member, member);
	CHECK(epoch > n->up_epoch || n->ups == 0);
	n->up_epoch = epoch;
	n->ups++;
}

static void on_down(void *ctx, uint64_t member, enum link_down how, const char *why)
{
	struct node *n = ctx;

	(void)member;
	n->downs++;
	n->how = how;
	snprintf(n->why, sizeof n->why, "%s", why);
}

static void on_dead(void *ctx, uint64_t member)
{
	(void)member;
	((struct node *)ctx)->deads++;
}

static void on_silent(void *ctx, uint64_t member)
{
	(void)member;
	((struct node *)ctx)->silents++;
}

static void on_refused(void *ctx, uint64_t member, bool by_us, enum link_refusal reason, const char *text)
{
	struct node *n = ctx;

	(void)member;
	n->refusals++;
	n->reason = reason;
	n->by_us = by_us;
	snprintf(n->why, sizeof n->why, "%s", text);
}

static void on_writable(void *ctx, uint64_t member)
{
	(void)member;
	((struct node *)ctx)->writables++;
}

/* A message is its number, then bytes that follow from it. */
static enum code on_raft(void *ctx, uint64_t from, const uint8_t *data, size_t len, struct err *why)
{
	struct node *n = ctx;
	uint32_t number = link_frame_get_u32(data + 1);

	(void)from;
	if (n->refuse_messages)
		return err_set(why, CODE_INVALID_ARGUMENT, "nonsense");
	n->bad_order += number != n->next;
	n->next = number + 1;
	n->messages++;
	n->message_bytes += len;
	for (size_t i = 5; i < len; i += 997)
		n->bad_order += data[i] != (uint8_t)(number + i);
	return CODE_OK;
}

static void on_request(void *ctx, struct link_request *request)
{
	struct node *n = ctx;
	struct err no = { 0 };

	n->requests++;
	if (request->joining != NULL) {
		n->joined_by_stranger = true;
		snprintf(n->joiner, sizeof n->joiner, "%s", request->joining->name);
	}
	switch (request->method) {
	case M_ECHO:
		link_answer(request, CODE_OK, request->body, NULL);
		return;
	case M_FAIL:
		err_set(&no, CODE_FAILED_PRECONDITION, "not today");
		link_answer(request, CODE_FAILED_PRECONDITION, (struct span){ 0 }, &no);
		return;
	case M_COUNT:
		link_answer(request, CODE_OK, (struct span){ (uint8_t *)&n->messages, sizeof n->messages }, NULL);
		return;
	default: /* answered by the test, or at the end */
		request->owner = n->later;
		n->later = request;
	}
}

static void on_started(void *ctx, uint64_t member, uint64_t starts, const uint8_t boot[LINK_BOOT_LEN])
{
	struct node *n = ctx;

	(void)member;
	n->seen_starts = starts;
	memcpy(n->seen_boot, boot, LINK_BOOT_LEN);
}

static void on_rotated(void *ctx, uint64_t member, const struct pin *old, const struct pin *now)
{
	(void)member;
	CHECK(!pin_equal(old, now));
	((struct node *)ctx)->rotations++;
}

static enum code on_copy_begin(void *ctx, struct link_copy_in *copy, int *fd, struct err *why)
{
	struct node *n = ctx;

	if (n->refuse_copies)
		return err_set(why, CODE_RESOURCE_EXHAUSTED, "no room");
	n->copies_begun++;
	n->copy_length = copy->length;
	snprintf(n->copy_about, sizeof n->copy_about, "%.*s", (int)copy->about.len, (const char *)copy->about.data);
	*fd = open(n->copy_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(*fd >= 0);
	return CODE_OK;
}

static enum code on_copy_end(void *ctx, struct link_copy_in *copy, enum code code, const uint8_t sha256[32],
			     struct err *why)
{
	struct node *n = ctx;

	(void)copy;
	n->copies_ended++;
	n->copy_code = code;
	if (code == CODE_OK)
		memcpy(n->copy_digest, sha256, 32);
	else
		snprintf(n->copy_why, sizeof n->copy_why, "%.390s", why->text);
	return n->accept_code == CODE_OK ? CODE_OK : err_set(why, n->accept_code, "not this one");
}

static const struct link_events events = {
	.up = on_up,
	.down = on_down,
	.dead = on_dead,
	.silent = on_silent,
	.refused = on_refused,
	.writable = on_writable,
	.raft = on_raft,
	.request = on_request,
	.started = on_started,
	.rotated = on_rotated,
	.copy_begin = on_copy_begin,
	.copy_end = on_copy_end,
};

/* --- nodes --- */

struct link_self self_of(const struct node *n)
{
	struct link_self self = {
		.cluster_id = n->cluster_id,
		.trust_domain = n->trust_domain,
		.node_id = n->id,
		.name = n->as_name,
		.epoch = n->epoch,
		.starts = n->starts,
		.address = n->address,
		.api_address = "127.0.0.1:1",
		.software = "test",
		.features = 7,
	};

	memcpy(self.boot, n->boot, LINK_BOOT_LEN);
	return self;
}

void introduce(struct node *n)
{
	struct link_self self = self_of(n);

	link_set_self(n->links, &self);
}

void start(struct node *n)
{
	struct link_options options = { .events = &events, .ctx = n, .handshake_ms = 4000, .redial_max_ms = 200 };

	n->loop = options.loop = loop_new("node");
	options.key = n->key;
	CHECK_CODE(link_open(&options, &n->links, &err), CODE_OK);
	CHECK_CODE(link_listen(n->links, "127.0.0.1", n->port, &err), CODE_OK);
	n->port = link_port(n->links);
	snprintf(n->address, sizeof n->address, "127.0.0.1:%d", n->port);
	n->up_epoch = 0;
	introduce(n);
}

struct node *node(int i)
{
	struct node *n = &nodes[i];

	memset(n, 0, sizeof *n);
	snprintf(n->name, sizeof n->name, "n%d", i);
	snprintf(n->id, sizeof n->id, "00000000-0000-4000-8000-00000000000%d", i);
	snprintf(n->key_path, sizeof n->key_path, "%s/n%d.key", test_dir(), i);
	snprintf(n->copy_path, sizeof n->copy_path, "%s/n%d.copy", test_dir(), i);
	n->as_name = n->name;
	n->cluster_id = CLUSTER;
	n->trust_domain = "example.org";
	n->epoch = 1;
	n->starts = 5;
	n->boot[0] = (uint8_t)i;
	CHECK_CODE(peer_key_open(n->key_path, &n->key, NULL, &err), CODE_OK);
	start(n);
	return n;
}

struct link_member row_of(const struct node *n)
{
	struct link_member row = {
		.id = (uint64_t)(n - nodes), .name = n->name, .node_id = n->id, .address = n->address
	};

	row.pins[0] = *peer_key_pin(n->key);
	row.n_pins = 1;
	return row;
}

/* All of them know one another. */
void acquaint(int count)
{
	struct link_member rows[NODES];

	for (int i = 1; i <= count; i++)
		rows[i - 1] = row_of(&nodes[i]);
	for (int i = 1; i <= count; i++)
		link_set_members(nodes[i].links, rows, (size_t)count);
}

void turn_all(void)
{
	for (int i = 1; i <= NODES; i++)
		if (nodes[i].loop != NULL)
			loop_turn(nodes[i].loop);
}

void turn_for(int64_t ms)
{
	for (int64_t end = clock_mono_ms() + ms; clock_mono_ms() < end; usleep(200))
		turn_all();
}

void answer_later(struct node *n)
{
	while (n->later != NULL) {
		struct link_request *request = n->later;

		n->later = request->owner;
		link_answer(request, CODE_OK, (struct span){ 0 }, NULL);
	}
}

void stop(struct node *n)
{
	if (n->loop == NULL)
		return;
	answer_later(n);
	link_close(n->links);
	loop_free(n->loop);
	n->links = NULL;
	n->loop = NULL;
}

void stop_all(void)
{
	for (int i = 1; i <= NODES; i++) {
		stop(&nodes[i]);
		peer_key_unref(nodes[i].key);
		nodes[i].key = NULL;
	}
}

bool is_up(const struct node *a, const struct node *b)
{
	struct link_status status;

	return link_status(a->links, (uint64_t)(b - nodes), &status) && status.up && status.heard;
}

void two_up(struct node **a, struct node **b)
{
	*a = node(1);
	*b = node(2);
	acquaint(2);
	UNTIL(is_up(*a, *b) && is_up(*b, *a));
}

/* Cuts every connection to that port, as a network would. */
void cut_connections(int port)
{
	for (int fd = 3; fd < 512; fd++) {
		struct sockaddr_in here, there;
		socklen_t n_here = sizeof here, n_there = sizeof there;

		if (getsockname(fd, (struct sockaddr *)&here, &n_here) == 0 && here.sin_family == AF_INET &&
		    getpeername(fd, (struct sockaddr *)&there, &n_there) == 0 &&
		    (ntohs(here.sin_port) == port || ntohs(there.sin_port) == port))
			shutdown(fd, SHUT_RDWR);
	}
}

bool send_number(struct node *from, struct node *to, uint32_t number, size_t len, bool bulky)
{
	static uint8_t message[1 << 20];

	message[0] = PEER_APPEND;
	for (int i = 0; i < 4; i++)
		message[1 + i] = (uint8_t)(number >> (24 - 8 * i));
	for (size_t i = 5; i < len; i += 997)
		message[i] = (uint8_t)(number + i);
	return link_send(from->links, (uint64_t)(to - nodes), message, len, bulky);
}

/* --- requests of the test --- */

static void on_answer(struct link_call *call, const struct link_answer *answer)
{
	struct question *q = (struct question *)call;

	CHECK(!q->answered);
	q->answered = true;
	q->outcome = answer->outcome;
	q->code = answer->code;
	buf_append(&q->body, answer->body.data, answer->body.len);
	snprintf(q->text, sizeof q->text, "%s", answer->text != NULL ? answer->text : "");
}

void ask(struct node *from, struct node *to, uint8_t method, const void *body, size_t len, int64_t ms,
	 struct question *q)
{
	*q = (struct question){ .call = { .done = on_answer } };
	link_call(from->links, (uint64_t)(to - nodes), method, (struct span){ body, len }, clock_mono_ms() + ms,
		  &q->call);
}
