# SPDX-License-Identifier: MIT
"""bpf(2), as far as the tests of the admission filter look at pinned programs and maps.

    check()     may this process load a program?
    obj_get()   the fd of a pin
    attach()    a socket filter by its fd
    Map         bytes to bytes
"""

import ctypes
import errno
import os
import socket
import struct

CAP_PERFMON, CAP_BPF = 38, 39
MAP_CREATE, TYPE_LRU_HASH = 0, 9
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT, OBJ_GET, OBJ_INFO = 1, 2, 3, 4, 7, 15
F_RDONLY = 1 << 3
SO_ATTACH_BPF, SO_DETACH_BPF = 50, 27
ATTR_BYTES = 128
INFO_BYTES = 64  # of struct bpf_map_info, whose beginning is read
KEYS_MAX = 1 << 20
SYSCALL = {"x86_64": 321, "aarch64": 280}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr.ljust(ATTR_BYTES, b"\0"), ATTR_BYTES)
    got = libc.syscall(ctypes.c_long(SYSCALL[os.uname().machine]), ctypes.c_long(command), buffer,
                       ctypes.c_long(ATTR_BYTES))
    if got < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return got


def obj_get(path, flags=0):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, flags))


def attach(sock, pin):
    """The pinned program as sock's filter, as one does who may only read the pin."""
    fd = obj_get(pin, F_RDONLY)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, fd)
    finally:
        os.close(fd)


def check():
    """OSError where this process may not load a filter such as ours, and why not."""
    with open("/proc/self/status", encoding="ascii") as f:
        effective = int(next(line for line in f if line.startswith("CapEff")).split()[1], 16)
    for capability, name in ((CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")):
        if not effective >> capability & 1:
            raise PermissionError(errno.EPERM, "no " + name)
    # What a sandbox around us may forbid all the same.
    os.close(bpf(MAP_CREATE, struct.pack("=IIII", TYPE_LRU_HASH, 4, 4, 1)))


def possible_cpus():
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as f:
        return int(f.read().strip().split(",")[-1].split("-")[-1]) + 1


class Map:
    """A pinned map. Of a map with a value per CPU, sums() has what all of them say."""

    def __init__(self, pin, flags=0):
        self.fd = obj_get(pin, flags)
        info = ctypes.create_string_buffer(INFO_BYTES)
        bpf(OBJ_INFO, struct.pack("=IIQ", self.fd, INFO_BYTES, ctypes.addressof(info)))
        key_bytes, self.value_bytes = struct.unpack_from("=II", info, 8)
        self.key = ctypes.create_string_buffer(key_bytes)
        self.next = ctypes.create_string_buffer(key_bytes)
        self.value = ctypes.create_string_buffer(max(self.value_bytes, 8 * possible_cpus()))

    def attr(self, key, second=None):
        """second: where the value or the next key is, or is to go."""
        if key is not None:
            self.key.raw = key
        return struct.pack("=IIQQQ", self.fd, 0,
                           ctypes.addressof(self.key) if key is not None else 0,
                           ctypes.addressof(second) if second is not None else 0, 0)

    def close(self):
        os.close(self.fd)

    def get(self, key):
        """None where there is no such key."""
        try:
            bpf(MAP_LOOKUP, self.attr(key, self.value))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return None
            raise
        return self.value.raw[:self.value_bytes]

    def sum(self, key):
        bpf(MAP_LOOKUP, self.attr(key, self.value))
        return sum(struct.unpack_from("=%dQ" % possible_cpus(), self.value.raw))

    def put(self, key, value):
        self.value[:len(value)] = value
        bpf(MAP_UPDATE, self.attr(key, self.value))

    def delete(self, key):
        try:
            bpf(MAP_DELETE, self.attr(key))
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise

    def keys(self):
        out, key = [], None
        while len(out) < KEYS_MAX:
            try:
                bpf(MAP_NEXT, self.attr(key, self.next))
            except OSError as e:
                if e.errno == errno.ENOENT:
                    break
                raise
            key = self.next.raw
            out.append(key)
        return out

    def clear(self):
        for key in self.keys():
            self.delete(key)
