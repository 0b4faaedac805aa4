# SPDX-License-Identifier: MIT
"""kill -9 of each kind of process, again and again, under load: what fails is what ran in it, the service is back at once, and
nothing is left over. And `weir stop`: nothing of the pool is left, also nothing that made a daemon of itself."""
import contextlib
import http.client
import os
import signal
import socket
import statistics
import threading
import time

import pytest
from clients import Clients
from weirlib import LONG, SLOW, USER, Weir, alive, children, descendants, wait_for

pytestmark = pytest.mark.nosan

KILLS = 20 if LONG else 5
PATHS = {"app": "/sleep/15", "fpm": "/fpm/s.php", "cgi": "/cgi/s.php"}
CLIENTS = 3  # for each pool
CONFIG = f"""
site a {{
    listen http://127.0.0.1:PORT
    root public
    pool app
    route /fpm/ {{ php fpm }}
    route /cgi/ {{ php cgi }}
}}
pool app {{ run ./bench_app; processes 2; {USER} }}
pool fpm {{ php fpm; workers 3; {USER} }}
pool cgi {{ php cgi; workers 3; {USER} }}
"""
SCRIPT = "<?php usleep(15000); echo getmypid();"


class Request:
    """status: a number, or "closed"."""
    __slots__ = ("pool", "begin", "end", "status")

    def __init__(self, pool, begin):
        self.pool, self.begin, self.end, self.status = pool, begin, 0, None


class Load(Clients):
    """Clients that ask without a pause, each request on a connection of its own."""

    def __init__(self, weir):
        super().__init__(*(lambda pool=pool: self.run(pool) for pool in PATHS for _ in range(CLIENTS)))
        self.weir, self.done, self.lock = weir, [], threading.Lock()

    def run(self, pool):
        while not self.stop.is_set():
            r = Request(pool, time.monotonic())
            try:
                c = http.client.HTTPConnection("127.0.0.1", self.weir.port, timeout=30 * SLOW)
                c.request("GET", PATHS[pool], headers={"Connection": "close"})
                answer = c.getresponse()
                answer.read()
                r.status = answer.status
                c.close()
            except (OSError, http.client.HTTPException) as e:
                r.status = "late" if isinstance(e, TimeoutError) else "closed"
            r.end = time.monotonic()
            with self.lock:
                self.done.append(r)

    def since(self, at):
        with self.lock:
            return [r for r in self.done if r.begin >= at]

    def failed(self):
        return [r for r in self.done if r.status != 200]


def of_pools(folder):
    """Processes of the pools of this Weir, wherever they hang: told by where they work."""
    found = set()
    for p in os.listdir("/proc"):
        if p.isdigit() and int(p) != os.getpid():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{p}/cwd").startswith(folder):
                    found.add(int(p))
    return {p for p in found if alive(p)}


def zombies(pid):
    """Children, of it or of what is below, that nobody waited for."""
    parents, state = {}, {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{p}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                parents[int(p)], state[int(p)] = int(fields[1]), fields[0]

    def below(p):
        while p in parents and p != pid:
            p = parents[p]
        return p == pid
    return [p for p in parents if state[p] == "Z" and below(p)]


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets(weir):
    """The folder of the pools' sockets, and the names that stand in it; those that belong there."""
    s = weir.status()
    addresses = [u["address"][5:] for p in s["pools"] for u in p["processes"]]
    return set(os.listdir(os.path.dirname(addresses[0]))), {os.path.basename(a) for a in addresses}


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, {"public/fpm/s.php": SCRIPT, "public/cgi/s.php": SCRIPT}) as w:
        with Load(w) as load:  # everything has been used once
            wait_for(lambda: all(sum(r.pool == p and r.status == 200 for r in load.since(0)) > 20 for p in PATHS))
        yield w


def unit_of(weir, pool):
    return next(u["pid"] for u in weir.pool(pool)["processes"] if u["state"] == "ready")


def served(weir, pool, pid):
    """It works: its next end is none of a process that does not start."""
    return any(u["pid"] == pid and u["state"] == "ready" and u["requests"] > 0 for u in weir.pool(pool)["processes"])


VICTIMS = {  # whom to kill; whose requests may fail, and how many at once. The workers of a killed master finish what runs
    "app process": (lambda w: unit_of(w, "app"), ["app"], CLIENTS),
    "php-fpm worker": (lambda w: children(unit_of(w, "fpm"))[0], ["fpm"], 1),
    "php-cgi worker": (lambda w: children(unit_of(w, "cgi"))[0], ["cgi"], 1),
    "php-fpm master": (lambda w: unit_of(w, "fpm"), [], 0),
    "php-cgi master": (lambda w: unit_of(w, "cgi"), [], 0),
    "control": (lambda w: w.status()["control_pid"], [], 0),
    "gateway": (lambda w: w.gateway(), list(PATHS), CLIENTS * len(PATHS)),
}


def lived(pid):
    """For so long that its end counts as no failed start."""
    with open(f"/proc/{pid}/stat") as f:
        started = int(f.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started > 1.1


def kill_one(weir, load, victim):
    """Kills it and waits until all is as before: when it was killed, when it was dead, how long its pools did not serve."""
    find, pools, _ = VICTIMS[victim]
    pid = wait_for(lambda: (p := find(weir)) and alive(p) and p)  # control may not have heard of the last one's end
    if victim == "control":
        wait_for(lambda: lived(pid))  # the next control starts at once
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid), every=0.0005)
    dead = time.monotonic()

    def back():
        return {r.pool for r in load.since(dead) if r.status == 200} >= set(pools or PATHS)
    wait_for(back, every=0.001)
    took = max(min(r.end for r in load.since(dead) if r.pool == p and r.status == 200) for p in (pools or PATHS)) - at
    return at, dead, took, pid


