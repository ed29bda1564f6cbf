# SPDX-License-Identifier: MIT
"""A manager and a broker in Python, for what real ones would not do: they answer late, wrong, or in
another's name. Written from docs/PROTOCOL.md with ssdtf.py.

    fake.Manager    a key, and what it signs: statements, a party's bundle
    fake.Broker     listens, authenticates with who connects, and hands each message that comes
                    afterwards to the test
"""

import os
import socket
import struct
import threading

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import mqtt
import ssdtf
import tap

FOR_EVER = struct.pack(">QQ", 0, 0)  # not before, not after


def key():
    return ec.generate_private_key(ssdtf.CURVE)


def point(private):
    return ssdtf.point_bytes(private.public_key())


def pem(private):
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())


def public_pem(private):
    return private.public_key().public_bytes(serialization.Encoding.PEM,
                                             serialization.PublicFormat.SubjectPublicKeyInfo)


def many(records, count=">H"):
    return struct.pack(count, len(records)) + b"".join(records)


def scope(key_id, epoch, name, public, filters, suite=1, flags=0):
    return (struct.pack(">II", key_id, epoch) + ssdtf.u8p(name.encode())
            + struct.pack(">BB", suite, flags) + FOR_EVER + public + struct.pack(">II", 0, 0)
            + many([ssdtf.u16p(f.encode()) for f in filters]) + many([]))


def party(party_id, public, roles=1, flags=0, scopes=()):
    return (ssdtf.u8p(party_id.encode()) + struct.pack(">BB", roles, flags) + public + b"\0\0"
            + many([ssdtf.u8p(s.encode()) for s in scopes]))


class Grant:
    """A conversion key for a receiver: .record, .id, and .rk as ssdtf.convert() takes it."""

    def __init__(self, key_id, scope_key, receiver, reader, filters, flags=1, scope_name="plant"):
        """scope_key: private; reader: the receiver's public encryption key."""
        self.id, x = os.urandom(8), key()
        d = ssdtf.grant_secret(ssdtf.dh(x, reader), self.id, key_id, point(x),
                               ssdtf.point_bytes(reader))
        a = scope_key.private_numbers().private_value
        self.rk = a * pow(d, -1, ssdtf.ORDER) % ssdtf.ORDER
        self.record = (self.id + bytes(8) + struct.pack(">IB", key_id, flags) + b"\0"
                       + ssdtf.u8p(receiver.encode()) + point(scope_key)
                       + ssdtf.point_bytes(reader) + point(x) + FOR_EVER
                       + ssdtf.u8p(scope_name.encode())
                       + many([ssdtf.u16p(f.encode()) for f in filters]))


def broker_record(gateway_id, public, following=None):
    """following: the next key's point."""
    return (ssdtf.u8p(gateway_id.encode()) + public
            + (b"\1" + following + struct.pack(">Q", 0) if following else b"\0"))


class Manager:
    def __init__(self):
        self.key, self.serial = key(), 0

    def statement(self, kind, body, serial=None):
        if serial is None:
            self.serial += 1
            serial = self.serial
        head = (b"\x5d\x7e\x01" + struct.pack(">BQ", kind, serial) + FOR_EVER + ssdtf.u32p(body))
        return head + ssdtf.sign(self.key, ssdtf.LABELS[kind] + head)

    def bundle(self, party_id, signing, broker, k_adm, scopes=(), grants=(), origins=(),
               serial=None):
        """broker: its record; the others are records, too."""
        body = (ssdtf.u8p(party_id.encode()) + signing + broker + b"\0" + k_adm
                + b"".join(many([ssdtf.u32p(r) for r in records])
                           for records in (scopes, grants, origins)))
        return self.statement(5, body, serial)


