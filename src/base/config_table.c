/* SPDX-License-Identifier: Apache-2.0 */
/* Every key that the configuration may have: where its value goes, what it is when it is not given, and what it is for.
 * The decoder, the check for unknown keys, the lines about keys without effect and config_each_option come from here.
 */
#include "base/config_raw.h"

#include <stdio.h>

#define OPT(type_, of, member, key_, initial_, help_)                                                                  \
	{                                                                                                              \
		.key = (key_), .type = OPTION_##type_, .offset = offsetof(struct of, member), .initial = (initial_),   \
		.help = (help_)                                                                                        \
	}
#define BLOCK(type_, of, member, key_, section_, help_)                                                                \
	{                                                                                                              \
		.key = (key_), .type = OPTION_##type_, .offset = offsetof(struct of, member), .section = (section_),   \
		.help = (help_)                                                                                        \
	}
#define IGNORED(type_, of, member, key_, remark_, help_)                                                               \
	{                                                                                                              \
		.key = (key_), .type = OPTION_##type_, .offset = offsetof(struct of, member), .help = (help_),         \
		.effect = OPTION_IGNORED, .remark = (remark_)                                                          \
	}
#define IGNORED_BLOCK(type_, of, member, key_, section_, remark_, help_)                                               \
	{                                                                                                              \
		.key = (key_), .type = OPTION_##type_, .offset = offsetof(struct of, member), .section = (section_),   \
		.help = (help_), .effect = OPTION_IGNORED, .remark = (remark_)                                         \
	}
#define REFUSED(type_, of, member, key_, remark_, help_)                                                               \
	{                                                                                                              \
		.key = (key_), .type = OPTION_##type_, .offset = offsetof(struct of, member), .help = (help_),         \
		.effect = OPTION_REFUSED, .remark = (remark_)                                                          \
	}
#define END                                                                                                            \
	{                                                                                                              \
		.key = NULL                                                                                            \
	}

enum {
	ORDER_TOP,
	ORDER_SERVER,
	ORDER_CA_SUBJECT,
	ORDER_RATELIMIT,
	ORDER_ENDPOINT,
	ORDER_ACME,
	ORDER_PROMETHEUS,
	ORDER_DOG_STATSD,
	ORDER_STATSD,
	ORDER_M3,
	ORDER_IN_MEM,
	ORDER_HEALTH,
	ORDER_CLUSTER,
	ORDER_PLUGIN_DATA
};

#define NO_CACHE "entries and agents are read from this node's own state, there is no cache to reload"
#define NO_PROFILES "there are no profiles of this kind to write"
#define NO_SINK "measurements are published for Prometheus alone"
#define NO_WIT "WIT-SVIDs are not issued"

static const struct option ca_subject_options[] = {
	OPT(STRINGS, raw_ca_subject, country, "country", NULL, "Countries in the subject of CA certificates"),
	OPT(STRINGS, raw_ca_subject, organization, "organization", NULL,
	    "Organizations in the subject of CA certificates"),
	OPT(STRING, raw_ca_subject, common_name, "common_name", NULL, "Common name in the subject of CA certificates"),
	END,
};
static const struct section section_ca_subject = { "ca_subject", ORDER_CA_SUBJECT, sizeof(struct raw_ca_subject),
						   ca_subject_options };

static const struct option ratelimit_options[] = {
	OPT(BOOL, raw_ratelimit, attestation, "attestation", "true",
	    "Limit node attestation to one a second for each address"),
	OPT(BOOL, raw_ratelimit, signing, "signing", "true",
	    "Limit JWT and X.509 signing to 500 a second for each address"),
	END,
};
static const struct section section_ratelimit = { "ratelimit", ORDER_RATELIMIT, sizeof(struct raw_ratelimit),
						  ratelimit_options };

static const struct option acme_options[] = {
	OPT(STRING, raw_acme, directory_url, "directory_url", "https://acme-v02.api.letsencrypt.org/directory",
	    "Directory of the ACME server"),
	OPT(STRING, raw_acme, domain_name, "domain_name", NULL, "Domain name of the certificate"),
	OPT(STRING, raw_acme, email, "email", NULL, "Address of the account"),
	OPT(BOOL, raw_acme, tos_accepted, "tos_accepted", "false", "Whether the terms of service are accepted"),
	END,
};
static const struct section section_endpoint_acme = { "bundle endpoint ACME", ORDER_ACME, sizeof(struct raw_acme),
						      acme_options };
