/* SPDX-License-Identifier: Apache-2.0 */
#include "api/entry_check.h"

#include "api/convert.h"
#include "api/mask.h"
#include "api/pb.h"
#include "api/server.h"
#include "base/gotext.h"
#include "base/id.h"

#include <stdlib.h>
#include <string.h>

enum { HINT_MAX = 1024, ENTRY_ID_MAX = 255 };

enum { /* fields of Entry */
       F_SPIFFE_ID = 2,
       F_PARENT_ID = 3,
       F_SELECTORS = 4,
       F_X509_TTL = 5,
       F_FEDERATES_WITH = 6,
       F_DNS_NAMES = 10,
       F_STORE_SVID = 12,
       F_JWT_TTL = 13,
       F_HINT = 14,
};

typedef enum code id_check(const struct spiffe_id *id, const char *td, struct err *err);

static enum code read_id(struct call *call, const Pb__SPIFFEID *from, id_check *check, struct spiffe_id *out,
			 struct err *err)
{
	if (from == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "request must specify SPIFFE ID");
	TRY(id_from_parts(from->trust_domain, from->path, call->arena, out, err));
	return check(out, call->server->td, err);
}

static Pb__SPIFFEID *new_id(struct arena *arena, const struct spiffe_id *id)
{
	Pb__SPIFFEID *out = pb_new(&pb__spiffeid__descriptor, arena);

	out->trust_domain = id->td;
	out->path = id->path;
	return out;
}

struct td_at {
	const char *name;
	size_t at;
};

static int compare_tds(const void *a, const void *b)
{
	const struct td_at *left = a, *right = b;
	int order = strcmp(left->name, right->name);

	return order != 0 ? order : (left->at > right->at) - (left->at < right->at);
}

/* Names without "spiffe://", each where it came first. */
static enum code read_tds(const char *const *from, size_t n, struct arena *arena, const char ***out, size_t *n_out,
			  struct err *err)
{
	const char **names = arena_alloc(arena, n * sizeof *names);
	struct td_at *sorted = arena_alloc(arena, n * sizeof *sorted);
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		TRY(id_parse_td(from[i], arena, &names[i], err));
		sorted[i] = (struct td_at){ names[i], i };
	}
	qsort(sorted, n, sizeof *sorted, compare_tds);
	for (size_t i = 1; i < n; i++)
		if (strcmp(sorted[i].name, sorted[i - 1].name) == 0)
			names[sorted[i].at] = NULL;
	for (size_t i = 0; i < n; i++)
		if (names[i] != NULL)
			names[kept++] = names[i];
	*out = names;
	*n_out = kept;
	return CODE_OK;
}

static enum code convert_ids(struct call *call, const Pb__Entry *from, uint32_t set, Pb__Entry *entry, struct err *err)
{
	struct spiffe_id id;

