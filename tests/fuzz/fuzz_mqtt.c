// FUZZ_OF: userspace/mqtt
// SPDX-License-Identifier: MIT
/*
 * A stream of packets, cut where the first byte of the input says: what mqtt_frame_next finds must
 * not depend on the cut, what decodes must encode to the same bytes, and a body must mean the same
 * to a decoder whatever lies behind it. The last packet is decoded as every type, too.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/mqtt_recode.h"

#define LIMIT_BYTES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The same bytes in a block of their own, so that the sanitizer sees a read behind their end. */
static uint8_t *exact(struct bytes v)
{
	uint8_t *p = malloc(v.n ? v.n : 1);

	BUG_ON(!p);
	if (v.n)
		memcpy(p, v.p, v.n);
	return p;
}

static void recode_checked(const struct mqtt_frame *f, struct bytes wire)
{
	uint8_t *out = malloc(wire.n);
	struct bytes_writer w = bytes_writer_of(out, wire.n);
	size_t header_n = wire.n - f->body.n;

	BUG_ON(!out);
	if (mqtt_recode(f, &w) == MQTT_OK) {
		/* It is never longer; the body is the same; the header, where it was as short. */
		BUG_ON(w.bad || w.used > wire.n || w.used < f->body.n || out[0] != f->first);
		BUG_ON(!bytes_equal(bytes_of(out + w.used - f->body.n, f->body.n), f->body));
		if (header_n == w.used - f->body.n)
			BUG_ON(!bytes_equal(bytes_of(out, w.used), wire));
	} else {
		BUG_ON(w.used || w.bad);
	}
	free(out);
}

/* Types that the first byte did not say, and flags that mqtt_frame_next would have refused. */
static void decode_as_all(struct bytes body)
{
	for (unsigned first = 0; first < 256; first++) {
		struct mqtt_frame f = { (uint8_t)first, body };
		uint8_t out[2 * LIMIT_BYTES];
		struct bytes_writer w = bytes_writer_of(out, sizeof(out));

		/* All first bytes for PUBLISH, which reads them; one of each other type. */
		if ((first & 0x0f) && mqtt_frame_type(&f) != MQTT_PUBLISH)
			continue;
		if (mqtt_recode(&f, &w) == MQTT_OK)
			BUG_ON(w.bad);
	}
}

/* The frame at the start of v, as a reader finds it who asks only when told that it is worth it. */
static enum mqtt_reason frame_piecewise(struct bytes v, size_t step, struct mqtt_frame *ret_f,
					size_t *ret_used)
{
	size_t have = 0, need = 0;

	for (;;) {
		enum mqtt_reason reason;

		reason = mqtt_frame_next(bytes_of(v.p, have), LIMIT_BYTES, ret_f, ret_used, &need);
		if (reason != MQTT_OK || *ret_used || have == v.n)
			return reason;
		BUG_ON(need <= have || need > LIMIT_BYTES);
		have = have + step > need ? have + step : need;
		if (have > v.n)
			have = v.n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes left;

	if (n == 0)
		return 0;
	left = bytes_of(data + 1, n - 1);
	while (left.n) {
		struct mqtt_frame f = { 0 }, again = { 0 };
		size_t used = 0, used_again = 0, need = 0;
		enum mqtt_reason reason = mqtt_frame_next(left, LIMIT_BYTES, &f, &used, &need);
		uint8_t *body;

		BUG_ON(frame_piecewise(left, data[0], &again, &used_again) != reason);
		BUG_ON(used_again != used);
		if (reason != MQTT_OK || used == 0)
			break;
		BUG_ON(need != used || used > left.n || used > LIMIT_BYTES);
		BUG_ON(f.body.p != again.body.p || f.body.n != again.body.n);
		body = exact(f.body);
		f.body.p = body;
		recode_checked(&f, bytes_of(left.p, used));
		decode_as_all(f.body);
		free(body);
		left = bytes_of(left.p + used, left.n - used);
	}
	(void)mqtt_utf8_ok(left); /* and what is no packet, as text: only not to be over-read */
	(void)mqtt_topic_filter_ok(left);
	return 0;
}
