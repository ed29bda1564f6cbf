/* SPDX-License-Identifier: MIT */
/*
 * gnuplot's SVG as a part of a page: without its own head, its names made unlike those of other
 * plots, its colours left to the page's style (light or dark).
 */
#ifndef SSDTF_BENCH_SVG_H
#define SSDTF_BENCH_SVG_H

#include <stdbool.h>
#include <stdio.h>

/* A colour of the page's style, and what stands for it in gnuplot. */
enum svg_colour {
	SVG_AXIS,
	SVG_TEXT,
	SVG_GRID,
	SVG_PLAIN,
	SVG_SEALED,
	SVG_MOSQUITTO,
	SVG_CEILING,
	SVG_CEILING2,
	SVG_COLOURS,
};

/* "var(--plain)", "#0b0400". */
const char *svg_colour_css(enum svg_colour c);
const char *svg_colour_gnuplot(enum svg_colour c);

/* False where it is no SVG of gnuplot's. Prefix: of names, unique on the page. */
bool svg_embed(FILE *to, const char *svg, const char *prefix, const char *label);

#endif
