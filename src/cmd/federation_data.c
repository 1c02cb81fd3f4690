/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/federation_data.h"

#include "api/jwks.h"
#include "base/id.h"
#include "cmd/cli.h"
#include "cmd/convert.h"
#include "cmd/json_read.h"

#include <string.h>

const char federation_pem_format[] = "pem";

struct item_data {
	const char *trust_domain, *url, *profile, *endpoint_id, *bundle_format;
	const struct json *bundle; /* a string (pem) or an object (spiffe) */
};

static const struct json_field item_fields[] = {
	{ "trustDomain", JSON_READ_STRING, offsetof(struct item_data, trust_domain), NULL },
	{ "bundleEndpointURL", JSON_READ_STRING, offsetof(struct item_data, url), NULL },
	{ "bundleEndpointProfile", JSON_READ_STRING, offsetof(struct item_data, profile), NULL },
	{ "endpointSPIFFEID", JSON_READ_STRING, offsetof(struct item_data, endpoint_id), NULL },
	{ "trustDomainBundle", JSON_READ_ANY, offsetof(struct item_data, bundle), NULL },
	{ "trustDomainBundleFormat", JSON_READ_STRING, offsetof(struct item_data, bundle_format), NULL },
	{ 0 },
};
static const struct json_shape item_shape = { "federation", "federationRelationshipConfig", sizeof(struct item_data),
					      item_fields };

static const struct json_field list_fields[] = { { "federationRelationships", JSON_READ_OBJECTS, 0, &item_shape },
						 { 0 } };
static const struct json_shape list_shape = { "federation", "federationRelationships", sizeof(struct json_list),
					      list_fields };

/* *bundle_td: whose bundle it is that comes along. With https_spiffe SPIRE takes the endpoint's own trust domain. */
static enum code read_profile(const char *profile, const char *endpoint_id, struct arena *arena,
			      Pb__FederationRelationship *out, const char **bundle_td, struct err *err)
{
	struct spiffe_id id;

	if (strcmp(profile, "https_web") == 0) {
		out->bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB;
		out->https_web = arena_alloc(arena, sizeof *out->https_web);
		pb__httpsweb_profile__init(out->https_web);
		return CODE_OK;
	}
	if (strcmp(profile, "https_spiffe") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unknown bundle endpoint profile type: %s",
			       cli_quote(arena, profile));
	if (endpoint_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set");
	if (id_parse(endpoint_id, arena, &id, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "cannot parse bundle endpoint SPIFFE ID");
	*bundle_td = id.td;
	out->bundle_endpoint_profile_case = PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE;
	out->https_spiffe = arena_alloc(arena, sizeof *out->https_spiffe);
	pb__httpsspiffeprofile__init(out->https_spiffe);
	out->https_spiffe->endpoint_spiffe_id = endpoint_id;
	return CODE_OK;
}

/* All but the bundle. */
static enum code read_relationship(const char *trust_domain, const char *url, const char *profile,
				   const char *endpoint_id, struct arena *arena,
				   Pb__FederationRelationship **relationship, const char **bundle_td, struct err *err)
{
	Pb__FederationRelationship *out = arena_alloc(arena, sizeof *out);

	if (trust_domain[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "trust domain is required");
	if (url[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "bundle endpoint URL is required");
	pb__federation_relationship__init(out);
	out->trust_domain = *bundle_td = trust_domain;
	out->bundle_endpoint_url = url;
	*relationship = out;
	return read_profile(profile, endpoint_id, arena, out, bundle_td, err);
}

/* Any word but "pem" is read as spiffe; without one the form is found from the content. */
static enum code bundle_from_path(const struct relationship_flags *flags, const char *td, struct arena *arena,
				  Pb__Bundle **out, struct err *err)
{
	enum bundle_format format = strcmp(flags->bundle_format, "pem") == 0 ? BUNDLE_PEM : BUNDLE_SPIFFE;
	struct span text;

	if (flags->bundle_format == federation_pem_format)
		format = BUNDLE_ANY;
	if (cli_read_file(flags->bundle_path, arena, &text, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "cannot read bundle file");
	if (convert_bundle((const char *)text.data, text.len, format, td, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "cannot parse bundle file");
	return CODE_OK;
}

static enum code from_flags(const struct relationship_flags *flags, struct arena *arena,
			    Pb__FederationRelationship **out, struct err *err)
{
	const char *td;

	TRY(read_relationship(flags->trust_domain, flags->url, flags->profile, flags->endpoint_id, arena, out, &td,
			      err));
	if (flags->bundle_path[0] != '\0')
		TRY(bundle_from_path(flags, td, arena, &(*out)->trust_domain_bundle, err));
	return CODE_OK;
}

static enum code bundle_from_json(const struct item_data *item, const char *td, struct arena *arena, Pb__Bundle **out,
				  struct err *err)
{
	const struct json *value = item->bundle;
	const char *name;

	if (strcmp(item->bundle_format, "pem") == 0) {
		if (value->kind != JSON_STRING && value->kind != JSON_NULL)
			return err_set(
				err, CODE_INVALID_ARGUMENT,
				"failed to unmarshal json: json: cannot unmarshal %s into Go value of type string",
				json_kind_name(value));
		return convert_bundle(value->kind == JSON_STRING ? value->text : "", value->len, BUNDLE_PEM, td, arena,
				      out, err);
	}
	if (strcmp(item->bundle_format, "spiffe") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "bundle format %s is unsupported",
			       cli_quote(arena, item->bundle_format));
	TRY(id_parse_td(td, arena, &name, err));
	if (jwks_read_json(value, JWKS_GO_SPIFFE, name, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse to spiffe bundle: spiffebundle");
	return CODE_OK;
}

static enum code from_item(const struct item_data *item, struct arena *arena, Pb__FederationRelationship **out,
			   struct err *err)
{
	const char *td;

	if (item == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "missing federation relationship");
	TRY(read_relationship(item->trust_domain, item->url, item->profile, item->endpoint_id, arena, out, &td, err));
	if (item->bundle != NULL && bundle_from_json(item, td, arena, &(*out)->trust_domain_bundle, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "cannot parse bundle raw message");
	return CODE_OK;
}

static enum code from_file(const char *path, struct arena *arena, Pb__FederationRelationship ***out, size_t *n,
			   struct err *err)
{
	Pb__FederationRelationship **all;
	struct json_list list;
	struct span text;

	TRY(cli_read_file(path, arena, &text, err));
	if (json_read((const char *)text.data, text.len, &list_shape, &list, arena, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to parse JSON");
	all = arena_alloc(arena, list.n * sizeof *all);
	for (size_t i = 0; i < list.n; i++)
		if (from_item(list.items[i], arena, &all[i], err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "could not parse item %zu", i);
	*out = all;
	*n = list.n;
	return CODE_OK;
}

static bool no_flags(const struct relationship_flags *flags)
{
	return flags->trust_domain[0] == '\0' && flags->url[0] == '\0' && flags->profile[0] == '\0' &&
	       flags->endpoint_id[0] == '\0' && flags->bundle_path[0] == '\0' &&
	       strcmp(flags->bundle_format, "pem") == 0;
}

enum code relationships_read(const struct relationship_flags *flags, const char *data, struct arena *arena,
			     Pb__FederationRelationship ***out, size_t *n, struct err *err)
{
	if (data[0] != '\0') {
		if (!no_flags(flags))
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "cannot use other flags to specify relationship fields when 'data' flag is set");
		return from_file(data, arena, out, n, err);
	}
	*out = arena_alloc(arena, sizeof **out);
	*n = 1;
	return from_flags(flags, arena, *out, err);
}