static const struct section section_acme = { NULL, 0, sizeof(struct raw_acme), acme_options };

static const struct option serving_cert_file_options[] = {
	OPT(STRING, raw_serving_cert_file, cert_file_path, "cert_file_path", NULL, "Certificate chain, PEM"),
	OPT(STRING, raw_serving_cert_file, key_file_path, "key_file_path", NULL, "Private key, PEM"),
	OPT(STRING, raw_serving_cert_file, file_sync_interval, "file_sync_interval", "1h",
	    "How often the files are read again"),
	END,
};
static const struct section section_serving_cert_file = { NULL, 0, sizeof(struct raw_serving_cert_file),
							  serving_cert_file_options };

static const struct option web_options[] = {
	BLOCK(BLOCK, raw_web_profile, acme, "acme", &section_acme, "Certificate by ACME"),
	BLOCK(BLOCK, raw_web_profile, serving_cert_file, "serving_cert_file", &section_serving_cert_file,
	      "Certificate from files"),
	END,
};
static const struct section section_web = { NULL, 0, sizeof(struct raw_web_profile), web_options };

static const struct option spiffe_options[] = {
	OPT(STRING, raw_spiffe_profile, endpoint_spiffe_id, "endpoint_spiffe_id", NULL,
	    "SPIFFE ID that the other bundle endpoint presents (federates_with)"),
	END,
};
static const struct section section_spiffe = { NULL, 0, sizeof(struct raw_spiffe_profile), spiffe_options };

static const struct option profile_options[] = {
	BLOCK(BLOCK, raw_profile, https_web, "https_web", &section_web, "The endpoint presents a web certificate"),
	BLOCK(BLOCK, raw_profile, https_spiffe, "https_spiffe", &section_spiffe, "The endpoint presents an X509-SVID"),
	END,
};
const struct section section_profile = { NULL, 0, sizeof(struct raw_profile), profile_options };

static const struct option endpoint_options[] = {
	OPT(STRING, raw_bundle_endpoint, address, "address", NULL, "IP address to listen on; all when it is none"),
	OPT(INT, raw_bundle_endpoint, port, "port", NULL, "Port to listen on"),
	OPT(STRING, raw_bundle_endpoint, refresh_hint, "refresh_hint", "5m",
	    "spiffe_refresh_hint of the published bundle"),
	BLOCK(BLOCK, raw_bundle_endpoint, acme, "acme", &section_endpoint_acme,
	      "Deprecated: see profile \"https_web\""),
	BLOCK(NODE, raw_bundle_endpoint, profile, "profile", &section_profile, "\"https_web\" or \"https_spiffe\""),
	END,
};
static const struct section section_endpoint = { "bundle endpoint", ORDER_ENDPOINT, sizeof(struct raw_bundle_endpoint),
						 endpoint_options };

static const struct option federates_with_options[] = {
	OPT(STRING, raw_federates_with, bundle_endpoint_url, "bundle_endpoint_url", NULL,
	    "https:// URL of the other bundle"),
	BLOCK(NODE, raw_federates_with, bundle_endpoint_profile, "bundle_endpoint_profile", &section_profile,
	      "\"https_web\" or \"https_spiffe\""),
	END,
};
static const struct section section_federates_with = { NULL, 0, sizeof(struct raw_federates_with),
						       federates_with_options };

static const struct option federation_options[] = {
	BLOCK(BLOCK, raw_federation, bundle_endpoint, "bundle_endpoint", &section_endpoint,
	      "Serves the trust bundle to other trust domains"),
	BLOCK(LABELLED, raw_federation, federates_with, "federates_with", &section_federates_with,
	      "Fetches the bundle of the trust domain that labels the block"),
	END,
};
static const struct section section_federation = { NULL, 0, sizeof(struct raw_federation), federation_options };

