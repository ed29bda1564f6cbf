// SPDX-License-Identifier: MIT
#include "bench/flood/report.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/flood/judge.h"
#include "bench/lab/results.h"

#define NAME_COLUMNS   32
#define VALUE_COLUMNS  24
#define TARGET_COLUMNS 46
#define CELL_BYTES     64
#define LINE_BYTES     256

struct machine {
	char when[32]; /* UTC */
	char kernel[3 * 65];
	char cpu[LINE_BYTES];
	long cpus;
};

/* --- the machine ------------------------------------------------------------------------------ */

static void read_cpu(char *out, size_t room)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[LINE_BYTES];

	snprintf(out, room, "unknown CPU");
	while (f && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ':');

		if (!value || (strncmp(line, "model name", 10) && strncmp(line, "CPU part", 8)))
			continue;
		value[strcspn(value, "\n")] = '\0';
		snprintf(out, room, "%s", value + strspn(value, ": "));
		break;
	}
	if (f)
		(void)fclose(f);
}

static void machine_read(struct machine *m)
{
	struct utsname u = { 0 };
	time_t now = time(NULL);
	struct tm utc = { 0 };

	(void)uname(&u); /* fails for no valid pointer */
	(void)gmtime_r(&now, &utc);
	strftime(m->when, sizeof(m->when), "%Y-%m-%d %H:%M UTC", &utc);
	snprintf(m->kernel, sizeof(m->kernel), "%s %s %s", u.sysname, u.release, u.machine);
	read_cpu(m->cpu, sizeof(m->cpu));
	m->cpus = sysconf(_SC_NPROCESSORS_ONLN);
}

/* --- the table -------------------------------------------------------------------------------- */

