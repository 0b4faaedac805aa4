# SPDX-License-Identifier: MIT
"""Apps that break the protocol, or write what could split an answer: a clear answer for their request, nothing for anybody else's."""
import contextlib
import os
import socket
import struct
import subprocess
import threading

import pytest
from bad_answers import CASES, LATE, VALUES
from h2client import DATA, END_STREAM, H2, HEADERS, RST, WINDOW, frame
from recorder import pair, pairs, read_record
from strict import Cut, answers
from weirlib import SLOW, USER, WEIR, UnixServer, Weir, wait_for


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


# ---- the matrix ----

KINDS = ("plain", "kept", "flow")
NEVER = {"keep-alive", "upgrade", "proxy-connection", "te", "trailer", "status", "proxy-authenticate", "x-sendfile", "x-accel-redirect", "x-accel-buffering", "x-accel-expires"}


class Player(UnixServer):
    """Plays the case that a request's path names; anything else is answered as it should be."""

    def __init__(self, path, flow):
        self.flow, self.go, self.ended = flow, threading.Event(), threading.Event()
        super().__init__(path)

    def serve(self, c):
        with c, contextlib.suppress(EOFError, OSError, struct.error):
            while self.request(c):
                pass

    def play(self, c, case, rid):
        for part in case.bytes_of(rid):
            if part is LATE:
                self.go.wait(10 * SLOW)
            else:
                c.sendall(part)
        if case.then == "reset":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if case.then == "half":
            c.shutdown(socket.SHUT_WR)
        if case.then in ("hold", "half"):
            with contextlib.suppress(OSError):
                while c.recv(65536):
                    pass
            self.ended.set()
        return case.then is None

    def request(self, c):
        """One of them; False: the connection ends."""
        params, case, keep, begun = b"", None, False, None
        while True:
            kind, rid, content = read_record(c)
            if kind == 9:
                value = pair(b"FCGI_FLOW_CONTROL", b"window=65536 requests=100") if self.flow else b""
                c.sendall(record(10, value, rid=0))
            elif kind == 1:
                keep, begun = bool(content[2] & 1), rid
            elif rid != begun:
                pass  # of one that was answered already
            elif kind == 2:
                c.sendall(record(3, bytes(8), rid))
                return keep
            elif kind == 4:
                params += content
                if content:
                    continue
                name = dict(pairs(params))["REQUEST_URI"].split("/")[-1]
                case = CASES[int(name)] if name.isdigit() else None
                if case and case.early:
                    break
            elif kind == 5 and not content:
                break
        if case:
            return self.play(c, case, rid) and keep
        c.sendall(record(6, HEAD + b"good", rid) + record(6, b"", rid) + record(3, bytes(8), rid))
        return keep


@pytest.fixture(scope="module")
def weir():
    routes = "".join(f"    route /{k}/quiet/ {{ pool {k}; time {{ silent 400ms; slow 100s }} }}\n    route /{k}/ {{ pool {k} }}\n" for k in (*KINDS, "idle"))
    config = (f"site a {{\n    listen http://127.0.0.1:PORT\n    root public\n    debug yes\n{routes}    route /down/ {{ pool down }}\n}}\n"
              "pool plain { connect unix:DIR/run/keep-plain.sock { workers 2 } }\npool kept { connect unix:DIR/run/keep-kept.sock { workers 2 }; keep yes }\n"
              "pool flow { connect unix:DIR/run/keep-flow.sock { flow-control yes } }\npool idle { connect unix:DIR/run/keep-idle.sock { flow-control yes } }\npool down { connect unix:DIR/run/keep-none.sock }\n")
    with Weir(config) as w:
        w.apps = {k: Player(f"{w.run_dir}/keep-{k}.sock", k in ("flow", "idle")) for k in (*KINDS, "idle")}
        yield w
        for a in w.apps.values():
            a.socket.close()


def path_of(kind, number):
    return f"/{kind}/{'quiet/' if CASES[number].quiet else ''}{number}"


