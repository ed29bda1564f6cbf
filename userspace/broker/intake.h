/* SPDX-License-Identifier: MIT */
/*
 * Bundles that a manager brings over its session (PROTOCOL 14). The engine sees to who speaks: the
 * signature, the role, the session's nonce and the number. What is said is the owner's to
 * understand, who has files; its answers go back signed.
 */
#ifndef SSDTF_BROKER_INTAKE_H
#define SSDTF_BROKER_INTAKE_H

#include <stdbool.h>

struct broker;
struct broker_conn;
struct publish_trailer;

/* A message on $SSDTF/bundle whose signature holds. False: malformed. */
bool intake_bundle(struct broker *b, struct broker_conn *conn, const struct publish_trailer *t);

#endif
