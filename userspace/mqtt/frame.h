/* SPDX-License-Identifier: MIT */
/*
 * The fixed header, as the encoders of this folder write it. Private to userspace/mqtt.
 *
 *	byte 1    type << 4 | flags
 *	byte 2..  Remaining Length: 7 bits a byte, low ones first, bit 7 = another follows, 1 to 4
 *bytes
 *	...       body: Remaining Length bytes
 */
#ifndef SSDTF_MQTT_FRAME_H
#define SSDTF_MQTT_FRAME_H

#include "userspace/mqtt/packet.h"

#define MQTT_QOS_MAX 2

/* The first byte of every packet but PUBLISH: its flags are constants (table 2.2). */
uint8_t mqtt_frame_first(enum mqtt_type type);

/* A whole packet with a body of body_n bytes, or 0 where Remaining Length cannot say it. */
size_t mqtt_frame_bytes(size_t body_n);

/* Writes the fixed header; a body_n that Remaining Length cannot say is the sticky error. */
void mqtt_frame_begin(uint8_t first, size_t body_n, struct bytes_writer *w);

/* [MQTT-3.3.1-4]: no QoS 3; [MQTT-3.3.1-2]: no DUP at QoS 0. */
bool mqtt_publish_flags_ok(uint8_t first);

#endif
