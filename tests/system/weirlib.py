# SPDX-License-Identifier: MIT
"""What the system tests share: starting weir and its peers, waiting for events, looking for what was left behind."""
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from clients import Clients
from stage import staged

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = staged(os.environ.get("WEIR_BUILD", os.path.join(ROOT, "build-gcc")))
WEIR = os.path.join(BUILD, "src/cli/weir")
SUPERVISE = os.path.join(BUILD, "src/supervise/weir-supervise")
EXAMPLES = os.path.join(BUILD, "examples")
with open(os.path.join(ROOT, "tests/system/recorder.py"), encoding="utf-8") as script:
    RECORDER = {"recorder.py": script.read()}  # files for Weir(): an app that tells what it was sent
TEST_APPS = os.path.join(BUILD, "tests/system/apps")
IS_ROOT = os.geteuid() == 0
USER = "user weir-demo;" if IS_ROOT else ""
SLOW = 4 if "san" in os.path.basename(BUILD) else 1  # sanitizers take their time
LONG = "LONG" in os.environ  # `make stress`: as often as it takes to trust it
NO_LEAKS = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


def wait_for(what, timeout=20, every=0.01):
    """Until what() is true: its value."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, "waited in vain for " + getattr(what, "__name__", "an event")
        time.sleep(every * SLOW)


def free_port():
    """Below those that the kernel gives to outgoing connections: one of these would take it before its server does."""
    while True:
        port = random.SystemRandom().randrange(10000, 32768)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    found = []
    for p in os.listdir("/proc"):
        if p.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{p}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                if int(fields[1]) == pid and fields[0] not in "ZX":
                    found.append(int(p))
    return found


def descendants(pid):
    found = []
    for c in children(pid):
        found += [c] + descendants(c)
    return found

HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    use-fcgi-app a
    server s unix@{socket} proto fcgi {server}
fcgi-app a
    docroot /
    option keep-conn
    option mpxs-conns
    {more}
"""


def read_all(s, reset_ends=False):
    """All that comes until the other end closes; a reset is an error, or an end as well."""
    out = b""
    while True:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            if reset_ends:
                return out
            raise
        if not piece:
            return out
        out += piece


class Load(Clients):
    """Clients that ask for one path without a pause, on connections that they keep or on new ones: ok counts answers, bad lists what
    was none."""

    def __init__(self, port, path, count=4, keep=True, expect=lambda r: r.status == 200):
        super().__init__(*[self.run] * count)
        self.port, self.path, self.keep, self.expect, self.ok, self.bad = port, path, keep, expect, 0, []

    def run(self):
        c = None
        while not self.stop.is_set():
            try:
                c = c or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20 * SLOW)
                c.request("GET", self.path)
                r = c.getresponse()
                r.text = r.read()
                if self.expect(r):
                    self.ok += 1
                else:
                    self.bad.append((r.status, r.text[-200:]))
                if not self.keep:
                    c.close()
                    c = None
            except (OSError, http.client.HTTPException) as e:
                self.bad.append(repr(e))
                c = None

    def __repr__(self):
        return f"{self.ok} answered, {len(self.bad)} not: {self.bad[:5]}"


