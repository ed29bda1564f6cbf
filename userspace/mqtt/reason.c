// SPDX-License-Identifier: MIT
#include "userspace/mqtt/packet.h"

const char *mqtt_reason_name(enum mqtt_reason r)
{
	switch (r) {
	case MQTT_OK:
		return "ok";
	case MQTT_MALFORMED:
		return "malformed packet";
	case MQTT_PROTOCOL_ERROR:
		return "protocol error";
	case MQTT_TOO_LARGE:
		return "packet too large";
	case MQTT_UNSUPPORTED_LEVEL:
		return "unsupported protocol level";
	case MQTT_IDENTIFIER_REJECTED:
		return "client identifier rejected";
	case MQTT_BAD_TOPIC:
		return "bad topic";
	case MQTT_QOS_UNSUPPORTED:
		return "QoS not supported";
	}
	return "unknown reason";
}
