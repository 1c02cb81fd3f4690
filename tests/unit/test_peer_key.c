/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/fault.h"
#include "lib/test.h"
#include "raft/peer_key.h"

#include <openssl/pem.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;

static const char *path_of(const char *name)
{
	static char paths[4][512];
	static int turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof paths[0], "%s/%s", test_dir(), name);
	return path;
}

static size_t slurp(const char *path, char *out, size_t cap)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, out, cap - 1);

	CHECK(fd >= 0 && n >= 0);
	close(fd);
	out[n] = '\0';
	return (size_t)n;
}

static void spit(const char *path, const char *text, size_t len, mode_t mode)
{
	int fd;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
	CHECK(fd >= 0);
	CHECK_NUM(write(fd, text, len), len);
	fchmod(fd, mode);
	close(fd);
}

TEST(a_key_is_made_once_and_stays)
{
	OWN_STRUCT(peer_key) first = NULL;
	OWN_STRUCT(peer_key) again = NULL;
	const char *path = path_of("once.key");
	struct stat st;
	bool made;

	CHECK_CODE(peer_key_open(path, &first, &made, &err), CODE_OK);
	CHECK(made);
	CHECK_NUM(stat(path, &st), 0);
	CHECK_NUM(st.st_mode & 07777, 0600);
	CHECK_CODE(peer_key_open(path, &again, &made, &err), CODE_OK);
	CHECK(!made);
	CHECK(pin_equal(peer_key_pin(first), peer_key_pin(again)));
}

TEST(what_is_shown_has_the_pin)
{
	OWN_STRUCT(peer_key) key = NULL;
	struct pin pins[PEER_PINS_MAX], parsed;
	char hex[PIN_HEX];
	size_t n = 0;

	CHECK_CODE(peer_key_open(path_of("shown.key"), &key, NULL, &err), CODE_OK);
	CHECK_CODE(peer_pins_of(identity_leaf(peer_key_identity(key)), pins, &n, &err), CODE_OK);
	CHECK_NUM(n, 1);
	CHECK(pin_equal(&pins[0], peer_key_pin(key)));
	CHECK(pin_parse(pin_hex(peer_key_pin(key), hex), &parsed));
	CHECK(pin_equal(&parsed, peer_key_pin(key)));
	CHECK(!pin_parse("abc", &parsed));
	hex[3] = 'G';
	CHECK(!pin_parse(hex, &parsed));
}

TEST(the_old_key_vouches_for_the_new_one)
{
	OWN_STRUCT(peer_key) key = NULL;
	struct pin past[12], pins[PEER_PINS_MAX];
	const char *path = path_of("rotated.key");
	size_t n = 0;

	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_OK);
	for (int i = 0; i < 12; i++) {
		struct peer_key *next = NULL;

		past[i] = *peer_key_pin(key);
		CHECK_CODE(peer_key_rotate(key, path, &next, &err), CODE_OK);
		CHECK(!pin_equal(&past[i], peer_key_pin(next)));
		peer_key_unref(key);
		key = next;
		if (i == 0) { /* a restart reads statements too */
			peer_key_unref(key);
			key = NULL;
			CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_OK);
		}
		CHECK_CODE(peer_pins_of(identity_leaf(peer_key_identity(key)), pins, &n, &err), CODE_OK);
		CHECK_NUM(n, (i + 2 < PEER_PINS_MAX ? i + 2 : PEER_PINS_MAX));
		CHECK(pin_equal(&pins[0], peer_key_pin(key)));
		for (size_t k = 1; k < n; k++)
			CHECK(pin_equal(&pins[k], &past[i + 1 - (int)k]));
	}
}

