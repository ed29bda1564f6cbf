// SPDX-License-Identifier: MIT
#include <argp.h>
#include <sysexits.h>

#include "bench/reach/reach_impl.h"
#include "bench/lab/number.h"
#include "userspace/base/log.h"

#define SECONDS_MIN   0.2
#define SECONDS_MAX   60
#define RECEIVERS_MAX 1000

enum option_key {
	OPT_SECONDS = 's',
	OPT_ROUNDS = 'r',
	OPT_JSON = 'j',
	OPT_ONLY = 'o',
	OPT_RECEIVERS = 256,
	OPT_PROGRAMS,
};

/* clang-format off */
static const struct argp_option options[] = {
	{ "seconds", OPT_SECONDS, "S", 0,
	  "length of each window, and of what is measured alone, 0.2 to 60 (2)", 0 },
	{ "rounds", OPT_ROUNDS, "N", 0, "how often each has its turn, 1 to 16 (3)", 0 },
	{ "only", OPT_ONLY, "PATTERN", 0,
	  "only what has this in its name, such as 'ingress' or 'signature for 64'", 0 },
	{ "receivers", OPT_RECEIVERS, "N", 0,
	  "of conversions and egress: receivers of each message, 1 to 1000 (32)", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 },
	{ "programs", OPT_PROGRAMS, "DIR", 0,
	  "where ssdtf-broker and the others are (beside this program)", 0 },
	{ 0 },
};
/* clang-format on */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct reach_options *o = state->input;

	switch (key) {
	case OPT_SECONDS:
		o->seconds = number_real_of("seconds", arg, SECONDS_MIN, SECONDS_MAX);
		return 0;
	case OPT_ROUNDS:
		o->rounds = number_of("rounds", arg, 1, REACH_ROUNDS_MAX);
		return 0;
	case OPT_RECEIVERS:
		o->receivers = number_of("receivers", arg, 1, RECEIVERS_MAX);
		return 0;
	case OPT_ONLY:
		if (snprintf(o->only, sizeof(o->only), "*%s*", arg) >= (int)sizeof(o->only))
			exit_with(EX_USAGE, "--only: the pattern is too long");
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_PROGRAMS:
		o->programs = arg;
		return 0;
	case ARGP_KEY_ARG:
		exit_with(EX_USAGE, "not an option: \"%s\"", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

void reach_parse(int argc, char **argv, struct reach_options *ret_o)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Measures ssdtf-broker under load and, in turn, the same CPUs doing nothing "
		       "but what limits it: the token's conversions, verifications, signatures. "
		       "Needs root, and two CPUs for figures that say much.",
	};
	struct reach_options o = { .rounds = 3, .receivers = 32, .seconds = 2 };

	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o))
		exit_with(EX_USAGE, "the options cannot be read");
	*ret_o = o;
}
