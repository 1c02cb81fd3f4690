/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: what each key becomes, what SPIRE says of each mistake, what is warned of, what is refused. SEED=n
 * in the environment repeats the mutations of a run that failed. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "lib/load_config.h"

TEST(a_small_file_has_the_defaults)
{
	CHECK_CODE(load(SERVER("")), CODE_OK);
	CHECK_STR(config.trust_domain, "example.org");
	CHECK_STR(config.data_dir, "/d");
	CHECK_STR(config.bind_address, "0.0.0.0");
	CHECK_NUM(config.bind_port, 8081);
	CHECK_STR(config.socket_path, "/tmp/spire-server/private/api.sock");
	CHECK_NUM(config.admin_ids.n, 0);
	CHECK_NUM(config.ca_ttl_s, 86400);
	CHECK_NUM(config.default_x509_svid_ttl_s, 3600);
	CHECK_NUM(config.default_jwt_svid_ttl_s, 300);
	CHECK_NUM(config.agent_ttl_s, 3600);
	CHECK_STR(config.ca_key_type, "ec-p256");
	CHECK_STR(config.jwt_key_type, "ec-p256");
	CHECK_STR(config.ca_subject.country.items[0], "US");
	CHECK_STR(config.ca_subject.organization.items[0], "SPIFFE");
	CHECK(config.ca_subject.common_name == NULL && config.jwt_issuer == NULL);
	CHECK_NUM(config.prune_attested_nodes_expired_for_s, 0);
	CHECK_NUM(config.prune_attested_nodes_batch_size, 1000);
	CHECK(config.ratelimit_attestation && config.ratelimit_signing && !config.audit_log_enabled);
	CHECK_NUM(config.log.level, LOG_INFO);
	CHECK_STR(config.log.format, "");
	CHECK(config.log.file == NULL && !config.federation_configured && !config.cluster.enabled);
	CHECK(!config.health_enabled && !config.prometheus_enabled);
	CHECK_STR(config.health_address, "localhost");
	CHECK_NUM(config.health_port, 80);
	CHECK_STR(config.health_live_path, "/live");
	CHECK_STR(config.health_ready_path, "/ready");
	CHECK_STR(config.metric_prefix, "spire_server");
	CHECK(config.hostname_label && !config.trust_domain_label);
	CHECK_NUM(config.n_plugins, 1);
	CHECK_NUM(notes.n, 0);
}

