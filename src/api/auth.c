/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call what (contract server-api.md 2.2 to 2.4). One look at the state decides; a yes stands on this replica
 * alone, a no that rests on the state is given only after auth_confirm_no (availability.md section 2). The check of a
 * client's certificate at the handshake is auth_tls.c.
 *
 *   authorize ---> look: rights, agent record (one view) ---> yes
 *      ^              | no                         | renewed serial
 *      |              v                            v
 *      +---- newer --- auth_confirm_no          activate (a command)
 *                     | not newer                  | refused: look again
 *                     v                            v
 *                   denied                        yes
 */
#include "api/auth.h"

#include "api/route.h"
#include "api/server.h"
#include "api/state.h"
#include "base/clock.h"
#include "command.pb-c.h"
#include "types.pb-c.h"

#include <string.h>

enum { LOOKS = 4 }; /* a state that changes between each two looks is not waited for forever */

/* What one look at the state says. */
struct verdict {
	bool allowed;
	bool rests_on_state;             /* the no may be a yes in a newer state */
	bool needs_leader;               /* an admin's right by an entry */
	bool activate;                   /* allowed once the renewed serial is the current one */
	int reason;                      /* of the agent check */
	const char *line;                /* its line in the log */
	const char *serial, *new_serial; /* the record's */
};

static void admit(struct call *call, enum who as, const char *via)
{
	call->caller->as = as;
	call->caller->via = via;
}

static bool is_among(const struct strings *ids, const struct call *call)
{
	for (size_t i = 0; i < ids->n; i++)
		if (strcmp(ids->items[i], call->caller->id) == 0)
			return true;
	return false;
}

static void deny_agent(struct verdict *verdict, int reason, const char *line, bool rests_on_state)
{
	verdict->reason = reason;
	verdict->line = line;
	verdict->rests_on_state = rests_on_state;
}

/* server-api.md 2.4. */
static enum code check_agent(struct call *call, struct view *view, struct verdict *verdict)
{
	const struct caller *caller = call->caller;
	struct agent_record agent;
	enum code rc;

	if (clock_wall_ms() > caller->not_after_s * 1000) {
		deny_agent(verdict, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_EXPIRED, "Agent SVID is expired",
			   false);
		return CODE_OK;
	}
	rc = view_agent(view, caller->id, call->arena, &agent, call->err);
	if (rc == CODE_NOT_FOUND) {
		deny_agent(verdict, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED, "Agent is not attested",
			   true);
		return CODE_OK;
	}
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "unable to look up agent information");
	if (agent.serial[0] == '\0') {
		deny_agent(verdict, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_BANNED, "Agent is banned", true);
		return CODE_OK;
	}
	if (strcmp(agent.serial, caller->serial) == 0 || strcmp(agent.new_serial, caller->serial) == 0) {
		verdict->allowed = true;
		verdict->activate = strcmp(agent.serial, caller->serial) != 0;
		admit(call, WHO_AGENT, "datastore");
		return CODE_OK;
	}
	deny_agent(verdict, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE, "Agent SVID is not active", true);
	verdict->serial = agent.serial;
	verdict->new_serial = agent.new_serial[0] == '\0' ? NULL : agent.new_serial;
	return CODE_OK;
}

/* One look at the state, for a TCP caller with a certificate. */
static enum code look(struct call *call, struct verdict *verdict)
{
	unsigned who = call->route->who;
	OWN_STRUCT(view) view = NULL;

	*verdict = (struct verdict){ 0 };
	TRY(call_view(call, &view));
	if (who & (WHO_ADMIN | WHO_DOWNSTREAM)) {
		bool admin, downstream;

		if (view_caller_rights(view, call->caller->id, &admin, &downstream, call->err) != CODE_OK)
			return err_wrap(call->err, CODE_INTERNAL, "failed to fetch caller entries");
		verdict->rests_on_state = true;
		verdict->allowed = ((who & WHO_ADMIN) && admin) || ((who & WHO_DOWNSTREAM) && downstream);
		if (verdict->allowed) {
			verdict->needs_leader = (who & WHO_ADMIN) && admin;
			admit(call, (who & WHO_ADMIN) && admin ? WHO_ADMIN : WHO_DOWNSTREAM, "entries");
			return CODE_OK;
		}
	}
	return who & WHO_AGENT ? check_agent(call, view, verdict) : CODE_OK;
}

