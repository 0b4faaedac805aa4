# SPDX-License-Identifier: MIT
"""Pools of several servers that others own: who gets a request, what becomes of one that dies, fails or comes back. The servers are a
script by perl's FCGI (libfcgi), libweir's bench_app, and php-fpm."""
import contextlib
import os
import socket
import subprocess
import threading
import time

import pytest

from weirlib import EXAMPLES, SLOW, WEIR, Load, UnixServer, Weir, can_connect, check_says, program, wait_for

# Each answers its own name and its pid; counts each request in a file, by a line of its own.
PERL = """#!/usr/bin/perl
use FCGI;
$| = 1;
my $name = shift;
my $r = FCGI::Request();
while ($r->Accept() >= 0) {
    open(my $f, '>>', "DIR/runs"); syswrite($f, "$ENV{REQUEST_URI}\\n"); close($f);
    if ($ENV{REQUEST_URI} =~ m{^/hang}) { select(undef, undef, undef, 0.02) while !-e 'DIR/go' }
    print "Content-Type: text/plain\\r\\n\\r\\n$name";
}
"""


class Servers:
    """Perl servers one, two, ... of a Weir; each can be ended and started."""

    def __init__(self, weir, stack):
        self.weir, self.stack, self.running = weir, stack, {}
        weir.write("runs", b"")
        os.chmod(os.path.join(weir.dir, "runs"), 0o666)
        self.script = weir.write("server.pl", PERL.replace("DIR", weir.dir))

    def path(self, name):
        return os.path.join(self.weir.run_dir, f"keep-{name}.sock")

    def start(self, *names, workers=4):
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(self.path(name))
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self.path(name))
                os.chmod(self.path(name), 0o777)
                listener.listen(50)
                self.running[name] = [subprocess.Popen([self.script, name], stdin=listener, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(workers)]
            self.stack.callback(self.kill, name)
            wait_for(lambda n=name: subprocess.run([WEIR, "call", "unix:" + self.path(n)], capture_output=True).stdout.endswith(n.encode()))

    def kill(self, name):
        processes = self.running.pop(name, ())
        for p in processes:
            p.kill()
        for p in processes:
            p.wait()

    def runs(self):
        with open(os.path.join(self.weir.dir, "runs")) as f:
            return [r for r in f.read().split() if r != "/"]  # without those that asked whether it is there


@contextlib.contextmanager
def farm(pool, *names, site="", start=True, **kw):
    text = f"site a {{ listen http://127.0.0.1:PORT; root public; pool app; {site} }}\npool app {{ {pool} }}\n"
    with contextlib.ExitStack() as stack:
        w = stack.enter_context(Weir(text, **kw))
        servers = Servers(w, stack)
        if start:
            servers.start(*names)
        yield w, servers


def connect(*names, more=""):
    return "; ".join(f"connect unix:DIR/run/keep-{n}.sock {{ workers 4; {more} }}" for n in names)


def states(w):
    return {s["address"].rsplit("keep-")[1][:-5]: s for s in w.pool("app")["servers"]}


def state_is(w, name, what):
    wait_for(lambda: states(w)[name]["state"] == what)


def count(w, n, path="/x", headers=None):
    seen = {}
    for _ in range(n):
        r = w.get(path, headers=headers)
        assert r.status == 200, r.text
        seen[r.text.decode()] = seen.get(r.text.decode(), 0) + 1
    return seen


@pytest.mark.threads
@pytest.mark.parametrize("keep", ["no", "yes"])
def test_weights_are_kept_one_request_at_a_time(keep):
    with farm(f"connect unix:DIR/run/keep-one.sock {{ weight 3 }}; {connect('two')}; keep {keep}", "one", "two") as (w, _):
        seen = count(w, 800)
        text = w.command("status").stdout
        assert "keep-one.sock up, weight 3" in text
        wait_for(lambda: sum(s["requests"] for s in w.pool("app")["servers"]) == 800)
        # drawn by weight; those that were then too long in coming to accept went to the other one
        drawn = seen["one"] + states(w)["one"]["passed_on"] - states(w)["two"]["passed_on"]
        # 600 expected; the standard deviation is 12.2: seven of them
        assert 514 <= drawn <= 686, (seen, states(w))


def test_least_outstanding_passes_a_server_that_hangs():
    with farm(connect("one", "two"), "one", "two", program="threads 1") as (w, s):
        held = [threading.Thread(target=w.get, args=("/hang?",), kwargs={"timeout": 60}) for _ in range(3)]
        for t in held:
            t.start()
            wait_for(lambda n=held.index(t) + 1: len([r for r in s.runs() if r.startswith("/hang")]) == n)
        wait_for(lambda: sum(v["busy"] for v in states(w).values()) == 3)
        now = states(w)
        chosen = [now[n]["busy"] - now[other]["passed_on"] for n, other in (("one", "two"), ("two", "one"))]
        assert max(chosen) <= 2, now  # never three on one
        s.weir.write("go", b"")
        for t in held:
            t.join()


@pytest.mark.threads
def test_one_of_three_dies_under_load_and_returns():
    """Who was not in flight there notices nothing; nothing runs twice."""
    with farm(connect("one", "two", "three") + "; eject 200ms 1s", "one", "two", "three") as (w, s):
        number, bad, ok, lock, stop = [0], [], [0], threading.Lock(), threading.Event()

        def client():
            while not stop.is_set():
                with lock:
                    number[0] += 1
                    n = number[0]
                try:
                    r = w.get(f"/x?{n}")
                    with lock:
                        if r.status == 200:
                            ok[0] += 1
                        else:
                            bad.append((n, r.status, r.text[-200:]))
                except OSError as e:
                    bad.append((n, repr(e), b""))

        threads = [threading.Thread(target=client) for _ in range(6)]
        for t in threads:
            t.start()
        for _ in range(3):
            at = ok[0]
            wait_for(lambda: ok[0] > at + 100)
            in_flight_at_most = 4
            before = len(bad)
            s.kill("two")
            at = ok[0]
            wait_for(lambda: ok[0] > at + 200)
            assert len(bad) - before <= in_flight_at_most, bad
            state_is(w, "two", "ejected")
            s.start("two")
            was = states(w)["two"]["requests"]
            wait_for(lambda: states(w)["two"]["requests"] > was + 5)
        stop.set()
        for t in threads:
            t.join()
        assert all(status == 502 for _, status, _ in bad), bad
        runs = s.runs()
        assert len(runs) == len(set(runs)), "something ran twice"
        failed = {f"/x?{n}" for n, _, _ in bad}
        assert {f"/x?{n}" for n in range(1, number[0] + 1)} - failed <= set(runs)
        assert "keep-two.sock fails: " in w.log() and "keep-two.sock serves again" in w.log()


def test_a_refused_server_costs_nobody_anything():
    with farm(connect("one", "two"), "one") as (w, _):
        assert count(w, 60) == {"one": 60}
        wait_for(lambda: states(w)["two"]["ejections"] >= 1)
        assert "cannot connect" in states(w)["two"]["problem"]


@pytest.mark.threads
def test_all_down_is_503_with_the_reason_and_ends_soon():
    with farm(connect("one", "two"), "one", "two", start=False) as (w, s):
        r = w.get("/x")
        assert r.status == 503
        wait_for(lambda: "no server of the pool is up" in w.log())
        s.start("two")
        wait_for(lambda: w.get("/x").status == 200)


def test_one_server_alone_is_never_ejected():
    with farm(connect("one"), "one") as (w, s):
        assert w.get("/x").status == 200
        s.kill("one")
        assert w.get("/x").status == 502
        s.start("one")
        wait_for(lambda: w.get("/x").status == 200)
        assert states(w)["one"]["ejections"] == 0


def keys(w, n, header="X-User"):
    found = {}
    for i in range(n):
        r = w.get("/x", headers={header: f"u{i}"})
        assert r.status == 200
        found[i] = r.text.decode()
    return found


@pytest.mark.nosan
def test_a_key_stays_at_its_server_when_another_one_leaves():
    with farm(connect("one", "two", "three") + "; balance hash header X-User; keep yes; slow-start none; eject 100ms 200ms", "one", "two", "three") as (w, s):
        before = keys(w, 60)
        assert len(set(before.values())) == 3
        assert keys(w, 60) == before
        s.kill("two")
        w.get("/x", headers={"X-User": next(f"u{i}" for i, v in before.items() if v == "two")})
        after = keys(w, 60)
        assert all(after[i] == v for i, v in before.items() if v != "two")
        assert set(after.values()) == {"one", "three"}
        s.start("two")
        wait_for(lambda: keys(w, 60) == before)


@pytest.mark.parametrize("key,ask", [
    ("uri", lambda w, i: w.get(f"/x?{i}")),
    ("host", lambda w, i: w.get("/x", host=f"h{i}.test")),
    ("cookie sid", lambda w, i: w.get("/x", headers={"Cookie": f"a=b{i * 7}; sid=s{i}; c=d"})),
    ("client", lambda w, i: w.get("/x")),
])
def test_keys(key, ask):
    with farm(connect("one", "two") + f"; balance hash {key}", "one", "two") as (w, _):
        first = [ask(w, i).text for i in range(40)]
        assert [ask(w, i).text for i in range(40)] == first
        assert len(set(first)) == (1 if key == "client" else 2)


@pytest.mark.nosan
def test_a_request_without_the_key_goes_to_anybody():
    with farm(connect("one", "two") + "; balance hash cookie sid", "one", "two") as (w, _):
        assert set(count(w, 60, headers={"Cookie": "xsid=1; sid"})) == {"one", "two"}


@pytest.mark.nosan
def test_a_backup_serves_only_when_no_other_one_is_up():
    with farm(f"{connect('one', 'two')}; {connect('spare', more='backup yes')}; eject 100ms 200ms", "one", "two", "spare") as (w, s):
        assert set(count(w, 40)) == {"one", "two"}
        s.kill("one")
        assert set(count(w, 40)) == {"two"}
        s.kill("two")
        wait_for(lambda: w.get("/x").text == b"spare")
        assert states(w)["spare"]["backup"]
        s.start("one")
        wait_for(lambda: w.get("/x").text == b"one")
        wait_for(lambda: set(count(w, 10)) == {"one"})


@pytest.mark.threads
def test_a_server_that_ends_requests_without_an_answer_is_ejected():
    """It accepts, and its workers die: three in a row are its own fault, one is not."""
    with farm(connect("one", "two") + "; eject 5s 6s", "one") as (w, s):
        class Bad(UnixServer):
            good = False

            def serve(self, c):
                c.recv(65536)
                if self.good:
                    c.sendall(b"\1\6\0\1\0\37\1\0Content-Type: text/plain\r\n\r\ntwo" + b"\0" + b"\1\3\0\1\0\10\0\0" + bytes(8))
                c.close()
        bad = Bad(s.path("two"))
        lost = 0
        for _ in range(100):
            lost += w.get("/x").status == 502
            if states(w)["two"]["ejections"]:
                break
        assert lost == 3
        wait_for(lambda: "keep-two.sock fails: the application closed the connection" in w.log())
        assert count(w, 10) == {"one": 10}
        bad.good = True
        wait_for(lambda: b"two" == w.get("/x").text)
        state_is(w, "two", "slow start")


def test_a_request_that_was_sent_is_repeated_only_where_that_is_safe():
    with farm(connect("one", "two") + "; eject no", "two", site="route /s/ { retry safe }; route /n/ { retry no }") as (w, s):
        got = []

        class Bad(UnixServer):
            def serve(self, c):
                bytes_in = c.recv(65536)
                if bytes_in:  # else nobody needed the connection any more
                    got.append(bytes_in)
                c.close()
        Bad(s.path("one"))
        assert all(w.get("/s/x").text == b"two" for _ in range(20))
        assert got
        for method, path in (("POST", "/s/x"), ("GET", "/x"), ("GET", "/n/x")):
            got.clear()
            answers = [w.get(path, method=method, body=b"b" if method == "POST" else None).status for _ in range(30)]
            assert set(answers) == {200, 502}
            assert answers.count(502) == len(got), (method, path)


@pytest.mark.threads
def test_thresholds_of_the_check_and_its_word_ends_an_ejection():
    with farm(connect("one", "two") + "; check /x 100ms { fall 3; rise 2 }; eject 30s 60s", "one") as (w, s):
        wait_for(lambda: "keep-two.sock fails its check /x" in w.log())
        state_is(w, "two", "down")
        assert count(w, 10) == {"one": 10}
        s.start("two")
        wait_for(lambda: "keep-two.sock answers its check again" in w.log())
        wait_for(lambda: w.get("/x").text == b"two")
        s.kill("two")
        wait_for(lambda: states(w)["two"]["ejections"] + (states(w)["two"]["state"] == "down") or not count(w, 1))
        s.start("two")
        wait_for(lambda: w.get("/x").text == b"two")  # long before 30 s


@pytest.mark.threads
def test_three_kinds_of_servers_in_one_pool(tmp_path):
    """A libweir app with flow control, a script by libfcgi, php-fpm."""
    conf = tmp_path / "fpm.conf"
    with farm("connect unix:DIR/run/keep-app.sock { flow-control yes }; " + connect("one", "php"), "one", files={"public/x.php": "<?php echo 'php';"}) as (w, s):
        conf.write_text(f"[global]\nerror_log = {tmp_path}/log\n[www]\nuser = weir-demo\nlisten = {s.path('php')}\nlisten.mode = 0666\npm = static\npm.max_children = 4\n")
        with program(["/usr/bin/spawn-fcgi", "-n", "-M", "0666", "-s", s.path("app"), "--", os.path.join(EXAMPLES, "bench_app")], can_connect(s.path("app"))), \
                program(["/usr/sbin/php-fpm8.2", "-F", "-y", str(conf)], can_connect(s.path("php"))):
            seen = set()  # each is asked as soon as it accepts: php-fpm listens before it has workers
            wait_for(lambda: seen.update(k[:5] for k in count(w, 30, "/x.php")) or seen == {"Hello", "one", "php"})
            with Load(w.port, "/x.php", 6) as load:
                wait_for(lambda: load.ok > 1000)
            assert not load.bad, load


@pytest.mark.threads
def test_a_reload_changes_weights_and_servers_without_losing_requests():
    text = connect("one", "two")
    with farm(text + "; keep yes", "one", "two", "three") as (w, _):
        with Load(w.port, "/x", 4) as load:
            for more in ("weight 5", "", "backup yes"):
                at = load.ok
                wait_for(lambda: load.ok > at + 100)
                w.configure("site a { listen http://127.0.0.1:PORT; root public; pool app }\n"
                            f"pool app {{ connect unix:DIR/run/keep-one.sock {{ {more} }}; {connect('three')} }}\n")
                assert w.command("reload").returncode == 0
            at = load.ok
            wait_for(lambda: load.ok > at + 100)
        assert not load.bad, load
        assert set(states(w)) == {"one", "three"}
        assert count(w, 20) == {"three": 20}


def test_what_is_wrong_is_told(tmp_path):
    code, text = check_says("site a { listen http://*:1; pool p }\npool p { connect unix:/a { weight 0 }; balance hash }", str(tmp_path))
    assert code == 1 and 'weight' not in text and '"0" is no count from 1 to 256' in text and "needs a key" in text


@pytest.mark.threads
def test_many_connections_to_a_server_behind_a_full_backlog_do_not_hold_others_up():
    """A server that accepts nothing: who waits for it goes to another one."""
    with farm(connect("one", "two"), "one") as (w, s):
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(s.path("two"))
            os.chmod(s.path("two"), 0o777)
            deaf.listen(50)
            begin = time.monotonic()
            assert count(w, 30) == {"one": 30}
            assert time.monotonic() - begin < 10 * SLOW
            wait_for(lambda: states(w)["two"]["passed_on"] > 0)
