# SPDX-License-Identifier: MIT
"""The examples run for real: behind the gateway, and asked by each other. And the libraries as others use them: from an installation,
by pkg-config, by compilers of C and C++."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from weirlib import EXAMPLES, ROOT, SLOW, USER, Weir, wait_for

pytestmark = pytest.mark.nosan  # what they stand on is tested in sanitizer builds by itself

NAMES = ["embed", "authorizer", "filter", "files"]
BUILD = os.environ.get("WEIR_BUILD", os.path.join(ROOT, "build-gcc"))
CONFIG = f"""
site a {{
    listen http://127.0.0.1:PORT
    root public
    route /hello {{ pool hello }}
    route /count/ {{ pool embed }}
    route /files/ {{ pool files }}
    route /lines/ {{ pool filter }}
    route *.txt {{ filter filter }}
    route /cave/ {{ authorizer auth; pool demo }}
}}
pool hello {{ run ./hello; {USER} }}
pool demo {{ run ./demo; {USER} }}
pool embed {{ run ./embed; {USER} }}
pool files {{ run ./files public; {USER} }}
pool filter {{ run ./filter; {USER} }}
pool auth {{ run ./authorizer; {USER} }}
"""
TEXT = b"".join(b"line %d\n" % i for i in range(1, 20001))
BIG = bytes(range(256)) * 12000


def numbered(text):
    return b"".join(b"%6d  %s" % (i, line) for i, line in enumerate(text.splitlines(keepends=True), 1))


# ---- behind the gateway ----

@pytest.fixture(scope="module")
def w():
    def prepare(w):
        for name in NAMES:
            shutil.copy(os.path.join(EXAMPLES, name), w.dir)
    with Weir(CONFIG, {"public/t.txt": TEXT, "public/big": BIG, "public/empty": b""}, prepare=prepare) as weir:
        yield weir


def test_hello_greets(w):
    assert w.get("/hello?you").text == b"Hello, you!\n"


def test_embed_answers_requests_and_its_own_timer(w):
    first = int(w.get("/count/").text)
    following = int(w.get("/count/next").text)
    assert following > first
    assert int(w.get("/count/").text) >= following
    values = []
    threads = [threading.Thread(target=lambda: values.append(int(w.get("/count/next").text))) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(values) == 20 and min(values) > first


def test_embed_forgets_who_leaves(w):
    for _ in range(3):
        with w.connect() as s:
            s.sendall(b"GET /count/next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert int(w.get("/count/next").text) > 0  # the tick that answers it came when the other one had gone, or answered both
    wait_for(lambda: w.pool("embed")["processes"][0]["busy"] == 0)


def test_files_are_sent_whole_and_in_part(w):
    r = w.get("/files/big")
    assert r.status == 200 and r.text == BIG and r.getheader("Content-Length") == str(len(BIG))
    assert w.get("/files/big?5-9").text == BIG[5:10]
    assert w.get("/files/empty").text == b""


@pytest.mark.parametrize("path,status", [("/files/none", 404), ("/files/../weir.conf", 404), ("/files/.", 404), ("/files/a/b", 404), ("/files/big?9-5", 416),
                                         (f"/files/big?0-{len(BIG)}", 416), ("/files/big?x", 416)])
def test_files_that_are_not_there(w, path, status):
    assert w.get(path).status == status


def test_a_filter_numbers_the_lines_of_a_file(w):
    assert w.get("/t.txt").text == numbered(TEXT)


def test_as_a_responder_it_numbers_those_of_the_body(w):
    assert w.get("/lines/", method="POST", body=b"a\nb\n\nc").text == b"     1  a\n     2  b\n     3  \n     4  c"
    assert w.get("/lines/", method="POST", body=TEXT).text == numbered(TEXT)


def test_an_authorizer_opens_the_cave_to_those_who_know(w):
    r = w.get("/cave/env")
    assert r.status == 401 and r.getheader("WWW-Authenticate") == 'Bearer realm="the cave"' and r.text == b"The cave stays closed.\n"
    assert w.get("/cave/env", headers={"Authorization": "Bearer wheat"}).status == 401
    r = w.get("/cave/env", headers={"Authorization": "Bearer open-sesame"})
    assert r.status == 200 and b"REMOTE_USER=alibaba\n" in r.text and b"AUTH_TYPE=Bearer\n" in r.text


# ---- asked by each other ----

@contextlib.contextmanager
def app(path, name, *args):
    """An example on a listening socket, as a supervisor starts it; SIGTERM has it drain."""
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(100)
        p = subprocess.Popen([os.path.join(EXAMPLES, name), *args], stdin=s)
    try:
        yield p
        p.send_signal(signal.SIGTERM)
        assert p.wait(20 * SLOW) == 0
    finally:
        p.kill()
        p.wait()


def ask(path, uri, count, body=b""):
    r = subprocess.run([os.path.join(EXAMPLES, "ask"), f"unix:{path}", uri, str(count)], input=body, capture_output=True, timeout=60 * SLOW)
    lines = [re.fullmatch(r"(\d+): (\d+), (\d+) bytes, ([0-9.]+) ms(.*)", line).groups() for line in r.stdout.decode().splitlines()]
    assert sorted(int(n) for n, *_ in lines) == list(range(1, count + 1)), r
    return r.returncode, {int(n): (int(status), int(size), float(ms), why) for n, status, size, ms, why in lines}


def head(name="text/plain; charset=utf-8"):
    return len(f"Content-Type: {name}\r\n\r\n")


def test_ask_prints_each_answer(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "hello"):
        code, answers = ask(at, "/x", 50)
    assert code == 0 and all(a[0] == 200 and a[1] == head() + len("Hello, world!\n") for a in answers.values())


def test_ask_asks_many_at_once(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "demo"):
        begin = time.monotonic()
        code, answers = ask(at, "/slow", 100)
        took = time.monotonic() - begin
    assert code == 0 and all(a[0] == 200 and a[2] >= 99 for a in answers.values())
    assert took < 5 * SLOW  # one after the other takes 10 s
    assert took < 10


def test_ask_streams_a_body_whose_length_it_does_not_know(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "filter"):
        code, answers = ask(at, "/", 3, TEXT)
        assert code == 0 and answers[1][1] == answers[2][1] == head() and answers[3][1] == head() + len(numbered(TEXT))
        p = subprocess.Popen([os.path.join(EXAMPLES, "ask"), f"unix:{at}", "/", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert p.stdout.readline().startswith(b"1: 200, ")  # while the other's body has not come
        p.stdin.write(b"one\n")
        p.stdin.flush()
        p.stdin.write(b"two\n")
        p.stdin.close()
        assert p.stdout.read().startswith(b"2: 200, %d bytes" % (head() + len(numbered(b"one\ntwo\n"))))
        assert p.wait(20 * SLOW) == 0
        p.stdout.close()


def test_ask_tells_other_statuses_and_failures(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "files", str(tmp_path)):
        code, answers = ask(at, "/none", 2)
        assert code == 0 and {a[0] for a in answers.values()} == {404}
    os.unlink(at)
    code, answers = ask(at, "/x", 2)
    assert code == 1 and all(a[0] == 0 and "cannot connect" in a[3] for a in answers.values())
    r = subprocess.run([os.path.join(EXAMPLES, "ask"), "nowhere", "/", "1"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert r.returncode == 1 and r.stderr.startswith("ask: nowhere: ")


def test_a_role_that_an_example_does_not_speak_is_refused(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "authorizer"):
        code, answers = ask(at, "/x", 1)
    assert code == 1 and "role" in answers[1][3]


def connections(at):
    with open("/proc/net/unix") as f:
        return sum(line.split()[-1] == at for line in f) - 1  # the listener


def test_what_runs_when_an_example_drains_has_its_answer(tmp_path):
    at = str(tmp_path / "s")
    with app(at, "embed") as p:
        assert ask(at, "/", 1)[0] == 0  # it serves, and hears the signal
        wait_for(lambda: not connections(at))
        asking = subprocess.Popen([os.path.join(EXAMPLES, "ask"), f"unix:{at}", "/next", "20"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: connections(at))
        p.send_signal(signal.SIGTERM)
        out = asking.communicate(timeout=20 * SLOW)[0]
    assert out.count(": 200, ") + out.count(": 0, ") == 20  # those it could not take any more were told so before they ran
    assert "broke" not in out and "before its answer was complete" not in out


# ---- as others use the libraries ----

@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An installation, and the environment that finds it."""
    to = tmp_path_factory.mktemp("installed")
    r = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", str(to)], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    pc = next(p for p, _, files in os.walk(to) if "weir.pc" in files)
    return {"root": str(to), "lib": os.path.dirname(pc),
            "env": {**os.environ, "PKG_CONFIG_PATH": pc, "PKG_CONFIG_SYSROOT_DIR": str(to), "LD_LIBRARY_PATH": os.path.dirname(pc)}}


