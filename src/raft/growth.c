/* SPDX-License-Identifier: Apache-2.0 */
/* From one voter to two (availability.md V18, rule R10), and copies of the state.
 *
 *   A: freeze, copy at index i -> B holds it, synced -> term raised in A's vote record -> A's state stands under {A,B} (the switch)
 *   B: copy i -> asks A: "switched at i?" until yes (it takes the copy over and starts) or no (it discards it and waits)
 *
 * The attempt's number is the index: what is frozen at one index is the same whenever it is copied. So A can answer after a
 * restart from its state alone. B never starts by a timeout. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/codec.h"
#include "store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 20, FREEZE_MS = 10 * 1000, ASK_MS = 2000, COPY_BYTES_PER_S = 64 << 20 };

void triple_to_proto(const struct core_triple *from, Pb__Triple *out, struct buf *conf)
{
	pb__triple__init(out);
	conf_encode(&from->conf, conf);
	out->index = from->index;
	out->term = from->term;
	out->conf_index = from->conf_index;
	out->conf = (ProtobufCBinaryData){ conf->len, conf->data };
}

enum code triple_from_proto(const Pb__Triple *from, struct core_triple *out, struct err *err)
{
	if (from == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "a copy that does not say where it stands");
	*out = (struct core_triple){ .index = from->index, .term = from->term, .conf_index = from->conf_index };
	if (from->conf.len == 0)
		return CODE_OK;
	return conf_decode(from->conf.data, from->conf.len, &out->conf, err);
}

static void path_in(const struct replica *r, const char *name, char out[4096])
{
	snprintf(out, 4096, "%s/%s", r->raft_dir, name);
}

static bool go_on(void *ctx)
{
	struct replica *r = ctx;
	bool closing;

	pthread_mutex_lock(&r->lock);
	closing = r->closing;
	pthread_mutex_unlock(&r->lock);
	return !closing;
}

static const char *copy_in_path(struct replica *r, struct arena *arena)
{
	return generations_temporary(r->generations, "copy-in", arena);
}

/* --- sending a copy: used by both ways --- */

struct sending {
	struct wait wait;
	struct replica *replica;
	enum code code;
	char why[256];
};

static void copy_done(void *ctx, enum code code, const char *why, const uint8_t sha256[32] __attribute__((unused)))
{
	struct sending *sending = ctx;

	sending->code = code;
	snprintf(sending->why, sizeof sending->why, "%s", why == NULL ? "" : why);
	wait_done(&sending->wait);
}

/* In a task. The struct outlives it: the links tell the end always. */
static enum code send_file(struct replica *r, uint64_t peer, const char *path, const Pb__CopyAbout *about, struct err *err)
{
	struct sending *sending;
	OWN_BUF words = { 0 };
	struct link_copy copy = { .bytes_per_s = COPY_BYTES_PER_S, .done = copy_done };
	off_t length;
	enum code rc;

