// SPDX-License-Identifier: MIT
#include "hsm/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct keys_blob {
	uint8_t *p;
	size_t n;
	bool bad; /* the token did not take it: not tried again until handles are lost */
};

int keys_init(struct keys *k, uint32_t blobs_max, uint32_t sessions_max)
{
	*k = (struct keys){ .with[0] = TOKEN_LABEL_UNWRAP };
	if (lru_init(&k->blobs, blobs_max))
		return -ENOMEM;
	if (lru_init(&k->sessions, sessions_max))
		goto fail;
	k->blob = calloc((size_t)blobs_max + 1, sizeof(*k->blob));
	k->handle = calloc((size_t)sessions_max + 1, sizeof(*k->handle));
	if (k->blob && k->handle)
		return 0;
fail:
	keys_deinit(k);
	return -ENOMEM;
}

void keys_deinit(struct keys *k)
{
	if (k->blob)
		for (uint32_t s = lru_oldest(&k->blobs); s; s = lru_newer(&k->blobs, s))
			free(k->blob[s].p);
	free(k->blob);
	free(k->handle);
	lru_deinit(&k->blobs);
	lru_deinit(&k->sessions);
	*k = (struct keys){ 0 };
}

static void drop_session(struct keys *k, struct token *t, uint32_t slot)
{
	if (t)
		token_forget(t, k->handle[slot]);
	lru_remove(&k->sessions, slot);
}

static void drop_session_of(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES])
{
	uint32_t slot = lru_find(&k->sessions, id);

	if (slot)
		drop_session(k, t, slot);
}

static void drop_blob(struct keys *k, struct token *t, uint32_t slot)
{
	drop_session_of(k, t, lru_id(&k->blobs, slot));
	free(k->blob[slot].p);
	k->blob[slot] = (struct keys_blob){ 0 };
	lru_remove(&k->blobs, slot);
}

int keys_load(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES], struct bytes blob)
{
	uint32_t slot = lru_find(&k->blobs, id);
	uint8_t *copy;

	if (slot && bytes_equal(bytes_of(k->blob[slot].p, k->blob[slot].n), blob)) {
		lru_touch(&k->blobs, slot);
		return 0;
	}
	copy = malloc(blob.n);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, blob.p, blob.n);
	if (slot)
		drop_blob(k, t, slot);
	slot = lru_insert(&k->blobs, id);
	if (!slot) {
		drop_blob(k, t, lru_oldest(&k->blobs));
		slot = lru_insert(&k->blobs, id);
	}
	BUG_ON(!slot);
	k->blob[slot] = (struct keys_blob){ .p = copy, .n = blob.n };
	return 0;
}

void keys_forget(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES])
{
	uint32_t slot = lru_find(&k->blobs, id);

	if (slot)
		drop_blob(k, t, slot);
}

static int unwrap(struct keys *k, struct token *t, uint32_t slot, unsigned long *ret_handle)
{
	struct keys_blob *b = &k->blob[slot];
	int rc;

	if (b->bad)
		return -EBADMSG;
	rc = token_unwrap(t, k->with[0], bytes_of(b->p, b->n), ret_handle);
	if ((rc == -EBADMSG || rc == -EINVAL) && k->with[1][0])
		rc = token_unwrap(t, k->with[1], bytes_of(b->p, b->n), ret_handle);
	/* A request that the token refuses for its form: our part of it is the same for every blob.
	 */
	if (rc == -EINVAL)
		rc = -EBADMSG;
	b->bad = rc == -EBADMSG;
	return rc;
}

int keys_handle(struct keys *k, struct token *t, const uint8_t id[GRANT_ID_BYTES],
		unsigned long *ret_handle)
{
	uint32_t blob = lru_find(&k->blobs, id);
	uint32_t session;
	unsigned long handle;
	int rc;

	if (!blob)
		return -ENOENT;
	lru_touch(&k->blobs, blob);
	session = lru_find(&k->sessions, id);
	if (session) {
		lru_touch(&k->sessions, session);
		*ret_handle = k->handle[session];
		return 0;
	}
	rc = unwrap(k, t, blob, &handle);
	if (rc)
		return rc;
	session = lru_insert(&k->sessions, id);
	if (!session) {
		drop_session(k, t, lru_oldest(&k->sessions));
		session = lru_insert(&k->sessions, id);
	}
	BUG_ON(!session);
	k->handle[session] = handle;
	*ret_handle = handle;
	return 0;
}

static void try_all_again(struct keys *k)
{
	for (uint32_t slot = lru_oldest(&k->blobs); slot; slot = lru_newer(&k->blobs, slot))
		k->blob[slot].bad = false;
}

void keys_unwrap_with(struct keys *k, const char *current, const char *next)
{
	snprintf(k->with[0], sizeof(k->with[0]), "%s", current);
	snprintf(k->with[1], sizeof(k->with[1]), "%s", next);
	try_all_again(k);
}

void keys_release(struct keys *k, struct token *t)
{
	uint32_t slot;

	while ((slot = lru_oldest(&k->sessions)))
		drop_session(k, t, slot);
	try_all_again(k);
}

void keys_lose(struct keys *k)
{
	keys_release(k, NULL);
}
