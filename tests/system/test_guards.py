# SPDX-License-Identifier: MIT
"""Who may ask: addresses, proxies that tell whose request it is, by the PROXY protocol and by Forwarded and X-Forwarded-For."""
import json
import os
import socket
import ssl
import struct
import subprocess

import pytest
from certs import self_signed
from weirlib import USER, WEIR, Weir, can_connect, free_port, program, read_all, status_of, wait_for

APP = f"pool app {{ run ./demo; {USER} }}\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def params(r):
    text = r.text if hasattr(r, "text") else r.split(b"\r\n\r\n", 1)[1]
    return dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)


def ask(path="/env", headers=""):
    return f"GET {path} HTTP/1.0\r\nHost: a.test\r\n{headers}\r\n".encode()


# ---- addresses ----

def test_addresses_are_let_in_or_not_and_a_route_may_say_otherwise():
    config = """
site a.test { listen http://127.0.0.1:PORT; pool app; allow 10.0.0.0/8
    route /open/ { allow all }
    route /mine/ { allow + 127.0.0.0/8 }
    route /not/ { allow 127.0.0.1; deny 127.0.0.0/8 }
    route /public/ { allow all; files; root public }
}
site b.test { listen http://127.0.0.1:PORT; root public; deny 127.0.0.1; route /some/ { deny none; files } }
""" + APP
    with Weir(config, {"public/public/index.html": "public", "public/x.html": "x", "public/some/x": "some"}) as w:
        assert w.get("/env").status == 403
        assert w.get("/env", "POST", b"x" * 200000).status == 403
        assert w.get("/open/env").status == 200 and w.get("/mine/env").status == 200
        assert w.get("/not/env").status == 403
        assert w.get("/public/").text == b"public"
        assert w.get("/x.html", host="b.test").status == 403 and w.get("/some/x", host="b.test").text == b"some"


def test_nobody_reaches_what_he_may_not_by_an_index():
    config = """
site a { listen http://127.0.0.1:PORT; root public; index secret.html index.html
    route /secret.html { allow 10.0.0.1; files } }
"""
    with Weir(config, {"public/secret.html": "secret", "public/sub/index.html": "sub"}) as w:
        assert w.get("/secret.html").status == 403
        r = w.get("/")
        assert r.status == 403 and b"secret" not in r.text.replace(b"secret.html", b"")
        assert w.get("/sub/").text == b"sub"


# ---- trusted proxies ----

@pytest.fixture(scope="module")
def behind():
    config = """
site a.test { listen http://127.0.0.1:PORT; pool app
    route /mine/ { allow 203.0.113.7; pool app } }
site b.test { listen http://127.0.0.1:PORT; root public }
""" + APP
    with Weir(config, {"public/env": "site b"}, program="threads 2; trust 127.0.0.1 10.0.0.0/8", log="DIR/run/keep-access json") as w:
        yield w


