// SPDX-License-Identifier: MIT
/*
 * Each process seals the same part of every sender's messages; the parts are moved together at the
 * end:
 *
 *   sender 0  | part of process 0 ...    | part of process 1 ...    | each with room for the
 * longest sender 1  | part of process 0 ...    | part of process 1 ...    | packets that there can
 * be
 */
#include "bench/flow/material.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>

#include "bench/flow/clients.h"
#include "bench/flow/topics.h"
#include "bench/lab/child.h"
#include "bench/lab/device.h"
#include "userspace/base/log.h"
#include "userspace/mqtt/packet.h"

#define PROCESSES_MAX 16
#define MESSAGES_MAX  400000
#define BYTES_MAX     (256ull << 20)
#define HEAD_BYTES    (MQTT_FIXED_HEADER_MAX + 4 + TOPICS_BYTES)
#define FILLING	      0x5a
/* A second, of a core: what a broker verifies and delivers at the very best. */
#define VERIFIES_MAX   20000.0
#define INGRESS_MAX    400000.0
#define DELIVERIES_MAX 500000.0
#define CONVERTS_MAX   15000.0
#define SPREAD	       1.25 /* one sender gets further than another */

struct material {
	const struct site *site;
	const struct scenario *s;
	unsigned senders, parts;
	uint64_t each, part; /* messages of a sender; of a part, the last may be shorter */
	size_t packet_max;
	size_t mapped_n;
	uint8_t *mapped;
	uint64_t *ends; /* of each sender's packets, from the beginning of its part */
	uint8_t *bytes;
};

/* One process. */
struct job {
	struct material *m;
	unsigned part;
	struct ssdtf_outgoing *list;
	char (*topics)[TOPICS_BYTES];
	uint8_t *plain;
	uint8_t (*nodes)[HASH_BYTES];
};

/* --- how many --------------------------------------------------------------------------------- */

static double least(double a, double b)
{
	return a < b ? a : b;
}

static double rate_max(const struct scenario *s)
{
	double copies = clients_copies(s);
	double cores = s->kind == SCENARIO_INGRESS && s->workers ? s->workers : 1;
	double rate = least(VERIFIES_MAX * cores * s->batch, INGRESS_MAX);

	if (!s->window)
		return s->rate;
	rate = least(rate, DELIVERIES_MAX / copies);
	if (s->context == 1 && s->kind != SCENARIO_INGRESS)
		rate = least(rate, CONVERTS_MAX * s->hsmd / copies);
	return rate;
}

static void plan(struct material *m, double seconds, unsigned n_cpus)
{
	const struct scenario *s = m->s;
	double each = rate_max(s) * seconds * SPREAD / m->senders + s->window;
	uint64_t most = MESSAGES_MAX / m->senders;

	m->packet_max = HEAD_BYTES + SSDTF_SEALED_BATCH_BYTES(s->payload, s->batch) +
			PUBLISH_TRAILER_1_BYTES;
	if (most > BYTES_MAX / m->senders / m->packet_max)
		most = BYTES_MAX / m->senders / m->packet_max;
	m->each = each < (double)most ? (uint64_t)each : most;
	if (s->kind == SCENARIO_RETAINED)
		m->each = s->topics;
	if (!m->each)
		m->each = 1;
	m->parts = n_cpus < PROCESSES_MAX ? n_cpus : PROCESSES_MAX;
	m->part = (m->each + m->parts - 1) / m->parts;
	m->part = (m->part + s->batch - 1) / s->batch * s->batch;
}

static size_t whole_pages(size_t n)
{
	return (n + 65535) & ~(size_t)65535; /* of any size that a page has */
}

static void map(struct material *m)
{
	size_t ends_n = whole_pages(m->senders * m->each * sizeof(*m->ends));

	m->mapped_n = ends_n + m->senders * m->each * m->packet_max;
	m->mapped = mmap(NULL, m->mapped_n, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->mapped == MAP_FAILED)
		exit_with(EX_OSERR, "no memory for what is sealed ahead: %s", strerror(errno));
	m->ends = (uint64_t *)(void *)m->mapped;
	m->bytes = m->mapped + ends_n;
}

static uint64_t *ends_of(const struct material *m, unsigned sender)
{
	return m->ends + sender * m->each;
}

static uint8_t *bytes_from(const struct material *m, unsigned sender, uint64_t number)
{
	return m->bytes + (sender * m->each + number) * m->packet_max;
}

/* --- a process that seals --------------------------------------------------------------------- */

static void job_init(struct job *j)
{
	const struct scenario *s = j->m->s;

	j->list = calloc(s->batch, sizeof(*j->list));
	j->topics = calloc(s->batch, sizeof(*j->topics));
	j->plain = malloc(s->payload);
	j->nodes = calloc(SSDTF_BATCH_NODES(s->batch), sizeof(*j->nodes));
	if (!j->list || !j->topics || !j->plain || !j->nodes)
		exit_with(EX_OSERR, "no memory to seal with");
	memset(j->plain, FILLING, s->payload);
	for (unsigned i = 0; i < s->batch; i++) {
		j->list[i].room =
			SSDTF_SEALED_BATCH_BYTES(s->payload, s->batch) + PUBLISH_TRAILER_1_BYTES;
		j->list[i].out = malloc(j->list[i].room);
		if (!j->list[i].out)
			exit_with(EX_OSERR, "no memory to seal with");
	}
}

