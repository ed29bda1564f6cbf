// SPDX-License-Identifier: MIT
#include "userspace/core/pieces.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/base/file.h"
#include "userspace/base/secret.h"
#include "userspace/bundle/cut.h"

#define PART	     "part"
#define MANIFEST     "manifest"
#define OLD_PART     "old.part"
#define OLD_MANIFEST "old.manifest"
#define NONE	     UINT32_MAX

_Static_assert(MANIFEST_PIECE_BYTES_MAX == CUT_BYTES_MAX, "a piece that was cut can travel");

enum { SOURCE_PART, SOURCE_OLD, SOURCE_IN_FORCE, SOURCES };

/* A file that may have pieces in it, cut as its manifest says; by content where it has none. */
struct source {
	int fd;
	uint64_t at, bytes;
	uint8_t *manifest;
	struct manifest cuts;
	uint32_t n_left; /* of cuts */
};

struct pieces {
	int state, incoming; /* folders */
	int part;
	char path[FILE_PATH_BYTES_MAX];
	uint8_t *statement;
	size_t statement_n;
	struct manifest manifest;
	struct piece {
		uint64_t at;
		uint32_t bytes;
		uint32_t next; /* of the same place in the table */
		const uint8_t *hash;
		bool here;
	} * list;
	uint32_t *table; /* heads, by the hash's first bytes */
	uint32_t table_mask;
	struct source sources[SOURCES];
	unsigned source; /* the one that is looked through */
	uint8_t buffer[MANIFEST_PIECE_BYTES_MAX];
};

/* --- what it is to become --------------------------------------------------------------------- */

static uint32_t place_of(const struct pieces *p, const uint8_t *hash)
{
	return bytes_load_u32(hash) & p->table_mask;
}

