// SPDX-License-Identifier: MIT
#include "userspace/core/bundlein.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/broker/broker.h"
#include "userspace/bundle/online.h"
#include "userspace/bundle/record.h"
#include "userspace/core/bundlefile.h"
#include "userspace/core/pieces.h"

enum state { IDLE, SEARCHING, RECEIVING, SYNCING };

/* The Diffie-Hellman step of the context: at the token, then known. */
enum context { CONTEXT_NONE, CONTEXT_OUT, CONTEXT_READY };

struct bundlein {
	struct bundlein_config c;
	uint64_t mono_ms, wall_ms;
	uint64_t serial; /* in force */
	const char *in_force;

	enum state state;
	char manager_id[65]; /* who brings it */
	struct pieces *pieces;

	struct p256_point enc;
	enum context context;
	struct hpke_context hpke;
	struct broker_token_job job;
	uint64_t retry_at_ms;

	/* Asked for and not here. */
	uint32_t wanted[ONLINE_WANTED_MAX];
	unsigned n_wanted;
	bool sync_out, synced;
	bool sync_stale; /* the one that is out is of an offer of before */
	int sync_error;

	/* The end of an offer, to be told in the next turn. */
	bool say_end;
	char end_to[65];
	enum online_result result;
	char text[ONLINE_TEXT_BYTES_MAX];
};

struct bundlein *bundlein_new(const struct bundlein_config *config)
{
	struct bundlein *in = calloc(1, sizeof(*in));

	if (in)
		in->c = *config;
	return in;
}

static void forget_context(struct bundlein *in)
{
	hpke_context_deinit(&in->hpke);
	if (in->context == CONTEXT_READY)
		in->context = CONTEXT_NONE;
}

/* The offer is over, its files stay. */
static void leave(struct bundlein *in)
{
	pieces_free(in->pieces);
	in->pieces = NULL;
	forget_context(in);
	in->state = IDLE;
	in->n_wanted = 0;
	in->synced = false;
	in->sync_stale = in->sync_out;
}

void bundlein_free(struct bundlein *in)
{
	if (!in)
		return;
	leave(in);
	secret_wipe(in, sizeof(*in));
	free(in);
}

void bundlein_in_force(struct bundlein *in, uint64_t serial, const char *path)
{
	in->serial = serial;
	in->in_force = path;
}

/* What the manager is told in the next turn, about an offer of its. */
static void format_printf(4, 5) end(struct bundlein *in, const char *manager_id,
				    enum online_result result, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(in->text, sizeof(in->text), fmt, ap); /* cut where too long */
	va_end(ap);
	in->say_end = true;
	in->result = result;
	(void)snprintf(in->end_to, sizeof(in->end_to), "%s", manager_id);
}

/* The offer that is on its way ends like that. */
static void refuse(struct bundlein *in, const char *what, int err)
{
	end(in, in->manager_id, ONLINE_RESULT_REFUSED, "%s%s%s", what, err ? ": " : "",
	    err ? strerror(-err) : "");
	leave(in);
}

/* --- an offer ------------------------------------------------------------------------------- */

/* NULL: it may be taken up. */
static const char *judge(const struct bundlein *in, const struct statement *s,
			 const struct manifest *m)
{
	if (!bytes_equal(m->gateway_id, bytes_str(in->c.gateway_id)))
		return "it is for another gateway";
	if (!record_valid_at(s->not_before_ms, s->not_after_ms, in->wall_ms))
		return "it is not valid now: is a clock wrong?";
	if (m->serial < in->serial)
		return "it is older than the one in force";
	if (in->pieces && m->serial < pieces_manifest(in->pieces)->serial)
		return "a newer one is on its way";
	return NULL;
}

static bool is_same(const struct bundlein *in, struct bytes manifest)
{
	return in->pieces && bytes_equal(pieces_statement(in->pieces), manifest);
}

static void begin(struct bundlein *in, struct bytes manifest)
{
	int err;

	leave(in);
	err = pieces_open(in->c.state_dir, in->in_force, manifest, &in->pieces);
	if (err)
		return refuse(in, "no files for it", err);
	in->state = SEARCHING;
}

