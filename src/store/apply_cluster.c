/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster: its founding, its members, the secrets by which new ones come in (availability.md V17, V19). */
#include "store/state.h"

#include <string.h>

static enum code cluster_id(struct apply *a, const char **id, uint64_t *epoch, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(a->store->db, SQL_CLUSTER_GET, &q, err));
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: it has no cluster", a->store->db->path);
	*id = arena_strdup(a->arena, column_text(&q, 0));
	*epoch = (uint64_t)column_int(&q, 1);
	return CODE_OK;
}

static enum code member_write(struct apply *a, const Pb__Member *member, struct err *err)
{
	struct span blob = message_pack_arena(member, a->arena);

	a->out->changed = true;
	a->out->member = (Pb__Member *)member;
	return row_replace(a->store, TABLE_MEMBER, CELLS(INT(member->id), BLOB(blob)), err);
}

/* Calls `each` with every member until it answers true; *out is that one, or NULL. */
static enum code member_find(struct apply *a, bool (*each)(const Pb__Member *member, const Pb__Member *given),
			     const Pb__Member *given, Pb__Member **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*out = NULL;
	TRY(query_open(a->store->db, SQL_MEMBER_ALL, &q, err));
	for (;;) {
		Pb__Member *member;

		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		member = message_unpack(&pb__member__descriptor, column_blob(&q, 1), a->arena);
		if (member == NULL)
			return err_set(err, CODE_DATA_LOSS, "a member in '%s' is damaged", a->store->db->path);
		if (each(member, given)) {
			*out = member;
			return CODE_OK;
		}
	}
}

static bool same_id(const Pb__Member *member, const Pb__Member *given)
{
	return member->id == given->id;
}

static bool same_name(const Pb__Member *member, const Pb__Member *given)
{
	return !member->removed && member->id != given->id && strcmp(member->name, given->name) == 0;
}

static bool shares_pin(const Pb__Member *member, const Pb__Member *given)
{
	for (size_t i = 0; !member->removed && i < member->n_pins; i++)
		for (size_t k = 0; k < given->n_pins; k++)
			if (member->pins[i].len == given->pins[k].len &&
			    memcmp(member->pins[i].data, given->pins[k].data, given->pins[k].len) == 0)
				return true;
	return false;
}

static enum code name_is_free(struct apply *a, const Pb__Member *member, bool *ok, struct err *err)
{
	Pb__Member *other;

	TRY(member_find(a, same_name, member, &other, err));
	*ok = other == NULL;
	if (!*ok)
		return outcome_refuse(a, CODE_ALREADY_EXISTS,
				      "there is a member '%s' already (%s): set another `name` in cluster {}, or remove that one "
				      "first",
				      member->name, other->address);
	return CODE_OK;
}

enum code apply_cluster_found(struct apply *a, struct err *err)
{
	const Pb__ClusterFound *in = a->command->cluster_found;
	OWN_QUERY q = { 0 };
	Pb__Member member;
	const char *id;
	uint64_t epoch;
	bool row;

	if (in->member == NULL || in->cluster_id[0] == '\0')
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a cluster needs an id and its first member");
	TRY(cluster_id(a, &id, &epoch, err));
	if (id[0] != '\0')
		return outcome_refuse(a, CODE_ALREADY_EXISTS, "the cluster has been founded already");
	TRY(query_open(a->store->db, SQL_CLUSTER_SET, &q, err));
	query_text(&q, 1, in->cluster_id);
	query_int(&q, 2, 1);
	TRY(query_step(&q, &row, err));
	query_done(&q);
	member = *in->member;
	member.id = ++a->store->numbers[SEQ_MEMBER];
	return member_write(a, arena_memdup(a->arena, &member, sizeof member), err);
}

enum code apply_member_put(struct apply *a, struct err *err)
{
	const Pb__Member *in = a->command->member_put->member;
	Pb__Member *known, *member;
	bool ok;

	if (in == NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "missing member");
	TRY(member_find(a, same_id, in, &known, err));
	if (known == NULL || known->removed)
		return outcome_refuse(a, CODE_NOT_FOUND, "no member has the id %llu", (unsigned long long)in->id);
	TRY(name_is_free(a, in, &ok, err));
	if (!ok)
		return CODE_OK;
	member = arena_memdup(a->arena, in, sizeof *in);
	if (member->starts < known->starts) { /* an old word that came late */
		member->starts = known->starts;
		member->boot = known->boot;
	}
	return member_write(a, member, err);
}

