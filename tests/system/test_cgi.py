# SPDX-License-Identifier: MIT
"""cgi pools: real CGI programs behind weir-cgi. What they are told, their bodies, their end, and that nothing of them is left."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from weirlib import BUILD, IS_ROOT, SLOW, USER, WEIR, Weir, alive, children, descendants, wait_for

pytestmark = pytest.mark.nosan

RUNNER = os.path.join(BUILD, "src/runner/weir-cgi")

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    debug yes
    route /git/ {{ pool git; body 1G }}
    route /tool/ {{ pool tool; param LD_PRELOAD /evil.so; param ONE two }}
    route /streamed/ {{ pool tool; body {{ max 64M; stream yes }} }}
    route /few/ {{ pool few }}
    route /short/ {{ pool short }}
    route /short/longer/ {{ pool tool }}
    route /gone/ {{ pool gone }}
    route /cgi-bin/private {{ deny }}
    route /cgi-bin/ {{ pool scripts }}
    route *.cgi {{ pool scripts }}
    files
}}
defaults pool {{ {USER} }}
pool git {{
    cgi /usr/lib/git-core/git-http-backend
    env GIT_PROJECT_ROOT DIR/git
    env REMOTE_USER tester
}}
pool tool {{ cgi ./tool one "t w o"; env POOL_SAYS this; workers 8 }}
pool few {{ cgi ./tool; workers 0..2 }}
pool short {{ cgi ./tool; time {{ request 700ms }} }}
pool gone {{ cgi ./gone }}
pool scripts {{ cgi }}
"""

TOOL = r'''#!/usr/bin/python3
import json, os, signal, sys, time
def head(*more):
    os.write(1, ("Content-Type: text/plain\n" + "".join(m + "\n" for m in more) + "\n").encode())
def body():
    out = b""
    while True:
        piece = os.read(0, 65536)
        if not piece:
            return out
        out += piece
def mark(name, text=""):
    with open(name + ".new", "w") as f:
        f.write(text or str(os.getpid()))
    os.rename(name + ".new", name)
def until(name):
    while not os.path.exists(name):
        time.sleep(0.01)
what, _, arg = os.environ.get("PATH_INFO", "/env")[1:].partition("/")
here = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "marks", "")
if what == "env":
    fds = sorted(int(f) for f in os.listdir("/proc/self/fd"))
    status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
    text = json.dumps({"env": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd(), "fds": fds, "pid": os.getpid(), "group": os.getpgid(0),
                       "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16), "body": body().decode()})
    head()
    os.write(1, text.encode())
elif what == "cat":
    head()
    piece = os.read(0, 65536)
    while piece:
        piece = piece[os.write(1, piece):] or os.read(0, 65536)
elif what == "deaf":
    head()
    os.write(1, b"deaf")
elif what == "closes":
    os.close(0)
    mark(here + arg)
    until(here + arg + ".go")
    head()
    os.write(1, b"closed")
elif what == "flood":
    head()
    n = 0
    while n < 1 << 30:
        n += os.write(1, b"x" * 65536)
        mark(here + arg, str(n))
elif what == "hang":
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    mark(here + arg, f"{os.getpid()} {child}")
    time.sleep(1000)
elif what == "stubborn":
    signal.signal(signal.SIGTERM, lambda *a: mark(here + arg + ".term"))
    mark(here + arg)
    while True:
        time.sleep(1000)
elif what == "gate":
    mark(here + arg + "." + str(os.getpid()))
    until(here + arg)
    os.unlink(here + arg + "." + str(os.getpid()))
    head()
    os.write(1, b"through")
elif what == "err":
    head()
    os.write(2, b"first li")
    os.write(2, b"ne of it\nsecond line\nlast without end")
elif what == "daemon":
    head()
    os.write(1, b"parent")
    if os.fork() == 0:
        os.setsid()
        mark(here + arg)
        time.sleep(1000)
elif what == "behind":
    head()
    os.write(1, b"answer")
    os.close(1)
    until(here + arg)
    os.write(2, b"still heard\n")
    mark(here + arg + ".done")
elif what == "exit":
    sys.exit(int(arg))
elif what == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "status":
    head("Status: 418 Teapot", "X-Thing: a")
    os.write(1, b"short and stout")
elif what == "nph":
    os.write(1, b"HTTP/1.1 200 OK\r\n\r\nraw")
'''
CAT = "#!/bin/sh\necho 'Content-Type: application/octet-stream'\necho\nexec cat\n"
SHELL = """#!/bin/sh
echo "Status: 201 Created"
echo "Content-Type: text/plain"
echo
echo "$SCRIPT_NAME|$PATH_INFO|$SCRIPT_FILENAME|$PWD|$#|$(cat)"
"""
FILES = {"tool": TOOL, "gone": "#!/bin/sh\n", "public/cgi-bin/cat": CAT, "public/x.cgi": SHELL, "public/cgi-bin/x": SHELL, "public/cgi-bin/private": SHELL,
         "public/cgi-bin/.git/hook": SHELL, "public/index.php": "<?php echo 'no';", "public/cgi-bin/plain.txt": "text", "public/cgi-bin/lost": "#!/no/such/interpreter\n",
         "public/cgi-bin/odd": b"\x00\x01neither", "public/a.txt": "a file"}


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, FILES, wait=False) as w:
        for name in ("marks", "git"):
            os.mkdir(os.path.join(w.dir, name))
            os.chmod(os.path.join(w.dir, name), 0o777)
        os.chmod(os.path.join(w.public, "cgi-bin/odd"), 0o755)
        os.chmod(os.path.join(w.dir, "public/cgi-bin"), 0o755)
        wait_for(lambda: "ready. Ctrl-C" in w.log() or w.process.poll() is not None, 60)
        assert w.process.poll() is None, w.log()
        yield w
        runners = [p for name in ("git", "tool", "few", "short", "scripts") for p in w.pids(name)]
        wait_for(lambda: not [z for r in runners for z in zombies(r)])


