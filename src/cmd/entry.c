/* SPDX-License-Identifier: Apache-2.0 */
/* entry create, update, delete: what writes. entry_show.c has what reads. */
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"
#include "cmd/entry_data.h"
#include "cmd/print.h"

#include "entry.pb-c.h"

#include <stdio.h>

#define SERVICE "/spire.api.server.entry.v1.Entry/"

static const struct rpc create_rpc = { SERVICE "BatchCreateEntry", &pb__batch_create_entry_response__descriptor };
static const struct rpc update_rpc = { SERVICE "BatchUpdateEntry", &pb__batch_update_entry_response__descriptor };
static const struct rpc delete_rpc = { SERVICE "BatchDeleteEntry", &pb__batch_delete_entry_response__descriptor };

struct write_options {
	struct cli_flags cli;
	const char *data, *entry_id, *parent_id, *spiffe_id, *hint;
	struct strings selectors, federates_with, dns_names;
	bool downstream, admin, store_svid, node;
	int64_t x509_svid_ttl, jwt_svid_ttl, expires_at;
};

#define WRITE_FLAGS                                                                                                    \
	CLI_FLAGS(struct write_options),                                                                               \
		FLAG_STRING(struct write_options, data, "data", "", "A JSON file with entries, - for standard input"), \
		FLAG_STRING(struct write_options, parent_id, "parentID", "", "The SPIFFE ID of the entry's parent"),   \
		FLAG_STRING(struct write_options, spiffe_id, "spiffeID", "",                                           \
			    "The SPIFFE ID that the entry stands for"),                                                \
		FLAG_STRINGS(struct write_options, selectors, "selector",                                              \
			     "A selector as type:value; may be repeated"),                                             \
		FLAG_STRINGS(struct write_options, federates_with, "federatesWith",                                    \
			     "The SPIFFE ID of a trust domain to federate with; may be repeated"),                     \
		FLAG_BOOL(struct write_options, downstream, "downstream", "The entry is that of a downstream server"), \
		FLAG_BOOL(struct write_options, admin, "admin", "The SPIFFE ID may use the server's management APIs"), \
		FLAG_BOOL(struct write_options, store_svid, "storeSVID", "The SVID is kept by an SVIDStore plugin"),   \
		FLAG_STRINGS(struct write_options, dns_names, "dns", "A DNS name of the SVIDs; may be repeated"),      \
		FLAG_INT(struct write_options, x509_svid_ttl, "x509SVIDTTL", 0, "Lifetime of X509-SVIDs in seconds"),  \
		FLAG_INT(struct write_options, jwt_svid_ttl, "jwtSVIDTTL", 0, "Lifetime of JWT-SVIDs in seconds"),     \
		FLAG_INT(struct write_options, expires_at, "entryExpiry", 0,                                           \
			 "When the entry ends, in seconds since 1970"),                                                \
		FLAG_STRING(struct write_options, hint, "hint", "", "Tells entries of the same SPIFFE ID apart")

static enum code invalid(const char *text, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", text);
}

static enum code check_create(const struct write_options *o, struct err *err)
{
	if (o->selectors.n == 0)
		return invalid("at least one selector is required", err);
	if (o->node && o->federates_with.n > 0)
		return invalid("node entries can not federate", err);
	if (o->parent_id[0] == '\0' && !o->node)
		return invalid("a parent ID is required if the node flag is not set", err);
	return CODE_OK;
}

static enum code check_update(const struct write_options *o, struct err *err)
{
	if (o->entry_id[0] == '\0')
		return invalid("entry ID is required", err);
	if (o->selectors.n == 0)
		return invalid("at least one selector is required", err);
	if (o->parent_id[0] == '\0')
		return invalid("a parent ID is required", err);
	return CODE_OK;
}

static enum code check_both(const struct write_options *o, struct err *err)
{
	if (o->spiffe_id[0] == '\0')
		return invalid("a SPIFFE ID is required", err);
	if (o->x509_svid_ttl < 0)
		return invalid("a positive x509-SVID TTL is required", err);
	if (o->jwt_svid_ttl < 0)
		return invalid("a positive JWT-SVID TTL is required", err);
	return CODE_OK;
}

