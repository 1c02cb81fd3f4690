/* SPDX-License-Identifier: Apache-2.0 */
/* plugins {}: which are declared, which of them this server has, and the data of those. SPIRE reads a file in two
 * steps, and so does this: config_load lists the plugins and refuses what it must not leave out; config_plugins counts
 * and configures. */
#include "base/config_raw.h"

#include "base/gotext.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum standing {
	BUILT,   /* config_plugins configures it */
	IGNORED, /* a WARN line */
	REFUSED,
};

/* What SPIRE knows. A NULL name stands for all of its type. */
static const struct known {
	const char *type, *name;
	enum standing standing;
	const char *remark;
} known[] = {
	{ "DataStore", NULL, BUILT, NULL },
	{ "KeyManager", "disk", BUILT, NULL },
	{ "KeyManager", "memory", BUILT, NULL },
#define KEYS_ELSEWHERE "its keys are not in reach; use KeyManager \"disk\" or \"memory\""
	{ "KeyManager", "aws_kms", REFUSED, KEYS_ELSEWHERE },
	{ "KeyManager", "azure_key_vault", REFUSED, KEYS_ELSEWHERE },
	{ "KeyManager", "gcp_kms", REFUSED, KEYS_ELSEWHERE },
	{ "KeyManager", "hashicorp_vault", REFUSED, KEYS_ELSEWHERE },
	{ "NodeAttestor", "join_token", BUILT, NULL },
	{ "NodeAttestor", "x509pop", BUILT, NULL },
#define NO_ATTESTOR "agents could not attest by it; remove the block, or use NodeAttestor \"join_token\" or \"x509pop\""
	{ "NodeAttestor", "aws_iid", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "azure_imds", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "azure_msi", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "gcp_iit", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "http_challenge", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "k8s_psat", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "sshpop", REFUSED, NO_ATTESTOR },
	{ "NodeAttestor", "tpm_devid", REFUSED, NO_ATTESTOR },
	{ "UpstreamAuthority", "disk", BUILT, NULL },
	{ "UpstreamAuthority", "spire", BUILT, NULL },
#define NO_UPSTREAM "the CA would not be signed by it; use UpstreamAuthority \"disk\" or \"spire\", or remove the block"
	{ "UpstreamAuthority", "aws_pca", REFUSED, NO_UPSTREAM },
	{ "UpstreamAuthority", "awssecret", REFUSED, NO_UPSTREAM },
	{ "UpstreamAuthority", "cert-manager", REFUSED, NO_UPSTREAM },
	{ "UpstreamAuthority", "ejbca", REFUSED, NO_UPSTREAM },
	{ "UpstreamAuthority", "gcp_cas", REFUSED, NO_UPSTREAM },
	{ "UpstreamAuthority", "vault", REFUSED, NO_UPSTREAM },
	{ "CredentialComposer", NULL, REFUSED, "SVIDs would be issued as if it were not there; remove the block" },
	{ "Notifier", NULL, IGNORED, "nobody is notified of changes of the bundle" },
	{ "BundlePublisher", NULL, IGNORED, "the bundle is not published" },
};

static const struct known *find_known(const char *type, const char *name)
{
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strcmp(known[i].type, type) == 0 && (known[i].name == NULL || strcmp(known[i].name, name) == 0))
			return &known[i];
	return NULL;
}

static bool is_known_type(const char *type)
{
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strcmp(known[i].type, type) == 0)
			return true;
	return false;
}

/* --- what is declared */

struct list {
	struct check *c;
	struct config_plugin *items;
	size_t n, room;
};

static struct config_plugin *new_plugin(struct list *list)
{
	if (list->n == list->room) {
		struct config_plugin *more;

		list->room = list->room == 0 ? 8 : 2 * list->room;
		more = arena_zalloc(list->c->arena, list->room * sizeof *more);
		if (list->n > 0)
			memcpy(more, list->items, list->n * sizeof *more);
		list->items = more;
	}
	return &list->items[list->n++];
}

