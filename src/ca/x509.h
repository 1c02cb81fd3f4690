/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_X509_H
#define CA_X509_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "ca/keyring.h"

/* X.509-SVIDs and CA certificates, byte for byte as SPIRE lays them out (contract server-api.md 5.1 to 5.4), written as
 * DER directly. A slow reference encoder through OpenSSL's X509 API stands in the tests and must give the same bytes.
 */

enum { SERIAL_TEXT_MAX = 64 }; /* 20 octets are up to 49 digits (RFC 5280); some have more */

struct x509_svid {
	struct span cert;             /* DER, in the arena */
	char serial[SERIAL_TEXT_MAX]; /* decimal */
	int64_t not_before_s, not_after_s;
};

struct x509_request {
	const char *kind;             /* "agent", "server"; NULL: "workload". For error texts */
	const char *spiffe_id;        /* the URI SAN */
	struct span spki;             /* the subject's SubjectPublicKeyInfo, DER */
	struct span subject;          /* Name, DER, already filtered (x509_filter_subject); no bytes: C=US, O=SPIRE */
	const char *const *dns_names; /* the first one becomes the CN */
	size_t n_dns_names;
	int64_t ttl_s;  /* > 0 */
	int64_t now_s;  /* notBefore = now - 10 s, notAfter = min(now + ttl, the authority's) */
	bool unique_id; /* CredentialComposer "uniqueid": x500UniqueIdentifier in the subject */
};

/* A leaf for a workload, an agent or the server: they differ in id, names and TTL alone. INTERNAL: no authority (NULL),
 * or it has expired, or a DNS name that is not ASCII; texts follow SPIRE's "failed to sign X509-SVID: ". */
enum code x509_issue(const struct x509_authority *authority, const struct x509_request *request, struct arena *arena,
		     struct x509_svid *out, struct err *err);

/* A downstream CA (NewDownstreamX509CA): subject of the signing authority with OU "DOWNSTREAM-<n>". */
enum code x509_issue_downstream(const struct x509_authority *authority, const char *trust_domain, struct span spki,
				int64_t ttl_s, int64_t now_s, struct arena *arena, struct x509_svid *out,
				struct err *err);

struct x509_ca_subject { /* the configured ca_subject */
	const char *const *country;
	size_t n_country;
	const char *const *organization;
	size_t n_organization;
	const char *common_name; /* NULL: none */
};

/* A self-signed CA certificate of `key` (5.3): serialNumber attribute, URI SAN of the trust domain, no AKI. */
enum code x509_self_sign(EVP_PKEY *key, const struct x509_ca_subject *subject, const char *trust_domain, int64_t ttl_s,
			 int64_t now_s, struct arena *arena, struct x509_svid *out, struct err *err);

struct signer;

/* A CA certificate below a CA that is not ours (its certificate: `issuer`). `subject` is a Name, DER, taken as it is.
 */
enum code x509_sign_intermediate(const struct signer *signer, struct span issuer, struct span subject, struct span spki,
				 const char *uri, int64_t ttl_s, int64_t now_s, struct arena *arena,
				 struct x509_svid *out, struct err *err);

/* The request for a CA certificate of `key` from an upstream authority (5.3): subject as a self-signed CA's, with a
 * serialNumber of its own, and the URI SAN of the trust domain. DER, in the arena. */
enum code x509_request_ca(EVP_PKEY *key, const struct x509_ca_subject *subject, const char *trust_domain,
			  struct arena *arena, struct span *out, struct err *err);

/* Of a CSR's subject what SPIRE keeps for a minted SVID (C, ST, L, STREET, postalCode, O, OU, CN, serialNumber), in its
 * order and encoding; the CN is replaced at issuing when there are DNS names. Nothing in it: no bytes (the default
 * subject is taken). Nothing but other attributes: an empty Name (the SVID has an empty subject then, as SPIRE's). */
enum code x509_filter_subject(struct span name, struct arena *arena, struct span *out, struct err *err);

/* What the API reads of a certificate that it is given. */
struct x509_facts {
	char serial[SERIAL_TEXT_MAX]; /* decimal */
	int64_t not_before_s, not_after_s;
	const char *uri; /* the first URI SAN, or NULL; in the arena */
	size_t n_uris;
	char subject_key_id[AUTHORITY_ID_MAX]; /* hex, "" if none */
	char authority_key_id[AUTHORITY_ID_MAX];
	struct span key_id; /* the subject key id's octets, in the arena; none: no bytes */
	bool is_ca, key_cert_sign, crl_sign;
};
enum code x509_read(struct span cert, struct arena *arena, struct x509_facts *out, struct err *err);

/* The subject of a certificate that OpenSSL has read before: its Name, DER, inside `cert`. */
enum code x509_find_subject(struct span cert, struct span *out, struct err *err);

/* Splits concatenated certificates (X509Certificate.asn1 may hold several); each is parsed by OpenSSL. None: an error.
 */
enum code x509_split(struct span certs, struct arena *arena, struct span **out, size_t *n, struct err *err);

/* Checks that `der` is a PKIX public key (JWTKey.public_key). */
enum code key_check_pkix(struct span der, struct err *err);

#endif