def ask(weir, kind, number, method="GET", version="1.1", more=""):
    """A request of a case and a good one behind it; all answers, or what came of one that was cut."""
    app = weir.apps[kind]
    app.go.clear()
    if version == "1.0" and CASES[number].interim:
        app.go.set()  # it sees nothing before the answer
    with weir.connect() as s:
        s.sendall(f"{method} {path_of(kind, number)} HTTP/{version}\r\nHost: a\r\n{more}\r\n".encode())
        if version == "1.1":
            s.sendall(f"GET /{kind}/good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data, reset = b"", False
        try:
            while piece := s.recv(65536):
                data += piece
                if b"\r\n\r\n" in data:
                    app.go.set()
        except ConnectionResetError:
            reset = True
    app.go.set()
    try:
        got = answers(data, [method])
        if reset and version == "1.0":  # the end of the connection is not the end of the answer
            raise Cut([], *got[-1])
        return got, None
    except Cut as cut:
        return cut.before, cut


ASKED = [pytest.param(n, kind, id=f"{c.name}-{kind}") for n, c in enumerate(CASES) for kind in KINDS if kind in c.kinds]
CLIENTS = {"kept": {}, "HTTP/1.0": {"version": "1.0"}, "HEAD": {"method": "HEAD"},
           "conditional": {"more": "If-None-Match: *\r\nIf-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT\r\nRange: bytes=0-1\r\n"}}


def check(case, client, got, cut):
    method = CLIENTS[client].get("method", "GET")
    last = [g for g in got if g[0] >= 200]
    for _, fields, _ in got:
        assert not NEVER & set(fields), fields
    if case.cut and (cut or (method == "HEAD" and last[0][0] == 200)):
        assert not cut or cut.status == 200 and not cut.before or case.interim
        return
    assert not cut, cut.args
    status, fields, body = last[0]
    assert [g[0] for g in got[:-len(last)]] == (list(case.interim) if client != "HTTP/1.0" else [])
    assert status == case.status, (status, body)
    if case.why and status >= 400 and method == "GET":
        assert case.why.encode() in body.replace(b"&quot;", b'"'), body
    if not case.why or status < 400:
        assert body == (b"" if method == "HEAD" or status in (204, 205, 304) else case.body)
        for name, value in case.fields.items():
            assert fields.get(name) == value, (name, fields)
    if client != "HTTP/1.0":  # whatever it was, the next answer is whole and its own
        assert len(last) == 2 and last[1][0] == 200 and last[1][2] == b"good", last


@pytest.mark.table
@pytest.mark.parametrize("number, kind", ASKED)
def test_an_answer_is_whole_or_an_error_or_visibly_cut(weir, number, kind):
    """FC1-5.5-e, FC1-5.5-f, IOP-S6, IOP-S7"""
    case = CASES[number]
    for client, how in CLIENTS.items():
        got, cut = ask(weir, kind, number, **how)
        try:
            check(case, client, got, cut)
        except AssertionError as e:
            raise AssertionError(client, got) from e


def stream_of(h, number, app):
    """All statuses, fields, content and the end of a stream."""
    statuses, fields, content = [], {}, b""
    while (f := h.read()) is not None:
        kind, flags, sid, data = f
        if kind == HEADERS:
            got = {n.decode(): v for n, v in h.decoder.decode(data, raw=True)}
            app.go.set()
            if sid == number:
                statuses.append(int(got[":status"]))
                fields = got
        if sid != number:
            continue
        if kind == RST:
            return statuses, fields, content, "reset"
        if kind == DATA and data:
            content += data
            h.send(frame(WINDOW, 0, 0, struct.pack("!I", len(data))), frame(WINDOW, 0, number, struct.pack("!I", len(data))))
        if flags & END_STREAM and kind in (HEADERS, DATA):
            return statuses, fields, content, "end"
    return statuses, fields, content, "closed"


@pytest.mark.table
@pytest.mark.parametrize("number, kind", ASKED)
def test_a_client_of_http2_sees_the_same(weir, number, kind):
    case = CASES[number]
    app = weir.apps[kind]
    app.go.clear()
    with H2(weir.port) as h:
        h.send(h.head(1, path_of(kind, number)))
        statuses, fields, content, end = stream_of(h, 1, app)
        app.go.set()
        assert not NEVER & set(fields) and "connection" not in fields and "transfer-encoding" not in fields
        assert statuses[:-1] == list(case.interim)
        if case.cut and (not statuses or statuses[-1] == 200):
            assert end == "reset"
        else:
            assert (statuses[-1], end) == (case.status, "end")
            assert "content-length" not in fields or int(fields["content-length"]) == len(content) or case.status == 304
            if not case.why or case.status < 400:
                assert content == (b"" if case.status in (204, 205, 304) else case.body)
        h.send(h.head(3, f"/{kind}/good"))
        assert stream_of(h, 3, app)[2:] == (b"good", "end")


def test_each_reason_is_in_the_log(weir):
    before = len(weir.log())
    wanted = set()
    for number, case in enumerate(CASES):
        if case.why and "plain" in case.kinds:
            ask(weir, "plain", number)
            wanted.add(case.why)

    def missing():
        log = weir.log()[before:]
        return [w for w in wanted if w not in log]
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not missing(), 5)
    assert not missing()


