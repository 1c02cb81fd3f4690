/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, the KeyManagers and their file, keyrings. */
#include "base/arena.h"
#include "base/fault.h"
#include "ca/key.h"
#include "ca/keyring.h"
#include "ca/signer.h"
#include "ca/x509.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

OWNABLE_STRUCT(key_manager, key_manager_close)

/* As a SPIRE server left it. */
static const char spire_file[] = "{\n"
				 "\t\"keys\": {\n"
				 "\t\t\"JWT-Signer-A\": "
				 "\"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaPi3J0HMDmVAiw48MlJvNmai7/93oNg6/"
				 "lM53qzZ/9ShRANCAAToeYkMqFG3HVVvRL1kkf"
				 "F7o5kSgPr8ZKaFruiQIVPKVCQJ1kGwwENm9H7ityxU/odpNxY4IedyjQioQ9+BXc9r\",\n"
				 "\t\t\"x509-CA-A\": "
				 "\"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/"
				 "M5u11XoIH5SG90QnH5jIUjetpegrMYt+iyVOP9veaahRANCAATuOgf0T8SDGGR7cfwwfNWF"
				 "Gh1DCv9E3fCdGGCtoGif+1b3v5UnzZoIePsk6y9Q6hhXuxZKEpjYARRVvTU5wuRs\"\n"
				 "\t}\n"
				 "}";

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", test_dir(), name);
	return path;
}

static void put_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	fputs(text, file);
	fclose(file);
}

static void get_file(const char *path, struct buf *out)
{
	FILE *file = fopen(path, "r");
	char part[4096];
	size_t n;

	assert_non_null(file);
	while ((n = fread(part, 1, sizeof part, file)) > 0)
		buf_append(out, part, n);
	fclose(file);
}

static bool is_key(struct key_manager *manager, const char *id, EVP_PKEY *key)
{
	OWN(EVP_PKEY) have = NULL;
	struct err err = { 0 };

	return key_manager_get(manager, id, &have, &err) == CODE_OK && EVP_PKEY_eq(have, key) == 1;
}

/* ---- keys ---- */

