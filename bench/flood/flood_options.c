// SPDX-License-Identifier: MIT
#include <argp.h>
#include <string.h>
#include <sysexits.h>

#include "bench/flood/flood.h"
#include "bench/lab/number.h"
#include "userspace/base/log.h"

#define SECONDS_MIN   0.2
#define HOLD_MS_MAX   1000
#define CLIENTS_USUAL 32
#define CONNECTS_MAX  5000
#define MOSQUITTO     "/usr/sbin/mosquitto"
#define PERCENT_MAX   100
#define DEVICES_USUAL 800

enum option_key {
	OPT_RATE = 'r',
	OPT_SECONDS = 's',
	OPT_KIND = 'k',
	OPT_FILTER = 'f',
	OPT_MOSQUITTO = 'm',
	OPT_JSON = 'j',
	OPT_ROUNDS = 256,
	OPT_DEVICES,
	OPT_CLIENTS,
	OPT_CONNECTS,
	OPT_HOLD,
	OPT_PAIRS,
	OPT_PERCENT,
	OPT_PROGRAMS,
};

/* clang-format off */
static const struct argp_option options[] = {
	{ "rate", OPT_RATE, "N", 0, "bogus connections a second (10000)", 0 },
	{ "seconds", OPT_SECONDS, "S", 0, "length of each window, 0.2 to 20 (3)", 0 },
	{ "rounds", OPT_ROUNDS, "N", 0, "how often each server has its turn, 1 to 16 (2)", 0 },
	{ "kind", OPT_KIND, "LIST", 0,
	  "of garbage,connect,replay,idle,syn: the floods (all)", 0 },
	{ "filter", OPT_FILTER, "LIST", 0,
	  "of on,checks,off: ssdtf-broker with the kernel's filter, with its own checks instead, "
	  "without admission (all)", 0 },
	{ "mosquitto", OPT_MOSQUITTO, "PATH", 0,
	  "the other broker (" MOSQUITTO " where it is); none: leave it out", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 },
	{ "clients", OPT_CLIENTS, "N", 0,
	  "good clients at a time, when counting connects (32)", 0 },
	{ "connects", OPT_CONNECTS, "N", 0,
	  "connects a second, when measuring their latency (200)", 0 },
	{ "devices", OPT_DEVICES, "N", 0, "enrolled devices to connect as (800)", 0 },
	{ "hold-ms", OPT_HOLD, "MS", 0, "life of a bogus connection, until its RST (20)", 0 },
	{ "price-pairs", OPT_PAIRS, "N", 0,
	  "pairs of windows for the price of the filter, 0 to 100 (10)", 0 },
	{ "server-cpu-percent", OPT_PERCENT, "N", 0,
	  "let servers use so much of their CPU, 1 to 100 (all of it)", 0 },
	{ "programs", OPT_PROGRAMS, "DIR", 0, "where ssdtf-broker and the others are (beside "
	  "this program)", 0 },
	{ 0 },
};
/* clang-format on */

/* Calls take() for each word between commas; false from it: there is no such word. */
static void each_word(const char *name, const char *arg,
		      bool (*take)(struct flood_options *o, struct bytes word),
		      struct flood_options *o, const char *words)
{
	const char *p = arg;

	for (;;) {
		size_t n = strcspn(p, ",");

		if (!take(o, bytes_of(p, n)))
			exit_with(EX_USAGE, "--%s: a list of %s, not \"%s\"", name, words, arg);
		if (!p[n])
			return;
		p += n + 1;
	}
}

static bool take_kind(struct flood_options *o, struct bytes word)
{
	enum bogus_kind k;

	if (!bogus_by_name(word, &k))
		return false;
	o->kinds[k] = true;
	return true;
}

static bool take_filter(struct flood_options *o, struct bytes word)
{
	static const struct {
		const char *word;
		enum server_kind server;
	} words[] = {
		{ "on", SERVER_FILTER },
		{ "checks", SERVER_CHECKS },
		{ "off", SERVER_OFF },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!bytes_equal(word, bytes_str(words[i].word)))
			continue;
		o->servers[words[i].server] = true;
		return true;
	}
	return false;
}

