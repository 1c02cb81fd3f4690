/* SPDX-License-Identifier: Apache-2.0 */
/* Calls from a client to a handler and back, over both sockets of a whole server. */
#include "agent.pb-c.h"
#include "base/clock.h"
#include "base/log.h"
#include "bundle.pb-c.h"
#include "entry.pb-c.h"
#include "lib/api_server.h"
#include "lib/test.h"
#include "types.pb-c.h"

#include <openssl/sha.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define AGENT "/spire.api.server.agent.v1.Agent/"
#define BUNDLE "/spire.api.server.bundle.v1.Bundle/"
#define ENTRY "/spire.api.server.entry.v1.Entry/"
#define AGENT_ID "spiffe://example.org/spire/agent/join_token/a1"

static struct api_server *server;
static struct err err;
static void *out;

static enum code get_entry(struct client *client, const char *id, struct arena *arena)
{
	Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;

	memset(&err, 0, sizeof err);
	request.id = id;
	return client_call(client, ENTRY "GetEntry", &request, &pb__entry__descriptor, arena, &out, &err);
}

static enum code create_entry(struct client *client, const char *id, const char *path, struct arena *arena, int *status)
{
	Pb__BatchCreateEntryRequest request = PB__BATCH_CREATE_ENTRY_REQUEST__INIT;
	Pb__Entry entry = PB__ENTRY__INIT, *entries[] = { &entry };
	Pb__SPIFFEID spiffe_id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };

	memset(&err, 0, sizeof err);
	spiffe_id.trust_domain = parent.trust_domain = "example.org";
	spiffe_id.path = path;
	parent.path = "/p";
	selector.type = "a";
	selector.value = "1";
	entry.id = id;
	entry.spiffe_id = &spiffe_id;
	entry.parent_id = &parent;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	request.entries = entries;
	request.n_entries = 1;
	TRY(client_call(client, ENTRY "BatchCreateEntry", &request, &pb__batch_create_entry_response__descriptor, arena,
			&out, &err));
	*status = ((Pb__BatchCreateEntryResponse *)out)->results[0]->status->code;
	return CODE_OK;
}

static enum code get_bundle(struct client *client, struct arena *arena)
{
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;

	memset(&err, 0, sizeof err);
	return client_call(client, BUNDLE "GetBundle", &request, &pb__bundle__descriptor, arena, &out, &err);
}

static enum code get_authorized(struct client *client, struct arena *arena)
{
	Pb__GetAuthorizedEntriesRequest request = PB__GET_AUTHORIZED_ENTRIES_REQUEST__INIT;

	memset(&err, 0, sizeof err);
	return client_call(client, ENTRY "GetAuthorizedEntries", &request,
			   &pb__get_authorized_entries_response__descriptor, arena, &out, &err);
}

static enum code count_agents(struct client *client, struct arena *arena)
{
	Pb__CountAgentsRequest request = PB__COUNT_AGENTS_REQUEST__INIT;

	memset(&err, 0, sizeof err);
	return client_call(client, AGENT "CountAgents", &request, &pb__count_agents_response__descriptor, arena, &out,
			   &err);
}

TEST(the_socket)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = NULL;
	int status = -1;

	server = api_server_open();
	client = api_server_local(server);
	CHECK_CODE(count_agents(client, arena), CODE_OK);
	CHECK_CODE(get_entry(client, "n\xc3\xb6 100%", arena), CODE_NOT_FOUND);
	CHECK_STR(err.text, "entry not found");
	CHECK(client_trailer(client, NAME "-revision") == NULL);
	CHECK_CODE(create_entry(client, "e1", "/web", arena, &status), CODE_OK);
	CHECK_NUM(status, CODE_OK);
	CHECK(strtoull(client_trailer(client, NAME "-revision"), NULL, 10) > 0);
	CHECK_CODE(get_entry(client, "e1", arena), CODE_OK);
	CHECK_STR(((Pb__Entry *)out)->spiffe_id->path, "/web");
	CHECK_CODE(get_authorized(client, arena), CODE_PERMISSION_DENIED);
	CHECK_STR(err.text, "authorization denied for method " ENTRY "GetAuthorizedEntries");
	CHECK_NUM(err.reason, 0);
}

