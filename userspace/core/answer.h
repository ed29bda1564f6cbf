/* SPDX-License-Identifier: MIT */
/*
 * What an operator may ask the broker, and what it answers: one request in one packet, one answer
 * in one packet, both ASCII. Nothing here does I/O; operators.c serves it, ssdtfctl reads it.
 *
 *   admission                  mode, kernel, why, enforcing, devices, bans, pressure, and a line
 *                              filter.VERDICT N and broker.VERDICT N of each counter
 *   bans                       ban ADDRESS SECONDS_LEFT, the longest first
 *   sources                    source ADDRESS REJECTED LAST_VERDICT, the most rejected first
 *   ban ADDRESS SECONDS
 *   unban ADDRESS
 *
 * An answer's first line is "ok" or "error TEXT"; then come lines "key value". A list is cut to its
 * first ANSWER_BANS_MAX or ANSWER_SOURCES_MAX, with a last line "more N". Who reads an answer skips
 * lines whose key it does not know.
 */
#ifndef SSDTF_CORE_ANSWER_H
#define SSDTF_CORE_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"

#define ANSWER_REQUEST_BYTES_MAX 128
#define ANSWER_BYTES_MAX	 16384
#define ANSWER_BANS_MAX		 200
#define ANSWER_SOURCES_MAX	 50
#define ANSWER_BAN_SECONDS_MAX	 31536000 /* a year */
#define ANSWER_MODE_BYTES	 16
#define ANSWER_WHY_BYTES	 256
#define ANSWER_ERROR_BYTES	 128

struct admit_status;

typedef void answer_ban_fn(void *ctx, const struct admission_source *source, uint64_t left_ms);
typedef void answer_rejected_fn(void *ctx, const struct admission_source *source, uint64_t rejected,
				enum admission_verdict last);

/* Where answers come from. */
struct answer_ops {
	void (*status)(void *ctx, struct admit_status *ret_s);
	int (*ban)(void *ctx, const struct admission_source *source, uint64_t ms);
	bool (*unban)(void *ctx, const struct admission_source *source);
	void (*each_ban)(void *ctx, answer_ban_fn *each, void *each_ctx);
	void (*each_rejected)(void *ctx, answer_rejected_fn *each, void *each_ctx);
};

struct answer {
	char text[ANSWER_BYTES_MAX];
	size_t n;
	bool changed; /* the request did: it was a ban, or the end of one */
};

/* A newline may end the request. */
void answer_request(const struct answer_ops *ops, void *ctx, struct bytes request,
		    struct answer *ret_a);

/* "syn", "ok", ...; also of actions. */
const char *answer_verdict_name(unsigned counter);

/* --- the reader's side ------------------------------------------------------------------------ */

struct answer_status {
	char mode[ANSWER_MODE_BYTES];
	bool kernel, enforcing;
	char why[ANSWER_WHY_BYTES]; /* there is no filter; may be empty */
	uint64_t devices, bans, pressure_per_second;
	uint64_t filter[ADMISSION_COUNTERS], broker[ADMISSION_COUNTERS];
};

struct answer_row {
	struct admission_source source;
	uint64_t n;    /* seconds left, or rejects */
	unsigned last; /* verdict; ADMISSION_COUNTERS: none is told, or one that we do not know */
};

struct answer_list {
	struct answer_row rows[ANSWER_BANS_MAX];
	unsigned n;
	uint64_t more;
};

/* 0; -EREMOTEIO: "error", and its words are in error. -EBADMSG: not an answer. *ret_lines is a view
 * of what follows the first line. */
int answer_open(struct bytes answer, struct bytes *ret_lines,
		char error[ANSWER_ERROR_BYTES]) must_check;
/* -EBADMSG: a line is malformed, or the mode is missing. */
int answer_read_status(struct bytes lines, struct answer_status *ret_s) must_check;
/* key: "ban" or "source". -EBADMSG. */
int answer_read_list(struct bytes lines, const char *key, struct answer_list *ret_l) must_check;

#endif
