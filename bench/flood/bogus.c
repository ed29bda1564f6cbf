// SPDX-License-Identifier: MIT
#include "bench/flood/bogus.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/lab/device.h"
#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"
#include "userspace/mqtt/packet.h"

#define GARBAGE_BYTES 128
#define NONCE_BYTES   32
#define TAG_BYTES     8
#define KEEPALIVE_S   60
#define ID_BYTES      32

static const char *const names[] = {
	[BOGUS_GARBAGE] = "garbage", [BOGUS_CONNECT] = "connect", [BOGUS_REPLAY] = "replay",
	[BOGUS_IDLE] = "idle",	     [BOGUS_SYN] = "syn",
};

const char *bogus_name(enum bogus_kind kind)
{
	return names[kind];
}

bool bogus_by_name(struct bytes name, enum bogus_kind *ret_kind)
{
	for (unsigned i = 0; i < BOGUS_KINDS; i++) {
		if (!bytes_equal(name, bytes_str(names[i])))
			continue;
		*ret_kind = (enum bogus_kind)i;
		return true;
	}
	return false;
}

void bogus_init(struct bogus *b, enum bogus_kind kind, unsigned n_devices, struct bytes replayed)
{
	*b = (struct bogus){ .kind = kind, .n_devices = n_devices, .replayed = replayed };
	hash_random(&b->random, sizeof(b->random));
}

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
uint64_t bogus_random(struct bogus *b)
{
	uint64_t z = b->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void fill(struct bogus *b, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i += sizeof(uint64_t)) {
		uint64_t r = bogus_random(b);

		memcpy(out + i, &r, n - i < sizeof(r) ? n - i : sizeof(r));
	}
}

static size_t make_connect(struct bogus *b, uint8_t *out)
{
	struct mqtt_connect c = { .level = SSDTF_MQTT_LEVEL,
				  .clean_session = true,
				  .keepalive_s = KEEPALIVE_S,
				  .has_user_name = true,
				  .has_password = true };
	uint8_t nonce[NONCE_BYTES], token[ADMISSION_TOKEN_BYTES], tag[TAG_BYTES];
	char id[ID_BYTES], device[SITE_ID_BYTES], user_name[TEXT_B64U_SIZE(NONCE_BYTES)];
	struct bytes_writer w = bytes_writer_of(token, sizeof(token));

	if (b->made % 2 && b->n_devices) {
		site_device_id((unsigned)(bogus_random(b) % b->n_devices), device);
		c.client_id = bytes_str(device);
	} else {
		snprintf(id, sizeof(id), "bogus-%016" PRIx64, bogus_random(b));
		c.client_id = bytes_str(id);
	}
	fill(b, nonce, sizeof(nonce));
	fill(b, tag, sizeof(tag));
	bytes_write_u8(&w, 1);
	bytes_write_u32(&w, admission_slot(device_time().unix_ms));
	bytes_write(&w, bytes_of(tag, sizeof(tag)));
	BUG_ON(w.bad || w.left);
	c.user_name = bytes_str(text_b64u(bytes_of(nonce, sizeof(nonce)), user_name));
	c.password = bytes_of(token, sizeof(token));
	w = bytes_writer_of(out, BOGUS_BYTES_MAX);
	mqtt_encode_connect(&c, &w);
	BUG_ON(w.bad);
	return w.used;
}

size_t bogus_next(struct bogus *b, uint8_t out[BOGUS_BYTES_MAX])
{
	size_t n = 0;

	switch (b->kind) {
	case BOGUS_GARBAGE:
		n = GARBAGE_BYTES;
		fill(b, out, n);
		break;
	case BOGUS_CONNECT:
		n = make_connect(b, out);
		break;
	case BOGUS_REPLAY:
		n = b->replayed.n;
		BUG_ON(n > BOGUS_BYTES_MAX);
		memcpy(out, b->replayed.p, n);
		break;
	case BOGUS_IDLE:
	case BOGUS_SYN:
	case BOGUS_KINDS:
		break;
	}
	b->made++;
	return n;
}
