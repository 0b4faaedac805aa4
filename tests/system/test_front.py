# SPDX-License-Identifier: MIT
"""Pools behind other web servers: the gateway's FastCGI front."""
import contextlib
import hashlib
import http.client
import json
import os
import select
import random
import re
import signal
import socket
import stat
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import recorder
from recorder import ABORT, BEGIN, DATA, END, GET_VALUES, PARAMS, RESULT, STDERR, STDIN, STDOUT, pair, record
from weirlib import HAPROXY, IS_ROOT, LONG, RECORDER, SLOW, USER, WEIR, Load, Weir, can_connect, free_port, program, wait_for

FRONT = "listener front { address fastcgi+unix:DIR/front.sock; mode 0666; MORE }\n"
RECORD = FRONT + f"pool record {{ run ./recorder.py; {USER} processes 2; publish front; time {{ silent 20s }}; POOL }}\n"
DEMO = FRONT + f"pool demo {{ run ./demo; {USER} processes 2; publish front; POOL }}\n"

NGINX = """
worker_processes 1; daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.err;
events {{ worker_connections 500; }}
http {{
    access_log off;
    client_body_temp_path {d}/n1; proxy_temp_path {d}/n2; fastcgi_temp_path {d}/n3; uwsgi_temp_path {d}/n4; scgi_temp_path {d}/n5;
    client_max_body_size 50m; large_client_header_buffers 4 64k; underscores_in_headers on;
    upstream app {{ server unix:{socket}; {keep} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            include /etc/nginx/fastcgi_params; fastcgi_param PATH_INFO $uri; fastcgi_param TWICE one; fastcgi_param TWICE two; fastcgi_param EMPTY "";
            fastcgi_pass app; {more}
        }}
    }}
}}
"""


def conf(text, more="", pool=""):
    return text.replace("MORE", more).replace("POOL", pool)


@contextlib.contextmanager
def nginx(folder, socket_path, keep=True, more="", port=None):
    """nginx in front of a socket: the port that it listens on."""
    port = port or free_port()
    os.chmod(folder, 0o777)
    path = os.path.join(folder, "nginx.conf")
    more += " fastcgi_keep_conn on;" if keep else ""
    with open(path, "w") as f:
        f.write(NGINX.format(d=folder, socket=socket_path, port=port, keep="keepalive 8;" if keep else "", more=more))
    with program(["/usr/sbin/nginx", "-c", path, "-g", "user root;"], can_connect(("127.0.0.1", port))):
        yield port


def get(port, path, method="GET", body=None, headers=(), timeout=30):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout * SLOW)
    try:
        c.putrequest(method, path, skip_host=any(n == "Host" for n, _ in headers), skip_accept_encoding=True)
        for name, value in headers:
            c.putheader(name, value)
        if body is not None:
            c.putheader("Content-Length", str(len(body)))
        c.endheaders(body)
        r = c.getresponse()
        r.text = r.read()
        return r
    finally:
        c.close()


class Fcgi:
    """A web server's end of a connection, by hand."""

    def __init__(self, where, timeout=20):
        self.s = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        self.s.settimeout(timeout * SLOW)
        self.s.connect(where)

    def send(self, *records):
        self.s.sendall(b"".join(records))

    def begin(self, rid, params, role=1, keep=1):
        self.send(record(BEGIN, rid, struct.pack("!HB5x", role, keep)),
                  *(record(PARAMS, rid, pair(n.encode(), v.encode())) for n, v in params), record(PARAMS, rid))

    def end_of(self, rid):
        """All records up to END_REQUEST of rid: STDOUT, STDERR, (appStatus, protocolStatus)."""
        out, err = bytearray(), bytearray()
        while True:
            kind, got, content = recorder.read_record(self.s)
            if got != rid:
                continue
            if kind == STDOUT:
                out += content
            elif kind == STDERR:
                err += content
            elif kind == END:
                return bytes(out), bytes(err), struct.unpack("!IB3x", content)

    def ask(self, rid, params=(("QUERY_STRING", ""),), body=b"", role=1, keep=1, data=None):
        self.begin(rid, params, role, keep)
        self.give(rid, body, data)
        return self.end_of(rid)

    def give(self, rid, body=b"", data=None):
        if body:
            recorder.stream(self.s, STDIN, rid, body)
        self.send(record(STDIN, rid))
        if data is not None:
            recorder.stream(self.s, DATA, rid, data)
            self.send(record(DATA, rid))

    def closed(self):
        try:
            return self.s.recv(65536) == b""
        except ConnectionResetError:
            return True


def heard(out):
    return json.loads(out.split(b"\r\n\r\n", 1)[1])


