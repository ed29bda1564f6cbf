# SPDX-License-Identifier: MIT
"""Real programs for the end-to-end tests, in a temporary folder that is removed at the end:

    Token     a SoftHSM token with a configuration of its own
    Manager   ssdtf-admin with its token and registry
    Gateway   a manager's gateway: ssdtf-hsmd and ssdtf-broker, their token, bundle, state
    Distributor
              ssdtf-distributor at a gateway's broker, with a hsmd and token of its own
    Process   a program that runs, with its output in a file

Each process is stopped by its pid, each folder removed, whatever way the test program ends.
A gateway listens on a loopback address of its own with a port that the kernel chose, and keeps
both over restarts: nobody else binds there, nor is it ever somebody's outgoing port.
"""

import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading

import ssdtf
import tap

BUILD = os.path.abspath(os.environ.get("O", "build"))
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "4711-e2e"
LOG_LINES_SHOWN = 15
# All clients of a test have one address: few tests are about those that come too often.
GENEROUS = {"admission-ban-ms": 0, "admission-connects-per-second": 1000,
            "admission-told-per-second": 1000, "admission-told-total-per-second": 1000}

running = []  # Process
folders = []  # and files: removed at the end


def program(name):
    path = os.path.join(BUILD, "ssdtf-" + name)
    if not os.access(path, os.X_OK):
        raise RuntimeError("%s is not built" % path)
    return path


def folder():
    path = tempfile.mkdtemp(prefix="ssdtf-e2e.")
    folders.append(path)
    return path


def write(path, data, mode=0o600):
    """Whole or not at all, as an administrator's mv does it."""
    with open(path + ".part", "wb", opener=lambda p, f: os.open(p, f, mode)) as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.chmod(path + ".part", mode)
    os.rename(path + ".part", path)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def clean_up():
    for p in running[:]:
        p.kill()
    for path in folders:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.exists(path):
            os.unlink(path)
    folders.clear()


def end_of_test():
    """Clients that a test left running would be in the next one's way."""
    for p in running[:]:
        if p.of_test:
            p.kill()


def show_logs():
    """For tap.on_failure: the end of each log, without libmosquitto's packets."""
    lines = []
    for p in running:
        text = [line for line in p.text().splitlines() if ": debug: Client " not in line]
        if text:
            lines.append("%s (pid %d), the last of %d lines:" % (p.name, p.pid, len(text)))
            lines += ["  " + line for line in text[-LOG_LINES_SHOWN:]]
    return lines


tap.at_end(clean_up)
tap.after_each(end_of_test)
tap.on_failure(show_logs)


