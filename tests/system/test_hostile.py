# SPDX-License-Identifier: MIT
"""Clients, apps and operators that do harm, or just the unexpected: what was found by reading as an attacker would, and mended."""
import contextlib
import os
import select
import socket
import subprocess
import threading
import time

import pytest
from test_bad_apps import END, HEAD, FakeApp, record
from weirlib import IS_ROOT, SLOW, TEST_APPS, USER, WEIR, Weir, free_port, status_of, wait_for


def ask(weir, path, port=None, host="a"):
    s = socket.create_connection(("127.0.0.1", port or weir.port), timeout=30 * SLOW)
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return s


def body(s):
    data = b""
    with s:
        while not data.endswith(b"\n") and len(data) < 100000:
            piece = s.recv(65536)
            if not piece:
                break
            data += piece
    return data


@pytest.mark.threads
def test_a_client_that_takes_nothing_of_an_answer_that_timed_out_harms_nobody():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p; time {{ request 1s }} }}\npool p {{ run ./bench_app; {USER} }}") as w:
        gateway = w.gateway()
        slow = [ask(w, "/big/400000000") for _ in range(3)]
        wait_for(lambda: (lambda u: u["busy"] == 0 and u["requests"] + u["failed"] == 3)(w.pool("p")["processes"][0]))  # told, and ended
        end = time.monotonic() + 7  # the time that an app has to end an aborted request, and some
        while time.monotonic() < end:
            assert w.get("/hello").status == 200
        assert w.gateway() == gateway
        for s in slow:
            s.close()


@pytest.mark.threads
def test_a_handler_that_does_not_hear_its_abort_takes_no_other_request_with_it():
    """FC1-5.4-c, IOP-S13"""
    program = os.path.join(TEST_APPS, "threads_app")
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run {program}; {USER} }}") as w:
        ask(w, "/sleep/7000").close()  # given up at once; its handler goes on for 7 s
        others = [ask(w, "/sleep/6500") for _ in range(2)]
        for s in others:
            with s, s.makefile("rb") as f:  # its end may come in a piece of its own
                assert b"short\n" in iter(f.readline, b"")
        assert w.get("/x").status == 200


@pytest.mark.nosan
def test_an_app_that_floods_the_log_does_not_keep_other_requests_waiting():
    flood = b"".join(record(7, b"\n" * 60000) for _ in range(2000))
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n route /flood { pool p }\n}\n"
              "pool p { connect unix:DIR/run/keep-flood.sock }\n", {"public/f.txt": "file"}, program="threads 1") as w:
        app = FakeApp(f"{w.run_dir}/keep-flood.sock", flood + record(6, HEAD + b"done") + record(6) + END)
        assert app
        s = ask(w, "/flood")
        worst = 0
        while not select.select([s], [], [], 0)[0]:
            begin = time.monotonic()
            assert w.get("/f.txt").text == b"file"
            worst = max(worst, time.monotonic() - begin)
        s.close()
        assert worst < 2 * SLOW, worst


@pytest.mark.threads
def test_a_kept_connection_stays_with_its_own_listener_over_a_reload():
    inner = free_port()
    site = "site {name} {{ listen http://127.0.0.1:{port}; root {name} }}\n"
    with Weir(site.format(name="outside", port="PORT"), {"outside/x": "outside", "inside/x": "inside"}) as w:
        with w.connect() as s:
            def get():
                s.sendall(b"GET /x HTTP/1.1\r\nHost: unknown\r\n\r\n")
                data = b""
                while b"side" not in data:
                    data += s.recv(1000)
                return data
            assert b"outside" in get()
            w.configure(site.format(name="inside", port=inner) + site.format(name="outside", port="PORT"))
            assert w.command("reload").returncode == 0
            wait_for(lambda: body_of(w, inner) == b"inside")
            assert b"outside" in get()


def body_of(weir, port):
    with contextlib.suppress(OSError):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            data = b""
            while True:
                piece = s.recv(1000)
                if not piece:
                    return data.split(b"\r\n\r\n", 1)[-1]
                data += piece
    return None


