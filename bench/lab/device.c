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

/* Nothing is sealed, so no counter is used. */
static int counter_load(void *ctx, uint64_t *ret_mark)
{
	*ret_mark = 0;
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

static void device_load(const struct site *s, unsigned number, const struct p256_point *manager,
			struct device *d)
{
	char id[SITE_ID_BYTES], name[64], path[SITE_PATH_BYTES];
	struct secret32 signing SECRET = { { 0 } };
	struct ssdtf_config config = {
		.signing = &signing, .manager = manager, .ops = &ops, .ctx = d
	};
	uint8_t pem[PEM_BYTES_MAX];
	size_t n;
	int ret;

	site_device_id(number, id);
	snprintf(name, sizeof(name), "parties/%s/signing.pem", id);
	site_path(s, name, path);
	ret = file_read_into(AT_FDCWD, path, pem, sizeof(pem), &n);
	if (!ret)
		ret = p256_private_from_pem(bytes_of(pem, n), &signing);
	secret_wipe(pem, sizeof(pem));
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
	snprintf(name, sizeof(name), "parties/%s/bundle", id);
	site_path(s, name, path);
	ret = file_read(AT_FDCWD, path, BUNDLE_BYTES_MAX, &d->bundle, &n, NULL);
	config.id = bytes_str(id);
	config.bundle = bytes_of(d->bundle, n);
	if (!ret)
		ret = ssdtf_init(&d->client, &config, device_time());
	if (ret)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-ret));
}

struct device *devices_load(const struct site *s, unsigned first, unsigned n)
{
	struct device *d = calloc(n, sizeof(*d));
	struct p256_point manager;

	if (!d)
		exit_with(EX_OSERR, "no memory for %u devices", n);
	manager_load(s, &manager);
	for (unsigned i = 0; i < n; i++)
		device_load(s, first + i, &manager, &d[i]);
	return d;
}

void devices_free(struct device *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ssdtf_deinit(&d[i].client);
		free(d[i].bundle);
	}
	free(d);
}
