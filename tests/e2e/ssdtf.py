# SPDX-License-Identifier: MIT
"""The client's side of docs/PROTOCOL.md, written from that page with python3-cryptography alone.

It shares nothing with libssdtf, so that what both agree on is the page. self_check() puts it to
the vectors of tests/vectors/core.json.

    ssdtf.Party      keys and bundle of a device or receiver: seals, signs, verifies, opens, and
                     takes the manager's later statements
    ssdtf.Context    one HPKE context of a sender
    ssdtf.Bundle     a party's bundle, its signature checked
    ssdtf.Claim      a claim code, and the party that it makes
    ssdtf.convert()  what a broker or a distributor makes of a message, in software
"""

import base64
import hashlib
import hmac
import json
import os
import struct
import time

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CURVE = ec.SECP256R1()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

CHALLENGE, RESPONSE, RESULT = "$SSDTF/auth/challenge", "$SSDTF/auth/response", "$SSDTF/auth/result"
ERROR, NACK, REPORT = "$SSDTF/error", "$SSDTF/nack", "$SSDTF/report"
UPDATE, BUNDLE, CLAIM = "$SSDTF/update", "$SSDTF/bundle", "$SSDTF/claim"

BAD_SIGNATURE, MALFORMED, REPLAYED, NO_KEY_ID = 1, 2, 3, 4
NOT_PERMITTED, UNAVAILABLE, CANNOT_OPEN, RETIRED = 5, 6, 7, 8

HEAD_BYTES = 126  # of a sealed payload, up to and with its level
TAG_BYTES = 16
SEQ_MAX = 0xFFFF


class Refused(Exception):
    """What arrived is not of the protocol, or not from whom it should be."""


# --- points, signatures -------------------------------------------------------------------------

def point_bytes(public):
    return public.public_bytes(serialization.Encoding.X962,
                               serialization.PublicFormat.UncompressedPoint)


def point_compress(public):
    return public.public_bytes(serialization.Encoding.X962,
                               serialization.PublicFormat.CompressedPoint)


