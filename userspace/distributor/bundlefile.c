// SPDX-License-Identifier: MIT
#include "userspace/distributor/bundlefile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/file.h"
#include "userspace/base/secret.h"
#include "userspace/bundle/statement.h"

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

static int check_statement(const char *path, const struct bundlefile_expect *e,
			   const struct statement *s, char *why)
{
	if (!record_valid_at(s->not_before_ms, s->not_after_ms, e->wall_ms))
		return refuse(why, path, -ESTALE,
			      e->wall_ms < s->not_before_ms
				      ? "is not valid yet: is this machine's clock right?"
				      : "has run out: ask the manager for a new one (or is the "
					"clock wrong?)");
	if (s->serial < e->serial_min)
		return refuse(why, path, -ESTALE,
			      "has serial %llu; one with serial %llu was in force already",
			      (unsigned long long)s->serial, (unsigned long long)e->serial_min);
	return 0;
}

static bool same_point(const struct p256_point *a, const struct p256_point *b)
{
	return !memcmp(a->b, b->b, sizeof(a->b));
}

/* What sessions and signatures under way are made with does not change beneath them. */
static int check_fits(const char *path, const struct bundlefile_expect *e, const struct plan *p,
		      char *why)
{
	const struct bundle_distributor *b = &p->bundle;
	const struct bundle_distributor *now = e->now ? &e->now->bundle : NULL;

	if (!p->one_broker && !e->has_downstream)
		return refuse(why, path, -EXDEV,
			      "publishes at gateway '%.*s' and subscribes at '%.*s': the "
			      "configuration needs 'downstream'",
			      (int)b->to.gateway_id.n, (const char *)b->to.gateway_id.p,
			      (int)b->from.gateway_id.n, (const char *)b->from.gateway_id.p);
	if (!now)
		return 0;
	if (!bytes_equal(b->id, now->id))
		return refuse(why, path, -EXDEV, "is for distributor '%.*s', this one is '%.*s'",
			      (int)b->id.n, (const char *)b->id.p, (int)now->id.n,
			      (const char *)now->id.p);
	if (!same_point(&b->signing, &now->signing) ||
	    memcmp(b->unwrap_key_hash, now->unwrap_key_hash, sizeof(b->unwrap_key_hash)) != 0 ||
	    !bytes_equal(b->from.gateway_id, now->from.gateway_id) ||
	    !bytes_equal(b->to.gateway_id, now->to.gateway_id))
		return refuse(why, path, -EXDEV,
			      "has other keys of this distributor, or other gateways: that takes a "
			      "restart");
	return 0;
}

static int make_plan(const char *path, const struct bundlefile_expect *e, uint8_t *bytes, size_t n,
		     struct plan **ret_p, char *why)
{
	struct statement s;
	struct plan *p;
	int err;

	if (statement_open(bytes_of(bytes, n), STATEMENT_DISTRIBUTOR, e->manager, &s))
		return refuse(why, path, -EBADMSG,
			      "is not a whole distributor bundle signed by this manager's key");
	err = check_statement(path, e, &s, why);
	if (err)
		return err;
	err = plan_new(bytes, n, &s, &p);
	if (err == -ENOMEM)
		return refuse(why, path, err, "no memory");
	if (err)
		return refuse(why, path, -EBADMSG,
			      "is signed, but its records do not fit together");
	err = check_fits(path, e, p, why);
	if (err) {
		p->bytes = NULL; /* the caller's still */
		plan_put(p);
		return err;
	}
	*ret_p = p;
	return 0;
}

int bundlefile_read(const char *path, const struct bundlefile_expect *e, struct plan **ret_p,
		    char why[BUNDLEFILE_ERROR_BYTES])
{
	uint8_t *bytes;
	mode_t mode;
	size_t n;
	int err = file_read(AT_FDCWD, path, STATEMENT_BYTES(STATEMENT_BODY_BYTES_MAX), &bytes, &n,
			    &mode);

	if (err)
		return refuse(why, path, err, "%s", strerror(-err));
	if (mode & 077)
		err = refuse(why, path, -EPERM,
			     "has an admission key in it and is open to others (chmod 600)");
	else
		err = make_plan(path, e, bytes, n, ret_p, why);
	if (err) {
		secret_wipe(bytes, n);
		free(bytes);
	}
	return err;
}
