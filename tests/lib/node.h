/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_NODE_H
#define TESTS_LIB_NODE_H

#include "api/rotate.h"
#include "bundle.pb-c.h"
#include "ca/key.h"
#include "lib/harness.h"

/* A node that keeps its authorities: a harness, keys in memory, a rotation, and a wall clock that can be moved. */
struct node {
	struct harness *h;
	struct key_manager *keys;
	struct rotation *rotation;
};

struct node node_new(void); /* CAs live for a day, SVIDs for an hour */
void node_free(struct node *node);

/* A start of the server on this state with these keys; the other ends it. `err` is node_err. */
enum code node_start(struct node *node);
void node_rotate(struct node *node); /* rotation_run, on the loop's thread */
void node_end(struct node *node);
void node_run(struct node *node); /* its task, with its timers */
extern struct err node_err;       /* of the last call here that failed */

void node_shift(int64_t ms); /* the wall clock is so far ahead; only while the node is idle */

Pb__Bundle *node_bundle(struct node *node);
const char *node_signer(struct node *node); /* the present X.509 authority's id */

/* LocalAuthority's Activate, Taint, Revoke (`id` in the one field that all requests have), or Prepare (`id` NULL). */
enum code node_act(struct node *node, const char *method, const char *id, void **reply);

#endif
