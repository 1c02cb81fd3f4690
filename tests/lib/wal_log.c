/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of a log's directory. */
#include "lib/wal_log.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static void each_file(const char *dir, void (*visit)(void *ctx, const char *path, const char *name), void *ctx)
{
	DIR *open_dir = opendir(dir);
	char path[512];

	if (open_dir == NULL)
		return;
	for (struct dirent *file; (file = readdir(open_dir)) != NULL;) {
		if (file->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%.200s", dir, file->d_name);
		visit(ctx, path, file->d_name);
	}
	closedir(open_dir);
}

static void read_one(void *ctx, const char *path, const char *name)
{
	struct image *image = ctx;
	struct image_file *file = &image->files[image->n++];
	FILE *in = fopen(path, "r");
	struct stat st;

	if (in == NULL || fstat(fileno(in), &st) != 0 || image->n > sizeof image->files / sizeof *image->files)
		abort();
	snprintf(file->name, sizeof file->name, "%.31s", name);
	file->len = (size_t)st.st_size;
	file->data = xmalloc(file->len + 1);
	if (fread(file->data, 1, file->len, in) != file->len)
		abort();
	fclose(in);
}

void image_take(struct image *image, const char *dir)
{
	image->n = 0;
	each_file(dir, read_one, image);
}

static void remove_one(void *ctx __attribute__((unused)), const char *path, const char *name __attribute__((unused)))
{
	unlink(path);
}

void image_put(const struct image *image, const char *dir)
{
	char path[512];

	mkdir(dir, 0700);
	each_file(dir, remove_one, NULL);
	for (size_t i = 0; i < image->n; i++) {
		FILE *out;

		if (image->files[i].data == NULL)
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, image->files[i].name);
		out = fopen(path, "w");
		if (out == NULL || fwrite(image->files[i].data, 1, image->files[i].len, out) != image->files[i].len)
			abort();
		fclose(out);
	}
}

void image_free(struct image *image)
{
	for (size_t i = 0; i < image->n; i++)
		free(image->files[i].data);
	image->n = 0;
}

struct image_file *image_file(struct image *image, const char *name)
{
	for (size_t i = 0; i < image->n; i++)
		if (strcmp(image->files[i].name, name) == 0)
			return &image->files[i];
	print_error("no file %s\n", name);
	abort();
}
