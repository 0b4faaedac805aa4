# SPDX-License-Identifier: MIT
"""The access log: its formats, what they say of an app, that no client can forge a line, and that a rotation under load loses none."""
import json
import os
import re

import pytest
from weirlib import RECORDER, SLOW, USER, Load, Weir, wait_for

CONFIG = f"""
site a.test {{
    listen http://127.0.0.1:PORT
    root public
    route /app/ {{ pool app }}
    route /down/ {{ pool down }}
    route /quiet/ {{ log no; files }}
    route /auth/ {{ pool app; authorizer says }}
}}
site b.test other.test {{ listen http://127.0.0.1:PORT; root public }}
pool app {{ run ./recorder.py; {USER} }}
pool says {{ run ./says.pl; {USER} }}
pool down {{ connect unix:DIR/run/keep-nobody.sock }}
"""
SAYS = """#!/usr/bin/perl
use FCGI;
my $r = FCGI::Request();
while ($r->Accept() >= 0) { print "Status: 200\\r\\nVariable-REMOTE_USER: me \\"and\\" you\\r\\n\\r\\n"; }
"""
COMBINED = r'(?P<address>\S+) - (?P<user>\S+|(?:me \S+ you)) \[(?P<time>[^\]]+)\] "(?P<request>[^"]*)" (?P<status>\d+|-) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'


def lines(w):
    try:
        with open(w.run_dir + "/keep-access", "rb") as f:
            return f.read().decode().splitlines()
    except OSError:
        return []


def started(words):
    files = {**RECORDER, "says.pl": SAYS, "public/x.txt": "0123456789", "public/quiet/x.txt": "x"}
    return Weir(CONFIG, files, log="DIR/run/keep-access" + words)


def line_for(w, word):
    return wait_for(lambda: next((line for line in lines(w) if word in line), None))


