/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "base/rand.h"
#include "base/task.h"
#include "lib/link_nodes.h"

#include <stdatomic.h>

/* --- requests --- */

TEST(requests_are_answered)
{
	struct node *a, *b;
	struct question q, many[300];
	uint8_t *large = xmalloc(LINK_BODY_MAX);

	two_up(&a, &b);
	ask(a, b, M_ECHO, "hello", 5, 20000, &q);
	UNTIL(q.answered);
	CHECK(q.outcome == LINK_ANSWERED);
	CHECK_NUM(q.code, CODE_OK);
	CHECK_NUM(q.body.len, 5);
	CHECK_BYTES(q.body.data, "hello", 5);
	buf_done(&q.body);
	ask(b, a, M_ECHO, "", 0, 20000, &q);
	UNTIL(q.answered);
	CHECK_NUM(q.code, CODE_OK);
	CHECK_NUM(q.body.len, 0);
	ask(a, b, M_FAIL, "", 0, 20000, &q);
	UNTIL(q.answered);
	CHECK(q.outcome == LINK_ANSWERED);
	CHECK_NUM(q.code, CODE_FAILED_PRECONDITION);
	CHECK_STR(q.text, "not today");
	buf_done(&q.body);
	rand_bytes(large, LINK_BODY_MAX);
	ask(a, b, M_ECHO, large, LINK_BODY_MAX, 20000, &q);
	UNTIL(q.answered);
	CHECK_NUM(q.code, CODE_OK);
	CHECK_NUM(q.body.len, LINK_BODY_MAX);
	CHECK_BYTES(q.body.data, large, LINK_BODY_MAX);
	buf_done(&q.body);
	for (int i = 0; i < 300; i++)
		ask(i % 2 ? a : b, i % 2 ? b : a, M_ECHO, large + i, (size_t)(i * 317), 20000, &many[i]);
	for (int i = 0; i < 300; i++) {
		UNTIL(many[i].answered);
		CHECK_NUM(many[i].code, CODE_OK);
		CHECK_NUM(many[i].body.len, i * 317);
		if (i > 0)
			CHECK_BYTES(many[i].body.data, large + i, (size_t)(i * 317));
		buf_done(&many[i].body);
	}
	free(large);
	stop_all();
}

TEST(a_request_ends_by_its_deadline)
{
	struct node *a, *b;
	struct question q, forgotten;
	int64_t begin;

	two_up(&a, &b);
	begin = clock_mono_ms();
	ask(a, b, M_NEVER, "", 0, 200, &q);
	ask(a, b, M_LATER, "", 0, 20000, &forgotten);
	link_call_forget(&forgotten.call);
	UNTIL(q.answered);
	CHECK(clock_mono_ms() - begin >= 200);
	CHECK(q.outcome == LINK_UNKNOWN);
	CHECK_NUM(q.code, CODE_DEADLINE_EXCEEDED);
	CHECK_STR(q.text, "outcome unknown: no answer in time");
	UNTIL(b->later != NULL && b->requests == 2);
	CHECK(b->later->deadline_ms > clock_mono_ms() + 10000);
	answer_later(b); /* late answers go nowhere */
	ask(a, b, M_ECHO, "x", 1, 20000, &q);
	UNTIL(q.answered);
	CHECK_NUM(q.code, CODE_OK);
	buf_done(&q.body);
	CHECK(!forgotten.answered);
	stop_all();
}

TEST(what_has_not_left_has_not_happened)
{
	struct node *a, *b;
	struct question q[40];
	uint8_t *large = calloc(1, 1 << 20);
	int unknown = 0, not_sent = 0;

	two_up(&a, &b);
	for (int i = 0; i < 40; i++)
		ask(a, b, M_LATER, large, 1 << 20, 20000, &q[i]);
	for (int i = 0; i < 50; i++)
		loop_turn(a->loop); /* b does not read */
	cut_connections(b->port);
	UNTIL(q[39].answered);
	for (int i = 0; i < 40; i++) {
		CHECK(q[i].answered);
		CHECK(q[i].outcome != LINK_ANSWERED);
		unknown += q[i].outcome == LINK_UNKNOWN;
		not_sent += q[i].outcome == LINK_NOT_SENT;
		CHECK(i == 0 || !(q[i].outcome == LINK_UNKNOWN && q[i - 1].outcome == LINK_NOT_SENT));
	}
	CHECK(not_sent > 20);
	CHECK(b->requests <= unknown);
	free(large);
	stop_all();
}

