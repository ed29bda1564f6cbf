// SPDX-License-Identifier: MIT
#include "bench/ceiling/options.h"

#include <argp.h>
#include <string.h>
#include <sysexits.h>

#include "bench/lab/number.h"
#include "userspace/base/log.h"

#define SECONDS_MIN 0.001
#define SECONDS_MAX 60

enum option_key {
	OPT_SECONDS = 's',
	OPT_ROUNDS = 'r',
	OPT_JSON = 'j',
	OPT_PROCESSES = 'p',
	OPT_MODULE = 256,
	OPT_TOKEN,
	OPT_PIN_FILE,
};

/* clang-format off */
#define OPTIONS_SHARED(usual_seconds, usual_rounds)                                            \
	{ "seconds", OPT_SECONDS, "S", 0,                                                      \
	  "length of each slice, 0.001 to 60 (" usual_seconds ")", 0 },                        \
	{ "rounds", OPT_ROUNDS, "N", 0,                                                        \
	  "how often each has its turn, 1 to 64 (" usual_rounds ")", 0 },                      \
	{ "processes", OPT_PROCESSES, "LIST", 0,                                               \
	  "how many at once, such as 1,2,4 (1 and up to as many as there are CPUs)", 0 },      \
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 }

static const struct argp_option hsm_options[] = {
	OPTIONS_SHARED("0.5", "5"),
	{ "module", OPT_MODULE, "PATH", 0,
	  "a PKCS#11 module (SoftHSM, with a token that is thrown away)", 0 },
	{ "token", OPT_TOKEN, "LABEL", 0, "of a token with a gateway's keys", 0 },
	{ "pin-file", OPT_PIN_FILE, "FILE", 0, "its first line is the user's PIN", 0 },
	{ 0 },
};

static const struct argp_option crypto_options[] = {
	OPTIONS_SHARED("0.1", "5"),
	{ 0 },
};
/* clang-format on */

static void processes(const char *arg, struct course_plan *p)
{
	const char *at = arg;
	const char *end;

	p->n_counts = 0;
	for (;;) {
		unsigned v = number_first_of("processes", at, 1, CREW_MAX, &end);

		if (p->n_counts == COURSE_COUNTS_MAX || (*end && *end != ',') ||
		    (p->n_counts && v <= p->counts[p->n_counts - 1]))
			exit_with(EX_USAGE,
				  "--processes: at most %d numbers, ascending, with commas between "
				  "them, not \"%s\"",
				  COURSE_COUNTS_MAX, arg);
		p->counts[p->n_counts++] = v;
		if (!*end)
			return;
		at = end + 1;
	}
}

/* 1, 2, 4 ... and as many as there are CPUs. */
static void usual_processes(struct course_plan *p, bool all)
{
	unsigned cpus = crew_cpus();

	for (unsigned v = 1; v < cpus; v = all ? 2 * v : cpus)
		p->counts[p->n_counts++] = v;
	p->counts[p->n_counts++] = cpus;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct ceiling_options *o = state->input;

	switch (key) {
	case OPT_SECONDS:
		o->plan.seconds = number_real_of("seconds", arg, SECONDS_MIN, SECONDS_MAX);
		return 0;
	case OPT_ROUNDS:
		o->plan.rounds = number_of("rounds", arg, 1, COURSE_ROUNDS_MAX);
		return 0;
	case OPT_PROCESSES:
		processes(arg, &o->plan);
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_MODULE:
		o->module = arg;
		return 0;
	case OPT_TOKEN:
		o->label = arg;
		return 0;
	case OPT_PIN_FILE:
		o->pin_file = arg;
		return 0;
	case ARGP_KEY_ARG:
		exit_with(EX_USAGE, "not an option: \"%s\"", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

static void parse_all(const struct argp *argp, int argc, char **argv, struct ceiling_options *o)
{
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(argp, argc, argv, ARGP_IN_ORDER, NULL, o))
		exit_with(EX_USAGE, "the options cannot be read");
}

void options_hsm(int argc, char **argv, struct ceiling_options *ret_o)
{
	static const struct argp argp = {
		.options = hsm_options,
		.parser = parse,
		.doc = "Measures a PKCS#11 token alone, with a gateway's keys: conversions, "
		       "signatures, unwrapped keys. Leaves nothing in it."
	};
	struct ceiling_options o = { .plan = { .title = "hsm", .seconds = 0.5, .rounds = 5 } };

	parse_all(&argp, argc, argv, &o);
	if (!!o.module != !!o.label || !!o.module != !!o.pin_file)
		exit_with(EX_USAGE, "--module, --token and --pin-file go together");
	if (!o.plan.n_counts)
		usual_processes(&o.plan, true);
	*ret_o = o;
}

void options_crypto(int argc, char **argv, struct ceiling_options *ret_o)
{
	static const struct argp argp = {
		.options = crypto_options,
		.parser = parse,
		.doc = "Measures the cryptography of SSDTF/MQTT in processes of its own, and what "
		       "other ways to re-encrypt would take."
	};
	struct ceiling_options o = { .plan = { .title = "crypto", .seconds = 0.1, .rounds = 5 } };

	parse_all(&argp, argc, argv, &o);
	if (!o.plan.n_counts)
		usual_processes(&o.plan, false);
	*ret_o = o;
}