TEST(every_key_of_the_server_goes_where_it_should)
{
	CHECK_CODE(
		load("Server { TRUST_DOMAIN = \"spiffe://a.org\" data_dir = \"d\" bind_address = \"[::1]\" bind_port = "
		     "\"0x1F90\"\n"
		     "socket_path = \"/x//y/../z.sock\" admin_ids = [\"spiffe://a.org/b\", \"spiffe://c/d\",]\n"
		     "agent_ttl = \"2h\" default_x509_svid_ttl = \"90m\" default_jwt_svid_ttl = \"500ms\" ca_ttl = "
		     "\"72h\"\n"
		     "ca_key_type = \"RSA-2048\" jwt_key_type = \"ec-P384\" jwt_issuer = \"i\"\n"
		     "ca_subject = { country = [\"DE\"], organization = [\"O\", \"P\"], common_name = \"n\" }\n"
		     "log_level = \"Debug\" log_format = \"JSON\" log_file = \"/l\"\n"
		     "ratelimit { attestation = false signing = \"true\" } prune_attested_nodes_expired_for = \"24h\"\n"
		     "prune_attested_nodes_batch_size = 7 prune_tofu_nodes = true audit_log_enabled = true }\n"
		     "health_checks { listener_enabled = true bind_address = \"[::1]\" bind_port = 8080 live_path = "
		     "\"/l\" "
		     "ready_path = \"/r\" }\n"
		     "telemetry { prometheus { host = \"h\" port = 9988 } MetricPrefix = \"p\" EnableTrustDomainLabel "
		     "= true\n"
		     "EnableHostnameLabel = false AllowedPrefixes = [\"a\"] BlockedLabels = [\"b\"] }\n" PLUGINS),
		CODE_OK);
	CHECK_STR(config.trust_domain, "a.org");
	CHECK_STR(config.bind_address, "::1");
	CHECK_NUM(config.bind_port, 8080);
	CHECK_STR(config.socket_path, "/x/z.sock");
	CHECK_NUM(config.admin_ids.n, 2);
	CHECK_STR(config.admin_ids.items[1], "spiffe://c/d");
	CHECK(config.audit_log_enabled);
	CHECK_NUM(config.agent_ttl_s, 7200);
	CHECK_NUM(config.default_x509_svid_ttl_s, 5400);
	CHECK_NUM(config.default_jwt_svid_ttl_s, 1); /* not nothing */
	CHECK_NUM(config.ca_ttl_s, 3 * 86400);
	CHECK_STR(config.ca_key_type, "rsa-2048");
	CHECK_STR(config.jwt_key_type, "ec-p384");
	CHECK_STR(config.jwt_issuer, "i");
	CHECK_STR(config.ca_subject.organization.items[1], "P");
	CHECK_STR(config.ca_subject.common_name, "n");
	CHECK_NUM(config.log.level, LOG_DEBUG);
	CHECK_STR(config.log.format, "json");
	CHECK_STR(config.log.file, "/l");
	CHECK(!config.ratelimit_attestation && config.ratelimit_signing);
	CHECK_NUM(config.prune_attested_nodes_expired_for_s, 86400);
	CHECK_NUM(config.prune_attested_nodes_batch_size, 7);
	CHECK(config.prune_tofu_nodes && config.health_enabled && config.prometheus_enabled);
	CHECK_STR(config.health_address, "::1");
	CHECK_NUM(config.health_port, 8080);
	CHECK_STR(config.health_ready_path, "/r");
	CHECK_STR(config.prometheus_host, "h");
	CHECK_NUM(config.prometheus_port, 9988);
	CHECK_STR(config.metric_prefix, "p");
	CHECK(config.trust_domain_label && !config.hostname_label);
	CHECK_STR(config.allowed_prefixes.items[0], "a");
	CHECK_STR(config.blocked_labels.items[0], "b");
}

TEST(json_is_read_too)
{
	CHECK_CODE(load("{\"plugins\": {\"KeyManager\": {\"memory\": {\"plugin_data\": {}}}},\n"
			" \"server\": [{\"trust_domain\": \"example.org\", \"data_dir\": \"/d\", \"bind_port\": "
			"\"8082\",\n"
			" \"admin_ids\": [\"spiffe://a/b\"], \"ratelimit\": {\"signing\": false}}]}"),
		   CODE_OK);
	CHECK_NUM(config.bind_port, 8082);
	CHECK_NUM(config.admin_ids.n, 1);
	CHECK(!config.ratelimit_signing);
	CHECK_STR(config.plugins[0].name, "memory");
}

TEST(flags_win_over_the_file)
{
	struct config_flags flags;

	CHECK_CODE(load(SERVER("bind_port = 9000 log_level = \"loud\" socket_path = \"/a\"")), CODE_INVALID_ARGUMENT);
	flags = no_flags(path_of("server.conf"));
	flags.bind_address = "127.0.0.1";
	flags.data_dir = "/e";
	flags.trust_domain = "b.org";
	flags.log_level = "warn";
	flags.log_format = "text";
	flags.log_file = "/f";
	flags.server_port = 9001;
	flags.log_source_location = true;
	CHECK_CODE(load_with(flags), CODE_OK);
	CHECK_STR(config.bind_address, "127.0.0.1");
	CHECK_NUM(config.bind_port, 9001);
	CHECK_STR(config.data_dir, "/e");
	CHECK_STR(config.trust_domain, "b.org");
	CHECK_STR(config.socket_path, "/a");
	CHECK_NUM(config.log.level, LOG_WARN);
	CHECK_STR(config.log.format, "text");
	CHECK_STR(config.log.file, "/f");
	CHECK_STR(pair_of(find_note("Flag has no effect"), "flag"), "-logSourceLocation");
	flags.server_port = 70000;
	CHECK_CODE(load_with(flags), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "could not resolve bind address \"127.0.0.1:70000\": address 70000: invalid port");
}

