/* SPDX-License-Identifier: MIT */
/*
 * The distributor's bundle as a file: read, its signature and validity checked, found to fit, and
 * made a plan.
 */
#ifndef SSDTF_DISTRIBUTOR_BUNDLEFILE_H
#define SSDTF_DISTRIBUTOR_BUNDLEFILE_H

#include <stdint.h>

#include "userspace/distributor/plan.h"

#define BUNDLEFILE_ERROR_BYTES 1280

/* What a bundle must fit. */
struct bundlefile_expect {
	const struct p256_public *manager;
	uint64_t serial_min; /* the one in force or stored: an older is refused */
	uint64_t wall_ms;
	/* The plan in force; NULL: none yet. Its id, signing key and gateways stay while the
	 * program runs. */
	const struct plan *now;
	bool has_downstream; /* the configuration names a second broker */
};

/*
 * 0; -ENOENT, -EACCES and the like of the file; -EPERM: open to others; -EBADMSG: cut short,
 * another manager's, or not a distributor bundle; -ESTALE: older, or outside of its time; -EXDEV:
 * of another distributor, or for other brokers than the configuration's. why then holds one line
 * that begins with the path.
 */
int bundlefile_read(const char *path, const struct bundlefile_expect *e, struct plan **ret_p,
		    char why[BUNDLEFILE_ERROR_BYTES]) must_check;

#endif
