/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc.h"
#include "base/fault.h"
#include "base/log.h"
#include "lib/test.h"
#include "raft/vote.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODE "11111111-2222-4333-8444-555555555555"
enum { PAGE = 4096, RECORD = 96 };

static struct err err;

__attribute__((constructor)) static void quiet(void)
{
	log_set_level(LOG_PANIC);
}

static char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", test_dir(), name);
	return path;
}

static struct vote_state reopened(const char *path)
{
	struct vote *vote;
	struct vote_state found;

	CHECK_CODE(vote_open(path, NODE, false, &vote, &found, &err), CODE_OK);
	vote_close(vote);
	return found;
}

/* A record with history: the last vote is (7, 3); starts = 1. */
static char *made(const char *name)
{
	char *path = path_of(name);
	struct vote *vote;
	struct vote_state found;

	CHECK_CODE(vote_open(path, NODE, true, &vote, &found, &err), CODE_OK);
	vote_write(vote, 5, 1);
	vote_write(vote, 6, 0);
	vote_write(vote, 7, 3);
	vote_close(vote);
	return path;
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	CHECK_NUM(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	CHECK_NUM(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void put_bytes(const char *path, const void *bytes, size_t len, off_t at)
{
	int fd = open(path, O_RDWR);

	CHECK_NUM(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

static void get_bytes(const char *path, void *bytes, size_t len, off_t at)
{
	int fd = open(path, O_RDONLY);

	CHECK_NUM(pread(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

TEST(crc_is_the_published_one_with_and_without_the_instruction)
{
	uint8_t bytes[100];

	CHECK_NUM(crc32c(0, "123456789", 9), 0xe3069283);
	CHECK_NUM(crc32c_table(0, "123456789", 9), 0xe3069283);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 37 + 11);
	for (size_t len = 0; len <= sizeof bytes; len++) {
		CHECK_NUM(crc32c(7, bytes, len), crc32c_table(7, bytes, len));
		CHECK_NUM(crc32c(crc32c(0, bytes, len), bytes + len, sizeof bytes - len),
			  crc32c(0, bytes, sizeof bytes));
	}
}

TEST(a_vote_stays_and_starts_are_counted)
{
	char *path = path_of("stays");
	struct vote *vote;
	struct vote_state found;

	CHECK_CODE(vote_open(path, NODE, true, &vote, &found, &err), CODE_OK);
	CHECK_NUM(found.term, 0);
	CHECK_NUM(found.voted_for, 0);
	CHECK_NUM(found.starts, 1);
	vote_write(vote, 4, 0);
	vote_write(vote, 4, 2);
	vote_close(vote);
	for (uint64_t starts = 2; starts < 6; starts++) {
		found = reopened(path);
		CHECK_NUM(found.term, 4);
		CHECK_NUM(found.voted_for, 2);
		CHECK_NUM(found.starts, starts);
	}
}

TEST(a_missing_record_is_not_made_by_the_way)
{
	struct vote *vote;
	struct vote_state found;

	CHECK_CODE(vote_open(path_of("missing"), NODE, false, &vote, &found, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "/missing\" is missing") != NULL);
	CHECK_NUM(access(path_of("missing"), F_OK), -1);
}

TEST(another_nodes_record_and_a_newer_format_are_refused)
{
	char *path = made("foreign");
	struct vote *vote;
	struct vote_state found;
	uint8_t record[RECORD];
	uint32_t number;

	CHECK_CODE(vote_open(path, "99999999-2222-4333-8444-555555555555", false, &vote, &found, &err),
		   CODE_FAILED_PRECONDITION);
	CHECK(strstr(err.text, "belongs to node " NODE) != NULL);
	get_bytes(path, record, sizeof record, 0);
	record[16] = 2;
	number = crc32c(0, record + 12, sizeof record - 12);
	memcpy(record + 8, &number, 4);
	put_bytes(path, record, sizeof record, 0);
	CHECK_CODE(vote_open(path, NODE, false, &vote, &found, &err), CODE_UNIMPLEMENTED);
	CHECK(strstr(err.text, "has format 2, this version knows up to 1") != NULL);
}

/* Damage to any one byte of either copy neither brings an older vote back nor stops the node. */
TEST(one_damaged_copy_does_no_harm)
{
	for (off_t at = 0; at < RECORD; at++)
		for (int copy = 0; copy < 2; copy++) {
			char *path = made("one");
			struct vote_state found;

			flip(path, at + copy * PAGE);
			found = reopened(path);
			CHECK_NUM(found.term, 7);
			CHECK_NUM(found.voted_for, 3);
			unlink(path);
		}
}

TEST(two_damaged_copies_are_refused)
{
	char *path = made("both");
	struct vote *vote;
	struct vote_state found;

	flip(path, 40);
	flip(path, PAGE + 80);
	CHECK_CODE(vote_open(path, NODE, false, &vote, &found, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, path) != NULL);
	CHECK_NUM(truncate(path, 0), 0);
	CHECK_CODE(vote_open(path, NODE, false, &vote, &found, &err), CODE_DATA_LOSS);
}

/* The next record, cut short at each byte, in the slot that is written first: the one before it holds. */
TEST(a_torn_write_leaves_the_vote_before_it)
{
	uint8_t old[2 * PAGE], new[2 * PAGE];
	char *path = made("torn");
	struct vote *vote;
	struct vote_state found;

	get_bytes(path, old, sizeof old, 0);
	CHECK_CODE(vote_open(path, NODE, false, &vote, &found, &err), CODE_OK);
	vote_close(vote);
	get_bytes(path, new, sizeof new, 0);
	for (int slot = 0; slot < 2; slot++)
		for (size_t len = 0; len <= RECORD; len++) {
			put_bytes(path, old, sizeof old, 0);
			put_bytes(path, new + slot *PAGE, len, slot * PAGE);
			found = reopened(path);
			CHECK_NUM(found.term, 7);
			CHECK_NUM(found.voted_for, 3);
			CHECK(found.starts == 2 || found.starts == 3);
			if (len == RECORD)
				CHECK_NUM(found.starts, 3);
		}
}

/* Runs in a child: votes for (8, 1), (9, 1) ... up to 12 and says each that has returned. */
static void vote_on(const char *path, int fd)
{
	struct vote *vote;
	struct vote_state found;

	if (vote_open(path, NODE, false, &vote, &found, &err) != CODE_OK)
		_exit(3);
	for (uint64_t term = 8; term <= 12; term++) {
		vote_write(vote, term, 1);
		if (write(fd, &term, sizeof term) != sizeof term)
			_exit(4);
	}
	_exit(0);
}

/* A child is ended at the nth pass of a point. Answers its wait status and the last term that it had said. */
static int ended_at(const char *path, const char *point, unsigned nth, uint64_t *said)
{
	int status, pipes[2];
	uint64_t term;
	pid_t child;

	CHECK_NUM(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		close(pipes[0]);
		fault_arm(point, nth);
		vote_on(path, pipes[1]);
	}
	close(pipes[1]);
	*said = 7;
	while (read(pipes[0], &term, sizeof term) == sizeof term)
		*said = term;
	close(pipes[0]);
	CHECK_NUM(waitpid(child, &status, 0), child);
	return status;
}

TEST(a_failing_disk_ends_the_process_and_nothing_said_is_lost)
{
	static const char *const points[] = { "vote.write", "vote.sync" };

	for (size_t p = 0; p < 2; p++)
		for (unsigned nth = 1;; nth++) {
			char *path = made("fails");
			struct vote_state found;
			uint64_t said;
			int status = ended_at(path, points[p], nth, &said);

			CHECK(WIFEXITED(status));
			found = reopened(path);
			CHECK(found.term >= said && found.term <= said + 1);
			unlink(path);
			if (WEXITSTATUS(status) == 0) {
				CHECK(nth > 5);
				break;
			}
			CHECK_NUM(WEXITSTATUS(status), 1);
		}
}
