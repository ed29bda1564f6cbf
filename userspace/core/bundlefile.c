// SPDX-License-Identifier: MIT
#include "userspace/core/bundlefile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/base/file.h"

static int refuse(char *why, const char *path, int err, const char *fmt, ...) format_printf(4, 5);
static int refuse(char *why, const char *path, int err, const char *fmt, ...)
{
	char words[BUNDLEFILE_ERROR_BYTES / 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	snprintf(why, BUNDLEFILE_ERROR_BYTES, "%s: %s", path, words);
	return err;
}

static int check_time(const char *path, const struct statement *s, uint64_t wall_ms, char *why)
{
	if (record_valid_at(s->not_before_ms, s->not_after_ms, wall_ms))
		return 0;
	if (wall_ms < s->not_before_ms)
		return refuse(why, path, -ESTALE,
			      "is not valid yet: is this machine's clock right?");
	return refuse(why, path, -ESTALE,
		      "has run out: ask the manager for a new one (or is the clock wrong?)");
}

static int check(const char *path, const struct bundlefile_expect *e, struct bundlefile *b,
		 char *why)
{
	const struct statement *s = &b->statement;
	int err;

	if (statement_open(bytes_of(b->bytes, b->n), STATEMENT_GATEWAY, e->manager, &b->statement))
		return refuse(why, path, -EBADMSG,
			      "is not a whole gateway bundle signed by this manager's key");
	err = check_time(path, s, e->wall_ms, why);
	if (err)
		return err;
	if (bundle_gateway_decode(s->body, &b->gateway))
		return refuse(why, path, -EBADMSG, "is signed, but its records do not decode");
	if (!bytes_equal(b->gateway.broker.gateway_id, bytes_str(e->gateway_id)))
		return refuse(why, path, -EXDEV, "is for gateway '%.*s', this one is '%s'",
			      (int)b->gateway.broker.gateway_id.n,
			      (const char *)b->gateway.broker.gateway_id.p, e->gateway_id);
	if (s->serial < e->serial_min)
		return refuse(why, path, -ESTALE,
			      "has serial %llu; one with serial %llu was in force already",
			      (unsigned long long)s->serial, (unsigned long long)e->serial_min);
	return 0;
}

int bundlefile_read(const char *path, const struct bundlefile_expect *e, struct bundlefile *ret_b,
		    char why[BUNDLEFILE_ERROR_BYTES])
{
	struct bundlefile b = { 0 };
	mode_t mode;
	int err = file_read(AT_FDCWD, path, STATEMENT_BYTES(STATEMENT_BODY_BYTES_MAX), &b.bytes,
			    &b.n, &mode);

	if (err)
		return refuse(why, path, err, "%s", strerror(-err));
	if (mode & 077)
		err = refuse(why, path, -EPERM,
			     "has admission keys in it and is open to others (chmod 600)");
	else
		err = check(path, e, &b, why);
	if (err) {
		bundlefile_deinit(&b);
		return err;
	}
	*ret_b = b;
	return 0;
}

void bundlefile_deinit(struct bundlefile *b)
{
	if (b->bytes)
		secret_wipe(b->bytes, b->n);
	free(b->bytes);
	b->bytes = NULL;
}
