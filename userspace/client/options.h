/* SPDX-License-Identifier: MIT */
/*
 * The command lines of ssdtf-pub and ssdtf-sub. Options are named as mosquitto_pub and
 * mosquitto_sub name theirs where they mean the same; those that cannot mean the same here are
 * refused with the reason.
 */
#ifndef SSDTF_CLIENT_OPTIONS_H
#define SSDTF_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/client/link.h"

#define OPTIONS_TOPICS_MAX 64

enum options_program { OPTIONS_PUB, OPTIONS_SUB };

enum options_source {
	OPTIONS_SOURCE_NONE,
	OPTIONS_SOURCE_MESSAGE, /* -m, -n */
	OPTIONS_SOURCE_FILE,	/* -f */
	OPTIONS_SOURCE_LINES,	/* -l */
	OPTIONS_SOURCE_STDIN,	/* -s */
};

struct options {
	struct link_options link;
	const char *dir;
	const char *id;
	bool zk; /* --auth zk */
	char *topics[OPTIONS_TOPICS_MAX];
	int n_topics;
	uint8_t qos;
	bool debug, quiet;
	uint32_t wait_s; /* -W; 0: none given */
	uint32_t counter_step;

	enum options_source source;
	const char *message; /* or the file's path */
	bool retain;
	uint32_t times, delay_ms;
	uint32_t batch;				/* messages under one signature */
	uint32_t rekey_messages, rekey_seconds; /* 0: as the bundle says */

	bool verbose, no_newline, no_retained, meta, json, wire;
	uint32_t count; /* -C; 0: no limit */
	uint32_t n_origins;
};

/* Ends the program on --help and on what it does not understand. */
void options_parse(enum options_program program, int argc, char **argv, struct options *ret_o);

#endif
