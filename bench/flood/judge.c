// SPDX-License-Identifier: MIT
#include "bench/flood/judge.h"

#include <math.h>
#include <stdio.h>

/* Issue targets, for a gateway with the filter. */
#define CPU_RATIO_MIN  20.0
#define RATE_RATIO_MIN 0.8
#define PRICE_US_MAX   10.0

/* A server that needed no measurable time needed less than this, so that a ratio stays a number. */
#define US_MIN 0.001

/* --- figures of a trial ----------------------------------------------------------------------- */

static double of_reached(const struct trial *t)
{
	return t->reached;
}

static double of_connected(const struct trial *t)
{
	return t->connected;
}

static double of_sent(const struct trial *t)
{
	return t->sent;
}

static double of_server(const struct trial *t)
{
	return t->server_us;
}

static double of_core(const struct trial *t)
{
	return t->core_us;
}

static double of_machine(const struct trial *t)
{
	return t->machine_us;
}

static double of_stolen(const struct trial *t)
{
	return t->stolen_us;
}

static double of_base(const struct trial *t)
{
	return t->base;
}

static double of_told(const struct trial *t)
{
	return t->told;
}

static double of_full(const struct trial *t)
{
	return t->full;
}

static double of_syn_recv(const struct trial *t)
{
	return t->syn_recv;
}

static double of_overflows(const struct trial *t)
{
	return (double)t->overflows;
}

static double of_cookies(const struct trial *t)
{
	return (double)t->cookies;
}

static double of_idle_rate(const struct trial *t)
{
	return t->idle_closed.per_second;
}

static double of_flood_rate(const struct trial *t)
{
	return t->flood_closed.per_second;
}

static double of_rate_ratio(const struct trial *t)
{
	return t->idle_closed.per_second > 0
		       ? t->flood_closed.per_second / t->idle_closed.per_second
		       : NAN;
}

static double of_idle_server_busy(const struct trial *t)
{
	return t->idle_closed.server_busy;
}

static double of_flood_server_busy(const struct trial *t)
{
	return t->flood_closed.server_busy;
}

static double of_idle_client_busy(const struct trial *t)
{
	return t->idle_closed.client_busy;
}

static double of_flood_client_busy(const struct trial *t)
{
	return t->flood_closed.client_busy;
}

static double of_beside_closed(const struct trial *t)
{
	return t->reached_closed;
}

static double of_beside_open(const struct trial *t)
{
	return t->reached_open;
}

static double lost(const struct trial_good *g)
{
	uint64_t all = g->done + g->failed;

	return all ? (double)g->failed / (double)all : NAN;
}

static double of_idle_lost(const struct trial *t)
{
	return lost(&t->idle_open);
}

static double of_flood_lost(const struct trial *t)
{
	return lost(&t->flood_open);
}

static const struct judge_metric metrics[] = {
	[JUDGE_REACHED] = { "reached_per_second", "flood reached, /s", "%.0f", of_reached },
	[JUDGE_CONNECTED] = { "handshakes", "handshakes completed, each", "%.3f", of_connected },
	[JUDGE_SENT] = { "sent", "first bytes sent, each", "%.3f", of_sent },
	[JUDGE_SERVER] = { "server_us", "CPU of server, us each", "%.2f", of_server },
	[JUDGE_CORE] = { "core_us", "CPU of its core, us each", "%.2f", of_core },
	[JUDGE_MACHINE] = { "machine_us", "CPU of machine, us each", "%.2f", of_machine },
	[JUDGE_STOLEN] = { "stolen_us", "stolen by the host, us each", "%.2f", of_stolen },
	[JUDGE_BASE] = { "busy_before", "CPUs busy anyway", "%.2f", of_base },
	[JUDGE_TOLD] = { "told", "  of them told why (CONNACK 5)", "%.4f", of_told },
	[JUDGE_FULL] = { "full_sockets", "full sockets, each", "%.4f", of_full },
	[JUDGE_SYN_RECV] = { "syn_recv", "SYN-RECV at the end", "%.0f", of_syn_recv },
	[JUDGE_OVERFLOWS] = { "accept_overflows", "accept queue overflows", "%.0f", of_overflows },
	[JUDGE_COOKIES] = { "syn_cookies", "SYN cookies sent", "%.0f", of_cookies },
	[JUDGE_IDLE_RATE] = { "idle_connects_per_second", "good connects/s, idle", "%.0f",
			      of_idle_rate },
	[JUDGE_FLOOD_RATE] = { "flood_connects_per_second", "good connects/s, flood", "%.0f",
			       of_flood_rate },
	[JUDGE_RATE_RATIO] = { "connects_ratio", "  flood / idle", "%.2f", of_rate_ratio },
	[JUDGE_IDLE_SERVER_BUSY] = { "idle_server_busy", "  server's core busy, idle", "%.2f",
				     of_idle_server_busy },
	[JUDGE_FLOOD_SERVER_BUSY] = { "flood_server_busy", "  server's core busy, flood", "%.2f",
				      of_flood_server_busy },
	[JUDGE_IDLE_CLIENT_BUSY] = { "idle_client_busy", "  clients' core busy, idle", "%.2f",
				     of_idle_client_busy },
	[JUDGE_FLOOD_CLIENT_BUSY] = { "flood_client_busy", "  clients' core busy, flood", "%.2f",
				      of_flood_client_busy },
	[JUDGE_BESIDE_CLOSED] = { "reached_beside_closed", "  flood reached beside, /s", "%.0f",
				  of_beside_closed },
	[JUDGE_BESIDE_OPEN] = { "reached_beside_open", "  flood reached beside, /s", "%.0f",
				of_beside_open },
	[JUDGE_IDLE_LOST] = { "idle_lost", "  lost, idle", "%.3f", of_idle_lost },
	[JUDGE_FLOOD_LOST] = { "flood_lost", "  lost, flood", "%.3f", of_flood_lost },
};

