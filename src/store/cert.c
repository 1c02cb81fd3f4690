/* SPDX-License-Identifier: Apache-2.0 */
/* The two facts about X.509 authorities that the state machine decides by: until when, and which key. */
#include "store/state.h"

#include "base/own.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

OWNABLE(X509, X509_free)

/* The next certificate of a chain, NULL at its end and for what is none. */
static X509 *cert_next(struct span *chain)
{
	const unsigned char *at = chain->data;
	X509 *cert = chain->len == 0 ? NULL : d2i_X509(NULL, &at, (long)chain->len);

	if (cert == NULL) {
		ERR_clear_error();
		return NULL;
	}
	chain->len -= (size_t)(at - chain->data);
	chain->data = at;
	return cert;
}

static bool cert_active(const X509 *cert, int64_t now_s)
{
	struct tm end;
	int64_t end_s;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &end) != 1)
		return false;
	end_s = timegm(&end);
	return end_s > now_s;
}

bool cert_all_active(struct span chain, int64_t now_s)
{
	if (chain.len == 0)
		return true; /* nothing that could have ended */
	while (chain.len > 0) {
		OWN(X509) cert = cert_next(&chain);

		if (cert == NULL)
			return true; /* not ours to judge */
		if (!cert_active(cert, now_s))
			return false;
	}
	return true;
}

bool cert_has_subject_key_id(struct span chain, const char *hex)
{
	OWN(X509) cert = cert_next(&chain);
	const ASN1_OCTET_STRING *id = cert == NULL ? NULL : X509_get0_subject_key_id(cert);
	OWN_BUF text = { 0 };

	if (id == NULL)
		return false;
	buf_hex(&text, ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id));
	return strcmp(buf_text(&text), hex) == 0;
}
