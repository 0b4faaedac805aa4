# SPDX-License-Identifier: MIT
"""Programs that we did not write: behind the gateway and in front of libweir."""
import hashlib
import os
import socket
import subprocess
import urllib.request

import pytest
from weirlib import EXAMPLES, HAPROXY, SLOW, Weir, can_connect, free_port, program, wait_for

LIBFCGI_APP = r"""
#include <fcgiapp.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    FCGX_Request r;
    FCGX_Init();
    FCGX_InitRequest(&r, 0, 0);
    while (FCGX_Accept_r(&r) >= 0) {
        char buf[65536], *big = FCGX_GetParam("QUERY_STRING", r.envp);
        long n = 0, k;
        while ((k = FCGX_GetStr(buf, sizeof buf, r.in)) > 0) n += k;
        FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n");
        if (big && *big) { memset(buf, 'x', 1024); for (k = 0; k < atol(big); k += 1024) FCGX_PutStr(buf, 1024, r.out); }
        else FCGX_FPrintF(r.out, "%ld bytes", n);
        FCGX_FPrintF(r.err, "libfcgi says hello\n");
        FCGX_Finish_r(&r);
    }
    return 0;
}
"""
PERL_APP = r"""
use FCGI;
my $socket = FCGI::OpenSocket($ARGV[0], 50);
my $r = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%ENV, $socket);
while ($r->Accept() >= 0) {
    my ($n, $buf, $k) = (0);
    while (($k = read(STDIN, $buf, 65536)) > 0) { $n += $k; }
    print "Content-Type: text/plain\r\n\r\n";
    if ($ENV{QUERY_STRING}) { print "x" x $ENV{QUERY_STRING}; } else { print "$n bytes"; }
}
"""
PHP = "<?php if ($_SERVER['QUERY_STRING']) echo str_repeat('x', (int)$_SERVER['QUERY_STRING']); else echo strlen(file_get_contents('php://input')), ' bytes';"


@pytest.fixture(scope="module")
def libfcgi_app(tmp_path_factory):
    d = tmp_path_factory.mktemp("libfcgi")
    (d / "app.c").write_text(LIBFCGI_APP)
    subprocess.run(["gcc", "-O1", "-o", d / "app", d / "app.c", "-lfcgi"], check=True)
    return str(d / "app")


def behind(peer, run, libfcgi_app):
    """A context manager that runs the peer and the path it listens on."""
    path = f"{run}/keep-{peer}.sock"
    if peer == "php-cgi":
        env = dict(os.environ, PHP_FCGI_CHILDREN="2", PHP_FCGI_MAX_REQUESTS="0")
        return path, program(["php-cgi", "-b", path], can_connect(path), env=env)
    if peer == "php-fpm":
        conf = f"{run}/keep-fpm.conf"
        with open(conf, "w") as f:
            f.write(f"[global]\nerror_log = /dev/null\ndaemonize = no\n[www]\nlisten = {path}\nlisten.mode = 0666\npm = static\npm.max_children = 2\n"
                    "user = weir-demo\ngroup = weir-demo\n")
        return path, program(["php-fpm8.2", "-F", "-y", conf], can_connect(path))
    if peer == "libfcgi":
        return path, program(["spawn-fcgi", "-n", "-s", path, "-M", "0777", "--", libfcgi_app], can_connect(path))
    with open(f"{run}/keep-app.pl", "w") as f:
        f.write(PERL_APP)
    return path, program(["perl", f"{run}/keep-app.pl", path], can_connect(path))


