# SPDX-License-Identifier: MIT
"""The commands as a person types them: call against real programs, check --effective, the users of the program."""
import json
import os
import pwd
import subprocess

import pytest
from weirlib import EXAMPLES, IS_ROOT, USER, WEIR, Weir, wait_for

CONFIG = f"""
site a.test {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool demo }} }}
pool php {{ php; {USER} workers 2 }}
pool demo {{ run ./demo; {USER} }}
"""
SCRIPT = """<?php
header('X-Method: ' . $_SERVER['REQUEST_METHOD']);
if (isset($_SERVER['X_STATUS'])) http_response_code((int)$_SERVER['X_STATUS']);
error_log('to the log');
echo strlen(file_get_contents('php://input')), ' bytes, ', $_SERVER['QUERY_STRING'] ?? '';
"""


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, {"public/x.php": SCRIPT}) as w:
        yield w


def address(weir, pool):
    return weir.pool(pool)["processes"][0]["address"]


def call(weir, pool, *args, body=b""):
    return subprocess.run([WEIR, "call", address(weir, pool), *args], input=body, capture_output=True, timeout=60)


def test_orders_answer_and_leak_nothing(weir):
    for order in ("status", "status --json", "reload", "restart demo", "restart gateway", "scale demo 2", "drain demo", "restart demo", "stop demo", "restart demo",
                  "suspend a.test", "resume a.test", "deny 127.0.0.9 --for 1h", "deny --list", "allow 127.0.0.9", "reopen"):
        r = weir.command(*order.split(), env=None)
        assert r.returncode == 0 and r.stdout and not r.stderr, order
    wait_for(lambda: weir.pids("demo") and weir.gateway())


def test_call_speaks_to_php_and_prints_head_body_errors_and_status(weir):
    script = os.path.join(weir.public, "x.php")
    r = call(weir, "php", f"SCRIPT_FILENAME={script}", "REQUEST_METHOD=POST", "QUERY_STRING=q=1", "REDIRECT_STATUS=200", body=b"x" * 100000)
    assert r.returncode == 0, r.stderr
    head, body = r.stdout.split(b"\n\n", 1) if b"\n\n" in r.stdout else r.stdout.split(b"\r\n\r\n", 1)
    assert b"X-Method: POST" in head and body.startswith(b"100000 bytes, q=1")
    assert b"to the log" in r.stderr


def test_call_speaks_to_a_filter():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run {EXAMPLES}/filter; {USER} }}\n") as w:
        r = call(w, "p", "-r", "filter", "FCGI_DATA_LENGTH=0", "FCGI_DATA_LAST_MOD=0", body=b"some body")
        assert r.returncode == 0 and b"Content-Type" in r.stdout, r.stderr


def test_the_exit_status_of_call_is_a_health_check(weir):
    script = os.path.join(weir.public, "x.php")
    assert call(weir, "php", f"SCRIPT_FILENAME={script}", "X_STATUS=503", "REDIRECT_STATUS=200").returncode == 1
    assert call(weir, "php", "SCRIPT_FILENAME=/nowhere.php", "REDIRECT_STATUS=200").returncode == 1
    assert subprocess.run([WEIR, "call", "unix:/nowhere"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 3
    assert subprocess.run([WEIR, "call", "nowhere"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 2


def test_call_tells_json(weir):
    r = call(weir, "demo", "REQUEST_METHOD=GET", "SCRIPT_NAME=/app", "PATH_INFO=/hello", "--json")
    o = json.loads(r.stdout)
    assert r.returncode == 0 and o["status"] == 200 and o["app_status"] == 0, o


@pytest.mark.nosan
def test_effective_settings_with_their_places(weir):
    r = subprocess.run([WEIR, "check", "-c", weir.config, "--effective", "php"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    lines = {line.split("#")[0].strip(): line.split("#")[1].strip() for line in r.stdout.splitlines() if "#" in line}
    assert lines["workers 2"].startswith(weir.config + ":") and lines["queue 1000 30s"] == "built-in", r.stdout
    r = subprocess.run([WEIR, "check", "-c", weir.config, "--effective", "nobody"], capture_output=True, text=True)
    assert r.returncode == 1 and 'no pool and no site "nobody"' in r.stderr


@pytest.mark.nosan
@pytest.mark.skipif(not IS_ROOT, reason="changes users")
def test_control_and_gateway_run_as_the_configuration_says():
    def users(w):
        s = w.status()
        return [pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name for pid in (s["control_pid"], s["gateway"]["pid"])]
    with Weir(CONFIG, {"public/x.php": SCRIPT}) as w:
        assert users(w) == ["weir", "weir-gw"]
    with Weir(CONFIG, {"public/x.php": SCRIPT}, program="user weir-gw weir") as w:
        assert users(w) == ["weir-gw", "weir"]
