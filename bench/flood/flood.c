// SPDX-License-Identifier: MIT
#include "bench/flood/flood.h"

#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/flood/report.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

/* Of a trial, besides its windows: start, warm-up, settling. */
#define TRIAL_OTHER_S 4
#define WINDOWS	      6
#define MISSING_BYTES 256

struct run {
	struct flood_options options;
	struct site site;
	struct flood flood;
	struct trial_bench bench;
};

static unsigned count(const bool *set, unsigned n)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++)
		found += set[i];
	return found;
}

/* What cannot be started is left out, and that is said. */
static void servers_choose(struct run *r)
{
	const struct flood_options *o = &r->options;
	struct flood *f = &r->flood;

	for (unsigned k = 0; k < SERVER_KINDS; k++) {
		if (!o->servers[k])
			continue;
		f->servers[k] = !server_try(&r->site, (enum server_kind)k, o->trial.mosquitto,
					    f->absent[k], sizeof(f->absent[k]));
		if (!f->servers[k])
			log_warn("%s is left out: %s", server_name((enum server_kind)k),
				 f->absent[k]);
	}
	if (!count(f->servers, SERVER_KINDS))
		exit_with(EX_UNAVAILABLE, "no server is left to be measured");
}

static void trials_run(struct run *r)
{
	const struct flood_options *o = &r->options;
	struct flood *f = &r->flood;
	unsigned all = o->rounds * count(o->kinds, BOGUS_KINDS) * count(f->servers, SERVER_KINDS);

	log_info("%u trials of %.0f seconds", all, o->trial.seconds * WINDOWS + TRIAL_OTHER_S);
	for (unsigned k = 0; k < BOGUS_KINDS; k++) {
		for (unsigned i = 0; o->kinds[k] && i < o->rounds; i++) {
			for (unsigned s = 0; s < SERVER_KINDS; s++) {
				if (!f->servers[s])
					continue;
				log_info("%u of %u: %s, round %u, %s", f->n + 1, all,
					 bogus_name((enum bogus_kind)k), i + 1,
					 server_name((enum server_kind)s));
				trial_run(&r->bench, (enum server_kind)s, (enum bogus_kind)k,
					  &f->trials[f->n++]);
			}
		}
	}
}

static int body(struct lab *lab, void *ctx)
{
	struct run *r = ctx;
	const struct flood_options *o = &r->options;

	r->flood.options = o;
	r->flood.lab = lab;
	log_info("making a gateway and %u devices", o->devices);
	site_make(&r->site, lab, o->devices, 0);
	servers_choose(r);
	/* One worker: it has one CPU, which it shares with the broker. */
	site_start_hsmd(&r->site, 1, lab->server_cpu);
	r->bench = (struct trial_bench){ .lab = lab,
					 .site = &r->site,
					 .options = &o->trial,
					 .devices = devices_load(&r->site, 0, o->devices),
					 .n_devices = o->devices,
					 .shared = trial_shared_new() };
	trials_run(r);
	if (o->pairs && r->flood.servers[SERVER_FILTER] && r->flood.servers[SERVER_CHECKS])
		price_measure(&r->bench, o->pairs, &r->flood.price);
	report_print(&r->flood, stdout);
	devices_free(r->bench.devices, r->bench.n_devices);
	return o->json ? report_write(&r->flood, o->json) : 0;
}

int flood_main(int argc, char **argv)
{
	static struct run r;
	char missing[MISSING_BYTES];

	flood_parse(argc, argv, &r.options);
	if (geteuid())
		exit_with(EX_NOPERM, "it makes network namespaces, which takes root: sudo");
	if (r.options.json)
		results_check_path(r.options.json);
	if (site_find(&r.site, r.options.programs, missing, sizeof(missing)))
		exit_with(EX_UNAVAILABLE, "%s", missing);
	return lab_run(r.options.server_percent, body, &r);
}
