// SPDX-License-Identifier: MIT
#include "userspace/manager/push.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/cut.h"
#include "userspace/bundle/online.h"
#include "userspace/client/print.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/session.h"
#include "userspace/manager/sign.h"

struct piece {
	uint64_t at;
	uint32_t bytes;
	bool sent;
};

struct push {
	char gateway[MANAGER_ID_ROOM];
	bool closing; /* it is the last of a gateway that was revoked */
	struct bundle_made bundle;
	struct piece *pieces;
	uint32_t n_pieces;
	uint8_t *manifest; /* the statement */
	size_t manifest_n;
	struct hpke_context hpke;
	struct p256_point enc;
	enum push_state state;
	bool all_here; /* all that the gateway lacked was sent */
	char words[ONLINE_TEXT_BYTES_MAX + 1];
	struct push_figures figures;
};

void push_free(struct push *p)
{
	if (!p)
		return;
	if (p->bundle.bytes)
		secret_wipe(p->bundle.bytes, p->bundle.n);
	hpke_context_deinit(&p->hpke);
	free(p->bundle.bytes);
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
	return p->bundle.serial;
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

/* Where each piece begins; the last entry is beyond the end. */
static int cut(struct manager *m, struct push *p)
{
	size_t room = p->bundle.n / CUT_BYTES_MIN + 1;
	uint64_t at = 0;

	p->pieces = calloc(room, sizeof(p->pieces[0]));
	if (!p->pieces)
		return manager_fail(m, -ENOMEM, "out of memory");
	while (at < p->bundle.n) {
		size_t n = cut_next(bytes_of(p->bundle.bytes + at, p->bundle.n - at));

		BUG_ON(p->n_pieces == room);
		p->pieces[p->n_pieces++] = (struct piece){ .at = at, .bytes = (uint32_t)n };
		at += n;
	}
	if (p->n_pieces > MANIFEST_PIECES_MAX)
		return manager_fail(m, -EMSGSIZE, "the bundle has more pieces than may travel");
	p->figures.bytes = p->bundle.n;
	p->figures.pieces = p->n_pieces;
	return 0;
}

static void write_manifest(const struct push *p, struct bytes_writer *w)
{
	const struct manifest m = { .gateway_id = bytes_str(p->gateway),
				    .serial = p->bundle.serial,
				    .bytes = p->bundle.n,
				    .n_pieces = p->n_pieces };

	manifest_write_head(&m, w);
	for (uint32_t i = 0; i < p->n_pieces; i++) {
		uint8_t hash[HASH_BYTES];
		const struct manifest_piece piece = { .bytes = p->pieces[i].bytes,
						      .hash = bytes_of(hash, sizeof(hash)) };

		hash_one(bytes_of(p->bundle.bytes + p->pieces[i].at, piece.bytes), hash);
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
	uint8_t *body = malloc(n);
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
		err = sign_statement(m, &s, p->manifest, STATEMENT_BYTES(n), &p->manifest_n);
	}
	free(body);
	return err;
}

/* One that was revoked gets a last bundle, with nothing in it. */
static int load_gateway(struct manager *m, const char *id, struct gateway *ret_g)
{
	bool found = false;
	int err = id ? manager_check_id(m, "gateway", id) : 0;

	if (!err && id)
		err = gateway_find(m, id, ret_g, &found);
	return err || found ? err : gateway_load(m, id, ret_g); /* with the words */
}

static int make(struct manager *m, const struct bundle_terms *t, struct push *p)
{
	struct gateway g;
	struct bundle_terms terms = *t;
	int err = load_gateway(m, t->gateway, &g);

	if (err)
		return err;
	p->closing = g.revoked_ms;
	(void)snprintf(p->gateway, sizeof(p->gateway), "%s", g.id);
	if (!g.has_bundle_key)
		return manager_fail(
			m, -ENODATA,
			"gateway \"%s\" is enrolled without a bundle key: run `ssdtf-hsmd "
			"keygen` there and enrol it again with what it writes",
			g.id);
	terms.gateway = p->gateway;
	terms.made = &p->bundle;
	err = bundle_make_gateway(m, &terms, NULL);
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

bool push_is_farewell(const struct push *p)
{
	return p->closing && p->all_here;
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
					  .serial = p->bundle.serial,
					  .index = index,
					  .sealed =
						  bytes_of(sealed, piece->bytes + HPKE_TAG_BYTES) };
	int err;

	online_aad(p->bundle.serial, index, aad);
	err = hpke_seal(&p->hpke, index, bytes_of(aad, sizeof(aad)),
			bytes_of(p->bundle.bytes + piece->at, piece->bytes), sealed);
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
	/* Fewer than may be asked for at once are the last. */
	p->all_here = m->n_wanted < ONLINE_WANTED_MAX;
}

static void take_applied(struct push *p, const struct online_message *m)
{
	switch (m->result) {
	case ONLINE_RESULT_APPLIED:
	case ONLINE_RESULT_IN_FORCE: /* the first answer was lost */
		if (m->serial == p->bundle.serial)
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
	if (m.kind == ONLINE_WANT && m.serial == p->bundle.serial)
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
	registry_bind_int(&q, (int64_t)p->bundle.serial);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = manager_fail_registry(m, registry_run(&q));
	if (!err)
		err = manager_commit(m);
	if (err)
		manager_rollback(m);
	return err;
}
