/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Admission (PROTOCOL 6): what the kernel's filter and user space agree on. The token and its hash,
 * the maps' keys and values, the verdicts. Nothing here calls anything, so that one text serves a
 * BPF program and a C program; admission_judge.h has the logic that both run.
 *
 *   token = 01 || u32 slot || SipHash-2-4(K_adm, client id padded to 64 || User Name padded to 48
 *                                         || u32 slot || u32 0)
 *
 * The slot is big-endian in the token and in the hashed message (PROTOCOL: integers are); key words
 * and the eight output bytes are little-endian, as SipHash defines them.
 *
 *   map       key -> value                                      who writes
 *   devices   admission_id -> admission_device                  the broker; the filter its TATs
 *   seen      u64 tag -> admission_seen                         the filter
 *   pend      admission_flow -> u64 ns of its SYN               the filter
 *   sources   admission_source -> admission_source_state        the filter
 *   bans      admission_source -> u64 ns of its end             the broker alone
 *   totals    enum admission_total -> u64 TAT                   the filter
 *   config    0 -> admission_config                             the broker
 *   counters  enum admission_verdict, _action -> u64, per CPU   the filter
 *
 * Times are ns of CLOCK_BOOTTIME, but where that is said. A TAT is GCRA's theoretical arrival time.
 * Maps are of the machine that runs them: their integers are in its byte order.
 */
#ifndef SSDTF_BPF_ADMISSION_H
#define SSDTF_BPF_ADMISSION_H

#include <linux/types.h>

#define ADMISSION_KEY_BYTES	  16
#define ADMISSION_TOKEN_BYTES	  13
#define ADMISSION_ID_BYTES	  64 /* client id, zero-padded */
#define ADMISSION_USER_BYTES	  48 /* User Name, zero-padded */
#define ADMISSION_MESSAGE_BYTES	  (ADMISSION_ID_BYTES + ADMISSION_USER_BYTES + 8)
#define ADMISSION_SLOT_SECONDS	  30
#define ADMISSION_SLOT_EITHER_WAY 1
#define ADMISSION_SLOT_NO_CLOCK	  0
#define ADMISSION_TOKEN_VERSION	  1
#define ADMISSION_VERSION	  2 /* of the maps; whoever changes one counts on */

/* --- SipHash-2-4 ------------------------------------------------------------------------------ */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ADMISSION_LE64(x) __builtin_bswap64(x)
#else
#define ADMISSION_LE64(x) (x)
#endif

/* Small verifiers look at every turn of a loop, so that the code should at least be there once. */
#if defined(__clang__)
#define ADMISSION_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define ADMISSION_NO_UNROLL
#endif

#define ADMISSION_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define ADMISSION_SIPROUND(v0, v1, v2, v3)   \
	do {                                 \
		v0 += v1;                    \
		v1 = ADMISSION_ROTL(v1, 13); \
		v1 ^= v0;                    \
		v0 = ADMISSION_ROTL(v0, 32); \
		v2 += v3;                    \
		v3 = ADMISSION_ROTL(v3, 16); \
		v3 ^= v2;                    \
		v0 += v3;                    \
		v3 = ADMISSION_ROTL(v3, 21); \
		v3 ^= v0;                    \
		v2 += v1;                    \
		v1 = ADMISSION_ROTL(v1, 17); \
		v1 ^= v2;                    \
		v2 = ADMISSION_ROTL(v2, 32); \
	} while (0)

