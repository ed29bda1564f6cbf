/* SPDX-License-Identifier: MIT */
/*
 * The admission filter into the kernel: the object that the build put into this program, its maps
 * made, its programs verified. Needs CAP_BPF and CAP_PERFMON; what is loaded lives as long as a
 * descriptor, a pin or a socket holds it.
 */
#ifndef SSDTF_ADMIT_LOAD_H
#define SSDTF_ADMIT_LOAD_H

#include <stdint.h>

#include "userspace/base/compiler.h"

/* enum load_part follows ADMISSION_PIN_LIST. */
#define LOAD_PARTS 10

struct load;

/* 0 or -errno; then *ret_why has the first thing that libbpf or the verifier said, or "". */
int load_new(uint32_t devices_max, struct load **ret_load, const char **ret_why) must_check;
void load_free(struct load *l);

/* A descriptor of the part, which stays the load's. */
int load_fd(const struct load *l, unsigned part);
const char *load_name(unsigned part);

/* Of a program: what each socket is charged for it, and how much the verifier looked at. */
int load_program_sizes(int fd, uint32_t *ret_bytes, uint32_t *ret_verified) must_check;

#endif
