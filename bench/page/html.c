// SPDX-License-Identifier: MIT
#include "bench/page/html.h"

#include <math.h>
#include <string.h>

#include "bench/lab/figure.h"
#include "userspace/base/compiler.h"

void html_text(FILE *to, const char *text)
{
	for (const char *p = text; *p; p++) {
		switch (*p) {
		case '&':
			fputs("&amp;", to);
			break;
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		default:
			/* A control character has no place in a document. */
			fputc((unsigned char)*p < ' ' ? ' ' : *p, to);
		}
	}
}

void html_number(double v, char out[HTML_NUMBER_BYTES])
{
	static const struct {
		double from, by;
		const char *suffix;
	} steps[] = { { 999.5e6, 1e9, " G" }, { 999.5e3, 1e6, " M" }, { 999.5, 1e3, " k" } };
	const char *suffix = "";
	double size;

	if (fabs(v) >= 1e12) { /* no figure of ours; a file may have it all the same */
		snprintf(out, HTML_NUMBER_BYTES, "%.3g", v);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(steps) && !*suffix; i++) {
		if (fabs(v) < steps[i].from)
			continue;
		v /= steps[i].by;
		suffix = steps[i].suffix;
	}
	size = fabs(v);
	/* 0.0042 has more digits behind the point than three; below that it is nothing. */
	snprintf(out, HTML_NUMBER_BYTES, "%.*f%s",
		 size >= 99.95	  ? 0
		 : size >= 9.995  ? 1
		 : size >= 0.0995 ? 2
		 : v == 0	  ? 0
				  : 4,
		 v, suffix);
}

void html_figure(FILE *to, const struct figure *f, const char *unit)
{
	char median[HTML_NUMBER_BYTES], min[HTML_NUMBER_BYTES], max[HTML_NUMBER_BYTES];

	if (!f->n || !isfinite(f->median)) {
		fputs("<span class=\"none\">not measured</span>", to);
		return;
	}
	html_number(f->median, median);
	html_number(f->min, min);
	html_number(f->max, max);
	fprintf(to, "<b>%s</b>%s%s", median, *unit ? "&nbsp;" : "", unit);
	if (f->n > 1 && strcmp(min, max))
		fprintf(to, " <small>%s&thinsp;–&thinsp;%s</small>", min, max);
}

void html_figure_cell(FILE *to, const struct figure *f, const char *unit)
{
	fputs("<td>", to);
	html_figure(to, f, unit);
	fputs("</td>", to);
}

void html_text_cell(FILE *to, const char *text)
{
	fputs("<td>", to);
	html_text(to, text);
	fputs("</td>", to);
}

void html_section(FILE *to, const char *id, const char *title, const char *line)
{
	fprintf(to, "<section id=\"%s\">\n<h2>", id);
	html_text(to, title);
	fputs("</h2>\n", to);
	if (!line)
		return;
	fputs("<p>", to);
	html_text(to, line);
	fputs("</p>\n", to);
}

void html_section_end(FILE *to)
{
	fputs("</section>\n", to);
}

void html_table(FILE *to, const char *const *columns)
{
	/* tabindex: what scrolls can be scrolled by keyboard too. */
	fputs("<div class=\"scroll\" tabindex=\"0\">\n<table>\n<thead><tr>", to);
	for (; *columns; columns++) {
		fputs("<th scope=\"col\">", to);
		html_text(to, *columns);
		fputs("</th>", to);
	}
	fputs("</tr></thead>\n<tbody>\n", to);
}

void html_table_end(FILE *to)
{
	fputs("</tbody>\n</table>\n</div>\n", to);
}