/* The statement was opened by the caller: it reads, and it decodes. */
static int take_manifest(struct pieces *p, struct bytes whole)
{
	struct bytes_reader r;
	struct statement s;
	uint64_t at = 0;
	uint32_t size = 1;

	p->statement = malloc(whole.n);
	if (!p->statement)
		return -ENOMEM;
	memcpy(p->statement, whole.p, whole.n);
	p->statement_n = whole.n;
	if (statement_read(bytes_of(p->statement, whole.n), &s) ||
	    manifest_decode(s.body, &p->manifest))
		return -EBADMSG;
	while (size < p->manifest.n_pieces)
		size *= 2;
	p->table_mask = size - 1;
	p->table = malloc(size * sizeof(p->table[0]));
	p->list = calloc(p->manifest.n_pieces, sizeof(p->list[0]));
	if (!p->table || !p->list)
		return -ENOMEM;
	memset(p->table, 0xff, size * sizeof(p->table[0]));
	r = p->manifest.pieces;
	for (uint32_t i = 0; i < p->manifest.n_pieces; i++) {
		struct manifest_piece piece = manifest_next(&r);
		uint32_t *head = &p->table[place_of(p, piece.hash.p)];

		p->list[i] = (struct piece){
			.at = at, .bytes = piece.bytes, .hash = piece.hash.p, .next = *head
		};
		*head = i;
		at += piece.bytes;
	}
	return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

static int open_folders(struct pieces *p, const char *state_dir)
{
	p->state = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->state < 0)
		return -errno;
	if (mkdirat(p->state, "incoming", 0700) && errno != EEXIST)
		return -errno;
	p->incoming = openat(p->state, "incoming", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (p->incoming < 0)
		return -errno;
	return file_join(state_dir, "incoming/" PART, p->path);
}

/* Renaming what is not there is no failure. */
static int rename_if_there(struct pieces *p, const char *from, int dir, const char *to)
{
	return renameat(p->incoming, from, dir, to) && errno != ENOENT ? -errno : 0;
}

/* Does incoming/manifest say the same? Then the part is of this offer. */
static bool same_manifest(const struct pieces *p)
{
	uint8_t *have;
	bool same;
	size_t n;

	if (file_read(p->incoming, MANIFEST, p->statement_n, &have, &n, NULL))
		return false;
	same = bytes_equal(bytes_of(have, n), pieces_statement(p));
	free(have);
	return same;
}

/* Cut short anywhere, it leaves at worst a part without its manifest, in which less is found. */
static int open_part(struct pieces *p, bool *ret_same)
{
	bool same = same_manifest(p);
	int err = 0;

	if (!same) {
		err = rename_if_there(p, PART, p->incoming, OLD_PART);
		if (!err)
			err = rename_if_there(p, MANIFEST, p->incoming, OLD_MANIFEST);
		if (!err)
			err = file_write(p->incoming, MANIFEST, pieces_statement(p), 0600);
	}
	if (err)
		return err;
	p->part = openat(p->incoming, PART, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->part < 0 || ftruncate(p->part, (off_t)p->manifest.bytes))
		return -errno;
	*ret_same = same;
	return 0;
}

/* What cannot be opened or read is no source. */
static void open_source(struct source *s, int dir, const char *path, int manifest_dir,
			const char *manifest)
{
	struct statement statement;
	struct stat st;
	size_t n;

	s->fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (s->fd < 0)
		return;
	if (fstat(s->fd, &st) || !S_ISREG(st.st_mode) || st.st_size < 0 ||
	    (uint64_t)st.st_size > MANIFEST_BYTES_MAX)
		return;
	s->bytes = (uint64_t)st.st_size;
	if (file_read(manifest_dir, manifest, MANIFEST_BYTES_MAX, &s->manifest, &n, NULL))
		return;
	if (!statement_read(bytes_of(s->manifest, n), &statement) &&
	    !manifest_decode(statement.body, &s->cuts) && s->cuts.bytes == s->bytes)
		s->n_left = s->cuts.n_pieces;
}

static void close_source(struct source *s)
{
	if (s->fd >= 0)
		(void)close(s->fd); /* only read from */
	free(s->manifest);
	*s = (struct source){ .fd = -1 };
}

int pieces_open(const char *state_dir, const char *in_force, struct bytes manifest,
		struct pieces **ret_p)
{
	struct pieces *p = calloc(1, sizeof(*p));
	bool same = false;
	int err;

	if (!p)
		return -ENOMEM;
	p->state = p->incoming = p->part = -1;
	for (unsigned i = 0; i < SOURCES; i++)
		p->sources[i].fd = -1;
	err = take_manifest(p, manifest);
	if (!err)
		err = open_folders(p, state_dir);
	if (!err)
		err = open_part(p, &same);
	if (err) {
		pieces_free(p);
		return err;
	}
	if (same)
		open_source(&p->sources[SOURCE_PART], p->incoming, PART, p->incoming, MANIFEST);
	open_source(&p->sources[SOURCE_OLD], p->incoming, OLD_PART, p->incoming, OLD_MANIFEST);
	/* Of another file than the one that came in pieces it may say nothing: then its sizes do
	 * not add up, or its hashes are found nowhere. */
	open_source(&p->sources[SOURCE_IN_FORCE], AT_FDCWD, in_force, p->state, PIECES_MANIFEST);
	*ret_p = p;
	return 0;
}

void pieces_free(struct pieces *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < SOURCES; i++)
		close_source(&p->sources[i]);
	if (p->part >= 0)
		(void)close(p->part); /* what was not written is found out by its hash */
	if (p->incoming >= 0)
		(void)close(p->incoming);
	if (p->state >= 0)
		(void)close(p->state);
	free(p->statement);
	free(p->table);
	free(p->list);
	secret_wipe(p, sizeof(*p));
	free(p);
}

const struct manifest *pieces_manifest(const struct pieces *p)
{
	return &p->manifest;
}

struct bytes pieces_statement(const struct pieces *p)
{
	return bytes_of(p->statement, p->statement_n);
}

