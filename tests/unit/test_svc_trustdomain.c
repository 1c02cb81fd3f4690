/* SPDX-License-Identifier: Apache-2.0 */
/* Federation relationships. */
#include "api/refresh.h"
#include "lib/harness.h"
#include "lib/test.h"
#include "trustdomain.pb-c.h"

static Pb__HTTPSWebProfile web = PB__HTTPSWEB_PROFILE__INIT;
static Pb__HTTPSSPIFFEProfile spiffe = PB__HTTPSSPIFFEPROFILE__INIT;

static Pb__FederationRelationship relationship(const char *td, const char *url)
{
	Pb__FederationRelationship out = PB__FEDERATION_RELATIONSHIP__INIT;

	out.trust_domain = td;
	out.bundle_endpoint_url = url;
	out.https_web = &web;
	out.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB;
	return out;
}

static Pb__BatchCreateFederationRelationshipResponse__Result *create(struct harness *h,
								     Pb__FederationRelationship *what)
{
	Pb__BatchCreateFederationRelationshipRequest request = PB__BATCH_CREATE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchCreateFederationRelationshipResponse *reply;
	struct err err = { 0 };

	request.federation_relationships = &what;
	request.n_federation_relationships = 1;
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.BatchCreateFederationRelationship", &request,
				(void **)&reply, &err),
		   CODE_OK);
	return reply->results[0];
}

static void refused(struct harness *h, Pb__FederationRelationship *what, const char *text)
{
	Pb__BatchCreateFederationRelationshipResponse__Result *result = create(h, what);

	CHECK_STR(result->status->message, text);
	CHECK_NUM(result->status->code, CODE_INVALID_ARGUMENT);
	CHECK(result->federation_relationship == NULL);
}

TEST(create_checks_in_order)
{
	struct harness *h = harness_open();
	Pb__FederationRelationship what = relationship("", "");
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	what.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE__NOT_SET;
	what.trust_domain_bundle = &bundle;
	refused(h, &what,
		"failed to convert federation relationship: failed to parse trust domain: trust domain is missing");
	what.trust_domain = "spiffe://a.test";
	refused(h, &what, "failed to convert federation relationship: bundle endpoint URL must use the https scheme");
	what.bundle_endpoint_url = "https://a.test:x";
	refused(h, &what,
		"failed to convert federation relationship: failed to parse bundle endpoint URL: parse "
		"\"https://a.test:x\": "
		"invalid port \":x\" after host");
	what.bundle_endpoint_url = "https:///x";
	refused(h, &what, "failed to convert federation relationship: bundle endpoint URL must specify the host");
	what.bundle_endpoint_url = "https://u@a.test";
	refused(h, &what, "failed to convert federation relationship: bundle endpoint URL must not contain user info");
	what.bundle_endpoint_url = "https://a.test";
	refused(h, &what, "failed to convert federation relationship: unsupported bundle endpoint profile type: <nil>");
	what.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;
	what.https_spiffe = &spiffe;
	spiffe.endpoint_spiffe_id = "";
	refused(h, &what,
		"failed to convert federation relationship: failed to parse endpoint SPIFFE ID: cannot be empty");
	spiffe.endpoint_spiffe_id = "spiffe://b.test/endpoint";
	refused(h, &what,
		"failed to convert federation relationship: failed to parse bundle: invalid trust domain: trust domain "
		"is missing");
	bundle.trust_domain = "spiffe://b.test";
	refused(h, &what,
		"failed to convert federation relationship: trust domain bundle (\"spiffe://b.test\") must match the "
		"trust domain "
		"of the federation relationship (\"a.test\")");
	bundle.trust_domain = "example.org";
	what.trust_domain = "example.org";
	refused(h, &what, "unable to create federation relationship for server trust domain");
	harness_close(h);
}

TEST(create_answers_what_was_sent)
{
	struct harness *h = harness_open();
	Pb__FederationRelationship what = relationship("spiffe://a.test", "HTTPS://a.test/x y");
	Pb__BatchCreateFederationRelationshipResponse__Result *result = create(h, &what);

	CHECK_STR(result->status->message, "OK");
	CHECK_STR(result->federation_relationship->trust_domain, "a.test");
	CHECK_STR(result->federation_relationship->bundle_endpoint_url, "https://a.test/x%20y");
	CHECK(result->federation_relationship->https_web != NULL);
	CHECK(result->federation_relationship->trust_domain_bundle == NULL);
	result = create(h, &what);
	CHECK_NUM(result->status->code, CODE_INTERNAL); /* not ALREADY_EXISTS */
	CHECK_STR(result->status->message,
		  "failed to create federation relationship: datastore-sql: UNIQUE constraint failed: "
		  "federated_trust_domains.trust_domain");
	harness_close(h);
}

