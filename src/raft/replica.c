/* SPDX-License-Identifier: Apache-2.0 */
/* The raft loop: drives the core, writes what it wants written, hands committed entries to the apply thread. Every entry point
 * ticks the core first (R21); before the loop sleeps it flushes reads, packs and dispatches what was proposed, and sets its timer. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/rand.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ELECTION_MS = 300, STOP_MS = 5000, FOUNDER = 1 };

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

/* --- what the core wants --- */

static void io_vote(void *ctx, uint64_t term, uint64_t voted_for)
{
	vote_write(((struct replica *)ctx)->vote, term, voted_for);
}

struct log_write {
	struct wal_write wal; /* first: `done` is its first */
	struct replica *replica;
	bool counted; /* the core hears of its end */
	struct entry *entries[];
};

static void log_written(struct message *message)
{
	struct log_write *write = (struct log_write *)message;
	struct replica *r = write->replica;
	bool counted = write->counted;

	for (size_t i = 0; i < write->wal.n; i++)
		entry_unref(write->entries[i]);
	free(write);
	if (!counted || r->core == NULL)
		return;
	replica_tick(r);
	core_stored(r->core);
}

static struct log_write *new_write(struct replica *r, uint64_t first, struct entry *const *entries, size_t n)
{
	struct log_write *write = xcalloc(1, sizeof *write + n * sizeof *write->entries);

	write->replica = r;
	write->wal.done.deliver = log_written;
	write->wal.first = first;
	write->wal.entries = write->entries;
	write->wal.n = n;
	for (size_t i = 0; i < n; i++)
		write->entries[i] = entry_ref(entries[i]);
	return write;
}

static void io_write(void *ctx, uint64_t first, struct entry *const *entries, size_t n)
{
	struct replica *r = ctx;
	struct log_write *write = new_write(r, first, entries, n);

	write->counted = true;
	wal_write(r->wal, &write->wal);
}

static void io_log_reset(void *ctx, uint64_t next)
{
	struct replica *r = ctx;
	struct log_write *write = new_write(r, 0, NULL, 0);

	wal_reset(r->wal, &write->wal, next - 1, core_term_of(r->core, next - 1));
}

/* One voter has nobody to talk to. */
static bool io_send(void *ctx __attribute__((unused)), uint64_t to __attribute__((unused)),
		    const struct peer_message *message __attribute__((unused)))
{
	return false;
}

static size_t io_queued(void *ctx __attribute__((unused)), uint64_t to __attribute__((unused)))
{
	return 0;
}

static void io_read_log(void *ctx __attribute__((unused)), uint64_t peer __attribute__((unused)),
			uint64_t first __attribute__((unused)), size_t max_bytes __attribute__((unused)))
{
}

static void io_apply(void *ctx, struct entry *const *entries, size_t n)
{
	pipeline_push(ctx, entries, n);
}

static void io_fate(void *ctx, struct core_submission *submission, enum core_fate fate)
{
	submission_fate(ctx, submission, fate);
}

static void io_role(void *ctx, const struct core_role *role)
{
	struct replica *r = ctx;

	if (role->term != r->role.term || role->leader != r->role.leader)
		parcels_again(r);
	r->role = *role;
}

static void io_conf(void *ctx __attribute__((unused)), uint64_t index __attribute__((unused)),
		    const struct conf *conf __attribute__((unused)), bool committed __attribute__((unused)))
{
}

static void io_copy_wanted(void *ctx __attribute__((unused)), uint64_t peer __attribute__((unused)),
			   uint64_t at_least __attribute__((unused)))
{
}

static bool io_copy_ready(void *ctx __attribute__((unused)), const struct core_triple *state __attribute__((unused)))
{
	return false;
}

static void io_install(void *ctx __attribute__((unused)), const struct core_triple *state __attribute__((unused)))
{
}

__attribute__((noreturn)) static void io_fatal(void *ctx __attribute__((unused)), const char *why)
{
	log_fatal("Consensus is broken, this server stops", KV("error", why));
}

static const struct core_io io = {
	.vote = io_vote,
	.write = io_write,
	.log_reset = io_log_reset,
	.send = io_send,
	.queued = io_queued,
	.read_log = io_read_log,
	.apply = io_apply,
	.fate = io_fate,
	.role = io_role,
	.conf = io_conf,
	.copy_wanted = io_copy_wanted,
	.copy_ready = io_copy_ready,
	.install = io_install,
	.fatal = io_fatal,
};

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

static enum code open_log(struct replica *r, bool is_new, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct wal_options options = {
		.dir = arena_printf(arena, "%s/log", r->raft_dir), .owner = r->node_id, .make = is_new, .loop = r->loop
	};
	const struct wal_visitor visitor = { found_entry, r };

	if (is_new && mkdir(r->raft_dir, 0700) != 0 && errno != EEXIST)
		return err_errno(err, CODE_INTERNAL, errno, "mkdir", r->raft_dir);
	TRY(wal_open(&options, &visitor, &r->wal, err));
	return vote_open(arena_printf(arena, "%s/vote", r->raft_dir), r->node_id, is_new, &r->vote, &r->vote_state, err);
}

static enum code open_all(struct replica *r, struct err *err)
{
	struct stat st;
	char vote[4096];

	TRY(store_open(r->state_path, r->trust_domain, &r->store, err));
	TRY(checkpointer_open(r->state_path, &r->checkpointer, err));
	TRY(pipeline_triple(r->store, &r->triple, err));
	snprintf(vote, sizeof vote, "%s/vote", r->raft_dir);
	if (r->triple.index > 0 && stat(vote, &st) != 0)
		return err_set(err, CODE_DATA_LOSS,
			       "state file '%s' stands at index %llu, and there is no log beside it (%s): restore the data directory as a "
			       "whole",
			       r->state_path, (unsigned long long)r->triple.index, r->raft_dir);
	return open_log(r, stat(vote, &st) != 0, err);
}

