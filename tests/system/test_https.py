# SPDX-License-Identifier: MIT
"""What a site with a certificate does with http://, and files and compressed content through TLS."""
import os
import subprocess

import pytest
from weirlib import USER, Weir, free_port

PORT = free_port()
CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT https://127.0.0.1:{PORT}
    tls keys; root public; php php; compress yes
}}
site both.test {{ listen http://127.0.0.1:PORT https://127.0.0.1:{PORT}; tls keys; https no; root public }}
pool php {{ php; {USER} workers 2 }}
"""
LARGE = b"".join(b"%07d\n" % i for i in range(300000))
FILES = {"public/large.txt": LARGE, "public/x.php": "<?php echo $_SERVER['HTTPS'] ?? 'off', ' ', str_repeat('page ', 1000);", "public/.well-known/acme-challenge/Tok-en_1": "token",
         "public/secret.txt": "secret"}


@pytest.fixture(scope="module")
def weir():
    def prepare(w):
        keys = os.path.join(w.dir, "keys")
        os.mkdir(keys)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=a.test",
                        "-addext", "subjectAltName=DNS:a.test,DNS:both.test", "-keyout", os.path.join(keys, "privkey.pem"), "-out", os.path.join(keys, "fullchain.pem")],
                       check=True, capture_output=True)
    with Weir(CONFIG, FILES, prepare=prepare) as w:
        yield w


def curl(weir, path, *args, site="a.test"):
    r = subprocess.run(["curl", "-s", "-S", "--max-time", "60", "--cacert", os.path.join(weir.dir, "keys/fullchain.pem"), "--resolve", f"{site}:{PORT}:127.0.0.1", *args,
                        f"https://{site}:{PORT}{path}"], capture_output=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_http_is_sent_to_https_but_for_challenges(weir):
    for method, status in (("GET", 301), ("HEAD", 301), ("POST", 308)):
        r = weir.get("/a/b?c=%20d", method, host="a.test")
        assert (r.status, r.headers["Location"]) == (status, f"https://a.test:{PORT}/a/b?c=%20d")
    assert weir.get("/.well-known/acme-challenge/Tok-en_1", host="a.test").text == b"token"
    for path in ("/.well-known/acme-challenge/../../secret.txt", "/.well-known/acme-challenge/%2e%2e/%2e%2e/secret.txt", "/.well-known/acme-challenge/x/y"):
        r = weir.get(path, host="a.test")
        assert r.status == 301 and r.text != b"secret"


def test_a_site_may_serve_http_as_well(weir):
    assert weir.get("/secret.txt", host="both.test").text == b"secret"
    assert curl(weir, "/secret.txt", site="both.test") == b"secret"


@pytest.mark.threads
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_files_parts_and_compressed_content_pass_tls(weir, version):
    assert curl(weir, "/large.txt", version) == LARGE
    assert curl(weir, "/large.txt", version, "--compressed") == LARGE
    assert b"gzip" in curl(weir, "/large.txt", version, "--compressed", "-D", "-", "-o", "/dev/null")
    assert curl(weir, "/large.txt", version, "-r", "1000000-2000000") == LARGE[1000000:2000001]
    out = curl(weir, "/large.txt", version, "-r", "0-9,1000000-2000000")
    assert out.count(b"Content-Range: ") == 2 and LARGE[1000000:2000001] in out
    assert curl(weir, "/x.php", version, "--compressed") == b"on " + b"page " * 1000
