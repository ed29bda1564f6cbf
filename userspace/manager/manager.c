// SPDX-License-Identifier: MIT
#include "userspace/manager/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/text.h"

#define LOCK_WAIT_MS 5000
#define LOCK_POLL_MS 50

int manager_fail(struct manager *m, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(m->error, sizeof(m->error), fmt, ap); /* cut where too long */
	va_end(ap);
	return err;
}

int manager_fail_registry(struct manager *m, int err)
{
	return err ? manager_fail(m, err, "%s: %s", m->config.dir, m->registry.error) : 0;
}

int manager_fail_token(struct manager *m, int err)
{
	return err ? manager_fail(m, err, "token \"%s\": %s", m->token_label,
				  m->token ? token_error(m->token) : token_open_error())
		   : 0;
}

int manager_fail_file(struct manager *m, int err, const char *doing, const char *path)
{
	if (err)
		m->exit_code = strcmp(doing, "read") ? EX_CANTCREAT : EX_NOINPUT;
	if (err == -EINVAL)
		return manager_fail(m, err, "%s: cannot %s: it is no regular file", path, doing);
	return err ? manager_fail(m, err, "%s: cannot %s: %s", path, doing, strerror(-err)) : 0;
}

int manager_check_id(struct manager *m, const char *what, const char *v)
{
	if (text_is_id(bytes_str(v)))
		return 0;
	return manager_fail(m, -EINVAL, "%s \"%.80s\": 1 to 64 characters of A-Z a-z 0-9 . _ : -",
			    what, v);
}

/* --- the directory ------------------------------------------------------------------------- */

static int check_directory(struct manager *m)
{
	const char *dir = m->config.dir;
	struct stat st;

	if (stat(dir, &st))
		return errno == ENOENT ? manager_fail(m, -ENODATA,
						      "%s: not initialised: run init first", dir)
				       : manager_fail_file(m, -errno, "open", dir);
	if (!S_ISDIR(st.st_mode))
		return manager_fail(m, -EINVAL, "%s: is no directory", dir);
	if (st.st_mode & 077)
		return manager_fail(m, -EACCES,
				    "%s: others may enter it (mode %03o); chmod 700 it first", dir,
				    (unsigned)st.st_mode & 0777);
	return 0;
}

static int take_lock(struct manager *m, const char *path)
{
	const struct timespec poll = { .tv_nsec = LOCK_POLL_MS * 1000000L };

	for (int waited = 0; flock(m->lock_fd, LOCK_EX | LOCK_NB); waited += LOCK_POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return manager_fail_file(m, -errno, "lock", path);
		if (waited >= LOCK_WAIT_MS)
			return manager_fail(m, -EBUSY,
					    "%s: another ssdtf-admin is at work here; try again",
					    m->config.dir);
		(void)nanosleep(&poll, NULL); /* a signal makes the wait shorter, no more */
	}
	return 0;
}

static int lock_directory(struct manager *m)
{
	char path[FILE_PATH_BYTES_MAX];
	int err = file_join(m->config.dir, "lock", path);

	if (err)
		return manager_fail_file(m, err, "open", m->config.dir);
	m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (m->lock_fd < 0)
		return manager_fail_file(m, -errno, "open", path);
	return take_lock(m, path);
}

void manager_pause(struct manager *m)
{
	(void)flock(m->lock_fd, LOCK_UN); /* a lock that we hold */
}

int manager_resume(struct manager *m)
{
	struct timespec now;
	int err = take_lock(m, m->config.dir);

	if (!err && clock_gettime(CLOCK_REALTIME, &now))
		err = manager_fail(m, -errno, "no clock: %s", strerror(errno));
	if (!err)
		m->now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	return err;
}

/* --- opening ------------------------------------------------------------------------------- */

static int fail_cut_short(struct manager *m)
{
	return manager_fail(m, -ENODATA, "%s: init was cut short: run it again", m->config.dir);
}

/* The public key that init wrote down last: with it the registry is whole. */
int manager_load_key(struct manager *m, bool *ret_found)
{
	char hex[TEXT_HEX_SIZE(P256_POINT_BYTES)] = "";
	int err = registry_setting(&m->registry, "manager_key", hex, sizeof(hex));

	if (err && err != -ENOENT)
		return manager_fail_registry(m, err);
	if (!err && text_unhex(bytes_str(hex), m->key.b, sizeof(m->key.b)))
		return manager_fail(m, -EIO, "%s: registry: damaged key", m->config.dir);
	*ret_found = !err;
	return 0;
}

