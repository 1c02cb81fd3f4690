/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of the state and generations of the state file. */
#include "base/fault.h"
#include "base/log.h"
#include "lib/state.h"
#include "raft/copy.h"
#include "store/copy.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODE "11111111-2222-4333-8444-555555555555"

static struct err err;

__attribute__((constructor)) static void quiet(void)
{
	log_set_level(LOG_PANIC);
}

static char *path_of(struct arena *arena, const char *name)
{
	return arena_printf(arena, "%s/%s", test_dir(), name);
}

static void fill(struct state *s, int n)
{
	static int number;

	for (int i = 0; i < n; i++, number++) {
		Pb__Outcome *out = state_create(s, state_entry(s, arena_printf(s->arena, "id-%d", number), "/parent",
							       arena_printf(s->arena, "/workload-%d", number),
							       "unix:uid:0 unix:gid:1"));

		CHECK_NUM(out->code, CODE_OK);
	}
}

/* A change of members as the last entry. */
static void stand(struct state *s, uint64_t term)
{
	struct store_step step = { .index = store_applied(s->store) + 1,
				   .term = term,
				   .stamp_ms = s->now_ms,
				   .conf = { (const uint8_t *)"conf", 4 } };

	CHECK_CODE(store_apply_step(s->store, &step, s->arena, &err), CODE_OK);
}

static struct state *state_of(int entries)
{
	struct state *s = calloc(1, sizeof *s);

	state_begin(s);
	fill(s, entries);
	stand(s, 7);
	return s;
}

