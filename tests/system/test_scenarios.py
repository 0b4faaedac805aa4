# SPDX-License-Identifier: MIT
"""What users of PHP-FPM know and its own test-suite asks for, asked of Weir. Those that stand elsewhere:

scenario                                             test
reload with a broken configuration keeps serving     test_processes: test_reload_with_a_mistake_keeps_the_old_configuration_and_says_why
a port in use at a reload                            test_processes: test_a_reload_with_a_port_in_use_keeps_the_old_configuration
a pool removed and added by a reload                 test_processes: test_a_pool_that_is_added_or_removed_by_reload_comes_and_goes
close-on-exec, clean environment, umask, daemons     test_processes: test_an_app_gets_a_clean_start_and_its_daemons_die_with_it
daemons of a stopped pool, php too                   test_kills: test_nothing_of_a_stopped_pool_is_left_not_even_its_daemons
user missing, program missing                        test_processes: test_a_missing_program_and_an_unknown_user_stop_their_pool_alone
a program that dies at once; the breaker             test_processes: test_a_program_that_dies_at_once...; test_models: test_a_pool_whose_processes_die...
kill -9 of a master, a worker                        test_kills: test_only_what_ran_in_a_killed_process_fails_and_nothing_is_left
max requests, max age, without loss                  test_models: test_a_php_pool_recycles_its_workers_without_a_lost_request
memory that grows                                    test_models: test_a_process_that_grows_is_replaced
php-admin-value that ini_set cannot raise            test_models: test_php_runs_in_a_master_of_its_own_and_settings_that_scripts_cannot_raise
slow log with a backtrace                            test_models: test_a_worker_that_hangs_is_ended_alone_and_the_log_says_what_it_did
fastcgi_finish_request                               test_models: test_a_worker_that_goes_on_after_its_answer_gets_no_request_meanwhile
on demand, idle end                                  test_models: test_on_demand_the_first_request_starts_it_and_idleness_ends_it
dynamic                                              test_scaling
all workers busy, queue full                         test_many: test_a_full_queue_answers_503_at_once_and_a_client_that_leaves_is_taken_out
HEAD                                                 test_site: test_head_has_no_content
a missing script                                     test_site: test_a_script_that_does_not_exist_is_not_run
a script only by what stands behind it               test_hostile: test_what_looks_like_a_script_is_not_run_and_a_denied_script_stays_denied
control bytes in the log                             test_site: test_stderr_of_an_app_reaches_the_log_escaped
"""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse

import pytest
from test_bad_apps import END, HEAD, record
from test_deadlines import TalkingApp
from weirlib import IS_ROOT, SLOW, USER, Weir, alive, children, descendants, wait_for

pytestmark = pytest.mark.nosan

BOTH = ("fpm", "cgi")
ECHO = "<?php echo json_encode([$_SERVER, getcwd(), getenv(), $_GET, $_POST, $_FILES]);"
FILES = {
    "echo.php": ECHO, "a b/c d.php": ECHO, "50%.php": ECHO, "größe.php": ECHO, "x.php.jpg": "<?php echo 'run';", "x.phtml": "<?php echo 'run';",
    "fatal.php": "<?php function f() { nothing(); } f();", "memory.php": "<?php ini_set('memory_limit', '16M'); $x = str_repeat('x', 64 << 20);",
    "syntax.php": "<?php this is no php", "exit.php": "<?php echo 'before'; exit(3); echo 'after';", "empty.php": "",
    "crash.php": "<?php exec('kill -SEGV ' . getmypid()); sleep(10);", "pid.php": "<?php echo getmypid();", "loop.php": "<?php while (1) {}",
    "stderr.php": "<?php fwrite(fopen('php://stderr', 'w'), \"from stderr \" . $_GET['n'] . \"\\n\"); error_log('from error_log ' . $_GET['n']); echo 'ok';",
    "cookies.php": "<?php setcookie('a', '1'); setcookie('b', '2'); header('X-Two: 1'); header('X-Two: 2', false); echo 'ok';",
    "auth.php": "<?php echo $_SERVER['PHP_AUTH_USER'] ?? '-', ':', $_SERVER['PHP_AUTH_PW'] ?? '-';",
    "fds.php": "<?php echo shell_exec('exec ls -l /proc/self/fd');", "sleep.php": "<?php usleep(1000 * (int)$_GET['ms']); echo 'slept';",
    "value.php": "<?php echo ini_get('user_agent');",
    "finish.php": "<?php echo 'done'; fastcgi_finish_request(); error_log('went on');",
}