def point_parse(data):
    """A point, 65 bytes or compressed; Refused where it is none."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(CURVE, bytes(data))
    except ValueError as e:
        raise Refused("no point: %s" % e) from None


def x_lift(x):
    """Either of the two points with this x-coordinate."""
    return point_parse(b"\x02" + x)


def scalar_key(scalar):
    return ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE)


def dh(private, public):
    """x(private · public), 32 bytes."""
    return private.exchange(ec.ECDH(), public)


def sign(private, data):
    r, s = utils.decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(public, data, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < ORDER and 0 < s < ORDER):
        raise Refused("no signature")
    try:
        public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("bad signature") from None


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u8p(data):
    return struct.pack(">B", len(data)) + data


def u16p(data):
    return struct.pack(">H", len(data)) + data


def u32p(data):
    return struct.pack(">I", len(data)) + data


# --- HPKE (RFC 9180, Base mode) -----------------------------------------------------------------

AEADS = {1: (1, 16, AESGCM), 2: (3, 32, ChaCha20Poly1305)}  # suite: AEAD id, key bytes, class
INFO = b"ssdtf-mqtt/1"
KEM_ID = b"KEM" + struct.pack(">H", 0x0010)


def hkdf_extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def hkdf_expand(prk, info, n):
    out, block = b"", b""
    for i in range(1, 256):
        if len(out) >= n:
            break
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:n]


def labeled_extract(suite_id, salt, label, ikm):
    return hkdf_extract(salt, b"HPKE-v1" + suite_id + label + ikm)


def labeled_expand(suite_id, prk, label, info, n):
    return hkdf_expand(prk, struct.pack(">H", n) + b"HPKE-v1" + suite_id + label + info, n)


class Hpke:
    """A context by its shared secret; both sides are the same."""

    def __init__(self, suite, x, enc, scope_key, info=INFO):
        aead_id, key_bytes, aead = AEADS[suite]
        kem = labeled_extract(KEM_ID, b"", b"eae_prk", x)
        shared = labeled_expand(KEM_ID, kem, b"shared_secret", enc + scope_key, 32)
        self.suite_id = b"HPKE" + struct.pack(">HHH", 0x0010, 0x0001, aead_id)
        context = (b"\x00" + labeled_extract(self.suite_id, b"", b"psk_id_hash", b"")
                   + labeled_extract(self.suite_id, b"", b"info_hash", info))
        secret = labeled_extract(self.suite_id, shared, b"secret", b"")
        self.aead = aead(labeled_expand(self.suite_id, secret, b"key", context, key_bytes))
        self.base_nonce = labeled_expand(self.suite_id, secret, b"base_nonce", context, 12)
        exporter = labeled_expand(self.suite_id, secret, b"exp", context, 32)
        self.commit = labeled_expand(self.suite_id, exporter, b"sec", b"ssdtf-commit", 32)

    def nonce(self, seq):
        return (int.from_bytes(self.base_nonce, "big") ^ seq).to_bytes(12, "big")

    def seal(self, seq, aad, plaintext):
        return self.aead.encrypt(self.nonce(seq), plaintext, aad)

    def open(self, seq, aad, ciphertext):
        try:
            return self.aead.decrypt(self.nonce(seq), ciphertext, aad)
        except InvalidTag:
            raise Refused("does not decrypt") from None


def hpke_to(public, info, suite=1):
    """(enc of 65 bytes, a context to seal with), for who has the private key of public."""
    private = ec.generate_private_key(CURVE)
    enc = point_bytes(private.public_key())
    return enc, Hpke(suite, dh(private, public), enc, point_bytes(public), info)


def hpke_from(private, enc, info, suite=1):
    """The context of that enc, to open with."""
    return Hpke(suite, dh(private, point_parse(enc)), enc, point_bytes(private.public_key()), info)


# --- the sealed payload (PROTOCOL 2) ------------------------------------------------------------

PAD_LEAST, PAD_STEP = 32, 65536


def padded_size(n):
    """Of a plaintext of n bytes."""
    if not n:
        return 0
    if n >= PAD_STEP:
        return (n // PAD_STEP + 1) * PAD_STEP
    size = PAD_LEAST
    while size < n + 1:
        size *= 2
    return size


def pad(plaintext):
    if not plaintext:
        return plaintext
    return (plaintext + b"\x80").ljust(padded_size(len(plaintext)), b"\0")


def unpad(padded):
    if not padded:
        return padded
    stripped = padded.rstrip(b"\0")
    if not stripped.endswith(b"\x80"):
        raise Refused("not padded")
    return stripped[:-1]


def bind_of(salt, client_id, topic):
    return sha256(b"ssdtf-bind-1", salt, u16p(client_id.encode()), u16p(topic.encode()))[:16]


class Context:
    """What a sender seals with; (enc, seq) is used once."""

    def __init__(self, key_id, suite, scope_key, ephemeral=None, salt=None):
        private = scalar_key(ephemeral) if ephemeral else ec.generate_private_key(CURVE)
        self.key_id, self.suite = key_id, suite
        self.enc = point_compress(private.public_key())
        self.salt = salt or os.urandom(16)
        self.hpke = Hpke(suite, dh(private, point_parse(scope_key)),
                         point_bytes(private.public_key()), scope_key)
        self.seq = 0

    def seal(self, client_id, topic, plaintext, counter, time_ms=0):
        seq, self.seq = self.seq, self.seq + 1
        aad = (b"\x5d\x7f\x01" + struct.pack(">BIIQQ", self.suite, self.key_id, seq, counter,
                                             time_ms)
               + bind_of(self.salt, client_id, topic))
        return (aad + self.enc + self.hpke.commit + self.salt + b"\x00"
                + self.hpke.seal(seq, aad, plaintext))


class Envelope:
    """A sealed payload, parsed; Refused where it is malformed."""

    def __init__(self, data):
        self.raw = data
        if len(data) < HEAD_BYTES or data[:2] != b"\x5d\x7f":
            raise Refused("no sealed payload")
        (self.version, self.suite, self.key_id, self.seq, self.counter,
         self.time_ms) = struct.unpack(">BBIIQQ", data[2:28])
        self.aad, self.bind, self.enc = data[:44], data[28:44], data[44:77]
        self.commit, self.salt, self.level = data[77:109], data[109:125], data[125]
        self.head, rest = data[:125], data[HEAD_BYTES:]
        if self.version != 1 or self.suite not in AEADS or self.seq > SEQ_MAX or self.level > 8:
            raise Refused("unknown version or suite, seq or level too high")
        if self.enc[0] not in (2, 3):
            raise Refused("enc is not compressed")
        self.e = point_parse(self.enc)
        self.grant_id, self.x, self.origin, self.proof = b"", b"", "", b""
        if self.level:
            rest = self.parse_block(rest)
        if len(rest) < TAG_BYTES:
            raise Refused("shorter than a tag")
        self.ciphertext = rest

    def parse_block(self, rest):
        if len(rest) < 41:
            raise Refused("cut block")
        self.grant_id, self.x, n = rest[:8], rest[8:40], rest[40]
        origin, rest = rest[41:41 + n], rest[41 + n:]
        if not 1 <= n <= 64 or len(origin) < n or len(rest) < 2:
            raise Refused("cut block")
        self.origin = origin.decode("ascii")
        n = struct.unpack(">H", rest[:2])[0]
        self.proof, rest = rest[2:2 + n], rest[2 + n:]
        if len(self.proof) < n:
            raise Refused("cut block")
        return rest

    def as_sent(self):
        """What the sender sealed: level 0."""
        return self.head + b"\x00" + self.ciphertext

    def raised(self, grant_id, x, origin, proof=b""):
        """The same one level higher."""
        return (self.head + bytes([self.level + 1]) + grant_id + x + u8p(origin.encode())
                + u16p(proof) + self.ciphertext)

    def renamed(self):
        """The same with its salt replaced by zeros: what a distributor raises."""
        e = Envelope.__new__(Envelope)
        e.__dict__.update(self.__dict__, head=self.head[:109] + bytes(16), salt=bytes(16))
        return e

    def fits(self, client_id, topic):
        return self.bind == bind_of(self.salt, client_id, topic)


def grant_secret(prk_x, grant_id, key_id, x_point, b_point):
    """d of PROTOCOL 3."""
    info = b"ssdtf-grant-1" + grant_id + struct.pack(">I", key_id) + x_point + b_point
    w = hkdf_expand(hkdf_extract(b"", prk_x), info, 48)
    return 1 + int.from_bytes(w, "big") % (ORDER - 1)


def convert(data, rk, grant_id, origin, proof=b"", rename=False):
    """The body data (sealed, level 0 or above) converted by rk, a number, under grant_id. rename:
    as a distributor does, with a zero salt; origin is then the external id."""
    e = Envelope(data)
    point = x_lift(e.x) if e.level else e.e
    x = dh(ec.derive_private_key(rk, CURVE), point)
    return (e.renamed() if rename else e).raised(grant_id, x, origin, proof)


def proof_of(first, trailer, properties=b""):
    """The origin proof of a sender's own PUBLISH."""
    return bytes([first & ~0x08]) + u16p(properties) + trailer


