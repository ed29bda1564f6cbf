/* SPDX-License-Identifier: MIT */
/*
 * Why a topic name or filter is refused. Private to userspace/mqtt; others ask mqtt_topic_*_ok().
 */
#ifndef SSDTF_MQTT_TOPIC_H
#define SSDTF_MQTT_TOPIC_H

#include "userspace/mqtt/packet.h"

/* MQTT_OK, MQTT_MALFORMED (no UTF-8 string of MQTT) or MQTT_BAD_TOPIC (empty, wildcards). */
enum mqtt_reason mqtt_topic_name_check(struct bytes topic) must_check;
enum mqtt_reason mqtt_topic_filter_check(struct bytes filter) must_check;

#endif