static const struct option experimental_options[] = {
	IGNORED(STRING, raw_experimental, cache_reload_interval, "cache_reload_interval", NO_CACHE,
		"Reload of the entry cache"),
	IGNORED(STRING, raw_experimental, full_cache_reload_interval, "full_cache_reload_interval", NO_CACHE,
		"Full reload of the entry cache"),
	IGNORED(BOOL, raw_experimental, events_based_cache, "events_based_cache", NO_CACHE, "Kind of the entry cache"),
	IGNORED(STRING, raw_experimental, prune_events_older_than, "prune_events_older_than", NO_CACHE,
		"Age of events"),
	IGNORED(STRING, raw_experimental, event_timeout, "event_timeout", NO_CACHE, "Wait for skipped events"),
	IGNORED(STRING, raw_experimental, sql_transaction_timeout, "sql_transaction_timeout", NO_CACHE,
		"Deprecated: see event_timeout"),
	REFUSED(NODE, raw_experimental, auth_opa_policy_engine, "auth_opa_policy_engine",
		"calls would be allowed by the built-in policy alone; remove the block",
		"A policy of one's own for API calls"),
	REFUSED(BOOL, raw_experimental, require_pq_kem, "require_pq_kem",
		"connections without a post-quantum key exchange would go on; remove the key",
		"TLS with post-quantum groups only"),
	IGNORED(BOOL, raw_experimental, agent_spiffe_id_as_selector, "agent_spiffe_id_as_selector",
		"agents have the selectors of their attestor alone", "A selector spiffe_id:ID for each agent (1.14)"),
	IGNORED(STRING, raw_experimental, wit_key_type, "wit_key_type", NO_WIT, "Key type of WIT authorities (1.14)"),
	IGNORED(STRING, raw_experimental, wit_issuer, "wit_issuer", NO_WIT, "Issuer of WIT-SVIDs (1.14)"),
	IGNORED(STRINGS, raw_experimental, feature_flags, "feature_flags", "no feature waits for a flag",
		"Flags of developers"),
	OPT(STRING, raw_experimental, named_pipe_name, "named_pipe_name", NULL, "Not on this platform"),
	END,
};
static const struct section section_experimental = { NULL, 0, sizeof(struct raw_experimental), experimental_options };

