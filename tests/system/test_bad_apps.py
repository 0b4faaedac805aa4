# SPDX-License-Identifier: MIT
"""Apps that break the protocol: a clear answer for their request, nothing for anybody else's."""
import http.client
import struct
import subprocess

import pytest
from weirlib import USER, UnixServer, WEIR, Weir


def record(kind, content=b"", rid=1, version=1, padding=0):
    return struct.pack(">BBHHBB", version, kind, rid, len(content), padding, 0) + content + b"\0" * padding


END = record(3, b"\0" * 8)
HEAD = b"Content-Type: text/plain\r\n\r\n"


class FakeApp(UnixServer):
    """Answers each connection with given bytes once a whole request came, then closes (or keeps)."""

    def __init__(self, path, answer, close=True):
        self.answer, self.close = answer, close
        super().__init__(path)

    def serve(self, c):
        data = b""
        try:
            while record(5) not in data:
                piece = c.recv(65536)
                if not piece:
                    return
                data += piece
            if self.answer is not None:
                for i in range(0, len(self.answer), 60000):
                    c.sendall(self.answer[i:i + 60000])
            if self.close:
                c.close()
            else:
                c.recv(1)
        except OSError:
            pass


def header(text):
    return record(6, text) + END


CASES = {
    "garbage": (b"\x99" * 64, 502),
    "wrong version": (record(6, HEAD + b"x", version=2), 502),
    "closes at once": (b"", 502),
    "closes mid record": (record(6, HEAD + b"hello")[:-2], 502),
    "closes before END": (record(6, HEAD), 502),
    "END before a header": (END, 502),
    "END of 4 bytes": (record(6, HEAD) + record(3, b"\0" * 4), 502),
    "a header of a megabyte": (b"".join(record(6, b"X-%d: " % i + b"y" * 60000 + b"\r\n") for i in range(17)) + END, 502),
    "an empty header": (header(b"\r\nbody"), 502),
    "a folded line": (header(b"A: b\r\n c\r\n\r\n"), 502),
    "a NUL in a value": (header(b"A: b\0c\r\n\r\n"), 502),
    "a bare CR in a value": (header(b"A: b\rc\r\n\r\n"), 502),
    "a name with a blank": (header(b"A b: c\r\n\r\n"), 502),
    "two Status": (header(b"Status: 200\r\nStatus: 404\r\n\r\n"), 502),
    "a bad Status": (header(b"Status: abc\r\n\r\n"), 502),
    "Status 999": (header(b"Status: 999\r\n\r\n"), 502),
    "an HTTP status line": (header(b"HTTP/1.1 200 OK\r\n\r\n"), 502),
    "two Content-Length": (header(b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), 502),
    "a negative Content-Length": (header(b"Content-Length: -1\r\n\r\n"), 502),
    "an unknown record type": (record(99, b"x") + record(6, HEAD + b"ok") + END, 502),
    "a wrong id": (record(6, HEAD + b"evil", rid=7) + record(6, HEAD + b"fine") + END, 200),
    "records after END": (record(6, HEAD + b"fine") + END + record(6, b"late"), 200),
    "Transfer-Encoding": (header(b"Transfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n5\r\nhello"), 200),
    "padding everywhere": (record(6, HEAD + b"fine", padding=255) + record(6, padding=7) + record(3, b"\0" * 8, padding=5), 200),
    "only LF": (header(b"Content-Type: text/plain\n\nfine"), 200),
    "no STDOUT end": (record(6, HEAD + b"fine") + END, 200),
    "overloaded": (record(3, b"\0\0\0\0\2\0\0\0"), 503),
    "unknown role": (record(3, b"\0\0\0\0\3\0\0\0"), 500),
}


