#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""A broker without any capability behind the admission filter that ssdtf-admit pinned: who gets a
socket, who is told, who is banned, and what the broker makes the filter do."""

import os
import signal
import socket
import struct
import time

import filtered
import mqtt
import netns
import tap
from filtered import Token, connack
from mqtt import Session

GARBAGE = b"GET / HTTP/1.1\r\n\r\n"
LIMITS = {"admission-grace-ms": 0}
DEVICES = ["dev-1", "dev-2", "x", "y" * 64]
HOUR_MS = 3600 * 1000
REFUSED = 5  # CONNACK
FLOOD = 40  # segments between two looks

pins = g = None


def setup():
    global pins, g
    pins = filtered.Pins(os.path.join(BPFFS, "ssdtf"))
    g = filtered.Gateway(pins.path)
    g.addresses = [g.host, "::1"]
    g.ports = dict.fromkeys(g.addresses, 0)
    g.scope("plant", "plant/#")
    for name in DEVICES:
        g.device(name, "plant")
    g.device("no-clock", "plant", options=["--no-clock"])
    g.receiver("rx-1", "plant")
    g.start()
    pins.wait_enforcing()
    tap.after_each(between)


def between():
    """The next test finds a broker as the first one did, whatever became of this one."""
    if g.stopped:
        return
    if g.options["admission"] != "enforce" or g.limits != LIMITS:
        g.broker.kill()
        g.options["admission"], g.limits = "enforce", dict(LIMITS)
    pins.bans.clear()
    pins.tell_again()
    g.mend()
    pins.wait_enforcing()


class Count:
    """Counters from now on."""

    def __init__(self):
        self.before, self.opens = pins.counts(), netns.passive_opens()

    def of(self, name):
        return pins.count(name) - self.before[name]

    def wait(self, name, n=1):
        pins.wait(name, self.before[name] + n)

    def opened(self):
        return netns.passive_opens() - self.opens


def by_broker(verdict):
    """How often the broker itself gave this verdict, since its start."""
    lines = dict(line.split(" ", 1) for line in g.ask("admission").splitlines()[1:])
    return int(lines["broker." + verdict])


def token(party_id="dev-1"):
    return Token.of(g.party(party_id))


def ask(data, address=None, source=None):
    with netns.client(address or g.address, source) as s:
        s.sendall(data)
        return connack(s)


def dropped(data, verdict, address=None, source=None):
    """Sent, and counted; no socket is made. Its socket, which still waits."""
    count = Count()
    s = netns.client(address or g.address, source)
    s.sendall(data)
    count.wait(verdict)
    tap.equal(count.opened(), 0, "PassiveOpens: " + verdict)
    return s


def not_admitted(data, verdict, source=None):
    """Answers are allowed: it is told, or not heard, but never let in."""
    pins.tell_again()
    count = Count()
    with netns.client(g.address, source) as s:
        s.sendall(data)
        count.wait(verdict)
        tap.true(count.opened() == 0 or connack(s) == REFUSED, verdict + ": it is let in")
    pins.tell_nobody()


def delivered(text, address=None):
    """A device connects, authenticates and publishes; a receiver gets it."""
    with Session(address or g.address, g.party("rx-1")) as r:
        r.subscribe("plant/x")
        count = Count()
        with Session(address or g.address, g.party("dev-1", int(time.time() * 1000))) as d:
            tap.equal(count.opened(), 1, "PassiveOpens of a device")
            d.wait_acked(d.seal_and_publish("plant", "plant/x", text.encode()))
            tap.equal([x.plaintext for x in r.wait_deliveries(1)], [text.encode()], "delivery")


def nobody_else(address):
    """Who is not enrolled gets no socket; then a device does."""
    port, d = address[1], token()
    pins.tell_nobody()
    count, kept = Count(), []
    kept.append(netns.client(address))
    count.wait("bare")
    kept.append(netns.client(address))
    kept[-1].shutdown(socket.SHUT_WR)
    count.wait("bare", 3)
    for data, verdict in ((GARBAGE, "not_connect"), (mqtt.connect("stranger"), "no_token"),
                          (d.connect(key=bytes(16)), "bad_tag"),
                          (d.connect(party_id="stranger"), "unknown"),
                          (d.connect_5(key=bytes(16)), "bad_tag")):
        kept.append(dropped(data, verdict, address))
    tap.equal(count.opened(), 0, "PassiveOpens of those who are not enrolled")
    tap.equal(filtered.children(port, netns.ESTABLISHED, netns.CLOSE_WAIT), 0, "their sockets")
    delivered("a device connects", address)
    for s in kept:
        s.close()


# --- who gets a socket --------------------------------------------------------------------------

@tap.test
def attached():
    "a broker of uid 65534 without any capability has the filter, its devices and its clock"
    with open("/proc/%d/status" % g.broker.pid, encoding="ascii") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    tap.equal(set(status["Uid"].split()), {str(filtered.NOBODY)}, "user ids")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        tap.equal(int(status[name], 16), 0, name)
    g.broker.wait_text(r"event=admission kernel=on")
    for name in DEVICES + ["no-clock", "rx-1"]:
        tap.true(pins.has_device(name), "%s is in the map" % name)
    tap.equal(len(pins.devices.keys()), len(DEVICES) + 2, "devices")
    off = struct.unpack_from("=Q", pins.config.get(bytes(4)))[0] + filtered.boot_ns()
    tap.true(abs(off - time.time_ns()) < 5 * filtered.SECOND, "the filter's clock is ours")
    answer = g.ask("admission")
    for line in ("mode enforce", "kernel on", "enforcing on", "devices %d" % (len(DEVICES) + 2)):
        tap.true(line in answer.splitlines(), "%r in %r" % (line, answer))


@tap.test
def no_socket():
    "no socket for who is silent, FINs, sends garbage, a bad token or an unknown id; IPv4"
    nobody_else(g.address)


@tap.test
def no_socket_cookies():
    "the same with SYN cookies for everybody"
    with netns.setting("ipv4/tcp_syncookies", 2):
        nobody_else(g.address)


@tap.test
def no_socket_ipv6():
    "the same over IPv6, without and with cookies"
    nobody_else(g.at("::1"))
    with netns.setting("ipv4/tcp_syncookies", 2):
        nobody_else(g.at("::1"))


@tap.test
def ids_and_will():
    "client ids of 1 and of 64 bytes, and one with a Will, authenticate"
    pins.tell_nobody()
    for name in ("x", "y" * 64):
        Session(g.address, g.party(name)).disconnect()
    party = g.party("dev-2", int(time.time() * 1000))
    will = mqtt.Will("plant/will", party.sealed("plant", "plant/will", b"gone", 1), 1)
    Session(g.address, party, will=will).disconnect()


@tap.test
def told():
    "a client that is set up wrongly gets CONNACK 5 first, then silence; the counters say so"
    d, count = token(), Count()
    tries = ((d.connect(key=bytes(16)), "bad_tag"), (d.connect(party_id="stranger"), "unknown"),
             (d.connect(password=b""), "no_token"))
    for data, verdict in tries:
        tap.equal(ask(data), REFUSED, "CONNACK: " + verdict)
        tap.equal(count.of(verdict), 1, verdict)
    tap.equal((count.of("told"), count.opened()), (len(tries), len(tries)), "told, and sockets")
    pins.tell_nobody()
    n = count.of("dropped")
    for data, verdict in ((d.connect(key=bytes(16)), "bad_tag"), (GARBAGE, "not_connect")):
        with dropped(data, verdict) as s:
            s.settimeout(0.2)
            try:
                raise AssertionError("there comes %r" % s.recv(1))
            except socket.timeout:
                pass
    tap.true(count.of("dropped") >= n + 4, "dropped: two bare ACKs, two with data")
    tap.equal(count.of("told"), len(tries), "told")
    answer = g.ask("sources")
    tap.true("source 127.0.0.1 " in answer, "the source is listed: %r" % answer)


@tap.test
def told_budget():
    "the budgets of the configuration are the filter's"
    g.restart_broker(told_per_second=1, told_total_per_second=50, connects_per_second=5,
                     no_clock_ms=HOUR_MS)
    rates = struct.unpack_from("=" + "QII" * 4, pins.config.get(bytes(4)), 24)
    device, no_clock, one, total = (rates[i:i + 2] for i in range(0, 12, 3))
    second = filtered.SECOND
    tap.equal((device[0], no_clock[0], one[0], total[0]),
              (second // 5, HOUR_MS * 10**6, second, second // 50), "intervals")
    tap.true(1 <= one[1] <= 10 and device[1] >= 5 and no_clock[1] == 1, "bursts: %r" % (rates,))


# --- segments -----------------------------------------------------------------------------------

@tap.test
def split():
    "a CONNECT in two to five segments, and one sent byte by byte, get in"
    d = token()

    def send(parts):
        data = d.connect()
        step = -(-len(data) // parts)
        s = netns.client(g.address, seconds=30)
        for i in range(0, len(data), step):
            s.sendall(data[i:i + step])
        return s

    pins.tell_nobody()
    clients = [send(parts) for parts in range(2, 6)]
    for s in clients:
        tap.equal(connack(s), 0, "CONNACK")
        s.close()
    pins.tell_again()
    with send(1000) as s:
        tap.equal(connack(s), 0, "CONNACK")


@tap.test
def queue_full():
    "a broker that stands still: retransmissions are let in, and all devices get in at the end"
    with netns.setting("core/somaxconn", 1):
        g.restart_broker()
    pins.wait_enforcing()
    d, count, clients = token(), Count(), []
    overflows = netns.tcp_counters()["ListenOverflows"]
    g.broker.signal(signal.SIGSTOP)
    try:
        clients = [netns.client(g.address, seconds=60) for _ in range(6)]
        for s in clients:
            s.sendall(d.connect())
        count.wait("ok", 6)
        count.wait("ok_again", 2)
    finally:
        g.broker.signal(signal.SIGCONT)
    tap.true(netns.tcp_counters()["ListenOverflows"] > overflows, "the queue was full")
    for s in clients:
        tap.equal(connack(s), 0, "CONNACK")
        s.close()
    tap.equal((count.of("ok"), count.of("replayed")), (6, 0), "ok, replayed")


@tap.test
def stale():
    "a connection that a killed broker forgot: its next packet is answered with RST at once"
    for grace in (0, HOUR_MS):
        s = Session(g.address, g.party("dev-1"))
        s.settle()
        stale_socket = netns.Stale(None, None, like=s.socket)
        g.broker.kill()
        g.limits["admission-grace-ms"] = grace
        g.start_broker()
        pins.wait_enforcing(not grace)
        pins.pend.clear()  # the connection is older than a half-open one may be
        count = Count()
        with stale_socket.open() as client:
            client.settimeout(15 * tap.SCALE)
            client.sendall(mqtt.packet(mqtt.PINGREQ))
            try:
                raise AssertionError("no RST, but %r" % client.recv(1))
            except ConnectionResetError:
                pass
        tap.true(count.of("stray") >= 1, "stray")  # others may still send their last words
        tap.equal(count.opened(), 0, "sockets")
        Session(g.address, g.party("dev-1")).disconnect()


@tap.test
def replay():
    "a captured CONNECT gets nobody a socket; its device connects again with a fresh token"
    d = token()
    data = d.connect()
    with netns.client(g.address) as first:
        first.sendall(data)
        tap.equal(connack(first), 0, "CONNACK of the first")
        not_admitted(data, "replayed", source="127.0.0.40")
        dropped(data, "replayed").close()
        dropped(data, "replayed", source="127.0.0.41").close()
        tap.equal(ask(d.connect()), 0, "CONNACK of a fresh token")
    g.restart_broker()  # which forgets what it saw; the filter does not
    pins.wait_enforcing()
    not_admitted(data, "replayed")
    delivered("after replays")


@tap.test
def slots():
    "tokens of another time are refused, and slot 0 of a device with a clock"
    now = int(time.time()) // filtered.SLOT_SECONDS
    d = token()
    pins.tell_nobody()
    tap.equal(ask(d.connect(slot=now)), 0, "CONNACK of now")
    for slot in (now - 3, now + 3, 0, 0xFFFFFFFF):
        dropped(d.connect(slot=slot), "slot").close()


@tap.test
def no_clock():
    "a device without a clock connects with slot 0, and seldom"
    g.restart_broker(no_clock_ms=HOUR_MS)
    pins.wait_enforcing()
    pins.tell_nobody()
    d = token("no-clock")
    Session(g.address, g.party("no-clock")).disconnect()
    dropped(d.connect(slot=0), "rate").close()
    not_admitted(d.connect(slot=0), "rate")
    tap.equal(ask(token().connect()), 0, "CONNACK of another")


@tap.test
def device_rate():
    "a device that connects too often is dropped, another one is not"
    g.restart_broker(connects_per_second=1)
    pins.wait_enforcing()
    pins.tell_nobody()
    d, count, clients = token(), Count(), []

    def too_many():
        clients.append(netns.client(g.address))
        clients[-1].sendall(d.connect())
        return count.of("rate")

    tap.eventually(too_many, "rate")
    tap.equal(ask(token("dev-2").connect()), 0, "CONNACK of another")
    for s in clients:
        s.close()
    tap.eventually(lambda: ask_patiently(d.connect()) == 0, "it gets in again")


def ask_patiently(data):
    """As ask(), but silence is an answer, too."""
    try:
        return ask(data)
    except (mqtt.Silence, OSError):
        return None


# --- bans ---------------------------------------------------------------------------------------

def fails(source):
    """A valid token, but another's signature."""
    s = Session(g.address, g.party("dev-1"), source=source, authenticate=False)
    s.send_connect()
    s.take_connack()
    challenge = s.take_challenge()
    s.party.signing = g.party("dev-2").signing
    s.answer(challenge)
    tap.equal(s.closes(), [], "what comes behind a wrong response")
    s.close()