# --- the signed PUBLISH (PROTOCOL 4) ------------------------------------------------------------

def first_byte(qos, retain):
    return 0x30 | qos << 1 | bool(retain)


def publish_input(first, topic, body, client_id, properties=b""):
    return (b"ssdtf-publish-1" + bytes([first & ~0x08]) + u16p(topic.encode())
            + struct.pack(">I", len(properties)) + properties
            + struct.pack(">I", len(body)) + body + u16p(client_id.encode()))


def split_trailer(payload):
    """(body, trailer)"""
    if not payload or payload[-1] not in (1, 2):
        raise Refused("no trailer")
    n = 65
    if payload[-1] == 2:
        if len(payload) < 69:
            raise Refused("no trailer")
        index, size = struct.unpack(">HH", payload[-5:-1])
        n = 69 + 32 * path_length(index, size)
    if len(payload) < n:
        raise Refused("no trailer")
    return payload[:-n], payload[-n:]


def path_length(index, size):
    if index >= size:
        raise Refused("index beyond the tree")
    steps, last = 0, size - 1
    while last:
        steps += bool(index & 1 or index < last)
        index, last = index >> 1, last >> 1
    return steps


def merkle_root(leaf, index, size, path):
    """RFC 9162 section 2.1.3.2."""
    node, last = sha256(b"\x00", leaf), size - 1
    steps = [path[i:i + 32] for i in range(0, len(path), 32)]
    for step in steps:
        if not last:
            raise Refused("path too long")
        if index & 1 or index == last:
            node = sha256(b"\x01", step, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\x01", node, step)
        index, last = index >> 1, last >> 1
    if last:
        raise Refused("path too short")
    return node


def verify_publish(public, first, topic, body, trailer, client_id, properties=b""):
    data = publish_input(first, topic, body, client_id, properties)
    if trailer[-1] == 1:
        return verify(public, data, trailer[:64])
    if body[:2] != b"\x5d\x7f":
        raise Refused("trailer 2 on what is not sealed")
    index, size = struct.unpack(">HH", trailer[-5:-1])
    root = merkle_root(data, index, size, trailer[64:-5])
    return verify(public, b"ssdtf-batch-1" + root, trailer[:64])


# --- SSDTF-ZK-1 (PROTOCOL 16) -------------------------------------------------------------------

def zk_prove(private, data, v=None):
    """V || s: that we know the number behind our public key, for this data alone."""
    v = v or 1 + int.from_bytes(os.urandom(48), "big") % (ORDER - 1)
    v_point = ec.derive_private_key(v, CURVE).public_key()
    prk = sha256(b"ssdtf-zk-1", point_bytes(private.public_key()), point_bytes(v_point), data)
    c = 1 + int.from_bytes(hkdf_expand(prk, b"ssdtf-zk-1", 48), "big") % (ORDER - 1)
    s = (v - c * private.private_numbers().private_value) % ORDER
    return point_compress(v_point) + s.to_bytes(32, "big")


def zk_id(public):
    return base64.urlsafe_b64encode(point_compress(public)).decode()


def check_zk(file):
    """Puts it to the vectors of a zk.json."""
    with open(file, encoding="utf-8") as f:
        for v in json.load(f)["zk"]:
            private = ec.derive_private_key(int(v["x"], 16), CURVE)
            expect(zk_id(private.public_key()) == v["client_id"], "id")
            data = publish_input(first_byte(v["qos"], False), v["topic"], bytes.fromhex(v["body"]),
                                 v["client_id"])
            expect(data.hex() == v["input"], "input")
            expect(zk_prove(private, data, int(v["v"], 16)).hex() == v["V"] + v["s"], "proof")


# --- statements and bundles (PROTOCOL 8, 9) -----------------------------------------------------

class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, n):
        if n > len(self.data):
            raise Refused("cut short")
        out, self.data = self.data[:n], self.data[n:]
        return out

    def u(self, n):
        return int.from_bytes(self.take(n), "big")

    def text(self):
        return self.take(self.u(1)).decode()

    def list(self, item, count=2):
        return [item(self) for _ in range(self.u(count))]