TEST(key_types_have_names)
{
	static const char *const names[] = { "ec-p256", "ec-p384", "rsa-2048", "rsa-4096" };
	enum key_type type;
	struct err err = { 0 };

	for (int i = 0; i < 4; i++) {
		CHECK_CODE(key_type_parse(names[i], &type, &err), CODE_OK);
		CHECK_NUM(type, i);
		CHECK_STR(key_type_name(type), names[i]);
	}
	CHECK_CODE(key_type_parse("EC-P256", &type, &err), CODE_OK);
	CHECK_CODE(key_type_parse("dsa", &type, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "key type \"dsa\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]");
}

TEST(generated_keys_are_of_their_type)
{
	for (enum key_type type = KEY_EC_P256; type <= KEY_RSA_2048; type++) {
		OWN(EVP_PKEY) key = NULL;
		enum key_type got;
		struct err err = { 0 };

		CHECK_CODE(key_generate(type, &key, &err), CODE_OK);
		CHECK_CODE(key_type_of(key, &got, &err), CODE_OK);
		CHECK_NUM(got, type);
	}
}

TEST(other_keys_have_no_type)
{
	static const struct {
		const char *kind, *text;
	} cases[] = {
		{ "P-521", "no EC key type for EC curve: secp521r1" },
		{ "RSA-3072", "no RSA key type for key bit length: 3072" },
		{ "ED25519", "unexpected private key type ED25519" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		OWN(EVP_PKEY) key = pki_key(cases[i].kind);
		struct jwt_authority *authority;
		enum key_type type;
		struct err err = { 0 };

		CHECK_CODE(key_type_of(key, &type, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].text);
		CHECK_CODE(jwt_authority_new(key, "kid", 0, &authority, &err), CODE_INVALID_ARGUMENT);
	}
}

TEST(subject_key_id_is_method_1)
{
	OWN(EVP_PKEY) key = pki_key("RSA-2048");
	OWN(X509) cert = pki_cert(&(struct pki_cert){ .subject = "/CN=x", .key = key });
	unsigned char wanted[20];
	uint8_t got[20];
	struct err err = { 0 };

	X509_pubkey_digest(cert, EVP_sha1(), wanted, NULL);
	CHECK_CODE(key_subject_key_id(key, got, &err), CODE_OK);
	CHECK_BYTES(got, wanted, 20);
}

/* ---- memory ---- */

TEST(memory_keeps_keys_by_id)
{
	OWN_STRUCT(key_manager) manager = NULL;
	OWN(EVP_PKEY) a = NULL;
	OWN(EVP_PKEY) b = NULL;
	OWN(EVP_PKEY) again = NULL;
	OWN(EVP_PKEY) none = NULL;
	struct err err = { 0 };

	CHECK_CODE(key_manager_open_memory(&manager, &err), CODE_OK);
	CHECK_CODE(key_manager_get(manager, "x509-CA-A", &none, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "no such key \"x509-CA-A\"");
	CHECK_CODE(key_manager_generate(manager, "x509-CA-A", KEY_EC_P256, &a, &err), CODE_OK);
	CHECK_CODE(key_manager_generate(manager, "JWT-Signer-A", KEY_EC_P384, &b, &err), CODE_OK);
	CHECK(is_key(manager, "x509-CA-A", a));
	CHECK(is_key(manager, "JWT-Signer-A", b));
	CHECK_CODE(key_manager_generate(manager, "x509-CA-A", KEY_EC_P256, &again, &err), CODE_OK);
	CHECK(is_key(manager, "x509-CA-A", again));
	CHECK(!is_key(manager, "x509-CA-A", a));
	CHECK(EVP_PKEY_get_bits(a) == 256); /* the caller's reference outlives the entry */
}

/* ---- disk ---- */

TEST(disk_keeps_keys_across_restarts)
{
	const char *path = path_of("keys.json");
	OWN_STRUCT(key_manager) manager = NULL;
	OWN_STRUCT(key_manager) next = NULL;
	OWN(EVP_PKEY) ec = NULL;
	OWN(EVP_PKEY) rsa = NULL;
	struct err err = { 0 };
	struct stat st;

	CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_OK);
	CHECK_NUM(access(path, F_OK), -1); /* the first key makes it */
	CHECK_CODE(key_manager_generate(manager, "x509-CA-A", KEY_EC_P384, &ec, &err), CODE_OK);
	CHECK_CODE(key_manager_generate(manager, "a \"quoted\" id", KEY_RSA_2048, &rsa, &err), CODE_OK);
	CHECK_NUM(stat(path, &st), 0);
	CHECK_NUM(st.st_mode & 07777, 0600);
	CHECK_CODE(key_manager_open_disk(path, &next, &err), CODE_OK);
	CHECK(is_key(next, "x509-CA-A", ec));
	CHECK(is_key(next, "a \"quoted\" id", rsa));
	unlink(path);
}

TEST(file_of_a_spire_server_loads_and_keeps_its_form)
{
	const char *path = path_of("spire.json");
	OWN_STRUCT(key_manager) manager = NULL;
	OWN(EVP_PKEY) key = NULL;
	OWN(EVP_PKEY) made = NULL;
	OWN_BUF after = { 0 };
	struct err err = { 0 };

	put_file(path, spire_file);
	CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_OK);
	CHECK_CODE(key_manager_get(manager, "x509-CA-A", &key, &err), CODE_OK);
	CHECK_CODE(key_manager_generate(manager, "y", KEY_EC_P256, &made, &err), CODE_OK);
	get_file(path, &after);
	/* All of the old file but its end, then the new key. */
	CHECK_BYTES(after.data, spire_file, sizeof spire_file - 1 - strlen("\n\t}\n}"));
	CHECK_BYTES(after.data + sizeof spire_file - 1 - strlen("\n\t}\n}"), ",\n\t\t\"y\": \"", 10);
	CHECK_BYTES(after.data + after.len - 6, "\"\n\t}\n}", 6);
	unlink(path);
}

TEST(unreadable_files_are_errors)
{
	static const struct {
		const char *text, *problem;
	} cases[] = {
		{ "", "unable to decode keys JSON: " },
		{ "{", "unable to decode keys JSON: " },
		{ "[]", "unable to decode keys JSON: " },
		{ "{\"keys\": []}", "unable to decode keys JSON: " },
		{ "{\"keys\": {\"a\": 3}}", "unable to decode keys JSON: key \"a\" is not a string" },
		{ "{\"keys\": {\"a\": \"?\"}}", "unable to decode keys JSON: key \"a\" is not base64" },
		{ "{\"keys\": {\"a\": \"\"}}", "unable to parse key \"a\"" },
		{ "{\"keys\": {\"a\": \"AAAA\"}}", "unable to parse key \"a\"" },
		{ "{\"keys\": {}} x", "unable to decode keys JSON: " },
		{ "{\"keys\": {\"a\": \"MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\"}}",
		  "unable to make key entry for key \"a\": unexpected private key type" },
	};
	const char *path = path_of("bad.json");

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct key_manager *manager;
		struct err err = { 0 };

		put_file(path, cases[i].text);
		CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_INTERNAL);
		if (strncmp(err.text, cases[i].problem, strlen(cases[i].problem)) != 0)
			CHECK_STR(err.text, cases[i].problem);
	}
	unlink(path);
}

