# SPDX-License-Identifier: MIT
"""What an app may send that it should not, and what a client has to see of it: the answer, an error that says why, or an answer that is
visibly cut because its head was out already."""
import struct
from dataclasses import dataclass, field

LATE = object()  # here the client has seen the head


ITS = 0x5A5A  # stands for the id of the request, which only the app knows


def record(kind, content=b"", rid=ITS, version=1, padding=0):
    return struct.pack(">BBHHBB", version, kind, rid, len(content), padding, 0) + content + b"\0" * padding


BEGIN, ABORT, ENDED, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT, UNKNOWN = range(1, 12)
CREDIT = 32
END = record(ENDED, bytes(8))
HEAD = b"Content-Type: text/plain\r\n\r\n"
FINE = record(STDOUT, HEAD + b"fine") + record(STDOUT) + END
ALL = ("plain", "kept", "flow")


@dataclass
class Case:
    name: str
    parts: list
    status: int = 200
    why: str = None
    body: bytes = b"fine"
    cut: bool = False      # its head may be out: then it is cut
    interim: tuple = ()
    fields: dict = field(default_factory=dict)
    kinds: tuple = ALL
    then: str = "close"    # what the app does behind it; None: goes on, if the connection is kept
    early: bool = False    # it does not wait for the body
    quiet: bool = False    # it is to be given up soon


    def bytes_of(self, rid):
        return [part if part is LATE else part.replace(struct.pack(">H", ITS), struct.pack(">H", rid)) for part in self.parts]


CASES = []


def fine(name, *parts, status=200, then=None, **more):
    CASES.append(Case(name, list(parts), status, then=then, **more))


def bad(name, *parts, why, status=502, **more):
    CASES.append(Case(name, list(parts), status, why, **more))


def cut(name, *parts, why, **more):
    CASES.append(Case(name, list(parts), 502, why, cut=True, **more))


def out(text, padding=0):
    return record(STDOUT, text, padding=padding)


def answer(text):
    return out(text) + record(STDOUT) + END


# ---- records ----

