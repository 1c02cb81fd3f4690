/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CONFIG_RAW_H
#define BASE_CONFIG_RAW_H

#include "base/buf.h"
#include "base/config.h"
#include "base/hcl.h"

/* The file as it is written, for config*.c alone: strings that are NULL and numbers that are 0 were not given. The
 * tables of config_table.c say which key goes where; config_decode.c follows them; config.c turns the outcome into
 * struct config. */

enum option_type {
	OPTION_STRING,   /* const char *; a number is taken too */
	OPTION_INT,      /* int64_t; a string that holds one is taken too */
	OPTION_BOOL,     /* enum tri */
	OPTION_STRINGS,  /* struct strings */
	OPTION_BLOCK,    /* the section's struct; its first member is `bool there` */
	OPTION_BLOCKS,   /* struct blocks of the section's struct: a list of objects */
	OPTION_LABELLED, /* struct blocks: one for each label, whose first members are `bool there; const char *label`
			  */
	OPTION_NODE,     /* struct raw_node: read later */
};

enum tri { TRI_UNSET, TRI_FALSE, TRI_TRUE };

struct blocks {
	void *items;
	size_t n, room;
};

struct raw_node {
	bool there;
	struct hcl_item *items, **tail;  /* what stands in it; several blocks are one */
	const struct hcl_value *literal; /* it is no block */
};

enum option_effect {
	OPTION_WORKS,
	OPTION_IGNORED, /* a WARN line when it is set to something */
	OPTION_REFUSED, /* an error when it is set to something: without it the server would trust or allow more */
};

struct option {
	const char *key;
	enum option_type type;
	size_t offset;
	const char *initial; /* what an empty string, 0 or no bool means; NULL: nothing */
	const char *help;
	const struct section *section; /* of blocks */
	enum option_effect effect;
	const char *remark;
};

struct section {
	const char *name; /* in "Unknown configuration detected"; NULL: unknown keys are let through */
	int order;        /* of these lines */
	size_t size;
	const struct option *options; /* ended by a NULL key */
};

struct raw_ca_subject {
	bool there;
	struct strings country, organization;
	const char *common_name;
};

struct raw_acme {
	bool there;
	const char *directory_url, *domain_name, *email;
	enum tri tos_accepted;
};

struct raw_serving_cert_file {
	bool there;
	const char *cert_file_path, *key_file_path, *file_sync_interval;
};

struct raw_web_profile {
	bool there;
	struct raw_acme acme;
	struct raw_serving_cert_file serving_cert_file;
};

struct raw_spiffe_profile {
	bool there;
	const char *endpoint_spiffe_id;
};

struct raw_profile {
	bool there;
	struct raw_web_profile https_web;
	struct raw_spiffe_profile https_spiffe;
};

struct raw_bundle_endpoint {
	bool there;
	const char *address, *refresh_hint;
	int64_t port;
	struct raw_acme acme;
	struct raw_node profile;
};

struct raw_federates_with {
	bool there;
	const char *label;
	const char *bundle_endpoint_url;
	struct raw_node bundle_endpoint_profile;
	size_t index; /* in the order of the file */
};

struct raw_federation {
	bool there;
	struct raw_bundle_endpoint bundle_endpoint;
	struct blocks federates_with; /* struct raw_federates_with */
};

struct raw_experimental {
	bool there;
	const char *cache_reload_interval, *full_cache_reload_interval, *prune_events_older_than, *event_timeout;
	const char *sql_transaction_timeout, *named_pipe_name, *wit_key_type, *wit_issuer;
	enum tri events_based_cache, require_pq_kem, agent_spiffe_id_as_selector;
	struct raw_node auth_opa_policy_engine;
	struct strings feature_flags;
};

struct raw_ratelimit {
	bool there;
	enum tri attestation, signing;
};

struct raw_server {
	bool there;
	const char *trust_domain, *data_dir, *bind_address, *socket_path;
	int64_t bind_port;
	struct strings admin_ids;
	const char *agent_ttl, *ca_ttl, *default_x509_svid_ttl, *default_jwt_svid_ttl;
	const char *ca_key_type, *jwt_key_type, *jwt_issuer;
	struct raw_ca_subject ca_subject;
	enum tri audit_log_enabled, disable_jwt_svids;
	const char *log_file, *log_format, *log_level;
	enum tri log_source_location;
	struct raw_ratelimit ratelimit;
	struct strings proxy_protocol_trusted_cidrs;
	const char *prune_attested_nodes_expired_for, *max_attested_node_info_staleness;
	int64_t prune_attested_nodes_batch_size;
	enum tri prune_tofu_nodes;
	enum tri profiling_enabled;
	int64_t profiling_port, profiling_freq;
	struct strings profiling_names;
	struct raw_federation federation;
	struct raw_experimental experimental;
};

struct raw_health_checks {
	bool there;
	enum tri listener_enabled;
	const char *bind_address, *bind_port, *live_path, *ready_path;
};

struct raw_prometheus {
	bool there;
	const char *host;
	int64_t port;
	struct raw_node tls;
};

struct raw_sink {
	bool there;
	const char *address, *env;
};

struct raw_in_mem {
	bool there;
	enum tri enabled;
};

struct raw_telemetry {
	bool there;
	struct raw_prometheus prometheus;
	struct blocks dog_statsd, statsd, m3; /* struct raw_sink */
	struct raw_in_mem in_mem;
	const char *metric_prefix;
	enum tri trust_domain_label, hostname_label;
	struct strings allowed_prefixes, blocked_prefixes, allowed_labels, blocked_labels;
};

