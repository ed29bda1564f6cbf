/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The admission filter: a socket filter on the broker's listening sockets. Who is not enrolled gets
 * no socket, only the half-open connection that TCP keeps for a few seconds (with SYN cookies not
 * even that).
 *
 *   The listener's filter sees a SYN, the ACK that ends the handshake, and whatever else arrives
 *   until a socket exists. It passes SYN, RST, and a segment with a CONNECT whose token holds. The
 *   handshake's own ACK and FIN are dropped: a bare ACK would make the socket, and the CONNECT
 *   behind it ends the handshake just as well. Bytes in a SYN are not judged: TCP leaves them, for
 *   the broker's sockets have no Fast Open, and they come again.
 *
 * Addresses are not proven here, for nobody has yet answered our SYN-ACK: so nothing that a segment
 * says gets its source banned. Bans are the broker's. A few rejected CONNECTs of each source pass,
 * for the broker to say why (CONNACK 5).
 *
 * Accepted sockets inherit the filter: there it passes everything, at the cost of one test.
 *
 * Needs CAP_BPF and CAP_PERFMON to load (it reads its stack by a variable), none to attach. It uses
 * nothing newer than kernel 6.1, no BTF of the kernel, and must stay below 16 KiB: each socket is
 * charged for it, and where 20 KiB is the limit (net.core.optmem_max of 6.1) it has to fit.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/admission.h"

#define STATE_LISTEN 10 /* TCP_LISTEN, also of a half-open connection */
#define PASS	     (-1)
#define DROP	     0

#define TCP_HEADER_BYTES 20
#define TCP_FLAG_FIN	 0x01
#define TCP_FLAG_SYN	 0x02
#define TCP_FLAG_RST	 0x04
#define TCP_FLAG_ACK	 0x10
#define IP_SOURCE_AT	 12
#define IPV6_SOURCE_AT	 8

#define DEVICES_MAX 32768
#define SEEN_MAX    65536 /* twice as many: ssdtf-admit grows both */
#define PEND_MAX    65536
#define SOURCES_MAX 16384
#define BANS_MAX    16384

/* clang-format off: one line a map, as libbpf reads them */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEVICES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct admission_id);
	__type(value, struct admission_device);
} devices SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SEEN_MAX);
	__type(key, __u64);
	__type(value, struct admission_seen);
} seen SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PEND_MAX);
	__type(key, struct admission_flow);
	__type(value, __u64);
} pend SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SOURCES_MAX);
	__type(key, struct admission_source);
	__type(value, struct admission_source_state);
} sources SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BANS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct admission_source);
	__type(value, __u64);
} bans SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADMISSION_TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct admission_config);
} config SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ADMISSION_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");
/* clang-format on */

/* --- what the judge asks for ------------------------------------------------------------------ */

#define ADMISSION_PACKET	     struct __sk_buff
#define admission_load(p, at, to, n) bpf_skb_load_bytes(p, at, to, n)
/* In the very register that the helper gets: a bound does not survive a spill before 6.8. */
#define ADMISSION_CLAMP_64(x) asm volatile("%0 += -1; %0 &= 63; %0 += 1;" : "+r"(x))

static __always_inline struct admission_device *admission_find_device(struct __sk_buff *skb,
								      const struct admission_id *id)
{
	return bpf_map_lookup_elem(&devices, id);
}

static __always_inline int admission_find_seen(struct __sk_buff *skb, __u64 tag,
					       const struct admission_seen *now)
{
	const struct admission_seen *old = bpf_map_lookup_elem(&seen, &tag);
	const __u64 *a, *b;

	if (!old)
		return 0;
	if (old->sequence != now->sequence || old->port != now->port)
		return -1;
	a = (const __u64 *)&old->source;
	b = (const __u64 *)&now->source;
	return a[0] == b[0] && a[1] == b[1] ? 1 : -1;
}

static __always_inline int admission_remember(struct __sk_buff *skb, __u64 tag,
					      const struct admission_seen *now)
{
	return bpf_map_update_elem(&seen, &tag, now, BPF_NOEXIST) != 0;
}

#include "bpf/admission_judge.h"

/* --- a segment -------------------------------------------------------------------------------- */

struct segment {
	__u8 tcp[TCP_HEADER_BYTES];
	struct admission_flow flow;
	struct admission_source source;
	__u64 now_ns;
	__u32 payload_at;
};

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &what);

	if (n)
		(*n)++;
}

