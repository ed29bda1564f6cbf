/* SPDX-License-Identifier: MIT */
/*
 * One server, once without and once under one kind of flood. Six windows of the same length, with a
 * fresh server:
 *
 *   nothing   what the machine uses anyway
 *   idle      closed loop of good clients: connects a second; open loop: latency
 *   flood     alone: CPU and sockets per bogus connection; with the closed loop; with the open one
 */
#ifndef SSDTF_BENCH_TRIAL_H
#define SSDTF_BENCH_TRIAL_H

#include "bench/flood/bogus.h"
#include "bench/lab/device.h"
#include "bench/lab/figure.h"
#include "bench/flood/flooder.h"
#include "bench/flood/load.h"
#include "bench/flood/server.h"

#define TRIAL_SECONDS_MAX 20 /* a captured CONNECT is valid for 30 */

struct trial_options {
	unsigned rate;	   /* bogus connections a second */
	double seconds;	   /* of a window */
	unsigned hold_ms;  /* life of a bogus connection */
	unsigned clients;  /* closed loop: at a time */
	unsigned connects; /* open loop: a second */
	const char *mosquitto;
};

/* Shared with the processes that a window runs. */
struct trial_shared {
	struct flooder_state flood;
	struct load_result load;
};

/* What all trials of a run have in common. */
struct trial_bench {
	const struct lab *lab;
	const struct site *site;
	const struct trial_options *options;
	struct device *devices;
	unsigned n_devices;
	struct trial_shared *shared;
};

/* Good clients in one window. */
struct trial_good {
	uint64_t done, failed;
	double per_second;		 /* closed loop */
	double server_busy, client_busy; /* part of the window in which their CPUs were not idle */
	struct figure_latency latency;	 /* open loop, us */
	bool devices_short;		 /* it was the devices that set the pace */
};

struct trial {
	enum bogus_kind kind;
	enum server_kind server;
	/* flood, alone */
	uint64_t bogus;
	double reached;		/* a second */
	double connected, sent; /* of one bogus connection, as the flooder saw it */
	double server_us, core_us, machine_us, stolen_us; /* CPU time of one bogus connection */
	double full;					  /* sockets of one bogus connection */
	double told;	   /* of these: let through by the filter to be told why */
	double base;	   /* CPUs that were busy with nothing to do */
	unsigned syn_recv; /* left at the end */
	uint64_t overflows, cookies;
	/* good clients */
	double reached_closed, reached_open; /* the flood's rate beside them */
	struct trial_good idle_closed, idle_open, flood_closed, flood_open;
};

/* Memory that children share. */
struct trial_shared *trial_shared_new(void);

void trial_run(const struct trial_bench *b, enum server_kind server, enum bogus_kind kind,
	       struct trial *ret_t);

/* Good clients alone, against a server that is up. */
struct trial_good trial_load(const struct trial_bench *b, const struct server *v, unsigned clients,
			     double seconds);
/* Until good clients get through: a broker is ready before its key processes are. */
void trial_warm_up(const struct trial_bench *b, const struct server *v);
void trial_pause(double seconds);

#endif
