/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles, federation relationships, CA journals. */
#include "lib/state.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* A self-signed certificate with subject key id `id` (one byte, twenty times) that ends at `not_after`. */
static ProtobufCBinaryData cert(struct state *s, uint8_t id, int64_t not_after)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x509 = X509_new();
	uint8_t bytes[20];
	ASN1_OCTET_STRING *skid = ASN1_OCTET_STRING_new();
	unsigned char *der = NULL;
	ProtobufCBinaryData out;
	int len;

	memset(bytes, id, sizeof bytes);
	ASN1_OCTET_STRING_set(skid, bytes, sizeof bytes);
	ASN1_INTEGER_set(X509_get_serialNumber(x509), id);
	ASN1_TIME_set(X509_getm_notBefore(x509), 0);
	ASN1_TIME_set(X509_getm_notAfter(x509), not_after);
	X509_set_pubkey(x509, key);
	X509_add1_ext_i2d(x509, NID_subject_key_identifier, skid, 0, 0);
	CHECK(X509_sign(x509, key, EVP_sha256()) > 0);
	len = i2d_X509(x509, &der);
	out = (ProtobufCBinaryData){ (size_t)len, arena_memdup(s->arena, der, (size_t)len) };
	OPENSSL_free(der);
	ASN1_OCTET_STRING_free(skid);
	X509_free(x509);
	EVP_PKEY_free(key);
	return out;
}

static const char *hex_of(struct state *s, int id)
{
	char *text = arena_alloc(s->arena, 41);

	for (int i = 0; i < 20; i++)
		snprintf(text + 2 * i, 3, "%02x", id);
	return text;
}

static Pb__X509Certificate *authority(struct state *s, ProtobufCBinaryData der)
{
	Pb__X509Certificate *out = arena_alloc(s->arena, sizeof *out);

	*out = (Pb__X509Certificate)PB__X509_CERTIFICATE__INIT;
	out->asn1 = der;
	return out;
}

static Pb__JWTKey *jwt_key(struct state *s, const char *id, int64_t expires_at)
{
	Pb__JWTKey *out = arena_alloc(s->arena, sizeof *out);

	*out = (Pb__JWTKey)PB__JWTKEY__INIT;
	out->key_id = id;
	out->public_key = (ProtobufCBinaryData){ 3, (uint8_t *)"key" };
	out->expires_at = expires_at;
	return out;
}

static Pb__Outcome *append(struct state *s, Pb__X509Certificate *x509, Pb__JWTKey *jwt)
{
	Pb__BundleAppend message = PB__BUNDLE_APPEND__INIT;

	message.trust_domain = "example.org";
	message.x509_authorities = &x509;
	message.n_x509_authorities = x509 != NULL;
	message.jwt_authorities = &jwt;
	message.n_jwt_authorities = jwt != NULL;
	return state_do(s, PB__COMMAND__KIND_BUNDLE_APPEND, &message);
}

static Pb__Outcome *taint(struct state *s, const char *x509, const char *jwt)
{
	Pb__AuthorityTaint message = PB__AUTHORITY_TAINT__INIT;

	message.trust_domain = "example.org";
	message.x509_subject_key_id = x509;
	message.jwt_key_id = jwt;
	return state_do(s, PB__COMMAND__KIND_AUTHORITY_TAINT, &message);
}

static Pb__Outcome *revoke(struct state *s, const char *x509, const char *jwt)
{
	Pb__AuthorityRevoke message = PB__AUTHORITY_REVOKE__INIT;

	message.trust_domain = "example.org";
	message.x509_subject_key_id = x509;
	message.jwt_key_id = jwt;
	return state_do(s, PB__COMMAND__KIND_AUTHORITY_REVOKE, &message);
}

static void check_refused(const Pb__Outcome *out, enum code code, const char *message)
{
	CHECK_STR(out->message, message);
	CHECK_NUM(out->code, code);
	CHECK(!out->changed);
}