int manager_start(struct manager *m, const struct manager_config *c, enum manager_access access,
		  uint64_t now_ms)
{
	int err;

	*m = (struct manager){ .config = *c, .now_ms = now_ms, .lock_fd = -1 };
	m->out = open_memstream(&m->out_text, &m->out_bytes);
	if (!m->out)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = file_join(c->dir, "registry.db", m->registry_path);
	if (err)
		return manager_fail_file(m, err, "open", c->dir);
	if (access == MANAGER_SETS_UP && mkdir(c->dir, 0700) == 0)
		m->made_directory = true;
	else if (access == MANAGER_SETS_UP && errno != EEXIST)
		return manager_fail_file(m, -errno, "make", c->dir);
	err = check_directory(m);
	return err || access == MANAGER_READS ? err : lock_directory(m);
}

int manager_open(struct manager *m, const struct manager_config *c, enum manager_access access,
		 uint64_t now_ms)
{
	bool found = false;
	int err = manager_start(m, c, access, now_ms);

	if (err)
		return err;
	err = registry_open(&m->registry, m->registry_path);
	if (err == -ENODATA)
		return manager_fail(m, err, "%s: not initialised: run init first", c->dir);
	if (err)
		return manager_fail_registry(m, err);
	err = manager_load_key(m, &found);
	return err || found ? err : fail_cut_short(m);
}

void manager_close(struct manager *m)
{
	manager_rollback(m);
	if (m->registry.db)
		registry_close(&m->registry);
	if (m->token)
		token_close(m->token);
	if (m->out)
		(void)fclose(m->out); /* memory only */
	free(m->out_text);
	if (m->lock_fd >= 0)
		(void)close(m->lock_fd); /* and with it the lock is gone */
	*m = (struct manager){ .lock_fd = -1 };
}

/* --- the transaction ----------------------------------------------------------------------- */

static void forget_made(struct manager *m)
{
	while (m->n_made)
		free(m->made[--m->n_made]);
}

int manager_begin(struct manager *m)
{
	return manager_fail_registry(m, registry_begin(&m->registry));
}

int manager_commit(struct manager *m)
{
	int err;

	if (m->dry_run) {
		manager_rollback(m);
		return 0;
	}
	err = registry_commit(&m->registry);

	if (err)
		return manager_fail_registry(m, err);
	forget_made(m);
	return 0;
}

void manager_rollback(struct manager *m)
{
	registry_rollback(&m->registry);
	/* The last made first, so that a folder is empty by its turn. What cannot be removed was
	 * not ours alone: a folder with other files in it stays. */
	for (unsigned i = m->n_made; i-- > 0;)
		(void)remove(m->made[i]);
	forget_made(m);
}

int manager_made(struct manager *m, const char *path)
{
	BUG_ON(m->n_made == MANAGER_MADE_MAX);
	m->made[m->n_made] = strdup(path);
	if (!m->made[m->n_made])
		return manager_fail(m, -ENOMEM, "out of memory");
	m->n_made++;
	return 0;
}

int manager_flush(struct manager *m)
{
	if (fflush(m->out))
		return manager_fail(m, -ENOMEM, "out of memory");
	if (fwrite(m->out_text, 1, m->out_bytes, stdout) != m->out_bytes || fflush(stdout))
		return manager_fail(m, -EIO, "standard output: %s", strerror(errno));
	rewind(m->out);
	return 0;
}

int manager_serials(struct manager *m, uint64_t n, uint64_t *ret_first)
{
	char text[24] = "0";
	uint64_t first;
	int err = registry_setting(&m->registry, "serial", text, sizeof(text));

	if (err && err != -ENOENT)
		return manager_fail_registry(m, err);
	first = strtoull(text, NULL, 10) + 1; /* written below and nowhere else */
	if (first < m->now_ms)
		first = m->now_ms;
	(void)snprintf(text, sizeof(text), "%" PRIu64, first + n - 1);
	err = registry_set(&m->registry, "serial", text);
	if (err)
		return manager_fail_registry(m, err);
	*ret_first = first;
	return 0;
}

int manager_note(struct manager *m, const char *action, const char *subject, const char *detail)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO history (at_ms, action, subject, detail) VALUES (?, ?, ?, ?)");

	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_text(&q, action);
	registry_bind_text(&q, subject);
	registry_bind_text(&q, detail);
	return manager_fail_registry(m, registry_run(&q));
}

