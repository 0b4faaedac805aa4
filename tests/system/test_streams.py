# SPDX-License-Identifier: MIT
"""Slow readers, slow writers, and who has to wait for them."""
import os
import shutil
import socket

import pytest
from weirlib import SLOW, TEST_APPS, USER, Weir, wait_for


def slow_reader(port, path):
    """A client that asks and does not read."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60 * SLOW)
    s.connect(("127.0.0.1", port))
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return s


def read_all(s):
    total = 0
    while True:
        piece = s.recv(65536)
        if not piece:
            return total
        total += len(piece)


@pytest.mark.threads
def test_slow_readers_do_not_hold_the_threads_of_a_handler_that_waits():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; min-rate none; route /app/ {{ pool p }} }}\npool p {{ run ./threads_app; {USER} }}", wait=False) as w:
        shutil.copy(os.path.join(TEST_APPS, "threads_app"), w.dir)
        wait_for(lambda: w.pids("p"), 30)
        n = 8_000_000
        readers = [slow_reader(w.port, f"/app/big/{n}") for _ in range(4)]
        for s in readers:
            assert s.recv(1) == b"H"
        assert w.get("/app/short").text == b"short\n"  # all that they wrote was taken off them
        wait_for(lambda: w.pool("p")["processes"][0]["busy"] == 0)
        for s in readers:
            assert read_all(s) > n
            s.close()


@pytest.mark.threads
def test_slow_readers_of_an_event_app_are_held_by_their_window_and_hold_nobody():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p; min-rate none; time {{ send 10m }} }}\npool p {{ run ./bench_app; {USER} }}", log="-") as w:
        n = 30_000_000
        readers = [slow_reader(w.port, f"/big/{n}") for _ in range(20)]
        wait_for(lambda: w.pool("p")["processes"][0]["busy"] == 20)
        for _ in range(20):
            assert w.get("/hello").status == 200
        with open(f"/proc/{w.gateway()}/statm") as f:
            assert int(f.read().split()[1]) * 4096 < (200 if SLOW > 1 else 60) << 20
        for s in readers[:3]:
            assert read_all(s) > n
        for s in readers:
            s.close()
        wait_for(lambda: w.pool("p")["processes"][0]["busy"] == 0)
