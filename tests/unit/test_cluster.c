/* SPDX-License-Identifier: Apache-2.0 */
/* Three replicas in one process, over real links: founding, joining, the growth from one voter, forwarded changes, confirmed
 * reads, the leader's end and return. Removal ends a process, so it is tested from outside (tests/e2e). */
#include "lib/test.h"

#include "base/clock.h"
#include "base/rand.h"
#include "base/task.h"
#include "raft/node.h"
#include "raft/replica_inside.h"
#include "store/view.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NODES = 3, WAIT_MS = 60 * 1000 };

struct server {
	struct replica *replica;
	struct config_cluster config;
	struct node *home; /* the lock on its data directory */
	char dir[128], name[16], address[32], api[32];
	char *token;
	bool founds;
	enum code code;
	struct err err;
	pthread_t thread;
};

struct trio {
	struct server nodes[NODES];
	struct loop *loop;
};

static int free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0 && getsockname(fd, (struct sockaddr *)&at, &len) == 0);
	close(fd);
	return ntohs(at.sin_port);
}

static void *start_node(void *arg)
{
	struct server *node = arg;
	const struct replica_options options = {
		.trust_domain = "example.org",
		.data_dir = node->dir,
		.node_id = node_id(node->home),
		.cluster = &node->config,
		.bootstrap = node->founds,
		.join_token = node->token,
	};

	node->code = replica_start(&options, &node->replica, &node->err);
	return NULL;
}

static void start(struct server *node)
{
	CHECK_NUM(pthread_create(&node->thread, NULL, start_node, node), 0);
}

static void started(struct server *node)
{
	CHECK_NUM(pthread_join(node->thread, NULL), 0);
	if (node->code != CODE_OK)
		fail_msg("%s: %s", node->name, node->err.text);
}

static void make_node(struct server *node, int number)
{
	struct err err = { 0 };
	int port = free_port();

	*node = (struct server){ .founds = number == 1 };
	snprintf(node->dir, sizeof node->dir, "%s/cluster-XXXXXX", test_dir());
	CHECK(mkdtemp(node->dir) != NULL);
	snprintf(node->name, sizeof node->name, "n%d", number);
	snprintf(node->address, sizeof node->address, "127.0.0.1:%d", port);
	snprintf(node->api, sizeof node->api, "127.0.0.1:%d", 8081);
	CHECK_CODE(node_open(node->dir, &node->home, &err), CODE_OK);
	node->config = (struct config_cluster){
		.enabled = true,
		.name = node->name,
		.bind_address = "127.0.0.1",
		.bind_port = port,
		.advertise = node->address,
		.api_advertise = node->api,
		.authority_spread_s = 1,
		.drain_s = 1,
		.max_staleness_s = 60,
		.election_timeout_ms = 1000,
	};
}

/* What a task does while the test waits, on a loop of its own. */
struct errand {
	struct replica *replica;
	void (*fn)(struct errand *errand);
	struct loop *loop;
	const char *name;
	int n;
	char text[4096];
	enum code code;
	struct err err;
};

static void errand_task(void *arg)
{
	struct errand *errand = arg;

	errand->fn(errand);
	loop_stop(errand->loop);
}

static void run(struct errand *errand)
{
	errand->loop = loop_new("errand");
	CHECK(task_spawn(errand->loop, "errand", errand_task, errand) != NULL);
	loop_run(errand->loop);
	loop_free(errand->loop);
	if (errand->code != CODE_OK)
		fail_msg("code %d: %s", errand->code, errand->err.text);
}

static void make_token(struct errand *errand)
{
	OWN_STRUCT(arena) arena = arena_new();
	const char *text = "";

	errand->code = replica_token(errand->replica, 600, 1, false, clock_mono_ms() + WAIT_MS, arena, &text, &errand->err);
	snprintf(errand->text, sizeof errand->text, "%s", text);
}

static void make_entry(struct errand *errand)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Command command = PB__COMMAND__INIT;
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *list[] = { &selector };
	Pb__Outcome *out;

	id.trust_domain = parent.trust_domain = "example.org";
	id.path = arena_printf(arena, "/w/%d", errand->n);
	parent.path = "/spire/agent/x509pop/a";
	selector.type = "unix";
	selector.value = "uid:1000";
	entry.id = arena_printf(arena, "id-%d", errand->n);
	entry.spiffe_id = &id;
	entry.parent_id = &parent;
	entry.selectors = list;
	entry.n_selectors = 1;
	create.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &create;
	errand->code = propose(errand->replica, &command, clock_mono_ms() + WAIT_MS, arena, &out, &errand->err);
	if (errand->code == CODE_OK)
		CHECK_NUM(out->code, CODE_OK);
}

static void barrier(struct errand *errand)
{
	errand->code = replica_barrier(errand->replica, clock_mono_ms() + WAIT_MS, &errand->err);
}

static void transfer(struct errand *errand)
{
	errand->code = replica_transfer(errand->replica, errand->name, clock_mono_ms() + WAIT_MS, &errand->err);
}

static uint64_t count(struct server *node)
{
	struct err err = { 0 };
	struct reader *reader;
	struct view *view;
	uint64_t n;

	CHECK_CODE(reader_open(replica_state_path(node->replica), &reader, &err), CODE_OK);
	CHECK_CODE(view_open(reader, &view, &err), CODE_OK);
	CHECK_CODE(view_entry_count(view, NULL, &n, &err), CODE_OK);
	view_close(view);
	reader_close(reader);
	return n;
}

