/* SPDX-License-Identifier: MIT */
/*
 * The admission filter in the kernel, through the pins that ssdtf-admit left in a bpffs: attached
 * to listening sockets, which takes no capability, and its maps read and written (bpf/admission.h
 * says who writes what). When it enforces is not decided here: admit.c.
 *
 * Calls are system calls, some microseconds each; filter_sync() is one for each thousand devices,
 * the walks are two for each entry.
 */
#ifndef SSDTF_CORE_FILTER_H
#define SSDTF_CORE_FILTER_H

#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/broker/broker.h"

#define FILTER_WHY_BYTES 1280

/* What is opened of the pins; the filter alone knows the others. */
enum filter_part {
	FILTER_PROGRAM,
	FILTER_DEVICES,
	FILTER_BANS,
	FILTER_CONFIG,
	FILTER_SOURCES,
	FILTER_COUNTERS,
	FILTER_PARTS,
};

struct filter {
	int fds[FILTER_PARTS];
	int cpus;
	int lock;	 /* on the folder of the pins: they are one broker's */
	uint32_t bundle; /* counts filter_sync(), from a random number on */
};

/* -ENOENT: nothing is pinned in dir; -EPROTO: of another version; -EBUSY: another broker uses it;
 * -errno. why is one line then. */
int filter_open(const char *dir, struct filter *ret_f, char why[FILTER_WHY_BYTES]) must_check;
void filter_close(struct filter *f);

/* To a socket that does not listen yet. -ENOMEM: net.core.optmem_max is too small for it. */
int filter_attach(const struct filter *f, int listener) must_check;
void filter_detach(int listener);
/* Sets config's offset of the wall clock, and writes it. */
int filter_configure(const struct filter *f, struct admission_config *config) must_check;

/* Every party that is enrolled to the map, and nobody else. On an error (-E2BIG: there is no room
 * for all) the map must not be relied upon. */
int filter_sync(struct filter *f, const struct broker *broker, unsigned *ret_devices) must_check;

/* left_ms 0: banned no more. */
int filter_ban(const struct filter *f, const struct admission_source *source,
	       uint64_t left_ms) must_check;
/* Those that are over are removed; each may be NULL. */
void filter_each_ban(const struct filter *f,
		     void (*each)(void *ctx, const struct admission_source *source,
				  uint64_t left_ms),
		     void *ctx);

int filter_counters(const struct filter *f, uint64_t ret_counters[ADMISSION_COUNTERS]) must_check;
/* Their addresses may be forged. */
void filter_each_rejected(const struct filter *f,
			  void (*each)(void *ctx, const struct admission_source *source,
				       uint64_t rejected, enum admission_verdict last),
			  void *ctx);

#endif
