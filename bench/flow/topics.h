/* SPDX-License-Identifier: MIT */
/*
 * The scenarios' topics: "bench/t/" and six digits, a sender's number or a retained message's.
 */
#ifndef SSDTF_BENCH_TOPICS_H
#define SSDTF_BENCH_TOPICS_H

#include "bench/flow/scenario.h"
#include "userspace/base/bytes.h"

#define TOPICS_BYTES 32

/* A view of text. */
struct bytes topics_write(unsigned number, char text[TOPICS_BYTES]);
/* False: it is none of them. */
bool topics_read(struct bytes topic, uint32_t *ret_number);
/* What receiver i subscribes to. */
struct bytes topics_filter(const struct scenario *s, unsigned i, char text[TOPICS_BYTES]);
/* One of the subscriptions that match nothing. */
struct bytes topics_other(unsigned i, char text[TOPICS_BYTES]);
/* Retained messages are published at QoS 1 at least, so that it is known when they are there;
 * subscriptions say at which they are delivered. So are those of ingress. */
unsigned topics_publish_qos(const struct scenario *s);

#endif
