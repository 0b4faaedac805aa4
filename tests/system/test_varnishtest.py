# SPDX-License-Identifier: MIT
"""varnishtest, a client that others wrote, sends what no browser would: each is answered as its RFC says, and hurts nobody else."""
import subprocess

import pytest
from weirlib import SLOW, USER, Weir

CONFIG = f"""
site a {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool app }} }}
pool app {{ run ./demo; {USER} }}
"""

HTTP1 = {
    "three requests on one connection": "loop 3 { txreq -url /f.txt -hdr {Host: a}\nrxresp\nexpect resp.status == 200\nexpect resp.body == {hello} }",
    "chunks in pieces": "send {POST /app/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5}\ndelay .05\nsend {\r\nab}\ndelay .05\nsend {cde\r\n0\r\n\r\n}\n"
                        "rxresp\nexpect resp.status == 200",
    "a length and chunks": "txreq -req POST -url /app/upload -hdr {Host: a} -hdr {Content-Length: 5} -hdr {Transfer-Encoding: chunked}\nrxresp\nexpect resp.status == 400\nexpect_close",
    "two lengths": "txreq -req POST -url /app/upload -hdr {Host: a} -hdr {Content-Length: 5} -hdr {Content-Length: 6}\nrxresp\nexpect resp.status == 400\nexpect_close",
    "no host": "send {GET /f.txt HTTP/1.1\r\n\r\n}\nrxresp\nexpect resp.status == 400\nexpect_close",
    "a head of 100 KB": "txreq -url /f.txt -hdr {Host: a} -hdrlen Large 100000\nrxresp\nexpect resp.status == 431\nexpect_close",
}

START = "txpri\nstream 0 { rxsettings\nrxwinup\ntxsettings\ntxsettings -ack\nrxsettings\nexpect settings.ack == true } -run\n"
SERVED = "stream 1 { txreq -url /f.txt -hdr {:authority} {a}\nrxresp\nexpect resp.status == 200\nexpect resp.body == {hello} } -run\n"


def ends_with(error, frames, stream=0):
    return f"stream {stream} {{ {frames} }} -run\nstream 0 {{ rxgoaway\nexpect goaway.err == {error} }} -run"


HTTP2 = {
    "a file": SERVED,
    "a body": "stream 1 { txreq -req POST -url /app/upload -nostrend -hdr {:authority} {a}\ntxdata -data {abc} -nostrend\ntxdata -data {def}\nrxresp\nexpect resp.status == 200 } -run",
    "a stream that is reset, and the next": "stream 1 { txreq -url /app/sleep/300 -hdr {:authority} {a}\ntxrst -err 8 } -run\n" + SERVED.replace("stream 1", "stream 3"),
    "DATA on stream 0": ends_with("PROTOCOL_ERROR", "txdata -data {x}"),
    "DATA on a stream that is idle": ends_with("PROTOCOL_ERROR", "txdata -data {x}", 1),
    "CONTINUATION behind nothing": ends_with("PROTOCOL_ERROR", "txcont -hdr {a} {b}", 1),
    "a window that overflows": ends_with("FLOW_CONTROL_ERROR", "txwinup -size 2147483647"),
    "WINDOW_UPDATE of nothing": ends_with("PROTOCOL_ERROR", "txwinup -size 0"),
    "HEADERS on an even stream": ends_with("PROTOCOL_ERROR", "txreq -url /f.txt -hdr {:authority} {a}", 2),
    "an unknown frame": "sendhex {000004 fa 00 00000000 00000000}\n" + SERVED,
    "padding that is longer than its frame": ends_with("PROTOCOL_ERROR", "sendhex {000005 00 08 00000001 ff00000000}"),
}
CASES = {**HTTP1, **{name: START + script for name, script in HTTP2.items()}}


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, {"public/f.txt": "hello"}) as w:
        yield w


def varnishtest(weir, script, tmp_path):
    (tmp_path / "case.vtc").write_text(f'varnishtest "weir"\nclient c1 -connect 127.0.0.1:{weir.port} {{\n{script}\n}} -run\n')
    r = subprocess.run(["varnishtest", "-t", str(30 * SLOW), str(tmp_path / "case.vtc")], capture_output=True, text=True, timeout=60 * SLOW)
    assert weir.get("/f.txt").text == b"hello"
    return r


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_sent_is_answered_as_it_should_be(weir, name, tmp_path):
    r = varnishtest(weir, CASES[name], tmp_path)
    assert r.returncode == 0, r.stdout + r.stderr


@pytest.mark.parametrize("frame", ["000008 06 00 00000000 0000000000000000", "000000 04 00 00000000"], ids=["PING", "SETTINGS"])
def test_a_flood_ends_its_own_connection(weir, frame, tmp_path):
    r = varnishtest(weir, START + f"loop 20000 {{ sendhex {{{frame}}} }}", tmp_path)
    assert "Write failed" in r.stdout  # it was closed meanwhile
