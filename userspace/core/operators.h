/* SPDX-License-Identifier: MIT */
/*
 * The broker's control socket: SOCK_SEQPACKET, one request packet, one answer packet (answer.h has
 * what is in them). Its mode is 0660: who may write to the path may ask.
 *
 * PATH.lock is held as long as the socket is there, so that of two brokers one has it. What a dead
 * one left is replaced; what answers there, or is no socket, is left alone.
 *
 * Nothing that a peer does stops or slows the loop:
 *   - one thing is done for peers in a turn: one is let in, or one request is answered;
 *   - then none for OPERATORS_SHARE times as long as it took, and OPERATORS_GAP_MS at least;
 *   - nothing blocks; a peer that does not take its answers is cut off;
 *   - one more than OPERATORS_MAX takes the place of the one that was silent longest.
 *
 * Not thread-safe; the loop's.
 */
#ifndef SSDTF_CORE_OPERATORS_H
#define SSDTF_CORE_OPERATORS_H

#include <stdint.h>

#include "userspace/base/compiler.h"

#define OPERATORS_MAX	 8
#define OPERATORS_GAP_MS 2
#define OPERATORS_SHARE	 20

struct answer_ops;
struct operators;
struct ring;

/* ops and ctx answer; they outlive it. -EADDRINUSE: another broker has the socket, or another
 * program answers there; -ENOTSOCK: something else stands there; -ENAMETOOLONG; -errno. */
int operators_new(const char *path, struct ring *r, const struct answer_ops *ops, void *ctx,
		  struct operators **ret_o) must_check;
/* Removes the socket. The ring may be gone already. NULL is fine. */
void operators_free(struct operators *o);
/* What an error of operators_new() means, to stand behind the path. */
const char *operators_explain(int error);

/* Once a turn, after completions were told: does the one thing, arms polls. */
void operators_turn(struct operators *o, uint64_t now_ms);
/* Until operators_turn() must be called even if nothing happens; UINT64_MAX: never. */
uint64_t operators_wait_ms(const struct operators *o);

#endif
