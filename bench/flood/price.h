/* SPDX-License-Identifier: MIT */
/*
 * What the filter costs a good client's connect, with no flood: two brokers side by side, one with
 * the filter and one that checks by itself, take turns (A B A B) at the same open-loop rate. What
 * one connect costs with the filter, less what it costs without in the same pair, is one value of
 * the difference. Then the filter's broker alone, with the kernel keeping account of the program.
 */
#ifndef SSDTF_BENCH_PRICE_H
#define SSDTF_BENCH_PRICE_H

#include "bench/lab/figure.h"
#include "bench/flood/trial.h"

#define PRICE_PAIRS_MAX 100

struct price {
	bool measured;
	unsigned n;
	double server_us[PRICE_PAIRS_MAX], core_us[PRICE_PAIRS_MAX], machine_us[PRICE_PAIRS_MAX];
	double with_us[PRICE_PAIRS_MAX], without_us[PRICE_PAIRS_MAX]; /* core, a connect */
	bool counted;	     /* the kernel's account is there: */
	double runs, run_us; /* of a connect: runs of the filter, and the time of all of them */
};

void price_measure(const struct trial_bench *b, unsigned pairs, struct price *ret_p);

#endif
