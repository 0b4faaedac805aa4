# SPDX-License-Identifier: MIT
"""How many processes a pool has, and when they are replaced: fixed, by demand, on demand; php-fpm and php-cgi; recycling; the
breaker; slow requests and those that hang."""
import http.client
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import Clients
from weirlib import SLOW, USER, Weir, alive, descendants, wait_for

pytestmark = pytest.mark.nosan

SLEEP = {"public/s.php": "<?php usleep(1000 * (int)($_GET['ms'] ?? 100)); echo getmypid();", "public/sapi.php": "<?php echo PHP_SAPI;"}


def site(pool, more=""):
    return f"site a {{ listen http://127.0.0.1:PORT; root public; php p; debug yes; {more} }}\npool p {{ {pool}; {USER} }}\n"


class Load(Clients):
    """Clients that ask for one path without a pause: statuses, and the longest wait."""

    def __init__(self, weir, path, clients):
        super().__init__(*[self.run] * clients)
        self.weir, self.path, self.statuses, self.longest = weir, path, {}, 0

    def run(self):
        c = http.client.HTTPConnection("127.0.0.1", self.weir.port, timeout=60 * SLOW)
        while not self.stop.is_set():
            begin = time.monotonic()
            c.request("GET", self.path)
            r = c.getresponse()
            r.read()
            self.statuses[r.status] = self.statuses.get(r.status, 0) + 1
            self.longest = max(self.longest, time.monotonic() - begin)


def test_php_runs_in_a_master_of_its_own_and_settings_that_scripts_cannot_raise():
    script = "<?php ini_set('memory_limit', '2G'); ini_set('display_errors', '0'); echo PHP_SAPI, ' ', ini_get('memory_limit'), ' ', ini_get('upload_max_filesize');"
    pool = "php {}; workers 2; php-admin-value memory_limit 77M; php-value upload_max_filesize 5M"
    for sapi, name in (("fpm", "fpm-fcgi"), ("cgi", "cgi-fcgi")):
        with Weir(site(pool.format(sapi)), {"public/a.php": script}) as w:
            assert w.get("/a.php").text.decode() == f"{name} 77M 5M"
            wait_for(lambda: len(descendants(w.pids("p")[0])) == 2)


def test_php_takes_fpm_and_without_it_cgi_is_named():
    with Weir(site("php; workers 1"), SLEEP) as w:
        assert w.get("/sapi.php").text == b"fpm-fcgi"


def test_a_worker_that_goes_on_after_its_answer_gets_no_request_meanwhile():
    script = "<?php if (isset($_GET['long'])) { echo 'done'; fastcgi_finish_request(); usleep(1500000); } else echo 'short';"
    with Weir(site("php fpm; workers 2"), {"public/f.php": script}) as w:
        assert w.get("/f.php?long").text == b"done"
        end = time.monotonic() + 1
        while time.monotonic() < end:  # the other worker serves, at once
            begin = time.monotonic()
            assert w.get("/f.php").text == b"short"
            assert time.monotonic() - begin < 1 * SLOW


def test_on_demand_the_first_request_starts_it_and_idleness_ends_it():
    for pool in ("php fpm; workers 0..4", "php cgi; workers 0..4"):
        with Weir(site(pool + "; time { idle 500ms }"), SLEEP) as w:
            assert not w.pids("p")
            assert w.get("/sapi.php").status == 200
            before = w.pids("p")
            assert before
            wait_for(lambda: not w.pids("p") and not alive(before[0]))
            assert w.get("/sapi.php").status == 200


def test_the_number_of_processes_follows_the_demand_and_nobody_fails(tmp_path):
    with Weir(site("php cgi; workers 1..6; time { idle 700ms }"), SLEEP) as w:
        assert len(w.pids("p")) == 1
        counts = []
        with Load(w, "/s.php?ms=50", 5) as load:
            wait_for(lambda: len(w.pids("p")) >= 5)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                counts.append(len(w.pids("p")))
        assert set(load.statuses) == {200}
        assert max(counts) - min(counts) <= 1, counts  # it does not swing
        wait_for(lambda: len(w.pids("p")) == 1)