def config(more="", **pools):
    text = "".join(f"pool {n} {{ php {n}; workers 3; {USER} {s} }}\n" for n, s in (pools or {"fpm": "", "cgi": ""}).items())
    routes = "".join(f"route /{n}/ {{ php {n} }}\n" for n in (pools or BOTH))
    return f"site a {{\nlisten http://127.0.0.1:PORT\nroot public\n{routes}{more}\n}}\n{text}"


def files():
    return {f"public/{n}/{name}": text for n in BOTH for name, text in FILES.items()}


@pytest.fixture(scope="module")
def weir():
    settings = "env COLOUR blue; php-admin-value log_errors on; php-admin-value display_errors off; php-value variables_order EGPCS"
    with Weir(config(fpm=settings, cgi=settings), files()) as w:
        yield w


# ---- scripts ----

@pytest.mark.parametrize("php", BOTH)
@pytest.mark.parametrize("script", ["fatal.php", "memory.php", "syntax.php"])
def test_an_error_that_ends_a_script_is_a_500_and_stands_in_the_log(weir, php, script):
    assert weir.get(f"/{php}/{script}").status == 500
    word = {"fatal.php": "undefined function nothing", "memory.php": "Allowed memory size", "syntax.php": "syntax error"}[script]
    wait_for(lambda: re.search(f"{word}.*/{php}/{script}", weir.log()))
    assert weir.get(f"/{php}/pid.php").status == 200


@pytest.mark.parametrize("php", BOTH)
def test_exit_within_a_script_ends_its_answer_and_nothing_else(weir, php):
    before = weir.pids(php)
    for _ in range(5):
        r = weir.get(f"/{php}/exit.php")
        assert (r.status, r.text) == (200, b"before")
    assert weir.get(f"/{php}/empty.php").text == b""
    assert weir.pids(php) == before


