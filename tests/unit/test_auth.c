/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call what, and which certificates open the door. */
#include "api/auth.h"

#include "base/clock.h"
#include "ca/x509.h"
#include "entry.pb-c.h"
#include "lib/harness.h"
#include "lib/test.h"

#include <openssl/x509v3.h>

#define TD "spiffe://example.org"
#define AGENT TD "/spire/agent/test/a"

/* --- callers --- */

static Pb__Outcome *attest(struct harness *h, const char *serial)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentAttest what = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;

	svid.serial = serial;
	svid.not_before = clock_wall_s() - 10;
	svid.not_after = clock_wall_s() + 3600;
	what.id = AGENT;
	what.attestation_type = "test";
	what.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &what;
	return harness_propose(h, &command);
}

static void renew(struct harness *h, const char *presented, const char *serial)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentRenew what = PB__AGENT_RENEW__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;

	svid.serial = serial;
	svid.not_before = clock_wall_s();
	svid.not_after = clock_wall_s() + 7200;
	what.id = AGENT;
	what.presented = presented;
	what.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_RENEW;
	command.agent_renew = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

static void ban(struct harness *h)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentBan what = PB__AGENT_BAN__INIT;

	what.id = AGENT;
	command.kind_case = PB__COMMAND__KIND_AGENT_BAN;
	command.agent_ban = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

static void grant(struct harness *h, const char *path, bool admin, bool downstream)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__EntryCreate what = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };

	id.trust_domain = parent.trust_domain = "example.org";
	id.path = path;
	parent.path = "/host";
	selector.type = "a";
	selector.value = "1";
	entry.id = path + 1;
	entry.spiffe_id = &id;
	entry.parent_id = &parent;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	entry.admin = admin;
	entry.downstream = downstream;
	what.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

/* Calls the method with an empty request; *as: the class that let it in. */
static enum code call(struct harness *h, struct caller who, const char *method, struct err *err)
{
	Pb__CountEntriesRequest empty = PB__COUNT_ENTRIES_REQUEST__INIT;

	return harness_call(h, who, method, &empty, NULL, err);
}

static void denied(struct harness *h, struct caller who, const char *method, const char *path, int reason)
{
	struct err err = { 0 };
	char text[256];

	CHECK_CODE(call(h, who, method, &err), CODE_PERMISSION_DENIED);
	snprintf(text, sizeof text, "authorization denied for method %s", path);
	CHECK_STR(err.text, text);
	CHECK_NUM(err.reason, reason);
}

#define ENTRY "/spire.api.server.entry.v1.Entry/"
#define BUNDLE "/spire.api.server.bundle.v1.Bundle/"

