/* SPDX-License-Identifier: Apache-2.0 */
/* Who is a member. The table stands in the state; the core's configuration follows it: on the leader a task compares the two and
 * makes one change at a time (a row without a server: add, then promote; a removed row: take it out). Everything on the raft
 * loop, what waits in tasks of it. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/rand.h"
#include "raft/join_token.h"
#include "store/codec.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANGE_AGAIN_MS = 200, PROPOSE_MS = 30 * 1000, ANSWER_MS = 20 * 1000, DRAIN_MS = 10 };

const Pb__Member *cluster_member(const struct replica *r, uint64_t id)
{
	for (size_t i = 0; i < r->n_members; i++)
		if (r->members[i]->id == id)
			return r->members[i];
	return NULL;
}

bool cluster_settled(const struct replica *r, const struct conf *conf)
{
	const Pb__Member *self = cluster_member(r, r->id);

	return self != NULL && (self->signer || conf_is_voter(conf, r->id));
}

static const Pb__Member *member_by_name(const struct replica *r, const char *name)
{
	for (size_t i = 0; i < r->n_members; i++)
		if (!r->members[i]->removed && strcmp(r->members[i]->name, name) == 0)
			return r->members[i];
	return NULL;
}

/* --- the table, and what the links know of it --- */

static void tell_links(struct replica *r)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct link_member *rows = arena_zalloc(arena, (r->n_members + 1) * sizeof *rows);
	struct link_self self = {
		.cluster_id = r->place.cluster_id,
		.trust_domain = r->trust_domain,
		.node_id = r->node_id,
		.name = r->cluster->name,
		.epoch = r->place.epoch,
		.starts = r->vote_state.starts,
		.address = r->cluster->advertise,
		.api_address = r->cluster->api_advertise,
		.software = VERSION,
	};

	memcpy(self.boot, r->link_boot, sizeof self.boot);
	for (size_t i = 0; i < r->n_members; i++) {
		const Pb__Member *from = r->members[i];
		struct link_member *to = &rows[i];

		*to = (struct link_member){
			.id = from->id, .name = from->name, .node_id = from->node_id, .address = from->address, .removed = from->removed
		};
		for (size_t p = 0; p < from->n_pins && to->n_pins < 2; p++)
			if (from->pins[p].len == PIN_LEN)
				memcpy(to->pins[to->n_pins++].bytes, from->pins[p].data, PIN_LEN);
	}
	link_set_self(r->links, &self);
	link_set_members(r->links, rows, r->n_members);
}

static enum code read_members(struct replica *r, struct arena *arena, Pb__Member ***members, size_t *n, struct err *err)
{
	OWN_STRUCT(view) view = NULL;

	TRY(view_open(r->reader, &view, err));
	return view_members(view, arena, members, n, err);
}

/* Others copy them out under the lock. */
static void take_members(struct replica *r, struct arena *arena, Pb__Member **members, size_t n)
{
	struct arena *former;

	pthread_mutex_lock(&r->lock);
	former = r->members_arena;
	r->members_arena = arena;
	r->members = members;
	r->n_members = n;
	pthread_mutex_unlock(&r->lock);
	arena_free(former);
}

void cluster_reload(struct replica *r)
{
	struct arena *arena = arena_new();
	struct err err = { 0 };
	Pb__Member **members;
	uint64_t removed[64];
	size_t n, n_removed = 0;

	if (r->cluster == NULL) {
		arena_free(arena);
		return;
	}
	if (r->reader == NULL && reader_open(r->state_path, &r->reader, &err) != CODE_OK)
		replica_fail("State cannot be read, this server stops", &err);
	if (read_members(r, arena, &members, &n, &err) != CODE_OK)
		replica_fail("State cannot be read, this server stops", &err);
	if (n == 0) { /* a joiner without a state knows them from its join */
		arena_free(arena);
		return;
	}
	take_members(r, arena, members, n);
	for (size_t i = 0; i < n && n_removed < 64; i++)
		if (members[i]->removed)
			removed[n_removed++] = members[i]->id;
	if (r->core != NULL)
		core_set_removed(r->core, removed, n_removed);
	tell_links(r);
	if (r->reconciler != NULL && !r->reconcile.done)
		wait_done(&r->reconcile);
}

