/* SPDX-License-Identifier: Apache-2.0 */
/* Masks on encoded messages give what decoding, emptying and encoding gives. */
#include "api/mask.h"

#include "api/pb.h"
#include "base/rand.h"
#include "lib/test.h"

static Pb__SPIFFEID web = PB__SPIFFEID__INIT, host = PB__SPIFFEID__INIT;
static Pb__Selector one = PB__SELECTOR__INIT, two = PB__SELECTOR__INIT, *selectors[] = { &one, &two };
static const char *tds[] = { "a.test", "b.test" }, *names[] = { "x.org", "y.org" };
static Pb__Entry__AdditionalAttributes attributes = PB__ENTRY__ADDITIONAL_ATTRIBUTES__INIT;

static Pb__Entry full_entry(void)
{
	Pb__Entry entry = PB__ENTRY__INIT;

	web.trust_domain = host.trust_domain = "example.org";
	web.path = "/web";
	host.path = "/host";
	one.type = two.type = "unix";
	one.value = "uid:1";
	two.value = "gid:a long value so that the message needs more than one byte for its length";
	attributes.jwt_svid_include_jti = true;
	entry.id = "0191f0a2-1111-7222-8333-444455556666";
	entry.spiffe_id = &web;
	entry.parent_id = &host;
	entry.selectors = selectors;
	entry.n_selectors = 2;
	entry.x509_svid_ttl = 300;
	entry.federates_with = tds;
	entry.n_federates_with = 2;
	entry.admin = entry.downstream = entry.store_svid = true;
	entry.expires_at = 4102444800;
	entry.dns_names = names;
	entry.n_dns_names = 2;
	entry.revision_number = 7;
	entry.jwt_svid_ttl = -1;
	entry.hint = "hint";
	entry.created_at = 1700000000;
	entry.additional_attributes = &attributes;
	return entry;
}

static struct span encoded(const void *message, struct buf *out)
{
	out->len = 0;
	pb_encode(message, out);
	return (struct span){ out->data, out->len };
}

TEST(mask_of_bytes_is_mask_of_message)
{
	Pb__Entry entry = full_entry();
	OWN_BUF blob = { 0 }, want = { 0 }, got = { 0 };
	struct span bytes = encoded(&entry, &blob);

	for (uint32_t n = 0; n < 1u << 15; n++) {
		uint32_t set = n << 2 | 1u << 1; /* the id is in every set */
		Pb__Entry masked = entry;

		mask_entry(&masked, set);
		encoded(&masked, &want);
		got.len = 0;
		CHECK(mask_copy(&got, bytes, set));
		CHECK_NUM(got.len, want.len);
		CHECK_BYTES(got.data, want.data, want.len);
	}
	got.len = 0;
	CHECK(mask_copy(&got, bytes, (uint32_t)MASK_ALL));
	CHECK_NUM(got.len, bytes.len);
	CHECK_BYTES(got.data, bytes.data, bytes.len);
}

TEST(mask_embed_writes_a_field)
{
	Pb__Entry entry = full_entry();
	OWN_BUF blob = { 0 }, want = { 0 }, got = { 0 };
	struct span bytes = encoded(&entry, &blob);
	Pb__Entry masked = entry;

	mask_entry(&masked, 1u << 1 | 1u << 4);
	encoded(&masked, &want);
	CHECK(mask_embed(&got, 2, bytes, 1u << 1 | 1u << 4));
	CHECK_NUM(got.data[0], 2 << 3 | 2);
	CHECK(want.len >= 128); /* a length of two bytes */
	CHECK_NUM(got.data[1], (want.len & 0x7f) | 0x80);
	CHECK_NUM(got.data[2], want.len >> 7);
	CHECK_NUM(got.len, want.len + 3);
	CHECK_BYTES(got.data + 3, want.data, want.len);
	got.len = 0;
	CHECK(mask_embed(&got, 1, (struct span){ NULL, 0 }, (uint32_t)MASK_ALL));
	CHECK_NUM(got.len, 2);
}

TEST(mask_of_entry_has_every_flag)
{
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	protobuf_c_boolean *const flags[] = {
		&mask.spiffe_id,  &mask.parent_id,    &mask.selectors,  &mask.x509_svid_ttl, &mask.federates_with,
		&mask.admin,      &mask.downstream,   &mask.expires_at, &mask.dns_names,     &mask.revision_number,
		&mask.store_svid, &mask.jwt_svid_ttl, &mask.hint,       &mask.created_at,    &mask.additional_attributes
	};

	CHECK_NUM(mask_of_entry(NULL), (uint32_t)MASK_ALL);
	CHECK_NUM(mask_of_entry(&mask), 1u << 1);
	for (unsigned i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		*flags[i] = true;
		CHECK_NUM(mask_of_entry(&mask), 1u << 1 | 1u << (i + 2));
		*flags[i] = false;
	}
}

