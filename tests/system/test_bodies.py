# SPDX-License-Identifier: MIT
"""Bodies on their way: who waits for whom, what a client that goes away leaves behind, what arrives before the end, what is left on the disk."""
import contextlib
import json
import os
import re
import struct
import subprocess
import threading

import pytest
from recorder import pair, pairs, read_record, record
from strict import answers
from weirlib import BUILD, RECORDER, USER, UnixServer, Weir, status_of, wait_for

HEAD = b"Content-Type: text/plain\r\n\r\n"
KINDS = ("plain", "flow")


class Request:
    """One request as the app has it; the test answers it."""

    def __init__(self, conn, rid):
        self.conn, self.rid, self.head, self.body, self.params = conn, rid, b"", b"", None
        self.whole = self.aborted = self.closed = False

    def say(self, text):
        self.conn.sendall(record(6, self.rid, text))

    def end(self, text=b""):
        self.conn.sendall((record(6, self.rid, text) if text else b"") + record(6, self.rid) + record(3, self.rid, bytes(8)))
        self.closed = True


class App(UnixServer):
    """Takes requests and does nothing of itself."""

    def __init__(self, path, flow=False):
        self.flow, self.requests = flow, []
        super().__init__(path)

    def serve(self, c):
        open_ones = {}
        with contextlib.suppress(EOFError, OSError, struct.error):
            while True:
                kind, rid, content = read_record(c)
                r = open_ones.get(rid)
                if kind == 9:
                    c.sendall(record(10, 0, pair(b"FCGI_FLOW_CONTROL", b"window=1000000 requests=100") if self.flow else b""))
                elif kind == 1:
                    r = open_ones[rid] = Request(c, rid)
                elif kind == 4 and content:
                    r.head += content
                elif kind == 4:
                    r.params = dict(pairs(r.head))
                    self.requests.append(r)
                elif kind == 5 and content:
                    r.body += content
                elif kind == 5:
                    r.whole = True
                elif kind == 2:
                    r.aborted = True
        for r in open_ones.values():
            r.closed = True

    def take(self, path):
        """The request for it, when it has come."""
        return wait_for(lambda: next((r for r in self.requests if r.params["REQUEST_URI"] == path), None))


CONFIG = """
site a {
    listen http://127.0.0.1:PORT
    root public
    body { max 100M }
    route /plain/ { pool plain }
    route /flow/ { pool flow }
    route /stream/plain/ { pool plain; body { stream always } }
    route /stream/flow/ { pool flow; body { stream always } }
    route /known/plain/ { pool plain; body { stream yes } }
    route /known/flow/ { pool flow; body { stream yes } }
    route /little/stream/ { pool plain; body { max 1M; stream always } }
    route /little/ { pool plain; body { max 1M } }
    route /no/ { deny }
}
pool plain { connect unix:DIR/run/keep-plain.sock { workers 10 } }
pool flow { connect unix:DIR/run/keep-flow.sock { flow-control yes } }
"""


@pytest.fixture(scope="module")
def w():
    with Weir(CONFIG) as w:
        w.app = {k: App(f"{w.run_dir}/keep-{k}.sock", k == "flow") for k in KINDS}
        yield w
        for a in w.app.values():
            a.socket.close()


def send(w, head, body=b""):
    s = w.connect(30)
    s.sendall(head.encode().replace(b"\n", b"\r\n") + b"\r\n" + body)
    return s


def more(s, until):
    data = b""
    while until not in data:
        piece = s.recv(65536)
        assert piece, data
        data += piece
    return data


def rest(s):
    data = b""
    with s, contextlib.suppress(ConnectionResetError):
        while piece := s.recv(65536):
            data += piece
    return data


# ---- clients that go away ----

@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_goes_away_ends_its_request_in_the_app(w, kind):
    """FC1-5.4-c, IOP-S13"""
    s = send(w, f"GET /{kind}/leaves HTTP/1.1\nHost: a\n")
    r = w.app[kind].take(f"/{kind}/leaves")
    s.close()
    wait_for(lambda: r.aborted if kind == "flow" else r.closed)
    if kind == "flow":
        r.end()
    s = send(w, f"GET /{kind}/stays HTTP/1.1\nHost: a\nConnection: close\n")
    w.app[kind].take(f"/{kind}/stays").end(HEAD + b"there")
    assert rest(s).endswith(b"there")


