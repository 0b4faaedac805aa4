# SPDX-License-Identifier: MIT
"""HTTP/2: clients that we did not write; many streams at once; windows; hostile frames, which cost bounded time and hurt nobody
else."""
import itertools
import os
import struct
import subprocess
import time

import pytest
from h2client import CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PING, PREFACE, PRIORITY, RST, SETTINGS, WINDOW, frame
from weirlib import RECORDER, SLOW, TEST_APPS, USER, Weir, wait_for

THREADS = os.path.join(TEST_APPS, "threads_app")
CONFIG = f"""site a {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool demo }} route /slow/ {{ pool slow }} }}
pool demo {{ run ./demo; {USER} }}
pool slow {{ run {THREADS}; {USER} }}
"""
FLOW, PROTOCOL, CALM, REFUSED, COMPRESSION, FRAME_SIZE, CLOSED = 3, 1, 11, 7, 9, 6, 5


@pytest.fixture(scope="module")
def weir():
    with Weir(CONFIG, {"public/f.txt": "hello\n", "public/php.txt": "x"}) as w:
        w.write("public/big", os.urandom(3_000_000))
        yield w


def curl(w, path, *args):
    return subprocess.run(["curl", "-s", "--http2-prior-knowledge", *args, f"http://127.0.0.1:{w.port}{path}"], capture_output=True, timeout=60 * SLOW).stdout


def resident(w):
    with open(f"/proc/{w.gateway()}/statm") as f:
        return int(f.read().split()[1]) * 4096


def test_clients_of_others_get_files_and_apps(weir):
    with open(weir.public + "/big", "rb") as f:
        big = f.read()
    assert curl(weir, "/f.txt") == b"hello\n"
    assert curl(weir, "/big") == big
    assert b"HTTP/2 200" in curl(weir, "/big", "-I") and b"HTTP/2 404" in curl(weir, "/nothing", "-I")
    assert b"HTTP/2.0" in curl(weir, "/app/env")
    assert curl(weir, "/f.txt", "-X", "POST", "-d", "x", "-w", "%{http_code}").endswith(b"405")
    out = subprocess.run(["nghttp", "-nv", f"http://127.0.0.1:{weir.port}/f.txt", f"http://127.0.0.1:{weir.port}/app/env"], capture_output=True, timeout=60 * SLOW).stdout
    assert out.count(b":status: 200") == 2
    out = subprocess.run(["h2load", "-n2000", "-c8", "-m32", f"http://127.0.0.1:{weir.port}/app/hello"], capture_output=True, timeout=120 * SLOW).stdout
    assert b"2000 succeeded, 0 failed, 0 errored" in out


def test_an_upload_arrives_whole_however_large_and_however_told(weir):
    for more in ([], ["-H", "Content-Length:"]):
        assert b"3000000" in curl(weir, "/app/upload", "--data-binary", f"@{weir.public}/big", *more)
    with H2(weir.port) as c:
        c.send(c.head(1, "/app/upload", "POST", end=False, more=[("content-length", "5")]), frame(DATA, 0, 1, b"abc"), frame(DATA, END_STREAM, 1, b"de"))
        assert c.answer(1)[0] == "200"
        c.send(c.head(3, "/app/upload", "POST", end=False, more=[("content-length", "5")]), frame(DATA, END_STREAM, 3, b"abc"))
        assert c.answer(3) == ("reset", PROTOCOL)  # fewer bytes than it said: the app never sees it
        c.send(c.head(5, "/app/hello"))
        assert c.answer(5)[0] == "200"


@pytest.mark.threads
def test_an_answer_that_comes_before_its_head_is_written_arrives_whole():
    php = "<?php $n = (int)$_GET['n']; if (isset($_GET['told'])) header(\"Content-Length: $n\"); for ($i = 0; $i < $n; $i += 1000) echo str_repeat('x', 1000);"
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }} pool p {{ php; {USER} }}", {"public/x.php": php}) as w:
        for size in (60_000, 65_000, 66_000, 70_000, 130_000, 256_000, 300_000, 1_000_000):
            for told in ("", "&told=1"):
                assert len(curl(w, f"/x.php?n={size}{told}", "-m", str(20 * SLOW))) == size


