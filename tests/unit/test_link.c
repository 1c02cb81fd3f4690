/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/link_nodes.h"

static struct err err;

/* --- links --- */

TEST(three_nodes_find_one_another)
{
	for (int i = 1; i <= 3; i++)
		node(i);
	acquaint(3);
	for (int i = 1; i <= 3; i++)
		for (int k = 1; k <= 3; k++)
			UNTIL(i == k || is_up(&nodes[i], &nodes[k]));
	for (int i = 1; i <= 3; i++) {
		CHECK_NUM(nodes[i].ups, 2);
		CHECK_NUM(nodes[i].downs, 0);
		CHECK_NUM(nodes[i].seen_starts, 5);
		CHECK_NUM(nodes[i].refusals, 0);
	}
	stop_all();
}

TEST(messages_arrive_in_order_and_whole_both_ways)
{
	static const size_t sizes[] = { 5, 30, 200, 5000, 70000, 300000, 900000 };
	struct node *a, *b;
	uint32_t to_a = 0, to_b = 0;

	two_up(&a, &b);
	while (to_a < 1500 || to_b < 1500) {
		if (to_b < 1500 && send_number(a, b, to_b, sizes[to_b % 7], true))
			to_b++;
		if (to_a < 1500 && send_number(b, a, to_a, sizes[(to_a + 3) % 7], true))
			to_a++;
		turn_all();
	}
	UNTIL(a->messages == 1500 && b->messages == 1500);
	CHECK_NUM(a->bad_order + b->bad_order, 0);
	CHECK(a->writables > 0);
	CHECK_NUM(a->downs + b->downs, 0);
	stop_all();
}

TEST(a_peer_that_does_not_read_bounds_the_queue)
{
	struct node *a, *b;
	uint32_t number = 0;
	int refused = 0;

	two_up(&a, &b);
	for (int i = 0; i < 3000; i++) {
		if (send_number(a, b, number, 10000, true))
			number++;
		else
			refused++;
		loop_turn(a->loop);
	}
	CHECK(refused > 0);
	CHECK(link_queued(a->links, 2) <= LINK_AHEAD);
	CHECK(send_number(a, b, number, 100, false)); /* a heartbeat still has room */
	number++;
	while (send_number(a, b, number, 1000, false))
		number++;
	CHECK(link_queued(a->links, 2) <= LINK_QUEUE);
	CHECK_NUM(a->writables, 0);
	UNTIL(a->writables > 0 && b->messages == (int)number);
	CHECK_NUM(b->bad_order, 0);
	stop_all();
}

TEST(a_reconnect_drops_the_queue_and_raises_the_epoch)
{
	struct node *a, *b;
	uint32_t number = 0;
	uint64_t before;
	int got;

	two_up(&a, &b);
	before = a->up_epoch;
	for (int i = 0; i < 3000; i++) {
		number += send_number(a, b, number, 10000, true);
		loop_turn(a->loop);
	}
	CHECK(link_queued(a->links, 2) > 0);
	cut_connections(b->port);
	cut_connections(a->port);
	UNTIL(a->ups == 2 && b->ups == 2);
	CHECK_NUM(a->downs, 1);
	CHECK(a->how == LINK_DOWN_ENDED);
	CHECK(a->up_epoch > before);
	CHECK_NUM(link_queued(a->links, 2), 0);
	CHECK_NUM(a->deads + b->deads, 0);
	got = b->messages;
	CHECK(got < (int)number);
	CHECK_NUM(b->bad_order, 0); /* what came is the beginning, without a hole */
	b->next = 1000000;
	CHECK(send_number(a, b, 1000000, 100, true));
	UNTIL(b->messages == got + 1);
	CHECK_NUM(b->bad_order, 0);
	stop_all();
}

TEST(a_dead_process_is_told_from_a_cut)
{
	struct node *a, *b;
	struct question q;

	two_up(&a, &b);
	ask(a, b, M_NEVER, "x", 1, 20000, &q);
	UNTIL(b->requests == 1);
	stop(b);
	UNTIL(a->deads == 1);
	CHECK_NUM(a->downs, 1);
	CHECK_NUM(a->silents, 1);
	CHECK(q.answered);
	CHECK(q.outcome == LINK_UNKNOWN);
	CHECK_NUM(q.code, CODE_UNAVAILABLE);
	CHECK(strncmp(q.text, "outcome unknown: the connection to 'n2' ended: ", 40) == 0);
	ask(a, b, M_ECHO, "x", 1, 20000, &q);
	CHECK(!q.answered); /* never from within */
	UNTIL(q.answered);
	CHECK(q.outcome == LINK_NOT_SENT);
	CHECK_STR(q.text, "'n2' cannot be reached: connection refused");
	turn_for(300);
	CHECK_NUM(a->deads, 1);
	b->starts++;
	start(b); /* at the port that it had */
	acquaint(2);
	UNTIL(is_up(a, b) && is_up(b, a));
	CHECK_NUM(a->seen_starts, 6);
	CHECK_NUM(a->downs, 1);
	stop_all();
}

