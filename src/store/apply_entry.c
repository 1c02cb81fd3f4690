/* SPDX-License-Identifier: Apache-2.0 */
/* Registration entries: the row, what is searched beside it (parent, alias, federates), and the commands that change
 * them. Texts are SPIRE's inner ones: the API puts "failed to create entry: " before what is not NOT_FOUND or the
 * similar entry. */
#include "store/state.h"

#include <string.h>

enum { ENTRY_ID_MAX = 255, PRUNE_MAX = 10000 };

bool parent_is_server(const char *parent_id)
{
	static const char scheme[] = "spiffe://";
	const char *path;

	if (strncmp(parent_id, scheme, sizeof scheme - 1) != 0)
		return false;
	path = strchr(parent_id + sizeof scheme - 1, '/');
	return path != NULL && strcmp(path, "/spire/server") == 0;
}

int64_t similar_hash(struct hasher *hasher, Pb__Selector *const *set, size_t n)
{
	uint8_t hash[32];
	uint64_t number = 0;

	hasher_begin(hasher);
	for (size_t i = 0; i < n; i++) {
		hasher_add(hasher, set[i]->type, strlen(set[i]->type) + 1);
		hasher_add(hasher, set[i]->value, strlen(set[i]->value) + 1);
	}
	hasher_end(hasher, hash);
	for (int i = 0; i < 8; i++)
		number = number << 8 | hash[i];
	return (int64_t)number;
}

const char *selector_text(const Pb__Selector *selector, struct arena *arena)
{
	return arena_printf(arena, "%s:%s", selector->type, selector->value);
}

enum code rights_by_entry(struct db *db, const char *spiffe_id, bool *admin, bool *downstream, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(db, SQL_ENTRY_RIGHTS, &q, err));
	query_text(&q, 1, spiffe_id);
	TRY(query_step(&q, &row, err));
	*admin = row && column_int(&q, 0) != 0;
	*downstream = row && column_int(&q, 1) != 0;
	return CODE_OK;
}

enum code parent_number(struct db *db, const char *id, int64_t *out, bool *named, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(db, SQL_PARENT_BY_ID, &q, err));
	query_text(&q, 1, id);
	TRY(query_step(&q, &row, err));
	*out = row ? column_int(&q, 0) : 0;
	*named = row && column_int(&q, 1) != 0;
	return CODE_OK;
}

static enum code query_found(struct query *q, bool *found, struct err *err)
{
	return query_step(q, found, err);
}

/* Has an entry that is no alias this SPIFFE ID? */
static enum code is_named(struct store *store, const char *id, bool *out, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(store->db, SQL_ENTRY_IS_NAMED, &q, err));
	query_text(&q, 1, id);
	return query_found(&q, out, err);
}

static enum code parent_take(struct store *store, const char *id, int64_t *out, struct err *err)
{
	bool named;

	TRY(parent_number(store->db, id, out, &named, err));
	if (*out != 0)
		return CODE_OK;
	TRY(is_named(store, id, &named, err));
	*out = (int64_t)++store->numbers[SEQ_PARENT];
	return row_put(store, TABLE_PARENT, CELLS(INT(*out), TEXT(id), INT(named)), err);
}

static enum code parent_release(struct store *store, int64_t n, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool found;

	TRY(query_open(store->db, SQL_PARENT_HAS_CHILD, &q, err));
	query_int(&q, 1, n);
	TRY(query_found(&q, &found, err));
	return found ? CODE_OK : row_drop(store, TABLE_PARENT, CELLS(INT(n)), NULL, err);
}

/* An entry with this SPIFFE ID has come or gone. */
static enum code parent_name(struct store *store, const char *spiffe_id, bool came, struct err *err)
{
	int64_t n;
	bool was, is = true;

	TRY(parent_number(store->db, spiffe_id, &n, &was, err));
	if (n == 0 || was == came)
		return CODE_OK;
	if (!came)
		TRY(is_named(store, spiffe_id, &is, err));
	if (is == was)
		return CODE_OK;
	return row_replace(store, TABLE_PARENT, CELLS(INT(n), TEXT(spiffe_id), INT(is)), err);
}

