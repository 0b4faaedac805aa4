# SPDX-License-Identifier: MIT
"""Pools with `listen`: one socket on which their processes accept web servers' connections themselves."""
import contextlib
import grp
import os
import signal
import socket
import stat
import struct
import subprocess

import pytest
from clients import Clients
from recorder import BEGIN, PARAMS, STDIN, pair, record
from test_front import Fcgi, get, nginx
from weirlib import BUILD, IS_ROOT, Load, SLOW, USER, Weir, alive, can_connect, check_says, wait_for

pytestmark = pytest.mark.nosan

PERL = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { select(undef, undef, undef, 0.01); print "Content-Type: text/plain\\r\\n\\r\\nperl $$\\n"; }
"""
KINDS = {"php": "php; workers 3;", "libfcgi": "run ./one.pl; processes 3; stop-signal USR1;", "libweir": "run ./threads_app; processes 2;"}


def config(kind, more=""):
    return f"pool app {{ {KINDS[kind]} {USER} listen unix:DIR/run/keep-app.sock mode 0666; {more} }}\n"


def start(kind, more=""):
    import shutil

    def prepare(w):
        shutil.copy(os.path.join(BUILD, "tests/system/apps/threads_app"), w.dir)
        if IS_ROOT:
            os.chown(w.run_dir, 0, 0)
        os.chmod(w.run_dir, 0o1777)
    return Weir(config(kind, more), {"one.pl": PERL, "x.php": "<?php usleep(10000); echo 'php ', getmypid();"}, prepare=prepare)


def front(w, tmp_path):
    return nginx(str(tmp_path), w.run_dir + "/keep-app.sock", keep=False, more=f"fastcgi_param SCRIPT_FILENAME {w.dir}/x.php;")


@pytest.mark.parametrize("kind", KINDS)
def test_nginx_reaches_a_pool_that_restarts_under_load_without_a_loss(kind, tmp_path):
    with start(kind) as w, front(w, tmp_path) as port:
        wait_for(lambda: get(port, "/x").status == 200)
        with Load(port, "/x", 3, keep=False) as load:
            for _ in range(2 if SLOW > 1 else 5):
                before, asked = set(w.pids("app")), load.ok
                assert w.command("restart", "app").returncode == 0
                wait_for(lambda: w.pids("app") and not set(w.pids("app")) & before)
                wait_for(lambda: load.ok > asked + 10)
                wait_for(lambda: not any(alive(p) for p in before))
        assert not load.bad, load


def test_processes_that_end_on_a_shared_socket_take_no_connection_with_them(tmp_path):
    request = (record(BEGIN, 1, struct.pack("!HB5x", 1, 0)) + record(PARAMS, 1, pair(b"PATH_INFO", b"/x")) + record(PARAMS, 1) +
               record(STDIN, 1))
    answered, lost = [], []

    def client():
        while not clients.stop.is_set():
            try:
                app = Fcgi(path)
                app.send(request)  # in one piece: an answer closes the connection
                answered.append(app.end_of(1)[2])
                app.s.close()
            except (OSError, EOFError) as e:
                lost.append(repr(e))
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as ends:
        listener.bind(path)
        listener.listen(511)

        def new():
            p = subprocess.Popen([os.path.join(BUILD, "tests/system/apps/threads_app")], stdin=listener.fileno())
            ends.callback(p.wait)
            ends.callback(p.kill)
            return p
        apps = [new() for _ in range(3)]
        clients = Clients(*[client] * 4)
        with clients:
            for _ in range(20 if SLOW > 1 else 300):
                before = len(answered)
                apps.append(new())
                wait_for(lambda: len(answered) > before + 20 or lost)
                old = apps.pop(0)
                old.terminate()
                assert old.wait(20 * SLOW) in (0, -signal.SIGTERM)  # that early it has accepted nobody
    assert not lost and set(answered) == {(0, 0)}, (lost, set(answered))


def test_the_socket_has_its_rights_and_outlives_control_and_goes_with_the_pool(tmp_path):
    with start("libfcgi") as w:
        path = w.run_dir + "/keep-app.sock"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        w.configure(config("libfcgi").replace("mode 0666", "group www-data mode 0660 backlog 7") if IS_ROOT else config("libfcgi").replace("0666", "0600"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: stat.S_IMODE(os.stat(path).st_mode) == (0o660 if IS_ROOT else 0o600))
        if IS_ROOT:
            assert grp.getgrgid(os.stat(path).st_gid).gr_name == "www-data"
        before, inode = w.pids("app"), os.stat(path).st_ino
        os.kill(w.status()["control_pid"], signal.SIGKILL)
        wait_for(lambda: w.status())
        assert w.pids("app") == before and os.stat(path).st_ino == inode
        assert w.command("stop", "app").returncode == 0
        wait_for(lambda: not any(alive(p) for p in before))
        assert not can_connect(path)() and not os.path.exists(path)
        assert w.command("restart", "app").returncode == 0
        wait_for(lambda: len(w.pids("app")) == 3 and can_connect(path)())
        w.configure("")
        assert w.command("reload").returncode == 0
        wait_for(lambda: not os.path.exists(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_whose_name_was_removed_is_made_anew_and_processes_move_to_it(kind, tmp_path):
    with start(kind) as w, front(w, tmp_path) as port:
        path = w.run_dir + "/keep-app.sock"
        for how in ("reload", "control"):
            before = w.pids("app")
            os.unlink(path)
            if how == "reload":
                assert w.command("reload").returncode == 0
            else:
                control = w.status()["control_pid"]
                os.kill(control, signal.SIGKILL)
                wait_for(lambda: (w.status() or {"control_pid": control})["control_pid"] != control)
            wait_for(lambda: w.pids("app") and not set(w.pids("app")) & set(before))
            wait_for(lambda: not any(alive(p) for p in before))
            assert all(get(port, "/x").status == 200 for _ in range(5))


def test_a_path_that_is_taken_stops_the_pool_alone():
    with start("libfcgi") as w:
        other = w.run_dir + "/keep-other.sock"
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(other)
            s.listen(1)
            w.configure(config("libfcgi") + f"pool other {{ run ./one.pl; {USER} listen unix:{other} }}\n")
            assert w.command("reload").returncode == 0
            wait_for(lambda: "another program answers there" in (w.pool("other") or {}).get("problem", ""))
            assert len(w.pids("app")) == 3
        os.unlink(other)
        wait_for(lambda: len(w.pids("other")) == 1)


@pytest.mark.parametrize("text,expected", [
    ("pool a { run ./x; processes 1..3; listen unix:/run/a }", "are a fixed number"),
    ("pool a { connect unix:/x; listen unix:/run/a }", "has no socket of ours"),
    ("pool a { run ./x; listen unix:/run/a owner root }", "is not known here"),
    ("pool a { run ./x; listen tcp:1 }", "is no address for a pool"),
    ("pool a { run ./x; listen unix:/run/a }\npool b { run ./x; listen unix:/run/a }", "is defined twice"),
    ("pool a { run ./x; listen unix:/run/a }\nsite s { listen http://*:1; pool a }", "shares its socket with other web servers"),
    ("pool a { run ./x; stop-signal KILL }", "is no signal for the end"),
    ("pool a { run ./x; ready /y; listen unix:/run/a }", "cannot be told"),
])
def test_what_it_cannot_be_is_told(text, expected, tmp_path):
    status, said = check_says(text, tmp_path)
    assert status != 0 and expected in said, said
