#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""QoS 2 with ssdtf-pub and ssdtf-sub while the connection breaks: at each packet of the exchange it
is cut once, so that this packet does not arrive."""

import socket
import threading

import clients
import gateway
import mqtt
import tap
from clients import Pub, Sub, pub, pub_ok

g = None


def setup():
    global g
    g = gateway.Gateway()
    g.scope("plant", "plant/#")
    g.device("dev-1", "plant")
    g.receiver("rx-1", "plant")
    g.receiver("rx-2", "plant")
    g.start()
    tap.after_each(g.mend)


class Packets:
    """Of one direction of one connection, as they come in pieces."""
    take = mqtt.Connection.take

    def __init__(self):
        self.got = b""


class Cutting(gateway.Proxy):
    """Ends the first connection where its nth packet of this kind would pass. One client."""

    def __init__(self, kind, to_broker, nth=1):
        super().__init__(g.address)
        self.kind, self.left, self.packets = kind, nth, Packets()
        self.cut = threading.Event()
        if to_broker:
            self.change = self.look
        else:
            self.change_back = self.look

    def look(self, data):
        if self.cut.is_set():
            return data
        self.packets.got += data
        p = self.packets.take()
        while p:
            self.left -= p.type == self.kind
            if not self.left:
                self.cut.set()
                for s in list(self.sockets):  # not the next connection's
                    s.shutdown(socket.SHUT_RDWR)
                raise OSError("cut")
            p = self.packets.take()
        return data

    def wait(self):
        tap.true(self.cut.wait(15 * tap.SCALE), "the connection is cut")


def publisher_cut_at(kind, name, to_broker):
    topic = "plant/pub/" + name.lower()
    sub = Sub(g, "rx-1", topic, qos=2)
    proxy = Cutting(kind, to_broker, nth=3)
    texts = ["%s %d" % (name, i) for i in range(12)]
    p = Pub(g, "dev-1", topic, "-q", "2", address=proxy.address)
    p.wait_open()
    p.line(*texts)
    proxy.wait()
    tap.equal(p.finish(), 0, "exit code: all was acknowledged: " + p.text())
    pub_ok(g, "dev-1", topic, "-q", "2", "-m", "end")
    sub.wait_text_message("end")
    tap.equal(sub.texts(), texts + ["end"], "each once and in order, cut at " + name)
    tap.equal({m["qos"] for m in sub.messages()}, {2}, "QoS")
    tap.true(p.text().count("sending PUBLISH (d0, q2") > len(texts), "some were sent again")
    tap.equal(sub.stop(), 0, "exit code of the receiver")
    proxy.close()


@tap.test
def publisher():
    "ssdtf-pub -q 2, cut at PUBLISH, PUBREC, PUBREL or PUBCOMP: each message arrives once"
    publisher_cut_at(mqtt.PUBLISH, "PUBLISH", True)
    publisher_cut_at(mqtt.PUBREC, "PUBREC", False)
    publisher_cut_at(mqtt.PUBREL, "PUBREL", True)
    publisher_cut_at(mqtt.PUBCOMP, "PUBCOMP", False)


def receiver_cut_at(kind, name, to_broker, more, qos, kept, nth=1):
    """kept: whether the message whose exchange was cut is to arrive all the same."""
    topic = "plant/sub/%s-%d" % (name.lower(), qos)
    proxy = Cutting(kind, to_broker, nth)
    sub = Sub(g, "rx-2", topic, qos=qos, more=more, address=proxy.address)
    pub_ok(g, "dev-1", topic, "-q", "2", "-m", "cut")
    proxy.wait()
    sub.wait_subscribed(2)
    after = ["after %d" % i for i in range(5)]
    pub_ok(g, "dev-1", topic, "-q", "2", "-l", stdin="".join(t + "\n" for t in after))
    sub.wait_text_message(after[-1])
    tap.equal(sub.texts(), (["cut"] if kept else []) + after, "what arrived, cut at " + name)
    tap.equal(sub.stop(), 0, "exit code")
    proxy.close()


@tap.test
def receiver():
    "ssdtf-sub -q 2, cut at PUBREC, PUBREL or PUBCOMP: nothing comes twice, all that follows once"
    # The session ends with the connection, and with it what it had not handed over.
    receiver_cut_at(mqtt.PUBREC, "PUBREC", True, (), 2, False)
    receiver_cut_at(mqtt.PUBREL, "PUBREL", False, (), 2, False)
    receiver_cut_at(mqtt.PUBCOMP, "PUBCOMP", True, (), 2, True)


@tap.test
def kept_session():
    "ssdtf-sub -c -q 1, cut at PUBLISH or PUBACK: the message comes once"
    # Behind challenge and result.
    receiver_cut_at(mqtt.PUBLISH, "PUBLISH", False, ("-c",), 1, True, nth=3)
    receiver_cut_at(mqtt.PUBACK, "PUBACK", True, ("-c",), 1, True)


@tap.test
def wills():
    "a Will of QoS 2 comes once, at QoS 2, when its sender dies"
    sub = Sub(g, "rx-1", "plant/will", qos=2)
    p = Pub(g, "dev-1", "plant/x", "-q", "2", "--will-topic", "plant/will", "--will-payload",
            "gone", "--will-qos", "2")
    p.wait_open()
    p.kill()
    tap.equal(sub.wait_text_message("gone")["qos"], 2, "QoS of the Will")
    pub_ok(g, "dev-1", "plant/will", "-q", "2", "-m", "end")
    sub.wait_text_message("end")
    tap.equal(sub.texts(), ["gone", "end"], "texts")
    sub.stop()


@tap.test
def options():
    "there is no QoS 3, and -q 2 does not go with -c for a receiver"
    for more in (("-q", "3"), ("--will-topic", "plant/will", "--will-qos", "3")):
        tap.equal(pub(g, "dev-1", "plant/x", "-m", "x", *more).returncode, clients.USAGE,
                  "exit code: %r" % (more,))
    sub = Sub(g, "rx-1", "plant/x", qos=2, more=("-c",), wait=False)
    tap.equal(sub.wait(), clients.USAGE, "exit code of ssdtf-sub -q 2 -c")
    tap.true("-q 2 does not go with -c" in sub.text(), sub.text())
    pub_ok(g, "dev-1", "plant/x", "-q", "2", "-c", "-m", "a publisher may")


tap.main(setup)
