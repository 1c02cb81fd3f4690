/* SPDX-License-Identifier: Apache-2.0 */
/* The files of -data and -file. The texts are those of spire-server 1.13.3. */
#include "cmd/entry_data.h"
#include "cmd/federation_data.h"

#include "lib/test.h"

#include <stdlib.h>

static const char *file(const char *text, size_t len)
{
	static char path[128];
	FILE *out;

	snprintf(path, sizeof path, "%s/in.json", test_dir());
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, len, out), len);
	fclose(out);
	return path;
}

static enum code read_text(const char *text, struct arena *arena, Pb__Entry ***out, size_t *n, struct err *err)
{
	return entry_read_data(file(text, strlen(text)), arena, out, n, err);
}

TEST(an_entry_with_every_field)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Entry **entries, *e;
	size_t n;

	CHECK_CODE(
		read_text("{\"ENTRIES\":[{\"Selectors\":[{\"type\":\"a\",\"value\":\"b:c\"},null],"
			  "\"spiffe_id\":\"spiffe://td/x\",\"parent_id\":\"spiffe://td/p\",\"x509_svid_ttl\":60,"
			  "\"jwt_svid_ttl\":-5,\"federates_with\":[\"f\"],\"entry_id\":\"id\",\"admin\":true,"
			  "\"downstream\":true,\"entryExpiry\":4102444800,\"dns_names\":[\"d1\",\"d2\"],"
			  "\"revision_number\":9,\"store_svid\":true,\"hint\":\"h\",\"created_at\":7,\"other\":[{}]},"
			  "{\"spiffe_id\":\"spiffe://td/y\",\"parent_id\":\"spiffe://"
			  "td\",\"selectors\":null,\"admin\":null}]}",
			  arena, &entries, &n, &err),
		CODE_OK);
	CHECK_NUM(n, 2);
	e = entries[0];
	CHECK_STR(e->spiffe_id->path, "/x");
	CHECK_STR(e->parent_id->path, "/p");
	CHECK_NUM(e->n_selectors, 2);
	CHECK_STR(e->selectors[0]->value, "b:c");
	CHECK_STR(e->selectors[1]->type, "");
	CHECK_NUM(e->x509_svid_ttl, 60);
	CHECK_NUM(e->jwt_svid_ttl, -5);
	CHECK_STR(e->federates_with[0], "f");
	CHECK_STR(e->id, "id");
	CHECK(e->admin && e->downstream && e->store_svid);
	CHECK(e->expires_at == 4102444800);
	CHECK_STR(e->dns_names[1], "d2");
	CHECK_NUM(e->revision_number, 9);
	CHECK_NUM(e->created_at, 7);
	CHECK_STR(e->hint, "h");
	CHECK_NUM(entries[1]->n_selectors, 0);
	CHECK_STR(entries[1]->hint, "");
	CHECK(!entries[1]->admin);
}

TEST(files_that_hold_nothing)
{
	static const char *const texts[] = { "{}", "null", "{\"entries\":null}", "{\"entries\":[]}" };
	struct err err = { 0 };

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__Entry **entries;
		size_t n = 9;

		CHECK_CODE(read_text(texts[i], arena, &entries, &n, &err), CODE_OK);
		CHECK_NUM(n, 0);
	}
}

#define FIELD "json: cannot unmarshal "
#define INTO " into Go struct field RegistrationEntry.entries."

