# SPDX-License-Identifier: MIT
"""Ids of requests: one for each, the same for the app, the log, the error page and the header; a client's own one only where it is believed."""
import json
import re

import pytest
from weirlib import RECORDER, USER, Weir, check_says, wait_for

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    route /app/ {{ pool app }}
    route /told/ {{ pool app; request-id {{ to-client yes }} }}
    route /proxied/ {{ pool app; request-id {{ from-client yes; to-client yes }} }}
    route /both/ {{ pool app; authorizer app }}
    route /down/ {{ pool down; request-id {{ from-client yes }} }}
    route /own/ {{ pool own; request-id {{ to-client yes }} }}
    route /files/ {{ files; request-id {{ to-client yes }} }}
}}
pool app {{ run ./recorder.py; {USER} }}
pool own {{ run ./own.pl; {USER} }}
pool down {{ connect unix:DIR/run/keep-nobody.sock }}
"""
OWN = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { print "X-Request-ID: mine\\r\\nContent-Type: text/plain\\r\\n\\r\\nok\\n"; }
"""
HEX = re.compile(r"[0-9a-f]{32}$")


@pytest.fixture(scope="module")
def weir():
    files = {**RECORDER, "own.pl": OWN, "public/files/x.txt": "x"}
    with Weir(CONFIG, files) as w:
        yield w


def app_id(r):
    return dict(json.loads(r.text)["params"])["REQUEST_ID"]


def test_each_request_has_another_id(weir):
    ids = {app_id(weir.get("/app/x")) for _ in range(20)}
    assert len(ids) == 20 and all(HEX.match(i) for i in ids)
    assert weir.get("/app/x").getheader("X-Request-Id") is None


def test_an_authorizer_and_the_app_get_the_same(weir):
    r = weir.get("/both/x")
    assert r.status == 200 and HEX.match(app_id(r))


def test_it_is_told_where_the_route_says_so(weir):
    r = weir.get("/told/x")
    assert r.getheader("X-Request-Id") == app_id(r)
    assert HEX.match(weir.get("/files/x.txt").getheader("X-Request-Id"))
    assert weir.get("/own/x").headers.get_all("X-Request-Id") == ["mine"]


@pytest.mark.parametrize("given,taken", [("abc-1.2_3:x=/+@", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a\"b", False), ("<b>", False), ("a,b", False), ("", False)])
def test_a_clients_own_id_is_taken_only_where_it_is_believed(weir, given, taken):
    r = weir.get("/proxied/x", headers={"X-Request-Id": given})
    assert (app_id(r) == given) == taken and r.getheader("X-Request-Id") == app_id(r)
    assert taken or HEX.match(app_id(r))
    r = weir.get("/told/x", headers={"X-Request-Id": given})
    assert HEX.match(app_id(r)) and dict(json.loads(r.text)["params"])["HTTP_X_REQUEST_ID"] == given


def test_an_error_page_and_the_log_tell_it(weir):
    r = weir.get("/down/x")
    told = r.getheader("X-Request-Id")
    assert r.status == 503 or r.status == 502
    assert HEX.match(told) and told.encode() in r.text
    wait_for(lambda: told in weir.log())
    r = weir.get("/down/x", headers={"X-Request-Id": "from-the-proxy"})
    assert r.getheader("X-Request-Id") == "from-the-proxy" and b"from-the-proxy" in r.text
    r = weir.get("/nothing")
    assert r.status == 404 and r.getheader("X-Request-Id").encode() in r.text
    bad = weir.raw(b"GET / HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n")
    assert bad.startswith(b"HTTP/1.1 400") and b"X-Request-Id: " in bad


def test_what_is_wrong_with_the_setting_is_said(tmp_path):
    status, text = check_says("site a { listen http://*:8080; request-id { from-client maybe } }", tmp_path)
    assert status == 1 and "1:57" in text and "yes or no" in text
    status, text = check_says("site a { listen http://*:8080; request-id yes }", tmp_path)
    assert status == 1 and "has too many values" in text
