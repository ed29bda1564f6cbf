/* SPDX-License-Identifier: MIT */
/*
 * Claim codes to be printed: each as a QR code (ISO/IEC 18004, by libqrencode) in an SVG file of
 * its own, and a sheet of many, labels.html, that refers to those. What is printed is as secret as
 * the code until the device has claimed, so the files are of mode 0600.
 */
#ifndef SSDTF_MANAGER_LABELS_H
#define SSDTF_MANAGER_LABELS_H

#include <stdio.h>

#include "userspace/manager/manager.h"

#define LABELS_SHEET "labels.html"

/* FOLDER/ID.svg, replacing what is there. */
int labels_write_svg(struct manager *m, const char *folder, const char *id,
		     const char *code) must_check;

/* The sheet takes the place of the old one when it is whole. */
struct labels {
	FILE *f; /* NULL: there is none */
	char path[FILE_PATH_BYTES_MAX], tmp[FILE_PATH_BYTES_MAX];
};

int labels_begin(struct manager *m, struct labels *l, const char *folder) must_check;
void labels_add(struct labels *l, const char *id);
int labels_end(struct manager *m, struct labels *l) must_check;
/* Without one: the old sheet stays. Also after labels_end(). */
void labels_drop(struct labels *l);

#endif
