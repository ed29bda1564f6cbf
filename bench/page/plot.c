// SPDX-License-Identifier: MIT
#include "bench/page/plot.h"

#include <math.h>
#include <string.h>

#include "bench/page/gnuplot.h"
#include "bench/page/html.h"
#include "userspace/base/compiler.h"

/* No figure of ours is beyond these; what a file says may be. */
#define AXIS_MIN   1e-9
#define AXIS_MAX   1e15
#define LINEAR_MAX 1e4

struct plot_curve *plot_curve_add(struct plot *p, const char *name, enum svg_colour colour)
{
	struct plot_curve *c = &p->curves[p->n++];

	BUG_ON(p->n > PLOT_CURVES_MAX);
	*c = (struct plot_curve){ .name = name, .colour = colour };
	return c;
}

void plot_point(struct plot_curve *c, double x, struct figure y)
{
	unsigned at = 0;

	if (!y.n || !isfinite(y.median) || !isfinite(x))
		return;
	while (at < c->n && c->x[at] < x)
		at++;
	if (at == c->n || c->x[at] > x) {
		if (c->n == PLOT_POINTS_MAX)
			return;
		memmove(&c->x[at + 1], &c->x[at], (c->n - at) * sizeof(c->x[0]));
		memmove(&c->y[at + 1], &c->y[at], (c->n - at) * sizeof(c->y[0]));
		c->n++;
	}
	c->x[at] = x;
	c->y[at] = y;
}

/* What a logarithmic axis takes. */
static bool on_axis(double v)
{
	return v >= AXIS_MIN && v <= AXIS_MAX;
}

bool plot_drawn(const struct plot *p, const struct plot_curve *c, unsigned i)
{
	return on_axis(c->y[i].median) && (p->linear_x ? c->x[i] < LINEAR_MAX : on_axis(c->x[i]));
}

unsigned plot_count_drawn(const struct plot *p, const struct plot_curve *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += plot_drawn(p, c, i);
	return n;
}

static void widen(struct plot_extent *e, double v)
{
	e->min = fmin(e->min, v);
	e->max = fmax(e->max, v);
}

void plot_extents(const struct plot *p, struct plot_extent *x, struct plot_extent *y)
{
	*x = *y = (struct plot_extent){ INFINITY, -INFINITY };
	for (unsigned i = 0; i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];

		for (unsigned k = 0; k < c->n; k++) {
			if (!plot_drawn(p, c, k))
				continue;
			widen(x, c->x[k]);
			widen(y, c->y[k].median);
			if (on_axis(c->y[k].min))
				widen(y, c->y[k].min);
			if (on_axis(c->y[k].max))
				widen(y, c->y[k].max);
		}
	}
}

void plot_ceiling(struct plot *p, const char *name, enum svg_colour colour, struct figure y)
{
	struct plot_curve *c;
	struct plot_extent ex, ey;

	plot_extents(p, &ex, &ey);
	c = plot_curve_add(p, name, colour);
	c->ceiling = true;
	if (!isfinite(ex.min))
		return;
	/* Of one value on x a line needs two; the axes are widened by as much. */
	plot_point(c, p->linear_x ? ex.min - 0.2 : ex.min / 1.2, y);
	plot_point(c, p->linear_x ? ex.max + 0.2 : ex.max * 1.2, y);
}

/* --- around it -------------------------------------------------------------------------------- */

/* A curve's line and point, as gnuplot draws them. */
static void put_swatch(FILE *to, const struct plot_curve *c)
{
	const char *css = svg_colour_css(c->colour);
	const char *fill = c->second ? "none" : css;

	fprintf(to,
		"<svg class=\"key\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">"
		"<path d=\"M1 6H27\" stroke=\"%s\" stroke-width=\"1.8\"%s/>",
		css,
		c->ceiling  ? " stroke-dasharray=\"6 4\""
		: c->second ? " stroke-dasharray=\"2 3\""
			    : "");
	if (!c->ceiling && c->colour == SVG_SEALED)
		fprintf(to, "<path d=\"M10.5 2.5h7v7h-7z\" fill=\"%s\" stroke=\"%s\"/>", fill, css);
	else if (!c->ceiling && c->colour == SVG_MOSQUITTO)
		fprintf(to, "<path d=\"M14 1.5l4.5 8h-9z\" fill=\"%s\" stroke=\"%s\"/>", fill, css);
	else if (!c->ceiling)
		fprintf(to, "<circle cx=\"14\" cy=\"6\" r=\"3.7\" fill=\"%s\" stroke=\"%s\"/>",
			fill, css);
	fputs("</svg>", to);
}

