# SPDX-License-Identifier: MIT
"""What is said of a request that fails: to its client, to one that may know more (debug yes), and to the log; and what to look at."""
import os
import re

import pytest
from clients import Clients
from weirlib import RECORDER, ROOT, USER, Weir, wait_for

CONFIG = f"""
defaults site {{ listen http://127.0.0.1:PORT; root public }}
site plain.test {{ ROUTES }}
site debug.test {{ debug yes; ROUTES }}
pool app {{ run ./recorder.py; {USER} time {{ silent 300ms }} }}
pool perl {{ run ./odd.pl; {USER} }}
pool dies {{ run ./dies.pl; {USER} processes 2 }}
pool down {{ connect unix:DIR/run/keep-nobody.sock }}
pool full {{ run ./recorder.py; {USER} queue 1 200ms }}
""".replace("ROUTES", " ".join(f"route /{n}/ {{ pool {n} }};" for n in ("app", "perl", "dies", "down", "full")))
ODD = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { print "no header <b>at</b> all\\r\\n\\r\\n"; }
"""
DIES = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { kill 9, $$; sleep 9; }
"""


@pytest.fixture(scope="module")
def weir():
    files = {**RECORDER, "odd.pl": ODD, "dies.pl": DIES, "public/x.txt": "x"}
    with Weir(CONFIG, files) as w:
        yield w


def rows(page):
    return dict(re.findall(r"<dt>([^<]*)<dd>([^\n]*)\n", page))


def line_of(weir, r):
    told = r.getheader("X-Request-Id")
    wait_for(lambda: f"request {told}" in weir.log())
    return next(line for line in weir.log().splitlines() if f"request {told}" in line)


@pytest.mark.parametrize("path,status,why,advice", [
    ("/app/?sleep=2", 504, "the application was silent for too long", "see in the log what it does, or raise time { silent }"),
    ("/perl/", 502, "the application sent a header line without a name and a colon", "its header is to be: Content-Type"),
    ("/dies/", 502, "the application closed the connection before its answer was complete", "it crashed, or was ended"),
    ("/down/", 502, "cannot connect to the application", "is it running, and may the gateway's user open its socket?"),
])
def test_a_failure_is_explained_to_the_log_and_to_who_may_know(weir, path, status, why, advice):
    plain, debug = weir.get(path, host="plain.test"), weir.get(path, host="debug.test")
    pool = path.split("/")[1]
    assert plain.status == debug.status == status
    text = plain.text.decode()
    assert why not in text and pool not in rows(text).values() and "<dl>" not in text and "The application behind this page" in text
    text = debug.text.decode()
    told = rows(text)
    assert why in text and told["Pool"] == pool and advice in told["Check"].replace("&gt;", ">") and re.match(r"\d+ ms, \d+ ms of them in the queue", told["Time"])
    assert told["Endpoint"] == f"unix:{weir.run_dir}/keep-nobody.sock" if pool == "down" else told["Process"].isdigit()
    for r, site in ((plain, "plain"), (debug, "debug")):
        assert r.getheader("X-Request-Id") in r.text.decode()
        line = line_of(weir, r)
        assert f"{pool}: {status} for {path}: {why}, at " in line and advice in line and " ms of them in the queue)" in line, line


def test_a_full_queue(weir):
    go = os.path.join(weir.run_dir, "keep-go")
    with Clients(lambda: weir.get(f"/full/?until={go}", host="debug.test")):
        wait_for(lambda: weir.pool("full")["processes"][0]["busy"])
        r = weir.get("/full/", host="debug.test")
        weir.write("run/keep-go", "")
    told = rows(r.text.decode())
    assert r.status == 503 and r.getheader("Retry-After") == "1"
    assert told["Pool"] == "full" and told["Stage"] == "waiting in the pool's queue" and "raise workers" in told["Check"]


def test_what_the_client_did_wrong_is_told_to_him(weir):
    r = weir.get("/nothing", host="plain.test")
    assert r.status == 404 and b"<p>no such file.</p>" in r.text and r.getheader("X-Request-Id").encode() in r.text
    assert "/nothing" not in weir.log()
    r = weir.get("/dir/%zz", host="plain.test")
    assert r.status == 400 and b"a path with a bad % escape." in r.text


def test_advice_is_for_reasons_that_exist():
    source = open(os.path.join(ROOT, "src/gateway/error_page.c")).read()
    table = source.split("advices[] = {")[1].split("\n};")[0]
    begins = re.findall(r'^    \{"([^"]*)"', table, flags=re.M)
    assert len(begins) > 15
    others = ""
    for folder in ("src/client", "src/gateway", "src/cgi"):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith(".c") and name != "error_page.c":
                others += open(os.path.join(ROOT, folder, name)).read()
    assert [b for b in begins if f'"{b}' not in others] == []
