/* SPDX-License-Identifier: Apache-2.0 */
/* The state of this node: the rules (pure), and the two tasks that feed them: one looks every 200 ms, the other asks
 * the leader for a confirmed read every second. That read is what the budget counts from: what stood here when its
 * round began was current. Other members' API ports are not asked (V3): a node that is cut off ends by its budget. */
#include "api/state.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/task.h"
#include "raft/pair.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
	PATIENCE_MS = 10 * 1000,   /* V1 */
	PORT_PAUSE_MS = 30 * 1000, /* out and back at most once in it */
	LOOK_MS = 200,
	CONFIRM_MS = 1000,
	SAVE_MS = 10 * 1000,
};

/* --- the rules --- */

void state_machine_init(struct state_machine *m, int64_t max_staleness_ms, int64_t fresh_wall_ms)
{
	*m = (struct state_machine){
		.max_staleness_ms = max_staleness_ms,
		.state = STATE_OUT,
		.why = "it has not heard a leader yet",
		.fresh_wall_ms = fresh_wall_ms,
		.unusable_since_ms = -1,
		.closed_ms = -1,
	};
}

void state_machine_fresh(struct state_machine *m, int64_t boot_ms, int64_t wall_ms)
{
	if (m->fresh_boot_ms != 0 && boot_ms <= m->fresh_boot_ms)
		return; /* an older round that came back later */
	m->fresh_boot_ms = boot_ms;
	m->fresh_wall_ms = wall_ms;
}

int64_t state_machine_age_ms(const struct state_machine *m, int64_t boot_ms, int64_t wall_ms)
{
	int64_t by_wall = wall_ms - m->fresh_wall_ms, by_boot = boot_ms - m->fresh_boot_ms;

	if (m->fresh_wall_ms == 0)
		return INT64_MAX;
	if (m->fresh_boot_ms == 0)
		return by_wall < 0 ? INT64_MAX : by_wall;
	return by_boot > by_wall ? by_boot : by_wall;
}

static bool has_budget(const struct state_machine *m, const struct state_facts *facts)
{
	return state_machine_age_ms(m, facts->boot_ms, facts->wall_ms) < m->max_staleness_ms;
}

/* What keeps it from answering at once; NULL: nothing. */
static const char *lack(const struct state_machine *m, const struct state_facts *facts)
{
	if (!facts->can_sign)
		return "it has no authority that agents can know yet";
	if (!facts->hears_leader && !has_budget(m, facts))
		return "it hears no leader and its budget (max_staleness) is over";
	return NULL;
}

static void become(struct state_machine *m, enum node_state state, const char *why)
{
	m->state = state;
	m->why = why;
}

static void judge(struct state_machine *m, const struct state_facts *facts)
{
	const char *lacking = lack(m, facts);

	if (lacking == NULL)
		m->unusable_since_ms = -1;
	else if (m->unusable_since_ms < 0)
		m->unusable_since_ms = facts->mono_ms;
	if (lacking != NULL && (m->state == STATE_OUT || facts->mono_ms - m->unusable_since_ms >= PATIENCE_MS))
		become(m, STATE_OUT, lacking);
	else if (facts->hears_leader && !facts->caught_up)
		become(m, STATE_OUT, "it lags behind its leader");
	else if (facts->hears_leader && m->fresh_wall_ms == 0)
		become(m, STATE_OUT, "its leader has not confirmed yet that it is current");
	else if (facts->hears_leader)
		become(m, STATE_LED, NULL);
	else if (m->state == STATE_ALONE || !m->leaderless)
		return; /* a leader that has gone is waited for */
	else if (m->fresh_wall_ms == 0)
		become(m, STATE_OUT, "it has not heard a leader since it joined");
	else
		become(m, STATE_ALONE, NULL);
}

void state_machine_step(struct state_machine *m, const struct state_facts *facts)
{
	bool wanted;

	if (facts->hears_leader || !m->begun)
		m->heard_ms = facts->mono_ms;
	m->begun = true;
	m->leaderless = facts->mono_ms - m->heard_ms >= PATIENCE_MS;
	judge(m, facts);
	wanted = m->state != STATE_OUT;
	if (wanted) {
		m->open = true;
	} else if (m->open && (m->closed_ms < 0 || facts->mono_ms - m->closed_ms >= PORT_PAUSE_MS)) {
		m->open = false;
		m->closed_ms = facts->mono_ms;
	}
}

/* --- the node --- */

struct budget { /* the file's body */
	int64_t fresh_wall_ms;
};

static const struct pair_kind budget_kind = {
	.magic = "budget", .version = 1, .body_len = sizeof(struct budget), .what = "budget"
};

