/* SPDX-License-Identifier: Apache-2.0 */
/* Cluster: who is a member and how it is; join tokens, removal, leadership (contract cluster.md sections 2 to 4). Any
 * member answers for the whole cluster. */
#include "api/server.h"
#include "api/state.h"
#include "api/svc.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/task.h"
#include "cluster.pb-c.h"

#include <inttypes.h>
#include <string.h>

enum {
	TOKEN_TTL_S = 600,
	TOKEN_TTL_MAX_S = 7 * 24 * 3600,
	TOKEN_USES_MAX = 100,
	CALL_MS = 30 * 1000, /* of a call without a deadline */
	LAGGING = 1000,      /* entries */
	POLL_MS = 50,
	REPLY_MS = 200, /* kept of the deadline for the answer */
	BARRIER_MS = 10 * 1000
};

static int64_t deadline_of(const struct call *call)
{
	int64_t latest_ms = clock_mono_ms() + CALL_MS;

	return call->deadline_ms == INT64_MAX ? latest_ms : call->deadline_ms - REPLY_MS;
}

static enum code survey(struct call *call, struct replica_cluster *out)
{
	return replica_survey(call->server->replica, deadline_of(call), call->arena, out, call->err);
}

static const struct replica_member *member_of(const struct replica_cluster *cluster, uint64_t id)
{
	for (size_t i = 0; i < cluster->n; i++)
		if (cluster->members[i].id == id)
			return &cluster->members[i];
	return NULL;
}

static const char *leader_name(const struct replica_cluster *cluster)
{
	const struct replica_member *leader = cluster->leader == 0 ? NULL : member_of(cluster, cluster->leader);

	return leader == NULL ? "" : leader->name;
}

/* --- status --- */

static const char *role_of(const struct replica_member *member, const struct replica_view *view)
{
	if (member->leader)
		return "leader";
	if (member->signer)
		return "signer";
	if (!member->voter)
		return "learner";
	return member->self && view->candidate ? "candidate" : "follower";
}

/* The active authority stands in the member's journal. */
static enum code add_authority(struct call *call, struct view *view, const char *node_id, Pb__ClusterMember *out)
{
	Pb__Journal *journal;
	enum code rc = view_journal(view, node_id, call->arena, &journal, call->err);

	if (rc == CODE_NOT_FOUND)
		return CODE_OK; /* it has none yet */
	TRY(rc);
	for (size_t i = 0; i < journal->n_x509; i++) {
		if (journal->x509[i]->status != PB__JOURNAL__STATUS__ACTIVE)
			continue;
		out->x509_authority = journal->x509[i]->authority_id;
		out->x509_ca_expires_at = journal->x509[i]->not_after;
		out->x509_ca_issued_at = journal->x509[i]->issued_at;
	}
	return CODE_OK;
}

static Pb__ClusterMember *describe(struct call *call, const struct replica_cluster *cluster,
				   const struct replica_member *from, const struct replica_view *view)
{
	Pb__ClusterMember *out = pb_new(&pb__cluster_member__descriptor, call->arena);
	uint64_t newest = cluster->commit > cluster->applied ? cluster->commit : cluster->applied;

	out->id = from->id;
	out->name = from->name;
	out->role = role_of(from, view);
	out->voter = from->voter;
	out->peer_address = from->address;
	out->api_address = from->api_address;
	out->version = from->software;
	out->last_contact_ms = from->last_contact_ms;
	out->applied = from->answered ? from->applied : from->match;
	out->lag = newest > out->applied ? newest - out->applied : 0;
	out->disk_free_mb = from->disk_free_mb;
	out->clock_ahead_ms = from->clock_ahead_ms;
	out->state = from->removed ? "removed" : !from->up ? "unreachable" : out->lag > LAGGING ? "lagging" : "up";
	return out;
}

/* How long this node goes on signing without hearing a leader (availability.md V2). */
static int64_t budget_s(struct call *call, const struct replica_view *view)
{
	const struct server *server = call->server;

	return view->hears_leader ? server->config->cluster.max_staleness_s : state_budget_left_s(server->state);
}

enum code cluster_status(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	Pb__ClusterStatus *out = reply;
	struct replica_cluster cluster;
	struct replica_view now;
	OWN_STRUCT(view) view = NULL;

	TRY(survey(call, &cluster));
	replica_view(call->server->replica, &now);
	out->cluster_id = cluster.cluster_id;
	out->trust_domain = call->server->td;
	out->epoch = cluster.epoch;
	out->node = cluster.name;
	out->leader = leader_name(&cluster);
	out->term = cluster.term;
	out->quorum = cluster.quorum;
	out->voters = cluster.voters;
	out->survives = cluster.survives;
	out->revision = cluster.applied;
	out->signing_budget_s = budget_s(call, &now);
	out->members = arena_alloc(call->arena, (cluster.n + 1) * sizeof *out->members);
	TRY(call_view(call, &view));
	for (size_t i = 0; i < cluster.n; i++) {
		Pb__ClusterMember *member = describe(call, &cluster, &cluster.members[i], &now);

		TRY(add_authority(call, view, cluster.members[i].node_id, member));
		out->members[out->n_members++] = member;
	}
	return CODE_OK;
}