int manager_noted(struct manager *m, const char *action, const char *subject, uint64_t *ret_at_ms)
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT max(at_ms) FROM history WHERE subject = ? AND action = ?");
	uint64_t at = 0;
	int err;

	registry_bind_text(&q, subject);
	registry_bind_text(&q, action);
	if (registry_step(&q))
		at = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_at_ms = at;
	return 0;
}

/* --- the token ----------------------------------------------------------------------------- */

/* The command line's word, or the registry's. */
static int choose(struct manager *m, const char *given, const char *setting, char *out, size_t room)
{
	int err;

	if (given) {
		if (strlen(given) >= room)
			return manager_fail(m, -EINVAL, "%s: too long", setting);
		memcpy(out, given, strlen(given) + 1);
		return 0;
	}
	err = registry_setting(&m->registry, setting, out, room);
	return err == -ENOENT ? fail_cut_short(m) : manager_fail_registry(m, err);
}

int manager_token_open(struct manager *m)
{
	const struct token_config c = { .module = m->module,
					.label = m->token_label,
					.pin_file = m->pin_file,
					.lock_file = m->token_lock };
	int err;

	err = choose(m, m->config.module, "module", m->module, sizeof(m->module));
	if (!err)
		err = choose(m, m->config.token_label, "token", m->token_label,
			     sizeof(m->token_label));
	if (!err)
		err = choose(m, m->config.pin_file, "pin_file", m->pin_file, sizeof(m->pin_file));
	if (err)
		return err;
	err = file_join(m->config.dir, "token.lock", m->token_lock);
	if (err)
		return manager_fail_file(m, err, "open", m->config.dir);
	return manager_fail_token(m, token_open(&c, &m->token));
}

int manager_token(struct manager *m)
{
	struct p256_point key;
	int err;

	if (m->token)
		return 0;
	err = manager_token_open(m);
	if (err)
		return err;
	err = token_signing_public(m->token, MANAGER_KEY_LABEL, &key);
	if (err)
		return manager_fail_token(m, err);
	if (memcmp(key.b, m->key.b, sizeof(key.b)))
		return manager_fail(m, -EINVAL, "token \"%s\": holds another manager's keys",
				    m->token_label);
	return 0;
}

/* Does the pair belong together? The base point times the private half is the public one. -ENOKEY:
 * there is no private half. */
static int try_trace_key(struct manager *m, const struct p256_point *key)
{
	const struct secret32 one = { .b = { [sizeof(one.b) - 1] = 1 } };
	struct p256_point base;
	uint8_t x[P256_X_BYTES];
	int err = p256_mul_base(&one, &base);

	if (!err)
		err = token_open_point(m->token, MANAGER_TRACE_LABEL, base.b, x);
	return err ? err : memcmp(x, key->b + 1, sizeof(x)) ? -EIO : 0;
}

/* One that was adopted, or whose making was not written down any more, may be there and whole. Of
 * half of one nobody knows yet. */
static int make_trace_key(struct manager *m, struct p256_point *ret_key)
{
	int err = token_signing_public(m->token, MANAGER_TRACE_LABEL, ret_key);

	if (!err)
		err = try_trace_key(m, ret_key);
	if (err != -ENOKEY)
		return manager_fail_token(m, err);
	err = token_destroy(m->token, MANAGER_TRACE_LABEL);
	if (!err)
		err = token_generate_opening(m->token, MANAGER_TRACE_LABEL, ret_key);
	return manager_fail_token(m, err);
}

int manager_trace_key(struct manager *m, struct p256_point *ret_key)
{
	char hex[TEXT_HEX_SIZE(P256_POINT_BYTES)] = "";
	int err = registry_setting(&m->registry, "trace_key", hex, sizeof(hex));

	if (err && err != -ENOENT)
		return manager_fail_registry(m, err);
	if (!err && text_unhex(bytes_str(hex), ret_key->b, sizeof(ret_key->b)))
		return manager_fail(m, -EIO, "%s: registry: damaged key", m->config.dir);
	if (!err)
		return 0;
	err = manager_token(m);
	if (!err)
		err = make_trace_key(m, ret_key);
	if (err)
		return err;
	text_hex(bytes_of(ret_key->b, sizeof(ret_key->b)), hex);
	return manager_fail_registry(m, registry_set(&m->registry, "trace_key", hex));
}
