# SPDX-License-Identifier: MIT
"""Debian's programs, unchanged, on our libfcgi: they were linked with Debian's."""
import os
import shutil
import subprocess

import pytest
from libfcgi import EXAMPLES, LIBS, OURS, App, answer, query, request, text
from test_front import get, nginx
from weirlib import wait_for

pytestmark = pytest.mark.nosan  # the library would need a sanitizer's runtime in programs that have none
PERL = "/usr/bin/perl"


def needs(path):
    return pytest.mark.skipif(not os.path.exists(path), reason=f"{path} is not installed")


def written(tmp_path, name, source):
    path = tmp_path / name
    path.write_text(source)
    path.chmod(0o755)
    return str(path)


def conversation(app, params, body, expect, rounds=3):
    """Requests on one kept connection, and one on a connection of its own."""
    c = app.connect()
    for rid in range(1, rounds + 1):
        c.send(request(rid, params, body))
        reply = answer(c, rid)
        assert reply and reply[2][1] == 0
        expect(text(reply), rid)
    other = app.connect()
    c.s.close()
    other.send(request(9, params, body, keep=0))
    expect(text(answer(other, 9)), rounds + 1)
    assert other.closed()


@needs("/usr/sbin/fcgiwrap")
def test_fcgiwrap_runs_cgi_scripts(tmp_path):
    script = written(tmp_path, "a.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; echo $REQUEST_METHOD $QUERY_STRING; cat; echo said >&2\n")
    params = query("a=b", ("SCRIPT_FILENAME", script), ("DOCUMENT_ROOT", str(tmp_path)), ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "100000"))
    body = b"0123456789" * 10000
    with App(["/usr/sbin/fcgiwrap", "-f"]) as app:
        def expect(reply, _):
            assert reply.endswith("\r\n\r\nPOST a=b\n" + body.decode())
        conversation(app, params, body, expect)
        c = app.connect()
        c.send(request(1, params, body))
        assert answer(c, 1)[1] == b"said\n"


@needs("/usr/sbin/fcgiwrap")
def test_fcgiwrap_behind_nginx_with_kept_connections(tmp_path):
    script = written(tmp_path, "a.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; wc -c\n")
    os.chmod(tmp_path.parent, 0o755)
    with App(["/usr/sbin/fcgiwrap"]) as app, nginx(str(tmp_path), app.path, True, f"fastcgi_param SCRIPT_FILENAME {script};") as port:
        for n in (0, 10, 1000000):
            r = get(port, "/", "POST", b"x" * n)
            assert r.status == 200 and int(r.text) == n


FCGI_PM = r"""#!/usr/bin/perl
use FCGI;
my %env;
my $r = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env, 0, FCGI::FAIL_ACCEPT_ON_INTR());
my $n = 0;
while ($r->Accept() >= 0) {
    $n++;
    my $body = do { local $/; <STDIN> };
    print "Content-Type: text/plain\r\n\r\n$n $env{FCGI_ROLE} $env{QUERY_STRING} ", length($body // ''), "\n";
    printf("%s", "x" x 20000) if $env{QUERY_STRING} eq 'big';
    print STDERR "a warning\n";
    $r->Flush();
    $r->Finish();
}
"""


def test_fcgi_pm_serves_requests(tmp_path):
    with App([PERL, written(tmp_path, "a.pl", FCGI_PM)]) as app:
        conversation(app, query("big"), b"b" * 30000, lambda reply, n: check_equal(reply, f"Content-Type: text/plain\r\n\r\n{n} RESPONDER big 30000\n" + "x" * 20000))
        c = app.connect()
        c.send(request(1, query("q")))
        assert answer(c, 1)[1] == b"a warning\n"


def check_equal(a, b):
    assert a == b


CGI_FAST = r"""#!/usr/bin/perl
use CGI::Fast;
my $n = 0;
while (my $q = CGI::Fast->new) {
    $n++;
    print $q->header('text/plain'), "$n name=", scalar $q->param('name'), " uri=", $ENV{REQUEST_URI} // 'none', "\n";
}
"""


@needs("/usr/share/perl5/CGI/Fast.pm")
def test_cgi_fast_parses_forms(tmp_path):
    params = query("", ("REQUEST_METHOD", "POST"), ("CONTENT_TYPE", "application/x-www-form-urlencoded"), ("CONTENT_LENGTH", "15"), ("REQUEST_URI", "/form"))
    with App([PERL, written(tmp_path, "a.pl", CGI_FAST)]) as app:
        conversation(app, params, b"name=some%20one", lambda reply, n: check_equal(reply.split("\r\n\r\n")[1], f"{n} name=some one uri=/form\n"))


RUBY = r"""
require 'fcgi'
n = 0
FCGI.each do |r|
  n += 1
  body = r.in.read
  r.out.print "Content-Type: text/plain\r\n\r\n#{n} #{r.env['QUERY_STRING']} #{body.size}\n"
  r.finish
end
"""


