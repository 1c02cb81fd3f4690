/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The configuration of a server: SPIRE's file (contract server-operation.md section 1), read by base/hcl.h, the flags of `run` laid
 * over it, checked. Everything lives in the arena it was loaded into. Durations in seconds unless the name says otherwise. */

struct strings {
	const char **items;
	size_t n;
};

struct config_ca_subject {
	struct strings country, organization;
	const char *common_name;
};

enum config_key_manager { KEY_MANAGER_MEMORY, KEY_MANAGER_DISK };

struct config_x509pop {
	bool enabled;
	struct strings ca_bundle_paths; /* ca_bundle_path and ca_bundle_paths together */
	const char *mode;               /* "external_pki" or "spiffe" */
	const char *spiffe_prefix;      /* "/spire-exchange/" */
	const char *agent_path_template; /* NULL: the default */
};

struct config {
	/* server */
	const char *trust_domain;
	const char *data_dir;
	const char *bind_address;
	int bind_port;
	const char *socket_path; /* absolute */
	struct strings admin_ids;
	int64_t ca_ttl_s, default_x509_svid_ttl_s, default_jwt_svid_ttl_s;
	int64_t agent_ttl_s; /* never 0: defaults to default_x509_svid_ttl_s */
	const char *ca_key_type, *jwt_key_type; /* "rsa-2048" "rsa-4096" "ec-p256" "ec-p384" */
	struct config_ca_subject ca_subject;
	const char *jwt_issuer; /* NULL: no iss */
	int64_t prune_attested_nodes_expired_for_s; /* 0: off */
	bool prune_tofu_nodes;
	struct log_options log;

	/* plugins */
	enum config_key_manager key_manager;
	const char *keys_path; /* of KeyManager "disk" */
	bool join_token;       /* NodeAttestor "join_token" is there; tokens work without it too */
	struct config_x509pop x509pop;

	/* health_checks, telemetry */
	bool health_enabled;
	const char *health_address, *health_live_path, *health_ready_path;
	int health_port;
	bool prometheus_enabled;
	const char *prometheus_host;
	int prometheus_port;
};

/* The flags of `run` and `validate` (server-operation.md 1.8): what is set wins over the file. */
struct config_flags {
	const char *config; /* path; "": conf/server/server.conf */
	bool expand_env;
	const char *bind_address, *data_dir, *socket_path, *trust_domain, *log_file, *log_format, *log_level; /* "" = not given */
	int server_port; /* 0 = not given */
	bool log_source_location;
};

/* What is worth a line in the log once it is open: the order is SPIRE's. `log_write(note.level, note.msg, note.pairs)`. */
struct config_note {
	enum log_level level;
	const char *msg;
	const struct log_pair *pairs; /* ended by LOG_KIND_END */
};

struct config_notes {
	struct config_note *items;
	size_t n;
};

/* Reads, merges, checks. Texts of errors are SPIRE's (1.1 to 1.9). Nothing is written, no file but the configuration is opened.
 * `notes` is also filled on failure (unknown keys are lines of the log, and the error says "unknown configuration detected"). */
enum code config_load(const struct config_flags *flags, struct arena *arena, struct config *out, struct config_notes *notes,
		      struct err *err);

#endif