TEST(tcp_without_a_certificate)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_tls(server, NULL);
	const struct span *chain;

	CHECK_NUM(client_server_chain(client, &chain), 1);
	CHECK_CODE(get_bundle(client, arena), CODE_OK);
	CHECK_STR(((Pb__Bundle *)out)->trust_domain, "example.org");
	CHECK_CODE(count_agents(client, arena), CODE_PERMISSION_DENIED);
	CHECK_NUM(err.reason, 0);
	CHECK_CODE(client_call(client, "/grpc.health.v1.Health/Check",
			       &(Pb__GetBundleRequest)PB__GET_BUNDLE_REQUEST__INIT, &pb__bundle__descriptor, arena,
			       &out, &err),
		   CODE_UNIMPLEMENTED);
	CHECK_STR(err.text, "unknown service grpc.health.v1.Health");
}

TEST(callers_with_a_certificate)
{
	struct api_identity admin = api_server_identity(server, "spiffe://example.org/admin", 60);
	struct api_identity other = api_server_identity(server, "spiffe://example.org/other", 60);
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) as_admin = api_server_tls(server, &admin);
	OWN_STRUCT(client) as_other = api_server_tls(server, &other);

	CHECK_CODE(count_agents(as_admin, arena), CODE_OK);
	CHECK_CODE(count_agents(as_other, arena), CODE_PERMISSION_DENIED);
	CHECK_CODE(get_authorized(as_other, arena), CODE_PERMISSION_DENIED);
	CHECK_NUM(err.reason, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED);
	CHECK_STR(err.text, "authorization denied for method " ENTRY "GetAuthorizedEntries");
	EVP_PKEY_free(admin.key);
	EVP_PKEY_free(other.key);
}

static void record_agent(const struct api_identity *identity, const char *id)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentAttest attest = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;

	svid.serial = identity->serial;
	svid.not_before = clock_wall_s() - 10;
	svid.not_after = clock_wall_s() + 60;
	attest.id = id;
	attest.attestation_type = "join_token";
	attest.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &attest;
	CHECK_NUM(harness_propose(server->h, &command)->code, CODE_OK);
}

TEST(an_agent)
{
	struct api_identity agent = api_server_identity(server, AGENT_ID, 60);
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = NULL;

	record_agent(&agent, AGENT_ID);
	client = api_server_tls(server, &agent);
	CHECK_CODE(get_authorized(client, arena), CODE_OK);
	CHECK_CODE(count_agents(client, arena), CODE_PERMISSION_DENIED);
	EVP_PKEY_free(agent.key);
}

/* The handshake fails, and the client learns of it when it reads: never a status of ours. */
TEST(certificates_that_are_not_let_in)
{
	struct api_identity expired = api_server_identity(server, "spiffe://example.org/admin", -3600);
	struct api_identity foreign = api_server_identity(server, "spiffe://elsewhere.org/admin", 60);
	const struct api_identity *const bad[] = { &expired, &foreign };

	for (size_t i = 0; i < 2; i++) {
		struct client_options options = {
			.tcp = server->tcp, .chain = &bad[i]->cert, .n_chain = 1, .key = bad[i]->key
		};
		struct client *client = NULL;

		CHECK_CODE(client_open(&options, &client, &err), CODE_UNAVAILABLE);
		CHECK_STR(
			err.text,
			"connection error: desc = \"error reading server preface: TLS: sslv3 alert bad certificate\"");
		EVP_PKEY_free(bad[i]->key);
	}
}