@needs("/usr/bin/ruby")
def test_ruby_fcgi_serves_requests(tmp_path):
    """Debian 12's extension asks for two functions that its Ruby no longer has: alone it falls back to plain Ruby, without any libfcgi."""
    source = tmp_path / "secure.c"
    source.write_text("void rb_secure(int level) { (void)level; }\nint rb_safe_level(void) { return 0; }\n")
    shim = str(tmp_path / "secure.so")
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", shim], check=True, timeout=60)
    with App(["/usr/bin/ruby", written(tmp_path, "a.rb", RUBY)], env={"LD_PRELOAD": shim}) as app:
        for n in range(1, 4):  # it waits for its listening socket before each request: kept connections are not its way
            c = app.connect()
            c.send(request(1, query("q"), b"b" * 30000, keep=0))
            assert text(answer(c, 1)) == f"Content-Type: text/plain\r\n\r\n{n} q 30000\n" and c.closed()


MAP = """MAP
  NAME "test"
  SIZE 20 10
  EXTENT 0 0 20 10
  IMAGECOLOR 255 0 0
  LAYER
    NAME "box"
    TYPE POLYGON
    STATUS ON
    FEATURE POINTS 1 1 1 5 5 5 5 1 1 1 END END
    CLASS STYLE COLOR 0 0 255 END END
  END
END
"""


@needs("/usr/lib/cgi-bin/mapserv")
def test_mapserver_draws_maps(tmp_path):
    path = written(tmp_path, "test.map", MAP)
    conf = written(tmp_path, "mapserver.conf", 'CONFIG\n ENV\n  MS_MAP_PATTERN "^/tmp/"\n END\nEND\n')
    drawn = []
    with App(["/usr/lib/cgi-bin/mapserv"], env={"MAPSERVER_CONFIG_FILE": conf}, ends=False) as app:  # it has a handler of its own
        params = query(f"map={path}&mode=map&layer=box", ("REQUEST_METHOD", "GET"))
        conversation(app, params, b"", lambda reply, _: drawn.append(reply))
    head, image = drawn[0].split("\r\n\r\n", 1)
    assert "image/png" in head and image.startswith("\x89PNG")
    assert len(drawn) == 4 and len(set(drawn)) == 1


CGI_FCGI = "/usr/bin/cgi-fcgi"


def cgi_fcgi(*args, body="", env=None, lib="ours"):
    return subprocess.run([CGI_FCGI, *args], input=body, capture_output=True, text=True, timeout=60,
                          env={"PATH": "/usr/bin", "LD_LIBRARY_PATH": LIBS[lib], **(env or {})})


def test_cgi_fcgi_asks_a_program():
    body = "line\n" * 20000
    with App(os.path.join(EXAMPLES, "fcgi-echo_x")) as app:
        r = cgi_fcgi("-bind", "-connect", app.path, body=body, env={"CONTENT_LENGTH": str(len(body)), "REQUEST_METHOD": "POST"})
        assert r.returncode == 0 and r.stderr == ""
        assert "REQUEST_METHOD=POST\n" in r.stdout and f"LD_LIBRARY_PATH={OURS}\n" in r.stdout and r.stdout.endswith("body:" + body + "\n")
    traced = subprocess.run(["/usr/bin/strace", "-f", "-e", "trace=openat", CGI_FCGI, "-bind", "-connect", "/none"], capture_output=True, text=True, timeout=60,
                            env={"LD_LIBRARY_PATH": OURS}).stderr
    assert f'"{OURS}/libfcgi.so.0", O_RDONLY|O_CLOEXEC) = ' in traced and "/lib/x86_64-linux-gnu/libfcgi" not in traced


def test_cgi_fcgi_starts_programs(tmp_path):
    sock = str(tmp_path / "s")
    program = shutil.copy(os.path.join(EXAMPLES, "fcgi-echo"), tmp_path / "weir-started")
    env = {"CONTENT_LENGTH": "3", "REQUEST_METHOD": "POST"}
    assert cgi_fcgi("-start", "-connect", sock, str(program), "2").returncode == 0
    try:
        r = cgi_fcgi("-bind", "-connect", sock, body="abc", env=env)
        assert r.stdout.endswith("request 1\n" + "".join(line + "\n" for line in r.stdout.split("request 1\n")[1].splitlines()[:-1]) + "body:abc\n")
        pids = started(str(program))
        assert len(pids) == 2
        for pid in pids:
            with open(f"/proc/{pid}/maps") as f:
                assert f"{OURS}/libfcgi.so.0" in f.read()
    finally:
        for pid in started(str(program)):
            os.kill(pid, 15)
    wait_for(lambda: not started(str(program)))


def started(program):
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{p}/exe") == program:
                found.append(int(p))
        except OSError:
            pass
    return found