def test_workers_of_php_fpm_are_there_ahead_and_those_above_the_least_end_also_while_others_work():
    with Weir(site("php fpm; workers 2..5; time { idle 2s }"), SLEEP) as w:
        master = w.pids("p")[0]
        wait_for(lambda: len(descendants(master)) == 2)  # nobody asked for anything
        with Load(w, "/s.php?ms=100", 5) as load:
            wait_for(lambda: len(descendants(master)) == 5)
        with Load(w, "/s.php?ms=10", 1) as one:
            wait_for(lambda: len(descendants(master)) == 2)
        assert set(load.statuses) | set(one.statuses) == {200}
        assert w.pids("p") == [master]


@pytest.mark.parametrize("workers", ["0..6", "1..6", "4..6"])
def test_php_fpm_starts_as_many_workers_as_requests_wait(workers):
    """Each request waits for the five others: php-fpm alone starts one for connections that come together."""
    meets = """<?php
        $dir = dirname(__DIR__) . '/marks';
        touch("$dir/" . getmypid());
        for ($end = microtime(true) + 50; ($n = count(glob("$dir/*"))) < 6 && microtime(true) < $end; usleep(5000)) clearstatcache();
        echo $n;"""
    with Weir(site(f"php fpm; workers {workers}"), {"public/meets.php": meets}) as w:
        marks = os.path.join(w.dir, "marks")
        os.mkdir(marks)
        os.chmod(marks, 0o777)
        with ThreadPoolExecutor(6) as clients:
            assert {r.text for r in clients.map(lambda _: w.get("/meets.php", timeout=60), range(6))} == {b"6"}


def accepted(w):
    """What the workers of the one process of pool p have accepted: inodes."""
    path = w.pool("p")["processes"][0]["address"][5:]
    with open("/proc/net/unix") as f:
        return {int(line[6]) for line in map(str.split, f) if line[-1] == path and line[5] == "03"}


def test_a_connection_to_php_fpm_rests_for_a_while_only():
    """On one that rests for longer, request_terminate_timeout would end the next request too soon."""
    with Weir(site("php fpm; workers 2; time { idle 1s }"), SLEEP) as w:
        wait_for(lambda: w.get("/sapi.php").status == 200 and accepted(w))
        wait_for(lambda: not accepted(w))
    with Weir(site("php fpm; workers 2..4; time { idle 1s }"), SLEEP) as w:
        ahead = wait_for(lambda: len(a := accepted(w)) == 2 and a)
        wait_for(lambda: len(a := accepted(w)) == 2 and not a & ahead)


def test_php_fpm_ends_requests_by_the_longest_time_that_any_route_gives():
    """And a reload that changes a time replaces it."""
    def config(time):
        return site("php fpm; workers 1; time { request 1s; idle 1s }", f"route /long/ {{ php p; time {{ request {time} }} }}")
    with Weir(config("2s"), {**SLEEP, "public/long/s.php": SLEEP["public/s.php"]}) as w:
        assert w.get("/long/s.php?ms=6000").status == 504
        old = w.pids("p")
        w.configure(config("30s"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.pids("p") not in ([], old) and w.get("/long/s.php?ms=0").status == 200)
        assert w.get("/long/s.php?ms=10500", timeout=60).status == 200  # 2 s, and 8 s that php-fpm is late by
        assert w.get("/s.php?ms=6000").status == 504


def test_connections_are_kept_although_php_fpm_replaces_workers():
    with Weir(site("php fpm; workers 1; recycle { requests 5 }"), SLEEP) as w:
        workers = {w.get("/s.php?ms=0").text for _ in range(40)}
        assert len(workers) >= 7

        def keeps():
            before = w.get("/s.php?ms=0").status == 200 and accepted(w)
            return w.get("/s.php?ms=0").status == 200 and before & accepted(w)
        wait_for(keeps)


def test_scale_stop_and_restart_by_order():
    config = f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; processes 2; {USER} }}\n"
    with Weir(config) as w:
        assert w.command("scale", "p", "4").returncode == 0
        wait_for(lambda: len(w.pids("p")) == 4)
        assert w.command("scale", "p", "1..3").returncode == 0
        wait_for(lambda: 1 <= len(w.pids("p")) <= 3)
        assert w.pool("p")["scaled"] == "1..3"
        pids = w.pids("p")
        assert w.command("stop", "p").returncode == 0
        wait_for(lambda: not any(alive(p) for p in pids))
        assert w.get("/hello").status == 503 and w.pool("p")["stopped"]
        assert w.command("restart", "p").returncode == 0
        wait_for(lambda: w.pids("p"))
        assert w.get("/hello").status == 200
        assert w.command("reload").returncode == 0  # run-time changes end with it
        wait_for(lambda: len(w.pids("p")) == 2)
        assert w.command("scale", "q", "1").returncode == 1 and w.command("scale", "p", "x").returncode == 2
        uid = os.geteuid()
        wait_for(lambda: [line.split(" orders: ")[1] for line in w.log().splitlines() if line.startswith(f"weir: uid {uid} orders: ")] ==
                 ["scale p to 4", "scale p to 1..3", "stop p", "restart p", "reload", "scale q to 1: there is no pool q that Weir owns"])