/* Each alias is filed under that one of its selectors under which fewest are: an agent then looks at few that do not
 * apply to it. */
static enum code alias_file(struct store *store, int64_t key, const Pb__Entry *entry, struct err *err)
{
	const char *best = NULL;
	int64_t fewest = INT64_MAX;

	for (size_t i = 0; i < entry->n_selectors; i++) {
		OWN_QUERY q = { 0 };
		const char *text = selector_text(entry->selectors[i], store->arena);
		bool row;

		TRY(query_open(store->db, SQL_ALIAS_FILED, &q, err));
		query_text(&q, 1, text);
		TRY(query_step(&q, &row, err));
		if (row && column_int(&q, 0) < fewest) {
			fewest = column_int(&q, 0);
			best = text;
		}
	}
	return row_put(store, TABLE_ALIAS, CELLS(INT(key), TEXT(best)), err);
}

static int64_t key_of(int64_t parent, uint64_t seq)
{
	return (int64_t)((uint64_t)parent << 32 | seq);
}

/* The rows of an entry under parent number `parent`, which is there. */
static enum code rows_put(struct store *store, int64_t parent, uint64_t seq, const Pb__Entry *entry, struct err *err)
{
	const char *spiffe_id = spiffe_id_text(entry->spiffe_id, store->arena);
	struct span blob = message_pack_arena(entry, store->arena);
	Pb__Selector **set;
	size_t n = selectors_set(entry->selectors, entry->n_selectors, store->arena, &set);
	int64_t key = key_of(parent, seq);

	TRY(row_put(store, TABLE_ENTRY,
		    CELLS(INT(key), INT(seq), TEXT(entry->id), TEXT(spiffe_id),
			  INT(similar_hash(store->hasher, set, n)), INT(entry->admin), INT(entry->downstream),
			  INT(entry->expires_at), BLOB(blob)),
		    err));
	for (size_t i = 0; i < entry->n_federates_with; i++)
		TRY(row_put(store, TABLE_FEDERATES, CELLS(TEXT(entry->federates_with[i]), INT(key)), err));
	if (parent_is_server(spiffe_id_text(entry->parent_id, store->arena)))
		return alias_file(store, key, entry, err);
	return parent_name(store, spiffe_id, true, err);
}

static enum code rows_drop(struct store *store, int64_t key, const Pb__Entry *entry, struct err *err)
{
	bool alias;

	for (size_t i = 0; i < entry->n_federates_with; i++)
		TRY(row_drop(store, TABLE_FEDERATES, CELLS(TEXT(entry->federates_with[i]), INT(key)), NULL, err));
	TRY(row_drop(store, TABLE_ALIAS, CELLS(INT(key)), &alias, err));
	TRY(row_drop(store, TABLE_ENTRY, CELLS(INT(key)), NULL, err));
	return alias ? CODE_OK : parent_name(store, spiffe_id_text(entry->spiffe_id, store->arena), false, err);
}

static enum code entry_put(struct store *store, uint64_t seq, const Pb__Entry *entry, struct err *err)
{
	int64_t parent;

	TRY(parent_take(store, spiffe_id_text(entry->parent_id, store->arena), &parent, err));
	return rows_put(store, parent, seq, entry, err);
}

enum code entry_drop(struct store *store, int64_t key, const Pb__Entry *entry, struct err *err)
{
	TRY(rows_drop(store, key, entry, err));
	return parent_release(store, key >> 32, err);
}

/* `new` in the place of `old`: a parent that both have keeps its number. */
static enum code entry_swap(struct store *store, int64_t key, const Pb__Entry *old, const Pb__Entry *new,
			    struct err *err)
{
	int64_t parent;

	TRY(parent_take(store, spiffe_id_text(new->parent_id, store->arena), &parent, err));
	TRY(rows_drop(store, key, old, err));
	TRY(rows_put(store, parent, (uint32_t)key, new, err));
	return parent == key >> 32 ? CODE_OK : parent_release(store, key >> 32, err);
}

