// SPDX-License-Identifier: MIT
#include "userspace/core/admit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/log.h"
#include "userspace/broker/gate.h"
#include "userspace/core/answer.h"
#include "userspace/core/filter.h"
#include "userspace/core/listener.h"

#define TICK_MS		   1000
#define BANS_WALK_MS	   30000 /* when those that are over leave the map */
#define QUEUE_PERCENT_FULL 50

struct admit_counts {
	uint64_t filter[ADMISSION_COUNTERS], broker[ADMISSION_COUNTERS];
};

struct admit {
	enum config_admission mode;
	uint32_t grace_ms, pressure_max, calm_ms;
	struct filter filter;
	bool kernel;   /* it is open and attached */
	bool complete; /* every device is in its map */
	char why[FILTER_WHY_BYTES];
	struct admission_config config; /* as the filter has it */
	unsigned devices;
	uint64_t next_tick_ms, next_walk_ms, grace_end_ms, pressure_until_ms;
	uint64_t pressure;	  /* rejects in the last second */
	struct admit_counts last; /* a second ago */
	bool looked;		  /* that is set */
	bool report_failed;
};

/* --- start ------------------------------------------------------------------------------------ */

struct admit *admit_new(const struct config *config)
{
	struct admit *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->mode = config->plain ? CONFIG_ADMISSION_OFF : config->admission;
	if (a->mode == CONFIG_ADMISSION_OFF)
		return a;
	a->grace_ms = config->core.admission_grace_ms;
	a->pressure_max = config->core.admission_pressure_per_second;
	a->calm_ms = config->core.admission_calm_ms;
	gate_config(&config->limits, &a->config);
	a->kernel = !filter_open(config->admission_pins, &a->filter, a->why);
	return a;
}

static void without_kernel(struct admit *a, const char *what, int err)
{
	snprintf(a->why, sizeof(a->why), "%s: %s%s", what, strerror(-err),
		 err == -ENOMEM ? "; net.core.optmem_max may be too small" : "");
	filter_close(&a->filter);
	a->kernel = false;
}

void admit_free(struct admit *a)
{
	if (!a)
		return;
	if (a->kernel)
		filter_close(&a->filter);
	free(a);
}

void admit_attach(struct admit *a, const struct listener_set *listeners)
{
	int err;

	if (!a->kernel)
		return;
	/* It counts only, whatever the run before left there. */
	err = filter_configure(&a->filter, &a->config);
	if (err)
		return without_kernel(a, "its configuration cannot be written", err);
	for (unsigned i = 0; i < listeners->n && !err; i++)
		err = filter_attach(&a->filter, listeners->all[i].fd);
	if (!err)
		return;
	for (unsigned i = 0; i < listeners->n; i++)
		filter_detach(listeners->all[i].fd);
	without_kernel(a, "the filter cannot be attached", err);
}

void admit_say(const struct admit *a)
{
	if (a->kernel)
		log_info("event=admission kernel=on");
	else if (a->mode != CONFIG_ADMISSION_OFF)
		log_warn("event=admission kernel=off what=\"%s; the broker checks by itself\"",
			 a->why);
}

/* --- devices and bans ------------------------------------------------------------------------- */

void admit_sync(struct admit *a, const struct broker *broker)
{
	int err;

	if (!a->kernel)
		return;
	err = filter_sync(&a->filter, broker, &a->devices);
	a->complete = !err;
	a->why[0] = '\0';
	if (!err)
		return;
	/* Whom the map lacks, the filter would drop. */
	snprintf(a->why, sizeof(a->why),
		 "the filter's devices are not right, so it drops nobody: %s%s", strerror(-err),
		 err == -E2BIG ? "; ssdtf-admit pin --devices-max" : "");
	log_error("event=admission what=\"%s\"", a->why);
	a->next_tick_ms = 0; /* the filter learns of it at once */
}

void admit_ban(struct admit *a, const struct admission_source *source, uint64_t left_ms)
{
	int err = a->kernel ? filter_ban(&a->filter, source, left_ms) : 0;
	static struct log_limit limit;
	uint64_t left_out;

	if (err && log_limit_pass(&limit, a->next_tick_ms, &left_out))
		log_warn("event=admission what=\"a ban is the broker's alone: %s\"",
			 strerror(-err));
}

static void restore_ban(void *ctx, const struct admission_source *source, uint64_t left_ms)
{
	if (broker_ban(ctx, source, left_ms))
		log_warn("event=admission what=\"no room for an earlier ban\"");
}

void admit_restore_bans(struct admit *a, struct broker *b)
{
	if (a->kernel && a->mode != CONFIG_ADMISSION_MONITOR)
		filter_each_ban(&a->filter, restore_ban, b);
}

/* --- pressure --------------------------------------------------------------------------------- */

static uint32_t flags_of(const struct admit *a, uint64_t mono_ms)
{
	uint32_t flags = ADMISSION_ENFORCE_BANS;

	if (a->mode == CONFIG_ADMISSION_MONITOR)
		return 0;
	if (!a->complete || mono_ms < a->grace_end_ms)
		return flags;
	if (a->mode == CONFIG_ADMISSION_ENFORCE || mono_ms < a->pressure_until_ms)
		flags |= ADMISSION_ENFORCE;
	return flags;
}

/* CONNECTs and other first segments that were turned away. */
static uint64_t turned_away(const uint64_t now[ADMISSION_COUNTERS],
			    const uint64_t last[ADMISSION_COUNTERS])
{
	uint64_t n = 0;

	for (unsigned i = ADMISSION_REPLAYED; i < ADMISSION_VERDICTS; i++)
		n += now[i] - last[i];
	return n;
}

