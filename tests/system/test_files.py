# SPDX-License-Identifier: MIT
"""Files: parts of them, conditions, caching, files that were compressed before; and those that an app hands over."""
import email.parser
import email.policy
import email.utils
import gzip
import os
import re
import subprocess

import pytest
from h2client import DATA, END_STREAM, H2, HEADERS
from weirlib import USER, Weir, wait_for

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php php
    precompressed yes
    route /assets/ {{ files {{ cache 1y immutable }} }}
    route /fresh/ {{ files {{ cache no }} }}
    route /plain/ {{ precompressed no; files }}
    route *.gz {{ deny }}
    route /give/ {{ php php; send-file private other/deep other; accel-redirect yes; error 404 /missing.txt }}
    route /half/ {{ php php; send-file private }}
    route /hand/ {{ pool hand; send-file public }}
    route /inner/ {{ internal; strip /inner; root private; files }}
    route /local/ {{ pool local; accel-redirect yes }}
    route /inner-app/ {{ internal; strip /inner-app; php php }}
    route /guarded/ {{ deny }}
}}
pool php {{ php; {USER} workers 3 }}
pool hand {{ cgi ./hand.sh; {USER} }}
pool local {{ cgi ./local.sh; {USER} }}
"""
LARGE = b"".join(b"%07d\n" % i for i in range(400000))  # 3.2 MB, each place tells where it is
HAND = """<?php
parse_str($_SERVER['QUERY_STRING'], $q);
foreach ($q['h'] ?? [] as $line) header($line);
if (isset($q['status'])) http_response_code((int)$q['status']);
echo str_repeat('the body of the app', 1000);
"""
FILES = {
    "public/a.txt": "0123456789" * 100, "public/empty.txt": "", "public/large.bin": LARGE, "public/missing.txt": "page of 404",
    "public/assets/x.js": "let x;", "public/fresh/x.css": "a{}",
    "public/c.css": "a{color:red}" * 50, "public/c.css.br": "brotli!", "public/c.css.zst": "zstd!", "public/c.css.gz": gzip.compress(b"a{color:red}" * 50),
    "public/old.css": "new", "public/old.css.br": "stale", "public/plain/c.css": "as it is", "public/plain/c.css.br": "brotli!",
    "public/dir/index.html": "index", "public/dir/index.html.br": "index in br",
    "public/give/x.php": HAND, "public/half/x.php": HAND, "public/give/cached.php": "<?php header('X-Accel-Redirect: /inner/secret.txt'); header('Cache-Control: private'); header('ETag: \"own\"');",
    "hand.sh": "#!/bin/sh\nprintf 'X-Sendfile: %s/public/c.css\n\n' \"$(dirname \"$0\")\"\n",
    "local.sh": "#!/bin/sh\nprintf 'Location: %s\\n\\n' \"$PATH_INFO\"\n",
    "private/secret.txt": "secret file " * 50, "private/.dot": "hidden", "private/run.php": "<?php echo 'not run';", "private/sub/deep.txt": "deep", "private/large.bin": LARGE,
    "other/o.txt": "other", "other/deep/d.txt": "deeper", "outside.txt": "outside", "public/index.php": "<?php echo 'index.php ', $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['QUERY_STRING'];",
}


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        os.utime(os.path.join(w.public, "old.css.br"), (1000000000, 1000000000))
        os.symlink("../outside.txt", os.path.join(w.dir, "private/link.txt"))
    with Weir(CONFIG, FILES, prepare=prepare) as w:
        yield w


def curl(weir, path, *args):
    r = subprocess.run(["curl", "-s", "-S", "--max-time", "60", *args, f"http://127.0.0.1:{weir.port}{path}"], capture_output=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


# ---- parts ----

@pytest.mark.parametrize("asked,first,last", [("0-0", 0, 0), ("10-19", 10, 19), ("990-", 990, 999), ("-10", 990, 999), ("999-5000", 999, 999), ("-5000", 0, 999), ("0-9,5-20", 0, 20),
                                              ("40-49, 0-9", 0, 49)])
def test_one_part_of_a_file(weir, asked, first, last):
    r = weir.get("/a.txt", headers={"Range": f"bytes={asked}"})
    assert r.status == 206 and r.headers["Content-Range"] == f"bytes {first}-{last}/1000" and r.headers["Content-Length"] == str(last - first + 1)
    assert r.text == (b"0123456789" * 100)[first:last + 1] and r.headers["Content-Type"] == "text/plain; charset=utf-8" and r.headers["ETag"]


def test_the_whole_says_that_parts_may_be_had(weir):
    assert weir.get("/a.txt").headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["items=0-1", "bytes=5-1", "bytes=x", "bytes=0-1,x", "bytes=", "bytes=" + ",".join(f"{i * 100}-{i * 100}" for i in range(17))])
def test_what_is_no_range_or_asks_for_too_many_gets_the_whole(weir, asked):
    r = weir.get("/large.bin", headers={"Range": asked})
    assert r.status == 200 and r.text == LARGE


def test_a_range_outside_is_told(weir):
    for path, size, asked in (("/a.txt", 1000, "1000-"), ("/a.txt", 1000, "-0"), ("/a.txt", 1000, "5000-6000,2000-"), ("/empty.txt", 0, "0-")):
        r = weir.get(path, headers={"Range": f"bytes={asked}"})
        assert r.status == 416 and r.headers["Content-Range"] == f"bytes */{size}"


def parts_of(r):
    head = b"Content-Type: " + r.headers["Content-Type"].encode() + b"\r\n\r\n"
    m = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + r.text)
    assert m.is_multipart() and not m.defects
    return [(p["Content-Type"], p["Content-Range"], p.get_payload(decode=True)) for p in m.get_payload()]


def test_several_parts_come_as_one_multipart_answer(weir):
    r = weir.get("/large.bin", headers={"Range": "bytes=3000000-3000007,0-7,1600000-2600000,-8"})
    assert r.status == 206 and int(r.headers["Content-Length"]) == len(r.text) and "Content-Range" not in r.headers
    got = parts_of(r)
    for (kind, where, body), (first, last) in zip(got, ((3000000, 3000007), (0, 7), (1600000, 2600000), (len(LARGE) - 8, len(LARGE) - 1)), strict=True):
        assert kind == "application/octet-stream" and where == f"bytes {first}-{last}/{len(LARGE)}" and len(body) == last - first + 1
        assert body == LARGE[first:last + 1]


def test_the_same_over_http_2(weir):
    assert curl(weir, "/large.bin", "--http2-prior-knowledge", "-r", "1000000-2000000") == LARGE[1000000:2000001]
    out = curl(weir, "/large.bin", "--http2-prior-knowledge", "-r", "0-9,1000000-2000000")
    assert out.count(b"Content-Range: bytes ") == 2 and LARGE[1000000:2000001] in out
    assert b"HTTP/2 416" in curl(weir, "/a.txt", "--http2-prior-knowledge", "-i", "-r", "1000-")


def test_a_download_is_resumed_by_curl(weir, tmp_path):
    half = tmp_path / "half"
    half.write_bytes(LARGE[:1234567])
    subprocess.run(["curl", "-s", "-S", "--max-time", "60", "-C", "-", "-o", str(half), f"http://127.0.0.1:{weir.port}/large.bin"], check=True)
    assert half.read_bytes() == LARGE


def test_a_part_is_only_given_of_the_file_that_the_client_knows(weir):
    r = weir.get("/a.txt")
    etag, date = r.headers["ETag"], r.headers["Last-Modified"]
    for condition, status in ((etag, 206), (date, 206), ('"other"', 200), ("W/" + etag, 200), (email.utils.formatdate(1000000000, usegmt=True), 200), ("nonsense", 200)):
        r = weir.get("/a.txt", headers={"Range": "bytes=0-4", "If-Range": condition})
        assert r.status == status, condition
    assert weir.get("/a.txt", headers={"Range": "bytes=0-4", "If-None-Match": etag}).status == 304
    assert weir.get("/a.txt", headers={"Range": "bytes=0-4", "If-Match": '"no"'}).status == 412


def test_head_tells_the_whole(weir):
    r = weir.get("/a.txt", "HEAD", headers={"Range": "bytes=0-4"})
    assert (r.status, r.headers["Content-Length"], r.text) == (200, "1000", b"")


def test_a_connection_goes_on_behind_parts(weir):
    one = b"GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=%s\r\n\r\n"
    out = weir.raw(one % b"0-1" + one % b"0-1,500-501" + one % b"2000-" + b"GET /assets/x.js HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", out) == [b"206", b"206", b"416", b"200"] and out.endswith(b"let x;")


# ---- caching, codings ----

def test_cache_tells_how_long_a_file_holds(weir):
    r = weir.get("/assets/x.js")
    assert r.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert weir.get("/assets/x.js", headers={"If-None-Match": r.headers["ETag"]}).headers["Cache-Control"] == "max-age=31536000, immutable"
    assert weir.get("/fresh/x.css").headers["Cache-Control"] == "no-cache"
    assert "Cache-Control" not in weir.get("/a.txt").headers and "Cache-Control" not in weir.get("/assets/none").headers


@pytest.mark.parametrize("accept,coding,text", [("br", "br", b"brotli!"), ("gzip, br", "br", b"brotli!"), ("gzip, zstd;q=0.9", None, None), ("zstd", "zstd", b"zstd!"),
                                                ("gzip;q=1, br;q=0.2", "br", b"brotli!"), ("br;q=0, *", "zstd", b"zstd!"), ("identity", None, None), ("", None, None), (None, None, None)])
def test_a_file_that_was_compressed_before_is_sent_to_who_takes_it(weir, accept, coding, text):
    """x.gz has a route of its own that denies it: it is never sent for x."""
    r = weir.get("/c.css", headers={} if accept is None else {"Accept-Encoding": accept})
    if accept == "gzip, zstd;q=0.9":
        coding, text = "zstd", b"zstd!"
    assert r.status == 200 and r.headers["Content-Encoding"] == coding and r.text == (text or b"a{color:red}" * 50)
    assert r.headers["Vary"] == "Accept-Encoding" and r.headers["Content-Type"] == "text/css; charset=utf-8"


def test_each_coding_has_its_own_validator_and_parts(weir):
    tags = {weir.get("/c.css", headers={"Accept-Encoding": a}).headers["ETag"] for a in ("br", "zstd", "identity")}
    assert len(tags) == 3
    br = weir.get("/c.css", headers={"Accept-Encoding": "br"}).headers["ETag"]
    assert weir.get("/c.css", headers={"Accept-Encoding": "br", "If-None-Match": br}).status == 304
    assert weir.get("/c.css", headers={"Accept-Encoding": "identity", "If-None-Match": br}).status == 200
    r = weir.get("/c.css", headers={"Accept-Encoding": "br", "Range": "bytes=1-3"})
    assert (r.status, r.text, r.headers["Content-Encoding"], r.headers["Content-Range"]) == (206, b"rot", "br", "bytes 1-3/7")


def test_one_that_is_older_than_its_file_is_not_sent_and_an_index_may_be_compressed_too(weir):
    assert weir.get("/old.css", headers={"Accept-Encoding": "br"}).text == b"new"
    r = weir.get("/dir/", headers={"Accept-Encoding": "br"})
    assert (r.text, r.headers["Content-Encoding"], r.headers["Content-Type"]) == (b"index in br", "br", "text/html; charset=utf-8")
    r = weir.get("/plain/c.css", headers={"Accept-Encoding": "br"})
    assert r.text == b"as it is" and "Vary" not in r.headers


# ---- hand-over ----

def give(weir, *lines, route="give", method="GET", more="", **headers):
    from urllib.parse import quote
    query = "&".join("h[]=" + quote(line.replace("DIR", weir.dir)) for line in lines)
    return weir.get(f"/{route}/x.php?{query}{more}", method, b"some body" if method == "POST" else None, {k.replace("_", "-"): v for k, v in headers.items()})


def test_an_app_hands_over_a_file_by_its_name(weir):
    r = give(weir, "X-Sendfile: DIR/private/secret.txt", "Content-Type: application/x-own", "Content-Disposition: attachment; filename=a.txt", "X-Own: y", "Set-Cookie: a=b", "ETag: \"wrong\"")
    assert r.status == 200 and r.text == b"secret file " * 50 and r.headers["Content-Length"] == "600"
    assert (r.headers["Content-Type"], r.headers["X-Own"], r.headers["Set-Cookie"]) == ("application/x-own", "y", "a=b") and r.headers["Content-Disposition"].startswith("attachment")
    assert "X-Sendfile" not in r.headers and r.headers.get_all("ETag") != ['"wrong"'] and len(r.headers.get_all("ETag")) == 1
    etag = r.headers["ETag"]
    assert give(weir, "X-Sendfile: DIR/private/secret.txt", If_None_Match=etag).status == 304
    r = give(weir, "X-Sendfile: DIR/private/secret.txt", Range="bytes=7-10")
    assert (r.status, r.text, r.headers["Content-Range"]) == (206, b"file", "bytes 7-10/600")
    r = give(weir, "X-Sendfile: DIR/private/secret.txt", method="HEAD")
    assert (r.status, r.headers["Content-Length"], r.text) == (200, "600", b"")
    assert give(weir, "X-Sendfile: DIR/private/secret.txt", method="POST").text == b"secret file " * 50
    assert give(weir, "x-sendfile: DIR/private/large.bin").text == LARGE
    for name, text in (("private/run.php", b"<?php echo 'not run';"), ("private/.dot", b"hidden"), ("private/sub/../sub/deep.txt", b"deep"), ("other/deep/d.txt", b"deeper"), ("other/o.txt", b"other")):
        assert give(weir, f"X-Sendfile: DIR/{name}").text == text, name
    r = give(weir, "X-Sendfile: DIR/private/secret.txt", more="&status=404", Range="bytes=0-1")
    assert r.status == 404 and r.text == b"secret file " * 50


@pytest.mark.parametrize("path", ["DIR/outside.txt", "DIR/private/../outside.txt", "DIR/private/link.txt", "/etc/passwd", "DIR/private", "DIR/private/", "DIR/private/none", "private/secret.txt", "",
                                  "DIR/privatex/a", "DIR/private/sub/../../../etc/passwd", "/proc/self/environ"])
def test_what_does_not_lie_in_a_folder_of_send_file_is_not_sent(weir, path):
    r = give(weir, f"X-Sendfile: {path}")
    assert r.status == 404 and r.text == b"page of 404"


def test_an_app_sends_a_request_to_an_internal_route(weir):
    r = give(weir, "X-Accel-Redirect: /inner/secret.txt", "Content-Type: application/x-own", "X-Own: y", "Set-Cookie: a=b", Range="bytes=0-5")
    assert (r.status, r.text, r.headers["Content-Type"], r.headers["Set-Cookie"], r.headers["X-Own"]) == (206, b"secret", "application/x-own", "a=b", None)
    assert "X-Accel-Redirect" not in r.headers
    assert give(weir, "X-Accel-Redirect: /inner/sub/%64eep.txt", method="POST").text == b"deep"
    assert give(weir, "X-Accel-Redirect: /inner-app/any?x=1", method="POST").text == b"index.php GET x=1"
    r = weir.get("/give/cached.php")
    assert r.headers.get_all("Cache-Control") == ["private"] and r.headers["ETag"] != '"own"' and r.text == b"secret file " * 50
    for path, status in (("/inner/none", 404), ("/guarded/x", 403), ("/inner/.dot", 404), ("/inner/../../etc/passwd", 500), ("/inner/%2e%2e/%2e%2e/etc/passwd", 500), ("nonsense", 500), ("", 500)):
        assert give(weir, f"X-Accel-Redirect: {path}").status == status, path
    assert give(weir, "X-Accel-Redirect: /give/x.php?h[]=X-Accel-Redirect:/give/cached.php").text == b"secret file " * 50


def test_what_another_client_takes_does_not_choose_the_coding_of_a_file_that_is_handed_over(weir):
    for _ in range(5):
        assert weir.get("/c.css", headers={"Accept-Encoding": "br"}).text == b"brotli!"
        r = weir.get("/hand/")
        assert r.status == 200 and r.text == FILES["public/c.css"].encode() and not r.headers.get("Content-Encoding")


def test_a_file_whose_coding_was_chosen_says_so_also_where_an_app_handed_it_over(weir):
    weir.write("private/c.css", "plain")
    weir.write("private/c.css.br", "brotli!")
    r = give(weir, "X-Accel-Redirect: /inner/c.css", Accept_Encoding="br")
    assert r.text == b"brotli!" and r.headers["Content-Encoding"] == "br" and r.headers["Vary"] == "Accept-Encoding"
    r = give(weir, "X-Accel-Redirect: /inner/c.css")
    assert r.text == b"plain" and r.headers["Vary"] == "Accept-Encoding"


def test_a_circle_of_hand_overs_ends(weir):
    weir.write("public/give/round.php", "<?php header('X-Accel-Redirect: /give/round.php');")
    assert weir.get("/give/round.php").status == 500


def test_an_app_that_is_not_trusted_is_not_heard_and_no_client_sees_what_it_said(weir):
    r = give(weir, "X-Accel-Redirect: /inner/secret.txt", route="half")
    assert r.status == 200 and r.text.startswith(b"the body of the app") and "X-Accel-Redirect" not in r.headers
    wait_for(lambda: "X-Accel-Redirect is ignored" in weir.log())
    weir.write("public/x.php", HAND)
    r = weir.get(f"/x.php?h[]=X-Sendfile:{weir.dir}/private/secret.txt")
    assert r.status == 200 and r.text.startswith(b"the body of the app") and "X-Sendfile" not in r.headers
    wait_for(lambda: "X-Sendfile is ignored" in weir.log())
    r = weir.get("/x.php?h[]=Location:/inner/secret.txt")
    assert r.status == 302 or b"secret file" not in r.text


def test_a_local_redirect_of_an_app_does_not_enter_internal_routes(weir):
    assert weir.get("/local/a.txt").text == FILES["public/a.txt"].encode()
    assert weir.get("/local/inner/secret.txt").status == 404


# ---- many at once ----

@pytest.mark.threads
def test_who_asks_for_the_same_file_in_the_same_turn_gets_his_own_part_of_it(weir):
    a, c = FILES["public/a.txt"].encode(), FILES["public/c.css"].encode()
    kinds = [("/a.txt", "GET", (), "200", a), ("/a.txt", "GET", (("range", "bytes=5-14"),), "206", a[5:15]), ("/a.txt", "HEAD", (), "200", b""),
             ("/a.txt", "GET", (("range", "bytes=-3"),), "206", a[-3:]), ("/c.css", "GET", (("accept-encoding", "br"),), "200", b"brotli!"), ("/c.css", "GET", (), "200", c),
             ("/large.bin", "GET", (("range", "bytes=40000-40007"),), "206", LARGE[40000:40008]), ("/empty.txt", "GET", (), "200", b""), ("/none.txt", "GET", (), "200", b"index.php GET "),
             ("/inner/secret.txt", "GET", (), "404", None), ("/.dot", "GET", (), "200", b"index.php GET "), ("/dir/", "GET", (), "200", b"index")]
    with H2(weir.port) as client:
        for first in range(1, 400, 192):
            asked = {first + 2 * i: kinds[i % len(kinds)] for i in range(96)}
            client.send(*[client.head(i, path, method, authority="a.test", more=more) for i, (path, method, more, _, _) in asked.items()])
            status, content, open_ = {}, dict.fromkeys(asked, b""), set(asked)
            while open_:
                kind, flags, stream, body = client.read()
                if kind == HEADERS:
                    status[stream] = dict(client.decoder.decode(body))[":status"]
                if kind == DATA:
                    content[stream] += body
                if flags & END_STREAM and kind in (HEADERS, DATA):
                    open_.remove(stream)
            for i, (path, _, _, expected, text) in asked.items():
                assert status[i] == expected and text in (None, content[i]), path


def test_a_file_that_changes_is_served_as_it_is_now(weir):
    for i in range(30):
        weir.write("public/changes.txt", f"version {i}" * (i + 1))
        assert weir.get("/changes.txt").text == (f"version {i}" * (i + 1)).encode()
        os.remove(os.path.join(weir.public, "changes.txt"))
        assert weir.get("/changes.txt").text == b"index.php GET "