static void reload(struct message *message)
{
	struct replica *r = LIST_ITEM(message, struct replica, members_message);

	pthread_mutex_lock(&r->lock);
	r->members_posted = false;
	pthread_mutex_unlock(&r->lock);
	cluster_reload(r);
}

void cluster_members_changed(struct replica *r)
{
	if (r->members_posted || r->cluster == NULL)
		return;
	r->members_posted = true;
	r->members_message.deliver = reload;
	loop_post(r->loop, &r->members_message);
}

/* --- commands from a task of this loop --- */

static enum code carry_out(struct replica *r, Pb__Command *command, struct arena *arena, Pb__Outcome **out, struct err *err)
{
	TRY(propose(r, command, clock_mono_ms() + PROPOSE_MS, arena, out, err));
	if ((*out)->code != CODE_OK)
		return err_set(err, (enum code)(*out)->code, "%s", (*out)->message);
	return CODE_OK;
}

static void self_row(struct replica *r, Pb__Member *out, ProtobufCBinaryData *pin)
{
	pb__member__init(out);
	*pin = (ProtobufCBinaryData){ PIN_LEN, (uint8_t *)peer_key_pin(r->key)->bytes };
	out->id = r->id;
	out->name = r->cluster->name;
	out->node_id = r->node_id;
	out->address = r->cluster->advertise;
	out->api_address = r->cluster->api_advertise;
	out->n_pins = 1;
	out->pins = pin;
	out->starts = r->vote_state.starts;
	out->boot = (ProtobufCBinaryData){ sizeof r->link_boot, r->link_boot };
	out->software = VERSION;
}

/* The founder's first word; a member's at each start, when something about it is new. */
static void introduce(void *arg)
{
	struct replica *r = arg;
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Command command = PB__COMMAND__INIT;
	Pb__ClusterFound found = PB__CLUSTER_FOUND__INIT;
	Pb__MemberPut put = PB__MEMBER_PUT__INIT;
	Pb__Member self;
	ProtobufCBinaryData pin;
	Pb__Outcome *out;
	struct err err = { 0 };
	const Pb__Member *known = cluster_member(r, r->id);

	self_row(r, &self, &pin);
	if (known == NULL) {
		found.cluster_id = r->place.cluster_id;
		found.member = &self;
		command.kind_case = PB__COMMAND__KIND_CLUSTER_FOUND;
		command.cluster_found = &found;
	} else {
		self.signer = known->signer;
		put.member = &self;
		command.kind_case = PB__COMMAND__KIND_MEMBER_PUT;
		command.member_put = &put;
	}
	while (carry_out(r, &command, arena, &out, &err) != CODE_OK) {
		if (err.code == CODE_ALREADY_EXISTS && known != NULL)
			log_fatal("This node cannot be a member", KV("error", err.text));
		if (err.code == CODE_CANCELLED || err.code == CODE_ALREADY_EXISTS || task_sleep(1000) != CODE_OK)
			return;
	}
}

/* --- the reconciler: the leader's --- */

struct change {
	struct core_change core;
	struct replica *replica;
	struct wait wait;
	enum code code;
	char why[256];
};

static void changed(struct core_change *core, enum code code, const char *why)
{
	struct change *change = LIST_ITEM(core, struct change, core);

	change->code = code;
	snprintf(change->why, sizeof change->why, "%s", why == NULL ? "" : why);
	wait_done(&change->wait);
}

/* Waits without a deadline: the core tells the end of each change, also when leadership is lost. */
static enum code make_change(struct replica *r, enum core_change_kind kind, const Pb__Member *member)
{
	struct change *change = xcalloc(1, sizeof *change);
	struct err err = { 0 };
	char address[32], name[LINK_NAME_MAX + 1];
	enum code rc;

