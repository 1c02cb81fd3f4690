/* SPDX-License-Identifier: Apache-2.0 */
/* The table of RPCs: SPIRE 1.13.3's surface (contract server-api.md 2.3), besides PostStatus for agents as from 1.14 on.
 * One row an RPC: who may call it, what answers it, what goes in and out. The rows of a service stand together. */
#include "api/route.h"

#include "agent.pb-c.h"
#include "api/svc.h"
#include "base/metric.h"
#include "bundle.pb-c.h"
#include "cluster.pb-c.h"
#include "debug.pb-c.h"
#include "entry.pb-c.h"
#include "health.pb-c.h"
#include "localauthority.pb-c.h"
#include "logger.pb-c.h"
#include "svid.pb-c.h"
#include "trustdomain.pb-c.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#define AGENT "spire.api.server.agent.v1.Agent"
#define BUNDLE "spire.api.server.bundle.v1.Bundle"
#define ENTRY "spire.api.server.entry.v1.Entry"
#define SVID "spire.api.server.svid.v1.SVID"
#define TRUST_DOMAIN "spire.api.server.trustdomain.v1.TrustDomain"
#define AUTHORITY "spire.api.server.localauthority.v1.LocalAuthority"
#define DEBUG "spire.api.server.debug.v1.Debug"
#define LOGGER "spire.api.server.logger.v1.Logger"
#define HEALTH "grpc.health.v1.Health"
#define CLUSTER NAME ".cluster.v1.Cluster"

enum { TCP = 1, UDS_ONLY = 0 };        /* which listeners carry it */
enum { AUDIT_CALL = 1, AUDIT_NOT = 0 }; /* has the call a record of its own when it succeeds */
enum {
	ANYONE = WHO_ANY,
	LOCAL = WHO_LOCAL,
	ADMINS = WHO_LOCAL | WHO_ADMIN,
	AGENTS = WHO_AGENT,
	READERS = WHO_LOCAL | WHO_ADMIN | WHO_AGENT,
	DOWNSTREAM = WHO_DOWNSTREAM,
	OPERATORS = WHO_LOCAL | WHO_OPERATOR,
	ONLOOKERS = WHO_LOCAL | WHO_ADMIN | WHO_OPERATOR,
};

/* clang-format off */
#define ROW(service, method, who, tcp, read, audit, unary, stream, in, out)                                            \
	{ service, method, who, tcp, read, audit, unary, stream, &pb__##in##__descriptor, &pb__##out##__descriptor,           \
	  "/" service "/" method }
#define UNARY(service, method, who, tcp, audit, run, in, out) ROW(service, method, who, tcp, 0, audit, run, NULL, in, out)
#define READ(service, method, who, tcp, audit, run, in, out) ROW(service, method, who, tcp, 1, audit, run, NULL, in, out)
#define STREAM(service, method, who, tcp, audit, run, in, out) ROW(service, method, who, tcp, 0, audit, NULL, run, in, out)
#define ABSENT(service, method, who, tcp, in, out) ROW(service, method, who, tcp, 0, AUDIT_NOT, NULL, NULL, in, out)

