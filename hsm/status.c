// SPDX-License-Identifier: MIT
#include "hsm/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "hsm/client.h"
#include "hsm/supervisor.h"
#include "hsm/wire.h"
#include "userspace/base/log.h"
#include "userspace/base/text.h"

#define WAIT_S	    5
#define SHOWN_BYTES 8
#define SHOWN_SIZE  (TEXT_HEX_SIZE(SHOWN_BYTES) + 2)

/* The descriptor, or an error. */
static int connect_to(const struct sockaddr_un *address)
{
	const struct timeval wait = { .tv_sec = WAIT_S };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) ||
	    connect(fd, (const struct sockaddr *)address, sizeof(*address))) {
		rc = -errno;
		(void)close(fd); /* never used */
		return rc;
	}
	return fd;
}

/* 0, -EAGAIN where the token is away, or the link's error. */
static int ask(int fd, struct hsm_status_wire *ret_s)
{
	static uint8_t packet[HSM_PACKET_BYTES_MAX];
	const struct hsm_job_wire job = { .op = HSM_STATUS };
	struct hsm_reply_wire reply;
	struct hsm_batch b;
	struct bytes_reader r;
	unsigned n;
	ssize_t got;

	hsm_batch_begin(&b, 'H', packet, sizeof(packet));
	BUG_ON(!hsm_batch_add_job(&b, &job));
	if (send(fd, packet, hsm_batch_finish(&b), MSG_NOSIGNAL) < 0)
		return -errno;
	got = recv(fd, packet, sizeof(packet), 0);
	if (got < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (hsm_batch_open(bytes_of(packet, (size_t)got), 'R', &r, &n) || n != 1 ||
	    hsm_batch_next_reply(&r, &reply) || !bytes_read_done(&r) || reply.op != HSM_STATUS)
		return -EBADMSG;
	return reply.status == HSM_OK ? hsm_status_decode(reply.result, ret_s) : -EAGAIN;
}

/* The first bytes of a key or its hash; "none" where it is zeros. */
static void show(const uint8_t *key, size_t n, char out[SHOWN_SIZE])
{
	static const uint8_t none[P256_POINT_BYTES];

	if (memcmp(key, none, n) != 0)
		text_short(bytes_of(key, n), SHOWN_BYTES, out);
	else
		snprintf(out, SHOWN_SIZE, "none");
}

static int report(unsigned i, const struct sockaddr_un *address)
{
	char key[SHOWN_SIZE], unwrap[SHOWN_SIZE], next_key[SHOWN_SIZE], next_unwrap[SHOWN_SIZE];
	char bundle[SHOWN_SIZE];
	struct hsm_status_wire s;
	int fd = connect_to(address);
	int rc = fd;

	if (fd >= 0) {
		rc = ask(fd, &s);
		(void)close(fd); /* all was read */
	}
	if (rc) {
		printf("worker=%u state=%s\n", i,
		       rc == -EAGAIN ? "token-unavailable" : strerror(-rc));
		return rc;
	}
	show(s.broker_key, sizeof(s.broker_key), key);
	show(s.unwrap_key_hash, sizeof(s.unwrap_key_hash), unwrap);
	show(s.next_broker_key, sizeof(s.next_broker_key), next_key);
	show(s.next_unwrap_key_hash, sizeof(s.next_unwrap_key_hash), next_unwrap);
	show(s.bundle_key, sizeof(s.bundle_key), bundle);
	printf("worker=%u state=ok converts=%" PRIu64 " signs=%" PRIu64 " recoveries=%" PRIu64
	       " blobs=%u session-keys=%u rss-kib=%u broker-key=%s unwrap-key=%s"
	       " next-broker-key=%s next-unwrap-key=%s bundle-key=%s\n",
	       i, s.converts, s.signs, s.recoveries, s.blobs, s.session_keys, s.rss_kib, key,
	       unwrap, next_key, next_unwrap, bundle);
	return 0;
}

int status_run(const char *socket_dir)
{
	bool all_well = true;
	unsigned i;

	for (i = 0; i < HSM_WORKERS_MAX; i++) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };

		if (supervisor_path(socket_dir, i, "sock", address.sun_path,
				    sizeof(address.sun_path))) {
			log_error("--socket-dir is too long for a socket's name");
			return EX_USAGE;
		}
		if (access(address.sun_path, F_OK))
			break;
		all_well &= !report(i, &address);
	}
	if (!i)
		log_error("%s: no ssdtf-hsmd there", socket_dir);
	return i && all_well ? 0 : EX_UNAVAILABLE;
}
