/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-bench grow: what a message costs, and how many there can be, as one thing grows.
 */
#ifndef SSDTF_BENCH_GROW_H
#define SSDTF_BENCH_GROW_H

int grow_main(int argc, char **argv);

#endif
