/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/print_json.h"

#include "entry.pb-c.h"
#include "trustdomain.pb-c.h"

#include "lib/test.h"

#include <stdbool.h>

#define CHECK_JSON(message, want)                                                                                      \
	do {                                                                                                           \
		OWN_BUF out_ = { 0 };                                                                                  \
		print_json(&out_, &(message).base);                                                                    \
		CHECK_STR(buf_text(&out_), want);                                                                      \
	} while (0)

TEST(what_is_not_set_is_shown_empty_but_messages)
{
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__ListEntriesResponse list = PB__LIST_ENTRIES_RESPONSE__INIT;
	Pb__Empty empty = PB__EMPTY__INIT;

	CHECK_JSON(entry,
		   "{\"admin\":false,\"created_at\":\"0\",\"dns_names\":[],\"downstream\":false,\"expires_at\":\"0\","
		   "\"federates_with\":[],\"hint\":\"\",\"id\":\"\",\"jwt_svid_ttl\":0,\"revision_number\":\"0\","
		   "\"selectors\":[],\"store_svid\":false,\"x509_svid_ttl\":0}");
	CHECK_JSON(list, "{\"entries\":[],\"next_page_token\":\"\"}");
	CHECK_JSON(empty, "{}");
}

TEST(lists_of_strings_and_of_messages)
{
	Pb__Entry entry = PB__ENTRY__INIT, other = PB__ENTRY__INIT, *entries[] = { &entry, &other };
	Pb__BatchDeleteEntryRequest ids = PB__BATCH_DELETE_ENTRY_REQUEST__INIT;
	Pb__Selector a = PB__SELECTOR__INIT, b = PB__SELECTOR__INIT, *selectors[] = { &a, &b };
	Pb__ListEntriesResponse list = PB__LIST_ENTRIES_RESPONSE__INIT;
	Pb__SelectorMatch match = PB__SELECTOR_MATCH__INIT;
	const char *words[] = { "x", "a <b> & \"c\"" };
	OWN_BUF out = { 0 };

	ids.ids = words;
	ids.n_ids = 2;
	CHECK_JSON(ids, "{\"ids\":[\"x\",\"a \\u003cb\\u003e \\u0026 \\\"c\\\"\"]}");
	a.type = "unix";
	a.value = "uid:1";
	match.selectors = selectors;
	match.n_selectors = 2;
	match.match = PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_ANY;
	CHECK_JSON(match, "{\"match\":\"MATCH_ANY\",\"selectors\":[{\"type\":\"unix\",\"value\":\"uid:1\"},"
			  "{\"type\":\"\",\"value\":\"\"}]}");
	list.entries = entries;
	list.n_entries = 2;
	print_json(&out, &list.base);
	CHECK(strstr(buf_text(&out), "},{\"admin\"") != NULL);
}

TEST(numbers_enums_and_bytes)
{
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	Pb__JWTKey key = PB__JWTKEY__INIT, *keys[] = { &key };
	Pb__Logger logger = PB__LOGGER__INIT;
	Pb__Status status = PB__STATUS__INIT;

	key.key_id = "k";
	key.public_key.data = (uint8_t *)"\xff\xfe\x00";
	key.public_key.len = 3;
	key.expires_at = INT64_MIN;
	key.tainted = true;
	bundle.jwt_authorities = keys;
	bundle.n_jwt_authorities = 1;
	bundle.sequence_number = UINT64_MAX;
	CHECK_JSON(bundle, "{\"jwt_authorities\":[{\"expires_at\":\"-9223372036854775808\",\"key_id\":\"k\",\"public_"
			   "key\":\"//4A\","
			   "\"tainted\":true}],\"refresh_hint\":\"0\",\"sequence_number\":\"18446744073709551615\","
			   "\"trust_domain\":\"\",\"x509_authorities\":[]}");
	logger.current_level = PB__LOG_LEVEL__WARN;
	logger.launch_level = (Pb__LogLevel)42;
	CHECK_JSON(logger, "{\"current_level\":\"WARN\",\"launch_level\":42}");
	status.code = -7;
	CHECK_JSON(status, "{\"code\":-7,\"message\":\"\"}");
}

TEST(of_a_oneof_the_arm_that_is_set)
{
	Pb__FederationRelationship relationship = PB__FEDERATION_RELATIONSHIP__INIT;
	Pb__HTTPSSPIFFEProfile spiffe = PB__HTTPSSPIFFEPROFILE__INIT;
	Pb__HTTPSWebProfile web = PB__HTTPSWEB_PROFILE__INIT;

	relationship.trust_domain = "td";
	CHECK_JSON(relationship, "{\"bundle_endpoint_url\":\"\",\"trust_domain\":\"td\"}");
	relationship.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB;
	relationship.https_web = &web;
	CHECK_JSON(relationship, "{\"bundle_endpoint_url\":\"\",\"https_web\":{},\"trust_domain\":\"td\"}");
	relationship.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;
	relationship.https_spiffe = &spiffe;
	CHECK_JSON(relationship, "{\"bundle_endpoint_url\":\"\",\"https_spiffe\":{\"endpoint_spiffe_id\":\"\"},\"trust_"
				 "domain\":\"td\"}");
}

TEST(a_later_field_is_shown_when_it_holds_something)
{
	Pb__Agent agent = PB__AGENT__INIT;

	CHECK_JSON(agent, "{\"attestation_type\":\"\",\"banned\":false,\"can_reattest\":false,\"selectors\":[],"
			  "\"x509svid_expires_at\":\"0\",\"x509svid_serial_number\":\"\"}");
	agent.agent_version = "1.14.0";
	CHECK_JSON(agent,
		   "{\"agent_version\":\"1.14.0\",\"attestation_type\":\"\",\"banned\":false,\"can_reattest\":false,"
		   "\"selectors\":[],\"x509svid_expires_at\":\"0\",\"x509svid_serial_number\":\"\"}");
}
