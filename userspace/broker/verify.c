// SPDX-License-Identifier: MIT
#include "userspace/broker/verify.h"

#include <string.h>

/* The counter of a message that may be damaged: its magic and twenty bytes are enough to name it. 0
 * where it cannot be read (PROTOCOL 7). */
static uint64_t counter_of(struct bytes payload)
{
	struct bytes_reader r = bytes_reader_of(payload);
	uint16_t magic = bytes_read_u16(&r);

	(void)bytes_read_view(&r, ENVELOPE_COUNTER_AT - 2);
	return magic == ENVELOPE_MAGIC ? bytes_read_u64(&r) : 0;
}

static enum broker_verify_result check_envelope(struct broker_verify *j)
{
	if (envelope_parse(j->trailer.body, &j->envelope))
		return BROKER_VERIFY_MALFORMED;
	if (j->envelope.level != 0 || !envelope_bind_fits(&j->envelope, j->client_id, j->topic))
		return BROKER_VERIFY_MALFORMED;
	if (p256_point_decompress(j->envelope.enc, &j->e))
		return BROKER_VERIFY_MALFORMED;
	return BROKER_VERIFY_OK;
}

void broker_verify_run(struct broker_verify *j)
{
	struct publish p = {
		.first = j->first,
		.topic = j->topic,
		.properties = j->properties,
		.body_parts = 1,
		.client_id = j->client_id,
	};

	j->counter = j->sealed ? counter_of(j->payload) : 0;
	j->result = BROKER_VERIFY_NO_TRAILER;
	if (publish_split(j->payload, &j->trailer))
		return;
	j->counter = j->sealed ? counter_of(j->trailer.body) : 0;
	p.body[0] = j->trailer.body;
	j->result = BROKER_VERIFY_BAD_SIGNATURE;
	if (publish_verify(&p, &j->trailer, j->key))
		return;
	j->result = j->sealed ? check_envelope(j) : BROKER_VERIFY_OK;
}
