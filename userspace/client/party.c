// SPDX-License-Identifier: MIT
#include "userspace/client/party.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/bundle/statement.h"
#include "userspace/base/file.h"

#define PEM_BYTES_MAX	    4096
#define NUMBER_BYTES_MAX    32
#define WINDOW_BYTES_MAX    (1 + ENVELOPE_ORIGIN_BYTES_MAX + 3 * 8)
#define BUNDLE_BYTES_MAX    STATEMENT_BYTES((size_t)STATEMENT_BODY_BYTES_MAX)
#define CONTEXTS_MAX	    4096
#define STATEMENTS	    "statements"
#define STATEMENTS_MAX	    (64u << 20)
#define STATEMENT_FIRST	    0x5d
#define STATEMENT_BYTES_MAX 60000      /* as messages bring them (PROTOCOL 13) */
#define STATEMENTS_ROOM	    (4u << 20) /* for those that come while the program runs */
#define WINDOWS_MAGIC	    "SSDTF windows 1\n"
#define WINDOWS_HEAD_BYTES  20 /* magic and u32 n */

/* --- the small files -------------------------------------------------------------------------- */

/* A decimal number and a newline. -ENOENT; -EBADMSG for anything else. */
static int number_load(const struct party *p, const char *name, uint64_t *ret_number)
{
	struct bytes_reader r;
	uint64_t number = 0;
	uint8_t *text;
	size_t n;
	int ret = file_read(p->dir, name, NUMBER_BYTES_MAX, &text, &n, NULL);

	if (ret)
		return ret;
	r = bytes_reader_of(bytes_of(text, n));
	ret = n < 2 ? -EBADMSG : 0;
	while (!ret && r.left > 1) {
		uint8_t digit = (uint8_t)(bytes_read_u8(&r) - '0');

		if (digit > 9 || number > (UINT64_MAX - digit) / 10)
			ret = -EBADMSG;
		else
			number = number * 10 + digit;
	}
	if (!ret && bytes_read_u8(&r) != '\n')
		ret = -EBADMSG;
	free(text);
	if (!ret)
		*ret_number = number;
	return ret;
}

static int number_store(const struct party *p, const char *name, uint64_t number)
{
	char text[NUMBER_BYTES_MAX];
	int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)number);

	return file_write(p->dir, name, bytes_of(text, (size_t)n), 0600);
}

int party_counter_load(struct party *p, uint64_t *ret_mark)
{
	int ret = number_load(p, "counter", ret_mark);

	if (ret != -ENOENT)
		return ret;
	*ret_mark = 0;
	return 0;
}

int party_counter_reserve(struct party *p, uint64_t mark)
{
	return number_store(p, "counter", mark);
}

/* --- replay windows --------------------------------------------------------------------------- */

