#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT
"""ssdtfctl and the broker's control socket: what is counted is shown, who is banned is refused at
connect and let in again, and what goes wrong is said in one line with a code of sysexits.h."""

import json
import os
import signal
import socket
import stat
import subprocess
import time

import gateway
import mqtt
import netns
import tap

USAGE, DATAERR, UNAVAILABLE, CANTCREAT, TEMPFAIL, NOPERM, CONFIG = 64, 65, 69, 73, 75, 77, 78

g = None
control = None  # the socket's path


def setup():
    global g, control
    g = gateway.Gateway()
    control = os.path.join(g.base, "broker.sock")
    g.options = {"admission": "enforce", "control-socket": control,
                 "admission-pins": os.path.join(g.base, "no-pins")}
    g.scope("plant", "plant/#")
    g.device("dev-1", "plant")
    g.enrol("manager", "boss")
    g.start()
    tap.after_each(g.mend)


def ctl_result(*words, path=None):
    return gateway.run([os.path.join(gateway.BUILD, "ssdtfctl"), "admission", "--socket",
                        path or control, *words])


def ctl(*words):
    """What it prints; it must be content, and say nothing else."""
    r = ctl_result(*words)
    tap.equal((r.returncode, r.stderr), (0, ""), "ssdtfctl %s" % " ".join(words))
    return r.stdout


def ctl_json(*words):
    return json.loads(ctl("--json", *words))


def refused(code, words, *args, path=None):
    r = ctl_result(*args, path=path)
    tap.equal((r.returncode, r.stdout), (code, ""), "ssdtfctl %s: %s" % (" ".join(args), r.stderr))
    lines = r.stderr.splitlines()
    tap.equal(len(lines), 1, "lines of %r" % r.stderr)
    tap.true(lines[0].startswith("ssdtfctl: ") and words in lines[0], "words: " + lines[0])


def gets_in(source, party_id="dev-1"):
    """A whole session from that address."""
    s = mqtt.Session(g.address, g.party(party_id), source=source)
    s.settle()
    s.disconnect()


def is_shut_out(source):
    """The connection ends at once, without a word; it may be before connect() looks again."""
    try:
        with mqtt.Connection(g.address, source) as c:
            tap.equal(c.closes(2 * tap.SCALE), [], "what a banned source is told")
    except ConnectionError:
        pass


def ask(s, request):
    s.send(request)
    return s.recv(1 << 20)


def dial(path=None):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(path or control)  # waits where the queue is full
    s.settimeout(10 * tap.SCALE)
    return s


@tap.test
def show():
    "show: mode, kernel off and why, every reason with what it means; --json the same for programs"
    gets_in("127.0.0.1")
    text = ctl("show", "--once")
    tap.true("mode      enforce" in text, text)
    tap.true("kernel    off: " + g.options["admission-pins"] in text, text)
    for name in ("syn", "ok", "no_token", "bad_tag", "replayed", "told", "dropped"):
        line = [x for x in text.splitlines() if x.split()[:1] == [name]]
        tap.equal(len(line), 1, "lines that begin with " + name)
        tap.true(line[0].split()[1] == "-", "no filter, no number: " + line[0])
        tap.true(len(line[0].split(None, 3)[3]) > 10, "what it means: " + line[0])
    tap.true(max(map(len, text.splitlines()[5:])) <= 100, "its lines are short")
    tap.true(max(map(len, ctl().splitlines()[5:])) <= 100, "with rates, too")
    j = ctl_json("show", "--once")
    tap.equal((j["mode"], j["kernel"], j["enforcing"], j["bans"], j["filter"]),
              ("enforce", False, False, 0, None), "JSON")
    tap.true(j["broker"]["ok"] >= 1 and "broker_per_second" not in j, "JSON: %r" % j)


@tap.test
def counters():
    "each refused CONNECT is counted under its reason, with its source"
    before = ctl_json("show", "--once")["broker"]
    party = g.party("dev-1")

    def connect(source, client_id, user_name=None, token=None):
        with mqtt.Connection(g.address, source) as c:
            c.send(mqtt.connect(client_id, user_name, token))
            return [p.body[1] for p in c.closes()]

    _, user_name, token = party.connect_params()
    bad = token[:-1] + bytes([token[-1] ^ 1])
    for _ in range(3):
        tap.true(connect("127.0.0.21", "dev-1") in ([4], [5]), "CONNACK without a token")
    tap.equal(connect("127.0.0.22", "dev-1", user_name, bad), [5], "CONNACK of a bent token")
    tap.equal(connect("127.0.0.22", "nobody", user_name, token), [5], "CONNACK of a stranger")
    after = ctl_json("show", "--once")["broker"]
    changed = {k: after[k] - before[k] for k in after if after[k] != before[k]}
    tap.equal(changed, {"no_token": 3, "bad_tag": 1, "unknown": 1, "told": 5}, "what was counted")
    rows = {r["source"]: r for r in ctl_json("sources")["sources"]}
    tap.equal((rows["127.0.0.21"]["rejected"], rows["127.0.0.21"]["last"]), (3, "no_token"),
              "source 21")
    tap.equal((rows["127.0.0.22"]["rejected"], rows["127.0.0.22"]["last"]), (2, "unknown"),
              "source 22")
    lines = ctl("sources").splitlines()
    tap.equal(lines[1].split()[:3], ["127.0.0.21", "3", "no_token:"], "the first in the table")