@pytest.mark.threads
def test_a_client_that_never_reads_is_closed_and_one_that_pauses_is_not():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; time { send 1s; idle 30s } }\n", {"public/big": b"x" * 30_000_000}) as w:
        with w.connect() as s:
            for _ in range(20):
                s.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: w.status()["gateway"]["connections"] == 0, 30)
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; route /app/ {{ pool p }}; time {{ send 1s }} }}\npool p {{ run ./demo; {USER} }}") as w:
        with w.connect() as s:  # takes all that there is, and then the app is silent for longer than `send`
            s.sendall(b"GET /app/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            data = b""
            while b"\r\n0\r\n\r\n" not in data:
                piece = s.recv(65536)
                assert piece, data[-200:]
                data += piece


def test_the_host_of_an_absolute_target_is_the_one_that_the_app_sees():
    with Weir("site good.test { listen http://127.0.0.1:PORT; root public; php p }\n" + f"pool p {{ php; {USER} }}\n",
              {"public/h.php": "<?php echo $_SERVER['HTTP_HOST'], ' ', $_SERVER['SERVER_NAME'];"}) as w:
        out = w.raw(b"GET http://good.test/h.php HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
        assert out.endswith(b"good.test good.test"), out


def test_what_looks_like_a_script_is_not_run_and_a_denied_script_stays_denied():
    config = f"""
site a.test {{ listen http://127.0.0.1:PORT; root public; php p; route /admin.php {{ deny }} }}
site b.test {{ listen http://127.0.0.1:PORT; root public; route *.php {{ pool c }} }}
pool p {{ php; {USER} }}
pool c {{ connect unix:DIR/run/keep-none.sock }}
"""
    with Weir(config, {"public/admin.php": "<?php echo 'secret';", "public/a.jpg": "<?php echo 'evil';"}) as w:
        for path in ("/admin.php", "/admin.php/", "/admin.php/x", "/admin.php/x.php"):
            assert w.get(path, host="a.test").status == 403, path
        assert w.get("/a.jpg/x.php", host="b.test").status == 404


def test_an_app_that_accepts_and_closes_is_not_connected_to_without_a_pause():
    with Weir("site a { listen http://127.0.0.1:PORT; pool p }\npool p { connect unix:DIR/run/keep-x.sock { flow-control yes }; queue 10 1s }\n") as w:
        count = [0]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{w.run_dir}/keep-x.sock")
            os.chmod(f"{w.run_dir}/keep-x.sock", 0o777)
            listener.listen(100)

            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        listener.accept()[0].close()
                        count[0] += 1
            threading.Thread(target=serve, daemon=True).start()
            assert w.get("/").status in (502, 503)
            assert count[0] < 100, count


@pytest.mark.threads
def test_a_dead_endpoint_does_not_keep_requests_from_a_live_one():
    with Weir("site a { listen http://127.0.0.1:PORT; pool p }\n"
              "pool p { connect unix:DIR/run/keep-dead.sock; connect unix:DIR/run/keep-live.sock; queue 10 20s }\n") as w:
        app = FakeApp(f"{w.run_dir}/keep-live.sock", record(6, HEAD + b"alive") + record(6) + END)
        assert app
        for _ in range(5):
            begin = time.monotonic()
            assert w.get("/").text == b"alive"
            assert time.monotonic() - begin < 5 * SLOW


@pytest.mark.threads
def test_no_queue_still_means_that_free_workers_serve():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php; workers 2; queue 0; {USER} }}",
              {"public/x.php": "<?php echo 1;"}) as w:
        assert w.get("/x.php").status == 200


@pytest.mark.nosan
@pytest.mark.alone
def test_hundreds_of_processes_start_and_restart_without_a_lost_request():
    config = f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./bench_app; processes 300; {USER} }}"
    with Weir(config, program="threads 2; starting 1000") as w:
        stop, bad = threading.Event(), []

        def client():
            while not stop.is_set():
                status = w.get("/hello").status
                if status != 200:
                    bad.append(status)
        t = threading.Thread(target=client)
        t.start()
        before = w.pids("p")
        assert w.command("restart", "p").returncode == 0
        wait_for(lambda: len(w.pids("p")) == 300 and not set(before) & set(w.pids("p")), 60)
        stop.set()
        t.join()
        assert not bad


def test_call_gives_up_on_a_full_backlog(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        held = []
        for _ in range(4):
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            with contextlib.suppress(OSError):
                s.connect(path)
            held.append(s)
        r = subprocess.run([WEIR, "call", f"unix:{path}", "-t", "1"], capture_output=True, stdin=subprocess.DEVNULL, timeout=20 * SLOW)
        assert r.returncode == 3 and b"nobody accepts in time" in r.stderr
        for s in held:
            s.close()


@pytest.mark.skipif(not IS_ROOT, reason="root's folder")
def test_the_folder_of_the_sockets_is_roots_and_old_ones_go_without_following_links(tmp_path):
    victim = tmp_path / "pool"
    victim.mkdir()
    (victim / "precious").write_text("x")
    os.makedirs("/run/weir", exist_ok=True)
    os.symlink(tmp_path, "/run/weir/999999999")
    try:
        with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}") as w:
            assert (victim / "precious").exists()
            folder = f"/run/weir/{w.process.pid}"
            for d in ("/run/weir", folder, folder + "/pool"):
                assert os.stat(d).st_uid == 0 and not os.stat(d).st_mode & 0o022, d
    finally:
        os.unlink("/run/weir/999999999")


