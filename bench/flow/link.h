/* SPDX-License-Identifier: MIT */
/*
 * One MQTT connection of a client, on a non-blocking socket: what is to be sent waits here, and
 * what comes is handed on packet by packet, in place where a packet came whole.
 *
 * Two things are sent: `out`, small packets in the order in which they were written, and the tape,
 * a sender's messages. They mix at the bounds of packets alone. One thread.
 */
#ifndef SSDTF_BENCH_LINK_H
#define SSDTF_BENCH_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/flow/tape.h"
#include "bench/lab/exchange.h"
#include "userspace/mqtt/packet.h"

#define LINK_PACKET_BYTES_MAX (1u << 20)

enum link_state {
	LINK_CLOSED,
	LINK_GREETING, /* up to CONNACK, or sealed to the end of authentication */
	LINK_OPEN,
};

struct link {
	int fd; /* -1: none */
	enum link_state state;
	unsigned kind;	   /* its owner's */
	uint32_t index;	   /* its owner's: which of the kind */
	bool listed;	   /* its owner's: among those with something to send */
	bool waits;	   /* for the socket to take more */
	struct link *next; /* of those listed */
	struct tape *tape; /* NULL: it publishes nothing */
	struct exchange *exchange;
	uint8_t *out;
	size_t out_n, out_room;
	uint8_t *part; /* of a packet that is not whole yet */
	size_t part_n, part_room;
};

/* Each packet, once the link is open. */
typedef void link_take(void *ctx, struct link *l, const struct mqtt_frame *f);

void link_init(struct link *l, unsigned kind, uint32_t index);
/* Connects to 127.0.0.1 and greets; device NULL: plain, with an id made of number. -errno. */
int link_dial(struct link *l, uint16_t port, struct device *device, uint64_t number) must_check;
/* At once, without a word. */
void link_close(struct link *l);
void link_deinit(struct link *l);

/* n bytes at the end of out, for the caller to fill; the program ends where there is no memory. */
uint8_t *link_space(struct link *l, size_t n);
void link_write_ack(struct link *l, enum mqtt_type type, uint16_t packet_id);

/* Sends what there is. 0; -EAGAIN: the socket is full, or not connected yet; -errno: it is gone. */
int link_flush(struct link *l) must_check;
/* Receives once, up to rx_n bytes with what was left over. -EAGAIN: nothing was there; -EPROTO: it
 * makes no sense, or the greeting failed; -ECONNRESET, and other -errno: it is gone. */
int link_receive(struct link *l, uint8_t *rx, size_t rx_n, link_take *take, void *ctx) must_check;

#endif
