# SPDX-License-Identifier: MIT
"""Answers of HTTP/1 as a strict client reads them: what is no answer, or could be read in two ways, fails."""
import re


class Cut(Exception):
    """The last answer did not come whole, and whoever reads it can tell."""

    def __init__(self, before, status, fields, body):
        super().__init__(status, body)
        self.before, self.status, self.fields, self.body = before, status, fields, body


def chunks(rest):
    """Content and what is behind it; None: it ends early."""
    body = b""
    while True:
        size, sep, after = rest.partition(b"\r\n")
        if not sep:
            return body, None
        assert re.fullmatch(rb"[0-9a-f]+", size), size
        n = int(size, 16)
        if len(after) < n + 2:
            return body + after[:n], None
        assert after[n:n + 2] == b"\r\n", after
        body, rest = body + after[:n], after[n + 2:]
        if not n:
            return body, rest


def fields_of(head):
    lines = head.split(b"\r\n")
    first = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+", lines[0])
    assert first, lines[0]
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b": ")
        assert colon and re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and re.fullmatch(rb"[\t\x20-\x7e\x80-\xff]*", value), line
        key = name.lower().decode()
        assert key not in fields or key not in ("content-length", "transfer-encoding", "connection", "date", "server", "location", "content-type"), line
        fields.setdefault(key, value)
    return int(first.group(1)), fields


def answers(data, methods=()):
    """All of them: (status, fields, content). methods: what each final one answers (GET where it is not told)."""
    out, methods = [], list(methods)
    while data:
        head, sep, rest = data.partition(b"\r\n\r\n")
        assert sep, data
        status, fields = fields_of(head)
        method = methods.pop(0) if methods and status >= 200 else "GET"
        assert not ("content-length" in fields and "transfer-encoding" in fields), head
        if status < 200 or status in (204, 304) or method == "HEAD":
            assert method == "HEAD" or ("content-length" not in fields and "transfer-encoding" not in fields), head
            body, data = b"", rest
        elif "content-length" in fields:
            assert re.fullmatch(rb"\d+", fields["content-length"])
            n = int(fields["content-length"])
            body, data = rest[:n], rest[n:]
            if len(body) < n:
                raise Cut(out, status, fields, body)
        elif "transfer-encoding" in fields:
            assert fields["transfer-encoding"] == b"chunked"
            body, data = chunks(rest)
            if data is None:
                raise Cut(out, status, fields, body)
        else:
            assert fields["connection"] == b"close"
            body, data = rest, b""
        out.append((status, fields, body))
    return out
