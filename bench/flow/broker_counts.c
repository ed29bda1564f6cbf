// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "bench/flow/broker.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define STATS	   "ssdtf-broker: stats "
#define LINE_BYTES 4096
#define WAIT_MS	   5000
#define POLL_US	   500

/* The answer to the n-th question, from 1; false: it is not there yet. */
static bool answer(const char *log, unsigned n, char *line)
{
	FILE *f = fopen(log, "re");
	bool whole = false;

	if (!f)
		return false;
	while (n && fgets(line, LINE_BYTES, f)) {
		whole = strchr(line, '\n');
		n -= whole && strstr(line, STATS);
	}
	(void)fclose(f);
	return !n && whole;
}

/* " name=value" */
static uint64_t value(const char *line, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = line; (at = strstr(at, name)); at += n) {
		if (at > line && at[-1] == ' ' && at[n] == '=')
			return strtoull(at + n + 1, NULL, 10);
	}
	return 0;
}

static uint64_t mallocs(const struct broker_process *b)
{
	char path[SITE_PATH_BYTES];
	uint8_t bytes[sizeof(uint64_t)];
	uint64_t n;
	size_t got;

	site_path(b->site, "gateway/mallocs", path);
	if (file_read_into(AT_FDCWD, path, bytes, sizeof(bytes), &got) || got != sizeof(n))
		exit_with(EX_UNAVAILABLE, "%s: cannot be read", path);
	memcpy(&n, bytes, sizeof(n)); /* written by a process of this machine */
	return n;
}

void broker_ask(struct broker_process *b)
{
	if (b->server == SCENARIO_MOSQUITTO)
		return;
	if (b->counts_mallocs)
		b->mallocs = mallocs(b);
	b->asked++;
	if (kill(b->child.pid, SIGUSR1))
		exit_with(EX_UNAVAILABLE, "ssdtf-broker is gone");
}

void broker_answer(struct broker_process *b, struct broker_counts *ret_c)
{
	const struct timespec poll = { 0, POLL_US * 1000L };
	char line[LINE_BYTES];
	bool there = false;

	*ret_c = (struct broker_counts){ 0 };
	if (b->server == SCENARIO_MOSQUITTO)
		return;
	for (unsigned us = 0; !there && us < WAIT_MS * 1000; us += POLL_US) {
		(void)nanosleep(&poll, NULL);
		there = answer(b->log, b->asked, line);
	}
	if (!there)
		exit_with(EX_UNAVAILABLE, "ssdtf-broker does not say its counters");
	ret_c->delivered = value(line, "delivered");
	ret_c->conversions = value(line, "conversions");
	ret_c->capsule_hits = value(line, "capsule_hits");
	ret_c->signatures = value(line, "signatures");
	ret_c->signed_deliveries = value(line, "signed_deliveries");
	ret_c->commits = value(line, "commits");
	ret_c->token_packets = value(line, "hsm_packets");
	ret_c->mallocs = b->mallocs;
	ret_c->dropped = value(line, "dropped_qos0") + value(line, "dropped_full");
}

uint64_t broker_rss_kib(const struct broker_process *b)
{
	return child_rss_kib(&b->child);
}
