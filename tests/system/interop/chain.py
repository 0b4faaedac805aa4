# SPDX-License-Identifier: MIT
"""What a row of the matrix is: a web server, a FastCGI program behind it, and between them a tap that sees the records."""
import contextlib
import itertools
import os
import re
import socket
import struct

from recorder import GET_VALUES, RESULT, pair, pairs, read_record, record
from test_front import Fcgi, get
from weirlib import SLOW


class Chain:
    """A running row. `log` gives the text where the server writes a program's STDERR, `busy` whether a request still runs; `raw` is
    the program's own socket. Requests go to `path`; to `tap_path` if the tap has to see them; to `guarded` where an authorizer is
    asked first. `filtered`: path and file of what goes through a filter."""

    def __init__(self, port, path, tap, log, folder, busy=None, tap_path=None, raw=None, guarded=None, filtered=None):
        self.port, self.path, self.tap, self.log, self.folder = port, path, tap, log, folder
        self.tap_path, self.raw, self.guarded, self.filtered = tap_path or path, raw, guarded, filtered
        self.busy = busy or tap.running
        self.names = itertools.count()

    def fresh(self, what):
        """A name for a file that does not exist yet, in a folder where the program may make it."""
        return f"{self.folder}/keep-{what}-{next(self.names)}"

    def ask(self, query, method="GET", body=None, tapped=False, headers=()):
        return get(self.port, f"{self.tap_path if tapped else self.path}?{query}", method, body, headers)

    def leave(self, query):
        """A client that asks, sees the first bytes of the answer's body, and goes away."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20 * SLOW) as s:
            s.sendall(f"GET {self.path}?{query} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
            seen = b""
            while b"\r\n\r\n" not in seen or b"\0" not in seen:
                piece = s.recv(4096)
                assert piece, f"the server closed behind {seen[:200]}"
                seen += piece

    def authorize(self, word):
        """(status, MATRIX_USER, text) of an authorizer's answer to a request with that word."""
        if self.guarded:
            r = get(self.port, self.guarded + "?who", headers=[("X-Matrix", word)])
            user = re.search(rb"^MATRIX_USER=(.*)$", r.text, re.M)
            return r.status, user.group(1).decode() if user else "", r.text
        out, _, end = self.call([("REQUEST_METHOD", "GET"), ("HTTP_X_MATRIX", word)], role=2)
        assert end == (0, 0)
        head, _, text = out.partition(b"\r\n\r\n")
        fields = dict(re.findall(r"^([\w-]+): *(.*?)\r?$", head.decode(), re.M))
        return int(fields.get("Status", "200").split()[0]), fields.get("Variable-MATRIX_USER", ""), text

    def filter(self, stdin, data):
        """The body of a filter's answer."""
        if self.filtered:
            path, file = self.filtered
            with open(file, "wb") as f:
                f.write(data)
            r = get(self.port, path, "POST", stdin)
            assert r.status == 200, (r.status, r.text[:200])
            return r.text
        params = [("REQUEST_METHOD", "POST"), ("QUERY_STRING", ""), ("CONTENT_LENGTH", str(len(stdin))), ("FCGI_DATA_LENGTH", str(len(data))), ("FCGI_DATA_LAST_MOD", "0")]
        out, _, end = self.call(params, stdin, role=3, data=data)
        assert end == (0, 0)
        return out.partition(b"\r\n\r\n")[2]

    def values(self):
        """What the program answers to GET_VALUES; a request is on its way behind it, since libfcgi waits for more bytes."""
        self.tap.hang_up()  # a program that serves one connection at a time
        with contextlib.closing(Fcgi(self.raw).s) as s:
            names = (b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS")
            content = b"".join(pair(n, b"") for n in names)
            s.sendall(record(GET_VALUES, 0, content, -len(content) % 8) + record(1, 1, struct.pack("!HB5x", 1, 0)))
            kind, rid, content = read_record(s)
            assert (kind, rid) == (RESULT, 0)
            return dict(pairs(content))

    def call(self, params, body=b"", role=1, data=None):
        self.tap.hang_up()
        c = Fcgi(self.raw)
        with contextlib.closing(c.s):
            request(c, 1, params, body, role, 0, data)
            return c.end_of(1)


def request(c, rid, params, body=b"", role=1, keep=1, data=None):
    """A request by records; a program that answers without the body may be gone before it has that."""
    c.begin(rid, params, role, keep)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        c.give(rid, body, data)


def text_of(path):
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as f:
        return f.read()
