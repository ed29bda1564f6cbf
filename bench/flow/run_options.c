// SPDX-License-Identifier: MIT
#include <argp.h>
#include <string.h>
#include <sysexits.h>

#include "bench/flow/run.h"
#include "bench/flow/tape.h"
#include "bench/lab/number.h"
#include "userspace/base/log.h"

#define SECONDS_MIN  0.1
#define SECONDS_MAX  600
#define CLIENTS_MAX  10000
#define TOPICS_MAX   100000
#define PAYLOAD_MAX  65536
#define WINDOW_MAX   10000
#define RATE_MAX     10000000
#define CONTEXT_MAX  65536
#define BATCH_MAX    1024
#define HSMD_MAX     16
#define WORKERS_MAX_ 64
#define IDLE_MAX     20000
#define OTHERS_MAX   1000000

enum option_key {
	OPT_KIND = 'k',
	OPT_SERVER = 'b',
	OPT_CLIENTS = 'c',
	OPT_TOPICS = 't',
	OPT_QOS = 'q',
	OPT_PAYLOAD = 'p',
	OPT_WINDOW = 'w',
	OPT_RATE = 'r',
	OPT_SECONDS = 's',
	OPT_JSON = 'j',
	OPT_MOSQUITTO = 'm',
	OPT_CONTEXT = 256,
	OPT_BATCH,
	OPT_HSMD,
	OPT_WORKERS,
	OPT_IDLE,
	OPT_OTHERS,
	OPT_ROUNDS,
	OPT_MALLOCS,
	OPT_PROGRAMS,
};

/* clang-format off */
static const struct argp_option options[] = {
	{ "kind", OPT_KIND, "WORD", 0,
	  "connect, pairs, fan-in, fan-out, retained or ingress (pairs)", 0 },
	{ "server", OPT_SERVER, "WORD", 0,
	  "plain (ssdtf-broker without SSDTF), sealed (with it) or mosquitto (plain)", 0 },
	{ "clients", OPT_CLIENTS, "N", 0,
	  "pairs; senders of fan-in and ingress; receivers of fan-out and retained; clients at a "
	  "time of connect (10)", 0 },
	{ "topics", OPT_TOPICS, "N", 0, "retained: how many messages there are (1000)", 0 },
	{ "qos", OPT_QOS, "0|1|2", 0, "of publishing and of subscriptions (0)", 0 },
	{ "payload", OPT_PAYLOAD, "BYTES", 0, "of plaintext, 16 to 65536 (64)", 0 },
	{ "window", OPT_WINDOW, "N", 0,
	  "closed loop: so many messages of each sender under way (100)", 0 },
	{ "rate", OPT_RATE, "N", 0,
	  "open loop instead, and latency: so many messages a second, of all senders together",
	  0 },
	{ "seconds", OPT_SECONDS, "S", 0, "length of the measured window (3)", 0 },
	{ "context", OPT_CONTEXT, "N", 0, "sealed: messages of an HPKE context (1000)", 0 },
	{ "batch", OPT_BATCH, "N", 0,
	  "sealed: messages of a sender under one signature (1)", 0 },
	{ "hsmd", OPT_HSMD, "N", 0, "sealed: key processes (1)", 0 },
	{ "workers", OPT_WORKERS, "N", 0,
	  "sealed: the broker's verifying threads (its default)", 0 },
	{ "idle", OPT_IDLE, "N", 0, "connections besides that say nothing (0)", 0 },
	{ "others", OPT_OTHERS, "N", 0, "subscriptions besides that match nothing (0)", 0 },
	{ "rounds", OPT_ROUNDS, "N", 0, "how often, each with a fresh broker (1)", 0 },
	{ "count-mallocs", OPT_MALLOCS, 0, 0,
	  "count ssdtf-broker's allocations, which takes it a little time", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 },
	{ "mosquitto", OPT_MOSQUITTO, "PATH", 0, "the other broker (/usr/sbin/mosquitto)", 0 },
	{ "programs", OPT_PROGRAMS, "DIR", 0, "where ssdtf-broker and the others are (beside "
	  "this program)", 0 },
	{ 0 },
};
/* clang-format on */

