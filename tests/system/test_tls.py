# SPDX-License-Identifier: MIT
"""TLS: certificates by name, renewed while it runs, broken ones, sessions, client certificates; clients that we did not write."""
import os
import re
import shutil
import socket
import ssl
import subprocess

import pytest
from certs import self_signed, signed
from weirlib import IS_ROOT, SLOW, USER, WEIR, Weir, free_port, wait_for

ENV = """<?php foreach (['SERVER_PROTOCOL','HTTPS','REQUEST_SCHEME','SERVER_PORT','SSL_PROTOCOL','SSL_CLIENT_VERIFY','SSL_CLIENT_S_DN','SSL_CLIENT_I_DN',
'SSL_CLIENT_FINGERPRINT'] as $k) echo $k, '=', $_SERVER[$k] ?? '-', "\\n"; echo strlen(file_get_contents('php://input')), "\\n";"""


class Tls(Weir):
    """`weir serve` with an http:// port and an https:// one, TLSPORT in its configuration."""

    def __init__(self, config, files=None, prepare=None, **more):
        self.tls_port = free_port()
        self.sites = config
        super().__init__(config.replace("TLSPORT", str(self.tls_port)), files, prepare=prepare, **more)

    def curl(self, name, path="/", *args, port=None):
        port = port or self.tls_port
        r = subprocess.run(["curl", "-sk", "--resolve", f"{name}:{port}:127.0.0.1", "-w", "\n%{http_code} %{http_version}", *args, f"https://{name}:{port}{path}"],
                           capture_output=True, timeout=60 * SLOW)
        return r

    def status(self, name=None, *args):
        if name is None:
            return super().status()
        return self.curl(name, *args).stdout.decode(errors="replace").rsplit("\n", 1)[-1].split()

    def shown(self, name, *what):
        """What `openssl x509` says of the certificate that is shown to who asks for this name; None: the handshake fails."""
        context = ssl._create_unverified_context()
        try:
            with socket.create_connection(("127.0.0.1", self.tls_port), timeout=20 * SLOW) as s, context.wrap_socket(s, server_hostname=name) as t:
                der = t.getpeercert(True)
        except ssl.SSLError:
            return None
        return subprocess.run(["openssl", "x509", "-inform", "der", "-noout", *what], input=der, capture_output=True, check=True).stdout.decode()

    def subject(self, name):
        """Whose certificate is shown; None: the handshake fails."""
        text = self.shown(name, "-subject")
        return text and re.search(r"CN ?= ?(\S+)", text)[1]


SITE = "site a.test www.a.test {{ listen http://127.0.0.1:PORT https://127.0.0.1:TLSPORT; root public; tls {tls} }}\n"


def pair(w, name, *names, days=30):
    self_signed(f"{w.dir}/{name}.pem", f"{w.dir}/{name}.key", *names, days=days)


def test_both_versions_of_http_are_served_and_told_to_apps():
    def prepare(w):
        pair(w, "tls/fullchain", "a.test")
        os.rename(w.dir + "/tls/fullchain.key", w.dir + "/tls/privkey.pem")
    with Tls(SITE.format(tls="tls; php p") + f"pool p {{ php; {USER} }}", {"public/env.php": ENV, "public/f.txt": "hello\n"}, prepare) as w:
        big = os.urandom(3_000_000)
        w.write("public/big", big)
        for http, told in (("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")):
            lines = w.curl("a.test", "/env.php", http).stdout.decode().split("\n")
            assert lines[:5] == [f"SERVER_PROTOCOL={told}", "HTTPS=on", "REQUEST_SCHEME=https", f"SERVER_PORT={w.tls_port}", "SSL_PROTOCOL=TLSv1.3"]
            assert lines[5:10] == ["SSL_CLIENT_VERIFY=-", "SSL_CLIENT_S_DN=-", "SSL_CLIENT_I_DN=-", "SSL_CLIENT_FINGERPRINT=-", "0"]
            assert w.curl("a.test", "/big", http).stdout.rsplit(b"\n", 1)[0] == big
            assert w.curl("a.test", "/env.php", http, "--data-binary", f"@{w.public}/big").stdout.decode().split("\n")[9] == "3000000"
            assert w.curl("a.test", "/env.php", http, "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{w.public}/big").stdout.decode().split("\n")[9] == "3000000"
        assert w.curl("a.test", "/f.txt", "--tls-max", "1.2").stdout.startswith(b"hello")
        assert w.curl("a.test", "/f.txt", "--tls-max", "1.1").returncode == 35