@pytest.mark.parametrize("keep", ["", "keep"])
@pytest.mark.parametrize("peer", ["php-cgi", "php-fpm", "libfcgi", "FCGI.pm"])
def test_a_peer_behind_the_gateway_serves_get_post_and_a_megabyte(peer, keep, libfcgi_app):
    php = peer.startswith("php")
    config = ("site a {\n    listen http://127.0.0.1:PORT\n    root public\n    " + ("php p" if php else "route / { pool p }") +
              f"\n}}\npool p {{ connect unix:DIR/run/keep-{peer}.sock {{ workers {2 if php else 1} }}; {keep} }}\n")
    with Weir(config, {"public/a.php": PHP}) as w:
        path, running = behind(peer, w.run_dir, libfcgi_app)
        with running:
            os.chmod(path, 0o777)
            name = "/a.php"
            for _ in range(3):
                assert w.get(name).text == b"0 bytes"
                assert w.get(name, "POST", b"z" * 2000000).text == b"2000000 bytes"
                assert w.get(name + "?1048576").text == b"x" * 1048576
            if peer == "libfcgi":
                wait_for(lambda: "libfcgi says hello" in w.log())


NGINX = """
worker_processes 1; daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.err;
events {{ worker_connections 500; }}
http {{
    access_log off;
    client_body_temp_path {d}/n1; proxy_temp_path {d}/n2; fastcgi_temp_path {d}/n3; uwsgi_temp_path {d}/n4; scgi_temp_path {d}/n5;
    client_max_body_size 50m;
    upstream app {{ server unix:{d}/app.sock; keepalive {keep}; }}
    server {{ listen 127.0.0.1:{port}; location / {{ include /etc/nginx/fastcgi_params; fastcgi_pass app; {more} }} }}
}}
"""


def get(port, path, data=None):
    return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data), timeout=30 * SLOW).read()


@pytest.mark.parametrize("front", ["nginx", "nginx keep", "haproxy", "haproxy get-values"])
def test_a_foreign_web_server_in_front_of_libweir(front, tmp_path):
    """FC1-3.5-b, FC1-3.5-c, FC1-7-a, FC1-7-b"""
    port = free_port()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    listener.listen(100)
    if front.startswith("nginx"):
        keep = "keep" in front
        conf = tmp_path / "nginx.conf"
        conf.write_text(NGINX.format(d=tmp_path, port=port, keep=4, more="fastcgi_keep_conn on;" if keep else ""))
        os.chmod(tmp_path, 0o777)
        args = ["/usr/sbin/nginx", "-c", str(conf), "-g", "user root;"]
    else:
        conf = tmp_path / "haproxy.cfg"
        conf.write_text(HAPROXY.format(socket=tmp_path / "app.sock", port=port, server="", more="option max-reqs 20" + ("\n    option get-values" if "values" in front else "")))
        args = ["/usr/sbin/haproxy", "-db", "-f", str(conf)]
    app = subprocess.Popen([os.path.join(EXAMPLES, "bench_app")], stdin=listener.fileno())
    try:
        with program(args, can_connect(("127.0.0.1", port))):
            body = os.urandom(10 << 20)
            for _ in range(3):
                assert len(get(port, "/hello")) == 100
                assert get(port, "/discard", body) == b"%d\n" % len(body)
                assert len(get(port, "/big/1048576")) == 1048576
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(16) as pool:
                assert all(len(x) == 100 for x in pool.map(lambda _: get(port, "/sleep/50"), range(64)))
    finally:
        app.terminate()
        assert app.wait(20 * SLOW) == 0
        listener.close()


def test_cgi_fcgi_gets_an_answer_from_libweir(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    listener.listen(10)
    app = subprocess.Popen([os.path.join(EXAMPLES, "hello")], stdin=listener.fileno())
    try:
        r = subprocess.run(["cgi-fcgi", "-bind", "-connect", str(tmp_path / "app.sock")], capture_output=True, timeout=30,
                           env={"PATH": "/usr/bin", "QUERY_STRING": "cgi-fcgi", "REQUEST_METHOD": "GET"}, stdin=subprocess.DEVNULL)
        assert b"\r\n\r\nHello, cgi-fcgi!" in r.stdout  # a mix of line ends is no end of a header to Apache
    finally:
        app.terminate()
        assert app.wait(20 * SLOW) == 0
        listener.close()