/* The TCP header is at base. Non-zero: it is not one. */
static __always_inline int read_segment(struct __sk_buff *skb, __u32 base, struct segment *s)
{
	long err;

	__builtin_memset(s, 0, sizeof(*s));
	if (bpf_skb_load_bytes(skb, base, s->tcp, TCP_HEADER_BYTES) < 0)
		return -1;
	s->payload_at = base + (s->tcp[12] >> 4) * 4;
	if (s->payload_at > skb->len)
		return -1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		s->flow.address[10] = s->flow.address[11] = 0xff;
		err = bpf_skb_load_bytes_relative(skb, IP_SOURCE_AT, s->flow.address + 12, 4,
						  BPF_HDR_START_NET);
		__builtin_memcpy(s->source.address, s->flow.address, 16);
	} else {
		err = bpf_skb_load_bytes_relative(skb, IPV6_SOURCE_AT, s->flow.address, 16,
						  BPF_HDR_START_NET);
		__builtin_memcpy(s->source.address, s->flow.address, 16);
		if (!admission_source_is_host(s->source.address))
			__builtin_memset(s->source.address + 8, 0, 8);
	}
	__builtin_memcpy(s->flow.ports, s->tcp, 4);
	s->now_ns = bpf_ktime_get_boot_ns();
	return err < 0 ? -1 : 0;
}

static __always_inline int is_banned(const struct segment *s)
{
	const __u64 *until_ns = bpf_map_lookup_elem(&bans, &s->source);

	return until_ns && *until_ns > s->now_ns;
}

/*
 * Is it of a connection that nobody knows, such as one to a broker that was restarted? TCP answers
 * such a segment with RST, so that its client connects again at once; a filter that swallowed it
 * would let the client wait. It is one where no SYN came while TCP could still have it half-open.
 * SYNs of a flood push others out of the map: the budget bounds what comes of that.
 */
static __always_inline int is_stray(const struct admission_config *c, const struct segment *s)
{
	const __u64 *syn_ns = bpf_map_lookup_elem(&pend, &s->flow);
	__u32 key = ADMISSION_TOTAL_STRAY;
	__u64 *tat;

	if (syn_ns && s->now_ns - *syn_ns <= c->pend_ns)
		return 0;
	tat = bpf_map_lookup_elem(&totals, &key);
	return tat && admission_fits(tat, s->now_ns, &c->stray);
}

static __always_inline struct admission_source_state *source_state(const struct segment *s)
{
	struct admission_source_state fresh = { 0 }, *state;

	state = bpf_map_lookup_elem(&sources, &s->source);
	if (state)
		return state;
	bpf_map_update_elem(&sources, &s->source, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sources, &s->source);
}

/* It is rejected; but is it let through, so that the broker tells its sender? */
static __always_inline int may_be_told(const struct admission_config *c, const struct segment *s,
				       __u32 verdict)
{
	struct admission_source_state *state = source_state(s);
	__u32 key = ADMISSION_TOTAL_TOLD;
	__u64 *tat = bpf_map_lookup_elem(&totals, &key);

	if (!state || !tat)
		return 0;
	state->rejected++;
	state->last = verdict;
	return (c->flags & ADMISSION_ENFORCE) && verdict >= ADMISSION_SPLIT &&
	       admission_fits(&state->told_tat_ns, s->now_ns, &c->told) &&
	       admission_fits(tat, s->now_ns, &c->told_total);
}

static __always_inline __u32 judge_connect(struct __sk_buff *skb, const struct admission_config *c,
					   const struct segment *s)
{
	struct admission_seen from = { 0 };
	struct admission_claim claim;
	__u32 verdict;

	__builtin_memset(&claim, 0, sizeof(claim));
	verdict = admission_parse(skb, s->payload_at, skb->len, &claim);
	if (verdict != ADMISSION_OK)
		return verdict;
	from.sequence = *(const __u32 *)(s->tcp + 4);
	from.port = *(const __u16 *)s->tcp;
	__builtin_memcpy(&from.source, &s->source, sizeof(from.source));
	return admission_weigh(skb, &claim, c, s->now_ns, &from);
}

static __always_inline __u32 judge(struct __sk_buff *skb, const struct admission_config *c,
				   const struct segment *s)
{
	if (s->tcp[13] & TCP_FLAG_RST)
		return ADMISSION_RST;
	if (is_banned(s))
		return ADMISSION_BANNED;
	if (s->tcp[13] & TCP_FLAG_SYN) {
		/* TCP takes the SYN of a half-open connection for an old one, and what comes with
		 * it for the end of the handshake. */
		if (s->tcp[13] & (TCP_FLAG_ACK | TCP_FLAG_FIN))
			return ADMISSION_BARE;
		bpf_map_update_elem(&pend, &s->flow, &s->now_ns, BPF_ANY);
		return ADMISSION_SYN;
	}
	if (s->payload_at == skb->len)
		return ADMISSION_BARE;
	if (is_stray(c, s))
		return ADMISSION_STRAY;
	return judge_connect(skb, c, s);
}