static Pb__Bundle *get(struct state *s, const char *td)
{
	struct err err = { 0 };
	Pb__Bundle *bundle;

	CHECK_CODE(view_bundle(state_view(s), td, s->arena, &bundle, &err), CODE_OK);
	return bundle;
}

TEST(append_is_a_union_and_counts)
{
	struct state s;
	Pb__Outcome *out;
	Pb__X509Certificate *one;
	Pb__JWTKey *key;
	struct err err = { 0 };
	uint64_t before, after;

	state_begin(&s);
	one = authority(&s, cert(&s, 1, 2000));
	one->tainted = true; /* is dropped */
	out = append(&s, one, NULL);
	CHECK_NUM(out->bundle->sequence_number, 0); /* made */
	CHECK(out->changed);
	key = jwt_key(&s, "k", 5);
	CHECK_NUM(append(&s, one, key)->bundle->sequence_number, 1);
	CHECK_CODE(view_bundle_version(state_view(&s), "example.org", &before, &err), CODE_OK);
	out = append(&s, one, key);
	CHECK(!out->changed);
	CHECK_NUM(out->bundle->sequence_number, 1);
	CHECK_CODE(view_bundle_version(state_view(&s), "example.org", &after, &err), CODE_OK);
	CHECK_NUM(after, before);
	CHECK_NUM(append(&s, NULL, jwt_key(&s, "k", 6))->bundle->n_jwt_authorities, 2); /* the whole record counts */
	CHECK_CODE(view_bundle_version(state_view(&s), "example.org", &after, &err), CODE_OK);
	CHECK(after > before);
	CHECK_NUM(get(&s, "example.org")->sequence_number, 2);
	CHECK(!get(&s, "example.org")->x509_authorities[0]->tainted);
	CHECK_CODE(view_bundle_version(state_view(&s), "none.test", &after, &err), CODE_OK);
	CHECK_NUM(after, 0);
	state_check_digest(&s);
	state_end(&s);
}

TEST(prune_takes_what_ended_but_not_all)
{
	struct state s;
	Pb__BundlePrune message = PB__BUNDLE_PRUNE__INIT;
	ProtobufCBinaryData old, young, chain;
	Pb__Outcome *out;
	uint8_t *both;

	state_begin(&s);
	message.trust_domain = "example.org";
	message.before = 1000;
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_PRUNE, &message), CODE_NOT_FOUND, "bundle not found");
	old = cert(&s, 1, 1000); /* at `before`: gone */
	young = cert(&s, 2, 1001);
	append(&s, authority(&s, old), jwt_key(&s, "old", 1000));
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_PRUNE, &message), CODE_FAILED_PRECONDITION,
		      "would prune all certificates");
	append(&s, authority(&s, young), NULL);
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_PRUNE, &message), CODE_FAILED_PRECONDITION,
		      "would prune all JWT signing keys");
	both = arena_alloc(s.arena, old.len + young.len); /* a chain with one that ended goes as a whole */
	memcpy(both, young.data, young.len);
	memcpy(both + young.len, old.data, old.len);
	chain = (ProtobufCBinaryData){ old.len + young.len, both };
	append(&s, authority(&s, chain), jwt_key(&s, "young", 1001));
	append(&s, NULL, jwt_key(&s, "no end", 0)); /* counts as ended */
	out = state_do(&s, PB__COMMAND__KIND_BUNDLE_PRUNE, &message);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->count, 4);
	CHECK_NUM(out->bundle->n_x509_authorities, 1);
	CHECK_NUM(out->bundle->n_jwt_authorities, 1);
	CHECK_STR(out->bundle->jwt_authorities[0]->key_id, "young");
	CHECK_NUM(out->bundle->sequence_number, 4);
	out = state_do(&s, PB__COMMAND__KIND_BUNDLE_PRUNE, &message);
	CHECK(!out->changed);
	CHECK_NUM(out->count, 0);
	state_end(&s);
}

