// SPDX-License-Identifier: MIT
#include "bench/page/input.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define FILE_BYTES_MAX (64u << 20)
#define ENTRIES_MAX    65536
#define WHY_BYTES      256
#define COUNT_MAX      1000000000

/* --- of the machine ------------------------------------------------------------------------------
 */

/* {"n", "min", "median", "max"}: what is not there has no value. */
static struct figure figure_get(const json_t *j)
{
	struct figure f = { 0, NAN, NAN, NAN };
	const struct {
		const char *name;
		double *to;
	} fields[] = { { "min", &f.min }, { "median", &f.median }, { "max", &f.max } };

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const json_t *v = json_object_get(j, fields[i].name);

		if (json_is_number(v))
			*fields[i].to = json_number_value(v);
	}
	f.n = isfinite(f.median) ? (unsigned)json_integer_value(json_object_get(j, "n")) : 0;
	if (isfinite(f.median) && !f.n)
		f.n = 1;
	return f;
}

static unsigned count_get(const json_t *j, const char *name)
{
	json_int_t v = json_integer_value(json_object_get(j, name));

	return v > 0 && v <= COUNT_MAX ? (unsigned)v : 0;
}

static bool speed_get(const json_t *j, struct input_speed *ret_s)
{
	const char *name = json_string_value(json_object_get(j, "name"));
	struct input_speed s = {
		.processes = count_get(j, "processes"),
		.bytes = count_get(j, "bytes"),
		.batch = count_get(j, "batch"),
		.context = count_get(j, "context"),
		.per_second = figure_get(json_object_get(j, "per_second")),
		.cpu_us = figure_get(json_object_get(j, "cpu_us")),
	};

	if (!name || (!s.per_second.n && !s.cpu_us.n))
		return false;
	snprintf(s.name, sizeof(s.name), "%s", name);
	*ret_s = s;
	return true;
}

const struct input_speed *input_speed_find(const struct input *in, const char *name,
					   unsigned processes, unsigned batch, unsigned context)
{
	for (unsigned i = 0; i < in->n_speeds; i++) {
		const struct input_speed *s = &in->speeds[i];

		if (!strcmp(s->name, name) && (!processes || s->processes == processes) &&
		    (!batch || s->batch == batch) && (!context || s->context == context))
			return s;
	}
	return NULL;
}

/* --- files ------------------------------------------------------------------------------------ */

static noreturn_fn void refuse(const char *path, const char *why)
{
	exit_with(EX_DATAERR, "%s: %s", path, why);
}

static json_t *file_load(const char *path)
{
	char why[WHY_BYTES];
	json_error_t error;
	uint8_t *text;
	size_t n;
	json_t *root;
	int ret = file_read(AT_FDCWD, path, FILE_BYTES_MAX, &text, &n, NULL);

	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
	root = json_loadb((const char *)text, n, JSON_REJECT_DUPLICATES, &error);
	free(text);
	if (!root) {
		snprintf(why, sizeof(why), "line %d, column %d: %s", error.line, error.column,
			 error.text);
		refuse(path, why);
	}
	if (!json_is_object(root) || !json_is_string(json_object_get(root, "tool")))
		refuse(path, "no results of ssdtf-bench: it does not say which tool it is of");
	return root;
}

/* Entries that have a kind are of the machine alone. Kinds that no page shows are for whoever reads
 * the file. */
static bool of_machine(const json_t *root)
{
	return json_object_get(json_array_get(json_object_get(root, "entries"), 0), "kind");
}

static bool ratio_get(const json_t *j, struct input_ratio *ret_r)
{
	const char *name = json_string_value(json_object_get(j, "name"));
	struct input_ratio r = { .processes = count_get(j, "processes"),
				 .ratio = figure_get(json_object_get(j, "ratio")) };

	if (!name || !r.ratio.n)
		return false;
	snprintf(r.name, sizeof(r.name), "%s", name);
	*ret_r = r;
	return true;
}

static void text_get(const json_t *j, const char *name, char *text, size_t room)
{
	const char *from = json_string_value(json_object_get(j, name));

	snprintf(text, room, "%s", from ? from : "");
}