TEST(the_environment_is_put_in_on_request)
{
	struct config_flags flags;

	setenv("TEST_TD", "example.org", 1);
	unsetenv("TEST_NONE");
	CHECK_CODE(load("server { trust_domain = \"$TEST_TD\" data_dir = \"/d\" jwt_issuer = \"$TEST_TD\" }" PLUGINS),
		   CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "could not parse trust_domain \"$TEST_TD\": ") != NULL);
	load("server { trust_domain = \"${TEST_TD}\" data_dir = \"/$$a$TEST_NONE-$.${}b${TEST_NONE}c\" jwt_issuer = "
	     "\"$*$5x$\" }" PLUGINS " # ${unended");
	flags = no_flags(path_of("server.conf"));
	flags.expand_env = true;
	CHECK_CODE(load_with(flags), CODE_OK);
	CHECK_STR(config.trust_domain, "example.org");
	CHECK_STR(config.data_dir, "/$a-$.bc");
	CHECK_STR(config.jwt_issuer, "x$");
}

TEST(what_expands_too_far_is_refused)
{
	struct config_flags flags;
	OWN_BUF text = { 0 };
	char *large = malloc(100001);

	memset(large, 'x', 100000);
	large[100000] = '\0';
	setenv("TEST_LARGE", large, 1);
	free(large);
	for (int i = 0; i < 70000; i++)
		buf_puts(&text, "$TEST_LARGE ${");
	arena_free(arena);
	arena = arena_new();
	flags = no_flags(write_file("large.conf", (char *)text.data, text.len));
	flags.expand_env = true;
	CHECK_CODE(load_with(flags), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "is larger than 1048576 bytes") != NULL);
	unsetenv("TEST_LARGE");
}

TEST(a_file_that_cannot_be_read_is_named)
{
	char cwd[4096];

	arena_free(arena);
	arena = arena_new();
	CHECK_CODE(load_with(no_flags(path_of("none.conf"))), CODE_NOT_FOUND);
	CHECK_STR(err.text,
		  printed("could not find config file %s: please use the -config flag", path_of("none.conf")));
	CHECK(getcwd(cwd, sizeof cwd) != NULL);
	CHECK(chdir(test_dir()) == 0);
	CHECK_CODE(load_with(no_flags("")), CODE_NOT_FOUND);
	CHECK_STR(err.text, printed("could not find config file %s: please use the -config flag",
				    path_of("conf/server/server.conf")));
	CHECK(chdir(cwd) == 0);
	CHECK_CODE(load_with(no_flags(test_dir())), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text,
		  printed("unable to read configuration at \"%s\": read %s: is a directory", test_dir(), test_dir()));
	CHECK_CODE(load("server { a = [ }"), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, printed("unable to decode configuration at \"%s\": At 1:16: expected a value got: RBRACE",
				    path_of("server.conf")));
}

TEST(a_file_larger_than_the_limit_is_refused)
{
	char *text = malloc(10 << 20);

	memset(text, '#', 10 << 20);
	arena_free(arena);
	arena = arena_new();
	CHECK_CODE(load_with(no_flags(write_file("server.conf", text, 10 << 20))), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "is larger than 1048576 bytes") != NULL);
	CHECK_CODE(load_with(no_flags(write_file("server.conf", text, LIMIT_CONFIG))), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "trust_domain must be configured");
	free(text);
}