def status_of(out):
    m = re.match(rb"Status: (\d+) ", out)
    return int(m.group(1)) if m else None


# ---- what is carried ----

@pytest.mark.parametrize("keep", [False, True])
def test_an_app_behind_nginx_gets_the_same_parameters_with_weir_between_them(keep, tmp_path):
    port = free_port()
    path = str(tmp_path / "direct.sock")
    headers = [("Host", "x.test"), ("X-Twice", "1"), ("X-Twice", "2"), ("X_Under", "3"), ("Cookie", "c" * 30000), ("X-Bytes", "\xe4\xf6"), ("X-Empty", "")]
    asked = [("GET", "/a%20b/../c?d=%25&e", None), ("POST", "/post?x", b"body"), ("HEAD", "/", None), ("GET", "//a/b?", None)]

    def all_of(socket_path):
        with nginx(str(tmp_path), socket_path, keep, port=port):
            return [get(port, target, method, body, headers).text for method, target, body in asked]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(10)
        script = tmp_path / "recorder.py"
        script.write_text(RECORDER["recorder.py"])
        app = subprocess.Popen(["/usr/bin/python3", str(script)], stdin=listener.fileno())
        try:
            direct = all_of(path)
        finally:
            app.kill()
            app.wait()
    with Weir(conf(RECORD), RECORDER) as w:
        between = all_of(w.dir + "/front.sock")

    def without_ports(text):
        return [(n, "" if n == "REMOTE_PORT" else v) for n, v in json.loads(text)["params"]]
    assert direct[2] == between[2] == b""
    for i in (0, 1, 3):
        a, b = without_ports(direct[i]), without_ports(between[i])
        assert a == b and len(a) > 20
    names = [n for n, _ in without_ports(between[0])]
    assert names.count("TWICE") == 2 and names.count("HTTP_X_TWICE") == 2 and ("EMPTY", "") in without_ports(between[0])


@pytest.mark.threads
@pytest.mark.parametrize("keep", [False, True])
def test_bodies_answers_and_stderr_pass_through_nginx_and_the_front(keep, tmp_path):
    body = os.urandom(10 << 20)
    with Weir(conf(RECORD), RECORDER) as w, nginx(str(tmp_path), w.dir + "/front.sock", keep) as port:
        for _ in range(3):
            r = json.loads(get(port, "/", "POST", body).text)
            assert r["stdin"] == len(body) and r["sha"] == hashlib.sha256(body).hexdigest()
            assert get(port, "/?big=1048576").text == b"x" * 1048576
        assert get(port, "/?err=the-app-says-this").status == 200
        wait_for(lambda: "the-app-says-this" in (tmp_path / "nginx.err").read_text())
        with ThreadPoolExecutor(16) as pool:
            assert all(r.status == 200 for r in pool.map(lambda _: get(port, "/?sleep=0.01"), range(64)))
        assert "the-app-says-this" not in w.log()


@pytest.mark.threads
def test_haproxy_multiplexes_over_the_front(tmp_path):
    """FC1-3.3-n"""
    port = free_port()
    cfg = tmp_path / "haproxy.cfg"
    with Weir(conf(RECORD.replace("processes 2", "processes 4")), RECORDER) as w:
        cfg.write_text(HAPROXY.format(socket=w.dir + "/front.sock", port=port, server="maxconn 100 pool-max-conn 1", more="option get-values\n    option max-reqs 100"))
        with program(["/usr/sbin/haproxy", "-db", "-f", str(cfg)], can_connect(("127.0.0.1", port))):
            with ThreadPoolExecutor(32) as pool:
                answers = list(pool.map(lambda i: get(port, f"/{i}?sleep=0.02", "POST", b"b" * i), range(160)))
            assert all(r.status == 200 for r in answers)
            for i, r in enumerate(answers):
                seen = json.loads(r.text)
                assert seen["stdin"] == i and dict(seen["params"])["QUERY_STRING"] == "sleep=0.02"
            assert get(port, "/?big=3000000").text == b"x" * 3000000


