// SPDX-License-Identifier: MIT
#include "userspace/manager/claimcode.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/labels.h"
#include "userspace/manager/say.h"

#define NAME_ROOM (MANAGER_ID_ROOM + 8) /* ID.claim */

/* --- the folder ---------------------------------------------------------------------------- */

int claimcode_check_folder(struct manager *m, const char *folder)
{
	struct stat st;

	if (stat(folder, &st))
		return manager_fail_file(m, -errno, "write to", folder);
	if (!S_ISDIR(st.st_mode))
		return manager_fail(m, -EINVAL, "%s: is no folder", folder);
	/* A code that lies there already is taken for ours. */
	if (st.st_mode & 022)
		return manager_fail(m, -EACCES,
				    "%s: others may write to it (mode %03o); chmod 700 it first",
				    folder, (unsigned)st.st_mode & 0777);
	return 0;
}

static int path_of(struct manager *m, const char *folder, const char *id, const char *suffix,
		   char out[FILE_PATH_BYTES_MAX])
{
	char name[NAME_ROOM];

	(void)snprintf(name, sizeof(name), "%s%s", id, suffix); /* an id, so it fits */
	return manager_fail_file(m, file_join(folder, name, out), "write", folder);
}

/* --- a code -------------------------------------------------------------------------------- */

void claimcode_make(const struct manager *m, const struct gateway *g, const char *id,
		    struct claim_code *ret_c)
{
	*ret_c = (struct claim_code){ .manager = m->key, .broker = g->broker };
	(void)snprintf(ret_c->id, sizeof(ret_c->id), "%s", id); /* ids, so they fit */
	(void)snprintf(ret_c->gateway_id, sizeof(ret_c->gateway_id), "%s", g->id);
	hash_random(ret_c->secret, sizeof(ret_c->secret));
}

int claimcode_apply(struct manager *m, const struct claim_code *c, struct party *p)
{
	struct secret32 signing SECRET = { 0 };
	int err = claim_keys(bytes_str(c->id), c->secret, &signing, p->k_adm);

	if (!err)
		err = p256_mul_base(&signing, &p->signing);
	if (err)
		return manager_fail(m, err, "cannot make a claim key: %s", strerror(-err));
	p->flags |= RECORD_PARTY_CLAIM;
	p->has_previous = false;
	p->has_previous_k_adm = false;
	return 0;
}

/* --- its file ------------------------------------------------------------------------------ */

static bool is_ours(const struct manager *m, const struct gateway *g, const char *id,
		    const struct claim_code *c)
{
	return !strcmp(c->id, id) && !strcmp(c->gateway_id, g->id) &&
	       !memcmp(c->manager.b, m->key.b, sizeof(m->key.b)) &&
	       !memcmp(c->broker.b, g->broker.b, sizeof(g->broker.b));
}

int claimcode_read(struct manager *m, const char *folder, const struct gateway *g, const char *id,
		   struct claim_code *ret_c, bool *ret_found)
{
	char path[FILE_PATH_BYTES_MAX];
	uint8_t text[CLAIM_CODE_SIZE + 1];
	size_t n = 0;
	int err = path_of(m, folder, id, ".claim", path);

	*ret_found = false;
	if (err)
		return err;
	err = file_read_into(AT_FDCWD, path, text, sizeof(text), &n);
	if (err == -ENOENT)
		return 0;
	if (err)
		return manager_fail_file(m, err, "read", path);
	if (n && text[n - 1] == '\n')
		n--;
	if (!claim_code_decode(bytes_of(text, n), ret_c)) {
		*ret_found = is_ours(m, g, id, ret_c);
		if (!*ret_found) {
			claim_code_wipe(ret_c);
			err = manager_fail(m, -EEXIST,
					   "%s: is a code of another manager, gateway or device; "
					   "take it away first",
					   path);
		}
	}
	secret_wipe(text, sizeof(text));
	return err;
}

static int write_text(const char *path, struct bytes v)
{
	int fd, err = 0;

	/* One that was cut short, or is void. */
	if (unlink(path) && errno != ENOENT)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* A regular file takes all or has no room for it. */
	if (write(fd, v.p, v.n) != (ssize_t)v.n)
		err = errno ? -errno : -ENOSPC;
	if (close(fd) && !err)
		err = -errno;
	return err;
}

