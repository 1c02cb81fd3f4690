/* SPDX-License-Identifier: Apache-2.0 */
/* No authority is used before agents can know it (availability.md V8): a stock agent ends at a server certificate whose
 * authority it does not know. Ripe is what has been published and applied here for `authority_spread`. A server without
 * other members need not wait: as in SPIRE. Where nobody in reach has a ripe one (all have lost their keys), waiting
 * would help nobody: the oldest published one is used at once. */
#include "api/rotate_inside.h"

#include "api/state.h"
#include "base/clock.h"
#include "store/view.h"

#include <string.h>

enum { SETTLE_MS = 10 * 1000 }; /* after a start: until links are up */
enum { PUBLISH_S = 30 };        /* what the journal calls issued was published at most so much later, or given up */

void rotate_note_loaded(struct slot *slot)
{
	int64_t age_s = clock_wall_s() - slot->issued_at_s - PUBLISH_S;

	slot->published_ms = clock_mono_ms() - (age_s > 0 ? age_s : 0) * 1000;
}

struct others {
	size_t members; /* with this node */
	bool signs;     /* one in reach has an authority that is in use */
	bool older;     /* one in reach has published one before ours, and waits as we do */
};

/* The newest entry of each slot is what is there; entries stand in the order of time. */
static void look_at_journal(const Pb__Journal *journal, const char *node, struct rotation *r, struct others *others)
{
	const struct slot *own = slots_current(&r->x509);
	const char *seen[2] = { NULL, NULL };

	for (size_t i = journal->n_x509; i-- > 0;) {
		const Pb__Journal__X509Authority *entry = journal->x509[i];
		size_t at = strcmp(entry->slot, "A") == 0 ? 0 : 1;

		if (seen[at] != NULL || entry->not_after <= clock_wall_s())
			continue;
		seen[at] = entry->authority_id;
		if ((int)entry->status == SLOT_ACTIVE)
			others->signs = true;
		else if ((int)entry->status == SLOT_PREPARED &&
			 (entry->issued_at < own->issued_at_s ||
			  (entry->issued_at == own->issued_at_s && strcmp(node, r->server->node) < 0)))
			others->older = true;
	}
}

static bool is_up(const struct replica_cluster *cluster, uint64_t id)
{
	for (size_t i = 0; i < cluster->n; i++)
		if (cluster->members[i].id == id)
			return cluster->members[i].up;
	return false;
}

static enum code look_at_others(struct rotation *r, struct others *out, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct replica_cluster cluster;
	Pb__Member **members;
	size_t n;
	OWN_STRUCT(view) view = NULL;

	*out = (struct others){ 0 };
	TRY(replica_cluster(r->server->replica, arena, &cluster, err));
	TRY(view_open(r->reader, &view, err));
	TRY(view_members(view, arena, &members, &n, err));
	for (size_t i = 0; i < n; i++) {
		Pb__Journal *journal;
		enum code rc;

		if (members[i]->removed)
			continue;
		out->members++;
		if (strcmp(members[i]->node_id, r->server->node) == 0 || !is_up(&cluster, members[i]->id))
			continue;
		rc = view_journal(view, members[i]->node_id, arena, &journal, err);
		if (rc == CODE_OK)
			look_at_journal(journal, members[i]->node_id, r, out);
		else if (rc != CODE_NOT_FOUND)
			return rc;
	}
	return CODE_OK;
}

bool rotate_is_ripe(struct rotation *r, struct slots *slots, const struct slot *slot)
{
	int64_t spread_ms = r->server->config->cluster.authority_spread_s * 1000;
	struct others others;

	if (state_is_single(r->server->state) || clock_mono_ms() - slot->published_ms >= spread_ms)
		return true;
	if (look_at_others(r, &others, NULL) != CODE_OK)
		return false;
	if (others.members <= 1)
		return true;
	/* A former one of its own, if it still signs, is the better one as long as it lasts. */
	return slots_current(slots)->status != SLOT_ACTIVE && clock_mono_ms() - r->server->started_ms >= SETTLE_MS &&
	       !others.signs && !others.older;
}

void rotate_note_waiting(struct rotation *r)
{
	const struct slot *x509 = slots_current(&r->x509), *jwt = slots_current(&r->jwt);
	const struct slot *waits = x509->status == SLOT_PREPARED ? x509 : jwt->status == SLOT_PREPARED ? jwt : NULL;

	atomic_store_explicit(&r->waiting_since_ms, waits == NULL ? -1 : waits->published_ms, memory_order_relaxed);
}

bool rotation_is_waiting(const struct rotation *r, struct err *err)
{
	int64_t since_ms = atomic_load_explicit(&r->waiting_since_ms, memory_order_relaxed);
	int64_t spread_s = r->server->config->cluster.authority_spread_s;
	bool minutes = spread_s > 0 && spread_s % 60 == 0;

	if (state_is_single(r->server->state))
		return false;
	if (since_ms < 0)
		err_set(err, CODE_UNAVAILABLE, "this node's authority is not published yet: that needs a leader");
	else
		err_set(err, CODE_UNAVAILABLE,
			"this node's authority is published since %lld s and is used after %lld%s",
			(long long)(clock_mono_ms() - since_ms) / 1000, (long long)(minutes ? spread_s / 60 : spread_s),
			minutes ? "m" : "s");
	return true;
}