@pytest.mark.skipif(not IS_ROOT, reason="changes groups")
def test_a_pool_gets_no_group_that_its_user_is_no_member_of():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} group disk }}") as w:
        wait_for(lambda: "cannot use this user" in w.log())
        assert w.get("/").status == 503


@pytest.mark.skipif(not IS_ROOT, reason="changes owners")
def test_a_root_that_somebody_made_a_link_to_another_ones_folder_is_not_served():
    with Weir("site a { listen http://127.0.0.1:PORT; root mine }\n", {"other/secret": "secret", "mine/x": "x"}) as w:
        assert w.get("/x").status == 200
        os.rename(f"{w.dir}/mine", f"{w.dir}/was")
        os.symlink(f"{w.dir}/other", f"{w.dir}/mine")
        os.lchown(f"{w.dir}/mine", 65534, 65534)
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/secret").status == 503)
        os.lchown(f"{w.dir}/mine", 0, 0)  # root may
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/secret").text == b"secret")
        os.symlink(f"{w.dir}/other", f"{w.dir}/theirs")  # but his link does not lead through one of somebody else
        os.lchown(f"{w.dir}/theirs", 65534, 65534)
        os.unlink(f"{w.dir}/mine")
        os.symlink(f"{w.dir}/was/../theirs", f"{w.dir}/mine")
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/secret").status == 503)
        os.chown(f"{w.dir}/other", 65534, 65534)  # to whom it belongs
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/secret").text == b"secret")


def test_the_gateway_alone_refuses_what_it_cannot_do(tmp_path):
    conf = tmp_path / "weir.conf"
    for text, word in ((f"site a {{ listen http://127.0.0.1:{free_port()}; pool p }} pool p {{ run /bin/true }}", "runs no processes"),
                       ("weir { status /x }", "not in this version")):
        conf.write_text(text)
        r = subprocess.run([WEIR, "gateway", "-c", conf], capture_output=True, text=True, timeout=20 * SLOW)
        assert r.returncode == 1 and word in r.stderr, r.stderr


def test_a_listener_without_a_site_serves_nobody_and_harms_nobody():
    port = free_port()
    with Weir(f"listener l {{ address http://127.0.0.1:{port} }}\nsite a {{ listen http://127.0.0.1:PORT; root public }}\n", {"public/x": "x"}) as w:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        assert w.get("/x").text == b"x"
        assert status_of(w.raw(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")) == 200


def test_a_body_that_is_too_large_is_refused_and_the_answer_arrives():
    """The client sends 40 MB before it reads: a connection closed on its unread bytes would be reset, and the answer lost."""
    with Weir("site a {\n listen http://127.0.0.1:PORT\n root public\n route / { pool p; body { max 1M } }\n}\n"
              f"pool p {{ run ./hello; {USER} }}\n") as w:
        with w.connect(60) as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000000\r\n\r\n")
            for _ in range(40):
                s.sendall(b"x" * 1000000)
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := s.recv(65536):
                answer += piece
        assert status_of(answer) == 413 and b"Connection: close" in answer


@pytest.mark.nosan
def test_a_client_that_reads_nothing_and_ends_no_request_loses_its_connection():
    """Wherever the sockets become full: within the last answer that it asked for whole, its own time-out must not be forgotten."""
    with Weir("site a {\n listen http://127.0.0.1:PORT\n time { send 1s; body 1s; head 1s }\n pool p\n}\n"
              f"pool p {{ run ./bench_app; {USER} }}\n") as w:
        clients = []
        for count in range(1, 90):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", w.port))
            s.sendall(b"GET /big/40000 HTTP/1.1\r\nHost: a\r\n\r\n" * count +
                      (b"GET /half HTTP/1.1\r\nHo" if count % 2 else b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"))
            clients.append(s)
        wait_for(lambda: w.pool("p")["requests"] >= len(clients))
        wait_for(lambda: w.status()["gateway"]["connections"] == 0)
        for s in clients:
            s.close()
