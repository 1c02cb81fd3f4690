/* SPDX-License-Identifier: Apache-2.0 */
/* One command on one state has one outcome, on every node: no time, chance, socket or configuration here. A refusal is
 * an outcome and leaves no trace, so an applier looks at everything before it writes anything; what SQLite then refuses
 * is a fault of ours or of the file, and ends this node while the others go on. */
#include "store/state.h"

#include <stdarg.h>
#include <string.h>

static applier *const appliers[] = {
	[PB__COMMAND__KIND_ENTRY_CREATE] = apply_entry_create,
	[PB__COMMAND__KIND_ENTRY_UPDATE] = apply_entry_update,
	[PB__COMMAND__KIND_ENTRY_DELETE] = apply_entry_delete,
	[PB__COMMAND__KIND_ENTRY_PRUNE] = apply_entry_prune,
	[PB__COMMAND__KIND_AGENT_ATTEST] = apply_agent_attest,
	[PB__COMMAND__KIND_AGENT_RENEW] = apply_agent_renew,
	[PB__COMMAND__KIND_AGENT_ACTIVATE] = apply_agent_activate,
	[PB__COMMAND__KIND_AGENT_BAN] = apply_agent_ban,
	[PB__COMMAND__KIND_AGENT_DELETE] = apply_agent_delete,
	[PB__COMMAND__KIND_AGENT_STATUS] = apply_agent_status,
	[PB__COMMAND__KIND_AGENT_PRUNE] = apply_agent_prune,
	[PB__COMMAND__KIND_TOKEN_CREATE] = apply_token_create,
	[PB__COMMAND__KIND_BUNDLE_APPEND] = apply_bundle_append,
	[PB__COMMAND__KIND_BUNDLE_CREATE] = apply_bundle_create,
	[PB__COMMAND__KIND_BUNDLE_UPDATE] = apply_bundle_update,
	[PB__COMMAND__KIND_BUNDLE_SET] = apply_bundle_set,
	[PB__COMMAND__KIND_BUNDLE_DELETE] = apply_bundle_delete,
	[PB__COMMAND__KIND_BUNDLE_PRUNE] = apply_bundle_prune,
	[PB__COMMAND__KIND_AUTHORITY_TAINT] = apply_authority_taint,
	[PB__COMMAND__KIND_AUTHORITY_REVOKE] = apply_authority_revoke,
	[PB__COMMAND__KIND_JOURNAL_SET] = apply_journal_set,
	[PB__COMMAND__KIND_JOURNAL_PRUNE] = apply_journal_prune,
	[PB__COMMAND__KIND_RELATIONSHIP_CREATE] = apply_relationship_create,
	[PB__COMMAND__KIND_RELATIONSHIP_UPDATE] = apply_relationship_update,
	[PB__COMMAND__KIND_RELATIONSHIP_DELETE] = apply_relationship_delete,
	[PB__COMMAND__KIND_CLUSTER_FOUND] = apply_cluster_found,
	[PB__COMMAND__KIND_MEMBER_PUT] = apply_member_put,
	[PB__COMMAND__KIND_MEMBER_REMOVE] = apply_member_remove,
	[PB__COMMAND__KIND_JOIN_CREATE] = apply_join_create,
	[PB__COMMAND__KIND_JOIN_REDEEM] = apply_join_redeem,
};

bool command_kind_known(Pb__Command__KindCase kind)
{
	return (size_t)kind < sizeof appliers / sizeof appliers[0] && appliers[kind] != NULL;
}

enum code outcome_refuse(struct apply *a, enum code code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	a->out->code = code;
	a->out->message = arena_vprintf(a->arena, fmt, args);
	va_end(args);
	return CODE_OK;
}

enum code outcome_refuse_reason(struct apply *a, Pb__PermissionDeniedDetails__Reason reason, const char *text)
{
	a->out->reason = reason;
	return outcome_refuse(a, CODE_PERMISSION_DENIED, "%s", text);
}

/* The caller may have lost, since the edge looked, the entry that gave it its right. */
static enum code check_right(struct apply *a, bool *allowed, struct err *err)
{
	bool admin, downstream;

	*allowed = true;
	if (a->command->right == PB__COMMAND__RIGHT__NONE)
		return CODE_OK;
	TRY(rights_by_entry(a->store->db, a->command->caller, &admin, &downstream, err));
	*allowed = (a->command->right == PB__COMMAND__RIGHT__ADMIN_ENTRY && admin) ||
		   (a->command->right == PB__COMMAND__RIGHT__DOWNSTREAM_ENTRY && downstream);
	if (!*allowed)
		return outcome_refuse(a, CODE_PERMISSION_DENIED, "the entry that gave '%s' this right is gone",
				      a->command->caller);
	return CODE_OK;
}

static enum code run(struct apply *a, struct err *err)
{
	bool known = false, allowed;

	TRY(check_right(a, &allowed, err));
	if (!allowed)
		return CODE_OK;
	if (a->command->request_id.len > 0)
		TRY(request_recall(a, &known, err));
	if (known)
		return CODE_OK;
	TRY(appliers[a->command->kind_case](a, err));
	if (a->command->request_id.len > 0)
		TRY(request_remember(a, err));
	return CODE_OK;
}

enum code apply_command(struct store *store, const Pb__Command *command, struct arena *arena, Pb__Outcome **out,
			struct err *err)
{
	struct apply a = { .store = store, .command = command, .arena = arena };

	TRY(command_check(command, err));
	a.out = arena_alloc(arena, sizeof *a.out);
	*a.out = (Pb__Outcome)PB__OUTCOME__INIT;
	a.out->revision = store->index;
	TRY(run(&a, err));
	*out = a.out;
	return CODE_OK;
}
