#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""Stock MQTT clients that know nothing of SSDTF: mosquitto_sub, libmosquitto by ctypes, and
python3-paho-mqtt. They carry the packets; keys and crypto are this test's (ssdtf.py)."""

import ctypes
import time

import clients
import gateway
import mqtt
import ssdtf
import tap

import paho.mqtt.client as paho

g = None


def setup():
    global g
    g = gateway.Gateway()
    g.scope("plant", "plant/#")
    g.scope("chem", "chem/#", suite=2)
    for name in ("paho", "mosq"):
        g.device("dev-" + name, "plant", "chem")
        g.receiver("rx-" + name, "plant", "chem")
    g.receiver("rx-proof", "plant", proof=True)
    g.device("dev-ours", "plant")
    g.start()


class Stock:
    """An SSDTF party on a stock library, which gives connected(), arrived() and acked what
    happens, and has connect(), publish(), subscribe(), turn(), close()."""

    def __init__(self, party_id):
        self.party = g.party(party_id)
        self.r_c, self.user_name, self.token = self.party.connect_params()
        self.connack, self.r_b, self.highest = None, None, None
        self.opened, self.acked, self.granted, self.trouble = [], [], [], None
        self.open_library()
        self.until(lambda: self.highest is not None, "authentication")

    def connected(self, code):
        self.connack = code

    def arrived(self, topic, payload, qos, retain):
        try:
            self.take(topic, ssdtf.first_byte(qos, retain), payload)
        except Exception as e:  # the libraries swallow what a callback raises
            self.trouble = e

    def take(self, topic, first, payload):
        if topic == ssdtf.CHALLENGE:
            answer, self.r_b = self.party.answer(self.r_c, first, payload, 4,
                                                 mqtt.connect_flags(True))
            self.publish(ssdtf.RESPONSE, answer, 0)
        elif topic == ssdtf.RESULT:
            self.highest = self.party.result(self.r_b, first, payload)
            self.party.counter = max(self.party.counter, self.highest)
        else:
            self.opened.append(self.party.open(topic, first, payload))

    def until(self, condition, what, seconds=10):
        end = time.monotonic() + seconds * tap.SCALE
        while not condition():
            if self.trouble:
                raise self.trouble
            tap.true(time.monotonic() < end, "not in time: " + what)
            self.turn()


class Paho(Stock):
    def open_library(self):
        self.client = c = paho.Client(self.party.id, True, protocol=paho.MQTTv311)
        c.username_pw_set(self.user_name, self.token)
        c.on_connect = lambda client, data, flags, code: self.connected(code)
        c.on_message = lambda client, data, m: self.arrived(m.topic, m.payload, m.qos, m.retain)
        c.on_publish = lambda client, data, mid: self.acked.append(mid)
        c.on_subscribe = lambda client, data, mid, granted: self.granted.extend(granted)
        c.connect(g.host, g.port, 60)

    def publish(self, topic, payload, qos, retain=False):
        return self.client.publish(topic, payload, qos, retain).mid

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)

    def turn(self):
        self.client.loop(0.02)

    def close(self):
        self.client.disconnect()
        self.client.loop(0.1)


class MosquittoMessage(ctypes.Structure):
    _fields_ = [("mid", ctypes.c_int), ("topic", ctypes.c_char_p), ("payload", ctypes.c_void_p),
                ("payloadlen", ctypes.c_int), ("qos", ctypes.c_int), ("retain", ctypes.c_bool)]


class Mosquitto(Stock):
    library = None

    def open_library(self):
        if not Mosquitto.library:
            Mosquitto.library = ctypes.CDLL("libmosquitto.so.1")
            Mosquitto.library.mosquitto_new.restype = ctypes.c_void_p
            Mosquitto.library.mosquitto_lib_init()
        lib = self.library
        self.mosq = ctypes.c_void_p(lib.mosquitto_new(self.party.id.encode(), True, None))
        code = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        message = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p,
                                   ctypes.POINTER(MosquittoMessage))
        granted = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
                                   ctypes.c_int, ctypes.POINTER(ctypes.c_int))
        self.callbacks = (  # kept: the library holds bare pointers
            code(lambda mosq, obj, rc: self.connected(rc)),
            message(lambda mosq, obj, m: self.arrived(
                m[0].topic.decode(), ctypes.string_at(m[0].payload, m[0].payloadlen), m[0].qos,
                m[0].retain)),
            code(lambda mosq, obj, mid: self.acked.append(mid)),
            granted(lambda mosq, obj, mid, n, list_: self.granted.extend(list_[:n])))
        for name, callback in zip(("connect", "message", "publish", "subscribe"), self.callbacks):
            getattr(lib, "mosquitto_%s_callback_set" % name)(self.mosq, callback)
        self.must(lib.mosquitto_username_pw_set(self.mosq, self.user_name.encode(), b""))
        self.must(lib.mosquitto_connect(self.mosq, g.host.encode(), g.port, 60))

    @staticmethod
    def must(code):
        tap.equal(code, 0, "libmosquitto's return code")

    def publish(self, topic, payload, qos, retain=False):
        mid = ctypes.c_int()
        self.must(self.library.mosquitto_publish(self.mosq, ctypes.byref(mid), topic.encode(),
                                                 len(payload), payload, qos, retain))
        return mid.value

    def subscribe(self, topic, qos):
        self.must(self.library.mosquitto_subscribe(self.mosq, None, topic.encode(), qos))

    def turn(self):
        self.must(self.library.mosquitto_loop(self.mosq, 20, 1))

    def close(self):
        self.library.mosquitto_disconnect(self.mosq)
        self.library.mosquitto_destroy(self.mosq)


