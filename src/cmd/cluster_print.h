/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_CLUSTER_PRINT_H
#define CMD_CLUSTER_PRINT_H

#include "cluster.pb-c.h"

#include <stdio.h>

/* `cluster status`: one line of JSON with the fields of contract cluster.md section 3; for people a head, a table, and
 * a warning for each thing that is not as it should be. */
void cluster_print_json(FILE *out, const Pb__ClusterStatus *status);
void cluster_print_pretty(FILE *out, const Pb__ClusterStatus *status);

#endif