static enum code convert_ttl(int64_t ttl, const char *what, int32_t *out, struct err *err)
{
	if (cli_int32(ttl, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid value for %s TTL", what);
	return CODE_OK;
}

/* The parent of a node entry is the server itself. */
static enum code convert_parent(const struct write_options *o, Pb__Entry *entry, struct arena *arena, struct err *err)
{
	if (!o->node)
		return convert_id(o->parent_id, arena, &entry->parent_id, err);
	entry->parent_id = arena_memdup(arena, entry->spiffe_id, sizeof *entry->spiffe_id);
	entry->parent_id->path = "/spire/server";
	return CODE_OK;
}

/* Of two ids that are both wrong create names the entry's own, update the parent. */
static enum code convert_ids(const struct write_options *o, bool parent_first, Pb__Entry *entry, struct arena *arena,
			     struct err *err)
{
	if (parent_first)
		TRY(convert_id(o->parent_id, arena, &entry->parent_id, err));
	TRY(convert_id(o->spiffe_id, arena, &entry->spiffe_id, err));
	return convert_parent(o, entry, arena, err);
}

static enum code from_flags(const struct write_options *o, bool update, struct arena *arena, Pb__Entry *entry,
			    struct err *err)
{
	pb__entry__init(entry);
	TRY(convert_ids(o, update, entry, arena, err));
	TRY(convert_ttl(o->x509_svid_ttl, "X509 SVID", &entry->x509_svid_ttl, err));
	TRY(convert_ttl(o->jwt_svid_ttl, "JWT SVID", &entry->jwt_svid_ttl, err));
	TRY(convert_selectors(&o->selectors, arena, &entry->selectors, &entry->n_selectors, err));
	entry->id = o->entry_id;
	entry->federates_with = o->federates_with.items;
	entry->n_federates_with = o->federates_with.n;
	entry->dns_names = o->dns_names.items;
	entry->n_dns_names = o->dns_names.n;
	entry->downstream = o->downstream;
	entry->admin = o->admin;
	entry->store_svid = o->store_svid;
	entry->expires_at = o->expires_at;
	entry->hint = o->hint;
	return CODE_OK;
}

/* The entries of a command: -data wins over everything else. */
static enum code gather(const struct write_options *o, bool update, struct arena *arena, Pb__Entry ***entries,
			size_t *n, struct err *err)
{
	if (o->data[0] != '\0')
		return entry_read_data(o->data, arena, entries, n, err);
	TRY(update ? check_update(o, err) : check_create(o, err));
	TRY(check_both(o, err));
	*entries = arena_alloc(arena, sizeof **entries);
	**entries = arena_alloc(arena, sizeof ***entries);
	*n = 1;
	return from_flags(o, update, arena, **entries, err);
}

/* What is shown of one result. */
struct outcome {
	const Pb__Status *status;
	Pb__Entry *entry;
};

static enum code show_outcomes(const struct outcome *outcomes, size_t n, const char *verb, struct err *err)
{
	bool failed = false;

	for (size_t i = 0; i < n; i++)
		if (outcomes[i].status->code == CODE_OK && outcomes[i].entry != NULL)
			print_entry(stdout, outcomes[i].entry);
	for (size_t i = 0; i < n; i++) {
		if (outcomes[i].status->code == CODE_OK)
			continue;
		failed = true;
		print_failure(outcomes[i].status, ":", "Failed to %s the following entry", verb);
		if (outcomes[i].entry != NULL)
			print_entry(stderr, outcomes[i].entry);
	}
	if (failed)
		return err_set(err, CODE_UNKNOWN, "failed to %s one or more entries", verb);
	return CODE_OK;
}

/* A server that answers without a status has failed the item. */
static Pb__Status *status_of(Pb__Status *status, struct arena *arena)
{
	if (status != NULL)
		return status;
	status = arena_alloc(arena, sizeof *status);
	pb__status__init(status);
	status->code = CODE_UNKNOWN;
	status->message = "server response missing status";
	return status;
}

static enum code run_create(struct cli *cli, const void *options, struct err *err)
{
	Pb__BatchCreateEntryRequest request = PB__BATCH_CREATE_ENTRY_REQUEST__INIT;
	Pb__BatchCreateEntryResponse *reply;
	struct outcome *outcomes;

	TRY(gather(options, false, cli->arena, &request.entries, &request.n_entries, err));
	TRY(cli_call(cli, &create_rpc, &request, &reply, err));
	outcomes = arena_alloc(cli->arena, reply->n_results * sizeof *outcomes);
	for (size_t i = 0; i < reply->n_results; i++) {
		Pb__BatchCreateEntryResponse__Result *result = reply->results[i];

		result->status = status_of(result->status, cli->arena);
		if (result->status->code != CODE_OK && i < request.n_entries)
			result->entry = request.entries[i]; /* so that one sees what failed */
		outcomes[i] = (struct outcome){ result->status, result->entry };
	}
	if (cli_json(cli))
		return cli_print_json(reply, err);
	return show_outcomes(outcomes, reply->n_results, "create", err);
}

static enum code run_update(struct cli *cli, const void *options, struct err *err)
{
	Pb__BatchUpdateEntryRequest request = PB__BATCH_UPDATE_ENTRY_REQUEST__INIT;
	Pb__BatchUpdateEntryResponse *reply;
	struct outcome *outcomes;

	TRY(gather(options, true, cli->arena, &request.entries, &request.n_entries, err));
	TRY(cli_call(cli, &update_rpc, &request, &reply, err));
	outcomes = arena_alloc(cli->arena, reply->n_results * sizeof *outcomes);
	for (size_t i = 0; i < reply->n_results; i++) {
		Pb__BatchUpdateEntryResponse__Result *result = reply->results[i];

		result->status = status_of(result->status, cli->arena);
		if (result->status->code != CODE_OK && i < request.n_entries)
			result->entry = request.entries[i];
		outcomes[i] = (struct outcome){ result->status, result->entry };
	}
	if (cli_json(cli))
		return cli_print_json(reply, err);
	return show_outcomes(outcomes, reply->n_results, "update", err);
}

struct delete_options {
	struct cli_flags cli;
	const char *entry_id, *file;
};

static enum code show_deleted(const Pb__BatchDeleteEntryResponse *reply, struct arena *arena, struct err *err)
{
	size_t deleted = 0, failed;

	for (size_t i = 0; i < reply->n_results; i++) {
		reply->results[i]->status = status_of(reply->results[i]->status, arena);
		if (reply->results[i]->status->code != CODE_OK)
			continue;
		printf("Deleted entry with ID: %s\n", reply->results[i]->id);
		deleted++;
	}
	failed = reply->n_results - deleted;
	if (deleted > 0)
		printf("\n\n");
	for (size_t i = 0; i < reply->n_results; i++)
		if (reply->results[i]->status->code != CODE_OK)
			print_failure(reply->results[i]->status, "", "Failed to delete entry with ID %s",
				      reply->results[i]->id);
	if (failed == 0) {
		printf("Deleted %zu entries successfully", deleted);
		return CODE_OK;
	}
	if (deleted == 0)
		printf("\n\nFailed to delete %zu entries", failed);
	else
		printf("\n\nDeleted %zu entries successfully, but failed to delete %zu entries", deleted, failed);
	return err_set(err, CODE_UNKNOWN, "failed to delete one or more entries");
}

static enum code run_delete(struct cli *cli, const void *options, struct err *err)
{
	const struct delete_options *o = options;
	Pb__BatchDeleteEntryRequest request = PB__BATCH_DELETE_ENTRY_REQUEST__INIT;
	struct strings ids = { (const char **)&o->entry_id, 1 };
	Pb__BatchDeleteEntryResponse *reply;

	if (o->file[0] != '\0')
		TRY(entry_read_ids(o->file, cli->arena, &ids, err));
	else if (o->entry_id[0] == '\0')
		return invalid("an entry ID is required", err);
	request.ids = ids.items;
	request.n_ids = ids.n;
	TRY(cli_call(cli, &delete_rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	return show_deleted(reply, cli->arena, err);
}

static const struct flag create_flags[] = {
	WRITE_FLAGS,
	FLAG_STRING(struct write_options, entry_id, "entryID", "",
		    "The id of the entry; the server makes one if there is none"),
	FLAG_BOOL(struct write_options, node, "node", "The entry is for nodes that match: its parent is the server"),
	FLAG_END,
};
static const struct flag update_flags[] = {
	WRITE_FLAGS,
	FLAG_STRING(struct write_options, entry_id, "entryID", "", "The id of the entry that is replaced"),
	FLAG_END,
};
static const struct flag delete_flags[] = {
	CLI_FLAGS(struct delete_options),
	FLAG_STRING(struct delete_options, entry_id, "entryID", "", "The id of the entry"),
	FLAG_STRING(struct delete_options, file, "file", "", "A JSON file with ids, - for standard input"),
	FLAG_END,
};

const struct cli_command cmd_entry_create = { { "entry create", create_flags },
					      sizeof(struct write_options),
					      run_create };
const struct cli_command cmd_entry_update = { { "entry update", update_flags },
					      sizeof(struct write_options),
					      run_update };
const struct cli_command cmd_entry_delete = { { "entry delete", delete_flags },
					      sizeof(struct delete_options),
					      run_delete };
