/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Is this CONNECT admitted? The one text that the kernel's filter and the broker's own gate run, so
 * that they cannot disagree. Who includes it defines before:
 *
 *   ADMISSION_PACKET                  what a packet is to it, as in "struct __sk_buff"
 *   int admission_load(p, at, to, n)  n bytes of the packet at offset at, 0 or negative; n may be 0
 *                                     only where it is no constant
 *   struct admission_device *admission_find_device(p, const struct admission_id *)   or NULL
 *   int admission_find_seen(p, tag, const struct admission_seen *)
 *       0: new; 1: this very segment was seen; -1: another was
 *   int admission_remember(p, tag, const struct admission_seen *)    non-zero: somebody was quicker
 *   ADMISSION_CLAMP_64(x)             tells a verifier that 1 <= x <= 64, which holds
 *
 * The code is straight and returns early, bounds stand where they are used, and no helper's result
 * is kept over another's call: verifiers of 6.1 forget bounds when a register is spilled.
 */
#ifndef SSDTF_BPF_ADMISSION_JUDGE_H
#define SSDTF_BPF_ADMISSION_JUDGE_H

#include "bpf/admission.h"

#define ADMISSION_INLINE static inline __attribute__((always_inline))

#define ADMISSION_CONNECT_HEAD 10 /* protocol name, level, flags, keep-alive */
#define ADMISSION_SECOND_NS    1000000000ull

/* What a CONNECT says of itself. */
struct admission_claim {
	struct admission_message m;
	__u64 tag; /* as it says; in memory order */
	__u32 slot;
};

/*
 * GCRA (ITU-T I.371): true where one more fits, and then it is counted. Two processors may count
 * two as one: a limit of this kind may err by that.
 */