static int by_use(const void *a, const void *b)
{
	const struct ssdtf_origin *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

/*
 * magic || u32 n || n * ( u8+ origin || u64 highest || u64 below[0] || u64 below[1] )
 * || SHA-256 of all before; the origin heard longest ago comes first.
 */
int party_windows_store(struct party *p)
{
	size_t room = WINDOWS_HEAD_BYTES + p->n_origins * WINDOW_BYTES_MAX + HASH_BYTES;
	uint8_t *file = malloc(room);
	struct bytes_writer w = bytes_writer_of(file, room);
	uint8_t hash[HASH_BYTES];
	uint32_t n = 0;
	int ret;

	if (!file)
		return -ENOMEM;
	for (unsigned i = 0; i < p->n_origins; i++)
		n += p->origins[i].id_n != 0;
	qsort(p->origins, p->n_origins, sizeof(p->origins[0]), by_use);
	bytes_write(&w, bytes_str(WINDOWS_MAGIC));
	bytes_write_u32(&w, n);
	for (unsigned i = 0; i < p->n_origins; i++) {
		const struct ssdtf_origin *o = &p->origins[i];

		if (!o->id_n)
			continue;
		bytes_write_u8_view(&w, bytes_of(o->id, o->id_n));
		bytes_write_u64(&w, o->window.highest);
		bytes_write_u64(&w, o->window.below[0]);
		bytes_write_u64(&w, o->window.below[1]);
	}
	hash_one(bytes_of(file, w.used), hash);
	bytes_write(&w, bytes_of(hash, sizeof(hash)));
	BUG_ON(w.bad);
	ret = file_write(p->dir, "windows", bytes_of(file, w.used), 0600);
	free(file);
	return ret;
}

/* Where there are more than the array holds, those heard last are kept. */
static int windows_parse(struct party *p, struct bytes file)
{
	struct bytes_reader r = bytes_reader_of(file);
	uint8_t hash[HASH_BYTES];
	uint32_t n;

	if (!bytes_equal(bytes_read_view(&r, strlen(WINDOWS_MAGIC)), bytes_str(WINDOWS_MAGIC)))
		return -EBADMSG;
	n = bytes_read_u32(&r);
	for (uint32_t i = 0; i < n && !r.bad; i++) {
		struct ssdtf_origin *o = &p->origins[i % p->n_origins];
		struct bytes id = bytes_read_u8_view(&r);

		if (id.n < 1 || id.n > sizeof(o->id))
			return -EBADMSG;
		memset(o, 0, sizeof(*o));
		o->id_n = (uint8_t)id.n;
		memcpy(o->id, id.p, id.n);
		o->window.highest = bytes_read_u64(&r);
		o->window.below[0] = bytes_read_u64(&r);
		o->window.below[1] = bytes_read_u64(&r);
		o->used = i + 1;
	}
	if (r.bad || r.left != HASH_BYTES)
		return -EBADMSG;
	hash_one(bytes_of(file.p, file.n - HASH_BYTES), hash);
	return bytes_equal(bytes_read_rest(&r), bytes_of(hash, sizeof(hash))) ? 0 : -EBADMSG;
}

static void windows_load(struct party *p, unsigned n_origins)
{
	uint8_t *file;
	size_t n;
	int ret;

	p->n_origins = n_origins;
	p->origins = calloc(n_origins, sizeof(p->origins[0]));
	if (!p->origins)
		exit_with(EX_OSERR, "no memory for %u replay windows", n_origins);
	ret = file_read(p->dir, "windows", 64u << 20, &file, &n, NULL);
	if (ret == -ENOENT)
		return;
	if (ret)
		exit_with(EX_NOINPUT, "%s/windows: %s", p->path, strerror(-ret));
	if (windows_parse(p, bytes_of(file, n)))
		exit_with(EX_DATAERR,
			  "%s/windows is damaged; without it messages seen before are taken again: "
			  "remove it if that is acceptable",
			  p->path);
	free(file);
}

/* One for each origin, within reason: they are of use for senders that are heard again soon. */
static void contexts_new(struct party *p)
{
	p->n_contexts = p->n_origins < CONTEXTS_MAX ? p->n_origins : CONTEXTS_MAX;
	p->contexts = calloc(p->n_contexts, sizeof(p->contexts[0]));
	if (!p->contexts)
		exit_with(EX_OSERR, "no memory for %u contexts", p->n_contexts);
}

/* --- statements ------------------------------------------------------------------------------- */

/* Whole behind the others, or not at all: a write that fails is cut off again. */
static int append(int fd, struct bytes v)
{
	struct stat before;
	size_t done = 0;
	int ret = 0;

	if (fstat(fd, &before))
		return -errno;
	while (!ret && done < v.n) {
		ssize_t n = write(fd, v.p + done, v.n - done);

		if (n < 0 && errno != EINTR)
			ret = -errno;
		else if (n > 0)
			done += (size_t)n;
	}
	if (!ret && fsync(fd))
		ret = -errno;
	/* Where not even that works, the next load cuts it. */
	if (ret && ftruncate(fd, before.st_size))
		log_warn(STATEMENTS ": %s", strerror(errno));
	return ret;
}

int party_statement_store(struct party *p, struct bytes statement)
{
	int fd = openat(p->dir, STATEMENTS, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = append(fd, statement);
	if (!ret && fsync(p->dir)) /* it may be new */
		ret = -errno;
	(void)close(fd);
	return ret;
}

/* The length of a whole statement at the front, 0 where there is none. */
static size_t whole_statement(struct bytes v)
{
	size_t body;

	if (v.n < STATEMENT_BYTES(0))
		return 0;
	body = bytes_load_u32(v.p + STATEMENT_HEAD_BYTES - 4);
	return body > v.n - STATEMENT_BYTES(0) ? 0 : STATEMENT_BYTES(body);
}

static bool is_managers(struct bytes whole, const struct p256_point *manager)
{
	struct p256_public *key;
	struct statement s;
	bool holds;

	if (statement_read(whole, &s) || p256_public_new(manager, &key))
		return false;
	holds = !statement_open(whole, s.kind, key, &s);
	p256_public_free(key);
	return holds;
}

/* Is there one anywhere in v? */
static bool holds_whole(struct bytes v, const struct p256_point *manager)
{
	for (; v.n >= STATEMENT_BYTES(0); v = bytes_of(v.p + 1, v.n - 1)) {
		size_t n = whole_statement(v);

		if (n && is_managers(bytes_of(v.p, n), manager))
			return true;
	}
	return false;
}

/*
 * How much of the file holds. A crash while the last statement was written leaves a part of it, or
 * zeros in its place: that end goes, for it never counted as had. But where a whole one stands
 * behind what is wrong, something else damaged the file. What is wrong further in front, libssdtf
 * finds.
 */
static size_t whole_statements(struct bytes file, const struct p256_point *manager,
			       bool *ret_damaged)
{
	struct bytes rest = file, last = file;
	size_t n;

	while ((n = whole_statement(rest))) {
		last = rest;
		rest = bytes_of(rest.p + n, rest.n - n);
	}
	/* Its frame may be whole where its bytes are not. */
	n = whole_statement(last);
	if (n && !is_managers(bytes_of(last.p, n), manager))
		rest = last;
	*ret_damaged = rest.n &&
		       (rest.n > 2 * STATEMENT_BYTES_MAX ||
			(rest.p[0] && rest.p[0] != STATEMENT_FIRST) || holds_whole(rest, manager));
	return (size_t)(rest.p - file.p);
}

static void statements_damaged(const struct party *p)
{
	exit_with(EX_DATAERR,
		  "%s/" STATEMENTS " is damaged; remove it, and what it held is asked for again",
		  p->path);
}

/* Into libssdtf's memory. */
static void statements_load(struct party *p, const struct p256_point *manager,
			    struct ssdtf_config *c)
{
	uint8_t *file = NULL;
	bool damaged = false;
	size_t n = 0;
	int ret = file_read(p->dir, STATEMENTS, STATEMENTS_MAX, &file, &n, NULL);

	if (ret && ret != -ENOENT)
		exit_with(EX_NOINPUT, "%s/" STATEMENTS ": %s", p->path, strerror(-ret));
	c->statements_n = n ? whole_statements(bytes_of(file, n), manager, &damaged) : 0;
	if (damaged)
		statements_damaged(p);
	c->statements_room = c->statements_n + STATEMENTS_ROOM;
	c->statements = p->statements = malloc(c->statements_room);
	if (!c->statements)
		exit_with(EX_OSERR, "no memory for %zu bytes of statements", c->statements_room);
	if (n != c->statements_n)
		log_warn("%s/" STATEMENTS
			 ": the last one is cut short, and left out: it comes again",
			 p->path);
	if (c->statements_n)
		memcpy(c->statements, file, c->statements_n);
	free(file);
}

/* What is of no use any more goes. */
static int statements_compact(struct party *p)
{
	struct bytes v = ssdtf_statements(&p->client);
	struct stat now;

	if (fstatat(p->dir, STATEMENTS, &now, 0))
		return errno == ENOENT ? 0 : -errno;
	return (size_t)now.st_size == v.n ? 0 : file_write(p->dir, STATEMENTS, v, 0600);
}

/* --- start-up --------------------------------------------------------------------------------- */

static void lock_dir(struct party *p)
{
	p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dir < 0)
		exit_with(EX_NOINPUT, "%s: %s", p->path, strerror(errno));
	if (!flock(p->dir, LOCK_EX | LOCK_NB))
		return;
	if (errno == EWOULDBLOCK)
		exit_with(EX_TEMPFAIL,
			  "%s is in use by another process: one at a time, or counters "
			  "would be used twice",
			  p->path);
	exit_with(EX_OSERR, "%s: lock: %s", p->path, strerror(errno));
}

static uint8_t *load(const struct party *p, const char *name, size_t bytes_max, size_t *ret_n)
{
	uint8_t *bytes;
	int ret = file_read(p->dir, name, bytes_max, &bytes, ret_n, NULL);

	if (ret)
		exit_with(EX_NOINPUT, "%s/%s: %s", p->path, name, strerror(-ret));
	return bytes;
}

static void load_private(const struct party *p, const char *name, struct secret32 *ret_scalar)
{
	size_t n;
	uint8_t *pem = load(p, name, PEM_BYTES_MAX, &n);
	int ret = p256_private_from_pem(bytes_of(pem, n), ret_scalar);

	secret_wipe(pem, n);
	free(pem);
	if (ret)
		exit_with(EX_DATAERR, "%s/%s: no private key on P-256 in PEM", p->path, name);
}

static void load_manager(const struct party *p, struct p256_point *ret_point)
{
	size_t n;
	uint8_t *pem = load(p, "manager.pub", PEM_BYTES_MAX, &n);

	if (p256_public_from_pem(bytes_of(pem, n), ret_point))
		exit_with(EX_DATAERR, "%s/manager.pub: no public key on P-256 in PEM", p->path);
	free(pem);
}

const char *party_bundle_trouble(int error)
{
	switch (error) {
	case -EBADMSG:
		return "is damaged, or not signed by the manager whose key is in manager.pub";
	case -ESTALE:
		return "is older than one that was here before: fetch the current one";
	case -ETIME:
		return "is not valid now: is this machine's clock right?";
	case -EPERM:
		return "is for another id, or for other keys than those in signing.pem, "
		       "encryption.pem and encryption.old.pem";
	case -E2BIG:
		return "has more scopes or grants than this program holds";
	}
	return strerror(-error);
}

static int remember_serial(const struct party *p, uint64_t before)
{
	return ssdtf_serial(&p->client) > before
		       ? number_store(p, "serial", ssdtf_serial(&p->client))
		       : 0;
}

static void client_init(struct party *p, const struct party_config *config, struct ssdtf_time now)
{
	struct secret32 signing SECRET = { { 0 } }, encryption SECRET = { { 0 } },
				old SECRET = { { 0 } };
	struct p256_point manager;
	struct ssdtf_config c = {
		.id = bytes_str(config->id ? config->id : ""),
		.zk = config->zk,
		.signing = &signing,
		.encryption = config->reads ? &encryption : NULL,
		.manager = &manager,
		.counter_step = config->counter_step,
		.rekey_messages = config->rekey_messages,
		.rekey_seconds = config->rekey_seconds,
		.origins = p->origins,
		.n_origins = p->n_origins,
		.contexts = p->contexts,
		.n_contexts = p->n_contexts,
		.ops = config->ops,
		.ctx = config->ctx,
	};
	size_t n;
	int ret = number_load(p, "serial", &c.serial_min);

	if (ret && ret != -ENOENT)
		exit_with(EX_DATAERR, "%s/serial: not a number", p->path);
	load_manager(p, &manager);
	load_private(p, "signing.pem", &signing);
	if (config->reads)
		load_private(p, "encryption.pem", &encryption);
	if (config->reads && !faccessat(p->dir, "encryption.old.pem", F_OK, 0)) {
		load_private(p, "encryption.old.pem", &old);
		c.encryption_old = &old;
	}
	statements_load(p, &manager, &c);
	p->bundle = load(p, "bundle", BUNDLE_BYTES_MAX, &n);
	p->bundle_n = n;
	c.bundle = bytes_of(p->bundle, n);
	ret = ssdtf_init(&p->client, &c, now);
	if (ret == -EILSEQ)
		statements_damaged(p);
	if (ret)
		exit_with(EX_DATAERR, "%s/bundle %s", p->path, party_bundle_trouble(ret));
	ret = statements_compact(p);
	if (ret)
		exit_with(EX_IOERR, "%s/" STATEMENTS ": %s", p->path, strerror(-ret));
	ret = remember_serial(p, c.serial_min);
	if (ret)
		exit_with(EX_IOERR, "%s/serial: %s", p->path, strerror(-ret));
}

void party_open(struct party *p, const struct party_config *config, struct ssdtf_time now)
{
	uint64_t mark;
	struct bytes id;

	memset(p, 0, sizeof(*p));
	p->path = config->dir;
	lock_dir(p);
	if (party_counter_load(p, &mark))
		exit_with(EX_DATAERR,
			  "%s/counter is damaged; remove it and the counter goes on "
			  "behind the highest that the broker knows",
			  p->path);
	if (config->reads) {
		windows_load(p, config->n_origins);
		contexts_new(p);
	}
	client_init(p, config, now);
	id = ssdtf_id(&p->client);
	memcpy(p->id, id.p, id.n);
}

void party_open_claim(struct party *p, const char *dir, const struct ssdtf_config *config,
		      struct ssdtf_time now)
{
	struct bytes id = config->identity->id;
	int ret;

	memset(p, 0, sizeof(*p));
	p->path = dir;
	lock_dir(p);
	ret = ssdtf_init(&p->client, config, now);
	if (ret)
		exit_with(EX_SOFTWARE, "the claim's keys: %s", strerror(-ret));
	memcpy(p->id, id.p, id.n);
}

/* Bundles hold K_adm. */
static void bundle_free(uint8_t *bundle, size_t n)
{
	if (bundle)
		secret_wipe(bundle, n);
	free(bundle);
}

int party_reload(struct party *p, struct ssdtf_time now)
{
	uint64_t before = ssdtf_serial(&p->client);
	uint8_t *bundle;
	size_t n;
	int ret = file_read(p->dir, "bundle", BUNDLE_BYTES_MAX, &bundle, &n, NULL);

	if (ret)
		return ret;
	ret = ssdtf_load_bundle(&p->client, bytes_of(bundle, n), now);
	if (ret) {
		bundle_free(bundle, n);
		return ret;
	}
	bundle_free(p->bundle, p->bundle_n);
	p->bundle = bundle;
	p->bundle_n = n;
	ret = remember_serial(p, before);
	if (!ret)
		ret = statements_compact(p);
	if (ret)
		return ret;
	return ssdtf_serial(&p->client) > before ? 0 : -EALREADY;
}

void party_close(struct party *p)
{
	ssdtf_deinit(&p->client);
	bundle_free(p->bundle, p->bundle_n);
	free(p->statements);
	free(p->contexts); /* which ssdtf_deinit() has wiped */
	free(p->origins);
	(void)close(p->dir); /* ends the lock */
}