def test_roles_streams_and_statuses_are_the_apps(tmp_path):
    """FC1-3.5-b, FC1-4.1-c, FC1-5.2-a, FC1-5.5-a, FC1-6.3-e"""
    params = [("B", "1"), ("A", "2"), ("B", "3"), ("QUERY_STRING", "status=4294967295&err=e"), ("EMPTY", ""), ("N" * 200, "v" * 70)]
    with Weir(conf(RECORD), RECORDER) as w:
        c = Fcgi(w.dir + "/front.sock")
        out, err, end = c.ask(7, params, b"in")
        assert heard(out)["params"] == [list(p) for p in params] and heard(out)["role"] == 1 and heard(out)["stdin"] == 2
        assert err == b"e\n" and end == (4294967295, 0)
        out, _, _ = c.ask(300, params, b"f" * 300000, role=3, data=b"d" * 100000)
        assert heard(out)["role"] == 3 and heard(out)["stdin"] == 300000 and heard(out)["data"] == "d" * 100000
        out, _, _ = c.ask(65535, params, b"", role=3, data=b"only data")
        assert heard(out)["stdin"] == 0 and heard(out)["data"] == "only data"
        c.begin(9, params, role=2)  # an authorizer has no STDIN: nothing of it is waited for
        out, _, _ = c.end_of(9)
        assert heard(out)["role"] == 2 and heard(out)["params"] == [list(p) for p in params]
        c.send(record(GET_VALUES, 0, b"".join(pair(n, b"") for n in (b"FCGI_MPXS_CONNS", b"FCGI_MAX_REQS", b"FCGI_MAX_CONNS"))))
        kind, _, content = recorder.read_record(c.s)
        assert kind == RESULT and dict(recorder.pairs(content))["FCGI_MPXS_CONNS"] == "1"
        c.ask(1, keep=0)
        assert c.closed()  # without KEEP_CONN it is the app's end that closes


@pytest.mark.threads
def test_a_weir_in_front_of_a_front_speaks_flow_control_with_it():
    config = DEMO.replace("./demo", "./bench_app") + """
        site a { listen http://127.0.0.1:PORT; route / { pool up } }
        pool up { connect unix:DIR/front.sock { flow-control yes; workers 2 } }\n"""
    body = os.urandom(3 << 20)
    with Weir(conf(config)) as w:
        with ThreadPoolExecutor(24) as pool:
            assert all(r.status == 200 for r in pool.map(lambda _: w.get("/sleep/20"), range(96)))
            assert all(r.text == b"%d\n" % len(body) for r in pool.map(lambda _: w.get("/discard", "POST", body), range(6)))
            assert all(len(r.text) == 3000000 for r in pool.map(lambda _: w.get("/big/3000000"), range(6)))


@pytest.mark.nosan
@pytest.mark.parametrize("php", ["php fpm", "php cgi"])
def test_php_behind_nginx_is_served_by_a_pool_of_weir(php, tmp_path):
    script = "<?php error_log('php says so'); echo $_SERVER['REQUEST_URI'], ' ', strlen(file_get_contents('php://input'));"
    with Weir(conf(FRONT) + f"pool php {{ {php}; {USER} workers 2; publish front }}\n", {"public/a.php": script}) as w:
        more = f"fastcgi_param SCRIPT_FILENAME {w.public}$uri;"
        with nginx(str(tmp_path), w.dir + "/front.sock", True, more) as port:
            for _ in range(4):
                r = get(port, "/a.php?x=1", "POST", b"b" * 100000)
                assert r.status == 200 and r.text == b"/a.php?x=1 100000"
            assert get(port, "/none.php").status == 404
            with ThreadPoolExecutor(8) as pool:
                assert all(r.status == 200 for r in pool.map(lambda _: get(port, "/a.php"), range(64)))


def test_a_weir_in_front_of_a_front_sees_refusals_and_broken_answers():
    config = RECORD.replace("processes 2", "processes 1") + """
        site a { listen http://127.0.0.1:PORT; route / { pool up } }
        pool up { connect unix:DIR/front.sock { flow-control yes; workers 2 } }\n"""
    with Weir(conf(config, pool="queue 0 20s"), RECORDER) as w:
        assert json.loads(w.get("/?a").text)["role"] == 1
        with pytest.raises(http.client.IncompleteRead):
            w.get("/?big=100000&die=1")
        wait_for(lambda: w.get("/?a").status == 200)
        started, go = (f"{w.run_dir}/keep-{n}" for n in ("started", "go"))
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(w.get, f"/?started={started}&until={go}")
            wait_for(lambda: os.path.exists(started))
            r = w.get("/?a")
            assert r.status == 503 and b"503" in r.text
            open(go, "w").close()
            assert busy.result().status == 200
        wait_for(lambda: "refused: overloaded" in w.log())  # by FCGI_OVERLOADED, not by a page


@pytest.mark.parametrize("name, told", [("plain-id", " plain-id]"), ("id\nforged line", "]")])
def test_what_a_web_server_calls_a_request_makes_no_line_of_our_log(name, told):
    """It is slow to take what the app writes to stderr: the log has the rest."""
    with Weir(conf(RECORD), RECORDER) as w:
        c = Fcgi(w.dir + "/front.sock")
        c.begin(1, (("QUERY_STRING", f"err=part-{'z' * 100}&times=20000"), ("REQUEST_ID", name)))
        c.give(1)
        wait_for(lambda: re.search(rf"^\[record \d+{re.escape(told)} part-z", w.log(), re.M))
        assert "\nforged" not in w.log()