def zombies(parent):
    found = []
    for p in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{int(p)}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent and fields[0] == "Z":
                found.append(int(p))
    return found


def mark(weir, name):
    return os.path.join(weir.dir, "marks", name)


def marked(weir, name):
    with contextlib.suppress(OSError):
        with open(mark(weir, name)) as f:
            return f.read()
    return None


def go(weir, name):
    open(mark(weir, name), "w").close()


def begin(weir, path):
    """A client that has asked, and does not read."""
    s = weir.connect()
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
    return s


def git(*args, cwd=None):
    env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b",
               GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b", GIT_TERMINAL_PROMPT="0")
    r = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, timeout=60 * SLOW, env=env)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_git_clones_and_pushes_through_http_backend(weir, tmp_path):
    repo, work, again = os.path.join(weir.dir, "git/r.git"), str(tmp_path / "work"), str(tmp_path / "again")
    git("init", "--bare", "-b", "main", repo)
    open(os.path.join(repo, "git-daemon-export-ok"), "w").close()
    if IS_ROOT:
        for at, folders, names in os.walk(repo):
            for name in [at] + [os.path.join(at, n) for n in names]:
                shutil.chown(name, "weir-demo", "weir-demo")
    url = f"http://127.0.0.1:{weir.port}/git/r.git"
    git("clone", url, work)
    with open(os.path.join(work, "big"), "wb") as f:
        f.write(os.urandom(3 << 20)) # larger than http.postBuffer: git asks first, then sends it chunked
    git("add", "big", cwd=work)
    git("commit", "-m", "one", cwd=work)
    git("push", "origin", "HEAD:main", cwd=work)
    git("clone", url, again)
    with open(os.path.join(again, "big"), "rb") as a, open(os.path.join(work, "big"), "rb") as b:
        assert a.read() == b.read()


