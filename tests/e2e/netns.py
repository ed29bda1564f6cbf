# SPDX-License-Identifier: MIT
"""A network namespace and a mount namespace for this process and all that it starts, so that a
test may count TCP's counters as its own, set what the kernel lets only one set, and pin BPF objects
where nobody else sees them.

    enter()          from then on; Impossible where it may not be
    setting()        one of /proc/sys/net, for as long as a with block lasts
    tcp_counters()   of the namespace
    sockets()        TCP's, with their states
    segment(), Raw   segments that no socket sent, with any source
    Stale            a connection of which the other side knows nothing (more)

Only loopback is there: 127.0.0.0/8, ::1, and what add_ipv6() adds.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import tempfile

import tap

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 0x20, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCGIFINDEX = 0x8913, 0x8914, 0x8916, 0x8933
IFF_UP = 1

ESTABLISHED, SYN_RECV, CLOSE_WAIT, LISTEN = 1, 3, 8, 10  # include/net/tcp_states.h
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_WINDOW = 19, 20, 21, 29
TCP_REPAIR_ON, TCP_REPAIR_OFF_NO_WP = 1, -1
RECV_QUEUE, SEND_QUEUE = 1, 2

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong,
                       ctypes.c_char_p]
outside = {}  # settings that are the machine's on this kernel: name -> fd


class Impossible(Exception):
    """What keeps these tests from running here."""


def call(what, result):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, "%s: %s" % (what, os.strerror(e)))
    return result


def path_of(name):
    return "/proc/sys/net/" + name


def enter(machine_wide=()):
    """machine_wide: settings that older kernels have once for all namespaces."""
    if os.geteuid():
        raise Impossible("only root makes namespaces")
    kept = {name: os.open(path_of(name), os.O_RDWR | os.O_CLOEXEC) for name in machine_wide}
    try:
        call("unshare", libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
        mount("none", "/", None, MS_REC | MS_PRIVATE)
    except OSError as e:
        raise Impossible("no namespaces here: %s" % e.strerror) from None
    outside.update((name, fd) for name, fd in kept.items() if not os.path.exists(path_of(name)))
    for fd in outside.values():
        fcntl.flock(fd, fcntl.LOCK_SH)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        name = b"lo".ljust(16, b"\0")
        got = fcntl.ioctl(s, SIOCGIFFLAGS, name + bytes(24))
        flags = struct.unpack_from("H", got, 16)[0] | IFF_UP
        fcntl.ioctl(s, SIOCSIFFLAGS, name + struct.pack("H", flags) + bytes(22))


def add_ipv6(address):
    """One more address of loopback."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        index = struct.unpack_from("i", fcntl.ioctl(s, SIOCGIFINDEX,
                                                    b"lo".ljust(16, b"\0") + bytes(24)), 16)[0]
        fcntl.ioctl(s, SIOCSIFADDR, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, address),
                                                128, index))


# --- mounts -------------------------------------------------------------------------------------

def mount(source, target, kind, flags=0, data=None):
    call("mount " + target, libc.mount(source.encode(), target.encode(), kind and kind.encode(),
                                       flags, data and data.encode()))


def unmount(target):
    libc.umount2(target.encode(), MNT_DETACH)


def bpffs(path):
    """Mounts a bpffs that all may walk through; it is gone with the test program."""
    os.makedirs(path, exist_ok=True)
    try:
        mount("bpf", path, "bpf", 0, "mode=0755")
    except OSError as e:
        raise Impossible("no bpffs: %s" % e.strerror) from None
    tap.at_end(lambda: unmount(path))
    return path


def read_only(source):
    """A folder's contents at another place, where everybody may get at them; the place. Nothing
    can be removed through it, and only rmdir removes the place itself."""
    target = tempfile.mkdtemp(prefix="ssdtf-e2e.")

    def end():
        unmount(target)
        os.rmdir(target)

    tap.at_end(end)
    mount(source, target, None, MS_BIND)
    mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    return target


# --- settings and counters ----------------------------------------------------------------------

def read_setting(name):
    if name in outside:
        return os.pread(outside[name], 100, 0).decode().strip()
    with open(path_of(name), encoding="ascii") as f:
        return f.read().strip()


def write_setting(name, value):
    if name in outside:
        os.pwrite(outside[name], str(value).encode(), 0)
    else:
        with open(path_of(name), "w", encoding="ascii") as f:
            f.write(str(value))


