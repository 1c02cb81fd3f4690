/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's blocks with rules of their own: federation, cluster, plugins. */
#include "lib/load_config.h"

#define ENDPOINT(body) SERVER("federation { bundle_endpoint { " body " } }")
#define OTHER(label, body) SERVER("federation { federates_with \"" label "\" { " body " } }")
#define URL "bundle_endpoint_url = \"https://x/\" "

TEST(the_bundle_endpoint)
{
	CHECK_CODE(load(ENDPOINT(
			   "address = \"127.0.0.1\" port = 8443 refresh_hint = \"10m\" profile \"https_spiffe\" {}")),
		   CODE_OK);
	CHECK(config.federation_configured && config.bundle_endpoint.enabled && !config.bundle_endpoint.acme);
	CHECK_STR(config.bundle_endpoint.address, "127.0.0.1");
	CHECK_NUM(config.bundle_endpoint.port, 8443);
	CHECK_NUM(config.bundle_endpoint.refresh_hint_s, 600);
	CHECK_NUM(config.bundle_endpoint.profile, ENDPOINT_HTTPS_SPIFFE);
	CHECK_NUM(notes.n, 0);
	CHECK_CODE(load(ENDPOINT("port = \"8443\"")), CODE_OK);
	CHECK(config.bundle_endpoint.address == NULL);
	CHECK_NUM(config.bundle_endpoint.refresh_hint_s, 300);
	CHECK(find_note("has no profile set, using https_spiffe as default") != NULL);
	CHECK_CODE(load(ENDPOINT("address = \"here\" refresh_hint = \"24h\" profile { https_web { acme { domain_name = "
				 "\"d\" email = "
				 "\"e\" tos_accepted = true } } }")),
		   CODE_OK);
	CHECK(config.bundle_endpoint.address == NULL && config.bundle_endpoint.acme &&
	      config.bundle_endpoint.acme_tos_accepted);
	CHECK_NUM(config.bundle_endpoint.profile, ENDPOINT_HTTPS_WEB);
	CHECK_STR(config.bundle_endpoint.acme_domain_name, "d");
	CHECK_STR(config.bundle_endpoint.acme_directory_url, "https://acme-v02.api.letsencrypt.org/directory");
	CHECK(find_note("refresh hint set to a high value") != NULL && find_note("not an IP address") != NULL);
	CHECK_CODE(load(ENDPOINT("profile \"https_web\" { serving_cert_file { cert_file_path = \"c\" key_file_path = "
				 "\"k\" } }")),
		   CODE_OK);
	CHECK_STR(config.bundle_endpoint.cert_file_path, "c");
	CHECK_NUM(config.bundle_endpoint.file_sync_interval_s, 3600);
	CHECK_CODE(load(ENDPOINT("acme { domain_name = \"d\" email = \"e\" }")), CODE_OK);
	CHECK(config.bundle_endpoint.acme &&
	      find_note("ACME configuration within the bundle_endpoint is deprecated.") != NULL);
}

TEST(mistakes_of_the_bundle_endpoint)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ ENDPOINT("acme { email = \"e\" }"),
		  "federation.bundle_endpoint.acme.domain_name must be configured" },
		{ ENDPOINT("acme { domain_name = \"e\" }"),
		  "federation.bundle_endpoint.acme.email must be configured" },
		{ ENDPOINT("acme { domain_name = \"d\" email = \"e\" } profile \"https_spiffe\" {}"),
		  "either bundle endpoint 'acme' or 'profile' can be set, but not both" },
		{ ENDPOINT("profile \"https_spiffe\" {} profile \"https_web\" {}"),
		  "exactly one bundle endpoint profile is expected" },
		{ ENDPOINT("profile {}"), "exactly one bundle endpoint profile is expected" },
		{ ENDPOINT("profile = 1"), "malformed configuration" },
		{ ENDPOINT("profile \"x\" {}"),
		  "unknown bundle endpoint profile configured; current supported profiles are " },
		{ ENDPOINT("profile \"https_web\" {}"),
		  "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required" },
		{ ENDPOINT("profile \"https_web\" { serving_cert_file {} }"),
		  "serving_cert_file needs cert_file_path and key_file_path" },
		{ ENDPOINT("refresh_hint = \"x\""),
		  "could not parse refresh_hint \"x\": time: invalid duration \"x\"" },
		{ ENDPOINT("port = 70000"),
		  "federation.bundle_endpoint.port: expected a port from 0 to 65535, got 70000" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_refused(cases[i].text, cases[i].error);
	check_refused(ENDPOINT("colour = 1 acme { domain_name = \"d\" email = \"e\" shape = 2 }"),
		      "unknown configuration detected");
	CHECK_STR(pair_of(&notes.items[notes.n - 2], "section"), "bundle endpoint");
	CHECK_STR(pair_of(&notes.items[notes.n - 1], "section"), "bundle endpoint ACME");
}

