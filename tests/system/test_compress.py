# SPDX-License-Identifier: MIT
"""Content that is compressed on its way: what is and what is not, streams that pause, answers that are cut off."""
import gzip
import http.client
import os
import random
import re
import subprocess
import threading
import zlib

import pytest
from weirlib import USER, UnixServer, Weir, status_of

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php php
    compress yes
    route /off/ {{ compress no; php php }}
    route /types/ {{ compress {{ types text/* application/x-own; min 10B; level 9 }}; php php }}
    route /ready/ {{ precompressed yes; files }}
    route /stream/ {{ pool stream; compress {{ types text/* }} }}
}}
site quiet.test {{ listen http://127.0.0.1:PORT; root public; php php }}
pool php {{ php; {USER} workers 4 }}
pool stream {{ connect unix:DIR/run/keep-stream.sock {{ workers 200 }} }}
"""
TEXT = b"".join(b"line %d of a text that repeats itself\n" % (i % 50) for i in range(100000))  # 3.6 MB
NOISE = random.Random(1).randbytes(2000000)
FILES = {
    "public/a.txt": TEXT[:20000], "public/large.txt": TEXT, "public/noise.txt": NOISE, "public/small.txt": "x" * 1023, "public/least.txt": "x" * 1024, "public/a.png": TEXT[:20000],
    "public/huge.txt": b"", "public/ready/a.css": TEXT[:5000], "public/ready/a.css.gz": gzip.compress(b"ready made"), "public/zero.txt": bytes(10 << 20),
    "public/page.php": "<?php header('ETag: \"own\"'); header('Accept-Ranges: bytes'); echo str_repeat('a page ', 1000);",
    "public/long.php": "<?php for ($i = 0; $i < 3000; $i++) echo str_repeat(\"$i \", 500);",
    "public/length.php": "<?php header('Content-Length: 14000'); echo str_repeat('a page ', 2000);",
    "public/short.php": "<?php header('Content-Length: 50000'); echo str_repeat('a page ', 2000);",
    "public/short-stream.php": "<?php header('Content-Length: 50000'); echo str_repeat('a page ', 2000); flush(); usleep(1000);",
    "public/any.php": "<?php parse_str($_SERVER['QUERY_STRING'], $q); foreach ($q['h'] ?? [] as $h) header($h); http_response_code((int)($q['s'] ?? 200)); echo str_repeat('a page ', (int)($q['n'] ?? 1000));",
    "public/die.php": "<?php header('Content-Type: text/html'); echo str_repeat('a page ', 20000); flush(); posix_kill(getmypid(), 9);",
}
for name in ("page", "any"):
    FILES[f"public/off/{name}.php"] = FILES[f"public/types/{name}.php"] = FILES[f"public/{name}.php"]
GZIP = {"Accept-Encoding": "gzip"}
PAGE = b"a page " * 1000


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        with open(os.path.join(w.public, "huge.txt"), "r+b") as f:
            f.truncate(20 << 20)
    with Weir(CONFIG, FILES, prepare=prepare, program="threads 1") as w:
        yield w


def packed(r):
    assert r.headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in r.headers["Vary"]
    d = zlib.decompressobj(31)
    out = d.decompress(r.text)
    assert d.eof and not d.unused_data
    return out


def test_files_and_pages_are_compressed_for_who_takes_it(weir):
    for path, text in (("/a.txt", TEXT[:20000]), ("/large.txt", TEXT), ("/noise.txt", NOISE), ("/least.txt", b"x" * 1024), ("/zero.txt", bytes(10 << 20)), ("/page.php", PAGE),
                       ("/length.php", b"a page " * 2000), ("/long.php", b"".join(b"%d " % i * 500 for i in range(3000)))):
        r = weir.get(path, headers=GZIP)
        assert r.status == 200 and packed(r) == text, path
        plain = weir.get(path)
        assert plain.text == text and "Content-Encoding" not in plain.headers and plain.headers["Vary"] == "Accept-Encoding", path
        if path != "/noise.txt":
            assert len(r.text) < len(text) / 3, path


def test_what_is_known_to_its_end_has_a_length(weir):
    r = weir.get("/page.php", headers=GZIP)
    assert int(r.headers["Content-Length"]) == len(r.text) and "Transfer-Encoding" not in r.headers
    assert weir.get("/large.txt", headers=GZIP).headers["Transfer-Encoding"] == "chunked"


def test_validators_become_weak_and_parts_are_of_the_plain_file(weir):
    r, plain = weir.get("/a.txt", headers=GZIP), weir.get("/a.txt")
    assert r.headers["ETag"] == "W/" + plain.headers["ETag"] and "Accept-Ranges" not in r.headers
    r = weir.get("/a.txt", headers={**GZIP, "If-None-Match": r.headers["ETag"]})
    assert (r.status, r.headers["Vary"]) == (304, "Accept-Encoding")
    r = weir.get("/page.php", headers=GZIP)
    assert r.headers["ETag"] == 'W/"own"' and "Accept-Ranges" not in r.headers
    r = weir.get("/a.txt", headers={**GZIP, "Range": "bytes=5-9"})
    assert r.status == 206 and r.text == TEXT[5:10] and "Content-Encoding" not in r.headers
    assert weir.get("/a.txt", headers={**GZIP, "Range": "bytes=5-9", "If-Range": "W/" + plain.headers["ETag"]}).status == 200


@pytest.mark.parametrize("path,headers,method", [
    ("/a.txt", {}, "GET"), ("/a.txt", {"Accept-Encoding": "br"}, "GET"), ("/a.txt", {"Accept-Encoding": "gzip;q=0"}, "GET"), ("/a.txt", {"Accept-Encoding": "identity, gzip;q=0.5"}, "GET"),
    ("/a.txt", GZIP, "HEAD"), ("/page.php", GZIP, "HEAD"), ("/small.txt", GZIP, "GET"), ("/a.png", GZIP, "GET"), ("/huge.txt", GZIP, "GET"), ("/any.php?n=10", GZIP, "GET"),
    ("/any.php?h[]=Content-Encoding:x-own", GZIP, "GET"), ("/any.php?h[]=Cache-Control:private,%20no-transform", GZIP, "GET"), ("/a.txt", {**GZIP, "Cache-Control": "no-transform"}, "GET"),
    ("/any.php?h[]=Content-Type:image/png", GZIP, "GET"), ("/any.php?s=204", GZIP, "GET"), ("/any.php?s=304", GZIP, "GET"), ("/any.php?s=206", GZIP, "GET"),
    ("/any.php?h[]=Content-Range:bytes%200-6999/7000", GZIP, "GET"), ("/off/page.php", GZIP, "GET"), ("/types/any.php?h[]=Content-Type:application/json", GZIP, "GET")])
def test_what_is_not_compressed(weir, path, headers, method):
    r = weir.get(path, method, headers=headers)
    assert r.status in (200, 204, 206, 304) and r.headers["Content-Encoding"] in (None, "x-own"), path
    if method == "GET" and r.status == 200 and ".php" in path and "n=" not in path:
        assert r.text == PAGE


def test_types_and_sizes_may_be_chosen(weir):
    for more in ("h[]=Content-Type:text/x-any", "h[]=Content-Type:application/x-own", "h[]=Content-Type:TEXT/HTML;charset=x"):
        assert packed(weir.get("/types/any.php?n=3&" + more, headers=GZIP)) == b"a page " * 3
    assert "Content-Encoding" not in weir.get("/page.php", headers=GZIP, host="quiet.test").headers  # nothing is, unless it is said
    assert "Vary" not in weir.get("/page.php", headers=GZIP, host="quiet.test").headers
    r = weir.get("/any.php?h[]=Vary:Cookie", headers=GZIP)
    assert r.headers.get_all("Vary") == ["Cookie", "Accept-Encoding"]
    assert weir.get("/any.php?h[]=Vary:accept-encoding,%20Cookie", headers=GZIP).headers.get_all("Vary") == ["accept-encoding, Cookie"]
    r = weir.get("/any.php?s=404", headers=GZIP)
    assert r.status == 404 and packed(r) == PAGE


def test_what_was_compressed_before_is_sent_as_it_is(weir):
    r = weir.get("/ready/a.css", headers=GZIP)
    assert packed(r) == b"ready made" and not r.headers["ETag"].startswith("W/")


def test_the_same_over_http_2_and_1_0(weir):
    for path, text in (("/large.txt", TEXT), ("/page.php", PAGE), ("/zero.txt", bytes(10 << 20)), ("/noise.txt", NOISE)):
        r = subprocess.run(["curl", "-s", "-S", "--max-time", "60", "--http2-prior-knowledge", "--compressed", "-D", "-", "-o", "-", f"http://127.0.0.1:{weir.port}{path}"], capture_output=True)
        head, body = r.stdout.split(b"\r\n\r\n", 1)
        assert r.returncode == 0 and body == text and b"content-encoding: gzip" in head, path
    out = weir.raw(b"GET /a.txt HTTP/1.0\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n")
    assert status_of(out) == 200 and b"Content-Encoding" not in out and out.endswith(TEXT[:20000])


def test_an_answer_that_is_cut_off_does_not_look_whole(weir):
    for path in ("/short.php", "/short-stream.php", "/die.php"):
        out = weir.raw(b"GET %s HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n" % path.encode())
        head, body = out.split(b"\r\n\r\n", 1)
        if status_of(out) != 502:  # else it ended before anything was sent
            assert b"Content-Encoding: gzip" in head and not body.endswith(b"0\r\n\r\n"), path
    assert weir.get("/page.php").text == PAGE


def test_a_connection_goes_on_behind_compressed_answers(weir):
    one = b"GET %s HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n%s\r\n"
    out = weir.raw(one % (b"/a.txt", b"") + one % (b"/page.php", b"") + one % (b"/large.txt", b"") + one % (b"/small.txt", b"Connection: close\r\n"))
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", out) == [b"200"] * 4 and out.endswith(b"x" * 1023)


class Pausing(UnixServer):
    """An app that says a piece of each answer when it is told to go on, to all that ask at once."""

    def __init__(self, weir, pieces, go):
        self.pieces, self.go, path = pieces, go, os.path.join(weir.run_dir, "keep-stream.sock")
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path)

    def serve(self, c):
        def send(b):
            c.sendall(b"\x01\x06\x00\x01" + len(b).to_bytes(2, "big") + b"\0\0" + b)
        c.recv(65536)
        send(b"Content-Type: text/event-stream\r\n\r\n")
        for p in self.pieces:
            send(p)
            self.go()
        send(b"")
        c.sendall(b"\x01\x03\x00\x01\x00\x08\x00\x00" + bytes(8))
        c.close()


def test_more_answers_at_once_than_there_are_states_are_sent_as_they_are(weir):
    """150 answers that are not over, of one thread with 128 states."""
    go, asked = threading.Event(), []
    Pausing(weir, [TEXT[:3000]], go.wait)
    try:
        for _ in range(150):
            c = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=60)
            c.request("GET", "/stream/x", headers={**GZIP, "Host": "a.test"})
            asked.append((c, c.getresponse()))
        coded = [r.headers["Content-Encoding"] == "gzip" for _, r in asked]
        assert coded == [True] * 128 + [False] * 22
        go.set()
        for _, r in asked:
            r.text = r.read()
            assert (packed(r) if r.headers["Content-Encoding"] else r.text) == TEXT[:3000] and r.headers["Vary"] == "Accept-Encoding"
    finally:
        go.set()
        for c, _ in asked:
            c.close()
    assert packed(weir.get("/large.txt", headers=GZIP)) == TEXT


def test_what_an_app_says_before_a_pause_reaches_the_client(weir):
    """The app goes on only when the client has told that it could read the piece before."""
    go, pieces = threading.Semaphore(0), [b"data: one\n\n", b"data: two and more of it\n\n", b"x" * 5000, b"data: last\n\n"]
    Pausing(weir, pieces, go.acquire)
    c = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=60)
    c.request("GET", "/stream/x", headers={**GZIP, "Host": "a.test"})
    r = c.getresponse()
    assert r.headers["Content-Encoding"] == "gzip"
    d, seen = zlib.decompressobj(31), b""
    for i, p in enumerate(pieces):
        while len(seen) < sum(map(len, pieces[:i + 1])):
            seen += d.decompress(r.read1(65536))
        assert seen.endswith(p)
        go.release()
    assert d.decompress(r.read()) == b"" and d.eof and seen == b"".join(pieces)
    c.close()
