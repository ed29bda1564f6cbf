// SPDX-License-Identifier: MIT
#include "bench/flow/sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/lab/device.h"
#include "userspace/mqtt/packet.h"

int sample_init(struct sample *s, unsigned room)
{
	struct sample_message *m = calloc(room, sizeof(*m));

	if (!m)
		return -ENOMEM;
	*s = (struct sample){ .room = room, .step = 1, .messages = m };
	return 0;
}

void sample_deinit(struct sample *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->messages[i].bytes);
	free(s->messages);
	*s = (struct sample){ 0 };
}

/* Full: every second one goes, and from now on half as many come. */
static void thin(struct sample *s)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (i % 2)
			free(s->messages[i].bytes);
		else
			s->messages[kept++] = s->messages[i];
	}
	s->n = kept;
	s->step *= 2;
}

void sample_keep(struct sample *s, const struct mqtt_publish *p)
{
	struct sample_message *m;
	uint8_t *bytes;

	if (s->n == s->room)
		thin(s);
	bytes = malloc(p->topic.n + p->payload.n);
	if (!bytes)
		return;
	memcpy(bytes, p->topic.p, p->topic.n);
	memcpy(bytes + p->topic.n, p->payload.p, p->payload.n);
	m = &s->messages[s->n++];
	*m = (struct sample_message){ .bytes = bytes,
				      .topic_n = (uint32_t)p->topic.n,
				      .payload_n = (uint32_t)p->payload.n,
				      .qos = p->qos,
				      .retain = p->retain };
}

static bool opens(const struct sample_message *m, struct device *d, size_t plain_n)
{
	const struct ssdtf_packet packet = { .topic = bytes_of(m->bytes, m->topic_n),
					     .payload =
						     bytes_of(m->bytes + m->topic_n, m->payload_n),
					     .qos = m->qos,
					     .retain = m->retain };
	uint8_t *plain = malloc(m->payload_n);
	struct ssdtf_event event;
	bool good;

	good = plain &&
	       !ssdtf_on_message(&d->client, &packet, device_time(), plain, m->payload_n, &event) &&
	       event.kind == SSDTF_MESSAGE && event.plain.n == plain_n;
	free(plain);
	return good;
}

void sample_open(const struct sample *s, struct device *d, size_t plain_n, uint64_t *opened,
		 uint64_t *wrong)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (opens(&s->messages[i], d, plain_n))
			++*opened;
		else
			++*wrong;
	}
}