TEST(a_local_caller_is_local_alone)
{
	struct harness *h = harness_open();
	struct err err = { 0 };

	CHECK_CODE(call(h, harness_local(), "Entry.CountEntries", &err), CODE_OK);
	CHECK_NUM(harness_last(h)->caller->as, WHO_LOCAL);
	CHECK_STR(harness_last(h)->caller->via, "transport");
	denied(h, harness_local(), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries", 0);
	denied(h, harness_local(), "Bundle.PublishJWTAuthority", BUNDLE "PublishJWTAuthority", 0);
	CHECK_CODE(call(h, harness_local(), "Bundle.GetBundle", &err), CODE_NOT_FOUND); /* open to all: nobody */
	CHECK_NUM(harness_last(h)->caller->as, WHO_ANY);
	CHECK_STR(harness_last(h)->caller->via, "");
	harness_close(h);
}

TEST(without_a_certificate_little_is_open)
{
	struct harness *h = harness_open();
	struct err err = { 0 };

	denied(h, harness_client(NULL, NULL), "Entry.CountEntries", ENTRY "CountEntries", 0);
	denied(h, harness_client(NULL, NULL), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries", 0);
	CHECK_CODE(call(h, harness_client(NULL, NULL), "Bundle.GetBundle", &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "bundle not found");
	harness_close(h);
}

TEST(admins_by_configuration_and_by_entry)
{
	struct harness *h = harness_open();
	const char *ids[] = { "spiffe://other.test/admin" };
	struct err err = { 0 };

	h->config->admin_ids = (struct strings){ ids, 1 };
	CHECK_CODE(call(h, harness_client(ids[0], "1"), "Entry.CountEntries", &err), CODE_OK);
	CHECK_NUM(harness_last(h)->caller->as, WHO_ADMIN);
	CHECK_STR(harness_last(h)->caller->via, "config");
	denied(h, harness_client(TD "/admin", "1"), "Entry.CountEntries", ENTRY "CountEntries", 0);
	grant(h, "/admin", true, false);
	CHECK_CODE(call(h, harness_client(TD "/admin", "1"), "Entry.CountEntries", &err), CODE_OK);
	CHECK_STR(harness_last(h)->caller->via, "entries");
	denied(h, harness_client(TD "/admin", "1"), "Bundle.PublishJWTAuthority", BUNDLE "PublishJWTAuthority", 0);
	/* an agent's method asks for the agent, whoever calls */
	denied(h, harness_client(TD "/admin", "1"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED);
	harness_close(h);
}

TEST(downstream_by_entry)
{
	struct harness *h = harness_open();
	struct err err = { 0 };

	grant(h, "/down", false, true);
	CHECK_CODE(call(h, harness_client(TD "/down", "1"), "Bundle.PublishJWTAuthority", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing JWT authority");
	CHECK_NUM(harness_last(h)->caller->as, WHO_DOWNSTREAM);
	CHECK_STR(harness_last(h)->caller->via, "entries");
	denied(h, harness_client(TD "/down", "1"), "Entry.CountEntries", ENTRY "CountEntries", 0);
	denied(h, harness_client(TD "/w", "1"), "Bundle.PublishJWTAuthority", BUNDLE "PublishJWTAuthority", 0);
	harness_close(h);
}

TEST(agents_are_who_their_record_says)
{
	struct harness *h = harness_open();
	struct caller expired = harness_client(AGENT, "1");
	struct err err = { 0 };

	denied(h, harness_client(AGENT, "1"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED);
	CHECK_NUM(attest(h, "1")->code, CODE_OK);
	CHECK_CODE(call(h, harness_client(AGENT, "1"), "Entry.GetAuthorizedEntries", &err), CODE_OK);
	CHECK_NUM(harness_last(h)->caller->as, WHO_AGENT);
	CHECK_STR(harness_last(h)->caller->via, "datastore");
	CHECK_CODE(call(h, harness_client(AGENT, "1"), "Bundle.GetFederatedBundle", &err), CODE_INVALID_ARGUMENT);
	denied(h, harness_client(AGENT, "1"), "Entry.CountEntries", ENTRY "CountEntries", 0);
	denied(h, harness_client(AGENT, "2"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE);
	expired.not_after_s = clock_wall_s() - 1;
	denied(h, expired, "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_EXPIRED);
	ban(h);
	denied(h, harness_client(AGENT, "1"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_BANNED);
	harness_close(h);
}

TEST(first_use_of_a_renewed_certificate_makes_it_the_one)
{
	struct harness *h = harness_open();
	struct err err = { 0 };

	CHECK_NUM(attest(h, "1")->code, CODE_OK);
	renew(h, "1", "2");
	CHECK_CODE(call(h, harness_client(AGENT, "1"), "Entry.GetAuthorizedEntries", &err), CODE_OK);
	renew(h, "1", "3"); /* before "2" was used: "2" is nothing now */
	denied(h, harness_client(AGENT, "2"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE);
	CHECK_CODE(call(h, harness_client(AGENT, "3"), "Entry.GetAuthorizedEntries", &err), CODE_OK);
	CHECK_CODE(call(h, harness_client(AGENT, "3"), "Entry.GetAuthorizedEntries", &err), CODE_OK);
	denied(h, harness_client(AGENT, "1"), "Entry.GetAuthorizedEntries", ENTRY "GetAuthorizedEntries",
	       PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE);
	harness_close(h);
}

/* --- certificates --- */

struct issuer {
	EVP_PKEY *key;
	X509 *cert;
};

static void add_extension(X509 *cert, X509 *from, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, from, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

struct recipe {
	const char *name; /* CN */
	const char *san;
	const char *basic;
	const char *usage;
	long from_s, to_s;  /* 0, 0: now for an hour */
	const char *serial; /* decimal */
};

/* A certificate of a new key, signed by `by`, or by itself. */
static struct issuer make(const struct recipe *recipe, const struct issuer *by)
{
	struct issuer out = { EVP_EC_gen("P-256"), X509_new() };
	X509_NAME *name = X509_get_subject_name(out.cert);
	BIGNUM *serial = NULL;

	BN_dec2bn(&serial, recipe->serial == NULL ? "4711" : recipe->serial);
	BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(out.cert));
	BN_free(serial);
	X509_set_version(out.cert, 2);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)recipe->name, -1, -1, 0);
	X509_set_issuer_name(out.cert, by == NULL ? name : X509_get_subject_name(by->cert));
	X509_gmtime_adj(X509_getm_notBefore(out.cert), recipe->to_s == 0 ? -10 : recipe->from_s);
	X509_gmtime_adj(X509_getm_notAfter(out.cert), recipe->to_s == 0 ? 3600 : recipe->to_s);
	X509_set_pubkey(out.cert, out.key);
	if (recipe->san != NULL)
		add_extension(out.cert, out.cert, NID_subject_alt_name, recipe->san);
	if (recipe->basic != NULL)
		add_extension(out.cert, out.cert, NID_basic_constraints, recipe->basic);
	if (recipe->usage != NULL)
		add_extension(out.cert, out.cert, NID_key_usage, recipe->usage);
	assert_true(X509_sign(out.cert, by == NULL ? out.key : by->key, EVP_sha256()) > 0);
	return out;
}

static void done(struct issuer *issuer)
{
	EVP_PKEY_free(issuer->key);
	X509_free(issuer->cert);
}

/* These certificates are the bundle of `td` from now on. */
static void set_bundle(struct harness *h, const char *td, X509 *const *certs, size_t n, bool tainted)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__BundleSet what = PB__BUNDLE_SET__INIT;
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	Pb__X509Certificate items[4], *all[4];

	for (size_t i = 0; i < n; i++) {
		uint8_t *der = NULL;
		int len = i2d_X509(certs[i], &der);

		items[i] = (Pb__X509Certificate)PB__X509_CERTIFICATE__INIT;
		items[i].asn1 = (ProtobufCBinaryData){ (size_t)len, arena_memdup(h->arena, der, (size_t)len) };
		items[i].tainted = tainted;
		all[i] = &items[i];
		OPENSSL_free(der);
	}
	bundle.trust_domain = append.trust_domain = td;
	bundle.x509_authorities = append.x509_authorities = all;
	bundle.n_x509_authorities = append.n_x509_authorities = n;
	what.bundle = &bundle;
	if (strcmp(td, "example.org") == 0) {
		command.kind_case = PB__COMMAND__KIND_BUNDLE_APPEND;
		command.bundle_append = &append;
	} else {
		command.kind_case = PB__COMMAND__KIND_BUNDLE_SET;
		command.bundle_set = &what;
	}
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

struct handshake {
	X509 *leaf;
	STACK_OF(X509) * chain;
	struct auth_peer peer;
};

static enum code verify_on_loop(struct call *call, void *ctx)
{
	struct handshake *shake = ctx;

	return auth_verify_client(call->api, shake->leaf, shake->chain, call->arena, &shake->peer, call->err);
}

static enum code verify(struct harness *h, X509 *leaf, X509 *between, struct auth_peer *peer, struct err *err)
{
	struct handshake shake = { .leaf = leaf, .chain = sk_X509_new_null() };
	enum code rc;

	sk_X509_push(shake.chain, leaf); /* as OpenSSL hands it over */
	if (between != NULL)
		sk_X509_push(shake.chain, between);
	rc = harness_run(h, harness_local(), verify_on_loop, &shake, err);
	if (peer != NULL)
		*peer = shake.peer;
	sk_X509_free(shake.chain);
	return rc;
}

#define CA_USAGE "critical,keyCertSign,cRLSign"
#define LEAF_USAGE "critical,digitalSignature"

static const struct recipe root_recipe = {
	"root", "URI:spiffe://example.org", "critical,CA:TRUE", CA_USAGE, 0, 0, NULL
};

static struct recipe leaf_recipe(const char *san)
{
	return (struct recipe){ "leaf", san, "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL };
}

TEST(a_member_signed_by_a_root_gets_in)
{
	struct harness *h = harness_open();
	struct issuer root = make(&root_recipe, NULL);
	struct recipe recipe = leaf_recipe("URI:" TD "/w");
	struct issuer leaf;
	struct auth_peer peer;
	struct err err = { 0 };

	recipe.serial = "730750818665451459101842416358141509827966271487"; /* 2^159 - 1: the longest of 20 octets */
	leaf = make(&recipe, &root);
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_NOT_FOUND); /* there is no bundle yet */
	set_bundle(h, "example.org", &root.cert, 1, false);
	CHECK_CODE(verify(h, leaf.cert, NULL, &peer, &err), CODE_OK);
	CHECK_STR(peer.id, TD "/w");
	CHECK_STR(peer.serial, recipe.serial);
	CHECK(peer.not_after_s - peer.not_before_s == 3610);
	CHECK(labs((long)(peer.not_before_s - clock_wall_s() + 10)) < 30);
	CHECK_CODE(verify(h, leaf.cert, NULL, &peer, &err), CODE_OK); /* from the cache */
	done(&leaf);
	done(&root);
	harness_close(h);
}

TEST(a_changed_bundle_counts_at_once)
{
	struct harness *h = harness_open();
	const char *admin = "spiffe://other.test/admin";
	struct issuer one = make(&root_recipe, NULL), two = make(&root_recipe, NULL);
	struct recipe recipe = leaf_recipe("URI:spiffe://other.test/admin");
	struct issuer leaf = make(&recipe, &one);
	struct err err = { 0 };

	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_UNAUTHENTICATED); /* a stranger */
	CHECK_STR(err.text, "unexpected ID \"spiffe://other.test/admin\"");
	h->config->admin_ids = (struct strings){ &admin, 1 };
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_NOT_FOUND);
	set_bundle(h, "other.test", &one.cert, 1, true); /* tainted ones count until they are revoked */
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_OK);
	set_bundle(h, "other.test", &two.cert, 1, false);
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_UNAUTHENTICATED);
	set_bundle(h, "other.test", (X509 *[]){ two.cert, one.cert }, 2, false);
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_OK);
	done(&leaf);
	done(&one);
	done(&two);
	harness_close(h);
}

TEST(a_chain_leads_to_a_root)
{
	struct harness *h = harness_open();
	struct issuer root = make(&root_recipe, NULL);
	struct recipe ca = { "ca", "URI:" TD, "critical,CA:TRUE", CA_USAGE, 0, 0, NULL };
	struct recipe no_ca = { "no ca", NULL, "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL };
	struct recipe bare = { "bare", NULL, NULL, CA_USAGE, 0, 0, NULL }; /* keyCertSign, but no basicConstraints */
	struct recipe recipe = leaf_recipe("URI:" TD "/w");
	struct issuer between = make(&ca, &root), wrong = make(&no_ca, &root), without = make(&bare, &root);
	struct issuer leaf = make(&recipe, &between), fooled = make(&recipe, &wrong), odd = make(&recipe, &without);
	struct err err = { 0 };

	set_bundle(h, "example.org", &root.cert, 1, false);
	CHECK_CODE(verify(h, leaf.cert, between.cert, NULL, &err), CODE_OK);
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_UNAUTHENTICATED); /* a link is missing */
	CHECK_CODE(verify(h, fooled.cert, wrong.cert, NULL, &err), CODE_UNAUTHENTICATED);
	CHECK_CODE(verify(h, odd.cert, without.cert, NULL, &err), CODE_UNAUTHENTICATED);
	set_bundle(h, "example.org", &between.cert, 1, false); /* a root is what the bundle says */
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_OK);
	done(&root), done(&between), done(&wrong), done(&without), done(&leaf), done(&fooled), done(&odd);
	harness_close(h);
}

TEST(what_is_no_svid_stays_out)
{
	static const struct {
		struct recipe recipe;
		const char *text;
	} bad[] = {
		{ { "x", NULL, "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL }, "certificate contains no URI SAN" },
		{ { "x", "DNS:a.org", "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL },
		  "certificate contains no URI SAN" },
		{ { "x", "URI:" TD "/a,URI:" TD "/b", "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL },
		  "certificate contains more than one URI SAN" },
		{ { "x", "URI:https://example.org/a", "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL },
		  "scheme is missing or invalid" },
		{ { "x", "URI:" TD "/a/", "critical,CA:FALSE", LEAF_USAGE, 0, 0, NULL },
		  "path cannot have a trailing slash" },
		{ { "x", "URI:" TD "/a", "critical,CA:TRUE", LEAF_USAGE, 0, 0, NULL },
		  "leaf certificate with CA flag set to true" },
		{ { "x", "URI:" TD "/a", "critical,CA:FALSE", "critical,digitalSignature,keyCertSign", 0, 0, NULL },
		  "leaf certificate with KeyCertSign key usage" },
		{ { "x", "URI:" TD "/a", "critical,CA:FALSE", "critical,digitalSignature,cRLSign", 0, 0, NULL },
		  "leaf certificate with KeyCrlSign key usage" },
		{ { "x", "URI:" TD "/a", "critical,CA:FALSE", LEAF_USAGE, -20, -10, NULL },
		  "x509: certificate has expired" },
		{ { "x", "URI:" TD "/a", "critical,CA:FALSE", LEAF_USAGE, 100, 200, NULL },
		  "x509: certificate is not yet valid" },
	};
	struct harness *h = harness_open();
	struct issuer root = make(&root_recipe, NULL);

	set_bundle(h, "example.org", &root.cert, 1, false);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct issuer leaf = make(&bad[i].recipe, &root);
		struct err err = { 0 };

		CHECK(verify(h, leaf.cert, NULL, NULL, &err) != CODE_OK);
		CHECK_STR(err.text, bad[i].text);
		done(&leaf);
	}
	done(&root);
	harness_close(h);
}

TEST(a_broken_signature_stays_out)
{
	struct harness *h = harness_open();
	struct issuer root = make(&root_recipe, NULL);
	struct recipe recipe = leaf_recipe("URI:" TD "/w");
	struct issuer leaf = make(&recipe, &root), self;
	struct err err = { 0 };
	uint8_t *der = NULL;
	const uint8_t *at;
	X509 *broken;
	int len = i2d_X509(leaf.cert, &der);

	set_bundle(h, "example.org", &root.cert, 1, false);
	der[len - 1] ^= 1;
	at = der;
	broken = d2i_X509(NULL, &at, len);
	assert_non_null(broken);
	CHECK_CODE(verify(h, broken, NULL, NULL, &err), CODE_UNAUTHENTICATED);
	self = make(&recipe, NULL);
	CHECK_CODE(verify(h, self.cert, NULL, NULL, &err), CODE_UNAUTHENTICATED);
	X509_free(broken);
	OPENSSL_free(der);
	done(&self);
	done(&leaf);
	done(&root);
	harness_close(h);
}

TEST(a_bundle_with_rubbish_still_counts)
{
	struct harness *h = harness_open();
	struct issuer root = make(&root_recipe, NULL);
	struct recipe recipe = leaf_recipe("URI:spiffe://other.test/admin");
	struct issuer leaf = make(&recipe, &root);
	const char *admin = "spiffe://other.test/admin";
	Pb__Command command = PB__COMMAND__INIT;
	Pb__BundleSet what = PB__BUNDLE_SET__INIT;
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	Pb__X509Certificate items[] = { PB__X509_CERTIFICATE__INIT, PB__X509_CERTIFICATE__INIT,
					PB__X509_CERTIFICATE__INIT };
	Pb__X509Certificate *all[] = { &items[0], &items[1], &items[2] };
	struct err err = { 0 };
	uint8_t *der = NULL;
	int len = i2d_X509(root.cert, &der);

	items[1].asn1 = (ProtobufCBinaryData){ 3, (uint8_t *)"xyz" };
	items[2].asn1 = (ProtobufCBinaryData){ (size_t)len, der };
	bundle.trust_domain = "other.test";
	bundle.x509_authorities = all;
	bundle.n_x509_authorities = 3;
	what.bundle = &bundle;
	command.kind_case = PB__COMMAND__KIND_BUNDLE_SET;
	command.bundle_set = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	h->config->admin_ids = (struct strings){ &admin, 1 };
	CHECK_CODE(verify(h, leaf.cert, NULL, NULL, &err), CODE_OK);
	OPENSSL_free(der);
	done(&leaf);
	done(&root);
	harness_close(h);
}
