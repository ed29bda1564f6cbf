/* SPDX-License-Identifier: MIT */
/*
 * An admission source as people write it: 192.0.2.7, or 2001:db8:1:2::/64, for of an IPv6 address
 * only the first 64 bits count; but for those that are a host's (bpf/admission.h), such as fe80::1.
 */
#ifndef SSDTF_CORE_SOURCE_H
#define SSDTF_CORE_SOURCE_H

#include "bpf/admission.h"
#include "userspace/base/bytes.h"

#define SOURCE_TEXT_BYTES_MAX 48 /* with the terminator */

/* -EINVAL: not such a text. */
int source_parse(struct bytes text, struct admission_source *ret_s) must_check;
/* Returns out. */
char *source_text(const struct admission_source *s, char out[SOURCE_TEXT_BYTES_MAX]);

#endif
