// SPDX-License-Identifier: MIT
#include "userspace/manager/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "userspace/base/words.h"
#include "userspace/manager/audit_impl.h"

#define HASH_LABEL	 "ssdtf-audit-1"
#define CHECKPOINT_LABEL "ssdtf-audit-checkpoint-1"
#define SCHEMA_VERSION	 1
#define HEAD_BYTES	 (8 + HASH_BYTES)
/* Room for all of them at their longest, and the numbers. */
#define FIELDS_BYTES_MAX                                                                 \
	(64 + AUDIT_LOGIN_BYTES_MAX + AUDIT_ACTION_BYTES_MAX + AUDIT_SUBJECT_BYTES_MAX + \
	 AUDIT_REASON_BYTES_MAX + AUDIT_SOURCE_BYTES_MAX + AUDIT_OUTCOME_BYTES_MAX)

/* Texts are blobs: whoever calls us wrote them, and they need not be UTF-8. */
static const char *const schema_sql[] = {
	"CREATE TABLE audit.entry ("
	"  number INTEGER PRIMARY KEY,"
	"  at_ms INTEGER NOT NULL,"
	"  uid INTEGER NOT NULL,"
	"  login BLOB NOT NULL,"
	"  action BLOB NOT NULL,"
	"  subject BLOB NOT NULL,"
	"  asked_ms INTEGER NOT NULL,"
	"  reason BLOB NOT NULL,"
	"  source BLOB NOT NULL,"
	"  result INTEGER NOT NULL,"
	"  outcome BLOB NOT NULL,"
	"  previous BLOB NOT NULL," /* of the first: zeros */
	"  hash BLOB NOT NULL,"
	"  checkpoint BLOB" /* NULL: there was no token */
	") STRICT",
	"PRAGMA audit.application_id = 1397965140", /* "SSAT" */
	"PRAGMA audit.user_version = 1",
};

/* The registry's words begin with "registry: ", and this file is another. */
int audit_fail(struct manager *m, int err)
{
	static const char prefix[] = "registry: ";
	const char *words = m->registry.error;

	if (!strncmp(words, prefix, sizeof(prefix) - 1))
		words += sizeof(prefix) - 1;
	return err ? manager_fail(m, err, "%s/audit.db: %s", m->config.dir, words) : 0;
}

/* --- opening ------------------------------------------------------------------------------- */

static int attach(struct manager *m)
{
	char path[FILE_PATH_BYTES_MAX];
	struct registry_query q;
	int err = file_join(m->config.dir, "audit.db", path);

	if (err)
		return manager_fail_file(m, err, "open", m->config.dir);
	q = registry_query(&m->registry, "ATTACH ? AS audit");
	registry_bind_text(&q, path);
	err = registry_run(&q);
	if (err)
		return audit_fail(m, err);
	/* The folder is synced, too, when a journal is removed: what is committed stays so. */
	q = registry_query(&m->registry, "PRAGMA audit.synchronous = EXTRA");
	return audit_fail(m, registry_run(&q));
}

/* The version is set in the transaction that makes the table: with it the log is there. */
static int create(struct manager *m)
{
	int err = registry_begin(&m->registry);

	for (size_t i = 0; !err && i < ARRAY_SIZE(schema_sql); i++) {
		struct registry_query q = registry_query(&m->registry, schema_sql[i]);

		err = registry_run(&q);
	}
	if (!err)
		err = registry_commit(&m->registry);
	if (err)
		registry_rollback(&m->registry);
	return audit_fail(m, err);
}

int audit_open(struct manager *m)
{
	struct registry_query q;
	int64_t version = 0;
	int err = attach(m);

	if (err)
		return err;
	q = registry_query(&m->registry, "PRAGMA audit.user_version");
	if (registry_step(&q))
		version = registry_int(&q, 0);
	err = registry_end(&q);
	if (err || version == SCHEMA_VERSION)
		return audit_fail(m, err);
	if (version)
		return manager_fail(m, -EIO,
				    "%s/audit.db: version %" PRId64 ", this program knows %d",
				    m->config.dir, version, SCHEMA_VERSION);
	return create(m);
}

