// SPDX-License-Identifier: MIT
#include "bench/ceiling/course.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"

#define NAME_COLUMNS  50
#define RATIO_COLUMNS 68
#define CELL_BYTES    64
#define NAME_BYTES    96

/* --- measuring -------------------------------------------------------------------------------- */

static void take(struct course_series *s, unsigned round, const struct crew_slice *slice)
{
	s->per_second[round] = slice->per_second;
	s->cpu_us[round] = slice->cpu_us;
	if (!round)
		return;
	s->operations += slice->operations;
	s->rss_kib += slice->rss_kib;
}

struct course *course_run(const struct course_plan *p, const struct works *w, struct crew *crew)
{
	double whole = p->seconds * w->n * p->n_counts * p->rounds;
	struct course *c = calloc(1, sizeof(*c));
	struct crew_slice s;

	BUG_ON(p->rounds > COURSE_ROUNDS_MAX || p->n_counts > COURSE_COUNTS_MAX);
	if (!c)
		exit_with(EX_OSERR, "no memory");
	c->plan = p;
	c->works = w;
	for (unsigned round = 0; round < p->rounds; round++) {
		fprintf(stderr, "ssdtf-bench: %s: round %u of %u, %.0f s left\n", p->title,
			round + 1, p->rounds, whole * (p->rounds - round) / p->rounds);
		for (unsigned i = 0; i < w->n; i++) {
			for (unsigned k = 0; k < p->n_counts; k++) {
				crew_slice(crew, i, p->counts[k], p->seconds, &s);
				take(&c->series[i][k], round, &s);
			}
		}
	}
	return c;
}

static const struct course_series *series_of(const struct course *c, const char *name,
					     unsigned bytes, unsigned batch, unsigned context,
					     unsigned count)
{
	for (unsigned i = 0; i < c->works->n; i++) {
		const struct work *w = &c->works->list[i];

		if (!strcmp(w->name, name) && w->bytes == bytes && w->batch == batch &&
		    w->context == context)
			return &c->series[i][count];
	}
	return NULL;
}

/* False where one of the two works is not there. */
static bool ratio_of(const struct course *c, const struct course_ratio *r, unsigned count,
		     struct figure *ret_f)
{
	const struct course_series *of =
		series_of(c, r->of, r->of_bytes, r->of_batch, r->of_context, count);
	const struct course_series *to =
		series_of(c, r->to, r->to_bytes, r->to_batch, r->to_context, count);
	double v[COURSE_ROUNDS_MAX];

	if (!of || !to)
		return false;
	for (unsigned i = 0; i < c->plan->rounds; i++)
		v[i] = of->cpu_us[i] / to->cpu_us[i];
	*ret_f = figure_of(v, c->plan->rounds);
	return true;
}

static double kib_per_million(const struct course_series *s)
{
	return s->operations ? (double)s->rss_kib * 1e6 / (double)s->operations : NAN;
}

/* --- tables ----------------------------------------------------------------------------------- */

/* Few digits: three where they are behind the point, whole numbers otherwise. */
static int digits(double v)
{
	return v < 10 ? 3 : v < 100 ? 2 : v < 1000 ? 1 : 0;
}

static void cell(const struct figure *f, char out[CELL_BYTES])
{
	int d = digits(f->median);

	if (f->n == 1)
		snprintf(out, CELL_BYTES, "%.*f", d, f->median);
	else
		snprintf(out, CELL_BYTES, "%.*f (%.*f-%.*f)", d, f->median, d, f->min, d, f->max);
}

static void name_of(const struct work *w, char out[NAME_BYTES])
{
	int n = snprintf(out, NAME_BYTES, "%s", w->name);

	if (w->context)
		n += snprintf(out + n, NAME_BYTES - (size_t)n, ", context of %u", w->context);
	if (w->batch)
		n += snprintf(out + n, NAME_BYTES - (size_t)n, ", batch of %u", w->batch);
	if (w->bytes)
		n += snprintf(out + n, NAME_BYTES - (size_t)n, ", %u B", w->bytes);
	BUG_ON(n >= NAME_BYTES);
}