TEST(mistakes_have_the_texts_of_spire)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "", "trust_domain must be configured" },
		{ "server { trust_domain = \"a\" }" PLUGINS, "data_dir must be configured" },
		{ "server { " HEAD "}", "plugins section must be configured" },
		{ "server { trust_domain = \"A B\" data_dir = \"d\" }" PLUGINS,
		  "could not parse trust_domain \"A B\": trust domain characters are limited to lowercase letters, "
		  "numbers, "
		  "dots, dashes, and underscores" },
		{ SERVER("bind_port = 99999"),
		  "could not resolve bind address \"0.0.0.0:99999\": address 99999: invalid port" },
		{ SERVER("bind_port = -1"), "could not resolve bind address \"0.0.0.0:-1\": address -1: invalid port" },
		{ SERVER("bind_address = 5"), "could not resolve bind address \"5:8081\": lookup 5: no such host" },
		{ SERVER("log_level = \"loud\""), "could not start logger: not a valid logrus Level: \"loud\"" },
		{ SERVER("log_format = \"xml\""), "could not start logger: unknown logger format: \"xml\"" },
		{ SERVER("admin_ids = [\"x\"]"), "could not parse admin ID \"x\": " },
		{ SERVER("ca_ttl = \"1 day\""),
		  "could not parse default CA ttl \"1 day\": time: unknown unit \" day\" in duration \"1 day\"" },
		{ SERVER("agent_ttl = \"5\""),
		  "could not parse agent ttl \"5\": time: missing unit in duration \"5\"" },
		{ SERVER("default_x509_svid_ttl = \"x\""),
		  "could not parse default X509 SVID ttl \"x\": time: invalid duration \"x\"" },
		{ SERVER("default_jwt_svid_ttl = \"x\""),
		  "could not parse default JWT SVID ttl \"x\": time: invalid duration \"x\"" },
		{ SERVER("ca_ttl = \"-1h\""), "could not parse default CA ttl \"-1h\": must not be negative" },
		{ SERVER("ca_key_type = \"dsa\""), "error parsing ca_key_type: key type \"dsa\" is unknown; must be "
						   "one of [rsa-2048, rsa-4096, ec-p256, ec-p384]" },
		{ SERVER("jwt_key_type = \"dsa\""),
		  "error parsing jwt_key_type: key type \"dsa\" is unknown; must be one of " },
		{ SERVER("prune_attested_nodes_expired_for = \"x\""),
		  "could not parse prune_attested_nodes_expired_for: time: invalid duration \"x\"" },
		{ SERVER("max_attested_node_info_staleness = \"x\""),
		  "could not parse max attested node staleness \"x\": time: invalid duration \"x\"" },
		{ SERVER("experimental { cache_reload_interval = \"x\" }"),
		  "could not parse cache reload interval: time: invalid duration \"x\"" },
		{ SERVER("experimental { feature_flags = [\"z\", \"i_am_a_test_flag\", \"a\"] }"),
		  "error loading feature flags: unknown feature flag(s): [a z]" },
		{ SERVER("experimental { event_timeout = \"1m\" sql_transaction_timeout = \"1m\" }"),
		  "both experimental sql_transaction_timeout and event_timeout set, only set event_timeout" },
		{ SERVER("experimental { named_pipe_name = \"x\" }"),
		  "invalid configuration: named_pipe_name is not supported in this platform; please use socket_path "
		  "instead" },
		{ SERVER("trust_domain = [1]"), ": server.trust_domain: expected a string, got a list" },
		{ SERVER("trust_domain { }"), ": server.trust_domain: expected a string, got an object" },
		{ SERVER("trust_domain \"x\" { }"), ": server.trust_domain: expected '=' and a value, got a block" },
		{ SERVER("bind_port = 1.5"), ": server.bind_port: expected a number, got a fraction" },
		{ SERVER("bind_port = \"x\""), ": server.bind_port: expected a number, got \"x\"" },
		{ SERVER("prune_tofu_nodes = 1"), ": server.prune_tofu_nodes: expected true or false, got a number" },
		{ SERVER("prune_tofu_nodes = \"yes\""),
		  ": server.prune_tofu_nodes: expected true or false, got \"yes\"" },
		{ SERVER("admin_ids = \"x\""), ": server.admin_ids: expected a list, got a string" },
		{ SERVER("ratelimit = true"), ": server.ratelimit: expected a block, got true or false" },
		{ "server = 5" PLUGINS, ": server: expected a block, got a number" },
		{ SERVER("") " health_checks { bind_port = \"http\" }",
		  "health_checks.bind_port: expected a port from 0 to 65535, got \"http\"" },
		{ SERVER("") " telemetry { Prometheus { port = 70000 } }",
		  "telemetry.Prometheus.port: expected a port from 0 to 65535, got 70000" },
		{ "server { " HEAD "} plugins = 1", "At 1:67: plugins: expected a block, got a number" },
		{ "server { " HEAD "} plugins { A = 1 }",
		  "failed to decode plugins config: At 1:71: plugins.A: expected a block, got a number" },
		{ "server { " HEAD "} plugins { A \"x\" { enabled = 5 } }",
		  "plugins.A.x.enabled: expected true or false, got a number" },
		{ "server { " HEAD "} plugins { A { \"x\" = 5 } }", "plugins.A.x: expected a block, got a number" },
		{ "server { " HEAD "} plugins { A \"x\" {} A { y {} \"x\" {} } }",
		  "plugin \"A\"/\"x\" declared more than once" },
		{ "server { " HEAD "} plugins { A \"x\" {} } plugins { A \"x\" {} }",
		  "plugin \"A\"/\"x\" declared more than once" },
		{ "server { " HEAD "} plugins { A \"x\" { plugin_data {} plugin_data_file = \"y\" } }",
		  "failed to create plugin config for \"A\"/\"x\": only one of [plugin_data, plugin_data_file] can be "
		  "used" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_refused(cases[i].text, cases[i].error);
}

