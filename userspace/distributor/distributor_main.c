// SPDX-License-Identifier: MIT
/*
 * ssdtf-distributor: the command line. Everything else is in service.c and anonymity.c.
 */
#include <argp.h>
#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/crypto/memory.h"
#include "userspace/distributor/anonymity.h"
#include "userspace/distributor/config.h"
#include "userspace/distributor/service.h"

#define VERSION_TEXT "ssdtf-distributor 0.1 (SSDTF/MQTT protocol 1, MQTT 3.1.1)"

enum command { COMMAND_NONE, COMMAND_RUN, COMMAND_CHECK, COMMAND_ANONYMITY };

enum { KEY_JSON = 0x100 };

struct arguments {
	enum command command;
	const char *config_file;
	bool json;
};

static const struct argp_option argp_options[] = {
	{ "config", 'c', "FILE", 0, "The configuration (tools/distributor.conf.example)", 0 },
	{ "json", KEY_JSON, 0, 0, "anonymity: as JSON", 0 },
	{ 0 },
};

static const char doc[] =
	"The SSDTF/MQTT distribution server: takes converted messages at one broker, gives their "
	"senders other names, and publishes them, converted again, at the same broker or another."
	"\v"
	"Commands:\n"
	"  run            until SIGTERM\n"
	"  check-config   check FILE, the manager's key and the bundle, and say what they hold\n"
	"  anonymity      how many senders share what an observer of each outlet can see\n\n"
	"Signals: TERM and INT stop it in good order, HUP makes it read the bundle again, USR1 "
	"makes it say its counters.\n"
	"Examples:\n"
	"  ssdtf-distributor run --config /etc/ssdtf/distributor.conf\n"
	"  ssdtf-distributor anonymity --config /etc/ssdtf/distributor.conf --json";

static enum command command_of(const char *word)
{
	static const struct {
		const char *word;
		enum command command;
	} all[] = {
		{ "run", COMMAND_RUN },
		{ "check-config", COMMAND_CHECK },
		{ "anonymity", COMMAND_ANONYMITY },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(word, all[i].word))
			return all[i].command;
	return COMMAND_NONE;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'c':
		a->config_file = arg;
		return 0;
	case KEY_JSON:
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->command)
			argp_error(state, "'%s': one command is enough", arg);
		a->command = command_of(arg);
		if (!a->command)
			argp_error(state, "'%s' is not a command: run, check-config or anonymity",
				   arg);
		return 0;
	case ARGP_KEY_END:
		if (!a->command)
			argp_error(state, "a command is needed: run, check-config or anonymity");
		if (!a->config_file)
			argp_error(state, "--config is needed");
		if (a->json && a->command != COMMAND_ANONYMITY)
			argp_error(state, "--json is for anonymity");
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
	static const struct argp argp = {
		.options = argp_options,
		.parser = parse,
		.args_doc = "run|check-config|anonymity",
		.doc = doc,
	};
	static struct config config;
	struct arguments a = { 0 };
	char why[CONFIG_ERROR_BYTES];
	int err;

	argp_program_version = VERSION_TEXT;
	argp_err_exit_status = EX_USAGE;
	log_init(argv[0], LOG_LEVEL_INFO);
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	err = config_read(a.config_file, &config, why);
	if (err)
		exit_with(exit_code_of_config(err), "%s", why);
	log_init(argv[0], config.log_level);
	switch (a.command) {
	case COMMAND_RUN:
		(void)memory_keep(); /* else it costs some time and nothing else */
		return service_run(&config);
	case COMMAND_CHECK:
		return service_check(&config);
	case COMMAND_ANONYMITY:
		return anonymity_report(&config, a.json);
	case COMMAND_NONE:
		break;
	}
	return EX_USAGE;
}
