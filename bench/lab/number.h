/* SPDX-License-Identifier: MIT */
/*
 * Numbers on the command line. One that is none, or out of its range, ends the program with a line
 * that names the option, the range and what was given.
 */
#ifndef SSDTF_BENCH_NUMBER_H
#define SSDTF_BENCH_NUMBER_H

/* name is the option's, without its dashes. */
unsigned number_of(const char *name, const char *arg, unsigned min, unsigned max);
double number_real_of(const char *name, const char *arg, double min, double max);
/* The one at the beginning of arg; *ret_end is behind it. */
unsigned number_first_of(const char *name, const char *arg, unsigned min, unsigned max,
			 const char **ret_end);

#endif