@pytest.mark.nosan
def test_slow_answers_do_not_hold_up_others_on_the_connection(weir):
    with H2(weir.port) as c:
        c.send(*[c.head(i, "/slow/sleep/700") for i in (1, 3, 5)], c.head(7, "/f.txt"))
        order = [f[2] for f in itertools.islice((f for f in iter(c.read, None) if f[0] == HEADERS), 4)]
        assert order[0] == 7 and sorted(order) == [1, 3, 5, 7]


@pytest.mark.threads
def test_a_stream_that_takes_nothing_leaves_the_others_alone_and_ends(weir):
    with Weir(CONFIG.replace("root public", "root public; time { send 1s }"), {"public/f.txt": "hello\n"}) as w:
        w.write("public/big", os.urandom(500_000))
        with H2(w.port, struct.pack("!HI", 4, 0)) as c:  # no window for content
            c.send(c.head(1, "/big"), c.head(3, "/f.txt"), frame(WINDOW, 0, 3, struct.pack("!I", 100)))
            got = c.until(lambda f: f[2] == 3 and f[1] & END_STREAM)
            assert any(f[0] == DATA and f[3] == b"hello\n" for f in got)
            got = c.until(lambda f: f[0] == RST)
            assert got[-1][2] == 1
            c.send(c.head(5, "/f.txt"), frame(WINDOW, 0, 5, struct.pack("!I", 100)))
            assert any(f[3] == b"hello\n" for f in c.until(lambda f: f[2] == 5 and f[1] & END_STREAM))


@pytest.mark.threads
def test_a_client_that_resets_aborts_the_request_in_the_app(weir):
    with H2(weir.port) as c:
        c.send(c.head(1, "/slow/sleep/20000"))
        wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 1)
        c.send(frame(RST, 0, 1, struct.pack("!I", 8)))
        wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 0)
        c.send(c.head(3, "/f.txt"))
        assert c.answer(3) == ("200", b"hello\n")


@pytest.mark.threads
def test_a_connection_that_closes_frees_all_its_requests(weir):
    with H2(weir.port) as c:
        c.send(*[c.head(i, "/slow/sleep/20000") for i in (1, 3, 5)], c.head(7, "/app/upload", "POST", end=False), frame(DATA, 0, 7, b"part"))
        wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 3)
    wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 0)
    assert weir.get("/f.txt").status == 200


def test_time_limits_hold_for_streams_as_for_connections():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; route /app/ { pool demo } time { head 1s; body 1s; idle 1s } }\n"
              f"pool demo {{ run ./demo; {USER} }}\n", {"public/f.txt": "hello\n"}) as w:
        with H2(w.port) as c:
            c.send(c.head(1, "/app/upload", "POST", end=False), frame(DATA, 0, 1, b"part"))
            assert c.answer(1)[0] == "408"
            c.send(c.head(3, "/f.txt"))
            assert c.answer(3)[0] == "200"
            assert c.goaway() == 0 and c.read() is None  # idle
        with H2(w.port) as c:
            assert c.goaway() == 0 and c.read() is None  # it never asked
        with H2(w.port, preface=False) as c:
            c.send(PREFACE[:10])
            assert c.read() is None


def test_the_limit_of_a_body_holds_where_no_length_was_told():
    with Weir("site a { listen http://127.0.0.1:PORT; route /app/ { pool demo } body 100K }\n" f"pool demo {{ run ./demo; {USER} }}\n") as w:
        with H2(w.port) as c:
            c.send(c.head(1, "/app/upload", "POST", end=False), *[frame(DATA, 0, 1, bytes(16000))] * 8)
            assert c.answer(1)[0] == "413"
            c.send(c.head(3, "/app/hello"))
            assert c.answer(3)[0] == "200"


@pytest.mark.threads
def test_a_restart_of_the_gateway_loses_no_stream(weir):
    before = weir.gateway()
    with H2(weir.port) as c:
        c.send(c.head(1, "/slow/sleep/1500"))
        wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 1)
        assert weir.command("restart", "gateway").returncode == 0
        wait_for(lambda: weir.gateway() not in (None, before))
        got = c.until(lambda f: False)  # it closes
        assert any(f[0] == DATA and f[3] == b"short\n" for f in got) and any(f[0] == GOAWAY for f in got)
    with H2(weir.port) as c:
        c.send(c.head(1, "/f.txt"))
        assert c.answer(1)[0] == "200"