TEST(what_the_client_checks)
{
	OWN_STRUCT(keyring) keyring = keyring_current(server->h->server->keyring);
	struct api_identity other = api_server_identity(server, "spiffe://example.org/x", 60);
	const struct span root = { keyring->x509->cert.data, keyring->x509->cert.len };
	const struct {
		struct client_options options;
		const char *text;
	} cases[] = {
		{ { .tcp = server->tcp, .roots = &root, .n_roots = 1, .server_id = "spiffe://example.org/spire/other" },
		  "connection error: desc = \"transport: authentication handshake failed: unexpected ID "
		  "\\\"spiffe://example.org/spire/server\\\"\"" },
		{ { .tcp = server->tcp, .roots = &other.cert, .n_roots = 1 },
		  "connection error: desc = \"transport: authentication handshake failed: x509svid: could not verify "
		  "leaf "
		  "certificate: x509: unable to get local issuer certificate\"" },
		{ { .tcp = "127.0.0.1:1" },
		  "connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: "
		  "connection refused\"" },
		{ { .tcp = "noport" },
		  "connection error: desc = \"transport: Error while dialing: dial tcp: address noport: missing port "
		  "in address\"" },
		{ { .unix_path = "/no/such/socket" },
		  "connection error: desc = \"transport: Error while dialing: dial unix ///no/such/socket: connect: no "
		  "such file or "
		  "directory\"" },
		{ { .unix_path = "no.sock" },
		  "connection error: desc = \"transport: Error while dialing: dial unix no.sock: connect: no such file "
		  "or directory\"" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct client *client = NULL;

		CHECK_CODE(client_open(&cases[i].options, &client, &err), CODE_UNAVAILABLE);
		CHECK_STR(err.text, cases[i].text);
		CHECK(client == NULL);
	}
	EVP_PKEY_free(other.key);
}

TEST(messages_that_are_too_large)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_tls(server, NULL);
	OWN_STRUCT(client) local = api_server_local(server);
	char *id = malloc((5 << 20) + 1);

	memset(id, 'i', 5 << 20);
	id[5 << 20] = '\0';
	CHECK_CODE(get_entry(local, id, arena), CODE_RESOURCE_EXHAUSTED);
	CHECK_STR(err.text, "grpc: received message larger than max (5242885 vs. 4194304)");
	CHECK_CODE(get_entry(client, id, arena), CODE_RESOURCE_EXHAUSTED);
	id[4000000] = '\0';
	CHECK_CODE(get_entry(local, id, arena), CODE_NOT_FOUND);
	CHECK_CODE(get_entry(client, id, arena), CODE_PERMISSION_DENIED);
	client_max_message(local, 10);
	CHECK_CODE(get_bundle(local, arena), CODE_RESOURCE_EXHAUSTED); /* what the client takes */
	free(id);
}

TEST(an_answer_of_megabytes)
{
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;
	struct api_identity admin = api_server_identity(server, "spiffe://example.org/admin", 60);
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) local = api_server_local(server);
	OWN_STRUCT(client) remote = api_server_tls(server, &admin);
	struct client *const clients[] = { local, remote };
	int status;

	for (int i = 0; i < 300; i++) {
		char id[16], *path = malloc(10100);

		snprintf(id, sizeof id, "big%d", i);
		snprintf(path, 10100, "/%d/%010000d", i, 0);
		CHECK_CODE(create_entry(local, id, path, arena, &status), CODE_OK);
		CHECK_NUM(status, CODE_OK);
		free(path);
	}
	for (size_t i = 0; i < 2; i++) {
		CHECK_CODE(client_call(clients[i], ENTRY "ListEntries", &request,
				       &pb__list_entries_response__descriptor, arena, &out, &err),
			   CODE_OK);
		CHECK(((Pb__ListEntriesResponse *)out)->n_entries >= 300);
	}
	EVP_PKEY_free(admin.key);
}

