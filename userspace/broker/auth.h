/* SPDX-License-Identifier: MIT */
/*
 * Mutual authentication inside MQTT 3.1.1 packets (PROTOCOL 5), and admission (PROTOCOL 6).
 */
#ifndef SSDTF_BROKER_AUTH_H
#define SSDTF_BROKER_AUTH_H

#include <stdbool.h>

#include "userspace/mqtt/packet.h"

struct broker_conn;

/* CONNECT arrived: checks id, nonce, admission and enrolment, answers CONNACK and the challenge, or
 * CONNACK with a refusal. c has id, level, flags and Will already. */
void auth_start(struct broker_conn *c, const struct mqtt_connect *p);
/* A PUBLISH before the session is open: the response, or the end of the connection. */
void auth_publish(struct broker_conn *c, const struct mqtt_publish *p);
/* The counter of its Will is on storage. */
void auth_committed(struct broker_conn *c);
/* The result has been sent. */
void auth_opened(struct broker_conn *c);

#endif
