# SPDX-License-Identifier: MIT
"""Nothing is lost: short runs of the loss oracle, and what an upgrade does when the new version cannot take over."""
import os
import signal
import shutil
import subprocess

import pytest
import stage
from weirlib import BUILD, Load, SLOW, USER, Weir, alive, read_all, wait_for

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stress")


@pytest.mark.parametrize("operation", [pytest.param(x, marks=pytest.mark.nosan) for x in ("pool reload", "rolling restart", "scale", "gateway reload")] +
                         [pytest.param("gateway upgrade", marks=pytest.mark.threads), "supervisor upgrade"])
def test_each_request_is_answered_once_and_runs_once(operation):
    r = subprocess.run(["/usr/bin/python3", os.path.join(HERE, "loss.py"), "--build", BUILD, "--times", "2" if SLOW > 1 else "5", "--clients",
                        "1" if SLOW > 1 else "2", "--only", operation], capture_output=True, text=True, timeout=230)
    print(r.stdout, r.stderr)
    assert r.returncode == 0, r.stdout + r.stderr[-3000:]


CONFIG = f"""
site a {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool app }} }}
pool app {{ run ./threads_app; {USER} processes 2 }}
"""


def start(**kw):
    w = Weir(CONFIG, wait=False, **kw)
    shutil.copy(os.path.join(BUILD, "tests/system/apps/threads_app"), w.dir)
    wait_for(lambda: "ready. Ctrl-C" in w.log(), 60)
    return w


@pytest.mark.threads
def test_an_idle_client_may_ask_once_more_and_a_stream_goes_on():
    with start() as w:
        idle, stream = w.connect(), w.connect()
        idle.sendall(b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"short" in idle.recv(65536)
        stream.sendall(b"GET /app/ticks/100/25 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = b""
        while b"data: 0" not in text:
            text += stream.recv(65536)
        old = w.gateway()
        assert w.command("restart", "gateway").returncode == 0
        wait_for(lambda: w.gateway() not in (None, old))
        assert w.get("/app/x").status == 200
        assert [g["pid"] for g in w.status()["gateway"]["others"]] == [old]
        idle.sendall(b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = read_all(idle)
        assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer, answer
        text += read_all(stream)
        assert b"data: 99" in text and text.endswith(b"0\r\n\r\n"), text
        wait_for(lambda: not alive(old))
        wait_for(lambda: w.status()["gateway"]["others"] == [])


@pytest.mark.threads
def test_the_number_of_threads_changes_by_reload():
    with start() as w:
        old = w.gateway()
        wait_for(lambda: len(w.status()["gateway"]["threads"]) == 2)
        w.program = "threads 3"
        w.configure(CONFIG)
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.gateway() not in (None, old) and len(w.status()["gateway"]["threads"]) == 3)
        wait_for(lambda: not alive(old))


@pytest.fixture
def own_build(monkeypatch):
    """A copy of the programs that a test may replace."""
    copy = stage.copied(BUILD)
    monkeypatch.setattr("weirlib.WEIR", os.path.join(copy, "src/cli/weir"))
    yield copy
    shutil.rmtree(os.path.dirname(copy), ignore_errors=True)


@pytest.mark.nosan
@pytest.mark.parametrize("broken", ["no program", "another program", "one that crashes", "one that hangs", "missing"])
def test_a_new_version_that_cannot_take_over_changes_nothing(own_build, broken):
    program = os.path.join(own_build, "src/supervise/weir-supervise")
    with start() as w:
        before = w.status()
        os.rename(program, program + ".old")
        if broken == "no program":
            with open(program, "w") as f:
                f.write("nothing to run")
            os.chmod(program, 0o755)
        elif broken == "another program":
            shutil.copy("/bin/false", program)
        elif broken != "missing":
            with open(program, "w") as f:
                f.write("#!/bin/sh\n" + ("kill -SEGV $$\n" if "crash" in broken else "sleep 100\n"))
            os.chmod(program, 0o755)
        r = w.command("upgrade")
        assert r.returncode == 1 and "all goes on as before" in r.stderr, (r.stdout, r.stderr)
        after = w.status()
        assert (after["root_pid"], after["control_pid"], after["gateway"]["pid"]) == (before["root_pid"], before["control_pid"], before["gateway"]["pid"])
        assert w.get("/app/x").status == 200
        if os.path.exists(program):
            os.unlink(program)
        os.rename(program + ".old", program)
        r = w.command("upgrade")
        assert r.returncode == 0, r.stderr
        wait_for(lambda: (w.status() or before)["control_pid"] != before["control_pid"])
        wait_for(lambda: w.gateway() not in (None, before["gateway"]["pid"]))
        assert w.status()["root_pid"] == before["root_pid"]
        assert w.get("/app/x").status == 200


@pytest.mark.nosan
def test_a_new_version_that_fails_behind_the_check_gives_back_to_the_old_one(own_build):
    program = os.path.join(own_build, "src/supervise/weir-supervise")
    with start() as w:
        before, pids = w.status(), w.pids("app")
        os.rename(program, program + ".old")
        shutil.copy(os.path.join(BUILD, "tests/system/apps/late_refusal"), program)
        r = w.command("upgrade")
        assert r.returncode == 1 and "all goes on as before" in r.stderr, (r.stdout, r.stderr)
        assert w.status()["root_pid"] == before["root_pid"] and w.pids("app") == pids
        os.rename(program + ".old", program)
        assert w.command("upgrade").returncode == 0
        wait_for(lambda: (w.status() or before)["control_pid"] != before["control_pid"])
        wait_for(lambda: w.gateway() not in (None, before["gateway"]["pid"]))
        assert w.pids("app") == pids
        assert w.get("/app/x").status == 200


@pytest.mark.threads
def test_restarts_of_an_app_on_another_host_lose_nothing():
    """The app's owner is somebody else; only the drain of flow control tells the gateway."""
    import socket
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(511)
    text = f"""
site a {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool app }} }}
pool app {{ connect fastcgi://127.0.0.1:{listener.getsockname()[1]} {{ flow-control yes }} }}
"""
    program = os.path.join(BUILD, "tests/system/apps/threads_app")

    def new():
        return subprocess.Popen([program], stdin=listener.fileno())
    apps = [new(), new()]
    try:
        with Weir(text) as w, Load(w.port, "/app/sleep/5", 6, keep=False, expect=lambda r: r.status == 200 and r.text == b"short\n") as load:
            for _ in range(5 if SLOW > 1 else 20):
                before = load.ok
                wait_for(lambda: load.ok > before + 20 or load.bad)
                apps.append(new())
                old = apps.pop(0)
                old.terminate()
                assert old.wait(20 * SLOW) in (0, -signal.SIGTERM)  # that early it has accepted nobody
    finally:
        for a in apps:
            a.terminate()
            a.wait()
        listener.close()
    assert not load.bad, load