TEST(a_stream)
{
	Pb__AttestAgentRequest request = PB__ATTEST_AGENT_REQUEST__INIT;
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_tls(server, NULL);

	CHECK_CODE(client_stream(client, AGENT "AttestAgent", &err), CODE_OK);
	CHECK_CODE(client_send(client, &request, &err), CODE_OK);
	CHECK_CODE(client_recv(client, &pb__attest_agent_response__descriptor, arena, &out, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "malformed param: missing params");
	client_stream_end(client);
	CHECK_CODE(client_stream(client, AGENT "AttestAgent", &err), CODE_OK);
	client_stream_end(client); /* given up: the handler's wait ends */
	CHECK_CODE(client_stream(client, AGENT "AttestAgent", &err), CODE_OK);
	CHECK_CODE(client_send_end(client, &err), CODE_OK);
	CHECK_CODE(client_recv(client, &pb__attest_agent_response__descriptor, arena, &out, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to receive request from stream: EOF");
	client_stream_end(client);
	CHECK_CODE(get_bundle(client, arena), CODE_OK);
}

/* Thousands of entries by pages, over the stream that agents use. */
TEST(a_stream_of_pages)
{
	struct api_identity agent = api_server_identity(server, AGENT_ID "s", 60);
	Pb__SyncAuthorizedEntriesRequest request = PB__SYNC_AUTHORIZED_ENTRIES_REQUEST__INIT;
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = NULL;
	size_t replies = 0;

	record_agent(&agent, AGENT_ID "s");
	client = api_server_tls(server, &agent);
	CHECK_CODE(client_stream(client, ENTRY "SyncAuthorizedEntries", &err), CODE_OK);
	CHECK_CODE(client_send(client, &request, &err), CODE_OK);
	CHECK_CODE(client_send_end(client, &err), CODE_OK);
	do {
		CHECK_CODE(client_recv(client, &pb__sync_authorized_entries_response__descriptor, arena, &out, &err),
			   CODE_OK);
		replies += out != NULL;
	} while (out != NULL);
	CHECK_NUM(replies, 1);
	client_stream_end(client);
	EVP_PKEY_free(agent.key);
}

TEST(a_deadline)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_tls(server, NULL);
	int64_t begin_ms = clock_mono_ms();

	client_timeout(client, 50);
	CHECK_CODE(client_stream(client, AGENT "AttestAgent", &err), CODE_OK);
	CHECK_CODE(client_recv(client, &pb__attest_agent_response__descriptor, arena, &out, &err),
		   CODE_DEADLINE_EXCEEDED);
	CHECK(clock_mono_ms() - begin_ms < 5000);
	client_stream_end(client);
	client_timeout(client, 0);
	CHECK_CODE(get_bundle(client, arena), CODE_OK);
}

TEST(metadata)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_local(server);
	char revision[32];
	int status;

	client_metadata(client, NAME "-request-id", "short");
	CHECK_CODE(create_entry(client, "m1", "/m1", arena, &status), CODE_INVALID_ARGUMENT);
	client_metadata(client, NAME "-request-id", "0123456789abcdef");
	CHECK_CODE(create_entry(client, "m1", "/m1", arena, &status), CODE_OK);
	CHECK_NUM(status, CODE_OK);
	snprintf(revision, sizeof revision, "%s", client_trailer(client, NAME "-revision"));
	CHECK_CODE(create_entry(client, "m1", "/m1", arena, &status), CODE_OK); /* the same again: the same answer */
	CHECK_NUM(status, CODE_OK);
	client_metadata(client, NAME "-request-id", NULL);
	CHECK_CODE(create_entry(client, "m1", "/m1", arena, &status), CODE_OK);
	CHECK_NUM(status, CODE_ALREADY_EXISTS);

	client_metadata(client, NAME "-min-revision", revision);
	CHECK_CODE(get_entry(client, "m1", arena), CODE_OK);
	client_metadata(client, NAME "-min-revision", "x");
	CHECK_CODE(get_entry(client, "m1", arena), CODE_INVALID_ARGUMENT);
	client_metadata(client, NAME "-min-revision", "999999999");
	client_timeout(client, 2000); /* the server gives up a second before */
	CHECK_CODE(get_entry(client, "m1", arena), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "has not reached revision 999999999 (at ") != NULL);
}

/* A new server certificate is shown to new connections; the others go on. */
TEST(rotation)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) before = api_server_tls(server, NULL);
	OWN_STRUCT(client) after = NULL;
	const struct span *one, *two;

	api_server_rotate(server, 600);
	after = api_server_tls(server, NULL);
	CHECK_NUM(client_server_chain(before, &one), 1);
	CHECK_NUM(client_server_chain(after, &two), 1);
	CHECK(one->len != two->len || memcmp(one->data, two->data, one->len) != 0);
	CHECK_CODE(get_bundle(before, arena), CODE_OK);
	CHECK_CODE(get_bundle(after, arena), CODE_OK);
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, 1 << 20);

	if (file != NULL) {
		CHECK(fread(text, 1, (1 << 20) - 1, file) > 0);
		fclose(file);
	}
	return text;
}

