/* SPDX-License-Identifier: Apache-2.0 */
/* What the log does with files that are torn, damaged, missing or foreign: never a wrong entry, and nothing that had
 * been stored is dropped without a word. */
#include "base/crc.h"
#include "base/log.h"
#include "base/rand.h"
#include "lib/wal_log.h"

#include <sys/stat.h>
#include <unistd.h>

static struct err err;

__attribute__((constructor)) static void quiet(void)
{
	log_set_level(LOG_PANIC);
}

static char *dir_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", test_dir(), name);
	return path;
}

static enum code try_open(const char *dir, const char *owner, bool make, struct model *got)
{
	struct wal_options options = options_of(dir);
	struct wal_visitor visitor = { model_visit, got };
	struct wal *wal = NULL;
	enum code rc;

	memset(got, 0, sizeof *got);
	options.owner = owner;
	options.make = make;
	rc = wal_open(&options, &visitor, &wal, &err);
	wal_close(wal);
	return rc;
}

static struct wal *opened(const char *dir)
{
	struct wal_options options = options_of(dir);
	struct wal *wal = NULL;

	CHECK_CODE(wal_open(&options, NULL, &wal, &err), CODE_OK);
	return wal;
}

static void check_model(const struct model *got, const struct model *want)
{
	CHECK_NUM(got->first, want->first);
	CHECK_NUM(got->last, want->last);
	for (uint64_t index = want->first; index <= want->last; index++)
		CHECK_NUM(got->terms[index], want->terms[index]);
}

static void await_spares(struct wal *wal)
{
	struct wal_status status;

	do {
		usleep(1000);
		wal_status(wal, &status);
	} while (status.disk_bytes < ((uint64_t)status.segments + 2) * SEGMENT);
}

/* A log of several segments with truncations and a cut, closed. */
static void make_log(const char *dir, struct model *want)
{
	struct wal *wal = opened(dir);
	uint64_t first = 1, term = 1;

	memset(want, 0, sizeof *want);
	want->first = 1;
	for (int i = 0; i < 40; i++) {
		append(wal, first, 15, term);
		model_append(want, first, 15, term);
		first += 15;
		if (i % 6 == 5) {
			first -= 20;
			term++;
		}
	}
	await_spares(wal);
	wal_close(wal);
}

static const char *seg(unsigned number)
{
	static char name[2][32];
	static int which;

	which ^= 1;
	snprintf(name[which], sizeof name[which], "%016x.seg", number);
	return name[which];
}

/* Puts the image, expects a refusal with the words in it, and that nothing was changed. */
static void check_refused(struct image *image, const char *dir, enum code code, const char *words)
{
	struct image after;
	struct model got;

	image_put(image, dir);
	CHECK_CODE(try_open(dir, NODE, true, &got), code);
	if (strstr(err.text, words) == NULL) {
		print_error("\"%s\" without \"%s\"\n", err.text, words);
		fail();
	}
	image_take(&after, dir);
	for (size_t i = 0; i < after.n; i++) {
		struct image_file *before = image_file(image, after.files[i].name);

		CHECK_NUM(before->len, after.files[i].len);
		CHECK_BYTES(before->data, after.files[i].data, before->len);
	}
	image_free(&after);
}

static void without(struct image *image, const char *dir, const char *name, const char *words)
{
	struct image_file *file = image_file(image, name);
	uint8_t *kept = TAKE(file->data);

	check_refused(image, dir, CODE_DATA_LOSS, words);
	file->data = kept;
}

static void swap_data(struct image_file *a, struct image_file *b)
{
	uint8_t *data = a->data;

	a->data = b->data;
	b->data = data;
}

static void seal_header(uint8_t *header)
{
	uint32_t crc = crc32c(0, header + 12, 128 - 12);

	memcpy(header + 8, &crc, 4);
}

