// SPDX-License-Identifier: MIT
#include "userspace/manager/labels.h"

#include <errno.h>
#include <fcntl.h>
#include <qrencode.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In modules: the empty margin that a reader needs (ISO/IEC 18004), and in tenths of a millimetre
 * what a camera held over it by hand still tells apart. */
#define QUIET_MODULES	 4
#define MODULE_TENTHS_MM 6

static int make_file(struct manager *m, const char *path, FILE **ret_f)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	FILE *f;

	if (fd < 0)
		return manager_fail_file(m, -errno, "write", path);
	if (fchmod(fd, 0600)) { /* one that was there before */
		int err = -errno;

		(void)close(fd); /* nothing was written */
		return manager_fail_file(m, err, "write", path);
	}
	f = fdopen(fd, "w");
	if (!f) {
		(void)close(fd); /* nothing was written */
		return manager_fail(m, -ENOMEM, "out of memory");
	}
	*ret_f = f;
	return 0;
}

static int end_file(struct manager *m, FILE *f, const char *path)
{
	int bad = ferror(f);

	/* Not synced: it can be made anew from the code. */
	return fclose(f) || bad ? manager_fail_file(m, errno ? -errno : -EIO, "write", path) : 0;
}

/* --- a QR code ----------------------------------------------------------------------------- */

static bool is_dark(const QRcode *q, int x, int y)
{
	return q->data[y * q->width + x] & 1;
}

/* Each run of dark modules is a rectangle of the path: to the right, down, and back. */
static void put_modules(FILE *f, const QRcode *q)
{
	for (int y = 0; y < q->width; y++) {
		for (int x = 0, end; x < q->width; x = end + 1) {
			for (end = x; end < q->width && is_dark(q, end, y); end++)
				;
			if (end > x)
				(void)fprintf(f, "M%d %dh%dv1h-%dz", x + QUIET_MODULES,
					      y + QUIET_MODULES, end - x, end - x);
		}
	}
}

static void put_svg(FILE *f, const QRcode *q, const char *id)
{
	int side = q->width + 2 * QUIET_MODULES, tenths = side * MODULE_TENTHS_MM;

	/* An id has no character that XML would mind. */
	(void)fprintf(
		f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d.%dmm\" height=\"%d.%dmm\""
		" viewBox=\"0 0 %d %d\" shape-rendering=\"crispEdges\">\n<title>%s</title>\n"
		"<path fill=\"#fff\" d=\"M0 0h%dv%dh-%dz\"/>\n<path d=\"",
		tenths / 10, tenths % 10, tenths / 10, tenths % 10, side, side, id, side, side,
		side);
	put_modules(f, q);
	(void)fprintf(f, "\"/>\n</svg>\n");
}

int labels_write_svg(struct manager *m, const char *folder, const char *id, const char *code)
{
	char name[MANAGER_ID_ROOM + 4], path[FILE_PATH_BYTES_MAX];
	QRcode *q;
	FILE *f;
	int err;

	(void)snprintf(name, sizeof(name), "%s.svg", id); /* an id, so it fits */
	err = file_join(folder, name, path);
	if (err)
		return manager_fail_file(m, err, "write", folder);
	/* Level M mends 15 % of what a label loses by scratches. */
	q = QRcode_encodeString8bit(code, 0, QR_ECLEVEL_M);
	if (!q)
		return manager_fail(m, -errno, "cannot make a QR code: %s", strerror(errno));
	err = make_file(m, path, &f);
	if (!err) {
		put_svg(f, q, id);
		err = end_file(m, f, path);
	}
	QRcode_free(q);
	return err;
}

/* --- the sheet ----------------------------------------------------------------------------- */

static const char head[] =
	"<!DOCTYPE html>\n"
	"<html lang=\"en\">\n"
	"<head>\n"
	"<meta charset=\"utf-8\">\n"
	"<title>Claim codes</title>\n"
	"<style>\n"
	"@page { size: A4; margin: 10mm; }\n"
	"body { margin: 0; font: 9pt/1.2 monospace; color: #000; background: #fff; }\n"
	"main { display: grid; grid-template-columns: repeat(auto-fill, 47mm); }\n"
	"figure { margin: 0; padding: 2mm; box-sizing: border-box; width: 47mm;\n"
	"  border: 0.2mm dashed #999; text-align: center; break-inside: avoid; }\n"
	"img { width: 41mm; height: 41mm; display: block; margin: 0 auto; }\n"
	"figcaption { overflow-wrap: anywhere; }\n"
	"</style>\n"
	"</head>\n"
	"<body>\n"
	"<main>\n";

int labels_begin(struct manager *m, struct labels *l, const char *folder)
{
	int err;

	*l = (struct labels){ 0 };
	err = file_join(folder, LABELS_SHEET, l->path);
	if (!err)
		err = file_join(folder, LABELS_SHEET ".tmp", l->tmp);
	if (err)
		return manager_fail_file(m, err, "write", folder);
	err = make_file(m, l->tmp, &l->f);
	if (!err)
		(void)fputs(head, l->f); /* labels_end() looks whether all went well */
	return err;
}

void labels_add(struct labels *l, const char *id)
{
	/* "./": an id may have a colon, and would be taken for a scheme. */
	(void)fprintf(
		l->f,
		"<figure><img src=\"./%s.svg\" alt=\"\"><figcaption>%s</figcaption></figure>\n", id,
		id);
}

int labels_end(struct manager *m, struct labels *l)
{
	FILE *f = l->f;
	int err;

	(void)fputs("</main>\n</body>\n</html>\n", f);
	l->f = NULL;
	err = end_file(m, f, l->tmp);
	if (!err && rename(l->tmp, l->path))
		err = manager_fail_file(m, -errno, "write", l->path);
	if (err)
		(void)unlink(l->tmp); /* it is worth nothing */
	return err;
}

void labels_drop(struct labels *l)
{
	if (!l->f)
		return;
	(void)fclose(l->f); /* it goes */
	(void)unlink(l->tmp);
	l->f = NULL;
}
