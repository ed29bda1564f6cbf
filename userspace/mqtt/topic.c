// SPDX-License-Identifier: MIT
#include "userspace/mqtt/topic.h"

#include <string.h>

/* [MQTT-4.7.3-1] not empty, [MQTT-4.7.3-3] at most 65,535 bytes. */
static bool length_ok(struct bytes topic)
{
	return topic.n > 0 && topic.n <= UINT16_MAX;
}

/* [MQTT-4.7.1-3] '+' fills its level; [MQTT-4.7.1-2] so does '#', which is the last one. */
static bool wildcards_ok(struct bytes filter)
{
	for (size_t i = 0; i < filter.n; i++) {
		bool last = i + 1 == filter.n;

		if (filter.p[i] != '+' && filter.p[i] != '#')
			continue;
		if (i > 0 && filter.p[i - 1] != '/')
			return false;
		if (!last && (filter.p[i] == '#' || filter.p[i + 1] != '/'))
			return false;
	}
	return true;
}

enum mqtt_reason mqtt_topic_name_check(struct bytes topic)
{
	if (!mqtt_utf8_ok(topic))
		return MQTT_MALFORMED;
	/* [MQTT-4.7.1-1] no wildcards in a name. */
	if (!length_ok(topic) || memchr(topic.p, '+', topic.n) || memchr(topic.p, '#', topic.n))
		return MQTT_BAD_TOPIC;
	return MQTT_OK;
}

enum mqtt_reason mqtt_topic_filter_check(struct bytes filter)
{
	if (!mqtt_utf8_ok(filter))
		return MQTT_MALFORMED;
	return length_ok(filter) && wildcards_ok(filter) ? MQTT_OK : MQTT_BAD_TOPIC;
}

bool mqtt_topic_name_ok(struct bytes topic)
{
	return mqtt_topic_name_check(topic) == MQTT_OK;
}

bool mqtt_topic_filter_ok(struct bytes filter)
{
	return mqtt_topic_filter_check(filter) == MQTT_OK;
}
