# SPDX-License-Identifier: MIT
"""Pools in trouble, and a control that is hindered: the trouble stays with whom it belongs to, and ends when its cause does."""
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from weirlib import IS_ROOT, SLOW, USER, WEIR, Weir, alive, children, free_port, status_of, wait_for

BROKEN = "#!/bin/sh\nexit 3\n"


def test_a_broken_new_version_is_tried_ever_more_rarely_beside_the_old_one():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./app.sh; {USER} }}\n", {"app.sh": "#!/bin/sh\nexec $(dirname $0)/demo\n"}) as w:
        assert w.get("/env").status == 200
        old = w.pids("p")
        w.write("app.sh", BROKEN)
        w.command("restart", "p")
        wait_for(lambda: "tried again in 800 ms" in w.log())
        assert w.get("/env").status == 200 and w.pids("p") == old  # it was never refused
        assert w.log().count("tried again") == 3
        w.write("app.sh", "#!/bin/sh\nexec $(dirname $0)/demo\n")
        wait_for(lambda: w.pids("p") not in ([], old) and old[0] not in w.pids("p"))
        assert w.get("/env").status == 200


def test_a_pool_on_demand_that_is_refused_recovers_by_itself():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./app.sh; processes 0..2; queue 10 1s; {USER} }}\n", {"app.sh": BROKEN}) as w:
        wait_for(lambda: w.get("/env").status == 503 and w.pool("p").get("refuses"))
        w.write("app.sh", "#!/bin/sh\nexec $(dirname $0)/demo\n")
        wait_for(lambda: w.get("/env").status == 200)


@pytest.mark.skipif(not IS_ROOT or not shutil.which("prlimit"), reason="changes a limit of another user's process")
def test_a_gateway_that_had_no_descriptor_for_a_new_configuration_gets_it_later():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; queue 10 3s; {USER} }}\n") as w:
        gateway = w.gateway()
        who = os.stat(f"/proc/{gateway}")
        as_gateway = {"user": who.st_uid, "group": who.st_gid, "extra_groups": []}
        most = max(int(f) for f in os.listdir(f"/proc/{gateway}/fd")) + 1
        subprocess.run(["prlimit", "--pid", str(gateway), f"--nofile={most}:"], check=True, **as_gateway)
        w.command("reload")
        wait_for(lambda: not w.status()["gateway"]["ready"])  # the link broke
        subprocess.run(["prlimit", "--pid", str(gateway), "--nofile=20000:"], check=True, **as_gateway)
        wait_for(lambda: w.status()["gateway"]["ready"])
        old = w.pids("p")
        os.kill(old[0], 9)
        wait_for(lambda: w.pids("p") not in ([], old))
        assert w.get("/env").status == 200 and w.gateway() == gateway


@pytest.mark.nosan
def test_nobody_reads_the_log():
    read, write = os.pipe()
    flood = "#!/bin/sh\nyes 'a line of log that nobody reads' >&2 &\nexec $(dirname $0)/demo\n"
    config = (f"site a {{ listen http://127.0.0.1:PORT; pool good; route /bad/ {{ pool bad }} }}\npool good {{ run ./demo; {USER} }}\n"
              f"pool bad {{ run ./flood.sh; {USER} }}\n")
    with Weir(config, {"flood.sh": flood}, wait=False, log_to=write) as w:
        wait_for(lambda: w.status() and w.pids("good") and w.gateway())
        wait_for(lambda: w.get("/env").status == 200)
        old = w.pids("good")
        os.kill(old[0], 9)
        wait_for(lambda: w.pids("good") not in ([], old))
        assert w.get("/env").status == 200
        os.close(write)
        os.set_blocking(read, False)
    os.close(read)


def test_nobody_reads_what_the_gateway_alone_has_to_say(tmp_path):
    port, conf = free_port(), tmp_path / "weir.conf"
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    os.write(write, b"x" * 4096)  # full from the start; the first reader finds what was written then
    os.set_blocking(write, True)

    def configure(status):
        conf.write_text(f"weir {{ log off; temp /tmp }}\nsite a {{ listen http://127.0.0.1:{port}; redirect {status} http://b/ }}\n")

    def status():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return status_of(s.recv(65536))
        except ConnectionRefusedError:
            return None
    configure(302)
    with subprocess.Popen([WEIR, "gateway", "-c", str(conf)], stderr=write) as p:
        os.close(write)
        wait_for(lambda: status() == 302)
        for i in range(5):
            configure((301, 302)[i % 2])
            p.send_signal(signal.SIGHUP)
            wait_for(lambda i=i: status() == (301, 302)[i % 2])
        told = b""
        while b"configuration read again" not in told:
            told += os.read(read, 4096)
        os.close(read)
        p.terminate()
    assert p.returncode == 0