static Pb__FederationRelationship *get(struct harness *h, const char *td, Pb__FederationRelationshipMask *mask)
{
	Pb__GetFederationRelationshipRequest request = PB__GET_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__FederationRelationship *reply;
	struct err err = { 0 };

	request.trust_domain = td;
	request.output_mask = mask;
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.GetFederationRelationship", &request, (void **)&reply,
				&err),
		   CODE_OK);
	return reply;
}

TEST(update_checks_all_and_changes_what_is_masked)
{
	struct harness *h = harness_open();
	Pb__FederationRelationship made = relationship("a.test", "https://a.test"),
				   change = relationship("a.test", "https://new.test");
	Pb__BatchUpdateFederationRelationshipRequest request = PB__BATCH_UPDATE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchUpdateFederationRelationshipResponse *reply;
	Pb__FederationRelationshipMask mask = PB__FEDERATION_RELATIONSHIP_MASK__INIT;
	Pb__FederationRelationship *all[] = { &change };
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	struct err err = { 0 };

	bundle.trust_domain = "a.test";
	bundle.refresh_hint = 7;
	made.trust_domain_bundle = &bundle;
	create(h, &made);
	request.federation_relationships = all;
	request.n_federation_relationships = 1;
	request.input_mask = &mask;
	mask.bundle_endpoint_profile = true;
	change.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;
	change.https_spiffe = &spiffe;
	spiffe.endpoint_spiffe_id = "spiffe://b.test/endpoint";
#define UPDATE()                                                                                                       \
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.BatchUpdateFederationRelationship", &request,         \
				(void **)&reply, &err),                                                                \
		   CODE_OK)
	UPDATE();
	CHECK_STR(reply->results[0]->status->message, "OK");
	CHECK_STR(reply->results[0]->federation_relationship->bundle_endpoint_url, "https://a.test");
	CHECK_STR(reply->results[0]->federation_relationship->https_spiffe->endpoint_spiffe_id,
		  "spiffe://b.test/endpoint");
	CHECK_NUM(reply->results[0]->federation_relationship->trust_domain_bundle->refresh_hint,
		  7); /* the stored one */
	change.bundle_endpoint_url = "http://no";
	UPDATE();
	CHECK_STR(reply->results[0]->status->message,
		  "failed to convert federation relationship: bundle endpoint URL must use the https scheme");
	change.bundle_endpoint_url = "https://new.test";
	change.trust_domain = "none.test";
	UPDATE();
	CHECK_NUM(reply->results[0]->status->code, CODE_INTERNAL);
	CHECK_STR(
		reply->results[0]->status->message,
		"failed to update federation relationship: unable to fetch federation relationship: record not found");
#undef UPDATE
	CHECK_STR(get(h, "spiffe://a.test", NULL)->https_spiffe->endpoint_spiffe_id, "spiffe://b.test/endpoint");
	mask.bundle_endpoint_profile = false;
	mask.trust_domain_bundle = true;
	CHECK_STR(get(h, "a.test", &mask)->bundle_endpoint_url, "");
	CHECK_NUM(get(h, "a.test", &mask)->bundle_endpoint_profile_case, 0);
	CHECK_NUM(get(h, "a.test", &mask)->trust_domain_bundle->refresh_hint, 7);
	harness_close(h);
}

TEST(get_says_what_is_missing)
{
	struct harness *h = harness_open();
	Pb__GetFederationRelationshipRequest request = PB__GET_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.GetFederationRelationship", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to parse trust domain: trust domain is missing");
	request.trust_domain = "a.test";
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.GetFederationRelationship", &request, NULL, &err),
		   CODE_NOT_FOUND);
	CHECK_STR(err.text, "federation relationship does not exist");
	harness_close(h);
}