	snprintf(address, sizeof address, "%llu", (unsigned long long)member->id);
	snprintf(name, sizeof name, "%s", member->name); /* the table may be read anew while this waits */
	change->core = (struct core_change){ .kind = kind, .id = member->id, .address = address, .done = changed };
	replica_tick(r);
	rc = core_change(r->core, &change->core, &err);
	if (rc == CODE_OK) {
		while (task_wait(&change->wait, clock_mono_ms() + PROPOSE_MS) == CODE_DEADLINE_EXCEEDED)
			;
		if (!change->wait.done)
			return CODE_CANCELLED; /* the process ends: the struct stays the core's */
		rc = change->code;
		snprintf(err.text, sizeof err.text, "%s", change->why);
	}
	if (rc == CODE_OK)
		log_info("Cluster has changed", KV("subsystem_name", "raft"), KV("member", name),
			 KV("change", kind == CORE_ADD ? "added" : kind == CORE_PROMOTE ? "promoted" : kind == CORE_REMOVE ? "removed" : "demoted"));
	else
		log_debug("Cluster cannot change yet", KV("subsystem_name", "raft"), KV("member", name), KV("error", err.text));
	free(change);
	return rc;
}

/* One step towards the table. True: something was done, look again at once. */
static bool reconcile_step(struct replica *r)
{
	struct core_status status;

	core_status(r->core, &status);
	for (size_t i = 0; i < r->n_members; i++) {
		Pb__Member *member = r->members[i];
		const struct conf_server *server = conf_get(&status.conf, member->id);

		if (member->removed && server != NULL && member->id != r->id)
			return make_change(r, CORE_REMOVE, member) == CODE_OK;
		if (member->removed || member->id == r->id)
			continue;
		if (server == NULL && conf_voters(&status.conf) == 1) {
			struct err err = { 0 };
			int64_t id = (int64_t)member->id;

			if (growth_run(r, member->id, &err) == CODE_OK)
				return true;
			log_warn("Second member cannot be taken in yet", KV("subsystem_name", "raft"), KV_NUM("member", id),
				 KV("error", err.text));
			return false;
		}
		if (server == NULL)
			return make_change(r, CORE_ADD, member) == CODE_OK;
		if (server->role != CONF_VOTER && !member->signer)
			return make_change(r, CORE_PROMOTE, member) == CODE_OK;
	}
	return false;
}

static void reconcile(void *arg)
{
	struct replica *r = arg;

	for (;;) {
		enum code rc = CODE_OK;

		while (r->core != NULL && r->role.role == CORE_LEADER && r->role.ready && rc == CODE_OK && reconcile_step(r))
			;
		rc = task_wait(&r->reconcile, clock_mono_ms() + CHANGE_AGAIN_MS);
		r->reconcile.done = false;
		if (rc == CODE_CANCELLED)
			break;
	}
	r->reconciler = NULL;
}

void cluster_role_changed(struct replica *r)
{
	if (r->reconciler != NULL && !r->reconcile.done)
		wait_done(&r->reconcile);
}

void cluster_start(struct replica *r)
{
	if (r->cluster == NULL)
		return;
	cluster_reload(r);
	tell_links(r);
	r->reconciler = task_spawn(r->loop, "reconcile members", reconcile, r);
	task_spawn(r->loop, "introduce this node", introduce, r);
}

/* --- requests of other nodes, and the same for callers of this node --- */

static enum code redeem(struct replica *r, const Pb__ClusterJoinRequest *in, const struct link_peer *joining, struct arena *arena,
			struct buf *body, struct err *err)
{
	Pb__JoinRedeem redeem = PB__JOIN_REDEEM__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__ClusterJoinAnswer answer = PB__CLUSTER_JOIN_ANSWER__INIT;
	ProtobufCBinaryData pin = { PIN_LEN, (uint8_t *)joining->pin.bytes };
	struct core_status status;
	uint8_t hash[32];
	Pb__Outcome *out;