@pytest.fixture(scope="module")
def one():
    """A pool whose only process serves one request at a time, and tells by files what it does."""
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool one; body {{ max 1M }} }}\npool one {{ run ./recorder.py; {USER} }}",
              RECORDER) as w:
        yield w


def busy(w, name):
    """A request that runs until its file is there; what makes it."""
    s = send(w, f"GET /{name}?started={w.run_dir}/keep-{name}-runs&until={w.run_dir}/keep-{name}-ends HTTP/1.1\nHost: a\nConnection: close\n")
    wait_for(lambda: os.path.exists(f"{w.run_dir}/keep-{name}-runs"))
    wait_for(lambda: w.load("one") == (1, 0))  # a report is a little older than what it tells
    return s, lambda: w.write(f"run/keep-{name}-ends", "")


def test_a_client_that_goes_away_while_it_waits_never_runs(one):
    first, release = busy(one, "first")
    queued = [send(one, f"POST /x?started={one.run_dir}/keep-ran-{i} HTTP/1.1\nHost: a\nContent-Length: 3\nConnection: close\n", b"abc") for i in range(5)]
    wait_for(lambda: one.pool("one")["queued"] == 5)
    for i in (0, 1, 3):
        queued[i].close()
    wait_for(lambda: one.pool("one")["queued"] == 2)
    release()
    assert status_of(rest(first)) == 200
    for i in (2, 4):
        assert status_of(rest(queued[i])) == 200
    assert [i for i in range(5) if os.path.exists(f"{one.run_dir}/keep-ran-{i}")] == [2, 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_within_a_body_that_streams_is_no_whole_request(w, kind, length):
    path = f"/stream/{kind}/{length[:3]}"
    s = send(w, f"POST {path} HTTP/1.1\nHost: a\n{length}\n", b"5\r\nhello\r\n" if "chunked" in length else b"hello")
    r = w.app[kind].take(path)
    wait_for(lambda: r.body == b"hello")
    s.close()
    wait_for(lambda: r.aborted if kind == "flow" else r.closed)
    assert not r.whole and r.body == b"hello"
    if kind == "flow":
        r.end()


# ---- Expect ----

def test_an_expectation_is_met_before_there_is_a_slot(one):
    first, release = busy(one, "slot")
    s = send(one, f"POST /x?started={one.run_dir}/keep-expects HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue\nConnection: close\n")
    assert more(s, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert one.pool("one")["queued"] == 0  # it does not even wait before its body is there
    s.sendall(b"hello")
    wait_for(lambda: one.pool("one")["queued"] == 1)
    release()
    assert status_of(rest(first)) == 200
    assert json.loads(answers(rest(s))[0][2])["stdin"] == 5


@pytest.mark.parametrize("path, length, status", [("/little/e", 2_000_000, 413), ("/no/e", 100_000_000, 403), ("/no/e", 5, 403)])
def test_who_expects_and_is_refused_is_not_asked_for_the_body(w, path, length, status):
    s = send(w, f"POST {path} HTTP/1.1\nHost: a\nContent-Length: {length}\nExpect: 100-continue\n")
    got = answers(rest(s))
    assert [g[0] for g in got] == [status] and got[0][1]["connection"] == b"close"


def test_curl_gets_its_answers_with_and_without_expectations(w, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(3_000_000))

    def curl(path, *args):
        return subprocess.run(["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", "-H", "Expect: 100-continue", "--expect100-timeout", "20",
                               *args, f"http://127.0.0.1:{w.port}{path}"], capture_output=True, text=True, timeout=60).stdout
    for more_args in ([], ["-H", "Transfer-Encoding: chunked"]):
        assert curl("/little/curl", "-T", str(upload), *more_args) == "413"
    w.app["plain"].requests.clear()

    def answer():
        r = w.app["plain"].take("/plain/curl")
        wait_for(lambda: r.whole)
        r.end(HEAD + b"fine")
    t = threading.Thread(target=answer)
    t.start()
    assert curl("/plain/curl", "-T", str(upload)) == "200"
    t.join()
    assert w.app["plain"].requests[0].body == bytes(3_000_000)


# ---- streams of requests ----

@pytest.mark.parametrize("kind", KINDS)
def test_a_body_of_unknown_length_comes_to_the_app_piece_by_piece(w, kind):
    s = send(w, f"POST /stream/{kind}/pieces HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nConnection: close\n", b"3\r\none\r\n")
    r = w.app[kind].take(f"/stream/{kind}/pieces")
    wait_for(lambda: r.body == b"one")
    assert "CONTENT_LENGTH" not in r.params and "HTTP_CONTENT_LENGTH" not in r.params and "HTTP_TRANSFER_ENCODING" not in r.params
    assert not r.whole
    s.sendall(b"4;x\r\n two\r\n")
    wait_for(lambda: r.body == b"one two")
    s.sendall(b"0\r\nContent-Type: evil\r\n\r\n")
    wait_for(lambda: r.whole)
    r.end(HEAD + b"all")
    assert answers(rest(s))[0][2] == b"all"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_body_of_unknown_length_ends(w, kind):
    s = send(w, f"POST /stream/{kind}/empty HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nConnection: close\n", b"0\r\n\r\n")
    r = w.app[kind].take(f"/stream/{kind}/empty")
    wait_for(lambda: r.whole)
    assert r.body == b""
    r.end(HEAD + b"all")
    assert answers(rest(s))[0][2] == b"all"


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_that_streams_known_lengths_takes_an_unknown_one_whole(w, kind):
    s = send(w, f"POST /known/{kind}/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nConnection: close\n", b"3\r\none\r\n")
    known = send(w, f"POST /known/{kind}/y HTTP/1.1\nHost: a\nContent-Length: 6\nConnection: close\n", b"one")
    r = w.app[kind].take(f"/known/{kind}/y")
    wait_for(lambda: r.body == b"one")
    assert r.params["CONTENT_LENGTH"] == "6" and not r.whole
    assert not [q for q in w.app[kind].requests if q.params["REQUEST_URI"].endswith("/x") and "known" in q.params["REQUEST_URI"]]
    s.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
    q = w.app[kind].take(f"/known/{kind}/x")
    wait_for(lambda: q.whole)
    assert q.params["CONTENT_LENGTH"] == "6" and q.body == b"onetwo"
    known.sendall(b"two")
    wait_for(lambda: r.whole)
    for request, client in ((q, s), (r, known)):
        request.end(HEAD + b"all")
        assert answers(rest(client))[0][2] == b"all"


@pytest.mark.parametrize("kind", KINDS)
def test_an_app_that_answers_while_a_body_streams_is_heard_at_once(w, kind):
    s = send(w, f"POST /stream/{kind}/both HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n", b"3\r\none\r\n")
    r = w.app[kind].take(f"/stream/{kind}/both")
    r.say(HEAD + b"early")
    data = more(s, b"early")
    s.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
    wait_for(lambda: r.whole)
    r.end(b" and late")
    assert answers(data + rest(s))[0][2] == b"early and late"


def test_what_a_stream_sends_above_its_limit_is_413_and_no_whole_request(w):
    s = send(w, "POST /little/stream/x HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n", (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 16)
    r = w.app["plain"].take("/little/stream/x")
    wait_for(lambda: len(r.body) == 1 << 20)
    s.sendall(b"1\r\nx\r\n")
    assert status_of(rest(s)) == 413
    wait_for(lambda: r.closed)
    assert not r.whole


# ---- events ----

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_each_event_arrives_while_the_answer_is_open(w, kind, version):
    path = f"/{kind}/events{version}"
    s = send(w, f"GET {path} HTTP/{version}\nHost: a\nAccept: text/event-stream\n")
    r = w.app[kind].take(path)
    r.say(b"Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\r\n")
    data = more(s, b"\r\n\r\n")  # the head by itself
    assert b"X-Accel" not in data and b"Content-Length" not in data
    for i in range(5):
        r.say(b"data: %d\n\n" % i)
        data += more(s, b"data: %d\n\n" % i)
    r.end()
    if version == "1.1":
        s.sendall(b"GET /no/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    got = answers(data + rest(s))
    assert got[0][2] == b"".join(b"data: %d\n\n" % i for i in range(5))


@pytest.mark.threads
def test_events_of_php_arrive_while_its_script_runs():
    script = ("<?php header('Content-Type: text/event-stream'); header('X-Accel-Buffering: no'); while (ob_get_level()) ob_end_flush();\n"
              "for ($i = 0; $i < 3; $i++) { echo \"data: $i\\n\\n\"; flush(); while (!file_exists(__DIR__ . \"/go$i\")) { usleep(1000); clearstatcache(); } }")
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php fpm; {USER} }}", {"public/e.php": script}) as w:
        s = send(w, "GET /e.php HTTP/1.1\nHost: a\nConnection: close\n")
        data = b""
        for i in range(3):
            data += more(s, b"data: %d\n\n" % i)
            w.write(f"public/go{i}", "")
        assert b"X-Accel" not in data
        assert answers(data + rest(s))[0][2] == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_early_hints_of_a_program_reach_curl_before_the_answer():
    program = "#!/bin/sh\nprintf 'Status: 103 Early Hints\\nLink: </a.css>; rel=preload\\n\\n'\nwhile [ ! -e \"$GO\" ]; do sleep 0.01; done\nprintf 'Content-Type: text/plain\\n\\nfine'\n"
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ cgi ./hints; env GO DIR/go; {USER} }}", {"hints": program}) as w:
        for version in ("--http1.1", "--http2-prior-knowledge"):
            go = os.path.join(w.dir, "go")
            if os.path.exists(go):
                os.unlink(go)
            p = subprocess.Popen(["stdbuf", "-o0", "curl", "-sSi", "-N", version, f"http://127.0.0.1:{w.port}/"], stdout=subprocess.PIPE)
            first = p.stdout.readline()
            assert first.split()[1] == b"103", first
            w.write("go", "")
            text = first + p.stdout.read()
            assert p.wait() == 0
            assert re.search(rb"^HTTP/[12.]+ 103.*?\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/[12.]+ 200.*\r\n\r\nfine$", text, re.S | re.I), text


