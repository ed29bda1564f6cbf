// SPDX-License-Identifier: MIT
#include "userspace/client/batch.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/base/log.h"

static void batch_free(struct ssdtf_outgoing *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(list[i].out);
}

/* The next batch as libssdtf wants it, each message with memory for its sealed bytes. */
static int batch_prepare(struct outbox_message *const *m, unsigned n, const struct batch_options *b,
			 struct ssdtf_outgoing *list)
{
	for (unsigned i = 0; i < n; i++) {
		size_t room = SSDTF_SEALED_BATCH_BYTES(SSDTF_PADDED_BYTES_MAX(m[i]->plain_n), n);

		list[i] = (struct ssdtf_outgoing){
			.topic = bytes_str(b->topic),
			.plain = bytes_of(m[i]->plain, m[i]->plain_n),
			.qos = b->qos,
			.retain = b->retain,
			.out = malloc(room),
			.room = room,
		};
		if (!list[i].out) {
			batch_free(list, i);
			return -ENOMEM;
		}
	}
	return 0;
}

int batch_seal(struct outbox *o, struct ssdtf_client *c, const struct batch_options *b,
	       struct ssdtf_time now)
{
	uint8_t nodes[SSDTF_BATCH_NODES(BATCH_MAX)][HASH_BYTES];
	struct ssdtf_outgoing list[BATCH_MAX];
	struct outbox_message *m[BATCH_MAX];
	unsigned n;
	int ret;

	BUG_ON(b->max < 1 || b->max > BATCH_MAX);
	while ((n = outbox_unsealed(o, m, b->max))) {
		ret = batch_prepare(m, n, b, list);
		if (ret)
			return ret;
		ret = ssdtf_seal_batch(c, list, n, now, nodes, ARRAY_SIZE(nodes));
		if (ret) {
			batch_free(list, n);
			return ret;
		}
		for (unsigned i = 0; i < n; i++) {
			m[i]->sealed = list[i].out;
			m[i]->sealed_n = list[i].sealed.payload.n;
			m[i]->counter = list[i].sealed.counter;
			m[i]->key_id = bytes_load_u32(list[i].out + ENVELOPE_KEY_ID_AT);
			m[i]->seals++;
		}
		if (n > 1)
			log_debug("%u messages under one signature", n);
	}
	return 0;
}