struct state {
	struct server *server;
	struct loop *loop;
	state_port_fn *port;
	void *ctx;
	bool stopped;
	bool port_open; /* as the callback was last told, and could */
	struct pair *file;
	struct budget saved;
	int64_t saved_ms;

	pthread_mutex_t lock; /* the machine is read by all loops */
	struct state_machine machine;
};

static struct state *new_state(struct server *server)
{
	struct state *state = xcalloc(1, sizeof *state);

	state->server = server;
	pthread_mutex_init(&state->lock, NULL);
	return state;
}

enum code state_open(struct server *server, struct state **out, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(state) state = new_state(server);
	const char *path = arena_printf(arena, "%s/node/budget", server->config->data_dir);
	struct stat st;

	TRY(pair_open(path, &budget_kind, server->node, stat(path, &st) != 0 && errno == ENOENT, &state->saved,
		      &state->file, err));
	state_machine_init(&state->machine, server->config->cluster.max_staleness_s * 1000, state->saved.fresh_wall_ms);
	*out = TAKE(state);
	return CODE_OK;
}

void state_close(struct state *state)
{
	if (state == NULL)
		return;
	pair_close(state->file);
	pthread_mutex_destroy(&state->lock);
	free(state);
}

static struct state_machine machine_of(const struct state *state)
{
	struct state *s = (struct state *)state; /* the lock is not part of what is const */
	struct state_machine machine;

	pthread_mutex_lock(&s->lock);
	machine = s->machine;
	pthread_mutex_unlock(&s->lock);
	return machine;
}

/* --- the tasks --- */

static bool can_sign(const struct server *server)
{
	OWN_STRUCT(keyring) keyring = keyring_current(server->keyring);
	int64_t now_s = clock_wall_s();

	return keyring != NULL && keyring->x509 != NULL && keyring->x509->not_after_s > now_s && keyring->jwt != NULL &&
	       keyring->jwt->not_after_s > now_s;
}

static void say(const struct state *state, const struct state_machine *before, const struct state_machine *now)
{
	static const char *const names[] = { [STATE_OUT] = "out", [STATE_LED] = "led", [STATE_ALONE] = "alone" };
	struct err err = { 0 };

	if (now->state == before->state)
		return;
	if (now->state == STATE_ALONE)
		state_no_leader(state->server, &err);
	LOG_(now->state == STATE_LED ? LOG_INFO : LOG_WARN, "State of this node has changed",
	     KV("subsystem_name", "raft"), KV("state", names[now->state]),
	     KV("reason", now->state == STATE_OUT ? now->why
			  : err.text[0] != '\0'   ? err.text
						  : NULL));
}

static void save(struct state *state, const struct state_machine *machine, int64_t now_ms)
{
	bool first = state->saved.fresh_wall_ms == 0 && machine->fresh_wall_ms != 0;

	if (machine->fresh_wall_ms == state->saved.fresh_wall_ms || (!first && now_ms - state->saved_ms < SAVE_MS))
		return;
	state->saved.fresh_wall_ms = machine->fresh_wall_ms;
	state->saved_ms = now_ms;
	pair_write(state->file, &state->saved);
}

static void look(struct state *state)
{
	struct state_machine before, now;
	struct state_facts facts;
	struct replica_view view;

	replica_view(state->server->replica, &view);
	facts = (struct state_facts){
		.mono_ms = clock_mono_ms(),
		.boot_ms = clock_boot_ms(),
		.wall_ms = clock_wall_ms(),
		.hears_leader = view.hears_leader,
		.caught_up = view.caught_up,
		.can_sign = can_sign(state->server),
	};
	pthread_mutex_lock(&state->lock);
	before = state->machine;
	state_machine_step(&state->machine, &facts);
	now = state->machine;
	pthread_mutex_unlock(&state->lock);
	save(state, &now, facts.mono_ms); /* before the port opens: what answers agents has been led */
	say(state, &before, &now);
	if (!state->stopped && now.open != state->port_open && state->port(state->ctx, now.open))
		state->port_open = now.open;
}

static void watch(void *arg)
{
	struct state *state = arg;

	do
		look(state);
	while (task_sleep(LOOK_MS) == CODE_OK);
}

static void confirm(void *arg)
{
	struct state *state = arg;

	do {
		int64_t boot_ms = clock_boot_ms(), wall_ms = clock_wall_ms();

		if (replica_barrier(state->server->replica, clock_mono_ms() + CONFIRM_MS, NULL) == CODE_OK)
			state_fresh(state, boot_ms, wall_ms);
	} while (task_sleep(state_may_say_yes(state) ? CONFIRM_MS : LOOK_MS) == CODE_OK);
}

