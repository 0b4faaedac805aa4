# SPDX-License-Identifier: MIT
"""Programs on either libfcgi: ours, or Debian's."""
import contextlib
import glob
import os
import socket
import struct
import subprocess
import tempfile

import pytest
from recorder import BEGIN, PARAMS, STDIN, pair, record
from test_front import Fcgi
from weirlib import ROOT, SLOW, wait_for

BUILD = os.path.abspath(os.environ.get("WEIR_BUILD", os.path.join(ROOT, "build-gcc")))
OURS = os.path.join(BUILD, "compat/libfcgi")
DEBIAN = os.path.dirname(glob.glob("/usr/lib/*/libfcgi.so.0")[0])
LIBS = {"ours": OURS, "debian": DEBIAN}
EXAMPLES = os.path.join(OURS, "examples")
APPS = os.path.join(BUILD, "tests/system/apps")
PROBE = os.path.join(APPS, "libfcgi_probe")
HEADERS = os.path.join(ROOT, "compat/libfcgi/include")
both = pytest.mark.parametrize("lib", ["ours", pytest.param("debian", marks=pytest.mark.nosan)])  # what is theirs needs no sanitizer
SILENCE = 0.3  # seconds in which an answer would have come


class App:
    """A program with a listening socket as its descriptor 0, and the library that it is to run on. ends: SIGTERM
    ends it when it is on ours."""

    def __init__(self, args, lib="ours", env=None, listener=None, check=True, ends=True):
        self.folder = tempfile.mkdtemp(prefix="weir-fcgi-", dir="/tmp")
        self.lib, self.obeys = lib, ends and lib == "ours"
        self.path = os.path.join(self.folder, "s")
        self.listener = listener or socket.socket(socket.AF_UNIX)
        if not listener:
            self.listener.bind(self.path)
            self.listener.listen(20)
        self.where = self.path if not listener else listener.getsockname()[:2]
        self.log_path = os.path.join(self.folder, "log")
        # Debian's library leaks what it is said to, and its bugs are what is looked for
        quiet = {"ASAN_OPTIONS": "detect_leaks=0"} if lib == "debian" else {}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([args] if isinstance(args, str) else args, stdin=self.listener.fileno(), stdout=log, stderr=log,
                                            cwd=self.folder, env={**os.environ, **quiet, "LD_LIBRARY_PATH": LIBS[lib],
                                                      "LIBFCGI_OS_CLOSE_POLL_TIMEOUT": "100", **(env or {})})
        if check:
            wait_for(lambda: self.process.poll() is not None or self.loaded())
            assert self.loaded() == [os.path.realpath(os.path.join(LIBS[lib], "libfcgi.so.0"))], self.log()

    def loaded(self):
        """The files of libfcgi that its processes have mapped."""
        with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/maps") as f:
            return sorted({line.split()[5] for line in f if "libfcgi.so" in line})
        return []

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def connect(self, timeout=20):
        return Fcgi(self.where, timeout)

    def ends(self, timeout=10):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout * SLOW)
        return None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            if self.ends(10 if self.obeys else 0.2) is None:
                self.process.kill()
                self.process.wait()
                assert kind or not self.obeys, "the program did not end"
        self.listener.close()
        if kind is None and self.lib == "ours":
            for word in ("Sanitizer", "runtime error", "internal check failed"):
                assert word not in self.log(), self.log()
        subprocess.run(["rm", "-rf", self.folder], check=False)


def query(text, *more):
    return [("QUERY_STRING", text), *more]


def request(rid, params, body=b"", keep=1, role=1, end=True):
    """All records of one request in one piece."""
    out = record(BEGIN, rid, struct.pack("!HB5x", role, keep))
    pairs = b"".join(pair(n.encode(), v.encode()) for n, v in params)
    out += (record(PARAMS, rid, pairs) if pairs else b"") + record(PARAMS, rid)
    for i in range(0, len(body), 60000):
        out += record(STDIN, rid, body[i:i + 60000])
    return out + (record(STDIN, rid) if end else b"")


def answer(c, rid, timeout=None):
    """STDOUT of rid's answer, its STDERR and its END; None: no answer came in that time, or the connection ended."""
    before = c.s.gettimeout()
    c.s.settimeout(timeout * SLOW if timeout else before)
    try:
        return c.end_of(rid)
    except (EOFError, OSError):
        return None
    finally:
        c.s.settimeout(before)


def text(reply):
    return reply[0].decode("latin-1") if reply else None
