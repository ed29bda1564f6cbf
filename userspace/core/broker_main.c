// SPDX-License-Identifier: MIT
/*
 * ssdtf-broker: the command line. Everything else is in server.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/core/config.h"
#include "userspace/core/server.h"
#include "userspace/crypto/memory.h"

#define VERSION_TEXT "ssdtf-broker 0.1 (SSDTF/MQTT protocol 1, MQTT 3.1.1)"

enum { KEY_PLAIN = 0x100, KEY_CHECK };

struct arguments {
	const char *config_file;
	bool check;
	struct config config; /* of --plain */
};

static const struct argp_option argp_options[] = {
	{ "config", 'c', "FILE", 0, "Run as a gateway's broker, as FILE says", 0 },
	{ "check-config", KEY_CHECK, 0, 0,
	  "With --config: check FILE, the manager's key and the bundle, then exit", 0 },
	{ "plain", KEY_PLAIN, "ADDRESS:PORT", 0,
	  "Run as an ordinary MQTT broker without SSDTF: no token, no authentication, nothing "
	  "stored; may be repeated",
	  0 },
	{ 0 },
};

static const char doc[] =
	"The SSDTF/MQTT broker.\v"
	"Signals: TERM and INT stop it in good order, HUP makes it read the bundle again, USR1 "
	"makes it say its counters.\n"
	"Examples:\n"
	"  ssdtf-broker --plain 127.0.0.1:1883\n"
	"  ssdtf-broker --plain '[::1]:1883'\n"
	"  ssdtf-broker --config /etc/ssdtf/gateway.conf";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'c':
		a->config_file = arg;
		return 0;
	case KEY_CHECK:
		a->check = true;
		return 0;
	case KEY_PLAIN:
		a->config.plain = true;
		if (config_add_listen(&a->config, arg))
			argp_error(state,
				   "--plain: '%s' is not an address to listen on, as in "
				   "127.0.0.1:1883 or [::1]:1883",
				   arg);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "'%s' is not an option", arg);
		return 0;
	case ARGP_KEY_END:
		if (!a->config_file == !a->config.plain)
			argp_error(state, "either --config or --plain is needed");
		if (a->check && !a->config_file)
			argp_error(state, "--check-config needs --config");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int exit_code_of_config(int err)
{
	switch (-err) {
	case EINVAL:
		return EX_CONFIG;
	case EACCES:
		return EX_NOPERM;
	default:
		return EX_NOINPUT;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = { .options = argp_options, .parser = parse, .doc = doc };
	static struct arguments a;
	char why[CONFIG_ERROR_BYTES];
	int err;

	(void)memory_keep(); /* where it is not possible, that costs some time and nothing else */
	argp_program_version = VERSION_TEXT;
	argp_err_exit_status = EX_USAGE;
	log_init(argv[0], LOG_LEVEL_INFO);
	config_init(&a.config);
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (!a.config_file)
		return server_run(&a.config);
	err = config_read(a.config_file, &a.config, why);
	if (err)
		exit_with(exit_code_of_config(err), "%s", why);
	log_init(argv[0], a.config.log_level);
	if (!a.check)
		return server_run(&a.config);
	err = server_check(&a.config);
	printf("%s: ok\n", a.config_file);
	return err;
}