TEST(mask_of_bundles_and_relationships)
{
	Pb__BundleMask bundle = PB__BUNDLE_MASK__INIT;
	Pb__FederationRelationshipMask relationship = PB__FEDERATION_RELATIONSHIP_MASK__INIT;
	Pb__FederationRelationship shown = PB__FEDERATION_RELATIONSHIP__INIT;
	Pb__HTTPSWebProfile web_profile = PB__HTTPSWEB_PROFILE__INIT;

	bundle.jwt_authorities = true;
	bundle.sequence_number = true;
	CHECK_NUM(mask_of_bundle(&bundle), 1u << 1 | 1u << 3 | 1u << 5);
	relationship.bundle_endpoint_profile = true;
	CHECK_NUM(mask_of_relationship(&relationship), 1u << 1 | 1u << 3 | 1u << 4);
	shown.trust_domain = "a.test";
	shown.bundle_endpoint_url = "https://a.test";
	shown.https_web = &web_profile;
	shown.bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB;
	mask_relationship(&shown, mask_of_relationship(&relationship));
	CHECK_STR(shown.bundle_endpoint_url, "");
	CHECK_NUM(shown.bundle_endpoint_profile_case, PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB);
	mask_relationship(&shown, 1u << 1);
	CHECK_NUM(shown.bundle_endpoint_profile_case, PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE__NOT_SET);
}

TEST(mask_refuses_what_is_no_message)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{ "\x0a", 1 },      /* a key without its value */
		{ "\x0a\x05x", 3 }, /* shorter than it says */
		{ "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
		{ "\x08\x80", 2 }, /* a number without end */
		{ "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12 },
		{ "\x00\x00", 2 },             /* field 0 */
		{ "\x0d\x00\x00\x00\x00", 5 }, /* fixed 32 */
		{ "\x0b\x0c", 2 },             /* a group */
		{ "\x82\x04\x00", 3 },         /* field 64 */
	};
	OWN_BUF out = { 0 }, ragged = { 0 };

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct span message = { (const uint8_t *)bad[i].bytes, bad[i].len };

		CHECK(!mask_copy(&out, message, 2));
		CHECK(!mask_embed(&out, 1, message, 2));
		CHECK_NUM(out.len, 0);
	}
	for (int i = 0; i < 100; i++) /* kept and dropped by turns: more runs than an encoder makes */
		buf_append(&ragged, i % 2 == 0 ? "\x08\x01" : "\x10\x01", 2);
	CHECK(!mask_copy(&out, (struct span){ ragged.data, ragged.len }, 2));
}

TEST(mask_survives_any_bytes)
{
	uint8_t bytes[64];
	OWN_BUF out = { 0 };

	for (int i = 0; i < 20000; i++) {
		size_t len = rand_u64() % sizeof bytes;

		rand_bytes(bytes, len);
		out.len = 0;
		if (mask_copy(&out, (struct span){ bytes, len }, (uint32_t)rand_u64() | 2))
			CHECK(out.len <= len);
	}
}

TEST(entry_version_is_read_without_decoding)
{
	Pb__Entry entry = full_entry();
	struct entry_version version;
	OWN_BUF blob = { 0 };

	CHECK(mask_entry_version(encoded(&entry, &blob), &version));
	CHECK_NUM(version.id.len, 36);
	CHECK_BYTES(version.id.data, entry.id, 36);
	CHECK_NUM(version.revision, 7);
	CHECK_NUM(version.created_at, 1700000000);
	entry.revision_number = 0;
	CHECK(mask_entry_version(encoded(&entry, &blob), &version));
	CHECK_NUM(version.revision, 0);
	CHECK(!mask_entry_version((struct span){ blob.data, blob.len - 1 }, &version));
}

TEST(wire_helpers_write_what_the_encoder_writes)
{
	Pb__Status status = PB__STATUS__INIT;
	OWN_BUF want = { 0 }, got = { 0 };

	status.code = -1;
	status.message = "text";
	encoded(&status, &want);
	wire_number(&got, 1, (uint64_t)status.code);
	wire_text(&got, 2, status.message);
	CHECK_NUM(got.len, want.len);
	CHECK_BYTES(got.data, want.data, want.len);
	got.len = 0;
	wire_number(&got, 1, 0);
	wire_text(&got, 2, "");
	CHECK_NUM(got.len, 0);
}
