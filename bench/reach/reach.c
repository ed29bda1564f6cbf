// SPDX-License-Identifier: MIT
#include "bench/reach/reach.h"

#include <errno.h>
#include <fnmatch.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/ceiling/throwaway.h"
#include "bench/ceiling/works_crypto.h"
#include "bench/ceiling/works_token.h"
#include "bench/lab/lab.h"
#include "bench/lab/results.h"
#include "bench/reach/reach_impl.h"
#include "userspace/base/log.h"

#define WHY_BYTES 256

/* --- what the files of this command share ------------------------------------------------------
 */

struct reach_entry *reach_add(struct reach *r, const char *name, const char *of, const char *unit)
{
	struct reach_entry *e = &r->entries[r->n];

	if (r->options->only[0] && fnmatch(r->options->only, name, 0))
		return NULL;
	BUG_ON(r->n++ >= REACH_ENTRIES_MAX);
	*e = (struct reach_entry){ .name = name, .of = of, .unit = unit };
	return e;
}

unsigned reach_work(const struct works *w, const char *name, unsigned batch)
{
	unsigned i = 0;

	while (i < w->n && (strcmp(w->list[i].name, name) || (batch && w->list[i].batch != batch)))
		i++;
	BUG_ON(i == w->n);
	return i;
}

void reach_run(struct bench *b, struct reach_entry *e, const struct scenario *sc,
	       struct outcome *ret_o)
{
	char words[REACH_WORDS_BYTES];

	scenario_words(sc, words, sizeof(words));
	log_info("%s", words);
	scenario_run(b->stage, sc, ret_o);
	if (!ret_o->delivered)
		exit_with(EX_UNAVAILABLE, "%s: nothing was delivered", words);
	if (e)
		e->bad += ret_o->lost + ret_o->duplicated + ret_o->disordered + ret_o->wrong;
}

double reach_cpu(const struct outcome *o, const char *name)
{
	double sum = 0;

	for (unsigned i = 0; i < o->n_processes; i++) {
		if (!strncmp(o->processes[i].name, name, strlen(name)))
			sum += o->processes[i].cpu_s;
	}
	return sum;
}

void reach_parties(const struct scenario *sc, struct stage_options *o)
{
	unsigned senders, receivers;

	scenario_parties(sc, &senders, &receivers);
	if (o->senders < senders)
		o->senders = senders;
	if (o->receivers < receivers)
		o->receivers = receivers;
}

/* --- measuring -------------------------------------------------------------------------------- */

struct command {
	int argc;
	char **argv;
	struct reach_options options;
	struct stage_options stage;
	struct bench bench;
	unsigned spare_cpus;
	json_t *root;
};

static void ready(void *ctx, unsigned which)
{
	token_bed_ready(ctx);
}

/* Those who work alone, one on each CPU that is not the broker's: where stage_open() has put us. */
static struct token_bed *crew_make(struct command *c, const struct lab *lab)
{
	static struct throwaway throwaway;
	struct bench *b = &c->bench;
	char dir[LAB_PATH_BYTES + 8];
	struct token_bed *token;

	snprintf(dir, sizeof(dir), "%s/alone", lab->dir);
	if (mkdir(dir, 0700))
		exit_with(EX_CANTCREAT, "%s: %s", dir, strerror(errno));
	throwaway_make(&throwaway, dir);
	token = token_bed_new(&throwaway.config);
	works_token(&b->works, token);
	works_curve(&b->works);
	works_egress(&b->works, token);
	b->crew = crew_start(&b->works, c->spare_cpus, ready, token);
	return token;
}

static int body(struct lab *lab, void *ctx)
{
	struct command *c = ctx;
	struct bench *b = &c->bench;
	struct token_bed *token;
	char why[WHY_BYTES];

	if (stage_open(lab, &c->stage, &b->stage, why, sizeof(why)))
		exit_with(EX_UNAVAILABLE, "%s", why);
	token = crew_make(c, lab);
	for (unsigned round = 0; round < c->options.rounds; round++) {
		log_info("round %u of %u", round + 1, c->options.rounds);
		reach_ratios_round(b);
		reach_egress_round(b);
	}
	crew_stop(b->crew);
	free(token);
	stage_close(b->stage);
	reach_print(&b->reach, c->root, stdout);
	(void)fflush(stdout);
	reach_to_json(&b->reach, c->root);
	return c->options.json ? results_write(c->root, c->options.json) : 0;
}

int reach_main(int argc, char **argv)
{
	static struct command c;
	unsigned cpus = crew_cpus();

	c.argc = argc;
	c.argv = argv;
	reach_parse(argc, argv, &c.options);
	c.bench.reach.options = &c.options;
	c.spare_cpus = cpus > 1 ? cpus - 1 : 1;
	c.stage = (struct stage_options){ .programs = c.options.programs };
	reach_ratios_plan(&c.bench.reach, c.spare_cpus, &c.stage);
	reach_egress_plan(&c.bench.reach, &c.stage);
	if (!c.bench.reach.n)
		exit_with(EX_USAGE, "--only leaves nothing to be measured");
	if (geteuid())
		exit_with(EX_NOPERM, "it makes network namespaces, which takes root: sudo");
	if (c.options.json)
		results_check_path(c.options.json);
	if (cpus < 2)
		log_warn("there is one CPU: broker, clients and what limits them share it, and "
			 "the ratios are too low");
	c.root = results_head(argc, argv, NULL);
	if (!c.root)
		exit_with(EX_OSERR, "out of memory");
	return lab_run(0, body, &c);
}
