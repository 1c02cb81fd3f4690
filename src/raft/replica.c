/* SPDX-License-Identifier: Apache-2.0 */
/* The raft loop: drives the core, writes what it wants written, hands committed entries to the apply thread. Every entry point
 * ticks the core first (R21); before the loop sleeps it flushes reads, packs and dispatches what was proposed, and sets its timer. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/task.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ELECTION_MS = 300, STOP_MS = 5000, FOUNDER = 1, CATCH_UP_MS = 20 };

void replica_fail(const char *msg, const struct err *err)
{
	log_fatal(msg, KV("error", err->text));
}

/* --- proposals come in: from any thread --- */

static void kicked(struct message *message)
{
	struct replica *r = LIST_ITEM(message, struct replica, kick);

	pthread_mutex_lock(&r->lock);
	r->kicked = false;
	pthread_mutex_unlock(&r->lock);
	replica_tick(r);
}

/* Under the lock: the raft loop will come round. */
static void kick(struct replica *r)
{
	if (r->kicked)
		return;
	r->kicked = true;
	loop_post(r->loop, &r->kick);
}

enum code replica_enqueue(struct replica *r, struct proposal *proposal, struct err *err)
{
	enum code rc = CODE_OK;

	pthread_mutex_lock(&r->lock);
	if (r->closing) {
		rc = err_set(err, CODE_UNAVAILABLE, "the server is stopping: nothing was changed");
	} else if (r->proposals_bytes + proposal->commands.len > LIMIT_QUEUE_BYTES) {
		rc = err_set(err, CODE_UNAVAILABLE, "too many changes are waiting (%zu bytes): nothing was changed",
			     r->proposals_bytes);
	} else {
		list_push(&r->proposals, &proposal_ref(proposal)->link);
		r->proposals_bytes += proposal->commands.len;
		kick(r);
	}
	pthread_mutex_unlock(&r->lock);
	return rc;
}

bool replica_withdraw(struct replica *r, struct proposal *proposal)
{
	bool waiting;

	pthread_mutex_lock(&r->lock);
	waiting = !list_empty(&proposal->link) && proposal->taken == 0;
	if (waiting) {
		list_remove(&proposal->link);
		r->proposals_bytes -= proposal->commands.len;
	}
	pthread_mutex_unlock(&r->lock);
	if (waiting)
		proposal_unref(proposal);
	return waiting;
}

enum code replica_wait_thread(struct replica *r, struct proposal *proposal, int64_t deadline_ms)
{
	bool done;

	pthread_mutex_lock(&r->lock);
	while (!proposal->done) {
		int64_t left_ms = deadline_ms == INT64_MAX ? 1000 : deadline_ms - clock_mono_ms();
		struct timespec until;

		if (left_ms <= 0)
			break;
		if (left_ms > 1000)
			left_ms = 1000; /* the deadline's clock may be a test's: look at it again */
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += left_ms / 1000;
		until.tv_nsec += left_ms % 1000 * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&r->news, &r->lock, &until);
	}
	done = proposal->done;
	pthread_mutex_unlock(&r->lock);
	return done ? CODE_OK : CODE_DEADLINE_EXCEEDED;
}

/* --- the loop's turns --- */

void replica_tick(struct replica *r)
{
	int64_t now_ms = clock_mono_ms();

	if (r->core == NULL || now_ms == r->ticked_ms)
		return;
	r->ticked_ms = now_ms;
	core_tick(r->core, now_ms);
}

static void on_timer(uv_timer_t *timer)
{
	replica_tick(timer->data);
}

/* Before the loop sleeps: everything that came in this turn goes on its way together. */
static void on_before_poll(uv_prepare_t *prepare)
{
	struct replica *r = prepare->data;
	int64_t deadline_ms, now_ms;

	if (r->core == NULL)
		return;
	replica_tick(r);
	parcels_pack(r);
	parcels_dispatch(r);
	core_flush(r->core);
	parcels_expire(r);
	status_publish(r, r->publish_now);
	now_ms = clock_mono_ms();
	deadline_ms = core_deadline(r->core);
	if (parcels_deadline(r) < deadline_ms)
		deadline_ms = parcels_deadline(r);
	uv_update_time(loop_uv(r->loop));
	uv_timer_start(&r->timer, on_timer, deadline_ms > now_ms ? (uint64_t)(deadline_ms - now_ms) : 0, 0);
}