static void put_key(FILE *to, const struct plot *p)
{
	fputs("<ul class=\"keys\">\n", to);
	for (unsigned i = 0; i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];
		unsigned hidden = c->n - plot_count_drawn(p, c);

		fputs(c->n ? "<li>" : "<li class=\"none\">", to);
		put_swatch(to, c);
		html_text(to, c->name);
		if (!c->n)
			fputs(": not measured", to);
		if (hidden)
			fprintf(to, " (%u of its values: 0, or beyond all measure, not drawn)",
				hidden);
		fputs("</li>\n", to);
	}
	fputs("</ul>\n", to);
}

static const struct figure *value_at(const struct plot_curve *c, double x)
{
	static const struct figure none;

	for (unsigned i = 0; i < c->n; i++) {
		if (fabs(c->x[i] - x) <= 1e-9 * fabs(x))
			return &c->y[i];
	}
	/* A level line is everywhere. */
	return c->ceiling && c->n == 2 && fabs(c->y[0].median - c->y[1].median) <= 0 ? &c->y[0]
										     : &none;
}

unsigned plot_all_x(const struct plot *p, double x[PLOT_POINTS_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];

		for (unsigned k = 0; !c->ceiling && k < c->n; k++) {
			unsigned at = 0;

			while (at < n && x[at] < c->x[k])
				at++;
			if ((at < n && x[at] <= c->x[k]) || n == PLOT_POINTS_MAX)
				continue;
			memmove(&x[at + 1], &x[at], (n - at) * sizeof(x[0]));
			x[at] = c->x[k];
			n++;
		}
	}
	return n;
}

static void put_values(FILE *to, const struct plot *p)
{
	const char *columns[PLOT_CURVES_MAX + 2] = { p->x };
	double x[PLOT_POINTS_MAX];
	unsigned n = plot_all_x(p, x), used = 1;

	for (unsigned i = 0; i < p->n; i++) {
		if (p->curves[i].n)
			columns[used++] = p->curves[i].name;
	}
	columns[used] = NULL;
	fprintf(to, "<details><summary>Values: ");
	html_text(to, p->y);
	fputs("</summary>\n", to);
	html_table(to, columns);
	for (unsigned i = 0; i < n; i++) {
		char number[HTML_NUMBER_BYTES];

		snprintf(number, sizeof(number), "%.10g", x[i]);
		fprintf(to, "<tr><th scope=\"row\">%s</th>", number);
		for (unsigned k = 0; k < p->n; k++) {
			if (p->curves[k].n)
				html_figure_cell(to, value_at(&p->curves[k], x[i]), "");
		}
		fputs("</tr>\n", to);
	}
	html_table_end(to);
	fputs("</details>\n", to);
}

void plot_write(FILE *to, const struct plot *p)
{
	unsigned measured = 0;

	for (unsigned i = 0; i < p->n; i++)
		measured += p->curves[i].ceiling ? 0 : plot_count_drawn(p, &p->curves[i]);
	fprintf(to, "<figure id=\"%s\"%s>\n<figcaption><h3>", p->id,
		measured ? "" : " class=\"missing\"");
	html_text(to, p->title);
	fputs("</h3><p>", to);
	html_text(to, p->note);
	fputs("</p></figcaption>\n", to);
	if (!measured) {
		fputs("<p class=\"none\">Not measured. <code>", to);
		html_text(to, p->command);
		fputs("</code> does it.</p>\n</figure>\n", to);
		return;
	}
	gnuplot_draw(to, p);
	put_key(to, p);
	put_values(to, p);
	fputs("</figure>\n", to);
}