TEST(unknown_keys_are_a_line_for_each_section)
{
	check_refused(
		"zebra { } Server { " HEAD
		" Colour = 1 a = 2 a = 3 ca_subject { common_name = 1 b = 1 } ratelimit { c = 1 } }\n"
		"aa = 1 telemetry { Statsd = [{ address = \"x\" }, { d = 1 }] Prometheus { e = 1 } InMem { f = 1 } }\n"
		"health_checks { g = 1 } cluster { h = 1 }" PLUGINS,
		"unknown configuration detected");
	static const char *const want[][2] = {
		{ "top-level", "aa,zebra" }, { "server", "Colour,a" }, { "ca_subject", "b" }, { "ratelimit", "c" },
		{ "Prometheus", "e" },       { "Statsd", "d" },        { "InMem", "f" },      { "health check", "g" },
		{ "cluster", "h" },
	};
	CHECK_NUM(notes.n, sizeof want / sizeof want[0]);
	for (size_t i = 0; i < notes.n; i++) {
		CHECK_NUM(notes.items[i].level, LOG_ERROR);
		CHECK_STR(notes.items[i].msg, "Unknown configuration detected");
		CHECK_STR(pair_of(&notes.items[i], "section"), want[i][0]);
		CHECK_STR(pair_of(&notes.items[i], "keys"), want[i][1]);
	}
}

TEST(what_spire_overlooks_is_a_warning)
{
	check_warned(SERVER("\"colour\" = 1"), "server.colour");
	check_warned(SERVER("experimental { colour = 1 }"), "server.experimental.colour");
	check_warned(SERVER("federation { colour = 1 }"), "server.federation.colour");
	check_warned("telemetry { colour = 1 } " SERVER(""), "telemetry.colour");
	check_warned("server { " HEAD "} plugins { A \"x\" { colour = 1 } }", "plugins.A.x.colour");
}