TEST(what_is_missing_or_foreign_is_refused_by_name)
{
	char *dir = dir_of("refused");
	struct image image, other;
	struct model want, got;
	struct image_file *two, *foreign;

	CHECK_CODE(try_open(dir, NODE, false, &got), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "/refused\" is missing") != NULL);
	make_log(dir, &want);
	image_take(&image, dir);
	without(&image, dir, "head", "its head is missing");
	without(&image, dir, seg(1), "0000000000000001.seg\" is missing");
	without(&image, dir, seg(2), "0000000000000002.seg\" is missing");
	two = image_file(&image, seg(2));
	swap_data(two, image_file(&image, seg(3)));
	check_refused(&image, dir, CODE_DATA_LOSS, "0000000000000002.seg\" is from another place or time");
	swap_data(two, image_file(&image, seg(3)));
	two->len -= 4096;
	check_refused(&image, dir, CODE_DATA_LOSS, "0000000000000002.seg\" is cut off at 61440 of 65536 bytes");
	two->len += 4096;
	two->data[30] ^= 1;
	check_refused(&image, dir, CODE_DATA_LOSS, "0000000000000002.seg\": its header is damaged");
	two->data[30] ^= 1;
	two->data[16] = 2;
	seal_header(two->data);
	check_refused(&image, dir, CODE_UNIMPLEMENTED, "has format 2, this version knows up to 1");
	two->data[16] = 1;
	seal_header(two->data);
	image_put(&image, dir);
	CHECK_CODE(try_open(dir, "99999999-2222-4333-8444-555555555555", true, &got), CODE_FAILED_PRECONDITION);
	CHECK(strstr(err.text, "belongs to node " NODE) != NULL);

	make_log(dir_of("other"), &want);
	image_take(&other, dir_of("other"));
	foreign = image_file(&other, seg(2));
	swap_data(two, foreign);
	check_refused(&image, dir, CODE_DATA_LOSS, "0000000000000002.seg\" is from another place or time");
	swap_data(two, foreign);
	image_put(&image, dir);
	CHECK_CODE(try_open(dir, NODE, false, &got), CODE_OK);
	check_model(&got, &want);
	image_free(&image);
	image_free(&other);
}

static unsigned newest_of(const char *dir)
{
	char path[512];
	unsigned number = 0;
	uint8_t header[128] = { 0 };

	for (unsigned i = 1; i < 40; i++) {
		FILE *file;

		snprintf(path, sizeof path, "%s/%s", dir, seg(i));
		file = fopen(path, "r");
		if (file == NULL)
			continue;
		if (fread(header, 1, sizeof header, file) == sizeof header && memcmp(header, "LOGSEG", 6) == 0 &&
		    header[24] == i)
			number = i;
		fclose(file);
	}
	return number;
}

TEST(a_missing_newest_segment_is_noticed)
{
	char *dir = dir_of("newest");
	struct image image;
	struct model want;
	char words[64];

	make_log(dir, &want);
	snprintf(words, sizeof words, "%s\" is missing", seg(newest_of(dir)));
	image_take(&image, dir);
	without(&image, dir, seg(newest_of(dir)), words);
	image_free(&image);
}

/* One bit anywhere in a log that was closed: it is refused, or all of it is there. */
TEST(one_wrong_bit_is_noticed_or_harmless)
{
	char *dir = dir_of("bits");
	uint64_t seed = rand_u64();
	struct image image;
	struct model want, got;
	unsigned refused = 0;

	print_message("seed %llu\n", (unsigned long long)seed);
	make_log(dir, &want);
	image_take(&image, dir);
	for (int round = 0; round < 400; round++) {
		struct image_file *file = &image.files[(seed = mix(seed + 1)) % image.n];
		size_t at = (seed = mix(seed + 1)) % file->len;
		uint8_t bit = (uint8_t)(1 << (seed = mix(seed + 1)) % 8);
		enum code rc;

		file->data[at] ^= bit;
		image_put(&image, dir);
		rc = try_open(dir, NODE, false, &got);
		if (rc == CODE_OK) {
			check_model(&got, &want);
		} else {
			refused++;
			if (rc != CODE_DATA_LOSS || strstr(err.text, file->name) == NULL)
				print_error("byte %zu of %s: %s\n", at, file->name, err.text);
			CHECK_NUM(rc, CODE_DATA_LOSS);
			CHECK(strstr(err.text, file->name) != NULL);
		}
		file->data[at] ^= bit;
	}
	CHECK(refused > 50);
	image_free(&image);
}

