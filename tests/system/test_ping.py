# SPDX-License-Identifier: MIT
"""A process that hangs while nobody asks it: found by a ping, ended and replaced before it costs a request."""
import contextlib
import os
import signal
import time

import pytest
from weirlib import USER, Weir, alive, read_all, wait_for

PERL = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { print "Content-Type: text/plain\\r\\n\\r\\nok $$\\n"; }
"""
CONFIG = f"""
site a {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool app }}; route /perl/ {{ pool perl }}; php php }}
defaults pool {{ {USER} time {{ ping 400ms }} }}
pool app {{ run ./demo }}
pool perl {{ run ./one.pl }}
pool php {{ php; workers 2 }}
"""


@pytest.mark.parametrize("pool,path", [("app", "/app/hello"), ("perl", "/perl/x")])
def test_a_process_that_stops_while_it_is_idle_is_replaced(pool, path):
    with Weir(CONFIG, {"one.pl": PERL}) as w:
        assert w.get(path).status == 200
        before = w.pids(pool)
        os.kill(before[0], signal.SIGSTOP)
        wait_for(lambda: w.pids(pool) and not set(w.pids(pool)) & set(before))
        wait_for(lambda: not alive(before[0]))
        assert f"process {before[0]} does not answer a ping" in w.log()
        assert w.get(path).status == 200


@pytest.mark.nosan
def test_a_php_worker_that_stops_is_ended_alone():
    with Weir(CONFIG, {"one.pl": PERL, "public/pid.php": "<?php echo getmypid();"}) as w:
        worker, master = int(w.get("/pid.php").text), w.pids("php")
        while alive(worker):  # stopped before it has proved that its request is over, it would be one that works on behind its answer
            os.kill(worker, signal.SIGCONT)
            wait_for(lambda: " S " in open(f"/proc/{worker}/stat").read())  # it waits for the next one
            os.kill(worker, signal.SIGSTOP)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not alive(worker), 3)
        wait_for(lambda: f"process {worker} does not answer a ping" in w.log())
        assert w.pids("php") == master
        assert w.get("/pid.php").status == 200


@pytest.mark.nosan
def test_a_request_that_comes_while_a_ping_is_on_its_way_waits_for_the_process():
    with Weir(CONFIG.replace("400ms", "3s"), {"one.pl": PERL}) as w:
        assert w.get("/app/hello").status == 200
        pid = w.pids("app")[0]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(4.2)  # it was asked, and has some time left
        with w.connect() as s:
            s.sendall(b"GET /app/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            wait_for(lambda: w.pool("app")["processes"][0]["busy"] == 1)
            os.kill(pid, signal.SIGCONT)
            assert read_all(s).startswith(b"HTTP/1.1 200 ")
        assert w.pids("app") == [pid]


@pytest.mark.nosan
def test_processes_that_answer_are_left_alone():
    with Weir(CONFIG, {"one.pl": PERL, "public/pid.php": "<?php echo getmypid();"}) as w:
        for path in ("/app/hello", "/perl/x", "/pid.php"):
            assert w.get(path).status == 200
        before = [w.pids(p) for p in ("app", "perl", "php")]
        wait_for(lambda: w.status()["uptime_ms"] > 3000)  # several pings
        assert [w.pids(p) for p in ("app", "perl", "php")] == before
        assert "ping" not in w.log()
