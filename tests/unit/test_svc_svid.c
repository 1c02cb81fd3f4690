/* SPDX-License-Identifier: Apache-2.0 */
/* Signing through the API: what is signed for whom, what is refused item by item, what is in the answer. */
#include "base/clock.h"
#include "ca/x509.h"
#include "lib/harness.h"
#include "lib/pki.h"
#include "lib/test.h"
#include "svid.pb-c.h"

static struct err err;

#define AGENT_ID "spiffe://example.org/spire/agent/join_token/a"
#define SERIAL "1234"

static ProtobufCBinaryData csr_of(struct harness *h, const char *subject, const char *san)
{
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF der = { 0 };

	CHECK_CODE(key_generate(KEY_EC_P256, &key, &err), CODE_OK);
	pki_csr(&der, key, subject, san, "SHA256");
	return (ProtobufCBinaryData){ der.len, arena_memdup(h->arena, der.data, der.len) };
}

static Pb__SPIFFEID id_on(const char *path)
{
	Pb__SPIFFEID id = PB__SPIFFEID__INIT;

	id.trust_domain = "example.org";
	id.path = path;
	return id;
}

/* An attested agent with one entry, "web", of 60 s and two DNS names, and one that is not its own, "other". */
static struct harness *open_with_entries(void)
{
	struct harness *h = harness_open();
	Pb__AgentAttest attest = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };
	Pb__SPIFFEID agent = id_on("/spire/agent/join_token/a"), web = id_on("/web"),
		     stranger = id_on("/spire/agent/join_token/b");
	const char *names[] = { "b.example", "a.example" };
	Pb__Command command = PB__COMMAND__INIT;

	harness_authorities(h);
	svid.serial = SERIAL;
	svid.not_before = clock_wall_s() - 10;
	svid.not_after = clock_wall_s() + 3600;
	attest.id = AGENT_ID;
	attest.attestation_type = "join_token";
	attest.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &attest;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	selector.type = "unix";
	selector.value = "uid:0";
	entry.id = "web";
	entry.spiffe_id = &web;
	entry.parent_id = &agent;
	entry.n_selectors = 1;
	entry.selectors = selectors;
	entry.x509_svid_ttl = 60;
	entry.jwt_svid_ttl = 30;
	entry.n_dns_names = 2;
	entry.dns_names = names;
	create.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &create;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	entry.id = "other";
	entry.parent_id = &stranger;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	return h;
}

TEST(a_batch_is_answered_item_by_item)
{
	struct harness *h = open_with_entries();
	Pb__NewX509SVIDParams params[6];
	Pb__NewX509SVIDParams *list[6];
	Pb__BatchNewX509SVIDRequest request = PB__BATCH_NEW_X509_SVIDREQUEST__INIT;
	Pb__BatchNewX509SVIDResponse *reply;
	const char *const ids[] = { "web", "", "web", "other", "none", "web" };
	const int codes[] = { CODE_OK,        CODE_INVALID_ARGUMENT, CODE_INVALID_ARGUMENT,
			      CODE_NOT_FOUND, CODE_NOT_FOUND,        CODE_INVALID_ARGUMENT };
	const char *const texts[] = { "OK",
				      "missing entry ID",
				      "missing CSR",
				      "entry not found or not authorized",
				      "entry not found or not authorized",
				      "invalid CSR signature" };
	struct x509_facts facts;

	for (size_t i = 0; i < 6; i++) {
		pb__new_x509_svidparams__init(&params[i]);
		params[i].entry_id = ids[i];
		if (i != 2)
			params[i].csr = csr_of(h, "/C=US/O=SPIRE", NULL);
		list[i] = &params[i];
	}
	params[5].csr.data[params[5].csr.len - 1] ^= 1;
	request.n_params = 6;
	request.params = list;
	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, SERIAL), "SVID.BatchNewX509SVID", &request, (void **)&reply,
				&err),
		   CODE_OK);
	CHECK_NUM(reply->n_results, 6);
	for (size_t i = 0; i < 6; i++) {
		CHECK_NUM(reply->results[i]->status->code, codes[i]);
		CHECK(strncmp(reply->results[i]->status->message, texts[i], strlen(texts[i])) == 0);
		CHECK((reply->results[i]->svid != NULL) == (codes[i] == CODE_OK));
	}
	CHECK_NUM(reply->results[0]->svid->n_cert_chain, 1);
	CHECK_CODE(x509_read((struct span){ reply->results[0]->svid->cert_chain[0].data,
					    reply->results[0]->svid->cert_chain[0].len },
			     h->arena, &facts, &err),
		   CODE_OK);
	CHECK_STR(facts.uri, "spiffe://example.org/web");
	CHECK_NUM(facts.not_after_s - facts.not_before_s, 70);
	CHECK_NUM(reply->results[0]->svid->expires_at, facts.not_after_s);
	harness_close(h);
}

TEST(an_empty_batch_is_refused)
{
	struct harness *h = open_with_entries();
	Pb__BatchNewX509SVIDRequest request = PB__BATCH_NEW_X509_SVIDREQUEST__INIT;

	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, SERIAL), "SVID.BatchNewX509SVID", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing parameters");
	harness_close(h);
}

