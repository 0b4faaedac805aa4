# SPDX-License-Identifier: MIT
"""The drop-in libfcgi: the ABI is that of Debian's library, and programs made for either run on both."""
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from libfcgi import BUILD, DEBIAN, EXAMPLES, HEADERS, LIBS, OURS, PROBE, App, answer, both, query, request, text
from recorder import DATA, GET_VALUES, STDIN, pair, pairs, read_record, record
from test_front import get, nginx
from weirlib import ROOT, SLOW, Weir, wait_for

pytestmark = pytest.mark.nosan  # its unit tests and the corpus of its fuzz target run in sanitizer builds



def run(*args, **kw):
    return subprocess.run(args, capture_output=True, text=True, check=True, timeout=60 * SLOW, **kw).stdout


# ---- the ABI ----

def symbols(path):
    """Name -> code or data, weak or not as the compiler likes, and of data the size. Base destructors that were not inlined are no
    part of the ABI."""
    found = {}
    for line in run("nm", "-D", "--defined-only", "-S", path).splitlines():
        parts = line.split()
        kind, name = parts[-2:]
        if not name.startswith("_ZThn") and not name.startswith(("__asan", "__odr_asan")):
            if not name.endswith("D2Ev") or "streambuf" in name:
                found[name] = ("data", int(parts[1], 16)) if kind in "BDRV" else ("code", 0)
    return found


@pytest.mark.nosan  # a sanitizer makes data larger
@pytest.mark.parametrize("name", ["libfcgi.so.0", "libfcgi++.so.0"])
def test_symbols_versions_and_sizes_are_those_of_debians_library(name):
    assert symbols(os.path.join(OURS, name)) == symbols(os.path.join(DEBIAN, name))
    dynamic = run("readelf", "-dV", os.path.join(OURS, name))
    assert f"Library soname: [{name}]" in dynamic and "SYMBOLIC" not in dynamic and "verdef" not in dynamic.lower()
    assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", os.path.join(DEBIAN, name))))


