# SPDX-License-Identifier: MIT
"""Control ends, an order comes, or a name is removed, at a moment at which something else is half done."""
import os
import signal
import socket
import subprocess

import pytest
from weirlib import IS_ROOT, USER, Weir, alive, free_port, wait_for

pytestmark = pytest.mark.nosan
CONFIG = f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}\n"


def child(w, name, but=0):
    """Of the root part: the one that runs `weir NAME`."""
    with open(f"/proc/{w.process.pid}/task/{w.process.pid}/children") as f:
        for pid in map(int, f.read().split()):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as c:
                    if c.read().split(b"\0")[1:2] == [name.encode()] and pid != but:
                        return pid
            except OSError:
                pass
    return 0


def pending(pid, sig):
    with open(f"/proc/{pid}/status") as f:
        lines = dict(line.split(":", 1) for line in f)
    return (int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)) >> (sig - 1) & 1


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
        return False
    except ConnectionRefusedError:
        return True


def test_a_reload_with_a_mistake_while_control_starts_ends_nothing():
    with Weir(CONFIG) as w:
        for _ in range(3):
            control = child(w, "control")
            w.configure("nonsense\n")
            said = w.log().count("the old configuration stays in use")
            os.kill(control, signal.SIGKILL)
            new = wait_for(lambda: child(w, "control", control), every=0.0005)
            os.kill(new, signal.SIGSTOP)
            w.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not pending(w.process.pid, signal.SIGHUP))
            os.kill(new, signal.SIGCONT)
            wait_for(lambda: w.log().count("the old configuration stays in use") > said)
            assert w.process.poll() is None and w.get("/hello").status == 200
        w.configure(CONFIG)
        assert w.command("reload").returncode == 0


def test_a_listener_that_a_reload_dropped_is_closed_though_control_ended_meanwhile():
    port = free_port()
    with Weir(CONFIG.replace("listen http://127.0.0.1:PORT", f"listen http://127.0.0.1:PORT http://127.0.0.1:{port}")) as w:
        assert not refused(port)
        gateway = w.gateway()
        os.kill(gateway, signal.SIGSTOP)  # it has not taken the new configuration when control ends
        w.configure(CONFIG)
        assert w.command("reload").returncode == 0
        os.kill(w.status()["control_pid"], signal.SIGKILL)
        os.kill(gateway, signal.SIGCONT)
        wait_for(lambda: refused(port))
        assert w.get("/hello").status == 200


def test_a_program_that_says_that_it_is_ready_while_control_is_away():
    app = """#!/usr/bin/python3
import os, socket, sys, time
here = os.path.dirname(os.path.abspath(__file__))
while not os.path.exists(here + "/go"):
    time.sleep(0.01)
try:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(os.environ["NOTIFY_SOCKET"])
    s.send(b"READY=1")
except OSError:
    pass
os.execv(here + "/demo", ["demo"])
"""
    with Weir(CONFIG.replace("run ./demo", "run ./n.py; ready notify"), {"n.py": app}, wait=False) as w:
        first = wait_for(lambda: (w.status() or {"pools": [{"processes": []}]})["pools"][0]["processes"])[0]["pid"]
        control = child(w, "control")
        os.kill(control, signal.SIGSTOP)
        os.kill(control, signal.SIGKILL)
        w.write("go", "")
        wait_for(lambda: w.pids("p") and w.get("/hello").status == 200)
        wait_for(lambda: not alive(first) or w.pids("p") == [first])


def test_a_pool_restarts_although_all_pools_together_are_at_their_limit():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php; workers 3; {USER} }}\n", {"public/x.php": "<?php echo 1;"}, program="threads 2; processes 5") as w:
        before = w.pids("p")
        assert w.get("/x.php").text == b"1"
        assert w.command("restart", "p").returncode == 0
        wait_for(lambda: w.pids("p") and w.pids("p") != before)
        wait_for(lambda: not alive(before[0]))
        assert w.get("/x.php").text == b"1"


def test_two_pools_restart_together_at_the_limit_of_all():
    pools = "".join(f"pool {n} {{ run ./demo; {USER} processes 20; env N ONE }}\n" for n in "pq")
    config = "site a { listen http://127.0.0.1:PORT; pool p; route /q { pool q } }\n" + pools
    with Weir(config, program="threads 2; processes 40") as w:
        before = set(w.pids("p") + w.pids("q"))
        assert len(before) == 40
        w.configure(config.replace("ONE", "TWO"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: len(w.pids("p")) == len(w.pids("q")) == 20 and not before & set(w.pids("p") + w.pids("q")))
        wait_for(lambda: not any(alive(p) for p in before))


@pytest.mark.skipif(not IS_ROOT, reason="users are made and removed")
@pytest.mark.xdist_group("users")
def test_an_upgrade_goes_on_although_the_user_of_control_is_gone():
    name = f"weir-t{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)
    gone = False
    try:
        with Weir(CONFIG, program=f"threads 2; user {name} weir-gw") as w:
            control, pids = w.status()["control_pid"], w.pids("p")
            subprocess.run(["userdel", "-f", name], check=True, capture_output=True)
            subprocess.run(["groupdel", name], check=False, capture_output=True)
            gone = True
            assert w.command("upgrade").returncode == 0
            wait_for(lambda: (w.status() or {"control_pid": control})["control_pid"] != control)
            assert w.process.poll() is None and w.pids("p") == pids and w.get("/hello").status == 200
    finally:
        if not gone:
            subprocess.run(["userdel", name], check=False)
