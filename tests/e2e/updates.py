#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtf-pub and ssdtf-sub where the manager states something anew (PROTOCOL 13), against a broker
in Python that says when, and one that lies: what they switch to, keep, ask for, and refuse."""

import json
import os
import random
import struct
import subprocess
import time

import fake
import gateway
import mqtt
import ssdtf
import tap

OK, DATAERR, TEMPFAIL, PROTOCOL = 0, 65, 75, 76
TOPIC = "plant/7/temp"


class Place:
    """A manager, a broker, dev-1 that publishes under the scope plant, and rx-1 that reads it."""

    def __init__(self):
        self.manager = fake.Manager()
        self.broker = fake.Broker(lambda party: self.keys[party].public_key(), self.on_message)
        self.keys = {"dev-1": fake.key(), "rx-1": fake.key()}
        self.reader = fake.key()
        self.scope_keys = [fake.key(), fake.key(), fake.key()]
        self.grant = self.new_grant(0)
        self.asked, self.published, self.nacks, self.reports = [], [], [], []
        self.on_published = lambda session, e: None
        self.base = gateway.folder()
        for party in self.keys:
            self.write_party(party)

    def record(self, epoch):
        """The scope's in that epoch, 0 and on."""
        return fake.scope(7 + epoch, 1 + epoch, "plant", fake.point(self.scope_keys[epoch]),
                          ["plant/#"])

    def new_grant(self, epoch):
        return fake.Grant(7 + epoch, self.scope_keys[epoch], "rx-1", self.reader.public_key(),
                          ["plant/#"])

    def origin(self, **other):
        fields = {"party_id": "dev-1", "public": fake.point(self.keys["dev-1"]),
                  "scopes": ["plant"]}
        return fake.party(**{**fields, **other})

    def broker_record(self, following=None):
        return fake.broker_record("gw-1", fake.point(self.broker.key), following)

    def write_party(self, party):
        path = os.path.join(self.base, party)
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
        reads = party == "rx-1"
        self.put(party, "signing.pem", fake.pem(self.keys[party]))
        self.put(party, "manager.pub", fake.public_pem(self.manager.key))
        if reads:
            self.put(party, "encryption.pem", fake.pem(self.reader))
        self.put(party, "bundle", self.manager.bundle(
            party, fake.point(self.keys[party]), self.broker_record(), bytes(16),
            scopes=[] if reads else [self.record(0)],
            grants=[self.grant.record] if reads else [],
            origins=[self.origin()] if reads else []))

    def put(self, party, name, data):
        gateway.write(os.path.join(self.base, party, name), data)

    def path(self, party, name=""):
        return os.path.join(self.base, party, name)

    # what comes to the broker

    def on_message(self, session, p):
        body = session.take_signed(p)
        if p.topic == ssdtf.UPDATE:
            r = ssdtf.Reader(body)
            self.asked.append((session, r.u(8)))
            tap.equal(r.take(32), session.r_b, "R_b")
        elif p.topic in (ssdtf.NACK, ssdtf.REPORT):
            (self.nacks if p.topic == ssdtf.NACK else self.reports).append(body)
        else:
            tap.equal(p.topic, TOPIC, "topic")
            e = ssdtf.Envelope(body)
            self.published.append((e, p, ssdtf.split_trailer(p.payload)[1]))
            self.on_published(session, e)

    def wait_asked(self, n=1):
        """The session and serial of the nth that asked."""
        tap.eventually(lambda: len(self.asked) >= n, "somebody asks for updates")
        return self.asked[n - 1]

    # programs

    def args(self, name, party, *more):
        host, port = self.broker.address
        return [gateway.program(name), "--dir", self.path(party), "-h", host, "-p", str(port), "-q",
                "1", "-t", TOPIC, *more]

    def pub(self, *more):
        return gateway.run(self.args("pub", "dev-1", "-m", "21.5", *more))

    def start_sub(self):
        return Sub(self)

    # what the broker delivers

    def deliver(self, session, n, grant, proof=None, body=None):
        """The nth message that was published, as it is or with another proof or body."""
        e, p, trailer = self.published[n]
        proof = ssdtf.proof_of(p.first, trailer) if proof is None else proof
        session.say(p.topic, ssdtf.convert(body or e.raw, grant.rk, grant.id, "dev-1", proof), 1)

    def close(self):
        self.broker.close()


