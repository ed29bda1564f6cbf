#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Sessions that outlive the broker. It is killed with SIGKILL at random moments under load and
started again, while senders and receivers whose sessions are kept connect again and go on as MQTT
4.4 says. In the end nothing that was acknowledged is missing, each receiver has each sender's
messages in order, at QoS 2 each once, and what is retained is there: plain, sealed, and with the
real programs."""

import collections
import os
import random
import struct
import threading
import time

import clients
import gateway
import mqtt
import tap
from clients import Pub, Sub, pub_ok

CRASHES = int(os.environ.get("CRASHES", tap.rounds(4)))
SENDERS = 2
IN_FLIGHT = 40

rnd = random.Random()
g = None


def setup():
    global g
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    tap.note("SEED=%d" % seed)
    rnd.seed(seed)
    g = gateway.Gateway()
    g.limits = {"errors-per-second": 100000}
    g.scope("plant", "plant/#")
    for i in range(SENDERS):
        g.device("py-%d" % i, "plant")
        g.device("dev-%d" % i, "plant")
    for name in ("rx-1", "rx-2", "rx-real"):
        g.receiver(name, "plant")
    g.start()
    tap.after_each(g.mend)


class PlainBroker:
    """One in plain mode with a directory for its sessions, at an address that it keeps."""

    def __init__(self):
        self.base = gateway.folder()
        self.host = "127.%d.%d.%d" % (random.randrange(1, 255), random.randrange(1, 255),
                                      random.randrange(2, 255))
        self.port, self.process = 0, None

    def configure(self):
        config = os.path.join(self.base, "plain.conf")
        gateway.write(config, 'plain = true\nlisten = { "%s:%d" }\nstate-dir = "state"\n'
                              'limits {\nadmission-ban-ms = 0\n}\n' % (self.host, self.port))
        return config

    def start(self):
        self.process = gateway.Process("plain broker", [gateway.program("broker"), "--config",
                                                        self.configure()])
        ready = self.process.wait_text(r"ready: listening on ([\d.]+):(\d+)", seconds=20)
        self.port = int(ready.group(2))
        return self

    def crash(self):
        self.process.kill()
        self.start()

    @property
    def address(self):
        return self.host, self.port


# --- clients that come back ---------------------------------------------------------------------

class Client(threading.Thread):
    """Connects again whenever the broker goes, until it is done."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.trouble = None
        self.connections = 0

    def run(self):
        try:
            while not self.done():
                try:
                    with self.connect() as c:
                        self.connections += 1
                        self.serve(c)
                except (mqtt.Closed, OSError, mqtt.Silence):
                    time.sleep(0.01)
        except Exception as e:  # for finish()
            self.trouble = e

    def finish(self, seconds=30):
        self.stopping.set()
        self.join(seconds * tap.SCALE)
        if self.trouble:
            raise self.trouble
        tap.true(not self.is_alive(), "%s comes to its end" % self.name)


class Sender(Client):
    """Numbers its messages. undone: packet id -> [number, whether PUBREC came], in order."""

    def __init__(self, at, qos):
        super().__init__()
        self.at, self.qos, self.n = at, qos, 0
        self.undone = collections.OrderedDict()
        self.acked = set()

    def done(self):
        return self.stopping.is_set() and not self.undone

    def again(self, c):
        for packet_id, (number, received) in list(self.undone.items()):
            if received:
                c.send(mqtt.ack(mqtt.PUBREL, packet_id))
            else:
                self.send(c, packet_id, number, True)

    def serve(self, c):
        self.again(c)
        while not self.done():
            while len(self.undone) < IN_FLIGHT and not self.stopping.is_set():
                packet_id = self.new_id()
                self.undone[packet_id] = [self.n, False]
                self.n += 1
                self.send(c, packet_id, self.n - 1, False)
            try:
                self.take(c, c.receive(0.5))
            except mqtt.Silence:
                pass

    def new_id(self):
        return next(i for i in range(1, 65536) if i not in self.undone)

    def take(self, c, p):
        if p.type == mqtt.PUBACK:
            self.acked.add(self.undone.pop(p.packet_id)[0])
        elif p.type == mqtt.PUBREC:
            self.acked.add(self.undone[p.packet_id][0])
            self.undone[p.packet_id][1] = True
            c.send(mqtt.ack(mqtt.PUBREL, p.packet_id))
        elif p.type == mqtt.PUBCOMP:
            del self.undone[p.packet_id]