/* --- what is hashed and signed ------------------------------------------------------------- */

void audit_hash(const struct audit_entry *e, uint8_t ret_hash[HASH_BYTES])
{
	uint8_t fields[FIELDS_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(fields, sizeof(fields));
	struct bytes parts[3] = { bytes_str(HASH_LABEL) };

	bytes_write_u64(&w, (uint64_t)e->number);
	bytes_write_u64(&w, e->at_ms);
	bytes_write_u32(&w, (uint32_t)e->uid);
	bytes_write_u8_view(&w, e->login);
	bytes_write_u8_view(&w, e->action);
	bytes_write_u16_view(&w, e->subject);
	bytes_write_u64(&w, e->asked_ms);
	bytes_write_u16_view(&w, e->reason);
	bytes_write_u16_view(&w, e->source);
	bytes_write_u8(&w, (uint8_t)e->result);
	bytes_write_u16_view(&w, e->outcome);
	bytes_write_u8(&w, e->signed_);
	BUG_ON(w.bad); /* audit_walk() looks first */
	parts[1] = bytes_of(fields, w.used);
	parts[2] = e->previous;
	hash_parts(parts, ARRAY_SIZE(parts), ret_hash);
}

void audit_checkpoint_digest(int64_t number, const uint8_t hash[HASH_BYTES],
			     uint8_t ret_digest[P256_DIGEST_BYTES])
{
	uint8_t be[8];
	const struct bytes parts[] = { bytes_str(CHECKPOINT_LABEL), bytes_of(be, sizeof(be)),
				       bytes_of(hash, HASH_BYTES) };

	bytes_store_u64(be, (uint64_t)number);
	hash_parts(parts, ARRAY_SIZE(parts), ret_digest);
}

/* --- the head ------------------------------------------------------------------------------ */

static bool is_newer(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, 8) > 0; /* the numbers, big-endian */
}

int audit_get_head(struct manager *m, struct audit_head *ret_h)
{
	uint8_t value[HEAD_BYTES];
	struct bytes_reader r = bytes_reader_of(bytes_of(value, sizeof(value)));
	int err = token_data_get(m->token, AUDIT_HEAD_LABEL, sizeof(value), is_newer, value);

	if (err == -ENOKEY) {
		*ret_h = (struct audit_head){ 0 };
		return 0;
	}
	if (err)
		return manager_fail_token(m, err);
	ret_h->number = bytes_read_u64(&r);
	bytes_read_copy(&r, ret_h->hash, sizeof(ret_h->hash));
	return 0;
}

static int put_head(struct manager *m, uint64_t number, const uint8_t hash[HASH_BYTES])
{
	uint8_t value[HEAD_BYTES];
	struct bytes_writer w = bytes_writer_of(value, sizeof(value));

	bytes_write_u64(&w, number);
	bytes_write(&w, bytes_of(hash, HASH_BYTES));
	return manager_fail_token(m, token_data_put(m->token, AUDIT_HEAD_LABEL,
						    bytes_of(value, w.used)));
}

/* Only the entries from the head's on are looked at: the others are audit_verify()'s. */
int audit_check_end(struct manager *m)
{
	struct audit_head head;
	struct audit_walk w = { 0 };
	int err = audit_get_head(m, &head);

	if (!err)
		err = audit_walk(m, head.number ? head.number : 1, &head, &w);
	if (!err && w.n_ahead)
		err = put_head(m, w.last_signed, w.last_signed_hash);
	return err;
}

/* --- appending ----------------------------------------------------------------------------- */

/* Who logged in, which su and sudo do not change (audit_getloginuid(3)); else who we are. */
static void find_login(uint32_t uid, char out[AUDIT_LOGIN_BYTES_MAX])
{
	uint8_t text[16];
	size_t n = 0;
	uint64_t login = UINT32_MAX;
	const struct passwd *p;

	if (!file_read_into(AT_FDCWD, "/proc/self/loginuid", text, sizeof(text), &n))
		(void)!words_number(bytes_of(text, n), UINT32_MAX, &login); /* kept: nobody */
	p = getpwuid(login == UINT32_MAX ? uid : (uid_t)login);
	(void)snprintf(out, AUDIT_LOGIN_BYTES_MAX, "%s", p ? p->pw_name : "?"); /* cut */
}