static error_t parse_number(int key, const char *arg, struct flood_options *o)
{
	switch (key) {
	case OPT_RATE:
		o->trial.rate = number_of("rate", arg, 1, FLOODER_RATE_MAX);
		return 0;
	case OPT_ROUNDS:
		o->rounds = number_of("rounds", arg, 1, FLOOD_ROUNDS_MAX);
		return 0;
	case OPT_DEVICES:
		o->devices = number_of("devices", arg, 1, SITE_DEVICES_MAX);
		return 0;
	case OPT_CLIENTS:
		o->trial.clients = number_of("clients", arg, 1, LOAD_CLIENTS_MAX);
		return 0;
	case OPT_CONNECTS:
		o->trial.connects = number_of("connects", arg, 1, CONNECTS_MAX);
		return 0;
	case OPT_HOLD:
		o->trial.hold_ms = number_of("hold-ms", arg, 1, HOLD_MS_MAX);
		return 0;
	case OPT_PAIRS:
		o->pairs = number_of("price-pairs", arg, 0, PRICE_PAIRS_MAX);
		return 0;
	case OPT_PERCENT:
		o->server_percent = number_of("server-cpu-percent", arg, 1, PERCENT_MAX);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct flood_options *o = state->input;

	switch (key) {
	case OPT_SECONDS:
		o->trial.seconds = number_real_of("seconds", arg, SECONDS_MIN, TRIAL_SECONDS_MAX);
		return 0;
	case OPT_KIND:
		memset(o->kinds, 0, sizeof(o->kinds));
		each_word("kind", arg, take_kind, o, "garbage, connect, replay, idle, syn");
		return 0;
	case OPT_FILTER:
		o->servers[SERVER_FILTER] = o->servers[SERVER_CHECKS] = false;
		o->servers[SERVER_OFF] = false;
		each_word("filter", arg, take_filter, o, "on, checks, off");
		return 0;
	case OPT_MOSQUITTO:
		o->servers[SERVER_MOSQUITTO] = strcmp(arg, "none") != 0;
		o->trial.mosquitto = arg;
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
	return parse_number(key, arg, o);
}

/* Devices may connect five times a second each: enough of them, and no more latencies than fit. */
static void check(const struct flood_options *o)
{
	if ((uint64_t)o->trial.connects * LOAD_DEVICE_GAP_MS > o->devices * 1000ull)
		exit_with(EX_USAGE,
			  "--connects %u takes %u devices: a device may connect five times a "
			  "second (--devices)",
			  o->trial.connects, o->trial.connects * LOAD_DEVICE_GAP_MS / 1000 + 1);
	if ((uint64_t)o->trial.rate * o->trial.hold_ms / 1000 > FLOODER_OPEN_MAX / 2)
		exit_with(EX_USAGE, "--rate %u and --hold-ms %u are too many connections at a time",
			  o->trial.rate, o->trial.hold_ms);
	BUG_ON(o->trial.connects * o->trial.seconds > LOAD_PLANNED_MAX);
}

void flood_parse(int argc, char **argv, struct flood_options *ret_o)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Floods a broker in network namespaces of its own, and measures what that "
		       "costs it and its good clients. Needs root."
	};
	struct flood_options o = {
		.trial = { .rate = 10000,
			   .seconds = 3,
			   .hold_ms = 20,
			   .clients = CLIENTS_USUAL,
			   .connects = 200,
			   .mosquitto = MOSQUITTO },
		.rounds = 2,
		.devices = DEVICES_USUAL,
		.pairs = 10,
	};

	for (unsigned i = 0; i < BOGUS_KINDS; i++)
		o.kinds[i] = true;
	for (unsigned i = 0; i < SERVER_KINDS; i++)
		o.servers[i] = true;
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o))
		exit_with(EX_USAGE, "the options cannot be read");
	check(&o);
	*ret_o = o;
}
