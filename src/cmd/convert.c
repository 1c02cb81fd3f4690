/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/convert.h"

#include "api/jwks.h"
#include "api/pem.h"
#include "base/id.h"

#include <string.h>

enum code convert_id(const char *text, struct arena *arena, Pb__SPIFFEID **out, struct err *err)
{
	struct spiffe_id id;

	TRY(id_parse(text, arena, &id, err));
	*out = arena_alloc(arena, sizeof **out);
	pb__spiffeid__init(*out);
	(*out)->trust_domain = id.td;
	(*out)->path = id.path;
	return CODE_OK;
}

enum code convert_selector(const char *text, struct arena *arena, Pb__Selector **out, struct err *err)
{
	const char *colon = strchr(text, ':');

	if (colon == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "selector \"%s\" must be formatted as type:value", text);
	*out = arena_alloc(arena, sizeof **out);
	pb__selector__init(*out);
	(*out)->type = arena_strndup(arena, text, (size_t)(colon - text));
	(*out)->value = colon + 1;
	return CODE_OK;
}

enum code convert_selectors(const struct strings *texts, struct arena *arena, Pb__Selector ***out, size_t *n,
			    struct err *err)
{
	Pb__Selector **selectors = arena_alloc(arena, texts->n * sizeof *selectors);

	for (size_t i = 0; i < texts->n; i++)
		TRY(convert_selector(texts->items[i], arena, &selectors[i], err));
	*out = selectors;
	*n = texts->n;
	return CODE_OK;
}

bool convert_match(const char *text, int *out)
{
	static const struct {
		const char *word;
		int number;
	} words[] = {
		{ "exact", PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_EXACT },
		{ "subset", PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUBSET },
		{ "superset", PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUPERSET },
		{ "any", PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_ANY },
	};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(text, words[i].word) == 0) {
			*out = words[i].number;
			return true;
		}
	return false;
}

Pb__BoolValue *convert_bool(bool value, struct arena *arena)
{
	Pb__BoolValue *out = arena_alloc(arena, sizeof *out);

	pb__bool_value__init(out);
	out->value = value;
	return out;
}

/* The trust domain goes to the server as it was typed: the server reads names and SPIFFE IDs. */
static enum code from_pem(const char *text, size_t len, const char *id, struct arena *arena, Pb__Bundle **out,
			  struct err *err)
{
	Pb__Bundle *bundle = arena_alloc(arena, sizeof *bundle);
	struct span *certs;
	size_t n;

	if (pem_read_certs(text, len, arena, &certs, &n, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse bundle data");
	pb__bundle__init(bundle);
	bundle->trust_domain = id;
	bundle->x509_authorities = arena_alloc(arena, n * sizeof *bundle->x509_authorities);
	for (size_t i = 0; i < n; i++) {
		Pb__X509Certificate *cert = arena_alloc(arena, sizeof *cert);

		pb__x509_certificate__init(cert);
		cert->asn1.data = (uint8_t *)certs[i].data;
		cert->asn1.len = certs[i].len;
		bundle->x509_authorities[bundle->n_x509_authorities++] = cert;
	}
	*out = bundle;
	return CODE_OK;
}

static enum code from_jwks(const char *text, size_t len, const char *id, struct arena *arena, Pb__Bundle **out,
			   struct err *err)
{
	const char *td;

	TRY(id_parse_td(id, arena, &td, err));
	if (jwks_read(text, len, JWKS_GO_SPIFFE, td, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse to spiffe bundle: spiffebundle");
	return CODE_OK;
}

static bool is_object(const char *text, size_t len)
{
	size_t i = 0;

	while (i < len && strchr(" \t\r\n", text[i]) != NULL && text[i] != '\0')
		i++;
	return i < len && text[i] == '{';
}

enum code convert_bundle(const char *text, size_t len, enum bundle_format format, const char *id, struct arena *arena,
			 Pb__Bundle **out, struct err *err)
{
	if (format == BUNDLE_ANY)
		format = is_object(text, len) ? BUNDLE_SPIFFE : BUNDLE_PEM;
	if (format == BUNDLE_PEM)
		return from_pem(text, len, id, arena, out, err);
	return from_jwks(text, len, id, arena, out, err);
}
