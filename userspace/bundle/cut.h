/* SPDX-License-Identifier: MIT */
/*
 * Where to cut a bundle that travels in pieces (PROTOCOL 14): by content, so that what is put in or
 * taken out moves the cuts beside it and no others, and all other pieces are the ones of before.
 *
 * A hash rolls over the last 64 bytes ("gear": shift, add what the byte stands for); a cut is where
 * its top bits are zero. The first 4 KiB of a piece are passed over, up to 12 KiB the condition is
 * hard to fulfil and beyond it is easy, so that most pieces are near the mean; at 64 KiB there is a
 * cut in any case. Same bytes, same cuts, everywhere and for ever: gateways cut what they have as
 * the manager does. Nothing here is secret.
 */
#ifndef SSDTF_BUNDLE_CUT_H
#define SSDTF_BUNDLE_CUT_H

#include "userspace/base/bytes.h"

#define CUT_BYTES_MIN  4096
#define CUT_BYTES_MEAN 16384
#define CUT_BYTES_MAX  65536

/* How many bytes the first piece of v has, 1 to CUT_BYTES_MAX; v is not empty. What is more than
 * CUT_BYTES_MAX ahead need not be there. */
size_t cut_next(struct bytes v);

#endif
