// SPDX-License-Identifier: MIT
#include "bench/lab/meter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bpf/admission.h"
#include "userspace/base/log.h"

#define LINE_BYTES   4096
#define PATH_BYTES   64
#define SYN_RECV     3 /* TCP_SYN_RECV of <linux/tcp_states.h>, which is the kernel's own */
#define STAT_COLUMNS 8

static noreturn_fn void no_reading(const char *path, const char *what)
{
	exit_with(EX_UNAVAILABLE, "%s: %s", path, what);
}

static FILE *open_proc(const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f)
		no_reading(path, strerror(errno));
	return f;
}

/* --- processes -------------------------------------------------------------------------------- */

static bool of_session(const struct meter *m, pid_t session)
{
	for (unsigned i = 0; i < m->n_sessions; i++) {
		if (m->sessions[i] == session)
			return true;
	}
	return false;
}

/* CPU time of all processes of the server's sessions; threads that ended are in it. */
static double server_seconds(const struct meter *m)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	double seconds = 0;

	if (!d)
		no_reading("/proc", strerror(errno));
	while ((e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		struct timespec t;
		clockid_t clock;

		/* One that ended meanwhile has no session, or no clock. */
		if (pid <= 0 || !of_session(m, getsid(pid)) || clock_getcpuclockid(pid, &clock) ||
		    clock_gettime(clock, &t))
			continue;
		seconds += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	}
	(void)closedir(d);
	return seconds;
}

/* --- CPUs ------------------------------------------------------------------------------------- */

/*
 * proc_stat(5): cpuN user nice system idle iowait irq softirq steal ... Busy is what is left of the
 * time that passed, since idle time is counted exactly and the other columns are samples.
 */
static void read_cpus(const struct meter *m, struct meter_reading *r)
{
	FILE *f = open_proc("/proc/stat");
	double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
	char line[LINE_BYTES];

	while (fgets(line, sizeof(line), f)) {
		uint64_t c[STAT_COLUMNS];
		double busy;
		int cpu;

		/* The line of all CPUs together, "cpu  ", would pass for one of them. */
		if (strncmp(line, "cpu", 3) || !isdigit((unsigned char)line[3]) ||
		    sscanf(line,
			   "cpu%d %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
			   " %" SCNu64 " %" SCNu64 " %" SCNu64,
			   &cpu, &c[0], &c[1], &c[2], &c[3], &c[4], &c[5], &c[6], &c[7]) != 9)
			continue;
		busy = r->seconds - (double)(c[3] + c[4] + c[7]) * tick;
		r->machine_s += busy;
		r->stolen_s += (double)c[7] * tick;
		if (cpu == m->server_cpu)
			r->core_s = busy;
		if (cpu == m->client_cpu)
			r->client_core_s = busy;
	}
	(void)fclose(f);
}

/* --- network ---------------------------------------------------------------------------------- */

/* A counter of /proc/net/snmp or netstat: a line of names and a line of numbers, "Tcp: a b c". */
static uint64_t counter(const char *path, const char *group, const char *name)
{
	FILE *f = open_proc(path);
	char names[LINE_BYTES], numbers[LINE_BYTES], *n, *v, *n_rest, *v_rest;
	uint64_t value = 0;

	while (fgets(names, sizeof(names), f) && fgets(numbers, sizeof(numbers), f)) {
		n = strtok_r(names, " \n", &n_rest);
		v = strtok_r(numbers, " \n", &v_rest);
		if (!n || strcmp(n, group))
			continue;
		while (n && v && strcmp(n, name)) {
			n = strtok_r(NULL, " \n", &n_rest);
			v = strtok_r(NULL, " \n", &v_rest);
		}
		if (n && v)
			value = strtoull(v, NULL, 10);
	}
	(void)fclose(f);
	return value;
}

unsigned meter_syn_recv(const struct meter *m)
{
	FILE *f = open_proc("/proc/net/tcp");
	char line[LINE_BYTES];
	unsigned n = 0;

	/* "  sl: address:PORT address:port STATE ...", in hex. */
	while (fgets(line, sizeof(line), f)) {
		unsigned port, state;

		if (sscanf(line, " %*u: %*x:%x %*x:%*x %x", &port, &state) == 2 &&
		    port == m->port && state == SYN_RECV)
			n++;
	}
	(void)fclose(f);
	return n;
}

void meter_read(const struct meter *m, struct meter_reading *ret_r)
{
	struct meter_reading r = { 0 };
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	r.seconds = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	r.server_s = server_seconds(m);
	read_cpus(m, &r);
	r.passive_opens = counter("/proc/net/snmp", "Tcp:", "PassiveOpens");
	r.overflows = counter("/proc/net/netstat", "TcpExt:", "ListenOverflows");
	r.cookies = counter("/proc/net/netstat", "TcpExt:", "SyncookiesSent");
	*ret_r = r;
}

struct meter_reading meter_between(const struct meter_reading *from, const struct meter_reading *to)
{
	return (struct meter_reading){
		.seconds = to->seconds - from->seconds,
		.server_s = to->server_s - from->server_s,
		.core_s = to->core_s - from->core_s,
		.machine_s = to->machine_s - from->machine_s,
		.client_core_s = to->client_core_s - from->client_core_s,
		.stolen_s = to->stolen_s - from->stolen_s,
		.passive_opens = to->passive_opens - from->passive_opens,
		.overflows = to->overflows - from->overflows,
		.cookies = to->cookies - from->cookies,
	};
}

/* --- BPF -------------------------------------------------------------------------------------- */

int meter_bpf_start(int *ret_fd)
{
	int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int meter_bpf_read(const char *pinned, struct meter_bpf *ret_b)
{
	LIBBPF_OPTS(bpf_obj_get_opts, read_only, .file_flags = BPF_F_RDONLY);
	struct bpf_prog_info info = { 0 };
	uint32_t n = sizeof(info);
	int ret, fd = bpf_obj_get_opts(pinned, &read_only);

	if (fd < 0)
		return -errno;
	ret = bpf_obj_get_info_by_fd(fd, &info, &n) ? -errno : 0;
	(void)close(fd);
	if (!ret)
		*ret_b = (struct meter_bpf){ info.run_cnt, info.run_time_ns };
	return ret;
}

int meter_told_read(const char *pinned_counters, uint64_t *ret_n)
{
	LIBBPF_OPTS(bpf_obj_get_opts, read_only, .file_flags = BPF_F_RDONLY);
	int cpus = libbpf_num_possible_cpus(), fd, ret;
	uint32_t key = ADMISSION_TOLD;
	uint64_t *each, sum = 0;

	if (cpus < 0)
		return cpus;
	fd = bpf_obj_get_opts(pinned_counters, &read_only);
	if (fd < 0)
		return -errno;
	each = calloc((size_t)cpus, sizeof(*each));
	ret = each ? bpf_map_lookup_elem(fd, &key, each) : -ENOMEM;
	for (int i = 0; !ret && i < cpus; i++)
		sum += each[i];
	free(each);
	(void)close(fd);
	if (!ret)
		*ret_n = sum;
	return ret;
}