MAY_NOT = "a record that an application may not send"
bad("bytes that are no record", b"\x99" * 64, why="a record that is not version 1")
bad("an answer of HTTP", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", why="a record that is not version 1")
bad("version 0", record(STDOUT, HEAD + b"x", version=0), why="a record that is not version 1")
bad("version 2", record(STDOUT, HEAD + b"x", version=2), why="a record that is not version 1")
cut("version 2 behind a head", out(HEAD + b"x"), LATE, record(STDOUT, b"y", version=2), why="a record that is not version 1")
for kind, label in {0: "type 0", BEGIN: "BEGIN", ABORT: "ABORT", PARAMS: "PARAMS", STDIN: "STDIN", DATA: "DATA", 99: "type 99", 255: "type 255", GET_VALUES: "GET_VALUES on its id",
                    RESULT: "GET_VALUES_RESULT on its id", UNKNOWN: "UNKNOWN_TYPE on its id"}.items():
    bad(f"{label} from an app", record(kind, bytes(8)) + FINE, why=MAY_NOT)
cut("PARAMS from an app behind a head", out(HEAD + b"x"), LATE, record(PARAMS, b"evil") + END, why=MAY_NOT)
for kind, label in {STDOUT: "STDOUT", STDERR: "STDERR", ENDED: "END", BEGIN: "BEGIN", PARAMS: "PARAMS", GET_VALUES: "GET_VALUES", 0: "type 0", 99: "type 99"}.items():
    fine(f"{label} on id 0", record(kind, bytes(8), rid=0) + FINE)
fine("GET_VALUES_RESULT that nobody asked for", record(RESULT, b"\x0f\x01FCGI_MPXS_CONNS1", rid=0) + FINE)
fine("GET_VALUES_RESULT with pairs that run out", record(RESULT, b"\xff\xff\xff\xff\xff\xff\xff\xffx", rid=0) + FINE)
fine("UNKNOWN_TYPE that nobody asked for", record(UNKNOWN, b"\x09" + bytes(7), rid=0) + FINE)
fine("output of another id", record(STDOUT, HEAD + b"evil", rid=7) + record(STDERR, b"evil", rid=7) + FINE)
fine("output of id 65535", record(STDOUT, HEAD + b"evil", rid=65535) + FINE)
fine("END of another id", record(ENDED, bytes(8), rid=7) + FINE)
fine("END of another id, of 3 bytes", record(ENDED, bytes(3), rid=7) + FINE)
# Where a connection is shared, such an app mixes up its own answers: an id is used again at once.
fine("output behind END", FINE + out(HEAD + b"evil"), kinds=("plain", "kept"))
fine("STDERR behind END", FINE + record(STDERR, b"late"), kinds=("plain", "kept"))
fine("END twice", FINE + END, kinds=("plain", "kept"))
fine("half a record behind END", FINE + out(b"x")[:5], kinds=("plain", "kept"))
fine("bytes that are no record behind END", FINE + b"\x99" * 20, kinds=("plain", "kept"))
cut("output behind its empty record", out(HEAD + b"x") + record(STDOUT) + out(b"y") + END, why="output after the end of its stream")
cut("a second empty record", out(HEAD + b"x") + record(STDOUT) * 2 + END, why="output after the end of its stream")
bad("an empty record, and then an answer", record(STDOUT) + FINE, why="output after the end of its stream")
bad("a flood of empty records", record(STDOUT) * 50000, why="output after the end of its stream")
bad("a flood of empty records with padding", record(STDOUT, padding=255) * 2000, why="output after the end of its stream")
cut("STDERR behind its empty record", record(STDERR, b"a") + record(STDERR) + record(STDERR, b"b") + FINE, why="output after the end of its stream")
fine("a flood of STDERR", record(STDERR, b"x\n") * 20000 + FINE)
fine("a flood of records on id 0", record(99, rid=0) * 20000 + FINE)
fine("records of another id, many", record(STDOUT, b"x", rid=9) * 9000 + FINE)
bad("records of another id, too many", record(STDOUT, b"x", rid=9) * 10001 + FINE, why="too many records of inactive requests")
cut("records of another id, too many, behind a head", out(HEAD + b"x"), LATE, record(STDOUT, b"x", rid=9) * 10001 + END, why="too many records of inactive requests")
fine("padding everywhere", out(HEAD + b"fine", 255) + record(STDOUT, padding=7) + record(ENDED, bytes(8), padding=5))
fine("a record of 65535 bytes and padding", out((HEAD + b"x" * 65535)[:65535], 255) + out(b"fine") + record(STDOUT) + END, body=b"x" * (65535 - len(HEAD)) + b"fine", kinds=("plain", "kept"))
fine("a record for each byte", b"".join(out(bytes([b])) for b in HEAD + b"fine") + record(STDOUT) + END)
fine("a record for each byte, padded", b"".join(out(bytes([b]), 255) for b in HEAD + b"fine") + record(STDOUT) + END)
fine("STDERR within the header", out(HEAD[:9]) + record(STDERR, b"Status: 500\r\n\r\n") + out(HEAD[9:] + b"fine") + END)
fine("no end of STDOUT", out(HEAD + b"fine") + END)
fine("STDERR with control bytes", record(STDERR, b"\x1b]0;title\x07 \r\nforged line\r \x9b31m \0 \xff\xfe\n") + FINE)
fine("a line of STDERR that does not end", record(STDERR, b"y" * 60000) * 4 + FINE)

# ---- END_REQUEST ----

for n in (0, 1, 4, 7, 9, 16, 65535):
    bad(f"END of {n} bytes", out(HEAD + b"x") + record(ENDED, bytes(n)), why="END_REQUEST with a content that is not 8 bytes", cut=True)
bad("END before a header", END, why="ended before its header was complete", then=None)
bad("END within a header", out(HEAD[:-2]) + END, why="ended before its header was complete", then=None)
bad("END of an empty STDOUT", record(STDOUT) + END, why="ended before its header was complete", then=None)
bad("STDERR alone", record(STDERR, b"Content-Type: a/b\r\n\r\n") + END, why="ended before its header was complete", then=None)
bad("a refusal: one request on a connection", record(ENDED, b"\0\0\0\0\1\0\0\0"), status=503, why="refused", then=None)
bad("a refusal: overloaded", record(ENDED, b"\0\0\0\0\2\0\0\0"), status=503, why="refused: overloaded", then=None)
bad("a refusal: unknown role", record(ENDED, b"\0\0\0\0\3\0\0\0"), status=500, why="does not know this role", then=None)
for n in (1, 2, 3, 4, 255):
    cut(f"protocolStatus {n} behind output", out(HEAD + b"x") + record(ENDED, bytes([0, 0, 0, 0, n, 0, 0, 0])), why="the application broke its answer off", then=None)
bad("protocolStatus 4 alone", record(ENDED, b"\0\0\0\0\4\0\0\0"), why="the application broke its answer off", then=None)
fine("an appStatus", out(HEAD + b"fine") + record(ENDED, b"\xff\0\0\1\0\0\0\0"))
fine("END with reserved bytes", out(HEAD + b"fine") + record(ENDED, b"\0\0\0\0\0\xff\xff\xff"))

# ---- its end ----

GONE = "closed the connection before its answer was complete"
bad("a close at once", why=GONE)
bad("a close within a record's header", out(HEAD)[:5], why=GONE)
bad("a close within a record", out(HEAD[:10])[:-2], why=GONE)
bad("a close within the header", out(HEAD[:10]), why=GONE)
cut("a head and no END", out(HEAD), why=GONE)
cut("a close within the content", out(HEAD + b"hello")[:-2], why=GONE)
cut("a late close", out(HEAD + b"hello"), LATE, why=GONE)
cut("a close behind the empty record", out(HEAD + b"hello") + record(STDOUT), LATE, why=GONE)
cut("a late end of its half", out(HEAD + b"hello"), LATE, then="half", why=GONE)
bad("an end of its half", then="half", why=GONE)
cut("a late reset", out(HEAD + b"hello"), LATE, then="reset", why="the application")
bad("nothing", LATE, then="hold", status=504, why="silent for too long", quiet=True, kinds=("plain", "kept"))
bad("nothing, without reading", LATE, then="hold", status=504, why="silent for too long", quiet=True, early=True, kinds=("plain",))
bad("half a header, and silence", out(HEAD[:10]), then="hold", status=504, why="silent for too long", quiet=True, kinds=("plain", "kept"))
cut("content, and silence", out(HEAD + b"hello"), then="hold", why="silent for too long", quiet=True, kinds=("plain", "kept"))
fine("an answer, and the connection stays", FINE, then="hold", kinds=("plain",))
fine("an answer before the body is read", FINE, early=True)

# ---- its header ----

for label, text, why in (
        ("an empty header", b"\r\nbody", "an empty header"), ("an empty header with LF", b"\nbody", "an empty header"),
        ("a folded line", b"A: b\r\n c\r\n\r\n", "a folded header line"), ("a folded first line", b" A: b\r\n\r\n", "a folded header line"),
        ("a line without a colon", b"Hello\r\n\r\n", "a name and a colon"), ("a line without a name", b": b\r\n\r\n", "a name and a colon"),
        ("an HTTP status line", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "an HTTP status line"), ("a name with a blank", b"A b: c\r\n\r\n", "a header name that is no token"),
        ("a blank before a colon", b"A : b\r\n\r\n", "a header name that is no token"), ("a NUL in a name", b"A\0: b\r\n\r\n", "a header name that is no token"),
        ("a CR in a name", b"A\r: b\r\n\r\n", "a header name that is no token"), ("a byte above ASCII in a name", b"\xc3\x84: b\r\n\r\n", "a header name that is no token"),
        ("a NUL in a value", b"A: b\0c\r\n\r\n", "a control byte in a header value"), ("a bare CR in a value", b"A: b\rSet-Cookie: c\r\n\r\n", "a control byte in a header value"),
        ("CR CR LF", b"A: b\r\r\n\r\n", "a control byte in a header value"), ("an ESC in a value", b"A: \x1b[2J\r\n\r\n", "a control byte in a header value"),
        ("a DEL in a value", b"A: \x7f\r\n\r\n", "a control byte in a header value"), ("a bare CR in Location", b"Location: http://b/\r\rX\r\n\r\n", "a control byte in a header value"),
        ("two Status", b"Status: 200\r\nStatus: 404\r\n\r\n", "more than one Status"), ("two equal Status", b"Status: 200\r\nstatus: 200\r\n\r\n", "more than one Status"),
        ("two Location", b"Location: /a\r\nLocation: http://b/\r\n\r\n", "more than one Location"), ("a Status in words", b"Status: OK\r\n\r\n", "no three digits"),
        ("an empty Status", b"Status:\r\n\r\n", "no three digits"), ("a Status of two digits", b"Status: 20\r\n\r\n", "no three digits"), ("a Status of four digits", b"Status: 2000\r\n\r\n", "no three digits"),
        ("a Status with a sign", b"Status: +20\r\n\r\n", "no three digits"), ("a negative Status", b"Status: -200\r\n\r\n", "no three digits"), ("a Status with a comma", b"Status: 200, 404\r\n\r\n", "no three digits"),
        ("a Status of HTTP", b"Status: HTTP/1.1 200\r\n\r\n", "no three digits"), ("Status 000", b"Status: 000\r\n\r\n", "a Status out of range"), ("Status 99", b"Status: 099\r\n\r\n", "a Status out of range"),
        ("Status 600", b"Status: 600\r\n\r\n", "a Status out of range"), ("Status 999", b"Status: 999\r\n\r\n", "a Status out of range"),
        ("Status 101", b"Status: 101\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello", "wants to switch protocols"),
        ("two Content-Length", b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "more than one Content-Length"), ("two equal Content-Length", b"Content-Length: 1\r\ncontent-length: 1\r\n\r\nx", "more than one Content-Length"),
        ("a negative Content-Length", b"Content-Length: -1\r\n\r\n", "a Content-Length that is no number"), ("a Content-Length with a plus", b"Content-Length: +4\r\n\r\nfine", "a Content-Length that is no number"),
        ("a Content-Length in a list", b"Content-Length: 4, 4\r\n\r\nfine", "a Content-Length that is no number"), ("an empty Content-Length", b"Content-Length:\r\n\r\nfine", "a Content-Length that is no number"),
        ("a Content-Length in hex", b"Content-Length: 0x4\r\n\r\nfine", "a Content-Length that is no number"), ("a Content-Length of 2^63", b"Content-Length: 9223372036854775808\r\n\r\n", "a Content-Length that is no number"),
        ("a Content-Length of 2^64 + 4", b"Content-Length: 18446744073709551620\r\n\r\nfine", "a Content-Length that is no number"),
        ("a header of a line without end", b"A: " + b"b" * 65000, "a header that is too large"), ("101 fields", b"A: b\r\n" * 101 + b"\r\n", "too many header fields"),
        ("nine interim answers", b"Status: 103\r\n\r\n" * 9 + HEAD, "too many interim answers"), ("an interim answer alone", b"Status: 103\r\nLink: a\r\n\r\n", "ended before its header was complete"),
        ("an interim answer and an empty header", b"Status: 103\r\n\r\n\r\nbody", "an empty header"),
        ("a redirect to a bad path", b"Location: /%00\r\n\r\n", "redirects to a path that is not valid"), ("a redirect above the root", b"Location: /../x\r\n\r\n", "redirects to a path that is not valid")):
    more = {"interim": (103,) * text.count(b"Status: 103")} if "interim" in label else {}
    if label == "nine interim answers":
        more = {"interim": (103,) * 8}
    pieces = [out(text[i:i + 60000]) for i in range(0, len(text), 60000)]
    bad("with " + label, *([b"".join(pieces)] if len(text) < 60000 else [b"".join(pieces) + out(b"b" * 1000)]), record(STDOUT) + END, why=why, then=None, **more)

fine("only LF", answer(b"Content-Type: text/plain\nA: b\n\nfine"), fields={"a": b"b"})
fine("LF and CRLF", answer(b"Content-Type: text/plain\nA: b\r\n\nfine"), fields={"a": b"b"})
fine("no blank behind a colon", answer(b"Content-Type:text/plain\r\nA:b\r\n\r\nfine"), fields={"a": b"b"})
fine("bytes above ASCII in a value", answer(b"Content-Type: text/plain\r\nA: \xe4\xff\r\n\r\nfine"), fields={"a": b"\xe4\xff"})
fine("100 fields", answer(b"A: b\r\n" * 100 + b"\r\nfine"))
fine("Transfer-Encoding", answer(b"Transfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n4\r\nfine\r\n0\r\n\r\n"), body=b"4\r\nfine\r\n0\r\n\r\n")
fine("Transfer-Encoding and a length", answer(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nfine"), fields={"content-length": b"4", "transfer-encoding": None})
fine("a coding that nobody knows", answer(b"Transfer-Encoding: cow\r\nContent-Type: a/b\r\n\r\nfine"))
fine("fields of the connection", answer(b"Connection: close, X-A\r\nKeep-Alive: timeout=1000\r\nUpgrade: h2c\r\nProxy-Connection: close\r\nTE: trailers\r\nTrailer: X\r\nX-A: b\r\n\r\nfine"),
     fields={"x-a": b"b"})
fine("Connection: keep-alive", answer(b"Connection: keep-alive\r\nKeep-Alive: max=1\r\n\r\nfine"))
fine("Date and Server", answer(b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: evil\r\nA: b\r\n\r\nfine"), fields={"server": b"weir", "a": b"b"})
fine("what is meant for the web server", answer(b"X-Accel-Redirect: /secret\r\nX-Accel-Buffering: no\r\nX-Accel-Expires: 5\r\nX-Sendfile: /etc/passwd\r\nX-LIGHTTPD-send-file: /etc/passwd\r\nA: b\r\n\r\nfine"),
     fields={"a": b"b", "x-lighttpd-send-file": None})
fine("Status in other letters", answer(b"sTATUS: 404 Not Found\r\n\r\nfine"), status=404)
fine("Status without a blank", answer(b"Status:418\r\n\r\nfine"), status=418)
fine("a Status with a text", answer(b"Status: 202 \xe4 whatever: <b>\r\n\r\nfine"), status=202)
fine("Status 599", answer(b"Status: 599\r\n\r\nfine"), status=599)
fine("204 with content", answer(b"Status: 204\r\nContent-Length: 4\r\n\r\nevil"), status=204, fields={"content-length": None})
fine("304 with content", answer(b"Status: 304\r\nContent-Length: 4\r\nETag: \"a\"\r\n\r\nevil"), status=304, fields={"etag": b'"a"'})
fine("205 with content", answer(b"Status: 205\r\n\r\nevil"), status=205, fields={"content-length": b"0"})
fine("205 with a length", answer(b"Status: 205\r\nContent-Length: 4\r\n\r\nevil"), status=205, fields={"content-length": b"0"})
fine("two cookies", answer(b"Set-Cookie: a\r\nSet-Cookie: b\r\n\r\nfine"), fields={"set-cookie": b"a"})
fine("Early Hints", answer(b"Status: 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nContent-Type: text/plain\r\n\r\nfine"), interim=(103,), fields={"content-type": b"text/plain", "link": None})
fine("hints, early indeed", out(b"Status: 103\r\nLink: a\r\n\r\n"), LATE, answer(b"A: b\r\n\r\nfine"), interim=(103,), fields={"a": b"b"})
fine("hints of two kinds", out(b"Status: 102\r\n\r\nSta") + out(b"tus: 103\nLink: a\nX-Accel-Expires: 1\nConnection: close\n\nA: b") + out(b"\r\n\r\nfine") + END, interim=(102, 103), fields={"a": b"b"})
fine("hints with a length and a redirect", answer(b"Status: 103\r\nContent-Length: 999\r\nLocation: /x\r\n\r\nA: b\r\n\r\nfine"), interim=(103,), fields={"a": b"b", "location": None})
fine("100 is not the app's to say", answer(b"Status: 100 Continue\r\n\r\nA: b\r\n\r\nfine"), fields={"a": b"b"})
bad("hints with a control byte", answer(b"Status: 103\r\nLink: \x01\r\n\r\nA: b\r\n\r\nfine"), why="a control byte in a header value", then=None)

# ---- its content ----

SHORT, LONG = "sent less than its Content-Length", "sent more than its Content-Length"
cut("less than its length", answer(b"Content-Length: 100\r\n\r\nhello"), why=SHORT, then=None)
cut("nothing of its length", answer(b"Content-Length: 100\r\n\r\n"), why=SHORT, then=None)
cut("less than its length, late", out(b"Content-Length: 100\r\n\r\nhello"), LATE, out(b"hello") + END, why=SHORT, then=None)
cut("a length of 2^63 - 1", answer(b"Content-Length: 9223372036854775807\r\n\r\nhello"), why=SHORT, then=None)
fine("more than its length", answer(b"Content-Length: 4\r\n\r\nfineHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), why=LONG, fields={"content-length": b"4"})
fine("more than its length, late", out(b"Content-Length: 4\r\n\r\nfi"), LATE, out(b"neHTTP/1.1 200 OK\r\n\r\n") + END, why=LONG, fields={"content-length": b"4"})
fine("content behind a length of 0", answer(b"Content-Length: 0\r\n\r\nevil"), why=LONG, body=b"")
fine("240 KB in one breath", out(HEAD) + out(b"x" * 60000) * 4 + record(STDOUT) + END, body=b"x" * 240000, kinds=("plain", "kept"))
fine("240 KB and a length, in one breath", out(b"Content-Length: 240000\r\n\r\n") + out(b"x" * 60000) * 4 + END, body=b"x" * 240000, kinds=("plain", "kept"))
fine("a length with zeros in front", answer(b"Content-Length: 0004\r\n\r\nfine"), fields={"content-length": b"4"})

# ---- flow control ----


def credit(what, limit, rid=ITS, n=16, flags=0):
    return record(CREDIT, (bytes([what, flags]) + bytes(6) + struct.pack(">Q", limit))[:n], rid=rid)


cut("output beyond the credit", out(HEAD) + out(b"x" * 60000) * 3, why="output beyond the credit", kinds=("flow",))
cut("content beyond the credit", out(HEAD + b"x"), LATE, out(b"x" * 60000) * 20, why="output beyond the credit", kinds=("flow",))
bad("credit that is too short", credit(STDIN, 99999, n=15) + FINE, why="CREDIT that is too short", kinds=("flow",))
bad("credit for requests that is too short", credit(BEGIN, 9, rid=0, n=4) + FINE, why="CREDIT that is too short", kinds=("flow",))
bad("credit beyond all numbers", credit(STDIN, 2 ** 64 - 1) + FINE, why="credit that is not valid", kinds=("flow",))
bad("credit without end", b"".join(credit(STDIN, 70000 + i) for i in range(2000)) + FINE, why="credit that is not valid", kinds=("flow",))
fine("credit that takes some back", credit(STDIN, 1) + FINE, kinds=("flow",))
fine("credit for what is no stream", credit(77, 10) + FINE, kinds=("flow",))
fine("credit of another id", credit(STDIN, 10, rid=9) + FINE, kinds=("flow",))
fine("credit without an agreement", credit(STDIN, 10, rid=0) + FINE, kinds=("plain", "kept"))
fine("unknown flags", credit(STDIN, 100000, flags=0xF0) + FINE, kinds=("flow",))
fine("it drains", credit(BEGIN, 0, rid=0, flags=1) + FINE, kinds=("flow",))

assert len({c.name for c in CASES}) == len(CASES)

# ---- the answer to GET_VALUES ----


def values(content):
    return record(RESULT, content, rid=0)


def named(value):
    return values(bytes([17, len(value)]) + b"FCGI_FLOW_CONTROL" + value)


VALUES = {
    "empty": values(b""), "pairs that run out": values(b"\x11\x7fFCGI_FLOW_CONTROLwindow=1"), "lengths that run out": values(b"\xff"),
    "lengths beyond all numbers": values(b"\xff\xff\xff\xff\xff\xff\xff\xff"), "a name of 2^31 - 1": values(b"\xff\xff\xff\xff\x01a"),
    "a value that is none": named(b"yes"), "a negative number": named(b"window=-1 requests=5"), "too large a number": named(b"window=99999999999 requests=5"),
    "requests=0": named(b"window=65536 requests=0"), "no window": named(b"requests=5"), "a key twice": named(b"window=1 window=2 requests=5"),
    "two blanks": named(b"window=1  requests=5"), "a NUL": named(b"window=1 requests=5\0"), "UNKNOWN_TYPE": record(UNKNOWN, b"\x09" + bytes(7), rid=0),
    "output": record(STDOUT, HEAD + b"evil"), "END": END, "GET_VALUES": record(GET_VALUES, b"\x0f\x00FCGI_MPXS_CONNS", rid=0), "credit": credit(BEGIN, 5, rid=0),
    "bytes that are no record": b"\x99" * 32,
}