static void print_row(const struct course *c, unsigned work, unsigned count, FILE *to)
{
	const struct course_series *s = &c->series[work][count];
	struct figure rate = figure_of(s->per_second, c->plan->rounds);
	struct figure cpu = figure_of(s->cpu_us, c->plan->rounds);
	char name[NAME_BYTES], rates[CELL_BYTES], cpus[CELL_BYTES];

	name_of(&c->works->list[work], name);
	cell(&rate, rates);
	cell(&cpu, cpus);
	fprintf(to, "  %-*s %5u %30s %28s\n", NAME_COLUMNS - 2, count ? "" : name,
		c->plan->counts[count], rates, cpus);
}

void course_print(const struct course *c, FILE *to)
{
	const struct course_plan *p = c->plan;

	fprintf(to, "%u round%s of %g s each; median (min-max)\n", p->rounds,
		p->rounds == 1 ? "" : "s", p->seconds);
	for (unsigned i = 0; i < c->works->n; i++) {
		const char *part = c->works->list[i].part;

		if (!i || part != c->works->list[i - 1].part)
			fprintf(to, "\n%-*s %5s %30s %28s\n", NAME_COLUMNS, part, "procs",
				"a second", "CPU us each");
		for (unsigned k = 0; k < p->n_counts; k++)
			print_row(c, i, k, to);
	}
	for (unsigned i = 0; i < c->works->n; i++) {
		if (!c->works->list[i].memory || !c->series[i][0].operations)
			continue;
		fprintf(to, "\n%s: memory grows by %.0f KiB in a million\n", c->works->list[i].name,
			kib_per_million(&c->series[i][0]));
	}
}

void course_print_ratios(const struct course *c, const struct course_ratio *r, unsigned n, FILE *to)
{
	char text[CELL_BYTES];
	struct figure f;

	fprintf(to, "\n%-*s %s\n", RATIO_COLUMNS, "CPU time, one by the other, in one process",
		"ratio");
	for (unsigned i = 0; i < n; i++) {
		if (!ratio_of(c, &r[i], 0, &f))
			continue;
		cell(&f, text);
		fprintf(to, "  %-*s %s\n", RATIO_COLUMNS - 2, r[i].name, text);
	}
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* JSON has no NAN: null. */
static json_t *real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *figure_json(const struct figure *f)
{
	return json_pack("{s:i, s:o, s:o, s:o}", "n", (int)f->n, "min", real(f->min), "median",
			 real(f->median), "max", real(f->max));
}

static void add_number(json_t *j, const char *key, unsigned v)
{
	if (v)
		json_object_set_new(j, key, json_integer(v));
}

static json_t *speed_json(const struct course *c, unsigned work, unsigned count)
{
	const struct work *w = &c->works->list[work];
	const struct course_series *s = &c->series[work][count];
	struct figure rate = figure_of(s->per_second, c->plan->rounds);
	struct figure cpu = figure_of(s->cpu_us, c->plan->rounds);
	json_t *j = json_pack("{s:s, s:s, s:i, s:o, s:o}", "kind", "speed", "name", w->name,
			      "processes", (int)c->plan->counts[count], "per_second",
			      figure_json(&rate), "cpu_us", figure_json(&cpu));

	add_number(j, "bytes", w->bytes);
	add_number(j, "batch", w->batch);
	add_number(j, "context", w->context);
	return j;
}

static json_t *ratio_json(const struct course *c, const struct course_ratio *r, unsigned count,
			  const struct figure *f)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:o}", "kind", "ratio", "name", r->name, "of",
			 r->of, "to", r->to, "processes", (int)c->plan->counts[count], "ratio",
			 figure_json(f));
}

json_t *course_entries(const struct course *c, const struct course_ratio *r, unsigned n)
{
	json_t *all = json_array();
	struct figure f;

	for (unsigned k = 0; k < c->plan->n_counts; k++) {
		for (unsigned i = 0; i < c->works->n; i++) {
			const struct work *w = &c->works->list[i];

			json_array_append_new(all, speed_json(c, i, k));
			if (w->memory)
				json_array_append_new(
					all, json_pack("{s:s, s:s, s:i, s:o}", "kind", "memory",
						       "name", w->name, "processes",
						       (int)c->plan->counts[k], "kib_per_million",
						       real(kib_per_million(&c->series[i][k]))));
		}
		for (unsigned i = 0; i < n; i++)
			if (ratio_of(c, &r[i], k, &f))
				json_array_append_new(all, ratio_json(c, &r[i], k, &f));
	}
	return all;
}