TEST(keys_without_effect_are_a_warning_when_they_ask_for_something)
{
	check_warned(SERVER("profiling_enabled = true"), "server.profiling_enabled");
	check_warned(SERVER("profiling_port = 1"), "server.profiling_port");
	check_warned(SERVER("max_attested_node_info_staleness = \"1m\""), "server.max_attested_node_info_staleness");
	check_warned(SERVER("experimental { events_based_cache = true }"), "server.experimental.events_based_cache");
	CHECK(find_note("Experimental features have been enabled.") != NULL);
	check_warned("telemetry { DogStatsd = [{ address = \"x\" }] } " SERVER(""), "telemetry.DogStatsd");
	check_warned("telemetry { InMem {} } " SERVER(""), "telemetry.InMem");
	check_warned("server { " HEAD "} plugins { Notifier \"k8sbundle\" {} }", "plugins.Notifier \"k8sbundle\"");
	check_warned("server { " HEAD "} plugins { BundlePublisher x {} }", "plugins.BundlePublisher \"x\"");
	CHECK_CODE(load(SERVER("profiling_enabled = false profiling_port = 0 profiling_names = [] log_source_location "
			       "= \"\"")),
		   CODE_INVALID_ARGUMENT); /* the last is no bool */
	CHECK_CODE(
		load(SERVER(
			"profiling_enabled = false profiling_port = 0 profiling_names = [] log_source_location = false "
			"experimental { events_based_cache = false cache_reload_interval = \"\" }")),
		CODE_OK);
	CHECK_NUM(notes.n, 0);
}

TEST(keys_that_would_widen_access_are_refused)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ SERVER("disable_jwt_svids = true"), "server.disable_jwt_svids = true (line 1) is not supported: " },
		{ SERVER("proxy_protocol_trusted_cidrs = [\"10.0.0.0/8\"]"),
		  "server.proxy_protocol_trusted_cidrs = [...] (line 1) is not supported: " },
		{ SERVER("experimental { require_pq_kem = true }"),
		  "server.experimental.require_pq_kem = true (line 1)" },
		{ SERVER("experimental { auth_opa_policy_engine { local { rego_path = \"x\" } } }"),
		  "server.experimental.auth_opa_policy_engine = {...} (line 1) is not supported: " },
		{ SERVER("") " telemetry { Prometheus { tls { cert_file = \"x\" } } }",
		  "telemetry.Prometheus.tls = {...} (line 1)" },
		{ "server { " HEAD "}\nplugins {\nUpstreamAuthority \"vault\" {} NodeAttestor \"aws_iid\" {} }",
		  "plugins.UpstreamAuthority \"vault\" (line 3) is not supported: the CA would not be signed by it; "
		  "use "
		  "UpstreamAuthority \"disk\" or \"spire\", or remove the block; plugins.NodeAttestor \"aws_iid\" "
		  "(line 3) is not supported: " },
		{ "server { " HEAD "} plugins { KeyManager \"aws_kms\" {} }",
		  "plugins.KeyManager \"aws_kms\" (line 1)" },
		{ "server { " HEAD "} plugins { CredentialComposer \"uniqueid\" {} }",
		  "plugins.CredentialComposer \"uniqueid\"" },
		{ "server { " HEAD "} plugins { NodeAttestor \"own\" { plugin_cmd = \"/x\" } }",
		  "plugins.NodeAttestor \"own\" (line 1) is not supported: external plugins are not started" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_refused(cases[i].text, cases[i].error);
	CHECK_CODE(load("server { " HEAD
			" audit_log_enabled = false proxy_protocol_trusted_cidrs = [] experimental { require_pq_kem = "
			"false } }\nplugins { UpstreamAuthority \"vault\" { enabled = false } }"),
		   CODE_OK);
}

TEST(repeated_keys_and_blocks)
{
	CHECK_CODE(
		load("server { trust_domain = \"a\" trust_domain = \"b\" } server { data_dir = \"/d\" admin_ids = "
		     "[\"spiffe://a/b\"] }\n"
		     "server { admin_ids = [\"spiffe://c/d\"] } plugins { A x {} } plugins { A y {} B { x {} y {} } }"),
		CODE_OK);
	CHECK_STR(config.trust_domain, "b");
	CHECK_NUM(config.admin_ids.n, 2);
	CHECK_NUM(config.n_plugins, 4);
	CHECK_STR(config.plugins[3].type, "B");
	CHECK_STR(config.plugins[3].name, "y");
	CHECK_NUM(notes.n, 1);
	CHECK_STR(pair_of(find_note("set more than once"), "key"), "server.trust_domain");
}

