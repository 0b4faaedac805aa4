# SPDX-License-Identifier: MIT
"""Certificates by ACME: certbot asks pebble, a certificate authority for tests, which looks at the challenge by http:// as others do;
Weir takes the certificate up without an order, and its successor, too."""
import json
import os
import re
import subprocess

import pytest
from certs import self_signed
from test_tls import Tls
from weirlib import SLOW, can_connect, free_port, program, wait_for

pytestmark = pytest.mark.nosan

# As in docs/tls.md.
SITE = "site wiki.test www.wiki.test { listen http://127.0.0.1:PORT https://127.0.0.1:TLSPORT; root public; tls DIR/acme/live/wiki.test }\n"


class Authority:
    """pebble, with a DNS server that sends every name here: certificates of its own, and the site's port 80 and 443."""

    def __init__(self, weir):
        self.dir, self.port, self.roots, dns, admin = weir.dir, *[free_port() for _ in range(4)]
        self_signed(f"{self.dir}/pebble.pem", f"{self.dir}/pebble.key", "localhost")
        weir.write("pebble.json", json.dumps({"pebble": {"listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.roots}",
                                                         "certificate": f"{self.dir}/pebble.pem", "privateKey": f"{self.dir}/pebble.key",
                                                         "httpPort": weir.port, "tlsPort": weir.tls_port, "ocspResponderURL": "", "externalAccountBindingRequired": False}}))
        self.names = program(["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}", "-http01", "", "-https01", "", "-tlsalpn01", "",
                              "-management", f"127.0.0.1:{admin}"], can_connect(("127.0.0.1", admin)))
        self.log = open(self.dir + "/pebble.log", "w")
        self.server = program(["pebble", "-config", f"{self.dir}/pebble.json", "-dnsserver", f"127.0.0.1:{dns}"], can_connect(("127.0.0.1", self.port)), log=self.log,
                              env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"})

    def __enter__(self):
        self.names.__enter__()
        self.server.__enter__()
        return self

    def __exit__(self, *why):
        self.server.__exit__(*why)
        self.names.__exit__(*why)
        self.log.close()

    def certbot(self, *args):
        folders = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", f"{self.dir}/acme" + ("" if name == "config" else "-" + name))]
        r = subprocess.run(["certbot", *args, "--webroot", "-w", f"{self.dir}/public", "--server", f"https://localhost:{self.port}/dir", *folders, "-n", "--agree-tos",
                            "--register-unsafely-without-email", "-d", "wiki.test", "-d", "www.wiki.test"],
                           capture_output=True, text=True, timeout=60 * SLOW, stdin=subprocess.DEVNULL, env={**os.environ, "REQUESTS_CA_BUNDLE": f"{self.dir}/pebble.pem"})
        assert r.returncode == 0, r.stdout + r.stderr
        return r.stdout


def test_a_certificate_is_asked_for_taken_up_and_renewed_without_an_order():
    with Tls(SITE, {"public/f": "x"}, log="-") as w, Authority(w) as ca:
        assert w.subject("wiki.test") is None  # there is none yet; clients by http:// are sent to https:// all the same
        assert w.get("/f", host="wiki.test").status == 301
        ca.certbot("certonly")
        seen = re.findall(r'"GET /\.well-known/acme-challenge/\S+ HTTP/1\.1" 200', w.log())
        assert len(seen) >= 2, w.log()  # one for each name, by pebble itself
        issued = subprocess.run(["openssl", "x509", "-in", f"{w.dir}/acme/live/wiki.test/fullchain.pem", "-noout", "-serial", "-issuer"], capture_output=True, text=True, check=True).stdout
        assert "Pebble" in issued
        wait_for(lambda: w.shown("www.wiki.test", "-serial", "-issuer") == issued, 30, every=0.2)
        root = subprocess.run(["curl", "-sSk", f"https://127.0.0.1:{ca.roots}/roots/0"], capture_output=True, timeout=60 * SLOW).stdout
        for name in ("wiki.test", "www.wiki.test"):  # whoever trusts the authority takes it for what it is
            r = subprocess.run(["curl", "-sS", "--cacert", w.write("root.pem", root), "--resolve", f"{name}:{w.tls_port}:127.0.0.1", f"https://{name}:{w.tls_port}/f"],
                               capture_output=True, timeout=60 * SLOW)
            assert r.stdout == b"x", r.stderr
        ca.certbot("certonly", "--force-renewal")  # renewed before its time
        wait_for(lambda: w.shown("www.wiki.test", "-serial", "-issuer") not in (None, issued), 30, every=0.2)
