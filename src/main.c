/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, nothing else: sorted by words, as the help shows them. */
#include "cmd/command.h"
#include "cmd/commands.h"
#include "cmd/run_flags.h"

static const struct command commands[] = {
	{ "agent ban", "Bans an agent: it is not served and may not attest again", &cmd_agent_ban },
	{ "agent count", "Counts attested agents", &cmd_agent_count },
	{ "agent evict", "Removes an agent; it may attest again", &cmd_agent_evict },
	{ "agent list", "Lists attested agents", &cmd_agent_list },
	{ "agent purge", "Removes agents that expired a while ago and could attest again", &cmd_agent_purge },
	{ "agent show", "Shows one agent", &cmd_agent_show },
	{ "bundle count", "Counts trust bundles", &cmd_bundle_count },
	{ "bundle delete", "Removes the bundle of a federated trust domain", &cmd_bundle_delete },
	{ "bundle list", "Lists the bundles of federated trust domains", &cmd_bundle_list },
	{ "bundle set", "Creates or replaces the bundle of a federated trust domain", &cmd_bundle_set },
	{ "bundle show", "Prints the server's own trust bundle", &cmd_bundle_show },
	{ "cluster leave", "Takes this node out of the cluster", &cmd_cluster_leave, .ours = true },
	{ "cluster remove", "Takes a member out of the cluster, a dead one too", &cmd_cluster_remove, .ours = true },
	{ "cluster status", "Shows the members and how they are", &cmd_cluster_status, .ours = true },
	{ "cluster token", "Makes a token with which a node joins", &cmd_cluster_token, .ours = true },
	{ "cluster transfer", "Moves leadership to another member", &cmd_cluster_transfer, .ours = true },
	{ "cluster wait", "Waits for a revision, members or a leader", &cmd_cluster_wait, .ours = true },
	{ "drill failover", "Moves leadership on purpose under a probe load", &cmd_drill_failover, .ours = true },
	{ "entry count", "Counts registration entries", &cmd_entry_count },
	{ "entry create", "Creates registration entries", &cmd_entry_create },
	{ "entry delete", "Removes registration entries", &cmd_entry_delete },
	{ "entry show", "Shows registration entries", &cmd_entry_show },
	{ "entry update", "Replaces registration entries", &cmd_entry_update },
	{ "federation create", "Creates a federation relationship", &cmd_federation_create },
	{ "federation delete", "Removes a federation relationship", &cmd_federation_delete },
	{ "federation list", "Lists federation relationships", &cmd_federation_list },
	{ "federation refresh", "Fetches the bundle of a federated trust domain now", &cmd_federation_refresh },
	{ "federation show", "Shows one federation relationship", &cmd_federation_show },
	{ "federation update", "Replaces a federation relationship", &cmd_federation_update },
	{ "healthcheck", "Asks a server whether it is healthy", &cmd_healthcheck },
	{ "jwt mint", "Mints a JWT-SVID", &cmd_jwt_mint },
	{ "localauthority jwt activate", "Signs with the prepared JWT authority from now on", &cmd_jwt_activate },
	{ "localauthority jwt prepare", "Makes a new JWT authority and publishes it", &cmd_jwt_prepare },
	{ "localauthority jwt revoke", "Takes the old JWT authority out of the bundle", &cmd_jwt_revoke },
	{ "localauthority jwt show", "Shows this server's JWT authorities", &cmd_jwt_show },
	{ "localauthority jwt taint", "Marks the old JWT authority as tainted", &cmd_jwt_taint },
	{ "localauthority x509 activate", "Signs with the prepared X.509 authority from now on", &cmd_x509_activate },
	{ "localauthority x509 prepare", "Makes a new X.509 authority and publishes it", &cmd_x509_prepare },
	{ "localauthority x509 revoke", "Takes the old X.509 authority out of the bundle", &cmd_x509_revoke },
	{ "localauthority x509 show", "Shows this server's X.509 authorities", &cmd_x509_show },
	{ "localauthority x509 taint", "Marks the old X.509 authority as tainted", &cmd_x509_taint },
	{ "logger get", "Shows the log level", &cmd_logger_get },
	{ "logger reset", "Sets the log level back to that of the start", &cmd_logger_reset },
	{ "logger set", "Sets the log level", &cmd_logger_set },
	{ "run", "Runs the server", .run = cmd_run },
	{ "token generate", "Makes a join token", &cmd_token_generate },
	{ "upstreamauthority revoke", "Takes the old upstream authority out of the bundle",
	  &cmd_upstreamauthority_revoke },
	{ "upstreamauthority taint", "Marks the old upstream authority as tainted", &cmd_upstreamauthority_taint },
	{ "validate", "Checks a configuration file", .run = cmd_validate },
	{ "x509 mint", "Mints an X509-SVID", &cmd_x509_mint },
	{ 0 },
};

int main(int argc, char **argv)
{
	return command_main(commands, argc, argv);
}
