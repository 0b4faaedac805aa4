#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Bodies that are larger than memory should hold: uploads that stream and uploads that are taken whole first, answers of an app and of a
file, readers that pause. Prints what the gateway's memory grows by, at its peak; more than 32 MB is a failure, and so is a byte that is
missing. Needs that much disk for one upload (and checks)."""
import argparse
import os
import shutil
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

GROWTH_MAX = 32 << 20
PIECE = bytes(1 << 20)


def memory(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(what)) * 1024


def temp_bytes(weir):
    """What unnamed temp files of the gateway take of the disk."""
    total, folder = 0, f"/proc/{weir.gateway()}/fd"
    for fd in os.listdir(folder):
        try:
            if os.readlink(os.path.join(folder, fd)).startswith(weir.run_dir):
                total += os.stat(os.path.join(folder, fd)).st_blocks * 512
        except OSError:
            pass
    return total


def head(s):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        assert piece, data
        data += piece
    first, _, body = data.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200"), first
    return body


def upload(weir, site, count, chunked):
    with weir.connect(600) as s:
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (count * len(PIECE))
        s.sendall(b"POST /discard HTTP/1.1\r\nHost: " + site + b"\r\nConnection: close\r\n" + length + b"\r\n\r\n")
        piece = b"%x\r\n" % len(PIECE) + PIECE + b"\r\n" if chunked else PIECE
        for _ in range(count):
            s.sendall(piece)
        if chunked:
            s.sendall(b"0\r\n\r\n")
        body = head(s)
        while piece := s.recv(65536):
            body += piece
    assert b"%d\n" % (count * len(PIECE)) in body, body


def download(weir, site, path, count, pause=0):
    buf = bytearray(1 << 20)
    with socket.socket() as s:
        if pause:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s.settimeout(600)
        s.connect(("127.0.0.1", weir.port))
        s.sendall(b"GET " + path + b" HTTP/1.0\r\nHost: " + site + b"\r\n\r\n")
        got = len(head(s))
        if pause:
            time.sleep(pause)  # it is behind, however fast it is then
        while n := s.recv_into(buf):
            got += n
    assert got == count * len(PIECE), (got, count * len(PIECE))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", required=True)
    p.add_argument("--megabytes", type=int, default=2048)
    o = p.parse_args()
    os.environ["WEIR_BUILD"] = o.build
    from weirlib import USER, Weir
    n = o.megabytes
    config = ("site stream { listen http://127.0.0.1:PORT; pool app; body { max 8G; stream always } }\n"
              "site whole { listen http://127.0.0.1:PORT; pool app; body 8G }\nsite files { listen http://127.0.0.1:PORT; root public }\n"
              "site plain { listen http://127.0.0.1:PORT; pool plain }\n"
              f"pool app {{ run ./bench_app; {USER} }}\npool plain {{ run ./recorder.py; {USER} }}\n")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "recorder.py"), encoding="utf-8") as f:
        recorder = f.read()
    with Weir(config, {"recorder.py": recorder}) as w:
        free = shutil.disk_usage(w.dir).free
        assert free > (n << 20) * 2, f"{free >> 20} MB of disk are free: too few for {n} MB"
        with open(os.path.join(w.public, "file"), "wb") as f:
            f.truncate(n << 20)
        upload(w, b"stream", 1, False)
        download(w, b"whole", b"/big/%d" % (1 << 20), 1)
        failed = False
        for what, run in (("upload, streams", lambda: upload(w, b"stream", n, False)),
                          ("upload, streams, length not told", lambda: upload(w, b"stream", n, True)),
                          ("upload, taken whole first", lambda: upload(w, b"whole", n, False)),
                          ("download from an app", lambda: download(w, b"whole", b"/big/%d" % (n << 20), n)),
                          ("download from an app, reader behind", lambda: download(w, b"whole", b"/big/%d" % (n << 20), n, 0.5)),
                          ("download from a plain app, reader behind", lambda: download(w, b"plain", b"/?big=%d" % (n << 20), n, 0.5)),
                          ("download of a file", lambda: download(w, b"files", b"/file", n))):
            pid = w.gateway()
            with open(f"/proc/{pid}/clear_refs", "w") as f:
                f.write("5")  # the peak begins anew
            before, begin = memory(pid, "VmRSS"), time.monotonic()
            run()
            grown = memory(pid, "VmHWM") - before
            assert w.gateway() == pid
            print(f"{what + ':':42}{n} MB in {time.monotonic() - begin:5.1f} s, memory + {grown / 1e6:.1f} MB, left on the disk {temp_bytes(w)} bytes")
            failed |= grown > GROWTH_MAX or temp_bytes(w) > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