struct start {
	struct message message;
	struct replica *replica;
	struct wal_write founding;
	struct entry *entry;
	enum code code;
	struct err err;
};

/* On the raft loop. */
static void start_core(struct start *start)
{
	struct replica *r = start->replica;
	const struct core_options options = {
		.id = r->id, .election_ms = ELECTION_MS, .now_ms = clock_mono_ms(), .io = &io, .ctx = r
	};

	r->recovered.state = r->triple;
	r->recovered.entries = r->recovered_entries;
	r->recovered.n = r->n_recovered;
	r->recovered.first = r->n_recovered == 0 ? 0 : r->recovered_entries[0]->index;
	start->code = core_start(&options, &r->recovered, &r->core, &start->err);
	for (size_t i = 0; i < r->n_recovered; i++)
		entry_unref(r->recovered_entries[i]);
	free(r->recovered_entries);
	r->recovered_entries = NULL;
	pthread_mutex_lock(&r->lock);
	r->started = true;
	pthread_cond_broadcast(&r->news);
	pthread_mutex_unlock(&r->lock);
}

static void founded(struct message *message)
{
	struct start *start = LIST_ITEM(message, struct start, founding.done);

	start_core(start);
}

/* A new cluster of one: term 1 and the first configuration, in log and vote record, before the core starts. */
static void found(struct start *start)
{
	struct replica *r = start->replica;
	struct conf conf = { 0 };
	char address[CONF_ADDRESS_MAX + 1];

	snprintf(address, sizeof address, "%llu", (unsigned long long)r->id);
	if (conf_add(&conf, r->id, address, CONF_VOTER, &start->err) != CODE_OK)
		replica_fail("A cluster of one cannot be made", &start->err);
	start->entry = core_founding_entry(&conf);
	vote_write(r->vote, start->entry->term, 0);
	r->recovered.term = start->entry->term;
	found_entry(r, start->entry, &start->err);
	start->founding = (struct wal_write){ .done = { .deliver = founded }, .first = 1, .entries = &start->entry, .n = 1 };
	wal_write(r->wal, &start->founding);
}

static void begin(struct message *message)
{
	struct start *start = LIST_ITEM(message, struct start, message);
	struct replica *r = start->replica;

	r->timer.data = r->before_poll.data = r;
	uv_timer_init(loop_uv(r->loop), &r->timer);
	uv_prepare_init(loop_uv(r->loop), &r->before_poll);
	uv_prepare_start(&r->before_poll, on_before_poll);
	r->recovered.term = r->vote_state.term;
	r->recovered.voted_for = r->vote_state.voted_for;
	if (r->vote_state.term == 0 && r->n_recovered == 0 && r->triple.index == 0)
		found(start);
	else
		start_core(start);
}

static enum code run(struct replica *r, struct err *err)
{
	struct start start = { .replica = r, .message = { .deliver = begin } };

	pipeline_start(r);
	loop_start(r->loop);
	loop_post(r->loop, &start.message);
	pthread_mutex_lock(&r->lock);
	while (!r->started)
		pthread_cond_wait(&r->news, &r->lock);
	pthread_mutex_unlock(&r->lock);
	if (start.entry != NULL)
		entry_unref(start.entry);
	return start.code == CODE_OK ? CODE_OK : err_set(err, start.code, "%s", start.err.text);
}

static void replica_init(struct replica *r, const struct replica_options *options)
{
	OWN_BUF raft_dir = { 0 };
	pthread_condattr_t monotonic;

	buf_printf(&raft_dir, "%s-raft", options->state_path);
	r->state_path = xstrdup(options->state_path);
	r->trust_domain = xstrdup(options->trust_domain);
	r->raft_dir = xstrdup(options->raft_dir != NULL ? options->raft_dir : buf_text(&raft_dir));
	r->node_id = xstrdup(options->node_id != NULL ? options->node_id : "00000000-0000-4000-8000-000000000000");
	r->id = FOUNDER;
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
}

static void replica_free(struct replica *r)
{
	core_free(r->core);
	r->core = NULL;
	wal_close(r->wal); /* stores what was asked for */
	loop_free(r->loop); /* delivers the last completions */
	LIST_FOR_SAFE(item, &r->submissions) {
		struct submission *submission = LIST_ITEM(item, struct submission, link);

		free(submission);
	}
	vote_close(r->vote);
	checkpointer_close(r->checkpointer);
	store_close(r->store);
	for (size_t i = 0; i < r->n_recovered && r->recovered_entries != NULL; i++)
		entry_unref(r->recovered_entries[i]);
	free(r->recovered_entries);
	free(r->state_path);
	free(r->trust_domain);
	free(r->raft_dir);
	free(r->node_id);
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
	rc = open_all(r, err);
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
	*out = r;
	return CODE_OK;
}

/* --- stopping --- */

static bool all_told(const struct replica *r)
{
	return list_empty(&r->proposals) && list_empty(&r->parcels);
}

static void close_handles(struct message *message)
{
	struct replica *r = *(struct replica **)(message + 1);

	uv_prepare_stop(&r->before_poll);
	uv_close((uv_handle_t *)&r->before_poll, NULL);
	uv_close((uv_handle_t *)&r->timer, NULL);
}

/* What was proposed before gets its time; what then still waits is told that nobody knows. */
static void drain(struct replica *r)
{
	int64_t give_up_ms = clock_mono_ms() + STOP_MS;

	pthread_mutex_lock(&r->lock);
	r->closing = true;
	while (!all_told(r) && clock_mono_ms() < give_up_ms) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 10 * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&r->news, &r->lock, &until);
	}
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
