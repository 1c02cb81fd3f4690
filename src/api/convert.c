/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions that several services share. */
#include "api/convert.h"

#include <openssl/evp.h>
#include <string.h>
#include <time.h>

Pb__Status *status_new(struct arena *arena, enum code code, const struct err *err)
{
	Pb__Status *status = pb_new(&pb__status__descriptor, arena);

	status->code = (int32_t)code;
	status->message = code == CODE_OK ? "OK" : arena_strdup(arena, err->text);
	return status;
}

Pb__X509SVID *svid_to_proto(struct call *call, const struct x509_authority *signer, const struct x509_svid *svid, const char *td,
			    const char *path)
{
	Pb__X509SVID *out = pb_new(&pb__x509_svid__descriptor, call->arena);

	out->n_cert_chain = 1 + signer->n_upstream;
	out->cert_chain = arena_alloc(call->arena, out->n_cert_chain * sizeof *out->cert_chain);
	out->cert_chain[0] = (ProtobufCBinaryData){ .len = svid->cert.len, .data = (uint8_t *)svid->cert.data };
	for (size_t i = 0; i < signer->n_upstream; i++) /* the keyring may be gone before the answer is encoded */
		out->cert_chain[1 + i] = (ProtobufCBinaryData){
			.len = signer->upstream[i].len,
			.data = arena_memdup(call->arena, signer->upstream[i].data, signer->upstream[i].len),
		};
	out->id = pb_new(&pb__spiffeid__descriptor, call->arena);
	out->id->trust_domain = td;
	out->id->path = path;
	out->expires_at = svid->not_after_s;
	return out;
}

enum code selectors_check(Pb__Selector *const *selectors, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (selectors[i]->type[0] == '\0')
			return err_set(err, CODE_INVALID_ARGUMENT, "missing selector type");
		if (strchr(selectors[i]->type, ':') != NULL)
			return err_set(err, CODE_INVALID_ARGUMENT, "selector type contains ':'");
		if (selectors[i]->value[0] == '\0')
			return err_set(err, CODE_INVALID_ARGUMENT, "missing selector value");
	}
	return CODE_OK;
}

enum code page_token_parse(const char *token, uint64_t *seq, struct err *err)
{
	uint64_t number = 0;

	for (const char *c = token; *c != '\0'; c++) {
		if (*c < '0' || *c > '9' || (number = number * 10 + (uint64_t)(*c - '0')) > UINT32_MAX)
			return err_set(err, CODE_INTERNAL, "could not parse token '%s'", token);
	}
	*seq = number;
	return CODE_OK;
}

Pb__SPIFFEID *id_to_proto(struct arena *arena, const char *text)
{
	Pb__SPIFFEID *id = pb_new(&pb__spiffeid__descriptor, arena);
	const char *td = text + strlen("spiffe://"), *path = strchrnul(td, '/');

	id->trust_domain = arena_strndup(arena, td, (size_t)(path - td));
	id->path = arena_strdup(arena, path);
	return id;
}

const char *audit_sha256(struct arena *arena, const void *data, size_t len)
{
	uint8_t digest[32];
	unsigned n = sizeof digest;
	OWN_BUF hex = { 0 };

	if (EVP_Digest(data, len, digest, &n, EVP_sha256(), NULL) != 1)
		return "";
	buf_hex(&hex, digest, sizeof digest);
	return arena_strdup(arena, buf_text(&hex));
}

const char *audit_id(struct arena *arena, const Pb__SPIFFEID *id)
{
	return arena_printf(arena, "spiffe://%s%s", id->trust_domain, id->path);
}

const char *audit_td(struct arena *arena, const char *td)
{
	return arena_printf(arena, "spiffe://%s", td);
}

const char *audit_time(struct arena *arena, int64_t unix_s)
{
	time_t when = (time_t)unix_s;
	struct tm tm;
	char text[32];

	gmtime_r(&when, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return arena_strdup(arena, text);
}
