/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "base/rand.h"
#include "lib/link_nodes.h"

#include <fcntl.h>
#include <openssl/sha.h>

/* --- copies --- */

struct sending {
	bool done;
	enum code code;
	char why[400];
	uint8_t digest[32];
};

static void on_copy_done(void *ctx, enum code code, const char *why, const uint8_t sha256[32])
{
	struct sending *s = ctx;

	CHECK(!s->done);
	s->done = true;
	s->code = code;
	snprintf(s->why, sizeof s->why, "%s", why);
	memcpy(s->digest, sha256, 32);
}

static uint8_t *make_file(size_t len, int *fd)
{
	static char path[300];
	uint8_t *bytes = xmalloc(len + 1);

	snprintf(path, sizeof path, "%s/source", test_dir());
	rand_bytes(bytes, len);
	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (size_t at = 0; at < len;)
		at += (size_t)write(*fd, bytes + at, len - at);
	return bytes;
}

static struct link_copy_out *send_copy(struct node *a, int fd, uint64_t len, uint64_t rate, struct sending *s)
{
	struct link_copy copy = {
		.fd = fd,
		.length = len,
		.about = { (const uint8_t *)"state 17", 8 },
		.bytes_per_s = rate,
		.done = on_copy_done,
		.ctx = s,
	};

	*s = (struct sending){ 0 };
	return link_copy_send(a->links, 2, &copy);
}

TEST(a_copy_of_50_mb_arrives_whole)
{
	enum { LEN = 50 << 20 };
	struct node *a, *b;
	struct sending s;
	uint8_t digest[32], *bytes, *got;
	int fd, messages = 0;

	two_up(&a, &b);
	bytes = make_file(LEN, &fd);
	SHA256(bytes, LEN, digest);
	send_copy(a, fd, LEN, 0, &s);
	while (!s.done) { /* consensus goes on beside it */
		messages += send_number(a, b, (uint32_t)messages, 1000, false);
		turn_all();
		usleep(100);
	}
	if (s.code != CODE_OK)
		fail_msg("%s", s.why);
	CHECK_NUM(b->copies_begun, 1);
	CHECK_NUM(b->copies_ended, 1);
	CHECK_NUM(b->copy_length, LEN);
	CHECK_STR(b->copy_about, "state 17");
	CHECK_BYTES(b->copy_digest, digest, 32);
	CHECK_BYTES(s.digest, digest, 32);
	CHECK(messages > 0);
	UNTIL(b->messages == messages);
	CHECK_NUM(b->bad_order, 0);
	fd = open(b->copy_path, O_RDONLY);
	got = xmalloc(LEN + 1);
	CHECK_NUM(read(fd, got, LEN + 1), LEN);
	CHECK(memcmp(got, bytes, LEN) == 0);
	close(fd);
	free(got);
	free(bytes);
	stop_all();
}

TEST(small_copies_arrive_too)
{
	struct node *a, *b;
	struct sending s;
	static const size_t sizes[] = { 0, 1, 65536, 262144, 262145 };

	two_up(&a, &b);
	for (size_t i = 0; i < 5; i++) {
		int fd;

		free(make_file(sizes[i], &fd));
		send_copy(a, fd, sizes[i], 0, &s);
		UNTIL(s.done);
		CHECK_NUM(s.code, CODE_OK);
		CHECK_NUM(b->copies_ended, i + 1);
		CHECK_BYTES(b->copy_digest, s.digest, 32);
	}
	stop_all();
}

TEST(a_copy_keeps_to_its_rate)
{
	struct node *a, *b;
	struct sending s;
	int64_t begin;
	int fd;

	two_up(&a, &b);
	free(make_file(2 << 20, &fd));
	begin = clock_mono_ms();
	send_copy(a, fd, 2 << 20, 4 << 20, &s);
	UNTIL(s.done);
	CHECK_NUM(s.code, CODE_OK);
	CHECK(clock_mono_ms() - begin >= 350);
	stop_all();
}

TEST(an_interrupted_copy_is_worthless_on_both_sides)
{
	struct node *a, *b;
	struct link_copy_out *copy;
	struct sending s;
	int fd;

	two_up(&a, &b);
	free(make_file(20 << 20, &fd));
	copy = send_copy(a, fd, 20 << 20, 8 << 20, &s);
	UNTIL(link_copy_sent(copy) > 2 << 20);
	cut_connections(b->port);
	UNTIL(s.done && b->copies_ended == 1);
	CHECK_NUM(s.code, CODE_UNAVAILABLE);
	CHECK_NUM(b->copy_code, CODE_UNAVAILABLE);

	free(make_file(20 << 20, &fd));
	copy = send_copy(a, fd, 20 << 20, 8 << 20, &s);
	UNTIL(b->copies_begun == 2);
	link_copy_cancel(copy);
	CHECK(s.done);
	CHECK_NUM(s.code, CODE_CANCELLED);
	UNTIL(b->copies_ended == 2);
	CHECK_NUM(b->copy_code, CODE_UNAVAILABLE);

	free(make_file(1 << 20, &fd));
	send_copy(a, fd, 2 << 20, 0, &s); /* shorter than it is said to be */
	UNTIL(s.done && b->copies_ended == 3);
	CHECK_NUM(s.code, CODE_INTERNAL);
	CHECK_STR(s.why, "the file to be copied is shorter than it was said to be");
	CHECK_NUM(b->copy_code, CODE_UNAVAILABLE);

	free(make_file(1 << 20, &fd)); /* and it goes on */
	send_copy(a, fd, 1 << 20, 0, &s);
	UNTIL(s.done);
	CHECK_NUM(s.code, CODE_OK);
	stop_all();
}

TEST(a_receiver_may_refuse_a_copy)
{
	struct node *a, *b;
	struct sending s;
	int fd;

	two_up(&a, &b);
	b->refuse_copies = 1;
	free(make_file(1 << 20, &fd));
	send_copy(a, fd, 1 << 20, 0, &s);
	UNTIL(s.done);
	CHECK_NUM(s.code, CODE_RESOURCE_EXHAUSTED);
	CHECK_STR(s.why, "no room");
	CHECK_NUM(b->copies_ended, 0);
	b->refuse_copies = 0;
	b->accept_code = CODE_ABORTED;
	free(make_file(1 << 20, &fd));
	send_copy(a, fd, 1 << 20, 0, &s);
	UNTIL(s.done);
	CHECK_NUM(s.code, CODE_ABORTED);
	CHECK_STR(s.why, "not this one");
	free(make_file(1 << 20, &fd));
	stop(b);
	send_copy(a, fd, 1 << 20, 0, &s);
	CHECK(!s.done);
	UNTIL(s.done);
	CHECK_NUM(s.code, CODE_UNAVAILABLE);
	CHECK_STR(s.why, "connection refused");
	stop_all();
}

TEST(closing_in_the_middle_of_everything_leaves_nothing)
{
	struct node *a, *b;
	struct sending s;
	struct question q;
	int fd;

	two_up(&a, &b);
	free(make_file(20 << 20, &fd));
	send_copy(a, fd, 20 << 20, 0, &s);
	ask(a, b, M_NEVER, "", 0, 20000, &q);
	UNTIL(b->copies_begun == 1 && b->later != NULL);
	for (uint32_t i = 0; send_number(a, b, i, 10000, true); i++)
		;
	stop(b);
	stop(a);
	CHECK(s.done);
	CHECK(q.answered);
	CHECK_NUM(b->copies_ended, 0); /* no event after link_close */
	stop_all();
}
