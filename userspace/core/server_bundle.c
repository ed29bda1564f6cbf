// SPDX-License-Identifier: MIT
/*
 * Which bundle is in force: the administrator's file or the one that came online (PROTOCOL 14),
 * whichever has the higher serial.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/core/pieces.h"
#include "userspace/core/server.h"
#include "userspace/core/server_impl.h"

static struct bundlefile_expect expect_of(const struct server *s, uint64_t serial_min)
{
	return (struct bundlefile_expect){ s->manager, s->config->gateway_id, serial_min,
					   s->wall_ms };
}

/* --- at the start ----------------------------------------------------------------------------- */

/* The newer of the two becomes *a. */
static void keep_newer(struct bundlefile *a, struct bundlefile *b, bool *ret_b)
{
	struct bundlefile older = *a;

	*ret_b = b->statement.serial > a->statement.serial;
	if (*ret_b) {
		*a = *b;
		*b = older;
	}
	bundlefile_deinit(b);
}

int server_choose_bundle(struct server *s, uint64_t serial_min, struct bundlefile *ret_b,
			 char why[BUNDLEFILE_ERROR_BYTES])
{
	const struct bundlefile_expect e = expect_of(s, serial_min);
	char why_online[BUNDLEFILE_ERROR_BYTES];
	struct bundlefile online;
	bool newer = true;
	int err, err_online;

	if (file_join(s->config->state_dir, PIECES_BUNDLE, s->online_path))
		s->online_path[0] = '\0'; /* too long a name: then nothing is there */
	err = bundlefile_read(s->config->bundle, &e, ret_b, why);
	err_online = bundlefile_read(s->online_path, &e, &online, why_online);
	s->bundle_path = s->config->bundle;
	if (err_online && err_online != -ENOENT && err_online != -ESTALE && !err)
		log_warn("%s; %s is taken", why_online, s->config->bundle);
	if (err_online)
		return err;
	if (err)
		*ret_b = online;
	else
		keep_newer(ret_b, &online, &newer);
	if (err && err != -ESTALE && err != -ENOENT)
		log_warn("%s; %s is taken", why, s->online_path);
	if (newer)
		s->bundle_path = s->online_path;
	return 0;
}

/* --- in force --------------------------------------------------------------------------------- */

void server_bundle_in_force(struct server *s, uint64_t serial, const char *path)
{
	s->bundle_serial = serial;
	s->bundle_path = path;
	if (s->bundlein)
		bundlein_in_force(s->bundlein, serial, path);
	log_info("event=bundle serial=%llu", (unsigned long long)serial);
}

/* --- one that comes online -------------------------------------------------------------------- */

static bool key_op(void *ctx, struct p256_point *ret_key)
{
	struct server *s = ctx;

	return hsmlink_bundle_key(s->hsm, ret_key);
}

static void open_op(void *ctx, struct broker_token_job *job)
{
	struct server *s = ctx;

	hsmlink_submit(s->hsm, job);
}

static void answer_op(void *ctx, const char *manager_id, struct bytes body)
{
	struct server *s = ctx;

	(void)broker_bundle_answer(s->broker, manager_id, body); /* who is gone offers it again */
}

static void sync_op(void *ctx, int fd)
{
	struct server *s = ctx;
	struct io_uring_sqe *sqe = ring_sqe(&s->ring);

	if (!sqe) {
		bundlein_synced(s->bundlein, fsync(fd) ? -errno : 0);
		return;
	}
	io_uring_prep_fsync(sqe, fd, 0);
	ring_tag(sqe, RING_SYNC, 0, 0);
}

static void complete_sync(void *ctx, const struct ring_done *d)
{
	struct server *s = ctx;

	bundlein_synced(s->bundlein, d->res < 0 ? d->res : 0);
}

static int check_op(void *ctx, const char *path, char *why, size_t room)
{
	struct server *s = ctx;
	const struct bundlefile_expect e = expect_of(s, s->bundle_serial + 1);
	char words[BUNDLEFILE_ERROR_BYTES];
	const char *engine_why = "", *lacks;
	struct bundlefile b;
	int err = bundlefile_read(path, &e, &b, words);

	if (err) {
		(void)snprintf(why, room, "%s", words); /* cut where too long */
		return err;
	}
	server_keys_of(&b.gateway, &s->prepared.keys);
	lacks = hsmlink_lacks(s->hsm, &s->prepared.keys);
	if (lacks) {
		/* The token may have it since it was asked: the manager's next try will tell. */
		hsmlink_ask(s->hsm);
		(void)snprintf(why, room, "%s", lacks);
		err = -EXDEV;
	} else {
		err = broker_prepare_bundle(s->broker, b.statement.serial, b.statement.body,
					    &s->prepared.directory, &engine_why);
		(void)snprintf(why, room, "%s", engine_why);
	}
	s->prepared.serial = b.statement.serial;
	s->prepared.not_after_ms = b.statement.not_after_ms;
	bundlefile_deinit(&b);
	return err;
}

static void apply_op(void *ctx)
{
	struct server *s = ctx;

	broker_apply_prepared(s->broker, s->prepared.directory);
	s->keys = s->prepared.keys;
	hsmlink_rekey(s->hsm, &s->keys);
	broker_bundle_until(s->broker, s->prepared.not_after_ms);
	admit_sync(s->admit, s->broker);
	server_bundle_in_force(s, s->prepared.serial, s->online_path);
}

static void drop_op(void *ctx)
{
	struct server *s = ctx;

	broker_drop_prepared(s->prepared.directory);
}

static void note_op(void *ctx, const char *manager_id, const char *what)
{
	struct server *s = ctx;

	journal_note(&s->journal, s->mono_ms, "bundle refused", manager_id, what);
}

static const struct bundlein_ops ops = {
	.key = key_op,
	.open = open_op,
	.answer = answer_op,
	.sync = sync_op,
	.check = check_op,
	.apply = apply_op,
	.drop = drop_op,
	.note = note_op,
};

int server_start_bundlein(struct server *s)
{
	const struct bundlein_config c = { .state_dir = s->config->state_dir,
					   .gateway_id = s->config->gateway_id,
					   .manager = s->manager,
					   .ops = &ops,
					   .ctx = s };

	s->bundlein = bundlein_new(&c);
	if (!s->bundlein)
		return -ENOMEM;
	bundlein_in_force(s->bundlein, s->bundle_serial, s->bundle_path);
	ring_on(&s->ring, RING_SYNC, complete_sync, s);
	return 0;
}
