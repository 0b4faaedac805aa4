# SPDX-License-Identifier: MIT
"""Which site and route serves, and where a route leads: hosts, methods, try, prefixes, redirects, error pages, internal routes, links."""
import json
import os
import re
import subprocess

import pytest
from weirlib import USER, WEIR, Weir, read_all, status_of

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    debug yes
    error 404 /errors/404.html
    error 403 405 /errors/page.php?from=site
    error 410 /errors/missing.html
    error 413 /errors/404.html
    error 500 /errors/loop
    error 502 503 504 /demo/hello
    route /errors/page.php {{ internal; php php }}
    route /errors/loop {{ internal; redirect /errors/loop }}
    route /errors/ {{ internal; error 404 no }}
    route /secret/ {{ internal }}
    route /denied/ {{ deny }}
    route /plain/ {{ deny; error 403 no }}
    route /gone/ {{ try =410 }}
    route /circle/ {{ try /circle2/ }}
    route /circle2/ {{ try /circle/ }}
    route /old/ {{ redirect 301 https://new.example/x/* }}
    route /keep/ {{ redirect 308 /new/*?a=b }}
    route /spa/ {{ try * */ /spa/app.html }}
    route /html/ {{ try * *.html */ =404 }}
    route /cached/ {{ try /cache/*.html; php php }}
    route /front/ {{ php php; try * */ /front/app.php }}
    route /mixed/ {{ try * ; pool demo }}
    route /to-php/ {{ try * /front/app.php }}
    route /to-guarded/ {{ try /denied/index.html /denied/x }}
    route /empty/ {{ try * /empty/nothing.html }}
    route /cache/ {{ internal }}
    route /api/ method GET POST {{ strip /api; pool php; root public }}
    route /api/ method PUT {{ pool demo }}
    route /static/ {{ rewrite /static/ /assets/v1/; files }}
    route /moved/ {{ rewrite /moved /assets; files }}
    route /peek/ {{ strip /peek; files }}
    route /elsewhere/ {{ strip /elsewhere; root other; files }}
    route /demo/ {{ pool demo }}
    route /nobody/ {{ pool nobody }}
    route /own/ {{ php php; intercept-errors yes; error 418 /errors/page.php; error 401 /errors/404.html }}
    route *.php {{ php php }}
}}
site *.wild.test {{ listen http://127.0.0.1:PORT; root wild }}
site *.deep.wild.test {{ listen http://127.0.0.1:PORT; root deep }}
site exact.wild.test {{ listen http://127.0.0.1:PORT; root exact }}
site .both.test {{ listen http://127.0.0.1:PORT; root both }}
site params.test {{
    listen http://127.0.0.1:PORT; root public; php php
    param SET_BY_SITE 1; param HTTP_X_HIDDEN; param SERVER_SOFTWARE other
    route /inner/ {{ param SET_BY_SITE 2; param REQUEST_SCHEME; php php {{ only /index.php }} }}
}}
site links.test {{
    listen http://127.0.0.1:PORT; root links/current/public; links shared
    route /strict/ {{ links nowhere; files }}
}}
pool php {{ php; {USER} workers 3 }}
pool demo {{ run ./demo; {USER} }}
pool nobody {{ connect unix:DIR/run/keep-nobody.sock }}
"""
ECHO = "<?php echo json_encode($_SERVER + ['body' => file_get_contents('php://input')]);"
FILES = {
    "public/index.html": "index", "public/index.php": ECHO, "public/errors/404.html": "page of 404", "public/errors/page.php": ECHO,
    "public/secret/x.txt": "secret", "public/denied/index.html": "denied", "public/denied/x": "denied",
    "public/spa/app.html": "spa", "public/spa/a.js": "js", "public/spa/folder/index.html": "folder",
    "public/html/page.html": "page", "public/html/sub/index.html": "sub",
    "public/cache/cached/hit.html": "cached", "public/front/app.php": ECHO, "public/front/a.css": "css", "public/front/real.php": "<?php echo 'real';",
    "public/mixed/file.txt": "a file", "public/assets/v1/a.css": "v1", "public/assets/index.html": "assets", "public/to-php/f": "f",
    "public/own/own.php": "<?php http_response_code(418); header('X-A: b'); echo str_repeat('x', 300000);",
    "public/own/login.php": "<?php http_response_code(401); header('WWW-Authenticate: Basic realm=\"x\"'); echo 'own';",
    "public/own/fine.php": "<?php http_response_code(404); echo 'own 404 of an app';",
    "other/index.html": "other", "other/denied/index.html": "not the denied one", "other/a": "a",
    "wild/index.html": "wild", "deep/index.html": "deep", "exact/index.html": "exact", "both/index.html": "both",
    "links/releases/1/public/a.txt": "release 1", "shared/upload.txt": "shared", "beside/x.txt": "beside",
}


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        os.symlink("releases/1", os.path.join(w.dir, "links/current"))
        public = os.path.join(w.dir, "links/releases/1/public")
        os.symlink("../../../../shared", os.path.join(public, "uploads"))
        os.symlink("../../../../shared", os.path.join(public, "strict"))
        os.symlink(os.path.join(w.dir, "shared/upload.txt"), os.path.join(public, "absolute.txt"))
        os.symlink("../../../../beside", os.path.join(public, "beside"))
    with Weir(CONFIG, FILES, prepare=prepare) as w:
        yield w


@pytest.mark.parametrize("host,text", [("x.wild.test", "wild"), ("x.y.wild.test", "wild"), ("X.WILD.test:80", "wild"), ("x.deep.wild.test", "deep"),
                                       ("deep.wild.test", "wild"), ("exact.wild.test", "exact"), ("exact.wild.test.", "exact"), ("wild.test", "index"),
                                       ("both.test", "both"), ("a.b.both.test", "both"), ("xboth.test", "index"), ("a.test", "index"), ("other", "index"),
                                       ("*.wild.test", "index"), (".wild.test", "index")])
def test_the_longest_name_that_a_host_ends_in_chooses_the_site(weir, host, text):
    r = weir.get("/", host=host)
    assert r.status == 400 and text == "index" or r.text.decode() == text


def test_a_method_chooses_among_routes_and_what_none_takes_is_405(weir):
    s = json.loads(weir.get("/api/index.php/x?y=1", "POST", b"body").text)
    assert (s["REQUEST_METHOD"], s["SCRIPT_NAME"], s["PATH_INFO"], s["body"]) == ("POST", "/index.php", "/x", "body")
    assert s["REQUEST_URI"] == "/api/index.php/x?y=1" and s["QUERY_STRING"] == "y=1" and s["DOCUMENT_URI"] == "/index.php/x"
    assert weir.get("/api/hello", "PUT", b"x").status == 200
    assert weir.get("/api/index.php", "HEAD").status == 200
    for method in ("DELETE", "PATCH", "OPTIONS"):
        r = weir.get("/api/x", method)
        assert (r.status, r.headers["Allow"]) == (405, "GET, HEAD, POST, PUT")
        assert json.loads(r.text)["REDIRECT_STATUS"] == "405"


def test_a_redirect_keeps_the_rest_of_the_path_and_the_query(weir):
    for path, status, to in (("/old/", 301, "https://new.example/x/"), ("/old", 301, "https://new.example/x/"), ("/old/a/b?q=1&r", 301, "https://new.example/x/a/b?q=1&r"),
                             ("/old/%41%20%3f%23%C3%A4", 301, "https://new.example/x/A%20%3F%23%C3%A4"), ("/old//evil.example/", 301, "https://new.example/x/evil.example/"),
                             ("/old/../old/%0d%0aX:y", 400, None), ("/keep/x?q", 308, "/new/x?a=b"), ("/keep//x", 308, "/new/x?a=b")):
        r = weir.get(path)
        assert (r.status, r.headers["Location"]) == (status, to), path


def test_try_looks_for_files_folders_and_goes_where_its_last_word_leads(weir):
    for path, text in (("/spa/a.js", "js"), ("/spa/any/where?x", "spa"), ("/spa/folder/", "folder"), ("/spa/", "spa"),
                       ("/html/page", "page"), ("/html/page.html", "page"), ("/html/sub/", "sub"), ("/cached/hit", "cached"), ("/front/a.css", "css"),
                       ("/front/real.php", "real"), ("/mixed/file.txt", "a file"), ("/to-php/f", "f")):
        r = weir.get(path)
        assert (r.status, r.text.decode()) == (200, text), path
    r = weir.get("/spa/folder?x=1")
    assert (r.status, r.headers["Location"]) == (301, "/spa/folder/?x=1")
    assert weir.get("/html/nothing").status == 404
    assert weir.get("/html/page/").status == 404
    assert b"Hello" in weir.get("/mixed/hello").text or weir.get("/mixed/hello").status == 200
    assert json.loads(weir.get("/cached/miss").text)["SCRIPT_NAME"] == "/index.php"


def test_what_try_leads_to_has_the_method_the_query_and_the_body(weir):
    for path in ("/front/some/where?q=1", "/to-php/nothing?q=1"):
        for body in (b"", b"a=b", os.urandom(200000).hex().encode()):
            s = json.loads(weir.get(path, "POST", body, {"Content-Type": "text/plain"}).text)
            assert (s["REQUEST_METHOD"], s["SCRIPT_NAME"], s["QUERY_STRING"], s["body"]) == ("POST", "/front/app.php", "q=1", body.decode())
            assert s["REQUEST_URI"] == path
    assert json.loads(weir.get("/to-php/nothing", "HEAD").text or "{}") == {}


def test_circles_end(weir):
    r = weir.get("/circle/x")
    assert r.status == 500 and b"circle" in r.text  # its page leads in a circle, too
    assert weir.get("/empty/x").status == 404
    assert weir.get("/demo/hello").status == 200


def test_an_error_has_its_page_and_keeps_its_status(weir):
    r = weir.get("/nothing", headers={"If-None-Match": "*", "Range": "bytes=0-1"})
    assert (r.status, r.text, r.headers["Content-Type"], r.headers["ETag"]) == (404, b"page of 404", "text/html; charset=utf-8", None)
    r = weir.get("/nothing", "HEAD")
    assert (r.status, r.headers["Content-Length"], r.text) == (404, "11", b"")
    r = weir.get("/denied/x", "POST", b"some body")
    s = json.loads(r.text)
    assert r.status == 403 and (s["REDIRECT_STATUS"], s["QUERY_STRING"], s["REQUEST_METHOD"], s["body"], s["REQUEST_URI"]) == ("403", "from=site", "GET", "", "/denied/x")
    assert "CONTENT_LENGTH" not in s
    r = weir.get("/index.html", "POST", b"x")
    assert (r.status, r.headers["Allow"], json.loads(r.text)["REDIRECT_STATUS"]) == (405, "GET, HEAD", "405")
    r = weir.get("/plain/x")
    assert r.status == 403 and b"this path is not served" in r.text
    r = weir.get("/nobody/x")
    assert r.status == 502 and r.text == weir.get("/demo/hello").text


def test_an_error_page_that_is_missing_or_redirects_gives_way_to_the_error_itself(weir):
    r = weir.get("/gone/x")
    assert r.status == 410 and b"nothing of what this site tries is there" in r.text
    assert weir.get("/demo/hello").status == 200


def test_a_large_body_that_is_not_read_does_not_keep_the_error_page_from_the_client(weir):
    with weir.connect() as s:
        s.sendall(b"POST /denied/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000000\r\n\r\nabc")
        out = read_all(s, reset_ends=True)
        assert status_of(out) == 403 and b"Connection: close" in out and b'"REDIRECT_STATUS":"403"' in out
    with weir.connect() as s:
        s.sendall(b"POST /denied/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\nabc")
        out = read_all(s, reset_ends=True)
        assert status_of(out) == 413 and b"Connection: close" in out and out.endswith(b"page of 404")


def test_error_pages_over_http_2(weir):
    url = f"http://127.0.0.1:{weir.port}"
    body = weir.write("body", b"x" * 70000000)  # more than a request may have
    for path, args, status, text in (("/nothing", [], b"404", b"page of 404"), ("/denied/x", ["-d", "some body"], b"403", b'"REDIRECT_STATUS":"403"'),
                                     ("/html/none", ["-I"], b"404", b"content-length: 11"), ("/front/x?q=1", ["-d", "a=b"], b"200", b'"body":"a=b"')):
        r = subprocess.run(["curl", "-s", "-i", "--max-time", "60", "--http2-prior-knowledge", "-H", "Host: a.test", *args, url + path], capture_output=True)
        assert r.stdout.startswith(b"HTTP/2 " + status) and text in r.stdout, (path, r.returncode, r.stdout[:300])
    for more in ([], ["--no-content-length"]):  # curl 7.88 loses an answer behind which the stream is reset
        r = subprocess.run(["nghttp", "-v", "-t", "30", "-H", ":authority: a.test", "-H", ":method: POST", *more, "-d", body, url + "/demo/upload"], capture_output=True)
        assert b":status: 413" in r.stdout and b"page of 404" in r.stdout, r.stdout[-2000:]


def test_pipelined_requests_behind_an_error_page_are_answered(weir):
    one = b"POST /denied/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"
    out = weir.raw(one + one + b"GET /nothing HTTP/1.1\r\nHost: a.test\r\n\r\n" + b"GET /spa/a.js HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", out) == [b"403", b"403", b"404", b"200"] and out.endswith(b"js")


def test_errors_of_an_app_are_its_own_unless_they_are_intercepted(weir):
    r = weir.get("/own/own.php")
    assert r.status == 418 and json.loads(r.text)["REDIRECT_STATUS"] == "418" and "X-A" not in r.headers
    r = weir.get("/own/login.php")
    assert (r.status, r.text, r.headers["WWW-Authenticate"]) == (401, b"page of 404", 'Basic realm="x"')
    assert weir.get("/own/fine.php").text == b"page of 404"  # the site's page of 404
    assert weir.get("/front/own.php").status == 200


def test_nobody_enters_an_internal_route_by_its_name(weir):
    for path in ("/secret/x.txt", "/secret/", "/secret", "/cache/cached/hit.html", "/errors/404.html", "/errors/page.php", "/errors/page.php/x", "/%73ecret/x.txt", "//secret//x.txt",
                 "/a/../secret/x.txt", "/peek/secret/x.txt", "/peek/errors/404.html"):
        r = weir.get(path)
        assert r.status in (403, 404) and r.text != b"secret" and r.text != b"cached", path


def test_a_rewritten_prefix_reaches_files_and_keeps_their_guards(weir):
    assert weir.get("/static/a.css").text == b"v1"
    assert weir.get("/moved?q").headers["Location"] == "/moved/?q" and weir.get("/moved/").text == b"assets"
    assert weir.get("/peek/index.html").text == b"index"
    assert weir.get("/peek/denied/x").status == 403  # the same file, which its own route denies
    assert weir.get("/peek/denied/").status == 403
    assert weir.get("/to-guarded/x").status == 403
    assert weir.get("/elsewhere/denied/index.html").text == b"not the denied one"
    assert weir.get("/elsewhere/").text == b"other" and weir.get("/elsewhere").status == 301
    assert weir.get("/static/../secret/x.txt").status == 404


def test_parameters_are_set_and_removed(weir):
    s = json.loads(weir.get("/index.php", host="params.test", headers={"X-Hidden": "x", "X-Shown": "y"}).text)
    assert (s["SET_BY_SITE"], s["HTTP_X_SHOWN"], s["SERVER_SOFTWARE"]) == ("1", "y", "other") and "HTTP_X_HIDDEN" not in s
    assert s["REQUEST_SCHEME"] == "http"
    s = json.loads(weir.get("/inner/x", host="params.test", headers={"X-Hidden": "x"}).text)
    assert s["SET_BY_SITE"] == "2" and "REQUEST_SCHEME" not in s and "HTTP_X_HIDDEN" not in s


def test_links_lead_below_the_root_and_into_the_folders_that_are_named(weir):
    assert weir.get("/a.txt", host="links.test").text == b"release 1"
    assert weir.get("/uploads/upload.txt", host="links.test").text == b"shared"
    assert weir.get("/absolute.txt", host="links.test").text == b"shared"
    for path in ("/beside/x.txt", "/strict/upload.txt"):
        assert weir.get(path, host="links.test").status in (403, 404), path


def test_the_effective_values_of_a_site_name_its_routes(weir):
    out = subprocess.run([WEIR, "check", "--effective", "a.test", weir.config], capture_output=True, text=True).stdout
    for line in ("error 404 /errors/404.html", "error 403 405 /errors/page.php?from=site", "route /api/ method GET POST { strip /api; pool php; root "):
        assert line in out
