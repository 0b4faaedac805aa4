# SPDX-License-Identifier: MIT
"""Servers that others own, and are asked whether they answer: php-fpm with its ping.path, and two that come and go."""
import os
import subprocess

import pytest
from weirlib import EXAMPLES, SLOW, Weir, can_connect, program, wait_for

CONFIG = """
site a { listen http://127.0.0.1:PORT; root public; route / { pool app } }
pool app { connect unix:DIR/run/keep-one.sock { workers 4 }; connect unix:DIR/run/keep-two.sock { workers 4 }; check /hello 200ms }
"""


def app(weir, name):
    path = os.path.join(weir.run_dir, f"keep-{name}.sock")
    if os.path.exists(path):
        os.unlink(path)
    return program(["/usr/bin/spawn-fcgi", "-n", "-M", "0666", "-s", path, "--", os.path.join(EXAMPLES, "bench_app")], can_connect(path))


def test_a_server_that_does_not_answer_gets_no_requests_until_it_does():
    with Weir(CONFIG) as w:
        wait_for(lambda: w.log().count("fails its check /hello") == 2)
        r = w.get("/hello")
        assert r.status == 503 and r.getheader("Retry-After")
        with app(w, "one"):
            wait_for(lambda: "keep-one.sock answers its check again" in w.log())
            assert all(w.get("/hello").status == 200 for _ in range(8))
            with app(w, "two"):
                wait_for(lambda: "keep-two.sock answers its check again" in w.log())
                assert w.get("/hello").status == 200
            wait_for(lambda: w.log().count("keep-two.sock fails its check") == 2)
            assert all(w.get("/hello").status == 200 for _ in range(8))


PERL = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) {
    print $ENV{SCRIPT_NAME} eq '/ping' && !-e 'DIR/fine' ? "Status: 500 no\\r\\n\\r\\n" : "Content-Type: text/plain\\r\\n\\r\\nok\\n";
}
"""


@pytest.mark.threads
def test_an_error_is_no_answer_and_a_reload_may_end_the_check():
    text = CONFIG.replace("/hello 200ms", "/ping 200ms").replace("; connect unix:DIR/run/keep-two.sock { workers 4 }", "")
    with Weir(text) as w:
        perl = w.write("one.pl", PERL.replace("DIR", w.dir))
        path = os.path.join(w.run_dir, "keep-one.sock")
        with program(["/usr/bin/spawn-fcgi", "-n", "-M", "0666", "-s", path, "--", perl], can_connect(path)):
            wait_for(lambda: "fails its check /ping" in w.log())
            w.write("fine", "")
            wait_for(lambda: w.get("/x").status == 200)
            os.unlink(os.path.join(w.dir, "fine"))
            wait_for(lambda: w.get("/x").status == 503)
            assert "fails its check /ping: the answer is 500" in w.log()
            w.configure(text.replace("; check /ping 200ms", ""))
            assert w.command("reload").returncode == 0
            wait_for(lambda: w.get("/x").status == 200)


def test_the_ping_path_of_php_fpm(tmp_path):
    sock = tmp_path / "fpm.sock"
    conf = tmp_path / "fpm.conf"
    conf.write_text(f"[global]\nerror_log = {tmp_path}/log\n[www]\nuser = weir-demo\nlisten = {sock}\nlisten.mode = 0666\npm = static\npm.max_children = 2\nping.path = /ping\n")
    os.chmod(tmp_path, 0o755)
    text = f"site a {{ listen http://127.0.0.1:PORT; root public; php app }}\npool app {{ connect unix:{sock} {{ workers 2 }}; check /ping 200ms }}"
    p = tmp_path
    while str(p) != "/":
        if not os.stat(p).st_mode & 1:
            os.chmod(p, os.stat(p).st_mode | 0o011)
        p = p.parent
    with Weir(text, {"public/x.php": "<?php echo 'php';"}) as w:
        wait_for(lambda: "fails its check /ping" in w.log())
        fpm = subprocess.Popen(["/usr/sbin/php-fpm8.2", "-F", "-y", str(conf)], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: "answers its check again" in w.log(), 20 * SLOW)
            r = w.get("/x.php")
            assert r.status == 200 and r.text == b"php"
        finally:
            fpm.terminate()
            fpm.wait()


@pytest.mark.threads
def test_a_server_that_is_added_while_all_are_down_is_asked():
    with Weir(CONFIG) as w:
        wait_for(lambda: w.log().count("fails its check /hello") == 2)
        assert w.get("/hello").status == 503
        with app(w, "three"):
            w.configure(CONFIG.replace("check /hello", "connect unix:DIR/run/keep-three.sock { workers 4 }; check /hello"))
            assert w.command("reload").returncode == 0
            wait_for(lambda: w.get("/hello").status == 200)
