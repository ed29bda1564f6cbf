# SPDX-License-Identifier: MIT
"""The admission filter for tests, with the real ssdtf-admit and the real broker.

    Pins      a set of pins that ssdtf-admit made: program, maps, counters
    Listener  a listening socket of the test's own behind the filter: every segment's fate is seen
    Token     CONNECTs with tokens, right or wrong
    Gateway   gateway.Gateway, its broker and hsmd an ordinary user's without any capability

What a test waits for is a counter of the filter or a packet, never a time.
"""

import os
import re
import shutil
import socket
import struct
import time

import bpf
import gateway
import mqtt
import netns
import ssdtf
import tap

NOBODY = 65534
USER, GROUP = "nobody", "nogroup"
UNPRIVILEGED = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
OPTMEM = "core/optmem_max"  # of a namespace since 6.7, the machine's before
OPTMEM_OF_6_1 = 20480
IPV6 = ["fd00::1", "fd00:0:0:1::1"]  # of two sources: only the first half counts

MAPS = ["totals", "devices", "bans", "pend", "seen", "config", "counters", "sources"]
SLOT_SECONDS = 30
ENFORCE, ENFORCE_BANS = 1, 2
NO_CLOCK = 1
SECOND = 10**9
HOUR = 3600 * SECOND
NEVER = 1 << 62  # of a TAT: used up for good

NO_LIMIT = (0, 1)


def header(pattern):
    text = gateway.read(os.path.join(gateway.SOURCE, "bpf", "admission.h")).decode()
    return re.findall(pattern, text)


VERDICTS = [name for _, name in header(r'\bX\((\w+), "(\w+)"\)')]
COUNTERS = {name: i for i, name in enumerate(VERDICTS + ["told", "dropped"])}


def skip_all(why):
    """Ends the test program: none of its tests can run here."""
    print("TAP version 13\n1..0 # SKIP %s" % why, flush=True)
    while tap.endings:
        tap.endings.pop()()
    raise SystemExit(0)


def enter():
    """Namespaces, a bpffs, and the programs where everybody may run them; the bpffs's path. To be
    called before tap.main(): where this is impossible, no test runs."""
    try:
        gateway.program("admit")
        bpf.check()
        netns.enter([OPTMEM])
        gateway.BUILD = netns.read_only(gateway.BUILD)
        base = gateway.folder()
        os.chmod(base, 0o755)
        # Else the times of clients that had to wait would be the next ones' time-outs.
        netns.write_setting("ipv4/tcp_no_metrics_save", 1)
        for address in IPV6:
            netns.add_ipv6(address)
        return netns.bpffs(os.path.join(base, "bpf"))
    except OSError as e:
        return skip_all("no filter here: %s" % (e.strerror or e))
    except netns.Impossible as e:
        return skip_all(str(e))


def admit(*args, **named):
    return gateway.run([gateway.program("admit"), *args], **named)


def source_of(address):
    """struct admission_source: IPv4 mapped, a host's address where it is a link's own or has zeros
    for a network, else the first half of IPv6."""
    if ":" in address:
        whole = socket.inet_pton(socket.AF_INET6, address)
        return whole if whole[:2] == b"\xfe\x80" or not any(whole[:8]) else whole[:8] + bytes(8)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Pins:
    """What ssdtf-admit pinned under path."""

    def __init__(self, path, *options):
        self.path = path
        gateway.must(admit("pin", "--pins", path, "--user", USER, "--group", GROUP, *options))
        for name in MAPS:
            setattr(self, name, bpf.Map(self.pin(name)))

    def pin(self, name):
        return os.path.join(self.path, name)

    def count(self, name):
        return self.counters.sum(struct.pack("=I", COUNTERS[name]))

    def counts(self):
        return {name: self.count(name) for name in COUNTERS}

    def wait(self, name, n, seconds=15):
        """Until the counter says n, or more."""
        tap.eventually(lambda: self.count(name) >= n, "%s is %d: %r" % (name, n, self.counts()),
                       seconds)

    def flags(self):
        return struct.unpack_from("=I", self.config.get(bytes(4)), 16)[0]

    def wait_enforcing(self, enforcing=True, seconds=15):
        tap.eventually(lambda: bool(self.flags() & ENFORCE) == enforcing,
                       "the filter %s" % ("enforces" if enforcing else "only counts"), seconds)

    def tell_nobody(self):
        """The budget for answers to rejected CONNECTs is used up."""
        self.totals.put(struct.pack("=I", 0), struct.pack("=Q", NEVER))

    def tell_again(self):
        self.totals.put(struct.pack("=I", 0), bytes(8))
        self.sources.clear()  # with what is left of each one's budget

    def has_device(self, party_id):
        return self.devices.get(party_id.encode().ljust(64, b"\0")) is not None

    def pending(self):
        return len(self.pend.keys())