const struct route routes[] = {
	READ(AGENT, "CountAgents", ADMINS, TCP, AUDIT_CALL, agent_count, count_agents_request, count_agents_response),
	READ(AGENT, "ListAgents", ADMINS, TCP, AUDIT_CALL, agent_list, list_agents_request, list_agents_response),
	READ(AGENT, "GetAgent", ADMINS, TCP, AUDIT_CALL, agent_get, get_agent_request, agent),
	UNARY(AGENT, "DeleteAgent", ADMINS, TCP, AUDIT_CALL, agent_delete, delete_agent_request, empty),
	UNARY(AGENT, "BanAgent", ADMINS, TCP, AUDIT_CALL, agent_ban, ban_agent_request, empty),
	UNARY(AGENT, "CreateJoinToken", ADMINS, TCP, AUDIT_CALL, agent_create_join_token, create_join_token_request, join_token),
	STREAM(AGENT, "AttestAgent", ANYONE, TCP, AUDIT_CALL, agent_attest, attest_agent_request, attest_agent_response),
	UNARY(AGENT, "RenewAgent", AGENTS, TCP, AUDIT_CALL, agent_renew, renew_agent_request, renew_agent_response),
	UNARY(AGENT, "PostStatus", AGENTS, TCP, AUDIT_CALL, agent_post_status, post_status_request, post_status_response),

	READ(BUNDLE, "CountBundles", ADMINS, TCP, AUDIT_CALL, bundle_count, count_bundles_request, count_bundles_response),
	UNARY(BUNDLE, "GetBundle", ANYONE, TCP, AUDIT_CALL, bundle_get_own, get_bundle_request, bundle),
	UNARY(BUNDLE, "AppendBundle", ADMINS, TCP, AUDIT_CALL, bundle_append, append_bundle_request, bundle),
	UNARY(BUNDLE, "PublishJWTAuthority", DOWNSTREAM, TCP, AUDIT_CALL, bundle_publish_jwt,
	      publish_jwtauthority_request, publish_jwtauthority_response),
	READ(BUNDLE, "ListFederatedBundles", ADMINS, TCP, AUDIT_CALL, bundle_list_federated,
	      list_federated_bundles_request, list_federated_bundles_response),
	READ(BUNDLE, "GetFederatedBundle", READERS, TCP, AUDIT_CALL, bundle_get_federated, get_federated_bundle_request, bundle),
	UNARY(BUNDLE, "BatchCreateFederatedBundle", ADMINS, TCP, AUDIT_NOT, bundle_create_federated,
	      batch_create_federated_bundle_request, batch_create_federated_bundle_response),
	UNARY(BUNDLE, "BatchUpdateFederatedBundle", ADMINS, TCP, AUDIT_NOT, bundle_update_federated,
	      batch_update_federated_bundle_request, batch_update_federated_bundle_response),
	UNARY(BUNDLE, "BatchSetFederatedBundle", ADMINS, TCP, AUDIT_NOT, bundle_set_federated,
	      batch_set_federated_bundle_request, batch_set_federated_bundle_response),
	UNARY(BUNDLE, "BatchDeleteFederatedBundle", ADMINS, TCP, AUDIT_NOT, bundle_delete_federated,
	      batch_delete_federated_bundle_request, batch_delete_federated_bundle_response),

	READ(ENTRY, "CountEntries", ADMINS, TCP, AUDIT_CALL, entry_count, count_entries_request, count_entries_response),
	READ(ENTRY, "ListEntries", ADMINS, TCP, AUDIT_CALL, entry_list, list_entries_request, list_entries_response),
	READ(ENTRY, "GetEntry", ADMINS, TCP, AUDIT_CALL, entry_get, get_entry_request, entry),
	UNARY(ENTRY, "BatchCreateEntry", ADMINS, TCP, AUDIT_NOT, entry_batch_create, batch_create_entry_request, batch_create_entry_response),
	UNARY(ENTRY, "BatchUpdateEntry", ADMINS, TCP, AUDIT_NOT, entry_batch_update, batch_update_entry_request, batch_update_entry_response),
	UNARY(ENTRY, "BatchDeleteEntry", ADMINS, TCP, AUDIT_NOT, entry_batch_delete, batch_delete_entry_request, batch_delete_entry_response),
	UNARY(ENTRY, "GetAuthorizedEntries", AGENTS, TCP, AUDIT_CALL, entry_get_authorized,
	      get_authorized_entries_request, get_authorized_entries_response),
	STREAM(ENTRY, "SyncAuthorizedEntries", AGENTS, TCP, AUDIT_CALL, entry_sync_authorized,
	       sync_authorized_entries_request, sync_authorized_entries_response),

	UNARY(SVID, "MintX509SVID", ADMINS, TCP, AUDIT_CALL, svid_mint_x509, mint_x509_svidrequest, mint_x509_svidresponse),
	UNARY(SVID, "MintJWTSVID", ADMINS, TCP, AUDIT_CALL, svid_mint_jwt, mint_jwtsvidrequest, mint_jwtsvidresponse),
	UNARY(SVID, "BatchNewX509SVID", AGENTS, TCP, AUDIT_NOT, svid_new_x509, batch_new_x509_svidrequest, batch_new_x509_svidresponse),
	UNARY(SVID, "NewJWTSVID", AGENTS, TCP, AUDIT_CALL, svid_new_jwt, new_jwtsvidrequest, new_jwtsvidresponse),
	UNARY(SVID, "NewDownstreamX509CA", DOWNSTREAM, TCP, AUDIT_CALL, svid_new_downstream_ca,
	      new_downstream_x509_carequest, new_downstream_x509_caresponse),

	READ(TRUST_DOMAIN, "ListFederationRelationships", ADMINS, TCP, AUDIT_CALL, td_list,
	      list_federation_relationships_request, list_federation_relationships_response),
	READ(TRUST_DOMAIN, "GetFederationRelationship", ADMINS, TCP, AUDIT_CALL, td_get,
	      get_federation_relationship_request, federation_relationship),
	UNARY(TRUST_DOMAIN, "BatchCreateFederationRelationship", ADMINS, TCP, AUDIT_NOT, td_create,
	      batch_create_federation_relationship_request, batch_create_federation_relationship_response),
	UNARY(TRUST_DOMAIN, "BatchUpdateFederationRelationship", ADMINS, TCP, AUDIT_NOT, td_update,
	      batch_update_federation_relationship_request, batch_update_federation_relationship_response),
	UNARY(TRUST_DOMAIN, "BatchDeleteFederationRelationship", ADMINS, TCP, AUDIT_NOT, td_delete,
	      batch_delete_federation_relationship_request, batch_delete_federation_relationship_response),
	UNARY(TRUST_DOMAIN, "RefreshBundle", ADMINS, TCP, AUDIT_CALL, td_refresh, refresh_bundle_request, empty),

	UNARY(AUTHORITY, "GetJWTAuthorityState", ADMINS, TCP, AUDIT_CALL, authority_get_jwt,
	      get_jwtauthority_state_request, get_jwtauthority_state_response),
	UNARY(AUTHORITY, "PrepareJWTAuthority", ADMINS, TCP, AUDIT_CALL, authority_prepare_jwt,
	      prepare_jwtauthority_request, prepare_jwtauthority_response),
	UNARY(AUTHORITY, "ActivateJWTAuthority", ADMINS, TCP, AUDIT_CALL, authority_activate_jwt,
	      activate_jwtauthority_request, activate_jwtauthority_response),
	UNARY(AUTHORITY, "TaintJWTAuthority", ADMINS, TCP, AUDIT_CALL, authority_taint_jwt,
	      taint_jwtauthority_request, taint_jwtauthority_response),
	UNARY(AUTHORITY, "RevokeJWTAuthority", ADMINS, TCP, AUDIT_CALL, authority_revoke_jwt,
	      revoke_jwtauthority_request, revoke_jwtauthority_response),
	UNARY(AUTHORITY, "GetX509AuthorityState", ADMINS, TCP, AUDIT_CALL, authority_get_x509,
	      get_x509_authority_state_request, get_x509_authority_state_response),
	UNARY(AUTHORITY, "PrepareX509Authority", ADMINS, TCP, AUDIT_CALL, authority_prepare_x509,
	      prepare_x509_authority_request, prepare_x509_authority_response),
	UNARY(AUTHORITY, "ActivateX509Authority", ADMINS, TCP, AUDIT_CALL, authority_activate_x509,
	      activate_x509_authority_request, activate_x509_authority_response),
	UNARY(AUTHORITY, "TaintX509Authority", ADMINS, TCP, AUDIT_CALL, authority_taint_x509,
	      taint_x509_authority_request, taint_x509_authority_response),
	UNARY(AUTHORITY, "RevokeX509Authority", ADMINS, TCP, AUDIT_CALL, authority_revoke_x509,
	      revoke_x509_authority_request, revoke_x509_authority_response),
	UNARY(AUTHORITY, "TaintX509UpstreamAuthority", ADMINS, TCP, AUDIT_CALL, authority_taint_x509_upstream,
	      taint_x509_upstream_authority_request, taint_x509_upstream_authority_response),
	UNARY(AUTHORITY, "RevokeX509UpstreamAuthority", ADMINS, TCP, AUDIT_CALL, authority_revoke_x509_upstream,
	      revoke_x509_upstream_authority_request, revoke_x509_upstream_authority_response),

	UNARY(DEBUG, "GetInfo", LOCAL, UDS_ONLY, AUDIT_NOT, debug_get_info, get_info_request, get_info_response),

	UNARY(LOGGER, "GetLogger", LOCAL, UDS_ONLY, AUDIT_CALL, logger_get, get_logger_request, logger),
	UNARY(LOGGER, "SetLogLevel", LOCAL, UDS_ONLY, AUDIT_CALL, logger_set, set_log_level_request, logger),
	UNARY(LOGGER, "ResetLogLevel", LOCAL, UDS_ONLY, AUDIT_CALL, logger_reset, reset_log_level_request, logger),

	UNARY(HEALTH, "Check", LOCAL, UDS_ONLY, AUDIT_NOT, health_check, health_check_request, health_check_response),
	ABSENT(HEALTH, "Watch", LOCAL, UDS_ONLY, health_check_request, health_check_response),
	ABSENT(HEALTH, "List", LOCAL, UDS_ONLY, health_list_request, health_list_response),

	UNARY(CLUSTER, "Status", ONLOOKERS, TCP, AUDIT_NOT, cluster_status, cluster_status_request, cluster_status),
	UNARY(CLUSTER, "Wait", ONLOOKERS, TCP, AUDIT_NOT, cluster_wait, cluster_wait_request, cluster_waited),
	UNARY(CLUSTER, "Token", OPERATORS, TCP, AUDIT_CALL, cluster_token, cluster_token_request, cluster_token_answer),
	UNARY(CLUSTER, "Remove", OPERATORS, TCP, AUDIT_CALL, cluster_remove, cluster_remove_request, cluster_removed),
	UNARY(CLUSTER, "Leave", OPERATORS, TCP, AUDIT_CALL, cluster_leave, cluster_leave_request, cluster_removed),
	UNARY(CLUSTER, "Transfer", OPERATORS, TCP, AUDIT_CALL, cluster_transfer, cluster_transfer_request, cluster_transferred),
};
/* clang-format on */

