// SPDX-License-Identifier: MIT
#include "userspace/manager/rotate.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/manager/renew.h"
#include "userspace/manager/rotate_impl.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/update.h"

static int check_overlap(struct manager *m, const char *name)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT max(not_after_ms) FROM epoch"
					     " WHERE scope = ? AND kept_until_ms > 0");
	uint64_t until = 0;
	int err;

	registry_bind_text(&q, name);
	if (registry_step(&q))
		until = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	return rotate_check_overlap(m, "scope", name, "senders may still use its last key", until);
}

/* Key ids whose time is over altogether: what could still open or convert under them goes. */
static int wipe_old(struct manager *m, const char *name)
{
	struct registry_query q;
	int err;

	q = registry_query(&m->registry,
			   "DELETE FROM grants WHERE key_id IN (SELECT key_id FROM epoch"
			   " WHERE scope = ?1 AND kept_until_ms BETWEEN 1 AND ?2)");
	registry_bind_text(&q, name);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	q = registry_query(&m->registry,
			   "UPDATE epoch SET sealed = zeroblob(60) WHERE scope = ?1"
			   " AND kept_until_ms BETWEEN 1 AND ?2 AND sealed <> zeroblob(60)");
	registry_bind_text(&q, name);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (registry_changes(&m->registry))
		(void)fprintf(m->out, "wiped scope=%s epochs=%lld\n", name,
			      (long long)registry_changes(&m->registry));
	return 0;
}

static int end_epoch(struct manager *m, uint32_t key_id, uint64_t overlap_ms, uint64_t kept_ms)
{
	struct registry_query q = registry_query(
		&m->registry,
		"UPDATE epoch SET kept_until_ms = ?1, not_after_ms ="
		" iif(not_after_ms = 0, ?2, min(not_after_ms, ?2)) WHERE key_id = ?3");

	registry_bind_int(&q, (int64_t)kept_ms);
	registry_bind_int(&q, (int64_t)overlap_ms);
	registry_bind_int(&q, key_id);
	return manager_fail_registry(m, registry_run(&q));
}

static int rotate_with(struct manager *m, const char *name, uint64_t overlap_ms, uint64_t kept_ms,
		       struct scope *s)
{
	struct renew_which which = { 0 };
	char end[ROTATE_TIME_ROOM], kept[ROTATE_TIME_ROOM];
	uint32_t n = 0;
	int err = scope_load(m, name, s);

	if (!err)
		err = check_overlap(m, name);
	if (!err)
		err = wipe_old(m, name);
	if (err)
		return err;
	which.key_id = s->record.key_id;
	err = end_epoch(m, which.key_id, overlap_ms, kept_ms);
	s->record.epoch++;
	if (!err)
		err = scope_new_epoch(m, s);
	if (!err)
		err = renew_grants(m, &which, s->record.key_id, kept_ms, &n);
	if (!err)
		err = update_scope(m, name);
	if (!err)
		err = manager_note(m, "rotate scope", name, "");
	if (!err)
		(void)fprintf(m->out,
			      "rotated scope=%s key_id=%u epoch=%u grants=%u old_key_id=%u "
			      "senders_until=%s converted_until=%s\n",
			      name, s->record.key_id, s->record.epoch, n, which.key_id,
			      rotate_time_text(overlap_ms, end), rotate_time_text(kept_ms, kept));
	return err;
}

int rotate_scope(struct manager *m, const char *name, uint32_t overlap_hours, uint32_t keep_days)
{
	uint64_t overlap_ms = rotate_overlap_end(m, overlap_hours);
	uint64_t kept_ms = overlap_ms + keep_days * 24ull * ROTATE_HOUR_MS;
	struct scope *s = malloc(sizeof(*s));
	int err = s ? rotate_with(m, name, overlap_ms, kept_ms, s)
		    : manager_fail(m, -ENOMEM, "out of memory");

	free(s);
	return err;
}
