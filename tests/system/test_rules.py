# SPDX-License-Identifier: MIT
"""Rules of FastCGI 1.0 that only whole programs can keep: how an app is started, what exactly an app behind the gateway is sent. Their ids
are those of docs/fastcgi-rules.md; that each has its code and its test is tested here, too."""
import os
import re
import socket
import struct
import subprocess
import threading

import pytest
from recorder import ABORT, BEGIN, DATA, END, GET_VALUES, PARAMS, STDIN, STDOUT, pair, pairs, record
from test_front import Fcgi
from weirlib import BUILD, IS_ROOT, ROOT, SLOW, USER, UnixServer, Weir, status_of, wait_for

COMPLETE = struct.pack("!IB3x", 0, 0)
HEAD = b"Content-Type: text/plain\r\n\r\n"


# ---- the report ----

def report(*args):
    return subprocess.run([os.path.join(ROOT, "tools/rules"), *args], capture_output=True, text=True, timeout=60)


def test_each_rule_has_its_code_and_its_test():
    r = report()
    assert r.returncode == 0, r.stderr
    assert re.search(r"^1\d\d rules, \d{3,} places in code, \d{3,} in tests, 0 wrong$", r.stdout, re.M)


ONE, OTHER, NEW = ("FC1-3." + end for end in ("1-a", "2-a", "1-z"))  # in two pieces: no marks of this file
ROW = f"| {ONE} |"


@pytest.mark.parametrize("old,new,expected", [
    (ROW, f"| {NEW} | both | Something new. | |\n{ROW}", f"{NEW}: no code\n{NEW}: no test\n"),
    (ROW, f"| {NEW} | both | Something else. | **Not ours** |\n{ROW}", ""),
    (ROW, "| |", f"{ONE}: no such rule, in "),
    (f"| {OTHER} |", ROW, f"{ONE}: two rows\n"),
])
def test_a_rule_without_a_place_and_a_place_without_a_rule_are_told(old, new, expected, tmp_path):
    with open(os.path.join(ROOT, "docs/fastcgi-rules.md"), encoding="utf-8") as f:
        text = f.read()
    assert text.count(old) == 1
    (tmp_path / "rules.md").write_text(text.replace(old, new), encoding="utf-8")
    r = report(str(tmp_path / "rules.md"))
    assert r.returncode == (1 if expected else 0) and expected in r.stderr


# ---- how it is started ----

APP = """#!/usr/bin/python3
import errno, os, socket, sys
s = socket.socket(fileno=0)
try:
    peer = s.getpeername()
except OSError as e:
    peer = errno.errorcode[e.errno]
print("start", sys.argv, s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), peer, s.family.name, os.getcwd(), os.getuid(),
      {n: v for n, v in os.environ.items() if n.isupper() and n in ("COLOUR", "FCGI_WEB_SERVER_ADDRS", "REQUEST_METHOD")}, flush=True)
s.accept()
"""


def test_an_app_is_started_with_a_listening_socket_and_what_its_pool_says():
    """FC1-2.1-a, FC1-2.1-b, FC1-2.2-a, FC1-2.2-c, FC1-2.2-d, FC1-2.3-a, FC1-2.4-a"""
    with Weir(f"pool p {{ run ./app.py one \"t w o\"; env COLOUR blue; {USER} }}", {"app.py": APP}) as w:
        line = wait_for(lambda: re.search(r"start (.*)", w.log())).group(1)
        uid = os.getuid()
        if IS_ROOT:
            import pwd
            uid = pwd.getpwnam("weir-demo").pw_uid
        assert line == f"{[w.dir + '/app.py', 'one', 't w o']} 1 ENOTCONN AF_UNIX {w.dir} {uid} {{'COLOUR': 'blue'}}"


