# SPDX-License-Identifier: MIT
"""weir explain: the parameters that it prints are those that an app gets, byte for byte; what it says of routes, guards and files; who
may ask."""
import http.client
import json
import os
import socket
import ssl
import subprocess

import pytest
from weirlib import IS_ROOT, RECORDER, USER, WEIR, Weir, free_port

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    php app
    param COLOUR "blue green"
    param REMOTE_ADDR 192.0.2.9
    route /api/ {{ pool app; param HTTPS }}
    route /box/ {{ php app; app-root /srv/in-the-box }}
    route *.fcgi {{ pool app }}
    route /exact {{ pool app }}
    route /only/ {{ php app {{ only /only/x.php }} }}
    route /guarded/ {{ pool app; authorizer app }}
    route /filtered/ {{ filter app }}
    route /closed/ {{ deny }}
    route /old {{ redirect 301 /new }}
    route /small/ {{ pool app; body 10B }}
}}
site b.test {{ listen http://127.0.0.1:PORT; root other; route /nowhere/ {{ root missing; files }} }}
pool app {{ run ./recorder.py; {USER} processes 2 }}
"""
FILES = {
    "public/index.php": "<?php", "public/x.php": "<?php", "public/dir/index.php": "<?php", "public/a b.php": "<?php", "public/a.css": "a{}",
    "public/html/index.html": "html", "public/é.php": "<?php", "public/filtered/x.md": "text", "public/.env": "secret", "other/index.html": "other",
    "public/index.php.bak": "no",
}
URLS = [
    "/", "/x.php", "/x.php/path/info?a=1&b=%20", "/x.php?", "/nothing/here?q=1", "/dir/", "/dir/?x", "/a%20b.php/c%20d", "/%C3%A9.php/%FF%FE",
    "/x.php/a//b/./c/../d", "/x%2Ephp", "/api/v1/things?id=%41", "/api", "/api/%E2%82%AC/x", "/go.fcgi/p/q?x=y", "/exact", "/box/index.php",
    "/box/x.php/1", "/only/x.php/z", "/only/none", "/x.php?a=%00&b=é", "//x.php", "/api/a;b=c,d", "/api/~user/", "/%78.php/%2e%2e/x.php", "/filtered/x.md", "/guarded/x?y",
]
HEADERS = {"User-Agent": "explain", "Cookie": "a=1", "X-Thing": "one, two", "X_Bad": "no", "Accept": "*/*", "Authorization": "Basic eDp5", "Proxy": "evil"}


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        w.write("recorder.py", RECORDER["recorder.py"])
    with Weir(CONFIG, FILES, prepare=prepare) as w:
        w.write("other/x", "x")
        yield w


def explain(weir, url, *args, config=None, **kw):
    r = subprocess.run([WEIR, "explain", "--json", "-c", config or weir.config, *args, url], capture_output=True, text=True, timeout=60, **kw)
    assert r.returncode in (0, 1), r.stderr
    o = json.loads(r.stdout)
    assert o["served"] == (r.returncode == 0)
    return o


def text_of(p):
    return bytes.fromhex(p["value_hex"]).decode("latin-1") if "value_hex" in p else p["value"].encode().decode("latin-1")


def told(asked):
    return [(p["name"], text_of(p)) for p in asked["params"] if p["known"]], [p["name"] for p in asked["params"] if not p["known"]]


@pytest.mark.table
@pytest.mark.parametrize("method,body", [("GET", None), ("POST", b"12345"), ("POST", b"x" * 200000), ("HEAD", None)], ids=["get", "post", "large", "head"])
@pytest.mark.parametrize("path", URLS)
def test_the_parameters_are_those_that_the_app_gets(weir, path, method, body):
    headers = {**HEADERS, "Host": "a.test"}
    args = [a for n, v in headers.items() for a in ("-H", f"{n}: {v}")]
    if body:
        headers["Content-Type"] = "text/plain"
        args += ["-H", "Content-Type: text/plain", "-H", f"Content-Length: {len(body)}"]
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + (f"Content-Length: {len(body)}\r\n" if body else "")
    with weir.connect() as s:
        s.sendall(head.encode() + b"Connection: close\r\n\r\n" + (body or b""))
        r = http.client.HTTPResponse(s, method=method)
        r.begin()
        text = r.read()
    o = explain(weir, f"http://127.0.0.1:{weir.port}{path}", "-X", method, "--from", "127.0.0.1", "-H", "Connection: close", *args)
    if r.status == 400:
        assert o["answer"]["status"] == 400 and not o["served"]
        return
    assert r.status == 200 and o["served"], (text[:200], o)
    last = o["asked"][-1]
    if method == "HEAD":
        assert ("REQUEST_METHOD", "HEAD") in told(last)[0]
        return
    got = json.loads(text)
    known, guessed = told(last)
    assert [tuple(p) for p in got["params"] if p[0] not in guessed] == known
    assert {p[0] for p in got["params"]} == {p["name"] for p in last["params"]}
    assert set(guessed) <= {"REMOTE_PORT", "REQUEST_ID"}
    assert got["role"] == {"responder": 1, "authorizer": 2, "filter": 3}[last["role"]]
    if path.startswith("/guarded/"):
        assert [a["role"] for a in o["asked"]] == ["authorizer", "responder"] and o["guards"][0]["guard"] == "authorizer"



def test_why_a_site_a_route_and_a_file(weir):
    o = explain(weir, f"http://a.test:{weir.port}/nothing/x")
    assert o["site"]["name"] == "a.test" and "host name" in o["site"]["why"]
    assert [r["route"] for r in o["routes"]][-1] == "the site's own" and [r["matches"] for r in o["routes"]].count(True) == 1
    assert len(o["routes"]) == 11 and all(r["line"] for r in o["routes"])
    assert [(f["path"], f["exists"]) for f in o["files"]] == [("/nothing/x", False), ("/index.php", True)]
    o = explain(weir, f"http://a.test:{weir.port}/api/x")
    assert o["routes"] == [{"route": "/api/", "matches": True, "why": "it takes the path", "file": weir.config, "line": 9, "column": 5}]
    o = explain(weir, f"http://other.test:{weir.port}/")
    assert o["site"]["name"] == "a.test" and "the first one answers" in o["site"]["why"]
    o = explain(weir, f"http://b.test:{weir.port}/")
    assert (o["site"]["name"], o["served"], o["answer"]["status"], o["asked"]) == ("b.test", True, 200, [])
    assert ("Content-Type", "text/html; charset=utf-8") in [(h["name"], h["value"]) for h in o["answer"]["headers"]]
    assert [(f["path"], f["exists"]) for f in o["files"]] == [("/", True), ("/index.html", True)]


@pytest.mark.parametrize("path,status,why,args", [
    ("/closed/x", 403, "this path is not served", ()),
    ("/index.php.bak", 0, None, ()),
    ("/small/x", 413, "the request body is larger than this site takes", ("-H", "Content-Length: 11")),
    ("/%zz", 400, "a path with a bad % escape", ()),
    ("/..%2f", 400, "a path with an encoded slash", ()),
    ("/x", 405, "TRACE is not served", ("-X", "TRACE")),
    ("/old", 301, None, ()),
    ("/html", 301, None, ()),
    ("/a.css", 200, None, ()),
    ("/x y", 400, None, ()),
])
def test_an_answer_of_the_gateway_is_the_same(weir, path, status, why, args):
    o = explain(weir, f"http://a.test:{weir.port}{path}", *args)
    assert o["answer"].get("status", 0) == status and o["served"] == (status < 400)
    assert why is None or o["answer"]["reason"] == why
    if status and status != 413 and " " not in path:
        r = weir.get(path, host="a.test", method="TRACE" if args else "GET")
        assert r.status == status
        skip = ("Date", "Connection", "X-Request-Id")
        assert [(h["name"], h["value"]) for h in o["answer"]["headers"] if h["name"] not in skip] == [h for h in r.getheaders() if h[0] not in skip]


def test_names_that_are_never_served_are_told(weir):
    o = explain(weir, f"http://a.test:{weir.port}/.env")
    assert o["files"][0] == {"path": "/.env", "exists": False, "why": "a name that is never served as a file"}


def test_nothing_listens_there(weir):
    r = subprocess.run([WEIR, "explain", "-c", weir.config, "http://a.test:1/"], capture_output=True, text=True)
    assert r.returncode == 1 and "nothing listens there" in r.stdout and f"http://127.0.0.1:{weir.port}" in r.stdout
    o = explain(weir, f"https://a.test:{weir.port}/")
    assert "listener" not in o and not o["served"]


@pytest.mark.skipif(not IS_ROOT, reason="needs another user")
def test_a_root_that_one_may_not_read_is_said(weir, tmp_path):
    hidden = os.path.join(weir.dir, "hidden")
    os.makedirs(hidden + "/in", mode=0o700)
    path = weir.write("hidden.conf", f"site h {{ listen http://127.0.0.1:{weir.port}; root {hidden}/in }}\n")
    os.chmod(hidden, 0o700)
    for kw in ({}, {"user": "nobody", "group": "nogroup"}):  # root looks with the rights of the gateway
        o = explain(weir, f"http://h:{weir.port}/x", config=path, **kw)
        assert o["root"] == {"path": hidden + "/in", "user": "nobody" if kw else "weir-gw", "problem": "Permission denied"}
        assert o["answer"]["status"] == 503 and o["answer"]["reason"] == "the root cannot be opened"


def test_a_pool_that_cannot_run_refuses(weir):
    weir.write("lost.conf", "pool gone { run }\n")
    path = weir.write("broken.conf", "site h { listen http://127.0.0.1:1234; pool gone }\ninclude lost.conf\n")
    o = explain(weir, "http://h:1234/x", config=path)
    assert o["answer"]["status"] == 503 and o["answer"]["reason"] == "the file that defines it has mistakes"
    assert o["asked"][0]["pool"] == "gone"


@pytest.mark.parametrize("args", [[], ["a", "b"], ["-H", "nocolon", "http://a/"], ["http://a:99999/"], ["http://"], ["http://u@a/"], ["-X", "A B", "http://a/"],
                                  ["-H", "A: b\r\nC: d", "http://a/"], ["--from", "nowhere", "http://a/"], ["http://a/\r\nX: y"], ["-c", "/nowhere", "http://a/"]])
def test_wrong_usage_is_2(weir, args):
    r = subprocess.run([WEIR, "explain", *(args if "-c" in args else ["-c", weir.config, *args])], capture_output=True, text=True)
    assert r.returncode == 2 and r.stderr and not r.stdout


def test_the_text_is_for_people(weir):
    r = subprocess.run([WEIR, "explain", "-c", weir.config, f"http://a.test:{weir.port}/x.php/%1b%5b"], capture_output=True, text=True)
    assert r.returncode == 1 and "\x1b" not in r.stdout
    r = subprocess.run([WEIR, "explain", "-c", weir.config, f"http://a.test:{weir.port}/x.php/p%C2%9B"], capture_output=True, text=True)
    assert r.returncode == 0 and "PATH_INFO=/p\\xc2\\x9b" in r.stdout and "\x9b" not in r.stdout
    for word in ("routes ", "files ", "pool ", "script ", "COLOUR=blue green", "REMOTE_ADDR=192.0.2.9\n", "# supposed", "answer    what the application says"):
        assert word in r.stdout, r.stdout


def test_a_request_by_tls(tmp_path):
    port = free_port()
    pem, key = str(tmp_path / "c.pem"), str(tmp_path / "c.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=s.test", "-addext", "subjectAltName=DNS:s.test",
                    "-keyout", key, "-out", pem, "-days", "2"], check=True, capture_output=True)
    config = f"site s.test {{ listen http://127.0.0.1:PORT https://127.0.0.1:{port}; tls {tmp_path}/c; pool app }}\npool app {{ run ./recorder.py; {USER} }}\n"
    with Weir(config, RECORDER) as w:
        context = ssl.create_default_context(cafile=pem)
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname="s.test") as s:
            s.sendall(f"GET /x/y?z HTTP/1.1\r\nHost: s.test:{port}\r\nConnection: close\r\n\r\n".encode())
            r = http.client.HTTPResponse(s)
            r.begin()
            got = json.loads(r.read())["params"]
        o = explain(w, f"https://s.test:{port}/x/y?z", "--from", "127.0.0.1", "-H", "Connection: close")
        known, guessed = told(o["asked"][-1])
        assert [tuple(p) for p in got if p[0] not in guessed] == known and ("HTTPS", "on") in known
        assert set(guessed) == {"REMOTE_PORT", "REQUEST_ID", "SSL_PROTOCOL", "SSL_CIPHER"} and set(guessed) < {p[0] for p in got}
        o = explain(w, f"http://s.test:{w.port}/x")
        assert o["answer"]["status"] == 301 and ("Location", f"https://s.test:{port}/x") in [(h["name"], h["value"]) for h in o["answer"]["headers"]]
        assert o["site"]["name"] == "s.test" and not o["asked"]


def test_guards_are_told_in_their_order(weir):
    weir.write("pw", "me:$5$salt$abc\n")
    text = """site g { listen http://127.0.0.1:1234; root public; authorizer app; allow 10.0.0.0/8 192.0.2.1; deny 10.6.6.6
                       auth basic DIR/pw; limit requests 5/s; pool app }
              pool app { connect unix:/run/one.sock { weight 3 }; connect fastcgi://127.0.0.1:9000 { workers 9; backup yes }; balance hash cookie session }\n"""
    path = weir.write("guards.conf", text.replace("DIR", weir.dir))
    o = explain(weir, "http://g:1234/x", "--from", "10.1.2.3", config=path)
    assert o["served"] and all(g["passes"] for g in o["guards"])
    assert [g["guard"] for g in o["guards"]] == ["allow", "limit requests", "auth basic", "authorizer"]
    assert ("REMOTE_ADDR", "10.1.2.3") in told(o["asked"][-1])[0]
    assert o["asked"][-1]["endpoints"] == [{"address": "unix:/run/one.sock", "workers": 4, "weight": 3, "backup": False},
                                           {"address": "fastcgi://127.0.0.1:9000", "workers": 9, "weight": 1, "backup": True}]
    for address in ("10.6.6.6", "127.0.0.1"):
        o = explain(weir, "http://g:1234/x", "--from", address, config=path)
        assert not o["served"] and o["answer"]["status"] == 403 and not o["guards"][0]["passes"] and not o["asked"]


def test_a_file_of_users_that_is_missing_and_a_script_that_nobody_may_run(weir):
    path = weir.write("broken.conf", f"""site g {{ listen http://127.0.0.1:1234; root public; auth basic nobody-is-here; route /dir/ {{ auth no; pool c }} }}
        pool c {{ cgi; {USER} }}\n""")
    o = explain(weir, "http://g:1234/a.css", config=path)
    assert not o["served"] and o["answer"]["status"] == 500 and not o["guards"][0]["passes"] and "users" in o["answer"]["reason"]
    o = explain(weir, "http://g:1234/dir/index.php/more", config=path)
    assert not o["served"] and o["answer"]["status"] == 403 and "not executable" in o["answer"]["reason"] and o["asked"][0]["pool"] == "c"
    os.chmod(os.path.join(weir.dir, "public/dir/index.php"), 0o755)
    assert explain(weir, "http://g:1234/dir/index.php/more", config=path)["served"]
    os.chmod(os.path.join(weir.dir, "public/dir/index.php"), 0o644)


def test_routes_by_method_internal_ones_and_error_pages(weir):
    path = weir.write("routes.conf", """site r *.r.test { listen http://127.0.0.1:1234; root public; error 404 /a.css
        route /m/ method POST { pool app }
        route /int/ { internal; files }
        route /none/ { files }
    }
    pool app { connect unix:/run/one.sock }\n""")
    o = explain(weir, "http://x.r.test:1234/m/x", config=path)
    assert o["answer"]["status"] == 405 and "wildcard" in o["site"]["why"]
    assert [(r["route"], r["matches"], r["why"]) for r in o["routes"]][0] == ("/m/", False, "it takes the path, but not this method")
    assert explain(weir, "http://r:1234/m/x", "-X", "POST", config=path)["served"]
    o = explain(weir, "http://r:1234/int/x", config=path)
    assert o["answer"]["status"] == 404 and [(g["guard"], g["passes"]) for g in o["guards"]] == [("internal", False)]
    o = explain(weir, "http://r:1234/none/x", config=path)
    assert o["answer"]["status"] == 404 and [f["path"] for f in o["files"]] == ["/none/x", "/a.css"]
    assert ("/a.css", "the request goes there within the site") in [(r["route"], r["why"]) for r in o["routes"]]
