// SPDX-License-Identifier: MIT
/*
 * ssdtf-bench: one command a kind of measurement.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/ceiling.h"
#include "bench/fleet/fleet.h"
#include "bench/flood/flood.h"
#include "bench/flow/compare.h"
#include "bench/flow/grow.h"
#include "bench/flow/run.h"
#include "bench/page/page.h"
#include "bench/reach/reach.h"
#include "userspace/base/log.h"

static const struct command {
	const char *name;
	const char *line; /* for --help */
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", "one scenario: messages through one broker, plain or sealed", run_main },
	{ "compare", "ssdtf-broker and mosquitto in turn, in the same scenarios", compare_main },
	{ "grow", "what a message costs as one thing grows: receivers, payload, load ...",
	  grow_main },
	{ "flood", "what floods of bogus connections cost, with the admission filter and without",
	  flood_main },
	{ "hsm", "a PKCS#11 token alone: conversions, signatures, unwrapped keys a second",
	  ceiling_hsm_main },
	{ "crypto", "the cryptography in one's own process, and what other ways would take",
	  ceiling_crypto_main },
	{ "reach", "how much of what the machine can do at most the whole broker reaches",
	  reach_main },
	{ "fleet", "a gateway's start, memory and new bundle with very many devices and grants",
	  fleet_main },
	{ "page", "a page with plots out of what the others wrote with --json", page_main },
};

static int usage(FILE *to, int status)
{
	fputs("Usage: ssdtf-bench COMMAND [OPTION...]\nMeasures SSDTF/MQTT.\n\n", to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].line);
	fputs("\nssdtf-bench COMMAND --help lists a command's options.\n", to);
	return status;
}

int main(int argc, char **argv)
{
	static char name[64];

	log_init("ssdtf-bench", LOG_LEVEL_INFO);
	if (argc < 2)
		return usage(stderr, EX_USAGE);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?"))
		return usage(stdout, 0);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		/* argp takes the program's name from the word before the options. */
		snprintf(name, sizeof(name), "ssdtf-bench %s", argv[1]);
		argv[1] = name;
		return commands[i].run(argc - 1, argv + 1);
	}
	exit_with(EX_USAGE, "\"%s\" is no command; ssdtf-bench --help lists them", argv[1]);
}