TEST(an_address_may_change)
{
	struct node *a, *b;

	two_up(&a, &b);
	stop(b);
	UNTIL(a->downs == 1);
	b->port = 0;
	b->starts++;
	start(b);
	acquaint(2);
	UNTIL(is_up(a, b) && is_up(b, a));
	stop_all();
}

/* --- who is let in --- */

enum { EITHER = -1 }; /* side may be the first to notice */

static void expect_refusal(struct node *who, int by_us, enum link_refusal reason, const char *text)
{
	UNTIL(who->refusals > 0);
	turn_for(150);
	CHECK_NUM(who->refusals, 1); /* told once */
	if (who->reason != reason)
		fail_msg("%s, not %s: %s", link_refusal_name(who->reason), link_refusal_name(reason), who->why);
	if (by_us != EITHER)
		CHECK_NUM(who->by_us, by_us);
	if (strstr(who->why, text) == NULL)
		CHECK_STR(who->why, text);
}

TEST(who_answers_without_the_pin_is_refused)
{
	struct node *a = node(1), *b = node(2), *c = node(3);
	struct link_member rows[2] = { row_of(a), row_of(b) };

	rows[1].pins[0] = *peer_key_pin(c->key); /* b answers where c is expected */
	link_set_members(a->links, rows, 2);
	expect_refusal(a, true, LINK_REFUSED_UNKNOWN_KEY, "does not have the key of 'n2' (sha256 ");
	CHECK_NUM(a->ups, 0);
	stop_all();
}

TEST(a_stranger_is_told_so)
{
	struct node *a = node(1), *b = node(2);
	struct link_member rows[2] = { row_of(a), row_of(b) };

	link_set_members(a->links, rows, 1);
	link_set_members(b->links, rows, 2);
	expect_refusal(b, false, LINK_REFUSED_UNKNOWN_KEY, "none of a member's as 'n1' knows them");
	CHECK_NUM(a->refusals, 1);
	CHECK(a->by_us);
	CHECK_NUM(b->ups, 0);
	stop_all();
}

TEST(a_removed_member_is_told_so_at_once_and_later)
{
	struct node *a, *b;
	struct link_member rows[2];

	two_up(&a, &b);
	rows[0] = row_of(a);
	rows[1] = row_of(b);
	rows[1].removed = true;
	link_set_members(a->links, rows, 2);
	CHECK_NUM(a->downs, 0); /* never from within */
	expect_refusal(
		b, false, LINK_REFUSED_REMOVED,
		"'n2' was removed from the cluster: to come back it must join again with an empty data directory");
	CHECK_NUM(a->downs, 1);
	CHECK(a->how == LINK_DOWN_CLOSED);
	CHECK_NUM(a->deads + b->deads, 0);
	CHECK(!send_number(a, b, 0, 10, false));
	stop(b);
	b->refusals = b->ups = 0;
	b->starts++;
	start(b);
	rows[0] = row_of(a);
	rows[1] = row_of(b);
	link_set_members(b->links, rows, 2);
	expect_refusal(b, false, LINK_REFUSED_REMOVED, "'n2' was removed");
	CHECK_NUM(b->ups, 0);
	stop_all();
}

static void wrong(void (*twist)(struct node *), enum link_refusal reason, const char *text)
{
	struct node *a = node(1), *b = node(2);
	struct link_member rows[2] = { row_of(a), row_of(b) };

	twist(b);
	introduce(b);
	link_set_members(a->links, rows, 2);
	link_set_members(b->links, &rows[0], 1);
	expect_refusal(b, EITHER, reason, text);
	CHECK_NUM(a->ups + b->ups, 0);
	CHECK(a->refusals > 0);
	CHECK_NUM(a->reason, reason);
	stop_all();
}

static void other_cluster(struct node *n)
{
	n->cluster_id = "00000000-2222-4222-8333-444455556666";
}

static void other_trust_domain(struct node *n)
{
	n->trust_domain = "other.org";
}

static void other_epoch(struct node *n)
{
	n->epoch = 2;
}

static void same_name(struct node *n)
{
	n->as_name = "n1";
}

