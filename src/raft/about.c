/* SPDX-License-Identifier: Apache-2.0 */
/* What members say of themselves. Whoever wants the status of the cluster has this node ask all that are connected at
 * once; who does not answer in time is shown by what is known of him. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "store/codec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { ABOUT_MS = 500 };

static uint64_t disk_free_mb(const struct replica *r)
{
	struct statvfs fs;

	return statvfs(r->raft_dir, &fs) != 0 ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
}

static void about_self(struct replica *r, Pb__AboutAnswer *out)
{
	struct replica_view view;

	replica_view(r, &view);
	pb__about_answer__init(out);
	out->applied = view.applied;
	out->commit = view.commit;
	out->term = view.term;
	out->leader = view.leader;
	out->clock_ms = clock_wall_ms();
	out->disk_free_mb = disk_free_mb(r);
	out->software = VERSION;
}

void about_answer(struct replica *r, struct link_request *request)
{
	Pb__AboutAnswer answer;
	OWN_BUF body = { 0 };

	about_self(r, &answer);
	message_pack(&answer, &body);
	link_answer(request, CODE_OK, (struct span){ body.data, body.len }, NULL);
}

/* --- asking all of them --- */

struct inquiry {
	struct link_call call;
	struct survey *survey;
	uint64_t member;
	bool answered;
	uint64_t applied, disk_free_mb;
	int64_t clock_ahead_ms;
};

struct survey {
	struct message there, back;
	struct replica *replica;
	struct loop *home;
	struct wait wait;
	_Atomic int refs;
	unsigned open;
	int64_t asked_ms, deadline_ms;
	struct inquiry inquiries[CONF_MAX];
	unsigned n;
};

static void survey_unref(struct survey *survey)
{
	if (atomic_fetch_sub(&survey->refs, 1) == 1)
		free(survey);
}

static void survey_delivered(struct message *message)
{
	struct survey *survey = LIST_ITEM(message, struct survey, back);

	wait_done(&survey->wait);
	survey_unref(survey);
}

static void one_less(struct survey *survey)
{
	if (--survey->open > 0)
		return;
	survey->back.deliver = survey_delivered;
	loop_post(survey->home, &survey->back);
}

static void answered(struct link_call *call, const struct link_answer *answer)
{
	struct inquiry *inquiry = LIST_ITEM(call, struct inquiry, call);
	struct survey *survey = inquiry->survey;
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__AboutAnswer *body = NULL;

	if (answer->outcome == LINK_ANSWERED && answer->code == CODE_OK)
		body = message_unpack(&pb__about_answer__descriptor, answer->body, arena);
	if (body != NULL) {
		inquiry->answered = true;
		inquiry->applied = body->applied;
		inquiry->disk_free_mb = body->disk_free_mb;
		inquiry->clock_ahead_ms = body->clock_ms - (clock_wall_ms() - (clock_mono_ms() - survey->asked_ms) / 2);
	}
	one_less(survey);
}

static void ask_all(struct message *message)
{
	struct survey *survey = LIST_ITEM(message, struct survey, there);
	struct replica *r = survey->replica;

	survey->asked_ms = clock_mono_ms();
	survey->open = 1; /* this function's */
	for (size_t i = 0; i < r->n_members && survey->n < CONF_MAX; i++) {
		const Pb__Member *member = r->members[i];
		struct link_status status;
		struct inquiry *inquiry;

		if (member->removed || member->id == r->id || r->links == NULL ||
		    !link_status(r->links, member->id, &status) || !status.up)
			continue;
		inquiry = &survey->inquiries[survey->n++];
		inquiry->survey = survey;
		inquiry->member = member->id;
		inquiry->call.done = answered;
		survey->open++;
		link_call(r->links, member->id, METHOD_ABOUT, (struct span){ 0 }, survey->deadline_ms, &inquiry->call);
	}
	one_less(survey);
}

static void take_words(const struct survey *survey, struct replica_cluster *cluster)
{
	for (size_t i = 0; i < cluster->n; i++) {
		struct replica_member *member = &cluster->members[i];

		for (unsigned k = 0; k < survey->n; k++) {
			const struct inquiry *inquiry = &survey->inquiries[k];

			if (inquiry->member != member->id || !inquiry->answered)
				continue;
			member->answered = true;
			member->applied = inquiry->applied;
			member->disk_free_mb = inquiry->disk_free_mb;
			member->clock_ahead_ms = inquiry->clock_ahead_ms;
		}
		if (member->self) {
			member->answered = true;
			member->applied = cluster->applied;
			member->disk_free_mb = disk_free_mb(survey->replica);
		}
	}
}

enum code replica_survey(struct replica *r, int64_t deadline_ms, struct arena *arena, struct replica_cluster *out,
			 struct err *err)
{
	struct survey *survey;
	enum code rc;

	TRY(replica_cluster(r, arena, out, err)); /* refuses a server without a cluster */
	survey = xcalloc(1, sizeof *survey);
	survey->there.deliver = ask_all;
	survey->replica = r;
	survey->home = loop_self();
	survey->deadline_ms = clock_mono_ms() + ABOUT_MS;
	if (deadline_ms < survey->deadline_ms)
		survey->deadline_ms = deadline_ms;
	atomic_init(&survey->refs, 2);
	loop_post(r->loop, &survey->there);
	rc = task_wait(&survey->wait, survey->deadline_ms + ABOUT_MS);
	if (rc == CODE_OK)
		rc = replica_cluster(r, arena, out, err);
	if (rc == CODE_OK)
		take_words(survey, out);
	else if (rc == CODE_CANCELLED)
		err_set(err, rc, "the call was cancelled");
	else
		rc = replica_cluster(r, arena, out, err);
	survey_unref(survey);
	return rc;
}