def is_banned(source, address=None):
    """Its SYN is dropped."""
    count = Count()
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as s:
        s.bind((source, 0))
        s.setblocking(False)
        s.connect_ex(address or g.address)
        count.wait("banned")


@tap.test
def ban_of_failures():
    "who fails to authenticate so often is banned, over a restart too; others are not"
    source = "127.0.0.21"
    g.restart_broker(ban_failures=3, ban_ms=HOUR_MS)
    pins.wait_enforcing()
    for i in range(3):
        tap.equal(pins.bans.keys(), [], "bans after %d failures" % i)
        fails(source)
    tap.eventually(lambda: pins.bans.keys() == [filtered.source_of(source)], "the ban")
    is_banned(source)
    tap.true("ban %s " % source in g.ask("bans"), "it is listed")
    Session(g.address, g.party("dev-1"), source="127.0.0.23").disconnect()
    g.restart_broker()
    pins.wait_enforcing()
    is_banned(source)
    tap.equal(g.ask("unban " + source), "ok\n", "unban")
    tap.equal(pins.bans.keys(), [], "bans")
    Session(g.address, g.party("dev-1"), source=source).disconnect()
    tap.true(g.ask("unban " + source).startswith("error "), "unban once more")


@tap.test
def ban_of_told():
    "rejected CONNECTs on connections that were let in count, too"
    g.restart_broker(ban_failures=4, ban_ms=HOUR_MS)
    pins.wait_enforcing()
    d = token()
    for i in range(4):
        tap.equal(ask(d.connect(key=bytes(16)), source="127.0.0.24"), REFUSED, "CONNACK")
    tap.eventually(lambda: pins.bans.keys() == [filtered.source_of("127.0.0.24")], "the ban")
    is_banned("127.0.0.24")