static void state_free(struct state *s)
{
	state_end(s);
	free(s);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* Sends the file at `from` as `info` says. */
static enum code bring(const char *from, const char *to, const struct copy_info *info, const char *trust_domain)
{
	OWN_STRUCT(copy_in) in = NULL;
	FILE *file = fopen(from, "r");
	static char piece[10000];
	enum code rc = CODE_OK;

	CHECK_CODE(copy_in_open(to, info, &in, &err), CODE_OK);
	for (size_t n; rc == CODE_OK && (n = fread(piece, 1, sizeof piece, file)) > 0;)
		rc = copy_in_write(in, piece, n, &err);
	fclose(file);
	return rc == CODE_OK ? copy_in_finish(in, trust_domain, &err) : rc;
}

struct writing {
	struct state *s;
	int calls;
};

static bool write_meanwhile(void *ctx)
{
	struct writing *writing = ctx;

	fill(writing->s, 3);
	writing->calls++;
	return true;
}

TEST(a_copy_is_of_one_moment_while_writes_go_on)
{
	struct state *s = state_of(9000); /* several MiB */
	struct writing writing = { .s = s };
	const char *to = path_of(s->arena, "moment.db");
	uint64_t index = store_applied(s->store);
	uint8_t kept[32], copied[32];
	struct copy_info info;
	struct store *copy;
	struct stat st;

	store_digest(s->store, kept);
	CHECK_CODE(copy_take(s->path, to, write_meanwhile, &writing, s->arena, &info, &err), CODE_OK);
	CHECK(writing.calls > 2);
	CHECK_NUM(info.state.index, index);
	CHECK_NUM(info.state.term, 7);
	CHECK_NUM(info.state.conf_index, index);
	CHECK_BYTES(info.state.conf.data, "conf", 4);
	CHECK_NUM(stat(to, &st), 0);
	CHECK_NUM(info.len, st.st_size);
	CHECK_NUM(st.st_mode & 0777, 0600);
	CHECK(!exists(arena_printf(s->arena, "%s-wal", to)));
	CHECK_CODE(store_open(to, "example.org", &copy, &err), CODE_OK);
	store_digest(copy, copied);
	CHECK_BYTES(kept, copied, 32);
	CHECK_CODE(store_recount_digest(copy, copied, &err), CODE_OK);
	CHECK_BYTES(kept, copied, 32);
	store_close(copy);
	state_check_digest(s);
	state_free(s);
}

static bool not_on(void *ctx __attribute__((unused)))
{
	return false;
}

TEST(a_copy_that_is_given_up_leaves_nothing)
{
	struct state *s = state_of(3000);
	const char *to = path_of(s->arena, "given-up.db");
	struct store_triple triple;
	struct copy_info info;

	CHECK_CODE(copy_take(s->path, to, not_on, NULL, s->arena, &info, &err), CODE_CANCELLED);
	CHECK(!exists(to));
	CHECK_CODE(store_copy(s->path, to, 1000, NULL, NULL, s->arena, &triple, &err), CODE_RESOURCE_EXHAUSTED);
	CHECK(strstr(err.text, "its WAL has grown to ") != NULL);
	CHECK(!exists(to));
	fault_arm("store.copy", 2);
	CHECK_CODE(copy_take(s->path, to, NULL, NULL, s->arena, &info, &err), CODE_INTERNAL);
	CHECK(!exists(to));
	fault_arm("copy.sync", 1);
	CHECK_CODE(copy_take(s->path, to, NULL, NULL, s->arena, &info, &err), CODE_INTERNAL);
	CHECK(!exists(to));
	fault_disarm();
	CHECK_CODE(copy_take(s->path, "/proc/no/such", NULL, NULL, s->arena, &info, &err), CODE_INTERNAL);
	CHECK_CODE(copy_take(path_of(s->arena, "none.db"), to, NULL, NULL, s->arena, &info, &err), CODE_INTERNAL);
	CHECK(!exists(to));
	state_free(s);
}

TEST(what_arrives_is_judged)
{
	struct state *s = state_of(50);
	const char *from = path_of(s->arena, "sent.db"), *to = path_of(s->arena, "arrived.db");
	struct copy_info info, wrong;
	struct copy_in *in;

	CHECK_CODE(copy_take(s->path, from, NULL, NULL, s->arena, &info, &err), CODE_OK);
	CHECK_CODE(bring(from, to, &info, "example.org"), CODE_OK);
	CHECK(exists(to));
	CHECK(!exists(arena_printf(s->arena, "%s-wal", to)));
	CHECK_CODE(bring(from, to, &info, "elsewhere.org"), CODE_FAILED_PRECONDITION);
	CHECK(!exists(to));
	wrong = info;
	wrong.digest[5] ^= 1;
	CHECK_CODE(bring(from, to, &wrong, "example.org"), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "not the digest that was announced") != NULL);
	CHECK(!exists(to));
	wrong = info;
	wrong.len++;
	CHECK_CODE(bring(from, to, &wrong, "example.org"), CODE_DATA_LOSS);
	wrong.len -= 2;
	CHECK_CODE(bring(from, to, &wrong, "example.org"), CODE_INVALID_ARGUMENT);
	CHECK(!exists(to));
	wrong = info;
	wrong.state.index++;
	CHECK_CODE(bring(from, to, &wrong, "example.org"), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "stands at index 51 (term 7), not at 52 (term 7)") != NULL);
	wrong = info;
	wrong.state.conf.data = (const uint8_t *)"konf";
	CHECK_CODE(bring(from, to, &wrong, "example.org"), CODE_DATA_LOSS);
	CHECK(!exists(to));
	fault_arm("copy.write", 2);
	CHECK_CODE(bring(from, to, &info, "example.org"), CODE_RESOURCE_EXHAUSTED);
	fault_arm("copy.sync", 1);
	CHECK_CODE(bring(from, to, &info, "example.org"), CODE_INTERNAL);
	fault_disarm();
	CHECK(!exists(to));
	CHECK_CODE(copy_in_open(to, &info, &in, &err), CODE_OK); /* a connection that ends */
	CHECK_CODE(copy_in_write(in, "half", 4, &err), CODE_OK);
	CHECK_NUM(copy_in_received(in), 4);
	copy_in_close(in);
	CHECK(!exists(to));
	state_free(s);
}