# ---- queue, time, ends ----

@pytest.mark.threads
def test_a_full_queue_is_answered_503_and_emptied_when_clients_leave(tmp_path):
    """FC1-5.4-d, FC1-5.5-e, IOP-S13"""
    with Weir(conf(RECORD, pool="queue 1 20s").replace("processes 2", "processes 1"), RECORDER) as w, nginx(str(tmp_path), w.dir + "/front.sock") as port:
        started, go, aborted = (f"{w.run_dir}/keep-{n}" for n in ("started", "go", "aborted"))
        target = f"/?started={started}&until={go}&aborted={aborted}"
        clients = []
        for load in ((1, 0), (1, 1)):
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            clients.append(s)
            wait_for(lambda: w.load("record") == load)
        wait_for(lambda: os.path.exists(started))
        r = get(port, "/")
        assert r.status == 503 and r.getheader("Retry-After") == "1" and "text/plain" in r.getheader("Content-Type")
        clients.pop().close()  # out of the queue
        wait_for(lambda: w.pool("record")["queued"] == 0)
        clients.pop().close()  # and out of the app
        wait_for(lambda: os.path.exists(aborted))
        assert get(port, "/").status == 200


def test_an_app_that_is_silent_is_told_as_504_and_a_broken_answer_is_seen_as_broken(tmp_path):
    config = conf(RECORD.replace("time { silent 20s };", "time { silent 300ms };"))
    with Weir(config, RECORDER) as w, nginx(str(tmp_path), w.dir + "/front.sock") as port:
        assert get(port, "/?sleep=5").status == 504
        with pytest.raises(http.client.IncompleteRead):
            get(port, "/?big=100000&die=1")
    with Weir(config, RECORDER) as w:
        c = Fcgi(w.dir + "/front.sock")
        c.begin(1, [("QUERY_STRING", f"until={w.dir}/never")])
        c.begin(2, [("QUERY_STRING", "big=100000&die=1")])
        c.send(record(STDIN, 2))
        out, _, (_, protocol) = c.end_of(2)  # others are on this connection: it stays
        assert len(out) > 100000 and protocol != 0
        c.send(record(STDIN, 1))
        out, _, end = c.end_of(1)
        assert status_of(out) == 504 and end == (0, 0)


@pytest.mark.threads
def test_slow_senders_take_no_slot_and_abort_ends_a_request():
    """FC1-5.4-a"""
    with Weir(conf(RECORD.replace("processes 2", "processes 1"), more="time { body 700ms }"), RECORDER) as w:
        slow = Fcgi(w.dir + "/front.sock")
        for rid in range(1, 9):
            slow.begin(rid, [("QUERY_STRING", "")])
            slow.send(record(STDIN, rid, b"some"))
        other = Fcgi(w.dir + "/front.sock")
        assert heard(other.ask(1)[0])["role"] == 1
        slow.send(record(ABORT, 1))
        assert slow.end_of(1) == (b"", b"", (0, 0))
        slow.send(record(STDIN, 2))
        assert heard(slow.end_of(2)[0])["stdin"] == 4
        assert status_of(slow.end_of(3)[0]) == 408  # nothing more of its body came
        started, never, aborted = (f"{w.run_dir}/keep-{n}" for n in ("started", "never", "aborted"))
        other.begin(5, [("QUERY_STRING", f"started={started}&until={never}&aborted={aborted}")])
        other.send(record(STDIN, 5))
        wait_for(lambda: os.path.exists(started))
        other.send(record(ABORT, 5))
        assert other.end_of(5) == (b"", b"", (0, 0))
        wait_for(lambda: os.path.exists(aborted))
        assert heard(other.ask(6)[0])["role"] == 1


def test_a_body_over_the_limit_is_answered_413_and_the_connection_goes_on():
    with Weir(conf(RECORD, more="body 1M"), RECORDER) as w:
        c = Fcgi(w.dir + "/front.sock")
        for params in ([("QUERY_STRING", "")], [("QUERY_STRING", ""), ("CONTENT_LENGTH", "2000000")]):
            out, _, end = c.ask(1, params, b"z" * 2000000)
            assert status_of(out) == 413 and end == (0, 0)
        assert heard(c.ask(1, body=b"z" * 1000000)[0])["stdin"] == 1000000


