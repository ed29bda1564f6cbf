// SPDX-License-Identifier: MIT
#include "bench/page/svg.h"

#include <stdlib.h>
#include <string.h>

#include "bench/page/html.h"
#include "userspace/base/compiler.h"

static const struct {
	const char *css, *gnuplot;
	unsigned red; /* of what gnuplot writes; green and blue are 4 and 0 */
} colours[SVG_COLOURS] = {
	[SVG_AXIS] = { "var(--axis)", "#010400", 1 },
	[SVG_TEXT] = { "var(--text)", "#020400", 2 },
	[SVG_GRID] = { "var(--grid)", "#030400", 3 },
	[SVG_PLAIN] = { "var(--plain)", "#0a0400", 10 },
	[SVG_SEALED] = { "var(--sealed)", "#0b0400", 11 },
	[SVG_MOSQUITTO] = { "var(--mosquitto)", "#0c0400", 12 },
	[SVG_CEILING] = { "var(--ceiling)", "#0d0400", 13 },
	[SVG_CEILING2] = { "var(--ceiling2)", "#0e0400", 14 },
};

const char *svg_colour_css(enum svg_colour c)
{
	return colours[c].css;
}

const char *svg_colour_gnuplot(enum svg_colour c)
{
	return colours[c].gnuplot;
}

/* Behind "rgb(": one of ours becomes the page's, any other stays. Where to go on. */
static const char *put_colour(FILE *to, const char *p)
{
	char *end;
	unsigned long red = strtoul(p + 4, &end, 10);
	const char *close = strchr(p, ')');

	for (unsigned i = 0; close && *end == ',' && i < SVG_COLOURS; i++) {
		if (colours[i].red != red || strtoul(end + 1, NULL, 10) != 4)
			continue;
		fputs(colours[i].css, to);
		return close + 1;
	}
	fputs("rgb(", to);
	return p + 4;
}

/* What is left out: the end of an element that begins at p, or NULL. */
static const char *skipped(const char *p)
{
	static const struct {
		const char *from, *to;
	} elements[] = {
		{ "<title>", "</title>" },
		{ "<desc>", "</desc>" },
		{ "<filter ", "</filter>" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(elements); i++) {
		const char *end;

		if (strncmp(p, elements[i].from, strlen(elements[i].from)))
			continue;
		end = strstr(p, elements[i].to);
		return end ? end + strlen(elements[i].to) : NULL;
	}
	/* gnuplot writes a group for each change of the pen, most of them with nothing in it. */
	if (!strncmp(p, "<g ", 3)) {
		const char *end = strchr(p, '>');

		if (end && !strncmp(end, ">\n</g>", 6))
			return end + 6;
	}
	return NULL;
}

/* Names and the references to them, quoted in either way. */
static const char *put_name(FILE *to, const char *p, const char *prefix)
{
	static const struct {
		const char *found, *put;
	} names[] = {
		{ " id='", " id='" },		{ " id=\"", " id=\"" },
		{ "xlink:href='#", "href='#" }, { "xlink:href=\"#", "href=\"#" },
		{ "url(#", "url(#" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strncmp(p, names[i].found, strlen(names[i].found)))
			continue;
		fprintf(to, "%s%s-", names[i].put, prefix);
		return p + strlen(names[i].found);
	}
	return NULL;
}

bool svg_embed(FILE *to, const char *svg, const char *prefix, const char *label)
{
	const char *open = strstr(svg, "<svg"), *view = open ? strstr(open, "viewBox=\"") : NULL;
	const char *p = open ? strchr(open, '>') : NULL;
	const char *end = p ? strstr(p, "</svg>") : NULL;

	if (!end || !view || view > p)
		return false;
	fprintf(to, "<svg class=\"plot\" %.*s\" role=\"img\" aria-label=\"",
		(int)(strcspn(view + 9, "\"") + 9), view);
	html_text(to, label);
	fputs("\">", to);
	for (p++; p < end;) {
		const char *next = skipped(p);

		if (!next)
			next = put_name(to, p, prefix);
		if (!next && !strncmp(p, "rgb(", 4))
			next = put_colour(to, p);
		if (!next && !strncmp(p, "'white'", 7)) { /* the gap around a point */
			fputs("'var(--paper)'", to);
			next = p + 7;
		}
		if (!next) {
			fputc(*p, to);
			next = p + 1;
		} else if (*next == '\n' && next[-1] == '>') {
			next++; /* no empty lines where something was left out */
		}
		p = next;
	}
	fputs("</svg>\n", to);
	return true;
}
