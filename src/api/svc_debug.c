/* SPDX-License-Identifier: Apache-2.0 */
/* Debug: what the server is about, for the local socket (contract server-api.md 4.7). */
#include "api/convert.h"
#include "api/server.h"
#include "api/svc.h"
#include "base/clock.h"
#include "ca/x509.h"
#include "debug.pb-c.h"

#include <openssl/x509.h>
#include <string.h>

OWNABLE(X509, X509_free)
OWNABLE(BIO, BIO_free_all)

/* The subject as Go's pkix.Name prints it: RFC 2253 with the serial number's name in capitals. */
static const char *subject_text(struct call *call, struct span der)
{
	const uint8_t *at = der.data;
	OWN(X509) cert = d2i_X509(NULL, &at, (long)der.len);
	OWN(BIO) out = BIO_new(BIO_s_mem());
	char *text, *serial;
	long len;

	if (cert == NULL || out == NULL || X509_NAME_print_ex(out, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) < 0)
		return "";
	len = BIO_get_mem_data(out, &text);
	text = arena_strndup(call->arena, text, (size_t)len);
	if ((serial = strstr(text, "serialNumber=")) != NULL)
		memcpy(serial, "SERIALNUMBER", strlen("SERIALNUMBER"));
	return text;
}

static enum code add_cert(struct call *call, struct span der, Pb__GetInfoResponse *reply)
{
	Pb__GetInfoResponse__Cert *cert = pb_new(&pb__get_info_response__cert__descriptor, call->arena);
	struct x509_facts facts;

	TRY(x509_read(der, call->arena, &facts, call->err));
	if (facts.n_uris == 1 && strncmp(facts.uri, "spiffe://", strlen("spiffe://")) == 0)
		cert->id = id_to_proto(call->arena, facts.uri);
	cert->expires_at = facts.not_after_s;
	cert->subject = subject_text(call, der);
	reply->svid_chain[reply->n_svid_chain++] = cert;
	return CODE_OK;
}

/* The server's certificate up to and including the root, which must be one that the bundle still has. */
static enum code add_chain(struct call *call, struct view *view, Pb__GetInfoResponse *reply)
{
	OWN_STRUCT(keyring) keyring = keyring_current(call->server->keyring);
	struct x509_facts last = { 0 }, root;
	Pb__Bundle *bundle;

	if (view_bundle(view, call->server->td, call->arena, &bundle, call->err) != CODE_OK)
		return err_set(call->err, CODE_NOT_FOUND, "trust domain bundle not found");
	if (keyring == NULL)
		return err_set(call->err, CODE_INTERNAL, "failed verification against bundle: the server has no SVID yet");
	reply->svid_chain = arena_alloc(call->arena, (1 + keyring->n_server_chain) * sizeof *reply->svid_chain);
	for (size_t i = 0; i < keyring->n_server_chain; i++) {
		TRY(x509_read(keyring->server_chain[i], call->arena, &last, call->err));
		TRY(add_cert(call, keyring->server_chain[i], reply));
	}
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		struct span der = { bundle->x509_authorities[i]->asn1.data, bundle->x509_authorities[i]->asn1.len };

		TRY(x509_read(der, call->arena, &root, call->err));
		if (strcmp(root.subject_key_id, last.authority_key_id) == 0)
			return add_cert(call, der, reply);
	}
	return err_set(call->err, CODE_INTERNAL,
		       "failed verification against bundle: x509svid: could not verify leaf certificate: x509: certificate signed by "
		       "unknown authority");
}

enum code debug_get_info(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	Pb__GetInfoResponse *out = reply;
	const struct agent_filter agents = AGENT_FILTER_ALL;
	const struct entry_filter entries = { 0 };
	OWN_STRUCT(view) view = NULL;
	uint64_t n;

	TRY(call_view(call, &view));
	if (view_agent_count(view, &agents, &n, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count agents");
	out->agents_count = (int32_t)n;
	if (view_entry_count(view, &entries, &n, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count entries");
	out->entries_count = (int32_t)n;
	if (view_bundle_count(view, &n, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count bundles");
	out->federated_bundles_count = (int32_t)n;
	out->uptime = (int32_t)((clock_mono_ms() - call->server->started_ms) / 1000);
	return add_chain(call, view, out);
}
