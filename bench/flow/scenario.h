/* SPDX-License-Identifier: MIT */
/*
 * What is measured: messages through one broker, from some senders to some receivers.
 *
 *   connect    clients that connect, are accepted (sealed: authenticated) and go
 *   pairs      sender i to receiver i, each pair on a topic of its own
 *   fan-in     all senders to one receiver
 *   fan-out    one sender to all receivers
 *   retained   receivers that subscribe, and are sent what is retained on each topic
 *   ingress    senders of what nobody subscribes to, at QoS 1 at least: an acknowledgement counts
 *              for a delivery
 *
 * Plain or sealed, mosquitto plain only. Either a window (closed loop: so many messages of a sender
 * under way, the next as soon as one has reached all its receivers) or a rate (open loop: message i
 * is due at i/rate, whatever became of those before, and its latency counts from when it was due,
 * so that a broker that stands still is seen in full).
 */
#ifndef SSDTF_BENCH_SCENARIO_H
#define SSDTF_BENCH_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/lab/figure.h"
#include "userspace/base/compiler.h"

enum scenario_kind {
	SCENARIO_CONNECT,
	SCENARIO_PAIRS,
	SCENARIO_FAN_IN,
	SCENARIO_FAN_OUT,
	SCENARIO_RETAINED,
	SCENARIO_INGRESS,
	SCENARIO_KINDS,
};

enum scenario_server {
	SCENARIO_PLAIN,	    /* ssdtf-broker --plain */
	SCENARIO_SEALED,    /* ssdtf-broker with a bundle, and ssdtf-hsmd */
	SCENARIO_MOSQUITTO, /* another broker */
	SCENARIO_SERVERS,
};

struct scenario {
	enum scenario_kind kind;
	enum scenario_server server;
	unsigned clients;   /* pairs; senders of fan-in and ingress; receivers of fan-out and
			       retained; clients at a time of connect */
	unsigned topics;    /* retained: how many messages there are */
	unsigned qos;	    /* 0, 1, 2: of PUBLISH and of the subscriptions */
	unsigned payload;   /* bytes of plaintext */
	unsigned window;    /* closed loop: messages of each sender under way; 0: open loop */
	double rate;	    /* open loop: messages a second, of all senders together */
	double seconds;	    /* of the measured window; as long, at most one, of warm-up before it */
	unsigned context;   /* sealed: messages of an HPKE context; 1: E is fresh each time */
	unsigned batch;	    /* sealed: PUBLISHes under one signature of the sender; 1: trailer 1 */
	unsigned hsmd;	    /* sealed: worker processes of ssdtf-hsmd */
	unsigned workers;   /* sealed: verifying threads of the broker; 0: its own default */
	unsigned idle;	    /* connections besides that say nothing */
	unsigned others;    /* subscriptions besides, 2000 a client, that match nothing */
	bool count_mallocs; /* ssdtf-broker; it costs some speed */
};

/* Latencies of an open loop, in microseconds from when the message was due to when its receiver had
 * all of it; a histogram of at most 1 % error (values below 256 exact). What had not come 5 s after
 * the window counts with the time until then. */
struct outcome_latency {
	uint64_t n, min, p50, p90, p99, p999, max;
};

/* Processor time of one of the broker's processes in the window. */
#define OUTCOME_PROCESSES_MAX 20
struct outcome_process {
	char name[24]; /* "broker", "broker crypto", "hsmd 0", "mosquitto", "clients" */
	double cpu_s;
};

struct outcome {
	double seconds;		  /* measured */
	uint64_t sent, delivered; /* messages that left senders (connects begun, subscriptions
				     for what is retained); copies that reached receivers
				     (connects done) */
	uint64_t lost, duplicated, disordered, wrong; /* of the whole run, after the window was
							 drained; wrong: another topic, size, or
							 would not open */
	uint64_t opened; /* sealed: of a sample, opened by libssdtf as a receiver does */
	double server_s; /* CPU of all the broker's processes (not the clients') */
	double core_s;	 /* all that its core did, softirq included (meter.h) */
	double stolen_s;
	unsigned n_processes;
	struct outcome_process processes[OUTCOME_PROCESSES_MAX];
	struct outcome_latency latency;
	/* of ssdtf-broker, from its own counters, in the window */
	uint64_t conversions, capsule_hits, signatures, signed_deliveries, commits, token_packets;
	uint64_t mallocs; /* calls of malloc, calloc, realloc in the broker's process */
	bool mallocs_known;
	/* memory of the broker's main process, KiB: before any client came, once the idle ones were
	 * there (and no other), and at the window's end */
	uint64_t rss_before_kib, rss_idle_kib, rss_kib;
	bool behind; /* open loop: the clients themselves were late; the figures are of them */
};

/* One value of each round; NAN where it has none. All per delivery, or per connect. */
enum outcome_metric {
	OUTCOME_PER_SECOND, /* deliveries (connects) a second */
	OUTCOME_SERVER_US,  /* CPU of the broker's processes */
	OUTCOME_BROKER_US,  /* CPU of the broker's own process, crypto threads included */
	OUTCOME_CORE_US,
	OUTCOME_TOKEN_OPS, /* conversions and signatures of the token */
	OUTCOME_P50_US,
	OUTCOME_P99_US,
	OUTCOME_MALLOCS, /* of a million */
	OUTCOME_METRICS,
};

double outcome_value(const struct scenario *s, const struct outcome *o, enum outcome_metric m);
const char *scenario_kind_name(enum scenario_kind k);
const char *scenario_server_name(enum scenario_server s);
/* "fan-out 1->100, sealed, QoS 1, 64 B, 100 in flight, context 1000": for tables. */
void scenario_words(const struct scenario *s, char *text, size_t room);
void scenario_default(struct scenario *s);

/*
 * Where scenarios run: a lab with a gateway and enough parties, made once. One server at a time.
 * Everything that cannot be made ends the program with one line.
 */
struct stage;
/* The most that any scenario to come will want of sealed parties. programs, mosquitto: NULL for
 * the folder of this program, /usr/sbin/mosquitto. */
struct stage_options {
	unsigned senders, receivers; /* see scenario_parties() */
	const char *programs, *mosquitto;
	bool quiet; /* no progress lines */
};
/* How many this scenario wants; 0 unless it is sealed. */
void scenario_parties(const struct scenario *sc, unsigned *senders, unsigned *receivers);
/* -ENOTSUP: something is missing, and *ret_why names it and what to do. */
struct lab;
int stage_open(struct lab *lab, const struct stage_options *o, struct stage **ret_s, char *ret_why,
	       size_t room) must_check;
void stage_close(struct stage *s);
/* Whether this kind of server can be started. */
bool stage_has(const struct stage *s, enum scenario_server server);
/*
 * CPUs for one part of ssdtf-broker alone, in the runs from then on: the first n, at most, of those
 * that are not the broker's; where there is but one CPU, that. Clients are on the last one that is
 * left, or where none is, beside the broker. Returns how many it has.
 */
enum stage_part {
	STAGE_NONE,	 /* as it is from the beginning */
	STAGE_KEYS,	 /* ssdtf-hsmd's worker processes, spread over them */
	STAGE_VERIFIERS, /* the broker's verifying threads, all of them free to use each */
};
unsigned stage_give(struct stage *s, enum stage_part part, unsigned n);
/* Starts the server afresh, runs the clients, measures, stops it. */
void scenario_run(struct stage *s, const struct scenario *sc, struct outcome *ret_o);

#endif