	if (in == NULL || in->member == NULL || in->secret.len != JOIN_SECRET_LEN)
		return err_set(err, CODE_INVALID_ARGUMENT, "the join request makes no sense");
	join_token_hash(in->secret.data, hash);
	in->member->n_pins = 1; /* the key that it has shown, whatever it says */
	in->member->pins = &pin;
	redeem.hash = (ProtobufCBinaryData){ sizeof hash, hash };
	redeem.member = in->member;
	command.kind_case = PB__COMMAND__KIND_JOIN_REDEEM;
	command.join_redeem = &redeem;
	TRY(carry_out(r, &command, arena, &out, err));
	cluster_reload(r);
	core_status(r->core, &status);
	answer.cluster_id = r->place.cluster_id;
	answer.epoch = r->place.epoch;
	answer.id = out->member->id;
	answer.n_members = r->n_members;
	answer.members = r->members;
	answer.grows = conf_voters(&status.conf) == 1;
	message_pack(&answer, body);
	return CODE_OK;
}

static enum code would_lose_quorum(struct replica *r, const Pb__Member *member, struct err *err)
{
	struct core_status status;
	unsigned voters, up = member->id != r->id;

	core_status(r->core, &status);
	voters = conf_voters(&status.conf);
	if (!conf_is_voter(&status.conf, member->id))
		return CODE_OK;
	if (voters <= 2)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "cannot remove '%s': a cluster of two voters cannot go back to one (availability would hang on a single node's "
			       "log); add a third member first, or use `cluster recover`",
			       member->name);
	for (unsigned i = 0; i < status.n_peers; i++) {
		struct link_status link;

		if (status.peers[i].id != member->id && conf_is_voter(&status.conf, status.peers[i].id) &&
		    link_status(r->links, status.peers[i].id, &link) && link.up)
			up++;
	}
	if (up < (voters - 1) / 2 + 1)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "cannot remove '%s': %u of the %u voters that would be left are reachable, which is no quorum; bring members back "
			       "first",
			       member->name, up, voters - 1);
	return CODE_OK;
}

static enum code remove_member(struct replica *r, const char *name, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__Member *member = member_by_name(r, name);
	Pb__MemberRemove remove = PB__MEMBER_REMOVE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct core_status status;
	Pb__Outcome *out;
	uint64_t id;

	if (r->role.role != CORE_LEADER || !r->role.ready)
		return err_set(err, CODE_UNAVAILABLE, "this node does not lead");
	if (member == NULL)
		return err_set(err, CODE_NOT_FOUND, "no member is named '%s'", name);
	id = member->id;
	TRY(would_lose_quorum(r, member, err));
	if (id == r->id)
		return err_set(err, CODE_FAILED_PRECONDITION, "'%s' leads: transfer leadership first (`cluster transfer`)", name);
	remove.id = id;
	command.kind_case = PB__COMMAND__KIND_MEMBER_REMOVE;
	command.member_remove = &remove;
	TRY(carry_out(r, &command, arena, &out, err));
	for (int64_t end_ms = clock_mono_ms() + PROPOSE_MS; clock_mono_ms() < end_ms;) {
		core_status(r->core, &status);
		if (conf_get(&status.conf, id) == NULL && status.conf_committed)
			return CODE_OK;
		TRY(task_sleep(DRAIN_MS));
	}
	return err_set(err, CODE_UNAVAILABLE, "'%s' is marked as removed, and the change of the quorum has not been committed yet", name);
}

struct transfer {
	struct core_transfer core;
	struct wait wait;
	enum code code;
	char why[256];
};

static void transferred(struct core_transfer *core, enum code code, const char *why)
{
	struct transfer *transfer = LIST_ITEM(core, struct transfer, core);

	transfer->code = code;
	snprintf(transfer->why, sizeof transfer->why, "%s", why == NULL ? "" : why);
	wait_done(&transfer->wait);
}

/* The voter that is furthest of those that answer; 0: none does. */
static uint64_t successor(struct replica *r)
{
	struct core_status status;
	uint64_t id = 0, match = 0;

	core_status(r->core, &status);
	for (unsigned i = 0; i < status.n_peers; i++) {
		struct link_status link;

		if (!conf_is_voter(&status.conf, status.peers[i].id) || !link_status(r->links, status.peers[i].id, &link) || !link.up)
			continue;
		if (id == 0 || status.peers[i].match > match) {
			id = status.peers[i].id;
			match = status.peers[i].match;
		}
	}
	return id;
}