struct raw_cluster {
	bool there;
	const char *name, *bind_address, *advertise, *api_advertise;
	int64_t bind_port;
	struct strings known_members, admin_ids, fail_closed;
	const char *authority_spread, *drain, *max_staleness, *election_timeout, *join_token_file;
};

struct raw_config {
	bool there;
	struct raw_server server;
	struct raw_node plugins;
	struct raw_telemetry telemetry;
	struct raw_health_checks health_checks;
	struct raw_cluster cluster;
};

/* What stands around plugin_data. */
struct raw_plugin {
	bool there;
	const char *plugin_cmd, *plugin_checksum, *plugin_data_file;
	struct strings plugin_args;
	struct raw_node plugin_data;
	enum tri enabled;
};

struct raw_keys_disk {
	bool there;
	const char *keys_path;
};

struct raw_x509pop {
	bool there;
	const char *mode, *spiffe_prefix, *ca_bundle_path, *agent_path_template;
	struct strings ca_bundle_paths;
	int64_t max_intermediates, max_rsa_key_size;
	enum tri verify_client_ip;
};

struct raw_upstream_disk {
	bool there;
	const char *cert_file_path, *key_file_path, *bundle_file_path;
};

struct raw_upstream_experimental {
	bool there;
	enum tri require_pq_kem;
};

struct raw_upstream_spire {
	bool there;
	const char *server_address, *server_port, *workload_api_socket;
	struct raw_upstream_experimental experimental;
};

struct raw_datastore {
	bool there;
	struct raw_node database_type;
	const char *connection_string, *ro_connection_string, *root_ca_path, *client_cert_path, *client_key_path;
	const char *conn_max_lifetime;
	int64_t max_open_conns, max_idle_conns;
	enum tri disable_migration, log_sql;
};

extern const struct section section_root, section_profile, section_plugin, section_keys_disk, section_x509pop,
	section_join_token, section_upstream_disk, section_upstream_spire, section_datastore;

/* Something in the file that deserves a line: found by the decoder, in the order of the file. */
enum finding_kind {
	FINDING_UNKNOWN, /* an error of config_load */
	FINDING_UNREAD,  /* unknown too, but SPIRE says nothing: a warning */
	FINDING_IGNORED,
	FINDING_REFUSED,
	FINDING_REPEATED,
};

struct finding {
	enum finding_kind kind;
	const struct section *section; /* of an unknown key */
	const char *key;               /* the whole path, "server.audit_log_enabled" */
	const char *value;             /* as text; of an unknown key: the key without its path */
	const char *remark;            /* of the option */
	struct hcl_pos pos;
	struct finding *next;
};

struct decoder {
	struct arena *arena;
	struct finding *findings, **tail;
};

void decoder_init(struct decoder *d, struct arena *arena);

/* Reads `items` into `target`, which may hold what an earlier block of the same name said. `path` goes before keys in
 * texts: "At 3:5: server.bind_port: expected a number, got a list". */
enum code decode_items(struct decoder *d, const struct section *section, const char *path, const struct hcl_item *items,
		       void *target, struct err *err);

/* A key that is refused, for what no table knows: `key` has its place in the file in it. */
void config_refuse_key(struct decoder *d, const char *key, const char *remark, struct hcl_pos pos);
void ignore(struct decoder *d, const char *key, const char *remark, struct hcl_pos pos);

/* Gives what is unset its initial value. */
void apply_initial(const struct section *section, void *target);

/* config_file.c: the whole file, $NAME and ${NAME} replaced by the environment if `expand_env`. NOT_FOUND: there is no
 * such file. */
enum code read_config_file(const char *path, bool expand_env, struct arena *arena, struct span *out, struct err *err);
/* As Go's filepath.Abs: below the working directory, without "." ".." and "//". */
enum code absolute_path(struct arena *arena, const char *path, const char **out, struct err *err);

/* The parts of config.c that have a file of their own. `add_note` copies the pairs. */
struct check {
	const struct raw_config *raw;
	struct decoder decoder; /* for what is read late: profiles, plugins */
	struct arena *arena;
	struct config *out;
	struct config_notes *notes;
	size_t n_federates_with;  /* blocks of raw, after equal labels have been joined */
	bool log_source_location; /* the flag */
};

void add_note(struct check *c, enum log_level level, const char *msg, const struct log_pair *pairs);
#define NOTE(c, level, msg, ...)                                                                                       \
	add_note((c), (level), (msg), (const struct log_pair[]){ __VA_ARGS__ __VA_OPT__(, ){ 0 } })

/* `text` as Go's duration, in seconds (a part of a second counts as none, unless there is nothing else); not negative.
 * A text of error begins with `what`: SPIRE's words. */
enum code read_seconds(const char *what, const char *text, int64_t *out, struct err *err);
const char *quoted(struct arena *arena, const char *text); /* Go's %q */

enum code check_federation_urls(struct check *c, struct err *err); /* what SPIRE looks at first */
enum code check_federation(struct check *c, struct err *err);
enum code check_cluster(struct check *c, struct err *err);
enum code check_plugin_blocks(struct check *c, struct err *err);
/* Warns of what has no effect, refuses what would be dangerous without one: all such keys in one text. */
enum code check_findings(struct check *c, struct err *err);

#endif