static void take_offer(struct bundlein *in, const char *manager_id,
		       const struct online_message *offer)
{
	struct statement s;
	struct manifest m;
	const char *why;

	if (statement_open(offer->manifest, STATEMENT_MANIFEST, in->c.manager, &s))
		return end(in, manager_id, ONLINE_RESULT_REFUSED,
			   "it is not signed by this gateway's manager");
	if (manifest_decode(s.body, &m))
		return end(in, manager_id, ONLINE_RESULT_REFUSED, "it is no manifest");
	why = judge(in, &s, &m);
	if (why)
		return end(in, manager_id, ONLINE_RESULT_REFUSED, "%s", why);
	if (m.serial == in->serial)
		return end(in, manager_id, ONLINE_RESULT_IN_FORCE, "it is in force");
	if (in->pieces && !is_same(in, offer->manifest) && strcmp(manager_id, in->manager_id) != 0)
		end(in, in->manager_id, ONLINE_RESULT_REFUSED, "a newer one took its place");
	(void)snprintf(in->manager_id, sizeof(in->manager_id), "%s", manager_id);
	if (!is_same(in, offer->manifest))
		begin(in, offer->manifest);
	forget_context(in);
	in->enc = offer->enc;
	in->n_wanted = 0; /* whoever brings it now is asked anew */
}

/* --- pieces --------------------------------------------------------------------------------- */

/* Its place among what was asked for; n_wanted where it was not. */
static unsigned wanted_at(const struct bundlein *in, uint32_t index)
{
	unsigned i = 0;

	while (i < in->n_wanted && in->wanted[i] != index)
		i++;
	return i;
}

static void take_piece(struct bundlein *in, const struct online_message *m)
{
	uint8_t plain[MANIFEST_PIECE_BYTES_MAX], aad[ONLINE_AAD_BYTES];
	unsigned at = wanted_at(in, m->index);
	size_t n = m->sealed.n - HPKE_TAG_BYTES;
	int err;

	if (at == in->n_wanted)
		return; /* of before: it is here, or will be asked for again */
	online_aad(m->serial, m->index, aad);
	err = hpke_open(&in->hpke, m->index, bytes_of(aad, sizeof(aad)), m->sealed, plain);
	if (!err)
		err = pieces_put(in->pieces, m->index, bytes_of(plain, n));
	secret_wipe(plain, n);
	if (err == -EBADMSG)
		return refuse(in, "a piece does not open, or is not what the manifest says", 0);
	if (err)
		return refuse(in, "a piece cannot be kept", err);
	in->wanted[at] = in->wanted[--in->n_wanted];
}

bool bundlein_take(struct bundlein *in, const char *manager_id, struct bytes message)
{
	struct online_message m;

	if (online_decode(message, &m))
		return false;
	switch (m.kind) {
	case ONLINE_OFFER:
		take_offer(in, manager_id, &m);
		return true;
	case ONLINE_PIECE:
		if (m.sealed.n <= HPKE_TAG_BYTES || m.sealed.n > ONLINE_SEALED_MAX)
			return false;
		/* Of an offer that ended meanwhile, or was taken over: no matter. */
		if (in->state == RECEIVING && in->context == CONTEXT_READY &&
		    m.serial == pieces_manifest(in->pieces)->serial &&
		    !strcmp(manager_id, in->manager_id))
			take_piece(in, &m);
		return true;
	case ONLINE_WANT:
	case ONLINE_APPLIED:
		break;
	}
	return false;
}

/* --- the context ------------------------------------------------------------------------------ */

static void ask_token(struct bundlein *in)
{
	struct p256_point key;

	if (!in->c.ops->key(in->c.ctx, &key))
		return refuse(in, "its token has no bundle key: ssdtf-hsmd keygen makes one", 0);
	in->job = (struct broker_token_job){ .op = BROKER_TOKEN_OPEN };
	memcpy(in->job.input, in->enc.b, sizeof(in->enc.b));
	in->context = CONTEXT_OUT;
	in->c.ops->open(in->c.ctx, &in->job);
}

void bundlein_opened(struct bundlein *in, struct broker_token_job *job)
{
	struct secret32 dh SECRET = { { 0 } };
	struct p256_point key;

	in->context = CONTEXT_NONE;
	if (in->state == IDLE || memcmp(job->input, in->enc.b, sizeof(in->enc.b)) != 0)
		return; /* the answer to an offer of before */
	switch (job->status) {
	case BROKER_TOKEN_OK:
		break;
	case BROKER_TOKEN_REFUSED:
		return refuse(in, "its token does not open it", 0);
	case BROKER_TOKEN_UNAVAILABLE:
		in->retry_at_ms = in->mono_ms + BUNDLEIN_RETRY_MS;
		return;
	}
	memcpy(dh.b, job->output, sizeof(dh.b));
	secret_wipe(job->output, sizeof(job->output));
	if (!in->c.ops->key(in->c.ctx, &key) ||
	    hpke_setup_from_dh(HPKE_SUITE_AES_128_GCM, &dh, &in->enc, &key, bytes_str(ONLINE_INFO),
			       &in->hpke))
		return refuse(in, "its context cannot be set up", 0);
	in->context = CONTEXT_READY;
}

