/* SPDX-License-Identifier: MIT */
/*
 * The servers that are measured, one at a time on the server's CPU: three ways to run ssdtf-broker,
 * and mosquitto. Each start is a fresh process with fresh state.
 */
#ifndef SSDTF_BENCH_SERVER_H
#define SSDTF_BENCH_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/lab/child.h"
#include "bench/lab/meter.h"
#include "bench/lab/site.h"

#define SERVER_PORT	  1883
#define SERVER_OTHER_PORT 1884 /* of a second one beside it */

enum server_kind {
	SERVER_FILTER,	  /* ssdtf-broker, admission enforced by the kernel's filter */
	SERVER_CHECKS,	  /* ... by the broker itself: the filter is not there */
	SERVER_OFF,	  /* ... not at all */
	SERVER_MOSQUITTO, /* another broker, without SSDTF */
	SERVER_KINDS,
};

const char *server_name(enum server_kind k);

struct server {
	enum server_kind kind;
	uint16_t port;
	const struct site *site;
	struct child child;
};

/* Whether servers of this kind can be started: -ENOTSUP, and then *ret_why says what is missing.
 * Loads and pins the filter to see. */
int server_try(const struct site *s, enum server_kind k, const char *mosquitto, char *ret_why,
	       size_t room) must_check;
/* Ready when it returns; what goes wrong ends the program. mosquitto: its path. */
void server_start(struct server *v, const struct site *s, enum server_kind k, uint16_t port,
		  const char *mosquitto);
void server_stop(struct server *v);
/* Whose CPU time is the server's. */
void server_meter(const struct server *v, struct meter *ret_m);
/* Where the filter's program, or one of its maps, is pinned. */
void server_pinned(const struct site *s, const char *name, char *path);

#endif