int claimcode_write(struct manager *m, const char *folder, const struct claim_code *c)
{
	char path[FILE_PATH_BYTES_MAX], text[CLAIM_CODE_SIZE + 1];
	size_t n;
	int err = path_of(m, folder, c->id, ".claim", path);

	if (err)
		return err;
	err = claim_code_encode(c, text);
	if (err)
		return manager_fail(m, err, "cannot write a claim code for \"%s\"", c->id);
	n = strlen(text);
	text[n] = '\n';
	errno = 0;
	err = manager_fail_file(m, write_text(path, bytes_of(text, n + 1)), "write", path);
	secret_wipe(text, sizeof(text));
	return err;
}

/* Of the whole file system, which for thousands of files is less than one after the other. */
int claimcode_sync(struct manager *m, const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0 || syncfs(fd))
		err = manager_fail_file(m, -errno, "write to", folder);
	if (fd >= 0)
		(void)close(fd); /* only read from */
	return err;
}

/* --- the commands -------------------------------------------------------------------------- */

/* Only a code that waits. */
static int load_waiting(struct manager *m, const char *id, struct party *p,
			char gateway[MANAGER_ID_ROOM])
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT state, gateway FROM claim WHERE party = ?");
	char state[16] = "";
	int err;

	registry_bind_text(&q, id);
	if (registry_step(&q)) {
		registry_text(&q, 0, state, sizeof(state));
		registry_text(&q, 1, gateway, MANAGER_ID_ROOM);
	}
	err = manager_fail_registry(m, registry_end(&q));
	if (!err)
		err = party_load(m, id, PARTY_ANY_ROLE, p);
	if (err)
		return err;
	if (!state[0])
		return manager_fail(m, -ESRCH, "\"%s\" was enrolled without a claim code", id);
	if (strcmp(state, "waiting"))
		return manager_fail(m, -EEXIST,
				    "\"%s\" has claimed already; if that was not your device, "
				    "revoke it and enrol it again",
				    id);
	return 0;
}

static int put_renewed(struct manager *m, const struct party *p, const struct gateway *g)
{
	struct registry_query q = registry_query(
		&m->registry, "UPDATE claim SET gateway = ?2, made_ms = ?3 WHERE party = ?1");
	int err;

	registry_bind_text(&q, p->id);
	registry_bind_text(&q, g->id);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = manager_fail_registry(m, registry_run(&q));
	if (!err)
		err = party_store(m, p);
	return err ? err : manager_note(m, "claim renew", p->id, g->id);
}

static int write_label(struct manager *m, const char *folder, const struct claim_code *c)
{
	char text[CLAIM_CODE_SIZE];
	int err = claim_code_encode(c, text);

	if (err)
		return manager_fail(m, err, "cannot write a claim code for \"%s\"", c->id);
	err = labels_write_svg(m, folder, c->id, text);
	secret_wipe(text, sizeof(text));
	return err;
}

int claimcode_renew(struct manager *m, const char *id, const char *gateway, const char *folder)
{
	char old_gateway[MANAGER_ID_ROOM] = "";
	struct party p;
	struct gateway g;
	struct claim_code c;
	int err = manager_check_id(m, "id", id);

	if (!err)
		err = claimcode_check_folder(m, folder);
	if (!err)
		err = load_waiting(m, id, &p, old_gateway);
	if (!err)
		err = gateway_load(m, gateway ? gateway : old_gateway, &g);
	if (err)
		return err;
	claimcode_make(m, &g, id, &c);
	err = claimcode_apply(m, &c, &p);
	if (!err)
		err = put_renewed(m, &p, &g);
	if (!err)
		err = claimcode_write(m, folder, &c);
	if (!err)
		err = write_label(m, folder, &c);
	if (!err)
		err = claimcode_sync(m, folder);
	claim_code_wipe(&c);
	secret_wipe(p.k_adm, sizeof(p.k_adm));
	if (!err)
		(void)fprintf(m->out, "renewed id=%s gateway=%s code=%s/%s.claim\n", id, g.id,
			      folder, id);
	return err;
}

int claimcode_list(struct manager *m)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT party, gateway, state, made_ms, claimed_ms"
					     " FROM claim ORDER BY party");
	char id[MANAGER_ID_ROOM], gateway[MANAGER_ID_ROOM], state[16];
	char made[SAY_TIME_ROOM], claimed[SAY_TIME_ROOM];

	while (registry_step(&q)) {
		registry_text(&q, 0, id, sizeof(id));
		registry_text(&q, 1, gateway, sizeof(gateway));
		registry_text(&q, 2, state, sizeof(state));
		(void)fprintf(m->out, "id=%s gateway=%s state=%s made=%s claimed=%s\n", id, gateway,
			      state, say_time(registry_int(&q, 3), made),
			      say_time(registry_int(&q, 4), claimed));
	}
	return manager_fail_registry(m, registry_end(&q));
}