TEST(messages_overtake_large_requests)
{
	struct node *a, *b;
	struct question large[10], count;
	uint8_t *body = calloc(1, LINK_BODY_MAX);
	int before;

	two_up(&a, &b);
	for (int i = 0; i < 10; i++)
		ask(a, b, M_COUNT, body, LINK_BODY_MAX, 20000, &large[i]);
	for (int i = 0; i < 20; i++)
		loop_turn(a->loop); /* it has begun, and fills what the kernel takes */
	for (uint32_t i = 0; i < 50; i++)
		CHECK(send_number(a, b, i, 100, false));
	ask(a, b, M_COUNT, "", 0, 20000, &count);
	UNTIL(count.answered);
	memcpy(&before, large[9].body.data, sizeof before);
	CHECK_NUM(before, 50); /* all messages were there before the last request was whole */
	for (int i = 0; i < 10; i++) {
		CHECK(large[i].answered);
		buf_done(&large[i].body);
	}
	buf_done(&count.body);
	free(body);
	stop_all();
}

/* Tasks of another loop, on a thread of its own, while the nodes' loops run on theirs. */
struct asker {
	struct links *links;
	atomic_int done, good;
	struct loop *loop;
};

static void ask_in_task(void *arg)
{
	struct asker *asker = arg;

	for (int i = 0; i < 50; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct link_answer answer;
		struct err why = { 0 };
		uint8_t body[100];

		rand_bytes(body, sizeof body);
		if (link_ask(asker->links, 2, M_ECHO, (struct span){ body, sizeof body }, clock_mono_ms() + 20000,
			     arena, &answer, &why) == CODE_OK &&
		    answer.body.len == sizeof body && memcmp(answer.body.data, body, sizeof body) == 0)
			atomic_fetch_add(&asker->good, 1);
		if (i == 25 && link_ask(asker->links, 2, M_NEVER, (struct span){ 0 }, clock_mono_ms() + 30, arena,
					&answer, &why) == CODE_DEADLINE_EXCEEDED)
			atomic_fetch_add(&asker->good, 1);
		if (i == 30 &&
		    link_ask(asker->links, 3, M_ECHO, (struct span){ 0 }, clock_mono_ms() + 20000, arena, &answer,
			     &why) == CODE_UNAVAILABLE &&
		    answer.outcome == LINK_NOT_SENT && strcmp(why.text, "it is no member") == 0)
			atomic_fetch_add(&asker->good, 1);
	}
	atomic_fetch_add(&asker->done, 1);
}

struct closer {
	struct message message;
	struct node *node;
};

static void close_there(struct message *message)
{
	struct node *n = ((struct closer *)message)->node;

	answer_later(n);
	link_close(n->links);
}

TEST(tasks_of_other_loops_ask)
{
	struct asker asker = { 0 };
	struct closer closers[3] = { 0 };
	struct node *a, *b;

	two_up(&a, &b);
	asker.links = a->links;
	asker.loop = loop_new("api");
	for (int i = 0; i < 8; i++)
		CHECK(task_spawn(asker.loop, "ask", ask_in_task, &asker) != NULL);
	loop_start(a->loop);
	loop_start(b->loop);
	loop_start(asker.loop);
	UNTIL_TURNING((void)0, atomic_load(&asker.done) == 8);
	CHECK_NUM(atomic_load(&asker.good), 8 * 52);
	for (int i = 1; i <= 2; i++) {
		closers[i] = (struct closer){ { .deliver = close_there }, &nodes[i] };
		loop_post(nodes[i].loop, &closers[i].message);
		loop_stop(nodes[i].loop);
		loop_join(nodes[i].loop);
		loop_free(nodes[i].loop);
		nodes[i].loop = NULL;
	}
	loop_stop(asker.loop);
	loop_join(asker.loop);
	loop_free(asker.loop);
	stop_all();
}