@tap.test
def rates():
    "show tells rates per second of what happens while it looks"
    p = subprocess.Popen([os.path.join(gateway.BUILD, "ssdtfctl"), "admission", "--json",
                          "--socket", control], stdout=subprocess.PIPE)
    n, end = 0, time.monotonic() + 0.9
    time.sleep(0.2)
    while time.monotonic() < end:
        gets_in("127.0.0.1")
        n += 1
    j = json.loads(p.communicate(timeout=20 * tap.SCALE)[0])
    tap.equal(p.returncode, 0, "exit code")
    tap.true(0.9 < j["seconds"] < 5 * tap.SCALE, "seconds: %r" % j["seconds"])
    rate = j["broker_per_second"]["ok"]
    tap.true(n and 0 < rate <= (n + 1) / j["seconds"] + 1, "%d connects, %g a second" % (n, rate))


@tap.test
def ban():
    "a banned source is refused at connect, others are not; unban lets it in again"
    gets_in("127.0.0.31")
    tap.equal(ctl("bans").splitlines(), ["source                      seconds"], "no bans")
    tap.equal(ctl("ban", "127.0.0.31", "300"), "banned 127.0.0.31 for 300 seconds\n", "ban")
    is_shut_out("127.0.0.31")
    gets_in("127.0.0.32")
    rows = ctl_json("bans")
    tap.equal((len(rows["bans"]), rows["more"], rows["bans"][0]["source"]), (1, 0, "127.0.0.31"),
              "bans")
    tap.true(280 <= rows["bans"][0]["seconds"] <= 300, "seconds left: %r" % rows)
    tap.equal(ctl_json("show", "--once")["bans"], 1, "bans in show")
    tap.equal(ctl("unban", "127.0.0.31"), "127.0.0.31 is banned no more\n", "unban")
    gets_in("127.0.0.31")
    refused(DATAERR, "it is not banned", "unban", "127.0.0.31")
    tap.equal(ctl_json("bans"), {"bans": [], "more": 0}, "bans at the end")
    g.broker.wait_text(r'event=operator uid=%d request="ban 127.0.0.31 300"' % os.geteuid())
    g.broker.wait_text(r'event=operator uid=%d request="unban 127.0.0.31"' % os.geteuid())


@tap.test
def ban_ends():
    "a ban ends by itself, and a second one replaces the first"
    ctl("ban", "127.0.0.33", "300")
    ctl("ban", "127.0.0.33", "1")
    is_shut_out("127.0.0.33")
    time.sleep(1.2)
    gets_in("127.0.0.33")
    tap.equal(ctl_json("bans")["bans"], [], "bans")


@tap.test
def many_bans():
    "more bans than fit into an answer: the longest are listed, and how many more there are"
    with dial() as s:
        for i in range(250):
            tap.equal(ask(s, b"ban 2001:db8:%x::/64 %d" % (i, 1000 + i)), b"ok\n", "ban")
    rows = ctl_json("bans")
    tap.equal((len(rows["bans"]), rows["more"]), (200, 50), "rows, more")
    tap.equal(rows["bans"][0]["source"], "2001:db8:f9::/64", "the longest")
    tap.equal(ctl("bans").splitlines()[-1], "and 50 more", "the table's last line")
    with dial() as s:
        for i in range(250):
            tap.equal(ask(s, b"unban 2001:db8:%x::7" % i), b"ok\n", "unban")
    tap.equal(ctl_json("bans"), {"bans": [], "more": 0}, "bans at the end")


@tap.test
def watch():
    "watch says it anew each second until it is interrupted"
    p = gateway.Process("ctl", [os.path.join(gateway.BUILD, "ssdtfctl"), "admission", "watch",
                                "--json", "-s", control])
    p.of_test = True
    p.wait_text(r'^\{"mode":"enforce".*\}$', count=2)
    for line in p.text().splitlines():
        tap.true(0.5 < json.loads(line)["seconds"] < 10 * tap.SCALE, line)
    p.signal(signal.SIGINT)
    tap.equal(p.wait(), -signal.SIGINT, "it ends by the signal")


