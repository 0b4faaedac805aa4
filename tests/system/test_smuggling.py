# SPDX-License-Identifier: MIT
"""Malformed and ambiguous requests: the app receives exactly what was meant, byte by byte, or nothing; and nothing behind it."""
import contextlib
import re
import socket
import struct

import pytest
from h2client import DATA, END_HEADERS, END_STREAM, H2, HEADERS, frame
from recorder import BEGIN, PARAMS, STDIN, pairs, read_record, record
from smuggling import CASES, ONCE, STREAMS, Meaning, parameters
from strict import answers
from weirlib import SLOW, UnixServer, Weir, free_port

AFTER = Meaning(target="/after", headers=[("Connection", "close")])
AFTER_BYTES = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Witness(UnixServer):
    """Keeps all that it was asked, whole requests alone."""

    def __init__(self, path):
        self.asked = []
        super().__init__(path)

    def serve(self, c):
        params, body = b"", b""
        with c, contextlib.suppress(EOFError, OSError, struct.error):
            while True:
                kind, rid, content = read_record(c)
                if kind == BEGIN:
                    params, body = b"", b""
                params += content if kind == PARAMS else b""
                body += content if kind == STDIN else b""
                if kind == STDIN and not content:
                    break
            self.asked.append((pairs(params), body))
            c.sendall(record(6, rid, b"Content-Type: text/plain\r\n\r\nseen") + record(6, rid) + record(3, rid, bytes(8)))


@pytest.fixture(scope="module")
def weir():
    stream = free_port()
    site = "site {name} {{ listen http://127.0.0.1:{port}; pool p; body {{ max 100K; stream {stream} }} }}\n"
    with Weir(site.format(name="plain", port="PORT", stream="no") + site.format(name="stream", port=stream, stream="always") +
              "pool p { connect unix:DIR/run/keep-app.sock { workers 10 } }\n") as w:
        w.ports = {"whole": w.port, "pieces": w.port, "streamed": stream}
        w.app = Witness(f"{w.run_dir}/keep-app.sock")
        yield w
        w.app.socket.close()


def talk(port, data, step, ends):
    """Sends it, as far as somebody takes it; all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20 * SLOW) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for at in range(0, len(data), step):
                s.sendall(data[at:at + step])
            if ends:
                s.shutdown(socket.SHUT_WR)
        out = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := s.recv(65536):
                out += piece
        return out


def same(seen, m, port, case, streamed, protocol=None):
    params, body = seen
    names = [n for n, _ in params]
    assert len(set(names)) == len(names)
    got = dict(params)
    assert re.fullmatch("[0-9a-f]{32}", got.pop("REQUEST_ID"))
    assert got.pop("SERVER_SOFTWARE").startswith("weir/") and got.pop("REMOTE_PORT").isdigit()
    assert got == parameters(m, port, protocol or ("HTTP/1.0" if case and not case.minor else "HTTP/1.1"), streamed)
    assert body == m.body


def is_chunked(case):
    return re.search(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", case.bytes.split(b"\r\n\r\n")[0] + b"\r\n", re.I) is not None


@pytest.mark.table
@pytest.mark.parametrize("how", ["whole", "pieces", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_the_app_sees_one_request_that_was_meant_or_none(weir, case, how):
    if how == "pieces" and len(case.bytes) > 2000:
        return  # its pieces would be thousands
    weir.app.asked.clear()
    port = weir.ports[how]
    data = case.bytes if case.closes else case.bytes + AFTER_BYTES
    got = answers(talk(port, data, 1 if how == "pieces" else len(data), case.closes))
    statuses = [a[0] for a in got]
    if case.want in (204, 405) and statuses == [case.want, 200, 200]:  # it is answered here, what follows is a request as well
        assert [dict(p)["REQUEST_URI"] for p, _ in weir.app.asked] == ["/smuggled", "/after"]
        return
    if case.want == 204 and statuses == [204, 200]:
        same(weir.app.asked[0], AFTER, port, None, False)
        return
    if case.want != ONCE:
        assert weir.app.asked == []
        assert statuses == ([] if case.want is None else [case.want]), statuses
        assert case.want is None or got[0][1]["connection"] == b"close"
        return
    expected = [*case.interim, 200]
    assert statuses[:len(expected)] == expected
    same(weir.app.asked[0], case.seen, port, case, how == "streamed" and is_chunked(case))
    if case.keeps:
        assert statuses == [*expected, 200] and len(weir.app.asked) == 2
        same(weir.app.asked[1], AFTER, port, None, False)
    else:  # closed, or refused
        assert len(weir.app.asked) == 1 and statuses[len(expected):] in ([], [400], [505])


def test_requests_of_http1_behind_the_preface_of_http2_are_none(weir):
    weir.app.asked.clear()
    assert b"HTTP/1" not in talk(weir.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + AFTER_BYTES, 1000, False)
    assert weir.app.asked == []


# ---- the same by HTTP/2 ----

def latin(fields):
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]


def stream(h, fields, body, trailers=None):
    """All frames of a request on stream 1."""
    last = body is None and trailers is None
    out = frame(HEADERS, END_HEADERS | (END_STREAM if last else 0), 1, h.encoder.encode(latin(fields)))
    for at in range(0, len(body or b""), 16000):
        end = at + 16000 >= len(body) and trailers is None
        out += frame(DATA, END_STREAM if end else 0, 1, body[at:at + 16000])
    if body == b"":
        out += frame(DATA, END_STREAM, 1)
    if trailers is not None:
        out += frame(HEADERS, END_HEADERS | END_STREAM, 1, h.encoder.encode(latin(trailers)))
    return out


def by_http2(weir, fields, body, trailers, meant):
    """meant: what the app has to see; None: nothing, and the client an error."""
    weir.app.asked.clear()
    for port in (weir.ports["whole"], weir.ports["streamed"]):
        weir.app.asked.clear()
        with H2(port) as h:
            h.send(stream(h, fields, body, trailers))
            status, content = h.answer(1)
            if meant is None:
                assert status in ("reset", "goaway", "closed") or int(status) >= 400, (status, content)
                assert weir.app.asked == []
            else:
                assert (status, content) == ("200", b"seen")
                told = any(n == "content-length" for n, _ in fields)
                same(weir.app.asked[0], meant, port, None, port == weir.ports["streamed"] and not told and body is not None, "HTTP/2.0")
            if status in ("goaway", "closed"):
                continue
            h.send(h.head(3, "/after"))  # nobody else's request on the connection was harmed
            assert h.answer(3) == ("200", b"seen")
            assert [dict(p)["REQUEST_URI"] for p, _ in weir.app.asked[1 if meant else 0:]] == ["/after"]


@pytest.mark.table
@pytest.mark.parametrize("case", [c for c in CASES if c.meaning and c.other is not None], ids=lambda c: c.name)
def test_by_http2_it_means_the_same(weir, case):
    m = case.meaning
    fields = [(":method", m.method), (":scheme", "http"), (":authority", m.authority), (":path", m.target)] + [(n.lower(), v) for n, v in m.headers]
    if m.body and m.length:
        fields.append(("content-length", str(len(m.body))))
    by_http2(weir, fields, m.body if m.body or not m.length else None, None, case.seen if case.other else None)


@pytest.mark.parametrize("name, fields, body, trailers, meant", STREAMS, ids=[s[0] for s in STREAMS])
def test_what_would_be_more_than_one_request_in_http1_is_none(weir, name, fields, body, trailers, meant):
    by_http2(weir, fields, body, trailers, meant)