/* The sender's own disk is rotten: the bytes are what it sent, the rows are not what they were. */
TEST(a_copy_with_rotten_rows_is_refused)
{
	struct state *s = state_of(50);
	const char *from = path_of(s->arena, "rotten.db"), *to = path_of(s->arena, "rotten-in.db");
	struct copy_info info, again;
	FILE *file;
	static char bytes[1 << 20];
	size_t n;
	char *at;

	CHECK_CODE(copy_take(s->path, from, NULL, NULL, s->arena, &info, &err), CODE_OK);
	file = fopen(from, "r+");
	n = fread(bytes, 1, sizeof bytes, file);
	for (at = bytes; (at = memmem(at, n - (size_t)(at - bytes), "workload-", 9)) != NULL; at++) {
		fseek(file, at - bytes, SEEK_SET);
		fputs("worklold-", file);
	}
	fclose(file);
	CHECK_CODE(copy_take(from, path_of(s->arena, "rotten-2.db"), NULL, NULL, s->arena, &again, &err), CODE_OK);
	CHECK_CODE(bring(path_of(s->arena, "rotten-2.db"), to, &again, "example.org"), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "its rows do not have its digest") != NULL);
	CHECK(!exists(to));
	state_free(s);
}

/* --- generations --- */

static char *data_dir(struct arena *arena, const char *name)
{
	char *dir = path_of(arena, name);

	CHECK_NUM(mkdir(dir, 0700), 0);
	return dir;
}

static void put_file(struct arena *arena, const char *dir, const char *name, const char *text)
{
	FILE *file = fopen(arena_printf(arena, "%s/%s", dir, name), "w");

	CHECK(file != NULL);
	fputs(text, file);
	fclose(file);
}

static char *get_file(struct arena *arena, const char *path)
{
	char *text = arena_zalloc(arena, 100);
	FILE *file = fopen(path, "r");

	CHECK(file != NULL);
	CHECK(fgets(text, 100, file) != NULL);
	fclose(file);
	return text;
}

static int count_files(const char *dir)
{
	DIR *open_dir = opendir(dir);
	int n = 0;

	for (struct dirent *file; (file = readdir(open_dir)) != NULL;)
		n += file->d_name[0] != '.';
	closedir(open_dir);
	return n;
}

TEST(an_installed_copy_counts_from_then_on)
{
	OWN_STRUCT(arena) arena = arena_new();
	char *dir = data_dir(arena, "generations"), *old;
	struct generations *g;

	put_file(arena, dir, "state.db", "zero");
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK);
	CHECK_NUM(generations_number(g), 0);
	old = arena_strdup(arena, generations_path(g));
	CHECK_STR(old, arena_printf(arena, "%s/state.db", dir));
	put_file(arena, dir, "state.in.copy.tmp", "forty");
	CHECK_STR(generations_temporary(g, "in", arena), arena_printf(arena, "%s/state.in.copy.tmp", dir));
	generations_install(g, generations_temporary(g, "in", arena), 40);
	CHECK_STR(generations_path(g), arena_printf(arena, "%s/state.40.db", dir));
	CHECK_STR(get_file(arena, generations_path(g)), "forty");
	CHECK_STR(get_file(arena, old), "zero"); /* for those who read it */
	generations_forget(g, old);
	CHECK(!exists(old));
	put_file(arena, dir, "state.x.copy.tmp", "thirty"); /* a restore: numbers rise all the same */
	generations_install(g, generations_temporary(g, "x", arena), 30);
	CHECK_NUM(generations_number(g), 41);
	generations_close(g);
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK);
	CHECK_STR(get_file(arena, generations_path(g)), "thirty");
	CHECK_NUM(count_files(dir), 2); /* state.40.db is gone */
	generations_close(g);
}

