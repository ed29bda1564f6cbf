// SPDX-License-Identifier: MIT
#include "bench/page/reached.h"

#include <string.h>

#include "bench/page/html.h"
#include "bench/page/input.h"
#include "userspace/base/compiler.h"

static const char *unit_of(const struct input_reach *r)
{
	if (!strcmp(r->unit, "x"))
		return "×";
	return strcmp(r->unit, "us") ? "" : "µs";
}

static void wanted_cell(FILE *to, const struct input_reach *r)
{
	if (!r->wanted) {
		fputs("<td></td>", to);
		return;
	}
	/* No-break spaces: a number stays with its unit. */
	fprintf(to, "<td>at %s %g\u00a0%s", r->at_least ? "least" : "most", r->wanted_value,
		unit_of(r));
	fputs(r->met ? "<div class=\"met\">✓ met</div></td>"
		     : "<div class=\"missed\">✗ not met</div></td>",
	      to);
}

static void rate_cell(FILE *to, const struct figure *f)
{
	char number[HTML_NUMBER_BYTES];

	fputs("<td>", to);
	if (f->n) {
		html_number(f->median, number);
		fputs(number, to);
	}
	fputs("</td>", to);
}

static void row(FILE *to, const struct input_reach *r)
{
	fputs("<tr><th scope=\"row\">", to);
	html_text(to, r->name);
	if (r->reached.n)
		fprintf(to, ", %u CPU%s", r->cpus, r->cpus == 1 ? "" : "s");
	fputs("<small>", to);
	html_text(to, r->of);
	fputs("</small></th>", to);
	rate_cell(to, &r->reached);
	rate_cell(to, &r->alone);
	html_figure_cell(to, &r->value, unit_of(r));
	wanted_cell(to, r);
	fputs("</tr>\n", to);
}

void reached_write(FILE *to, const struct input *in)
{
	static const char *const columns[] = {
		"", "reached a second", "alone a second", "ratio, or each", "wanted", NULL
	};

	html_section(to, "reached", "How much of each ceiling",
		     "The whole broker under load, and what limits it alone on the same CPUs, in "
		     "turn. A ratio is made within a round; the median of the rounds decides.");
	if (in->n_reaches) {
		html_table(to, columns);
		for (unsigned i = 0; i < in->n_reaches; i++)
			row(to, &in->reaches[i]);
		html_table_end(to);
	} else {
		fputs("<p class=\"none\">Not measured. <code>ssdtf-bench reach</code> does it."
		      "</p>\n",
		      to);
	}
	html_section_end(to);
}