TEST(taint_then_revoke)
{
	struct state s;
	Pb__Outcome *out;
	const char *one, *two;

	state_begin(&s);
	one = hex_of(&s, 1);
	two = hex_of(&s, 0xab);
	check_refused(taint(&s, one, ""), CODE_NOT_FOUND, "bundle not found");
	append(&s, authority(&s, cert(&s, 1, 2000)), jwt_key(&s, "k1", 2000));
	append(&s, authority(&s, cert(&s, 0xab, 2000)), jwt_key(&s, "k2", 2000));
	check_refused(taint(&s, hex_of(&s, 3), ""), CODE_NOT_FOUND, "no ca found with provided subject key ID");
	check_refused(revoke(&s, hex_of(&s, 3), ""), CODE_NOT_FOUND, "no root CA found with provided subject key ID");
	check_refused(revoke(&s, two, ""), CODE_INVALID_ARGUMENT, "it is not possible to revoke an untainted root CA");
	out = taint(&s, two, "");
	CHECK_NUM(out->bundle->sequence_number, 2);
	CHECK(out->bundle->x509_authorities[1]->tainted);
	CHECK(!out->bundle->x509_authorities[0]->tainted);
	check_refused(taint(&s, two, ""), CODE_INVALID_ARGUMENT, "root CA is already tainted");
	out = revoke(&s, two, "");
	CHECK_NUM(out->bundle->n_x509_authorities, 1);
	CHECK_NUM(out->bundle->sequence_number, 3);
	check_refused(taint(&s, two, ""), CODE_NOT_FOUND, "no ca found with provided subject key ID");
	check_refused(taint(&s, "", "k3"), CODE_NOT_FOUND, "no JWT Key found with provided key ID");
	check_refused(revoke(&s, "", "k3"), CODE_NOT_FOUND, "no JWT Key found with provided key ID");
	check_refused(revoke(&s, "", "k1"), CODE_INVALID_ARGUMENT, "it is not possible to revoke an untainted key");
	CHECK(taint(&s, "", "k1")->bundle->jwt_authorities[0]->tainted);
	check_refused(taint(&s, "", "k1"), CODE_INVALID_ARGUMENT, "key is already tainted");
	out = revoke(&s, "", "k1");
	CHECK_NUM(out->bundle->n_jwt_authorities, 1);
	CHECK_STR(out->bundle->jwt_authorities[0]->key_id, "k2");
	CHECK_NUM(out->bundle->sequence_number, 5);
	state_check_digest(&s);
	state_end(&s);
}

static Pb__Bundle federated(struct state *s, const char *td)
{
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	bundle.trust_domain = td;
	bundle.refresh_hint = 60;
	bundle.sequence_number = 42;
	bundle.n_jwt_authorities = 1;
	bundle.jwt_authorities = arena_alloc(s->arena, sizeof(void *));
	bundle.jwt_authorities[0] = jwt_key(s, "k", 5);
	bundle.jwt_authorities[0]->tainted = true;
	return bundle;
}