def test_connections_that_are_idle_or_send_half_a_head_are_closed_and_bad_records_end_only_theirs():
    """FC1-7-d, IOP-A8"""
    with Weir(conf(RECORD, more="time { idle 300ms; head 300ms }"), RECORDER) as w:
        path = w.dir + "/front.sock"
        busy, idle, half, bad = (Fcgi(path) for _ in range(4))
        go = f"{w.run_dir}/keep-go"
        busy.begin(1, [("QUERY_STRING", f"until={go}")])
        busy.send(record(STDIN, 1))
        assert heard(idle.ask(1)[0])["role"] == 1
        half.send(record(BEGIN, 1, struct.pack("!HB5x", 1, 1)), record(PARAMS, 1, pair(b"A", b"b")))
        bad.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert bad.closed() and idle.closed() and half.closed()
        wait_for(lambda: "a web server's connection ends: a record that is not version 1" in w.log())
        open(go, "w").close()
        assert heard(busy.end_of(1)[0])["role"] == 1


def test_an_idle_connection_with_flow_control_is_left_by_final():
    with Weir(conf(RECORD, more="time { idle 300ms }"), RECORDER) as w:
        agreed = Fcgi(w.dir + "/front.sock")
        agreed.send(record(GET_VALUES, 0, pair(b"FCGI_FLOW_CONTROL", b"")))
        kind, rid, content = recorder.read_record(agreed.s)
        assert (kind, rid) == (RESULT, 0) and b"window=" in content
        kind, rid, content = recorder.read_record(agreed.s)
        assert (kind, rid) == (32, 0) and content == b"\1\1" + bytes(14)  # BEGIN_REQUEST, FINAL, limit 0
        agreed.send(record(BEGIN, 1, struct.pack("!HBBI", 1, 0x81, 1, 65536)), record(PARAMS, 1, pair(b"QUERY_STRING", b"")), record(PARAMS, 1), record(STDIN, 1))
        assert heard(agreed.end_of(1)[0])["role"] == 1  # it was on its way
        assert agreed.closed()


def test_too_many_requests_on_a_plain_connection_are_refused_and_too_many_parameters_too():
    """FC1-5.5-d, FC1-5.5-e, IOP-A5, IOP-A8"""
    with Weir(conf(RECORD), RECORDER) as w:
        c = Fcgi(w.dir + "/front.sock")
        for rid in range(1, 101):
            c.begin(rid, [("QUERY_STRING", "")])
        c.begin(101, [("QUERY_STRING", "")])
        assert c.end_of(101)[2][1] == 1  # CANT_MPX_CONN
        for rid in range(1, 101):
            c.send(record(STDIN, rid))
        left = set(range(1, 101))
        while left:
            kind, rid, _ = recorder.read_record(c.s)
            if kind == END:
                left.remove(rid)
        c.send(record(BEGIN, 1, struct.pack("!HB5x", 1, 1)), *(record(PARAMS, 1, pair(b"N", b"v" * 60000)) for _ in range(5)))
        assert c.end_of(1)[2][1] == 2  # OVERLOADED
        assert heard(c.ask(2)[0])["role"] == 1


@pytest.mark.threads
def test_an_answer_that_the_web_server_does_not_take_waits_without_holding_the_app():
    with Weir(conf(RECORD.replace("processes 2", "processes 1"), more=f"time {{ send {3 * SLOW}s }}"), RECORDER) as w:
        slow = Fcgi(w.dir + "/front.sock")
        slow.begin(1, [("QUERY_STRING", "big=8000000")])
        slow.send(record(STDIN, 1))
        other = Fcgi(w.dir + "/front.sock")
        assert heard(other.ask(1)[0])["role"] == 1
        out, _, end = slow.end_of(1)
        assert len(out) > 8000000 and end == (0, 0)
        slow.begin(2, [("QUERY_STRING", "big=8000000")])
        slow.send(record(STDIN, 2))
        wait_for(lambda: w.status()["gateway"]["connections"] == 1)  # it takes nothing: only the other one is left