/* --- starting: the parts, then the core on its loop --- */

static enum code found_entry(void *ctx, struct entry *entry, struct err *err __attribute__((unused)))
{
	struct replica *r = ctx;

	if (r->n_recovered == r->cap_recovered)
		r->recovered_entries = xrealloc(r->recovered_entries, (r->cap_recovered = 2 * r->cap_recovered + 256) *
									      sizeof *r->recovered_entries);
	r->recovered_entries[r->n_recovered++] = entry_ref(entry);
	return CODE_OK;
}

static const struct pair_kind place_kind = {
	.magic = "place", .version = 1, .body_len = sizeof(struct place), .what = "member record"
};

static enum code open_raft_dir(struct replica *r, bool is_new, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct wal_options options = {
		.dir = arena_printf(arena, "%s/log", r->raft_dir), .owner = r->node_id, .make = is_new, .loop = r->loop
	};
	const struct wal_visitor visitor = { found_entry, r };

	if (is_new && mkdir(r->raft_dir, 0700) != 0 && errno != EEXIST)
		return err_errno(err, CODE_INTERNAL, errno, "mkdir", r->raft_dir);
	if (is_new) {
		r->place = (struct place){ .id = FOUNDER, .epoch = 1 };
		rand_uuid4(r->place.cluster_id);
	}
	TRY(pair_open(arena_printf(arena, "%s/member", r->raft_dir), &place_kind, r->node_id, is_new, &r->place, &r->place_file, err));
	TRY(wal_open(&options, &visitor, &r->wal, err));
	return vote_open(arena_printf(arena, "%s/vote", r->raft_dir), r->node_id, is_new, &r->vote, &r->vote_state, err);
}

static bool has_data(const struct replica *r)
{
	return r->triple.index > 0 || r->n_recovered > 0 || r->vote_state.term > 0;
}

/* V17: a wiped node must not found a second cluster under the agents' name. */
static enum code check_intent(struct replica *r, bool is_new, struct err *err)
{
	bool joins = r->join_token[0] != '\0';

	if (!is_new) {
		if (r->cluster != NULL && (joins || r->bootstrap))
			log_info("This node is a member already: -bootstrap and -join are ignored", KV("subsystem_name", "raft"));
		return CODE_OK;
	}
	if (r->cluster == NULL && joins)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "-join needs a cluster {} block in the configuration (name, bind_port, advertise)");
	if (r->cluster != NULL && joins && r->bootstrap)
		return err_set(err, CODE_INVALID_ARGUMENT, "-bootstrap founds a cluster, -join joins one: give one of them");
	if (r->cluster != NULL && !joins && !r->bootstrap)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "this node has no data: start it with -bootstrap to found a new cluster, or with -join TOKEN to join one (`cluster "
			       "token` on any member prints a token)");
	return CODE_OK;
}

static enum code check_alone(struct replica *r, struct err *err)
{
	if (r->cluster == NULL && r->triple.conf.n > 1)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "the data directory belongs to a cluster of %u members, and the configuration has no cluster {} block: put it back",
			       r->triple.conf.n);
	if (r->place.joined != 0 && !has_data(r) && r->join_token[0] == '\0')
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "this node's join has not been finished: start it with -join TOKEN again (the same token, or a new one)");
	return CODE_OK;
}

static enum code open_all(struct replica *r, const struct replica_options *options, struct err *err)
{
	struct stat st;
	char vote[4096];
	bool is_new;

