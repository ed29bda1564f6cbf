// SPDX-License-Identifier: MIT
#include "userspace/manager/scope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

#define CLOCK_SLACK_MS (5 * 60 * 1000)
#define DAY_MS	       (24ull * 60 * 60 * 1000)
#define AAD_BYTES_MAX  (32 + 1 + MANAGER_ID_ROOM + 4 + 4)

void scope_validity(const struct manager *m, uint32_t days, uint64_t *ret_not_before_ms,
		    uint64_t *ret_not_after_ms)
{
	*ret_not_before_ms = m->now_ms > CLOCK_SLACK_MS ? m->now_ms - CLOCK_SLACK_MS : 0;
	*ret_not_after_ms = days ? m->now_ms + days * DAY_MS : 0;
}

void *scope_secret_alloc(struct manager *m, size_t n)
{
	void *p = secret_alloc(n);

	if (!p)
		(void)manager_fail(m, -ENOMEM,
				   "cannot lock memory for a secret: %s (see ulimit -l)",
				   strerror(errno));
	return p;
}

/* --- the sealed scalar --------------------------------------------------------------------- */

/* What it is sealed with: moved to another scope, epoch or key id in the registry it does not open.
 */
static struct bytes seal_aad(const struct record_scope *s, uint8_t buf[AAD_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(buf, AAD_BYTES_MAX);

	bytes_write(&w, bytes_str("ssdtf-scope-scalar-1"));
	bytes_write_u8_view(&w, s->name);
	bytes_write_u32(&w, s->epoch);
	bytes_write_u32(&w, s->key_id);
	BUG_ON(w.bad);
	return bytes_of(buf, w.used);
}

static int make_scalar(struct manager *m, struct scope *s)
{
	struct secret32 *a = scope_secret_alloc(m, sizeof(*a));
	uint8_t aad[AAD_BYTES_MAX];
	int err;

	if (!a)
		return -ENOMEM;
	err = p256_scalar_random(a);
	if (!err)
		err = p256_mul_base(a, &s->record.a);
	if (err)
		(void)manager_fail(m, err, "cannot make a key: %s", strerror(-err));
	else
		err = manager_fail_token(m,
					 token_store_seal(m->token, MANAGER_STORE_LABEL,
							  seal_aad(&s->record, aad),
							  bytes_of(a->b, sizeof(a->b)), s->sealed));
	secret_free(a, sizeof(*a));
	return err;
}

int scope_open_scalar(struct manager *m, const struct scope *s, struct secret32 *to)
{
	uint8_t aad[AAD_BYTES_MAX];
	struct p256_point a;
	int err = manager_token(m);

	if (err)
		return err;
	err = token_store_open(m->token, MANAGER_STORE_LABEL, seal_aad(&s->record, aad),
			       bytes_of(s->sealed, sizeof(s->sealed)), to->b);
	if (err && err != -EBADMSG)
		return manager_fail_token(m, err);
	if (!err)
		err = p256_mul_base(to, &a);
	if (err || memcmp(a.b, s->record.a.b, sizeof(a.b)))
		return manager_fail(m, -EIO,
				    "scope \"%s\": its key is not what this token sealed: damaged",
				    s->name);
	return 0;
}

/* --- reading ------------------------------------------------------------------------------- */

/* The texts that sql names for the scope, into s->text and filters; returns how many. */
static int load_texts(struct manager *m, struct scope *s, const char *sql,
		      struct bytes filters[RECORD_FILTERS_MAX], unsigned *ret_n)
{
	struct registry_query q = registry_query(&m->registry, sql);

	registry_bind_text(&q, s->name);
	*ret_n = 0;
	while (registry_step(&q) && *ret_n < RECORD_FILTERS_MAX) {
		struct bytes v = registry_blob(&q, 0);

		if (v.n > sizeof(s->text) - s->text_used)
			v.n = 0; /* no filter, and refused as such by whoever decodes it */
		filters[(*ret_n)++] = bytes_of(s->text + s->text_used, v.n);
		if (v.n)
			memcpy(s->text + s->text_used, v.p, v.n);
		s->text_used += v.n;
	}
	return manager_fail_registry(m, registry_end(&q));
}

static int load_filters(struct manager *m, struct scope *s)
{
	struct record_scope *r = &s->record;
	int err = load_texts(m, s, "SELECT filter FROM filter WHERE scope = ? ORDER BY filter",
			     r->filters, &r->n_filters);

	if (err)
		return err;
	return load_texts(m, s, "SELECT prefix || '/#' FROM outlet WHERE scope = ? ORDER BY prefix",
			  r->public_filters, &r->n_public_filters);
}

/* q stands before its only row. */
static int load(struct manager *m, struct registry_query *q, struct scope *s, bool *ret_found)
{
	struct record_scope *r = &s->record;
	bool found = registry_step(q);
	int err;

	*r = (struct record_scope){ 0 };
	s->text_used = 0;
	registry_text(q, 0, s->name, sizeof(s->name));
	r->suite = (uint8_t)registry_int(q, 1);
	s->valid_days = (uint32_t)registry_int(q, 2);
	r->rekey_messages = (uint32_t)registry_int(q, 3);
	r->rekey_seconds = (uint32_t)registry_int(q, 4);
	r->key_id = (uint32_t)registry_int(q, 5);
	r->epoch = (uint32_t)registry_int(q, 6);
	registry_copy(q, 7, r->a.b, sizeof(r->a.b));
	registry_copy(q, 8, s->sealed, sizeof(s->sealed));
	r->not_before_ms = (uint64_t)registry_int(q, 9);
	r->not_after_ms = (uint64_t)registry_int(q, 10);
	r->flags = (uint8_t)registry_int(q, 11);
	s->kept_until_ms = (uint64_t)registry_int(q, 12);
	err = registry_end(q);
	if (err)
		return manager_fail_registry(m, err);
	r->name = bytes_str(s->name);
	*ret_found = found;
	return found ? load_filters(m, s) : 0;
}

#define SCOPE_COLUMNS                                                                      \
	"SELECT name, suite, valid_days, rekey_messages, rekey_seconds, key_id, epoch, a," \
	" sealed, not_before_ms, not_after_ms, flags, kept_until_ms"                       \
	" FROM scope JOIN epoch ON epoch.scope = scope.name"

static int find(struct manager *m, const char *name, struct scope *s, bool *ret_found)
{
	struct registry_query q = registry_query(&m->registry, SCOPE_COLUMNS
						 " WHERE name = ? ORDER BY epoch DESC LIMIT 1");

	registry_bind_text(&q, name);
	return load(m, &q, s, ret_found);
}

int scope_load(struct manager *m, const char *name, struct scope *ret_s)
{
	bool found = false;
	int err = manager_check_id(m, "scope", name);

	if (!err)
		err = find(m, name, ret_s, &found);
	if (!err && !found)
		return manager_fail(m, -ESRCH, "there is no scope \"%s\"", name);
	return err;
}

int scope_load_key(struct manager *m, uint32_t key_id, struct scope *ret_s)
{
	struct registry_query q = registry_query(&m->registry, SCOPE_COLUMNS " WHERE key_id = ?");
	bool found = false;
	int err;

	registry_bind_int(&q, key_id);
	err = load(m, &q, ret_s, &found);
	if (!err && !found)
		return manager_fail(m, -ESRCH, "there is no key id %u", key_id);
	return err;
}

/* The level in front of the next slash; what follows it stays in *rest, none is left where p is
 * NULL. */
static struct bytes take_level(struct bytes *rest)
{
	const uint8_t *slash = rest->n ? memchr(rest->p, '/', rest->n) : NULL;
	struct bytes level = *rest;

	if (!slash) {
		*rest = bytes_of(NULL, 0);
		return level;
	}
	level.n = (size_t)(slash - rest->p);
	*rest = bytes_of(slash + 1, rest->n - level.n - 1);
	return level;
}

bool scope_filter_meets(struct bytes filter, struct bytes prefix)
{
	while (filter.p && prefix.p) {
		struct bytes want = take_level(&filter), have = take_level(&prefix);

		if (bytes_equal(want, bytes_str("#")))
			return true;
		if (!bytes_equal(want, bytes_str("+")) && !bytes_equal(want, have))
			return false;
	}
	return !prefix.p; /* all of it was matched; a filter that ended before matches nothing here
			   */
}

/* --- adding -------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_filter(struct manager *m, const char *filter)
{
	struct bytes v = bytes_str(filter);

	if (!record_filter_is_valid(v))
		return manager_fail(
			m, -EINVAL,
			"filter \"%.80s\": is no MQTT topic filter (UTF-8, not empty, # "
			"alone and last, + alone in its level)",
			filter);
	/* $share/... is a subscription's form, $SSDTF/... and $SYS/... are the broker's own. */
	if (v.p[0] == '$')
		return manager_fail(m, -EINVAL,
				    "filter \"%.80s\": topics beginning with $ are no "
				    "scope's",
				    filter);
	if (v.n > SCOPE_FILTER_BYTES_MAX)
		return manager_fail(m, -EINVAL, "filter \"%.80s...\": longer than %d bytes", filter,
				    SCOPE_FILTER_BYTES_MAX);
	return 0;
}