/* The first use of a renewed certificate. *again: the state says no by now. */
static enum code activate(struct call *call, bool *again)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentActivate activate = PB__AGENT_ACTIVATE__INIT;
	Pb__Outcome *outcome = NULL;
	enum code rc;

	activate.id = call->caller->id;
	activate.serial = call->caller->serial;
	command.kind_case = PB__COMMAND__KIND_AGENT_ACTIVATE;
	command.agent_activate = &activate;
	rc = call_propose(call, &command, &outcome);
	*again = outcome != NULL && outcome->code != CODE_OK;
	if (rc == CODE_OK || *again)
		return CODE_OK;
	call_log_failure(call, rc, "unable to activate the new agent SVID", call->err->text);
	return err_wrap(call->err, rc, "unable to activate the new agent SVID");
}

static enum code deny(struct call *call, const struct verdict *verdict)
{
	if (verdict->line != NULL)
		CALL_LOG(call, LOG_ERROR, verdict->line, KV("serial_num", verdict->serial),
			 KV("new_serial_num", verdict->new_serial),
			 KV("svid_serial_num", verdict->serial == NULL ? NULL : call->caller->serial));
	err_set(call->err, CODE_PERMISSION_DENIED, "authorization denied for method %s", call->route->path);
	call->err->reason = verdict->reason;
	return CODE_PERMISSION_DENIED;
}

static enum code by_state(struct call *call)
{
	struct verdict verdict;

	for (unsigned n = 0; n < LOOKS; n++) {
		bool again = false;

		TRY(look(call, &verdict));
		if (verdict.needs_leader && state_is_leaderless(call->server->state))
			return state_no_leader(call->server, call->err);
		if (verdict.activate && !state_is_leaderless(call->server->state))
			TRY(activate(call, &again)); /* without a leader both serials stay good; the next use activates it */
		if (verdict.allowed && !again)
			return CODE_OK;
		admit(call, WHO_ANY, "");
		if (!again && verdict.rests_on_state)
			TRY(auth_confirm_no(call, &again));
		if (!again)
			return deny(call, &verdict);
	}
	return err_set(call->err, CODE_UNAVAILABLE, "the state of '%s' changes too fast to say whether it may call",
		       call->caller->id);
}

static enum code decide(struct call *call)
{
	unsigned who = call->route->who;

	admit(call, WHO_ANY, "");
	if (who & WHO_ANY)
		return CODE_OK;
	if (call->caller->local) {
		if (!(who & WHO_LOCAL))
			return deny(call, &(struct verdict){ 0 });
		admit(call, WHO_LOCAL, "transport");
		return CODE_OK;
	}
	if (call->caller->id == NULL || !(who & (WHO_ADMIN | WHO_DOWNSTREAM | WHO_AGENT | WHO_OPERATOR)))
		return deny(call, &(struct verdict){ 0 });
	if ((who & WHO_ADMIN) && is_among(&call->server->config->admin_ids, call)) {
		admit(call, WHO_ADMIN, "config");
		return CODE_OK;
	}
	if ((who & WHO_OPERATOR) && is_among(&call->server->config->cluster.admin_ids, call)) {
		admit(call, WHO_OPERATOR, "config");
		return CODE_OK;
	}
	return by_state(call);
}

enum code authorize(struct call *call)
{
	enum code rc = decide(call);

	if (rc != CODE_OK) { /* SPIRE's line has no authorized_as: nobody has been authorized */
		call->caller->as = 0;
		call->logged = true;
		CALL_LOG(call, LOG_ERROR, "Failed to authenticate caller",
			 KV("error", arena_printf(call->arena, "rpc error: code = %s desc = %s", code_name((int)rc),
						  call->err->text)));
	}
	return rc;
}

enum code auth_confirm_no(struct call *call, bool *newer)
{
	return call_confirm(call, newer);
}