TEST(static_relationships)
{
	CHECK_CODE(
		load(SERVER(
			"federation {\n"
			"federates_with \"z.org\" { " URL "bundle_endpoint_profile \"https_web\" {} }\n"
			"federates_with { \"spiffe://b.org\" = { bundle_endpoint_url = \"HTTPS://b\"\n"
			"bundle_endpoint_profile \"https_spiffe\" { endpoint_spiffe_id = \"spiffe://b.org/s\" } } }\n"
			"federates_with \"c.org\" { " URL "}\n"
			"federates_with \"c.org\" { bundle_endpoint_profile { https_web {} } } }")),
		CODE_OK);
	CHECK(config.federation_configured && !config.bundle_endpoint.enabled);
	CHECK_NUM(config.n_federates_with, 3);
	CHECK_STR(config.federates_with[0].trust_domain, "b.org");
	CHECK_STR(config.federates_with[0].bundle_endpoint_url, "HTTPS://b");
	CHECK_STR(config.federates_with[0].endpoint_spiffe_id, "spiffe://b.org/s");
	CHECK_NUM(config.federates_with[0].profile, ENDPOINT_HTTPS_SPIFFE);
	CHECK_STR(config.federates_with[1].trust_domain, "c.org");
	CHECK_NUM(config.federates_with[1].profile, ENDPOINT_HTTPS_WEB);
	CHECK_STR(config.federates_with[2].trust_domain, "z.org");
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ OTHER("a", ""), "federation.federates_with[\"a\"].bundle_endpoint_url must be configured" },
		{ OTHER("a", "bundle_endpoint_url = \"http://x\""),
		  "federation.federates_with[\"a\"].bundle_endpoint_url must use the HTTPS protocol; URL found: "
		  "\"http://x\"" },
		{ OTHER("a", URL),
		  "federation configuration for trust domain \"a\": missing bundle endpoint configuration" },
		{ OTHER("A", URL), "trust domain characters are limited" },
		{ OTHER("a", URL "bundle_endpoint_profile \"x\" {}"),
		  "error parsing federation relationship for trust domain \"a\": no bundle endpoint profile "
		  "defined; " },
		{ OTHER("a", URL "bundle_endpoint_profile \"https_spiffe\" {}"),
		  "error parsing federation relationship for trust domain \"a\": could not get endpoint SPIFFE ID: " },
		{ SERVER("federation { federates_with \"a\" { " URL "bundle_endpoint_profile \"https_web\" {} }\n"
			 "federates_with \"spiffe://a\" { " URL "bundle_endpoint_profile \"https_web\" {} } }"),
		  "federation configuration for trust domain \"a\": there are two blocks for it" },
		{ SERVER("federation { federates_with = 5 }"),
		  ": server.federation.federates_with: expected a block, got a number" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_refused(cases[i].text, cases[i].error);
}