static const struct option server_options[] = {
	OPT(STRING, raw_server, trust_domain, "trust_domain", NULL, "The trust domain that this server belongs to"),
	OPT(STRING, raw_server, data_dir, "data_dir", NULL, "Directory of the server's state"),
	OPT(STRING, raw_server, bind_address, "bind_address", "0.0.0.0", "IP address or DNS name of the API"),
	OPT(INT, raw_server, bind_port, "bind_port", "8081", "TCP port of the API"),
	OPT(STRING, raw_server, socket_path, "socket_path", "/tmp/spire-server/private/api.sock",
	    "Socket of the local API"),
	OPT(STRINGS, raw_server, admin_ids, "admin_ids", NULL, "SPIFFE IDs that may use the API as administrators"),
	OPT(STRING, raw_server, agent_ttl, "agent_ttl", NULL, "Lifetime of agents' X509-SVIDs (default_x509_svid_ttl)"),
	OPT(STRING, raw_server, default_x509_svid_ttl, "default_x509_svid_ttl", "1h", "Lifetime of X509-SVIDs"),
	OPT(STRING, raw_server, default_jwt_svid_ttl, "default_jwt_svid_ttl", "5m", "Lifetime of JWT-SVIDs"),
	OPT(STRING, raw_server, ca_ttl, "ca_ttl", "24h", "Lifetime of CA certificates and JWT signing keys"),
	OPT(STRING, raw_server, ca_key_type, "ca_key_type", "ec-p256", "rsa-2048, rsa-4096, ec-p256 or ec-p384"),
	OPT(STRING, raw_server, jwt_key_type, "jwt_key_type", NULL, "The same for JWT signing keys (ca_key_type)"),
	BLOCK(BLOCK, raw_server, ca_subject, "ca_subject", &section_ca_subject,
	      "Subject of CA certificates (C=US, O=SPIFFE)"),
	OPT(STRING, raw_server, jwt_issuer, "jwt_issuer", NULL, "Claim iss of JWT-SVIDs (left out)"),
	REFUSED(BOOL, raw_server, disable_jwt_svids, "disable_jwt_svids",
		"JWT-SVIDs would still be issued; remove the key", "No JWT-SVIDs (1.14)"),
	OPT(BOOL, raw_server, audit_log_enabled, "audit_log_enabled", "false", "A line in the log for each call"),
	OPT(STRING, raw_server, log_level, "log_level", "INFO", "panic, fatal, error, warn, info, debug or trace"),
	OPT(STRING, raw_server, log_format, "log_format", NULL, "text or json"),
	OPT(STRING, raw_server, log_file, "log_file", NULL, "File of the log (standard output)"),
	IGNORED(BOOL, raw_server, log_source_location, "log_source_location", "lines of the log name no source",
		"Source file and line in the log"),
	BLOCK(BLOCK, raw_server, ratelimit, "ratelimit", &section_ratelimit, "Limits for each client address"),
	REFUSED(STRINGS, raw_server, proxy_protocol_trusted_cidrs, "proxy_protocol_trusted_cidrs",
		"the PROXY protocol is not spoken, so that all clients would have the proxy's address; remove the key",
		"Proxies whose PROXY header is believed (1.14)"),
	OPT(STRING, raw_server, prune_attested_nodes_expired_for, "prune_attested_nodes_expired_for", NULL,
	    "Forget agents that expired longer ago than this (never)"),
	OPT(INT, raw_server, prune_attested_nodes_batch_size, "prune_attested_nodes_batch_size", "1000",
	    "How many are forgotten at a time (1.14)"),
	OPT(BOOL, raw_server, prune_tofu_nodes, "prune_tofu_nodes", "false",
	    "Forget agents too that cannot attest again"),
	IGNORED(STRING, raw_server, max_attested_node_info_staleness, "max_attested_node_info_staleness", NO_CACHE,
		"Age of what is known of an agent"),
	IGNORED(BOOL, raw_server, profiling_enabled, "profiling_enabled", NO_PROFILES, "Profiles of the process"),
	IGNORED(INT, raw_server, profiling_port, "profiling_port", NO_PROFILES, "Profiles over HTTP"),
	IGNORED(INT, raw_server, profiling_freq, "profiling_freq", NO_PROFILES, "Profiles every so many seconds"),
	IGNORED(STRINGS, raw_server, profiling_names, "profiling_names", NO_PROFILES, "Which profiles"),
	BLOCK(BLOCK, raw_server, federation, "federation", &section_federation, "Other trust domains"),
	BLOCK(BLOCK, raw_server, experimental, "experimental", &section_experimental,
	      "What may change in later versions"),
	END,
};
static const struct section section_server = { "server", ORDER_SERVER, sizeof(struct raw_server), server_options };

static const struct option health_options[] = {
	OPT(BOOL, raw_health_checks, listener_enabled, "listener_enabled", "false", "Answer health checks over HTTP"),
	OPT(STRING, raw_health_checks, bind_address, "bind_address", "localhost", "Address of the listener"),
	OPT(STRING, raw_health_checks, bind_port, "bind_port", "80", "Port of the listener"),
	OPT(STRING, raw_health_checks, live_path, "live_path", "/live", "Path of the liveness check"),
	OPT(STRING, raw_health_checks, ready_path, "ready_path", "/ready", "Path of the readiness check"),
	END,
};
static const struct section section_health = { "health check", ORDER_HEALTH, sizeof(struct raw_health_checks),
					       health_options };

static const struct option prometheus_options[] = {
	OPT(STRING, raw_prometheus, host, "host", "localhost", "Address of the exporter"),
	OPT(INT, raw_prometheus, port, "port", NULL, "Port of the exporter"),
	REFUSED(NODE, raw_prometheus, tls, "tls", "measurements would be served without TLS; remove the block",
		"TLS for the exporter (1.14)"),
	END,
};
static const struct section section_prometheus = { "Prometheus", ORDER_PROMETHEUS, sizeof(struct raw_prometheus),
						   prometheus_options };

static const struct option sink_options[] = {
	OPT(STRING, raw_sink, address, "address", NULL, "Address of the collector"),
	END,
};
static const struct option m3_options[] = {
	OPT(STRING, raw_sink, address, "address", NULL, "Address of the collector"),
	OPT(STRING, raw_sink, env, "env", NULL, "Environment of the measurements"),
	END,
};
static const struct section section_dog_statsd = { "DogStatsd", ORDER_DOG_STATSD, sizeof(struct raw_sink),
						   sink_options };