@pytest.mark.parametrize("pool", ["run ./bench_app; processes 2; recycle { requests 20 }", "run ./bench_app; processes 2; recycle { age 300ms }"])
def test_processes_are_replaced_between_requests(pool):
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ {pool}; {USER} }}\n") as w:
        first = set(w.pids("p"))
        with Load(w, "/hello", 3) as load:
            wait_for(lambda: len(w.pids("p")) >= 2 and not first & set(w.pids("p")))
        assert set(load.statuses) == {200}, load.statuses
        assert w.pool("p")["cut"] == 0


@pytest.mark.parametrize("php", ["fpm", "cgi"])
def test_an_order_scales_the_workers_of_php_and_control_may_die_then(php):
    with Weir(site(f"php {php}; workers 2"), SLEEP) as w:
        def workers(n):
            return wait_for(lambda: len(m := w.pids("p")) == 1 and len(descendants(m[0])) == n and m[0])
        workers(2)
        with Load(w, "/s.php?ms=20", 4) as load:
            assert w.command("scale", "p", "4").returncode == 0
            master = workers(4)
            p = w.pool("p")
            assert p["scaled"] == "4" and [u["workers"] for u in p["processes"] if u["pid"] == master] == [4]
            control = w.status()["control_pid"]
            os.kill(control, 9)
            wait_for(lambda: (s := w.status()) and s["control_pid"] != control and w.pool("p")["scaled"] == "4")
            assert workers(4) == master
            assert w.command("reload").returncode == 0  # as configured
            workers(2)
        assert set(load.statuses) == {200}


def test_a_php_pool_recycles_its_workers_without_a_lost_request():
    for sapi in ("fpm", "cgi"):
        with Weir(site(f"php {sapi}; workers 2; recycle {{ requests 30; age 1s }}"), SLEEP) as w:
            seen = set()
            with Load(w, "/s.php?ms=1", 4) as load:
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    seen.add(w.get("/s.php?ms=0").text)
            assert set(load.statuses) == {200}, load.statuses
            assert len(seen) > 3


def test_a_process_that_grows_is_replaced():
    grow = "<?php $x = str_repeat('x', 150 << 20); while (!file_exists($_GET['until'])) usleep(10000); echo getmypid();"
    with Weir(site("php cgi; workers 1; php-admin-value memory_limit 500M; recycle { memory 100M }"), {"public/g.php": grow, **SLEEP}) as w:
        before = w.pids("p")
        with Load(w, f"/g.php?until={w.run_dir}/keep-enough", 2) as load:
            wait_for(lambda: "has grown to" in w.log(), 40)
            w.write("run/keep-enough", "")
            wait_for(lambda: w.pids("p") and not set(before) & set(w.pids("p")), 40)
        assert set(load.statuses) == {200}


