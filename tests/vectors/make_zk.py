#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Makes tests/vectors/zk.json: proofs of SSDTF-ZK-1 (docs/PROTOCOL.md 16), and what is none.

    tests/vectors/make_zk.py > tests/vectors/zk.json

The curve is worked out here in whole numbers, so that nothing of OpenSSL, which the programs use,
is in it. Every number is derived from the seed: the same file comes out each time.
"""
import base64
import hashlib
import hmac
import json
import struct

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)
RESPONSE = "$SSDTF/auth/response"


def add(p, q):
    """p + q; None is infinity."""
    if not p or not q:
        return p or q
    if p[0] == q[0] and (p[1] + q[1]) % P == 0:
        return None
    if p == q:
        slope = (3 * p[0] * p[0] - 3) * pow(2 * p[1], -1, P) % P
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P) % P
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P


def mul(k, p):
    out = None
    for bit in bin(k)[2:]:
        out = add(out, out)
        if bit == "1":
            out = add(out, p)
    return out


def b32(v):
    return v.to_bytes(32, "big")


def point(p):
    return b"\x04" + b32(p[0]) + b32(p[1])


def compressed(p):
    return bytes([2 + (p[1] & 1)]) + b32(p[0])


def scalar(seed):
    """A number in 1..n-1 that nobody chose."""
    return 1 + int.from_bytes(hashlib.sha512(b"ssdtf zk vectors " + seed.encode()).digest(),
                              "big") % (N - 1)


def expand(prk, info, n):
    out, block, i = b"", b"", 0
    while len(out) < n:
        i += 1
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:n]


def publish_input(first, topic, body, client_id):
    topic, client_id = topic.encode(), client_id.encode()
    return (b"ssdtf-publish-1" + bytes([first & ~8]) + struct.pack(">H", len(topic)) + topic
            + struct.pack(">I", 0) + struct.pack(">I", len(body)) + body
            + struct.pack(">H", len(client_id)) + client_id)


def challenge(x_point, v_point, data):
    prk = hashlib.sha256(b"ssdtf-zk-1" + point(x_point) + point(v_point) + data).digest()
    return 1 + int.from_bytes(expand(prk, b"ssdtf-zk-1", 48), "big") % (N - 1)


def holds(x_point, v_point, c, s):
    return add(mul(s, G), mul(c, x_point)) == v_point


class Proof:
    def __init__(self, seed, qos=0, body_n=96):
        self.x, self.v = scalar(seed + " x"), scalar(seed + " v")
        self.x_point, self.v_point = mul(self.x, G), mul(self.v, G)
        self.client_id = base64.urlsafe_b64encode(compressed(self.x_point)).decode()
        assert len(self.client_id) == 44
        self.qos = qos
        self.body = (hashlib.sha512(seed.encode()).digest() * 3)[:body_n]
        self.input = publish_input(0x30 | qos << 1, RESPONSE, self.body, self.client_id)
        self.c = challenge(self.x_point, self.v_point, self.input)
        self.s = (self.v - self.c * self.x) % N
        assert self.s and holds(self.x_point, self.v_point, self.c, self.s)

    def payload(self, body=None, v=None, s=None, kind=3):
        return ((self.body if body is None else body)
                + (compressed(self.v_point) if v is None else v)
                + (b32(self.s) if s is None else s) + bytes([kind]))

    def entry(self):
        return {"x": b32(self.x).hex(), "X": point(self.x_point).hex(),
                "client_id": self.client_id, "topic": RESPONSE, "qos": self.qos,
                "body": self.body.hex(), "input": self.input.hex(), "v": b32(self.v).hex(),
                "V": compressed(self.v_point).hex(), "c": b32(self.c).hex(),
                "s": b32(self.s).hex(), "payload": self.payload().hex()}

    def refused(self, why, payload=None, **changed):
        """This proof with something about it changed."""
        out = {"why": why, "X": point(self.x_point).hex(), "client_id": self.client_id,
               "topic": RESPONSE, "qos": self.qos,
               "payload": (self.payload() if payload is None else payload).hex()}
        out.update(changed)
        return out


def off_curve():
    """An x that no point has."""
    x = 5
    while pow(pow(x, 3, P) - 3 * x + B, (P - 1) // 2, P) == 1:
        x += 1
    return x


B = (G[1] * G[1] - pow(G[0], 3, P) + 3 * G[0]) % P


def simulated(p):
    """What anybody can make: s and c chosen, V = sG + cX. It is no proof, since c is not V's."""
    s, c = scalar("simulated s"), scalar("simulated c")
    return p.payload(v=compressed(add(mul(s, G), mul(c, p.x_point))), s=b32(s))


def rejects():
    p, other = Proof("reject"), Proof("other")
    negative = (p.v_point[0], P - p.v_point[1])
    yield p.refused("another party's key", X=point(other.x_point).hex())
    yield p.refused("another client id", client_id=other.client_id)
    yield p.refused("another topic", topic="$SSDTF/nack")
    yield p.refused("another QoS", qos=1)
    yield p.refused("R_b of another session", p.payload(body=bytes(32) + p.body[32:]))
    yield p.refused("R_c of another session",
                    p.payload(body=p.body[:32] + bytes(32) + p.body[64:]))
    yield p.refused("another broker's key", p.payload(body=p.body[:64] + bytes(32)))
    yield p.refused("a proof of another party", p.payload(v=compressed(other.v_point),
                                                          s=b32(other.s)))
    yield p.refused("simulated", simulated(p))
    yield p.refused("s + n, where that fits 32 bytes or not", p.payload(s=b32((p.s + N) % 2**256)))
    yield p.refused("-s", p.payload(s=b32(N - p.s)))
    yield p.refused("-V", p.payload(v=compressed(negative)))
    yield p.refused("-V and -s", p.payload(v=compressed(negative), s=b32(N - p.s)))
    yield p.refused("s = 0", p.payload(s=bytes(32)))
    yield p.refused("s = n", p.payload(s=b32(N)))
    yield p.refused("s = 2^256 - 1", p.payload(s=b"\xff" * 32))
    yield p.refused("V is infinity, as one byte and zeros", p.payload(v=bytes(33)))
    yield p.refused("V is infinity, s = -cX", p.payload(v=b"\x02" + bytes(32), s=b32(p.s)))
    yield p.refused("V is no point", p.payload(v=b"\x02" + b32(off_curve())))
    yield p.refused("V has an x above p", p.payload(v=b"\x02" + b32(P + 5)))
    yield p.refused("V in the form of an uncompressed point",
                    p.payload(v=b"\x04" + compressed(p.v_point)[1:]))
    for kind in (0, 1, 2, 4, 255):
        yield p.refused("trailer %d" % kind, p.payload(kind=kind))
    yield p.refused("cut in front", p.payload()[-65:])
    yield p.refused("nothing", b"")


def main():
    proofs = [Proof("one"), Proof("two", qos=1), Proof("three", body_n=128), Proof("four", qos=2),
              Proof("five", body_n=0)]
    print(json.dumps({"note": "SSDTF-ZK-1, docs/PROTOCOL.md 16; made by make_zk.py",
                      "zk": [p.entry() for p in proofs], "zk_reject": list(rejects())}, indent=1))


if __name__ == "__main__":
    main()