/* Is it to be passed? */
static __always_inline int act(const struct admission_config *c, const struct segment *s,
			       __u32 verdict)
{
	int pass = 1;

	count(verdict);
	if (verdict <= ADMISSION_OK_AGAIN)
		return 1;
	if (verdict == ADMISSION_BANNED)
		pass = !(c->flags & ADMISSION_ENFORCE_BANS);
	else if (c->flags & ADMISSION_ENFORCE)
		pass = 0;
	if (verdict >= ADMISSION_REPLAYED && may_be_told(c, s, verdict)) {
		count(ADMISSION_TOLD);
		return 1;
	}
	if (!pass)
		count(ADMISSION_DROPPED);
	return pass;
}

/* An accepted socket, which inherited the filter from its listener. */
static __always_inline int is_child(const struct __sk_buff *skb)
{
	const struct bpf_sock *sk = skb->sk;

	return sk && sk->state != STATE_LISTEN;
}

/* What each judgement begins with. NULL: it is no segment. */
static __always_inline const struct admission_config *begin(struct __sk_buff *skb, __u32 base,
							    struct segment *s)
{
	__u32 zero = 0;
	const struct admission_config *c = bpf_map_lookup_elem(&config, &zero);

	return c && !read_segment(skb, base, s) ? c : 0;
}

static __always_inline int filter_at(struct __sk_buff *skb, __u32 base, __u32 *ret_verdict)
{
	struct segment s;
	const struct admission_config *c = begin(skb, base, &s);

	if (!c)
		return DROP;
	*ret_verdict = judge(skb, c, &s);
	return act(c, &s, *ret_verdict) ? PASS : DROP;
}

SEC("socket")
int filter(struct __sk_buff *skb)
{
	__u32 verdict;

	if (is_child(skb))
		return PASS;
	return filter_at(skb, 0, &verdict);
}

/*
 * For listeners where the first segment is no CONNECT (TLS, WebSocket): the bans, and a limit to
 * the SYNs of a source while tokens are enforced elsewhere. A forger of addresses can use up
 * another's SYNs; what he gets is what a flood of SYNs gets him anyway.
 */
static __always_inline __u32 judge_other(const struct admission_config *c, const struct segment *s)
{
	struct admission_source_state *state;

	if (s->tcp[13] & TCP_FLAG_RST)
		return ADMISSION_RST;
	if (is_banned(s))
		return ADMISSION_BANNED;
	if (!(s->tcp[13] & TCP_FLAG_SYN))
		return ADMISSION_STRAY; /* whatever it is, it is TCP's */
	state = source_state(s);
	return state && !admission_fits(&state->syn_tat_ns, s->now_ns, &c->syn) ? ADMISSION_SYN_RATE
										: ADMISSION_SYN;
}

static __always_inline int filter_other_at(struct __sk_buff *skb, __u32 base, __u32 *ret_verdict)
{
	struct segment s;
	const struct admission_config *c = begin(skb, base, &s);

	if (!c)
		return DROP;
	*ret_verdict = judge_other(c, &s);
	if (*ret_verdict == ADMISSION_STRAY)
		return PASS; /* most of a handshake: not counted */
	return act(c, &s, *ret_verdict) ? PASS : DROP;
}

SEC("socket")
int filter_other(struct __sk_buff *skb)
{
	__u32 verdict;

	if (is_child(skb))
		return PASS;
	return filter_other_at(skb, 0, &verdict);
}

/*
 * For BPF_PROG_TEST_RUN, which has the data begin at the IP header. The result is the verdict, and
 * above it whether it was passed.
 */
#define TEST_RUN(name, at, base)                          \
	SEC("socket")                                     \
	int name(struct __sk_buff *skb)                   \
	{                                                 \
		__u32 verdict = ADMISSION_VERDICTS;       \
		int ret = at(skb, base, &verdict);        \
                                                          \
		return (int)verdict | (ret != DROP) << 8; \
	}
TEST_RUN(filter_test_ip, filter_at, 20)
TEST_RUN(filter_test_ipv6, filter_at, 40)
TEST_RUN(filter_other_test_ip, filter_other_at, 20)
TEST_RUN(filter_other_test_ipv6, filter_other_at, 40)

char _license[] SEC("license") = "Dual MIT/GPL";
