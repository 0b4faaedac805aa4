# SPDX-License-Identifier: MIT
"""How the number of processes follows a load in steps, as a picture; and what the first request of a pool on demand waits for."""
import http.client
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import threading
import time

import pytest
from plot import draw
from test_bad_apps import record
from weirlib import EXAMPLES, SLOW, USER, Weir, wait_for

pytestmark = pytest.mark.alone

SCRIPT = "<?php usleep(20000); echo 'ok';"
STEPS = ((1, 0.8), (4, 1.2), (8, 1.4), (3, 1.8), (0, 0.8))  # clients, seconds
IDLE = 0.4


class Samples:
    """`weir status` of one pool, again and again over one connection."""

    def __init__(self, weir, pool):
        self.pool, self.stop, self.list, self.begin = pool, threading.Event(), [], time.monotonic()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(weir.socket)
        self.file = self.socket.makefile("rb")
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            self.socket.sendall(b'{"command":"status"}\n')
            status = json.loads(self.file.readline())
            p = next(p for p in status["pools"] if p["name"] == self.pool)
            self.list.append((time.monotonic() - self.begin, p))
            time.sleep(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *why):
        self.stop.set()
        self.thread.join()
        self.file.close()
        self.socket.close()


class Clients:
    """A number of them that ask without a pause; it can be changed."""

    def __init__(self, weir, path):
        self.weir, self.path, self.want, self.threads, self.bad, self.done = weir, path, 0, [], [], 0

    def run(self, number):
        c = http.client.HTTPConnection("127.0.0.1", self.weir.port, timeout=30 * SLOW)
        while number < self.want:
            c.request("GET", self.path)
            r = c.getresponse()
            r.read()
            self.done += 1
            if r.status != 200:
                self.bad.append(r.status)

    def set(self, count):
        before, self.want = self.want, count
        self.threads += [threading.Thread(target=self.run, args=(i,)) for i in range(before, count)]
        for t in self.threads[-(count - before):] if count > before else []:
            t.start()

    def end(self):
        self.set(0)
        for t in self.threads:
            t.join()


def processes(p):
    return sum(u["state"] in ("ready", "starting", "probing") for u in p["processes"])


def turns(numbers):
    """How often a series changes its direction."""
    count, way = 0, 0
    for a, b in zip(numbers, numbers[1:]):
        new = (b > a) - (b < a)
        if new and way and new != way:
            count += 1
        way = new or way
    return count


def waits_beside_idle(samples):
    """The longest time for which requests waited while a process that serves was idle: each look of the same kind adds up. Control
    is told at most ten times a second, so that a short one says nothing."""
    longest, since = 0, None
    for t, p in samples:
        idle = any(u["state"] == "ready" and not u["busy"] and not u["opening"] and u["requests"] for u in p["processes"])
        if p["queued"] and idle:
            since = t if since is None else since
            longest = max(longest, t - since)
        else:
            since = None
    return longest


POOLS = {
    "dynamic": ("php cgi; workers 1..8", "/s.php", 1),
    "on-demand": ("run ./bench_app; requests-per-process 1; processes 0..8", "/sleep/20", 0),
}


