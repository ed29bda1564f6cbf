/* SPDX-License-Identifier: MIT */
/*
 * A sender's PUBLISH packets, ready to be sent, one behind another, so that as many as may go go
 * with one write.
 *
 *   ring   plain: `slots` packets of one size, filled over and over; only number and packet id
 *          change. A slot is free once its bytes were written
 *   all    sealed ahead: each packet once, and then there are no more
 *
 * The tape owns no memory but the ring's.
 */
#ifndef SSDTF_BENCH_TAPE_H
#define SSDTF_BENCH_TAPE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "userspace/base/bytes.h"

#define TAPE_IOV 2

/* A plain payload begins with the sender, its message's number, and what makes random bytes
 * unlikely to pass for it. */
#define TAPE_MARK_BYTES 16
#define TAPE_MARK	0x73736474u

struct tape {
	uint8_t *bytes;
	uint64_t slots;
	size_t packet_n;      /* ring */
	size_t number_at;     /* ring: where the number stands in a packet */
	size_t id_at;	      /* ring: the packet id; 0: none, at QoS 0 */
	const uint64_t *ends; /* all: where each packet ends; NULL: a ring */
	uint64_t put;	      /* packets that may be written */
	uint64_t written;     /* packets that were, whole */
	size_t part;	      /* bytes of the next that were */
};

/* Rings of plain messages on topic. -ENOMEM. */
int tape_ring_new(struct tape *t, struct bytes topic, uint8_t qos, size_t payload, uint32_t sender,
		  uint64_t slots) must_check;
void tape_ring_free(struct tape *t);
/* Packets sealed ahead. */
void tape_all(struct tape *t, uint8_t *bytes, const uint64_t *ends, uint64_t n);

/* How many more packets tape_put() takes now. */
uint64_t tape_room(const struct tape *t);
/* n more may be written; n is at most tape_room(). */
void tape_put(struct tape *t, uint64_t n);
/* What is to be written; the number of pieces. */
unsigned tape_pending(const struct tape *t, struct iovec out[TAPE_IOV]);
void tape_wrote(struct tape *t, size_t n);

/* Packet ids follow from numbers: no more than 65,535 are ever unacknowledged. */
static inline uint16_t tape_packet_id(uint64_t number)
{
	return (uint16_t)(number % 65535 + 1);
}

struct mqtt_publish;
/* One packet of a plain tape; of p, payload is not looked at. */
void tape_write(struct bytes_writer *w, const struct mqtt_publish *p, size_t payload,
		uint32_t sender, uint64_t number);
/* The sender and number of a plain payload; false: it has none. */
bool tape_read_mark(struct bytes payload, uint32_t *ret_sender, uint64_t *ret_number);

#endif
