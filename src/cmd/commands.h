/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_COMMANDS_H
#define CMD_COMMANDS_H

#include "cmd/cli.h"

/* Every command that talks to a server, for the table in main.c. */

extern const struct cli_command cmd_agent_ban, cmd_agent_count, cmd_agent_evict, cmd_agent_list, cmd_agent_purge,
	cmd_agent_show;
extern const struct cli_command cmd_bundle_count, cmd_bundle_delete, cmd_bundle_list, cmd_bundle_set, cmd_bundle_show;
extern const struct cli_command cmd_cluster_leave, cmd_cluster_remove, cmd_cluster_status, cmd_cluster_token,
	cmd_cluster_transfer, cmd_cluster_wait;
extern const struct cli_command cmd_drill_failover;
extern const struct cli_command cmd_entry_count, cmd_entry_create, cmd_entry_delete, cmd_entry_show, cmd_entry_update;
extern const struct cli_command cmd_federation_create, cmd_federation_delete, cmd_federation_list,
	cmd_federation_refresh, cmd_federation_show, cmd_federation_update;
extern const struct cli_command cmd_healthcheck;
extern const struct cli_command cmd_jwt_mint;
extern const struct cli_command cmd_jwt_activate, cmd_jwt_prepare, cmd_jwt_revoke, cmd_jwt_show, cmd_jwt_taint;
extern const struct cli_command cmd_x509_activate, cmd_x509_prepare, cmd_x509_revoke, cmd_x509_show, cmd_x509_taint;
extern const struct cli_command cmd_logger_get, cmd_logger_reset, cmd_logger_set;
extern const struct cli_command cmd_token_generate;
extern const struct cli_command cmd_upstreamauthority_revoke, cmd_upstreamauthority_taint;
extern const struct cli_command cmd_x509_mint;

#endif