def test_a_trusted_proxy_tells_the_client_the_scheme_and_the_host(behind):
    p = params(behind.get("/env", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.1.2.3", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "www.test:8443"}))
    assert p["REMOTE_ADDR"] == "203.0.113.7" and p["REMOTE_PORT"] == "0"
    assert p["REQUEST_SCHEME"] == "https" and p["HTTPS"] == "on" and p["SERVER_PORT"] == "8443"
    assert p["SERVER_NAME"] == "www.test" and p["HTTP_HOST"] == "www.test:8443"
    assert p["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 203.0.113.7, 10.1.2.3"
    p = params(behind.get("/env", headers={"X-Forwarded-For": "2001:db8::5", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "a b"}))
    assert p["REMOTE_ADDR"] == "2001:db8::5" and p["REQUEST_SCHEME"] == "http" and "HTTPS" not in p and p["SERVER_NAME"] == "127.0.0.1"
    assert params(behind.get("/env", headers={"X-Forwarded-Proto": "https"}))["SERVER_PORT"] == str(behind.port)  # of the host that was asked for
    assert params(behind.get("/env", host="c.test", headers={"X-Forwarded-Proto": "https"}))["SERVER_PORT"] == "443"


def test_what_cannot_be_read_ends_the_way_back(behind):
    for value, address in (("unknown", "127.0.0.1"), ("x, 203.0.113.7", "203.0.113.7"), ("203.0.113.7, x", "127.0.0.1"),
                           ("x, 10.0.0.1", "10.0.0.1"), ("203.0.113.7:99", "203.0.113.7"), ("10.0.0.9, 10.0.0.8", "10.0.0.9"), ("", "127.0.0.1")):
        assert params(behind.get("/env", headers={"X-Forwarded-For": value}))["REMOTE_ADDR"] == address, value
    p = params(behind.get("/env", headers={"Forwarded": "for=203.0.113.7;proto=https"}))  # that one is not believed here
    assert p["REMOTE_ADDR"] == "127.0.0.1" and "HTTPS" not in p


def test_the_host_chooses_the_site_and_the_address_the_guards_and_the_log(behind):
    assert behind.get("/env", host="a.test", headers={"X-Forwarded-Host": "b.test"}).text == b"site b"
    assert behind.get("/mine/env", headers={"X-Forwarded-For": "203.0.113.8"}).status == 403
    assert behind.get("/mine/env", headers={"X-Forwarded-For": "203.0.113.7"}).status == 200
    log = os.path.join(behind.run_dir, "keep-access")

    def line():
        with open(log) as f:
            return [e for e in map(json.loads, f) if e.get("target") == "/mine/env" and e["status"] == 200]
    assert wait_for(line)[0]["address"] == "203.0.113.7"
    assert behind.command("deny", "203.0.113.9").returncode == 0
    wait_for(lambda: behind.get("/env", headers={"X-Forwarded-For": "203.0.113.9"}).status == 403)
    assert behind.get("/env", headers={"X-Forwarded-For": "203.0.113.10"}).status == 200


def test_nobody_else_is_believed():
    config = """
listener l { address http://127.0.0.1:PORT; trust 10.0.0.0/8 }
site a { listen l; pool app; route /mine/ { allow 203.0.113.7; pool app } }
""" + APP
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "x", "Forwarded": "for=203.0.113.7;proto=https"}
    with Weir(config, program="threads 1; trust 127.0.0.1") as w:  # the listener's own holds
        p = params(w.get("/env", headers=headers))
        assert p["REMOTE_ADDR"] == "127.0.0.1" and p["REQUEST_SCHEME"] == "http" and "HTTPS" not in p and p["HTTP_HOST"] == f"127.0.0.1:{w.port}"
        assert p["HTTP_X_FORWARDED_PROTO"] == "https" and p["HTTP_FORWARDED"] == "for=203.0.113.7;proto=https"
        assert w.get("/mine/env", headers=headers).status == 403
        w.configure(config.replace("trust 10.0.0.0/8", "trust 127.0.0.1 forwarded"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: params(w.get("/env", headers=headers))["REMOTE_ADDR"] == "203.0.113.7")
        p = params(w.get("/env", headers={"Forwarded": 'for="[2001:db8::7]:99";proto=https;host=f.test', "X-Forwarded-Host": "x"}))
        assert p["REMOTE_ADDR"] == "2001:db8::7" and p["REMOTE_PORT"] == "99" and p["SERVER_NAME"] == "f.test" and p["HTTPS"] == "on" and p["SERVER_PORT"] == "443"
        w.configure(config.replace("trust 10.0.0.0/8", "trust none"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: params(w.get("/env", headers=headers))["REMOTE_ADDR"] == "127.0.0.1")


# ---- the PROXY protocol ----

PROXY = "listener l { address http://127.0.0.1:PORT; proxy-protocol 127.0.0.1 }\nsite a { listen l; pool app; time { head 1s }; route /mine/ { allow 203.0.113.7; pool app } }\n" + APP


@pytest.fixture(scope="module")
def proxied():
    with Weir(PROXY, wait=True) as w:
        yield w


def v2(kind, addresses, command=0x21):
    return V2 + bytes([command, kind]) + struct.pack(">H", len(addresses)) + addresses


def test_a_proxy_header_tells_who_it_is(proxied):
    four = socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 4711, 8080)
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack(">HH", 4711, 8080)
    for header, address, port, server in (
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n", "203.0.113.7", "4711", "192.0.2.1"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 8080\r\n", "2001:db8::7", "4711", "2001:db8::1"),
            (v2(0x11, four), "203.0.113.7", "4711", "192.0.2.1"), (v2(0x21, six + b"\x20\0\x05\x07\0\0\0\0"), "2001:db8::7", "4711", "2001:db8::1"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1", None, "127.0.0.1"), (v2(0, b"", 0x20), "127.0.0.1", None, "127.0.0.1"),
            (v2(0x31, b"x" * 216), "127.0.0.1", None, "127.0.0.1")):
        p = params(proxied.raw(header + ask()))
        assert p["REMOTE_ADDR"] == address and p["SERVER_ADDR"] == server, header
        assert port is None or (p["REMOTE_PORT"] == port and p["SERVER_PORT"] == "8080")
        assert status_of(proxied.raw(header + ask("/mine/env"))) == (200 if address == "203.0.113.7" else 403)


def test_it_may_come_byte_by_byte_and_hold_for_every_request(proxied):
    with proxied.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n":
            s.sendall(bytes([byte]))
        s.sendall(b"GET /env HTTP/1.1\r\nHost: a\r\n\r\n" + ask())
        assert read_all(s).count(b"REMOTE_ADDR=203.0.113.7\n") == 2


def test_without_a_valid_one_nothing_is_answered(proxied):
    for bytes_ in (ask(), b"PROXY TCP4 203.0.113.7 x 1 2\r\n" + ask(), b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\n" + ask(), v2(0x11, b"short") + ask(),
                   V2 + b"\x21\x11\xff\xff" + b"x" * 70000, b"\x16\x03\x01\x02\x00"):
        assert proxied.raw(bytes_) == b"", bytes_[:50]
    assert params(proxied.raw(b"PROXY UNKNOWN\r\n" + ask()))["REMOTE_ADDR"] == "127.0.0.1"


def test_it_has_to_come_in_time(proxied):
    with proxied.connect() as s:
        s.sendall(b"PROXY TCP4 203.0.113.7 ")
        assert read_all(s) == b""  # within time { head }


def test_others_may_not_connect_and_elsewhere_it_is_no_request():
    with Weir(PROXY.replace("proxy-protocol 127.0.0.1", "proxy-protocol 10.0.0.1")) as w:
        assert w.raw(b"PROXY UNKNOWN\r\n" + ask()) == b""
        wait_for(lambda: "a connection of 127.0.0.1 is refused" in w.log())
        w.configure(PROXY.replace("proxy-protocol 127.0.0.1", "proxy-protocol no"))
        assert w.command("reload").returncode == 0
        wait_for(lambda: status_of(w.raw(ask())) == 200)
        assert status_of(w.raw(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 8080\r\n" + ask())) == 400
        assert status_of(w.raw(v2(0, b"", 0x20) + ask())) == 400


def test_with_tls_it_stands_before_the_handshake(tmp_path):
    tls_port = free_port()
    config = f"""
listener l {{ address http://127.0.0.1:PORT https://127.0.0.1:{tls_port}; proxy-protocol 127.0.0.1 }}
site a.test {{ listen l; pool app; tls DIR/cert.pem DIR/cert.key }}
""" + APP

    def prepare(w):
        self_signed(f"{w.dir}/cert.pem", f"{w.dir}/cert.key", "a.test")
        os.chmod(f"{w.dir}/cert.key", 0o644)
    header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
    with Weir(config, prepare=prepare) as w:
        context = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", tls_port), timeout=20) as s:
            s.sendall(header)
            with context.wrap_socket(s, server_hostname="a.test") as t:
                t.sendall(b"GET /env HTTP/1.0\r\nHost: a.test\r\n\r\n")
                p = params(read_all(t))
        assert p["REMOTE_ADDR"] == "203.0.113.7" and p["SERVER_ADDR"] == "192.0.2.1" and p["HTTPS"] == "on" and p["SSL_PROTOCOL"].startswith("TLSv1")
        r = subprocess.run(["/usr/bin/curl", "-sk", "--http2", "--haproxy-protocol", "--resolve", f"a.test:{tls_port}:127.0.0.1", f"https://a.test:{tls_port}/env"], capture_output=True, timeout=60)
        assert b"REMOTE_ADDR=127.0.0.1\n" in r.stdout and b"SERVER_PROTOCOL=HTTP/2.0\n" in r.stdout, r
        for bytes_ in (b"", b"PROXY TCP4 x\r\n"):
            with socket.create_connection(("127.0.0.1", tls_port), timeout=20) as s:
                s.sendall(bytes_)
                with pytest.raises((ssl.SSLError, OSError)):
                    context.wrap_socket(s, server_hostname="a.test")


def test_who_came_by_https_to_a_trusted_proxy_is_not_sent_there_again():
    tls_port = free_port()
    config = f"site a.test {{ listen http://127.0.0.1:PORT https://127.0.0.1:{tls_port}; pool app; tls DIR/cert.pem DIR/cert.key }}\n" + APP

    def prepare(w):
        self_signed(f"{w.dir}/cert.pem", f"{w.dir}/cert.key", "a.test")
        os.chmod(f"{w.dir}/cert.key", 0o644)
    with Weir(config, prepare=prepare, program="threads 1; trust 127.0.0.1") as w:
        r = w.get("/env", host="x.test", headers={"X-Forwarded-Host": "a.test"})
        assert r.status == 301 and r.getheader("Location") == f"https://a.test:{tls_port}/env"
        p = params(w.get("/env", host="a.test", headers={"X-Forwarded-Proto": "https"}))
        assert p["HTTPS"] == "on" and p["SERVER_PORT"] == "443" and "SSL_PROTOCOL" not in p


def test_explain_tells_of_guards():
    config = """
site a.test { listen http://127.0.0.1:PORT; root public; allow 10.0.0.0/8; limit requests 10/s; auth basic users
    route /open/ { files; allow all; auth no; limit no } }
"""
    with Weir(config, {"users": "a:$6$x$y\n", "public/open/x": "x", "public/x": "x"}) as w:
        def guards(path, address):
            r = subprocess.run([WEIR, "explain", "--json", "-c", w.config, "--from", address, f"http://a.test:{w.port}{path}"], capture_output=True, text=True, timeout=60)
            return [(g["guard"], g["passes"]) for g in json.loads(r.stdout)["guards"]]
        assert guards("/x", "10.0.0.1") == [("allow", True), ("limit requests", True), ("auth basic", True)]
        assert guards("/x", "192.0.2.1") == [("allow", False)]
        assert guards("/open/x", "192.0.2.1") == []


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_haproxy_tells_who_it_is(proxied, tmp_path, how):
    port = free_port()
    conf = tmp_path / "haproxy.cfg"
    conf.write_text(f"""
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen l
    bind 127.0.0.1:{port}
    server s 127.0.0.1:{proxied.port} {how}
""")
    with program(["/usr/sbin/haproxy", "-db", "-f", str(conf)], can_connect(("127.0.0.1", port))):
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0), timeout=20) as s:
            mine = s.getsockname()[1]
            s.sendall(ask())
            p = params(read_all(s))
    assert p["REMOTE_ADDR"] == "127.0.0.9" and p["REMOTE_PORT"] == str(mine) and p["SERVER_PORT"] == str(port)


def test_curl_tells_who_it_is(proxied):
    r = subprocess.run(["/usr/bin/curl", "-s", "--haproxy-protocol", "--interface", "127.0.0.1", f"http://127.0.0.1:{proxied.port}/env"], capture_output=True, timeout=60)
    assert b"REMOTE_ADDR=127.0.0.1\n" in r.stdout and f"SERVER_PORT={proxied.port}\n".encode() in r.stdout