def flags(installed, *packages):
    r = subprocess.run(["pkg-config", "--cflags", "--libs", *packages], capture_output=True, text=True, env=installed["env"])
    assert r.returncode == 0, r.stderr
    return r.stdout.split()


@pytest.mark.nosan
@pytest.mark.parametrize("compiler", ["gcc", "clang-14"])
@pytest.mark.parametrize("name", ["hello", "embed", "ask", "filter"])
def test_an_outsider_compiles_and_runs_an_example(installed, tmp_path, name, compiler):
    source = os.path.join(ROOT, "examples", name + ".c")
    program = str(tmp_path / name)
    package = "weir-client" if name == "ask" else "weir"
    r = subprocess.run([compiler, "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-o", program, source, *flags(installed, package)], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, env=installed["env"]).stdout
    assert f"lib{package}.so.0 => {installed['lib']}" in needed
    if name == "ask":
        at = str(tmp_path / "s")
        with app(at, "hello"):
            r = subprocess.run([program, f"unix:{at}", "/", "2"], input=b"", capture_output=True, env=installed["env"], timeout=60)
        assert r.returncode == 0 and r.stdout.count(b": 200, ") == 2
    else:
        r = subprocess.run([program], input=b"a\n", capture_output=True, timeout=60,
                           env={**installed["env"], "GATEWAY_INTERFACE": "CGI/1.1", "QUERY_STRING": "you", "CONTENT_LENGTH": "2"})
        expected = {"hello": b"Hello, you!\n", "embed": b"0\n", "filter": b"     1  a\n"}[name]
        assert r.returncode == 0 and r.stdout.endswith(b"\r\n\r\n" + expected)