@pytest.mark.threads
def test_the_name_chooses_the_certificate_and_only_its_site_is_behind_it():
    def prepare(w):
        pair(w, "a", "a.test", "www.a.test")
        pair(w, "b", "b.test")
        pair(w, "certs/c.test", "c.test")
    config = (SITE.format(tls="DIR/a") + "site b.test { listen https://127.0.0.1:TLSPORT; root public; tls b.pem b.key }\n"
              "listener web { address https://127.0.0.1:OTHER; certificates certs }\n"
              "site c.test www.c.test d.test { listen web; root public }\n")
    other = free_port()
    with Tls(config.replace("OTHER", str(other)), {"public/f": "x"}, prepare) as w:
        assert [w.subject(n) for n in ("a.test", "WWW.A.test", "b.test", "unknown.test", None)] == ["a.test", "a.test", "b.test", "a.test", "a.test"]
        w.tls_port, first = other, w.tls_port
        assert [w.subject(n) for n in ("c.test", "www.c.test", "d.test")] == ["c.test", "c.test", "c.test"]
        assert "d.test" in w.log() and "No such file" in w.log()
        pair(w, "certs/d.test", "d.test")  # it is used without an order
        wait_for(lambda: w.subject("d.test") == "d.test", 30)
        w.tls_port = first
        assert w.status("b.test", "/f") == ["200", "2"]


@pytest.mark.threads
def test_a_renewed_certificate_is_used_and_a_broken_one_is_not():
    with Tls(SITE.format(tls="a; time { head 120s }"), {"public/f": "x"}, lambda w: pair(w, "a", "first.test")) as w:
        assert w.subject("a.test") == "first.test"
        with socket.create_connection(("127.0.0.1", w.tls_port)) as s, ssl._create_unverified_context().wrap_socket(s) as kept:
            pair(w, "a", "second.test")
            wait_for(lambda: w.subject("a.test") == "second.test", 30)
            shutil.copy(w.dir + "/a.key", w.dir + "/was.key")
            pair(w, "other", "third.test")
            os.replace(w.dir + "/other.key", w.dir + "/a.key")  # a key that is not the certificate's
            wait_for(lambda: "the key is not the certificate's" in w.log() and "the old one stays in use" in w.log(), 30)
            w.write("a.pem", "nonsense")
            wait_for(lambda: "this is no PEM: what was read before stays in use" in w.log(), 30)
            assert w.subject("a.test") == "second.test"
            kept.sendall(b"GET /f HTTP/1.1\r\nHost: a.test\r\n\r\n")  # a connection that was there goes on
            assert kept.recv(100).startswith(b"HTTP/1.1 200")
        assert w.command("reload").returncode == 0
        assert w.subject("a.test") == "second.test"
        pair(w, "a", "fourth.test")
        assert w.command("reload").returncode == 0  # it does not wait for the next look
        wait_for(lambda: w.subject("a.test") == "fourth.test", 3)


@pytest.mark.skipif(not IS_ROOT, reason="only root may open what others may not")
def test_keys_that_only_root_may_read_are_used_and_nothing_else_is_handed_out():
    def prepare(w):
        pair(w, "keys/a", "a.test")
        os.chmod(w.dir + "/keys", 0o700)
    with Tls(SITE.format(tls="keys/a"), {"public/f": "x"}, prepare) as w:
        assert w.subject("a.test") == "a.test"
        for pid in (w.status()["control_pid"], w.gateway()):
            with open(f"/proc/{pid}/status") as f:
                assert re.search(r"^Uid:\t(\d+)", f.read(), re.M)[1] != "0"
        w.configure((SITE.format(tls="keys/a") + "site s.test { listen https://127.0.0.1:TLSPORT; root public; tls /etc/shadow /etc/shadow }\n").replace("TLSPORT", str(w.tls_port)))
        assert w.command("reload").returncode == 0
        wait_for(lambda: "/etc/shadow: this is no PEM" in w.log())
        wait_for(lambda: w.subject("s.test") is None)  # the gateway has it
        assert w.subject("a.test") == "a.test"


