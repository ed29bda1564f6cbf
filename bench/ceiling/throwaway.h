/* SPDX-License-Identifier: MIT */
/*
 * A token in SoftHSM with a gateway's keys, made in a folder of ours and gone with it.
 */
#ifndef SSDTF_BENCH_THROWAWAY_H
#define SSDTF_BENCH_THROWAWAY_H

#include <stdbool.h>

#include "bench/ceiling/scratch.h"
#include "hsm/token.h"

#define THROWAWAY_PATH_BYTES (SCRATCH_PATH_BYTES + 32)

struct throwaway {
	struct token_config config; /* into the paths */
	char pin[THROWAWAY_PATH_BYTES], lock[THROWAWAY_PATH_BYTES];
};

/* Whether SoftHSM is installed. */
bool throwaway_possible(void);
/* Takes a second or two, for the RSA key. The module is not loaded in this process. Ends the
 * program where it cannot be made. */
void throwaway_make(struct throwaway *t, const char *dir);

#endif