/* --- turns ------------------------------------------------------------------------------------ */

static void say(struct bundlein *in, const char *manager_id, const struct online_message *m)
{
	uint8_t body[ONLINE_ANSWER_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	online_write(m, &w);
	BUG_ON(w.bad);
	in->c.ops->answer(in->c.ctx, manager_id, bytes_of(body, w.used));
}

static void search(struct bundlein *in)
{
	bool done = false;
	int err = pieces_search(in->pieces, BUNDLEIN_SEARCH_BYTES, &done);

	if (err)
		return refuse(in, "what is here already cannot be used", err);
	if (done)
		in->state = RECEIVING;
}

/* Asks for the next ones where all that were asked for are here; none are missing: to the disk. */
static void receive(struct bundlein *in)
{
	const struct manifest *m = pieces_manifest(in->pieces);
	struct online_message want = { .kind = ONLINE_WANT, .serial = m->serial };
	uint32_t i = pieces_missing(in->pieces, 0);

	if (in->n_wanted)
		return;
	if (i < m->n_pieces && in->context != CONTEXT_READY)
		return;
	for (; i < m->n_pieces && in->n_wanted < ONLINE_WANTED_MAX;
	     i = pieces_missing(in->pieces, i + 1))
		in->wanted[in->n_wanted++] = i;
	want.n_wanted = in->n_wanted;
	memcpy(want.wanted, in->wanted, sizeof(want.wanted));
	say(in, in->manager_id, &want);
	if (!in->n_wanted)
		in->state = SYNCING;
}

void bundlein_synced(struct bundlein *in, int error)
{
	in->sync_out = false;
	in->synced = !in->sync_stale;
	in->sync_stale = false;
	in->sync_error = error;
}

static void put_in_force(struct bundlein *in)
{
	char why[BUNDLEFILE_ERROR_BYTES] = "";
	int err = in->sync_error;

	if (err)
		return refuse(in, "it cannot be written to the disk", err);
	if (in->c.ops->check(in->c.ctx, pieces_path(in->pieces), why, sizeof(why)))
		return refuse(in, why, 0);
	err = pieces_keep(in->pieces);
	if (err) {
		in->c.ops->drop(in->c.ctx);
		return refuse(in, "it cannot be put in its place", err);
	}
	in->c.ops->apply(in->c.ctx);
	end(in, in->manager_id, ONLINE_RESULT_APPLIED, "%s", "");
	leave(in);
}

static void sync(struct bundlein *in)
{
	if (in->synced)
		return put_in_force(in);
	if (in->sync_out)
		return;
	in->sync_out = true;
	in->c.ops->sync(in->c.ctx, pieces_fd(in->pieces));
}

static void say_end(struct bundlein *in)
{
	struct online_message m = { .kind = ONLINE_APPLIED,
				    .serial = in->serial,
				    .result = (uint8_t)in->result,
				    .text = bytes_str(in->text) };

	in->say_end = false;
	if (in->result == ONLINE_RESULT_REFUSED)
		in->c.ops->note(in->c.ctx, in->end_to, in->text);
	say(in, in->end_to, &m);
}

void bundlein_turn(struct bundlein *in, uint64_t mono_ms, uint64_t wall_ms)
{
	in->mono_ms = mono_ms;
	in->wall_ms = wall_ms;
	if (in->state != IDLE && in->context == CONTEXT_NONE && mono_ms >= in->retry_at_ms)
		ask_token(in);
	switch (in->state) {
	case IDLE:
		break;
	case SEARCHING:
		search(in);
		break;
	case RECEIVING:
		receive(in);
		break;
	case SYNCING:
		sync(in);
		break;
	}
	if (in->say_end)
		say_end(in);
}

uint64_t bundlein_wait_ms(const struct bundlein *in)
{
	if (in->say_end || in->state == SEARCHING || (in->state == SYNCING && !in->sync_out) ||
	    (in->state == RECEIVING && !in->n_wanted && in->context == CONTEXT_READY))
		return 0;
	if (in->state != IDLE && in->context == CONTEXT_NONE)
		return in->retry_at_ms > in->mono_ms ? in->retry_at_ms - in->mono_ms : 0;
	return UINT64_MAX;
}
