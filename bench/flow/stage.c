// SPDX-License-Identifier: MIT
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "bench/flow/broker.h"
#include "bench/flow/clients.h"
#include "bench/flow/material.h"
#include "bench/flow/spent.h"
#include "bench/flow/stage_impl.h"
#include "userspace/base/log.h"

#define MOSQUITTO "/usr/sbin/mosquitto"

/* --- CPUs ------------------------------------------------------------------------------------- */

/* As it is from the beginning: key processes leave the clients' CPU to the clients where there are
 * others. */
static void give_none(struct stage *s)
{
	s->client_cpu = s->lab->good_cpu;
	s->n_others = s->n_verifiers = 0;
	for (unsigned i = 0; i < s->n_cpus; i++) {
		if (s->cpus[i] != s->lab->server_cpu && s->cpus[i] != s->client_cpu)
			s->others[s->n_others++] = s->cpus[i];
	}
	if (!s->n_others)
		s->others[s->n_others++] = s->client_cpu;
}

unsigned stage_give(struct stage *s, enum stage_part part, unsigned n)
{
	int given[STAGE_CPUS_MAX];
	unsigned have = 0;

	give_none(s);
	if (part == STAGE_NONE)
		return 0;
	s->client_cpu = s->lab->server_cpu;
	for (unsigned i = 0; i < s->n_cpus; i++) {
		if (s->cpus[i] == s->lab->server_cpu)
			continue;
		if (have < n)
			given[have++] = s->cpus[i];
		else
			s->client_cpu = s->cpus[i];
	}
	if (!have)
		given[have++] = s->lab->server_cpu;
	s->n_others = part == STAGE_KEYS ? have : 1;
	s->others[0] = s->client_cpu;
	if (part == STAGE_KEYS) {
		memcpy(s->others, given, have * sizeof(given[0]));
	} else {
		s->n_verifiers = have;
		memcpy(s->verifiers, given, have * sizeof(given[0]));
	}
	return have;
}

/* All but the broker run beside it, this process too. */
static void cpus_share(struct stage *s)
{
	cpu_set_t all, rest;

	if (sched_getaffinity(0, sizeof(all), &all))
		exit_with(EX_OSERR, "the CPUs that may be used: %s", strerror(errno));
	CPU_ZERO(&rest);
	for (int i = 0; i < CPU_SETSIZE && s->n_cpus < STAGE_CPUS_MAX; i++) {
		if (!CPU_ISSET(i, &all))
			continue;
		s->cpus[s->n_cpus++] = i;
		if (i != s->lab->server_cpu)
			CPU_SET(i, &rest);
	}
	give_none(s);
	if (CPU_COUNT(&rest) && sched_setaffinity(0, sizeof(rest), &rest))
		exit_with(EX_OSERR, "the CPUs beside the broker's: %s", strerror(errno));
}

/* --- key processes ---------------------------------------------------------------------------- */

static void spread(struct stage *s)
{
	pid_t pids[OUTCOME_PROCESSES_MAX];
	unsigned n = spent_workers(s->site.hsmd.pid, pids, OUTCOME_PROCESSES_MAX);

	for (unsigned i = 0; i < n; i++) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(s->others[i % s->n_others], &set);
		(void)sched_setaffinity(pids[i], sizeof(set), &set); /* it may have ended */
	}
}

void stage_hsmd(struct stage *s, unsigned workers)
{
	if (s->hsmd != workers) {
		child_stop(&s->site.hsmd);
		site_start_hsmd(&s->site, workers, -1);
		s->hsmd = workers;
	}
	spread(s);
}

void stage_verifiers(const struct stage *s, pid_t broker)
{
	pid_t tids[SPENT_CRYPTO_MAX];
	unsigned n = s->n_verifiers ? spent_crypto(broker, tids, SPENT_CRYPTO_MAX) : 0;
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = 0; i < s->n_verifiers; i++)
		CPU_SET(s->verifiers[i], &set);
	for (unsigned i = 0; i < n; i++)
		if (sched_setaffinity(tids[i], sizeof(set), &set))
			exit_with(EX_OSERR, "a verifying thread's CPUs: %s", strerror(errno));
}

/* --- parties ---------------------------------------------------------------------------------- */

void scenario_parties(const struct scenario *sc, unsigned *senders, unsigned *receivers)
{
	*senders = *receivers = 0;
	if (sc->server != SCENARIO_SEALED)
		return;
	*senders = sc->kind == SCENARIO_CONNECT ? sc->clients : clients_senders(sc);
	*senders += sc->idle;
	*receivers = clients_receivers(sc) + clients_others(sc);
	/* One who has no part in it: without receivers there is no scope to send in. */
	if (sc->kind == SCENARIO_INGRESS && !*receivers)
		*receivers = 1;
}

void stage_sealed(struct stage *s, const struct scenario *sc, struct clients_options *o)
{
	unsigned senders, receivers;

	scenario_parties(sc, &senders, &receivers);
	BUG_ON(senders > s->options.senders || receivers > s->options.receivers);
	/* Their state is what it was when they were loaded: clients run in a process of their own.
	 */
	o->senders = s->senders;
	o->idle = s->senders + senders - sc->idle;
	o->receivers = s->receivers;
	stage_hsmd(s, sc->hsmd);
	if (sc->kind == SCENARIO_CONNECT)
		return;
	if (!s->options.quiet)
		log_info("sealing ahead");
	o->material = material_new(&s->site, sc, sc->seconds + scenario_warm_up_s(sc), s->cpus,
				   s->n_cpus);
}

/* --- the stage -------------------------------------------------------------------------------- */

int stage_open(struct lab *lab, const struct stage_options *o, struct stage **ret_s, char *ret_why,
	       size_t room)
{
	struct stage *s = calloc(1, sizeof(*s));
	char why[256];

	if (!s)
		exit_with(EX_OSERR, "no memory");
	s->lab = lab;
	s->options = *o;
	s->mosquitto = o->mosquitto ? o->mosquitto : MOSQUITTO;
	if (site_find(&s->site, o->programs, ret_why, room)) {
		free(s);
		return -ENOTSUP;
	}
	s->has[SCENARIO_PLAIN] = true;
	s->has[SCENARIO_SEALED] = o->senders || o->receivers;
	s->has[SCENARIO_MOSQUITTO] =
		!broker_try(&s->site, SCENARIO_MOSQUITTO, s->mosquitto, why, sizeof(why));
	if (s->has[SCENARIO_SEALED]) {
		site_make(&s->site, lab, o->senders, o->receivers);
		s->senders = devices_load(&s->site, 0, o->senders);
		s->receivers = receivers_load(&s->site, 0, o->receivers, o->senders);
	} else {
		site_make_plain(&s->site, lab);
	}
	cpus_share(s);
	*ret_s = s;
	return 0;
}

void stage_close(struct stage *s)
{
	child_stop(&s->site.hsmd);
	if (s->senders)
		devices_free(s->senders, s->options.senders);
	if (s->receivers)
		devices_free(s->receivers, s->options.receivers);
	free(s);
}

bool stage_has(const struct stage *s, enum scenario_server server)
{
	return s->has[server];
}
