/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/test.h"
#include "raft/node.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct err err;

static void path_of(const char *name, char out[256])
{
	snprintf(out, 256, "%s/%s", test_dir(), name);
}

TEST(the_id_is_made_once_and_stays)
{
	char dir[256], id[64];
	struct node *node;
	struct stat st;

	path_of("deep/er/data", dir);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	CHECK_NUM(strlen(node_id(node)), 36);
	strcpy(id, node_id(node));
	node_close(node);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	CHECK_STR(node_id(node), id);
	node_close(node);
	strcat(dir, "/node");
	CHECK_NUM(stat(dir, &st), 0);
	CHECK_NUM(st.st_mode & 0777, 0700);
}

TEST(a_second_process_is_refused_by_name)
{
	char dir[256], want[128];
	struct node *node, *second = NULL;

	path_of("locked", dir);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	CHECK_CODE(node_open(dir, &second, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want, "in use by another server (process %ld)", (long)getpid());
	CHECK(strstr(err.text, dir) != NULL && strstr(err.text, want) != NULL);
	CHECK(second == NULL);
	node_close(node);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	node_close(node);
}

TEST(the_lock_goes_with_a_killed_process)
{
	char dir[256];
	struct node *node;
	int status, pipes[2];
	char byte;
	pid_t child;

	path_of("killed", dir);
	CHECK_NUM(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		if (node_open(dir, &node, &err) == CODE_OK && write(pipes[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	CHECK_NUM(read(pipes[0], &byte, 1), 1);
	CHECK_CODE(node_open(dir, &node, &err), CODE_FAILED_PRECONDITION);
	CHECK_NUM(kill(child, SIGKILL), 0);
	CHECK_NUM(waitpid(child, &status, 0), child);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	node_close(node);
}

TEST(a_damaged_id_is_not_replaced)
{
	char dir[256], id[300];
	struct node *node;
	FILE *file;

	path_of("damaged", dir);
	CHECK_CODE(node_open(dir, &node, &err), CODE_OK);
	node_close(node);
	snprintf(id, sizeof id, "%s/node/id", dir);
	file = fopen(id, "w");
	fputs("short", file);
	fclose(file);
	CHECK_CODE(node_open(dir, &node, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, id) != NULL);
}

TEST(what_cannot_be_made_is_named)
{
	struct node *node;

	CHECK_CODE(node_open("/proc/no/such", &node, &err), CODE_INTERNAL);
	CHECK(strstr(err.text, "/proc/no") != NULL);
}
