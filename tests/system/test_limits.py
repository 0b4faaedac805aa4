# SPDX-License-Identifier: MIT
"""How often a client may ask and connect, how slow it may be, and what every answer says."""
import contextlib
import json
import os
import socket
import subprocess
import threading

import pytest
from weirlib import SLOW, USER, WEIR, Weir, program, read_all, status_of, wait_for

APP = f"pool app {{ run ./demo; {USER} }}\n"
CURL = ["/usr/bin/curl", "-s", "-S", "-m", "60"]


def statuses(w, path, count, **kw):
    return [w.get(path, **kw).status for _ in range(count)]


# ---- requests ----

@pytest.fixture(scope="module")
def w():
    config = """
site a.test { listen http://127.0.0.1:PORT; root public; limit requests 3/h
    route /own/ { limit requests 2/h burst 2; files }
    route /free/ { limit no; files }
    route /cross/a.html { limit requests 2/h; files }
    route /cross/ { limit no; files; index a.html }
    route /go { limit requests 4/h; pool go }
    route /end { limit requests 5/h; files }
    route /many { limit requests 7/h; files }
    route /auth/ { limit requests 2/h; auth basic users; files }
}
pool go { cgi DIR/go.sh; USER workers 2 }
""".replace("USER", USER)
    files = {f"public/{n}": n for n in ("x", "own/x", "free/x", "cross/a.html", "end", "many", "auth/x")}
    files.update({"go.sh": "#!/bin/sh\nprintf 'Location: /end\\r\\n\\r\\n'\n", "users": "a:$2y$05$abcdefghijklmnopqrstuu5vGDQc6eJdeeSpSVFYtvwgvP3rGgC8K\n"})
    with Weir(config, files, program="threads 4; trust 127.0.0.1") as weir:
        yield weir


def of(address):
    return {"headers": {"X-Forwarded-For": address}}


def test_a_client_has_so_many_requests_and_is_told_when_to_come_again(w):
    assert statuses(w, "/x", 4, **of("192.0.2.1")) == [200, 200, 200, 429]
    r = w.get("/x", **of("192.0.2.1"))
    assert r.status == 429 and 1 <= int(r.getheader("Retry-After")) <= 1200 and r.text
    assert w.get("/nothing", **of("192.0.2.1")).status == 429  # before anything is looked for
    assert statuses(w, "/x", 4, **of("192.0.2.2")) == [200, 200, 200, 429]
    assert w.get("/free/x", **of("192.0.2.1")).status == 200
    assert statuses(w, "/own/x", 3, **of("192.0.2.1")) == [200, 200, 429]


def test_a_network_of_ipv6_is_one_client(w):
    assert [w.get("/own/x", **of(f"2001:db8:0:1::{i}")).status for i in range(3)] == [200, 200, 429]
    assert w.get("/own/x", **of("2001:db8:0:2::1")).status == 200


