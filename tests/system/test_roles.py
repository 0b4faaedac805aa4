# SPDX-License-Identifier: MIT
"""Routes with an authorizer, routes whose files go through a filter, and programs of all roles."""
import hashlib
import os
import shutil
import subprocess

import pytest
from weirlib import EXAMPLES, TEST_APPS, USER, Weir, check_says, read_all, status_of, wait_for

CONFIG = f"""
site a {{
    listen http://127.0.0.1:PORT
    root public
    authorizer auth
    route /open/ {{ authorizer no; pool app }}
    route /app/ {{ pool app }}
    route /moved {{ redirect http://other.test/ }}
    route /denied/ {{ deny }}
    route /set/ {{ pool app; param AUTH_METHOD mine; param HAS_SCRIPT_NAME }}
    route *.txt {{ filter app }}
    route /slow/ {{ pool app; time {{ silent 1s }} }}
}}
pool auth {{ run ./roles_app; {USER} time {{ silent 700ms }} }}
pool app {{ run ./roles_app; {USER} }}
"""
BIG = b"".join(b"line %06d of a text\n" % i for i in range(60000))


def prepare(w):
    shutil.copy(os.path.join(TEST_APPS, "roles_app"), w.dir)


@pytest.fixture(scope="module")
def w():
    with Weir(CONFIG, {"public/f.html": "a file", "public/t.txt": "small text", "public/big.txt": BIG, "public/sub/t.txt": "deep"}, prepare=prepare) as weir:
        yield weir


def params(r):
    return dict(line.split("=", 1) for line in r.text.decode().splitlines() if "=" in line)


# ---- authorizer ----

def test_what_it_grants_reaches_the_app_and_nothing_else_of_its_answer(w):
    """FC1-6.3-a, FC1-6.3-b"""
    r = w.get("/app/x/y?yes", headers={"X-User": "bob"})
    p = params(r)
    assert r.status == 200 and p["REMOTE_USER"] == "bob" and p["AUTH_METHOD"] == "by hand"
    assert p["HAS_SCRIPT_NAME"] == "no" and p["HAS_CONTENT_LENGTH"] == "no"
    assert p["SCRIPT_NAME"] == "/app" and p["PATH_INFO"] == "/x/y"
    assert not r.getheader("X-Other") and b"dropped" not in r.text and not [h for h in r.headers if h.lower().startswith("variable")]


def test_the_configuration_has_the_last_word(w):
    p = params(w.get("/set/x?yes"))
    assert p["AUTH_METHOD"] == "mine" and "HAS_SCRIPT_NAME" not in p and p["REMOTE_USER"] == "alice"


def test_a_client_cannot_grant_itself_anything(w):
    p = params(w.get("/open/x", headers={"Variable-REMOTE_USER": "root", "REMOTE_USER": "root", "Remote-User": "root"}))
    assert "REMOTE_USER" not in p and p["HTTP_REMOTE_USER"] == "root"


@pytest.mark.parametrize("path", ["/app/x", "/f.html", "/moved", "/t.txt", "/nowhere"])
@pytest.mark.parametrize("how,status,header", [("no", 403, None), ("login", 401, ("WWW-Authenticate", 'Basic realm="x"')), ("redirect", 302, ("Location", "http://login.test/"))])
def test_its_refusal_goes_to_the_client_whatever_the_route_is(w, path, how, status, header):
    """FC1-6.3-c"""
    r = w.get(f"{path}?{how}")
    assert r.status == status and r.text == b"status %d\n" % status
    assert not header or r.getheader(header[0]) == header[1]
    assert not r.getheader("Variable-SECRET") and b"SECRET" not in r.text


def test_what_passes_is_served_as_ever(w):
    assert w.get("/f.html?yes").text == b"a file"
    assert w.get("/moved?yes").status == 302 and w.get("/moved?yes").getheader("Location") == "http://other.test/"
    assert w.get("/denied/x?yes").status == 403
    assert w.get("/nowhere?yes").status == 404


