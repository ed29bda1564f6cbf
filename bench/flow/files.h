/* SPDX-License-Identifier: MIT */
/*
 * Open files: each connection is one on either side.
 */
#ifndef SSDTF_BENCH_FILES_H
#define SSDTF_BENCH_FILES_H

#include "bench/flow/scenario.h"

/* For this process and those that it starts. Ends the program where so many are not to be had. */
void files_allow(const struct scenario *s);

#endif