def test_a_program_is_told_the_request_and_the_pools_environment_and_nothing_else(weir):
    """FC1-6.1-g, FC1-6.2-a"""
    r = weir.get("/tool/env/more?a=b&c", method="POST", body="hello", headers={"Proxy": "http://evil", "X-Own": "1", "Content-Type": "text/x"})
    told = json.loads(r.text)
    env = told["env"]
    assert r.status == 200 and told["body"] == "hello"
    assert told["argv"] == [os.path.join(weir.dir, "tool"), "one", "t w o"] and told["cwd"] == weir.dir
    want = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "POST", "SCRIPT_NAME": "/tool", "PATH_INFO": "/env/more", "QUERY_STRING": "a=b&c",
            "CONTENT_LENGTH": "5", "CONTENT_TYPE": "text/x", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_X_OWN": "1", "ONE": "two", "POOL_SAYS": "this",
            "SCRIPT_FILENAME": os.path.join(weir.dir, "tool"), "PATH": "/usr/local/bin:/usr/bin:/bin", "REMOTE_ADDR": "127.0.0.1"}
    assert {k: env.get(k) for k in want} == want
    assert not [k for k in env if k.startswith(("WEIR", "LD_", "FCGI", "NOTIFY")) or k == "HTTP_PROXY"]
    assert set(env) >= {"HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SERVER_SOFTWARE"}


def test_a_program_has_three_descriptors_default_signals_and_a_group_of_its_own(weir):
    told = json.loads(weir.get("/tool/env").text)
    assert told["fds"] == [0, 1, 2, 3] # 3 is its look at /proc
    assert told["blocked"] == 0 and told["ignored"] & ~(1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0 # python's own two
    assert told["group"] == told["pid"]


def test_scripts_below_the_root_are_run_and_nothing_else_of_their_folder_is_served(weir):
    root = weir.public
    r = weir.get("/cgi-bin/x/info?q+r", method="POST", body="body")
    assert r.status == 201 and r.text.decode() == f"/cgi-bin/x|/info|{root}/cgi-bin/x|{root}/cgi-bin|0|body\n"
    r = weir.get("/x.cgi")
    assert r.status == 201 and r.text.decode() == f"/x.cgi||{root}/x.cgi|{root}|0|\n"
    for path, status in {"/cgi-bin/none": 404, "/none.cgi": 404, "/cgi-bin/": 404, "/cgi-bin": 404, "/cgi-bin/plain.txt": 403, "/cgi-bin/.git/hook": 404,
                         "/cgi-bin/private": 403, "/cgi-bin/private/x": 403, "/cgi-bin/x.cgi/../private/x": 403, "/a.txt": 200, "/none": 404}.items():
        assert weir.get(path).status == status, path


@pytest.mark.parametrize("path", ["/cgi-bin/cat", "/streamed/cat", "/tool/cat"])
def test_ten_megabytes_go_in_and_come_out(weir, path):
    data = os.urandom(10 << 20)
    c = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=60 * SLOW)
    c.putrequest("POST", path)
    c.putheader("Content-Length", str(len(data)))
    c.endheaders()
    sender = threading.Thread(target=c.send, args=(data,)) # what comes out is read meanwhile
    sender.start()
    r = c.getresponse()
    assert r.status == 200 and r.read() == data
    sender.join()
    c.close()


@pytest.mark.parametrize("path", ["/tool/deaf", "/streamed/deaf"])
def test_a_program_that_does_not_read_its_body_answers_all_the_same(weir, path):
    r = weir.get(path, method="POST", body=b"x" * (2 << 20))
    assert r.status == 200 and r.text == b"deaf"


def test_a_program_that_closes_its_input_goes_on(weir):
    got = []
    t = threading.Thread(target=lambda: got.append(weir.get("/tool/closes/c1", method="POST", body=b"x" * (4 << 20))))
    t.start()
    wait_for(lambda: marked(weir, "c1"))
    go(weir, "c1.go")
    t.join()
    assert got[0].status == 200 and got[0].text == b"closed"


def test_a_client_that_does_not_read_stops_the_program(weir):
    with begin(weir, "/tool/flood/f1") as s:
        seen = []

        def stands_still():
            seen.append(marked(weir, "f1"))
            return len(seen) > 30 and seen[-1] and len(set(seen[-30:])) == 1
        wait_for(stands_still, every=0.02)
        assert int(seen[-1]) < 64 << 20
        runner = weir.pids("tool")[0]
        with open(f"/proc/{runner}/status") as f:
            assert int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) < (32 << 10) * SLOW * SLOW
        s.recv(1000)
    wait_for(lambda: not children(runner))