@pytest.mark.parametrize("php", BOTH)
def test_a_worker_that_crashes_is_a_502_for_its_request_alone(weir, php):
    master = weir.pids(php)
    with weir.connect() as other:
        other.sendall(f"GET /{php}/sleep.php?ms={600 * SLOW} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        wait_for(lambda: weir.pool(php)["processes"][0]["busy"] >= 1)
        assert weir.get(f"/{php}/crash.php").status == 502
        got = b""
        while piece := other.recv(65536):
            got += piece
        assert got.endswith(b"slept")
    wait_for(lambda: len(children(master[0])) == 3)
    assert weir.pids(php) == master and weir.get(f"/{php}/pid.php").status == 200


@pytest.mark.parametrize("php", BOTH)
@pytest.mark.parametrize("name", ["echo.php", "a b/c d.php", "50%.php", "größe.php"])
@pytest.mark.parametrize("info", ["", "/p a/ü/50%/x.php"])
def test_the_paths_of_scripts_reach_php_as_they_are(weir, php, name, info):
    r = weir.get("/" + php + "/" + urllib.parse.quote(name + info) + "?q=%20a&r[]=1")
    assert r.status == 200
    server, cwd, _, get, _, _ = json.loads(r.text)
    path = f"{weir.public}/{php}/{name}"
    assert server["SCRIPT_FILENAME"] == path and server["SCRIPT_NAME"] == f"/{php}/{name}"
    assert server.get("PATH_INFO", "") == info and server["PHP_SELF"] == f"/{php}/{name}{info}"
    assert cwd == os.path.dirname(path)
    assert get == {"q": " a", "r": ["1"]} and server["QUERY_STRING"] == "q=%20a&r[]=1"


@pytest.mark.parametrize("php", BOTH)
def test_only_php_files_are_run(weir, php):
    for path in ("x.php.jpg", "x.phtml", "x.php.jpg/a.php", "x.php%00.jpg", "echo.php%00.jpg", "a b", "none.php", "none/echo.php"):
        r = weir.get(f"/{php}/" + path.replace(" ", "%20"))
        assert b"run" != r.text and not r.text.startswith(b"[{"), path
        assert r.status in ((200, 403, 404) if path in ("x.php.jpg", "x.phtml") else (301, 400, 403, 404)), (path, r.status)
        assert b"<?php" not in r.text or path == "x.php.jpg"


@pytest.mark.parametrize("php", BOTH)
def test_headers_bodies_and_logins_reach_php_and_come_back(weir, php):
    r = weir.get(f"/{php}/cookies.php")
    assert len(r.headers.get_all("Set-Cookie")) == 2 and r.headers.get_all("X-Two") == ["1", "2"]
    assert weir.get(f"/{php}/auth.php", headers={"Authorization": "Basic dXNlcjpwYSBzcw=="}).text == b"user:pa ss"
    form = (b"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\n\r\nhello\r\n"
            b"--b\r\nContent-Disposition: form-data; name=\"v\"\r\n\r\n1\r\n--b--\r\n")
    _, _, _, _, post, sent = json.loads(weir.get(f"/{php}/echo.php", "POST", form, {"Content-Type": "multipart/form-data; boundary=b"}).text)
    assert post == {"v": "1"} and sent["f"]["size"] == 5 and sent["f"]["name"] == "x.txt"
    assert not [f for f in os.listdir(weir.run_dir) if f != "control.sock"]


@pytest.mark.parametrize("php", BOTH)
def test_the_environment_of_php_is_the_pools_own(weir, php):
    os.environ["WEIR_TEST_SECRET"] = "must not be seen"
    _, _, env, _, _, _ = json.loads(weir.get(f"/{php}/echo.php").text)
    assert "must not be seen" not in json.dumps(env) and "NOTIFY_SOCKET" not in env
    if php == "cgi":
        assert env["COLOUR"] == "blue" and env["PATH"] == "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.parametrize("php", BOTH)
def test_what_a_script_starts_gets_none_of_our_descriptors(weir, php):
    text = weir.get(f"/{php}/fds.php").text.decode()
    found = {int(m[1]): m[2] for m in re.finditer(r" (\d+) -> (\S+)", text)}
    assert {0, 1, 2} <= set(found), text
    master, status = weir.pids(php)[0], weir.status()
    own = {os.readlink(f"/proc/{master}/fd/{fd}") for fd in range(4)}  # the pool's socket and its log
    for pid in (status["root_pid"], status["control_pid"], status["gateway"]["pid"]):
        ours = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                ours.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        assert not {what for n, what in found.items() if n > 2 and ("socket:" in what or "pipe:" in what)} & (ours - own), text
    assert "weir-config" not in text and "weir-start" not in text


@pytest.mark.parametrize("php", BOTH)
def test_lines_that_scripts_write_to_the_log_stay_lines(weir, php):
    threads = [threading.Thread(target=weir.get, args=(f"/{php}/stderr.php?n={php}{i}",)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(12):
        wait_for(lambda: re.search(rf"from error_log {php}{i}\b", weir.log()))
        wait_for(lambda: re.search(rf"from stderr {php}{i}\b", weir.log()))
    for line in weir.log().splitlines():
        assert line.count("from stderr") + line.count("from error_log") <= 1


def test_a_script_that_goes_on_after_its_answer_can_still_write_to_the_log(weir):
    assert weir.get("/fpm/finish.php").text == b"done"
    wait_for(lambda: "went on" in weir.log())


# ---- one that hangs ----

@pytest.mark.parametrize("php", BOTH)
def test_a_script_in_a_loop_is_told_504_its_worker_is_replaced_and_nobody_else_notices(php):
    with Weir(config(**{php: "time { request 1500ms }"}), files()) as w:
        master = w.pids(php)
        wait_for(lambda: len(children(master[0])) == 3)  # it is ready before all of them are
        workers, statuses, seen = set(children(master[0])), [], set()
        stop = threading.Event()

        def others():
            c = http.client.HTTPConnection("127.0.0.1", w.port, timeout=30 * SLOW)
            while not stop.is_set():
                c.request("GET", f"/{php}/pid.php")
                r = c.getresponse()
                seen.add(int(r.read()))
                statuses.append(r.status)
        threads = [threading.Thread(target=others) for _ in range(3)]
        for t in threads:
            t.start()
        looped = w.get(f"/{php}/loop.php")
        wait_for(lambda: len(workers & set(children(master[0]))) == 2 and len(children(master[0])) == 3)
        wait_for(lambda: seen - workers)  # the new one serves
        stop.set()
        for t in threads:
            t.join()
        assert looped.status == 504 and set(statuses) == {200}
        assert w.pids(php) == master
        wait_for(lambda: "hangs and is ended" in w.log())
        line = next(x for x in w.log().splitlines() if "hangs and is ended" in x)
        assert f"pool {php}:" in line and f"GET /{php}/loop.php" in line and "504" in line


@pytest.mark.parametrize("pool", ["php fpm; workers 2", "php cgi; workers 2", "run ./deaf.py"])
def test_a_process_that_ignores_its_end_does_not_hold_it_up(pool):
    """FC1-7-b"""
    deaf = "#!/usr/bin/python3\nimport signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nimport socket\ns = socket.socket(fileno=0)\n" \
           "kept = []\nwhile True:\n    try:\n        kept.append(s.accept()[0])\n    except OSError:\n        time.sleep(0.1)\n"
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; {'php' if 'php' in pool else 'pool'} p }}\n"
              f"pool p {{ {pool}; drain 300ms; {USER} }}\n", {"deaf.py": deaf, "public/l.php": "<?php while (1) {}"}) as w:
        with w.connect() as s:
            s.sendall(b"GET /l.php HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: w.pool("p")["processes"][0]["busy"] == 1)
            below = w.pids("p") + descendants(w.pids("p")[0])
            begin = time.monotonic()
            assert w.command("stop", "p").returncode == 0
            wait_for(lambda: not [p for p in below if alive(p)])
            print(f"{pool}: its end took {time.monotonic() - begin:.1f} s")
            assert s.recv(100).startswith(b"HTTP/1.1 50")
            wait_for(lambda: "were cut" in w.log())
        # and all of it: a Ctrl-C while one is deaf is Weir.stop's own check


# ---- reloads ----

def test_reloads_at_once_are_taken_one_after_the_other(weir):
    before, version = weir.pids("fpm") + weir.pids("cgi"), weir.status()["configuration"]
    results = []
    threads = [threading.Thread(target=lambda: results.append(weir.command("reload").returncode)) for _ in range(12)]
    for t in threads:
        t.start()
    looks = 0
    while any(t.is_alive() for t in threads):  # status is told meanwhile
        assert weir.status()["configuration"] >= version
        assert weir.get("/cgi/pid.php").status == 200
        looks += 1
    for t in threads:
        t.join()
    assert results == [0] * 12 and looks > 0
    assert weir.pids("fpm") + weir.pids("cgi") == before
    assert version < weir.status()["configuration"] <= version + 12


def test_a_hangup_signal_is_a_reload():
    with Weir(config(fpm="php-value user_agent one"), files()) as w:
        assert w.get("/fpm/value.php").text == b"one"
        w.configure(config(fpm="php-value user_agent two"))
        w.process.send_signal(signal.SIGHUP)
        wait_for(lambda: w.get("/fpm/value.php").text == b"two")
        wait_for(lambda: "the configuration was read again" in w.log())
        w.configure("nonsense\n")
        w.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old configuration stays in use" in w.log())
        assert w.get("/fpm/value.php").text == b"two"


@pytest.mark.parametrize("php", BOTH)
def test_what_runs_during_a_reload_ends_as_it_began_and_the_next_one_has_the_new_settings(php):
    with Weir(config(**{php: "php-value user_agent one"}), files()) as w:
        with w.connect() as s:
            s.sendall(f"GET /{php}/sleep.php?ms={700 * SLOW} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            wait_for(lambda: w.pool(php)["processes"][0]["busy"] == 1)
            old = w.pids(php)[0]
            w.configure(config(**{php: "php-value user_agent two"}))
            assert w.command("reload").returncode == 0
            wait_for(lambda: w.get(f"/{php}/value.php").text == b"two")
            assert alive(old)
            got = b""
            while piece := s.recv(65536):
                got += piece
            assert got.endswith(b"slept")
        wait_for(lambda: not alive(old))


def environment(weir, pool):
    """Of its process; empty while there is none."""
    for pid in weir.pids(pool):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ") as f:
            return dict(x.split("=", 1) for x in f.read().split("\0") if x)
    return {}


def test_one_program_serves_pools_with_settings_of_their_own():
    pools = "".join(f"pool {n} {{ run ./demo; env NAME {n}; env SHARED yes; {USER} }}\n" for n in ("one", "two"))
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; route /1/ {{ pool one }}; route /2/ {{ pool two }} }}\n{pools}") as w:
        environments = [environment(w, name) for name in ("one", "two")]
        assert [e["NAME"] for e in environments] == ["one", "two"] and all(e["SHARED"] == "yes" for e in environments)
        two = w.pids("two")
        w.configure(f"site a {{ listen http://127.0.0.1:PORT; route /1/ {{ pool one }}; route /2/ {{ pool two }} }}\n" + pools.replace("NAME one", "NAME uno"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: environment(w, "one").get("NAME") == "uno")
        assert w.pids("two") == two


# ---- starts and ends ----

SLEEPY = "#!/bin/sh\nsleep 1000\n"


def test_a_pool_that_is_starting_can_be_stopped_and_so_can_everything():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./s.sh; processes 3; {USER} }}\n", {"s.sh": SLEEPY}, wait=False) as w:
        pids = wait_for(lambda: w.status() and len(w.pids("p", "probing")) == 3 and w.pids("p", "probing"))
        assert w.command("stop", "p").returncode == 0
        wait_for(lambda: not [p for p in pids if alive(p)] and not w.pool("p")["processes"])
        assert not w.pool("p").get("problem")  # it was meant
        assert w.command("restart", "p").returncode == 0
        wait_for(lambda: len(w.pids("p", "probing")) == 3)
    # Weir.stop saw that nothing is left of those that were starting


