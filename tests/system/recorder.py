#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A FastCGI app with a codec of its own: it answers with what it was sent, exactly. Its query says what else it does."""
import hashlib
import json
import os
import socket
import struct
import sys
import time
import urllib.parse

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT = range(1, 11)


def record(kind, rid, content=b"", padding=0):
    return struct.pack("!BBHHBx", 1, kind, rid, len(content), padding) + content + bytes(padding)


def pair(name, value):
    def length(n):
        return bytes([n]) if n < 128 else struct.pack("!I", n | 1 << 31)
    return length(len(name)) + length(len(value)) + name + value


def pairs(data):
    out, at = [], 0
    while at < len(data):
        sizes = []
        for _ in range(2):
            if data[at] < 128:
                sizes.append(data[at])
                at += 1
            else:
                sizes.append(struct.unpack_from("!I", data, at)[0] & 0x7fffffff)
                at += 4
        name, value = data[at:at + sizes[0]], data[at + sizes[0]:at + sum(sizes)]
        at += sum(sizes)
        out.append((name.decode("latin-1"), value.decode("latin-1")))
    return out


def read(conn, n):
    data = bytearray(n)
    at, view = 0, memoryview(data)
    while at < n:
        got = conn.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return bytes(data)


def read_record(conn):
    _, kind, rid, length, padding = struct.unpack("!BBHHBx", read(conn, 8))
    content = read(conn, length)
    read(conn, padding)
    return kind, rid, content


def stream(conn, kind, rid, data):
    for i in range(0, len(data), 60000):
        conn.sendall(record(kind, rid, data[i:i + 60000]))


def touch(path):
    with open(path, "w") as f:
        f.write(str(os.getpid()))


def answer(conn, rid, role, params, stdin, data):
    names = dict(params)
    q = dict(urllib.parse.parse_qsl(names.get("QUERY_STRING", "")))
    if "started" in q:
        touch(q["started"])
    if "err" in q:
        stream(conn, STDERR, rid, (q["err"] + "\n").encode() * int(q.get("times", 1)))
    if "until" in q:  # its file says that it may go on; a close of the connection is noticed
        conn.settimeout(0.01)
        while not os.path.exists(q["until"]):
            try:
                if conn.recv(1) == b"":
                    raise EOFError
            except socket.timeout:
                continue
            except (OSError, EOFError):
                if "aborted" in q:
                    touch(q["aborted"])
                raise EOFError from None
        conn.settimeout(None)
    time.sleep(float(q.get("sleep", 0)))
    left = int(q.get("big", 0))
    text = b"" if left else json.dumps(
        {"role": role, "params": params, "stdin": len(stdin), "sha": hashlib.sha256(stdin).hexdigest(), "data": data.decode("latin-1")}).encode()
    stream(conn, STDOUT, rid, b"Content-Type: application/octet-stream\r\n\r\n" + text)
    piece = record(STDOUT, rid, b"x" * 60000)
    while left >= 60000:
        conn.sendall(piece)
        left -= 60000
    stream(conn, STDOUT, rid, b"x" * left)
    if "die" in q:
        os._exit(1)
    conn.sendall(record(STDOUT, rid) + record(END, rid, struct.pack("!IB3x", int(q.get("status", 0)), 0)))


def serve(conn):
    while True:
        kind, rid, content = read_record(conn)
        if kind != BEGIN:
            continue
        role, flags = struct.unpack_from("!HB", content)
        parts = {PARAMS: bytearray(), STDIN: bytearray(), DATA: bytearray()}
        ended, needed = set(), {1: {PARAMS, STDIN}, 2: {PARAMS}, 3: {PARAMS, STDIN, DATA}}[role]
        while not needed <= ended:
            kind, _, content = read_record(conn)
            if content:
                parts[kind] += content
            else:
                ended.add(kind)
        answer(conn, rid, role, pairs(bytes(parts[PARAMS])), parts[STDIN], parts[DATA])
        if not flags & 1:
            return


def main():
    listener = socket.socket(fileno=0)
    while True:
        conn, _ = listener.accept()
        try:
            serve(conn)
        except (EOFError, OSError):
            pass
        conn.close()


if __name__ == "__main__":
    sys.exit(main())