def test_the_header_of_a_program_is_its_own(weir):
    """FC1-6.1-h"""
    r = weir.get("/tool/status")
    assert r.status == 418 and r.getheader("X-Thing") == "a" and r.text == b"short and stout"
    r = weir.get("/tool/nph")
    assert r.status == 502 and b"HTTP status line instead of a CGI header" in r.text


def test_lines_of_standard_error_are_in_the_log_whole(weir):
    assert weir.get("/tool/err").status == 200
    for line in ("first line of it", "second line", "last without end"):
        wait_for(lambda: re.search(r"\[tool [^]]*\] " + line + "\n", weir.log()))


def test_a_client_that_leaves_ends_the_whole_group_of_its_program(weir):
    runner = weir.pids("tool")
    with begin(weir, "/tool/hang/h1"):
        pids = [int(p) for p in wait_for(lambda: marked(weir, "h1")).split()]
    wait_for(lambda: not [p for p in pids if alive(p)])
    assert weir.pids("tool") == runner and weir.get("/tool/deaf").status == 200


def test_a_program_that_hears_no_term_is_killed(weir):
    with begin(weir, "/tool/stubborn/s1"):
        pid = int(wait_for(lambda: marked(weir, "s1")))
    wait_for(lambda: marked(weir, "s1.term"))
    wait_for(lambda: not alive(pid))


def test_a_request_that_takes_too_long_is_answered_504_and_its_program_ended(weir):
    runner = weir.pids("short")
    r = weir.get("/short/hang/h2")
    pids = [int(p) for p in marked(weir, "h2").split()]
    assert r.status == 504
    wait_for(lambda: not [p for p in pids if alive(p)])
    wait_for(lambda: "pool short: answered 504, and its program is ended" in weir.log())
    assert weir.pids("short") == runner and weir.get("/short/deaf").status == 200


def test_no_more_programs_run_than_the_pool_has_workers(weir):
    p = weir.pool("few")
    assert p["kind"] == "cgi" and not p["processes"]
    got = []
    clients = [threading.Thread(target=lambda: got.append(weir.get("/few/gate/g1").text)) for _ in range(6)]
    for t in clients:
        t.start()

    def running():
        return [n for n in os.listdir(os.path.join(weir.dir, "marks")) if re.fullmatch(r"g1\.\d+", n)]
    wait_for(lambda: len(running()) == 2 and weir.pool("few")["queued"] == 4)
    assert len(children(weir.pids("few")[0])) == 2
    go(weir, "g1")
    for t in clients:
        t.join()
    assert got == [b"through"] * 6
    p = weir.pool("few")
    assert len(p["processes"]) == 1 and p["processes"][0]["at_once"] == 2 and p["processes"][0]["flow_control"]


@pytest.mark.parametrize("path,status,why", [
    ("/cgi-bin/plain.txt", 403, "plain.txt: it, or its interpreter, is not executable for the pool's user"),
    ("/cgi-bin/lost", 502, "lost: the interpreter in its first line does not exist"),
    ("/cgi-bin/odd", 502, "odd: neither a script with #! in its first line nor a program for this machine")])
def test_a_program_that_cannot_be_started_is_told_with_its_reason(weir, path, status, why):
    assert weir.get(path).status == status
    wait_for(lambda: why in weir.log())


def test_a_program_that_is_gone_answers_502_until_it_is_back(weir):
    path = os.path.join(weir.dir, "gone")
    os.rename(path, path + ".away")
    assert weir.get("/gone/").status == 502
    wait_for(lambda: f"weir-cgi: {path}: No such file" in weir.log())
    weir.write("gone", SHELL)
    assert weir.get("/gone/").status == 201


def test_an_end_without_an_answer_is_502_with_its_reason(weir):
    r = weir.get("/tool/exit/3")
    assert r.status == 502 and b"ended before its header was complete" in r.text
    wait_for(lambda: "tool ended with status 3 and wrote nothing" in weir.log())
    assert weir.get("/tool/crash").status == 502
    wait_for(lambda: "tool was ended by signal 9" in weir.log())