const struct judge_metric *judge_metric(enum judge_metric_id id)
{
	return &metrics[id];
}

/* The values of one kind and server, by round. */
static unsigned values(const struct flood *f, enum bogus_kind kind, enum server_kind server,
		       enum judge_metric_id id, double v[FLOOD_ROUNDS_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n; i++) {
		const struct trial *t = &f->trials[i];

		if (t->kind == kind && t->server == server)
			v[n++] = metrics[id].of(t);
	}
	return n;
}

struct figure judge_figure(const struct flood *f, enum bogus_kind kind, enum server_kind server,
			   enum judge_metric_id id)
{
	double v[FLOOD_ROUNDS_MAX];

	return figure_of(v, values(f, kind, server, id, v));
}

/* --- targets ---------------------------------------------------------------------------------- */

static void judge(struct judge_target *t, struct figure figure, double wanted, bool at_least)
{
	t->figure = figure;
	t->wanted = wanted;
	t->at_least = at_least;
	t->met = at_least ? figure.median >= wanted : figure.median <= wanted;
}

static bool ratio(const struct flood *f, enum bogus_kind kind, enum server_kind other,
		  struct judge_target *t)
{
	double with[FLOOD_ROUNDS_MAX], without[FLOOD_ROUNDS_MAX];
	unsigned n = values(f, kind, SERVER_FILTER, JUDGE_SERVER, with);

	if (values(f, kind, other, JUDGE_SERVER, without) != n || !n)
		return false;
	for (unsigned i = 0; i < n; i++)
		with[i] = without[i] / fmax(with[i], US_MIN);
	snprintf(t->what, sizeof(t->what), "%s: server CPU each, %s / filter", bogus_name(kind),
		 server_name(other));
	judge(t, figure_of(with, n), CPU_RATIO_MIN, true);
	return true;
}

/* The filter lets a few through on purpose, to be told why: they are counted, and not meant. */
static void sockets(const struct flood *f, enum bogus_kind kind, struct judge_target *t)
{
	double full[FLOOD_ROUNDS_MAX], told[FLOOD_ROUNDS_MAX];
	unsigned n = values(f, kind, SERVER_FILTER, JUDGE_FULL, full);

	(void)values(f, kind, SERVER_FILTER, JUDGE_TOLD, told); /* as many */
	for (unsigned i = 0; i < n; i++)
		full[i] = fmax(full[i] - told[i], 0);
	snprintf(t->what, sizeof(t->what), "%s: full sockets each, but those told why",
		 bogus_name(kind));
	judge(t, figure_of(full, n), 0, false);
}

unsigned judge_targets(const struct flood *f, struct judge_target t[JUDGE_TARGETS_MAX])
{
	unsigned n = 0;

	for (unsigned k = 0; k < BOGUS_KINDS; k++) {
		enum bogus_kind kind = (enum bogus_kind)k;

		if (!f->options->kinds[k] || !f->servers[SERVER_FILTER])
			continue;
		/* SYNs alone never get as far as a server, whatever it is. */
		if (kind != BOGUS_SYN) {
			n += ratio(f, kind, SERVER_CHECKS, &t[n]);
			n += ratio(f, kind, SERVER_OFF, &t[n]);
		}
		sockets(f, kind, &t[n++]);
		snprintf(t[n].what, sizeof(t[n].what), "%s: good connects/s, flood / idle",
			 bogus_name(kind));
		judge(&t[n++], judge_figure(f, kind, SERVER_FILTER, JUDGE_RATE_RATIO),
		      RATE_RATIO_MIN, true);
	}
	if (f->price.measured) {
		snprintf(t[n].what, sizeof(t[n].what), "price of a good connect, us of the core");
		judge(&t[n++], figure_of(f->price.core_us, f->price.n), PRICE_US_MAX, false);
	}
	if (f->price.counted) {
		snprintf(t[n].what, sizeof(t[n].what), "price of a good connect, us in the filter");
		judge(&t[n++], figure_of(&f->price.run_us, 1), PRICE_US_MAX, false);
	}
	return n;
}