def test_a_pool_whose_processes_die_is_answered_503_at_once_and_mends_itself():
    config = f"site a {{ listen http://127.0.0.1:PORT; pool p; debug yes }}\npool p {{ run ./app.sh; queue 10 30s; {USER} }}\n"
    with Weir(config, {"app.sh": "#!/bin/sh\nexit 3\n"}) as w:
        wait_for(lambda: "answered 503 until it starts" in w.log())
        wait_for(lambda: w.get("/").status == 503)
        begin = time.monotonic()
        assert b"do not start" in w.get("/").text
        assert time.monotonic() - begin < 2 * SLOW
        w.write("app.sh", f"#!/bin/sh\nexec {w.dir}/demo\n")
        wait_for(lambda: w.get("/hello").status == 200, 40)
        assert w.log().count("ended with status 3") <= 8


def test_a_worker_that_hangs_is_ended_alone_and_the_log_says_what_it_did():
    with Weir(site("php; workers 2; time { request 4s; slow 1s }"), {"public/loop.php": "<?php while (1) {}", **SLEEP}) as w:
        master = w.pids("p")
        workers = set(wait_for(lambda: len(d := descendants(master[0])) == 2 and d))
        assert w.get("/loop.php").status == 504
        wait_for(lambda: len(workers & set(descendants(master[0]))) == 1 and len(descendants(master[0])) == 2)
        assert w.pids("p") == master and w.get("/sapi.php").status == 200
        wait_for(lambda: "hangs and is ended" in w.log())
        log = w.log()
        assert "slow: GET /loop.php" in log and "loop.php" in log
        wait_for(lambda: "script_filename" in w.log() or "[0x" in w.log())  # php's own backtrace


def test_ready_when_it_says_so_or_when_it_answers():
    notify = """#!/usr/bin/python3
import os, socket, time
time.sleep(0.3)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
os.execv(os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo"), ["demo"])
"""
    config = "site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ {}; {} }}\n"
    with Weir(config.format("run ./n.py; ready notify", USER), {"n.py": notify}) as w:
        assert w.get("/hello").status == 200
    with Weir(config.format("run ./demo; ready /hello", USER)) as w:
        assert w.get("/hello").status == 200
    with Weir(config.format("run ./demo; ready /no-such-page; time { start 2s }", USER), wait=False) as w:
        wait_for(lambda: "404" in w.log() or "not ready in time" in w.log())
        assert not w.pids("p")


def test_the_last_words_of_a_stopped_pool_are_heard_and_nothing_of_it_is_left():
    """FC1-7-b"""
    app = """#!/usr/bin/python3
import os, signal, subprocess, sys, time
subprocess.Popen(["setsid", "sleep", "1000"])
signal.signal(signal.SIGTERM, lambda *a: (print("last words", flush=True), sys.exit(0)))
import socket
s = socket.socket(fileno=0)
while True:
    try:
        s.accept()[0].close()
    except OSError:  # nobody is accepted any more: TERM follows
        time.sleep(0.1)
"""
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./a.py; {USER} }}\n", {"a.py": app}) as w:
        pid = wait_for(lambda: w.pids("p"))[0]
        below = [pid] + descendants(pid)
        assert w.command("stop", "p").returncode == 0
        wait_for(lambda: not any(alive(p) for p in below))
        wait_for(lambda: "last words" in w.log())
        assert subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True).returncode == 1


def test_processes_of_all_pools_together_have_a_limit_and_the_oldest_idle_one_makes_room():
    pools = "".join(f"route /{n}/ {{ pool {n} }}\n" for n in "abc")
    config = f"site a {{ listen http://127.0.0.1:PORT; root public; {pools} }}\n" + "".join(
        f"pool {n} {{ run ./demo; processes 0..1; {USER} time {{ idle 1h }} }}\n" for n in "abc")
    with Weir(config, program="threads 1; processes 2") as w:
        for n in "abc":
            assert w.get(f"/{n}/hello").status == 200
        wait_for(lambda: [len(w.pids(n)) for n in "abc"] == [0, 1, 1])
        assert w.get("/a/hello").status == 200
        wait_for(lambda: [len(w.pids(n)) for n in "abc"] == [1, 0, 1])
