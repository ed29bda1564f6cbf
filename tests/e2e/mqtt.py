# SPDX-License-Identifier: MIT
"""MQTT 3.1.1 on a plain socket, without a library's opinions: any packet can be sent, right or
wrong, and what comes is seen as it comes.

    mqtt.Connection   packets out, packets in
    mqtt.Session      a Connection on which an ssdtf.Party authenticates, publishes, receives
"""

import socket
import struct
import time

import ssdtf
import tap

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 10, 11, 12, 13, 14

WAIT = 10.0 * tap.SCALE  # seconds for what must come
KEEPALIVE = 60 * tap.SCALE  # seconds, of sessions that a test may leave alone for a while


class Closed(ConnectionError):
    """The broker ended the connection."""


class Silence(Exception):
    """What was waited for did not come."""


def string(text):
    return ssdtf.u16p(text if isinstance(text, bytes) else text.encode())


def packet(kind, flags=0, body=b""):
    n, size = len(body), b""
    while True:
        size += bytes([n & 0x7F | (0x80 if n > 0x7F else 0)])
        n >>= 7
        if not n:
            return bytes([kind << 4 | flags]) + size + body


def connect_flags(clean, will=None):
    flags = 0xC0 | (0x02 if clean else 0)
    if will:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    return flags


def connect(client_id, user_name=None, password=None, clean=True, keepalive=KEEPALIVE, will=None,
            level=4, flags=None):
    if flags is None:
        flags = connect_flags(clean, will)
        if user_name is None:
            flags &= ~0xC0
    body = string("MQTT") + bytes([level, flags]) + struct.pack(">H", keepalive)
    body += string(client_id)
    if will:
        body += string(will.topic) + string(will.payload)
    if user_name is not None:
        body += string(user_name) + string(password)
    return packet(CONNECT, 0, body)


def publish(topic, payload, qos=0, retain=False, packet_id=None, dup=False):
    body = string(topic)
    if qos:
        body += struct.pack(">H", packet_id)
    return packet(PUBLISH, dup << 3 | qos << 1 | bool(retain), body + payload)


def ack(kind, packet_id):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return packet(kind, 2 if kind == PUBREL else 0, struct.pack(">H", packet_id))


def puback(packet_id):
    return ack(PUBACK, packet_id)


def subscribe(packet_id, filters, qos):
    body = struct.pack(">H", packet_id)
    for f in filters:
        body += string(f) + bytes([qos])
    return packet(SUBSCRIBE, 2, body)


def unsubscribe(packet_id, filters):
    return packet(UNSUBSCRIBE, 2, struct.pack(">H", packet_id) + b"".join(map(string, filters)))


class Packet:
    def __init__(self, first, body):
        self.first, self.body = first, body
        self.type = first >> 4
        if self.type == PUBLISH:
            self.qos, self.retain, self.dup = first >> 1 & 3, bool(first & 1), bool(first & 8)
            n = struct.unpack(">H", body[:2])[0]
            self.topic, rest = body[2:2 + n].decode(), body[2 + n:]
            self.packet_id = None
            if self.qos:
                self.packet_id, rest = struct.unpack(">H", rest[:2])[0], rest[2:]
            self.payload = rest
        elif len(body) >= 2 and self.type in (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK):
            self.packet_id = struct.unpack(">H", body[:2])[0]

    def __repr__(self):
        return "Packet(%02x, %d bytes)" % (self.first, len(self.body))


class Will:
    def __init__(self, topic, payload, qos=0, retain=False):
        self.topic, self.payload, self.qos, self.retain = topic, payload, qos, retain