/* --- changes --- */

enum code cluster_token(struct call *call, const void *request, void *reply)
{
	const Pb__ClusterTokenRequest *in = request;
	int64_t ttl_s = in->ttl_s == 0 ? TOKEN_TTL_S : in->ttl_s;
	uint32_t uses = in->uses == 0 ? 1 : in->uses;
	Pb__ClusterTokenAnswer *out = reply;

	if (ttl_s < 0 || ttl_s > TOKEN_TTL_MAX_S)
		return err_set(call->err, CODE_INVALID_ARGUMENT,
			       "a join token lives from 1 s to %d s, not %" PRId64 " s", TOKEN_TTL_MAX_S, ttl_s);
	if (uses > TOKEN_USES_MAX)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "a join token has 1 to %d uses, not %" PRIu32,
			       TOKEN_USES_MAX, uses);
	out->expires_at = clock_wall_s() + ttl_s;
	TRY(replica_token(call->server->replica, ttl_s, uses, in->signer, deadline_of(call), call->arena, &out->token,
			  call->err));
	CALL_AUDIT_ADD(call, KV_NUM("ttl", ttl_s), KV_NUM("uses", (int64_t)uses));
	return CODE_OK;
}

/* Asked again for what is done already is fine: the first answer may have been lost. */
static enum code was_removed(struct call *call, const char *name, bool *gone)
{
	struct replica_cluster cluster;

	TRY(replica_cluster(call->server->replica, call->arena, &cluster, call->err));
	*gone = false;
	for (size_t i = 0; i < cluster.n; i++) {
		if (strcmp(cluster.members[i].name, name) != 0)
			continue;
		*gone = cluster.members[i].removed;
		if (!*gone)
			break;
	}
	return CODE_OK;
}

/* Leadership moves about while this is asked for, and a voter may be too slow to take over at the first try. */
static bool try_again(struct call *call, enum code rc, int64_t end_ms)
{
	return rc == CODE_UNAVAILABLE && clock_mono_ms() + POLL_MS < end_ms && task_sleep(POLL_MS) == CODE_OK &&
	       !atomic_load(&call->server->stopping);
}

/* This node may hear of the change that it asked for a little after the leader has made it. */
static bool still_votes(struct call *call, const char *name)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct replica_cluster cluster;

	if (replica_cluster(call->server->replica, arena, &cluster, NULL) != CODE_OK)
		return false;
	for (size_t i = 0; i < cluster.n; i++)
		if (strcmp(cluster.members[i].name, name) == 0 && cluster.members[i].voter &&
		    !cluster.members[i].self)
			return true;
	return false;
}

static enum code remove_member(struct call *call, const char *name, Pb__ClusterRemoved *out)
{
	int64_t end_ms = clock_mono_ms() + BARRIER_MS;
	struct replica_cluster cluster;
	bool gone = false;
	enum code rc;

	do {
		rc = replica_remove(call->server->replica, name, deadline_of(call), call->err);
	} while (try_again(call, rc, end_ms));
	if (rc == CODE_NOT_FOUND && was_removed(call, name, &gone) == CODE_OK && gone)
		rc = CODE_OK;
	if (rc == CODE_NOT_FOUND)
		return err_set(call->err, rc, "no member is named '%s'", name);
	TRY(rc);
	CALL_AUDIT_ADD(call, KV("member", name));
	while (still_votes(call, name) && clock_mono_ms() < end_ms)
		TRY(task_sleep(POLL_MS));
	TRY(replica_cluster(call->server->replica, call->arena, &cluster, call->err));
	out->name = name;
	out->voters = cluster.voters;
	out->survives = cluster.survives;
	return CODE_OK;
}

enum code cluster_remove(struct call *call, const void *request, void *reply)
{
	const Pb__ClusterRemoveRequest *in = request;

	if (in->name[0] == '\0')
		return err_set(call->err, CODE_INVALID_ARGUMENT, "the name of a member must be given");
	return remove_member(call, in->name, reply);
}

/* Waits until some node leads, and can say so: a round of its own has been confirmed. */
static enum code confirmed(struct call *call, struct replica_cluster *cluster)
{
	int64_t latest_ms = clock_mono_ms() + BARRIER_MS, deadline_ms = deadline_of(call);