/* The same terms with the filters in the registry's order. */
static int check_terms(struct manager *m, struct scope_terms *t)
{
	int err = manager_check_id(m, "scope", t->name);

	if (!err && !t->n_filters)
		return manager_fail(m, -EINVAL, "scope \"%s\": no filter", t->name);
	for (unsigned i = 0; !err && i < t->n_filters; i++)
		err = check_filter(m, t->filters[i]);
	if (err)
		return err;
	qsort(t->filters, t->n_filters, sizeof(t->filters[0]), by_text);
	for (unsigned i = 1; i < t->n_filters; i++) {
		if (!strcmp(t->filters[i - 1], t->filters[i]))
			return manager_fail(m, -EINVAL, "filter \"%.80s\": twice", t->filters[i]);
	}
	return 0;
}

static bool same_terms(const struct scope_terms *t, const struct scope *s)
{
	const struct record_scope *r = &s->record;

	if (t->suite != r->suite || t->padded != !!(r->flags & RECORD_SCOPE_PADDED) ||
	    t->valid_days != s->valid_days || t->rekey_messages != r->rekey_messages ||
	    t->rekey_seconds != r->rekey_seconds || t->n_filters != r->n_filters)
		return false;
	for (unsigned i = 0; i < t->n_filters; i++) {
		if (!bytes_equal(bytes_str(t->filters[i]), r->filters[i]))
			return false;
	}
	return true;
}