enum code apply_member_remove(struct apply *a, struct err *err)
{
	Pb__Member given = PB__MEMBER__INIT, *member;

	given.id = a->command->member_remove->id;
	TRY(member_find(a, same_id, &given, &member, err));
	if (member == NULL || member->removed)
		return outcome_refuse(a, CODE_NOT_FOUND, "no member has the id %llu", (unsigned long long)given.id);
	member->removed = true;
	return member_write(a, member, err);
}

enum code apply_join_create(struct apply *a, struct err *err)
{
	const Pb__JoinCreate *in = a->command->join_create;
	Pb__Join join = PB__JOIN__INIT;
	struct span hash = { in->hash.data, in->hash.len }, blob;

	if (in->hash.len != 32 || in->uses == 0)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a join secret needs its hash and at least one use");
	join.expires_at = in->expires_at;
	join.uses = in->uses;
	join.signer = in->signer;
	blob = message_pack_arena(&join, a->arena);
	a->out->changed = true;
	return row_replace(a->store, TABLE_JOIN, CELLS(BLOB(hash), BLOB(blob)), err);
}

static enum code join_read(struct apply *a, struct span hash, Pb__Join **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*out = NULL;
	TRY(query_open(a->store->db, SQL_JOIN_GET, &q, err));
	query_blob(&q, 1, hash.data, hash.len);
	TRY(query_step(&q, &row, err));
	if (!row)
		return CODE_OK;
	*out = message_unpack(&pb__join__descriptor, column_blob(&q, 1), a->arena);
	if (*out == NULL)
		return err_set(err, CODE_DATA_LOSS, "a join secret in '%s' is damaged", a->store->db->path);
	return CODE_OK;
}

static enum code join_take(struct apply *a, struct span hash, const Pb__Join *join, uint64_t member, struct err *err)
{
	Pb__Join left = *join;
	struct span blob;

	left.uses--;
	left.members = arena_alloc(a->arena, (join->n_members + 1) * sizeof *left.members);
	if (join->n_members > 0)
		memcpy(left.members, join->members, join->n_members * sizeof *left.members);
	left.members[left.n_members++] = member;
	blob = message_pack_arena(&left, a->arena);
	return row_replace(a->store, TABLE_JOIN, CELLS(BLOB(hash), BLOB(blob)), err);
}

enum code apply_join_redeem(struct apply *a, struct err *err)
{
	const Pb__JoinRedeem *in = a->command->join_redeem;
	struct span hash = { in->hash.data, in->hash.len };
	Pb__Member *known, *member;
	Pb__Join *join;
	bool ok;

	if (in->member == NULL || in->member->n_pins == 0)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a joining node needs its key's pin");
	TRY(join_read(a, hash, &join, err));
	if (join == NULL)
		return outcome_refuse(a, CODE_NOT_FOUND,
				      "the join token is not known to this cluster: make one with `cluster token` on any member");
	if (join->expires_at * 1000 <= a->store->now_ms)
		return outcome_refuse(a, CODE_FAILED_PRECONDITION,
				      "the join token has expired: make a new one with `cluster token` on any member");
	TRY(member_find(a, shares_pin, in->member, &known, err));
	for (size_t i = 0; known != NULL && i < join->n_members; i++)
		if (join->members[i] == known->id) {
			a->out->member = known;
			return CODE_OK;
		}
	if (join->uses == 0)
		return outcome_refuse(a, CODE_FAILED_PRECONDITION,
				      "the join token has been used: make a new one with `cluster token` on any member");
	if (known != NULL)
		return outcome_refuse(a, CODE_ALREADY_EXISTS, "this node is member '%s' already", known->name);
	TRY(name_is_free(a, in->member, &ok, err));
	if (!ok)
		return CODE_OK;
	member = arena_memdup(a->arena, in->member, sizeof *in->member);
	member->id = ++a->store->numbers[SEQ_MEMBER];
	member->signer = join->signer;
	member->removed = false;
	TRY(join_take(a, hash, join, member->id, err));
	return member_write(a, member, err);
}