	TRY(replica_barrier(call->server->replica, deadline_ms < latest_ms ? deadline_ms : latest_ms, call->err));
	return replica_cluster(call->server->replica, call->arena, cluster, call->err);
}

static enum code transfer(struct call *call, const char *name, Pb__ClusterTransferred *out)
{
	int64_t begin_ms = clock_mono_ms(), end_ms = begin_ms + BARRIER_MS;
	struct replica_cluster cluster;
	enum code rc;

	if (deadline_of(call) < end_ms)
		end_ms = deadline_of(call);
	do {
		begin_ms = clock_mono_ms();
		rc = replica_transfer(call->server->replica, name[0] == '\0' ? NULL : name, end_ms, call->err);
		if (rc != CODE_OK && rc != CODE_UNKNOWN)
			continue;
		TRY(confirmed(call, &cluster));
		if (name[0] != '\0' && strcmp(leader_name(&cluster), name) != 0)
			rc = err_set(call->err, CODE_UNAVAILABLE, "'%s' leads, not '%s'", leader_name(&cluster), name);
		else
			rc = CODE_OK;
	} while (try_again(call, rc, end_ms));
	TRY(rc);
	out->leader = leader_name(&cluster);
	out->term = cluster.term;
	out->stalled_ms = clock_mono_ms() - begin_ms;
	return CODE_OK;
}

enum code cluster_transfer(struct call *call, const void *request, void *reply)
{
	const Pb__ClusterTransferRequest *in = request;

	TRY(transfer(call, in->name, reply));
	CALL_AUDIT_ADD(call, KV("member", ((Pb__ClusterTransferred *)reply)->leader));
	return CODE_OK;
}

/* A leader hands over first. */
enum code cluster_leave(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	Pb__ClusterTransferred ignored = PB__CLUSTER_TRANSFERRED__INIT;
	struct replica_view view;
	struct replica_cluster cluster;

	TRY(replica_cluster(call->server->replica, call->arena, &cluster, call->err));
	replica_view(call->server->replica, &view);
	if (view.is_leader) {
		if (cluster.voters <= 2)
			return err_set(
				call->err, CODE_FAILED_PRECONDITION,
				"'%s' cannot leave a cluster of %u voters: a cluster of two voters cannot go back to "
				"one; add a member first",
				cluster.name, cluster.voters);
		TRY(transfer(call, "", &ignored));
	}
	return remove_member(call, cluster.name, reply);
}

/* --- waiting --- */

/* What is missing, in words; NULL: nothing. */
static const char *missing(struct call *call, const Pb__ClusterWaitRequest *in, const struct replica_cluster *cluster)
{
	uint32_t up = 0;

	if (in->leader && cluster->leader == 0)
		return arena_printf(call->arena, "'%s' hears no leader", cluster->name);
	if (cluster->applied < in->revision)
		return arena_printf(call->arena, "node '%s' has not reached revision %" PRIu64 " (at %" PRIu64 ")",
				    cluster->name, in->revision, cluster->applied);
	for (size_t i = 0; i < cluster->n; i++) {
		const struct replica_member *member = &cluster->members[i];

		if (member->removed)
			continue;
		up += member->up && member->answered;
		if (in->all && member->up && (!member->answered || member->applied < in->revision))
			return arena_printf(
				call->arena, "node '%s' has not reached revision %" PRIu64 " (at %" PRIu64 ")",
				member->name, in->revision, member->answered ? member->applied : member->match);
	}
	if (up < in->members)
		return arena_printf(call->arena, "%" PRIu32 " of %" PRIu32 " members are up, as '%s' sees it", up,
				    in->members, cluster->name);
	return NULL;
}

enum code cluster_wait(struct call *call, const void *request, void *reply)
{
	Pb__ClusterWaitRequest in = *(const Pb__ClusterWaitRequest *)request;
	int64_t give_up_ms = deadline_of(call);
	Pb__ClusterWaited *out = reply;

	if (in.all && in.revision == 0) { /* as far as this node is now */
		struct replica_view view;

		replica_view(call->server->replica, &view);
		in.revision = view.applied;
	}
	for (;;) {
		OWN_STRUCT(arena) arena = arena_new();
		struct replica_cluster cluster;
		const char *what;

		TRY(replica_survey(call->server->replica, give_up_ms, arena, &cluster, call->err));
		what = missing(call, &in, &cluster);
		out->revision = cluster.applied;
		if (what == NULL)
			return CODE_OK;
		if (clock_mono_ms() + POLL_MS >= give_up_ms)
			return err_set(call->err, CODE_UNAVAILABLE, "%s", what);
		if (task_sleep(POLL_MS) != CODE_OK)
			return err_set(call->err, CODE_CANCELLED, "context canceled");
	}
}
