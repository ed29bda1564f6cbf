/* SPDX-License-Identifier: MIT */
/*
 * Enrolment in bulk: a CSV file with a device a line, in one transaction. The header names the
 * columns, in any order:
 *
 *   id      the device's
 *   scopes  under which it may publish, separated by ';'
 *   clock   yes or no
 *   keys    path of its public signing key (PEM), from the file's own folder; empty: it makes its
 *           keys itself, and is given a claim code (claimcode.h)
 *
 * The file is read twice at least: nothing is written before every line was found good. Memory does
 * not grow with it. The same file again changes nothing, and mends what a crash left out: a code
 * that lies in the folder for a device that never was enrolled is taken.
 */
#ifndef SSDTF_MANAGER_BULK_H
#define SSDTF_MANAGER_BULK_H

#include "userspace/manager/manager.h"

struct bulk_order {
	const char *file;
	const char *folder;  /* for codes and labels */
	const char *gateway; /* where codes lead to; NULL: the only one */
	bool dry_run;	     /* say what would change */
	/* For each line that is not good: "FILE:line: what, and what to do". */
	void (*complain)(void *arg, const char *text);
	void *arg;
};

/* Begins and ends its own transaction. -EINVAL where a line is not good: nobody is enrolled then.
 */
int bulk_enrol(struct manager *m, const struct bulk_order *o) must_check;

#endif