class Scope:
    PADDED = 1

    def __init__(self, r):
        self.key_id, self.epoch = r.u(4), r.u(4)
        self.name, self.suite, self.flags = r.text(), r.u(1), r.u(1)
        self.not_before, self.not_after = r.u(8), r.u(8)
        self.key = r.take(65)
        self.rekey_messages, self.rekey_seconds = r.u(4), r.u(4)
        self.filters = r.list(lambda q: q.take(q.u(2)).decode())
        self.public_filters = r.list(lambda q: q.take(q.u(2)).decode())


class Grant:
    PROOF, REPLACED, HOP, PADDED = 1, 2, 4, 8

    def __init__(self, r):
        self.id, self.source, self.key_id, self.flags = r.take(8), r.take(8), r.u(4), r.u(1)
        self.upstream, self.receiver, self.a = r.text(), r.text(), r.take(65)
        self.b, self.x = (None, None) if self.flags & self.HOP else (r.take(65), r.take(65))
        self.not_before, self.not_after = r.u(8), r.u(8)
        self.scope = r.text()
        self.filters = r.list(lambda q: q.take(q.u(2)).decode())


class PartyRecord:
    def __init__(self, r):
        self.id, self.roles, self.flags, self.signing = r.text(), r.u(1), r.u(1), r.take(65)
        self.previous = (r.take(65), r.u(8)) if r.u(1) else None
        self.encryption = r.take(65) if r.u(1) else None
        self.scopes = r.list(lambda q: q.text())


class BrokerRecord:
    def __init__(self, r):
        self.gateway_id, self.signing = r.text(), r.take(65)
        self.next = (r.take(65), r.u(8)) if r.u(1) else None


LABELS = {1: b"ssdtf-stmt-scope-1", 2: b"ssdtf-stmt-grant-1", 3: b"ssdtf-stmt-party-1",
          4: b"ssdtf-stmt-gateway-1", 5: b"ssdtf-stmt-bundle-1", 6: b"ssdtf-stmt-broker-1",
          7: b"ssdtf-stmt-distributor-1", 8: b"ssdtf-stmt-manifest-1"}


class Statement:
    """A statement's frame; check() verifies who signed it."""

    def __init__(self, data):
        self.data = data
        r = Reader(data)
        if r.take(3) != b"\x5d\x7e\x01":
            raise Refused("no statement")
        self.kind, self.serial, self.not_before, self.not_after = r.u(1), r.u(8), r.u(8), r.u(8)
        self.body = r.take(r.u(4))
        self.signature = r.take(64)
        if r.data:
            raise Refused("bytes behind the statement")

    def check(self, manager):
        verify(manager, LABELS[self.kind] + self.data[:-64], self.signature)
        return self


def valid_at(not_before, not_after, now):
    return not_before <= now and (not not_after or now < not_after)