	copy.fd = open(path, O_RDONLY | O_CLOEXEC);
	length = copy.fd < 0 ? -1 : lseek(copy.fd, 0, SEEK_END);
	if (length < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	message_pack(about, &words);
	sending = xcalloc(1, sizeof *sending);
	copy.length = (uint64_t)length;
	copy.about = (struct span){ words.data, words.len };
	copy.ctx = sending;
	link_copy_send(r->links, peer, &copy);
	while ((rc = task_wait(&sending->wait, clock_mono_ms() + FREEZE_MS)) == CODE_DEADLINE_EXCEEDED)
		;
	if (rc != CODE_OK)
		return rc; /* the process ends; the struct stays the links' */
	rc = sending->code;
	if (rc != CODE_OK)
		err_set(err, rc, "%s", sending->why);
	free(sending);
	return rc;
}

/* --- A --- */

/* The apply thread stands still: the store is ours for a moment. */
static void hold_store(struct replica *r)
{
	pthread_mutex_lock(&r->lock);
	r->exclusive_wanted = true;
	while (r->applying)
		pthread_cond_wait(&r->news, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void release_store(struct replica *r)
{
	pthread_mutex_lock(&r->lock);
	r->exclusive_wanted = false;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->lock);
}

static enum code base_of(struct replica *r, struct core_triple *base, struct err *err)
{
	int64_t end_ms = clock_mono_ms() + FREEZE_MS;
	enum code rc;

	while ((rc = core_grow_base(r->core, base, err)) == CODE_UNAVAILABLE && clock_mono_ms() < end_ms) {
		TRY(task_sleep(POLL_MS));
		replica_tick(r);
	}
	if (rc != CODE_OK)
		return rc;
	for (;;) { /* handed on is not applied yet */
		struct replica_status status;

		replica_status(r, &status);
		if (status.applied >= base->index)
			return CODE_OK;
		TRY(task_sleep(POLL_MS));
	}
}

static enum code ship(struct replica *r, uint64_t peer, const struct core_triple *base, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF conf = { 0 };
	Pb__CopyAbout about = PB__COPY_ABOUT__INIT;
	Pb__Triple triple;
	struct store_triple copied;
	char path[4096];
	enum code rc;

	path_in(r, "copy-out.db", path);
	TRY(store_copy(r->state_path, path, STORE_COPY_WAL_MAX, go_on, r, arena, &copied, err));
	if (copied.index != base->index)
		return err_set(err, CODE_INTERNAL, "the copy stands at index %llu, not %llu", (unsigned long long)copied.index,
			       (unsigned long long)base->index);
	triple_to_proto(base, &triple, &conf);
	about.triple = &triple;
	about.grows = true;
	about.attempt = base->index;
	rc = send_file(r, peer, path, &about, err);
	unlink(path);
	return rc;
}

/* The switch: one transaction under which A needs B. Nothing is released before it is on the disk. */
static void switch_over(struct replica *r, uint64_t term, const struct core_triple *both)
{
	OWN_BUF conf = { 0 };
	struct err err = { 0 };

	conf_encode(&both->conf, &conf);
	hold_store(r);
	if (store_rebase(r->store, (struct span){ conf.data, conf.len }, &err) != CODE_OK)
		replica_fail("State cannot be written, this server stops", &err);
	pthread_mutex_lock(&r->lock);
	r->triple = *both;
	pthread_mutex_unlock(&r->lock);
	release_store(r);
	core_free(r->core);
	r->core = NULL;
	r->recovered = (struct core_recovered){ .term = term };
	if (replica_start_core(r, &err) != CODE_OK)
		replica_fail("Consensus cannot start with two voters, this server stops", &err);
}

enum code growth_run(struct replica *r, uint64_t id, struct err *err)
{
	struct core_triple base, both;
	char address[CONF_ADDRESS_MAX + 1];
	uint64_t term;
	enum code rc;

	snprintf(address, sizeof address, "%llu", (unsigned long long)id);
	core_freeze(r->core);
	r->growth = (struct growth){ .active = true, .target = id };
	rc = base_of(r, &base, err);
	if (rc == CODE_OK) {
		r->growth.attempt = base.index;
		rc = ship(r, id, &base, err);
	}
	if (rc == CODE_OK && r->core != NULL) {
		replica_tick(r);
		rc = core_grow(r->core, id, address, &term, &both, err);
	}
	r->growth.active = false;
	if (rc != CODE_OK) {
		if (r->core != NULL)
			core_thaw(r->core);
		return rc;
	}
	switch_over(r, term, &both);
	log_info("Cluster has two voters: it survives no failure until a third one has joined", KV("subsystem_name", "raft"));
	return CODE_OK;
}

void growth_answer(struct replica *r, struct link_request *request)
{
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__SwitchRequest *in = message_unpack(&pb__switch_request__descriptor, request->body, arena);
	Pb__SwitchAnswer answer = PB__SWITCH_ANSWER__INIT;
	OWN_BUF conf = { 0 }, body = { 0 };
	struct core_triple triple;
	struct err err = { 0 };
	Pb__Triple where;

	if (r->core == NULL) { /* at a start, or in the middle of the switch: "no" would have the other side discard its copy */
		err_set(&err, CODE_UNAVAILABLE, "this node is starting");
		link_answer(request, CODE_UNAVAILABLE, (struct span){ 0 }, &err);
		return;
	}
	pthread_mutex_lock(&r->lock);
	triple = r->triple;
	pthread_mutex_unlock(&r->lock);
	if (in != NULL) {
		answer.switched = triple.conf_index == in->attempt && conf_is_voter(&triple.conf, request->from);
		answer.grown = conf_voters(&triple.conf) > 1 && !conf_is_voter(&triple.conf, request->from);
		answer.under_way = r->growth.active && r->growth.target == request->from && r->growth.attempt == in->attempt;
		answer.term = r->role.term;
		triple_to_proto(&triple, &where, &conf);
		answer.triple = &where;
	}
	message_pack(&answer, &body);
	link_answer(request, CODE_OK, (struct span){ body.data, body.len }, NULL);
}

/* --- B --- */

static enum code ask_switched(struct replica *r, uint64_t founder, Pb__SwitchAnswer **out, struct arena *arena, struct err *err)
{
	Pb__SwitchRequest request = PB__SWITCH_REQUEST__INIT;
	struct link_answer answer;
	OWN_BUF body = { 0 };

	request.attempt = r->copy.attempt;
	message_pack(&request, &body);
	TRY(link_ask(r->links, founder, METHOD_SWITCH, (struct span){ body.data, body.len }, clock_mono_ms() + ASK_MS, arena, &answer, err));
	*out = message_unpack(&pb__switch_answer__descriptor, answer.body, arena);
	return *out == NULL ? err_set(err, CODE_INTERNAL, "the answer makes no sense") : CODE_OK;
}

static uint64_t founder_of(const struct replica *r)
{
	for (size_t i = 0; i < r->n_members; i++)
		if (!r->members[i]->removed && r->members[i]->id != r->id)
			return r->members[i]->id;
	return 0;
}

/* The state is the founder's copy already; what makes it a voter's is the configuration. */
static enum code become_voter(struct replica *r, const Pb__SwitchAnswer *answer, struct err *err)
{
	OWN_BUF conf = { 0 };
	struct core_triple both;

	TRY(triple_from_proto(answer->triple, &both, err));
	conf_encode(&both.conf, &conf);
	TRY(store_rebase(r->store, (struct span){ conf.data, conf.len }, err));
	TRY(pipeline_triple(r->store, &r->triple, err));
	r->recovered = (struct core_recovered){ .term = answer->term };
	return CODE_OK;
}

enum growth_verdict growth_judge(struct growth_copy asked, struct growth_copy now, const Pb__SwitchAnswer *answer)
{
	if (now.here != asked.here || now.attempt != asked.attempt)
		return GROWTH_GO_ON; /* a copy has come since: the answer is not about it */
	if (now.here && answer->switched)
		return GROWTH_SWITCHED;
	if (answer->grown && !answer->switched)
		return GROWTH_ELSEWHERE;
	return answer->under_way ? GROWTH_GO_ON : GROWTH_DISCARD;
}

/* The founder may have switched whatever we hear, so this never gives up and never starts by itself: the copy is installed before
 * the founder is told that it has come, and a restart goes on from it. */
enum code growth_await(struct replica *r, struct err *err)
{
	uint64_t founder = founder_of(r);

	r->copy.here = r->triple.index > 0;
	r->copy.attempt = r->triple.index;
	for (;;) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__SwitchAnswer *answer;
		struct growth_copy asked;

		if (task_sleep(POLL_MS) != CODE_OK)
			return err_set(err, CODE_CANCELLED, "this node is stopping");
		asked = (struct growth_copy){ r->copy.here, r->copy.attempt };
		if (ask_switched(r, founder, &answer, arena, err) != CODE_OK)
			continue;
		switch (growth_judge(asked, (struct growth_copy){ r->copy.here, r->copy.attempt }, answer)) {
		case GROWTH_GO_ON:
			break;
		case GROWTH_SWITCHED:
			return become_voter(r, answer, err);
		case GROWTH_ELSEWHERE:
			return CODE_OK;
		case GROWTH_DISCARD:
			r->copy.here = false;
		}
	}
}

/* --- copies that come --- */

enum code copy_begin(void *ctx, struct link_copy_in *copy, int *fd, struct err *err)
{
	struct replica *r = ctx;
	OWN_STRUCT(arena) arena = arena_new();
	const char *path = copy_in_path(r, arena);