class setting:
    """with setting("ipv4/tcp_syncookies", 2): ..."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def __enter__(self):
        self.before = read_setting(self.name)
        tap.at_end(self.restore)  # a machine's own must come back whatever happens
        write_setting(self.name, self.value)
        return self

    def restore(self):
        if read_setting(self.name) != self.before:
            write_setting(self.name, self.before)

    def __exit__(self, *_):
        self.restore()


@contextlib.contextmanager
def machine_alone():
    """While no other test program is in the namespaces of enter(), where a setting is the
    machine's; at once where all are the namespace's own."""
    for fd in outside.values():
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        for fd in outside.values():
            fcntl.flock(fd, fcntl.LOCK_SH)


def tcp_counters():
    """{"PassiveOpens": 3, ...} of /proc/net/snmp's Tcp and /proc/net/netstat's TcpExt."""
    out = {}
    for path, group in (("/proc/net/snmp", "Tcp:"), ("/proc/net/netstat", "TcpExt:")):
        with open(path, encoding="ascii") as f:
            rows = [line.split()[1:] for line in f if line.startswith(group)]
        out.update(zip(rows[0], map(int, rows[1])))
    return out


def passive_opens():
    """Connections that got a socket of their own by now."""
    return tcp_counters()["PassiveOpens"]


class Sock:
    """A line of /proc/net/tcp or tcp6."""

    def __init__(self, line):
        fields = line.split()
        self.local, self.remote = self.end(fields[1]), self.end(fields[2])
        self.state = int(fields[3], 16)
        self.queued = int(fields[4].split(":")[1], 16)  # of a listener: waiting for accept()

    @staticmethod
    def end(text):
        address, port = text.split(":")
        words = struct.unpack(">%dI" % (len(address) // 8), bytes.fromhex(address))
        packed = struct.pack("=%dI" % len(words), *words)
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        return socket.inet_ntop(family, packed), int(port, 16)


def sockets(port, *states):
    """Those at this local port."""
    out = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(path):
            with open(path, encoding="ascii") as f:
                out += [Sock(line) for line in f.read().splitlines()[1:]]
    return [s for s in out if s.local[1] == port and (not states or s.state in states)]


# --- segments of one's own ----------------------------------------------------------------------

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(source, target, flags, seq=1, ack=1, payload=b"", window=65535):
    """An IPv4 packet; source and target are (address, port)."""
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    head = struct.pack(">HHIIBBHHH", source[1], target[1], seq, ack, 5 << 4, flags, window, 0, 0)
    pseudo = addresses + struct.pack(">HH", socket.IPPROTO_TCP, len(head) + len(payload))
    tcp = head[:16] + struct.pack(">H", checksum(pseudo + head + payload)) + head[18:] + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0)
    return ip[:10] + struct.pack(">H", checksum(ip + addresses)) + addresses + tcp


class Raw:
    """Sends segments and sees all that arrive in this namespace."""

    def __init__(self):
        self.out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.seen = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.seen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.out.close()
        self.seen.close()

    def send(self, source, target, flags, **named):
        self.out.sendto(segment(source, target, flags, **named), (target[0], 0))

    def wait(self, source, target, flag, seconds=10):
        """(seq, ack) of the next segment from source to target that has the flag; None."""
        self.seen.settimeout(seconds * tap.SCALE)
        while True:
            try:
                data = self.seen.recv(65536)
            except socket.timeout:
                return None
            tcp = data[(data[0] & 15) * 4:]
            ports = struct.unpack(">HH", tcp[:4])
            if (ports == (source[1], target[1]) and tcp[13] & flag
                    and data[12:20] == socket.inet_aton(source[0]) + socket.inet_aton(target[0])):
                return struct.unpack(">II", tcp[4:12])


class Stale:
    """
    A client's socket that thinks it is connected to target, which has never heard of it, or no
    longer: a socket in the repair mode that checkpoints use needs no handshake. like: an open
    socket that is to live on as this one; it ends, and the other side is not told.
    """

    def __init__(self, source, target, like=None):
        state = [(RECV_QUEUE, 1000), (SEND_QUEUE, 2000)]
        if like:
            source, target = like.getsockname(), like.getpeername()
            like.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON)
            state = [(queue, self.sequence(like, queue)) for queue, _ in state]
            like.close()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON)
        self.socket.bind(source)
        for queue, n in state:
            self.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
            self.socket.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("=I", n))
        self.target, self.received = target, state[0][1]

    @staticmethod
    def sequence(s, queue):
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        return struct.unpack("=I", s.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, 4))[0]

    def open(self):
        self.socket.connect(self.target)
        window = struct.pack("=5I", self.received, 65535, 65535, 65535, self.received)
        self.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, window)
        self.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        return self.socket


# --- what a client sees -------------------------------------------------------------------------

def client(target, source=None, seconds=10):
    """A connected socket. To close it is to reset it: else it would go on sending what nobody took,
    and be counted when the next test counts."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    s = socket.socket(family)
    try:
        if source:
            s.bind((source, 0))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.settimeout(seconds * tap.SCALE)
        s.connect(target)
    except BaseException:
        s.close()
        raise
    return s