static enum code fill_plugin(struct check *c, const struct raw_plugin *raw, const char *name, struct config_plugin *out,
			     struct err *err)
{
	if (raw->plugin_data.there && raw->plugin_data_file != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "failed to create plugin config for %s/%s: only one of [plugin_data, plugin_data_file] "
			       "can be used",
			       quoted(c->arena, out->type), quoted(c->arena, name));
	if (raw->plugin_data.literal != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "failed to decode plugins config: At %d:%d: plugins.%s.%s.plugin_data: "
			       "expected a block, got %s",
			       raw->plugin_data.literal->pos.line, raw->plugin_data.literal->pos.column, out->type,
			       name, hcl_kind_name(raw->plugin_data.literal->kind));
	out->name = name;
	out->enabled = raw->enabled != TRI_FALSE;
	out->external = raw->plugin_cmd != NULL;
	out->data = raw->plugin_data.items;
	out->data_file = raw->plugin_data_file;
	return CODE_OK;
}

static void judge(struct check *c, const struct config_plugin *plugin, struct hcl_pos pos)
{
	const struct known *found = find_known(plugin->type, plugin->name);
	const char *key = arena_printf(c->arena, "plugins.%s %s", plugin->type, quoted(c->arena, plugin->name));

	if (!plugin->enabled || strcmp(plugin->type, "DataStore") == 0)
		return;
	if (plugin->external && is_known_type(plugin->type))
		config_refuse_key(&c->decoder, key, "external plugins are not started; remove the block", pos);
	else if (found != NULL && found->standing == REFUSED)
		config_refuse_key(&c->decoder, key, found->remark, pos);
	else if (found != NULL && found->standing == IGNORED)
		ignore(&c->decoder, key, found->remark, pos);
}

/* `item` begins with the name; more keys than that are keys of the plugin's block. */
static enum code add_plugin(struct list *list, const char *type, const struct hcl_item *item, struct err *err)
{
	struct hcl_item rest = { .keys = item->keys + 1, .n_keys = item->n_keys - 1, .value = item->value };
	const struct hcl_item *items = item->n_keys > 1 ? &rest : item->value->items;
	const char *name = item->keys[0].text;
	struct config_plugin *plugin;
	struct raw_plugin raw = { 0 };
	struct check *c = list->c;

	if (item->n_keys == 1 && item->value->kind != HCL_OBJECT)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "failed to decode plugins config: At %d:%d: plugins.%s.%s: expected a "
			       "block, got %s",
			       item->value->pos.line, item->value->pos.column, type, name,
			       hcl_kind_name(item->value->kind));
	if (decode_items(&c->decoder, &section_plugin, arena_printf(c->arena, "plugins.%s.%s", type, name), items, &raw,
			 err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to decode plugins config");
	apply_initial(&section_plugin, &raw);
	plugin = new_plugin(list);
	plugin->type = type;
	TRY(fill_plugin(c, &raw, name, plugin, err));
	judge(c, plugin, item->keys[0].pos);
	return CODE_OK;
}

/* KeyManager "disk" {..}, KeyManager { "disk" {..} } and KeyManager "disk" plugin_data {..} */
static enum code add_type(struct list *list, const struct hcl_item *item, struct err *err)
{
	const char *type = item->keys[0].text;
	struct hcl_item rest = { .keys = item->keys + 1, .n_keys = item->n_keys - 1, .value = item->value };

	if (item->n_keys > 1)
		return add_plugin(list, type, &rest, err);
	if (item->value->kind != HCL_OBJECT)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "failed to decode plugins config: At %d:%d: plugins.%s: expected a block, got %s",
			       item->value->pos.line, item->value->pos.column, type, hcl_kind_name(item->value->kind));
	for (const struct hcl_item *at = item->value->items; at != NULL; at = at->next)
		TRY(add_plugin(list, type, at, err));
	return CODE_OK;
}

static int by_identity(const void *a, const void *b)
{
	const struct config_plugin *const *left = a, *const *right = b;
	int order = strcmp((*left)->type, (*right)->type);

	return order != 0 ? order : strcmp((*left)->name, (*right)->name);
}

static enum code check_unique(const struct list *list, struct err *err)
{
	const struct config_plugin **sorted = arena_alloc(list->c->arena, list->n * sizeof *sorted);

	for (size_t i = 0; i < list->n; i++)
		sorted[i] = &list->items[i];
	qsort(sorted, list->n, sizeof(struct config_plugin *), by_identity);
	for (size_t i = 1; i < list->n; i++)
		if (by_identity(&sorted[i - 1], &sorted[i]) == 0)
			return err_set(err, CODE_INVALID_ARGUMENT, "plugin %s/%s declared more than once",
				       quoted(list->c->arena, sorted[i]->type),
				       quoted(list->c->arena, sorted[i]->name));
	return CODE_OK;
}