class Session(mqtt.Connection):
    """The broker's side of a connection; party: (its public key, by which it must sign)."""

    def __init__(self, broker, connected):
        self.socket, self.got, self.broker = connected, b"", broker
        self.packet_id, self.n = 0, {}

    def authenticate(self):
        p = self.expect(mqtt.CONNECT)
        r = ssdtf.Reader(p.body)
        tap.equal(r.take(r.u(2)), b"MQTT", "protocol name")
        level, flags = r.u(1), r.u(1)
        r.take(2)
        self.id, user = r.take(r.u(2)).decode(), r.take(r.u(2)).decode()
        self.token = r.take(r.u(2))
        self.public = self.broker.public_of(self.id)
        r_c, self.r_b = ssdtf.base64.urlsafe_b64decode(user + "="), os.urandom(32)
        self.send(mqtt.packet(mqtt.CONNACK, 0, b"\0\0"))
        self.say(ssdtf.CHALLENGE, r_c + self.r_b + bytes([level, flags]))
        p = self.expect(mqtt.PUBLISH)
        tap.equal(p.topic, ssdtf.RESPONSE, "topic of the response")
        tap.equal(self.take_signed(p), self.r_b + r_c + ssdtf.sha256(point(self.broker.key)),
                  "response")
        self.say(ssdtf.RESULT, b"\0" + self.r_b + struct.pack(">Q", 0))

    def take_signed(self, p):
        """The body of what the party sent, its signature checked."""
        body, trailer = ssdtf.split_trailer(p.payload)
        ssdtf.verify_publish(self.public, p.first, p.topic, body, trailer, self.id)
        return body

    def say(self, topic, body, qos=0, signer=None):
        data = ssdtf.publish_input(ssdtf.first_byte(qos, False), topic, body, self.id)
        payload = body + ssdtf.sign(signer or self.broker.key, data) + b"\1"
        self.packet_id += 1
        self.send(mqtt.publish(topic, payload, qos, False, self.packet_id if qos else None))

    def say_update(self, *statements):
        self.say_counted(ssdtf.UPDATE, many([ssdtf.u32p(s) for s in statements]))

    def say_error(self, reason, counter):
        self.say_counted(ssdtf.ERROR, struct.pack(">BQH", reason, counter, 0))

    def say_counted(self, topic, body):
        """The same with R_b and the next number of this topic."""
        self.n[topic] = self.n.get(topic, 0) + 1
        self.say(topic, body + self.r_b + struct.pack(">I", self.n[topic]))


class Broker:
    """
    public_of(id) gives a party's key; on_message(session, packet) is called for each PUBLISH behind
    authentication, on_open(session) before. What goes wrong in there is in failures.
    """

    def __init__(self, public_of, on_message, on_open=None):
        self.key, self.public_of = key(), public_of
        self.on_message, self.on_open, self.on_subscribed = on_message, on_open, None
        self.failures, self.sessions, self.at_work = [], 0, False
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                connected, _ = self.socket.accept()
            except OSError:
                return
            try:
                with Session(self, connected) as s:
                    self.at_work = True
                    self.serve(s)
            except (mqtt.Closed, BrokenPipeError):
                pass
            except Exception as e:  # whatever it is, the test is to know
                self.failures.append(repr(e))
            self.at_work = False

    def idle(self):
        """Nobody is connected."""
        return not self.at_work

    def serve(self, s):
        s.authenticate()
        self.sessions += 1
        if self.on_open:
            self.on_open(s)
        while True:
            p = s.receive(600)
            if p.type == mqtt.PUBLISH:
                self.on_message(s, p)
                if p.qos:
                    s.send(mqtt.puback(p.packet_id))
            elif p.type == mqtt.SUBSCRIBE:
                s.send(mqtt.packet(mqtt.SUBACK, 0, p.body[:2] + b"\1"))
                if self.on_subscribed:
                    self.on_subscribed(s)
            elif p.type == mqtt.PINGREQ:
                s.send(mqtt.packet(mqtt.PINGRESP))
            elif p.type == mqtt.DISCONNECT:
                return

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.socket.close()
        tap.equal(self.failures, [], "what the broker ran into")