static const struct section section_statsd = { "Statsd", ORDER_STATSD, sizeof(struct raw_sink), sink_options };
static const struct section section_m3 = { "M3", ORDER_M3, sizeof(struct raw_sink), m3_options };

static const struct option in_mem_options[] = { END };
static const struct section section_in_mem = { "InMem", ORDER_IN_MEM, sizeof(struct raw_in_mem), in_mem_options };

static const struct option telemetry_options[] = {
	BLOCK(BLOCK, raw_telemetry, prometheus, "Prometheus", &section_prometheus, "Measurements for Prometheus"),
	IGNORED_BLOCK(BLOCKS, raw_telemetry, dog_statsd, "DogStatsd", &section_dog_statsd, NO_SINK,
		      "Measurements for DogStatsd"),
	IGNORED_BLOCK(BLOCKS, raw_telemetry, statsd, "Statsd", &section_statsd, NO_SINK, "Measurements for statsd"),
	IGNORED_BLOCK(BLOCKS, raw_telemetry, m3, "M3", &section_m3, NO_SINK, "Measurements for M3"),
	IGNORED_BLOCK(BLOCK, raw_telemetry, in_mem, "InMem", &section_in_mem, NO_SINK, "Measurements in memory"),
	OPT(STRING, raw_telemetry, metric_prefix, "MetricPrefix", "spire_server",
	    "What names of measurements begin with"),
	OPT(BOOL, raw_telemetry, trust_domain_label, "EnableTrustDomainLabel", "false", "A label trust_domain"),
	OPT(BOOL, raw_telemetry, hostname_label, "EnableHostnameLabel", "true", "A label host"),
	OPT(STRINGS, raw_telemetry, allowed_prefixes, "AllowedPrefixes", NULL, "Publish only these"),
	OPT(STRINGS, raw_telemetry, blocked_prefixes, "BlockedPrefixes", NULL, "Publish none of these"),
	OPT(STRINGS, raw_telemetry, allowed_labels, "AllowedLabels", NULL, "Publish only these labels"),
	OPT(STRINGS, raw_telemetry, blocked_labels, "BlockedLabels", NULL, "Publish none of these labels"),
	END,
};
static const struct section section_telemetry = { NULL, 0, sizeof(struct raw_telemetry), telemetry_options };

static const struct option cluster_options[] = {
	OPT(STRING, raw_cluster, name, "name", NULL, "Name of this node, unique in the cluster (the host's name)"),
	OPT(STRING, raw_cluster, bind_address, "bind_address", "0.0.0.0",
	    "IP address or DNS name of the peer listener"),
	OPT(INT, raw_cluster, bind_port, "bind_port", "8082", "Port of the peer listener"),
	OPT(STRING, raw_cluster, advertise, "advertise", NULL, "HOST:PORT that peers dial (from bind_address)"),
	OPT(STRING, raw_cluster, api_advertise, "api_advertise", NULL,
	    "HOST:PORT that clients dial (from server.bind_address)"),
	OPT(STRINGS, raw_cluster, known_members, "known_members", NULL,
	    "HOST:PORT of nodes that -bootstrap asks first, so that no second cluster is founded"),
	OPT(STRINGS, raw_cluster, admin_ids, "admin_ids", NULL,
	    "SPIFFE IDs that may use the cluster commands over TCP"),
	OPT(STRING, raw_cluster, authority_spread, "authority_spread", "10m",
	    "How long a new authority is public before it is used"),
	OPT(STRING, raw_cluster, drain, "drain", "5s",
	    "How long a planned stop goes on serving after it is no longer ready"),
	OPT(STRINGS, raw_cluster, fail_closed, "fail_closed", NULL,
	    "Paths of SPIFFE IDs that are signed only while a leader is heard"),
	OPT(STRING, raw_cluster, max_staleness, "max_staleness", "1h",
	    "How long this node signs without hearing a leader"),
	OPT(STRING, raw_cluster, election_timeout, "election_timeout", "300ms",
	    "Without a leader for so long, one is elected"),
	OPT(STRING, raw_cluster, join_token_file, "join_token_file", NULL,
	    "File of the token that this node joins with"),
	END,
};
static const struct section section_cluster = { "cluster", ORDER_CLUSTER, sizeof(struct raw_cluster), cluster_options };

