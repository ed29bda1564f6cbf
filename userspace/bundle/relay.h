/* SPDX-License-Identifier: MIT */
/*
 * What broker and manager say to each other about a claim (PROTOCOL 15), without the R_b || u32 n
 * that each ends in; what the device says and hears is in claim.h. Decoded ones are views.
 *
 *   forward  := u8 2 || u8+ id || first || u16+ properties || body || trailer of the device's
 * packet decision := u8 3 || u8+ id || what the device is answered, from its result on
 */
#ifndef SSDTF_BUNDLE_RELAY_H
#define SSDTF_BUNDLE_RELAY_H

#include <stdint.h>

#include "userspace/bundle/claim.h"

/* Of the device's request: its packet's payload, and in front of it. */
#define RELAY_REQUEST_BYTES	(1 + 2 * P256_POINT_BYTES + P256_SIG_BYTES)
#define RELAY_FORWARD_BYTES(n)	(1 + 1 + RECORD_NAME_BYTES_MAX + 1 + 2 + (n))
#define RELAY_DECISION_BYTES(n) (1 + 1 + RECORD_NAME_BYTES_MAX + RELAY_ANSWER_BYTES(n))
#define RELAY_ANSWER_BYTES(n)	(1 + 2 + CLAIM_TEXT_BYTES_MAX + P256_POINT_BYTES + 4 + (n))

struct relay_forward {
	struct bytes id;
	uint8_t first;
	struct bytes properties;
	struct bytes payload; /* the device's body and its trailer */
};

void relay_write_forward(const struct relay_forward *f, struct bytes_writer *w);
/* -EBADMSG. */
int relay_read_forward(struct bytes body, struct relay_forward *ret_f) must_check;

void relay_write_decision(struct bytes id, const struct claim_answer *a, struct bytes_writer *w);
/* *ret_answer is what claim_answer_read() reads behind its first byte. -EBADMSG. */
int relay_read_decision(struct bytes body, struct bytes *ret_id,
			struct bytes *ret_answer) must_check;

#endif