TEST(federated_bundles_come_change_and_go)
{
	struct state s;
	struct err err = { 0 };
	Pb__BundleCreate create = PB__BUNDLE_CREATE__INIT;
	Pb__BundleUpdate update = PB__BUNDLE_UPDATE__INIT;
	Pb__BundleSet set = PB__BUNDLE_SET__INIT;
	Pb__BundleMask mask = PB__BUNDLE_MASK__INIT;
	Pb__BundleDelete delete = PB__BUNDLE_DELETE__INIT;
	Pb__Bundle bundle, *got;
	Pb__Outcome *out;

	state_begin(&s);
	bundle = federated(&s, "a.test");
	create.bundle = update.bundle = set.bundle = &bundle;
	update.mask = &mask;
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_UPDATE, &update), CODE_NOT_FOUND, "bundle not found");
	out = state_do(&s, PB__COMMAND__KIND_BUNDLE_CREATE, &create);
	CHECK_NUM(out->code, CODE_OK);
	CHECK(!out->bundle->jwt_authorities[0]->tainted); /* marks are dropped */
	CHECK_NUM(get(&s, "a.test")->sequence_number, 42);
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_CREATE, &create), CODE_ALREADY_EXISTS,
		      "bundle already exists");
	bundle.refresh_hint = 5;
	bundle.sequence_number = 6;
	bundle.n_jwt_authorities = 0;
	mask.refresh_hint = true;
	out = state_do(&s, PB__COMMAND__KIND_BUNDLE_UPDATE, &update);
	CHECK_NUM(out->bundle->refresh_hint, 5);
	CHECK_NUM(out->bundle->sequence_number, 42);
	CHECK_NUM(out->bundle->n_jwt_authorities, 1);
	update.mask = NULL;
	out = state_do(&s, PB__COMMAND__KIND_BUNDLE_UPDATE, &update);
	CHECK_NUM(out->bundle->sequence_number, 6);
	CHECK_NUM(out->bundle->n_jwt_authorities, 0);
	bundle = federated(&s, "a.test");
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set)->code, CODE_OK);
	CHECK_NUM(get(&s, "a.test")->n_jwt_authorities, 1);
	delete.trust_domain = "a.test";
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_BUNDLE_DELETE, &delete)->code, CODE_OK);
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_DELETE, &delete), CODE_NOT_FOUND, "bundle not found");
	CHECK_CODE(view_bundle(state_view(&s), "a.test", s.arena, &got, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "bundle not found");
	state_end(&s);
}

TEST(own_bundle_is_no_federated_one)
{
	struct state s;
	Pb__BundleSet set = PB__BUNDLE_SET__INIT;
	Pb__BundleDelete delete = PB__BUNDLE_DELETE__INIT;
	Pb__Bundle bundle;

	state_begin(&s);
	append(&s, NULL, jwt_key(&s, "k", 1));
	bundle = federated(&s, "example.org");
	set.bundle = &bundle;
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set), CODE_INVALID_ARGUMENT,
		      "setting a federated bundle for the server's own trust domain is not allowed");
	delete.trust_domain = "example.org";
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_DELETE, &delete), CODE_INVALID_ARGUMENT,
		      "removing the bundle for the server trust domain is not allowed");
	set.bundle = NULL;
	check_refused(state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set), CODE_INVALID_ARGUMENT,
		      "trust domain is missing");
	CHECK_NUM(get(&s, "example.org")->sequence_number, 0);
	state_end(&s);
}

TEST(delete_modes)
{
	struct state s;
	struct err err = { 0 };
	uint64_t n;

	for (int mode = 0; mode < 3; mode++) {
		Pb__BundleSet set = PB__BUNDLE_SET__INIT;
		Pb__BundleDelete delete = PB__BUNDLE_DELETE__INIT;
		Pb__Bundle a, b;
		const char *both[] = { "a.test", "b.test" };
		Pb__Entry *entry;
		Pb__Outcome *out;

		state_begin(&s);
		a = federated(&s, "a.test");
		b = federated(&s, "b.test");
		set.bundle = &a;
		state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set);
		set.bundle = &b;
		state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set);
		for (int i = 0; i < 3; i++) {
			entry = state_entry(&s, arena_printf(s.arena, "e%d", i), "/p", arena_printf(s.arena, "/w%d", i),
					    "t:1");
			entry->federates_with = both;
			entry->n_federates_with = (size_t)i;
			state_create(&s, entry);
		}
		delete.trust_domain = "a.test";
		delete.mode = (Pb__BundleDelete__Mode)mode;
		out = state_do(&s, PB__COMMAND__KIND_BUNDLE_DELETE, &delete);
		CHECK_NUM(out->count, 2);
		if (mode == PB__BUNDLE_DELETE__MODE__RESTRICT) {
			check_refused(out, CODE_FAILED_PRECONDITION,
				      "datastore-sql: cannot delete bundle; federated with 2 registration entries");
		} else {
			CHECK_NUM(out->code, CODE_OK);
			CHECK_CODE(view_bundle(state_view(&s), "a.test", s.arena, &(Pb__Bundle *){ NULL }, &err),
				   CODE_NOT_FOUND);
		}
		CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
		CHECK_NUM(n, mode == PB__BUNDLE_DELETE__MODE__DELETE ? 1 : 3);
		if (mode == PB__BUNDLE_DELETE__MODE__DISSOCIATE) {
			CHECK_CODE(view_entry(state_view(&s), "e2", s.arena, &entry, &err), CODE_OK);
			CHECK_NUM(entry->n_federates_with, 1);
			CHECK_STR(entry->federates_with[0], "b.test");
			CHECK_NUM(entry->revision_number, 0); /* is not raised */
		}
		state_check_digest(&s);
		state_end(&s);
	}
}