/* Random and not counted, so that a registry restored from an old copy repeats none by itself. */
static int new_key_id(struct manager *m, uint32_t *ret_key_id)
{
	uint32_t id;
	bool taken;
	int err;

	do {
		struct registry_query q =
			registry_query(&m->registry, "SELECT 1 FROM epoch WHERE key_id = ?");

		hash_random(&id, sizeof(id));
		registry_bind_int(&q, id);
		taken = registry_step(&q);
		err = registry_end(&q);
		if (err)
			return manager_fail_registry(m, err);
	} while (taken || !id);
	*ret_key_id = id;
	return 0;
}

static int insert_scope(struct manager *m, const struct scope_terms *t)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "INSERT INTO scope (name, suite, valid_days, rekey_messages,"
			       " rekey_seconds, flags) VALUES (?, ?, ?, ?, ?, ?)");

	registry_bind_text(&q, t->name);
	registry_bind_int(&q, t->suite);
	registry_bind_int(&q, t->valid_days);
	registry_bind_int(&q, t->rekey_messages);
	registry_bind_int(&q, t->rekey_seconds);
	registry_bind_int(&q, t->padded ? RECORD_SCOPE_PADDED : 0);
	return manager_fail_registry(m, registry_run(&q));
}

/* Devices do not publish where distributors do. */
static int check_outlets(struct manager *m, const char *filter)
{
	struct registry_query q = registry_query(&m->registry, "SELECT prefix, name FROM outlet");
	char name[MANAGER_ID_ROOM] = "";
	int err;

	while (registry_step(&q)) {
		if (!scope_filter_meets(bytes_str(filter), registry_blob(&q, 0)))
			continue;
		registry_text(&q, 1, name, sizeof(name));
		break;
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (name[0])
		return manager_fail(m, -EEXIST,
				    "filter \"%.80s\": meets the public topics of outlet \"%s\"",
				    filter, name);
	return 0;
}

static int insert_filter(struct manager *m, const char *scope, const char *filter)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT scope FROM filter WHERE filter = ?");
	char owner[MANAGER_ID_ROOM] = "";
	int err;

	registry_bind_text(&q, filter);
	if (registry_step(&q))
		registry_text(&q, 0, owner, sizeof(owner));
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (owner[0])
		return manager_fail(m, -EEXIST, "filter \"%.80s\": is scope \"%s\"'s already",
				    filter, owner);
	err = check_outlets(m, filter);
	if (err)
		return err;
	q = registry_query(&m->registry, "INSERT INTO filter (filter, scope) VALUES (?, ?)");
	registry_bind_text(&q, filter);
	registry_bind_text(&q, scope);
	return manager_fail_registry(m, registry_run(&q));
}