static struct bytes at_most(const char *text, size_t max)
{
	struct bytes v = bytes_str(text);

	return bytes_of(v.p, v.n < max ? v.n : max);
}

static int find_last(struct manager *m, int64_t *ret_number, uint8_t ret_hash[HASH_BYTES])
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT number, hash FROM audit.entry ORDER BY number DESC LIMIT 1");

	*ret_number = 0;
	memset(ret_hash, 0, HASH_BYTES);
	if (registry_step(&q)) {
		*ret_number = registry_int(&q, 0);
		registry_copy(&q, 1, ret_hash, HASH_BYTES);
	}
	return audit_fail(m, registry_end(&q));
}

static int insert(struct manager *m, const struct audit_entry *e)
{
	struct registry_query q =
		registry_query(&m->registry, "INSERT INTO audit.entry (" AUDIT_COLUMNS
					     ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");

	registry_bind_int(&q, e->number);
	registry_bind_int(&q, (int64_t)e->at_ms);
	registry_bind_int(&q, e->uid);
	registry_bind_blob(&q, e->login);
	registry_bind_blob(&q, e->action);
	registry_bind_blob(&q, e->subject);
	registry_bind_int(&q, (int64_t)e->asked_ms);
	registry_bind_blob(&q, e->reason);
	registry_bind_blob(&q, e->source);
	registry_bind_int(&q, e->result);
	registry_bind_blob(&q, e->outcome);
	registry_bind_blob(&q, e->previous);
	registry_bind_blob(&q, e->hash);
	registry_bind_blob(&q, e->checkpoint);
	return audit_fail(m, registry_run(&q));
}

static int write_entry(struct manager *m, const struct audit_deed *d, bool sign)
{
	uint8_t previous[HASH_BYTES], hash[HASH_BYTES], digest[P256_DIGEST_BYTES];
	uint8_t sig[P256_SIG_BYTES];
	char login[AUDIT_LOGIN_BYTES_MAX];
	struct audit_entry e = {
		.at_ms = m->now_ms,
		.asked_ms = d->asked_ms,
		.uid = getuid(),
		.action = at_most(d->action, AUDIT_ACTION_BYTES_MAX),
		.subject = at_most(d->subject, AUDIT_SUBJECT_BYTES_MAX),
		.reason = at_most(d->reason, AUDIT_REASON_BYTES_MAX),
		.source = at_most(d->source, AUDIT_SOURCE_BYTES_MAX),
		.result = d->result,
		.outcome = at_most(d->outcome, AUDIT_OUTCOME_BYTES_MAX),
		.signed_ = sign,
		.previous = bytes_of(previous, sizeof(previous)),
		.hash = bytes_of(hash, sizeof(hash)),
		.checkpoint = bytes_of(NULL, 0),
	};
	int err = find_last(m, &e.number, previous);

	if (err)
		return err;
	if (e.number < 0 || e.number == INT64_MAX)
		return manager_fail(m, -EBADMSG, "%s/audit.db: its last entry is none of ours",
				    m->config.dir);
	e.number++;
	find_login(getuid(), login);
	e.login = bytes_str(login);
	audit_hash(&e, hash);
	if (sign) {
		audit_checkpoint_digest(e.number, hash, digest);
		err = manager_fail_token(m, token_sign(m->token, MANAGER_KEY_LABEL, digest, sig));
		e.checkpoint = bytes_of(sig, sizeof(sig));
	}
	return err ? err : insert(m, &e);
}

int audit_write(struct manager *m, const struct audit_deed *d, bool sign)
{
	int err = registry_begin(&m->registry);

	if (err)
		return audit_fail(m, err);
	err = write_entry(m, d, sign);
	if (!err)
		err = audit_fail(m, registry_commit(&m->registry));
	if (err)
		registry_rollback(&m->registry);
	return err;
}

int audit_append(struct manager *m, const struct audit_deed *d, bool sign)
{
	int err = audit_write(m, d, sign);

	return err || !sign ? err : audit_check_end(m); /* which moves the head */
}