TEST(list_goes_page_by_page)
{
	struct harness *h = harness_open();
	Pb__ListFederationRelationshipsRequest request = PB__LIST_FEDERATION_RELATIONSHIPS_REQUEST__INIT;
	Pb__ListFederationRelationshipsResponse *reply;
	Pb__FederationRelationshipMask mask = PB__FEDERATION_RELATIONSHIP_MASK__INIT;
	struct err err = { 0 };
	char td[24];

	for (int i = 0; i < 20; i++) {
		Pb__FederationRelationship made = relationship(td, "https://a.test");

		snprintf(td, sizeof td, "t%02d.test", i);
		create(h, &made);
	}
#define LIST()                                                                                                         \
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.ListFederationRelationships", &request,               \
				(void **)&reply, &err),                                                                \
		   CODE_OK)
	LIST();
	CHECK_NUM(reply->n_federation_relationships, 20);
	CHECK_STR(reply->federation_relationships[19]->trust_domain, "t19.test");
	CHECK(reply->federation_relationships[19]->https_web != NULL);
	CHECK_STR(reply->next_page_token, "");
	request.output_mask = &mask;
	request.page_size = 19;
	LIST();
	CHECK_NUM(reply->n_federation_relationships, 19);
	CHECK_STR(reply->federation_relationships[0]->bundle_endpoint_url, "");
	CHECK_STR(reply->next_page_token, "19");
	request.page_token = "19";
	LIST();
	CHECK_NUM(reply->n_federation_relationships, 1);
	request.page_token = "20";
	LIST();
	CHECK_STR(reply->next_page_token, "");
#undef LIST
	request.page_token = "x";
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.ListFederationRelationships", &request, NULL, &err),
		   CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list federation relationships: could not parse token 'x'");
	harness_close(h);
}

TEST(delete_answers_names)
{
	struct harness *h = harness_open();
	Pb__BatchDeleteFederationRelationshipRequest request = PB__BATCH_DELETE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchDeleteFederationRelationshipResponse *reply;
	Pb__FederationRelationship made = relationship("a.test", "https://a.test");
	const char *tds[] = { "", "a b", "none.test", "spiffe://a.test", "a.test" };
	struct err err = { 0 };

	create(h, &made);
	request.trust_domains = tds;
	request.n_trust_domains = 5;
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.BatchDeleteFederationRelationship", &request,
				(void **)&reply, &err),
		   CODE_OK);
	CHECK_STR(reply->results[0]->status->message, "missing trust domain");
	CHECK_STR(reply->results[1]->status->message,
		  "failed to parse trust domain: trust domain characters are limited to lowercase "
		  "letters, numbers, dots, dashes, and underscores");
	CHECK_STR(reply->results[1]->trust_domain, "a b");
	CHECK_STR(reply->results[2]->status->message, "federation relationship not found");
	CHECK_STR(reply->results[3]->status->message, "OK");
	CHECK_STR(reply->results[3]->trust_domain, "a.test");
	CHECK_STR(reply->results[4]->status->message, "federation relationship not found");
	harness_close(h);
}

TEST(refresh_knows_whom_it_may_ask)
{
	struct harness *h = harness_open();
	Pb__RefreshBundleRequest request = PB__REFRESH_BUNDLE_REQUEST__INIT;
	struct config_federates_with configured[] = {
		{ "configured.test", "https://127.0.0.1:1/", ENDPOINT_HTTPS_WEB, NULL },
		{ "other.test", "https://127.0.0.1:1/", ENDPOINT_HTTPS_SPIFFE, "spiffe://other.test/spire/server" },
	};
	struct err err = { 0 };

	h->config->federates_with = configured;
	h->config->n_federates_with = 2;
	CHECK_CODE(refresher_new(h->server, &h->server->refresher, &err), CODE_OK);
	refresher_start(h->server->refresher);
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.RefreshBundle", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to parse trust domain: trust domain is missing");
	request.trust_domain = "spiffe://unknown.test";
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.RefreshBundle", &request, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "no relationship with trust domain \"unknown.test\"");
	request.trust_domain = "spiffe://configured.test";
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.RefreshBundle", &request, NULL, &err), CODE_INTERNAL);
	CHECK_STR(err.text,
		  "failed to refresh bundle: failed to fetch federated bundle from endpoint: failed to fetch bundle: "
		  "Get \"https://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused");
	request.trust_domain = "other.test";
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.RefreshBundle", &request, NULL, &err), CODE_INTERNAL);
	CHECK_STR(err.text,
		  "failed to refresh bundle: can't perform SPIFFE Authentication: local copy of bundle not found");
	refresher_stop(h->server->refresher);
	CHECK_CODE(harness_call(h, harness_local(), "TrustDomain.RefreshBundle", &request, NULL, &err),
		   CODE_UNAVAILABLE);
	refresher_free(h->server->refresher);
	harness_close(h);
}