static int insert_epoch(struct manager *m, const struct scope *s)
{
	const struct record_scope *r = &s->record;
	struct registry_query q =
		registry_query(&m->registry,
			       "INSERT INTO epoch (key_id, scope, epoch, a, sealed, not_before_ms,"
			       " not_after_ms) VALUES (?, ?, ?, ?, ?, ?, ?)");

	registry_bind_int(&q, r->key_id);
	registry_bind_text(&q, s->name);
	registry_bind_int(&q, r->epoch);
	registry_bind_blob(&q, bytes_of(r->a.b, sizeof(r->a.b)));
	registry_bind_blob(&q, bytes_of(s->sealed, sizeof(s->sealed)));
	registry_bind_int(&q, (int64_t)r->not_before_ms);
	registry_bind_int(&q, (int64_t)r->not_after_ms);
	return manager_fail_registry(m, registry_run(&q));
}

int scope_new_epoch(struct manager *m, struct scope *s)
{
	struct record_scope *r = &s->record;
	int err = manager_token(m);

	if (!err)
		err = new_key_id(m, &r->key_id);
	if (err)
		return err;
	r->name = bytes_str(s->name);
	scope_validity(m, s->valid_days, &r->not_before_ms, &r->not_after_ms);
	err = make_scalar(m, s);
	return err ? err : insert_epoch(m, s);
}

static int insert(struct manager *m, const struct scope_terms *t, struct scope *s)
{
	int err = insert_scope(m, t);

	for (unsigned i = 0; !err && i < t->n_filters; i++)
		err = insert_filter(m, t->name, t->filters[i]);
	if (err)
		return err;
	(void)snprintf(s->name, sizeof(s->name), "%s", t->name); /* an id, so it fits */
	s->valid_days = t->valid_days;
	s->record.epoch = 1;
	err = scope_new_epoch(m, s);
	return err ? err : manager_note(m, "scope add", t->name, "");
}

int scope_add(struct manager *m, const struct scope_terms *t)
{
	struct scope_terms sorted = *t;
	struct scope *s = calloc(1, sizeof(*s));
	bool found = false;
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = check_terms(m, &sorted);
	if (!err)
		err = find(m, t->name, s, &found);
	if (!err && found && !same_terms(&sorted, s))
		err = manager_fail(m, -EEXIST,
				   "scope \"%s\": exists with other terms (see show "
				   "scope)",
				   t->name);
	if (!err && !found)
		err = insert(m, &sorted, s);
	if (!err)
		(void)fprintf(m->out, "%s scope=%s key_id=%u epoch=%u\n",
			      found ? "unchanged" : "added", s->name, s->record.key_id,
			      s->record.epoch);
	free(s);
	return err;
}
