// SPDX-License-Identifier: MIT
#include "bench/lab/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "bench/lab/exchange.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"

#define PEM_BYTES_MAX	 4096
#define BUNDLE_BYTES_MAX (1u << 20)

struct ssdtf_time device_time(void)
{
	struct timespec wall, mono;

	(void)clock_gettime(CLOCK_REALTIME, &wall); /* these clocks always are */
	(void)clock_gettime(CLOCK_MONOTONIC, &mono);
	return (struct ssdtf_time){
		.unix_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000,
		.mono_ms = (uint64_t)mono.tv_sec * 1000 + (uint64_t)mono.tv_nsec / 1000000,
	};
}

/* --- what libssdtf asks ----------------------------------------------------------------------- */

static int publish(void *ctx, const char *topic, const uint8_t *payload, size_t n, uint8_t qos,
		   bool retain)
{
	struct device *d = ctx;

	BUG_ON(!d->exchange);
	return exchange_publish(d->exchange, bytes_str(topic), bytes_of(payload, n), qos, retain);
}

static void disconnect(void *ctx)
{
	/* The event that follows says AUTH_FAILED. */
}

/* The broker's state is new each time, and so are the counters. */
static int counter_load(void *ctx, uint64_t *ret_mark)
{
	const struct device *d = ctx;

	*ret_mark = d->counter_mark;
	return 0;
}

static int counter_reserve(void *ctx, uint64_t mark)
{
	return 0;
}

static const struct ssdtf_ops ops = {
	.publish = publish,
	.disconnect = disconnect,
	.counter_load = counter_load,
	.counter_reserve = counter_reserve,
};

/* --- loading ---------------------------------------------------------------------------------- */

static void manager_load(const struct site *s, struct p256_point *ret_point)
{
	char path[SITE_PATH_BYTES];
	uint8_t pem[PEM_BYTES_MAX];
	size_t n;
	int ret;

	site_path(s, "manager.pub", path);
	ret = file_read_into(AT_FDCWD, path, pem, sizeof(pem), &n);
	if (!ret)
		ret = p256_public_from_pem(bytes_of(pem, n), ret_point);
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
}

/* NAME in the party's folder; wiped by the caller. */
static void key_load(const struct site *s, const char *id, const char *file,
		     struct secret32 *ret_key)
{
	char name[64], path[SITE_PATH_BYTES];
	uint8_t pem[PEM_BYTES_MAX];
	size_t n;
	int ret;

	snprintf(name, sizeof(name), "parties/%s/%s", id, file);
	site_path(s, name, path);
	ret = file_read_into(AT_FDCWD, path, pem, sizeof(pem), &n);
	if (!ret)
		ret = p256_private_from_pem(bytes_of(pem, n), ret_key);
	secret_wipe(pem, sizeof(pem));
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
}

/* origins: 0 for a device, which reads nothing. rekey_messages: 0 for what the bundle says. */
static void party_load(const struct site *s, const char *id, const struct p256_point *manager,
		       unsigned origins, uint32_t rekey_messages, struct device *d)
{
	struct secret32 signing SECRET = { { 0 } }, encryption SECRET = { { 0 } };
	struct ssdtf_config config = { .id = bytes_str(id),
				       .signing = &signing,
				       .manager = manager,
				       .rekey_messages = rekey_messages,
				       .ops = &ops,
				       .ctx = d };
	char name[64], path[SITE_PATH_BYTES];
	size_t n;
	int ret;

	key_load(s, id, "signing.pem", &signing);
	if (origins) {
		key_load(s, id, "encryption.pem", &encryption);
		d->origins = calloc(origins, sizeof(*d->origins));
		if (!d->origins)
			exit_with(EX_OSERR, "no memory for %u senders", origins);
		config.encryption = &encryption;
		config.origins = d->origins;
		config.n_origins = origins;
	}
	snprintf(name, sizeof(name), "parties/%s/bundle", id);
	site_path(s, name, path);
	ret = file_read(AT_FDCWD, path, BUNDLE_BYTES_MAX, &d->bundle, &n, NULL);
	config.bundle = bytes_of(d->bundle, n);
	if (!ret)
		ret = ssdtf_init(&d->client, &config, device_time());
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
}

static struct device *parties_load(const struct site *s, void (*name)(unsigned i, char *id),
				   unsigned first, unsigned n, unsigned origins)
{
	struct device *d = calloc(n ? n : 1, sizeof(*d));
	char id[SITE_ID_BYTES];
	struct p256_point manager;

	if (!d)
		exit_with(EX_OSERR, "no memory for %u devices", n);
	manager_load(s, &manager);
	for (unsigned i = 0; i < n; i++) {
		name(first + i, id);
		party_load(s, id, &manager, origins, 0, &d[i]);
	}
	return d;
}

struct device *devices_load(const struct site *s, unsigned first, unsigned n)
{
	return parties_load(s, site_device_id, first, n, 0);
}

struct device *receivers_load(const struct site *s, unsigned first, unsigned n, unsigned origins)
{
	return parties_load(s, site_receiver_id, first, n, origins);
}

struct device *sealer_load(const struct site *s, unsigned number, uint32_t rekey_messages,
			   uint64_t mark)
{
	struct device *d = calloc(1, sizeof(*d));
	char id[SITE_ID_BYTES];
	struct p256_point manager;

	if (!d)
		exit_with(EX_OSERR, "no memory for a device");
	manager_load(s, &manager);
	site_device_id(number, id);
	d->counter_mark = mark;
	party_load(s, id, &manager, 0, rekey_messages, d);
	return d;
}

void devices_free(struct device *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ssdtf_deinit(&d[i].client);
		free(d[i].origins);
		free(d[i].bundle);
	}
	free(d);
}