/* --- joining --- */

struct joiner {
	struct node *node;
	struct link_stranger stranger;
	struct link_peer peer;
	struct link_answer answer;
	struct arena *arena;
	struct err err;
	enum code code;
	bool done;
};

static void join_in_task(void *arg)
{
	struct joiner *j = arg;

	j->code = link_join(j->node->links, &j->stranger, j->arena, &j->peer, &j->answer, &j->err);
	j->done = true;
}

static void join(struct joiner *j, struct node *n, const char *const *addresses, size_t n_addresses,
		 const struct pin *pins, size_t n_pins, uint8_t method)
{
	struct link_self self = self_of(n);

	*j = (struct joiner){ .node = n, .arena = arena_new() };
	j->stranger = (struct link_stranger){
		.addresses = addresses,
		.n_addresses = n_addresses,
		.pins = pins,
		.n_pins = n_pins,
		.self = &self,
		.method = method,
		.body = { (const uint8_t *)"secret", 6 },
		.deadline_ms = clock_mono_ms() + 10000,
	};
	CHECK(task_spawn(n->loop, "join", join_in_task, j) != NULL);
	UNTIL(j->done);
}

TEST(a_joiner_has_one_request_and_nothing_else)
{
	struct node *a = node(1), *c = node(3);
	struct joiner j;
	const char *addresses[3] = { "127.0.0.1:1", NULL, NULL };
	struct pin pins[2];

	memset(&pins[0], 7, sizeof pins[0]);
	pins[1] = *peer_key_pin(a->key);
	addresses[1] = a->address;
	join(&j, c, addresses, 2, pins, 2, M_ECHO);
	if (j.code != CODE_OK)
		fail_msg("%s", j.err.text);
	CHECK_NUM(j.answer.body.len, 6);
	CHECK_BYTES(j.answer.body.data, "secret", 6);
	CHECK_STR(j.peer.name, "n1");
	CHECK_STR(j.peer.cluster_id, CLUSTER);
	CHECK(a->joined_by_stranger);
	CHECK_STR(a->joiner, "n3");
	arena_free(j.arena);

	join(&j, c, &addresses[1], 1, pins, 2, M_FAIL);
	CHECK_NUM(j.code, CODE_FAILED_PRECONDITION);
	CHECK_STR(j.err.text, "not today");
	arena_free(j.arena);

	join(&j, c, addresses, 2, pins, 1, M_ECHO); /* a is not whom the token means */
	CHECK_NUM(j.code, CODE_UNAVAILABLE);
	CHECK(strstr(j.err.text, "127.0.0.1:1: connection refused; 127.0.0.1:") != NULL);
	CHECK(strstr(j.err.text, "that the join token does not know") != NULL);
	arena_free(j.arena);

	c->cluster_id = "00000000-2222-4222-8333-444455556666";
	join(&j, c, &addresses[1], 1, pins, 2, M_ECHO);
	CHECK_NUM(j.code, CODE_UNAVAILABLE);
	CHECK(strstr(j.err.text, "belongs to cluster") != NULL);
	CHECK(j.answer.outcome == LINK_NOT_SENT);
	arena_free(j.arena);
	CHECK_NUM(a->messages, 0);
	CHECK_NUM(a->ups + c->ups, 0);
	stop_all();
}

TEST(who_is_there_can_be_asked)
{
	struct node *a = node(1), *c = node(3);
	const char *addresses[2] = { "127.0.0.1:1", a->address };
	struct joiner j;

	c->cluster_id = "";
	join(&j, c, addresses, 2, NULL, 0, 0);
	CHECK_NUM(j.code, CODE_OK);
	CHECK_STR(j.peer.name, "n1");
	CHECK_STR(j.peer.cluster_id, CLUSTER);
	CHECK(pin_equal(&j.peer.pin, peer_key_pin(a->key)));
	arena_free(j.arena);
	join(&j, c, addresses, 1, NULL, 0, 0);
	CHECK_NUM(j.code, CODE_UNAVAILABLE);
	CHECK_STR(j.err.text, "127.0.0.1:1: connection refused");
	arena_free(j.arena);
	CHECK_NUM(a->requests, 0);
	stop_all();
}