# ---- what is left ----

def temp_files(w):
    """Open files in the folder of temp files; they have no name."""
    found = []
    folder = f"/proc/{w.gateway()}/fd"
    for fd in os.listdir(folder):
        with contextlib.suppress(OSError):
            to = os.readlink(os.path.join(folder, fd))
            if to.startswith(w.run_dir) and "(deleted)" in to:
                found.append(to)
    return found


def names(w):
    return sorted(n for n in os.listdir(w.run_dir) if not n.startswith("keep") and not n.endswith(".sock"))


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_an_upload_above_its_limit_is_413_and_leaves_nothing(w, length):
    before = names(w)
    s = w.connect(30)
    body = b"x" * (1 << 20)
    if length == "known":
        s.sendall(b"POST /little/a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1))
    else:
        s.sendall(b"POST /little/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(body) + body + b"\r\n")
        wait_for(lambda: temp_files(w))  # most of it is there
        s.sendall(b"1\r\nx\r\n")
    got = answers(rest(s))
    assert [g[0] for g in got] == [413] and got[0][1]["connection"] == b"close"
    wait_for(lambda: not temp_files(w))
    assert names(w) == before


@pytest.mark.threads
def test_an_upload_that_is_given_up_leaves_nothing(w):
    before = names(w)
    clients = [send(w, f"POST /plain/{i} HTTP/1.1\nHost: a\nContent-Length: 3000000\n", b"x" * 2_000_000) for i in range(5)]
    wait_for(lambda: len(temp_files(w)) == 5)
    for s in clients:
        s.close()
    wait_for(lambda: not temp_files(w))
    assert names(w) == before


@pytest.mark.nosan
def test_large_bodies_pass_in_little_memory():
    """The same with 2 GB: make stress."""
    r = subprocess.run(["/usr/bin/python3", os.path.join(os.path.dirname(os.path.abspath(__file__)), "stress", "large.py"), "--build", BUILD, "--megabytes", "200"],
                       capture_output=True, text=True, timeout=300)
    print(r.stdout, r.stderr)
    assert r.returncode == 0, r.stdout + r.stderr[-3000:]