TEST(lifetimes_that_the_ca_cannot_give_are_a_warning)
{
	CHECK_CODE(load(SERVER("ca_ttl = \"12h\" default_x509_svid_ttl = \"4h\"")), CODE_OK);
	CHECK_NUM(notes.n, 1);
	CHECK_STR(notes.items[0].msg,
		  "default_x509_svid_ttl is too high for the configured ca_ttl value. SVIDs with shorter lifetimes may "
		  "be issued. "
		  "Please set default_x509_svid_ttl to 2h or less, or the ca_ttl to 24h or more, to guarantee the full "
		  "default_x509_svid_ttl lifetime when CA rotations are scheduled.");
	CHECK_CODE(load(SERVER("agent_ttl = \"192h\"")), CODE_OK);
	CHECK_STR(notes.items[0].msg, "agent_ttl is too high and the ca_ttl is too low. SVIDs with shorter lifetimes "
				      "may be issued. Please set agent_ttl "
				      "to 168h or less, and the ca_ttl to 1008h or more, to guarantee the full "
				      "agent_ttl lifetime when CA rotations are "
				      "scheduled.");
	CHECK_CODE(load(SERVER("ca_ttl = \"8760h\" default_jwt_svid_ttl = \"168h1s\"")), CODE_OK);
	CHECK_STR(notes.items[0].msg,
		  "default_jwt_svid_ttl is too high. SVIDs with shorter lifetimes may be issued. Please set "
		  "default_jwt_svid_ttl to "
		  "168h or less to guarantee the full default_jwt_svid_ttl lifetime when CA rotations are scheduled.");
	CHECK_CODE(load(SERVER("ca_subject {}")), CODE_OK);
	CHECK_STR(notes.items[0].msg, "ca_subject configurable is set but empty; the default will be used");
	CHECK_STR(config.ca_subject.country.items[0], "US");
}

static size_t n_options;

static void check_option(const struct config_option *option, void *ctx)
{
	char(*seen)[128] = ctx;

	CHECK(option->help != NULL && option->help[0] != '\0' && option->help[strlen(option->help) - 1] != '.');
	CHECK(!option->refused || option->remark != NULL);
	CHECK(strlen(option->path) < sizeof seen[0]);
	for (size_t i = 0; i < n_options; i++)
		CHECK(strcmp(seen[i], option->path) != 0);
	CHECK(n_options < 256);
	strcpy(seen[n_options++], option->path);
}

TEST(every_option_is_told_once_with_its_help)
{
	char seen[256][128];

	n_options = 0;
	config_each_option(check_option, seen);
	CHECK(n_options > 100);
}

/* A hundred thousand labels, plugins, unknown keys: no list is searched for each of its members. */
TEST(many_of_anything_take_no_time)
{
	static const char *const parts[] = { "x%d = 1\n", "y%d {}\n" };
	OWN_BUF text = { 0 };
	int64_t start = clock_mono_ms();

	for (size_t i = 0; i < 2; i++) {
		text.len = 0;
		buf_puts(&text, i == 0 ? "server { " HEAD : SERVER("federation { federates_with {"));
		for (int n = 0; n < 80000; n++)
			buf_printf(&text, i == 0 ? parts[0] : "a%d {} ", n);
		buf_puts(&text, i == 0 ? "}" PLUGINS : "} } }");
		load(buf_text(&text));
	}
	text.len = 0;
	buf_puts(&text, "server { " HEAD "} plugins { T {");
	for (int n = 0; n < 80000; n++)
		buf_printf(&text, parts[1], n);
	buf_puts(&text, "} }");
	CHECK_CODE(load(buf_text(&text)), CODE_OK);
	CHECK_NUM(config.n_plugins, 80000);
	CHECK(clock_mono_ms() - start < 20000);
}