static enum code keep_bundle(uint64_t seq, const char *td, struct span blob, void *ctx,
			     struct err *err __attribute__((unused)))
{
	CHECK(blob.len > 0);
	buf_printf(ctx, "%d:%s ", (int)seq, td);
	return CODE_OK;
}

TEST(bundles_are_listed_in_order_of_creation)
{
	struct state s;
	struct err err = { 0 };
	Pb__BundleSet set = PB__BUNDLE_SET__INIT;
	OWN_BUF all = { 0 }, page = { 0 };
	uint64_t n;
	struct span blob;

	state_begin(&s);
	append(&s, NULL, jwt_key(&s, "k", 1));
	for (int i = 0; i < 3; i++) {
		Pb__Bundle bundle = federated(&s, i == 0 ? "z.test" : i == 1 ? "a.test" : "z.test");

		set.bundle = &bundle;
		state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set);
	}
	CHECK_CODE(view_bundles(state_view(&s), 0, 0, keep_bundle, &all, &err), CODE_OK);
	CHECK_STR(buf_text(&all), "1:example.org 2:z.test 3:a.test ");
	CHECK_CODE(view_bundles(state_view(&s), 1, 1, keep_bundle, &page, &err), CODE_OK);
	CHECK_STR(buf_text(&page), "2:z.test ");
	CHECK_CODE(view_bundle_count(state_view(&s), &n, &err), CODE_OK);
	CHECK_NUM(n, 3);
	CHECK_CODE(view_bundle_blob(state_view(&s), "z.test", s.arena, &blob, &err), CODE_OK);
	CHECK(blob.len > 0);
	CHECK_CODE(view_bundle_blob(state_view(&s), "none.test", s.arena, &blob, &err), CODE_NOT_FOUND);
	state_end(&s);
}

/* --- relationships --- */

static Pb__FederationRelationship relationship(const char *td, const char *url, Pb__Bundle *bundle)
{
	static Pb__HTTPSWebProfile web = PB__HTTPSWEB_PROFILE__INIT;
	Pb__FederationRelationship out = PB__FEDERATION_RELATIONSHIP__INIT;

	out.trust_domain = td;
	out.bundle_endpoint_url = url;
	out.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB;
	out.https_web = &web;
	out.trust_domain_bundle = bundle;
	return out;
}