/* Pages of zeros or of noise over a closed log. */
TEST(lost_pages_are_noticed_or_harmless)
{
	char *dir = dir_of("pages");
	uint64_t seed = rand_u64();
	struct image image;
	struct model want, got;

	print_message("seed %llu\n", (unsigned long long)seed);
	make_log(dir, &want);
	image_take(&image, dir);
	for (int round = 0; round < 200; round++) {
		struct image_file *file = &image.files[(seed = mix(seed + 1)) % image.n];
		size_t len = 512u << (seed = mix(seed + 1)) % 4, at;
		uint8_t kept[4096];
		enum code rc;

		at = (seed = mix(seed + 1)) % (file->len / len) * len;
		memcpy(kept, file->data + at, len);
		for (size_t i = 0; i < len; i++)
			file->data[at + i] = round % 2 ? 0 : (uint8_t)mix(seed + i);
		image_put(&image, dir);
		rc = try_open(dir, NODE, false, &got);
		/* the last records and the mark that vouches for them may go together */
		if (rc == CODE_OK && got.last < want.last)
			CHECK(file == image_file(&image, seg(newest_of(dir))));
		else if (rc == CODE_OK)
			check_model(&got, &want);
		else
			CHECK_NUM(rc, CODE_DATA_LOSS);
		memcpy(file->data + at, kept, len);
	}
	image_free(&image);
}

/* --- the last write, cut short --- */

struct torn {
	char dir[256];
	struct image before, after;
	struct image_file *old, *new; /* the newest segment in each */
	size_t begin, end;            /* the bytes in which they differ */
	struct model at_first, at_last;
	uint64_t first; /* of the last write */
};

static void write_file(const char *dir, const char *name, const uint8_t *data, size_t len)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	file = fopen(path, "w");
	if (file == NULL || fwrite(data, 1, len, file) != len)
		abort();
	fclose(file);
}

/* A log whose last write is of `n` entries from last - back + 1 on; images before and after that write. */
static void make_torn(struct torn *torn, const char *name, uint64_t back, size_t n)
{
	struct wal *wal;
	char *end;

	snprintf(torn->dir, sizeof torn->dir, "%s", dir_of(name));
	wal = opened(torn->dir);
	append(wal, 1, 20, 1);
	append(wal, 21, 5, 1);
	memset(&torn->at_first, 0, sizeof torn->at_first);
	torn->at_first.first = 1;
	model_append(&torn->at_first, 1, 25, 1);
	torn->at_last = torn->at_first;
	await_spares(wal);
	image_take(&torn->before, torn->dir);
	torn->first = 26 - back;
	append(wal, torn->first, n, 2);
	model_append(&torn->at_last, torn->first, n, 2);
	image_take(&torn->after, torn->dir);
	wal_close(wal);
	end = strdup(seg(newest_of(torn->dir)));
	torn->old = image_file(&torn->before, end);
	torn->new = image_file(&torn->after, end);
	free(end);
	for (torn->begin = 0; torn->old->data[torn->begin] == torn->new->data[torn->begin]; torn->begin++)
		;
	for (torn->end = torn->new->len; torn->old->data[torn->end - 1] == torn->new->data[torn->end - 1]; torn->end--)
		;
	CHECK(torn->begin >= SEGMENT_HEAD); /* all in one segment */
	image_put(&torn->before, torn->dir);
}

static void torn_done(struct torn *torn)
{
	image_free(&torn->before);
	image_free(&torn->after);
}

/* The log is what it was, or truncated, or with the first k of the last write. */
static void check_partial(const struct torn *torn, const struct model *got)
{
	const struct model *want =
		got->last >= torn->first && got->terms[torn->first] == 2 ? &torn->at_last : &torn->at_first;

	CHECK_NUM(got->first, 1);
	CHECK(got->last >= torn->first - 1 && got->last <= want->last);
	for (uint64_t index = 1; index <= got->last; index++)
		CHECK_NUM(got->terms[index], want->terms[index]);
}

/* The log goes on behind what was recovered, and nothing of the torn write comes back, as if the process had been
 * killed: closing it would leave a mark in the way. */