def test_a_front_outlives_whatever_bytes_come():
    r = random.Random(7)
    with Weir(conf(RECORD.replace("./recorder.py", "./bench_app"), more="body 200K; time { head 300ms; body 300ms; idle 1s; send 1s }", pool="queue 20 300ms")) as w:
        gateway = w.gateway()

        def one(seed):
            r = random.Random(seed)
            talk = []
            for rid in [r.choice([1, 2, 3, 1, 65535, 0]) for _ in range(r.randrange(1, 6))]:
                talk += [record(BEGIN, rid, struct.pack("!HB5x", r.choice([1, 1, 1, 2, 3, 9]), r.choice([0, 1, 1, 0x81]))),
                         record(PARAMS, rid, pair(b"PATH_INFO", r.choice([b"/big/300000", b"/discard", b"/sleep/30", b"/hello"])) + pair(b"CONTENT_LENGTH", b"%d" % r.randrange(1 << 18)),
                                r.randrange(8)), record(PARAMS, rid)]
                talk += [record(STDIN, rid, bytes(r.randrange(65536))) for _ in range(r.randrange(6))]
                talk += r.choice([[], [record(STDIN, rid)], [record(ABORT, rid)], [record(DATA, rid, b"d" * r.randrange(60000)), record(DATA, rid), record(STDIN, rid)]])
                talk += r.choice([[], [record(GET_VALUES, 0, pair(b"FCGI_FLOW_CONTROL", b""))], [record(32, rid, bytes(r.randrange(256) for _ in range(16)))]])
            if r.random() < 0.5:
                r.shuffle(talk)
            data = bytearray(b"".join(talk))
            for _ in range(r.choice([0, 0, 1, 5])):
                data[r.randrange(len(data))] = r.randrange(256)
            with contextlib.suppress(OSError):
                c = Fcgi(w.dir + "/front.sock", 3)
                while data:
                    n = r.randrange(1, 100000)
                    c.s.sendall(data[:n])
                    del data[:n]
                if r.random() < 0.7:
                    c.s.settimeout(r.random())
                    while c.s.recv(r.randrange(1, 65536)):
                        pass
                c.s.close()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, [r.random() for _ in range(400)]))
        wait_for(lambda: w.status()["gateway"]["connections"] == 0 and w.load("record") == (0, 0))
        assert w.gateway() == gateway
        assert Fcgi(w.dir + "/front.sock").ask(1, [("PATH_INFO", "/hello")])[2] == (0, 0)


# ---- life ----

@pytest.mark.nosan
@pytest.mark.parametrize("keep", [False, True])
def test_restarts_of_a_pool_under_load_through_nginx_lose_nothing(keep, tmp_path):
    times = 50 if LONG else 10
    with Weir(conf(DEMO)) as w, nginx(str(tmp_path), w.dir + "/front.sock", keep) as port, Load(port, "/hello") as load:
        for _ in range(times):
            old = w.pids("demo")
            assert w.command("restart", "demo").returncode == 0
            wait_for(lambda: len(w.pids("demo")) == 2 and not set(old) & set(w.pids("demo")), every=0.05)
    assert not load.bad and load.ok > times, load


@pytest.mark.nosan
@pytest.mark.parametrize("keep", [False, True])
def test_gateways_are_replaced_and_the_root_part_is_upgraded_under_load_through_nginx(keep, tmp_path):
    with Weir(conf(DEMO)) as w, nginx(str(tmp_path), w.dir + "/front.sock", keep) as port, Load(port, "/hello") as load:
        for order in ("restart gateway", "upgrade", "restart gateway"):
            gateway = w.gateway()
            r = w.command(*order.split())
            assert r.returncode == 0, r.stdout + r.stderr
            wait_for(lambda: w.gateway() not in (None, gateway), every=0.05)
    assert not load.bad and load.ok > 10, load


@pytest.mark.threads
def test_a_gateway_that_ends_finishes_what_runs():
    with Weir(conf(RECORD), RECORDER) as w:
        started, go = (f"{w.run_dir}/keep-{n}" for n in ("started", "go"))
        idle, busy = Fcgi(w.dir + "/front.sock"), Fcgi(w.dir + "/front.sock")
        assert heard(idle.ask(1)[0])["role"] == 1
        busy.begin(1, [("QUERY_STRING", f"started={started}&sleep=0.2")])
        busy.send(record(STDIN, 1))
        wait_for(lambda: os.path.exists(started))
        gateway = w.gateway()
        assert w.command("restart", "gateway").returncode == 0
        wait_for(lambda: w.gateway() not in (None, gateway))
        wait_for(lambda: [g["state"] for g in w.status()["gateway"]["others"]] == ["leaving"])
        for rid in range(2, 50):  # it may ask once more, from when the gateway has heard that it leaves
            assert heard(idle.ask(rid)[0])["role"] == 1
            if select.select([idle.s], [], [], 0.2)[0]:
                break
        assert idle.closed()
        assert heard(busy.end_of(1)[0])["role"] == 1
        assert heard(busy.ask(2)[0])["role"] == 1
        assert busy.closed()
        wait_for(lambda: w.gateway() not in (None, gateway))
        assert heard(Fcgi(w.dir + "/front.sock").ask(1)[0])["role"] == 1
        assert not os.path.exists(go)


