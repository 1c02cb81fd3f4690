/* SPDX-License-Identifier: Apache-2.0 */
/* What others may know of the replica: copied out by the raft loop as it goes round, read under the lock by anybody. */
#include "raft/replica_inside.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PUBLISH_MS = 20, CAUGHT_UP_MS = 10 * 1000 };

static int64_t heard_from(struct replica *r, uint64_t id)
{
	struct link_status link;

	return r->links != NULL && link_status(r->links, id, &link) ? link.last_heard_ms : 0;
}

void status_publish(struct replica *r, bool now)
{
	int64_t now_ms = clock_mono_ms();
	struct core_status status;
	struct replica_view view = { .alone = r->cluster == NULL, .self = r->id };

	if (r->core == NULL || (!now && now_ms - r->published_ms < PUBLISH_MS))
		return;
	r->publish_now = false;
	core_status(r->core, &status);
	view.hears_leader = status.now.leader != 0;
	view.is_leader = status.now.role == CORE_LEADER;
	view.candidate = status.now.role == CORE_CANDIDATE;
	view.ready = status.now.ready;
	view.term = status.now.term;
	view.leader = status.now.leader;
	view.commit = status.commit;
	view.leader_heard_ms = view.is_leader ? now_ms : view.hears_leader ? heard_from(r, view.leader) : r->view.leader_heard_ms;
	pthread_mutex_lock(&r->lock);
	r->published_ms = now_ms;
	r->published = status;
	for (unsigned i = 0; i < status.n_peers; i++) {
		struct link_status link = { 0 };

		if (r->links != NULL)
			link_status(r->links, status.peers[i].id, &link);
		r->published_links[i].id = status.peers[i].id;
		r->published_links[i].up = link.up;
		r->published_links[i].last_heard_ms = link.last_heard_ms;
		snprintf(r->published_links[i].why, sizeof r->published_links[i].why, "%.63s", link.up ? "" : link.why);
	}
	if (r->status.applied >= status.commit)
		r->caught_up_ms = now_ms;
	view.applied = r->status.applied;
	view.caught_up = now_ms - r->caught_up_ms < CAUGHT_UP_MS;
	r->view = view;
	pthread_mutex_unlock(&r->lock);
}

void replica_view(struct replica *r, struct replica_view *out)
{
	pthread_mutex_lock(&r->lock);
	*out = r->view;
	out->applied = r->status.applied;
	pthread_mutex_unlock(&r->lock);
}

static void copy_member(struct replica *r, const Pb__Member *from, int64_t now_ms, struct arena *arena, struct replica_member *to)
{
	struct pin *pins = arena_zalloc(arena, (from->n_pins + 1) * sizeof *pins);

	to->id = from->id;
	to->name = arena_strdup(arena, from->name);
	to->address = arena_strdup(arena, from->address);
	to->api_address = arena_strdup(arena, from->api_address);
	to->software = arena_strdup(arena, from->software);
	to->node_id = arena_strdup(arena, from->node_id);
	to->self = from->id == r->id;
	to->leader = from->id == r->published.now.leader;
	to->voter = conf_is_voter(&r->published.conf, from->id);
	to->signer = from->signer;
	to->removed = from->removed;
	to->up = to->self;
	to->last_contact_ms = to->self ? 0 : -1;
	to->match = to->self ? r->status.applied : 0;
	for (size_t i = 0; i < from->n_pins; i++)
		if (from->pins[i].len == PIN_LEN)
			memcpy(pins[to->n_pins++].bytes, from->pins[i].data, PIN_LEN);
	to->pins = pins;
	for (unsigned i = 0; i < r->published.n_peers; i++) {
		if (r->published.peers[i].id != from->id)
			continue;
		to->match = r->published.peers[i].match;
		to->up = r->published_links[i].up;
		to->why = arena_strdup(arena, r->published_links[i].why);
		if (r->published_links[i].last_heard_ms > 0)
			to->last_contact_ms = now_ms - r->published_links[i].last_heard_ms;
	}
}

enum code replica_cluster(struct replica *r, struct arena *arena, struct replica_cluster *out, struct err *err)
{
	int64_t now_ms = clock_mono_ms();
	unsigned up = 0;

	if (r->cluster == NULL)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "this server is no member of a cluster: its configuration has no cluster {} block");
	*out = (struct replica_cluster){ .name = r->cluster->name };
	pthread_mutex_lock(&r->lock);
	out->cluster_id = arena_strdup(arena, r->place.cluster_id);
	out->epoch = r->place.epoch;
	out->term = r->published.now.term;
	out->leader = r->published.now.leader;
	out->applied = r->status.applied;
	out->commit = r->published.commit;
	out->changing = r->published.changing;
	out->voters = conf_voters(&r->published.conf);
	out->quorum = out->leader != 0;
	out->members = arena_zalloc(arena, (r->n_members + 1) * sizeof *out->members);
	for (size_t i = 0; i < r->n_members; i++) {
		struct replica_member *member = &out->members[out->n++];

		copy_member(r, r->members[i], now_ms, arena, member);
		up += member->voter && member->up && !member->removed;
	}
	pthread_mutex_unlock(&r->lock);
	if (up > out->voters / 2)
		out->survives = up - (out->voters / 2 + 1);
	return CODE_OK;
}
