/* SPDX-License-Identifier: MIT */
/*
 * Files of a party's directory: read whole, replaced whole. A replaced file is the old one or the
 * new one after a crash, never a part of either. Errors: -errno of the call that failed; -EFBIG.
 */
#ifndef SSDTF_CLIENT_STATE_H
#define SSDTF_CLIENT_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

/* The file's bytes in memory of malloc. -ENOENT: there is none. dir AT_FDCWD: a path. */
int state_load(int dir, const char *name, size_t bytes_max, uint8_t **ret_p,
	       size_t *ret_n) must_check;
/* Written beside, synced, renamed over; on return it survives a power cut. Mode 0600. */
int state_store(int dir, const char *name, struct bytes v) must_check;

#endif