/* The retained ones have a topic each; all others of a sender the sender's. */
static void compose(struct job *j, unsigned i, unsigned sender, uint64_t number)
{
	const struct scenario *s = j->m->s;
	struct ssdtf_outgoing *o = &j->list[i];
	bool retained = s->kind == SCENARIO_RETAINED;

	o->topic = topics_write(retained ? (unsigned)number : sender, j->topics[i]);
	o->plain = bytes_of(j->plain, s->payload);
	o->qos = (uint8_t)topics_publish_qos(s);
	o->retain = retained;
}

static int seal(struct job *j, struct device *d, unsigned n)
{
	struct ssdtf_outgoing *o = j->list;

	if (j->m->s->batch > 1)
		return ssdtf_seal_batch(&d->client, o, n, device_time(), j->nodes,
					SSDTF_BATCH_NODES(j->m->s->batch));
	return ssdtf_seal(&d->client, o->topic, o->plain, o->qos, o->retain, device_time(), o->out,
			  o->room, &o->sealed);
}

/* The packet as it goes out; its length. */
static size_t pack(const struct job *j, unsigned i, uint64_t number, uint8_t *to)
{
	const struct ssdtf_outgoing *o = &j->list[i];
	const struct mqtt_publish p = { .retain = o->retain,
					.qos = o->qos,
					.packet_id = o->qos ? tape_packet_id(number) : 0,
					.topic = o->topic,
					.payload = o->sealed.payload };
	struct bytes_writer w = bytes_writer_of(to, j->m->packet_max);

	mqtt_encode_publish(&p, &w);
	BUG_ON(w.bad);
	return w.used;
}

static void seal_part(struct job *j, unsigned sender)
{
	struct material *m = j->m;
	uint64_t first = j->part * m->part, at = 0;
	uint64_t end = first + m->part < m->each ? first + m->part : m->each;
	struct device *d;

	if (first >= end)
		return;
	d = sealer_load(m->site, sender, m->s->context, first);
	for (uint64_t number = first; number < end;) {
		uint64_t left = end - number;
		unsigned n = left < m->s->batch ? (unsigned)left : m->s->batch;
		int ret;

		for (unsigned i = 0; i < n; i++)
			compose(j, i, sender, number + i);
		ret = seal(j, d, n);
		if (ret)
			exit_with(EX_SOFTWARE, "a message cannot be sealed: %s", strerror(-ret));
		for (unsigned i = 0; i < n; i++, number++) {
			BUG_ON(j->list[i].sealed.counter != number + 1);
			at += pack(j, i, number, bytes_from(m, sender, first) + at);
			ends_of(m, sender)[number] = at;
		}
	}
	devices_free(d, 1);
}

static int job_run(void *ctx)
{
	struct job *j = ctx;

	job_init(j);
	for (unsigned i = 0; i < j->m->senders; i++)
		seal_part(j, i);
	return 0;
}

/* --- all of them ------------------------------------------------------------------------------ */

static void run_jobs(struct material *m, const int *cpus)
{
	struct child children[PROCESSES_MAX];
	struct job jobs[PROCESSES_MAX];
	int code = 0;

	for (unsigned i = 0; i < m->parts; i++) {
		const struct child_place at = { .net = -1, .cpu = cpus[i] };
		int ret;

		jobs[i] = (struct job){ .m = m, .part = i };
		ret = child_fork(&at, "sealing", job_run, &jobs[i], &children[i]);
		if (ret)
			exit_with(EX_OSERR, "a process that seals: %s", strerror(-ret));
	}
	for (unsigned i = 0; i < m->parts; i++)
		code |= child_wait(&children[i]);
	if (code)
		exit_with(EX_SOFTWARE, "what is sent cannot be sealed");
}

/* One behind the other, without gaps. */
static void join(struct material *m, unsigned sender)
{
	uint64_t *ends = ends_of(m, sender), at = 0;
	uint8_t *to = bytes_from(m, sender, 0);

	for (uint64_t first = 0; first < m->each; first += m->part) {
		uint64_t end = first + m->part < m->each ? first + m->part : m->each;
		uint64_t n = ends[end - 1];

		memmove(to + at, bytes_from(m, sender, first), n);
		for (uint64_t i = first; i < end; i++)
			ends[i] += at;
		at += n;
	}
}

struct material *material_new(const struct site *site, const struct scenario *s, double seconds,
			      const int *cpus, unsigned n_cpus)
{
	struct material *m = calloc(1, sizeof(*m));

	if (!m)
		exit_with(EX_OSERR, "no memory");
	m->site = site;
	m->s = s;
	m->senders = clients_senders(s);
	plan(m, seconds, n_cpus);
	map(m);
	run_jobs(m, cpus);
	for (unsigned i = 0; i < m->senders; i++)
		join(m, i);
	return m;
}

void material_free(struct material *m)
{
	if (!m)
		return;
	(void)munmap(m->mapped, m->mapped_n);
	free(m);
}

void material_tape(const struct material *m, unsigned sender, struct tape *ret_t)
{
	tape_all(ret_t, bytes_from(m, sender, 0), ends_of(m, sender), m->each);
}
