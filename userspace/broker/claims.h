/* SPDX-License-Identifier: MIT */
/*
 * Claims (PROTOCOL 15) on their way from a device to the managers that are here, and what a manager
 * decides on its way back. Whether a claim holds is the manager's to say; the broker sees to it
 * that who claims has the key that it is enrolled with, and is this session.
 */
#ifndef SSDTF_BROKER_CLAIMS_H
#define SSDTF_BROKER_CLAIMS_H

#include <stdbool.h>

struct broker;
struct broker_conn;
struct message;
struct publish_trailer;

/* A message on $SSDTF/claim whose signature holds. False: malformed. */
bool claims_message(struct broker *b, struct broker_conn *conn, struct message *m,
		    const struct publish_trailer *t);
/*
 * Another bundle is in force. A connection whose party has by it the key that was claimed there is
 * from now on one that authenticated by that key: the claim was signed by it, over this session's
 * nonce, and so stands for a response. It stays, for the answer and for what the device does next.
 */
void claims_bundle(struct broker *b);

#endif