TEST(a_jwt_is_signed_for_an_entry_of_the_caller)
{
	struct harness *h = open_with_entries();
	Pb__NewJWTSVIDRequest request = PB__NEW_JWTSVIDREQUEST__INIT;
	Pb__NewJWTSVIDResponse *reply;
	const char *audience[] = { "a", "" };
	struct caller who = harness_client(AGENT_ID, SERIAL);

	CHECK_CODE(harness_call(h, who, "SVID.NewJWTSVID", &request, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "entry not found or not authorized");
	request.entry_id = "web";
	CHECK_CODE(harness_call(h, who, "SVID.NewJWTSVID", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "at least one audience is required");
	request.audience = audience + 1;
	request.n_audience = 1;
	CHECK_CODE(harness_call(h, who, "SVID.NewJWTSVID", &request, NULL, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to sign JWT-SVID: invalid JWT-SVID audience: cannot be empty");
	request.audience = audience;
	CHECK_CODE(harness_call(h, who, "SVID.NewJWTSVID", &request, (void **)&reply, &err), CODE_OK);
	CHECK_NUM(reply->svid->expires_at - reply->svid->issued_at, 30);
	CHECK_STR(reply->svid->id->path, "/web");
	CHECK(strncmp(reply->svid->token, "eyJ", 3) == 0);
	harness_close(h);
}

TEST(minting_takes_names_and_subject_from_the_request)
{
	struct harness *h = open_with_entries();
	Pb__MintX509SVIDRequest request = PB__MINT_X509_SVIDREQUEST__INIT;
	Pb__MintX509SVIDResponse *reply;
	struct x509_facts facts;
	const struct {
		const char *san, *text;
	} bad[] = {
		{ NULL, "CSR URI SAN is required" },
		{ "URI:spiffe://example.org/a,URI:spiffe://example.org/b", "only one URI SAN is expected" },
		{ "URI:spiffe://other.org/a",
		  "CSR URI SAN is invalid: \"spiffe://other.org/a\" is not a member of trust domain \"example.org\"" },
		{ "URI:spiffe://example.org/a,DNS:*.x.y,DNS:a.x.y",
		  "CSR DNS name contains a wildcard that covers another non-wildcard name: name \"a.x.y\" overlaps "
		  "with an existing wildcard "
		  "name in the list: wildcard overlap" },
	};

	CHECK_CODE(harness_call(h, harness_local(), "SVID.MintX509SVID", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing CSR");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		request.csr = csr_of(h, "/O=x", bad[i].san);
		CHECK_CODE(harness_call(h, harness_local(), "SVID.MintX509SVID", &request, NULL, &err),
			   CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, bad[i].text);
	}
	request.csr = csr_of(h, "/O=Mine", "URI:spiffe://example.org/a,DNS:a.b");
	request.ttl = 120;
	CHECK_CODE(harness_call(h, harness_local(), "SVID.MintX509SVID", &request, (void **)&reply, &err), CODE_OK);
	CHECK_CODE(x509_read((struct span){ reply->svid->cert_chain[0].data, reply->svid->cert_chain[0].len }, h->arena,
			     &facts, &err),
		   CODE_OK);
	CHECK_STR(facts.uri, "spiffe://example.org/a");
	CHECK_NUM(facts.not_after_s - facts.not_before_s, 130);
	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, SERIAL), "SVID.MintX509SVID", &request, NULL, &err),
		   CODE_PERMISSION_DENIED);
	harness_close(h);
}

TEST(a_downstream_ca_comes_with_all_roots)
{
	struct harness *h = open_with_entries();
	Pb__EntryUpdate update = PB__ENTRY_UPDATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__NewDownstreamX509CARequest request = PB__NEW_DOWNSTREAM_X509_CAREQUEST__INIT;
	Pb__NewDownstreamX509CAResponse *reply;
	struct x509_facts facts;
	struct caller who = harness_client("spiffe://example.org/web", "1");

	request.csr = csr_of(h, "/CN=ignored", NULL);
	CHECK_CODE(harness_call(h, who, "SVID.NewDownstreamX509CA", &request, NULL, &err), CODE_PERMISSION_DENIED);
	entry.id = "web";
	entry.downstream = true;
	mask.downstream = true;
	update.entry = &entry;
	update.mask = &mask;
	command.kind_case = PB__COMMAND__KIND_ENTRY_UPDATE;
	command.entry_update = &update;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	harness_authorities(h); /* a second root */
	CHECK_CODE(harness_call(h, who, "SVID.NewDownstreamX509CA", &request, (void **)&reply, &err), CODE_OK);
	CHECK_NUM(reply->n_ca_cert_chain, 1);
	CHECK_NUM(reply->n_x509_authorities, 2);
	CHECK_CODE(x509_read((struct span){ reply->ca_cert_chain[0].data, reply->ca_cert_chain[0].len }, h->arena,
			     &facts, &err),
		   CODE_OK);
	CHECK(facts.is_ca && facts.key_cert_sign);
	CHECK_STR(facts.uri, "spiffe://example.org");
	harness_close(h);
}
