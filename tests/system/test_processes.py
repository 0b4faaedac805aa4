# SPDX-License-Identifier: MIT
"""Processes: who owns them, what they are given, what happens when one of them dies, and that nothing is left."""
import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from weirlib import IS_ROOT, Load, SLOW, SUPERVISE, USER, WEIR, Weir, alive, can_connect, descendants, free_port, status_of, wait_for

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php php
    debug yes
    route /app/ {{ pool demo }}
}}
pool php {{ php; {USER} workers 3 }}
pool demo {{ run ./demo; {USER} processes 2 }}
"""
FILES = {"public/pid.php": "<?php echo getmypid();", "public/slow.php": "<?php usleep(300000); echo 'slow';",
         "public/loop.php": "<?php while (1) {}"}


@pytest.fixture
def weir():
    with Weir(CONFIG, FILES) as w:
        yield w


@pytest.mark.nosan
def test_a_killed_app_process_is_replaced(weir):
    before = weir.pids("demo")
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(weir.pids("demo")) == 2 and before[0] not in weir.pids("demo"))
    assert before[1] in weir.pids("demo")
    assert weir.get("/app/hello").status == 200


@pytest.mark.nosan
def test_the_apps_outlive_a_killed_control(weir):
    before = weir.pids("demo") + weir.pids("php")
    os.kill(weir.status()["control_pid"], signal.SIGKILL)
    assert weir.get("/app/hello").status == 200
    wait_for(lambda: weir.status() and sorted(weir.pids("demo") + weir.pids("php")) == sorted(before) and weir.gateway())
    assert weir.get("/pid.php").status == 200


@pytest.mark.nosan
def test_a_killed_gateway_is_back_within_a_second_and_the_apps_keep_their_pids(weir):
    apps, gateway = weir.pids("demo") + weir.pids("php"), weir.gateway()
    os.kill(gateway, signal.SIGKILL)
    begin = time.monotonic()

    def answers():
        try:
            return weir.get("/app/hello", timeout=2).status == 200 and weir.get("/pid.php", timeout=2).status == 200
        except OSError:
            return False
    wait_for(answers)
    assert time.monotonic() - begin < 1.0 * SLOW
    wait_for(lambda: weir.gateway() not in (None, gateway))
    assert weir.pids("demo") + weir.pids("php") == apps


@pytest.mark.nosan
def test_restart_gateway_serves_again_and_the_apps_keep_their_pids(weir):
    apps, gateway = weir.pids("demo") + weir.pids("php"), weir.gateway()
    assert weir.command("restart", "gateway").returncode == 0
    wait_for(lambda: weir.gateway() not in (None, gateway))
    assert weir.get("/app/hello").status == 200
    assert weir.pids("demo") + weir.pids("php") == apps


@pytest.mark.threads
@pytest.mark.parametrize("pool,path", [("demo", "/app/hello"), ("php", "/pid.php")])
def test_restart_of_a_pool_under_load_loses_nothing(weir, pool, path):
    gateway, before = weir.gateway(), weir.pids(pool)
    with Load(weir.port, path) as load:
        for _ in range(3):
            old = weir.pids(pool)
            assert weir.command("restart", pool).returncode == 0
            wait_for(lambda: weir.pids(pool) and not set(old) & set(weir.pids(pool)) and not weir.pids(pool, "draining")
                     and not weir.pids(pool, "ending"))
    assert not load.bad and load.ok > 10, load
    assert weir.gateway() == gateway and not [p for p in before if alive(p)]


@pytest.mark.nosan
def test_reload_keeps_processes_whose_settings_stay(weir):
    demo, php = weir.pids("demo"), weir.pids("php")
    weir.configure(CONFIG.replace("processes 2", "processes 3").replace("debug yes", "debug no"))
    assert weir.command("reload").returncode == 0
    wait_for(lambda: len(weir.pids("demo")) == 3)
    assert set(demo) < set(weir.pids("demo")) and weir.pids("php") == php


@pytest.mark.nosan
def test_reload_with_a_mistake_keeps_the_old_configuration_and_says_why(weir):
    weir.configure(CONFIG.replace("listen", "lisen"))
    r = weir.command("reload")
    assert r.returncode == 1 and 'did you mean "listen"?' in r.stderr
    assert weir.get("/app/hello").status == 200


def test_a_reload_to_a_root_that_is_not_there_keeps_the_old_one():
    sites = "site {name} {{ listen http://127.0.0.1:PORT; root {root}; files }}\n"
    with Weir(sites.format(name="a", root="public") + sites.format(name="b.test", root="gone"), {"public/x.txt": "x"}) as w:
        assert w.get("/x.txt", host="a").text == b"x" and w.get("/x.txt", host="b.test").status == 503  # what is wrong at the start is no more than that
        w.configure(sites.format(name="a", root="pubilc") + sites.format(name="b.test", root="gone"))
        r = w.command("reload")
        assert r.returncode == 1 and "pubilc is no folder" in r.stderr and "gone" not in r.stderr
        assert w.get("/x.txt", host="a").text == b"x"
        w.configure(sites.format(name="a", root="public") + sites.format(name="b.test", root="gone") + sites.format(name="c.test", root="none"))
        assert w.command("reload").returncode == 1
        w.configure(sites.format(name="a", root="public") + sites.format(name="b.test", root="gone; index i.html"))
        r = w.command("reload")
        assert r.returncode == 0 and "they have mistakes" in r.stdout
        assert w.get("/x.txt", host="a").text == b"x"


@pytest.mark.nosan
def test_a_pool_that_is_added_or_removed_by_reload_comes_and_goes(weir):
    weir.configure(CONFIG + f"pool more {{ run ./hello; {USER} }}\n")
    assert weir.command("reload").returncode == 0
    pid = wait_for(lambda: weir.pids("more"))[0]
    weir.configure(CONFIG)
    assert weir.command("reload").returncode == 0
    wait_for(lambda: not alive(pid))


def test_a_listener_comes_and_goes_by_reload(weir):
    port = free_port()
    open_now = can_connect(("127.0.0.1", port))
    weir.configure(CONFIG.replace("listen ", f"listen http://127.0.0.1:{port} "))
    assert weir.command("reload").returncode == 0
    wait_for(open_now)
    weir.configure(CONFIG)
    assert weir.command("reload").returncode == 0
    wait_for(lambda: not open_now())
    with socket.socket() as s:  # nobody holds the port any more
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
    assert weir.get("/app/hello").status == 200


def test_no_process_is_left_when_the_root_part_is_killed(weir):
    below = descendants(weir.process.pid)
    assert len(below) > 8
    weir.process.kill()
    weir.process.wait()
    wait_for(lambda: not [p for p in below if alive(p)])


def test_a_killed_keeper_takes_its_processes_with_it_and_the_pool_recovers(weir):
    pid = weir.pids("php")[0]
    with open(f"/proc/{pid}/stat") as f:
        keeper = int(f.read().rsplit(")", 1)[1].split()[1])
    workers = descendants(pid)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not [p for p in workers + [pid] if alive(p)])
    wait_for(lambda: weir.pids("php") and weir.pids("php") != [pid])
    assert weir.get("/pid.php").status == 200


@pytest.mark.nosan
def test_a_php_worker_that_hangs_is_answered_504_and_the_others_go_on(weir):
    weir.configure(CONFIG.replace("workers 3", "workers 3; time { request 1s }"))
    assert weir.command("reload").returncode == 0
    wait_for(lambda: weir.status()["configuration"] == 2)
    assert weir.get("/loop.php").status == 504
    assert weir.get("/pid.php").status == 200


APP = """#!/usr/bin/python3
import os, socket, sys, subprocess, time, signal
sys.stdout.write("environment " + " ".join(sorted(os.environ)) + "\\n")
sys.stdout.write("descriptors " + " ".join(sorted(os.listdir("/proc/self/fd"), key=int)) + "\\n")
sys.stdout.write("identity %d %d %s\\n" % (os.getuid(), os.getgid(), os.getcwd()))
sys.stdout.write("mask %o\\n" % os.umask(0))
sys.stderr.write("to stderr \\x1b[31m\\n")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
sys.stdout.flush()
s = socket.socket(fileno=0)
s.setblocking(True)
while True:
    c, _ = s.accept()
    c.close()
