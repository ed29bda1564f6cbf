// SPDX-License-Identifier: MIT
#include "bench/fleet/fleet.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/fleet/fleet_bundle.h"
#include "bench/lab/figure.h"
#include "bench/lab/lab.h"
#include "bench/lab/number.h"
#include "bench/lab/results.h"
#include "bench/lab/site.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define SIZES_MAX   8
#define ROUNDS_MAX  16
#define SIZE_MAX_N  200000u
#define READY_S	    600
#define POLL_US	    2000
#define REST_MS	    500
#define LINE_BYTES  512
#define WHY_BYTES   256
#define CONFIG_ROOM 4096
#define REFUSED	    "in force stays" /* what the broker says of a bundle that it does not take */

/* --- options ------------------------------------------------------------------------------------
 */

struct fleet_options {
	unsigned sizes[SIZES_MAX], n_sizes;
	unsigned rounds;
	const char *json, *programs;
};

enum option_key { OPT_SIZES = 'n', OPT_ROUNDS = 'r', OPT_JSON = 'j', OPT_PROGRAMS = 256 };

/* clang-format off */
static const struct argp_option options[] = {
	{ "devices", OPT_SIZES, "N,N...", 0,
	  "devices and grants, 100 to 200000 (1000,10000,100000)", 0 },
	{ "rounds", OPT_ROUNDS, "N", 0, "how often each is started, 1 to 16 (3)", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write all figures there too", 0 },
	{ "programs", OPT_PROGRAMS, "DIR", 0,
	  "where ssdtf-broker and the others are (beside this program)", 0 },
	{ 0 },
};
/* clang-format on */

static void parse_sizes(struct fleet_options *o, const char *arg)
{
	for (o->n_sizes = 0;; arg++) {
		if (o->n_sizes == SIZES_MAX)
			exit_with(EX_USAGE, "--devices: at most %d numbers", SIZES_MAX);
		o->sizes[o->n_sizes++] =
			number_first_of("devices", arg, FLEET_SCOPES, SIZE_MAX_N, &arg);
		if (!*arg)
			return;
		if (*arg != ',')
			exit_with(EX_USAGE, "--devices: numbers with commas between them");
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct fleet_options *o = state->input;

	switch (key) {
	case OPT_SIZES:
		parse_sizes(o, arg);
		return 0;
	case OPT_ROUNDS:
		o->rounds = number_of("rounds", arg, 1, ROUNDS_MAX);
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

/* --- one broker ---------------------------------------------------------------------------------
 */

/* What is measured of one size. */
struct fleet_entry {
	unsigned n;
	size_t bundle_bytes;
	unsigned rounds;
	double start_s[ROUNDS_MAX], reload_s[ROUNDS_MAX];
	double rss_kib[ROUNDS_MAX], reloaded_rss_kib[ROUNDS_MAX];
};

struct command {
	int argc;
	char **argv;
	struct fleet_options options;
	struct site site;
	struct fleet_entry entries[SIZES_MAX];
	json_t *root;
};

struct paths {
	char program[SITE_PATH_BYTES], config[SITE_PATH_BYTES], log[SITE_PATH_BYTES];
	char bundle[SITE_PATH_BYTES], state[SITE_PATH_BYTES], manager[SITE_PATH_BYTES];
};

static double now_s(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Once it has come to rest: what it needed for a moment is not its size. */
static double rss_kib(const struct child *broker)
{
	const struct timespec rest = { 0, REST_MS * 1000000 };
	uint64_t kib;

	(void)nanosleep(&rest, NULL); /* cut short, it is a little early */
	kib = child_rss_kib(broker);
	if (!kib)
		exit_with(EX_OSERR, "/proc/%d: no resident size", (int)broker->pid);
	return (double)kib;
}

/* A new folder for what the broker keeps: each one starts without a past. */
static void config_make(const struct site *s, const struct paths *p)
{
	const char *dir = s->lab->dir;
	char text[CONFIG_ROOM];
	int n = snprintf(text, sizeof(text),
			 "listen = { \"127.0.0.1:1883\" }\n"
			 "gateway-id = \"gateway-1\"\n"
			 "manager-key = \"%s\"\n"
			 "bundle = \"%s\"\n"
			 "state-dir = \"%s\"\n"
			 "hsm-sockets = \"%s/gateway/run\"\n",
			 p->manager, p->bundle, p->state, dir);
	int err;

	BUG_ON(n < 0 || (size_t)n >= sizeof(text));
	err = file_write(AT_FDCWD, p->config, bytes_of(text, (size_t)n), 0644);
	if (!err && (mkdir(p->state, 0700) || chown(p->state, CHILD_NOBODY, CHILD_NOBODY)))
		err = -errno;
	if (err)
		exit_with(EX_CANTCREAT, "%s: %s", p->config, strerror(-err));
}

/* Until the log says so; how long it took since from_s. */
static double await(struct child *c, const char *log, const char *text, double from_s)
{
	const struct timespec poll = { 0, POLL_US * 1000 };
	char line[LINE_BYTES];

	for (;;) {
		bool ended = child_ended(c);
		double took = now_s() - from_s;

		if (child_said(log, text, line, sizeof(line)))
			return took;
		if (ended || took > READY_S || child_said(log, REFUSED, line, sizeof(line))) {
			child_last_line(log, line, sizeof(line));
			exit_with(EX_UNAVAILABLE, "ssdtf-broker: %s", line);
		}
		(void)nanosleep(&poll, NULL); /* cut short, it looks sooner */
	}
}

static void round_run(const struct site *s, struct fleet_bundle *b, const struct paths *p,
		      struct fleet_entry *e)
{
	const struct child_place at = {
		.net = -1, .cpu = s->lab->server_cpu, .nobody = true, .log = p->log
	};
	const char *const args[] = { p->program, "--config", p->config, NULL };
	unsigned r = e->rounds++;
	struct child broker;
	double from;
	int err;

	(void)unlink(p->log);
	fleet_bundle_write(b, 1, p->bundle);
	config_make(s, p);
	from = now_s();
	err = child_start(&at, "ssdtf-broker", args, &broker);
	if (err)
		exit_with(EX_OSERR, "%s: %s", p->program, strerror(-err));
	e->start_s[r] = await(&broker, p->log, "ready: listening", from);
	e->rss_kib[r] = rss_kib(&broker);
	fleet_bundle_write(b, 2, p->bundle);
	from = now_s();
	(void)kill(broker.pid, SIGHUP); /* it is our child: it is there until it is waited for */
	e->reload_s[r] = await(&broker, p->log, "event=bundle serial=2", from);
	e->reloaded_rss_kib[r] = rss_kib(&broker);
	child_stop(&broker);
}

static void paths_make(const struct site *s, unsigned n, unsigned round, struct paths *p)
{
	char name[64];

	site_program(s, "broker", p->program);
	site_path(s, "fleet.conf", p->config);
	site_path(s, "fleet.log", p->log);
	site_path(s, "fleet.bundle", p->bundle);
	site_path(s, "fleet.pub", p->manager);
	(void)snprintf(name, sizeof(name), "gateway/fleet-%u-%u", n, round);
	site_path(s, name, p->state);
}

static void size_run(struct command *c, struct fleet_entry *e)
{
	struct fleet_bundle *b;
	struct paths p;

	paths_make(&c->site, e->n, 0, &p);
	log_info("%u devices and grants: the bundle is made", e->n);
	b = fleet_bundle_new(&c->site, e->n, p.manager);
	e->bundle_bytes = fleet_bundle_bytes(b);
	for (unsigned i = 0; i < c->options.rounds; i++) {
		paths_make(&c->site, e->n, i, &p);
		round_run(&c->site, b, &p, e);
	}
	fleet_bundle_free(b);
}

/* --- what is said of it -------------------------------------------------------------------------
 */

static json_t *figure_json(const double *v, unsigned n)
{
	struct figure f = figure_of(v, n);

	return json_pack("{s:i, s:f, s:f, s:f}", "n", (int)f.n, "min", f.min, "median", f.median,
			 "max", f.max);
}

static void print_figure(const double *v, unsigned n)
{
	struct figure f = figure_of(v, n);

	printf("  %7.2f (%.2f-%.2f)", f.median, f.min, f.max);
}

static void report(struct command *c)
{
	json_t *entries = json_array();

	results_print_head(c->root, stdout);
	printf("\n%8s %8s %11s  %-20s  %-20s  %s\n", "devices", "grants", "bundle MiB", "start, s",
	       "new bundle, s", "resident MiB: started, after a new bundle");
	for (unsigned i = 0; i < c->options.n_sizes; i++) {
		struct fleet_entry *e = &c->entries[i];
		unsigned n = e->rounds;

		printf("%8u %8u %11.1f", e->n, e->n, (double)e->bundle_bytes / (1 << 20));
		print_figure(e->start_s, n);
		print_figure(e->reload_s, n);
		printf("  %7.1f  %7.1f\n", figure_of(e->rss_kib, n).median / 1024,
		       figure_of(e->reloaded_rss_kib, n).median / 1024);
		(void)json_array_append_new(
			entries,
			json_pack("{s:i, s:i, s:I, s:o, s:o, s:o, s:o}", "devices", (int)e->n,
				  "grants", (int)e->n, "bundle_bytes", (json_int_t)e->bundle_bytes,
				  "start_s", figure_json(e->start_s, n), "reload_s",
				  figure_json(e->reload_s, n), "rss_kib",
				  figure_json(e->rss_kib, n), "reloaded_rss_kib",
				  figure_json(e->reloaded_rss_kib, n)));
	}
	(void)fflush(stdout);
	if (json_object_set_new(c->root, "rounds", json_integer(c->options.rounds)) ||
	    json_object_set_new(c->root, "entries", entries))
		exit_with(EX_OSERR, "out of memory");
}

static int body(struct lab *lab, void *ctx)
{
	struct command *c = ctx;

	site_make(&c->site, lab, 1, 1);
	site_start_hsmd(&c->site, 1, lab->good_cpu);
	for (unsigned i = 0; i < c->options.n_sizes; i++) {
		c->entries[i].n = c->options.sizes[i];
		size_run(c, &c->entries[i]);
	}
	child_stop(&c->site.hsmd);
	report(c);
	return c->options.json ? results_write(c->root, c->options.json) : 0;
}

int fleet_main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Measures what it takes a gateway to know very many devices and grants: "
		       "its start, its memory, the change to another bundle. Needs root.",
	};
	static struct command c;
	char why[WHY_BYTES];

	c.argc = argc;
	c.argv = argv;
	c.options = (struct fleet_options){ .rounds = 3,
					    .sizes = { 1000, 10000, 100000 },
					    .n_sizes = 3 };
	argp_err_exit_status = EX_USAGE;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &c.options))
		exit_with(EX_USAGE, "the options cannot be read");
	if (site_find(&c.site, c.options.programs, why, sizeof(why)))
		exit_with(EX_UNAVAILABLE, "%s", why);
	if (geteuid())
		exit_with(EX_NOPERM, "it makes network namespaces, which takes root: sudo");
	if (c.options.json)
		results_check_path(c.options.json);
	c.root = results_head(argc, argv, NULL);
	if (!c.root)
		exit_with(EX_OSERR, "out of memory");
	return lab_run(0, body, &c);
}