@tap.test
def ban_ends():
    "a ban by an operator holds, and ends by itself"
    tap.equal(g.ask("ban 127.0.0.25 %d" % (2 + tap.SCALE // 2)), "ok\n", "ban")
    is_banned("127.0.0.25")
    tap.eventually(lambda: "127.0.0.25" not in g.ask("bans"), "the ban is over", 20)
    Session(g.address, g.party("dev-1"), source="127.0.0.25").disconnect()
    tap.equal(g.ask("ban fd00::1 3600"), "ok\n", "ban of an IPv6 network")
    is_banned("fd00::1", g.at("::1"))
    Session(g.at("::1"), g.party("dev-1"), source="fd00:0:0:1::1").disconnect()
    tap.equal(g.ask("unban fd00::1"), "ok\n", "unban")
    Session(g.at("::1"), g.party("dev-1"), source="fd00::1").disconnect()


@tap.test
def spoofed():
    "what a forger sends in another's name gets nobody banned"
    g.restart_broker(ban_failures=3, ban_ms=HOUR_MS)
    pins.wait_enforcing()
    d, count = token(), Count()
    with netns.Raw() as raw:
        for i in range(50):
            source = ("127.0.0.26", 23000 + i)
            raw.send(source, g.address, netns.SYN, seq=100, ack=0)
            raw.send(source, g.address, netns.ACK | netns.PSH, seq=101, ack=1,
                     payload=d.connect(key=bytes(16)))
    count.wait("bad_tag", 50)
    Session(g.address, g.party("dev-1"), source="127.0.0.26").disconnect()
    tap.equal((pins.bans.keys(), count.opened()), ([], 1), "bans, sockets")


# --- what the broker makes it do ----------------------------------------------------------------

@tap.test
def enrolment():
    "with a new bundle a new device is let in at once, and a revoked one no longer"
    pins.tell_nobody()
    tap.true(not pins.has_device("dev-9"), "it is not in the map yet")
    g.device("dev-9", "plant")
    path = g.path("dev-9")
    g.manager.admin("bundle", "party", "--id", "dev-9", "--out", os.path.join(path, "bundle"))
    dropped(token("dev-9").connect(), "unknown").close()
    g.update()
    Session(g.address, g.party("dev-9")).disconnect()
    stays = Session(g.address, g.party("dev-2"))
    g.manager.admin("revoke", "device", "dev-9")
    g.ids.remove("dev-9")
    g.update()
    tap.true(not pins.has_device("dev-9"), "it is in the map no longer")
    dropped(token("dev-9").connect(), "unknown").close()
    stays.settle()
    stays.disconnect()


@tap.test
def grace():
    "within the grace the filter only counts, but bans hold"
    g.restart_broker(grace_ms=HOUR_MS)
    tap.equal(pins.flags(), filtered.ENFORCE_BANS, "flags")
    count, d = Count(), token()
    tap.equal(ask(d.connect(key=bytes(16))), REFUSED, "CONNACK")
    tap.equal((by_broker("bad_tag"), count.of("dropped"), count.opened()), (1, 0, 1),
              "bad_tag, dropped, sockets")
    g.ask("ban 127.0.0.27 3600")
    is_banned("127.0.0.27")


@tap.test
def monitor():
    "mode monitor counts all and refuses nobody who can authenticate"
    g.restart_broker({"admission": "monitor"})
    count, d = Count(), token()
    for data, verdict in ((d.connect(key=bytes(16)), "bad_tag"), (d.connect(slot=9), "slot"),
                          (d.connect(password=b""), "no_token"), (d.connect(), "ok")):
        n = by_broker(verdict)
        tap.equal(ask(data), 0, "CONNACK: " + verdict)
        tap.equal(by_broker(verdict), n + 1, verdict)
    g.ask("ban 127.0.0.28 3600")
    Session(g.address, g.party("dev-1"), source="127.0.0.28").disconnect()
    tap.equal((count.of("dropped"), count.of("told")), (0, 0), "dropped, told")


@tap.test
def auto():
    "mode auto: the filter counts while it is calm, drops under a flood, and counts again"
    g.restart_broker({"admission": "auto"}, pressure_per_second=5, calm_ms=1000)
    count, d = Count(), token()
    tap.equal(ask(d.connect(key=bytes(16))), REFUSED, "CONNACK while it is calm")
    tap.equal(count.of("dropped"), 0, "dropped while it is calm")
    source = ("127.0.0.29", 24000)
    with netns.Raw() as raw:

        def flood():
            raw.send(source, g.address, netns.SYN, seq=100, ack=0)
            for i in range(FLOOD):
                raw.send(source, g.address, netns.ACK | netns.PSH, seq=101, payload=GARBAGE)
            return pins.flags() & filtered.ENFORCE

        tap.eventually(flood, "the filter enforces")
        pins.tell_nobody()
        n = count.of("dropped")
        tap.eventually(lambda: flood() and count.of("dropped") > n, "garbage is dropped")
        Session(g.address, g.party("dev-1")).disconnect()
    pins.wait_enforcing(False)
    pins.tell_again()
    for word in ("yes", "no"):
        g.broker.wait_text("event=admission enforcing=" + word)
    tap.equal(ask(d.connect(key=bytes(16))), REFUSED, "CONNACK when it is calm again")
    Session(g.address, g.party("dev-1")).disconnect()


@tap.test
def alive_at_the_end():
    "after all this the broker ends in good order, and leaves a filter that the next one takes"
    g.restart_broker()
    pins.wait_enforcing()
    delivered("the last")
    g.stop()
    tap.true("BUG" not in g.broker.text(), "no BUG in the log")


BPFFS = filtered.enter()
tap.main(setup)
