/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_LINK_NODES_H
#define TESTS_LIB_LINK_NODES_H

/* Nodes of a cluster in one process over loopback TCP, of which there are the links alone. Each has a loop of its own
 * that the test turns, so that a node that does not run is one whose loop is not turned. */
#include "base/buf.h"
#include "base/clock.h"
#include "lib/test.h"
#include "raft/link.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define CLUSTER "7c1f0000-1111-4222-8333-444455556666"
enum { NODES = 4, M_ECHO = 1, M_FAIL = 2, M_NEVER = 3, M_LATER = 4, M_COUNT = 5 };

struct node {
	struct loop *loop;
	struct links *links;
	struct peer_key *key;
	char key_path[300], address[64], id[37], name[8];
	int port;
	uint64_t epoch, starts;
	uint8_t boot[LINK_BOOT_LEN];
	const char *cluster_id, *trust_domain, *as_name;

	int ups, downs, deads, refusals, silents, writables, rotations, bad_order;
	uint64_t up_epoch;
	enum link_down how;
	enum link_refusal reason;
	bool by_us;
	char why[512];
	uint64_t seen_starts;
	uint8_t seen_boot[LINK_BOOT_LEN];
	uint32_t next; /* the number that the next message has to have */
	int messages, refuse_messages;
	size_t message_bytes;
	struct link_request *later; /* those not answered; linked by .owner */
	int requests;
	char joiner[64];
	bool joined_by_stranger;

	char copy_path[300];
	int copies_begun, copies_ended, refuse_copies;
	enum code copy_code, accept_code;
	char copy_why[400];
	uint8_t copy_digest[32];
	uint64_t copy_length;
	char copy_about[64];
};

extern struct node nodes[NODES + 1];

struct question {
	struct link_call call;
	bool answered;
	enum link_outcome outcome;
	enum code code;
	struct buf body;
	char text[512];
};

struct link_self self_of(const struct node *n);
void introduce(struct node *n);
void start(struct node *n);
struct node *node(int i);
struct link_member row_of(const struct node *n);
void acquaint(int count);
void turn_all(void);
void turn_for(int64_t ms);
void answer_later(struct node *n);
void stop(struct node *n);
void stop_all(void);
bool is_up(const struct node *a, const struct node *b);
void two_up(struct node **a, struct node **b);
void cut_connections(int port);
bool send_number(struct node *from, struct node *to, uint32_t number, size_t len, bool bulky);
void ask(struct node *from, struct node *to, uint8_t method, const void *body, size_t len, int64_t ms,
	 struct question *q);

#define UNTIL_TURNING(turn, condition)                                                                                 \
	do {                                                                                                           \
		int64_t give_up_ = clock_mono_ms() + 30000;                                                            \
		while (!(condition)) {                                                                                 \
			turn;                                                                                          \
			usleep(100);                                                                                   \
			if (clock_mono_ms() > give_up_)                                                                \
				fail_msg("never: %s", #condition);                                                     \
		}                                                                                                      \
	} while (0)
#define UNTIL(condition) UNTIL_TURNING(turn_all(), condition)

#endif
