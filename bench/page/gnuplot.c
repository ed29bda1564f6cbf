// SPDX-License-Identifier: MIT
#include "bench/page/gnuplot.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/lab/capture.h"
#include "bench/page/html.h"
#include "bench/page/plot.h"
#include "userspace/base/compiler.h"
#include "userspace/base/log.h"

/* Pixels of the drawing; a page scales it. Letters are made for the narrowest. */
#define WIDTH	 440
#define HEIGHT	 300
#define FONT	 "system-ui,sans-serif,13"
#define TICS_MAX 7 /* of an axis, with a label each */

/* --- axes ------------------------------------------------------------------------------------- */

/* "100", "10k", "1M", "64Ki", "0.1". */
static void label(double v, char text[HTML_NUMBER_BYTES])
{
	if (v >= 1024 && fmod(v, 1024) <= 0)
		snprintf(text, HTML_NUMBER_BYTES, "%.0fKi", v / 1024);
	else if (v >= 1e6)
		snprintf(text, HTML_NUMBER_BYTES, "%gM", v / 1e6);
	else if (v >= 1e3)
		snprintf(text, HTML_NUMBER_BYTES, "%gk", v / 1e3);
	else
		snprintf(text, HTML_NUMBER_BYTES, "%g", v);
}

static void put_tic(FILE *to, double v, bool first)
{
	char text[HTML_NUMBER_BYTES];

	label(v, text);
	fprintf(to, "%s\"%s\" %.9g", first ? "" : ", ", text, v);
}

/* At 1, 10, 100 ... and, where that is few, at 2 and 5 between. */
static void put_decades(FILE *to, struct plot_extent e)
{
	int from = (int)floor(log10(e.min)), last = (int)ceil(log10(e.max));
	int step = (last - from + TICS_MAX - 1) / TICS_MAX;
	bool between = log10(e.max / e.min) < 2.2, first = true;

	for (int d = from; d <= last; d++) {
		static const unsigned at[] = { 1, 2, 5 };

		for (unsigned i = 0; i < (between ? ARRAY_SIZE(at) : 1); i++) {
			double v = at[i] * pow(10, d);

			if (v < e.min * 0.999 || v > e.max * 1.001 ||
			    (step > 1 && (d - from) % step))
				continue;
			put_tic(to, v, first);
			first = false;
		}
	}
}

/* Where points are, if they are few. */
static void put_x_tics(FILE *to, const struct plot *p, struct plot_extent e)
{
	double x[PLOT_POINTS_MAX];
	unsigned n = plot_all_x(p, x);

	fputs("set xtics (", to);
	if (n > TICS_MAX)
		put_decades(to, e);
	for (unsigned i = 0; n <= TICS_MAX && i < n; i++)
		put_tic(to, x[i], !i);
	fputs(")\n", to);
}

/* The next of 1, 2, 5, 10 ... that is not above, or not below. */
static double nice(double v, bool up)
{
	static const double steps[] = { 1, 2, 5, 10 };
	double decade = pow(10, floor(log10(v))), at = up ? 10 : 1;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		double step = steps[up ? ARRAY_SIZE(steps) - 1 - i : i];

		if (up ? step * decade >= v * 0.999 : step * decade <= v * 1.001)
			at = step;
	}
	return at * decade;
}

static void put_axes(FILE *to, const struct plot *p)
{
	struct plot_extent x, y;

	plot_extents(p, &x, &y);
	/* Ten times at least: a level line is to look level, and a small step small. */
	y.min = nice(y.min * 0.9, false);
	y.max = nice(fmax(y.max * 1.1, y.min * 10), true);
	fputs("set logscale y\n", to);
	if (p->linear_x) {
		x = (struct plot_extent){ x.min - 0.3, x.max + 0.3 };
	} else {
		x = (struct plot_extent){ x.min / 1.4, x.max * 1.4 };
		fputs("set logscale x\n", to);
	}
	put_x_tics(to, p, x);
	fputs("set ytics (", to);
	put_decades(to, y);
	fputs(")\n", to);
	fprintf(to, "set xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\n", x.min, x.max, y.min, y.max);
	fprintf(to,
		"set xlabel \"%s\" textcolor rgb \"%s\"\nset ylabel \"%s\" textcolor rgb \"%s\"\n",
		p->x, svg_colour_gnuplot(SVG_TEXT), p->y, svg_colour_gnuplot(SVG_TEXT));
}