# ---- hostile frames ----

def u32(v):
    return struct.pack("!I", v)


CONNECTION_ERRORS = {
    "a frame that is too large": ([frame(DATA, 0, 1, bytes(17000))], FRAME_SIZE),
    "SETTINGS of a length that is no multiple of 6": ([frame(SETTINGS, 0, 0, bytes(5))], FRAME_SIZE),
    "SETTINGS on a stream": ([frame(SETTINGS, 0, 1, b"")], PROTOCOL),
    "a window that is too large": ([frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 1 << 31))], FLOW),
    "a frame size that is too small": ([frame(SETTINGS, 0, 0, struct.pack("!HI", 5, 100))], PROTOCOL),
    "ENABLE_PUSH of 2": ([frame(SETTINGS, 0, 0, struct.pack("!HI", 2, 2))], PROTOCOL),
    "PING of 7 bytes": ([frame(PING, 0, 0, bytes(7))], FRAME_SIZE),
    "PING on a stream": ([frame(PING, 0, 1, bytes(8))], PROTOCOL),
    "WINDOW_UPDATE of 0 on the connection": ([frame(WINDOW, 0, 0, u32(0))], PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1": ([frame(WINDOW, 0, 0, u32(0x7fffffff))] * 2, FLOW),
    "HEADERS on stream 0": ([frame(HEADERS, END_HEADERS, 0, b"\x82")], PROTOCOL),
    "HEADERS on an even stream": ([frame(HEADERS, END_HEADERS, 2, b"\x82")], PROTOCOL),
    "HPACK that is none": ([frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff")], COMPRESSION),
    "an index that is not in the table": ([frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xfe")], COMPRESSION),
    "DATA on a stream that was never opened": ([frame(DATA, 0, 5, b"x")], PROTOCOL),
    "CONTINUATION without HEADERS": ([frame(CONTINUATION, END_HEADERS, 1, b"\x82")], PROTOCOL),
    "another frame inside a header block": ([frame(HEADERS, 0, 1, b"\x82"), frame(PING, 0, 0, bytes(8))], PROTOCOL),
    "PUSH_PROMISE of a client": ([frame(5, END_HEADERS, 1, u32(2) + b"\x82")], PROTOCOL),
    "RST_STREAM of an idle stream": ([frame(RST, 0, 1, u32(8))], PROTOCOL),
    "padding longer than the frame": ([frame(HEADERS, END_HEADERS | 8, 1, b"\xff\x82")], PROTOCOL),
}


@pytest.mark.parametrize("what", CONNECTION_ERRORS)
def test_what_breaks_the_protocol_ends_the_connection_with_its_error(weir, what):
    frames, error = CONNECTION_ERRORS[what]
    with H2(weir.port) as c:
        c.send(*frames)
        assert c.goaway() == error
        assert c.until(lambda f: False) is not None  # it closes
    assert weir.get("/f.txt").status == 200


FLOODS = {
    "PING": lambda c, i: frame(PING, 0, 0, u32(i) + u32(i)),
    "SETTINGS": lambda c, i: frame(SETTINGS, 0, 0, struct.pack("!HI", 1, 4096)),
    "empty DATA": lambda c, i: frame(DATA, 0, 1, b""),
    "PRIORITY": lambda c, i: frame(PRIORITY, 0, 2 * i + 1, u32(0) + b"\x10"),
    "rapid reset": lambda c, i: c.head(2 * i + 3, "/slow/sleep/100") + frame(RST, 0, 2 * i + 3, u32(8)),
    "resets that we are made to send": lambda c, i: c.head(2 * i + 3, "/f.txt", end=False) + frame(WINDOW, 0, 2 * i + 3, u32(0)),
    "CONTINUATION": lambda c, i: frame(CONTINUATION, 0, 3, b"") if i else frame(HEADERS, 0, 3, b"\x82"),
}


@pytest.mark.parametrize("what", FLOODS)
def test_floods_cost_bounded_time_and_hurt_nobody_else(weir, what):
    def cpu():
        with open(f"/proc/{weir.gateway()}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    before, used = resident(weir), cpu()
    with H2(weir.port) as c:
        c.send(c.head(1, "/app/upload", "POST", end=False))
        frames = [FLOODS[what](c, i) for i in range(5000)]
        for i in range(0, len(frames), 50):
            c.send(*frames[i:i + 50])
        assert c.goaway() in (CALM, PROTOCOL, None)
    assert weir.get("/f.txt").status == 200
    assert resident(weir) - before < 8 << 20
    assert cpu() - used < 2 * SLOW
    wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 0)


def test_a_bomb_of_compressed_fields_costs_bounded_memory(weir):
    before = resident(weir)
    with H2(weir.port) as c:
        c.encoder.huffman = False
        value = b"x" * 4000
        first = c.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/f.txt"), ("x", value)])
        c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, first))
        c.answer(1)
        index = bytes([0x80 | 62])  # that field again, one byte
        for i in range(50):
            c.send(frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * i, b"\x82\x86\x41\x01a\x04\x06/f.txt" + index * 800))
        answers = [c.answer(3 + 2 * i)[0] for i in range(3)]
        assert all(a in ("431", "reset", "goaway", "closed") for a in answers), answers
    assert resident(weir) - before < 16 << 20
    assert weir.get("/f.txt").status == 200


@pytest.mark.nosan
def test_many_streams_with_closed_windows_cost_bounded_memory(weir):
    before = resident(weir)
    clients = [H2(weir.port, struct.pack("!HI", 4, 0)) for _ in range(10)]
    for c in clients:
        c.send(*[c.head(2 * i + 1, "/big") for i in range(100)])
        c.until(lambda f: f[0] == HEADERS and f[2] == 199)
    assert resident(weir) - before < 10 * (4 << 20)
    assert weir.get("/f.txt").status == 200
    for c in clients:
        c.s.close()


def test_trailers_are_no_parameters(weir):
    with H2(weir.port) as c:
        c.send(c.head(1, "/app/env", "POST", end=False), frame(DATA, 0, 1, b"x"),
               frame(HEADERS, END_HEADERS | END_STREAM, 1, c.encoder.encode([("x-admin", "yes")])))
        status, content = c.answer(1)
        assert status == "200" and b"ADMIN" not in content


@pytest.mark.parametrize("ends", [True, False])
def test_an_answer_that_comes_before_the_body_is_no_reset_at_first(weir, ends):
    """Then, who still sends is told that nothing more is wanted [RFC 9113 8.1]."""
    with H2(weir.port) as c:
        c.send(c.head(1, "/none", "POST", end=False), frame(DATA, 0, 1, b"x"))
        got = c.until(lambda f: f[2] == 1 and f[1] & END_STREAM)
        assert not [f for f in got if f[0] == RST] and dict(c.decoder.decode(next(f for f in got if f[0] == HEADERS)[3]))[":status"] == "404"
        if not ends:
            got = c.until(lambda f: f[0] == RST)
            assert got[-1][2] == 1 and struct.unpack("!I", got[-1][3])[0] == 0
        c.send(frame(DATA, END_STREAM, 1, b"y"), c.head(3, "/f.txt"))
        got = c.until(lambda f: f[2] == 3 and f[1] & END_STREAM)
        assert not [f for f in got if f[0] in (RST, GOAWAY)]


def test_an_answer_that_takes_longer_than_that_is_no_reset_behind_its_last_byte(weir):
    with H2(weir.port, struct.pack("!HI", 4, 1000)) as c:
        c.send(c.head(1, "/php.txt", "POST", end=False), c.head(3, "/big", "GET", end=False))
        time.sleep(1.5)  # longer than it has once it is complete
        c.send(frame(WINDOW, 0, 3, struct.pack("!I", 4_000_000)), frame(WINDOW, 0, 0, struct.pack("!I", 4_000_000)))
        got = c.until(lambda f: f[2] == 3 and f[0] == DATA and f[1] & END_STREAM)
        begin = time.monotonic()
        got = c.until(lambda f: f[0] == RST and f[2] == 3)
        assert got[-1][0] == RST and time.monotonic() - begin > 0.5


def test_curl_hears_an_early_answer(weir):
    for _ in range(20):
        r = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", "-T", weir.public + "/big", f"http://127.0.0.1:{weir.port}/none"],
                           capture_output=True, timeout=60 * SLOW)
        assert (r.returncode, r.stdout) == (0, b"404")