def both_ways(library, name):
    """A device and a receiver on the library: sealed, acknowledged, converted, opened."""
    device, receiver = library("dev-" + name), library("rx-" + name)
    tap.equal((device.connack, receiver.connack), (0, 0), "CONNACK")
    receiver.subscribe("plant/stock", 2)
    receiver.subscribe("chem/stock", 2)
    receiver.until(lambda: len(receiver.granted) == 2, "SUBACK")
    tap.equal(receiver.granted, [2, 2], "SUBACK")
    sent = [(scope, qos, ("%s %d %d" % (scope, qos, i)).encode())
            for i in range(5) for scope in ("plant", "chem") for qos in (0, 1, 2)]
    for scope, qos, text in sent:
        topic = scope + "/stock"
        mid = device.publish(topic, device.party.sealed(scope, topic, text, qos), qos)
        device.until(lambda: mid in device.acked, "PUBACK or PUBCOMP")
    receiver.until(lambda: len(receiver.opened) == len(sent), "deliveries")
    for qos in (0, 1, 2):  # a library holds back those of QoS 2 until PUBREL
        want = [text for _, q, text in sent if q == qos]
        tap.equal([o.plaintext for o in receiver.opened if o.plaintext in want], want, "plaintexts")
    tap.equal({o.origin for o in receiver.opened}, {"dev-" + name}, "origin")
    device.close()
    again = library("dev-" + name)
    tap.equal(again.highest, device.party.counter, "highest counter, as the broker says")
    again.close()
    receiver.close()


@tap.test
def vectors():
    "the crypto used here agrees with tests/vectors/core.json"
    ssdtf.self_check(gateway.SOURCE + "/tests/vectors/core.json")


@tap.test
def with_paho():
    "python3-paho-mqtt authenticates, with an admission token, publishes sealed, opens deliveries"
    both_ways(Paho, "paho")


@tap.test
def with_ssdtf_programs():
    "stock clients and ssdtf-pub and ssdtf-sub understand each other, origin proof included"
    receiver, device = Paho("rx-paho"), Paho("dev-paho")
    proof = Paho("rx-proof")
    sub = clients.Sub(g, "rx-mosq", "plant/mixed")
    for r in (receiver, proof):
        r.subscribe("plant/mixed", 1)
        r.until(lambda: r.granted, "SUBACK")
    clients.pub_ok(g, "dev-ours", "plant/mixed", "-q", "1", "-m", "from ssdtf-pub")
    mid = device.publish("plant/mixed", device.party.sealed("plant", "plant/mixed",
                                                            b"from paho", 1), 1)
    device.until(lambda: mid in device.acked, "PUBACK")
    for r in (receiver, proof):
        r.until(lambda: len(r.opened) == 2, "deliveries")
        tap.equal([(o.origin, o.plaintext) for o in r.opened],
                  [("dev-ours", b"from ssdtf-pub"), ("dev-paho", b"from paho")], "opened by stock")
    tap.equal([len(o.envelope.proof) > 0 for o in receiver.opened + proof.opened],
              [False, False, True, True], "proofs")
    sub.wait_messages(2)
    tap.equal([(m["origin"], m["payload"]) for m in sub.messages()],
              [("dev-ours", "from ssdtf-pub"), ("dev-paho", "from paho")], "opened by ssdtf-sub")
    for c in (receiver, device, proof):
        c.close()
    sub.stop()


def ask_for_no_token():
    """A password with zeros in it goes neither through libmosquitto nor a command line."""
    if g.options.get("admission") != "off":
        g.broker.stop()
        g.options["admission"] = "off"
        g.start_broker()


@tap.test
def with_libmosquitto():
    "libmosquitto, called by ctypes, does the same"
    ask_for_no_token()
    both_ways(Mosquitto, "mosq")


def late_subscribe(data):
    """For a Proxy: mosquitto_sub leaves when its SUBSCRIBE is refused, which needs no signature
    and so is faster than the challenge."""
    if data[0] >> 4 == mqtt.SUBSCRIBE:
        time.sleep(0.5)
    return data


@tap.test
def with_mosquitto_sub():
    "mosquitto_sub takes the challenge for a message and prints it"
    ask_for_no_token()
    party = g.party("rx-mosq")
    r_c, user_name, _ = party.connect_params()
    proxy = gateway.Proxy(g.address)
    proxy.change = late_subscribe
    printed = gateway.must(gateway.run(
        ["mosquitto_sub", "-V", "mqttv311", "-h", proxy.address[0], "-p", str(proxy.address[1]),
         "-i", party.id, "-u", user_name, "-P", "", "-t", "#", "-F", "%t %q %r %x", "-C", "1",
         "-W", "10"]))
    proxy.close()
    topic, qos, retain, payload = printed.split()
    tap.equal((topic, qos, retain), (ssdtf.CHALLENGE, "0", "0"), "what it prints")
    party.answer(r_c, ssdtf.first_byte(0, False), bytes.fromhex(payload), 4,
                 mqtt.connect_flags(True))  # checks all of it


tap.main(setup)
