/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_WORKLOAD_API_H
#define TESTS_LIB_WORKLOAD_API_H

#include "base/err.h"
#include "workload.pb-c.h"

/* An agent's Workload API as far as FetchX509SVID goes, on a socket and a thread of its own, for one client at a time:
 * every stream gets what was given last, and again whenever something is given. Until the first time, streams stay open
 * without an answer. */
struct workload_api;

struct workload_api *workload_api_open(const char *path);
void workload_api_close(struct workload_api *api);
void workload_api_give(struct workload_api *api, const Pb__WorkloadX509SVIDResponse *answer);
void workload_api_give_bytes(struct workload_api *api, const void *data, size_t len); /* whatever they are */
/* Streams, open ones too, end with this status until something is given. */
void workload_api_refuse(struct workload_api *api, enum code code);
unsigned workload_api_streams(struct workload_api *api);  /* opened so far */
unsigned workload_api_headless(struct workload_api *api); /* of them without "workload.spiffe.io: true" */

#endif
