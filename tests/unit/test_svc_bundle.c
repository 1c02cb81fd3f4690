/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles: the own one and federated ones. */
#include "base/clock.h"
#include "bundle.pb-c.h"
#include "ca/key.h"
#include "ca/x509.h"
#include "lib/harness.h"
#include "lib/test.h"

/* A certificate authority's certificate, DER, in the harness' arena. */
static ProtobufCBinaryData certificate(struct harness *h)
{
	OWN(EVP_PKEY) key = NULL;
	struct x509_svid svid;
	struct err err = { 0 };

	CHECK_CODE(key_generate(KEY_EC_P256, &key, &err), CODE_OK);
	CHECK_CODE(x509_self_sign(key, &(struct x509_ca_subject){ 0 }, "a.test", 3600, clock_wall_s(), h->arena, &svid,
				  &err),
		   CODE_OK);
	return (ProtobufCBinaryData){ svid.cert.len, (uint8_t *)svid.cert.data };
}

static ProtobufCBinaryData public_key(struct harness *h)
{
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF der = { 0 };
	struct err err = { 0 };

	CHECK_CODE(key_generate(KEY_EC_P256, &key, &err), CODE_OK);
	CHECK_CODE(key_public_der(key, &der, &err), CODE_OK);
	return (ProtobufCBinaryData){ der.len, arena_memdup(h->arena, der.data, der.len) };
}

static Pb__X509Certificate **x509(struct harness *h, ProtobufCBinaryData der)
{
	Pb__X509Certificate *cert = arena_alloc(h->arena, sizeof *cert),
			    **all = arena_alloc(h->arena, sizeof(Pb__X509Certificate *));

	*cert = (Pb__X509Certificate)PB__X509_CERTIFICATE__INIT;
	cert->asn1 = der;
	all[0] = cert;
	return all;
}

static Pb__JWTKey **jwt(struct harness *h, const char *kid, ProtobufCBinaryData der)
{
	Pb__JWTKey *key = arena_alloc(h->arena, sizeof *key), **all = arena_alloc(h->arena, sizeof(Pb__JWTKey *));

	*key = (Pb__JWTKey)PB__JWTKEY__INIT;
	key->key_id = kid;
	key->public_key = der;
	all[0] = key;
	return all;
}

static ProtobufCBinaryData bytes(const char *text)
{
	return (ProtobufCBinaryData){ strlen(text), (uint8_t *)text };
}

TEST(the_own_bundle_is_masked)
{
	struct harness *h = harness_open();
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__BundleMask mask = PB__BUNDLE_MASK__INIT;
	struct err err = { 0 };
	Pb__Bundle *got;

	CHECK_CODE(harness_call(h, harness_client(NULL, NULL), "Bundle.GetBundle", &request, NULL, &err),
		   CODE_NOT_FOUND);
	CHECK_STR(err.text, "bundle not found");
	harness_authorities(h);
	CHECK_CODE(harness_call(h, harness_client(NULL, NULL), "Bundle.GetBundle", &request, (void **)&got, &err),
		   CODE_OK);
	CHECK_STR(got->trust_domain, "example.org");
	CHECK_NUM(got->n_x509_authorities, 1);
	CHECK_NUM(got->n_jwt_authorities, 1);
	request.output_mask = &mask;
	mask.jwt_authorities = true;
	CHECK_CODE(harness_call(h, harness_client(NULL, NULL), "Bundle.GetBundle", &request, (void **)&got, &err),
		   CODE_OK);
	CHECK_STR(got->trust_domain, "example.org");
	CHECK_NUM(got->n_x509_authorities, 0);
	CHECK_NUM(got->n_jwt_authorities, 1);
	harness_close(h);
}

