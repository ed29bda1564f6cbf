/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-bench compare: ssdtf-broker, plain, and mosquitto in turn through the same scenarios.
 */
#ifndef SSDTF_BENCH_COMPARE_H
#define SSDTF_BENCH_COMPARE_H

int compare_main(int argc, char **argv);

#endif
