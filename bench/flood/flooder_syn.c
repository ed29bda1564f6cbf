// SPDX-License-Identifier: MIT
/*
 * SYNs alone, by a raw socket, from addresses of nobody: the SYN-ACK goes to the clients'
 * namespace, which neither answers nor forwards it. The packet (RFC 791, RFC 9293), to the byte:
 *
 *    0  45 00 00 2c  id(2) 40 00  ttl 06  checksum(2, the kernel fills it in)  source  target
 *   20  sport dport  seq  ack = 0  60 02 ff ff  checksum urgent = 0  02 04 05 b4 (MSS 1460)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "bench/flood/flooder.h"
#include "bench/lab/lab.h"
#include "userspace/base/log.h"

#define IP_BYTES     20
#define TCP_BYTES    24
#define PACKET_BYTES (IP_BYTES + TCP_BYTES)
#define BATCH_MAX    64
#define PAUSE_NS     500000
#define TTL	     64
#define PORT_MIN     1024

struct batch {
	uint8_t packets[BATCH_MAX][PACKET_BYTES];
	struct iovec parts[BATCH_MAX];
	struct mmsghdr messages[BATCH_MAX];
	struct sockaddr_in to;
};

/* The ones' complement sum of RFC 1071 over n bytes, n even. */
static uint32_t sum(const uint8_t *p, size_t n, uint32_t s)
{
	for (size_t i = 0; i < n; i += 2)
		s += bytes_load_u16(p + i);
	return s;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void write_syn(struct bogus *b, uint16_t port, uint8_t out[PACKET_BYTES])
{
	struct bytes_writer w = bytes_writer_of(out, PACKET_BYTES);
	uint64_t random = bogus_random(b);
	uint32_t source = LAB_SPOOFED + (uint32_t)(random % LAB_SPOOFED_N);
	uint16_t source_port = (uint16_t)(PORT_MIN + (random >> 16) % (65536 - PORT_MIN));
	uint32_t s;

	bytes_write_u32(&w, 0x45000000u | PACKET_BYTES);
	bytes_write_u32(&w, 0x4000); /* no id, do not fragment */
	bytes_write_u32(&w, (uint32_t)TTL << 24 | (uint32_t)IPPROTO_TCP << 16);
	bytes_write_u32(&w, source);
	bytes_write_u32(&w, LAB_SERVER);
	bytes_write_u16(&w, source_port);
	bytes_write_u16(&w, port);
	bytes_write_u32(&w, (uint32_t)(random >> 32));
	bytes_write_u32(&w, 0);
	bytes_write_u32(&w, 0x6002ffffu);
	bytes_write_u32(&w, 0);
	bytes_write_u32(&w, 0x020405b4u);
	BUG_ON(w.bad || w.left);
	/* Pseudo-header: both addresses, the protocol, the length. */
	s = sum(out + 12, 8, IPPROTO_TCP + TCP_BYTES);
	bytes_store_u16(out + IP_BYTES + 16, fold(sum(out + IP_BYTES, TCP_BYTES, s)));
}

static void batch_init(struct batch *b, uint16_t port)
{
	memset(b, 0, sizeof(*b));
	b->to.sin_family = AF_INET;
	b->to.sin_addr.s_addr = htonl(LAB_SERVER);
	for (unsigned i = 0; i < BATCH_MAX; i++) {
		b->parts[i] = (struct iovec){ b->packets[i], PACKET_BYTES };
		b->messages[i].msg_hdr = (struct msghdr){ .msg_name = &b->to,
							  .msg_namelen = sizeof(b->to),
							  .msg_iov = &b->parts[i],
							  .msg_iovlen = 1 };
	}
}

/* How many went out, or -errno. */
static int send_batch(struct batch *b, int fd, const struct flooder_options *o, unsigned n)
{
	int sent;

	for (unsigned i = 0; i < n; i++)
		write_syn(o->bogus, o->port, b->packets[i]);
	sent = sendmmsg(fd, b->messages, n, 0);
	if (sent >= 0)
		return sent;
	/* A full queue or a neighbour not known yet: the rate that was reached says it. */
	return errno == ENOBUFS || errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

int flooder_run_syn(const struct flooder_options *o, struct flooder_state *s)
{
	const struct timespec pause = { 0, PAUSE_NS };
	static struct batch batch;
	struct flooder_pace pace;
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	int ret = fd < 0 ? -errno : 0;

	batch_init(&batch, o->port);
	flooder_pace_init(&pace, o->rate);
	while (ret >= 0 && !atomic_load(&s->stop)) {
		uint64_t due = flooder_pace_due(&pace, flooder_now_ns());

		if (!due) {
			(void)nanosleep(&pause, NULL); /* cut short, it looks sooner */
			continue;
		}
		ret = send_batch(&batch, fd, o, due < BATCH_MAX ? (unsigned)due : BATCH_MAX);
		if (ret > 0)
			pace.begun += (unsigned)ret;
	}
	flooder_pace_report(&pace, s);
	if (fd >= 0)
		(void)close(fd);
	if (ret < 0)
		log_error("flood: %s", strerror(-ret));
	return ret < 0 ? EX_OSERR : 0;
}
