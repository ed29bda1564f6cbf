/* SPDX-License-Identifier: MIT */
/*
 * One plot of a page: a figure with its title, an SVG that gnuplot drew, the key, and all its
 * values in a table that opens. What was not measured is named, and drawn nowhere.
 */
#ifndef SSDTF_BENCH_PLOT_H
#define SSDTF_BENCH_PLOT_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/lab/figure.h"
#include "bench/page/svg.h"

#define PLOT_CURVES_MAX 8
#define PLOT_POINTS_MAX 64

struct plot_curve {
	const char *name;
	enum svg_colour colour;
	bool ceiling;		   /* broken line without points: what could be reached at most */
	bool second;		   /* dotted, hollow points: another figure of the same server */
	unsigned n;		   /* 0: not measured */
	double x[PLOT_POINTS_MAX]; /* ascending */
	struct figure y[PLOT_POINTS_MAX]; /* without a value: not drawn */
};

struct plot {
	const char *id; /* a word, unique on the page */
	const char *title, *note;
	const char *x, *y;   /* what the axes are */
	bool linear_x;	     /* else both are logarithmic */
	const char *command; /* that measures it */
	unsigned n;
	struct plot_curve curves[PLOT_CURVES_MAX];
};

struct plot_curve *plot_curve_add(struct plot *p, const char *name, enum svg_colour colour);
/* Kept in the order of x; a later value of the same x takes the place of an earlier one. */
void plot_point(struct plot_curve *c, double x, struct figure y);
/* A level line over all of x; none where it has no value. After the measured curves. */
void plot_ceiling(struct plot *p, const char *name, enum svg_colour colour, struct figure y);

/* Logarithms know nothing of zero: such a value, or one beyond all measure, stands in the table
 * alone. */
bool plot_drawn(const struct plot *p, const struct plot_curve *c, unsigned i);
unsigned plot_count_drawn(const struct plot *p, const struct plot_curve *c);
/* Of all that is drawn, spreads included; infinite where nothing is. */
struct plot_extent {
	double min, max;
};
void plot_extents(const struct plot *p, struct plot_extent *ret_x, struct plot_extent *ret_y);

/* Every x that a measured curve has, ascending. */
unsigned plot_all_x(const struct plot *p, double ret_x[PLOT_POINTS_MAX]);

/* Ends the program where gnuplot is not there or fails. */
void plot_write(FILE *to, const struct plot *p);

#endif