static enum code entry_read(struct query *q, struct arena *arena, struct entry_at *out, struct err *err)
{
	*out = (struct entry_at){ 0 };
	TRY(query_step(q, &out->found, err));
	if (out->found) {
		out->key = column_int(q, 1);
		out->blob = column_blob_copy(q, 2, arena);
	}
	return CODE_OK;
}

enum code entry_by_id(struct db *db, const char *id, struct arena *arena, struct entry_at *out, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(db, SQL_ENTRY_BY_ID, &q, err));
	query_text(&q, 1, id);
	return entry_read(&q, arena, out, err);
}

static enum code entry_decode(struct db *db, struct span blob, struct arena *arena, Pb__Entry **out, struct err *err)
{
	*out = message_unpack(&pb__entry__descriptor, blob, arena);
	return *out != NULL ? CODE_OK : err_set(err, CODE_DATA_LOSS, "an entry in '%s' is damaged", db->path);
}

enum code entry_by_key(struct db *db, int64_t key, struct arena *arena, Pb__Entry **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*out = NULL;
	TRY(query_open(db, SQL_ENTRY_GET, &q, err));
	query_int(&q, 1, key);
	TRY(query_step(&q, &row, err));
	return row ? entry_decode(db, column_blob(&q, 8), arena, out, err) : CODE_OK;
}

/* Same SPIFFE ID, same parent, same set of selectors. The hash finds it, the sets decide. */
static enum code entry_similar(struct store *store, const Pb__Entry *entry, struct entry_at *out, struct err *err)
{
	struct selector_set set;
	int64_t parent;
	bool named;
	OWN_QUERY q = { 0 };

	*out = (struct entry_at){ 0 };
	TRY(parent_number(store->db, spiffe_id_text(entry->parent_id, store->arena), &parent, &named, err));
	if (parent == 0)
		return CODE_OK;
	set.n = selectors_set(entry->selectors, entry->n_selectors, store->arena, &set.items);
	TRY(query_open(store->db, SQL_ENTRY_SIMILAR, &q, err));
	query_text(&q, 1, spiffe_id_text(entry->spiffe_id, store->arena));
	query_int(&q, 2, similar_hash(store->hasher, set.items, set.n));
	query_int(&q, 3, parent);
	do
		TRY(entry_read(&q, store->arena, out, err));
	while (out->found &&
	       !selectors_match(out->blob, ENTRY_SELECTORS, &set, PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_EXACT));
	return CODE_OK;
}

/* What is stored: federated trust domains in order and none twice, no attributes that say nothing. `given` stays as it
 * is. */
static Pb__Entry *normalise(const Pb__Entry *given, struct arena *arena)
{
	Pb__Entry *entry = arena_memdup(arena, given, sizeof *given);
	const Pb__Entry__AdditionalAttributes *more = given->additional_attributes;
	const char **names = arena_memdup(arena, given->federates_with, given->n_federates_with * sizeof *names);
	size_t n = 0;

	strings_sort(names, given->n_federates_with);
	for (size_t i = 0; i < given->n_federates_with; i++)
		if (n == 0 || strcmp(names[n - 1], names[i]) != 0)
			names[n++] = names[i];
	entry->federates_with = names;
	entry->n_federates_with = n;
	if (more != NULL && !more->disable_x509_svid_prefetch && !more->jwt_svid_include_jti)
		entry->additional_attributes = NULL;
	return entry;
}

/* The form of results of create and update: selectors and DNS names sorted (in SPIRE an effect of an index). */
static Pb__Entry *sorted(const Pb__Entry *entry, struct arena *arena)
{
	Pb__Entry *out = arena_memdup(arena, entry, sizeof *entry);

	out->selectors = arena_memdup(arena, entry->selectors, entry->n_selectors * sizeof *entry->selectors);
	out->dns_names = arena_memdup(arena, entry->dns_names, entry->n_dns_names * sizeof *entry->dns_names);
	selectors_sort(out->selectors, out->n_selectors);
	strings_sort(out->dns_names, out->n_dns_names);
	return out;
}

#define INVALID "datastore-validation: invalid registration entry: "