	if (mask_has(set, F_PARENT_ID)) {
		if (read_id(call, from->parent_id, id_check_member, &id, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid parent ID");
		entry->parent_id = new_id(call->arena, &id);
	}
	if (mask_has(set, F_SPIFFE_ID)) {
		if (read_id(call, from->spiffe_id, id_check_workload, &id, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid spiffe ID");
		entry->spiffe_id = new_id(call->arena, &id);
	}
	return CODE_OK;
}

static enum code convert_lists(struct call *call, const Pb__Entry *from, uint32_t set, Pb__Entry *entry,
			       struct err *err)
{
	for (size_t i = 0; mask_has(set, F_DNS_NAMES) && i < from->n_dns_names; i++)
		if (dns_check(from->dns_names[i], err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid DNS name");
	if (mask_has(set, F_FEDERATES_WITH) &&
	    read_tds(from->federates_with, from->n_federates_with, call->arena, &entry->federates_with,
		     &entry->n_federates_with, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid federated trust domain");
	if (mask_has(set, F_SELECTORS)) {
		if (from->n_selectors == 0)
			return err_set(err, CODE_INVALID_ARGUMENT, "selector list is empty");
		TRY(selectors_check(from->selectors, from->n_selectors, err));
	}
	return CODE_OK;
}

/* A message whose fields are all false is as good as none. */
static Pb__Entry__AdditionalAttributes *trim_attributes(Pb__Entry__AdditionalAttributes *attributes)
{
	return attributes != NULL && (attributes->disable_x509_svid_prefetch || attributes->jwt_svid_include_jti)
		       ? attributes
		       : NULL;
}

enum code entry_from_proto(struct call *call, const Pb__Entry *from, uint32_t set, Pb__Entry **out, struct err *err)
{
	Pb__Entry *entry;

	if (from == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "missing entry");
	entry = arena_memdup(call->arena, from, sizeof *from);
	TRY(convert_ids(call, from, set, entry, err));
	TRY(convert_lists(call, from, set, entry, err));
	if (mask_has(set, F_HINT) && strlen(from->hint) > HINT_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "hint is too long, max length is %d characters", HINT_MAX);
	entry->additional_attributes = trim_attributes(from->additional_attributes);
	*out = entry;
	return CODE_OK;
}

/* --- the datastore's validation --- */

static enum code invalid(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "datastore-validation: invalid registration entry: %s", text);
}

static bool same_types(const Pb__Entry *entry)
{
	for (size_t i = 1; i < entry->n_selectors; i++)
		if (strcmp(entry->selectors[i]->type, entry->selectors[0]->type) != 0)
			return false;
	return true;
}

static enum code check_id(const char *id, struct err *err)
{
	size_t len = strlen(id);

	if (len > ENTRY_ID_MAX)
		return invalid(err, "entry ID too long");
	if (strspn(id, "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz") != len)
		return invalid(err, "entry ID contains invalid characters");
	return CODE_OK;
}

static enum code check_ttls(const Pb__Entry *entry, uint32_t set, struct err *err)
{
	if (mask_has(set, F_X509_TTL) && entry->x509_svid_ttl < 0)
		return invalid(err, "X509SvidTtl is not set");
	if (mask_has(set, F_JWT_TTL) && entry->jwt_svid_ttl < 0)
		return invalid(err, "JwtSvidTtl is not set");
	return CODE_OK;
}

enum code entry_check_create(const Pb__Entry *entry, struct err *err)
{
	if (entry->store_svid && entry->additional_attributes != NULL &&
	    entry->additional_attributes->disable_x509_svid_prefetch)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "datastore-validation: specifying cache behaviour is incompatible with storable SVIDs");
	if (entry->store_svid && !same_types(entry))
		return invalid(err, "selector types must be the same when store SVID is enabled");
	TRY(check_id(entry->id, err));
	return check_ttls(entry, (uint32_t)MASK_ALL, err);
}

enum code entry_check_update(const Pb__Entry *entry, uint32_t set, struct err *err)
{
	return check_ttls(entry, set, err);
}

/* --- filters --- */

/* As Go prints a number with %q: the character in single quotes. */
static const char *quote_rune(int number, struct arena *arena)
{
	OWN_BUF rune = { 0 }, quoted = { 0 };

	if (number == '\'')
		return "'\\''";
	if (number == '"')
		return "'\"'";
	go_put_rune(&rune, number < 0 ? 0xfffd : (uint32_t)number);
	go_quote_bytes(&quoted, (const char *)rune.data, rune.len);
	quoted.data[0] = quoted.data[quoted.len - 1] = '\'';
	return arena_strdup(arena, buf_text(&quoted));
}

static enum code unhandled(const char *what, const char *kind, int match, struct arena *arena, struct err *err)
{
	err_set(err, CODE_INTERNAL, "datastore-sql: unhandled %s match behavior %s", kind, quote_rune(match, arena));
	return err_wrap(err, CODE_INTERNAL, "failed to %s entries", what);
}

static enum code filter_selectors(const Pb__SelectorMatch *in, struct err *err)
{
	if (in->n_selectors == 0)
		err_set(err, CODE_INVALID_ARGUMENT, "empty selector set");
	else if (selectors_check(in->selectors, in->n_selectors, err) == CODE_OK)
		return CODE_OK;
	return err_wrap(err, CODE_INVALID_ARGUMENT, "malformed selectors filter");
}

static enum code filter_tds(struct call *call, const Pb__FederatesWithMatch *in, const Pb__FederatesWithMatch **out,
			    struct err *err)
{
	Pb__FederatesWithMatch *match = arena_memdup(call->arena, in, sizeof *in);

	if (in->n_trust_domains == 0)
		err_set(err, CODE_INVALID_ARGUMENT, "empty trust domain set");
	else if (read_tds(in->trust_domains, in->n_trust_domains, call->arena, &match->trust_domains,
			  &match->n_trust_domains, err) == CODE_OK) {
		*out = match;
		return CODE_OK;
	}
	return err_wrap(err, CODE_INVALID_ARGUMENT, "malformed federates with filter");
}

/* A filter's ID is an absent one only if its message is. */
static enum code filter_id(struct call *call, const Pb__SPIFFEID *in, id_check *check, const char *what,
			   const char **out, struct err *err)
{
	struct spiffe_id id;

	if (in == NULL)
		return CODE_OK;
	if (read_id(call, in, check, &id, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "malformed %s ID filter", what);
	*out = id.text;
	return CODE_OK;
}

enum code entry_filter_from_proto(struct call *call, const Pb__ListEntriesRequest__Filter *in, const char *what,
				  struct entry_filter *out, struct err *err)
{
	struct entry_filter filter = { 0 };

	if (in == NULL) {
		*out = filter;
		return CODE_OK;
	}
	filter.hint = in->by_hint == NULL ? NULL : in->by_hint->value;
	filter.downstream = in->by_downstream != NULL && in->by_downstream->value;
	TRY(filter_id(call, in->by_parent_id, id_check_member, "parent", &filter.parent_id, err));
	TRY(filter_id(call, in->by_spiffe_id, id_check_workload, "SPIFFE", &filter.spiffe_id, err));
	if (in->by_selectors != NULL) {
		TRY(filter_selectors(in->by_selectors, err));
		filter.selectors = in->by_selectors;
	}
	if (in->by_federates_with != NULL)
		TRY(filter_tds(call, in->by_federates_with, &filter.federates_with, err));
	if (filter.selectors != NULL &&
	    (unsigned)filter.selectors->match > PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_ANY)
		return unhandled(what, "selectors", (int)filter.selectors->match, call->arena, err);
	if (filter.federates_with != NULL &&
	    (unsigned)filter.federates_with->match > PB__FEDERATES_WITH_MATCH__MATCH_BEHAVIOR__MATCH_ANY)
		return unhandled(what, "federates with", (int)filter.federates_with->match, call->arena, err);
	*out = filter;
	return CODE_OK;
}
