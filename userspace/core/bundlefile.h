/* SPDX-License-Identifier: MIT */
/*
 * The gateway bundle as a file: read, its signature and validity checked, found to be for this
 * gateway. What it says is applied by the engine.
 */
#ifndef SSDTF_CORE_BUNDLEFILE_H
#define SSDTF_CORE_BUNDLEFILE_H

#include <stdint.h>

#include "userspace/bundle/bundle.h"
#include "userspace/bundle/statement.h"

#define BUNDLEFILE_ERROR_BYTES 1280

struct bundlefile {
	uint8_t *bytes; /* has admission keys in it: wiped by bundlefile_deinit() */
	size_t n;
	struct statement statement;    /* views into bytes */
	struct bundle_gateway gateway; /* likewise */
};

/* What a bundle must fit. */
struct bundlefile_expect {
	const struct p256_public *manager;
	const char *gateway_id;
	uint64_t serial_min; /* the one in force or stored: an older is refused */
	uint64_t wall_ms;    /* now */
};

/*
 * 0; -ENOENT, -EACCES and the like of the file; -EPERM: open to others; -EBADMSG: cut short,
 * another manager's, or not a gateway bundle; -ESTALE: older, or outside of its time; -EXDEV:
 * another gateway's. why then holds one line that begins with the path.
 */
int bundlefile_read(const char *path, const struct bundlefile_expect *e, struct bundlefile *ret_b,
		    char why[BUNDLEFILE_ERROR_BYTES]) must_check;
void bundlefile_deinit(struct bundlefile *b);

#endif
