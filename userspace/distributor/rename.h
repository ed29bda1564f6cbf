/* SPDX-License-Identifier: MIT */
/*
 * The public topic of a message (PROTOCOL 12): the outlet's prefix, a slash, and the topic as
 * delivered, in which each level that is the sender's id is replaced by another name.
 *
 *   plant/sensor-17/temp  --prefix open, name 7f3a...-->  open/plant/7f3a.../temp
 */
#ifndef SSDTF_DISTRIBUTOR_RENAME_H
#define SSDTF_DISTRIBUTOR_RENAME_H

#include <stdbool.h>
#include <stddef.h>

#include "userspace/base/bytes.h"

#define RENAME_TOPIC_BYTES_MAX 65535 /* MQTT's */

/* Does the topic name the sender in another way, as a part of a level? Then it is not published. */
bool rename_betrays(struct bytes topic, struct bytes id);
/* How long the public topic is; above RENAME_TOPIC_BYTES_MAX: there is none. */
size_t rename_bytes(struct bytes prefix, struct bytes topic, struct bytes id, size_t name_n);
/* Writes it. With the name "+" it is what an observer sees alike of all senders. */
void rename_write(struct bytes prefix, struct bytes topic, struct bytes id, struct bytes name,
		  struct bytes_writer *w);

#endif
