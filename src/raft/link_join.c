/* SPDX-License-Identifier: Apache-2.0 */
/* A node that is no member yet knocks: one address after the other, one connection at a time, one request. */
#include "raft/link_inside.h"

#include "base/clock.h"
#include "base/task.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct joining {
	struct wait wait;
	struct wire *wire;
	const struct link_stranger *stranger;
	struct own self;
	struct arena *arena;
	struct link_peer peer;
	struct link_call call;
	struct link_answer answer;
	bool welcomed, answered;
	char why[320];
};

const struct own *joining_self(const struct wire *wire)
{
	return &wire->joining->self;
}

bool joining_verify(struct wire *wire, struct err *err)
{
	const struct link_stranger *stranger = wire->joining->stranger;
	char hex[PIN_HEX];

	for (size_t i = 0; i < wire->n_pins; i++)
		for (size_t k = 0; k < stranger->n_pins; k++)
			if (pin_equal(&wire->pins[i], &stranger->pins[k]))
				return true;
	if (stranger->n_pins == 0)
		return true;
	err_set(err, CODE_PERMISSION_DENIED,
		"who answers has a key (sha256 %.16s...) that the join token does not know: it is no member of that "
		"cluster, or "
		"its key has changed since the token was made",
		pin_hex(&wire->pins[0], hex));
	return false;
}

static void on_answer(struct link_call *call, const struct link_answer *answer)
{
	struct joining *joining = (struct joining *)((char *)call - offsetof(struct joining, call));

	joining->answered = true;
	joining->answer = *answer;
	joining->answer.text = answer->text != NULL ? arena_strdup(joining->arena, answer->text) : NULL;
	joining->answer.body =
		(struct span){ arena_memdup(joining->arena, answer->body.data, answer->body.len), answer->body.len };
	wait_done(&joining->wait);
}

void joining_welcome(struct wire *wire, const struct link_peer *words)
{
	struct joining *joining = wire->joining;
	const struct link_stranger *stranger = joining->stranger;

	joining->welcomed = true;
	joining->peer = wire_words(words, joining->arena);
	if (wire->kind == LINK_KIND_ASK)
		wait_done(&joining->wait);
	else
		wire_ask(wire, stranger->method, stranger->body, stranger->deadline_ms, &joining->call);
}

void joining_ended(struct wire *wire, const char *why)
{
	struct joining *joining = wire->joining;

	snprintf(joining->why, sizeof joining->why, "%s", why);
	joining->wire = NULL;
	wire->joining = NULL;
	if (joining->call.inside == NULL) /* else the flush tells what became of the request */
		wait_done(&joining->wait);
}

/* One address. True: there is an answer (or, asking, a welcome). */
static bool knock(struct links *links, struct joining *joining, const char *address)
{
	const struct link_stranger *stranger = joining->stranger;
	int64_t now = clock_mono_ms(), time = stranger->deadline_ms - now;
	enum code rc;

	joining->wait = (struct wait){ 0 };
	joining->welcomed = joining->answered = false;
	joining->why[0] = '\0';
	joining->wire = wire_new(links, stranger->n_pins == 0 ? LINK_KIND_ASK : LINK_KIND_JOIN, true);
	joining->wire->joining = joining;
	wire_dial(joining->wire, address, time < links->handshake_ms ? time : links->handshake_ms);
	rc = task_wait(&joining->wait, stranger->deadline_ms);
	if (joining->call.inside != NULL)
		link_call_forget(&joining->call);
	if (joining->wire != NULL) {
		struct wire *wire = joining->wire;

		if (rc != CODE_OK)
			snprintf(joining->why, sizeof joining->why, "%s",
				 rc == CODE_CANCELLED ? "cancelled" : "no answer in time");
		wire->joining = NULL;
		joining->wire = NULL;
		wire_end(wire, LINK_DOWN_CLOSED, true, "done");
	}
	if (stranger->n_pins == 0)
		return joining->welcomed;
	if (joining->answered && joining->answer.outcome != LINK_ANSWERED)
		snprintf(joining->why, sizeof joining->why, "%s", joining->answer.text);
	return joining->answered && joining->answer.outcome == LINK_ANSWERED;
}

/* Another member may do better: this one has no leader, or could not be asked. */
static bool final(const struct joining *joining)
{
	return joining->stranger->n_pins == 0 || joining->answer.code != CODE_UNAVAILABLE;
}

enum code link_join(struct links *links, const struct link_stranger *stranger, struct arena *arena,
		    struct link_peer *peer, struct link_answer *answer, struct err *err)
{
	struct joining *joining = xcalloc(1, sizeof *joining);
	OWN_BUF reasons = { 0 };
	enum code rc = CODE_UNAVAILABLE;

	assert(loop_self() == links->loop && task_self() != NULL);
	links_ref(links);
	joining->stranger = stranger;
	joining->arena = arena;
	joining->call.done = on_answer;
	shake_own(&joining->self, stranger->self);
	*answer = (struct link_answer){ .outcome = LINK_NOT_SENT, .code = CODE_UNAVAILABLE };
	for (size_t i = 0; i < stranger->n_addresses && rc == CODE_UNAVAILABLE; i++) {
		bool answered;

		if (clock_mono_ms() >= stranger->deadline_ms || task_cancelled() || links->closed)
			break;
		answered = knock(links, joining, stranger->addresses[i]);
		if (answered)
			*peer = joining->peer;
		if (answered && stranger->n_pins == 0)
			*answer = (struct link_answer){ .outcome = LINK_ANSWERED };
		else if (answered || (joining->answered && answer->outcome == LINK_NOT_SENT))
			*answer = joining->answer;
		if (answered && final(joining))
			rc = answer->code;
		buf_printf(&reasons, "%s%s: %s", i == 0 ? "" : "; ", stranger->addresses[i],
			   answered && answer->text != NULL ? answer->text : joining->why);
	}
	free(joining);
	links_unref(links);
	if (task_cancelled() && rc == CODE_UNAVAILABLE)
		rc = CODE_CANCELLED;
	answer->code = rc;
	if (rc == CODE_OK)
		return CODE_OK;
	if (answer->outcome != LINK_ANSWERED || rc == CODE_UNAVAILABLE)
		answer->text = arena_strdup(arena, buf_text(&reasons));
	return err_set(err, rc, "%s", answer->text != NULL ? answer->text : "");
}