static void await_voters(struct server *node, unsigned voters)
{
	int64_t end_ms = clock_mono_ms() + WAIT_MS;

	for (;;) {
		OWN_STRUCT(arena) arena = arena_new();
		struct replica_cluster cluster;
		struct err err = { 0 };

		CHECK_CODE(replica_cluster(node->replica, arena, &cluster, &err), CODE_OK);
		if (cluster.voters == voters && cluster.quorum)
			return;
		if (clock_mono_ms() > end_ms)
			fail_msg("%s knows of %u voters, not %u", node->name, cluster.voters, voters);
		usleep(10000);
	}
}

/* Which of them leads, as it says itself. */
static int await_leader(struct trio *trio)
{
	int64_t end_ms = clock_mono_ms() + WAIT_MS;

	for (;;) {
		for (int i = 0; i < NODES; i++) {
			struct replica_view view = { 0 };

			if (trio->nodes[i].replica != NULL)
				replica_view(trio->nodes[i].replica, &view);
			if (view.is_leader && view.ready)
				return i;
		}
		if (clock_mono_ms() > end_ms)
			fail_msg("no leader");
		usleep(10000);
	}
}

static void join(struct server *node, struct server *through)
{
	struct errand errand = { .replica = through->replica, .fn = make_token };

	run(&errand);
	node->token = errand.text;
	start(node);
	started(node);
	node->token = NULL;
}

static void make_trio(struct trio *trio)
{
	for (int i = 0; i < NODES; i++)
		make_node(&trio->nodes[i], i + 1);
	start(&trio->nodes[0]);
	started(&trio->nodes[0]);
	run(&(struct errand){ .replica = trio->nodes[0].replica, .fn = make_entry, .n = 0 });
	join(&trio->nodes[1], &trio->nodes[0]);
	await_voters(&trio->nodes[0], 2);
	join(&trio->nodes[2], &trio->nodes[1]);
	for (int i = 0; i < NODES; i++)
		await_voters(&trio->nodes[i], 3);
}

static void stop(struct server *node)
{
	replica_stop(node->replica);
	node->replica = NULL;
}

static void end_trio(struct trio *trio)
{
	for (int i = 0; i < NODES; i++) {
		stop(&trio->nodes[i]);
		node_close(trio->nodes[i].home);
	}
}

TEST(three_nodes_hold_what_any_of_them_was_told)
{
	struct trio trio;

	make_trio(&trio);
	for (int i = 0; i < 30; i++)
		run(&(struct errand){ .replica = trio.nodes[i % NODES].replica, .fn = make_entry, .n = 1 + i });
	for (int i = 0; i < NODES; i++) {
		run(&(struct errand){ .replica = trio.nodes[i].replica, .fn = barrier });
		CHECK_NUM(count(&trio.nodes[i]), 31);
	}
	end_trio(&trio);
}

TEST(an_answer_about_what_a_joiner_held_says_nothing_about_what_it_holds)
{
	const struct growth_copy none = { .here = false }, first = { .here = true, .attempt = 15 },
				 second = { .here = true, .attempt = 17 };
	Pb__SwitchAnswer no = PB__SWITCH_ANSWER__INIT, under_way = no, switched = no, grown = no;

	under_way.under_way = switched.switched = grown.grown = true;
	CHECK_NUM(growth_judge(none, none, &no), GROWTH_DISCARD);
	CHECK_NUM(growth_judge(none, none, &grown), GROWTH_ELSEWHERE);
	CHECK_NUM(growth_judge(none, none, &switched), GROWTH_DISCARD); /* with a copy that is not here any more */
	CHECK_NUM(growth_judge(first, first, &under_way), GROWTH_GO_ON);
	CHECK_NUM(growth_judge(first, first, &switched), GROWTH_SWITCHED);
	CHECK_NUM(growth_judge(first, first, &no), GROWTH_DISCARD);
	CHECK_NUM(growth_judge(none, first, &no), GROWTH_GO_ON); /* asked before it came: that copy may be what both stand on by now */
	CHECK_NUM(growth_judge(first, second, &no), GROWTH_GO_ON);
	CHECK_NUM(growth_judge(first, second, &switched), GROWTH_GO_ON);
}

/* A start that fails ends cleanly, and says why. */
TEST(a_token_of_nobody_is_refused)
{
	struct server node;

	make_node(&node, 2);
	node.token = "join1.none";
	start(&node);
	CHECK_NUM(pthread_join(node.thread, NULL), 0);
	CHECK(node.code != CODE_OK);
	CHECK(strstr(node.err.text, "token") != NULL);
	node_close(node.home);
}

TEST(the_leader_goes_comes_back_and_leads_again)
{
	struct trio trio;
	struct server *former;
	int leader;

	make_trio(&trio);
	leader = await_leader(&trio);
	former = &trio.nodes[leader];
	stop(former);
	for (int i = 1; i < NODES; i++)
		run(&(struct errand){ .replica = trio.nodes[(leader + i) % NODES].replica, .fn = make_entry, .n = i });
	start(former);
	started(former);
	run(&(struct errand){ .replica = former->replica, .fn = barrier });
	CHECK_NUM(count(former), 3);
	run(&(struct errand){ .replica = former->replica, .fn = transfer, .name = former->name });
	for (int64_t end_ms = clock_mono_ms() + WAIT_MS; await_leader(&trio) != leader; usleep(10000))
		CHECK(clock_mono_ms() < end_ms); /* the one before may not have heard of it yet */
	end_trio(&trio);
}