"""


def test_an_app_gets_a_clean_start_and_its_daemons_die_with_it():
    """FC1-2.2-b, FC1-2.3-a, FC1-2.4-a"""
    with Weir(f"pool p {{ run ./app.py DIR/run/keep.pid; env EXTRA 1; {USER} }}", {"app.py": APP}) as w:
        wait_for(lambda: "to stderr" in w.log() and "mask" in w.log())
        log = w.log()
        assert "environment EXTRA HOME LANG LOGNAME PATH TMPDIR USER WEIR_LISTEN\n" in log
        assert "descriptors 0 1 2 3\n" in log  # 3 is the folder being listed
        assert "mask 22\n" in log and "\\x1b[31m" in log and "\x1b" not in log
        if IS_ROOT:
            import pwd
            demo = pwd.getpwnam("weir-demo")
            assert f"identity {demo.pw_uid} {demo.pw_gid} {w.dir}\n" in log
        pid = wait_for(lambda: w.pids("p"))[0]
        assert f"[p {pid}] mask" in log
        wait_for(lambda: os.path.exists(w.run_dir + "/keep.pid"))
        with open(w.run_dir + "/keep.pid") as f:
            daemon = int(wait_for(f.read))  # it may be there before the app has written it
        assert alive(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(daemon))
        wait_for(lambda: w.pids("p") and w.pids("p") != [pid])


def test_a_program_that_dies_at_once_is_started_with_growing_pauses():
    """FC1-7-a"""
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./no.sh; queue 10 300ms; {USER} }}",
              {"no.sh": "#!/bin/sh\nexit 3\n"}) as w:
        wait_for(lambda: w.log().count("tried again") >= 3)
        assert "ended with status 3 before it was ready" in w.log()
        assert "status 3" in w.pool("p")["problem"]
        assert w.get("/").status == 503


def test_a_missing_program_and_an_unknown_user_stop_their_pool_alone():
    more = "route /bad/ { pool bad }\n"
    with Weir(CONFIG.replace("debug yes", "debug yes\n" + more) + "pool bad { run ./nothing; user nobody-here }\n", FILES) as w:
        assert "there is no program" in w.log() and "weir.conf:" in w.log()
        if IS_ROOT:
            assert "there is no user nobody-here" in w.log()
        assert w.get("/app/hello").status == 200
        wait_for(lambda: w.get("/bad/").status == 503)
        assert w.pool("bad")["problem"]


@pytest.mark.nosan
def test_a_reload_with_a_port_in_use_keeps_the_old_configuration(weir):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        weir.configure(CONFIG.replace("listen ", f"listen http://127.0.0.1:{s.getsockname()[1]} ").replace("processes 2", "processes 1"))
        r = weir.command("reload")
        assert r.returncode == 1 and "the port is in use" in r.stderr
    assert weir.status()["configuration"] == 1 and len(weir.pids("demo")) == 2
    weir.configure(CONFIG)
    assert weir.command("reload").returncode == 0 and weir.get("/app/hello").status == 200


def test_an_included_file_with_a_mistake_stops_only_itself(weir):
    weir.write("more/a.conf", f"pool one {{ run ../hello; {USER} }}\n")
    weir.configure(CONFIG + "include more/*.conf\n")
    assert weir.command("reload").returncode == 0
    pid = wait_for(lambda: weir.pids("one"))
    weir.write("more/a.conf", "pool one { rum ../hello }\n")
    weir.write("more/b.conf", "pool two {\n")
    weir.write("more/c.conf", f"pool three {{ run ../hello; {USER} }}\n")
    assert weir.command("reload").returncode == 0
    wait_for(lambda: weir.pids("three"))
    assert weir.pids("one") == pid and not weir.pool("two")
    assert "did you mean" in weir.log() and "its last good version stays in use" in weir.log()


def test_control_that_was_killed_goes_on_with_what_was_in_use(weir):
    demo, php, gateway = weir.pids("demo"), weir.pids("php"), weir.gateway()
    weir.configure("this is no configuration\n")
    control = weir.status()["control_pid"]
    os.kill(control, signal.SIGKILL)
    wait_for(lambda: (weir.status() or {"control_pid": control})["control_pid"] != control)
    wait_for(lambda: weir.gateway() == gateway)
    assert (weir.pids("demo"), weir.pids("php")) == (demo, php)
    assert weir.get("/pid.php").status == 200


def test_a_port_in_use_is_told():
    with Weir(CONFIG, FILES) as one:
        w = Weir(CONFIG.replace("PORT", str(one.port)), FILES, wait=False)
        assert w.process.wait(20 * SLOW) == 1
        assert "the port is in use" in w.stop()


def test_the_root_part_is_linked_to_libc_alone():
    needed = subprocess.run(["readelf", "-d", SUPERVISE], capture_output=True, text=True).stdout
    libs = {line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line}
    assert {lib.split(".")[0] for lib in libs} <= {"libc", "libasan", "libubsan", "libtsan", "libm"}, libs
    symbols = subprocess.run(["nm", SUPERVISE], capture_output=True, text=True).stdout
    for word in ("json", "weir_config", "weir_http", "weir_wire", "weir_cgi", "inet_pton", "getaddrinfo"):
        assert word not in symbols, word


def test_libweir_needs_libc_alone():
    lib = os.path.join(os.path.dirname(os.path.dirname(SUPERVISE)), "app/libweir.so")
    needed = subprocess.run(["readelf", "-d", lib], capture_output=True, text=True).stdout
    libs = {line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line}
    assert {name.split(".")[0] for name in libs} <= {"libc", "libasan", "libubsan", "libtsan"}, libs


@pytest.mark.skipif(not IS_ROOT, reason="needs root to become another user")
def test_without_root_everything_runs_under_one_user():
    import tempfile, shutil
    with tempfile.TemporaryDirectory(prefix="weir-user-", dir="/tmp") as d:
        os.chmod(d, 0o777)
        os.mkdir(d + "/www")
        with open(d + "/www/index.html", "w") as f:
            f.write("mine")
        os.chmod(d + "/www", 0o755)
        for p in (WEIR, SUPERVISE):
            shutil.copy(p, d)
        from weirlib import free_port
        port = free_port()
        with open(d + "/log", "wb") as log:
            p = subprocess.Popen([d + "/weir", "serve", d + "/www", "--listen", f"http://127.0.0.1:{port}"], stdout=log, stderr=log,
                                 user="weir-demo", group="weir-demo", extra_groups=[], cwd=d, env={"PATH": "/usr/bin:/bin"})
        try:
            wait_for(lambda: "ready. Ctrl-C" in open(d + "/log").read() or p.poll() is not None)
            assert "not root" in open(d + "/log").read()
            import urllib.request
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").read() == b"mine"
        finally:
            p.send_signal(signal.SIGINT)
            assert p.wait(10 * SLOW) == 0


@pytest.mark.nosan
@pytest.mark.parametrize("number,answered", [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_what_runs_may_end_where_nobody_waits_at_a_terminal(number, answered):
    files = {**FILES, "public/late.php": "<?php touch('DIR/run/keep'); usleep(1500000); echo 'late';"}
    with Weir(CONFIG, {}) as w:
        for name, text in files.items():
            w.write(name, text.replace("DIR", w.dir))
        c = http.client.HTTPConnection("127.0.0.1", w.port, timeout=20 * SLOW)
        c.request("GET", "/late.php")
        wait_for(lambda: os.path.exists(f"{w.run_dir}/keep"))
        w.process.send_signal(number)
        try:
            text = c.getresponse().read()
        except (OSError, http.client.HTTPException):
            text = b""
        assert (text == b"late") == answered
        assert w.process.wait(20 * SLOW) == 0