def test_the_end_at_once_after_the_start_leaves_nothing():
    for delay in (0, 0.01, 0.03, 0.08):
        w = Weir(config(), files(), wait=False)
        time.sleep(delay)  # wherever it is
        below = descendants(w.process.pid)
        w.process.send_signal(signal.SIGINT)
        w.process.wait(20 * SLOW)
        wait_for(lambda: not [p for p in below if alive(p)])  # control sees by itself that a root part is gone that was not up yet
        w.stop()


@pytest.mark.parametrize("what", ["file", "folder", "stale", "live"])
def test_a_control_socket_whose_path_is_occupied(what):
    def prepare(w):
        if what == "file":
            w.write("run/control.sock", "precious")
        elif what == "folder":
            os.mkdir(w.socket)
        elif what == "stale":
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(w.socket)
    live = None
    program = "threads 1"
    if what == "live":
        live = Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}\n")
    w = Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}\n", program=program,
             prepare=prepare if what != "live" else lambda w: setattr(w, "socket", live.socket))
    try:
        assert w.get("/hello").status == 200  # it serves all the same
        if what == "stale":
            assert w.status()["gateway"]["ready"]
        elif what == "live":
            assert "another weir has the control socket" in w.log()
            assert live.status()["root_pid"] == live.process.pid
        else:
            assert "cannot make the control socket" in w.log() and "File exists" in w.log()
            if what == "file":
                with open(w.socket) as f:
                    assert f.read() == "precious"
                os.unlink(w.socket)
            else:
                os.rmdir(w.socket)
    finally:
        w.stop()
        if live:
            live.stop()


