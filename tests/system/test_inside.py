# SPDX-License-Identifier: MIT
"""What is found inside (an index, try, an error page, a rewritten path, a hand-over) keeps the guards of its own route."""
import base64
import os
import subprocess

import pytest
from weirlib import USER, Weir

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php php
    precompressed yes
    debug yes
    error 401 /pages/login.html
    route /pages/ {{ internal; files }}
    route /private/ {{ auth basic users; files }}
    route /own-page/ {{ auth basic users; error 401 403 /private/x.txt; files }}
    route /lan/ {{ allow 10.0.0.0/8; files }}
    route /rare/ {{ limit requests 1/h burst 1; error 429 /pages/login.html; files }}
    route /rare-too/ {{ try /rare/x.txt }}
    route /try-private/ {{ try /private/x.txt =404 }}
    route /try-lan/ {{ try /lan/x.txt =404 }}
    route /go-private/ {{ try * /private/x.txt }}
    route /go-lan/ {{ try * /lan/x.txt }}
    route /strip/ {{ strip /strip; files }}
    route /strip-php/ {{ strip /strip-php; php php }}
    route /both/ {{ auth basic users; strip /both; files }}
    route *.br {{ auth basic users; files }}
    route /accel/ {{ php php; accel-redirect yes }}
    route /method/ method POST {{ auth basic users; php php }}
}}
pool php {{ php; {USER} workers 2 }}
"""
FILES = {
    "public/private/x.txt": "private", "public/lan/x.txt": "lan", "public/rare/x.txt": "rare", "public/private/x.php": "<?php echo 'private script';", "public/index.php": "<?php echo 'front';",
    "public/pages/login.html": "please log in", "public/c.css": "plain", "public/c.css.br": "brotli", "public/accel/x.php": "<?php header('X-Accel-Redirect: ' . $_SERVER['QUERY_STRING']);",
    "public/method/index.php": "<?php echo 'post only';",
}
GOOD = {"Authorization": "Basic " + base64.b64encode(b"anna:secret").decode()}
WRONG = {"Authorization": "Basic " + base64.b64encode(b"anna:wrong").decode()}


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        hashed = subprocess.run(["openssl", "passwd", "-6", "secret"], check=True, capture_output=True, text=True).stdout.strip()
        w.write("users", f"anna:{hashed}\n")
        os.chmod(os.path.join(w.dir, "users"), 0o644)
    with Weir(CONFIG, FILES, prepare=prepare) as w:
        yield w


def test_what_another_route_guards_is_not_given_out_by_try_index_or_a_rewritten_path(weir):
    for path in ("/try-private/x", "/try-lan/x", "/strip/private/x.txt", "/strip/lan/x.txt", "/strip-php/private/x.php", "/strip-php/private/x.php/info", "/strip/private/"):
        for headers in ({}, GOOD):
            r = weir.get(path, headers=headers)
            assert r.status in (403, 404) and b"private s" not in r.text and r.text not in (b"private", b"lan"), path
    assert weir.get("/both/private/x.txt", headers=GOOD).text == b"private"  # the same users let in
    assert weir.get("/both/private/x.txt").status == 401
    assert weir.get("/both/lan/x.txt", headers=GOOD).status == 403


def test_where_a_request_goes_on_its_guards_are_asked(weir):
    for path in ("/go-private/x", "/accel/x.php?/private/x.txt"):
        assert weir.get(path).status == 401 and weir.get(path).headers["WWW-Authenticate"], path
        assert weir.get(path, headers=WRONG).status == 401, path
        r = weir.get(path, headers=GOOD)
        assert (r.status, r.text) == (200, b"private"), path
    for path in ("/go-lan/x", "/accel/x.php?/lan/x.txt"):
        assert weir.get(path, headers=GOOD).status == 403, path


def test_a_guard_that_says_no_has_its_page_which_is_guarded_itself(weir):
    r = weir.get("/private/x.txt")
    assert (r.status, r.text) == (401, b"please log in") and r.headers["WWW-Authenticate"].startswith("Basic ")
    r = weir.get("/private/x.txt", headers=WRONG)
    assert (r.status, r.text) == (401, b"please log in") and r.headers["WWW-Authenticate"]
    r = weir.get("/own-page/x")  # the page of this 401 needs a password, too
    assert r.status == 401 and r.headers["WWW-Authenticate"] and b"private" not in r.text


def test_a_limit_counts_where_the_file_comes_from_and_its_page_is_not_counted(weir):
    assert weir.get("/rare-too/x").text == b"rare"
    for path in ("/rare-too/x", "/rare/x.txt"):
        r = weir.get(path)
        assert r.status == 429 and r.headers["Retry-After"], path
    assert weir.get("/rare/x.txt").text == b"please log in"


def test_a_coding_that_its_own_route_guards_is_not_sent(weir):
    r = weir.get("/c.css", headers={"Accept-Encoding": "br"})
    assert r.text == b"plain" and "Content-Encoding" not in r.headers
    assert weir.get("/c.css.br").status == 401 and weir.get("/c.css.br", headers=GOOD).text == b"brotli"


def test_other_methods_do_not_go_around_a_guard(weir):
    for path in ("/method/", "/method/index.php", "/strip/method/", "/strip-php/method/index.php"):
        r = weir.get(path)
        assert r.status in (403, 404, 405) and b"post only" not in r.text, path
    assert weir.get("/method/index.php", "POST", b"x").status == 401
    assert weir.get("/method/index.php", "POST", b"x", headers=GOOD).text == b"post only"
