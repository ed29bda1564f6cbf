// SPDX-License-Identifier: MIT
#include "bench/page/growth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/flow/series.h"
#include "bench/page/input.h"
#include "bench/page/plot.h"
#include "userspace/base/compiler.h"

#define LABEL_BYTES 96

/* --- what is drawn ---------------------------------------------------------------------------- */

static double per_second(const struct scenario *s, const struct outcome *o)
{
	return outcome_value(s, o, OUTCOME_PER_SECOND);
}

static double server_us(const struct scenario *s, const struct outcome *o)
{
	return outcome_value(s, o, OUTCOME_SERVER_US);
}

static double p50_ms(const struct scenario *s, const struct outcome *o)
{
	return outcome_value(s, o, OUTCOME_P50_US) / 1000;
}

static double p99_ms(const struct scenario *s, const struct outcome *o)
{
	return outcome_value(s, o, OUTCOME_P99_US) / 1000;
}

static double token_ops(const struct scenario *s, const struct outcome *o)
{
	return outcome_value(s, o, OUTCOME_TOKEN_OPS);
}

static double conversions(const struct scenario *s, const struct outcome *o)
{
	return o->seconds > 0 ? (double)o->conversions / o->seconds : NAN;
}

static struct figure figure_of_rounds(const struct json_entry *e,
				      double (*metric)(const struct scenario *s,
						       const struct outcome *o))
{
	double v[FIGURE_VALUES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < e->n_rounds && n < FIGURE_VALUES_MAX; i++) {
		v[n] = metric(&e->scenario, &e->rounds[i]);
		n += isfinite(v[n]);
	}
	return figure_of(v, n);
}

/* All that a series has of one server, as a curve. */
static struct plot_curve *
add_server(struct plot *p, const struct input *in, enum series_id id, enum scenario_server server,
	   const char *name, double (*metric)(const struct scenario *s, const struct outcome *o))
{
	static const enum svg_colour colours[SCENARIO_SERVERS] = {
		[SCENARIO_PLAIN] = SVG_PLAIN,
		[SCENARIO_SEALED] = SVG_SEALED,
		[SCENARIO_MOSQUITTO] = SVG_MOSQUITTO,
	};
	const struct series *s = series_get(id);
	struct plot_curve *c = plot_curve_add(p, name, colours[server]);

	for (unsigned i = 0; i < in->n_entries; i++) {
		const struct json_entry *e = &in->entries[i];

		if (e->scenario.server == server && !strcmp(e->series, s->name))
			plot_point(c, s->of(&e->scenario), figure_of_rounds(e, metric));
	}
	return c;
}

static void write_plot(FILE *to, struct plot *p, enum series_id id)
{
	char command[LABEL_BYTES];

	snprintf(command, sizeof(command), "ssdtf-bench grow --series %s", series_get(id)->name);
	p->command = command;
	p->note = p->note ? p->note : series_get(id)->same;
	plot_write(to, p);
}

static struct figure speed(const struct input_speed *s)
{
	return s ? s->per_second : (struct figure){ 0, NAN, NAN, NAN };
}

/* median (min, max) times by. */
static struct figure times(struct figure f, double by)
{
	f.min *= by;
	f.median *= by;
	f.max *= by;
	return f;
}

/* A curve of what the machine alone does where a measured point is. */
static struct plot_curve *add_limit(struct plot *p, const char *name, enum svg_colour colour)
{
	struct plot_curve *c = plot_curve_add(p, name, colour);

	c->ceiling = true;
	return c;
}

/* --- load ------------------------------------------------------------------------------------- */

