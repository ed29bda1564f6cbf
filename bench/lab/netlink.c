// SPDX-License-Identifier: MIT
#include "bench/lab/netlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX 512
#define REPLY_BYTES_MAX	  4096

/* A message under construction. The union aligns it as the kernel's structures want. */
struct request {
	union {
		struct nlmsghdr h;
		uint8_t b[REQUEST_BYTES_MAX];
	} u;
};

static void *put(struct request *r, size_t n)
{
	size_t at = NLMSG_ALIGN(r->u.h.nlmsg_len);

	BUG_ON(at + NLMSG_ALIGN(n) > sizeof(r->u.b));
	r->u.h.nlmsg_len = (uint32_t)(at + n);
	return r->u.b + at;
}

/* body_n bytes of the request's own header, zeroed. */
static void *begin(struct request *r, uint16_t type, uint16_t flags, size_t body_n)
{
	memset(r, 0, sizeof(*r));
	r->u.h.nlmsg_len = NLMSG_HDRLEN;
	r->u.h.nlmsg_type = type;
	r->u.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return put(r, body_n);
}

static void attribute(struct request *r, uint16_t type, const void *value, size_t n)
{
	struct rtattr *a = put(r, RTA_LENGTH(n));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(n);
	if (n)
		memcpy(RTA_DATA(a), value, n);
}

static struct rtattr *nest(struct request *r, uint16_t type)
{
	struct rtattr *a = put(r, RTA_LENGTH(0));

	a->rta_type = type;
	return a;
}

static void nest_end(struct request *r, struct rtattr *a)
{
	a->rta_len = (uint16_t)(r->u.b + NLMSG_ALIGN(r->u.h.nlmsg_len) - (uint8_t *)a);
}

/* The kernel's answer to a request with NLM_F_ACK is one message, an error of 0 or -errno. */
static int submit(int fd, const struct request *r)
{
	union {
		struct nlmsghdr h;
		uint8_t b[REPLY_BYTES_MAX];
	} reply;
	const struct nlmsgerr *e = NLMSG_DATA(&reply.h);
	ssize_t n;

	if (send(fd, r->u.b, r->u.h.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, reply.b, sizeof(reply.b), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < NLMSG_LENGTH(sizeof(*e)) || reply.h.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return e->error;
}

int netlink_open(int *ret_fd)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int netlink_add_veth(int fd, const char *name, const char *peer_name, int peer_ns, int index)
{
	struct request r;
	struct ifinfomsg *link = begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*link));
	struct rtattr *info, *data, *peer;

	link->ifi_index = index;
	attribute(&r, IFLA_IFNAME, name, strlen(name) + 1);
	info = nest(&r, IFLA_LINKINFO);
	attribute(&r, IFLA_INFO_KIND, "veth", strlen("veth"));
	data = nest(&r, IFLA_INFO_DATA);
	peer = nest(&r, VETH_INFO_PEER);
	link = put(&r, sizeof(*link));
	link->ifi_index = index;
	attribute(&r, IFLA_IFNAME, peer_name, strlen(peer_name) + 1);
	attribute(&r, IFLA_NET_NS_FD, &peer_ns, sizeof(peer_ns));
	nest_end(&r, peer);
	nest_end(&r, data);
	nest_end(&r, info);
	return submit(fd, &r);
}

int netlink_set_up(int fd, int index)
{
	struct request r;
	struct ifinfomsg *link = begin(&r, RTM_NEWLINK, 0, sizeof(*link));

	link->ifi_index = index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	return submit(fd, &r);
}

int netlink_add_address(int fd, int index, uint32_t address, uint8_t prefix)
{
	struct request r;
	struct ifaddrmsg *a = begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*a));

	a->ifa_family = AF_INET;
	a->ifa_prefixlen = prefix;
	a->ifa_index = (uint32_t)index;
	attribute(&r, IFA_LOCAL, &address, sizeof(address));
	attribute(&r, IFA_ADDRESS, &address, sizeof(address));
	return submit(fd, &r);
}

static struct rtmsg *begin_route(struct request *r, uint8_t table, uint8_t scope, uint8_t type)
{
	struct rtmsg *m = begin(r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(*m));

	m->rtm_family = AF_INET;
	m->rtm_table = table;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = scope;
	m->rtm_type = type;
	return m;
}

int netlink_add_route(int fd, int index, uint32_t network, uint8_t prefix, uint32_t gateway)
{
	struct request r;
	struct rtmsg *m = begin_route(&r, RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RTN_UNICAST);

	m->rtm_dst_len = prefix;
	attribute(&r, RTA_DST, &network, sizeof(network));
	attribute(&r, RTA_OIF, &index, sizeof(index));
	attribute(&r, RTA_GATEWAY, &gateway, sizeof(gateway));
	return submit(fd, &r);
}

int netlink_add_local(int fd, uint32_t network, uint8_t prefix)
{
	struct request r;
	struct rtmsg *m = begin_route(&r, RT_TABLE_LOCAL, RT_SCOPE_HOST, RTN_LOCAL);
	const int index = NETLINK_LOOPBACK;

	m->rtm_dst_len = prefix;
	attribute(&r, RTA_DST, &network, sizeof(network));
	attribute(&r, RTA_OIF, &index, sizeof(index));
	return submit(fd, &r);
}