LAYOUT = r"""
#include <stdio.h>
#include <stddef.h>
#include "fcgi_stdio.h"
#undef printf
#undef FILE
#include "fastcgi.h"
#include "fcgios.h"
#define FIELD(t, f) printf(#t "." #f " %zu %zu\n", offsetof(t, f), sizeof(((t *)0)->f));
#define SIZE(t) printf(#t " %zu\n", sizeof(t));
#define TYPE(f, ...) { __VA_ARGS__ = f; (void)p; }
int main(void)
{
    SIZE(FCGX_Stream) FIELD(FCGX_Stream, rdNext) FIELD(FCGX_Stream, wrNext) FIELD(FCGX_Stream, stop) FIELD(FCGX_Stream, stopUnget)
    FIELD(FCGX_Stream, isReader) FIELD(FCGX_Stream, isClosed) FIELD(FCGX_Stream, wasFCloseCalled) FIELD(FCGX_Stream, FCGI_errno)
    FIELD(FCGX_Stream, fillBuffProc) FIELD(FCGX_Stream, emptyBuffProc) FIELD(FCGX_Stream, data)
    SIZE(FCGX_Request) FIELD(FCGX_Request, requestId) FIELD(FCGX_Request, role) FIELD(FCGX_Request, in) FIELD(FCGX_Request, out)
    FIELD(FCGX_Request, err) FIELD(FCGX_Request, envp) FIELD(FCGX_Request, paramsPtr) FIELD(FCGX_Request, ipcFd)
    FIELD(FCGX_Request, isBeginProcessed) FIELD(FCGX_Request, keepConnection) FIELD(FCGX_Request, appStatus) FIELD(FCGX_Request, nWriters)
    FIELD(FCGX_Request, flags) FIELD(FCGX_Request, listen_sock) FIELD(FCGX_Request, detached)
    SIZE(FCGI_FILE) FIELD(FCGI_FILE, stdio_stream) FIELD(FCGI_FILE, fcgx_stream) SIZE(FCGX_ParamArray) SIZE(OS_AsyncProc) SIZE(ClientData)
    SIZE(FCGI_Header) FIELD(FCGI_Header, requestIdB1) FIELD(FCGI_Header, contentLengthB1) FIELD(FCGI_Header, paddingLength)
    SIZE(FCGI_BeginRequestBody) FIELD(FCGI_BeginRequestBody, flags) SIZE(FCGI_BeginRequestRecord) SIZE(FCGI_EndRequestBody)
    FIELD(FCGI_EndRequestBody, protocolStatus) SIZE(FCGI_EndRequestRecord) SIZE(FCGI_UnknownTypeBody) SIZE(FCGI_UnknownTypeRecord)
    TYPE(FCGI_fread, size_t (*p)(void *, size_t, size_t, FCGI_FILE *)) TYPE(FCGI_ftell, int (*p)(FCGI_FILE *))
    TYPE(FCGX_GetParam, char *(*p)(const char *, FCGX_ParamArray)) TYPE(FCGX_CreateWriter, FCGX_Stream *(*p)(int, int, int, int))
    TYPE(OS_AsyncRead, int (*p)(int, int, void *, int, OS_AsyncProc, ClientData)) TYPE(OS_Accept, int (*p)(int, int, const char *))
    TYPE(FCGX_Accept, int (*p)(FCGX_Stream **, FCGX_Stream **, FCGX_Stream **, FCGX_ParamArray *))
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("libfcgi")


def compiled(folder, name, source, headers, *libs, cc="gcc"):
    path, out = folder / (name + (".cpp" if cc == "g++" else ".c")), folder / f"{name}-{'ours' if headers == HEADERS else 'debian'}"
    path.write_text(source)
    run(cc, "-Wall", "-Werror", "-I", headers, str(path), "-o", str(out), *libs)
    return str(out)


def test_layouts_and_types_of_both_headers_are_the_same(folder):
    sizes = [run(compiled(folder, "layout", LAYOUT, headers, "-L" + DEBIAN, "-lfcgi"), env={**os.environ, "LD_LIBRARY_PATH": DEBIAN})
             for headers in (HEADERS, "/usr/include")]
    assert sizes[0] == sizes[1] and sizes[0].count("\n") > 40


CLASSES = r"""
#include <cstdio>
#include "fcgio.h"
int main() { printf("%zu %zu %zu\n", sizeof(fcgi_streambuf), sizeof(fcgi_istream), sizeof(fcgi_ostream)); fcgi_istream i(0); fcgi_ostream o(0); return i.rdbuf() == 0 || o.rdbuf() == 0; }
"""


@pytest.mark.nosan
@both
def test_cpp_classes_are_alike_whichever_header_and_library(lib, folder):
    env = {**os.environ, "LD_LIBRARY_PATH": LIBS[lib]}
    sizes = {run(compiled(folder, "classes-" + lib, CLASSES, headers, "-L" + DEBIAN, "-lfcgi++", "-lfcgi", cc="g++"), env=env)
             for headers in (HEADERS, "/usr/include")}
    assert len(sizes) == 1


@pytest.mark.parametrize("name", ["fastcgi.h", "fcgi_stdio.h", "fcgiapp.h", "fcgimisc.h", "fcgios.h"])
def test_macros_of_both_headers_are_the_same(name):
    def macros(headers):
        text = run("gcc", "-E", "-dM", "-I", headers, "-include", "stdio.h", "-include", f"{headers}/{name}", "-x", "c", "/dev/null")
        plain = set(run("gcc", "-E", "-dM", "-include", "stdio.h", "-x", "c", "/dev/null").splitlines())
        found = {}
        for line in set(text.splitlines()) - plain:
            _, macro, value = (line + " ").split(" ", 2)
            if not macro.startswith(("_", "HAVE_", "PACKAGE", "VERSION", "STDC", "LT_")):
                found[macro.split("(")[0]] = re.sub(r"[ ()]", "", value)
        return found
    ours, theirs = macros(HEADERS), macros("/usr/include")
    assert {m: ours.get(m) for m in theirs} == theirs and (name == "fcgios.h" or len(theirs) > 3)


@pytest.mark.nosan
def test_what_is_installed_stands_apart_and_is_found_by_pkg_config(folder):
    root = str(folder / "root")
    run("meson", "install", "-C", BUILD, "--no-rebuild", env={**os.environ, "DESTDIR": root})
    found = [os.path.join(at, f) for at, _, files in os.walk(root) for f in files if "fcgi" in f.lower() and "weir-cgi" not in f]
    assert len(found) >= 11 and all("/weir/compat/" in f for f in found), found
    package = next(f for f in found if f.endswith("/fcgi.pc"))
    flags = run("pkg-config", "--cflags", "--libs", "fcgi", env={**os.environ, "PKG_CONFIG_PATH": os.path.dirname(package), "PKG_CONFIG_SYSROOT_DIR": root}).split()
    program = str(folder / "installed")
    run("gcc", "-o", program, os.path.join(ROOT, "compat/libfcgi/examples/echo_x.c"), *flags)
    lib = os.path.dirname(os.path.dirname(package))
    with App(program, env={"LD_LIBRARY_PATH": lib}, check=False) as app:
        c = app.connect()
        c.send(request(1, query("q")))
        assert "QUERY_STRING=q" in text(answer(c, 1)) and app.loaded() == [os.path.join(lib, "libfcgi.so.0.0.0")]


# ---- programs ----

@both
@pytest.mark.parametrize("name", ["fcgi-echo", "fcgi-echo_x"])
def test_echo_tells_parameters_in_order_and_the_body(name, lib):
    params = [("B", "1"), ("A", ""), ("B", "again"), ("CONTENT_LENGTH", "5"), ("N" * 200, "v" * 20000)]
    with App(os.path.join(EXAMPLES, name), lib) as app:
        c = app.connect()
        for rid in (1, 65535):
            c.send(request(rid, params, b"bytes", keep=rid == 1))
            out, err, end = answer(c, rid)
            lines = out.decode().split("\r\n\r\n", 1)[1].splitlines()
            assert lines == [f"request {1 + (rid > 1)}", "FCGI_ROLE=RESPONDER", *("=".join(p) for p in params), "body:bytes"]
            assert err == b"" and end == (0, 0)
        assert c.closed()


def test_as_cgi_the_same_program_serves_one_request():
    env = {"PATH": "/usr/bin", "CONTENT_LENGTH": "4", "LD_LIBRARY_PATH": OURS, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")}
    r = subprocess.run([os.path.join(EXAMPLES, "fcgi-echo")], input="body", env=env, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and r.stderr == ""
    assert "request 1\n" in r.stdout and "PATH=/usr/bin\n" in r.stdout and r.stdout.endswith("body:body\n")


@both
def test_size_sends_what_the_query_says(lib):
    with App(os.path.join(EXAMPLES, "fcgi-size"), lib) as app:
        c = app.connect()
        for n in (0, 1, 100, 8184, 70000, 3000000):
            c.send(request(1, query(str(n))))
            assert len(answer(c, 1)[0].split(b"\r\n\r\n", 1)[1]) == n


@both
def test_an_authorizer_lets_pass_or_answers(lib):
    with App(os.path.join(EXAMPLES, "fcgi-authorizer"), lib) as app:
        c = app.connect()
        c.send(request(1, [("HTTP_X_USER", "me")], role=2))
        assert text(answer(c, 1)) == "Status: 200 OK\r\nVariable-AUTH_USER: me\r\n\r\n"
        c.send(request(2, [], role=2))
        assert text(answer(c, 2)).startswith("Status: 403")
        c.send(request(3, [("HTTP_X_USER", "me")]))
        assert text(answer(c, 3)).startswith("Status: 500")


@both
def test_a_filter_reads_its_input_and_then_the_file(lib):
    with App(os.path.join(EXAMPLES, "fcgi-filter"), lib) as app:
        c = app.connect()
        c.send(request(1, [], b"input", role=3) + record(DATA, 1, b"a file of ") + record(DATA, 1, b"text") + record(DATA, 1))
        out, _, end = answer(c, 1)
        assert out == b"Content-Type: text/plain\r\nX-Input: 5\r\n\r\nA FILE OF TEXT" and end == (7, 0)
        c.send(request(2, [], b"input"))
        assert text(answer(c, 2)).startswith("Status: 500")


@both
def test_cpp_streams_read_and_write_a_request(lib):
    with App(os.path.join(EXAMPLES, "fcgi-echo_cpp"), lib) as app:
        c = app.connect()
        words = [f"word{i}" for i in range(300)]
        for rid in (1, 2):
            c.send(request(rid, [], " ".join(words).encode()))
            body = text(answer(c, rid)).split("\r\n\r\n", 1)[1]
            assert body == "".join(f"{i + 1} {w}\n" for i, w in enumerate(words)) + "role RESPONDER\n"


def test_threads_serve_at_the_same_time_say_how_many_and_all_end_by_one_signal():
    with App(os.path.join(EXAMPLES, "fcgi-threaded")) as app:
        held = [app.connect() for _ in range(7)]
        for c in held:
            c.send(request(1, query("held"), b"half", end=False))
        c = app.connect()
        c.send(request(1, query("free")))
        assert "query free body 0" in text(answer(c, 1))
        c.send(record(GET_VALUES, 0, pair(b"FCGI_MAX_REQS", b"")))
        _, _, content = read_record(c.s)
        assert 1 <= int(dict(pairs(content))["FCGI_MAX_REQS"]) <= 8
        numbers = set()
        for h in held:
            h.send(record(STDIN, 1))
            reply = text(answer(h, 1))
            assert "query held body 4" in reply
            numbers.add(reply.split()[3])
        assert len(numbers) == 7
        app.process.send_signal(signal.SIGTERM)  # one thread gets it
        assert app.ends() == 0


def test_a_program_can_be_stopped_between_two_requests_of_a_kept_connection():
    with App(PROBE) as app:
        c = app.connect()
        c.send(request(1, query("nothing")))
        assert answer(c, 1)
        begun = time.monotonic()
        app.process.terminate()
        assert app.ends() == 0 and time.monotonic() - begun < 1.5 * SLOW and c.closed()


def connections(pid):
    """Sockets of a process but for its listening one, which it may hold twice while it waits."""
    files = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            files.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return [f for f in files if f.startswith("socket:") and f != os.readlink(f"/proc/{pid}/fd/0")]


def test_a_connection_that_was_accepted_is_served_whatever_signal_comes():
    with App(PROBE) as app:
        c = app.connect()
        wait_for(lambda: connections(app.process.pid))
        app.process.terminate()
        c.send(request(1, query("nothing"), keep=0))
        assert text(answer(c, 1)) == "nothing\n"
        assert app.ends() == 0


@both
def test_a_connection_on_which_nothing_comes_does_not_hold_the_others(lib):
    with App(PROBE, lib, env={"LIBFCGI_IS_AF_UNIX_KEEPER_POLL_TIMEOUT": "100"}) as app:
        silent, c = app.connect(), app.connect()
        c.send(request(1, query("nothing")))
        assert text(answer(c, 1)) == "nothing\n" and silent.closed()


def test_a_nonblocking_connection_is_waited_for():
    with App(PROBE) as app:
        c = app.connect()
        c.send(request(1, query("nonblocking&much=3000000&read"), b"half", end=False))
        assert len(c.s.recv(10000, socket.MSG_WAITALL)) == 10000  # and then it has to wait for us
        c.send(record(STDIN, 1, b"rest") + record(STDIN, 1))
        rest = b""
        while b"read 8 error 0: halfrest" not in rest[-300:]:
            rest += c.s.recv(100000)
        assert rest.count(b"x") + 10000 > 3000000


def test_a_program_that_closes_its_streams_early_is_answered_at_once(tmp_path):
    go = str(tmp_path / "go")
    with App(PROBE) as app:
        c = app.connect()
        c.send(request(1, query(f"nothing&err=said&close&wait={go}&read"), b"body"), request(2, query("nothing")))
        assert answer(c, 1) == (b"nothing\n", b"said\n", (0, 0))
        open(go, "w").close()
        assert text(answer(c, 2)) == "nothing\n"


def test_output_arrives_when_it_is_flushed(tmp_path):
    go = str(tmp_path / "go")
    with App(PROBE) as app:
        c = app.connect()
        c.send(request(1, query(f"nothing&flush&wait={go}&env")))
        assert c.s.recv(16) == b"\x01\x06\x00\x01\x00\x08\x00\x00nothing\n"
        open(go, "w").close()
        assert b"FCGI_ROLE=RESPONDER\n" in answer(c, 1)[0]


# ---- behind web servers ----

@both
@pytest.mark.parametrize("keep", [False, True])
def test_behind_nginx(keep, lib, tmp_path):
    body = os.urandom(300000)
    with App(os.path.join(EXAMPLES, "fcgi-threaded"), lib) as app, nginx(str(tmp_path), app.path, keep) as port:
        for _ in range(3):
            assert get(port, "/?q", "POST", body).text.endswith(b"query q body 300000\n")
        with ThreadPoolExecutor(8) as pool:
            assert all(r.status == 200 for r in pool.map(lambda i: get(port, f"/?{i}"), range(64)))


@pytest.mark.parametrize("keep", [False, True])
def test_a_large_answer_and_an_unread_body_behind_nginx(keep, tmp_path):
    with App(os.path.join(EXAMPLES, "fcgi-size")) as app, nginx(str(tmp_path), app.path, keep) as port:
        for _ in range(4):
            r = get(port, "/?2000000", "POST", b"x" * 200000)  # the program does not read it
            assert r.status == 200 and len(r.text) == 2000000


def test_behind_weir():
    with App(os.path.join(EXAMPLES, "fcgi-echo_x")) as app:
        site = f"site a {{ listen http://127.0.0.1:PORT; route / {{ pool p }} }}\npool p {{ connect unix:{app.path} {{ workers 1 }}; keep }}\n"
        os.chmod(app.folder, 0o755)
        os.chmod(app.path, 0o666)
        with Weir(site) as w:
            body = os.urandom(200000).hex().encode()
            for i in range(1, 6):
                r = w.get(f"/path?x={i}", "POST", body)
                assert r.status == 200 and f"request {i}\n".encode() in r.text and f"QUERY_STRING=x={i}\n".encode() in r.text
                assert hashlib.sha256(r.text.split(b"body:", 1)[1][:-1]).digest() == hashlib.sha256(body).digest()