static const char sample[] =
	"server { " HEAD " bind_address = \"127.0.0.1\" bind_port = \"8082\" admin_ids = [\"spiffe://a/b\"]\n"
	"ca_ttl = \"24h\" ca_subject { country = [\"DE\"] } ratelimit { signing = false } log_level = \"debug\"\n"
	"federation { bundle_endpoint { address = \"1.2.3.4\" port = 8 profile \"https_web\" { acme { domain_name = "
	"\"d\" email = \"e\" } } }\n"
	"federates_with \"o.org\" { bundle_endpoint_url = \"https://x\" bundle_endpoint_profile \"https_spiffe\" {\n"
	"endpoint_spiffe_id = \"spiffe://o.org/x\" } } } experimental { cache_reload_interval = \"1s\" } }\n"
	"plugins { DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = \"x\" } }\n"
	"KeyManager \"disk\" { plugin_data { keys_path = \"k\" } } NodeAttestor { x509pop { plugin_data { "
	"ca_bundle_path = \"c\" } } } }\n"
	"health_checks { listener_enabled = true } telemetry { Prometheus { port = 1 } Statsd = [{ address = \"x\" }] "
	"}\n"
	"cluster { name = \"n\" known_members = [\"a:1\"] }\n";

static uint64_t next_random(uint64_t *number)
{
	*number ^= *number << 13;
	*number ^= *number >> 7;
	*number ^= *number << 17;
	return *number;
}

/* Puts a word of the sample, a sign or nothing where something else stood. */
static void mutate(struct buf *out, uint64_t *number)
{
	static const char *const words[] = { "{",    "}",     "[",   "]",  "=",     ",",  "\"", "5",
					     "true", "\"x\"", " a ", "\n", "<<A\n", "{}", "[]" };
	size_t len = sizeof sample - 1;

	out->len = 0;
	buf_append(out, sample, len);
	for (size_t edits = 1 + next_random(number) % 3; edits > 0; edits--) {
		size_t at = next_random(number) % out->len, gone = next_random(number) % 12;
		const char *word = words[next_random(number) % (sizeof words / sizeof words[0])];
		OWN_BUF tail = { 0 };

		if (at + gone > out->len)
			gone = out->len - at;
		if (next_random(number) % 2 == 0) { /* a piece from elsewhere */
			size_t from = next_random(number) % len, n = next_random(number) % 40;

			buf_append(&tail, sample + from, from + n > len ? len - from : n);
		} else {
			buf_puts(&tail, word);
		}
		buf_append(&tail, out->data + at + gone, out->len - at - gone);
		out->len = at;
		buf_append(out, tail.data, tail.len);
		if (out->len == 0)
			buf_put(out, ' ');
	}
}

/* Whether a bind_address stands there that would have to be looked up. */
static bool names_a_host(const char *text)
{
	static const char plain[] = "bind_address = \"127.0.0.1\"";
	const char *at = strstr(text, "bind_address");

	if (at == NULL || strncmp(at, plain, sizeof plain - 1) != 0)
		return true;
	return strstr(at + 1, "bind_address") != NULL;
}

TEST(mutations_are_read_or_refused_with_a_text)
{
	const char *given = getenv("SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)clock_wall_ms(), number = seed | 1;
	OWN_BUF text = { 0 };
	size_t good = 0;

	printf("SEED=%llu\n", (unsigned long long)seed);
	CHECK_CODE(load(sample), CODE_OK);
	for (int i = 0; i < 4000; i++) {
		mutate(&text, &number);
		if (names_a_host(buf_text(&text)))
			continue;
		if (load(buf_text(&text)) != CODE_OK) {
			CHECK(err.text[0] != '\0');
			continue;
		}
		good++;
		if (config_plugins(&config, arena, &notes, &err) != CODE_OK)
			CHECK(err.text[0] != '\0');
	}
	CHECK(good > 0);
}
