# SPDX-License-Identifier: MIT
"""Orders of events in one turn of the gateway: what ends while something of it is still on its way."""
import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import time

import certs
import pytest
from h2client import DATA, END_STREAM, H2, HEADERS, frame
from test_moments import child
from weirlib import SLOW, TEST_APPS, USER, Weir, can_connect, free_port, program, read_all, status_of, wait_for

THREADS = os.path.join(TEST_APPS, "threads_app")


def test_what_stands_behind_a_proxy_header_that_is_refused_is_no_request():
    config = f"""listener l {{ address http://127.0.0.1:PORT; limit connections 1; proxy-protocol 127.0.0.1 }}
site a {{ listen l; pool p }}
pool p {{ run {THREADS}; {USER}; env WEIR_TEST_IDS DIR/ids }}
"""
    with Weir(config, program="threads 1", prepare=lambda w: os.chmod(w.write("ids", ""), 0o666)) as w:
        def ask(s, client, path):
            s.sendall(f"PROXY TCP4 {client} 192.0.2.1 1 80\r\n".encode() + (f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() if path else b""))
        with contextlib.ExitStack() as stack:
            first, refused = stack.enter_context(w.connect()), stack.enter_context(w.connect())
            ask(first, "203.0.113.1", "/x")
            assert b"short" in first.recv(65536)
            ask(refused, "203.0.113.1", f"/once/{300 * SLOW}?b")
            with contextlib.suppress(ConnectionResetError):
                assert status_of(read_all(refused) or b"HTTP/1.1 429 ") == 429
            other = stack.enter_context(w.connect())
            ask(other, "203.0.113.9", None)
            other.settimeout(1 * SLOW)
            with pytest.raises(TimeoutError):
                other.recv(1)  # nobody else's answer
            other.settimeout(20 * SLOW)
            other.sendall(b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"short" in other.recv(65536)
            with open(os.path.join(w.dir, "ids")) as f:
                assert f.read() == ""  # the app was not asked


@pytest.mark.threads
def test_a_stream_whose_time_is_over_as_its_connection_ends():
    with Weir("site a { listen http://127.0.0.1:PORT; root public }\n", {"public/f": "x"}, program="threads 1") as w:
        gateway = w.gateway()
        for _ in range(3):
            clients = [H2(w.port) for _ in range(4)]
            for c in clients:
                c.send(c.head(1, "/f", "POST", end=False), frame(DATA, 0, 1, b"x" * 1000))
                assert c.answer(1)[0] == "405"  # early: the stream has a second left
            os.kill(gateway, signal.SIGSTOP)
            for c in clients:
                c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                c.s.close()
            time.sleep(1.3)  # both are events of one turn
            os.kill(gateway, signal.SIGCONT)
            assert w.get("/f").status == 200 and w.gateway() == gateway


def test_more_requests_that_end_in_one_turn_than_are_kept_for_the_next():
    config = """site a { listen http://127.0.0.1:PORT; authorizer p; route / { redirect 302 /there } }
pool p { connect unix:DIR/run/keep-app.sock { requests 400; flow-control yes } }
"""
    with Weir(config, program="threads 1") as w:
        path = w.run_dir + "/keep-app.sock"
        with program(["/usr/bin/spawn-fcgi", "-n", "-M", "0666", "-s", path, "--", os.path.join(TEST_APPS, "roles_app")], can_connect(path)) as p:
            assert w.get("/x").status in (302, 401, 403)
            os.kill(p.pid, signal.SIGSTOP)
            clients = [H2(w.port) for _ in range(4)]
            for c in clients:
                c.send(*(c.head(1 + 2 * i, "/x") for i in range(90)))
            wait_for(lambda: sum(s["busy"] for s in w.pool("p")["servers"]) + w.pool("p")["queued"] == 360)
            os.kill(p.pid, signal.SIGCONT)
            for c in clients:
                heads = 0
                while heads < 90:
                    f = c.read()
                    assert f is not None, heads
                    heads += f[0] == HEADERS
                c.s.close()


@pytest.mark.threads
def test_requests_in_records_of_their_own_are_all_answered(tmp_path):
    port, n = free_port(), 500
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certs.self_signed(str(cert), str(key), "a.test")
    with Weir(f"site a.test {{ listen https://127.0.0.1:{port}; tls {cert} {key}; root public }}\n", {"public/x": "x"}) as w:
        context = ssl.create_default_context(cafile=str(cert))
        with socket.create_connection(("127.0.0.1", port), timeout=30 * SLOW) as raw:
            into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(into, out, server_hostname="a.test")
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(out.read())
                    into.write(raw.recv(65536))
            for _ in range(n):
                tls.write(b"HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
            raw.sendall(out.read())
            got = b""
            while got.count(b"HTTP/1.1 200 OK") < n:
                try:
                    got += tls.read(65536)
                except ssl.SSLWantReadError:
                    piece = raw.recv(65536)
                    assert piece, got.count(b"HTTP/1.1 200 OK")
                    into.write(piece)


@pytest.mark.parametrize("answer", ["Status: 204", "Status: 200\\r\\nContent-Length: 0"])
def test_an_app_that_goes_on_behind_an_answer_without_content(answer):
    """Over HTTP/2 as over HTTP/1: to its end."""
    script = f"""#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) {{ print "{answer}\\r\\n\\r\\n"; $r->Flush(); select(undef, undef, undef, 0.3); }}
"""
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./a.pl; {USER} }}\n", {"a.pl": script}) as w, H2(w.port) as c:
        c.send(c.head(1, "/x"))
        assert c.answer(1)[0] in ("204", "200")
        wait_for(lambda: w.pool("p")["processes"][0]["busy"] == 0 and w.pool("p")["requests"] == 1)
        endpoint = w.pool("p")["processes"][0]
        assert (endpoint["requests"], endpoint["failed"]) == (1, 0), endpoint