enum code check_plugin_blocks(struct check *c, struct err *err)
{
	const struct raw_node *plugins = &c->raw->plugins;
	struct list list = { .c = c };

	if (plugins->literal != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "At %d:%d: plugins: expected a block, got %s",
			       plugins->literal->pos.line, plugins->literal->pos.column,
			       hcl_kind_name(plugins->literal->kind));
	for (const struct hcl_item *item = plugins->items; item != NULL; item = item->next)
		TRY(add_type(&list, item, err));
	TRY(check_unique(&list, err));
	c->out->plugins = list.items;
	c->out->n_plugins = list.n;
	return CODE_OK;
}

/* --- their data */

/* plugin_data, or what plugin_data_file holds. */
static enum code load_items(struct check *c, const struct config_plugin *plugin, const struct hcl_item **out,
			    struct err *err)
{
	struct hcl_value *root;
	struct span text;

	*out = plugin->data;
	if (plugin->data_file == NULL)
		return CODE_OK;
	if (read_config_file(plugin->data_file, false, c->arena, &text, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to load plugin data");
	if (hcl_parse((const char *)text.data, text.len, c->arena, &root, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to load plugin data: %s", plugin->data_file);
	*out = root->items;
	return CODE_OK;
}

static enum code read_data(struct check *c, const struct config_plugin *plugin, const struct section *section,
			   void *raw, struct err *err)
{
	const char *path = arena_printf(c->arena, "plugins.%s.%s.plugin_data", plugin->type, plugin->name);
	const struct hcl_item *items;

	TRY(load_items(c, plugin, &items, err));
	if (decode_items(&c->decoder, section, path, items, raw, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT,
				"rpc error: code = InvalidArgument desc = unable to decode configuration");
	return CODE_OK;
}

static enum code configure_memory(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	if (plugin->data != NULL || plugin->data_file != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "no supported configuration interface found");
	c->out->key_manager = KEY_MANAGER_MEMORY;
	return CODE_OK;
}

static enum code configure_disk(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	struct raw_keys_disk raw = { 0 };

	TRY(read_data(c, plugin, &section_keys_disk, &raw, err));
	if (raw.keys_path == NULL || raw.keys_path[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "rpc error: code = InvalidArgument desc = keys_path is required");
	c->out->key_manager = KEY_MANAGER_DISK;
	c->out->keys_path = raw.keys_path;
	return CODE_OK;
}

static enum code configure_join_token(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	struct raw_in_mem raw = { 0 };

	TRY(read_data(c, plugin, &section_join_token, &raw, err));
	c->out->join_token = true;
	return CODE_OK;
}

static enum code configure_x509pop(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	struct config_x509pop *out = &c->out->x509pop;
	struct raw_x509pop raw = { 0 };

	TRY(read_data(c, plugin, &section_x509pop, &raw, err));
	if (raw.max_intermediates < 0 || raw.max_intermediates > INT_MAX || raw.max_rsa_key_size < 0 ||
	    raw.max_rsa_key_size > INT_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "rpc error: code = InvalidArgument desc = max_intermediates and max_rsa_key_size must "
			       "not be negative");
	*out = (struct config_x509pop){
		.enabled = true,
		.mode = raw.mode,
		.spiffe_prefix = raw.spiffe_prefix,
		.ca_bundle_path = raw.ca_bundle_path,
		.ca_bundle_paths = raw.ca_bundle_paths,
		.agent_path_template = raw.agent_path_template,
		.max_intermediates = (int)raw.max_intermediates,
		.max_rsa_key_size = (int)raw.max_rsa_key_size,
		.verify_client_ip = raw.verify_client_ip == TRI_TRUE,
	};
	return CODE_OK;
}

static enum code configure_upstream_disk(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	struct raw_upstream_disk raw = { 0 };

	TRY(read_data(c, plugin, &section_upstream_disk, &raw, err));
	c->out->upstream = (struct config_upstream){
		.kind = UPSTREAM_DISK,
		.cert_file_path = raw.cert_file_path,
		.key_file_path = raw.key_file_path,
		.bundle_file_path = raw.bundle_file_path,
	};
	return CODE_OK;
}

static enum code required(const char *value, const char *key, struct err *err)
{
	if (value != NULL && value[0] != '\0')
		return CODE_OK;
	return err_set(err, CODE_INVALID_ARGUMENT, "rpc error: code = InvalidArgument desc = %s is required", key);
}

static enum code configure_upstream_spire(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	struct raw_upstream_spire raw = { 0 };
	char *after;
	unsigned long port;

	TRY(read_data(c, plugin, &section_upstream_spire, &raw, err));
	TRY(required(raw.server_address, "server_address", err));
	TRY(required(raw.server_port, "server_port", err));
	TRY(required(raw.workload_api_socket, "workload_api_socket", err));
	port = strtoul(raw.server_port, &after, 10);
	if (!isdigit((unsigned char)raw.server_port[0]) || *after != '\0' || port == 0 || port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "rpc error: code = InvalidArgument desc = server_port %s is no port",
			       quoted(c->arena, raw.server_port));
	c->out->upstream = (struct config_upstream){
		.kind = UPSTREAM_SPIRE,
		.server_address = raw.server_address,
		.server_port = raw.server_port,
		.workload_api_socket = raw.workload_api_socket,
	};
	return CODE_OK;
}

static const struct {
	const char *type, *name;
	enum code (*configure)(struct check *c, const struct config_plugin *plugin, struct err *err);
} built[] = {
	{ "KeyManager", "memory", configure_memory },
	{ "KeyManager", "disk", configure_disk },
	{ "NodeAttestor", "join_token", configure_join_token },
	{ "NodeAttestor", "x509pop", configure_x509pop },
	{ "UpstreamAuthority", "disk", configure_upstream_disk },
	{ "UpstreamAuthority", "spire", configure_upstream_spire },
};

static enum code configure(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	const struct known *found = find_known(plugin->type, plugin->name);
	const char *name = quoted(c->arena, plugin->name);

	if (!is_known_type(plugin->type))
		return err_set(err, CODE_INVALID_ARGUMENT, "unsupported plugin type %s",
			       quoted(c->arena, plugin->type));
	if (!plugin->enabled || (found != NULL && found->standing != BUILT))
		return CODE_OK;
	for (size_t i = 0; i < sizeof built / sizeof built[0]; i++) {
		if (strcmp(built[i].type, plugin->type) != 0 || strcmp(built[i].name, plugin->name) != 0)
			continue;
		if (built[i].configure(c, plugin, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to configure plugin %s", name);
		return CODE_OK;
	}
	return err_set(err, CODE_INVALID_ARGUMENT, "failed to load plugin %s: no built-in plugin %s for type %s", name,
		       name, quoted(c->arena, plugin->type));
}

/* --- DataStore */

static enum code sql_error(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "datastore-sql: %s", text);
}

/* aws_mysql { region = ... } as database_type. */
static enum code aws_type(const struct raw_node *node, const char **out, struct err *err)
{
	const struct hcl_item *item = node->items;
	const char *name;

	if (item == NULL || item->next != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "exactly one database type is expected");
	if (item->n_keys != 1 || item->value->kind != HCL_OBJECT)
		return err_set(err, CODE_INVALID_ARGUMENT, "exactly one key is expected");
	name = item->keys[0].text;
	if (strcmp(name, "aws_mysql") != 0 && strcmp(name, "aws_postgres") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unknown database type: %s", name);
	*out = name;
	for (const struct hcl_item *at = item->value->items; at != NULL; at = at->next)
		if (strcasecmp(at->keys[0].text, "region") == 0 && at->value->kind == HCL_STRING &&
		    at->value->text[0] != '\0')
			return CODE_OK;
	return sql_error(err, "region must be specified");
}

static enum code database_type(const struct raw_node *node, const char **out, struct err *err)
{
	if (node->literal != NULL && (node->literal->kind == HCL_STRING || node->literal->kind == HCL_NUMBER)) {
		*out = node->literal->text;
		return CODE_OK;
	}
	if (!node->there || node->literal != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "malformed database type configuration");
	return aws_type(node, out, err);
}

static bool is_database_type(const char *type)
{
	static const char *const types[] = { "sqlite3", "postgres", "mysql", "aws_postgres", "aws_mysql" };

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if (strcmp(types[i], type) == 0)
			return true;
	return false;
}

/* The file of an SQLite connection string: a path or a file: URI. */
static enum code sqlite_path(struct check *c, const char *text, const char **out, struct err *err)
{
	size_t scheme = 0;

	while (isalnum((unsigned char)text[scheme]) ||
	       (scheme > 0 && text[scheme] != '\0' && strchr("+-.", text[scheme]) != NULL))
		scheme++;
	if (text[scheme] == ':' && scheme > 0 && isalpha((unsigned char)text[0])) {
		if (scheme != 4 || strncasecmp(text, "file", 4) != 0)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "datastore-sql: datastore-sql: unsupported scheme %s",
				       quoted(c->arena, arena_strndup(c->arena, text, scheme)));
		text += 5;
		if (strncmp(text, "//", 2) == 0)
			text += 2;
	}
	*out = arena_strndup(c->arena, text, strcspn(text, "?#"));
	return CODE_OK;
}

static enum code check_datastore(struct check *c, const struct config_plugin *plugin, struct err *err)
{
	const char *path = "plugins.DataStore.sql.plugin_data", *type = "";
	struct raw_datastore raw = { 0 };
	const struct hcl_item *items;
	int64_t ns;

	TRY(load_items(c, plugin, &items, err));
	TRY(decode_items(&c->decoder, &section_datastore, path, items, &raw, err));
	TRY(database_type(&raw.database_type, &type, err));
	if (type[0] == '\0')
		return sql_error(err, "database_type must be set");
	if (raw.connection_string == NULL || raw.connection_string[0] == '\0')
		return sql_error(err, "connection_string must be set");
	if (!is_database_type(type))
		return err_set(err, CODE_INVALID_ARGUMENT, "datastore-sql: unsupported database_type: %s", type);
	if (strcmp(type, "sqlite3") == 0)
		TRY(sqlite_path(c, raw.connection_string, &c->out->datastore_path, err));
	if (raw.conn_max_lifetime != NULL && go_parse_duration(raw.conn_max_lifetime, &ns, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse conn_max_lifetime %s",
				quoted(c->arena, raw.conn_max_lifetime));
	NOTE(c, LOG_INFO, "DataStore is set aside: the state of this server is in its data directory",
	     KV("database_type", type), KV("state", arena_printf(c->arena, "%s/state.db", c->out->data_dir)));
	return CODE_OK;
}

static enum code check_datastores(struct check *c, struct err *err)
{
	const struct config_plugin *plugin = NULL;

	for (size_t i = 0; i < c->out->n_plugins; i++) {
		if (strcmp(c->out->plugins[i].type, "DataStore") != 0)
			continue;
		if (plugin != NULL)
			return err_set(err, CODE_INVALID_ARGUMENT, "only one DataStore plugin is allowed");
		plugin = &c->out->plugins[i];
	}
	if (plugin == NULL)
		return CODE_OK; /* SPIRE's error; the state needs none here */
	if (strcmp(plugin->name, "sql") != 0 || plugin->external)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"pluggability for the DataStore is deprecated; only the built-in \"sql\" plugin is supported");
	return check_datastore(c, plugin, err);
}

static size_t count(const struct config *config, const char *type)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_plugins; i++)
		n += config->plugins[i].enabled && strcmp(config->plugins[i].type, type) == 0;
	return n;
}

static enum code check_counts(const struct config *config, struct err *err)
{
	size_t keys = count(config, "KeyManager"), upstreams = count(config, "UpstreamAuthority");

	if (keys != 1)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got %zu",
			       keys);
	if (upstreams > 1)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"plugin type \"UpstreamAuthority\" constraint not satisfied: expected at most 1 but got %zu",
			upstreams);
	return CODE_OK;
}

enum code config_plugins(struct config *config, struct arena *arena, struct config_notes *notes, struct err *err)
{
	struct check c = { .arena = arena, .out = config, .notes = notes };
	struct err unread = { 0 };

	if (err == NULL)
		err = &unread;
	*notes = (struct config_notes){ 0 };
	decoder_init(&c.decoder, arena);
	TRY(check_datastores(&c, err));
	for (size_t i = 0; i < config->n_plugins; i++)
		if (strcmp(config->plugins[i].type, "DataStore") != 0)
			TRY(configure(&c, &config->plugins[i], err));
	TRY(check_counts(config, err));
	return check_findings(&c, err);
}
