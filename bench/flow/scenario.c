// SPDX-License-Identifier: MIT
#include "bench/flow/scenario.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "userspace/base/compiler.h"

#define US_PER_S 1e6
#define MILLION	 1e6

const char *scenario_kind_name(enum scenario_kind k)
{
	static const char *const names[] = {
		[SCENARIO_CONNECT] = "connect",	  [SCENARIO_PAIRS] = "pairs",
		[SCENARIO_FAN_IN] = "fan-in",	  [SCENARIO_FAN_OUT] = "fan-out",
		[SCENARIO_RETAINED] = "retained", [SCENARIO_INGRESS] = "ingress",
	};

	return names[k];
}

const char *scenario_server_name(enum scenario_server s)
{
	static const char *const names[] = {
		[SCENARIO_PLAIN] = "plain",
		[SCENARIO_SEALED] = "sealed",
		[SCENARIO_MOSQUITTO] = "mosquitto",
	};

	return names[s];
}

void scenario_default(struct scenario *s)
{
	*s = (struct scenario){ .kind = SCENARIO_PAIRS,
				.server = SCENARIO_PLAIN,
				.clients = 10,
				.topics = 1000,
				.payload = 64,
				.window = 100,
				.seconds = 3,
				.context = 1000,
				.batch = 1,
				.hsmd = 1 };
}

/* --- words ------------------------------------------------------------------------------------ */

struct words {
	char *text;
	size_t room;
};

static void add(struct words *w, const char *fmt, ...) format_printf(2, 3);
static void add(struct words *w, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(w->text, w->room, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n >= w->room)
		n = w->room ? (int)w->room - 1 : 0;
	w->text += n;
	w->room -= (size_t)n;
}

static void add_kind(struct words *w, const struct scenario *s)
{
	switch (s->kind) {
	case SCENARIO_CONNECT:
		add(w, "connect, %u at a time", s->clients);
		return;
	case SCENARIO_PAIRS:
		add(w, "%u pair%s", s->clients, s->clients == 1 ? "" : "s");
		return;
	case SCENARIO_FAN_IN:
		add(w, "fan-in %u->1", s->clients);
		return;
	case SCENARIO_FAN_OUT:
		add(w, "fan-out 1->%u", s->clients);
		return;
	case SCENARIO_RETAINED:
		add(w, "%u retained->%u", s->topics, s->clients);
		return;
	case SCENARIO_INGRESS:
		add(w, "ingress from %u", s->clients);
		return;
	case SCENARIO_KINDS:
		return;
	}
}

void scenario_words(const struct scenario *s, char *text, size_t room)
{
	struct words w = { text, room };

	if (room)
		text[0] = '\0';
	add_kind(&w, s);
	add(&w, ", %s", scenario_server_name(s->server));
	if (s->kind != SCENARIO_CONNECT)
		add(&w, ", QoS %u, %u B", s->qos, s->payload);
	if (s->kind != SCENARIO_RETAINED) {
		if (!s->window)
			add(&w, ", %.0f a second", s->rate);
		else if (s->kind != SCENARIO_CONNECT)
			add(&w, ", %u in flight", s->window);
	}
	if (s->server == SCENARIO_SEALED) {
		if (s->kind != SCENARIO_CONNECT) {
			add(&w, ", context %u", s->context);
			if (s->batch > 1)
				add(&w, ", batch %u", s->batch);
		}
		add(&w, ", hsmd %u", s->hsmd);
		if (s->workers)
			add(&w, ", workers %u", s->workers);
	}
	if (s->idle)
		add(&w, ", %u idle", s->idle);
	if (s->others)
		add(&w, ", %u other subscriptions", s->others);
}

/* --- figures ---------------------------------------------------------------------------------- */

/* Of processes whose name begins so. */
static double seconds_of(const struct outcome *o, const char *name)
{
	double sum = 0;

	for (unsigned i = 0; i < o->n_processes; i++) {
		if (!strncmp(o->processes[i].name, name, strlen(name)))
			sum += o->processes[i].cpu_s;
	}
	return sum;
}

double outcome_value(const struct scenario *s, const struct outcome *o, enum outcome_metric m)
{
	double n = (double)o->delivered;

	if (!o->delivered)
		return NAN;
	switch (m) {
	case OUTCOME_PER_SECOND:
		return n / o->seconds;
	case OUTCOME_SERVER_US:
		return o->server_s * US_PER_S / n;
	case OUTCOME_BROKER_US:
		return (seconds_of(o, "broker") + seconds_of(o, "mosquitto")) * US_PER_S / n;
	case OUTCOME_CORE_US:
		return o->core_s * US_PER_S / n;
	case OUTCOME_TOKEN_OPS:
		return s->server == SCENARIO_SEALED ? (double)(o->conversions + o->signatures) / n
						    : NAN;
	case OUTCOME_P50_US:
		return o->latency.n ? (double)o->latency.p50 : NAN;
	case OUTCOME_P99_US:
		return o->latency.n ? (double)o->latency.p99 : NAN;
	case OUTCOME_MALLOCS:
		return o->mallocs_known ? (double)o->mallocs * MILLION / n : NAN;
	case OUTCOME_METRICS:
		break;
	}
	return NAN;
}