# ---- what ends late, or never ----

@pytest.mark.threads
def test_a_request_runs_once_whenever_its_end_comes(weir):
    """A file that has to be looked for on the disk, one that does not fit into the window, one that is answered at its head."""
    gateway = weir.gateway()
    opened = f"/proc/{gateway}/fd"
    for i in range(20):
        with H2(weir.port) as c:
            heads = {1: f"/not-there-{i}", 3: "/f.txt", 5: "/big", 7: f"/nor-there-{i}/x"}
            c.send(frame(WINDOW, 0, 0, struct.pack("!I", 1_000_000)), *[c.head(s, path, end=False) + (frame(DATA, END_STREAM, s) if i % 2 else b"") for s, path in heads.items()])
            if not i % 2:
                c.until(lambda f: f[2] == 5 and f[0] == DATA)
                c.send(*[frame(DATA, END_STREAM, s) for s in heads])
            c.send(c.head(9, "/f.txt"))
            got = c.until(lambda f: f[2] == 9 and f[0] == DATA)
            assert [f for f in got if f[2] == 9 and f[0] == DATA][0][3] == b"hello\n"
            assert len([f for f in got if f[2] == 5 and f[0] == HEADERS]) <= 1
    wait_for(lambda: not [n for n in os.listdir(opened) if os.path.realpath(f"{opened}/{n}").endswith("/public/big")])
    assert weir.gateway() == gateway and curl(weir, "/f.txt") == b"hello\n"