# ---- logs ----

TALKER = """#!/usr/bin/python3
import os, sys, time
line = "".join("%06d." % i for i in range(9500))  # 66,500 bytes
os.write(2, b"long " + line.encode() + b"\\n")
for piece in ("in ", "three ", "pieces\\n", "and the next in one\\nno line end"):
    os.write(1, piece.encode())
    time.sleep(0.05)
os.execv(os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo"), ["demo"])
"""


def test_long_lines_and_lines_in_pieces_reach_the_log_whole():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./t.py; {USER} }}\n", {"t.py": TALKER}) as w:
        pid = w.pids("p")[0]
        wait_for(lambda: f"[p {pid}] in three pieces\n[p {pid}] and the next in one\n" in w.log())
        lines = [line.split("] ", 1)[1] for line in w.log().splitlines() if line.startswith(f"[p {pid}]")]
        start = next(i for i, line in enumerate(lines) if line.startswith("long "))
        whole = "long " + "".join("%06d." % i for i in range(9500))
        text = ""
        for line in lines[start:]:
            text += line
            if len(text) >= len(whole):
                break
        assert text == whole and max(len(line) for line in lines) <= 66505
        assert w.command("stop", "p").returncode == 0
        wait_for(lambda: f"[p {pid}] no line end" in w.log())  # when it ends, what there is is a line