static const struct option root_options[] = {
	BLOCK(BLOCK, raw_config, server, "server", &section_server, "The server"),
	OPT(NODE, raw_config, plugins, "plugins", NULL, "DataStore, KeyManager, NodeAttestor and others"),
	BLOCK(BLOCK, raw_config, telemetry, "telemetry", &section_telemetry, "Measurements"),
	BLOCK(BLOCK, raw_config, health_checks, "health_checks", &section_health, "Health checks over HTTP"),
	BLOCK(BLOCK, raw_config, cluster, "cluster", &section_cluster, "Several servers as one"),
	END,
};
const struct section section_root = { "top-level", ORDER_TOP, sizeof(struct raw_config), root_options };

static const struct option plugin_options[] = {
	OPT(STRING, raw_plugin, plugin_cmd, "plugin_cmd", NULL, "External plugins are not started"),
	OPT(STRINGS, raw_plugin, plugin_args, "plugin_args", NULL, "Of an external plugin"),
	OPT(STRING, raw_plugin, plugin_checksum, "plugin_checksum", NULL, "Of an external plugin"),
	OPT(NODE, raw_plugin, plugin_data, "plugin_data", NULL, "The plugin's own keys"),
	OPT(STRING, raw_plugin, plugin_data_file, "plugin_data_file", NULL, "A file with them instead"),
	OPT(BOOL, raw_plugin, enabled, "enabled", "true", "Whether the plugin is used"),
	END,
};
const struct section section_plugin = { NULL, 0, sizeof(struct raw_plugin), plugin_options };

static const struct option keys_disk_options[] = {
	OPT(STRING, raw_keys_disk, keys_path, "keys_path", NULL, "File of the private keys"),
	END,
};
const struct section section_keys_disk = { "KeyManager \"disk\"", ORDER_PLUGIN_DATA, sizeof(struct raw_keys_disk),
					   keys_disk_options };

static const struct option x509pop_options[] = {
	OPT(STRING, raw_x509pop, mode, "mode", "external_pki", "external_pki or spiffe"),
	OPT(STRING, raw_x509pop, ca_bundle_path, "ca_bundle_path", NULL, "CA certificates of the agents, PEM"),
	OPT(STRINGS, raw_x509pop, ca_bundle_paths, "ca_bundle_paths", NULL, "The same in several files"),
	OPT(STRING, raw_x509pop, agent_path_template, "agent_path_template", NULL, "Path of agents' SPIFFE IDs"),
	OPT(STRING, raw_x509pop, spiffe_prefix, "spiffe_prefix", NULL,
	    "Path below which SVIDs may attest (/spire-exchange)"),
	OPT(INT, raw_x509pop, max_intermediates, "max_intermediates", NULL,
	    "Longest chain, in intermediates (4) (1.14)"),
	OPT(INT, raw_x509pop, max_rsa_key_size, "max_rsa_key_size", NULL, "Largest RSA key, in bits (8192) (1.14)"),
	OPT(BOOL, raw_x509pop, verify_client_ip, "verify_client_ip", "false",
	    "The certificate names the client's address (1.14)"),
	END,
};
const struct section section_x509pop = { "NodeAttestor \"x509pop\"", ORDER_PLUGIN_DATA, sizeof(struct raw_x509pop),
					 x509pop_options };

const struct section section_join_token = { "NodeAttestor \"join_token\"", ORDER_PLUGIN_DATA, sizeof(struct raw_in_mem),
					    in_mem_options };

static const struct option upstream_disk_options[] = {
	OPT(STRING, raw_upstream_disk, cert_file_path, "cert_file_path", NULL, "Certificate of the CA above, PEM"),
	OPT(STRING, raw_upstream_disk, key_file_path, "key_file_path", NULL, "Its private key, PEM"),
	OPT(STRING, raw_upstream_disk, bundle_file_path, "bundle_file_path", NULL,
	    "Roots above it, PEM; needed unless it is self-signed"),
	END,
};
const struct section section_upstream_disk = { "UpstreamAuthority \"disk\"", ORDER_PLUGIN_DATA,
					       sizeof(struct raw_upstream_disk), upstream_disk_options };

