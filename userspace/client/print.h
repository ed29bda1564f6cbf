/* SPDX-License-Identifier: MIT */
/*
 * An opened message on standard output, for people (as mosquitto_sub prints it, with lines of what
 * SSDTF adds) or as JSON.
 */
#ifndef SSDTF_CLIENT_PRINT_H
#define SSDTF_CLIENT_PRINT_H

#include <stdbool.h>
#include <stdio.h>

#include "userspace/client/lib/ssdtf.h"

struct print_options {
	bool topic;   /* before the message */
	bool newline; /* behind it */
	bool meta, wire;
	bool json; /* instead of all that; wire adds the whole delivery in hex */
};

/* A whole message, flushed. 0, or -errno where standard output is gone or full. */
int print_message(const struct print_options *o, const struct ssdtf_packet *packet,
		  const struct ssdtf_event *event, FILE *to) must_check;

/* Bytes of a peer as one harmless line of at most room - 1 characters, terminated. Returns out. */
char *print_clean(struct bytes v, char *out, size_t room);

#endif
