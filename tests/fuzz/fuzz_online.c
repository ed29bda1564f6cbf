// FUZZ_OF: userspace/bundle
// SPDX-License-Identifier: MIT
/*
 * What broker and manager say to each other about bundles and claims, from anywhere. What decodes
 * must encode to the very same bytes; and a cut is within what there is.
 */
#include <stdlib.h>
#include <string.h>

#include "userspace/bundle/cut.h"
#include "userspace/bundle/manifest.h"
#include "userspace/bundle/online.h"
#include "userspace/bundle/relay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct bytes_writer writer_for(size_t n, uint8_t **ret_buf)
{
	*ret_buf = malloc(n + 1);
	if (!*ret_buf)
		abort();
	return bytes_writer_of(*ret_buf, n);
}

static void expect_same(struct bytes_writer *w, uint8_t *buf, struct bytes v)
{
	if (w->bad || w->used != v.n || memcmp(buf, v.p, v.n))
		abort();
	free(buf);
}

static void fuzz_message(struct bytes v)
{
	struct online_message m;
	struct bytes_writer w;
	uint8_t *buf;

	if (online_decode(v, &m))
		return;
	w = writer_for(v.n, &buf);
	online_write(&m, &w);
	expect_same(&w, buf, v);
}

static void fuzz_manifest(struct bytes v)
{
	struct manifest m;
	struct bytes_writer w;
	uint8_t *buf;

	if (manifest_decode(v, &m))
		return;
	w = writer_for(v.n, &buf);
	manifest_write_head(&m, &w);
	for (uint32_t i = 0; i < m.n_pieces; i++) {
		struct manifest_piece p = manifest_next(&m.pieces);

		manifest_write_piece(&p, &w);
	}
	expect_same(&w, buf, v);
}

static void fuzz_forward(struct bytes v)
{
	struct relay_forward f;
	struct bytes_writer w;
	uint8_t *buf;

	if (relay_read_forward(v, &f))
		return;
	w = writer_for(v.n, &buf);
	relay_write_forward(&f, &w);
	expect_same(&w, buf, v);
}

/* The broker passes the answer on as it is: behind its kind the device must be able to read it. */
static void fuzz_decision(struct bytes v)
{
	struct bytes id, answer;
	struct bytes_writer w;
	struct bytes_reader r;
	struct claim_answer a;
	uint8_t *buf, *said;

	if (relay_read_decision(v, &id, &answer))
		return;
	w = writer_for(1 + answer.n, &said);
	bytes_write_u8(&w, CLAIM_ANSWER);
	bytes_write(&w, answer);
	r = bytes_reader_of(bytes_of(said, w.used));
	claim_answer_read(&r, &a);
	if (!bytes_read_done(&r))
		abort();
	w = writer_for(v.n, &buf);
	relay_write_decision(id, &a, &w);
	expect_same(&w, buf, v);
	free(said);
}

static void fuzz_cut(struct bytes v)
{
	for (size_t at = 0, n; at < v.n; at += n) {
		n = cut_next(bytes_of(v.p + at, v.n - at));
		if (!n || n > v.n - at || n > CUT_BYTES_MAX)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct bytes v = bytes_of(data, n);

	fuzz_message(v);
	fuzz_manifest(v);
	fuzz_forward(v);
	fuzz_decision(v);
	fuzz_cut(v);
	return 0;
}