	snprintf(vote, sizeof vote, "%s/vote", r->raft_dir);
	is_new = stat(vote, &st) != 0; /* it is the last of a new node's files */
	TRY(check_intent(r, is_new, err));
	if (options->data_dir != NULL) {
		TRY(generations_open(options->data_dir, r->node_id, &r->generations, err));
		r->state_path = xstrdup(generations_path(r->generations));
	}
	TRY(store_open(r->state_path, r->trust_domain, &r->store, err));
	TRY(checkpointer_open(r->state_path, &r->checkpointer, err));
	TRY(pipeline_triple(r->store, &r->triple, err));
	if (r->triple.index > 0 && is_new)
		return err_set(err, CODE_DATA_LOSS,
			       "state file '%s' stands at index %llu, and there is no log beside it (%s): restore the data directory as a "
			       "whole",
			       r->state_path, (unsigned long long)r->triple.index, r->raft_dir);
	TRY(open_raft_dir(r, is_new, err));
	r->id = r->place.id;
	return check_alone(r, err);
}

enum code replica_start_core(struct replica *r, struct err *err)
{
	const struct core_options options = {
		.id = r->id,
		.election_ms = r->cluster == NULL ? ELECTION_MS : (unsigned)r->cluster->election_timeout_ms,
		.now_ms = clock_mono_ms(),
		.io = &replica_io,
		.ctx = r,
	};
	enum code rc;

	/* an installed copy that the log does not reach: the log goes (libraft-core.md 1.4, restart) */
	if ((r->n_recovered == 0 ? 0 : r->recovered_entries[r->n_recovered - 1]->index) < r->triple.index) {
		for (size_t i = 0; i < r->n_recovered; i++)
			entry_unref(r->recovered_entries[i]);
		r->n_recovered = 0;
		replica_log_reset(r, r->triple.index, r->triple.term);
	}
	r->recovered.state = r->triple;
	r->recovered.entries = r->recovered_entries;
	r->recovered.n = r->n_recovered;
	r->recovered.first = r->n_recovered == 0 ? 0 : r->recovered_entries[0]->index;
	r->core_number++;
	r->role = (struct core_role){ .role = CORE_FOLLOWER };
	rc = core_start(&options, &r->recovered, &r->core, err);
	for (size_t i = 0; i < r->n_recovered; i++)
		entry_unref(r->recovered_entries[i]);
	free(r->recovered_entries);
	r->recovered_entries = NULL;
	r->n_recovered = r->cap_recovered = 0;
	return rc;
}

struct start {
	struct message message;
	struct replica *replica;
	struct wal_write founding;
	struct wait written;
	struct entry *entry;
	enum code code;
	struct err err;
};

static void founding_written(struct message *message)
{
	wait_done(&LIST_ITEM(message, struct start, founding.done)->written);
}

/* A new cluster of one: term 1 and the first configuration, in log and vote record, before the core starts. */
static enum code found(struct start *start)
{
	struct replica *r = start->replica;
	struct conf conf = { 0 };
	char address[CONF_ADDRESS_MAX + 1];

	snprintf(address, sizeof address, "%llu", (unsigned long long)r->id);
	TRY(conf_add(&conf, r->id, address, CONF_VOTER, &start->err));
	start->entry = core_founding_entry(&conf);
	vote_write(r->vote, start->entry->term, 0);
	r->recovered.term = start->entry->term;
	found_entry(r, start->entry, &start->err);
	start->founding = (struct wal_write){ .done = { .deliver = founding_written }, .first = 1, .entries = &start->entry, .n = 1 };
	wal_write(r->wal, &start->founding);
	return task_wait(&start->written, INT64_MAX);
}

/* A joiner is ready when it has all that was committed when it came, and a say in what comes. */
static enum code catch_up(struct replica *r, struct err *err)
{
	for (;;) {
		struct core_status status;
		struct replica_status here;

		if (task_sleep(CATCH_UP_MS) != CODE_OK)
			return err_set(err, CODE_CANCELLED, "this node is stopping");
		core_status(r->core, &status);
		replica_status(r, &here);
		if (status.now.leader != 0 && status.conf_committed && conf_get(&status.conf, r->id) != NULL &&
		    here.applied >= status.commit && here.applied > 0 && cluster_settled(r, &status.conf))
			return CODE_OK;
	}
}