ADMISSION_INLINE int admission_fits(__u64 *tat_ns, __u64 now_ns, const struct admission_rate *r)
{
	__u64 tat = *tat_ns;

	if (!r->interval_ns)
		return 1;
	if (tat < now_ns)
		tat = now_ns;
	if (tat + r->interval_ns - now_ns > r->interval_ns * r->burst)
		return 0;
	*tat_ns = tat + r->interval_ns;
	return 1;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Remaining Length [MQTT-1.5.5], of at most three bytes: more never came in one segment. Returns
 * its own length, 0 for a longer one. */
ADMISSION_INLINE __u32 admission_varint(const __u8 b[3], __u32 *ret_value)
{
	__u32 value = b[0] & 0x7f;

	*ret_value = value;
	if (!(b[0] & 0x80))
		return 1;
	value |= (__u32)(b[1] & 0x7f) << 7;
	*ret_value = value;
	if (!(b[1] & 0x80))
		return 2;
	value |= (__u32)(b[2] & 0x7f) << 14;
	*ret_value = value;
	return b[2] & 0x80 ? 0 : 3;
}

/* Moves at behind a field of two bytes' length, whose length it tells. Non-zero: it goes beyond. */
ADMISSION_INLINE int admission_field(ADMISSION_PACKET *p, __u32 *at, __u32 end, __u32 *ret_n)
{
	__u8 b[2];

	if (*at + 2 > end || admission_load(p, *at, b, 2) < 0)
		return -1;
	*at += 2;
	*ret_n = (__u32)b[0] << 8 | b[1];
	return *at + *ret_n > end ? -1 : 0;
}

/* Properties of MQTT 5, up to 16,383 bytes of them. */
ADMISSION_INLINE int admission_skip_properties(ADMISSION_PACKET *p, __u32 *at, __u32 end)
{
	__u8 b[3] = { 0 };
	__u32 n, used;

	if (*at + 2 > end || admission_load(p, *at, b, 2) < 0)
		return -1;
	used = admission_varint(b, &n);
	if (b[0] & b[1] & 0x80)
		return -1;
	*at += used + n;
	return *at > end ? -1 : 0;
}

ADMISSION_INLINE int admission_skip_will(ADMISSION_PACKET *p, __u32 *at, __u32 end, __u8 level)
{
	__u32 n;

	if (level == 5 && admission_skip_properties(p, at, end))
		return -1;
	if (admission_field(p, at, end, &n))
		return -1;
	*at += n;
	if (admission_field(p, at, end, &n))
		return -1;
	*at += n;
	return 0;
}

/* Client id, User Name and token, which is the last there is. */
ADMISSION_INLINE enum admission_verdict admission_parse_payload(ADMISSION_PACKET *p, __u32 at,
								__u32 end, __u8 level, __u8 flags,
								struct admission_claim *c)
{
	__u8 token[5];
	__u64 n64;
	__u32 n;

	if (level == 5 && admission_skip_properties(p, &at, end))
		return ADMISSION_MALFORMED;
	if (admission_field(p, &at, end, &n) || n < 1 || n > ADMISSION_ID_BYTES)
		return ADMISSION_MALFORMED;
	n64 = n;
	ADMISSION_CLAMP_64(n64);
	if (admission_load(p, at, c->m.id, n64) < 0)
		return ADMISSION_MALFORMED;
	at += n;
	if ((flags & 0x04) && admission_skip_will(p, &at, end, level))
		return ADMISSION_MALFORMED;
	if (admission_field(p, &at, end, &n))
		return ADMISSION_MALFORMED;
	if (n < 1 || n > ADMISSION_USER_BYTES)
		return ADMISSION_NO_TOKEN;
	n64 = n;
	ADMISSION_CLAMP_64(n64);
	if (admission_load(p, at, c->m.user_name, n64) < 0)
		return ADMISSION_MALFORMED;
	at += n;
	if (admission_field(p, &at, end, &n) || at + n != end)
		return ADMISSION_MALFORMED;
	if (n != ADMISSION_TOKEN_BYTES || admission_load(p, at, token, 5) < 0 ||
	    admission_load(p, at + 5, &c->tag, 8) < 0 || token[0] != ADMISSION_TOKEN_VERSION)
		return ADMISSION_NO_TOKEN;
	__builtin_memcpy(c->m.slot, token + 1, 4);
	c->slot = (__u32)token[1] << 24 | (__u32)token[2] << 16 | (__u32)token[3] << 8 | token[4];
	return ADMISSION_OK;
}

/* From the protocol name [MQTT-3.1.2-1] on; what follows the flags is judged by them. */
ADMISSION_INLINE enum admission_verdict admission_parse_body(ADMISSION_PACKET *p, __u32 at,
							     __u32 end, struct admission_claim *c)
{
	__u8 head[ADMISSION_CONNECT_HEAD], level, flags;

	if (at + ADMISSION_CONNECT_HEAD > end ||
	    admission_load(p, at, head, ADMISSION_CONNECT_HEAD) < 0)
		return ADMISSION_MALFORMED;
	if (head[0] || head[1] != 4 || head[2] != 'M' || head[3] != 'Q' || head[4] != 'T' ||
	    head[5] != 'T')
		return ADMISSION_NOT_CONNECT;
	level = head[6];
	flags = head[7];
	if ((level != 4 && level != 5) || (flags & 0x01)) /* [MQTT-3.1.2-3] */
		return ADMISSION_MALFORMED;
	/* A Will's QoS and RETAIN without a Will, or its QoS 3 [MQTT-3.1.2-11, -13, -14, -15]. */
	if ((!(flags & 0x04) && (flags & 0x38)) || (flags & 0x18) == 0x18)
		return ADMISSION_MALFORMED;
	if ((flags & 0xc0) != 0xc0)
		return ADMISSION_NO_TOKEN;
	return admission_parse_payload(p, at + ADMISSION_CONNECT_HEAD, end, level, flags, c);
}

/* The segment's bytes are from at to data_end: a CONNECT must begin there, and be there whole. */
ADMISSION_INLINE enum admission_verdict admission_parse(ADMISSION_PACKET *p, __u32 at,
							__u32 data_end, struct admission_claim *c)
{
	__u8 head[4];
	__u32 n, used;

	if (at + 1 > data_end || admission_load(p, at, head, 1) < 0 || head[0] != 0x10)
		return ADMISSION_NOT_CONNECT;
	if (at + 4 > data_end || admission_load(p, at, head, 4) < 0)
		return ADMISSION_SPLIT;
	used = admission_varint(head + 1, &n);
	if (!used)
		return ADMISSION_MALFORMED;
	at += 1 + used;
	if (at + n > data_end)
		return ADMISSION_SPLIT;
	return admission_parse_body(p, at, at + n, c);
}

/* --- judging ---------------------------------------------------------------------------------- */

ADMISSION_INLINE int admission_slot_fits(__u32 slot, __u32 now)
{
	__u32 apart = slot > now ? slot - now : now - slot;

	return apart <= ADMISSION_SLOT_EITHER_WAY;
}

/* c was parsed; segment says where it came from. */
ADMISSION_INLINE enum admission_verdict admission_weigh(ADMISSION_PACKET *p,
							const struct admission_claim *c,
							const struct admission_config *config,
							__u64 now_ns,
							const struct admission_seen *segment)
{
	__u64 wall_ns = now_ns + config->wall_offset_ns;
	__u64 slot_now = wall_ns / ADMISSION_SECOND_NS / ADMISSION_SLOT_SECONDS;
	const struct admission_rate *limit = &config->device;
	struct admission_device *d;
	__u64 *tat, tag;
	int seen;

	/* Slot 0 means "no clock" and lies in no window, not even in that of 1970. */
	if (c->slot != ADMISSION_SLOT_NO_CLOCK && !admission_slot_fits(c->slot, (__u32)slot_now))
		return ADMISSION_SLOT;
	d = admission_find_device(p, (const struct admission_id *)c->m.id);
	if (!d)
		return ADMISSION_UNKNOWN;
	tat = &d->tat_ns;
	if (c->slot == ADMISSION_SLOT_NO_CLOCK) {
		if (!(d->flags & ADMISSION_DEVICE_NO_CLOCK))
			return ADMISSION_SLOT;
		tat = &d->no_clock_tat_ns;
		limit = &config->no_clock;
	}
	tag = admission_siphash(d->key, c->m.words, ADMISSION_MESSAGE_BYTES / 8);
	if (tag != ADMISSION_LE64(c->tag) && wall_ns < d->previous_until_ns)
		tag = admission_siphash(d->previous, c->m.words, ADMISSION_MESSAGE_BYTES / 8);
	if (tag != ADMISSION_LE64(c->tag))
		return ADMISSION_BAD_TAG;
	/* Nobody without the key comes so far: what is remembered cannot be pushed out by others.
	 */
	seen = admission_find_seen(p, tag, segment);
	if (seen)
		return seen > 0 ? ADMISSION_OK_AGAIN : ADMISSION_REPLAYED;
	/* Behind the look at what was seen: a replay must not use up its device's rate. */
	if (!admission_fits(tat, now_ns, limit))
		return ADMISSION_RATE;
	return admission_remember(p, tag, segment) ? ADMISSION_REPLAYED : ADMISSION_OK;
}

#endif