static void check_goes_on(const struct torn *torn, struct model *model, uint64_t term, size_t n)
{
	struct wal *wal = opened(torn->dir);
	struct image image;
	struct model got;
	uint64_t first = model->last + 1;

	append(wal, first, n, term);
	model_append(model, first, n, term);
	image_take(&image, torn->dir);
	wal_close(wal);
	image_put(&image, torn->dir);
	image_free(&image);
	CHECK_CODE(try_open(torn->dir, NODE, false, &got), CODE_OK);
	check_model(&got, model);
	image_put(&torn->before, torn->dir);
}

static void tear_at_each_byte(const char *name, uint64_t back, size_t n)
{
	struct torn torn;
	uint8_t *bytes;
	uint64_t reached = 0;
	size_t wholes = 0;

	make_torn(&torn, name, back, n);
	bytes = xmemdup(torn.new->data, torn.new->len);
	for (size_t cut = torn.begin; cut <= torn.end; cut++) {
		struct model got;

		memcpy(bytes, torn.new->data, cut);
		memcpy(bytes + cut, torn.old->data + cut, torn.new->len - cut);
		if (cut % 3 == 1) /* what was not written need not be as before */
			for (size_t i = cut; i < torn.end; i++)
				bytes[i] = (uint8_t)mix(cut + i);
		write_file(torn.dir, torn.new->name, bytes, torn.new->len);
		CHECK_CODE(try_open(torn.dir, NODE, false, &got), CODE_OK);
		check_partial(&torn, &got);
		if (got.last >= torn.first && got.terms[torn.first] == 2 && got.last != reached) {
			CHECK(got.last > reached);
			reached = got.last;
			wholes++;
		}
		if (cut % 23 == 0)
			check_goes_on(&torn, &got, 3, cut % 5 + 1);
	}
	CHECK_NUM(reached, torn.at_last.last);
	CHECK_NUM(wholes, n);
	free(bytes);
	torn_done(&torn);
}

TEST(a_write_torn_at_any_byte_leaves_whole_records)
{
	tear_at_each_byte("torn", 0, 4);
}

TEST(a_truncation_torn_at_any_byte_leaves_whole_records)
{
	tear_at_each_byte("torn-truncation", 3, 3);
}

/* The later part of a write is on disk, the earlier is not: nothing of it counts, also not once the log has grown up
 * to it with the very same entries. */
TEST(the_rest_of_a_write_without_its_beginning_does_not_come_back)
{
	struct torn torn;
	uint8_t *bytes;

	make_torn(&torn, "hole", 0, 8);
	bytes = xmemdup(torn.new->data, torn.new->len);
	for (size_t cut = torn.begin + 1; cut <= torn.end; cut += 29) {
		struct model model;

		memcpy(bytes, torn.new->data, torn.new->len);
		memcpy(bytes + torn.begin, torn.old->data + torn.begin, cut - torn.begin);
		write_file(torn.dir, torn.new->name, bytes, torn.new->len);
		model = torn.at_first;
		check_goes_on(&torn, &model, 2, 1 + cut % 7); /* the same bytes at the same place */
	}
	free(bytes);
	torn_done(&torn);
}

/* Damage before the last write of a log that was not closed: what stood there had been stored. */
TEST(damage_before_the_last_write_is_no_torn_write)
{
	struct torn torn;
	uint64_t seed = rand_u64();

	print_message("seed %llu\n", (unsigned long long)seed);
	make_torn(&torn, "before", 0, 8);
	image_put(&torn.after, torn.dir);
	for (int round = 0; round < 200; round++) {
		size_t at = SEGMENT_HEAD + (seed = mix(seed + 1)) % (torn.begin - SEGMENT_HEAD);
		uint8_t bit = (uint8_t)(1 << (seed = mix(seed + 1)) % 8);
		struct model got;
		enum code rc;

		torn.new->data[at] ^= bit;
		write_file(torn.dir, torn.new->name, torn.new->data, torn.new->len);
		rc = try_open(torn.dir, NODE, false, &got);
		if (rc == CODE_OK) { /* padding between records, or a mark */
			check_model(&got, &torn.at_last);
			image_put(&torn.after, torn.dir);
		} else {
			CHECK_NUM(rc, CODE_DATA_LOSS);
			CHECK(strstr(err.text, "what stood there had been stored") != NULL);
		}
		torn.new->data[at] ^= bit;
	}
	torn_done(&torn);
}
