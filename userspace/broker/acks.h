/* SPDX-License-Identifier: MIT */
/*
 * PUBACKs (at QoS 2: PUBRECs) owed to a connection, sent in the order of its PUBLISH packets
 * [MQTT-4.6.0-2], [MQTT-4.6.0-3], each once what it waits for has happened: a commit (commit.h) or
 * the error message that precedes it (signer.h). A connection that is owed many is not read from
 * until it is owed fewer.
 */
#ifndef SSDTF_BROKER_ACKS_H
#define SSDTF_BROKER_ACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/compiler.h"
#include "userspace/base/list.h"
#include "userspace/mqtt/packet.h"

struct broker_conn;

struct ack {
	struct list link;	  /* in the connection's, in order */
	struct list wait;	  /* its waiter's */
	struct broker_conn *conn; /* counted */
	uint16_t packet_id;
	uint8_t qos;
	bool ready;
};

/* How a PUBLISH of QoS 1 or 2 is acknowledged. */
static inline enum mqtt_type ack_type(uint8_t qos)
{
	return qos == 2 ? MQTT_PUBREC : MQTT_PUBACK;
}

/* The next in order. NULL: no memory, or nothing is owed (QoS 0, connection not open); the
 * connection has been ended in the former case. */
struct ack *ack_new(struct broker_conn *c, uint8_t qos, uint16_t packet_id) must_check;
/* It may go: it and all that waited behind it are sent. NULL is fine. */
void ack_ready(struct ack *a);
/* The connection closes: those that are ready but not their turn yet are let go. */
void acks_close(struct broker_conn *c);
/* It will never go, and the connection is gone or going. NULL is fine. */
void ack_drop(struct ack *a);

#endif