const size_t n_routes = sizeof routes / sizeof routes[0];

/* --- finding a row: open addressing, filled once --- */

enum { SLOTS = 256 }; /* a power of two, well above the number of rows */

static const struct route *slots[SLOTS];
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

static uint32_t hash(struct span service, struct span method)
{
	uint32_t h = 2166136261u; /* FNV-1a; the end of the service tells them apart, methods share beginnings */

	for (size_t i = service.len > 8 ? service.len - 8 : 0; i < service.len; i++)
		h = (h ^ service.data[i]) * 16777619u;
	for (size_t i = 0; i < method.len; i++)
		h = (h ^ method.data[i]) * 16777619u;
	return h ^ h >> 15;
}

static struct span text_span(const char *text)
{
	return (struct span){ (const uint8_t *)text, strlen(text) };
}

static bool is(struct span span, const char *text)
{
	return strlen(text) == span.len && memcmp(span.data, text, span.len) == 0;
}

static void fill_slots(void)
{
	assert(n_routes < SLOTS / 2);
	for (size_t i = 0; i < n_routes; i++) {
		uint32_t at = hash(text_span(routes[i].service), text_span(routes[i].method)) % SLOTS;

		while (slots[at] != NULL)
			at = (at + 1) % SLOTS;
		slots[at] = &routes[i];
	}
}