void state_run(struct state *state, struct loop *loop, state_port_fn *port, void *ctx)
{
	state->loop = loop;
	state->port = port;
	state->ctx = ctx;
	task_spawn(loop, "state of this node", watch, state);
	task_spawn(loop, "confirm that this node is current", confirm, state);
}

void state_stop(struct state *state)
{
	if (state != NULL)
		state->stopped = true;
}

/* --- for all loops --- */

bool state_is_single(const struct state *state)
{
	return state == NULL;
}

bool state_is_leaderless(const struct state *state)
{
	struct replica_view view;

	if (state == NULL || !machine_of(state).leaderless)
		return false;
	if (state->loop == NULL) /* set by hand */
		return true;
	replica_view(state->server->replica, &view);
	return !view.hears_leader; /* one that has come since the machine looked counts at once */
}

enum node_state state_now(const struct state *state)
{
	return state == NULL ? STATE_LED : machine_of(state).state;
}

void state_fresh(struct state *state, int64_t boot_ms, int64_t wall_ms)
{
	if (state == NULL)
		return;
	pthread_mutex_lock(&state->lock);
	state_machine_fresh(&state->machine, boot_ms, wall_ms);
	pthread_mutex_unlock(&state->lock);
}

static int64_t age_ms(const struct state *state, int64_t *max_ms)
{
	struct state_machine machine = machine_of(state);

	*max_ms = machine.max_staleness_ms;
	return state_machine_age_ms(&machine, clock_boot_ms(), clock_wall_ms());
}

int64_t state_stale_s(const struct state *state)
{
	int64_t max_ms, age;

	if (state == NULL)
		return 0;
	age = age_ms(state, &max_ms);
	return age == INT64_MAX ? max_ms / 1000 : age / 1000;
}

int64_t state_budget_left_s(const struct state *state)
{
	int64_t max_ms, age;

	if (state == NULL)
		return 0;
	age = age_ms(state, &max_ms);
	return age >= max_ms ? 0 : (max_ms - age) / 1000;
}

bool state_may_say_yes(const struct state *state)
{
	int64_t max_ms;

	return state == NULL || age_ms(state, &max_ms) < max_ms;
}

static void describe_members(const struct replica_cluster *cluster, int64_t up, struct buf *out)
{
	const char *separator = " (";

	buf_printf(out, "no leader: %d of %u voters reachable from '%s'", (int)up, cluster->voters, cluster->name);
	for (size_t i = 0; i < cluster->n; i++) {
		const struct replica_member *member = &cluster->members[i];

		if (member->self || member->removed || !member->voter || member->up)
			continue;
		buf_printf(out, "%s%s: ", separator, member->name);
		if (member->why != NULL && member->why[0] != '\0')
			buf_puts(out, member->why);
		else if (member->last_contact_ms >= 0)
			buf_printf(out, "no answer for %.1f s", (double)member->last_contact_ms / 1000);
		else
			buf_puts(out, "no answer");
		separator = ", ";
	}
	if (separator[0] == ',')
		buf_puts(out, ")");
}

enum code state_no_leader(const struct server *server, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct replica_cluster cluster;
	OWN_BUF text = { 0 };
	int64_t up = 0;

	if (replica_cluster(server->replica, arena, &cluster, NULL) != CODE_OK)
		return err_set(err, CODE_UNAVAILABLE, "no leader");
	for (size_t i = 0; i < cluster.n; i++)
		up += cluster.members[i].voter && cluster.members[i].up && !cluster.members[i].removed;
	describe_members(&cluster, up, &text);
	return err_set(err, CODE_UNAVAILABLE, "%s", buf_text(&text));
}

enum code state_refuse(const struct server *server, struct err *err)
{
	const char *why = server->state == NULL ? NULL : machine_of(server->state).why;

	return err_set(err, CODE_UNAVAILABLE, "node '%s' is out of service: %s", server->config->cluster.name,
		       why == NULL ? "it is stopping" : why);
}

struct state *state_for_test(struct server *server, enum node_state now)
{
	struct state *state = new_state(server);

	state_machine_init(&state->machine, INT64_MAX, clock_wall_ms());
	state_force(state, now);
	return state;
}

void state_force(struct state *state, enum node_state now)
{
	pthread_mutex_lock(&state->lock);
	become(&state->machine, now, now == STATE_OUT ? "a test says so" : NULL);
	state->machine.leaderless = now == STATE_ALONE;
	pthread_mutex_unlock(&state->lock);
}