TEST(other_clusters_and_epochs_are_refused)
{
	wrong(other_cluster, LINK_REFUSED_CLUSTER, "belongs to cluster ");
	wrong(other_trust_domain, LINK_REFUSED_TRUST_DOMAIN, "is configured for trust domain \"");
	wrong(other_epoch, LINK_REFUSED_EPOCH,
	      ": the cluster was restored or recovered without 'n1'; empty its data "
	      "directory and let it join again");
	wrong(same_name, LINK_REFUSED_NAME, "two nodes are named 'n1'");
}

TEST(a_copied_key_is_refused)
{
	struct node *a, *b;

	two_up(&a, &b);
	stop(b);
	snprintf(b->id, sizeof b->id, "%s", "99999999-0000-4000-8000-000000000009");
	start(b);
	link_set_members(b->links, (struct link_member[]){ row_of(a) }, 1);
	expect_refusal(b, false, LINK_REFUSED_NODE_ID, "a peer key was copied to another node");
	stop_all();
}

TEST(a_node_that_dials_itself_is_told_so)
{
	struct node *a = node(1);
	struct link_member rows[2] = { row_of(a), row_of(a) };

	rows[1].id = 2; /* another member's row with this node's address and key */
	rows[1].node_id = "";
	link_set_members(a->links, rows, 2);
	UNTIL(a->refusals > 0);
	CHECK_NUM(a->reason, LINK_REFUSED_SELF);
	CHECK(strncmp(a->why, "'n1' has dialled itself: ", 25) == 0);
	stop_all();
}

static void come_back(struct node *a, struct node *b, uint64_t starts, uint8_t boot)
{
	stop(b);
	UNTIL(!is_up(a, b));
	a->refusals = b->refusals = b->ups = 0;
	b->starts = starts;
	b->boot[1] = boot;
	start(b);
	link_set_members(b->links, (struct link_member[]){ row_of(a), row_of(b) }, 2);
}

TEST(a_data_directory_that_was_rolled_back_is_noticed)
{
	struct node *a, *b;

	two_up(&a, &b);
	CHECK_NUM(a->seen_starts, 5);
	cut_connections(a->port);
	cut_connections(b->port);
	UNTIL(a->ups == 2 && is_up(a, b)); /* the same process again */
	come_back(a, b, 6, 1);
	UNTIL(is_up(a, b));
	CHECK_NUM(a->seen_starts, 6);
	CHECK_NUM(a->refusals, 0);
	come_back(a, b, 5, 2);
	expect_refusal(
		b, false, LINK_REFUSED_ROLLED_BACK,
		"'n2' comes with start number 5, and number 6 has been seen: its data directory was rolled back");
	CHECK_NUM(b->ups, 0);
	come_back(a, b, 6, 3); /* the number that was seen, but another start */
	expect_refusal(b, false, LINK_REFUSED_ROLLED_BACK, "start number 6, and number 6 has been seen");
	come_back(a, b, 7, 4);
	UNTIL(is_up(a, b));
	stop_all();
}

TEST(the_table_remembers_start_numbers)
{
	struct node *a = node(1), *b = node(2);
	struct link_member rows[2] = { row_of(a), row_of(b) };

	rows[1].starts = 9;
	link_set_members(a->links, rows, 2);
	link_set_members(b->links, rows, 1);
	expect_refusal(b, false, LINK_REFUSED_ROLLED_BACK, "start number 5, and number 9 has been seen");
	stop_all();
}

TEST(a_rotated_key_is_known_by_the_old_ones_word)
{
	struct node *a, *b;
	struct peer_key *next;
	struct link_member rows[2];

	two_up(&a, &b);
	CHECK_CODE(peer_key_rotate(b->key, b->key_path, &next, &err), CODE_OK);
	rows[0] = row_of(a);
	rows[1] = row_of(b); /* the old pin */
	peer_key_unref(b->key);
	b->key = next;
	link_set_key(b->links, next);
	cut_connections(a->port);
	cut_connections(b->port);
	UNTIL(a->ups == 2 && is_up(a, b) && is_up(b, a));
	CHECK_NUM(a->rotations, 1);
	link_set_members(a->links, rows, 2);
	turn_for(50);
	CHECK_NUM(a->downs, 1);
	rows[1] = row_of(b); /* the new one alone */
	link_set_members(a->links, rows, 2);
	turn_for(50);
	CHECK(is_up(a, b));
	CHECK_NUM(a->downs, 1);
	rows[1].pins[0].bytes[0] ^= 1; /* none that it has */
	link_set_members(a->links, rows, 2);
	UNTIL(a->downs == 2 && a->refusals > 0);
	CHECK_NUM(a->reason, LINK_REFUSED_UNKNOWN_KEY);
	stop_all();
}
