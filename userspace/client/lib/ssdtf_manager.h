/* SPDX-License-Identifier: MIT */
/*
 * What a party with the role of a manager says and hears on $SSDTF topics of its own (PROTOCOL 7,
 * 14, 15), beside ssdtf.h: those messages are events of the kind SSDTF_IGNORED there, or
 * SSDTF_REPORTED, and their packet is handed in here. Devices and receivers need none of it.
 */
#ifndef SSDTF_CLIENT_LIB_SSDTF_MANAGER_H
#define SSDTF_CLIENT_LIB_SSDTF_MANAGER_H

#include "userspace/client/lib/ssdtf.h"

/* Both directions of one topic, in one session: zero it when the session opens. */
struct ssdtf_numbers {
	uint32_t said;	/* the last */
	uint64_t heard; /* the least that is taken */
};

/* R_b || u32 n || trailer 1 */
#define SSDTF_CONTROL_END_BYTES (32 + 4 + PUBLISH_TRAILER_1_BYTES)

/*
 * From the broker, signed, of this session and not here before: *ret_body is what stands in front
 * of R_b. -EBADMSG where it is not so; p256.h's.
 */
int ssdtf_control_open(struct ssdtf_client *c, const struct ssdtf_packet *p,
		       struct ssdtf_numbers *numbers, struct bytes *ret_body) must_check;
/*
 * body, which may stand at out already, and its end, for a PUBLISH of QoS 0 on topic; out has room
 * for body.n + SSDTF_CONTROL_END_BYTES, which is the payload's length. -ENOTCONN; p256.h's.
 */
int ssdtf_control_write(struct ssdtf_client *c, const char *topic, struct ssdtf_numbers *numbers,
			struct bytes body, uint8_t *out) must_check;

/* A report or nack that the broker passed on, taken apart; views into the packet. */
struct ssdtf_report {
	struct bytes whole; /* to be read again by ssdtf_report_read() */
	struct bytes reporter;
	bool nack; /* it has no text */
	unsigned reason;
	uint64_t counter;
	struct bytes about; /* whose message it was */
	struct bytes text;
	/* What the reporter signed, and with what. */
	uint8_t first;
	struct bytes properties, body;
	struct publish_trailer trailer;
};

/* -EBADMSG: it is not the broker's, or is none. The reporter's own signature is looked at by
 * ssdtf_report_verify(), with the key that is certified for it. */
int ssdtf_report_open(struct ssdtf_client *c, const struct ssdtf_packet *p,
		      struct ssdtf_report *ret_r) must_check;
/* The same of a `whole` that was kept: that it was the broker's is not looked at again. */
int ssdtf_report_read(struct bytes whole, struct ssdtf_report *ret_r) must_check;
int ssdtf_report_verify(const struct ssdtf_report *r, const struct p256_public *key) must_check;

#endif
