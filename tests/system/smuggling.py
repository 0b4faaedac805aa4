# SPDX-License-Identifier: MIT
"""Requests that two servers could read in two ways, and what the app may see of each: exactly what was meant, or nothing.

A case is made of its meaning (ask) where it has one that every version of HTTP can carry, or of bytes (raw) where only HTTP/1 can. The
first kind has `meaning`, which a client of HTTP/2 can send as well; `other` tells whether it is to be taken there, or refused, too."""
import re
from dataclasses import dataclass, field

ONCE = "ok"  # the app sees it, once, and answers


@dataclass
class Meaning:
    """What a request says, whatever carries it. Names and values are bytes in latin-1."""
    method: str = "GET"
    target: str = "/x"
    authority: str = "a"
    headers: list = field(default_factory=list)
    body: bytes = b""
    length: bool = True  # its length is told (HTTP/1: Content-Length, else chunks)


@dataclass
class Case:
    name: str
    bytes: bytes
    want: object           # ONCE, or the status of a refusal; None: no answer at all
    seen: object = None    # ONCE: the Meaning that the app has to see
    keeps: bool = True     # ONCE: another request on the connection is answered
    closes: bool = False   # the client ends its half behind the bytes
    meaning: object = None  # for other versions of HTTP
    other: object = None    # True: taken there, False: refused there (an error, or its stream reset)
    interim: tuple = ()    # statuses of interim answers before it
    minor: int = 1


CASES = []


def head(method, target, authority, headers, version=b"HTTP/1.1"):
    lines = [b" ".join((method.encode("latin-1"), target.encode("latin-1"), version))]
    if authority is not None:
        lines.append(b"Host: " + authority.encode("latin-1"))
    lines += [n.encode("latin-1") + b": " + v.encode("latin-1") for n, v in headers]
    return b"\r\n".join(lines) + b"\r\n"


def wire(m, more=b"", version=b"HTTP/1.1"):
    """Its bytes in HTTP/1; more: header lines that only HTTP/1 has."""
    h = head(m.method, m.target, m.authority, m.headers, version) + more
    if m.body and m.length:
        h += b"Content-Length: %d\r\n" % len(m.body)
    elif not m.length:
        h += b"Transfer-Encoding: chunked\r\n"
        return h + b"\r\n" + chunked(m.body)
    return h + b"\r\n" + m.body