def test_what_cancelled_uploads_had_sent_is_room_for_others():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool app; route /slow/ {{ authorizer slow; pool app }} }}\npool app {{ run ./demo; {USER} }}\npool slow {{ run ./recorder.py; processes 9; {USER} }}\n",
              RECORDER) as w, H2(w.port) as c:
        room = 65535
        for i in range(8):
            while room < 240_000:
                f = c.read()
                if f[0] == WINDOW and f[2] == 0:
                    room += struct.unpack("!I", f[3])[0]
            c.send(c.head(2 * i + 1, f"/slow/?until={w.run_dir}/keep-never", "POST", end=False), *[frame(DATA, 0, 2 * i + 1, bytes(16000))] * 15, frame(RST, 0, 2 * i + 1, struct.pack("!I", 8)))
            room -= 240_000


@pytest.mark.threads
def test_a_body_of_no_byte_that_ends_late_is_one_request_of_its_own_client():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool app; route /guarded/ {{ authorizer app; pool app }} }}\npool app {{ run ./recorder.py; processes 2; {USER} }}\n",
              RECORDER) as w:
        gateway = w.gateway()
        with H2(w.port) as c:
            started, go = f"{w.run_dir}/keep-started", f"{w.run_dir}/keep-go"
            c.send(c.head(1, f"/x?started={started}&until={go}", "POST", end=False, more=[("content-length", "0")]), frame(DATA, END_STREAM, 1))
            wait_for(lambda: os.path.exists(started))
            c.send(c.head(3, f"/x?started={started}-2&until={go}", end=False))
            c.send(frame(DATA, END_STREAM, 3), frame(PING, 0, 0, bytes(8)))
            c.until(lambda f: f[0] == PING)
            w.write("run/keep-go", "")
            ends = set()
            c.until(lambda f: f[0] in (HEADERS, DATA) and f[1] & END_STREAM and (ends.add(f[2]) or ends >= {1, 3}))
            wait_for(lambda: sum(p["requests"] for p in w.pool("app")["processes"]) == 2)
        for path in ("/x?own=1", "/guarded/x?own=1"):
            with H2(w.port) as c, H2(w.port) as other:
                c.send(c.head(1, path, "POST", end=False, more=[("content-length", "0")]))
                other.send(other.head(1, "/y?other=1"))
                assert other.answer(1)[0] == "200"
                c.send(frame(DATA, END_STREAM, 1))
                status, content = c.answer(1)
                assert status in ("200", "401", "403") and b"other=1" not in content
                other.send(other.head(3, "/z?other=2"))
                status, content = other.answer(3)
                assert status == "200" and b"own=1" not in content and b"other=2" in content
        assert w.gateway() == gateway


