/* SPDX-License-Identifier: MIT */
/*
 * The stage, for the files that run scenarios on it. Private to them.
 */
#ifndef SSDTF_BENCH_STAGE_IMPL_H
#define SSDTF_BENCH_STAGE_IMPL_H

#include "bench/flow/clients.h"
#include "bench/flow/scenario.h"
#include "bench/lab/device.h"
#include "bench/lab/lab.h"
#include "bench/lab/site.h"

#define STAGE_CPUS_MAX 64

struct stage {
	struct lab *lab;
	struct stage_options options;
	const char *mosquitto;
	struct site site;
	bool has[SCENARIO_SERVERS];
	int client_cpu;
	unsigned n_cpus, n_others;
	int cpus[STAGE_CPUS_MAX];
	int others[STAGE_CPUS_MAX]; /* of key processes */
	unsigned n_verifiers;
	int verifiers[STAGE_CPUS_MAX]; /* of the broker's verifying threads; none: with the rest */
	unsigned hsmd;		       /* workers of the one that runs; 0: none runs */
	struct device *senders, *receivers;
};

/* ssdtf-hsmd with so many workers, spread over the CPUs that are not the server's. */
void stage_hsmd(struct stage *s, unsigned workers);
/* The verifying threads of the broker that runs, put where stage_give() said. */
void stage_verifiers(const struct stage *s, pid_t broker);
/* What a sealed scenario takes: parties that start anew, and what they send. */
/* How long it runs before the window begins. */
double scenario_warm_up_s(const struct scenario *sc);
void stage_sealed(struct stage *s, const struct scenario *sc, struct clients_options *o);

#endif
