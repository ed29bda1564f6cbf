#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""A scope's key is rotated while 1,000 devices publish under it (PROTOCOL 13).

The devices are the tests' own implementation, in one event loop. Each has WINDOW messages on their
way at any time, and seals to the new key once it has the manager's statement. Two ssdtf-sub read
all of them, and are told of their new grants by the broker alone. Nothing that was acknowledged may
be missing at either, come twice or out of its sender's order."""

import json
import os
import resource
import selectors
import tempfile
import threading
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import gateway
import mqtt
import ssdtf
import tap
from clients import OK, Sub

DEVICES = tap.rounds(1000)
LATE = tap.rounds(100)  # more, that are away while the key is rotated
WINDOW = 2  # messages of one device that are not acknowledged
BOTH_SIDES = 2  # messages of each that are acknowledged before the rotation begins, and after it
AT_ONCE = 50  # that authenticate at the same time
READERS = {"rx-proven": "verified", "rx-plain": "absent"}  # what they say of the origin proof

g = manager = None  # the gateway; the manager's public key
fleet = late = None
readers = []


def setup():
    global g, manager, fleet, late
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # a socket for each device
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if os.access("/dev/shm", os.W_OK):
        tempfile.tempdir = "/dev/shm"  # thousands of small files, and what syncs them
    g = gateway.Gateway()
    manager = serialization.load_pem_public_key(gateway.read(g.manager.public))
    g.scope("plant", "plant/#")
    g.scope("brief", "brief/#")
    fleet = Fleet(["dev-%04d" % i for i in range(DEVICES)], "plant")
    late = Fleet(["late-%03d" % i for i in range(LATE)], "plant;brief")
    for name, proof in READERS.items():
        g.receiver(name, "plant", "brief", proof=proof == "verified")
    g.start()
    tap.after_each(g.mend)