@tap.test
def wrong_words():
    "what cannot be meant is refused before anybody is asked"
    nobody = os.path.join(g.base, "nobody.sock")
    for words, args in (("no command", ("frob",)), ("no address", ("ban", "x", "60")),
                        ("no address", ("ban", "127.0.0.1/8", "60")),
                        ("no number of seconds", ("ban", "127.0.0.1", "0")),
                        ("no number of seconds", ("ban", "127.0.0.1", "1m")),
                        ("no number of seconds", ("ban", "127.0.0.1", "31536001")),
                        ("takes ADDRESS and SECONDS", ("ban", "127.0.0.1")),
                        ("takes ADDRESS", ("unban",)), ("takes no more words", ("show", "x")),
                        ("--once is for show", ("watch", "--once"))):
        refused(USAGE, words, *args, path=nobody)
    refused(USAGE, "a path of 1 to 107 bytes", path="/tmp/" + "x" * 200)


@tap.test
def no_broker():
    "no broker: what, where, what to do"
    nobody = os.path.join(g.base, "nobody.sock")
    refused(UNAVAILABLE, nobody + ": nobody answers there", path=nobody)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.bind(nobody)
    refused(UNAVAILABLE, "is ssdtf-broker running, and does its configuration have "
            "control-socket?", path=nobody)
    os.unlink(nobody)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.bind(nobody)
        s.listen()
        refused(USAGE, "another program's socket", path=nobody)
    os.unlink(nobody)


@tap.test
def not_allowed():
    "who is neither the broker's user nor in its group may not ask"
    tap.equal(stat.S_IMODE(os.stat(control).st_mode), 0o660, "mode of the socket")
    if os.geteuid():
        tap.skip("needs root to be somebody else")
    other = gateway.folder()
    program = os.path.join(other, "ssdtfctl")
    gateway.write(program, gateway.read(os.path.join(gateway.BUILD, "ssdtfctl")), 0o755)
    modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in (other, g.base)}
    try:
        for path in modes:
            os.chmod(path, 0o755)
        r = subprocess.run([program, "admission", "--socket", control], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20 * tap.SCALE,
                           user=65534, group=65534, extra_groups=[], check=False)
    finally:
        for path, mode in modes.items():
            os.chmod(path, mode)
    tap.equal((r.returncode, r.stdout), (NOPERM, ""), r.stderr)
    tap.true("only the broker's user and group may ask it" in r.stderr, r.stderr)


@tap.test
def rude_peers():
    "peers that say nothing, nonsense or too much, or do not listen, are in nobody's way"
    silent = [dial() for _ in range(12)]
    tap.equal(ctl_json("bans")["bans"], [], "an answer beside silent peers")
    with dial() as s:
        tap.true(ask(s, b"\0\xff%n").startswith(b"error "), "nonsense")
        tap.equal(ask(s, b"x" * 1000), b"", "too long: the end")
    with dial() as deaf:
        deaf.setblocking(False)
        end = time.monotonic() + 10 * tap.SCALE
        cut = False
        while not cut and time.monotonic() < end:
            try:
                deaf.send(b"admission")
            except BlockingIOError:
                time.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                cut = True
        tap.true(cut, "who takes no answer is cut off")
    for s in silent:
        s.close()
    gets_in("127.0.0.1")
    ctl("show", "--once")


@tap.test
def monitor_says_so():
    "in mode monitor a ban refuses nobody, and ssdtfctl says so"
    g.stop()
    tap.true(not os.path.exists(control) and not os.path.exists(control + ".lock"),
             "the socket is gone with its broker")
    g.options["admission"] = "monitor"
    g.start()
    r = ctl_result("ban", "127.0.0.41", "60")
    tap.equal((r.returncode, r.stdout), (0, "banned 127.0.0.41 for 60 seconds\n"), r.stderr)
    tap.true("mode monitor: the ban is kept, but refuses nobody" in r.stderr, r.stderr)
    gets_in("127.0.0.41")
    g.options["admission"] = "enforce"


@tap.test
def after_a_crash():
    "what a killed broker left is replaced by the next one"
    g.broker.kill()
    tap.true(os.path.exists(control), "the socket is left over")
    # The kernel takes its ring down, and with it the socket, a little later.
    tap.eventually(lambda: "is ssdtf-broker running" in ctl_result("bans").stderr, "it is dead")
    refused(UNAVAILABLE, "is ssdtf-broker running", "bans")
    g.start_broker()
    tap.equal(ctl_json("show", "--once")["mode"], "enforce", "mode")