def whole_again(weir):
    """All parts and all units are there and have served."""
    s = weir.status()
    if not s or not s["gateway"]["ready"]:
        return False
    for pool, units, workers in (("app", 2, 0), ("fpm", 1, 3), ("cgi", 1, 3)):
        ready = [u for p in s["pools"] if p["name"] == pool for u in p["processes"]]
        if len(ready) != units or any(u["state"] != "ready" or not u["requests"] for u in ready):
            return False
        if workers and any(len(children(u["pid"])) != workers for u in ready):
            return False
    return True


@pytest.mark.parametrize("victim", list(VICTIMS))
def test_only_what_ran_in_a_killed_process_fails_and_nothing_is_left(weir, victim):
    _, pools, most = VICTIMS[victim]
    wait_for(lambda: weir.status() and weir.status()["gateway"]["connections"] == 0)
    root = weir.process.pid
    before = descriptors(root), descriptors(weir.status()["control_pid"]), descriptors(weir.gateway())
    count_before = len(of_pools(weir.dir))
    kills, times = [], []
    with Load(weir) as load:
        for _ in range(KILLS):
            wait_for(lambda: whole_again(weir))
            kills.append(kill_one(weir, load, victim))
            times.append(kills[-1][2] * 1000)
        wait_for(lambda: whole_again(weir))
    failed = load.failed()
    print(f"{victim}: killed {KILLS} times under {len(load.done)} requests: {len(failed)} failed; served again after {statistics.median(times):.0f} ms "
          f"(median), {max(times):.0f} ms (most)")
    for r in failed:
        during = [k for k in kills if r.begin < k[1] and r.end > k[0]]
        assert r.pool in pools and r.status in (502, "closed") and during, (r.pool, r.status, r.begin, r.end, kills)
        if victim != "gateway":
            assert r.status == 502
    for at, dead, _, _ in kills:
        assert sum(r.begin < dead and r.end > at for r in failed) <= most
    assert not [k for k in kills if alive(k[3])]
    # nothing is left over
    wait_for(lambda: weir.status()["gateway"]["connections"] == 0)
    wait_for(lambda: not zombies(root))
    wait_for(lambda: len(of_pools(weir.dir)) == count_before)
    assert not of_pools(weir.dir) - set(descendants(root))
    wait_for(lambda: descriptors(root) == before[0])
    wait_for(lambda: descriptors(weir.status()["control_pid"]) <= before[1] + 1)  # the connection that asks
    wait_for(lambda: descriptors(weir.gateway()) <= before[2] + 8)  # connections to workers are kept, a few more or less
    wait_for(lambda: (lambda s: s[0] == s[1])(sockets(weir)))
    assert not [f for f in os.listdir(weir.run_dir) if f != "control.sock"]  # temp files


DAEMON = """#!/usr/bin/python3
import os, signal, socket, sys, time
for kind in ("child", "session", "deaf"):
    if os.fork() == 0:
        if kind != "child":
            os.setsid()
            if os.fork():
                os._exit(0)
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
        os._exit(0)
s = socket.socket(fileno=0)
s.setblocking(True)
while True:
    try:
        s.accept()[0].close()
    except OSError:
        time.sleep(0.05)
"""


def refused(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
    return False


@pytest.mark.parametrize("pool", ["run ./daemon.py", "php fpm; workers 3", "php cgi; workers 3"])
def test_nothing_of_a_stopped_pool_is_left_not_even_its_daemons(pool):
    script = "<?php exec('setsid -f sleep 1000 >/dev/null 2>&1 &'); echo 'done';"
    config = f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ {pool}; {USER} }}\n"
    with Weir(config, {"daemon.py": DAEMON, "public/d.php": script}) as w:
        if "php" in pool:
            assert w.get("/d.php").text == b"done"
            wait_for(lambda: len(of_pools(w.dir)) == 5)
        else:
            wait_for(lambda: len(of_pools(w.dir)) == 4)
        address = w.pool("p")["processes"][0]["address"][5:]
        link = os.path.join(w.run_dir, "keep-link")
        os.link(address, link)  # the socket by another name, which does not go with its file
        assert not refused(link)
        pids = of_pools(w.dir)
        assert w.command("stop", "p").returncode == 0
        wait_for(lambda: not [p for p in pids if alive(p)])
        assert refused(link) and refused(address)
        os.unlink(link)
        wait_for(lambda: not w.pool("p")["processes"] and not os.path.exists(address))
        assert not of_pools(w.dir)
        wait_for(lambda: not zombies(w.process.pid))
        assert w.get("/d.php").status == 503


@pytest.mark.parametrize("pool", ["fpm", "cgi"])
def test_a_master_that_is_killed_while_control_is_away_loses_nothing_either(weir, pool):
    with Load(weir) as load:
        for _ in range(3):
            wait_for(lambda: whole_again(weir))
            control, master = weir.status()["control_pid"], unit_of(weir, pool)
            wait_for(lambda: lived(control))
            os.kill(control, signal.SIGKILL)
            os.kill(master, signal.SIGKILL)
            wait_for(lambda: not alive(master))
            wait_for(lambda: whole_again(weir) and unit_of(weir, pool) != master)
    assert not load.failed()
    wait_for(lambda: not zombies(weir.process.pid) and not of_pools(weir.dir) - set(descendants(weir.process.pid)))
