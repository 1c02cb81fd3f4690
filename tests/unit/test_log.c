/* SPDX-License-Identifier: Apache-2.0 */
/* The log's lines, compared with what SPIRE's logrus prints (recorded from a stock server), its file, its levels. */
#include "lib/test.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms;

static int64_t fixed_ms(void *ctx)
{
	(void)ctx;
	return now_ms;
}

static const struct clock fixed = { fixed_ms, fixed_ms, NULL };

static char path[128];

static void open_log(const char *format, enum log_level level)
{
	struct log_options options = { .level = level, .format = format, .file = path };
	struct err err = { 0 };

	snprintf(path, sizeof path, "%s/log", test_dir());
	unlink(path);
	CHECK_CODE(log_open(&options, &err), CODE_OK);
}

static const char *written(const char *from)
{
	static char text[1 << 20];
	int fd = open(from, O_RDONLY);
	ssize_t n;

	CHECK(fd >= 0);
	n = read(fd, text, sizeof text - 1);
	CHECK(n >= 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static void zone(const char *name)
{
	setenv("TZ", name, 1);
	tzset();
	now_ms = 1764000000123; /* 2025-11-24 16:00:00.123 UTC */
	clock_use(&fixed);
}

static void log_samples(void)
{
	log_info("Configured", KV_LIST("admin_ids", "[\"spiffe://example.org/a\",\"spiffe://example.org/b\"]"),
		 KV("version", "1.13.3"), KV("data_dir", "/tmp/d-/data"));
	log_warn("Current umask 0022 is too permissive; setting umask 0027");
	log_error("x", KV_BOOL("read_only", false), KV_NUM("ttl", -5), KV("empty", ""), KV("left_out", NULL),
		  KV_LIST("also_left_out", NULL));
	log_info("X509 CA prepared", KV_TIME("expiration", 1764086400), KV_LIST("none", "[]"),
		 KV_LIST("nothing", "null"));
	log_info("API accessed",
		 KV("hint", "h<a>\t\"\\\xc3\xa9\x01\xc2\xa0\xe2\x80\xa8&\b\f\x7f\xc2\xad\xf0\x9f\x98\x80\xff"),
		 KV("ok", "aZ09-._/@^+"), KV("not", "a:b"));
}

TEST(text_lines_are_those_of_logrus)
{
	zone("UTC0");
	open_log("", LOG_INFO);
	log_samples();
	CHECK_STR(written(path),
		  "time=\"2025-11-24T16:00:00Z\" level=info msg=Configured admin_ids=\"[spiffe://example.org/a "
		  "spiffe://example.org/b]\" data_dir=/tmp/d-/data version=1.13.3\n"
		  "time=\"2025-11-24T16:00:00Z\" level=warning msg=\"Current umask 0022 is too permissive; setting "
		  "umask 0027\"\n"
		  "time=\"2025-11-24T16:00:00Z\" level=error msg=x empty= read_only=false ttl=-5\n"
		  "time=\"2025-11-24T16:00:00Z\" level=info msg=\"X509 CA prepared\" expiration=\"2025-11-25 16:00:00 "
		  "+0000 UTC\" "
		  "none=\"[]\" nothing=\"[]\"\n"
		  "time=\"2025-11-24T16:00:00Z\" level=info msg=\"API accessed\" "
		  "hint=\"h<a>\\t\\\"\\\\\xc3\xa9\\x01\\u00a0\\u2028&\\b\\f\\x7f\\u00ad\xf0\x9f\x98\x80\\xff\" "
		  "not=\"a:b\" "
		  "ok=aZ09-._/@^+\n");
	clock_use(NULL);
}

TEST(json_lines_are_those_of_logrus)
{
	zone("UTC0");
	open_log("JSON", LOG_INFO);
	log_samples();
	CHECK_STR(
		written(path),
		"{\"admin_ids\":[\"spiffe://example.org/a\",\"spiffe://example.org/b\"],\"data_dir\":\"/tmp/d-/data\","
		"\"level\":\"info\",\"msg\":\"Configured\",\"time\":\"2025-11-24T16:00:00.123Z\",\"version\":\"1.13."
		"3\"}\n"
		"{\"level\":\"warning\",\"msg\":\"Current umask 0022 is too permissive; setting umask 0027\","
		"\"time\":\"2025-11-24T16:00:00.123Z\"}\n"
		"{\"empty\":\"\",\"level\":\"error\",\"msg\":\"x\",\"read_only\":false,\"time\":\"2025-11-24T16:00:00."
		"123Z\","
		"\"ttl\":-5}\n"
		"{\"expiration\":\"2025-11-25T16:00:00Z\",\"level\":\"info\",\"msg\":\"X509 CA prepared\",\"none\":[],"
		"\"nothing\":null,\"time\":\"2025-11-24T16:00:00.123Z\"}\n"
		"{\"hint\":"
		"\"h\\u003ca\\u003e\\t\\\"\\\\\xc3\xa9\\u0001\xc2\xa0\\u2028\\u0026\\b\\f\x7f\xc2\xad\xf0\x9f\x98\x80\\"
		"ufffd\","
		"\"level\":\"info\",\"msg\":\"API accessed\",\"not\":\"a:b\",\"ok\":\"aZ09-._/@^+\","
		"\"time\":\"2025-11-24T16:00:00.123Z\"}\n");
	clock_use(NULL);
}

TEST(times_are_local_and_nanoseconds_end_without_zeros)
{
	zone("CET-1");
	open_log("text", LOG_INFO);
	log_info("a", KV_TIME("t", 0));
	now_ms = 1764000000000;
	log_info("b");
	zone("NST3:30");
	log_info("c", KV_TIME("t", 253402300799));
	CHECK_STR(written(path),
		  "time=\"2025-11-24T17:00:00.123+01:00\" level=info msg=a t=\"1970-01-01 01:00:00 +0100 CET\"\n"
		  "time=\"2025-11-24T17:00:00+01:00\" level=info msg=b\n"
		  "time=\"2025-11-24T12:30:00.123-03:30\" level=info msg=c t=\"9999-12-31 20:29:59 -0330 NST\"\n");
	zone("UTC0");
	clock_use(NULL);
}

TEST(pairs_may_not_pose_as_the_lines_own)
{
	zone("UTC0");
	open_log("", LOG_INFO);
	log_info("m", KV("msg", "x"), KV("zz", "1"), KV("level", "debug"), KV("a", "old"), KV("time", "t"),
		 KV("a", "new"));
	CHECK_STR(written(path), "time=\"2025-11-24T16:00:00Z\" level=info msg=m a=new fields.level=debug fields.msg=x "
				 "fields.time=t zz=1\n");
	clock_use(NULL);
}

TEST(a_line_takes_any_number_of_pairs)
{
	static char keys[500][8];
	static struct log_pair pairs[501];
	const char *line, *last = "";

	zone("UTC0");
	open_log("json", LOG_INFO);
	for (int i = 0; i < 500; i++) {
		snprintf(keys[i], sizeof keys[i], "k%03d", (i * 7) % 500);
		pairs[i] = (struct log_pair)KV_NUM(keys[i], i);
	}
	log_write(LOG_INFO, "many", pairs);
	line = written(path);
	for (int i = 0; i < 500; i++) {
		char key[16];

		snprintf(key, sizeof key, "\"k%03d\":", i);
		CHECK(strstr(line, key) > last || last[0] == '\0');
		last = strstr(line, key);
	}
	clock_use(NULL);
}

TEST(levels)
{
	static const char *const names[] = { "panic", "fatal", "error", "warning", "info", "debug", "trace" };
	enum log_level level;

	for (int i = 0; i < 7; i++) {
		CHECK(log_level_parse(names[i], &level));
		CHECK_NUM(level, LOG_PANIC + i);
		CHECK_STR(log_level_name(level), names[i]);
	}
	CHECK(log_level_parse("Warn", &level) && level == LOG_WARN);
	CHECK(log_level_parse("DEBUG", &level) && level == LOG_DEBUG);
	CHECK(!log_level_parse("", &level) && !log_level_parse("information", &level) && level == LOG_DEBUG);

	open_log("", LOG_WARN);
	CHECK(log_enabled(LOG_ERROR) && log_enabled(LOG_WARN) && !log_enabled(LOG_INFO));
	log_info("unseen");
	log_set_level(LOG_DEBUG);
	CHECK_NUM(log_get_level(), LOG_DEBUG);
	log_debug("seen");
	CHECK(strstr(written(path), "level=debug msg=seen\n") != NULL);
	CHECK(strstr(written(path), "unseen") == NULL);
}

TEST(what_cannot_be_opened_is_said)
{
	struct log_options options = { .level = LOG_INFO, .format = "yaml" };
	struct err err = { 0 };

	CHECK_CODE(log_open(&options, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unknown logger format: \"yaml\"");
	options.format = "json";
	options.file = "/nonexistent/log";
	CHECK_CODE(log_open(&options, &err), CODE_UNKNOWN);
	CHECK_STR(err.text, "open /nonexistent/log: no such file or directory");
}

TEST(the_file_is_private_appended_to_and_opened_again_by_name)
{
	char moved[160];
	struct err err = { 0 };
	struct stat st;

	umask(0);
	open_log("", LOG_INFO);
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
	log_info("one");
	snprintf(moved, sizeof moved, "%s.1", path);
	CHECK_NUM(rename(path, moved), 0);
	log_info("two"); /* still to the old one */
	CHECK_CODE(log_reopen(&err), CODE_OK);
	log_info("three");
	CHECK(strstr(written(moved), "msg=one\n") != NULL && strstr(written(moved), "msg=two\n") != NULL);
	CHECK(strstr(written(moved), "three") == NULL);
	CHECK(strstr(written(path), "msg=three\n") != NULL);
	CHECK_CODE(log_reopen(&err), CODE_OK);
	log_info("four");
	CHECK(strstr(written(path), "msg=three\n") != NULL && strstr(written(path), "msg=four\n") != NULL);

	/* A name that cannot be opened leaves the old file. */
	CHECK_NUM(unlink(path), 0);
	CHECK_NUM(mkdir(path, 0700), 0);
	CHECK_CODE(log_reopen(&err), CODE_UNKNOWN);
	CHECK(strstr(err.text, ": is a directory") != NULL);
	log_info("five");
	CHECK_NUM(rmdir(path), 0);
	unlink(moved);
}

enum { WRITERS = 4, LINES = 500 };

static void *write_lines(void *arg)
{
	char text[128];

	memset(text, 'a' + (int)(intptr_t)arg, sizeof text - 1);
	text[sizeof text - 1] = '\0';
	for (int i = 0; i < LINES; i++)
		log_info("line", KV("text", text), KV_NUM("n", i));
	return NULL;
}

TEST(lines_of_threads_do_not_mix)
{
	pthread_t threads[WRITERS];
	struct err err = { 0 };
	const char *text;
	int lines = 0;

	open_log("json", LOG_INFO);
	for (intptr_t i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, write_lines, (void *)i);
	for (int i = 0; i < 20; i++)
		CHECK_CODE(log_reopen(&err), CODE_OK);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	for (text = written(path); *text != '\0'; text = strchr(text, '\n') + 1, lines++) {
		const char *a = strstr(text, "\"text\":\"");

		CHECK(strncmp(text, "{\"level\":\"info\",\"msg\":\"line\",\"n\":", 33) == 0);
		CHECK(a != NULL && strspn(a + 8, (char[]){ a[8], '\0' }) == 127);
	}
	CHECK_NUM(lines, WRITERS * LINES);
}

/* In a child, whose standard output we are. */
static int run_child(void (*child)(void), char *out, size_t size)
{
	size_t len = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	fflush(NULL);
	CHECK_NUM(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		child();
		_exit(0);
	}
	close(fds[1]);
	if (out != NULL) {
		while ((n = read(fds[0], out + len, size - 1 - len)) > 0)
			len += (size_t)n;
		out[len] = '\0';
	}
	close(fds[0]);
	CHECK_NUM(waitpid(pid, &status, 0), pid);
	return status;
}

static void to_stdout_then_fatal(void)
{
	struct log_options options = { .level = LOG_INFO };
	struct err err;

	log_open(&options, &err);
	log_info("to standard output");
	log_fatal("the disk is gone", KV("error", "write log: input/output error"));
}

TEST(fatal_says_why_and_ends_the_process_with_1)
{
	char out[1024];
	int status = run_child(to_stdout_then_fatal, out, sizeof out);

	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	CHECK(strstr(out, " level=info msg=\"to standard output\"\n") != NULL);
	CHECK(strstr(out, " level=fatal msg=\"the disk is gone\" error=\"write log: input/output error\"\n") != NULL);
}

static void log_to_nobody(void)
{
	struct log_options options = { .level = LOG_INFO };
	struct err err;

	log_open(&options, &err);
	for (int i = 0; i < 100000; i++) {
		errno = 0;
		if (write(STDOUT_FILENO, "", 1) < 0 && errno == EPIPE)
			break; /* the reader is gone */
	}
	log_info("nobody reads this");
	_exit(7);
}

TEST(a_log_that_nobody_reads_does_not_end_the_process)
{
	int status = run_child(log_to_nobody, NULL, 0);

	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}
