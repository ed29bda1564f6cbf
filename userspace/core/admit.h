/* SPDX-License-Identifier: MIT */
/*
 * The kernel's half of admission, as the broker sees it: pins that ssdtf-admit left in a bpffs. It
 * attaches the filter to listening sockets, which needs no capability, keeps the filter's maps in
 * step with the engine (devices, bans, configuration), and decides whether the filter enforces.
 *
 *   off      nothing is attached
 *   monitor  the filter counts
 *   enforce  it drops, once the grace after the start is over
 *   auto     it drops while there is pressure: an accept queue half full, or many rejects a second
 *
 * The grace is for clients of the run before: their segments must reach TCP, which answers with
 * RST. Bans hold in enforce and auto at any time. Where there are no pins, or none of them may be
 * used, the broker's own gate does all that can be done once a socket exists; admit says why, once.
 *
 * Not thread-safe; the loop's.
 */
#ifndef SSDTF_CORE_ADMIT_H
#define SSDTF_CORE_ADMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/broker/broker.h"
#include "userspace/core/config.h"

struct admit;
struct listener_set;

/* What an operator asks for (ssdtfctl, $SYS, the log). */
struct admit_status {
	enum config_admission mode;
	bool kernel;	  /* a filter is attached */
	bool enforcing;	  /* and it drops */
	const char *why;  /* there is no filter, or it drops nobody; else "" */
	unsigned devices; /* in the filter's map */
	unsigned bans;
	uint64_t pressure_per_second;	     /* rejects in the last second */
	uint64_t filter[ADMISSION_COUNTERS]; /* of the kernel's verdicts, since they were pinned */
	uint64_t broker[ADMISSION_COUNTERS]; /* of the gate's, since the start */
};

/* Opens the pins that the configuration names. NULL only where there is no memory. */
struct admit *admit_new(const struct config *config) must_check;
void admit_free(struct admit *a);

/* The filter to each listener, before it listens. Where one refuses, none has it. */
void admit_attach(struct admit *a, const struct listener_set *listeners);
/* To the log: is there a filter, and why not? */
void admit_say(const struct admit *a);
/* Every enrolled party to the filter, and nobody else: after each bundle. */
void admit_sync(struct admit *a, const struct broker *b);
void admit_ban(struct admit *a, const struct admission_source *source, uint64_t left_ms);
/* Bans that an earlier run left in the filter, to the engine. */
void admit_restore_bans(struct admit *a, struct broker *b);

/* Looks at the pressure, keeps clock and mode of the filter right. To be called every turn. */
void admit_tick(struct admit *a, struct broker *b, const struct listener_set *listeners,
		uint64_t mono_ms);
uint64_t admit_wait_ms(const struct admit *a, uint64_t mono_ms);

void admit_status(const struct admit *a, const struct broker *b, struct admit_status *ret_s);
/* Sources whose segments were rejected: the filter's where there is one, else the gate's. Addresses
 * that the filter saw may be forged. */
void admit_each_rejected(const struct admit *a, const struct broker *b,
			 void (*each)(void *ctx, const struct admission_source *source,
				      uint64_t rejected, enum admission_verdict last),
			 void *ctx);

#endif
