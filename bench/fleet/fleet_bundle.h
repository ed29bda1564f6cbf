/* SPDX-License-Identifier: MIT */
/*
 * A gateway bundle of very many, signed by a manager of its own. What goes wrong ends the program.
 */
#ifndef SSDTF_BENCH_FLEET_BUNDLE_H
#define SSDTF_BENCH_FLEET_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

struct site;
struct fleet_bundle;

/* n devices and n grants, for the site's gateway; its manager's public key goes to manager_pub. */
struct fleet_bundle *fleet_bundle_new(const struct site *s, unsigned n, const char *manager_pub);
/* Signed with this serial and in the file (mode 0600, nobody's). */
void fleet_bundle_write(struct fleet_bundle *b, uint64_t serial, const char *path);
size_t fleet_bundle_bytes(const struct fleet_bundle *b);
void fleet_bundle_free(struct fleet_bundle *b);

#endif
