# SPDX-License-Identifier: MIT
"""Who is late: the client, the app, or we ourselves. A deadline ends only what waits for the one that is late."""
import socket
import struct
import subprocess
import threading
import time

import pytest
from test_bad_apps import END, HEAD, record
from weirlib import SLOW, USER, WEIR, Weir, free_port, status_of, wait_for


class TalkingApp:
    """A FastCGI app on a socket of its own, one request at a time on each connection: talk(app, connection) for each one."""

    def __init__(self, path, talk):
        self.talk, self.count = talk, 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(50)
        subprocess.run(["chmod", "777", path], check=True)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            c, _ = self.socket.accept()
            self.count += 1
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            while True:
                self.talk(self, c)
        except (EOFError, OSError):
            c.close()

    @staticmethod
    def read(c):
        """One record: its type and content."""
        def take(n):
            data = b""
            while len(data) < n:
                piece = c.recv(n - len(data))
                if not piece:
                    raise EOFError
                data += piece
            return data
        _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", take(8))
        content = take(length)
        take(padding)
        return kind, content


def answers(text, before=lambda: None):
    def talk(app, c):
        kind, content = app.read(c)
        if kind == 9:
            c.sendall(record(10, rid=0))
        if kind == 5 and not content:
            before()
            c.sendall(record(6, HEAD + text) + record(6) + END)
    return talk


def external(*lines, more="", threads=1):
    """A gateway before an app that is not its own."""
    return Weir("site a {\n listen http://127.0.0.1:PORT\n pool p\n" + "\n".join(lines) + "\n}\n"
                f"pool p {{ connect unix:DIR/run/keep-app.sock {{ workers 1 {more} }} }}\n", program=f"threads {threads}")


@pytest.mark.threads
def test_two_threads_that_ask_an_app_without_flow_control_at_once():
    with external(more="; flow-control yes", threads=2) as w:
        app = TalkingApp(f"{w.run_dir}/keep-app.sock", answers(b"hello"))
        for _ in range(5):
            statuses = []
            threads = [threading.Thread(target=lambda: statuses.append(w.get("/").status)) for _ in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert statuses == [200] * 8
        assert app.count >= 1


def test_a_gateway_that_is_told_to_end_finishes_what_runs(tmp_path):
    port, conf = free_port(), tmp_path / "weir.conf"
    conf.write_text(f"weir {{ log off; threads 2; temp /tmp }}\nsite a {{ listen http://127.0.0.1:{port}; pool p }}\n"
                    f"pool p {{ connect unix:{tmp_path}/app.sock }}\n")
    asked, go_on = threading.Event(), threading.Event()

    def waits():
        asked.set()
        go_on.wait(30)
    TalkingApp(f"{tmp_path}/app.sock", answers(b"to its end", waits))
    p = subprocess.Popen([WEIR, "gateway", "-c", str(conf)], stderr=subprocess.DEVNULL)

    def connected():
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30 * SLOW)
        except OSError:
            return None
    with wait_for(connected) as s, connected() as idle:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.wait(20 * SLOW)
        p.terminate()
        assert idle.recv(1) == b""  # it took the order
        go_on.set()
        answer = s.recv(65536)
        assert status_of(answer) == 200 and answer.endswith(b"to its end") and s.recv(1) == b""
    assert p.wait(20 * SLOW) == 0


def test_a_body_that_the_app_does_not_take_is_not_the_clients_fault():
    def thinks(app, c):
        kind, content = app.read(c)
        while kind != 4 or content:
            kind, content = app.read(c)
        time.sleep(2.5)  # longer than the body's time
        while kind != 5 or content or not app.count:
            kind, content = app.read(c)
        c.sendall(record(6, HEAD + b"taken") + record(6) + END)
    with external(" body { stream yes; max 64M }", " time { body 1s }") as w:
        TalkingApp(f"{w.run_dir}/keep-app.sock", thinks)
        r = w.get("/", "POST", b"x" * (8 << 20))
        assert r.status == 200 and r.text == b"taken"


def test_a_body_that_the_client_does_not_send_is_not_the_apps_fault():
    """FC1-6.2-c"""
    with Weir("site a {\n listen http://127.0.0.1:PORT\n pool p\n body { stream yes }\n time { body 2s }\n}\n"
              f"pool p {{ run ./demo; processes 1; {USER} time {{ silent 1s }} }}\n") as w:
        before = w.pids("p")
        with w.connect() as s:
            s.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
            assert status_of(s.recv(65536)) in (408, None)
        assert "silent" not in w.log() and w.pids("p") == before


def test_an_answer_that_is_being_sent_is_not_idle():
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n time { idle 1s }\n}\n", {"public/f": "y" * 32000}, program="threads 1") as w:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            s.connect(("127.0.0.1", w.port))
            s.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            time.sleep(2)  # it reads nothing for longer than a connection may be idle
            s.settimeout(20 * SLOW)
            got = b""
            while piece := s.recv(65536):
                got += piece
        assert got.count(b"HTTP/1.1 200 OK") == 3 and got.count(b"yyyy") == 3 * 8000


def test_a_client_that_closes_its_half_gets_its_file_whole():
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n}\n", {"public/small": "s" * 100, "public/big": "b" * 20000000}) as w:
        for name, length in (("small", 100), ("big", 20000000)):
            for part in (b"", b"GET /ne"):  # a head that stays a part
                with w.connect() as s:
                    s.sendall(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode() + part)
                    s.shutdown(socket.SHUT_WR)
                    got = b""
                    while piece := s.recv(1 << 20):
                        got += piece
                    assert status_of(got) == 200 and len(got.split(b"\r\n\r\n", 1)[1]) == length


def test_an_empty_line_behind_an_answer_begins_no_request():
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n time { head 1s; idle 2s }\n}\n", {"public/f": "file"}) as w:
        with w.connect() as s:
            s.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(65536).endswith(b"file")
            s.sendall(b"\r\n")
            assert s.recv(65536) == b""  # closed as an idle one is, without a word
        with w.connect() as s:
            s.sendall(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(65536).endswith(b"file")
            s.sendall(b"\r\nGET /f HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(65536).endswith(b"file")


def test_a_method_that_would_fill_the_log_is_refused():
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n}\n") as w:
        assert status_of(w.raw(b"A" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n")) == 501
        assert status_of(w.raw(b"A" * 4000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n")) == 501