/* --- curves ----------------------------------------------------------------------------------- */

static void put_data(FILE *to, const struct plot *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];

		fprintf(to, "$c%u << END\n", i);
		for (unsigned k = 0; k < c->n; k++) {
			const struct figure *y = &c->y[k];
			double min = y->min > 0 ? y->min : y->median;
			double max = isfinite(y->max) ? y->max : y->median;

			if (plot_drawn(p, c, k))
				fprintf(to, "%.9g %.9g %.9g %.9g\n", c->x[k], y->median, min, max);
		}
		fputs("END\n", to);
	}
}

/* Circle, square, triangle: the servers can be told apart without their colours too. */
static unsigned point_type(const struct plot_curve *c)
{
	unsigned type = c->colour == SVG_SEALED ? 5 : c->colour == SVG_MOSQUITTO ? 9 : 7;

	return c->second ? type - 1 : type;
}

static void put_curves(FILE *to, const struct plot *p)
{
	const char *comma = "plot ";

	for (unsigned i = 0; i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];
		const char *colour = svg_colour_gnuplot(c->colour);

		if (!plot_count_drawn(p, c))
			continue;
		if (c->ceiling) {
			fprintf(to, "%s$c%u using 1:2 with lines dt (8,5) lw 1.6 lc rgb \"%s\"",
				comma, i, colour);
		} else {
			fprintf(to,
				"%s$c%u using 1:2:3:4 with yerrorbars pt 0 ps 0 lw 1 "
				"lc rgb \"%s\", $c%u using 1:2 with linespoints%s pt %u ps 0.75 "
				"lw 1.8 lc rgb \"%s\"",
				comma, i, colour, i, c->second ? " dt (2,4)" : "", point_type(c),
				colour);
		}
		comma = ", ";
	}
	fputc('\n', to);
}

/* --- the program ------------------------------------------------------------------------------ */

static void put_script(FILE *to, const struct plot *p)
{
	const char *axis = svg_colour_gnuplot(SVG_AXIS), *text = svg_colour_gnuplot(SVG_TEXT);

	fprintf(to,
		"set terminal svg size %d,%d dynamic noenhanced font \"%s\"\n"
		"set encoding utf8\nunset key\nset pointintervalbox 0\n"
		"set border 3 lc rgb \"%s\"\nset tics nomirror scale 0.6 textcolor rgb \"%s\"\n"
		"set grid lt 1 lw 0.7 lc rgb \"%s\"\n",
		WIDTH, HEIGHT, FONT, axis, text, svg_colour_gnuplot(SVG_GRID));
	put_data(to, p);
	put_axes(to, p);
	put_curves(to, p);
}

void gnuplot_draw(FILE *to, const struct plot *p)
{
	static const char *const args[] = { "gnuplot", NULL };
	char *script = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&script, &n);
	struct capture c;
	int ret;

	if (!f)
		exit_with(EX_OSERR, "%s", strerror(errno));
	put_script(f, p);
	if (fclose(f))
		exit_with(EX_OSERR, "%s", strerror(errno));
	ret = capture_run(args, bytes_of(script, n), &c);
	free(script);
	if (ret == -ENOENT)
		exit_with(EX_UNAVAILABLE, "gnuplot is not there: apt install gnuplot-nox");
	if (ret)
		exit_with(EX_OSERR, "gnuplot: %s", strerror(-ret));
	if (c.status || !svg_embed(to, c.text, p->id, p->title))
		exit_with(EX_SOFTWARE, "gnuplot ended with %d: %s", c.status, c.error);
	free(c.text);
}
