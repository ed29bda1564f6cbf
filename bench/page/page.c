// SPDX-License-Identifier: MIT
#include "bench/page/page.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/lab/results.h"
#include "bench/page/baseline.h"
#include "bench/page/growth.h"
#include "bench/page/html.h"
#include "bench/page/input.h"
#include "bench/page/style.h"
#include "bench/page/reached.h"
#include "bench/page/summary.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

struct page_options {
	const char *out;
	char *files[INPUT_FILES_MAX];
	unsigned n_files;
};

enum option_key { OPT_OUT = 'o' };

/* clang-format off */
static const struct argp_option options[] = {
	{ "out", OPT_OUT, "FILE", 0, "the page to be written", 0 },
	{ 0 },
};
/* clang-format on */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct page_options *o = state->input;

	switch (key) {
	case OPT_OUT:
		o->out = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (o->n_files == INPUT_FILES_MAX)
			exit_with(EX_USAGE, "no more than %d files", INPUT_FILES_MAX);
		o->files[o->n_files++] = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* --- where the figures come from -------------------------------------------------------------- */

static const char *string_at(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	return s ? s : "unknown";
}

static void put_term(FILE *to, const char *term, const char *value)
{
	fprintf(to, "<dt>%s</dt><dd>", term);
	html_text(to, value);
	fputs("</dd>\n", to);
}

static void put_machine(FILE *to, const json_t *root)
{
	const json_t *m = json_object_get(root, "machine");
	json_int_t cpus = json_integer_value(json_object_get(m, "cpus"));
	json_int_t mib = json_integer_value(json_object_get(m, "memory_mib"));
	char text[64];

	fputs("<dl>\n", to);
	put_term(to, "processor", string_at(m, "cpu"));
	snprintf(text, sizeof(text), "%lld, with %lld MiB of memory", (long long)cpus,
		 (long long)mib);
	put_term(to, "CPUs", cpus ? text : "unknown");
	put_term(to, "kernel", string_at(m, "kernel"));
	put_term(to, "distribution", string_at(m, "distribution"));
	put_term(to, "OpenSSL", string_at(m, "openssl"));
	put_term(to, "mosquitto", string_at(m, "mosquitto"));
	fputs("</dl>\n", to);
}

static bool same_machine(const json_t *a, const json_t *b)
{
	return json_equal(json_object_get(a, "machine"), json_object_get(b, "machine"));
}

static void put_command(FILE *to, const json_t *root)
{
	char *command = results_command(root);

	fputs("<li><code>", to);
	html_text(to, command ? command : "unknown");
	free(command);
	fputs("</code> <small>commit ", to);
	html_text(to, string_at(root, "commit"));
	fputs(", ", to);
	html_text(to, string_at(root, "date"));
	fputs("</small></li>\n", to);
}

static void write_origin(FILE *to, const struct input *in)
{
	html_section(
		to, "origin", "Where these figures come from",
		"Machines are shared and noisy: look at ratios before figures, and at their spread "
		"before the median.");
	for (unsigned i = 0; i < in->n_files; i++) {
		bool said = false;

		for (unsigned k = 0; k < i; k++)
			said |= same_machine(in->files[i].root, in->files[k].root);
		if (!said)
			put_machine(to, in->files[i].root);
	}
	fputs("<ol>\n", to);
	for (unsigned i = 0; i < in->n_files; i++)
		put_command(to, in->files[i].root);
	fputs("</ol>\n", to);
	html_section_end(to);
}

/* Messages that were lost, or clients that were late, make a figure doubtful: all are named. */
static void write_doubts(FILE *to, const struct input *in)
{
	bool any = false;

	for (unsigned i = 0; i < in->n_entries; i++) {
		const struct json_entry *e = &in->entries[i];
		uint64_t bad = 0;
		bool behind = false;
		char words[192];

		for (unsigned k = 0; k < e->n_rounds; k++) {
			const struct outcome *o = &e->rounds[k];

			bad += o->lost + o->duplicated + o->disordered + o->wrong;
			behind |= o->behind;
		}
		if (!bad && !behind)
			continue;
		if (!any)
			html_section(to, "doubts", "Figures to be doubted", NULL);
		fputs(any ? ""
			  : "<details><summary>Messages lost, twice, out of order or wrong; or "
			    "clients that could not keep their pace</summary>\n<ul>\n",
		      to);
		any = true;
		scenario_words(&e->scenario, words, sizeof(words));
		fputs("<li>", to);
		html_text(to, words);
		if (bad)
			fprintf(to, ": %llu messages", (unsigned long long)bad);
		fprintf(to, "%s</li>\n", behind ? (bad ? ", late clients" : ": late clients") : "");
	}
	if (!any)
		return;
	fputs("</ul>\n</details>\n", to);
	html_section_end(to);
}

/* --- the page --------------------------------------------------------------------------------- */

static void write_head(FILE *to, const struct input *in)
{
	const json_t *first = in->files[0].root;
	const json_t *m = json_object_get(first, "machine");

	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
	      "<title>SSDTF/MQTT: measurements</title>\n<style>\n",
	      to);
	fputs(style_text, to);
	fputs("</style>\n</head>\n<body>\n<main>\n<header>\n<h1>SSDTF/MQTT: measurements</h1>\n"
	      "<p class=\"origin\"><span>",
	      to);
	html_text(to, string_at(m, "cpu"));
	fprintf(to, ", %lld CPUs</span> · <span>",
		(long long)json_integer_value(json_object_get(m, "cpus")));
	html_text(to, string_at(m, "kernel"));
	fputs("</span> · <span>commit ", to);
	html_text(to, string_at(first, "commit"));
	fputs("</span> · <span>", to);
	html_text(to, string_at(first, "date"));
	fputs("</span></p>\n", to);
	summary_write_tiles(to, in);
	fputs("<nav aria-label=\"on this page\"><a href=\"#summary\">Summary</a>"
	      "<a href=\"#targets\">Targets</a><a href=\"#reached\">Ceilings</a>"
	      "<a href=\"#load\">Load</a>"
	      "<a href=\"#cost\">Cost</a><a href=\"#token\">Token and signatures</a>"
	      "<a href=\"#baseline\">Other ways</a><a href=\"#compare\">Against mosquitto</a>"
	      "<a href=\"#origin\">Origin</a></nav>\n</header>\n",
	      to);
}