void growth_write_load(FILE *to, const struct input *in)
{
	struct plot rate = { .id = "load-rate",
			     .title = "Throughput against load",
			     .x = "messages offered a second",
			     .y = "delivered a second" };
	struct plot latency = {
		.id = "load-latency",
		.title = "Latency against load",
		.x = "messages offered a second",
		.y = "latency, ms",
		.note = "From when a message was due to when its receiver had all of it, "
			"whatever became of those before"
	};
	struct plot_curve *offered;

	add_server(&rate, in, SERIES_LOAD, SCENARIO_PLAIN, "plain", per_second);
	add_server(&rate, in, SERIES_LOAD, SCENARIO_SEALED, "sealed", per_second);
	add_server(&rate, in, SERIES_LOAD, SCENARIO_MOSQUITTO, "mosquitto", per_second);
	plot_ceiling(&rate, "ceiling: verifications a second, one core", SVG_CEILING,
		     speed(input_speed_find(in, "p256 verify", 1, 0, 0)));
	offered = add_limit(&rate, "all that is offered", SVG_AXIS);
	for (unsigned i = 0; i < rate.n; i++) {
		const struct plot_curve *c = &rate.curves[i];

		for (unsigned k = 0; c != offered && !c->ceiling && k < c->n; k++)
			plot_point(offered, c->x[k],
				   (struct figure){ 1, c->x[k], c->x[k], c->x[k] });
	}
	write_plot(to, &rate, SERIES_LOAD);

	add_server(&latency, in, SERIES_LOAD, SCENARIO_PLAIN, "plain, median", p50_ms);
	add_server(&latency, in, SERIES_LOAD, SCENARIO_PLAIN, "plain, 99th percentile", p99_ms)
		->second = true;
	add_server(&latency, in, SERIES_LOAD, SCENARIO_SEALED, "sealed, median", p50_ms);
	add_server(&latency, in, SERIES_LOAD, SCENARIO_SEALED, "sealed, 99th percentile", p99_ms)
		->second = true;
	add_server(&latency, in, SERIES_LOAD, SCENARIO_MOSQUITTO, "mosquitto, median", p50_ms);
	add_server(&latency, in, SERIES_LOAD, SCENARIO_MOSQUITTO, "mosquitto, 99th percentile",
		   p99_ms)
		->second = true;
	write_plot(to, &latency, SERIES_LOAD);
}

/* --- cost ------------------------------------------------------------------------------------- */

/* What one verification of a signature costs, of which there is one for each message: a floor. */
static void add_floor(struct plot *p, const struct input *in, bool per_receiver)
{
	const struct input_speed *verify = input_speed_find(in, "p256 verify", 1, 0, 0);
	struct plot_curve *floor;

	if (!per_receiver) {
		plot_ceiling(p, "floor of sealed: one verification", SVG_CEILING,
			     verify ? verify->cpu_us : speed(NULL));
		return;
	}
	floor = add_limit(p, "floor of sealed: one verification a message", SVG_CEILING);
	for (unsigned i = 0; verify && i < p->n; i++) {
		const struct plot_curve *c = &p->curves[i];

		for (unsigned k = 0; c->colour == SVG_SEALED && k < c->n; k++)
			plot_point(floor, c->x[k], times(verify->cpu_us, 1 / c->x[k]));
	}
}

/* What finding the receiver costs alone: "trie match, 1000 subscriptions". */
static void add_match(struct plot *p, const struct input *in)
{
	static const char name[] = "trie match, ";
	struct plot_curve *c =
		add_limit(p, "alone: finding one of so many, at random", SVG_CEILING);

	for (unsigned i = 0; i < in->n_speeds; i++) {
		const struct input_speed *s = &in->speeds[i];

		if (s->processes == 1 && !strncmp(s->name, name, strlen(name)))
			plot_point(c, strtod(s->name + strlen(name), NULL), s->cpu_us);
	}
}

