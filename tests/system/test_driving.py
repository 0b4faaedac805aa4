# SPDX-License-Identifier: MIT
"""Driving it: what people order while it runs, what of it lasts, and who may order it."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest
from weirlib import EXAMPLES, IS_ROOT, RECORDER, SLOW, USER, WEIR, Weir, alive, free_port, wait_for

CONFIG = f"""
site a.test {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool demo }} }}
site b.test www.b.test {{ listen http://127.0.0.1:PORT; route /app/ {{ pool demo }}; route / {{ pool more }} }}
pool demo {{ run ./demo; {USER} processes 1 }}
pool more {{ run ./hello; {USER} processes 1 }}
"""


@pytest.fixture
def weir():
    with Weir(CONFIG, {"public/index.html": "<p>here</p>"}) as w:
        yield w


def kill_control(weir):
    """Returns when another one has taken over and the gateway hears it."""
    control = weir.status()["control_pid"]
    os.kill(control, signal.SIGKILL)
    wait_for(lambda: (weir.status() or {"control_pid": control})["control_pid"] != control and weir.gateway())


@pytest.mark.nosan
def test_how_pools_are_driven_outlives_a_killed_control_and_ends_with_a_reload(weir):
    assert weir.command("stop", "more").returncode == 0 and weir.command("scale", "demo", "2").returncode == 0
    wait_for(lambda: len(weir.pids("demo")) == 2 and not weir.pool("more")["processes"])
    demo = weir.pids("demo")
    kill_control(weir)
    assert weir.pids("demo") == demo and not weir.pool("more")["processes"]
    assert weir.pool("more")["stopped"] and weir.pool("demo")["scaled"] == "2"
    wait_for(lambda: weir.get("/", host="b.test").status == 503)
    kill_control(weir)
    assert weir.pool("more")["stopped"] and weir.pool("demo")["scaled"] == "2"
    text = weir.command("status").stdout
    assert "stopped until a restart or reload" in text and "scaled to 2 until a reload" in text
    assert weir.command("reload").returncode == 0
    wait_for(lambda: len(weir.pids("demo")) == 1 and weir.pids("more"))
    kill_control(weir)
    assert len(weir.pids("demo")) == 1 and weir.pids("more") and "stopped" not in weir.pool("more")


@pytest.mark.nosan
def test_a_control_that_begins_reads_no_gateway_before_it_has_its_configuration():
    many = "".join(f"pool far{i} {{ connect fastcgi://127.0.0.1:9 }}\n" for i in range(400))  # it takes its time
    with Weir(CONFIG + many, {"public/index.html": "<p>here</p>"}) as w:
        assert w.command("stop", "more").returncode == 0
        wait_for(lambda: not w.pool("more")["processes"])
        for _ in range(3):
            kill_control(w)
        assert w.log().count("control ended (signal") == 3 and w.pool("more")["stopped"]


@pytest.mark.nosan
def test_a_restart_undoes_a_drain_also_for_the_next_control(weir):
    pid = weir.pids("more")[0]
    assert weir.command("drain", "more").returncode == 0
    wait_for(lambda: not alive(pid))
    assert weir.command("restart", "more").returncode == 0
    wait_for(lambda: weir.pids("more"))
    kill_control(weir)
    assert weir.pids("more") and "stopped" not in weir.pool("more")


def restart_all(weir):
    """Ends it as Ctrl-C does, and starts it again."""
    weir.process.send_signal(signal.SIGINT)
    assert weir.process.wait(20 * SLOW) == 0
    weir.process = subprocess.Popen([WEIR, "serve", "-c", weir.config], stdout=open(weir.log_path, "wb"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                    start_new_session=True)
    wait_for(lambda: "ready. Ctrl-C" in weir.log() or weir.process.poll() is not None)


@pytest.mark.nosan
def test_a_suspended_site_answers_503_until_it_is_resumed_over_restarts_of_everything(weir):
    pids = weir.pids("demo")
    assert weir.get("/").text == b"<p>here</p>"
    r = weir.command("suspend", "a.test", "--message", "Back at <noon> & later")
    assert r.returncode == 0 and "forgotten" not in r.stdout, r
    try:
        a = wait_for(lambda: (lambda r: r if r.status == 503 else None)(weir.get("/app/hello")))
        assert b"This site is suspended" in a.text and b"Back at &lt;noon&gt; &amp; later" in a.text and a.getheader("Retry-After") == "3600"
        assert weir.get("/", method="POST", body="x" * 10).status == 503
        assert weir.get("/app/hello", host="www.b.test").status == 200 and weir.pids("demo") == pids
        assert weir.status()["suspended"] == [{"site": "a.test", "by": "order", "configured": True}]
        assert weir.command("suspend", "a.test", "--message", "x" * 40000).returncode == 1 and weir.get("/").status == 503
        assert weir.command("reload").returncode == 0
        assert weir.get("/").status == 503
        kill_control(weir)
        assert weir.get("/").status == 503
        old = weir.gateway()
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: weir.gateway() not in (None, old))
        assert weir.get("/").status == 503
        restart_all(weir)
        assert weir.get("/").status == 503 and b"Back at" in weir.get("/").text
        assert "site a.test: suspended by an order" in weir.command("status").stdout
        weir.write("page.html", "<h1>Mine: \u00e4</h1>")
        assert weir.command("suspend", "WWW.b.test", "--page", weir.dir + "/page.html").returncode == 0
        wait_for(lambda: weir.get("/", host="b.test").text == "<h1>Mine: \u00e4</h1>".encode())
    finally:
        assert weir.command("resume", "a.test").returncode == 0
        weir.command("resume", "b.test")
    wait_for(lambda: weir.get("/").status == 200 and weir.get("/app/hello", host="b.test").status == 200)
    assert weir.command("resume", "a.test").returncode == 1 and "there is no site" in weir.command("suspend", "c.test").stderr


@pytest.mark.nosan
def test_a_request_that_runs_when_its_site_is_suspended_goes_on(weir):
    with weir.connect() as s:
        s.sendall(b"POST /app/hello HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 100")
        s.sendall(b"half!")
        assert weir.command("suspend", "a.test").returncode == 0
        wait_for(lambda: weir.get("/").status == 503)
        s.sendall(b"other")
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    assert weir.command("resume", "a.test").returncode == 0


@pytest.mark.nosan
def test_the_configuration_suspends_a_site_with_a_text_or_a_page(weir):
    weir.write("away.html", "<h1>Away</h1>")
    weir.configure(CONFIG.replace("root public;", 'root public; suspended "Please call us.";').replace("www.b.test {", "www.b.test { suspended ./away.html;"))
    assert weir.command("reload").returncode == 0
    wait_for(lambda: b"Please call us." in weir.get("/").text and weir.get("/", host="b.test").text == b"<h1>Away</h1>")
    assert "by its configuration" in weir.command("resume", "a.test").stderr
    assert "suspended by its configuration" in weir.command("status").stdout
    os.unlink(weir.dir + "/away.html")
    assert weir.command("reload").returncode == 0
    wait_for(lambda: b"This site is suspended" in weir.get("/", host="b.test").text)
    assert "cannot be read" in weir.log()


def test_a_state_file_that_is_none_stops_nobody():
    with Weir(CONFIG, {"public/index.html": "x"}) as w:
        assert w.command("suspend", "a.test").returncode == 0
        folder = f"/var/lib/weir/state-weir" if IS_ROOT else os.path.expanduser("~/.local/state/weir")
        name = next(os.path.join(folder, f) for f in os.listdir(folder) if os.path.basename(w.dir) in f)
        for bad in (b"", b"{", b"[1]", b'{"suspended": 3}', b'{"suspended": [3, {"site": 1}, {"site": "", "text": "x"}, {"site": "a.test"}]}', b"\xff" * 100):
            with open(name, "wb") as f:
                f.write(bad)
            restart_all(w)
            assert w.get("/").status == 200, bad
        assert w.command("suspend", "a.test").returncode == 0 and w.command("resume", "a.test").returncode == 0
        assert not os.path.exists(name)


# ---- addresses ----

def refused(weir, source="127.0.0.1"):
    """A connection from there is closed without an answer."""
    with socket.socket() as s:
        s.settimeout(20 * SLOW)
        s.bind((source, 0))
        s.connect(("127.0.0.1", weir.port))
        try:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            return s.recv(100) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True


def test_a_denied_address_is_closed_at_once_and_open_connections_are_refused(weir):
    c = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=20 * SLOW)
    c.request("GET", "/")
    assert c.getresponse().read() == b"<p>here</p>"
    assert weir.command("deny", "127.0.0.1").returncode == 0
    wait_for(lambda: refused(weir))
    assert not refused(weir, "127.0.0.2")
    c.request("GET", "/")
    r = c.getresponse()
    assert r.status == 403 and r.getheader("Connection") == "close"
    kill_control(weir)
    assert refused(weir)
    assert weir.command("reload").returncode == 0
    old = weir.gateway()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: weir.gateway() not in (None, old))
    assert refused(weir)
    assert weir.command("allow", "127.0.0.1").returncode == 0
    wait_for(lambda: not refused(weir))
    assert "is not denied" in weir.command("allow", "127.0.0.1").stderr


def test_networks_times_and_the_list_of_what_is_denied(weir):
    assert weir.command("deny", "127.0.1.77/24", "--for", "1h").returncode == 0
    assert weir.command("deny", "2001:db8::/32", "--for", "1h").returncode == 0
    for bad in ("0.0.0.0/0", "::/0", "127.0.0.1/33", "nobody", "1.2.3.4/", "::ffff:0:0/96"):
        assert weir.command("deny", bad).returncode == 1, bad
    assert weir.command("deny", "1.2.3.4", "--for", "soon").returncode == 2
    assert refused(weir, "127.0.1.1") and refused(weir, "127.0.1.254") and not refused(weir, "127.0.2.1")
    text = weir.command("deny", "--list").stdout
    assert "127.0.1.0/24" in text and "2001:db8::/32" in text and "s left" in text
    assert "still" not in weir.command("allow", "127.0.1.5").stderr and "denied by 127.0.1.0/24" in weir.command("allow", "127.0.1.5").stderr
    assert weir.command("allow", "127.0.1.0/24").returncode == 0
    wait_for(lambda: not refused(weir, "127.0.1.1"))
    assert weir.command("deny", "127.0.4.0/24", "--for", "1s").returncode == 0
    wait_for(lambda: weir.status()["denied"] == 1 and not refused(weir, "127.0.4.1"))
    kill_control(weir)
    assert [o["address"] for o in json.loads(weir.command("deny", "--list", "--json").stdout)["denied"]] == ["2001:db8::/32"]
    assert weir.status()["denied"] == 1


def test_a_deny_file_is_read_again_when_it_changes_and_bad_lines_are_skipped():
    with Weir(CONFIG, {"public/index.html": "x", "deny.txt": "# nobody yet\n"}, program="threads 2; deny-file DIR/deny.txt") as w:
        assert not refused(w, "127.0.0.9")
        with open(w.dir + "/deny.txt", "a") as f:
            f.write("127.0.0.9   # a guest\nnot an address\n127.0.3.0/24\n\xff\x00\n")
        wait_for(lambda: refused(w, "127.0.0.9") and refused(w, "127.0.3.200"))
        wait_for(lambda: ":3:" in w.log() and "the line is skipped" in w.log())
        assert not refused(w)
        w.write("next.txt", "127.0.0.10\n")
        os.rename(w.dir + "/next.txt", w.dir + "/deny.txt")
        wait_for(lambda: refused(w, "127.0.0.10") and not refused(w, "127.0.0.9"))
        w.write("deny.txt", "127.0.0.11\n" * 900000)
        wait_for(lambda: "stay denied" in w.log())
        assert refused(w, "127.0.0.10")
        kill_control(w)
        w.write("deny.txt", "\n".join(f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(70000)))
        wait_for(lambda: w.status()["denied"] == 65536)
        assert "4464 addresses are beyond" in w.log()
        os.unlink(w.dir + "/deny.txt")
        w.write("deny.txt", "127.0.0.12\n")
        wait_for(lambda: refused(w, "127.0.0.12") and not refused(w, "127.0.0.10"))


def test_orders_and_the_output_of_apps_outlive_an_upgrade():
    with with_logs(f"pool demo {{ run ./talk.py; {USER} }}\npool more {{ run ./hello; {USER} }}", "log off; app-log DIR/logs/apps") as w:
        assert w.command("stop", "more").returncode == 0 and w.command("deny", "127.0.0.9").returncode == 0 and w.command("suspend", "a.test").returncode == 0
        try:
            demo, control, gateway = w.pids("demo"), w.status()["control_pid"], w.gateway()
            r = w.command("upgrade")
            assert r.returncode == 0, r.stderr
            wait_for(lambda: (w.status() or {"control_pid": control})["control_pid"] != control and w.gateway() not in (None, gateway))
            assert w.pids("demo") == demo and w.pool("more")["stopped"] and not w.pool("more")["processes"]
            assert refused(w, "127.0.0.9") and w.get("/").status == 503
        finally:
            assert w.command("resume", "a.test").returncode == 0
        wait_for(lambda: w.get("/").status == 200)
        w.get("/app/x")
        wait_for(lambda: any("stderr] somebody came" in line for line in lines(w.dir, "logs/apps")))


# ---- files that change ----

def generation(weir, pool):
    return weir.pool(pool)["generation"]


def settled(weir, pool):
    """Its processes of now are the one of its generation of now."""
    p = weir.pool(pool)
    return [(u["state"], u["generation"]) for u in p["processes"]] == [("ready", p["generation"])]


@pytest.mark.nosan
def test_a_pool_restarts_once_when_what_it_watches_changes(weir):
    weir.write("src/one.txt", "1")
    weir.write(".env", "A=1")
    weir.configure(CONFIG.replace("pool demo {", "pool demo { watch src .env;").replace("pool more {", "pool more { watch marker;"))
    assert weir.command("reload").returncode == 0
    wait_for(lambda: weir.status()["configuration"] == 2)
    gen = generation(weir, "demo")

    def changes(name, text="x"):
        nonlocal gen
        old = weir.pids("demo")
        weir.write(name, text)
        wait_for(lambda: settled(weir, "demo") and not set(old) & set(weir.pids("demo")))
        assert generation(weir, "demo") == gen + 1, name
        gen += 1
    for noise in ("src/.one.txt.swp", "src/one.txt~", "src/#one.txt#", "src/__pycache__/a.pyc", "src/4913", "other.txt"):
        weir.write(noise, "x")  # were one of these heard, the next change would be the second restart
    changes("src/one.txt")
    changes(".env")
    for _ in range(3):
        weir.write(".env", "A=2")  # together they are one change, or on a busy machine a few
    wait_for(lambda: gen < generation(weir, "demo") <= gen + 3)
    wait_for(lambda: settled(weir, "demo"))
    gen = generation(weir, "demo")
    weir.write("src/deep/er/two.txt", "2")
    wait_for(lambda: generation(weir, "demo") > gen)
    gen = generation(weir, "demo")
    wait_for(lambda: settled(weir, "demo"))
    gen = generation(weir, "demo")
    changes("src/deep/er/two.txt")
    os.rename(weir.dir + "/src", weir.dir + "/former")
    wait_for(lambda: generation(weir, "demo") > gen)
    weir.write("next/deep/er/two.txt", "3")
    os.rename(weir.dir + "/next", weir.dir + "/src")  # all of it is replaced, as a deployment does
    wait_for(lambda: generation(weir, "demo") > gen + 1)
    gen = generation(weir, "demo")
    wait_for(lambda: settled(weir, "demo"))
    changes("src/deep/er/two.txt")
    assert "its files changed" in weir.log()
    old = weir.pids("demo")
    os.unlink(weir.dir + "/src/deep/er/two.txt")
    wait_for(lambda: weir.pids("demo") and weir.pids("demo") != old)
    assert weir.command("stop", "demo").returncode == 0  # an order outweighs a change
    wait_for(lambda: not weir.pool("demo")["processes"])
    more = weir.pids("more")
    weir.write("src/one.txt", "5")
    weir.write("marker", "5")
    wait_for(lambda: weir.pids("more") and weir.pids("more") != more)
    assert weir.pool("demo")["stopped"] and not weir.pool("demo")["processes"]


@pytest.mark.nosan
def test_serve_with_watch_follows_programs_and_the_configuration():
    with Weir(CONFIG, {"public/index.html": "x"}, args=["--watch"]) as w:
        old = w.pids("demo")
        shutil.copy(w.dir + "/hello", w.dir + "/next")
        os.rename(w.dir + "/next", w.dir + "/demo")
        wait_for(lambda: w.pids("demo") and w.pids("demo") != old)
        more = w.pids("more")
        w.configure(CONFIG.replace("pool demo { run ./demo;", "pool demo { run ./demo; drain 5s;") + f"pool new {{ run ./hello; {USER} }}\n")
        wait_for(lambda: w.pids("new"))
        w.configure(CONFIG + "nonsense\n")
        wait_for(lambda: "nonsense" in w.log() and "stays in use" in w.log())
        assert w.pids("more") == more


@pytest.mark.nosan
def test_a_served_folder_with_watch_takes_apps_that_come_and_go():
    with tempfile.TemporaryDirectory(prefix="weir-dir-", dir="/tmp") as d:
        os.chmod(d, 0o755)
        port, log = free_port(), d + ".log"
        with open(log, "wb") as out:
            p = subprocess.Popen([WEIR, "serve", d, "--watch", "--listen", f"http://127.0.0.1:{port}"], stdout=out, stderr=out, start_new_session=True)

        def get(path):
            with contextlib.suppress(OSError, http.client.HTTPException):
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * SLOW)
                c.request("GET", path)
                r = c.getresponse()
                return r.status, r.read()
            return 0, b""
        try:
            wait_for(lambda: "ready. Ctrl-C" in open(log).read() or p.poll() is not None)
            assert get("/app/hello")[0] == 404
            shutil.copy(os.path.join(EXAMPLES, "demo"), d + "/app.fcgi")
            wait_for(lambda: get("/app/hello")[0] == 200)
            first = get("/app/hello")
            shutil.copy(os.path.join(EXAMPLES, "hello"), d + "/next")
            os.rename(d + "/next", d + "/app.fcgi")
            wait_for(lambda: get("/app/hello")[0] == 200 and get("/app/hello") != first)
            os.unlink(d + "/app.fcgi")
            wait_for(lambda: get("/app/hello")[0] == 404)
        finally:
            p.send_signal(signal.SIGINT)
            assert p.wait(20 * SLOW) == 0
            os.unlink(log)


# ---- roles ----

ROLES = f"""
weir {{ log off; threads 2; temp DIR/run; control DIR/run/control.sock {{ read %mail @pool-owner; operate daemon; admin bin }} }}
{CONFIG}
pool theirs {{ run ./hello; user nobody }}
"""


def ask_as(weir, user, *args):
    return subprocess.run([WEIR, args[0], "--socket", weir.socket, *args[1:]], capture_output=True, text=True, timeout=60, user=user, group=user if user != "nobody" else "nogroup",
                          extra_groups=[])


def set_roles(weir, text):
    with open(weir.config, "w") as f:
        f.write(text.replace("PORT", str(weir.port)).replace("DIR", weir.dir))
    return weir.command("reload")


@pytest.mark.nosan
@pytest.mark.skipif(not IS_ROOT, reason="becomes other users")
def test_roles_tell_who_may_see_and_order_what(weir):
    assert os.stat(weir.socket).st_mode & 0o777 == 0o600
    assert ask_as(weir, "daemon", "status").returncode == 1
    assert set_roles(weir, ROLES).returncode == 0
    wait_for(lambda: weir.pids("theirs"))
    assert os.stat(weir.socket).st_mode & 0o777 == 0o666

    def may(user, *args):
        r = ask_as(weir, user, *args)
        assert r.returncode in (0, 1), r
        assert r.returncode == 0 or "you may not do that" in r.stderr or "of yours" in r.stderr, r.stderr
        return r.returncode == 0
    # who has none, and the gateway's user, though somebody names it
    assert not may("games", "status") and not may("weir-gw", "status")
    # read, by a group
    assert may("mail", "status") and may("mail", "deny", "--list")
    for order in (("restart", "demo"), ("stop", "demo"), ("scale", "demo", "2"), ("deny", "1.2.3.4"), ("allow", "1.2.3.4"), ("suspend", "a.test"), ("resume", "a.test"), ("reload",)):
        assert not may("mail", *order), order
    # operate
    assert may("daemon", "scale", "demo", "2") and may("daemon", "deny", "1.2.3.4") and may("daemon", "allow", "1.2.3.4") and may("daemon", "restart", "theirs")
    assert not may("daemon", "reload") and not may("daemon", "restart", "gateway")
    # an owner sees his own pools
    seen = json.loads(ask_as(weir, "nobody", "status", "--json").stdout)
    assert [p["name"] for p in seen["pools"]] == ["theirs"] and "gateway" not in seen and "listen" not in seen
    assert "pool theirs" in ask_as(weir, "nobody", "status").stdout
    assert not may("nobody", "stop", "theirs") and not may("nobody", "deny", "--list")
    # admin
    assert may("bin", "reload") and may("bin", "restart", "gateway")
    # and drives them, where that is said
    assert set_roles(weir, ROLES.replace("operate daemon", "operate @pool-owner; # daemon").replace("; # daemon; admin bin }", "; admin bin weir-gw }")).returncode == 0
    assert not may("daemon", "status") and not may("weir-gw", "status")
    assert may("nobody", "stop", "theirs") and weir.pool("theirs")["stopped"] and may("nobody", "restart", "theirs")
    for order in (("stop", "demo"), ("restart", "gateway"), ("restart", "nothing")):
        assert not may("nobody", *order), order
    weir.configure(CONFIG)
    assert weir.command("reload").returncode == 0 and os.stat(weir.socket).st_mode & 0o777 == 0o600


@pytest.mark.nosan
@pytest.mark.skipif(not IS_ROOT, reason="becomes other users")
def test_people_who_only_connect_do_not_keep_an_admin_away(weir):
    assert set_roles(weir, ROLES).returncode == 0
    hang = ("import socket, sys\nkept = []\nfor i in range(80):\n s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); kept.append(s)\n"
            "print(sum(1 for s in kept[70:] if s.recv(100)), flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(["/usr/bin/python3", "-c", hang, weir.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user="daemon", group="daemon",
                          extra_groups=[]) as p:
        assert int(p.stdout.readline()) == 10
        assert weir.status() and "too many others ask" in ask_as(weir, "daemon", "status").stderr
        p.stdin.close()
        assert p.wait(20 * SLOW) == 0
    wait_for(lambda: ask_as(weir, "daemon", "status").returncode == 0)


def test_mistakes_in_roles_are_told(weir):
    for bad, text in (("admin @pool-owner", "cannot be admin"), ("read @others", "names nobody"), ("operate %", "names nobody")):
        r = set_roles(weir, ROLES.replace("admin bin", bad) if "admin" in bad else ROLES.replace("admin bin", "admin bin").replace("read %mail @pool-owner", bad)
                      if bad.startswith("read") else ROLES.replace("operate daemon", bad))
        assert r.returncode == 1 and text in r.stderr, r.stderr
    assert set_roles(weir, ROLES.replace("read %mail", "read adm")).returncode == 0
    assert "there is no user adm: write %adm for the group" in weir.log()


# ---- logs ----

TALKER = """#!/usr/bin/python3
import os, socket, sys
out, err = os.fdopen(1, "wb", 0), os.fdopen(2, "wb", 0)
s = socket.socket(fileno=0)
s.setblocking(True)
out.write(b'begin \\xc3\\xa4 "quoted" \\\\ \\x1b[31m \\xff\\n')
err.write(b"to stderr\\n")
out.write(b"x" * 5000 + b"\\n")
for name in sys.argv[1:]:
    n = 0
    while n < int(name):
        out.write(b"".join(b"line %d\\n" % i for i in range(n, n + 1000)))
        n += 1000
out.write(b"end\\n")
while True:
    c, _ = s.accept()
    err.write(b"somebody came\\n")
    c.close()
"""


def with_logs(pools, words, **kw):
    w = Weir(f"site a.test {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool demo }} }}\n{pools}", {"public/index.html": "x", "talk.py": TALKER, "logs/keep": ""},
             program="threads 2", wait=False, **kw)
    w.process.kill()
    w.process.wait()
    os.chmod(w.dir + "/logs", 0o777)
    with open(w.config) as f:
        text = f.read()
    with open(w.config, "w") as f:
        f.write(text.replace("log off;", words.replace("DIR", w.dir) + ";"))
    w.process = subprocess.Popen([WEIR, "serve", "-c", w.config], stdout=open(w.log_path, "wb"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: "ready. Ctrl-C" in w.log() or w.process.poll() is not None)
    return w


def lines(path, *more):
    with contextlib.suppress(OSError):
        with open(os.path.join(path, *more), "rb") as f:
            return f.read().decode().splitlines()
    return []


def test_the_access_log_as_json_is_valid_whatever_a_client_sends():
    with with_logs(f"pool demo {{ run ./demo; {USER} }}", "log DIR/logs/access json") as w:
        w.raw(b'GET /app/hello?q="\\%ff HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff"\\\xc3\xa4\x9b\tx\r\nReferer: http://b/\r\nConnection: close\r\n\r\n')
        w.raw(b"GET /" + b'"' * 3000 + b" HTTP/1.1\r\nHost: a.test\r\nUser-Agent: " + b"\xfe" * 3000 + b"\r\nConnection: close\r\n\r\n")
        w.raw(b"nonsense\r\n\r\n")
        got = [json.loads(line) for line in wait_for(lambda: (lambda g: g if len(g) >= 3 else None)(lines(w.dir, "logs/access")))]
        one = next(g for g in got if g.get("target", "").startswith("/app/hello"))
        assert one["status"] == 200 and one["pool"] == "demo" and one["site"] == "a.test" and one["address"] == "127.0.0.1" and one["us"] >= 0 and one["host"] == "a.test"
        assert one["agent"] == '\\xff"\\\u00e4\\x9b\tx' and one["referer"] == "http://b/" and one["method"] == "GET" and one["bytes"] > 0 and one["time"].endswith("Z")
        assert [g for g in got if g["status"] == 400 and "target" not in g and g["why"]]


@pytest.mark.parametrize("how", ["signal", "order"])
def test_log_files_are_opened_anew_and_no_line_is_lost(how):
    with with_logs(f"pool demo {{ run ./talk.py; {USER} }}", "log DIR/logs/access; app-log DIR/logs/apps") as w:
        logs = w.dir + "/logs"
        for n in range(3):
            assert w.get(f"/?{n}").status == 200
            wait_for(lambda: any(f"/?{n} " in line for line in lines(logs, "access")))
            for name in ("access", "apps"):
                os.rename(f"{logs}/{name}", f"{logs}/{name}.{n}")
            if how == "signal":
                w.process.send_signal(signal.SIGUSR2)  # means nothing
                w.process.send_signal(signal.SIGUSR1)
            else:
                assert w.command("reopen").returncode == 0
            wait_for(lambda: os.path.exists(f"{logs}/access") and os.path.exists(f"{logs}/apps"))
        assert w.get("/?last").status == 200
        wait_for(lambda: any("/?last " in line for line in lines(logs, "access")))
        w.get("/app/x")
        wait_for(lambda: any("somebody came" in line for line in lines(logs, "apps")))
        assert w.process.poll() is None and w.status()["gateway"]["restarts"] == 0
        seen = [line for f in os.listdir(logs) if f.startswith("access") for line in lines(logs, f)]
        assert sum("/?" in line for line in seen) == 4


def test_a_reload_moves_the_logs_to_other_files_and_back():
    with with_logs(f"pool demo {{ run ./talk.py; {USER} }}", "log off; app-log DIR/logs/apps") as w:
        wait_for(lambda: any(line.endswith("end") for line in lines(w.dir, "logs/apps")))
        with open(w.config) as f:
            first = f.read()
        w.write("weir.conf", first.replace("log off; app-log " + w.dir + "/logs/apps;", f"log {w.dir}/logs/a json; app-log {w.dir}/logs/b json;"))
        assert w.command("reload").returncode == 0

        def told(name, word):
            w.get("/app/x")
            return any(word in line for line in lines(w.dir, "logs/" + name))
        wait_for(lambda: told("a", '"status":') and told("b", '"line":"somebody came"'))
        before = len(lines(w.dir, "logs/apps"))
        w.write("weir.conf", first)
        assert w.command("reload").returncode == 0
        wait_for(lambda: told("apps", "somebody came") and len(lines(w.dir, "logs/apps")) > before)


def test_lines_of_apps_are_kept_as_they_are_with_time_pool_pid_and_stream():
    with with_logs(f"pool demo {{ run ./talk.py; {USER} }}", "log off; app-log DIR/logs/apps json") as w:
        def said():
            return [json.loads(line) for line in lines(w.dir, "logs/apps")]
        wait_for(lambda: any(o["line"] == "end" for o in said()) and any(o["stream"] == "stderr" for o in said()))
        pid = w.pids("demo")[0]
        out = [o for o in said() if o["stream"] == "stdout"]
        assert all(o["pool"] == "demo" and o["pid"] == pid and o["time"].endswith("Z") for o in out)
        assert out[0]["line"] == 'begin \u00e4 "quoted" \\ \x1b[31m \\xff'
        assert [(len(o["line"]), o.get("goes_on")) for o in out[1:3]] == [(4096, True), (904, None)]
        assert any(o["line"] == "to stderr" and o["pid"] == pid for o in said())
        kill_control(w)
        w.get("/app/x")  # what it says then comes by the pipe that the root part kept
        wait_for(lambda: any(o["line"] == "somebody came" and o["stream"] == "stderr" and o["pid"] == pid for o in said()))
        assert "to stderr" not in w.log()


@pytest.mark.nosan
def test_a_pool_that_floods_is_cut_and_the_others_are_heard():
    with with_logs(f"pool demo {{ run ./talk.py; {USER} }}\npool flood {{ run ./talk.py 300000; {USER} log-rate 500 }}\npool free {{ run ./talk.py 5000; {USER} log-rate 0 }}",
                   "log off; app-log DIR/logs/apps") as w:
        wait_for(lambda: "pool flood" in w.log() and "lines of its output were dropped" in w.log())
        wait_for(lambda: sum(" [free " in line and "line " in line for line in lines(w.dir, "logs/apps")) == 5000)
        assert any(" [demo " in line and line.endswith("stdout] end") for line in lines(w.dir, "logs/apps"))
        flood = [line for line in lines(w.dir, "logs/apps") if " [flood " in line]
        assert 400 <= sum("] line" in line for line in flood) < 100000 and wait_for(lambda: any("weir] " in line and "were dropped" in line for line in lines(w.dir, "logs/apps")))
        assert w.get("/").status == 200


def test_a_long_line_of_a_requests_stderr_comes_in_pieces():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./recorder.py; {USER} }}\n", RECORDER, program="app-log DIR/run/keep-apps json") as w:
        assert w.get("/?err=" + "x" * 6000).status == 200

        def said():
            return [o for o in map(json.loads, lines(w.dir, "run/keep-apps")) if o["stream"] == "request"]
        wait_for(lambda: len(said()) == 2)
        assert [(len(o["line"]), o.get("goes_on")) for o in said()] == [(4096, True), (1904, None)]


def test_the_stderr_of_requests_comes_to_the_app_log_too():
    with with_logs(f"pool demo {{ run ./demo; {USER} }}\npool php {{ php; {USER} log-rate 50 }}", "log off; app-log DIR/logs/apps json") as w:
        with open(w.config) as f:
            text = f.read().replace("root public;", "root public; php php;")
        w.write("weir.conf", text)
        w.write("public/e.php", "<?php for ($i = 0; $i < ($_GET['n'] ?? 1); $i++) error_log('from a request ' . $i); echo 'ok';")
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/e.php").text == b"ok")

        def said():
            return [json.loads(line) for line in lines(w.dir, "logs/apps")]
        wait_for(lambda: any("from a request 0" in o["line"] and o["stream"] == "request" and o["pool"] == "php" and o["pid"] and len(o["id"]) > 8 for o in said()))
        w.get("/e.php?n=3000")
        wait_for(lambda: "were dropped" in w.log())
        assert sum("from a request" in o["line"] for o in said()) < 2000