def test_admin_values_hold_below_a_root_that_a_reload_added():
    page = "<?php ini_set('memory_limit', '400M'); echo ini_get('memory_limit');"
    pool = f"pool p {{ php cgi; workers 2; php-admin-value memory_limit 33M; {USER} }}\n"
    one = "site a { listen http://127.0.0.1:PORT; root public; php p }\n"
    with Weir(one + pool, {"public/m.php": page, "other/m.php": page}) as w:
        assert w.get("/m.php").text == b"33M"
        w.configure(one + "site b.test { listen http://127.0.0.1:PORT; root other; php p }\n" + pool)
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/m.php", host="b.test").status == 200)
        wait_for(lambda: w.get("/m.php", host="b.test").text == b"33M")


@pytest.mark.nosan
def test_every_worker_that_hangs_is_ended():
    count = 40
    with Weir("site a { listen http://127.0.0.1:PORT; root public; php p }\n"
              f"pool p {{ php cgi; workers {count}; queue 100 10s; time {{ request 1s }}; {USER} }}\n", {"public/h.php": "<?php sleep(1000);"}) as w:
        master = w.pids("p")[0]
        wait_for(lambda: len(children(master)) == count)
        first, statuses = children(master), []
        threads = [threading.Thread(target=lambda: statuses.append(w.get("/h.php").status)) for _ in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert statuses == [504] * count
        wait_for(lambda: not any(alive(p) for p in first))


@pytest.mark.nosan
def test_a_pool_that_never_becomes_ready_leaves_places_for_others():
    with Weir("site a { listen http://127.0.0.1:PORT; pool good; route /h/ { pool hog } }\n"
              f"pool hog {{ run ./hog.sh; processes 20; {USER} }}\npool good {{ run ./demo; processes 0..2; queue 10 4s; {USER} }}\n",
              {"hog.sh": "#!/bin/sh\nexec sleep 1000\n"}, wait=False) as w:
        wait_for(lambda: w.status() and w.gateway() and len(w.pids("hog", "probing")) == 6)  # of 8 places
        assert w.get("/env").status == 200


@pytest.mark.nosan
def test_one_that_drains_for_long_does_not_keep_an_idle_one_from_making_room():
    config = ("site a { listen http://127.0.0.1:PORT; pool a; route /b/ { pool b }; route /c/ { pool c } }\n"
              f"pool a {{ run ./bench_app; processes 0..1; {USER} }}\npool b {{ run ./demo; processes 0..1; {USER} }}\n"
              f"pool c {{ run ./demo; processes 0..1; queue 10 10s; {USER} }}\n")
    with Weir(config, program="threads 2; processes 2", wait=False) as w:
        wait_for(lambda: w.status() and w.gateway())
        with w.connect() as slow:
            slow.sendall(b"GET /big/2000000000 HTTP/1.1\r\nHost: a\r\n\r\n")  # and reads nothing
            wait_for(lambda: w.pool("a")["processes"] and w.pool("a")["processes"][0]["busy"] == 1)
            assert w.get("/b/env").status == 200
            w.command("drain", "a")
            assert w.get("/c/env").status == 200
            assert [u["state"] for u in w.pool("a")["processes"]] == ["draining"]
            w.command("stop", "a")


def test_a_gateway_that_cannot_begin_says_why_and_ends_with_1(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = tmp_path / "weir.conf"
        config.write_text(f"site a {{ listen http://127.0.0.1:{taken.getsockname()[1]}; root {tmp_path} }}\n")
        r = subprocess.run([WEIR, "gateway", "-c", config], capture_output=True, text=True, timeout=30)
    assert r.returncode == 1 and "in use" in r.stderr


def test_a_reload_to_no_sites_is_applied():
    pool = f"pool p {{ run ./demo; {USER} }}\n"
    with Weir("site a { listen http://127.0.0.1:PORT; pool p }\n" + pool) as w:
        assert w.get("/env").status == 200
        w.configure(pool)
        assert w.command("reload").returncode == 0

        def refused():
            try:
                w.get("/env")
            except OSError:
                return True
            return False
        wait_for(refused)
        w.configure("site a { listen http://127.0.0.1:PORT; pool p }\n" + pool)
        assert w.command("reload").returncode == 0
        wait_for(lambda: not refused())
        assert w.get("/env").status == 200


def test_a_mistake_that_is_not_utf8_is_told():
    with Weir("site a { listen http://127.0.0.1:PORT; root public }\n") as w:
        with open(w.config, "ab") as f:
            f.write(b"pool \xe9\xfc { runn ./demo }\n")
        r = subprocess.run([WEIR, "reload", "--socket", w.socket], capture_output=True, timeout=30)
        assert r.returncode == 1 and b'\\xe9\\xfc' in r.stderr and b'did you mean "run"' in r.stderr
        assert w.status()["gateway"]["ready"]
