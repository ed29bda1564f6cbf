/* SPDX-License-Identifier: MIT */
/*
 * A course's results: tables on standard output, JSON in a file.
 */
#ifndef SSDTF_BENCH_SHEET_H
#define SSDTF_BENCH_SHEET_H

#include "bench/ceiling/course.h"
#include "userspace/base/compiler.h"

struct sheet {
	int argc; /* the command as it was given */
	char *const *argv;
	const struct course *course;
	const struct course_ratio *ratios;
	unsigned n_ratios;
	const char *module; /* PKCS#11; NULL: none */
	const char *json;   /* path; NULL: none */
};

/* 0, or a sysexits.h code and the reason is said. */
int sheet_write(const struct sheet *s) must_check;

#endif