def test_a_site_with_a_certificate_is_not_served_in_clear_text():
    with Tls(SITE.format(tls="a"), {"public/f": "x", "public/.well-known/acme-challenge/token": "answer"}, lambda w: pair(w, "a", "a.test")) as w:
        r = w.get("/f?a=1", host="a.test")
        assert r.status == 301 and r.headers["Location"] == f"https://a.test:{w.tls_port}/f?a=1"
        assert w.raw(b"POST /f HTTP/1.1\r\nHost: www.a.test\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx").startswith(b"HTTP/1.1 308")
        assert w.raw(b"GET /f HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403")
        assert w.get("/.well-known/acme-challenge/token", host="a.test").text == b"answer"
        r = socket.create_connection(("127.0.0.1", w.tls_port))
        with r:
            r.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            answer = b""
            while piece := r.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 400") and b"this port speaks TLS" in answer


@pytest.mark.threads
def test_sessions_are_taken_up_again_also_by_another_thread_and_after_a_reload():
    with Tls(SITE.format(tls="a"), {"public/f": "x"}, lambda w: pair(w, "a", "a.test")) as w:
        context = ssl._create_unverified_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def connect(session=None):
            with socket.create_connection(("127.0.0.1", w.tls_port)) as s, context.wrap_socket(s, server_hostname="a.test", session=session) as t:
                t.sendall(b"GET /f HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                assert t.recv(100).startswith(b"HTTP/1.1 200")
                return t.session, t.session_reused
        session, reused = connect()
        assert not reused
        assert all(connect(session)[1] for _ in range(8))
        w.configure(w.sites.replace("TLSPORT", str(w.tls_port)) + "# changed\n")
        assert w.command("reload").returncode == 0
        assert connect(session)[1]


def test_client_certificates_are_asked_for_judged_and_never_taken_from_another_site():
    def prepare(w):
        pair(w, "a", "a.test")
        pair(w, "b", "b.test")
        for ca in ("ca", "other"):
            self_signed(f"{w.dir}/{ca}.pem", f"{w.dir}/{ca}.key", ca)
            signed(f"{w.dir}/{ca}-alice.pem", f"{w.dir}/{ca}-alice.key", "alice", f"{w.dir}/{ca}.pem", f"{w.dir}/{ca}.key")
    config = (SITE.format(tls="a; php p") + "site b.test { listen https://127.0.0.1:TLSPORT; root public; php p; tls b { clients ca.pem } }\n"
              f"site o.test {{ listen https://127.0.0.1:TLSPORT; root public; php p; tls b {{ clients ca.pem optional }} }}\npool p {{ php; {USER} }}\n")
    with Tls(config, {"public/env.php": ENV}, prepare) as w:
        good, bad = (["--cert", f"{w.dir}/{ca}-alice.pem", "--key", f"{w.dir}/{ca}-alice.key"] for ca in ("ca", "other"))
        assert w.status("b.test", "/env.php")[0] == "403"
        assert w.status("b.test", "/env.php", *bad)[0] == "403"
        for name in ("b.test", "o.test"):
            lines = w.curl(name, "/env.php", *good).stdout.decode().split("\n")
            assert lines[5:8] == ["SSL_CLIENT_VERIFY=SUCCESS", "SSL_CLIENT_S_DN=CN=alice,O=Acme", "SSL_CLIENT_I_DN=CN=ca"] and len(lines[8]) == 23 + 64 - 1 + 1
        assert "SSL_CLIENT_VERIFY=NONE" in w.curl("o.test", "/env.php").stdout.decode()
        assert "SSL_CLIENT_VERIFY=FAILED:" in w.curl("o.test", "/env.php", *bad).stdout.decode()
        for http in ("--http1.1", "--http2"):
            assert w.status("a.test", "/env.php", http, *good, "-H", "Host: b.test")[0] == "421"
            assert w.status("b.test", "/env.php", http, *good, "-H", "Host: a.test")[0] == "421"
            assert w.status("o.test", "/env.php", http, "-H", "Host: b.test")[0] == "403"  # the same authorities, but it showed none


@pytest.mark.nosan
def test_a_scanner_finds_no_old_version_and_no_weak_cipher():
    def prepare(w):
        self_signed(w.dir + "/a.pem", w.dir + "/a.key", "a.test", rsa=True)
    with Tls(SITE.format(tls="a"), {"public/f": "x"}, prepare) as w:
        out = subprocess.run(["sslscan", "--no-colour", "--sni-name=a.test", f"127.0.0.1:{w.tls_port}"], capture_output=True, timeout=120 * SLOW).stdout.decode()
        for old in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
            assert re.search(rf"^{old}\s+disabled", out, re.M), out
        for new in ("TLSv1.2", "TLSv1.3"):
            assert re.search(rf"^{new}\s+enabled", out, re.M), out
        ciphers = re.findall(r"^(?:Preferred|Accepted)\s+\S+\s+(\d+) bits\s+(\S+)", out, re.M)
        assert ciphers and all(int(bits) >= 128 and ("GCM" in name or "CHACHA20" in name) and (name.startswith("TLS_") or name.startswith("ECDHE")) for bits, name in ciphers), ciphers
        assert "Session renegotiation not supported" in out and "vulnerable to heartbleed" not in out.replace("not vulnerable to heartbleed", "")


def test_the_gateway_alone_reads_its_certificates_and_a_reload_reads_them_again():
    port = free_port()
    with Weir("site x { listen http://127.0.0.1:PORT; root public }", {"public/f": "x"}) as w:
        pair(w, "a", "first.test")
        path = w.write("alone.conf", f"site a.test {{ listen https://127.0.0.1:{port}; root {w.public}; tls a }}\n")
        with open(w.dir + "/alone.log", "wb") as log:
            p = subprocess.Popen([WEIR, "gateway", "-c", path], stdout=log, stderr=log)
        try:
            def subject():
                try:
                    with socket.create_connection(("127.0.0.1", port)) as s, ssl._create_unverified_context().wrap_socket(s, server_hostname="a.test") as t:
                        return b"first.test" in t.getpeercert(True), b"second.test" in t.getpeercert(True)
                except OSError:
                    return None
            assert wait_for(subject) == (True, False)
            pair(w, "a", "second.test")
            p.send_signal(1)
            wait_for(lambda: subject() == (False, True))
            os.unlink(w.dir + "/a.key")
            p.send_signal(1)
            with open(w.dir + "/alone.log") as f:
                wait_for(lambda: f.seek(0) == 0 and "a.key: No such file" in f.read())
            assert subject() == (False, True)
        finally:
            p.terminate()
            assert p.wait(20 * SLOW) == 0


def test_a_handshake_that_does_not_go_on_ends_and_hurts_nobody():
    with Tls(SITE.format(tls="a; time { head 1s }"), {"public/f": "x"}, lambda w: pair(w, "a", "a.test")) as w:
        silent = [socket.create_connection(("127.0.0.1", w.tls_port), timeout=30 * SLOW) for _ in range(50)]
        for s in silent[:25]:
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the beginning of a hello
        assert w.status("a.test", "/f")[0] == "200"
        for s in silent:
            assert s.recv(100) == b""
            s.close()
        garbage = socket.create_connection(("127.0.0.1", w.tls_port), timeout=30 * SLOW)
        garbage.sendall(b"\x16\x03\x01\x00\x05hello" * 100)
        with garbage:
            got = b""
            try:
                while piece := garbage.recv(100):
                    got += piece
            except ConnectionResetError:
                pass
            assert got[:1] in (b"\x15", b"")  # an alert
        assert w.status("a.test", "/f")[0] == "200"


def test_mistakes_about_certificates_are_told_where_they_are():
    def check(text, *expected):
        with Weir("site x { listen http://127.0.0.1:PORT; root public }") as w:
            path = w.write("bad.conf", text)
            r = subprocess.run([WEIR, "check", path], capture_output=True, text=True)
            for e in expected:
                assert e in r.stdout + r.stderr, r.stdout + r.stderr
            return r.returncode
    assert check("site a { listen https://*:443; root / }\n", "bad.conf:1:1: this site listens on https:// and has no certificate: write tls DIR") == 1
    assert check("site a { listen http://*:80; root /tmp; tls /x }\n", "the site has a certificate, and no https:// listener uses it", "there is neither /x/fullchain.pem nor /x.pem") == 1
    assert check("site a { listen https://*:443; root /tmp; tls /x { clients /y never } }\n", 'bad.conf:1:63: "never" is not known here: write clients FILE, or clients FILE optional') == 1