static bool knows_service(struct span service, bool tcp)
{
	for (size_t i = 0; i < n_routes; i++)
		if ((routes[i].tcp || !tcp) && is(service, routes[i].service))
			return true;
	return false;
}

const struct route *route_find(struct span service, struct span method, bool tcp, bool *service_known)
{
	pthread_once(&slots_once, fill_slots);
	for (uint32_t at = hash(service, method) % SLOTS; slots[at] != NULL; at = (at + 1) % SLOTS) {
		const struct route *route = slots[at];

		if ((route->tcp || !tcp) && is(method, route->method) && is(service, route->service)) {
			*service_known = true;
			return route;
		}
	}
	*service_known = knows_service(service, tcp);
	return NULL;
}

/* --- names of the log and of metrics --- */

static char *metric_names[SLOTS]; /* by the row's number */
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

const char *route_service(const struct route *route)
{
	static const char *const prefixes[] = { "spire.api.server.logger.v1.", "spire.api.server.", "grpc.health.v1.", NAME "." };

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
		if (strncmp(route->service, prefixes[i], strlen(prefixes[i])) == 0)
			return route->service + strlen(prefixes[i]);
	return route->service;
}

static void append_snake(struct buf *name, const char *camel, size_t len)
{
	char word[64], snake[2 * sizeof word];

	assert(len < sizeof word);
	memcpy(word, camel, len);
	word[len] = '\0';
	metric_snake_case(word, snake);
	buf_puts(name, snake);
	buf_put(name, '_');
}

static void make_names(void)
{
	for (size_t i = 0; i < n_routes; i++) {
		struct buf name = { 0 }; /* kept for ever */

		buf_puts(&name, "rpc_");
		for (const char *at = route_service(&routes[i]), *dot; *at != '\0'; at = *dot == '\0' ? dot : dot + 1) {
			dot = strchrnul(at, '.');
			append_snake(&name, at, (size_t)(dot - at));
		}
		append_snake(&name, routes[i].method, strlen(routes[i].method));
		name.len--; /* the last '_' */
		buf_text(&name);
		metric_names[i] = (char *)name.data;
	}
}

const char *route_metric(const struct route *route)
{
	pthread_once(&names_once, make_names);
	return metric_names[route - routes];
}