def test_a_daemon_that_a_program_leaves_behind_does_not_keep_the_request(weir):
    before = time.monotonic()
    r = weir.get("/tool/daemon/d1")
    assert r.status == 200 and r.text == b"parent" and time.monotonic() - before < 10 * SLOW
    pid = int(wait_for(lambda: marked(weir, "d1")))
    assert alive(pid) # it ends with the pool: stop() looks for it
    assert pid in descendants(weir.process.pid)


def test_a_program_that_closes_its_output_goes_on_behind_its_answer_and_keeps_its_place(weir):
    answers = [weir.get("/few/behind/b1").text, weir.get("/few/behind/b1").text]
    assert answers == [b"answer"] * 2
    runner = weir.pids("few")[0]
    assert len(children(runner)) == 2
    got = []
    t = threading.Thread(target=lambda: got.append(weir.get("/few/deaf").text))
    t.start()
    wait_for(lambda: weir.pool("few")["processes"][0]["busy"] == 1)
    assert len(children(runner)) == 2 and not got
    go(weir, "b1")
    t.join()
    assert got == [b"deaf"] and marked(weir, "b1.done")
    wait_for(lambda: "still heard" in weir.log())


def test_what_goes_on_behind_its_answer_has_the_time_of_a_request(weir):
    assert weir.get("/short/behind/b2").text == b"answer"
    runner = weir.pids("short")[0]
    wait_for(lambda: not children(runner))
    assert not marked(weir, "b2.done")


def pipes(pid):
    """What it has open but for sockets: the gateway makes as many connections as it likes."""
    found = []
    for f in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{f}").split(":")[0])
    return sorted(f for f in found if f != "socket")


def test_many_at_once_and_clients_that_leave_leave_nothing(weir):
    runner = weir.pids("scripts")[0]
    wait_for(lambda: not children(runner))
    before, got = pipes(runner), []

    def client(i):
        for k in range(8):
            if (i + k) % 3 == 0:
                with begin(weir, "/cgi-bin/x") as s:
                    s.settimeout(0.002 * k or None)
                    with contextlib.suppress(OSError):
                        s.recv(1)
            else:
                got.append(weir.get("/cgi-bin/x").status)
    clients = [threading.Thread(target=client, args=(i,)) for i in range(12)]
    for t in clients:
        t.start()
    for t in clients:
        t.join()
    assert got == [201] * 64
    wait_for(lambda: not children(runner) and not zombies(runner))
    wait_for(lambda: pipes(runner) == before)


@pytest.mark.parametrize("whom", ["gateway", "runner"])
def test_programs_end_with_whom_they_answer_and_with_their_runner(weir, whom):
    with begin(weir, f"/tool/hang/k-{whom}"):
        pids = [int(p) for p in wait_for(lambda: marked(weir, f"k-{whom}")).split()]
        victim = weir.gateway() if whom == "gateway" else weir.pids("tool")[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: not [p for p in pids if alive(p)])
    wait_for(lambda: weir.gateway() not in (None, victim) and weir.pids("tool") not in ([], [victim]))

    def answers():
        with contextlib.suppress(OSError):
            return weir.get("/tool/deaf").status == 200
        return False
    wait_for(answers)


def test_a_reload_keeps_the_runner_and_more_workers_replace_it(weir):
    tool, scripts = weir.pids("tool"), weir.pids("scripts")
    weir.configure(CONFIG.replace("workers 8", "workers 9"))
    assert weir.command("reload").returncode == 0
    wait_for(lambda: weir.pids("tool") and weir.pids("tool") != tool)
    assert weir.pids("scripts") == scripts and weir.get("/tool/deaf").status == 200


def test_check_tells_programs_that_cannot_run_and_scripts_without_a_root(tmp_path):
    (tmp_path / "text").write_text("x")
    user = "user weir-demo;" if IS_ROOT else ""
    conf = tmp_path / "c.conf"
    conf.write_text(f"site a {{ listen http://127.0.0.1:1; pool c }}\npool a {{ cgi ./none; {user} }}\npool b {{ cgi ./text; {user} }}\npool c {{ cgi; {user} }}\n"
                    f"pool d {{ cgi; run /bin/true; {user} }}\npool e {{ cgi; ready notify; {user} }}\n")
    r = subprocess.run([WEIR, "check", str(conf)], capture_output=True, text=True)
    assert r.returncode == 1 and '"run" cannot stand here, too' in r.stderr and "none can say that it is ready" in r.stderr
    conf.write_text(re.sub("pool [de].*\n", "", conf.read_text()))
    r = subprocess.run([WEIR, "check", str(conf)], capture_output=True, text=True)
    assert r.returncode == 1
    for text in (f"there is no program {tmp_path}/none", f"{tmp_path}/text is not executable", "pool c runs what lies below the root, and there is none"):
        assert text in r.stderr


