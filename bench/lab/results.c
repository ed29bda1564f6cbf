// SPDX-License-Identifier: MIT
#include "bench/lab/results.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/lab/capture.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#ifndef BENCH_COMMIT
#define BENCH_COMMIT "unknown" /* the Makefile asks git */
#endif

#define MOSQUITTO  "/usr/sbin/mosquitto"
#define LINE_BYTES 256

/* --- the machine ------------------------------------------------------------------------------ */

/* The value behind the first line that begins with one of two keys: "key : value", KEY="value". */
static json_t *line_of(const char *path, const char *key, const char *or_key)
{
	FILE *f = fopen(path, "re");
	char line[LINE_BYTES];
	json_t *found = NULL;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *value = line + strcspn(line, ":=");

		if (!*value ||
		    (strncmp(line, key, strlen(key)) && strncmp(line, or_key, strlen(or_key))))
			continue;
		value += strspn(value, ":= \t\"");
		value[strcspn(value, "\"\n")] = '\0';
		found = json_string(value);
	}
	if (f)
		(void)fclose(f);
	return found ? found : json_null();
}

/* The first line that a program prints. */
static json_t *first_line(const char *program, const char *arg)
{
	const char *const args[] = { program, arg, NULL };
	struct capture c;
	json_t *line;

	if (capture_run(args, bytes_of(NULL, 0), &c))
		return json_null();
	c.text[strcspn(c.text, "\n")] = '\0';
	line = c.text[0] ? json_string(c.text) : NULL;
	free(c.text);
	return line ? line : json_null();
}

static json_t *machine(const char *mosquitto)
{
	struct utsname u = { 0 };
	struct sysinfo s = { 0 };
	char kernel[3 * sizeof(u.release)];

	(void)uname(&u); /* neither fails for a valid pointer */
	(void)sysinfo(&s);
	snprintf(kernel, sizeof(kernel), "%s %s %s", u.sysname, u.release, u.machine);
	return json_pack("{s:o, s:I, s:I, s:s, s:o, s:o, s:o}", "cpu",
			 line_of("/proc/cpuinfo", "model name", "CPU part"), "cpus",
			 (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "memory_mib",
			 (json_int_t)((uint64_t)s.totalram * s.mem_unit >> 20), "kernel", kernel,
			 "distribution", line_of("/etc/os-release", "PRETTY_NAME", "PRETTY_NAME"),
			 "openssl", first_line("openssl", "version"), "mosquitto",
			 first_line(mosquitto ? mosquitto : MOSQUITTO, "-h"));
}

/* --- the file --------------------------------------------------------------------------------- */

static json_t *command(int argc, char *const *argv)
{
	const char *space = strchr(argv[0], ' ');
	json_t *words = json_array();

	if (space)
		json_array_append_new(words, json_stringn(argv[0], (size_t)(space - argv[0])));
	json_array_append_new(words, json_string(space ? space + 1 : argv[0]));
	for (int i = 1; i < argc; i++)
		json_array_append_new(words, json_string(argv[i]));
	return words;
}

json_t *results_head(int argc, char *const *argv, const char *mosquitto)
{
	const char *space = strchr(argv[0], ' ');
	time_t now = time(NULL);
	struct tm utc = { 0 };
	char date[32];

	(void)gmtime_r(&now, &utc);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:s, s:o, s:s, s:o}", "tool", space ? space + 1 : argv[0], "commit",
			 BENCH_COMMIT, "command", command(argc, argv), "date", date, "machine",
			 machine(mosquitto));
}

static const char *text_of(const json_t *j, const char *name)
{
	const char *text = json_string_value(json_object_get(j, name));

	return text ? text : "unknown";
}

static void put_quoted(const char *word, FILE *to)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-_./,:=+@%";

	if (*word && !word[strspn(word, plain)]) {
		fputs(word, to);
		return;
	}
	fputc('\'', to);
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\''", to);
		else
			fputc(*word, to);
	}
	fputc('\'', to);
}

char *results_command(const json_t *head)
{
	const json_t *words = json_object_get(head, "command");
	char *text = NULL;
	size_t n;
	FILE *to = open_memstream(&text, &n);

	if (!to)
		return NULL;
	for (size_t i = 0; i < json_array_size(words); i++) {
		const char *word = json_string_value(json_array_get(words, i));

		fputs(i ? " " : "", to);
		put_quoted(word ? word : "?", to);
	}
	if (!json_array_size(words))
		fputs("unknown", to);
	if (!fclose(to))
		return text;
	free(text);
	return NULL;
}

void results_print_head(const json_t *head, FILE *to)
{
	const json_t *m = json_object_get(head, "machine");
	const char *mosquitto = json_string_value(json_object_get(m, "mosquitto"));
	char *command = results_command(head);

	fprintf(to, "%s\n%s, commit %s\n%s, %s, %lld CPUs, %s\n", command ? command : "unknown",
		text_of(head, "date"), text_of(head, "commit"), text_of(m, "kernel"),
		text_of(m, "cpu"), (long long)json_integer_value(json_object_get(m, "cpus")),
		mosquitto ? mosquitto : "no mosquitto");
	free(command);
}

void results_check_path(const char *path)
{
	char folder[FILE_PATH_BYTES_MAX];
	const char *slash = strrchr(path, '/');
	int n = slash == path ? 1 : slash ? (int)(slash - path) : 0;

	if (snprintf(folder, sizeof(folder), "%.*s", n, n ? path : "") >= (int)sizeof(folder))
		exit_with(EX_USAGE, "%s: the path is too long", path);
	if (access(n ? folder : ".", W_OK | X_OK))
		exit_with(EX_CANTCREAT, "%s: %s", path, strerror(errno));
}

int results_write(const json_t *root, const char *path)
{
	char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
	int ret = -ENOMEM;

	if (text)
		ret = file_write(AT_FDCWD, path, bytes_str(text), 0644);
	free(text);
	if (!ret)
		return 0;
	log_error("%s: %s", path, strerror(-ret));
	return EX_CANTCREAT;
}
