// SPDX-License-Identifier: MIT
#include "bench/flood/price.h"

#include <string.h>
#include <unistd.h>

#include "userspace/base/log.h"

#define SETTLE_S 0.3
#define US_PER_S 1e6

/* CPU time of a connect, in us. */
struct cost {
	double server, core, machine;
};

static struct cost cost_of(const struct trial_bench *b, const struct server *v)
{
	struct meter_reading before, after, d;
	struct trial_good g;
	struct meter m;
	double n;

	server_meter(v, &m);
	meter_read(&m, &before);
	g = trial_load(b, v, 0, b->options->seconds);
	trial_pause(SETTLE_S);
	meter_read(&m, &after);
	d = meter_between(&before, &after);
	n = g.done ? (double)g.done : 1;
	return (struct cost){ d.server_s * US_PER_S / n, d.core_s * US_PER_S / n,
			      d.machine_s * US_PER_S / n };
}

static void pairs_measure(const struct trial_bench *b, const struct server *with,
			  const struct server *without, unsigned pairs, struct price *p)
{
	for (unsigned i = 0; i < pairs; i++) {
		struct cost x, y;

		log_info("price of the filter, pair %u of %u", i + 1, pairs);
		/* A B, then B A: what drifts does not always hit the same one. */
		if (i % 2) {
			y = cost_of(b, without);
			x = cost_of(b, with);
		} else {
			x = cost_of(b, with);
			y = cost_of(b, without);
		}
		p->server_us[i] = x.server - y.server;
		p->core_us[i] = x.core - y.core;
		p->machine_us[i] = x.machine - y.machine;
		p->with_us[i] = x.core;
		p->without_us[i] = y.core;
	}
	p->n = pairs;
}

/* The kernel's account of a window. */
static int runs_read(const struct trial_bench *b, const struct server *with,
		     struct meter_bpf *ret_runs, uint64_t *ret_connects)
{
	char pinned[SITE_PATH_BYTES];
	struct meter_bpf before = { 0 }, after = { 0 };
	int fd, ret = meter_bpf_start(&fd);

	if (ret)
		return ret;
	server_pinned(b->site, "filter", pinned);
	ret = meter_bpf_read(pinned, &before);
	if (!ret) {
		*ret_connects = trial_load(b, with, 0, b->options->seconds).done;
		trial_pause(SETTLE_S);
		ret = meter_bpf_read(pinned, &after);
	}
	(void)close(fd);
	if (!ret)
		*ret_runs = (struct meter_bpf){ after.runs - before.runs, after.ns - before.ns };
	return ret;
}

static void runs_count(const struct trial_bench *b, const struct server *with, struct price *p)
{
	struct meter_bpf runs = { 0 };
	uint64_t connects = 0;
	int ret = runs_read(b, with, &runs, &connects);

	if (ret)
		log_warn("the kernel keeps no account of the filter: %s", strerror(-ret));
	if (ret || !connects)
		return;
	p->counted = true;
	p->runs = (double)runs.runs / (double)connects;
	p->run_us = (double)runs.ns / 1000 / (double)connects;
}

void price_measure(const struct trial_bench *b, unsigned pairs, struct price *ret_p)
{
	struct server with, without;
	struct price p = { .measured = true };

	server_start(&with, b->site, SERVER_FILTER, SERVER_PORT, NULL);
	server_start(&without, b->site, SERVER_CHECKS, SERVER_OTHER_PORT, NULL);
	trial_warm_up(b, &with);
	trial_warm_up(b, &without);
	pairs_measure(b, &with, &without, pairs, &p);
	runs_count(b, &with, &p);
	server_stop(&without);
	server_stop(&with);
	*ret_p = p;
}