@pytest.mark.parametrize("how,status", [("broken", 502), ("silent", 504)])
def test_without_an_answer_nobody_passes(w, how, status):
    """FC1-6.3-c"""
    r = w.get(f"/f.html?{how}")
    assert r.status == status and b"a file" not in r.text


@pytest.mark.threads
def test_an_authorizer_that_dies_lets_nobody_pass():
    with Weir(CONFIG, {"public/f.html": "a file"}, prepare=prepare) as w:
        r = w.get("/f.html?die")
        assert r.status == 502 and b"a file" not in r.text
        wait_for(lambda: w.get("/f.html?yes").status == 200)
        assert w.command("stop", "auth").returncode == 0
        r = w.get("/f.html?yes")
        assert r.status == 503 and b"a file" not in r.text
        assert w.get("/open/x").status == 200


def test_it_may_send_the_request_elsewhere(w):
    r = w.get("/app/x?inside", method="POST", body=b"x" * 100000)
    p = params(r)
    assert r.status == 200 and p["REQUEST_METHOD"] == "GET" and p["SCRIPT_NAME"] == "/open" and p["PATH_INFO"] == "/login" and p["REQUEST_URI"] == "/app/x?inside"


def test_it_decides_before_the_body_is_read(w):
    with w.connect() as s:
        s.sendall(b"POST /app/x?no HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n")
        answer = read_all(s)
    assert status_of(answer) == 403 and b"100 Continue" not in answer
    with w.connect() as s:
        s.sendall(b"POST /app/x?yes HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        first = s.recv(1000)
        assert first.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        s.sendall(b"0123456789")
        assert read_all(s).endswith(b"body 10\n")


@pytest.mark.parametrize("size", [0, 1, 5000, 70000, 3000000])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_follows_when_it_passed(w, size, chunked):
    body = b"z" * size
    if chunked:
        framed, field = (b"%x\r\n%s\r\n" % (size, body) if size else b"") + b"0\r\n\r\n", b"Transfer-Encoding: chunked"
    else:
        framed, field = body, b"Content-Length: %d" % size
    with w.connect() as s:
        s.sendall(b"POST /app/x?yes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + field + b"\r\n\r\n" + framed)
        answer = read_all(s)
    assert status_of(answer) == 200 and b"body %d\n" % size in answer


def test_requests_one_behind_the_other_keep_their_order(w):
    one = b"POST /app/x?yes HTTP/1.1\r\nHost: a\r\nX-User: u%d\r\nContent-Length: %d\r\n\r\n%s"
    with w.connect() as s:
        s.sendall(b"".join(one % (i, i * 7, b"b" * (i * 7)) for i in range(8)) + b"GET /f.html?yes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = read_all(s)
    assert [f"REMOTE_USER=u{i}\n".encode() in answer for i in range(8)] == [True] * 8
    at = [answer.index(b"body %d\n" % (i * 7)) for i in range(8)]
    assert at == sorted(at) and answer.endswith(b"a file")


@pytest.mark.threads
def test_a_client_that_leaves_is_forgotten():
    with Weir(CONFIG.replace("silent 700ms", "silent 60s"), {"public/f.html": "a file"}, prepare=prepare) as w:
        with w.connect() as s:
            s.sendall(b"GET /f.html?silent HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: w.pool("auth")["processes"][0]["busy"] == 1)
        wait_for(lambda: w.pool("auth")["processes"][0]["busy"] == 0)
        assert w.get("/f.html?yes").text == b"a file"


def test_the_log_names_who_it_was():
    with Weir(CONFIG, {"public/f.html": "a file"}, prepare=prepare, log="DIR/run/keep-access") as w:
        assert w.get("/app/x?yes", headers={"X-User": 'e "vil'}).status == 200
        assert w.get("/open/x").status == 200
        path = os.path.join(w.run_dir, "keep-access")
        wait_for(lambda: os.path.exists(path) and open(path).read().count("\n") == 2)
        first, second = open(path).read().splitlines()
        assert first.startswith('127.0.0.1 - e \\x22vil [') and second.startswith("127.0.0.1 - - [")


# ---- filter ----

def test_a_file_goes_through_its_filter(w):
    """FC1-6.4-a"""
    r = w.get("/t.txt?yes")
    modified = int(os.stat(os.path.join(w.public, "t.txt")).st_mtime)
    assert r.status == 200 and r.text == b"/t.txt 10 %d alice body 0\nSMALL TEXT" % modified
    assert w.get("/sub/t.txt?yes").text.startswith(b"/sub/t.txt 4 ")
    assert w.get("/missing.txt?yes").status == 404


@pytest.mark.parametrize("size", [0, 4, 200000])
def test_a_filter_gets_the_body_and_the_file_whole(w, size):
    body = b"b" * size
    """FC1-6.4-b, FC1-6.4-c"""
    r = w.get("/big.txt?yes", method="POST", body=body)
    head, text = r.text.split(b"\n", 1)
    assert r.status == 200 and head.endswith(b"body %d" % len(body))
    assert hashlib.sha256(text).digest() == hashlib.sha256(BIG.upper()).digest()


def test_a_filter_need_not_read_the_file(w):
    """FC1-6.4-d"""
    for _ in range(20):
        r = w.get("/big.txt?cached", headers={"X-User": "x"})
        assert r.status == 200 and r.text.startswith(b"/big.txt ") and r.text.count(b"\n") == 1
    assert w.get("/t.txt?yes").status == 200


def test_a_filter_that_has_gone_is_an_error_not_the_file():
    with Weir(CONFIG, {"public/t.txt": "secret source"}, prepare=prepare) as w:
        assert w.command("stop", "app").returncode == 0
        r = w.get("/t.txt?yes")
        assert r.status == 503 and b"secret" not in r.text


def test_an_index_is_guarded_by_its_own_route():
    config = f"""
site a {{
    listen http://127.0.0.1:PORT
    root public
    index index.html notes.md
    route *.html {{ authorizer auth; files }}
    route *.md {{ filter app }}
    route /free/ {{ files }}
}}
pool auth {{ run ./roles_app; {USER} }}
pool app {{ run ./roles_app; {USER} }}
"""
    with Weir(config, {"public/a/index.html": "guarded", "public/b/notes.md": "source", "public/free/index.html": "free"}, prepare=prepare) as w:
        assert w.get("/a/index.html?yes").text == b"guarded" and w.get("/a/index.html?no").status == 403
        r = w.get("/a/?yes")
        assert r.status == 403 and b"guarded" not in r.text
        r = w.get("/b/")
        assert r.status == 403 and b"source" not in r.text
        assert w.get("/b/notes.md").text.endswith(b"SOURCE")


def test_a_filter_may_send_the_request_to_another_file(w):
    for _ in range(3):
        r = w.get("/big.txt?yes", headers={"X-User": "to"})
        assert r.status == 200 and r.text.startswith(b"/t.txt 10 ") and r.text.endswith(b"\nSMALL TEXT"), r.text[:200]


@pytest.mark.nosan
def test_a_php_script_decides():
    config = ("site a { listen http://127.0.0.1:PORT; root public; route /in/ { authorizer p DIR/check.php; pool app } }\n"
              f"pool p {{ php; {USER} workers 1 }}\npool app {{ run ./roles_app; {USER} }}\n")
    php = """<?php if ($_SERVER['QUERY_STRING'] !== 'yes') { http_response_code(403); exit('not you'); }
header('Variable-REMOTE_USER: carol'); header('Variable-ROLE: ' . $_SERVER['FCGI_ROLE']);"""
    with Weir(config, {"check.php": php}, prepare=prepare) as w:
        p = params(w.get("/in/x?yes"))
        assert p["REMOTE_USER"] == "carol" and p["ROLE"] == "AUTHORIZER" and p["PATH_INFO"] == "/x"
        r = w.get("/in/x?no")
        assert r.status == 403 and r.text == b"not you"


# ---- programs that do not speak a role ----

def test_a_program_that_is_no_authorizer_is_told_apart(w):
    config = CONFIG.replace("run ./roles_app; " + USER + " time", "run ./hello; " + USER + " time")
    with Weir(config, {"public/f.html": "a file"}, prepare=prepare) as other:
        r = other.get("/f.html")
        assert r.status == 500 and b"a file" not in r.text
        wait_for(lambda: "auth: 500 for /f.html: " in other.log() and "role" in other.log())


@pytest.mark.parametrize("text,expected", [
    ("site s { listen http://127.0.0.1:1; authorizer nobody }", 'no pool is named "nobody"'),
    ("site s { listen http://127.0.0.1:1; route /x { filter f; files } }\npool f { run ./x }", "files"),
    ("site s { listen http://127.0.0.1:1; root .; authorizer f }\npool f { cgi }", "those know no roles"),
    ("site s { listen http://127.0.0.1:1; root .; filter f }\npool f { cgi }", "those know no roles"),
    ("site s { listen http://127.0.0.1:1; root .; filter f }\npool f { php }", "reads no DATA"),
    ("site s { listen http://127.0.0.1:1; root .; authorizer f }\npool f { php }", "no script decides"),
    ("site s { listen http://127.0.0.1:1; filter f }\npool f { run ./x }", "there is no root with files"),
])
def test_what_cannot_be_is_told(text, expected, tmp_path):
    status, said = check_says(text, tmp_path)
    assert status != 0 and expected in said, said


# ---- the same program as plain CGI ----

def cgi(program, body=b"", **env):
    return subprocess.run([os.path.join(EXAMPLES if program == "hello" else TEST_APPS, program)], input=body, capture_output=True,
                          env={"GATEWAY_INTERFACE": "CGI/1.1", **env}, timeout=60)


def test_a_program_runs_as_plain_cgi_when_it_has_no_socket():
    """FC1-2.2-c"""
    r = cgi("hello", QUERY_STRING="you")
    assert r.returncode == 0 and r.stdout == b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello, you!\n" and not r.stderr


@pytest.mark.parametrize("size", [0, 1, 100000, 2000000])
def test_its_body_is_what_content_length_says(size):
    r = cgi("roles_app", b"x" * size + b"behind it", CONTENT_LENGTH=str(size), REQUEST_METHOD="POST", EMPTY="")
    assert r.returncode == 0 and r.stdout.endswith(b"body %d\n" % size) and b"\nEMPTY=\n" in r.stdout


def test_its_body_may_end_early_and_its_errors_go_to_standard_error():
    """FC1-6.2-f, FC1-7-c"""
    assert cgi("roles_app", b"abc", CONTENT_LENGTH="10").stdout.endswith(b"body 3\n")
    r = cgi("roles_app", FCGI_ROLE="AUTHORIZER", REQUEST_URI="/x", QUERY_STRING="no")
    assert r.stdout.startswith(b"Status: 403\r\n") and r.stderr == b"asked for /x\n"


def test_a_program_without_socket_and_without_cgi_says_so():
    """FC1-2.2-c"""
    r = subprocess.run([os.path.join(EXAMPLES, "hello")], stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=60)
    assert r.returncode == 1 and b"hello: " in r.stderr


def test_its_reader_may_leave():
    with open(os.devnull) as null:
        p = subprocess.Popen([os.path.join(TEST_APPS, "threads_app")], stdin=null, stdout=subprocess.PIPE, env={"GATEWAY_INTERFACE": "CGI/1.1", "PATH_INFO": "/big/30000000"})
        assert p.stdout.read(10)
        p.stdout.close()
        assert p.wait(60) is not None