class Bundle:
    """What the manager stated: a party's bundle, and what take() took later (PROTOCOL 13)."""

    def __init__(self, data, manager):
        self.manager = manager
        self.statement = Statement(data).check(manager)
        if self.statement.kind != 5:
            raise Refused("no party's bundle")

        def record(kind):
            return lambda q: kind(Reader(q.take(q.u(4))))

        r = Reader(self.statement.body)
        self.id, self.signing, self.broker_record = r.text(), r.take(65), BrokerRecord(r)
        self.gateway_id, self.broker = self.broker_record.gateway_id, self.broker_record.signing
        self.admission_flags, self.k_adm = r.u(1), r.take(16)
        self.scopes = r.list(record(Scope))
        self.grants = r.list(record(Grant))
        self.origins = r.list(record(PartyRecord))
        if r.data:
            raise Refused("bytes behind the bundle")
        self.serial = self.statement.serial

    def take(self, data):
        """A later statement. The record, or None where something as new is here already."""
        s = Statement(data).check(self.manager)
        if s.kind not in RECORDS:
            raise Refused("a statement of a kind that is no update")
        if s.serial <= self.serial:
            return None
        r = Reader(s.body)
        record = RECORDS[s.kind](r)
        if r.data:
            raise Refused("bytes behind the record")
        self.put(record)
        self.serial = s.serial
        return record

    def put(self, record):
        if isinstance(record, Scope):
            if not any(s.name == record.name and s.epoch > record.epoch for s in self.scopes):
                self.scopes = [s for s in self.scopes if s.name != record.name] + [record]
        elif isinstance(record, Grant):
            if record.receiver != self.id:
                raise Refused("another's grant")
            self.grants = [g for g in self.grants if g.id != record.id] + [record]
        elif isinstance(record, PartyRecord):
            self.origins = [p for p in self.origins if p.id != record.id]
            self.origins += [record] if record.roles else []
        else:
            if record.gateway_id != self.gateway_id:
                raise Refused("another gateway's broker")
            self.broker_record, self.broker = record, record.signing


RECORDS = {1: Scope, 2: Grant, 3: PartyRecord, 6: BrokerRecord}


# --- admission (PROTOCOL 6) ---------------------------------------------------------------------

def siphash24(key, data):
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
         k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, n):
        return (x << n | x >> (64 - n)) & mask

    def round_():
        v[0] = (v[0] + v[1]) & mask
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    end = len(data) - len(data) % 8
    words = [struct.unpack_from("<Q", data, i)[0] for i in range(0, end, 8)]
    words.append(int.from_bytes(data[end:], "little") | (len(data) & 255) << 56)
    for m in words:
        v[3] ^= m
        round_()
        round_()
        v[0] ^= m
    v[2] ^= 0xFF
    for _ in range(4):
        round_()
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


def admission_token(k_adm, client_id, user_name, slot):
    data = (client_id.encode().ljust(64, b"\0") + user_name.encode().ljust(48, b"\0")
            + struct.pack(">II", slot, 0))
    return b"\x01" + struct.pack(">I", slot) + siphash24(k_adm, data)


def user_name_of(r_c):
    return base64.urlsafe_b64encode(r_c).rstrip(b"=").decode()


# --- a party ------------------------------------------------------------------------------------

class Opened:
    """A delivery that a receiver has verified and opened."""

    def __init__(self, envelope, topic, plaintext):
        self.envelope, self.topic, self.plaintext = envelope, topic, plaintext
        self.origin, self.counter = envelope.origin, envelope.counter