/* median (min-max), in the metric's format; the format is one of judge.c's constants. */
static void cell(const struct figure *f, const char *format, char out[CELL_BYTES])
{
	char v[3][20];
	const double values[] = { f->median, f->min, f->max };

	if (!f->n || isnan(f->median)) {
		snprintf(out, CELL_BYTES, "-");
		return;
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	for (unsigned i = 0; i < 3; i++)
		snprintf(v[i], sizeof(v[i]), format, values[i]);
#pragma GCC diagnostic pop
	if (f->n == 1)
		snprintf(out, CELL_BYTES, "%s", v[0]);
	else
		snprintf(out, CELL_BYTES, "%s (%s-%s)", v[0], v[1], v[2]);
}

static void print_row(const struct flood *f, enum bogus_kind k, enum judge_metric_id id, FILE *to)
{
	const struct judge_metric *m = judge_metric(id);

	fprintf(to, "  %-*s", NAME_COLUMNS, m->name);
	for (unsigned s = 0; s < SERVER_KINDS; s++) {
		struct figure v;
		char text[CELL_BYTES];

		if (!f->servers[s])
			continue;
		v = judge_figure(f, k, (enum server_kind)s, id);
		cell(&v, m->format, text);
		fprintf(to, " %*s", VALUE_COLUMNS, text);
	}
	fputc('\n', to);
}

/* Medians over the rounds of min, median, p99 and max, in ms. */
static void print_latency(const struct flood *f, enum bogus_kind k, bool flooded, FILE *to)
{
	fprintf(to, "  %-*s", NAME_COLUMNS,
		flooded ? "connect latency, flood, ms" : "connect latency, idle, ms");
	for (unsigned s = 0; s < SERVER_KINDS; s++) {
		double v[4][FLOOD_ROUNDS_MAX], m[4];
		char text[CELL_BYTES];
		unsigned n = 0;

		if (!f->servers[s])
			continue;
		for (unsigned i = 0; i < f->n; i++) {
			const struct trial *t = &f->trials[i];
			const struct figure_latency *l =
				flooded ? &t->flood_open.latency : &t->idle_open.latency;

			if (t->kind != k || t->server != s)
				continue;
			v[0][n] = l->min / 1000.0;
			v[1][n] = l->median / 1000.0;
			v[2][n] = l->p99 / 1000.0;
			v[3][n++] = l->max / 1000.0;
		}
		for (unsigned i = 0; i < 4; i++)
			m[i] = figure_of(v[i], n).median;
		snprintf(text, sizeof(text), "%.1f/%.1f/%.1f/%.1f", m[0], m[1], m[2], m[3]);
		fprintf(to, " %*s", VALUE_COLUMNS, text);
	}
	fputc('\n', to);
}

static void print_kind(const struct flood *f, enum bogus_kind k, FILE *to)
{
	static const enum judge_metric_id cost[] = {
		JUDGE_REACHED,
		JUDGE_CONNECTED,
		JUDGE_SENT,
		JUDGE_SERVER,
		JUDGE_CORE,
		JUDGE_MACHINE,
		JUDGE_STOLEN,
		JUDGE_BASE,
		JUDGE_FULL,
		JUDGE_TOLD,
		JUDGE_SYN_RECV,
		JUDGE_OVERFLOWS,
		JUDGE_COOKIES,
		JUDGE_IDLE_RATE,
		JUDGE_IDLE_SERVER_BUSY,
		JUDGE_IDLE_CLIENT_BUSY,
		JUDGE_FLOOD_RATE,
		JUDGE_FLOOD_SERVER_BUSY,
		JUDGE_FLOOD_CLIENT_BUSY,
		JUDGE_RATE_RATIO,
		JUDGE_BESIDE_CLOSED,
	};

	fprintf(to, "\n%-*s", NAME_COLUMNS + 2, bogus_name(k));
	for (unsigned s = 0; s < SERVER_KINDS; s++) {
		if (f->servers[s])
			fprintf(to, " %*s", VALUE_COLUMNS, server_name((enum server_kind)s));
	}
	fputc('\n', to);
	for (size_t i = 0; i < ARRAY_SIZE(cost); i++) {
		if (k == BOGUS_SYN && (cost[i] == JUDGE_CONNECTED || cost[i] == JUDGE_SENT))
			continue;
		print_row(f, k, cost[i], to);
	}
	print_latency(f, k, false, to);
	print_row(f, k, JUDGE_IDLE_LOST, to);
	print_latency(f, k, true, to);
	print_row(f, k, JUDGE_FLOOD_LOST, to);
	print_row(f, k, JUDGE_BESIDE_OPEN, to);
}

static void print_price_row(const char *name, const double *v, unsigned n, FILE *to)
{
	struct figure f = figure_of(v, n);

	fprintf(to, "  %-*s %10.1f %10.1f %10.1f\n", TARGET_COLUMNS, name, f.min, f.median, f.max);
}

static void print_price(const struct price *p, FILE *to)
{
	fprintf(to, "\n%-*s %10s %10s %10s\n", TARGET_COLUMNS + 2,
		"price of a good connect, us (no flood)", "min", "median", "max");
	print_price_row("core, a connect with the filter", p->with_us, p->n, to);
	print_price_row("core, a connect without", p->without_us, p->n, to);
	print_price_row("difference in a pair: server", p->server_us, p->n, to);
	print_price_row("difference in a pair: core", p->core_us, p->n, to);
	print_price_row("difference in a pair: machine", p->machine_us, p->n, to);
	if (p->counted)
		fprintf(to, "  %-*s %10s %10.2f    in %.1f runs\n", TARGET_COLUMNS,
			"in the filter, by the kernel's account", "", p->run_us, p->runs);
}

static void print_targets(const struct flood *f, FILE *to)
{
	struct judge_target t[JUDGE_TARGETS_MAX];
	unsigned n = judge_targets(f, t);

	if (!n)
		return;
	fprintf(to, "\n%-*s %10s %10s %10s   %s\n", TARGET_COLUMNS + 2, "targets", "min", "median",
		"max", "wanted");
	for (unsigned i = 0; i < n; i++)
		fprintf(to, "  %-*s %10.4g %10.4g %10.4g   %s %-4g %s\n", TARGET_COLUMNS, t[i].what,
			t[i].figure.min, t[i].figure.median, t[i].figure.max,
			t[i].at_least ? ">=" : "<=", t[i].wanted, t[i].met ? "met" : "MISSED");
}

static void print_head(const struct flood *f, const struct machine *m, FILE *to)
{
	const struct flood_options *o = f->options;
	const struct lab *l = f->lab;

	fprintf(to, "ssdtf-bench flood, %s\n%s, %s, %ld CPUs\n", m->when, m->kernel, m->cpu,
		m->cpus);
	if (l->server_cpu == l->flood_cpu)
		fprintf(to, "server, flood and clients share CPU %d: no figure says much\n",
			l->server_cpu);
	else
		fprintf(to, "server on CPU %d, flood on %d, clients on %d; packets on the %s\n",
			l->server_cpu, l->flood_cpu, l->good_cpu,
			l->steered ? "receiver's" : "sender's (no RPS)");
	if (o->server_percent)
		fprintf(to, "servers may use %u %% of their CPU (%s)\n", o->server_percent,
			l->capped_by);
	fprintf(to,
		"%u bogus connections a second, each for %u ms; windows of %g s; %u round%s in "
		"turn\n"
		"good clients: %u at a time (connects/s), %u a second (latency: "
		"min/median/p99/max)\n"
		"figures: median (min-max) over the rounds; \"each\" is of one bogus "
		"connection\n",
		o->trial.rate, o->trial.hold_ms, o->trial.seconds, o->rounds,
		o->rounds == 1 ? "" : "s", o->trial.clients, o->trial.connects);
	for (unsigned s = 0; s < SERVER_KINDS; s++) {
		if (f->absent[s][0])
			fprintf(to, "left out: %s: %s\n", server_name((enum server_kind)s),
				f->absent[s]);
	}
}

static bool devices_short(const struct flood *f)
{
	for (unsigned i = 0; i < f->n; i++) {
		if (f->trials[i].idle_closed.devices_short)
			return true;
	}
	return false;
}

void report_print(const struct flood *f, FILE *to)
{
	struct machine m;

	machine_read(&m);
	print_head(f, &m, to);
	for (unsigned k = 0; k < BOGUS_KINDS; k++) {
		if (f->options->kinds[k])
			print_kind(f, (enum bogus_kind)k, to);
	}
	if (f->price.measured)
		print_price(&f->price, to);
	print_targets(f, to);
	if (devices_short(f))
		fprintf(to,
			"\nThe devices' own limit (5 connects a second) set the idle rate: more "
			"--devices.\n");
	(void)fflush(to);
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* JSON has no NAN: null. */
static json_t *real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *figure_json(const struct figure *f)
{
	return json_pack("{s:i, s:o, s:o, s:o}", "n", (int)f->n, "min", real(f->min), "median",
			 real(f->median), "max", real(f->max));
}

static json_t *good_json(const struct trial_good *g)
{
	return json_pack("{s:I, s:I, s:f, s:b, s:{s:i, s:i, s:i, s:i}}", "done",
			 (json_int_t)g->done, "failed", (json_int_t)g->failed, "per_second",
			 g->per_second, "devices_short", g->devices_short, "latency_us", "min",
			 (int)g->latency.min, "median", (int)g->latency.median, "p99",
			 (int)g->latency.p99, "max", (int)g->latency.max);
}

static json_t *trial_json(const struct trial *t)
{
	json_t *j = json_pack("{s:s, s:s, s:I}", "kind", bogus_name(t->kind), "server",
			      server_name(t->server), "bogus", (json_int_t)t->bogus);

	for (unsigned i = 0; i < JUDGE_METRICS; i++) {
		const struct judge_metric *m = judge_metric((enum judge_metric_id)i);

		json_object_set_new(j, m->key, real(m->of(t)));
	}
	json_object_set_new(j, "idle_closed", good_json(&t->idle_closed));
	json_object_set_new(j, "idle_open", good_json(&t->idle_open));
	json_object_set_new(j, "flood_closed", good_json(&t->flood_closed));
	json_object_set_new(j, "flood_open", good_json(&t->flood_open));
	return j;
}

static json_t *price_json(const struct price *p)
{
	json_t *pairs = json_array(), *j;

	if (!p->measured) {
		json_decref(pairs);
		return json_null();
	}
	for (unsigned i = 0; i < p->n; i++)
		json_array_append_new(pairs, json_pack("{s:f, s:f, s:f, s:f, s:f}", "server_us",
						       p->server_us[i], "core_us", p->core_us[i],
						       "machine_us", p->machine_us[i],
						       "core_with_us", p->with_us[i],
						       "core_without_us", p->without_us[i]));
	j = json_pack("{s:o}", "pairs", pairs);
	if (p->counted) {
		json_object_set_new(j, "filter_runs", real(p->runs));
		json_object_set_new(j, "filter_us", real(p->run_us));
	}
	return j;
}

static json_t *targets_json(const struct flood *f)
{
	struct judge_target t[JUDGE_TARGETS_MAX];
	unsigned n = judge_targets(f, t);
	json_t *j = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(j, json_pack("{s:s, s:o, s:s, s:f, s:b}", "what", t[i].what,
						   "figure", figure_json(&t[i].figure), "must_be",
						   t[i].at_least ? "at least" : "at most", "wanted",
						   t[i].wanted, "met", t[i].met));
	return j;
}

static json_t *options_json(const struct flood *f)
{
	const struct flood_options *o = f->options;
	const struct lab *l = f->lab;

	return json_pack("{s:i, s:f, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "rate",
			 (int)o->trial.rate, "seconds", o->trial.seconds, "rounds", (int)o->rounds,
			 "hold_ms", (int)o->trial.hold_ms, "clients", (int)o->trial.clients,
			 "connects", (int)o->trial.connects, "devices", (int)o->devices,
			 "server_cpu_percent", (int)o->server_percent, "server_cpu", l->server_cpu,
			 "flood_cpu", l->flood_cpu, "good_cpu", l->good_cpu, "packets_steered",
			 l->steered);
}

static json_t *left_out_json(const struct flood *f)
{
	json_t *j = json_object();

	for (unsigned s = 0; s < SERVER_KINDS; s++) {
		if (f->absent[s][0])
			json_object_set_new(j, server_name((enum server_kind)s),
					    json_string(f->absent[s]));
	}
	return j;
}

static json_t *all_json(const struct flood *f)
{
	struct machine m;
	json_t *trials = json_array();

	machine_read(&m);
	for (unsigned i = 0; i < f->n; i++)
		json_array_append_new(trials, trial_json(&f->trials[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "command", "flood",
			 "when", m.when, "kernel", m.kernel, "cpu", m.cpu, "cpus", (int)m.cpus,
			 "options", options_json(f), "left_out", left_out_json(f), "trials", trials,
			 "price", price_json(&f->price), "targets", targets_json(f));
}

int report_write(const struct flood *f, const char *path)
{
	json_t *j = all_json(f);
	int status = results_write(j, path);

	json_decref(j);
	return status;
}
