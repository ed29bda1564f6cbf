// SPDX-License-Identifier: MIT
#include "userspace/mqtt/packet.h"

/* What may follow a lead byte (RFC 3629 section 4): so many bytes, the first of them in low..high.
 */
struct tail {
	unsigned n;
	uint8_t low, high;
};

#define CONTINUATION_LOW  0x80
#define CONTINUATION_HIGH 0xbf

/* False: no lead byte. The narrowed ranges shut out overlong forms, surrogates and > U+10FFFF. */
static bool tail_of(uint8_t lead, struct tail *ret_tail)
{
	struct tail t = { 0, CONTINUATION_LOW, CONTINUATION_HIGH };

	if (lead >= 0xc2 && lead <= 0xdf)
		t.n = 1;
	else if (lead >= 0xe0 && lead <= 0xef)
		t.n = 2;
	else if (lead >= 0xf0 && lead <= 0xf4)
		t.n = 3;
	else
		return false;
	if (lead == 0xe0)
		t.low = 0xa0;
	else if (lead == 0xed)
		t.high = 0x9f;
	else if (lead == 0xf0)
		t.low = 0x90;
	else if (lead == 0xf4)
		t.high = 0x8f;
	*ret_tail = t;
	return true;
}

/*
 * U+FEFF is a character like any other and stays where it is [MQTT-1.5.3-3]. Control characters and
 * non-characters, which a receiver may refuse (1.5.3), are taken: names in use have them.
 */
bool mqtt_utf8_ok(struct bytes text)
{
	struct tail tail = { 0 };

	for (size_t i = 0; i < text.n; i++) {
		uint8_t b = text.p[i];

		if (tail.n) {
			if (b < tail.low || b > tail.high)
				return false;
			tail = (struct tail){ tail.n - 1, CONTINUATION_LOW, CONTINUATION_HIGH };
		} else if (b == 0) {
			return false;
		} else if (b >= 0x80 && !tail_of(b, &tail)) {
			return false;
		}
	}
	return tail.n == 0;
}