TEST(files_that_are_refused)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "unexpected end of JSON input" },
		{ "[]", FIELD "array into Go value of type common.RegistrationEntries" },
		{ "1", FIELD "number into Go value of type common.RegistrationEntries" },
		{ "{\"entries\":{}}",
		  FIELD "object into Go struct field RegistrationEntries.entries of type []*common.RegistrationEntry" },
		{ "{\"entries\":[1]}",
		  FIELD "number into Go struct field RegistrationEntries.entries of type common.RegistrationEntry" },
		{ "{\"entries\":[null]}", "missing registration entry" },
		{ "{\"entries\":[{}]}", "invalid SPIFFE ID: cannot be empty" },
		{ "{\"entries\":[{\"spiffe_id\":\"spiffe://td/x\",\"parent_id\":\"x\"}]}",
		  "invalid parent ID: scheme is missing or invalid" },
		{ "{\"entries\":[{\"x509_svid_ttl\":\"a\",\"spiffe_id\":1}]}",
		  FIELD "string" INTO "x509_svid_ttl of type int32" },
		{ "{\"Entries\":[{\"x509_svid_ttl\":1.5}]}", FIELD "number 1.5" INTO "x509_svid_ttl of type int32" },
		{ "{\"entries\":[{\"x509_svid_ttl\":2147483648}]}",
		  FIELD "number 2147483648" INTO "x509_svid_ttl of type int32" },
		{ "{\"entries\":[{\"entryExpiry\":99999999999999999999}]}",
		  FIELD "number 99999999999999999999" INTO "entryExpiry of type int64" },
		{ "{\"entries\":[{\"admin\":\"true\"}]}", FIELD "string" INTO "admin of type bool" },
		{ "{\"entries\":[{\"selectors\":{}}]}", FIELD "object" INTO "selectors of type []*common.Selector" },
		{ "{\"entries\":[{\"selectors\":[1]}]}", FIELD "number" INTO "selectors of type common.Selector" },
		{ "{\"entries\":[{\"selectors\":[{\"type\":1}]}]}",
		  FIELD "number into Go struct field Selector.entries.selectors.type of type string" },
		{ "{\"entries\":[{\"dns_names\":1}]}", FIELD "number" INTO "dns_names of type []string" },
		{ "{\"entries\":[{\"dns_names\":[1]}]}", FIELD "number" INTO "dns_names of type string" },
		{ "{\"entries\":[{\"hint\":\"a\\u0000b\"}]}", "json: string of \"hint\" holds a NUL" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		Pb__Entry **entries;
		size_t n;

		CHECK_CODE(read_text(cases[i].text, arena, &entries, &n, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].why);
	}
}

TEST(ids_to_delete)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	struct strings ids;

	CHECK_CODE(entry_read_ids(file("{\"IDS\":[\"a\",null]}", 18), arena, &ids, &err), CODE_OK);
	CHECK_NUM(ids.n, 2);
	CHECK_STR(ids.items[0], "a");
	CHECK_STR(ids.items[1], "");
	CHECK_CODE(entry_read_ids(file("{\"ids\":[1]}", 11), arena, &ids, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, FIELD "number into Go struct field BatchDeleteEntryRequest.ids of type string");
	CHECK_CODE(entry_read_ids("/nowhere/ids.json", arena, &ids, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "open /nowhere/ids.json: no such file or directory");
	CHECK_CODE(entry_read_ids(test_dir(), arena, &ids, &err), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, ": is a directory") != NULL);
}

TEST(ten_megabytes_and_deep_nesting)
{
	enum { SIZE = 10 << 20 };
	char *text = malloc(SIZE);
	struct err err = { 0 };

	for (const char *fill = "[{0"; *fill != '\0'; fill++) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__Entry **entries;
		size_t n;

		memset(text, *fill, SIZE);
		memcpy(text, "{\"entries\":[", 12);
		CHECK_CODE(entry_read_data(file(text, SIZE), arena, &entries, &n, &err), CODE_INVALID_ARGUMENT);
	}
	free(text);
}

static const struct relationship_flags no_flags = { "", "", "", "", "", federation_pem_format };

TEST(relationships_of_a_file)
{
	static const char doc[] =
		"{\"federationRelationships\":[{\"trustDomain\":\"a.test\",\"bundleEndpointURL\":\"https://a\","
		"\"bundleEndpointProfile\":\"https_spiffe\",\"endpointSPIFFEID\":\"spiffe://b.test/ep\","
		"\"trustDomainBundle\":{\"keys\":[],\"spiffe_sequence\":3},\"trustDomainBundleFormat\":\"spiffe\"},"
		"{\"trustDomain\":\"c.test\",\"bundleEndpointURL\":\"https://c\",\"bundleEndpointProfile\":"
		"\"https_web\"}]}";
	OWN_STRUCT(arena) arena = arena_new();
	Pb__FederationRelationship **all;
	struct err err = { 0 };
	size_t n;

	CHECK_CODE(relationships_read(&no_flags, file(doc, sizeof doc - 1), arena, &all, &n, &err), CODE_OK);
	CHECK_NUM(n, 2);
	CHECK_STR(all[0]->https_spiffe->endpoint_spiffe_id, "spiffe://b.test/ep");
	CHECK_STR(all[0]->trust_domain_bundle->trust_domain, "b.test"); /* the endpoint's, as in SPIRE */
	CHECK_NUM(all[0]->trust_domain_bundle->sequence_number, 3);
	CHECK_NUM(all[1]->bundle_endpoint_profile_case, PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB);
	CHECK(all[1]->trust_domain_bundle == NULL);
}