static bool reach_get(const json_t *j, struct input_reach *ret_r)
{
	const json_t *wanted = json_object_get(j, "wanted");
	const json_t *least = json_object_get(wanted, "at_least");
	const json_t *limit = least ? least : json_object_get(wanted, "at_most");
	struct input_reach r = { .cpus = count_get(j, "cpus"),
				 .value = figure_get(json_object_get(j, "value")),
				 .reached = figure_get(json_object_get(j, "reached")),
				 .alone = figure_get(json_object_get(j, "alone")),
				 .wanted = json_is_number(limit),
				 .at_least = least,
				 .met = json_is_true(json_object_get(j, "met")),
				 .wanted_value = json_number_value(limit) };

	text_get(j, "name", r.name, sizeof(r.name));
	text_get(j, "of", r.of, sizeof(r.of));
	text_get(j, "unit", r.unit, sizeof(r.unit));
	*ret_r = r;
	return r.name[0] && r.value.n;
}

/* Room for n more. */
static void *grown(void *p, size_t have, size_t n, size_t size)
{
	void *more = realloc(p, (have + n + 1) * size);

	if (!more)
		exit_with(EX_OSERR, "out of memory");
	return more;
}

static void machine_take(struct input *in, const char *path, const json_t *root)
{
	const json_t *all = json_object_get(root, "entries");
	size_t n = json_array_size(all);
	char why[WHY_BYTES];

	in->speeds = grown(in->speeds, in->n_speeds, n, sizeof(in->speeds[0]));
	in->ratios = grown(in->ratios, in->n_ratios, n, sizeof(in->ratios[0]));
	in->reaches = grown(in->reaches, in->n_reaches, n, sizeof(in->reaches[0]));
	for (size_t i = 0; i < n; i++) {
		const json_t *e = json_array_get(all, i);
		const char *kind = json_string_value(json_object_get(e, "kind"));
		bool good = kind;

		if (kind && !strcmp(kind, "speed")) {
			good = speed_get(e, &in->speeds[in->n_speeds]);
			in->n_speeds += good;
		} else if (kind && !strcmp(kind, "ratio")) {
			good = ratio_get(e, &in->ratios[in->n_ratios]);
			in->n_ratios += good;
		} else if (kind && !strcmp(kind, "reach")) {
			good = reach_get(e, &in->reaches[in->n_reaches]);
			in->n_reaches += good;
		}
		if (good)
			continue;
		snprintf(why, sizeof(why), "entry %zu: a %.16s without a name or a figure", i + 1,
			 kind ? kind : "kind");
		refuse(path, why);
	}
}

static void scenarios_take(struct input *in, const char *path, const json_t *root)
{
	struct json_entry *more;
	char why[WHY_BYTES];
	unsigned n;

	if (json_entries_get(root, &more, &n, why, sizeof(why)))
		refuse(path, why);
	in->entries = grown(in->entries, in->n_entries, n, sizeof(in->entries[0]));
	for (unsigned i = 0; i < n; i++)
		in->entries[in->n_entries++] = more[i]; /* with its rounds */
	free(more);
}

void input_load(struct input *in, char *const *paths, unsigned n)
{
	*in = (struct input){ 0 };
	if (n > INPUT_FILES_MAX)
		exit_with(EX_USAGE, "no more than %d files", INPUT_FILES_MAX);
	for (unsigned i = 0; i < n; i++) {
		struct input_file *f = &in->files[in->n_files++];

		*f = (struct input_file){ paths[i], file_load(paths[i]) };
		if (json_array_size(json_object_get(f->root, "entries")) > ENTRIES_MAX)
			refuse(f->path, "too many entries");
		if (of_machine(f->root))
			machine_take(in, f->path, f->root);
		else
			scenarios_take(in, f->path, f->root);
	}
}

void input_free(struct input *in)
{
	for (unsigned i = 0; i < in->n_files; i++)
		json_decref(in->files[i].root);
	json_entries_free(in->entries, in->n_entries);
	free(in->speeds);
	free(in->ratios);
	free(in->reaches);
}