class Process:
    """A running program; stdout and stderr are one file unless stdin or stdout is asked for."""

    of_test = False  # it is not to outlive the test that started it

    def __init__(self, name, args, env=None, log=None, cwd=None, stdin=subprocess.DEVNULL,
                 stdout=None):
        self.name = name
        self.log = log or tempfile.mkstemp(prefix="ssdtf-e2e.", suffix=".log")[1]
        if not log:
            folders.append(self.log)
        with open(self.log, "ab") as f:
            self.at = f.tell()  # earlier runs may have written there
            self.popen = subprocess.Popen(
                args, env=dict(os.environ, **(env or {})), cwd=cwd, stdin=stdin,
                stdout=stdout or f, stderr=f, close_fds=True)
        self.pid = self.popen.pid
        running.append(self)

    def text(self):
        """What this run wrote."""
        try:
            with open(self.log, "rb") as f:
                f.seek(self.at)
                return f.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def wait_text(self, pattern, what=None, seconds=15, count=1):
        """Until whole lines of the log have count matches; returns the last of them. AssertionError
        where the program ends first."""
        def look():
            ended = self.popen.poll() is not None
            text = self.text()
            found = list(re.finditer(pattern, text[:text.rfind("\n") + 1], re.M))
            if len(found) >= count:
                return found[-1]
            tap.true(not ended, "%s ended with %s: %s" % (self.name, self.popen.returncode,
                                                           text[-2000:]))
            return None
        return tap.eventually(look, what or "%s says %s" % (self.name, pattern), seconds)

    def alive(self):
        return self.popen.poll() is None

    def wait(self, seconds=15):
        """Its exit code."""
        try:
            code = self.popen.wait(seconds * tap.SCALE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s does not end: %s" % (self.name, self.text()[-2000:])) from None
        if self in running:
            running.remove(self)
        return code

    def signal(self, number):
        self.popen.send_signal(number)

    def stop(self, seconds=15):
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()
        if self in running:
            running.remove(self)


def run(args, env=None, stdin=None, seconds=60):
    """A program that ends: CompletedProcess with text."""
    return subprocess.run(args, env=dict(os.environ, **(env or {})), input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=seconds * tap.SCALE,
                          stdin=subprocess.DEVNULL if stdin is None else None, check=False)


def must(result):
    if result.returncode:
        raise AssertionError("%s: exit code %d: %s%s" % (
            " ".join(result.args), result.returncode, result.stdout, result.stderr))
    return result.stdout


class Token:
    def __init__(self, base, label):
        self.label, self.dir = label, os.path.join(base, "tokens")
        os.makedirs(self.dir, 0o700)
        self.conf, self.pin_file = os.path.join(base, "softhsm2.conf"), os.path.join(base, "pin")
        write(self.conf, "directories.tokendir = %s\nobjectstore.backend = file\n"
                         "log.level = ERROR\nslots.removable = false\n" % self.dir)
        write(self.pin_file, PIN + "\n")
        self.env = {"SOFTHSM2_CONF": self.conf}
        must(run(["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN,
                  "--so-pin", "so-" + PIN], self.env))
        for name in os.listdir(self.dir):  # as tools/make-token does, and for its reason
            os.chmod(os.path.join(self.dir, name, "token.object"), 0o400)

    def options(self):
        return ["--module", MODULE, "--token", self.label, "--pin-file", self.pin_file]


class Manager:
    def __init__(self):
        self.base = folder()
        self.token = Token(self.base, "manager")
        self.dir = os.path.join(self.base, "registry")
        self.admin("init", *self.token.options())
        self.public = os.path.join(self.dir, "manager.pub")

    def admin_result(self, *args):
        words = [a for a in args if not a.startswith("-")]
        return run([program("admin"), "--dir", self.dir, *args], self.token.env) if words else None

    def admin(self, *args):
        return must(self.admin_result(*args))


class Gateway:
    """
    A gateway of a manager's; hsmd and broker are Processes once started. Parties get a folder each
    under parties/, as ssdtf-pub and ssdtf-sub want them; deliver() writes everybody's bundle.
    """

    def __init__(self, manager=None, gateway_id="gw-1", workers=2):
        self.manager = manager or Manager()
        self.id, self.workers = gateway_id, workers
        self.base = folder()
        self.token = Token(self.base, "gateway")
        self.run_dir = os.path.join(self.base, "run")
        self.state_dir = os.path.join(self.base, "state")
        self.parties_dir = os.path.join(self.base, "parties")
        for path in (self.run_dir, self.parties_dir):
            os.mkdir(path, 0o700)
        self.bundle = os.path.join(self.base, "gateway.bundle")
        self.config = os.path.join(self.base, "gateway.conf")
        self.public = os.path.join(self.base, "gateway.pub")
        self.host = "127.%d.%d.%d" % (random.randrange(1, 255), random.randrange(1, 255),
                                      random.randrange(2, 255))
        self.port = 0
        self.options, self.limits = {}, {}
        self.hsmd = self.broker = None
        self.stopped = False
        self.ids = []
        must(run([program("hsmd"), "keygen", *self.token.options(), "--public", self.public],
                 self.token.env))
        self.manager.admin("enrol", "gateway", "--id", self.id, "--public", self.public)

    # who is who

    def scope(self, name, *filters, **options):
        args = [x for f in filters for x in ("--filter", f)]
        for key, value in options.items():
            args += ["--" + key.replace("_", "-"), str(value)]
        self.manager.admin("scope", "add", "--name", name, *args)

    def enrol(self, role, party_id, *options):
        path = os.path.join(self.parties_dir, party_id)
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
        self.manager.admin("enrol", role, "--id", party_id, "--generate", path, *options)
        shutil.copy(self.manager.public, os.path.join(path, "manager.pub"))
        if party_id not in self.ids:
            self.ids.append(party_id)
        return path

    def device(self, party_id, *scopes, options=()):
        path = self.enrol("device", party_id, *options)
        for s in scopes:
            self.manager.admin("scope", "allow", "--scope", s, "--device", party_id)
        return path

    def receiver(self, party_id, *scopes, proof=False, options=()):
        path = self.enrol("receiver", party_id, *options)
        for s in scopes:
            self.grant(party_id, s, proof)
        return path

    def grant(self, party_id, scope, proof=False):
        self.manager.admin("grant", "--scope", scope, "--receiver", party_id, "--gateway",
                           self.id, *([] if proof else ["--no-proof"]))

    def deliver(self):
        """Signs every bundle and puts it where it belongs; the broker is told by reload()."""
        out = os.path.join(self.base, "out")
        self.manager.admin("bundle", "all", "--gateway", self.id, "--out-dir", out)
        write(self.bundle, read(os.path.join(out, "gateway-%s.bundle" % self.id)))
        for party_id in self.ids:
            path = os.path.join(out, "party-%s.bundle" % party_id)
            if os.path.exists(path):
                write(os.path.join(self.parties_dir, party_id, "bundle"), read(path))

    def path(self, party_id):
        return os.path.join(self.parties_dir, party_id)

    def party(self, party_id, counter=0):
        return ssdtf.Party(self.path(party_id), counter)

    # what runs

    def write_config(self):
        def value(v):
            return str(v).lower() if isinstance(v, (bool, int)) else '"%s"' % v

        options = {"gateway-id": self.id, "manager-key": self.manager.public,
                   "bundle": self.bundle, "state-dir": self.state_dir,
                   "hsm-sockets": self.run_dir, "admission": "enforce", **self.options}
        text = 'listen = { "%s:%d" }\n' % (self.host, self.port)
        text += "".join("%s = %s\n" % (k, value(v)) for k, v in options.items())
        text += "limits {\n%s}\n" % "".join("\t%s = %s\n" % (k, value(v))
                                            for k, v in {**GENEROUS, **self.limits}.items())
        write(self.config, text)

    def log(self, name):
        return os.path.join(self.base, name + ".log")

    def start_hsmd(self, *options):
        self.hsmd = Process("hsmd", [program("hsmd"), "run", *self.token.options(),
                                     "--socket-dir", self.run_dir, "--workers",
                                     str(self.workers), *options],
                            self.token.env, self.log("hsmd"))
        return self.hsmd

    def start_broker(self, wait=True):
        self.write_config()
        self.broker = Process("broker", [program("broker"), "--config", self.config],
                              log=self.log("broker"))
        if wait:
            self.wait_ready()
        return self.broker

    def wait_ready(self, seconds=20):
        ready = self.broker.wait_text(r"ready: listening on ([\d.]+):(\d+)", seconds=seconds)
        self.port = int(ready.group(2))

    def start(self):
        """Bundles, hsmd and broker: ready."""
        self.stopped = False
        self.deliver()
        self.start_hsmd()
        self.start_broker()
        return self

    def stop(self):
        for p in (self.broker, self.hsmd):
            if p and p.alive():
                tap.equal(p.stop(), 0, "exit code of " + p.name)
        self.stopped = True

    def mend(self):
        """For tap.after_each: starts again what a failed test left dead, for the next one."""
        if self.stopped:
            return
        if not self.hsmd.alive():
            self.hsmd.kill()
            self.start_hsmd()
        if not self.broker.alive():
            self.broker.kill()
            self.start_broker()

    @property
    def address(self):
        return self.host, self.port

    def reload(self):
        """SIGHUP; the log line with which the broker answered."""
        pattern = r"^.*(event=bundle serial=\d+|in force stays).*$"
        n = len(re.findall(pattern, self.broker.text(), re.M))
        self.broker.signal(signal.SIGHUP)
        return self.broker.wait_text(pattern, count=n + 1).group(0)

    def update(self):
        """deliver() and reload(), which must succeed."""
        self.deliver()
        line = self.reload()
        tap.true("event=bundle" in line, "the bundle was taken: " + line)

    def stats(self):
        """The broker's counters."""
        pattern = r"^ssdtf-broker: stats (.*)$"
        n = len(re.findall(pattern, self.broker.text(), re.M))
        self.broker.signal(signal.SIGUSR1)
        line = self.broker.wait_text(pattern, count=n + 1).group(1)
        return {k: int(v) for k, v in (pair.split("=") for pair in line.split())}

    def worker_pid(self, i):
        """Worker i's process id, None while there is none."""
        try:
            return int(read(os.path.join(self.run_dir, "hsmd.%d.pid" % i)))
        except (FileNotFoundError, ValueError):
            return None

    def kill_worker(self, i):
        """SIGKILL to a worker that is a child of our own hsmd. True where one was hit."""
        pid = self.worker_pid(i)
        try:
            parent = int(re.search(r"\) \S (\d+)", read("/proc/%d/stat" % pid).decode()).group(1))
            if parent != self.hsmd.pid:
                return False
            os.kill(pid, signal.SIGKILL)
            return True
        except (TypeError, FileNotFoundError, ProcessLookupError):
            return False


class Distributor:
    """Its token, hsmd and program. Bundles are made by deliver()."""

    def __init__(self, g, name, downstream=None):
        self.g, self.id, self.downstream = g, name, downstream
        self.base = folder()
        self.token = Token(self.base, name)
        self.run_dir = os.path.join(self.base, "run")
        os.mkdir(self.run_dir, 0o700)
        self.state_dir = os.path.join(self.base, "state")
        self.bundle = os.path.join(self.base, "bundle")
        self.config = os.path.join(self.base, "distributor.conf")
        self.limits = {}
        public = os.path.join(self.base, "public.pem")
        must(run([program("hsmd"), "keygen", *self.token.options(), "--public", public],
                 self.token.env))
        g.manager.admin("enrol", "distributor", "--id", name, "--public", public)
        self.process = self.hsmd = None

    def deliver(self):
        self.g.manager.admin("bundle", "distributor", "--id", self.id, "--out", self.bundle)

    def write_config(self):
        write(self.config, (
            'manager-key = "%s"\nbundle = "bundle"\nstate-dir = "state"\nhsm-sockets = "run"\n'
            'upstream = "%s:%d"\n%slimits {\n%s}\n') % (
                self.g.manager.public, self.g.host, self.g.port,
                self.downstream and 'downstream = "%s:%d"\n' % self.downstream.address or "",
                "".join("\t%s = %s\n" % pair for pair in self.limits.items())))

    def command(self, *args):
        return run([program("distributor"), *args, "--config", self.config])

    def start_hsmd(self):
        self.hsmd = Process("distributor's hsmd", [
            program("hsmd"), "run", *self.token.options(), "--socket-dir", self.run_dir,
            "--workers", "2"], self.token.env, os.path.join(self.base, "hsmd.log"))
        tap.eventually(lambda: os.path.exists(os.path.join(self.run_dir, "hsmd.1.sock")),
                       "the distributor's hsmd runs", 20)

    def start(self, wait=True):
        self.write_config()
        self.process = Process(self.id, [program("distributor"), "run", "--config", self.config],
                               log=os.path.join(self.base, "distributor.log"))
        if wait:
            self.wait_open()

    def wait_open(self, count=1):
        for role in ("upstream", "downstream") if self.downstream else ("broker",):
            self.process.wait_text(r"%s=\S+ session=open" % role, count=count, seconds=40)

    def reload(self):
        pattern = r"^.*bundle=(in-force|refused|unchanged).*$"
        n = len(re.findall(pattern, self.process.text(), re.M))
        self.process.signal(signal.SIGHUP)
        return self.process.wait_text(pattern, count=n + 1).group(0)

    def counters(self):
        n = len(re.findall(r"counters verifications=", self.process.text()))
        self.process.signal(signal.SIGUSR1)
        self.process.wait_text(r"counters verifications=", count=n + 1)
        return {k: int(v) for k, v in re.findall(r" (\w+)=(\d+)", self.process.text())}

    def rows(self):
        db = sqlite3.connect("file:%s/distributor.db?mode=ro" % self.state_dir, uri=True)
        try:
            return db.execute("SELECT lookup, external, trace, from_ms, until_ms FROM external"
                              ).fetchall()
        finally:
            db.close()


class Proxy:
    """A TCP proxy on loopback that can change what goes from client to broker, and back.

    change(data) -> data and change_back(data) -> data are asked for every piece, from threads of
    the proxy's."""

    def __init__(self, target):
        self.target, self.change, self.change_back = target, None, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target, 10)
            except OSError:
                return
            self.sockets += [client, server]
            for source, sink, way in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=(source, sink, way), daemon=True).start()

    def pump(self, source, sink, to_broker):
        try:
            source.settimeout(None)
            while True:
                data = source.recv(65536)
                if not data:
                    break
                change = self.change if to_broker else self.change_back
                if change:
                    data = change(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for s in (source, sink):
                s.close()

    def close(self):
        self.listener.close()
        for s in self.sockets:
            s.close()