def test_control_bytes_of_an_app_do_not_reach_the_log(weir):
    number = [c.name for c in CASES].index("STDERR with control bytes")
    before = len(weir.log())
    ask(weir, "plain", number)
    wait_for(lambda: "title" in weir.log()[before:])
    with open(weir.log_path, "rb") as f:
        log = f.read()
    for byte in (b"\x1b", b"\r", b"\x07", b"\x9b", b"\x00"):
        assert byte not in log
    assert b"\\x1b]0;title" in log and not any(line.startswith(b"forged") for line in log.splitlines())


@pytest.mark.table
@pytest.mark.parametrize("name", list(VALUES))
def test_an_app_that_answers_the_question_badly_is_asked_plainly(name):
    """FC1-4.1-f, FC1-4.2-b, IOP-S10"""
    class Asked(UnixServer):
        def serve(self, c):
            with c, contextlib.suppress(EOFError, OSError):
                while True:
                    kind, rid, content = read_record(c)
                    if kind == 9:
                        c.sendall(VALUES[name])
                    if kind == 1:
                        keep = content[2] & 1
                    if kind == 5 and not content:
                        c.sendall(record(6, HEAD + b"good", rid=rid) + record(6, rid=rid) + record(3, bytes(8), rid=rid))
                        if not keep:
                            return
    with Weir("site a { listen http://127.0.0.1:PORT; pool p }\npool p { connect unix:DIR/run/keep-x.sock { flow-control yes }; queue 10 20s }\n") as w:
        app = Asked(f"{w.run_dir}/keep-x.sock")
        for _ in range(3):
            assert w.get("/").text == b"good"
        app.socket.close()


# ---- what is not in the matrix ----

def test_an_app_that_does_not_listen_is_told_at_once(weir):
    r = weir.get("/down/x")
    assert r.status == 502 and b"cannot connect" in r.text


def test_an_app_that_never_reads_a_large_body_is_timed_out(weir):
    number = [c.name for c in CASES].index("nothing, without reading")
    for kind in ("plain", "kept", "idle"):
        weir.apps[kind].go.clear()
        assert weir.get(path_of(kind, number), method="POST", body=bytes(5_000_000)).status == 504
        weir.apps[kind].go.set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_app_that_answers_before_it_reads_is_heard(weir, kind):
    number = [c.name for c in CASES].index("an answer before the body is read")
    r = weir.get(path_of(kind, number), method="POST", body=bytes(5_000_000))
    assert (r.status, r.text) == (200, b"fine")
    assert weir.get(f"/{kind}/good").text == b"good"


@pytest.mark.nosan
def test_call_tells_what_is_wrong(tmp_path):
    """FC1-5.5-e, IOP-S7"""
    apps = {}

    def call(name, *args):
        path = str(tmp_path / name.replace(" ", "-"))
        if name not in apps:
            apps[name] = FakeApp(path, b"".join(next(c for c in CASES if c.name == name).bytes_of(1)))
        return subprocess.run([WEIR, "call", f"unix:{path}", *args], capture_output=True, stdin=subprocess.DEVNULL, timeout=30 * SLOW)
    assert call("only LF").returncode == 0
    assert call("a refusal: overloaded").returncode == 1 and b"overloaded" in call("a refusal: overloaded").stderr
    assert call("a head and no END").returncode == 3
    assert call("version 2").returncode == 3
    assert b'"status": 200' in call("only LF", "--json").stdout
    assert b'"status": 200' in call("Early Hints", "--json").stdout
    for a in apps.values():
        a.socket.close()


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
