// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "bench/lab/results.h"
#include "bench/reach/reach_impl.h"
#include "userspace/base/compiler.h"

#define NAME_COLUMNS 40
#define CELL_BYTES   48
#define FULL	     0.95 /* of a CPU */
#define PER_CENT     100
#define OTHERS	     0.2 /* of a CPU, had by what is not ours */

void reach_values_add(struct reach_values *to, double v)
{
	BUG_ON(to->n >= REACH_ROUNDS_MAX);
	to->v[to->n++] = v;
}

struct figure reach_figure(const struct reach_values *v)
{
	return figure_of(v->v, v->n);
}

bool reach_met(const struct reach_entry *e)
{
	struct figure f = reach_figure(&e->value);

	if (!f.n || e->wanted == REACH_ANY)
		return true;
	return e->wanted == REACH_AT_LEAST ? f.median >= e->wanted_value
					   : f.median <= e->wanted_value;
}

/* --- the table -------------------------------------------------------------------------------- */

static void rate(const struct reach_values *v, FILE *to)
{
	fprintf(to, " %10.0f", reach_figure(v).median);
}

static void busy(const struct reach_values *v, FILE *to)
{
	fprintf(to, " %5.0f", reach_figure(v).median * PER_CENT);
}

static void value(const struct reach_entry *e, FILE *to)
{
	struct figure f = reach_figure(&e->value);
	char text[CELL_BYTES];

	if (!f.n)
		snprintf(text, sizeof(text), "-");
	else if (f.n == 1)
		snprintf(text, sizeof(text), "%.3g %s", f.median, e->unit);
	else
		snprintf(text, sizeof(text), "%.3g (%.3g-%.3g) %s", f.median, f.min, f.max,
			 e->unit);
	fprintf(to, "  %-30s", text);
}

static void verdict(const struct reach_entry *e, FILE *to)
{
	if (e->wanted == REACH_ANY)
		return;
	fprintf(to, " %s %g: %s", e->wanted == REACH_AT_LEAST ? ">=" : "<=", e->wanted_value,
		reach_met(e) ? "met" : "NOT MET");
}

/* Who else could have been the limit than what is measured. */
static void doubts(const struct reach_entry *e, FILE *to)
{
	struct figure given = reach_figure(&e->given), loop = reach_figure(&e->loop);
	struct figure clients = reach_figure(&e->clients), own = reach_figure(&e->own);

	if (e->bad)
		fprintf(to, "  %" PRIu64 " lost or wrong", e->bad);
	if (!given.n)
		return;
	if (clients.median > FULL)
		fputs("  THE CLIENTS HAD NO MORE", to);
	else if (given.median < FULL && own.median > FULL)
		fputs("  the loop's CPU was full", to);
	else if (given.median < FULL && loop.median > own.median + OTHERS)
		fputs("  other work on the machine", to);
}

/* Those with a ratio, or those without. */
static void print_part(const struct reach *r, bool ratios, FILE *to)
{
	for (unsigned i = 0; i < r->n; i++) {
		const struct reach_entry *e = &r->entries[i];

		if (ratios != !!e->reached.n)
			continue;
		fprintf(to, "%-*s", NAME_COLUMNS, e->name);
		if (ratios) {
			fprintf(to, " %4u", e->cpus);
			rate(&e->reached, to);
			rate(&e->alone, to);
			busy(&e->given, to);
			busy(&e->loop, to);
			busy(&e->clients, to);
			fprintf(to, " %6.3g", reach_figure(&e->cpu).median);
		}
		value(e, to);
		verdict(e, to);
		doubts(e, to);
		fputc('\n', to);
	}
}

/* What a name stands for, once for those that differ in CPUs. */
static void print_names(const struct reach *r, FILE *to)
{
	fputs("\nalone, or what it is:\n", to);
	for (unsigned i = 0; i < r->n; i++) {
		const struct reach_entry *e = &r->entries[i];

		if (!i || strcmp(e->name, e[-1].name))
			fprintf(to, "  %-*s %s\n", NAME_COLUMNS - 2, e->name, e->of);
	}
}

void reach_print(const struct reach *r, const json_t *head, FILE *to)
{
	const struct reach_options *o = r->options;

	results_print_head(head, to);
	fprintf(to,
		"%u round%s of the broker and, in turn, what limits it alone; windows of %g s; "
		"median (min-max)\n"
		"busy, per cent: of the CPUs that both had; of the loop's CPU, whatever ran there; "
		"of a CPU, the clients\n"
		"of CPU: the ratio by CPU time, as it would be on a machine with no other work\n\n",
		o->rounds, o->rounds == 1 ? "" : "s", o->seconds);
	fprintf(to, "%-*s %4s %10s %10s %17s %6s  %-30s %s\n", NAME_COLUMNS, "a second", "CPUs",
		"reached", "alone", "busy", "of CPU", "ratio", "wanted");
	print_part(r, true, to);
	fprintf(to, "\n%-*s  %-30s %s\n", NAME_COLUMNS, "a delivery", "", "wanted");
	print_part(r, false, to);
	print_names(r, to);
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* JSON has no NAN: null. */
static json_t *real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *values_json(const struct reach_values *v)
{
	struct figure f = reach_figure(v);

	if (!f.n)
		return json_null();
	return json_pack("{s:i, s:o, s:o, s:o}", "n", (int)f.n, "min", real(f.min), "median",
			 real(f.median), "max", real(f.max));
}

static json_t *busy_json(const struct reach_entry *e)
{
	if (!e->given.n)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o}", "given", values_json(&e->given), "loop",
			 values_json(&e->loop), "ours", values_json(&e->own), "clients",
			 values_json(&e->clients));
}

static json_t *wanted_json(const struct reach_entry *e)
{
	if (e->wanted == REACH_ANY)
		return json_null();
	return json_pack("{s:f}", e->wanted == REACH_AT_LEAST ? "at_least" : "at_most",
			 e->wanted_value);
}

static json_t *entry_json(const struct reach_entry *e)
{
	json_t *met = e->wanted == REACH_ANY ? json_null() : json_boolean(reach_met(e));

	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I}",
			 "kind", "reach", "name", e->name, "of", e->of, "unit", e->unit, "words",
			 e->words[0] ? json_string(e->words) : json_null(), "cpus", (int)e->cpus,
			 "value", values_json(&e->value), "reached", values_json(&e->reached),
			 "alone", values_json(&e->alone), "cpu", values_json(&e->cpu), "busy",
			 busy_json(e), "wanted", wanted_json(e), "met", met, "bad",
			 (json_int_t)e->bad);
}

void reach_to_json(const struct reach *r, json_t *root)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < r->n; i++)
		json_array_append_new(all, entry_json(&r->entries[i]));
	json_object_set_new(root, "rounds", json_integer(r->options->rounds));
	json_object_set_new(root, "seconds", json_real(r->options->seconds));
	json_object_set_new(root, "receivers", json_integer(r->options->receivers));
	json_object_set_new(root, "entries", all);
}
