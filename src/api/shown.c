/* SPDX-License-Identifier: Apache-2.0 */
/* The present keyring's server certificate as TLS wants it. */
#include "api/shown.h"

#include "base/log.h"

struct identity *shown_identity(void *ctx)
{
	struct shown *shown = ctx;
	OWN_STRUCT(keyring) keyring = keyring_current(shown->slot);
	struct identity *identity;
	struct err err = { 0 };

	if (keyring == NULL || keyring->server_key == NULL)
		return NULL;
	if (keyring != shown->keyring) {
		if (identity_new(keyring->server_key, keyring->server_chain, keyring->n_server_chain, &identity,
				 &err) != CODE_OK) {
			log_error("Cannot show the server's certificate", KV("subsystem_name", "endpoints"),
				  KV("error", err.text));
			return NULL;
		}
		identity_unref(shown->identity);
		shown->identity = identity;
		keyring_unref(shown->keyring);
		shown->keyring = TAKE(keyring);
	}
	return identity_ref(shown->identity);
}

void shown_done(struct shown *shown)
{
	identity_unref(shown->identity);
	keyring_unref(shown->keyring);
}
