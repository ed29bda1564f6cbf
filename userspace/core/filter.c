// SPDX-License-Identifier: MIT
#include "userspace/core/filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/secret.h"
#include "userspace/broker/gate.h"
#include "userspace/crypto/hash.h"

#define BATCH	      1024
#define NS_PER_MS     1000000ull
#define NS_PER_SECOND 1000000000ull
#define LOCK_WAIT_MS  1000
#define LOCK_STEP_MS  10
#define SYNACKS	      2 /* a half-open connection lives for 1 + 2 + 4 s: gate.c's PEND_NS */

static const struct {
	const char *name;
	uint32_t flags; /* of BPF_OBJ_GET */
	uint32_t key, value;
} parts[FILTER_PARTS] = {
	[FILTER_PROGRAM] = { "filter", BPF_F_RDONLY, 0, 0 },
	[FILTER_DEVICES] = { "devices", 0, sizeof(struct admission_id),
			     sizeof(struct admission_device) },
	[FILTER_BANS] = { "bans", 0, sizeof(struct admission_source), sizeof(__u64) },
	[FILTER_CONFIG] = { "config", 0, sizeof(__u32), sizeof(struct admission_config) },
	[FILTER_SOURCES] = { "sources", BPF_F_RDONLY, sizeof(struct admission_source),
			     sizeof(struct admission_source_state) },
	[FILTER_COUNTERS] = { "counters", BPF_F_RDONLY, sizeof(__u32), sizeof(__u64) },
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	BUG_ON(clock_gettime(id, &ts));
	return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

/* --- pins ------------------------------------------------------------------------------------- */

void filter_close(struct filter *f)
{
	for (unsigned i = 0; i < FILTER_PARTS; i++) {
		if (f->fds[i] >= 0)
			close(f->fds[i]);
		f->fds[i] = -1;
	}
	if (f->lock >= 0)
		close(f->lock);
	f->lock = -1;
}

/* Two brokers would take each other's devices out of the map. One that was killed lets go of its
 * descriptors some milliseconds later, as with addresses. */
static int lock_folder(struct filter *f, const char *dir, char why[FILTER_WHY_BYTES])
{
	const struct timespec step = { .tv_nsec = LOCK_STEP_MS * NS_PER_MS };
	int err;

	f->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->lock < 0) {
		err = -errno;
		snprintf(why, FILTER_WHY_BYTES, "%s: %s", dir,
			 err == -ENOENT ? "nothing is pinned there (ssdtf-admit pin)"
					: strerror(-err));
		return err;
	}
	for (unsigned ms = 0; ms < LOCK_WAIT_MS; ms += LOCK_STEP_MS) {
		if (!flock(f->lock, LOCK_EX | LOCK_NB))
			return 0;
		nanosleep(&step, NULL);
	}
	snprintf(why, FILTER_WHY_BYTES, "%s: another broker uses it", dir);
	return -EBUSY;
}

/* Maps of another version would be read wrongly. */
static bool fits(int fd, unsigned part)
{
	struct bpf_map_info info = { 0 };
	uint32_t n = sizeof(info);

	if (part == FILTER_PROGRAM)
		return true;
	return !bpf_obj_get_info_by_fd(fd, &info, &n) && info.key_size == parts[part].key &&
	       info.value_size == parts[part].value;
}

static int open_part(const char *dir, unsigned i, int *ret_fd, char why[FILTER_WHY_BYTES])
{
	LIBBPF_OPTS(bpf_obj_get_opts, how, .file_flags = parts[i].flags);
	char path[1024 + 32];
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", dir, parts[i].name);
	fd = bpf_obj_get_opts(path, &how);
	if (fd < 0) {
		err = -errno;
		snprintf(why, FILTER_WHY_BYTES, "%s: %s", path, strerror(-err));
		return err;
	}
	if (!fits(fd, i)) {
		close(fd);
		snprintf(why, FILTER_WHY_BYTES,
			 "%s: is of another version; ssdtf-admit unpin, then pin", path);
		return -EPROTO;
	}
	*ret_fd = fd;
	return 0;
}

/* The loader has put its own there, and brokers theirs since. */
static bool same_version(const struct filter *f)
{
	struct admission_config config;
	const __u32 zero = 0;

	return !bpf_map_lookup_elem(f->fds[FILTER_CONFIG], &zero, &config) &&
	       config.version == ADMISSION_VERSION;
}