# ---- the runner by itself, for any FastCGI server ----

@contextlib.contextmanager
def runner(tmp_path, *args, env=None):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(10)
        p = subprocess.Popen([RUNNER, *args], stdin=s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True)
    try:
        yield p, "unix:" + path
    finally:
        if p.poll() is None:
            p.terminate()
        out = p.communicate(timeout=20 * SLOW)[0]
    assert p.returncode == 0 and "Sanitizer" not in out and "runtime error" not in out, out


def call(address, *pairs):
    return subprocess.run([WEIR, "call", address, *pairs], capture_output=True, text=True, timeout=60 * SLOW)


def test_only_scripts_below_a_root_are_run_and_no_parameter_reaches_the_loader(tmp_path):
    script, outside = tmp_path / "root/x", tmp_path / "y"
    (tmp_path / "root").mkdir()
    for p in (script, outside):
        p.write_text("#!/bin/sh\necho Content-Type: text/plain\necho\nenv\n")
        p.chmod(0o755)
    with runner(tmp_path, "--root", str(tmp_path / "root"), env={"PATH": "/bin:/usr/bin", "POOL": "says"}) as (_, at):
        r = call(at, f"SCRIPT_FILENAME={script}", "HTTP_PROXY=x", "LD_PRELOAD=/x", "PATH=/evil", "POOL=other", "OWN=1")
        lines = r.stdout.splitlines()
        assert "PATH=/bin:/usr/bin" in lines and "POOL=says" in lines and "OWN=1" in lines and "GATEWAY_INTERFACE=CGI/1.1" in lines, r
        assert "LD_PRELOAD" not in r.stdout and "HTTP_PROXY" not in r.stdout
        evil = ("BASH_FUNC_echo%%=() { printf evil; }", "BASH_ENV=/proc/self/fd/0", "ENV=/x", "PERL5OPT=-Mx", "PYTHONSTARTUP=/x", "NODE_OPTIONS=x", "0X=y", "X-Y=z")
        script.write_text(script.read_text().replace("/bin/sh", "/bin/bash"))
        r = call(at, f"SCRIPT_FILENAME={script}", *evil, "GIT_PROJECT_ROOT=/srv")
        assert "evil" not in r.stdout and "GIT_PROJECT_ROOT=/srv" in r.stdout and not [e for e in evil if e.split("=")[0] + "=" in r.stdout], r
        for path in (outside, tmp_path / "root/../y", tmp_path / "root", "/bin/sh"):
            assert "403" in call(at, f"SCRIPT_FILENAME={path}").stdout, path
        assert "404" in call(at, f"SCRIPT_FILENAME={tmp_path}/root/none").stdout
        assert "404" in call(at).stdout


def test_the_runner_lets_running_requests_finish(tmp_path):
    script = tmp_path / "x"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/runs\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\necho Content-Type: text/plain\necho\necho finished\n")
    script.chmod(0o755)
    with runner(tmp_path, str(script)) as (p, at):
        got = []
        t = threading.Thread(target=lambda: got.append(call(at)))
        t.start()
        wait_for((tmp_path / "runs").exists)
        p.terminate()
        with socket.socket(socket.AF_UNIX) as s: # it hears of it: nobody is accepted any more
            wait_for(lambda: s.connect_ex(at[5:]) != 0)
        (tmp_path / "go").touch()
        t.join()
        assert "finished" in got[0].stdout, got
        p.wait(20 * SLOW)


def test_without_a_listening_socket_it_says_so_and_ends():
    r = subprocess.run([os.path.join(BUILD, "src/runner/weir-cgi"), "/bin/true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20 * SLOW)
    assert r.returncode == 1 and "descriptor 0 is no listening socket" in r.stderr, r
