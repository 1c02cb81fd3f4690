/* SPDX-License-Identifier: Apache-2.0 */
/* Masks. On encoded messages: one pass over the keys of the top level finds the runs of bytes that stay; the length is
 * then known and they are copied. The answer to an agent with ten thousand entries is made of these copies, so this is
 * a hot path. */
#include "api/mask.h"

#include <string.h>

uint32_t mask_of_entry(const Pb__EntryMask *mask)
{
	if (mask == NULL)
		return (uint32_t)MASK_ALL;
	return 1u << 1 | (uint32_t)(mask->spiffe_id != 0) << 2 | (uint32_t)(mask->parent_id != 0) << 3 |
	       (uint32_t)(mask->selectors != 0) << 4 | (uint32_t)(mask->x509_svid_ttl != 0) << 5 |
	       (uint32_t)(mask->federates_with != 0) << 6 | (uint32_t)(mask->admin != 0) << 7 |
	       (uint32_t)(mask->downstream != 0) << 8 | (uint32_t)(mask->expires_at != 0) << 9 |
	       (uint32_t)(mask->dns_names != 0) << 10 | (uint32_t)(mask->revision_number != 0) << 11 |
	       (uint32_t)(mask->store_svid != 0) << 12 | (uint32_t)(mask->jwt_svid_ttl != 0) << 13 |
	       (uint32_t)(mask->hint != 0) << 14 | (uint32_t)(mask->created_at != 0) << 15 |
	       (uint32_t)(mask->additional_attributes != 0) << 16;
}

uint32_t mask_of_bundle(const Pb__BundleMask *mask)
{
	if (mask == NULL)
		return (uint32_t)MASK_ALL;
	return 1u << 1 | (uint32_t)(mask->x509_authorities != 0) << 2 | (uint32_t)(mask->jwt_authorities != 0) << 3 |
	       (uint32_t)(mask->refresh_hint != 0) << 4 | (uint32_t)(mask->sequence_number != 0) << 5;
}

/* The mask's numbers are not those of the message here; the profile is fields 3 and 4. */
uint32_t mask_of_relationship(const Pb__FederationRelationshipMask *mask)
{
	if (mask == NULL)
		return (uint32_t)MASK_ALL;
	return 1u << 1 | (uint32_t)(mask->bundle_endpoint_url != 0) << 2 |
	       (mask->bundle_endpoint_profile ? 1u << 3 | 1u << 4 : 0) |
	       (uint32_t)(mask->trust_domain_bundle != 0) << 5;
}

void mask_entry(Pb__Entry *entry, uint32_t set)
{
	if (!mask_has(set, 2))
		entry->spiffe_id = NULL;
	if (!mask_has(set, 3))
		entry->parent_id = NULL;
	if (!mask_has(set, 4))
		entry->n_selectors = 0;
	if (!mask_has(set, 5))
		entry->x509_svid_ttl = 0;
	if (!mask_has(set, 6))
		entry->n_federates_with = 0;
	entry->admin = entry->admin && mask_has(set, 7);
	entry->downstream = entry->downstream && mask_has(set, 8);
	if (!mask_has(set, 9))
		entry->expires_at = 0;
	if (!mask_has(set, 10))
		entry->n_dns_names = 0;
	if (!mask_has(set, 11))
		entry->revision_number = 0;
	entry->store_svid = entry->store_svid && mask_has(set, 12);
	if (!mask_has(set, 13))
		entry->jwt_svid_ttl = 0;
	if (!mask_has(set, 14))
		entry->hint = "";
	if (!mask_has(set, 15))
		entry->created_at = 0;
	if (!mask_has(set, 16))
		entry->additional_attributes = NULL;
}

void mask_bundle(Pb__Bundle *bundle, uint32_t set)
{
	if (!mask_has(set, 2))
		bundle->n_x509_authorities = 0;
	if (!mask_has(set, 3))
		bundle->n_jwt_authorities = 0;
	if (!mask_has(set, 4))
		bundle->refresh_hint = 0;
	if (!mask_has(set, 5))
		bundle->sequence_number = 0;
}

void mask_relationship(Pb__FederationRelationship *relationship, uint32_t set)
{
	if (!mask_has(set, 2))
		relationship->bundle_endpoint_url = "";
	if (!mask_has(set, 3))
		relationship->bundle_endpoint_profile_case =
			PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE__NOT_SET;
	if (!mask_has(set, 5))
		relationship->trust_domain_bundle = NULL;
}

