// SPDX-License-Identifier: MIT
#include "bench/flow/spent.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES 64
#define NAME_BYTES 24

static double clock_of(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return 0; /* it ended */
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool first_line(const char *path, char *line, size_t room)
{
	FILE *f = fopen(path, "re");
	bool got = f && fgets(line, (int)room, f);

	if (f)
		(void)fclose(f);
	return got;
}

/* schedstat: nanoseconds on a CPU, waiting for one, and how often. */
static double thread_seconds(pid_t pid, pid_t tid)
{
	char path[PATH_BYTES], line[128];
	uint64_t ns;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)pid, (int)tid);
	if (!first_line(path, line, sizeof(line)) || sscanf(line, "%" SCNu64, &ns) != 1)
		return 0;
	return (double)ns / 1e9;
}

static bool is_crypto(pid_t pid, const char *tid)
{
	char path[PATH_BYTES], name[NAME_BYTES];

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)pid, tid);
	return first_line(path, name, sizeof(name)) && strstr(name, "crypto");
}

unsigned spent_crypto(pid_t pid, pid_t *tids, unsigned max)
{
	char path[PATH_BYTES];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && n < max && (e = readdir(d))) {
		if (e->d_name[0] != '.' && is_crypto(pid, e->d_name))
			tids[n++] = (pid_t)strtol(e->d_name, NULL, 10);
	}
	if (d)
		(void)closedir(d);
	return n;
}

static double crypto_seconds(pid_t pid)
{
	pid_t tids[SPENT_CRYPTO_MAX];
	unsigned n = spent_crypto(pid, tids, SPENT_CRYPTO_MAX);
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += thread_seconds(pid, tids[i]);
	return sum;
}

static int by_pid(const void *a, const void *b)
{
	const pid_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

unsigned spent_workers(pid_t hsmd, pid_t *pids, unsigned max)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	while (d && n < max && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		/* The supervisor's session is its own and its children's. */
		if (pid > 0 && pid != hsmd && getsid(pid) == hsmd)
			pids[n++] = pid;
	}
	if (d)
		(void)closedir(d);
	qsort(pids, n, sizeof(pids[0]), by_pid);
	return n;
}

static void add(struct spent *s, double seconds, const char *name)
{
	struct outcome_process *p = &s->processes[s->n];

	if (s->n == OUTCOME_PROCESSES_MAX)
		return;
	snprintf(p->name, sizeof(p->name), "%.*s", (int)sizeof(p->name) - 1, name);
	p->cpu_s = seconds;
	s->n++;
}

void spent_read(pid_t broker, const char *broker_name, pid_t hsmd, pid_t clients,
		struct spent *ret_s)
{
	pid_t workers[OUTCOME_PROCESSES_MAX];
	double crypto = crypto_seconds(broker);
	char name[NAME_BYTES];
	unsigned n;

	ret_s->n = 0;
	add(ret_s, clock_of(broker) - crypto, broker_name);
	if (hsmd) {
		add(ret_s, crypto, "broker crypto");
		n = spent_workers(hsmd, workers, OUTCOME_PROCESSES_MAX);
		for (unsigned i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "hsmd %u", i);
			add(ret_s, clock_of(workers[i]), name);
		}
	}
	if (clients)
		add(ret_s, clock_of(clients), "clients");
}

void spent_between(const struct spent *from, const struct spent *to, struct outcome *o)
{
	o->n_processes = 0;
	for (unsigned i = 0; i < to->n; i++) {
		for (unsigned k = 0; k < from->n; k++) {
			if (strcmp(to->processes[i].name, from->processes[k].name))
				continue;
			o->processes[o->n_processes] = to->processes[i];
			o->processes[o->n_processes++].cpu_s -= from->processes[k].cpu_s;
			break;
		}
	}
}