#define ONE(more)                                                                                                      \
	"{\"federationRelationships\":[{\"trustDomain\":\"a\",\"bundleEndpointURL\":\"u\",\"bundleEndpointProfile\":"  \
	"\"https_web\"" more "}]}"

TEST(relationships_that_are_refused)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "failed to parse JSON: unexpected end of JSON input" },
		{ "{\"federationRelationships\":1}",
		  "failed to parse JSON: json: cannot unmarshal number into Go struct field "
		  "federationRelationships.federationRelationships of type "
		  "[]*federation.federationRelationshipConfig" },
		{ "{\"federationRelationships\":[null]}", "could not parse item 0: missing federation relationship" },
		{ "{\"federationRelationships\":[{}]}", "could not parse item 0: trust domain is required" },
		{ "{\"federationRelationships\":[{\"trustDomain\":\"a\"}]}",
		  "could not parse item 0: bundle endpoint URL is required" },
		{ "{\"federationRelationships\":[{\"trustDomain\":\"a\",\"bundleEndpointURL\":\"u\"}]}",
		  "could not parse item 0: unknown bundle endpoint profile type: \"\"" },
		{ ONE(",\"trustDomainBundle\":\"x\""),
		  "could not parse item 0: cannot parse bundle raw message: bundle format \"\" is unsupported" },
		{ ONE(",\"trustDomainBundleFormat\":\"pem\",\"trustDomainBundle\":{}"),
		  "could not parse item 0: cannot parse bundle raw message: failed to unmarshal json: json: cannot "
		  "unmarshal object "
		  "into Go value of type string" },
		{ ONE(",\"trustDomainBundleFormat\":\"pem\",\"trustDomainBundle\":null"),
		  "could not parse item 0: cannot parse bundle raw message: unable to parse bundle data: no PEM "
		  "blocks" },
		{ ONE(",\"trustDomainBundleFormat\":\"spiffe\",\"trustDomainBundle\":\"{}\""),
		  "could not parse item 0: cannot parse bundle raw message: unable to parse to spiffe bundle: "
		  "spiffebundle: unable to "
		  "parse JWKS: json: cannot unmarshal string into Go value of type spiffebundle.bundleDoc" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__FederationRelationship **all;
		struct err err = { 0 };
		size_t n;

		CHECK_CODE(relationships_read(&no_flags, file(cases[i].text, strlen(cases[i].text)), arena, &all, &n,
					      &err),
			   CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].why);
	}
}

TEST(a_bundle_file_without_a_format_is_recognized)
{
	struct relationship_flags flags = { "a.test", "https://a", "https_web", "", "", federation_pem_format };
	OWN_STRUCT(arena) arena = arena_new();
	Pb__FederationRelationship **all;
	struct err err = { 0 };
	char typed[] = "pem";
	size_t n;

	flags.bundle_path = file(" \n{\"keys\":[],\"spiffe_sequence\":5}", 33);
	CHECK_CODE(relationships_read(&flags, "", arena, &all, &n, &err), CODE_OK);
	CHECK_NUM(all[0]->trust_domain_bundle->sequence_number, 5);
	flags.bundle_format = typed;
	CHECK_CODE(relationships_read(&flags, "", arena, &all, &n, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "cannot parse bundle file: unable to parse bundle data: no PEM blocks");
	CHECK_CODE(relationships_read(&flags, "data.json", arena, &all, &n, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "cannot use other flags to specify relationship fields when 'data' flag is set");
}
