/* SPDX-License-Identifier: MIT */
/*
 * Where ssdtf-pub's messages come from: one given, one read whole, or one per line; one given or
 * read may be repeated. Never waits: the caller polls input_fd().
 */
#ifndef SSDTF_CLIENT_INPUT_H
#define SSDTF_CLIENT_INPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

#define INPUT_BYTES_MAX (64u << 20) /* of one message */

struct input {
	int fd;		/* read from, -1: all is in buffer */
	bool lines;	/* a message ends at a newline, which is not part of it */
	uint32_t times; /* left to give the whole */
	uint32_t delay_ms;
	uint64_t next_ms;
	bool eof;
	uint8_t *buffer;
	size_t used, room;
	size_t taken;	/* of used: given out already */
	size_t scanned; /* of used: has no newline behind taken */
};

/* times counts the first one; 1 where it is not to be repeated. */
void input_init_message(struct input *in, struct bytes message, uint32_t times, uint32_t delay_ms);
void input_init_fd(struct input *in, int fd, bool lines, uint32_t times, uint32_t delay_ms);
void input_deinit(struct input *in);

/* To be polled for reading before input_fill(); -1: nothing more is to be read. */
int input_fd(const struct input *in);
/* Reads what is there. 0 or -errno; -EMSGSIZE: a message longer than INPUT_BYTES_MAX. */
int input_fill(struct input *in) must_check;

/* 0: a message, a view until the next call; -EAGAIN: not now (see input_next_ms); -ENODATA: no
 * more. */
int input_next(struct input *in, uint64_t now_ms, struct bytes *ret_message) must_check;
/* When a repetition is due; UINT64_MAX: none is waited for. */
uint64_t input_next_ms(const struct input *in);

#endif