TEST(append_adds_what_is_not_there)
{
	struct harness *h = harness_open();
	Pb__AppendBundleRequest request = PB__APPEND_BUNDLE_REQUEST__INIT;
	Pb__BundleMask mask = PB__BUNDLE_MASK__INIT;
	ProtobufCBinaryData one = certificate(h), two = certificate(h), both;
	struct err err = { 0 };
	Pb__Bundle *got;
	uint64_t sequence;

#define REFUSED(want)                                                                                                  \
	do {                                                                                                           \
		CHECK_CODE(harness_call(h, harness_local(), "Bundle.AppendBundle", &request, NULL, &err),              \
			   CODE_INVALID_ARGUMENT);                                                                     \
		if (strncmp(err.text, want, strlen(want)) != 0)                                                        \
			CHECK_STR(err.text, want);                                                                     \
	} while (0)
	harness_authorities(h);
	REFUSED("no authorities to append");
	request.x509_authorities = x509(h, bytes("no certificate"));
	request.jwt_authorities = jwt(h, "k", bytes("no key"));
	request.n_x509_authorities = request.n_jwt_authorities = 1;
	REFUSED("failed to convert JWT authority: ");
	request.jwt_authorities = jwt(h, "", public_key(h));
	REFUSED("failed to convert JWT authority: missing key ID");
	request.jwt_authorities[0]->key_id = "k";
	request.jwt_authorities[0]->tainted = true; /* not the client's to say */
	REFUSED("failed to convert X.509 authority: ");
	request.x509_authorities = x509(h, (ProtobufCBinaryData){ 0, NULL });
	REFUSED("failed to convert X.509 authority: ");
#undef REFUSED
	both.len = one.len + two.len; /* two in one element */
	both.data = arena_alloc(h->arena, both.len);
	memcpy(both.data, one.data, one.len);
	memcpy(both.data + one.len, two.data, two.len);
	request.x509_authorities = x509(h, both);
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.AppendBundle", &request, (void **)&got, &err), CODE_OK);
	CHECK_NUM(got->n_x509_authorities, 3);
	CHECK_NUM(got->n_jwt_authorities, 2);
	CHECK_NUM(got->x509_authorities[1]->asn1.len, one.len);
	CHECK(!got->jwt_authorities[1]->tainted);
	sequence = got->sequence_number;
	mask.sequence_number = true;
	request.output_mask = &mask;
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.AppendBundle", &request, (void **)&got, &err), CODE_OK);
	CHECK_NUM(got->sequence_number, sequence); /* nothing new */
	CHECK_NUM(got->n_x509_authorities, 0);
	request.jwt_authorities[0]->expires_at = 4102444800; /* another one, though of the same key */
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.AppendBundle", &request, (void **)&got, &err), CODE_OK);
	CHECK_NUM(got->sequence_number, sequence + 1);
	harness_close(h);
}

/* A caller whom an entry makes a downstream server. */
static struct caller downstream(struct harness *h)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__EntryCreate what = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT, *selectors[] = { &selector };

	id.trust_domain = "example.org";
	id.path = "/down";
	selector.type = "a";
	selector.value = "1";
	entry.id = "down";
	entry.spiffe_id = entry.parent_id = &id;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	entry.downstream = true;
	what.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	return harness_client("spiffe://example.org/down", "1");
}