/* SipHash-2-4 (Aumasson, Bernstein 2012) of n words in memory order; key: two words likewise. */
static inline __u64 admission_siphash(const __u64 key[2], const __u64 *words, unsigned int n)
{
	__u64 k0 = ADMISSION_LE64(key[0]), k1 = ADMISSION_LE64(key[1]);
	__u64 v0 = k0 ^ 0x736f6d6570736575ull, v1 = k1 ^ 0x646f72616e646f6dull;
	__u64 v2 = k0 ^ 0x6c7967656e657261ull, v3 = k1 ^ 0x7465646279746573ull;

	/* One round for the words and the length behind them: the code is there once. */
	ADMISSION_NO_UNROLL
	for (unsigned int i = 0; i <= n; i++) {
		__u64 w = (__u64)n << 59;

		if (i < n)
			w = ADMISSION_LE64(words[i]);
		v3 ^= w;
		ADMISSION_SIPROUND(v0, v1, v2, v3);
		ADMISSION_SIPROUND(v0, v1, v2, v3);
		v0 ^= w;
	}
	v2 ^= 0xff;
	ADMISSION_NO_UNROLL
	for (unsigned int i = 0; i < 4; i++)
		ADMISSION_SIPROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

/* What is hashed, laid out so that it is hashed where it was read to. */
struct admission_message {
	union {
		__u64 words[ADMISSION_MESSAGE_BYTES / 8];
		struct {
			__u8 id[ADMISSION_ID_BYTES];
			__u8 user_name[ADMISSION_USER_BYTES];
			__u8 slot[4];
			__u8 zero[4];
		};
	};
	__u8 room[8]; /* the verifier is told of lengths up to 64 only, and believes each of them */
};

/* --- maps ------------------------------------------------------------------------------------- */

struct admission_id {
	__u8 bytes[ADMISSION_ID_BYTES]; /* zero-padded */
};

enum admission_device_flags { ADMISSION_DEVICE_NO_CLOCK = 1 /* slot 0 is accepted */ };

struct admission_device {
	__u64 key[ADMISSION_KEY_BYTES / 8]; /* K_adm in memory order */
	/* The one before it, which holds, too, until then (ns since 1970; 0: there is none). */
	__u64 previous[ADMISSION_KEY_BYTES / 8];
	__u64 previous_until_ns;
	__u64 tat_ns, no_clock_tat_ns; /* of its CONNECTs, of those with slot 0 */
	__u32 flags;
	__u32 bundle; /* counts them: whoever an older one put there is enrolled no more */
};

/*
 * IPv4 as ::ffff:a.b.c.d, or as NAT64 has it (RFC 6052), and a link's own addresses (fe80::/10) are
 * a host's; of other IPv6 addresses the first 64 bits count, for the rest is the peer's own.
 */
struct admission_source {
	__u8 address[16];
};

static inline int admission_source_is_host(const __u8 a[16])
{
	return (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) ||
	       (!a[0] && a[1] == 0x64 && a[2] == 0xff && a[3] == 0x9b) ||
	       (!a[0] && !a[1] && !a[2] && !a[3] && !a[4] && !a[5] && !a[6] && !a[7]);
}

struct admission_source_state {
	__u64 told_tat_ns; /* of rejected CONNECTs that the broker is to answer */
	__u64 syn_tat_ns;  /* of SYNs, at listeners of the other kind */
	__u64 rejected;	   /* packets; their address may be forged */
	__u32 last;	   /* enum admission_verdict of the last */
	__u32 zero;
};

struct admission_flow {
	__u8 address[16];
	__u8 ports[4]; /* source, destination, as in the header */
	__u32 zero;
};

/* Whose token it was: the same segment may come again, from nowhere else. */
struct admission_seen {
	__u32 sequence; /* of the segment, of the peer's port */
	__u16 port;
	__u16 zero;
	struct admission_source source;
};

/*
 * Names under which ssdtf-admit pins all that, in one folder, programs first. X(name, mode, owned):
 * the group is the broker's, and where it is owned, the owner too; else that is who pinned it.
 */
#define ADMISSION_PINS_DEFAULT "/sys/fs/bpf/ssdtf"
#define ADMISSION_PIN_LIST(X)    \
	X(filter, 0440, 0)       \
	X(filter_other, 0440, 0) \
	X(counters, 0440, 0)     \
	X(sources, 0440, 0)      \
	X(totals, 0600, 0)       \
	X(seen, 0600, 0)         \
	X(pend, 0600, 0)         \
	X(devices, 0600, 1)      \
	X(bans, 0660, 1)         \
	X(config, 0660, 1)

enum admission_total {
	ADMISSION_TOTAL_TOLD,
	ADMISSION_TOTAL_STRAY,
	ADMISSION_TOTALS,
};

enum admission_config_flags {
	ADMISSION_ENFORCE = 1,	    /* drop what is not admitted; else only count */
	ADMISSION_ENFORCE_BANS = 2, /* drop whom the broker banned */
};

/* Of a rate: so many at once, then one in each interval. Interval 0: no limit. */
struct admission_rate {
	__u64 interval_ns;
	__u32 burst; /* at least 1 */
	__u32 zero;
};

struct admission_config {
	__u64 wall_offset_ns; /* Unix time = CLOCK_BOOTTIME + this */
	__u64 pend_ns;	      /* how long the kernel keeps a half-open connection */
	__u32 flags;
	__u32 version;			  /* ADMISSION_VERSION: of all that this header says */
	struct admission_rate device;	  /* CONNECTs of one */
	struct admission_rate no_clock;	  /* of one without a clock */
	struct admission_rate told;	  /* rejected CONNECTs of a source that get an answer */
	struct admission_rate told_total; /* of all sources */
	struct admission_rate stray;	  /* segments of connections that nobody knows */
	struct admission_rate syn;	  /* SYNs of a source, at listeners of the other kind */
};

/* --- verdicts --------------------------------------------------------------------------------- */

#define ADMISSION_VERDICT_LIST(X)                                                       \
	/* passed at any time */                                                        \
	X(SYN, "syn")                                                                   \
	X(RST, "rst")                                                                   \
	X(STRAY, "stray") /* of a connection that nobody knows: TCP answers with RST */ \
	X(OK, "ok")                                                                     \
	X(OK_AGAIN, "ok_again") /* the same segment, retransmitted */                   \
	/* dropped where that is enforced */                                            \
	X(BARE, "bare") /* an ACK or FIN without a byte */                              \
	X(BANNED, "banned")                                                             \
	X(SYN_RATE, "syn_rate")                                                         \
	X(RATE, "rate") /* of a device that has the key: its retransmission gets in */  \
	/* the same, and its source is remembered: no client of ours */                 \
	X(REPLAYED, "replayed") /* a broker that was restarted might take it */         \
	X(NOT_CONNECT, "not_connect")                                                   \
	/* the same, but some get through to be told why */                             \
	X(SPLIT, "split") /* a CONNECT that goes on behind this segment */              \
	X(MALFORMED, "malformed")                                                       \
	X(NO_TOKEN, "no_token")                                                         \
	X(SLOT, "slot")	      /* not of now, or none where one is needed */             \
	X(UNKNOWN, "unknown") /* nobody of that id is enrolled */                       \
	X(BAD_TAG, "bad_tag")

#define ADMISSION_ENUM(name, text) ADMISSION_##name,
enum admission_verdict { ADMISSION_VERDICT_LIST(ADMISSION_ENUM) ADMISSION_VERDICTS };
#undef ADMISSION_ENUM

/* Counted behind the verdicts: what was done with those that are not passed at any time. */
enum admission_action {
	ADMISSION_TOLD = ADMISSION_VERDICTS, /* let through, within its budget */
	ADMISSION_DROPPED,
	ADMISSION_COUNTERS,
};

#endif