TEST(relationship_brings_its_bundle)
{
	struct state s;
	struct err err = { 0 };
	Pb__RelationshipCreate create = PB__RELATIONSHIP_CREATE__INIT;
	Pb__FederationRelationship r, *got;
	Pb__Bundle bundle;
	Pb__Outcome *out;

	state_begin(&s);
	bundle = federated(&s, "a.test");
	r = relationship("a.test", "https://a.test/", &bundle);
	create.relationship = &r;
	out = state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->relationship->trust_domain_bundle->refresh_hint, 60);
	CHECK(!out->relationship->trust_domain_bundle->jwt_authorities[0]->tainted);
	CHECK_NUM(get(&s, "a.test")->refresh_hint, 60);
	/* a second one changes nothing, not even the bundle */
	bundle.refresh_hint = 7;
	check_refused(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create), CODE_INTERNAL,
		      "datastore-sql: UNIQUE constraint failed: federated_trust_domains.trust_domain");
	CHECK_NUM(get(&s, "a.test")->refresh_hint, 60);
	/* the answer of create shows the request's bundle alone */
	bundle = federated(&s, "b.test");
	{
		Pb__BundleSet set = PB__BUNDLE_SET__INIT;

		set.bundle = &bundle;
		state_do(&s, PB__COMMAND__KIND_BUNDLE_SET, &set);
	}
	r = relationship("b.test", "https://b.test/", NULL);
	CHECK(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create)->relationship->trust_domain_bundle == NULL);
	CHECK_CODE(view_relationship(state_view(&s), "b.test", s.arena, &got, &err), CODE_OK);
	CHECK_NUM(got->trust_domain_bundle->refresh_hint, 60);
	CHECK_NUM(got->bundle_endpoint_profile_case, PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB);
	CHECK(got->https_web != NULL);
	CHECK_CODE(view_relationship(state_view(&s), "c.test", s.arena, &got, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "federation relationship does not exist");
	r = relationship("c.test", "https://c.test/", &bundle);
	check_refused(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create), CODE_INVALID_ARGUMENT,
		      "trust domain bundle (\"b.test\") must match the trust domain of the federation relationship "
		      "(\"c.test\")");
	r = relationship("example.org", "https://c.test/", NULL);
	check_refused(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create), CODE_INVALID_ARGUMENT,
		      "unable to create federation relationship for server trust domain");
	state_check_digest(&s);
	state_end(&s);
}

TEST(relationship_changes_by_mask)
{
	struct state s;
	Pb__RelationshipCreate create = PB__RELATIONSHIP_CREATE__INIT;
	Pb__RelationshipUpdate update = PB__RELATIONSHIP_UPDATE__INIT;
	Pb__RelationshipDelete delete = PB__RELATIONSHIP_DELETE__INIT;
	Pb__FederationRelationshipMask mask = PB__FEDERATION_RELATIONSHIP_MASK__INIT;
	Pb__HTTPSSPIFFEProfile spiffe = PB__HTTPSSPIFFEPROFILE__INIT;
	Pb__FederationRelationship r;
	Pb__Bundle bundle;
	Pb__Outcome *out;

	state_begin(&s);
	bundle = federated(&s, "a.test");
	r = relationship("a.test", "https://a.test/", &bundle);
	create.relationship = update.relationship = &r;
	update.mask = &mask;
	check_refused(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_UPDATE, &update), CODE_INTERNAL,
		      "unable to fetch federation relationship: record not found");
	state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create);
	r.bundle_endpoint_url = "https://b.test/";
	r.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;
	spiffe.endpoint_spiffe_id = "spiffe://a.test/server";
	r.https_spiffe = &spiffe;
	bundle.refresh_hint = 9;
	mask.bundle_endpoint_url = true;
	out = state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_UPDATE, &update);
	CHECK_STR(out->relationship->bundle_endpoint_url, "https://b.test/");
	CHECK_NUM(out->relationship->bundle_endpoint_profile_case,
		  PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB);
	CHECK_NUM(out->relationship->trust_domain_bundle->refresh_hint, 60); /* the stored one */
	update.mask = NULL;
	out = state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_UPDATE, &update);
	CHECK_STR(out->relationship->https_spiffe->endpoint_spiffe_id, "spiffe://a.test/server");
	CHECK_NUM(out->relationship->trust_domain_bundle->refresh_hint, 9);
	r.trust_domain_bundle = NULL; /* leaves the stored one */
	out = state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_UPDATE, &update);
	CHECK_NUM(out->relationship->trust_domain_bundle->refresh_hint, 9);
	delete.trust_domain = "a.test";
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_DELETE, &delete)->code, CODE_OK);
	check_refused(state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_DELETE, &delete), CODE_NOT_FOUND,
		      "federation relationship not found");
	CHECK_NUM(get(&s, "a.test")->refresh_hint, 9); /* the bundle stays */
	state_end(&s);
}