void growth_write_cost(FILE *to, const struct input *in)
{
	static const struct {
		enum series_id id;
		const char *plot, *title;
		bool sealed;
	} plots[] = {
		{ SERIES_RECEIVERS, "cost-receivers", "Cost against receivers", true },
		{ SERIES_CONNECTIONS, "cost-connections", "Cost against connections", false },
		{ SERIES_SUBSCRIPTIONS, "cost-subscriptions", "Cost against subscriptions", false },
		{ SERIES_PAYLOAD, "cost-payload", "Cost against payload", true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(plots); i++) {
		enum series_id id = plots[i].id;
		struct plot p = { .id = plots[i].plot,
				  .title = plots[i].title,
				  .x = series_get(id)->x,
				  .y = "CPU for each delivery, µs" };

		add_server(&p, in, id, SCENARIO_PLAIN, "plain", server_us);
		if (plots[i].sealed)
			add_server(&p, in, id, SCENARIO_SEALED, "sealed", server_us);
		add_server(&p, in, id, SCENARIO_MOSQUITTO, "mosquitto", server_us);
		if (plots[i].sealed)
			add_floor(&p, in, id == SERIES_RECEIVERS);
		if (id == SERIES_SUBSCRIPTIONS)
			add_match(&p, in);
		write_plot(to, &p, id);
	}
}

/* --- token and signatures --------------------------------------------------------------------- */

static void write_context(FILE *to, const struct input *in)
{
	const struct series *s = series_get(SERIES_CONTEXT);
	struct plot p = { .id = "context-rate",
			  .title = "Throughput against the length of contexts",
			  .x = s->x,
			  .y = "delivered a second" };
	struct plot ops = { .id = "context-token",
			    .title = "Work of the token against the length of contexts",
			    .x = s->x,
			    .y = "token operations a delivery" };
	struct plot_curve *limit;
	double receivers = 1;

	add_server(&p, in, SERIES_CONTEXT, SCENARIO_SEALED, "sealed", per_second);
	limit = add_limit(&p, "ceiling: the token's conversions", SVG_CEILING2);
	for (unsigned i = 0; i < in->n_entries; i++) {
		const struct json_entry *e = &in->entries[i];
		double context = e->scenario.context;

		if (strcmp(e->series, s->name) || !e->n_rounds)
			continue;
		if (e->scenario.kind == SCENARIO_FAN_OUT)
			receivers = e->scenario.clients;
		plot_point(limit, context,
			   times(speed(input_speed_find(in, "convert", e->scenario.hsmd, 0, 0)),
				 context));
	}
	plot_ceiling(&p, "ceiling: one core’s verifications, one for all receivers", SVG_CEILING,
		     times(speed(input_speed_find(in, "p256 verify", 1, 0, 0)), receivers));
	write_plot(to, &p, SERIES_CONTEXT);

	add_server(&ops, in, SERIES_CONTEXT, SCENARIO_SEALED, "sealed", token_ops);
	write_plot(to, &ops, SERIES_CONTEXT);
}

static void write_hsmd(FILE *to, const struct input *in)
{
	const struct series *s = series_get(SERIES_HSMD);
	struct plot p = { .id = "hsmd-rate",
			  .title = "Conversions against key processes",
			  .x = s->x,
			  .y = "conversions a second",
			  .linear_x = true };
	struct plot_curve *measured, *bare;

	measured = add_server(&p, in, SERIES_HSMD, SCENARIO_SEALED, "in delivered messages",
			      conversions);
	bare = add_limit(&p, "ceiling: bare PKCS#11 loop, as many processes", SVG_CEILING2);
	for (unsigned i = 0; i < measured->n; i++)
		plot_point(bare, measured->x[i],
			   speed(input_speed_find(in, "bare convert", (unsigned)measured->x[i], 0,
						  0)));
	write_plot(to, &p, SERIES_HSMD);
}

static void write_batch(FILE *to, const struct input *in)
{
	const struct series *s = series_get(SERIES_BATCH);
	struct plot p = { .id = "batch-rate",
			  .title = "Throughput against a sender's batches",
			  .x = s->x,
			  .y = "delivered a second" };
	struct plot_curve *measured, *limit;

	measured = add_server(&p, in, SERIES_BATCH, SCENARIO_SEALED, "sealed", per_second);
	limit = add_limit(&p, "ceiling: ingress alone, one core", SVG_CEILING);
	for (unsigned i = 0; i < measured->n; i++) {
		unsigned batch = (unsigned)measured->x[i];

		plot_point(limit, batch,
			   speed(batch == 1
					 ? input_speed_find(in, "ingress trailer 1", 1, 0, 0)
					 : input_speed_find(in, "ingress trailer 2", 1, batch, 0)));
	}
	write_plot(to, &p, SERIES_BATCH);
}

void growth_write_token(FILE *to, const struct input *in)
{
	write_context(to, in);
	write_hsmd(to, in);
	write_batch(to, in);
}
