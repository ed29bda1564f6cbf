/* SPDX-License-Identifier: MIT */
/*
 * The command line of ssdtf-admin: every option stands once, in a table; a command says which of
 * them it takes. What does not fit is said by argp, which ends the program with EX_USAGE.
 */
#ifndef SSDTF_MANAGER_OPTIONS_H
#define SSDTF_MANAGER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/bundle/record.h"

enum option_name {
	/* of the program, taken in front of the command and behind it */
	OPTION_DIR,
	OPTION_MODULE,
	OPTION_TOKEN,
	OPTION_PIN_FILE,
	/* of commands */
	OPTION_ADOPT,
	OPTION_ID,
	OPTION_PUBLIC,
	OPTION_ENCRYPTION,
	OPTION_GENERATE,
	OPTION_CLOCK,
	OPTION_NO_CLOCK,
	OPTION_ZK,
	OPTION_NAME,
	OPTION_FILTER,
	OPTION_SUITE,
	OPTION_REKEY_MESSAGES,
	OPTION_REKEY_SECONDS,
	OPTION_VALID_DAYS,
	OPTION_SCOPE,
	OPTION_DEVICE,
	OPTION_RECEIVER,
	OPTION_GATEWAY,
	OPTION_NO_PROOF,
	OPTION_OUT,
	OPTION_OUT_DIR,
	OPTION_DISTRIBUTOR,
	OPTION_OUTLET,
	OPTION_TOPIC,
	OPTION_IDS,
	OPTION_ROTATE_SECONDS,
	OPTION_PADDED,
	OPTION_AT,
	OPTION_REASON,
	OPTION_TABLE,
	OPTION_JSON,
	OPTION_DRY_RUN,
	OPTION_OVERLAP_HOURS,
	OPTION_KEEP_DAYS,
	OPTION_ALL,
	OPTION_FROM,
	OPTION_IN_HOURS,
	OPTION_UPDATE_DAYS,
	OPTION_PARTY_DIR,
	OPTION_AS,
	OPTION_HOST,
	OPTION_PORT,
	OPTION_TIMEOUT,
	OPTION_PUSH,
	OPTION_SINCE,
	OPTION_COUNT,
};

#define OPTION_BIT(o) (1ull << (o))
#define OPTION_GLOBAL                                                                    \
	(OPTION_BIT(OPTION_DIR) | OPTION_BIT(OPTION_MODULE) | OPTION_BIT(OPTION_TOKEN) | \
	 OPTION_BIT(OPTION_PIN_FILE))

struct options {
	uint64_t given;			/* OPTION_BIT of each that was */
	const char *text[OPTION_COUNT]; /* those with a text */
	uint32_t number[OPTION_COUNT];	/* those with a number: the default until given */
	const char *filters[RECORD_FILTERS_MAX];
	unsigned n_filters;
	const char *word; /* the argument that is no option, where the command takes one */
};

/* What one command takes. Options that it needs are among those it takes. */
struct options_rules {
	const char *usage; /* "ssdtf-admin enrol device" */
	const char *doc;   /* for --help */
	const char *word;  /* name of its argument, "ID"; NULL: none */
	uint64_t takes, needs;
	uint64_t one_of; /* exactly one of these */
};

static inline bool options_has(const struct options *o, enum option_name which)
{
	return o->given & OPTION_BIT(which);
}

void options_init(struct options *o);
/* The options in front of the command; returns its index in argv, argc where there is none. */
int options_parse_global(struct options *o, int argc, char **argv, const char *commands);
/* argv[0] is the last word of the command. */
void options_parse(struct options *o, const struct options_rules *rules, int argc, char **argv);

#endif
