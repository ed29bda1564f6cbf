/* SPDX-License-Identifier: MIT */
/*
 * gnuplot, as a program that is given a script and answers with a drawing.
 */
#ifndef SSDTF_BENCH_GNUPLOT_H
#define SSDTF_BENCH_GNUPLOT_H

#include <stdio.h>

struct plot;

/* The drawing alone, as SVG within a page. Something of p must have been measured. Ends the program
 * where gnuplot is not there or fails. */
void gnuplot_draw(FILE *to, const struct plot *p);

#endif