@pytest.fixture(scope="module")
def weir():
    routes = "".join(f"    route /{i}/ {{ pool p{i} }}\n" for i in range(len(CASES)))
    pools = "".join(f"pool p{i} {{ connect unix:DIR/run/keep{i}.sock {{ workers 2 }} }}\n" for i in range(len(CASES)))
    config = (f"site a {{\n    listen http://127.0.0.1:PORT\n    root public\n    debug yes\n{routes}"
              f"    route /good/ {{ pool good }}\n    route /never/ {{ pool never; time {{ silent 300ms }} }}\n"
              f"    route /short/ {{ pool short }}\n    route /down/ {{ pool down }}\n}}\n{pools}"
              f"pool good {{ run ./demo; {USER} }}\npool never {{ connect unix:DIR/run/keep-never.sock }}\n"
              f"pool short {{ connect unix:DIR/run/keep-short.sock }}\npool down {{ connect unix:DIR/run/keep-none.sock }}\n")
    with Weir(config) as w:
        apps = [FakeApp(f"{w.run_dir}/keep{i}.sock", answer) for i, (answer, _) in enumerate(CASES.values())]
        apps.append(FakeApp(f"{w.run_dir}/keep-never.sock", None, close=False))
        apps.append(FakeApp(f"{w.run_dir}/keep-short.sock", record(6, b"Content-Length: 100\r\n\r\nhello") + END))
        yield w
        for a in apps:
            a.socket.close()


@pytest.mark.parametrize("name", list(CASES))
def test_a_broken_app_gets_its_answer_and_others_are_unharmed(weir, name):
    """FC1-5.5-e, FC1-5.5-f, IOP-S6, IOP-S7"""
    i = list(CASES).index(name)
    try:
        r = weir.get(f"/{i}/x")
    except http.client.IncompleteRead:  # the header was out before the app broke off: the answer is cut, not completed
        assert name in ("closes mid record", "closes before END")
        return
    assert r.status == CASES[name][1], (name, r.text)
    if r.status == 200:
        assert r.text in (b"fine", b"5\r\nhello")
        assert r.headers["Content-Length"] == str(len(r.text)) and r.headers["Transfer-Encoding"] is None
    assert weir.get("/good/hello").status == 200


def test_an_app_that_never_answers_is_timed_out(weir):
    assert weir.get("/never/x").status == 504


def test_an_app_that_does_not_listen_is_told_at_once(weir):
    r = weir.get("/down/x")
    assert r.status == 502 and b"cannot connect" in r.text


def test_an_answer_shorter_than_its_length_is_cut_off_not_completed(weir):
    out = weir.raw(b"GET /short/x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"Content-Length: 100" in out and out.endswith(b"hello")


def test_call_tells_what_is_wrong(weir, tmp_path):
    """FC1-5.5-e, IOP-S7"""
    def call(name, *args):
        i = list(CASES).index(name)
        return subprocess.run([WEIR, "call", f"unix:{weir.run_dir}/keep{i}.sock", *args], capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert call("only LF").returncode == 0
    assert call("overloaded").returncode == 1 and b"overloaded" in call("overloaded").stderr
    assert call("closes before END").returncode == 3
    assert call("wrong version").returncode == 3
    assert b'"status": 200' in call("only LF", "--json").stdout


def test_an_app_that_keeps_no_connection_is_asked_for_none_after_a_while():
    with Weir("site a { listen http://127.0.0.1:PORT; pool p }\npool p { connect unix:DIR/run/keep-app.sock { workers 1 }; keep yes }\n") as w:
        asked = []

        class Closes(UnixServer):
            """Answers a request, and closes whatever it was asked."""

            def serve(self, c):
                data = b""
                while record(5) not in data:
                    piece = c.recv(65536)
                    if not piece:
                        return
                    data += piece
                asked.append(data[10] & 1)  # FCGI_KEEP_CONN
                c.sendall(record(6, HEAD + b"fine") + record(6) + END)
                c.close()
        app = Closes(f"{w.run_dir}/keep-app.sock")
        for _ in range(20):
            w.get("/x")  # may fall between an end and a close: 502
        assert asked[0] == 1 and asked[-1] == 0 and sum(asked) < 10, asked
        assert all(w.get("/x").text == b"fine" for _ in range(100))
        app.socket.close()