TEST(empty_tables_are_no_keys)
{
	static const char *const texts[] = { "{}", "{\"keys\": null}", "{\"keys\": {}, \"other\": 1}" };
	const char *path = path_of("none.json");

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		OWN_STRUCT(key_manager) manager = NULL;
		OWN(EVP_PKEY) key = NULL;
		struct err err = { 0 };

		put_file(path, texts[i]);
		CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_OK);
		CHECK_CODE(key_manager_get(manager, "a", &key, &err), CODE_NOT_FOUND);
	}
	unlink(path);
}

TEST(bad_places_are_errors)
{
	struct key_manager *manager;
	struct err err = { 0 };
	char wanted[300];

	CHECK_CODE(key_manager_open_disk("", &manager, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "keys_path is required");
	CHECK_CODE(key_manager_open_disk(path_of("absent/keys.json"), &manager, &err), CODE_INTERNAL);
	snprintf(wanted, sizeof wanted, "stat %s: no such file or directory", path_of("absent"));
	CHECK_STR(err.text, wanted);
	CHECK_CODE(key_manager_open_disk(test_dir(), &manager, &err), CODE_INTERNAL); /* a directory */
	snprintf(wanted, sizeof wanted, "read %s: is a directory", test_dir());
	CHECK_STR(err.text, wanted);
}

TEST(failed_writes_leave_the_old_keys)
{
	static const char *const points[] = { "keys.fsync", "keys.rename" };
	const char *path = path_of("crash.json");
	OWN_STRUCT(key_manager) manager = NULL;
	OWN(EVP_PKEY) first = NULL;
	OWN_BUF before = { 0 };
	struct err err = { 0 };

	CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_OK);
	CHECK_CODE(key_manager_generate(manager, "a", KEY_EC_P256, &first, &err), CODE_OK);
	get_file(path, &before);
	for (size_t i = 0; i < 2; i++) {
		OWN_STRUCT(key_manager) after_crash = NULL;
		OWN(EVP_PKEY) key = NULL;
		OWN_BUF after = { 0 };

		fault_arm(points[i], 1);
		CHECK_CODE(key_manager_generate(manager, "a", KEY_EC_P256, &key, &err), CODE_INTERNAL);
		CHECK(fault_fired());
		fault_disarm();
		assert_memory_equal(err.text, "unable to write entries: ", 25);
		CHECK(key == NULL);
		CHECK(is_key(manager, "a", first));
		get_file(path, &after);
		CHECK_NUM(after.len, before.len);
		CHECK_BYTES(after.data, before.data, before.len);
		CHECK_CODE(key_manager_open_disk(path, &after_crash, &err), CODE_OK);
		CHECK(is_key(after_crash, "a", first));
	}
	{ /* a temporary file that a crash left, readable by all */
		OWN(EVP_PKEY) key = NULL;
		char temporary[300];
		struct stat st;

		snprintf(temporary, sizeof temporary, "%s.tmp", path);
		put_file(temporary, "half a fi");
		chmod(temporary, 0644);
		CHECK_CODE(key_manager_generate(manager, "a", KEY_EC_P256, &key, &err), CODE_OK);
		CHECK_NUM(stat(path, &st), 0);
		CHECK_NUM(st.st_mode & 07777, 0600);
		CHECK_NUM(access(temporary, F_OK), -1);
	}
	unlink(path);
}