def test_a_killed_gateway_is_replaced_behind_the_same_socket(tmp_path):
    with Weir(conf(RECORD), RECORDER) as w, nginx(str(tmp_path), w.dir + "/front.sock") as port:
        assert get(port, "/").status == 200
        inode = os.lstat(w.dir + "/front.sock").st_ino
        os.kill(w.gateway(), signal.SIGKILL)
        wait_for(lambda: get(port, "/").status == 200)
        assert os.lstat(w.dir + "/front.sock").st_ino == inode
        assert all(get(port, "/").status == 200 for _ in range(10))


def test_requests_are_logged_with_what_the_web_server_says_of_them():
    params = [("REQUEST_METHOD", "PUT"), ("REQUEST_URI", '/a?"b'), ("SERVER_PROTOCOL", "HTTP/2.0"), ("HTTP_USER_AGENT", "me"), ("QUERY_STRING", "")]
    with Weir(conf(RECORD, more="body 1K"), RECORDER, program="threads 1", log="DIR/run/keep-access") as w:
        c = Fcgi(w.dir + "/front.sock")
        c.ask(1, params)
        c.ask(2, params, b"x" * 2000)
        path = w.run_dir + "/keep-access"
        wait_for(lambda: os.path.exists(path) and open(path).read().count("\n") == 2)
        first, second = open(path).read().splitlines()
        assert re.fullmatch(r'- - - \[.*\] "PUT /a\?\\x22b HTTP/2.0" - \d{3,} "-" "me" \d+ \d+ - record \d+ 1 -', first), first
        assert re.search(r'" 413 0 "-" "me" \d+ - - record - - -$', second), second


# ---- the socket ----

def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def front_alone(tmp_path, text):
    path = tmp_path / "gateway.conf"
    path.write_text("weir { log off; threads 1 }\n" + text.replace("DIR", str(tmp_path)))
    return path


ALONE = "listener front { address fastcgi+unix:DIR/front.sock; mode 0600 }\npool up { connect unix:DIR/up.sock; publish front }\n"


