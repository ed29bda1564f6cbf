#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""The admission filter on listening sockets of the test's own: what becomes of each segment, and
who gets a socket. The filter's configuration, clock and devices are the test's."""

import hashlib
import os
import socket
import struct
import threading

import filtered
import mqtt
import netns
import tap
from filtered import HOUR, SECOND, Listener

GARBAGE = b"GET / HTTP/1.1\r\n\r\n"
MAPPED = "::ffff:127.0.0.1"

pins = None


def setup():
    global pins
    pins = filtered.Pins(os.path.join(BPFFS, "segments"))


def bogus(listener, d, source=None, target=None):
    """Those who get nothing, each once; then one who does."""
    opens = netns.passive_opens()
    kept = []
    n = listener.count("bare")
    kept.append(listener.client(None, source, target))
    listener.wait("bare", n + 1)
    tap.true(netns.sockets(listener.port, netns.SYN_RECV)
             or netns.read_setting("ipv4/tcp_syncookies") == "2", "it is half open")
    kept.append(listener.client(None, source, target))
    kept[-1].shutdown(socket.SHUT_WR)
    listener.wait("bare", n + 3)  # its ACK and its FIN
    for data, verdict in ((GARBAGE, "not_connect"), (b"\x10", "split"),
                          (mqtt.packet(mqtt.PINGREQ), "not_connect"),
                          (mqtt.connect("stranger"), "no_token"),
                          (d.connect(password=b""), "no_token"),
                          (d.connect(key=bytes(16)), "bad_tag"),
                          (d.connect(party_id="stranger"), "unknown"),
                          (d.connect_5(key=bytes(16)), "bad_tag")):
        kept.append(listener.refuses(data, verdict, source, target))
    tap.equal(netns.passive_opens(), opens, "PassiveOpens of those who are not enrolled")
    tap.equal(filtered.children(listener.port, netns.ESTABLISHED, netns.CLOSE_WAIT), 0,
              "sockets for them")
    listener.admits(d.connect(), source, target)
    tap.equal(netns.passive_opens(), opens + 1, "PassiveOpens with one who is")
    for s in kept:
        s.close()


@tap.test
def no_socket():
    "no socket for who is silent, FINs, or sends garbage or a token that does not hold; IPv4"
    with Listener(pins) as listener:
        bogus(listener, listener.device("dev-1"))


@tap.test
def no_socket_cookies():
    "the same with SYN cookies for everybody"
    with netns.setting("ipv4/tcp_syncookies", 2), Listener(pins) as listener:
        before = netns.tcp_counters()["SyncookiesRecv"]
        bogus(listener, listener.device("dev-1"))
        tap.true(netns.tcp_counters()["SyncookiesRecv"] > before, "a cookie was used")


@tap.test
def no_socket_ipv6():
    "the same over IPv6, without and with cookies"
    with Listener(pins, "::1") as listener:
        bogus(listener, listener.device("dev-1"))
        with netns.setting("ipv4/tcp_syncookies", 2):
            bogus(listener, listener.device("dev-2"), "fd00::1")


@tap.test
def dual_stack():
    "a dual-stack listener takes both; an IPv4 peer is the same source as over IPv4"
    with Listener(pins, "::", dual=True) as listener:
        d = listener.device("dev-1")
        bogus(listener, d, target=("::1", listener.port))
        bogus(listener, d, target=("127.0.0.1", listener.port))
        ban = filtered.boot_ns() + HOUR
        pins.bans.put(filtered.source_of("127.0.0.9"), struct.pack("=Q", ban))
        listener.banned("127.0.0.9", ("127.0.0.1", listener.port))
        listener.admits(d.connect(), "127.0.0.8", ("127.0.0.1", listener.port))


@tap.test
def ids_of_1_and_64():
    "client ids of 1 and of 64 bytes are admitted; one of 65 is malformed"
    with Listener(pins) as listener:
        for n in (1, 63, 64):
            listener.admits(listener.device("i" * n).connect())
        too_long = filtered.Token("i" * 64, bytes(16)).connect(party_id="i" * 65,
                                                               password=bytes(13))
        listener.refuses(too_long, "malformed")
        listener.refuses(mqtt.connect("", "u", bytes(13)), "malformed")


@tap.test
def before_the_user_name():
    "a Will, and with MQTT 5 properties of both, may stand before the User Name"
    will = mqtt.Will("plant/will", b"w" * 300, 1, True)
    with Listener(pins) as listener:
        d = listener.device("dev-1")
        listener.admits(d.connect(will=will))
        listener.admits(d.connect_5())
        listener.admits(d.connect_5(properties=b""))
        listener.admits(d.connect_5(will=True, properties=b"\x26" + mqtt.string(b"k" * 100)
                                    + mqtt.string(b"v" * 300)))
        listener.refuses(d.connect(will=will, key=bytes(16)), "bad_tag")
        listener.refuses(d.connect_5(will=True, key=bytes(16)), "bad_tag")


@tap.test
def tail_arrives():
    "what follows the CONNECT in its segment arrives with it"
    with Listener(pins) as listener:
        d = listener.device("dev-1")
        listener.admits(d.connect() + mqtt.subscribe(1, ["plant/#"], 1) + bytes(200))


# --- segments in other ways ---------------------------------------------------------------------

@tap.test
def split_heals():
    "a CONNECT in two to five segments gets in once TCP sends it again"
    with Listener(pins) as listener:
        d = listener.device("dev-1")
        for parts in range(2, 6):
            data = d.connect()
            step = -(-len(data) // parts)
            s = listener.client()
            for i in range(0, len(data), step):
                s.sendall(data[i:i + step])
            child = listener.accept()
            got = b""
            while len(got) < len(data):
                got += child.recv(4096)
            tap.equal(got, data, "what arrives of %d segments" % parts)
            s.close()
            child.close()
        tap.true(listener.count("split") >= 4, "split: %r" % listener.counts())
        tap.equal(listener.count("told"), 0, "told")


@tap.test
def byte_by_byte():
    "a CONNECT sent byte by byte is let through within the budget"
    # Beyond it, it may never come in one segment: TCP holds back what its window has no room for.
    with Listener(pins, told_total=(HOUR, 1)) as listener:
        pins.tell_again()
        data = listener.device("dev-1").connect()
        s = listener.client()
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
        child = listener.accept(30)
        got = b""
        while len(got) < len(data):
            got += child.recv(4096)
        tap.equal(got, data, "what arrives")
        tap.equal(listener.count("told"), 1, "told: %r" % listener.counts())


@tap.test
def queue_full():
    "a full accept queue: retransmissions of an admitted CONNECT are let in, and all get in"
    with Listener(pins, backlog=1) as listener:
        d = listener.device("dev-1")
        clients = [listener.client() for _ in range(6)]
        listener.wait("bare", 6)
        sent = set()
        for s in clients:
            data = d.connect()
            sent.add(data)
            s.sendall(data)
        listener.wait("ok", 6)
        listener.wait("ok_again", 4)
        tap.true(netns.tcp_counters()["ListenOverflows"] > 0, "the queue was full")
        tap.equal({listener.accept(60).recv(4096) for _ in clients}, sent, "all got in")
        tap.equal((listener.count("ok"), listener.count("replayed")), (6, 0), "ok and replayed")


@tap.test
def replay():
    "a CONNECT that was seen is dropped from any other socket; a fresh one of its device is not"
    with Listener(pins) as listener:
        d = listener.device("dev-1")
        data = d.connect()
        first = listener.client(data)
        tap.equal(listener.accept().recv(4096), data, "the first")
        n = netns.passive_opens()
        for source in ("127.0.0.1", "127.0.0.7"):
            count = listener.count("replayed")
            listener.client(data, source)
            listener.wait("replayed", count + 1)
        tap.equal(netns.passive_opens(), n, "PassiveOpens")
        second = listener.client(d.connect())
        listener.accept().recv(4096)
        tap.equal(netns.passive_opens(), n + 1, "PassiveOpens with a fresh token")
        first.close()
        second.close()


@tap.test
def replayed_spoofed():
    "a captured CONNECT from its own address and port, but another sequence number, is a replay"
    with Listener(pins) as listener, netns.Raw() as raw:
        data = listener.device("dev-1").connect()
        s = listener.client(data, "127.0.0.6")
        listener.accept()
        source = s.getsockname()
        s.close()
        tap.eventually(lambda: not filtered.children(listener.port, netns.ESTABLISHED),
                       "the connection is reset")
        raw.send(source, listener.address, netns.SYN, seq=77, ack=0)
        raw.send(source, listener.address, netns.ACK | netns.PSH, seq=78, ack=1, payload=data)
        listener.wait("replayed")


# --- time and rates -----------------------------------------------------------------------------

@tap.test
def slots():
    "the slot of a token: the current one and one either side, none beyond"
    now = 60_000_000
    with Listener(pins) as listener:
        d = listener.device("dev-1")
        for apart in (-2, -1, 0, 1, 2):
            listener.set(slot=now)
            data = d.connect(slot=now + apart)
            if abs(apart) < 2:
                listener.admits(data)
            else:
                listener.refuses(data, "slot")
        listener.refuses(d.connect(slot=0xFFFFFFFF), "slot")
        for current in (0, 1):  # 1970, as a machine without a battery has it
            listener.set(slot=current)
            listener.refuses(d.connect(slot=0), "slot")
            listener.refuses(d.connect(slot=0xFFFFFFFF), "slot")


@tap.test
def no_clock():
    "slot 0 admits a device without a clock, at a rate of its own, and no other"
    with Listener(pins, no_clock=(HOUR, 1)) as listener:
        clock = listener.device("clock")
        no_clock = listener.device("no-clock", filtered.NO_CLOCK)
        listener.refuses(clock.connect(slot=0), "slot")
        listener.admits(no_clock.connect(slot=0))
        listener.refuses(no_clock.connect(slot=0), "rate")
        for _ in range(3):
            listener.admits(no_clock.connect())  # it has a clock by now
            listener.admits(clock.connect())


@tap.test
def rate():
    "a device's CONNECTs are limited, a replay uses up nothing, another device has its own limit"
    with Listener(pins, device=(HOUR, 3)) as listener:
        d, other = listener.device("dev-1"), listener.device("dev-2")
        data = d.connect()
        listener.admits(data)
        for _ in range(3):
            listener.refuses(data, "replayed")
        listener.admits(d.connect())
        listener.admits(d.connect())
        listener.refuses(d.connect(), "rate")
        listener.admits(other.connect())
        listener.time_passes(d, HOUR)
        listener.admits(d.connect())
        listener.refuses(d.connect(), "rate")


@tap.test
def told():
    "rejected CONNECTs of a source get through within its budget and all sources' budget"
    with Listener(pins, told=(HOUR, 2), told_total=(HOUR, 3)) as listener:
        pins.tell_again()
        d = listener.device("dev-1")
        for i, (source, passed) in enumerate((("127.0.0.5", True), ("127.0.0.5", True),
                                              ("127.0.0.5", False), ("127.0.0.4", True),
                                              ("127.0.0.4", False), ("127.0.0.3", False))):
            data = d.connect(key=bytes([i] * 16))
            if passed:
                listener.admits(data, source)
            else:
                listener.refuses(data, "bad_tag", source)
        tap.equal(listener.count("told"), 3, "told: %r" % listener.counts())
        tap.true(listener.count("dropped") >= 3, "dropped: %r" % listener.counts())


@tap.test
def monitor():
    "a filter that does not enforce counts all and drops nothing"
    with Listener(pins, enforce=False) as listener:
        d = listener.device("dev-1")
        for data, verdict in ((GARBAGE, "not_connect"), (d.connect(key=bytes(16)), "bad_tag"),
                              (d.connect(party_id="x"), "unknown"), (d.connect(), None)):
            listener.admits(data)
            tap.true(not verdict or listener.count("bare") >= 1, "the handshake's ACK")
        tap.equal((listener.count("dropped"), listener.count("told")), (0, 0), "dropped, told")
        with listener.client():
            listener.accept().close()


# --- bans and strays ----------------------------------------------------------------------------

@tap.test
def bans():
    "a ban drops even SYNs, in IPv6 of the whole /64, ends by itself, and spares everybody else"
    with Listener(pins, "::1") as listener:
        d = listener.device("dev-1")
        key = filtered.source_of("fd00::1")
        pins.bans.put(key, struct.pack("=Q", filtered.boot_ns() + HOUR))
        listener.banned("fd00::1")
        listener.admits(d.connect(), "fd00:0:0:1::1")
        listener.set(flags=filtered.ENFORCE)  # bans are not enforced
        listener.admits(d.connect(), "fd00::1")
        listener.set()
        s = socket.socket(socket.AF_INET6)
        s.bind(("fd00::1", 0))
        s.setblocking(False)
        n = listener.count("banned")
        s.connect_ex(listener.address)
        listener.wait("banned", n + 1)
        pins.bans.put(key, struct.pack("=Q", filtered.boot_ns() + SECOND))
        s.settimeout(30 * tap.SCALE)
        tap.eventually(lambda: s.connect_ex(listener.address) in (0, 106), "it gets in later", 30)
        s.sendall(d.connect())
        listener.accept().close()
        s.close()


@tap.test
def spoofed():
    "what a forger sends in another's name gets nobody banned and makes no socket"
    with Listener(pins) as listener, netns.Raw() as raw:
        d = listener.device("dev-1")
        n, opens = listener.count("bad_tag"), netns.passive_opens()
        for i in range(50):
            source = ("127.0.0.10", 20000 + i)
            raw.send(source, listener.address, netns.SYN, seq=100, ack=0)
            raw.send(source, listener.address, netns.ACK | netns.PSH, seq=101, ack=1,
                     payload=d.connect(key=bytes(16)))
        listener.wait("bad_tag", n + 50)
        tap.equal(pins.bans.keys(), [], "bans")
        tap.equal(netns.passive_opens(), opens, "PassiveOpens")
        listener.admits(d.connect(), "127.0.0.10")


@tap.test
def spoofed_good():
    "a good CONNECT without a handshake makes no socket"
    with Listener(pins) as listener, netns.Raw() as raw:
        d, opens = listener.device("dev-1"), netns.passive_opens()
        source = ("127.0.0.10", 20000)
        raw.send(source, listener.address, netns.SYN, seq=100, ack=0)
        listener.wait("syn")
        raw.send(source, listener.address, netns.ACK | netns.PSH, seq=101, ack=1,
                 payload=d.connect())
        listener.wait("ok")
        listener.admits(d.connect())
        tap.equal(netns.passive_opens(), opens + 1, "PassiveOpens")


@tap.test
def stray():
    "a segment of a connection that nobody knows is answered with RST, within a budget"
    with Listener(pins, stray=(HOUR, 2)) as listener, netns.Raw() as raw:
        for i in range(3):
            s = netns.Stale(("127.0.0.11", 21000 + i), listener.address).open()
            s.settimeout(15 * tap.SCALE)
            s.sendall(mqtt.packet(mqtt.PINGREQ))
            if i < 2:
                try:
                    tap.equal(s.recv(1), b"", "what comes instead of RST")
                    raise AssertionError("the connection ends, but not by RST")
                except ConnectionResetError:
                    pass
                tap.equal(listener.count("stray"), i + 1, "stray")
            else:
                listener.wait("not_connect")
                tap.equal(listener.count("stray"), 2, "stray: %r" % listener.counts())
            s.close()
        raw.send(("127.0.0.11", 21999), listener.address, netns.RST)
        listener.wait("rst")


@tap.test
def syn_with_others():
    "a SYN with ACK or FIN, which would end the handshake of a half-open connection, is dropped"
    with Listener(pins) as listener, netns.Raw() as raw:
        d, opens = listener.device("dev-1"), netns.passive_opens()
        source = ("127.0.0.11", 21500)
        with listener.client(None, source[0]) as s:  # its handshake's ACK was dropped
            listener.wait("bare")
            for flags in (netns.SYN | netns.ACK, netns.SYN | netns.FIN,
                          netns.SYN | netns.ACK | netns.PSH):
                for port in (source[1], s.getsockname()[1]):
                    n = listener.count("bare")
                    raw.send((source[0], port), listener.address, flags, seq=100)
                    listener.wait("bare", n + 1)
        tap.equal(netns.passive_opens(), opens, "PassiveOpens")
        listener.admits(d.connect())


@tap.test
def syn_with_data():
    "bytes that come with a SYN (TCP Fast Open) are left: they come again, and are judged"
    with Listener(pins) as listener, netns.Raw() as raw, netns.setting("ipv4/tcp_fastopen", 5):
        d, opens = listener.device("dev-1"), netns.passive_opens()
        for size in (0, 20, 400):
            source = ("127.0.0.12", 22000 + size)
            raw.send(source, listener.address, netns.SYN, seq=100, ack=0, payload=os.urandom(size))
            answer = raw.wait(listener.address, source, netns.SYN)
            tap.equal(answer and answer[1], 101, "acknowledged of a SYN with %d bytes" % size)
        tap.equal(netns.passive_opens(), opens, "PassiveOpens")
        for key, verdict in ((bytes(16), "bad_tag"), (None, None)):
            s = socket.socket()
            listener.open.append(s)
            data = d.connect(key=key)
            n = listener.count("bad_tag")
            s.sendto(data, socket.MSG_FASTOPEN, listener.address)
            if verdict:
                listener.wait(verdict, n + 1)
            else:
                tap.equal(listener.accept().recv(4096), data, "what arrives")
        tap.equal(netns.passive_opens(), opens + 1, "PassiveOpens with one that holds")


# --- accepted sockets ---------------------------------------------------------------------------

@tap.test
def transfer():
    "an accepted socket passes everything: a pipelined transfer both ways is intact"
    size = 8 << 20
    blob = os.urandom(1 << 20) * (size >> 20)

    def receive(s, n, out):
        digest = hashlib.sha256()
        while n:
            data = s.recv(min(n, 1 << 18))
            if not data:
                break
            digest.update(data)
            n -= len(data)
        out.append((n, digest.digest()))

    with Listener(pins) as listener:
        connect = listener.device("dev-1").connect()
        s = listener.client(connect)
        threads, results = [], []
        threads.append(threading.Thread(target=s.sendall, args=(blob,)))
        child = listener.accept()
        counts = listener.counts()
        threads.append(threading.Thread(target=child.sendall, args=(blob,)))
        for t in threads:
            t.daemon = True
            t.start()
        head = b""
        while len(head) < len(connect):
            head += child.recv(len(connect) - len(head))
        tap.equal(head, connect, "the CONNECT")
        for side in (s, child):
            side.settimeout(40 * tap.SCALE)
            threads.append(threading.Thread(target=receive, args=(side, size, results)))
            threads[-1].daemon = True
            threads[-1].start()
        for t in threads:
            t.join(40 * tap.SCALE)
        tap.equal(results, [(0, hashlib.sha256(blob).digest())] * 2, "what arrived")
        tap.equal(listener.counts(), counts, "verdicts while the children speak")


# --- listeners of the other kind ----------------------------------------------------------------

@tap.test
def other_listeners():
    "where the first segment is no CONNECT: bans and a limit to SYNs, and nothing else"
    with Listener(pins, program="filter_other", syn=(HOUR, 2)) as listener:
        listener.admits(b"\x16\x03\x01" + bytes(100), "127.0.0.13")
        with listener.client(None, "127.0.0.13"):
            listener.accept().close()
        pins.bans.put(filtered.source_of("127.0.0.15"),
                      struct.pack("=Q", filtered.boot_ns() + HOUR))
        listener.banned("127.0.0.15")
        for source, verdict in (("127.0.0.13", "syn_rate"), ("127.0.0.14", None)):
            n = listener.count("syn_rate")
            s = socket.socket()
            s.bind((source, 0))
            s.setblocking(False)
            s.connect_ex(listener.address)
            if verdict:
                listener.wait(verdict, n + 1)
            else:
                listener.accept().close()
            s.close()


BPFFS = filtered.enter()
tap.main(setup)
