#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtf-broker --plain is an ordinary MQTT 3.1.1 broker: with stock clients (mosquitto_pub,
mosquitto_sub, paho) and with raw packets where stock clients are too well-behaved. The numbers in
brackets are the standard's. Each test has a broker of its own, which must end with status 0."""

import functools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import gateway
import mqtt
import tap

try:
    import paho.mqtt.client as paho
except ImportError:
    paho = None


class Broker(gateway.Process):
    """On free ports that the kernel chose."""

    of_test = True

    def __init__(self, *addresses, env=None):
        args = [x for a in addresses or ("127.0.0.1:0",) for x in ("--plain", a)]
        super().__init__("broker", [gateway.program("broker"), *args], env)
        ready = self.wait_text(r"ready: listening on (.*)$").group(1)
        self.addresses = []
        for address in ready.split():
            host, port = address.rsplit(":", 1)
            self.addresses.append((host.strip("[]"), int(port)))
        self.address = self.addresses[0]
        self.port = str(self.address[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.alive() and not kind:
            tap.equal(self.stop(), 0, "exit code of the broker")
        self.kill()

    def stats(self):
        """The counters that SIGUSR1 makes it say."""
        pattern = r"^ssdtf-broker: stats (.*)$"
        n = len(re.findall(pattern, self.text(), re.M))
        self.signal(signal.SIGUSR1)
        line = self.wait_text(pattern, count=n + 1).group(1)
        return {k: int(v) for k, v in (pair.split("=") for pair in line.split())}

    def wait_connections(self, n):
        tap.eventually(lambda: self.stats()["connections"] == n, "%d connections" % n)


class Client(mqtt.Connection):
    """A client without SSDTF; connected where it has an id."""

    def __init__(self, broker, client_id=None, address=None, **named):
        super().__init__(address or broker.address)
        self.ids = 0
        if client_id is not None:
            self.send(mqtt.connect(client_id, **named))
            p = self.expect(mqtt.CONNACK)
            tap.equal(p.body[1], 0, "CONNACK code")
            self.session_present = bool(p.body[0] & 1)

    def next_id(self):
        self.ids = self.ids % 65535 + 1
        return self.ids

    def subscribe(self, *filters, qos=1):
        """The SUBACK codes."""
        self.send(mqtt.subscribe(self.next_id(), filters, qos))
        p = self.expect(mqtt.SUBACK)
        tap.equal(p.packet_id, self.ids, "packet id of SUBACK")
        return list(p.body[2:])

    def unsubscribe(self, *filters):
        self.send(mqtt.unsubscribe(self.next_id(), filters))
        tap.equal(self.expect(mqtt.UNSUBACK).packet_id, self.ids, "packet id of UNSUBACK")

    def publish(self, topic, payload, qos=0, retain=False):
        """Waits until it is acknowledged, or completed, where it is to be."""
        data = payload if isinstance(payload, bytes) else payload.encode()
        packet_id = self.next_id() if qos else None
        self.send(mqtt.publish(topic, data, qos, retain, packet_id))
        if qos == 1:
            tap.equal(self.expect(mqtt.PUBACK).packet_id, packet_id, "packet id of PUBACK")
        if qos == 2:
            tap.equal(self.expect(mqtt.PUBREC).packet_id, packet_id, "packet id of PUBREC")
            self.release(packet_id)

    def release(self, packet_id):
        self.send(mqtt.ack(mqtt.PUBREL, packet_id))
        tap.equal(self.expect(mqtt.PUBCOMP).packet_id, packet_id, "packet id of PUBCOMP")

    def message(self, ack=True):
        p = self.expect(mqtt.PUBLISH)
        if ack and p.qos == 1:
            self.send(mqtt.puback(p.packet_id))
        if ack and p.qos == 2:
            self.send(mqtt.ack(mqtt.PUBREC, p.packet_id))
            tap.equal(self.expect(mqtt.PUBREL).packet_id, p.packet_id, "packet id of PUBREL")
            self.send(mqtt.ack(mqtt.PUBCOMP, p.packet_id))
        return p

    def ping(self):
        self.send(mqtt.packet(mqtt.PINGREQ))
        self.expect(mqtt.PINGRESP)

    def silent(self, seconds=0.3):
        try:
            p = self.receive(seconds * tap.SCALE)
        except mqtt.Silence:
            return
        raise AssertionError("%r came" % p)

    def refused(self, data):
        """Sends what ends the connection. What came before."""
        try:
            self.send(data)
            return self.closes()
        except mqtt.Closed:
            return []

    def disconnect(self):
        self.send(mqtt.packet(mqtt.DISCONNECT))
        self.closes()
        self.close()

    def drop(self):
        """Gone with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def test(function):
    """A test with a broker."""
    @functools.wraps(function)
    def with_broker():
        with Broker() as broker:
            function(broker)
    return tap.test(with_broker)


def mosquitto_sub(broker, *args, count=1):
    """Subscribed before it is returned."""
    if not shutil.which("mosquitto_sub"):
        tap.skip("mosquitto_sub is not installed")
    p = gateway.Process("mosquitto_sub", ["mosquitto_sub", "-h", "127.0.0.1", "-p", broker.port,
                                          "-d", "-C", str(count), *args], stdout=subprocess.PIPE)
    p.of_test = True
    return p


def mosquitto_pub(broker, *args, data=None):
    if not shutil.which("mosquitto_pub"):
        tap.skip("mosquitto_pub is not installed")
    subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", broker.port, *args],
                   input=data, check=True, timeout=mqtt.WAIT)


def subscribed(broker, n):
    """Until n clients are there and had time to subscribe."""
    broker.wait_connections(n)
    time.sleep(0.2 * tap.SCALE)


def output(process):
    """What mosquitto_sub printed, without its words about packets."""
    out, _ = process.popen.communicate(timeout=mqtt.WAIT)
    return b"\n".join(line for line in out.split(b"\n")
                      if not line.startswith((b"Client ", b"Subscribed ")))


# --- stock clients ------------------------------------------------------------------------------

@test
def mosquitto(broker):
    "mosquitto_pub and mosquitto_sub exchange QoS 0, 1 and 2, also empty and binary payloads"
    for qos in ("0", "1", "2"):
        sub = mosquitto_sub(broker, "-t", "a/b", "-q", qos, "-v", count=3)
        subscribed(broker, 1)
        mosquitto_pub(broker, "-t", "a/b", "-q", qos, "-m", "one")
        mosquitto_pub(broker, "-t", "a/b", "-q", qos, "-n")
        mosquitto_pub(broker, "-t", "a/b", "-q", qos, "-s", data=b"\x00\xff three")
        tap.equal(output(sub), b"a/b one\na/b (null)\na/b \x00\xff three\n", "what was received")


@test
def mosquitto_large(broker):
    "mosquitto_pub sends 900,000 bytes"
    data = os.urandom(900_000)
    sub = Client(broker, "sub")
    sub.subscribe("large")
    mosquitto_pub(broker, "-t", "large", "-q", "1", "-s", data=data)
    tap.true(sub.message().payload == data, "the bytes are the same")


@test
def mosquitto_ends_and_wills(broker):
    "mosquitto_sub's retained Will comes when it is killed, not when it ends well"
    watch = Client(broker, "watch")
    watch.subscribe("will")
    for number, told in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
        sub = mosquitto_sub(broker, "-t", "x", "--will-topic", "will", "--will-payload", "gone",
                            "--will-retain")
        subscribed(broker, 2)
        sub.signal(number)
        broker.wait_connections(1)
        if told:
            tap.equal(watch.message().payload, b"gone", "Will")
        else:
            watch.silent()
    late = Client(broker, "late")
    late.subscribe("will")
    tap.true(late.message().retain, "the Will is retained")


class Paho:
    """A persistent session of paho's."""

    def __init__(self, broker):
        self.got, self.present, self.granted = [], None, False
        self.client = paho.Client("keeper", clean_session=False)
        self.client.on_connect = self.connected
        self.client.on_subscribe = lambda *_: setattr(self, "granted", True)
        self.client.on_message = lambda _c, _u, m: self.got.append((m.topic, m.payload, m.qos))
        self.client.connect(*broker.address)
        self.client.loop_start()
        tap.eventually(lambda: self.present is not None, "CONNACK")

    def connected(self, _client, _userdata, flags, _code):
        self.present = flags["session present"]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@test
def paho_session(broker):
    "paho's persistent session gets what it missed, in order"
    paho_misses(broker, 1)


@test
def paho_session_qos_2(broker):
    "the same at QoS 2"
    paho_misses(broker, 2)


def paho_misses(broker, qos):
    if not paho:
        tap.skip("python3-paho-mqtt is not installed")
    first = Paho(broker)
    first.client.subscribe("kept/#", qos)
    tap.eventually(lambda: first.granted, "SUBACK")
    first.close()
    for i in range(20):
        mosquitto_pub(broker, "-t", "kept/%d" % i, "-q", str(qos), "-m", str(i))
    again = Paho(broker)
    tap.eventually(lambda: len(again.got) == 20, "20 messages")
    again.close()
    tap.equal(again.got, [("kept/%d" % i, str(i).encode(), qos) for i in range(20)], "messages")
    tap.equal((first.present, again.present), (0, 1), "session present")


@tap.test
def two_listeners():
    "IPv4 and IPv6 listeners are one broker"
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as why:
        tap.skip("no IPv6 loopback: %s" % why)
    with Broker("127.0.0.1:0", "[::1]:0") as broker:
        sub = Client(broker, "six", broker.addresses[1])
        sub.subscribe("x")
        Client(broker, "four").publish("x", "over", 1)
        tap.equal(sub.message().payload, b"over", "payload")


# --- topics -------------------------------------------------------------------------------------

@test
def wildcards(broker):
    "wildcards match as the standard's examples say [4.7]"
    topics = ["sport", "sport/", "sport/tennis", "sport/tennis/player1", "/finance", "$own/x", "/"]
    expected = {
        "sport/#": ["sport", "sport/", "sport/tennis", "sport/tennis/player1"],
        "sport/+": ["sport/", "sport/tennis"],
        "sport/tennis/+": ["sport/tennis/player1"],
        "#": [t for t in topics if t != "$own/x"],  # [MQTT-4.7.2-1]
        "+": ["sport"],
        "+/+": ["sport/", "sport/tennis", "/finance", "/"],
        "/+": ["/finance", "/"],
        "$own/#": ["$own/x"],
        "+/x": [],
    }
    clients = {}
    for i, f in enumerate(expected):
        clients[f] = Client(broker, "w%d" % i)
        tap.equal(clients[f].subscribe(f, "end/of/it", qos=0), [0, 0], "SUBACK")
    pub = Client(broker, "pub")
    for t in topics + ["end/of/it"]:
        pub.publish(t, "x", 1)
    for f, want in expected.items():
        got = []
        while True:
            p = clients[f].message()
            if p.topic == "end/of/it":
                break
            got.append(p.topic)
        tap.equal(got, want, f)


@test
def bad_topics(broker):
    "filters and topics that are none are refused"
    for bad in ("a/#/b", "a#", "a/b+", "", b"a\0b", b"\xed\xa0\x80"):
        with Client(broker, "bad") as c:
            c.send(mqtt.subscribe(1, [bad], 0))
            try:
                tap.equal(c.receive().body[2], 0x80, "SUBACK code of %r" % bad)
            except mqtt.Closed:
                pass
    for bad in ("a/+", "#", "", b"a\0", b"\xed\xa0\x80"):  # [MQTT-3.3.2-2], [MQTT-4.7.3-1]
        with Client(broker, "bad") as c:
            tap.equal(c.refused(mqtt.publish(bad, b"x")), [], "answer to %r" % bad)


@test
def subscriptions(broker):
    "a subscription is replaced, and ended"
    c = Client(broker, "sub")
    tap.equal(c.subscribe("t", "u", qos=0), [0, 0], "SUBACK")
    tap.equal(c.subscribe("t", qos=2), [2], "SUBACK to QoS 2")
    pub = Client(broker, "pub")
    pub.publish("t", "one", 1)
    tap.equal(c.message().qos, 1, "QoS")
    c.silent()  # once, though subscribed twice [MQTT-3.8.4-3]
    c.unsubscribe("t")
    pub.publish("t", "two", 1)
    pub.publish("u", "three", 1)
    p = c.message()
    tap.equal((p.topic, p.payload, p.qos), ("u", b"three", 0), "message")


@test
def retained(broker):
    "retained messages are kept, replaced and removed"
    pub, live = Client(broker, "pub"), Client(broker, "live")
    live.subscribe("r/#")
    pub.publish("r/1", "old", 1, True)
    pub.publish("r/1", "new", 1, True)
    pub.publish("r/2", "zero", 0, True)
    pub.publish("r/3", "not kept", 1)
    came = [live.message() for _ in range(4)]
    tap.equal([p.topic for p in came], ["r/1", "r/1", "r/2", "r/3"], "topics")
    tap.true(not any(p.retain for p in came), "RETAIN is 0 [MQTT-3.3.1-9]")
    late = Client(broker, "late")
    late.subscribe("r/#")
    came = sorted((p.topic, p.payload, p.qos, p.retain) for p in
                  (late.message(), late.message()))
    tap.equal(came, [("r/1", b"new", 1, True), ("r/2", b"zero", 0, True)], "retained")
    late.silent()
    for topic in ("r/1", "r/2"):
        pub.publish(topic, "", 1, True)  # [MQTT-3.3.1-10]
    later = Client(broker, "later")
    later.subscribe("r/#")
    later.silent()
    tap.equal(broker.stats()["retained"], 0, "counter")


# --- Wills and sessions -------------------------------------------------------------------------

@test
def wills(broker):
    "a Will is published where the client vanishes, and not after DISCONNECT"
    watch = Client(broker, "watch")
    watch.subscribe("will/#")
    ends = (Client.drop, Client.close, lambda c: c.refused(b"\xff"))
    for i, end in enumerate(ends):
        end(Client(broker, "mortal", will=mqtt.Will("will/%d" % i, b"gone", 1)))
        p = watch.message()
        tap.equal((p.topic, p.payload, p.retain), ("will/%d" % i, b"gone", False), "Will")
    Client(broker, "polite", will=mqtt.Will("will/x", b"gone", 1)).disconnect()
    watch.silent()  # [MQTT-3.14.4-3]


@test
def persistent_session(broker):
    "a session keeps subscriptions and messages of QoS 1; a clean one does not"
    c = Client(broker, "away", clean=False)
    tap.true(not c.session_present, "no session yet")
    c.subscribe("s/#")
    c.disconnect()
    pub = Client(broker, "pub")
    for i in range(100):
        pub.publish("s/%d" % i, str(i), 1)
    pub.publish("other", "x", 1)
    c = Client(broker, "away", clean=False)
    tap.true(c.session_present, "session present [MQTT-3.2.2-2]")
    tap.equal([int(c.message().payload) for _ in range(100)], list(range(100)), "messages")
    c.silent()
    c.disconnect()
    c = Client(broker, "away", clean=True)  # [MQTT-3.1.2-6]
    tap.true(not c.session_present, "the session is gone")
    pub.publish("s/1", "x", 1)
    c.silent()
    c.disconnect()
    tap.true(not Client(broker, "away", clean=False).session_present, "and stays gone")


@test
def exactly_once(broker):
    "QoS 2: what is sent again after a reset reaches nobody twice, each way [4.3.3, 4.4]"
    rx = Client(broker, "rx", clean=False)
    rx.subscribe("once", qos=2)
    tx = Client(broker, "tx", clean=False)
    tx.send(mqtt.publish("once", b"first", 2, False, 7))
    tx.expect(mqtt.PUBREC)
    tx.drop()
    broker.wait_connections(1)
    tx = Client(broker, "tx", clean=False)
    tx.send(mqtt.publish("once", b"first", 2, False, 7, dup=True))  # [MQTT-4.3.3-2]
    tx.expect(mqtt.PUBREC)
    tx.release(7)
    p = rx.message(ack=False)
    tap.equal((p.payload, p.qos, p.dup), (b"first", 2, False), "message")
    rx.silent()
    rx.drop()
    broker.wait_connections(1)
    rx = Client(broker, "rx", clean=False)
    again = rx.expect(mqtt.PUBLISH)
    tap.equal((again.packet_id, again.dup), (p.packet_id, True), "id and DUP [MQTT-4.4.0-1]")
    rx.send(mqtt.ack(mqtt.PUBREC, p.packet_id))
    rx.expect(mqtt.PUBREL)
    rx.drop()
    broker.wait_connections(1)
    rx = Client(broker, "rx", clean=False)
    tap.equal(rx.expect(mqtt.PUBREL).packet_id, p.packet_id, "PUBREL, and no PUBLISH")
    rx.send(mqtt.ack(mqtt.PUBCOMP, p.packet_id))
    tx.publish("once", "second", 2)
    tap.equal(rx.message().payload, b"second", "message")
    rx.silent()


@test
def redelivery(broker):
    "what was not acknowledged comes again, with DUP and its packet id"
    c = Client(broker, "forgetful", clean=False)
    c.subscribe("s")
    pub = Client(broker, "pub")
    for i in range(5):
        pub.publish("s", str(i), 1)
    first = [c.message(ack=False) for _ in range(5)]
    tap.true(not any(p.dup for p in first), "DUP is 0 at first")
    c.send(mqtt.puback(first[1].packet_id))
    c.ping()
    c.drop()
    broker.wait_connections(1)
    c = Client(broker, "forgetful", clean=False)
    again = [c.message() for _ in range(4)]
    del first[1]
    tap.equal([p.payload for p in again], [p.payload for p in first], "messages")
    tap.equal([p.packet_id for p in again], [p.packet_id for p in first], "[MQTT-4.4.0-1]")
    tap.true(all(p.dup for p in again), "DUP is 1 [MQTT-3.3.1-1]")
    c.silent()


@test
def takeover(broker):
    "a second connection takes the first one's place"
    watch = Client(broker, "watch")
    watch.subscribe("will/#")
    first = Client(broker, "same", clean=False, will=mqtt.Will("will/same", b"gone", 1))
    first.subscribe("s")
    second = Client(broker, "same", clean=False)
    first.closes()  # [MQTT-3.1.4-2]
    tap.true(second.session_present, "it has the session")
    tap.equal(watch.message().topic, "will/same", "Will")
    Client(broker, "pub").publish("s", "x", 1)
    tap.equal(second.message().payload, b"x", "payload")


@test
def no_client_id(broker):
    "clients without an id get clean sessions of their own, no others"
    a, b = Client(broker, ""), Client(broker, "")  # [MQTT-3.1.3-6]
    a.subscribe("x")
    b.publish("x", "y", 1)
    tap.equal(a.message().payload, b"y", "payload")
    came = Client(broker).refused(mqtt.connect("", clean=False))
    tap.equal([p.body for p in came], [b"\x00\x02"], "CONNACK [MQTT-3.1.3-8]")


@test
def keep_alive(broker):
    "silence for one and a half times the keep alive ends the connection [MQTT-3.1.2-24]"
    watch = Client(broker, "watch")
    watch.subscribe("will/#")
    alive = Client(broker, "alive", keepalive=1)
    forever = Client(broker, "forever", keepalive=0)
    stop = threading.Event()

    def ping():
        while not stop.wait(0.4):
            alive.send(mqtt.packet(mqtt.PINGREQ))

    pings = threading.Thread(target=ping)
    pings.start()
    try:
        begin = time.monotonic()
        silent = Client(broker, "silent", keepalive=1, will=mqtt.Will("will/silent", b"gone", 1))
        tap.equal(watch.message().topic, "will/silent", "Will")
        took = time.monotonic() - begin
        tap.true(1.45 <= took <= 3 * tap.SCALE, "it took %g s" % took)
        silent.closes()
        time.sleep(1)
    finally:
        stop.set()
        pings.join()
    alive.ping()
    forever.ping()


# --- bad input ----------------------------------------------------------------------------------

MALFORMED = (
    b"\x82\x00",  # SUBSCRIBE without anything
    b"\x82\x02\x00\x01",  # without a filter [MQTT-3.8.3-3]
    mqtt.packet(mqtt.SUBSCRIBE, 0, b"\x00\x01\x00\x01a\x00"),  # reserved bits [MQTT-3.8.1-1]
    mqtt.subscribe(0, ["a"], 0),  # [MQTT-2.3.1-1]
    mqtt.subscribe(1, ["a"], 3),  # [MQTT-3.8.3-4]
    b"\xa2\x02\x00\x01",
    mqtt.packet(mqtt.PUBLISH, 6, b"\x00\x01a\x00\x01x"),  # QoS 3 [MQTT-3.3.1-4]
    mqtt.publish("a", b"x", 1, False, 0),
    mqtt.packet(mqtt.PUBLISH, 0, b"\x00\x05ab"),  # a topic longer than the packet
    mqtt.packet(mqtt.PUBLISH, 0, b"\x00"),
    b"\x30\xff\xff\xff\xff\x01",  # five bytes of length
    b"\x30\xff\xff\xff\x7f",  # 256 MiB announced
    b"\x00\x00",
    b"\xf0\x00",
    b"\xc1\x00",  # reserved bits of PINGREQ
    b"\xe0\x01\x00",
    b"\x40\x01\x00",
    b"\x20\x02\x00\x00",  # CONNACK, from a client
    mqtt.connect("again"),  # a second CONNECT [MQTT-3.1.0-2]
)


@test
def malformed(broker):
    "malformed packets of every kind end their connection and nothing else"
    other = Client(broker, "other")
    for data in MALFORMED:
        with Client(broker, "bad") as c:
            tap.equal(c.refused(data), [], "answer to %r" % data)
    good = mqtt.connect("cut", "user", "password", will=mqtt.Will("w", b"m"))
    firsts = [b"\x30\x03\x00\x01a", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05",
              good[:3] + b"X" + good[4:]]  # [MQTT-3.1.0-1], and another protocol's name
    for data in firsts:
        with Client(broker) as c:
            tap.equal(c.refused(data), [], "answer to %r" % data)
    for n in range(len(good)):
        with Client(broker) as c:
            c.send(good[:n])
            c.drop()
    with Client(broker) as c:
        came = c.refused(mqtt.connect("new", level=7))
        tap.equal([p.body for p in came], [b"\x00\x01"], "CONNACK [MQTT-3.1.2-2]")
    other.ping()


@test
def pieces(broker):
    "packets may come byte by byte, and thousands in one"
    sub = Client(broker, "sub")
    sub.subscribe("t")
    c = Client(broker)
    data = mqtt.connect("bytewise") + b"".join(
        mqtt.publish("t", b"x" * n, 1, False, n) for n in (1, 200))
    for i in range(len(data)):
        c.send(data[i:i + 1])
    tap.equal([c.receive().type for _ in range(3)], [mqtt.CONNACK, mqtt.PUBACK, mqtt.PUBACK],
              "answers")
    tap.equal([len(sub.message().payload) for _ in range(2)], [1, 200], "lengths")
    many = b"".join(mqtt.publish("t", b"%d" % i) for i in range(5000))
    c.send(many + mqtt.packet(mqtt.DISCONNECT))
    tap.equal([int(sub.message().payload) for _ in range(5000)], list(range(5000)), "order")


# --- many, and slow -----------------------------------------------------------------------------

@test
def fan_out(broker):
    "200 receivers get every message in order"
    subs = [Client(broker, "sub%d" % i) for i in range(200)]
    for s in subs:
        s.subscribe("fan")
    pub = Client(broker, "pub")
    for i in range(50):
        pub.publish("fan", str(i), 1)
    for s in subs:
        tap.equal([int(s.message().payload) for _ in range(50)], list(range(50)), "messages")


@test
def dead_receiver(broker):
    "a receiver that does not read disturbs nobody and costs bounded memory"
    dead, alive, pub = (Client(broker, name) for name in ("dead", "alive", "pub"))
    dead.subscribe("flood", qos=0)
    alive.subscribe("flood", qos=0)
    payload = bytes(500_000)
    for i in range(160):  # 80 MB: more than its queue takes
        pub.publish("flood", b"%8d" % i + payload)
        tap.equal(int(alive.message().payload[:8]), i, "number")
    alive.ping()
    s = broker.stats()
    tap.true(s["dropped_qos0"] > 0 or s["cut_stalled"] == 1, "the dead one lost some: %s" % s)
    with open("/proc/%d/status" % broker.pid, encoding="ascii") as f:
        rss = int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1))
    tap.note("%d MB resident" % (rss // 1000))


# --- the process --------------------------------------------------------------------------------

@tap.test
def sigterm():
    "SIGTERM closes every connection, and the port is free again at once"
    with Broker() as broker:
        clients = [Client(broker, "c%d" % i) for i in range(50)]
        half = socket.create_connection(broker.address)
        begin = time.monotonic()
        tap.equal(broker.stop(), 0, "exit code")
        tap.true(time.monotonic() - begin < 4 * tap.SCALE, "in good time")
        for c in clients:
            c.closes()
        half.close()
    with Broker("127.0.0.1:" + broker.port) as again:
        tap.equal(again.port, broker.port, "port")
        Client(again, "c").disconnect()
        again.signal(signal.SIGINT)
        tap.equal(again.wait(), 0, "exit code")


@tap.test
def sigterm_flush():
    "SIGTERM loses nothing that was acknowledged and can still be taken"
    with Broker() as broker:
        sub = Client(broker, "sub")
        sub.subscribe("t")
        pub = Client(broker, "pub")
        for i in range(100):
            pub.publish("t", str(i), 1)
        broker.signal(signal.SIGTERM)
        tap.equal([int(sub.message(ack=False).payload) for _ in range(100)], list(range(100)),
                  "messages")
        sub.closes()
        tap.equal(broker.wait(), 0, "exit code")


@tap.test
def service_manager():
    "the service manager is told that it is ready, and that it stops"
    path = os.path.join(gateway.folder(), "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(mqtt.WAIT)
        with Broker(env={"NOTIFY_SOCKET": path}) as broker:
            tap.equal(s.recv(100), b"READY=1", "datagram")
            tap.equal(broker.stop(), 0, "exit code")
            tap.equal(s.recv(100), b"STOPPING=1", "datagram")


@test
def other_signals(broker):
    "SIGHUP and SIGPIPE are harmless; SIGUSR1 gives counters that count"
    broker.signal(signal.SIGHUP)
    broker.signal(signal.SIGPIPE)
    sub = Client(broker, "sub")
    sub.subscribe("t")
    Client(broker, "pub").publish("t", "x", 1)
    sub.message()
    s = broker.stats()
    tap.equal((s["connects"], s["received"], s["delivered"]), (2, 1, 1), "counters")


@test
def command_line(broker):
    "mistakes on the command line are named"
    taken = "127.0.0.1:" + broker.port
    for args, code, words in (
            (("--plain", "example.org:1883"), 64, "'example.org:1883' is not an address"),
            (("--plain", taken), 69, "cannot listen on %s: Address already in use" % taken),
            ((), 64, "either --config or --plain is needed"),
            (("--config", "a", "--plain", "127.0.0.1:0"), 64, "either --config or --plain"),
            (("--plain", "127.0.0.1:0", "--check-config"), 64, "--check-config needs --config"),
            (("--config", "/nonexistent"), 66, "/nonexistent: No such file"),
            (("--plain", "127.0.0.1:0", "more"), 64, "'more' is not an option")):
        r = gateway.run([gateway.program("broker"), *args])
        tap.equal(r.returncode, code, "exit code of %r" % (args,))
        tap.true(words in r.stderr, "words of %r: %s" % (args, r.stderr))
    r = gateway.run([gateway.program("broker"), "--version"])
    tap.equal((r.returncode, r.stdout.split()[0]), (0, "ssdtf-broker"), "--version")


tap.main()