int filter_open(const char *dir, struct filter *ret_f, char why[FILTER_WHY_BYTES])
{
	struct filter f = { .cpus = libbpf_num_possible_cpus() };
	int err;

	/* Not what an earlier run counted from: whom that one put there may be enrolled no more. */
	hash_random(&f.bundle, sizeof(f.bundle));

	memset(f.fds, -1, sizeof(f.fds));
	err = lock_folder(&f, dir, why);
	for (unsigned i = 0; i < FILTER_PARTS && !err; i++)
		err = open_part(dir, i, &f.fds[i], why);
	if (!err && !same_version(&f)) {
		snprintf(why, FILTER_WHY_BYTES,
			 "%s: is of another version; ssdtf-admit unpin, then pin", dir);
		err = -EPROTO;
	}
	if (!err && f.cpus < 1) {
		snprintf(why, FILTER_WHY_BYTES, "the number of processors is unknown");
		err = -EINVAL;
	}
	if (err)
		filter_close(&f);
	else
		*ret_f = f;
	return err;
}

int filter_attach(const struct filter *f, int listener)
{
	const int synacks = SYNACKS;

	if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_BPF, &f->fds[FILTER_PROGRAM],
		       sizeof(f->fds[FILTER_PROGRAM])) ||
	    setsockopt(listener, IPPROTO_TCP, TCP_SYNCNT, &synacks, sizeof(synacks)))
		return -errno;
	return 0;
}

void filter_detach(int listener)
{
	const int unused = 0;

	/* ENOENT where there is none */
	(void)setsockopt(listener, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}

/* The filter's clock goes on from boot; the wall's may be set. */
int filter_configure(const struct filter *f, struct admission_config *config)
{
	const __u32 zero = 0;

	config->wall_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_BOOTTIME);
	return bpf_map_update_elem(f->fds[FILTER_CONFIG], &zero, config, BPF_ANY) ? -errno : 0;
}

/* --- devices ---------------------------------------------------------------------------------- */

/* A batch on its way to the map. The keys are secrets. */
struct batch {
	struct filter *filter;
	struct admission_id ids[BATCH];
	struct admission_device devices[BATCH];
	unsigned n, total;
	int err;
};

static void put_batch(struct batch *b)
{
	LIBBPF_OPTS(bpf_map_batch_opts, how, .elem_flags = BPF_ANY);
	uint32_t n = b->n;

	if (n && !b->err &&
	    bpf_map_update_batch(b->filter->fds[FILTER_DEVICES], b->ids, b->devices, &n, &how))
		b->err = -errno;
	b->total += b->n;
	b->n = 0;
}

static void add_device(void *ctx, const struct admission_id *id,
		       const struct admission_device *device)
{
	struct batch *b = ctx;

	b->ids[b->n] = *id;
	b->devices[b->n] = *device;
	b->devices[b->n].tat_ns = b->devices[b->n].no_clock_tat_ns = 0;
	b->devices[b->n].bundle = b->filter->bundle;
	if (++b->n == BATCH)
		put_batch(b);
}

/* Who is in the map by an older bundle is enrolled no more. */
static int remove_older(struct filter *f, struct batch *b)
{
	LIBBPF_OPTS(bpf_map_batch_opts, how);
	uint32_t cursor = 0, n;
	bool first = true, last = false;

	while (!last) {
		n = BATCH;
		if (bpf_map_lookup_batch(f->fds[FILTER_DEVICES], first ? NULL : &cursor, &cursor,
					 b->ids, b->devices, &n, &how)) {
			if (errno != ENOENT)
				return -errno;
			last = true;
		}
		first = false;
		for (uint32_t i = 0; i < n; i++)
			if (b->devices[i].bundle != f->bundle &&
			    bpf_map_delete_elem(f->fds[FILTER_DEVICES], &b->ids[i]) &&
			    errno != ENOENT)
				return -errno;
	}
	return 0;
}

static int put_all(struct filter *f, const struct broker *broker, struct batch *b)
{
	*b = (struct batch){ .filter = f };
	broker_each_device(broker, add_device, b);
	put_batch(b);
	return b->err;
}