@tap.test
def second_broker():
    "a second broker does not take a live one's socket; what is no socket is left alone"
    def start(path):
        keep = g.state_dir, g.port
        g.state_dir, g.port = os.path.join(g.base, "state-2"), 0
        g.options["control-socket"] = path
        g.write_config()
        r = gateway.run([gateway.program("broker"), "--config", g.config])
        g.state_dir, g.port = keep
        g.options["control-socket"] = control
        g.write_config()
        return r

    for path, code, words in ((control, TEMPFAIL, "is in use by another broker"),
                              (g.public, CONFIG, "something stands there that is no socket"),
                              (os.path.join(g.base, "none", "x"), CANTCREAT, "folder"),
                              ("/tmp/" + "x" * 120, CONFIG, "107 bytes")):
        before = os.lstat(path) if os.path.exists(path) else None
        r = start(path)
        tap.equal(r.returncode, code, "exit code with %s: %s" % (path, r.stderr))
        last = r.stderr.splitlines()[-1]
        tap.true("control-socket " + path in last and words in last, last)
        tap.true(not before or os.lstat(path).st_ino == before.st_ino, "it still stands there")
    tap.equal(ctl_json("show", "--once")["mode"], "enforce", "the first broker answers")
    g.stop()


def sys_values(s):
    """What came under $SYS/broker/admission/, signed by the broker, by the topic's end."""
    prefix, values = "$SYS/broker/admission/", {}
    for p in s.others:
        if p.type == mqtt.PUBLISH and p.topic.startswith(prefix):
            body, _ = s.party.from_broker(p.topic, p.first, p.payload)
            values[p.topic[len(prefix):]] = int(body[:-36])  # before R_b and n
    return values


@tap.test
def sys_topics():
    "$SYS/broker/admission/... has the same counters, for a manager and nobody else"
    g.start()
    gets_in("127.0.0.61")
    with mqtt.Session(g.address, g.party("dev-1")) as d:
        tap.equal(d.subscribe("$SYS/broker/admission/#"), [0x80], "SUBACK to a device")
    with mqtt.Session(g.address, g.party("boss")) as boss:
        tap.equal(boss.subscribe("$SYS/broker/admission/#"), [1], "SUBACK to a manager")
        boss.wait_for(lambda: sys_values(boss).get("broker/ok", 0) >= 3, "three tokens that hold",
                      30)
        values = sys_values(boss)
        shown = ctl_json("show", "--once")
        tap.equal({n[len("broker/"):] for n in values if n.startswith("broker/")},
                  set(shown["broker"]), "names")
        tap.equal((values["kernel"], values["bans"]), (0, 0), "no filter, no ban")
    g.stop()


def start_with_filter():
    """In namespaces of the rest of this program's own."""
    try:
        netns.enter()
        pins = os.path.join(netns.bpffs(os.path.join(g.base, "bpf")), "pins")
    except netns.Impossible as e:
        tap.skip(str(e))
    r = gateway.run([gateway.program("admit"), "pin", "--pins", pins, "--user", "root", "--group",
                     "root"])
    if r.returncode:
        tap.skip(r.stderr.strip())
    g.options["admission-pins"] = pins
    g.limits["admission-grace-ms"] = 0
    g.start()


@tap.test
def with_filter():
    "with the kernel's filter: its counters and sources; a banned source does not even connect"
    if g.broker.alive():
        g.stop()
    start_with_filter()
    tap.eventually(lambda: ctl_json("show", "--once")["enforcing"], "the filter enforces")
    gets_in("127.0.0.51")
    for _ in range(3):
        with mqtt.Connection(g.address, "127.0.0.52") as c:
            c.send(mqtt.connect("dev-1"))
            tap.equal(len(c.closes()), 1, "packets to who has no token")
    j = ctl_json("show", "--once")
    tap.equal((j["kernel"], j["why"], j["devices"]), (True, "", 2), "JSON")
    tap.equal((j["filter"]["ok"], j["filter"]["no_token"], j["filter"]["told"]), (1, 3, 3),
              "the filter's counters: %r" % j["filter"])
    text = ctl("show", "--once")
    tap.true("kernel    on: the filter drops what is rejected" in text, text)
    tap.true("devices   2 in the filter" in text, text)
    tap.equal(ctl_json("sources")["sources"],
              [{"source": "127.0.0.52", "rejected": 3, "last": "no_token"}], "sources")
    ctl("ban", "127.0.0.51", "60")
    with socket.socket() as s:
        s.bind(("127.0.0.51", 0))
        s.settimeout(1.5)
        try:
            s.connect(g.address)
            raise AssertionError("a banned source connects")
        except socket.timeout:
            pass
    tap.true(ctl_json("show", "--once")["filter"]["banned"] >= 1, "its SYNs are counted")
    ctl("unban", "127.0.0.51")
    gets_in("127.0.0.51")
    g.stop()


tap.main(setup)