class Receiver(Client):
    """got: (sender, number) as they came; at QoS 2 those that are no repetition."""

    def __init__(self, qos):
        super().__init__()
        self.qos, self.got, self.stored = qos, [], set()
        self.subscribed, self.repeated = threading.Event(), 0

    def done(self):
        return self.stopping.is_set()

    def serve(self, c):
        while not self.done():
            try:
                self.take(c, c.receive(0.1))
            except mqtt.Silence:
                pass

    def take(self, c, p):
        if p.type == mqtt.PUBREL:
            self.stored.discard(p.packet_id)
            c.send(mqtt.ack(mqtt.PUBCOMP, p.packet_id))
        if p.type != mqtt.PUBLISH:
            return
        if p.qos == 2 and p.packet_id in self.stored:
            tap.true(p.dup, "what comes again under its id has DUP")
            self.repeated += 1
        else:
            self.got.append(self.number(p))
        if p.qos == 2:
            self.stored.add(p.packet_id)
        if p.qos:
            c.send(mqtt.ack(mqtt.PUBREC if p.qos == 2 else mqtt.PUBACK, p.packet_id))

    def kept(self, present):
        if self.subscribed.is_set():
            tap.true(present, "the session is there")


def check(receiver, senders):
    """All that was acknowledged has come, in order; at QoS 2 once."""
    for s in senders:
        mine = [n for at, n in receiver.got if at == s.at]
        first = list(dict.fromkeys(mine))
        tap.equal(sorted(s.acked - set(mine)), [], "acknowledged to sender %d, and missing" % s.at)
        tap.equal(first, sorted(first), "the order in which they came first")
        if receiver.qos == s.qos == 2:
            tap.equal(len(mine), len(first), "messages of sender %d that came twice" % s.at)


def under_load(senders, receivers, crash):
    for r in receivers:
        r.start()
        tap.true(r.subscribed.wait(20 * tap.SCALE), "SUBACK")
    for s in senders:
        s.start()
    for _ in range(CRASHES):
        time.sleep(rnd.uniform(0.02, 0.4) * tap.SCALE)
        crash()
    time.sleep(0.1)
    for s in senders:
        s.finish()
        tap.true(s.n > 0 and len(s.acked) == s.n, "all are acknowledged in the end")
    for r in receivers:
        want = {(s.at, n) for s in senders for n in s.acked}
        tap.eventually(lambda: want <= set(r.got), "all have come", 20)
        r.finish()
        check(r, senders)
    tap.note("crashes=%d sent=%d received=%s repeated=%s" % (
        CRASHES, sum(s.n for s in senders), [len(r.got) for r in receivers],
        [r.repeated for r in receivers]))


# --- plain --------------------------------------------------------------------------------------

class PlainSender(Sender):
    def __init__(self, broker, at, qos):
        super().__init__(at, qos)
        self.broker = broker

    def connect(self):
        c = mqtt.Connection(self.broker.address)
        c.send(mqtt.connect("s-%d" % self.at, clean=False))
        c.expect(mqtt.CONNACK)
        return c

    def send(self, c, packet_id, number, dup):
        c.send(mqtt.publish("t/%d" % self.at, struct.pack(">II", self.at, number), self.qos,
                            number % 10 == 0, packet_id, dup))


class PlainReceiver(Receiver):
    def __init__(self, broker, name, qos):
        super().__init__(qos)
        self.broker, self.id = broker, name

    def connect(self):
        c = mqtt.Connection(self.broker.address)
        c.send(mqtt.connect(self.id, clean=False))
        self.kept(c.expect(mqtt.CONNACK).body[0] & 1)
        if not self.subscribed.is_set():
            c.send(mqtt.subscribe(1, ["t/#"], self.qos))
            c.expect(mqtt.SUBACK)
            self.subscribed.set()
        return c

    def number(self, p):
        return struct.unpack(">II", p.payload)


