// SPDX-License-Identifier: MIT
#include "userspace/manager/push.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/cut.h"
#include "userspace/bundle/online.h"
#include "userspace/client/print.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/session.h"

struct piece {
	uint64_t at;
	uint32_t bytes;
	bool sent;
};

struct push {
	char gateway[MANAGER_ID_ROOM];
	uint8_t *bundle;
	size_t bundle_n;
	uint64_t serial;
	struct piece *pieces;
	uint32_t n_pieces;
	uint8_t *manifest; /* the statement */
	size_t manifest_n;
	struct hpke_context hpke;
	struct p256_point enc;
	enum push_state state;
	char words[ONLINE_TEXT_BYTES_MAX + 1];
	struct push_figures figures;
};

void push_free(struct push *p)
{
	if (!p)
		return;
	if (p->bundle)
		secret_wipe(p->bundle, p->bundle_n);
	hpke_context_deinit(&p->hpke);
	free(p->bundle);
	free(p->pieces);
	free(p->manifest);
	free(p);
}

const char *push_gateway(const struct push *p)
{
	return p->gateway;
}

uint64_t push_serial(const struct push *p)
{
	return p->serial;
}

enum push_state push_state(const struct push *p)
{
	return p->state;
}

const char *push_words(const struct push *p)
{
	return p->words;
}

void push_figures(const struct push *p, struct push_figures *ret_f)
{
	*ret_f = p->figures;
}

/* --- making it -------------------------------------------------------------------------------- */

/* Through a file of the manager's own, which is gone at once. */
static int make_bundle(struct manager *m, const struct bundle_terms *t, struct push *p)
{
	char name[MANAGER_ID_ROOM + 16], path[FILE_PATH_BYTES_MAX];
	struct statement s;
	int err;

	(void)snprintf(name, sizeof(name), "push-%s.bundle", p->gateway); /* it fits */
	err = file_join(m->config.dir, name, path);
	if (err)
		return manager_fail_file(m, err, "write", m->config.dir);
	err = bundle_make_gateway(m, t, path);
	if (err)
		return err;
	err = manager_fail_file(
		m, file_read(AT_FDCWD, path, MANIFEST_BYTES_MAX, &p->bundle, &p->bundle_n, NULL),
		"read", path);
	if (unlink(path) && !err)
		err = manager_fail_file(m, -errno, "remove", path);
	if (!err && statement_read(bytes_of(p->bundle, p->bundle_n), &s))
		err = manager_fail(m, -EIO, "%s: is no statement", path);
	if (err)
		return err;
	rewind(m->out); /* what was said of the file */
	p->serial = s.serial;
	return 0;
}

/* Where each piece begins; the last entry is beyond the end. */
static int cut(struct manager *m, struct push *p)
{
	size_t room = p->bundle_n / CUT_BYTES_MIN + 1;
	uint64_t at = 0;

	p->pieces = calloc(room, sizeof(p->pieces[0]));
	if (!p->pieces)
		return manager_fail(m, -ENOMEM, "out of memory");
	while (at < p->bundle_n) {
		size_t n = cut_next(bytes_of(p->bundle + at, p->bundle_n - at));

		BUG_ON(p->n_pieces == room);
		p->pieces[p->n_pieces++] = (struct piece){ .at = at, .bytes = (uint32_t)n };
		at += n;
	}
	if (p->n_pieces > MANIFEST_PIECES_MAX)
		return manager_fail(m, -EMSGSIZE, "the bundle has more pieces than may travel");
	p->figures.bytes = p->bundle_n;
	p->figures.pieces = p->n_pieces;
	return 0;
}

static void write_manifest(const struct push *p, struct bytes_writer *w)
{
	const struct manifest m = { .gateway_id = bytes_str(p->gateway),
				    .serial = p->serial,
				    .bytes = p->bundle_n,
				    .n_pieces = p->n_pieces };

	manifest_write_head(&m, w);
	for (uint32_t i = 0; i < p->n_pieces; i++) {
		uint8_t hash[HASH_BYTES];
		const struct manifest_piece piece = { .bytes = p->pieces[i].bytes,
						      .hash = bytes_of(hash, sizeof(hash)) };

		hash_one(bytes_of(p->bundle + p->pieces[i].at, piece.bytes), hash);
		manifest_write_piece(&piece, w);
	}
}

static int take_serial(struct manager *m, uint64_t *ret_serial)
{
	int err = manager_begin(m);

	if (!err)
		err = manager_serials(m, 1, ret_serial);
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}

static int sign_manifest(struct manager *m, struct push *p)
{
	size_t n = MANIFEST_HEAD_BYTES_MAX + (size_t)p->n_pieces * MANIFEST_ENTRY_BYTES;
	uint8_t *body = malloc(n), digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct bytes_writer w = bytes_writer_of(body, n);
	struct statement s = { .kind = STATEMENT_MANIFEST };
	int err = take_serial(m, &s.serial);

	p->manifest = malloc(STATEMENT_BYTES(n));
	if (!err && (!body || !p->manifest))
		err = manager_fail(m, -ENOMEM, "out of memory");
	if (!err) {
		write_manifest(p, &w);
		BUG_ON(w.bad);
		s.body = bytes_of(body, w.used);
		w = bytes_writer_of(p->manifest, STATEMENT_BYTES(n));
		statement_write_unsigned(&s, &w);
		statement_digest(s.kind, bytes_of(p->manifest, w.used), digest);
		err = manager_fail_token(m, token_sign(m->token, MANAGER_KEY_LABEL, digest, sig));
	}
	if (!err) {
		bytes_write(&w, bytes_of(sig, sizeof(sig)));
		BUG_ON(w.bad);
		p->manifest_n = w.used;
	}
	free(body);
	return err;
}