static enum code transfer_to(struct replica *r, const char *name, struct err *err)
{
	const Pb__Member *member = name[0] == '\0' ? NULL : member_by_name(r, name);
	uint64_t to = member == NULL ? successor(r) : member->id;
	struct transfer *transfer;
	enum code rc;

	if (r->role.role != CORE_LEADER)
		return err_set(err, CODE_UNAVAILABLE, "this node does not lead");
	if (name[0] != '\0' && member == NULL)
		return err_set(err, CODE_NOT_FOUND, "no member is named '%s'", name);
	if (to == r->id)
		return CODE_OK;
	if (to == 0)
		return err_set(err, CODE_FAILED_PRECONDITION, "no other voter is reachable");
	transfer = xcalloc(1, sizeof *transfer);
	transfer->core = (struct core_transfer){ .id = to, .done = transferred };
	replica_tick(r);
	rc = core_transfer(r->core, &transfer->core, err);
	if (rc == CODE_OK) {
		while (task_wait(&transfer->wait, clock_mono_ms() + PROPOSE_MS) == CODE_DEADLINE_EXCEEDED)
			;
		if (!transfer->wait.done)
			return CODE_CANCELLED;
		rc = transfer->code;
		if (rc != CODE_OK)
			err_set(err, rc, "%s", transfer->why);
	}
	free(transfer);
	return rc;
}

/* The end of a leader that is told to stop: with a successor named, nobody waits for an election. */
static void hand_over(void *arg)
{
	struct replica *r = arg;
	struct core_status status;
	struct err err = { 0 };

	if (r->core != NULL) /* else the start has failed */
		core_status(r->core, &status);
	if (r->core != NULL && r->role.role == CORE_LEADER && conf_voters(&status.conf) > 1 && transfer_to(r, "", &err) != CODE_OK)
		log_info("Leadership was not handed over before the end", KV("subsystem_name", "raft"), KV("error", err.text));
	pthread_mutex_lock(&r->lock);
	r->handed_over = true;
	pthread_cond_broadcast(&r->news);
	pthread_mutex_unlock(&r->lock);
}

void cluster_hand_over(struct message *message)
{
	struct replica *r = LIST_ITEM(message, struct replica, hand_over_message);

	task_spawn(r->loop, "hand over leadership", hand_over, r);
}

/* A request as a task of this loop. */
struct job {
	struct replica *replica;
	struct link_request *request;
};

static enum code do_job(struct replica *r, struct link_request *request, struct arena *arena, struct buf *body, struct err *err)
{
	if (r->core == NULL)
		return err_set(err, CODE_UNAVAILABLE, "this node has not started");
	if (request->method == METHOD_JOIN)
		return redeem(r, message_unpack(&pb__cluster_join_request__descriptor, request->body, arena), request->joining, arena, body,
			      err);
	if (request->method == METHOD_REMOVE) {
		const Pb__RemoveRequest *in = message_unpack(&pb__remove_request__descriptor, request->body, arena);

		return in == NULL ? err_set(err, CODE_INVALID_ARGUMENT, "the request makes no sense") : remove_member(r, in->name, err);
	} else {
		const Pb__TransferRequest *in = message_unpack(&pb__transfer_request__descriptor, request->body, arena);

		return in == NULL ? err_set(err, CODE_INVALID_ARGUMENT, "the request makes no sense") : transfer_to(r, in->name, err);
	}
}

static void run_job(void *arg)
{
	struct job *job = arg;
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF body = { 0 };
	struct err err = { 0 };
	enum code rc = do_job(job->replica, job->request, arena, &body, &err);

	link_answer(job->request, rc, (struct span){ body.data, body.len }, &err);
	free(job);
}

void cluster_answer(struct replica *r, struct link_request *request)
{
	struct job *job = xmalloc(sizeof *job);

	*job = (struct job){ r, request };
	task_spawn(r->loop, "answer a member", run_job, job);
}

/* --- from tasks of other loops --- */

