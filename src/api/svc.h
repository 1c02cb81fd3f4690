/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_SVC_H
#define API_SVC_H

#include "api/route.h"

/* The handlers behind the rows of route.c. A unary one gets the decoded message of its row and an answer to fill, both in the
 * call's arena; a stream talks by call_recv and call_send. Not CODE_OK: what stands in call->err is what the client sees. */

/* svc_agent.c */
unary_handler agent_count, agent_list, agent_get, agent_delete, agent_ban, agent_renew, agent_create_join_token, agent_post_status;
stream_handler agent_attest;

/* svc_bundle.c */
unary_handler bundle_count, bundle_get_own, bundle_append, bundle_publish_jwt;
unary_handler bundle_list_federated, bundle_get_federated, bundle_create_federated, bundle_update_federated, bundle_set_federated,
	bundle_delete_federated;

/* svc_entry.c */
unary_handler entry_count, entry_list, entry_get, entry_batch_create, entry_batch_update, entry_batch_delete, entry_get_authorized;
stream_handler entry_sync_authorized;

/* svc_svid.c */
unary_handler svid_mint_x509, svid_mint_jwt, svid_new_x509, svid_new_jwt, svid_new_downstream_ca;

/* svc_trustdomain.c */
unary_handler td_list, td_get, td_create, td_update, td_delete, td_refresh;

/* svc_authority.c */
unary_handler authority_get_jwt, authority_prepare_jwt, authority_activate_jwt, authority_taint_jwt, authority_revoke_jwt;
unary_handler authority_get_x509, authority_prepare_x509, authority_activate_x509, authority_taint_x509, authority_revoke_x509;
unary_handler authority_taint_x509_upstream, authority_revoke_x509_upstream;

/* svc_debug.c, svc_logger.c, svc_health.c */
unary_handler debug_get_info;
unary_handler logger_get, logger_set, logger_reset;
unary_handler health_check;

/* svc_cluster.c */
unary_handler cluster_status, cluster_token, cluster_remove, cluster_leave, cluster_transfer, cluster_wait;

#endif
