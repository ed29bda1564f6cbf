/* SPDX-License-Identifier: MIT */
/*
 * How a page looks: one column on a telephone, two for plots where there is room; light or dark as
 * the reader's system is. It names no resource.
 */
#ifndef SSDTF_BENCH_STYLE_H
#define SSDTF_BENCH_STYLE_H

extern const char style_text[];

#endif