def enrol(names, scopes):
    """By one file, with public keys that the devices made themselves; their private keys."""
    keys, rows = [ec.generate_private_key(ssdtf.CURVE) for _ in names], ["id,scopes,clock,keys"]
    for name, key in zip(names, keys):
        os.mkdir(g.path(name), 0o700)
        public = os.path.join(g.path(name), "public.pem")
        gateway.write(public, key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        rows.append("%s,%s,yes,%s" % (name, scopes, public))
    file = os.path.join(g.base, "devices.csv")
    gateway.write(file, "\n".join(rows) + "\n")
    said = g.manager.admin("enrol", "csv", "--gateway", g.id, "--out-dir", g.base, file)
    tap.true("enrolled=%d " % len(names) in said, said)
    g.ids += names
    return keys


def rotate(scope, overlap_hours):
    """A new key for a scope. The gateway has it in a file of its own, and nobody else has: all
    others learn it from the broker. When the broker was told."""
    g.manager.admin("rotate", "scope", "--name", scope, "--overlap-hours", str(overlap_hours))
    fresh = os.path.join(g.base, "fresh.bundle")
    g.manager.admin("bundle", "gateway", "--id", g.id, "--out", fresh)
    os.rename(fresh, g.bundle)
    told = time.monotonic()
    line = g.reload()
    tap.true("event=bundle" in line, "the bundle was taken: " + line)
    return told


class Rotation(threading.Thread):
    """rotate() beside the devices' loop."""

    def __init__(self, *args):
        super().__init__(daemon=True)
        self.args, self.told, self.trouble = args, None, None
        self.start()

    def run(self):
        try:
            self.told = rotate(*self.args)
        except Exception as e:
            self.trouble = e

    def done(self):
        if self.trouble:
            raise self.trouble
        return self.told is not None


# --- devices ------------------------------------------------------------------------------------

class Device(mqtt.Session):
    """A sender that asks for updates, and seals to the newest key that it has."""

    def __init__(self, party):
        super().__init__(g.address, party, authenticate=False)
        self.scope = "plant"
        self.sent = []  # scope and key id of each message; message i says i
        self.switched = None  # when its last statement came
        self.before = 0  # how many it had sent then

    def key_id(self):
        return self.party.scope(self.scope).key_id

    def take_update(self, p):
        super().take_update(p)
        self.switched, self.before = time.monotonic(), len(self.sent)

    def came(self):
        """Takes what is there to be read."""
        self.socket.settimeout(0)
        try:
            more = self.socket.recv(65536)
        except BlockingIOError:
            return
        if not more:
            raise mqtt.Closed()
        self.got += more
        while True:
            p = self.take()
            if not p:
                return
            self.sort(p)

    def say(self):
        """The next message."""
        topic = "%s/%s" % (self.scope, self.party.id)
        self.seal_and_publish(self.scope, topic, b"%d" % len(self.sent))
        self.sent.append((self.scope, self.party.contexts[self.scope].key_id))

    def waits(self):
        return len(self.sent) - len(self.acked)

    def acked_after(self):
        """Messages that were sealed after its last statement came, and acknowledged."""
        return max(0, len(self.acked) - self.before)


class Fleet:
    def __init__(self, names, scopes):
        self.names, self.keys, self.devices = names, enrol(names, scopes), []
        self.selector = selectors.DefaultSelector()

    def party(self, i):
        return ssdtf.Party(g.path(self.names[i]), signing=self.keys[i], manager=manager)

    def connect(self):
        """All of them, some at a time; each asks for what is newer than its bundle."""
        for at in range(0, len(self.names), AT_ONCE):
            some = [Device(self.party(i)) for i in range(at, min(at + AT_ONCE, len(self.names)))]
            self.devices += some
            for step in (lambda d: d.send_connect(), lambda d: d.take_connack(),
                         lambda d: d.answer(d.take_challenge()), lambda d: d.take_result(),
                         lambda d: d.ask_updates()):
                for d in some:
                    step(d)
        for d in self.devices:
            self.selector.register(d.socket, selectors.EVENT_READ, d)

    def run(self, until, what, saying=True, seconds=60):
        """Messages, round and round, or only what comes; until until()."""
        end = time.monotonic() + seconds * tap.SCALE
        while not until():
            tap.true(time.monotonic() < end, "not within the time: " + what)
            if saying:
                for d in self.devices:
                    while d.waits() < WINDOW:
                        d.say()
            for key, _ in self.selector.select(0.05):
                key.data.came()

    def each(self, condition):
        return all(map(condition, self.devices))

    def finish(self):
        self.run(lambda: self.each(lambda d: not d.waits()), "all is acknowledged", saying=False)

    def messages(self):
        return sum(len(d.sent) for d in self.devices)


# --- receivers ----------------------------------------------------------------------------------

class Reader(Sub):
    of_test = False  # it goes on through all tests

    def __init__(self, name, proof):
        self.proof = proof
        super().__init__(g, name, "plant/#", "brief/#",
                         more=["-c", "--origins", str(2 * (DEVICES + LATE))])

    def count(self):
        return gateway.read(self.out).count(b"\n")

    def by_sender(self):
        """Messages, in their order."""
        out = {}
        with open(self.out, encoding="utf-8") as f:
            for m in map(json.loads, f):
                out.setdefault(m["origin"], []).append(m)
        return out


def check_received(devices):
    """What every reader has: each message once, in order, under the key it was sealed to."""
    total = sum(len(d.sent) for d in devices)
    for r in readers:
        tap.eventually(lambda: r.count() >= total, "%s has all of %d messages" % (r.name, total),
                       60)
        got = r.by_sender()
        tap.equal(sorted(got), sorted(d.party.id for d in devices), "senders at " + r.name)
        for d in devices:
            tap.equal([(m["topic"], m["payload"], m["key_id"]) for m in got[d.party.id]],
                      [("%s/%s" % (scope, d.party.id), "%d" % i, key_id)
                       for i, (scope, key_id) in enumerate(d.sent)],
                      "messages of %s at %s" % (d.party.id, r.name))
        messages = [m for of_one in got.values() for m in of_one]
        tap.equal(len({(m["key_id"], m["grant"]) for m in messages}),
                  len({what for d in devices for what in d.sent}), "grants, one a key id")
        tap.equal([t for t in r.text().splitlines() if " debug: " not in t], [],
                  "complaints of " + r.name)
        tap.equal({m["proof"] for m in messages}, {r.proof}, "proofs at " + r.name)


# --- tests --------------------------------------------------------------------------------------

@tap.test
def under_load():
    "rotate scope while all devices publish: each switches by itself, and nothing is lost"
    readers.extend(Reader(name, proof) for name, proof in READERS.items())
    started = time.monotonic()
    fleet.connect()
    connected = time.monotonic()
    fleet.run(lambda: fleet.each(lambda d: len(d.acked) >= BOTH_SIDES), "load")
    old = ("plant", fleet.devices[0].key_id())
    rotation = Rotation("plant", 1)
    fleet.run(lambda: rotation.done() and fleet.each(lambda d: d.switched), "all have switched")
    last = max(d.switched for d in fleet.devices)
    fleet.run(lambda: fleet.each(lambda d: d.acked_after() >= BOTH_SIDES), "and have gone on")
    fleet.finish()
    took = time.monotonic() - connected
    new = ("plant", fleet.devices[0].key_id())
    tap.true(new != old, "a new key id")
    tap.note("%d devices authenticated within %.1f s" % (len(fleet.devices), connected - started))
    tap.note("%d messages within %.1f s, %d of them sealed to the new key" % (
        fleet.messages(), took, sum(d.sent.count(new) for d in fleet.devices)))
    tap.note("%.2f s from SIGHUP until the last device had switched" % (last - rotation.told))
    for d in fleet.devices:
        tap.equal([e.reason for e in d.errors], [], "$SSDTF/error to " + d.party.id)
        tap.equal([(type(r), r.name, r.key_id) for r in d.records], [(ssdtf.Scope, *new)],
                  "what the broker told " + d.party.id)
        tap.equal(d.sent, [old] * d.before + [new] * (len(d.sent) - d.before), "key ids")
        tap.true(d.before >= BOTH_SIDES, "messages under the old key")
    check_received(fleet.devices)
    for r in readers:
        r.wait_text(r"update: grant plant key-id=%d\b" % new[1])


@tap.test
def absent():
    "devices that were away meanwhile have the new key before their first message"
    late.connect()
    late.run(lambda: late.each(lambda d: d.switched), "all have switched", saying=False)
    late.run(lambda: late.each(lambda d: len(d.acked) >= BOTH_SIDES), "and publish")
    late.finish()
    for d in late.devices:
        tap.equal([e.reason for e in d.errors], [], "$SSDTF/error to " + d.party.id)
        tap.equal(set(d.sent), {fleet.devices[0].sent[-1]}, "key ids")
    check_received(fleet.devices + late.devices)


@tap.test
def overlap_is_over():
    "an old key is refused with reason 4 from then on; the same text under the new one is not"
    for d in late.devices:
        d.scope = "brief"
        d.say()
    late.finish()
    old = late.devices[0].key_id()
    rotate("brief", 0)
    for d in late.devices:
        d.say()  # the statement lies in its socket, not read
        tap.equal(d.sent.pop(), ("brief", old), "key id")
    late.run(lambda: late.each(lambda d: len(d.acked) > len(d.sent) and d.key_id() != old),
             "answers, and the new key", saying=False)
    for d in late.devices:
        tap.equal([(e.reason, e.counter) for e in d.errors], [(ssdtf.NO_KEY_ID, d.party.counter)],
                  "$SSDTF/error to " + d.party.id)
        d.acked.pop()
        d.say()
    late.finish()
    for d in late.devices:
        tap.equal(len(d.errors), 1, "$SSDTF/error to " + d.party.id)
    check_received(fleet.devices + late.devices)
    for r in readers:
        r.wait_text(r"update: grant brief key-id=%d\b" % late.devices[0].key_id())
        tap.equal(r.stop(), OK, "exit code of " + r.name)


under_load.seconds = 240
tap.full_effort_only("1,000 devices")
tap.main(setup)
