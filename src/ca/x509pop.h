/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_X509POP_H
#define CA_X509POP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <stdbool.h>
#include <stdint.h>

/* Node attestor "x509pop" as pure functions (contract server-api.md 7.3): JSON in, JSON out, no socket, no clock. Texts
 * and codes are SPIRE's, without the "nodeattestor(x509pop): " that the caller puts before every attestor's errors. */

struct x509pop_options { /* plugin_data; what is NULL, 0 or false is not configured */
	const char *trust_domain;
	const char *mode;           /* "external_pki" (the default) or "spiffe" */
	const char *spiffe_prefix;  /* mode "spiffe"; default "/spire-exchange" */
	const char *ca_bundle_path; /* one of these two in mode "external_pki" */
	const char *const *ca_bundle_paths;
	size_t n_ca_bundle_paths;
	const char *agent_path_template;
	int max_intermediates; /* default 4 */
	int max_rsa_key_size;  /* bits, default 8192 */
	bool verify_client_ip;
};

/* The configuration and the CA certificates, read once. Immutable afterwards: any number of threads may use it. */
struct x509pop;

/* INVALID_ARGUMENT: options that contradict each other, an unreadable bundle, a template that is not one of ours. */
enum code x509pop_open(const struct x509pop_options *options, struct x509pop **out, struct err *err);
void x509pop_close(struct x509pop *pop); /* NULL is fine */
OWNABLE_STRUCT(x509pop, x509pop_close)

/* Mode "spiffe" verifies against the server's own bundle: x509pop_begin wants its X.509 authorities then. */
bool x509pop_wants_bundle(const struct x509pop *pop);

struct x509pop_input {
	struct span payload;       /* AttestationData.payload */
	const struct span *bundle; /* DER of the trust domain's X.509 authorities; only with x509pop_wants_bundle */
	size_t n_bundle;
	const char *client_ip; /* textual, without port; only with verify_client_ip */
	int64_t now_s;
};

/* One attestation between challenge and response: all of it lies in the arena, nothing to free. */
struct x509pop_attempt;

/* Parses the payload, verifies the chain, makes the challenge (JSON, in the arena). */
enum code x509pop_begin(const struct x509pop *pop, const struct x509pop_input *input, struct arena *arena,
			struct x509pop_attempt **out, struct span *challenge, struct err *err);

struct x509pop_result {
	const char *agent_id;   /* spiffe://<td>/spire/agent/x509pop/... */
	const char **selectors; /* values of type "x509pop", in SPIRE's order, none twice */
	size_t n_selectors;
	bool can_reattest; /* true */
};

/* Checks the response against the challenge and says who the agent is. Results are in the arena of x509pop_begin. */
enum code x509pop_finish(const struct x509pop_attempt *attempt, struct span response, struct x509pop_result *out,
			 struct err *err);

#endif
