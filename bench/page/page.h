/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-bench page: one HTML page out of the files of the other commands. It contains all that it
 * shows, asks for nothing outside and runs no script.
 */
#ifndef SSDTF_BENCH_PAGE_H
#define SSDTF_BENCH_PAGE_H

int page_main(int argc, char **argv);

#endif