int pieces_fd(const struct pieces *p)
{
	return p->part;
}

const char *pieces_path(const struct pieces *p)
{
	return p->path;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static int write_at(int fd, struct bytes v, uint64_t at)
{
	while (v.n) {
		ssize_t n = pwrite(fd, v.p, v.n, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		v = bytes_of(v.p + n, v.n - (size_t)n);
		at += (uint64_t)n;
	}
	return 0;
}

/* As much of n bytes as there is. */
static size_t read_at(int fd, uint8_t *out, size_t n, uint64_t at)
{
	size_t used = 0;

	while (used < n) {
		ssize_t got = pread(fd, out + used, n - used, (off_t)(at + used));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		used += (size_t)got;
	}
	return used;
}

/* Wherever the manifest has this piece. `stands_at` is where the part has it already. */
static int found(struct pieces *p, struct bytes piece, const uint64_t *stands_at)
{
	uint8_t hash[HASH_BYTES];

	hash_one(piece, hash);
	for (uint32_t i = p->table[place_of(p, hash)]; i != NONE; i = p->list[i].next) {
		struct piece *e = &p->list[i];
		int err = 0;

		if (e->here || e->bytes != piece.n || memcmp(e->hash, hash, HASH_BYTES) != 0)
			continue;
		if (!stands_at || *stands_at != e->at)
			err = write_at(p->part, piece, e->at);
		if (err)
			return err;
		e->here = true;
	}
	return 0;
}

/* One piece of the source further. 0: it has no more. */
static size_t cut_source(struct pieces *p, struct source *s)
{
	size_t n = s->n_left ? manifest_next(&s->cuts.pieces).bytes : sizeof(p->buffer);
	size_t got;

	if (s->at >= s->bytes)
		return 0;
	got = read_at(s->fd, p->buffer, n, s->at);
	if (s->n_left) {
		s->n_left--;
		return got == n ? n : 0;
	}
	return got ? cut_next(bytes_of(p->buffer, got)) : 0;
}

int pieces_search(struct pieces *p, size_t budget, bool *ret_done)
{
	while (p->source < SOURCES && budget) {
		struct source *s = &p->sources[p->source];
		size_t n = s->fd >= 0 ? cut_source(p, s) : 0;
		int err;

		if (!n) {
			close_source(s);
			p->source++;
			continue;
		}
		err = found(p, bytes_of(p->buffer, n), p->source == SOURCE_PART ? &s->at : NULL);
		if (err)
			return err;
		s->at += n;
		budget -= n < budget ? n : budget;
	}
	*ret_done = p->source == SOURCES;
	return 0;
}

uint32_t pieces_missing(const struct pieces *p, uint32_t from)
{
	while (from < p->manifest.n_pieces && p->list[from].here)
		from++;
	return from;
}

int pieces_put(struct pieces *p, uint32_t index, struct bytes piece)
{
	uint8_t hash[HASH_BYTES];

	if (index >= p->manifest.n_pieces || p->list[index].bytes != piece.n)
		return -EBADMSG;
	hash_one(piece, hash);
	if (memcmp(p->list[index].hash, hash, HASH_BYTES) != 0)
		return -EBADMSG;
	return found(p, piece, NULL);
}

/* --- whole ------------------------------------------------------------------------------------ */

int pieces_keep(struct pieces *p)
{
	int err;

	if (renameat(p->incoming, PART, p->state, PIECES_BUNDLE) || fsync(p->state))
		return -errno;
	/* From here on it is the gateway's bundle. The rest is for the next offer's sake. */
	err = rename_if_there(p, MANIFEST, p->state, PIECES_MANIFEST);
	if (!err && unlinkat(p->incoming, OLD_PART, 0) && errno != ENOENT)
		err = -errno;
	if (!err && unlinkat(p->incoming, OLD_MANIFEST, 0) && errno != ENOENT)
		err = -errno;
	(void)err; /* less is found, and more travels */
	return 0;
}