static int make(struct manager *m, const struct bundle_terms *t, struct push *p)
{
	struct gateway g;
	int err = gateway_load(m, t->gateway, &g);

	if (err)
		return err;
	(void)snprintf(p->gateway, sizeof(p->gateway), "%s", g.id);
	if (!g.has_bundle_key)
		return manager_fail(
			m, -ENODATA,
			"gateway \"%s\" is enrolled without a bundle key: run `ssdtf-hsmd "
			"keygen` there and enrol it again with what it writes",
			g.id);
	err = make_bundle(m, t, p);
	if (!err)
		err = cut(m, p);
	if (!err)
		err = sign_manifest(m, p);
	if (err)
		return err;
	err = hpke_setup_sender(HPKE_SUITE_AES_128_GCM, &g.bundle_key, bytes_str(ONLINE_INFO),
				&p->hpke, &p->enc);
	return err ? manager_fail(m, err, "cannot seal to \"%s\": %s", g.id, strerror(-err)) : 0;
}

int push_make(struct manager *m, const struct bundle_terms *t, struct push **ret_p)
{
	struct push *p = calloc(1, sizeof(*p));
	int err = p ? make(m, t, p) : manager_fail(m, -ENOMEM, "out of memory");

	if (err)
		push_free(p);
	else
		*ret_p = p;
	return err;
}

/* --- bringing it ------------------------------------------------------------------------------ */

static int say(struct push *p, struct session *s, const struct online_message *m, size_t room)
{
	uint8_t *body = malloc(room);
	struct bytes_writer w = bytes_writer_of(body, room);
	int err;

	if (!body)
		return -ENOMEM;
	online_write(m, &w);
	BUG_ON(w.bad);
	err = session_say(s, ONLINE_TOPIC, bytes_of(body, w.used));
	if (!err)
		p->figures.bytes_sent += w.used;
	free(body);
	return err;
}

void push_offer(struct push *p, struct session *s)
{
	const struct online_message m = { .kind = ONLINE_OFFER,
					  .manifest = bytes_of(p->manifest, p->manifest_n),
					  .enc = p->enc };
	int err = say(p, s, &m, ONLINE_OFFER_BYTES(p->manifest_n));

	if (!err || err == -ENOTCONN)
		return; /* the next session begins with it, too */
	p->state = PUSH_REFUSED;
	(void)snprintf(p->words, sizeof(p->words), "the offer cannot be sent: %s", strerror(-err));
}

/* Sent again it is the same bytes: sequence number and plaintext are. */
static int send_piece(struct push *p, struct session *s, uint32_t index)
{
	struct piece *piece = &p->pieces[index];
	uint8_t sealed[ONLINE_SEALED_MAX], aad[ONLINE_AAD_BYTES];
	const struct online_message m = { .kind = ONLINE_PIECE,
					  .serial = p->serial,
					  .index = index,
					  .sealed =
						  bytes_of(sealed, piece->bytes + HPKE_TAG_BYTES) };
	int err;

	online_aad(p->serial, index, aad);
	err = hpke_seal(&p->hpke, index, bytes_of(aad, sizeof(aad)),
			bytes_of(p->bundle + piece->at, piece->bytes), sealed);
	if (!err)
		err = say(p, s, &m, ONLINE_PIECE_BYTES(piece->bytes));
	if (!err) {
		p->figures.pieces_sent += !piece->sent;
		piece->sent = true;
	}
	return err;
}

/* What cannot be said now is asked for again when there is another session. */
static void take_want(struct push *p, struct session *s, const struct online_message *m)
{
	for (unsigned i = 0; i < m->n_wanted; i++) {
		if (m->wanted[i] >= p->n_pieces || send_piece(p, s, m->wanted[i]))
			return;
	}
}

static void take_applied(struct push *p, const struct online_message *m)
{
	switch (m->result) {
	case ONLINE_RESULT_APPLIED:
	case ONLINE_RESULT_IN_FORCE: /* the first answer was lost */
		if (m->serial == p->serial)
			p->state = PUSH_APPLIED;
		return;
	default:
		p->state = PUSH_REFUSED;
		(void)print_clean(m->text, p->words, sizeof(p->words));
	}
}

void push_take(struct push *p, struct session *s, struct bytes body)
{
	struct online_message m;

	if (p->state != PUSH_UNDER_WAY || online_decode(body, &m))
		return;
	if (m.kind == ONLINE_WANT && m.serial == p->serial)
		take_want(p, s, &m);
	else if (m.kind == ONLINE_APPLIED)
		take_applied(p, &m);
}

int push_note_applied(struct manager *m, const struct push *p)
{
	struct registry_query q;
	int err = manager_begin(m);

	if (err)
		return err;
	q = registry_query(&m->registry,
			   "INSERT INTO online (gateway, made_serial, applied_serial, applied_ms)"
			   " VALUES (?1, ?2, ?2, ?3) ON CONFLICT (gateway) DO UPDATE SET"
			   " applied_serial = max(applied_serial, excluded.applied_serial),"
			   " applied_ms = excluded.applied_ms");
	registry_bind_text(&q, p->gateway);
	registry_bind_int(&q, (int64_t)p->serial);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = manager_fail_registry(m, registry_run(&q));
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}