static enum scenario_kind kind(const char *arg)
{
	for (unsigned i = 0; i < SCENARIO_KINDS; i++) {
		if (!strcmp(arg, scenario_kind_name((enum scenario_kind)i)))
			return (enum scenario_kind)i;
	}
	exit_with(EX_USAGE,
		  "--kind: connect, pairs, fan-in, fan-out, retained or ingress, not \"%s\"", arg);
}

static enum scenario_server server(const char *arg)
{
	for (unsigned i = 0; i < SCENARIO_SERVERS; i++) {
		if (!strcmp(arg, scenario_server_name((enum scenario_server)i)))
			return (enum scenario_server)i;
	}
	exit_with(EX_USAGE, "--server: plain, sealed or mosquitto, not \"%s\"", arg);
}

static error_t parse_more(int key, const char *arg, struct run_options *o)
{
	struct scenario *s = &o->scenario;

	switch (key) {
	case OPT_CONTEXT:
		s->context = number_of("context", arg, 1, CONTEXT_MAX);
		return 0;
	case OPT_BATCH:
		s->batch = number_of("batch", arg, 1, BATCH_MAX);
		return 0;
	case OPT_HSMD:
		s->hsmd = number_of("hsmd", arg, 1, HSMD_MAX);
		return 0;
	case OPT_WORKERS:
		s->workers = number_of("workers", arg, 0, WORKERS_MAX_);
		return 0;
	case OPT_IDLE:
		s->idle = number_of("idle", arg, 0, IDLE_MAX);
		return 0;
	case OPT_OTHERS:
		s->others = number_of("others", arg, 0, OTHERS_MAX);
		return 0;
	case OPT_ROUNDS:
		o->rounds = number_of("rounds", arg, 1, RUN_ROUNDS_MAX);
		return 0;
	case OPT_MALLOCS:
		s->count_mallocs = true;
		return 0;
	case OPT_PROGRAMS:
		o->stage.programs = arg;
		return 0;
	case OPT_MOSQUITTO:
		o->stage.mosquitto = arg;
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case ARGP_KEY_ARG:
		exit_with(EX_USAGE, "not an option: \"%s\"", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_options *o = state->input;
	struct scenario *s = &o->scenario;

	switch (key) {
	case OPT_KIND:
		s->kind = kind(arg);
		return 0;
	case OPT_SERVER:
		s->server = server(arg);
		return 0;
	case OPT_CLIENTS:
		s->clients = number_of("clients", arg, 1, CLIENTS_MAX);
		return 0;
	case OPT_TOPICS:
		s->topics = number_of("topics", arg, 1, TOPICS_MAX);
		return 0;
	case OPT_QOS:
		s->qos = number_of("qos", arg, 0, 2);
		return 0;
	case OPT_PAYLOAD:
		s->payload = number_of("payload", arg, TAPE_MARK_BYTES, PAYLOAD_MAX);
		return 0;
	case OPT_WINDOW:
		s->window = number_of("window", arg, 1, WINDOW_MAX);
		return 0;
	case OPT_RATE:
		s->rate = number_real_of("rate", arg, 1, RATE_MAX);
		s->window = 0;
		return 0;
	case OPT_SECONDS:
		s->seconds = number_real_of("seconds", arg, SECONDS_MIN, SECONDS_MAX);
		return 0;
	}
	return parse_more(key, arg, o);
}

static void check(const struct scenario *s)
{
	if (s->rate > 0 && s->window)
		exit_with(EX_USAGE, "--window and --rate exclude each other");
	if (s->rate > 0 && s->kind == SCENARIO_RETAINED)
		exit_with(EX_USAGE, "--rate: retained has none; receivers take what they can");
	if (s->count_mallocs && s->server == SCENARIO_MOSQUITTO)
		exit_with(EX_USAGE, "--count-mallocs: only of ssdtf-broker");
}

void run_parse(int argc, char **argv, struct run_options *ret_o)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Runs one scenario, messages through one broker, in namespaces of its own, "
		       "and measures it. Needs root."
	};
	struct run_options o = { .rounds = 1 };

	scenario_default(&o.scenario);
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o))
		exit_with(EX_USAGE, "the options cannot be read");
	check(&o.scenario);
	scenario_parties(&o.scenario, &o.stage.senders, &o.stage.receivers);
	*ret_o = o;
}