class Weir:
    """A running `weir serve` on a configuration of its own, in a folder that every user can read."""

    def __init__(self, config, files=None, args=None, wait=True, program="threads 2", log_to=None, prepare=None, log="off", wrap=None, env=None, pass_fds=()):
        self.dir = tempfile.mkdtemp(prefix="weir-test-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        self.run_dir = os.path.join(self.dir, "run")
        os.mkdir(self.run_dir)
        os.chmod(self.run_dir, 0o777)
        self.public = os.path.join(self.dir, "public")
        os.mkdir(self.public)
        for name in ("demo", "hello", "bench_app"):
            shutil.copy(os.path.join(EXAMPLES, name), self.dir)
        for name, text in (files or {}).items():
            self.write(name, text)
        self.socket = os.path.join(self.run_dir, "control.sock")
        if prepare:
            prepare(self)
        self.config = os.path.join(self.dir, "weir.conf")
        self.program = f"log {log}; {program}"
        self.configure(config)
        self.log_path = os.path.join(self.dir, "log")
        self.start(args, wait, log_to, wrap, env, pass_fds)

    def start(self, args=None, wait=True, log_to=None, wrap=None, env=None, pass_fds=()):
        self.process = subprocess.Popen((wrap or []) + [WEIR, "serve", "-c", self.config] + (args or []),
                                        stdout=log_to or open(self.log_path, "wb"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                        env={**os.environ, **(env or {})}, pass_fds=pass_fds, start_new_session=True)
        if wait:
            wait_for(lambda: "ready. Ctrl-C" in self.log() or self.process.poll() is not None, 60)
            assert self.process.poll() is None, self.log()

    def configure(self, config):
        head = f"weir {{ {self.program}; control {self.socket}; temp {self.run_dir} }}\n"
        with open(self.config, "w") as f:
            f.write((head + config).replace("PORT", str(self.port)).replace("DIR", self.dir))

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(text, bytes) else "w") as f:
            f.write(text)
        os.chmod(path, 0o755 if text[:2] in ("#!", b"#!") else mode)
        return path

    def log(self):
        if not os.path.exists(self.log_path):
            return ""  # it goes somewhere else
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def command(self, *args, env=NO_LEAKS):
        """An order; test_commands looks for leaks in what they all do."""
        return subprocess.run([WEIR, args[0], "--socket", self.socket, *args[1:]], capture_output=True, text=True, timeout=60, env=env)

    def status(self):
        """What `weir status --json` prints, without a process for each look; None: nobody answers."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            try:
                s.connect(self.socket)
                s.sendall(b'{"command":"status"}\n')
                s.shutdown(socket.SHUT_WR)
                answer = json.loads(read_all(s))
            except (OSError, ValueError):
                return None
        return answer if "error" not in answer else None

    def load(self, name):
        """How many requests the pool's processes work on, and how many wait, of one report."""
        pool = self.pool(name)
        return sum(p["busy"] for p in pool["processes"]), pool["queued"]

    def pool(self, name):
        s = self.status()
        return next((p for p in s["pools"] if p["name"] == name), None) if s else None

    def pids(self, name, state="ready"):
        p = self.pool(name)
        return sorted(u["pid"] for u in p["processes"] if u["state"] == state) if p else []

    def gateway(self):
        s = self.status()
        return s["gateway"]["pid"] if s and s["gateway"]["ready"] else None

    def get(self, path, method="GET", body=None, headers=None, timeout=30, host=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            h = dict(headers or {})
            if host:
                h["Host"] = host
            c.request(method, path, body=body, headers=h)
            r = c.getresponse()
            r.text = r.read()
            return r
        finally:
            c.close()

    def connect(self, timeout=20):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW)
        return s

    def raw(self, data, timeout=20):
        """Sends bytes; all that comes until the server closes."""
        with self.connect(timeout) as s:
            s.sendall(data)
            return read_all(s, reset_ends=True)

    def stop(self):
        """Ends it as Ctrl-C does; asserts that nothing is left. The log."""
        before = descendants(self.process.pid) if self.process.poll() is None else []
        begin = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("weir did not end:\n" + self.log())
        took = time.monotonic() - begin
        left = [p for p in before if alive(p)]
        log = self.log()
        sockets = [f for f in os.listdir(self.run_dir) if not f.startswith("keep")]
        for p in left:
            with contextlib.suppress(OSError):
                os.kill(p, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)
        assert not left, f"processes were left: {left}\n{log}"
        assert not sockets, f"files were left: {sockets}"
        assert took < 2.5 * SLOW, f"the end took {took:.1f} s"
        for word in ("control ended (signal 11", "control ended (signal 6", "process 0 ", "AddressSanitizer", "ThreadSanitizer", "runtime error:", "internal check failed", "LeakSanitizer"):
            assert word not in log, log
        return log

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.log())
            with contextlib.suppress(Exception, AssertionError):
                self.stop()
        else:
            self.stop()


class UnixServer:
    """An app by hand: a thread that accepts, and one for each connection, which serve() talks on."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        os.chmod(path, 0o777)
        self.socket.listen(50)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()


def check_says(text, folder):
    """Exit status and words of `weir check` about a configuration."""
    path = os.path.join(folder, "weir.conf")
    with open(path, "w") as f:
        f.write(text)
    r = subprocess.run([WEIR, "check", path], capture_output=True, text=True)
    return r.returncode, r.stdout + r.stderr


def status_of(raw):
    m = re.match(rb"HTTP/1\.1 (\d{3}) ", raw)
    return int(m.group(1)) if m else None


@contextlib.contextmanager
def program(args, ready=None, stdin=subprocess.DEVNULL, log=subprocess.DEVNULL, **kw):
    """A peer program; ended at the end."""
    p = subprocess.Popen(args, stdin=stdin, stdout=log, stderr=log, start_new_session=True, **kw)
    try:
        if ready:
            wait_for(lambda: p.poll() is not None or ready())
            assert p.poll() is None, f"{args[0]} ended"
        yield p
    finally:
        with contextlib.suppress(OSError):
            os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def can_connect(path):
    def ready():
        with socket.socket(socket.AF_UNIX if isinstance(path, str) else socket.AF_INET) as s:
            try:
                s.connect(path)
                return True
            except OSError:
                return False
    return ready