static bool one_type(const Pb__Entry *entry)
{
	for (size_t i = 1; i < entry->n_selectors; i++)
		if (strcmp(entry->selectors[i]->type, entry->selectors[0]->type) != 0)
			return false;
	return true;
}

static bool id_characters(const char *id)
{
	return id[strspn(id, "-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] == '\0';
}

/* NULL: nothing against it. The edge has checked the form; what it cannot have missed is checked all the same. */
static const char *fault_of(const Pb__Entry *entry)
{
	if (entry->spiffe_id == NULL)
		return INVALID "missing SPIFFE ID";
	if (entry->parent_id == NULL)
		return INVALID "missing parent ID";
	if (entry->n_selectors == 0)
		return INVALID "missing selector list";
	if (entry->store_svid && !one_type(entry))
		return INVALID "selector types must be the same when store SVID is enabled";
	return NULL;
}

static const char *fault_of_new(const Pb__Entry *entry)
{
	const char *fault;

	if (entry->store_svid && entry->additional_attributes != NULL &&
	    entry->additional_attributes->disable_x509_svid_prefetch)
		return "datastore-validation: specifying cache behaviour is incompatible with storable SVIDs";
	fault = fault_of(entry);
	if (fault != NULL)
		return fault;
	if (strlen(entry->id) > ENTRY_ID_MAX)
		return INVALID "entry ID too long";
	if (!id_characters(entry->id))
		return INVALID "entry ID contains invalid characters";
	if (entry->x509_svid_ttl < 0)
		return INVALID "X509SvidTtl is not set";
	if (entry->jwt_svid_ttl < 0)
		return INVALID "JwtSvidTtl is not set";
	return entry->id[0] == '\0' ? INVALID "missing entry ID" : NULL;
}

static bool has_duplicates(const char *const *strings, size_t n, struct arena *arena)
{
	const char **all = arena_memdup(arena, strings, n * sizeof *all);

	strings_sort(all, n);
	for (size_t i = 1; i < n; i++)
		if (strcmp(all[i - 1], all[i]) == 0)
			return true;
	return false;
}

/* SPIRE's words for what its indexes refuse. *ok: nothing is twice. */
static enum code check_twice(struct apply *a, const Pb__Entry *entry, bool *ok)
{
	Pb__Selector **set;

	*ok = false;
	if (selectors_set(entry->selectors, entry->n_selectors, a->arena, &set) != entry->n_selectors)
		return outcome_refuse(a, CODE_ALREADY_EXISTS,
				      "datastore-sql: UNIQUE constraint failed: selectors.registered_entry_id, "
				      "selectors.type, selectors.value");
	if (has_duplicates(entry->dns_names, entry->n_dns_names, a->arena))
		return outcome_refuse(
			a, CODE_ALREADY_EXISTS,
			"datastore-sql: UNIQUE constraint failed: dns_names.registered_entry_id, dns_names.value");
	*ok = true;
	return CODE_OK;
}

/* *ok: each federated trust domain has a bundle. */
static enum code check_bundles(struct apply *a, const Pb__Entry *entry, bool *ok, struct err *err)
{
	*ok = false;
	for (size_t i = 0; i < entry->n_federates_with; i++) {
		OWN_QUERY q = { 0 };
		bool row;

		TRY(query_open(a->store->db, SQL_BUNDLE_VERSION, &q, err));
		query_text(&q, 1, entry->federates_with[i]);
		TRY(query_step(&q, &row, err));
		if (!row)
			return outcome_refuse(a, CODE_INTERNAL, "unable to find federated bundle \"spiffe://%s\"",
					      entry->federates_with[i]);
	}
	*ok = true;
	return CODE_OK;
}

enum code entry_create(struct apply *a, const Pb__Entry *given, struct err *err)
{
	struct store *store = a->store;
	Pb__Entry *entry = normalise(given, a->arena);
	const char *fault = fault_of_new(entry);
	struct entry_at other;
	bool ok;

	if (fault != NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "%s", fault);
	TRY(entry_similar(store, entry, &other, err));
	if (other.found) {
		TRY(entry_decode(store->db, other.blob, a->arena, &a->out->entry, err));
		return outcome_refuse(a, CODE_ALREADY_EXISTS, "similar entry already exists");
	}
	TRY(entry_by_id(store->db, entry->id, a->arena, &other, err));
	if (other.found)
		return outcome_refuse(a, CODE_ALREADY_EXISTS,
				      "datastore-sql: UNIQUE constraint failed: registered_entries.entry_id");
	TRY(check_bundles(a, entry, &ok, err));
	if (ok)
		TRY(check_twice(a, entry, &ok));
	if (!ok)
		return CODE_OK;
	if (store->numbers[SEQ_ENTRY] >= UINT32_MAX || store->numbers[SEQ_PARENT] >= INT32_MAX)
		return outcome_refuse(a, CODE_RESOURCE_EXHAUSTED, "no numbers are left for entries");
	entry->revision_number = 0;
	entry->created_at = (store->now_ms + 500) / 1000;
	TRY(entry_put(store, ++store->numbers[SEQ_ENTRY], entry, err));
	a->out->entry = sorted(entry, a->arena);
	a->out->changed = true;
	return CODE_OK;
}

enum code apply_entry_create(struct apply *a, struct err *err)
{
	const Pb__EntryCreate *in = a->command->entry_create;

	if (in->entry == NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "missing entry");
	return entry_create(a, in->entry, err);
}

#define TAKES(field) (mask == NULL || mask->field)

/* The faults of the masked-in fields of an update; NULL: none. */
static const char *fault_of_update(const Pb__Entry *in, const Pb__EntryMask *mask)
{
	if (TAKES(selectors) && in->n_selectors == 0)
		return INVALID "missing selector list";
	if (TAKES(x509_svid_ttl) && in->x509_svid_ttl < 0)
		return INVALID "X509SvidTtl is not set";
	if (TAKES(jwt_svid_ttl) && in->jwt_svid_ttl < 0)
		return INVALID "JwtSvidTtl is not set";
	return NULL;
}

static void entry_merge(Pb__Entry *entry, const Pb__Entry *in, const Pb__EntryMask *mask)
{
	if (TAKES(spiffe_id))
		entry->spiffe_id = in->spiffe_id;
	if (TAKES(parent_id))
		entry->parent_id = in->parent_id;
	if (TAKES(selectors)) {
		entry->selectors = in->selectors;
		entry->n_selectors = in->n_selectors;
	}
	if (TAKES(x509_svid_ttl))
		entry->x509_svid_ttl = in->x509_svid_ttl;
	if (TAKES(federates_with)) {
		entry->federates_with = in->federates_with;
		entry->n_federates_with = in->n_federates_with;
	}
	if (TAKES(admin))
		entry->admin = in->admin;
	if (TAKES(downstream))
		entry->downstream = in->downstream;
	if (TAKES(expires_at))
		entry->expires_at = in->expires_at;
	if (TAKES(dns_names)) {
		entry->dns_names = in->dns_names;
		entry->n_dns_names = in->n_dns_names;
	}
	if (TAKES(store_svid))
		entry->store_svid = in->store_svid;
	if (TAKES(jwt_svid_ttl))
		entry->jwt_svid_ttl = in->jwt_svid_ttl;
	if (TAKES(hint))
		entry->hint = in->hint;
	if (TAKES(additional_attributes))
		entry->additional_attributes = in->additional_attributes;
}

static enum code entry_change(struct apply *a, int64_t key, const Pb__Entry *old, const Pb__Entry *new, struct err *err)
{
	struct store *store = a->store;

	TRY(entry_swap(store, key, old, new, err));
	a->out->entry = sorted(new, a->arena);
	a->out->changed = true;
	return CODE_OK;
}

enum code apply_entry_update(struct apply *a, struct err *err)
{
	const Pb__EntryUpdate *in = a->command->entry_update;
	Pb__Entry *old, *new;
	struct entry_at at;
	const char *fault;
	bool ok;

	if (in->entry == NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "missing entry");
	fault = fault_of_update(in->entry, in->mask);
	if (fault != NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "%s", fault);
	TRY(entry_by_id(a->store->db, in->entry->id, a->arena, &at, err));
	if (!at.found)
		return outcome_refuse(a, CODE_NOT_FOUND, "failed to update entry");
	TRY(entry_decode(a->store->db, at.blob, a->arena, &old, err));
	new = arena_memdup(a->arena, old, sizeof *old);
	entry_merge(new, in->entry, in->mask);
	new = normalise(new, a->arena);
	fault = fault_of(new);
	if (fault != NULL)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "%s", fault);
	TRY(check_twice(a, new, &ok)); /* the order is SPIRE's */
	if (ok)
		TRY(check_bundles(a, new, &ok, err));
	if (!ok)
		return CODE_OK;
	new->revision_number++;
	return entry_change(a, at.key, old, new, err);
}

enum code apply_entry_delete(struct apply *a, struct err *err)
{
	struct entry_at at;
	Pb__Entry *entry;

	TRY(entry_by_id(a->store->db, a->command->entry_delete->id, a->arena, &at, err));
	if (!at.found)
		return outcome_refuse(a, CODE_NOT_FOUND, "entry not found");
	TRY(entry_decode(a->store->db, at.blob, a->arena, &entry, err));
	a->out->changed = true;
	return entry_drop(a->store, at.key, entry, err);
}

/* One of very many: what it takes is given back at its end. `run` gets the entry, or the file is damaged. */
static enum code with_entry(struct store *store, int64_t key,
			    enum code (*run)(struct store *store, int64_t key, Pb__Entry *entry, const char *td,
					     struct err *err),
			    const char *td, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct arena *outer = store->arena;
	Pb__Entry *entry;
	enum code rc;

	TRY(entry_by_key(store->db, key, arena, &entry, err));
	if (entry == NULL)
		return err_set(err, CODE_DATA_LOSS, "an entry in '%s' is missing", store->db->path);
	store->arena = arena;
	rc = run(store, key, entry, td, err);
	store->arena = outer;
	return rc;
}

static enum code drop(struct store *store, int64_t key, Pb__Entry *entry, const char *td __attribute__((unused)),
		      struct err *err)
{
	return entry_drop(store, key, entry, err);
}

enum code entry_drop_by_key(struct store *store, int64_t key, struct err *err)
{
	return with_entry(store, key, drop, NULL, err);
}

static enum code dissociate(struct store *store, int64_t key, Pb__Entry *old, const char *td, struct err *err)
{
	Pb__Entry *new = arena_memdup(store->arena, old, sizeof *old);
	size_t n = 0;

	new->federates_with = arena_alloc(store->arena, old->n_federates_with * sizeof *old->federates_with);
	for (size_t i = 0; i < old->n_federates_with; i++)
		if (strcmp(old->federates_with[i], td) != 0)
			new->federates_with[n++] = old->federates_with[i];
	new->n_federates_with = n;
	return entry_swap(store, key, old, new, err);
}

enum code entry_dissociate(struct store *store, int64_t key, const char *td, struct err *err)
{
	return with_entry(store, key, dissociate, td, err);
}

static enum code expired_keys(struct apply *a, int64_t *keys, size_t *n, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(a->store->db, SQL_ENTRY_EXPIRED, &q, err));
	query_int(&q, 1, a->command->entry_prune->before);
	query_int(&q, 2, PRUNE_MAX);
	for (*n = 0;; (*n)++) {
		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		keys[*n] = column_int(&q, 0);
	}
}

/* At most PRUNE_MAX at a time: `count` = that many means that there may be more. */
enum code apply_entry_prune(struct apply *a, struct err *err)
{
	int64_t *keys = arena_alloc(a->arena, PRUNE_MAX * sizeof *keys);
	size_t n;

	TRY(expired_keys(a, keys, &n, err));
	for (size_t i = 0; i < n; i++)
		TRY(entry_drop_by_key(a->store, keys[i], err));
	a->out->count = (uint32_t)n;
	a->out->changed = n > 0;
	return CODE_OK;
}