struct errand {
	struct message there, back;
	struct replica *replica;
	struct loop *home;
	struct wait wait;
	_Atomic int refs;
	uint8_t method;
	char name[LINK_NAME_MAX + 1];
	enum code code;
	struct err err;
};

static void errand_unref(struct errand *errand)
{
	if (atomic_fetch_sub(&errand->refs, 1) == 1)
		free(errand);
}

static void errand_delivered(struct message *message)
{
	struct errand *errand = LIST_ITEM(message, struct errand, back);

	wait_done(&errand->wait);
	errand_unref(errand);
}

static enum code ask_leader(struct replica *r, struct errand *errand, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF body = { 0 };
	Pb__RemoveRequest request = PB__REMOVE_REQUEST__INIT; /* both requests have one name at number 1 */
	struct link_answer answer;

	if (r->role.leader == 0)
		return err_set(err, CODE_UNAVAILABLE, "no leader");
	if (r->role.leader == r->id)
		return errand->method == METHOD_REMOVE ? remove_member(r, errand->name, err) : transfer_to(r, errand->name, err);
	request.name = errand->name;
	message_pack(&request, &body);
	return link_ask(r->links, r->role.leader, errand->method, (struct span){ body.data, body.len }, clock_mono_ms() + ANSWER_MS, arena,
			&answer, err);
}

static void run_errand(void *arg)
{
	struct errand *errand = arg;

	errand->code = ask_leader(errand->replica, errand, &errand->err);
	errand->back.deliver = errand_delivered;
	loop_post(errand->home, &errand->back);
}

static void errand_arrived(struct message *message)
{
	struct errand *errand = LIST_ITEM(message, struct errand, there);

	task_spawn(errand->replica->loop, "errand", run_errand, errand);
}

static enum code run_on_loop(struct replica *r, uint8_t method, const char *name, int64_t deadline_ms, struct err *err)
{
	struct errand *errand;
	enum code rc;

	if (r->cluster == NULL)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "this server is no member of a cluster: its configuration has no cluster {} block");
	errand = xcalloc(1, sizeof *errand);
	errand->there.deliver = errand_arrived;
	errand->replica = r;
	errand->home = loop_self();
	errand->method = method;
	snprintf(errand->name, sizeof errand->name, "%s", name);
	atomic_init(&errand->refs, 2);
	loop_post(r->loop, &errand->there);
	rc = task_wait(&errand->wait, deadline_ms);
	if (rc == CODE_OK) {
		rc = errand->code;
		if (rc != CODE_OK)
			*err = errand->err;
	} else {
		err_set(err, rc, "outcome unknown: the deadline passed");
	}
	errand_unref(errand);
	return rc;
}

enum code replica_remove(struct replica *r, const char *name, int64_t deadline_ms, struct err *err)
{
	return run_on_loop(r, METHOD_REMOVE, name, deadline_ms, err);
}

enum code replica_transfer(struct replica *r, const char *name, int64_t deadline_ms, struct err *err)
{
	return run_on_loop(r, METHOD_TRANSFER, name == NULL ? "" : name, deadline_ms, err);
}