TEST(leftovers_go_at_the_start_and_nothing_else)
{
	OWN_STRUCT(arena) arena = arena_new();
	char *dir = data_dir(arena, "leftovers");
	static const char *const go[] = { "state.7.db", "state.7.db-wal", "state.7.db-shm", "state.a.copy.tmp",
					  "state.a.copy.tmp-wal" };
	static const char *const stay[] = { "state.db", "state.db-wal", "state.07.db", "state.7.db.bak",
					    "state.x",  "keys.json",    "state.-1.db" };
	struct generations *g;

	put_file(arena, dir, "state.db", "zero");
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK);
	generations_close(g);
	for (size_t i = 0; i < sizeof go / sizeof *go; i++)
		put_file(arena, dir, go[i], "x");
	for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
		put_file(arena, dir, stay[i], "x");
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK);
	generations_close(g);
	for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
		CHECK(exists(arena_printf(arena, "%s/%s", dir, stay[i])));
	CHECK_NUM(count_files(dir), (int)(sizeof stay / sizeof *stay) + 1);
}

TEST(what_is_missing_is_refused_by_name)
{
	OWN_STRUCT(arena) arena = arena_new();
	char *dir = data_dir(arena, "missing");
	struct generations *g;

	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK); /* empty: a new node */
	put_file(arena, dir, "state.in.copy.tmp", "forty");
	generations_install(g, generations_temporary(g, "in", arena), 40);
	generations_close(g);
	CHECK_NUM(rename(arena_printf(arena, "%s/state.40.db", dir), arena_printf(arena, "%s/kept", dir)), 0);
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "state.40.db\" is missing") != NULL);
	CHECK_NUM(rename(arena_printf(arena, "%s/kept", dir), arena_printf(arena, "%s/state.40.db", dir)), 0);
	CHECK_CODE(generations_open(dir, "99999999-2222-4333-8444-555555555555", &g, &err), CODE_FAILED_PRECONDITION);
	CHECK_NUM(unlink(arena_printf(arena, "%s/state.current", dir)), 0);
	CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "state.current\" is missing") != NULL);
	CHECK(exists(arena_printf(arena, "%s/state.40.db", dir)));
	CHECK_CODE(generations_open(path_of(arena, "no-such-dir"), NODE, &g, &err), CODE_INTERNAL);
}

/* The process ends at each step of an install: afterwards one state counts, the old one or the new one. */
TEST(an_install_that_is_cut_short_is_whole_or_not_at_all)
{
	static const char *const points[] = { "copy.rename", "copy.pointer" };
	unsigned old = 0, new = 0;

	for (size_t p = 0; p < 2; p++)
		for (unsigned nth = 1;; nth++) {
			OWN_STRUCT(arena) arena = arena_new();
			char *dir = data_dir(arena, arena_printf(arena, "cut-%zu-%u", p, nth)), *text;
			struct generations *g;
			int status;
			pid_t pid;

			put_file(arena, dir, "state.db", "old");
			put_file(arena, dir, "state.in.copy.tmp", "new");
			pid = fork();
			if (pid == 0) {
				put_file(arena, dir, "state.in.copy.tmp", "new");
				if (generations_open(dir, NODE, &g, &err) != CODE_OK)
					_exit(3);
				put_file(arena, dir, "state.in.copy.tmp", "new");
				fault_arm(points[p], nth);
				generations_install(g, generations_temporary(g, "in", arena), 40);
				_exit(0);
			}
			CHECK_NUM(waitpid(pid, &status, 0), pid);
			CHECK(WIFEXITED(status));
			CHECK_CODE(generations_open(dir, NODE, &g, &err), CODE_OK);
			text = get_file(arena, generations_path(g));
			generations_close(g);
			CHECK_NUM(count_files(dir), 2);
			CHECK(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
			(strcmp(text, "old") == 0 ? &old : &new)[0]++;
			if (WEXITSTATUS(status) == 0) {
				CHECK_STR(text, "new");
				break;
			}
			CHECK_NUM(WEXITSTATUS(status), 1);
		}
	CHECK(old > 2 && new > 2);
}
