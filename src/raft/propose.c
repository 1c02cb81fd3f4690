/* SPDX-License-Identifier: Apache-2.0 */
/* Proposing: encode, hand over, wait, decode. Runs on the caller's thread; the replica's thread sees encoded commands
 * only. */
#include "raft/proposal.h"

#include "base/limits.h"
#include "store/codec.h"
#include "store/store.h"

#include <assert.h>
#include <stdlib.h>

OWNABLE_STRUCT(proposal, proposal_unref)

struct proposal *proposal_new(struct loop *home, size_t n)
{
	struct proposal *proposal = xcalloc(1, sizeof *proposal);

	proposal->home = home;
	atomic_init(&proposal->refs, 1);
	list_init(&proposal->link);
	proposal->pieces = xcalloc(n, sizeof *proposal->pieces);
	return proposal;
}

struct proposal *proposal_ref(struct proposal *proposal)
{
	atomic_fetch_add_explicit(&proposal->refs, 1, memory_order_relaxed);
	return proposal;
}

void proposal_unref(struct proposal *proposal)
{
	if (proposal == NULL || atomic_fetch_sub_explicit(&proposal->refs, 1, memory_order_acq_rel) != 1)
		return;
	buf_done(&proposal->commands);
	buf_done(&proposal->outcomes);
	free(proposal->pieces);
	free(proposal);
}

static Pb__Outcome *too_large(size_t size, struct arena *arena)
{
	Pb__Outcome *out = arena_alloc(arena, sizeof *out);

	*out = (Pb__Outcome)PB__OUTCOME__INIT;
	out->code = CODE_RESOURCE_EXHAUSTED;
	out->message =
		arena_printf(arena, "a change of %zu bytes is larger than the limit of %d bytes", size, LIMIT_COMMAND);
	return out;
}

static enum code add(struct proposal *proposal, const Pb__Command *command, size_t item, struct arena *arena,
		     Pb__Outcome **out, struct err *err)
{
	Pb__Command framed = *command;
	struct piece *piece = &proposal->pieces[proposal->n];
	size_t at = proposal->commands.len, len;

	if (framed.format == 0)
		framed.format = COMMAND_FORMAT;
	TRY(command_check(&framed, err));
	len = protobuf_c_message_get_packed_size(&framed.base);
	if (len > LIMIT_COMMAND) {
		*out = too_large(len, arena);
		return CODE_OK;
	}
	message_pack(&framed, &proposal->commands);
	*piece = (struct piece){ .item = item, .at = at, .len = len };
	proposal->n++;
	return CODE_OK;
}

static enum code give_up(struct replica *replica, struct proposal *proposal, enum code rc, struct err *err)
{
	const char *why = rc == CODE_CANCELLED ? "the call was cancelled" : "the deadline passed";

	if (rc == CODE_DEADLINE_EXCEEDED)
		rc = CODE_UNAVAILABLE;
	if (replica_withdraw(replica, proposal))
		return err_set(err, rc, "%s before the change had its turn: nothing was changed", why);
	return err_set(err, rc, "outcome unknown: %s while the change was being carried out, it may still take effect",
		       why);
}

static enum code collect(const struct proposal *proposal, struct arena *arena, Pb__Outcome **outs, struct err *err)
{
	if (proposal->failed.code != CODE_OK)
		return err_set(err, proposal->failed.code, "%s", proposal->failed.text);
	for (size_t i = 0; i < proposal->n; i++) {
		const struct piece *piece = &proposal->pieces[i];
		struct span bytes = { proposal->outcomes.data + piece->out_at, piece->out_len };
		Pb__Outcome *out = message_unpack(&pb__outcome__descriptor, bytes, arena);

		if (out == NULL)
			return err_set(err, CODE_INTERNAL, "an outcome cannot be decoded");
		outs[piece->item] = out;
	}
	return CODE_OK;
}

enum code propose_all(struct replica *replica, Pb__Command *const *commands, size_t n, int64_t deadline_ms,
		      struct arena *arena, Pb__Outcome **outs, struct err *err)
{
	bool in_task = task_self() != NULL;
	OWN_STRUCT(proposal) proposal = proposal_new(in_task ? loop_self() : NULL, n);
	enum code rc;

	assert(in_task || loop_self() == NULL); /* a callback must not block its loop */
	for (size_t i = 0; i < n; i++)
		TRY(add(proposal, commands[i], i, arena, &outs[i], err));
	if (proposal->n == 0)
		return CODE_OK;
	TRY(replica_enqueue(replica, proposal, err));
	rc = in_task ? task_wait(&proposal->wait, deadline_ms) : replica_wait_thread(replica, proposal, deadline_ms);
	if (rc != CODE_OK)
		return give_up(replica, proposal, rc, err);
	return collect(proposal, arena, outs, err);
}

enum code propose(struct replica *replica, const Pb__Command *command, int64_t deadline_ms, struct arena *arena,
		  Pb__Outcome **out, struct err *err)
{
	Pb__Command *const one[] = { (Pb__Command *)command };

	return propose_all(replica, one, 1, deadline_ms, arena, out, err);
}

enum code propose_blocking(struct replica *replica, const Pb__Command *command, struct arena *arena, Pb__Outcome **out,
			   struct err *err)
{
	return propose(replica, command, INT64_MAX, arena, out, err);
}
