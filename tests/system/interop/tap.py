# SPDX-License-Identifier: MIT
"""A listener between a web server and a FastCGI program that passes every byte on and notes what the records say."""
import contextlib
import os
import socket
import struct
import sys
import threading

from recorder import ABORT, BEGIN, END


class Records:
    """The headers of one direction's records; their content is skipped."""

    def __init__(self):
        self.head, self.skip = b"", 0

    def feed(self, data):
        """(type, request id, the first bytes of the content) of the records that begin here."""
        at = 0
        while at < len(data):
            if self.skip:
                step = min(self.skip, len(data) - at)
                self.skip -= step
                at += step
                continue
            kind, length, padding = None, 0, 0
            take = self.wanted() - len(self.head)
            self.head += data[at:at + take]
            at += take
            if len(self.head) < 8 or len(self.head) < self.wanted():
                continue
            _, kind, rid, length, padding = struct.unpack("!BBHHB", self.head[:7])
            yield kind, rid, self.head[8:]
            self.skip = length + padding - (len(self.head) - 8)
            self.head = b""

    def wanted(self):
        """A header, and of BEGIN_REQUEST its content too."""
        return 16 if len(self.head) >= 8 and self.head[1] == BEGIN else 8


class Connection:
    def __init__(self, web, app):
        self.web, self.app = web, app
        self.begun, self.running, self.most_running = [], set(), 0
        self.aborted, self.kinds, self.open = [], set(), True

    def note(self, kind, rid, content):
        self.kinds.add(kind)
        if kind == BEGIN:
            self.begun.append(struct.unpack("!HB", content[:3]))
            self.running.add(rid)
            self.most_running = max(self.most_running, len(self.running))
        elif kind == ABORT:
            self.aborted.append(rid)
        elif kind == END:
            self.running.discard(rid)

    def carry(self, source, target):
        records = Records()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                for one in records.feed(data):
                    self.note(*one)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def run(self):
        back = threading.Thread(target=self.back, daemon=True)
        back.start()
        self.carry(self.web, self.app)
        back.join()
        self.open = False
        self.web.close()
        self.app.close()

    def back(self):
        self.carry(self.app, self.web)
        with contextlib.suppress(OSError):  # a program that is gone takes nothing more
            self.web.shutdown(socket.SHUT_RD)


def listening(path):
    """A unix socket there that everybody may connect to."""
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    os.chmod(path, 0o777)
    s.listen(100)
    return s


def accept(listener, target, connections):
    with contextlib.suppress(OSError):
        while True:
            web, _ = listener.accept()
            app = socket.socket(socket.AF_UNIX)
            try:
                app.connect(target)
            except OSError:
                web.close()
                continue
            c = Connection(web, app)
            connections.append(c)
            threading.Thread(target=c.run, daemon=True).start()


class Tap:
    """`with Tap(path, target)`: what connects to the unix socket at path reaches the one at target."""

    def __init__(self, path, target):
        self.target, self.connections = target, []
        self.listener = listening(path)

    def __enter__(self):
        threading.Thread(target=accept, args=(self.listener, self.target, self.connections), daemon=True).start()
        return self

    def __exit__(self, *why):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()

    def hang_up(self):
        """Ends all connections."""
        for c in self.connections:
            for end in (c.web, c.app):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def begun(self):
        """How many requests came so far."""
        return sum(len(c.begun) for c in self.connections)

    def running(self):
        return sum(len(c.running) for c in self.connections if c.open)


if __name__ == "__main__":  # a program with its listening socket as descriptor 0, which passes on to the one named
    accept(socket.socket(fileno=0), sys.argv[1], [])