def test_all_threads_count_together(w):
    seen, lock = [], threading.Lock()

    def ask():
        r = w.get("/many", **of("192.0.2.3")).status
        with lock:
            seen.append(r)
    threads = [threading.Thread(target=ask) for _ in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(seen) == [200] * 7 + [429] * 33


def test_a_request_that_is_sent_on_counts_once_for_each_limit(w):
    assert statuses(w, "/go", 5, **of("192.0.2.4")) == [200, 200, 200, 200, 429]
    assert statuses(w, "/end", 2, **of("192.0.2.4")) == [200, 429]  # four of five are used


def test_an_index_does_not_get_around_it(w):
    assert statuses(w, "/cross/", 3, **of("192.0.2.5")) == [200, 200, 429]
    assert w.get("/cross/a.html", **of("192.0.2.5")).status == 429


def test_it_counts_before_passwords_are_looked_at(w):
    assert statuses(w, "/auth/x", 3, **of("192.0.2.6")) == [401, 401, 429]


def test_a_reload_forgets_nothing(w):
    assert statuses(w, "/own/x", 3, **of("192.0.2.7")) == [200, 200, 429]
    assert w.command("reload").returncode == 0
    assert w.get("/own/x", **of("192.0.2.7")).status == 429


# ---- connections ----

def is_refused(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20 * SLOW) as s:
        s.settimeout(0.3)
        try:
            first = s.recv(4096)
        except TimeoutError:
            return False  # it waits for a request
        assert first == b"" or (status_of(first) == 429 and b"\r\nRetry-After: 1\r\n" in first), first
        return True


@pytest.mark.threads
def test_a_client_has_so_many_connections():
    config = "listener l { address http://127.0.0.1:PORT; limit connections 3 }\nsite a { listen l; root public }\n"
    with Weir(config, {"public/x": "x"}, program="threads 2") as w:
        held = [w.connect() for _ in range(3)]
        for s in held:
            s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert is_refused(w.port) and is_refused(w.port)
        held[0].sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held[0].recv(4096).startswith(b"HTTP/1.1 200 ")
        with socket.socket() as s:
            s.bind(("127.0.0.9", 0))  # another client
            s.connect(("127.0.0.1", w.port))
            s.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            assert read_all(s).startswith(b"HTTP/1.1 200 ")
        held.pop().close()
        wait_for(lambda: not is_refused(w.port))
        w.configure(config.replace("limit connections 3", "limit connections 5"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: not is_refused(w.port))
        for s in held:
            s.close()
        with contextlib.ExitStack() as stack:
            wait_for(lambda: w.status()["gateway"]["connections"] == 0)
            for s in [stack.enter_context(w.connect()) for _ in range(5)]:
                s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
            assert is_refused(w.port)


@pytest.mark.threads
def test_behind_a_proxy_its_clients_are_counted_and_not_the_proxy():
    config = "listener l { address http://127.0.0.1:PORT; limit connections 2; proxy-protocol 127.0.0.1 }\nsite a { listen l; root public }\n"
    with Weir(config, {"public/x": "x"}) as w:
        def one(stack, address):
            s = stack.enter_context(w.connect())
            s.sendall(b"PROXY TCP4 %s 192.0.2.1 1 80\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n" % address)
            try:
                return status_of(s.recv(4096))
            except ConnectionResetError:
                return None
        with contextlib.ExitStack() as stack:
            assert [one(stack, b"203.0.113.%d" % i) for i in (1, 1, 2, 2)] == [200] * 4
            assert one(stack, b"203.0.113.1") in (429, None) and one(stack, b"203.0.113.3") == 200
    config = "listener l { address http://127.0.0.1:PORT; limit connections 2; trust 127.0.0.1 }\nsite a { listen l; root public }\n"
    with Weir(config, {"public/x": "x"}) as w, contextlib.ExitStack() as stack:
        for s in [stack.enter_context(w.connect()) for _ in range(6)]:
            s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200 ")


# ---- headers ----

def test_every_answer_says_what_the_configuration_says():
    config = """
defaults site { header Strict-Transport-Security "max-age=63072000"; header X-Frame-Options DENY; header Server }
site a.test { listen http://127.0.0.1:PORT; root public; header x-frame-options SAMEORIGIN
    route /app/ { pool app; header Content-Type "text/plain; charset=x"; header X-Name "$name" }
    route /out/ { redirect http://b.test/; header Server mine }
    route /no/ { deny; header Strict-Transport-Security }
    route /down/ { pool gone }
}
pool gone { connect unix:DIR/nobody.sock }
""" + APP
    with Weir(config, {"public/x": "x"}) as w:
        for path, status in (("/x", 200), ("/nothing", 404), ("/app/env", 200), ("/app/none", 404), ("/out/", 302), ("/no/", 403), ("/down/", 502), ("/%00", 400)):
            r = w.get(path)
            assert r.status == status, path
            assert r.headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
            assert r.getheader("Strict-Transport-Security") == (None if path == "/no/" else "max-age=63072000")
            assert r.getheader("Server") == ("mine" if path == "/out/" else None)
            assert r.headers.get_all("Content-Type")[0] == "text/plain; charset=x" if "/app/" in path else True
            assert r.getheader("X-Name") == ("a.test" if "/app/" in path else None)
        etag = w.get("/x").getheader("ETag")
        r = w.get("/x", headers={"If-None-Match": etag})
        assert r.status == 304 and r.getheader("X-Frame-Options") == "SAMEORIGIN"
        r = subprocess.run([*CURL, "-i", "--http2-prior-knowledge", f"http://127.0.0.1:{w.port}/x"], capture_output=True, text=True)
        assert "strict-transport-security: max-age=63072000" in r.stdout and "\nserver" not in r.stdout and r.stdout.startswith("HTTP/2 200")
        r = subprocess.run([WEIR, "check", "--effective", "a.test", w.config], capture_output=True, text=True)
        assert "header x-frame-options SAMEORIGIN" in r.stdout and "DENY" not in r.stdout


# ---- slow clients ----

def test_a_body_that_trickles_is_given_up_and_one_at_the_rate_is_not():
    config = "site a { listen http://127.0.0.1:PORT; pool app; min-rate 1K 500ms; time { body 3s } }\n" + APP
    with Weir(config, program="threads 1") as w:
        with w.connect(60) as s:
            s.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            s.settimeout(0.05)
            answer, sent = b"", 0
            while not answer and sent < 100000:  # a gap is never longer than 3 s
                with contextlib.suppress(TimeoutError):
                    s.sendall(b"x")
                    sent += 1
                    answer = s.recv(4096)
            assert status_of(answer) == 408 and sent < 2000
        with w.connect(60) as s:
            s.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
            s.settimeout(0.05)
            answer, sent = b"", 0
            while not answer:  # about 20 times the rate
                with contextlib.suppress(TimeoutError):
                    if sent < 20000:
                        s.sendall(b"x" * 1000)
                        sent += 1000
                    answer = s.recv(4096)
            assert status_of(answer) == 200 and sent == 20000
        assert w.get("/hello").status == 200


def test_while_an_app_does_not_read_or_write_no_client_is_slow():
    config = f"""
site a {{ listen http://127.0.0.1:PORT; min-rate 50M 300ms; pool app
    route /late {{ pool late; body {{ stream yes }} }} }}
pool late {{ cgi DIR/late.sh; {USER} }}
""" + APP
    late = "#!/bin/sh\nsleep 1\nwc -c >DIR/run/keep-count; sleep 1; printf 'Content-Type: text/plain\\r\\n\\r\\n'; cat DIR/run/keep-count\n"

    def prepare(weir):
        weir.write("late.sh", late.replace("DIR", weir.dir))
    with Weir(config, prepare=prepare) as w:
        r = w.get("/late", "POST", b"x" * 5000000)
        assert r.status == 200 and r.text.strip() == b"5000000"
        r = w.get("/stream")  # a line each 200 ms
        assert r.status == 200 and r.text.count(b"\n") == 10
        r = subprocess.run([*CURL, "--http2-prior-knowledge", "--data-binary", "@-", f"http://127.0.0.1:{w.port}/late"], input=b"x" * 3000000, capture_output=True)
        assert r.stdout.strip() == b"3000000", r


@pytest.mark.threads
@pytest.mark.parametrize("version", ["1", "2"])
def test_an_answer_that_is_taken_by_drops_is_given_up(version):
    config = "site a { listen http://127.0.0.1:PORT; root public; min-rate 20K 1s; time { send 100s; idle 1s } }\n"
    with Weir(config, {"public/big": b"x" * 30000000}, program="threads 1", log="DIR/run/keep-access json") as w:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(60 * SLOW)
            s.connect(("127.0.0.1", w.port))
            if version == "1":
                s.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            else:  # settings with a window of 1 MiB for streams, a request, and no more window for the connection
                s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x10\0\0" +
                          b"\0\0\x0b\x01\x05\0\0\0\x01" + b"\x82\x86\x04\x04/big\x41\x01a")
            stop = threading.Event()

            def read():
                with contextlib.suppress(OSError):
                    while not stop.is_set() and s.recv(20):
                        stop.wait(0.02)
            t = threading.Thread(target=read)
            t.start()
            wait_for(lambda: w.status()["gateway"]["connections"] == 0, 60)
            stop.set()
            t.join()
        with open(os.path.join(w.run_dir, "keep-access")) as f:
            line = json.loads(wait_for(f.readline))
        assert line["target"] == "/big" and line["protocol"] == ("HTTP/1.1" if version == "1" else "HTTP/2.0") and line["bytes"] < 30000000, line
        with w.connect(60) as s:  # who takes all that comes is not slow
            s.sendall(b"GET /big HTTP/1.0\r\n\r\n")
            assert len(read_all(s)) > 30000000


@pytest.mark.nosan
@pytest.mark.parametrize("attack", [["-H", "-i", "1", "-t", "GET"], ["-B", "-i", "1", "-s", "100000", "-t", "POST"], ["-X", "-w", "1", "-y", "50", "-z", "5", "-n", "1", "-k", "3", "-u", "/big"]],
                         ids=["headers", "body", "read"])
def test_slowhttptest_holds_no_connection_for_long_and_nobody_up(attack, tmp_path):
    config = "site a { listen http://127.0.0.1:PORT; root public; min-rate 500B 2s; time { head 2s; body 20s; send 20s }; route /app { pool app } }\n" + APP
    with Weir(config, {"public/x": "x", "public/big": b"x" * 3000000}, program="threads 1") as w:
        url = f"http://127.0.0.1:{w.port}" + ("" if "-u" in attack else "/app" if "-B" in attack else "/x")
        args = [a for i, a in enumerate(attack) if a != "-u" and (i == 0 or attack[i - 1] != "-u")]
        url += attack[attack.index("-u") + 1] if "-u" in attack else ""
        with program(["/usr/bin/slowhttptest", "-c", "200", "-r", "200", "-l", "60", *args, "-u", url], log=open(tmp_path / "out", "wb")) as p:
            wait_for(lambda: w.status()["gateway"]["connections"] >= 150)
            for _ in range(20):
                assert w.get("/x").text == b"x"
            wait_for(lambda: w.status()["gateway"]["connections"] == 0 or p.poll() is not None, 100)
            assert p.poll() is None or "No open connections left" in (tmp_path / "out").read_text(errors="replace")  # else: its time was over
        wait_for(lambda: w.status()["gateway"]["connections"] == 0)
        assert w.get("/x").text == b"x"