@pytest.mark.nosan
def test_links_of_controls_that_ended_are_not_taken_for_the_one_that_lives():
    config = f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}\n"
    with Weir(config) as w:
        gateway = w.gateway()
        os.kill(gateway, signal.SIGSTOP)
        for _ in range(2):
            control = child(w, "control")
            os.kill(control, signal.SIGKILL)
            wait_for(lambda: child(w, "control", control))
            wait_for(lambda: (w.status() or {"control_pid": control})["control_pid"] != control)
        os.kill(gateway, signal.SIGCONT)
        wait_for(lambda: w.gateway() == gateway)
        w.configure(config.replace("pool p }\npool", "pool p; route /r { redirect 302 /x } }\npool"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/r").status == 302)


def test_a_head_of_many_equal_names_reaches_the_app_joined():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}\n") as w:
        out = w.raw(b"GET /env HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"".join(b"x: %03d%s\r\n" % (i, b"v" * 300) for i in range(90)) + b"\r\n")
        assert status_of(out) == 200
        assert b"HTTP_X=" + b", ".join(b"%03d%s" % (i, b"v" * 300) for i in range(90)) in out


def test_a_large_head_of_an_app_passes_http_2():
    script = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { print "Content-Type: text/plain\\r\\n"; print "Set-Cookie: ", "x" x 3245, "\\r\\n" for 1 .. 20; print "\\r\\nwhole"; }
"""
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./a.pl; {USER} }}\n", {"a.pl": script}) as w, H2(w.port) as c:
        assert w.get("/").text == b"whole"
        c.send(c.head(1, "/"))
        c.s.settimeout(10 * SLOW)
        assert c.until(lambda f: f[2] == 1 and f[1] & 1)[-1][3] == b"whole"


def test_a_body_that_came_before_its_limit_was_known_is_too_large():
    config = f"""site a {{ listen http://127.0.0.1:PORT; pool p; authorizer q; body 1K }}
pool p {{ run ./demo; {USER} }}
pool q {{ run {os.path.join(TEST_APPS, "roles_app")}; {USER} }}
"""
    with Weir(config) as w, H2(w.port) as c:
        c.send(c.head(1, "/allow", "POST", end=False), frame(DATA, END_STREAM, 1, b"x" * 3000))
        assert c.answer(1)[0] == "413"
        assert "no room" not in w.log()


@pytest.mark.nosan
def test_new_keys_without_end_are_not_derived_for_anybody(tmp_path):
    port = free_port()
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certs.self_signed(str(cert), str(key), "a.test")
    with Weir(f"site a.test {{ listen https://127.0.0.1:{port}; tls {cert} {key}; root public }}\n", {"public/x": "x"}) as w:
        args = ["openssl", "s_client", "-tls1_3", "-servername", "a.test", "-connect", f"127.0.0.1:{port}"]
        with program(args, stdin=subprocess.PIPE) as p:
            for _ in range(300):  # one command in each read of its terminal: a request for new keys
                if p.poll() is not None:
                    break
                with contextlib.suppress(BrokenPipeError):
                    p.stdin.write(b"K\n")
                    p.stdin.flush()
                time.sleep(0.01)
            assert p.poll() is not None