class Sub(gateway.Process):
    of_test = True

    def __init__(self, place):
        self.out = os.path.join(place.base, "out")
        with open(self.out, "ab") as f:
            super().__init__("sub", place.args("sub", "rx-1", "--json", "-d"), stdout=f)

    def texts(self):
        with open(self.out, encoding="utf-8") as f:
            return [json.loads(line)["payload"] for line in f.read().split("\n")[:-1]]

    def wait_texts(self, *texts):
        tap.eventually(lambda: self.texts() == list(texts), "%r is printed" % (texts,))


def key_ids(place):
    return [e.key_id for e, _, _ in place.published]


# --- senders ------------------------------------------------------------------------------------

@tap.test
def refused_for_its_key():
    "a message refused for its key id is sealed anew once the newer key comes, with a new counter"
    place = Place()

    def refuse(session, e):
        if e.key_id == 7:
            session.say_error(ssdtf.NO_KEY_ID, e.counter)
    place.on_published = refuse
    was = place.broker.on_message

    def answer(session, p):
        was(session, p)
        if p.topic == ssdtf.UPDATE and len(place.asked) == 2:  # asked again, behind the error
            session.say_update(place.manager.statement(1, place.record(1)))
    place.broker.on_message = answer
    r = place.pub("-d")
    tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
    tap.equal(key_ids(place), [7, 8], "key ids")
    first, second = (e for e, _, _ in place.published)
    tap.true(second.counter > first.counter and second.enc != first.enc, "sealed anew")
    tap.equal([serial for _, serial in place.asked], [1, 1], "serials asked with")
    tap.true("waits for a newer key" in r.stderr and "update: scope plant key-id=8" in r.stderr,
             r.stderr)
    # The next run begins with the newer key, and knows what it has.
    place.on_published = lambda session, e: None
    place.broker.on_message = was
    r = place.pub()
    tap.equal((r.returncode, r.stderr), (OK, ""), "exit code, words")
    tap.equal(key_ids(place), [7, 8, 8], "key ids")
    tap.equal(place.asked[-1][1], place.manager.serial, "serial asked with")
    place.close()


@tap.test
def no_newer_key():
    "where none comes the message is not forgotten: the exit code says so"
    place = Place()
    place.on_published = lambda session, e: session.say_error(ssdtf.NO_KEY_ID, e.counter)
    r = place.pub("-W", "1")
    tap.equal(r.returncode, TEMPFAIL, "exit code (%s)" % r.stderr)
    tap.true("1 message unacknowledged" in r.stderr, r.stderr)
    place.close()


@tap.test
def switched_under_way():
    "a sender that runs seals to the new key from the next line on, epoch by epoch, without a word"
    place = Place()
    p = gateway.Process("pub", place.args("pub", "dev-1", "-l"), stdin=subprocess.PIPE)

    def line(text, n):
        p.popen.stdin.write(text + b"\n")
        p.popen.stdin.flush()
        tap.eventually(lambda: len(place.published) == n, "message %d" % n)

    line(b"one", 1)
    session, _ = place.wait_asked()
    for epoch in (1, 2):
        session.say_update(place.manager.statement(1, place.record(epoch)))
        path = place.path("dev-1", "statements")
        tap.eventually(lambda: os.path.exists(path) and struct.pack(">II", 7 + epoch, 1 + epoch)
                       in gateway.read(path), "it is kept")
        tap.equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the file")
        line(b"more", 1 + epoch)
    tap.equal(key_ids(place), [7, 8, 9], "key ids")
    # An older one, and another manager's, change nothing.
    session.say_update(place.manager.statement(1, place.record(0), serial=2))
    session.say_update(fake.Manager().statement(1, place.record(1), serial=99))
    line(b"still", 4)
    tap.equal(key_ids(place)[-1], 9, "key id")
    p.popen.stdin.close()
    tap.equal(p.wait(), OK, "exit code")
    tap.true("was not taken" in p.text(), "the stranger's is complained of")
    place.close()