static void *generate_and_get(void *held)
{
	struct key_manager *manager = held;

	for (int i = 0; i < 20; i++) {
		OWN(EVP_PKEY) made = NULL;
		OWN(EVP_PKEY) got = NULL;
		struct err err = { 0 };

		if (key_manager_generate(manager, "shared", KEY_EC_P256, &made, &err) != CODE_OK ||
		    key_manager_get(manager, "shared", &got, &err) != CODE_OK)
			abort();
	}
	return NULL;
}

TEST(threads_share_a_manager)
{
	const char *path = path_of("threads.json");
	OWN_STRUCT(key_manager) manager = NULL;
	pthread_t threads[3];
	struct err err = { 0 };

	CHECK_CODE(key_manager_open_disk(path, &manager, &err), CODE_OK);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, generate_and_get, manager), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	unlink(path);
}

/* ---- keyrings ---- */

static struct keyring *keyring_for(const char *kid)
{
	static const struct x509_ca_subject subject = { 0 };
	OWN_STRUCT(arena) arena = arena_new();
	EVP_PKEY *ca = pki_key("P-256"), *jwt = pki_key("P-256");
	struct x509_authority *x509_authority;
	struct jwt_authority *jwt_authority;
	struct x509_svid svid;
	struct err err = { 0 };

	CHECK_CODE(x509_self_sign(ca, &subject, "td", 3600, 1800000000, arena, &svid, &err), CODE_OK);
	CHECK_CODE(x509_authority_new(ca, svid.cert, NULL, 0, &x509_authority, &err), CODE_OK);
	CHECK_CODE(jwt_authority_new(jwt, kid, 1800003600, &jwt_authority, &err), CODE_OK);
	EVP_PKEY_up_ref(ca);
	return keyring_new(x509_authority, jwt_authority, ca, &svid.cert, 1, svid.not_before_s, svid.not_after_s);
}

TEST(slot_hands_out_references)
{
	struct keyring_slot *slot = keyring_slot_new();
	struct keyring *held;

	CHECK(keyring_current(slot) == NULL);
	keyring_swap(slot, keyring_for("one"));
	held = keyring_current(slot);
	keyring_swap(slot, keyring_for("two"));
	CHECK_STR(held->jwt->kid, "one"); /* alive while held */
	keyring_unref(held);
	held = keyring_current(slot);
	CHECK_STR(held->jwt->kid, "two");
	keyring_unref(held);
	keyring_slot_free(slot);
	keyring_slot_free(NULL);
	keyring_unref(NULL);
}

static atomic_bool stop;

static void *sign_on(void *held)
{
	struct keyring_slot *slot = held;
	static const uint8_t data[] = "data";

	while (!atomic_load(&stop)) {
		OWN_STRUCT(keyring) keyring = keyring_current(slot);
		uint8_t signature[SIGNATURE_MAX];
		size_t len;

		if (signer_sign(keyring->x509->signer, (struct span){ data, 4 }, signature, &len, NULL) != CODE_OK)
			abort();
	}
	return NULL;
}

TEST(rotation_while_others_sign)
{
	struct keyring_slot *slot = keyring_slot_new();
	pthread_t threads[2];

	keyring_swap(slot, keyring_for("0"));
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sign_on, slot), 0);
	for (int i = 0; i < 30; i++) {
		OWN_STRUCT(keyring) current = keyring_current(slot);

		keyring_swap(slot, i % 2 == 0 ? keyring_for("n")
					      : keyring_new(x509_authority_copy(current->x509),
							    jwt_authority_copy(current->jwt), NULL, NULL, 0, 0, 0));
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	keyring_slot_free(slot);
}

TEST(key_ids_of_jwt_authorities_are_plain)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	struct jwt_authority *authority;
	struct err err = { 0 };
	char longest[AUTHORITY_ID_MAX + 1];

	CHECK_CODE(jwt_authority_new(key, "a\"b", 0, &authority, &err), CODE_INVALID_ARGUMENT);
	memset(longest, 'k', AUTHORITY_ID_MAX);
	longest[AUTHORITY_ID_MAX] = '\0';
	CHECK_CODE(jwt_authority_new(key, longest, 0, &authority, &err), CODE_INVALID_ARGUMENT);
}