/* The lines of calls have SPIRE's words and fields. */
TEST(the_log)
{
	struct api_identity admin = api_server_identity(server, "spiffe://example.org/admin", 60);
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) remote = api_server_tls(server, &admin);
	OWN_STRUCT(client) nobody = api_server_tls(server, NULL);
	OWN_STRUCT(client) local = NULL;
	char path[160], *text;
	const char *const lines[] = {
		"level=error msg=\"Entry not found\" authorized_as=admin authorized_via=config "
		"caller_addr=\"127.0.0.1:",
		" caller_id=\"spiffe://example.org/admin\" entry_id=none method=GetEntry request_id=",
		" service=entry.v1.Entry subsystem_name=api\n",
		"level=error msg=\"Failed to authenticate caller\" caller_addr=\"127.0.0.1:",
		"error=\"rpc error: code = PermissionDenied desc = authorization denied for method " AGENT
		"CountAgents\"",
		"level=info msg=\"API accessed\" authorized_as=admin authorized_via=config caller_addr=",
		"status=error status_code=NotFound status_message=\"entry not found\" subsystem_name=api type=audit\n",
		"level=info msg=\"API accessed\" authorized_as=local authorized_via=transport caller_gid=",
		"method=CountAgents",
		"level=error msg=\"Invalid argument: missing ID\" authorized_as=local authorized_via=transport "
		"method=GetEntry",
	};

	server->h->config->audit_log_enabled = true;
	local = api_server_local(server);
	snprintf(path, sizeof path, "%s/calls.log", test_dir());
	CHECK_CODE(log_open(&(struct log_options){ .level = LOG_INFO, .format = "", .file = path }, &err), CODE_OK);
	CHECK_CODE(get_entry(remote, "none", arena), CODE_NOT_FOUND);
	CHECK_CODE(count_agents(nobody, arena), CODE_PERMISSION_DENIED);
	CHECK_CODE(count_agents(local, arena), CODE_OK);
	CHECK_CODE(get_entry(local, "", arena), CODE_INVALID_ARGUMENT);
	CHECK_CODE(log_open(&(struct log_options){ .level = LOG_ERROR, .format = "" }, &err), CODE_OK);
	text = read_file(path);
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		if (strstr(text, lines[i]) == NULL)
			print_error("no '%s' in:\n%s", lines[i], text);
		CHECK(strstr(text, lines[i]) != NULL);
	}
	CHECK(strstr(text, "Failed to authenticate caller\" authorized_as") == NULL);
	CHECK(strstr(strstr(text, "API accessed"), "status_code=PermissionDenied") ==
	      NULL); /* a denied call is no record */
	free(text);
	EVP_PKEY_free(admin.key);
	server->h->config->audit_log_enabled = false;
}

static void *hammer(void *arg)
{
	OWN_STRUCT(client) client = arg != NULL ? api_server_tls(server, arg) : api_server_local(server);

	for (int i = 0; i < 100; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;
		struct err own = { 0 };
		void *reply;
		enum code rc;

		request.id = "e1";
		rc = client_call(client, ENTRY "GetEntry", &request, &pb__entry__descriptor, arena, &reply, &own);
		if (rc != CODE_OK)
			return (void *)1;
	}
	return NULL;
}

TEST(many_clients_at_a_time)
{
	struct api_identity admin = api_server_identity(server, "spiffe://example.org/admin", 60);
	pthread_t threads[6];

	for (size_t i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, hammer, i % 2 == 0 ? &admin : NULL);
	for (size_t i = 0; i < 6; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		CHECK(failed == NULL);
	}
	EVP_PKEY_free(admin.key);
}

/* A node that may not answer holds no TCP port (availability.md V1). */
TEST(without_a_tcp_port)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) remote = api_server_tls(server, NULL);
	OWN_STRUCT(client) local = api_server_local(server);
	struct client_options options = { .tcp = server->tcp };
	struct client *client = NULL;

	CHECK_CODE(get_bundle(remote, arena), CODE_OK);
	api_server_tcp(server, false);
	api_server_tcp(server, false);
	CHECK_CODE(client_open(&options, &client, &err), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "connect: connection refused") != NULL);
	CHECK_CODE(get_bundle(local, arena), CODE_OK);
	api_server_tcp(server, true);
	CHECK_CODE(get_bundle(remote, arena), CODE_OK); /* over another connection: the first had its GOAWAY */
	CHECK_CODE(client_open(&options, &client, &err), CODE_OK);
	client_close(client);
}

TEST(after_the_stop)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(client) client = api_server_local(server);
	char want[256];

	api_server_stop(server);
	CHECK_CODE(get_bundle(client, arena), CODE_UNAVAILABLE);
	snprintf(want, sizeof want,
		 "connection error: desc = \"transport: Error while dialing: dial unix //%s: connect: no such file or "
		 "directory\"",
		 server->socket);
	CHECK_STR(err.text, want);
	api_server_close(server);
}
