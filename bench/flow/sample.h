/* SPDX-License-Identifier: MIT */
/*
 * Some of the sealed messages that a receiver had, spread over all of them: every n-th, and n
 * doubles as there are more. They are opened when the window is over, since opening costs more than
 * delivering.
 */
#ifndef SSDTF_BENCH_SAMPLE_H
#define SSDTF_BENCH_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

struct device;
struct mqtt_publish;

struct sample_message {
	uint8_t *bytes; /* topic, then payload */
	uint32_t topic_n, payload_n;
	uint8_t qos;
	bool retain;
};

struct sample {
	unsigned n, room;
	uint64_t seen, step;
	struct sample_message *messages;
};

/* room is at least 2. -ENOMEM. */
int sample_init(struct sample *s, unsigned room) must_check;
void sample_deinit(struct sample *s);
/* Whether the next one is to be kept; each message asks. */
static inline bool sample_wants(struct sample *s)
{
	return !(s->seen++ & (s->step - 1));
}
/* Without memory it is left out. */
void sample_keep(struct sample *s, const struct mqtt_publish *p);
/* Opens all as the device; adds to the two. plain_n: what each plaintext's length must be. */
void sample_open(const struct sample *s, struct device *d, size_t plain_n, uint64_t *opened,
		 uint64_t *wrong);

#endif
