/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hcl_item;

/* The configuration of a server: SPIRE's file (contract server-operation.md section 1), read by base/hcl.h, the flags
 * of `run` laid over it, checked. Everything lives in the arena it was loaded into. Durations in seconds unless the
 * name says otherwise. */

struct strings {
	const char **items;
	size_t n;
};

struct config_ca_subject {
	struct strings country, organization;
	const char *common_name; /* NULL: none */
};

enum config_key_manager { KEY_MANAGER_MEMORY, KEY_MANAGER_DISK };

/* NodeAttestor "x509pop", as written: NULL, 0 and false are what is not configured. ca/x509pop.h knows the defaults and
 * what contradicts what. */
struct config_x509pop {
	bool enabled;
	const char *mode, *spiffe_prefix, *ca_bundle_path, *agent_path_template;
	struct strings ca_bundle_paths;
	int max_intermediates, max_rsa_key_size; /* 1.14+ */
	bool verify_client_ip;                   /* 1.14+ */
};

/* UpstreamAuthority, as written: NULL is what is not configured. At most one. */
enum config_upstream_kind { UPSTREAM_NONE, UPSTREAM_DISK, UPSTREAM_SPIRE };
struct config_upstream {
	enum config_upstream_kind kind;
	const char *cert_file_path, *key_file_path, *bundle_file_path;  /* disk: ca/upstream.h checks them */
	const char *server_address, *server_port, *workload_api_socket; /* spire: none is empty */
};

/* One declared plugin, in the order of the file. */
struct config_plugin {
	const char *type, *name;
	bool enabled;
	bool external;               /* plugin_cmd is set */
	const struct hcl_item *data; /* plugin_data; NULL: empty or none */
	const char *data_file;       /* plugin_data_file; NULL: none */
};

enum config_endpoint_profile { ENDPOINT_HTTPS_SPIFFE, ENDPOINT_HTTPS_WEB };

struct config_bundle_endpoint {
	bool enabled;
	const char *address; /* an IP literal; NULL: all interfaces */
	int port;
	int64_t refresh_hint_s;
	enum config_endpoint_profile profile;
	/* https_web has one of the two */
	bool acme;
	const char *acme_directory_url, *acme_domain_name, *acme_email;
	bool acme_tos_accepted;
	const char *cert_file_path, *key_file_path; /* NULL without serving_cert_file */
	int64_t file_sync_interval_s;
};

struct config_federates_with {
	const char *trust_domain;
	const char *bundle_endpoint_url;
	enum config_endpoint_profile profile;
	const char *endpoint_spiffe_id; /* of ENDPOINT_HTTPS_SPIFFE */
};

/* cluster {} (contract cluster.md section 1). */
struct config_cluster {
	bool enabled; /* the block is there */
	const char *name;
	const char *bind_address;
	int bind_port;
	const char *advertise, *api_advertise; /* HOST:PORT */
	struct strings known_members;          /* HOST:PORT each */
	struct strings admin_ids;              /* SPIFFE ids of the own trust domain */
	struct strings fail_closed;            /* path prefixes, "/..." */
	int64_t authority_spread_s, drain_s, max_staleness_s, election_timeout_ms;
	const char *join_token_file; /* NULL: none */
};

struct config {
	/* server */
	const char *trust_domain;
	const char *data_dir;
	const char *bind_address; /* without brackets */
	int bind_port;
	const char *socket_path; /* absolute */
	struct strings admin_ids;
	int64_t ca_ttl_s, default_x509_svid_ttl_s, default_jwt_svid_ttl_s;
	int64_t agent_ttl_s;                    /* never 0: defaults to default_x509_svid_ttl_s */
	const char *ca_key_type, *jwt_key_type; /* "rsa-2048" "rsa-4096" "ec-p256" "ec-p384" */
	struct config_ca_subject ca_subject;
	const char *jwt_issuer;                     /* NULL: no iss */
	int64_t prune_attested_nodes_expired_for_s; /* 0: off */
	int64_t prune_attested_nodes_batch_size;    /* never 0: 1000 */
	bool prune_tofu_nodes;
	bool ratelimit_attestation, ratelimit_signing; /* both true unless the file says no */
	bool audit_log_enabled;
	struct log_options log;