# ---- peers that are not ours ----

def test_a_peer_whose_backlog_is_full_keeps_only_its_own_requests_waiting():
    with Weir("site a {\nlisten http://127.0.0.1:PORT\nroute /full/ { pool full }\nroute /good/ { pool good }\n}\n"
              "pool full { connect unix:DIR/run/keep-full.sock { workers 4 }; queue 10 1s }\npool good { connect unix:DIR/run/keep-good.sock }\n") as w:
        def talk(app, c):
            kind, content = app.read(c)
            if kind == 5 and not content:
                c.sendall(record(6, HEAD + b"fine") + record(6) + END)
        assert TalkingApp(f"{w.run_dir}/keep-good.sock", talk)
        held = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{w.run_dir}/keep-full.sock")
            os.chmod(f"{w.run_dir}/keep-full.sock", 0o777)
            listener.listen(1)
            for _ in range(2):  # nobody accepts
                s = socket.socket(socket.AF_UNIX)
                s.connect(f"{w.run_dir}/keep-full.sock")
                held.append(s)
            results = []
            threads = [threading.Thread(target=lambda: results.append(w.get("/full/x").status)) for _ in range(6)]
            begin = time.monotonic()
            for t in threads:
                t.start()
            for _ in range(10):
                assert w.get("/good/x").text == b"fine"
            for t in threads:
                t.join()
            assert set(results) <= {502, 503, 504} and time.monotonic() - begin < 15 * SLOW, results
            for s in held:
                s.close()
        os.unlink(f"{w.run_dir}/keep-full.sock")
        assert TalkingApp(f"{w.run_dir}/keep-full.sock", talk)
        wait_for(lambda: w.get("/full/x").status == 200)