TEST(publish_answers_all_keys)
{
	struct harness *h = harness_open();
	Pb__PublishJWTAuthorityRequest request = PB__PUBLISH_JWTAUTHORITY_REQUEST__INIT;
	Pb__PublishJWTAuthorityResponse *reply;
	struct caller down = downstream(h);
	struct err err = { 0 };

	harness_authorities(h);
	CHECK_CODE(harness_call(h, down, "Bundle.PublishJWTAuthority", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing JWT authority");
	request.jwt_authority = jwt(h, "", public_key(h))[0];
	CHECK_CODE(harness_call(h, down, "Bundle.PublishJWTAuthority", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid JWT authority: missing key ID");
	request.jwt_authority->key_id = "k";
	for (int i = 0; i < 2; i++) { /* again: the same */
		CHECK_CODE(harness_call(h, down, "Bundle.PublishJWTAuthority", &request, (void **)&reply, &err),
			   CODE_OK);
		CHECK_NUM(reply->n_jwt_authorities, 2);
		CHECK_STR(reply->jwt_authorities[1]->key_id, "k");
	}
	harness_close(h);
}

/* --- federated bundles --- */

static Pb__Bundle *bundle(struct harness *h, const char *td)
{
	Pb__Bundle *out = arena_alloc(h->arena, sizeof *out);

	*out = (Pb__Bundle)PB__BUNDLE__INIT;
	out->trust_domain = td;
	return out;
}

/* The three requests and their answers have the same layout but for the mask: one of each, by its name. */
static Pb__Status *write_one(struct harness *h, const char *method, Pb__Bundle *what, Pb__BundleMask *input,
			     Pb__Bundle **shown)
{
	Pb__BatchCreateFederatedBundleRequest create = PB__BATCH_CREATE_FEDERATED_BUNDLE_REQUEST__INIT;
	Pb__BatchUpdateFederatedBundleRequest update = PB__BATCH_UPDATE_FEDERATED_BUNDLE_REQUEST__INIT;
	Pb__BatchSetFederatedBundleRequest set = PB__BATCH_SET_FEDERATED_BUNDLE_REQUEST__INIT;
	struct err err = { 0 };
	void *reply;
	Pb__Status *status;

	create.bundle = update.bundle = set.bundle = &what;
	create.n_bundle = update.n_bundle = set.n_bundle = 1;
	update.input_mask = input;
	if (strcmp(method, "Bundle.BatchCreateFederatedBundle") == 0) {
		CHECK_CODE(harness_call(h, harness_local(), method, &create, &reply, &err), CODE_OK);
		status = ((Pb__BatchCreateFederatedBundleResponse *)reply)->results[0]->status;
		*shown = ((Pb__BatchCreateFederatedBundleResponse *)reply)->results[0]->bundle;
	} else if (strcmp(method, "Bundle.BatchUpdateFederatedBundle") == 0) {
		CHECK_CODE(harness_call(h, harness_local(), method, &update, &reply, &err), CODE_OK);
		status = ((Pb__BatchUpdateFederatedBundleResponse *)reply)->results[0]->status;
		*shown = ((Pb__BatchUpdateFederatedBundleResponse *)reply)->results[0]->bundle;
	} else {
		CHECK_CODE(harness_call(h, harness_local(), method, &set, &reply, &err), CODE_OK);
		status = ((Pb__BatchSetFederatedBundleResponse *)reply)->results[0]->status;
		*shown = ((Pb__BatchSetFederatedBundleResponse *)reply)->results[0]->bundle;
	}
	return status;
}

TEST(writes_of_federated_bundles_are_checked)
{
	static const char *const methods[][2] = {
		{ "Bundle.BatchCreateFederatedBundle", "creating" },
		{ "Bundle.BatchUpdateFederatedBundle", "updating" },
		{ "Bundle.BatchSetFederatedBundle", "setting" },
	};
	struct harness *h = harness_open();
	Pb__BundleMask none = PB__BUNDLE_MASK__INIT;

	for (size_t i = 0; i < 3; i++) {
		const char *method = methods[i][0];
		Pb__Bundle *bad = bundle(h, "a.test"), *shown;
		char text[160];

		CHECK_STR(write_one(h, method, bundle(h, ""), NULL, &shown)->message,
			  "trust domain argument is not valid: trust domain is missing");
		snprintf(text, sizeof text, "%s a federated bundle for the server's own trust domain is not allowed",
			 methods[i][1]);
		CHECK_STR(write_one(h, method, bundle(h, "spiffe://example.org"), NULL, &shown)->message, text);
		CHECK(shown == NULL);
		bad->jwt_authorities = jwt(h, "", public_key(h));
		bad->n_jwt_authorities = 1;
		CHECK_STR(write_one(h, method, bad, &none, &shown)->message,
			  "failed to convert bundle: unable to parse JWT authority: missing key ID");
		bad->x509_authorities = x509(h, bytes("rubbish"));
		bad->n_x509_authorities = 1;
		CHECK(strncmp(write_one(h, method, bad, &none, &shown)->message,
			      "failed to convert bundle: unable to parse X.509 authority: ", 59) == 0);
	}
	harness_close(h);
}

TEST(federated_bundles_are_made_changed_and_replaced)
{
	struct harness *h = harness_open();
	Pb__Bundle *what = bundle(h, "spiffe://a.test/x"), *shown;
	Pb__BundleMask mask = PB__BUNDLE_MASK__INIT;
	Pb__GetFederatedBundleRequest get = PB__GET_FEDERATED_BUNDLE_REQUEST__INIT;
	struct err err = { 0 };
	Pb__Bundle *got;

	what->x509_authorities = x509(h, certificate(h));
	what->x509_authorities[0]->tainted = true;
	what->n_x509_authorities = 1;
	what->refresh_hint = 60;
	what->sequence_number = 42;
	CHECK_STR(write_one(h, "Bundle.BatchUpdateFederatedBundle", what, NULL, &shown)->message, "bundle not found");
	CHECK_STR(write_one(h, "Bundle.BatchCreateFederatedBundle", what, NULL, &shown)->message, "OK");
	CHECK_STR(shown->trust_domain, "a.test");
	CHECK_NUM(shown->sequence_number, 42);
	CHECK(!shown->x509_authorities[0]->tainted);
	CHECK_STR(write_one(h, "Bundle.BatchCreateFederatedBundle", what, NULL, &shown)->message,
		  "bundle already exists");
	mask.refresh_hint = true;
	CHECK_STR(write_one(h, "Bundle.BatchUpdateFederatedBundle", bundle(h, "a.test"), &mask, &shown)->message, "OK");
	CHECK_NUM(shown->refresh_hint, 0);
	CHECK_NUM(shown->sequence_number, 42);
	CHECK_NUM(shown->n_x509_authorities, 1);
	get.trust_domain = "spiffe://a.test";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.GetFederatedBundle", &get, (void **)&got, &err), CODE_OK);
	CHECK_NUM(got->n_x509_authorities, 1);
	CHECK_STR(write_one(h, "Bundle.BatchSetFederatedBundle", bundle(h, "a.test"), NULL, &shown)->message, "OK");
	CHECK_NUM(shown->n_x509_authorities, 0);
	CHECK_STR(write_one(h, "Bundle.BatchSetFederatedBundle", bundle(h, "b.test"), NULL, &shown)->message, "OK");
	harness_close(h);
}

TEST(get_federated_is_for_others)
{
	struct harness *h = harness_open();
	Pb__GetFederatedBundleRequest get = PB__GET_FEDERATED_BUNDLE_REQUEST__INIT;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, harness_local(), "Bundle.GetFederatedBundle", &get, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "trust domain argument is not valid: trust domain is missing");
	get.trust_domain = "example.org";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.GetFederatedBundle", &get, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "getting a federated bundle for the server's own trust domain is not allowed");
	get.trust_domain = "none.test";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.GetFederatedBundle", &get, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "bundle not found");
	harness_close(h);
}

TEST(list_leaves_the_own_bundle_out_of_a_page)
{
	struct harness *h = harness_open();
	Pb__ListFederatedBundlesRequest request = PB__LIST_FEDERATED_BUNDLES_REQUEST__INIT;
	Pb__ListFederatedBundlesResponse *reply;
	Pb__CountBundlesRequest count = PB__COUNT_BUNDLES_REQUEST__INIT;
	Pb__CountBundlesResponse *counted;
	struct err err = { 0 };
	Pb__Bundle *shown;

	harness_authorities(h);
	write_one(h, "Bundle.BatchSetFederatedBundle", bundle(h, "a.test"), NULL, &shown);
	write_one(h, "Bundle.BatchSetFederatedBundle", bundle(h, "b.test"), NULL, &shown);
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.CountBundles", &count, (void **)&counted, &err), CODE_OK);
	CHECK_NUM(counted->count, 3);
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.ListFederatedBundles", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_NUM(reply->n_bundles, 2);
	CHECK_STR(reply->bundles[0]->trust_domain, "a.test");
	CHECK_STR(reply->next_page_token, "");
	request.page_size = 1;
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.ListFederatedBundles", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_NUM(reply->n_bundles, 0);
	CHECK_STR(reply->next_page_token, "1");
	request.page_token = "1";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.ListFederatedBundles", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_STR(reply->bundles[0]->trust_domain, "a.test");
	request.page_token = "99";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.ListFederatedBundles", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_STR(reply->next_page_token, "");
	request.page_token = "x";
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.ListFederatedBundles", &request, NULL, &err),
		   CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list bundles: could not parse token 'x'");
	harness_close(h);
}

TEST(delete_has_modes)
{
	struct harness *h = harness_open();
	Pb__BatchDeleteFederatedBundleRequest request = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__INIT;
	Pb__BatchDeleteFederatedBundleResponse *reply;
	const char *tds[] = { "", "example.org", "spiffe://none.test", "spiffe://a.test", "a.test" };
	struct err err = { 0 };
	Pb__Bundle *shown;

	write_one(h, "Bundle.BatchSetFederatedBundle", bundle(h, "a.test"), NULL, &shown);
	request.trust_domains = tds;
	request.n_trust_domains = 5;
	request.mode = 7;
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.BatchDeleteFederatedBundle", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to parse deletion mode: unhandled delete mode \"7\"");
	request.mode = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__MODE__DELETE;
	CHECK_CODE(
		harness_call(h, harness_local(), "Bundle.BatchDeleteFederatedBundle", &request, (void **)&reply, &err),
		CODE_OK);
	CHECK_STR(reply->results[0]->status->message, "trust domain argument is not valid: trust domain is missing");
	CHECK_STR(reply->results[1]->status->message, "removing the bundle for the server trust domain is not allowed");
	CHECK_STR(reply->results[2]->status->message, "bundle not found");
	CHECK_STR(reply->results[2]->trust_domain, "spiffe://none.test");
	CHECK_STR(reply->results[3]->status->message, "OK");
	CHECK_STR(reply->results[3]->trust_domain, "spiffe://a.test");
	CHECK_STR(reply->results[4]->status->message, "bundle not found");
	harness_close(h);
}