	/* server.federation */
	bool federation_configured; /* a bundle_endpoint or a federates_with is there */
	struct config_bundle_endpoint bundle_endpoint;
	struct config_federates_with *federates_with;
	size_t n_federates_with;

	/* plugins: all that are declared; the fields below are filled by config_plugins */
	struct config_plugin *plugins;
	size_t n_plugins;
	enum config_key_manager key_manager;
	const char *keys_path; /* of KeyManager "disk" */
	bool join_token;       /* NodeAttestor "join_token" is there; tokens work without it too */
	struct config_x509pop x509pop;
	struct config_upstream upstream;
	const char *datastore_path; /* file of DataStore "sql" with sqlite3; NULL: none. It holds no state of ours */

	/* health_checks, telemetry */
	bool health_enabled;
	const char *health_address, *health_live_path, *health_ready_path;
	int health_port;
	bool prometheus_enabled;
	const char *prometheus_host;
	int prometheus_port;
	const char *metric_prefix;               /* "spire_server" */
	bool trust_domain_label, hostname_label; /* EnableTrustDomainLabel (false), EnableHostnameLabel (true) */
	struct strings allowed_prefixes, blocked_prefixes, allowed_labels, blocked_labels; /* '.' separates */

	struct config_cluster cluster;
};

/* The flags of `run` and `validate` (server-operation.md 1.8): what is set wins over the file. */
struct config_flags {
	const char *config; /* path; "": conf/server/server.conf */
	bool expand_env;
	const char *bind_address, *data_dir, *socket_path, *trust_domain, *log_file, *log_format,
		*log_level;  /* "" = not given */
	int64_t server_port; /* 0 = not given */
	bool log_source_location;
};

/* What is worth a line in the log once it is open: the order is SPIRE's. `log_write(note.level, note.msg, note.pairs)`.
 */
struct config_note {
	enum log_level level;
	const char *msg;
	const struct log_pair *pairs; /* ended by LOG_KIND_END */
};

struct config_notes {
	struct config_note *items;
	size_t n;
};

/* Reads, merges, checks: what `validate` finds. Texts of errors are SPIRE's (1.1 to 1.9). Nothing is written, no file
 * but the configuration is opened (the host name in bind_address is looked up). The contents of plugin_data, and how
 * many plugins of which type there are, are not looked at: SPIRE starts its log before it does. `notes` is also filled
 * on failure (unknown keys are lines of the log, and the error says "unknown configuration detected"); out->log is then
 * the log to write them to. */
enum code config_load(const struct config_flags *flags, struct arena *arena, struct config *out,
		      struct config_notes *notes, struct err *err);

/* The second half, for `run`, after its "Configured" line: the type constraints of plugins and their data, with SPIRE's
 * texts
 * (`plugin type "KeyManager" constraint not satisfied: expected exactly 1 but got 2`). Opens plugin_data_file where one
 * is named, nothing else: what keys_path and ca_bundle_path name is read, and x509pop's options are judged, by those
 * who use them. `notes` begins anew. */
enum code config_plugins(struct config *config, struct arena *arena, struct config_notes *notes, struct err *err);

/* One row of the table that the file is read by: for the sample file, the man page and `config show`. */
struct config_option {
	const char *path;    /* "server.ca_ttl" */
	const char *type;    /* "string" "number" "bool" "list" "block" "blocks" "labelled blocks" */
	const char *initial; /* NULL: none */
	const char *help;
	const char
		*remark; /* NULL: it works. Else why it has no effect, or what to write instead where it is refused */
	bool refused;
};

/* Every key below `server`, `health_checks`, `telemetry` and `cluster`, and of the plugins that are built; the strings
 * live for the call only. */
void config_each_option(void (*each)(const struct config_option *option, void *ctx), void *ctx);

#endif