TEST(the_cluster_block)
{
	char host[256];

	CHECK(gethostname(host, sizeof host) == 0);
	CHECK_CODE(load(SERVER("") " cluster { name = \"n1\" }"), CODE_OK);
	CHECK(config.cluster.enabled && config.cluster.join_token_file == NULL);
	CHECK_STR(config.cluster.bind_address, "0.0.0.0");
	CHECK_NUM(config.cluster.bind_port, 8082);
	CHECK_STR(config.cluster.advertise, printed("%s:8082", host));
	CHECK_STR(config.cluster.api_advertise, printed("%s:8081", host));
	CHECK_NUM(config.cluster.authority_spread_s, 600);
	CHECK_NUM(config.cluster.drain_s, 5);
	CHECK_NUM(config.cluster.max_staleness_s, 3600);
	CHECK_NUM(config.cluster.election_timeout_ms, 300);
	CHECK_CODE(
		load(SERVER("bind_address = \"127.0.0.1\"") " cluster { name = \"n2\" bind_address = \"[::1]\" "
							    "bind_port = 9 api_advertise = "
							    "\"h:1\" known_members = [\"a:1\", \"[::1]:2\"] admin_ids "
							    "= [\"spiffe://example.org/a\"] authority_spread = \"0s\" "
							    "drain = "
							    "\"1m\" fail_closed = [\"/ns/x\"] max_staleness = \"0s\" "
							    "election_timeout = \"1s\" join_token_file = \"/t\" }"),
		CODE_OK);
	CHECK_STR(config.cluster.bind_address, "::1");
	CHECK_STR(config.cluster.advertise, "[::1]:9");
	CHECK_STR(config.cluster.api_advertise, "h:1");
	CHECK_STR(config.cluster.known_members.items[1], "[::1]:2");
	CHECK_STR(config.cluster.fail_closed.items[0], "/ns/x");
	CHECK_NUM(config.cluster.max_staleness_s, 0);
	CHECK_NUM(config.cluster.election_timeout_ms, 1000);
	CHECK_STR(config.cluster.join_token_file, "/t");
	static const struct {
		const char *body, *error;
	} cases[] = {
		{ "name = \"N1\"", "cluster.name: expected 1 to 63 of a-z, 0-9 and '-', got \"N1\"" },
		{ "bind_port = 70000", "cluster.bind_port: expected a port from 1 to 65535, got 70000" },
		{ "advertise = \"x\"", "cluster.advertise: expected HOST:PORT, got \"x\"" },
		{ "advertise = \"::1:5\"", "cluster.advertise: expected HOST:PORT, got \"::1:5\"" },
		{ "api_advertise = \":5\"", "cluster.api_advertise: expected HOST:PORT, got \":5\"" },
		{ "known_members = [\"a:0\"]", "cluster.known_members: expected HOST:PORT, got \"a:0\"" },
		{ "admin_ids = [\"spiffe://other/a\"]", "cluster.admin_ids: \"spiffe://other/a\": \"spiffe://other/a\" "
							"is not a member of trust domain \"example.org\"" },
		{ "fail_closed = [\"ns\"]",
		  "cluster.fail_closed: expected the beginning of a path, such as \"/ns/payments/\", got \"ns\"" },
		{ "drain = \"5\"", "cluster.drain: \"5\": time: missing unit in duration \"5\"" },
		{ "max_staleness = \"-1s\"", "cluster.max_staleness: \"-1s\": must not be negative" },
		{ "election_timeout = \"5ms\"", "cluster.election_timeout: expected 60ms to 1m, got \"5ms\"" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_refused(printed("%s cluster { %s %s }", SERVER(""), i == 0 ? "" : "name = \"n\"", cases[i].body),
			      cases[i].error);
}

#define SQL "DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = \"x.db?a\" } } "
#define MEMORY "KeyManager \"memory\" {} "

TEST(plugins_that_are_built)
{
	const struct config_note *note;

	check_plugins(SQL "KeyManager disk { plugin_data = { keys_path = \"k\" } } NodeAttestor { join_token {} "
			  "x509pop { plugin_data {\n"
			  "mode = \"m\" ca_bundle_path = \"c\" ca_bundle_paths = [\"d\"] agent_path_template = \"t\" "
			  "spiffe_prefix = \"/p\"\n"
			  "max_intermediates = 3 verify_client_ip = true colour = 1 } } }",
		      NULL);
	CHECK_NUM(config.key_manager, KEY_MANAGER_DISK);
	CHECK_STR(config.keys_path, "k");
	CHECK(config.join_token && config.x509pop.enabled && config.x509pop.verify_client_ip);
	CHECK_STR(config.x509pop.mode, "m");
	CHECK_STR(config.x509pop.ca_bundle_path, "c");
	CHECK_STR(config.x509pop.ca_bundle_paths.items[0], "d");
	CHECK_STR(config.x509pop.agent_path_template, "t");
	CHECK_STR(config.x509pop.spiffe_prefix, "/p");
	CHECK_NUM(config.x509pop.max_intermediates, 3);
	CHECK_STR(config.datastore_path, "x.db");
	note = find_note("DataStore is set aside");
	CHECK_NUM(note->level, LOG_INFO);
	CHECK_STR(pair_of(note, "state"), "/d/state.db");
	CHECK_STR(pair_of(find_note("is unknown"), "key"), "plugins.NodeAttestor.x509pop.plugin_data.colour");
	check_plugins(MEMORY "NodeAttestor join_token { enabled = false } Notifier x {}", NULL);
	CHECK_NUM(config.key_manager, KEY_MANAGER_MEMORY);
	CHECK(!config.join_token && config.datastore_path == NULL);
	check_plugins(MEMORY "DataStore \"sql\" { plugin_data { database_type \"aws_mysql\" { region = \"r\" } "
			     "connection_string = \"x\" } }",
		      NULL);
	check_plugins("KeyManager disk plugin_data { keys_path = \"k\" }", NULL);
	CHECK_NUM(config.upstream.kind, UPSTREAM_NONE);
	check_plugins(MEMORY "UpstreamAuthority disk { plugin_data { cert_file_path = \"c\" key_file_path = \"k\" } }",
		      NULL);
	CHECK_NUM(config.upstream.kind, UPSTREAM_DISK);
	CHECK_STR(config.upstream.cert_file_path, "c");
	CHECK_STR(config.upstream.key_file_path, "k");
	CHECK(config.upstream.bundle_file_path == NULL);
	check_plugins(MEMORY "UpstreamAuthority spire { plugin_data { server_address = \"h\" server_port = 8081 "
			     "workload_api_socket = \"/s\" experimental { require_pq_kem = false } } }",
		      NULL);
	CHECK_NUM(config.upstream.kind, UPSTREAM_SPIRE);
	CHECK_STR(config.upstream.server_address, "h");
	CHECK_STR(config.upstream.server_port, "8081");
	CHECK_STR(config.upstream.workload_api_socket, "/s");
}

TEST(mistakes_of_plugins)
{
	static const struct {
		const char *plugins, *error;
	} cases[] = {
		{ SQL, "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 0" },
		{ MEMORY "KeyManager disk { plugin_data { keys_path = \"k\" } }",
		  "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 2" },
		{ MEMORY "Colour red {}", "unsupported plugin type \"Colour\"" },
		{ "KeyManager foo {}",
		  "failed to load plugin \"foo\": no built-in plugin \"foo\" for type \"KeyManager\"" },
		{ "KeyManager disk {}", "failed to configure plugin \"disk\": rpc error: code = InvalidArgument desc = "
					"keys_path is required" },
		{ "KeyManager disk { plugin_data { keys_path = [] } }",
		  "failed to configure plugin \"disk\": rpc error: code = InvalidArgument desc = unable to decode "
		  "configuration: At 1:112: "
		  "plugins.KeyManager.disk.plugin_data.keys_path: expected a string, got a list" },
		{ "KeyManager disk { plugin_data_file = \"/none\" }",
		  "failed to configure plugin \"disk\": failed to load plugin data: open /none: no such file or "
		  "directory" },
		{ "KeyManager memory { plugin_data { a = 1 } }",
		  "failed to configure plugin \"memory\": no supported configuration interface found" },
		{ MEMORY "NodeAttestor x509pop { plugin_data { max_intermediates = -1 } }",
		  "failed to configure plugin \"x509pop\": rpc error: code = InvalidArgument desc = max_intermediates "
		  "and max_rsa_key_size "
		  "must not be negative" },
		{ MEMORY "UpstreamAuthority disk {} UpstreamAuthority spire { plugin_data { server_address = \"h\" "
			 "server_port = 1 workload_api_socket = \"/s\" } }",
		  "plugin type \"UpstreamAuthority\" constraint not satisfied: expected at most 1 but got 2" },
		{ MEMORY "UpstreamAuthority spire { plugin_data { server_port = 1 } }",
		  "failed to configure plugin \"spire\": rpc error: code = InvalidArgument desc = server_address is "
		  "required" },
		{ MEMORY "UpstreamAuthority spire { plugin_data { server_address = \"h\" } }",
		  "failed to configure plugin \"spire\": rpc error: code = InvalidArgument desc = server_port is "
		  "required" },
		{ MEMORY "UpstreamAuthority spire { plugin_data { server_address = \"h\" server_port = 1 } }",
		  "failed to configure plugin \"spire\": rpc error: code = InvalidArgument desc = workload_api_socket "
		  "is required" },
		{ MEMORY "UpstreamAuthority spire { plugin_data { server_address = \"h\" server_port = 65536 "
			 "workload_api_socket = \"/s\" } }",
		  "failed to configure plugin \"spire\": rpc error: code = InvalidArgument desc = server_port "
		  "\"65536\" is no port" },
		{ MEMORY "UpstreamAuthority spire { plugin_data { server_address = \"h\" server_port = 1 "
			 "workload_api_socket = \"/s\" experimental { require_pq_kem = true } } }",
		  "plugins.UpstreamAuthority.spire.plugin_data.experimental.require_pq_kem = true (line 1) is not "
		  "supported: the connection would go on without a post-quantum key exchange; remove the key" },
		{ SQL MEMORY "DataStore foo {}", "only one DataStore plugin is allowed" },
		{ MEMORY "DataStore foo {}",
		  "pluggability for the DataStore is deprecated; only the built-in \"sql\" plugin is supported" },
		{ MEMORY "DataStore sql {}", "malformed database type configuration" },
		{ MEMORY "DataStore sql { plugin_data { database_type = \"oracle\" connection_string = \"x\" } }",
		  "datastore-sql: unsupported database_type: oracle" },
		{ MEMORY "DataStore sql { plugin_data { database_type = \"\" connection_string = \"x\" } }",
		  "datastore-sql: database_type must be set" },
		{ MEMORY "DataStore sql { plugin_data { database_type = \"mysql\" } }",
		  "datastore-sql: connection_string must be set" },
		{ MEMORY
		  "DataStore sql { plugin_data { database_type = \"sqlite3\" connection_string = \"http://x\" } }",
		  "datastore-sql: datastore-sql: unsupported scheme \"http\"" },
		{ MEMORY "DataStore sql { plugin_data { database_type \"aws_mysql\" {} connection_string = \"x\" } }",
		  "datastore-sql: region must be specified" },
		{ MEMORY "DataStore sql { plugin_data { database_type \"x\" {} connection_string = \"x\" } }",
		  "unknown database type: x" },
		{ MEMORY "DataStore sql { plugin_data { database_type = {} } }",
		  "exactly one database type is expected" },
		{ MEMORY "DataStore sql { plugin_data { database_type \"a\" \"b\" {} } }",
		  "exactly one key is expected" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_plugins(cases[i].plugins, cases[i].error);
}

TEST(plugin_data_may_stand_in_a_file)
{
	const char *path, *text = "keys_path = \"k\"\n";

	path = write_file("keys.conf", text, strlen(text));
	check_plugins(printed("KeyManager disk { plugin_data_file = \"%s\" }", path), NULL);
	CHECK_STR(config.keys_path, "k");
}