def test_a_cgi_programs_exit_is_the_status_of_its_request(tmp_path):
    """FC1-6.2-e, FC1-6.1-c, FC1-7-c"""
    script = tmp_path / "x"
    script.write_text("#!/bin/sh\necho wrong >&2\nprintf 'Content-Type: text/plain\\n\\nx'\neval \"$QUERY_STRING\"\n")
    script.chmod(0o755)
    path = str(tmp_path / "cgi.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(10)
        p = subprocess.Popen([os.path.join(BUILD, "src/runner/weir-cgi"), str(script)], stdin=listener.fileno())
        try:
            c = Fcgi(path)
            for run, status in (("true", 0), ("exit 3", 3), ("kill -9 $$", 128 + 9)):
                out, err, end = c.ask(1, [("QUERY_STRING", run)])
                assert out.endswith(b"\n\nx") and err.startswith(b"wrong\n") and end == (status, 0)
        finally:
            p.terminate()
            assert p.wait(20 * SLOW) == 0


# ---- what it is sent ----

class App(UnixServer):
    """An app that keeps every record of each of its connections, and answers by `talk(connection, record)` what it returns."""

    def __init__(self, weir, name, talk):
        self.talk, self.seen, self.open, self.most, self.lock = talk, [], 0, 0, threading.Lock()
        super().__init__(f"{weir.run_dir}/keep-{name}.sock")

    def serve(self, c):
        records = []
        with self.lock:
            self.seen.append(records)
            self.open += 1
            self.most = max(self.most, self.open)
        f = c.makefile("rb")
        try:
            while head := f.read(8):
                version, kind, rid, length, padding, reserved = struct.unpack("!BBHHBB", head)
                assert version == 1 and reserved == 0
                records.append((kind, rid, f.read(length), padding))
                assert len(f.read(padding)) == padding
                answer = self.talk(records, records[-1])
                if answer is None:
                    break
                c.sendall(answer)
            else:
                records.append("closed")
        except OSError:
            pass
        f.close()
        c.close()
        with self.lock:
            self.open -= 1


def after(last, answer=HEAD + b"fine", end=COMPLETE):
    """Answers when the stream `last` has ended."""
    def talk(_, r):
        return record(STDOUT, r[1], answer) + record(STDOUT, r[1]) + record(END, r[1], end) if r[0] == last and not r[2] else b""
    return talk


def streams(records):
    """In order: each type with its content, pieces of a stream put together; each was ended but for BEGIN."""
    out = []
    for kind, rid, content, padding in (r for r in records if r != "closed"):
        assert rid == 1 and padding == 0 and len(content) <= 65528
        if kind == BEGIN or not out or out[-1][0] != kind:
            out.append([kind, content, kind == BEGIN or not content])
        else:
            assert not out[-1][2], "content behind the end of a stream"
            out[-1][1] += content
            out[-1][2] = not content
    assert all(ended for _, _, ended in out)
    return [(kind, content) for kind, content, _ in out]


CONFIG = """
site a {
    listen http://127.0.0.1:PORT
    root public
    route /plain/ { pool plain }
    route /kept/ { pool kept }
    route /auth/ { authorizer auth; pool behind }
    route *.txt { filter filter }
    route /loses/ { pool loses }
    route /refuses/ { pool refuses }
    route /stream/ { pool stream; body { stream yes } }
    route /silent/ { pool silent }
}
""" + "".join(f"pool {n} {{ connect unix:DIR/run/keep-{n}.sock {{ {more} }} {rest} }}\n" for n, more, rest in (
    ("plain", "workers 2", ""), ("kept", "workers 2", "; keep"), ("auth", "workers 2", ""), ("behind", "workers 2", ""), ("filter", "workers 2", ""), ("loses", "workers 1", "; keep"),
    ("refuses", "workers 2", ""), ("stream", "workers 2", ""), ("silent", "workers 1; flow-control yes", "")))


@pytest.fixture(scope="module")
def w():
    with Weir(CONFIG, {"public/t.txt": "the file's text"}) as weir:
        yield weir


def test_a_responder_is_sent_its_request_and_not_a_byte_more(w):
    """FC1-6.1-a, FC1-6.1-e, FC1-6.2-a, FC1-6.2-b, FC1-3.5-a, FC1-3.3-e, IOP-S1, IOP-S3, IOP-S4, IOP-S5, IOP-S11"""
    app = App(w, "plain", after(STDIN))
    for body in (None, b"", b"b" * 200000):
        del app.seen[:]
        assert not app.seen and app.open == 0  # nothing is opened ahead of time, nor kept
        r = w.get("/plain/x?q=1", "POST" if body is not None else "GET", body)
        assert (r.status, r.text) == (200, b"fine")
        sent = streams(app.seen[0])
        assert [kind for kind, _ in sent] == [BEGIN, PARAMS, STDIN]
        params = dict(pairs(sent[1][1]))
        assert sent[0][1] == struct.pack("!HB5x", 1, 0) and sent[2][1] == (body or b"")
        assert params["QUERY_STRING"] == "q=1" and params["REQUEST_METHOD"] == ("GET" if body is None else "POST") and params["GATEWAY_INTERFACE"] == "CGI/1.1"
        assert params.get("CONTENT_LENGTH") == (None if body is None else str(len(body)))  # an empty one is a body
        wait_for(lambda: app.open == 0)
        assert app.seen[0][-1] == "closed" and len(app.seen) == 1


def test_kept_connections_are_no_more_than_the_workers(w):
    """FC1-3.5-c, FC1-3.3-i, IOP-S8, IOP-S12"""
    app = App(w, "kept", after(STDIN))
    threads = [threading.Thread(target=lambda: [w.get("/kept/x") for _ in range(5)]) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert app.most <= 2 and sum(c[:1] not in ([], ["closed"]) for c in app.seen) <= 2  # one that came too late for its request is closed unused
    begun = [r for c in app.seen for r in c if r[0] == BEGIN]
    assert len(begun) == 30 and all(r[1] == 1 and r[2] == struct.pack("!HB5x", 1, 1) for r in begun)


def test_an_authorizer_is_asked_without_body_and_script(w):
    """FC1-6.3-a, FC1-6.3-b, FC1-6.3-e, FC1-6.1-e, IOP-S4"""
    app = App(w, "auth", after(STDIN, b"Status: 200\r\nVariable-REMOTE_USER: bob\r\nX: y\r\n\r\nnobody sees it"))
    App(w, "behind", after(STDIN))
    r = w.get("/auth/x?q", "POST", b"body")
    assert r.text == b"fine" and r.getheader("X") is None
    sent = streams(app.seen[0])
    assert [kind for kind, _ in sent] == [BEGIN, PARAMS, STDIN] and sent[0][1] == struct.pack("!HB5x", 2, 0) and sent[2][1] == b""
    params = dict(pairs(sent[1][1]))
    assert params["REQUEST_METHOD"] == "POST" and not {"CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"} & set(params)


def test_a_filter_is_sent_the_body_and_then_the_file(w):
    """FC1-6.4-a, FC1-6.4-b, FC1-6.4-c, FC1-6.1-a, FC1-6.1-e"""
    app = App(w, "filter", after(DATA))
    path = os.path.join(w.public, "t.txt")
    for body in (None, b"some"):
        del app.seen[:]
        assert w.get("/t.txt", "POST" if body else "GET", body).text == b"fine"
        sent = streams(app.seen[0])
        assert sent[0] == (BEGIN, struct.pack("!HB5x", 3, 0)) and sent[2:] == [(STDIN, body or b""), (DATA, b"the file's text")]
        params = dict(pairs(sent[1][1]))
        assert params["FCGI_DATA_LENGTH"] == "15" and params["FCGI_DATA_LAST_MOD"] == str(int(os.stat(path).st_mtime))


def test_what_a_kept_connection_lost_is_not_sent_again(w):
    """IOP-S9, IOP-S7"""
    app = App(w, "loses", lambda all_, r: None if r[0] == STDIN and sum(x[0] == BEGIN for x in all_) == 2 else after(STDIN)(all_, r))
    assert w.get("/loses/x").status == 200
    assert w.get("/loses/x").status == 502
    assert sum(r[0] == BEGIN for c in app.seen for r in c) == 2
    assert w.get("/loses/x").status == 200


@pytest.mark.parametrize("status", [1, 2, 3])
def test_what_is_refused_is_sent_to_another_connection(w, status):
    """FC1-5.5-d, FC1-5.5-e, FC1-5.5-f"""
    count = [0]

    def talk(_, r):
        if r[0] == STDIN and not r[2]:
            count[0] += 1
            if count[0] == 1:
                return record(END, r[1], struct.pack("!IB3x", 0, status))
            return record(STDOUT, r[1], HEAD + b"fine") + record(END, r[1], COMPLETE)
        return b""
    app = App(w, "refuses", talk)
    try:
        assert w.get("/refuses/x", "POST", b"body").status == 200
        wait_for(lambda: app.open == 0)
        assert [[x[2] for x in c if x[0] == STDIN] for c in app.seen] == [[b"body", b""]] * 2
    finally:
        app.socket.shutdown(socket.SHUT_RDWR)
        os.unlink(f"{w.run_dir}/keep-refuses.sock")


def test_a_body_that_the_client_does_not_finish_is_never_ended(w):
    """FC1-6.2-c, FC1-5.4-d, IOP-S5, IOP-S13; FC1-6.1-b: the answer is read meanwhile"""
    app = App(w, "stream", lambda _, r: record(STDOUT, r[1], HEAD + b"early") if r[0] == STDIN and r[2] else b"")
    with w.connect() as s:
        s.sendall(b"POST /stream/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        answer = b""
        while b"early" not in answer:
            answer += s.recv(65536)
        assert status_of(answer) == 200
    wait_for(lambda: app.seen and app.seen[0] and app.seen[0][-1] == "closed")
    assert [r[2] for r in app.seen[0][:-1] if r[0] == STDIN] == [b"half"] and not any(r[0] == ABORT for r in app.seen[0])


def test_who_does_not_answer_a_question_is_asked_no_more(w):
    """FC1-4.1-a, FC1-4.1-f, IOP-S10"""
    app = App(w, "silent", after(STDIN))
    for _ in range(2):
        assert w.get("/silent/x", timeout=20 * SLOW).text == b"fine"
    asked, others = app.seen[:3], [r for c in app.seen[3:] for r in c]  # three times: it may have been slow to start
    assert all(c[0] == (GET_VALUES, 0, pair(b"FCGI_FLOW_CONTROL", b""), 8) and c[1:] in ([], ["closed"]) for c in asked)
    assert sum(r[0] == BEGIN for r in others) == 2 and not any(r[0] == GET_VALUES for r in others)
