/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_SERVER_H
#define API_SERVER_H

#include "base/config.h"
#include "base/list.h"
#include "base/loop.h"
#include "ca/keyring.h"
#include "raft/replica.h"
#include "store/view.h"

#include <stdatomic.h>

/* What all loops of a server share. Filled by cmd/run.c in order; nothing in it changes while loops run but what says
 * so. */
struct refresher;
struct rotation;
struct state;
struct x509pop;
struct upstream_disk;
struct parent;

struct server {
	const struct config *config;
	const char *td;         /* the trust domain's name */
	const char *server_id;  /* spiffe://<td>/spire/server */
	const char *node;       /* this node's id: whose CA journal is ours */
	const char *state_path; /* the SQLite file that readers open */
	struct replica *replica;
	struct keyring_slot *keyring; /* what signs now */
	struct rotation *rotation;    /* api/rotate.h: prepares, activates, prunes */
	struct state *state;          /* api/state.h: may it answer; NULL: no cluster {} block */
	struct refresher *refresher;  /* api/refresh.h: fetches the bundles of other trust domains; NULL in tests */
	struct x509pop *x509pop;      /* NULL: not configured */
	struct upstream_disk *upstream_disk; /* UpstreamAuthority "disk"; NULL: not configured. The rotation's alone */
	struct parent *parent;               /* UpstreamAuthority "spire"; NULL: not configured */
	struct limiters *limiters;           /* api/limit.h: the token buckets */
	int64_t started_ms;                  /* clock_mono_ms */
	enum log_level launch_level;
	atomic_bool stopping; /* /ready says so first */
};

/* One of the loops that serve: what belongs to its thread alone. */
struct api_loop {
	struct server *server;
	struct loop *loop;
	struct reader *reader;
	struct trust_cache *trust; /* api/auth.c: parsed bundles */
	struct conn_pool *pool;    /* net/conn.h */
	struct slab *slab;         /* net/slab.h: buffers of HTTP/2 sessions */
	struct link conns;         /* of struct grpc_conn */
	atomic_size_t n_tcp, n_local; /* in `conns`: any thread may look */
};

#endif