class Token:
    """CONNECTs of a device, each with a User Name of its own."""

    def __init__(self, party_id, key):
        self.id, self.key = party_id, key

    @classmethod
    def of(cls, party):
        return cls(party.id, party.bundle.k_adm)

    def connect(self, slot=None, key=None, party_id=None, password=None, **named):
        user_name = ssdtf.user_name_of(os.urandom(32))
        party_id = party_id or self.id
        if slot is None:
            slot = int(time.time()) // SLOT_SECONDS
        if password is None:
            password = ssdtf.admission_token(key or self.key, party_id, user_name, slot)
        return mqtt.connect(party_id, user_name, password, **named)

    def connect_5(self, will=False, key=None, properties=b"\x11\x00\x00\x00\x3c"):
        """Of MQTT 5, with properties, and those of a Will, before the User Name."""
        user_name = ssdtf.user_name_of(os.urandom(32))
        token = ssdtf.admission_token(key or self.key, self.id, user_name,
                                      int(time.time()) // SLOT_SECONDS)
        body = mqtt.string("MQTT") + bytes([5, 0xC6 if will else 0xC2]) + struct.pack(">H", 60)
        body += variable(len(properties)) + properties + mqtt.string(self.id)
        if will:
            will_properties = b"\x18" + struct.pack(">I", 5) + b"\x03" + mqtt.string("text/plain")
            body += variable(len(will_properties)) + will_properties
            body += mqtt.string("plant/will") + mqtt.string(b"w" * 200)
        return mqtt.packet(mqtt.CONNECT, 0, body + mqtt.string(user_name) + mqtt.string(token))


def variable(n):
    """A Variable Byte Integer, as packet() makes it for a length."""
    return mqtt.packet(mqtt.CONNECT, 0, bytes(n))[1:-n if n else None]


class Listener:
    """A listening socket behind the filter whose maps are the test's own; the clock of its filter
    stands in the middle of a slot."""

    def __init__(self, pins, address="127.0.0.1", backlog=128, program="filter", dual=False,
                 enforce=True, **config):
        self.pins = pins
        for m in (pins.devices, pins.sources, pins.bans, pins.pend, pins.seen):
            m.clear()
        for i in range(2):
            pins.totals.put(struct.pack("=I", i), bytes(8))
        self.set(enforce=enforce, **config)
        pins.tell_nobody()
        self.start = pins.counts()
        self.opens = netns.passive_opens()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family)
        if dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bpf.attach(self.socket, pins.pin(program))
        self.socket.bind((address, 0))
        self.socket.listen(backlog)
        self.address = self.socket.getsockname()[:2]
        self.port = self.address[1]
        self.open = []

    def set(self, enforce=True, flags=None, pend_ns=60 * SECOND, slot=None, device=NO_LIMIT,
            no_clock=NO_LIMIT, told=NO_LIMIT, told_total=(HOUR, 1), stray=NO_LIMIT, syn=NO_LIMIT):
        """Rates are (interval in ns, burst). slot: the current one, if it is not that of now."""
        if flags is None:
            flags = (ENFORCE | ENFORCE_BANS) if enforce else 0
        wall = ((int(time.time()) // SLOT_SECONDS if slot is None else slot) * SLOT_SECONDS
                + SLOT_SECONDS // 2) * SECOND
        version = self.pins.config.get(bytes(4))[20:24]
        head = struct.pack("=QQI", (wall - boot_ns()) % (1 << 64), pend_ns, flags)
        self.pins.config.put(bytes(4), head + version + b"".join(
            struct.pack("=QII", interval, burst, 0)
            for interval, burst in (device, no_clock, told, told_total, stray, syn)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.open:
            s.close()
        self.socket.close()

    def device(self, party_id, flags=0):
        key = os.urandom(16)
        self.pins.devices.put(party_id.encode().ljust(64, b"\0"),
                              key + bytes(24) + struct.pack("=QQII", 0, 0, flags, 0))
        return Token(party_id, key)

    def time_passes(self, token, ns):
        """For the device's rate."""
        key = token.id.encode().ljust(64, b"\0")
        value = self.pins.devices.get(key)
        tats = [max(0, tat - ns) for tat in struct.unpack_from("=QQ", value, 40)]
        self.pins.devices.put(key, value[:40] + struct.pack("=QQ", *tats) + value[56:])

    def client(self, data=None, source=None, target=None):
        s = netns.client(target or self.address, source)
        self.open.append(s)
        if data is not None:
            s.sendall(data)
        return s

    def accept(self, seconds=15):
        self.socket.settimeout(seconds * tap.SCALE)
        s, _ = self.socket.accept()
        s.settimeout(seconds * tap.SCALE)
        self.open.append(s)
        return s

    def count(self, name):
        """Since the listener began."""
        return self.pins.count(name) - self.start[name]

    def counts(self):
        now = self.pins.counts()
        return {k: now[k] - n for k, n in self.start.items() if now[k] != n}

    def wait(self, name, n=1, seconds=15):
        self.pins.wait(name, self.start[name] + n, seconds)

    def admits(self, data, source=None, target=None):
        """A client that sends these bytes gets a socket, and they arrive."""
        with self.client(data, source, target) as s:
            child = self.accept()
            got = b""
            while len(got) < len(data):
                more = child.recv(65536)
                tap.true(more, "the connection ends early")
                got += more
            tap.equal(got, data, "what arrives")
            child.close()
            s.settimeout(15 * tap.SCALE)
            tap.equal(s.recv(1), b"", "the end")

    def refuses(self, data, verdict, source=None, target=None):
        """It gets none, and this is why. Returns its socket."""
        n, opens = self.count(verdict), netns.passive_opens()
        s = self.client(data, source, target)
        self.wait(verdict, n + 1)
        tap.equal(netns.passive_opens(), opens, "sockets made for it: " + verdict)
        tap.equal(children(self.port, netns.ESTABLISHED, netns.CLOSE_WAIT), 0, "children")
        return s

    def banned(self, source, target=None):
        """A SYN of this source is dropped."""
        n = self.count("banned")
        s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        self.open.append(s)
        s.bind((source, 0))
        s.setblocking(False)
        s.connect_ex(target or self.address)
        self.wait("banned", n + 1)


def connack(connected):
    """The CONNACK code that comes first on a socket; None where it ends without one."""
    c = mqtt.Connection.__new__(mqtt.Connection)
    c.socket, c.got = connected, b""
    try:
        return c.expect(mqtt.CONNACK).body[1]
    except mqtt.Closed:
        return None


def children(port, *states):
    return len(netns.sockets(port, *states))


class Gateway(gateway.Gateway):
    """Everything of it belongs to nobody; pins: where the filter is, None for no filter."""

    user = UNPRIVILEGED

    def __init__(self, pins=None, addresses=None, **named):
        super().__init__(**named)
        self.pins = pins
        self.addresses = addresses or [self.host]
        self.ports = {a: 0 for a in self.addresses}
        self.key = os.path.join(self.base, "manager.pub")
        shutil.copy(self.manager.public, self.key)
        self.control = os.path.join(self.run_dir, "control")
        self.options = {"manager-key": self.key, "admission": "enforce",
                        "control-socket": self.control}
        self.limits = {"admission-grace-ms": 0}
        if pins:
            self.options["admission-pins"] = pins

    def give_away(self):
        for top, folders, files in os.walk(self.base):
            for name in [top] + [os.path.join(top, n) for n in folders + files]:
                os.chown(name, NOBODY, NOBODY, follow_symlinks=False)

    def write_config(self):
        super().write_config()
        text = gateway.read(self.config).decode()
        listen = ", ".join('"%s:%d"' % ("[%s]" % a if ":" in a else a, self.ports[a])
                           for a in self.addresses)
        gateway.write(self.config, re.sub(r"^listen = .*", "listen = { %s }" % listen, text,
                                          count=1, flags=re.M))
        self.give_away()

    def start_hsmd(self, *options):
        self.give_away()
        self.hsmd = gateway.Process(
            "hsmd", self.user + [gateway.program("hsmd"), "run", *self.token.options(),
                                 "--socket-dir", self.run_dir, "--workers", str(self.workers),
                                 *options], self.token.env, self.log("hsmd"))
        return self.hsmd

    def start_broker(self, wait=True):
        self.write_config()
        self.broker = gateway.Process(
            "broker", self.user + [gateway.program("broker"), "--config", self.config],
            log=self.log("broker"))
        if wait:
            self.wait_ready()
        return self.broker

    def wait_ready(self, seconds=20):
        line = self.broker.wait_text(r"ready: listening on (.*)$", seconds=seconds).group(1)
        for word in line.split():
            address, port = word.rsplit(":", 1)
            self.ports[address.strip("[]")] = int(port)
        self.port = self.ports[self.host]

    def stop_broker(self):
        if self.broker.alive():
            tap.equal(self.broker.stop(), 0, "exit code of the broker")

    def restart_broker(self, options=None, **limits):
        """With other options and limits than now."""
        self.stop_broker()
        self.options.update(options or {})
        self.limits.update({"admission-" + k.replace("_", "-"): v for k, v in limits.items()})
        self.start_broker()

    def at(self, address):
        return address, self.ports[address]

    def deliver(self):
        super().deliver()
        self.give_away()

    def ask(self, request):
        """The answer of the broker's control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(mqtt.WAIT)
            s.connect(self.control)
            s.sendall(request.encode())
            return s.recv(1 << 20).decode()