/* Each byte of the statement is turned in the file: what is shown then vouches for nothing. */
TEST(a_statement_that_was_touched_counts_for_nothing)
{
	OWN_STRUCT(peer_key) key = NULL;
	OWN_STRUCT(peer_key) next = NULL;
	const char *path = path_of("touched.key");
	char text[8192], *begin, *end;
	OWN_BUF raw = { 0 };
	char base64[4096];
	size_t len, n_base64 = 0;

	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_OK);
	CHECK_CODE(peer_key_rotate(key, path, &next, &err), CODE_OK);
	len = slurp(path, text, sizeof text);
	CHECK(len > 0);
	begin = strchr(strstr(text, "BEGIN PEER KEY STATEMENT"), '\n') + 1;
	end = strstr(begin, "-----END");
	for (const char *c = begin; c < end; c++)
		if (*c != '\n')
			base64[n_base64++] = *c;
	CHECK(buf_unbase64(&raw, base64, n_base64, 0));
	for (size_t i = 0; i < raw.len; i++) {
		OWN_STRUCT(peer_key) bad = NULL;
		struct pin pins[PEER_PINS_MAX];
		OWN_BUF file = { 0 };
		size_t n = 0;

		raw.data[i] ^= 1;
		buf_append(&file, text, (size_t)(begin - text));
		buf_base64(&file, raw.data, raw.len, 0);
		buf_printf(&file, "\n%s", end);
		raw.data[i] ^= 1;
		spit(path, (char *)file.data, file.len, 0600);
		if (peer_key_open(path, &bad, NULL, &err) != CODE_OK)
			continue; /* our base64 is one line: PEM may refuse it */
		CHECK_CODE(peer_pins_of(identity_leaf(peer_key_identity(bad)), pins, &n, &err), CODE_OK);
		CHECK_NUM(n, 1);
	}
}

TEST(bad_files_are_refused_by_name)
{
	OWN_STRUCT(peer_key) key = NULL;
	const char *path = path_of("bad.key");
	char text[8192], want[1024];
	size_t len;

	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_OK);
	len = slurp(path, text, sizeof text);
	peer_key_unref(key);
	key = NULL;

	spit(path, text, len, 0644);
	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want,
		 "\"%s\" holds this node's private peer key and others may read or write it (mode 0644): chmod 600, "
		 "and rotate "
		 "the key if it may have been read",
		 path);
	CHECK_STR(err.text, want);
	spit(path, "", 0, 0600);
	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_DATA_LOSS);
	snprintf(want, sizeof want,
		 "\"%s\" does not hold a peer key: restore it, or remove this node from the cluster and let it join "
		 "again with "
		 "an empty data directory",
		 path);
	CHECK_STR(err.text, want);
	for (size_t cut = 1; cut < len - 1; cut++) {
		spit(path, text, cut, 0600);
		CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_DATA_LOSS);
	}
	unlink(path);
	CHECK_NUM(mkdir(path, 0700), 0);
	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_FAILED_PRECONDITION);
	CHECK_CODE(peer_key_open(path_of("nowhere/peer.key"), &key, NULL, &err), CODE_INTERNAL);
	CHECK(strstr(err.text, "nowhere/peer.key.tmp: no such file or directory") != NULL);
}

TEST(another_kind_of_key_is_refused)
{
	static const char p384[] = "-----BEGIN PRIVATE KEY-----\n"
				   "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCvkQ0e6iY9n8Wo8Q2f\n";
	OWN_STRUCT(peer_key) key = NULL;
	const char *path = path_of("other.key");
	EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	BIO *memory = BIO_new(BIO_s_mem());
	char *text;
	long len;

	spit(path, p384, sizeof p384 - 1, 0600);
	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_DATA_LOSS);
	CHECK_NUM(PEM_write_bio_PKCS8PrivateKey(memory, ed, NULL, NULL, 0, NULL, NULL), 1);
	len = BIO_get_mem_data(memory, &text);
	spit(path, text, (size_t)len, 0600);
	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "holds a key that is not EC P-256") != NULL);
	BIO_free(memory);
	EVP_PKEY_free(ed);
}

TEST(a_rotation_that_fails_leaves_the_old_key)
{
	OWN_STRUCT(peer_key) key = NULL;
	const char *path = path_of("fails.key");
	static const char *const points[] = { "peer_key.sync", "peer_key.rename" };

	CHECK_CODE(peer_key_open(path, &key, NULL, &err), CODE_OK);
	for (size_t i = 0; i < 2; i++) {
		OWN_STRUCT(peer_key) again = NULL;
		struct peer_key *next = NULL;

		fault_arm(points[i], 1);
		CHECK_CODE(peer_key_rotate(key, path, &next, &err), CODE_INTERNAL);
		fault_disarm();
		CHECK_CODE(peer_key_open(path, &again, NULL, &err), CODE_OK);
		CHECK(pin_equal(peer_key_pin(key), peer_key_pin(again)));
		CHECK(access(path_of("fails.key.tmp"), F_OK) != 0);
	}
}