	(void)copy;
	if (r->copy.coming)
		return err_set(err, CODE_UNAVAILABLE, "another copy is on its way");
	*fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (*fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	r->copy.here = false;
	r->copy.coming = true;
	return CODE_OK;
}

enum code copy_end(void *ctx, struct link_copy_in *copy, enum code code, const uint8_t sha256[32] __attribute__((unused)),
		   struct err *err)
{
	struct replica *r = ctx;
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__CopyAbout *about;

	r->copy.coming = false;
	if (code != CODE_OK)
		return CODE_OK;
	about = message_unpack(&pb__copy_about__descriptor, copy->about, arena);
	if (about == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "a copy that does not say where it stands");
	TRY(triple_from_proto(about->triple, &r->copy.triple, err));
	if (about->grows) {
		if (r->core != NULL || r->place.joined != 2)
			return err_set(err, CODE_FAILED_PRECONDITION, "this node does not wait for a founder's copy");
		TRY(replica_take_copy(r, err));
		r->copy.attempt = about->attempt;
	}
	r->copy.here = true;
	return CODE_OK;
}

bool copy_ready(void *ctx, const struct core_triple *state)
{
	struct replica *r = ctx;

	return r->copy.here && r->copy.triple.index == state->index && r->copy.triple.term == state->term;
}

/* Nobody but us has the state file open: not when the API is served. Then the next start takes the copy over. */
enum code replica_take_copy(struct replica *r, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();

	if (r->serving) {
		generations_install(r->generations, copy_in_path(r, arena), r->copy.triple.index);
		log_fatal("This node was too far behind and has taken a copy of the state: it must be started again");
	}
	if (r->pipeline_runs)
		hold_store(r);
	reader_close(TAKE(r->reader));
	checkpointer_close(TAKE(r->checkpointer));
	store_close(TAKE(r->store));
	generations_install(r->generations, copy_in_path(r, arena), r->copy.triple.index);
	free(r->state_path);
	r->state_path = xstrdup(generations_path(r->generations));
	r->copy.here = false;
	TRY(store_open(r->state_path, r->trust_domain, &r->store, err));
	TRY(checkpointer_open(r->state_path, &r->checkpointer, err));
	pthread_mutex_lock(&r->lock);
	pipeline_note(r);
	pthread_mutex_unlock(&r->lock);
	TRY(pipeline_triple(r->store, &r->triple, err));
	if (r->pipeline_runs)
		release_store(r);
	return CODE_OK;
}

static void installed(struct message *message);

struct install {
	struct message message;
	struct replica *replica;
	struct core_triple state;
};

static void install(struct message *message)
{
	struct install *install = LIST_ITEM(message, struct install, message);
	struct replica *r = install->replica;
	struct err err = { 0 };

	if (replica_take_copy(r, &err) != CODE_OK)
		replica_fail("A copy of the state cannot be taken over, this server stops", &err);
	replica_log_reset(r, install->state.index, install->state.term);
	install->message.deliver = installed; /* after the reset: completions come in order */
	replica_after_log(r, &install->message);
}

static void installed(struct message *message)
{
	struct install *install = LIST_ITEM(message, struct install, message);
	struct replica *r = install->replica;

	if (r->core != NULL) {
		replica_tick(r);
		core_installed(r->core);
		cluster_reload(r);
	}
	free(install);
}

void copy_install(void *ctx, const struct core_triple *state)
{
	struct replica *r = ctx;
	struct install *work = xcalloc(1, sizeof *work);

	work->message.deliver = install;
	work->replica = r;
	work->state = *state;
	loop_post(r->loop, &work->message);
}

/* --- copies to members that lag too far: the leader's --- */

struct outgoing {
	uv_work_t work;
	struct replica *replica;
	uint64_t peer;
	char path[4096];
	struct arena *arena;
	struct store_triple triple;
	enum code code;
	struct err err;
};

static void make_copy(uv_work_t *work)
{
	struct outgoing *out = work->data;

	out->code = store_copy(out->replica->state_path, out->path, STORE_COPY_WAL_MAX, go_on, out->replica, out->arena, &out->triple,
			       &out->err);
}

static void end_outgoing(struct outgoing *out)
{
	out->replica->copying_to &= ~(1ull << out->peer % 64);
	unlink(out->path);
	arena_free(out->arena);
	free(out);
}

static void send_copy(void *arg)
{
	struct outgoing *out = arg;
	struct replica *r = out->replica;
	struct core_triple triple = { .index = out->triple.index, .term = out->triple.term, .conf_index = out->triple.conf_index };
	Pb__CopyAbout about = PB__COPY_ABOUT__INIT;
	OWN_BUF conf = { 0 };
	Pb__Triple words;
	struct err err = { 0 };
	enum code rc = conf_decode(out->triple.conf.data, out->triple.conf.len, &triple.conf, &err);

	if (rc == CODE_OK) {
		triple_to_proto(&triple, &words, &conf);
		about.triple = &words;
		rc = send_file(r, out->peer, out->path, &about, &err);
	}
	if (rc != CODE_OK) {
		log_warn("A copy of the state could not be sent", KV("subsystem_name", "raft"), KV_NUM("member", (int64_t)out->peer),
			 KV("error", err.text));
	} else if (r->core != NULL) {
		log_info("A copy of the state was sent", KV("subsystem_name", "raft"), KV_NUM("member", (int64_t)out->peer),
			 KV_NUM("index", (int64_t)triple.index));
		replica_tick(r);
		core_copy_sent(r->core, out->peer, &triple);
	}
	end_outgoing(out);
}

static void copy_made(uv_work_t *work, int status __attribute__((unused)))
{
	struct outgoing *out = work->data;

	if (out->code == CODE_OK) {
		task_spawn(out->replica->loop, "send a copy", send_copy, out);
		return;
	}
	log_warn("A copy of the state could not be made", KV("subsystem_name", "raft"), KV("error", out->err.text));
	end_outgoing(out);
}

void copy_send(struct replica *r, uint64_t peer, uint64_t at_least __attribute__((unused)))
{
	struct outgoing *out;
	char name[32];

	if (r->links == NULL || (r->copying_to & 1ull << peer % 64) != 0)
		return;
	r->copying_to |= 1ull << peer % 64;
	out = xcalloc(1, sizeof *out);
	snprintf(name, sizeof name, "copy-%llu.db", (unsigned long long)peer);
	path_in(r, name, out->path);
	out->work.data = out;
	out->replica = r;
	out->peer = peer;
	out->arena = arena_new();
	if (uv_queue_work(loop_uv(r->loop), &out->work, make_copy, copy_made) != 0)
		end_outgoing(out);
}