@tap.test
def kept_file():
    "a torn end of the file is cut off and comes again; other damage is refused in one line"
    place = Place()
    was = place.broker.on_message

    def answer(session, p):
        was(session, p)
        if p.topic == ssdtf.UPDATE:
            session.say_update(*[place.manager.statement(1, place.record(i), 10 + i)
                                 for i in (1, 2)])
    place.broker.on_message = answer
    place.on_published = lambda session, e: None
    p = gateway.Process("pub", place.args("pub", "dev-1", "-l"), stdin=subprocess.PIPE)
    file = place.path("dev-1", "statements")
    tap.eventually(lambda: os.path.exists(file) and struct.pack(">II", 9, 3) in gateway.read(file),
                   "both are kept")
    p.popen.stdin.close()
    tap.equal(p.wait(), OK, "exit code")
    place.broker.on_message = was
    whole = gateway.read(file)
    gateway.write(file, whole[:-30])
    r = place.pub()
    tap.equal(r.returncode, OK, "exit code")
    tap.true("is cut short" in r.stderr, r.stderr)
    tap.equal((key_ids(place)[-1], place.asked[-1][1]), (8, 11), "key id, serial asked with")
    bent = bytearray(whole)
    bent[60] ^= 1
    gateway.write(file, bytes(bent))
    r = place.pub()
    tap.equal((r.returncode, r.stderr.count("\n")), (DATAERR, 1), "exit code, lines")
    tap.true("statements is damaged" in r.stderr, r.stderr)
    gateway.write(file, whole)
    tap.equal(place.pub().returncode, OK, "exit code")
    tap.equal(key_ids(place)[-1], 9, "key id")
    place.close()


@tap.test
def killed():
    "kill -9 at any moment of updates: started again, it never seals to an older key than before"
    place = Place()
    epoch = 10

    def state(session):
        nonlocal epoch
        epoch += 1
        record = fake.scope(epoch, epoch, "plant", fake.point(place.scope_keys[1]), ["plant/#"])
        session.say_update(place.manager.statement(1, record))

    for i in range(tap.rounds(12)):
        before, asked = len(place.published), len(place.asked)
        p = gateway.Process("pub", place.args("pub", "dev-1", "-l"), stdin=subprocess.PIPE)
        session, _ = place.wait_asked(asked + 1)
        end = time.monotonic() + random.random() / 20
        try:
            while time.monotonic() < end or i % 4 == 0 and len(place.published) == before:
                state(session)
                p.popen.stdin.write(b"line\n")
                p.popen.stdin.flush()
                time.sleep(0.003)
        finally:
            p.kill()
        tap.eventually(lambda: place.broker.idle(), "the connection is gone")
        r = place.pub()
        tap.equal(r.returncode, OK, "exit code (%s)" % r.stderr)
        ids = key_ids(place)
        tap.equal(ids, sorted(ids), "key ids only grow")
        tap.true(place.asked[-1][1] <= place.manager.serial, "it has no more than was stated")
    tap.true(key_ids(place)[-1] > 10, "some were taken")
    place.close()


@tap.test
def brokers_next_key():
    "the broker's next key is believed once it was stated, by it alone in the end, over restarts"
    place = Place()
    old, new = place.broker.key, fake.key()
    was = place.broker.on_message

    def state(*statements):
        def answer(session, p):
            was(session, p)
            if p.topic == ssdtf.UPDATE:
                session.say_update(*statements)
        place.broker.on_message = answer

    state(place.manager.statement(6, place.broker_record(fake.point(new))))
    tap.equal(place.pub().returncode, OK, "with the current key")
    place.broker.key = new
    tap.equal(place.pub().returncode, OK, "with the next key")
    state(place.manager.statement(6, place.broker_record()))
    tap.equal(place.pub().returncode, OK, "exit code")
    place.broker.key = old
    r = place.pub()
    tap.equal(r.returncode, PROTOCOL, "with the old one (%s)" % r.stderr)
    place.broker.failures.clear()  # it was left in the middle of a handshake
    place.close()


# --- receivers ----------------------------------------------------------------------------------

