/* SPDX-License-Identifier: MIT */
/*
 * A bundle that comes in pieces, on its way together (PROTOCOL 14): files of the broker's own.
 *
 *   STATE/incoming/part       sparse; each piece that is here stands at its place
 *   STATE/incoming/manifest   what it is to become
 *   STATE/incoming/old.*      the offer before, of which pieces may be of use
 *   STATE/bundle              the last that became whole, and was applied
 *   STATE/bundle.manifest     how that was cut
 *
 * Nothing is written down about which pieces are here: pieces_search() finds them by their hashes,
 * in what an earlier offer left and in the bundle in force, so that no crash can make anything of
 * it untrue. One that was lost with the power is asked for again. Files are mode 0600 (a bundle has
 * admission keys in it), folders 0700. One thread.
 */
#ifndef SSDTF_CORE_PIECES_H
#define SSDTF_CORE_PIECES_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/bundle/manifest.h"

#define PIECES_BUNDLE	"bundle"
#define PIECES_MANIFEST "bundle.manifest"

struct pieces;

/* manifest is the whole statement, checked, and m what it decodes to; copied. What STATE/incoming
 * has of another manifest becomes old. in_force: path of the bundle in force. 0 or -errno. */
int pieces_open(const char *state_dir, const char *in_force, struct bytes manifest,
		struct pieces **ret_p) must_check;
/* Leaves its files as they are. NULL ok. */
void pieces_free(struct pieces *p);

const struct manifest *pieces_manifest(const struct pieces *p);
/* The whole statement. */
struct bytes pieces_statement(const struct pieces *p);

/* Looks for pieces in some `budget` bytes more of what there is. *ret_done: there is no more. 0, or
 * -errno where what was found could not be kept. */
int pieces_search(struct pieces *p, size_t budget, bool *ret_done) must_check;

/* The first piece from `from` on that is not here; n_pieces where there is none. */
uint32_t pieces_missing(const struct pieces *p, uint32_t from);
/* -EBADMSG: it is not what the manifest says; -errno. One that is here is fine. */
int pieces_put(struct pieces *p, uint32_t index, struct bytes piece) must_check;

/* The file, for whoever syncs and reads it before pieces_keep(). */
int pieces_fd(const struct pieces *p);
const char *pieces_path(const struct pieces *p);
/* It is whole and synced: becomes STATE/bundle, old or new whatever happens, and is there for good.
 * 0 or -errno. Incoming is empty then. */
int pieces_keep(struct pieces *p) must_check;

#endif