static enum code join(struct start *start)
{
	struct replica *r = start->replica;

	if (has_data(r)) { /* stopped while it waited for the growth */
		cluster_reload(r);
	} else {
		TRY(cluster_join(r, r->join_token, &start->err));
		pair_write(r->place_file, &r->place);
	}
	if (r->place.joined == 2) {
		TRY(growth_await(r, &start->err));
		if (r->recovered.term > 0)
			vote_write(r->vote, r->recovered.term, 0);
		r->place.joined = 1;
		pair_write(r->place_file, &r->place);
	}
	pipeline_start(r);
	TRY(replica_start_core(r, &start->err));
	cluster_start(r);
	TRY(catch_up(r, &start->err));
	r->place.joined = 0;
	pair_write(r->place_file, &r->place);
	return CODE_OK;
}

static enum code start_up(struct start *start)
{
	struct replica *r = start->replica;

	TRY(peers_open(r, &start->err));
	r->recovered.term = r->vote_state.term;
	r->recovered.voted_for = r->vote_state.voted_for;
	if (r->cluster != NULL && (r->place.joined == 2 || (!has_data(r) && r->join_token[0] != '\0')))
		return join(start);
	if (!has_data(r))
		TRY(found(start));
	pipeline_start(r);
	TRY(replica_start_core(r, &start->err));
	cluster_start(r);
	return CODE_OK;
}

static void start_task(void *arg)
{
	struct start *start = arg;
	struct replica *r = start->replica;

	start->code = start_up(start);
	pthread_mutex_lock(&r->lock);
	r->started = true;
	pthread_cond_broadcast(&r->news);
	pthread_mutex_unlock(&r->lock);
}

static void begin(struct message *message)
{
	struct start *start = LIST_ITEM(message, struct start, message);
	struct replica *r = start->replica;

	r->timer.data = r->before_poll.data = r;
	uv_timer_init(loop_uv(r->loop), &r->timer);
	uv_prepare_init(loop_uv(r->loop), &r->before_poll);
	uv_prepare_start(&r->before_poll, on_before_poll);
	task_spawn(r->loop, "start", start_task, start);
}

static enum code run(struct replica *r, struct err *err)
{
	struct start *start = xcalloc(1, sizeof *start);
	enum code rc;

	start->replica = r;
	start->message.deliver = begin;
	loop_start(r->loop);
	loop_post(r->loop, &start->message);
	pthread_mutex_lock(&r->lock);
	while (!r->started)
		pthread_cond_wait(&r->news, &r->lock);
	pthread_mutex_unlock(&r->lock);
	entry_unref(start->entry);
	rc = start->code;
	if (rc != CODE_OK)
		err_set(err, rc, "%s", start->err.text);
	free(start);
	return rc;
}

static void replica_init(struct replica *r, const struct replica_options *options)
{
	OWN_BUF raft_dir = { 0 };
	pthread_condattr_t monotonic;

	if (options->data_dir != NULL)
		buf_printf(&raft_dir, "%s/raft", options->data_dir);
	else
		buf_printf(&raft_dir, "%s-raft", options->state_path);
	if (options->state_path != NULL)
		r->state_path = xstrdup(options->state_path);
	r->trust_domain = xstrdup(options->trust_domain);
	r->raft_dir = xstrdup(buf_text(&raft_dir));
	r->node_id = xstrdup(options->node_id != NULL ? options->node_id : "00000000-0000-4000-8000-000000000000");
	r->cluster = options->cluster != NULL && options->cluster->enabled ? options->cluster : NULL;
	r->join_token = options->join_token == NULL ? "" : options->join_token;
	r->bootstrap = options->bootstrap;
	if (options->data_dir != NULL) {
		OWN_BUF node_dir = { 0 };

		buf_printf(&node_dir, "%s/node", options->data_dir);
		r->node_dir = xstrdup(buf_text(&node_dir));
	}
	r->boot = rand_u64() >> 1 | 1;
	r->loop = loop_new("raft");
	r->kick.deliver = kicked;
	r->ticked_ms = -1;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	pthread_cond_init(&r->news, &monotonic);
	pthread_condattr_destroy(&monotonic);
	list_init(&r->proposals);
	list_init(&r->parcels);
	list_init(&r->submissions);
	list_init(&r->foreign);
	list_init(&r->waiters);
}

