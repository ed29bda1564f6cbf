// SPDX-License-Identifier: MIT
#include "bench/page/baseline.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "bench/page/html.h"
#include "bench/page/input.h"
#include "userspace/base/compiler.h"

/* What ssdtf-bench crypto calls the ways to make a delivery readable (bench/ceiling/ceiling.h). */
#define DELIVERY  "delivery "
#define OURS	  "delivery ours"
#define SIZES_MAX 8

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

/* One core is enough: what each process does is its own. */
static bool is_delivery(const struct input_speed *s)
{
	return begins(s->name, DELIVERY) && s->processes == 1;
}

static const struct input_speed *of_size(const struct input *in, const char *name, unsigned bytes)
{
	for (unsigned i = 0; i < in->n_speeds; i++) {
		const struct input_speed *s = &in->speeds[i];

		if (is_delivery(s) && s->bytes == bytes && !strcmp(s->name, name))
			return s;
	}
	return NULL;
}

/* The payloads that were measured, in the order of the file. */
static unsigned sizes(const struct input *in, unsigned bytes[SIZES_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < in->n_speeds && n < SIZES_MAX; i++) {
		unsigned at = 0;

		if (!is_delivery(&in->speeds[i]) || !in->speeds[i].bytes)
			continue;
		while (at < n && bytes[at] != in->speeds[i].bytes)
			at++;
		if (at == n)
			bytes[n++] = in->speeds[i].bytes;
	}
	return n;
}

static bool is_first(const struct input *in, unsigned at)
{
	for (unsigned i = 0; i < at; i++) {
		if (!strcmp(in->speeds[i].name, in->speeds[at].name))
			return false;
	}
	return true;
}

/* CPU for each payload; where the payload is not touched, of all of them the same. */
static void baseline_row(FILE *to, const struct input *in, const char *name, const unsigned *bytes,
			 unsigned n)
{
	static const struct figure none = { 0, NAN, NAN, NAN };
	const struct input_speed *any = of_size(in, name, 0);

	fputs(begins(name, OURS) ? "<tr class=\"ours\"><th scope=\"row\">"
				 : "<tr><th scope=\"row\">",
	      to);
	html_text(to, name + strlen(DELIVERY));
	fputs("</th>", to);
	for (unsigned i = 0; i < n; i++) {
		const struct input_speed *s = any ? any : of_size(in, name, bytes[i]);

		html_figure_cell(to, s ? &s->cpu_us : &none, "");
	}
	fputs("</tr>\n", to);
}

static bool is_ratio_shown(const struct input_ratio *r, bool of_delivery)
{
	/* Those of deliveries are named without the word. */
	bool delivery = begins(r->name, "umbral") || begins(r->name, "decrypt");

	return r->processes == 1 && delivery == of_delivery;
}

static void write_ratios(FILE *to, const struct input *in, bool of_delivery)
{
	static const char *const columns[] = { "CPU of the one / of the other", "ratio", NULL };
	bool any = false;

	for (unsigned i = 0; i < in->n_ratios; i++) {
		if (!is_ratio_shown(&in->ratios[i], of_delivery))
			continue;
		if (!any)
			html_table(to, columns);
		any = true;
		fputs("<tr><th scope=\"row\">", to);
		html_text(to, in->ratios[i].name);
		fputs("</th>", to);
		html_figure_cell(to, &in->ratios[i].ratio, "×");
		fputs("</tr>\n", to);
	}
	if (any)
		html_table_end(to);
}

void baseline_write(FILE *to, const struct input *in)
{
	const char *columns[SIZES_MAX + 2] = { "way" };
	char heads[SIZES_MAX][32];
	unsigned bytes[SIZES_MAX] = { 0 }, n = sizes(in, bytes);
	bool any = false;

	for (unsigned i = 0; i < in->n_speeds; i++)
		any |= is_delivery(&in->speeds[i]);
	html_section(
		to, "baseline", "Other ways to do it",
		"CPU of the broker for one delivery, measured in one process on one core: ours, "
		"re-encryption after Umbral (five scalar multiplications with its proof), and a "
		"broker that decrypts and encrypts again, and so reads everything. Like is to be "
		"set against like: with the token, in process, or with what can be remembered.");
	if (!any) {
		fputs("<p class=\"none\">Not measured. <code>ssdtf-bench crypto</code> does "
		      "it.</p>\n",
		      to);
		html_section_end(to);
		return;
	}
	n = n ? n : 1; /* of none in particular */
	for (unsigned i = 0; i < n; i++) {
		snprintf(heads[i], sizeof(heads[i]), "µs, %u B", bytes[i]);
		columns[i + 1] = bytes[i] ? heads[i] : "µs";
	}
	columns[n + 1] = NULL;
	html_table(to, columns);
	for (unsigned i = 0; i < in->n_speeds; i++) {
		if (is_delivery(&in->speeds[i]) && is_first(in, i))
			baseline_row(to, in, in->speeds[i].name, bytes, n);
	}
	html_table_end(to);
	write_ratios(to, in, true);
	html_section_end(to);
}

static void put_count(FILE *to, unsigned v)
{
	if (v)
		fprintf(to, "<td>%u</td>", v);
	else
		fputs("<td></td>", to);
}

void baseline_write_speeds(FILE *to, const struct input *in)
{
	static const char *const columns[] = { "operation", "processes", "bytes",  "batch",
					       "context",   "a second",	 "CPU µs", NULL };

	html_section(to, "ceilings", "Ceilings",
		     "What this machine does with nothing around it: the token alone, and the "
		     "cryptography in one process.");
	if (!in->n_speeds) {
		fputs("<p class=\"none\">Not measured. <code>ssdtf-bench hsm</code> and "
		      "<code>ssdtf-bench crypto</code> do it.</p>\n",
		      to);
		html_section_end(to);
		return;
	}
	write_ratios(to, in, false);
	fprintf(to, "<details><summary>All %u operations</summary>\n", in->n_speeds);
	html_table(to, columns);
	for (unsigned i = 0; i < in->n_speeds; i++) {
		const struct input_speed *s = &in->speeds[i];

		fputs("<tr><th scope=\"row\">", to);
		html_text(to, s->name);
		fputs("</th>", to);
		put_count(to, s->processes);
		put_count(to, s->bytes);
		put_count(to, s->batch);
		put_count(to, s->context);
		html_figure_cell(to, &s->per_second, "");
		html_figure_cell(to, &s->cpu_us, "");
		fputs("</tr>\n", to);
	}
	html_table_end(to);
	fputs("</details>\n", to);
	html_section_end(to);
}
