# SPDX-License-Identifier: MIT
"""A site as a browser sees it: files, PHP, a C app, routes."""
import hashlib
import os
import socket
import zlib

import pytest
from weirlib import USER, Weir, read_all, status_of, wait_for

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php php
    debug yes
    route /app/ {{ pool demo }}
    route /hello/ {{ pool hello }}
    route /deny/ {{ deny }}
    route /old {{ redirect 301 /new }}
    route *.fcgi {{ pool demo }}
    route /files/ {{ files }}
}}
site b.test {{ listen http://127.0.0.1:PORT; root other; index b.html }}
pool php {{ php; {USER} workers 3 }}
pool demo {{ run ./demo; {USER} processes 2 }}
pool hello {{ run ./hello; {USER} }}
"""
FILES = {
    "public/index.html": "<h1>index</h1>",
    "public/info.php": "<?php echo json_encode($_SERVER);",
    "public/echo.php": "<?php echo strlen(file_get_contents('php://input')), ' ', sha1(file_get_contents('php://input'));",
    "public/redirect.php": "<?php header('Location: /info.php?x=1');",
    "public/status.php": "<?php http_response_code(418); header('X-A: b'); echo 'teapot';",
    "public/big.php": "<?php for ($i = 0; $i < 1024; $i++) echo str_repeat('x', 1024);",
    "public/err.php": "<?php error_log(\"app says\\x01 hi\"); echo 'ok';",
    "public/dir/index.html": "dir",
    "public/.secret": "no", "public/a.txt~": "no", "public/x.bak": "no", "public/.well-known/ok.txt": "yes",
    "public/files/x.php": "<?php echo 'run';", "public/a.css": "a{}", "public/bin": "x" * 300000,
    "other/b.html": "b site",
}


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, FILES) as w:
        w.write("other/evil", "")
        os.symlink("/etc/passwd", os.path.join(w.public, "link"))
        yield w


def test_a_file_has_type_length_and_validators(weir):
    r = weir.get("/a.css")
    assert (r.status, r.text, r.headers["Content-Type"]) == (200, b"a{}", "text/css; charset=utf-8")
    assert weir.get("/a.css", headers={"If-None-Match": r.headers["ETag"]}).status == 304
    assert weir.get("/a.css", headers={"If-Modified-Since": r.headers["Last-Modified"]}).status == 304
    assert weir.get("/a.css", headers={"If-Match": '"no"'}).status == 412


def test_a_large_file_arrives_whole(weir):
    assert weir.get("/bin").text == b"x" * 300000


def test_a_folder_redirects_to_its_slash_and_serves_its_index(weir):
    r = weir.get("/dir?q=1")
    assert (r.status, r.headers["Location"]) == (301, "/dir/?q=1")
    assert weir.get("/dir/").text == b"dir"
    assert weir.get("/").text == b"<h1>index</h1>"


@pytest.mark.parametrize("path", ["/.secret", "/a.txt~", "/x.bak", "/files/x.php", "/deny/x", "/link", "/..%2f..%2fetc/passwd", "/nothing"])
def test_what_must_not_be_served_is_not(weir, path):
    r = weir.get(path)
    assert r.status in (400, 403, 404)
    assert b"root:" not in r.text and b"<?php" not in r.text


def test_well_known_is_served(weir):
    assert weir.get("/.well-known/ok.txt").text == b"yes"


def test_head_has_no_content(weir):
    for path in ("/a.css", "/info.php", "/app/hello"):
        r = weir.get(path, "HEAD")
        assert r.status == 200 and r.text == b""


def test_methods_other_than_get_and_head_are_refused_for_files(weir):
    assert weir.get("/a.css", "POST", b"x").status == 405


def test_php_gets_the_parameters_it_expects(weir):
    import json
    r = weir.get("/info.php/path/info?q=1&r=2", headers={"Proxy": "evil", "X_Under": "x", "X-Good": "y", "Cookie": "a=b"})
    s = json.loads(r.text)
    assert s["SCRIPT_NAME"] == "/info.php" and s["PATH_INFO"] == "/path/info" and s["QUERY_STRING"] == "q=1&r=2"
    assert s["SCRIPT_FILENAME"] == weir.public + "/info.php" and s["DOCUMENT_ROOT"] == weir.public
    assert s["REQUEST_URI"] == "/info.php/path/info?q=1&r=2" and s["REMOTE_ADDR"] == "127.0.0.1"
    assert s["SERVER_PORT"] == str(weir.port) and s["HTTP_X_GOOD"] == "y" and s["HTTP_COOKIE"] == "a=b"
    assert "HTTP_PROXY" not in s and "HTTP_X_UNDER" not in s and "CONTENT_LENGTH" not in s


def test_a_script_that_does_not_exist_is_not_run(weir):
    assert weir.get("/no.php").status == 404
    assert weir.get("/a.css/x.php").status == 404


@pytest.mark.parametrize("size", [0, 1, 70000, 3000000])
def test_a_body_reaches_php_and_the_c_app(weir, size):
    body = os.urandom(size)
    assert weir.get("/echo.php", "POST", body).text.decode() == f"{size} {hashlib.sha1(body).hexdigest()}"
    assert weir.get("/app/upload", "POST", body).text.decode() == f"{size} bytes, Adler-32 {zlib.adler32(body):08x}\n"


def test_a_chunked_body_gets_its_length(weir):
    def pieces():
        for _ in range(50):
            yield b"0123456789" * 1000
    r = weir.get("/echo.php", "POST", pieces())
    assert r.text.startswith(b"500000 ")


def test_status_redirect_and_header_of_an_app_pass(weir):
    """FC1-6.1-h"""
    r = weir.get("/status.php")
    assert (r.status, r.headers["X-A"], r.text) == (418, "b", b"teapot")
    r = weir.get("/redirect.php")
    assert (r.status, r.headers["Location"]) == (302, "/info.php?x=1")


def test_the_answer_of_an_app_has_its_length_or_chunks(weir):
    assert weir.get("/app/hello").headers["Content-Length"] == "59"
    r = weir.get("/app/stream")
    assert r.headers["Transfer-Encoding"] == "chunked" and r.text.count(b"\n") == 10


def test_a_megabyte_from_php_arrives(weir):
    assert weir.get("/big.php").text == b"x" * (1 << 20)


def test_sites_are_chosen_by_host(weir):
    assert weir.get("/", host="b.test").text == b"b site"
    assert weir.get("/", host="B.TEST:99").text == b"b site"
    assert weir.get("/", host="unknown.test").text == b"<h1>index</h1>"


def test_routes_match_in_the_order_written(weir):
    assert weir.get("/old").headers["Location"] == "/new"
    assert b"no such page" in weir.get("/any/x.fcgi/y").text
    assert weir.get("/hello/?you").text == b"Hello, you!\n"
    assert weir.get("/files/none").status == 404


def test_stderr_of_an_app_reaches_the_log_escaped(weir):
    """FC1-7-c"""
    assert weir.get("/err.php").text == b"ok"
    wait_for(lambda: "app says" in weir.log())
    assert "\x01" not in weir.log()


def test_pipelined_requests_are_answered_in_order(weir):
    one = b"GET /hello/?%d HTTP/1.1\r\nHost: a.test\r\n\r\n"
    out = weir.raw(b"".join(one % i for i in range(20)) + b"GET /a.css HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    at = [out.index(b"Hello, %d!" % i) for i in range(20)]
    assert at == sorted(at) and out.endswith(b"a{}")


def test_expect_100_continue_is_answered_before_the_body(weir):
    with weir.connect() as s:
        s.sendall(b"POST /echo.php HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        s.sendall(b"hello")
        out = read_all(s)
        assert status_of(out) == 200 and b"5 aaf4c61d" in out


def test_http_1_0_is_answered_and_closed(weir):
    out = weir.raw(b"GET /app/stream HTTP/1.0\r\n\r\n")
    assert status_of(out) == 200 and b"chunked" not in out and out.endswith(b"line 10 of 10\n")


def test_a_client_that_reads_slowly_gets_all(weir):
    with weir.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"GET /big.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        n = 0
        while True:
            piece = s.recv(3000)
            if not piece:
                break
            n += piece.count(b"x")
        assert n >= 1 << 20


BAD = [
    (b"GARBAGE\r\n\r\n", 400), (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505), (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400), (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    (b"POST /echo.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"POST /echo.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n", 400),
    (b"POST /echo.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n", 400),
    (b"POST /echo.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501), (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n", 400), (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"get / http/1.1\r\nhost: a\r\n\r\n", 400), (b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
]


@pytest.mark.parametrize("request_bytes,status", BAD, ids=[str(i) for i in range(len(BAD))])
def test_ambiguous_and_oversized_requests_get_their_error_and_a_close(weir, request_bytes, status):
    out = weir.raw(request_bytes)
    assert status_of(out) == status
    assert b"Connection: close" in out
    assert weir.get("/hello/?still").text == b"Hello, still!\n"
