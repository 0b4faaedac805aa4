# SPDX-License-Identifier: MIT
"""A client of HTTP/2 that does what it is told, also what is wrong: frames by hand, heads by python3-hpack."""
import socket
import struct

import hpack
from weirlib import SLOW

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, body=b""):
    return struct.pack("!BHBBI", len(body) >> 16, len(body) & 0xffff, kind, flags, stream) + body


class H2:
    """One connection in clear text."""

    def __init__(self, port, settings=b"", preface=True):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=30 * SLOW)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.held = b""
        if preface:
            self.s.sendall(PREFACE + frame(SETTINGS, body=settings))
            self.until(lambda f: f[0] == SETTINGS and not f[1] & ACK)
            self.s.sendall(frame(SETTINGS, ACK))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, *frames):
        try:
            self.s.sendall(b"".join(frames))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def head(self, stream, path="/", method="GET", end=True, authority="a", more=()):
        fields = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *more]
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.encoder.encode(fields))

    def read(self):
        """The next frame: (kind, flags, stream, body), or None at the end."""
        while True:
            if len(self.held) >= 9:
                n = self.held[0] << 16 | self.held[1] << 8 | self.held[2]
                if len(self.held) >= 9 + n:
                    kind, flags = self.held[3], self.held[4]
                    stream = struct.unpack("!I", self.held[5:9])[0] & 0x7fffffff
                    body, self.held = self.held[9:9 + n], self.held[9 + n:]
                    return kind, flags, stream, body
            try:
                piece = self.s.recv(65536)
            except ConnectionResetError:
                return None
            if not piece:
                return None
            self.held += piece

    def until(self, what):
        """Frames until what(frame) is true, or the end: all of them."""
        got = []
        while (f := self.read()) is not None:
            got.append(f)
            if what(f):
                break
        return got

    def answer(self, stream):
        """Status and content of a stream's answer, with windows as wide as it takes; ("reset", code) or ("goaway", code)."""
        status, content = None, b""
        while (f := self.read()) is not None:
            kind, flags, sid, body = f
            if kind == GOAWAY:
                return "goaway", struct.unpack("!I", body[4:8])[0]
            if kind == HEADERS:
                fields = dict(self.decoder.decode(body))
                if sid == stream and not fields[":status"].startswith("1"):
                    status = fields[":status"]
            if sid != stream:
                continue
            if kind == RST:
                return ("reset", struct.unpack("!I", body)[0]) if status is None else (status, content)
            if kind == DATA:
                content += body
                if body:
                    self.send(frame(WINDOW, 0, 0, struct.pack("!I", len(body))), frame(WINDOW, 0, stream, struct.pack("!I", len(body))))
            if flags & END_STREAM and kind in (HEADERS, DATA):
                return status, content
        return "closed", content

    def goaway(self):
        """The error that the connection ends with; None: it closes without a word."""
        for kind, _, _, body in self.until(lambda f: f[0] == GOAWAY):
            if kind == GOAWAY:
                return struct.unpack("!I", body[4:8])[0]
        return None
