/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/entry_data.h"

#include "cmd/cli.h"
#include "cmd/convert.h"
#include "cmd/json_read.h"

struct selector_data {
	const char *type, *value;
};

struct entry_data {
	struct json_list selectors; /* struct selector_data */
	const char *parent_id, *spiffe_id, *entry_id, *hint;
	int32_t x509_svid_ttl, jwt_svid_ttl;
	struct strings federates_with, dns_names;
	bool admin, downstream, store_svid;
	int64_t expires_at, revision_number, created_at;
};

struct entries_data {
	struct json_list entries; /* struct entry_data */
};

static const struct json_field selector_fields[] = {
	{ "type", JSON_READ_STRING, offsetof(struct selector_data, type), NULL },
	{ "value", JSON_READ_STRING, offsetof(struct selector_data, value), NULL },
	{ 0 },
};
static const struct json_shape selector_shape = { "common", "Selector", sizeof(struct selector_data), selector_fields };

static const struct json_field entry_fields[] = {
	{ "selectors", JSON_READ_OBJECTS, offsetof(struct entry_data, selectors), &selector_shape },
	{ "parent_id", JSON_READ_STRING, offsetof(struct entry_data, parent_id), NULL },
	{ "spiffe_id", JSON_READ_STRING, offsetof(struct entry_data, spiffe_id), NULL },
	{ "x509_svid_ttl", JSON_READ_INT32, offsetof(struct entry_data, x509_svid_ttl), NULL },
	{ "federates_with", JSON_READ_STRINGS, offsetof(struct entry_data, federates_with), NULL },
	{ "entry_id", JSON_READ_STRING, offsetof(struct entry_data, entry_id), NULL },
	{ "admin", JSON_READ_BOOL, offsetof(struct entry_data, admin), NULL },
	{ "downstream", JSON_READ_BOOL, offsetof(struct entry_data, downstream), NULL },
	{ "entryExpiry", JSON_READ_INT64, offsetof(struct entry_data, expires_at), NULL },
	{ "dns_names", JSON_READ_STRINGS, offsetof(struct entry_data, dns_names), NULL },
	{ "revision_number", JSON_READ_INT64, offsetof(struct entry_data, revision_number), NULL },
	{ "store_svid", JSON_READ_BOOL, offsetof(struct entry_data, store_svid), NULL },
	{ "jwt_svid_ttl", JSON_READ_INT32, offsetof(struct entry_data, jwt_svid_ttl), NULL },
	{ "hint", JSON_READ_STRING, offsetof(struct entry_data, hint), NULL },
	{ "created_at", JSON_READ_INT64, offsetof(struct entry_data, created_at), NULL },
	{ 0 },
};
static const struct json_shape entry_shape = { "common", "RegistrationEntry", sizeof(struct entry_data), entry_fields };

static const struct json_field entries_fields[] = {
	{ "entries", JSON_READ_OBJECTS, offsetof(struct entries_data, entries), &entry_shape },
	{ 0 },
};
static const struct json_shape entries_shape = { "common", "RegistrationEntries", sizeof(struct entries_data),
						 entries_fields };

static const struct json_field ids_fields[] = { { "ids", JSON_READ_STRINGS, 0, NULL }, { 0 } };
static const struct json_shape ids_shape = { "entryv1", "BatchDeleteEntryRequest", sizeof(struct strings), ids_fields };

static enum code read_file(const char *path, const struct json_shape *shape, void *out, struct arena *arena,
			   struct err *err)
{
	struct span text;

	TRY(cli_read_file(path, arena, &text, err));
	return json_read((const char *)text.data, text.len, shape, out, arena, err);
}

static enum code parse_id(const char *text, const char *what, struct arena *arena, Pb__SPIFFEID **out, struct err *err)
{
	enum code rc = convert_id(text, arena, out, err);

	return rc == CODE_OK ? rc : err_wrap(err, rc, "invalid %s", what);
}

static void copy_selectors(const struct json_list *list, Pb__Entry *out, struct arena *arena)
{
	out->selectors = arena_alloc(arena, list->n * sizeof *out->selectors);
	for (size_t i = 0; i < list->n; i++) {
		const struct selector_data *data = list->items[i];
		Pb__Selector *selector = arena_alloc(arena, sizeof *selector);

		pb__selector__init(selector);
		if (data != NULL) {
			selector->type = data->type;
			selector->value = data->value;
		}
		out->selectors[out->n_selectors++] = selector;
	}
}

static enum code to_proto(const struct entry_data *data, struct arena *arena, Pb__Entry **entry, struct err *err)
{
	Pb__Entry *out = arena_alloc(arena, sizeof *out);

	if (data == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "missing registration entry");
	pb__entry__init(out);
	TRY(parse_id(data->spiffe_id, "SPIFFE ID", arena, &out->spiffe_id, err));
	TRY(parse_id(data->parent_id, "parent ID", arena, &out->parent_id, err));
	copy_selectors(&data->selectors, out, arena);
	out->id = data->entry_id;
	out->hint = data->hint;
	out->x509_svid_ttl = data->x509_svid_ttl;
	out->jwt_svid_ttl = data->jwt_svid_ttl;
	out->federates_with = data->federates_with.items;
	out->n_federates_with = data->federates_with.n;
	out->dns_names = data->dns_names.items;
	out->n_dns_names = data->dns_names.n;
	out->admin = data->admin;
	out->downstream = data->downstream;
	out->store_svid = data->store_svid;
	out->expires_at = data->expires_at;
	out->revision_number = data->revision_number;
	out->created_at = data->created_at;
	*entry = out;
	return CODE_OK;
}

enum code entry_read_data(const char *path, struct arena *arena, Pb__Entry ***out, size_t *n, struct err *err)
{
	struct entries_data data;
	Pb__Entry **entries;

	TRY(read_file(path, &entries_shape, &data, arena, err));
	entries = arena_alloc(arena, data.entries.n * sizeof *entries);
	for (size_t i = 0; i < data.entries.n; i++)
		TRY(to_proto(data.entries.items[i], arena, &entries[i], err));
	*out = entries;
	*n = data.entries.n;
	return CODE_OK;
}

enum code entry_read_ids(const char *path, struct arena *arena, struct strings *out, struct err *err)
{
	return read_file(path, &ids_shape, out, arena, err);
}