@tap.test
def plain():
    "plain, QoS 1 and 2: nothing acknowledged is missing, order is kept, QoS 2 is exactly once"
    broker = PlainBroker().start()
    senders = [PlainSender(broker, at, 1 + at % 2) for at in range(SENDERS)]
    receivers = [PlainReceiver(broker, "r-%d" % qos, qos) for qos in (1, 2)]
    under_load(senders, receivers, broker.crash)
    # Retained: each sender's last that was so, over one more crash.
    broker.crash()
    for s in senders:
        with mqtt.Connection(broker.address) as c:
            c.send(mqtt.connect("look", clean=True), mqtt.subscribe(1, ["t/%d" % s.at], 0))
            c.expect(mqtt.CONNACK)
            c.expect(mqtt.SUBACK)
            p = c.expect(mqtt.PUBLISH)
            tap.equal((p.retain, struct.unpack(">II", p.payload)),
                      (True, (s.at, (s.n - 1) // 10 * 10)), "what is retained")
    tap.equal(broker.process.stop(), 0, "exit code")
    broker.start()
    tap.equal(broker.process.stop(), 0, "exit code")


@tap.test
def absent():
    "what waits for a receiver that is away comes after two crashes, and not again after a third"
    broker = PlainBroker().start()
    receiver = PlainReceiver(broker, "away", 1)
    receiver.connect().close()
    with mqtt.Connection(broker.address) as c:
        c.send(mqtt.connect("s", clean=True))
        c.expect(mqtt.CONNACK)
        for n in range(50):
            c.send(mqtt.publish("t/0", struct.pack(">II", 0, n), 1 + n % 2, False, n + 1))
        for n in range(50):
            c.expect(mqtt.PUBREC if n % 2 else mqtt.PUBACK)
    broker.crash()
    broker.crash()
    with receiver.connect() as c:
        for n in range(50):
            p = c.expect(mqtt.PUBLISH)
            tap.equal((receiver.number(p), p.qos), ((0, n), 1), "message")
            c.send(mqtt.puback(p.packet_id))
        c.send(mqtt.subscribe(2, ["another"], 1))
        c.expect(mqtt.SUBACK)  # what came before it is stored, too
    broker.crash()
    with receiver.connect() as c:
        c.send(mqtt.packet(mqtt.PINGREQ))
        c.expect(mqtt.PINGRESP)
    tap.equal(broker.process.stop(), 0, "exit code")


# --- sealed -------------------------------------------------------------------------------------

class SealedSender(Sender):
    def __init__(self, at, qos):
        super().__init__(at, qos)
        self.party, self.payloads = g.party("py-%d" % at), {}

    def connect(self):
        return mqtt.Session(g.address, self.party)

    def send(self, c, packet_id, number, dup):
        if number not in self.payloads:
            self.payloads[number] = self.party.sealed(
                "plant", "plant/t", struct.pack(">II", self.at, number), self.qos)
        c.send(mqtt.publish("plant/t", self.payloads[number], self.qos, False, packet_id, dup))


class SealedReceiver(Receiver):
    def __init__(self, name, qos):
        super().__init__(qos)
        self.party = g.party(name)

    def connect(self):
        c = mqtt.Session(g.address, self.party, clean=False, auto_ack=False)
        self.kept(c.session_present)
        if not self.subscribed.is_set():
            tap.equal(c.subscribe("plant/#", qos=self.qos), [self.qos], "SUBACK")
            self.subscribed.set()
        return c

    def number(self, p):
        opened = self.party.open(p.topic, p.first, p.payload)
        return struct.unpack(">II", opened.plaintext)


@tap.test
def sealed():
    "sealed, QoS 1 and 2: nothing acknowledged is missing, order is kept, QoS 2 is exactly once"
    senders = [SealedSender(at, 1 + at % 2) for at in range(SENDERS)]
    receivers = [SealedReceiver("rx-%d" % qos, qos) for qos in (1, 2)]

    def crash():
        g.broker.kill()
        g.start_broker()

    under_load(senders, receivers, crash)


@tap.test
def programs():
    "ssdtf-pub and ssdtf-sub -c: every line is shown, once and in order"
    sub = Sub(g, "rx-real", "plant/programs/#", more=("-c",))
    pubs = [Pub(g, "dev-%d" % i, "plant/programs/%d" % i, "-q", str(1 + i % 2))
            for i in range(SENDERS)]
    for p in pubs:
        p.wait_open()
    n = 0
    for crashes in range(1, 1 + tap.rounds(2)):
        end = time.monotonic() + rnd.uniform(0.05, 0.4)
        while time.monotonic() < end:
            for i, p in enumerate(pubs):
                p.line("%d.%d" % (i, n))
            n += 1
            time.sleep(0.002)
        g.broker.kill()
        g.start_broker()
        for p in pubs:
            p.wait_open(crashes + 1)
    for p in pubs:
        tap.equal(p.finish(), 0, "exit code of %s: %s" % (p.name, p.text()[-500:]))
    for i in range(SENDERS):
        want = ["%d.%d" % (i, k) for k in range(n)]
        tap.eventually(lambda: want[-1] in sub.texts(), "the last line of sender %d" % i, 20)
        tap.equal([t for t in sub.texts() if t.startswith("%d." % i)], want, "lines of %d" % i)
    tap.note("lines=%d" % (n * SENDERS))


@tap.test
def other_mode():
    "what is retained is there after the last crash; a plain broker refuses the directory"
    pub_ok(g, "dev-0", "plant/kept", "-q", "1", "-r", "-m", "kept")
    g.broker.kill()
    g.start_broker()
    sub = Sub(g, "rx-1", "plant/kept")
    tap.true(sub.wait_text_message("kept")["retain"], "RETAIN")
    g.stop()
    broker = PlainBroker()
    os.rename(g.state_dir, os.path.join(broker.base, "state"))
    r = gateway.run([gateway.program("broker"), "--config", broker.configure()])
    tap.equal(r.returncode, clients.CONFIG, "exit code")
    tap.true("has messages of a broker with SSDTF; one directory each" in r.stderr, r.stderr)


for each in (plain, sealed):
    each.seconds = 120
tap.main(setup)