def chunked(body):
    return (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


def ask(name, want=ONCE, seen=None, other="same", more=b"", keeps=True, interim=(), version=b"HTTP/1.1", **of):
    """A case that has a meaning. seen: where the app sees something else than that."""
    m = Meaning(**of)
    CASES.append(Case(name, wire(m, more, version), want, (seen or m) if want == ONCE else None, keeps, meaning=m, interim=interim,
                      other=want == ONCE if other == "same" else other, minor=0 if version == b"HTTP/1.0" else 1))


def raw(name, data, want=400, seen=None, keeps=True, closes=False, interim=(), minor=1):
    CASES.append(Case(name, data, want, seen, keeps, closes, interim=interim, minor=minor))


def get(line, value=""):
    return Meaning(headers=[(line, value)])


# ---- Content-Length ----

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
HELLO = Meaning("POST", body=b"hello")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

for label, lines in {
    "twice the same": b"Content-Length: 5\r\nContent-Length: 5", "twice, different": b"Content-Length: 5\r\nContent-Length: 6",
    "twice, in other letters": b"Content-Length: 5\r\ncontent-length: 0", "as a list": b"Content-Length: 5, 5", "as a list of two": b"Content-Length: 5,6",
    "negative": b"Content-Length: -5", "with a plus": b"Content-Length: +5", "with a blank in it": b"Content-Length: 5 5",
    "in hex": b"Content-Length: 0x5", "as a fraction": b"Content-Length: 5.0", "with an exponent": b"Content-Length: 5e0", "empty": b"Content-Length:",
    "of blanks": b"Content-Length: \t ", "of 2^63": b"Content-Length: 9223372036854775808", "of 2^64": b"Content-Length: 18446744073709551616",
    "of 2^64 + 5": b"Content-Length: 18446744073709551621", "of 2^32 + 2^64": b"Content-Length: 18446744078004518912",
    "of a hundred digits": b"Content-Length: " + b"9" * 100, "with a semicolon": b"Content-Length: 5;", "quoted": b'Content-Length: "5"',
    "in Arabic digits": b"Content-Length: \xd9\xa5", "with a NUL": b"Content-Length: 5\0", "with a vertical tab": b"Content-Length: \v5",
    "with an underscore": b"Content-Length: 1_0", "in words": b"Content-Length: five", "behind a blank": b"Content-Length : 5",
    "behind a tab": b"Content-Length\t: 5", "behind a NUL": b"Content-Length\0: 5", "behind a carriage return": b"Content-Length\r: 5",
    "behind a line feed": b"Content-Length\n: 5", "folded": b"Content-Length:\r\n 5", "in a folded line": b"A: b\r\n Content-Length: 5",
    "behind a bare LF": b"A: b\nContent-Length: 5", "behind a bare CR": b"A: b\rContent-Length: 5", "with a bare LF": b"Content-Length: 5\nA: b",
    "without a colon": b"Content-Length 5", "as a fullwidth digit": b"Content-Length: \xef\xbc\x95",
}.items():
    raw("a Content-Length " + label, POST + lines + b"\r\n\r\nhello" + SMUGGLED)

ask("a body", method="POST", body=b"hello")
ask("a body with a request in it", method="POST", body=SMUGGLED + b"0\r\n\r\n" + SMUGGLED)
ask("a GET with a body", body=SMUGGLED)
ask("a body of all bytes", method="POST", body=bytes(range(256)) * 3)
ask("no body and a length of 0", method="POST", seen=Meaning("POST", headers=[("Content-Length", "0")]), more=b"Content-Length: 0\r\n", other=None)
raw("a length with zeros in front", POST + b"Content-Length: 0005\r\n\r\nhello", ONCE, HELLO)
raw("a length between tabs", POST + b"Content-Length:\t5\t \r\n\r\nhello", ONCE, HELLO)
raw("a length without a blank", POST + b"CONTENT-LENGTH:5\r\n\r\nhello", ONCE, HELLO)
raw("a body that is longer than its length", POST + b"Content-Length: 5\r\n\r\nhello\x16\x03\x01 garbage\r\n\r\n", ONCE, HELLO, keeps=False)
raw("a body that is shorter than its length", POST + b"Content-Length: 50\r\n\r\nhello", None, closes=True)
raw("Connection names Content-Length", POST + b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, ONCE,
    Meaning("POST", body=SMUGGLED))
raw("HTTP/1.0 with a length", b"POST /x HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", ONCE, Meaning("POST", authority=None, body=b"hello"), keeps=False, minor=0)
raw("HTTP/1.0 without a length", b"POST /x HTTP/1.0\r\n\r\n" + SMUGGLED, ONCE, Meaning("POST", authority=None), keeps=False, minor=0)
ask("Content_Length, an alias", headers=[("Content_Length", "5")], seen=Meaning())
ask("Content.Length, an alias", headers=[("Content.Length", "5")], seen=Meaning())
raw("an alias of Content-Length and a body", POST + b"Content_Length: 5\r\n\r\nhello\r\n\r\n", ONCE, Meaning("POST"), keeps=False)

# ---- Transfer-Encoding ----

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
for label, lines in {
    "behind Content-Length": b"Content-Length: 5\r\nTransfer-Encoding: chunked", "before Content-Length": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "beside a length of 0": b"Content-Length: 0\r\nTransfer-Encoding: chunked", "beside a length of all bytes": b"Content-Length: 15\r\nTransfer-Encoding: chunked",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "chunked twice": b"Transfer-Encoding: chunked, chunked",
    "identity behind chunked": b"Transfer-Encoding: chunked, identity", "identity in a second line": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "with a comma behind": b"Transfer-Encoding: chunked,", "empty": b"Transfer-Encoding:", "of blanks": b"Transfer-Encoding:  ",
    "behind a vertical tab": b"Transfer-Encoding: \vchunked", "behind a form feed": b"Transfer-Encoding: \fchunked", "with a NUL": b"Transfer-Encoding: chunked\0",
    "with a NUL within": b"Transfer-Encoding: chun\0ked", "with a blank before the colon": b"Transfer-Encoding : chunked",
    "with a tab before the colon": b"Transfer-Encoding\t: chunked", "with a CR before the colon": b"Transfer-Encoding\r: chunked",
    "with an LF before the colon": b"Transfer-Encoding\n: chunked", "in a folded line": b"A: b\r\n Transfer-Encoding: chunked",
    "behind a bare LF": b"A: b\nTransfer-Encoding: chunked", "behind a bare CR": b"A: b\rTransfer-Encoding: chunked",
    "behind LF and a blank": b"Transfer-Encoding:\n chunked", "folded": b"Transfer-Encoding:\r\n chunked", "folded with a tab": b"Transfer-Encoding:\r\n\tchunked",
    "in a first line that is folded": b" Transfer-Encoding: chunked", "without a colon": b"Transfer-Encoding chunked",
    "behind a DEL": b"Transfer-Encoding: \x7fchunked", "with a CR behind": b"Transfer-Encoding: chunked\r\r",
}.items():
    raw("a Transfer-Encoding " + label, POST + lines + b"\r\n\r\n" + CHUNKS + SMUGGLED)
for coding in ("identity", "identity, chunked", "gzip", "gzip, chunked", "xchunked", "chunkedx", '"chunked"', "'chunked'", "chunked;q=1", "chunked ;", ",chunked",
               "chun ked", "cow", "x: chunked", "\xa0chunked", "\x85chunked", "chunked\xa0", "CHUN\u017fED".encode().decode("latin-1")):
    raw(f"the coding {coding!r}", POST + b"Transfer-Encoding: " + coding.encode("latin-1") + b"\r\n\r\n" + CHUNKS + SMUGGLED, 501)
raw("an unknown coding beside a length", POST + b"Content-Length: 5\r\nTransfer-Encoding: cow\r\n\r\nhello" + SMUGGLED, 501)
raw("a coding in HTTP/1.0", b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + SMUGGLED)
raw("a coding in HTTP/1.0 that is kept", b"POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS)
raw("CHUNKED", POST + b"TRANSFER-encoding:\tCHUNKED\t\r\n\r\n" + CHUNKS, ONCE, HELLO)
raw("chunks in a GET", b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, ONCE, Meaning(body=b"hello"))
raw("Connection names Transfer-Encoding", POST + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, ONCE, HELLO)
ask("Transfer_Encoding, an alias", headers=[("Transfer_Encoding", "chunked")], seen=Meaning())
ask("Transfer.Encoding, an alias", headers=[("Transfer.Encoding", "chunked")], seen=Meaning())
ask("a body of unknown length", method="POST", body=b"hello", length=False)
ask("an empty body of unknown length", method="POST", length=False, seen=Meaning("POST", headers=[("Content-Length", "0")]))
ask("an unknown length, and a request in the body", method="POST", body=b"0\r\n\r\n" + SMUGGLED, length=False)

# ---- chunks ----

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
for label, body in {
    "size without digits": b"\r\nhello\r\n", "negative size": b"-5\r\nhello\r\n", "size with a plus": b"+5\r\nhello\r\n", "size behind a blank": b" 5\r\nhello\r\n",
    "size before a blank": b"5 \r\nhello\r\n", "size before a tab": b"5\t\r\nhello\r\n", "size with 0x": b"0x5\r\nhello\r\n", "size with an h": b"5h\r\nhello\r\n",
    "size of two numbers": b"5,5\r\nhello\r\n", "size that is no hex": b"g\r\nhello\r\n", "size before a bare LF": b"5\nhello\r\n", "size before a bare CR": b"5\rhello\r\n",
    "size behind a CR": b"\r5\r\nhello\r\n", "size before CR CR LF": b"5\r\r\nhello\r\n", "size before a NUL": b"5\0\r\nhello\r\n",
    "size of 16 digits": b"0000000000000005\r\nhello\r\n", "size of 2^64": b"10000000000000000\r\nhello\r\n", "size of 2^64 + 5": b"10000000000000005\r\nhello\r\n",
    "size of 2^64 - 1": b"ffffffffffffffff\r\nhello\r\n", "size of 2^63": b"8000000000000000\r\nhello\r\n", "size quoted": b'"5"\r\nhello\r\n', "size before a comment": b"5 (five)\r\nhello\r\n",
    "extension with a bare LF": b"5;a\nhello\r\n", "extension with a bare CR": b"5;a\rb\r\nhello\r\n", "extension with a NUL": b"5;a\0\r\nhello\r\n",
    "extension with a quoted CRLF": b'5;a="\r\n"\r\nhello\r\n', "extension with an open quote": b'5;a="b\r\nhello\r\n', "extension with an escaped quote": b'5;a="b\\"\r\nhello\r\n',
    "extension of 300 bytes": b"5;" + b"a" * 300 + b"\r\nhello\r\n", "extension with a DEL": b"5;\x7f\r\nhello\r\n",
    "extension on each of many": (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 100,
    "without CRLF behind it": b"5\r\nhello0\r\n", "with LF alone behind it": b"5\r\nhello\n0\r\n", "with CR alone behind it": b"5\r\nhello\r0\r\n",
    "longer than its size": b"5\r\nhello!\r\n", "shorter than its size": b"5\r\nhel\r\n0\r\n\r\n", "with a blank line behind it": b"5\r\nhello\r\n\r\n",
    "with blanks behind it": b"5\r\nhello  \r\n",
}.items():
    raw("a chunk " + label, CHUNKED + body + b"0\r\n\r\n" + SMUGGLED)
for label, lines, status in (
        ("Content-Length", b"Content-Length: 5\r\n", 400), ("Transfer-Encoding", b"transfer-encoding: chunked\r\n", 400), ("Host", b"Host: b\r\n", 400),
        ("a folded line", b"A: b\r\n c\r\n", 400), ("a first folded line", b" A: b\r\n", 400), ("no colon", b"A\r\n", 400), ("a NUL", b"A: \0\r\n", 400),
        ("a bare LF", b"A: b\nC: d\r\n", 400), ("a bare CR", b"A: b\rC: d\r\n", 400), ("a blank before the colon", b"A : b\r\n", 400), ("no name", b": b\r\n", 400),
        ("a request", b"GET /smuggled HTTP/1.1\r\n", 400), ("too many lines", b"A: b\r\n" * 101, 431), ("a line that is too long", b"A: " + b"b" * 9000 + b"\r\n", 431)):
    raw("a trailer with " + label, CHUNKED + CHUNKS[:-2] + lines + b"\r\n" + SMUGGLED, status)
for label, body in {"of two sizes": b"2\r\nhe\r\n3\r\nllo\r\n", "with zeros in front": b"005\r\nhello\r\n", "of 15 digits": b"000000000000005\r\nhello\r\n",
                    "with an extension": b"5;a\r\nhello\r\n", "with a value": b"5;a=b;c\r\nhello\r\n", "with a quoted value": b'5;a="b;\\"c"\r\nhello\r\n'}.items():
    raw("a chunk " + label, CHUNKED + body + b"0\r\n\r\n", ONCE, HELLO)
raw("a last chunk of many zeros", CHUNKED + b"A\r\n0123456789\r\n000\r\n\r\n", ONCE, Meaning("POST", body=b"0123456789"))
raw("a last chunk with an extension", CHUNKED + b"a;x=y\r\n0123456789\r\n0;z\r\n\r\n", ONCE, Meaning("POST", body=b"0123456789"))
for name in ("X-Forwarded-For", "Authorization", "Cookie", "Proxy", "Content-Type", "X-A", "Expect", "Connection", "Script-Filename"):
    raw("a trailer is no parameter: " + name, CHUNKED + CHUNKS[:-2] + name.encode() + b": evil\r\n\r\n", ONCE, HELLO)
raw("chunks that end early", CHUNKED + b"5\r\nhello\r\n0\r\n", None, closes=True)
raw("a chunk that ends early", CHUNKED + b"5\r\nhel", None, closes=True)
raw("a chunk larger than a site takes", CHUNKED + b"fffffffffffffff\r\nhello", 413)
raw("chunks that together are larger than a site takes", CHUNKED + (b"8000\r\n" + b"x" * 32768 + b"\r\n") * 4 + b"0\r\n\r\n" + SMUGGLED, 413)
raw("a body larger than a site takes", POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 1000, 413)

# ---- the request line ----

REST = b"\r\nHost: a\r\n\r\n"
for label, line, status in (
        ("two blanks", b"GET  /x HTTP/1.1", 400), ("two blanks before the version", b"GET /x  HTTP/1.1", 400), ("a blank in front", b" GET /x HTTP/1.1", 400),
        ("a blank behind", b"GET /x HTTP/1.1 ", 400), ("a tab behind the method", b"GET\t/x HTTP/1.1", 400), ("a tab before the version", b"GET /x\tHTTP/1.1", 400),
        ("a vertical tab", b"GET\v/x HTTP/1.1", 400), ("a blank in the target", b"GET /x /y HTTP/1.1", 400), ("a tab in the target", b"GET /x\t/y HTTP/1.1", 400),
        ("no version", b"GET /x", 400), ("no version and a blank", b"GET /x ", 400), ("no target", b"GET HTTP/1.1", 400), ("an empty target", b"GET  HTTP/1.1", 400),
        ("the method alone", b"GET", 400), ("an empty method", b" /x HTTP/1.1", 400), ("HTTP/0.9", b"GET /x HTTP/0.9", 505), ("HTTP/2.0", b"GET /x HTTP/2.0", 505),
        ("HTTP/3.0", b"GET /x HTTP/3.0", 505), ("HTTP/1.10", b"GET /x HTTP/1.10", 400), ("HTTP/01.1", b"GET /x HTTP/01.1", 400), ("HTTP/1", b"GET /x HTTP/1", 400),
        ("HTTP/1.", b"GET /x HTTP/1.", 400), ("HTTP/1,1", b"GET /x HTTP/1,1", 400), ("HTTP/ 1.1", b"GET /x HTTP/ 1.1", 400), ("HTTP 1.1", b"GET /x HTTP 1.1", 400),
        ("a lower-case version", b"GET /x http/1.1", 400), ("another protocol", b"GET /x ICY/1.1", 400), ("HTTP/1.1x", b"GET /x HTTP/1.1x", 400),
        ("a method with a paren", b"G(T /x HTTP/1.1", 400), ("a method with a colon", b"GET: /x HTTP/1.1", 400), ("a method with a NUL", b"GE\0T /x HTTP/1.1", 400),
        ("a method with a control byte", b"\x01GET /x HTTP/1.1", 400), ("a method beyond ASCII", b"G\xc3\x8bT /x HTTP/1.1", 400), ("a quoted method", b'"GET" /x HTTP/1.1', 400),
        ("a method that is too long", b"G" * 33 + b" /x HTTP/1.1", 501), ("CONNECT", b"CONNECT a:80 HTTP/1.1", 501), ("CONNECT with a path", b"CONNECT /x HTTP/1.1", 501),
        ("TRACE", b"TRACE /x HTTP/1.1", 405), ("the target * in a GET", b"GET * HTTP/1.1", 400), ("the target * with a query", b"OPTIONS *?x HTTP/1.1", 400),
        ("a NUL in the target", b"GET /x\0 HTTP/1.1", 400), ("a DEL in the target", b"GET /x\x7f HTTP/1.1", 400), ("a byte above ASCII in the target", b"GET /\xc3\xa4 HTTP/1.1", 400),
        ("a bare CR in the target", b"GET /x\rHost: b HTTP/1.1", 400), ("a bare LF in the target", b"GET /x\nHost: b HTTP/1.1", 400), ("a target without a slash", b"GET x HTTP/1.1", 400),
        ("a fragment", b"GET /x#y HTTP/1.1", 400), ("a fragment behind a query", b"GET /x?y#z HTTP/1.1", 400), ("a query alone", b"GET ?x HTTP/1.1", 400),
        ("a URL without a host", b"GET http:///x HTTP/1.1", 400), ("a URL of another scheme", b"GET ftp://a/x HTTP/1.1", 400), ("a URL with two ports", b"GET http://a:80:81/x HTTP/1.1", 400),
        ("a URL with a user", b"GET http://b@a/x HTTP/1.1", 400), ("a URL with a user and password", b"GET http://a:80@b/x HTTP/1.1", 400),
        ("a URL with a fragment", b"GET http://a/x#y HTTP/1.1", 400), ("a URL with a fragment as its host", b"GET http://a#b/x HTTP/1.1", 400),
        ("a URL with a backslash", b"GET http://a\\b/x HTTP/1.1", 400), ("a URL with an open bracket", b"GET http://[::1/x HTTP/1.1", 400),
        ("a URL with an encoded host", b"GET http://%61/x HTTP/1.1", 400), ("a URL with one slash", b"GET http:/a/x HTTP/1.1", 400), ("unix:", b"GET unix:/run/x|http://a/ HTTP/1.1", 400),
        ("a line that is too long", b"GET /" + b"x" * 9000 + b" HTTP/1.1", 414), ("a blank and nothing else", b" ", 400), ("a colon line", b"Host: a", 400)):
    raw("a request line with " + label, line + REST + SMUGGLED, status)
raw("a preface of HTTP/2 that is none", b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n" + SMUGGLED, 505)
raw("the preface of HTTP/2 behind a request", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, ONCE, Meaning(), keeps=False)
raw("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50 + b"\r\n\r\n", 400)
raw("HTTP/0.9 with LF", b"GET /x\n", 400)
raw("lines that end in LF", b"GET /x HTTP/1.1\nHost: a\n\n" + SMUGGLED)
raw("a head that ends in LF LF", b"GET /x HTTP/1.1\r\nHost: a\r\n\n" + SMUGGLED)
raw("a head that ends in LF CR LF", b"GET /x HTTP/1.1\r\nHost: a\n\r\n" + SMUGGLED)
raw("a head that ends in CR CR LF", b"GET /x HTTP/1.1\r\nHost: a\r\r\n\r\n" + SMUGGLED)
raw("many empty lines in front", b"\r\n\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
raw("an LF in front", b"\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n")
raw("a NUL in front", b"\0GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
raw("a folded line behind the request line", b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n")
raw("an empty line in front", b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", ONCE, Meaning())
raw("HTTP/1.2", b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n", ONCE, Meaning())
raw("HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n", ONCE, Meaning(), keeps=False, minor=0)
raw("HTTP/1.0 that is kept", b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", ONCE, Meaning(), minor=0)
raw("HTTP/1.0 without Host", b"GET /x HTTP/1.0\r\n\r\n", ONCE, Meaning(authority=None), keeps=False, minor=0)
raw("a head that never ends", b"GET /x HTTP/1.1\r\nHost: a\r\n", None, closes=True)
raw("a URL as the target", b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", ONCE, Meaning(target="/x?y"))
raw("a URL for another host than Host", b"GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n", ONCE, Meaning(authority="b:81"))
raw("a URL without a path", b"GET HTTP://b?y HTTP/1.1\r\nHost: a\r\n\r\n", ONCE, Meaning(target="/?y", authority="b"))
raw("a URL, and a Host that is not valid", b"GET http://a/x HTTP/1.1\r\nHost: a@b\r\n\r\n" + SMUGGLED)
raw("a URL, and two Hosts", b"GET http://a/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + SMUGGLED)
raw("a URL without Host", b"GET http://a/x HTTP/1.1\r\n\r\n" + SMUGGLED)
ask("a method in lower case", method="get")
ask("a method of 32 letters", method="M" * 32)
ask("a method that nobody knows", method="BREW-*'")
raw("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204)

# ---- Host ----

raw("no Host", b"GET /x HTTP/1.1\r\n\r\n" + SMUGGLED)
raw("two Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + SMUGGLED)
raw("two different Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n" + SMUGGLED)
raw("a second Host in a folded line", b"GET /x HTTP/1.1\r\nHost: a\r\n Host: b\r\n\r\n" + SMUGGLED)
raw("a blank before the colon of Host", b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n" + SMUGGLED)
for host in ("a b", "a/b", "a@b", "b:1@a", "a,b", "a;b", "a\tb", "a#b", "a?b", "a\\b", "a:80:80", "a:x", "a:65536", "a:-1", "a:+1", "a:0x50", "[::1", "::1", "[::1]x", "[a]", "a..b", ".a",
             "..", "a%00", "a%2fb", "%61", "\xe4", "a'b", 'a"b', "<a>", "a|b", "${a}", "http://a", "a" * 256):
    ask(f"the Host {host[:20]!r}", want=400, authority=host)
for host in ("a.b-c_d", "A", "a:80", "a:", "127.0.0.1", "[::1]:8080", "a."):
    ask(f"the Host {host!r} is taken", authority=host)
raw("an empty Host", b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", ONCE, Meaning(authority=""))

# ---- header fields ----

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"
for label, line in {
    "a blank in its name": b"A B: c", "a NUL in its name": b"A\0: c", "a control byte in its name": b"A\x01: c", "a paren in its name": b"(A): c", "no name": b": c",
    "no colon": b"A", "a blank before its colon": b"A : c", "a slash in its name": b"A/B: c", "an at sign in its name": b"A@B: c", "a byte above ASCII in its name": b"\xc3\x84: c",
    "a colon in front": b":authority: b", "a NUL": b"A: b\0c", "a bare CR": b"A: b\rc", "a bare LF": b"A: b\nC", "a DEL": b"A: b\x7f", "an ESC": b"A: \x1b[2J", "a form feed": b"A: b\fc",
    "a backspace": b"A: b\bc", "a fold": b"A: b\r\n c", "a fold with a tab": b"A: b\r\n\tc", "a line of blanks": b"A: b\r\n  ", "a quoted name": b'"A": b',
    "an equals sign in its name": b"A=B: c", "a CR at its end": b"A: b\r\r",
}.items():
    raw("a field with " + label, GET + line + b"\r\n\r\n" + SMUGGLED)
raw("a field of 40 KB", GET + b"A: " + b"b" * 40000 + b"\r\n\r\n" + SMUGGLED, 431)
raw("101 fields", GET + b"A: b\r\n" * 100 + b"\r\n" + SMUGGLED, 431)
ask("a field with an empty value", headers=[("A", "")])
ask("a field with a tab in its value", headers=[("A", "b\tc")], other=True)
ask("a field with bytes above ASCII", headers=[("A", "\xe4\xff\x80")])
ask("a field with quotes", headers=[("A", '"b\\"; c, <>{}')])
ask("two equal fields", headers=[("A", "b"), ("a", "c")])
ask("two cookies", headers=[("Cookie", "a=b"), ("Cookie", "c=d")])
ask("two Content-Type", want=400, method="POST", headers=[("Content-Type", "a/b"), ("Content-Type", "c/d")], body=b"x")
ask("two Authorization", want=400, headers=[("Authorization", "Basic YTpi"), ("authorization", "Basic Yzpk")])
for name in ("X_Y", "X.Y", "X!Y", "X~Y", "X|Y", "X^Y", "X`Y", "X*Y", "Remote_User", "PHP_VALUE", "PHP_ADMIN_VALUE", "Script_Filename", "HTTP_PROXY", "Https.", "X-Forwarded_For", "Proxy",
             "REDIRECT_STATUS", "AUTH_TYPE", "_", "A'B", "$A", "A&B"):
    ask(f"the field {name} is no parameter", headers=[(name, "evil")], seen=Meaning())
for name in ("Script-Filename", "Document-Root", "Remote-User", "Remote-Addr", "Content-Length-X", "Https", "Redirect-Status", "Php-Value", "Server-Name", "Path-Info", "Gateway-Interface"):
    ask(f"the field {name} is HTTP_* alone", headers=[(name, "evil")])
for name, value in (("Connection", "x-a"), ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("Upgrade", "websocket"), ("Upgrade", "h2c")):
    ask(f"the field {name}: {value} stays here", headers=[(name, value)], seen=Meaning(), other=False)
for name, value in (("TE", "trailers"), ("Trailer", "X-A"), ("Proxy-Authorization", "Basic YTpi"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")):
    ask(f"the field {name} stays here", headers=[(name, value)], seen=Meaning())
ask("Connection names another field", headers=[("Connection", "close, X-Secret"), ("X-Secret", "b")], seen=get("X-Secret", "b"), keeps=False, other=False)
ask("Connection: close", headers=[("Connection", "close")], seen=Meaning(), keeps=False, other=False)
raw("an upgrade to h2c", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", ONCE, Meaning())
raw("a coding by the field TE", POST + b"TE: chunked\r\nContent-Length: 5\r\n\r\nhello", ONCE, HELLO)

# ---- Expect ----

for value in ("x", "100-continue, x", "", "200-ok", "100-continue;q=1", "100"):
    ask(f"the expectation {value!r}", want=417, method="POST", headers=[("Expect", value)], body=b"hello", other=None)
ask("an expectation that is met", method="POST", headers=[("Expect", "100-continue")], body=b"hello", seen=HELLO, interim=(100,), other=None)
ask("an expectation in other letters", method="POST", headers=[("Expect", "100-CONTINUE")], body=b"hello", seen=HELLO, interim=(100,), other=None)
ask("an expectation twice", method="POST", headers=[("Expect", "100-continue")] * 2, body=b"hello", seen=HELLO, interim=(100,), other=None)
ask("an expectation without a body", headers=[("Expect", "100-continue")], seen=Meaning(), other=None)
ask("an expectation and chunks", method="POST", headers=[("Expect", "100-continue")], body=b"hello", length=False, seen=HELLO, interim=(100,), other=None)
raw("an expectation in HTTP/1.0", b"POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", ONCE, Meaning("POST", authority=None, body=b"hello"), keeps=False, minor=0)

# ---- paths ----

for path in ("/%00", "/x%00.php", "/%0a", "/%0d%0aX:%20y", "/%7f", "/%1b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/..", "/../x", "/x/../../y", "/%2e%2e/x", "/.%2e/x", "/x/%2e%2e/%2e%2e/y",
             "/%", "/%4", "/%zz", "/%u002f", "/x%", "/%-1"):
    ask(f"the path {path}", want=400, target=path)
for path in ("/x%20y", "/x;p=1/y", "/x/./y", "/x//y", "//x", "/x/../y", "/x/%2e%2e/y", "/x/", "/x/.", "/%c0%ae%c0%ae/x", "/x%3fy", "/%252e%252e/x", "/x%23y", "/%ff", "/~x!$&'()*+,=:@", "/x?y?z", "/x?%00%0a",
             "/x?../../y", "/x?", "/%E4", "/x?a=http://b/#c".replace("#", "%23"), '/x"y<z>', "/{x}|y^z`", "/..x", "/x..", "/...", "/x?y z".replace(" ", "+")):
    ask(f"the path {path} is taken", target=path)

# ---- what follows ----

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
raw("behind a refusal nothing runs", b"GET /x HTTP/1.1\r\n\r\n" + NEXT * 3)
raw("behind Connection: close nothing runs", GET + b"Connection: close\r\n\r\n" + SMUGGLED, ONCE, Meaning(), keeps=False)
raw("behind HTTP/1.0 nothing runs", b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n" + SMUGGLED, ONCE, Meaning(), keeps=False, minor=0)
raw("behind a body that is too large nothing runs", POST + b"Content-Length: 102401\r\n\r\n" + b"x" * 102401 + SMUGGLED, 413)
raw("behind an unknown expectation nothing runs", POST + b"Expect: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, 417)

NAMES = {c.name for c in CASES}
assert len(NAMES) == len(CASES), sorted(c.name for c in CASES if [d.name for d in CASES].count(c.name) > 1)

# ---- what the app has to see ----

STAYS = {"proxy", "te", "upgrade", "trailer", "connection", "keep-alive", "content-length", "content-type", "transfer-encoding", "proxy-connection", "proxy-authorization",
         "proxy-authenticate", "expect", "http2-settings", "host"}


def resolved(path):
    """Decoded once, without empty, "." and ".." segments."""
    text = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m.group(1), 16)]), path.encode("latin-1"))
    out = []
    parts = text.split(b"/")[1:]
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == b"..":
            out.pop()
        if part in (b"", b".", b".."):
            out += [b""] if last else []
        else:
            out.append(part)
    return ("/" + b"/".join(out).decode("latin-1")) if out else "/"


def parameters(m, port, protocol, streamed=False, scheme="http"):
    """All parameters of this request, but for REMOTE_PORT, REQUEST_ID and SERVER_SOFTWARE. streamed: a body of unknown length was not waited for."""
    path, _, query = m.target.partition("?")
    p = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": m.method, "SCRIPT_NAME": "", "QUERY_STRING": query, "REQUEST_URI": m.target, "DOCUMENT_URI": resolved(path),
         "PATH_INFO": resolved(path), "SERVER_PROTOCOL": protocol, "REQUEST_SCHEME": scheme, "SERVER_PORT": str(port), "SERVER_ADDR": "127.0.0.1", "REMOTE_ADDR": "127.0.0.1",
         "REDIRECT_STATUS": "200", "SERVER_NAME": "_"}
    if m.authority is not None:
        p["HTTP_HOST"] = m.authority
        p["SERVER_NAME"] = re.match(r"\[[^]]*\]|[^:]*", m.authority).group(0) or "_"
    for name, value in m.headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        if name == "Content-Length":
            p["CONTENT_LENGTH"] = value
        if name == "Content-Type":
            p["CONTENT_TYPE"] = value
        if name.lower() in STAYS or not re.fullmatch("[A-Za-z0-9-]+", name):
            continue
        p[key] = p[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value if key in p else value
    if m.body:
        p["CONTENT_LENGTH"] = str(len(m.body))
    if streamed:
        p.pop("CONTENT_LENGTH", None)
    return p

# ---- what HTTP/2 alone can carry, and HTTP/1 behind it could take for more ----

PSEUDO = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")]
STREAMS = []  # (name, fields, body or None, trailers or None, Meaning or None: refused)


def refused(name, *fields, body=None, trailers=None):
    STREAMS.append((name, [*PSEUDO, *fields], body, trailers, None))


def instead(name, **of):
    """Pseudo fields of other values, or none."""
    fields = [(n, of.get(n[1:], v)) for n, v in PSEUDO]
    STREAMS.append((name, [f for f in fields if f[1] is not None], None, None, None))


EVIL = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
for label, value in {"CRLF and a field": "b\r\nx-evil: c", "CRLF CRLF and a request": "b\r\n\r\n" + EVIL, "an LF": "b\nc", "a CR": "b\rc", "a NUL": "b\0c", "a DEL": "b\x7f", "an ESC": "b\x1b"}.items():
    refused("a field with " + label, ("x-a", value))
    refused("a cookie with " + label, ("cookie", value))
for label, name in {"CRLF": "x\r\ny", "CRLF and a request": "x: y\r\n\r\n" + EVIL, "a colon": "x: y", "a colon alone": "x:", "a blank": "x y", "capitals": "X-A", "capitals of a length": "Content-Length",
                    "a NUL": "x\0", "no bytes": "", "bytes above ASCII": "\xe4", "a paren": "(x)"}.items():
    refused("a field name with " + label, (name, "b"))
for name, value in (("transfer-encoding", "chunked"), ("transfer-encoding", "identity"), ("transfer-encoding", ""), ("connection", "close"), ("connection", "content-length"), ("keep-alive", "timeout=5"),
                    ("upgrade", "h2c"), ("proxy-connection", "keep-alive"), ("te", "chunked"), ("te", "trailers, deflate")):
    refused(f"the field {name}: {value}", (name, value))
    refused(f"the field {name}: {value} with a body", (name, value), body=b"0\r\n\r\n" + SMUGGLED)
for value in ("5", "500", "0", "5, 5", "+37", "-1", "", "0x25", "9223372036854775808", "18446744073709551616", "18446744073709551653", "37 ", "3\t7"):
    refused(f"the length {value!r} of a body of {len(SMUGGLED)} bytes", ("content-length", value), body=SMUGGLED)
refused("a length without a body", ("content-length", "5"))
refused("two lengths", ("content-length", "5"), ("content-length", "5"), body=b"hello")
refused("two different lengths", ("content-length", "5"), ("content-length", "0"), body=b"hello")
for label, method in {"CRLF": "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET", "a blank": "GET /y", "a NUL": "GET\0", "no bytes": "", "a slash": "GE/T", "a length of 33": "G" * 33}.items():
    instead("a method with " + label, method=method)
for label, path in {"CRLF": "/x HTTP/1.1\r\nHost: b\r\n\r\n", "a blank": "/x y", "a version": "/x HTTP/1.1", "no bytes": "", "no slash": "x", "a star": "*", "a NUL": "/\0", "a fragment": "/x#y",
                    "a URL": "http://a/x", "another authority": "@b/x", "bytes above ASCII": "/\xe4", "%00": "/%00", "%0d%0a": "/%0d%0aHost:%20b", "%2f": "/a%2fb", "a way out": "/../x", "a tab": "/x\ty"}.items():
    instead("a path with " + label, path=path)
for label, authority in {"CRLF": "a\r\nx-evil: b", "a user": "b@a", "a slash": "a/x", "a blank": "a b", "no bytes": "", "a NUL": "a\0", "two ports": "a:1:2", "a comma": "a,b", "a query": "a?b"}.items():
    instead("an authority with " + label, authority=authority)
for missing in ("method", "scheme", "path"):
    instead("no :" + missing, **{missing: None})
instead("neither :authority nor host", authority=None)
for name, value in PSEUDO:
    refused(f"{name} twice", (name, value))
    STREAMS.append((f"{name} behind a field", [f for f in PSEUDO if f[0] != name] + [("x-a", "b"), (name, value)], None, None, None))
refused("a pseudo field that is none", (":evil", "b"))
refused(":status in a request", (":status", "200"))
refused(":protocol that was not offered", (":protocol", "websocket"))
refused("a host that is not the authority", ("host", "b"))
refused("two hosts", ("host", "a"), ("host", "a"))
instead("CONNECT with a path", method="CONNECT")
refused("a pseudo field in trailers", body=b"hello", trailers=[(":path", "/smuggled")])
refused("a connection field in trailers", body=b"hello", trailers=[("transfer-encoding", "chunked")])
STREAMS += [
    ("a host that is the authority", [*PSEUDO, ("host", "a")], None, None, Meaning()),
    ("a host and no authority", [f for f in PSEUDO if f[0] != ":authority"] + [("host", "b:80")], None, None, Meaning(authority="b:80")),
    ("cookies in crumbs", [*PSEUDO, ("cookie", "a=b"), ("x-a", "c"), ("cookie", "c=d")], None, None, Meaning(headers=[("cookie", "a=b; c=d"), ("x-a", "c")])),
    ("te: trailers", [*PSEUDO, ("te", "trailers")], None, None, Meaning()),
    ("a body that looks like chunks", [*PSEUDO, ("content-length", str(len(SMUGGLED) + 5))], b"0\r\n\r\n" + SMUGGLED, None, Meaning(body=b"0\r\n\r\n" + SMUGGLED)),
    ("a body without a length", PSEUDO, SMUGGLED, None, Meaning(body=SMUGGLED)),
    ("trailers", PSEUDO, b"hello", [("x-a", "evil"), ("cookie", "evil"), ("authorization", "evil")], Meaning(body=b"hello")),
    ("an expectation that is met", [*PSEUDO, ("expect", "100-continue")], b"hello", None, Meaning(body=b"hello")),
]
assert len({s[0] for s in STREAMS}) == len(STREAMS)
