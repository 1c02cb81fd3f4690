/* SPDX-License-Identifier: Apache-2.0 */
/* Key types, key generation, key ids. */

#include "ca/key.h"

#include "ca/pubkey.h"
#include "ca/signer.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <string.h>
#include <strings.h>

static const char *const type_names[] = {
	[KEY_EC_P256] = "ec-p256",
	[KEY_EC_P384] = "ec-p384",
	[KEY_RSA_2048] = "rsa-2048",
	[KEY_RSA_4096] = "rsa-4096",
};

enum code key_type_parse(const char *text, enum key_type *out, struct err *err)
{
	for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
		if (strcasecmp(text, type_names[i]) == 0) {
			*out = (enum key_type)i;
			return CODE_OK;
		}
	}
	return err_set(err, CODE_INVALID_ARGUMENT,
		       "key type \"%s\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]", text);
}

const char *key_type_name(enum key_type type)
{
	return type_names[type];
}

enum code key_type_of(EVP_PKEY *key, enum key_type *out, struct err *err)
{
	char group[64] = "";

	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		switch (EVP_PKEY_get_bits(key)) {
		case 2048:
			*out = KEY_RSA_2048;
			return CODE_OK;
		case 4096:
			*out = KEY_RSA_4096;
			return CODE_OK;
		}
		return err_set(err, CODE_INVALID_ARGUMENT, "no RSA key type for key bit length: %d",
			       EVP_PKEY_get_bits(key));
	case EVP_PKEY_EC:
		EVP_PKEY_get_group_name(key, group, sizeof group, NULL);
		if (strcmp(group, "prime256v1") == 0)
			*out = KEY_EC_P256;
		else if (strcmp(group, "secp384r1") == 0)
			*out = KEY_EC_P384;
		else
			return err_set(err, CODE_INVALID_ARGUMENT, "no EC key type for EC curve: %s", group);
		return CODE_OK;
	}
	return err_set(err, CODE_INVALID_ARGUMENT, "unexpected private key type %s",
		       EVP_PKEY_get0_type_name(key) == NULL ? "(unknown)" : EVP_PKEY_get0_type_name(key));
}

enum code key_generate(enum key_type type, EVP_PKEY **out, struct err *err)
{
	EVP_PKEY *key = NULL;

	switch (type) {
	case KEY_EC_P256:
		key = EVP_EC_gen("P-256");
		break;
	case KEY_EC_P384:
		key = EVP_EC_gen("P-384");
		break;
	case KEY_RSA_2048:
		key = EVP_RSA_gen(2048);
		break;
	case KEY_RSA_4096:
		key = EVP_RSA_gen(4096);
		break;
	}
	if (key == NULL)
		return err_crypto(err, CODE_INTERNAL, "failed to generate a key of type %s", key_type_name(type));
	*out = key;
	return CODE_OK;
}

enum code key_public_der(EVP_PKEY *key, struct buf *out, struct err *err)
{
	uint8_t *der = NULL;
	int len = i2d_PUBKEY(key, &der);

	if (len <= 0)
		return err_crypto(err, CODE_INTERNAL, "cannot encode the public key");
	buf_append(out, der, (size_t)len);
	OPENSSL_free(der);
	return CODE_OK;
}

enum code key_subject_key_id(EVP_PKEY *key, uint8_t out[20], struct err *err)
{
	OWN_BUF der = { 0 };
	struct span bits;
	uint8_t digest[EVP_MAX_MD_SIZE];

	TRY(key_public_der(key, &der, err));
	bits = pubkey_bits_of((struct span){ der.data, der.len });
	digest_of(DIGEST_SHA1, bits.data, bits.len, digest);
	memcpy(out, digest, 20);
	return CODE_OK;
}