@pytest.mark.nosan
def test_files_that_streams_hold_leave_room_for_connections_and_apps():
    with Weir(CONFIG, {"public/f.txt": "hello\n"}, wrap=["prlimit", "--nofile=256:256"]) as w:
        for i in range(100):
            w.write(f"public/{i}", os.urandom(200_000))
        with H2(w.port, struct.pack("!HI", 4, 0)) as c:
            c.send(*[c.head(2 * i + 1, f"/{i}") for i in range(100)])
            got = c.until(lambda f: f[2] == 199 and f[0] == HEADERS)
            heads = [dict(c.decoder.decode(f[3]))[":status"] for f in got if f[0] == HEADERS]
            assert set(heads) == {"200", "503"} and 15 < heads.count("200") < 40
            clients = [w.connect() for _ in range(100)]
            for s in clients:
                s.sendall(b"GET /app/hello HTTP/1.1\r\nHost: a\r\n\r\n")
                assert s.recv(1000).startswith(b"HTTP/1.1 200")
                s.close()
        wait_for(lambda: w.get("/f.txt").status == 200)


HANGS = {
    "a head that is never complete": lambda c: c.send(frame(HEADERS, END_STREAM, 1, c.encoder.encode([(":method", "GET"), (":scheme", "http"), (":path", "/f.txt"), (":authority", "a")]))),
    "one behind a whole request": lambda c: c.send(c.head(1, "/f.txt"), frame(HEADERS, END_STREAM, 3, c.encoder.encode([(":method", "GET"), (":path", "/f.txt")]))),
    "a body of no byte without an end": lambda c: c.send(c.head(1, "/app/hello", "POST", end=False, more=[("content-length", "0")])),
    "a window that is too small for the end": lambda c: c.send(c.head(1, "/late/")),
    "a request and nothing more": lambda c: c.send(c.head(1, "/f.txt")),
    "nothing": lambda c: None,
}


def test_no_connection_is_held_without_a_limit_in_time():
    late = "#!/bin/sh\nprintf 'Content-Type: text/plain\n\n12345'\nsleep 0.3\n"
    with Weir(CONFIG.replace("root public", "root public; time { head 1s; body 1s; idle 1s; send 1s }; route /late/ { pool late }") +
              f"pool late {{ cgi ./late; {USER} }}\n", {"public/f.txt": "hello\n", "late": late}) as w:
        held = {}
        for name, hang in HANGS.items():
            held[name] = H2(w.port, struct.pack("!HI", 4, 5) if "window" in name else b"")
            hang(held[name])
        for name, c in held.items():
            c.s.settimeout(30 * SLOW)
            try:
                while c.read() is not None:
                    pass
            except TimeoutError:
                pytest.fail(name)
            c.s.close()
        wait_for(lambda: w.status()["gateway"]["connections"] == 0)


@pytest.mark.threads
def test_more_streams_than_allowed_are_refused_and_not_run(weir):
    with H2(weir.port) as c:
        begin = time.monotonic()
        c.send(*[c.head(2 * i + 1, "/slow/sleep/1000") for i in range(120)])
        got = c.until(lambda f: f[0] == RST)
        assert got[-1][0] == RST and struct.unpack("!I", got[-1][3])[0] == REFUSED or got[-1][0] == GOAWAY
        assert time.monotonic() - begin < 30 * SLOW
    wait_for(lambda: weir.pool("slow")["processes"][0]["busy"] == 0 and weir.pool("slow")["queued"] == 0)


@pytest.mark.threads
def test_idle_connections_make_room_for_new_ones_and_are_told():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; time { idle 300s } }\n", {"public/f.txt": "hello\n"}, program="threads 1; connections 16") as w:
        idle = [H2(w.port) for _ in range(8)]
        for c in idle:
            c.send(c.head(1, "/f.txt"))
            assert c.answer(1)[0] == "200"
        kept = [w.connect() for _ in range(8)]
        for s in kept:
            s.sendall(b"GET /f.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
        for _ in range(3):
            assert w.get("/f.txt").status == 200
        assert idle[0].goaway() == 0
        for c in idle[1:]:
            c.s.close()
        for s in kept:
            s.close()