BOTH = """
#include <stdio.h>
#include <weir/app.h>
#include <weir/client.h>
#include <weir/wire.h>

int main(void)
{
    struct weir_app_options ao;
    struct weir_client_options co;
    struct weir_begin_check { struct weir_client_begin_options o; } b;
    struct weir_pool_options po;
    struct weir_app *app;
    struct weir_client_group *group;
    struct weir_client *client;
    struct weir_wire_app *wire;
    weir_app_options_init(&ao);
    weir_client_options_init(&co);
    weir_pool_options_init(&po);
    weir_client_begin_options_init(&b.o);
    ao.listen_fd = -1;
    if (weir_app_new(&app, &ao) < 0 || weir_client_group_new(&group, 1) < 0 || weir_client_new(&client, group, &co) < 0 ||
        weir_wire_app_new(&wire, NULL) < 0) return 1;
    weir_wire_app_free(wire);
    weir_client_free(client);
    weir_client_group_free(group);
    weir_app_free(app);
    return puts(weir_strerror(WEIR_LIMIT)) < 0;
}
"""
LANGUAGES = [("gcc", "c", "c99"), ("gcc", "c", "c17"), ("g++", "c++", "c++11"), ("g++", "c++", "c++20"), ("clang-14", "c", "c99"), ("clang++-14", "c++", "c++11")]
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]


@pytest.mark.nosan
@pytest.mark.parametrize("compiler,language,standard", LANGUAGES)
def test_a_program_of_c_or_cpp_uses_both_libraries(installed, tmp_path, compiler, language, standard):
    source, program = str(tmp_path / "both.x"), str(tmp_path / "both")
    with open(source, "w") as f:
        f.write(BOTH)
    r = subprocess.run([compiler, "-x", language, f"-std={standard}", *STRICT, "-o", program, source, *flags(installed, "weir", "weir-client")],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    r = subprocess.run([program], capture_output=True, text=True, env=installed["env"])
    assert r.returncode == 0 and r.stdout.strip()


@pytest.mark.parametrize("compiler,language,standard", LANGUAGES)
@pytest.mark.parametrize("header", ["weir", "app", "client", "wire"])
def test_each_header_stands_alone(header, compiler, language, standard, tmp_path):
    source = str(tmp_path / "one.x")
    with open(source, "w") as f:
        f.write(f"#include <weir/{header}.h>\n#include <weir/{header}.h>\nint unused_{header}(void);\n")
    # not as a system header: its warnings count
    r = subprocess.run([compiler, "-x", language, f"-std={standard}", *STRICT, "-fsyntax-only", "-I", os.path.join(ROOT, "include"), source],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_every_function_has_a_page_that_man_finds(installed):
    pages = next(p for p, _, files in os.walk(installed["root"]) if "weir_app.3" in files)
    for name in ("libweir", "weir_strerror", "weir_app_req_write", "weir_pool_set", "weir_client_begin", "weir_wire_app_feed"):
        r = subprocess.run(["mandoc", "-T", "ascii", os.path.join(pages, name + ".3")], capture_output=True, text=True)
        assert r.returncode == 0 and len(r.stdout) > 2000
        assert os.path.realpath(os.path.join(pages, name + ".3")).startswith(os.path.realpath(pages))


def test_libraries_export_what_the_headers_tell_and_nothing_else(installed):
    for library, headers in (("libweir.so", ["weir", "app", "wire"]), ("libweir-client.so", ["weir", "client"])):
        r = subprocess.run(["nm", "-D", "--defined-only", os.path.join(installed["lib"], library)], capture_output=True, text=True)
        exported = {line.split()[-1].split("@")[0] for line in r.stdout.splitlines() if " A " not in line}
        told = set()
        for h in headers:
            with open(os.path.join(ROOT, "include/weir", h + ".h")) as f:
                text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
            told |= set(re.findall(r"WEIR_API[^;(]*?\b(weir_\w+)\(", text))
        assert exported == told