/* --- encoded messages --- */

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
	uint64_t value = 0;

	if (*at < end && **at < 0x80) { /* nearly all of them */
		*out = *(*at)++;
		return true;
	}
	for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
		uint8_t byte = *(*at)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return true;
		}
	}
	return false;
}

/* Passes one field: its number (0 for what is none) and its value, or for bytes their length; *at is behind it. */
static unsigned pass_field(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	uint64_t key;

	if (!read_varint(at, end, &key) || key >> 3 == 0 || key >> 3 > 31)
		return 0;
	switch (key & 7) {
	case 0:
		if (!read_varint(at, end, value))
			return 0;
		break;
	case 2:
		if (!read_varint(at, end, value) || *value > (uint64_t)(end - *at))
			return 0;
		*at += *value;
		break;
	default: /* fixed-width and group fields: no message of ours has any */
		return 0;
	}
	return (unsigned)(key >> 3);
}

enum { RUNS_MAX = 32 }; /* fields come in order, so a run ends at most once a number */

struct runs {
	struct span runs[RUNS_MAX];
	unsigned n;
	size_t len;
};

static bool find_runs(struct span message, uint32_t set, struct runs *out)
{
	const uint8_t *at = message.data, *end = message.data + message.len, *start = NULL;

	out->n = 0;
	out->len = 0;
	if (set == (uint32_t)MASK_ALL) {
		out->runs[out->n++] = message;
		out->len = message.len;
		return true;
	}
	while (at < end) {
		const uint8_t *field = at;
		uint64_t value;
		unsigned number = pass_field(&at, end, &value);

		if (number == 0)
			return false;
		if (mask_has(set, number)) {
			if (start == NULL)
				start = field;
		} else if (start != NULL) {
			if (out->n == RUNS_MAX - 1)
				return false;
			out->runs[out->n++] = (struct span){ start, (size_t)(field - start) };
			out->len += (size_t)(field - start);
			start = NULL;
		}
	}
	if (start != NULL) {
		out->runs[out->n++] = (struct span){ start, (size_t)(end - start) };
		out->len += (size_t)(end - start);
	}
	return true;
}

/* Into memory that has been reserved. */
static uint8_t *put_varint(uint8_t *to, uint64_t value)
{
	while (value >= 0x80) {
		*to++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*to++ = (uint8_t)value;
	return to;
}

static uint8_t *put_runs(uint8_t *to, const struct runs *runs)
{
	for (unsigned i = 0; i < runs->n; i++) {
		if (runs->runs[i].len > 0) /* an empty message may have no address */
			memcpy(to, runs->runs[i].data, runs->runs[i].len);
		to += runs->runs[i].len;
	}
	return to;
}

bool mask_copy(struct buf *out, struct span message, uint32_t set)
{
	struct runs runs;

	if (!find_runs(message, set, &runs))
		return false;
	buf_reserve(out, runs.len + 1); /* never no memory at all */
	put_runs(out->data + out->len, &runs);
	out->len += runs.len;
	return true;
}

bool mask_embed(struct buf *out, unsigned number, struct span message, uint32_t set)
{
	struct runs runs;
	uint8_t *to;

	if (!find_runs(message, set, &runs))
		return false;
	buf_reserve(out, runs.len + 11);
	to = out->data + out->len;
	*to++ = (uint8_t)(number << 3 | 2);
	to = put_varint(to, runs.len);
	out->len = (size_t)(put_runs(to, &runs) - out->data);
	return true;
}

bool mask_entry_version(struct span entry, struct entry_version *out)
{
	const uint8_t *at = entry.data, *end = entry.data + entry.len;
	struct entry_version version = { 0 };

	while (at < end) {
		uint64_t value;

		switch (pass_field(&at, end, &value)) {
		case 0:
			return false;
		case 1:
			version.id = (struct span){ at - value, value };
			break;
		case 11:
			version.revision = value;
			break;
		case 15:
			version.created_at = value;
			break;
		default:
			break;
		}
	}
	*out = version;
	return true;
}

void wire_varint(struct buf *out, uint64_t value)
{
	buf_reserve(out, 10);
	out->len = (size_t)(put_varint(out->data + out->len, value) - out->data);
}

void wire_bytes(struct buf *out, unsigned number, const void *data, size_t len)
{
	wire_varint(out, number << 3 | 2);
	wire_varint(out, len);
	buf_append(out, data, len);
}

void wire_text(struct buf *out, unsigned number, const char *text)
{
	if (text[0] != '\0')
		wire_bytes(out, number, text, strlen(text));
}

void wire_number(struct buf *out, unsigned number, uint64_t value)
{
	if (value == 0)
		return;
	wire_varint(out, number << 3);
	wire_varint(out, value);
}