static void write_plots(FILE *to, const struct input *in)
{
	static const struct {
		const char *id, *title, *line;
		void (*write)(FILE *to, const struct input *in);
	} groups[] = {
		{ "load", "Load",
		  "Messages are offered at a rate, whether earlier ones came through or not.",
		  growth_write_load },
		{ "cost", "Cost",
		  "CPU time of the broker’s processes for each delivery, as one thing grows. A "
		  "level line is the aim.",
		  growth_write_cost },
		{ "token", "Token and signatures",
		  "What sealed delivery reaches, and what the machine could do with nothing around "
		  "it.",
		  growth_write_token },
	};

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		html_section(to, groups[i].id, groups[i].title, groups[i].line);
		fputs("<div class=\"plots\">\n", to);
		groups[i].write(to, in);
		fputs("</div>\n", to);
		html_section_end(to);
	}
}

static void write_page(FILE *to, const struct input *in)
{
	write_head(to, in);
	fputs("<div class=\"pair\">\n", to);
	summary_write(to, in);
	summary_write_targets(to, in);
	fputs("</div>\n", to);
	reached_write(to, in);
	write_plots(to, in);
	baseline_write(to, in);
	summary_write_compare(to, in);
	baseline_write_speeds(to, in);
	write_doubts(to, in);
	write_origin(to, in);
	fputs("</main>\n</body>\n</html>\n", to);
}

int page_main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "FILE...",
		.doc = "Makes one HTML page with tables and plots out of what the other commands "
		       "wrote with --json. Needs gnuplot.",
	};
	struct page_options o = { 0 };
	struct input in;
	char *text = NULL;
	size_t n = 0;
	FILE *to;
	int ret;

	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		exit_with(EX_USAGE, "the options cannot be read");
	if (!o.out || !o.n_files)
		exit_with(EX_USAGE, "--out FILE and at least one file of results are needed");
	results_check_path(o.out);
	input_load(&in, o.files, o.n_files);
	to = open_memstream(&text, &n);
	if (!to)
		exit_with(EX_OSERR, "%s", strerror(errno));
	write_page(to, &in);
	if (fclose(to))
		exit_with(EX_OSERR, "%s", strerror(errno));
	ret = file_write(AT_FDCWD, o.out, bytes_of(text, n), 0644);
	free(text);
	input_free(&in);
	if (ret)
		exit_with(EX_CANTCREAT, "%s: %s", o.out, strerror(-ret));
	log_info("%s", o.out);
	return 0;
}