class Connection:
    """address: (host, port); source: the address to connect from, where it matters."""

    def __init__(self, address, source=None):
        try:
            self.socket = socket.create_connection(address, WAIT, (source, 0) if source else None)
        except ConnectionResetError:  # closed at once: its RST may come before connect() looks
            raise Closed() from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, *packets):
        try:
            self.socket.settimeout(WAIT)
            self.socket.sendall(b"".join(packets))
        except (BrokenPipeError, ConnectionResetError):
            raise Closed() from None

    def take(self):
        """A whole packet from what was read, or None."""
        n, shift, at = 0, 0, 1
        while True:
            if at >= len(self.got):
                return None
            n |= (self.got[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not self.got[at - 1] & 0x80:
                break
        if len(self.got) < at + n:
            return None
        p = Packet(self.got[0], self.got[at:at + n])
        self.got = self.got[at + n:]
        return p

    def receive(self, seconds=WAIT):
        """The next packet. Silence, Closed."""
        end = time.monotonic() + seconds
        while True:
            p = self.take()
            if p:
                return p
            left = end - time.monotonic()
            if left <= 0:
                raise Silence("no packet within %g s" % seconds)
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                continue
            except ConnectionResetError:
                raise Closed() from None
            if not more:
                raise Closed()
            self.got += more

    def expect(self, kind, seconds=WAIT):
        p = self.receive(seconds)
        tap.equal(p.type, kind, "type of the packet that came")
        return p

    def closes(self, seconds=WAIT):
        """Waits for the broker to end the connection; what came before."""
        came, end = [], time.monotonic() + seconds
        while True:
            try:
                came.append(self.receive(max(end - time.monotonic(), 0.001)))
            except Closed:
                return came
            except Silence:
                raise AssertionError("the broker leaves the connection open") from None


class Delivery:
    """A PUBLISH that was opened."""

    def __init__(self, p, opened):
        self.packet, self.opened = p, opened
        self.topic, self.qos, self.retain, self.dup = p.topic, p.qos, p.retain, p.dup
        self.plaintext, self.origin, self.counter = (opened.plaintext, opened.origin,
                                                     opened.counter)


class Error:
    def __init__(self, body):
        self.reason, self.counter = body[0], int.from_bytes(body[1:9], "big")
        n = int.from_bytes(body[9:11], "big")
        self.text = body[11:11 + n].decode()
        self.r_b, self.n = body[11 + n:43 + n], int.from_bytes(body[43 + n:47 + n], "big")
        if len(body) != 47 + n:
            raise ssdtf.Refused("malformed error")


class Update:
    """What the broker sends of the manager's later statements."""

    def __init__(self, body):
        r = ssdtf.Reader(body)
        self.statements = r.list(lambda q: q.take(q.u(4)))
        self.r_b, self.n = r.take(32), r.u(4)
        if r.data:
            raise ssdtf.Refused("malformed update")


class Session(Connection):
    """An authenticated party. What arrives is verified and sorted into acked, errors, updates,
    deliveries, others, in order of arrival; log has all of it."""

    def __init__(self, address, party, clean=True, keepalive=KEEPALIVE, will=None, auto_ack=True,
                 authenticate=True, source=None):
        super().__init__(address, source)
        self.party, self.clean, self.keepalive, self.will = party, clean, keepalive, will
        self.auto_ack = auto_ack
        self.next_id, self.control_n = 0, 0
        self.acked, self.errors, self.deliveries, self.others = [], [], [], []
        self.updates = []  # the messages; records: what they changed
        self.records = []
        self.seen_errors = 0  # by wait_error()
        self.log = []
        self.session_present = None
        self.highest = None  # counter, as the broker says
        if authenticate:
            try:
                self.authenticate()
            except BaseException:
                self.close()
                raise

    # authentication, in steps so that a test can spoil one

    def send_connect(self):
        self.r_c, user_name, token = self.party.connect_params()
        self.send(connect(self.party.id, user_name, token, self.clean, self.keepalive, self.will))

    def take_connack(self):
        p = self.expect(CONNACK)
        tap.equal(p.body[1], 0, "CONNACK code")
        self.session_present = bool(p.body[0] & 1)

    def take_challenge(self):
        p = self.expect(PUBLISH)
        tap.equal((p.topic, p.qos, p.retain), (ssdtf.CHALLENGE, 0, False), "challenge")
        return p

    def answer(self, challenge, qos=0):
        payload, self.r_b = self.party.answer(self.r_c, challenge.first, challenge.payload, 4,
                                              connect_flags(self.clean, self.will), qos)
        self.send(publish(ssdtf.RESPONSE, payload, qos, False, self.new_id() if qos else None))

    def take_result(self):
        p = self.receive()
        while p.type in (PUBACK, PUBREC):
            p = self.receive()
        tap.equal(p.type, PUBLISH, "type of the packet that came")
        tap.equal((p.topic, p.qos), (ssdtf.RESULT, 0), "result")
        self.highest = self.party.result(self.r_b, p.first, p.payload)
        self.party.counter = max(self.party.counter, self.highest)

    def authenticate(self):
        self.send_connect()
        self.take_connack()
        self.answer(self.take_challenge())
        self.take_result()

    # sending

    def new_id(self):
        self.next_id = self.next_id % 65535 + 1
        return self.next_id

    def publish(self, topic, payload, qos=1, retain=False, dup=False, packet_id=None):
        """The packet id, None at QoS 0. payload: sealed and signed already."""
        if qos and packet_id is None:
            packet_id = self.new_id()
        self.send(publish(topic, payload, qos, retain, packet_id, dup))
        return packet_id

    def seal_and_publish(self, scope, topic, plaintext, qos=1, retain=False, counter=None):
        payload = self.party.sealed(scope, topic, plaintext, qos, retain, counter)
        return self.publish(topic, payload, qos, retain)

    def control(self, topic, head, qos=0):
        """A nack or report: head, then R_b and the next number."""
        self.control_n += 1
        body = head + self.r_b + struct.pack(">I", self.control_n)
        return self.publish(topic, self.party.signed(topic, body, qos), qos)

    def subscribe(self, *filters, qos=1):
        """The SUBACK codes."""
        packet_id = self.new_id()
        self.send(subscribe(packet_id, filters, qos))
        p = self.wait_for(lambda: next((q for q in self.others if q.type == SUBACK
                                        and q.packet_id == packet_id), None), "SUBACK")
        return list(p.body[2:])

    def ask_updates(self, serial=None, qos=0):
        """What the party has, and please what is newer."""
        serial = self.party.bundle.serial if serial is None else serial
        return self.control(ssdtf.UPDATE, struct.pack(">Q", serial), qos)

    # receiving

    def take_update(self, p):
        body, kind = self.party.from_broker(p.topic, p.first, p.payload)
        u = Update(body)
        last = self.updates[-1].n if self.updates else 0
        if kind != 1 or u.r_b != self.r_b or u.n <= last or p.retain:
            raise ssdtf.Refused("an update that is not of this session, or not newer")
        self.updates.append(u)
        serials = [ssdtf.Statement(s).serial for s in u.statements]
        if serials != sorted(set(serials)):
            raise ssdtf.Refused("statements out of order")
        self.records += filter(None, map(self.party.update, u.statements))
        if p.qos:
            self.send(puback(p.packet_id))

    def sort(self, p):
        self.log.append(p)
        if p.type in (PUBACK, PUBREC):
            self.acked.append(p.packet_id)
            if p.type == PUBREC:
                self.send(ack(PUBREL, p.packet_id))
        elif p.type == PUBREL:
            self.send(ack(PUBCOMP, p.packet_id))
        elif p.type == PUBLISH and p.topic == ssdtf.ERROR:
            body, kind = self.party.from_broker(p.topic, p.first, p.payload)
            e = Error(body)
            if kind != 1 or e.r_b != self.r_b or e.n != len(self.errors) + 1:
                raise ssdtf.Refused("an error that is not of this session, or not the next")
            self.errors.append(e)
        elif p.type == PUBLISH and p.topic == ssdtf.UPDATE:
            self.take_update(p)
        elif p.type == PUBLISH and not p.topic.startswith(("$SSDTF/", "$SYS/")):
            self.deliveries.append(Delivery(p, self.party.open(p.topic, p.first, p.payload)))
            if p.qos and self.auto_ack:
                self.send(ack(PUBREC if p.qos == 2 else PUBACK, p.packet_id))
        else:
            self.others.append(p)

    def wait_for(self, condition, what, seconds=WAIT):
        """Receives until condition() is true, and returns what it said."""
        end = time.monotonic() + seconds
        while True:
            got = condition()
            if got:
                return got
            try:
                self.sort(self.receive(max(end - time.monotonic(), 0.001)))
            except Silence:
                raise Silence("not within %g s: %s" % (seconds, what)) from None

    def wait_acked(self, packet_id, seconds=WAIT):
        return self.wait_for(lambda: packet_id in self.acked, "PUBACK", seconds)

    def wait_error(self, seconds=WAIT):
        """The next error that was not asked for yet."""
        n = self.seen_errors = self.seen_errors + 1
        self.wait_for(lambda: len(self.errors) >= n, "$SSDTF/error", seconds)
        return self.errors[n - 1]

    def wait_records(self, n, seconds=WAIT):
        """The first n records that updates of this session brought."""
        self.wait_for(lambda: len(self.records) >= n, "update %d" % n, seconds)
        return self.records[:n]

    def wait_deliveries(self, n, seconds=WAIT):
        """The first n deliveries of the session."""
        self.wait_for(lambda: len(self.deliveries) >= n, "delivery %d" % n, seconds)
        return self.deliveries[:n]

    def settle(self):
        """Takes all that was on its way before a PINGREQ's answer."""
        n = sum(p.type == PINGRESP for p in self.others)
        self.send(packet(PINGREQ))
        self.wait_for(lambda: sum(p.type == PINGRESP for p in self.others) > n, "PINGRESP")

    def quiet(self, seconds=0.5):
        """Takes what comes for so long."""
        end = time.monotonic() + seconds * tap.SCALE
        while True:
            try:
                self.sort(self.receive(max(end - time.monotonic(), 0.001)))
            except Silence:
                return

    def disconnect(self):
        self.send(packet(DISCONNECT))
        self.closes()
        self.close()