@pytest.mark.nosan
@pytest.mark.parametrize("kind", list(POOLS))
def test_the_number_of_processes_follows_the_load_and_does_not_swing(kind):
    pool, path, least = POOLS[kind]
    config = (f"site a {{ listen http://127.0.0.1:PORT; root public; {'php' if 'php' in pool else 'pool'} p }}\n"
              f"pool p {{ {pool}; time {{ idle {int(IDLE * 1000)}ms }}; {USER} }}\n")
    with Weir(config, {"public/s.php": SCRIPT}) as w:
        clients, marks = Clients(w, path), []
        with Samples(w, "p") as samples:
            for count, seconds in STEPS:
                marks.append((time.monotonic() - samples.begin, count))
                clients.set(count)
                wait_for(lambda: processes(samples.list[-1][1]) >= count if samples.list else False)
                time.sleep(seconds)
            clients.end()
            wait_for(lambda: processes(samples.list[-1][1]) == least)
        end = samples.list[-1][0]
        load = [p for (t, n), (t2, _) in zip(marks, marks[1:] + [(end, 0)]) for p in ((t, n), (t2, n))]
        picture = draw(f"scaling-{kind}", f"{pool}: clients that ask without a pause, and processes", {
            "processes": [(t, processes(p)) for t, p in samples.list], "clients": load,
            "waiting": [(t, p["queued"]) for t, p in samples.list]})
        assert not clients.bad
        bounds = [t for t, _ in marks] + [end]
        swings = [turns([processes(p) for t, p in samples.list if a <= t < b]) for a, b in zip(bounds, bounds[1:])]
        waited = waits_beside_idle(samples.list)
        print(f"{kind}: {clients.done} requests, {len(samples.list)} looks, at most {max(processes(p) for _, p in samples.list)} processes, changes of direction "
              f"within the steps {swings}, waiting beside an idle process for at most {waited * 1000:.0f} ms: {picture}")
        assert max(processes(p) for _, p in samples.list) <= 8
        assert sum(swings) == 0
        assert waited < 0.35
        settled = [processes(p) for t, p in samples.list if bounds[3] + 2 * IDLE + 0.4 < t < bounds[4]]
        assert settled and max(settled) <= 5  # three clients


def pair(name, value):
    return struct.pack(">BB" if len(value) < 128 else ">BI", len(name), len(value) | (0x80000000 if len(value) > 127 else 0)) + name + value


def own_start(args, environment, params, folder):
    """Seconds from the start of a program to the end of its first answer, asked over its own socket."""
    path = os.path.join(folder, "keep-own.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as s:
        listener.bind(path)
        listener.listen(10)
        content = b"".join(pair(k.encode(), v.encode()) for k, v in params.items())
        begin = time.monotonic()
        p = subprocess.Popen(args, stdin=listener.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        s.connect(path)
        s.sendall(record(1, struct.pack(">HBxxxxx", 1, 0)) + record(4, content) + record(4) + record(5))
        got = b""
        while piece := s.recv(65536):
            got += piece
        took = time.monotonic() - begin
        p.kill()
        p.wait()
    os.unlink(path)
    assert b"\r\n\r\n" in got or b"\n\n" in got, got
    return took


@pytest.mark.parametrize("kind", ["a C program", "php-cgi"])
def test_the_first_request_of_a_pool_on_demand_waits_for_little_more_than_the_start(kind):
    php = kind == "php-cgi"
    config = (f"site a {{ listen http://127.0.0.1:PORT; root public; php p; route /app/ {{ pool p }} }}\n"
              f"pool p {{ {'php cgi; workers 0..2' if php else 'run ./demo; processes 0..2'}; {USER} }}\n")
    tries = 9 if SLOW == 1 else 3
    with Weir(config, {"public/s.php": "<?php echo 'ok';"}) as w:
        if php:
            args, params = [shutil.which("php-cgi")], {"SCRIPT_FILENAME": w.public + "/s.php", "REDIRECT_STATUS": "200", "REQUEST_METHOD": "GET"}
        else:
            args, params = [os.path.join(EXAMPLES, "demo")], {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/app", "PATH_INFO": "/hello"}
        own, first, again = [], [], []
        for _ in range(tries):
            own.append(own_start(args, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, params, w.run_dir))
            assert not w.pool("p")["processes"]
            for times in (first, again):
                begin = time.monotonic()
                assert w.get("/s.php" if php else "/app/hello").status == 200
                times.append(time.monotonic() - begin)
            assert w.command("stop", "p").returncode == 0
            wait_for(lambda: not w.pool("p")["processes"])
            assert w.command("restart", "p").returncode == 0  # and waits for a request
        o, f, a = (statistics.median(x) * 1000 for x in (own, first, again))
        print(f"{kind}, medians of {tries}: its own start with an answer {o:.1f} ms, the first request {f:.1f} ms ({f - o:+.1f} ms, {f / o:.2f} times), the next one {a:.1f} ms")
        assert f < o + 1000 * SLOW  # the figure is printed; what decides is that nothing waits for a timer of ours
