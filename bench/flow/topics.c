// SPDX-License-Identifier: MIT
#include "bench/flow/topics.h"

#include <stdio.h>
#include <string.h>

#define PREFIX "bench/t/"
#define DIGITS 6
#define OTHER  "bench/o/"
#define ALL    "bench/#"

static struct bytes written(const char *text, int n)
{
	BUG_ON(n < 0 || n >= TOPICS_BYTES);
	return bytes_of(text, (size_t)n);
}

struct bytes topics_write(unsigned number, char text[TOPICS_BYTES])
{
	return written(text, snprintf(text, TOPICS_BYTES, PREFIX "%0*u", DIGITS, number));
}

bool topics_read(struct bytes topic, uint32_t *ret_number)
{
	const size_t at = strlen(PREFIX);
	uint32_t n = 0;

	if (topic.n != at + DIGITS || memcmp(topic.p, PREFIX, at))
		return false;
	for (size_t i = at; i < topic.n; i++) {
		if (topic.p[i] < '0' || topic.p[i] > '9')
			return false;
		n = n * 10 + topic.p[i] - '0';
	}
	*ret_number = n;
	return true;
}

/* Pairs have a topic each; fan-in hears all senders; what one sends is the same to all. */
struct bytes topics_filter(const struct scenario *s, unsigned i, char text[TOPICS_BYTES])
{
	switch (s->kind) {
	case SCENARIO_FAN_IN:
		return written(text, snprintf(text, TOPICS_BYTES, PREFIX "+"));
	case SCENARIO_RETAINED:
		return written(text, snprintf(text, TOPICS_BYTES, ALL));
	case SCENARIO_FAN_OUT:
		return topics_write(0, text);
	case SCENARIO_PAIRS:
	case SCENARIO_CONNECT:
	case SCENARIO_INGRESS:
	case SCENARIO_KINDS:
		break;
	}
	return topics_write(i, text);
}

struct bytes topics_other(unsigned i, char text[TOPICS_BYTES])
{
	return written(text, snprintf(text, TOPICS_BYTES, OTHER "%u", i));
}

unsigned topics_publish_qos(const struct scenario *s)
{
	bool acknowledged = s->kind == SCENARIO_RETAINED || s->kind == SCENARIO_INGRESS;

	return acknowledged && !s->qos ? 1 : s->qos;
}