@tap.test
def grants_come():
    "a receiver that runs gets the new epoch's grant, and opens by the old and the new one"
    place = Place()
    tap.equal(place.pub().returncode, OK, "exit code")
    sub = place.start_sub()
    session, _ = place.wait_asked(2)
    sub.wait_text(r"\bsubscribed$")
    place.deliver(session, 0, place.grant)
    sub.wait_texts("21.5")
    grant = place.new_grant(1)
    session.say_update(place.manager.statement(2, grant.record))
    sub.wait_text("update: grant plant key-id=8")
    key = ssdtf.Context(8, 1, fake.point(place.scope_keys[1]))
    body = key.seal("dev-1", TOPIC, b"by the new one", 50)
    place.published.append((ssdtf.Envelope(body), *signed_by(place.keys["dev-1"], body)))
    place.deliver(session, 1, grant)
    sub.wait_texts("21.5", "by the new one")
    tap.equal(sub.stop(), OK, "exit code")
    tap.true(os.path.getsize(place.path("rx-1", "statements")) > 300, "the grant is kept")
    place.close()


def signed_by(key, body):
    """The packet and trailer of a PUBLISH by dev-1's key, or somebody's."""
    data = ssdtf.publish_input(ssdtf.first_byte(1, False), TOPIC, body, "dev-1")
    trailer = ssdtf.sign(key, data) + b"\1"
    packet = mqtt.publish(TOPIC, body + trailer, 1, False, 1)
    return mqtt.Packet(packet[0], b"\0\x0c" + TOPIC.encode() + b"\0\1" + body + trailer), trailer


def batched(key, body):
    """The origin proof that a batch of two by this key gives the body."""
    data = ssdtf.publish_input(ssdtf.first_byte(1, False), TOPIC, body, "dev-1")
    sibling = os.urandom(32)
    root = ssdtf.sha256(b"\1", ssdtf.sha256(b"\0", data), sibling)
    trailer = ssdtf.sign(key, b"ssdtf-batch-1" + root) + sibling + struct.pack(">HHB", 0, 2, 2)
    return ssdtf.proof_of(ssdtf.first_byte(1, False), trailer)


@tap.test
def a_broker_that_lies():
    "what the broker makes up in a sender's name is not printed, whatever it signs it with"
    place = Place()
    tap.equal(place.pub().returncode, OK, "exit code")
    sub = place.start_sub()
    session, _ = place.wait_asked(2)
    sub.wait_text(r"\bsubscribed$")
    context = ssdtf.Context(7, 1, fake.point(place.scope_keys[0]))
    lies = 0
    true_one = ssdtf.proof_of(0x32, place.published[0][2])
    for key in (place.broker.key, fake.key(), place.manager.key, None):
        made = context.seal("dev-1", TOPIC, b"open the gate", 100 + lies)
        proofs = [b"", true_one] if key is None else [
            ssdtf.proof_of(0x32, signed_by(key, made)[1]), batched(key, made)]
        for proof in proofs:
            lies += 1
            place.deliver(session, 0, place.grant, proof,
                          context.seal("dev-1", TOPIC, b"open the gate", 100 + lies)
                          if proof == true_one else made)
            tap.eventually(lambda: len(place.nacks) + len(place.reports) >= lies, "a complaint")
    tap.true(all(n[0] == ssdtf.BAD_SIGNATURE for n in place.nacks), "reasons")
    place.deliver(session, 0, place.grant)
    made = context.seal("dev-1", TOPIC, b"in a batch", 200)
    place.deliver(session, 0, place.grant, batched(place.keys["dev-1"], made), made)
    sub.wait_texts("21.5", "in a batch")
    # With a new key of the sender's the old one proves nothing any more.
    old, place.keys["dev-1"] = place.keys["dev-1"], fake.key()
    session.say_update(place.manager.statement(3, place.origin()))
    sub.wait_text("update: party dev-1")
    made = context.seal("dev-1", TOPIC, b"too late", 201)
    place.deliver(session, 0, place.grant, ssdtf.proof_of(0x32, signed_by(old, made)[1]), made)
    made = context.seal("dev-1", TOPIC, b"in time", 202)
    place.deliver(session, 0, place.grant,
                  ssdtf.proof_of(0x32, signed_by(place.keys["dev-1"], made)[1]), made)
    sub.wait_texts("21.5", "in a batch", "in time")
    session.say_update(place.manager.statement(3, place.origin(roles=0)))
    sub.wait_text("update: party dev-1 .*removed")
    tap.equal(sub.stop(), OK, "exit code")
    place.close()


tap.main()
