/* SPDX-License-Identifier: MIT */
/*
 * The way in: what the gate (admission, bans) means for a connection. In plain mode and where
 * admission is off, everybody may enter and nobody is blamed.
 */
#ifndef SSDTF_BROKER_ENTRY_H
#define SSDTF_BROKER_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

struct broker;
struct broker_conn;

void entry_init(struct broker *b);

/* May this address connect? False: it is banned. */
bool entry_may_connect(struct broker *b, const uint8_t address[16]);
/* Its CONNECT, whole, as it came. */
void entry_judge(struct broker_conn *c, struct bytes packet);
/* Is a CONNECT like this one let in? */
bool entry_admitted(const struct broker_conn *c);
/* It is refused: does it get an answer, or does the connection end in silence? */
bool entry_may_tell(struct broker_conn *c);

/* Its peer did what no client does that is enrolled here. The connection is about to end. */
void entry_blame(struct broker_conn *c);
/* It authenticated. */
void entry_passed(struct broker_conn *c);

#endif