int filter_sync(struct filter *f, const struct broker *broker, unsigned *ret_devices)
{
	static struct batch b; /* some hundred KiB; the loop is one thread */
	int err;

	f->bundle++;
	err = put_all(f, broker, &b);
	if (err == -E2BIG) { /* who left may have the room; who is let go here comes right back */
		err = remove_older(f, &b);
		if (!err)
			err = put_all(f, broker, &b);
	}
	*ret_devices = b.total;
	if (!err)
		err = remove_older(f, &b);
	secret_wipe(&b, sizeof(b));
	return err;
}

/* --- bans ------------------------------------------------------------------------------------- */

void filter_each_ban(const struct filter *f,
		     void (*each)(void *ctx, const struct admission_source *source,
				  uint64_t left_ms),
		     void *ctx)
{
	__u64 now_ns = clock_ns(CLOCK_BOOTTIME), until_ns;
	struct admission_source source, next;
	int more = !bpf_map_get_next_key(f->fds[FILTER_BANS], NULL, &source);

	for (unsigned i = 0; more && i < GATE_BANS_MAX; i++) {
		more = !bpf_map_get_next_key(f->fds[FILTER_BANS], &source, &next);
		if (!bpf_map_lookup_elem(f->fds[FILTER_BANS], &source, &until_ns)) {
			if (until_ns <= now_ns)
				(void)bpf_map_delete_elem(f->fds[FILTER_BANS], &source);
			else if (each)
				each(ctx, &source, (until_ns - now_ns) / NS_PER_MS + 1);
		}
		source = next;
	}
}

static int put_ban(const struct filter *f, const struct admission_source *source, __u64 until_ns)
{
	return bpf_map_update_elem(f->fds[FILTER_BANS], source, &until_ns, BPF_ANY) ? -errno : 0;
}

int filter_ban(const struct filter *f, const struct admission_source *source, uint64_t left_ms)
{
	__u64 until_ns = clock_ns(CLOCK_BOOTTIME) + left_ms * NS_PER_MS;
	int err;

	if (!left_ms)
		return bpf_map_delete_elem(f->fds[FILTER_BANS], source) && errno != ENOENT ? -errno
											   : 0;
	err = put_ban(f, source, until_ns);
	if (err != -E2BIG)
		return err;
	filter_each_ban(f, NULL, NULL); /* those that are over make room */
	return put_ban(f, source, until_ns);
}

/* --- what it counted -------------------------------------------------------------------------- */

int filter_counters(const struct filter *f, uint64_t ret_counters[ADMISSION_COUNTERS])
{
	__u64 *cpus = calloc((size_t)f->cpus, sizeof(*cpus));
	uint64_t sums[ADMISSION_COUNTERS] = { 0 };
	int err = cpus ? 0 : -ENOMEM;

	for (__u32 i = 0; !err && i < ADMISSION_COUNTERS; i++) {
		if (bpf_map_lookup_elem(f->fds[FILTER_COUNTERS], &i, cpus))
			err = -errno;
		for (int cpu = 0; !err && cpu < f->cpus; cpu++)
			sums[i] += cpus[cpu];
	}
	free(cpus);
	if (!err)
		memcpy(ret_counters, sums, sizeof(sums));
	return err;
}

void filter_each_rejected(const struct filter *f,
			  void (*each)(void *ctx, const struct admission_source *source,
				       uint64_t rejected, enum admission_verdict last),
			  void *ctx)
{
	static struct admission_source_state states[BATCH]; /* the loop is one thread */
	static struct admission_source sources[BATCH];
	LIBBPF_OPTS(bpf_map_batch_opts, how);
	uint32_t cursor = 0, n;
	bool first = true, last = false;

	while (!last) {
		n = BATCH;
		/* ENOENT is the end; whatever else ends it, too. */
		last = bpf_map_lookup_batch(f->fds[FILTER_SOURCES], first ? NULL : &cursor, &cursor,
					    sources, states, &n, &how);
		if (last && errno != ENOENT)
			return;
		first = false;
		for (uint32_t i = 0; i < n; i++)
			if (states[i].rejected)
				each(ctx, &sources[i], states[i].rejected,
				     (enum admission_verdict)states[i].last);
	}
}
