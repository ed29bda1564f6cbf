/* SPDX-License-Identifier: MIT */
/*
 * Words and numbers of a page. Text from outside goes through html_text() and nothing else.
 */
#ifndef SSDTF_BENCH_HTML_H
#define SSDTF_BENCH_HTML_H

#include <stdio.h>

struct figure;

#define HTML_NUMBER_BYTES 32

/* For element content and for attributes in double quotes. */
void html_text(FILE *to, const char *text);
/* Three digits, and k or M: "12.3 k". */
void html_number(double v, char out[HTML_NUMBER_BYTES]);
/* Median and, where it was measured more than once, the least and the most; "not measured" where
 * there is none. unit may be empty. */
void html_figure(FILE *to, const struct figure *f, const char *unit);
/* The same as a cell of a table. */
void html_figure_cell(FILE *to, const struct figure *f, const char *unit);
void html_text_cell(FILE *to, const char *text);
/* <section> with its heading, and a line below it (or NULL); what follows is in it. */
void html_section(FILE *to, const char *id, const char *title, const char *line);
void html_section_end(FILE *to);
/* A table in a box of its own that scrolls; columns end with NULL, those after the first are
 * numbers. */
void html_table(FILE *to, const char *const *columns);
void html_table_end(FILE *to);

#endif
