// SPDX-License-Identifier: MIT
#include "bench/flow/ratio.h"

#include <math.h>
#include <string.h>

#define CPU_MANY     8.0
#define CPU_ONE	     2.0
#define CONNECT_RATE 1.5
#define IDLE_KIB     1.0

void ratio_words(const struct scenario *s, char words[RATIO_WORDS_BYTES])
{
	char shape[32];

	if (s->kind == SCENARIO_CONNECT) {
		snprintf(words, RATIO_WORDS_BYTES, "connect, %u at a time", s->clients);
		return;
	}
	if (s->idle) {
		snprintf(words, RATIO_WORDS_BYTES, "%u idle connections", s->idle);
		return;
	}
	snprintf(shape, sizeof(shape),
		 s->kind == SCENARIO_FAN_IN    ? "fan-in %u->1"
		 : s->kind == SCENARIO_FAN_OUT ? "fan-out 1->%u"
					       : "%u pairs",
		 s->clients);
	snprintf(words, RATIO_WORDS_BYTES, "%s, QoS %u, %u B, %u in flight", shape, s->qos,
		 s->payload, s->window);
}

/* --- one scenario ----------------------------------------------------------------------------- */

static bool same_but_server(const struct scenario *a, const struct scenario *b)
{
	return a->kind == b->kind && a->clients == b->clients && a->topics == b->topics &&
	       a->qos == b->qos && a->payload == b->payload && a->window == b->window &&
	       a->idle == b->idle && a->others == b->others;
}

struct figure ratio_figure(const struct json_entry *e, enum outcome_metric m)
{
	double v[FIGURE_VALUES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; e && i < e->n_rounds; i++) {
		v[n] = outcome_value(&e->scenario, &e->rounds[i], m);
		n += isfinite(v[n]);
	}
	return figure_of(v, n);
}

/* The entries' ratio, a / b, round by round. */
static struct figure divided(const struct json_entry *a, const struct json_entry *b,
			     enum outcome_metric m)
{
	unsigned rounds = a && b ? (a->n_rounds < b->n_rounds ? a->n_rounds : b->n_rounds) : 0;
	double v[FIGURE_VALUES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < rounds; i++) {
		v[n] = outcome_value(&a->scenario, &a->rounds[i], m) /
		       outcome_value(&b->scenario, &b->rounds[i], m);
		n += isfinite(v[n]);
	}
	return figure_of(v, n);
}

struct figure ratio_idle_kib(const struct json_entry *e)
{
	double v[FIGURE_VALUES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; e && i < e->n_rounds; i++) {
		const struct outcome *o = &e->rounds[i];

		if (o->rss_idle_kib && e->scenario.idle)
			v[n++] = ((double)o->rss_idle_kib - (double)o->rss_before_kib) /
				 e->scenario.idle;
	}
	return figure_of(v, n);
}

static const struct json_entry *find_theirs(const struct json_entry *entries, unsigned n,
					    const struct json_entry *ours)
{
	for (unsigned i = 0; i < n; i++) {
		const struct json_entry *e = &entries[i];

		if (e->scenario.server == SCENARIO_MOSQUITTO && e->n_rounds &&
		    !strcmp(e->series, ours->series) &&
		    same_but_server(&e->scenario, &ours->scenario))
			return e;
	}
	return NULL;
}

unsigned ratio_find(const struct json_entry *entries, unsigned n, const char *series,
		    struct ratio ret[RATIO_PAIRS_MAX])
{
	unsigned found = 0;

	for (unsigned i = 0; i < n && found < RATIO_PAIRS_MAX; i++) {
		const struct json_entry *ours = &entries[i];
		const struct json_entry *theirs;

		if (ours->scenario.server != SCENARIO_PLAIN || !ours->n_rounds ||
		    strcmp(ours->series, series))
			continue;
		theirs = find_theirs(entries, n, ours);
		ret[found++] = (struct ratio){
			.ours = ours,
			.theirs = theirs,
			.our_us = ratio_figure(ours, OUTCOME_SERVER_US),
			.their_us = ratio_figure(theirs, OUTCOME_SERVER_US),
			.cpu = divided(theirs, ours, OUTCOME_SERVER_US),
			.per_second = divided(ours, theirs, OUTCOME_PER_SECOND),
		};
	}
	return found;
}

/* --- the targets ------------------------------------------------------------------------------ */

static void judge(struct ratio_target *t, const double *medians, unsigned n)
{
	t->figure = figure_of(medians, n);
	/* False for NAN, which is what nothing measured has. */
	t->met = t->at_least ? t->figure.min >= t->wanted : t->figure.max <= t->wanted;
}

/* Medians of the scenarios with 100 messages of a sender in flight, or with one. */
static unsigned cpu_medians(const struct ratio *r, unsigned n, unsigned window, double *ret)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++) {
		if (r[i].ours->scenario.window == window && r[i].cpu.n)
			ret[found++] = r[i].cpu.median;
	}
	return found;
}

unsigned ratio_targets(const struct json_entry *entries, unsigned n,
		       struct ratio_target ret[RATIO_TARGETS_MAX])
{
	static const struct ratio_target targets[RATIO_TARGETS_MAX] = {
		{ "CPU per delivery, mosquitto / ssdtf-broker, 100 in flight",
		  "x",
		  true,
		  CPU_MANY,
		  { 0 },
		  false },
		{ "CPU per delivery, mosquitto / ssdtf-broker, one in flight",
		  "x",
		  true,
		  CPU_ONE,
		  { 0 },
		  false },
		{ "connects a second, ssdtf-broker / mosquitto",
		  "x",
		  true,
		  CONNECT_RATE,
		  { 0 },
		  false },
		{ "memory of ssdtf-broker for an idle connection",
		  "KiB",
		  false,
		  IDLE_KIB,
		  { 0 },
		  false },
	};
	struct ratio r[RATIO_PAIRS_MAX];
	double v[RATIO_PAIRS_MAX];
	unsigned found, used;

	memcpy(ret, targets, sizeof(targets));
	found = ratio_find(entries, n, RATIO_MESSAGES, r);
	judge(&ret[0], v, cpu_medians(r, found, RATIO_MANY, v));
	judge(&ret[1], v, cpu_medians(r, found, 1, v));
	found = ratio_find(entries, n, RATIO_CONNECTS, r);
	used = 0;
	for (unsigned i = 0; i < found; i++) {
		v[used] = r[i].per_second.median;
		used += r[i].per_second.n > 0;
	}
	judge(&ret[2], v, used);
	found = ratio_find(entries, n, RATIO_IDLE, r);
	used = 0;
	for (unsigned i = 0; i < found; i++) {
		struct figure kib = ratio_idle_kib(r[i].ours);

		v[used] = kib.median;
		used += kib.n > 0;
	}
	judge(&ret[3], v, used);
	return RATIO_TARGETS_MAX;
}