class Party:
    """Keys and bundle, from a directory as ssdtf-pub and ssdtf-sub read it."""

    def __init__(self, folder, counter=0, zk=False, signing=None, manager=None):
        """zk: it answers challenges by SSDTF-ZK-1, as it was enrolled. signing, manager: keys that
        the caller has already; to read one takes longer than to make it."""
        def key(name):
            with open(os.path.join(folder, name), "rb") as f:
                return serialization.load_pem_private_key(f.read(), None)

        self.folder = folder
        if not manager:
            with open(os.path.join(folder, "manager.pub"), "rb") as f:
                manager = serialization.load_pem_public_key(f.read())
        self.manager = manager
        self.signing = signing or key("signing.pem")
        self.encryption = self.old_encryption = None
        if os.path.exists(os.path.join(folder, "encryption.pem")):
            self.encryption = key("encryption.pem")
        if os.path.exists(os.path.join(folder, "encryption.old.pem")):
            self.old_encryption = key("encryption.old.pem")
        self.zk = zk
        self.counter = counter
        self.contexts = {}
        self.load_bundle()

    def load_bundle(self):
        with open(os.path.join(self.folder, "bundle"), "rb") as f:
            self.bundle = Bundle(f.read(), self.manager)
        self.id = self.bundle.id
        self.take_broker()
        self.secrets = {}
        if self.bundle.signing != point_bytes(self.signing.public_key()):
            raise Refused("the bundle is another's")

    def take_broker(self):
        record = self.bundle.broker_record
        self.broker, self.broker_hash = point_parse(record.signing), sha256(record.signing)
        self.next_broker = point_parse(record.next[0]) if record.next else None

    def update(self, data):
        """Takes a statement of the manager's (PROTOCOL 13); as Bundle.take()."""
        record = self.bundle.take(data)
        if isinstance(record, Scope):
            self.contexts.pop(record.name, None)
        elif isinstance(record, BrokerRecord):
            self.take_broker()
        return record

    # sending

    def scope(self, name):
        return next(s for s in self.bundle.scopes if s.name == name)

    def context(self, name):
        if name not in self.contexts:
            s = self.scope(name)
            self.contexts[name] = Context(s.key_id, s.suite, s.key)
        return self.contexts[name]

    def seal(self, scope, topic, plaintext, counter=None, client_id=None):
        """A sealed payload without a trailer, under the next counter."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        if self.scope(scope).flags & Scope.PADDED:
            plaintext = pad(plaintext)
        return self.context(scope).seal(client_id or self.id, topic, plaintext, counter,
                                        int(time.time() * 1000))

    def signed(self, topic, body, qos, retain=False):
        return body + sign(self.signing, publish_input(first_byte(qos, retain), topic, body,
                                                       self.id)) + b"\x01"

    def sealed(self, scope, topic, plaintext, qos, retain=False, counter=None):
        """The whole payload of a PUBLISH."""
        return self.signed(topic, self.seal(scope, topic, plaintext, counter), qos, retain)

    # connecting

    def connect_params(self):
        """(R_c, User Name, Password)"""
        r_c = os.urandom(32)
        user_name = user_name_of(r_c)
        slot = 0 if self.bundle.admission_flags & 1 else int(time.time()) // 30
        return r_c, user_name, admission_token(self.bundle.k_adm, self.id, user_name, slot)

    def from_broker(self, topic, first, payload):
        """The body of what the broker signed for this party, by its key or by its next one."""
        body, trailer = split_trailer(payload)
        self.signed_by = self.broker
        try:
            verify_publish(self.broker, first, topic, body, trailer, self.id)
        except Refused:
            if not self.next_broker:
                raise
            verify_publish(self.next_broker, first, topic, body, trailer, self.id)
            self.signed_by = self.next_broker
        return body, trailer[-1]

    def answer(self, r_c, first, payload, level, flags, qos=0):
        """The payload of the response to a challenge, and R_b."""
        body, kind = self.from_broker(CHALLENGE, first, payload)
        if kind != 1 or len(body) != 66 or body[:32] != r_c or body[64:] != bytes([level, flags]):
            raise Refused("the challenge is not for this CONNECT")
        r_b, key_hash = body[32:64], self.broker_hash
        if self.signed_by is self.next_broker:
            key_hash = sha256(point_bytes(self.next_broker))
        body = r_b + r_c + key_hash
        return (self.proved(RESPONSE, body, qos) if self.zk
                else self.signed(RESPONSE, body, qos)), r_b

    def proved(self, topic, body, qos=0):
        """body with trailer 3 (PROTOCOL 16)."""
        return body + zk_prove(self.signing, publish_input(first_byte(qos, False), topic, body,
                                                           self.id)) + b"\x03"

    def result(self, r_b, first, payload):
        """The highest counter taken, as the result says."""
        body, kind = self.from_broker(RESULT, first, payload)
        if kind != 1 or len(body) != 41 or body[:33] != b"\0" + r_b:
            raise Refused("the result is not for this session")
        return int.from_bytes(body[33:], "big")

    # receiving

    def secret(self, grant):
        if grant.id not in self.secrets:
            key = next((k for k in (self.encryption, self.old_encryption)
                        if k and point_bytes(k.public_key()) == grant.b), None)
            if not key:
                raise Refused("the grant is another's")
            d = grant_secret(dh(key, point_parse(grant.x)), grant.id, grant.key_id, grant.x,
                             grant.b)
            self.secrets[grant.id] = ec.derive_private_key(d, CURVE)
        return self.secrets[grant.id]

    def open(self, topic, first, payload):
        body, _ = self.from_broker(topic, first, payload)
        e = Envelope(body)
        grant = next((g for g in self.bundle.grants if g.id == e.grant_id), None)
        if not grant or grant.key_id != e.key_id or e.level == 0:
            raise Refused("no grant for it")
        return Opened(e, topic, open_envelope(e, topic, self.secret(grant), grant.a,
                                              self.origin_keys(e, grant), grant.flags))

    def origin_keys(self, e, grant):
        """Those that may have signed its proof; none where the grant asks for none."""
        if not grant.flags & Grant.PROOF:
            return []
        record = next((p for p in self.bundle.origins if p.id == e.origin), None)
        if not record:
            raise Refused("its origin is not certified")
        keys = [point_parse(record.signing)]
        if record.previous and valid_at(0, record.previous[1], time.time() * 1000):
            keys.append(point_parse(record.previous[0]))
        return keys


def check_proof(e, topic, keys):
    if len(e.proof) < 3:
        raise Refused("no origin proof")
    first, n = e.proof[0], int.from_bytes(e.proof[1:3], "big")
    properties, trailer = e.proof[3:3 + n], e.proof[3 + n:]
    if len(properties) < n or first & 0xF0 != 0x30 or not trailer:
        raise Refused("malformed origin proof")
    for key in keys[:-1]:
        try:
            return verify_publish(key, first, topic, e.as_sent(), trailer, e.origin, properties)
        except Refused:
            pass
    return verify_publish(keys[-1], first, topic, e.as_sent(), trailer, e.origin, properties)


def open_envelope(e, topic, secret, scope_key, origin_keys=(), flags=0):
    """The plaintext of a converted envelope; origin_keys: its origin proof is required, by one."""
    if e.salt == bytes(16):
        if not flags & Grant.REPLACED:
            raise Refused("zero salt")
        if e.proof:
            raise Refused("a proof with a replaced id")
    else:
        if origin_keys:
            check_proof(e, topic, origin_keys)
        if not e.fits(e.origin, topic):
            raise Refused("bound to another id or topic")
    hpke = Hpke(e.suite, dh(secret, x_lift(e.x)), point_bytes(e.e), scope_key)
    if not hmac.compare_digest(hpke.commit, e.commit):
        raise Refused("commit does not fit")
    plaintext = hpke.open(e.seq, e.aad, e.ciphertext)
    return unpad(plaintext) if flags & Grant.PADDED else plaintext


# --- claims (PROTOCOL 15) -----------------------------------------------------------------------

class Claim:
    """A claim code, taken apart, or made: Claim.code(...)."""

    PREFIX = "SSDTF1:"

    def __init__(self, text):
        if not text.startswith(self.PREFIX):
            raise Refused("no claim code")
        text = text[len(self.PREFIX):]
        try:
            r = Reader(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        except ValueError as e:
            raise Refused("no claim code: %s" % e) from None
        if r.u(1) != 1:
            raise Refused("a claim code of another version")
        self.id, self.secret = r.text(), r.take(16)
        self.manager = point_parse(r.take(33))
        self.gateway_id, self.broker = r.text(), point_parse(r.take(33))
        if r.data:
            raise Refused("bytes behind the claim code")

    @classmethod
    def code(cls, party_id, secret, manager, gateway_id, broker):
        data = (b"\x01" + u8p(party_id.encode()) + secret + point_compress(manager)
                + u8p(gateway_id.encode()) + point_compress(broker))
        return cls.PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def signing(self):
        prk = hkdf_extract(b"", self.secret)
        w = hkdf_expand(prk, b"ssdtf-claim-sign-1" + self.id.encode(), 48)
        return ec.derive_private_key(1 + int.from_bytes(w, "big") % (ORDER - 1), CURVE)

    def k_adm(self):
        return hkdf_expand(hkdf_extract(b"", self.secret),
                           b"ssdtf-claim-admission-1" + self.id.encode(), 16)

    def request(self, new, answer, r_b):
        """What follows the topic, but R_b and n: the claim of the private key new."""
        key, to = point_bytes(new.public_key()), point_bytes(answer.public_key())
        signature = sign(new, b"ssdtf-claim-1" + u8p(self.id.encode()) + key + to + r_b)
        return b"\x01" + key + to + signature


class ClaimAnswer:
    """What the broker answers; bundle() opens what the manager certified."""

    CERTIFIED, REFUSED, TRY_AGAIN = 0, 1, 2

    def __init__(self, body):
        r = Reader(body)
        if r.u(1) != 4:
            raise Refused("no answer to a claim")
        self.result, self.text = r.u(1), r.take(r.u(2)).decode()
        self.enc, self.sealed = r.take(65), r.take(r.u(4))
        self.r_b, self.n = r.take(32), r.u(4)
        if r.data:
            raise Refused("bytes behind the answer")

    def bundle(self, answer):
        return hpke_from(answer, self.enc, b"ssdtf-claim-1").open(0, b"", self.sealed)


# --- vectors ------------------------------------------------------------------------------------

def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def check_grants(vectors):
    """Each grant's d and rk; the receivers' secrets and scope keys by grant id."""
    secrets = {}
    for g in vectors["grants"]:
        grant_id = bytes.fromhex(g["grant"])
        upstream = int(g.get("a", g.get("s1")), 16) if "d" in g else int(g["a"], 16)
        down = int(g["s1"], 16) if "d" not in g else int(g["d"], 16)
        if "d" in g:
            b = scalar_key(bytes.fromhex(g["b"]))
            d = grant_secret(dh(b, point_parse(bytes.fromhex(g["X"]))), grant_id, g["key_id"],
                             bytes.fromhex(g["X"]), bytes.fromhex(g["B"]))
            expect(d == down, "d: " + g["what"])
            secrets[grant_id] = ec.derive_private_key(d, CURVE), bytes.fromhex(g["A"])
        expect(upstream * pow(down, -1, ORDER) % ORDER == int(g["rk"], 16), "rk: " + g["what"])
    return secrets


def check_sealed(vectors, secrets):
    public = point_parse(bytes.fromhex(vectors["publish"]["public"]))
    for v in vectors["sealed"]:
        plaintext = bytes.fromhex(v["plaintext"])
        scope_key = next(bytes.fromhex(g["A"]) for g in vectors["grants"]
                         if g["key_id"] == v["key_id"])
        c = Context(v["key_id"], v["suite"], scope_key, bytes.fromhex(v["r"]),
                    bytes.fromhex(v["salt"]))
        c.seq = v["seq"]
        expect(c.seal(v["sender"], v["topic"], plaintext, v["counter"], v["time_ms"]).hex()
               == v["level0"], "seal")
        one = Envelope(bytes.fromhex(v["level1_receiver1"]))
        expect(one.as_sent().hex() == v["level0"], "as sent")
        expect(open_envelope(one, v["topic"], *secrets[one.grant_id],
                             [public] if one.proof else []) == plaintext, "open")
        two = Envelope(bytes.fromhex(v["level2_receiver2"]))
        expect(open_envelope(two, v["topic"], *secrets[two.grant_id], [],
                             Grant.REPLACED) == plaintext, "open behind a hop")
        check_converted(vectors, v, one, two)


def check_converted(vectors, v, one, two):
    rks = {g["grant"]: int(g["rk"], 16) for g in vectors["grants"]}
    hop = Envelope(bytes.fromhex(v["level1_hop"]))
    for e, origin in ((one, one.origin), (hop, hop.origin)):
        expect(convert(bytes.fromhex(v["level0"]), rks[e.grant_id.hex()], e.grant_id, origin,
                       e.proof) == e.raw, "convert")
    expect(convert(hop.raw, rks[two.grant_id.hex()], two.grant_id, two.origin, b"", True)
           == two.raw, "convert behind a hop")


def check_padding():
    for n, size in ((0, 0), (1, 32), (31, 32), (32, 64), (63, 64), (65535, 65536),
                    (65536, 131072), (131071, 131072), (131072, 196608)):
        expect(len(pad(b"x" * n)) == size and unpad(pad(b"\0" * n)) == b"\0" * n, "padding")


def check_publish(vectors):
    public = point_parse(bytes.fromhex(vectors["publish"]["public"]))
    for v in vectors["publish"]["cases"]:
        body, trailer = split_trailer(bytes.fromhex(v["payload"]))
        data = publish_input(first_byte(v["qos"], v["retain"]), v["topic"], body, v["client_id"],
                             bytes.fromhex(v["properties"]))
        expect(data.hex() == v["input"] and body.hex() == v["body"], "publish input")
        verify(public, data, trailer[:64])
    for v in vectors["batch"]:
        for leaf, index, trailer in zip(v["inputs"], v["picked"], v["trailers"]):
            trailer = bytes.fromhex(trailer)
            expect(split_trailer(trailer) == (b"", trailer), "length of a trailer 2")
            root = merkle_root(bytes.fromhex(leaf), index, v["size"], trailer[64:-5])
            expect(root.hex() == v["root"], "Merkle root")
            verify(point_parse(bytes.fromhex(v["public"])), b"ssdtf-batch-1" + root, trailer[:64])


def check_rejects(vectors):
    for v in vectors["reject"]:
        try:
            if "sealed" in v:
                e = Envelope(bytes.fromhex(v["sealed"]))
                if "sender" in v and not e.fits(v["sender"], v["topic"]):
                    continue
            elif "x" in v:
                x_lift(bytes.fromhex(v["x"]))
            else:
                point_parse(bytes.fromhex(v["point"]))
        except Refused:
            continue
        raise AssertionError("accepted: " + v["what"])


def self_check(file):
    """Puts all of the above to the vectors of a core.json."""
    with open(file, encoding="utf-8") as f:
        vectors = json.load(f)
    check_sealed(vectors, check_grants(vectors))
    check_publish(vectors)
    check_padding()
    for v in vectors["admission"]:
        expect(user_name_of(bytes.fromhex(v["r_c"])) == v["user_name"], "User Name")
        expect(admission_token(bytes.fromhex(v["key"]), v["client_id"], v["user_name"],
                               v["slot"]).hex() == v["token"], "admission token")
    check_rejects(vectors)
