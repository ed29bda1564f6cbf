/* SPDX-License-Identifier: MIT */
/*
 * What sealed senders send, sealed ahead: sealing and signing cost more than delivering, and would
 * be what is measured. There is enough for the whole run at the highest rate that is plausible; a
 * faster one ends it early.
 */
#ifndef SSDTF_BENCH_MATERIAL_H
#define SSDTF_BENCH_MATERIAL_H

#include "bench/flow/scenario.h"
#include "bench/flow/tape.h"

struct site;
struct material;

/* Seals for so many of the site's devices, on all of these CPUs. The memory is shared, so children
 * have it. Ends the program where it cannot be made. seconds: of the run, warm-up included. */
struct material *material_new(const struct site *site, const struct scenario *s, double seconds,
			      const int *cpus, unsigned n_cpus);
void material_free(struct material *m);
/* A sender's. */
void material_tape(const struct material *m, unsigned sender, struct tape *ret_t);

#endif