def test_combined_alone_is_what_tools_read():
    with started(" combined") as w:
        w.get("/x.txt?one", host="a.test", headers={"Referer": "http://r/", "User-Agent": "me"})
        m = re.fullmatch(COMBINED, line_for(w, "?one"))
        assert m and m["address"] == "127.0.0.1" and m["user"] == "-" and m["request"] == "GET /x.txt?one HTTP/1.1"
        assert (m["status"], m["bytes"], m["referer"], m["agent"]) == ("200", "10", "http://r/", "me")
        assert re.fullmatch(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", m["time"])
        w.get("/quiet/x.txt", host="a.test")
        w.get("/x.txt?two", host="a.test")
        line_for(w, "?two")
        assert not any("quiet" in line for line in lines(w))


def test_what_was_added_follows_in_one_order():
    with started(" combined+id+bytes+pool+time+site") as w:
        r = w.get("/app/?one", method="POST", body=b"x" * 1234, host="other.test")
        assert r.status == 405 or r.status == 404  # b.test has no such route
        r = w.get("/app/?sleep=0.05&two", method="POST", body=b"x" * 1234, host="a.test")
        told = dict(json.loads(r.text)["params"])["REQUEST_ID"]
        m = re.fullmatch(COMBINED + r" (?P<site>\S+) (?P<us>\d+) (?P<queue>\d+) (?P<first>\d+) (?P<pool>\S+) (?P<at>\S+) (?P<tries>\d+) (?P<came>\d+) (?P<id>[0-9a-f]{32})", line_for(w, "&two"))
        assert m and (m["site"], m["pool"], m["tries"], m["came"], m["id"]) == ("a.test", "app", "1", "1234", told)
        assert m["at"] == str(w.pids("app")[0]) and int(m["us"]) >= int(m["first"]) >= 50000 > int(m["queue"])
        w.get("/x.txt?three", host="other.test")
        assert re.fullmatch(COMBINED + r" b\.test \d+ - - - - - 0 [0-9a-f]{32}", line_for(w, "?three"))
        w.get("/auth/?four", host="a.test")
        assert 'me \\x22and\\x22 you' in line_for(w, "?four")


def test_json_has_all_of_it():
    with started(" json") as w:
        r = w.get("/app/?one", method="POST", body=b"x" * 70000, host="a.test", headers={"Referer": "http://r/", "User-Agent": "me"})
        o = json.loads(line_for(w, "?one"))
        assert o.pop("us") >= o.pop("first_us") >= o.pop("queue_us") >= 0 and o.pop("time") and len(o.pop("id")) == 32 and o.pop("bytes") == len(r.text)
        assert o == {"address": "127.0.0.1", "method": "POST", "target": "/app/?one", "protocol": "HTTP/1.1", "host": "a.test", "site": "a.test", "status": 200,
                     "bytes_in": 70000, "pool": "app", "endpoint": str(w.pids("app")[0]), "tries": 1, "referer": "http://r/", "agent": "me"}
        r = w.get("/down/?two", host="a.test")
        o = json.loads(line_for(w, "?two"))
        assert o["status"] == r.status == 502 and o["why"] == "cannot connect to the application" and o["id"] == r.getheader("X-Request-Id") and "first_us" not in o
        with w.connect() as s:
            s.sendall(b"GET /app/?sleep=5&three HTTP/1.1\r\nHost: a.test\r\n\r\n")
            wait_for(lambda: w.pool("app")["processes"][0]["busy"])
        o = json.loads(line_for(w, "&three"))
        assert o["status"] == 499 and o["tries"] == 1 and o["endpoint"].isdigit()


@pytest.mark.parametrize("words", ["", " combined+site+id", " json"])
def test_no_client_can_forge_a_line(words):
    with started(words) as w:
        evil = b'\xff" 200 5 "-" "-"\\n\x7f\xc2\x9b\t[x] \\x22'
        w.raw(b"GET /x.txt?" + b"%0A%0D" + evil.replace(b"\x7f", b"").replace(b" ", b"").replace(b"\t", b"") + b" HTTP/1.1\r\nHost: a.test\r\nUser-Agent: " + evil.replace(b"\x7f", b"") + b"\r\nReferer: " +
              b"\xfe" * 3000 + b"\r\nConnection: close\r\n\r\n")
        w.raw(b"GET /" + b"\xfe" * 4000 + b" HTTP/1.1\r\nHost: a.test\r\nUser-Agent: " + b"\xfd" * 4000 + b"\r\nX-Request-Id: \"\r\nConnection: close\r\n\r\n")
        w.raw(b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        wait_for(lambda: len(lines(w)) == 3)  # of two threads: in any order
        got = lines(w)
        assert len(got) == 3 and all(c.isprintable() for line in got for c in line)
        for line in got:
            if "json" in words:
                json.loads(line)
            else:
                more = r" (a\.test|-) [0-9a-f]{32}" if words else r" \d+ - - - - - [0-9a-f]{32}"
                assert re.fullmatch(COMBINED + more, line), line


@pytest.mark.threads
def test_a_rotation_under_load_loses_no_line():
    with started(" combined+id") as w:
        path, n = w.run_dir + "/keep-access", 6
        with Load(w.port, "/x.txt?load", count=4) as load:
            for i in range(n):
                wait_for(lambda: len(lines(w)) > 50)
                os.rename(path, f"{path}.{i}")
                assert w.command("reopen").returncode == 0
                wait_for(lambda: os.path.exists(path))
        assert not load.bad, load
        w.get("/x.txt?last")
        line_for(w, "?last")

        def all_lines():
            found = []
            for name in os.listdir(w.run_dir):
                if name.startswith("keep-access"):
                    with open(os.path.join(w.run_dir, name)) as f:
                        found += [line for line in f.read().split("\n") if "?load" in line]
            return found
        wait_for(lambda: len(all_lines()) >= load.ok, 20 * SLOW)
        found = all_lines()
        ids = {line.rsplit(" ", 1)[1] for line in found}
        assert len(found) == len(ids) == load.ok and all(re.fullmatch(COMBINED + " [0-9a-f]{32}", line) for line in found)
        assert "were lost" not in w.log()