enum code replica_token(struct replica *r, int64_t ttl_s, uint32_t uses, bool signer, int64_t deadline_ms, struct arena *arena,
			const char **text, struct err *err)
{
	struct join_token token = { .cluster_id = r->place.cluster_id, .trust_domain = r->trust_domain };
	struct replica_cluster cluster;
	Pb__JoinCreate create = PB__JOIN_CREATE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	OWN_BUF out = { 0 };
	uint8_t hash[32];
	Pb__Outcome *outcome;

	if (r->cluster == NULL)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "this server is no member of a cluster: its configuration has no cluster {} block");
	for (;;) { /* a founder's own row is there soon after its start */
		TRY(replica_cluster(r, arena, &cluster, err));
		if (cluster.n > 0)
			break;
		if (clock_mono_ms() > deadline_ms)
			return err_set(err, CODE_UNAVAILABLE, "no leader has written the table of members yet");
		TRY(task_sleep(DRAIN_MS));
	}
	for (int self = 1; self >= 0; self--) /* this node's own address first */
		for (size_t i = 0; i < cluster.n && token.n_addresses < JOIN_ADDRESSES_MAX; i++)
			if (!cluster.members[i].removed && cluster.members[i].self == (self == 1)) {
				token.addresses[token.n_addresses++] = cluster.members[i].address;
				for (size_t p = 0; p < cluster.members[i].n_pins && token.n_pins < JOIN_PINS_MAX; p++)
					token.pins[token.n_pins++] = cluster.members[i].pins[p];
			}
	token.expires_at = clock_wall_s() + ttl_s;
	join_token_secret(&token);
	join_token_hash(token.secret, hash);
	create.hash = (ProtobufCBinaryData){ sizeof hash, hash };
	create.expires_at = token.expires_at;
	create.uses = uses;
	create.signer = signer;
	command.kind_case = PB__COMMAND__KIND_JOIN_CREATE;
	command.join_create = &create;
	TRY(propose(r, &command, deadline_ms, arena, &outcome, err));
	if (outcome->code != CODE_OK)
		return err_set(err, (enum code)outcome->code, "%s", outcome->message);
	join_token_encode(&token, &out);
	*text = arena_strdup(arena, buf_text(&out));
	return CODE_OK;
}

/* --- joining: in a task, before this node has a core --- */

static enum code take_answer(struct replica *r, struct span body, bool *grows, struct err *err)
{
	struct arena *arena = arena_new();
	const Pb__ClusterJoinAnswer *answer = message_unpack(&pb__cluster_join_answer__descriptor, body, arena);

	if (answer == NULL || answer->id == 0 || strlen(answer->cluster_id) >= sizeof r->place.cluster_id) {
		arena_free(arena);
		return err_set(err, CODE_INTERNAL, "the cluster's answer to the join makes no sense");
	}
	r->place.id = answer->id;
	r->place.epoch = answer->epoch;
	snprintf(r->place.cluster_id, sizeof r->place.cluster_id, "%s", answer->cluster_id);
	r->place.joined = answer->grows ? 2 : 1;
	*grows = answer->grows;
	r->id = answer->id;
	take_members(r, arena, answer->members, answer->n_members);
	return CODE_OK;
}

enum code cluster_join(struct replica *r, const char *text, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct join_token token;
	struct link_self self = { .cluster_id = "", .trust_domain = r->trust_domain, .node_id = r->node_id, .name = r->cluster->name,
				  .starts = r->vote_state.starts, .address = r->cluster->advertise,
				  .api_address = r->cluster->api_advertise, .software = VERSION };
	struct link_stranger stranger = { .method = METHOD_JOIN, .self = &self, .deadline_ms = clock_mono_ms() + PROPOSE_MS };
	Pb__ClusterJoinRequest request = PB__CLUSTER_JOIN_REQUEST__INIT;
	Pb__Member member;
	ProtobufCBinaryData pin;
	OWN_BUF body = { 0 };
	struct link_peer peer;
	struct link_answer answer;
	bool grows;

	TRY(join_token_decode(text, arena, &token, err));
	TRY(join_token_check(&token, r->trust_domain, clock_wall_s(), err));
	memcpy(self.boot, r->link_boot, sizeof self.boot);
	self_row(r, &member, &pin);
	member.id = 0;
	request.secret = (ProtobufCBinaryData){ sizeof token.secret, token.secret };
	request.member = &member;
	message_pack(&request, &body);
	stranger.addresses = token.addresses;
	stranger.n_addresses = token.n_addresses;
	stranger.pins = token.pins;
	stranger.n_pins = token.n_pins;
	stranger.body = (struct span){ body.data, body.len };
	TRY(link_join(r->links, &stranger, arena, &peer, &answer, err));
	TRY(take_answer(r, answer.body, &grows, err));
	tell_links(r);
	log_info("Joined the cluster", KV("subsystem_name", "raft"), KV("cluster_id", r->place.cluster_id), KV("name", r->cluster->name),
		 KV_NUM("member", (int64_t)r->id));
	return CODE_OK;
}
