# SPDX-License-Identifier: MIT
"""The service manager: what it is told, the sockets that it gives and keeps, its watchdog. The test plays its part."""
import array
import contextlib
import http.client
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

import pytest
from weirlib import LONG, SLOW, SUPERVISE, USER, WEIR, Weir, alive, descendants, wait_for

pytestmark = pytest.mark.nosan

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    route /app/ {{ pool demo }}
}}
pool demo {{ run ./demo; {USER} processes 2 }}
"""
# Gives the descriptors that it is told as 3, 4, ... to the program, as systemd does: under the pid that the program has.
GIVE = """
import fcntl, os, sys
fds = [int(f) for f in sys.argv[1].split(",")]
for i, f in enumerate([fcntl.fcntl(f, fcntl.F_DUPFD, 100) for f in fds]):
    os.dup2(f, 3 + i, True)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """Listens at NOTIFY_SOCKET; keeps what is stored."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.kept, self.seen = {}, []

    def take(self, timeout):
        """The next message as a dictionary; None: none came."""
        self.socket.settimeout(timeout)
        try:
            data, control, _, _ = self.socket.recvmsg(4096, 4096)
        except (TimeoutError, BlockingIOError):
            return None
        fds = array.array("i")
        for level, kind, payload in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload)
        m = dict(line.split("=", 1) for line in data.decode().splitlines())
        if m.get("FDSTORE") == "1":
            assert len(fds) == 1
            self.kept[m["FDNAME"]] = fds[0]
        elif m.get("FDSTOREREMOVE") == "1" and m["FDNAME"] in self.kept:
            os.close(self.kept.pop(m["FDNAME"]))
        self.seen.append(m)
        return m

    def next(self, key, timeout=20):
        """The next message that has this key; what comes before it is taken, too."""
        end = time.monotonic() + timeout * SLOW
        while (left := end - time.monotonic()) > 0:
            m = self.take(left)
            if m and key in m:
                return m
        raise AssertionError(f"no {key} came: {self.seen}")

    def env(self, **more):
        return {"NOTIFY_SOCKET": self.path, **more}

    def giving(self, **fds):
        """How to start a program with these descriptors."""
        return {"wrap": [sys.executable, "-c", GIVE, ",".join(map(str, fds.values())), ":".join(fds)], "pass_fds": list(fds.values())}

    def close(self):
        self.socket.close()
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def manager(tmp_path):
    m = Manager(str(tmp_path))
    yield m
    m.close()


def listening(port=0, host="127.0.0.1"):
    s = socket.create_server((host, port))
    return s


def port_of(fd):
    with socket.socket(fileno=os.dup(fd)) as s:
        return s.getsockname()[1]


@pytest.mark.skipif(not LONG, reason="it takes a minute")
def test_a_pool_that_takes_longer_keeps_the_service_manager_waiting_for_a_minute(manager):
    config = CONFIG + f"pool late {{ run ./late.py; {USER}; time {{ start 1h }} }}\n"
    with Weir(config, {"late.py": "#!/usr/bin/python3\nimport time\ntime.sleep(1000)\n"}, env=manager.env(), wait=False) as w:
        began = time.monotonic()
        m = manager.next("READY", 90)
        assert 55 < time.monotonic() - began < 75 and w.get("/app/hello").status == 200, m
        wait_for(lambda: "pool late: not ready yet: the others serve" in w.log())


def test_start_reload_and_end_are_told(manager):
    with Weir(CONFIG, env=manager.env(), wait=False) as w:
        m = manager.next("READY", 60)
        assert w.get("/app/hello").status == 200  # at once: it is ready
        assert m["MAINPID"] == str(w.process.pid) and m["STATUS"] == "sites: 1, pools: 1"
        assert list(manager.kept) == [f"weir-127.0.0.1-{w.port}-0"]
        assert port_of(*manager.kept.values()) == w.port
        for reload in (lambda: w.process.send_signal(signal.SIGHUP), lambda: w.command("reload")):
            before = time.monotonic_ns() // 1000
            reload()
            m = manager.next("RELOADING")
            assert before <= int(m["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert "failed" not in manager.next("READY")["STATUS"]
        with open(w.config, "a") as f:
            f.write("nonsense\n")
        assert w.command("reload").returncode != 0
        manager.next("RELOADING")
        assert "the last reload failed" in manager.next("READY")["STATUS"]
        w.process.terminate()
        manager.next("STOPPING")
        assert w.process.wait(20) == 0
    assert not any("WATCHDOG" in m for m in manager.seen)


def test_a_start_that_fails_is_never_ready(manager):
    w = Weir(CONFIG + "nonsense\n", env=manager.env(), wait=False)
    assert w.process.wait(20 * SLOW) == 1
    w.stop()
    manager.next("STOPPING")
    assert not any("READY" in m for m in manager.seen)


def test_a_listener_that_goes_is_not_kept_any_more(manager):
    with Weir(CONFIG, env=manager.env(), wait=False) as w:
        manager.next("READY", 60)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            other = s.getsockname()[1]
        old, w.port = w.port, other
        w.configure(CONFIG)
        assert w.command("reload").returncode == 0
        m = manager.next("FDSTOREREMOVE")
        assert m["FDNAME"] == f"weir-127.0.0.1-{old}-0" and list(manager.kept) == [f"weir-127.0.0.1-{other}-0"]


def test_nothing_of_it_reaches_the_processes(manager):
    given = listening()
    with Weir(CONFIG, env=manager.env(WATCHDOG_USEC="20000000"), wait=False, **manager.giving(extra=given.fileno())) as w:
        manager.next("READY", 60)
        inode = os.fstat(given.fileno()).st_ino
        for pid in descendants(w.process.pid):
            with open(f"/proc/{pid}/environ", "rb") as f:
                environ = f.read()
            with open(f"/proc/{pid}/comm") as f:
                keeper = f.read().strip() == "weir-keeper"  # a fork of the root part: it starts nothing with its own environment
            for name in (b"NOTIFY_SOCKET", b"LISTEN_", b"WATCHDOG_"):
                assert keeper or name not in environ
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    assert os.stat(f"/proc/{pid}/fd/{fd}").st_ino != inode
    given.close()


def test_the_watchdog_is_fed_and_a_control_that_hangs_is_replaced(manager):
    with Weir(CONFIG, env=manager.env(WATCHDOG_USEC="600000"), wait=False) as w:
        manager.next("READY", 60)
        for _ in range(3):
            manager.next("WATCHDOG", 2)
        apps, control = w.pids("demo"), w.status()["control_pid"]
        os.kill(control, signal.SIGSTOP)
        wait_for(lambda: not alive(control))
        wait_for(lambda: w.status() and w.status()["control_pid"] != control and w.pids("demo") == apps)
        assert w.get("/app/hello").status == 200
        while manager.take(0.001):
            pass
        manager.next("WATCHDOG", 2)
        assert "control does not answer" in w.log()


@pytest.mark.nosan
def test_the_watchdog_is_not_fed_where_no_control_starts(manager):
    folder = tempfile.mkdtemp(prefix="weir-bin-", dir="/tmp")
    os.chmod(folder, 0o755)
    program = shutil.copy(WEIR, folder)
    shutil.copy(SUPERVISE, folder)
    run = [sys.executable, "-c", "import os, sys; os.execv(sys.argv[1], [sys.argv[1]] + sys.argv[3:])", program]
    with Weir(CONFIG, env=manager.env(WATCHDOG_USEC="200000"), wait=False, wrap=run) as w:
        manager.next("READY", 60)
        control = w.status()["control_pid"]
        os.unlink(program)
        os.kill(control, signal.SIGKILL)
        end = time.monotonic() + 20
        while manager.take(1):
            assert time.monotonic() < end
        assert w.get("/app/hello").status == 200
        shutil.copy(WEIR, folder)
        manager.next("WATCHDOG")
        wait_for(lambda: w.status())
    shutil.rmtree(folder)


def test_given_sockets_serve_and_others_are_closed(manager):
    ours, other, datagrams = listening(), listening(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port, other_port = ours.getsockname()[1], other.getsockname()[1]
    early = socket.create_connection(("127.0.0.1", port))  # before it runs
    early.sendall(b"GET /app/hello HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    config = CONFIG.replace("PORT", str(port))
    how = manager.giving(**{"weir.socket": ours.fileno(), "other": other.fileno(), "weir-old": datagrams.fileno()})
    with Weir(config, env=manager.env(), wait=False, **how) as w:
        ours.close()
        other.close()
        manager.next("READY", 60)
        assert early.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other_port))
        log = w.log()
        assert f"no listener wants the socket weir-127.0.0.1-{other_port}-0" in log and "(weir-old) of the service manager is no listening" in log
        assert any(m.get("FDNAME") == "weir-old" and "FDSTOREREMOVE" in m for m in manager.seen)
        assert not manager.kept  # it has them already
    early.close()
    datagrams.close()


def test_sockets_for_another_process_are_left_alone(manager):
    given = listening()
    how = manager.giving(x=given.fileno())
    how["wrap"][2] = how["wrap"][2].replace("str(os.getpid())", "'1'")
    with Weir(CONFIG, env=manager.env(), wait=False, **how):
        manager.next("READY", 60)
        assert not any("FDSTOREREMOVE" in m for m in manager.seen)
    given.close()


def kill_root_part(w):
    before = descendants(w.process.pid)
    w.process.kill()
    w.process.wait()
    wait_for(lambda: not [p for p in before if alive(p)])


def test_a_killed_root_part_comes_back_and_refuses_nobody(manager):
    w = Weir(CONFIG, env=manager.env(), wait=False)
    manager.next("READY", 60)
    kill_root_part(w)
    clients = [http.client.HTTPConnection("127.0.0.1", w.port, timeout=60) for _ in range(50)]
    for c in clients:
        c.request("GET", "/app/hello")  # nobody is there
    assert list(manager.kept) == [f"weir-127.0.0.1-{w.port}-0"]
    w.start(wait=False, env=manager.env(), **manager.giving(**manager.kept))
    with w:
        assert [c.getresponse().status for c in clients] == [200] * 50
        manager.next("READY", 60)
        assert w.get("/app/hello").status == 200
        assert sum("FDSTORE" in m for m in manager.seen) == 1  # it is still kept
        for c in clients:
            c.close()


@pytest.mark.nosan
def test_restarts_under_load_lose_nothing(manager):
    counts, stop = {}, threading.Event()

    def client(port):
        while not stop.is_set():
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                c.request("GET", "/app/hello", headers={"Connection": "close"})
                what = c.getresponse().status
                c.close()
            except OSError as e:
                what = repr(e)
            counts[what] = counts.get(what, 0) + 1
    w = Weir(CONFIG, env=manager.env(), wait=False)
    manager.next("READY", 60)
    clients = [threading.Thread(target=client, args=(w.port,)) for _ in range(4)]
    for c in clients:
        c.start()
    try:
        for _ in range(5):
            w.process.terminate()
            assert w.process.wait(20) == 0
            w.start(wait=False, env=manager.env(), **manager.giving(**manager.kept))
            manager.next("READY", 60)
            seen = counts.get(200, 0)
            wait_for(lambda: counts.get(200, 0) > seen + 20)
    finally:
        stop.set()
        for c in clients:
            c.join()
    with w:
        assert set(counts) == {200}, counts


def test_a_kept_socket_does_not_stand_in_the_way_of_a_new_configuration(manager):
    w = Weir(CONFIG, env=manager.env(), wait=False)
    manager.next("READY", 60)
    kill_root_part(w)
    w.configure(CONFIG.replace("127.0.0.1:PORT", "*:PORT"))
    with socket.socket(fileno=os.dup(*manager.kept.values())) as s:
        how = manager.giving(**{next(iter(manager.kept)): s.fileno()})
        w.start(wait=False, env=manager.env(), **how)
    with w:
        manager.next("READY", 60)
        assert w.get("/app/hello").status == 200
        assert len(manager.kept) == 1
