/* SPDX-License-Identifier: MIT */
/*
 * What the broker answered, for people (a table) or for programs (one JSON object a line).
 */
#ifndef SSDTF_CTL_SHOW_H
#define SSDTF_CTL_SHOW_H

#include <stdbool.h>
#include <stdio.h>

#include "userspace/core/answer.h"

struct show_sample {
	struct answer_status status;
	uint64_t at_us; /* when it was asked for; of any clock that only goes on */
};

/* before: an earlier sample, for rates; NULL: totals only. */
void show_admission(const struct show_sample *now, const struct show_sample *before, bool json,
		    FILE *to);
void show_bans(const struct answer_list *l, bool json, FILE *to);
void show_sources(const struct answer_list *l, bool json, FILE *to);

#endif
