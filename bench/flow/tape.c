// SPDX-License-Identifier: MIT
#include "bench/flow/tape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/mqtt/packet.h"

#define FILLING 0xa5

/* u32 mark, u32 sender, u64 number */
void tape_write(struct bytes_writer *w, const struct mqtt_publish *p, size_t payload,
		uint32_t sender, uint64_t number)
{
	uint8_t *rest;

	mqtt_encode_publish_head(p, payload, w);
	bytes_write_u32(w, TAPE_MARK);
	bytes_write_u32(w, sender);
	bytes_write_u64(w, number);
	rest = bytes_write_space(w, payload - TAPE_MARK_BYTES);
	if (rest)
		memset(rest, FILLING, payload - TAPE_MARK_BYTES);
}

int tape_ring_new(struct tape *t, struct bytes topic, uint8_t qos, size_t payload, uint32_t sender,
		  uint64_t slots)
{
	const struct mqtt_publish p = { .qos = qos, .packet_id = qos ? 1 : 0, .topic = topic };
	size_t n = mqtt_publish_bytes(topic.n, payload, qos);
	uint8_t *bytes;

	BUG_ON(payload < TAPE_MARK_BYTES || !n || !slots);
	bytes = calloc(slots, n);
	if (!bytes)
		return -ENOMEM;
	for (uint64_t i = 0; i < slots; i++) {
		struct bytes_writer w = bytes_writer_of(bytes + i * n, n);

		tape_write(&w, &p, payload, sender, 0);
		BUG_ON(w.bad || w.used != n);
	}
	*t = (struct tape){ .bytes = bytes,
			    .slots = slots,
			    .packet_n = n,
			    .number_at = n - payload + 8,
			    .id_at = qos ? n - payload - 2 : 0 };
	return 0;
}

void tape_ring_free(struct tape *t)
{
	if (!t->ends)
		free(t->bytes);
	t->bytes = NULL;
}

void tape_all(struct tape *t, uint8_t *bytes, const uint64_t *ends, uint64_t n)
{
	*t = (struct tape){ .bytes = bytes, .ends = ends, .slots = n };
}

uint64_t tape_room(const struct tape *t)
{
	return t->ends ? t->slots - t->put : t->slots - (t->put - t->written);
}

void tape_put(struct tape *t, uint64_t n)
{
	BUG_ON(n > tape_room(t));
	for (uint64_t i = t->put; !t->ends && i < t->put + n; i++) {
		uint8_t *packet = t->bytes + i % t->slots * t->packet_n;

		bytes_store_u64(packet + t->number_at, i);
		if (t->id_at)
			bytes_store_u16(packet + t->id_at, tape_packet_id(i));
	}
	t->put += n;
}

static uint64_t begin_of(const struct tape *t, uint64_t number)
{
	return number ? t->ends[number - 1] : 0;
}

unsigned tape_pending(const struct tape *t, struct iovec out[TAPE_IOV])
{
	uint64_t first, n = t->put - t->written;
	uint8_t *from;

	if (!n)
		return 0;
	if (t->ends) {
		from = t->bytes + begin_of(t, t->written) + t->part;
		out[0] = (struct iovec){ from, (size_t)(t->bytes + begin_of(t, t->put) - from) };
		return 1;
	}
	first = t->slots - t->written % t->slots;
	if (first > n)
		first = n;
	from = t->bytes + t->written % t->slots * t->packet_n + t->part;
	out[0] = (struct iovec){ from, first * t->packet_n - t->part };
	if (first == n)
		return 1;
	out[1] = (struct iovec){ t->bytes, (n - first) * t->packet_n };
	return 2;
}

void tape_wrote(struct tape *t, size_t n)
{
	size_t at = t->part + n;

	if (!t->ends) {
		t->written += at / t->packet_n;
		t->part = at % t->packet_n;
		return;
	}
	while (t->written < t->put && at >= t->ends[t->written] - begin_of(t, t->written)) {
		at -= t->ends[t->written] - begin_of(t, t->written);
		t->written++;
	}
	t->part = at;
}

bool tape_read_mark(struct bytes payload, uint32_t *ret_sender, uint64_t *ret_number)
{
	struct bytes_reader r = bytes_reader_of(payload);
	bool marked = bytes_read_u32(&r) == TAPE_MARK;

	*ret_sender = bytes_read_u32(&r);
	*ret_number = bytes_read_u64(&r);
	return marked && !r.bad;
}
