/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_API_SERVER_H
#define TESTS_LIB_API_SERVER_H

#include "api/client.h"
#include "lib/harness.h"

/* A whole server for the transport's tests: the harness' state behind serve.c's sockets on loopback, with an authority,
 * a server certificate, and spiffe://example.org/admin as an admin. The accept loop has a thread of its own. */
struct api_server {
	struct harness *h;
	char socket[128];
	char tcp[32]; /* "127.0.0.1:PORT" */
	struct api_server_life *life;
};

struct api_server *api_server_open(void);
void api_server_close(struct api_server *server); /* stops gracefully first */
void api_server_stop(struct api_server *server);  /* only that; close comes later */

/* serve_tcp. Ends the test if it fails. */
void api_server_tcp(struct api_server *server, bool open);

/* A new server certificate of the present authority, with a key of its own. */
void api_server_rotate(struct api_server *server, int64_t ttl_s);

/* A client certificate of the authority (`id`), for client_open. Lives until the server is closed. */
struct api_identity {
	EVP_PKEY *key;
	struct span cert;
	const char *serial;
};
struct api_identity api_server_identity(struct api_server *server, const char *id, int64_t ttl_s);

/* Clients: over the socket; over TLS, without (NULL) or with a certificate. End the test when they fail. */
struct client *api_server_local(struct api_server *server);
struct client *api_server_tls(struct api_server *server, const struct api_identity *identity);

#endif