@pytest.mark.parametrize("how", ["serve", "gateway"])
def test_the_socket_replaces_only_dead_sockets_and_is_removed_at_the_end(how, tmp_path):
    os.chmod(tmp_path, 0o755)
    folder = tmp_path / "d"
    folder.mkdir()
    path = str(folder / "front.sock")
    config = tmp_path / "c.conf"
    config.write_text(f"weir {{ log off; threads 1; control {folder}/control.sock; temp {folder} }}\n" + ALONE.replace("DIR", str(folder)))
    os.chmod(config, 0o644)
    for f in ("/tmp", str(tmp_path.parent), str(tmp_path.parent.parent)):
        if f != "/tmp":
            os.chmod(f, 0o755)

    def answers():  # not only a backlog: its signals are set up
        with contextlib.suppress(OSError, EOFError):
            return status_of(Fcgi(path).ask(1)[0]) == 502

    def run(wait=True):
        log = open(tmp_path / "log", "wb")
        p = subprocess.Popen([WEIR, how, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            wait_for(lambda: p.poll() is not None or answers())
            assert p.poll() is None, (tmp_path / "log").read_text()
        return p
    with socket.socket(socket.AF_UNIX) as s:  # it listens: left alone
        s.bind(path)
        s.listen(1)
        p = run(False)
        assert p.wait(20 * SLOW) != 0 and "another program answers there" in (tmp_path / "log").read_text()
        assert can_connect(path)()
    p = run()  # the name that it left is dead
    assert mode_of(path) == 0o600
    p.terminate()
    assert p.wait(20 * SLOW) == 0
    assert not os.path.exists(path)
    with open(path, "w") as f:
        f.write("precious")
    assert run(False).wait(20 * SLOW) != 0
    assert "no socket" in (tmp_path / "log").read_text() and open(path).read() == "precious"


def test_the_socket_comes_goes_and_changes_its_rights_by_reload():
    with Weir(conf(DEMO)) as w:
        path = w.dir + "/front.sock"
        assert mode_of(path) == 0o666
        c = Fcgi(path)
        w.configure(conf(DEMO).replace("0666", "0640"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: mode_of(path) == 0o640)
        os.unlink(path)  # by mistake: a reload makes it anew
        assert w.command("reload").returncode == 0
        wait_for(can_connect(path))
        assert mode_of(path) == 0o640 and Fcgi(path).ask(1, [("PATH_INFO", "/hello")])[2] == (0, 0)
        os.unlink(path)  # also when the rest of the new configuration is not taken
        w.configure(conf(DEMO).replace("0666", "0640") + "listener bad { address fastcgi+unix:DIR/no/x.sock }\npool bad { run ./demo; publish bad; user weir-demo }\n")
        assert w.command("reload").returncode != 0
        wait_for(can_connect(path))
        assert Fcgi(path).ask(1, [("PATH_INFO", "/hello")])[2] == (0, 0)
        w.configure(conf(DEMO).replace("front.sock", "other.sock"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: not os.path.exists(path) and can_connect(w.dir + "/other.sock")())
        c.begin(1, [("A", "b")])
        c.send(record(STDIN, 1))
        assert status_of(c.end_of(1)[0]) == 503 and c.closed()  # its listener is gone


@pytest.mark.skipif(not IS_ROOT, reason="needs root: other users")
def test_the_root_part_follows_no_link_and_uses_no_folder_that_others_change():
    with Weir(conf(DEMO)) as w:
        os.mkdir(w.dir + "/real")
        os.symlink(w.dir + "/real", w.dir + "/link")
        for folder, why in (("link", "is a link"), ("run", "others than root may change a folder on the way"), ("none", "its folder does not exist")):
            w.configure(conf(DEMO).replace("DIR/front.sock", f"DIR/{folder}/front.sock"))
            r = w.command("reload")
            assert r.returncode != 0 and why in r.stdout + r.stderr, r.stdout + r.stderr
            assert os.listdir(w.dir + "/real") == [] and can_connect(w.dir + "/front.sock")()
        os.chmod(w.dir, 0o777)  # of the socket in use, too: what is open stays so, also for the next gateway
        w.configure(conf(DEMO))
        r = w.command("reload")
        assert r.returncode != 0 and "others than root may change a folder" in r.stdout + r.stderr
        os.kill(w.status()["control_pid"], signal.SIGKILL)
        wait_for(w.gateway)
        gateway = w.gateway()
        assert w.command("restart", "gateway").returncode == 0
        wait_for(lambda: w.gateway() not in (None, gateway))
        assert Fcgi(w.dir + "/front.sock").ask(1, [("PATH_INFO", "/hello")])[2] == (0, 0)
        os.chmod(w.dir, 0o755)


@pytest.mark.skipif(not IS_ROOT, reason="needs root: other users")
def test_only_users_and_addresses_of_the_allow_list_are_let_in():
    """FC1-3.2-b"""
    port = free_port()
    config = conf(DEMO, more="allow weir-demo").replace(
        "fastcgi+unix:DIR/front.sock;", f"fastcgi+unix:DIR/front.sock fastcgi://127.0.0.1:{port}; allow weir-demo 127.0.0.2/31;").replace("allow weir-demo }", "}")
    with Weir(config) as w:
        c = Fcgi(w.dir + "/front.sock")
        assert c.closed()  # root is not in the list
        wait_for(lambda: "is not in its allow list" in w.log())
        r = subprocess.run([WEIR, "call", f"unix:{w.dir}/front.sock", "PATH_INFO=/hello"], capture_output=True, text=True,
                           user="weir-demo", group="weir-demo", extra_groups=[], timeout=30)
        assert r.returncode == 0, r.stderr
        assert Fcgi(("127.0.0.1", port)).closed()
        s = socket.socket()
        s.bind(("127.0.0.3", 0))
        s.connect(("127.0.0.1", port))
        s.settimeout(20 * SLOW)
        s.sendall(record(BEGIN, 1, struct.pack("!HB5x", 1, 0)) + record(PARAMS, 1, pair(b"PATH_INFO", b"/hello")) + record(PARAMS, 1) + record(STDIN, 1))
        assert recorder.read_record(s)[0] == STDOUT


@pytest.mark.threads
def test_a_connection_that_has_not_asked_yet_is_served_while_the_gateway_is_replaced():
    with Weir(conf(RECORD), RECORDER) as w:
        fresh = Fcgi(w.dir + "/front.sock")
        wait_for(lambda: w.status()["gateway"]["connections"] == 1)
        old = w.gateway()
        assert w.command("restart", "gateway").returncode == 0
        wait_for(lambda: w.gateway() not in (None, old))
        assert heard(fresh.ask(1)[0])["role"] == 1
        assert fresh.closed()
        wait_for(lambda: w.status()["gateway"]["others"] == [])


@pytest.mark.skipif(not IS_ROOT, reason="root's rights")
def test_a_reload_never_touches_somebody_elses_socket_at_the_path():
    with Weir(conf(DEMO)) as w:
        path = w.dir + "/front.sock"
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            os.chmod(path, 0o600)
            s.listen(1)
            before = os.stat(path)
            r = w.command("reload")
            assert r.returncode == 1 and "another program answers there" in r.stderr, r.stderr
            after = os.stat(path)
            assert (before.st_mode, before.st_uid, before.st_gid, before.st_ino) == (after.st_mode, after.st_uid, after.st_gid, after.st_ino)
