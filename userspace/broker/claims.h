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
 * Is the key that this connection claimed the one that its party has now? Then it may stay, though
 * the party had the claim code's before: the claim was signed by the new key, over this session's
 * nonce, and so stands for a response of its own.
 */
bool claims_certified(const struct broker_conn *conn);

#endif
