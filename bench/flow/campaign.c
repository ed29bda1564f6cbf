// SPDX-License-Identifier: MIT
#include "bench/flow/campaign.h"

#include <argp.h>
#include <fnmatch.h>
#include <jansson.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/lab/lab.h"
#include "bench/lab/number.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

#define SECONDS_MIN 0.2
#define SECONDS_MAX 60
#define WORDS_BYTES 192
#define WHY_BYTES   256

enum option_key {
	OPT_SECONDS = 's',
	OPT_ROUNDS = 'r',
	OPT_JSON = 'j',
	OPT_QUICK = 'q',
	OPT_ONLY = 'o',
	OPT_MOSQUITTO = 'm',
	OPT_PROGRAMS = 512,
};

/* clang-format off */
static const struct argp_option options[] = {
	{ "seconds", OPT_SECONDS, "S", 0,
	  "length of each window, 0.2 to 60 (3; 1 with --quick)", 0 },
	{ "rounds", OPT_ROUNDS, "N", 0,
	  "how often each has its turn, 1 to 16 (3)", 0 },
	{ "quick", OPT_QUICK, NULL, 0, "shorter windows and fewer points", 0 },
	{ "only", OPT_ONLY, "PATTERN", 0,
	  "only the scenarios that have this in their name, such as 'fan-in' or 'QoS 0*64 B'", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 },
	{ "mosquitto", OPT_MOSQUITTO, "PATH", 0,
	  "the other broker (/usr/sbin/mosquitto where it is); none: leave it out", 0 },
	{ "programs", OPT_PROGRAMS, "DIR", 0,
	  "where ssdtf-broker and the others are (beside this program)", 0 },
	{ 0 },
};
/* clang-format on */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct campaign *c = state->input;

	switch (key) {
	case OPT_SECONDS:
		c->seconds = number_real_of("seconds", arg, SECONDS_MIN, SECONDS_MAX);
		return 0;
	case OPT_ROUNDS:
		c->rounds = number_of("rounds", arg, 1, CAMPAIGN_ROUNDS_MAX);
		return 0;
	case OPT_QUICK:
		c->quick = true;
		return 0;
	case OPT_ONLY:
		if (snprintf(c->only, sizeof(c->only), "*%s*", arg) >= (int)sizeof(c->only))
			exit_with(EX_USAGE, "--only: the pattern is too long");
		return 0;
	case OPT_JSON:
		c->json = arg;
		return 0;
	case OPT_MOSQUITTO:
		c->mosquitto = arg;
		return 0;
	case OPT_PROGRAMS:
		c->programs = arg;
		return 0;
	case ARGP_KEY_ARG:
		exit_with(EX_USAGE, "not an option: \"%s\"", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp campaign_argp = { .options = options, .parser = parse };

/* --- what is to be done ----------------------------------------------------------------------- */

bool campaign_wants(const struct campaign *c, const char *words)
{
	return !c->only[0] || !fnmatch(c->only, words, 0);
}

void campaign_group(struct campaign *c)
{
	BUG_ON(c->n >= CAMPAIGN_ENTRIES_MAX);
	c->groups[c->n] = c->n ? c->groups[c->n - 1] + 1 : 0;
}

void campaign_add(struct campaign *c, const char *series, const struct scenario *s)
{
	struct json_entry *e = &c->entries[c->n];

	BUG_ON(c->n >= CAMPAIGN_ENTRIES_MAX);
	snprintf(e->series, sizeof(e->series), "%s", series);
	e->scenario = *s;
	e->scenario.seconds = c->seconds;
	e->rounds = calloc(c->rounds, sizeof(e->rounds[0]));
	if (!e->rounds)
		exit_with(EX_OSERR, "out of memory");
	if (++c->n < CAMPAIGN_ENTRIES_MAX)
		c->groups[c->n] = c->groups[c->n - 1];
}

static bool wanted(const struct campaign *c, const struct scenario *s)
{
	return s->server != SCENARIO_MOSQUITTO || !c->mosquitto || strcmp(c->mosquitto, "none");
}

/* The parties that sealed scenarios need. */
static void count_parties(const struct scenario *s, struct stage_options *o)
{
	unsigned senders, receivers;

	scenario_parties(s, &senders, &receivers);
	if (o->senders < senders)
		o->senders = senders;
	if (o->receivers < receivers)
		o->receivers = receivers;
}

/* --- doing it --------------------------------------------------------------------------------- */

struct run {
	struct campaign *campaign;
	void (*print)(const struct campaign *c, FILE *to);
	struct stage *stage;
	unsigned done, all; /* runs of a scenario */
};

static void save(const struct campaign *c)
{
	if (!c->json)
		return;
	json_entries_set(c->root, c->entries, c->n);
	/* Said by results_write(); the next group tries again, and the last one's counts. */
	if (results_write(c->root, c->json))
		log_warn("what was measured is not in %s yet", c->json);
}

static bool runs_here(const struct run *r, const struct json_entry *e)
{
	return wanted(r->campaign, &e->scenario) && stage_has(r->stage, e->scenario.server);
}

static void group_run(struct run *r, unsigned from, unsigned to)
{
	struct campaign *c = r->campaign;
	char words[WORDS_BYTES];

	for (unsigned round = 0; round < c->rounds; round++) {
		for (unsigned i = from; i < to; i++) {
			struct json_entry *e = &c->entries[i];

			if (!runs_here(r, e))
				continue;
			scenario_words(&e->scenario, words, sizeof(words));
			log_info("%u of %u: %s, round %u", ++r->done, r->all, words, round + 1);
			scenario_run(r->stage, &e->scenario, &e->rounds[e->n_rounds++]);
		}
	}
	save(c);
}

/* What cannot be started is left out, and that is said. */
static void count_runs(struct run *r)
{
	const struct campaign *c = r->campaign;
	bool said[SCENARIO_SERVERS] = { false };

	for (unsigned i = 0; i < c->n; i++) {
		enum scenario_server s = c->entries[i].scenario.server;

		if (runs_here(r, &c->entries[i])) {
			r->all += c->rounds;
		} else if (!said[s]) {
			said[s] = true;
			log_warn("%s is left out%s", scenario_server_name(s),
				 wanted(c, &c->entries[i].scenario) ? ": it cannot be started here"
								    : "");
		}
	}
	if (!r->all)
		exit_with(EX_UNAVAILABLE, "no server is left to be measured");
}

static int body(struct lab *lab, void *ctx)
{
	struct run *r = ctx;
	struct campaign *c = r->campaign;
	struct stage_options o = { .programs = c->programs, .quiet = false };
	char why[WHY_BYTES];

	c->capped_by = lab->capped_by;
	if (c->mosquitto && strcmp(c->mosquitto, "none"))
		o.mosquitto = c->mosquitto;
	for (unsigned i = 0; i < c->n; i++)
		count_parties(&c->entries[i].scenario, &o);
	if (stage_open(lab, &o, &r->stage, why, sizeof(why)))
		exit_with(EX_UNAVAILABLE, "%s", why);
	count_runs(r);
	for (unsigned from = 0, to; from < c->n; from = to) {
		for (to = from + 1; to < c->n && c->groups[to] == c->groups[from]; to++)
			;
		group_run(r, from, to);
	}
	stage_close(r->stage);
	r->print(c, stdout);
	(void)fflush(stdout);
	return c->json ? results_write(c->root, c->json) : 0;
}

int campaign_run(struct campaign *c, int argc, char **argv,
		 void (*print)(const struct campaign *c, FILE *to))
{
	struct run r = { .campaign = c, .print = print };

	if (!c->n)
		exit_with(EX_USAGE, "no scenario is left to be measured");
	if (geteuid())
		exit_with(EX_NOPERM, "it makes network namespaces, which takes root: sudo");
	if (c->json)
		results_check_path(c->json);
	c->root = results_head(argc, argv, c->mosquitto);
	if (!c->root)
		exit_with(EX_OSERR, "out of memory");
	return lab_run(CAMPAIGN_CONNECT_PERCENT | LAB_PERCENT_IF_POSSIBLE, body, &r);
}