/*
 * What there was in a second that nobody wants. While the filter enforces it has seen all of it.
 * Else a bare ACK makes the socket, so that the CONNECT behind it is the broker's to judge; and
 * bare ACKs without a CONNECT are of such as say nothing, or no MQTT.
 */
static uint64_t pressure_of(const struct admit_counts *now, const struct admit_counts *last)
{
	uint64_t bare = now->filter[ADMISSION_BARE] - last->filter[ADMISSION_BARE];
	uint64_t ok = now->broker[ADMISSION_OK] - last->broker[ADMISSION_OK];
	uint64_t bad = turned_away(now->broker, last->broker);
	uint64_t silent = bare > ok + bad ? bare - ok - bad : 0;

	return turned_away(now->filter, last->filter) + bad + silent;
}

static void look(struct admit *a, const struct broker *b, const struct listener_set *listeners,
		 uint64_t mono_ms)
{
	struct admit_counts now;

	memcpy(now.broker, broker_admission_counters(b), sizeof(now.broker));
	if (filter_counters(&a->filter, now.filter))
		return;
	a->pressure = a->looked ? pressure_of(&now, &a->last) : 0;
	a->last = now;
	a->looked = true;
	if (a->pressure >= a->pressure_max ||
	    listener_queue_percent(listeners) >= QUEUE_PERCENT_FULL)
		a->pressure_until_ms = mono_ms + a->calm_ms;
}

/* The filter's second: what came, what follows from it. */
static void tick_kernel(struct admit *a, struct broker *b, const struct listener_set *listeners,
			uint64_t mono_ms)
{
	uint32_t flags, before = a->config.flags;
	int err;

	look(a, b, listeners, mono_ms);
	if (mono_ms >= a->next_walk_ms) {
		a->next_walk_ms = mono_ms + BANS_WALK_MS;
		filter_each_ban(&a->filter, NULL, NULL);
		if (!a->complete)
			admit_sync(a, b);
	}
	flags = a->config.flags = flags_of(a, mono_ms);
	err = filter_configure(&a->filter, &a->config);
	if (err) {
		log_error("event=admission what=\"config: %s\"", strerror(-err));
		return;
	}
	if ((flags ^ before) & ADMISSION_ENFORCE)
		log_info("event=admission enforcing=%s rejects_per_second=%llu",
			 flags & ADMISSION_ENFORCE ? "yes" : "no", (unsigned long long)a->pressure);
}

static void report(struct admit *a, struct broker *b, const char *name, uint64_t value)
{
	char topic[64];

	snprintf(topic, sizeof(topic), "admission/%s", name);
	if (broker_sys_set(b, topic, value) && !a->report_failed) {
		a->report_failed = true;
		log_error("event=admission what=\"no room for $SYS/broker/%s\"", topic);
	}
}

/* $SYS/broker/admission/... */
static void report_all(struct admit *a, struct broker *b)
{
	struct admit_status s;
	char name[48];

	admit_status(a, b, &s);
	report(a, b, "kernel", s.kernel);
	report(a, b, "enforcing", s.enforcing);
	report(a, b, "devices", s.devices);
	report(a, b, "bans", s.bans);
	report(a, b, "rejects_per_second", s.pressure_per_second);
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++) {
		snprintf(name, sizeof(name), "filter/%s", answer_verdict_name(i));
		report(a, b, name, s.filter[i]);
		snprintf(name, sizeof(name), "broker/%s", answer_verdict_name(i));
		report(a, b, name, s.broker[i]);
	}
}

void admit_tick(struct admit *a, struct broker *b, const struct listener_set *listeners,
		uint64_t mono_ms)
{
	if (a->mode == CONFIG_ADMISSION_OFF || mono_ms < a->next_tick_ms)
		return;
	if (!a->grace_end_ms)
		a->grace_end_ms = mono_ms + a->grace_ms;
	a->next_tick_ms = mono_ms + TICK_MS;
	if (a->grace_end_ms > mono_ms && a->grace_end_ms < a->next_tick_ms)
		a->next_tick_ms = a->grace_end_ms;
	if (a->kernel)
		tick_kernel(a, b, listeners, mono_ms);
	report_all(a, b);
}

uint64_t admit_wait_ms(const struct admit *a, uint64_t mono_ms)
{
	if (a->mode == CONFIG_ADMISSION_OFF)
		return UINT64_MAX;
	return a->next_tick_ms > mono_ms ? a->next_tick_ms - mono_ms : 0;
}

/* --- for people ------------------------------------------------------------------------------- */

static void count_ban(void *ctx, const struct admission_source *source, uint64_t left_ms)
{
	(*(unsigned *)ctx)++;
}

void admit_status(const struct admit *a, const struct broker *b, struct admit_status *ret_s)
{
	const uint64_t *gate = broker_admission_counters(b);

	*ret_s = (struct admit_status){
		.mode = a->mode,
		.kernel = a->kernel,
		.enforcing = a->kernel && (a->config.flags & ADMISSION_ENFORCE),
		.why = a->why,
		.devices = a->kernel ? a->devices : 0,
		.pressure_per_second = a->pressure,
	};
	broker_each_ban(b, count_ban, &ret_s->bans);
	memcpy(ret_s->broker, gate, sizeof(ret_s->broker));
	if (a->kernel && filter_counters(&a->filter, ret_s->filter))
		memset(ret_s->filter, 0, sizeof(ret_s->filter)); /* they are not known now */
}

void admit_each_rejected(const struct admit *a, const struct broker *b,
			 void (*each)(void *ctx, const struct admission_source *source,
				      uint64_t rejected, enum admission_verdict last),
			 void *ctx)
{
	if (a->kernel)
		filter_each_rejected(&a->filter, each, ctx);
	else
		broker_each_rejected(b, each, ctx);
}