static void replica_free(struct replica *r)
{
	peers_close(r);
	core_free(r->core);
	r->core = NULL;
	wal_close(r->wal);  /* stores what was asked for */
	loop_free(r->loop); /* delivers the last completions */
	LIST_FOR_SAFE(item, &r->submissions)
		free(LIST_ITEM(item, struct submission, link));
	vote_close(r->vote);
	pair_close(r->place_file);
	reader_close(r->reader);
	checkpointer_close(r->checkpointer);
	store_close(r->store);
	generations_close(r->generations);
	arena_free(r->members_arena);
	for (size_t i = 0; i < r->n_recovered; i++)
		entry_unref(r->recovered_entries[i]);
	free(r->recovered_entries);
	free(r->state_path);
	free(r->trust_domain);
	free(r->raft_dir);
	free(r->node_id);
	free(r->node_dir);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->work);
	pthread_cond_destroy(&r->news);
	free(r);
}

enum code replica_start(const struct replica_options *options, struct replica **out, struct err *err)
{
	struct replica *r = xcalloc(1, sizeof *r);
	enum code rc;

	replica_init(r, options);
	rc = open_all(r, options, err);
	if (rc != CODE_OK) {
		replica_free(r);
		return rc;
	}
	r->last_stamp_ms = store_stamp_ms(r->store);
	pipeline_note(r);
	rc = run(r, err);
	if (rc != CODE_OK) {
		replica_stop(r);
		return rc;
	}
	r->serving = true;
	*out = r;
	return CODE_OK;
}

const char *replica_state_path(const struct replica *r)
{
	return r->state_path;
}

/* --- stopping --- */

static bool all_told(const struct replica *r)
{
	return list_empty(&r->proposals) && list_empty(&r->parcels);
}

static void close_handles(struct message *message)
{
	struct replica *r = *(struct replica **)(message + 1);

	peers_close(r); /* on the loop, while it runs */
	uv_prepare_stop(&r->before_poll);
	uv_close((uv_handle_t *)&r->before_poll, NULL);
	uv_close((uv_handle_t *)&r->timer, NULL);
}

/* Under the lock. */
static void await_news(struct replica *r)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += 10 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&r->news, &r->lock, &until);
}

/* What was proposed before gets its time; what then still waits is told that nobody knows. A leader names its successor. */
static void drain(struct replica *r)
{
	int64_t give_up_ms = clock_mono_ms() + STOP_MS;

	pthread_mutex_lock(&r->lock);
	r->closing = true;
	while (!all_told(r) && clock_mono_ms() < give_up_ms)
		await_news(r);
	pthread_mutex_unlock(&r->lock);
	if (r->cluster == NULL)
		return;
	r->hand_over_message.deliver = cluster_hand_over;
	loop_post(r->loop, &r->hand_over_message);
	pthread_mutex_lock(&r->lock);
	while (!r->handed_over && clock_mono_ms() < give_up_ms)
		await_news(r);
	pthread_mutex_unlock(&r->lock);
}

void replica_stop(struct replica *r)
{
	struct {
		struct message message;
		struct replica *replica;
	} last = { { .deliver = close_handles }, r };

	if (r == NULL)
		return;
	drain(r);
	loop_post(r->loop, &last.message);
	loop_stop(r->loop);
	loop_join(r->loop);
	pipeline_stop(r);
	parcels_fail_all(r, "the server has stopped");
	replica_free(r);
}

void replica_status(struct replica *r, struct replica_status *out)
{
	pthread_mutex_lock(&r->lock);
	*out = r->status;
	pthread_mutex_unlock(&r->lock);
}