static enum code keep_relationship(uint64_t seq, const Pb__FederationRelationship *r, void *ctx,
				   struct err *err __attribute__((unused)))
{
	buf_printf(ctx, "%d:%s%s ", (int)seq, r->trust_domain, r->trust_domain_bundle != NULL ? "+" : "");
	return CODE_OK;
}

TEST(relationships_are_listed_in_order_of_creation)
{
	struct state s;
	struct err err = { 0 };
	OWN_BUF all = { 0 }, page = { 0 };

	state_begin(&s);
	for (int i = 0; i < 3; i++) {
		Pb__RelationshipCreate create = PB__RELATIONSHIP_CREATE__INIT;
		Pb__Bundle bundle = federated(&s, arena_printf(s.arena, "t%d.test", 9 - i));
		Pb__FederationRelationship r = relationship(bundle.trust_domain, "https://x/", i == 1 ? &bundle : NULL);

		create.relationship = &r;
		state_do(&s, PB__COMMAND__KIND_RELATIONSHIP_CREATE, &create);
	}
	CHECK_CODE(view_relationships(state_view(&s), 0, 0, s.arena, keep_relationship, &all, &err), CODE_OK);
	CHECK_STR(buf_text(&all), "1:t9.test 2:t8.test+ 3:t7.test ");
	CHECK_CODE(view_relationships(state_view(&s), 2, 5, s.arena, keep_relationship, &page, &err), CODE_OK);
	CHECK_STR(buf_text(&page), "3:t7.test ");
	state_end(&s);
}

/* --- journals --- */

TEST(journal_is_kept_whole_and_pruned_when_all_has_ended)
{
	struct state s;
	struct err err = { 0 };
	Pb__JournalSet set = PB__JOURNAL_SET__INIT;
	Pb__JournalPrune prune = PB__JOURNAL_PRUNE__INIT;
	Pb__Journal journal = PB__JOURNAL__INIT, *got;
	Pb__Journal__X509Authority x509[12], *list[12];
	Pb__Journal__JWTAuthority jwt = PB__JOURNAL__JWTAUTHORITY__INIT, *jwts[] = { &jwt };

	state_begin(&s);
	for (int i = 0; i < 12; i++) {
		x509[i] = (Pb__Journal__X509Authority)PB__JOURNAL__X509_AUTHORITY__INIT;
		x509[i].not_after = 100 + i;
		list[i] = &x509[i];
	}
	jwt.not_after = 500;
	journal.x509 = list;
	journal.n_x509 = 12;
	journal.jwt = jwts;
	journal.n_jwt = 1;
	set.node = "n1";
	set.journal = &journal;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_JOURNAL_SET, &set)->code, CODE_OK);
	CHECK_CODE(view_journal(state_view(&s), "n1", s.arena, &got, &err), CODE_OK);
	CHECK_NUM(got->n_x509, 10);
	CHECK_NUM(got->x509[0]->not_after, 102); /* the oldest went */
	CHECK_NUM(got->n_jwt, 1);
	set.node = "n2";
	journal.n_jwt = 0;
	state_do(&s, PB__COMMAND__KIND_JOURNAL_SET, &set);
	prune.before = 112;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_JOURNAL_PRUNE, &prune)->count, 1);
	CHECK_CODE(view_journal(state_view(&s), "n2", s.arena, &got, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "node 'n2' has no CA journal");
	CHECK_CODE(view_journal(state_view(&s), "n1", s.arena, &got, &err), CODE_OK);
	set.node = "";
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_JOURNAL_SET, &set)->code, CODE_INVALID_ARGUMENT);
	state_check_digest(&s);
	state_end(&s);
}