static const struct option upstream_experimental_options[] = {
	REFUSED(BOOL, raw_upstream_experimental, require_pq_kem, "require_pq_kem",
		"the connection would go on without a post-quantum key exchange; remove the key",
		"TLS with post-quantum groups only"),
	END,
};
static const struct section section_upstream_experimental = { "UpstreamAuthority \"spire\" experimental",
							      ORDER_PLUGIN_DATA,
							      sizeof(struct raw_upstream_experimental),
							      upstream_experimental_options };

static const struct option upstream_spire_options[] = {
	OPT(STRING, raw_upstream_spire, server_address, "server_address", NULL, "Host of the server above"),
	OPT(STRING, raw_upstream_spire, server_port, "server_port", NULL, "Its port"),
	OPT(STRING, raw_upstream_spire, workload_api_socket, "workload_api_socket", NULL,
	    "Workload API socket of the agent that gives this server its identity"),
	BLOCK(BLOCK, raw_upstream_spire, experimental, "experimental", &section_upstream_experimental,
	      "Not settled keys"),
	END,
};
const struct section section_upstream_spire = { "UpstreamAuthority \"spire\"", ORDER_PLUGIN_DATA,
						sizeof(struct raw_upstream_spire), upstream_spire_options };

static const struct option datastore_options[] = {
	OPT(NODE, raw_datastore, database_type, "database_type", NULL,
	    "sqlite3, postgres, mysql, aws_postgres or aws_mysql"),
	OPT(STRING, raw_datastore, connection_string, "connection_string", NULL, "Of SPIRE's database"),
	OPT(STRING, raw_datastore, ro_connection_string, "ro_connection_string", NULL, "Of SPIRE's database"),
	OPT(STRING, raw_datastore, root_ca_path, "root_ca_path", NULL, "Of SPIRE's database"),
	OPT(STRING, raw_datastore, client_cert_path, "client_cert_path", NULL, "Of SPIRE's database"),
	OPT(STRING, raw_datastore, client_key_path, "client_key_path", NULL, "Of SPIRE's database"),
	OPT(STRING, raw_datastore, conn_max_lifetime, "conn_max_lifetime", NULL, "Of SPIRE's database"),
	OPT(INT, raw_datastore, max_open_conns, "max_open_conns", NULL, "Of SPIRE's database"),
	OPT(INT, raw_datastore, max_idle_conns, "max_idle_conns", NULL, "Of SPIRE's database"),
	OPT(BOOL, raw_datastore, disable_migration, "disable_migration", NULL, "Of SPIRE's database"),
	OPT(BOOL, raw_datastore, log_sql, "log_sql", NULL, "Of SPIRE's database"),
	END,
};
const struct section section_datastore = { "DataStore \"sql\"", ORDER_PLUGIN_DATA, sizeof(struct raw_datastore),
					   datastore_options };

static const char *type_name(enum option_type type)
{
	static const char *const names[] = { "string", "number",          "bool", "list", "block",
					     "blocks", "labelled blocks", "block" };

	return names[type];
}

static void each_of(const struct section *section, const char *path, void (*each)(const struct config_option *, void *),
		    void *ctx)
{
	char whole[128];

	for (const struct option *option = section->options; option->key != NULL; option++) {
		snprintf(whole, sizeof whole, "%s%s%s", path, path[0] == '\0' ? "" : ".", option->key);
		each(&(struct config_option){ whole, type_name(option->type), option->initial, option->help,
					      option->remark, option->effect == OPTION_REFUSED },
		     ctx);
		if (option->section != NULL)
			each_of(option->section, whole, each, ctx);
	}
}

void config_each_option(void (*each)(const struct config_option *option, void *ctx), void *ctx)
{
	each_of(&section_root, "", each, ctx);
	each_of(&section_datastore, "plugins.DataStore.sql.plugin_data", each, ctx);
	each_of(&section_keys_disk, "plugins.KeyManager.disk.plugin_data", each, ctx);
	each_of(&section_x509pop, "plugins.NodeAttestor.x509pop.plugin_data", each, ctx);
	each_of(&section_upstream_disk, "plugins.UpstreamAuthority.disk.plugin_data", each, ctx);
	each_of(&section_upstream_spire, "plugins.UpstreamAuthority.spire.plugin_data", each, ctx);
}
