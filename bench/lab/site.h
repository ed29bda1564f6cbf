/* SPDX-License-Identifier: MIT */
/*
 * A gateway and those who know it, made with the real programs in the lab's folder:
 *
 *   manager/  token, registry         gateway/   token, gateway.bundle, run/ (sockets of hsmd)
 *   parties/device-000 ...            each with signing.pem and bundle
 *   parties/receiver-000 ...          with encryption.pem besides
 *
 * One scope, bench/#: each device may publish there, each receiver read. gateway/ belongs to
 * nobody, as whom ssdtf-hsmd and ssdtf-broker run. What cannot be made ends the program.
 */
#ifndef SSDTF_BENCH_SITE_H
#define SSDTF_BENCH_SITE_H

#include <stdbool.h>

#include "bench/lab/child.h"
#include "bench/lab/lab.h"

#define SITE_PATH_BYTES	 512
#define SITE_DEVICES_MAX 20000
#define SITE_ID_BYTES	 24

struct site {
	const struct lab *lab;
	char programs[SITE_PATH_BYTES]; /* the folder of the ssdtf- programs */
	unsigned n_devices, n_receivers;
	struct child hsmd;
};

/* programs: NULL for the folder that this program is in. -ENOENT where something that it takes is
 * missing, and then *ret_missing names it and what to do. To be asked before anything is made. */
int site_find(struct site *s, const char *programs, char *ret_missing, size_t room) must_check;
/* Keys, enrolments, bundles. */
void site_make(struct site *s, const struct lab *lab, unsigned n_devices, unsigned n_receivers);
/* Nothing but the folder, for brokers without SSDTF. */
void site_make_plain(struct site *s, const struct lab *lab);
/* ssdtf-hsmd with so many processes, on one CPU (-1: where this process may be); a broker waits for
 * it. */
void site_start_hsmd(struct site *s, unsigned workers, int cpu);

/* The paths of what it made; all stay below SITE_PATH_BYTES. */
void site_program(const struct site *s, const char *name, char *path);
void site_path(const struct site *s, const char *name, char *path);
void site_device_id(unsigned i, char id[SITE_ID_BYTES]);
void site_receiver_id(unsigned i, char id[SITE_ID_BYTES]);

#endif
