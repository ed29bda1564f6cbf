/* SPDX-License-Identifier: MIT */
/*
 * Seals what waits in the outbox. What is there together is signed together (PROTOCOL 4, trailer
 * 2): lines that were read at once, or came while the broker had not acknowledged enough. One that
 * is there alone has a signature of its own, at once: nothing is held back to wait for company.
 */
#ifndef SSDTF_CLIENT_BATCH_H
#define SSDTF_CLIENT_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/client/lib/ssdtf.h"
#include "userspace/client/outbox.h"

#define BATCH_MAX OUTBOX_MAX

struct batch_options {
	const char *topic;
	uint8_t qos;
	bool retain;
	unsigned max; /* messages under one signature: 1 to BATCH_MAX */
};

/* All that waits and is not sealed. 0, -ENOMEM, or ssdtf_seal()'s errors: then those of the batches
 * before are sealed, the others wait as they did. */
int batch_seal(struct outbox *o, struct ssdtf_client *c, const struct batch_options *b,
	       struct ssdtf_time now) must_check;

#endif
